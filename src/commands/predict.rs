//! `svae-cpu predict`: what cells under combinations of interventions will look like, by a trained model.

use std::collections::BTreeSet;
use std::path::Path;

use crate::commands::screen;
use crate::data::dataset::Dataset;
use crate::data::screen::Screen;
use crate::error::{InputError, Result};
use crate::evaluation::predictions::observed::observed_effects;
use crate::fit::{Fitted, PredictionBasis, Wanted};
use crate::parallel::team::Team;
use crate::results::output_file::{OutputKind, Written};
use crate::results::predictions::{
    CellsFile, PredictedControl, PredictedEffects, PredictionFile, PredictionTable, TakePredictions,
};

/// Which cells predictions begin from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Beginning {
    /// Control cells of the run: samples of their posterior
    ControlCells,
    /// The prior of cells under no intervention
    #[default]
    Prior,
}

/// What `svae-cpu predict` is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Predict {
    /// Combinations.
    pub wanted: Vec<Wanted>,
    /// Which cells they begin from.
    pub from: Beginning,
    /// Cells to simulate under each; `None`: means are predicted.
    pub cells: Option<usize>,
    /// Whether the model predicts by itself, without what the training cells of the members show beyond it.
    pub model_alone: bool,
    /// Seed.
    pub seed: u64,
}

/// Predicts and writes means (a table, or AnnData with a row per combination), or simulated cells.
///
/// # Errors
/// As [`Fitted::predict`]; as reading the run's data and writing do; control cells of a run that has none.
pub fn predict(model: &Fitted, request: &Predict, out: &Path, kind: OutputKind) -> Result<Written> {
    let corrects = !request.model_alone;
    let from_controls = request.from == Beginning::ControlCells;
    let screen = match corrects || from_controls {
        true => Some(Team::with(model.settings().n_threads(), |team| screen::read(team, model.settings()))?),
        false => None,
    };
    let controls = screen.as_ref().filter(|_| from_controls).map(|screen| controls(&screen.data)).transpose()?;
    let (controls, wanted) = (controls.as_ref(), &request.wanted[..]);
    let mut notes = Vec::new();
    let members: BTreeSet<u32> = wanted.iter().flat_map(|wanted| &wanted.members).map(|&(a, _)| a).collect();
    let observed = match screen.as_ref().filter(|_| corrects) {
        Some(Screen { data, split, .. }) => observed_effects(data, split, |a| members.contains(&a))?,
        None => None,
    };
    let basis = PredictionBasis { controls, observed: observed.as_ref(), widening: model.interval_widening() };
    if corrects && observed.is_none() {
        notes.push("predictions are those of the model alone: the run has no control cells".to_owned());
    }
    let mut fitted = false;
    let n_cells = if let Some(cells) = request.cells {
        let mut file = CellsFile::new(out, kind, model.trained_on().genes.len(), model.settings().model.latents);
        model.predict_cells(wanted, basis, cells, request.seed, &mut file)?;
        fitted = file.from_held_out_fit;
        file.finish()?
    } else {
        let genes = &model.trained_on().genes;
        let mut predict = |to: &mut dyn TakePredictions| {
            let mut noting = Noting { to, fitted: &mut fitted };
            model.predict(wanted, basis, request.seed, &mut noting)
        };
        match kind {
            OutputKind::H5ad => {
                let labels = wanted.iter().map(|wanted| wanted.label.clone()).collect();
                let mut file = PredictionFile::create(out, genes, labels)?;
                predict(&mut file)?;
                file.finish()?;
            }
            OutputKind::Csv | OutputKind::Npz => {
                let mut table = PredictionTable::create(out, genes)?;
                predict(&mut table)?;
                table.finish()?;
            }
        }
        wanted.len()
    };
    if fitted {
        notes.push("predictions come from the model that was fitted to held-out interventions".to_owned());
    }
    Ok(Written { n_cells, notes })
}

/// The control cells of the run's data.
fn controls(data: &Dataset) -> Result<Dataset> {
    let cells: Vec<usize> = (0..data.n_cells()).filter(|&n| data.interventions.row(n).0.is_empty()).collect();
    if cells.is_empty() {
        let problem = "no cell of the run is a control";
        let remedy = "leave --from out, or train on a screen with control cells (--control)";
        return Err(InputError::new(problem, remedy).in_file(&data.source).at("--from").into());
    }
    data.resident(&cells)
}

/// Passes predictions on, and notes which model they come from.
struct Noting<'a> {
    to: &'a mut dyn TakePredictions,
    fitted: &'a mut bool,
}

impl TakePredictions for Noting<'_> {
    fn control(&mut self, control: &PredictedControl) -> Result<()> {
        *self.fitted = control.from_held_out_fit;
        self.to.control(control)
    }

    fn predictions(&mut self, team: &Team, predictions: &[PredictedEffects]) -> Result<()> {
        self.to.predictions(team, predictions)
    }
}
