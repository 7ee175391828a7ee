//! Arguments of `svae-cpu evaluate`.

use std::path::{Path, PathBuf};

use crate::config::{Config, LogFormat, RawConfig, RawExecution, RawOutput, RawTraining};
use crate::error::Result;
use crate::report::results::ResultsFolder;

/// Arguments of `svae-cpu evaluate`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Results folder of a run
    #[arg(value_name = "RESULTS_FOLDER")]
    pub folder: PathBuf,
    /// Samples per cell of the importance-weighted bound on held-out cells (by default those of the run)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub particles: Option<i64>,
    /// Number of threads (by default RAYON_NUM_THREADS, else all that the machine allows)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<i64>,
    /// Print the metrics as one JSON object on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
    /// Print no progress
    #[arg(long, conflicts_with = "log_format")]
    pub quiet: bool,
    /// Progress as text for people, or as one JSON object per line and event
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu evaluate results/0001                       the figures of the run again
  svae-cpu evaluate results/0001 --particles 5000      a tighter bound on held-out cells";

impl Args {
    /// The settings of the folder with these flags over them.
    ///
    /// # Errors
    /// A folder without a run; as [`Config::load`].
    pub fn checked(&self) -> Result<Config> {
        let training = RawTraining { particles: self.particles, ..RawTraining::default() };
        let output = RawOutput {
            json: Some(self.json),
            quiet: Some(self.quiet),
            log_format: self.log_format,
            ..RawOutput::default()
        };
        settings_of(&self.folder, training, self.threads, output)
    }
}

/// The settings of a results folder, with flags over them.
pub(super) fn settings_of(
    folder: &Path,
    training: RawTraining,
    threads: Option<i64>,
    output: RawOutput,
) -> Result<Config> {
    let folder = ResultsFolder::open(folder)?;
    let flags = RawConfig {
        training,
        execution: RawExecution { threads, ..RawExecution::default() },
        output,
        ..RawConfig::default()
    };
    Config::load(Some(&folder.path().join("config.toml")), flags)
}
