//! One test per flag, and what a configuration file may and may not say.

use crate::data::dataset::InterventionRows;
use crate::model::architecture::{MaskKind, PosteriorCovariance};
use crate::model::method::{IvaeMask, Method};
use crate::settings::time_limit::TimeLimit;
use crate::training::history::KeepEpoch;
use crate::training::schedule::Schedule;
use clap::{Args as _, FromArgMatches as _};

use crate::error::Result;
use crate::settings::config::Capacity;
use crate::settings::keys::known_keys;
use crate::settings::origin::flag_of;
use crate::settings::*;
use crate::training::shift_fit::HeldoutBatchNorm;
use std::path::Path;

/// Parses `flags` as `svae-cpu run` does.
fn raw(flags: &[&str]) -> RawSettings {
    let command = RawSettings::augment_args(clap::Command::new("run").no_binary_name(true));
    let matches = command.try_get_matches_from(flags).expect("the flags parse");
    RawSettings::from_arg_matches(&matches).expect("the flags parse")
}

fn config(flags: &[&str]) -> Result<Settings> {
    Settings::load(None, raw(flags))
}

fn message(result: Result<Settings>) -> String {
    let error = result.expect_err("the settings must be refused");
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

/// Settings in a file with the given text.
fn from_file(text: &str, flags: &[&str]) -> Result<Settings> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("settings.toml");
    std::fs::write(&path, text).expect("a temporary file");
    Settings::load(Some(&path), raw(flags))
}

/// Settings as (dotted key, value in TOML).
fn flat(config: &Settings) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (key, value) in toml::Table::try_from(config).expect("settings are a table") {
        match value {
            toml::Value::Table(table) => all.extend(table.iter().map(|(k, v)| (format!("{key}.{k}"), v.to_string()))),
            _ => all.push((key, value.to_string())),
        }
    }
    all
}

/// Checks that `flags` added to `base` change `key` to `expected` and nothing else, and that the key in a file does too.
fn sets(base: &[&str], flags: &[&str], key: &str, expected: &str) {
    let before = flat(&config(base).expect("the base is valid"));
    let after_config = config(&[base, flags].concat()).expect("the flag is valid");
    let after = flat(&after_config);
    let value = after.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    assert_eq!(value, Some(expected), "{flags:?}");
    let others = |all: &[(String, String)]| -> Vec<(String, String)> {
        all.iter().filter(|(name, _)| name != key).cloned().collect()
    };
    assert_eq!(others(&before), others(&after), "{flags:?} must change {key} only");
    assert!(!before.contains(&(key.to_owned(), expected.to_owned())), "{flags:?} must change {key}");

    let text = match key.strip_prefix("simulation.") {
        Some(name) => format!("[simulation]\n{name} = {expected}\n"),
        None => format!("{key} = {expected}\n"),
    };
    assert_eq!(from_file(&text, base).expect("the key is valid in a file"), after_config, "{text}");
}

/// One test for each flag, and a list of them all.
macro_rules! flag_tests {
    ($($name:ident: $base:expr, $flags:expr => $key:literal = $expected:expr;)*) => {
        $(#[test]
        fn $name() {
            sets(&$base, &$flags, $key, $expected);
        })*

        /// Keys with a test above.
        const TESTED: &[&str] = &[$($key),*];
    };
}

/// Masks that are drawn.
const HARD: [&str; 2] = ["--mask", "hard"];
const FILE: [&str; 2] = ["--data", "screen.h5ad"];
const SEPARATOR: [&str; 4] = ["--data", "screen.h5ad", "--combination-separator", "+"];
const STREAM: [&str; 3] = ["--data", "screen.h5ad", "--stream"];
const STARTS: [&str; 2] = ["--starts", "3"];
const COVARIATE: [&str; 4] = ["--data", "screen.h5ad", "--batch-key", "lane"];

