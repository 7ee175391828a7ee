//! A trained model and its uses.

use crate::data::dataset::Dataset;
use crate::data::screen::Screen;
use crate::error::{Error, Result};
use crate::evaluation::certainty::Certainty;
use crate::evaluation::interpretation::{CellRecord, Interpretation, Target};
use crate::fit::donors::Donors;
use crate::fit::trained_on::TrainedOn;
use crate::inference::linear::{LinearInference, LinearModel};
use crate::inference::trained_model::TrainedModel;
use crate::inference::{Inference, evaluation_workspace};
use crate::model::network::Network;
use crate::numerics::real::{Precision, Real};
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::cells::write_cells;
use crate::results::findings::{Findings, write_findings};
use crate::results::folder::{Earlier, ResultsFolder};
use crate::results::model_file::{LinearSizes, SavedModel, read_linear, read_network};
use crate::settings::{RawSettings, Settings};
use crate::training::history::EpochRecord;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// A trained model, with what it says about its screen and all that is needed to use it on other cells.
#[derive(Debug, Clone)]
pub struct Fitted {
    pub(crate) settings: Settings,
    pub(crate) trained_on: TrainedOn,
    pub(crate) weights: TrainedNetwork,
    pub(crate) masks: Option<Vec<f64>>,
    pub(crate) shifts: Option<Vec<f64>>,
    pub(crate) source: ModelSource,
}

/// TrainedNetwork, in the precision of their training.
#[derive(Debug, Clone)]
pub(crate) enum TrainedNetwork {
    Single(Box<Network<f32>>),
    Double(Box<Network<f64>>),
    /// No network: a linear map.
    Linear(Box<LinearModel>),
}

/// Where a model comes from.
#[derive(Debug, Clone)]
pub(crate) enum ModelSource {
    /// It was trained here.
    Training(Box<TrainingRecord>),
    /// It was read from a results folder.
    Folder(PathBuf),
}

/// What a training leaves behind beside the model.
#[derive(Debug, Clone)]
pub(crate) struct TrainingRecord {
    /// The screen without its counts.
    pub(crate) screen: Screen,
    pub(crate) history: Vec<EpochRecord>,
    pub(crate) interpretation: Interpretation,
    /// Posterior means, cells x L.
    pub(crate) latents: Vec<f64>,
    pub(crate) cells: Vec<CellRecord>,
}

