//! `svae-cpu predict` from the command line: what it writes, what does not change it, and what it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{run, said};

/// A screen of combinations and controls, and a model small enough to be trained in a moment.
const RUN: [&str; 24] = [
    "run",
    "--sim-cells",
    "30",
    "--sim-interventions",
    "5",
    "--sim-combinations",
    "4",
    "--sim-controls",
    "40",
    "--sim-genes",
    "20",
    "--sim-latents",
    "3",
    "--latents",
    "3",
    "--epochs",
    "60",
    "--hidden",
    "16",
    "--no-heldout",
    "--no-h5ad",
    "--quiet",
    "--out",
    "run",
];

fn succeed(folder: &Path, args: &[&str]) -> String {
    let (code, out, err) = said(&run(folder, args));
    assert_eq!(code, 0, "{args:?}: {err}");
    out
}

fn predict(folder: &Path, args: &[&str]) -> String {
    succeed(folder, &[&["predict", "run"], args].concat())
}

fn refused(folder: &Path, args: &[&str]) -> String {
    let (code, out, err) = said(&run(folder, &[&["predict", "run"], args].concat()));
    assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
    err
}

/// The numbers of a table of predictions by combination and gene.
fn table(path: &Path) -> BTreeMap<(String, String), Vec<f64>> {
    let text = fs::read_to_string(path).expect("a table");
    let mut lines = text.lines();
    let header = "combination,gene,control,mean,effect,log2_fold_change,log2_fold_change_low,log2_fold_change_high";
    assert_eq!(lines.next(), Some(header));
    let of = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let numbers = fields[2..].iter().map(|field| field.parse().expect("a number")).collect();
        ((fields[0].to_owned(), fields[1].to_owned()), numbers)
    };
    lines.map(of).collect()
}

/// The numbers of a row after its name.
fn numbers_of(line: &str) -> Vec<f64> {
    line.split(',').skip(1).map(|field| field.parse().expect("a number")).collect()
}

#[test]
fn intervals_of_a_pair_add_up_those_of_its_members() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    succeed(folder, &RUN);
    let wanted = "intervention_3+intervention_1,intervention_1,intervention_3,intervention_1 x 0+intervention_3 x 0";
    assert_eq!(predict(folder, &["--interventions", wanted, "--out", "a.csv"]), "a.csv: 4 combinations.\n");
    let found = table(&folder.join("a.csv"));
    predict(folder, &["--interventions", wanted, "--model-alone", "--out", "m.csv"]);
    let alone = table(&folder.join("m.csv"));
    assert_ne!(alone, found, "cells show more than a model trained in a moment");
    let half = |numbers: &[f64]| 0.5 * (numbers[5] - numbers[4]);
    let pair = "intervention_1+intervention_3";
    for table in [&found, &alone] {
        assert_eq!(table.len(), 4 * 20);
        let mut moved = 0;
        for gene in 0..20 {
            let of = |label: &str| &table[&(label.to_owned(), format!("gene_{gene:02}"))];
            for numbers in [of(pair), of("intervention_1"), of("intervention_3")] {
                let [control, mean, effect, change, low, high] = numbers[..] else { panic!("six numbers") };
                assert!(((mean / control).log2() - change).abs() < 1e-3 && low <= change && change <= high);
                assert!(((mean + 1.0).ln() - (control + 1.0).ln() - effect).abs() < 1e-3);
                moved += usize::from(low > 0.0 || high < 0.0);
            }
            assert_eq!(of("intervention_1 x 0+intervention_3 x 0")[3], 0.0, "a dose of 0 is none");
        }
        assert!(
            moved > 10 || table == &alone,
            "strong shifts move genes, whatever a model has learned in a moment: {moved}"
        );
    }
    for gene in 0..20 {
        let of = |label: &str| &alone[&(label.to_owned(), format!("gene_{gene:02}"))];
        let (both, one, other) = (of(pair), of("intervention_1"), of("intervention_3"));
        let sum = half(one).powi(2) + half(other).powi(2);
        assert!((half(both).powi(2) - sum).abs() < 1e-3 * sum + 1e-9, "{both:?} {one:?} {other:?}");
    }
    // What was trained on is known from its own cells, a pair that no cell has only from others.
    let width = |label: &str| -> f64 {
        let of_label = found.iter().filter(|((of, _), _)| of == label);
        of_label.map(|(_, numbers)| half(numbers)).sum::<f64>()
    };
    assert!(width(pair) > 1.2 * width("intervention_1").max(width("intervention_3")));

    // Order, threads and what else is asked for change nothing.
    predict(folder, &["--interventions", "all-pairs", "--out", "b.csv", "--threads", "3"]);
    let all = table(&folder.join("b.csv"));
    assert_eq!(all.len(), 10 * 20);
    for ((label, gene), numbers) in
        found.iter().filter(|((label, _), _)| all.contains_key(&(label.clone(), String::from("gene_00"))))
    {
        assert_eq!(&all[&(label.clone(), gene.clone())], numbers);
    }
    fs::write(folder.join("labels.txt"), "intervention_1\nintervention_3\n").expect("a file");
    let doses = ["--interventions", "@labels.txt", "--dose", "0.5", "--from", "control-cells", "--out", "c.csv"];
    predict(folder, &doses);
    assert!(table(&folder.join("c.csv")).contains_key(&("intervention_1 x 0.5".to_owned(), "gene_00".to_owned())));
}

