//! What the report shows, read back from the files of a results folder.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::data::combinations::members_in;
use crate::data::formats::npz::Npz;
use crate::error::Result;
use crate::evaluation::certainty::{Certainty, Edge};
use crate::evaluation::guides::GuideAgreement;
use crate::evaluation::interpretation::Subset;
use crate::evaluation::metrics::Metrics;
use crate::model::method::Method;
use crate::numerics::spread::evenly_spaced;
use crate::results::catalogue::ResultsFile;
use crate::results::cells::{CellRow, each_cell};
use crate::results::page::charts::{Histogram, MovedGene};
use crate::results::page::pca::Covariance;
use crate::results::read::{damaged, json, number, rows, text};
use crate::results::tables::{EDGE_COLUMNS, GENE_COLUMNS, INTERACTION_COLUMNS};
use crate::training::history::EpochRecord;

/// Most cells that are drawn.
pub(crate) const MOST_POINTS: usize = 3000;

/// A results folder in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// Text of `config.toml`.
    pub config_text: String,
    /// The settings.
    pub config: toml::Table,
    /// The figures of `metrics.json`, with held-out ones from `evaluation.json` where it alone has them.
    pub metrics: serde_json::Value,
    /// What was read from the data file, if there was one.
    pub summary: Option<serde_json::Value>,
    pub history: Vec<EpochRecord>,
    pub retraining: Vec<EpochRecord>,
    /// Names of the interventions, in the order of masks and shifts.
    pub interventions: Vec<String>,
    /// Whether each was trained on.
    pub trained: Vec<bool>,
    /// The judgement of predictions, if one was made.
    pub judgement: Option<serde_json::Value>,
    pub n_latents: usize,
    /// Probabilities, interventions x L.
    pub masks: Option<Vec<f64>>,
    /// Shifts, interventions x L.
    pub shifts: Option<Vec<f64>>,
    /// How sure every pair of intervention and latent is, where that is known.
    pub certainty: Option<Certainty>,
    /// Every pair of a combination and a latent, where combinations were compared with the sums of their members.
    pub interactions: Vec<ShownInteraction>,
    /// Shifts fitted to the held-out cells, interventions x L.
    pub held_out_shifts: Option<Vec<f64>>,
    /// Strongest genes of each latent.
    pub genes: Vec<Vec<MovedGene>>,
    pub cells: CellSummary,
    /// The latents of the cells.
    pub space: Space,
}

impl Run {
    /// The epoch whose weights are kept.
    pub fn kept_epoch(&self) -> Option<f64> {
        match self.config.get("keep").and_then(toml::Value::as_str) {
            Some("last") => self.history.last().map(|r| r.epoch as f64),
            _ => self.best_epoch(),
        }
    }

    /// The epoch of the first training with the lowest watched ELBO.
    pub fn best_epoch(&self) -> Option<f64> {
        best_epoch_of(&self.history)
    }

    /// Number of interventions among the cells that were trained on.
    pub fn trained_names(&self) -> usize {
        self.cells.trained.iter().filter(|&&trained| trained).count()
    }
}

/// A row of `interactions.csv`.
#[derive(Debug, Clone)]
pub(crate) struct ShownInteraction {
    pub combination: String,
    pub n_cells: f64,
    pub class: String,
    pub magnitude: f64,
    pub latent: String,
    pub probability: f64,
    pub q_value: f64,
    pub deviation: f64,
    pub low: f64,
    pub high: f64,
    pub sum: f64,
}

/// The epoch with the lowest watched ELBO.
pub(crate) fn best_epoch_of(history: &[EpochRecord]) -> Option<f64> {
    let watched = |r: &EpochRecord| if r.validation_elbo.is_finite() { r.validation_elbo } else { r.train_elbo };
    let best = history.iter().min_by(|a, b| watched(a).total_cmp(&watched(b)))?;
    Some(best.epoch as f64)
}

