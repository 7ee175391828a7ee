//! From arguments to the code that does the work: the only place where the command line meets the engine.

use crate::commands::run_folder;
use std::io::Write;
use std::path::Path;

use crate::cli::arguments::{Cli, Command};
use crate::cli::manual;
use crate::cli::predict::PredictArgs;
use crate::commands::bench::bench;
use crate::commands::embed::embed;
use crate::commands::evaluate::evaluate;
use crate::commands::fit_shifts::fit_shifts;
use crate::commands::inspect::inspect_as;
use crate::commands::judge::judge;
use crate::commands::normalize::normalize;
use crate::commands::predict::predict;
use crate::commands::report::report;
use crate::commands::run::RunOutcome;
use crate::commands::sample::sample;
use crate::commands::simulate::simulate;
use crate::commands::sweep::Part;
use crate::commands::sweep::table::Status;
use crate::commands::verify::verify;
use crate::commands::{run, sweep};
use crate::display::json::to_json;
use crate::display::judgement::judgement_text;
use crate::display::linear_rival::linear_sentence;
use crate::display::metrics_table::metrics_table;
use crate::display::progress::ProgressKind;
use crate::display::table::Table;
use crate::display::verification_table::{verification_summary, verification_table};
use crate::error::{Error, InputError, Result};
use crate::evaluation::metrics::Metrics;
use crate::parallel::ranks::Ranks;
use crate::results::catalogue::ResultsFile;
use crate::results::output_file::Written;
use crate::settings::{Grid, Settings};
use crate::system::console::{Console, LogFormat};
use crate::system::{console, interruption};
use crate::verification::outcome::Verification;
use crate::words::grouped;

/// Does what the command line asks for.
///
/// Standard output carries the result only (a table, or one JSON object); everything else goes to standard error.
///
/// Of several processes, `run` and `sweep` make use of all, and the first one prints; other commands are for one.
///
/// # Errors
/// Whatever went wrong; [`Error::exit_code`] says whose turn it is.
pub fn dispatch(cli: Cli, ranks: &Ranks) -> Result<()> {
    check_ranks(&cli.command, ranks)?;
    match cli.command {
        Command::Run(args) => run_on(ranks, *args),
        Command::Evaluate(args) => {
            let config = args.checked()?;
            interruptible(config.output.log_format)?;
            let outcome = evaluate(&config, &args.of.folder)?;
            evaluated(&config, &outcome)
        }
        Command::FitShifts(args) => {
            let config = args.checked()?;
            interruptible(config.output.log_format)?;
            let outcome = fit_shifts(&config, &args.of.folder, args.overwrite)?;
            evaluated(&config, &outcome)
        }
        Command::Report(args) => {
            let file = report(&args.folder)?;
            console::print(&format!("Report: {}", file.display()))
        }
        Command::Embed(args) => {
            let (model, kind) = args.checked()?;
            applied(&args.out, &embed(&model, &args.data, args.drop_empty_cells, &args.out, kind)?)
        }
        Command::Normalize(args) => {
            let (model, request, kind) = args.checked()?;
            applied(&args.out, &normalize(&model, &request, &args.out, kind)?)
        }
        Command::Sample(args) => {
            let (model, request, kind) = args.checked()?;
            applied(&args.out, &sample(&model, &request, &args.out, kind)?)
        }
        Command::Judge(args) => {
            let judgement = judge(&args.checked()?, &args.folder)?;
            console::print(&if args.json { to_json(&judgement) } else { judgement_text(&judgement) })
        }
        Command::Predict(args) => predicted(&args),
        Command::Completions(args) => console::print(manual::completions(args.shell).trim_end()),
        Command::Man(args) => match &args.out {
            None => console::print(manual::manual().trim_end()),
            Some(folder) => {
                let names = manual::write_manuals(folder)?;
                console::print(&format!("{}: {}", folder.display(), names.join(", ")))
            }
        },
        Command::Sweep(args) => {
            let (grid, part) = ranks.first_error(args.checked())?;
            interruptible(grid.log_format)?;
            let outcome = sweep::sweep_among(ranks, &grid, part)?;
            if ranks.is_first() { swept(&grid, part, &outcome) } else { Ok(()) }
        }
        Command::Simulate(args) => {
            let (simulation, out) = args.checked()?;
            simulate(&simulation, &out)?;
            console::print(&format!(
                "{}: {} cells x {} genes, {} interventions{}.",
                out.display(),
                simulation.n_cells(),
                simulation.n_genes,
                simulation.n_interventions,
                simulation.n_combinations.map_or_else(String::new, |n| format!(", {n} combinations"))
            ))
        }
        Command::Bench(args) => {
            let json = args.json;
            let figures = bench(&args.checked()?)?;
            console::print(&if json { figures.to_json() } else { figures.text() })
        }
        Command::Inspect(args) => {
            let (file, options) = args.opened();
            let found = inspect_as(&file, &options)?;
            console::print(&if args.json { found.to_json() } else { found.text() })
        }
        Command::Verify(args) => {
            let (config, golden) = args.checked()?;
            verified(&config, &verify(&config, golden.as_deref())?)
        }
    }
}

/// Does a run, or says that it is finished already.
fn run_on(ranks: &Ranks, args: crate::cli::run::RunArgs) -> Result<()> {
    let config = ranks.first_error(args.checked())?;
    interruptible(config.output.log_format)?;
    let finished = if ranks.is_first() { run_folder::finished(&config) } else { Ok(None) };
    let finished = ranks.first_error(finished)?;
    if ranks.any(finished.is_some()) {
        return finished.map_or(Ok(()), |folder| finished_before(&config, &folder));
    }
    let outcome = run::run(ranks, &config)?;
    if !ranks.is_first() {
        Ok(())
    } else if config.output.json {
        console::print(&to_json(&outcome.metrics))
    } else {
        console::print(&format!("{}\n\nResults: {}", figures(&outcome.metrics), outcome.folder.display()))
    }
}

