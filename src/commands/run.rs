//! A whole run on one page: data, split, training, evaluation, results.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use crate::checkpoint::{ResumableRun, file as checkpoint};
use crate::commands::{run_folder, screen};
use crate::data::screen::Screen;
use crate::display::progress::{Progress, ProgressKind};
use crate::error::{Error, Result};
use crate::evaluation::interpretation::{Interpretation, Readout};
use crate::evaluation::judge::{judge, timed};
use crate::evaluation::metrics::Metrics;
use crate::fit;
use crate::numerics::real::{Precision, Real};
use crate::parallel::ranks::Ranks;
use crate::parallel::team::Team;
use crate::results::cells::write_cells;
use crate::results::findings::{Findings, write_figures, write_findings, write_held_out_fit};
use crate::results::folder::ResultsFolder;
use crate::results::manifest::Manifest;
use crate::settings::Settings;
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

/// Trains a model as `config` says and writes a results folder; resumes the run that is there, if that is wanted.
///
/// Several ranks share out the cells. The first one writes; the outcome is whole there, and lacks on the others what needs
/// the counts of all cells.
///
/// # Errors
/// Input that cannot be used (nothing is written then), a failed write, or a loss that is not finite (the results of
/// the last good state are written then). [`Error::Stopped`] for a run that was stopped early and can be resumed.
pub fn run(ranks: &Ranks, config: &Settings) -> Result<RunOutcome> {
    let start = Instant::now();
    screen::prepare_process(config);
    run_folder::check(ranks, config)?;
    screen::announce(ranks, config);
    Team::among(ranks, config.n_threads(), |team| {
        let (screen, config) = screen::read_among(team, config)?;
        let progress = screen::progress_kind(team, &config);
        // From now on there may be something to save when a signal comes.
        let _deferral = Deferral::begin();
        let folder = run_folder::open(ranks, &config, progress)?;
        let resumable = run_folder::resumable(team, &config, &screen.data, &folder, &progress, start)?;
        train_and_judge(team, &config, &screen, &folder, resumable, progress)
    })
}

/// Trains and judges the model of resolved settings on a screen, with a team of threads, into a folder, in as far as
/// the run has not seen it done.
pub(crate) fn train_and_judge(
    team: &Team,
    config: &Settings,
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
    config: &Settings,
    screen: &Screen,
    folder: &ResultsFolder,
    resumable: &mut ResumableRun<'_>,
    progress: ProgressKind<'_>,
) -> Result<RunOutcome>
where
    for<'a> &'a [R]: Into<TensorValues<'a>>,
{
    let Screen { data, split, .. } = screen;
    screen::describe(screen, folder, team, progress);
    folder.write_config(config)?;
    let observer = &mut Progress::new(progress);
    let (mut network, training, starts) = fit::train::<R>(team, data, split, config, resumable, observer)?;
    progress.event("stage", json!({ "stage": "evaluation" }));
    let judgement = judge(team, config, screen, &network, Some(&training), &mut || resumable.check())?;
    resumable.check()?;
    let readout = Readout { seed: config.execution.seed, fdr: config.output.fdr, keep: config.output.h5ad };
    let interpretation = write_cells(folder, data, config.model.latents, config.training.precision, |cell| {
        Interpretation::new(team, &network, data, split, readout, cell)
    })?;
    let mut metrics = judgement.with_edges(data, interpretation.certainty.as_ref());
    metrics.starts = starts;
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
