//! Names the commit that the program is built from, for the manifest of every run.
//!
//! `SVAE_CPU_COMMIT` in the environment wins. Otherwise git is asked; outside a repository of this project's own (a crate from a
//! registry, an archive of the sources, a machine without git) the commit is unknown, and the build goes on without it.

use std::path::Path;
use std::process::Command;

/// What the program is made of: changes to anything else are no changes of the program.
const SOURCES: [&str; 4] = ["src", "Cargo.toml", "Cargo.lock", "build.rs"];

fn main() {
    println!("cargo::rerun-if-env-changed=SVAE_CPU_COMMIT");
    // Cargo then looks at nothing else.
    for path in SOURCES.iter().filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    let commit = match std::env::var("SVAE_CPU_COMMIT") {
        Ok(given) => Some(given.trim().to_owned()).filter(|given| !given.is_empty()),
        Err(_) => of_repository(),
    };
    if let Some(commit) = commit {
        println!("cargo::rustc-env=SVAE_CPU_COMMIT={commit}");
    }
}

/// The commit that is checked out, and whether the sources differ from it.
fn of_repository() -> Option<String> {
    // Sources unpacked inside some other repository do not belong to its commits.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    // Grows with every commit and every checkout.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let changes = git(&[&["status", "--porcelain", "--untracked-files=no", "--"], &SOURCES[..]].concat())?;
    Some(if changes.is_empty() { commit } else { format!("{commit}, with changes") })
}

/// What git answers, if it does.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
