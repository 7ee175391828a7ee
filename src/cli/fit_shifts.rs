//! Arguments of `svae-cpu fit-shifts`.

use std::path::PathBuf;

use super::evaluate::settings_of;
use crate::config::{Config, HeldoutBatchNorm, LogFormat, RawOutput, RawTraining};
use crate::error::Result;

/// Arguments of `svae-cpu fit-shifts`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Results folder of a run that holds interventions out
    #[arg(value_name = "RESULTS_FOLDER")]
    pub folder: PathBuf,
    /// Samples per cell of the importance-weighted bound on held-out cells (by default those of the run)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub particles: Option<i64>,
    /// Running statistics of batch normalisation while the shifts are fitted (by default as the run says)
    #[arg(long, value_name = "KIND")]
    pub heldout_batch_norm: Option<HeldoutBatchNorm>,
    /// Number of threads (by default RAYON_NUM_THREADS, else all that the machine allows)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<i64>,
    /// Replace the model of an earlier fit
    #[arg(long)]
    pub overwrite: bool,
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
  svae-cpu run --no-heldout --out results/a            train only
  svae-cpu fit-shifts results/a                        and the rest later";

impl Args {
    /// The settings of the folder with these flags over them.
    ///
    /// # Errors
    /// A folder without a run; as [`Config::load`].
    pub fn checked(&self) -> Result<Config> {
        let training = RawTraining {
            heldout: Some(true),
            particles: self.particles,
            heldout_batch_norm: self.heldout_batch_norm,
            ..RawTraining::default()
        };
        let output = RawOutput {
            json: Some(self.json),
            quiet: Some(self.quiet),
            log_format: self.log_format,
            ..RawOutput::default()
        };
        settings_of(&self.folder, training, self.threads, output)
    }
}
