//! `svae-cpu report`: writes the report of a results folder again.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;

/// Writes the report of a results folder from its other files, and returns where it lies.
///
/// # Errors
/// A folder without a run, or with damaged files; a failed write.
pub fn report(folder: &Path) -> Result<PathBuf> {
    let folder = ResultsFolder::open(folder)?;
    folder.write_report(None)?;
    Ok(folder.file(ResultsFile::Report))
}
