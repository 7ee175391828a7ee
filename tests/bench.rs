//! `svae-cpu bench`: its figures agree with each other, and its mistakes are explained.

use crate::support::{run, said};
use serde_json::Value;

fn json(args: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = said(&run(folder.path(), args));
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).expect("one JSON object on standard output")
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {value}"))
}

#[test]
fn figures_of_a_shape_agree_with_each_other() {
    let found = json(&["bench", "--shape", "simulation", "--threads", "2", "--seconds", "0.2", "--json"]);
    let shapes = found["shapes"].as_array().unwrap();
    assert_eq!(shapes.len(), 1);
    let shape = &shapes[0];
    assert_eq!((&shape["name"], &shape["threads"]), (&Value::from("simulation"), &Value::from(2)));
    let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-6, "{a} {b}");
    close(number(shape, "cells_per_second"), 128.0 / (number(shape, "ms_per_step") / 1e3));
    close(number(shape, "share_of_peak"), number(shape, "gflops") / number(shape, "peak_gflops"));
    // Forward, input and weight gradients of 64,128 weights; the first layer needs no input gradient.
    let flop = 128.0 * (6.0 * 64_128.0 - 2.0 * 12_800.0);
    close(number(shape, "gflops"), flop / (number(shape, "ms_per_step") / 1e3) / 1e9);
    let stages = shape["stages"].as_object().unwrap();
    for stage in ["minibatch", "encoder", "mask_and_prior", "decoder", "likelihood", "backward", "adam"] {
        assert!(stages[stage].as_f64().unwrap() > 0.0, "{stage}");
    }
    assert!(stages.contains_key("everything_else"));
    assert!(number(shape, "encoded_cells_per_second") > 0.0 && number(shape, "particles_per_second") > 0.0);
    assert!(number(shape, "peak_rss_bytes") > 1e6);
    assert!(found.get("prediction").is_none());
}

#[test]
fn a_run_of_one_s_own_is_predicted() {
    let small = ["--sim-cells", "40", "--sim-genes", "20", "--sim-interventions", "10", "--seconds", "0.1", "--json"];
    let predicted = |more: &[&str]| {
        let args: Vec<&str> = ["bench", "--threads", "1"].iter().chain(&small).chain(more).copied().collect();
        json(&args)
    };
    let found = predicted(&["--epochs", "10"]);
    assert_eq!(found["shapes"][0]["name"], "run");
    let prediction = &found["prediction"];
    assert_eq!((&prediction["epochs"], &prediction["threads"]), (&Value::from(10), &Value::from(1)));
    // 8 of 10 interventions train, of whose 320 cells 32 validate.
    let rate = number(&found["shapes"][0], "cells_per_second");
    let want = 10.0 * (288.0 + 32.0 / 3.0) / rate;
    assert!((number(prediction, "training_seconds") / want - 1.0).abs() < 1e-6);
    assert!(number(prediction, "memory_bytes") > 1e6);
    // A retraining of a third of the epochs, then 1,000 samples of 80 cells, drawn twice: two of three stages share them.
    let samples = number(&found["shapes"][0], "particles_per_second");
    let want = want * 4.0 / 10.0 + 2.0 * 80_000.0 / samples;
    assert!((number(prediction, "heldout_seconds") / want - 1.0).abs() < 1e-6);
    let without = predicted(&["--epochs", "10", "--no-heldout"]);
    assert_eq!(number(&without["prediction"], "heldout_seconds"), 0.0);
}

#[test]
fn mistakes_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    for (args, words) in [
        (&["bench", "--seconds", "0"][..], "give more than 0"),
        (&["bench", "--shape", "cube"], "simulation, screen"),
        (&["bench", "--threads", "0"], "threads"),
        (&["bench", "--data", "none.h5ad", "--label-key", "a"], "none.h5ad"),
    ] {
        let (code, out, err) = said(&run(folder.path(), args));
        assert!(code == 2 && out.is_empty() && err.contains(words), "{args:?}: {code} {err}");
    }
}
