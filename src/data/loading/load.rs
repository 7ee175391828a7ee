//! From a file to a checked [`Dataset`]: open, read what annotates the cells, read the counts, leave out, select, assemble.

use std::path::Path;

use crate::data::counts::ScreenCounts;
use crate::data::counts::on_disk::{DiskCounts, Identity};
use crate::data::dataset::{Dataset, Truth};
use crate::data::formats::column::Levels;
use crate::data::formats::counts_sink::{ByteProgress, CountsRead, CountsSink, Sizes};
use crate::data::formats::labels::LabelTable;
use crate::data::formats::open;
use crate::data::formats::screen_file::ScreenFile;
use crate::data::loading::annotations::{Annotations, UsedColumns, pick};
use crate::data::loading::assignments::parts_of_label;
use crate::data::loading::called::{GeneNames, cell_names};
use crate::data::loading::genes::{GeneNumbers, listed_genes, numbered, variable_genes};
use crate::data::loading::giveaways;
use crate::data::loading::guards;
use crate::data::loading::interventions::Interventions;
use crate::data::loading::kept::CellFilter;
pub use crate::data::loading::options::{LoadOptions, SeveralInterventions};
pub use crate::data::loading::summary::{DataSummary, Dropped, LabelCount};
use crate::data::loading::truth::{StoredTruth, read_truth};
use crate::data::names::Names;
use crate::error::{Error, InputError, Result};

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

/// Reads a screen: AnnData (`.h5ad`), MuData (`.h5mu`), 10x Genomics (`.h5`), a folder with a matrix-market file and its names, `.npz`
/// (see [`write_npz`](crate::data::formats::write_npz) for the arrays), or a plain table of counts (`.csv`, `.tsv`, `.txt`); with
/// [`LoadOptions::further_data`], several files as one.
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
    let file = open(path, &options.for_opening())?;
    assemble(&*file, options, progress)
}

/// Reads and checks everything that `options` ask for.
fn assemble(file: &dyn ScreenFile, options: &LoadOptions, progress: ByteProgress) -> Result<Loaded> {
    options.check()?;
    let mut notes = file.notes();
    let (n_cells, n_genes) = shape(file)?;
    let mut warnings = Vec::new();
    let (cell_names, genes) = names(file, (n_cells, n_genes), options, (&mut notes, &mut warnings))?;

    // Annotations first: they are quick to read and often where the mistake is.
    let several_rows = options.several_interventions.is_some();
    let table = options.table_of_all().map(|path| LabelTable::read(path, &cell_names, several_rows)).transpose()?;
    notes.extend(table.iter().flat_map(|table| table.notes.clone()));
    let annotations = Annotations { file, table: table.as_ref(), n_cells };
    let mut columns = annotations.read_columns(options, &mut notes)?;
    warnings.append(&mut columns.warnings);
    let listed = options.genes.as_ref().map(|path| listed_genes(path, &genes, &mut notes)).transpose()?;
    let mut gene_names = genes.names;
    guards::make_unique(&mut gene_names);

    let mut cells = CellFilter::all(file.path(), &cell_names);
    let unlabelled = options.drop_unlabelled_cells.then(|| columns.labels.missing());
    if let Some(unlabelled) = &unlabelled {
        cells.retain(|n| !unlabelled[n], "they have no intervention label");
        if cells.is_empty() {
            let error = InputError::new("no cell has an intervention label", "check the column");
            return Err(annotations.error(&columns.label_key, error).into());
        }
    }
    let expected = Expected { cells: &cell_names, genes: &gene_names, listed: listed.as_ref(), unlabelled };
    let read = read_counts(file, expected, options, progress, &mut notes)?;

    cells.drop_small(&read.totals, options.min_counts)?;
    cells.drop_empty(|n| read.totals[n], options.drop_empty_cells, "")?;
    let controls = leave_out(&mut cells, &columns, options).map_err(|e| annotations.error(&columns.label_key, e))?;

    let batch = options.batch_key.as_ref().map(|_| &columns.categorical[0].1);
    let (counts, totals) = select_genes(read, &mut cells, &mut gene_names, listed, (options, batch))?;
    let library = size_factors(totals, columns.size_factors.take(), &cells, &annotations, (options, &mut notes))?;
    let truth = match &columns.stored {
        Some(stored) if !options.unlabelled => {
            read_truth(file, n_cells, (stored.names.len(), stored.numbers.as_deref()), &mut notes)?
        }
        _ => None,
    };

    // Numbers in the file of the cells that are used, unless all are.
    let chosen: Option<Vec<usize>> = (!cells.are_all()).then(|| cells.cells().collect());
    notes.append(&mut cells.notes);
    columns.select(chosen.as_deref());
    let place = |n: usize| cells.place(chosen.as_ref().map_or(n, |chosen| chosen[n]));
    let UsedColumns { label_key, mut labels, mut members, plain, stored, guides, categorical, continuous, .. } =
        columns;
    let used = match plain {
        true => annotations.drop_unused(&label_key, &mut labels, &mut notes),
        false => labels.drop_unused(),
    };
    members.keep_levels(&used);
    let missing = ("intervention label", "leave them out with --drop-unlabelled-cells, or label them");
    let codes = annotations.complete(&label_key, &labels, missing, place)?;
    let covariates = annotations.covariates(categorical, continuous, place, &mut notes)?;
    let guides = guides.map(|guides| annotations.guides(guides, &mut notes)).transpose()?;
    let interventions = Interventions::new(&labels, &codes, &members, &controls)
        .map_err(|error| annotations.error(&label_key, error))?;
    drop((labels, codes));
    let sets = stored.as_ref().filter(|_| !plain).map(|stored| &stored.names[..]);
    let truth = truth.and_then(|truth| truth_of(truth, chosen.as_deref(), &interventions, (sets, options), &mut notes));

    let dropped = std::mem::take(&mut cells.dropped);
    let dataset = Dataset {
        source: file.path().display().to_string(),
        counts,
        library,
        intervention_names: interventions.names(),
        interventions: interventions.rows,
        gene_names,
        cell_names: match &chosen {
            None => cell_names,
            Some(chosen) => cell_names.select(chosen),
        },
        covariates,
        guides,
        truth,
    };
    warn(&dataset, (&interventions.counts, &interventions.controls), &annotations, options, &mut warnings)?;
    let mut summary = DataSummary { dropped, warnings, notes: notes.clone(), ..DataSummary::of(file, &dataset) };
    (summary.n_cells_read, summary.n_genes_read) = (n_cells, n_genes);
    (summary.interventions, summary.controls) = (interventions.counts, interventions.controls);
    summary.count_combinations(&dataset);
    Ok(Loaded { dataset, notes, summary })
}

