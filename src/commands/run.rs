//! A whole run on one page: data, split, training, evaluation, results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use crate::checkpoint::{ResumableRun, RunDescription, file as checkpoint};
use crate::commands::bench;
use crate::commands::bench::{Benchmark, RunSizes, Workload};
use crate::data::dataset::{Categorical, Dataset, InterventionRows};
use crate::data::formats::npz::NpzWriter;
use crate::data::formats::write_npz;
use crate::data::identity::identity;
use crate::data::loading::load::{DataSummary, LoadOptions, load_with_progress};
use crate::data::simulate::MixingNetwork;
use crate::data::{simulate as simulator, split};
use crate::display::progress::{Progress, ProgressKind, ReadProgress};
use crate::error::{Error, InputError, Result};
use crate::evaluation::correlation::Correlation;
use crate::evaluation::held_out_protocol::Protocol;
use crate::evaluation::interpretation::{Interpretation, Parts};
use crate::evaluation::metrics::{
    BaselineMetrics, GraphMetrics, HeldoutMetrics, LatentOracleMetrics, MaskMetrics, Metrics, PrecisionRecall, Timing,
};
use crate::evaluation::oracle::latent_oracle;
use crate::evaluation::pooled;
use crate::evaluation::recovery::Recovery;
use crate::evaluation::target_graph::{
    TargetScore, masks_from_probabilities, score_targets, targets_from_prior_means, two_largest_shifts,
};
use crate::model::adam::AdamSettings;
use crate::model::architecture::{Architecture, MaskKind, PosteriorCovariance, Prior};
use crate::model::method::{IvaeMask, Method};
use crate::model::network::Network;
use crate::model::objective::{Objective, Penalty};
use crate::numerics::random::{Purpose, shuffle, stream};
use crate::numerics::real::{Precision, Real};
use crate::numerics::simd;
use crate::parallel::ranks::Ranks;
use crate::parallel::team::Team;
use crate::results::folder::{LATENTS, ResultsFolder, check_destination, is_finished};
use crate::results::manifest::Manifest;
use crate::settings;
use crate::settings::{Config, INDIFFERENT_KEYS, RawConfig, Source};
use crate::system::console::Console;
use crate::system::interruption::Deferral;
use crate::system::machine::peak_rss_bytes;
use crate::system::memory::give_back_large_arrays;
use crate::system::safetensors::TensorValues;
use crate::training::shift_fit::{HeldoutBatchNorm, fit_settings};
use crate::training::starts::{Start, train_from_starts};
use crate::training::trainer::{
    Training, TrainingSettings, divergence_by_latent, elbo, evaluation_workspace, posterior_means,
};
use crate::verification::outcome::Verification;
use crate::verification::{finite_differences, golden};

/// What a run leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
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
pub fn run(config: &Config) -> Result<Outcome> {
    run_among(Ranks::alone(), config)
}

/// As [`run`], on several processes that share out the cells. The first one writes; the outcome is whole there, and
/// lacks on the others what needs the counts of all cells.
///
/// # Errors
/// As [`run`].
pub fn run_among(ranks: &Ranks, config: &Config) -> Result<Outcome> {
    let start = Instant::now();
    config.simd.choose();
    if config.stream {
        give_back_large_arrays();
    }
    let first = ranks.is_first();
    let destination = if first { check_destination(config.out.as_deref(), config.earlier()) } else { Ok(()) };
    ranks.first_error(destination)?;
    if config.stream && !ranks.is_alone() {
        let remedy = "leave out --stream (each rank then holds its share of the counts), or start a single process";
        return ranks
            .first_error(Err(InputError::new("several ranks do not read their counts from disk", remedy).into()));
    }
    let command: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let begins = json!({ "program": concat!("svae-cpu ", env!("CARGO_PKG_VERSION")), "command": command });
    ProgressKind::choose(config.quiet || !first).event("start", begins);
    Team::among(ranks, config.n_threads(), |team| {
        let read = Screen::read(team, config).and_then(|screen| {
            let config = config.resolved(&screen.data.intervention_names, screen.cells.train.len())?;
            Ok((screen, config))
        });
        let (screen, config) = ranks.first_error(read)?;
        let screen = screen.shared(ranks, &config)?;
        // From now on there may be something to save when a signal comes.
        let _deferral = Deferral::begin();
        let folder =
            if first { ResultsFolder::create(config.out.as_deref(), config.earlier()).map(Some) } else { Ok(None) };
        let folder = ranks.first_error(folder)?;
        if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_locked()) {
            let path = folder.path().display();
            screen
                .progress
                .warn(&format!("the file system of {path} has no locks: see to it that no other job works there."));
        }
        let path = folder.as_ref().map_or_else(String::new, |folder| folder.path().display().to_string());
        let path = ranks.first_text(&path);
        let folder = folder.unwrap_or_else(|| ResultsFolder::of_first_rank(path));
        let watch = config.watch(start);
        let description = describe(&config, &screen.data, folder.path())?;
        let resumable = ResumableRun::new(folder.path(), description, watch, &screen.progress, start);
        let mut resumable = resumable.among(ranks);
        if config.resume {
            resumable.resume(team.threads())?;
        }
        train_and_judge(team, &config, &screen, &folder, resumable)
    })
}

