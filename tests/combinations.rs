//! Several interventions in a cell: however they are written down, they are read as the same sets.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use svae_cpu::data::counts::in_memory::CountsBuilder;
use svae_cpu::data::formats::anndata_writer::{AnnDataWriter, FrameColumn};
use svae_cpu::data::loading::load::{LoadOptions, Loaded, SeveralInterventions, load};
use tempfile::TempDir;

use crate::support::{run, said};

const N_GENES: usize = 12;

/// What each cell received, and how many cells did: two thirds of the cells of a screen of Norman et al. are like these.
const KINDS: [(&[&str], usize); 6] = [
    (&[], 60),
    (&["KLF1"], 40),
    (&["CEBPA"], 40),
    (&["CEBPE"], 40),
    (&["CEBPE", "KLF1"], 30),
    (&["CEBPA", "CEBPE"], 30),
];

/// The interventions of each cell, cells of all kinds mixed.
fn received() -> Vec<Vec<&'static str>> {
    let cells: Vec<Vec<&str>> = KINDS.iter().flat_map(|(set, n)| vec![set.to_vec(); *n]).collect();
    // 77 and 240 have no common divisor.
    (0..cells.len()).map(|n| cells[n * 77 % cells.len()].clone()).collect()
}

fn count(n: usize, g: usize) -> u32 {
    ((n * 31 + g * 17 + n * g) % 13) as u32
}

fn name(n: usize) -> String {
    format!("CELL{n:03}-1")
}

fn texts(of_cell: impl Fn(usize, &[&str]) -> String) -> FrameColumn {
    FrameColumn::Strings(received().iter().enumerate().map(|(n, set)| of_cell(n, set)).collect())
}

/// An .h5ad file with these columns, and with 0/1 matrices in `obsm`, one of them with named columns.
fn write_h5ad(path: &Path, columns: &[(&str, FrameColumn)]) {
    let cells = received();
    let file = AnnDataWriter::create(path).expect("a file");
    let mut builder = CountsBuilder::new(N_GENES);
    for n in 0..cells.len() {
        (0..N_GENES).for_each(|g| builder.push(g, count(n, g)));
        builder.end_cell();
    }
    let names: Vec<String> = (0..cells.len()).map(name).collect();
    let genes: Vec<String> = (0..N_GENES).map(|g| format!("GENE{g}")).collect();
    file.counts("X", &builder.finish().into()).expect("written");
    let all: Vec<(String, FrameColumn)> =
        columns.iter().map(|(name, column)| (name.to_string(), column.clone())).collect();
    file.frame("obs", &names, &all).expect("written");
    file.frame("var", &genes, &[]).expect("written");
    let flags: Vec<f64> = cells
        .iter()
        .flat_map(|set| ["KLF1", "CEBPA", "CEBPE"].map(|name| f64::from(u8::from(set.contains(&name)))))
        .collect();
    file.array_f64("obsm/design", &[cells.len(), 3], &flags).expect("written");
    file.strings("uns/design_names", ["KLF1", "CEBPA", "CEBPE"]).expect("written");
    file.finish().expect("written");
}

/// The conventions of scPerturb, of Norman et al., of CELLxGENE, of SAMS-VAE and of GEARS.
fn write_norman(path: &Path) {
    let has = |name: &'static str| {
        FrameColumn::Integers(received().iter().map(|set| i64::from(set.contains(&name))).collect())
    };
    let columns = [
        ("perturbation", texts(|_, set| if set.is_empty() { "control".into() } else { set.join("_") })),
        (
            "guide_identity",
            texts(|n, set| {
                let half = match set {
                    [] => "NegCtrl0_NegCtrl0".to_owned(),
                    [one] if n % 2 == 0 => format!("{one}_NegCtrl0"),
                    [one] => format!("NegCtrl1_{one}"),
                    several => several.join("_"),
                };
                format!("{half}__{half}")
            }),
        ),
        ("genetic_perturbation_id", texts(|_, set| if set.is_empty() { "na".into() } else { set.join(" || ") })),
        (
            "condition",
            texts(|n, set| match set {
                [] => "ctrl".to_owned(),
                [one] if n % 2 == 0 => format!("{one}+ctrl"),
                [one] => format!("ctrl+{one}"),
                [a, b] if n % 2 == 0 => format!("{a}+{b}"),
                several => format!("{}+{}", several[1], several[0]),
            }),
        ),
        ("dose_val", texts(|_, set| if set.is_empty() { "1".into() } else { "1+1".into() })),
        ("half", texts(|_, set| if set.len() == 2 { "1+0.5".into() } else { "1".into() })),
        ("guide_CEBPA", has("CEBPA")),
        ("guide_CEBPE", has("CEBPE")),
        ("guide_KLF1", has("KLF1")),
    ];
    write_h5ad(path, &columns);
}

