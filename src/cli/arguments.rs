//! The program's arguments and subcommands, each with the help that it shows.

use crate::cli::{
    bench, embed, evaluate, fit_shifts, inspect, judge, normalize, predict, report, run, sample, shell, simulate,
    sweep, verify,
};

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
    Run(Box<run::RunArgs>),
    /// Judge the models of a results folder again, for example with more samples, and write evaluation.json
    ///
    /// The data are read, or simulated, as the folder's config.toml says; paths are relative to the working directory.
    Evaluate(evaluate::EvaluateArgs),
    /// Take the trained model of a results folder through the held-out protocol
    ///
    /// What `svae-cpu run` does after the training unless --no-heldout is given: fix the masks, train again, fit the
    /// shifts of the held-out interventions, and judge their cells. Writes model_heldout.safetensors,
    /// shifts_heldout.csv, history_retrain.csv and evaluation.json into the folder.
    FitShifts(fit_shifts::FitShiftsArgs),
    /// Write the report of a results folder again
    ///
    /// What `svae-cpu run` writes at its end: report.html, one page with all its drawings inside, from the other files of
    /// the folder.
    Report(report::ReportArgs),
    /// Find the latents of new cells with a trained model
    ///
    /// Genes are matched by name: those that the file lacks count as 0, others are ignored, and both are reported.
    Embed(embed::EmbedArgs),
    /// Write the expression of cells as the model sees it, without sampling noise
    ///
    /// The decoder's rates, scaled to a common total count: in the cells of the run or in new ones, for all genes or some.
    Normalize(normalize::NormalizeArgs),
    /// Simulate cells under an intervention, or under several together, from a trained model
    ///
    /// Without --intervention, cells on which none acts. Combinations add up their shifts.
    Sample(sample::SampleArgs),
    /// Predict what cells under combinations of interventions look like, seen or not
    ///
    /// Mean expression of each gene with its effect and log fold change against control, and its 95 % interval;
    /// or, with --cells, simulated cells. What training cells show beyond the model is carried over. Combinations add up their shifts.
    Predict(predict::PredictArgs),
    /// Judge predictions of held-out combinations beside baselines, and write them for an independent judge
    ///
    /// What `svae-cpu run` does at its end where combinations of known interventions are held out. Baselines (no change, mean of
    /// the perturbed, mean of the members, additive, linear) know training cells alone; half of the cells of a combination are the
    /// ceiling. Says where the model is worse. Writes judgement.json, judgement.csv, non_additive.csv and the pair of files
    /// that cell-eval reads into the folder.
    Judge(judge::JudgePredictionsArgs),
    /// Do a grid of runs as one job, and make a table of means over seeds
    ///
    /// Data are read or simulated once and shared; there is one run per core when runs outnumber cores. Runs that are
    /// finished are kept, so that the same command goes on after an interruption. Every flag of `svae-cpu run` applies
    /// to all runs, in the place of what the grid says; --method picks the runs of one method.
    Sweep(Box<sweep::SweepArgs>),
    /// Write a simulated screen with its truth to a .npz file
    ///
    /// `svae-cpu run --data FILE.npz` trains on it.
    Simulate(simulate::SimulateArgs),
    /// Measure how fast a training step and the evaluation are on this machine, and predict a run
    ///
    /// The share of the peak says how close a step comes to its matrix products alone, at the fastest that they are
    /// here. With settings of a run, or data, that run's time and memory are predicted.
    Bench(Box<bench::BenchArgs>),
    /// Show what is in a data file, and the command that would train on it
    ///
    /// Matrices with their types and whether they look like raw counts, the columns of the cells with their levels, and
    /// what might mislead.
    Inspect(inspect::InspectArgs),
    /// Check every gradient by finite differences, and against vectors of another system
    ///
    /// Each block of the model and the whole objective are checked in double precision at random points, for the
    /// settings and the data given (or a simulation). The exit code is 1 if any check fails.
    Verify(Box<verify::VerifyArgs>),
    /// Print completions for a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual page, or write the pages of all subcommands
    Man(shell::ManArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
