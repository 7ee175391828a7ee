//! Runs the program in a temporary working directory.

use std::path::Path;
use std::process::{Command, Output};

/// The program with `args`, to be run in `folder`.
pub fn program(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_svae-cpu"));
    command.current_dir(folder).args(args).env_remove("RUST_BACKTRACE");
    command
}

/// Runs the program with `args` in `folder` to its end.
pub fn run(folder: &Path, args: &[&str]) -> Output {
    program(folder, args).output().expect("the program starts")
}

/// Exit code, standard output and standard error.
pub fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (output.status.code().expect("an exit code, not a signal"), text(&output.stdout), text(&output.stderr))
}

/// Names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}
