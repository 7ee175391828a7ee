//! Which keys have no effect on a run: they may not be given, and are not saved.

use crate::model::method::Method;
use crate::settings::config::Settings;
use crate::settings::keys::{
    DATA_KEYS, EVIDENCE_KEYS, GUMBEL_KEYS, HELDOUT_KEYS, INTEGRATED_KEYS, STARTS_KEYS, unused_by, unused_with,
};

/// Keys that have no effect on some runs, and why.
struct Idle {
    keys: &'static [&'static str],
    when: fn(&Settings) -> bool,
    problem: &'static str,
    remedy: &'static str,
}

const IDLE: [Idle; 11] = [
    Idle {
        keys: &DATA_KEYS,
        when: |config| config.simulation.is_some(),
        problem: "it describes a data file, but none is given",
        remedy: "add --data FILE",
    },
    Idle {
        keys: &["label_key", "combination_separator", "dose_key"],
        when: |config| config.input.reads_no_label(),
        problem: "it is about labels, but interventions are read from columns or from counts of guides",
        remedy: "leave it out, or leave out --intervention-columns and --guide-threshold",
    },
    Idle {
        keys: &["several_interventions"],
        when: |config| {
            let input = &config.input;
            !input.reads_no_label() && input.combination_separator.is_none() && input.labels.is_none()
        },
        problem: "it has no effect where each label is one intervention",
        remedy: "leave it out, or add --combination-separator",
    },
    Idle {
        keys: &GUMBEL_KEYS,
        when: |config| config.model.integrates_mask(),
        problem: "it has no effect where masks are integrated out",
        remedy: "leave it out, or add --mask hard (mask = \"hard\")",
    },
    Idle {
        keys: &INTEGRATED_KEYS,
        when: |config| !config.model.integrates_mask(),
        problem: "it has no effect where masks are not integrated out",
        remedy: "leave it out, or choose --method svae-plus with --mask integrated",
    },
    Idle {
        keys: &EVIDENCE_KEYS,
        when: |config| !config.model.weighs_edges(),
        problem: "it has no effect where edges are not weighed by their evidence",
        remedy: "leave it out, or choose --method svae-plus with --mask integrated, or --method pca",
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
        remedy: "leave it out, or name covariates with --batch-key, --categorical-covariates or --continuous-covariates \
                 (of a simulation: --sim-batches)",
    },
];

/// A key that has no effect, what is wrong with giving it, and what to do.
pub(super) struct WithoutEffect {
    pub(super) key: &'static str,
    pub(super) problem: String,
    pub(super) remedy: &'static str,
}

/// The keys that have no effect on a run with these settings: they may not be given, and are not saved.
pub(super) fn without_effect(config: &Settings) -> impl Iterator<Item = WithoutEffect> + '_ {
    let method = config.model.method;
    let by_method = unused_by(method).iter().map(move |&key| WithoutEffect {
        key,
        problem: format!("it has no effect with method {}", method.name()),
        remedy: match (method, key) {
            (Method::Pca, _) => "leave it out, or choose a method that trains a network",
            (_, "dense_share" | "learn_interactions") => "leave it out, or choose --method svae-plus",
            (_, "fdr") => "leave it out, or choose --method svae-plus or --method pca",
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
