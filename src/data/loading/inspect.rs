//! What is in a data file, and the command that would train on it.

use std::path::Path;

use serde::Serialize;

use crate::data::dataset::{Categorical, InterventionRows};
use crate::data::formats::column::{Column, Levels};
use crate::data::formats::labels::LabelTable;
use crate::data::formats::open;
use crate::data::formats::screen_file::OpenOptions;
use crate::data::loading::annotations::USUAL_LABELS;
use crate::data::loading::assignments::{Assignments, from_table_rows};
use crate::data::loading::called::GeneNames;
use crate::data::loading::guards;
use crate::data::loading::guards::MatrixKind;
use crate::data::loading::options::LoadOptions;
use crate::data::loading::suggested_reading::{SuggestedReading, is_binary, shared_beginning};
use crate::data::loading::summary::{LabelCount, NumberCount};
use crate::error::Result;
use crate::words::first_few;

/// Parts of names of columns that may hold the intervention.
const LABEL_PARTS: [&str; 11] =
    ["pert", "guide", "sgrna", "grna", "gene", "target", "treat", "drug", "compound", "condition", "interven"];
/// Columns that usually hold a batch.
const USUAL_BATCHES: [&str; 15] = [
    "batch",
    "replicate",
    "rep",
    "lane",
    "gem_group",
    "gemgroup",
    "gem_well",
    "donor",
    "donor_id",
    "sample",
    "sample_id",
    "plate",
    "orig.ident",
    "library_id",
    "channel",
];
/// Levels shown of a column.
const SHOWN_LEVELS: usize = 12;
/// Genes above which the most variable ones are suggested, and how many.
const MANY_GENES: (usize, usize) = (5000, 2000);
/// Counts of a guide from which on a cell is said to have received it.
const GUIDE_COUNTS: &str = "5";
/// Cells of an intervention below which little is learned of it.
const FEW_CELLS: usize = 10;

/// What is in a data file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The file.
    pub file: String,
    /// Its format.
    pub format: String,
    /// Number of cells.
    pub n_cells: usize,
    /// Number of genes (of the matrix that would be read).
    pub n_genes: usize,
    /// Every matrix that could hold counts; the first is the one that would be read as the file was named.
    pub matrices: Vec<MatrixReport>,
    /// The columns that annotate cells.
    pub columns: Vec<ColumnReport>,
    /// Cells by the number of their interventions, as the command reads them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cells_by_number: Vec<NumberCount>,
    /// What might mislead.
    pub warnings: Vec<String>,
    /// The command that would train on this file.
    pub command: String,
}

/// A matrix of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixReport {
    /// Name, as `--layer` takes it.
    pub name: String,
    /// Rows.
    pub n_cells: usize,
    /// Columns.
    pub n_genes: usize,
    /// dense, CSR, CSC or coordinates.
    pub storage: String,
    /// Type of the values.
    pub dtype: String,
    /// Compression, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// Share of values that are not zero (of a sample, if the matrix is dense).
    pub density: f64,
    /// Largest value of a sample.
    pub largest: f64,
    /// What the values look like, from a sample.
    pub looks_like: String,
    /// Whether that can be trained on.
    pub is_counts: bool,
}

/// A column that annotates cells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnReport {
    /// Name.
    pub name: String,
    /// categorical, text, integer, number, boolean, or why it cannot be read.
    pub kind: String,
    /// Cells without a value.
    pub n_missing: usize,
    /// Number of different values; absent for numbers with fractions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_levels: Option<usize>,
    /// The most frequent values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<LabelCount>,
    /// Smallest and largest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(f64, f64)>,
}

