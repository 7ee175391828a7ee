//! Arguments of `svae-cpu sample`.

use std::path::PathBuf;

use crate::cli::groups::ModelArgs;
use crate::cli::values::{in_range, listed};
use crate::error::{InputError, Result};
use crate::fit::{Fitted, SampleRequest};
use crate::results::output_file::OutputKind;

/// Arguments of `svae-cpu sample`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SampleArgs {
    /// Intervention on the cells; several, separated by commas, act together (@FILE names a file with one per line; by
    /// default none acts)
    #[arg(long, value_name = "LABEL,...", value_delimiter = ',')]
    pub intervention: Vec<String>,
    /// Number of cells
    #[arg(long, value_name = "N", default_value_t = 1000, allow_negative_numbers = true)]
    pub cells: i64,
    /// Size factor of every cell (by default each cell takes that of a training cell drawn at random)
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub size_factor: Option<f64>,
    /// Seed
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub seed: i64,
    /// File to write: .npz (which `svae-cpu run` reads), .h5ad or .csv
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The model.
    #[command(flatten)]
    pub of: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu sample --model results/0001 --intervention IFNGR1 --out ifngr1.h5ad
  svae-cpu sample --model results/0001 --intervention IFNGR1,STAT2 --cells 200 --out both.npz
  svae-cpu sample --model results/0001 --out untouched.h5ad";

impl SampleArgs {
    /// The model, what is asked of it, and the kind of file to write.
    ///
    /// # Errors
    /// A folder without a run; a number out of range; a file that may not be written.
    pub fn checked(&self) -> Result<(Fitted, SampleRequest, OutputKind)> {
        let kind = self.of.kind(&self.out)?;
        if let Some(factor) = self.size_factor.filter(|factor| !(*factor > 0.0 && *factor < 1e9)) {
            let problem = format!("{factor} is out of range");
            return Err(InputError::new(problem, "give a number above 0 and below 1e9").at("--size-factor").into());
        }
        let request = SampleRequest {
            interventions: listed(&self.intervention, "--intervention")?,
            cells: in_range(self.cells, 1, i64::from(u32::MAX), "--cells")?,
            size_factor: self.size_factor,
            seed: in_range(self.seed, 0, i64::MAX, "--seed")? as u64,
        };
        Ok((self.of.open()?, request, kind))
    }
}
