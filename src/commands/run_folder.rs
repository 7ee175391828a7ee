//! The results folder of a run before and while it is worked in, and at the end: what is there already, what an interrupted run
//! left, what a finished one has found.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use crate::checkpoint::{ResumableRun, RunDescription, file as checkpoint};
use crate::data::dataset::Dataset;
use crate::data::identity::identity;
use crate::display::progress::ProgressKind;
use crate::error::{Error, InputError, Result};
use crate::evaluation::interpretation::Interpretation;
use crate::evaluation::judge::timed;
use crate::evaluation::metrics::Metrics;
use crate::parallel::ranks::Ranks;
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::findings::write_figures;
use crate::results::folder::{Earlier, ResultsFolder, check_destination, is_finished};
use crate::results::manifest::Manifest;
use crate::settings::{INDIFFERENT_KEYS, KEYS_BY_DATA, RawSettings, Settings};
use crate::system::console::Console;
use crate::training::history::EpochRecord;

/// What a run leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOutcome {
    /// Its figures.
    pub metrics: Metrics,
    /// Its results folder.
    pub folder: PathBuf,
}

/// What is to be done about a run that the results folder already holds.
fn earlier(config: &Settings) -> Earlier {
    match (config.interruption.resume, config.output.overwrite) {
        (true, _) => Earlier::Resume,
        (false, true) => Earlier::Replace,
        (false, false) => Earlier::Keep,
    }
}

/// Refuses a run that cannot begin where it is wanted, before anything is read or written.
///
/// # Errors
/// As [`check_destination`], on all ranks.
pub(crate) fn check(ranks: &Ranks, config: &Settings) -> Result<()> {
    let out = config.output.out.as_deref();
    ranks.first_error(if ranks.is_first() { check_destination(out, earlier(config)) } else { Ok(()) })
}

/// Opens the folder of a run; the first of several ranks writes in it.
///
/// # Errors
/// As [`ResultsFolder::create`], on all ranks.
pub(crate) fn open(ranks: &Ranks, config: &Settings, progress: ProgressKind<'_>) -> Result<ResultsFolder> {
    let create = || ResultsFolder::create(config.output.out.as_deref(), earlier(config));
    let folder = ranks.first_error(ranks.is_first().then(create).transpose())?;
    if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_locked()) {
        let path = folder.path().display();
        progress.warn(&format!("the file system of {path} has no locks: see to it that no other job works there."));
    }
    let path = folder.as_ref().map_or_else(String::new, |folder| folder.path().display().to_string());
    let path = ranks.first_text(&path);
    Ok(folder.unwrap_or_else(|| ResultsFolder::of_first_rank(path)))
}

/// The run in `folder` that began at `start`, as far as an earlier process has taken it if it is to be resumed.
///
/// # Errors
/// As [`ResumableRun::resume`]; counts on disk that cannot be read.
pub(crate) fn resumable<'a>(
    team: &'a Team<'_>,
    config: &Settings,
    data: &Dataset,
    folder: &ResultsFolder,
    progress: &'a ProgressKind<'a>,
    start: Instant,
) -> Result<ResumableRun<'a>> {
    let schedule = config.interruption.save_schedule(start);
    let description = describe(config, data, folder.path())?;
    let mut run = ResumableRun::new(folder.path(), description, schedule, progress, start).among(team.ranks());
    if config.interruption.resume {
        run.resume(team.threads())?;
    }
    Ok(run)
}

/// The folder of the run that is to be resumed, if that run is finished; a checkpoint that is left over is
/// removed.
///
/// # Errors
/// [`InputError`] if it is finished, but has other settings than those asked for.
pub(crate) fn finished(config: &Settings) -> Result<Option<PathBuf>> {
    let Some(folder) = config.output.out.as_ref().filter(|folder| config.interruption.resume && is_finished(folder))
    else {
        return Ok(None);
    };
    let path = ResultsFile::Config.within(folder);
    let found = Settings::load(Some(&path), RawSettings::default())?.saved_keys();
    // What is not set is a default that depends on the data; files may lie elsewhere.
    let by_data = |key: &str| KEYS_BY_DATA.contains(&key);
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
pub(crate) fn describe(config: &Settings, data: &Dataset, folder: &Path) -> Result<RunDescription> {
    let (settings, resume_command) = (config.settings_of_results(), config.resume_command(folder));
    Ok(RunDescription { settings, data: identity(data)?, resume_command })
}

/// What a run has found.
pub(crate) struct Judged<'a> {
    pub(crate) interpretation: Interpretation,
    pub(crate) history: &'a [EpochRecord],
    pub(crate) metrics: Metrics,
    /// Why it could not do all that it was to do.
    pub(crate) failed: Option<Error>,
}

/// Writes what a run writes last, and ends it.
///
/// # Errors
/// A failed write; what made the run fail.
pub(crate) fn finish(
    team: &Team,
    config: &Settings,
    data: &Dataset,
    folder: &ResultsFolder,
    resumable: &mut ResumableRun<'_>,
    progress: ProgressKind<'_>,
    judged: Judged<'_>,
) -> Result<RunOutcome> {
    let Judged { interpretation, history, metrics, failed } = judged;
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
