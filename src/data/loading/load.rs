//! From a file to a checked [`Dataset`]: what every format has in common, and the one entry point [`load`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::data::counts::ScreenCounts;
use crate::data::counts::on_disk::{DiskCounts, Identity};
use crate::data::dataset::{Categorical, Continuous, Covariates, Dataset, InterventionRows, Truth};
use crate::data::formats::counts_sink::{ByteProgress, CountsRead, CountsSink, cell_place};
use crate::data::formats::labels::{LabelTable, read_names};
use crate::data::formats::screen_file::{OpenOptions, RawTruth, ScreenFile};
use crate::data::formats::{
    column::{Column, Levels},
    open,
};
use crate::data::loading::guards;
use crate::data::loading::select_genes::highly_variable;
pub use crate::data::loading::summary::{DataSummary, Dropped, LabelCount};
use crate::error::{InputError, Result};
use crate::words::{first_few, nearest};

/// Columns that usually hold the intervention, looked for when none is named.
pub(crate) const USUAL_LABELS: [&str; 13] = [
    "perturbation",
    "intervention",
    "condition",
    "treatment",
    "guide_identity",
    "guide_id",
    "feature_call",
    "target_gene",
    "gene",
    "target",
    "label",
    "labels",
    "chem",
];

/// Which cells, genes and annotations to use, and how.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadOptions {
    /// Matrix of an AnnData file: a layer, `X` or `raw`; if absent, `X`.
    pub layer: Option<String>,
    /// Genome of a 10x file; if absent, all.
    pub genome: Option<String>,
    /// Table of labels (CSV or TSV): a row per barcode.
    pub labels: Option<PathBuf>,
    /// Column of the intervention label; if absent, one of the usual names.
    pub label_key: Option<String>,
    /// Labels of control cells, on which no intervention acts.
    pub control: Vec<String>,
    /// Column of the batch label: the first categorical covariate.
    pub batch_key: Option<String>,
    /// Further categorical covariates.
    pub categorical_covariates: Vec<String>,
    /// Continuous covariates.
    pub continuous_covariates: Vec<String>,
    /// Column of size factors; if absent, the total count of each cell over the genes that are used.
    pub size_factor_key: Option<String>,
    /// File of the genes to use.
    pub genes: Option<PathBuf>,
    /// Number of highly variable genes to use.
    pub top_genes: Option<usize>,
    /// Interventions with fewer cells are left out, with their cells.
    pub min_cells_per_label: usize,
    /// Cells with a lower total count, over all genes of the file, are left out.
    pub min_counts: u64,
    /// Whether cells without any count are left out instead of refused.
    pub drop_empty_cells: bool,
    /// Whether the cells are taken without labels, for a model that was trained on others: all get one intervention.
    pub unlabelled: bool,
    /// Whether cells without a label are left out instead of refused.
    pub drop_unlabelled_cells: bool,
    /// Bytes that counts may take in memory, where they stay in their file ([`ScreenCounts::disk`]).
    pub stream: Option<usize>,
}

/// A data set and what there is to say about how it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The data set.
    pub dataset: Dataset,
    /// Plain sentences for the user, without a final full stop.
    pub notes: Vec<String>,
    /// What was read, chosen and dropped; it holds the notes too, and what might be wrong with the data.
    pub summary: DataSummary,
}

/// Reads a screen: AnnData (`.h5ad`), 10x Genomics (`.h5`), a folder with a matrix-market file and its names, or `.npz`
/// (see [`write_npz`](crate::data::formats::write_npz) for the arrays).
///
/// # Errors
/// [`InputError`], with the file and the cell and gene where that makes sense, if the file is
/// absent, of another kind or damaged; if shapes disagree; if a count is negative, not whole, not finite or above
/// 2^32 - 1; if a cell has no counts (unless they are dropped), no label (likewise), or a size factor that is not positive;
/// if nothing is left of the cells, genes or interventions; if counts are to stay on disk in a file that does not hold
/// them by cell.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Loaded> {
    load_with_progress(path, options, &mut |_, _| {})
}

