//! Settings in two stages: raw (all optional, from a TOML file and from flags) and checked (what the program runs on).
//!
//! A key of the file is the flag's name with underscores: `--label-key` is `label_key`; the simulation's flags are the
//! keys of a `[simulation]` table. Flags win over the file. Keys that are unknown, out of range, or that the chosen
//! method or data would not use are refused. The checked settings are saved beside the results, and reading that file
//! gives the same settings again.

pub mod build;
mod grid;
mod raw;
mod recipe;
mod time_limit;

use crate::data::simulate::SimulationKind;
use crate::model::architecture::{LatentDistribution, MaskKind, PosteriorCovariance};
use crate::model::likelihood::Likelihood;
use crate::model::method::{IvaeMask, Method};
use crate::numerics::real::Precision;
use crate::numerics::simd::Level;
use crate::settings::time_limit::TimeLimit;
use crate::system::console::LogFormat;
use crate::training::history::KeepEpoch;
use crate::training::schedule::Schedule;
use crate::training::shift_fit::HeldoutBatchNorm;
use crate::training::starts::MOST_STARTS;
use crate::words::{nearest, quoted};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Error, InputError, Result};
use crate::model::architecture::MAX_LAYERS;
use crate::results::folder::Earlier;
use crate::system::interruption::{Interval, SaveSchedule};
pub use grid::{Criterion, Grid, GridRun, Selection};
pub use raw::{RawConfig, RawData, RawExecution, RawInterruption, RawModel, RawOutput, RawSimulation, RawTraining};
pub use recipe::Recipe;

/// Settings that results do not depend on: how many threads, and where files are (their contents are compared).
pub const INDIFFERENT_KEYS: [&str; 4] = ["threads", "data", "labels", "genes"];

/// Settings of the simulator.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Simulation {
    /// Which simulator.
    pub kind: SimulationKind,
    /// Number of interventions, A.
    pub interventions: usize,
    /// Number of cells of each intervention.
    pub cells: usize,
    /// Number of genes, G.
    pub genes: usize,
    /// Number of true latents.
    pub latents: usize,
    /// Interventions target only the first that many latents; `None`: all of them.
    pub targeted_latents: Option<usize>,
    /// Seed of the simulator's random streams.
    pub seed: u64,
}

