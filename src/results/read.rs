//! Reading the files of a results folder back, with sentences for those that are missing or damaged.

use std::path::Path;

use crate::error::{Error, InputError, Result};

/// A file that holds something else than the run wrote.
pub(super) fn damaged(path: &Path, problem: &str) -> InputError {
    InputError::new(problem, "restore the file, or repeat the run with `svae-cpu run` on the folder's config.toml")
        .in_file(path)
}

/// A file that is not there.
pub(super) fn missing(path: &Path) -> InputError {
    InputError::new("there is no such file", "name the folder of a finished run of this version").in_file(path)
}

/// The text of a file.
pub(super) fn text(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Err(missing(path).into()),
        Err(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            Err(damaged(path, "it is not valid UTF-8").into())
        }
        Err(source) => Err(Error::io("reading", path, source)),
    }
}

/// The object in a file of JSON.
pub(crate) fn json(path: &Path) -> Result<serde_json::Value> {
    let value: serde_json::Value =
        serde_json::from_str(&text(path)?).map_err(|e| damaged(path, &format!("it is not valid JSON ({e})")))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(damaged(path, "it holds no JSON object").into()),
    }
}

/// Header and rows of a CSV table.
pub(super) fn rows(path: &Path) -> Result<(csv::StringRecord, Vec<csv::StringRecord>)> {
    let content = text(path)?;
    let mut table = csv::Reader::from_reader(content.as_bytes());
    let bad = |e: csv::Error| damaged(path, &format!("it is no table ({e})"));
    let header = table.headers().map_err(bad)?.clone();
    let rows = table.into_records().collect::<Result<_, csv::Error>>().map_err(bad)?;
    Ok((header, rows))
}

/// The number in a field of a table, in its row after the header counted from 0.
pub(super) fn number(path: &Path, row: usize, text: &str) -> Result<f64> {
    let value = text.parse::<f64>().ok();
    Ok(value.ok_or_else(|| damaged(path, "it holds text where a number belongs").at(format!("row {}", row + 2)))?)
}
