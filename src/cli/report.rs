//! Arguments of `svae-cpu report`.

use std::path::PathBuf;

/// Arguments of `svae-cpu report`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// Results folder of a run
    #[arg(value_name = "RESULTS_FOLDER")]
    pub folder: PathBuf,
}
