//! Sweeps from the command line: tables, resumption, failures, and grids that are refused before anything starts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{names, program, run, said};
use serde_json::Value;

/// Settings small enough to train in a moment.
const BASE: &str = "epochs = 2\nwarmup_epochs = 1\nhidden = 4\nlayers = 1\nlatents = 2\nparticles = 3\n";
const SIMULATION: &str = "[simulation]\ninterventions = 5\ncells = 12\ngenes = 6\nlatents = 3\n";

/// Two methods, one with an axis of its own, two seeds that share a simulation.
fn grid() -> String {
    format!(
        "{BASE}mask = \"hard\"\n{SIMULATION}seed = 7\n[grid]\nseed = [0, 1]\n\
         [[runs]]\nmethod = \"vae\"\n[[runs]]\nmethod = \"svae-plus\"\nalpha = [2, 20]\n"
    )
}

fn folder(grid: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("g.toml"), grid).expect("a grid");
    folder
}

fn sweep(folder: &Path, more: &[&str]) -> (i32, String, String) {
    said(&run(folder, &[&["sweep", "g.toml"], more].concat()))
}

fn succeed(folder: &Path, more: &[&str]) -> (String, String) {
    let (code, out, err) = sweep(folder, more);
    assert_eq!(code, 0, "{more:?}: {err}");
    (out, err)
}

fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A table as rows of (column, value).
fn table(path: impl AsRef<Path>) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).expect("a table");
    let header = reader.headers().expect("a header").clone();
    let row = |row: csv::StringRecord| header.iter().map(str::to_owned).zip(row.iter().map(str::to_owned)).collect();
    reader.records().map(|record| row(record.expect("a row"))).collect()
}

/// The tables of a sweep's folder without times.
fn tables(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in names(folder).into_iter().filter(|name| name.starts_with("table") || name == "runs.csv") {
        let path = folder.join(&name);
        let plain = match name.rsplit_once('.').expect("an ending").1 {
            "csv" => {
                let rows = table(&path).into_iter().map(|mut row| {
                    row.retain(|column, _| !column.contains("seconds"));
                    format!("{row:?}\n")
                });
                rows.collect()
            }
            "json" => {
                let mut value: Value = serde_json::from_str(&text(&path)).expect("JSON");
                let settings = value["settings"].as_array_mut().expect("a list");
                settings.iter_mut().for_each(|row| drop(row.as_object_mut().expect("an object").remove("times")));
                value.to_string()
            }
            "md" => {
                let cut = |line: &str| match line.starts_with('|') {
                    true => line.rsplitn(4, '|').nth(3).expect("two columns of times").to_owned() + "\n",
                    false => line.to_owned() + "\n",
                };
                text(&path).lines().map(cut).collect()
            }
            other => panic!("{other}"),
        };
        found.insert(name, plain);
    }
    found
}

fn metrics(run: &Path) -> Value {
    serde_json::from_str(&text(run.join("metrics.json"))).expect("JSON")
}

