//! Bad input ends in a sentence that names the file, the place and the remedy: never in a panic, a hang or half a file.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rust_hdf5::H5File;
use svae_cpu::Error;
use svae_cpu::data::dataset::{Categorical, Continuous};
use svae_cpu::data::formats::npz::{Npz, NpzWriter};
use svae_cpu::data::formats::write_npz;
use svae_cpu::data::loading::load::{LoadOptions, Loaded, load};
use svae_cpu::data::simulate::{Simulation, SimulationKind, simulate};
use tempfile::TempDir;

/// A small screen to spoil: 4 cells, 3 genes.
#[derive(Clone)]
struct Screen {
    x: Vec<f64>,
    n_cells: usize,
    n_genes: usize,
    label: Vec<String>,
    /// Integer labels, written in place of text if present.
    codes: Option<Vec<i64>>,
    size_factor: Vec<f64>,
    batch: Vec<String>,
}

impl Default for Screen {
    fn default() -> Self {
        let text = |texts: [&str; 4]| texts.map(str::to_string).to_vec();
        Self {
            x: vec![1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 5.0],
            n_cells: 4,
            n_genes: 3,
            label: text(["control", "TP53", "control", "TP53"]),
            codes: None,
            size_factor: vec![1.0, 2.0, 3.0, 4.0],
            batch: text(["a", "a", "b", "b"]),
        }
    }
}

impl Screen {
    fn npz(&self, folder: &TempDir) -> PathBuf {
        let path = folder.path().join("screen.npz");
        let mut npz = NpzWriter::create(&path).unwrap();
        npz.add_f64("x", &[self.n_cells, self.n_genes], &self.x).unwrap();
        match &self.codes {
            Some(codes) => npz.add_i64("label", &[codes.len()], codes).unwrap(),
            None => npz.add_strings("label", &self.label).unwrap(),
        }
        npz.add_f64("size", &[self.size_factor.len()], &self.size_factor).unwrap();
        npz.add_strings("batch", &self.batch).unwrap();
        npz.finish().unwrap();
        path
    }

    /// Sparse if `indptr` is given as (indptr, indices, data), else dense.
    fn h5ad(&self, folder: &TempDir, csr: Option<(&[i32], &[i32], &[f32])>) -> PathBuf {
        let path = folder.path().join("screen.h5ad");
        let file = H5File::create(&path).unwrap();
        match csr {
            None => {
                let x = file.new_dataset::<f32>().shape([self.n_cells, self.n_genes]).create("X").unwrap();
                x.write_raw(&self.x.iter().map(|&x| x as f32).collect::<Vec<_>>()).unwrap();
            }
            Some((indptr, indices, data)) => {
                let x = file.create_group("X").unwrap();
                x.set_attr_string("encoding-type", "csr_matrix").unwrap();
                let whole = |name: &str, values: &[i32]| {
                    x.new_dataset::<i32>().shape([values.len()]).create(name).unwrap().write_raw(values).unwrap();
                };
                whole("indptr", indptr);
                whole("indices", indices);
                x.new_dataset::<f32>().shape([data.len()]).create("data").unwrap().write_raw(data).unwrap();
            }
        }
        let names = |prefix: &str, n: usize| (0..n).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>();
        let obs = file.create_group("obs").unwrap();
        obs.set_attr_string("_index", "_index").unwrap();
        let write = |group: &rust_hdf5::H5Group, name: &str, texts: &[String]| {
            group.write_vlen_strings(name, &texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        };
        write(&obs, "_index", &names("cell", self.n_cells));
        let label = obs.create_group("perturbation").unwrap();
        label.set_attr_string("encoding-type", "categorical").unwrap();
        let mut levels = self.label.clone();
        levels.sort();
        levels.dedup();
        levels.push("unused".into());
        write(&label, "categories", &levels);
        let codes: Vec<i8> = match &self.codes {
            Some(codes) => codes.iter().map(|&code| code as i8).collect(),
            None => {
                self.label.iter().map(|name| levels.iter().position(|level| level == name).unwrap() as i8).collect()
            }
        };
        label.new_dataset::<i8>().shape([codes.len()]).create("codes").unwrap().write_raw(&codes).unwrap();
        write(&obs, "batch", &self.batch);
        let size = obs.new_dataset::<f64>().shape([self.size_factor.len()]).create("size").unwrap();
        size.write_raw(&self.size_factor).unwrap();
        let var = file.create_group("var").unwrap();
        var.set_attr_string("_index", "symbol").unwrap();
        write(&var, "symbol", &names("gene", self.n_genes));
        file.close().unwrap();
        path
    }
}

/// The message of bad input; a success, another kind of error or a message without remedy fails the test.
fn refusal(path: &Path, options: &LoadOptions) -> String {
    match load(path, options) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(Error::Input(error)) => {
            let message = error.to_string();
            assert_eq!(error.file.as_deref(), Some(path), "{message}");
            assert!(!error.remedy.is_empty() && message.ends_with('.'), "{message}");
            message
        }
        Err(other) => panic!("not the user's fault? {other}"),
    }
}

