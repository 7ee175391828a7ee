//! NumPy archives.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use svae_cpu::data::loading::load::LoadOptions;

fuzz_target!(|bytes: &[u8]| {
    let options = LoadOptions { label_key: Some("label".into()), drop_empty_cells: true, ..LoadOptions::default() };
    common::with_file("screen.npz", bytes, |path| common::survives(path, &options));
});