/// What tells a run of resolved settings on `data` from any other.
///
/// # Errors
/// Counts on disk that cannot be read.
pub(crate) fn describe(config: &Config, data: &Dataset, folder: &Path) -> Result<RunDescription> {
    let (settings, resume_command) = (config.settings_of_results(), config.resume_command(folder));
    Ok(RunDescription { settings, data: identity(data)?, resume_command })
}

/// The folder of the run that is to be gone on with, if that run is finished; a checkpoint that is left over is
/// removed.
///
/// # Errors
/// [`InputError`] if it is finished, but has other settings than those asked for.
pub fn finished(config: &Config) -> Result<Option<PathBuf>> {
    let Some(folder) = config.out.as_ref().filter(|folder| config.resume && is_finished(folder)) else {
        return Ok(None);
    };
    let path = folder.join("config.toml");
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

/// Trains and judges the model of resolved settings on a screen, with a team of threads, into a folder, in as far as
/// the resumable has not seen it done.
pub(crate) fn train_and_judge(
    team: &Team,
    config: &Config,
    screen: &Screen,
    folder: &ResultsFolder,
    mut resumable: ResumableRun<'_>,
) -> Result<Outcome> {
    let outcome = match config.precision {
        Precision::F32 => run_in::<f32>(team, config, screen, folder, &mut resumable),
        Precision::F64 => run_in::<f64>(team, config, screen, folder, &mut resumable),
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

/// Judges the models of a results folder again, for example with other `particles`, and writes `evaluation.json`.
///
/// `config` holds the settings of the folder's `config.toml`, with flags over them.
///
/// # Errors
/// A folder, a model or data that do not fit together; a failed write.
pub fn evaluate(config: &Config, folder: &Path) -> Result<Outcome> {
    let start = Instant::now();
    config.simd.choose();
    if config.stream {
        give_back_large_arrays();
    }
    ResultsFolder::open(folder)?;
    Team::with(config.n_threads(), |team| {
        let screen = Screen::read(team, config)?;
        let _deferral = Deferral::begin();
        let folder = ResultsFolder::open_to_add(folder)?;
        match config.precision {
            Precision::F32 => evaluate_in::<f32>(team, config, &screen, folder, start),
            Precision::F64 => evaluate_in::<f64>(team, config, &screen, folder, start),
        }
    })
}

/// Takes the trained model of a results folder through the held-out protocol, and adds its files to the folder.
///
/// # Errors
/// As [`evaluate`]; a run that holds nothing out, or that has been through the protocol, unless `overwrite` is set.
pub fn fit_shifts(config: &Config, folder: &Path, overwrite: bool) -> Result<Outcome> {
    let start = Instant::now();
    config.simd.choose();
    if config.stream {
        give_back_large_arrays();
    }
    ResultsFolder::open(folder)?;
    if !overwrite && folder.join(HELDOUT_MODEL).exists() {
        let problem = format!("the run has been through the held-out protocol already ({HELDOUT_MODEL})");
        let remedy = "add --overwrite to fit the shifts again, or judge them with `svae-cpu evaluate`";
        return Err(InputError::new(problem, remedy).in_file(folder).into());
    }
    Team::with(config.n_threads(), |team| {
        let screen = Screen::read(team, config)?;
        if screen.cells.held_out.is_empty() {
            let remedy = "repeat the run with --holdout";
            return Err(InputError::new("the run holds no intervention out", remedy).in_file(folder).into());
        }
        let _deferral = Deferral::begin();
        let folder = ResultsFolder::open_to_add(folder)?;
        match config.precision {
            Precision::F32 => fit_shifts_in::<f32>(team, config, &screen, folder, start),
            Precision::F64 => fit_shifts_in::<f64>(team, config, &screen, folder, start),
        }
    })
}

/// A screen, as the settings name it and split it.
pub(crate) struct Screen<'a> {
    pub(crate) data: Arc<Dataset>,
    cells: Cells,
    /// The true decoder of a simulation.
    mixing: Option<Arc<MixingNetwork>>,
    /// What there is to say about the data.
    notes: Vec<String>,
    /// What was read from the file, if there is one.
    summary: Option<DataSummary>,
    /// How the progress of a run on it is shown.
    progress: ProgressKind<'a>,
}

impl<'a> Screen<'a> {
    fn read(team: &Team, config: &Config) -> Result<Self> {
        Self::of(config, read(team, config)?, progress_kind(team, config))
    }

    /// The screen that was read, split as the settings say.
    pub(crate) fn of(config: &Config, read: Read, progress: ProgressKind<'a>) -> Result<Self> {
        let Read { data, mixing, notes, summary } = read;
        let held_out = config.held_out(&data.intervention_names)?;
        let cells = Cells::new(config, &data.interventions, data.n_interventions(), &data.source, held_out)?;
        Ok(Self { data, cells, mixing, notes, summary, progress })
    }

    /// The screen as a rank holds it: the first all counts, the others those of their own cells, all of them everything
    /// else.
    ///
    /// # Errors
    /// [`crate::Error::Ranks`] if the ranks have read different data or settings.
    fn shared(mut self, ranks: &Ranks, config: &Config) -> Result<Self> {
        if ranks.is_alone() {
            return Ok(self);
        }
        ranks.check_same("settings", &format!("{:?}", config.settings_of_results()))?;
        ranks.check_same("data", &identity(&self.data)?.checksum)?;
        if !ranks.is_first() {
            // Nobody else holds the data yet, so nothing is copied.
            Arc::make_mut(&mut self.data).counts.drop_counts_of(|cell| !ranks.holds(cell));
        }
        Ok(self)
    }

    /// The held-out protocol for this screen; `None` where nothing is held out, or the settings skip it.
    fn protocol(&self, config: &Config) -> Option<Protocol<'_>> {
        (config.heldout && !self.cells.held_out.is_empty()).then(|| Protocol {
            data: &self.data,
            train: &self.cells.train,
            validation: &self.cells.validation,
            interventions: &self.cells.held_out_interventions,
            cells: &self.cells.held_out,
            mixing: self.mixing.as_deref(),
            objective: objective(config, self.data.n_interventions(), self.cells.train.len()),
            settings: training_settings(config, self.cells.train.len()),
            particles: config.particles,
            batch_norm: config.heldout_batch_norm,
            progress: self.progress,
        })
    }
}

/// What reading the screen gives; runs may share it.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) data: Arc<Dataset>,
    /// The true decoder of a simulation.
    pub(crate) mixing: Option<Arc<MixingNetwork>>,
    /// What there is to say about the data.
    pub(crate) notes: Vec<String>,
    /// What was read from the file, if there is one.
    pub(crate) summary: Option<DataSummary>,
}