#[track_caller]
fn expect(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
}

fn with_size_factors() -> LoadOptions {
    LoadOptions { size_factor_key: Some("size".into()), ..LoadOptions::default() }
}

#[test]
fn good_screens_load_alike_from_both_formats() {
    let folder = TempDir::new().unwrap();
    let screen = Screen::default();
    let options = LoadOptions { batch_key: Some("batch".into()), ..with_size_factors() };
    let npz = load(&screen.npz(&folder), &options).unwrap();
    let dense = load(&screen.h5ad(&folder, None), &options).unwrap();
    let csr = (&[0, 2, 3, 4, 5][..], &[0, 2, 1, 0, 2][..], &[1.0, 2.0, 3.0, 4.0, 5.0][..]);
    let sparse = load(&screen.h5ad(&folder, Some(csr)), &options).unwrap();
    assert_eq!(dense, sparse);
    assert_eq!(npz.notes, ["interventions are read from array `label`"]);
    expect(&dense.notes.join("; "), &["read from obs[\"perturbation\"]", "without cells are left out: `unused`"]);
    for Loaded { dataset, .. } in [&npz, &dense] {
        assert_eq!(dataset.intervention_names, ["TP53", "control"]);
        assert_eq!([0, 1, 2, 3].map(|n| dataset.interventions.single(n)), [Some(1), Some(0), Some(1), Some(0)]);
        assert_eq!(dataset.library, [1.0, 2.0, 3.0, 4.0]);
        let batch = Categorical { name: "batch".into(), levels: vec!["a".into(), "b".into()], codes: vec![0, 0, 1, 1] };
        assert_eq!(dataset.covariates.categorical, [batch]);
        let mut x = vec![0.0; 12];
        (0..4).for_each(|n| dataset.counts.row(n).for_each(|g, count| x[n * 3 + g] = count as f64));
        assert_eq!(x, screen.x);
    }
    assert_eq!((&dense.dataset.cell_names[3], dense.dataset.gene_names[2].as_str()), ("cell3", "gene2"));
    assert_eq!(load(&screen.npz(&folder), &LoadOptions::default()).unwrap().dataset.library, [3.0, 3.0, 4.0, 5.0]);
}

#[test]
fn files_that_are_not_there_or_not_ours() {
    let folder = TempDir::new().unwrap();
    let options = LoadOptions::default();
    for name in ["a.npz", "a.h5ad"] {
        expect(&refusal(&folder.path().join(name), &options), &["no such file"]);
        let path = folder.path().join(name).with_file_name(format!("junk_{name}"));
        std::fs::write(&path, b"not what the name says").unwrap();
        expect(&refusal(&path, &options), &["not a readable"]);
        std::fs::write(&path, b"").unwrap();
        expect(&refusal(&path, &options), &["not a readable"]);
        let path = folder.path().join(format!("folder_{name}"));
        std::fs::create_dir(&path).unwrap();
        expect(&refusal(&path, &options), &["folder"]);
    }
    expect(&refusal(&folder.path().join("a.csv"), &options), &["no such file"]);
    expect(&refusal(&folder.path().join("a.xlsx"), &options), &[".h5ad", ".npz", ".csv"]);
    expect(&refusal(&folder.path().join("a"), &options), &[".h5ad", ".npz"]);
}

#[test]
fn values_that_are_no_counts() {
    let folder = TempDir::new().unwrap();
    let cases = [
        (-1.0, "below zero"),
        (0.5, "looks normalised"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "infinite"),
        (4_294_967_296.0, "above the largest"),
    ];
    for (value, problem) in cases {
        let mut screen = Screen::default();
        screen.x[7] = value;
        expect(
            &refusal(&screen.npz(&folder), &LoadOptions::default()),
            &["cell 2 (`cell_2`), gene 1 (`gene_1`)", problem],
        );
        let dense = screen.h5ad(&folder, None);
        expect(&refusal(&dense, &LoadOptions::default()), &["X, cell 2 (`cell2`), gene 1 (`gene1`)", problem]);
        let csr = (&[0, 1, 2, 3, 4][..], &[0, 0, 1, 0][..], &[1.0, 1.0, value as f32, 1.0][..]);
        let sparse = screen.h5ad(&folder, Some(csr));
        expect(&refusal(&sparse, &LoadOptions::default()), &["X, cell 2 (`cell2`), gene 1 (`gene1`)", problem]);
    }
}

