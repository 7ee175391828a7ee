//! The program on several ranks, against the same run of one process; needs `mpirun` and the feature `mpi`.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{names, run, said};

/// Tests may run as root; and where ranks outnumber the processors, one that waits must not keep the others from working.
const ENVIRONMENT: [(&str, &str); 3] =
    [("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"), ("OMPI_MCA_mpi_yield_when_idle", "1")];

/// `mpirun` with so many ranks of the program.
fn mpirun(folder: &Path, ranks: usize, args: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    command
        .current_dir(folder)
        .envs(ENVIRONMENT)
        .env_remove("RUST_BACKTRACE")
        .args(["--oversubscribe", "-n", &ranks.to_string(), env!("CARGO_BIN_EXE_svae-cpu")])
        .args(args);
    command
}

fn on_ranks(folder: &Path, ranks: usize, args: &[&str]) -> (i32, String, String) {
    said(&mpirun(folder, ranks, args).output().expect("mpirun starts: install Open MPI (Debian: openmpi-bin)"))
}

fn succeed(folder: &Path, ranks: usize, args: &[&str]) -> (String, String) {
    let (code, out, err) = on_ranks(folder, ranks, args);
    assert_eq!(code, 0, "{ranks} ranks, {args:?}: {err}");
    (out, err)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A screen and a model small enough to be trained in a moment, through all stages; two of six interventions are held
/// out.
const SMALL: [&str; 17] = [
    "run",
    "--quiet",
    "--sim-interventions",
    "6",
    "--sim-cells",
    "30",
    "--sim-genes",
    "20",
    "--hidden",
    "16",
    "--epochs",
    "5",
    "--warmup-epochs",
    "2",
    "--particles",
    "20",
    "--holdout=intervention_4,intervention_5",
];

fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SMALL[..], more].concat()
}

/// The numbers of a JSON value by place, without times and memory.
fn numbers(value: &Value, place: &str, found: &mut BTreeMap<String, f64>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries.iter().filter(|(key, _)| !["timing", "seconds"].contains(&key.as_str())) {
                numbers(value, &format!("{place}.{key}"), found);
            }
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(i, value)| numbers(value, &format!("{place}.{i}"), found));
        }
        Value::Number(number) => drop(found.insert(place.to_owned(), number.as_f64().expect("a number"))),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Every number that a run leaves behind, by file and place, without times and memory.
fn figures(run: &Path) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let metrics = fs::read_to_string(run.join("metrics.json")).expect("metrics");
    numbers(&serde_json::from_str(&metrics).expect("JSON"), "metrics.json", &mut found);
    for name in names(run) {
        // Genes stand there in order of their loadings, which may be all but equal.
        if name.ends_with(".csv") && name != "genes_per_latent.csv" && name != "targets.csv" {
            let mut table = csv::Reader::from_path(run.join(&name)).expect("a table");
            let columns = table.headers().expect("a header").clone();
            for (i, row) in table.records().enumerate() {
                for (column, value) in columns.iter().zip(&row.expect("a row")) {
                    if let (false, Ok(value)) = (column == "seconds", value.parse()) {
                        found.insert(format!("{name}:{i}:{column}"), value);
                    }
                }
            }
        } else if name.ends_with(".safetensors") {
            let bytes = fs::read(run.join(&name)).expect("a model");
            for (tensor, view) in safetensors::SafeTensors::deserialize(&bytes).expect("a model").iter() {
                let values: Vec<f64> = match view.dtype() {
                    safetensors::Dtype::F32 => {
                        view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect()
                    }
                    _ => view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
                };
                found.extend(values.iter().enumerate().map(|(i, &value)| (format!("{name}:{tensor}:{i}"), value)));
            }
        }
    }
    found
}

/// Checks that two runs left the same numbers, up to `tolerance` relative to the larger of 1 and the number.
fn check_equal(got: &Path, want: &Path, tolerance: f64) {
    assert_eq!(names(got), names(want));
    let (got, want) = (figures(got), figures(want));
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    assert!(got.len() > 1000, "{} numbers", got.len());
    for (place, want) in want {
        let got = got[&place];
        assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{place}: {got}, not {want}");
    }
}

