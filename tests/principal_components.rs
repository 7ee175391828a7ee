//! The linear model: by itself as `--method pca`, and beside every network whose edges are weighed by their evidence.

use std::path::Path;

use svae_cpu::data::formats::npz::Npz;

use crate::support::{names, run, said};

fn succeed(folder: &Path, args: &[&str]) -> String {
    let (code, out, complaint) = said(&run(folder, args));
    assert_eq!(code, 0, "{args:?}: {complaint}");
    out
}

fn refused(folder: &Path, args: &[&str]) -> String {
    let (code, _, complaint) = said(&run(folder, args));
    assert_eq!(code, 2, "{args:?}: {complaint}");
    complaint
}

fn metrics(folder: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(folder.join("metrics.json")).expect("figures");
    serde_json::from_str(&text).expect("JSON")
}

fn latents(file: &Path) -> (Vec<usize>, Vec<f64>) {
    Npz::open(file).expect("readable").array_f64("latents").expect("latents")
}

#[test]
fn the_linear_model_finds_the_graph() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let out = succeed(folder, &["run", "--method", "pca", "--sim-cells", "50", "--seed", "3", "--quiet", "--out", "a"]);
    assert!(out.contains("pca") && out.contains("edges"), "{out}");
    let found = metrics(&folder.join("a"));
    let figure = |pointer: &str| found.pointer(pointer).and_then(|v| v.as_f64()).unwrap_or_else(|| panic!("{pointer}"));
    // 0.85 and 0.95 are what another implementation of the same rule reaches.
    assert!(figure("/graph/corrected/f1") > 0.8, "{found}");
    assert!(figure("/mcc_pearson") > 0.8 && figure("/r2") > 0.7, "{found}");
    assert!(figure("/edges/calibration/false_discovery_proportion") < 0.15, "{found}");
    let bound = figure("/reconstruction_validation") + figure("/kl_validation");
    assert!((bound - figure("/elbo_validation")).abs() < 1e-9);
    // Latents say something about the counts.
    assert!(bound < figure("/baseline/pooled_negative_binomial"), "{found}");
    assert!(found.get("heldout").is_none() && found.get("linear").is_none() && found.get("epochs").is_none());
    let wanted = [
        "cells.csv",
        "config.toml",
        "edges.csv",
        "genes_per_latent.csv",
        "graph.dot",
        "graph.graphml",
        "latents.npz",
        "manifest.json",
        "masks.csv",
        "metrics.json",
        "model.safetensors",
        "report.html",
        "results.h5ad",
        "shifts.csv",
        "targets.csv",
    ];
    assert_eq!(names(&folder.join("a")), wanted);
    // The folder's own settings repeat the run.
    succeed(folder, &["run", "a/config.toml", "--quiet", "--out", "b"]);
    let bytes = |run: &str, file: &str| std::fs::read(folder.join(run).join(file)).expect("a file");
    assert!(bytes("a", "latents.npz") == bytes("b", "latents.npz"));
    succeed(folder, &["report", "a"]);
}

#[test]
fn threads_do_not_matter_and_new_cells_get_the_same_latents() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let screen = ["--sim-interventions", "12", "--sim-cells", "40", "--sim-genes", "60", "--sim-latents", "4"];
    succeed(folder, &[&["simulate", "--out", "screen.npz"][..], &screen].concat());
    for precision in ["f32", "f64"] {
        for likelihood in ["negative-binomial", "poisson"] {
            let run_on = |threads: &str, out: &str| {
                let args =
                    ["run", "--method", "pca", "--data", "screen.npz", "--latents", "5", "--precision", precision];
                let more = ["--likelihood", likelihood, "--threads", threads, "--no-h5ad", "--quiet", "--overwrite"];
                succeed(folder, &[&args[..], &more, &["--out", out]].concat());
            };
            run_on("1", "one");
            run_on("3", "three");
            for file in names(&folder.join("one")) {
                // Seconds, threads and paths.
                if !["metrics.json", "manifest.json", "report.html", "config.toml"].contains(&file.as_str()) {
                    let bytes = |run: &str| std::fs::read(folder.join(run).join(&file)).expect("a file");
                    assert!(bytes("one") == bytes("three"), "{file}, {precision}");
                }
            }
            succeed(folder, &["embed", "--model", "one", "--data", "screen.npz", "--out", "new.npz", "--overwrite"]);
            assert_eq!(latents(&folder.join("new.npz")), latents(&folder.join("one/latents.npz")), "{precision}");
        }
    }
}

