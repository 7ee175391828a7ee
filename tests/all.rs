//! The integration tests, one module a file, in one program: what they share of the library is compiled and linked once.
//!
//!     cargo test --release --test all resume::      the tests of one file
//!
//! They run side by side in one process, so none of them changes what the whole process sees: its working directory, its
//! environment, its signals, its vector instructions. A test that must is a program of its own, with the reason in
//! `Cargo.toml`.

#[path = "support/loading.rs"]
mod loading;
mod support;

mod architecture;
mod bench;
mod cli;
mod combinations;
mod containers;
mod derivations;
mod determinism;
mod documentation;
mod fit;
mod formats;
mod golden;
mod gradients;
mod guides;
mod held_out;
mod judge;
mod known_answer;
mod malformed_input;
mod negative_binomial;
mod poisson;
mod predict;
mod principal_components;
mod public_files;
mod results;
mod resume;
mod run;
mod shared_files;
mod slurm;
mod starts;
mod stream;
mod sweep;
mod threads;

/// A file that no program declares would never run, and nobody would notice.
#[test]
fn every_file_belongs_to_a_program() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = include_str!("all.rs");
    let manifest = include_str!("../Cargo.toml");
    for name in support::names(&root.join("tests")) {
        if let Some(module) = name.strip_suffix(".rs") {
            let declared = here.lines().any(|line| line == format!("mod {module};"));
            let program = manifest.contains(&format!("[[test]]\nname = \"{module}\"\n"));
            assert!(declared != program, "tests/{name} is declared in {} of two places", [0, 2][usize::from(declared)]);
        }
    }
}
