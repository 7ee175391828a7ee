//! From a file to a checked [`Dataset`]: what every format has in common, and the one entry point [`load`].

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use super::counts::{Counts, CountsBuilder};
use super::dataset::{Categorical, Continuous, Covariates, Dataset, InterventionRows, Truth};
use super::h5ad::H5ad;
use super::npz::{ArrayStream, ElementKind, Npz, NpzWriter, list};
use crate::error::{InputError, Result};

/// Columns that usually hold the intervention, looked for when none is named.
const USUAL_LABELS: [&str; 12] = [
    "perturbation",
    "intervention",
    "condition",
    "treatment",
    "guide_identity",
    "guide_id",
    "target_gene",
    "gene",
    "target",
    "label",
    "labels",
    "chem",
];
/// Stored values converted at a time.
pub(crate) const BLOCK: usize = 1 << 20;

/// Which annotations of the cells to use, and how.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadOptions {
    /// Column of the intervention label; if absent, one of the usual names.
    pub label_key: Option<String>,
    /// Column of the batch label: the first categorical covariate.
    pub batch_key: Option<String>,
    /// Further categorical covariates.
    pub categorical_covariates: Vec<String>,
    /// Continuous covariates.
    pub continuous_covariates: Vec<String>,
    /// Column of size factors; if absent, the total count of each cell.
    pub size_factor_key: Option<String>,
    /// Whether cells without any count are left out instead of refused.
    pub drop_empty_cells: bool,
    /// Whether the cells are taken without labels, for a model that was trained on others: all get one intervention.
    pub unlabelled: bool,
}

/// A data set and what there is to say about how it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The data set.
    pub dataset: Dataset,
    /// Plain sentences for the user, without a final full stop.
    pub notes: Vec<String>,
}

/// Reads a screen: `.h5ad` (AnnData) or `.npz` (see [`write_npz`] for the arrays).
///
/// # Errors
/// [`InputError`], with the file and the cell and gene where that makes sense, if the file is
/// absent, of another kind or damaged; if shapes disagree; if a count is negative, not whole, not finite or above
/// 2^32 - 1; if a cell has no counts (unless they are dropped), no label, or a size factor that is not positive.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Loaded> {
    match path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase).as_deref() {
        Some("npz") => assemble(&NpzScreen { npz: Npz::open(path)? }, options),
        Some("h5ad") => assemble(&H5ad::open(path)?, options),
        _ => Err(InputError::new(
            "files of this kind are not read",
            "give an AnnData file (.h5ad) or a NumPy archive (.npz)",
        )
        .in_file(path)
        .into()),
    }
}

/// A file that holds a screen: what each format provides and [`assemble`] checks.
pub(crate) trait ScreenFile {
    /// The file.
    fn path(&self) -> &Path;
    /// Numbers of cells and genes.
    fn shape(&self) -> Result<(usize, usize)>;
    /// Names of the cells, if stored.
    fn cell_names(&self) -> Result<Option<Vec<String>>>;
    /// Names of the genes, if stored.
    fn gene_names(&self) -> Result<Option<Vec<String>>>;
    /// Where the counts are, for messages.
    fn counts_place(&self) -> String;
    /// Passes every cell to `sink`, in order.
    fn read_counts(&self, sink: &mut CountsSink) -> Result<()>;
    /// Names of the columns that annotate cells.
    fn column_names(&self) -> Result<Vec<String>>;
    /// Where a column is, for messages.
    fn column_place(&self, name: &str) -> String;
    /// One column; `label` says that it is read as the intervention.
    fn column(&self, name: &str, label: bool) -> Result<Column>;
    /// A column that holds size factors even if none is named.
    fn stored_library(&self) -> Option<&'static str>;
    /// The truth of a simulation, if stored.
    fn truth(&self) -> Result<Option<RawTruth>>;
}

/// A column of cell annotations as stored.
#[derive(Debug)]
pub(crate) enum Column {
    /// Levels, the numbers they stand for if they are numbers, and a level per cell (negative: missing).
    Categorical {
        levels: Vec<String>,
        numbers: Option<Vec<i64>>,
        codes: Vec<i64>,
    },
    /// Text; empty or "nan" is missing.
    Strings(Vec<String>),
    Integers(Vec<i64>),
    /// Floating point; NaN is missing.
    Numbers(Vec<f64>),
    Flags(Vec<bool>),
}

/// True latents and prior means as stored, each with its shape.
#[derive(Debug)]
pub(crate) struct RawTruth {
    pub latents: (Vec<usize>, Vec<f64>),
    pub prior_means: (Vec<usize>, Vec<f64>),
}

/// A column read as categories.
struct Levels {
    names: Vec<String>,
    numbers: Option<Vec<i64>>,
    /// Level of each cell, `None` if missing.
    codes: Vec<Option<u32>>,
}