/// Lets signals end what follows in an orderly way.
fn interruptible(format: LogFormat) -> Result<()> {
    console::choose_format(format);
    let farewell = |cause| {
        let text = format!("stopped by {cause}; nothing had to be saved: start the same command again");
        let _ = writeln!(std::io::stderr(), "{}", console::complaint(&Error::Stopped(text)));
    };
    interruption::listen(farewell).map_err(|source| Error::io("listening to", "signals", source))
}

/// Refuses several processes where each would do the same.
fn check_ranks(command: &Command, ranks: &Ranks) -> Result<()> {
    match command {
        Command::Run(_) => Ok(ranks.check_launcher()?),
        // Shares of a sweep may be given to processes that do not know of each other.
        Command::Sweep(args) if args.shard.is_none() => Ok(ranks.check_launcher()?),
        Command::Sweep(_) => Ok(()),
        _ if ranks.is_alone() => Ok(()),
        _ => {
            let problem = format!(
                "{} processes were started, and only `run` and `sweep` make use of more than one",
                ranks.size()
            );
            ranks.first_error(Err(InputError::new(problem, "start one process").into()))
        }
    }
}

/// Says that a run is finished, and where.
fn finished_before(config: &Settings, folder: &Path) -> Result<()> {
    ProgressKind::choose(config.output.quiet).note(&format!("The run in {} is finished already.", folder.display()));
    if config.output.json {
        let path = ResultsFile::Metrics.within(folder);
        let text = std::fs::read_to_string(&path).map_err(|source| Error::io("reading", &path, source))?;
        return console::print(text.trim_end());
    }
    console::print(&format!("Results: {}", folder.display()))
}

/// Says what a model was used for: notes on standard error, the file on standard output.
fn applied(out: &Path, applied: &Written) -> Result<()> {
    noted(applied);
    console::print(&format!("{}: {} cells.", out.display(), grouped(applied.n_cells as u64)))
}

/// Predicts combinations, and says what was written.
fn predicted(args: &PredictArgs) -> Result<()> {
    let (model, request, kind) = args.checked()?;
    let written = predict(&model, &request, &args.out, kind)?;
    if request.cells.is_some() {
        return applied(&args.out, &written);
    }
    noted(&written);
    console::print(&format!("{}: {} combinations.", args.out.display(), grouped(written.n_cells as u64)))
}

fn noted(written: &Written) {
    written.notes.iter().for_each(|note| ProgressKind::Lines.note(&format!("{note}.")));
}

/// Prints the figures of a model that was read.
fn evaluated(config: &Settings, outcome: &RunOutcome) -> Result<()> {
    if config.output.json {
        console::print(&to_json(&outcome.metrics))
    } else {
        let file = ResultsFile::Evaluation.within(&outcome.folder);
        console::print(&format!("{}\n\nFigures: {}", figures(&outcome.metrics), file.display()))
    }
}

/// The figures of a model: a table, then what the linear model says about it.
fn figures(metrics: &Metrics) -> String {
    let table = metrics_table(metrics);
    metrics.linear.as_ref().map_or(table.to_string(), |linear| format!("{table}\n\n{}", linear_sentence(linear)))
}

/// Prints the checks of a verification; one that failed is an error.
fn verified(config: &Settings, verification: &Verification) -> Result<()> {
    if config.output.json {
        console::print(&to_json(verification))?;
    } else {
        console::print(&format!("{}\n\n{}", verification_table(verification), verification_summary(verification)))?;
    }
    if verification.pass { Ok(()) } else { Err(Error::Verification(verification_summary(verification))) }
}

/// Prints what a sweep left behind.
fn swept(grid: &Grid, part: Part, outcome: &sweep::SweepOutcome) -> Result<()> {
    let folder = outcome.folder.display();
    let runs = &outcome.runs;
    let status = |status: &Status| match status {
        Status::Finished(_) => ("finished", String::new()),
        Status::Failed(reason) => ("failed", reason.clone()),
        Status::Missing(reason) => ("missing", reason.clone()),
    };
    match &outcome.tables {
        Some(tables) if grid.json => console::print(&tables.to_json())?,
        Some(tables) => console::print(&format!("{}\n\nTables: {folder}/table.md, .csv, .json", tables.text()))?,
        None if grid.json => {
            let runs = runs.iter().map(|(name, of)| {
                let (status, reason) = status(of);
                serde_json::json!({ "run": name, "status": status, "reason": reason })
            });
            let object = serde_json::json!({ "runs": runs.collect::<Vec<_>>() });
            console::print(&serde_json::to_string_pretty(&object).expect("names and words"))?;
        }
        None => {
            let mut table = Table::new(["run", "status", "reason"]);
            for (name, of) in runs {
                let (status, reason) = status(of);
                table.push([name.clone(), status.to_owned(), reason]);
            }
            let finished = runs.iter().filter(|(_, of)| matches!(of, Status::Finished(_))).count();
            let rest = if part == Part::List { "" } else { "; call again without --shard for the tables" };
            console::print(&format!("{table}\n\n{finished} of {} runs are finished in {folder}{rest}.", runs.len()))?;
        }
    }
    let failed: Vec<&str> =
        runs.iter().filter(|(_, of)| matches!(of, Status::Failed(_))).map(|(name, _)| name.as_str()).collect();
    match failed[..] {
        [] => Ok(()),
        [name] => Err(Error::Sweep(format!("of {} runs one failed: {name}.", runs.len()))),
        _ => Err(Error::Sweep(format!("of {} runs {} failed: {}.", runs.len(), failed.len(), failed.join(", ")))),
    }
}
