//! The library in one call: [`fit()`] trains a model on a screen in memory, and [`Fitted`] is what comes of it.
//!
//! Nothing here writes a file, prints, or listens to signals, except [`Fitted::save`] and [`Fitted::open`], which write and
//! read the results folder of the command line.

mod donors;
mod fitted;
mod predict;
mod rates;
mod sample;
mod trained_on;

use crate::checkpoint::ResumableRun;
use crate::data::dataset::Dataset;
use crate::data::screen::LoadedScreen;
use crate::data::split::ScreenSplit;
use crate::error::Result;
use crate::evaluation::interpretation::{CellRecord, Interpretation, Readout};
use crate::fit::fitted::{ModelSource, TrainedNetwork, TrainingRecord};
use crate::inference::linear::{LinearInference, LinearModel};
use crate::inference::trained_model::TrainedModel;
use crate::inference::{Inference, evaluation_workspace};
use crate::model::network::Network;
use crate::numerics::real::{Precision, Real};
use crate::parallel::team::Team;
use crate::settings::Settings;
use crate::training::history::EpochRecord;
use crate::training::observer::Observer;
use crate::training::starts::{Starts, StartsMetrics, train_from_starts};
use crate::training::trainer::{Training, TrainingTask};
pub use fitted::Fitted;
pub use predict::{PredictionBasis, Wanted};
pub use rates::RatesRequest;
pub use sample::{SampleRequest, SampledCells};
pub use trained_on::TrainedOn;

use std::path::PathBuf;
use std::sync::Arc;

/// Trains a model on `data` and reads it out.
///
/// The settings are those of `svae-cpu run`, of which those of files, results and messages have no meaning here: the cells
/// are the given ones, all of them train or validate unless `holdout` names labels, and nothing is written. The same settings
/// give the same weights as the command line on the same screen, whatever the number of threads.
///
/// # Errors
/// [`crate::InputError`] for settings that do not fit the screen; [`crate::Error::NonFinite`] for a loss that is not finite; counts
/// on disk that cannot be read.
pub fn fit(data: &Dataset, settings: &Settings, observer: &mut dyn Observer) -> Result<Fitted> {
    let settings = Settings { data: Some(PathBuf::from(&data.source)), simulation: None, ..settings.clone() };
    let held_out = settings.held_out(&data.intervention_names, &data.interventions)?;
    let (fraction, seed) = (settings.training.validation_fraction, settings.execution.seed);
    let split = ScreenSplit::new(&data.source, &data.interventions, data.n_interventions(), held_out, fraction, seed)?;
    let settings = settings.resolved(&data.intervention_names, &data.interventions, split.train.len())?;
    settings.execution.simd.choose();
    if !settings.model.method.trains_network() {
        return Team::with(settings.n_threads(), |team| fit_linear(team, data, split, settings.clone()));
    }
    Team::with(settings.n_threads(), |team| match settings.training.precision {
        Precision::F32 => fit_in(team, data, split, settings.clone(), observer, TrainedNetwork::Single),
        Precision::F64 => fit_in(team, data, split, settings.clone(), observer, TrainedNetwork::Double),
    })
}

fn fit_in<R: Real>(
    team: &Team,
    data: &Dataset,
    split: ScreenSplit,
    settings: Settings,
    observer: &mut dyn Observer,
    weights: impl FnOnce(Box<Network<R>>) -> TrainedNetwork,
) -> Result<Fitted> {
    let run = &mut ResumableRun::unsaved();
    let (network, training, _) = train::<R>(team, data, &split, &settings, run, observer)?;
    if let Some(non_finite) = training.non_finite {
        return Err(non_finite.into());
    }
    let workspace = &mut evaluation_workspace(&network, data);
    let model = &mut Inference { team, network: &network, data, workspace };
    let read = read_out(team, model, data, &split, &settings)?;
    Ok(fitted(data, split, settings, training.history, read, weights(Box::new(network))))
}