impl Column {
    fn len(&self) -> usize {
        match self {
            Column::Categorical { codes, .. } => codes.len(),
            Column::Strings(values) => values.len(),
            Column::Integers(values) => values.len(),
            Column::Numbers(values) => values.len(),
            Column::Flags(values) => values.len(),
        }
    }

    /// The column as categories: the stored order of levels, else ascending.
    fn into_levels(self) -> Result<Levels, InputError> {
        match self {
            Column::Categorical { levels, numbers, codes } => {
                let mut seen = BTreeSet::new();
                if let Some(twice) = levels.iter().find(|level| !seen.insert(*level)) {
                    return Err(InputError::new(format!("the level `{twice}` is listed twice"), "merge the two"));
                }
                let n_levels = levels.len() as i64;
                if let Some(n) = codes.iter().position(|&code| code >= n_levels) {
                    return Err(InputError::new(
                        format!("cell {n} has level number {}, but there are {n_levels} levels", codes[n]),
                        "write the file again",
                    ));
                }
                let codes = codes.into_iter().map(|code| u32::try_from(code).ok()).collect();
                Ok(Levels { names: levels, numbers, codes })
            }
            Column::Strings(values) => {
                let present = |value: &String| !value.is_empty() && value != "nan";
                Ok(Levels::ascending(values.into_iter().map(|value| present(&value).then_some(value)).collect(), None))
            }
            Column::Integers(values) => {
                let values = values.into_iter().map(Some).collect();
                Ok(Levels::ascending(values, Some(|value: &i64| *value)))
            }
            Column::Numbers(values) => {
                // 2^53: beyond, neighbouring whole numbers are one and the same.
                if let Some(value) = values.iter().find(|x| !x.is_nan() && (x.fract() != 0.0 || x.abs() > 9e15)) {
                    return Err(InputError::new(
                        format!("it holds numbers such as {value}, not categories"),
                        "name a categorical, text or integer column",
                    ));
                }
                let values = values.into_iter().map(|x| (!x.is_nan()).then_some(x as i64)).collect();
                Ok(Levels::ascending(values, Some(|value: &i64| *value)))
            }
            Column::Flags(values) => {
                let name = |flag| Some(if flag { "True" } else { "False" }.to_string());
                Ok(Levels::ascending(values.into_iter().map(name).collect(), None))
            }
        }
    }

    /// The column as numbers.
    fn into_numbers(self) -> Result<Vec<f64>, InputError> {
        match self {
            Column::Integers(values) => Ok(values.into_iter().map(|x| x as f64).collect()),
            Column::Numbers(values) => Ok(values),
            Column::Flags(values) => Ok(values.into_iter().map(f64::from).collect()),
            Column::Categorical { .. } | Column::Strings(_) => {
                Err(InputError::new("it holds categories or text, not numbers", "name a numeric column"))
            }
        }
    }
}

impl Levels {
    fn ascending<T: Ord + Clone + Display>(values: Vec<Option<T>>, number: Option<fn(&T) -> i64>) -> Self {
        let levels: Vec<T> = values.iter().flatten().collect::<BTreeSet<_>>().into_iter().cloned().collect();
        let code = |value: T| levels.binary_search(&value).expect("each value is a level") as u32;
        Self {
            codes: values.into_iter().map(|value| value.map(code)).collect(),
            names: levels.iter().map(T::to_string).collect(),
            numbers: number.map(|number| levels.iter().map(number).collect()),
        }
    }

    /// Restricts to the levels in use; the old number of each level that stays.
    fn drop_unused(&mut self) -> Vec<usize> {
        let mut used = vec![false; self.names.len()];
        self.codes.iter().flatten().for_each(|&code| used[code as usize] = true);
        let kept: Vec<usize> = (0..used.len()).filter(|&level| used[level]).collect();
        let mut renumbered = vec![0; used.len()];
        kept.iter().enumerate().for_each(|(new, &old)| renumbered[old] = new as u32);
        self.codes.iter_mut().flatten().for_each(|code| *code = renumbered[*code as usize]);
        self.names = kept.iter().map(|&level| std::mem::take(&mut self.names[level])).collect();
        self.numbers = self.numbers.as_ref().map(|numbers| kept.iter().map(|&level| numbers[level]).collect());
        kept
    }
}

/// Receives the counts of one cell after another and checks every value.
pub(crate) struct CountsSink<'a> {
    path: &'a Path,
    place: String,
    cell_names: &'a [String],
    gene_names: &'a [String],
    builder: CountsBuilder,
    /// Total count of each finished cell.
    totals: Vec<u64>,
    /// The current cell.
    row: Vec<(u32, u32)>,
    ascending: bool,
    /// Cells whose entries were out of order or doubled.
    n_mended: usize,
}

