//! Matrix-market files of 11 features and 12 barcodes.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use svae_cpu::data::loading::load::LoadOptions;

fuzz_target!(|bytes: &[u8]| {
    common::with_file("matrix.mtx", bytes, |path| {
        let beside = |name: &str, text: String| std::fs::write(path.with_file_name(name), text).expect("a file");
        beside("barcodes.tsv", (0..12).map(|n| format!("BARCODE{n}-{}\n", 1 + n % 2)).collect());
        beside("features.tsv", (0..11).map(|g| format!("ID{g}\tGENE{g}\tGene Expression\n")).collect());
        let label_key = Some("gem_well".into());
        common::survives(path, &LoadOptions { label_key, drop_empty_cells: true, ..LoadOptions::default() });
    });
    // Spliced, unspliced and ambiguous counts of four genes beside each other.
    common::with_file("quants_mat.mtx", bytes, |path| {
        let beside = |name: &str, text: String| std::fs::write(path.with_file_name(name), text).expect("a file");
        beside("quants_mat_rows.txt", (0..12).map(|n| format!("BARCODE{n}-{}\n", 1 + n % 2)).collect());
        beside("quants_mat_cols.txt", (0..4).map(|g| format!("ID{g}\n")).collect());
        let label_key = Some("gem_well".into());
        common::survives(path, &LoadOptions { label_key, drop_empty_cells: true, ..LoadOptions::default() });
    });
});
