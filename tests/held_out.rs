//! The held-out protocol from the command line: what it writes, that it repeats, and what it refuses.

use std::fs;
use std::path::Path;

use crate::support::{names, run, said};
use serde_json::Value;

/// A simulation and a model small enough to be trained in a moment; the last two of ten interventions are held out.
const SMALL: [&str; 17] = [
    "run",
    "--sim-cells",
    "12",
    "--sim-interventions",
    "10",
    "--sim-genes",
    "30",
    "--epochs",
    "3",
    "--warmup-epochs",
    "1",
    "--hidden",
    "16",
    "--particles",
    "20",
    "--quiet",
    "--json",
];

const TAIL: [&str; 2] = ["--out", "a"];

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn succeed(folder: &Path, args: &[&str]) -> Value {
    let (code, out, err) = said(&run(folder, args));
    assert_eq!(code, 0, "{args:?}: {err}");
    serde_json::from_str(&out).expect("JSON and nothing else")
}

fn refused(folder: &Path, args: &[&str]) -> String {
    let (code, out, err) = said(&run(folder, args));
    assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    err
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// The metrics without times and without what only the training knows.
fn figures(metrics: &Value) -> Value {
    let mut metrics = metrics.clone();
    let map = metrics.as_object_mut().expect("an object");
    for key in ["timing", "epochs", "stop_reason"] {
        map.remove(key);
    }
    if let Some(heldout) = map.get_mut("heldout").and_then(Value::as_object_mut) {
        heldout.remove("seconds");
        heldout.remove("retraining");
    }
    metrics
}

#[test]
fn the_metrics_hold_every_promised_figure() {
    let folder = folder();
    let metrics = succeed(folder.path(), &[&SMALL[..], &TAIL].concat());
    let heldout = &metrics["heldout"];
    let promised = [
        "nll_iwelbo",
        "elbo",
        "particles",
        "n_interventions",
        "batch_norm",
        "stages",
        "latents",
        "baseline",
        "oracle",
        "per_intervention",
        "left_out",
        "retraining",
        "seconds",
    ];
    assert_eq!(keys(heldout), promised);
    assert_eq!((&heldout["particles"], &heldout["n_interventions"]), (&20.into(), &2.into()));
    assert_eq!(keys(&heldout["stages"]), ["before_binarisation", "after_retraining", "after_fitting"]);
    let number = |value: &Value| value.as_f64().filter(|v| v.is_finite() && *v > 0.0).expect("a positive number");
    for stage in ["before_binarisation", "after_retraining", "after_fitting"] {
        let bounds = &heldout["stages"][stage];
        assert!(number(&bounds["nll_iwelbo"]) <= number(&bounds["elbo"]), "{bounds}");
    }
    assert_eq!(heldout["stages"]["after_fitting"]["nll_iwelbo"], heldout["nll_iwelbo"]);
    // Scores of the fitted model, not of the first training.
    for score in ["mcc_pearson", "mcc_spearman", "r2"] {
        assert!(number(&heldout["latents"][score]) < 1.0 && heldout["latents"][score] != metrics[score], "{score}");
    }
    let each = heldout["per_intervention"].as_array().expect("a list");
    let found: Vec<&str> = each.iter().map(|entry| entry["intervention"].as_str().expect("a name")).collect();
    assert_eq!(found, ["intervention_8", "intervention_9"]);
    assert!(each.iter().all(|entry| entry["n_cells"] == 12));
    let mean = each.iter().map(|entry| number(&entry["nll_iwelbo"])).sum::<f64>() / 2.0;
    assert!((mean - number(&heldout["nll_iwelbo"])).abs() < 1e-9 * mean);
    for baseline in [&heldout["baseline"], &metrics["baseline"]] {
        assert_eq!(keys(baseline), ["pooled_negative_binomial", "per_intervention_negative_binomial"]);
    }
    // The true model beats one that was hardly trained.
    assert!(number(&heldout["oracle"]["nll"]) < number(&heldout["nll_iwelbo"]));
    assert_eq!(heldout["oracle"]["n_cells"], 24);

    // The fit leaves the tables of the first training alone.
    let dir = folder.path().join("a");
    let table = |name: &str| {
        let mut table = csv::Reader::from_path(dir.join(name)).expect("a table");
        table.records().map(|row| row.expect("a row").iter().map(str::to_owned).collect()).collect::<Vec<Vec<String>>>()
    };
    let (first, fitted) = (table("shifts.csv"), table("shifts_heldout.csv"));
    assert_eq!(fitted.len(), 10);
    assert!((0..10).all(|a| first[a][0] == fitted[a][0] && first[a][1..] != fitted[a][1..]));
    // A third of the three epochs of the first training.
    assert_eq!(csv::Reader::from_path(dir.join("history_retrain.csv")).expect("a table").records().count(), 1);
}

#[test]
fn evaluate_repeats_the_figures_of_the_run() {
    for method in ["vae", "beta-vae", "ivae", "svae", "svae-plus"] {
        let folder = folder();
        let ran = succeed(folder.path(), &[&SMALL[..], &TAIL, &["--method", method]].concat());
        let evaluated = succeed(folder.path(), &["evaluate", "a", "--quiet", "--json"]);
        assert_eq!(figures(&ran), figures(&evaluated), "{method}");
        let written: Value = serde_json::from_slice(&read(&folder.path().join("a/evaluation.json"))).expect("JSON");
        assert_eq!(written, evaluated);
        assert!(evaluated.get("epochs").is_none());
    }
    // Learned masks of the iVAE, and another number of samples: another bound of the same model.
    let folder = folder();
    let ran = succeed(folder.path(), &[&SMALL[..], &TAIL, &["--method", "ivae", "--ivae-mask", "learned"]].concat());
    assert!(ran.get("mask").is_some());
    let args = ["evaluate", "a", "--quiet", "--json", "--particles", "500", "--threads", "3"];
    let tighter = succeed(folder.path(), &args);
    assert_eq!(tighter["heldout"]["particles"], 500);
    let nll = |metrics: &Value| metrics["heldout"]["nll_iwelbo"].as_f64().expect("a number");
    let change = nll(&tighter) - nll(&ran);
    assert!(change != 0.0 && change.abs() < 1.0, "{change}");
    assert_eq!(tighter["elbo_validation"], ran["elbo_validation"]);
}

#[test]
fn threads_do_not_change_a_byte() {
    let folder = folder();
    let all: Vec<Value> = ["1", "2", "3"]
        .iter()
        .map(|threads| succeed(folder.path(), &[&SMALL[..], &["--out", threads, "--threads", threads]].concat()))
        .collect();
    for (threads, metrics) in ["2", "3"].iter().zip(&all[1..]) {
        assert_eq!(figures(metrics), figures(&all[0]));
        for name in ["model.safetensors", "model_heldout.safetensors", "shifts_heldout.csv", "masks.csv", "edges.csv"] {
            let bytes = |dir: &str| read(&folder.path().join(dir).join(name));
            assert!(bytes("1") == bytes(threads), "{name} with {threads} threads");
        }
    }
}

#[test]
fn stages_can_be_run_later_with_the_same_result() {
    let folder = folder();
    let at_once = succeed(folder.path(), &[&SMALL[..], &TAIL].concat());
    let shorter: Vec<&str> = SMALL
        .iter()
        .copied()
        .filter(|arg| !["--particles", "20"].contains(arg))
        .chain(["--out", "b", "--no-heldout"])
        .collect();
    let trained = succeed(folder.path(), &shorter);
    assert!(trained.get("heldout").is_none());
    let dir = folder.path().join("b");
    assert!(!names(&dir).iter().any(|name| name.contains("heldout") || name.contains("retrain")));

    // Without the protocol's model there is nothing to judge on held-out cells.
    assert!(succeed(folder.path(), &["evaluate", "b", "--quiet", "--json"]).get("heldout").is_none());
    let later = succeed(folder.path(), &["fit-shifts", "b", "--particles", "20", "--quiet", "--json"]);
    assert_eq!(figures(&later), figures(&at_once));
    for name in ["model_heldout.safetensors", "shifts_heldout.csv"] {
        assert!(read(&dir.join(name)) == read(&folder.path().join("a").join(name)), "{name}");
    }
    let said = refused(folder.path(), &["fit-shifts", "b"]);
    assert!(said.contains("--overwrite") && said.contains("model_heldout.safetensors"), "{said}");

    let args =
        ["fit-shifts", "b", "--overwrite", "--heldout-batch-norm", "drift", "--particles", "20", "--quiet", "--json"];
    let drifted = succeed(folder.path(), &args);
    assert_eq!(drifted["heldout"]["batch_norm"], "drift");
    assert_ne!(drifted["heldout"]["nll_iwelbo"], later["heldout"]["nll_iwelbo"]);
    assert_eq!(drifted["heldout"]["stages"]["after_retraining"], later["heldout"]["stages"]["after_retraining"]);
}

#[test]
fn interventions_with_ten_cells_are_left_out_and_named() {
    let folder = folder();
    let args: Vec<&str> = SMALL.iter().map(|&arg| if arg == "12" { "10" } else { arg }).chain(TAIL).collect();
    let metrics = succeed(folder.path(), &args);
    assert_eq!(metrics["heldout"]["left_out"], serde_json::json!(["intervention_8", "intervention_9"]));
    assert_eq!(metrics["heldout"]["n_interventions"], 0);
    assert_eq!(metrics["heldout"]["nll_iwelbo"], Value::Null);
    let args: Vec<&str> = ["run", "a/config.toml", "--sim-cells", "11", "--out", "b", "--quiet", "--json"].into();
    let metrics = succeed(folder.path(), &args);
    assert_eq!(
        (&metrics["heldout"]["left_out"], &metrics["heldout"]["n_interventions"]),
        (&serde_json::json!([]), &2.into())
    );
}

#[test]
fn folders_and_models_that_do_not_fit_are_refused() {
    let folder = folder();
    for command in ["evaluate", "fit-shifts"] {
        assert!(refused(folder.path(), &[command, "nowhere"]).contains("no such folder"));
    }
    fs::create_dir(folder.path().join("empty")).expect("a folder");
    assert!(refused(folder.path(), &["evaluate", "empty"]).contains("config.toml is missing"));

    succeed(folder.path(), &[&SMALL[..], &TAIL, &["--mask", "hard"]].concat());
    let path = folder.path().join("a/model_heldout.safetensors");
    let good = read(&path);
    fs::write(&path, &good[..good.len() - 5]).expect("written");
    assert!(refused(folder.path(), &["evaluate", "a"]).contains("model_heldout.safetensors"));
    fs::remove_file(&path).expect("removed");

    // A model of another method, of another size, and of other interventions.
    let config = folder.path().join("a/config.toml");
    let text = String::from_utf8(read(&config)).expect("UTF-8");
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} in {text}");
        fs::write(&config, text.replace(from, to)).expect("written");
        refused(folder.path(), &["evaluate", "a"])
    };
    assert!(changed("method = \"svae-plus\"", "method = \"svae\"").contains("method is not svae"));
    assert!(changed("hidden = 16", "hidden = 17").contains("tensor `encoder.0.weight`: its shape is"));
    assert!(changed("genes = 30", "genes = 31").contains("tensor `encoder.0.weight`: its shape is"));
    assert!(changed("precision = \"f32\"", "precision = \"f64\"").contains("its values are f32, not f64"));
    let said = changed("interventions = 10", "interventions = 9");
    assert!(said.contains("no cell has the label"), "{said}");
    assert!(!folder.path().join("a/evaluation.json").exists());

    fs::write(&config, text.replace("holdout = [\"intervention_8\", \"intervention_9\"]", "holdout = []"))
        .expect("written");
    assert!(refused(folder.path(), &["fit-shifts", "a"]).contains("holds no intervention out"));
    assert!(refused(folder.path(), &[&SMALL[..], &["--no-heldout"]].concat()).contains("--particles"));
}

