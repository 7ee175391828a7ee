//! Runs that are killed, signalled, starved of disk or meddled with, and resumed: they end with the bytes of a run that
//! was left in peace.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{names, program, run, said};
use serde_json::Value;
use svae_cpu::checkpoint::file as checkpoint;

/// Runs that pass through every stage within a moment: masks that are fixed and trained again, shifts that are fitted
/// in the quick way and as the reference's baselines do, both precisions, both ends of a training, trials of several starts,
/// masks that are integrated out and such that are drawn, turns of both kinds.
const RUNS: [&str; 5] = [
    "--epochs 60 --starts 3 --trial-share 0.2 --particles 30 --warmup-epochs 3",
    "--epochs 30 --precision f64 --dense-share 0.2 --patience 0 --particles 30 --warmup-epochs 3",
    "--mask hard --prune-masks-below 0.8 --epochs 60 --starts 3 --trial-share 0.2 --particles 30 --warmup-epochs 3",
    "--method ivae --heldout-batch-norm drift --epochs 8 --particles 80 --keep last --schedule cosine --batch-size 50",
    "--method svae --precision f64 --starts 2 --epochs 40 --patience 3 --learning-rate 0.05 --particles 60 --layers 1",
];

/// A run that is over at once, and passes through every stage.
const SHORT: &str = "--epochs 12 --particles 30 --warmup-epochs 3";

const SCREEN: &str = "--sim-interventions 6 --sim-cells 40 --sim-genes 20 --hidden 8 --latents 4 --batch-size 16";

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The command of a run; what is said twice holds as it is said last.
fn command(folder: &Path, run: &str, out: &str, more: &str) -> Command {
    let mut flags: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut last = String::new();
    for word in words(&format!("{SCREEN} {run} --out {out} {more}")) {
        match word.starts_with("--") {
            true => {
                flags.insert(word.clone(), Vec::new());
                last = word;
            }
            false => flags.get_mut(&last).expect("a flag first").push(word),
        }
    }
    let mut command = program(folder, &["run"]);
    for (flag, values) in &flags {
        command.arg(flag).args(values);
    }
    command.stdout(Stdio::null());
    command
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Starts a run whose events go to the file `log`.
fn start(mut command: Command, log: &Path) -> Child {
    let log = File::create(log).expect("a log");
    command.args(["--log-format", "json"]).stdout(Stdio::null()).stderr(log).spawn().expect("the program starts")
}

fn events(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    // The last line of a killed process may be cut.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The stage that the last event tells of.
fn stage(events: &[Value]) -> String {
    let stage = events.iter().rev().find(|event| event["event"] == "stage").map(|event| event["stage"].clone());
    stage.and_then(|stage| stage.as_str().map(str::to_owned)).unwrap_or_else(|| "reading".to_owned())
}

/// Sends a signal by its name.
fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().expect("a shell");
    assert!(sent.success(), "{name}");
}

/// Waits for `done`, or for the end of the process.
fn wait_until(child: &mut Child, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() && child.try_wait().expect("a child").is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "the process hangs");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Exit code; `None` after a signal.
fn code(mut child: Child) -> Option<i32> {
    child.wait().expect("a child").code()
}

fn without_seconds(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).expect("a table");
    let cut = |line: &str| line.rsplit_once(',').expect("columns").0.to_owned() + "\n";
    text.lines().map(cut).collect::<String>().into_bytes()
}

/// Everything that a run leaves, but for times: of each file its name and bytes.
fn results(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in names(out) {
        let path = out.join(&name);
        let bytes = match name.as_str() {
            "history.csv" | "history_retrain.csv" => without_seconds(&path),
            "metrics.json" | "evaluation.json" => {
                let mut metrics: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
                metrics.as_object_mut().expect("an object").remove("timing");
                if let Some(heldout) = metrics.get_mut("heldout") {
                    heldout.as_object_mut().expect("an object").remove("seconds");
                }
                metrics.to_string().into_bytes()
            }
            // Times of day, and the same figures as elsewhere.
            "manifest.json" | "report.html" => Vec::new(),
            "config.toml" => {
                let text = fs::read_to_string(&path).expect("settings");
                text.lines().filter(|line| !line.starts_with("threads")).collect::<String>().into_bytes()
            }
            _ => fs::read(&path).expect("a file"),
        };
        found.insert(name, bytes);
    }
    found
}