/// How progress is shown: by the first of several processes alone.
fn progress_kind(team: &Team, config: &Config) -> ProgressKind<'static> {
    ProgressKind::choose(config.quiet || !team.ranks().is_first())
}

/// Reads or simulates the screen that the settings name.
pub(crate) fn read(team: &Team, config: &Config) -> Result<Read> {
    match config.source() {
        Source::File(path) => {
            let options = LoadOptions {
                label_key: config.label_key.clone(),
                batch_key: config.batch_key.clone(),
                categorical_covariates: config.categorical_covariates.clone(),
                continuous_covariates: config.continuous_covariates.clone(),
                size_factor_key: config.size_factor_key.clone(),
                drop_empty_cells: config.drop_empty_cells,
                layer: config.layer.clone(),
                genome: config.genome.clone(),
                labels: config.labels.clone(),
                control: config.control.clone(),
                genes: config.genes.clone(),
                top_genes: config.top_genes,
                min_cells_per_label: config.min_cells_per_label,
                min_counts: config.min_counts as u64,
                drop_unlabelled_cells: config.drop_unlabelled_cells,
                unlabelled: false,
                stream: config.stream.then_some(config.stream_buffer << 20),
            };
            let mut progress = ReadProgress::new(progress_kind(team, config));
            let loaded = load_with_progress(path, &options, &mut |bytes, of| progress.show(bytes, of))?;
            progress.finish();
            let mut notes = loaded.notes;
            notes.extend(loaded.summary.warnings.iter().map(|warning| format!("Warning: {warning}")));
            Ok(Read { data: Arc::new(loaded.dataset), mixing: None, notes, summary: Some(loaded.summary) })
        }
        Source::Simulation(simulation) => {
            let simulated = simulator::simulate_on(team, &simulator_settings(simulation))?;
            let (data, mixing) = (Arc::new(simulated.dataset), Arc::new(simulated.mixing));
            Ok(Read { data, mixing: Some(mixing), notes: Vec::new(), summary: None })
        }
    }
}

/// The screen that the settings name, and notes on it.
///
/// # Errors
/// As reading it does.
pub(crate) fn read_screen(config: &Config) -> Result<(Arc<Dataset>, Vec<String>)> {
    let read = Team::with(config.n_threads(), |team| read(team, config))?;
    Ok((read.data, read.notes))
}

pub(crate) fn simulator_settings(s: &settings::Simulation) -> simulator::Simulation {
    simulator::Simulation {
        kind: s.kind,
        n_interventions: s.interventions,
        n_latents: s.latents,
        n_genes: s.genes,
        cells_per_intervention: s.cells,
        seed: s.seed,
        n_targeted_latents: s.targeted_latents,
    }
}

/// Which cells train, validate and are held out, by number, ascending.
pub(crate) struct Cells {
    pub(crate) train: Vec<usize>,
    pub(crate) validation: Vec<usize>,
    pub(crate) held_out: Vec<usize>,
    held_out_interventions: Vec<usize>,
    /// Whether each intervention is trained on.
    trained: Vec<bool>,
}