/// Every method, with and without normalisation, with minibatches of which a rank holds no cell: in double precision a
/// run of fifteen or more steps agrees to 1e-9. Rounding is 1e-16, the sums of a step have some 1e3 terms, and a step
/// of Adam passes on what the one before it left.
#[test]
fn ranks_give_the_results_of_one_process() {
    let folder = folder();
    let dir = folder.path();
    let cases: [&[&str]; 5] = [
        &["--batch-size", "32", "--posterior-covariance", "full"],
        &["--batch-size", "4", "--layer-norm", "true"],
        &["--batch-size", "32", "--batch-norm", "false"],
        &["--batch-size", "32", "--method", "ivae", "--heldout-batch-norm", "drift", "--layers", "1"],
        &["--batch-size", "32", "--method", "vae", "--simd", "baseline"],
    ];
    for (i, case) in cases.iter().enumerate() {
        let of = |name: &str| format!("{i}-{name}");
        let args = small(&[case, &["--precision", "f64", "--threads", "1"][..]].concat());
        let one = of("one");
        let (code, _, err) = said(&run(dir, &[&args[..], &["--out", &one]].concat()));
        assert_eq!(code, 0, "{case:?}: {err}");
        for ranks in [1, 2, 3] {
            let several = of(&ranks.to_string());
            let (out, _) = succeed(dir, ranks, &[&args[..], &["--out", &several]].concat());
            assert_eq!(out.matches("Results: ").count(), 1, "one rank prints: {out}");
            // One rank of MPI is one process.
            check_equal(&dir.join(&several), &dir.join(&one), if ranks == 1 { 0.0 } else { 1e-9 });
        }
    }
}

/// A file instead of a simulation: labels and controls are those of the whole file.
#[test]
fn ranks_share_out_the_cells_of_a_file() {
    let folder = folder();
    let dir = folder.path();
    let (code, _, err) = said(&run(
        dir,
        &["simulate", "--sim-interventions", "5", "--sim-cells", "21", "--sim-genes", "20", "--out", "screen.npz"],
    ));
    assert_eq!(code, 0, "{err}");
    let args = [
        "run",
        "--data=screen.npz",
        "--quiet",
        "--epochs=2",
        "--batch-size=30",
        "--hidden=16",
        "--precision=f64",
        "--threads=1",
        "--holdout=intervention_1",
        "--control=intervention_0",
        "--particles=5",
    ];
    let (code, _, err) = said(&run(dir, &[&args[..], &["--out", "one"]].concat()));
    assert_eq!(code, 0, "{err}");
    succeed(dir, 3, &[&args[..], &["--out", "three"]].concat());
    check_equal(&dir.join("three"), &dir.join("one"), 1e-9);
}

/// Single precision: the losses of one step, before any difference can grow. A gene's loss of some 10 nats is the
/// difference of terms of some 5e4 (counts of thousands times their logarithms), which are known to 3e-3: 3e-4 relative.
#[test]
fn a_step_in_single_precision_differs_by_rounding() {
    let folder = folder();
    let dir = folder.path();
    let args = ["run", "--quiet", "--sim-interventions=6", "--sim-cells=30", "--sim-genes=20", "--epochs=1"];
    let args = [&args[..], &["--batch-size=1000", "--warmup-epochs=0", "--threads=1", "--no-heldout"]].concat();
    let (code, _, err) = said(&run(dir, &[&args[..], &["--out", "one"]].concat()));
    assert_eq!(code, 0, "{err}");
    let want = figures(&dir.join("one"));
    for ranks in [2, 3] {
        let name = ranks.to_string();
        succeed(dir, ranks, &[&args[..], &["--out", &name]].concat());
        let got = figures(&dir.join(&name));
        for column in ["train_loss", "train_reconstruction", "train_kl"] {
            let place = format!("history.csv:0:{column}");
            let (got, want) = (got[&place], want[&place]);
            assert!((got / want - 1.0).abs() < 3e-4, "{column} on {ranks} ranks: {got}, not {want}");
        }
    }
}

