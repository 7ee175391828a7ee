//! Arguments of `svae-cpu inspect`.

use std::path::PathBuf;

/// Arguments of `svae-cpu inspect`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// Data file or matrix-market folder
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Matrix of an AnnData file to look at first: a layer, or raw (by default X)
    #[arg(long, value_name = "LAYER")]
    pub layer: Option<String>,
    /// Genome of a 10x file
    #[arg(long, value_name = "GENOME")]
    pub genome: Option<String>,
    /// Table of labels (CSV or TSV) to look at as well
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Print one JSON object on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu inspect screen.h5ad                         matrices, columns, and the command to train on it
  svae-cpu inspect filtered_feature_bc_matrix --labels guides.csv
  svae-cpu inspect screen.h5ad --json | jq -r .command";
