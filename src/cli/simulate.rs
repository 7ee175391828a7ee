//! Arguments of `svae-cpu simulate`.

use std::path::PathBuf;

use crate::data::simulate::Simulation;
use crate::error::{Error, InputError, Result};
use crate::settings::RawSimulation;

/// Arguments of `svae-cpu simulate`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SimulateArgs {
    /// File to write
    #[arg(long, value_name = "FILE.npz")]
    pub out: PathBuf,
    /// Replace FILE.npz if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Seed of every random stream [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "sim_seed")]
    pub seed: Option<i64>,
    /// Settings of the simulation.
    #[command(flatten)]
    pub simulation: RawSimulation,
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu simulate --out screen.npz                   100 interventions, 500 cells each, 100 genes, 15 latents
  svae-cpu simulate --out small.npz --sim-cells 20 --sim-interventions 8 --seed 1
  svae-cpu simulate --out paper.npz --simulation paper";

impl SimulateArgs {
    /// The checked simulation and the file to write.
    ///
    /// # Errors
    /// [`InputError`] for a setting out of range, an `out` that exists (without `overwrite`), is no .npz file or lies
    /// in no folder.
    pub fn checked(self) -> Result<(Simulation, PathBuf)> {
        let mut raw = self.simulation;
        let refused = |problem: &str, remedy: &str| -> Error {
            InputError::new(problem, remedy).in_file(&self.out).at("--out").into()
        };
        if let Some(seed) = self.seed {
            if seed < 0 {
                let remedy = format!("give a whole number from 0 to {}", i64::MAX);
                return Err(InputError::new(format!("{seed} is out of range"), remedy).at("--seed").into());
            }
            raw.seed = Some(seed);
        }
        let simulation = raw.check(0)?;
        if self.out.extension().is_none_or(|extension| extension != "npz") {
            return Err(refused("the name does not end in .npz", "the file is a NumPy archive: give it that ending"));
        }
        if self.out.is_dir() {
            return Err(refused("this is a folder", "name a file"));
        }
        if self.out.exists() && !self.overwrite {
            return Err(refused("the file exists", "choose another --out, or add --overwrite to replace it"));
        }
        if let Some(folder) = self.out.parent()
            && !folder.as_os_str().is_empty()
            && !folder.is_dir()
        {
            return Err(refused("its folder does not exist", "create the folder first"));
        }
        Ok((simulation, self.out))
    }
}