impl<'a> CountsSink<'a> {
    fn new(path: &'a Path, place: String, cell_names: &'a [String], gene_names: &'a [String]) -> Self {
        Self {
            path,
            place,
            cell_names,
            gene_names,
            builder: CountsBuilder::new(gene_names.len()),
            totals: Vec::new(),
            row: Vec::new(),
            ascending: true,
            n_mended: 0,
        }
    }

    /// Number of genes.
    pub fn n_genes(&self) -> usize {
        self.gene_names.len()
    }

    /// Number of cells to come in all.
    pub fn n_cells(&self) -> usize {
        self.cell_names.len()
    }

    /// Adds a value of the current cell; `gene` is checked too.
    #[inline]
    pub fn push(&mut self, gene: i64, value: f64) -> Result<()> {
        // Saturates below 0 and above u32::MAX, NaN becomes 0: in each case the values differ.
        let count = value as u32;
        if count as f64 != value || gene < 0 || gene >= self.n_genes() as i64 {
            return Err(self.bad_entry(gene, value).into());
        }
        if count > 0 {
            let gene = gene as u32;
            self.ascending &= self.row.last().is_none_or(|&(last, _)| last < gene);
            self.row.push((gene, count));
        }
        Ok(())
    }

    /// Ends the current cell; entries out of order are sorted, entries of one gene summed, as SciPy understands them.
    pub fn end_cell(&mut self) -> Result<()> {
        if !self.ascending {
            self.row.sort_by_key(|&(gene, _)| gene);
            let mut merged: Vec<(u32, u32)> = Vec::with_capacity(self.row.len());
            for &(gene, count) in &self.row {
                match merged.last_mut() {
                    Some((last, sum)) if *last == gene => match sum.checked_add(count) {
                        Some(total) => *sum = total,
                        None => return Err(self.bad_entry(gene as i64, *sum as f64 + count as f64).into()),
                    },
                    _ => merged.push((gene, count)),
                }
            }
            self.row = merged;
            self.ascending = true;
            self.n_mended += 1;
        }
        let mut total = 0;
        for &(gene, count) in &self.row {
            self.builder.push(gene as usize, count);
            total += count as u64;
        }
        self.builder.end_cell();
        self.totals.push(total);
        self.row.clear();
        Ok(())
    }

    /// A fault of the matrix as a whole.
    pub fn fault(&self, problem: impl Into<String>, remedy: impl Into<String>) -> InputError {
        InputError::new(problem, remedy).in_file(self.path).at(&*self.place)
    }

    #[cold]
    fn bad_entry(&self, gene: i64, value: f64) -> InputError {
        let cell = cell_place(self.totals.len(), self.cell_names);
        let Some(gene_name) = usize::try_from(gene).ok().and_then(|gene| self.gene_names.get(gene)) else {
            return InputError::new(
                format!("a value belongs to gene number {gene}, but there are {} genes", self.n_genes()),
                "the matrix is damaged, write the file again",
            )
            .in_file(self.path)
            .at(format!("{}, {cell}", self.place));
        };
        let (problem, remedy) = if value.is_nan() {
            ("a count is missing (NaN)".to_string(), "give raw counts, with 0 where nothing was seen")
        } else if value.is_infinite() {
            ("a count is infinite".to_string(), "give raw counts")
        } else if value < 0.0 {
            (
                format!("the count is {value}, below zero; the matrix looks scaled or batch-corrected"),
                "give the raw counts (whole numbers)",
            )
        } else if value.fract() != 0.0 {
            (
                format!("the count is {value}, not a whole number; the matrix looks normalised or log-transformed"),
                "give the raw counts",
            )
        } else {
            (format!("the count is {value}, above the largest that is read ({})", u32::MAX), "check the matrix")
        };
        InputError::new(problem, remedy)
            .in_file(self.path)
            .at(format!("{}, {cell}, gene {gene} (`{gene_name}`)", self.place))
    }
}