/// Eight interventions, their combinations, and a model small enough to be trained in a moment.
const COMBINED: [&str; 19] = [
    "run",
    "--sim-cells",
    "12",
    "--sim-interventions",
    "8",
    "--sim-combinations",
    "12",
    "--sim-genes",
    "30",
    "--epochs",
    "3",
    "--warmup-epochs",
    "1",
    "--hidden",
    "16",
    "--particles",
    "20",
    "--quiet",
    "--json",
];

#[test]
fn combinations_of_known_interventions_are_scored_without_a_fit() {
    let folder = folder();
    let metrics = succeed(folder.path(), &[&COMBINED[..], &["--out", "a"]].concat());
    let heldout = &metrics["heldout"];
    let each = heldout["per_intervention"].as_array().expect("combinations");
    assert_eq!(each.len(), 3, "a quarter of twelve");
    let of = |key: &str| each.iter().map(|each| each[key].as_f64().expect("a number")).collect::<Vec<f64>>();
    let (bounds, cells) = (of("nll_iwelbo"), of("n_cells"));
    let mean = bounds.iter().sum::<f64>() / 3.0;
    assert!((heldout["nll_iwelbo"].as_f64().expect("a number") - mean).abs() < 1e-9);
    let by_cell = bounds.iter().zip(&cells).map(|(b, n)| b * n).sum::<f64>() / cells.iter().sum::<f64>();
    assert!((heldout["nll_iwelbo_by_cell"].as_f64().expect("a number") - by_cell).abs() < 1e-9);
    assert!(heldout.get("retraining").is_none() && heldout.get("batch_norm").is_none());
    let files = names(&folder.path().join("a"));
    assert!(!files.iter().any(|file| file == "model_heldout.safetensors"), "{files:?}");

    // The folder's settings name the combinations, and repeat the run; the figures come again.
    let config = fs::read_to_string(folder.path().join("a/config.toml")).expect("settings");
    assert!(config.contains("holdout = [\"intervention_"), "{config}");
    let args = ["run", "a/config.toml", "--quiet", "--json", "--out", "b"];
    assert_eq!(figures(&succeed(folder.path(), &args)), figures(&metrics));
    assert_eq!(figures(&succeed(folder.path(), &["evaluate", "a", "--quiet", "--json"])), figures(&metrics));
    let said = refused(folder.path(), &["fit-shifts", "a", "--quiet"]);
    assert!(said.contains("there is no shift to fit"), "{said}");
}