#[track_caller]
fn same(found: &Path, expected: &BTreeMap<String, Vec<u8>>, what: &str) {
    let found = results(found);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{what}: {name} differs");
    }
}

/// Files of a run that was left in peace, on one thread.
fn in_peace(folder: &Path, run: &str) -> BTreeMap<String, Vec<u8>> {
    let output = command(folder, run, "peace", "--threads 1").output().expect("the program starts");
    assert_eq!(said(&output).0, 0, "{}", said(&output).2);
    results(&folder.join("peace"))
}

/// Numbers that look random, the same in every test run; when a process is hit by what they say is chance enough.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Resumes a run until it is finished.
fn finish(folder: &Path, run: &str, out: &str, threads: usize) {
    let output = command(folder, run, out, &format!("--resume --threads {threads}")).output().expect("starts");
    assert_eq!(said(&output).0, 0, "{}", said(&output).2);
}

#[test]
fn runs_killed_at_random_moments_end_with_the_same_bytes() {
    let kills: usize = std::env::var("SVAE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(210);
    let mut chance = Chance(kills as u64);
    let mut stages: BTreeMap<String, usize> = BTreeMap::new();
    let mut survived = 0;
    let mut finished = 0;
    for (number, settings) in RUNS.iter().enumerate() {
        let folder = folder();
        let begin = Instant::now();
        let expected = in_peace(folder.path(), settings);
        let whole = begin.elapsed().as_micros() as u64;
        let log = folder.path().join("log");
        for round in 0.. {
            if survived >= kills * (number + 1) / RUNS.len() {
                break;
            }
            let out = format!("killed-{round}");
            loop {
                let every = ["0", "0.00002", "0.0002", "0.001"][chance.below(4) as usize];
                let more = format!("--resume --threads {} --checkpoint-every {every}", 1 + chance.below(3));
                let mut child = start(command(folder.path(), settings, &out, &more), &log);
                std::thread::sleep(Duration::from_micros(chance.below(whole)));
                child.kill().expect("it can be killed");
                match child.wait().expect("a child") {
                    status if status.code() == Some(0) => break,
                    status if status.signal() == Some(9) => {
                        survived += 1;
                        *stages.entry(stage(&events(&log))).or_default() += 1;
                    }
                    status => panic!("{status}: {}", fs::read_to_string(&log).unwrap_or_default()),
                }
            }
            same(&folder.path().join(&out), &expected, &format!("{settings}, after {survived} kills"));
            finished += 1;
            fs::remove_dir_all(folder.path().join(&out)).expect("removed");
        }
    }
    println!("{survived} kills survived by {finished} runs, by stage: {stages:?}; bytes lost: 0");
    assert!(survived >= kills);
}

#[test]
fn a_kill_in_any_stage_loses_no_byte() {
    let folder = folder();
    let expected = in_peace(folder.path(), LONG);
    let log = folder.path().join("log");
    for (i, wanted) in STAGES.iter().enumerate() {
        for attempt in 0.. {
            let out = format!("killed-{i}-{attempt}");
            // Now with a checkpoint at every chance, now with those between stages alone.
            let every = ["0", "1000"][attempt % 2];
            let more = format!("--checkpoint-every {every} --threads {}", 1 + i % 3);
            let mut child = start(command(folder.path(), LONG, &out, &more), &log);
            wait_until(&mut child, || stage(&events(&log)) == *wanted);
            child.kill().expect("it can be killed");
            let ended = child.wait().expect("a child");
            let hit = ended.signal() == Some(9) && stage(&events(&log)) == *wanted;
            match ended.code() {
                None | Some(0) => finish(folder.path(), LONG, &out, 1 + (i + 1) % 3),
                Some(code) => panic!("{code}: {}", fs::read_to_string(&log).unwrap_or_default()),
            }
            same(&folder.path().join(&out), &expected, &format!("killed in {wanted}"));
            fs::remove_dir_all(folder.path().join(&out)).expect("removed");
            // The last files may be written before this process looks.
            if hit || (*wanted == "results" && attempt == 20) {
                break;
            }
            assert!(attempt < 20, "no kill in {wanted}");
        }
    }
}

/// A run whose stages last long enough to be hit.
const LONG: &str = "--sim-cells 150 --epochs 25 --particles 300 --checkpoint-every 1000";

/// Every stage of a run, as events name them.
const STAGES: [&str; 7] = [
    "training",
    "evaluation",
    "before binarisation",
    "retraining",
    "fitting",
    "after retraining and after fitting",
    "results",
];

#[test]
fn a_signal_in_any_stage_ends_with_code_75_and_the_run_can_be_resumed() {
    let folder = folder();
    let expected = in_peace(folder.path(), LONG);
    let log = folder.path().join("log");
    let mut hit: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, wanted) in STAGES.iter().enumerate() {
        for (j, name) in ["TERM", "INT", "USR1"].into_iter().enumerate() {
            let out = format!("{name}-{i}");
            for attempt in 0.. {
                let threads = 1 + (i + j) % 3;
                let command = command(folder.path(), LONG, &out, &format!("--resume --threads {threads}"));
                let mut child = start(command, &log);
                wait_until(&mut child, || stage(&events(&log)) == *wanted);
                if child.try_wait().expect("a child").is_none() {
                    signal(&child, name);
                }
                let ended = code(child);
                let said = events(&log);
                let last = said.last().expect("an event");
                match ended {
                    // The signal came too late, after the last file.
                    Some(0) if attempt < 5 => {
                        assert_eq!(last["event"], "finished");
                        fs::remove_dir_all(folder.path().join(&out)).expect("removed");
                        continue;
                    }
                    Some(0) => break,
                    ended => assert_eq!(ended, Some(75), "{wanted}, {name}: {last}"),
                }
                *hit.entry(wanted).or_default() += 1;
                assert_eq!(last["event"], "stopped");
                let message = last["message"].as_str().expect("a text");
                assert!(message.contains(&format!("SIG{name}")), "{message}");
                assert!(message.contains(&format!("svae-cpu run --resume {out}")), "{message}");
                assert!(folder.path().join(&out).join(checkpoint::CHECKPOINT).is_file());
                // As the message says, with the settings of the folder.
                let args = ["run", "--resume", &out, "--threads", ["3", "1", "2"][(i + j) % 3]];
                let (code, _, err) = said_by(folder.path(), &args);
                assert_eq!(code, 0, "{err}");
                break;
            }
            same(&folder.path().join(&out), &expected, &format!("{name} in {wanted}"));
        }
    }
    println!("signals by stage: {hit:?}");
    for stage in &STAGES[..STAGES.len() - 1] {
        assert!(hit.contains_key(stage), "no signal in {stage}: {hit:?}");
    }
}

