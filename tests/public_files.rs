//! Files as people hand them on (`tests/formats/public`, written by AnnData): labels, lists, names of genes, guides among the features.

use std::path::{Path, PathBuf};

use rust_hdf5::{DatatypeMessage, H5File};
use svae_cpu::data::loading::inspect::inspect;
use svae_cpu::data::loading::load::{LoadOptions, Loaded};
use tempfile::TempDir;

use crate::loading::{read, refused, said_so};
use crate::support::{run, said};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name)
}

fn screen() -> PathBuf {
    file("public/screen.h5ad")
}

fn labelled(key: &str) -> LoadOptions {
    LoadOptions { label_key: Some(key.into()), ..LoadOptions::default() }
}

fn controls(entries: &[&str]) -> Vec<String> {
    entries.iter().map(|entry| entry.to_string()).collect()
}

#[test]
fn missing_labels_are_the_same_in_categories_text_and_tables() {
    let folder = TempDir::new().unwrap();
    let texts = ["nan", "None", "NA", "N/A", "<NA>", "", "control", "TP53", "KLF1", "control", "TP53", "KLF1"];
    let cells = read(&screen(), &labelled("condition")).dataset.cell_names;
    let rows: Vec<String> = cells.iter().zip(texts).map(|(cell, text)| format!("{cell},{text}\n")).collect();
    let table = folder.path().join("labels.csv");
    std::fs::write(&table, format!("barcode,label\n{}", rows.concat())).unwrap();
    let of_table = LoadOptions { labels: Some(table), ..labelled("label") };
    for options in [labelled("missing_category"), labelled("missing_text"), of_table] {
        refused(&screen(), &options, &["6 of 12 cells have no intervention label", "--drop-unlabelled-cells"]);
        let options = LoadOptions { drop_unlabelled_cells: true, control: controls(&["control"]), ..options };
        let dataset = read(&screen(), &options).dataset;
        assert_eq!((dataset.n_cells(), &dataset.intervention_names[..]), (6, &controls(&["KLF1", "TP53"])[..]));
    }
    let found = inspect(&screen(), None, None, None).unwrap();
    for name in ["missing_category", "missing_text"] {
        let column = found.columns.iter().find(|column| column.name == name).unwrap();
        assert_eq!((column.n_missing, column.n_levels), (6, Some(3)), "{name}");
    }
    // Who names such a text means it.
    let named = LoadOptions { drop_unlabelled_cells: true, control: controls(&["None"]), ..labelled("missing_text") };
    let Loaded { dataset, summary, .. } = read(&screen(), &named);
    assert_eq!((dataset.n_cells(), summary.controls[0].label.as_str()), (7, "None"));
}

#[test]
fn labels_that_differ_in_blanks_are_joined_and_others_told() {
    let Loaded { dataset, notes, summary } = read(&screen(), &labelled("blanks"));
    assert_eq!(dataset.intervention_names, ["KLF1", "TP53", "klf1"]);
    assert_eq!(summary.interventions[1].n_cells, 6);
    said_so(&notes, "blanks around levels do not count: `\"TP53 \"`");
    said_so(&summary.warnings, "nearly the same are taken for different ones: `KLF1`, `klf1`");
}

