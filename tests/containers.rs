//! What other programs write, and files that hold more than one table, give the same screen (`tests/formats`).

use std::path::{Path, PathBuf};

use svae_cpu::data::dataset::Dataset;
use svae_cpu::data::loading::inspect::inspect_as;
use svae_cpu::data::loading::load::{LoadOptions, Loaded, load};
use tempfile::TempDir;

use crate::loading::{read, refused, said_so};
use crate::support::{names, run, said};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name)
}

fn with_labels() -> LoadOptions {
    LoadOptions { labels: Some(file("labels.csv")), label_key: Some("intervention".into()), ..LoadOptions::default() }
}

/// The screen as CellRanger writes it.
fn wanted() -> Dataset {
    read(&file("mtx_v2/GRCh38"), &with_labels()).dataset
}

fn labels(dataset: &Dataset) -> Vec<Vec<&str>> {
    let name = |a: &u32| dataset.intervention_names[*a as usize].as_str();
    (0..dataset.n_cells()).map(|n| dataset.interventions.row(n).0.iter().map(name).collect()).collect()
}

fn table_of(dataset: &Dataset, n: usize) -> Vec<u32> {
    let mut row = vec![0; dataset.n_genes()];
    dataset.counts.row(n).for_each(|g, x| row[g] = x);
    row
}

#[track_caller]
fn is_wanted(dataset: &Dataset) {
    let wanted = wanted();
    assert_eq!(dataset.counts, wanted.counts);
    assert_eq!((&dataset.library, &dataset.cell_names), (&wanted.library, &wanted.cell_names));
    assert_eq!(labels(dataset), labels(&wanted));
}

