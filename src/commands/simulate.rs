//! `svae-cpu simulate`: a simulated screen as a file.

use std::path::Path;

use crate::data::formats::write_npz;
use crate::data::simulate::{Simulation, simulate_on};
use crate::error::Result;
use crate::parallel::team::Team;
use crate::settings::threads_or_all;

/// Simulates a screen into a `.npz` file, truth included.
///
/// # Errors
/// If the settings cannot be met or the file cannot be written.
pub fn simulate(simulation: &Simulation, out: &Path) -> Result<()> {
    let simulated = Team::with(threads_or_all(None), |team| simulate_on(team, simulation))?;
    write_npz(&simulated.dataset, out)
}
