//! Damaged files of every format: refused in a sentence, or read if the damage does not matter; never a panic, a hang or
//! memory beyond what a sound file of that size could need.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rust_hdf5::H5File;
use svae_cpu::Error;
use svae_cpu::data::loading::inspect::inspect;
use svae_cpu::data::loading::load::{LoadOptions, load};
use tempfile::TempDir;

mod support;

/// Remembers the largest single allocation.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Far above what a file of 60 KB needs (blocks of 2^20 values of 8 bytes), far below what a lying header may ask for.
const MOST_BYTES: usize = 80 << 20;
const MOST_TIME: Duration = Duration::from_secs(20);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name)
}

fn with_labels() -> LoadOptions {
    LoadOptions {
        labels: Some(fixture("labels.csv")),
        label_key: Some("intervention".into()),
        drop_empty_cells: true,
        drop_unlabelled_cells: true,
        ..LoadOptions::default()
    }
}

/// Loads and inspects; whether it loaded.
fn survives(path: &Path, options: &LoadOptions) -> bool {
    let start = Instant::now();
    let loaded = match load(path, options) {
        Ok(loaded) => {
            assert!(loaded.dataset.n_cells() > 0 && loaded.dataset.library.iter().all(|x| *x > 0.0 && x.is_finite()));
            true
        }
        Err(Error::Input(error)) => {
            let text = error.to_string();
            assert!(error.file.is_some() && text.ends_with('.') && !error.remedy.is_empty(), "{text}");
            false
        }
        Err(Error::Io { .. }) => false,
        Err(other) => panic!("unexpected kind of error: {other}"),
    };
    drop(inspect(path, options.layer.as_deref(), options.genome.as_deref(), None));
    assert!(start.elapsed() < MOST_TIME, "{} took {:?}", path.display(), start.elapsed());
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < MOST_BYTES, "{}: {largest} bytes at once", path.display());
    loaded
}

/// Spoils `bytes` in many ways, and puts each at `path` for `check`.
fn spoil(bytes: &[u8], seed: u64, mut check: impl FnMut(&[u8])) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for n in 0..40 {
        check(&bytes[..bytes.len() * n / 40]);
    }
    for _ in 0..120 {
        let mut spoilt = bytes.to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            spoilt[at] ^= 1 << random.random_range(0..8);
        }
        check(&spoilt);
    }
    for _ in 0..60 {
        let mut spoilt = bytes.to_vec();
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..32)).min(bytes.len());
        spoilt[at..end].fill([0, 0xff, 0x7f][random.random_range(0..3)]);
        check(&spoilt);
    }
}

fn spoil_file(name: &str, options: &LoadOptions, seed: u64) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name.rsplit('/').next().unwrap());
    let good = std::fs::read(fixture(name)).unwrap();
    std::fs::write(&path, &good).unwrap();
    assert!(survives(&path, options), "{name}: the file to spoil is good");
    let mut refused = 0;
    spoil(&good, seed, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        refused += !survives(&path, options) as usize;
    });
    assert!(refused >= 36, "{name}: {refused} of 220 were refused, fewer than were truncated");
}

#[test]
fn spoilt_anndata() {
    let layer = LoadOptions { layer: Some("counts".into()), ..LoadOptions::default() };
    let raw = LoadOptions { layer: Some("raw".into()), ..LoadOptions::default() };
    let batch = LoadOptions { batch_key: Some("batch".into()), drop_unlabelled_cells: true, ..LoadOptions::default() };
    // Features that are no genes, names by a column, a column with a slash in its name.
    let public = LoadOptions {
        label_key: Some("condition".into()),
        gene_names: Some("gene_symbols".into()),
        continuous_covariates: vec!["part/of".into()],
        ..LoadOptions::default()
    };
    for (seed, (name, options)) in [
        ("anndata0_7_csc_gzip_i64.h5ad", &batch),
        ("anndata0_12_csr_lzf_u16.h5ad", &batch),
        ("anndata0_12_dense_tall_chunks.h5ad", &batch),
        ("anndata0_10_layers.h5ad", &layer),
        ("anndata0_8_layers.h5ad", &raw),
        ("anndata0_12_nullable.h5ad", &batch),
        ("public/screen.h5ad", &public),
    ]
    .into_iter()
    .enumerate()
    {
        spoil_file(name, options, seed as u64);
    }
}

