//! Raw settings: every key optional, declared once for the configuration file and the command line.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::simulate::SimulationKind;
use crate::error::{Error, InputError, Result};
use crate::model::architecture::{LatentDistribution, MaskKind, PosteriorCovariance};
use crate::model::likelihood::Likelihood;
use crate::model::method::{IvaeMask, Method};
use crate::numerics::real::Precision;
use crate::numerics::simd::Level;
use crate::settings::{HELDOUT_KEYS, Origin, Recipe, TRIAL_SHARE};
use crate::system::console::LogFormat;
use crate::training::history::KeepEpoch;
use crate::training::schedule::Schedule;
use crate::training::shift_fit::HeldoutBatchNorm;
use crate::words::nearest;

/// Everything that a configuration file or the flags of `svae-cpu run` may say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct RawConfig {
    /// The data file.
    #[serde(flatten)]
    #[command(flatten)]
    pub data: RawData,
    /// The model.
    #[serde(flatten)]
    #[command(flatten)]
    pub model: RawModel,
    /// The training.
    #[serde(flatten)]
    #[command(flatten)]
    pub training: RawTraining,
    /// Seed and threads.
    #[serde(flatten)]
    #[command(flatten)]
    pub execution: RawExecution,
    /// Stopping early and going on.
    #[serde(flatten)]
    #[command(flatten)]
    pub interruption: RawInterruption,
    /// Results and messages.
    #[serde(flatten)]
    #[command(flatten)]
    pub output: RawOutput,
    /// The simulation, a table of its own in the file.
    #[serde(default)]
    #[command(flatten)]
    pub simulation: RawSimulation,
}

/// Settings of the data file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct RawData {
    /// Data file: AnnData (.h5ad), 10x Genomics (.h5), a matrix-market folder or .npz; without it, data are simulated
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Column of obs that holds the intervention of each cell
    #[arg(long, value_name = "COLUMN")]
    pub label_key: Option<String>,
    /// Column of obs that holds the batch of each cell
    #[arg(long, value_name = "COLUMN")]
    pub batch_key: Option<String>,
    /// Columns of obs with further categorical covariates, separated by commas
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub categorical_covariates: Option<Vec<String>>,
    /// Columns of obs with continuous covariates, separated by commas
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub continuous_covariates: Option<Vec<String>>,
    /// Column of obs with the size factor (library size) of each cell, instead of its total count
    #[arg(long, value_name = "COLUMN")]
    pub size_factor_key: Option<String>,
    /// Leave out cells without any count (and say how many) instead of refusing the data
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub drop_empty_cells: Option<bool>,
    /// Matrix of an AnnData file that holds the raw counts: a layer, or raw (by default X)
    #[arg(long, value_name = "LAYER")]
    pub layer: Option<String>,
    /// Genome to read from a 10x file of several (by default all, where they share one matrix)
    #[arg(long, value_name = "GENOME")]
    pub genome: Option<String>,
    /// Table of the cells' labels (CSV or TSV): a row per barcode; its columns may be named wherever one of obs may
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Labels of control cells, separated by commas: no intervention acts on them, their latents have the prior N(0, I)
    #[arg(long, value_name = "LABEL,...", value_delimiter = ',')]
    pub control: Option<Vec<String>>,
    /// Use only the genes listed in this file, one name or identifier per line
    #[arg(long, value_name = "FILE")]
    pub genes: Option<PathBuf>,
    /// Use only this many genes, the most variable ones (as seurat_v3 finds them, within each batch if --batch-key is given)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub top_genes: Option<i64>,
    /// Leave out interventions with fewer cells, with these cells [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min_cells_per_label: Option<i64>,
    /// Leave out cells with a lower total count over all genes of the file [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min_counts: Option<i64>,
    /// Leave out cells without an intervention label instead of refusing the data
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub drop_unlabelled_cells: Option<bool>,
    /// Leave the counts of an .h5ad file on disk and read them as they are needed, for screens larger than memory
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub stream: Option<bool>,
    /// Megabytes of counts in memory with --stream; more mix distant cells better [default: 1024]
    #[arg(long, value_name = "MB", allow_negative_numbers = true)]
    pub stream_buffer: Option<i64>,
}

