//! What a run hands on: the report, the tables, results.h5ad, and the commands that use a trained model.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::support::{run, said};
use svae_cpu::data::formats::npz::{Npz, NpzWriter};
use svae_cpu::data::loading::load::{LoadOptions, load};

/// Genes of the screen.
const GENES: usize = 30;
/// Names that mean something in HTML, XML, DOT or CSV.
const NAMES: [&str; 6] = ["<script>alert(1)</script>", "a & b", "\"quoted\"", "x, y", "G1+G2", "control"];

/// A screen of 120 cells in two batches, with those names.
fn screen(path: &Path) {
    let mut state = 5u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let n = 120;
    let mut npz = NpzWriter::create(path).expect("a file");
    let x: Vec<u32> = (0..n * GENES).map(|i| next() % 7 + if i % GENES == (i / GENES) % 6 { 20 } else { 0 }).collect();
    npz.add_u32("x", &[n, GENES], &x).expect("counts");
    npz.add_i64("label", &[n], &(0..n as i64).map(|n| n % 6).collect::<Vec<_>>()).expect("labels");
    npz.add_strings("intervention_names", &NAMES).expect("names");
    npz.add_strings("gene_names", &(0..GENES).map(|g| format!("gene<{g}>")).collect::<Vec<_>>()).expect("names");
    npz.add_strings("batch", &(0..n).map(|n| if n % 2 == 0 { "b&1" } else { "b2" }).collect::<Vec<_>>())
        .expect("batch");
    npz.finish().expect("written");
}

fn succeed(folder: &Path, args: &[&str]) -> (String, String) {
    let (code, out, err) = said(&run(folder, args));
    assert_eq!(code, 0, "{args:?}: {err}");
    (out, err)
}

fn refused(folder: &Path, args: &[&str]) -> String {
    let (code, out, err) = said(&run(folder, args));
    assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    err
}

