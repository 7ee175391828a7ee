//! Matrix-market folders: a matrix and the files that name its cells and features, each plain or gzip-compressed.

use std::path::{Path, PathBuf};

use crate::data::formats::column::Column;
use crate::data::formats::counts_sink::{CountsSink, EntrySink};
use crate::data::formats::features::TenxNames;
use crate::data::formats::matrix_market_names::{ListedNames, MAX_LINE, find_matrix, is_matrix};
use crate::data::formats::screen_file::{CellMatrix, OpenOptions, ScreenFile, StoredMatrix};
use crate::data::formats::text::{Lines, is_gzip, number, whole};
use crate::data::names::Names;
use crate::error::Result;

/// Entries looked at to tell what the matrix holds.
const SAMPLE: usize = 1 << 15;
/// Entries between two reports of progress.
const REPORT: u64 = 1 << 18;

/// A matrix with its names.
pub(crate) struct MatrixMarket {
    matrix: PathBuf,
    names: TenxNames,
    header: MatrixHeader,
    /// Whether rows are cells, rather than genes as CellRanger writes.
    rows_are_cells: bool,
    notes: Vec<String>,
}

/// What the first lines of a matrix say.
#[derive(Debug, Clone, Copy, PartialEq)]
struct MatrixHeader {
    real: bool,
    n_rows: usize,
    n_columns: usize,
    n_entries: u64,
}

impl MatrixMarket {
    /// Finds the three files of a folder, or those beside a matrix.mtx, and reads the names.
    ///
    /// # Errors
    /// [`InputError`] if one of them is absent or damaged, or if they do not fit together.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let matrix = if path.is_dir() { find_matrix(path)? } else { path.to_path_buf() };
        let mut lines = Lines::open(&matrix, MAX_LINE)?;
        let mut notes = Vec::new();
        let header = read_header(&mut lines)?;
        let listed = ListedNames::of(&matrix, [header.n_rows, header.n_columns], options, &mut notes)?;
        let ListedNames { barcodes, features, barcodes_path, features_path, columns_per_feature } = listed;
        let mut genes = features.genes(None).map_err(|error| error.in_file(&features_path))?;
        notes.append(&mut genes.notes);

