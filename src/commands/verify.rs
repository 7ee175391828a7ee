//! `svae-cpu verify`: every gradient by finite differences, and against golden vectors.

use std::path::Path;
use std::sync::Arc;

use crate::commands::screen;
use crate::error::Result;
use crate::numerics::random::{Purpose, shuffle, stream};
use crate::parallel::team::Team;
use crate::settings::Settings;
use crate::verification::outcome::Verification;
use crate::verification::{finite_differences, golden};

/// Cells on which `verify` differences the objective: two row blocks, the second not full.
const VERIFICATION_CELLS: usize = 40;

/// Checks every block and the whole objective, for the settings and data given, by finite differences at random points,
/// and every golden vector in `vectors`.
///
/// # Errors
/// If the data or a vector cannot be read; a failed check is no error but a verdict.
pub fn verify(config: &Settings, vectors: Option<&Path>) -> Result<Verification> {
    config.refuse_without_network("`svae-cpu verify`")?;
    config.execution.simd.choose();
    let mut data = Team::with(config.n_threads(), |team| screen::load(team, config))?.data;
    let n_cells = data.n_cells();
    let mut cells: Vec<usize> = (0..n_cells).collect();
    shuffle(&mut cells, &mut stream(config.execution.seed, Purpose::Verification, 0, 0));
    cells.truncate(VERIFICATION_CELLS);
    if data.counts.disk().is_some() {
        cells.sort_unstable();
        data = Arc::new(data.resident(&cells)?);
        cells = (0..cells.len()).collect();
    }
    let objective = config.objective(data.n_interventions(), n_cells);
    let weights = objective.weights(cells.len(), 1.0);

    let mut checks = finite_differences::check_blocks(config.execution.seed);
    let architecture = config.architecture(&data);
    checks.extend(finite_differences::check_objective(
        &architecture,
        &data,
        &cells,
        weights,
        objective.penalty,
        config.execution.seed,
    ));
    if let Some(folder) = vectors {
        for path in golden::vectors(folder)? {
            checks.extend(golden::check(&path)?);
        }
    }
    Ok(Verification::new(checks))
}