/// Passes a CSR matrix to `sink`. `next(range, genes, values)` delivers the stored entries of `range`; the ranges
/// follow one another and hold `block` entries, the last one fewer.
pub(crate) fn read_csr(
    sink: &mut CountsSink,
    indptr: &[i64],
    n_stored: usize,
    block: usize,
    mut next: impl FnMut(Range<usize>, &mut Vec<i64>, &mut Vec<f64>) -> Result<()>,
) -> Result<()> {
    const REMEDY: &str = "the sparse matrix is damaged, write the file again";
    if indptr.len() != sink.n_cells() + 1 {
        return Err(sink
            .fault(format!("`indptr` has {} values for {} cells", indptr.len(), sink.n_cells()), REMEDY)
            .into());
    }
    if indptr[0] != 0 || indptr[indptr.len() - 1] != n_stored as i64 {
        return Err(sink
            .fault(
                format!(
                    "`indptr` runs from {} to {}, but {n_stored} values are stored",
                    indptr[0],
                    indptr[indptr.len() - 1]
                ),
                REMEDY,
            )
            .into());
    }
    if let Some(n) = indptr.windows(2).position(|pair| pair[1] < pair[0]) {
        let place = format!("{}, {}", sink.place, cell_place(n, sink.cell_names));
        return Err(sink
            .fault(format!("`indptr` falls from {} to {}", indptr[n], indptr[n + 1]), REMEDY)
            .at(place)
            .into());
    }
    let (mut genes, mut values) = (Vec::new(), Vec::new());
    let mut cell = 0;
    for start in (0..n_stored).step_by(block) {
        let range = start..(start + block).min(n_stored);
        genes.clear();
        values.clear();
        next(range.clone(), &mut genes, &mut values)?;
        for (at, (&gene, &value)) in range.zip(genes.iter().zip(&values)) {
            while indptr[cell + 1] <= at as i64 {
                sink.end_cell()?;
                cell += 1;
            }
            sink.push(gene, value)?;
        }
    }
    for _ in cell..sink.n_cells() {
        sink.end_cell()?;
    }
    Ok(())
}

fn cell_place(n: usize, cell_names: &[String]) -> String {
    match cell_names.get(n) {
        Some(name) => format!("cell {n} (`{name}`)"),
        None => format!("cell {n}"),
    }
}

/// Names from 0 on, for cells and genes that have none.
fn default_names(prefix: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{prefix}_{i}")).collect()
}

