//! `svae-cpu sample`: cells under interventions, simulated by a trained model.

use std::collections::HashMap;
use std::path::Path;

use rand::RngExt;

use crate::commands::saved_model::{COUNTS, LATENTS, SavedModel, Written, stream};
use crate::data::counts::in_memory::{Counts, CountsBuilder};
use crate::data::dataset::{Dataset, InterventionRows};
use crate::data::minibatch::Batch;
use crate::error::{InputError, Result};
use crate::evaluation::interpretation::{CONTROL, Subset};
use crate::inference::evaluation_workspace;
use crate::model::network::Network;
use crate::numerics::real::{Precision, Real};
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::cells::each_cell;
use crate::results::output_file::{OutputKind, write_simulated};

/// What `svae-cpu sample` is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Interventions that act together.
    pub interventions: Vec<String>,
    /// Number of cells.
    pub cells: usize,
    /// Size factor of all cells; `None`: those of training cells.
    pub size_factor: Option<f64>,
    /// Seed.
    pub seed: u64,
}

/// Simulates cells under a combination of interventions (none: without any) and writes them with their latents.
///
/// A cell takes size factor and covariates of a training cell drawn at random, draws its masks, its latents and its
/// counts as the model says. Where one of the interventions was held out, the model fitted to it is used.
///
/// # Errors
/// [`InputError`] for an intervention that the model does not know, or that it was never fitted to; as writing does.
pub fn sample(model: &SavedModel, request: &Sample, out: &Path, kind: OutputKind) -> Result<Written> {
    let chosen = model.find(&request.interventions, &model.interventions, "intervention", "--intervention")?;
    if !chosen.is_empty() && !model.config.model.method.uses_interventions() {
        let problem = format!("the latents of a {} do not depend on interventions", model.config.model.method.name());
        let remedy = "leave --intervention out, or train a model whose prior has shifts (sVAE+, sVAE, iVAE)";
        return Err(InputError::new(problem, remedy).in_file(&model.folder).at("--intervention").into());
    }
    let donors = Donors::read(&ResultsFile::Cells.within(&model.folder), model)?;
    let held_out = chosen.iter().find(|&&a| !donors.trained[a]);
    let file = match held_out {
        None => ResultsFile::Model,
        Some(&a) if !ResultsFile::HeldOutModel.within(&model.folder).is_file() => {
            let problem = format!("`{}` was held out of the training and never fitted", model.interventions[a]);
            let remedy = "fit it with `svae-cpu fit-shifts`, or sample another intervention";
            return Err(InputError::new(problem, remedy).in_file(&model.folder).at("--intervention").into());
        }
        Some(_) => ResultsFile::HeldOutModel,
    };
    let (data, latents) = match model.config.training.precision {
        Precision::F32 => simulated::<f32>(model, request, &chosen, &donors, file)?,
        Precision::F64 => simulated::<f64>(model, request, &chosen, &donors, file)?,
    };
    write_simulated(out, kind, &data, &latents, model.config.model.latents)?;
    let mut notes = Vec::new();
    if file == ResultsFile::HeldOutModel {
        notes.push("cells come from the model that was fitted to held-out interventions".to_owned());
    }
    Ok(Written { n_cells: data.n_cells(), notes })
}

/// The cells of a request, and their latents (cells x L).
fn simulated<R: Real>(
    model: &SavedModel,
    request: &Sample,
    chosen: &[usize],
    donors: &Donors,
    file: ResultsFile,
) -> Result<(Dataset, Vec<f64>)> {
    let mut network = model.network::<R>(file)?;
    if file == ResultsFile::HeldOutModel {
        network.prior_mut().freeze();
    }
    let names = (0..request.cells).map(|n| format!("simulated_{n}")).collect();
    let mut data = model.dataset(Counts::from_dense(model.genes.len(), &[]), names);
    let label = match chosen {
        [] => CONTROL.to_owned(),
        _ => chosen.iter().map(|&a| model.interventions[a].as_str()).collect::<Vec<_>>().join("+"),
    };
    data.interventions = InterventionRows::one_hot(vec![0; request.cells]);
    data.intervention_names = vec![label];
    let mut z = Vec::with_capacity(request.cells * model.config.model.latents);
    for n in 0..request.cells {
        let mut random = stream(request.seed, n, LATENTS);
        let donor = donors.cells[random.random_range(0..donors.cells.len())];
        donors.give(donor, request.size_factor, &mut data, n);
        network.draw_latents(chosen, &mut random, &mut z);
    }
    data.counts =
        Team::with(model.config.n_threads(), |team| draw_counts(team, &network, &data, &z, request.seed)).into();
    Ok((data, z.iter().map(|z| z.f64()).collect()))
}

