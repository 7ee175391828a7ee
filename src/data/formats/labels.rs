//! A table of labels beside the counts (CSV or TSV): a row per barcode, or one per barcode and intervention.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::data::formats::column::{Column, is_missing};
use crate::data::formats::text::read_text;
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::words::first_few;

/// Columns that usually hold the barcode; else it is the first.
pub(crate) const USUAL_BARCODES: [&str; 8] =
    ["barcode", "barcodes", "cell_barcode", "cell", "cell_id", "cell_name", "cb", "index"];
/// What a table of labels holds, in words.
const BARCODES: &str = "barcode and intervention";
/// Names of the columns of a table without header.
const WITHOUT_HEADER: [&str; 2] = ["barcode", "intervention"];

/// A table of labels, matched to the cells.
#[derive(Debug)]
pub(crate) struct LabelTable {
    path: PathBuf,
    columns: Vec<String>,
    /// Text of each column and cell; empty if missing. Of a cell with several rows, that of its first.
    values: Vec<Vec<String>>,
    /// Further rows of cells: the cell, and its text in each column.
    further: Vec<(usize, Vec<String>)>,
    /// What there is to say about the match.
    pub notes: Vec<String>,
}

impl LabelTable {
    /// Reads the table at `path` and matches its barcodes to `cells`, each of which has one row unless `several` are allowed.
    ///
    /// # Errors
    /// [`InputError`], with the line, if it is absent or no table, if a barcode comes twice with different values that are not
    /// allowed, or if no barcode is that of a cell.
    pub fn read(path: &Path, cells: &Names, several: bool) -> Result<Self> {
        let mut rows = text_rows(path, BARCODES)?;
        let width = rows[0].fields.len();
        let mut numbers: HashMap<&str, Vec<usize>> = HashMap::with_capacity(cells.len());
        cells.iter().enumerate().for_each(|(n, cell)| numbers.entry(cell).or_default().push(n));
        // Where the first line names a cell, there is no header.
        let headless = rows[0].fields.iter().any(|field| numbers.contains_key(field.as_str()));
        let header: Vec<String> = match headless {
            true => {
                let name = |i: usize| {
                    WITHOUT_HEADER.get(i).map_or_else(|| format!("column_{}", i + 1), |name| name.to_string())
                };
                (0..width).map(name).collect()
            }
            false => rows.remove(0).fields,
        };
        let key = key_column(&header);
        let MatchedRows { first, further, notes } = match_rows(path, &rows, key, cells, &numbers)?;
        if let (false, Some(&(cell, row))) = (several, further.first()) {
            return Err(repeated(path, &header, key, (&rows[first[cell].expect("a first row")], &rows[row])).into());
        }
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        for (c, name) in header.into_iter().enumerate().filter(|(c, _)| *c != key) {
            let value = |row: &Option<usize>| row.map_or_else(String::new, |r| rows[r].fields[c].clone());
            columns.push(name);
            values.push(first.iter().map(value).collect());
        }
        let others = |row: usize| rows[row].fields.iter().enumerate().filter(|(c, _)| *c != key);
        let further = further
            .into_iter()
            .map(|(cell, row)| (cell, others(row).map(|(_, text)| text.clone()).collect()))
            .collect();
        Ok(Self { path: path.to_path_buf(), columns, values, further, notes })
    }

    /// Whether any cell has several rows.
    pub fn has_several_rows(&self) -> bool {
        !self.further.is_empty()
    }