/// Settings of the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct RawModel {
    /// Method to train [default: svae-plus]
    #[arg(long, value_name = "METHOD")]
    pub method: Option<Method>,
    /// Defaults of all settings that are not given: those of the published code, or tuned ones (by default neither)
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<Recipe>,
    /// Number of latents [default: 15]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub latents: Option<i64>,
    /// Width of the hidden layers [default: 128]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub hidden: Option<i64>,
    /// Number of hidden layers of the encoder, and of the decoder [default: 2]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub layers: Option<i64>,
    /// Sparsity of the mask: higher values let interventions target fewer latents (svae, svae-plus; by default the
    /// number of interventions)
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub alpha: Option<f64>,
    /// Weight of the KL divergence of the latents (by default 10 for beta-vae, 1 for the others; vae has none)
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub beta: Option<f64>,
    /// Mask sample in the forward pass (svae, svae-plus) [default: hard]
    #[arg(long, value_name = "KIND")]
    pub mask: Option<MaskKind>,
    /// Temperature of the Gumbel-sigmoid mask (svae, svae-plus) [default: 1.0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Mask of the iVAE: ones (the paper), or learned without penalty (the reference) [default: ones]
    #[arg(long, value_name = "KIND")]
    pub ivae_mask: Option<IvaeMask>,
    /// Distribution of the latents [default: normal]
    #[arg(long, value_name = "KIND")]
    pub latent_distribution: Option<LatentDistribution>,
    /// Covariance of the latents in a cell's posterior [default: diagonal]
    #[arg(long, value_name = "KIND")]
    pub posterior_covariance: Option<PosteriorCovariance>,
    /// Dropout rate in the encoder [default: 0.1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub dropout: Option<f64>,
    /// Batch normalisation of the hidden layers [default: true]
    #[arg(long, value_name = "BOOL")]
    pub batch_norm: Option<bool>,
    /// Layer normalisation of the hidden layers [default: false]
    #[arg(long, value_name = "BOOL")]
    pub layer_norm: Option<bool>,
    /// Distribution of the counts about their means [default: negative-binomial]
    #[arg(long, value_name = "KIND")]
    pub likelihood: Option<Likelihood>,
    /// Constant inside the logarithms of the negative binomial; 1e-8 as in the reference implementation [default: 0.0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub likelihood_epsilon: Option<f64>,
    /// Give the covariates to the encoder too [default: false]
    #[arg(long, value_name = "BOOL")]
    pub encode_covariates: Option<bool>,
    /// Give the covariates to every hidden layer, not only to the first [default: true]
    #[arg(long, value_name = "BOOL")]
    pub deeply_inject_covariates: Option<bool>,
}

/// Settings of the training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct RawTraining {
    /// Labels held out of the training: NAME,NAME,... or @FILE with one label per line (by default the last fifth of
    /// a simulation's interventions, and none of a data file's; an empty list holds out none)
    #[arg(long, value_name = "LABEL,...|@FILE", value_delimiter = ',')]
    pub holdout: Option<Vec<String>>,
    /// Largest number of epochs (default: 500, or enough for 20,000 steps if that is more)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub epochs: Option<i64>,
    /// Cells per minibatch [default: 128]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: Option<i64>,
    /// Epochs over which the weight of the KL divergence rises from 0 to 1 [default: 50]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub warmup_epochs: Option<i64>,
    /// Stop after this many epochs without a better validation ELBO; 0 never stops early [default: 45]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub patience: Option<i64>,
    /// Adam's step size [default: 0.001]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub learning_rate: Option<f64>,
    /// Course of the step size: constant, falling to a hundredth along half a cosine over the epochs, or doing so over
    /// their second half [default: constant]
    #[arg(long, value_name = "COURSE")]
    pub schedule: Option<Schedule>,
    /// L2 penalty, added to the gradient as weight times this [default: 1e-6]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub weight_decay: Option<f64>,
    /// Adam's epsilon [default: 0.01]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub adam_epsilon: Option<f64>,
    /// Fraction of the training cells set aside for validation [default: 0.1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub validation_fraction: Option<f64>,
    /// Epoch whose weights are kept, by validation ELBO or simply the last [default: best]
    #[arg(long, value_name = "EPOCH")]
    pub keep: Option<KeepEpoch>,
    /// Four times in the training, turn the latents to where interventions act on fewer of them, and switch off the
    /// masks whose probability is lower; those that matter come back; 0: do neither [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub prune_masks_below: Option<f64>,
    /// Trainings from different starting values, of which the one with the lowest validation ELBO is kept [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub starts: Option<i64>,
    /// Share of the epochs after which only the best of several starts goes on; 1: each is trained to its end [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub trial_share: Option<f64>,
    /// Floating-point type of the training [default: f32]
    #[arg(long, value_name = "TYPE")]
    pub precision: Option<Precision>,
    /// Skip what follows the training when interventions are held out: retraining with fixed masks, fitting their
    /// shifts, and bounds on their cells
    #[arg(long = "no-heldout", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = negated)]
    pub heldout: Option<bool>,
    /// Largest number of epochs of the retraining with fixed masks (by default that of --epochs)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub retraining_epochs: Option<i64>,
    /// Samples per cell of the importance-weighted bound on held-out cells [default: 1000]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub particles: Option<i64>,
    /// Running statistics of batch normalisation while held-out shifts are fitted; drift is what the reference
    /// implementation's baselines do [default: frozen]
    #[arg(long, value_name = "KIND")]
    pub heldout_batch_norm: Option<HeldoutBatchNorm>,
}

