//! The expression of cells as the model sees it, without sampling noise.

use crate::fit::fitted::{Fitted, TrainedNetwork};
use rand_distr::{Distribution, StandardNormal};

use crate::data::dataset::Dataset;
use crate::data::minibatch::Batch;
use crate::error::Result;
use crate::inference::{Inference, evaluation_workspace};
use crate::model::latent;
use crate::model::network::Network;
use crate::numerics::random::{SamplerPurpose, sampler_stream};
use crate::numerics::real::Real;
use crate::parallel::team::Team;

/// Which rates [`Fitted::rates`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct RatesRequest {
    /// Names of the genes; `None`: all.
    pub genes: Option<Vec<String>>,
    /// Sum of a cell's rates over all genes.
    pub scale: f64,
    /// Posterior samples whose mean is taken; 0: the rates at the posterior mean.
    pub samples: usize,
    /// Seed of the samples.
    pub seed: u64,
}

impl Default for RatesRequest {
    /// All genes, counts per 10,000, at the posterior mean.
    fn default() -> Self {
        Self { genes: None, scale: 1e4, samples: 0, seed: 0 }
    }
}

impl Fitted {
    /// The decoder's rates of `cells`, cells x genes, row-major: their denoised expression. Genes are matched by name.
    ///
    /// # Errors
    /// [`crate::InputError`] for a gene that the model does not know; as [`Fitted::latents`].
    pub fn rates(&self, cells: &Dataset, request: &RatesRequest) -> Result<Vec<f32>> {
        let cells = self.trained_on.as_seen(cells, true)?;
        self.rates_of(&cells, &self.genes_of(request)?, request)
    }

    /// Numbers of the genes that a request names.
    pub(crate) fn genes_of(&self, request: &RatesRequest) -> Result<Vec<usize>> {
        match &request.genes {
            None => Ok((0..self.trained_on.genes.len()).collect()),
            Some(names) => self.trained_on.find(names, &self.trained_on.genes, "gene", "--genes"),
        }
    }

    /// The rates of the genes `chosen` in cells over the model's genes.
    pub(crate) fn rates_of(&self, cells: &Dataset, chosen: &[usize], request: &RatesRequest) -> Result<Vec<f32>> {
        self.settings
            .refuse_without_network("normalised expression")
            .map_err(|error| self.trained_on.located(error))?;
        match &self.weights {
            TrainedNetwork::Single(network) => self.rates_in(network, cells, chosen, request),
            TrainedNetwork::Double(network) => self.rates_in(network, cells, chosen, request),
            TrainedNetwork::Linear(_) => unreachable!("refused above"),
        }
    }

    fn rates_in<R: Real>(
        &self,
        network: &Network<R>,
        cells: &Dataset,
        chosen: &[usize],
        request: &RatesRequest,
    ) -> Result<Vec<f32>> {
        let (g, l, scale) = (self.trained_on.genes.len(), self.settings.model.latents, request.scale);
        let all: Vec<usize> = (0..cells.n_cells()).collect();
        let mut workspace = evaluation_workspace(network, cells);
        Team::with(self.settings.n_threads(), |team| {
            let mut inference = Inference { team, network, data: cells, workspace: &mut workspace };
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
                            let mut random = sampler_stream(request.seed, SamplerPurpose::PosteriorSample(sample), n);
                            for k in i * l..(i + 1) * l {
                                let noise: f64 = StandardNormal.sample(&mut random);
                                draws[k] = R::from_f64(noise);
                                z[k] += variance[k].sqrt() * draws[k];
                            }
                        }
                        latent::correlate(&mut z, factor, &draws, l);
                    }
                    let log_rates = network.log_rates(team, &mut workspace, Batch::new(cells, batch), &z);
                    for (sums, row) in sums.chunks_exact_mut(chosen.len()).zip(log_rates.chunks_exact(g)) {
                        for (sum, &gene) in sums.iter_mut().zip(chosen) {
                            *sum += row[gene].to_f64().exp();
                        }
                    }
                }
                let factor = scale / request.samples.max(1) as f64;
                rates.extend(sums.iter().map(|sum| (sum * factor) as f32));
            }
            Ok(rates)
        })
    }
}
