//! A run of the linear model: as that of a network, without a training.

use std::time::Instant;

use serde_json::json;

use crate::checkpoint::ResumableRun;
use crate::commands::run_folder::{Judged, RunOutcome, finish};
use crate::commands::screen;
use crate::data::screen::Screen;
use crate::display::progress::ProgressKind;
use crate::error::Result;
use crate::evaluation::interpretation::{Interpretation, Readout};
use crate::evaluation::judge::judge;
use crate::inference::linear::{LinearInference, LinearModel};
use crate::parallel::team::Team;
use crate::results::cells::write_cells;
use crate::results::findings::{Findings, write_findings};
use crate::results::folder::ResultsFolder;
use crate::settings::Settings;
use crate::system::console::Console;

/// Fits and judges the linear model of a screen.
pub(crate) fn run_linear(
    team: &Team,
    config: &Settings,
    screen: &Screen,
    folder: &ResultsFolder,
    resumable: &mut ResumableRun<'_>,
    progress: ProgressKind<'_>,
) -> Result<RunOutcome> {
    let Screen { data, split, .. } = screen;
    screen::describe(screen, folder, team, progress);
    folder.write_config(config)?;
    progress.event("stage", json!({ "stage": "components" }));
    let begin = Instant::now();
    let fitted = LinearModel::fit(team, data, &split.train, config.linear_settings())?;
    let seconds = begin.elapsed().as_secs_f64();
    resumable.check()?;
    progress.event("stage", json!({ "stage": "evaluation" }));
    let model = &mut LinearInference { team, model: &fitted, data };
    let judgement = judge(team, config, screen, model, None, &mut || resumable.check())?;
    let readout = Readout { seed: config.execution.seed, fdr: config.output.fdr, keep: config.output.h5ad };
    let interpretation = write_cells(folder, data, config.model.latents, config.training.precision, |cell| {
        Interpretation::new(team, model, data, split, readout, cell)
    })?;
    let mut metrics = judgement.with_edges(data, interpretation.certainty.as_ref());
    metrics.timing.train_seconds = Some(seconds);
    let findings = Findings { config, screen, model: &fitted, history: &[], interpretation: &interpretation };
    write_findings(folder, &findings)?;
    resumable.check()?;
    finish(
        team,
        config,
        data,
        folder,
        resumable,
        progress,
        Judged { interpretation, history: &[], metrics, failed: None },
    )
}