flag_tests! {
    label_key: FILE, ["--label-key", "gene"] => "label_key" = "\"gene\"";
    combination_separator: FILE, ["--combination-separator", " || "] => "combination_separator" = "\" || \"";
    intervention_columns: FILE, ["--intervention-columns", "guide_*,A"]
        => "intervention_columns" = "[\"guide_*\", \"A\"]";
    dose_key: FILE, ["--dose-key", "dose_val"] => "dose_key" = "\"dose_val\"";
    guide_targets: FILE, ["--guide-targets", "feature_reference.csv"] => "guide_targets" = "\"feature_reference.csv\"";
    guide_threshold: FILE, ["--guide-threshold", "5"] => "guide_threshold" = "5";
    several_interventions: SEPARATOR, ["--several-interventions", "drop"] => "several_interventions" = "\"drop\"";
    guide_key: FILE, ["--guide-key", "guide"] => "guide_key" = "\"guide\"";
    batch_key: FILE, ["--batch-key", "lane"] => "batch_key" = "\"lane\"";
    categorical_covariates: FILE, ["--categorical-covariates", "a,b"] => "categorical_covariates" = "[\"a\", \"b\"]";
    continuous_covariates: FILE, ["--continuous-covariates", "age"] => "continuous_covariates" = "[\"age\"]";
    size_factor_key: FILE, ["--size-factor-key", "ncounts"] => "size_factor_key" = "\"ncounts\"";
    drop_empty_cells: FILE, ["--drop-empty-cells"] => "drop_empty_cells" = "true";
    layer: FILE, ["--layer", "counts"] => "layer" = "\"counts\"";
    genome: FILE, ["--genome", "GRCh38"] => "genome" = "\"GRCh38\"";
    modality: FILE, ["--modality", "rna"] => "modality" = "\"rna\"";
    barcodes: FILE, ["--barcodes", "barcodes.tsv"] => "barcodes" = "\"barcodes.tsv\"";
    features: FILE, ["--features", "genes.tsv"] => "features" = "\"genes.tsv\"";
    labels: FILE, ["--labels", "labels.csv"] => "labels" = "\"labels.csv\"";
    control: FILE, ["--control", "NT,safe"] => "control" = "[\"NT\", \"safe\"]";
    gene_names: FILE, ["--gene-names", "gene_symbols"] => "gene_names" = "\"gene_symbols\"";
    genes: FILE, ["--genes", "genes.txt"] => "genes" = "\"genes.txt\"";
    top_genes: FILE, ["--top-genes", "2000"] => "top_genes" = "2000";
    min_cells_per_label: FILE, ["--min-cells-per-label", "20"] => "min_cells_per_label" = "20";
    min_counts: FILE, ["--min-counts", "500"] => "min_counts" = "500";
    drop_unlabelled_cells: FILE, ["--drop-unlabelled-cells"] => "drop_unlabelled_cells" = "true";
    stream: FILE, ["--stream"] => "stream" = "true";
    stream_buffer: STREAM, ["--stream-buffer", "64"] => "stream_buffer" = "64";
    holdout: [], ["--holdout", "a,b"] => "holdout" = "[\"a\", \"b\"]";
    method: HARD, ["--method", "svae"] => "method" = "\"svae\"";
    latents: [], ["--latents", "7"] => "latents" = "7";
    hidden: [], ["--hidden", "64"] => "hidden" = "64";
    layers: [], ["--layers", "3"] => "layers" = "3";
    alpha: HARD, ["--alpha", "12.5"] => "alpha" = "12.5";
    beta: [], ["--beta", "4"] => "beta" = "4.0";
    mask: ["--method", "svae"], ["--mask", "soft"] => "mask" = "\"soft\"";
    temperature: HARD, ["--temperature", "0.5"] => "temperature" = "0.5";
    posterior_covariance: [], ["--posterior-covariance", "full"] => "posterior_covariance" = "\"full\"";
    latent_distribution: [], ["--latent-distribution", "logistic-normal"]
        => "latent_distribution" = "\"logistic-normal\"";
    dropout: [], ["--dropout", "0.2"] => "dropout" = "0.2";
    batch_norm: [], ["--batch-norm", "false"] => "batch_norm" = "false";
    layer_norm: [], ["--layer-norm", "true"] => "layer_norm" = "true";
    likelihood: [], ["--likelihood", "poisson"] => "likelihood" = "\"poisson\"";
    likelihood_epsilon: [], ["--likelihood-epsilon", "1e-8"] => "likelihood_epsilon" = "0.00000001";
    encode_covariates: COVARIATE, ["--encode-covariates", "true"] => "encode_covariates" = "true";
    deeply_inject_covariates: COVARIATE, ["--deeply-inject-covariates", "false"]
        => "deeply_inject_covariates" = "false";
    epochs: [], ["--epochs", "12"] => "epochs" = "12";
    batch_size: [], ["--batch-size", "256"] => "batch_size" = "256";
    warmup_epochs: [], ["--warmup-epochs", "0"] => "warmup_epochs" = "0";
    patience: [], ["--patience", "7"] => "patience" = "7";
    learning_rate: [], ["--learning-rate", "0.01"] => "learning_rate" = "0.01";
    schedule: [], ["--schedule", "cosine"] => "schedule" = "\"cosine\"";
    weight_decay: [], ["--weight-decay", "0"] => "weight_decay" = "0.0";
    adam_epsilon: [], ["--adam-epsilon", "1e-8"] => "adam_epsilon" = "0.00000001";
    validation_fraction: [], ["--validation-fraction", "0.2"] => "validation_fraction" = "0.2";
    keep: [], ["--keep", "last"] => "keep" = "\"last\"";
    dense_share: [], ["--dense-share", "0.3"] => "dense_share" = "0.3";
    learn_interactions: [], ["--learn-interactions"] => "learn_interactions" = "true";
    prune_masks_below: HARD, ["--prune-masks-below", "0.75"] => "prune_masks_below" = "0.75";
    starts: [], ["--starts", "3"] => "starts" = "3";
    trial_share: STARTS, ["--trial-share", "0.2"] => "trial_share" = "0.2";
    precision: [], ["--precision", "f64"] => "precision" = "\"f64\"";
    ivae_mask: ["--method", "ivae"], ["--ivae-mask", "learned"] => "ivae_mask" = "\"learned\"";
    heldout: [], ["--no-heldout"] => "heldout" = "false";
    retraining_epochs: [], ["--retraining-epochs", "30"] => "retraining_epochs" = "30";
    particles: [], ["--particles", "50"] => "particles" = "50";
    heldout_batch_norm: [], ["--heldout-batch-norm", "drift"] => "heldout_batch_norm" = "\"drift\"";
    seed: ["--sim-seed", "3"], ["--seed", "5"] => "seed" = "5";
    simd: [], ["--simd", "baseline"] => "simd" = "\"baseline\"";
    threads: [], ["--threads", "2"] => "threads" = "2";
    checkpoint_every: [], ["--checkpoint-every", "0.5"] => "checkpoint_every" = "0.5";
    time_limit: [], ["--time-limit", "11h50m"] => "time_limit" = "\"11h50m\"";
    out: [], ["--out", "here"] => "out" = "\"here\"";
    overwrite: [], ["--overwrite"] => "overwrite" = "true";
    resume: ["--out", "here"], ["--resume"] => "resume" = "true";
    fdr: [], ["--fdr", "0.01"] => "fdr" = "0.01";
    h5ad: [], ["--no-h5ad"] => "h5ad" = "false";
    json: [], ["--json"] => "json" = "true";
    quiet: [], ["--quiet"] => "quiet" = "true";
    log_format: [], ["--log-format", "json"] => "log_format" = "\"json\"";
    simulation: [], ["--simulation", "paper"] => "simulation.kind" = "\"paper\"";
    sim_interventions: [], ["--sim-interventions", "8"] => "simulation.interventions" = "8";
    sim_cells: [], ["--sim-cells", "20"] => "simulation.cells" = "20";
    sim_genes: [], ["--sim-genes", "50"] => "simulation.genes" = "50";
    sim_latents: [], ["--sim-latents", "6"] => "simulation.latents" = "6";
    sim_targeted_latents: [], ["--sim-targeted-latents", "4"] => "simulation.targeted_latents" = "4";
    sim_depth: [], ["--sim-depth", "2000"] => "simulation.depth" = "2000";
    sim_shift: [], ["--sim-shift", "0.5"] => "simulation.shift" = "0.5";
    sim_dispersion: [], ["--sim-dispersion", "2"] => "simulation.dispersion" = "2.0";
    sim_together: [], ["--sim-together", "1"] => "simulation.together" = "1.0";
    sim_batches: [], ["--sim-batches", "3"] => "simulation.batches" = "3";
    sim_escaped: [], ["--sim-escaped", "0.3"] => "simulation.escaped" = "0.3";
    sim_controls: [], ["--sim-controls", "200"] => "simulation.controls" = "200";
    sim_combinations: [], ["--sim-combinations", "5"] => "simulation.combinations" = "5";
    sim_interactions: ["--sim-combinations", "5"], ["--sim-interactions", "0.2"] => "simulation.interactions" = "0.2";
    sim_doses: [], ["--sim-doses", "2"] => "simulation.doses" = "2";
    sim_seed: [], ["--sim-seed", "9"] => "simulation.seed" = "9";
}