/// Looks into a data file; `layer` and `genome` as for a run, `labels` a table of labels to look at as well.
///
/// # Errors
/// As [`load`](crate::data::loading::load::load) for files that cannot be opened; a column that cannot be read is only reported.
pub fn inspect(path: &Path, layer: Option<&str>, genome: Option<&str>, labels: Option<&Path>) -> Result<Inspection> {
    let owned = |name: &str| name.to_owned();
    let options = LoadOptions {
        layer: layer.map(owned),
        genome: genome.map(owned),
        labels: labels.map(Path::to_path_buf),
        ..LoadOptions::default()
    };
    inspect_as(path, &options)
}

/// As [`inspect`], for a file, or for several that are one screen, opened as `options` say.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_as(path: &Path, options: &LoadOptions) -> Result<Inspection> {
    let options = options.for_opening();
    let labels = options.labels;
    let file = open(path, &options)?;
    let (n_cells, n_genes) = file.shape()?;
    let cell_names = file.cell_names()?;
    let gene_names = GeneNames::read(&*file, n_genes, None, &[])?.names;
    let mut warnings = file.notes();
    if let Some(names) = &cell_names {
        warnings.extend(guards::doubled_names(names, "cells", "such cells cannot be told apart by name"));
    }
    warnings.extend(guards::doubled_names(&gene_names, "genes", "the later ones get the endings -1, -2, ..."));

    let mut matrices = Vec::new();
    for matrix in file.matrices()? {
        let kind = MatrixKind::of(&matrix.sample);
        let cells = (matrix.n_cells as f64) * (matrix.n_genes as f64);
        let nonzero = matrix.sample.iter().filter(|x| **x != 0.0).count();
        matrices.push(MatrixReport {
            name: matrix.name,
            n_cells: matrix.n_cells,
            n_genes: matrix.n_genes,
            storage: matrix.storage.to_string(),
            dtype: matrix.dtype,
            compression: matrix.compression,
            density: match matrix.n_stored {
                Some(n) => n as f64 / cells.max(1.0),
                None => nonzero as f64 / matrix.sample.len().max(1) as f64,
            },
            largest: matrix.sample.iter().copied().fold(0.0, f64::max),
            looks_like: kind.describe().to_string(),
            is_counts: kind.is_counts(),
        });
    }

    let table = match (labels, &cell_names) {
        (Some(labels), Some(names)) => Some(LabelTable::read(labels, names, true)?),
        _ => None,
    };
    warnings.extend(table.iter().flat_map(|table| table.notes.clone()));
    let (mut columns, mut levels, mut binary) = (Vec::new(), Vec::new(), Vec::new());
    let of_table = table.iter().flat_map(|table| table.columns().iter().cloned());
    let n_of_table = of_table.clone().count();
    for (at, name) in of_table.chain(file.column_names()?).enumerate() {
        let column = match (&table, at < n_of_table) {
            (Some(table), true) => table.column(&name, false).or_else(|_| joined_column(table, &name)),
            _ => file.column(&name, USUAL_LABELS.contains(&name.as_str())),
        };
        binary.push(column.as_ref().is_ok_and(is_binary));
        let (report, found) = describe(name, column);
        columns.push(report);
        levels.push(found);
    }
    let mut inspection = Inspection {
        file: path.display().to_string(),
        format: file.format(),
        n_cells,
        n_genes,
        matrices,
        columns,
        cells_by_number: Vec::new(),
        warnings,
        command: String::new(),
    };
    let looked = LookedAt { levels, binary, n_of_table, table: table.as_ref(), guides: file.guide_names() };
    inspection.suggest(&looked, &options)?;
    Ok(inspection)
}

/// What the columns of the cells hold, by which a command is suggested.
struct LookedAt<'a> {
    levels: Vec<Option<Levels>>,
    /// Whether each column holds 0 and 1 alone.
    binary: Vec<bool>,
    /// The first so many are those of the table of labels.
    n_of_table: usize,
    table: Option<&'a LabelTable>,
    /// Guides among the features.
    guides: &'a [String],
}

