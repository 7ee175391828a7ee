//! Arguments of `svae-cpu predict`.

use std::path::PathBuf;

use crate::cli::groups::open_model;
use crate::cli::values::{in_range, listed};
use crate::commands::predict::{Beginning, Predict};
use crate::error::{InputError, Result};
use crate::fit::Fitted;
use crate::results::output_file::OutputKind;

/// Arguments of `svae-cpu predict`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct PredictArgs {
    /// Results folder of the run whose model predicts
    #[arg(value_name = "RESULTS_FOLDER")]
    pub folder: PathBuf,
    /// Combinations: A+B,C,... with doses where they are not 1 (A x 0.5+B), @FILE with one per line, or all-pairs of the
    /// interventions that were trained on
    #[arg(long, value_name = "LABEL,...|all-pairs|@FILE", value_delimiter = ',', required = true)]
    pub interventions: Vec<String>,
    /// Dose of every member for which none is given
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    pub dose: f32,
    /// Which cells predictions begin from
    #[arg(long, value_name = "CELLS", value_enum, default_value_t)]
    pub from: Beginning,
    /// Simulate so many cells under each combination (by default mean expression and effects are predicted)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub cells: Option<i64>,
    /// Predict by the model alone, without what training cells show beyond it; does not need the run's data
    #[arg(long)]
    pub model_alone: bool,
    /// Seed
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub seed: i64,
    /// File to write: .csv or .h5ad, with --cells also .npz
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Number of threads (by default RAYON_NUM_THREADS, else all that the machine allows)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<i64>,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu predict results/0001 --interventions KLF1+CEBPA,CEBPA --out effects.csv
  svae-cpu predict results/0001 --interventions all-pairs --out pairs.h5ad
  svae-cpu predict results/0001 --interventions KLF1+CEBPA --from control-cells --cells 200 --out cells.h5ad";

impl PredictArgs {
    /// The model, what is asked of it, and the kind of file to write.
    ///
    /// # Errors
    /// A folder without a run; a combination that the model cannot predict; a number out of range; a file that may not be written.
    pub fn checked(&self) -> Result<(Fitted, Predict, OutputKind)> {
        let kind = OutputKind::check(&self.out, self.overwrite)?;
        if kind == OutputKind::Npz && self.cells.is_none() {
            let problem = "predicted means are not written as .npz";
            let remedy = "name a file that ends in .csv or .h5ad, or ask for cells with --cells N";
            return Err(InputError::new(problem, remedy).in_file(&self.out).at("--out").into());
        }
        if !(self.dose.is_finite() && self.dose >= 0.0) {
            let problem = format!("{} is no dose", self.dose);
            return Err(InputError::new(problem, "give a number from 0 on").at("--dose").into());
        }
        let cells = self.cells.map(|n| in_range(n, 1, i64::from(u32::MAX), "--cells")).transpose()?;
        let seed = in_range(self.seed, 0, i64::MAX, "--seed")? as u64;
        let model = open_model(&self.folder, self.threads)?;
        let wanted = model.wanted(&listed(&self.interventions, "--interventions")?, self.dose)?;
        Ok((model, Predict { wanted, from: self.from, cells, model_alone: self.model_alone, seed }, kind))
    }
}