#[test]
fn spoilt_10x_files() {
    let genome = LoadOptions { genome: Some("mm10".into()), ..with_labels() };
    spoil_file("tenx_v3.h5", &with_labels(), 10);
    spoil_file("tenx_v2.h5", &with_labels(), 11);
    spoil_file("tenx_v2_two_genomes.h5", &genome, 12);
    // An AnnData file of the oldest kind is refused, and stays refused.
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("old.h5ad");
    spoil(&std::fs::read(fixture("anndata0_6_dense_f32.h5ad")).unwrap(), 13, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        survives(&path, &LoadOptions::default());
    });
}

#[test]
fn spoilt_matrix_market_folders() {
    for (seed, (source, matrix)) in [
        ("mtx_v2/GRCh38", "matrix.mtx"),
        ("mtx_v3", "matrix.mtx.gz"),
        ("mtx_other", "GSM1_matrix.mtx"),
        ("kb_counts", "cells_x_genes.mtx"),
        ("alevin_fry/alevin", "quants_mat.mtx"),
        ("splitpipe", "DGE.mtx"),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = TempDir::new().unwrap();
        for entry in std::fs::read_dir(fixture(source)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let options = with_labels();
        assert!(survives(folder.path(), &options), "{source}");
        for name in support::names(folder.path()) {
            let path = folder.path().join(&name);
            let good = std::fs::read(&path).unwrap();
            let mut refused = 0;
            spoil(&good, 20 + seed as u64, |bytes| {
                std::fs::write(&path, bytes).unwrap();
                refused += !survives(folder.path(), &options) as usize;
            });
            assert!(refused >= 30, "{source}, {name}: {refused} were refused");
            std::fs::write(&path, &good).unwrap();
        }
        assert!(survives(&folder.path().join(matrix), &options), "{source} is whole again");
    }
}

#[test]
fn spoilt_mudata() {
    let options = LoadOptions {
        batch_key: Some("batch".into()),
        continuous_covariates: vec!["depth".into()],
        drop_unlabelled_cells: true,
        ..LoadOptions::default()
    };
    spoil_file("screen.h5mu", &options, 40);
    let guides = LoadOptions { guide_threshold: Some(5), drop_unlabelled_cells: true, ..LoadOptions::default() };
    spoil_file("screen.h5mu", &guides, 41);
}

#[test]
fn spoilt_lanes() {
    let folder = TempDir::new().unwrap();
    for entry in std::fs::read_dir(fixture("lanes/lane_2")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let options = LoadOptions {
        labels: Some(fixture("lanes/lane_1/labels.csv")),
        further_data: vec![folder.path().to_path_buf()],
        further_labels: vec![folder.path().join("labels.csv")],
        ..with_labels()
    };
    assert!(survives(&fixture("lanes/lane_1"), &options));
    for (seed, name) in support::names(folder.path()).into_iter().enumerate() {
        let path = folder.path().join(&name);
        let good = std::fs::read(&path).unwrap();
        let mut refused = 0;
        spoil(&good, 50 + seed as u64, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            refused += !survives(&fixture("lanes/lane_1"), &options) as usize;
        });
        assert!(refused >= 20, "{name}: {refused} were refused");
        std::fs::write(&path, &good).unwrap();
    }
}

#[test]
fn spoilt_archives_and_tables() {
    spoil_file("scipy_csc.npz", &LoadOptions::default(), 30);
    spoil_file("numpy_dense.npz", &LoadOptions::default(), 31);
    spoil_file("table_cells.csv", &LoadOptions::default(), 33);
    spoil_file("table_genes.tsv", &with_labels(), 34);
    spoil_file("table_genes.csv.gz", &with_labels(), 35);
    let folder = TempDir::new().unwrap();
    // As R writes it, below a comment.
    let labels = folder.path().join("labels_of_r.txt");
    let rows = std::fs::read_to_string(fixture("labels.csv")).unwrap();
    let of_r = format!("# by hand\n{}", rows.replace(',', " ").replacen("barcode ", "", 1));
    spoil(of_r.as_bytes(), 36, |bytes| {
        std::fs::write(&labels, bytes).unwrap();
        survives(&fixture("tenx_v3.h5"), &LoadOptions { labels: Some(labels.clone()), ..with_labels() });
    });
    let labels = folder.path().join("labels.csv");
    spoil(&std::fs::read(fixture("labels.csv")).unwrap(), 32, |bytes| {
        std::fs::write(&labels, bytes).unwrap();
        survives(&fixture("tenx_v3.h5"), &LoadOptions { labels: Some(labels.clone()), ..with_labels() });
    });
}

/// The message of a refusal.
#[track_caller]
fn refusal(path: &Path, options: &LoadOptions, parts: &[&str]) {
    match load(path, options) {
        Err(Error::Input(error)) => {
            let text = error.to_string();
            for part in parts {
                assert!(text.contains(part), "`{part}` is missing in: {text}");
            }
        }
        other => panic!("{:?}", other.map(|loaded| loaded.notes)),
    }
}

#[test]
fn headers_of_matrix_market_files() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("barcodes.tsv", b"AA-1\nAC-1\n");
    write("genes.tsv", b"E1\tG1\nE2\tG2\nE3\tG3\n");
    write("labels.csv", b"barcode,intervention\nAA-1,a\nAC-1,b\n");
    let options = LoadOptions { labels: Some(folder.path().join("labels.csv")), ..LoadOptions::default() };
    let head = "%%MatrixMarket matrix coordinate integer general\n";
    let cases: [(String, &[&str]); 15] = [
        (String::new(), &["empty"]),
        ("3 2 1\n1 1 1\n".into(), &["%%MatrixMarket"]),
        ("%%MatrixMarket matrix array real general\n3 2\n".into(), &["array real general"]),
        ("%%MatrixMarket matrix coordinate pattern general\n3 2 0\n".into(), &["pattern"]),
        ("%%MatrixMarket matrix coordinate integer symmetric\n3 2 0\n".into(), &["symmetric"]),
        (format!("{head}%\n"), &["ends before its size"]),
        (format!("{head}3 2\n"), &["line 2", "rows, columns and entries"]),
        (format!("{head}3 99999999999 1\n1 1 1\n"), &["line 2"]),
        (format!("{head}4 2 1\n1 1 1\n"), &["4 x 2", "3 features and 2 barcodes", "genes.tsv"]),
        (format!("{head}3 2 999999999999\n1 1 1\n"), &["ends after 1 of 999999999999 entries"]),
        (format!("{head}3 2 1\n1 1 1\n2 1 1\n"), &["line 4", "more than the promised 1"]),
        (format!("{head}3 2 1\n4 1 1\n"), &["line 3", "row 4, column 1"]),
        (format!("{head}3 2 1\n0 1 1\n"), &["line 3", "row 0"]),
        (format!("{head}3 2 1\n1 1 x\n"), &["line 3", "no entry"]),
        (format!("{head}3 2 2\n1 1 1\n2 2 -1\n"), &["cell 1 (`AC-1`)", "gene 1 (`G2`)", "below zero"]),
    ];
    for (text, parts) in &cases {
        write("matrix.mtx", text.as_bytes());
        refusal(folder.path(), &options, parts);
    }
    write("matrix.mtx", &[head.as_bytes(), &vec![b'%'; 1 << 20]].concat());
    refusal(folder.path(), &options, &["line 2", "too long"]);
    write("matrix.mtx", format!("{head}3 2 2\n1 1 5\n2 2 1\n").as_bytes());
    assert_eq!(load(folder.path(), &options).unwrap().dataset.library, [5.0, 1.0]);
    write("genes.tsv", b"E1\tG1\nE2\t\xff\nE3\tG3\n");
    refusal(folder.path(), &options, &["genes.tsv", "line 2", "UTF-8"]);
    std::fs::remove_file(folder.path().join("genes.tsv")).unwrap();
    refusal(folder.path(), &options, &["matrix.mtx", "features", "`genes.tsv`"]);
    write("two.mtx", b"");
    refusal(folder.path(), &options, &["several matrices", "`two.mtx`"]);
    refusal(&folder.path().join("nothing"), &options, &[]);
}