fn options(label_key: &str, separator: &str, control: &[&str]) -> LoadOptions {
    LoadOptions {
        label_key: Some(label_key.to_owned()),
        combination_separator: Some(separator.to_owned()),
        control: control.iter().map(|name| name.to_string()).collect(),
        ..LoadOptions::default()
    }
}

/// Interventions with the cells that carry them.
fn carried(loaded: &Loaded) -> Vec<(&str, usize)> {
    loaded.summary.interventions.iter().map(|count| (count.label.as_str(), count.n_cells)).collect()
}

/// Cells under none, one, two ... interventions.
fn by_number(loaded: &Loaded) -> Vec<usize> {
    let rows = &loaded.dataset.interventions;
    let mut sizes = vec![0; rows.max_len() + 1];
    (0..rows.n_cells()).for_each(|n| sizes[rows.row(n).0.len()] += 1);
    sizes
}

fn refused(path: &Path, options: &LoadOptions, parts: &[&str]) {
    let message = load(path, options).map(drop).expect_err("must be refused").to_string();
    parts.iter().for_each(|part| assert!(message.contains(part), "`{part}` is missing in: {message}"));
}

fn screen() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("s.h5ad");
    write_norman(&path);
    (folder, path)
}

#[test]
fn every_way_of_writing_combinations_gives_the_same_latents() {
    let (folder, _) = screen();
    let ways: [(&str, &[&str]); 7] = [
        ("a", &["--label-key", "perturbation", "--combination-separator", "_", "--control", "control"]),
        ("b", &["--label-key", "guide_identity", "--combination-separator", "_", "--control", "NegCtrl0,NegCtrl1"]),
        ("c", &["--label-key", "genetic_perturbation_id", "--combination-separator", " || ", "--control", "na"]),
        ("d", &["--label-key", "condition", "--combination-separator", "+", "--control", "ctrl"]),
        ("e", &["--intervention-columns", "guide_"]),
        ("f", &["--intervention-columns", "design"]),
        ("g", &["--intervention-columns", "guide_KLF1,guide_CEBPE,guide_CEBPA"]),
    ];
    let usual = ["run", "--data", "s.h5ad", "--epochs", "1", "--hidden", "8", "--latents", "3", "--quiet", "--no-h5ad"];
    for (out, flags) in ways {
        let (code, _, err) = said(&run(folder.path(), &[&usual[..], flags, &["--out", out]].concat()));
        assert_eq!(code, 0, "{err}");
        let read = |file: &str| fs::read(folder.path().join(out).join(file)).expect("a file");
        let latents = read("latents.npz");
        assert!(latents == fs::read(folder.path().join("a/latents.npz")).unwrap(), "{out}: {flags:?}");
        let data: Value = serde_json::from_slice(&read("data.json")).expect("JSON");
        let prefix = if out == "g" { "guide_" } else { "" };
        let expected = [("CEBPA", 70), ("CEBPE", 100), ("KLF1", 70)];
        for (found, (label, n_cells)) in data["interventions"].as_array().expect("a list").iter().zip(expected) {
            assert_eq!((&found["label"], &found["n_cells"]), (&format!("{prefix}{label}").into(), &n_cells.into()));
        }
        let numbers: Vec<u64> =
            data["cells_by_number"].as_array().unwrap().iter().map(|of| of["n_cells"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [60, 120, 60], "{out}");
        assert_eq!(data["combinations"][0]["n_cells"], 30, "{out}");
    }
    // Other commands read the screen as the run did.
    let (code, _, err) = said(&run(folder.path(), &["evaluate", "b", "--quiet"]));
    assert_eq!(code, 0, "{err}");
    let cells = fs::read_to_string(folder.path().join("b/cells.csv")).expect("a table");
    assert_eq!(cells.lines().filter(|line| line.contains(",CEBPA+CEBPE,")).count(), 30);
}

#[test]
fn order_repetition_and_controls_mean_nothing() {
    let (_folder, path) = screen();
    let found = load(&path, &options("condition", "+", &["ctrl"])).unwrap();
    assert_eq!(carried(&found), [("CEBPA", 70), ("CEBPE", 100), ("KLF1", 70)]);
    assert_eq!(by_number(&found), [60, 120, 60]);
    assert_eq!((found.summary.controls[0].label.as_str(), found.summary.controls[0].n_cells), ("ctrl", 60));
    assert!(found.summary.warnings.is_empty(), "{:?}", found.summary.warnings);
    let combinations: Vec<(&str, usize)> =
        found.summary.combinations.iter().map(|of| (of.label.as_str(), of.n_cells)).collect();
    assert_eq!(combinations, [("CEBPA+CEBPE", 30), ("CEBPE+KLF1", 30)]);

    let drop =
        LoadOptions { several_interventions: Some(SeveralInterventions::Drop), ..options("condition", "+", &["ctrl"]) };
    let singles = load(&path, &drop).unwrap();
    assert_eq!(carried(&singles), [("CEBPA", 40), ("CEBPE", 40), ("KLF1", 40)]);
    assert_eq!(singles.summary.dropped[0].n, 60);

    // Without KLF1 and the cells that carry it, CEBPE keeps those that it shares with CEBPA.
    let few = LoadOptions { min_cells_per_label: 71, ..options("condition", "+", &["ctrl"]) };
    refused(&path, &few, &["no intervention has 71 cells"]);
    let few = LoadOptions { min_cells_per_label: 70, ..few };
    assert_eq!(carried(&load(&path, &few).unwrap()), [("CEBPA", 70), ("CEBPE", 100), ("KLF1", 70)]);
}

#[test]
fn labels_that_look_like_combinations_are_told_and_separators_that_do_not_too() {
    let (_folder, path) = screen();
    let warnings = |options: &LoadOptions| load(&path, options).unwrap().summary.warnings.join("\n");
    let plain = |key: &str, control: &[&str]| LoadOptions { combination_separator: None, ..options(key, "+", control) };
    let told = warnings(&plain("condition", &["ctrl"]));
    assert!(told.contains("180 cells have labels") && told.contains("--combination-separator '+'"), "{told}");
    let told = warnings(&plain("perturbation", &["control"]));
    assert!(told.contains("--combination-separator '_'"), "{told}");
    let absent = warnings(&options("perturbation", "+", &["control"]));
    assert!(absent.contains("no label has the separator `+`"), "{absent}");
    let inside = warnings(&options("condition", "E", &["ctrl"]));
    assert!(inside.contains("none of their parts is a label by itself"), "{inside}");
}

#[test]
fn doses_multiply_shifts() {
    let (_folder, path) = screen();
    let with = |key: &str| LoadOptions { dose_key: Some(key.to_owned()), ..options("perturbation", "_", &["control"]) };
    let found = load(&path, &with("half")).unwrap();
    let data = &found.dataset;
    for (n, set) in received().iter().enumerate() {
        let (members, doses) = data.interventions.row(n);
        let names: Vec<&str> = members.iter().map(|&a| data.intervention_names[a as usize].as_str()).collect();
        assert_eq!(names, *set);
        assert_eq!(doses, &[1.0, 0.5][..set.len()]);
    }
    assert_eq!(found.summary.combinations[1].label, "CEBPE+KLF1 x 0.5");
    let as_gears = LoadOptions { dose_key: Some("dose_val".to_owned()), ..options("condition", "+", &["ctrl"]) };
    let plain = load(&path, &options("condition", "+", &["ctrl"])).unwrap();
    assert_eq!(load(&path, &as_gears).unwrap().dataset.interventions, plain.dataset.interventions);
    refused(&path, &with("guide_identity"), &["guide_identity", "is not a number"]);
    refused(&path, &with("hlaf"), &["hlaf", "did you mean `half`?"]);
    refused(&path, &with("dose_val"), &["dose_val", "`1+1` is 2 doses for `KLF1`"]);
}

/// A matrix-market folder of 8 cells with 3 genes and 4 guides, and tables of what CellRanger and others call.
fn guide_screen() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    let guides: [&[(usize, u32)]; 8] = [
        &[(4, 9)],
        &[(5, 20), (7, 5)],
        &[(5, 8), (6, 7)],
        &[(6, 30), (4, 6)],
        &[(7, 12), (5, 4)],
        &[(7, 5)],
        &[(4, 5)],
        &[(5, 2)],
    ];
    let mut entries = String::new();
    let (mut n_entries, mut barcodes) = (0, String::new());
    for (n, guides) in guides.iter().enumerate() {
        barcodes += &format!("AAA{n}-1\n");
        for (feature, count) in [(1, 4 + n as u32), (2, 7), (3, 1 + 2 * n as u32)].iter().chain(guides.iter()) {
            entries += &format!("{feature} {} {count}\n", n + 1);
            n_entries += 1;
        }
    }
    write("matrix.mtx", &format!("%%MatrixMarket matrix coordinate integer general\n7 8 {n_entries}\n{entries}"));
    write("barcodes.tsv", &barcodes);
    let genes = (0..3).map(|g| format!("ENSG{g}\tGENE{g}\tGene Expression\n")).collect::<String>();
    let names = ["NT_1", "STAT1_1", "STAT1_2", "JAK2_1"];
    let listed = names.map(|guide| format!("{guide}\t{guide}\tCRISPR Guide Capture\n")).concat();
    write("features.tsv", &(genes + &listed));
    let called = |n: usize, least: u32| -> Vec<&str> {
        guides[n].iter().filter(|(_, count)| *count >= least).map(|(feature, _)| names[feature - 4]).collect()
    };
    let mut calls = "cell_barcode,num_features,feature_call,num_umis\n".to_owned();
    let mut long = "cell,gRNA,UMI_counts\n".to_owned();
    let mut wide = format!("cell,{}\n", names.join(","));
    for n in 0..7 {
        let found = called(n, 5);
        calls += &format!("AAA{n}-1,{},{},1\n", found.len(), found.join("|"));
        found.iter().enumerate().for_each(|(i, guide)| long += &format!("AAA{n}-1,{guide},{}\n", 5 + i));
        let flags = names.map(|name| if found.contains(&name) { "1" } else { "0" });
        wide += &format!("AAA{n}-1,{}\n", flags.join(","));
    }
    write("protospacer_calls_per_cell.csv", &calls);
    write("assignments.csv", &long);
    write("assignments_wide.csv", &wide);
    let rows = names.map(|guide| format!("{guide},{guide},{}\n", guide.split_once('_').unwrap().0)).concat();
    write("feature_reference.csv", &format!("id,name,target_gene_name\n{rows}"));
    folder
}

