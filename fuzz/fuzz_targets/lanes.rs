//! A lane of any bytes beside a sound one: tables of counts with the same genes.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use svae_cpu::data::loading::load::LoadOptions;

fuzz_target!(|bytes: &[u8]| {
    common::with_file("second.csv", bytes, |second| {
        let first = second.with_file_name("first.csv");
        let sound = "barcode,perturbation,batch,GENE0,GENE1,GENE2\nAAAC-1,a,x,1,2,3\nAAAG-1,b,x,3,0,1\n";
        std::fs::write(&first, sound).expect("a file");
        let options = LoadOptions {
            label_key: Some("perturbation".into()),
            batch_key: Some("lane".into()),
            further_data: vec![second.to_path_buf()],
            drop_empty_cells: true,
            drop_unlabelled_cells: true,
            ..LoadOptions::default()
        };
        common::survives(&first, &options);
    });
});