/// Where the cells come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source<'a> {
    /// A file.
    File(&'a Path),
    /// A simulation.
    Simulation(&'a Simulation),
}

/// Checked settings: every value is in its range and every setting takes effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Data file; `None` when simulated. Relative to the working directory.
    pub data: Option<PathBuf>,
    /// Column of intervention labels; `None` leaves it to the reader.
    pub label_key: Option<String>,
    /// Column of batch labels.
    pub batch_key: Option<String>,
    /// Columns of further categorical covariates.
    pub categorical_covariates: Vec<String>,
    /// Columns of continuous covariates.
    pub continuous_covariates: Vec<String>,
    /// Column of size factors; `None` is each cell's total count.
    pub size_factor_key: Option<String>,
    /// Whether cells without counts are left out rather than refused.
    pub drop_empty_cells: bool,
    /// Matrix of an AnnData file; `None` is `X`.
    pub layer: Option<String>,
    /// Genome of a 10x file; `None` is all.
    pub genome: Option<String>,
    /// Table of labels. Relative to the working directory.
    pub labels: Option<PathBuf>,
    /// Labels of control cells.
    pub control: Vec<String>,
    /// File of the genes to use. Relative to the working directory.
    pub genes: Option<PathBuf>,
    /// Number of highly variable genes to use.
    pub top_genes: Option<usize>,
    /// Interventions with fewer cells are left out.
    pub min_cells_per_label: usize,
    /// Cells with fewer counts are left out.
    pub min_counts: usize,
    /// Whether cells without a label are left out rather than refused.
    pub drop_unlabelled_cells: bool,
    /// Whether the counts stay on disk.
    pub stream: bool,
    /// Megabytes of counts in memory while they do.
    pub stream_buffer: usize,
    /// Labels held out of the training; `None` is the default of the data (see [`Config::held_out`]).
    pub holdout: Option<Vec<String>>,

    /// Model.
    pub method: Method,
    /// Where the defaults came from that nobody set; `None`: the program's own.
    pub recipe: Option<Recipe>,
    /// Number of latents, L.
    pub latents: usize,
    /// Hidden width, H.
    pub hidden: usize,
    /// Hidden layers of encoder and of decoder.
    pub layers: usize,
    /// Sparsity of the mask; `None` is the number of interventions (see [`Config::alpha_for`]).
    pub alpha: Option<f64>,
    /// Weight of the KL divergence of the latents.
    pub beta: f64,
    /// Kind of mask sample.
    pub mask: MaskKind,
    /// Temperature of the Gumbel-sigmoid.
    pub temperature: f64,
    /// Mask of the iVAE.
    pub ivae_mask: IvaeMask,
    /// Distribution of the latents.
    pub latent_distribution: LatentDistribution,
    /// Covariance of the latents in a cell's posterior.
    pub posterior_covariance: PosteriorCovariance,
    /// Dropout rate of the encoder.
    pub dropout: f64,
    /// Whether hidden layers are batch-normalised.
    pub batch_norm: bool,
    /// Whether hidden layers are layer-normalised.
    pub layer_norm: bool,
    /// Distribution of the counts about their means.
    pub likelihood: Likelihood,
    /// Constant inside the logarithms of the negative binomial.
    pub likelihood_epsilon: f64,
    /// Whether the encoder receives the covariates.
    pub encode_covariates: bool,
    /// Whether covariates enter every hidden layer rather than the first.
    pub deeply_inject_covariates: bool,

    /// Largest number of epochs; `None` leaves it to the number of training cells (see [`Config::epochs_for`]).
    pub epochs: Option<usize>,
    /// Cells per minibatch.
    pub batch_size: usize,
    /// Epochs over which the KL weight rises from 0 to 1; 0 starts at 1.
    pub warmup_epochs: usize,
    /// Epochs without improvement before stopping; 0 never stops early.
    pub patience: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Course of the step size.
    pub schedule: Schedule,
    /// L2 term added to the gradient.
    pub weight_decay: f64,
    /// Adam's epsilon.
    pub adam_epsilon: f64,
    /// Fraction of the training cells set aside for validation.
    pub validation_fraction: f64,
    /// Which epoch's weights are kept.
    pub keep: KeepEpoch,
    /// At times, latents are turned and masks of a lower probability switched off, to earn their place anew; 0: never.
    pub prune_masks_below: f64,
    /// Trainings from different starting values, of which the one with the lowest validation ELBO is kept.
    pub starts: usize,
    /// Share of the epochs after which only the best of several starts goes on; 1: each is trained to its end.
    pub trial_share: f64,
    /// Floating-point type of the training.
    pub precision: Precision,

    /// Whether a model is adapted to the held-out interventions and judged on their cells.
    pub heldout: bool,
    /// Largest number of epochs of the second training, on fixed masks; `None`: as many as of the first.
    pub retraining_epochs: Option<usize>,
    /// Samples per cell of the importance-weighted bound on held-out cells.
    pub particles: usize,
    /// Running statistics of batch normalisation while held-out shifts are fitted.
    pub heldout_batch_norm: HeldoutBatchNorm,

    /// Seed of every random stream.
    pub seed: u64,
    /// Threads; `None` is as many as the machine allows (see [`Config::n_threads`]).
    pub threads: Option<usize>,
    /// What the last digits may depend on.
    pub simd: Level,

    /// Whether a run in `out` is gone on with.
    pub resume: bool,
    /// Minutes between two checkpoints; 0: one after every epoch.
    pub checkpoint_every: f64,
    /// Time after which the run stops early.
    pub time_limit: Option<TimeLimit>,

    /// Results folder; `None` is the next numbered folder under `results/`.
    pub out: Option<PathBuf>,
    /// Whether a run already in `out` may be replaced.
    pub overwrite: bool,
    /// Whether results.h5ad is written.
    pub h5ad: bool,
    /// Whether the metrics are printed as JSON.
    pub json: bool,
    /// Whether progress is left out.
    pub quiet: bool,
    /// Format of what is said on standard error.
    pub log_format: LogFormat,

    /// The simulation; `None` when data are read. Exactly one of `data` and `simulation` is set.
    pub simulation: Option<Simulation>,
}

impl Default for Config {
    fn default() -> Self {
        RawConfig::default().check(&Origin::default()).expect("the defaults are valid")
    }
}

/// Keys that say where and how loudly a run happens, not what it computes: they are not saved with the results.
const UNSAVED_KEYS: [&str; 9] =
    ["checkpoint_every", "time_limit", "out", "overwrite", "resume", "h5ad", "json", "quiet", "log_format"];

/// Keys that describe a data file.
const DATA_KEYS: [&str; 17] = [
    "label_key",
    "batch_key",
    "categorical_covariates",
    "continuous_covariates",
    "size_factor_key",
    "drop_empty_cells",
    "layer",
    "genome",
    "labels",
    "control",
    "genes",
    "top_genes",
    "min_cells_per_label",
    "min_counts",
    "drop_unlabelled_cells",
    "stream",
    STREAM_BUFFER,
];

/// Has no effect where the counts are read into memory.
const STREAM_BUFFER: &str = "stream_buffer";

/// Has no effect on a single start.
const TRIAL_SHARE: &str = "trial_share";