/// As [`load`]; `progress` is told how many bytes of the counts have been read, and of how many.
///
/// # Errors
/// As [`load`].
pub fn load_with_progress(path: &Path, options: &LoadOptions, progress: &mut dyn FnMut(u64, u64)) -> Result<Loaded> {
    let file = open(path, &OpenOptions { layer: options.layer.as_deref(), genome: options.genome.as_deref() })?;
    assemble(&*file, options, progress)
}

/// The columns that annotate cells: those of the file, and those of a table of labels, which come first.
struct Annotations<'a> {
    file: &'a dyn ScreenFile,
    table: Option<&'a LabelTable>,
    n_cells: usize,
}

impl Annotations<'_> {
    fn of_table(&self, name: &str) -> Option<&LabelTable> {
        self.table.filter(|table| table.columns().iter().any(|column| column == name))
    }

    fn names(&self) -> Result<Vec<String>> {
        let mut names = self.table.map_or_else(Vec::new, |table| table.columns().to_vec());
        names.extend(self.file.column_names()?);
        Ok(names)
    }

    /// File and place of a column, for messages.
    fn place(&self, name: &str) -> (&Path, String) {
        match self.of_table(name) {
            Some(table) => (table.path(), format!("column `{name}`")),
            None => (self.file.path(), self.file.column_place(name)),
        }
    }

    /// An error about a column.
    fn error(&self, name: &str, error: InputError) -> InputError {
        let (path, place) = self.place(name);
        error.in_file(path).at(place)
    }

    fn read(&self, name: &str, label: bool) -> Result<Column> {
        let column = match self.of_table(name) {
            Some(table) => table.column(name, label)?,
            None => self.file.column(name, label)?,
        };
        match column.len() {
            n if n == self.n_cells => Ok(column),
            n => {
                let problem = format!("it has {n} values for {} cells", self.n_cells);
                Err(self.error(name, InputError::new(problem, "give one value per cell")).into())
            }
        }
    }

    fn levels(&self, name: &str, label: bool) -> Result<Levels> {
        Ok(self.read(name, label)?.into_levels().map_err(|e| self.error(name, e))?)
    }

    fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.read(name, false)?.into_numbers().map_err(|e| self.error(name, e))?)
    }

    /// The column of the intervention: as named, else one with a usual name.
    fn choose_label(&self, options: &LoadOptions, notes: &mut Vec<String>) -> Result<String> {
        if let Some(key) = &options.label_key {
            return Ok(key.clone());
        }
        // Who gives a table of labels means one of its columns.
        let (columns, path) = match self.table {
            Some(table) => (table.columns().to_vec(), table.path()),
            None => (self.file.column_names()?, self.file.path()),
        };
        let mut usual: Vec<&str> = USUAL_LABELS.into_iter().filter(|name| columns.iter().any(|c| c == name)).collect();
        if let (Some(_), [only]) = (self.table, &columns[..]) {
            usual = vec![only];
        }
        match usual[..] {
            [key] => {
                let place = match self.table {
                    Some(table) => format!("column `{key}` of {}", table.path().display()),
                    None => self.file.column_place(key),
                };
                notes.push(format!("interventions are read from {place}"));
                Ok(key.to_string())
            }
            [] if columns.is_empty() => Err(InputError::new(
                "it says nothing about the cells' interventions",
                "give a table of barcodes and interventions with --labels FILE",
            )
            .in_file(path)
            .into()),
            [] => Err(InputError::new(
                "none of the cells' columns has a usual name for the intervention",
                format!("name one of {} with --label-key", first_few(&columns)),
            )
            .in_file(path)
            .into()),
            _ => Err(InputError::new(
                format!("several columns could hold the intervention: {}", first_few(&usual)),
                "name the right one with --label-key",
            )
            .in_file(path)
            .into()),
        }
    }

    /// Every named column exists and no column is used for two things.
    fn check_keys(&self, options: &LoadOptions, label_key: &str) -> Result<()> {
        let columns = self.names()?;
        let categorical = options.batch_key.iter().chain(&options.categorical_covariates);
        let covariates: Vec<&String> = categorical.chain(&options.continuous_covariates).collect();
        let label_key = label_key.to_string();
        let label = (!options.unlabelled).then_some(&label_key);
        for key in covariates.iter().copied().chain(label).chain(&options.size_factor_key) {
            if !columns.contains(key) {
                let known = format!("the columns are {}", first_few(&columns));
                return Err(self.error(key, InputError::new("there is no such column of the cells", known)).into());
            }
        }
        if covariates.contains(&&label_key) {
            return Err(self
                .error(
                    &label_key,
                    InputError::new(
                        "the intervention label cannot be a covariate as well: the decoder would see the answer",
                        "leave it out of the covariates",
                    ),
                )
                .into());
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = covariates.iter().find(|key| !seen.insert(**key)) {
            return Err(self.error(twice, InputError::new("it is named as a covariate twice", "name it once")).into());
        }
        Ok(())
    }
}