/// A folder with the screen `s.npz` and a run `a` on it.
fn trained(more: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    screen(&folder.path().join("s.npz"));
    let args = ["run", "--data", "s.npz", "--batch-key", "batch", "--epochs", "3", "--hidden", "16", "--out", "a"];
    succeed(folder.path(), &[&args[..], &["--latents", "4", "--quiet", "--particles", "5"], more].concat());
    folder
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails unless every element of a page is closed in turn.
fn assert_well_formed(page: &str) {
    const VOID: [&str; 4] = ["meta", "!doctype", "br", "hr"];
    // Style and script are text, not markup.
    let mut text = page.to_owned();
    for name in ["style", "script"] {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let (from, to) = (text.find(&open).expect("opened"), text.find(&close).expect("closed"));
        assert_eq!(text.matches(&open).count(), 1, "one {name}");
        text.replace_range(from..to + close.len(), "");
    }
    let mut open = Vec::new();
    for (at, _) in text.match_indices('<') {
        let inside = &text[at + 1..at + text[at..].find('>').expect("an end of the tag")];
        let name = inside.trim_start_matches('/').split(|c: char| !c.is_ascii_alphanumeric() && c != '!').next();
        let name = name.expect("a name");
        if inside.starts_with('/') {
            assert_eq!(open.pop(), Some(name.to_owned()), "near {}", &text[at.saturating_sub(80)..at + 20]);
        } else if !inside.ends_with('/') && !VOID.contains(&name) {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_report_is_one_whole_page_and_made_again_from_the_folder() {
    let folder = trained(&["--holdout", "a & b"]);
    let path = folder.path().join("a/report.html");
    let page = read(&path);
    assert_well_formed(&page);
    for section in ["training", "targets", "latents", "genes", "heldout", "data", "repeat"] {
        assert!(page.contains(&format!("<section id=\"{section}\">")), "{section}");
    }
    // Nothing comes from elsewhere, and no name becomes markup.
    for foreign in ["http:", "https:", "src=", "@import", "<link", "<script>alert"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("b&amp;1"));
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("<title>"));
    assert!(!page.contains("NaN") && !page.contains("inf\""));
    fs::remove_file(&path).expect("removed");
    let (out, _) = succeed(folder.path(), &["report", "a"]);
    assert!(out.contains("report.html"));
    assert_eq!(read(&path), page);
}

#[test]
fn every_method_has_a_report_and_methods_without_shifts_no_targets() {
    for (method, targets) in [("vae", false), ("ivae", true), ("svae", true)] {
        let folder = trained(&["--method", method]);
        let path = folder.path().join("a");
        assert_well_formed(&read(&path.join("report.html")));
        assert_eq!(path.join("targets.csv").exists(), targets, "{method}");
        assert_eq!(path.join("graph.graphml").exists(), targets, "{method}");
    }
}

#[test]
fn a_damaged_folder_is_refused_by_the_file() {
    let folder = trained(&[]);
    for (file, text) in [("cells.csv", "cell,intervention\n"), ("shifts.csv", "intervention,latent_0\na,b\n")] {
        let path = folder.path().join("a").join(file);
        let whole = read(&path);
        fs::write(&path, text).expect("written");
        let message = refused(folder.path(), &["report", "a"]);
        assert!(message.contains(file), "{message}");
        fs::write(&path, whole).expect("written");
    }
    fs::write(folder.path().join("a/metrics.json"), "{").expect("written");
    assert!(refused(folder.path(), &["report", "a"]).contains("metrics.json"));
    assert!(refused(folder.path(), &["report", "nowhere"]).contains("nowhere"));
}

#[test]
fn results_h5ad_holds_the_counts_and_can_be_trained_on() {
    let folder = trained(&[]);
    let options = |key: &str| LoadOptions { label_key: Some(key.to_owned()), ..LoadOptions::default() };
    let ours = load(&folder.path().join("s.npz"), &options("label")).expect("readable").dataset;
    let path = folder.path().join("a/results.h5ad");
    let copy = load(&path, &options("intervention")).expect("readable").dataset;
    assert_eq!((copy.n_cells(), &copy.gene_names, &copy.cell_names), (120, &ours.gene_names, &ours.cell_names));
    for n in 0..120 {
        let row = |data: &svae_cpu::data::dataset::Dataset| {
            let mut row = Vec::new();
            data.counts.row(n).for_each(|g, x| row.push((g, x)));
            row
        };
        assert_eq!(row(&ours), row(&copy), "cell {n}");
        let name = |data: &svae_cpu::data::dataset::Dataset| {
            data.intervention_names[data.interventions.single(n).expect("one")].clone()
        };
        assert_eq!(name(&ours), name(&copy));
    }
    // The columns of an .h5ad file are copied, results of an earlier run are not.
    let args = ["run", "--data", "a/results.h5ad", "--label-key", "intervention", "--epochs", "1", "--hidden", "8"];
    succeed(folder.path(), &[&args[..], &["--quiet", "--out", "b"]].concat());
    let again = load(&folder.path().join("b/results.h5ad"), &options("batch")).expect("the column was copied");
    assert_eq!(again.dataset.intervention_names, ["b&1", "b2"]);
    // And without it there is none.
    succeed(folder.path(), &[&args[..], &["--quiet", "--out", "c", "--no-h5ad"]].concat());
    assert!(!folder.path().join("c/results.h5ad").exists());
}

#[test]
fn cells_of_the_run_embed_as_they_did_there_whatever_the_order_of_genes() {
    let folder = trained(&[]);
    let path = |name: &str| folder.path().join(name);
    let latents = Npz::open(path("a/latents.npz")).expect("readable").array_f64("latents").expect("latents").1;
    let embed =
        |data: &str, out: &str| succeed(folder.path(), &["embed", "--model", "a", "--data", data, "--out", out]);
    embed("s.npz", "e.npz");
    let again = Npz::open(path("e.npz")).expect("readable").array_f64("latents").expect("latents").1;
    assert_eq!(latents, again);

    // Reversed genes, one of them gone, a stranger among them, and no labels at all.
    let (_, x) = Npz::open(path("s.npz")).expect("readable").array_i64("x").expect("counts");
    let mut npz = NpzWriter::create(path("new.npz")).expect("a file");
    let row = |n: usize| (0..GENES).rev().filter(|&g| g != 3).map(move |g| (n, g));
    let table: Vec<u32> =
        (0..120).flat_map(|n| row(n).map(|(n, g)| x[n * GENES + g] as u32).chain([9]).collect::<Vec<_>>()).collect();
    npz.add_u32("x", &[120, GENES], &table).expect("counts");
    let names: Vec<String> = row(0).map(|(_, g)| format!("gene<{g}>")).chain(["stranger".to_owned()]).collect();
    npz.add_strings("gene_names", &names).expect("names");
    npz.finish().expect("written");
    let (_, notes) = embed("new.npz", "new.csv");
    assert!(
        notes.contains("29 of 30 genes") && notes.contains("gene<3>") && notes.contains("1 other genes"),
        "{notes}"
    );
    // The same as the screen with that gene at 0.
    let mut npz = NpzWriter::create(path("zero.npz")).expect("a file");
    let zero: Vec<u32> = x.iter().enumerate().map(|(i, &x)| if i % GENES == 3 { 0 } else { x as u32 }).collect();
    npz.add_u32("x", &[120, GENES], &zero).expect("counts");
    npz.add_strings("gene_names", &(0..GENES).map(|g| format!("gene<{g}>")).collect::<Vec<_>>()).expect("names");
    npz.finish().expect("written");
    embed("zero.npz", "zero.csv");
    assert_eq!(read(&path("new.csv")), read(&path("zero.csv")));
    assert_ne!(read(&path("new.csv")).lines().nth(1), None);

    let mut npz = NpzWriter::create(path("other.npz")).expect("a file");
    npz.add_u32("x", &[1, 2], &[1, 2]).expect("counts");
    npz.finish().expect("written");
    let message = refused(folder.path(), &["embed", "--model", "a", "--data", "other.npz", "--out", "o.csv"]);
    assert!(message.contains("none of its genes") && !path("o.csv").exists(), "{message}");
    assert!(
        refused(folder.path(), &["embed", "--model", "a", "--data", "s.npz", "--out", "e.npz"]).contains("--overwrite")
    );
}

#[test]
fn denoised_expression_adds_up_to_the_scale() {
    let folder = trained(&[]);
    let normalize = |more: &[&str]| {
        succeed(folder.path(), &[&["normalize", "--model", "a", "--overwrite", "--out", "n.npz"], more].concat());
        let npz = Npz::open(folder.path().join("n.npz")).expect("readable");
        (npz.array_f64("expression").expect("expression"), npz.strings("genes").expect("genes").1)
    };
    let ((shape, all), genes) = normalize(&["--scale", "500"]);
    assert_eq!((shape, genes.len()), (vec![120, GENES], GENES));
    for row in all.chunks_exact(GENES) {
        assert!((row.iter().sum::<f64>() - 500.0).abs() < 0.01 && row.iter().all(|&x| x > 0.0));
    }
    let ((shape, some), genes) = normalize(&["--scale", "500", "--genes", "gene<7>,gene<2>"]);
    assert_eq!((shape, genes), (vec![120, 2], vec!["gene<7>".to_owned(), "gene<2>".to_owned()]));
    assert!(some.chunks_exact(2).zip(all.chunks_exact(GENES)).all(|(s, a)| s == [a[7], a[2]]));
    // New cells need the covariates of the decoder; the run's own file has them.
    let ((_, new), _) = normalize(&["--scale", "500", "--data", "s.npz"]);
    assert_eq!(new, all);
    let ((_, sampled), _) = normalize(&["--scale", "500", "--samples", "3"]);
    assert!(sampled != all && sampled.chunks_exact(GENES).all(|row| (row.iter().sum::<f64>() - 500.0).abs() < 0.01));
    let args = ["normalize", "--model", "a", "--genes", "gene<77>", "--out", "x.csv"];
    assert!(refused(folder.path(), &args).contains("gene<77>"));
    assert!(
        refused(folder.path(), &["normalize", "--model", "a", "--scale", "-1", "--out", "x.csv"]).contains("--scale")
    );
}

#[test]
fn cells_are_simulated_under_interventions_and_can_be_trained_on() {
    let folder = trained(&["--holdout", "a & b"]);
    let sample =
        |more: &[&str]| succeed(folder.path(), &[&["sample", "--model", "a", "--cells", "300"], more].concat());
    sample(&["--intervention", "control", "--out", "s1.npz"]);
    sample(&["--intervention", "control", "--out", "s2.npz", "--threads", "1"]);
    assert!(
        fs::read(folder.path().join("s1.npz")).expect("a file")
            == fs::read(folder.path().join("s2.npz")).expect("a file")
    );
    let data = load(&folder.path().join("s1.npz"), &LoadOptions::default()).expect("readable").dataset;
    assert_eq!(
        (data.n_cells(), data.n_genes(), &data.intervention_names[..]),
        (300, GENES, &["control".to_owned()][..])
    );
    // Counts follow the size factors of training cells.
    let total: f64 = (0..300).map(|n| data.counts.row(n).sum() as f64).sum::<f64>() / data.library.iter().sum::<f64>();
    assert!((total - 1.0).abs() < 0.05, "{total}");
    // Both batches take part.
    let options = LoadOptions { batch_key: Some("batch".into()), ..LoadOptions::default() };
    let data = load(&folder.path().join("s1.npz"), &options).expect("readable").dataset;
    assert_eq!(data.covariates.categorical[0].levels, ["b&1", "b2"]);

    let (_, notes) = sample(&["--intervention", "a & b", "--out", "held.h5ad"]);
    assert!(notes.contains("held-out"), "{notes}");
    sample(&["--intervention", "G1+G2,control", "--size-factor", "100", "--out", "both.csv"]);
    let mut table = csv::Reader::from_path(folder.path().join("both.csv")).expect("a table");
    assert_eq!(table.records().count(), 300);
    sample(&["--out", "none.h5ad"]);
    let args = ["sample", "--model", "a", "--intervention", "contrl", "--out", "x.npz"];
    assert!(refused(folder.path(), &args).contains("did you mean `control`?"));
    assert!(refused(folder.path(), &["sample", "--model", "a", "--cells", "0", "--out", "x.npz"]).contains("--cells"));
    assert!(refused(folder.path(), &["sample", "--model", "a", "--out", "x.txt"]).contains(".h5ad"));
}

#[test]
fn the_graph_holds_the_targets() {
    let folder = trained(&[]);
    let mut table = csv::Reader::from_path(folder.path().join("a/targets.csv")).expect("a table");
    let mut by_intervention: HashMap<String, usize> = HashMap::new();
    for row in table.records() {
        let row = row.expect("a row");
        assert!(NAMES.contains(&&row[0]) && row[2].parse::<f64>().expect("a number") > 0.5);
        *by_intervention.entry(row[0].to_owned()).or_default() += 1;
    }
    let edges: usize = by_intervention.values().sum();
    assert!(edges > 0);
    assert_eq!(read(&folder.path().join("a/graph.graphml")).matches("<edge ").count(), edges);
    assert_eq!(read(&folder.path().join("a/graph.dot")).matches(" -> ").count(), edges);
}
