//! Files that a trained model writes on request: their kinds by name, and plain tables.

use std::path::Path;

use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::system::files::write_atomically;

/// Kind of file that results are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Comma-separated values.
    Csv,
    /// NumPy archive.
    Npz,
    /// AnnData.
    H5ad,
}

impl OutputKind {
    /// The kind that the name of a file says.
    ///
    /// # Errors
    /// [`InputError`] for another ending; for a file that exists, unless `overwrite` is set; for a folder that does not.
    pub fn check(path: &Path, overwrite: bool) -> Result<Self> {
        let refused = |problem: &str, remedy: &str| InputError::new(problem, remedy).in_file(path).at("--out");
        let kind = match path.extension().and_then(|ending| ending.to_str()).map(str::to_lowercase).as_deref() {
            Some("csv") => OutputKind::Csv,
            Some("npz") => OutputKind::Npz,
            Some("h5ad") => OutputKind::H5ad,
            _ => {
                return Err(refused(
                    "files of this kind are not written",
                    "name a file that ends in .csv, .npz or .h5ad",
                )
                .into());
            }
        };
        if path.is_dir() {
            return Err(refused("this is a folder", "name a file").into());
        }
        if path.exists() && !overwrite {
            return Err(refused("the file exists", "choose another --out, or add --overwrite to replace it").into());
        }
        if let Some(folder) = path.parent()
            && !folder.as_os_str().is_empty()
            && !folder.is_dir()
        {
            return Err(refused("its folder does not exist", "create the folder first").into());
        }
        Ok(kind)
    }
}

/// Writes a table with a row per cell.
pub(crate) fn write_table(
    path: &Path,
    rows: &Names,
    columns: &[String],
    value: impl Fn(usize, usize) -> f64,
) -> Result<()> {
    write_atomically(path, |file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_field("cell")?;
        table.write_record(columns)?;
        for (n, name) in rows.iter().enumerate() {
            table.write_field(name)?;
            for i in 0..columns.len() {
                // Single precision is what the model computes in; more digits would be noise.
                table.write_field((value(n, i) as f32).to_string())?;
            }
            table.write_record(None::<&[u8]>)?;
        }
        table.flush()
    })
}
