//! Feature-barcode matrices of 10x Genomics.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use svae_cpu::data::loading::load::LoadOptions;

fuzz_target!(|bytes: &[u8]| {
    common::with_file("screen.h5", bytes, |path| {
        for genome in [None, Some("mm10".to_string())] {
            // The GEM well stands for the label.
            let label_key = Some("gem_well".into());
            common::survives(path, &LoadOptions { genome, label_key, drop_empty_cells: true, ..LoadOptions::default() });
        }
    });
});
