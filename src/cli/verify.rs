//! Arguments of `svae-cpu verify`.

use std::path::PathBuf;

use crate::error::{InputError, Result};
use crate::settings::{RawData, RawExecution, RawModel, RawOutput, RawSettings, RawSimulation, Settings};

/// Arguments of `svae-cpu verify`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// Settings in TOML, as for `svae-cpu run`; those of training and output are not used
    #[arg(value_name = "CONFIG.toml")]
    pub config: Option<PathBuf>,
    /// Folder of vectors (.npz) to check too; a folder without any is an error
    #[arg(long, value_name = "DIR")]
    pub golden: Option<PathBuf>,
    /// Print the checks as one JSON object on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
    /// Settings of the data.
    #[command(flatten)]
    pub data: RawData,
    /// Settings of the model.
    #[command(flatten)]
    pub model: RawModel,
    /// Seed and threads.
    #[command(flatten)]
    pub execution: RawExecution,
    /// Settings of the simulation.
    #[command(flatten)]
    pub simulation: RawSimulation,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu verify                                      the default model on simulated cells
  svae-cpu verify results/0001/config.toml             the model and data of a run
  svae-cpu verify --golden tests/golden --json         vectors too, result as JSON";

impl VerifyArgs {
    /// The checked settings and the folder of vectors.
    ///
    /// # Errors
    /// As [`Settings::load`]; [`InputError`] if the folder of vectors does not exist or holds no .npz file.
    pub fn checked(self) -> Result<(Settings, Option<PathBuf>)> {
        if let Some(folder) = &self.golden {
            let refused = |problem: String| {
                InputError::new(problem, "give a folder that holds vectors as .npz files")
                    .in_file(folder)
                    .at("--golden")
            };
            let entries = std::fs::read_dir(folder).map_err(|error| refused(format!("it cannot be read: {error}")))?;
            let is_vector = |path: PathBuf| path.extension().is_some_and(|extension| extension == "npz");
            if !entries.flatten().any(|entry| is_vector(entry.path())) {
                return Err(refused("there is no .npz file in this folder".to_owned()).into());
            }
        }
        let flags = RawSettings {
            data: self.data,
            model: self.model,
            execution: self.execution,
            simulation: self.simulation,
            output: RawOutput { json: self.json.then_some(true), ..RawOutput::default() },
            ..RawSettings::default()
        };
        let mut config = Settings::load(self.config.as_deref(), flags)?;
        // The file's own answer to this was about `run`.
        config.output.json = self.json;
        Ok((config, self.golden))
    }
}
