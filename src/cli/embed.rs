//! Arguments of `svae-cpu embed`.

use std::path::PathBuf;

use super::evaluate::settings_of;
use crate::application::{OutputKind, SavedModel};
use crate::config::{RawOutput, RawTraining};
use crate::error::Result;

/// Arguments of `svae-cpu embed`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Results folder of the run whose model is used
    #[arg(long, value_name = "RESULTS_FOLDER")]
    pub model: PathBuf,
    /// New cells, in any format that `svae-cpu run` reads; labels are not needed
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// File to write: .csv, .npz, or .h5ad (counts, and latents in obsm["X_svae"])
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Leave out cells without any count instead of refusing the data
    #[arg(long)]
    pub drop_empty_cells: bool,
    /// Replace the file if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Number of threads (by default RAYON_NUM_THREADS, else all that the machine allows)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<i64>,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu embed --model results/0001 --data new.h5ad --out latents.csv
  svae-cpu embed --model results/0001 --data new.h5ad --out new_with_latents.h5ad";

impl Args {
    /// The model, and the kind of file to write.
    ///
    /// # Errors
    /// A folder without a run; a file that may not be written.
    pub fn checked(&self) -> Result<(SavedModel, OutputKind)> {
        let kind = OutputKind::check(&self.out, self.overwrite)?;
        let config = settings_of(&self.model, RawTraining::default(), self.threads, RawOutput::default())?;
        Ok((SavedModel::open(&config, &self.model)?, kind))
    }
}