/// What the report says of the cells, summed up: none of it is held for each of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct CellSummary {
    /// Number of cells.
    pub n: usize,
    /// Names of all interventions that cells have, in order of appearance.
    pub names: Vec<String>,
    /// Cells of each.
    pub sizes: Vec<usize>,
    /// Whether cells of each were trained on.
    pub trained: Vec<bool>,
    pub total: ColumnSummary,
    pub n_genes: ColumnSummary,
    /// Size factors, where they are not the total counts.
    pub size_factor: Option<ColumnSummary>,
    /// The first categorical covariate: name, levels, cells of each level.
    pub batch: Option<(String, Vec<String>, Vec<usize>)>,
    /// The cells that are drawn, evenly spaced.
    pub drawn: Vec<Drawn>,
}

/// A column of numbers in `cells.csv`, summed up.
#[derive(Debug, Clone)]
pub(crate) struct ColumnSummary {
    pub sum: f64,
    pub median: f64,
    /// Quartiles.
    pub quarters: [f64; 3],
    pub histogram: Histogram,
}

/// A cell that is drawn.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drawn {
    /// Its place among all cells.
    pub cell: usize,
    /// Number of its intervention's name.
    pub intervention: usize,
    pub total: f64,
    /// Level of the first categorical covariate.
    pub batch: usize,
    /// Where it lies on the principal components of the latents.
    pub point: [f64; 2],
}

/// The latents of all cells, summed up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Space {
    /// Share of the variance along each of two principal components.
    pub explained: [f64; 2],
    /// Mean of the latents.
    pub mean: Vec<f64>,
    /// Sums of the latents of each intervention's cells, names x L.
    pub sums: Vec<f64>,
}

impl Default for ColumnSummary {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl ColumnSummary {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let n = values.len();
        let at = |place: usize| values.get(place).copied().unwrap_or(0.0);
        Self {
            sum: values.iter().sum(),
            median: at(n / 2),
            quarters: [1, 2, 3].map(|q| at((q * n / 4).min(n.saturating_sub(1)))),
            histogram: Histogram::of(&values),
        }
    }
}

/// Reads what the report shows. `metrics` stands in for `metrics.json` where that is not written yet.
pub(crate) fn read(folder: &Path, metrics: Option<&Metrics>) -> Result<Run> {
    let mut run = Run::default();
    run.config_text = text(&ResultsFile::Config.within(folder))?;
    run.config =
        run.config_text.parse().map_err(|_| damaged(&ResultsFile::Config.within(folder), "it is not valid TOML"))?;
    run.metrics = match metrics {
        Some(metrics) => serde_json::json!(metrics),
        None => json(&ResultsFile::Metrics.within(folder))?,
    };
    let evaluation = ResultsFile::Evaluation.within(folder);
    if run.metrics.get("heldout").is_none()
        && evaluation.is_file()
        && let Some(heldout) = json(&evaluation)?.get("heldout")
    {
        run.metrics["heldout"] = heldout.clone();
    }
    let judgement = ResultsFile::Judgement.within(folder);
    run.judgement = judgement.is_file().then(|| json(&judgement)).transpose()?;
    let summary = ResultsFile::DataSummary.within(folder);
    if summary.is_file() {
        run.summary = Some(json(&summary)?);
    }
    // A linear model has no training.
    if run.config.get("method").and_then(toml::Value::as_str) != Some(Method::Pca.name()) {
        run.history = history(&ResultsFile::History.within(folder))?;
    }
    let retraining = ResultsFile::RetrainingHistory.within(folder);
    if retraining.is_file() {
        run.retraining = history(&retraining)?;
    }

    run.genes = genes(&ResultsFile::GenesPerLatent.within(folder))?;
    run.n_latents = run.genes.len();
    let mut table = |file: ResultsFile| -> Result<Option<Vec<f64>>> {
        let path = file.within(folder);
        if !path.is_file() {
            return Ok(None);
        }
        let (names, values) = intervention_table(&path, run.n_latents)?;
        run.interventions = names;
        Ok(Some(values))
    };
    (run.masks, run.held_out_shifts, run.shifts) =
        (table(ResultsFile::Masks)?, table(ResultsFile::HeldOutShifts)?, table(ResultsFile::Shifts)?);
    let n = run.interventions.len() * run.n_latents;
    for (file, values) in [(ResultsFile::Masks, &run.masks), (ResultsFile::HeldOutShifts, &run.held_out_shifts)] {
        if values.as_ref().is_some_and(|values| values.len() != n) {
            return Err(damaged(&file.within(folder), "it has other interventions than shifts.csv").into());
        }
    }

    let path = ResultsFile::Edges.within(folder);
    if path.is_file() {
        let of_run = run.metrics["edges"].as_object().zip(run.metrics["edges"]["fdr"].as_f64());
        let of_run = of_run.and_then(|(edges, fdr)| {
            let part = |name: &str| edges.get(name).cloned();
            let (permutation, limits) = (part("permutation")?, part("limits")?);
            let control_guides = part("control_guides").map(serde_json::from_value).transpose().ok()?;
            Some((fdr, serde_json::from_value(permutation).ok()?, control_guides, serde_json::from_value(limits).ok()?))
        });
        let (fdr, permutation, control_guides, limits) =
            of_run.ok_or_else(|| damaged(&ResultsFile::Metrics.within(folder), "it has no figures of the edges"))?;
        let edges = edges(&path, &run.interventions, run.n_latents)?;
        // Interactions are shown from their own table.
        run.certainty = Some(Certainty { fdr, edges, permutation, control_guides, limits, interactions: None });
    }
    let path = ResultsFile::Interactions.within(folder);
    if path.is_file() {
        run.interactions = interactions(&path)?;
    }

    let path = ResultsFile::Cells.within(folder);
    let interventions: Vec<u32>;
    (run.cells, interventions) = self::cells(&path)?;
    let labels = run.cells.names.iter().zip(&run.cells.trained).filter(|(_, trained)| **trained);
    run.trained = members_in(labels.map(|(label, _)| label.as_str()), &run.interventions);
    run.space = space(&ResultsFile::Latents.within(folder), run.n_latents, &mut run.cells, interventions)?;
    columns(&path, &mut run.cells)?;
    Ok(run)
}