fn said_by(folder: &Path, args: &[&str]) -> (i32, String, String) {
    said(&run(folder, args))
}

#[test]
fn a_signal_while_the_data_are_made_ends_with_code_75_and_writes_nothing() {
    let folder = folder();
    let log = folder.path().join("log");
    let command = command(folder.path(), "--sim-cells 20000 --sim-genes 400", "a", "");
    let mut child = start(command, &log);
    wait_until(&mut child, || events(&log).iter().any(|event| event["event"] == "start"));
    signal(&child, "USR1");
    assert_eq!(code(child), Some(75));
    let said = events(&log);
    assert!(said.last().expect("an event")["message"].as_str().expect("a text").contains("SIGUSR1"), "{said:?}");
    assert_eq!(names(folder.path()), ["log"]);
}

#[test]
fn a_second_signal_ends_a_run_at_once_and_without_damage() {
    let folder = folder();
    let settings = "--epochs 600 --patience 0 --no-heldout";
    let expected = in_peace(folder.path(), settings);
    // Nobody reads what it says, so that it waits at a full pipe and cannot obey the first signal.
    let mut command = command(folder.path(), settings, "a", "--checkpoint-every 0.0001");
    let mut child = command.args(["--log-format", "json"]).stderr(Stdio::piped()).spawn().expect("starts");
    wait_until(&mut child, || folder.path().join("a").join(checkpoint::PREVIOUS).is_file());
    let newest = || fs::read(folder.path().join("a").join(checkpoint::CHECKPOINT)).ok();
    wait_until(&mut child, || {
        let before = newest();
        std::thread::sleep(Duration::from_millis(500));
        before.is_some() && before == newest()
    });
    signal(&child, "TERM");
    std::thread::sleep(Duration::from_millis(100));
    // As `timeout` does, which sends it to the process and to its group.
    signal(&child, "TERM");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(child.try_wait().expect("a child"), None, "a signal repeated at once is one signal");
    signal(&child, "INT");
    let status = child.wait().expect("a child");
    assert_eq!(status.signal(), Some(2), "{status}");
    finish(folder.path(), settings, "a", 2);
    same(&folder.path().join("a"), &expected, "two signals");
}