#[test]
fn features_that_are_no_genes_are_left_out_of_every_format() {
    let options = LoadOptions { control: controls(&["control"]), ..labelled("condition") };
    let Loaded { dataset, notes, .. } = read(&screen(), &options);
    let tenx =
        LoadOptions { labels: Some(file("labels.csv")), control: controls(&["control"]), ..labelled("intervention") };
    let of_tenx = read(&file("tenx_v3.h5"), &tenx).dataset;
    assert_eq!((dataset.n_genes(), &dataset.counts), (9, &of_tenx.counts));
    assert_eq!(dataset.library, of_tenx.library);
    said_so(&notes, "left out 2 features of type CRISPR Guide Capture");
    said_so(&notes, "left out 1 features of type Antibody Capture");
    let found = inspect(&screen(), None, None, None).unwrap();
    assert_eq!(found.n_genes, 9);
    said_so(&found.warnings, "left out 2 features of type CRISPR Guide Capture");
    // Counts that stay on disk are those of the same genes, listed or not.
    let folder = TempDir::new().unwrap();
    let list = folder.path().join("genes.txt");
    std::fs::write(&list, "GENE8\nGENE1\n").unwrap();
    for genes in [None, Some(list)] {
        let options = LoadOptions { genes, drop_empty_cells: true, ..options.clone() };
        let held = read(&screen(), &options).dataset;
        let on_disk = read(&screen(), &LoadOptions { stream: Some(1 << 20), ..options }).dataset;
        assert_eq!((&held.library, &held.gene_names), (&on_disk.library, &on_disk.gene_names));
        let cells: Vec<usize> = (0..held.n_cells()).collect();
        let mut rows = [Vec::new(), Vec::new()];
        for (data, rows) in [&held, &on_disk].into_iter().zip(&mut rows) {
            data.counts.visit(&cells, |n, row| row.for_each(|g, x| rows.push((n, g, x)))).unwrap();
        }
        assert_eq!(rows[0], rows[1]);
    }
    // Guides are called from their counts, as in a file of CellRanger.
    let called = LoadOptions { guide_threshold: Some(5), drop_unlabelled_cells: true, ..LoadOptions::default() };
    assert_eq!(read(&screen(), &called).dataset.intervention_names, ["g1", "g2"]);
}

#[test]
fn guides_among_the_genes_are_told() {
    let options = LoadOptions { control: controls(&["control"]), ..labelled("condition") };
    let Loaded { dataset, summary, .. } = read(&file("public/guides_as_genes.h5ad"), &options);
    assert_eq!(dataset.n_genes(), 12);
    said_so(&summary.warnings, "in the cells of one intervention and tell it by that (`g1`, `g2`)");
    let warnings = read(&screen(), &options).summary.warnings;
    assert!(!warnings.iter().any(|warning| warning.contains("tell it by that")), "{warnings:?}");
}

#[test]
fn barcodes_without_wells_are_not_guessed() {
    let folder = TempDir::new().unwrap();
    let labels = folder.path().join("labels.csv");
    let options = |labels: &Path| LoadOptions {
        labels: Some(labels.to_path_buf()),
        drop_unlabelled_cells: true,
        ..labelled("intervention")
    };
    let text = std::fs::read_to_string(file("labels.csv")).unwrap();
    std::fs::write(&labels, text.replace("-1,", ",").replace("-2,", ",")).unwrap();
    for name in ["tenx_v3.h5", "mtx_v3", "anndata0_12_csr_f32.h5ad"] {
        refused(
            &file(name),
            &options(&labels),
            &["labels.csv", "several wells (`-1`, `-2`)", "write the barcodes with the wells"],
        );
    }
    // Labels of one well: no cell of the other one gets any.
    let one: Vec<&str> = text.lines().filter(|line| !line.contains("-2,")).collect();
    std::fs::write(&labels, one.join("\n")).unwrap();
    let Loaded { dataset, notes, .. } = read(&file("tenx_v3.h5"), &options(&labels));
    assert!(dataset.n_cells() == 6 && dataset.cell_names.iter().all(|name| name.ends_with("-1")));
    said_so(&notes, "only cells of that GEM well are labelled");
}

#[test]
fn lists_name_whole_labels_files_and_patterns() {
    let dmso = "[('DMSO_TF', 0.0, 'uM')]";
    // As the command line cuts it.
    let cut: Vec<&str> = dmso.split(',').collect();
    for entries in [&cut[..], &[dmso], &["[('DMSO*"]] {
        let Loaded { dataset, summary, .. } =
            read(&screen(), &LoadOptions { control: controls(entries), ..labelled("drug") });
        assert_eq!((dataset.intervention_names.len(), summary.controls[0].label.as_str()), (2, dmso), "{entries:?}");
    }
    let misspelt = LoadOptions { control: controls(&["[('DMSO_TF'", " 0.1", " 'uM')]"]), ..labelled("drug") };
    refused(
        &screen(),
        &misspelt,
        &["no cell has the label \"[('DMSO_TF', 0.1, 'uM')]\"", "did you mean \"[('DMSO_TF', 0.0"],
    );
    let guides = LoadOptions { control: controls(&["non-targeting*"]), ..labelled("guide") };
    let Loaded { dataset, summary, .. } = read(&screen(), &guides);
    assert_eq!(dataset.intervention_names, ["JAK2_-_1.23-P1P2", "STAT1_+_1.23-P1P2"]);
    assert_eq!(summary.controls.len(), 4);
    refused(&screen(), &LoadOptions { control: controls(&["scramble*"]), ..labelled("guide") }, &["\"scramble*\""]);
    said_so(&read(&screen(), &labelled("guide")).summary.warnings, "--control \"non-targeting_*\"");
}

