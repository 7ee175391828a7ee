//! The command line: one file per subcommand, arguments only.

mod dispatch;
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
    after_help = "Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped early (can be resumed).",
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
    Run(Box<run::Args>),
    /// Write a simulated screen with its truth to a .npz file
    Simulate(simulate::Args),
    /// Check every gradient by finite differences, and against vectors of another system
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