/// Keys that say how held-out interventions are treated.
const HELDOUT_KEYS: [&str; 3] = ["retraining_epochs", "particles", "heldout_batch_norm"];

/// Keys that say how covariates enter the model.
const COVARIATE_KEYS: [&str; 2] = ["encode_covariates", "deeply_inject_covariates"];

impl Config {
    /// Reads `file` if there is one, lays `flags` over it and checks the result.
    ///
    /// # Errors
    /// [`InputError`] naming the file and line, or the flag, of the first setting that cannot be used.
    pub fn load(file: Option<&Path>, flags: RawConfig) -> Result<Self> {
        let flag_keys = flags.given_keys()?;
        let (from_file, mut origin) = match file {
            Some(path) => raw::read(path)?,
            None => (RawConfig::default(), Origin::default()),
        };
        let raw = from_file.overlaid(flags)?;
        origin.flags = flag_keys;
        raw.check(&origin)
    }

    /// The settings as the text of a configuration file, without those that say only where to write and what to print.
    /// Reading it gives the same settings (with those at their defaults).
    pub fn to_toml(&self) -> String {
        let mut table = toml::Table::try_from(self).expect("checked settings can be written as TOML");
        for key in UNSAVED_KEYS.iter().chain(self.method.unused_keys()).chain(self.likelihood.unused_keys()) {
            table.remove(*key);
        }
        if self.simulation.is_some() {
            for key in DATA_KEYS {
                table.remove(key);
            }
        }
        if !self.stream {
            table.remove(STREAM_BUFFER);
        }
        if self.starts == 1 {
            table.remove(TRIAL_SHARE);
        }
        if !self.has_covariates() {
            for key in COVARIATE_KEYS {
                table.remove(key);
            }
        }
        if !self.heldout {
            for key in HELDOUT_KEYS {
                table.remove(key);
            }
        }
        if let Some(labels) = &self.holdout {
            // A label that begins with @ must not be read back as the name of a file.
            let entries = labels.iter().map(|label| match label.strip_prefix('@') {
                Some(rest) => toml::Value::String(format!("@@{rest}")),
                None => toml::Value::String(label.clone()),
            });
            table.insert("holdout".to_owned(), toml::Value::Array(entries.collect()));
        }
        // A struct keeps the order of its fields, a table does not: write the keys in the order of `Config`.
        let order = raw::config_keys();
        let mut text = String::from("# Settings of this run. Repeat it with: svae-cpu run THIS_FILE\n");
        for key in order.iter().filter(|key| *key != "simulation") {
            if let Some(value) = table.get(key) {
                let mut line = toml::Table::new();
                line.insert(key.clone(), value.clone());
                text.push_str(&toml::to_string(&line).expect("a single key can be written"));
            }
        }
        if let Some(simulation) = &self.simulation {
            text.push_str("\n[simulation]\n");
            text.push_str(&toml::to_string(simulation).expect("a simulation can be written"));
        }
        text
    }

    /// Where the cells come from.
    pub fn source(&self) -> Source<'_> {
        match (&self.data, &self.simulation) {
            (Some(path), _) => Source::File(path),
            (None, Some(simulation)) => Source::Simulation(simulation),
            (None, None) => unreachable!("checked settings have data or a simulation"),
        }
    }

    /// Whether any covariate was named.
    pub fn has_covariates(&self) -> bool {
        self.batch_key.is_some() || !self.categorical_covariates.is_empty() || !self.continuous_covariates.is_empty()
    }

    /// Sparsity of the mask for data with `n_interventions` interventions.
    pub fn alpha_for(&self, n_interventions: usize) -> f64 {
        self.alpha.unwrap_or(n_interventions as f64)
    }

    /// Largest number of epochs on `n_training` cells: as set, else 500, or more on a small screen.
    ///
    /// 500 is the larger of the two numbers that the paper chooses from.
    /// Adam moves a mask logit by about the learning rate a step, and logits start at 5: at a rate of 1e-3 no mask can
    /// switch off before 5,000 steps. A small screen gets enough epochs for 20,000 steps.
    pub fn epochs_for(&self, n_training: usize) -> usize {
        let steps_per_epoch = n_training.div_ceil(self.batch_size).max(1);
        self.epochs.unwrap_or_else(|| usize::max(500, 20_000usize.div_ceil(steps_per_epoch)))
    }

    /// Epochs, of `epochs`, after which only the best of several starts goes on; `None`: each is trained to its end.
    pub fn trial_epochs(&self, epochs: usize) -> Option<usize> {
        let trial = ((self.trial_share * epochs as f64).round() as usize).max(1);
        (self.starts > 1 && trial < epochs).then_some(trial)
    }

    /// What is to be done about a run that the results folder already holds.
    pub fn earlier(&self) -> Earlier {
        match (self.resume, self.overwrite) {
            (true, _) => Earlier::Resume,
            (false, true) => Earlier::Replace,
            (false, false) => Earlier::Keep,
        }
    }

    /// When to save and when to stop a run of a process that began at `start`.
    pub fn watch(&self, start: Instant) -> SaveSchedule {
        let every = match self.checkpoint_every {
            0.0 => Interval::Epoch,
            minutes => Interval::Time(Duration::from_secs_f64(60.0 * minutes)),
        };
        SaveSchedule::new(every, self.time_limit.map(|limit| start + limit.0))
    }

    /// Number of threads: as set, else `RAYON_NUM_THREADS`, else what the operating system grants the process.
    pub fn n_threads(&self) -> usize {
        threads_or_all(self.threads)
    }
}