/// Names from 0 on, for cells and genes that have none.
fn default_names(prefix: &str, n: usize) -> impl Iterator<Item = String> {
    (0..n).map(move |i| format!("{prefix}_{i}"))
}

/// The cells that are still used, and why others are not.
struct Kept {
    /// Whether each cell of the file is.
    stays: Vec<bool>,
    n_cells: usize,
    dropped: Vec<Dropped>,
    notes: Vec<String>,
}

impl Kept {
    /// Leaves out the cells for which `stays` is false.
    fn retain(&mut self, stays: impl Fn(usize) -> bool, reason: impl Into<String>) {
        let before = self.n_cells;
        for (n, kept) in self.stays.iter_mut().enumerate().filter(|(_, kept)| **kept) {
            *kept = stays(n);
            self.n_cells -= usize::from(!*kept);
        }
        self.record("cells", before - self.n_cells, before, reason);
    }

    /// Numbers of the cells in the file, ascending.
    fn cells(&self) -> impl Iterator<Item = usize> {
        self.stays.iter().enumerate().filter(|(_, kept)| **kept).map(|(n, _)| n)
    }

    fn is_empty(&self) -> bool {
        self.n_cells == 0
    }

    fn are_all(&self) -> bool {
        self.n_cells == self.stays.len()
    }

    fn record(&mut self, what: &'static str, n: usize, of: usize, reason: impl Into<String>) {
        if n > 0 {
            let dropped = Dropped { what, n, reason: reason.into() };
            let of = if what == "cells" { self.stays.len() } else { of };
            self.notes.push(dropped.sentence(of));
            self.dropped.push(dropped);
        }
    }
}

