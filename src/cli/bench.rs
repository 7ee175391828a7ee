//! Arguments of `svae-cpu bench`.

use std::path::PathBuf;
use std::time::Duration;

use crate::commands::bench::{BenchPlan, Shape};
use crate::error::{InputError, Result};
use crate::settings::{RawData, RawExecution, RawModel, RawOutput, RawSettings, RawSimulation, RawTraining, Settings};

/// Arguments of `svae-cpu bench`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// Settings in TOML, as for `svae-cpu run`: that run is timed and predicted
    #[arg(value_name = "CONFIG.toml")]
    pub config: Option<PathBuf>,
    /// Shape to time: simulation (100 genes, 15 latents, 100 interventions) or screen (1,187 genes, 600 interventions, mostly
    /// zeros); without it both, or only your own settings where some are given
    #[arg(long, value_name = "SHAPE", value_delimiter = ',')]
    pub shape: Vec<Shape>,
    /// Seconds for the training steps of each timing; evaluation is timed for half as long
    #[arg(long, value_name = "X", default_value_t = 5.0)]
    pub seconds: f64,
    /// Print the figures as one JSON object on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
    /// Settings of the data.
    #[command(flatten)]
    pub data: RawData,
    /// Settings of the model.
    #[command(flatten)]
    pub model: RawModel,
    /// Settings of the training.
    #[command(flatten)]
    pub training: RawTraining,
    /// Seed and threads.
    #[command(flatten)]
    pub execution: RawExecution,
    /// Settings of the simulation.
    #[command(flatten)]
    pub simulation: RawSimulation,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu bench                                       both shapes, on one thread, two, four, ... as the machine has
  svae-cpu bench --shape screen --threads 2 --json     one of them, for a record
  svae-cpu bench --data screen.h5ad --label-key gene   your data: how long a run would take, and how much memory";

impl BenchArgs {
    /// The checked plan.
    ///
    /// # Errors
    /// As [`Settings::load`]; [`InputError`] for a number of seconds that is no time.
    pub fn checked(self) -> Result<BenchPlan> {
        if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            let problem = format!("{} is no number of seconds to time for", self.seconds);
            return Err(InputError::new(problem, "give more than 0 and at most 3600").at("--seconds").into());
        }
        let settings = RawSettings {
            data: self.data,
            model: self.model,
            training: self.training,
            simulation: self.simulation,
            ..RawSettings::default()
        };
        let is_own = self.config.is_some() || settings != RawSettings::default();
        let flags = RawSettings { execution: self.execution, output: RawOutput::default(), ..settings };
        let config = Settings::load(self.config.as_deref(), flags)?;
        let all = config.n_threads();
        let threads = match config.execution.threads {
            Some(threads) => vec![threads],
            None => (0..).map(|i| 1 << i).take_while(|&n| n < all).chain([all]).collect(),
        };
        let shapes = match (self.shape.is_empty(), is_own) {
            (true, false) => vec![Shape::Simulation, Shape::Screen],
            (true, true) => Vec::new(),
            (false, _) => self.shape,
        };
        config.execution.simd.choose();
        let duration = Duration::from_secs_f64(self.seconds);
        Ok(BenchPlan { shapes, own: is_own.then_some(config), threads, duration })
    }
}
