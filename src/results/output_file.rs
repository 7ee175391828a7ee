//! Files that a trained model writes on request: latents, expression, simulated cells, each as CSV, NumPy archive or AnnData.

use std::path::Path;

use crate::data::dataset::Dataset;
use crate::data::formats::anndata_writer::{AnnDataWriter, FrameColumn};
use crate::data::formats::npz::NpzWriter;
use crate::data::formats::write_npz;
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::numerics::real::Precision;
use crate::results::anndata::annotations;
use crate::system::files::write_atomically;

/// What was written into an output file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Cells written, or combinations where a file has means of them.
    pub n_cells: usize,
    /// Plain sentences for the user.
    pub notes: Vec<String>,
}

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

/// Writes the `latents` (cells x L) of `cells`; a NumPy archive holds them in the precision of their model.
///
/// # Errors
/// [`crate::Error::Io`] naming the file.
pub fn write_latents(
    out: &Path,
    kind: OutputKind,
    cells: &Dataset,
    latents: &[f64],
    n_latents: usize,
    precision: Precision,
) -> Result<()> {
    let (n, l) = (cells.n_cells(), n_latents);
    match kind {
        OutputKind::Csv => {
            let names: Vec<String> = (0..l).map(|k| format!("latent_{k}")).collect();
            write_table(out, &cells.cell_names, &names, |n, k| latents[n * l + k])
        }
        OutputKind::Npz => {
            let mut npz = NpzWriter::create(out)?;
            let single: Vec<f32> = latents.iter().map(|&z| z as f32).collect();
            match precision {
                Precision::F32 => npz.add_f32("latents", &[n, l], &single)?,
                Precision::F64 => npz.add_f64("latents", &[n, l], latents)?,
            }
            npz.add_strings("cells", &cells.cell_names)?;
            npz.finish()
        }
        OutputKind::H5ad => {
            let file = AnnDataWriter::create(out)?;
            file.counts("X", &cells.counts)?;
            file.frame("obs", &cells.cell_names, &[])?;
            file.frame("var", &cells.gene_names, &[])?;
            file.array_f32("obsm/X_svae", &[n, l], latents)?;
            file.finish()
        }
    }
}

/// Writes the expression `rates` (cells x genes) of some `genes`; AnnData also holds what is known of the cells if
/// `annotated` is set.
///
/// # Errors
/// [`crate::Error::Io`] naming the file.
pub fn write_expression(
    out: &Path,
    kind: OutputKind,
    cells: &Dataset,
    genes: &[String],
    rates: &[f32],
    annotated: bool,
) -> Result<()> {
    let (n, g) = (cells.n_cells(), genes.len());
    match kind {
        OutputKind::Csv => write_table(out, &cells.cell_names, genes, |n, i| f64::from(rates[n * g + i])),
        OutputKind::Npz => {
            let mut npz = NpzWriter::create(out)?;
            npz.add_f32("expression", &[n, g], rates)?;
            npz.add_strings("cells", &cells.cell_names)?;
            npz.add_strings("genes", genes)?;
            npz.finish()
        }
        OutputKind::H5ad => {
            let file = AnnDataWriter::create(out)?;
            file.array_single("X", &[n, g], rates)?;
            let obs = if annotated { annotations(cells) } else { Vec::new() };
            file.frame("obs", &cells.cell_names, &obs)?;
            file.frame("var", genes, &[])?;
            file.finish()
        }
    }
}

/// Writes simulated cells with their `latents` (cells x L); a table holds their counts alone.
///
/// # Errors
/// [`crate::Error::Io`] naming the file.
pub fn write_simulated(out: &Path, kind: OutputKind, cells: &Dataset, latents: &[f64], n_latents: usize) -> Result<()> {
    let (n, g) = (cells.n_cells(), cells.n_genes());
    match kind {
        OutputKind::Csv => {
            let mut dense = vec![0; n * g];
            for (cell, row) in dense.chunks_exact_mut(g).enumerate() {
                cells.counts.row(cell).for_each(|g, x| row[g] = x);
            }
            write_table(out, &cells.cell_names, &cells.gene_names, |n, i| f64::from(dense[n * g + i]))
        }
        OutputKind::Npz => write_npz(cells, out),
        OutputKind::H5ad => {
            let file = AnnDataWriter::create(out)?;
            file.counts("X", &cells.counts)?;
            let mut obs = annotations(cells);
            obs.push(("size_factor".to_owned(), FrameColumn::Numbers(cells.library.clone())));
            file.frame("obs", &cells.cell_names, &obs)?;
            file.frame("var", &cells.gene_names, &[])?;
            file.array_f32("obsm/X_svae", &[n, n_latents], latents)?;
            file.finish()
        }
    }
}

/// Writes a table with a row per cell.
fn write_table(path: &Path, rows: &Names, columns: &[String], value: impl Fn(usize, usize) -> f64) -> Result<()> {
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