/// When each result of a run was written. What a killed process leaves beside them is removed by the next one.
fn written(run: &Path) -> Vec<std::time::SystemTime> {
    let time = |name: &String| fs::metadata(run.join(name)).and_then(|data| data.modified()).expect("a file");
    let left = |name: &&String| name.starts_with('.') || name.starts_with("checkpoint");
    names(run).iter().filter(|name| !left(name)).map(time).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one folder of runs, made once, from which every table is computed again")]
fn tables_hold_means_and_deviations_of_the_runs() {
    let folder = folder(&grid());
    let (out, err) = succeed(folder.path(), &["--select", "elbo"]);
    let dir = folder.path().join("results/g");
    let runs = [
        "svae-plus_alpha-20_seed-0",
        "svae-plus_alpha-20_seed-1",
        "svae-plus_alpha-2_seed-0",
        "svae-plus_alpha-2_seed-1",
        "vae_seed-0",
        "vae_seed-1",
    ];
    assert_eq!(names(&dir.join("runs")), runs);
    assert_eq!(
        names(&dir),
        [
            "grid.toml",
            "runs",
            "runs.csv",
            "table.csv",
            "table.json",
            "table.md",
            "table_medians.md",
            "table_selected.csv",
            "table_selected.json",
            "table_selected.md"
        ]
    );
    assert_eq!(text(dir.join("grid.toml")), grid());
    assert!(err.contains("[6/6]") && err.contains("vae_seed-1: begins"), "{err}");
    assert!(out.contains("svae-plus") && out.contains("Tables: results/g"), "{out}");

    // A folder of the sweep is that of a run: the same files, and settings that `run` repeats.
    let of_run = tempfile::tempdir().expect("a temporary folder");
    let config = dir.join("runs/svae-plus_alpha-2_seed-1/config.toml");
    let repeated = run(of_run.path(), &["run", config.to_str().expect("UTF-8"), "--out", "a", "--quiet"]);
    assert_eq!(said(&repeated).0, 0);
    let in_sweep = dir.join("runs/svae-plus_alpha-2_seed-1");
    // A sweep does not write its data once more for every run.
    let mut of_run_alone = names(&of_run.path().join("a"));
    of_run_alone.retain(|name| name != "results.h5ad");
    assert_eq!(of_run_alone, names(&in_sweep));
    // These carry times, of day or spent.
    let timed = ["history.csv", "history_retrain.csv", "metrics.json", "manifest.json", "report.html"];
    for name in names(&in_sweep).iter().filter(|name| !timed.contains(&name.as_str())) {
        let [again, first] = [of_run.path().join("a"), in_sweep.clone()].map(|folder| fs::read(folder.join(name)));
        assert!(again.expect("a file of both") == first.expect("a file of both"), "{name}");
    }

    let rows = table(dir.join("table.csv"));
    assert_eq!(rows.len(), 3);
    assert_eq!(rows.iter().map(|row| row["alpha"].as_str()).collect::<Vec<_>>(), ["", "2", "20"]);
    for (row, prefix) in rows.iter().zip(["vae", "svae-plus_alpha-2", "svae-plus_alpha-20"]) {
        let runs = [0, 1].map(|seed| metrics(&dir.join(format!("runs/{prefix}_seed-{seed}"))));
        assert_eq!((row["runs"].as_str(), row["failed"].as_str(), row["missing"].as_str()), ("2", "0", "0"));
        for (column, pointer) in [
            ("mcc_pearson", "/mcc_pearson"),
            ("oracle_mcc_pearson", "/oracle/mcc_pearson"),
            ("mcc_spearman", "/mcc_spearman"),
            ("r2", "/r2"),
            ("reference_precision", "/graph/reference/precision"),
            ("reference_recall", "/graph/reference/recall"),
            ("reference_f1", "/graph/reference/f1"),
            ("corrected_f1", "/graph/corrected/f1"),
            ("elbo_validation", "/elbo_validation"),
            ("heldout_nll", "/heldout/nll_iwelbo"),
            ("heldout_elbo", "/heldout/elbo"),
            ("heldout_mcc_pearson", "/heldout/latents/mcc_pearson"),
            ("heldout_oracle", "/heldout/oracle/nll"),
            ("total_seconds", "/timing/total_seconds"),
        ] {
            let values: Vec<f64> = runs.iter().filter_map(|run| run.pointer(pointer)?.as_f64()).collect();
            let (mean, sd) = (&row[&format!("{column}_mean")], &row[&format!("{column}_sd")]);
            if values.is_empty() {
                assert!(mean.is_empty() && sd.is_empty() && prefix == "vae" && column.contains('_'), "{column}");
                continue;
            }
            let want = (values[0] + values[1]) / 2.0;
            let want_sd = (values[0] - values[1]).abs() / 2f64.sqrt();
            let [mean, sd] = [mean, sd].map(|text| text.parse::<f64>().expect("a number"));
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * (1.0 + want.abs());
            assert!(close(mean, want) && close(sd, want_sd), "{prefix} {column}: {mean} {want}, {sd} {want_sd}");
            // The median of two is their mean.
            let median: f64 = row[&format!("{column}_median")].parse().expect("a number");
            assert!(close(median, want), "{prefix} {column}: {median} {want}");
        }
        // What settings are chosen by: the ELBO without the penalty of the masks.
        let unpenalised = |run: &Value| {
            run["reconstruction_validation"].as_f64().expect("known") + run["kl_validation"].as_f64().expect("known")
        };
        let want = runs.iter().map(unpenalised).sum::<f64>() / 2.0;
        assert!((row["elbo_unpenalised_mean"].parse::<f64>().expect("a number") - want).abs() < 1e-9);
    }
    // Both seeds share a simulation, so that there is a UDR, the same for the only two that are compared.
    let by_run = table(dir.join("runs.csv"));
    assert_eq!(by_run.len(), 6);
    for pair in by_run.chunks(2) {
        assert_eq!(pair[0]["udr"], pair[1]["udr"]);
        assert!((0.0..=1.0).contains(&pair[0]["udr"].parse::<f64>().expect("a number")));
        assert_eq!([&pair[0]["seed"], &pair[1]["seed"]], ["0", "1"]);
        assert_eq!([&pair[0]["simulation.seed"], &pair[1]["simulation.seed"]], ["7", "7"]);
    }

    // The VAE has no rival; of the others the lower bound is chosen.
    let bound = |i: usize| rows[i]["elbo_unpenalised_mean"].parse::<f64>().expect("a number");
    let best = if bound(1) <= bound(2) { 1 } else { 2 };
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row["selected"], (i == 0 || i == best).to_string(), "{i}");
    }
    let selected = table(dir.join("table_selected.csv"));
    assert_eq!(selected, [rows[0].clone(), rows[best].clone()]);
}

