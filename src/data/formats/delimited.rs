//! Plain tables of counts (CSV, TSV): a cell per row and a gene per column, or the other way round.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::data::formats::column::Column;
use crate::data::formats::counts_sink::{CountsSink, EntrySink};
use crate::data::formats::labels::{USUAL_BARCODES, barcodes, without_well};
use crate::data::formats::screen_file::{OpenOptions, ScreenFile, StoredMatrix, has_ending};
use crate::data::formats::text::{BYTE_ORDER_MARK, Lines, is_gzip, number};
use crate::data::names::Names;
use crate::error::{Error, InputError, Result};

/// Longest line read, in bytes.
const MAX_LINE: usize = 1 << 26;
/// Longest name read, in bytes.
const MAX_NAME: usize = 1 << 10;
/// Values looked at to tell what the table holds.
const SAMPLE: usize = 1 << 15;
/// What may separate fields, in the order in which it is tried.
const DELIMITERS: [u8; 4] = [b'\t', b',', b';', b' '];
/// Names of the first column where it names genes.
const USUAL_GENES: [&str; 12] = [
    "gene",
    "genes",
    "gene_id",
    "gene_ids",
    "gene_name",
    "gene_names",
    "gene_symbol",
    "symbol",
    "geneid",
    "ensembl_id",
    "feature",
    "features",
];

/// A table whose names have been read.
pub(crate) struct Delimited {
    path: PathBuf,
    delimiter: u8,
    rows_are_cells: bool,
    rows: Names,
    /// Names of the columns after the first, which names the rows.
    columns: Vec<String>,
    /// Number of each of these among those that hold counts; `None` for those that annotate the cells of the rows.
    number: Vec<Option<u32>>,
    notes: Vec<String>,
}

impl Delimited {
    /// Whether a file is a table, by its name.
    pub fn recognises(path: &Path) -> bool {
        has_ending(path, &[".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz"])
    }

    /// Opens a table, reads the names of its rows and columns, and tells which of them are cells: by the columns that
    /// `options` name, by the barcodes of the labels, by the name of the first column, or by what the names look like.
    ///
    /// # Errors
    /// [`InputError`], with the line, if it is absent or no table, or does not tell whether its rows are cells.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let header = TableHeader::read(path)?;
        let rows = row_names(path, &header)?;
        let TableHeader { delimiter, corner, columns, text, .. } = header;
        let sides = Sides { rows: &rows, columns: &columns };
        let Some(rows_are_cells) = sides.rows_are_cells(&corner, options)? else {
            let problem = "it does not tell whether its rows are cells or genes";
            let remedy = "give the labels of the cells with --labels, or call the first column `cell` or `gene`";
            return Err(InputError::new(problem, remedy).in_file(path).into());
        };
        let annotates = |(column, is_text): (&String, &bool)| {
            rows_are_cells && (*is_text || options.names_column(column, &columns))
        };
        let mut n = 0;
        let number: Vec<Option<u32>> = columns
            .iter()
            .zip(&text)
            .map(|column| {
                let number = (!annotates(column)).then_some(n);
                n += u32::from(number.is_some());
                number
            })
            .collect();
        let mut notes = vec![format!("its rows are {}", if rows_are_cells { "cells" } else { "genes" })];
        let n_annotations = columns.len() - n as usize;
        if n_annotations > 0 {
            notes.push(format!("{n_annotations} of its columns annotate the cells, the others are genes"));
        }
        Ok(Self { path: path.to_path_buf(), delimiter, rows_are_cells, rows, columns, number, notes })
    }

    /// Names of the columns that hold counts.
    fn counted(&self) -> impl Iterator<Item = &String> {
        self.columns.iter().zip(&self.number).filter(|(_, number)| number.is_some()).map(|(name, _)| name)
    }

    fn table_rows(&self) -> Result<TableRows> {
        TableRows::open(&self.path, self.delimiter, self.columns.len() + 1)
    }

    /// Calls `value(to, row, column, value)` for each count, row by row, and after each row `row` with the bytes read so
    /// far, until that is false; the errors of `value` get their line and column.
    fn pass<T: ?Sized>(
        &self,
        to: &mut T,
        mut value: impl FnMut(&mut T, i64, i64, f64) -> Result<()>,
        mut row: impl FnMut(&mut T, u64) -> Result<bool>,
    ) -> Result<()> {
        let mut table = self.table_rows()?;
        let mut n = 0;
        while table.next()? {
            if n == self.rows.len() {
                return Err(table.lines.fault("it changed while it was read", "try again").into());
            }
            for (at, number) in self.number.iter().enumerate() {
                let Some(column) = number else { continue };
                let parsed = table.value(at + 1, &self.columns[at])?;
                value(to, n as i64, i64::from(*column), parsed).map_err(|error| table.located(error, at + 1))?;
            }
            n += 1;
            if !row(to, table.lines.bytes())? {
                return Ok(());
            }
        }
        match n == self.rows.len() {
            true => Ok(()),
            false => Err(table.lines.fault("it changed while it was read", "try again").into()),
        }
    }
}

