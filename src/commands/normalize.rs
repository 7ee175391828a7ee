//! `svae-cpu normalize`: the expression of cells as the model sees it, without sampling noise.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand_distr::{Distribution, StandardNormal};

use crate::commands::saved_model::{SAMPLES_FROM, SavedModel, Written, stream};
use crate::commands::screen;
use crate::data::dataset::Dataset;
use crate::data::minibatch::Batch;
use crate::error::{InputError, Result};
use crate::inference::{Inference, evaluation_workspace};
use crate::model::latent;
use crate::numerics::real::{Precision, Real};
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::output_file::{OutputKind, write_expression};

/// What `svae-cpu normalize` is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// New cells; `None`: those of the run.
    pub data: Option<PathBuf>,
    /// Names of the genes; `None`: all.
    pub genes: Option<Vec<String>>,
    /// Sum of a cell's rates over all genes.
    pub scale: f64,
    /// Posterior samples; 0: the posterior mean.
    pub samples: usize,
    /// Seed of the samples.
    pub seed: u64,
    /// Whether cells without counts are left out.
    pub drop_empty_cells: bool,
}

/// Writes the denoised expression of cells: the decoder's rates, times `scale`, of the named genes (`None`: all).
///
/// At the posterior mean of each cell or, with `samples` > 0, as the mean over so many samples of its posterior. `data`
/// is read as [`embed`](crate::commands::embed::embed) does; `None` means the cells of the run itself.
///
/// # Errors
/// [`InputError`] for a gene that the model does not know; as reading and writing do.
pub fn normalize(model: &SavedModel, request: &Normalize, out: &Path, kind: OutputKind) -> Result<Written> {
    let chosen = match &request.genes {
        None => (0..model.genes.len()).collect(),
        Some(names) => model.find(names, &model.genes, "gene", "--genes")?,
    };
    let (cells, notes) = match &request.data {
        Some(path) => {
            let (cells, notes) = model.read_cells(path, request.drop_empty_cells, true)?;
            (Arc::new(cells), notes)
        }
        None => {
            let loaded = Team::with(model.config.n_threads(), |team| screen::load(team, &model.config))?;
            let (data, notes) = (loaded.data, loaded.notes);
            if data.gene_names != model.genes {
                let remedy = "give the data that the model was trained on, or name a file with --data";
                let problem = "the genes are not those of the model";
                return Err(InputError::new(problem, remedy).in_file(&data.source).into());
            }
            (data, notes)
        }
    };
    let rates = match model.config.training.precision {
        Precision::F32 => rates::<f32>(model, &cells, &chosen, request)?,
        Precision::F64 => rates::<f64>(model, &cells, &chosen, request)?,
    };
    let names: Vec<String> = chosen.iter().map(|&g| model.genes[g].clone()).collect();
    write_expression(out, kind, &cells, &names, &rates, request.data.is_none())?;
    Ok(Written { n_cells: cells.n_cells(), notes })
}

fn rates<R: Real>(model: &SavedModel, cells: &Dataset, chosen: &[usize], request: &Normalize) -> Result<Vec<f32>> {
    let network = model.network::<R>(ResultsFile::Model)?;
    let (g, l, scale) = (model.genes.len(), model.config.model.latents, request.scale);
    let all: Vec<usize> = (0..cells.n_cells()).collect();
    let mut workspace = evaluation_workspace(&network, cells);
    Team::with(model.config.n_threads(), |team| {
        let mut inference = Inference { team, network: &network, data: cells, workspace: &mut workspace };
        let posterior = inference.posterior(&all)?;
        let mut rates = Vec::with_capacity(all.len() * chosen.len());
        for (at, batch) in all.chunks(workspace.capacity()).enumerate() {
            let range = at * workspace.capacity() * l..(at * workspace.capacity() + batch.len()) * l;
            let (mean, variance) = (&posterior.mean[range.clone()], &posterior.variance[range]);
            let width = network.architecture.factor_width();
            let first = at * workspace.capacity() * width;
            let factor = &posterior.factor[first..first + batch.len() * width];
            let mut sums = vec![0.0; batch.len() * chosen.len()];
            for sample in 0..request.samples.max(1) {
                let mut z = mean.to_vec();
                let mut draws = vec![R::ZERO; z.len()];
                if request.samples > 0 {
                    for (i, &n) in batch.iter().enumerate() {
                        let mut random = stream(request.seed, n, SAMPLES_FROM + sample as u64);
                        for k in i * l..(i + 1) * l {
                            let noise: f64 = StandardNormal.sample(&mut random);
                            draws[k] = R::of(noise);
                            z[k] += variance[k].sqrt() * draws[k];
                        }
                    }
                    latent::correlate(&mut z, factor, &draws, l);
                }
                let log_rates = network.log_rates(team, &mut workspace, Batch::new(cells, batch), &z);
                for (sums, row) in sums.chunks_exact_mut(chosen.len()).zip(log_rates.chunks_exact(g)) {
                    for (sum, &gene) in sums.iter_mut().zip(chosen) {
                        *sum += row[gene].f64().exp();
                    }
                }
            }
            let factor = scale / request.samples.max(1) as f64;
            rates.extend(sums.iter().map(|sum| (sum * factor) as f32));
        }
        Ok(rates)
    })
}
