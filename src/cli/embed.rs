//! Arguments of `svae-cpu embed`.

use std::path::PathBuf;

use crate::cli::groups::ModelArgs;
use crate::error::Result;
use crate::fit::Fitted;
use crate::results::output_file::OutputKind;

/// Arguments of `svae-cpu embed`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct EmbedArgs {
    /// New cells, in any format that `svae-cpu run` reads; labels are not needed
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// File to write: .csv, .npz, or .h5ad (counts, and latents in obsm["X_svae"])
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
  svae-cpu embed --model results/0001 --data new.h5ad --out latents.csv
  svae-cpu embed --model results/0001 --data new.h5ad --out new_with_latents.h5ad";

impl EmbedArgs {
    /// The model, and the kind of file to write.
    ///
    /// # Errors
    /// A folder without a run; a file that may not be written.
    pub fn checked(&self) -> Result<(Fitted, OutputKind)> {
        let kind = self.of.kind(&self.out)?;
        Ok((self.of.open()?, kind))
    }
}