fn history(path: &Path) -> Result<Vec<EpochRecord>> {
    let content = text(path)?;
    let rows = csv::Reader::from_reader(content.as_bytes()).into_deserialize().collect::<Result<_, csv::Error>>();
    Ok(rows.map_err(|e| damaged(path, &format!("it is no history ({e})")))?)
}

/// Names and values of a table with a row per intervention.
fn intervention_table(path: &Path, n_latents: usize) -> Result<(Vec<String>, Vec<f64>)> {
    let (header, rows) = rows(path)?;
    if header.len() != n_latents + 1 {
        return Err(damaged(path, "it has other latents than genes_per_latent.csv").into());
    }
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (i, row) in rows.iter().enumerate() {
        names.push(row[0].to_owned());
        for field in row.iter().skip(1) {
            values.push(number(path, i, field)?);
        }
    }
    Ok((names, values))
}

/// Every pair of intervention and latent, the interventions by their places among `names`.
///
/// # Errors
/// [`crate::InputError`] for a table that is damaged or of another model.
pub(crate) fn edges(path: &Path, names: &[String], n_latents: usize) -> Result<Vec<Edge>> {
    let (header, rows) = rows(path)?;
    let columns: Vec<&str> =
        ["intervention", "latent"].into_iter().chain(EDGE_COLUMNS.map(|(name, _)| name)).chain(["block"]).collect();
    if header.iter().ne(columns.iter().copied()) {
        return Err(damaged(path, &format!("its columns are not {}", columns.join(", "))).into());
    }
    let places: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
    let edge = |(i, row): (usize, &csv::StringRecord)| {
        let latent = row[1].strip_prefix("latent_").and_then(|k| k.parse().ok()).filter(|&k: &usize| k < n_latents);
        let (Some(&intervention), Some(latent)) = (places.get(&row[0]), latent) else {
            let problem = "it has other interventions or latents than shifts.csv";
            return Err(damaged(path, problem).at(format!("row {}", i + 2)).into());
        };
        let value = |column: usize| number(path, i, &row[column]);
        let guides = match row[9].is_empty() {
            true => None,
            false => Some(GuideAgreement { guides: value(9)? as usize, agreeing: value(10)? as usize }),
        };
        Ok(Edge {
            intervention,
            latent,
            probability: value(2)?,
            lfsr: value(3)?,
            q_value: value(4)?,
            shift: value(5)?,
            shift_low: value(6)?,
            shift_high: value(7)?,
            probability_large: value(8)?,
            guides,
        })
    };
    rows.iter().enumerate().map(edge).collect()
}

