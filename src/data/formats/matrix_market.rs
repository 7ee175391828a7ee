//! Matrix-market folders: matrix.mtx, barcodes.tsv, features.tsv or genes.tsv, each plain or gzip-compressed.

use std::path::{Path, PathBuf};

use crate::data::formats::column::Column;
use crate::data::formats::counts_sink::{CountsSink, EntrySink};
use crate::data::formats::features::{Features, TenxNames};
use crate::data::formats::screen_file::{CellMatrix, OpenOptions, ScreenFile, StoredMatrix, has_ending};
use crate::data::formats::text::{Lines, is_gzip, number, whole};
use crate::data::names::Names;
use crate::error::{Error, InputError, Result};
use crate::words::first_few;

/// Longest line read, in bytes.
const MAX_LINE: usize = 1 << 16;
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
        let mut found = |given: Option<&Path>, names: &NameFiles| match given {
            Some(given) => Ok(given.to_path_buf()),
            None => names.beside(&matrix, &mut notes),
        };
        let barcodes_path = found(options.barcodes, &BARCODES)?;
        let features_path = found(options.features, &FEATURES)?;
        let header = read_header(&mut lines)?;
        let (mut barcodes, mut rows) = (read_table(&barcodes_path)?, read_table(&features_path)?);
        // A list of names may have a header, where it has a line too many for the matrix.
        for (table, names, path) in [(&mut barcodes, &BARCODES, &barcodes_path), (&mut rows, &FEATURES, &features_path)]
        {
            let too_many =
                table.len().checked_sub(1).filter(|n| [header.n_rows, header.n_columns].contains(n)).is_some();
            let fits = [header.n_rows, header.n_columns].contains(&table.len());
            if too_many && !fits && names.is_header(&table[0]) {
                notes.push(format!(
                    "the first line of {} is taken for its header: {}",
                    path.display(),
                    first_few(&table[0])
                ));
                table.remove(0);
            }
        }
        let barcodes: Vec<String> = barcodes.into_iter().map(|mut line| line.swap_remove(0)).collect();
        let mut features = Features::default();
        for line in rows {
            let mut fields = line.into_iter();
            let id = fields.next().unwrap_or_default();
            features.names.push(fields.next().unwrap_or_else(|| id.clone()));
            features.ids.push(id);
            features.kinds.push(fields.next().unwrap_or_default());
        }
        let mut genes = features.genes(None).map_err(|error| error.in_file(&features_path))?;
        notes.append(&mut genes.notes);

        let (n_cells, n_features) = (barcodes.len(), genes.number.len());
        let rows_are_cells = match (header.n_rows, header.n_columns) {
            (rows, columns) if (rows, columns) == (n_features, n_cells) => false,
            (rows, columns) if (rows, columns) == (n_cells, n_features) => {
                notes.push("the matrix holds a cell per row; CellRanger writes a cell per column".to_string());
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

fn is_matrix(path: &Path) -> bool {
    has_ending(path, &[".mtx", ".mtx.gz"])
}

/// The matrix of a folder: the one file whose name ends in matrix.mtx or matrix.mtx.gz, else in .mtx or .mtx.gz.
fn find_matrix(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("reading", folder, e))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_matrix(path)).collect();
    files.sort();
    let refused = |problem: String, remedy: &str| InputError::new(problem, remedy).in_file(folder);
    match &files[..] {
        [file] => Ok(file.clone()),
        [] => {
            let remedy =
                "name a folder with matrix.mtx, barcodes.tsv and features.tsv (each may be .gz), or a data file";
            Err(refused("this is a folder, and there is no matrix.mtx in it".to_string(), remedy).into())
        }
        files => {
            let names: Vec<String> =
                files.iter().filter_map(|path| path.file_name()?.to_str().map(str::to_string)).collect();
            let problem = format!("the folder holds several matrices: {}", first_few(&names));
            Err(refused(problem, "name one of these files; its barcodes and features are those with the same prefix")
                .into())
        }
    }
}

/// The files that name one side of a matrix.
struct NameFiles {
    /// What they are called, in the order in which they are looked for.
    stems: &'static [&'static str],
    /// What else may be part of their names.
    also: &'static [&'static str],
    /// The flag that names one.
    flag: &'static str,
    /// What the first line of such a file may hold that is a header.
    headers: &'static [&'static str],
    /// Whether one file may serve several matrices.
    shared: bool,
}

const BARCODES: NameFiles = NameFiles {
    stems: &["barcodes"],
    also: &["barcode", "cells"],
    flag: "--barcodes",
    headers: &["barcode", "barcodes", "cell", "cells", "cell_id", "cell_barcode", "cb"],
    shared: false,
};
const FEATURES: NameFiles = NameFiles {
    stems: &["features", "genes"],
    also: &["feature", "gene"],
    flag: "--features",
    headers: &[
        "gene",
        "genes",
        "gene_id",
        "gene_ids",
        "gene_name",
        "feature",
        "features",
        "feature_id",
        "symbol",
        "id",
        "ensembl_id",
    ],
    shared: true,
};
/// What R calls a column that has no name.
const NAMELESS: [&str; 3] = ["x", "V1", ""];
/// Endings of such files.
const NAME_ENDINGS: [&str; 6] = [".tsv.gz", ".tsv", ".txt.gz", ".txt", ".csv.gz", ".csv"];
/// Last words of the name of a matrix that say no more than that it is one.
const MATRIX_WORDS: [&str; 9] = ["matrix", "counts", "count", "raw", "filtered", "umi", "umis", "expression", "mtx"];