/// Reads and checks everything that `options` ask for.
fn assemble(file: &dyn ScreenFile, options: &LoadOptions, progress: ByteProgress) -> Result<Loaded> {
    let path = file.path();
    if options.genes.is_some() && options.top_genes.is_some() {
        return Err(InputError::new("genes are both listed and to be selected", "choose one of the two").into());
    }
    let mut notes = file.notes();
    let (n_cells, n_genes) = file.shape()?;
    for (n, what) in [(n_cells, "cells"), (n_genes, "genes")] {
        if n == 0 {
            return Err(InputError::new(format!("it holds no {what}"), "check how it was made").in_file(path).into());
        }
    }
    let as_many = |n_names: usize, n: usize, what: &str| -> Result<()> {
        match n_names == n {
            true => Ok(()),
            false => Err(InputError::new(
                format!("there are {n_names} names for {n} {what}s"),
                "give one name each, or none at all",
            )
            .in_file(path)
            .into()),
        }
    };
    let cell_names = file.cell_names()?.unwrap_or_else(|| default_names("cell", n_cells).collect());
    as_many(cell_names.len(), n_cells, "cell")?;
    let mut gene_names = file.gene_names()?.unwrap_or_else(|| default_names("gene", n_genes).collect());
    as_many(gene_names.len(), n_genes, "gene")?;
    let mut warnings = Vec::new();
    warnings.extend(guards::doubled_names(&cell_names, "cells", "such cells cannot be told apart by name"));
    warnings.extend(guards::doubled_names(&gene_names, "genes", "the later ones get the endings -1, -2, ..."));

    // Annotations first: they are quick to read and often where the mistake is.
    let table = options.labels.as_ref().map(|path| LabelTable::read(path, &cell_names)).transpose()?;
    notes.extend(table.iter().flat_map(|table| table.notes.clone()));
    let annotations = Annotations { file, table: table.as_ref(), n_cells };
    let label_key = if options.unlabelled { String::new() } else { annotations.choose_label(options, &mut notes)? };
    annotations.check_keys(options, &label_key)?;
    let mut labels = if options.unlabelled {
        Levels { names: vec!["unlabelled".to_owned()], numbers: None, codes: vec![Some(0); n_cells] }
    } else {
        annotations.levels(&label_key, true)?
    };
    let categorical_keys: Vec<&String> = options.batch_key.iter().chain(&options.categorical_covariates).collect();
    let mut categorical = Vec::new();
    for key in &categorical_keys {
        categorical.push(annotations.levels(key, false)?);
    }
    let mut continuous = Vec::new();
    for key in &options.continuous_covariates {
        continuous.push(Continuous { name: key.clone(), values: annotations.numbers(key)? });
    }
    let library_key = options.size_factor_key.as_deref().or(file.stored_library());
    let size_factors = library_key.map(|key| annotations.numbers(key)).transpose()?;
    let listed = options.genes.as_ref().map(|path| listed_genes(path, file, &gene_names, &mut notes)).transpose()?;
    guards::make_unique(&mut gene_names);

    let mut kept = Kept { stays: vec![true; n_cells], n_cells, dropped: Vec::new(), notes: Vec::new() };
    let mut unlabelled = Vec::new();
    if options.drop_unlabelled_cells {
        unlabelled.extend(labels.codes.iter().map(Option::is_none));
        kept.retain(|n| !unlabelled[n], "they have no intervention label");
        if kept.is_empty() {
            let error = InputError::new("no cell has an intervention label", "check the column");
            return Err(annotations.error(&label_key, error).into());
        }
    }

    let identity = options.stream.map(|_| Identity::of(path)).transpose()?;
    // Opened to learn early whether that can be done; opened again below, so as not to be held during the pass.
    options.stream.map(|_| file.rows()).transpose()?;
    let mut sink = CountsSink::new(path, file.counts_place(), &cell_names, &gene_names, progress);
    if options.stream.is_some() {
        sink.count_only();
    }
    if let Some((gene_of, n)) = &listed {
        sink.keep_genes(gene_of, *n);
    }
    if options.drop_unlabelled_cells {
        sink.leave_out(&unlabelled);
    }
    if let Err(error) = file.read_counts(&mut sink) {
        return Err(match error {
            crate::Error::Input(error) if sink.met_a_value_that_is_no_count() => {
                guards::point_to_counts(error, &file.matrices().unwrap_or_default()).into()
            }
            other => other,
        });
    }
    let CountsRead { counts, totals, n_mended, kept: sizes } = sink.finish()?;
    let mut counts = ScreenCounts::from(counts);
    drop(unlabelled);
    if let (Some(buffer), Some(identity)) = (options.stream, identity) {
        let reader = file.rows()?;
        let disk = DiskCounts::new(path, identity, reader, n_cells, listed.clone(), buffer)?;
        counts = disk.into();
    }
    if n_mended > 0 {
        notes.push(format!(
            "{n_mended} cells had counts out of gene order or more than one count for a gene; these were sorted and summed"
        ));
    }

    let empty_cells = |kept: &mut Kept, total: &dyn Fn(usize) -> u64, of_genes: &str| -> Result<()> {
        let n_empty = kept.cells().filter(|&n| total(n) == 0).count();
        if n_empty == kept.n_cells {
            return Err(InputError::new(format!("no cell has any count{of_genes}"), "check the matrix")
                .in_file(path)
                .into());
        }
        if n_empty > 0 && !options.drop_empty_cells {
            let first = kept.cells().find(|&n| total(n) == 0).expect("some cell is empty");
            return Err(InputError::new(
                format!("{n_empty} of {n_cells} cells have no counts{of_genes} at all, the first is this one"),
                "leave them out with --drop-empty-cells, or filter the file",
            )
            .in_file(path)
            .at(cell_place(first, &cell_names))
            .into());
        }
        kept.retain(|n| total(n) > 0, format!("they have no counts{of_genes}"));
        Ok(())
    };
    if options.min_counts > 0 {
        let least = options.min_counts;
        kept.retain(|n| totals[n] >= least, format!("their total count is below {least}"));
        if kept.is_empty() {
            let problem = format!("no cell has {least} counts or more");
            return Err(InputError::new(problem, "choose a smaller --min-counts").in_file(path).into());
        }
    }
    empty_cells(&mut kept, &|n| totals[n], "")?;
    let controls = control_levels(&labels, options, &annotations, &label_key)?;
    if options.min_cells_per_label > 1 {
        drop_rare_labels(&mut kept, &labels, &controls, options.min_cells_per_label);
        if kept.is_empty() {
            let problem = format!("no intervention has {} cells or more", options.min_cells_per_label);
            let error = InputError::new(problem, "choose a smaller --min-cells-per-label");
            return Err(annotations.error(&label_key, error).into());
        }
    }

    // Genes: those listed were chosen on the way in.
    let mut selected: Option<Vec<usize>> =
        listed.as_ref().map(|(gene_of, _)| (0..n_genes).filter(|&gene| gene_of[gene].is_some()).collect());
    if let Some((_, n)) = &listed {
        kept.record("genes", n_genes - n, n_genes, "they are not listed in the file of genes");
    }
    let mut restriction = None;
    if let Some(n_top) = options.top_genes
        && n_top < n_genes
    {
        let cells: Vec<usize> = kept.cells().collect();
        let batch = options.batch_key.as_ref().and_then(|_| batch_codes(&categorical[0], &cells));
        let chosen = highly_variable(&counts, &cells, batch.as_deref(), n_top)?;
        let mut gene_of = vec![None; n_genes];
        chosen.iter().enumerate().for_each(|(new, &old)| gene_of[old] = Some(new as u32));
        kept.record("genes", n_genes - n_top, n_genes, format!("they are not among the {n_top} most variable"));
        restriction = Some(gene_of);
        selected = Some(chosen);
    }
    if counts.disk().is_none() || restriction.is_some() || !kept.are_all() {
        let cells: Vec<usize> = kept.cells().collect();
        counts.restrict(&cells, restriction.as_ref().map(|map| (&map[..], selected.as_ref().map_or(0, Vec::len))));
    }
    // Total and number of each cell's counts over the genes that are used: known from the first pass, unless that went
    // over more genes.
    let (mut totals, n_nonzero): (Vec<u64>, usize) = match (sizes, &restriction) {
        (Some(sizes), None) => {
            let totals = sizes.totals.unwrap_or(totals);
            let n_nonzero = kept.cells().map(|n| sizes.n_nonzero[n] as usize).sum();
            (if kept.are_all() { totals } else { kept.cells().map(|n| totals[n]).collect() }, n_nonzero)
        }
        (sizes, _) => {
            drop((sizes, totals));
            let all: Vec<usize> = (0..kept.n_cells).collect();
            let (mut totals, mut n_nonzero) = (Vec::with_capacity(all.len()), 0);
            counts.visit(&all, |_, row| {
                totals.push(row.sum());
                n_nonzero += row.len();
            })?;
            (totals, n_nonzero)
        }
    };
    if let Some(selected) = &selected {
        gene_names = selected.iter().map(|&gene| std::mem::take(&mut gene_names[gene])).collect();
        let before: Vec<usize> = kept.cells().collect();
        let place = |n: usize| before.binary_search(&n).expect("a cell that was kept");
        empty_cells(&mut kept, &|n| totals[place(n)], " in the selected genes")?;
        if kept.n_cells < before.len() {
            let cells: Vec<usize> = kept.cells().map(place).collect();
            counts.restrict(&cells, None);
            totals = cells.iter().map(|&n| totals[n]).collect();
        }
    }
    // Cells that are empty in the selected genes took no counts along.
    counts.set_n_nonzero(n_nonzero);

    let mut library: Vec<f64> = totals.into_iter().map(|total| total as f64).collect();
    // Numbers in the file of the cells that are used, unless all are.
    let chosen: Option<Vec<usize>> = (!kept.are_all()).then(|| kept.cells().collect());
    if let (Some(key), Some(mut values)) = (library_key, size_factors) {
        if let Some(n) = kept.cells().find(|&n| !(values[n] > 0.0 && values[n].is_finite())) {
            let error = InputError::new(
                format!("the size factor of {} is {}", cell_place(n, &cell_names), values[n]),
                "size factors are positive numbers; mend it, or leave the column out to use total counts",
            );
            return Err(annotations.error(key, error).into());
        }
        pick(&mut values, chosen.as_deref());
        if options.size_factor_key.is_none() && library != values {
            notes.push(format!("size factors are those of {}", annotations.place(key).1));
        }
        library = values;
    }
    let mut truth = if options.unlabelled { None } else { read_truth(file, n_cells, &labels, &mut notes)? };

    notes.append(&mut kept.notes);
    pick(&mut labels.codes, chosen.as_deref());
    categorical.iter_mut().for_each(|levels| pick(&mut levels.codes, chosen.as_deref()));
    continuous.iter_mut().for_each(|covariate| pick(&mut covariate.values, chosen.as_deref()));
    if let (Some((truth, _)), Some(chosen)) = (&mut truth, &chosen) {
        let l = truth.n_latents;
        truth.latents = chosen.iter().flat_map(|&n| &truth.latents[n * l..(n + 1) * l]).copied().collect();
    }
    let original = |n: usize| cell_place(chosen.as_ref().map_or(n, |chosen| chosen[n]), &cell_names);
    let codes = |levels: &Levels, key: &str, what: &str, remedy: &str| -> Result<Vec<u32>> {
        match levels.codes.iter().position(Option::is_none) {
            None => Ok(levels.codes.iter().flatten().copied().collect()),
            Some(first) => {
                let error = InputError::new(
                    format!(
                        "{} of {} cells have no {what}, the first is {}",
                        levels.codes.iter().filter(|code| code.is_none()).count(),
                        levels.codes.len(),
                        original(first)
                    ),
                    remedy,
                );
                Err(annotations.error(key, error).into())
            }
        }
    };
    let control_names: Vec<String> = controls.iter().map(|&level| labels.names[level].clone()).collect();
    let kept_levels = drop_unused(&mut labels, &annotations.place(&label_key).1, &mut notes);
    let remedy = "leave them out with --drop-unlabelled-cells, or label them";
    let label_codes = codes(&labels, &label_key, "intervention label", remedy)?;
    let mut covariates = Covariates::default();
    for (key, mut levels) in categorical_keys.into_iter().zip(categorical) {
        drop_unused(&mut levels, &annotations.place(key).1, &mut notes);
        let codes = codes(&levels, key, "value", "label these cells or leave them out of the file")?;
        covariates.categorical.push(Categorical { name: key.clone(), levels: levels.names, codes });
    }
    for covariate in &continuous {
        if let Some(n) = covariate.values.iter().position(|x| !x.is_finite()) {
            let error = InputError::new(
                format!("the value of {} is {}", original(n), covariate.values[n]),
                "a continuous covariate needs a finite number for every cell",
            );
            return Err(annotations.error(&covariate.name, error).into());
        }
    }
    covariates.continuous = continuous;

    // Controls have no intervention: the others are numbered without them.
    let sizes = labels.sizes();
    labels.codes = Vec::new();
    let is_control = |name: &String| control_names.contains(name);
    let mut number = vec![None; labels.names.len()];
    let acting: Vec<usize> = (0..labels.names.len()).filter(|&level| !is_control(&labels.names[level])).collect();
    acting.iter().enumerate().for_each(|(a, &level)| number[level] = Some(a as u32));
    if acting.is_empty() {
        let error = InputError::new("every labelled cell is a control", "name fewer labels with --control");
        return Err(annotations.error(&label_key, error).into());
    }
    let mut interventions = InterventionRows::default();
    for code in label_codes {
        match number[code as usize] {
            Some(a) => interventions.push(&[(a, 1.0)]),
            None => interventions.push(&[]),
        }
    }
    let truth = truth.map(|(truth, rows)| {
        let l = truth.n_latents;
        let row = |&level: &usize| rows[kept_levels[level]];
        let prior_means = acting.iter().flat_map(|level| &truth.prior_means[row(level) * l..(row(level) + 1) * l]);
        Truth { prior_means: prior_means.copied().collect(), ..truth }
    });
    let count = |level: usize| LabelCount { label: labels.names[level].clone(), n_cells: sizes[level] };
    let control_counts: Vec<LabelCount> =
        (0..labels.names.len()).filter(|&level| number[level].is_none()).map(count).collect();
    let intervention_counts: Vec<LabelCount> = acting.iter().map(|&level| count(level)).collect();
    let intervention_names: Vec<String> = acting.iter().map(|&level| labels.names[level].clone()).collect();

    if options.control.is_empty() {
        warnings.extend(guards::unnamed_control(&intervention_names));
    }
    let acting_sizes: Vec<usize> = acting.iter().map(|&level| sizes[level]).collect();
    warnings.extend(guards::rare_labels(&intervention_names, &acting_sizes));
    warnings.extend(guards::library_outliers(&library));
    for covariate in &covariates.categorical {
        let found = guards::confounding(covariate, &interventions, &intervention_names);
        warnings.extend(found.map_err(|e| annotations.error(&covariate.name, e))?);
    }

    let dataset = Dataset {
        source: path.display().to_string(),
        counts,
        library,
        interventions,
        intervention_names,
        gene_names,
        cell_names: match &chosen {
            None => cell_names,
            Some(chosen) => cell_names.select(chosen),
        },
        covariates,
        truth,
    };
    let mut sorted = dataset.library.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let summary = DataSummary {
        source: dataset.source.clone(),
        format: file.format(),
        matrix: file.counts_place(),
        n_cells_read: n_cells,
        n_genes_read: n_genes,
        n_cells: dataset.n_cells(),
        n_genes: dataset.n_genes(),
        n_interventions: dataset.n_interventions(),
        n_nonzero: dataset.counts.n_nonzero(),
        median_library: sorted[sorted.len() / 2],
        controls: control_counts,
        interventions: intervention_counts,
        dropped: kept.dropped,
        warnings,
        notes: notes.clone(),
    };
    Ok(Loaded { dataset, notes, summary })
}