/// Leaves out cells of several interventions, if that is wanted, and those of rare ones; the numbers of the controls.
fn leave_out(cells: &mut CellFilter, columns: &UsedColumns, options: &LoadOptions) -> Result<Vec<u32>, InputError> {
    let UsedColumns { labels, control, members, .. } = columns;
    let controls = members.controls(labels, control)?;
    if options.several_interventions == Some(SeveralInterventions::Drop) {
        cells.drop_several(labels, &members.acting(&controls))?;
    }
    cells.drop_rare_labels(labels, members, &controls, options.min_cells_per_label)?;
    Ok(controls)
}

/// The truth of the cells that are used, whose labels are `sets` of interventions if their names are given; `None` (and a note) if it does
/// not say of each intervention what it does alone.
fn truth_of(
    truth: StoredTruth,
    cells: Option<&[usize]>,
    interventions: &Interventions,
    (sets, options): (Option<&[String]>, &LoadOptions),
    notes: &mut Vec<String>,
) -> Option<Truth> {
    let Some(stored) = sets else {
        return Some(truth.select(cells, interventions.members.iter().copied()));
    };
    let parts = |name: &str| parts_of_label(name, options.combination_separator.as_deref());
    let found = truth.of_sets(cells, &interventions.names(), stored, parts);
    if found.is_none() {
        notes.push("the stored truth is ignored: an intervention has no label of its own".to_owned());
    }
    found
}

/// Numbers of cells and genes, of which there are some.
fn shape(file: &dyn ScreenFile) -> Result<(usize, usize)> {
    let (n_cells, n_genes) = file.shape()?;
    for (n, what) in [(n_cells, "cells"), (n_genes, "genes")] {
        if n == 0 {
            let error = InputError::new(format!("it holds no {what}"), "check how it was made");
            return Err(error.in_file(file.path()).into());
        }
    }
    Ok((n_cells, n_genes))
}

/// Names of the cells and genes, and what there is to say about them.
fn names(
    file: &dyn ScreenFile,
    (n_cells, n_genes): (usize, usize),
    options: &LoadOptions,
    (notes, warnings): (&mut Vec<String>, &mut Vec<String>),
) -> Result<(Names, GeneNames)> {
    let cells = cell_names(file, n_cells)?;
    let mut genes = GeneNames::read(file, n_genes, options.gene_names.as_deref(), &options.known_genes)?;
    notes.append(&mut genes.notes);
    warnings.extend(guards::doubled_names(&cells, "cells", "such cells cannot be told apart by name"));
    warnings.extend(guards::doubled_names(&genes.names, "genes", "the later ones get the endings -1, -2, ..."));
    Ok((cells, genes))
}

