//! MuData files.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use svae_cpu::data::loading::load::LoadOptions;

fuzz_target!(|bytes: &[u8]| {
    let options = LoadOptions { drop_empty_cells: true, drop_unlabelled_cells: true, ..LoadOptions::default() };
    let labelled = LoadOptions {
        label_key: Some("perturbation".into()),
        continuous_covariates: vec!["depth".into()],
        ..options.clone()
    };
    common::with_file("screen.h5mu", bytes, |path| {
        for options in [labelled, LoadOptions { guide_threshold: Some(5), ..options }] {
            common::survives(path, &options);
        }
    });
});