#[test]
fn guides_are_read_from_calls_rows_columns_and_counts() {
    let folder = guide_screen();
    let file = |name: &str| Some(folder.path().join(name));
    let base = LoadOptions { drop_unlabelled_cells: true, ..LoadOptions::default() };
    let ways = [
        LoadOptions {
            labels: file("protospacer_calls_per_cell.csv"),
            combination_separator: Some("|".to_owned()),
            ..base.clone()
        },
        LoadOptions {
            labels: file("assignments.csv"),
            label_key: Some("gRNA".to_owned()),
            several_interventions: Some(SeveralInterventions::Keep),
            ..base.clone()
        },
        LoadOptions {
            labels: file("assignments_wide.csv"),
            intervention_columns: Some(vec!["*".to_owned()]),
            ..base.clone()
        },
        LoadOptions { guide_threshold: Some(5), ..base.clone() },
    ];
    for options in &ways {
        let by_guide = LoadOptions { control: vec!["NT_1".to_owned()], ..options.clone() };
        let found = load(folder.path(), &by_guide).unwrap_or_else(|error| panic!("{error}: {options:?}"));
        assert_eq!(carried(&found), [("JAK2_1", 3), ("STAT1_1", 2), ("STAT1_2", 2)], "{options:?}");
        assert_eq!(by_number(&found), [2, 3, 2], "{options:?}");
        assert_eq!((found.summary.n_cells, found.summary.controls[0].n_cells), (7, 2));

        // Two guides of a gene count once, and a control is named by its guide or by its target.
        for control in ["NT_1", "NT"] {
            let control = vec![control.to_owned()];
            let by_target = LoadOptions { guide_targets: file("feature_reference.csv"), control, ..options.clone() };
            let found = load(folder.path(), &by_target).unwrap_or_else(|error| panic!("{error}: {options:?}"));
            assert_eq!(carried(&found), [("JAK2", 3), ("STAT1", 3)], "{options:?}");
            assert_eq!(by_number(&found), [2, 4, 1], "{options:?}");
        }
    }
    let undropped = LoadOptions { drop_unlabelled_cells: false, ..ways[3].clone() };
    refused(folder.path(), &undropped, &["1 of 8 cells have no intervention label", "cell 7"]);
    let once = LoadOptions { several_interventions: None, ..ways[1].clone() };
    refused(folder.path(), &once, &["line 4", "`gRNA`, `UMI_counts`", "--several-interventions keep"]);
    let misspelt = LoadOptions { intervention_columns: Some(vec!["STAT2_1".to_owned()]), ..ways[2].clone() };
    refused(folder.path(), &misspelt, &["`STAT2_1`", "assignments_wide.csv", "did you mean `STAT1_"]);
    let inside = LoadOptions {
        combination_separator: Some("_".to_owned()),
        guide_targets: file("feature_reference.csv"),
        ..ways[0].clone()
    };
    refused(folder.path(), &inside, &["feature_reference.csv", "the separator `_` is part of the name of the guide"]);
    let covariate = LoadOptions {
        categorical_covariates: vec!["UMI_counts".to_owned()],
        control: vec!["NT_1".to_owned()],
        ..ways[1].clone()
    };
    refused(folder.path(), &covariate, &["rows of the same barcode differ in column `UMI_counts`"]);
}

