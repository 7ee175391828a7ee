//! Arguments of `svae-cpu judge`.

use std::path::PathBuf;

use crate::cli::groups::folder_settings;
use crate::error::Result;
use crate::settings::Settings;

/// Arguments of `svae-cpu judge`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct JudgePredictionsArgs {
    /// Results folder of a run that held combinations out
    #[arg(value_name = "RESULTS_FOLDER")]
    pub folder: PathBuf,
    /// Number of threads (by default RAYON_NUM_THREADS, else all that the machine allows)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<i64>,
    /// Print the judgement as one JSON object on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu judge results/0001                          a table, and the files of the judgement in the folder
  cell-eval run -ap results/0001/cell_eval_pred.h5ad -ar results/0001/cell_eval_real.h5ad \\
      --pert-col perturbation --control-pert control   the same cells before an independent judge";

impl JudgePredictionsArgs {
    /// The settings of the folder with these flags over them.
    ///
    /// # Errors
    /// A folder without a run; as [`Settings::load`].
    pub fn checked(&self) -> Result<Settings> {
        folder_settings(&self.folder, self.threads)
    }
}