    /// All different values of each cell in a column, in the order of its rows; none where all are missing.
    ///
    /// # Errors
    /// [`InputError`] if there is no such column.
    pub fn all_values(&self, name: &str) -> Result<Vec<Vec<&str>>> {
        let at = self.position(name)?;
        let mut all: Vec<Vec<&str>> = vec![Vec::new(); self.values[at].len()];
        let first = self.values[at].iter().enumerate();
        let further = self.further.iter().map(|(cell, row)| (*cell, &row[at]));
        for (cell, text) in first.chain(further) {
            if !is_missing(text) && !all[cell].contains(&text.as_str()) {
                all[cell].push(text);
            }
        }
        Ok(all)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the columns, but for the barcodes.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// One column; as text if it is the label, else as numbers where all values are.
    ///
    /// # Errors
    /// [`InputError`] if there is no such column, or if rows of a cell differ in it.
    pub fn column(&self, name: &str, label: bool) -> Result<Column> {
        self.column_with(name, label, &[])
    }

    /// As [`LabelTable::column`], but a text that is one of `named` is not missing.
    ///
    /// # Errors
    /// As [`LabelTable::column`].
    pub fn column_with(&self, name: &str, label: bool, named: &[String]) -> Result<Column> {
        let at = self.position(name)?;
        if let Some((cell, row)) = self.further.iter().find(|(cell, row)| row[at] != self.values[at][*cell]) {
            let (one, other) = (&self.values[at][*cell], &row[at]);
            let problem = format!("rows of the same barcode differ in column `{name}`: `{one}` and `{other}`");
            return Err(InputError::new(problem, "name a column with one value per barcode")
                .in_file(&self.path)
                .into());
        }
        Ok(Column::from_texts_with(self.values[at].iter().map(String::as_str), label, named))
    }

    fn position(&self, name: &str) -> Result<usize> {
        let found = self.columns.iter().position(|column| column == name).ok_or_else(|| {
            InputError::new(
                format!("there is no column `{name}`"),
                format!("the columns are {}", first_few(&self.columns)),
            )
            .in_file(&self.path)
        });
        Ok(found?)
    }
}

/// A row of a table.
pub(crate) struct TextRow {
    pub line: u64,
    pub fields: Vec<String>,
}

/// The rows of a table of at least two columns, the header among them; `columns` says which, in words.
///
/// # Errors
/// [`InputError`], with the line, if it is absent or no table.
pub(crate) fn text_rows(path: &Path, columns: &str) -> Result<Vec<TextRow>> {
    let fault = |problem: String, remedy: &str| InputError::new(problem, remedy).in_file(path);
    let whole = read_text(path)?;
    let (text, skipped) = without_comments(&whole);
    let first = text.lines().next().unwrap_or_default();
    let delimiter = DELIMITERS.into_iter().find(|delimiter| n_fields(first, *delimiter) > 1).unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut rows: Vec<TextRow> = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| {
            let line = skipped + e.position().map_or(0, |position| position.line());
            fault(format!("it is no row of a table ({e})"), "mend the table").at(format!("line {line}"))
        })?;
        let line = skipped + record.position().map_or(0, |position| position.line());
        let fields: Vec<String> = record.iter().map(str::to_string).collect();
        // As R writes a table with names of rows: they have no name in the first line, which then begins with another column.
        if let [header] = &mut rows[..]
            && fields.len() == header.fields.len() + 1
            && !USUAL_BARCODES.contains(&header.fields[0].to_lowercase().as_str())
        {
            header.fields.insert(0, String::new());
        }
        if let Some(header) = rows.first()
            && fields.len() != header.fields.len()
        {
            let problem = format!("it has {} fields, the first line has {}", fields.len(), header.fields.len());
            return Err(fault(problem, "mend the table").at(format!("line {line}")).into());
        }
        rows.push(TextRow { line, fields });
    }
    if rows.first().is_none_or(|row| row.fields.len() < 2) {
        let problem = "it is no table of at least two columns";
        return Err(fault(problem.into(), &format!("give {columns}, separated by commas or tabs")).into());
    }
    Ok(rows)
}

/// What may separate the fields of a table, in the order in which it is tried.
const DELIMITERS: [u8; 4] = [b'\t', b',', b';', b' '];

/// Number of fields of a line, whose delimiters within quotation marks are none.
fn n_fields(line: &str, delimiter: u8) -> usize {
    let mut quoted = false;
    let mut separates = |byte: &u8| {
        quoted ^= *byte == b'"';
        *byte == delimiter && !quoted
    };
    1 + line.trim().as_bytes().iter().filter(|byte| separates(byte)).count()
}