fn fit_linear(team: &Team, data: &Dataset, split: ScreenSplit, settings: Settings) -> Result<Fitted> {
    let model = LinearModel::fit(team, data, &split.train, settings.linear_settings())?;
    let read = read_out(team, &mut LinearInference { team, model: &model, data }, data, &split, &settings)?;
    Ok(fitted(data, split, settings, Vec::new(), read, TrainedNetwork::Linear(Box::new(model))))
}

/// What a model says of its screen, and of each cell.
struct ReadOut {
    interpretation: Interpretation,
    /// Posterior means, cells x L.
    latents: Vec<f64>,
    cells: Vec<CellRecord>,
}

fn read_out<R: Real>(
    team: &Team,
    model: &mut impl TrainedModel<R>,
    data: &Dataset,
    split: &ScreenSplit,
    settings: &Settings,
) -> Result<ReadOut> {
    let (mut latents, mut cells) = (Vec::new(), Vec::new());
    let readout = Readout { seed: settings.execution.seed, fdr: settings.output.fdr, keep: false };
    let interpretation = Interpretation::new(team, model, data, split, readout, |mean, record| {
        latents.extend_from_slice(mean);
        cells.push(*record);
        Ok(())
    })?;
    Ok(ReadOut { interpretation, latents, cells })
}

fn fitted(
    data: &Dataset,
    split: ScreenSplit,
    settings: Settings,
    history: Vec<EpochRecord>,
    read: ReadOut,
    weights: TrainedNetwork,
) -> Fitted {
    let ReadOut { interpretation, latents, cells } = read;
    let loaded =
        LoadedScreen { data: Arc::new(data.without_counts()), generating: None, notes: Vec::new(), summary: None };
    let screen = loaded.split_as(split);
    let (masks, shifts) = (interpretation.masks.clone(), interpretation.shifts.clone());
    let record = TrainingRecord { screen, history, interpretation, latents, cells };
    Fitted {
        trained_on: TrainedOn::of(data),
        weights,
        masks,
        shifts,
        source: ModelSource::Training(Box::new(record)),
        settings,
    }
}

/// Trains the network of resolved settings on the training cells of a screen, in as far as `run` has not seen it done. Where interactions
/// are learned, they are forgotten again: the network is that of the interventions.
///
/// # Errors
/// As [`train_from_starts`]. A training that ends in values that are not finite is no error here: it says so.
pub(crate) fn train<R: Real>(
    team: &Team,
    data: &Dataset,
    split: &ScreenSplit,
    settings: &Settings,
    run: &mut ResumableRun<'_>,
    observer: &mut dyn Observer,
) -> Result<(Network<R>, Training, Option<StartsMetrics>)> {
    if settings.learns_interactions()
        && let Some(extended) = data.with_interactions(&split.train)
    {
        let trained = train_on(team, &extended, split, settings, run, observer)?;
        let (network, training, starts) = trained;
        return Ok((network.of_first(data.n_interventions()), training, starts));
    }
    train_on(team, data, split, settings, run, observer)
}

/// As [`train`], on all interventions of `data`.
fn train_on<R: Real>(
    team: &Team,
    data: &Dataset,
    split: &ScreenSplit,
    settings: &Settings,
    run: &mut ResumableRun<'_>,
    observer: &mut dyn Observer,
) -> Result<(Network<R>, Training, Option<StartsMetrics>)> {
    let training = settings.training_settings(split.train.len());
    let task = TrainingTask {
        data,
        train: &split.train,
        validation: &split.validation,
        objective: &settings.objective(data.n_interventions(), split.train.len()),
        settings: &training,
    };
    let starts = Starts { n: settings.training.starts, trial_epochs: settings.trial_epochs(training.epochs) };
    let new_network = |seed| Network::<R>::new(settings.architecture(data), seed);
    train_from_starts(run, team, task, starts, new_network, observer)
}