/// Text without what separates the words of a name at its end.
fn bare(text: &str) -> &str {
    text.trim_end_matches(['_', '-', '.', ' '])
}

impl NameFiles {
    /// Whether a first line is a header.
    fn is_header(&self, line: &[String]) -> bool {
        let is_one = |field: &String| {
            NAMELESS.contains(&field.as_str()) || self.headers.contains(&field.to_lowercase().as_str())
        };
        line.first().is_some_and(is_one)
    }

    /// What a name begins with before it says that it is such a file; `None` if it does not.
    fn before_stem<'a>(&self, name: &'a str) -> Option<&'a str> {
        let small = name.to_ascii_lowercase();
        let body = NAME_ENDINGS.iter().find_map(|ending| small.strip_suffix(ending))?;
        let at = self.stems.iter().chain(self.also).find_map(|stem| {
            let at = body.rfind(stem)?;
            // A word of its own.
            let apart = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
            (apart(body[..at].chars().last()) && apart(body[at + stem.len()..].chars().next())).then_some(at)
        })?;
        Some(bare(&name[..at]))
    }

    /// The file that belongs to a matrix: `GSM1_matrix.mtx.gz` goes with `GSM1_barcodes.tsv.gz`; else the one whose name begins as
    /// that of the matrix, or the only one beside the only matrix, or one for all matrices where that may be. What was found by less
    /// than its usual name is noted.
    fn beside(&self, matrix: &Path, notes: &mut Vec<String>) -> Result<PathBuf> {
        let name = matrix.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let whole = name.trim_end_matches(".gz").trim_end_matches(".mtx");
        let prefix = whole.strip_suffix("matrix").unwrap_or("");
        let folder = matrix.parent().unwrap_or(Path::new(""));
        let mut tried = Vec::new();
        for stem in self.stems {
            for ending in ["tsv.gz", "tsv"] {
                let path = folder.join(format!("{prefix}{stem}.{ending}"));
                if path.is_file() {
                    return Ok(path);
                }
                tried.push(format!("{prefix}{stem}.{ending}"));
            }
        }
        let names = file_names(folder);
        let matrices = names.iter().filter(|name| is_matrix(Path::new(name))).count();
        let candidates: Vec<(&String, &str)> =
            names.iter().filter_map(|name| Some((name, self.before_stem(name)?))).collect();
        let mut begins = vec![bare(whole)];
        while let Some(last) = begins.last().copied()
            && let Some(word) = MATRIX_WORDS.iter().find(|word| last.to_ascii_lowercase().ends_with(**word))
        {
            begins.push(bare(&last[..last.len() - word.len()]));
        }
        let belongs: Vec<&String> =
            candidates.iter().filter(|(_, before)| begins.contains(before)).map(|(name, _)| *name).collect();
        let found = match (&belongs[..], &candidates[..]) {
            ([only], _) => Some(*only),
            ([], [(only, _)]) if matrices == 1 || self.shared => Some(*only),
            _ => None,
        };
        if let Some(found) = found {
            notes.push(format!("{} are read from {found}", self.stems[0]));
            return Ok(folder.join(found));
        }
        let there: Vec<&String> = candidates.iter().map(|(name, _)| *name).collect();
        let (problem, remedy) = match there.is_empty() {
            true => (
                format!("the file of its {} is missing", self.stems[0]),
                format!("put one of {} beside it, or name the file with {}", first_few(&tried), self.flag),
            ),
            false => (
                format!(
                    "it is not told which file of {} belongs to it: {} are there",
                    self.stems[0],
                    first_few(&there)
                ),
                format!("name the file with {}, or call it {}", self.flag, first_few(&tried)),
            ),
        };
        Err(InputError::new(problem, remedy).in_file(matrix).into())
    }
}

/// Names of the files of a folder, sorted.
fn file_names(folder: &Path) -> Vec<String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The lines of a tab-separated file, of which any fields may be in quotation marks. Files of commas are read so too.
fn read_table(path: &Path) -> Result<Vec<Vec<String>>> {
    let mut lines = Lines::open(path, MAX_LINE)?;
    let mut table = Vec::new();
    let delimiter = if has_ending(path, &[".csv", ".csv.gz"]) { ',' } else { '\t' };
    while let Some(line) = lines.next()? {
        let Ok(text) = std::str::from_utf8(line) else {
            return Err(lines.bad_line("it is not valid UTF-8").into());
        };
        table.push(text.split(delimiter).map(|field| unquoted(field.trim()).to_string()).collect());
    }
    // An empty last line is no entry.
    while table.last().is_some_and(|line: &Vec<String>| line.len() == 1 && line[0].is_empty()) {
        table.pop();
    }
    Ok(table)
}

/// A field without the quotation marks around it.
fn unquoted(field: &str) -> &str {
    field.strip_prefix('"').and_then(|field| field.strip_suffix('"')).unwrap_or(field)
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