/// A copy of the files of a folder of fixtures.
fn copy_of(name: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in std::fs::read_dir(file(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

#[test]
fn counts_of_kallisto_and_bustools() {
    let options = with_labels();
    let Loaded { dataset, .. } = read(&file("kb_counts"), &options);
    is_wanted(&dataset);
    assert_eq!(dataset.gene_names, wanted().gene_names);
    // Identifiers name genes as well.
    let folder = copy_of("kb_counts");
    let list = folder.path().join("list");
    std::fs::write(&list, "ENSG00003\nGENE1\n").unwrap();
    let listed = LoadOptions { genes: Some(list), drop_empty_cells: true, ..options.clone() };
    assert_eq!(read(folder.path(), &listed).dataset.gene_names, ["GENE1", "GENE3"]);
    // Of several matrices of the same cells, one is named.
    let matrix = folder.path().join("cells_x_genes.mtx");
    let mature = folder.path().join("cells_x_genes.mature.mtx");
    std::fs::copy(&matrix, &mature).unwrap();
    refused(folder.path(), &options, &["several matrices", "`cells_x_genes.mature.mtx`", "name one"]);
    is_wanted(&read(&matrix, &options).dataset);
    let loaded = read(&mature, &options).dataset;
    is_wanted(&loaded);
    assert_eq!(loaded.gene_names, wanted().gene_names);
    let symbols = folder.path().join("cells_x_genes.genes.names.txt");
    std::fs::write(&symbols, "GENE0\n").unwrap();
    refused(&matrix, &options, &["cells_x_genes.genes.names.txt", "1 names for 9 genes", "cells_x_genes.genes.txt"]);
    std::fs::remove_file(&symbols).unwrap();
    assert_eq!(read(&matrix, &options).dataset.gene_names[0], "ENSG00000.1");
}

#[test]
fn counts_of_alevin_fry() {
    let options = with_labels();
    for folder in ["alevin_fry", "alevin_fry/alevin", "alevin_fry/alevin/quants_mat.mtx"] {
        let Loaded { dataset, notes, summary } = read(&file(folder), &options);
        is_wanted(&dataset);
        assert_eq!((dataset.n_genes(), summary.n_genes_read, &*dataset.gene_names[8]), (9, 9, "ENSG00008"));
        said_so(&notes, "spliced, unspliced and ambiguous counts of 9 genes");
        assert!(!notes.iter().any(|note| note.contains("sorted and summed")), "{notes:?}");
    }
    // Chosen genes are summed as well.
    let folder = copy_of("alevin_fry/alevin");
    std::fs::write(folder.path().join("list"), "ENSG00004\nENSG00007\n").unwrap();
    let listed = LoadOptions { genes: Some(folder.path().join("list")), drop_empty_cells: true, ..options.clone() };
    let dataset = read(folder.path(), &listed).dataset;
    let (n, all) =
        (dataset.cell_names.iter().position(|name| name == wanted().cell_names.iter().nth(3).unwrap()), wanted());
    assert_eq!(table_of(&dataset, n.unwrap()), [table_of(&all, 3)[4], table_of(&all, 3)[7]]);
    // By gene, as an editor may have sorted it.
    let matrix = folder.path().join("quants_mat.mtx");
    let text = std::fs::read_to_string(&matrix).unwrap();
    let (head, entries): (Vec<&str>, Vec<&str>) = {
        let at = text.lines().position(|line| !line.starts_with('%')).unwrap() + 1;
        (text.lines().take(at).collect(), text.lines().skip(at).collect())
    };
    let reversed: Vec<&str> = head.iter().copied().chain(entries.iter().rev().copied()).collect();
    std::fs::write(&matrix, reversed.join("\n") + "\n").unwrap();
    is_wanted(&read(folder.path(), &options).dataset);
    // As many names as columns are features of their own; any other number is refused.
    let columns = folder.path().join("quants_mat_cols.txt");
    std::fs::write(&columns, "a\nb\n").unwrap();
    refused(
        folder.path(),
        &options,
        &["quants_mat.mtx", "12 x 27", "2 features and 12 barcodes", "quants_mat_cols.txt"],
    );
    // Matrices of that shape under other names are not summed.
    let other = TempDir::new().unwrap();
    for (name, source) in [
        ("matrix.mtx", "quants_mat.mtx"),
        ("barcodes.tsv", "quants_mat_rows.txt"),
        ("genes.tsv", "quants_mat_cols.txt"),
    ] {
        std::fs::copy(file("alevin_fry/alevin").join(source), other.path().join(name)).unwrap();
    }
    refused(other.path(), &options, &["12 x 27", "9 features and 12 barcodes"]);
}

#[test]
fn counts_of_split_pipe_and_folders_of_folders() {
    let Loaded { dataset, .. } = read(&file("splitpipe"), &with_labels());
    is_wanted(&dataset);
    assert_eq!(dataset.gene_names, wanted().gene_names);
    let table = LoadOptions { labels: Some(file("splitpipe/cell_metadata.csv")), ..LoadOptions::default() };
    let by_sample = LoadOptions { label_key: Some("sample".into()), ..table };
    assert_eq!(read(&file("splitpipe"), &by_sample).dataset.intervention_names, ["s0", "s1"]);
    refused(&file("lanes"), &with_labels(), &["no matrix.mtx", "the folder below it", "`lane_1`, `lane_2`"]);
}

#[test]
fn modalities_of_mudata() {
    let path = file("screen.h5mu");
    let options = LoadOptions {
        batch_key: Some("batch".into()),
        continuous_covariates: vec!["depth".into()],
        ..LoadOptions::default()
    };
    // Labels and batches are columns of the whole, whose cells come in another order; depth is one of the modality.
    let Loaded { dataset, notes, summary } = read(&path, &options);
    is_wanted(&dataset);
    let covariates = &dataset.covariates;
    assert_eq!(covariates.categorical[0].codes[..4], [0, 1, 0, 1]);
    assert_eq!(covariates.continuous[0].values[3], 3.5);
    said_so(&notes, "modality rna (12 x 9); the others are `adt (6 x 2)`, `gdo (12 x 2)`; --modality");
    assert_eq!((&*summary.format, &*summary.matrix), ("MuData, modality rna", "mod[\"rna\"].X"));
    let named = |modality: &str| LoadOptions { modality: Some(modality.into()), ..LoadOptions::default() };
    assert_eq!(read(&path, &named("rna")).dataset.counts, dataset.counts);
    let adt = read(&path, &named("adt")).dataset;
    assert_eq!((adt.n_cells(), adt.gene_names.join(" ")), (6, "CD3 CD4".to_owned()));
    let last = wanted().cell_names.iter().next_back().map(str::to_owned);
    assert_eq!(adt.cell_names.iter().next().map(str::to_owned), last);
    assert_eq!(labels(&adt)[0], labels(&wanted())[11]);
    refused(&path, &named("atac"), &["screen.h5mu", "no modality `atac`", "--modality may be `adt`, `gdo`, `rna`"]);
    refused(&file("anndata0_12_csr_f32.h5ad"), &named("rna"), &["--modality has no effect on an AnnData file"]);
    let absent = LoadOptions { label_key: Some("gene".into()), ..LoadOptions::default() };
    refused(&path, &absent, &["gene", "`perturbation`", "`depth`"]);
    // The guides are a modality of their own.
    let guides = LoadOptions { guide_threshold: Some(5), drop_unlabelled_cells: true, ..LoadOptions::default() };
    let found = read(&path, &guides).dataset;
    assert_eq!((found.n_cells(), found.intervention_names.join(" ")), (8, "g1 g2".to_owned()));
    assert_eq!(labels(&found)[..3], [["g1"], ["g2"], ["g1"]]);
    // A copy under another name is known by its contents.
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("copy.h5");
    std::fs::copy(&path, &copy).unwrap();
    is_wanted(&read(&copy, &options).dataset);
    let streamed = LoadOptions { stream: Some(1 << 20), ..options };
    assert_eq!(read(&path, &streamed).dataset.library, dataset.library);
    let found = inspect_as(&path, &LoadOptions::default()).unwrap();
    assert!(found.command.contains("screen.h5mu --label-key perturbation"), "{}", found.command);
    let columns: Vec<&str> = found.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["batch", "perturbation", "depth"]);
}

#[test]
fn tables_of_bd_rhapsody() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s_RSEC_MolsPerCell.csv");
    let comments =
        "##BD Targeted Multiplex Rhapsody Analysis Pipeline, Version 1.9.1\n##Analysis Date: 2021-01-01\n#\n";
    let table = "Cell_Index,GAPDH,CD3E|NM_000733.3|PolyA_1,ACTB\n101,1,2,3\n202,4,0,6\n303,1,1,0\n";
    std::fs::write(&path, format!("{comments}{table}")).unwrap();
    let calls = folder.path().join("calls.csv");
    std::fs::write(&calls, "Cell_Index,guide\n101,a\n202,b\n303,b\n").unwrap();
    let options = LoadOptions { labels: Some(calls), label_key: Some("guide".into()), ..LoadOptions::default() };
    let dataset = read(&path, &options).dataset;
    assert_eq!((dataset.n_cells(), &*dataset.gene_names[1]), (3, "CD3E|NM_000733.3|PolyA_1"));
    assert_eq!((table_of(&dataset, 1), labels(&dataset)[1][0]), (vec![4, 0, 6], "b"));
    std::fs::write(&path, comments).unwrap();
    refused(&path, &options, &["s_RSEC_MolsPerCell.csv", "it is empty"]);
    std::fs::write(&path, format!("{comments}{table}404,x,1,1\n")).unwrap();
    refused(&path, &options, &["line 8", "GAPDH"]);
}

fn lanes() -> (PathBuf, LoadOptions) {
    let options = LoadOptions {
        labels: Some(file("lanes/lane_1/labels.csv")),
        further_data: vec![file("lanes/lane_2")],
        further_labels: vec![file("lanes/lane_2/labels.csv")],
        batch_key: Some("lane".into()),
        label_key: Some("intervention".into()),
        ..LoadOptions::default()
    };
    (file("lanes/lane_1"), options)
}

#[test]
fn lanes_are_one_screen() {
    let (path, options) = lanes();
    let Loaded { dataset, notes, summary } = read(&path, &options);
    let wanted = wanted();
    assert_eq!(labels(&dataset), labels(&wanted));
    // Genes are matched by identifier, and the ninth is in one lane only.
    assert_eq!(dataset.gene_names, wanted.gene_names[..8]);
    for n in 0..12 {
        assert_eq!(table_of(&dataset, n), table_of(&wanted, n)[..8], "cell {n}");
    }
    said_so(&notes, "lane_1: left out 1 genes that are not in all files");
    said_so(&notes, "`lane_1 (6 cells)`, `lane_2 (6 cells)`");
    let lane = &dataset.covariates.categorical[0];
    assert_eq!((lane.levels.join(" "), lane.codes[5], lane.codes[6]), ("lane_1 lane_2".to_owned(), 0, 1));
    // One barcode is in both lanes.
    let cells: Vec<&str> = dataset.cell_names.iter().collect();
    assert_eq!((cells[0], cells[6]), ("AAACAA-1-lane_1", "AAACAA-1-lane_2"));
    assert_eq!(summary.format, "matrix market, 2 files");
    // One table with the joined names serves as well.
    let folder = TempDir::new().unwrap();
    let one = folder.path().join("labels.csv");
    let rows: String =
        cells.iter().zip(labels(&wanted)).map(|(cell, label)| format!("{cell},{}\n", label[0])).collect();
    std::fs::write(&one, format!("barcode,intervention\n{rows}")).unwrap();
    let table = LoadOptions { labels: Some(one), further_labels: Vec::new(), ..options.clone() };
    assert_eq!(read(&path, &table).dataset.interventions, dataset.interventions);
    // Guides of the lanes are those of one screen.
    let guides = LoadOptions {
        guide_threshold: Some(5),
        labels: None,
        label_key: None,
        further_labels: Vec::new(),
        drop_unlabelled_cells: true,
        ..options.clone()
    };
    let found = read(&path, &guides).dataset;
    assert_eq!((found.n_cells(), found.intervention_names.join(" ")), (8, "g1 g2".to_owned()));

    // Several rows of a barcode are read of one table of all cells.
    let calls = folder.path().join("calls.csv");
    std::fs::write(&calls, "barcode,intervention\nAAACAA-1,TP53\nAAACAA-1,KLF1\n").unwrap();
    let rows = LoadOptions { further_labels: vec![calls], ..options.clone() };
    refused(&path, &rows, &["calls.csv", "several rows", "one table"]);

    let twice = LoadOptions { further_data: vec![path.clone()], ..options.clone() };
    refused(&path, &twice, &["lane_1", "given twice"]);
    let tables = LoadOptions { further_data: Vec::new(), ..options.clone() };
    refused(&path, &tables, &["2 tables of labels for 1 data files"]);
    let other =
        LoadOptions { further_data: vec![file("table_cells.csv")], further_labels: Vec::new(), ..options.clone() };
    assert!(load(&path, &LoadOptions { labels: None, ..other }).is_err());
    let streamed = LoadOptions { stream: Some(1 << 20), ..options };
    refused(&path, &streamed, &["cannot stay on disk", "--stream"]);
}

#[test]
fn a_run_on_lanes_is_repeated_from_its_settings() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| file(name).display().to_string();
    let (one, two) = (path("lanes/lane_1"), path("lanes/lane_2"));
    let (of_one, of_two) = (path("lanes/lane_1/labels.csv"), path("lanes/lane_2/labels.csv"));
    let files = ["--data", &one, "--data", &two, "--labels", &of_one, "--labels", &of_two];
    let small = ["--control", "control", "--batch-key", "lane", "--epochs", "1", "--latents", "2", "--no-heldout"];
    let (code, _, err) = said(&run(folder.path(), &[&["run", "--out", "a"], &files[..], &small].concat()));
    assert_eq!(code, 0, "{err}");
    let config = std::fs::read_to_string(folder.path().join("a/config.toml")).unwrap();
    assert!(config.contains("data = [") && config.contains("labels = ["), "{config}");
    let (code, _, err) = said(&run(folder.path(), &["run", "a/config.toml", "--out", "b"]));
    assert_eq!(code, 0, "{err}");
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(bytes("a/latents.npz"), bytes("b/latents.npz"));
    assert_eq!(bytes("a/config.toml"), bytes("b/config.toml"));
    let (code, out, err) =
        said(&run(folder.path(), &["inspect", &one, &two, "--labels", &of_one, "--labels", &of_two]));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("--batch-key lane") && out.contains(&format!("--data {one} --data {two}")), "{out}");
}