/// What is known of the counts before they are read.
struct Expected<'a> {
    cells: &'a Names,
    genes: &'a [String],
    /// The genes to keep, if they are listed.
    listed: Option<&'a GeneNumbers>,
    /// Cells to leave out, if any.
    unlabelled: Option<Vec<bool>>,
}

/// The counts of the listed genes, and what the pass over the file has summed up.
struct FirstPass {
    counts: ScreenCounts,
    /// Total count of each cell over all genes of the file; 0 for cells that are left out.
    totals: Vec<u64>,
    /// Sizes of the cells over the listed genes, where the counts stay on disk.
    sizes: Option<Sizes>,
}

/// Reads the counts and checks every value of them; they are held in memory unless `options` leave them in their file.
fn read_counts(
    file: &dyn ScreenFile,
    expected: Expected,
    options: &LoadOptions,
    progress: ByteProgress,
    notes: &mut Vec<String>,
) -> Result<FirstPass> {
    let path = file.path();
    let identity = options.stream.map(|_| Identity::of(path)).transpose()?;
    // Opened to learn early whether that can be done; opened again below, so as not to be held during the pass.
    options.stream.map(|_| file.rows()).transpose()?;
    let mut sink = CountsSink::new(path, file.counts_place(), expected.cells, expected.genes, progress);
    sink.number_features(file.feature_numbers());
    if options.stream.is_some() {
        sink.count_only();
    }
    if let Some((gene_of, n)) = expected.listed {
        sink.keep_genes(gene_of, *n);
    }
    if let Some(unlabelled) = &expected.unlabelled {
        sink.leave_out(unlabelled);
    }
    if let Err(error) = file.read_counts(&mut sink) {
        return Err(match error {
            Error::Input(error) if sink.met_a_value_that_is_no_count() => {
                guards::point_to_counts(error, &file.matrices().unwrap_or_default()).into()
            }
            other => other,
        });
    }
    let CountsRead { counts, totals, n_mended, kept: sizes } = sink.finish()?;
    let counts = match (options.stream, identity) {
        (Some(buffer), Some(identity)) => {
            let source = file.rows()?;
            let genes = of_columns(file.feature_numbers(), expected.genes.len(), expected.listed);
            DiskCounts::new(path, identity, source, expected.cells.len(), genes, buffer)?.into()
        }
        _ => counts.into(),
    };
    if n_mended > 0 {
        notes.push(format!(
            "{n_mended} cells had counts out of gene order or more than one count for a gene; these were sorted and summed"
        ));
    }
    Ok(FirstPass { counts, totals, sizes })
}

/// The new number of each column of the stored matrix, where it is not its own: that of its gene, one of `n_genes`, which has
/// another one if genes are `listed`.
fn of_columns(features: Option<&[i64]>, n_genes: usize, listed: Option<&GeneNumbers>) -> Option<GeneNumbers> {
    let Some(features) = features else { return listed.cloned() };
    let gene = |number: &i64| {
        let gene = usize::try_from(*number).ok()?;
        match listed {
            Some((gene_of, _)) => gene_of[gene],
            None => Some(gene as u32),
        }
    };
    Some((features.iter().map(gene).collect(), listed.map_or(n_genes, |(_, n)| *n)))
}

/// Restricts counts and names to the cells and genes that are used; the counts, and the total of each cell over these
/// genes. The most variable genes are found within the levels of `batch`.
fn select_genes(
    read: FirstPass,
    cells: &mut CellFilter,
    gene_names: &mut Vec<String>,
    listed: Option<GeneNumbers>,
    (options, batch): (&LoadOptions, Option<&Levels>),
) -> Result<(ScreenCounts, Vec<u64>)> {
    let FirstPass { mut counts, totals, sizes } = read;
    // Those listed were chosen on the way in.
    let mut selected = listed.as_ref().map(|(gene_of, _)| numbered(gene_of));
    if let Some((_, n)) = &listed {
        cells.record("genes", gene_names.len() - n, gene_names.len(), "they are not listed in the file of genes");
    }
    let mut restriction = None;
    if let Some(n_top) = options.top_genes {
        restriction = variable_genes(&counts, cells, batch, n_top)?;
        selected = restriction.as_ref().map(|(gene_of, _)| numbered(gene_of));
    }
    if counts.disk().is_none() || restriction.is_some() || !cells.are_all() {
        let used: Vec<usize> = cells.cells().collect();
        counts.restrict(&used, restriction.as_ref().map(|(gene_of, n)| (&gene_of[..], *n)));
    }
    // Total and number of each cell's counts over the genes that are used: known from the first pass, unless that went
    // over more genes.
    let (mut totals, n_nonzero) = match (sizes, &restriction) {
        (Some(sizes), None) => {
            let totals = sizes.totals.unwrap_or(totals);
            let n_nonzero = cells.cells().map(|n| sizes.n_nonzero[n] as usize).sum();
            (if cells.are_all() { totals } else { cells.cells().map(|n| totals[n]).collect() }, n_nonzero)
        }
        (sizes, _) => {
            drop((sizes, totals));
            sums(&counts)?
        }
    };
    if let Some(selected) = &selected {
        *gene_names = selected.iter().map(|&gene| std::mem::take(&mut gene_names[gene])).collect();
        let before: Vec<usize> = cells.cells().collect();
        let place = |n: usize| before.binary_search(&n).expect("a cell that was kept");
        cells.drop_empty(|n| totals[place(n)], options.drop_empty_cells, " in the selected genes")?;
        if cells.n_cells < before.len() {
            let used: Vec<usize> = cells.cells().map(place).collect();
            counts.restrict(&used, None);
            totals = pick(&totals, &used);
        }
    }
    // Cells that are empty in the selected genes took no counts along.
    counts.set_n_nonzero(n_nonzero);
    Ok((counts, totals))
}

