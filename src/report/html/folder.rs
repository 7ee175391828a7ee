//! What the report shows, read back from the files of a results folder.

use std::collections::HashMap;
use std::path::Path;

use crate::data::npz::Npz;
use crate::error::{Error, InputError, Result};
use crate::report::progress::EpochRecord;
use crate::report::tables::CELL_COLUMNS;

/// A results folder in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    /// Text of config.toml.
    pub config_text: String,
    /// The settings.
    pub config: toml::Table,
    /// metrics.json, with what evaluation.json knows besides.
    pub metrics: serde_json::Value,
    /// data.json, for data from a file.
    pub summary: Option<serde_json::Value>,
    pub history: Vec<EpochRecord>,
    pub retraining: Vec<EpochRecord>,
    /// Names of the interventions, in the order of masks and shifts.
    pub interventions: Vec<String>,
    /// Whether each was trained on.
    pub trained: Vec<bool>,
    pub n_latents: usize,
    /// Probabilities, interventions x L.
    pub masks: Option<Vec<f64>>,
    /// Interventions x L.
    pub shifts: Option<Vec<f64>>,
    /// Fitted to held-out cells, interventions x L.
    pub held_out_shifts: Option<Vec<f64>>,
    /// Strongest genes of each latent and their log2 fold change.
    pub genes: Vec<Vec<(String, f64)>>,
    pub cells: Cells,
    /// Posterior means, cells x L.
    pub latents: Vec<f64>,
}

/// The columns of cells.csv that the report uses.
#[derive(Debug, Clone, Default)]
pub(super) struct Cells {
    /// Intervention of each cell, a number into `names`.
    pub intervention: Vec<usize>,
    /// Names of all interventions that cells have, in order of appearance.
    pub names: Vec<String>,
    pub held_out: Vec<bool>,
    pub size_factor: Vec<f64>,
    pub total: Vec<f64>,
    pub n_genes: Vec<f64>,
    /// The first categorical covariate: name, levels, level of each cell.
    pub batch: Option<(String, Vec<String>, Vec<usize>)>,
}

/// Reads what the report shows. `metrics` stands in for metrics.json where that is not written yet.
pub(super) fn read(folder: &Path, metrics: Option<serde_json::Value>) -> Result<Run> {
    let mut run = Run::default();
    run.config_text = text(&folder.join("config.toml"))?;
    run.config = run.config_text.parse().map_err(|_| damaged(&folder.join("config.toml"), "it is not valid TOML"))?;
    run.metrics = match metrics {
        Some(metrics) => metrics,
        None => json(&folder.join("metrics.json"))?,
    };
    let evaluation = folder.join("evaluation.json");
    if run.metrics.get("heldout").is_none()
        && evaluation.is_file()
        && let Some(heldout) = json(&evaluation)?.get("heldout")
    {
        run.metrics["heldout"] = heldout.clone();
    }
    let summary = folder.join("data.json");
    if summary.is_file() {
        run.summary = Some(json(&summary)?);
    }
    run.history = history(&folder.join("history.csv"))?;
    let retraining = folder.join("history_retrain.csv");
    if retraining.is_file() {
        run.retraining = history(&retraining)?;
    }

    run.genes = genes(&folder.join("genes_per_latent.csv"))?;
    run.n_latents = run.genes.len();
    let mut table = |name: &str| -> Result<Option<Vec<f64>>> {
        let path = folder.join(name);
        if !path.is_file() {
            return Ok(None);
        }
        let (names, values) = intervention_table(&path, run.n_latents)?;
        run.interventions = names;
        Ok(Some(values))
    };
    (run.masks, run.held_out_shifts, run.shifts) =
        (table("masks.csv")?, table("shifts_heldout.csv")?, table("shifts.csv")?);
    let n = run.interventions.len() * run.n_latents;
    for (name, values) in [("masks.csv", &run.masks), ("shifts_heldout.csv", &run.held_out_shifts)] {
        if values.as_ref().is_some_and(|values| values.len() != n) {
            return Err(damaged(&folder.join(name), "it has other interventions than shifts.csv").into());
        }
    }

    let cells = folder.join("cells.csv");
    run.cells = self::cells(&cells)?;
    let mut trained = vec![false; run.cells.names.len()];
    for (&a, &held_out) in run.cells.intervention.iter().zip(&run.cells.held_out) {
        trained[a] |= !held_out;
    }
    let trained: HashMap<&str, bool> = run.cells.names.iter().map(String::as_str).zip(trained).collect();
    run.trained = run.interventions.iter().map(|name| trained.get(name.as_str()).copied().unwrap_or(false)).collect();

    let path = folder.join("latents.npz");
    let (shape, latents) = Npz::open(&path)?.array_f64("latents")?;
    if shape != [run.cells.intervention.len(), run.n_latents] || latents.iter().any(|z| !z.is_finite()) {
        return Err(damaged(&path, "its latents do not fit cells.csv and genes_per_latent.csv").into());
    }
    run.latents = latents;
    Ok(run)
}