/// A table without the lines that begin with `#` before its first one, and how many these are. The last of them may be the first line of
/// the table: it has as many fields as the next one, and more than one.
fn without_comments(text: &str) -> (&str, u64) {
    let (mut rest, mut n) = (text, 0);
    while let Some(comment) = rest.strip_prefix('#') {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let next = after.lines().next().unwrap_or_default();
        let as_many = |delimiter: &u8| {
            let (n, n_next) = (n_fields(line, *delimiter), n_fields(next, *delimiter));
            n > 1 && n == n_next
        };
        if !next.starts_with('#') && DELIMITERS[..3].iter().any(as_many) {
            return (comment, n);
        }
        (rest, n) = (after, n + 1);
    }
    (rest, n)
}

/// The column of the barcodes: one with a usual name, else the first.
fn key_column(header: &[String]) -> usize {
    header.iter().position(|name| USUAL_BARCODES.contains(&name.to_lowercase().as_str())).unwrap_or(0)
}

/// The rows of a table that belong to each cell.
struct MatchedRows {
    /// The first of each cell, `None` if it has none.
    first: Vec<Option<usize>>,
    /// Further ones that differ from it: the cell, and the row.
    further: Vec<(usize, usize)>,
    /// What there is to say about the match.
    notes: Vec<String>,
}

/// A barcode that comes again with other values than `before`.
fn repeated(path: &Path, header: &[String], key: usize, (before, again): (&TextRow, &TextRow)) -> InputError {
    let differs = |c: &usize| before.fields[*c] != again.fields[*c];
    let columns: Vec<&String> = (0..header.len()).filter(differs).map(|c| &header[c]).collect();
    let problem = format!(
        "the barcode `{}` comes again with other values of {}, it was first on line {}",
        again.fields[key],
        first_few(&columns),
        before.line
    );
    let remedy = "keep one row per barcode, or read the rows of a barcode as several interventions of its cell with \
                  --several-interventions keep";
    InputError::new(problem, remedy).in_file(path).at(format!("line {}", again.line))
}

/// Finds the rows of each cell; `numbers` finds cells by name.
fn match_rows(
    path: &Path,
    rows: &[TextRow],
    key: usize,
    cells: &Names,
    numbers: &HashMap<&str, Vec<usize>>,
) -> Result<MatchedRows> {
    let fault = |problem: String, remedy: &str| InputError::new(problem, remedy).in_file(path);
    // Barcodes without the suffix of their GEM well are matched too, where neither side has several wells.
    let mut bare: HashMap<&str, Vec<usize>> = HashMap::new();
    let barcodes = || rows.iter().map(|row| row.fields[key].as_str());
    let exact = barcodes().any(|barcode| numbers.contains_key(barcode));
    let (wells, wells_of_rows) = (some_wells(cells.iter()), some_wells(barcodes()));
    if !exact {
        for (n, cell) in cells.iter().enumerate() {
            bare.entry(without_well(cell)).or_default().push(n);
        }
        let several = [(&wells, "cells of the data"), (&wells_of_rows, "barcodes of the labels")];
        if let Some((wells, whose)) = several.into_iter().find(|(wells, _)| wells.len() > 1)
            && barcodes().any(|barcode| bare.contains_key(without_well(barcode)))
        {
            let (barcode, cell) = (barcodes().next().unwrap_or_default(), cells.get(0).unwrap_or_default());
            let problem = format!(
                "none of its barcodes (`{barcode}`, ...) is that of a cell (`{cell}`, ...), and without the GEM wells at their ends \
                 it is not told which cell is meant: the {whose} are of several wells ({})",
                first_few(wells)
            );
            let remedy = "write the barcodes with the wells of the data, those of all wells in one table";
            return Err(fault(problem, remedy).into());
        }
    }
    let mut first: Vec<Option<usize>> = vec![None; cells.len()];
    let mut further = Vec::new();
    let mut n_strangers = 0;
    for (r, row) in rows.iter().enumerate() {
        let barcode = row.fields[key].as_str();
        let found = match exact {
            false => bare.get(without_well(barcode)).filter(|cells| cells.len() == 1),
            true => numbers.get(barcode),
        };
        let Some(found) = found else {
            n_strangers += 1;
            continue;
        };
        for &n in found {
            match first[n] {
                Some(before) if rows[before].fields != row.fields => further.push((n, r)),
                Some(_) => {}
                None => first[n] = Some(r),
            }
        }
    }
    if first.iter().all(Option::is_none) {
        let example = rows.first().map_or("", |row| row.fields[key].as_str());
        let (n, cell) = (rows.len(), cells.get(0).unwrap_or(""));
        let problem = format!("none of its {n} barcodes (`{example}`, ...) is that of a cell (`{cell}`, ...)");
        return Err(fault(problem, "write the barcodes as the data file does").into());
    }
    let mut notes = Vec::new();
    if !exact {
        notes.push("barcodes of the labels are matched to cells without regard to their GEM well (-1)".to_string());
    }
    if let (true, [well], [_, _, ..]) = (exact, &wells_of_rows[..], &wells[..]) {
        notes.push(format!(
            "all barcodes of the labels end in {well}, those of the cells in {}: only cells of that GEM well are labelled",
            first_few(&wells)
        ));
    }
    if n_strangers > 0 {
        notes.push(format!("{n_strangers} of {} rows of the labels belong to no cell of the data", rows.len()));
    }
    Ok(MatchedRows { first, further, notes })
}

