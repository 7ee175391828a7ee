//! `svae-cpu embed`: the latents of new cells.

use std::path::Path;

use crate::commands::saved_model::{SavedModel, Written};
use crate::data::dataset::Dataset;
use crate::error::Result;
use crate::inference::{Inference, evaluation_workspace};
use crate::numerics::real::{Precision, Real};
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::output_file::{OutputKind, write_latents};

/// Writes the latents (posterior means) of the cells of `data`.
///
/// # Errors
/// As reading and writing do.
pub fn embed(model: &SavedModel, data: &Path, drop_empty_cells: bool, out: &Path, kind: OutputKind) -> Result<Written> {
    let (cells, notes) = model.read_cells(data, drop_empty_cells, model.config.model.encode_covariates)?;
    let latents = match model.config.training.precision {
        Precision::F32 => latents::<f32>(model, &cells)?,
        Precision::F64 => latents::<f64>(model, &cells)?,
    };
    write_latents(out, kind, &cells, &latents, model.config.model.latents, model.config.training.precision)?;
    Ok(Written { n_cells: cells.n_cells(), notes })
}

fn latents<R: Real>(model: &SavedModel, cells: &Dataset) -> Result<Vec<f64>> {
    let network = model.network::<R>(ResultsFile::Model)?;
    let all: Vec<usize> = (0..cells.n_cells()).collect();
    let mut workspace = evaluation_workspace(&network, cells);
    let means = Team::with(model.config.n_threads(), |team| {
        Inference { team, network: &network, data: cells, workspace: &mut workspace }.posterior_means(&all)
    })?;
    Ok(means.iter().map(|z| z.f64()).collect())
}