/// A column in which rows of the same cell differ: all values of each cell.
fn joined_column(table: &LabelTable, name: &str) -> Result<Column> {
    let values = table.all_values(name)?;
    Ok(Column::Strings(values.iter().map(|texts| texts.join("+")).collect()))
}

fn describe(name: String, column: Result<Column>) -> (ColumnReport, Option<Levels>) {
    let unreadable = |name, why: String| ColumnReport {
        name,
        kind: format!("not readable: {why}"),
        n_missing: 0,
        n_levels: None,
        levels: Vec::new(),
        range: None,
    };
    let column = match column {
        Ok(column) => column,
        Err(error) => return (unreadable(name, error.to_string()), None),
    };
    let (kind, numbers) = match &column {
        Column::Categorical { .. } => ("categorical", None),
        Column::Strings(_) => ("text", None),
        Column::Integers(values) => ("integer", Some(values.iter().map(|x| *x as f64).collect::<Vec<_>>())),
        Column::Numbers(values) => ("number", Some(values.clone())),
        Column::Flags(_) => ("boolean", None),
    };
    let mut report = unreadable(name, String::new());
    report.kind = kind.to_string();
    if let Some(numbers) = &numbers {
        report.n_missing = numbers.iter().filter(|x| x.is_nan()).count();
        let present = || numbers.iter().copied().filter(|x| !x.is_nan());
        if present().next().is_some() {
            report.range = Some((present().fold(f64::INFINITY, f64::min), present().fold(f64::NEG_INFINITY, f64::max)));
        }
    }
    match column.into_levels() {
        Ok(levels) => {
            let sizes = levels.sizes();
            report.n_missing = levels.codes.iter().filter(|code| code.is_none()).count();
            report.n_levels = Some(sizes.iter().filter(|size| **size > 0).count());
            let mut order: Vec<usize> = (0..sizes.len()).filter(|&level| sizes[level] > 0).collect();
            order.sort_by_key(|&level| std::cmp::Reverse(sizes[level]));
            let shown = order.iter().take(SHOWN_LEVELS);
            report.levels =
                shown.map(|&level| LabelCount { label: levels.names[level].clone(), n_cells: sizes[level] }).collect();
            (report, Some(levels))
        }
        Err(error) if numbers.is_none() => (unreadable(report.name, error.to_string()), None),
        // Numbers with fractions are no categories, and that is fine.
        Err(_) => (report, None),
    }
}

/// A command line under construction.
struct SuggestedCommand(Vec<String>);

impl SuggestedCommand {
    fn add(&mut self, flag: &str, value: Option<&str>) {
        self.0.push(flag.to_string());
        self.0.extend(value.map(quoted));
    }
}

impl Inspection {
    /// Finds the columns to use and fills in the command; adds warnings about what it found.
    fn suggest(&mut self, looked: &LookedAt, options: &OpenOptions) -> Result<()> {
        let mut command = SuggestedCommand(vec!["svae-cpu run --data".to_string(), quoted(&self.file)]);
        for further in options.further {
            command.add("--data", Some(&further.display().to_string()));
        }
        if let Some(genome) = options.genome {
            command.add("--genome", Some(genome));
        }
        if let Some(modality) = options.modality {
            command.add("--modality", Some(modality));
        }
        self.suggest_matrix(options.layer, &mut command);
        for labels in options.labels.into_iter().chain(options.lane_labels.iter().copied()) {
            command.add("--labels", Some(&labels.display().to_string()));
        }
        match self.suggest_reading(looked, &mut command)? {
            Some((at, reading)) => {
                self.suggest_batch(at, &looked.levels, &reading, &mut command);
                if self.n_genes > MANY_GENES.0 {
                    command.add("--top-genes", Some(&MANY_GENES.1.to_string()));
                }
            }
            None if !looked.guides.is_empty() => self.suggest_guides(looked.guides, &mut command),
            None if looked.levels.iter().any(Option::is_some) => {
                let problem = "no column of the cells looks like the intervention; name it with --label-key";
                self.warnings.push(problem.to_string());
                command.add("--label-key COLUMN", None);
            }
            None => {
                let problem = "the file has no labels; give a table of barcodes and interventions with --labels";
                self.warnings.push(problem.to_string());
                command.add("--labels FILE", None);
            }
        }
        self.command = command.0.join(" ");
        Ok(())
    }

