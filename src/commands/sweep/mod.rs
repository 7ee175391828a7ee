//! Many runs as one job: a grid of settings, data shared, cores shared out, finished runs kept, tables at the end.

pub mod display;
pub mod figures;
pub mod plan;
pub mod schedule;
pub mod select;
pub mod table;

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Instant;

use crate::checkpoint::{ResumableRun, file as checkpoint};
use crate::commands::run::train_and_judge;
use crate::commands::run_folder::describe;
use crate::commands::screen;
use crate::commands::sweep::display::Display;
use crate::commands::sweep::figures::Figures;
use crate::commands::sweep::plan::{Plan, PlannedRun, State, state};
use crate::commands::sweep::table::{Status, Tables};
use crate::display::progress::ProgressKind;
use crate::error::{Error, Result};
use crate::evaluation::metrics::Metrics;
use crate::parallel::ranks::Ranks;
use crate::parallel::team::{SpareThreads, Team};
use crate::results::folder::{Earlier, ResultsFolder};
use crate::settings::{Grid, threads_or_all};
use crate::system::console::Console;
use crate::system::files::write_atomically;
use crate::system::interruption::{Deferral, SaveSchedule};
use crate::words::seconds;

/// A share of the runs, for a job array: the i-th of n, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which.
    pub number: usize,
    /// Of how many.
    pub of: usize,
}

impl Shard {
    fn holds(self, run: usize) -> bool {
        run % self.of == self.number - 1
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err("give a share as i/n, from 1/n to n/n, such as 2/8".to_owned()),
        }
    }
}

/// Which part of a sweep is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All runs, then the tables.
    Whole,
    /// A share of the runs, without tables.
    Shard(Shard),
    /// The tables, of the runs that are finished.
    TablesOnly,
    /// Nothing: the runs are listed.
    List,
}

/// What a sweep leaves behind.
#[derive(Debug)]
pub struct SweepOutcome {
    /// Its folder.
    pub folder: PathBuf,
    /// Its tables; `None` for a share of the runs.
    pub tables: Option<Tables>,
    /// Every run of the part that was wanted, with how it stands.
    pub runs: Vec<(String, Status)>,
}

/// Does the runs of a grid that are not finished, and writes the tables.
///
/// # Errors
/// A grid that asks for what cannot be done: nothing is started then. A run that fails is no error here but a
/// [`Status::Failed`].
///
/// [`Error::Stopped`] for a sweep that was stopped early: the same call goes on with it.
pub fn sweep(grid: &Grid, part: Part) -> Result<SweepOutcome> {
    sweep_among(Ranks::alone(), grid, part)
}

/// As [`sweep`], on several processes that share out the runs; the first one makes the tables.
///
/// # Errors
/// As [`sweep`].
pub fn sweep_among(ranks: &Ranks, grid: &Grid, part: Part) -> Result<SweepOutcome> {
    let begin = Instant::now();
    let plan = Plan::new(grid).and_then(|plan| {
        select::check(grid, &plan)?;
        Ok(plan)
    });
    let plan = ranks.first_error(plan)?;
    ranks.check_same("grid", &plan.runs.iter().map(|run| run.config.to_toml()).collect::<String>())?;
    if let Some(run) = plan.runs.first() {
        run.config.execution.simd.choose();
    }
    let wanted: Vec<usize> = (0..plan.runs.len())
        .filter(|&i| match part {
            Part::Shard(shard) => shard.holds(i),
            _ => true,
        })
        .collect();
    // One rank looks, before any of them begins, and tells the others.
    let todo = if ranks.is_first() { to_do(grid, &plan, &wanted) } else { Ok(Vec::new()) };
    let todo = ranks.first_error(todo)?;
    let todo: Vec<(usize, Option<String>)> = of_json(&ranks.first_text(&json(&todo)));
    if part == Part::List {
        return Ok(listed(&plan, &todo));
    }
    if ranks.is_first() {
        std::fs::create_dir_all(&plan.folder).map_err(|source| Error::io("creating", &plan.folder, source))?;
        write_atomically(&plan.folder.join("grid.toml"), |file| file.write_all(grid.text.as_bytes()))?;
    }

    let _deferral = Deferral::begin();
    let work = Work {
        ranks,
        grid,
        plan: &plan,
        wanted: &wanted,
        todo: &todo,
        schedule: grid.interruption.save_schedule(begin),
    };
    let mut failures = vec![None; plan.runs.len()];
    if part != Part::TablesOnly {
        work.do_runs(&mut failures);
        work.stop_if_asked()?;
    }
    // Also the point where the first rank knows that all are done.
    let told: Vec<(usize, &String)> = failures.iter().enumerate().filter_map(|(i, f)| Some((i, f.as_ref()?))).collect();
    for told in ranks.gather_texts(&json(&told)) {
        for (i, failure) in of_json::<Vec<(usize, String)>>(&told) {
            failures[i] = Some(failure);
        }
    }

    let mut statuses: Vec<Status> = plan.runs.iter().zip(failures).map(|(run, failure)| status(run, failure)).collect();
    let tables = match part {
        Part::Shard(_) => None,
        _ if !ranks.is_first() => None,
        _ => {
            let tables = tables(grid, &plan, &mut statuses);
            tables.write(&plan.folder)?;
            Some(tables)
        }
    };
    let runs = wanted.iter().map(|&i| (plan.runs[i].name.clone(), statuses[i].clone())).collect();
    Ok(SweepOutcome { folder: plan.folder, tables, runs })
}

