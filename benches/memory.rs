//! Most memory that reading and training take, as the cells of a screen grow tenfold.
//!
//! `cargo bench --bench memory [-- CELLS]` (116,400 cells at most by default)
//!
//! Each size is written to a file by one process and read and trained on by another, so that making the data does not count.

use std::path::Path;
use std::process::Command;

use svae_cpu::commands::bench::screen;
use svae_cpu::data::formats::write_npz;
use svae_cpu::data::loading::load::{LoadOptions, load};
use svae_cpu::words::grouped;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", cells, path] => write(cells.parse().expect("a number of cells"), Path::new(path)),
        ["measure", path] => measure(Path::new(path)),
        [] => compare(116_400),
        [cells] => compare(cells.parse().expect("a number of cells")),
        _ => panic!("usage: cargo bench --bench memory [-- CELLS]"),
    }
}

fn compare(most: usize) {
    let folder = tempfile::tempdir().expect("a folder for the data");
    println!("    cells  compact counts, MB  peak memory, MB  over 1.5 x counts, MB  bytes per cell");
    for cells in [most / 10, most] {
        let path = folder.path().join(format!("{cells}.npz"));
        let path = path.to_str().expect("a plain path");
        let again = |arguments: &[&str]| {
            let program = std::env::current_exe().expect("this program's path");
            let output = Command::new(program).args(arguments).output().expect("this program starts again");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("text")
        };
        again(&["write", &cells.to_string(), path]);
        let figures = again(&["measure", path]);
        let figures: Vec<f64> = figures.split_whitespace().map(|figure| figure.parse().expect("a number")).collect();
        let (counts, peak) = (figures[0], figures[1]);
        println!(
            "{:>9} {:>19.0} {:>16.0} {:>22.0} {:>15.0}",
            grouped(cells as u64),
            counts / 1e6,
            peak / 1e6,
            (peak - 1.5 * counts) / 1e6,
            peak / cells as f64
        );
    }
}

fn write(cells: usize, path: &Path) {
    write_npz(&screen(cells), path).expect("the data can be written");
}

/// Prints the bytes of the counts, and of the most memory that a run of one epoch on them held.
fn measure(path: &Path) {
    let options = LoadOptions { label_key: Some("label".to_owned()), ..LoadOptions::default() };
    let counts = load(path, &options).expect("readable").dataset.counts.bytes();
    // A process of its own again: the one above would count twice.
    let out = path.with_extension("results");
    let program = Path::new(env!("CARGO_BIN_EXE_svae-cpu"));
    let run = Command::new(program)
        .args(["run", "--epochs", "1", "--quiet", "--json", "--label-key", "label", "--data"])
        .arg(path)
        .arg("--out")
        .arg(out)
        .output()
        .expect("the program starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let metrics: serde_json::Value = serde_json::from_slice(&run.stdout).expect("metrics");
    println!("{counts} {}", metrics["timing"]["peak_rss_bytes"]);
}
