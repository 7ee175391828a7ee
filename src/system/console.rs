//! What the program says on its two standard streams.

use std::io::Write;

use crate::display::progress;
use crate::error::{Error, Result};

/// What is said on standard error at the end of a program that did not do all that it was asked for.
pub fn complaint(error: &Error) -> String {
    let (name, word) = match error {
        Error::Stopped(_) => ("stopped", ""),
        _ => ("error", "error: "),
    };
    match progress::speaks_json() {
        true => progress::event(
            name,
            None,
            serde_json::json!({ "message": error.to_string(), "exit_code": error.exit_code() }),
        ),
        false => format!("{word}{error}"),
    }
}

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
