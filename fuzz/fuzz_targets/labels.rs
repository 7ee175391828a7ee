//! Tables of labels beside a screen of 12 barcodes.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use svae_cpu::data::loading::load::LoadOptions;

fuzz_target!(|bytes: &[u8]| {
    let screen = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/formats/tenx_v2.h5");
    common::with_file("labels.csv", bytes, |path| {
        let labels = Some(path.to_path_buf());
        let options = LoadOptions { labels, drop_unlabelled_cells: true, drop_empty_cells: true, ..LoadOptions::default() };
        common::survives(&screen, &options);
    });
});
