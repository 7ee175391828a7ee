//! What a run hands on: the report, the tables, results.h5ad, and the commands that use a trained model.

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
    let edges = read(&folder.path().join("a/edges.csv"));
    for (file, text) in [
        ("cells.csv", "cell,intervention\n"),
        ("shifts.csv", "intervention,latent_0\na,b\n"),
        ("edges.csv", "intervention,latent,probability\n"),
        ("edges.csv", &edges.replace("latent_3", "latent_4")),
        ("edges.csv", &edges.replace("a & b", "nobody")),
    ] {
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

/// The numbers of a column of a table.
fn column(path: &Path, name: &str) -> Vec<f64> {
    texts(path, name).iter().map(|text| text.parse().expect("a number")).collect()
}

/// The fields of a column of a table.
fn texts(path: &Path, name: &str) -> Vec<String> {
    let mut table = csv::Reader::from_path(path).expect("a table");
    let at = table.headers().expect("a header").iter().position(|field| field == name).expect(name);
    table.records().map(|row| row.expect("a row")[at].to_owned()).collect()
}

#[test]
fn the_graph_of_a_model_with_random_masks_holds_the_likely_pairs() {
    let folder = trained(&["--mask", "hard"]);
    let path = |name: &str| folder.path().join("a").join(name);
    let header = read(&path("targets.csv")).lines().next().map(str::to_owned);
    assert_eq!(header.as_deref(), Some("intervention,latent,probability,shift"));
    let probabilities = column(&path("targets.csv"), "probability");
    assert!(!probabilities.is_empty() && probabilities.iter().all(|&p| p > 0.5));
    assert!(texts(&path("targets.csv"), "intervention").iter().all(|name| NAMES.contains(&name.as_str())));
    let graph = read(&path("graph.graphml"));
    assert_eq!(graph.matches("<edge ").count(), probabilities.len());
    assert_eq!(read(&path("graph.dot")).matches(" -> ").count(), probabilities.len());
    // How sure they are is not known.
    assert!(!path("edges.csv").exists() && !graph.contains("q_value"));
    assert!(!read(&path("metrics.json")).contains("\"edges\"") && !read(&path("report.html")).contains("q-value"));
}

/// A folder with a run `a` on a simulated screen.
fn simulated(more: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let screen = ["--sim-interventions", "10", "--sim-cells", "60", "--sim-genes", "30", "--sim-latents", "4"];
    let model = ["--latents", "4", "--hidden", "16", "--epochs", "40", "--particles", "5", "--quiet", "--out", "a"];
    succeed(folder.path(), &[&["run"], &screen[..], &model, more].concat());
    folder
}

#[test]
fn every_pair_says_how_sure_it_is_and_all_files_agree_on_the_edges() {
    let folder = simulated(&["--fdr", "0.1"]);
    let path = |name: &str| folder.path().join("a").join(name);
    let (edges, targets) = (path("edges.csv"), path("targets.csv"));
    let lines = read(&edges);
    let header = "intervention,latent,probability,lfsr,q_value,shift,shift_low,shift_high,probability_large";
    let header = format!("{header},guides,guides_agreeing,block");
    assert_eq!(lines.lines().next(), Some(header.as_str()));
    // Of 10 interventions 2 are held out.
    assert_eq!(lines.lines().count(), 1 + 8 * 4);
    let of = |name: &str| column(&edges, name);
    let (probability, q_value) = (of("probability"), of("q_value"));
    let mut order: Vec<usize> = (0..probability.len()).collect();
    order.sort_by(|&a, &b| probability[b].total_cmp(&probability[a]));
    assert!(order.windows(2).all(|pair| q_value[pair[0]] <= q_value[pair[1]]), "{q_value:?}");
    for name in ["probability", "lfsr", "q_value", "probability_large"] {
        assert!(of(name).iter().all(|value| (0.0..=1.0).contains(value)), "{name}");
    }
    // A sign can only be known if there is an edge, and a large shift only be there if there is one.
    assert!(of("lfsr").iter().zip(&probability).all(|(lfsr, p)| *lfsr >= 1.0 - p - 1e-12));
    assert!(of("probability_large").iter().zip(&probability).all(|(large, p)| large <= p));
    let (shift, low, high) = (of("shift"), of("shift_low"), of("shift_high"));
    assert!((0..shift.len()).all(|i| low[i] < shift[i] && shift[i] < high[i]));

    let found: Vec<usize> = (0..q_value.len()).filter(|&i| q_value[i] <= 0.1).collect();
    assert!(!found.is_empty() && found.len() < q_value.len(), "{q_value:?}");
    let names = ["intervention", "latent", "probability", "shift", "lfsr", "q_value", "shift_low", "shift_high"];
    let header = [&names[..], &["probability_large", "guides", "guides_agreeing", "block"]].concat().join(",");
    assert_eq!(read(&targets).lines().next(), Some(header.as_str()));
    for name in names {
        let all = texts(&edges, name);
        let expected: Vec<String> = found.iter().map(|&i| all[i].clone()).collect();
        assert_eq!(texts(&targets, name), expected, "{name}");
    }
    let graph = read(&path("graph.graphml"));
    assert_eq!(graph.matches("<edge ").count(), found.len());
    assert_eq!(graph.matches("<data key=\"q_value\">").count(), found.len());
    assert_eq!(read(&path("graph.dot")).matches(" -> ").count(), found.len());

    let metrics: serde_json::Value = serde_json::from_str(&read(&path("metrics.json"))).expect("JSON");
    let figures = &metrics["edges"];
    assert_eq!((figures["fdr"].as_f64(), figures["n_pairs"].as_u64()), (Some(0.1), Some(32)));
    assert_eq!(figures["n_edges"].as_u64(), Some(found.len() as u64));
    let names: std::collections::HashSet<String> = texts(&targets, "intervention").into_iter().collect();
    assert_eq!(figures["interventions_with_edge"].as_u64(), Some(names.len() as u64));
    let expected: f64 = found.iter().map(|&i| 1.0 - probability[i]).sum();
    assert!((figures["expected_false"].as_f64().expect("a number") - expected).abs() < 1e-9);
    // q-values are what the expected number of false edges comes to.
    assert!(expected <= 0.1 * found.len() as f64 + 1e-9);
    assert!(figures["permutation"]["n_permutations"].as_u64() > Some(0));
    let calibration = &figures["calibration"];
    for key in ["false_discovery_proportion", "recall", "interval_coverage", "sign_errors", "calibration_error"] {
        assert!(calibration[key].as_f64().is_some_and(|share| (0.0..=1.0).contains(&share)), "{key}: {calibration}");
    }
    // Judged again, the model has the same edges.
    succeed(folder.path(), &["evaluate", "a"]);
    let again: serde_json::Value = serde_json::from_str(&read(&path("evaluation.json"))).expect("JSON");
    assert_eq!(&again["edges"], figures);

    let page = read(&path("report.html"));
    assert_well_formed(&page);
    assert!(!page.contains("NaN"));
    let tile = format!("<b>{}</b><span>edges at a false discovery rate of 10 %</span>", found.len());
    assert!(page.contains(&tile), "{tile}");
    assert!(page.contains("With the labels of cells permuted") && page.contains("edges.csv"));
    let escaped = |note: &serde_json::Value| svae_cpu::results::graph::escape_xml(note.as_str().expect("a sentence"));
    let notes = figures["limits"]["notes"].as_array().expect("sentences");
    assert!(notes.iter().all(|note| page.contains(&escaped(note))), "{notes:?}");
    assert_eq!(page.matches("class=\"whisker").count(), page.matches("class=\"point").count());
    assert!(page.matches("class=\"whisker").count() >= found.len().min(32));
    fs::remove_file(path("report.html")).expect("removed");
    succeed(folder.path(), &["report", "a"]);
    assert_eq!(read(&path("report.html")), page);
}

#[test]
fn a_screen_without_any_effect_has_empty_tables_that_open() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut state, n) = (11u64, 300);
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let mut npz = NpzWriter::create(folder.path().join("null.npz")).expect("a file");
    let x: Vec<u32> = (0..n * GENES).map(|_| next() % 7).collect();
    npz.add_u32("x", &[n, GENES], &x).expect("counts");
    npz.add_i64("label", &[n], &(0..n as i64).map(|n| n % 6).collect::<Vec<_>>()).expect("labels");
    npz.finish().expect("written");
    let args = ["run", "--data", "null.npz", "--epochs", "30", "--hidden", "16", "--latents", "4", "--out", "a"];
    let (out, _) = succeed(folder.path(), &args);
    let path = |name: &str| folder.path().join("a").join(name);
    assert_eq!(read(&path("targets.csv")).lines().count(), 1);
    assert_eq!(column(&path("edges.csv"), "probability").len(), 6 * 4);
    let graph = read(&path("graph.graphml"));
    assert!(!graph.contains("<edge ") && graph.matches("<node ").count() == 10 && graph.ends_with("</graphml>\n"));
    let dot = read(&path("graph.dot"));
    assert!(!dot.contains(" -> ") && dot.ends_with("}\n"));
    let metrics: serde_json::Value = serde_json::from_str(&read(&path("metrics.json"))).expect("JSON");
    assert_eq!(metrics["edges"]["n_edges"], 0);
    assert!(metrics["edges"].get("calibration").is_none());
    assert!(metrics["edges"]["permutation"].get("permutation_fdr").is_none());
    let page = read(&path("report.html"));
    assert_well_formed(&page);
    assert!(page.contains("No pair of intervention and latent is an edge at a false discovery rate of 5 %"));
    assert!(!page.contains("NaN") && out.contains("at a false discovery rate of 5 %"), "{out}");
    load(&path("results.h5ad"), &LoadOptions { label_key: Some("svae_intervention".into()), ..LoadOptions::default() })
        .expect("results.h5ad opens");
}
