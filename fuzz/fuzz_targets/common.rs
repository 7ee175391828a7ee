//! What the targets share: a file with the bytes, and a load that must end in a data set or in a sentence.

use std::path::Path;

use svae_cpu::Error;
use svae_cpu::data::loading::inspect::inspect;
use svae_cpu::data::loading::load::{LoadOptions, load};

/// Calls `check` with a file of that name that holds `bytes`.
pub fn with_file(name: &str, bytes: &[u8], check: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file");
    check(&path);
}

/// Loads and inspects; a panic is a finding, and so is an error without file or remedy.
pub fn survives(path: &Path, options: &LoadOptions) {
    match load(path, options) {
        Ok(loaded) => assert!(loaded.dataset.n_cells() > 0),
        Err(Error::Input(error)) => assert!(error.file.is_some() && !error.remedy.is_empty(), "{error}"),
        Err(_) => {}
    }
    drop(inspect(path, options.layer.as_deref(), options.genome.as_deref(), None));
}