#[test]
fn tables_are_the_same_bytes_on_one_and_two_threads() {
    let folder = folder(&grid());
    for (out, threads) in [("a", "1"), ("b", "2"), ("c", "5")] {
        let (_, err) = succeed(folder.path(), &["--out", out, "--threads", threads, "--no-heldout", "--quiet"]);
        assert_eq!(err, "");
    }
    // With one run and two threads, the run gets both.
    succeed(folder.path(), &["--out", "d", "--threads", "2", "--no-heldout", "--method", "vae", "--seed", "0"]);
    let [a, b, c] = ["a", "b", "c"].map(|name| tables(&folder.path().join(name)));
    assert_eq!(a.len(), 5);
    assert!(a == b && a == c, "{a:?}\n{b:?}");
    let model =
        |out: &str, run: &str| fs::read(folder.path().join(out).join("runs").join(run).join("model.safetensors"));
    assert_eq!(
        model("a", "vae_heldout-false_seed-0").expect("a model"),
        model("d", "vae_heldout-false_seed-0").expect("a model")
    );
}

#[test]
fn finished_runs_are_kept_and_damaged_ones_done_again() {
    let folder = folder(&grid());
    let flags = ["--no-heldout", "--quiet", "--out", "s"];
    succeed(folder.path(), &flags);
    let dir = folder.path().join("s");
    let before = tables(&dir);
    let runs: Vec<_> = names(&dir.join("runs")).into_iter().map(|name| dir.join("runs").join(name)).collect();
    assert_eq!(runs.len(), 6);
    // Four kinds of damage; the last two runs are left alone.
    fs::remove_file(runs[0].join("metrics.json")).expect("there");
    let whole = text(runs[1].join("metrics.json"));
    fs::write(runs[1].join("metrics.json"), &whole[..whole.len() / 2]).expect("written");
    let config = text(runs[2].join("config.toml")).replace("epochs = 2", "epochs = 3");
    fs::write(runs[2].join("config.toml"), config).expect("written");
    fs::remove_dir_all(&runs[3]).expect("there");
    let kept: Vec<_> = runs[4..].iter().map(|run| written(run)).collect();

    let (out, err) = succeed(folder.path(), &["--no-heldout", "--out", "s", "--list"]);
    assert!(out.contains("2 of 6 runs are finished") && err.is_empty(), "{out}{err}");
    let (_, err) = succeed(folder.path(), &["--no-heldout", "--out", "s"]);
    for said in ["2 of 6", "metrics.json is missing", "metrics.json is damaged", "other ones (epochs)", "[4/4]"] {
        assert!(err.contains(said), "{said} in {err}");
    }
    assert_eq!(runs[4..].iter().map(|run| written(run)).collect::<Vec<_>>(), kept);
    assert_eq!(tables(&dir), before);

    // Nothing is left to do; the tables are made again. --overwrite does everything again.
    let (_, err) = succeed(folder.path(), &["--no-heldout", "--out", "s"]);
    assert!(err.contains("6 of 6") && !err.contains("begins"), "{err}");
    let (_, err) = succeed(folder.path(), &["--no-heldout", "--out", "s", "--overwrite"]);
    assert!(err.contains("[6/6]"), "{err}");
    assert_eq!(tables(&dir), before);
}

