//! A whole small run from the command line: what it writes, what it prints and that it repeats.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::{names, run, said};
use svae_cpu::data::dataset::Dataset;
use svae_cpu::data::formats::npz::Npz;
use svae_cpu::data::loading::load::{LoadOptions, load};
use svae_cpu::data::simulate::{Simulation, simulate};
use svae_cpu::results::catalogue::{ResultsFile, When};

/// A simulation and a model small enough to be trained in a moment.
const SMALL: [&str; 13] = [
    "run",
    "--sim-cells",
    "20",
    "--sim-interventions",
    "8",
    "--sim-genes",
    "30",
    "--epochs",
    "2",
    "--warmup-epochs",
    "1",
    "--hidden",
    "16",
];

fn small(more: &[&'static str]) -> Vec<&'static str> {
    [&SMALL[..], more].concat()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Runs to success; returns standard output and standard error.
fn succeed(folder: &Path, args: &[&str]) -> (String, String) {
    let (code, out, err) = said(&run(folder, args));
    assert_eq!(code, 0, "{args:?}: {err}");
    (out, err)
}

fn keys(value: &serde_json::Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of the files that a whole run on a simulation leaves behind, by the catalogue.
fn files() -> Vec<&'static str> {
    let left = |file: &ResultsFile| match file.when() {
        When::AtStart | When::AfterTraining | When::AfterHeldOut | When::AtEnd => {
            // Those of data from a file, and of combinations.
            ![ResultsFile::DataSummary, ResultsFile::Interactions].contains(file)
        }
        When::WhileRunning | When::OnRequest | When::AfterJudgement => false,
    };
    let mut names: Vec<&str> = ResultsFile::ALL.iter().filter(|file| left(file)).map(|file| file.name()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_run_writes_its_folder_and_nothing_else() {
    let folder = folder();
    let (out, err) = succeed(folder.path(), &small(&["--out", "a"]));
    assert_eq!(names(folder.path()), ["a"]);
    let dir = folder.path().join("a");
    assert_eq!(names(&dir), files());
    for shown in ["svae-plus", "ELBO, validation", "MCC, Pearson", "Results: a"] {
        assert!(out.contains(shown), "{shown} in {out}");
    }
    assert!(err.contains("epoch") && err.contains("1/2") && err.contains("2/2"), "{err}");

    let metrics: serde_json::Value = serde_json::from_slice(&read(&dir.join("metrics.json"))).expect("JSON");
    let promised = [
        "method",
        "seed",
        "n_cells",
        "n_genes",
        "n_interventions",
        "epochs",
        "stop_reason",
        "elbo_train",
        "elbo_validation",
        "mcc_pearson",
        "mcc_spearman",
        "r2",
        "graph",
        "timing",
    ];
    let present = keys(&metrics);
    for key in promised {
        assert!(present.contains(&key), "{key} in {present:?}");
    }
    assert_eq!(keys(&metrics["graph"]), ["reference", "corrected"]);
    for protocol in ["reference", "corrected"] {
        assert_eq!(keys(&metrics["graph"][protocol]), ["precision", "recall", "f1"]);
    }
    assert_eq!(keys(&metrics["timing"]), ["train_seconds", "cells_per_second", "total_seconds", "peak_rss_bytes"]);
    assert_eq!(metrics["method"], "svae-plus");
    assert_eq!(metrics["n_genes"], 30);
    assert_eq!(metrics["n_interventions"], 8);
    assert_eq!(metrics["epochs"], 2);
    assert_eq!(metrics["stop_reason"], "epoch_limit");
    for key in ["elbo_train", "elbo_validation"] {
        assert!(metrics[key].as_f64().is_some_and(|value| value > 0.0), "{key} is {}", metrics[key]);
    }

    let history = String::from_utf8(read(&dir.join("history.csv"))).expect("UTF-8");
    assert_eq!(history.lines().count(), 3, "{history}");
    for (name, column) in [("masks.csv", 0.0..=1.0), ("shifts.csv", f64::MIN..=f64::MAX)] {
        let mut table = csv::Reader::from_path(dir.join(name)).expect("a table");
        // Twenty latents, unless it is said how many.
        assert_eq!(table.headers().expect("a header").len(), 21);
        let mut interventions = BTreeSet::new();
        for row in table.records() {
            let row = row.expect("a row");
            interventions.insert(row[0].to_owned());
            for value in row.iter().skip(1) {
                let value: f64 = value.parse().expect("a number");
                assert!(column.contains(&value), "{name}: {value}");
            }
        }
        assert_eq!(interventions.len(), 8, "{name}");
    }
    let model = read(&dir.join("model.safetensors"));
    let tensors = safetensors::SafeTensors::deserialize(&model).expect("a model");
    assert!(tensors.len() > 10);
}

#[test]
fn json_alone_goes_to_standard_output() {
    let folder = folder();
    let (out, _) = succeed(folder.path(), &small(&["--out", "a", "--json"]));
    assert_eq!(out.as_bytes(), read(&folder.path().join("a/metrics.json")));
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON and nothing else");
    assert!(value.is_object());
}

#[test]
fn quiet_prints_no_progress() {
    let folder = folder();
    let (out, err) = succeed(folder.path(), &small(&["--out", "a", "--quiet"]));
    assert_eq!(err, "");
    assert!(out.contains("ELBO"));
}

#[test]
fn runs_without_a_folder_are_numbered() {
    let folder = folder();
    for _ in 0..2 {
        succeed(folder.path(), &small(&["--quiet"]));
    }
    assert_eq!(names(folder.path()), ["results"]);
    assert_eq!(names(&folder.path().join("results")), ["0001", "0002"]);
}

#[test]
fn a_run_is_replaced_only_when_asked() {
    let folder = folder();
    succeed(folder.path(), &small(&["--out", "a", "--quiet"]));
    let dir = folder.path().join("a");
    let before: Vec<Vec<u8>> = files().iter().map(|name| read(&dir.join(name))).collect();
    let (code, out, err) = said(&run(folder.path(), &small(&["--out", "a", "--quiet", "--seed", "1"])));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("--overwrite"), "{err}");
    let after: Vec<Vec<u8>> = files().iter().map(|name| read(&dir.join(name))).collect();
    assert!(before == after && names(&dir) == files());
    succeed(folder.path(), &small(&["--out", "a", "--quiet", "--seed", "1", "--overwrite"]));
    assert_eq!(names(&dir), files());
    let model = files().iter().position(|name| *name == ResultsFile::Model.name()).expect("listed");
    assert_ne!(read(&dir.join(ResultsFile::Model.name())), before[model]);
}

#[test]
fn an_unknown_label_is_refused_before_anything_is_written() {
    let folder = folder();
    let (code, out, err) = said(&run(folder.path(), &small(&["--holdout", "nonsense"])));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("\"nonsense\"") && err.contains("--holdout"), "{err}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_the_saved_settings_repeat_the_run() {
    let folder = folder();
    succeed(folder.path(), &small(&["--out", "a", "--quiet", "--threads", "1"]));
    succeed(folder.path(), &small(&["--out", "b", "--quiet", "--threads", "2"]));
    succeed(folder.path(), &["run", "a/config.toml", "--out", "c", "--quiet"]);
    succeed(folder.path(), &small(&["--out", "other", "--quiet", "--seed", "1"]));
    let bytes = |dir: &str, name: &str| read(&folder.path().join(dir).join(name));
    for name in ["model.safetensors", "latents.npz", "masks.csv", "shifts.csv"] {
        assert!(bytes("a", name) == bytes("b", name), "{name} depends on the threads");
        assert!(bytes("a", name) == bytes("c", name), "{name} is not repeated from config.toml");
        assert!(bytes("a", name) != bytes("other", name), "{name} does not depend on the seed");
    }
    for name in
        ["edges.csv", "cells.csv", "targets.csv", "genes_per_latent.csv", "graph.graphml", "graph.dot", "results.h5ad"]
    {
        assert!(bytes("a", name) == bytes("b", name), "{name} depends on the threads");
        assert!(bytes("a", name) == bytes("c", name), "{name} is not repeated from config.toml");
    }
    assert_eq!(bytes("a", "config.toml"), bytes("c", "config.toml"));
    // All of history.csv but its last column, the seconds.
    let history = |dir: &str| -> Vec<String> {
        let text = String::from_utf8(bytes(dir, "history.csv")).expect("UTF-8");
        text.lines().map(|line| line.rsplit_once(',').expect("columns").0.to_owned()).collect()
    };
    assert_eq!(history("a"), history("b"));
}

#[test]
fn of_several_starts_the_one_with_the_lowest_validation_elbo_is_kept() {
    let folder = folder();
    let figures = |out: &'static str, more: &[&'static str]| -> serde_json::Value {
        succeed(folder.path(), &[&small(&["--no-heldout", "--out", out])[..], more].concat());
        serde_json::from_slice(&read(&folder.path().join(out).join("metrics.json"))).expect("JSON")
    };
    let alone = figures("alone", &[]);
    assert!(alone.get("starts").is_none());
    // Seeds until a later start wins, so that keeping always the first would show.
    let mut kept = std::collections::BTreeSet::new();
    for seed in ["0", "1", "2", "3", "4", "5", "6", "7"] {
        let several = figures("several", &["--starts", "3", "--seed", seed, "--sim-seed", "0", "--overwrite"]);
        let elbos = several["starts"]["elbo_validation"].as_array().expect("a list");
        let elbos: Vec<f64> = elbos.iter().map(|elbo| elbo.as_f64().expect("a number")).collect();
        assert_eq!(elbos.len(), 3);
        let lowest = (0..3).min_by(|&i, &j| elbos[i].total_cmp(&elbos[j])).expect("three");
        assert_eq!(several["starts"]["kept"], lowest);
        kept.insert(lowest);
        // What is kept is the training itself, not only its figure.
        let history = String::from_utf8(read(&folder.path().join("several/history.csv"))).expect("UTF-8");
        let mut table = csv::Reader::from_reader(history.as_bytes());
        let column = table.headers().expect("a header").iter().position(|name| name == "validation_elbo").expect("it");
        let best = table.records().map(|row| row.expect("a row")[column].parse::<f64>().expect("a number"));
        assert_eq!(best.fold(f64::INFINITY, f64::min), elbos[lowest]);
        if lowest == 0 {
            let alone = figures("alone", &["--seed", seed, "--sim-seed", "0", "--overwrite"]);
            assert_eq!(alone["elbo_validation"], several["elbo_validation"]);
        }
    }
    assert!(kept.len() > 1, "{kept:?}");
}

#[test]
fn every_method_trains() {
    let folder = folder();
    for method in ["vae", "beta-vae", "ivae", "svae", "svae-plus"] {
        let args = small(&["--quiet", "--json", "--method", method]);
        let (out, _) = succeed(folder.path(), &args);
        let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(value["method"], method);
    }
}

#[test]
fn a_poisson_model_is_trained_saved_and_used() {
    let folder = folder();
    let (out, _) = succeed(folder.path(), &small(&["--quiet", "--json", "--likelihood", "poisson", "--out", "a"]));
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(value["elbo_validation"].as_f64().is_some_and(f64::is_finite), "{out}");
    let settings = String::from_utf8(read(&folder.path().join("a/config.toml"))).expect("UTF-8");
    assert!(settings.contains("likelihood = \"poisson\"") && !settings.contains("likelihood_epsilon"), "{settings}");
    // A model without a dispersion, which says so.
    for model in ["a/model.safetensors", "a/model_heldout.safetensors"] {
        let bytes = read(&folder.path().join(model));
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a model");
        assert_eq!(header.metadata().as_ref().expect("metadata")["likelihood"], "poisson");
        assert!(header.tensors().keys().all(|name| name != "log_dispersion"));
    }
    // What is done with a saved model knows its likelihood.
    succeed(folder.path(), &["evaluate", "a", "--quiet"]);
    succeed(folder.path(), &["normalize", "--model", "a", "--out", "n.npz"]);
    let sample = ["sample", "--model", "a", "--cells", "2000", "--size-factor", "500", "--out", "s.npz"];
    succeed(folder.path(), &sample);
    // The total of a cell is a Poisson count about its size factor: mean and variance 500, five standard errors each.
    let npz = Npz::open(folder.path().join("s.npz")).expect("readable");
    let (shape, x) = npz.array_i64("x").expect("counts");
    let totals: Vec<f64> = x.chunks_exact(shape[1]).map(|row| row.iter().sum::<i64>() as f64).collect();
    let n = totals.len() as f64;
    let mean = totals.iter().sum::<f64>() / n;
    let variance = totals.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / n;
    assert!((mean - 500.0).abs() < 5.0 * f64::sqrt(500.0 / n), "{mean}");
    assert!((variance - 500.0).abs() < 5.0 * 500.0 * f64::sqrt(2.0 / n), "{variance}");
    succeed(folder.path(), &["embed", "--model", "a", "--data", "s.npz", "--out", "e.csv"]);
}

#[test]
fn a_simulation_can_be_saved_and_trained_on() {
    let folder = folder();
    let args = ["simulate", "--out", "s.npz", "--sim-cells", "20", "--sim-interventions", "8", "--sim-genes", "30"];
    succeed(folder.path(), &args);
    assert_eq!(names(folder.path()), ["s.npz"]);
    let train = ["run", "--data", "s.npz", "--epochs", "2", "--hidden", "16", "--quiet", "--json", "--out", "a"];
    let (out, _) = succeed(folder.path(), &train);
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(value["n_cells"], 160);
}

/// Everything that makes a simulation harder at once.
const HARD: [&str; 14] = [
    "--sim-depth",
    "400",
    "--sim-shift",
    "3",
    "--sim-dispersion",
    "5",
    "--sim-together",
    "0.5",
    "--sim-batches",
    "3",
    "--sim-escaped",
    "0.3",
    "--sim-controls",
    "30",
];

#[test]
fn a_hard_simulation_is_the_same_in_a_file_and_in_a_run() {
    let folder = folder();
    let sizes = ["--sim-cells", "20", "--sim-interventions", "8", "--sim-genes", "30"];
    let args = [&["simulate", "--out", "s.npz"][..], &sizes, &HARD].concat();
    succeed(folder.path(), &args);
    let options = LoadOptions {
        control: vec!["control".to_owned()],
        batch_key: Some("batch".to_owned()),
        ..LoadOptions::default()
    };
    let loaded = load(&folder.path().join("s.npz"), &options).expect("a screen").dataset;
    let simulation = Simulation {
        cells_per_intervention: 20,
        n_interventions: 8,
        n_genes: 30,
        depth: Some(400),
        shift: Some(3.0),
        dispersion: Some(5.0),
        together: Some(0.5),
        n_batches: Some(3),
        escaped: Some(0.3),
        n_controls: Some(30),
        ..Simulation::default()
    };
    let simulated = simulate(&simulation).expect("a screen").dataset;
    assert!(simulated.truth.as_ref().is_some_and(|truth| truth.escaped.contains(&true)));
    assert_eq!(Dataset { source: loaded.source.clone(), ..simulated }, loaded);

    // What is said of the file on the command line is what `inspect` proposes.
    let (out, _) = succeed(folder.path(), &["inspect", "s.npz"]);
    assert!(out.contains("--control control") && out.contains("--batch-key batch"), "{out}");
    let common = ["--epochs", "2", "--hidden", "16", "--quiet", "--json", "--particles", "20"];
    let file = ["run", "--data", "s.npz", "--control", "control", "--batch-key", "batch", "--out", "a", "--holdout"];
    let run_of =
        |args: &[&str]| -> serde_json::Value { serde_json::from_str(&succeed(folder.path(), args).0).expect("JSON") };
    let by_file = run_of(&[&file[..], &["intervention_7"], &common].concat());
    let by_run = run_of(&[&["run", "--out", "b"][..], &sizes, &HARD, &common].concat());
    for figure in ["n_cells", "n_genes", "n_interventions", "elbo_validation", "mcc_pearson", "graph", "latent_kl"] {
        assert_eq!(by_file[figure], by_run[figure], "{figure}");
    }
    assert_eq!((&by_run["n_cells"], &by_run["n_interventions"]), (&190.into(), &8.into()));
    assert_eq!(by_file["heldout"]["nll_iwelbo"], by_run["heldout"]["nll_iwelbo"]);
    // The run alone has the true decoder; where cells escaped, a diagonal posterior costs no known number of nats.
    assert_eq!(keys(&by_run["oracle"]), ["mcc_pearson", "mcc_spearman", "r2", "n_cells", "particles"]);
    assert!(
        by_run["heldout"]["oracle"]["nll"].as_f64().expect("a number")
            < by_run["heldout"]["nll_iwelbo"].as_f64().expect("a number")
    );
    let config = fs::read_to_string(folder.path().join("b/config.toml")).expect("settings");
    for line in [
        "depth = 400",
        "shift = 3.0",
        "dispersion = 5.0",
        "together = 0.5",
        "batches = 3",
        "escaped = 0.3",
        "controls = 30",
    ] {
        assert!(config.lines().any(|found| found == line), "{line}: {config}");
    }
    succeed(folder.path(), &["embed", "--model", "b", "--data", "s.npz", "--out", "e.csv"]);
    succeed(folder.path(), &["run", "b/config.toml", "--out", "again", "--quiet"]);
    assert_eq!(read(&folder.path().join("again/model.safetensors")), read(&folder.path().join("b/model.safetensors")));
}

#[test]
fn the_null_is_trained_on_and_nothing_is_there_to_be_found() {
    let folder = folder();
    let (out, _) =
        succeed(folder.path(), &small(&["--sim-shift", "0", "--sim-depth", "500", "--quiet", "--json", "--out", "a"]));
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(value["graph"]["corrected"]["recall"], 0.0);
    assert_eq!(value["graph"]["corrected"]["f1"], 0.0);
    for (flags, says) in [
        (["--sim-shift=0", "--sim-escaped=0.3"], "none can escape"),
        (["--sim-together=1", "--sim-targeted-latents=1"], "--sim-together"),
        (["--sim-depth=0", "--quiet"], "--sim-depth"),
        (["--sim-escaped=1.1", "--quiet"], "at most 1"),
        (["--sim-batches=1", "--quiet"], "--sim-batches"),
    ] {
        let (code, _, err) = said(&run(folder.path(), &[&["run"][..], &flags].concat()));
        assert!(code == 2 && err.contains(says), "{flags:?}: {code} {err}");
    }
}

#[test]
fn verify_passes_and_prints_its_checks() {
    let folder = folder();
    let settings = ["verify", "--sim-cells", "5", "--sim-interventions", "4", "--sim-genes", "9", "--hidden", "6"];
    let (out, _) = succeed(folder.path(), &[&settings[..], &["--json"]].concat());
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON and nothing else");
    assert_eq!(keys(&value), ["pass", "checks"]);
    assert_eq!(value["pass"], true);
    let checks = value["checks"].as_array().expect("a list");
    assert!(!checks.is_empty());
    for check in checks {
        assert_eq!(keys(check), ["name", "kind", "worst_relative_error", "tolerance", "pass"]);
    }
    let (out, _) = succeed(folder.path(), &settings);
    assert!(out.contains("verdict") && out.contains("passed"), "{out}");
}