#[test]
fn what_needs_a_network_is_refused_in_a_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let small = ["--sim-interventions", "6", "--sim-cells", "20", "--sim-genes", "30", "--sim-latents", "3"];
    let train = ["run", "--method", "pca", "--latents", "3", "--no-h5ad", "--quiet", "--out", "a"];
    succeed(folder, &[&train[..], &small].concat());
    let commands: [(&[&str], &str); 6] = [
        (&["sample", "--model", "a", "--cells", "5", "--out", "s.npz"], "sampling of cells"),
        (&["normalize", "--model", "a", "--out", "n.npz"], "normalised expression"),
        (&["evaluate", "a"], "`svae-cpu evaluate`"),
        (&["fit-shifts", "a"], "`svae-cpu fit-shifts`"),
        (&["bench", "--method", "pca"], "`svae-cpu bench`"),
        (&["verify", "--method", "pca"], "`svae-cpu verify`"),
    ];
    for (args, what) in commands {
        let complaint = refused(folder, args);
        assert!(complaint.contains(&format!("{what} is not offered for the linear model (method pca)")), "{complaint}");
    }
    assert_eq!(names(folder), ["a"]);
    for flags in [["--epochs", "3"], ["--hidden", "16"], ["--recipe", "tuned"], ["--particles", "5"], ["--beta", "2"]] {
        let complaint = refused(folder, &[&["run", "--method", "pca"], &flags[..]].concat());
        assert!(complaint.contains("it has no effect with method pca"), "{complaint}");
    }
    let complaint = refused(folder, &["run", "--method", "ivae", "--fdr", "0.1"]);
    assert!(complaint.contains("--method pca"), "{complaint}");
}

#[test]
fn a_network_is_set_beside_the_linear_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let small = ["--sim-interventions", "10", "--sim-cells", "40", "--sim-genes", "40", "--sim-latents", "3"];
    let train = ["--latents", "3", "--epochs", "4", "--no-h5ad", "--no-heldout", "--quiet"];
    let of =
        |method: &str| succeed(folder, &[&["run", "--method", method, "--out", method][..], &train, &small].concat());
    let said = of("svae-plus");
    let found = metrics(&folder.join("svae-plus"));
    let linear = &found["linear"];
    let number = |key: &str| linear[key].as_f64().unwrap_or_else(|| panic!("{key}: {linear}"));
    assert_eq!(linear["n_edges_of_network"], found["edges"]["n_edges"]);
    assert!(number("n_shared") <= number("n_edges").min(number("n_edges_of_network")));
    let bound = found["reconstruction_validation"].as_f64().unwrap() + found["kl_validation"].as_f64().unwrap();
    assert!((number("bound_validation") - bound - number("advantage_of_network")).abs() < 1e-9);
    let report = std::fs::read_to_string(folder.join("svae-plus/report.html")).expect("a report");
    let sentence = "The linear model (principal components) finds";
    assert!(said.contains(sentence) && report.contains(sentence), "{said}");
    // A network of four epochs does not beat it, and has to say so.
    assert!(number("advantage_of_network") < 0.0, "{linear}");
    assert!(said.contains("the network does not beat it") && report.contains("the network does not beat it"), "{said}");

    // By itself the linear model finds the same.
    let alone = ["run", "--method", "pca", "--latents", "3", "--no-h5ad", "--quiet", "--out", "pca"];
    succeed(folder, &[&alone[..], &small].concat());
    let alone = metrics(&folder.join("pca"));
    assert_eq!(linear["n_edges"], alone["edges"]["n_edges"]);
    assert_eq!(
        (linear["bound_validation"].clone(), linear["mcc_pearson"].clone()),
        (alone["elbo_validation"].clone(), alone["mcc_pearson"].clone())
    );
    assert_eq!(linear["f1"], alone["graph"]["corrected"]["f1"]);

    of("ivae");
    assert!(metrics(&folder.join("ivae")).get("linear").is_none());
}
