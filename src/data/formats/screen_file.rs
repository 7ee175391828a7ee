//! What every file format provides: the counts, the names of cells and genes, and columns that annotate the cells.

use std::path::{Path, PathBuf};

use crate::data::counts::row_source::RowSource;
use crate::data::formats::column::Column;
use crate::data::formats::counts_sink::CountsSink;
use crate::data::formats::frame::{Frame, FrameColumn};
use crate::data::names::Names;
use crate::error::{InputError, Result};

/// A format of data files: a row of [`FORMATS`](crate::data::formats::FORMATS).
pub(crate) struct Format {
    /// In sentences: "a NumPy archive".
    pub name: &'static str,
    /// Endings of its names, for people; none for folders.
    pub endings: &'static str,
    /// Whether a path is to be read as this format, by its name or its contents; asked in the order of the table.
    pub recognises: fn(&Path) -> bool,
    /// Opens a file of this format.
    pub open: fn(&Path, &OpenOptions) -> Result<Box<dyn ScreenFile>>,
    /// Whether `--layer` names one of several matrices.
    pub takes_layer: bool,
    /// Whether `--genome` names one of several genomes.
    pub takes_genome: bool,
    /// Whether `--modality` names one of several modalities.
    pub takes_modality: bool,
    /// Whether names are in files of their own, which `--barcodes` and `--features` name.
    pub takes_names: bool,
}

/// What there is to say about a file before it is opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenOptions<'a> {
    /// Matrix to read, where there are several.
    pub layer: Option<&'a str>,
    /// Genome to read, where there are several.
    pub genome: Option<&'a str>,
    /// Modality to read, where there are several.
    pub modality: Option<&'a str>,
    /// File of the barcodes, where it is one of its own.
    pub barcodes: Option<&'a Path>,
    /// File of the features, likewise.
    pub features: Option<&'a Path>,
    /// Table of the labels of the cells.
    pub labels: Option<&'a Path>,
    /// Further files of the same screen.
    pub further: &'a [PathBuf],
    /// A table of labels for each file, where there is more than one.
    pub lane_labels: Vec<&'a Path>,
    /// Columns that are to annotate the cells.
    pub columns: Vec<&'a str>,
    /// What further such columns begin with.
    pub beginnings: Vec<&'a str>,
}

impl OpenOptions<'_> {
    /// Whether the column `name`, one of `columns`, is to annotate the cells.
    pub fn names_column(&self, name: &str, columns: &[String]) -> bool {
        let begins = |beginning: &&str| match columns.iter().any(|column| column == beginning) {
            true => name == *beginning,
            false => !beginning.is_empty() && name.starts_with(*beginning),
        };
        self.columns.contains(&name) || self.beginnings.iter().any(begins)
    }
}

/// Whether the name of a file ends in one of `endings` (in small letters), whatever its own letters.
pub(crate) fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    endings.iter().any(|ending| name.ends_with(ending))
}