fn pick<T: Clone>(values: &mut Vec<T>, keep: Option<&[usize]>) {
    if let Some(keep) = keep {
        *values = keep.iter().map(|&n| values[n].clone()).collect();
    }
}

/// The new number of each gene that the file at `path` lists, by name or identifier, and how many there are.
fn listed_genes(
    path: &Path,
    file: &dyn ScreenFile,
    gene_names: &[String],
    notes: &mut Vec<String>,
) -> Result<(Vec<Option<u32>>, usize)> {
    let listed = read_names(path)?;
    let ids = file.gene_ids()?.filter(|ids| ids.len() == gene_names.len());
    let mut wanted: BTreeMap<&str, bool> = listed.iter().map(|name| (name.as_str(), false)).collect();
    let mut n = 0;
    let mut gene_of = Vec::with_capacity(gene_names.len());
    for gene in 0..gene_names.len() {
        let names = [Some(&gene_names[gene]), ids.as_ref().map(|ids| &ids[gene])];
        let mut found = false;
        for name in names.into_iter().flatten() {
            if let Some(seen) = wanted.get_mut(name.as_str()) {
                (*seen, found) = (true, true);
            }
        }
        gene_of.push(found.then_some(n));
        n += found as u32;
    }
    let missing: Vec<&str> = wanted.iter().filter(|(_, seen)| !**seen).map(|(name, _)| *name).collect();
    if n == 0 {
        let problem = format!("none of its {} genes ({}) is in the data", wanted.len(), first_few(&missing));
        let remedy = format!("write them as the data file does: {}", first_few(&gene_names[..gene_names.len().min(3)]));
        return Err(InputError::new(problem, remedy).in_file(path).into());
    }
    if !missing.is_empty() {
        notes.push(format!(
            "{} of {} listed genes are not in the data: {}",
            missing.len(),
            wanted.len(),
            first_few(&missing)
        ));
    }
    Ok((gene_of, n as usize))
}