/// `threads`, else `RAYON_NUM_THREADS`, else what the operating system grants the process.
pub fn threads_or_all(threads: Option<usize>) -> usize {
    threads
        .or_else(|| std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok().filter(|&n| n > 0))
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

impl Config {
    /// Numbers of the held-out interventions, ascending, among those called `intervention_names`.
    ///
    /// Where nothing was said, a simulation holds out its last fifth of interventions and a data file holds out none.
    ///
    /// # Errors
    /// [`InputError`] for a label that the data do not have (with the nearest one), or when nothing is left to train on.
    pub fn held_out(&self, intervention_names: &[String]) -> Result<Vec<usize>> {
        let n = intervention_names.len();
        let Some(labels) = &self.holdout else {
            return Ok(if self.simulation.is_some() { (n - n / 5..n).collect() } else { Vec::new() });
        };
        let mut held_out = Vec::with_capacity(labels.len());
        for label in labels {
            let position = |label: &str| intervention_names.iter().position(|name| name == label);
            // "A, B" on the command line means the labels "A" and "B"; a label's own blanks come first.
            let Some(a) = position(label).or_else(|| position(label.trim())) else {
                let remedy = match nearest(label, intervention_names.iter().map(String::as_str)) {
                    Some(name) => format!("did you mean \"{name}\"?"),
                    None => {
                        format!("the data have {n} interventions, the first of them \"{}\"", first(intervention_names))
                    }
                };
                return Err(self.in_data(
                    InputError::new(format!("no cell has the label \"{label}\" that --holdout names"), remedy)
                        .at("holdout"),
                ));
            };
            held_out.push(a);
        }
        held_out.sort_unstable();
        held_out.dedup();
        if held_out.len() == n {
            return Err(self.in_data(
                InputError::new("every intervention is held out", "leave some in to train on").at("holdout"),
            ));
        }
        Ok(held_out)
    }

    /// The saved settings that results depend on, as keys and values.
    pub fn settings_of_results(&self) -> Vec<(String, String)> {
        let mut keys = self.saved_keys();
        keys.retain(|(key, _)| !INDIFFERENT_KEYS.contains(&key.as_str()));
        keys.into_iter().map(|(key, value)| (key, value.to_string())).collect()
    }

    /// The command that resumes a run of these settings in `folder`.
    pub fn resume_command(&self, folder: &Path) -> String {
        let no_h5ad = if self.h5ad { "" } else { " --no-h5ad" };
        format!("svae-cpu run --resume {}{no_h5ad}", quoted(folder))
    }

    /// The settings that are saved, as (dotted key, value), in their order.
    pub fn saved_keys(&self) -> Vec<(String, toml::Value)> {
        let mut saved: toml::Table = toml::from_str(&self.to_toml()).expect("settings are written as TOML");
        let mut keys = Vec::new();
        for key in raw::config_keys() {
            match saved.remove(&key) {
                Some(toml::Value::Table(table)) => {
                    let names = raw::json_keys(&RawSimulation::default());
                    let of = |name: &String| Some((format!("{key}.{name}"), table.get(name)?.clone()));
                    keys.extend(names.iter().filter_map(of));
                }
                Some(value) => keys.push((key, value)),
                None => {}
            }
        }
        keys
    }

    /// Where a key stands among the axes of a grid: the method first, seeds last, the rest as in a configuration file.
    pub(crate) fn rank_of(key: &str) -> usize {
        grid::rank(key, &raw::known_keys())
    }

    /// The settings that say which cells are read or simulated, as text: the same for runs that can share them.
    pub fn data_identity(&self) -> String {
        let about_data = grid::data_keys();
        let keys = self.saved_keys().into_iter().filter(|(key, _)| about_data.contains(key));
        keys.map(|(key, value)| format!("{key} = {value}\n")).collect()
    }

    /// The same settings with the defaults that depend on the data filled in: `epochs`, `retraining_epochs`, `alpha` (where
    /// the method has one) and `holdout`.
    ///
    /// # Errors
    /// As [`Config::held_out`].
    pub fn resolved(&self, intervention_names: &[String], n_training: usize) -> Result<Self> {
        let held_out = self.held_out(intervention_names)?;
        let mut config = self.clone();
        if self.method.learns_mask() {
            config.alpha = Some(self.alpha_for(intervention_names.len()));
        }
        config.epochs = Some(self.epochs_for(n_training));
        if self.heldout {
            config.retraining_epochs = self.retraining_epochs.or(config.epochs);
        }
        config.holdout = Some(held_out.into_iter().map(|a| intervention_names[a].clone()).collect());
        Ok(config)
    }

    fn in_data(&self, error: InputError) -> Error {
        match &self.data {
            Some(path) => error.in_file(path).into(),
            None => error.into(),
        }
    }
}

fn first(names: &[String]) -> &str {
    names.first().map_or("", String::as_str)
}

/// Where each raw setting came from, for messages.
#[derive(Debug, Clone, Default)]
struct Origin {
    /// The configuration file.
    file: Option<PathBuf>,
    /// Line of each key of the file, as (dotted key, line from 1).
    lines: Vec<(String, usize)>,
    /// Dotted keys given as flags.
    flags: Vec<String>,
}

impl Origin {
    /// An error about `key`, located at its flag or its line in the file.
    fn error(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        let error = InputError::new(problem, remedy);
        if self.flags.iter().any(|flag| flag == key) {
            return error.at(flag_of(key)).into();
        }
        match (&self.file, self.lines.iter().find(|(name, _)| name == key)) {
            (Some(file), Some((_, line))) => error.in_file(file).at(format!("line {line}, key `{key}`")).into(),
            _ => error.at(flag_of(key)).into(),
        }
    }
}

/// The flag of a dotted key.
fn flag_of(key: &str) -> String {
    match key.strip_prefix("simulation.") {
        Some("kind") => "--simulation".to_owned(),
        Some(name) => format!("--sim-{}", name.replace('_', "-")),
        None if key == "heldout" || key == "h5ad" => format!("--no-{key}"),
        None => format!("--{}", key.replace('_', "-")),
    }
}

/// An interval of allowed numbers, which can say itself in words.
#[derive(Debug, Clone, Copy)]
struct Range {
    low: f64,
    low_allowed: bool,
    high: f64,
    high_allowed: bool,
}

impl Range {
    const fn closed(low: f64, high: f64) -> Self {
        Self { low, low_allowed: true, high, high_allowed: true }
    }

    const fn above(low: f64, high: f64) -> Self {
        Self { low, low_allowed: false, high, high_allowed: true }
    }

    const fn below(low: f64, high: f64) -> Self {
        Self { low, low_allowed: true, high, high_allowed: false }
    }

    fn contains(self, value: f64) -> bool {
        let above = if self.low_allowed { value >= self.low } else { value > self.low };
        let below = if self.high_allowed { value <= self.high } else { value < self.high };
        above && below
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let low = if self.low_allowed { "at least" } else { "above" };
        let high = if self.high_allowed { "at most" } else { "below" };
        write!(f, "{low} {} and {high} {}", self.low, self.high)
    }
}

/// Takes raw values into their ranges, remembering where to point when one is outside.
struct Checker<'a>(&'a Origin);