impl Cells {
    /// The cells of a screen whose cells are under `interventions`, of which there are `n_interventions`; `source` is
    /// the screen's name for messages.
    pub(crate) fn new(
        config: &Config,
        interventions: &InterventionRows,
        n_interventions: usize,
        source: &str,
        held_out_interventions: Vec<usize>,
    ) -> Result<Self> {
        let mut trained = vec![true; n_interventions];
        held_out_interventions.iter().for_each(|&a| trained[a] = false);
        let in_training = |&n: &usize| interventions.row(n).0.iter().all(|&a| trained[a as usize]);
        let (cells, held_out): (Vec<usize>, Vec<usize>) = (0..interventions.n_cells()).partition(in_training);
        let (train, validation) = split::split(&cells, config.validation_fraction, config.seed)?;
        if train.len() < 3 {
            let problem = format!("only {} cells are left to train on", train.len());
            return Err(InputError::new(problem, "hold out less, or bring more cells").in_file(source).into());
        }
        Ok(Self { train, validation, held_out, held_out_interventions, trained })
    }
}

/// The network that the settings describe, for this screen.
pub fn architecture(config: &Config, data: &Dataset) -> Architecture {
    Architecture {
        n_hidden: config.hidden,
        n_layers: config.layers,
        categorical_levels: data.covariates.categorical.iter().map(|column| column.levels.len()).collect(),
        n_continuous: data.covariates.continuous.len(),
        encode_covariates: config.encode_covariates,
        deeply_inject_covariates: config.deeply_inject_covariates,
        batch_norm: config.batch_norm,
        layer_norm: config.layer_norm,
        dropout_rate: config.dropout,
        latent_distribution: config.latent_distribution,
        full_covariance: config.posterior_covariance == PosteriorCovariance::Full,
        prior: match config.method {
            Method::Vae | Method::BetaVae => Prior::Standard,
            Method::Ivae => match config.ivae_mask {
                IvaeMask::Ones => Prior::Shifted,
                IvaeMask::Learned => Prior::Masked { kind: MaskKind::Hard, temperature: 1.0 },
            },
            Method::Svae | Method::SvaePlus => Prior::Masked { kind: config.mask, temperature: config.temperature },
        },
        likelihood_epsilon: config.likelihood_epsilon,
        ..Architecture::new(data.n_genes(), data.n_interventions(), config.latents)
    }
}

/// The objective that the settings describe, on `n_cells` training cells.
pub fn objective(config: &Config, n_interventions: usize, n_cells: usize) -> Objective {
    let alpha = config.alpha_for(n_interventions);
    Objective {
        penalty: match config.method {
            Method::Vae | Method::BetaVae | Method::Ivae => Penalty::None,
            Method::Svae => Penalty::MeanProbability { alpha },
            Method::SvaePlus => Penalty::SpikeAndSlab { alpha },
        },
        beta: config.beta,
        scale_to_all_cells: config.method == Method::SvaePlus,
        n_cells,
    }
}

fn training_settings(config: &Config, n_training: usize) -> TrainingSettings {
    TrainingSettings {
        epochs: config.epochs_for(n_training),
        retraining_epochs: config.retraining_epochs.unwrap_or_else(|| config.epochs_for(n_training)),
        batch_size: config.batch_size,
        warmup_epochs: config.warmup_epochs,
        patience: config.patience,
        keep: config.keep,
        schedule: config.schedule,
        prune_masks_below: config.prune_masks_below,
        adam: AdamSettings {
            learning_rate: config.learning_rate,
            epsilon: config.adam_epsilon,
            weight_decay: config.weight_decay,
            ..AdamSettings::default()
        },
        seed: config.seed,
        stream_offset: 0,
        trained: None,
    }
}

fn run_in<R: Real>(
    team: &Team,
    config: &Config,
    screen: &Screen,
    folder: &ResultsFolder,
    resumable: &mut ResumableRun<'_>,
) -> Result<Outcome>
where
    for<'a> &'a [R]: Into<TensorValues<'a>>,
{
    let Screen { data, cells, progress: shown, .. } = screen;
    shown.event(
        "data",
        json!({
            "source": data.source, "cells": data.n_cells(), "genes": data.n_genes(),
            "interventions": data.n_interventions(), "training_cells": cells.train.len(),
            "folder": folder.path(), "threads": team.threads(),
        }),
    );
    for note in &screen.notes {
        shown.note(note);
    }
    folder.write_config(config)?;
    let settings = training_settings(config, cells.train.len());
    let start = Start {
        data,
        train: &cells.train,
        validation: &cells.validation,
        objective: &objective(config, data.n_interventions(), cells.train.len()),
        settings: &settings,
        progress: *shown,
    };
    let (mut network, training, starts) =
        train_from_starts(resumable, team, start, config.starts, config.trial_epochs(settings.epochs), |seed| {
            Network::<R>::new(architecture(config, data), seed)
        })?;
    shown.event("stage", json!({ "stage": "evaluation" }));
    let mut metrics = judge(team, config, screen, &network, Some(&training), &mut || resumable.check())?;
    metrics.starts = starts;
    write(config, data, folder, &network, &training)?;
    if let Some(summary) = &screen.summary {
        folder.write_data_summary(summary)?;
    }
    resumable.check()?;
    let parts = Parts { train: &cells.train, validation: &cells.validation, trained: &cells.trained };
    let interpretation = interpret(team, config, data, folder, parts, &network)?;
    resumable.check()?;
    let mut failed = training.non_finite.map(Error::from);
    if let (Some(protocol), None) = (screen.protocol(config), &failed) {
        match adapt(team, config, data, &protocol, folder, &mut network, resumable) {
            Ok(heldout) => metrics.heldout = Some(heldout),
            // There are results without it; everything else can be done again.
            Err(error @ (Error::NonFinite(_) | Error::Input(_))) => failed = Some(error),
            Err(error) => return Err(error),
        }
    }
    shown.event("stage", json!({ "stage": "results" }));
    if config.h5ad {
        folder.write_h5ad(config, data, interpretation, &training.history, &metrics)?;
    }
    resumable.check()?;
    let metrics = timed(metrics, resumable.seconds());
    folder.write_report(Some(metrics.to_value()))?;
    if folder.writes() {
        folder.write_manifest(&Manifest::new(config, team, resumable.history())?)?;
    }
    // Last, so that a folder with metrics is a finished run.
    folder.write_metrics(&metrics)?;
    if let (true, Err(error)) = (folder.writes(), checkpoint::remove(folder.path())) {
        shown.warn(&format!("the run is finished, but its checkpoint is left over ({error})."));
    }
    let seconds = metrics.timing.total_seconds;
    shown.event("finished", json!({ "folder": folder.path(), "seconds": seconds, "failed": failed.is_some() }));
    match failed {
        Some(error) => Err(error),
        None => Ok(Outcome { metrics, folder: folder.path().to_path_buf() }),
    }
}