#[test]
fn a_simulation_of_combinations_is_read_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sizes = ["--sim-interventions", "12", "--sim-cells", "5", "--sim-genes", "20", "--sim-latents", "3"];
    let joint = ["--sim-combinations", "8", "--sim-interactions", "0.5", "--sim-doses", "2", "--sim-controls", "6"];
    let (code, _, err) = said(&run(folder.path(), &[&["simulate", "--out", "s.npz"][..], &sizes, &joint].concat()));
    assert_eq!(code, 0, "{err}");
    let read = LoadOptions { dose_key: Some("dose".to_owned()), ..options("label", "+", &["control"]) };
    let data = load(&folder.path().join("s.npz"), &read).unwrap().dataset;
    let truth = data.truth.as_ref().expect("the truth is stored");
    assert_eq!((data.n_interventions(), data.n_cells(), truth.interactions.len()), (12, 106, 4));
    assert!(data.intervention_names.is_sorted());
    // Latents scatter by 1 about the prior means of what their cells received, so each of the 3 deviates by little from that.
    let deviation = |n: usize, mean: &[f64]| -> f64 {
        truth.latents[3 * n..3 * n + 3].iter().zip(mean).map(|(z, mean)| (z - mean).powi(2)).sum()
    };
    let explained: f64 = (0..106).map(|n| deviation(n, &truth.prior_mean(data.interventions.row(n)))).sum();
    let mean = explained / (3.0 * 106.0);
    assert!((mean - 1.0).abs() < 5.0 * (2.0_f64 / 318.0).sqrt(), "{mean}");
}