#[test]
fn data_replaces_the_simulation() {
    let config = config(&FILE).expect("valid");
    assert_eq!(config.source(), Source::File(Path::new("screen.h5ad")));
    assert_eq!(config.simulation, None);
}

#[test]
fn every_key_has_a_flag_and_a_test() {
    let mut known = known_keys();
    // A recipe changes many settings: it has a test of its own.
    known.retain(|key| key != "data" && key != "recipe");
    let mut tested = TESTED.to_vec();
    known.sort();
    tested.sort();
    assert_eq!(known, tested);
    // And the other way round: every flag is a key.
    let command = RawSettings::augment_args(clap::Command::new("run"));
    let mut flags: Vec<String> = command.get_arguments().map(|arg| format!("--{}", arg.get_long().unwrap())).collect();
    let mut of_keys: Vec<String> = known_keys().iter().map(|key| flag_of(key)).collect();
    flags.sort();
    of_keys.sort();
    assert_eq!(flags, of_keys);
}

#[test]
fn help_states_the_true_defaults() {
    let defaults = flat(&Settings::default());
    let drawn = flat(&config(&["--method", "svae"]).expect("valid"));
    let command = RawSettings::augment_args(clap::Command::new("run"));
    let (mut checked, mut twice) = (0, 0);
    for arg in command.get_arguments() {
        let help = arg.get_help().map(|help| help.to_string()).unwrap_or_default();
        let Some((_, stated)) = help.split_once("[default: ") else { continue };
        let stated = stated.trim_end_matches(']');
        let id = arg.get_id().as_str();
        let key = id.strip_prefix("sim_").map_or(id.to_owned(), |name| format!("simulation.{name}"));
        let found =
            |all: &[(String, String)]| all.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
        let is = |stated: &str, actual: &str| {
            let same_number = stated.parse::<f64>().ok().is_some_and(|a| actual.parse::<f64>() == Ok(a));
            assert!(same_number || actual.trim_matches('"') == stated, "{key}: help says {stated}, but it is {actual}");
        };
        // "[default: A; B where masks are integrated out]"
        let stated = match stated.split_once("; ") {
            Some((of_others, with_integrated)) => {
                is(of_others, &found(&drawn).expect("a setting of all methods"));
                twice += 1;
                with_integrated.split(' ').next().expect("a value")
            }
            None => stated,
        };
        let actual = match found(&defaults) {
            Some(actual) => actual,
            // Written only with covariates or several starts; its default is seen in a configuration that has them.
            None => {
                let flags = [&COVARIATE[..], &STARTS].concat();
                found(&flat(&config(&flags).expect("valid"))).expect("a setting")
            }
        };
        is(stated, &actual);
        checked += 1;
    }
    assert!(checked > 25, "only {checked} defaults were found in the help");
    assert_eq!(twice, 5, "mask, latents, dropout, schedule, patience");
}