#[test]
fn the_time_limit_stops_a_run_that_can_be_resumed_by_the_same_command() {
    let folder = folder();
    let endless = "--epochs 1000000 --patience 0 --no-heldout";
    let mut epochs = Vec::new();
    let log = folder.path().join("log");
    for _ in 0..2 {
        let child = start(command(folder.path(), endless, "a", "--resume --time-limit 1s"), &log);
        assert_eq!(code(child), Some(75));
        let said = events(&log);
        let message = said.last().expect("an event")["message"].as_str().expect("a text").to_owned();
        assert!(message.contains("the time limit") && message.contains("svae-cpu run --resume a"), "{message}");
        epochs.push(said.iter().rev().find_map(|event| event["epoch"].as_u64()).expect("an epoch"));
    }
    assert!(epochs[0] > 0 && epochs[1] > epochs[0], "{epochs:?}");
}

#[test]
fn one_folder_has_one_run() {
    let folder = folder();
    let endless = "--epochs 1000000 --patience 0 --no-heldout";
    let log = folder.path().join("log");
    let mut first = start(command(folder.path(), endless, "a", ""), &log);
    wait_until(&mut first, || stage(&events(&log)) == "training");
    for more in ["--resume", "--overwrite", ""] {
        let (code, out, err) = said(&command(folder.path(), endless, "a", more).output().expect("starts"));
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains("another run") && err.contains(&format!("process {}", first.id())), "{err}");
    }
    // The lock of a killed process is none.
    first.kill().expect("killed");
    first.wait().expect("a child");
    let second = start(command(folder.path(), endless, "a", "--resume --time-limit 1"), &log);
    assert_eq!(code(second), Some(75));
}

/// A run that is stopped in its first training, and the files of its folder.
fn stopped(folder: &Path, settings: &str, out: &str) -> BTreeMap<String, Vec<u8>> {
    let log = folder.join("log");
    let mut child = start(command(folder, settings, out, "--resume --checkpoint-every 0"), &log);
    wait_until(&mut child, || events(&log).iter().filter(|event| event["event"] == "epoch").count() > 4);
    signal(&child, "TERM");
    assert_eq!(code(child), Some(75), "{:?}", events(&log).last());
    names(&folder.join(out))
        .into_iter()
        .map(|name| (name.clone(), fs::read(folder.join(out).join(name)).unwrap()))
        .collect()
}

fn restore(out: &Path, files: &BTreeMap<String, Vec<u8>>) {
    let _ = fs::remove_dir_all(out);
    fs::create_dir_all(out).expect("a folder");
    files.iter().for_each(|(name, bytes)| fs::write(out.join(name), bytes).expect("written"));
}

/// Long enough to be stopped in the middle.
const STOPPABLE: &str = "--sim-cells 150 --epochs 40 --patience 0 --particles 5";