        let (n_cells, n_features) = (barcodes.len(), genes.number.len());
        let rows_are_cells = match (header.n_rows, header.n_columns) {
            (rows, columns) if (rows, columns) == (n_features, n_cells) => false,
            (rows, columns) if (rows, columns) == (n_cells, n_features) => {
                notes.push("the matrix holds a cell per row; CellRanger writes a cell per column".to_string());
                true
            }
            (rows, columns)
                if columns_per_feature > 1 && (rows, columns) == (n_cells, columns_per_feature * n_features) =>
            {
                genes.repeat(columns_per_feature);
                notes.push(format!(
                    "the matrix holds spliced, unspliced and ambiguous counts of {n_features} genes beside each other (alevin-fry, USA \
                     mode); the counts of a gene are the sum of the three"
                ));
                true
            }
            (rows, columns) => {
                let problem =
                    format!("it is {rows} x {columns}, but there are {n_features} features and {n_cells} barcodes");
                let remedy = format!("check {} and {}", barcodes_path.display(), features_path.display());
                return Err(lines.fault(problem, remedy).into());
            }
        };
        Ok(Self { matrix, names: TenxNames::new(genes, barcodes), header, rows_are_cells, notes })
    }

    /// Whether a path is a folder, or a matrix of this kind by its name.
    pub fn recognises(path: &Path) -> bool {
        path.is_dir() || is_matrix(path)
    }

    /// Delivers every entry as cell, feature, value, with the bytes of the file read so far.
    fn read_entries(&self, mut entry: impl FnMut(i64, i64, f64, Option<u64>) -> Result<bool>) -> Result<()> {
        let mut lines = Lines::open(&self.matrix, MAX_LINE)?;
        let header = read_header(&mut lines)?;
        if header != self.header {
            return Err(lines.fault("it changed while it was read", "try again").into());
        }
        let mut n = 0;
        while let Some(line) = lines.next()? {
            let parsed = match parse_entry(line) {
                Some(parsed) => parsed,
                None if line.is_empty() => continue,
                None => return Err(lines.bad_line("it is no entry (row, column, value)").into()),
            };
            let (row, column, value) = parsed;
            n += 1;
            if n > header.n_entries {
                let problem = format!("more than the promised {} entries follow", header.n_entries);
                return Err(lines.bad_line(problem).into());
            }
            if row == 0 || column == 0 || row > header.n_rows as u64 || column > header.n_columns as u64 {
                let problem =
                    format!("row {row}, column {column} lies outside of {} x {}", header.n_rows, header.n_columns);
                return Err(lines.bad_line(problem).into());
            }
            let (cell, feature) = if self.rows_are_cells { (row, column) } else { (column, row) };
            let bytes = (n % REPORT == 0).then(|| lines.bytes());
            if !entry(cell as i64 - 1, feature as i64 - 1, value, bytes)? {
                return Ok(());
            }
        }
        if n < header.n_entries {
            let problem = format!("it ends after {n} of {} entries", header.n_entries);
            return Err(lines.fault(problem, "the file is truncated, copy or write it again").into());
        }
        Ok(())
    }

    /// Passes the cells in order; false as soon as they are found not to come in order.
    fn read_in_order(&self, sink: &mut CountsSink) -> Result<bool> {
        let mut told = 0;
        let mut in_order = true;
        self.read_entries(|cell, gene, value, bytes| {
            while (sink.n_ended() as i64) < cell {
                sink.end_cell()?;
            }
            in_order = sink.n_ended() as i64 == cell;
            if in_order {
                sink.push(gene, value)?;
            }
            if let Some(bytes) = bytes {
                sink.advance(bytes - told);
                told = bytes;
            }
            Ok(in_order)
        })?;
        while in_order && sink.n_ended() < sink.n_cells() {
            sink.end_cell()?;
        }
        Ok(in_order)
    }

    /// Passes all features to `sink`.
    fn read_features(&self, sink: &mut CountsSink) -> Result<()> {
        let length = std::fs::metadata(&self.matrix).map_or(0, |metadata| metadata.len());
        sink.expect_bytes(length);
        if self.read_in_order(sink)? {
            return Ok(());
        }
        // Sorted by gene, or not at all: entries are counted first, then put in their places.
        sink.reset();
        sink.expect_bytes(2 * length);
        sink.receive_unordered(|sink, entry: EntrySink| {
            let mut told = 0;
            self.read_entries(|cell, gene, value, bytes| {
                entry(cell, gene, value)?;
                if let Some(bytes) = bytes {
                    sink.advance(bytes - told);
                    told = bytes;
                }
                Ok(true)
            })
        })
    }
}

impl ScreenFile for MatrixMarket {
    fn path(&self) -> &Path {
        &self.matrix
    }

    fn format(&self) -> String {
        "matrix market".to_string()
    }

    fn shape(&self) -> Result<(usize, usize)> {
        Ok(self.names.shape())
    }

    fn cell_names(&self) -> Result<Option<Names>> {
        Ok(Some(self.names.cells()))
    }

    fn gene_names(&self) -> Result<Option<Vec<String>>> {
        Ok(Some(self.names.genes.names.clone()))
    }

    fn gene_columns(&self) -> Result<Vec<(String, Vec<String>)>> {
        Ok(self.names.gene_columns())
    }

    fn counts_place(&self) -> String {
        "matrix".to_string()
    }

    fn read_counts(&self, sink: &mut CountsSink) -> Result<()> {
        self.read_features(sink)
    }

    fn feature_numbers(&self) -> Option<&[i64]> {
        self.names.numbers()
    }

