//! Plain tables of counts.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use svae_cpu::data::loading::load::LoadOptions;

fuzz_target!(|bytes: &[u8]| {
    let labels = Some(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/formats/labels.csv"));
    for (name, labels) in [("table.csv", None), ("table.tsv", labels), ("table.csv.gz", None)] {
        let options = LoadOptions {
            unlabelled: labels.is_none(),
            labels,
            drop_empty_cells: true,
            drop_unlabelled_cells: true,
            ..LoadOptions::default()
        };
        common::with_file(name, bytes, |path| common::survives(path, &options));
    }
});
