//! Files of every format, written by the tools that people use (tests/formats/README.md), give the same screen.

use std::path::{Path, PathBuf};

use svae_cpu::Error;
use svae_cpu::data::dataset::Dataset;
use svae_cpu::data::formats::npz::{Npz, NpzWriter};
use svae_cpu::data::loading::load::{LoadOptions, Loaded, load};
use tempfile::TempDir;

use crate::support::{names, run, said};

const N_CELLS: usize = 12;
const N_GENES: usize = 9;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name)
}

/// The counts that the script writes.
fn count(n: usize, g: usize) -> u32 {
    if (n, g) == (3, 4) {
        return 4664;
    }
    if (n + 2 * g).is_multiple_of(3) { 0 } else { ((7 * n + 5 * g * g + n * g) % 11) as u32 }
}

fn label(n: usize) -> &'static str {
    ["control", "TP53", "KLF1"][n % 3]
}

fn table(dataset: &Dataset) -> Vec<Vec<u32>> {
    (0..dataset.n_cells())
        .map(|n| {
            let mut row = vec![0; dataset.n_genes()];
            dataset.counts.row(n).for_each(|g, x| row[g] = x);
            row
        })
        .collect()
}

fn expected() -> Vec<Vec<u32>> {
    (0..N_CELLS).map(|n| (0..N_GENES).map(|g| count(n, g)).collect()).collect()
}

fn labels(dataset: &Dataset) -> Vec<&str> {
    let name = |n| dataset.interventions.single(n).map_or("", |a| dataset.intervention_names[a].as_str());
    (0..dataset.n_cells()).map(name).collect()
}