#[test]
fn flags_win_over_the_file() {
    let text = "epochs = 7\nlatents = 4\n[simulation]\ncells = 30\ngenes = 60\n";
    let config = from_file(text, &["--epochs", "9", "--sim-genes", "70"]).expect("valid");
    assert_eq!((config.training.epochs, config.model.latents), (Some(9), 4));
    let simulation = config.simulation.clone().expect("simulated");
    assert_eq!((simulation.cells_per_intervention, simulation.n_genes), (30, 70));
    let config = from_file("json = true\noverwrite = true\n", &["--json=false"]).expect("valid");
    assert!(!config.output.json && config.output.overwrite);
}

#[test]
fn flags_for_data_replace_a_simulation_in_the_file_and_the_other_way_round() {
    let config = from_file("[simulation]\ncells = 30\n", &FILE).expect("valid");
    assert_eq!(config.simulation, None);
    let config = from_file("data = \"a.h5ad\"\nlabel_key = \"x\"\n", &["--sim-cells", "30"]).expect("valid");
    assert_eq!((config.data, config.input.label_key), (None, None));
    assert_eq!(config.simulation.expect("simulated").cells_per_intervention, 30);
}

#[test]
fn a_method_given_as_a_flag_drops_what_it_does_not_use_from_the_file() {
    let saved = config(&["--mask", "hard", "--alpha", "100"]).expect("valid").to_toml();
    let vae = from_file(&saved, &["--method", "vae"]).expect("valid");
    assert_eq!((vae.model.method, vae.model.alpha, vae.model.beta), (Method::Vae, None, 1.0));
    assert_eq!(from_file(&saved, &["--method", "svae"]).expect("valid").model.alpha, Some(100.0));
    assert!(message(from_file(&saved, &["--method", "vae", "--alpha", "3"])).starts_with("--alpha"));
    // So do other masks. What says how large the model is and how it is trained stays.
    for flags in [&["--mask", "soft"][..], &["--method", "svae"], &["--method", "ivae"], &["--method", "beta-vae"]] {
        let changed = from_file(&Settings::default().to_toml(), flags).unwrap_or_else(|error| panic!("{error}"));
        assert!(!changed.model.integrates_mask(), "{flags:?}");
        assert_eq!((changed.model.latents, changed.training.schedule), (20, Schedule::LateCosine), "{flags:?}");
    }
    let integrated = from_file(&saved, &["--mask", "integrated"]).expect("valid");
    assert!(integrated.model.integrates_mask() && !integrated.to_toml().contains("alpha"));
    assert_eq!(integrated.model.latents, 15);
}

#[test]
fn masks_decide_defaults() {
    let of = |flags: &[&str]| config(flags).expect("valid");
    let defaults = |config: &Settings| {
        let (model, training) = (&config.model, &config.training);
        let of_training = (config.capacity_for(1_000).learning_rate, training.schedule, training.patience);
        (model.mask, model.latents, model.dropout, of_training)
    };
    let integrated = (MaskKind::Integrated, 20, 0.0, (0.002, Schedule::LateCosine, 0));
    for flags in
        [&[][..], &["--mask", "integrated"], &["--data", "a.h5ad"], &["--latent-distribution", "logistic-normal"]]
    {
        assert_eq!(defaults(&of(flags)), integrated, "{flags:?}");
    }
    let drawn = (MaskKind::Hard, 15, 0.1, (0.001, Schedule::Constant, 45));
    for flags in [&HARD[..], &["--method", "svae"], &["--method", "vae"], &["--recipe", "reference"]] {
        assert_eq!(defaults(&of(flags)), drawn, "{flags:?}");
    }
    assert_eq!(defaults(&of(&["--mask", "soft"])), (MaskKind::Soft, 15, 0.1, drawn.3));
    assert_eq!(defaults(&from_file("mask = \"hard\"\n", &[]).expect("valid")), drawn);
    // What is said wins.
    let said = of(&["--latents", "7", "--schedule", "constant"]);
    assert_eq!(defaults(&said), (MaskKind::Integrated, 7, 0.0, (0.002, Schedule::Constant, 0)));
    let refused = message(config(&["--method", "svae", "--mask", "integrated"]));
    assert!(refused.starts_with("--mask") && refused.contains("svae-plus"), "{refused}");
    // Steps: 71 of 512 an epoch of 36,000 cells, 24 of 128 one of 3,037. 8,000 of them; a warm-up of 1,200.
    let epochs = |config: &Settings, n| (config.epochs_for(n), config.warmup_epochs_for(n));
    assert_eq!((epochs(&of(&[]), 36_000), epochs(&of(&[]), 3_037)), ((113, 17), (334, 50)));
    assert_eq!(epochs(&of(&["--latents", "30"]), 36_000), (254, 39));
    // At least 120 epochs, or 30 where cells are many.
    assert_eq!((epochs(&of(&[]), 17_999), epochs(&of(&[]), 1_000_000)), ((120, 9), (30, 1)));
    // 20,000 of them, or 500 epochs; a warm-up of 50 epochs.
    assert_eq!((epochs(&of(&HARD), 36_000), epochs(&of(&HARD), 3_037)), ((500, 50), (834, 50)));
    assert_eq!(epochs(&of(&["--epochs", "7", "--warmup-epochs", "3"]), 36_000), (7, 3));
}

