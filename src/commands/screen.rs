//! The screen that the settings name: read or simulated, then split.

use crate::error::{Error, InputError};
use crate::results::folder::ResultsFolder;
use serde_json::json;
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
use crate::settings::{Settings, Source};
use crate::system::console::Console;
use crate::system::memory::give_back_large_arrays;
use crate::words::first_few;

/// Sets up the process for a screen: the instructions that it computes with, and how it returns memory.
pub(crate) fn prepare_process(config: &Settings) {
    config.execution.simd.choose();
    if config.input.stream.is_some() {
        give_back_large_arrays();
    }
}

/// How progress is shown: by the first of several processes alone.
pub(crate) fn progress_kind(team: &Team, config: &Settings) -> ProgressKind<'static> {
    ProgressKind::choose(config.output.quiet || !team.ranks().is_first())
}

/// Reads or simulates the screen that the settings name.
///
/// # Errors
/// Data that cannot be used.
pub(crate) fn load(team: &Team, config: &Settings) -> Result<LoadedScreen> {
    match config.source() {
        Source::File(path) => {
            let mut progress = ReadProgress::new(progress_kind(team, config));
            let loaded = load_with_progress(path, &config.input, &mut |bytes, of| progress.show(bytes, of))?;
            progress.finish();
            let mut notes = loaded.notes;
            notes.extend(loaded.summary.warnings.iter().map(|warning| format!("Warning: {warning}")));
            Ok(LoadedScreen { data: Arc::new(loaded.dataset), generating: None, notes, summary: Some(loaded.summary) })
        }
        Source::Simulation(simulation) => {
            let simulated = simulate_on(team, simulation)?;
            let (data, generating) = (Arc::new(simulated.dataset), Arc::new(simulated.generating));
            Ok(LoadedScreen { data, generating: Some(generating), notes: Vec::new(), summary: None })
        }
    }
}

/// Splits a screen as the settings say.
///
/// # Errors
/// Held-out labels that do not exist, or that leave nothing to train on.
pub(crate) fn split(config: &Settings, loaded: LoadedScreen) -> Result<Screen> {
    let data = &loaded.data;
    let held_out = config.held_out(&data.intervention_names, &data.interventions)?;
    let (fraction, seed) = (config.training.validation_fraction, config.execution.seed);
    let split = ScreenSplit::new(&data.source, &data.interventions, data.n_interventions(), held_out, fraction, seed)?;
    let mut screen = loaded.split_as(split);
    let unseen: Vec<&String> =
        screen.split.unseen_members.iter().map(|&a| &screen.data.intervention_names[a]).collect();
    if !unseen.is_empty() {
        screen.notes.push(format!(
            "Warning: no training cell has {}, which held-out combinations contain: the shifts of {} are fitted to held-out cells",
            first_few(&unseen),
            if unseen.len() == 1 { "this intervention" } else { "these interventions" },
        ));
    }
    Ok(screen)
}

/// Reads or simulates the screen that the settings name, and splits it.
///
/// # Errors
/// As [`load`] and [`split`].
pub(crate) fn read(team: &Team, config: &Settings) -> Result<Screen> {
    split(config, load(team, config)?)
}

/// Reads or simulates the screen that the settings name on every rank, and splits it: as a rank holds it, with the settings that
/// follow from it.
///
/// # Errors
/// As [`read`] and [`share`], on all ranks; counts that are to stay on disk, on several ranks.
pub(crate) fn read_among(team: &Team, config: &Settings) -> Result<(Screen, Settings)> {
    let ranks = team.ranks();
    if config.input.stream.is_some() && !ranks.is_alone() {
        let remedy = "leave out --stream (each rank then holds its share of the counts), or start a single process";
        return ranks
            .first_error(Err(InputError::new("several ranks do not read their counts from disk", remedy).into()));
    }
    if !ranks.is_alone() {
        ranks.first_error(config.refuse_without_network("a run on several ranks").map_err(Error::from))?;
    }
    let read = read(team, config).and_then(|screen| {
        let config =
            config.resolved(&screen.data.intervention_names, &screen.data.interventions, screen.split.train.len())?;
        Ok((screen, config))
    });
    let (screen, config) = ranks.first_error(read)?;
    Ok((share(screen, ranks, &config)?, config))
}

/// Says that a run begins, to whoever reads JSON.
pub(crate) fn announce(ranks: &Ranks, config: &Settings) {
    let command: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let begins = json!({ "program": concat!("svae-cpu ", env!("CARGO_PKG_VERSION")), "command": command });
    ProgressKind::choose(config.output.quiet || !ranks.is_first()).event("start", begins);
}

/// Says what a run trains on.
pub(crate) fn describe(screen: &Screen, folder: &ResultsFolder, team: &Team, progress: ProgressKind<'_>) {
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
}

/// The screen as a rank holds it: the first all counts, the others those of their own cells, all of them everything
/// else.
///
/// # Errors
/// [`crate::Error::Ranks`] if the ranks have read different data or settings.
pub(crate) fn share(mut screen: Screen, ranks: &Ranks, config: &Settings) -> Result<Screen> {
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
pub(crate) fn held_out_protocol<'a>(config: &Settings, screen: &'a Screen) -> Option<Protocol<'a>> {
    let Screen { data, split, .. } = screen;
    (config.training.heldout && !split.held_out.is_empty()).then(|| Protocol {
        data,
        train: &split.train,
        validation: &split.validation,
        interventions: &split.held_out_interventions,
        cells: &split.held_out,
        generating: screen.generating.as_deref(),
        objective: config.objective(data.n_interventions(), split.train.len()),
        settings: config.training_settings(split.train.len()),
        particles: config.training.particles,
        batch_norm: config.training.heldout_batch_norm,
    })
}