impl ScreenFile for Delimited {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> String {
        match self.delimiter {
            b'\t' => "table, separated by tabs".to_string(),
            b' ' => "table, separated by spaces".to_string(),
            delimiter => format!("table, separated by `{}`", delimiter as char),
        }
    }

    fn shape(&self) -> Result<(usize, usize)> {
        let (rows, columns) = (self.rows.len(), self.counted().count());
        Ok(if self.rows_are_cells { (rows, columns) } else { (columns, rows) })
    }

    fn cell_names(&self) -> Result<Option<Names>> {
        Ok(Some(if self.rows_are_cells { self.rows.clone() } else { self.counted().collect() }))
    }

    fn gene_names(&self) -> Result<Option<Vec<String>>> {
        Ok(Some(match self.rows_are_cells {
            true => self.counted().cloned().collect(),
            false => self.rows.iter().map(str::to_string).collect(),
        }))
    }

    fn counts_place(&self) -> String {
        "table".to_string()
    }

    fn read_counts(&self, sink: &mut CountsSink) -> Result<()> {
        let length = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if self.rows_are_cells {
            sink.expect_bytes(length);
            let mut told = 0;
            return self.pass(
                sink,
                |sink, _, gene, value| sink.push(gene, value),
                |sink, bytes| {
                    sink.end_cell()?;
                    sink.advance(bytes - told);
                    told = bytes;
                    Ok(true)
                },
            );
        }
        sink.expect_bytes(2 * length);
        sink.receive_unordered(|sink, entry: EntrySink| {
            let mut told = 0;
            self.pass(
                sink,
                |_, gene, cell, value| entry(cell, gene, value),
                |sink, bytes| {
                    sink.advance(bytes - told);
                    told = bytes;
                    Ok(true)
                },
            )
        })
    }

    fn column_names(&self) -> Result<Vec<String>> {
        let annotations = self.columns.iter().zip(&self.number).filter(|(_, number)| number.is_none());
        Ok(annotations.map(|(name, _)| name.clone()).collect())
    }

    fn column_place(&self, name: &str) -> String {
        format!("column `{name}`")
    }