#[test]
fn tables_that_hold_no_counts() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("table.csv");
    let options = LoadOptions { unlabelled: true, drop_empty_cells: true, ..LoadOptions::default() };
    let long = "a".repeat(2000);
    let cases: [(&[u8], &[&str]); 29] = [
        (b"", &["it is empty"]),
        (b"\r\n\n", &["it is empty"]),
        (b"cell,G1\n", &["a first line and no others"]),
        (b"cell\nA\nB\n", &["no table of at least two columns"]),
        (b"cell,G1\nA,1,2,3\n", &["no table of at least two columns"]),
        (b"cell,G1,G2\nA,1,2\nB,1\n", &["line 3: it has 2 fields, the rows before have 3"]),
        (b"cell,G1,G2\nA,1,2\n\nB,1,2,3\n", &["line 4: it has 4 fields"]),
        (b"cell,G1,\nA,1,2\n", &["line 1, column 3: it has no name"]),
        (b"cell,G1,G2\nA,1,x\nB,1,1\n", &["line 2, column 3 (`G2`): `x` is no number", "whole numbers"]),
        (b"cell,G1,G2\nA,1,2\nB,,1\n", &["line 3, column 2 (`G1`): the field is empty"]),
        (b"cell,G1,G2\nA,1,2\nB,NA,1\n", &["line 3, column 2 (`G1`): `NA` is no number"]),
        (b"cell,G1,G2\nA,1,2\nB,1 2,1\n", &["line 3", "`1 2` is no number"]),
        (b"cell,G1,G2\nA,1,2\nB,-1,1\n", &["line 3, column 2 of the table, cell 1 (`B`), gene 0 (`G1`)", "below zero"]),
        (b"cell,G1,G2\nA,1,2\nB,0.5,1\n", &["line 3, column 2", "cell 1 (`B`)", "looks normalised"]),
        (b"cell,G1,G2\nA,1,nan\nB,1,1\n", &["line 2, column 3", "cell 0 (`A`)", "NaN"]),
        (b"cell,G1,G2\nA,1,inf\nB,1,1\n", &["line 2, column 3", "infinite"]),
        (b"cell,G1,G2\nA,1,4294967296\n", &["line 2, column 3", "above the largest"]),
        (b"gene,A,B\nG1,1,2\nG2,1,-3\n", &["line 3, column 3 of the table, cell 1 (`B`), gene 1 (`G2`)", "below zero"]),
        (b"gene,A,B\nG1,1,2\nG2,1,-\n", &["line 3, column 3 (`B`): `-` is no number"]),
        (b"cell,G1,G2\nA,1,2\nB,\"1,1\n", &["line 3", "not closed"]),
        (b"cell,G1,G2\nA,1,2\n\"B\"x,1,1\n", &["line 3", "follows a quotation mark"]),
        (b"cell,G1\0,G2\nA,1,2\n", &["line 1"]),
        (b"cell,G1,G2\nA\0,1,2\n", &["line 2", "no text"]),
        (b"cell,G1,G2\nA,1,2\nB,1\0,2\n", &["line 3, column 2", "is no number"]),
        (b"cell,G1,G2\nA\xff,1,2\n", &["line 2", "UTF-8"]),
        (b"\xff\xfec\0,\0G\0\n\0A\0,\x001\0\n\0", &["line 1", "UTF-8"]),
        (b"0,0,1,0\n1,0,0,2\n0,3,0,0\n", &["line 1: it holds counts, not names"]),
        (b"G1,G2,G3\n1,0,4\n1,2,0\n", &["its first column holds counts, not names"]),
        (b"x,a,b\nc,1,2\nd,3,4\n", &["whether its rows are cells or genes", "--labels", "`cell`"]),
    ];
    for (bytes, parts) in cases {
        std::fs::write(&path, bytes).unwrap();
        expect(&refusal(&path, &options), parts);
    }
    std::fs::write(&path, format!("cell,G1,G2\n{long},1,2\n")).unwrap();
    expect(&refusal(&path, &options), &["line 2", "too long"]);
    std::fs::write(&path, format!("cell,G1,G2\nA,1,2\nB,{long},2\n")).unwrap();
    let message = refusal(&path, &options);
    expect(&message, &["line 3, column 2", "aaa...` is no number"]);
    assert!(message.len() < 300, "{message}");
    // The counts of a table cannot stay on disk, and it has no layers.
    std::fs::write(&path, "cell,G1,G2\nA,1,2\nB,3,4\n").unwrap();
    assert!(load(&path, &options).is_ok());
    let streamed = LoadOptions { stream: Some(1 << 20), ..options.clone() };
    expect(&refusal(&path, &streamed), &["cannot stay on disk", ".h5ad"]);
    let layer = LoadOptions { layer: Some("counts".into()), ..options.clone() };
    expect(&refusal(&path, &layer), &["--layer has no effect on a table of counts"]);
    // A table of genes x cells says nothing of its cells.
    std::fs::write(&path, "gene,A,B\nG1,1,2\nG2,3,4\n").unwrap();
    let labelled = LoadOptions { label_key: Some("guide".into()), ..LoadOptions::default() };
    expect(&refusal(&path, &labelled), &["`guide`", "no such column", "--labels"]);
    // A cut stream, and bytes that are no gzip.
    let packed = folder.path().join("table.csv.gz");
    std::fs::write(&packed, b"cell,G1,G2\nA,1,2\n").unwrap();
    expect(&refusal(&packed, &options), &["line 1", "cannot be read"]);
}