/// The same number of ranks gives the same bytes, whatever the number of threads of each.
#[test]
fn a_run_on_ranks_repeats_byte_by_byte() {
    let folder = folder();
    let dir = folder.path();
    for (name, threads) in [("a", "1"), ("b", "1"), ("c", "2")] {
        succeed(dir, 3, &small(&["--threads", threads, "--out", name]));
    }
    let read = |run: &str, name: &str| fs::read(dir.join(run).join(name)).expect("a file");
    // The other files carry times or the command.
    let timed = ["config.toml", "history.csv", "history_retrain.csv", "manifest.json", "metrics.json", "report.html"];
    for name in names(&dir.join("a")).iter().filter(|name| !timed.contains(&name.as_str())) {
        for again in ["b", "c"] {
            assert!(read(again, name) == read("a", name), "{name} of {again}");
        }
    }
    for again in ["b", "c"] {
        check_equal(&dir.join(again), &dir.join("a"), 0.0);
    }
    let manifest: Value = serde_json::from_slice(&read("c", "manifest.json")).expect("JSON");
    assert_eq!((manifest["ranks"].as_u64(), manifest["threads"].as_u64()), (Some(3), Some(2)));
}

#[test]
fn what_all_ranks_refuse_is_said_once() {
    let folder = folder();
    let dir = folder.path();
    fs::write(dir.join("file"), "").expect("a file");
    let cases: [(&[&str], &str); 6] = [
        (&["run", "--data", "file", "--stream"], "error: several ranks do not read their counts from disk"),
        (&["run", "--data", "nowhere.h5ad"], "error: nowhere.h5ad: there is no such file"),
        (&["run", "--out", "file"], "error: file: this is a file, not a folder"),
        (&["run", "--epochs", "0"], "error: --epochs"),
        (&["run", "--nonsense"], "error: unexpected argument '--nonsense'"),
        (&["inspect", "file"], "error: 3 processes were started, and only `run` and `sweep`"),
    ];
    for (args, message) in cases {
        let (code, out, err) = on_ranks(dir, 3, args);
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(out.is_empty(), "{out}");
        assert_eq!(err.matches("error: ").count(), 1, "{args:?}: {err}");
        assert!(err.contains(message), "{args:?}: {err}");
    }
    assert_eq!(names(dir), ["file"]);
}

/// Ranks that do not read the same files would train on a mixture that nobody asked for.
#[test]
fn ranks_that_read_other_data_are_refused() {
    let folder = folder();
    let dir = folder.path();
    for (rank, seed) in [("0", "1"), ("1", "2")] {
        let place = dir.join(rank);
        fs::create_dir(&place).expect("a folder");
        let simulate =
            ["simulate", "--sim-cells", "20", "--sim-interventions", "4", "--out", "screen.npz", "--sim-seed"];
        let (code, _, err) = said(&run(&place, &[&simulate[..], &[seed]].concat()));
        assert_eq!(code, 0, "{err}");
    }
    let mut command = Command::new("mpirun");
    command.current_dir(dir).envs(ENVIRONMENT);
    command.arg("--oversubscribe");
    for rank in ["0", "1"] {
        let colon: &[&str] = if rank == "0" { &[] } else { &[":"] };
        let program = env!("CARGO_BIN_EXE_svae-cpu");
        command.args(colon).args(["-n", "1", "--wdir", rank, program, "run", "--data", "screen.npz", "--out", "run"]);
    }
    let (code, _, err) = said(&command.output().expect("mpirun starts"));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("error: rank 1 has read other data than rank 0"), "{err}");
    assert_eq!((names(&dir.join("0")), names(&dir.join("1"))), (vec!["screen.npz".into()], vec!["screen.npz".into()]));
}

