//! `svae-cpu fit-shifts`: takes the trained model of a results folder through the held-out protocol.

use std::path::Path;
use std::time::Instant;

use crate::checkpoint::ResumableRun;
use crate::commands::run::RunOutcome;
use crate::commands::screen;
use crate::data::screen::Screen;
use crate::display::progress::{Progress, ProgressKind};
use crate::error::{InputError, Result};
use crate::evaluation::judge::{judge_saved, timed};
use crate::inference::{Inference, evaluation_workspace};
use crate::numerics::real::{Precision, Real};
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::findings::write_held_out_fit;
use crate::results::folder::ResultsFolder;
use crate::results::model_file::read_model;
use crate::settings::Settings;
use crate::system::interruption::Deferral;
use crate::system::safetensors::TensorValues;

/// Takes the trained model of a results folder through the held-out protocol, and adds its files to the folder.
///
/// # Errors
/// As [`evaluate`](crate::commands::evaluate::evaluate); a run that holds nothing out, or that has been through the
/// protocol, unless `overwrite` is set.
pub fn fit_shifts(config: &Settings, folder: &Path, overwrite: bool) -> Result<RunOutcome> {
    let start = Instant::now();
    screen::prepare_process(config);
    ResultsFolder::open(folder)?;
    if !overwrite && ResultsFile::HeldOutModel.within(folder).exists() {
        let fitted = ResultsFile::HeldOutModel.name();
        let problem = format!("the run has been through the held-out protocol already ({fitted})");
        let remedy = "add --overwrite to fit the shifts again, or judge them with `svae-cpu evaluate`";
        return Err(InputError::new(problem, remedy).in_file(folder).into());
    }
    Team::with(config.n_threads(), |team| {
        let screen = screen::read(team, config)?;
        if screen.split.held_out.is_empty() {
            let remedy = "repeat the run with --holdout";
            return Err(InputError::new("the run holds no intervention out", remedy).in_file(folder).into());
        }
        if screen.split.held_out_interventions.is_empty() {
            let problem = "the run holds out combinations whose members are all known: there is no shift to fit";
            let remedy = "judge them with `svae-cpu evaluate`";
            return Err(InputError::new(problem, remedy).in_file(folder).into());
        }
        let progress = screen::progress_kind(team, config);
        let _deferral = Deferral::begin();
        let folder = ResultsFolder::open_to_add(folder)?;
        match config.training.precision {
            Precision::F32 => fit_shifts_in::<f32>(team, config, &screen, folder, progress, start),
            Precision::F64 => fit_shifts_in::<f64>(team, config, &screen, folder, progress, start),
        }
    })
}

fn fit_shifts_in<R: Real>(
    team: &Team,
    config: &Settings,
    screen: &Screen,
    folder: ResultsFolder,
    progress: ProgressKind<'_>,
    start: Instant,
) -> Result<RunOutcome>
where
    for<'a> &'a [R]: Into<TensorValues<'a>>,
{
    let (mut network, _) = read_model::<R>(config, &screen.data, &folder, ResultsFile::Model)?;
    let protocol = screen::held_out_protocol(config, screen).expect("checked to be asked for, with cells held out");
    let resumable = &mut ResumableRun::unsaved();
    let observer = &mut Progress::new(progress);
    let workspace = &mut evaluation_workspace(&network, &screen.data);
    let model = &mut Inference { team, network: &network, data: &screen.data, workspace };
    let mut metrics = judge_saved(team, config, screen, model, &mut || resumable.check())?;
    let adapted = protocol.run(team, &mut network, resumable, observer)?;
    write_held_out_fit(&folder, config, &screen.data, &network, &adapted)?;
    metrics.heldout = Some(adapted.metrics);
    let metrics = timed(metrics, start.elapsed().as_secs_f64());
    folder.write_evaluation(&metrics)?;
    folder.write_report(None)?;
    Ok(RunOutcome { metrics, folder: folder.path().to_path_buf() })
}
