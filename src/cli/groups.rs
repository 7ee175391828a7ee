//! Arguments that several subcommands share.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::fit::Fitted;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::results::output_file::OutputKind;
use crate::settings::{RawExecution, RawOutput, RawSettings, RawTraining, Settings};
use crate::system::console::LogFormat;

/// A trained model that a file is made with.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArgs {
    /// Results folder of the run whose model is used
    #[arg(long, value_name = "RESULTS_FOLDER")]
    pub model: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Number of threads (by default RAYON_NUM_THREADS, else all that the machine allows)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<i64>,
}

impl ModelArgs {
    /// The kind of the file `out`.
    ///
    /// # Errors
    /// If it may not be written.
    pub fn kind(&self, out: &Path) -> Result<OutputKind> {
        OutputKind::check(out, self.overwrite)
    }

    /// The model.
    ///
    /// # Errors
    /// A folder without a run.
    pub fn open(&self) -> Result<Fitted> {
        open_model(&self.model, self.threads)
    }
}

/// The model of a results folder, to be used with so many threads.
///
/// # Errors
/// A folder without a run.
pub(crate) fn open_model(folder: &Path, threads: Option<i64>) -> Result<Fitted> {
    Fitted::open_with(folder_settings(folder, threads)?, folder)
}

/// The settings of a results folder, to be used with so many threads.
///
/// # Errors
/// A folder without a run.
pub(crate) fn folder_settings(folder: &Path, threads: Option<i64>) -> Result<Settings> {
    settings_of(folder, RawTraining::default(), threads, RawOutput::default())
}

/// A results folder whose models are judged.
#[derive(Debug, Clone, clap::Args)]
pub struct JudgeArgs {
    /// Results folder of a run
    #[arg(value_name = "RESULTS_FOLDER")]
    pub folder: PathBuf,
    /// Samples per cell of the importance-weighted bound on held-out cells (by default those of the run)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub particles: Option<i64>,
    /// Number of threads (by default RAYON_NUM_THREADS, else all that the machine allows)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<i64>,
    /// Print the metrics as one JSON object on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
    /// Print no progress
    #[arg(long, conflicts_with = "log_format")]
    pub quiet: bool,
    /// Progress as text for people, or as one JSON object per line and event
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl JudgeArgs {
    /// The settings of the folder with these flags and `training` over them.
    ///
    /// # Errors
    /// A folder without a run; as [`Settings::load`].
    pub fn settings(&self, training: RawTraining) -> Result<Settings> {
        let training = RawTraining { particles: self.particles, ..training };
        let output = RawOutput {
            json: Some(self.json),
            quiet: Some(self.quiet),
            log_format: self.log_format,
            ..RawOutput::default()
        };
        settings_of(&self.folder, training, self.threads, output)
    }
}

/// The settings of a results folder, with flags over them.
fn settings_of(folder: &Path, training: RawTraining, threads: Option<i64>, output: RawOutput) -> Result<Settings> {
    let folder = ResultsFolder::open(folder)?;
    let flags = RawSettings {
        training,
        execution: RawExecution { threads, ..RawExecution::default() },
        output,
        ..RawSettings::default()
    };
    Settings::load(Some(&folder.file(ResultsFile::Config)), flags)
}