#[test]
fn cells_without_counts_are_refused_or_dropped() {
    let folder = TempDir::new().unwrap();
    let mut screen = Screen { size_factor: vec![1.0, 2.0, 0.0, 4.0], ..Screen::default() };
    screen.x[6..9].fill(0.0);
    screen.label[2] = "only here".into();
    for path in [screen.npz(&folder), screen.h5ad(&folder, None)] {
        expect(&refusal(&path, &with_size_factors()), &["cell 2", "1 of 4 cells", "--drop-empty-cells"]);
        let options = LoadOptions { drop_empty_cells: true, batch_key: Some("batch".into()), ..with_size_factors() };
        let Loaded { dataset, notes, .. } = load(&path, &options).unwrap();
        // The size factor of the dropped cell no longer matters, nor does its label.
        assert_eq!(dataset.library, [1.0, 2.0, 4.0]);
        assert_eq!(dataset.intervention_names, ["TP53", "control"]);
        assert_eq!(dataset.covariates.categorical[0].codes, [0, 0, 1]);
        assert!(dataset.cell_names[2].ends_with('3'));
        expect(&notes.join("; "), &["dropped 1 of 4 cells", "`only here`"]);
    }
    screen.x.fill(0.0);
    let options = LoadOptions { drop_empty_cells: true, ..LoadOptions::default() };
    expect(&refusal(&screen.npz(&folder), &options), &["no cell has any count"]);
}

#[test]
fn empty_tables() {
    let folder = TempDir::new().unwrap();
    let none = Screen { x: vec![], n_genes: 0, ..Screen::default() };
    expect(&refusal(&none.npz(&folder), &LoadOptions::default()), &["no genes"]);
    let none = Screen { x: vec![], n_cells: 0, label: vec![], size_factor: vec![], batch: vec![], ..Screen::default() };
    expect(&refusal(&none.npz(&folder), &LoadOptions::default()), &["no cells"]);
}

#[test]
fn size_factors_must_be_positive_numbers() {
    let folder = TempDir::new().unwrap();
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let screen = Screen { size_factor: vec![1.0, bad, 3.0, 4.0], ..Screen::default() };
        for path in [screen.npz(&folder), screen.h5ad(&folder, None)] {
            expect(&refusal(&path, &with_size_factors()), &["size", "cell 1", "positive"]);
        }
    }
    let text = LoadOptions { size_factor_key: Some("batch".into()), ..LoadOptions::default() };
    expect(&refusal(&Screen::default().npz(&folder), &text), &["`batch`", "not numbers"]);
}

#[test]
fn labels_and_covariates() {
    let folder = TempDir::new().unwrap();
    let key = |label: &str| LoadOptions { label_key: Some(label.into()), ..LoadOptions::default() };

    let missing = Screen { codes: Some(vec![0, -1, 1, -1]), ..Screen::default() };
    expect(&refusal(&missing.h5ad(&folder, None), &LoadOptions::default()), &["2 of 4 cells", "cell 1 (`cell1`)"]);
    let outside = Screen { codes: Some(vec![0, 1, 1, 9]), ..Screen::default() };
    expect(&refusal(&outside.h5ad(&folder, None), &LoadOptions::default()), &["cell 3", "level number 9"]);
    let numbered = Screen { codes: Some(vec![10, 9, 10, -2]), ..Screen::default() };
    let dataset = load(&numbered.npz(&folder), &LoadOptions::default()).unwrap().dataset;
    assert_eq!(dataset.intervention_names, ["-2", "9", "10"]);

    let mut empty = Screen::default();
    empty.label[3].clear();
    expect(&refusal(&empty.npz(&folder), &LoadOptions::default()), &["1 of 4 cells", "cell 3"]);
    let short = Screen { label: vec!["a".into(); 3], ..Screen::default() };
    expect(&refusal(&short.npz(&folder), &LoadOptions::default()), &["`label`", "3 values for 4 cells"]);
    let continuous = Screen { size_factor: vec![0.5, 1.0, 2.0, 3.0], ..Screen::default() };
    for path in [continuous.npz(&folder), continuous.h5ad(&folder, None)] {
        expect(&refusal(&path, &key("size")), &["0.5", "not categories"]);
        expect(&refusal(&path, &key("absent")), &["no such column", "`batch`", "`size`"]);
        let twice = LoadOptions {
            batch_key: Some("batch".into()),
            categorical_covariates: vec!["batch".into()],
            ..LoadOptions::default()
        };
        expect(&refusal(&path, &twice), &["batch", "twice"]);
        let leak = LoadOptions { batch_key: Some("batch".into()), ..key("batch") };
        expect(&refusal(&path, &leak), &["covariate as well"]);
    }
    let holes = Screen { size_factor: vec![1.0, f64::NAN, 2.0, 3.0], ..Screen::default() };
    let options = LoadOptions { continuous_covariates: vec!["size".into()], ..LoadOptions::default() };
    expect(&refusal(&holes.npz(&folder), &options), &["`size`", "cell 1", "NaN"]);
    let options = LoadOptions { categorical_covariates: vec!["size".into()], ..LoadOptions::default() };
    expect(&refusal(&holes.npz(&folder), &options), &["`size`", "1 of 4 cells have no value"]);

    // Which column is the label?
    let path = folder.path().join("two.npz");
    for (columns, message) in
        [(&["condition", "gene"][..], "several columns"), (&["a", "b"], "none of the cells' columns")]
    {
        let mut npz = NpzWriter::create(&path).unwrap();
        npz.add_f64("x", &[1, 1], &[1.0]).unwrap();
        columns.iter().for_each(|column| npz.add_strings(column, &["c"]).unwrap());
        npz.finish().unwrap();
        expect(&refusal(&path, &LoadOptions::default()), &[message, columns[0], columns[1], "--label-key"]);
    }
}

