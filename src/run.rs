//! Placeholder for the engine's entry points.

use std::path::{Path, PathBuf};

use crate::config::{Config, Simulation};
use crate::error::{InputError, Result};
use crate::report::metrics::Metrics;
use crate::report::verification::Verification;

/// What a run leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its figures.
    pub metrics: Metrics,
    /// Its results folder.
    pub folder: PathBuf,
}

/// Trains.
///
/// # Errors
/// Always: the engine is absent.
pub fn run(config: &Config) -> Result<Outcome> {
    crate::report::results::check_destination(config.out.as_deref(), config.overwrite)?;
    if let Some(path) = &config.data
        && !path.exists()
    {
        return Err(InputError::new("there is no such file", "check the path").in_file(path).into());
    }
    Err(InputError::new("the engine is absent", "merge it").into())
}

/// Simulates.
///
/// # Errors
/// Always: the engine is absent.
pub fn simulate(_simulation: &Simulation, _out: &Path) -> Result<()> {
    Err(InputError::new("the engine is absent", "merge it").into())
}

/// Verifies.
///
/// # Errors
/// Always: the engine is absent.
pub fn verify(_config: &Config, _golden: Option<&Path>) -> Result<Verification> {
    Err(InputError::new("the engine is absent", "merge it").into())
}