#[test]
fn hdf5_files_that_lack_something() {
    let folder = TempDir::new().unwrap();
    let make = |build: &dyn Fn(&H5File)| {
        let path = folder.path().join("made.h5");
        let file = H5File::create(&path).unwrap();
        build(&file);
        file.close().unwrap();
        path
    };
    let options = with_labels();
    let texts = |group: &rust_hdf5::H5Group, name: &str, texts: &[&str]| {
        group.write_vlen_strings(name, texts).unwrap();
    };
    let whole = |group: &rust_hdf5::H5Group, name: &str, values: &[i64]| {
        group.new_dataset::<i64>().shape([values.len()]).create(name).unwrap().write_raw(values).unwrap();
    };
    refusal(&make(&|_| {}), &options, &["neither an AnnData nor a 10x file"]);
    let path = make(&|file| texts(&file.create_group("other").unwrap(), "a", &["b"]));
    refusal(&path, &options, &["`other`"]);
    let tenx = |shape: &[i64], n_names: usize, indptr: &[i64]| {
        make(&|file| {
            let matrix = file.create_group("matrix").unwrap();
            let features = matrix.create_group("features").unwrap();
            texts(&features, "id", &["E1", "E2", "E3"]);
            texts(&features, "name", &["G1", "G2", "G3"][..n_names]);
            texts(&matrix, "barcodes", &["AAACAA-1", "AAACCA-1"]);
            whole(&matrix, "shape", shape);
            whole(&matrix, "indptr", indptr);
            whole(&matrix, "indices", &[0, 2]);
            whole(&matrix, "data", &[1, 2]);
        })
    };
    assert!(load(&tenx(&[3, 2], 3, &[0, 1, 2]), &options).is_ok());
    refusal(&tenx(&[3, 2], 2, &[0, 1, 2]), &options, &["3 identifiers for 2 features"]);
    refusal(&tenx(&[2, 2], 3, &[0, 1, 2]), &options, &["matrix/shape", "[2, 2]"]);
    refusal(&tenx(&[3, i64::MAX], 3, &[0, 1, 2]), &options, &["matrix/shape"]);
    refusal(&tenx(&[3, 2], 3, &[0, 2]), &options, &["`indptr` has 2 values for 2 cells"]);
    refusal(&tenx(&[3, 2], 3, &[0, 3, 2]), &options, &["`indptr` falls", "AAACCA-1"]);
    let path = make(&|file| {
        let matrix = file.create_group("matrix").unwrap();
        texts(&matrix, "barcodes", &["AAACAA-1"]);
    });
    refusal(&path, &options, &["matrix/features/id", "missing"]);
    let path = make(&|file| whole(&file.create_group("GRCh38").unwrap(), "barcodes", &[1]));
    refusal(&path, &options, &["GRCh38/genes", "missing"]);

    // A name that is no UTF-8.
    let path = make(&|file| {
        for table in ["obs", "var"] {
            let group = file.create_group(table).unwrap();
            group.set_attr_string("_index", "_index").unwrap();
            texts(&group, "_index", &["first", if table == "obs" { "cell" } else { "secondgene" }]);
        }
        texts(&file.root_group().group("obs").unwrap(), "label", &["c", "d"]);
        file.new_dataset::<f32>().shape([2, 2]).create("X").unwrap().write_raw(&[1f32; 4]).unwrap();
    });
    let options = LoadOptions { label_key: Some("label".into()), ..LoadOptions::default() };
    assert_eq!(load(&path, &options).unwrap().dataset.gene_names[1], "secondgene");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(10).position(|window| window == b"secondgene").unwrap();
    bytes[at] = 0xff;
    std::fs::write(&path, bytes).unwrap();
    refusal(&path, &options, &["var[\"_index\"]", "entry 1 is not valid UTF-8"]);
}

#[test]
fn the_program_ends_with_exit_code_2() {
    let folder = TempDir::new().unwrap();
    let good = std::fs::read(fixture("tenx_v3.h5")).unwrap();
    std::fs::write(folder.path().join("cut.h5"), &good[..good.len() / 2]).unwrap();
    std::fs::write(folder.path().join("empty.mtx"), b"").unwrap();
    for args in [
        &["inspect", "cut.h5"][..],
        &["inspect", "nowhere"],
        &["inspect", "empty.mtx"],
        &["run", "--data", "cut.h5", "--label-key", "x"],
        &["run", "--data", ".", "--label-key", "x"],
    ] {
        let (code, out, err) = support::said(&support::run(folder.path(), args));
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.starts_with("error: ") && !err.contains("panicked"), "{args:?}: {err}");
        assert!(err.contains(args[args.len() - 1]) || err.contains("cut.h5") || err.contains("matrix.mtx"), "{err}");
    }
}
