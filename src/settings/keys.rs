//! Keys: all of them in order, and which belong together.

use serde::Serialize;

use crate::model::likelihood::Likelihood;
use crate::model::method::Method;
use crate::settings::raw::{RawSettings, RawSimulation};

/// Keys that say where and how loudly a run happens, not what it computes: they are not saved with the results.
pub(super) const UNSAVED_KEYS: [&str; 9] =
    ["checkpoint_every", "time_limit", "out", "overwrite", "resume", "h5ad", "json", "quiet", "log_format"];

/// Settings that results do not depend on: how many threads, and where files are (their contents are compared).
pub const INDIFFERENT_KEYS: [&str; 7] = ["threads", "data", "barcodes", "features", "labels", "genes", "guide_targets"];

/// Keys that describe a data file.
pub(super) const DATA_KEYS: [&str; 28] = [
    "label_key",
    "combination_separator",
    "intervention_columns",
    "dose_key",
    "guide_targets",
    "guide_threshold",
    "several_interventions",
    "guide_key",
    "batch_key",
    "categorical_covariates",
    "continuous_covariates",
    "size_factor_key",
    "drop_empty_cells",
    "layer",
    "genome",
    "modality",
    "barcodes",
    "features",
    "labels",
    "control",
    "gene_names",
    "genes",
    "top_genes",
    "min_cells_per_label",
    "min_counts",
    "drop_unlabelled_cells",
    "stream",
    "stream_buffer",
];

/// Keys that say how held-out interventions are treated.
pub(super) const HELDOUT_KEYS: [&str; 3] = ["retraining_epochs", "particles", "heldout_batch_norm"];

/// Keys of masks that are drawn, which the penalty keeps sparse.
pub(super) const GUMBEL_KEYS: [&str; 3] = ["alpha", "temperature", "prune_masks_below"];

/// Keys of a training that integrates masks out.
pub(super) const INTEGRATED_KEYS: [&str; 2] = ["dense_share", "learn_interactions"];

/// Keys of edges that are weighed by their evidence.
pub(super) const EVIDENCE_KEYS: [&str; 2] = ["fdr", "guide_key"];

/// Keys of a network and its training.
const NETWORK_KEYS: [&str; 34] = [
    "recipe",
    "hidden",
    "layers",
    "alpha",
    "beta",
    "mask",
    "temperature",
    "ivae_mask",
    "latent_distribution",
    "posterior_covariance",
    "dropout",
    "batch_norm",
    "layer_norm",
    "likelihood_epsilon",
    "encode_covariates",
    "deeply_inject_covariates",
    "epochs",
    "batch_size",
    "warmup_epochs",
    "patience",
    "learning_rate",
    "schedule",
    "weight_decay",
    "adam_epsilon",
    "keep",
    "dense_share",
    "learn_interactions",
    "prune_masks_below",
    "starts",
    "trial_share",
    "heldout",
    "retraining_epochs",
    "particles",
    "heldout_batch_norm",
];

/// Keys of several starts.
pub(super) const STARTS_KEYS: [&str; 1] = ["trial_share"];

/// Keys that have no effect with a method.
pub(super) fn unused_by(method: Method) -> &'static [&'static str] {
    match method {
        Method::Vae => &[
            "alpha",
            "beta",
            "mask",
            "temperature",
            "dense_share",
            "learn_interactions",
            "prune_masks_below",
            "fdr",
            "ivae_mask",
            "heldout_batch_norm",
        ],
        Method::BetaVae => &[
            "alpha",
            "mask",
            "temperature",
            "dense_share",
            "learn_interactions",
            "prune_masks_below",
            "fdr",
            "ivae_mask",
            "heldout_batch_norm",
        ],
        Method::Ivae => {
            &["alpha", "mask", "temperature", "dense_share", "learn_interactions", "prune_masks_below", "fdr"]
        }
        Method::Svae => &["dense_share", "learn_interactions", "fdr", "ivae_mask"],
        Method::SvaePlus => &["ivae_mask"],
        Method::Pca => &NETWORK_KEYS,
    }
}

/// Keys that have no effect with a likelihood.
pub(super) fn unused_with(likelihood: Likelihood) -> &'static [&'static str] {
    match likelihood {
        Likelihood::NegativeBinomial => &[],
        Likelihood::Poisson => &["likelihood_epsilon"],
    }
}

/// Every key of a configuration file, those of the simulation as `simulation.KEY`.
pub(super) fn known_keys() -> Vec<String> {
    let mut keys = fields(&RawSettings::default());
    keys.retain(|key| key != "simulation");
    keys.extend(simulation_keys().into_iter().map(|key| format!("simulation.{key}")));
    keys
}

/// Keys of the simulation's table, in order.
pub(super) fn simulation_keys() -> Vec<String> {
    fields(&RawSimulation::default())
}

/// The keys of a saved file, in order.
pub(super) fn saved_order() -> Vec<String> {
    let mut keys = fields(&RawSettings::default());
    // Labels held out stand with the data that they are labels of.
    let (from, to) = ("holdout", "method");
    let place = |keys: &[String], wanted: &str| keys.iter().position(|key| key == wanted).expect("a setting");
    let held_out = keys.remove(place(&keys, from));
    keys.insert(place(&keys, to), held_out);
    keys
}

/// Names of the fields of a structure, in order.
fn fields(value: &impl Serialize) -> Vec<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(map)) => map.into_iter().map(|(key, _)| key).collect(),
        _ => unreachable!("settings are an object"),
    }
}

/// Keys that say which cells are read or simulated, the simulation's with its prefix.
pub(super) fn data_keys() -> Vec<String> {
    let simulation = simulation_keys().into_iter().map(|key| format!("simulation.{key}"));
    let file = ["data"].iter().chain(&DATA_KEYS).map(|&key| key.to_owned());
    file.chain(simulation).collect()
}

/// A place in the order of axes: the method first, seeds last, the rest as in a configuration file.
pub(super) fn rank(key: &str, known: &[String]) -> usize {
    match key {
        "method" => 0,
        "simulation.seed" => known.len() + 1,
        "seed" => known.len() + 2,
        _ => 1 + known.iter().position(|name| name == key).unwrap_or(known.len()),
    }
}

/// The place of a key in the order of a grid's axes: the method first, seeds last, the rest as in a configuration file.
pub(crate) fn rank_of(key: &str) -> usize {
    rank(key, &known_keys())
}