#[test]
fn combinations_are_compared_with_the_sums_of_their_members() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sizes = ["--sim-interventions", "20", "--sim-cells", "40", "--sim-genes", "40", "--sim-latents", "4"];
    let joint = ["--sim-combinations", "12", "--sim-interactions", "0.25", "--sim-controls", "100", "--holdout", ""];
    let training = ["--epochs", "60", "--hidden", "32", "--latents", "6", "--quiet", "--no-h5ad", "--out", "a"];
    let (code, _, err) = said(&run(folder.path(), &[&["run"][..], &sizes, &joint, &training].concat()));
    assert_eq!(code, 0, "{err}");
    let read = |file: &str| fs::read_to_string(folder.path().join("a").join(file)).expect("a file");
    let metrics: Value = serde_json::from_str(&read("metrics.json")).expect("JSON");
    let found = &metrics["interactions"];
    assert_eq!((&found["n_compared"], &found["n_not_compared"]), (&12.into(), &0.into()));
    assert_eq!(found["recovery"]["n_true"], 3);
    let classes: u64 = found["classes"].as_array().expect("a list").iter().map(|of| of["n"].as_u64().unwrap()).sum();
    assert_eq!(classes, 12);
    // A row for each combination and latent, and as many interactions as the figures say.
    let table = read("interactions.csv");
    let mut rows = csv::Reader::from_reader(table.as_bytes());
    let q_value = rows.headers().unwrap().iter().position(|name| name == "q_value").unwrap();
    let rows: Vec<csv::StringRecord> = rows.records().map(|row| row.unwrap()).collect();
    assert_eq!(rows.len(), 12 * 6);
    let n_found = rows.iter().filter(|row| row[q_value].parse::<f64>().unwrap() <= 0.05).count();
    assert_eq!(found["n_interactions"], n_found);
    let additive = rows.iter().filter(|row| &row[2] == "additive").count() / 6;
    assert_eq!(found["classes"][0]["n"], additive);
    let report = read("report.html");
    assert!(report.contains("Classes of combinations") && report.contains(&rows[0][0]));
}