/// Reads and checks everything that `options` ask for.
fn assemble(file: &impl ScreenFile, options: &LoadOptions) -> Result<Loaded> {
    let path = file.path();
    let mut notes = Vec::new();
    let (n_cells, n_genes) = file.shape()?;
    for (n, what) in [(n_cells, "cells"), (n_genes, "genes")] {
        if n == 0 {
            return Err(InputError::new(format!("it holds no {what}"), "check how it was made").in_file(path).into());
        }
    }
    let names = |stored: Option<Vec<String>>, n: usize, what: &str| -> Result<Vec<String>> {
        let names = stored.unwrap_or_else(|| default_names(what, n));
        match names.len() == n {
            true => Ok(names),
            false => Err(InputError::new(
                format!("there are {} names for {n} {what}s", names.len()),
                "give one name each, or none at all",
            )
            .in_file(path)
            .into()),
        }
    };
    let mut cell_names = names(file.cell_names()?, n_cells, "cell")?;
    let gene_names = names(file.gene_names()?, n_genes, "gene")?;

    let label_key = if options.unlabelled { String::new() } else { choose_label(file, options, &mut notes)? };
    check_keys(file, options, &label_key)?;
    let read = |key: &str, label: bool| -> Result<Column> {
        let column = file.column(key, label)?;
        match column.len() {
            n if n == n_cells => Ok(column),
            n => Err(InputError::new(format!("it has {n} values for {n_cells} cells"), "give one value per cell")
                .in_file(path)
                .at(file.column_place(key))
                .into()),
        }
    };

    // Annotations first: they are quick to read and often where the mistake is.
    let mut labels = if options.unlabelled {
        Levels { names: vec!["unlabelled".to_owned()], numbers: None, codes: vec![Some(0); n_cells] }
    } else {
        let place = file.column_place(&label_key);
        read(&label_key, true)?.into_levels().map_err(|e| e.in_file(path).at(place))?
    };
    let categorical_keys: Vec<&String> = options.batch_key.iter().chain(&options.categorical_covariates).collect();
    let mut categorical = Vec::new();
    for key in &categorical_keys {
        let levels = read(key, false)?.into_levels().map_err(|e| e.in_file(path).at(file.column_place(key)))?;
        categorical.push(levels);
    }
    let numbers = |key: &str| -> Result<Vec<f64>> {
        read(key, false)?.into_numbers().map_err(|e| e.in_file(path).at(file.column_place(key)).into())
    };
    let mut continuous = Vec::new();
    for key in &options.continuous_covariates {
        continuous.push(Continuous { name: key.clone(), values: numbers(key)? });
    }
    let library_key = options.size_factor_key.as_deref().or(file.stored_library());
    let size_factors = library_key.map(numbers).transpose()?;

    let mut sink = CountsSink::new(path, file.counts_place(), &cell_names, &gene_names);
    file.read_counts(&mut sink)?;
    if sink.totals.len() != n_cells {
        return Err(sink
            .fault(format!("it has {} rows for {n_cells} cells", sink.totals.len()), "write the file again")
            .into());
    }
    if sink.n_mended > 0 {
        notes.push(format!(
            "{} cells had counts out of gene order or more than one count for a gene; these were sorted and summed",
            sink.n_mended
        ));
    }
    let (mut counts, totals): (Counts, Vec<u64>) = (sink.builder.finish(), sink.totals);

    let keep: Vec<usize> = (0..n_cells).filter(|&n| totals[n] > 0).collect();
    let n_empty = n_cells - keep.len();
    if keep.is_empty() {
        return Err(InputError::new("no cell has any count", "check the matrix").in_file(path).into());
    }
    if n_empty > 0 && !options.drop_empty_cells {
        let first = totals.iter().position(|&total| total == 0).expect("some cell is empty");
        return Err(InputError::new(
            format!("{n_empty} of {n_cells} cells have no counts at all, the first is this one"),
            "leave them out with --drop-empty-cells, or filter the file",
        )
        .in_file(path)
        .at(cell_place(first, &cell_names))
        .into());
    }
    let mut library: Vec<f64> = totals.iter().map(|&total| total as f64).collect();
    if let (Some(key), Some(values)) = (library_key, size_factors) {
        if options.size_factor_key.is_none() && library != values {
            notes.push(format!("size factors are those of {}", file.column_place(key)));
        }
        library = values;
        if let Some(&n) = keep.iter().find(|&&n| !(library[n] > 0.0 && library[n].is_finite())) {
            return Err(InputError::new(
                format!("the size factor of {} is {}", cell_place(n, &cell_names), library[n]),
                "size factors are positive numbers; mend it, or leave the column out to use total counts",
            )
            .in_file(path)
            .at(file.column_place(key))
            .into());
        }
    }
    let mut truth = if options.unlabelled { None } else { read_truth(file, n_cells, &labels, &mut notes)? };

    if n_empty > 0 {
        notes.push(format!("dropped {n_empty} of {n_cells} cells because they have no counts"));
        counts = counts.select(&keep);
        pick(&mut library, &keep);
        pick(&mut labels.codes, &keep);
        categorical.iter_mut().for_each(|levels| pick(&mut levels.codes, &keep));
        continuous.iter_mut().for_each(|covariate| pick(&mut covariate.values, &keep));
        if let Some((truth, _)) = &mut truth {
            let l = truth.n_latents;
            truth.latents = keep.iter().flat_map(|&n| &truth.latents[n * l..(n + 1) * l]).copied().collect();
        }
    }
    let original = |n: usize| cell_place(keep[n], &cell_names);
    let codes = |levels: &Levels, key: &str, what: &str| -> Result<Vec<u32>> {
        match levels.codes.iter().position(Option::is_none) {
            None => Ok(levels.codes.iter().flatten().copied().collect()),
            Some(first) => Err(InputError::new(
                format!(
                    "{} of {} cells have no {what}, the first is {}",
                    levels.codes.iter().filter(|code| code.is_none()).count(),
                    levels.codes.len(),
                    original(first)
                ),
                "label these cells or leave them out of the file",
            )
            .in_file(path)
            .at(file.column_place(key))
            .into()),
        }
    };
    let kept_levels = drop_unused(&mut labels, &file.column_place(&label_key), &mut notes);
    let label_codes = codes(&labels, &label_key, "intervention label")?;
    let mut covariates = Covariates::default();
    for (key, mut levels) in categorical_keys.into_iter().zip(categorical) {
        drop_unused(&mut levels, &file.column_place(key), &mut notes);
        let codes = codes(&levels, key, "value")?;
        covariates.categorical.push(Categorical { name: key.clone(), levels: levels.names, codes });
    }
    for covariate in &continuous {
        if let Some(n) = covariate.values.iter().position(|x| !x.is_finite()) {
            return Err(InputError::new(
                format!("the value of {} is {}", original(n), covariate.values[n]),
                "a continuous covariate needs a finite number for every cell",
            )
            .in_file(path)
            .at(file.column_place(&covariate.name))
            .into());
        }
    }
    covariates.continuous = continuous;
    let truth = truth.map(|(truth, rows)| {
        let l = truth.n_latents;
        let prior_means =
            kept_levels.iter().flat_map(|&level| &truth.prior_means[rows[level] * l..(rows[level] + 1) * l]);
        Truth { prior_means: prior_means.copied().collect(), ..truth }
    });
    if n_empty > 0 {
        pick(&mut cell_names, &keep);
    }
    let dataset = Dataset {
        source: path.display().to_string(),
        counts,
        library,
        interventions: InterventionRows::one_hot(label_codes.into_iter().map(|code| code as usize)),
        intervention_names: labels.names,
        gene_names,
        cell_names,
        covariates,
        truth,
    };
    Ok(Loaded { dataset, notes })
}

fn pick<T: Clone>(values: &mut Vec<T>, keep: &[usize]) {
    *values = keep.iter().map(|&n| values[n].clone()).collect();
}

fn drop_unused(levels: &mut Levels, place: &str, notes: &mut Vec<String>) -> Vec<usize> {
    let before = levels.names.clone();
    let kept = levels.drop_unused();
    let unused: Vec<&String> = before
        .iter()
        .enumerate()
        .filter(|(level, _)| kept.binary_search(level).is_err())
        .map(|(_, name)| name)
        .collect();
    if !unused.is_empty() {
        notes.push(format!("{place}: levels without cells are left out: {}", list(&unused)));
    }
    kept
}