#[test]
fn torn_and_spoilt_checkpoints_are_refused_and_the_one_before_is_used() {
    let folder = folder();
    let expected = in_peace(folder.path(), STOPPABLE);
    let files = stopped(folder.path(), STOPPABLE, "a");
    let (newest, out) = (&files[checkpoint::CHECKPOINT], folder.path().join("a"));
    assert!(files.contains_key(checkpoint::PREVIOUS) && checkpoint::read(newest).is_ok());
    let n = newest.len();

    // Every class of cuts, and bits anywhere: none is taken for whole.
    let mut chance = Chance(7);
    for cut in (0..64).chain((64..n).step_by(n / 200 + 1)).chain(n - 64..n) {
        assert!(checkpoint::read(&newest[..cut]).is_err(), "cut to {cut} of {n} bytes");
    }
    let mut flipped = newest.clone();
    for _ in 0..2000 {
        let (byte, bit) = (chance.below(n as u64) as usize, 1 << chance.below(8));
        flipped[byte] ^= bit;
        assert!(checkpoint::read(&flipped).is_err(), "byte {byte}, bit {bit}");
        flipped[byte] ^= bit;
    }

    let torn = newest[..n / 3].to_vec();
    flipped[n / 2] ^= 16;
    for (what, bytes, reason) in [
        ("torn", Some(torn), "checksum is wrong"),
        ("flipped", Some(flipped.clone()), "checksum is wrong"),
        ("empty", Some(Vec::new()), "no checkpoint of svae-cpu"),
        ("foreign", Some(b"SVAE".repeat(100)), "no checkpoint of svae-cpu"),
        ("missing", None, ""),
    ] {
        restore(&out, &files);
        match bytes {
            Some(bytes) => fs::write(out.join(checkpoint::CHECKPOINT), bytes).expect("written"),
            None => fs::remove_file(out.join(checkpoint::CHECKPOINT)).expect("removed"),
        }
        let (code, _, err) = said(&command(folder.path(), STOPPABLE, "a", "--resume").output().expect("starts"));
        assert_eq!(code, 0, "{what}: {err}");
        assert!(err.contains(reason) && err.contains("Resumed in the stage training"), "{what}: {err}");
        assert!(reason.is_empty() || err.contains("the checkpoint before it is used"), "{what}: {err}");
        same(&out, &expected, what);
    }

    restore(&out, &files);
    fs::write(out.join(checkpoint::CHECKPOINT), &flipped).expect("written");
    fs::write(out.join(checkpoint::PREVIOUS), b"nothing").expect("written");
    let (code, stdout, err) = said(&command(folder.path(), STOPPABLE, "a", "--resume").output().expect("starts"));
    assert_eq!((code, stdout.as_str()), (2, ""), "{err}");
    assert!(err.contains("checkpoint.previous") && err.contains("--overwrite"), "{err}");
    assert_eq!(fs::read(out.join(checkpoint::CHECKPOINT)).expect("kept"), flipped);
    let overwritten = command(folder.path(), STOPPABLE, "a", "--overwrite").output().expect("starts");
    assert_eq!(said(&overwritten).0, 0);
    same(&out, &expected, "overwritten");
}

#[test]
fn what_is_resumed_must_be_the_same_run() {
    let folder = folder();
    let files = stopped(folder.path(), STOPPABLE, "a");
    let out = folder.path().join("a");
    for (more, reason) in [
        ("--resume --epochs 41", "`epochs` is 40 there and 41 here"),
        ("--resume --sim-seed 9", "`simulation.seed` is 0 there and 9 here"),
        ("--resume --precision f64", "`precision`"),
        ("--resume --sim-cells 151", "`simulation.cells`"),
        ("", "add --resume to resume it"),
    ] {
        let (code, stdout, err) = said(&command(folder.path(), STOPPABLE, "a", more).output().expect("starts"));
        assert_eq!((code, stdout.as_str()), (2, ""), "{more}: {err}");
        assert!(err.contains(reason) && err.contains("--overwrite"), "{more}: {err}");
        for (name, bytes) in &files {
            assert!(fs::read(out.join(name)).expect("kept") == *bytes, "{more}: {name}");
        }
    }
    // A data file may lie elsewhere, but its cells must be the same.
    let simulate = |out: &str, seed: &str| {
        let args = ["simulate", "--out", out, "--sim-interventions", "6", "--sim-cells", "150", "--sim-seed", seed];
        assert_eq!(said_by(folder.path(), &args).0, 0);
    };
    fs::create_dir(folder.path().join("elsewhere")).expect("a folder");
    simulate("s.npz", "1");
    simulate("elsewhere/t.npz", "1");
    simulate("u.npz", "2");
    let run = |data: &str, more: &[&str]| {
        let settings =
            ["run", "--epochs", "30", "--patience", "0", "--hidden", "8", "--out", "b", "--no-h5ad", "--data", data];
        program(folder.path(), &[&settings[..], more].concat())
    };
    let log = folder.path().join("log");
    let mut child = start(run("s.npz", &["--checkpoint-every", "0"]), &log);
    wait_until(&mut child, || events(&log).iter().filter(|event| event["event"] == "epoch").count() > 2);
    signal(&child, "TERM");
    assert_eq!(code(child), Some(75));
    let (code, _, err) = said(&run("u.npz", &["--resume"]).output().expect("starts"));
    assert!(code == 2 && err.contains("other data"), "{err}");
    let (code, _, err) = said(&run("elsewhere/t.npz", &["--resume"]).output().expect("starts"));
    assert!(code == 0 && err.contains("Resumed in the stage training"), "{err}");
}