#[test]
fn runs_of_the_linear_model_count_as_finished() {
    let grid = format!("latents = 2\n{SIMULATION}[grid]\nseed = [0, 1]\n[[runs]]\nmethod = \"pca\"\n");
    let folder = folder(&grid);
    succeed(folder.path(), &["--quiet", "--out", "s"]);
    let rows = table(folder.path().join("s/table.csv"));
    assert!(rows.iter().any(|row| row.values().any(|value| value == "pca")), "{rows:?}");
    let (_, err) = succeed(folder.path(), &["--out", "s"]);
    assert!(err.contains("2 of 2") && !err.contains("begins"), "{err}");
}

#[test]
fn a_failed_run_is_reported_and_the_others_finish() {
    let folder = folder(&grid());
    let dir = folder.path().join("s");
    fs::create_dir_all(dir.join("runs")).expect("a folder");
    // Where this run wants its folder there is a file.
    let blocked = dir.join("runs/vae_heldout-false_seed-1");
    fs::write(&blocked, "precious").expect("a file");
    let flags = ["--no-heldout", "--out", "s"];
    let (code, out, err) = sweep(folder.path(), &flags);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("vae_heldout-false_seed-1: FAILED") && err.contains("this is a file"), "{err}");
    assert!(err.ends_with("error: of 6 runs one failed: vae_heldout-false_seed-1.\n"), "{err}");
    assert!(out.contains("1 of 2") && out.contains("vae_heldout-false_seed-1 failed: "), "{out}");
    assert_eq!(text(&blocked), "precious");
    let by_run = table(dir.join("runs.csv"));
    let finished = by_run.iter().filter(|run| run["status"] == "finished").count();
    let failed: Vec<_> = by_run.iter().filter(|run| run["status"] == "failed").collect();
    assert_eq!((finished, failed.len()), (5, 1));
    assert_eq!(failed[0]["run"], "vae_heldout-false_seed-1");
    assert!(failed[0]["reason"].contains("this is a file"));
    let rows = table(dir.join("table.csv"));
    assert_eq!((rows[0]["runs"].as_str(), rows[0]["failed"].as_str()), ("1", "1"));
    assert_eq!((!rows[0]["mcc_pearson_mean"].is_empty(), rows[0]["mcc_pearson_sd"].as_str()), (true, ""));

    // The failure is tried again, and goes away with its cause.
    fs::remove_file(&blocked).expect("there");
    let (code, _, err) = sweep(folder.path(), &flags);
    assert!(code == 0 && err.contains("5 of 6") && err.contains("[1/1]"), "{err}");
}

#[test]
fn shares_of_the_runs_add_up() {
    let folder = folder(&grid());
    succeed(folder.path(), &["--no-heldout", "--out", "whole", "--quiet"]);
    for (shard, n) in [("1/4", 2), ("2/4", 2), ("3/4", 1), ("4/4", 1)] {
        let args = ["--no-heldout", "--out", "s", "--quiet", "--json", "--shard", shard];
        let (out, _) = succeed(folder.path(), &args);
        let runs: Value = serde_json::from_str(&out).expect("JSON");
        let runs = runs["runs"].as_array().expect("a list");
        assert!(runs.len() == n && runs.iter().all(|run| run["status"] == "finished"), "{out}");
        assert!(!folder.path().join("s/table.csv").exists());
    }
    let (_, err) = succeed(folder.path(), &["--no-heldout", "--out", "s"]);
    assert!(err.contains("6 of 6") && !err.contains("begins"), "{err}");
    assert_eq!(tables(&folder.path().join("s")), tables(&folder.path().join("whole")));
    for shard in ["0/4", "5/4", "4", "a/b", "1/0"] {
        let (code, _, err) = sweep(folder.path(), &["--shard", shard]);
        assert!(code == 2 && err.contains("--shard"), "{shard}: {err}");
    }
}

#[test]
fn json_alone_goes_to_standard_output_and_unfinished_runs_are_counted() {
    let folder = folder(&grid());
    let (out, _) = succeed(folder.path(), &["--no-heldout", "--out", "s", "--json", "--method", "vae"]);
    assert_eq!(out, text(folder.path().join("s/table.json")));
    let value: Value = serde_json::from_str(&out).expect("JSON and nothing else");
    assert_eq!(value["settings"].as_array().expect("a list").len(), 1);
    assert_eq!(value["settings"][0]["setting"]["method"], "vae");
    assert_eq!(value["settings"][0]["metrics"]["mcc_pearson"]["n"], 2);
    // The tables of what there is, without doing anything.
    let (out, _) = succeed(folder.path(), &["--no-heldout", "--out", "s", "--json", "--tables-only"]);
    let value: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&value["missing"], &value["settings"][0]["runs"]), (&4.into(), &2.into()));
    assert_eq!(names(&folder.path().join("s/runs")).len(), 2);
}

