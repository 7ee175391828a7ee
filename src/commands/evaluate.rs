//! `svae-cpu evaluate`: judges the models of a results folder again.

use std::path::Path;
use std::time::Instant;

use crate::checkpoint::ResumableRun;
use crate::commands::run::RunOutcome;
use crate::commands::screen;
use crate::data::screen::Screen;
use crate::display::progress::{Progress, ProgressKind};
use crate::error::Result;
use crate::evaluation::judge::{judge_saved, timed};
use crate::inference::{Inference, evaluation_workspace};
use crate::numerics::real::{Precision, Real};
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::results::model_file::{drifted, read_model};
use crate::settings::Settings;
use crate::system::interruption::Deferral;
use crate::training::observer::Observer;
use crate::training::shift_fit::HeldoutBatchNorm;

/// Judges the models of a results folder again, for example with other `particles`, and writes `evaluation.json`.
///
/// `config` holds the settings of the folder's `config.toml`, with flags over them.
///
/// # Errors
/// A folder, a model or data that do not fit together; a failed write.
pub fn evaluate(config: &Settings, folder: &Path) -> Result<RunOutcome> {
    let start = Instant::now();
    screen::prepare_process(config);
    ResultsFolder::open(folder)?;
    config.refuse_without_network("`svae-cpu evaluate`").map_err(|error| error.in_file(folder))?;
    Team::with(config.n_threads(), |team| {
        let screen = screen::read(team, config)?;
        let progress = screen::progress_kind(team, config);
        let _deferral = Deferral::begin();
        let folder = ResultsFolder::open_to_add(folder)?;
        match config.training.precision {
            Precision::F32 => evaluate_in::<f32>(team, config, &screen, folder, progress, start),
            Precision::F64 => evaluate_in::<f64>(team, config, &screen, folder, progress, start),
        }
    })
}

fn evaluate_in<R: Real>(
    team: &Team,
    config: &Settings,
    screen: &Screen,
    folder: ResultsFolder,
    progress: ProgressKind<'_>,
    start: Instant,
) -> Result<RunOutcome> {
    let (network, _) = read_model::<R>(config, &screen.data, &folder, ResultsFile::Model)?;
    let resumable = &mut ResumableRun::unsaved();
    let observer = &mut Progress::new(progress);
    let workspace = &mut evaluation_workspace(&network, &screen.data);
    let model = &mut Inference { team, network: &network, data: &screen.data, workspace };
    let mut metrics = judge_saved(team, config, screen, model, &mut || resumable.check())?;
    if let Some(mut protocol) = screen::held_out_protocol(config, screen) {
        if protocol.interventions.is_empty() {
            metrics.heldout = Some(protocol.judge_unfitted(team, &network, resumable, observer)?);
        } else if folder.file(ResultsFile::HeldOutModel).exists() {
            let (fitted, metadata) = read_model::<R>(config, &screen.data, &folder, ResultsFile::HeldOutModel)?;
            if drifted(&metadata) {
                protocol.batch_norm = HeldoutBatchNorm::Drift;
            }
            metrics.heldout = Some(protocol.judge(team, &network, fitted, resumable, observer)?);
        } else {
            observer.note(&format!(
                "No held-out figures: the folder has no {}; `svae-cpu fit-shifts` makes it.",
                ResultsFile::HeldOutModel.name()
            ));
        }
    }
    let metrics = timed(metrics, start.elapsed().as_secs_f64());
    folder.write_evaluation(&metrics)?;
    Ok(RunOutcome { metrics, folder: folder.path().to_path_buf() })
}
