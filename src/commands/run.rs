//! A whole run on one page: data, split, training, evaluation, results.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use crate::checkpoint::{ResumableRun, RunDescription, file as checkpoint};
use crate::commands::screen;
use crate::data::dataset::Dataset;
use crate::data::identity::identity;
use crate::data::screen::Screen;
use crate::display::progress::{Progress, ProgressKind};
use crate::error::{Error, InputError, Result};
use crate::evaluation::interpretation::Interpretation;
use crate::evaluation::judge::{judge, timed};
use crate::evaluation::metrics::Metrics;
use crate::fit;
use crate::numerics::real::{Precision, Real};
use crate::parallel::ranks::Ranks;
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::cells::write_cells;
use crate::results::findings::{Findings, write_figures, write_findings, write_held_out_fit};
use crate::results::folder::{Earlier, ResultsFolder, check_destination, is_finished};
use crate::results::manifest::Manifest;
use crate::settings::{Config, INDIFFERENT_KEYS, RawConfig};
use crate::system::console::Console;
use crate::system::interruption::Deferral;
use crate::system::safetensors::TensorValues;

/// What a run leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOutcome {
    /// Its figures.
    pub metrics: Metrics,
    /// Its results folder.
    pub folder: PathBuf,
}

/// Trains a model as `config` says and writes a results folder; goes on with the run that is there, if that is wanted.
///
/// # Errors
/// Input that cannot be used (nothing is written then), a failed write, or a loss that is not finite (the results of
/// the last good state are written then). [`Error::Stopped`] for a run that was stopped early and can be resumed.
pub fn run(config: &Config) -> Result<RunOutcome> {
    run_among(Ranks::alone(), config)
}

/// As [`run`], on several processes that share out the cells. The first one writes; the outcome is whole there, and
/// lacks on the others what needs the counts of all cells.
///
/// # Errors
/// As [`run`].
pub fn run_among(ranks: &Ranks, config: &Config) -> Result<RunOutcome> {
    let start = Instant::now();
    screen::prepare_process(config);
    let first = ranks.is_first();
    let destination = if first { check_destination(config.output.out.as_deref(), earlier(config)) } else { Ok(()) };
    ranks.first_error(destination)?;
    if config.input.stream.is_some() && !ranks.is_alone() {
        let remedy = "leave out --stream (each rank then holds its share of the counts), or start a single process";
        return ranks
            .first_error(Err(InputError::new("several ranks do not read their counts from disk", remedy).into()));
    }
    let command: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let begins = json!({ "program": concat!("svae-cpu ", env!("CARGO_PKG_VERSION")), "command": command });
    ProgressKind::choose(config.output.quiet || !first).event("start", begins);
    Team::among(ranks, config.n_threads(), |team| {
        let read = screen::read(team, config).and_then(|screen| {
            let config = config.resolved(&screen.data.intervention_names, screen.split.train.len())?;
            Ok((screen, config))
        });
        let (screen, config) = ranks.first_error(read)?;
        let screen = screen::share(screen, ranks, &config)?;
        // From now on there may be something to save when a signal comes.
        let _deferral = Deferral::begin();
        let folder = if first {
            ResultsFolder::create(config.output.out.as_deref(), earlier(&config)).map(Some)
        } else {
            Ok(None)
        };
        let folder = ranks.first_error(folder)?;
        let progress = screen::progress_kind(team, &config);
        if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_locked()) {
            let path = folder.path().display();
            progress.warn(&format!("the file system of {path} has no locks: see to it that no other job works there."));
        }
        let path = folder.as_ref().map_or_else(String::new, |folder| folder.path().display().to_string());
        let path = ranks.first_text(&path);
        let folder = folder.unwrap_or_else(|| ResultsFolder::of_first_rank(path));
        let watch = config.interruption.save_schedule(start);
        let description = describe(&config, &screen.data, folder.path())?;
        let resumable = ResumableRun::new(folder.path(), description, watch, &progress, start);
        let mut resumable = resumable.among(ranks);
        if config.interruption.resume {
            resumable.resume(team.threads())?;
        }
        train_and_judge(team, &config, &screen, &folder, resumable, progress)
    })
}

/// What is to be done about a run that the results folder already holds.
fn earlier(config: &Config) -> Earlier {
    match (config.interruption.resume, config.output.overwrite) {
        (true, _) => Earlier::Resume,
        (false, true) => Earlier::Replace,
        (false, false) => Earlier::Keep,
    }
}

