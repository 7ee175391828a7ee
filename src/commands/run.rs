//! A whole run on one page: data, split, training, evaluation, results.

use std::time::Instant;

use serde_json::json;

use crate::checkpoint::{ResumableRun, file as checkpoint};
use crate::commands::judge::judge_at_end;
use crate::commands::run_folder::{self, Judged, finish};
use crate::commands::run_linear::run_linear;
use crate::commands::screen;

use crate::data::screen::Screen;
use crate::display::progress::{Progress, ProgressKind};
use crate::error::{Error, Result};
use crate::evaluation::interpretation::{Interpretation, Readout};
use crate::evaluation::judge::judge;
use crate::fit;
use crate::inference::{Inference, evaluation_workspace};
use crate::numerics::real::{Precision, Real};
use crate::parallel::ranks::Ranks;
use crate::parallel::team::Team;
use crate::results::cells::write_cells;
use crate::results::findings::{Findings, write_findings, write_held_out_fit};
use crate::results::folder::ResultsFolder;
use crate::settings::Settings;
use crate::system::console::Console;
use crate::system::interruption::Deferral;
use crate::system::safetensors::TensorValues;

pub use crate::commands::run_folder::RunOutcome;

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
        _ if !config.model.method.trains_network() => {
            run_linear(team, config, screen, folder, &mut resumable, progress)
        }
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
    let workspace = &mut evaluation_workspace(&network, data);
    let model = &mut Inference { team, network: &network, data, workspace };
    let judgement = judge(team, config, screen, model, Some(&training), &mut || resumable.check())?;
    resumable.check()?;
    let readout = Readout { seed: config.execution.seed, fdr: config.output.fdr, keep: config.output.h5ad };
    let interpretation = write_cells(folder, data, config.model.latents, config.training.precision, |cell| {
        Interpretation::new(team, model, data, split, readout, cell)
    })?;
    let mut metrics = judgement.with_edges(data, interpretation.certainty.as_ref());
    metrics.starts = starts;
    let history = &training.history[..];
    let findings = Findings { config, screen, model: &network, history, interpretation: &interpretation };
    write_findings(folder, &findings)?;
    resumable.check()?;
    let mut failed = training.non_finite.map(Error::from);
    if let (Some(protocol), None) = (screen::held_out_protocol(config, screen), &failed) {
        match protocol.run(team, &mut network, resumable, observer) {
            Ok(adapted) => {
                write_held_out_fit(folder, config, data, &network, &adapted)?;
                judge_at_end(folder, team, config, screen, &network, (&adapted.metrics, progress))?;
                metrics.heldout = Some(adapted.metrics);
            }
            // There are results without it; everything else can be done again.
            Err(error @ (Error::NonFinite(_) | Error::Input(_))) => failed = Some(error),
            Err(error) => return Err(error),
        }
    }
    let judged = Judged { interpretation, history, metrics, failed };
    finish(team, config, data, folder, resumable, progress, judged)
}