fn evaluate_in<R: Real>(
    team: &Team,
    config: &Config,
    screen: &Screen,
    folder: ResultsFolder,
    start: Instant,
) -> Result<Outcome> {
    let (network, _) = read_model::<R>(config, &screen.data, &folder, MODEL)?;
    let resumable = &mut ResumableRun::unsaved();
    let mut metrics = judge(team, config, screen, &network, None, &mut || resumable.check())?;
    if let Some(mut protocol) = screen.protocol(config) {
        if folder.path().join(HELDOUT_MODEL).exists() {
            let (fitted, metadata) = read_model::<R>(config, &screen.data, &folder, HELDOUT_MODEL)?;
            if metadata.get(BATCH_NORM_KEY).is_some_and(|value| value == DRIFT) {
                protocol.batch_norm = HeldoutBatchNorm::Drift;
            }
            metrics.heldout = Some(protocol.judge(team, &network, fitted, resumable)?);
        } else {
            Progress::new(protocol.progress, 0, 0).note(&format!(
                "No held-out figures: the folder has no {HELDOUT_MODEL}; `svae-cpu fit-shifts` makes it."
            ));
        }
    }
    let metrics = timed(metrics, start.elapsed().as_secs_f64());
    folder.write_evaluation(&metrics)?;
    Ok(Outcome { metrics, folder: folder.path().to_path_buf() })
}

fn fit_shifts_in<R: Real>(
    team: &Team,
    config: &Config,
    screen: &Screen,
    folder: ResultsFolder,
    start: Instant,
) -> Result<Outcome>
where
    for<'a> &'a [R]: Into<TensorValues<'a>>,
{
    let (mut network, _) = read_model::<R>(config, &screen.data, &folder, MODEL)?;
    let protocol = screen.protocol(config).expect("checked to be asked for, with cells held out");
    let resumable = &mut ResumableRun::unsaved();
    let mut metrics = judge(team, config, screen, &network, None, &mut || resumable.check())?;
    metrics.heldout = Some(adapt(team, config, &screen.data, &protocol, &folder, &mut network, resumable)?);
    let metrics = timed(metrics, start.elapsed().as_secs_f64());
    folder.write_evaluation(&metrics)?;
    folder.write_report(None)?;
    Ok(Outcome { metrics, folder: folder.path().to_path_buf() })
}

/// Takes a trained network through the held-out protocol and writes what it leaves behind.
fn adapt<R: Real>(
    team: &Team,
    config: &Config,
    data: &Dataset,
    protocol: &Protocol,
    folder: &ResultsFolder,
    network: &mut Network<R>,
    resumable: &mut ResumableRun<'_>,
) -> Result<HeldoutMetrics>
where
    for<'a> &'a [R]: Into<TensorValues<'a>>,
{
    let adapted = protocol.run(team, network, resumable)?;
    folder.write_history("history_retrain.csv", &adapted.retraining.history)?;
    if let Some(shift) = &network.tensors.shift {
        let values = table(&network.parameters[shift]);
        let l = network.architecture.n_latents;
        folder.write_intervention_table("shifts_heldout.csv", &data.intervention_names, l, &values)?;
    }
    let mut metadata = metadata(config, data);
    if adapted.metrics.batch_norm == Some(HeldoutBatchNorm::Drift) {
        metadata.insert(BATCH_NORM_KEY.to_owned(), DRIFT.to_owned());
    }
    folder.write_model(HELDOUT_MODEL, &network.saved().tensors(), &metadata)?;
    Ok(adapted.metrics)
}