    /// How the interventions are best read, and the column that they are read from, if it is one.
    fn suggest_reading(
        &mut self,
        looked: &LookedAt,
        command: &mut SuggestedCommand,
    ) -> Result<Option<(Option<usize>, SuggestedReading)>> {
        let reading = match self.best_label(looked) {
            Some(at) => {
                let name = &self.columns[at].name;
                command.add("--label-key", Some(name));
                let of_rows = looked.table.filter(|table| at < looked.n_of_table && table.has_several_rows());
                let reading = match of_rows {
                    Some(table) => {
                        command.add("--several-interventions", Some("keep"));
                        SuggestedReading::of(&from_table_rows(&table.all_values(name)?, None), None)?
                    }
                    None => SuggestedReading::of_labels(looked.levels[at].as_ref().expect("a label has levels"))?,
                };
                (Some(at), reading)
            }
            None => match self.suggest_columns(looked, command)? {
                Some(reading) => (None, reading),
                None => return Ok(None),
            },
        };
        self.suggest_interventions(&reading.1, command);
        Ok(Some(reading))
    }

    /// Columns of 0 and 1 that are called alike, or all columns of a table that has no others.
    fn suggest_columns(&self, looked: &LookedAt, command: &mut SuggestedCommand) -> Result<Option<SuggestedReading>> {
        let binary = |at: &usize| looked.binary[*at];
        let of_table: Vec<usize> = (0..looked.n_of_table).collect();
        let (entry, chosen) = match of_table.len() > 1 && of_table.iter().all(binary) {
            true => ("*".to_owned(), of_table),
            false => {
                let names = (0..self.columns.len()).filter(binary).map(|at| self.columns[at].name.as_str());
                let Some(beginning) = shared_beginning(names) else { return Ok(None) };
                let begins = |at: &usize| binary(at) && self.columns[*at].name.starts_with(&beginning);
                let chosen = (0..self.columns.len()).filter(begins).collect();
                (beginning, chosen)
            }
        };
        command.add("--intervention-columns", Some(&entry));
        let beginning = entry.trim_end_matches('*').len();
        let names: Vec<String> = chosen.iter().map(|&at| self.columns[at].name[beginning..].to_owned()).collect();
        let mut rows = vec![Some(Vec::new()); self.n_cells];
        for (number, &at) in chosen.iter().enumerate() {
            let Some(levels) = &looked.levels[at] else { continue };
            let is_one = |code: &Option<u32>| {
                code.is_some_and(|code| ["1", "True"].contains(&levels.names[code as usize].as_str()))
            };
            for (row, _) in rows.iter_mut().zip(&levels.codes).filter(|(_, code)| is_one(code)) {
                row.get_or_insert_default().push((number as u32, 1.0));
            }
        }
        SuggestedReading::of(&Assignments::from_rows(rows, &names), None).map(Some)
    }

    /// Guides among the features, called from their counts.
    fn suggest_guides(&mut self, guides: &[String], command: &mut SuggestedCommand) {
        self.warnings.push(format!(
            "there are no labels, but counts of {} guides ({}); --guide-threshold says from which count on a cell received one",
            guides.len(),
            first_few(guides)
        ));
        command.add("--guide-threshold", Some(GUIDE_COUNTS));
        let (controls, others): (Vec<&str>, Vec<&str>) =
            guides.iter().map(String::as_str).partition(|name| guards::is_usual_control(name));
        if !controls.is_empty() {
            command.add("--control", Some(&guards::control_list(&controls, &others)));
        }
        command.add("--drop-unlabelled-cells", None);
    }