/// The folder of the run that is to be gone on with, if that run is finished; a checkpoint that is left over is
/// removed.
///
/// # Errors
/// [`InputError`] if it is finished, but has other settings than those asked for.
pub fn finished(config: &Config) -> Result<Option<PathBuf>> {
    let Some(folder) = config.output.out.as_ref().filter(|folder| config.interruption.resume && is_finished(folder))
    else {
        return Ok(None);
    };
    let path = ResultsFile::Config.within(folder);
    let found = Config::load(Some(&path), RawConfig::default())?.saved_keys();
    // What is not set is a default that depends on the data; files may lie elsewhere.
    let by_data = |key: &str| ["epochs", "retraining_epochs", "alpha", "holdout"].contains(&key);
    let wanted = config.saved_keys();
    let value = |keys: &[(String, toml::Value)], key: &str| {
        keys.iter().find(|(name, _)| name == key).map_or("not set".to_owned(), |(_, value)| value.to_string())
    };
    for (key, _) in wanted.iter().chain(found.iter().filter(|(key, _)| !by_data(key))) {
        let (wanted, found) = (value(&wanted, key), value(&found, key));
        if wanted != found && !INDIFFERENT_KEYS.contains(&key.as_str()) {
            let problem =
                format!("the folder holds a finished run of other settings (`{key}` is {found}, not {wanted})");
            let remedy = "choose another --out, or give --overwrite in the place of --resume to replace that run";
            return Err(InputError::new(problem, remedy).in_file(folder).into());
        }
    }
    ResultsFolder::tidy(folder)?;
    Ok(Some(folder.clone()))
}

/// What tells a run of resolved settings on `data` from any other.
///
/// # Errors
/// Counts on disk that cannot be read.
pub(crate) fn describe(config: &Config, data: &Dataset, folder: &Path) -> Result<RunDescription> {
    let (settings, resume_command) = (config.settings_of_results(), config.resume_command(folder));
    Ok(RunDescription { settings, data: identity(data)?, resume_command })
}

/// Trains and judges the model of resolved settings on a screen, with a team of threads, into a folder, in as far as
/// the run has not seen it done.
pub(crate) fn train_and_judge(
    team: &Team,
    config: &Config,
    screen: &Screen,
    folder: &ResultsFolder,
    mut resumable: ResumableRun<'_>,
    progress: ProgressKind<'_>,
) -> Result<RunOutcome> {
    let outcome = match config.training.precision {
        Precision::F32 => run_in::<f32>(team, config, screen, folder, &mut resumable, progress),
        Precision::F64 => run_in::<f64>(team, config, screen, folder, &mut resumable, progress),
    };
    match outcome {
        // What could not be written now may be written another time, from the state of the run.
        Err(source @ Error::Io { .. }) => {
            // If that fails too, what was saved before is still there.
            let _ = resumable.save();
            match resumable.advice().filter(|_| checkpoint::exists(folder.path())) {
                Some(advice) => Err(Error::Unwritten { source: Box::new(source), advice }),
                None => Err(source),
            }
        }
        outcome => outcome,
    }
}

fn run_in<R: Real>(
    team: &Team,
    config: &Config,
    screen: &Screen,
    folder: &ResultsFolder,
    resumable: &mut ResumableRun<'_>,
    progress: ProgressKind<'_>,
) -> Result<RunOutcome>
where
    for<'a> &'a [R]: Into<TensorValues<'a>>,
{
    let Screen { data, split, .. } = screen;
    progress.event(
        "data",
        json!({
            "source": data.source, "cells": data.n_cells(), "genes": data.n_genes(),
            "interventions": data.n_interventions(), "training_cells": split.train.len(),
            "folder": folder.path(), "threads": team.threads(),
        }),
    );
    for note in &screen.notes {
        progress.note(note);
    }
    folder.write_config(config)?;
    let observer = &mut Progress::new(progress);
    let (mut network, training, starts) = fit::train::<R>(team, data, split, config, resumable, observer)?;
    progress.event("stage", json!({ "stage": "evaluation" }));
    let mut metrics = judge(team, config, screen, &network, Some(&training), &mut || resumable.check())?;
    metrics.starts = starts;
    resumable.check()?;
    let interpretation = write_cells(folder, data, config.model.latents, config.training.precision, |cell| {
        Interpretation::new(team, &network, data, split, config.execution.seed, config.output.h5ad, cell)
    })?;
    let history = &training.history;
    let findings = Findings { config, screen, network: &network, history, interpretation: &interpretation };
    write_findings(folder, &findings)?;
    resumable.check()?;
    let mut failed = training.non_finite.map(Error::from);
    if let (Some(protocol), None) = (screen::held_out_protocol(config, screen), &failed) {
        match protocol.run(team, &mut network, resumable, observer) {
            Ok(adapted) => {
                write_held_out_fit(folder, config, data, &network, &adapted)?;
                metrics.heldout = Some(adapted.metrics);
            }
            // There are results without it; everything else can be done again.
            Err(error @ (Error::NonFinite(_) | Error::Input(_))) => failed = Some(error),
            Err(error) => return Err(error),
        }
    }
    progress.event("stage", json!({ "stage": "results" }));
    if config.output.h5ad {
        folder.write_h5ad(config, data, interpretation, history, &metrics)?;
    }
    resumable.check()?;
    let metrics = timed(metrics, resumable.seconds());
    write_figures(folder, &metrics, || Manifest::new(config, team, resumable.history()))?;
    if let (true, Err(error)) = (folder.writes(), checkpoint::remove(folder.path())) {
        progress.warn(&format!("the run is finished, but its checkpoint is left over ({error})."));
    }
    let seconds = metrics.timing.total_seconds;
    progress.event("finished", json!({ "folder": folder.path(), "seconds": seconds, "failed": failed.is_some() }));
    match failed {
        Some(error) => Err(error),
        None => Ok(RunOutcome { metrics, folder: folder.path().to_path_buf() }),
    }
}