impl Checker<'_> {
    fn number(&self, key: &str, value: Option<f64>, default: f64, range: Range) -> Result<f64> {
        let value = value.unwrap_or(default);
        if range.contains(value) {
            return Ok(value);
        }
        Err(self.0.error(key, format!("{value} is out of range"), format!("give a number {range}")))
    }

    fn whole(&self, key: &str, value: Option<i64>, default: usize, low: i64, high: i64) -> Result<usize> {
        match value {
            None => Ok(default),
            Some(value) if (low..=high).contains(&value) => Ok(value as usize),
            Some(value) => Err(self.0.error(
                key,
                format!("{value} is out of range"),
                format!("give a whole number from {low} to {high}"),
            )),
        }
    }

    fn seed(&self, key: &str, value: Option<i64>, default: u64) -> Result<u64> {
        match value {
            None => Ok(default),
            Some(value) => u64::try_from(value).map_err(|_| {
                self.0.error(
                    key,
                    format!("{value} is out of range"),
                    format!("give a whole number from 0 to {}", i64::MAX),
                )
            }),
        }
    }

    fn time_limit(&self, value: Option<String>) -> Result<Option<TimeLimit>> {
        let Some(text) = value else { return Ok(None) };
        match text.parse::<TimeLimit>() {
            Ok(limit) if limit.0 > Duration::ZERO && limit.0.as_secs() <= 86_400 * 3_650 => Ok(Some(limit)),
            _ => {
                let remedy =
                    "give days, hours, minutes and seconds, as in 1d12h, 11h50m or 90m, or a number of seconds";
                Err(self.0.error("time_limit", format!("\"{text}\" is no time"), remedy))
            }
        }
    }

    fn text(&self, key: &str, value: Option<String>) -> Result<Option<String>> {
        match value {
            Some(text) if text.trim().is_empty() => {
                Err(self.0.error(key, "the name is empty", "give the name of a column"))
            }
            value => Ok(value),
        }
    }

    fn file(&self, key: &str, value: Option<PathBuf>) -> Result<Option<PathBuf>> {
        match value {
            Some(path) if path.as_os_str().is_empty() => {
                Err(self.0.error(key, "the name of the file is empty", "give the path of a file"))
            }
            value => Ok(value),
        }
    }

    fn columns(&self, key: &str, value: Option<Vec<String>>) -> Result<Vec<String>> {
        let columns = value.unwrap_or_default();
        for (i, column) in columns.iter().enumerate() {
            if column.trim().is_empty() {
                return Err(self.0.error(key, "a name is empty", "give names, separated by commas"));
            }
            if columns[..i].contains(column) {
                return Err(self.0.error(key, format!("\"{column}\" is named twice"), "name each once"));
            }
        }
        Ok(columns)
    }

    /// Labels, with every entry `@file` replaced by the lines of that file; `@@name` is the label `@name`.
    fn holdout(&self, value: Option<Vec<String>>) -> Result<Option<Vec<String>>> {
        let Some(entries) = value else { return Ok(None) };
        let mut labels: Vec<String> = Vec::new();
        let mut add = |label: &str| {
            if !label.is_empty() && !labels.iter().any(|known| known == label) {
                labels.push(label.to_owned());
            }
        };
        for entry in &entries {
            if let Some(label) = entry.strip_prefix("@@") {
                add(&format!("@{label}"));
            } else if let Some(path) = entry.strip_prefix('@') {
                let text = std::fs::read_to_string(path).map_err(|source| {
                    self.0.error(
                        "holdout",
                        format!("the file of labels {path} cannot be read: {source}"),
                        "name a text file with one label per line after @",
                    )
                })?;
                for line in text.lines() {
                    add(line.trim());
                }
            } else {
                add(entry);
            }
        }
        Ok(Some(labels))
    }
}

