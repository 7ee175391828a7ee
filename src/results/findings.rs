//! What a run finds, written into its folder: one call when its model is trained and read out, one when the model has been
//! through the held-out protocol, one when all figures are known.
//!
//! Before the first, [`write_cells`](crate::results::cells::write_cells) has written what is found of each cell.

use crate::data::dataset::Dataset;
use crate::data::screen::Screen;
use crate::error::Result;
use crate::evaluation::held_out_protocol::HeldOutFit;
use crate::evaluation::interpretation::Interpretation;
use crate::evaluation::metrics::Metrics;
use crate::model::network::Network;
use crate::numerics::real::Real;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::results::manifest::Manifest;
use crate::results::model_file::{SavedModel, add_batch_norm, metadata};
use crate::settings::Settings;
use crate::system::safetensors::TensorValues;
use crate::training::history::EpochRecord;

/// A trained model and what it says about its screen.
#[derive(Debug, Clone, Copy)]
pub struct Findings<'a> {
    /// The settings as used.
    pub config: &'a Settings,
    /// The screen.
    pub screen: &'a Screen,
    /// The model.
    pub model: &'a dyn SavedModel,
    /// The epochs of its training.
    pub history: &'a [EpochRecord],
    /// Masks, shifts, targets and genes of the model.
    pub interpretation: &'a Interpretation,
}

/// Writes every file of [`When::AfterTraining`](crate::results::catalogue::When) but those with a row per cell. Tables of
/// edges, masks, shifts and targets are left out for a model that has none, the history for one without a training, the data
/// summary for a simulation.
///
/// # Errors
/// [`crate::Error::Io`] naming the file.
pub fn write_findings(folder: &ResultsFolder, findings: &Findings<'_>) -> Result<()> {
    let Findings { config, screen, model, history, interpretation: found } = *findings;
    let data = &screen.data;
    let (names, l) = (&data.intervention_names, config.model.latents);
    if config.model.method.trains_network() {
        folder.write_history(ResultsFile::History, history)?;
    }
    folder.write_model(ResultsFile::Model, model, &metadata(config, data))?;
    if let Some(masks) = &found.masks {
        folder.write_intervention_table(ResultsFile::Masks, names, l, masks)?;
    }
    if let Some(certainty) = &found.certainty {
        folder.write_edges(names, certainty)?;
        if let Some(interactions) = &certainty.interactions {
            folder.write_interactions(interactions)?;
        }
    }
    if let Some(shifts) = &found.shifts {
        folder.write_intervention_table(ResultsFile::Shifts, names, l, shifts)?;
        folder.write_targets(names, found)?;
        folder.write_graph(names, &screen.split.trained, l, &found.targets)?;
    }
    folder.write_genes_per_latent(&data.gene_names, &found.genes)?;
    match &screen.summary {
        Some(summary) => folder.write_data_summary(summary),
        None => Ok(()),
    }
}

/// Writes every file of [`When::AfterHeldOut`](crate::results::catalogue::When): what the held-out protocol made of
/// `network`; nothing where it was not trained again. The table of shifts is left out for a model that has none.
///
/// # Errors
/// [`crate::Error::Io`] naming the file.
pub fn write_held_out_fit<R: Real>(
    folder: &ResultsFolder,
    config: &Settings,
    data: &Dataset,
    network: &Network<R>,
    fit: &HeldOutFit,
) -> Result<()>
where
    for<'a> &'a [R]: Into<TensorValues<'a>>,
{
    let Some(retraining) = &fit.retraining else { return Ok(()) };
    folder.write_history(ResultsFile::RetrainingHistory, &retraining.history)?;
    if let Some(shifts) = network.prior().shifts {
        let shifts: Vec<f64> = shifts.iter().map(|shift| shift.to_f64()).collect();
        let (names, l) = (&data.intervention_names, network.architecture.n_latents);
        folder.write_intervention_table(ResultsFile::HeldOutShifts, names, l, &shifts)?;
    }
    let mut metadata = metadata(config, data);
    add_batch_norm(&mut metadata, fit.metrics.batch_norm);
    folder.write_model(ResultsFile::HeldOutModel, network, &metadata)
}

/// Writes the report and the record of a run whose other files are there. The figures come last, so that a folder that
/// holds them holds a finished run.
///
/// # Errors
/// [`crate::Error::Io`] naming the file; those of `manifest`, which only the process that writes asks for.
pub fn write_figures(
    folder: &ResultsFolder,
    metrics: &Metrics,
    manifest: impl FnOnce() -> Result<Manifest>,
) -> Result<()> {
    if !folder.writes() {
        return Ok(());
    }
    folder.write_report(Some(metrics))?;
    folder.write_manifest(&manifest()?)?;
    folder.write_metrics(metrics)
}