    fn column(&self, name: &str, label: bool) -> Result<Column> {
        let known = self.columns.iter().zip(&self.number).position(|(column, n)| column == name && n.is_none());
        let mut values = Vec::new();
        if let Some(at) = known {
            let mut table = self.table_rows()?;
            while table.next()? {
                values.push(table.text(at + 1)?);
            }
        }
        Ok(Column::from_texts(values.iter().map(String::as_str), label))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn matrices(&self) -> Result<Vec<StoredMatrix>> {
        let mut sample = Vec::new();
        self.pass(
            &mut sample,
            |sample, _, _, value| {
                sample.push(value);
                Ok(())
            },
            |sample, _| Ok(sample.len() < SAMPLE),
        )?;
        let (n_cells, n_genes) = self.shape()?;
        Ok(vec![StoredMatrix {
            name: self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            n_cells,
            n_genes,
            storage: "dense",
            dtype: "text".to_string(),
            compression: is_gzip(&self.path).then(|| "gzip".to_string()),
            n_stored: None,
            sample,
        }])
    }
}

/// Whether a line above a table says how it was made, as those of BD Rhapsody do.
fn is_comment(line: &[u8]) -> bool {
    line.starts_with(b"##") || line.trim_ascii() == b"#"
}

/// What the first lines of a table say.
struct TableHeader {
    delimiter: u8,
    /// Name of the first column; empty where the header has none, as that of R.
    corner: String,
    columns: Vec<String>,
    /// Whether the first values of each of these are text.
    text: Vec<bool>,
}

impl TableHeader {
    fn read(path: &Path) -> Result<Self> {
        let mut lines = Lines::open(path, MAX_LINE)?;
        let mut begun = false;
        let mut next = |lines: &mut Lines| -> Result<Option<Vec<u8>>> {
            while let Some(line) = lines.next()? {
                if !(line.trim_ascii().is_empty() || !begun && is_comment(line)) {
                    begun = true;
                    return Ok(Some(line.to_vec()));
                }
            }
            Ok(None)
        };
        let Some(mut first) = next(&mut lines)? else {
            return Err(lines.fault("it is empty", "write it again").into());
        };
        let mark = BYTE_ORDER_MARK.to_string().into_bytes();
        if first.starts_with(&mark) {
            first.drain(..mark.len());
        }
        if std::str::from_utf8(&first).is_err() || first.contains(&0) {
            return Err(lines.fault("it is not valid UTF-8", "store it as UTF-8").at("line 1").into());
        }
        let Some(second) = next(&mut lines)? else {
            let remedy = "give a header with the names of the columns, and a row for each cell or gene";
            return Err(lines.fault("it has a first line and no others", remedy).into());
        };
        let (mut header, mut row) = (Fields::default(), Fields::default());
        let fits = |delimiter: &u8, header: &mut Fields, row: &mut Fields| {
            let split = header.split(&first, *delimiter).and_then(|()| row.split(&second, *delimiter));
            split.is_ok() && row.len() >= 2 && (row.len() == header.len() || row.len() == header.len() + 1)
        };
        let Some(delimiter) = DELIMITERS.into_iter().find(|delimiter| fits(delimiter, &mut header, &mut row)) else {
            let problem = "its first lines are no table of at least two columns, as many in each line";
            let remedy = "separate the columns by commas or tabs, and name them in the first line";
            return Err(lines.fault(problem, remedy).into());
        };
        let mut names = header.iter().map(|name| String::from_utf8_lossy(name).into_owned());
        let corner = if row.len() == header.len() { names.next().unwrap_or_default() } else { String::new() };
        let columns: Vec<String> = names.collect();
        if let Some(at) = columns.iter().position(|name| name.is_empty() || name.len() > MAX_NAME) {
            let problem = if columns[at].is_empty() { "it has no name" } else { "its name is too long" };
            let error = lines.fault(problem, "name every column in the first line, or leave it out");
            return Err(error.at(format!("line 1, column {}", at + 2)).into());
        }
        if are_counts(columns.iter().map(String::as_str)) {
            let remedy = "write a first line with the names of the columns";
            return Err(lines.fault("it holds counts, not names", remedy).at("line 1").into());
        }
        // A damaged count must not make a column of text: two values tell.
        let is_text = |row: &Fields| -> Vec<bool> {
            row.iter().skip(1).map(|field| !field.is_empty() && number(field).is_none()).collect()
        };
        let mut text = is_text(&row);
        if let Some(third) = next(&mut lines)?
            && row.split(&third, delimiter).is_ok()
        {
            text.iter_mut().zip(is_text(&row)).for_each(|(text, also)| *text &= also);
        }
        Ok(Self { delimiter, corner, columns, text })
    }
}

/// Names of the rows: the first field of every line after the first.
fn row_names(path: &Path, header: &TableHeader) -> Result<Names> {
    let mut lines = Lines::open(path, MAX_LINE)?;
    let (mut names, mut first, mut n_bytes) = (Names::default(), true, 0);
    let mut fields = Fields::default();
    while let Some(line) = lines.next()? {
        if line.trim_ascii().is_empty() || first && is_comment(line) || std::mem::take(&mut first) {
            continue;
        }
        let name = match fields.first(line, header.delimiter) {
            Ok(()) => fields.get(0),
            Err(problem) => return Err(lines.bad_line(problem).into()),
        };
        n_bytes += name.len();
        match std::str::from_utf8(name) {
            Ok(text) if name.len() <= MAX_NAME && !name.contains(&0) && n_bytes <= u32::MAX as usize => {
                names.push(text);
            }
            Ok(_) => return Err(lines.bad_line("its name is too long, or no text").into()),
            Err(_) => return Err(lines.bad_line("it is not valid UTF-8").into()),
        }
    }
    if are_counts(names.iter()) {
        let problem = "its first column holds counts, not names";
        return Err(lines.fault(problem, "write a first column with the names of the rows").into());
    }
    names.shrink();
    Ok(names)
}

/// Whether what should be names are numbers that repeat.
fn are_counts<'a>(names: impl Iterator<Item = &'a str>) -> bool {
    let (mut seen, mut repeats) = (HashSet::new(), false);
    for name in names {
        if number(name.as_bytes()).is_none() {
            return false;
        }
        repeats |= !seen.insert(name);
    }
    repeats
}

/// The names of both sides of a table, of which one are cells.
struct Sides<'a> {
    rows: &'a Names,
    columns: &'a [String],
}

