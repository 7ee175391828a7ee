//! Values that flags give, checked.

use crate::error::{InputError, Result};

/// A whole number given by a flag.
pub(crate) fn in_range(value: i64, low: i64, high: i64, flag: &str) -> Result<usize> {
    match (low..=high).contains(&value) {
        true => Ok(value as usize),
        false => {
            let remedy = format!("give a whole number from {low} to {high}");
            Err(InputError::new(format!("{value} is out of range"), remedy).at(flag).into())
        }
    }
}

/// Names given by a flag, with every entry `@file` replaced by the lines of that file; `@@name` is the name `@name`.
pub(crate) fn listed(entries: &[String], flag: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in entries {
        if let Some(name) = entry.strip_prefix("@@") {
            names.push(format!("@{name}"));
        } else if let Some(path) = entry.strip_prefix('@') {
            let text = std::fs::read_to_string(path).map_err(|source| {
                let remedy = "name a text file with one name per line after @";
                InputError::new(format!("the file {path} cannot be read: {source}"), remedy).at(flag)
            })?;
            names.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        } else {
            names.push(entry.clone());
        }
    }
    names.retain(|name| !name.is_empty());
    Ok(names)
}