/// The metrics with the time and memory spent.
fn timed(mut metrics: Metrics, seconds: f64) -> Metrics {
    metrics.timing.total_seconds = seconds;
    metrics.timing.peak_rss_bytes = peak_rss_bytes();
    metrics
}

/// Reads the model `name` of a folder and checks that it belongs to the settings and data.
fn read_model<R: Real>(
    config: &Config,
    data: &Dataset,
    folder: &ResultsFolder,
    name: &str,
) -> Result<(Network<R>, BTreeMap<String, String>)> {
    let path = folder.path().join(name);
    let (network, found) = Network::read(&path, architecture(config, data))?;
    for (key, wanted) in metadata(config, data) {
        if key != "program" && found.get(&key) != Some(&wanted) {
            let remedy = "give the data and settings that the model was trained with";
            let problem = match key.as_str() {
                "interventions" => format!("the model was trained on other interventions than {} has", data.source),
                "genes" => format!("the model was trained on other genes than {} has", data.source),
                "categorical_covariates" | "continuous_covariates" => {
                    format!(
                        "the model was trained with other covariates, or other levels of them, than {} has",
                        data.source
                    )
                }
                _ => format!("the model's {key} is not {wanted}, as the settings say"),
            };
            return Err(InputError::new(problem, remedy).in_file(path).into());
        }
    }
    Ok((network, found))
}

/// Name of the trained model in a results folder.
pub(crate) const MODEL: &str = "model.safetensors";
/// Name of the model at the end of the held-out protocol.
pub(crate) const HELDOUT_MODEL: &str = "model_heldout.safetensors";
/// Metadata of that model which say that its encoder statistics drifted.
const BATCH_NORM_KEY: &str = "heldout_batch_norm";
const DRIFT: &str = "drift";

/// What a saved model says about itself.
fn metadata(config: &Config, data: &Dataset) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("program".to_owned(), concat!("svae-cpu ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("method".to_owned(), config.method.name().to_owned()),
        ("interventions".to_owned(), serde_json::json!(data.intervention_names).to_string()),
        ("genes".to_owned(), serde_json::json!(data.gene_names).to_string()),
        ("categorical_covariates".to_owned(), {
            let levels = |c: &Categorical| serde_json::json!({"name": c.name, "levels": c.levels});
            serde_json::Value::from_iter(data.covariates.categorical.iter().map(levels)).to_string()
        }),
        ("continuous_covariates".to_owned(), {
            let names = data.covariates.continuous.iter().map(|c| c.name.as_str());
            serde_json::Value::from_iter(names).to_string()
        }),
    ])
}

/// Values in double precision, for tables.
fn table<R: Real>(values: &[R]) -> Vec<f64> {
    values.iter().map(|v| v.f64()).collect()
}