impl RawConfig {
    fn check(self, origin: &Origin) -> Result<Config> {
        let given = self.given_keys()?;
        let raw = self.over_recipe()?;
        let is_given = |key: &str| given.iter().any(|name| name == key);
        let check = Checker(origin);
        let Self { data, model, training, execution, interruption, output, simulation } = raw;

        let method = model.method.unwrap_or(Method::SvaePlus);
        for key in method.unused_keys() {
            if is_given(key) {
                let remedy = match (method, *key) {
                    (_, "ivae_mask") => "leave it out, or choose --method ivae",
                    (_, "heldout_batch_norm") => "leave it out, or choose a method whose interventions have shifts",
                    (Method::Vae, "beta") => "leave it out, or choose --method beta-vae",
                    _ => "leave it out, or choose --method svae or svae-plus",
                };
                return Err(origin.error(key, format!("it has no effect with method {}", method.name()), remedy));
            }
        }
        let likelihood = model.likelihood.unwrap_or(Likelihood::NegativeBinomial);
        if let Some(key) = likelihood.unused_keys().iter().find(|key| is_given(key)) {
            let problem = format!("it has no effect with likelihood {}", likelihood.name());
            return Err(origin.error(key, problem, "leave it out, or choose --likelihood negative-binomial"));
        }
        if let Some(key) = given.iter().find(|key| key.starts_with("simulation."))
            && data.data.is_some()
        {
            return Err(origin.error(
                key,
                "a simulation was asked for, but data are given",
                "leave out either --data or the settings of the simulation",
            ));
        }
        if data.data.is_none()
            && let Some(key) = DATA_KEYS.iter().find(|key| is_given(key))
        {
            return Err(origin.error(key, "it describes a data file, but none is given", "add --data FILE"));
        }
        if data.data.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(origin.error("data", "the name of the file is empty", "give the path of a data file"));
        }
        if data.genes.is_some() && data.top_genes.is_some() {
            let problem = "a file of genes is given too, which says which genes are used";
            return Err(origin.error("top_genes", problem, "leave out either --genes or --top-genes"));
        }
        if output.out.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(origin.error("out", "the name of the folder is empty", "give the path of a results folder"));
        }

        let seed = check.seed("seed", execution.seed, 0)?;
        let simulation = match data.data {
            Some(_) => None,
            None => Some(simulation.check_with(&check, seed)?),
        };
        let threads = match execution.threads {
            None => None,
            given => Some(check.whole("threads", given, 1, 1, 1024)?),
        };
        let alpha = match model.alpha {
            None => None,
            // Without a spike-and-slab prior alpha is the weight of a penalty, which may be absent.
            given if method == Method::Svae => Some(check.number("alpha", given, 0.0, Range::closed(0.0, 1e9))?),
            given => Some(check.number("alpha", given, 1.0, Range::above(0.0, 1e9))?),
        };
        let default_beta = if method == Method::BetaVae { 10.0 } else { 1.0 };

        let mut config = Config {
            label_key: check.text("label_key", data.label_key)?,
            batch_key: check.text("batch_key", data.batch_key)?,
            categorical_covariates: check.columns("categorical_covariates", data.categorical_covariates)?,
            continuous_covariates: check.columns("continuous_covariates", data.continuous_covariates)?,
            size_factor_key: check.text("size_factor_key", data.size_factor_key)?,
            drop_empty_cells: data.drop_empty_cells.unwrap_or(false),
            layer: check.text("layer", data.layer)?,
            genome: check.text("genome", data.genome)?,
            labels: check.file("labels", data.labels)?,
            control: check.columns("control", data.control)?,
            genes: check.file("genes", data.genes)?,
            top_genes: match data.top_genes {
                None => None,
                given => Some(check.whole("top_genes", given, 1, 1, 10_000_000)?),
            },
            min_cells_per_label: check.whole("min_cells_per_label", data.min_cells_per_label, 1, 1, 1_000_000_000)?,
            min_counts: check.whole("min_counts", data.min_counts, 0, 0, 1_000_000_000)?,
            drop_unlabelled_cells: data.drop_unlabelled_cells.unwrap_or(false),
            stream: data.stream.unwrap_or(false),
            stream_buffer: check.whole(STREAM_BUFFER, data.stream_buffer, 1024, 1, 1 << 24)?,
            data: data.data,
            holdout: check.holdout(training.holdout)?,

            method,
            recipe: model.recipe,
            latents: check.whole("latents", model.latents, 15, 1, 4096)?,
            hidden: check.whole("hidden", model.hidden, 128, 1, 65_536)?,
            layers: check.whole("layers", model.layers, 2, 1, MAX_LAYERS as i64)?,
            alpha,
            beta: check.number("beta", model.beta, default_beta, Range::closed(0.0, 1e6))?,
            mask: model.mask.unwrap_or(MaskKind::Hard),
            temperature: check.number("temperature", model.temperature, 1.0, Range::closed(0.01, 100.0))?,
            ivae_mask: model.ivae_mask.unwrap_or(IvaeMask::Ones),
            latent_distribution: model.latent_distribution.unwrap_or(LatentDistribution::Normal),
            posterior_covariance: model.posterior_covariance.unwrap_or(PosteriorCovariance::Diagonal),
            dropout: check.number("dropout", model.dropout, 0.1, Range::below(0.0, 1.0))?,
            batch_norm: model.batch_norm.unwrap_or(true),
            layer_norm: model.layer_norm.unwrap_or(false),
            likelihood,
            likelihood_epsilon: check.number(
                "likelihood_epsilon",
                model.likelihood_epsilon,
                0.0,
                Range::closed(0.0, 0.01),
            )?,
            encode_covariates: model.encode_covariates.unwrap_or(false),
            deeply_inject_covariates: model.deeply_inject_covariates.unwrap_or(true),

            epochs: match training.epochs {
                None => None,
                given => Some(check.whole("epochs", given, 1, 1, 1_000_000)?),
            },
            batch_size: check.whole("batch_size", training.batch_size, 128, 3, 1_000_000)?,
            warmup_epochs: check.whole("warmup_epochs", training.warmup_epochs, 50, 0, 1_000_000)?,
            patience: check.whole("patience", training.patience, 45, 0, 1_000_000)?,
            learning_rate: check.number("learning_rate", training.learning_rate, 1e-3, Range::above(0.0, 1.0))?,
            schedule: training.schedule.unwrap_or(Schedule::Constant),
            weight_decay: check.number("weight_decay", training.weight_decay, 1e-6, Range::closed(0.0, 1.0))?,
            adam_epsilon: check.number("adam_epsilon", training.adam_epsilon, 0.01, Range::above(0.0, 1.0))?,
            validation_fraction: check.number(
                "validation_fraction",
                training.validation_fraction,
                0.1,
                Range::above(0.0, 0.5),
            )?,
            keep: training.keep.unwrap_or(KeepEpoch::Best),
            prune_masks_below: check.number(
                "prune_masks_below",
                training.prune_masks_below,
                0.0,
                Range::below(0.0, 1.0),
            )?,
            starts: check.whole("starts", training.starts, 1, 1, MOST_STARTS as i64)?,
            trial_share: check.number(TRIAL_SHARE, training.trial_share, 1.0, Range::above(0.0, 1.0))?,
            precision: training.precision.unwrap_or(Precision::F32),

            heldout: training.heldout.unwrap_or(true),
            retraining_epochs: match training.retraining_epochs {
                None => None,
                given => Some(check.whole("retraining_epochs", given, 1, 1, 1_000_000)?),
            },
            particles: check.whole("particles", training.particles, 1000, 1, 1_000_000)?,
            heldout_batch_norm: training.heldout_batch_norm.unwrap_or(HeldoutBatchNorm::Frozen),

            seed,
            threads,
            simd: execution.simd.unwrap_or(Level::Native),
            checkpoint_every: check.number(
                "checkpoint_every",
                interruption.checkpoint_every,
                10.0,
                Range::closed(0.0, 1e6),
            )?,
            time_limit: check.time_limit(interruption.time_limit)?,

            out: output.out,
            overwrite: output.overwrite.unwrap_or(false),
            resume: interruption.resume.unwrap_or(false),
            json: output.json.unwrap_or(false),
            h5ad: output.h5ad.unwrap_or(true),
            quiet: output.quiet.unwrap_or(false),
            log_format: output.log_format.unwrap_or(LogFormat::Text),

            simulation,
        };
        if config.latents == 1 && config.posterior_covariance == PosteriorCovariance::Full {
            if is_given("posterior_covariance") {
                let problem = "a single latent has nothing to correlate with";
                return Err(origin.error("posterior_covariance", problem, "leave it out, or take more --latents"));
            }
            config.posterior_covariance = PosteriorCovariance::Diagonal;
        }
        if config.resume && config.overwrite {
            let remedy = "leave out --overwrite to go on with the run, or --resume to replace it";
            return Err(origin.error("resume", "the run cannot be gone on with and be replaced", remedy));
        }
        if config.resume && config.out.is_none() {
            return Err(origin.error("resume", "it is not said which run is meant", "add --out DIR"));
        }
        if config.quiet && is_given("log_format") {
            return Err(origin.error("log_format", "it has no effect with --quiet", "leave out one of the two"));
        }
        if !config.heldout
            && let Some(key) = HELDOUT_KEYS.iter().find(|key| is_given(key))
        {
            let remedy = "leave it out, or leave out --no-heldout (heldout = false)";
            return Err(origin.error(key, "it has no effect when held-out interventions are skipped", remedy));
        }
        if !config.stream && is_given(STREAM_BUFFER) {
            let remedy = "leave it out, or add --stream (stream = true)";
            return Err(origin.error(STREAM_BUFFER, "it has no effect on counts that are read into memory", remedy));
        }
        if config.starts == 1 && is_given(TRIAL_SHARE) {
            return Err(origin.error(
                TRIAL_SHARE,
                "it has no effect on a single start",
                "leave it out, or add --starts N",
            ));
        }
        if !config.has_covariates()
            && let Some(key) = COVARIATE_KEYS.iter().find(|key| is_given(key))
        {
            return Err(origin.error(
                key,
                "it has no effect without covariates",
                "leave it out, or name covariates with --batch-key, --categorical-covariates or --continuous-covariates",
            ));
        }
        Ok(config)
    }
}