#[test]
fn saved_settings_read_back_the_same() {
    let every_method = ["vae", "beta-vae", "ivae", "svae", "svae-plus"];
    let mut cases: Vec<Vec<&str>> = every_method.iter().map(|name| vec!["--method", name]).collect();
    cases.push(vec!["--data", "dir/a b\"c.h5ad", "--label-key", "g", "--threads", "3", "--holdout", "x,y"]);
    cases.push(
        [&COVARIATE[..], &["--encode-covariates", "true", "--continuous-covariates", "age,dose", "--drop-empty-cells"]]
            .concat(),
    );
    cases.push(vec![
        "--mask",
        "hard",
        "--alpha",
        "100",
        "--holdout",
        "",
        "--weight-decay",
        "1e-12",
        "--learning-rate",
        "0.30000000000000004",
    ]);
    cases.push(vec!["--simulation", "paper", "--sim-seed", "9223372036854775807", "--likelihood-epsilon", "1e-8"]);
    cases.push(vec!["--no-heldout"]);
    cases.push(vec!["--latents", "1", "--recipe", "tuned"]);
    cases.push(vec!["--method", "pca", "--latents", "4", "--likelihood", "poisson", "--fdr", "0.1", "--holdout", ""]);
    for method in every_method {
        for recipe in ["reference", "tuned"] {
            cases.push(vec!["--method", method, "--recipe", recipe]);
            cases.push(vec!["--method", method, "--recipe", recipe, "--no-heldout"]);
        }
    }
    cases.push(vec!["--method", "ivae", "--ivae-mask", "learned", "--heldout-batch-norm", "drift"]);
    for flags in cases {
        let config = config(&flags).expect("valid");
        let text = config.to_toml();
        let back = from_file(&text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(back, config, "{text}");
        assert_eq!(back.to_toml(), text);
    }
}

#[test]
fn saved_settings_leave_out_where_and_how_loudly() {
    for flags in [
        &["--out", "x", "--overwrite", "--no-h5ad", "--json", "--quiet"][..],
        &["--out", "x", "--resume", "--checkpoint-every", "3", "--time-limit", "2h", "--log-format", "json"],
    ] {
        assert_eq!(config(flags).expect("valid").to_toml(), Settings::default().to_toml());
    }
}

#[test]
fn the_default_is_the_simulation_of_the_paper() {
    let config = Settings::default();
    let simulation = config.simulation.clone().expect("simulated");
    assert_eq!((simulation.n_interventions, simulation.cells_per_intervention), (100, 500));
    assert_eq!((simulation.n_genes, simulation.n_latents), (100, 15));
    assert_eq!(config.model.method, Method::SvaePlus);
    let names: Vec<String> = (0..100).map(|a| format!("i{a}")).collect();
    let rows = InterventionRows::default();
    assert_eq!(config.held_out(&names, &rows).expect("valid").interventions, (80..100).collect::<Vec<_>>());
    let resolved = config.resolved(&names, &rows, 36_000).expect("valid");
    assert_eq!((resolved.model.mask, resolved.model.alpha), (MaskKind::Integrated, None));
    assert_eq!((resolved.training.epochs, resolved.training.warmup_epochs), (Some(113), Some(17)));
    assert_eq!(resolved.training.retraining_epochs, Some(13));
    assert_eq!(resolved.training.holdout.as_ref().map(Vec::len), Some(20));
    assert_eq!(from_file(&resolved.to_toml(), &[]).expect("valid"), resolved);
    let drawn = Settings::load(None, raw(&HARD)).expect("valid").resolved(&names, &rows, 36_000).expect("valid");
    assert_eq!(
        (drawn.model.alpha, drawn.training.epochs, drawn.training.warmup_epochs),
        (Some(100.0), Some(500), Some(50))
    );
    assert_eq!(drawn.training.retraining_epochs, Some(500));
}

#[test]
fn a_network_grows_with_the_screen_where_masks_are_integrated_out() {
    use PosteriorCovariance::{Diagonal, Full};
    let capacity = |flags: &[&str], n_training: usize| {
        let Capacity { hidden, posterior_covariance, batch_size, learning_rate } =
            config(flags).expect("valid").capacity_for(n_training);
        (hidden, posterior_covariance, batch_size, learning_rate)
    };
    assert_eq!(capacity(&[], 17_999), (128, Diagonal, 128, 0.002));
    assert_eq!(capacity(&[], 18_000), (256, Full, 512, 0.004));
    assert_eq!(capacity(&["--latents", "1"], 18_000), (256, Diagonal, 512, 0.004));
    let said =
        ["--hidden", "64", "--posterior-covariance", "diagonal", "--batch-size", "256", "--learning-rate", "0.01"];
    assert_eq!(capacity(&said, 18_000), (64, Diagonal, 256, 0.01));
    for n_training in [100, 1_000_000] {
        assert_eq!(capacity(&HARD, n_training), (128, Diagonal, 128, 0.001));
        assert_eq!(capacity(&["--method", "vae"], n_training), (128, Diagonal, 128, 0.001));
    }
}

#[test]
fn a_recipe_sets_defaults_only() {
    let of = |flags: &[&str]| config(flags).expect("valid");
    // Nothing but what the recipe names changes, and what is said explicitly wins, in flags and in a file.
    let reference = of(&["--recipe", "reference"]);
    let by_hand = of(&["--mask", "hard", "--likelihood-epsilon", "1e-8", "--epochs", "300", "--keep", "last"]);
    let mut by_hand = by_hand;
    by_hand.model.recipe = Some(Recipe::Reference);
    assert_eq!(reference, by_hand);
    let mixed = of(&["--recipe", "reference", "--epochs", "7", "--keep", "best"]);
    assert_eq!((mixed.training.epochs, mixed.training.keep), (Some(7), KeepEpoch::Best));
    assert_eq!(mixed.model.likelihood_epsilon, 1e-8);
    let from_file_ = from_file("recipe = \"reference\"\nepochs = 7\n", &["--keep", "best"]).expect("valid");
    assert_eq!(from_file_, mixed);
    assert_eq!(from_file("epochs = 7\n", &["--recipe", "reference", "--keep", "best"]).expect("valid"), mixed);
}

#[test]
fn a_poisson_likelihood_has_no_constant() {
    let poisson = config(&["--likelihood", "poisson"]).expect("valid");
    assert!(!poisson.to_toml().contains("likelihood_epsilon"));
    assert_eq!(from_file(&poisson.to_toml(), &[]).expect("valid"), poisson);
    for given in [
        message(config(&["--likelihood", "poisson", "--likelihood-epsilon", "1e-8"])),
        message(from_file("likelihood = \"poisson\"\nlikelihood_epsilon = 1e-8\n", &[])),
        message(from_file("likelihood = \"poisson\"\n", &["--likelihood-epsilon", "0"])),
    ] {
        assert!(given.contains("no effect with likelihood poisson") && given.contains("negative-binomial"), "{given}");
    }
    // A recipe's constant is a default of the negative binomial, and a flag drops the one of a file.
    let reference = config(&["--likelihood", "poisson", "--recipe", "reference"]).expect("valid");
    assert_eq!((reference.model.likelihood_epsilon, reference.training.epochs), (0.0, Some(300)));
    let replaced = from_file("likelihood_epsilon = 1e-8\n", &["--likelihood", "poisson"]).expect("valid");
    assert_eq!(replaced, poisson);
}

#[test]
fn the_reference_recipe_follows_the_published_code_method_by_method() {
    use HeldoutBatchNorm::{Drift, Frozen};
    for (method, batch_norm) in [("ivae", Drift), ("svae", Drift), ("svae-plus", Frozen), ("vae", Frozen)] {
        let config = config(&["--method", method, "--recipe", "reference"]).expect("valid");
        assert_eq!(config.training.heldout_batch_norm, batch_norm, "{method}");
        assert_eq!(config.model.ivae_mask == IvaeMask::Learned, method == "ivae", "{method}");
    }
}

#[test]
fn another_method_over_a_saved_recipe_keeps_what_it_uses() {
    let saved = config(&["--method", "svae", "--recipe", "tuned"]).expect("valid").to_toml();
    let vae = from_file(&saved, &["--method", "vae"]).expect("valid");
    assert_eq!((vae.model.method, vae.model.recipe), (Method::Vae, Some(Recipe::Tuned)));
    assert_eq!(vae, config(&["--method", "vae", "--recipe", "tuned"]).expect("valid"));
}

#[test]
fn the_tuned_recipe_is_more_effort_where_masks_are_integrated_out() {
    let of = |flags: &[&str]| config(flags).expect("valid");
    let tuned = of(&["--recipe", "tuned"]);
    let mut by_hand = of(&["--hidden", "256", "--starts", "4"]);
    by_hand.model.recipe = Some(Recipe::Tuned);
    assert_eq!(tuned, by_hand);
    // Masks that are drawn are tuned alike with either penalty.
    let mut drawn = of(&["--recipe", "tuned", "--mask", "hard"]);
    assert_eq!((drawn.training.prune_masks_below, drawn.training.starts), (0.75, 8));
    drawn.model.method = Method::Svae;
    assert_eq!(drawn, of(&["--recipe", "tuned", "--method", "svae"]));
}

#[test]
fn unknown_keys_name_the_nearest_and_the_line() {
    let cases = [
        ("epochs = 3\nlatent = 4\n", "line 2", "`latents`"),
        ("batch-size = 4\n", "line 1", "`batch_size`"),
        ("\n\nlearningrate = 4\n", "line 3", "`learning_rate`"),
        ("[simulation]\ncell = 4\n", "line 2", "`simulation.cells`"),
        ("sim_cells = 4\n", "line 1", "`simulation.cells`"),
        ("[simulations]\ncells = 4\n", "line 1", "there is no setting"),
    ];
    for (text, line, suggestion) in cases {
        let message = message(from_file(text, &[]));
        assert!(message.contains("settings.toml") && message.contains(line), "{message}");
        assert!(message.contains(suggestion), "{message}");
    }
    let message = message(from_file("zzqx = 1\n", &[]));
    assert!(!message.contains("did you mean"), "{message}");
}

#[test]
fn wrong_types_and_broken_files_name_the_line() {
    for (text, line, said) in [
        ("latents = 3\nepochs = \"many\"\n", "line 2", "a whole number"),
        ("epochs = 1.5\n", "line 1", "a whole number"),
        ("method = \"vea\"\n", "line 1", "`vae`"),
        ("seed = 1\nquiet = 1\n", "line 2", "true or false"),
        ("holdout = \"a\"\n", "line 1", "a list"),
        ("seed = 1\nepochs = = 2\n", "line 2", "not valid TOML"),
        ("seed = 1\nseed = 2\n", "line 2", "not valid TOML"),
        ("simulation = 3\n", "line 1", "simulation"),
        ("[simulation]\nseed = 1\ngenes = \"x\"\n", "line 3", "a whole number"),
    ] {
        let message = message(from_file(text, &[]));
        assert!(message.contains(line) && message.contains(said), "{text}: {message}");
    }
}

#[test]
fn values_out_of_range_name_the_range_and_where_they_were_said() {
    for (flags, flag, range) in [
        (["--latents", "0"], "--latents", "from 1 to 4096"),
        (["--latents", "-3"], "--latents", "from 1 to 4096"),
        (["--hidden", "0"], "--hidden", "from 1 to 65536"),
        (["--layers", "9"], "--layers", "from 1 to 8"),
        (["--alpha", "0"], "--alpha", "above 0"),
        (["--alpha", "inf"], "--alpha", "at most"),
        (["--alpha", "nan"], "--alpha", "at most"),
        (["--beta", "-1"], "--beta", "at least 0"),
        (["--temperature", "0"], "--temperature", "at least 0.01"),
        (["--dropout", "1"], "--dropout", "below 1"),
        (["--likelihood-epsilon", "1"], "--likelihood-epsilon", "at most 0.01"),
        (["--epochs", "0"], "--epochs", "from 1 to"),
        (["--batch-size", "2"], "--batch-size", "from 3 to"),
        (["--warmup-epochs", "-1"], "--warmup-epochs", "from 0 to"),
        (["--patience", "-1"], "--patience", "from 0 to"),
        (["--learning-rate", "0"], "--learning-rate", "above 0"),
        (["--weight-decay", "-1"], "--weight-decay", "at least 0"),
        (["--adam-epsilon", "0"], "--adam-epsilon", "above 0"),
        (["--validation-fraction", "0"], "--validation-fraction", "above 0 and at most 0.5"),
        (["--retraining-epochs", "0"], "--retraining-epochs", "from 1 to"),
        (["--dense-share", "1.1"], "--dense-share", "at least 0 and at most 1"),
        (["--fdr", "-0.1"], "--fdr", "at least 0"),
        (["--prune-masks-below", "1"], "--prune-masks-below", "at least 0 and below 1"),
        (["--trial-share", "0"], "--trial-share", "above 0 and at most 1"),
        (["--seed", "-1"], "--seed", "from 0 to"),
        (["--threads", "0"], "--threads", "from 1 to 1024"),
        (["--sim-interventions", "1"], "--sim-interventions", "from 2 to"),
        (["--sim-cells", "0"], "--sim-cells", "from 1 to"),
        (["--sim-genes", "1"], "--sim-genes", "from 2 to"),
        (["--sim-latents", "0"], "--sim-latents", "from 1 to"),
        (["--sim-seed", "-1"], "--sim-seed", "from 0 to"),
    ] {
        let message = message(config(&flags));
        assert!(message.starts_with(flag) && message.contains(range), "{flags:?}: {message}");
    }
    let message_ = message(from_file("seed = 1\nepochs = 0\n", &[]));
    assert!(message_.contains("settings.toml: line 2, key `epochs`") && message_.contains("from 1 to"), "{message_}");
    let message_ = message(from_file("[simulation]\ncells = 0\n", &[]));
    assert!(message_.contains("line 2, key `simulation.cells`"), "{message_}");
    let message_ = message(config(&["--simulation", "paper", "--sim-latents", "2"]));
    assert!(message_.contains("from 3 to"), "{message_}");
    let message_ = message(config(&["--sim-interventions", "100000", "--sim-cells", "1000000"]));
    assert!(message_.contains("at most 100000000 cells"), "{message_}");
}

#[test]
fn settings_without_effect_are_refused() {
    for (flags, flag) in [
        (&["--method", "vae", "--alpha", "3"][..], "--alpha"),
        (&["--method", "vae", "--beta", "3"], "--beta"),
        (&["--method", "beta-vae", "--mask", "soft"], "--mask"),
        (&["--method", "ivae", "--temperature", "2"], "--temperature"),
        (&["--method", "vae", "--prune-masks-below", "0.7"], "--prune-masks-below"),
        (&["--alpha", "100"], "--alpha"),
        (&["--temperature", "0.5"], "--temperature"),
        (&["--prune-masks-below", "0.75"], "--prune-masks-below"),
        (&["--mask", "hard", "--dense-share", "0.3"], "--dense-share"),
        (&["--method", "svae", "--dense-share", "0.3"], "--dense-share"),
        (&["--recipe", "reference", "--fdr", "0.1"], "--fdr"),
        (&["--method", "vae", "--fdr", "0.1"], "--fdr"),
        (&["--no-heldout", "--retraining-epochs", "2"], "--retraining-epochs"),
        (&["--latents", "1", "--posterior-covariance", "full"], "--posterior-covariance"),
        (&["--data", "a.h5ad", "--sim-cells", "3"], "--sim-cells"),
        (&["--data", "a.h5ad", "--simulation", "paper"], "--simulation"),
        (&["--label-key", "gene"], "--label-key"),
        (&["--quiet", "--log-format", "json"], "--log-format"),
        (&["--trial-share", "0.5"], "--trial-share"),
        (&["--resume"], "--resume"),
        (&["--out", "x", "--resume", "--overwrite"], "--resume"),
        (&["--drop-empty-cells"], "--drop-empty-cells"),
        (&["--encode-covariates", "true"], "--encode-covariates"),
        (&["--data", "a.h5ad", "--deeply-inject-covariates", "true"], "--deeply-inject-covariates"),
    ] {
        let message = message(config(flags));
        assert!(message.starts_with(flag), "{flags:?}: {message}");
    }
    let message = message(from_file("data = \"a.h5ad\"\n[simulation]\ncells = 3\n", &[]));
    assert!(message.contains("line 3, key `simulation.cells`"), "{message}");
}

#[test]
fn times_are_read_and_written() {
    for (text, seconds, back) in [
        ("11h50m", 42_600, "11h50m"),
        ("90m", 5_400, "1h30m"),
        ("600", 600, "10m"),
        ("1d2h3m4s", 93_784, "1d2h3m4s"),
        ("1m5", 65, "1m5s"),
    ] {
        let limit: TimeLimit = text.parse().expect(text);
        assert_eq!((limit.0.as_secs(), limit.to_string().as_str()), (seconds, back), "{text}");
        assert_eq!(back.parse(), Ok(limit));
    }
    for text in ["", "m", "1x", "1h1h", "1m1h", "-5", "1.5h", "0", "1h 30m", "99999999999999999999h", "5000000h"] {
        let said = message(config(&["--time-limit", text]));
        assert!(said.contains("--time-limit") && said.contains("11h50m"), "{text}: {said}");
    }
}

#[test]
fn holdout_reads_files_of_labels() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("labels.txt");
    std::fs::write(&path, "KLF1\r\nA, with comma\n\n  CEBPA  \nKLF1\n").expect("a temporary file");
    let entry = format!("@{}", path.display());
    let flags = ["--holdout", &format!("x,{entry},@@odd")];
    let config_ = config(&flags).expect("valid");
    assert_eq!(config_.training.holdout.expect("labels"), ["x", "KLF1", "A, with comma", "CEBPA", "@odd"]);
    let said = message(config(&["--holdout", "@nowhere.txt"]));
    assert!(said.starts_with("--holdout") && said.contains("nowhere.txt"), "{said}");
}