#[test]
fn the_same_command_starts_goes_on_and_finds_the_run_finished() {
    let folder = folder();
    let settings = SHORT;
    let expected = in_peace(folder.path(), settings);
    let (code, _, err) = said(&command(folder.path(), settings, "a", "--resume").output().expect("starts"));
    assert!(code == 0 && err.contains("holds no checkpoint"), "{err}");
    same(&folder.path().join("a"), &expected, "the first time");
    let written = fs::metadata(folder.path().join("a/metrics.json")).and_then(|data| data.modified()).expect("a time");

    let mut again = command(folder.path(), settings, "a", "--resume --json");
    let (code, out, err) = said(&again.stdout(Stdio::piped()).output().expect("starts"));
    assert!(code == 0 && err.contains("finished already"), "{err}");
    assert_eq!(out, fs::read_to_string(folder.path().join("a/metrics.json")).expect("metrics"));
    let (code, _, err) = said_by(folder.path(), &["run", "--resume", "a"]);
    assert!(code == 0 && err.contains("finished already"), "{err}");
    let after = fs::metadata(folder.path().join("a/metrics.json")).and_then(|data| data.modified()).expect("a time");
    assert_eq!(written, after);

    let (code, _, err) = said(&command(folder.path(), settings, "a", "--resume --epochs 13").output().expect("starts"));
    assert!(code == 2 && err.contains("`epochs` is 12, not 13"), "{err}");
    for (args, reason) in [
        (&["run", "a"][..], "add --resume"),
        (&["run", "--resume", "a", "--out", "b"], "--out names another folder"),
        (&["run", "--resume", "."], "holds no run"),
        (&["run", "--resume"], "add --out"),
    ] {
        let (code, _, err) = said_by(folder.path(), args);
        assert!(code == 2 && err.contains(reason), "{args:?}: {err}");
    }
}

/// The command, unable to write files of more than so many blocks of 512 bytes.
fn with_file_limit(command: &Command, blocks: u64) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -f {blocks}; exec \"$@\""), "sh"]).arg(command.get_program());
    shell.args(command.get_args()).current_dir(command.get_current_dir().expect("a folder")).stdout(Stdio::null());
    shell
}

#[test]
fn when_the_disk_is_full_the_last_good_state_is_kept() {
    let folder = folder();
    // A model whose checkpoints are larger than any of its results.
    let settings = "--hidden 160 --epochs 8 --particles 5 --no-h5ad --checkpoint-every 0";
    let expected = in_peace(folder.path(), settings);
    let out = folder.path().join("a");
    let size = |name: &str| fs::metadata(folder.path().join("peace").join(name)).expect("a file").len();
    let largest = names(&folder.path().join("peace")).iter().map(|name| size(name)).max().expect("files");

    // Checkpoints fail, results do not: the run warns and ends well.
    let blocks = largest / 512 + 2;
    let limited =
        with_file_limit(&command(folder.path(), settings, "a", "--resume"), blocks).output().expect("a shell");
    let (code, _, err) = said(&limited);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("Warning: the checkpoint could not be written") && err.contains("too large"), "{err}");
    same(&out, &expected, "without room for checkpoints");

    // Results fail: a sentence, and the state as it was.
    fs::remove_dir_all(&out).expect("removed");
    let files = stopped(folder.path(), &format!("{settings} --epochs 200 --patience 0"), "a");
    let settings = format!("{settings} --epochs 200 --patience 0");
    fs::remove_dir_all(folder.path().join("peace")).expect("removed");
    let expected = in_peace(folder.path(), &settings);
    let limited = with_file_limit(&command(folder.path(), &settings, "a", "--resume"), 40).output().expect("a shell");
    let (code, _, err) = said(&limited);
    assert_eq!(code, 1, "{err}");
    for part in ["error: writing a/", "too large", "state of the run is kept", "svae-cpu run --resume a --no-h5ad"] {
        assert!(err.contains(part), "{part}: {err}");
    }
    for name in names(&out) {
        assert!(!name.starts_with('.'), "{name} is left over");
    }
    assert!(fs::read(out.join(checkpoint::CHECKPOINT)).expect("kept") == files[checkpoint::CHECKPOINT]);
    assert!(!out.join("metrics.json").exists());
    finish(folder.path(), &settings, "a", 3);
    same(&out, &expected, "after room was made");
}