/// The value of a setting whose flag says its opposite.
fn negated(text: &str) -> std::result::Result<bool, std::str::ParseBoolError> {
    text.parse::<bool>().map(|value| !value)
}

/// Seed and threads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Execution")]
pub struct RawExecution {
    /// Seed of every random stream [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<i64>,
    /// Number of threads (by default RAYON_NUM_THREADS, else all that the machine allows)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<i64>,
    /// What the last digits may depend on: native, on the kind of processor; baseline, on nothing [default: native]
    #[arg(long, value_name = "LEVEL")]
    pub simd: Option<Level>,
}

/// Stopping early and going on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Interruptions")]
pub struct RawInterruption {
    /// Go on with the run that the results folder holds, if it holds one
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub resume: Option<bool>,
    /// Minutes between two checkpoints; 0 writes one after every epoch [default: 10]
    #[arg(long, value_name = "MINUTES", allow_negative_numbers = true)]
    pub checkpoint_every: Option<f64>,
    /// Stop after this time, such as 11h50m, 90m or 600s, with a checkpoint and exit code 75 (by default never)
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    pub time_limit: Option<String>,
}

/// Where results go and what is printed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct RawOutput {
    /// Results folder (by default the next numbered folder under results/)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace a run that the results folder already holds
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub overwrite: Option<bool>,
    /// Write no results.h5ad, the copy of the data with the results in it for Python
    #[arg(long = "no-h5ad", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = negated)]
    pub h5ad: Option<bool>,
    /// Print the metrics as one JSON object on standard output, and nothing else there
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub json: Option<bool>,
    /// Print no progress
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub quiet: Option<bool>,
    /// Progress as text for people, or as one JSON object per line and event [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Settings of the simulation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Simulation (without --data)")]
pub struct RawSimulation {
    /// Simulator [default: sparse-shift]
    #[arg(id = "sim_kind", long = "simulation", value_name = "KIND")]
    pub kind: Option<SimulationKind>,
    /// Number of interventions [default: 100]
    #[arg(id = "sim_interventions", long = "sim-interventions", value_name = "N", allow_negative_numbers = true)]
    pub interventions: Option<i64>,
    /// Number of cells of each intervention [default: 500]
    #[arg(id = "sim_cells", long = "sim-cells", value_name = "N", allow_negative_numbers = true)]
    pub cells: Option<i64>,
    /// Number of genes [default: 100]
    #[arg(id = "sim_genes", long = "sim-genes", value_name = "N", allow_negative_numbers = true)]
    pub genes: Option<i64>,
    /// Number of true latents [default: 15]
    #[arg(id = "sim_latents", long = "sim-latents", value_name = "N", allow_negative_numbers = true)]
    pub latents: Option<i64>,
    /// Let interventions target only the first N latents (by default all of them)
    #[arg(id = "sim_targeted_latents", long = "sim-targeted-latents", value_name = "N", allow_negative_numbers = true)]
    pub targeted_latents: Option<i64>,
    /// Seed of the simulator (by default that of --seed)
    #[arg(id = "sim_seed", long = "sim-seed", value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<i64>,
}

