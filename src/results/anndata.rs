//! `results.h5ad`: the screen with the results in it, for scanpy and everything else that reads AnnData.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::data::dataset::Dataset;
use crate::data::formats::anndata_writer::AnnDataWriter;
use crate::data::formats::frame::{Frame, FrameColumn, categories};
use crate::data::formats::npz::Npz;
use crate::data::loading::frames::input_frames;
use crate::data::names::Names;
use crate::error::Result;
use crate::evaluation::certainty::{Certainty, Edge};
use crate::evaluation::interpretation::{CellFigures, Interpretation, NO_TARGET};
use crate::evaluation::metrics::Metrics;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::results::tables::{EDGE_COLUMNS, EdgeColumn, target_columns};
use crate::settings::Settings;
use crate::training::history::EpochRecord;

/// How columns of `obs` and `var` begin that hold results.
const PREFIX: &str = "svae_";

impl ResultsFolder {
    /// Writes `results.h5ad`: counts, the input's `obs` and `var` with those of its table of labels (all columns that can be read),
    /// `obsm["X_svae"]`, `varm["svae_loadings..."]`, the columns `svae_...` of `obs` and `var`, and `uns["svae"]`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_h5ad(
        &self,
        config: &Settings,
        data: &Dataset,
        mut found: Interpretation,
        history: &[EpochRecord],
        metrics: &Metrics,
    ) -> Result<()> {
        if !self.writes() {
            return Ok(());
        }
        let file = AnnDataWriter::create(&self.file(ResultsFile::AnnData))?;
        file.counts("X", &data.counts)?;
        let input = config.data.as_deref().and_then(|path| input_frames(path, &config.input));
        let (input_obs, input_var) = input.unzip();
        let (called, mut obs) = input_obs.and_then(|obs| matching(obs, data.cell_names.iter())).unwrap_or_default();
        // A file with a table of its own says all that it has to say of the cells.
        let has_table = config
            .data
            .as_deref()
            .and_then(Path::extension)
            .is_some_and(|e| e.eq_ignore_ascii_case("h5ad") || e.eq_ignore_ascii_case("h5mu"));
        if !has_table || obs.is_empty() {
            let known: HashSet<String> = obs.iter().map(|(name, _)| name.clone()).collect();
            obs.extend(annotations(data).into_iter().filter(|(name, _)| !known.contains(name)));
        }
        add(&mut obs, predictions(data, found.cells.take().unwrap_or_default(), found.shifts.is_some()));
        file.frame_with_index("obs", (called.as_deref(), &data.cell_names), &obs)?;
        drop(obs);
        let genes = data.gene_names.iter().map(String::as_str);
        let (called, mut var) = input_var.and_then(|var| matching(var, genes)).unwrap_or_default();
        let mean_count = std::mem::take(&mut found.genes.mean_count);
        add(&mut var, vec![(format!("{PREFIX}mean_count"), FrameColumn::Numbers(mean_count))]);
        file.frame_with_index("var", (called.as_deref(), &data.gene_names), &var)?;

        let (n, g, l, a) = (data.n_cells(), data.n_genes(), config.model.latents, data.n_interventions());
        // Not held since they were found.
        let latents = Npz::open(self.file(ResultsFile::Latents))?;
        let mut latents = latents.array("latents")?;
        file.array_f32_by("obsm/X_svae", &[n, l], |n| {
            let mut values = Vec::with_capacity(n);
            latents.next_f64(n, &mut values)?;
            Ok(values.into_iter().map(|z| z as f32).collect())
        })?;
        file.array_f32("varm/svae_loadings", &[g, l], &found.genes.log2_fold_change)?;
        file.array_f32("varm/svae_loadings_se", &[g, l], &found.genes.standard_error)?;
        file.array_f32("varm/svae_loadings_shrunken", &[g, l], &found.genes.shrunken)?;
        if let Some(truth) = &data.truth {
            file.array_f64("obsm/groundtruth_latent", &[n, truth.n_latents], &truth.latents)?;
            file.array_f64("uns/prior_mean", &[a, truth.n_latents], &truth.prior_means)?;
            if !truth.escaped.is_empty() {
                let escaped: Vec<f64> = truth.escaped.iter().map(|&escaped| f64::from(escaped)).collect();
                file.array_f64("obsm/groundtruth_escaped", &[n, 1], &escaped)?;
            }
        }

        file.dict("uns/svae")?;
        write_record(&file, config, data, metrics)?;
        write_shifts_and_masks(&file, data, l, &found)?;
        write_history(&file, history)?;
        file.finish()
    }
}