/// On the command line: the commands that take labels, and what `inspect` suggests.
#[test]
fn patterns_of_controls_leave_cells_under_interventions_alone() {
    let folder = TempDir::new().unwrap();
    let table = folder.path().join("calls.csv");
    let text = std::fs::read_to_string(file("labels.csv")).unwrap();
    let calls = ["NT_1", "NT_2|TP53", "KLF1", "NT_2", "NT_1|NT_2", "TP53"];
    let row = |(n, line): (usize, &str)| format!("{},{}\n", line.split(',').next().unwrap(), calls[n % 6]);
    let rows: String = text.lines().skip(1).enumerate().map(row).collect();
    std::fs::write(&table, format!("barcode,guide\n{rows}")).unwrap();
    let options = |control: &[&str]| LoadOptions {
        labels: Some(table.clone()),
        combination_separator: Some("|".into()),
        control: controls(control),
        ..labelled("guide")
    };
    let wanted = read(&file("tenx_v3.h5"), &options(&["NT_1", "NT_2"])).dataset;
    let found = read(&file("tenx_v3.h5"), &options(&["NT_*"])).dataset;
    assert_eq!((found.interventions.row(1).0.len(), found.interventions.row(4).0.len()), (1, 0));
    assert_eq!(found.interventions, wanted.interventions);
    // Guides by their counts likewise: g1 and g2 are in every cell of this file.
    let of_guides = LoadOptions { guide_threshold: Some(1), control: controls(&["g1*"]), ..LoadOptions::default() };
    let found = read(&file("tenx_v3.h5"), &of_guides).dataset;
    assert_eq!((found.intervention_names.join(" "), found.interventions.row(0).0.len()), ("g2".to_owned(), 1));
}

#[test]
fn commands_take_labels_with_commas() {
    let folder = TempDir::new().unwrap();
    let dmso = "[('DMSO_TF', 0.0, 'uM')]";
    let data = screen().display().to_string();
    std::fs::write(folder.path().join("control.txt"), format!("{dmso}\n")).unwrap();
    let small = ["--epochs", "1", "--latents", "2", "--hidden", "8", "--particles", "5", "--no-h5ad", "--overwrite"];
    for control in [dmso, "@control.txt"] {
        let args = ["run", "--data", &data, "--label-key", "drug", "--control", control, "--out", "r"];
        let (code, _, err) = said(&run(folder.path(), &[&args[..], &small].concat()));
        assert_eq!(code, 0, "{err}");
        let data: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("r/data.json")).unwrap()).unwrap();
        assert_eq!((&data["n_interventions"], &data["controls"][0]["label"]), (&2.into(), &dmso.into()));
    }
    let drug = "[('A', 5.0, 'uM')]";
    let args = ["run", "--data", &data, "--label-key", "drug", "--control", dmso, "--holdout", drug, "--out", "h"];
    let (code, _, err) = said(&run(folder.path(), &[&args[..], &small].concat()));
    assert_eq!(code, 0, "{err}");
    let args = ["sample", "--model", "r", "--intervention", drug, "--cells", "3", "--out", "s.csv"];
    let (code, _, err) = said(&run(folder.path(), &args));
    assert_eq!(code, 0, "{err}");
    let (code, out, _) = said(&run(folder.path(), &["inspect", &file("public/binary.h5ad").display().to_string()]));
    assert!(code == 0 && out.contains("--layer counts"), "{out}");
}