/// The different GEM wells that barcodes end in (`-1`, `-2`), none where any has none; a dozen at most and one more.
fn some_wells<'a>(barcodes: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut wells: Vec<&str> = Vec::new();
    for barcode in barcodes {
        let well = &barcode[without_well(barcode).len()..];
        if well.is_empty() {
            return Vec::new();
        }
        if wells.len() <= 12 && !wells.contains(&well) {
            wells.push(well);
        }
    }
    wells
}

/// The barcodes of a table, as they are and without their GEM wells, to tell cells from genes before either is known.
///
/// # Errors
/// As [`LabelTable::read`], but that none of them is a cell's.
pub(crate) fn barcodes(path: &Path) -> Result<HashSet<String>> {
    let rows = text_rows(path, BARCODES)?;
    let key = key_column(&rows[0].fields);
    let barcodes = rows.into_iter().map(|mut row| row.fields.swap_remove(key));
    Ok(barcodes.flat_map(|barcode| [without_well(&barcode).to_string(), barcode]).collect())
}

/// The names on the lines of a file, one each (the first field, if there are several).
///
/// # Errors
/// [`InputError`] if the file is absent, not UTF-8 or empty.
pub(crate) fn read_names(path: &Path) -> Result<Vec<String>> {
    let text = read_text(path)?;
    let name =
        |line: &str| line.split(['\t', ',', ';']).next().unwrap_or_default().trim().trim_matches('"').to_string();
    let names: Vec<String> = text.lines().map(name).filter(|name| !name.is_empty()).collect();
    match names.is_empty() {
        true => Err(InputError::new("it holds no names", "write one name per line").in_file(path).into()),
        false => Ok(names),
    }
}

