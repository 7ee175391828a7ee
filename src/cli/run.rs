//! Arguments of `svae-cpu run`.

use std::path::PathBuf;

use crate::config::{Config, RawConfig};
use crate::error::Result;

/// Arguments of `svae-cpu run`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Settings in TOML; the config.toml of a results folder repeats that run
    #[arg(value_name = "CONFIG.toml")]
    pub config: Option<PathBuf>,
    /// Settings given as flags.
    #[command(flatten)]
    pub settings: RawConfig,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu run                                         simulate the paper's screen and train sVAE+ on it
  svae-cpu run --sim-cells 50 --epochs 20              the same, small: a first look in seconds
  svae-cpu run --data screen.h5ad --label-key gene     train on your own screen
  svae-cpu run --data screen.h5ad --label-key gene --holdout KLF1,CEBPA --out results/held-out
  svae-cpu run --data filtered_feature_bc_matrix.h5 --labels guides.csv --control non-targeting --top-genes 2000
  svae-cpu run results/0001/config.toml --seed 1       repeat a run with another seed
  svae-cpu run --json --quiet > metrics.json           figures only

Exit codes: 0 done, 1 failed, 2 bad input.";

impl Args {
    /// The checked settings.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn checked(self) -> Result<Config> {
        Config::load(self.config.as_deref(), self.settings)
    }
}