#[test]
fn labels_that_begin_with_an_at_sign_survive_saving() {
    let config = from_file("holdout = [\"@@odd\"]\n", &[]).expect("valid");
    assert_eq!(config.training.holdout.as_deref(), Some(&["@odd".to_owned()][..]));
    assert_eq!(from_file(&config.to_toml(), &[]).expect("valid"), config);
}

#[test]
fn held_out_labels_must_exist_and_leave_some() {
    let names: Vec<String> = ["KLF1", "CEBPA", "control"].map(String::from).to_vec();
    let mut rows = InterventionRows::default();
    [&[(1, 1.0), (0, 1.0)][..], &[(1, 1.0), (2, 1.0)]].iter().for_each(|row| rows.push(row));
    let all = |flags: &[&str]| config(flags).expect("valid").held_out(&names, &rows);
    let of = |flags: &[&str]| all(flags).map(|held_out| held_out.interventions);
    assert_eq!(of(&["--holdout", "control,KLF1"]).expect("valid"), [0, 2]);
    assert_eq!(of(&["--holdout", "KLF1, control"]).expect("valid"), [0, 2]);
    assert_eq!(of(&FILE).expect("valid"), [0; 0]);
    assert_eq!(of(&["--holdout", ""]).expect("valid"), [0; 0]);
    let unknown = of(&["--data", "a.h5ad", "--holdout", "CEBPB"]).expect_err("unknown").to_string();
    assert!(unknown.contains("a.h5ad") && unknown.contains("\"CEBPB\"") && unknown.contains("\"CEBPA\"?"), "{unknown}");
    let nothing_left = of(&["--holdout", "KLF1,CEBPA,control"]).expect_err("nothing left");
    assert_eq!(nothing_left.exit_code(), 2);

    let sets = |flags: &[&str]| all(flags).map(|held_out| held_out.combinations.into_iter().collect::<Vec<_>>());
    for label in ["KLF1+CEBPA", "CEBPA + KLF1"] {
        assert_eq!(sets(&["--holdout", label]).expect("valid"), [[0, 1]]);
    }
    assert_eq!(sets(&["--holdout", "KLF1,combinations:1"]).expect("valid"), [[0, 1], [1, 2]]);
    assert_eq!(sets(&["--holdout", "combinations:0.5"]).expect("valid").len(), 1);
    for (label, said) in [
        ("KLF1+control", "no cell has the combination \"KLF1+control\""),
        ("KLF1+CEBPB", "did you mean \"CEBPA\"?"),
        ("combinations:0", "\"0\" is no share"),
        ("combinations:x", "\"x\" is no share"),
    ] {
        let error = sets(&["--holdout", label]).expect_err(label).to_string();
        assert!(error.contains(said), "{error}");
    }
    let error =
        config(&["--holdout", "combinations:0.5"]).expect("valid").held_out(&names, &InterventionRows::default());
    assert!(error.expect_err("no combinations").to_string().contains("no cell is under several interventions"));
}

#[test]
fn results_do_not_depend_on_threads_and_on_where_files_are() {
    let config = Settings::default();
    let settings = config.settings_of_results();
    let mut moved = Settings { data: Some("elsewhere.h5ad".into()), ..config.clone() };
    moved.execution.threads = Some(7);
    let shared = |all: Vec<(String, String)>| -> Vec<_> {
        all.into_iter().filter(|(key, _)| !key.starts_with("simulation")).collect()
    };
    assert_eq!(shared(moved.settings_of_results()), shared(settings.clone()));
    let mut other = config;
    other.output.fdr = 0.2;
    assert_ne!(other.settings_of_results(), settings);
}