#[test]
fn a_folder_that_vanishes_is_a_clear_error_and_its_checkpoint_still_counts() {
    let folder = folder();
    let expected = in_peace(folder.path(), STOPPABLE);
    let log = folder.path().join("log");
    let mut child = start(command(folder.path(), STOPPABLE, "a", "--checkpoint-every 0"), &log);
    wait_until(&mut child, || events(&log).iter().filter(|event| event["event"] == "epoch").count() > 4);
    fs::rename(folder.path().join("a"), folder.path().join("away")).expect("moved");
    assert_eq!(code(child), Some(1));
    let said = events(&log);
    let warned = |event: &Value| event["event"] == "warning" && event["message"].to_string().contains("checkpoint");
    assert!(said.iter().any(warned), "{said:?}");
    let last = said.last().expect("an event");
    assert_eq!(last["event"], "error");
    assert!(
        last["message"].as_str().is_some_and(|text| text.contains("writing a/") && text.contains("No such file")),
        "{last}"
    );
    assert!(!folder.path().join("a").exists());
    fs::rename(folder.path().join("away"), folder.path().join("a")).expect("moved back");
    finish(folder.path(), STOPPABLE, "a", 2);
    same(&folder.path().join("a"), &expected, "after the folder was back");
}

#[test]
fn events_are_lines_of_json_with_times() {
    let folder = folder();
    let log = folder.path().join("log");
    let child = start(command(folder.path(), SHORT, "a", "--checkpoint-every 0"), &log);
    assert_eq!(code(child), Some(0));
    let text = fs::read_to_string(&log).expect("a log");
    let mut last = String::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let time = event["time"].as_str().expect("a time").to_owned();
        assert!(event["event"].is_string() && time.len() == 24 && time >= last, "{line}");
        last = time;
    }
    let said = events(&log);
    let mut kinds: Vec<&str> = said.iter().map(|event| event["event"].as_str().expect("a name")).collect();
    assert_eq!((kinds[0], kinds[1], kinds[kinds.len() - 1]), ("start", "data", "finished"));
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["checkpoint", "data", "epoch", "finished", "note", "stage", "start"]);
    let stages: Vec<&str> =
        said.iter().filter(|event| event["event"] == "stage").map(|event| event["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, STAGES);
    assert_eq!(said.iter().filter(|event| event["event"] == "epoch" && event["stage"] == "training").count(), 12);

    // What cannot be done is said in the same way.
    let mut refused = command(folder.path(), SHORT, "b", "--holdout nonsense");
    let output = refused.args(["--log-format", "json"]).stderr(Stdio::piped()).output().expect("starts");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    let event: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&event["event"], event["exit_code"].as_u64()), (&Value::from("error"), Some(2)));
}