#[test]
fn genes_are_found_by_any_of_their_names() {
    let folder = TempDir::new().unwrap();
    let list = folder.path().join("genes.txt");
    let names = |data: &svae_cpu::data::dataset::Dataset| data.gene_names.join(" ");
    for text in
        ["GENE4\nGENE8\n", "ENSG00000000004\nENSG00000000008.3\n", "ENSG00000000004.2\nGENE8\nENSG00000000008.9\n"]
    {
        std::fs::write(&list, text).unwrap();
        let options = LoadOptions { genes: Some(list.clone()), drop_empty_cells: true, ..labelled("condition") };
        assert_eq!(names(&read(&screen(), &options).dataset), "ENSG00000000004.2 ENSG00000000008.3", "{text}");
        let options = LoadOptions { gene_names: Some("gene_symbols".into()), ..options };
        assert_eq!(names(&read(&screen(), &options).dataset), "GENE4 GENE8", "{text}");
    }
    // A gene without a symbol keeps its identifier.
    let symbols = LoadOptions { gene_names: Some("gene_symbols".into()), ..labelled("condition") };
    let dataset = read(&screen(), &symbols).dataset;
    assert_eq!(dataset.gene_names[..2], ["ENSG00000000000.1", "GENE1"]);
    let wrong = LoadOptions { gene_names: Some("gene_symbol".into()), ..labelled("condition") };
    refused(&screen(), &wrong, &["no column `gene_symbol` of the genes", "did you mean `gene_symbols`"]);
    // A model that knows symbols finds them.
    let model = LoadOptions { known_genes: dataset.gene_names.clone(), ..labelled("condition") };
    let Loaded { dataset: seen, notes, .. } = read(&screen(), &model);
    assert_eq!(seen.gene_names, dataset.gene_names);
    said_so(&notes, "as column `gene_symbols` of the genes has it");
}

#[test]
fn features_without_a_name_are_called_by_their_identifiers() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("matrix.mtx", "%%MatrixMarket matrix coordinate integer general\n3 2 3\n1 1 4\n2 2 5\n3 1 1\n");
    write("barcodes.tsv", "AA-1\nAC-1\n");
    write("features.tsv", "ENSG0\t\tGene Expression\nENSG1\tGAPDH\tGene Expression\nENSG2\t\tGene Expression\n");
    write("labels.csv", "barcode,label\nAA-1,a\nAC-1,b\n");
    let options = LoadOptions { labels: Some(folder.path().join("labels.csv")), ..labelled("label") };
    let Loaded { dataset, summary, .. } = read(folder.path(), &options);
    assert_eq!(dataset.gene_names, ["ENSG0", "GAPDH", "ENSG2"]);
    assert!(!summary.warnings.iter().any(|warning| warning.contains("names of genes")), "{:?}", summary.warnings);
}

#[test]
fn what_would_mislead_is_told_or_refused() {
    let warnings = read(&file("public/binary.h5ad"), &labelled("condition")).summary.warnings;
    said_so(&warnings, "binarised");
    said_so(&warnings, "--layer counts");
    let follows = LoadOptions { continuous_covariates: vec!["follows".into()], ..labelled("condition") };
    refused(&screen(), &follows, &["obs[\"follows\"]", "the decoder would see the answer"]);
    let folder = TempDir::new().unwrap();
    let cells = read(&screen(), &labelled("condition")).dataset.cell_names;
    let rows: Vec<String> = cells.iter().map(|cell| format!("{cell},all\n")).collect();
    std::fs::write(folder.path().join("labels.csv"), format!("barcode,label\n{}", rows.concat())).unwrap();
    let lone = LoadOptions { labels: Some(folder.path().join("labels.csv")), ..labelled("label") };
    said_so(&read(&screen(), &lone).summary.warnings, "nothing to compare them with");
}