impl RawSimulation {
    /// The checked simulation; `seed` is used where the simulation has none of its own.
    ///
    /// # Errors
    /// [`InputError`] naming the flag that is out of range.
    pub fn check(self, seed: u64) -> Result<Simulation> {
        self.check_with(&Checker(&Origin::default()), seed)
    }

    fn check_with(self, check: &Checker<'_>, seed: u64) -> Result<Simulation> {
        let kind = self.kind.unwrap_or(SimulationKind::SparseShift);
        // An intervention of the `paper` simulator has up to three distinct targets.
        let fewest_latents = if kind == SimulationKind::Paper { 3 } else { 1 };
        let latents = check.whole("simulation.latents", self.latents, 15, fewest_latents, 1000)?;
        let simulation = Simulation {
            kind,
            interventions: check.whole("simulation.interventions", self.interventions, 100, 2, 100_000)?,
            cells: check.whole("simulation.cells", self.cells, 500, 1, 1_000_000)?,
            genes: check.whole("simulation.genes", self.genes, 100, 2, 1_000_000)?,
            latents,
            targeted_latents: match self.targeted_latents {
                None => None,
                given => Some(check.whole("simulation.targeted_latents", given, 1, 1, latents as i64)?),
            },
            seed: check.seed("simulation.seed", self.seed, seed)?,
        };
        let n_cells = simulation.interventions * simulation.cells;
        if n_cells > 100_000_000 {
            return Err(check.0.error(
                "simulation.cells",
                format!("{} interventions of {} cells are {n_cells} cells", simulation.interventions, simulation.cells),
                "simulate at most 100000000 cells",
            ));
        }
        Ok(simulation)
    }
}

#[cfg(test)]
mod tests;