/// Adds the settings, the figures and the names that tables of the model go by.
fn write_record(file: &AnnDataWriter, config: &Settings, data: &Dataset, metrics: &Metrics) -> Result<()> {
    file.string("uns/svae/program", concat!("svae-cpu ", env!("CARGO_PKG_VERSION")))?;
    file.string("uns/svae/method", config.model.method.name())?;
    // The number of threads changes nothing, so it must not change the file either.
    let mut settings = config.clone();
    settings.execution.threads = None;
    file.string("uns/svae/config", &settings.to_toml())?;
    // Times are the one thing that differs between two runs.
    let mut figures = serde_json::json!(metrics);
    if let Some(figures) = figures.as_object_mut() {
        figures.remove("timing");
        if let Some(heldout) = figures.get_mut("heldout").and_then(|heldout| heldout.as_object_mut()) {
            heldout.remove("seconds");
        }
    }
    file.string("uns/svae/metrics", &figures.to_string())?;
    file.strings("uns/svae/interventions", &data.intervention_names)?;
    file.strings("uns/svae/latents", &latent_names(config.model.latents))
}

/// Adds the masks, shifts, edges and targets of a model that has them.
fn write_shifts_and_masks(file: &AnnDataWriter, data: &Dataset, l: usize, found: &Interpretation) -> Result<()> {
    let a = data.n_interventions();
    if let Some(masks) = &found.masks {
        file.array_f64("uns/svae/masks", &[a, l], masks)?;
    }
    let Some(shifts) = &found.shifts else { return Ok(()) };
    file.array_f64("uns/svae/shifts", &[a, l], shifts)?;
    let names = (&data.intervention_names[..], &latent_names(l)[..]);
    let targets = &found.targets;
    let mut columns = pairs(names, targets.iter().map(|target| (target.intervention, target.latent)));
    columns.extend([
        ("probability".to_owned(), FrameColumn::Numbers(targets.iter().map(|t| t.probability).collect())),
        ("shift".to_owned(), FrameColumn::Numbers(targets.iter().map(|t| t.shift).collect())),
    ]);
    if let Some(certainty) = &found.certainty {
        columns.extend(edge_columns(certainty, target_columns(), || certainty.found()));
        let mut all = pairs(names, certainty.edges.iter().map(|edge| (edge.intervention, edge.latent)));
        all.extend(edge_columns(certainty, EDGE_COLUMNS.into_iter(), || certainty.edges.iter()));
        file.frame("uns/svae/edges", &numbered(certainty.edges.len()), &all)?;
    }
    file.frame("uns/svae/targets", &numbered(targets.len()), &columns)
}

/// The columns that name pairs of intervention and latent, given by their numbers.
fn pairs(
    (interventions, latents): (&[String], &[String]),
    of: impl Iterator<Item = (usize, usize)>,
) -> Vec<(String, FrameColumn)> {
    let (interventions, latents) = of.map(|(a, k)| (interventions[a].clone(), latents[k].clone())).unzip();
    vec![
        ("intervention".to_owned(), FrameColumn::Strings(interventions)),
        ("latent".to_owned(), FrameColumn::Strings(latents)),
    ]
}

/// Columns of numbers of some edges, and the blocks of their latents.
fn edge_columns<'a, I: Iterator<Item = &'a Edge>>(
    certainty: &Certainty,
    columns: impl Iterator<Item = EdgeColumn>,
    edges: impl Fn() -> I,
) -> Vec<(String, FrameColumn)> {
    let numbers = |(name, of): EdgeColumn| (name.to_owned(), FrameColumn::Numbers(edges().map(of).collect()));
    let blocks = edges().map(|edge| certainty.limits.block_name(edge.latent)).collect();
    columns.map(numbers).chain([("block".to_owned(), FrameColumn::Strings(blocks))]).collect()
}

/// The index of a table whose rows have no names.
fn numbered(n: usize) -> Vec<String> {
    (0..n).map(|i| i.to_string()).collect()
}

/// Adds the epochs of the training.
fn write_history(file: &AnnDataWriter, history: &[EpochRecord]) -> Result<()> {
    let index: Vec<String> = history.iter().map(|r| r.epoch.to_string()).collect();
    let numbers = |name: &str, of: fn(&EpochRecord) -> f64| {
        (name.to_owned(), FrameColumn::Numbers(history.iter().map(of).collect()))
    };
    let columns = [
        numbers("kl_weight", |r| r.kl_weight),
        numbers("train_loss", |r| r.train_loss),
        numbers("train_elbo", |r| r.train_elbo),
        numbers("train_reconstruction", |r| r.train_reconstruction),
        numbers("train_kl", |r| r.train_kl),
        numbers("kl_global", |r| r.kl_global),
        numbers("validation_elbo", |r| r.validation_elbo),
        numbers("validation_reconstruction", |r| r.validation_reconstruction),
        numbers("validation_kl", |r| r.validation_kl),
        numbers("mean_mask", |r| r.mean_mask),
    ];
    file.frame("uns/svae/history", &index, &columns)
}

/// Names of the latents in tables.
fn latent_names(l: usize) -> Vec<String> {
    (0..l).map(|k| format!("latent_{k}")).collect()
}

/// Adds columns with results, in the place of those that an earlier run has left.
fn add(columns: &mut Vec<(String, FrameColumn)>, results: Vec<(String, FrameColumn)>) {
    columns.retain(|(name, _)| !results.iter().any(|(result, _)| result == name));
    columns.extend(results);
}

/// What the index of a table is called, if it has a name, and the columns of the table.
type MatchedFrame = (Option<String>, Vec<(String, FrameColumn)>);