#[test]
fn the_manifest_tells_of_resumptions() {
    let folder = folder();
    stopped(folder.path(), STOPPABLE, "a");
    finish(folder.path(), STOPPABLE, "a", 3);
    let text = fs::read_to_string(folder.path().join("a/manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    let resumes = manifest["resumes"].as_array().expect("a list");
    assert_eq!(resumes.len(), 1, "{text}");
    assert_eq!((resumes[0]["threads"].as_u64(), resumes[0]["stage"].as_str()), (Some(3), Some("training")));
    let time = |key: &str| manifest[key].as_u64().expect("a time");
    assert!(time("started") <= resumes[0]["time"].as_u64().expect("a time") && time("started") <= time("ended"));

    // Built from a repository, the program names its commit.
    let git = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists();
    if let (true, true, Ok(git)) = (repository, std::env::var_os("SVAE_CPU_COMMIT").is_none(), git)
        && git.status.success()
    {
        let head = String::from_utf8(git.stdout).expect("a commit");
        let named = manifest["commit"].as_str().expect("the commit");
        assert_eq!(named.strip_suffix(", with changes").unwrap_or(named), head.trim());
    }
}

/// Files of every run of a sweep.
fn of_sweep(folder: &Path) -> BTreeMap<String, BTreeMap<String, Vec<u8>>> {
    let runs = folder.join("results/g/runs");
    names(&runs).into_iter().map(|name| (name.clone(), results(&runs.join(name)))).collect()
}

#[test]
fn a_sweep_stops_with_code_75_and_the_same_command_goes_on() {
    let grid = format!(
        "epochs = 60\npatience = 0\nhidden = 8\nlatents = 3\nparticles = 20\ncheckpoint_every = 0.001\n{}\
         [grid]\nseed = [0, 1]\n[[runs]]\nmethod = \"ivae\"\n[[runs]]\nmethod = \"svae-plus\"\nmask = \"hard\"\nalpha = [2, 20]\n",
        "[simulation]\ninterventions = 6\ncells = 100\ngenes = 12\nlatents = 3\nseed = 7\n"
    );
    let peace = folder();
    let folder = folder();
    for folder in [&peace, &folder] {
        fs::write(folder.path().join("g.toml"), &grid).expect("a grid");
    }
    assert_eq!(said_by(peace.path(), &["sweep", "g.toml", "--threads", "2", "--quiet"]).0, 0);
    let log = folder.path().join("log");
    let mut chance = Chance(3);
    let (mut stops, mut kills) = (0, 0);
    for round in 0.. {
        let threads = ["1", "2", "3"][round % 3];
        let mut child = start(program(folder.path(), &["sweep", "g.toml", "--threads", threads]), &log);
        let epochs = 20 + chance.below(120) as usize;
        wait_until(&mut child, || events(&log).iter().filter(|event| event["event"] == "epoch").count() > epochs);
        if round % 2 == 0 {
            if child.try_wait().expect("a child").is_none() {
                signal(&child, "TERM");
            }
        } else {
            child.kill().expect("killed");
        }
        match child.wait().expect("a child") {
            status if status.code() == Some(75) => {
                stops += 1;
                let said = events(&log);
                let message = said.last().expect("an event")["message"].as_str().expect("a text").to_owned();
                assert!(message.contains("of 6 runs are finished") && message.contains("same command"), "{message}");
            }
            status if status.signal() == Some(9) => kills += 1,
            status => {
                assert_eq!(status.code(), Some(0), "{:?}", events(&log).last());
                break;
            }
        }
    }
    println!("a sweep was stopped {stops} times and killed {kills} times");
    assert!(stops > 0 && kills > 0);
    assert!(of_sweep(folder.path()) == of_sweep(peace.path()), "a run of the sweep differs");
}

#[test]
fn evaluate_and_fit_shifts_stop_and_leave_the_folder_as_it_was() {
    let folder = folder();
    let settings = "--sim-cells 200 --epochs 3 --particles 3000 --no-heldout --no-h5ad";
    let mut first = command(folder.path(), settings.replace("--particles 3000 ", "").as_str(), "a", "");
    assert_eq!(said(&first.output().expect("starts")).0, 0);
    let out = folder.path().join("a");
    let before = results(&out);
    for command in [
        &["fit-shifts", "a", "--particles", "100000"][..],
        &["fit-shifts", "a", "--particles", "200000", "--threads", "1"],
    ] {
        for name in ["TERM", "USR1"] {
            let child =
                program(folder.path(), command).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
            std::thread::sleep(Duration::from_millis(300));
            signal(&child, name);
            let output = child.wait_with_output().expect("a child");
            let err = String::from_utf8(output.stderr).expect("UTF-8");
            assert_eq!(output.status.code(), Some(75), "{err}");
            assert!(
                err.contains(&format!("stopped by SIG{name}")) && err.contains("start the same command again"),
                "{err}"
            );
            same(&out, &before, "stopped");
        }
    }
    assert_eq!(said_by(folder.path(), &["fit-shifts", "a", "--particles", "5"]).0, 0);
}