/// Batches of `cells`, if each of them has one.
fn batch_codes(levels: &Levels, cells: &[usize]) -> Option<Vec<u32>> {
    cells.iter().map(|&n| levels.codes[n]).collect()
}

/// Numbers of the levels that are controls.
fn control_levels(
    labels: &Levels,
    options: &LoadOptions,
    annotations: &Annotations,
    label_key: &str,
) -> Result<Vec<usize>> {
    let sizes = labels.sizes();
    let mut controls = Vec::new();
    for name in &options.control {
        match labels.names.iter().position(|level| level == name).filter(|&level| sizes[level] > 0) {
            Some(level) => controls.push(level),
            None => {
                let remedy = match nearest(name, labels.names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("the labels are {}", first_few(&labels.names)),
                };
                let error = InputError::new(format!("no cell has the label \"{name}\" that --control names"), remedy);
                return Err(annotations.error(label_key, error).into());
            }
        }
    }
    Ok(controls)
}

/// Leaves out the cells of interventions that have fewer than `least` of those still kept; controls stay.
fn drop_rare_labels(kept: &mut Kept, labels: &Levels, controls: &[usize], least: usize) {
    let mut sizes = vec![0; labels.names.len()];
    kept.cells().filter_map(|n| labels.codes[n]).for_each(|code| sizes[code as usize] += 1);
    let rare: Vec<bool> =
        sizes.iter().enumerate().map(|(level, &size)| size > 0 && size < least && !controls.contains(&level)).collect();
    let n_rare = rare.iter().filter(|rare| **rare).count();
    let n_levels = sizes.iter().filter(|size| **size > 0).count();
    kept.record("interventions", n_rare, n_levels, format!("they have fewer than {least} cells"));
    let reason = format!("their intervention has fewer than {least} cells");
    kept.retain(|n| !labels.codes[n].is_some_and(|code| rare[code as usize]), reason);
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
        notes.push(format!("{place}: levels without cells are left out: {}", first_few(&unused)));
    }
    kept
}

/// The truth, with the row of `prior_means` of each level; `None` (and a note) if it does not fit.
fn read_truth(
    file: &dyn ScreenFile,
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