impl RawConfig {
    /// Dotted names of the keys that have a value.
    pub(crate) fn given_keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for (key, value) in self.to_table()? {
            match value {
                toml::Value::Table(table) => keys.extend(table.keys().map(|name| format!("{key}.{name}"))),
                _ => keys.push(key),
            }
        }
        Ok(keys)
    }

    /// These settings, with those of `flags` in their place where `flags` has any.
    ///
    /// Flags that name data replace a simulation described in the file, and the other way round; a flag that names the
    /// method or the likelihood drops the file's settings that it does not use, as `--no-heldout` and `--starts 1` do theirs.
    pub(crate) fn overlaid(mut self, flags: Self) -> Result<Self> {
        if flags.data.data.is_some() {
            self.simulation = RawSimulation::default();
        } else if flags.simulation != RawSimulation::default() {
            self.data = RawData::default();
        }
        let mut table = self.to_table()?;
        let of_method = flags.model.method.map_or(&[][..], Method::unused_keys);
        let of_likelihood = flags.model.likelihood.map_or(&[][..], Likelihood::unused_keys);
        for key in of_method.iter().chain(of_likelihood) {
            table.remove(*key);
        }
        if flags.training.heldout == Some(false) {
            HELDOUT_KEYS.iter().for_each(|key| drop(table.remove(*key)));
        }
        if flags.training.starts == Some(1) {
            table.remove(TRIAL_SHARE);
        }
        for (key, value) in flags.to_table()? {
            match (table.get_mut(&key), value) {
                (Some(toml::Value::Table(below)), toml::Value::Table(above)) => below.extend(above),
                (_, value) => {
                    table.insert(key, value);
                }
            }
        }
        Ok(table.try_into().expect("both tables were written from this type"))
    }

    pub(crate) fn to_table(&self) -> Result<toml::Table> {
        let (data, out) = (&self.data, &self.output.out);
        let paths = [(&data.data, "--data"), (&data.labels, "--labels"), (&data.genes, "--genes"), (out, "--out")];
        for (path, flag) in paths {
            if path.as_ref().is_some_and(|path| path.to_str().is_none()) {
                return Err(InputError::new("the path is not valid UTF-8", "rename the file or folder")
                    .at(flag)
                    .into());
            }
        }
        Ok(toml::Table::try_from(self).expect("settings with UTF-8 paths can be written as TOML"))
    }
}

/// Names of the top-level keys of [`crate::settings::Config`], in its order.
pub(crate) fn config_keys() -> Vec<String> {
    json_keys(&crate::settings::Config::default())
}

pub(crate) fn json_keys(value: &impl Serialize) -> Vec<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(map)) => map.into_iter().map(|(key, _)| key).collect(),
        _ => unreachable!("settings are an object"),
    }
}

/// Every key of a configuration file, those of the simulation as `simulation.KEY`.
pub(crate) fn known_keys() -> Vec<String> {
    let mut keys = json_keys(&RawConfig::default());
    keys.retain(|key| key != "simulation");
    keys.extend(json_keys(&RawSimulation::default()).into_iter().map(|key| format!("simulation.{key}")));
    keys
}

/// Reads the configuration file at `path`, refusing unknown keys and values of the wrong type.
pub(crate) fn read(path: &Path) -> Result<(RawConfig, Origin)> {
    parse(&read_text(path)?, path)
}

/// The text of the file at `path`.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| -> Error {
        match source.kind() {
            std::io::ErrorKind::NotFound => InputError::new(
                "there is no such file",
                "give the path of a configuration file in TOML, or set everything by flags",
            )
            .in_file(path)
            .into(),
            _ => {
                InputError::new(format!("it cannot be read: {source}"), "give the path of a configuration file in TOML")
                    .in_file(path)
                    .into()
            }
        }
    })
}

/// Number of the line, from 1, of a place in a text.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    text[..offset.min(text.len())].matches('\n').count() + 1
}

/// An error of the TOML reader, located.
pub(crate) fn syntax_error(error: &toml::de::Error, text: &str, path: &Path) -> Error {
    let mut input = InputError::new(
        format!("this is not valid TOML: {}", error.message().replace('\n', ", ")),
        "write one `key = value` per line",
    )
    .in_file(path);
    if let Some(span) = error.span() {
        input = input.at(format!("line {}", line_at(text, span.start)));
    }
    input.into()
}