/// Every column of the input comes back with its type, bytes and levels; columns of a table of labels are kept.
#[test]
fn results_keep_the_columns_of_the_input() {
    let folder = TempDir::new().unwrap();
    let small = ["--epochs", "1", "--latents", "2", "--hidden", "8", "--particles", "5", "--overwrite", "--quiet"];
    let data = screen().display().to_string();
    let args = ["run", "--data", &data, "--label-key", "condition", "--control", "control", "--out", "a"];
    let (code, _, err) = said(&run(folder.path(), &[&args[..], &small].concat()));
    assert_eq!(code, 0, "{err}");
    let (before, after) =
        (H5File::open(screen()).unwrap(), H5File::open(folder.path().join("a/results.h5ad")).unwrap());
    for name in [
        "z_first",
        "part/of",
        "condition/codes",
        "dose/categories",
        "dose/codes",
        "stimulated/categories",
        "stimulated/codes",
        "passed/values",
        "passed/mask",
        "n_guides/values",
        "n_guides/mask",
        "small",
        "single",
        "empty/codes",
        "svae_batch/codes",
    ] {
        let of = |file: &H5File| file.dataset(&format!("obs/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (before, after) = (of(&before), of(&after));
        // Truth values are bytes with a sign or without, which no reader minds.
        let is_flag = matches!(after.datatype().unwrap(), DatatypeMessage::Enum { .. });
        assert!(is_flag || before.datatype().unwrap() == after.datatype().unwrap(), "{name}");
        assert_eq!(before.read_raw_bytes().unwrap(), after.read_raw_bytes().unwrap(), "{name}");
    }
    let texts = |path: &str| after.dataset(path).unwrap().read_strings().unwrap();
    assert_eq!(texts("obs/missing_text")[..3], ["nan", "None", "NA"]);
    assert_eq!(texts("var/gene").len(), 9, "features that are no genes are left out");
    assert_eq!(texts("var/gene_symbols")[1], "GENE1");
    assert_eq!(texts("obs/cell_barcode")[0], "AAACAA-1");

    // Of a 10x file, its identifiers and all that the table says, with each control's own label.
    let (tenx, labels) = (file("tenx_v3.h5").display().to_string(), file("labels.csv").display().to_string());
    let args = ["run", "--data", &tenx, "--labels", &labels, "--label-key", "intervention", "--control", "control"];
    let (code, _, err) = said(&run(folder.path(), &[&args[..], &["--out", "b"], &small].concat()));
    assert_eq!(code, 0, "{err}");
    let after = H5File::open(folder.path().join("b/results.h5ad")).unwrap();
    let texts = |path: &str| after.dataset(path).unwrap().read_strings().unwrap();
    assert_eq!(texts("var/gene_ids")[..2], ["ENSG00000", "ENSG00001"]);
    assert_eq!(texts("obs/intervention/categories"), ["KLF1", "TP53", "control"]);
    assert_eq!(after.dataset("obs/depth").unwrap().read_numeric_as::<f64>().unwrap()[3], 3.5);
    assert_eq!(after.dataset("obs/gem_well").unwrap().read_numeric_as::<i64>().unwrap()[6], 2);
}

/// A folder with the files of `tests/formats/mtx_v2` under other names.
fn folder_of(names: [&str; 3]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let from = file("mtx_v2/GRCh38");
    for (name, source) in names.into_iter().zip(["matrix.mtx", "barcodes.tsv", "genes.tsv"]) {
        let text = std::fs::read_to_string(from.join(source)).unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn files_of_names_are_found_where_they_belong() {
    let options = LoadOptions { labels: Some(file("labels.csv")), ..labelled("intervention") };
    let wanted = read(&file("mtx_v2/GRCh38"), &options).dataset;
    for names in [
        ["GSE99_counts.mtx", "GSE99_barcodes.tsv", "GSE99_genes.tsv"],
        ["GSE99_raw.mtx", "GSE99_raw.barcodes.tsv", "GSE99_raw.genes.tsv"],
        ["matrix.mtx", "barcodes.txt", "genes.txt"],
        ["GSM100_s1-matrix.mtx", "GSM100_s1-barcodes.tsv", "GSE99_features.tsv"],
        ["x.mtx", "cells.txt", "x_gene_names.tsv"],
    ] {
        let folder = folder_of(names);
        let Loaded { dataset, notes, .. } = read(folder.path(), &options);
        assert_eq!((&dataset.counts, &dataset.gene_names), (&wanted.counts, &wanted.gene_names), "{names:?}");
        said_so(&notes, &format!("features are read from {}", names[2]));
    }
    // Of several samples, barcodes are never those of another one.
    let folder = folder_of(["GSM1_a.mtx", "GSM2_barcodes.tsv", "GSE9_features.tsv"]);
    std::fs::copy(folder.path().join("GSM1_a.mtx"), folder.path().join("GSM2_matrix.mtx")).unwrap();
    let one = folder.path().join("GSM1_a.mtx");
    refused(&one, &options, &["GSM1_a.mtx", "which file of barcodes", "`GSM2_barcodes.tsv`", "--barcodes"]);
    assert_eq!(read(&folder.path().join("GSM2_matrix.mtx"), &options).dataset.counts, wanted.counts);
    // Flags settle it.
    let folder = folder_of(["a.mtx", "one", "two"]);
    refused(folder.path(), &options, &["the file of its barcodes is missing", "--barcodes"]);
    let named = LoadOptions {
        barcodes: Some(folder.path().join("one")),
        features: Some(folder.path().join("two")),
        ..options.clone()
    };
    assert_eq!(read(folder.path(), &named).dataset.counts, wanted.counts);
    refused(&file("tenx_v3.h5"), &named, &["--barcodes has no effect on a 10x file"]);
}

#[test]
fn names_and_labels_as_r_writes_them() {
    let folder = folder_of(["matrix.mtx", "barcodes.tsv", "genes.tsv"]);
    let labels = std::fs::read_to_string(file("labels.csv")).unwrap();
    let table = folder.path().join("labels.txt");
    let rows =
        labels.lines().map(|line| line.split(',').map(|field| format!("\"{field}\"")).collect::<Vec<_>>().join(" "));
    let text = rows.collect::<Vec<_>>().join("\n").replace("\"barcode\" ", "");
    std::fs::write(&table, text).unwrap();
    let options = LoadOptions { labels: Some(table), ..labelled("intervention") };
    let wanted = read(folder.path(), &options).dataset;
    assert_eq!((wanted.n_cells(), wanted.intervention_names.join(" ")), (12, "KLF1 TP53 control".to_owned()));
    for header in ["", "\"x\"\n"] {
        for name in ["barcodes.tsv", "genes.tsv"] {
            let text = std::fs::read_to_string(file("mtx_v2/GRCh38").join(name)).unwrap();
            let quoted =
                |line: &str| line.split('\t').map(|field| format!("\"{field}\"")).collect::<Vec<_>>().join("\t") + "\n";
            let text: String = text.lines().map(quoted).collect();
            std::fs::write(folder.path().join(name), format!("{header}{text}")).unwrap();
        }
        let Loaded { dataset, notes, .. } = read(folder.path(), &options);
        assert_eq!((&dataset.cell_names, &dataset.gene_names), (&wanted.cell_names, &wanted.gene_names));
        assert_eq!(
            notes.iter().filter(|note| note.contains("taken for its header: `x`")).count(),
            2 * header.len().min(1)
        );
    }
}

#[test]
fn counts_of_starsolo() {
    let options = LoadOptions { labels: Some(file("labels.csv")), ..labelled("intervention") };
    let folder = folder_of(["UniqueAndMult-EM.mtx", "barcodes.tsv", "features.tsv"]);
    let path = folder.path().join("UniqueAndMult-EM.mtx");
    let text = std::fs::read_to_string(&path).unwrap();
    let wanted = read(&file("mtx_v2/GRCh38"), &options).dataset;
    for kind in ["float", "double", "real"] {
        std::fs::write(&path, text.replacen("integer", kind, 1)).unwrap();
        assert_eq!(read(folder.path(), &options).dataset.counts, wanted.counts, "{kind}");
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = format!("{}.25", lines[lines.len() - 1]);
    let fractions = [&lines[..lines.len() - 1], &[last.as_str()]].concat().join("\n");
    std::fs::write(&path, fractions.replacen("integer", "float", 1)).unwrap();
    refused(
        folder.path(),
        &options,
        &["not a whole number", "reads that map to several genes", "matrix.mtx of STARsolo"],
    );
}
