//! Arguments of `svae-cpu normalize`.

use std::path::PathBuf;

use crate::cli::groups::ModelArgs;
use crate::cli::values::{in_range, listed};
use crate::commands::normalize::Normalize;
use crate::error::{InputError, Result};
use crate::fit::{Fitted, RatesRequest};
use crate::results::output_file::OutputKind;

/// Arguments of `svae-cpu normalize`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct NormalizeArgs {
    /// Cells, in any format that `svae-cpu run` reads (by default those of the run); labels are not needed, but the
    /// columns of the model's covariates are
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Genes to write, separated by commas; @FILE names a file with one per line (by default all)
    #[arg(long, value_name = "GENE,...", value_delimiter = ',')]
    pub genes: Option<Vec<String>>,
    /// Sum of a cell's expression over all genes of the model
    #[arg(long, value_name = "X", default_value_t = 10_000.0, allow_negative_numbers = true)]
    pub scale: f64,
    /// Average over so many samples of a cell's latents; 0 decodes their posterior mean
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub samples: i64,
    /// Seed of the samples
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub seed: i64,
    /// File to write: .csv, .npz or .h5ad
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Leave out cells without any count instead of refusing the data
    #[arg(long)]
    pub drop_empty_cells: bool,
    /// The model.
    #[command(flatten)]
    pub of: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu normalize --model results/0001 --genes STAT1,IRF1 --out expression.csv
  svae-cpu normalize --model results/0001 --data new.h5ad --samples 25 --out denoised.h5ad";

impl NormalizeArgs {
    /// The model, what is asked of it, and the kind of file to write.
    ///
    /// # Errors
    /// A folder without a run; a number out of range; a file that may not be written.
    pub fn checked(&self) -> Result<(Fitted, Normalize, OutputKind)> {
        let kind = self.of.kind(&self.out)?;
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            let problem = format!("{} is out of range", self.scale);
            return Err(InputError::new(problem, "give a number above 0").at("--scale").into());
        }
        if self.drop_empty_cells && self.data.is_none() {
            let remedy = "leave it out: the run's own settings say so already";
            let problem = "this flag has no effect without --data";
            return Err(InputError::new(problem, remedy).at("--drop-empty-cells").into());
        }
        let request = Normalize {
            data: self.data.clone(),
            rates: RatesRequest {
                genes: self.genes.as_ref().map(|genes| listed(genes, "--genes")).transpose()?,
                scale: self.scale,
                samples: in_range(self.samples, 0, 1_000_000, "--samples")?,
                seed: in_range(self.seed, 0, i64::MAX, "--seed")? as u64,
            },
            drop_empty_cells: self.drop_empty_cells,
        };
        Ok((self.of.open()?, request, kind))
    }
}