#[test]
fn interventions_with_few_cells_are_not_hidden() {
    let folder = folder(&format!(
        "{BASE}{SIMULATION}[grid]\nholdout = [[\"intervention_1\"], [\"intervention_2\", \"intervention_4\"]]\n"
    ));
    let (out, err) = succeed(folder.path(), &["--sim-cells", "10", "--method", "ivae"]);
    let dir = folder.path().join("results/g");
    let rows = table(dir.join("table.csv"));
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["heldout_left_out"], "intervention_1");
    assert_eq!(rows[1]["heldout_left_out"], "intervention_2; intervention_4");
    assert_eq!(rows[0]["heldout_nll_mean"], "", "no intervention is left for a mean");
    assert!(out.contains("Left out of the held-out means"), "{out}");
    assert!(err.contains("left out: too few cells"), "{err}");
    assert_eq!(
        names(&dir.join("runs")),
        [
            "ivae_holdout-intervention_1_sim-cells-10_seed-0",
            "ivae_holdout-intervention_2+intervention_4_sim-cells-10_seed-0"
        ]
    );
}

#[test]
fn an_interrupted_sweep_goes_on() {
    let folder = folder(&grid());
    let args = ["sweep", "g.toml", "--out", "s", "--threads", "1"];
    let mut child = program(folder.path(), &args)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let first = folder.path().join("s/runs/vae_seed-0/metrics.json");
    while !first.exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(child.try_wait().expect("a process").is_none() || first.exists());
    }
    child.kill().expect("it runs still");
    child.wait().expect("it ends");
    assert!(!folder.path().join("s/table.csv").exists());
    let kept = written(first.parent().expect("a folder"));
    succeed(folder.path(), &["--out", "s"]);
    assert_eq!(written(first.parent().expect("a folder")), kept);
    succeed(folder.path(), &["--out", "whole"]);
    assert_eq!(tables(&folder.path().join("s")), tables(&folder.path().join("whole")));
}