fn interactions(path: &Path) -> Result<Vec<ShownInteraction>> {
    let (header, rows) = rows(path)?;
    if header.iter().ne(INTERACTION_COLUMNS) {
        return Err(damaged(path, &format!("its columns are not {}", INTERACTION_COLUMNS.join(", "))).into());
    }
    let interaction = |(i, row): (usize, &csv::StringRecord)| {
        let value = |column: usize| number(path, i, &row[column]);
        Ok(ShownInteraction {
            combination: row[0].to_owned(),
            n_cells: value(1)?,
            class: row[2].to_owned(),
            magnitude: value(3)?,
            latent: row[4].strip_prefix("latent_").unwrap_or(&row[4]).to_owned(),
            probability: value(5)?,
            q_value: value(7)?,
            deviation: value(8)?,
            low: value(9)?,
            high: value(10)?,
            sum: value(11)?,
        })
    };
    rows.iter().enumerate().map(interaction).collect()
}

fn genes(path: &Path) -> Result<Vec<Vec<MovedGene>>> {
    let (header, rows) = rows(path)?;
    if header.iter().ne(GENE_COLUMNS) || rows.is_empty() {
        return Err(damaged(path, &format!("its columns are not {}", GENE_COLUMNS.join(", "))).into());
    }
    let mut genes: Vec<Vec<MovedGene>> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        if row[0] == *format!("latent_{}", genes.len()) {
            genes.push(Vec::new());
        }
        let value = |column: usize| number(path, i, &row[column]);
        match genes.last_mut() {
            Some(of_latent) => of_latent.push(MovedGene {
                name: row[2].to_owned(),
                log2_fold_change: value(3)?,
                standard_error: value(4)?,
                shrunken: value(5)?,
                mean_count: value(6)?,
            }),
            None => return Err(damaged(path, "it does not begin with latent_0").into()),
        }
    }
    Ok(genes)
}

/// Most levels of a covariate that is shown as a category.
const MOST_LEVELS: usize = 40;

/// Sums up the names in `cells.csv`, and gives the number of each cell's intervention too.
fn cells(path: &Path) -> Result<(CellSummary, Vec<u32>)> {
    let mut cells = CellSummary::default();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut interventions = Vec::new();
    let mut differs = false;
    let mut levels: BTreeMap<String, usize> = BTreeMap::new();
    let covariates = each_cell(path, |row| {
        let a = match numbers.get(row.intervention()) {
            Some(&a) => a,
            None => {
                let next = numbers.len();
                numbers.insert(row.intervention().to_owned(), next);
                cells.names.push(row.intervention().to_owned());
                cells.sizes.push(0);
                cells.trained.push(false);
                next
            }
        };
        interventions.push(a as u32);
        cells.n += 1;
        cells.sizes[a] += 1;
        cells.trained[a] |= !row.is_in(Subset::HeldOut);
        let (size_factor, total) = (row.size_factor()?, row.total_count()?);
        differs |= size_factor != total;
        row.n_genes()?;
        if let Some(level) = row.covariate(0) {
            if let Some(size) = levels.get_mut(level) {
                *size += 1;
            } else if levels.len() <= MOST_LEVELS {
                // One more than are shown says that there are too many.
                levels.insert(level.to_owned(), 1);
            }
        }
        Ok(())
    })?;
    // Filled in later.
    cells.size_factor = differs.then(ColumnSummary::default);
    // The first covariate, if it looks like a category.
    if let Some(name) = covariates.first()
        && (2..=MOST_LEVELS).contains(&levels.len())
    {
        let (levels, sizes) = levels.into_iter().unzip();
        cells.batch = Some((name.clone(), levels, sizes));
    }
    let drawn = evenly_spaced(cells.n, MOST_POINTS);
    cells.drawn =
        drawn.map(|cell| Drawn { cell, intervention: interventions[cell] as usize, ..Drawn::default() }).collect();
    Ok((cells, interventions))
}