    fn guide_names(&self) -> &[String] {
        &self.names.genes.guides
    }

    fn guide_counts(&self) -> Result<Option<CellMatrix>> {
        self.names.genes.guide_counts(&self.names.cells(), (&self.matrix, "matrix"), |sink| self.read_features(sink))
    }

    fn column_names(&self) -> Result<Vec<String>> {
        Ok(self.names.column_names())
    }

    fn column_place(&self, name: &str) -> String {
        format!("column `{name}`")
    }

    fn column(&self, _name: &str, _label: bool) -> Result<Column> {
        Ok(self.names.gem_well())
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn matrices(&self) -> Result<Vec<StoredMatrix>> {
        let mut sample = Vec::new();
        self.read_entries(|_, _, value, _| {
            sample.push(value);
            Ok(sample.len() < SAMPLE)
        })?;
        Ok(vec![StoredMatrix {
            name: self.matrix.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            n_cells: self.names.shape().0,
            n_genes: self.names.genes.number.len(),
            storage: "coordinates",
            dtype: if self.header.real { "real" } else { "integer" }.to_string(),
            compression: is_gzip(&self.matrix).then(|| "gzip".to_string()),
            n_stored: Some(self.header.n_entries as usize),
            sample,
        }])
    }
}

fn read_header(lines: &mut Lines) -> Result<MatrixHeader> {
    let first = match lines.next()? {
        Some(line) => String::from_utf8_lossy(line).to_lowercase(),
        None => return Err(lines.fault("it is empty", "write it again").into()),
    };
    let words: Vec<&str> = first.split_whitespace().collect();
    let real = match words[..] {
        ["%%matrixmarket", "matrix", "coordinate", "integer", "general"] => false,
        // As the standard has it, and as STARsolo and others have it.
        ["%%matrixmarket", "matrix", "coordinate", "real" | "float" | "double", "general"] => true,
        ["%%matrixmarket", ..] => {
            let problem = format!("matrices of kind `{}` are not read", words[1..].join(" "));
            return Err(lines.fault(problem, "write it as coordinates of integers, general").into());
        }
        _ => return Err(lines.fault("it does not begin with %%MatrixMarket", "check the file").into()),
    };
    loop {
        let Some(line) = lines.next()? else {
            return Err(lines.fault("it ends before its size", "the file is truncated, copy or write it again").into());
        };
        if line.first() == Some(&b'%') || line.is_empty() {
            continue;
        }
        let numbers: Option<Vec<u64>> =
            std::str::from_utf8(line).ok().and_then(|line| line.split_whitespace().map(|n| n.parse().ok()).collect());
        return match numbers.as_deref() {
            // Indices are four bytes wide at most.
            Some(&[n_rows @ 0..=0xffff_ffff, n_columns @ 0..=0xffff_ffff, n_entries]) => {
                Ok(MatrixHeader { real, n_rows: n_rows as usize, n_columns: n_columns as usize, n_entries })
            }
            _ => Err(lines.bad_line("it should hold the numbers of rows, columns and entries").into()),
        };
    }
}

/// `row column value`, counted from 1.
fn parse_entry(line: &[u8]) -> Option<(u64, u64, f64)> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let (row, column, value) = (whole(words.next()?)?, whole(words.next()?)?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    Some((row, column, number(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_three_numbers() {
        assert_eq!(parse_entry(b"3 14 159"), Some((3, 14, 159.0)));
        assert_eq!(parse_entry(b" 3\t14  1.5e1 "), Some((3, 14, 15.0)));
        assert_eq!(parse_entry(b"1 2 -3"), Some((1, 2, -3.0)));
        for bad in [&b""[..], b"1 2", b"1 2 3 4", b"-1 2 3", b"1 x 3", b"1 2 x", b"99999999999999999999 1 1"] {
            assert_eq!(parse_entry(bad), None, "{bad:?}");
        }
    }
}
