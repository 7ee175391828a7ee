//! Reads screens, and checks what is said of them.

use std::path::Path;

use svae_cpu::Error;
use svae_cpu::data::loading::load::{LoadOptions, Loaded, load};

/// What is read of a file.
#[track_caller]
pub fn read(path: &Path, options: &LoadOptions) -> Loaded {
    load(path, options).unwrap_or_else(|error| panic!("{error}"))
}

/// Asserts that a file is refused as input, with a message that has all these parts.
#[track_caller]
pub fn refused(path: &Path, options: &LoadOptions, parts: &[&str]) {
    let error = load(path, options).map(drop).expect_err("refused");
    let message = error.to_string();
    assert!(matches!(error, Error::Input(_)), "{message}");
    parts.iter().for_each(|part| assert!(message.contains(part), "`{part}` is missing in: {message}"));
}

/// Asserts that one of some sentences has this part.
#[track_caller]
pub fn said_so(sentences: &[String], part: &str) {
    assert!(sentences.iter().any(|sentence| sentence.contains(part)), "`{part}` is missing in {sentences:?}");
}