#[test]
fn cells_and_matrices_are_written_for_python() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    succeed(folder, &RUN);
    // Simulated cells are those whose mean is predicted, what training cells show beyond the model included.
    for flag in [&[][..], &["--model-alone"]] {
        let wanted = ["--interventions", "intervention_1"];
        predict(folder, &[&wanted[..], &["--cells", "2000", "--out", "many.csv", "--overwrite"], flag].concat());
        predict(folder, &[&wanted[..], &["--out", "mean.csv", "--overwrite"], flag].concat());
        let mean = table(&folder.join("mean.csv"));
        let text = fs::read_to_string(folder.join("many.csv")).expect("a table");
        let cells: Vec<Vec<f64>> = text.lines().skip(1).map(numbers_of).collect();
        let totals: f64 = cells.iter().flatten().sum();
        for gene in 0..20 {
            let share = 1e4 * cells.iter().map(|cell| cell[gene]).sum::<f64>() / totals;
            let predicted = mean[&("intervention_1".to_owned(), format!("gene_{gene:02}"))][1];
            assert!((share / predicted).ln().abs() < 0.2, "{gene}: {share} {predicted} {flag:?}");
        }
    }
    predict(folder, &["--interventions", "all-pairs", "--out", "a.h5ad"]);
    predict(folder, &["--interventions", "all-pairs", "--out", "b.h5ad", "--threads", "1"]);
    assert_eq!(fs::read(folder.join("a.h5ad")).expect("a file"), fs::read(folder.join("b.h5ad")).expect("a file"));
    let shown = succeed(folder, &["inspect", "a.h5ad"]);
    for name in ["10 cells x 20 genes", "log2_fold_change_high: 10 x 20", "n_members"] {
        assert!(shown.contains(name), "{shown}");
    }
    for from in ["prior", "control-cells"] {
        let cells =
            ["--interventions", "intervention_0+intervention_1,intervention_2", "--cells", "30", "--from", from];
        assert_eq!(predict(folder, &[&cells[..], &["--out", "c.csv", "--overwrite"]].concat()), "c.csv: 60 cells.\n");
        let text = fs::read_to_string(folder.join("c.csv")).expect("a table");
        assert!(text.contains("\nintervention_0+intervention_1_29,") && text.lines().count() == 61, "{text}");
        predict(folder, &[&cells[..], &["--out", "c.npz", "--overwrite"]].concat());
        predict(folder, &[&cells[..], &["--out", "c.h5ad", "--overwrite"]].concat());
        let (archive, file) = (succeed(folder, &["inspect", "c.npz"]), succeed(folder, &["inspect", "c.h5ad"]));
        for shown in [archive, file] {
            for part in ["60 cells x 20 genes", "intervention_0+intervention_1 (30)", "intervention_2 (30)"] {
                assert!(shown.contains(part), "{part}: {shown}");
            }
        }
    }
}

#[test]
fn what_cannot_be_predicted_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    succeed(folder, &RUN);
    let out = ["--out", "a.csv"];
    let of = |args: &[&str]| refused(folder, &[args, &out].concat());
    let unknown = of(&["--interventions", "intervention_1+interventoin_2"]);
    assert!(unknown.contains("`interventoin_2`") && unknown.contains("did you mean `intervention_2`?"), "{unknown}");
    assert!(of(&["--interventions", ""]).contains("no combination is named"));
    assert!(of(&["--interventions", "intervention_1", "--dose", "-1"]).contains("-1 is no dose"));
    assert!(of(&["--interventions", "intervention_1", "--dose", "nan"]).contains("NaN is no dose"));
    assert!(of(&["--interventions", "intervention_1 x two"]).contains("intervention_1 x two"));
    assert!(of(&["--interventions", "intervention_1", "--cells", "0"]).contains("--cells"));
    let npz = refused(folder, &["--interventions", "intervention_1", "--out", "a.npz"]);
    assert!(npz.contains("means are not written as .npz"), "{npz}");
    assert!(!folder.join("a.csv").exists());
}