fn choose_label(file: &impl ScreenFile, options: &LoadOptions, notes: &mut Vec<String>) -> Result<String> {
    let columns = file.column_names()?;
    if let Some(key) = &options.label_key {
        return Ok(key.clone());
    }
    let usual: Vec<&&str> = USUAL_LABELS.iter().filter(|name| columns.iter().any(|column| column == **name)).collect();
    match usual[..] {
        [key] => {
            notes.push(format!("interventions are read from {}", file.column_place(key)));
            Ok(key.to_string())
        }
        [] => Err(InputError::new(
            "none of the cells' columns has a usual name for the intervention",
            format!("name one of {} with --label-key", list(&columns)),
        )
        .in_file(file.path())
        .into()),
        _ => Err(InputError::new(
            format!("several columns could hold the intervention: {}", list(&usual)),
            "name the right one with --label-key",
        )
        .in_file(file.path())
        .into()),
    }
}

/// Every named column exists and no column is used for two things.
fn check_keys(file: &impl ScreenFile, options: &LoadOptions, label_key: &str) -> Result<()> {
    let columns = file.column_names()?;
    let categorical = options.batch_key.iter().chain(&options.categorical_covariates);
    let covariates: Vec<&String> = categorical.chain(&options.continuous_covariates).collect();
    let label_key = label_key.to_string();
    let label = (!options.unlabelled).then_some(&label_key);
    for key in covariates.iter().copied().chain(label).chain(&options.size_factor_key) {
        if !columns.contains(key) {
            return Err(InputError::new(
                "there is no such column of the cells",
                format!("the columns are {}", list(&columns)),
            )
            .in_file(file.path())
            .at(file.column_place(key))
            .into());
        }
    }
    if covariates.contains(&&label_key) {
        return Err(InputError::new(
            "the intervention label cannot be a covariate as well: the decoder would see the answer",
            "leave it out of the covariates",
        )
        .in_file(file.path())
        .at(file.column_place(&label_key))
        .into());
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = covariates.iter().find(|key| !seen.insert(**key)) {
        return Err(InputError::new("it is named as a covariate twice", "name it once")
            .in_file(file.path())
            .at(file.column_place(twice))
            .into());
    }
    Ok(())
}

/// The truth, with the row of `prior_means` of each level; `None` (and a note) if it does not fit.
fn read_truth(
    file: &impl ScreenFile,
    n_cells: usize,
    labels: &Levels,
    notes: &mut Vec<String>,
) -> Result<Option<(Truth, Vec<usize>)>> {
    let Some(RawTruth { latents, prior_means }) = file.truth()? else { return Ok(None) };
    let ([rows, n_latents], [n_means, also]) = (&latents.0[..], &prior_means.0[..]) else {
        notes.push("the stored truth is ignored: latents and prior means are not tables".to_string());
        return Ok(None);
    };
    let finite = latents.1.iter().chain(&prior_means.1).all(|x| x.is_finite());
    let n_levels = labels.names.len();
    // Numbered interventions number the rows too; named ones are counted.
    let by_number = labels.numbers.as_ref().and_then(|numbers| {
        numbers.iter().map(|&a| usize::try_from(a).ok().filter(|a| a < n_means)).collect::<Option<Vec<usize>>>()
    });
    let level_rows = by_number.or_else(|| (*n_means == n_levels).then(|| (0..n_levels).collect()));
    match level_rows {
        Some(level_rows) if *rows == n_cells && n_latents == also && *n_latents > 0 && finite => {
            Ok(Some((Truth { n_latents: *n_latents, latents: latents.1, prior_means: prior_means.1 }, level_rows)))
        }
        _ => {
            notes.push(format!(
                "the stored truth is ignored: latents {:?} and prior means {:?} do not fit {n_cells} cells under \
                 {n_levels} interventions, or are not finite",
                latents.0, prior_means.0
            ));
            Ok(None)
        }
    }
}

/// A screen in a .npz archive.
struct NpzScreen {
    npz: Npz,
}

impl NpzScreen {
    /// Arrays that are no columns of the cells.
    const RESERVED: [&str; 12] = [
        "x",
        "data",
        "indices",
        "indptr",
        "shape",
        "format",
        "_is_array",
        "gene_names",
        "cell_names",
        "intervention_names",
        "latents",
        "prior_means",
    ];

    fn is_sparse(&self) -> bool {
        !self.npz.contains("x") && self.npz.contains("data")
    }

    fn fault(&self, name: &str, problem: impl Into<String>, remedy: impl Into<String>) -> InputError {
        InputError::new(problem, remedy).in_file(self.npz.path()).at(format!("array `{name}`"))
    }

    fn vector<'a>(&'a self, name: &str) -> Result<ArrayStream<'a>> {
        let array = self.npz.array(name)?;
        match array.shape() {
            [_] => Ok(array),
            shape => Err(self.fault(name, format!("it has shape {shape:?}, not one axis"), "store a 1-d array").into()),
        }
    }

    fn names(&self, name: &str) -> Result<Option<Vec<String>>> {
        if !self.npz.contains(name) {
            return Ok(None);
        }
        Ok(Some(self.vector(name)?.into_strings()?.1))
    }

    fn dense_shape(&self, array: &ArrayStream) -> Result<(usize, usize)> {
        match array.shape() {
            &[n_cells, n_genes] => Ok((n_cells, n_genes)),
            shape => Err(self.fault("x", format!("it has shape {shape:?}"), "store a table, cells x genes").into()),
        }
    }
}

