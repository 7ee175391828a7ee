//! Lists of barcodes, as text or as R writes them, beside a matrix-market file of 11 features and 12 cells.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use svae_cpu::data::loading::load::LoadOptions;

fuzz_target!(|bytes: &[u8]| {
    common::with_file("GSE1_barcodes.txt", bytes, |path| {
        let beside = |name: &str, text: String| std::fs::write(path.with_file_name(name), text).expect("a file");
        let head = "%%MatrixMarket matrix coordinate float general\n11 12 12\n";
        let entries: String = (1..=12).map(|n| format!("{} {n} {n}\n", 1 + n % 11)).collect();
        beside("GSE1_counts.mtx", format!("{head}{entries}"));
        beside("GSE1_genes.tsv", (0..11).map(|g| format!("\"ID{g}\"\t\"GENE{g}\"\n")).collect());
        let label_key = Some("gem_well".into());
        let folder = path.parent().expect("a folder");
        common::survives(folder, &LoadOptions { label_key, drop_empty_cells: true, ..LoadOptions::default() });
    });
});
