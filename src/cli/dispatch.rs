//! From arguments to the code that does the work: the only place where the command line meets the engine.

use super::{Cli, Command};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::report;
use crate::run::Outcome;

/// Does what the command line asks for.
///
/// Standard output carries the result only (a table, or one JSON object); everything else goes to standard error.
///
/// # Errors
/// Whatever went wrong; [`Error::exit_code`] says whose turn it is.
pub fn dispatch(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Run(args) => {
            let config = args.checked()?;
            let outcome = crate::run::run(&config)?;
            if config.json {
                report::print(&outcome.metrics.to_json())
            } else {
                report::print(&format!("{}\n\nResults: {}", outcome.metrics.table(), outcome.folder.display()))
            }
        }
        Command::Evaluate(args) => {
            let config = args.checked()?;
            let outcome = crate::run::evaluate(&config, &args.folder)?;
            evaluated(&config, &outcome)
        }
        Command::FitShifts(args) => {
            let config = args.checked()?;
            let outcome = crate::run::fit_shifts(&config, &args.folder, args.overwrite)?;
            evaluated(&config, &outcome)
        }
        Command::Simulate(args) => {
            let (simulation, out) = args.checked()?;
            crate::run::simulate(&simulation, &out)?;
            report::print(&format!(
                "{}: {} cells x {} genes, {} interventions.",
                out.display(),
                simulation.interventions * simulation.cells,
                simulation.genes,
                simulation.interventions
            ))
        }
        Command::Inspect(args) => {
            let (layer, genome) = (args.layer.as_deref(), args.genome.as_deref());
            let found = crate::data::inspect::inspect(&args.file, layer, genome, args.labels.as_deref())?;
            report::print(&if args.json { found.to_json() } else { found.text() })
        }
        Command::Verify(args) => {
            let (config, golden) = args.checked()?;
            let verification = crate::run::verify(&config, golden.as_deref())?;
            if config.json {
                report::print(&verification.to_json())?;
            } else {
                report::print(&format!("{}\n\n{}", verification.table(), verification.summary()))?;
            }
            if verification.pass { Ok(()) } else { Err(Error::Verification(verification.summary())) }
        }
    }
}

/// Prints the figures of a model that was read.
fn evaluated(config: &Config, outcome: &Outcome) -> Result<()> {
    if config.json {
        report::print(&outcome.metrics.to_json())
    } else {
        let file = outcome.folder.join("evaluation.json");
        report::print(&format!("{}\n\nFigures: {}", outcome.metrics.table(), file.display()))
    }
}
