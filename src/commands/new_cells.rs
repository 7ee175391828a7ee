//! Cells of a file that a trained model is asked about.

use std::path::Path;

use crate::data::dataset::Dataset;
use crate::data::loading::load::{LoadOptions, load};
use crate::data::simulate::BATCH;
use crate::error::Result;
use crate::fit::Fitted;

/// Reads cells of `path` as the model sees them: its genes matched by name, covariates (if `covariates` is set) by the names
/// of their levels. Returns them with sentences for the user.
///
/// # Errors
/// As [`load`]; [`crate::InputError`] if they do not fit the model.
pub(crate) fn read_cells(
    model: &Fitted,
    path: &Path,
    drop_empty_cells: bool,
    covariates: bool,
) -> Result<(Dataset, Vec<String>)> {
    let known_genes = model.trained_on().genes.clone();
    let mut options = LoadOptions { unlabelled: true, drop_empty_cells, known_genes, ..LoadOptions::default() };
    if covariates {
        let settings = model.settings();
        let simulated =
            settings.simulation.as_ref().and_then(|simulation| simulation.n_batches).map(|_| BATCH.to_owned());
        options.batch_key = settings.input.batch_key.clone().or(simulated);
        options.categorical_covariates = settings.input.categorical_covariates.clone();
        options.continuous_covariates = settings.input.continuous_covariates.clone();
    }
    let loaded = load(path, &options)?;
    let (data, mut notes) = (loaded.dataset, loaded.notes);
    let cells = model.trained_on().matched(&data, covariates, &mut notes)?;
    Ok((cells, notes))
}
