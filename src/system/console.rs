//! What the program says on its two standard streams.

use crate::words::timestamp;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crate::error::{Error, Result};

/// The last line on standard error of a program that failed or was stopped.
pub fn complaint(error: &Error) -> String {
    let (name, word) = match error {
        Error::Stopped(_) => ("stopped", ""),
        _ => ("error", "error: "),
    };
    match speaks_json() {
        true => event(name, None, serde_json::json!({ "message": error.to_string(), "exit_code": error.exit_code() })),
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

/// Format of standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line and event
    Json,
}

/// Whether the process writes JSON to standard error.
static JSON: AtomicBool = AtomicBool::new(false);

/// Chooses the format of everything that the process writes to standard error. To be called before any work is done.
pub fn choose_format(format: LogFormat) {
    JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// Whether the process writes JSON to standard error.
pub fn speaks_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// An event as a line of JSON: time, event, run, then its fields.
pub fn event(name: &str, run: Option<&str>, fields: Value) -> String {
    let mut object = serde_json::Map::new();
    object.insert("time".to_owned(), timestamp(SystemTime::now()).into());
    object.insert("event".to_owned(), name.into());
    if let Some(run) = run {
        object.insert("run".to_owned(), run.into());
    }
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    Value::Object(object).to_string()
}

/// Where a run reports what happens to it.
pub trait Console: std::fmt::Debug {
    /// Reports an event to programs; `fields` is an object. People do not see it.
    fn event(&self, name: &str, fields: Value);

    /// Prints a sentence.
    fn note(&self, text: &str);

    /// Warns of what may cost the user time or results; `text` is a sentence.
    fn warn(&self, text: &str);

    /// Whether events are shown; a sentence that says the same is then left out.
    fn shows_events(&self) -> bool;
}

/// Reports nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Console for Silent {
    fn event(&self, _: &str, _: Value) {}

    fn note(&self, _: &str) {}

    fn warn(&self, _: &str) {}

    fn shows_events(&self) -> bool {
        false
    }
}

/// A closed standard error must not end a training, so failures to write are ignored.
pub fn write_line(out: &mut impl Write, text: &str) {
    let _ = writeln!(out, "{text}");
}
