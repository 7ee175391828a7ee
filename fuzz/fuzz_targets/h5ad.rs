//! AnnData files.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use svae_cpu::data::loading::load::LoadOptions;

fuzz_target!(|bytes: &[u8]| {
    let options = LoadOptions {
        label_key: Some("perturbation".into()),
        batch_key: Some("batch".into()),
        drop_empty_cells: true,
        drop_unlabelled_cells: true,
        ..LoadOptions::default()
    };
    common::with_file("screen.h5ad", bytes, |path| {
        for layer in [None, Some("counts".to_string()), Some("raw".to_string())] {
            common::survives(path, &LoadOptions { layer, ..options.clone() });
        }
    });
});
