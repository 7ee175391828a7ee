//! Arguments of `svae-cpu fit-shifts`.

use crate::cli::groups::JudgeArgs;
use crate::error::Result;
use crate::settings::{RawTraining, Settings};
use crate::training::shift_fit::HeldoutBatchNorm;

/// Arguments of `svae-cpu fit-shifts`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct FitShiftsArgs {
    /// The folder, of a run that holds interventions out.
    #[command(flatten)]
    pub of: JudgeArgs,
    /// Running statistics of batch normalisation while the shifts are fitted (by default as the run says)
    #[arg(long, value_name = "KIND")]
    pub heldout_batch_norm: Option<HeldoutBatchNorm>,
    /// Replace the model of an earlier fit
    #[arg(long)]
    pub overwrite: bool,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu run --no-heldout --out results/a            train only
  svae-cpu fit-shifts results/a                        and the rest later";

impl FitShiftsArgs {
    /// The settings of the folder with these flags over them.
    ///
    /// # Errors
    /// A folder without a run; as [`Settings::load`].
    pub fn checked(&self) -> Result<Settings> {
        // Of a method without a network its flags have no effect, which would be the complaint.
        let alone = JudgeArgs { particles: None, ..self.of.clone() };
        alone.settings(RawTraining::default())?.refuse_without_network("`svae-cpu fit-shifts`")?;
        self.of.settings(RawTraining {
            heldout: Some(true),
            heldout_batch_norm: self.heldout_batch_norm,
            ..RawTraining::default()
        })
    }
}