#[test]
fn interactions_that_are_learned_leave_the_latents_straight() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trained = |out: &str, flags: &[&str]| -> Value {
        let usual = ["run", "--holdout", "", "--sim-controls", "200", "--quiet", "--no-h5ad", "--out", out];
        let (code, _, err) = said(&run(folder.path(), &[&usual[..], flags].concat()));
        assert_eq!(code, 0, "{err}");
        let text = fs::read(folder.path().join(out).join("metrics.json")).expect("a file");
        serde_json::from_slice(&text).expect("JSON")
    };
    // Few interventions, of whose combinations nearly half do not add up.
    let sizes = ["--sim-interventions", "20", "--sim-cells", "60", "--sim-genes", "60", "--sim-latents", "5"];
    let joint = ["--sim-combinations", "20", "--sim-interactions", "0.4"];
    let small = [&sizes[..], &joint, &["--epochs", "80", "--hidden", "32", "--latents", "7"]].concat();
    let (plain, learned) = (trained("a", &small), trained("b", &[&small[..], &["--learn-interactions"]].concat()));
    let figure = |of: &Value, key: &str| of[key].as_f64().expect("a number");
    assert!(figure(&learned, "mcc_pearson") > figure(&plain, "mcc_pearson"), "{learned}\n{plain}");
    let recovery = |of: &Value, key: &str| figure(&of["interactions"]["recovery"], key);
    assert!(recovery(&learned, "recall") > recovery(&plain, "recall"), "{learned}\n{plain}");
    assert!(recovery(&learned, "false_discovery_proportion") <= 0.1, "{learned}");
    // The model that is kept is one of the interventions, and is judged again as it was.
    let shifts = fs::read_to_string(folder.path().join("b/shifts.csv")).expect("a table");
    assert_eq!(shifts.lines().count(), 1 + 20);
    let (code, _, err) = said(&run(folder.path(), &["evaluate", "b", "--quiet"]));
    assert_eq!(code, 0, "{err}");
    let text = fs::read(folder.path().join("b/evaluation.json")).expect("a file");
    let again: Value = serde_json::from_slice(&text).expect("JSON");
    for key in ["elbo_validation", "interactions", "edges"] {
        assert_eq!(again[key], learned[key], "{key}");
    }
}
