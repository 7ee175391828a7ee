//! Arguments of `svae-cpu evaluate`.

use crate::cli::groups::JudgeArgs;
use crate::error::Result;
use crate::settings::{RawTraining, Settings};

/// Arguments of `svae-cpu evaluate`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct EvaluateArgs {
    /// The folder.
    #[command(flatten)]
    pub of: JudgeArgs,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu evaluate results/0001                       the figures of the run again
  svae-cpu evaluate results/0001 --particles 5000      a tighter bound on held-out cells";

impl EvaluateArgs {
    /// The settings of the folder with these flags over them.
    ///
    /// # Errors
    /// A folder without a run; as [`Settings::load`].
    pub fn checked(&self) -> Result<Settings> {
        self.of.settings(RawTraining::default())
    }
}