#[test]
fn named_combinations_are_held_out_whatever_the_order_of_their_members() {
    let folder = folder();
    let two = ["--sim-interventions", "3", "--sim-combinations", "2", "--sim-seed", "1"];
    let all = [&["run", "--sim-cells", "12"][..], &two, &COMBINED[7..]].concat();
    let label = |metrics: &Value| metrics["heldout"]["per_intervention"][0]["intervention"].as_str().map(str::to_owned);
    let one = succeed(folder.path(), &[&all[..], &["--holdout", "combinations:0.5", "--out", "a"]].concat());
    let name = label(&one).expect("a combination");
    let (first, second) = name.split_once('+').expect("two members");
    let turned = format!("{second} + {first}");
    let again = succeed(folder.path(), &[&all[..], &["--holdout", &turned, "--out", "b"]].concat());
    assert_eq!(figures(&again), figures(&one));
    let error = refused(folder.path(), &[&all[..], &["--holdout", "intervention_0+intervention_7"]].concat());
    assert!(error.contains("intervention_0+intervention_7") && error.contains("did you mean"), "{error}");
}

#[test]
fn a_member_that_no_training_cell_has_is_said_and_its_shift_is_fitted() {
    let folder = folder();
    let simulated =
        ["simulate", "--out", "s.npz", "--sim-interventions", "2", "--sim-cells", "60", "--sim-genes", "30"];
    let (code, _, err) = said(&run(folder.path(), &simulated));
    assert_eq!(code, 0, "{err}");
    // C comes in held-out combinations alone.
    let label = |n: usize| ["A", "B", "A", "B", "A+C", "C+B"][n % 6];
    let rows: String = (0..120).map(|n| format!("cell_{n:03},{}\n", label(n))).collect();
    fs::write(folder.path().join("labels.csv"), format!("barcode,guide\n{rows}")).expect("a table");
    let args = [
        &["run", "--data", "s.npz", "--labels", "labels.csv", "--label-key", "guide", "--combination-separator", "+"][..],
        &["--holdout", "A+C,B+C", "--epochs", "3", "--warmup-epochs", "1", "--hidden", "16", "--particles", "20"],
        &["--json", "--out", "a"],
    ];
    let (code, out, err) = said(&run(folder.path(), &args.concat()));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("no training cell has `C`, which held-out combinations contain"), "{err}");
    let metrics: Value = serde_json::from_str(&out).expect("JSON");
    let labels: Vec<&str> = metrics["heldout"]["per_intervention"]
        .as_array()
        .expect("combinations")
        .iter()
        .filter_map(|each| each["intervention"].as_str())
        .collect();
    assert_eq!(labels, ["A+C", "B+C"]);
    // Fitted to these cells, and so no prediction to be judged.
    let files = names(&folder.path().join("a"));
    assert!(files.iter().any(|file| file == "model_heldout.safetensors"), "{files:?}");
    assert!(!files.iter().any(|file| file == "judgement.json"), "{files:?}");
    let predicted = ["predict", "a", "--interventions", "A+C", "--model-alone", "--out", "p.csv"];
    let (code, _, err) = said(&run(folder.path(), &predicted));
    assert!(code == 0 && err.contains("fitted to held-out interventions"), "{err}");
}