#[test]
fn sparse_matrices() {
    let folder = TempDir::new().unwrap();
    let screen = Screen::default();
    let data = &[1.0, 2.0, 3.0, 4.0, 5.0][..];
    let genes = &[0, 2, 1, 0, 2][..];
    type Csr<'a> = (&'a [i32], &'a [i32], &'a [f32]);
    let cases: [(Csr, &str); 9] = [
        ((&[0, 2, 3, 5], genes, data), "`indptr` has 4 values for 4 cells"),
        ((&[1, 2, 3, 4, 5], genes, data), "`indptr` runs from 1 to 5"),
        ((&[0, 2, 3, 4, 6], genes, data), "`indptr` runs from 0 to 6"),
        ((&[0, 3, 2, 4, 5], genes, data), "cell 1 (`cell1`): `indptr` falls from 3 to 2"),
        ((&[0, 2, 3, -4, 5], genes, data), "`indptr` falls from 3 to -4"),
        ((&[0, 2, 3, 4, 5], &[0, 2, 3, 0, 2], data), "cell 1 (`cell1`): a value belongs to gene number 3"),
        ((&[0, 2, 3, 4, 5], &[0, 2, -1, 0, 2], data), "gene number -1"),
        ((&[0, 2, 3, 4, 5], &[0, 2, 1, 0], data), "5 values but 4 indices"),
        ((&[0, 2, 3, 4, 5], genes, &[1.0, 2.0, 3.0]), "3 values but 5 indices"),
    ];
    for (csr, message) in cases {
        expect(&refusal(&screen.h5ad(&folder, Some(csr)), &LoadOptions::default()), &[message]);

        let shape = [csr.0.len() as i64 - 1, 3];
        let path = sparse_npz(&folder, &shape, "csr", csr);
        // As a .npz, the number of cells is that of `indptr`, hence other faults come first in two of the cases.
        refusal(&path, &LoadOptions::default());
    }
    // Out of order and doubled: SciPy's meaning is the sum.
    let mended = load(
        &screen.h5ad(&folder, Some((&[0, 2, 3, 4, 7], &[2, 0, 1, 0, 2, 1, 2], &[2.0, 1.0, 3.0, 4.0, 5.0, 1.0, 6.0]))),
        &LoadOptions::default(),
    )
    .unwrap();
    let mut rows = vec![];
    (0..4).for_each(|n| mended.dataset.counts.row(n).for_each(|g, x| rows.push((n, g, x))));
    assert_eq!(rows, [(0, 0, 1), (0, 2, 2), (1, 1, 3), (2, 0, 4), (3, 1, 1), (3, 2, 11)]);
    expect(&mended.notes.join("; "), &["2 cells had counts out of gene order"]);
    let overflow = (&[0, 1, 2, 3, 5][..], &[0, 1, 0, 2, 2][..], &[1.0, 1.0, 1.0, 4e9, 4e9][..]);
    expect(&refusal(&screen.h5ad(&folder, Some(overflow)), &LoadOptions::default()), &["cell 3", "above the largest"]);

    let good: Csr = (&[0, 2, 3, 4, 5], genes, data);
    assert!(load(&sparse_npz(&folder, &[4, 3], "csr", good), &LoadOptions::default()).is_ok());
    expect(&refusal(&sparse_npz(&folder, &[4, 3], "coo", good), &LoadOptions::default()), &["`coo`", ".tocsr()"]);
    for shape in [&[5, 3][..], &[4, -3], &[4, 1 << 40], &[4], &[i64::MAX, 3]] {
        expect(&refusal(&sparse_npz(&folder, shape, "csr", good), &LoadOptions::default()), &["does not fit"]);
    }
}

fn sparse_npz(folder: &TempDir, shape: &[i64], format: &str, csr: (&[i32], &[i32], &[f32])) -> PathBuf {
    let path = folder.path().join("sparse.npz");
    let mut npz = NpzWriter::create(&path).unwrap();
    let wide = |values: &[i32]| values.iter().map(|&x| x as i64).collect::<Vec<_>>();
    npz.add_i64("indptr", &[csr.0.len()], &wide(csr.0)).unwrap();
    npz.add_i64("indices", &[csr.1.len()], &wide(csr.1)).unwrap();
    npz.add_f32("data", &[csr.2.len()], csr.2).unwrap();
    npz.add_i64("shape", &[shape.len()], shape).unwrap();
    npz.add_string("format", format).unwrap();
    npz.add_strings("label", &["a"; 4]).unwrap();
    npz.finish().unwrap();
    path
}