#[test]
fn grids_that_cannot_be_used_are_refused_before_anything_starts() {
    for (lines, flags, said) in [
        ("latent = 3\n", &[][..], &["line 1", "there is no setting `latent`", "did you mean `latents`?"][..]),
        ("[gird]\nseed = [1]\n", &[], &["line 1", "did you mean `grid`?"]),
        ("[grid]\nalhpa = [1, 2]\n", &[], &["line 2", "did you mean `alpha`?"]),
        ("[[runs]]\nseeds = 1\n", &[], &["line 2", "did you mean `seed`?"]),
        ("[grid]\nalpha = []\n", &[], &["line 2", "the axis `alpha` is empty"]),
        ("runs = []\n", &[], &["line 1", "`runs` is empty"]),
        ("[grid]\nalpha = [1, 2, 1.0]\n", &[], &["line 2", "lists 1.0 twice"]),
        ("[grid]\nepochs = [1, \"x\"]\n", &[], &["line 2", "a whole number"]),
        ("seed = [0, 1]\n", &[], &["line 1", "[grid] or into a [[runs]]"]),
        ("[grid]\nthreads = [1, 2]\n", &[], &["line 2", "the whole sweep"]),
        (
            "[[runs]]\nmethod = \"vae\"\n[[runs]]\nmethod = [\"ivae\", \"vae\"]\n",
            &[],
            &["the run vae_seed-0 is asked for twice", "block 1 (line 2)", "block 2 (line 4)"],
        ),
        // Five interventions: the default of alpha is 5.
        ("mask = \"hard\"\n[[runs]]\n[[runs]]\nalpha = 5\n", &[], &["the same once defaults are filled in"]),
        ("[[runs]]\nmethod = \"vae\"\nalpha = [1, 2]\n", &[], &["line 3", "`alpha` has no effect"]),
        ("[grid]\nmethod = [\"vae\", \"beta-vae\"]\nalpha = [1, 2]\n", &[], &["line 3", "`alpha` has no effect"]),
        ("[[runs]]\nmethod = \"vae\"\n", &["--alpha", "3"], &["--alpha", "no effect on any run"]),
        ("[grid]\nlikelihood = [\"poisson\"]\nlikelihood_epsilon = [0, 1e-8]\n", &[], &["line 3", "has no effect"]),
        ("[grid]\nmethod = [\"vae\"]\n", &["--method", "svae"], &["--method", "no run of g.toml has the method svae"]),
        ("[grid]\nalpha = [1, 2]\n", &[], &["line 2, key `alpha`", "no effect where masks are integrated out"]),
        ("[grid]\nalpha = [1, -2]\nmask = [\"hard\"]\n", &[], &["line 2, key `alpha`", "-2 is out of range"]),
        ("[[runs]]\nepochs = 1\n[[runs]]\nepochs = 0\n", &[], &["line 4, key `epochs`", "out of range"]),
        (
            "[grid]\nsimulation.targeted_latents = [2, 4]\n",
            &[],
            &["line 2, key `simulation.targeted_latents`", "1 to 3"],
        ),
        (
            "[grid]\nholdout = [[], [\"intervention_9\"]]\n",
            &[],
            &["line 2, key `holdout`", "no cell has the label \"intervention_9\""],
        ),
        (
            "holdout = [\"intervention_0\", \"intervention_1\", \"intervention_2\", \"intervention_3\", \"intervention_4\"]\n",
            &[],
            &["line 1, key `holdout`", "every intervention is held out"],
        ),
        ("[grid]\nvalidation_fraction = [0.1, 0.9]\n", &[], &["line 2", "out of range"]),
        ("[select]\nover = [\"alpha\"]\n", &[], &["line 1", "does not say by what"]),
        ("[select]\nby = \"mcc\"\n", &[], &["line 2", "\"elbo\""]),
        ("[select]\nby = \"elbo\"\nover = [\"seed\"]\n", &[], &["line 3", "`seed` is no hyper-parameter"]),
        ("[select]\nby = \"elbo\"\nover = [\"alhpa\"]\n", &[], &["line 3", "did you mean `alpha`?"]),
        (
            "[grid]\nmask = [\"hard\"]\nalpha = [1, 2]\nseed = [0, 1]\n[select]\nby = \"udr\"\n",
            &[],
            &["cannot be chosen by UDR", "same data", "--sim-seed"],
        ),
        ("[grid]\ndata = [\"nowhere.npz\"]\n", &[], &["a simulation was asked for, but data are given"]),
        ("[grid\n", &[], &["line 1", "not valid TOML"]),
    ] {
        // The simulation stands last, so that the lines count from the first of the case.
        let folder = folder(&format!("{lines}{SIMULATION}"));
        let args = flags;
        let (code, out, err) = sweep(folder.path(), args);
        assert_eq!(code, 2, "{lines}: {err}");
        assert!(out.is_empty() && err.starts_with("error: ") && !err.contains("panicked"), "{lines}: {err}");
        for said in said {
            assert!(err.contains(said), "{lines}: {said} in {err}");
        }
        assert_eq!(names(folder.path()), ["g.toml"], "{lines} must write nothing");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (code, _, err) = sweep(folder.path(), &[]);
    assert!(code == 2 && err.contains("g.toml") && err.contains("no such file"), "{err}");
}

#[test]
fn nothing_left_to_train_on_is_seen_before_anything_starts() {
    // Two cells of one intervention remain: fewer than a training needs.
    let holdout = "[grid]\nholdout = [[\"intervention_1\"]]\n";
    let folder = folder(&format!("epochs = 2\n[simulation]\ninterventions = 2\ncells = 2\ngenes = 6\n{holdout}"));
    let (code, _, err) = sweep(folder.path(), &[]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("line 7, key `holdout`") && err.contains("left to train on"), "{err}");
    assert_eq!(names(folder.path()), ["g.toml"]);
}

#[test]
fn the_grids_of_the_scripts_are_valid() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, n) in [
        ("table1", 25),
        ("table1_tuned", 5),
        ("table1_selected", 105),
        ("table4", 100),
        ("table10", 25),
        ("alpha_sweep", 60),
        ("grid", 400),
        ("grid_reference", 22),
    ] {
        let path = scripts.join(format!("{name}.toml"));
        assert!(
            text(&path).contains(&format!("svae-cpu sweep scripts/{name}.toml"))
                && text(&path).contains(&n.to_string())
        );
        let output = run(folder.path(), &["sweep", path.to_str().expect("UTF-8"), "--list"]);
        let (code, out, err) = said(&output);
        assert_eq!(code, 0, "{name}: {err}");
        assert!(out.contains(&format!("0 of {n} runs are finished in results/{name}.")), "{name}: {out}");
    }
    assert!(names(folder.path()).is_empty());
}