#[test]
fn a_data_file_may_stand_alone() {
    let folder = TempDir::new().unwrap();
    let path = file("scipy_csr.npz").display().to_string();
    let small = ["--control", "control", "--epochs", "1", "--latents", "2", "--no-heldout", "--no-h5ad"];
    for (out, data) in [("a", &["--data", &path][..]), ("b", &[&path])] {
        let (code, _, err) = said(&run(folder.path(), &[&["run", "--out", out], data, &small].concat()));
        assert_eq!(code, 0, "{err}");
    }
    let latents = |out: &str| std::fs::read(folder.path().join(out).join("latents.npz")).unwrap();
    assert_eq!(latents("a"), latents("b"));
    for (args, part) in [
        (&["run", &*path, "--data", "other.h5ad"][..], "name every data file with --data"),
        (&["run", "absent.h5ad"], "absent.h5ad: there is no such file"),
        (&["run", "screen.h5ad.gz"], "unpack it: gunzip -k screen.h5ad.gz"),
        (&["run", "--data", "screen.zarr"], "read_zarr"),
        (&["run", "a"], "add --resume to resume the run in the folder"),
    ] {
        let (code, _, err) = said(&run(folder.path(), args));
        assert!(code == 2 && err.contains(part), "{args:?}: {err}");
    }
    assert_eq!(names(folder.path()), ["a", "b"]);
}

#[test]
fn expected_counts_are_called_so() {
    let folder = copy_of("mtx_v2/GRCh38");
    let path = folder.path().join("matrix.mtx");
    let text = std::fs::read_to_string(&path).unwrap().replacen("integer", "float", 1);
    std::fs::write(&path, format!("{}.25\n", text.trim_end())).unwrap();
    let found = inspect_as(folder.path(), &LoadOptions::default()).unwrap();
    assert!(found.matrices[0].looks_like.contains("expected or corrected counts"), "{:?}", found.matrices);
    assert!(!found.matrices[0].is_counts);
}
