//! `svae-cpu normalize`: the expression of cells as the model sees it, without sampling noise.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commands::new_cells::read_cells;
use crate::commands::screen;
use crate::error::{InputError, Result};
use crate::fit::{Fitted, RatesRequest};
use crate::parallel::team::Team;
use crate::results::output_file::{OutputKind, Written, write_expression};

/// What `svae-cpu normalize` is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// New cells; `None`: those of the run.
    pub data: Option<PathBuf>,
    /// Genes, scale and samples.
    pub rates: RatesRequest,
    /// Whether cells without counts are left out.
    pub drop_empty_cells: bool,
}

/// Writes the denoised expression of cells: the decoder's rates, times `scale`, of the named genes (`None`: all).
///
/// At the posterior mean of each cell or, with `samples` > 0, as the mean over so many samples of its posterior. `data`
/// is read as [`embed`](crate::commands::embed::embed) does; `None` means the cells of the run itself.
///
/// # Errors
/// [`InputError`] for a gene that the model does not know; as reading and writing do.
pub fn normalize(model: &Fitted, request: &Normalize, out: &Path, kind: OutputKind) -> Result<Written> {
    let chosen = model.genes_of(&request.rates)?;
    let (cells, notes) = match &request.data {
        Some(path) => {
            let (cells, notes) = read_cells(model, path, request.drop_empty_cells, true)?;
            (Arc::new(cells), notes)
        }
        None => {
            let loaded = Team::with(model.settings().n_threads(), |team| screen::load(team, model.settings()))?;
            let (data, notes) = (loaded.data, loaded.notes);
            if data.gene_names != model.trained_on().genes {
                let remedy = "give the data that the model was trained on, or name a file with --data";
                let problem = "the genes are not those of the model";
                return Err(InputError::new(problem, remedy).in_file(&data.source).into());
            }
            (data, notes)
        }
    };
    let rates = model.rates_of(&cells, &chosen, &request.rates)?;
    let names: Vec<String> = chosen.iter().map(|&g| model.trained_on().genes[g].clone()).collect();
    write_expression(out, kind, &cells, &names, &rates, request.data.is_none())?;
    Ok(Written { n_cells: cells.n_cells(), notes })
}