/// What is wrong with a key and its value, and what to do: (problem, remedy).
pub(crate) fn fault(key: &str, value: &toml::Value, known: &[String]) -> Option<(String, String)> {
    if !known.iter().any(|name| name == key) {
        let remedy = match nearest_key(key, known) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "remove it; `svae-cpu run --help` lists the flags, which are the keys".to_owned(),
        };
        return Some((format!("there is no setting `{key}`"), remedy));
    }
    let mut single = toml::Table::new();
    insert(&mut single, key, value.clone());
    let error = single.try_into::<RawConfig>().err()?;
    Some((format!("`{key}` cannot be used: {}", in_words(error.message())), example_of(key)))
}

/// Sets a dotted key of a table of settings.
pub(crate) fn insert(table: &mut toml::Table, key: &str, value: toml::Value) {
    match key.strip_prefix("simulation.") {
        Some(name) => {
            let below = table.entry("simulation").or_insert_with(|| toml::Table::new().into());
            below.as_table_mut().expect("a table").insert(name.to_owned(), value);
        }
        None => {
            table.insert(key.to_owned(), value);
        }
    }
}

/// The settings in `text`, the contents of `path`.
pub(crate) fn parse(text: &str, path: &Path) -> Result<(RawConfig, Origin)> {
    let syntax = |error: toml::de::Error| syntax_error(&error, text, path);
    let document = toml::de::DeTable::parse(text).map_err(syntax)?;
    let mut lines = Vec::new();
    for (key, value) in document.get_ref() {
        let name: &str = key.get_ref();
        match value.get_ref() {
            toml::de::DeValue::Table(table) if name == "simulation" => {
                for key in table.keys() {
                    lines.push((format!("simulation.{}", key.get_ref()), line_at(text, key.span().start)));
                }
            }
            _ => lines.push((name.to_owned(), line_at(text, key.span().start))),
        }
    }
    // The file's own order, so that the first mistake is the one reported.
    lines.sort_by_key(|(_, line)| *line);

    let known = known_keys();
    let values: toml::Table = toml::from_str(text).map_err(syntax)?;
    for (key, line) in &lines {
        let value = match key.strip_prefix("simulation.") {
            Some(name) => &values["simulation"][name],
            None => &values[key],
        };
        if let Some((problem, remedy)) = fault(key, value, &known) {
            return Err(InputError::new(problem, remedy).in_file(path).at(format!("line {line}")).into());
        }
    }
    let raw = values.try_into().map_err(syntax)?;
    Ok((raw, Origin { file: Some(path.to_owned()), lines, flags: Vec::new() }))
}

/// The known key nearest to `key`, whether it was written with dashes, as a flag or in the wrong table.
fn nearest_key<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let plain = key.replace('-', "_");
    let bare = plain.strip_prefix("simulation.").or(plain.strip_prefix("sim_")).unwrap_or(&plain);
    let leaf = |name: &'a str| name.strip_prefix("simulation.").unwrap_or(name);
    if let Some(same) = known.iter().find(|name| ***name == plain) {
        return Some(same);
    }
    let in_simulation = bare != plain;
    if let Some(same) = known.iter().find(|name| leaf(name) == bare && (!in_simulation || name.starts_with("sim"))) {
        return Some(same);
    }
    let found = nearest(bare, known.iter().map(|name| leaf(name)))?;
    known
        .iter()
        .find(|name| leaf(name) == found && in_simulation == name.starts_with("simulation."))
        .or_else(|| known.iter().find(|name| leaf(name) == found))
        .map(String::as_str)
}

/// A deserialiser's message with the names of Rust types put into words.
fn in_words(message: &str) -> String {
    let mut text = message.trim().replace('\n', ", ");
    for (name, words) in [
        ("expected i64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected a boolean", "expected true or false"),
        ("expected a sequence", "expected a list, such as [\"A\", \"B\"]"),
        ("expected path string", "expected a path in quotes"),
        ("expected a string", "expected text in quotes"),
        ("invalid type: ", "it is "),
        ("string \"", "the text \""),
        ("floating point", "the number"),
    ] {
        text = text.replace(name, words);
    }
    text
}

fn example_of(key: &str) -> String {
    let name = key.strip_prefix("simulation.").unwrap_or(key);
    format!("see {} in `svae-cpu run --help` for what `{name}` may be", crate::settings::flag_of(key))
}