/// Draws the counts of the cells of `data` from their latents `z` (cells x L).
fn draw_counts<R: Real>(team: &Team, network: &Network<R>, data: &Dataset, z: &[R], seed: u64) -> Counts {
    let (l, g) = (network.architecture.n_latents, network.architecture.n_genes);
    let sampler = network.count_sampler();
    let mut workspace = evaluation_workspace(network, data);
    network.prepare_evaluation(&mut workspace);
    let all: Vec<usize> = (0..data.library.len()).collect();
    let mut builder = CountsBuilder::new(g);
    let capacity = workspace.capacity();
    for (batch, z) in all.chunks(capacity).zip(z.chunks(capacity * l)) {
        let log_rates = network.log_rates(team, &mut workspace, Batch::new(data, batch), z);
        for (&n, row) in batch.iter().zip(log_rates.chunks_exact(g)) {
            let mut random = stream(seed, n, COUNTS);
            for (gene, log_rate) in row.iter().enumerate() {
                let mean = data.library[n] * log_rate.f64().exp();
                builder.push(gene, sampler.draw(gene, mean, &mut random));
            }
            builder.end_cell();
        }
    }
    builder.finish()
}

/// The training cells whose size factors and covariates simulated cells take.
struct Donors {
    /// Numbers of the training cells.
    cells: Vec<usize>,
    size_factor: Vec<f64>,
    /// Levels of each categorical covariate.
    codes: Vec<Vec<u32>>,
    /// Values of each continuous covariate.
    values: Vec<Vec<f64>>,
    /// Whether each intervention of the model was trained on.
    trained: Vec<bool>,
}

impl Donors {
    fn read(path: &Path, model: &SavedModel) -> Result<Self> {
        let remedy = "repeat the run with `svae-cpu run` on the folder's config.toml";
        let damaged = |problem: &str| InputError::new(problem, remedy).in_file(path);
        let (n_categorical, n_continuous) = (model.categorical.len(), model.continuous.len());
        let n_covariates = n_categorical + n_continuous;
        let mut donors = Self {
            cells: Vec::new(),
            size_factor: Vec::new(),
            codes: vec![Vec::new(); n_categorical],
            values: vec![Vec::new(); n_continuous],
            trained: vec![false; model.interventions.len()],
        };
        let interventions: HashMap<&str, usize> =
            model.interventions.iter().enumerate().map(|(a, name)| (name.as_str(), a)).collect();
        let finite = |cell: usize, value: f64| match value.is_finite() {
            true => Ok(value),
            false => Err(damaged("it holds no number where one belongs").at(format!("row {}", cell + 2))),
        };
        each_cell(path, |row| {
            if row.covariate(n_covariates).is_some() || (n_covariates > 0 && row.covariate(n_covariates - 1).is_none())
            {
                return Err(damaged("it has other columns than the model's covariates ask for").into());
            }
            let factor = finite(row.cell, row.size_factor()?)?;
            if row.is_in(Subset::Train) && factor > 0.0 {
                donors.cells.push(row.cell);
            }
            if !row.is_in(Subset::HeldOut)
                && let Some(&a) = interventions.get(row.intervention())
            {
                donors.trained[a] = true;
            }
            donors.size_factor.push(factor);
            for (i, (codes, (_, levels))) in donors.codes.iter_mut().zip(&model.categorical).enumerate() {
                let level = row.covariate(i).unwrap_or_default();
                let code = levels.iter().position(|known| known == level);
                codes.push(code.ok_or_else(|| damaged(&format!("the model knows no level `{level}`")))? as u32);
            }
            for (i, values) in donors.values.iter_mut().enumerate() {
                values.push(finite(row.cell, row.covariate_value(n_categorical + i)?)?);
            }
            Ok(())
        })?;
        if donors.cells.is_empty() {
            return Err(damaged("it holds no training cell").into());
        }
        Ok(donors)
    }

    /// Gives the covariates of the cell `donor`, and its size factor unless there is another one for all, to the cell `n`
    /// of `data`.
    fn give(&self, donor: usize, size_factor: Option<f64>, data: &mut Dataset, n: usize) {
        data.library[n] = size_factor.unwrap_or(self.size_factor[donor]);
        for (column, codes) in data.covariates.categorical.iter_mut().zip(&self.codes) {
            column.codes[n] = codes[donor];
        }
        for (column, values) in data.covariates.continuous.iter_mut().zip(&self.values) {
            column.values[n] = values[donor];
        }
    }
}
