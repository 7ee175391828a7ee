//! `svae-cpu judge`: predictions of held-out combinations beside baselines, from the command line.

use std::fs;
use std::path::Path;

use crate::support::{names, run, said};
use serde_json::Value;

/// A screen of combinations and controls with few counts, of which half are held out.
const SCREEN: [&str; 23] = [
    "run",
    "--sim-cells",
    "60",
    "--sim-interventions",
    "6",
    "--sim-combinations",
    "8",
    "--sim-controls",
    "200",
    "--sim-genes",
    "40",
    "--sim-latents",
    "4",
    "--sim-depth",
    "2000",
    "--sim-shift",
    "2",
    "--latents",
    "4",
    "--holdout",
    "combinations:0.5",
    "--particles",
    "20",
];

fn succeed(folder: &Path, args: &[&str]) -> (String, String) {
    let (code, out, err) = said(&run(folder, args));
    assert_eq!(code, 0, "{args:?}: {err}");
    (out, err)
}

fn judgement(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("judgement.json")).expect("a judgement");
    serde_json::from_str(&text).expect("JSON")
}

fn score(judgement: &Value, predictor: &str, score: &str) -> f64 {
    let predictors = judgement["predictors"].as_array().expect("predictors");
    let found = predictors.iter().find(|found| found["predictor"] == predictor).expect("the predictor");
    let scores = found["scores"].as_array().expect("scores");
    scores.iter().find(|found| found["score"] == score).expect("the score")["value"].as_f64().expect("a number")
}

#[test]
fn the_true_model_reaches_the_ceiling_and_a_model_that_knows_nothing_is_called_worse() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    // So short a training that nothing is known.
    let untrained = ["--epochs", "1", "--warmup-epochs", "1", "--hidden", "8", "--no-h5ad", "--out", "a"];
    let (_, noted) = succeed(folder, &[&SCREEN[..], &untrained].concat());
    assert!(noted.contains("The model is WORSE than the baseline `"), "{noted}");
    let found = judgement(&folder.join("a"));
    assert_eq!(found["n_combinations"], 4);
    let of = |predictor: &str, name: &str| score(&found, predictor, name);
    let range = found["ranges"].as_array().expect("ranges");
    let range = |name: &str, key: &str| {
        range.iter().find(|range| range["score"] == name).expect("the score")[key].as_f64().expect("a number")
    };
    for name in ["pearson_control", "pearson_centroid", "weighted_r2"] {
        assert!(of("true model", name) > range(name, "ceiling") - 0.01, "{name}: half of the cells know less");
        assert!(of("true model", name) > of("model", name) && range(name, "ceiling") > range(name, "floor"), "{name}");
    }
    assert!(of("true model", "weighted_mse") < of("additive", "weighted_mse"));
    // What training cells show is carried over, noise apart: nearly all of what is added up.
    assert!(of("model", "weighted_mse") < 0.5 * of("model alone", "weighted_mse"));
    assert!(of("model", "pearson_control") > of("additive", "pearson_control") - 0.02);
    let (bounds, intervals) = (&found["bounds"]["generalisation"], &found["intervals"]);
    let number = |value: &Value| value.as_f64().expect("a number");
    let cells = fs::read_to_string(folder.join("a/cells.csv")).expect("a table");
    let n_seen = cells.lines().filter(|line| line.contains('+') && line.contains(",validation,")).count();
    assert!(n_seen > 10);
    assert_eq!((&bounds["unseen"]["n_cells"], &bounds["seen"]["n_cells"]), (&240.into(), &n_seen.into()));
    let above = |of: &str| number(&bounds[of]["nll_iwelbo"]) - number(&bounds[of]["true_model"]);
    assert!(above("unseen") > 0.0 && above("seen") > 0.0, "no model knows more than the true one: {bounds}");
    assert!((above("unseen") - above("seen") - number(&bounds["cost"])).abs() < 1e-6);
    assert!(number(&intervals["coverage_widened"]) > 0.8 && number(&intervals["widening"]) > 0.2, "{intervals}");
    assert!(of("true model", "energy_distance") < of("no change", "energy_distance"));
    assert_eq!((of("no change", "rank"), of("true model", "centroid_accuracy")), (0.5, 1.0));
    let report = fs::read_to_string(folder.join("a/report.html")).expect("a report");
    assert!(report.contains("The model is worse than the baseline \u{201c}"));

    // Judged again: the same, at any number of threads.
    let files = ["judgement.json", "judgement.csv", "non_additive.csv", "cell_eval_real.h5ad", "cell_eval_pred.h5ad"];
    let bytes = || files.map(|file| fs::read(folder.join("a").join(file)).expect(file));
    let before = bytes();
    let (table, _) = succeed(folder, &["judge", "a", "--threads", "3"]);
    assert!(table.contains("4 held-out combinations, 240 cells") && table.contains("true model"), "{table}");
    assert!(before == bytes());
    let (text, _) = succeed(folder, &["judge", "a", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), found);
    let scores = fs::read_to_string(folder.join("a/judgement.csv")).expect("a table");
    assert_eq!(scores.lines().count(), 1 + 4 * 8, "five baselines, the model, alone and not, and the true one");
}

#[test]
fn a_run_without_combinations_has_nothing_to_judge() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let small =
        ["run", "--sim-cells", "12", "--sim-interventions", "5", "--sim-genes", "20", "--epochs", "1", "--out", "a"];
    succeed(folder, &[&small[..], &["--warmup-epochs", "1", "--particles", "5"]].concat());
    assert!(!names(&folder.join("a")).iter().any(|name| name.starts_with("judgement")));
    let (code, _, err) = said(&run(folder, &["judge", "a"]));
    assert!(code == 2 && err.contains("holds no combination out"), "{err}");
}

#[test]
fn without_control_cells_effects_are_from_the_mean_of_the_perturbed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let without: Vec<&str> = SCREEN.iter().copied().filter(|word| !["--sim-controls", "200"].contains(word)).collect();
    succeed(folder, &[&without[..], &["--epochs", "2", "--warmup-epochs", "1", "--quiet", "--out", "a"]].concat());
    let found = judgement(&folder.join("a"));
    assert_eq!(found["from_controls"], false);
    assert!(score(&found, "true model", "pearson_control") > 0.9);
    assert_eq!(found["non_additive"].as_array().map(Vec::len), Some(0));
    assert!(!folder.join("a/cell_eval_pred.h5ad").exists());
}