/// The rows of a table that are called `names`; `None` where these neither follow the table's order nor are unique in it.
fn matching<'a>(frame: Frame, names: impl DoubleEndedIterator<Item = &'a str> + Clone) -> Option<MatchedFrame> {
    let Frame { index, names: rows, columns } = frame;
    if names.clone().eq(&rows) {
        return Some((index, columns));
    }
    let chosen = match in_order(&rows, names.clone()) {
        Some(chosen) => chosen,
        None => {
            let mut places: HashMap<&str, usize> = HashMap::new();
            for (i, row) in rows.iter().enumerate() {
                if places.insert(row, i).is_some() {
                    return None;
                }
            }
            names.map(|name| places.get(name).copied()).collect::<Option<Vec<usize>>>()?
        }
    };
    Some((index, columns.into_iter().map(|(name, column)| (name, column.select(&chosen))).collect()))
}

/// The rows that are called `names` in this order, if there is one way alone to choose them.
fn in_order<'a>(rows: &Names, names: impl DoubleEndedIterator<Item = &'a str> + Clone) -> Option<Vec<usize>> {
    let mut next = rows.iter().enumerate();
    let first: Option<Vec<usize>> =
        names.clone().map(|name| next.by_ref().find(|(_, row)| *row == name).map(|(i, _)| i)).collect();
    let mut next = (0..rows.len()).rev();
    let mut last: Vec<usize> =
        names.rev().map(|name| next.by_ref().find(|&i| &rows[i] == name)).collect::<Option<_>>()?;
    last.reverse();
    // The earliest and the latest rows that do.
    first.filter(|first| *first == last)
}

/// What is known of the cells where the input has no `obs`.
pub(crate) fn annotations(data: &Dataset) -> Vec<(String, FrameColumn)> {
    let interventions = (0..data.n_cells()).map(|n| data.combination_of(n));
    let mut columns = vec![("intervention".to_owned(), categories(interventions.map(Some)))];
    for covariate in &data.covariates.categorical {
        let codes = covariate.codes.iter().map(|&code| i64::from(code)).collect();
        columns.push((covariate.name.clone(), FrameColumn::Categorical(covariate.levels.clone(), codes)));
    }
    if let Some(guides) = &data.guides {
        let codes = guides.codes.iter().map(|code| code.map_or(-1, i64::from)).collect();
        columns.push((guides.name.clone(), FrameColumn::Categorical(guides.names.clone(), codes)));
    }
    for covariate in &data.covariates.continuous {
        columns.push((covariate.name.clone(), FrameColumn::Numbers(covariate.values.clone())));
    }
    let mut seen = std::collections::HashSet::new();
    columns.retain(|(name, _)| seen.insert(name.clone()));
    columns
}

/// The results of each cell.
fn predictions(data: &Dataset, cells: CellFigures, with_shifts: bool) -> Vec<(String, FrameColumn)> {
    let column = |name: &str, values: FrameColumn| (format!("{PREFIX}{name}"), values);
    let mut columns = vec![
        column("intervention", categories((0..data.n_cells()).map(|n| Some(data.combination_of(n))))),
        column("split", categories(cells.subset.iter().map(|subset| Some(subset.name())))),
        column("size_factor", FrameColumn::Numbers(data.library.clone())),
        column("reconstruction", FrameColumn::Numbers(cells.reconstruction)),
        column("kl", FrameColumn::Numbers(cells.kl)),
    ];
    if with_shifts {
        let mut levels = vec![NO_TARGET.to_owned()];
        levels.extend(data.intervention_names.iter().cloned());
        let codes = cells.nearest.iter().map(|&code| i64::from(code)).collect();
        columns.push(column("nearest_intervention", FrameColumn::Categorical(levels, codes)));
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(rows: &[&str]) -> Frame {
        let names = rows.iter().collect();
        let numbers = (0..rows.len() as i64).collect();
        Frame { index: None, names, columns: vec![("number".to_owned(), FrameColumn::Integers(numbers))] }
    }

    fn matched(rows: &[&str], names: &[&str]) -> Option<Vec<i64>> {
        match &matching(frame(rows), names.iter().copied())?.1[0].1 {
            FrameColumn::Integers(numbers) => Some(numbers.clone()),
            _ => unreachable!("the column is of integers"),
        }
    }

    #[test]
    fn rows_are_matched_by_name_whether_some_are_gone_or_the_order_changed() {
        assert_eq!(matched(&["a", "b", "c", "d"], &["a", "c", "d"]), Some(vec![0, 2, 3]));
        assert_eq!(matched(&["a", "b", "c"], &["c", "a"]), Some(vec![2, 0]));
        // Names that occur twice are told apart by their order alone.
        assert_eq!(matched(&["a", "a", "b"], &["a", "a", "b"]), Some(vec![0, 1, 2]));
        assert_eq!(matched(&["a", "a", "b"], &["b", "a"]), None);
        assert_eq!(matched(&["a", "a", "b"], &["a", "b"]), None, "either of two");
        assert_eq!(matched(&["a", "b"], &["x"]), None);
    }
}