#[test]
fn anndata_of_other_shapes_and_encodings() {
    let folder = TempDir::new().unwrap();
    // A matrix that does not fit the names.
    let path = Screen { n_genes: 2, x: vec![1.0; 8], ..Screen::default() }.h5ad(&folder, None);
    let file = H5File::open_rw(&path).unwrap();
    file.delete_dataset("X").unwrap();
    file.new_dataset::<f32>().shape([4, 3]).create("X").unwrap().write_raw(&[1f32; 12]).unwrap();
    file.close().unwrap();
    expect(&refusal(&path, &LoadOptions::default()), &["shape [4, 3] for 4 cells and 2 genes"]);

    let make = |build: &dyn Fn(&H5File)| {
        let path = folder.path().join("other.h5ad");
        let file = H5File::create(&path).unwrap();
        build(&file);
        file.close().unwrap();
        path
    };
    let tables = |file: &H5File| {
        for table in ["obs", "var"] {
            let group = file.create_group(table).unwrap();
            group.set_attr_string("_index", "_index").unwrap();
            group.write_vlen_strings("_index", &["a", "b"]).unwrap();
        }
        file.root_group().group("obs").unwrap().write_vlen_strings("label", &["c", "d"]).unwrap();
    };
    expect(&refusal(&make(&|_| {}), &LoadOptions::default()), &["obs", "missing"]);
    expect(&refusal(&make(&tables), &LoadOptions::default()), &["X", "no counts"]);
    let path = make(&|file| {
        tables(file);
        file.create_group("X").unwrap().set_attr_string("encoding-type", "coo_matrix").unwrap();
    });
    expect(&refusal(&path, &LoadOptions::default()), &["`coo_matrix`", ".tocsr()"]);
    let path = make(&|file| {
        tables(file);
        file.create_group("X").unwrap().set_attr_string("encoding-type", "csc_matrix").unwrap();
    });
    expect(&refusal(&path, &LoadOptions::default()), &["X/indptr", "missing"]);
    let path = make(&|file| {
        tables(file);
        file.create_group("X").unwrap();
    });
    expect(&refusal(&path, &LoadOptions::default()), &["X", "does not say"]);
    let path = make(&|file| {
        tables(file);
        file.write_vlen_strings("X", &["a"]).unwrap();
    });
    refusal(&path, &LoadOptions::default());
    let path = make(&|file| {
        file.new_dataset::<f32>().shape([2]).create("obs").unwrap().write_raw(&[1f32; 2]).unwrap();
    });
    expect(&refusal(&path, &LoadOptions::default()), &["obs", "no table"]);
}