/// Judges a trained network; `between` is called between its parts, and ends it with its error.
fn judge<R: Real>(
    team: &Team,
    config: &Config,
    screen: &Screen,
    network: &Network<R>,
    training: Option<&Training>,
    between: &mut dyn FnMut() -> Result<()>,
) -> Result<Metrics> {
    let Screen { data, cells, .. } = screen;
    let objective = objective(config, data.n_interventions(), cells.train.len());
    let mut workspace = evaluation_workspace(network, data);
    let mut elbo_of = |cells: &[usize]| elbo(team, network, &mut workspace, data, cells, &objective, config.seed);
    let (on_training, on_validation) = (elbo_of(&cells.train)?, elbo_of(&cells.validation)?);
    between()?;
    let in_training: Vec<usize> = [&cells.train[..], &cells.validation].concat();
    let latent_kl = divergence_by_latent(team, network, &mut workspace, data, &in_training, config.seed)?;
    drop(in_training);
    between()?;
    // All latents are held at once only where there are true ones to be compared with, which are held too.
    let latents = match &data.truth {
        Some(_) => {
            let all: Vec<usize> = (0..data.n_cells()).collect();
            posterior_means(team, network, &mut workspace, data, &all)?
        }
        None => Vec::new(),
    };
    between()?;
    let l = network.architecture.n_latents;

    let probabilities = network.mask_probabilities();
    let masks = probabilities.as_ref().map(|p| {
        let p: Vec<f64> = p.iter().map(|p| p.f64()).collect();
        masks_from_probabilities(&p)
    });
    let mask = masks.as_ref().map(|masks| {
        let rows = || masks.chunks_exact(l).zip(&cells.trained).filter(|(_, trained)| **trained).map(|(row, _)| row);
        let on = rows().flatten().filter(|on| **on).count();
        MaskMetrics {
            fraction_on: on as f64 / rows().flatten().count() as f64,
            interventions_with_target: rows().filter(|row| row.contains(&true)).count(),
        }
    });

    let mut metrics = Metrics {
        method: config.method,
        seed: config.seed,
        n_cells: data.n_cells(),
        n_genes: data.n_genes(),
        n_interventions: data.n_interventions(),
        epochs: training.map(|training| training.history.len()),
        stop_reason: training.map(|training| training.stop_reason),
        starts: None,
        elbo_train: on_training.total,
        elbo_validation: on_validation.total,
        reconstruction_validation: on_validation.reconstruction,
        kl_validation: on_validation.kl,
        latent_kl,
        mcc_pearson: None,
        mcc_spearman: None,
        r2: None,
        graph: None,
        mask,
        oracle: None,
        baseline: None,
        heldout: None,
        timing: Timing {
            train_seconds: training.map(|training| training.seconds),
            cells_per_second: training.map(|training| training.cells_passed as f64 / training.seconds),
            total_seconds: 0.0,
            peak_rss_bytes: None,
        },
    };
    // The rest is for the first of several processes, which has the counts of all cells and writes; the others stop where it
    // does.
    if !team.ranks().is_first() {
        let parts = usize::from(!cells.validation.is_empty()) + usize::from(data.truth.is_some());
        (0..parts).try_for_each(|_| between())?;
        return Ok(metrics);
    }
    if !cells.validation.is_empty() {
        let pooled = pooled::pooled_negative_binomial(team, data, &cells.train, &cells.validation)?;
        let each = pooled::per_intervention_negative_binomial(
            team,
            data,
            &cells.train,
            &cells.validation,
            pooled::PSEUDO_CELLS,
        )?;
        between()?;
        metrics.baseline = Some(BaselineMetrics {
            pooled_negative_binomial: pooled.nll_per_cell,
            per_intervention_negative_binomial: each.nll_per_cell,
        });
    }
    if let Some(truth) = &data.truth {
        let recovery = Recovery::new(data, &latents, l, |a| cells.trained[a]).expect("the truth is known");
        drop(latents);
        let pearson = recovery.mcc(team, Correlation::Pearson);
        between()?;
        metrics.mcc_spearman = Some(recovery.mcc(team, Correlation::Spearman).mean);
        metrics.r2 = Some(recovery.r2());
        let of = |mixing: &MixingNetwork| latent_oracle(team, data, mixing, &recovery.cells, config.seed);
        let ceiling = screen.mixing.as_deref().and_then(of);
        metrics.oracle = ceiling.map(|o| LatentOracleMetrics {
            mcc_pearson: o.mcc_pearson,
            mcc_spearman: o.mcc_spearman,
            r2: o.r2,
            diagonal_gap: o.diagonal_gap,
            n_cells: o.cells,
            particles: o.particles,
        });
        // An iVAE without masks is judged by the two largest shifts of each intervention.
        let largest = || {
            let shift = network.tensors.shift.as_ref().filter(|_| masks.is_none())?;
            Some(two_largest_shifts(&table(&network.parameters[shift]), l))
        };
        if let Some(masks) = masks.clone().or_else(largest) {
            let targets = targets_from_prior_means(&truth.prior_means);
            let scores = score_targets(&targets, &masks, &pearson.correlation, &cells.trained);
            let of = |s: TargetScore| PrecisionRecall { precision: s.precision, recall: s.recall, f1: s.f1 };
            metrics.graph = Some(GraphMetrics { reference: of(scores.reference), corrected: of(scores.corrected) });
        }
        metrics.mcc_pearson = Some(pearson.mean);
    }
    Ok(metrics)
}

fn write<R: Real>(
    config: &Config,
    data: &Dataset,
    folder: &ResultsFolder,
    network: &Network<R>,
    training: &Training,
) -> Result<()>
where
    for<'a> &'a [R]: Into<TensorValues<'a>>,
{
    folder.write_history("history.csv", &training.history)?;
    folder.write_model(MODEL, &network.saved().tensors(), &metadata(config, data))?;

    let l = network.architecture.n_latents;
    if let Some(masks) = network.mask_probabilities() {
        folder.write_masks(&data.intervention_names, l, &table(&masks))?;
    }
    if let Some(shift) = &network.tensors.shift {
        folder.write_shifts(&data.intervention_names, l, &table(&network.parameters[shift]))?;
    }
    Ok(())
}

/// Writes what the trained model says about the screen. What it says of each cell is written as it is found.
fn interpret<R: Real>(
    team: &Team,
    config: &Config,
    data: &Dataset,
    folder: &ResultsFolder,
    parts: Parts,
    network: &Network<R>,
) -> Result<Interpretation> {
    let (names, l) = (&data.intervention_names, config.latents);
    let keep = config.h5ad;
    let found = match folder.writes() {
        true => {
            let mut table = folder.cells_table(data)?;
            let mut npz = NpzWriter::create(folder.path().join(LATENTS))?;
            let mut found = None;
            npz.add_floats("latents", &[data.n_cells(), l], config.precision == Precision::F32, |put| {
                let interpretation =
                    Interpretation::new(team, network, data, parts, config.seed, keep, |mean, record| {
                        put(mean)?;
                        table.push(record)
                    })?;
                found = Some(interpretation);
                Ok(())
            })?;
            npz.add_strings("cells", &data.cell_names)?;
            npz.finish()?;
            table.finish()?;
            found.expect("it is found while the latents are written")
        }
        false => Interpretation::new(team, network, data, parts, config.seed, keep, |_, _| Ok(()))?,
    };
    if found.shifts.is_some() {
        folder.write_targets(names, &found.targets)?;
        folder.write_graph(names, parts.trained, l, &found.targets)?;
    }
    folder.write_genes_per_latent(&data.gene_names, l, &found.loadings)?;
    Ok(found)
}

