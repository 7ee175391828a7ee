//! `svae-cpu embed`: the latents of new cells.

use std::path::Path;

use crate::commands::new_cells::read_cells;
use crate::error::Result;
use crate::fit::Fitted;
use crate::results::output_file::{OutputKind, Written, write_latents};

/// Writes the latents (posterior means) of the cells of `data`.
///
/// # Errors
/// As reading and writing do.
pub fn embed(model: &Fitted, data: &Path, drop_empty_cells: bool, out: &Path, kind: OutputKind) -> Result<Written> {
    let settings = model.settings();
    let (cells, notes) = read_cells(model, data, drop_empty_cells, settings.model.encode_covariates)?;
    write_latents(out, kind, &cells, &model.latents(&cells)?, settings.model.latents, settings.training.precision)?;
    Ok(Written { n_cells: cells.n_cells(), notes })
}