/// A file that holds a screen.
pub(crate) trait ScreenFile {
    /// The file.
    fn path(&self) -> &Path;
    /// Name of the format, for people.
    fn format(&self) -> String;
    /// Numbers of cells and genes.
    fn shape(&self) -> Result<(usize, usize)>;
    /// Names of the cells, if stored.
    fn cell_names(&self) -> Result<Option<Names>>;
    /// Names of the genes, if stored.
    fn gene_names(&self) -> Result<Option<Vec<String>>>;
    /// Columns of text that annotate the genes, such as identifiers (Ensembl) and symbols; empty where a gene has none.
    fn gene_columns(&self) -> Result<Vec<(String, Vec<String>)>> {
        Ok(Vec::new())
    }
    /// Number among the genes of each column of the stored matrix, -1 if it is none; `None` if all are genes.
    fn feature_numbers(&self) -> Option<&[i64]> {
        None
    }
    /// Where the counts are, for messages.
    fn counts_place(&self) -> String;
    /// Passes every cell to `sink`, in order.
    fn read_counts(&self, sink: &mut CountsSink) -> Result<()>;
    /// A reader of any of the cells, for counts that stay in the file.
    fn rows(&self) -> Result<Box<dyn RowSource>> {
        let problem = format!("the counts of a file of this kind ({}) cannot stay on disk", self.format());
        let remedy = "write it as AnnData (.h5ad) with the counts by cell, or leave out --stream";
        Err(InputError::new(problem, remedy).in_file(self.path()).into())
    }
    /// Names of the columns that annotate cells.
    fn column_names(&self) -> Result<Vec<String>>;
    /// Where a column is, for messages.
    fn column_place(&self, name: &str) -> String;
    /// One column; `label` says that it is read as the intervention.
    fn column(&self, name: &str, label: bool) -> Result<Column>;
    /// Everything that annotates the cells, which are called `names`, for being copied.
    fn cell_frame(&self, names: Names) -> Result<Frame> {
        let column = |name: String| {
            let column = FrameColumn::of(self.column(&name, false).ok()?);
            (column.len() == names.len()).then_some((name, column))
        };
        let columns = self.column_names()?.into_iter().filter_map(column).collect();
        Ok(Frame { index: None, names, columns })
    }
    /// Everything that annotates the genes, which are called `names`, for being copied.
    fn gene_frame(&self, names: Names) -> Result<Frame> {
        let columns = self.gene_columns()?.into_iter().map(|(name, texts)| (name, FrameColumn::Strings(texts)));
        Ok(Frame { index: None, columns: columns.collect(), names })
    }
    /// Names of the matrices with a row per cell beside the counts (`obsm` of AnnData).
    fn cell_matrix_names(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    /// One of these matrices.
    fn cell_matrix(&self, name: &str) -> Result<CellMatrix> {
        let problem = format!("there is no matrix `{name}` of the cells");
        Err(InputError::new(problem, "name columns of the cells").in_file(self.path()).into())
    }
    /// Names of the guides among the features.
    fn guide_names(&self) -> &[String] {
        &[]
    }
    /// Counts of the guides among the features, if there are any.
    fn guide_counts(&self) -> Result<Option<CellMatrix>> {
        Ok(None)
    }
    /// A column that holds size factors even if none is named.
    fn stored_library(&self) -> Option<&'static str> {
        None
    }
    /// The truth of a simulation, if stored.
    fn truth(&self) -> Result<Option<RawTruth>> {
        Ok(None)
    }
    /// What was left out or chosen on the way in, as plain sentences.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
    /// Every matrix that could hold counts, for `inspect`; the one that is read comes first.
    fn matrices(&self) -> Result<Vec<StoredMatrix>>;
}

/// A matrix with a row per cell and named columns.
#[derive(Debug, Default)]
pub(crate) struct CellMatrix {
    /// Names of the columns.
    pub names: Vec<String>,
    /// Column and value of every entry of each cell that is not zero, by column.
    pub rows: Vec<Vec<(u32, f64)>>,
}

impl CellMatrix {
    /// The `n_rows` x `names.len()` values of a dense matrix, row-major.
    pub fn from_dense(names: Vec<String>, n_rows: usize, values: &[f64]) -> Self {
        let of_row = |row: &[f64]| (0_u32..).zip(row.iter().copied()).filter(|(_, x)| *x != 0.0).collect();
        let rows = match names.len() {
            0 => vec![Vec::new(); n_rows],
            n_columns => values.chunks(n_columns).map(of_row).collect(),
        };
        Self { names, rows }
    }
}

/// A matrix as `inspect` shows it.
#[derive(Debug)]
pub(crate) struct StoredMatrix {
    /// Its name, as `--layer` takes it where there are several.
    pub name: String,
    pub n_cells: usize,
    pub n_genes: usize,
    /// "dense", "CSR", "CSC", ...
    pub storage: &'static str,
    pub dtype: String,
    pub compression: Option<String>,
    /// Stored values, if sparse.
    pub n_stored: Option<usize>,
    /// Some of its values.
    pub sample: Vec<f64>,
}

/// True latents and prior means as stored, each with its shape.
#[derive(Debug)]
pub(crate) struct RawTruth {
    pub latents: (Vec<usize>, Vec<f64>),
    pub prior_means: (Vec<usize>, Vec<f64>),
    /// 1 for each cell that escaped its intervention, 0 for the others.
    pub escaped: Option<Vec<f64>>,
}
