//! Keys: all of them in order, which belong together, and which have no effect on a run.

use serde::Serialize;

use crate::model::likelihood::Likelihood;
use crate::model::method::Method;
use crate::settings::Config;
use crate::settings::raw::{RawConfig, RawSimulation};

/// Keys that say where and how loudly a run happens, not what it computes: they are not saved with the results.
pub(super) const UNSAVED_KEYS: [&str; 9] =
    ["checkpoint_every", "time_limit", "out", "overwrite", "resume", "h5ad", "json", "quiet", "log_format"];

/// Settings that results do not depend on: how many threads, and where files are (their contents are compared).
pub const INDIFFERENT_KEYS: [&str; 4] = ["threads", "data", "labels", "genes"];

/// Keys that describe a data file.
pub(super) const DATA_KEYS: [&str; 17] = [
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
    "stream_buffer",
];

/// Keys that say how held-out interventions are treated.
pub(super) const HELDOUT_KEYS: [&str; 3] = ["retraining_epochs", "particles", "heldout_batch_norm"];

/// Keys of several starts.
const STARTS_KEYS: [&str; 1] = ["trial_share"];

/// Keys that have no effect on some runs, and why.
struct Idle {
    keys: &'static [&'static str],
    when: fn(&Config) -> bool,
    problem: &'static str,
    remedy: &'static str,
}

const IDLE: [Idle; 6] = [
    Idle {
        keys: &DATA_KEYS,
        when: |config| config.simulation.is_some(),
        problem: "it describes a data file, but none is given",
        remedy: "add --data FILE",
    },
    Idle {
        keys: &["log_format"],
        when: |config| config.output.quiet,
        problem: "it has no effect with --quiet",
        remedy: "leave out one of the two",
    },
    Idle {
        keys: &HELDOUT_KEYS,
        when: |config| !config.training.heldout,
        problem: "it has no effect when held-out interventions are skipped",
        remedy: "leave it out, or leave out --no-heldout (heldout = false)",
    },
    Idle {
        keys: &["stream_buffer"],
        when: |config| config.input.stream.is_none(),
        problem: "it has no effect on counts that are read into memory",
        remedy: "leave it out, or add --stream (stream = true)",
    },
    Idle {
        keys: &STARTS_KEYS,
        when: |config| config.training.starts == 1,
        problem: "it has no effect on a single start",
        remedy: "leave it out, or add --starts N",
    },
    Idle {
        keys: &["encode_covariates", "deeply_inject_covariates"],
        when: |config| !config.has_covariates(),
        problem: "it has no effect without covariates",
        remedy: "leave it out, or name covariates with --batch-key, --categorical-covariates or --continuous-covariates",
    },
];

/// A key that has no effect, what is wrong with giving it, and what to do.
pub(super) struct WithoutEffect {
    pub(super) key: &'static str,
    pub(super) problem: String,
    pub(super) remedy: &'static str,
}

/// The keys that have no effect on a run with these settings: they may not be given, and are not saved.
pub(super) fn without_effect(config: &Config) -> impl Iterator<Item = WithoutEffect> + '_ {
    let method = config.model.method;
    let by_method = unused_by(method).iter().map(move |&key| WithoutEffect {
        key,
        problem: format!("it has no effect with method {}", method.name()),
        remedy: match (method, key) {
            (_, "ivae_mask") => "leave it out, or choose --method ivae",
            (_, "heldout_batch_norm") => "leave it out, or choose a method whose interventions have shifts",
            (Method::Vae, "beta") => "leave it out, or choose --method beta-vae",
            _ => "leave it out, or choose --method svae or svae-plus",
        },
    });
    let likelihood = config.model.likelihood;
    let by_likelihood = unused_with(likelihood).iter().map(move |&key| WithoutEffect {
        key,
        problem: format!("it has no effect with likelihood {}", likelihood.name()),
        remedy: "leave it out, or choose --likelihood negative-binomial",
    });
    let idle = IDLE.iter().filter(|idle| (idle.when)(config)).flat_map(|idle| {
        let of = |&key| WithoutEffect { key, problem: idle.problem.to_owned(), remedy: idle.remedy };
        idle.keys.iter().map(of)
    });
    by_method.chain(by_likelihood).chain(idle)
}

/// Keys that have no effect with a method.
pub(super) fn unused_by(method: Method) -> &'static [&'static str] {
    match method {
        Method::Vae => {
            &["alpha", "beta", "mask", "temperature", "prune_masks_below", "ivae_mask", "heldout_batch_norm"]
        }
        Method::BetaVae => &["alpha", "mask", "temperature", "prune_masks_below", "ivae_mask", "heldout_batch_norm"],
        Method::Ivae => &["alpha", "mask", "temperature", "prune_masks_below"],
        Method::Svae | Method::SvaePlus => &["ivae_mask"],
    }
}

/// Keys that have no effect with a likelihood.
pub(super) fn unused_with(likelihood: Likelihood) -> &'static [&'static str] {
    match likelihood {
        Likelihood::NegativeBinomial => &[],
        Likelihood::Poisson => &["likelihood_epsilon"],
    }
}

/// Keys of a file that flags make useless, and so drop.
pub(super) fn dropped_by(flags: &RawConfig) -> impl Iterator<Item = &'static str> {
    let by_method = flags.model.method.map_or(&[][..], unused_by);
    let by_likelihood = flags.model.likelihood.map_or(&[][..], unused_with);
    let by_heldout = if flags.training.heldout == Some(false) { &HELDOUT_KEYS[..] } else { &[] };
    let by_starts = if flags.training.starts == Some(1) { &STARTS_KEYS[..] } else { &[] };
    by_method.iter().chain(by_likelihood).chain(by_heldout).chain(by_starts).copied()
}

/// Every key of a configuration file, those of the simulation as `simulation.KEY`.
pub(super) fn known_keys() -> Vec<String> {
    let mut keys = fields(&RawConfig::default());
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
    let mut keys = fields(&RawConfig::default());
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