/// The runs that are to be done, and what they share.
struct Work<'a> {
    ranks: &'a Ranks,
    grid: &'a Grid,
    plan: &'a Plan,
    /// Numbers of the runs of the part that is wanted.
    wanted: &'a [usize],
    /// Numbers of those that are not finished, and why they are done again.
    todo: &'a [(usize, Option<String>)],
    schedule: SaveSchedule,
}

impl Work<'_> {
    /// Does this rank's share of the runs, and notes in `failures` what went wrong with each.
    fn do_runs(&self, failures: &mut [Option<String>]) {
        let Self { ranks, grid, plan, .. } = self;
        let own = || self.todo.iter().skip(ranks.rank()).step_by(ranks.size());
        let display = Display::new(own().count(), grid.quiet);
        if ranks.is_first() {
            plan.notes.iter().for_each(|note| display.note(note));
            let (finished, wanted) = (self.wanted.len() - self.todo.len(), self.wanted.len());
            if finished > 0 {
                display.note(&format!("{finished} of {wanted} runs are finished already."));
            }
        }
        for (i, reason) in own() {
            plan.data[plan.runs[*i].data].expect_use();
            if let Some(reason) =
                reason.as_ref().filter(|_| grid.overwrite || !checkpoint::exists(&plan.runs[*i].folder))
            {
                display.note(&format!("{} is done again: {reason}.", plan.runs[*i].name));
            }
        }
        let failures = Mutex::new(failures);
        let jobs = own().map(|&(i, _)| i).collect();
        schedule::share_out(threads_or_all(grid.threads), jobs, |i, threads, spare| {
            if self.schedule.cause().is_none()
                && let Some(failure) = self.do_run(&plan.runs[i], (threads, spare), &display)
            {
                failures.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[i] = Some(failure);
            }
            plan.data[plan.runs[i].data].release();
        });
        display.close();
    }

    /// Does one run and shows how it ends; returns what went wrong with it.
    fn do_run(&self, run: &PlannedRun, threads: (usize, &SpareThreads), display: &Display) -> Option<String> {
        let line = display.begin(&run.name, threads.0);
        let start = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let progress = display.kind(&line, &run.name);
            one(self.plan, run, self.grid.overwrite, threads, self.schedule.clone(), progress)
        }));
        let failure = match ended {
            Ok(Ok(metrics)) => {
                display.end(&line, &run.name, &summary(&metrics, start));
                return None;
            }
            Ok(Err(Error::Stopped(_))) => {
                display.pause(&line, &run.name, &format!("stopped after {}, will resume", since(start)));
                return None;
            }
            Ok(Err(error)) => error.to_string(),
            Err(payload) => format!("the program has a fault: {}", panic_message(&*payload)),
        };
        display.end(&line, &run.name, &format!("FAILED after {}: {failure}", since(start)));
        Some(failure)
    }

    /// Ends the sweep on all ranks if one of them has to stop, so that it does not leave the others waiting.
    fn stop_if_asked(&self) -> Result<()> {
        let cause = self.schedule.cause().map(|cause| cause.to_string());
        let Some(cause) = self.ranks.first_of(cause) else { return Ok(()) };
        let finished = |&&i: &&usize| matches!(state(&self.plan.runs[i]), State::Finished(_));
        let (done, all) = (self.wanted.iter().filter(finished).count(), self.wanted.len());
        let how = match self.grid.overwrite {
            true => "the same command without --overwrite goes on",
            false => "the same command goes on",
        };
        let folder = self.plan.folder.display();
        Err(Error::Stopped(format!("stopped by {cause}; {done} of {all} runs are finished in {folder}; {how}.")))
    }
}

/// Numbers of the runs that have to be done, and why they are done again.
fn to_do(grid: &Grid, plan: &Plan, wanted: &[usize]) -> Result<Vec<(usize, Option<String>)>> {
    let mut todo = Vec::new();
    for &i in wanted {
        match state(&plan.runs[i]) {
            State::Finished(_) if !grid.overwrite => ResultsFolder::tidy(&plan.runs[i].folder)?,
            State::Finished(_) => todo.push((i, Some("--overwrite is given".to_owned()))),
            State::Absent => todo.push((i, None)),
            State::Unfinished(reason) => todo.push((i, Some(reason))),
        }
    }
    // Runs on the same data stand together, so that few data are in memory at a time.
    todo.sort_by_key(|&(i, _)| (plan.runs[i].data, i));
    Ok(todo)
}

