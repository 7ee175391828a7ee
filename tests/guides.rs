//! Guides, from the table of labels to the results: edges that they share, guides of control cells, cells without one.

use std::fs;
use std::path::Path;

use serde_json::Value;
use svae_cpu::data::loading::load::{LoadOptions, load};

use crate::support::{program, run, said};

const RUN: [&str; 18] = [
    "run",
    "--data",
    "s.npz",
    "--labels",
    "cells.csv",
    "--label-key",
    "gene",
    "--control",
    "control",
    "--epochs",
    "60",
    "--latents",
    "4",
    "--hidden",
    "16",
    "--batch-size",
    "32",
    "--quiet",
];

fn succeed(folder: &Path, args: &[&str]) {
    let (code, _, err) = said(&run(folder, args));
    assert_eq!(code, 0, "{args:?}: {err}");
}

fn refused(folder: &Path, args: &[&str], parts: &[&str]) {
    let (code, _, err) = said(&run(folder, args));
    assert_eq!(code, 2, "{args:?}: {err}");
    parts.iter().for_each(|part| assert!(err.contains(part), "`{part}` is missing in: {err}"));
}

/// A screen `s.npz`, and `cells.csv` with gene and guide of each cell: four guides of each gene, five of the controls, and none
/// of every 17th cell. Few latents, most of which each gene acts on: on this draw of it, their axes are plain all the same.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sizes = ["--sim-interventions", "30", "--sim-cells", "80", "--sim-genes", "30", "--sim-latents", "3"];
    let simulate = ["simulate", "--seed", "7", "--sim-controls", "200", "--out", "s.npz"];
    succeed(folder.path(), &[&simulate[..], &sizes].concat());
    let data = load(&folder.path().join("s.npz"), &LoadOptions::default()).expect("a screen").dataset;
    let mut table = String::from("barcode,gene,guide\n");
    for n in 0..data.n_cells() {
        let gene = &data.intervention_names[data.interventions.single(n).expect("a label")];
        let guide = match (n % 17, gene.as_str()) {
            (0, _) => String::new(),
            (_, "control") => format!("NT-{}", n % 5),
            (_, gene) => format!("{gene}-{}", n % 4),
        };
        table += &format!("{},{gene},{guide}\n", &data.cell_names[n]);
    }
    fs::write(folder.path().join("cells.csv"), table).expect("written");
    folder
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&read(path)).expect("JSON")
}

/// Fields of two columns of a table, by rows.
fn fields(path: &Path, names: [&str; 2]) -> Vec<[String; 2]> {
    let mut table = csv::Reader::from_path(path).expect("a table");
    let header = table.headers().expect("a header").clone();
    let places = names.map(|name| header.iter().position(|field| field == name).expect(name));
    let row = |row: Result<csv::StringRecord, csv::Error>| {
        let row = row.expect("a row");
        places.map(|place| row[place].to_owned())
    };
    table.records().map(row).collect()
}

const GUIDES: [&str; 2] = ["--guide-key", "guide"];

#[test]
fn guides_of_a_run_are_counted_asked_and_shown() {
    let folder = folder();
    succeed(folder.path(), &[&RUN[..], &GUIDES, &["--out", "a"]].concat());
    let path = |name: &str| folder.path().join("a").join(name);

    let summary = json(&path("data.json"));
    let guides = summary["guides"].as_array().expect("guides");
    assert_eq!(guides.len(), 125);
    let n_cells: u64 = guides.iter().map(|guide| guide["n_cells"].as_u64().expect("a number")).sum();
    assert_eq!(n_cells, 2600 - 2600_u64.div_ceil(17));

    // Only edges of the graph are asked about, and most of these are shared.
    let edges = fields(&path("edges.csv"), ["guides", "guides_agreeing"]);
    let targets = fields(&path("targets.csv"), ["guides", "guides_agreeing"]);
    assert!(targets.len() >= 30 && targets.iter().all(|[guides, _]| guides == "4"), "{targets:?}");
    let mut asked: Vec<&[String; 2]> = edges.iter().filter(|[guides, _]| !guides.is_empty()).collect();
    assert_eq!(asked.len(), targets.len());
    asked.retain(|[_, agreeing]| agreeing.parse::<usize>().expect("a number") > 1);
    let found = &json(&path("metrics.json"))["edges"];
    let replication = &found["replication"];
    assert_eq!(replication["n_edges"], targets.len());
    assert_eq!(replication["n_replicated"], asked.len());
    assert!(replication["share"].as_f64().expect("a number") >= 0.9, "{replication}");
    let controls = &found["control_guides"];
    assert_eq!((&controls["n_guides"], &controls["n_pairs"], &controls["n_edges"]), (&5.into(), &20.into(), &0.into()));

    let report = read(&path("report.html"));
    assert!(report.contains("4 of 4") && report.contains("each of the 5 guides of control cells"));
    // The page is made again from the files alone.
    fs::remove_file(path("report.html")).expect("removed");
    succeed(folder.path(), &["report", "a"]);
    assert_eq!(read(&path("report.html")), report);
}