    /// The matrix to read: the first, if it holds counts, else one that does.
    fn suggest_matrix(&mut self, layer: Option<&str>, command: &mut SuggestedCommand) {
        let Some(matrix) = self.matrices.first() else { return };
        let is = |matrix: &MatrixReport, kind: MatrixKind| matrix.looks_like == kind.describe();
        // What was made 0 and 1 is no match for counts.
        let binary = is(matrix, MatrixKind::Binary)
            && self.matrices.iter().any(|other| other.n_genes == matrix.n_genes && is(other, MatrixKind::Counts));
        if matrix.is_counts && !binary {
            if let Some(layer) = layer {
                command.add("--layer", Some(layer));
            }
            return;
        }
        // A layer of the same genes rather than `raw`.
        let others = || {
            self.matrices.iter().skip(1).filter(|other| other.is_counts && !(binary && is(other, MatrixKind::Binary)))
        };
        let other = others().find(|other| other.name == "counts").or_else(|| others().next());
        let problem = format!("{} holds {}, not raw counts", matrix.name, matrix.looks_like);
        match other {
            Some(other) => {
                self.warnings.push(format!("{problem}; {} holds raw counts", other.name));
                command.add("--layer", Some(&other.name));
            }
            None => self.warnings.push(format!("{problem}, and no other matrix of the file holds any")),
        }
    }