/// A job that would run for minutes; it is waited for until it is training.
fn long_job(dir: &Path, ranks: usize) -> std::process::Child {
    let args = ["run", "--sim-cells", "100", "--epochs", "5000", "--patience", "0", "--threads", "1", "--out", "run"];
    let mut command = mpirun(dir, ranks, &args);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("mpirun starts");
    let deadline = Instant::now() + Duration::from_secs(120);
    while !dir.join("run").is_dir() {
        assert!(Instant::now() < deadline, "the job does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    child
}

/// Waits for the end of a job, for at most a minute.
fn end_of(mut job: std::process::Child) -> Output {
    let deadline = Instant::now() + Duration::from_secs(60);
    while job.try_wait().expect("a job").is_none() {
        if Instant::now() > deadline {
            let _ = job.kill();
            panic!("the job goes on although a rank is gone");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    job.wait_with_output().expect("a job")
}

/// Process numbers of the ranks of a job.
fn ranks_of(job: &std::process::Child) -> Vec<u32> {
    let entries =
        fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_rank = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name in parentheses: state, then the parent.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parent == Some(job.id())
    };
    entries.filter(is_rank).collect()
}

#[test]
fn the_job_ends_when_a_rank_is_killed() {
    let folder = folder();
    let job = long_job(folder.path(), 3);
    let ranks = ranks_of(&job);
    assert_eq!(ranks.len(), 3, "{ranks:?}");
    let last = ranks.iter().max().expect("ranks").to_string();
    assert!(Command::new("kill").args(["-9", &last]).status().expect("kill").success());
    let (code, out, err) = said(&end_of(job));
    assert_ne!(code, 0);
    assert!(out.is_empty() && err.contains("signal 9"), "{out} {err}");
    assert!(!folder.path().join("run/metrics.json").exists(), "no finished run");
    // A process that has been killed is gone a moment later.
    let deadline = Instant::now() + Duration::from_secs(60);
    for rank in ranks {
        let state = || fs::read_to_string(format!("/proc/{rank}/stat")).unwrap_or_default();
        while !state().is_empty() && !state().contains(") Z") {
            assert!(Instant::now() < deadline, "rank {rank} lives on: {}", state());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What one rank alone meets ends all of them, with its message and its exit code.
#[test]
fn the_job_ends_when_a_rank_fails() {
    let folder = folder();
    let dir = folder.path();
    let args = ["run", "--quiet", "--sim-interventions=6", "--sim-cells=30", "--sim-genes=20", "--epochs=200"];
    let args = [&args[..], &["--patience=0", "--threads=1", "--out", "run"]].concat();
    let mut command = mpirun(dir, 2, &args);
    let job = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("mpirun starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !dir.join("run/config.toml").exists() {
        assert!(Instant::now() < deadline, "the job does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The first rank, which alone writes, finds no folder to write into.
    fs::remove_dir_all(dir.join("run")).expect("removed");
    let (code, _, err) = said(&end_of(job));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("error: rank 0 of 2: writing run"), "{err}");
}

/// A run of a second or so on two ranks, saved after every epoch.
const SAVED: [&str; 11] = [
    "run",
    "--quiet",
    "--sim-interventions=6",
    "--sim-cells=30",
    "--sim-genes=20",
    "--epochs=40",
    "--warmup-epochs=2",
    "--patience=0",
    "--particles=200",
    "--threads=1",
    "--checkpoint-every=0",
];

/// Starts the run in `name`, and does something to its ranks once there is a checkpoint.
fn interrupted(dir: &Path, name: &str, kill: &[&str], which: usize) -> (i32, String, String) {
    let mut command = mpirun(dir, 2, &[&SAVED[..], &["--resume", "--out", name]].concat());
    let job = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("mpirun starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !dir.join(name).join("checkpoint").exists() {
        assert!(Instant::now() < deadline, "there is no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut ranks = ranks_of(&job);
    ranks.sort_unstable();
    assert!(Command::new("kill").args(kill).arg(ranks[which].to_string()).status().expect("kill").success());
    said(&end_of(job))
}

/// Whatever happens to a rank, the job goes on from its checkpoint to the same bytes.
#[test]
fn a_job_goes_on_from_its_checkpoint() {
    let folder = folder();
    let dir = folder.path();
    succeed(dir, 2, &[&SAVED[..], &["--out", "whole"]].concat());
    for (name, kill, which, code) in [("killed", "-9", 1, 137), ("first", "-9", 0, 137), ("signal", "-USR1", 1, 75)] {
        let (ended, _, err) = interrupted(dir, name, &[kill], which);
        assert_eq!(ended, code, "{name}: {err}");
        if code == 75 {
            assert_eq!(err.matches("stopped by SIGUSR1").count(), 1, "{err}");
        }
        assert!(!dir.join(name).join("metrics.json").exists(), "{name}: it was over too soon");
        succeed(dir, 2, &[&SAVED[..], &["--resume", "--out", name]].concat());
        check_equal(&dir.join(name), &dir.join("whole"), 0.0);
        for file in ["model.safetensors", "model_heldout.safetensors", "latents.npz", "results.h5ad", "cells.csv"] {
            let read = |run: &str| fs::read(dir.join(run).join(file)).expect("a file");
            assert!(read(name) == read("whole"), "{name}: {file}");
        }
        // A finished run stays as it is.
        let (out, _) = succeed(dir, 2, &[&SAVED[..], &["--resume", "--out", name]].concat());
        assert_eq!(out.trim(), format!("Results: {name}"));
    }
    // Another number of ranks goes on as well, and says what that means.
    let (ended, _, err) = interrupted(dir, "fewer", &["-9"], 1);
    assert_eq!(ended, 137, "{err}");
    let loud: Vec<&str> = SAVED.into_iter().filter(|&flag| flag != "--quiet").collect();
    let (code, _, err) = said(&run(dir, &[&loud[..], &["--resume", "--out", "fewer"]].concat()));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("begun on 2 ranks and is resumed on one rank"), "{err}");
}

#[test]
fn a_sweep_shares_out_its_runs() {
    let folder = folder();
    let dir = folder.path();
    let grid = "epochs = 2\nhidden = 4\nlayers = 1\nlatents = 2\nparticles = 3\n\
                [simulation]\ninterventions = 5\ncells = 12\ngenes = 6\nlatents = 3\n\
                [grid]\nseed = [0, 1]\n\
                [[runs]]\nmethod = [\"vae\", \"svae-plus\"]\n[[runs]]\nmethod = [\"svae-plus\"]\nmask = \"hard\"\nalpha = [3]\n";
    fs::write(dir.join("g.toml"), grid).expect("a grid");
    let (code, one, err) = said(&run(dir, &["sweep", "g.toml", "--threads", "1", "--out", "one"]));
    assert_eq!(code, 0, "{err}");
    let (several, err) = succeed(dir, 3, &["sweep", "g.toml", "--threads", "1", "--out", "several"]);
    assert_eq!(err.matches(": begins").count(), 6, "each run is done once: {err}");
    let rows = |text: &str| text.lines().filter(|line| line.contains("vae")).count();
    assert_eq!(rows(&several), rows(&one), "{several}");
    let (runs, want) = (dir.join("several/runs"), dir.join("one/runs"));
    assert_eq!((names(&runs).len(), names(&runs)), (6, names(&want)));
    for name in names(&runs) {
        let read = |folder: &Path| fs::read(folder.join(&name).join("model.safetensors")).expect("a model");
        assert!(read(&runs) == read(&want), "{name}");
    }
    // What is missing is done again, and what one rank could not do is known to all.
    fs::remove_dir_all(runs.join(&names(&runs)[4])).expect("removed");
    let (_, err) = succeed(dir, 2, &["sweep", "g.toml", "--threads", "1", "--out", "several"]);
    assert_eq!(err.matches(": begins").count(), 1, "{err}");
    assert!(err.contains("5 of 6 runs are finished already."), "{err}");
    let broken = names(&runs)[2].clone();
    fs::create_dir_all(dir.join("broken/runs")).expect("a folder");
    fs::write(dir.join("broken/runs").join(&broken), "").expect("a file");
    let (code, _, err) = on_ranks(dir, 3, &["sweep", "g.toml", "--threads", "1", "--out", "broken"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(&format!("of 6 runs one failed: {broken}")), "{err}");
    assert_eq!(err.matches("of 6 runs").count(), 1, "said once: {err}");
}