impl Sides<'_> {
    /// Whether the rows are the cells; `None` if nothing tells.
    fn rows_are_cells(&self, corner: &str, options: &OpenOptions) -> Result<Option<bool>> {
        // Only cells have annotations.
        if self.columns.iter().any(|column| options.names_column(column, self.columns)) {
            return Ok(Some(true));
        }
        if let Some(path) = options.labels {
            let labelled = barcodes(path)?;
            let known = |name: &str| labelled.contains(name) || labelled.contains(without_well(name));
            let (rows, columns) = self.shares(known);
            if rows != columns {
                return Ok(Some(rows > columns));
            }
        }
        let corner = corner.to_lowercase();
        if USUAL_GENES.contains(&corner.as_str()) {
            return Ok(Some(false));
        }
        // Every kind of table has an index.
        if corner != "index"
            && (["cells", "cell_index"].contains(&corner.as_str()) || USUAL_BARCODES.contains(&corner.as_str()))
        {
            return Ok(Some(true));
        }
        let (row_cells, column_cells) = self.shares(looks_like_a_cell);
        let (row_genes, column_genes) = self.shares(looks_like_a_gene);
        let (rows, columns) = (row_cells.max(column_genes), column_cells.max(row_genes));
        Ok((rows.max(columns) >= 0.5 && rows != columns).then_some(rows > columns))
    }

    /// Shares of the names of the rows, and of the columns, of which something holds.
    fn shares(&self, holds: impl Fn(&str) -> bool) -> (f64, f64) {
        let rows = self.rows.iter().filter(|name| holds(name)).count();
        let columns = self.columns.iter().filter(|name| holds(name)).count();
        (rows as f64 / self.rows.len().max(1) as f64, columns as f64 / self.columns.len().max(1) as f64)
    }
}

/// A barcode, whatever is before and behind it, or a name that begins with "cell".
fn looks_like_a_cell(name: &str) -> bool {
    let is_barcode = |part: &str| part.len() >= 6 && part.bytes().all(|byte| b"ACGTN".contains(&byte));
    name.to_lowercase().starts_with("cell") || name.split(|c: char| !c.is_ascii_alphabetic()).any(is_barcode)
}

/// An identifier of Ensembl, or a name that begins with "gene".
fn looks_like_a_gene(name: &str) -> bool {
    let ensembl = || name.starts_with("ENS") && name.bytes().filter(u8::is_ascii_digit).count() >= 11;
    name.to_lowercase().starts_with("gene") || ensembl()
}

/// The rows of a table after its header.
struct TableRows {
    lines: Lines,
    delimiter: u8,
    /// Fields of a row.
    width: usize,
    fields: Fields,
}

impl TableRows {
    fn open(path: &Path, delimiter: u8, width: usize) -> Result<Self> {
        let mut table = Self { lines: Lines::open(path, MAX_LINE)?, delimiter, width, fields: Fields::default() };
        while table.lines.next()?.is_some_and(|line| line.trim_ascii().is_empty() || is_comment(line)) {}
        Ok(table)
    }

    /// Reads the next row that is not empty; false after the last.
    fn next(&mut self) -> Result<bool> {
        while let Some(line) = self.lines.next()? {
            if line.trim_ascii().is_empty() {
                continue;
            }
            if let Err(problem) = self.fields.split(line, self.delimiter) {
                return Err(self.lines.bad_line(problem).into());
            }
            return match self.fields.len() == self.width {
                true => Ok(true),
                false => {
                    let (found, width) = (self.fields.len(), self.width);
                    let problem = format!("it has {found} fields, the rows before have {width}");
                    let place = format!("line {}", self.lines.number());
                    Err(self.lines.fault(problem, "mend the table").at(place).into())
                }
            };
        }
        Ok(false)
    }

    /// The number in a field.
    #[inline]
    fn value(&self, field: usize, column: &str) -> Result<f64> {
        number(self.fields.get(field)).ok_or_else(|| self.no_number(field, column).into())
    }

    #[cold]
    fn no_number(&self, field: usize, column: &str) -> InputError {
        let text = String::from_utf8_lossy(self.fields.get(field));
        let problem = match text.chars().count() {
            0 => "the field is empty".to_string(),
            1..50 => format!("`{text}` is no number"),
            _ => format!("`{}...` is no number", text.chars().take(40).collect::<String>()),
        };
        let place = format!("line {}, column {} (`{column}`)", self.lines.number(), field + 1);
        self.lines.fault(problem, "give whole numbers, with 0 where nothing was seen").at(place)
    }