/// Files whose bytes say what was found.
fn results(folder: &Path) -> Vec<Vec<u8>> {
    let files = ["edges.csv", "targets.csv", "results.h5ad", "model.safetensors", "masks.csv"];
    files.iter().map(|name| fs::read(folder.join(name)).expect("a file")).collect()
}

#[test]
fn guides_change_no_result_and_threads_and_resuming_no_byte() {
    let folder = folder();
    let folder = folder.path();
    let with = |more: &[&'static str]| [&RUN[..], &GUIDES, more].concat();
    succeed(folder, &with(&["--threads", "1", "--out", "a"]));
    succeed(folder, &with(&["--threads", "3", "--out", "b"]));
    let expected = results(&folder.join("a"));
    assert!(expected == results(&folder.join("b")));
    succeed(folder, &[&RUN[..], &["--out", "without"]].concat());
    assert_eq!(read(&folder.join("a/masks.csv")), read(&folder.join("without/masks.csv")));
    let edges = fields(&folder.join("without/edges.csv"), ["guides", "guides_agreeing"]);
    assert!(edges.iter().all(|fields| fields.iter().all(String::is_empty)));
    let found = &json(&folder.join("without/metrics.json"))["edges"];
    assert!(found.get("control_guides").is_none() && found.get("replication").is_none());

    let mut child =
        program(folder, &with(&["--checkpoint-every", "0", "--out", "c"])).spawn().expect("the program starts");
    while !folder.join("c/checkpoint").exists() && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().expect("it can be killed");
    if child.wait().expect("a child").code().is_none() {
        // Other guides would be other data.
        let table = read(&folder.join("cells.csv"));
        fs::write(folder.join("cells.csv"), table.replace("NT-3", "NT-2")).expect("written");
        refused(folder, &with(&["--resume", "--out", "c"]), &["data"]);
        fs::write(folder.join("cells.csv"), table).expect("written");
    }
    succeed(folder, &with(&["--resume", "--threads", "2", "--out", "c"]));
    assert!(expected == results(&folder.join("c")));
}

#[test]
fn a_guide_key_that_cannot_be_used_is_refused() {
    let folder = folder();
    let with = |more: &[&'static str]| [&RUN[..], more].concat();
    let absent = with(&["--guide-key", "guides", "--out", "a"]);
    refused(folder.path(), &absent, &["`guides`", "no such column", "`gene`", "`guide`"]);
    let hard = with(&["--guide-key", "guide", "--mask", "hard", "--out", "a"]);
    refused(folder.path(), &hard, &["guide", "no effect"]);
    refused(folder.path(), &["run", "--guide-key", "guide", "--out", "a"], &["guide", "--data FILE"]);
    let table = read(&folder.path().join("cells.csv")).replace("gene,guide", "gene,guide,nothing").replace('\n', ",\n");
    fs::write(folder.path().join("cells.csv"), table.replacen("nothing,", "nothing", 1)).expect("written");
    refused(folder.path(), &with(&["--guide-key", "nothing", "--out", "a"]), &["nothing", "no cell has a guide"]);
    assert!(!folder.path().join("a").exists());
}

/// The guide as the intervention: each has one guide, and every control guide is still told from the others.
#[test]
fn the_guide_may_be_the_intervention() {
    let folder = folder();
    let controls = "NT-0,NT-1,NT-2,NT-3,NT-4";
    let mut args = RUN.to_vec();
    (args[6], args[8]) = ("guide", controls);
    args.extend(["--drop-unlabelled-cells", "--guide-key", "guide", "--out", "a"]);
    succeed(folder.path(), &args);
    let found = &json(&folder.path().join("a/metrics.json"))["edges"];
    assert_eq!(found["control_guides"]["n_guides"], 5);
    assert_eq!(found["replication"]["n_edges"], 0);
    let targets = fields(&folder.path().join("a/targets.csv"), ["guides", "guides_agreeing"]);
    assert!(!targets.is_empty() && targets.iter().all(|[guides, _]| guides == "1"));
}