    /// The levels of a column, if they are few enough to be groups of cells.
    fn usable<'a>(&self, at: usize, levels: &'a [Option<Levels>]) -> Option<&'a Levels> {
        let n_levels = self.columns[at].n_levels?;
        levels[at].as_ref().filter(|_| n_levels >= 2 && n_levels <= (self.n_cells / 2).max(2))
    }

    /// The column that most likely holds the intervention, if one is likely to.
    fn best_label(&self, looked: &LookedAt) -> Option<usize> {
        let LookedAt { levels, n_of_table, .. } = looked;
        let has_control = |found: &Levels| found.names.iter().any(|name| guards::is_usual_control(name));
        let score = |at: usize| -> usize {
            let Some(found) = self.usable(at, levels) else { return 0 };
            let name = self.columns[at].name.to_lowercase();
            // A column of 0 and 1 is one of many interventions at most.
            if looked.binary[at] {
                return 0;
            }
            let number = matches!(self.columns[at].kind.as_str(), "integer" | "number");
            let usual = USUAL_LABELS.contains(&name.as_str());
            let similar = !number && LABEL_PARTS.iter().any(|part| name.contains(part));
            // The order of the usual names decides between two.
            let rank = USUAL_LABELS.iter().rev().position(|usual| *usual == name).unwrap_or(0);
            1000 * (4 * usual as usize + 3 * has_control(found) as usize + 2 * similar as usize)
                + 10_000 * (at < *n_of_table) as usize
                + rank
        };
        (0..levels.len()).max_by_key(|&at| (score(at), std::cmp::Reverse(at))).filter(|&at| score(at) >= 2000)
    }

    /// What separates interventions, controls, and what cells and interventions to leave out.
    fn suggest_interventions(&mut self, reading: &SuggestedReading, command: &mut SuggestedCommand) {
        if let Some(separator) = reading.separator {
            command.add("--combination-separator", Some(separator));
        }
        if reading.has_several() {
            self.cells_by_number = reading.cells_by_number.clone();
        }
        if !reading.controls.is_empty() {
            let controls: Vec<&str> = reading.controls.iter().map(String::as_str).collect();
            let others: Vec<&str> = reading.sizes.iter().map(|(name, _)| name.as_str()).collect();
            command.add("--control", Some(&guards::control_list(&controls, &others)));
        }
        if reading.n_missing > 0 {
            self.warnings.push(format!("{} of {} cells have no label", reading.n_missing, self.n_cells));
            command.add("--drop-unlabelled-cells", None);
        }
        self.warnings.extend(reading.look_like_guides());
        let few = reading.sizes.iter().filter(|(_, size)| (1..FEW_CELLS).contains(size)).count();
        if few > 0 && reading.sizes.iter().any(|(_, size)| *size >= FEW_CELLS) {
            self.warnings.push(format!("{few} interventions have fewer than {FEW_CELLS} cells"));
            command.add("--min-cells-per-label", Some(&FEW_CELLS.to_string()));
        }
    }

    /// The column of the batch, if one has a usual name and can be told from the interventions, whose column is `label`.
    fn suggest_batch(
        &mut self,
        label: Option<usize>,
        levels: &[Option<Levels>],
        reading: &SuggestedReading,
        command: &mut SuggestedCommand,
    ) {
        let batch = USUAL_BATCHES.iter().find_map(|usual| {
            (0..levels.len()).find(|&at| {
                Some(at) != label && self.usable(at, levels).is_some() && self.columns[at].name.to_lowercase() == *usual
            })
        });
        let Some(at) = batch else { return };
        let Some(Levels { names, codes, .. }) = &levels[at] else { return };
        if codes.iter().any(Option::is_none) {
            return;
        }
        let mut rows = InterventionRows::default();
        reading.rows.iter().for_each(|row| rows.push(row));
        let name = self.columns[at].name.clone();
        let codes = codes.iter().flatten().copied().collect();
        let covariate = Categorical { name: name.clone(), levels: names.clone(), codes };
        match guards::confounding(&covariate, &rows, &reading.names) {
            Ok(warning) => {
                self.warnings.extend(warning);
                command.add("--batch-key", Some(&name));
            }
            Err(error) => self.warnings.push(format!("`{name}` cannot be the batch: {}", error.problem)),
        }
    }

    /// As one JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("an inspection is plain data")
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{}: {}, {} cells x {} genes\n", self.file, self.format, self.n_cells, self.n_genes);
        text += "\nMatrices\n";
        for matrix in &self.matrices {
            let compression = matrix.compression.as_ref().map_or_else(String::new, |name| format!(", {name}"));
            text += &format!(
                "  {}: {} x {}, {} {}{compression}, {:.1} % not zero, largest {} in a sample: {}\n",
                matrix.name,
                matrix.n_cells,
                matrix.n_genes,
                matrix.storage,
                matrix.dtype,
                100.0 * matrix.density,
                matrix.largest,
                matrix.looks_like,
            );
        }
        text += "\nColumns of the cells\n";
        if self.columns.is_empty() {
            text += "  none\n";
        }
        for column in &self.columns {
            text += &format!("  {}: {}", column.name, column.kind);
            if let Some(n) = column.n_levels {
                text += &format!(", {n} levels");
            }
            if let Some((low, high)) = column.range {
                text += &format!(", {low} to {high}");
            }
            if column.n_missing > 0 {
                text += &format!(", {} missing", column.n_missing);
            }
            // A value per cell is a name, and many numbers are a measurement.
            let measured = column.range.is_some() && column.n_levels.is_some_and(|n| n > 50);
            if !measured && column.levels.first().is_some_and(|level| level.n_cells > 1) {
                let shown: Vec<String> =
                    column.levels.iter().map(|level| format!("{} ({})", level.label, level.n_cells)).collect();
                let more = column.n_levels.is_some_and(|n| n > shown.len());
                text += &format!(": {}{}", shown.join(", "), if more { ", ..." } else { "" });
            }
            text.push('\n');
        }
        if !self.cells_by_number.is_empty() {
            let of = |count: &NumberCount| match count.n_interventions {
                0 => format!("{} under none", count.n_cells),
                1 => format!("{} under one", count.n_cells),
                n => format!("{} under {n}", count.n_cells),
            };
            let shown: Vec<String> = self.cells_by_number.iter().map(of).collect();
            text += &format!(
                "\nCells by number of interventions, as the command below reads them\n  {}\n",
                shown.join(", ")
            );
        }
        if !self.warnings.is_empty() {
            text += "\nNotice\n";
            self.warnings.iter().for_each(|warning| text += &format!("  {warning}\n"));
        }
        text += &format!("\nTrain on it with\n  {}", self.command);
        text
    }
}