/// What ranks tell each other, as text.
fn json(told: &impl serde::Serialize) -> String {
    serde_json::to_string(told).expect("numbers and sentences")
}

fn of_json<T: serde::de::DeserializeOwned>(told: &str) -> T {
    serde_json::from_str(told).expect("written by `json`")
}

/// Does one run, or goes on with it unless it is to be done anew, on so many threads and spare ones.
fn one(
    plan: &Plan,
    run: &PlannedRun,
    anew: bool,
    (threads, spare): (usize, &SpareThreads),
    watch: SaveSchedule,
    progress: ProgressKind<'_>,
) -> Result<Metrics> {
    Team::with_spare_threads(threads, spare, |team| {
        let loaded = plan.data[run.data].get(team)?;
        let start = Instant::now();
        let screen = screen::split(&run.config, loaded)?;
        // Of many runs on the same cells, each would copy the counts.
        let mut config = run.config.clone();
        config.output.h5ad = false;
        let begin = |earlier| -> Result<(ResultsFolder, ResumableRun<'_>)> {
            let folder = ResultsFolder::create(Some(&run.folder), earlier)?;
            let description = describe(&config, &screen.data, &run.folder)?;
            let mut resumable = ResumableRun::new(&run.folder, description, watch.clone(), &progress, start);
            if earlier == Earlier::Resume {
                resumable.resume(threads)?;
            }
            Ok((folder, resumable))
        };
        let begun = match !anew && checkpoint::exists(&run.folder) {
            true => begin(Earlier::Resume),
            false => begin(Earlier::Replace),
        };
        let (folder, current) = match begun {
            // As with a finished run of other settings: what is there does not count.
            Err(Error::Input(reason)) if !anew => {
                progress.warn(&format!("{} is done from its beginning: {}.", run.name, reason.problem));
                begin(Earlier::Replace)?
            }
            begun => begun?,
        };
        Ok(train_and_judge(team, &config, &screen, &folder, current, progress)?.metrics)
    })
}

fn since(start: Instant) -> String {
    seconds(start.elapsed().as_secs_f64())
}

/// A finished run in a line.
fn summary(metrics: &Metrics, start: Instant) -> String {
    let mut text = format!("finished in {}, ELBO validation {:.2}", since(start), metrics.elbo_validation);
    if let Some(mcc) = metrics.mcc_pearson {
        text += &format!(", MCC {mcc:.3}");
    }
    if let Some(heldout) = &metrics.heldout {
        text += &format!(", held-out NLL {:.2}", heldout.nll_iwelbo);
        if !heldout.left_out.is_empty() {
            text += &format!(" ({} interventions left out: too few cells)", heldout.left_out.len());
        }
    }
    text
}

/// What a panic said.
fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("it panicked without a message").to_owned()
}

/// How a run stands now; its figures are read back, so that they are the same whenever it was done.
fn status(run: &PlannedRun, failure: Option<String>) -> Status {
    match (failure, state(run)) {
        (Some(failure), _) => Status::Failed(failure),
        (None, State::Finished(figures)) => Status::Finished(figures),
        (None, State::Absent) => Status::Missing("it has not been done".to_owned()),
        (None, State::Unfinished(reason)) => Status::Missing(reason),
    }
}

/// The tables, UDR and selection included.
fn tables(grid: &Grid, plan: &Plan, statuses: &mut [Status]) -> Tables {
    let mut figures: Vec<Option<Figures>> = statuses
        .iter()
        .map(|status| match status {
            Status::Finished(figures) => Some((**figures).clone()),
            _ => None,
        })
        .collect();
    let mut notes = Team::with(threads_or_all(grid.threads), |team| select::rank(team, plan, &mut figures));
    for (status, figures) in statuses.iter_mut().zip(figures) {
        if let Some(figures) = figures {
            *status = Status::Finished(Box::new(figures));
        }
    }
    let mut rows = table::rows(plan, statuses);
    if let Some(selection) = &grid.selection {
        notes.extend(select::select(plan, selection, &mut rows));
    }
    Tables::new(plan, rows, statuses, grid.selection.clone(), notes)
}

/// The runs as they stand, with nothing done.
fn listed(plan: &Plan, todo: &[(usize, Option<String>)]) -> SweepOutcome {
    let runs = plan.runs.iter().enumerate().map(|(i, run)| {
        let status = match (todo.iter().find(|(j, _)| *j == i), state(run)) {
            (None, State::Finished(figures)) => Status::Finished(figures),
            (Some((_, Some(reason))), _) => Status::Missing(reason.clone()),
            _ => Status::Missing("it has not been done".to_owned()),
        };
        (run.name.clone(), status)
    });
    let runs = runs.collect();
    SweepOutcome { folder: plan.folder.clone(), tables: None, runs }
}