impl Fitted {
    /// The model of a results folder, written by `svae-cpu run` or by [`Fitted::save`].
    ///
    /// # Errors
    /// [`crate::InputError`] for a folder without a run, or whose files do not fit together.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        ResultsFolder::open(folder)?;
        let settings = Settings::load(Some(&ResultsFile::Config.within(folder)), RawSettings::default())?;
        Self::open_with(settings, folder)
    }

    /// As [`Fitted::open`], with settings that are those of the folder but for what does not belong to the model.
    ///
    /// # Errors
    /// As [`Fitted::open`].
    pub(crate) fn open_with(settings: Settings, folder: &Path) -> Result<Self> {
        let folder = ResultsFolder::open(folder)?.path().to_path_buf();
        let trained_on = TrainedOn::read(&folder)?;
        let weights = TrainedNetwork::read(&ResultsFile::Model.within(&folder), &settings, &trained_on)?;
        let (masks, shifts) = weights.prior();
        Ok(Self { settings, trained_on, weights, masks, shifts, source: ModelSource::Folder(folder) })
    }

    /// Writes the results folder of the model, as `svae-cpu run` does, without the figures of a run and its report. The
    /// commands that use a trained model (`embed`, `normalize`, `sample`) and [`Fitted::open`] take it.
    ///
    /// # Errors
    /// [`crate::InputError`] if a run is there already, or for a model that has been opened: it has a folder.
    /// [`Error::Io`] naming the file that could not be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let ModelSource::Training(record) = &self.source else {
            let remedy = "copy that folder";
            return Err(self.trained_on.error("the model has a folder already", remedy));
        };
        let folder = ResultsFolder::create(Some(folder.as_ref()), Earlier::Keep)?;
        match &self.weights {
            TrainedNetwork::Single(network) => record.write(&folder, &self.settings, &**network),
            TrainedNetwork::Double(network) => record.write(&folder, &self.settings, &**network),
            TrainedNetwork::Linear(model) => record.write(&folder, &self.settings, &**model),
        }
    }

    /// The settings as used.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Names of interventions, genes and covariates, in the model's order.
    pub fn trained_on(&self) -> &TrainedOn {
        &self.trained_on
    }

    /// Probabilities of the masks, interventions x L, row-major; `None` for a model without masks.
    pub fn masks(&self) -> Option<&[f64]> {
        self.masks.as_deref()
    }

    /// Shifts in deviations of a latent's prior, interventions x L, row-major; `None` for a model whose prior has none.
    pub fn shifts(&self) -> Option<&[f64]> {
        self.shifts.as_deref()
    }

    /// Edges of the graph: pairs of an intervention and a latent that it targets. Empty for a model that was opened: see its
    /// `targets.csv`.
    pub fn targets(&self) -> &[Target] {
        self.record().map_or(&[], |record| &record.interpretation.targets)
    }

    /// How sure every pair of intervention and latent is; `None` for a model whose masks are not integrated out, and for one that
    /// was opened: see its `edges.csv`.
    pub fn certainty(&self) -> Option<&Certainty> {
        self.record()?.interpretation.certainty.as_ref()
    }

    /// The epochs of the training. Empty for a model that was opened: see its `history.csv`.
    pub fn history(&self) -> &[EpochRecord] {
        self.record().map_or(&[], |record| &record.history)
    }

    fn record(&self) -> Option<&TrainingRecord> {
        match &self.source {
            ModelSource::Training(record) => Some(record),
            ModelSource::Folder(_) => None,
        }
    }

    /// Posterior means of the latents of `cells`, cells x L, row-major. Genes are matched by name; those that `cells` lacks
    /// count as 0.
    ///
    /// # Errors
    /// [`crate::InputError`] if no gene matches, or for a level of a covariate that the model has not seen; counts on disk that
    /// cannot be read.
    pub fn latents(&self, cells: &Dataset) -> Result<Vec<f64>> {
        let cells = self.trained_on.as_seen(cells, self.settings.model.encode_covariates)?;
        match &self.weights {
            TrainedNetwork::Single(network) => self.latents_in(network, &cells),
            TrainedNetwork::Double(network) => self.latents_in(network, &cells),
            TrainedNetwork::Linear(model) => Team::with(self.settings.n_threads(), |team| {
                let all: Vec<usize> = (0..cells.n_cells()).collect();
                LinearInference { team, model, data: &cells }.posterior_means(&all)
            }),
        }
    }

    fn latents_in<R: Real>(&self, network: &Network<R>, cells: &Dataset) -> Result<Vec<f64>> {
        let all: Vec<usize> = (0..cells.n_cells()).collect();
        let workspace = &mut evaluation_workspace(network, cells);
        let means = Team::with(self.settings.n_threads(), |team| {
            Inference { team, network, data: cells, workspace }.posterior_means(&all)
        })?;
        Ok(means.iter().map(|z| z.to_f64()).collect())
    }

    /// The training cells whose size factors and covariates simulated cells take.
    pub(crate) fn donors(&self) -> Result<Donors> {
        match &self.source {
            ModelSource::Training(record) => Ok(Donors::of(&record.screen)),
            ModelSource::Folder(folder) => Donors::read(&ResultsFile::Cells.within(folder), &self.trained_on),
        }
    }

    /// The weights that know the intervention `held_out` of the training, with their masks frozen; those of the training for
    /// `None`.
    pub(crate) fn weights_for(&self, held_out: Option<usize>) -> Result<Cow<'_, TrainedNetwork>> {
        let Some(a) = held_out else { return Ok(Cow::Borrowed(&self.weights)) };
        match &self.source {
            ModelSource::Folder(folder) if ResultsFile::HeldOutModel.within(folder).is_file() => {
                let path = ResultsFile::HeldOutModel.within(folder);
                Ok(Cow::Owned(TrainedNetwork::read(&path, &self.settings, &self.trained_on)?.frozen()))
            }
            _ => {
                let name = &self.trained_on.interventions[a];
                let problem = format!("`{name}` was held out of the training and never fitted");
                let remedy = "fit it with `svae-cpu fit-shifts`, or sample another intervention";
                Err(self.trained_on.error_at(problem, remedy, "--intervention"))
            }
        }
    }
}

impl TrainedNetwork {
    fn read(path: &Path, settings: &Settings, trained_on: &TrainedOn) -> Result<Self> {
        if !settings.model.method.trains_network() {
            let (genes, interventions) = (trained_on.genes.len(), trained_on.interventions.len());
            let sizes = LinearSizes { genes, latents: settings.model.latents, interventions };
            return Ok(Self::Linear(Box::new(read_linear(path, settings.model.likelihood, sizes)?)));
        }
        let architecture = trained_on.architecture(settings);
        Ok(match settings.training.precision {
            Precision::F32 => Self::Single(Box::new(read_network(path, architecture)?.0)),
            Precision::F64 => Self::Double(Box::new(read_network(path, architecture)?.0)),
        })
    }

    /// Probabilities of the masks and shifts, each where the model has them.
    fn prior(&self) -> (Option<Vec<f64>>, Option<Vec<f64>>) {
        fn of<R: Real>(network: &Network<R>) -> (Option<Vec<f64>>, Option<Vec<f64>>) {
            let wide = |values: &[R]| values.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
            let shifts = network.tensors.shift.as_ref().map(|shift| wide(&network.parameters[shift]));
            (network.prior().probabilities().map(|masks| wide(&masks)), shifts)
        }
        match self {
            Self::Single(network) => of(network),
            Self::Double(network) => of(network),
            Self::Linear(model) => (model.prior().probabilities(), Some(model.shift.clone())),
        }
    }

    fn frozen(mut self) -> Self {
        match &mut self {
            Self::Single(network) => network.prior_mut().freeze(),
            Self::Double(network) => network.prior_mut().freeze(),
            Self::Linear(_) => {}
        }
        self
    }
}

impl TrainingRecord {
    fn write(&self, folder: &ResultsFolder, settings: &Settings, model: &dyn SavedModel) -> Result<(), Error> {
        let Self { screen, history, interpretation, latents, cells } = self;
        let l = settings.model.latents;
        folder.write_config(settings)?;
        write_cells(folder, &screen.data, l, settings.training.precision, |put| {
            latents.chunks_exact(l).zip(cells).try_for_each(|(mean, record)| put(mean, record))
        })?;
        write_findings(folder, &Findings { config: settings, screen, model, history, interpretation })
    }
}