/// A word of a command line, in quotes if a shell would change it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=,+:@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name)
    }

    /// The command without its first words, which name the file.
    fn flags(inspection: &Inspection) -> &str {
        inspection.command.split_once(&quoted(&inspection.file)).expect("the file is named").1.trim()
    }

    #[test]
    fn a_plain_file_and_its_command() {
        let found = inspect(&fixture("anndata0_12_csr_lzf_u16.h5ad"), None, None, None).unwrap();
        assert_eq!((found.n_cells, found.n_genes, found.matrices.len()), (12, 9, 1));
        let matrix = &found.matrices[0];
        assert_eq!((matrix.name.as_str(), matrix.storage.as_str(), matrix.dtype.as_str()), ("X", "CSR", "uint16"));
        assert_eq!((matrix.compression.as_deref(), matrix.largest, matrix.is_counts), (Some("lzf"), 4664.0, true));
        let column = |name: &str| found.columns.iter().find(|column| column.name == name).unwrap();
        assert_eq!((column("perturbation").n_levels, column("perturbation").levels[0].n_cells), (Some(3), 4));
        assert_eq!((column("ncounts").kind.as_str(), column("ncounts").range), ("number", Some((0.5, 11.5))));
        assert_eq!(flags(&found), "--label-key perturbation --control control --batch-key batch");
        assert!(found.text().contains("raw counts") && found.to_json().contains("\"n_cells\": 12"));
    }

    #[test]
    fn logarithms_in_x_point_to_the_layer_of_counts() {
        let found = inspect(&fixture("anndata0_12_layers.h5ad"), None, None, None).unwrap();
        let looks: Vec<(&str, &str, &str)> =
            found.matrices.iter().map(|m| (m.name.as_str(), m.storage.as_str(), m.looks_like.as_str())).collect();
        assert_eq!(
            looks,
            [
                ("X", "CSR", "log-normalised values"),
                ("counts", "CSC", "raw counts"),
                ("dense", "dense", "raw counts"),
                ("raw", "CSR", "raw counts")
            ]
        );
        assert_eq!(found.matrices[3].n_genes, 11);
        assert!(flags(&found).starts_with("--layer counts --label-key perturbation"), "{}", found.command);
        assert!(
            found.warnings.iter().any(|warning| warning.contains("X holds log-normalised")),
            "{:?}",
            found.warnings
        );
    }

    #[test]
    fn a_file_without_labels_asks_for_them() {
        let path = fixture("tenx_v3.h5");
        let found = inspect(&path, None, None, None).unwrap();
        assert_eq!(flags(&found), "--guide-threshold 5 --drop-unlabelled-cells", "its features include guides");
        let found = inspect(&fixture("tenx_v2.h5"), None, None, None).unwrap();
        assert!(flags(&found).ends_with("--label-key COLUMN"), "{}", found.command);
        let labels = fixture("labels.csv");
        let found = inspect(&path, None, None, Some(&labels)).unwrap();
        assert!(
            flags(&found).ends_with("--label-key intervention --control control --batch-key batch"),
            "{}",
            found.command
        );
        let found = inspect(&fixture("anndata0_12_nullable.h5ad"), None, None, None).unwrap();
        assert!(found.command.contains("--drop-unlabelled-cells"), "{}", found.command);
    }

    #[test]
    fn words_that_a_shell_would_change_are_quoted() {
        assert_eq!(quoted("a/b-1.h5ad"), "a/b-1.h5ad");
        assert_eq!(quoted("non targeting's"), "'non targeting'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