/// An archive of uncompressed members, bytes as given.
fn raw_npz(folder: &TempDir, members: &[(&str, Vec<u8>)]) -> PathBuf {
    let path = folder.path().join("raw.npz");
    let mut archive = rawzip::ZipArchiveWriter::new(File::create(&path).unwrap());
    for (name, bytes) in members {
        let (mut entry, config) = archive.new_file(name).start().unwrap();
        let mut writer = config.wrap(&mut entry);
        writer.write_all(bytes).unwrap();
        let (_, descriptor) = writer.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    path
}

fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn header(dtype: &str, fortran: bool, shape: &str) -> String {
    let order = if fortran { "True" } else { "False" };
    format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
}

#[test]
fn arrays_of_every_type_and_order() {
    let folder = TempDir::new().unwrap();
    let big: Vec<u8> = [1i16, -2, 300].iter().flat_map(|x| x.to_be_bytes()).collect();
    let fortran: Vec<u8> = [1f64, 4.0, 2.0, 5.0, 3.0, 6.0].iter().flat_map(|x| x.to_be_bytes()).collect();
    let text: Vec<u8> = "ab\0é\0\0".chars().flat_map(|c| (c as u32).to_be_bytes()).collect();
    let path = raw_npz(
        &folder,
        &[
            ("big.npy", npy(&header(">i2", false, "(3,)"), &big)),
            ("fortran.npy", npy(&header(">f8", true, "(2, 3)"), &fortran)),
            ("bool.npy", npy(&header("|b1", false, "(2,)"), &[1, 0])),
            ("bytes.npy", npy(&header("|S3", false, "(2,)"), b"abcd\0\0")),
            ("text.npy", npy(&header(">U3", false, "(2,)"), &text)),
            ("half.npy", npy(&header("<f2", false, "()"), &0x3555u16.to_le_bytes())),
            ("u64.npy", npy(&header("<u8", false, "(1,)"), &u64::MAX.to_le_bytes())),
            ("notes.txt", b"not an array".to_vec()),
        ],
    );
    let npz = Npz::open(&path).unwrap();
    assert_eq!(npz.names().len(), 7);
    assert_eq!(npz.array_i64("big").unwrap().1, [1, -2, 300]);
    assert_eq!(npz.array_f64("big").unwrap().1, [1.0, -2.0, 300.0]);
    assert_eq!(npz.array_f64("fortran").unwrap(), (vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    assert_eq!(npz.array_i64("bool").unwrap().1, [1, 0]);
    assert_eq!(npz.strings("bytes").unwrap().1, ["abc", "d"]);
    assert_eq!(npz.strings("text").unwrap().1, ["ab", "é"]);
    assert_eq!(npz.array_f64("half").unwrap(), (vec![], vec![0.333_251_953_125]));
    assert!(npz.array_i64("u64").unwrap_err().to_string().contains("18446744073709551615"));
}

#[test]
fn arrays_that_lie() {
    let folder = TempDir::new().unwrap();
    let deep =
        format!("{{'descr': {}'<f8'{}, 'fortran_order': False, 'shape': (1,), }}\n", "[".repeat(500), "]".repeat(500));
    let huge_header = {
        let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
        bytes.extend(u32::MAX.to_le_bytes());
        bytes
    };
    let cases = [
        ("objects", npy(&header("|O", false, "(2,)"), b"\x80\x04K\x01."), "Python objects"),
        ("huge", npy(&header("<f8", false, "(1000000000000,)"), &[0; 16]), "more than the archive can hold"),
        ("product", npy(&header("<f8", false, "(4294967296, 4294967296)"), &[0; 16]), "absurd"),
        ("digits", npy(&header("<f8", false, "(99999999999999999999999999,)"), &[0; 16]), "absurd"),
        ("negative", npy(&header("<f8", false, "(-1,)"), &[0; 16]), "damaged"),
        ("no_width", npy(&header("<U0", false, "(100000000,)"), &[]), "more than the archive can hold"),
        ("wide", npy(&header("<U4000000000", false, "(1,)"), &[0; 16]), "more than the archive can hold"),
        ("complex", npy(&header("<c16", false, "(1,)"), &[0; 16]), "not read"),
        ("date", npy(&header("<M8[s]", false, "(1,)"), &[0; 8]), "not read"),
        ("short", npy(&header("<f8", false, "(2,)"), &[0; 15]), "ends early"),
        ("long", npy(&header("<f8", false, "(1,)"), &[0; 9]), "damaged"),
        ("deep", npy(&deep, &[0; 8]), "damaged"),
        ("record", npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }\n", &[0; 8]), "records"),
        ("huge_header", huge_header, "damaged"),
        ("magic", b"NUMPY, honestly".to_vec(), "damaged"),
        ("empty", vec![], "damaged"),
        ("surrogate", npy(&header("<U1", false, "(1,)"), &0xd805u32.to_le_bytes()), "Unicode"),
    ];
    for (name, bytes, message) in cases {
        let path = raw_npz(&folder, &[(&format!("{name}.npy"), bytes)]);
        let npz = Npz::open(&path).unwrap();
        let result = if name == "surrogate" { npz.strings(name).map(drop) } else { npz.array_f64(name).map(drop) };
        let text = result.unwrap_err().to_string();
        expect(&text, &[message, name]);
    }
    let twice = raw_npz(
        &folder,
        &[("a.npy", npy(&header("|b1", false, "(1,)"), &[1])), ("a.npy", npy(&header("|b1", false, "(1,)"), &[0]))],
    );
    expect(&Npz::open(&twice).unwrap_err().to_string(), &["two arrays called `a`"]);
}

/// Loads or refuses; a panic fails the test. Returns whether it loaded.
fn survives(path: &Path) -> bool {
    let options = LoadOptions { batch_key: Some("batch".into()), ..with_size_factors() };
    match load(path, &options) {
        Ok(loaded) => {
            let dataset = loaded.dataset;
            assert!(dataset.n_cells() > 0 && dataset.library.iter().all(|x| *x > 0.0 && x.is_finite()));
            true
        }
        Err(Error::Input(error)) => {
            assert!(error.to_string().ends_with('.'));
            false
        }
        Err(Error::Io { .. }) => false,
        Err(other) => panic!("unexpected kind of error: {other}"),
    }
}

#[test]
fn truncated_and_bit_flipped_files_are_refused_or_read() {
    let folder = TempDir::new().unwrap();
    let screen = Screen::default();
    let csr = (&[0, 2, 3, 4, 5][..], &[0, 2, 1, 0, 2][..], &[1.0, 2.0, 3.0, 4.0, 5.0][..]);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    type Make<'a> = &'a dyn Fn() -> PathBuf;
    let makers: [Make; 3] =
        [&|| screen.npz(&folder), &|| screen.h5ad(&folder, None), &|| screen.h5ad(&folder, Some(csr))];
    for (i, make) in makers.into_iter().enumerate() {
        let path = make();
        let good = std::fs::read(&path).unwrap();
        assert!(survives(&path), "the file to spoil is good");
        let spoilt = folder.path().join(format!("spoilt{i}")).with_extension(path.extension().unwrap());
        let mut refused = 0;
        for length in (0..good.len()).step_by((good.len() / 100).max(1)) {
            std::fs::write(&spoilt, &good[..length]).unwrap();
            refused += !survives(&spoilt) as usize;
        }
        assert!(refused >= 90, "of 100 truncated files {refused} were refused");
        for _ in 0..400 {
            let mut bytes = good.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            std::fs::write(&spoilt, &bytes).unwrap();
            survives(&spoilt);
        }
        for _ in 0..100 {
            let mut bytes = good.clone();
            let at = random.random_range(0..bytes.len());
            let end = (at + random.random_range(1..32)).min(bytes.len());
            bytes[at..end].fill([0, 0xff, 0x7f][random.random_range(0..3)]);
            std::fs::write(&spoilt, &bytes).unwrap();
            survives(&spoilt);
        }
    }
}

#[test]
fn a_written_data_set_comes_back() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("simulated.npz");
    for (kind, n_genes) in [(SimulationKind::SparseShift, 30), (SimulationKind::Paper, 40)] {
        let settings =
            Simulation { kind, n_genes, n_interventions: 12, cells_per_intervention: 9, ..Simulation::default() };
        let mut dataset = simulate(&settings).unwrap().dataset;
        // Sparse enough for the other layout, in one of the two.
        if kind == SimulationKind::Paper {
            let table: Vec<u32> = (0..108 * 40).map(|i| if i % 7 == 0 { i % 5 + 1 } else { 0 }).collect();
            dataset.counts = svae_cpu::data::counts::in_memory::Counts::from_dense(40, &table).into();
            dataset.covariates.categorical.push(Categorical {
                name: "batch".into(),
                levels: vec!["a".into(), "b".into()],
                codes: (0..108).map(|n| n % 2).collect(),
            });
            let values = (0..108).map(|n| n as f64 / 3.0).collect();
            dataset.covariates.continuous.push(Continuous { name: "age".into(), values });
        }
        write_npz(&dataset, &path).unwrap();
        let covariates = kind == SimulationKind::Paper;
        let options = LoadOptions {
            batch_key: covariates.then(|| "batch".into()),
            continuous_covariates: if covariates { vec!["age".into()] } else { vec![] },
            ..LoadOptions::default()
        };
        let mut loaded = load(&path, &options).unwrap();
        assert_eq!(loaded.notes[0], "interventions are read from array `label`");
        assert_eq!(loaded.notes.len(), 1 + covariates as usize, "{:?}", loaded.notes);
        loaded.dataset.source = dataset.source.clone();
        assert_eq!(loaded.dataset, dataset);
    }
    let mut dataset = simulate(&Simulation { cells_per_intervention: 1, ..Simulation::default() }).unwrap().dataset;
    let error = write_npz(&dataset, &folder.path().join("absent/a.npz")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    // One dose for all interventions of a cell can be written, several cannot.
    dataset.interventions.push(&[(0, 2.0), (1, 2.0)]);
    dataset.interventions.push(&[(0, 1.0), (1, 2.0)]);
    let same_in_all = |row: usize| dataset.interventions.select(&[row].repeat(100));
    let (one_dose, two_doses) = (same_in_all(100), same_in_all(101));
    dataset.interventions = one_dose;
    write_npz(&dataset, &path).unwrap();
    dataset.interventions = two_doses;
    assert!(write_npz(&dataset, &path).unwrap_err().to_string().contains("different doses"));
}

#[test]
fn a_truth_that_does_not_fit_is_left_out() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("truth.npz");
    for (n_rows, n_means, fits) in [(4, 2, true), (4, 3, false), (3, 2, false)] {
        let mut npz = NpzWriter::create(&path).unwrap();
        npz.add_f64("x", &[4, 1], &[1.0; 4]).unwrap();
        npz.add_strings("label", &["b", "a", "b", "a"]).unwrap();
        npz.add_f64("latents", &[n_rows, 2], &vec![0.5; n_rows * 2]).unwrap();
        npz.add_f64("prior_means", &[n_means, 2], &vec![1.0; n_means * 2]).unwrap();
        npz.finish().unwrap();
        let loaded = load(&path, &LoadOptions::default()).unwrap();
        assert_eq!(loaded.dataset.truth.is_some(), fits);
        assert_eq!(loaded.notes.iter().any(|note| note.contains("truth is ignored")), !fits);
    }
    // Numbered interventions number the rows: the unused ones in between are skipped.
    let mut npz = NpzWriter::create(&path).unwrap();
    npz.add_f64("x", &[2, 1], &[1.0; 2]).unwrap();
    npz.add_i64("label", &[2], &[3, 1]).unwrap();
    npz.add_f64("latents", &[2, 1], &[0.5, 0.25]).unwrap();
    npz.add_f64("prior_means", &[5, 1], &[0.0, 1.0, 2.0, 3.0, 4.0]).unwrap();
    npz.finish().unwrap();
    let dataset = load(&path, &LoadOptions::default()).unwrap().dataset;
    assert_eq!(
        (dataset.intervention_names, dataset.truth.unwrap().prior_means),
        (vec!["1".to_string(), "3".to_string()], vec![1.0, 3.0])
    );
}
