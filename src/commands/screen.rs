//! The screen that the settings name: read or simulated, then split.

use std::sync::Arc;

use crate::data::identity::identity;
use crate::data::loading::load::load_with_progress;
use crate::data::screen::{LoadedScreen, Screen};
use crate::data::simulate::simulate_on;
use crate::data::split::ScreenSplit;
use crate::display::progress::{ProgressKind, ReadProgress};
use crate::error::Result;
use crate::evaluation::held_out_protocol::Protocol;
use crate::parallel::ranks::Ranks;
use crate::parallel::team::Team;
use crate::settings::{Config, Source};
use crate::system::memory::give_back_large_arrays;

/// Sets up the process for a screen: the instructions that it computes with, and how it returns memory.
pub(crate) fn prepare_process(config: &Config) {
    config.execution.simd.choose();
    if config.input.stream.is_some() {
        give_back_large_arrays();
    }
}

/// How progress is shown: by the first of several processes alone.
pub(crate) fn progress_kind(team: &Team, config: &Config) -> ProgressKind<'static> {
    ProgressKind::choose(config.output.quiet || !team.ranks().is_first())
}

/// Reads or simulates the screen that the settings name.
///
/// # Errors
/// Data that cannot be used.
pub(crate) fn load(team: &Team, config: &Config) -> Result<LoadedScreen> {
    match config.source() {
        Source::File(path) => {
            let mut progress = ReadProgress::new(progress_kind(team, config));
            let loaded = load_with_progress(path, &config.input, &mut |bytes, of| progress.show(bytes, of))?;
            progress.finish();
            let mut notes = loaded.notes;
            notes.extend(loaded.summary.warnings.iter().map(|warning| format!("Warning: {warning}")));
            Ok(LoadedScreen { data: Arc::new(loaded.dataset), mixing: None, notes, summary: Some(loaded.summary) })
        }
        Source::Simulation(simulation) => {
            let simulated = simulate_on(team, simulation)?;
            let (data, mixing) = (Arc::new(simulated.dataset), Arc::new(simulated.mixing));
            Ok(LoadedScreen { data, mixing: Some(mixing), notes: Vec::new(), summary: None })
        }
    }
}

/// Splits a screen as the settings say.
///
/// # Errors
/// Held-out labels that do not exist, or that leave nothing to train on.
pub(crate) fn split(config: &Config, loaded: LoadedScreen) -> Result<Screen> {
    let data = &loaded.data;
    let held_out = config.held_out(&data.intervention_names)?;
    let (fraction, seed) = (config.training.validation_fraction, config.execution.seed);
    let split = ScreenSplit::new(&data.source, &data.interventions, data.n_interventions(), held_out, fraction, seed)?;
    Ok(loaded.split_as(split))
}

/// Reads or simulates the screen that the settings name, and splits it.
///
/// # Errors
/// As [`load`] and [`split`].
pub(crate) fn read(team: &Team, config: &Config) -> Result<Screen> {
    split(config, load(team, config)?)
}

/// The screen as a rank holds it: the first all counts, the others those of their own cells, all of them everything
/// else.
///
/// # Errors
/// [`crate::Error::Ranks`] if the ranks have read different data or settings.
pub(crate) fn share(mut screen: Screen, ranks: &Ranks, config: &Config) -> Result<Screen> {
    if ranks.is_alone() {
        return Ok(screen);
    }
    ranks.check_same("settings", &format!("{:?}", config.settings_of_results()))?;
    ranks.check_same("data", &identity(&screen.data)?.checksum)?;
    if !ranks.is_first() {
        // Nobody else holds the data yet, so nothing is copied.
        Arc::make_mut(&mut screen.data).counts.drop_counts_of(|cell| !ranks.holds(cell));
    }
    Ok(screen)
}

/// The held-out protocol for a screen; `None` where nothing is held out, or the settings skip it.
pub(crate) fn held_out_protocol<'a>(config: &Config, screen: &'a Screen) -> Option<Protocol<'a>> {
    let Screen { data, split, .. } = screen;
    (config.training.heldout && !split.held_out.is_empty()).then(|| Protocol {
        data,
        train: &split.train,
        validation: &split.validation,
        interventions: &split.held_out_interventions,
        cells: &split.held_out,
        mixing: screen.mixing.as_deref(),
        objective: config.objective(data.n_interventions(), split.train.len()),
        settings: config.training_settings(split.train.len()),
        particles: config.training.particles,
        batch_norm: config.training.heldout_batch_norm,
    })
}