/// Total count of each cell, and the number of counts in all.
fn sums(counts: &ScreenCounts) -> Result<(Vec<u64>, usize)> {
    let all: Vec<usize> = (0..counts.n_cells()).collect();
    let (mut totals, mut n_nonzero) = (Vec::with_capacity(all.len()), 0);
    counts.visit(&all, |_, row| {
        totals.push(row.sum());
        n_nonzero += row.len();
    })?;
    Ok((totals, n_nonzero))
}

/// Size factors of the cells that are used: those of a column, if one is named or stored, else their total counts.
fn size_factors(
    totals: Vec<u64>,
    stored: Option<(String, Vec<f64>)>,
    cells: &CellFilter,
    annotations: &Annotations,
    (options, notes): (&LoadOptions, &mut Vec<String>),
) -> Result<Vec<f64>> {
    let totals: Vec<f64> = totals.into_iter().map(|total| total as f64).collect();
    let Some((key, mut values)) = stored else { return Ok(totals) };
    if let Some(n) = cells.cells().find(|&n| !(values[n] > 0.0 && values[n].is_finite())) {
        let error = InputError::new(
            format!("the size factor of {} is {}", cells.place(n), values[n]),
            "size factors are positive numbers; mend it, or leave the column out to use total counts",
        );
        return Err(annotations.error(&key, error).into());
    }
    if !cells.are_all() {
        values = cells.cells().map(|n| values[n]).collect();
    }
    if options.size_factor_key.is_none() && totals != values {
        notes.push(format!("size factors are those of {}", annotations.place(&key).1));
    }
    Ok(values)
}

/// The largest count, of those in memory; of counts on disk that of some cells.
fn largest(counts: &ScreenCounts) -> Result<u32> {
    let n = counts.disk().map_or(counts.n_cells(), |_| counts.n_cells().min(SOME_CELLS));
    let (cells, mut largest): (Vec<usize>, u32) = ((0..n).collect(), 0);
    counts.visit(&cells, |_, row| row.for_each(|_, x| largest = largest.max(x)))?;
    Ok(largest)
}

/// Cells of a file on disk that are looked at where the others would take another pass over it.
const SOME_CELLS: usize = 1000;

/// Warns of what might be wrong with a data set.
///
/// # Errors
/// [`InputError`] if a covariate tells the intervention.
fn warn(
    dataset: &Dataset,
    (interventions, controls): (&[LabelCount], &[LabelCount]),
    annotations: &Annotations,
    options: &LoadOptions,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let names = &dataset.intervention_names;
    if options.control.is_empty() {
        warnings.extend(guards::unnamed_control(names));
    }
    warnings.extend(guards::lone_label(names, controls.len(), options.unlabelled));
    let sizes: Vec<usize> = interventions.iter().map(|count| count.n_cells).collect();
    warnings.extend(guards::rare_labels(names, &sizes));
    warnings.extend(guards::library_outliers(&dataset.library));
    let matrices = || annotations.file.matrices().unwrap_or_default();
    warnings.extend(guards::binary_counts(largest(&dataset.counts)?, matrices));
    for covariate in &dataset.covariates.categorical {
        let found = guards::confounding(covariate, &dataset.interventions, names);
        warnings.extend(found.map_err(|e| annotations.error(&covariate.name, e))?);
    }
    if options.unlabelled {
        return Ok(());
    }
    for covariate in &dataset.covariates.continuous {
        let found = giveaways::covariate_by_label(covariate, &dataset.interventions);
        warnings.extend(found.map_err(|e| annotations.error(&covariate.name, e))?);
    }
    warnings.extend(giveaways::depth_by_label(dataset));
    // Counts on disk are not passed over once more for it.
    if dataset.counts.disk().is_none() {
        warnings.extend(giveaways::telling_genes(dataset)?);
    }
    Ok(())
}
