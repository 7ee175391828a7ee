//! `svae-cpu embed`: the latents of new cells.

use std::path::Path;

use crate::commands::saved_model::{SavedModel, Written};
use crate::data::dataset::Dataset;
use crate::data::formats::anndata_writer::AnnDataWriter;
use crate::data::formats::npz::NpzWriter;
use crate::error::Result;
use crate::inference::{Inference, evaluation_workspace};
use crate::numerics::real::{Precision, Real};
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::output_file::{OutputKind, write_table};

/// Writes the latents (posterior means) of the cells of `data`.
///
/// # Errors
/// As reading and writing do.
pub fn embed(model: &SavedModel, data: &Path, drop_empty_cells: bool, out: &Path, kind: OutputKind) -> Result<Written> {
    let (cells, notes) = model.read_cells(data, drop_empty_cells, model.config.encode_covariates)?;
    let latents = match model.config.precision {
        Precision::F32 => latents::<f32>(model, &cells)?,
        Precision::F64 => latents::<f64>(model, &cells)?,
    };
    let l = model.config.latents;
    let names: Vec<String> = (0..l).map(|k| format!("latent_{k}")).collect();
    match kind {
        OutputKind::Csv => write_table(out, &cells.cell_names, &names, |n, k| latents[n * l + k])?,
        OutputKind::Npz => {
            let mut npz = NpzWriter::create(out)?;
            let single: Vec<f32> = latents.iter().map(|&z| z as f32).collect();
            match model.config.precision {
                Precision::F32 => npz.add_f32("latents", &[cells.n_cells(), l], &single)?,
                Precision::F64 => npz.add_f64("latents", &[cells.n_cells(), l], &latents)?,
            }
            npz.add_strings("cells", &cells.cell_names)?;
            npz.finish()?;
        }
        OutputKind::H5ad => {
            let file = AnnDataWriter::create(out)?;
            file.counts("X", &cells.counts)?;
            file.frame("obs", &cells.cell_names, &[])?;
            file.frame("var", &cells.gene_names, &[])?;
            file.array_f32("obsm/X_svae", &[cells.n_cells(), l], &latents)?;
            file.finish()?;
        }
    }
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