#[track_caller]
fn read(name: &str, options: &LoadOptions) -> Loaded {
    load(&file(name), options).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[track_caller]
fn refused(name: &str, options: &LoadOptions, parts: &[&str]) {
    let error = load(&file(name), options).map(drop).expect_err(name);
    let message = error.to_string();
    assert!(matches!(error, Error::Input(_)), "{message}");
    for part in parts.iter().chain([&name.rsplit('/').next().unwrap()]) {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
}

#[track_caller]
fn is_the_screen(name: &str, dataset: &Dataset) {
    assert_eq!(table(dataset), expected(), "{name}");
    assert_eq!(labels(dataset), (0..N_CELLS).map(label).collect::<Vec<_>>(), "{name}");
    assert_eq!(&dataset.cell_names[0], "AAACAA-1", "{name}");
    assert_eq!(dataset.gene_names[..3], ["GENE0", "GENE1", "GENE2"], "{name}");
    let total = |n: usize| (0..N_GENES).map(|g| count(n, g)).sum::<u32>() as f64;
    assert_eq!(dataset.library, (0..N_CELLS).map(total).collect::<Vec<_>>(), "{name}");
}

#[test]
fn anndata_of_every_version_and_layout() {
    let options = LoadOptions {
        batch_key: Some("batch".into()),
        categorical_covariates: vec!["lane".into(), "passed".into()],
        continuous_covariates: vec!["ncounts".into()],
        ..LoadOptions::default()
    };
    let mut n_files = 0;
    let mut names: Vec<String> = std::fs::read_dir(file(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".h5ad"))
        .collect();
    names.sort();
    for name in &names {
        // Text of variable length within records cannot be read: the message says what to do.
        if name.contains("0_6") {
            refused(name, &options, &["obs[\"index\"]", "AnnData 0.7 or newer", "write it again"]);
            continue;
        }
        if ["layers", "nullable", "tall_chunks"].iter().any(|other| name.contains(other)) {
            continue;
        }
        let Loaded { dataset, summary, .. } = read(name, &options);
        is_the_screen(name, &dataset);
        let [batch, lane, passed] = &dataset.covariates.categorical[..] else { panic!("{name}") };
        assert_eq!((batch.levels[1].as_str(), batch.codes[..3].to_vec()), ("b1", vec![0, 1, 0]), "{name}");
        assert_eq!((lane.levels.join(","), lane.codes[5]), ("0,1,2,3".into(), 1), "{name}");
        assert_eq!((passed.levels.join(","), passed.codes[..4].to_vec()), ("False,True".into(), vec![1, 0, 0, 1]));
        assert_eq!(dataset.covariates.continuous[0].values[11], 11.5, "{name}");
        assert!(summary.format.starts_with("AnnData") && summary.matrix == "X", "{summary:?}");
        n_files += 1;
    }
    assert!(n_files >= 24, "only {n_files} files were read: {names:?}");
}

#[test]
fn half_precision_in_tall_chunks() {
    let dataset = read("anndata0_12_dense_tall_chunks.h5ad", &LoadOptions::default()).dataset;
    let mut wanted = expected();
    wanted[3][4] = 2048;
    assert_eq!(table(&dataset), wanted);
}

#[test]
fn layers_and_raw() {
    for version in ["0_7", "0_8", "0_10", "0_12"] {
        let name = &format!("anndata{version}_layers.h5ad");
        let layer = |layer: &str| LoadOptions { layer: Some(layer.into()), ..LoadOptions::default() };
        for known in ["counts", "dense"] {
            let loaded = read(name, &layer(known));
            is_the_screen(name, &loaded.dataset);
            assert_eq!(loaded.summary.matrix, format!("layers[\"{known}\"]"));
        }
        let raw = read(name, &layer("raw")).dataset;
        assert_eq!(raw.gene_names.last().unwrap(), "GENE10");
        let wide: Vec<Vec<u32>> = expected().into_iter().map(|row| [&row[..], &row[..2]].concat()).collect();
        assert_eq!(table(&raw), wide, "{name}");
        refused(name, &layer("absent"), &["no layer `absent`", "`X`", "`counts`", "`dense`", "`raw`"]);
        // X holds logarithms: the message says where the counts are.
        for options in [LoadOptions::default(), layer("X")] {
            refused(name, &options, &["not a whole number", "X, cell 0", "`counts`, `dense`, `raw`", "--layer counts"]);
        }
    }
}

#[test]
fn nullable_columns() {
    for version in ["0_8", "0_10", "0_12"] {
        let name = &format!("anndata{version}_nullable.h5ad");
        refused(name, &LoadOptions::default(), &["1 of 12 cells", "cell 5", "--drop-unlabelled-cells"]);
        let options = LoadOptions { drop_unlabelled_cells: true, ..LoadOptions::default() };
        let Loaded { dataset, notes, summary } = read(name, &options);
        let mut wanted = expected();
        wanted.remove(5);
        assert_eq!(table(&dataset), wanted);
        assert_eq!(dataset.cell_names.len(), 11);
        assert!(notes.iter().any(|note| note.contains("dropped 1 of 12 cells because they have no")), "{notes:?}");
        assert_eq!((summary.dropped[0].what, summary.dropped[0].n), ("cells", 1));
        for column in ["whole", "flag"] {
            let options = LoadOptions { batch_key: Some(column.into()), ..options.clone() };
            refused(name, &options, &[column, "1 of 11 cells have no value", "cell 2"]);
        }
    }
    let options = LoadOptions { batch_key: Some("text".into()), ..LoadOptions::default() };
    refused("anndata0_12_nullable_strings.h5ad", &options, &["text", "1 of 12 cells have no value", "cell 2"]);
}

#[test]
fn guides_of_every_format() {
    let in_file = LoadOptions { guide_key: Some("batch".into()), ..LoadOptions::default() };
    let in_table = LoadOptions { guide_key: Some("batch".into()), ..with_labels() };
    let stream = LoadOptions { stream: Some(1 << 20), ..in_file.clone() };
    for (name, options) in [
        ("anndata0_7_csr_f32.h5ad", &in_file),
        ("anndata0_12_csr_f32.h5ad", &in_file),
        ("anndata0_12_csr_f32.h5ad", &stream),
        ("table_cells.csv", &in_file),
        ("tenx_v3.h5", &in_table),
        ("mtx_v3", &in_table),
        ("table_genes.tsv", &in_table),
        ("scipy_csr.npz", &in_table),
    ] {
        let Loaded { dataset, summary, .. } = read(name, options);
        let guides = dataset.guides.as_ref().expect(name);
        assert_eq!((guides.name.as_str(), guides.names.join(",")), ("batch", "b0,b1".into()), "{name}");
        assert_eq!(guides.codes, (0..N_CELLS).map(|n| Some(n as u32 % 2)).collect::<Vec<_>>(), "{name}");
        assert!(dataset.covariates.categorical.is_empty(), "{name}");
        assert_eq!(summary.guides.iter().map(|guide| guide.n_cells).collect::<Vec<_>>(), [6, 6], "{name}");
    }
    // A cell may lack one, and cells that are left out take theirs along.
    let some = LoadOptions { guide_key: Some("text".into()), ..LoadOptions::default() };
    let guides = read("anndata0_12_nullable_strings.h5ad", &some).dataset.guides.expect("guides");
    assert_eq!(guides.codes.iter().position(Option::is_none), Some(2));
    assert_eq!(guides.codes.iter().flatten().count(), N_CELLS - 1);
    let fewer = LoadOptions { drop_unlabelled_cells: true, guide_key: Some("flag".into()), ..LoadOptions::default() };
    let dataset = read("anndata0_12_nullable.h5ad", &fewer).dataset;
    assert_eq!((dataset.n_cells(), dataset.guides.expect("guides").codes.len()), (N_CELLS - 1, N_CELLS - 1));
    let absent = LoadOptions { guide_key: Some("sgRNA".into()), ..LoadOptions::default() };
    refused("anndata0_12_csr_f32.h5ad", &absent, &["sgRNA", "there is no such column", "`batch`"]);
}

fn with_labels() -> LoadOptions {
    LoadOptions { labels: Some(file("labels.csv")), label_key: Some("intervention".into()), ..LoadOptions::default() }
}

#[test]
fn files_of_cellranger() {
    for name in ["tenx_v2.h5", "tenx_v3.h5", "tenx_v3_barnyard.h5", "mtx_v2/GRCh38", "mtx_v3", "mtx_other"] {
        let options = LoadOptions { batch_key: Some("batch".into()), ..with_labels() };
        let Loaded { dataset, summary, notes } = read(name, &options);
        is_the_screen(name, &dataset);
        // The second GENE2 gets an ending.
        assert_eq!(dataset.gene_names[8], "GENE2-1", "{name}");
        assert!(summary.warnings.iter().any(|warning| warning.contains("`GENE2`")), "{:?}", summary.warnings);
        assert_eq!(dataset.covariates.categorical[0].codes[..3], [0, 1, 0], "{name}");
        let guides = notes.iter().any(|note| note.contains("2 features of type CRISPR Guide Capture"));
        assert_eq!(guides, name.ends_with("v3") || name == "tenx_v3.h5", "{name}: {notes:?}");
        // Barcodes end in -1 and -2: the GEM well is a column.
        let wells = LoadOptions { batch_key: Some("gem_well".into()), ..with_labels() };
        let wells = read(name, &wells).dataset.covariates.categorical.remove(0);
        assert_eq!((wells.levels.join(","), wells.codes[5], wells.codes[6]), ("1,2".into(), 0, 1), "{name}");
        refused(name, &LoadOptions::default(), &[]);
    }
    refused("tenx_v3.h5", &LoadOptions::default(), &["`gem_well`", "--label-key"]);
}

#[test]
fn a_file_of_several_genomes() {
    let genome = |genome: &str| LoadOptions { genome: Some(genome.into()), ..with_labels() };
    refused("tenx_v2_two_genomes.h5", &with_labels(), &["`GRCh38`, `mm10`", "--genome"]);
    refused("tenx_v2_two_genomes.h5", &genome("hg19"), &["`hg19`", "`GRCh38`, `mm10`"]);
    is_the_screen("GRCh38", &read("tenx_v2_two_genomes.h5", &genome("GRCh38")).dataset);
    let mouse = read("tenx_v2_two_genomes.h5", &genome("mm10")).dataset;
    assert_eq!(table(&mouse)[0], expected()[0].iter().map(|x| x + 1).collect::<Vec<_>>());
    let options = LoadOptions { drop_empty_cells: true, ..genome("mm10") };
    let mouse = read("tenx_v3_barnyard.h5", &options).dataset;
    assert_eq!((mouse.n_genes(), mouse.gene_names[0].as_str()), (4, "GENE5"));
    refused("mtx_v3", &genome("GRCh38"), &["--genome"]);
}

#[test]
fn numpy_archives() {
    for name in ["scipy_csr.npz", "scipy_csc.npz", "numpy_dense.npz"] {
        let dataset = read(name, &LoadOptions::default()).dataset;
        assert_eq!(table(&dataset), expected(), "{name}");
        assert_eq!(labels(&dataset), (0..N_CELLS).map(label).collect::<Vec<_>>(), "{name}");
    }
}

/// Either side of a plain table may be the cells, and fields may be separated and quoted as people like.
#[test]
fn plain_tables_of_counts() {
    // Columns of text annotate the cells of the rows.
    let options = LoadOptions { batch_key: Some("batch".into()), ..LoadOptions::default() };
    let Loaded { dataset, summary, notes } = read("table_cells.csv", &options);
    is_the_screen("table_cells.csv", &dataset);
    assert_eq!(dataset.covariates.categorical[0].codes[..3], [0, 1, 0]);
    assert!(summary.format.contains("`,`") && notes.iter().any(|note| note == "its rows are cells"), "{notes:?}");
    // The labels tell which side is the cells; here the header is one field short.
    for name in ["table_genes.tsv", "table_genes.csv.gz"] {
        let Loaded { dataset, summary, notes } = read(name, &with_labels());
        is_the_screen(name, &dataset);
        assert_eq!(dataset.gene_names[8], "GENE2-1", "{name}");
        assert!(summary.warnings.iter().any(|warning| warning.contains("`GENE2`")), "{:?}", summary.warnings);
        assert!(notes.iter().any(|note| note == "its rows are genes"), "{notes:?}");
    }

    let folder = TempDir::new().unwrap();
    let cells = std::fs::read_to_string(file("table_cells.csv")).unwrap();
    let genes = std::fs::read_to_string(file("table_genes.tsv")).unwrap();
    for (name, text) in [
        ("bom.csv", format!("\u{feff}{}", cells.replace('\n', "\r\n"))),
        ("semicolons.TXT", cells.replace(',', ";")),
        ("blanks.csv", cells.replace(',', " , ") + "\n\n"),
        ("no_end.csv", cells.trim_end().to_string()),
        ("spaces.txt", genes.replace('\t', " ")),
        ("bare.tsv", genes.replace('"', "")),
        ("corner.tsv", format!("\"gene\"\t{genes}")),
        ("whole_reals.tsv", genes.replace("\t4664", "\t4664.0")),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        // What the barcodes look like tells the sides apart without any label.
        let bare = load(&path, &LoadOptions { unlabelled: true, ..LoadOptions::default() });
        assert_eq!(table(&bare.unwrap_or_else(|error| panic!("{name}: {error}")).dataset), expected(), "{name}");
        let loaded = load(&path, &with_labels()).unwrap_or_else(|error| panic!("{name}: {error}"));
        is_the_screen(name, &loaded.dataset);
    }
    // A column of numbers annotates the cells where it is named.
    let numbered = cells.replace(",b0,", ",0,").replace(",b1,", ",1,");
    std::fs::write(folder.path().join("numbered.csv"), numbered).unwrap();
    let dataset = load(&folder.path().join("numbered.csv"), &options).unwrap().dataset;
    is_the_screen("numbered.csv", &dataset);
    assert_eq!(dataset.covariates.categorical[0].levels, ["0", "1"]);
    let found = svae_cpu::data::loading::inspect::inspect(&file("table_cells.csv"), None, None, None).unwrap();
    assert_eq!((found.n_cells, found.n_genes, found.matrices[0].storage.as_str()), (N_CELLS, N_GENES, "dense"));
    assert!(found.matrices[0].is_counts && found.matrices[0].largest == 4664.0);
    assert!(
        found.command.ends_with("--label-key perturbation --control control --batch-key batch"),
        "{}",
        found.command
    );
}

#[test]
fn labels_from_a_table_without_header() {
    let options = LoadOptions { labels: Some(file("labels_without_header.tsv")), ..LoadOptions::default() };
    let message = load(&file("tenx_v3.h5"), &options).unwrap_err().to_string();
    assert!(message.contains("4 of 12 cells") && message.contains("labels_without_header.tsv"), "{message}");
    let options = LoadOptions { drop_unlabelled_cells: true, ..options };
    let dataset = read("tenx_v3.h5", &options).dataset;
    assert_eq!(table(&dataset), expected()[..8]);
    // The table's columns come before those of the file.
    let options = LoadOptions { continuous_covariates: vec!["depth".into()], ..with_labels() };
    let dataset = read("anndata0_12_csr_f32.h5ad", &options).dataset;
    assert_eq!(dataset.covariates.continuous[0].values[3], 3.5);
}

#[test]
fn controls_have_no_intervention() {
    let options = LoadOptions { control: vec!["control".into()], ..LoadOptions::default() };
    let Loaded { dataset, summary, .. } = read("anndata0_12_csr_f32.h5ad", &options);
    assert_eq!(dataset.intervention_names, ["KLF1", "TP53"]);
    let rows: Vec<Option<usize>> = (0..4).map(|n| dataset.interventions.single(n)).collect();
    assert_eq!(rows, [None, Some(1), Some(0), None]);
    assert!(dataset.interventions.row(0).0.is_empty());
    assert_eq!((summary.controls[0].label.as_str(), summary.controls[0].n_cells), ("control", 4));
    let hint = |summary: &svae_cpu::data::loading::load::DataSummary| {
        summary.warnings.iter().any(|warning| warning.contains("looks like a control"))
    };
    assert!(!hint(&summary) && hint(&read("anndata0_12_csr_f32.h5ad", &LoadOptions::default()).summary));
    let misspelt = LoadOptions { control: vec!["controll".into()], ..LoadOptions::default() };
    refused("anndata0_12_csr_f32.h5ad", &misspelt, &["\"controll\"", "did you mean \"control\""]);
    let all = LoadOptions { control: ["control", "TP53", "KLF1"].map(String::from).to_vec(), ..LoadOptions::default() };
    refused("anndata0_12_csr_f32.h5ad", &all, &["every labelled cell is a control"]);
}

#[test]
fn chosen_genes_and_cells() {
    let folder = TempDir::new().unwrap();
    let list = folder.path().join("genes.txt");
    // By name and by identifier, one of them unknown.
    std::fs::write(&list, "GENE4\nENSG00001\nGENE99\n\nGENE8\n").unwrap();
    let options = LoadOptions { genes: Some(list.clone()), drop_empty_cells: true, ..LoadOptions::default() };
    for name in ["anndata0_12_csr_f32.h5ad", "anndata0_12_csc_i32.h5ad", "anndata0_12_dense_f32.h5ad"] {
        let Loaded { dataset, notes, summary } = read(name, &options);
        assert_eq!(dataset.gene_names, ["GENE1", "GENE4", "GENE8"], "{name}");
        let wanted: Vec<Vec<u32>> = (0..N_CELLS)
            .map(|n| [1, 4, 8].map(|g| count(n, g)).to_vec())
            .filter(|row| row.iter().sum::<u32>() > 0)
            .collect();
        assert_eq!(table(&dataset), wanted, "{name}");
        assert_eq!(dataset.library[0], wanted[0].iter().sum::<u32>() as f64);
        assert!(notes.iter().any(|note| note.contains("1 of 4 listed genes") && note.contains("GENE99")), "{notes:?}");
        assert!(summary.dropped.iter().any(|dropped| (dropped.what, dropped.n) == ("genes", 6)), "{summary:?}");
    }
    std::fs::write(&list, "ABC\n").unwrap();
    let message =
        load(&file("tenx_v3.h5"), &LoadOptions { genes: Some(list), ..with_labels() }).unwrap_err().to_string();
    assert!(message.contains("genes.txt") && message.contains("none of its 1 genes"), "{message}");

    let few = LoadOptions { min_counts: 40, ..LoadOptions::default() };
    let total = |n: usize| (0..N_GENES).map(|g| count(n, g)).sum::<u32>();
    let dataset = read("anndata0_12_csr_f32.h5ad", &few).dataset;
    let kept = (0..N_CELLS).filter(|&n| total(n) >= 40).count();
    assert!(kept < N_CELLS && dataset.n_cells() == kept, "{kept}");
    let none = LoadOptions { min_counts: 5000, ..LoadOptions::default() };
    refused("anndata0_12_csr_f32.h5ad", &none, &["5000", "--min-counts"]);

    let rare = LoadOptions {
        labels: Some(file("labels_without_header.tsv")),
        drop_unlabelled_cells: true,
        min_cells_per_label: 3,
        ..LoadOptions::default()
    };
    // 3 cells of control and of TP53, 2 of KLF1.
    let Loaded { dataset, summary, .. } = read("tenx_v3.h5", &rare);
    assert_eq!(dataset.intervention_names, ["TP53", "control"]);
    let dropped: Vec<_> = summary.dropped.iter().map(|dropped| (dropped.what, dropped.n)).collect();
    assert_eq!(dropped, [("cells", 4), ("interventions", 1), ("cells", 2)]);
    let rare = LoadOptions { min_cells_per_label: 9, ..rare };
    let message = load(&file("tenx_v3.h5"), &rare).unwrap_err().to_string();
    assert!(message.contains("--min-cells-per-label"), "{message}");
}

/// scanpy's own choice, from its counts.
#[test]
fn variable_genes_are_those_of_scanpy() {
    let reference = Npz::open(file("variable_genes.npz")).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("counts.npz");
    let (shape, x) = reference.array_f64("x").unwrap();
    let batch = reference.array_i64("batch").unwrap().1;
    let mut npz = NpzWriter::create(&path).unwrap();
    npz.add_f64("x", &shape, &x).unwrap();
    npz.add_i64("batch", &[shape[0]], &batch).unwrap();
    npz.add_strings("label", &(0..shape[0]).map(|n| format!("l{}", n % 2)).collect::<Vec<_>>()).unwrap();
    npz.finish().unwrap();
    for (name, batch_key) in [("plain", None), ("batch", Some("batch".to_string()))] {
        for n_top in [20, 60] {
            let options =
                LoadOptions { top_genes: Some(n_top), batch_key: batch_key.clone(), ..LoadOptions::default() };
            let dataset = load(&path, &options).unwrap().dataset;
            let found: Vec<i64> = dataset.gene_names.iter().map(|name| name[5..].parse().unwrap()).collect();
            let wanted = reference.array_i64(&format!("{name}_{n_top}")).unwrap().1;
            assert_eq!(found, wanted, "{name}, {n_top}");
        }
    }
}

/// A run with controls: no row for them in the masks, and what was read is saved.
#[test]
fn a_run_with_controls() {
    let folder = TempDir::new().unwrap();
    let simulate = ["simulate", "--out", "s.npz", "--sim-interventions", "4", "--sim-cells", "20", "--sim-genes", "12"];
    let (code, _, err) = said(&run(folder.path(), &simulate));
    assert_eq!(code, 0, "{err}");
    let common = ["run", "--data", "s.npz", "--epochs", "1", "--latents", "2", "--hidden", "8", "--particles", "5"];
    let more = ["--control", "intervention_0", "--holdout", "intervention_2", "--top-genes", "9", "--out", "r"];
    let (code, _, err) = said(&run(folder.path(), &[&common[..], &more].concat()));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("dropped 3 of 12 genes because they are not among the 9 most variable"), "{err}");
    assert!(names(&folder.path().join("r")).contains(&"data.json".to_string()));
    let masks = std::fs::read_to_string(folder.path().join("r/masks.csv")).unwrap();
    let rows: Vec<&str> = masks.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(rows, ["intervention_1", "intervention_2", "intervention_3"]);
    let data: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("r/data.json")).unwrap()).unwrap();
    assert_eq!(data["controls"][0]["label"], "intervention_0");
    let report = std::fs::read_to_string(folder.path().join("r/report.html")).unwrap();
    for line in ["Control, under no intervention: intervention_0", "because they are not among the 9 most variable"] {
        assert!(report.contains(line), "the report does not say: {line}");
    }
    assert_eq!((&data["n_genes_read"], &data["n_genes"]), (&12.into(), &9.into()));
    assert_eq!(data["dropped"][0]["what"], "genes");
    let (code, _, err) = said(&run(folder.path(), &["evaluate", "r", "--quiet"]));
    assert_eq!(code, 0, "{err}");
}
