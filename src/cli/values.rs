//! Values that flags give, checked.

use crate::error::{InputError, Result};
use crate::system::files::with_files;

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
    Ok(with_files(entries).map_err(|(path, source)| {
        let remedy = "name a text file with one name per line after @";
        InputError::new(format!("the file {} cannot be read: {source}", path.display()), remedy).at(flag)
    })?)
}