    /// The text in a field.
    fn text(&self, field: usize) -> Result<String> {
        match std::str::from_utf8(self.fields.get(field)) {
            Ok(text) => Ok(text.to_string()),
            Err(_) => Err(self.lines.bad_line("it is not valid UTF-8").into()),
        }
    }

    /// An error about a value, with its line and column.
    #[cold]
    fn located(&self, error: Error, field: usize) -> Error {
        match error {
            Error::Input(error) => {
                let place = error.place.clone().map_or_else(String::new, |place| format!(" of the {place}"));
                error.at(format!("line {}, column {}{place}", self.lines.number(), field + 1)).into()
            }
            other => other,
        }
    }
}

/// The fields of a line, one after another, without quotation marks and the blanks around them.
#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Fields {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, n: usize) -> &[u8] {
        &self.bytes[n.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[n]]
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|n| self.get(n))
    }

    /// Takes the fields of `line`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn split(&mut self, line: &[u8], delimiter: u8) -> Result<(), &'static str> {
        self.clear();
        let mut rest = Some(line);
        while let Some(line) = rest {
            rest = self.push(line, delimiter)?;
        }
        Ok(())
    }

    /// Takes the first field of `line` alone.
    fn first(&mut self, line: &[u8], delimiter: u8) -> Result<(), &'static str> {
        self.clear();
        self.push(line, delimiter).map(drop)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Takes the first field of `line`; what follows it, if there is more.
    fn push<'a>(&mut self, line: &'a [u8], delimiter: u8) -> Result<Option<&'a [u8]>, &'static str> {
        let blank = |byte: u8| byte == b' ' && delimiter != b' ';
        let start = line.iter().position(|&byte| !blank(byte)).unwrap_or(line.len());
        let end = match line.get(start) {
            Some(b'"') => {
                let mut at = start + 1;
                loop {
                    match (line.get(at), line.get(at + 1)) {
                        (Some(b'"'), Some(b'"')) => at += 1,
                        (Some(b'"'), _) => break,
                        (Some(_), _) => {}
                        (None, _) => return Err("a quotation mark is not closed on its line"),
                    }
                    self.bytes.push(line[at]);
                    at += 1;
                }
                at += 1;
                at += line[at..].iter().take_while(|&&byte| blank(byte)).count();
                if line.get(at).is_some_and(|&byte| byte != delimiter) {
                    return Err("something follows a quotation mark that is closed");
                }
                at
            }
            _ => {
                let end =
                    start + line[start..].iter().position(|&byte| byte == delimiter).unwrap_or(line.len() - start);
                let blanks = line[start..end].iter().rev().take_while(|&&byte| blank(byte)).count();
                self.bytes.extend_from_slice(&line[start..end - blanks]);
                end
            }
        };
        self.ends.push(self.bytes.len());
        Ok((end < line.len()).then(|| &line[end + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_cut_at_delimiters_outside_of_quotation_marks() {
        let fields = |line: &str, delimiter| -> Result<Vec<String>, &'static str> {
            let mut fields = Fields::default();
            fields.split(line.as_bytes(), delimiter)?;
            Ok(fields.iter().map(|field| String::from_utf8(field.to_vec()).unwrap()).collect())
        };
        assert_eq!(fields("a,b ,\" c,\"\"d\"\"\" ,,", b',').unwrap(), ["a", "b", " c,\"d\"", "", ""]);
        assert_eq!(fields("\"x y\" 1  2", b' ').unwrap(), ["x y", "1", "", "2"]);
        assert_eq!(fields("5'\" end\t3", b'\t').unwrap(), ["5'\" end", "3"]);
        assert!(fields("a,\"b", b',').unwrap_err().contains("not closed"));
        assert!(fields("\"a\"b,c", b',').unwrap_err().contains("follows"));
    }

    #[test]
    fn names_that_look_like_cells_or_genes() {
        for cell in ["AAACCTGAGAAACCAT-1", "sample2_AAACCTGAGAAACCAT", "cell_12"] {
            assert!(looks_like_a_cell(cell) && !looks_like_a_gene(cell), "{cell}");
        }
        for gene in ["ENSG00000141510", "ENSMUSG00000059552.3", "gene_7"] {
            assert!(looks_like_a_gene(gene) && !looks_like_a_cell(gene), "{gene}");
        }
        for gene in ["TP53", "CAT", "MT-ND1", "GATA1", "TTN"] {
            assert!(!looks_like_a_cell(gene), "{gene}");
        }
    }
}
