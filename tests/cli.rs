//! The command line: help, exit codes and what is refused before any work begins.

use std::fs;

use crate::support::{names, program, run, said};

/// Runs the program in an empty folder, expects it to refuse with exit code 2 in one sentence on standard error and to
/// write nothing, and returns the sentence.
fn refused(args: &[&str], files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let before = names(folder.path());
    let (code, out, err) = said(&run(folder.path(), args));
    assert_eq!(code, 2, "{args:?}: {err}");
    assert_eq!(out, "", "{args:?}");
    assert!(err.starts_with("error: "), "{args:?}: {err}");
    assert!(!err.contains("panicked"), "{args:?}: {err}");
    assert_eq!(names(folder.path()), before, "{args:?} must write nothing");
    for (name, text) in files {
        assert_eq!(fs::read_to_string(folder.path().join(name)).expect("still there"), *text);
    }
    err
}

#[test]
fn without_a_subcommand_the_help_is_shown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (code, _, err) = said(&run(folder.path(), &[]));
    assert_eq!(code, 2);
    for name in ["run", "simulate", "verify", "Usage"] {
        assert!(err.contains(name), "{name} in {err}");
    }
}

#[test]
fn help_and_version_succeed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (args, shown) in [
        (&["--help"][..], "Exit codes"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["run", "--help"], "svae-cpu run --data screen.h5ad --label-key gene"),
        (&["run", "--help"], "label_key"),
        (&["simulate", "--help"], "svae-cpu simulate --out screen.npz"),
        (&["verify", "--help"], "--golden"),
        (&["help", "run"], "--holdout"),
    ] {
        let (code, out, err) = said(&run(folder.path(), args));
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        assert!(out.contains(shown), "{args:?}: {shown} in {out}");
    }
}

#[test]
fn mistakes_in_the_command_line_are_bad_input() {
    for (args, said) in [
        (&["train"][..], "unrecognized subcommand"),
        (&["run", "--epoch", "3"], "--epochs"),
        (&["run", "--epochs", "many"], "--epochs"),
        (&["run", "--method", "vea"], "svae-plus"),
        (&["run", "--json=perhaps"], "--json"),
        (&["simulate"], "--out"),
        (&["simulate", "--out", "a.npz", "--seed", "1", "--sim-seed", "2"], "--sim-seed"),
        (&["verify", "--epochs", "3"], "--epochs"),
    ] {
        let message = refused(args, &[]);
        assert!(message.contains(said), "{args:?}: {said} in {message}");
    }
}

#[test]
fn a_misspelt_key_is_refused_with_the_nearest() {
    let message = refused(&["run", "a.toml"], &[("a.toml", "epochs = 2\nlatent = 3\n")]);
    assert!(message.contains("a.toml: line 2") && message.trim_end().ends_with("did you mean `latents`?"), "{message}");
    let message = refused(&["verify", "a.toml"], &[("a.toml", "[simulation]\ngene = 3\n")]);
    assert!(message.contains("`simulation.genes`"), "{message}");
}

#[test]
fn a_missing_settings_file_is_named() {
    for command in ["run", "verify"] {
        let message = refused(&[command, "nowhere.toml"], &[]);
        assert!(message.contains("nowhere.toml") && message.contains("no such file"), "{message}");
    }
}

#[test]
fn a_missing_data_file_is_named() {
    let message = refused(&["run", "--data", "nowhere.h5ad", "--label-key", "gene"], &[]);
    assert!(message.contains("nowhere.h5ad"), "{message}");
}

#[test]
fn values_out_of_range_are_refused_with_the_range() {
    let message = refused(&["run", "--dropout", "1.5"], &[]);
    assert!(message.contains("--dropout") && message.contains("below 1"), "{message}");
    let message = refused(&["run", "a.toml"], &[("a.toml", "\nepochs = -4\n")]);
    assert!(message.contains("a.toml: line 2, key `epochs`"), "{message}");
    let message = refused(&["simulate", "--out", "a.npz", "--sim-cells", "0"], &[]);
    assert!(message.contains("--sim-cells"), "{message}");
    let message = refused(&["simulate", "--out", "a.npz", "--seed", "-1"], &[]);
    assert!(message.contains("--seed"), "{message}");
}