/// A barcode without its GEM well: `AAACCTGA` of `AAACCTGA-1`.
pub(crate) fn without_well(barcode: &str) -> &str {
    match barcode.rsplit_once('-') {
        Some((bare, well)) if !well.is_empty() && well.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => barcode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, cells: &[&str]) -> Result<LabelTable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.csv");
        std::fs::write(&path, text).unwrap();
        LabelTable::read(&path, &cells.iter().collect(), false)
    }

    fn texts(column: Column) -> Vec<String> {
        match column {
            Column::Strings(texts) => texts,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tables_with_and_without_header_in_any_order() {
        let with = read("gene,cell_barcode,age\nTP53,AC-1,3\ncontrol,AA-1,4.5\nX,ZZ-1,1\n", &["AA-1", "AC-1", "AG-1"])
            .unwrap();
        assert_eq!(with.columns(), ["gene", "age"]);
        assert_eq!(texts(with.column("gene", true).unwrap()), ["control", "TP53", ""]);
        assert!(
            matches!(with.column("age", false).unwrap(), Column::Numbers(ages) if ages[0] == 4.5 && ages[2].is_nan())
        );
        assert!(with.notes[0].contains("1 of 3 rows"), "{:?}", with.notes);
        assert!(with.column("sex", false).unwrap_err().to_string().contains("`gene`, `age`"));
        let without = read("AA-1\tcontrol\nAC-1\tNA\n", &["AC-1", "AA-1"]).unwrap();
        assert_eq!(texts(without.column("intervention", true).unwrap()), ["", "control"]);
        let bare = read("barcode,intervention\nAA,1\nAC,2\n", &["AC-1", "AA-1"]).unwrap();
        assert_eq!(texts(bare.column("intervention", true).unwrap()), ["2", "1"]);
        assert!(matches!(bare.column("intervention", false).unwrap(), Column::Integers(values) if values == [2, 1]));
    }

    #[test]
    fn tables_as_r_writes_them_and_with_comments() {
        for text in [
            "gene\tn\nAA-1\tx\t3\nAC-1\ty\t4\n",
            "\"gene\" \"n\"\n\"AA-1\" \"x\" 3\n\"AC-1\" \"y\" 4\n",
            "\"\",\"gene\",\"n\"\n\"AA-1\",\"x\",3\n\"AC-1\",\"y\",4\n",
            "# threshold 5\n# by x, on y\nbarcode,gene,n\nAA-1,x,3\nAC-1,y,4\n",
            "#barcode\tgene\tn\nAA-1\tx\t3\nAC-1\ty\t4\n",
        ] {
            let table = read(text, &["AA-1", "AC-1"]).unwrap();
            assert_eq!(table.columns(), ["gene", "n"], "{text}");
            assert_eq!(texts(table.column("gene", true).unwrap()), ["x", "y"], "{text}");
            assert!(matches!(table.column("n", false).unwrap(), Column::Integers(n) if n == [3, 4]), "{text}");
        }
        let message = read("# a\ngene\nAA-1,x\nAC-1,y,z\n", &["AA-1"]).unwrap_err().to_string();
        assert!(message.contains("line 4: it has 3 fields, the first line has 2"), "{message}");
    }

    #[test]
    fn tables_that_do_not_fit() {
        let refused = |text: &str, part: &str| {
            let message = read(text, &["AA-1", "AC-1"]).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("labels.csv"), "{message}");
        };
        refused("", "no table");
        refused("AA-1\n", "no table");
        refused("barcode,gene\nAA-1,x,y\n", "line 2: it has 3 fields");
        refused("barcode,gene\nAA-1,x\nAA-1,y\n", "line 3");
        refused("barcode,gene\nGG-1,x\n", "none of its 1 barcodes");
        let same = read("barcode,gene\nAA-1,x\nAA-1,x\n", &["AA-1"]).unwrap();
        // Without wells it is not told which cell is meant.
        for (text, cells) in
            [("barcode,gene\nAA,x\n", &["AC-1", "AA-2"]), ("barcode,gene\nAA-1,x\nAC-2,y\n", &["AA", "AG"])]
        {
            let message = read(text, cells).unwrap_err().to_string();
            assert!(message.contains("of several wells (`-1`, `-2`)") && message.contains("labels.csv"), "{message}");
        }
        let one = read("barcode,gene\nAA-1,x\n", &["AA-1", "AA-2"]).unwrap();
        assert!(one.notes[0].contains("end in -1, those of the cells in `-1`, `-2`"), "{:?}", one.notes);
        assert_eq!(texts(same.column("gene", true).unwrap()), ["x"]);
    }
}
