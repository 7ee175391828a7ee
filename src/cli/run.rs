//! Arguments of `svae-cpu run`.

use std::path::PathBuf;

use crate::data::formats::names_a_screen;
use crate::error::{InputError, Result};
use crate::results::catalogue::ResultsFile;
use crate::settings::{RawSettings, Settings};

/// Arguments of `svae-cpu run`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// Settings in TOML; the config.toml of a results folder repeats that run. With --resume, the results folder itself. A data file
    /// here is taken as with --data
    #[arg(value_name = "CONFIG.toml")]
    pub config: Option<PathBuf>,
    /// Settings given as flags.
    #[command(flatten)]
    pub settings: RawSettings,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu run                                         simulate the paper's screen and train sVAE+ on it
  svae-cpu run --sim-cells 50 --epochs 20              the same, small: a first look in seconds
  svae-cpu run --data screen.h5ad --label-key gene     train on your own screen
  svae-cpu run --data screen.h5ad --label-key gene --holdout KLF1,CEBPA --out results/held-out
  svae-cpu run --data filtered_feature_bc_matrix.h5 --labels guides.csv --control non-targeting --top-genes 2000
  svae-cpu run results/0001/config.toml --seed 1       repeat a run with another seed
  svae-cpu run --json --quiet > metrics.json           figures only
  svae-cpu run --data screen.h5ad --label-key gene --out first --resume --time-limit 11h50m
                                                       a batch job that can be submitted again unchanged
  svae-cpu run --resume results/0001                   resume a run that was interrupted

Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped early by a signal or the time limit: resume it.";

impl RunArgs {
    /// The checked settings.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn checked(mut self) -> Result<Settings> {
        let resumes = self.settings.interruption.resume == Some(true);
        let is_screen = |path: &PathBuf| {
            !(path.is_dir() && (resumes || ResultsFile::Config.within(path).is_file())) && names_a_screen(path)
        };
        if let Some(file) = self.config.take_if(|path| is_screen(path)) {
            let data = &mut self.settings.data.data;
            if data.is_some() {
                let problem = "data are named with --data as well";
                return Err(InputError::new(problem, "name every data file with --data").in_file(&file).into());
            }
            *data = Some(vec![file]);
        }
        let Some(folder) = self.config.take_if(|path| path.is_dir()) else {
            return Settings::load(self.config.as_deref(), self.settings);
        };
        let refused = |problem: &str, remedy: &str| InputError::new(problem, remedy).in_file(&folder);
        if self.settings.interruption.resume != Some(true) {
            let remedy = "name a configuration file, or add --resume to resume the run in the folder";
            return Err(refused("this is a folder", remedy).into());
        }
        let output = &mut self.settings.output;
        if output.out.as_ref().is_some_and(|out| *out != folder) {
            return Err(refused("--out names another folder", "name the folder of the run once").into());
        }
        let settings = ResultsFile::Config.within(&folder);
        if !settings.is_file() {
            let remedy = "name the results folder of a run (results/0001, say)";
            return Err(refused("the folder holds no run (config.toml is missing)", remedy).into());
        }
        output.out = Some(folder);
        Settings::load(Some(&settings), self.settings)
    }
}
