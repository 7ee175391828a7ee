//! What a run leaves behind and shows: the results folder, metrics, tables and progress.

pub(crate) mod anndata;
pub mod graph;
mod html;
pub mod manifest;
pub mod metrics;
pub mod progress;
pub mod results;
pub mod table;
pub mod tables;
pub mod verification;

use std::io::Write;

use crate::error::{Error, Result};

/// Prints `text` and a line break on standard output; a reader that has gone away (`| head`) is no error.
///
/// # Errors
/// [`Error::Io`] when standard output cannot be written for another reason.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("writing", "standard output", error))
        }
        _ => Ok(()),
    }
}