fn damaged(path: &Path, problem: &str) -> InputError {
    InputError::new(problem, "restore the file, or repeat the run with `svae-cpu run` on the folder's config.toml")
        .in_file(path)
}

fn text(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Err(missing(path).into()),
        Err(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            Err(damaged(path, "it is not valid UTF-8").into())
        }
        Err(source) => Err(Error::io("reading", path, source)),
    }
}

fn missing(path: &Path) -> InputError {
    InputError::new("there is no such file", "name the folder of a finished run of this version").in_file(path)
}

fn json(path: &Path) -> Result<serde_json::Value> {
    let value: serde_json::Value =
        serde_json::from_str(&text(path)?).map_err(|e| damaged(path, &format!("it is not valid JSON ({e})")))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(damaged(path, "it holds no JSON object").into()),
    }
}

fn history(path: &Path) -> Result<Vec<EpochRecord>> {
    let content = text(path)?;
    let rows = csv::Reader::from_reader(content.as_bytes()).into_deserialize().collect::<Result<_, csv::Error>>();
    Ok(rows.map_err(|e| damaged(path, &format!("it is no history ({e})")))?)
}

/// Header and rows of a CSV table.
fn rows(path: &Path) -> Result<(csv::StringRecord, Vec<csv::StringRecord>)> {
    let content = text(path)?;
    let mut table = csv::Reader::from_reader(content.as_bytes());
    let bad = |e: csv::Error| damaged(path, &format!("it is no table ({e})"));
    let header = table.headers().map_err(bad)?.clone();
    let rows = table.into_records().collect::<Result<_, csv::Error>>().map_err(bad)?;
    Ok((header, rows))
}

fn number(path: &Path, row: usize, text: &str) -> Result<f64> {
    let value = text.parse::<f64>().ok();
    Ok(value.ok_or_else(|| damaged(path, "it holds text where a number belongs").at(format!("row {}", row + 2)))?)
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

fn genes(path: &Path) -> Result<Vec<Vec<(String, f64)>>> {
    let (header, rows) = rows(path)?;
    if header.iter().ne(["latent", "rank", "gene", "log2_fold_change"]) || rows.is_empty() {
        return Err(damaged(path, "its columns are not latent, rank, gene, log2_fold_change").into());
    }
    let mut genes: Vec<Vec<(String, f64)>> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        if row[0] == *format!("latent_{}", genes.len()) {
            genes.push(Vec::new());
        }
        match genes.last_mut() {
            Some(of_latent) => of_latent.push((row[2].to_owned(), number(path, i, &row[3])?)),
            None => return Err(damaged(path, "it does not begin with latent_0").into()),
        }
    }
    Ok(genes)
}

fn cells(path: &Path) -> Result<Cells> {
    let (header, rows) = rows(path)?;
    if header.len() < CELL_COLUMNS.len() || header.iter().zip(CELL_COLUMNS).any(|(found, wanted)| found != wanted) {
        return Err(damaged(path, &format!("its columns do not begin with {}", CELL_COLUMNS.join(", "))).into());
    }
    let mut cells = Cells::default();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut batch: Vec<&str> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let next = numbers.len();
        let a = *numbers.entry(row[1].to_owned()).or_insert(next);
        if a == next {
            cells.names.push(row[1].to_owned());
        }
        cells.intervention.push(a);
        cells.held_out.push(&row[2] == "held-out");
        cells.size_factor.push(number(path, i, &row[3])?);
        cells.total.push(number(path, i, &row[4])?);
        cells.n_genes.push(number(path, i, &row[5])?);
        batch.extend(row.get(CELL_COLUMNS.len()));
    }
    // The first covariate, if it looks like a category.
    let mut levels: Vec<&str> = batch.clone();
    levels.sort_unstable();
    levels.dedup();
    if let Some(name) = header.get(CELL_COLUMNS.len())
        && (2..=40).contains(&levels.len())
    {
        let codes = batch.iter().map(|level| levels.binary_search(level).expect("a level")).collect();
        cells.batch = Some((name.to_owned(), levels.iter().map(|level| level.to_string()).collect(), codes));
    }
    Ok(cells)
}