impl ScreenFile for NpzScreen {
    fn path(&self) -> &Path {
        self.npz.path()
    }

    fn shape(&self) -> Result<(usize, usize)> {
        if !self.is_sparse() {
            if !self.npz.contains("x") {
                return Err(InputError::new(
                    format!("it holds neither `x` nor `data`, but {}", list(self.npz.names())),
                    "store counts as `x` (cells x genes) or with scipy.sparse.save_npz",
                )
                .in_file(self.path())
                .into());
            }
            return self.dense_shape(&self.npz.array("x")?);
        }
        if self.npz.contains("format") {
            let format = self.npz.string("format")?;
            if format != "csr" {
                return Err(self
                    .fault(
                        "format",
                        format!("sparse matrices of format `{format}` are not read"),
                        "convert with .tocsr()",
                    )
                    .into());
            }
        }
        let shape = self.vector("shape")?.into_i64()?.1;
        match shape[..] {
            // Indices are four bytes wide at most; the number of cells is held against `indptr`.
            [n_cells @ 0..=i64::MAX, n_genes @ 0..=0xffff_ffff]
                if self.vector("indptr")?.shape()[0] as i64 - 1 == n_cells =>
            {
                Ok((n_cells as usize, n_genes as usize))
            }
            _ => Err(self
                .fault(
                    "shape",
                    format!("shape {shape:?} does not fit an `indptr` of {}", self.vector("indptr")?.shape()[0]),
                    "the sparse matrix is damaged, write the file again",
                )
                .into()),
        }
    }

    fn cell_names(&self) -> Result<Option<Vec<String>>> {
        self.names("cell_names")
    }

    fn gene_names(&self) -> Result<Option<Vec<String>>> {
        self.names("gene_names")
    }

    fn counts_place(&self) -> String {
        if self.is_sparse() { "sparse matrix".into() } else { "array `x`".into() }
    }

    fn read_counts(&self, sink: &mut CountsSink) -> Result<()> {
        if self.is_sparse() {
            let indptr = self.vector("indptr")?.into_i64()?.1;
            let (mut data, mut indices) = (self.vector("data")?, self.vector("indices")?);
            let n_stored = data.shape()[0];
            if indices.shape()[0] != n_stored {
                return Err(sink
                    .fault(
                        format!("there are {n_stored} values but {} indices", indices.shape()[0]),
                        "the sparse matrix is damaged, write the file again",
                    )
                    .into());
            }
            return read_csr(sink, &indptr, n_stored, BLOCK, |range, genes, values| {
                indices.next_i64(range.len(), genes)?;
                data.next_f64(range.len(), values)
            });
        }
        let mut x = self.npz.array("x")?;
        let (n_cells, n_genes) = self.dense_shape(&x)?;
        if x.is_fortran() {
            let (_, values) = x.into_f64()?;
            return push_dense(sink, n_genes, &values);
        }
        let rows = (BLOCK / n_genes).max(1);
        let mut values = Vec::new();
        for start in (0..n_cells).step_by(rows) {
            values.clear();
            x.next_f64(rows.min(n_cells - start) * n_genes, &mut values)?;
            push_dense(sink, n_genes, &values)?;
        }
        Ok(())
    }

    fn column_names(&self) -> Result<Vec<String>> {
        let names = self.npz.names().iter();
        Ok(names.filter(|name| !Self::RESERVED.contains(&name.as_str())).cloned().collect())
    }

    fn column_place(&self, name: &str) -> String {
        format!("array `{name}`")
    }

    fn column(&self, name: &str, label: bool) -> Result<Column> {
        let array = self.vector(name)?;
        if label && array.kind() == ElementKind::Integer && self.npz.contains("intervention_names") {
            let levels = self.names("intervention_names")?.expect("the array is there");
            return Ok(Column::Categorical { levels, numbers: None, codes: array.into_i64()?.1 });
        }
        Ok(match array.kind() {
            ElementKind::Integer => Column::Integers(array.into_i64()?.1),
            ElementKind::Bool => Column::Flags(array.into_i64()?.1.into_iter().map(|flag| flag != 0).collect()),
            ElementKind::Float => Column::Numbers(array.into_f64()?.1),
            ElementKind::Text => Column::Strings(array.into_strings()?.1),
        })
    }

