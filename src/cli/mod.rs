//! The command line: one file per subcommand, arguments only.

mod dispatch;
pub mod evaluate;
pub mod fit_shifts;
pub mod inspect;
pub mod run;
pub mod simulate;
pub mod verify;

pub use dispatch::dispatch;

/// Arguments of the program.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "svae-cpu",
    version,
    about = "Sparse-mechanism-shift variational auto-encoder (sVAE+) for perturbation screens, on CPUs",
    after_help = "Exit codes: 0 done, 1 failed, 2 bad input.",
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A subcommand.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Train a model on a screen, or on a simulation, and write a results folder
    ///
    /// Without --data, a screen is simulated. Every flag is also a key of CONFIG.toml, with underscores for dashes
    /// (--label-key is label_key); the flags of the simulation belong into a table `[simulation]` (--sim-cells is cells,
    /// --simulation is kind). Flags win over the file. Paths are relative to the working directory.
    Run(Box<run::Args>),
    /// Judge the models of a results folder again, for example with more samples, and write evaluation.json
    ///
    /// The data are read, or simulated, as the folder's config.toml says; paths are relative to the working directory.
    Evaluate(evaluate::Args),
    /// Take the trained model of a results folder through the held-out protocol
    ///
    /// What `svae-cpu run` does after the training unless --no-heldout is given: fix the masks, train again, fit the
    /// shifts of the held-out interventions, and judge their cells. Writes model_heldout.safetensors,
    /// shifts_heldout.csv, history_retrain.csv and evaluation.json into the folder.
    FitShifts(fit_shifts::Args),
    /// Write a simulated screen with its truth to a .npz file
    ///
    /// `svae-cpu run --data FILE.npz` trains on it.
    Simulate(simulate::Args),
    /// Show what is in a data file, and the command that would train on it
    ///
    /// Matrices with their types and whether they look like raw counts, the columns of the cells with their levels, and
    /// what might mislead.
    Inspect(inspect::Args),
    /// Check every gradient by finite differences, and against vectors of another system
    ///
    /// Each block of the model and the whole objective are checked in double precision at random points, for the
    /// settings and the data given (or a simulation). The exit code is 1 if any check fails.
    Verify(Box<verify::Args>),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