/// Sums up the numbers in `cells.csv`, one column at a time so that only one is held.
fn columns(path: &Path, cells: &mut CellSummary) -> Result<()> {
    let changed = || damaged(path, "it has changed while it was read");
    let read = |of: fn(&CellRow) -> Result<f64>, see: &mut dyn FnMut(f64, &CellRow)| -> Result<ColumnSummary> {
        let mut values = Vec::new();
        each_cell(path, |row| {
            let value = of(row)?;
            see(value, row);
            values.push(value);
            Ok(())
        })?;
        Ok(ColumnSummary::of(values))
    };
    let mut drawn = cells.drawn.iter_mut().peekable();
    let levels = cells.batch.as_ref().map(|(_, levels, _)| levels);
    cells.total = read(|row| row.total_count(), &mut |total, row| {
        if let Some(drawn) = drawn.next_if(|drawn| drawn.cell == row.cell) {
            drawn.total = total;
            let level = row.covariate(0).zip(levels);
            drawn.batch = level.map_or(0, |(level, levels)| levels.iter().position(|l| l == level).unwrap_or(0));
        }
    })?;
    if drawn.next().is_some() {
        return Err(changed().into());
    }
    cells.n_genes = read(|row| row.n_genes(), &mut |_, _| ())?;
    if cells.size_factor.is_some() {
        cells.size_factor = Some(read(|row| row.size_factor(), &mut |_, _| ())?);
    }
    Ok(())
}

/// Sums up the latents of the cells, which are under `interventions`, in two passes over their file, and places those that
/// are drawn.
fn space(path: &Path, n_latents: usize, cells: &mut CellSummary, interventions: Vec<u32>) -> Result<Space> {
    let (n, l) = (cells.n, n_latents);
    let archive = Npz::open(path)?;
    let wrong = || damaged(path, "its latents do not fit cells.csv and genes_per_latent.csv");
    let pass = |row: &mut dyn FnMut(usize, &[f64])| -> Result<()> {
        let mut array = archive.array("latents")?;
        if array.shape() != [n, l] || array.is_fortran() {
            return Err(wrong().into());
        }
        let mut values = Vec::new();
        for first in (0..n).step_by(LATENT_ROWS) {
            values.clear();
            array.next_f64(LATENT_ROWS.min(n - first) * l, &mut values)?;
            if values.iter().any(|z| !z.is_finite()) {
                return Err(wrong().into());
            }
            values.chunks_exact(l).enumerate().for_each(|(i, values)| row(first + i, values));
        }
        Ok(())
    };
    let mut space = Space { explained: [0.0; 2], mean: vec![0.0; l], sums: vec![0.0; cells.names.len() * l] };
    let mut rows_drawn = Vec::with_capacity(cells.drawn.len() * l);
    let mut drawn = cells.drawn.iter().peekable();
    pass(&mut |i, row| {
        let of_intervention = &mut space.sums[interventions[i] as usize * l..][..l];
        of_intervention.iter_mut().zip(row).for_each(|(sum, z)| *sum += z);
        space.mean.iter_mut().zip(row).for_each(|(mean, z)| *mean += z / n as f64);
        if drawn.next_if(|drawn| drawn.cell == i).is_some() {
            rows_drawn.extend_from_slice(row);
        }
    })?;
    drop(interventions);
    let mut covariance = Covariance::new(space.mean.clone(), n);
    pass(&mut |_, row| covariance.add(row))?;
    let pca = covariance.components();
    space.explained = pca.explained;
    cells.drawn.iter_mut().zip(rows_drawn.chunks_exact(l)).for_each(|(drawn, row)| drawn.point = pca.point(row));
    Ok(space)
}

/// Cells whose latents are read at a time.
const LATENT_ROWS: usize = 1 << 10;