    fn stored_library(&self) -> Option<&'static str> {
        self.npz.contains("library").then_some("library")
    }

    fn truth(&self) -> Result<Option<RawTruth>> {
        if !self.npz.contains("latents") || !self.npz.contains("prior_means") {
            return Ok(None);
        }
        let latents = self.npz.array_f64("latents")?;
        Ok(Some(RawTruth { latents, prior_means: self.npz.array_f64("prior_means")? }))
    }
}

/// Passes whole cells, row-major, to `sink`.
pub(crate) fn push_dense(sink: &mut CountsSink, n_genes: usize, values: &[f64]) -> Result<()> {
    for row in values.chunks_exact(n_genes) {
        for (gene, &value) in row.iter().enumerate() {
            sink.push(gene as i64, value)?;
        }
        sink.end_cell()?;
    }
    Ok(())
}

/// Writes a data set as .npz: `x` (cells x genes) if at least half of the counts are non-zero, else the arrays of
/// `scipy.sparse.save_npz`; `label` (number of the intervention of each cell) and `intervention_names`, `gene_names`,
/// `cell_names`, `library`, a column per covariate under its own name and, where known, `latents` (cells x L) and
/// `prior_means` (interventions x L). [`load`] gives the same data set back.
///
/// # Errors
/// [`InputError`] if a cell is under several interventions or a covariate has a name that
/// the archive needs; [`Error::Io`](crate::error::Error::Io) if it cannot be written.
pub fn write_npz(dataset: &Dataset, path: &Path) -> Result<()> {
    let (n_cells, n_genes) = (dataset.n_cells(), dataset.n_genes());
    let counts = &dataset.counts;
    let labels = (0..n_cells)
        .map(|n| dataset.interventions.single(n).map(|a| a as i64).ok_or(n))
        .collect::<Result<Vec<i64>, usize>>()
        .map_err(|n| {
            InputError::new("a cell under several interventions cannot be written to .npz", "write single ones")
                .at(cell_place(n, &dataset.cell_names))
        })?;
    let covariates = &dataset.covariates;
    let columns = covariates.categorical.iter().map(|c| &c.name).chain(covariates.continuous.iter().map(|c| &c.name));
    let mut taken: BTreeSet<&str> = NpzScreen::RESERVED.into_iter().chain(["label", "library"]).collect();
    for name in columns {
        if !taken.insert(name) {
            return Err(InputError::new(
                format!("a covariate called `{name}` cannot be written to .npz"),
                "give it another name",
            )
            .into());
        }
    }

    let mut npz = NpzWriter::create(path)?;
    if counts.n_nonzero() >= n_cells * n_genes / 2 {
        let mut table = vec![0; n_cells * n_genes];
        for (n, row) in table.chunks_exact_mut(n_genes).enumerate() {
            counts.row(n).for_each(|g, x| row[g] = x);
        }
        npz.add_u32("x", &[n_cells, n_genes], &table)?;
    } else {
        let (mut values, mut genes, mut indptr) = (Vec::new(), Vec::new(), vec![0]);
        for n in 0..n_cells {
            counts.row(n).for_each(|g, x| {
                values.push(x);
                genes.push(g as i64);
            });
            indptr.push(values.len() as i64);
        }
        npz.add_string("format", "csr")?;
        npz.add_i64("shape", &[2], &[n_cells as i64, n_genes as i64])?;
        npz.add_u32("data", &[values.len()], &values)?;
        npz.add_i64("indices", &[genes.len()], &genes)?;
        npz.add_i64("indptr", &[indptr.len()], &indptr)?;
    }
    npz.add_i64("label", &[n_cells], &labels)?;
    npz.add_f64("library", &[n_cells], &dataset.library)?;
    npz.add_strings("intervention_names", &dataset.intervention_names)?;
    npz.add_strings("gene_names", &dataset.gene_names)?;
    npz.add_strings("cell_names", &dataset.cell_names)?;
    for covariate in &covariates.categorical {
        let values: Vec<&String> = covariate.codes.iter().map(|&code| &covariate.levels[code as usize]).collect();
        npz.add_strings(&covariate.name, &values)?;
    }
    for covariate in &covariates.continuous {
        npz.add_f64(&covariate.name, &[n_cells], &covariate.values)?;
    }
    if let Some(truth) = &dataset.truth {
        npz.add_f64("latents", &[n_cells, truth.n_latents], &truth.latents)?;
        npz.add_f64("prior_means", &[dataset.n_interventions(), truth.n_latents], &truth.prior_means)?;
    }
    npz.finish()
}