#[test]
fn settings_without_effect_are_refused() {
    let message = refused(&["run", "--method", "vae", "--alpha", "3"], &[]);
    assert!(message.contains("--alpha") && message.contains("method vae"), "{message}");
    let message = refused(&["run", "--data", "a.npz", "--sim-cells", "3"], &[]);
    assert!(message.contains("--sim-cells"), "{message}");
}

#[test]
fn a_folder_that_holds_a_run_is_refused() {
    for file in ["old/config.toml", "old/metrics.json"] {
        let message = refused(&["run", "--out", "old"], &[(file, "earlier")]);
        assert!(message.contains("old") && message.contains("--overwrite"), "{message}");
    }
    let message = refused(&["run", "--out", "old", "--overwrite"], &[("old", "a file")]);
    assert!(message.contains("not a folder"), "{message}");
}

/// Four processes that do not know of each other would each do the whole run.
#[cfg(not(feature = "mpi"))]
#[test]
fn several_ranks_are_refused_by_a_program_without_mpi() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("g.toml"), "[grid]\nseed = [0, 1]\n").expect("a grid");
    for (variable, args) in [("OMPI_COMM_WORLD_SIZE", vec!["run"]), ("PMI_SIZE", vec!["sweep", "g.toml"])] {
        let output = program(folder.path(), &args).env(variable, "4").output().expect("the program starts");
        let (code, _, err) = said(&output);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("4 processes were started as one job") && err.contains("--features mpi"), "{err}");
        assert_eq!(names(folder.path()), ["g.toml"]);
    }
    // One process is no job of several, and shares of a sweep need not know of each other.
    let list = program(folder.path(), &["sweep", "g.toml", "--list"]).env("PMI_SIZE", "1").output();
    assert_eq!(said(&list.expect("the program starts")).0, 0);
    let small = ["sweep", "g.toml", "--shard", "1/2", "--sim-cells=9", "--epochs=1", "--no-heldout", "--out", "s"];
    let shard = program(folder.path(), &small).env("PMI_SIZE", "2").output();
    let (code, _, err) = said(&shard.expect("the program starts"));
    assert_eq!(code, 0, "{err}");
}

#[test]
fn simulate_refuses_names_it_should_not_write() {
    let args = |out| ["simulate", "--sim-cells", "2", "--sim-interventions", "2", "--out", out];
    assert!(refused(&args("a.npz"), &[("a.npz", "precious")]).contains("--overwrite"));
    assert!(refused(&args("a.h5ad"), &[]).contains(".npz"));
    assert!(refused(&args("nowhere/a.npz"), &[]).contains("folder"));
}

#[test]
fn verify_refuses_a_folder_without_vectors() {
    assert!(refused(&["verify", "--golden", "nowhere"], &[]).contains("--golden"));
    assert!(refused(&["verify", "--golden", "empty"], &[("empty/notes.txt", "x")]).contains(".npz"));
}

#[test]
fn a_missing_file_of_labels_is_named() {
    assert!(refused(&["run", "--holdout", "@nowhere.txt"], &[]).contains("nowhere.txt"));
}

#[test]
fn a_closed_standard_output_is_no_panic() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = program(folder.path(), &["run", "--help"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
}

#[test]
fn the_page_of_settings_lists_every_flag() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_, help, _) = said(&run(folder.path(), &["run", "-h"]));
    let page = include_str!("../docs/settings.md");
    let flags: Vec<&str> = help
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.starts_with("--") && word.len() > 2 && *word != "--help")
        .collect();
    assert!(flags.len() > 40, "{flags:?}");
    for flag in flags {
        let listed = |end: char| page.contains(&format!("`{flag}{end}"));
        assert!(listed('`') || listed(' '), "{flag} is not in docs/settings.md");
    }
}