/// Simulates a screen into a `.npz` file, truth included.
///
/// # Errors
/// If the settings cannot be met or the file cannot be written.
pub fn simulate(simulation: &settings::Simulation, out: &Path) -> Result<()> {
    let settings = simulator_settings(simulation);
    let simulated = Team::with(settings::threads_or_all(None), |team| simulator::simulate_on(team, &settings))?;
    write_npz(&simulated.dataset, out)
}

/// Cells on which `verify` differences the objective: two row blocks, the second not full.
const VERIFICATION_CELLS: usize = 40;

/// Times shapes and a run of the user's own, and predicts that run.
///
/// # Errors
/// Input that cannot be used.
pub fn bench(plan: &crate::cli::bench::Plan) -> Result<Benchmark> {
    let mut shapes = Vec::new();
    for shape in &plan.shapes {
        let data = shape.dataset()?;
        let (architecture, objective) = (bench::architecture(&data), bench::objective(&data));
        let (name, batch) = (shape.name(), bench::BATCH);
        let workload = Workload { name, data: &data, architecture: &architecture, objective, batch };
        shapes.extend(plan.threads.iter().map(|&threads| bench::measure::<f32>(&workload, threads, plan.duration)));
    }
    let mut prediction = None;
    if let Some(config) = &plan.own {
        let screen = Team::with(config.n_threads(), |team| Screen::read(team, config))?;
        let Screen { data, cells, .. } = &screen;
        let config = config.resolved(&data.intervention_names, cells.train.len())?;
        let settings = training_settings(&config, cells.train.len());
        let objective = objective(&config, data.n_interventions(), cells.train.len());
        let architecture = architecture(&config, data);
        let batch = config.batch_size;
        // Counts on disk are timed by as many cells as are in memory at once.
        let sample = match data.counts.disk() {
            Some(disk) => Some(data.resident(&(0..disk.window_cells().min(data.n_cells())).collect::<Vec<_>>())?),
            None => None,
        };
        let measured: &Dataset = match &sample {
            Some(sample) => sample,
            None => data,
        };
        let workload = Workload { name: "run", data: measured, architecture: &architecture, objective, batch };
        let speed = match config.precision {
            Precision::F32 => bench::measure::<f32>(&workload, config.n_threads(), plan.duration),
            Precision::F64 => bench::measure::<f64>(&workload, config.n_threads(), plan.duration),
        };
        // Only an encoder whose statistics drift is run while shifts are fitted, and then changes the samples of a bound.
        let drifts = config.method.uses_interventions() && config.heldout_batch_norm == HeldoutBatchNorm::Drift;
        let sizes = RunSizes {
            train: cells.train.len(),
            validation: cells.validation.len(),
            held_out: if config.heldout { cells.held_out.len() } else { 0 },
            epochs: settings.epochs,
            other_epochs: (config.starts - 1) * config.trial_epochs(settings.epochs).unwrap_or(settings.epochs),
            retraining_epochs: settings.retraining_epochs,
            fit_epochs: if drifts { fit_settings(&settings, cells.held_out.len()).epochs } else { 0 },
            particles: config.particles,
            bounds: if drifts { 3 } else { 2 },
            scalar: if config.precision == Precision::F32 { 4 } else { 8 },
        };
        prediction = Some(bench::predict(&speed, &sizes, &architecture, data));
        shapes.push(speed);
    }
    Ok(Benchmark { simd: simd::level(), shapes, prediction })
}

/// Checks every block and the whole objective, for the settings and data given, by finite differences at random points,
/// and every golden vector in `vectors`.
///
/// # Errors
/// If the data or a vector cannot be read; a failed check is no error but a verdict.
pub fn verify(config: &Config, vectors: Option<&Path>) -> Result<Verification> {
    config.simd.choose();
    let mut data = Team::with(config.n_threads(), |team| read(team, config))?.data;
    let n_cells = data.n_cells();
    let mut cells: Vec<usize> = (0..n_cells).collect();
    shuffle(&mut cells, &mut stream(config.seed, Purpose::Verification, 0, 0));
    cells.truncate(VERIFICATION_CELLS);
    if data.counts.disk().is_some() {
        cells.sort_unstable();
        data = Arc::new(data.resident(&cells)?);
        cells = (0..cells.len()).collect();
    }
    let objective = objective(config, data.n_interventions(), n_cells);
    let weights = objective.weights(cells.len(), 1.0);

    let mut checks = finite_differences::check_blocks(config.seed);
    let architecture = architecture(config, &data);
    checks.extend(finite_differences::check_objective(
        &architecture,
        &data,
        &cells,
        weights,
        objective.penalty,
        config.seed,
    ));
    if let Some(folder) = vectors {
        for path in golden::vectors(folder)? {
            checks.extend(golden::check(&path)?);
        }
    }
    Ok(Verification::new(checks))
}
