//! The command line: one file per subcommand, arguments only.

pub mod bench;
mod dispatch;
pub mod embed;
pub mod evaluate;
pub mod fit_shifts;
pub mod groups;
pub mod inspect;
pub mod normalize;
pub mod report;
pub mod run;
pub mod sample;
pub mod shell;
pub mod simulate;
pub mod sweep;
pub mod verify;

pub use dispatch::dispatch;

use crate::error::{InputError, Result};

/// Arguments of the program.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "svae-cpu",
    version,
    about = "Sparse-mechanism-shift variational auto-encoder (sVAE+) for perturbation screens, on CPUs",
    after_help = "Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped early.",
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
    /// Write the report of a results folder again
    ///
    /// What `svae-cpu run` writes at its end: report.html, one page with all its drawings inside, from the other files of
    /// the folder.
    Report(report::Args),
    /// Find the latents of new cells with a trained model
    ///
    /// Genes are matched by name: those that the file lacks count as 0, others are ignored, and both are reported.
    Embed(embed::Args),
    /// Write the expression of cells as the model sees it, without sampling noise
    ///
    /// The decoder's rates, scaled to a common total count: in the cells of the run or in new ones, for all genes or some.
    Normalize(normalize::Args),
    /// Simulate cells under an intervention, or under several together, from a trained model
    ///
    /// Without --intervention, cells on which none acts. Combinations add up their shifts.
    Sample(sample::Args),
    /// Do a grid of runs as one job, and make a table of means over seeds
    ///
    /// Data are read or simulated once and shared; there is one run per core when runs outnumber cores. Runs that are
    /// finished are kept, so that the same command goes on after an interruption. Every flag of `svae-cpu run` applies
    /// to all runs, in the place of what the grid says; --method picks the runs of one method.
    Sweep(Box<sweep::Args>),
    /// Write a simulated screen with its truth to a .npz file
    ///
    /// `svae-cpu run --data FILE.npz` trains on it.
    Simulate(simulate::Args),
    /// Measure how fast a training step and the evaluation are on this machine, and predict a run
    ///
    /// The share of the peak says how close a step comes to its matrix products alone, at the fastest that they are
    /// here. With settings of a run, or data, that run's time and memory are predicted.
    Bench(Box<bench::Args>),
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
    /// Print completions for a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual page, or write the pages of all subcommands
    Man(shell::ManArgs),
}

/// A whole number given by a flag.
fn in_range(value: i64, low: i64, high: i64, flag: &str) -> Result<usize> {
    match (low..=high).contains(&value) {
        true => Ok(value as usize),
        false => {
            let remedy = format!("give a whole number from {low} to {high}");
            Err(InputError::new(format!("{value} is out of range"), remedy).at(flag).into())
        }
    }
}

/// Names given by a flag, with every entry `@file` replaced by the lines of that file; `@@name` is the name `@name`.
fn listed(entries: &[String], flag: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in entries {
        if let Some(name) = entry.strip_prefix("@@") {
            names.push(format!("@{name}"));
        } else if let Some(path) = entry.strip_prefix('@') {
            let text = std::fs::read_to_string(path).map_err(|source| {
                let remedy = "name a text file with one name per line after @";
                InputError::new(format!("the file {path} cannot be read: {source}"), remedy).at(flag)
            })?;
            names.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        } else {
            names.push(entry.clone());
        }
    }
    names.retain(|name| !name.is_empty());
    Ok(names)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
