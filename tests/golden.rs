//! Every golden vector of a folder: forward, gradients, running statistics, evaluation mode and Adam trajectories.

use std::path::PathBuf;
use svae_cpu::verification::golden;

/// The folder named by SVAE_GOLDEN_DIR, else tests/golden.
fn folder() -> PathBuf {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::env::var_os("SVAE_GOLDEN_DIR").map_or(default, PathBuf::from)
}

#[test]
fn every_vector_is_reproduced() {
    let paths = golden::vectors(&folder()).unwrap_or_else(|error| panic!("{error}"));
    let mut failures = Vec::new();
    let mut kinds = std::collections::BTreeMap::new();
    for path in &paths {
        for check in golden::check(path).unwrap_or_else(|error| panic!("{error}")) {
            let kind = check.name.split_once('(').map_or("", |(_, kind)| kind).to_owned();
            let worst = kinds.entry(kind).or_insert((0usize, 0f64));
            *worst = (worst.0 + check.points, worst.1.max(check.worst_relative_error));
            if !check.pass {
                failures.push(format!("{}: {:e} > {:e}", check.name, check.worst_relative_error, check.tolerance));
            }
        }
    }
    for (kind, (points, worst)) in kinds {
        println!("({kind}: {points} values, worst relative error {worst:.1e}");
    }
    assert!(failures.is_empty(), "{} of {} vectors:\n{}", failures.len(), paths.len(), failures.join("\n"));
}
