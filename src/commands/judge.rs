//! `svae-cpu judge`: predictions of held-out combinations beside baselines.

use std::path::Path;

use crate::commands::screen;
use crate::data::screen::Screen;
use crate::display::judgement::sentences;
use crate::display::progress::ProgressKind;
use crate::error::{InputError, Result};
use crate::evaluation::metrics::HeldoutMetrics;
use crate::evaluation::predictions::bounds::{HeldOutBounds, generalisation};
use crate::evaluation::predictions::judge::{PredictionJudgement, judge_predictions};
use crate::evaluation::predictions::judged::judged_combinations;
use crate::model::network::Network;
use crate::numerics::real::{Precision, Real};
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::results::model_file::read_model;
use crate::results::record::held_out_bounds;
use crate::settings::Settings;
use crate::system::console::Console;
use crate::system::interruption::Deferral;

/// Judges what the model of a results folder predicts of the held-out combinations, and adds the files of the judgement and the report
/// to the folder.
///
/// `config` holds the settings of the folder's `config.toml`, with flags over them.
///
/// # Errors
/// A folder, a model or data that do not fit together; a run that holds no combination out that can be judged; a failed write.
pub fn judge(config: &Settings, folder: &Path) -> Result<PredictionJudgement> {
    screen::prepare_process(config);
    ResultsFolder::open(folder)?;
    config.refuse_without_network("`svae-cpu judge`").map_err(|error| error.in_file(folder))?;
    Team::with(config.n_threads(), |team| {
        let screen = screen::read(team, config)?;
        if judged_combinations(&screen).is_empty() {
            let problem = "the run holds no combination out whose members were trained on, with more than ten cells";
            let remedy = "repeat the run with --holdout A+B or --holdout combinations:0.25";
            return Err(InputError::new(problem, remedy).in_file(folder).into());
        }
        let _deferral = Deferral::begin();
        let folder = ResultsFolder::open_to_add(folder)?;
        let bounds = held_out_bounds(&folder)?;
        let found = match config.training.precision {
            Precision::F32 => judge_in::<f32>(team, config, &screen, &folder, bounds)?,
            Precision::F64 => judge_in::<f64>(team, config, &screen, &folder, bounds)?,
        };
        folder.write_report(None)?;
        Ok(found.expect("checked to be there"))
    })
}

fn judge_in<R: Real>(
    team: &Team,
    config: &Settings,
    screen: &Screen,
    folder: &ResultsFolder,
    bounds: Option<HeldOutBounds>,
) -> Result<Option<PredictionJudgement>> {
    let fitted = folder.file(ResultsFile::HeldOutModel).exists();
    let file = if fitted { ResultsFile::HeldOutModel } else { ResultsFile::Model };
    let (mut network, _) = read_model::<R>(config, &screen.data, folder, file)?;
    if fitted {
        network.prior_mut().freeze();
    }
    judge_into(folder, team, config, screen, &network, bounds)
}

/// Judges what a network predicts of the held-out combinations of a screen, and writes it; `None` where none can be judged.
fn judge_into<R: Real>(
    folder: &ResultsFolder,
    team: &Team,
    config: &Settings,
    screen: &Screen,
    network: &Network<R>,
    bounds: Option<HeldOutBounds>,
) -> Result<Option<PredictionJudgement>> {
    let (particles, seed) = (config.training.particles, config.execution.seed);
    let bounds = match bounds {
        Some(bounds) => {
            let generalisation = generalisation(team, network, screen, particles, seed)?;
            Some(HeldOutBounds { generalisation, ..bounds })
        }
        None => None,
    };
    let found = judge_predictions(team, network, screen, bounds, seed)?;
    let Some((judgement, cells)) = found else { return Ok(None) };
    folder.write_judgement(&judgement)?;
    if let Some(cells) = cells {
        folder.write_judged_cells(&cells, &screen.data.gene_names)?;
    }
    Ok(Some(judgement))
}

/// What a run does with the combinations that it has held out: judges the predictions of its last network, and says where it is worse
/// than a baseline. The first of several processes alone has all counts.
///
/// # Errors
/// As [`judge`].
pub(crate) fn judge_at_end<R: Real>(
    folder: &ResultsFolder,
    team: &Team,
    config: &Settings,
    screen: &Screen,
    network: &Network<R>,
    (heldout, progress): (&HeldoutMetrics, ProgressKind<'_>),
) -> Result<()> {
    if !team.ranks().is_first() || !config.model.method.uses_interventions() {
        return Ok(());
    }
    let bounds = heldout.nll_iwelbo_by_cell.map(|by_cell| HeldOutBounds::new(heldout.nll_iwelbo, by_cell));
    if let Some(judgement) = judge_into(folder, team, config, screen, network, bounds)? {
        sentences(&judgement.comparisons).iter().for_each(|sentence| progress.note(sentence));
    }
    Ok(())
}
