//! Importance-weighted bounds: many latent samples of each cell through the decoder. Derivation: `derivations/iwelbo.md`.

use crate::data::dataset::Dataset;
use crate::data::minibatch::Minibatches;
use crate::error::Result;
use crate::model::architecture::LatentDistribution;
use crate::model::latent;
use crate::model::layers::{activation, layer_norm, linear};
use crate::model::likelihood::CellCounts;
use crate::model::network::Network;
use crate::model::noise::fill_noise;
use crate::model::pass::{MOST_BLOCKS_PER_STRIPE, Pass, most_blocks_per_stripe};
use crate::model::tensors::LinearTensors;
use crate::model::tensors::{HiddenLayer, Side};
use crate::model::workspace::{Block, LayerStatistics, ROWS_PER_BLOCK, Workspace};
use crate::numerics::matmul::{Into, Rows};
use crate::numerics::random::Purpose;
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::parallel::team::{Team, tiles};

/// Most samples of a cell that are decoded together.
const MOST_ROWS: usize = MOST_BLOCKS_PER_STRIPE * ROWS_PER_BLOCK;

/// Posterior of some cells' latents (before the softmax of a logistic-normal).
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior<R> {
    /// Means, cells x L.
    pub mean: Vec<R>,
    /// Variances, cells x L; with a full covariance, those of each latent given the ones before it.
    pub variance: Vec<R>,
    /// Covariance factors below their diagonal, cells x L(L-1)/2; empty where the covariance is diagonal.
    pub factor: Vec<R>,
}

/// Negative lower bounds of one cell's log-likelihood in nats: lower is better.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bound {
    /// Importance-weighted bound, Eq. (I3).
    pub iwelbo: f64,
    /// Evidence lower bound, Eq. (I5).
    pub elbo: f64,
}

/// log of a mean of exponentials, one term after another, Eq. (I4).
#[derive(Debug, Clone, Copy)]
pub struct LogMeanExp {
    largest: f64,
    /// Sum of exp(term - largest).
    sum: f64,
    n: usize,
}

impl LogMeanExp {
    /// No term yet.
    pub fn new() -> Self {
        Self { largest: f64::NEG_INFINITY, sum: 0.0, n: 0 }
    }

    /// Adds a term.
    #[inline]
    pub fn add(&mut self, term: f64) {
        self.n += 1;
        if term <= self.largest {
            // Both may be minus infinity, of which nothing is left.
            self.sum += if self.largest > f64::NEG_INFINITY { Real::exp(term - self.largest) } else { 0.0 };
        } else if term == f64::NEG_INFINITY {
        } else {
            // Also a NaN, which then stays.
            self.sum = self.sum * Real::exp(self.largest - term) + 1.0;
            self.largest = term;
        }
    }

    /// log(mean(exp(terms))); minus infinity without terms.
    pub fn value(self) -> f64 {
        self.largest + Real::ln(self.sum / self.n.max(1) as f64)
    }
}

impl Default for LogMeanExp {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Real> Network<R> {
    /// Posterior of `cells`, in evaluation mode.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn posterior(
        &self,
        team: &Team,
        workspace: &mut Workspace<R>,
        data: &Dataset,
        cells: &[usize],
    ) -> Result<Posterior<R>> {
        self.prepare_evaluation(workspace);
        let (l, width) = (self.architecture.n_latents, self.architecture.factor_width());
        let own = team.ranks().mine(cells);
        let room = |width: usize| Vec::with_capacity(own.len() * width);
        let (mut mean, mut variance, mut factor) = (room(l), room(l), room(width));
        let mut batches = Minibatches::of_cells(data, &own, workspace.capacity())?;
        while let Some(batch) = batches.next()? {
            self.encode(team, workspace, batch);
            let n = batch.cells.len();
            mean.extend_from_slice(&workspace.cells.mean[..n * l]);
            variance.extend_from_slice(&workspace.cells.variance[..n * l]);
            factor.extend_from_slice(&workspace.cells.factor[..n * width]);
        }
        let gathered = |width: usize, rows: Vec<R>| team.ranks().gather_rows(cells, width, rows);
        Ok(Posterior { mean: gathered(l, mean), variance: gathered(l, variance), factor: gathered(width, factor) })
    }

    /// Bounds of `cells`, each computed by the process that holds it, from `particles` samples each of their `posterior`, in
    /// evaluation mode.
    ///
    /// The noise of sample s of a cell is the stream of (seed, s, cell): the first samples are the same whatever their
    /// number. Where masks are still random, one is drawn per sample. A cell is one tile of the team's work, and its
    /// samples pass through one stripe of the workspace, so memory does not grow with their number.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    ///
    /// # Panics
    /// If `particles` is 0 or the workspace is smaller than a row block.
    pub fn bounds(
        &self,
        team: &Team,
        workspace: &mut Workspace<R>,
        data: &Dataset,
        cells: &[usize],
        posterior: &Posterior<R>,
        particles: usize,
        seed: u64,
    ) -> Result<Vec<Bound>> {
        let bounds = self.bounds_under(
            [self],
            team,
            workspace,
            data,
            cells,
            posterior,
            particles,
            seed,
            Vec::new(),
            |_| Ok(()),
        )?;
        Ok(bounds.into_iter().map(|[bound]| bound).collect())
    }

    /// As [`Network::bounds`], under the priors of several networks that have the rest in common with this one: their samples
    /// are decoded once. The first cells are `done` already; `between` is called after every few cells with all bounds so
    /// far, and its error ends the work early.
    ///
    /// # Errors
    /// Those of `between`, and of [`Network::bounds`].
    ///
    /// # Panics
    /// As [`Network::bounds`]; if more bounds are done than there are cells.
    pub fn bounds_under<const N: usize>(
        &self,
        priors: [&Self; N],
        team: &Team,
        workspace: &mut Workspace<R>,
        data: &Dataset,
        cells: &[usize],
        posterior: &Posterior<R>,
        particles: usize,
        seed: u64,
        done: Vec<[Bound; N]>,
        mut between: impl FnMut(&[[Bound; N]]) -> Result<()>,
    ) -> Result<Vec<[Bound; N]>> {
        assert!(particles > 0 && workspace.capacity() >= ROWS_PER_BLOCK, "a sample, and room for a row block");
        self.prepare_evaluation(workspace);
        let (l, width) = (self.architecture.n_latents, self.architecture.factor_width());
        let folded = self.fold_decoder(workspace);
        let mut bounds = done;
        // A cell takes a stripe of the workspace, as long as there is one for every thread.
        let n_blocks = workspace.capacity() / ROWS_PER_BLOCK;
        let bytes = ROWS_PER_BLOCK * self.architecture.n_genes * size_of::<R>();
        let stripe = most_blocks_per_stripe(bytes).min(n_blocks / team.threads()).max(1);
        let rows_of_cell = stripe * ROWS_PER_BLOCK;
        let at_once = n_blocks / stripe;
        let left = &cells[bounds.len()..];
        let own = team.ranks().mine(left);
        let mut batches = Minibatches::of_cells(data, &own, at_once)?;
        // Every rank passes the same chunks, whatever its threads, of which it works on the cells that it holds, so that all call
        // `between` at the same places.
        for chunk in left.chunks(n_blocks * team.ranks().size()) {
            let first = bounds.len();
            let places = team.ranks().my_places(chunk);
            let mut own = vec![[Bound::default(); N]; places.len()];
            for (places, own) in places.chunks(at_once).zip(own.chunks_mut(at_once)) {
                let batch = batches.next_of(places.len())?.expect("a minibatch for each chunk of bounds");
                let (stripes, shared) = workspace.split(places.len() * rows_of_cell, stripe);
                team.run(places.len(), (stripes, tiles(own, 1)), |i, (mut block, bounds)| {
                    let (mut copies, mut rows) = ([0; MOST_ROWS], [0; MOST_ROWS]);
                    let batch = batch.repeated(i, &mut copies[..rows_of_cell], &mut rows[..rows_of_cell]);
                    let passes = priors.map(|network| Pass { network, batch, shared });
                    let pass = Pass { network: self, batch, shared };
                    let n = first + places[i];
                    let cells = &mut block.cells;
                    let of_cell = |rows: &mut [R], values: &[R], width: usize| {
                        let values = &values[n * width..(n + 1) * width];
                        rows.chunks_exact_mut(width.max(1)).for_each(|row| row.copy_from_slice(values));
                    };
                    of_cell(cells.mean, &posterior.mean, l);
                    of_cell(cells.variance, &posterior.variance, l);
                    of_cell(cells.factor, &posterior.factor, width);
                    bounds[0] = pass.bounds(passes, &mut block, &folded, particles, seed);
                });
            }
            let own = own.as_flattened().iter().flat_map(|bound| [bound.iwelbo, bound.elbo]).collect();
            let all = team.ranks().gather_rows(chunk, 2 * N, own);
            bounds.extend(
                all.chunks_exact(2 * N)
                    .map(|values| std::array::from_fn(|i| Bound { iwelbo: values[2 * i], elbo: values[2 * i + 1] })),
            );
            between(&bounds)?;
        }
        Ok(bounds)
    }

    /// The decoder's layers, the hidden ones with their batch normalisation folded in, Eq. (I8); the workspace holds the running
    /// statistics, see [`Network::prepare_evaluation`].
    fn fold_decoder(&self, workspace: &Workspace<R>) -> Vec<FoldedLayer<R>> {
        let plain = |linear: &LinearTensors| {
            let (weight, bias) = (self.parameters[&linear.weight].to_vec(), self.parameters[&linear.bias].to_vec());
            (weight, bias)
        };
        let transposed = |(weight, bias): (Vec<R>, Vec<R>)| {
            let (n_out, width) = (bias.len(), weight.len() / bias.len());
            let transpose = (0..weight.len()).map(|at| weight[at % n_out * width + at / n_out]).collect();
            FoldedLayer { transpose, bias }
        };
        let fold = |(layer, statistics): (&HiddenLayer, &LayerStatistics<R>)| {
            let (mut weight, mut bias) = plain(&layer.linear);
            if let Some(norm) = &layer.norm {
                let (gamma, beta) = (&self.parameters[&norm.weight], &self.parameters[&norm.bias]);
                let width = weight.len() / bias.len();
                for (j, (row, bias)) in weight.chunks_exact_mut(width).zip(&mut bias).enumerate() {
                    let scale = gamma[j] * statistics.inverse[j];
                    row.iter_mut().for_each(|w| *w = scale * *w);
                    *bias = scale * (*bias - statistics.mean[j]) + beta[j];
                }
            }
            transposed((weight, bias))
        };
        let hidden = self.tensors.hidden(Side::Decoder).iter().zip(&workspace.decoder_statistics).map(fold);
        hidden.chain([transposed(plain(&self.tensors.decoder_output))]).collect()
    }
}

/// A layer as one linear map, of the same shape as its linear part.
struct FoldedLayer<R> {
    /// Of the weight: (n_in + n_c) x n_out.
    transpose: Vec<R>,
    /// n_out.
    bias: Vec<R>,
}

impl<R: Real> Pass<'_, R> {
    /// From `z` to the logits, in evaluation mode, for every row of the block.
    fn decode(&self, block: &mut Block<R>, folded: &[FoldedLayer<R>]) {
        let a = &self.network.architecture;
        let (output, hidden) = folded.split_last().expect("a layer");
        for (l, folded) in hidden.iter().enumerate() {
            let tensors = &self.network.tensors.hidden(Side::Decoder)[l].linear;
            let (before, here) = block.decoder.split_at_mut(l);
            let input = before.last().map_or(&*block.cells.z, |layer| layer.as_ref().expect("a layer before").out);
            let here = here[0].as_mut().expect("layers up to n_layers exist");
            let n = input.len() / tensors.n_in;
            let covariates = self.network.covariates(tensors, block.cells.covariates, n);
            let input = Rows::new(input, n, tensors.n_in);
            let FoldedLayer { transpose, bias } = folded;
            if a.layer_norm {
                linear::forward_transposed(here.out, input, covariates, transpose, bias, tensors.n_in);
                layer_norm::forward(here.out, here.row_statistics, a.n_hidden);
                activation::forward(here.out, None);
            } else {
                let (n_in, n_out) = (tensors.n_in, a.n_hidden);
                linear::multiply_transposed(here.out, Into::Replace, input, covariates, transpose, n_in, n_out);
                activation::forward_with_bias(here.out, bias);
            }
        }
        let last = block.decoder[a.n_layers - 1].as_ref().expect("the last layer").out as &[R];
        let last = Rows::new(last, last.len() / a.n_hidden, a.n_hidden);
        linear::forward_transposed(block.cells.logits, last, None, &output.transpose, &output.bias, a.n_hidden);
    }

    /// Bounds of the cell that every row of the batch stands for, under the priors of several passes; the block holds its
    /// posterior in every row.
    fn bounds<const N: usize>(
        &self,
        priors: [Pass<R>; N],
        block: &mut Block<R>,
        folded: &[FoldedLayer<R>],
        particles: usize,
        seed: u64,
    ) -> [Bound; N] {
        let a = &self.network.architecture;
        let (g, l) = (a.n_genes, a.n_latents);
        let (cell, n_rows) = (self.batch.cells[0], self.batch.cells.len());
        let nonzero = self.batch.row(0);
        let library = R::of(self.batch.data.library[cell]);

        // What all samples share.
        let cells = &mut block.cells;
        cells.x[..g].fill(R::ZERO);
        nonzero.for_each(|gene, count| cells.x[gene] = R::of_count(count));
        self.load_covariates(cells.covariates, 0..n_rows);
        let half_log_variance: f64 = 0.5 * cells.variance[..l].iter().map(|v| Real::ln(v.f64())).sum::<f64>();
        let likelihood = self.shared.likelihood;
        let count_terms = likelihood.count_terms(nonzero, &mut cells.likelihood_scratch[0]);
        // Width of the noise of masks.
        let masks = if self.network.prior().draws_masks() { self.shared.max_interventions * l } else { 0 };
        let purposes = [Purpose::ParticleLatent, Purpose::ParticleMask];

        let mut weights = [LogMeanExp::new(); N];
        let (mut reconstruction, mut kl) = (0.0, [0.0; N]);
        for first in (0..particles).step_by(n_rows) {
            let n = (particles - first).min(n_rows);
            let cells = &mut block.cells;
            let noise = [&mut *cells.latent_noise, &mut *cells.mask_noise];
            let address = |r: usize| ((first + r) as u64, cell as u64);
            fill_noise(noise, [l, masks], cells.words, seed, purposes, address);
            // z, before its softmax.
            let (z, noise) = (&mut *cells.z, &*cells.latent_noise);
            vectorized(
                #[inline(always)]
                || {
                    for (((z, &v), &m), &e) in z.iter_mut().zip(&*cells.variance).zip(&*cells.mean).zip(noise) {
                        *z = v.sqrt().fma(e, m);
                    }
                    latent::correlate(z, cells.factor, noise, l);
                },
            );
            // log p(z) - log q(z) up to the posterior's log-determinant, Eq. (I2).
            let mut log_ratios = [[R::ZERO; MOST_ROWS]; N];
            for ((prior, log_ratio), kl) in priors.iter().zip(&mut log_ratios).zip(&mut kl) {
                // The gradient of z lends its room to divergences, z itself stays.
                prior.prior(cells, 0..n_rows);
                let (z, noise, prior_mean) = (&*cells.z, &*cells.latent_noise, &*cells.prior_mean);
                vectorized(
                    #[inline(always)]
                    || {
                        for (r, ratio) in log_ratio[..n_rows].iter_mut().enumerate() {
                            for k in r * l..(r + 1) * l {
                                let distance = z[k] - prior_mean[k];
                                *ratio += noise[k].fma(noise[k], -(distance * distance));
                            }
                        }
                    },
                );
                for &divergence in &cells.kl[..n] {
                    *kl += divergence;
                }
            }
            if a.latent_distribution == LatentDistribution::LogisticNormal {
                cells.z.chunks_exact_mut(l).for_each(latent::softmax);
            }
            self.decode(block, folded);

            let cells = &mut block.cells;
            for r in 0..n {
                let (logits, x) = (&mut cells.logits[r * g..(r + 1) * g], &cells.x[..g]);
                let cell = CellCounts { x, nonzero, library };
                let nll = likelihood.value(logits, cell, count_terms, &mut cells.likelihood_scratch[0]);
                for (weights, log_ratio) in weights.iter_mut().zip(&log_ratios) {
                    weights.add(half_log_variance + 0.5 * log_ratio[r].f64() - nll);
                }
                reconstruction += nll;
            }
        }
        let n = particles as f64;
        std::array::from_fn(|i| Bound { iwelbo: -weights[i].value(), elbo: reconstruction / n + kl[i] / n })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::counts::in_memory::Counts;
    use crate::data::dataset::{Categorical, Continuous, Covariates, InterventionRows};
    use crate::data::minibatch::Batch;
    use crate::data::simulate::{Simulation, simulate};
    use crate::model::architecture::{Architecture, MaskKind, Prior};
    use crate::model::layers::batch_norm;
    use crate::model::likelihood::Likelihood;
    use crate::parallel::team::Split;

    const MASKED: Prior = Prior::Masked { kind: MaskKind::Hard, temperature: 0.7 };

    /// Small counts of five genes under two interventions, so that posteriors of one latent are wide.
    fn screen() -> Dataset {
        let table: Vec<u32> = (0..12).flat_map(|n| (0..5).map(move |g| ((n * 7 + g * 5 + n * g) % 6) as u32)).collect();
        let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        Dataset {
            source: "test".into(),
            library: table.chunks(5).map(|x| x.iter().sum::<u32>() as f64).collect(),
            counts: Counts::from_dense(5, &table).into(),
            interventions: InterventionRows::one_hot((0..12).map(|n| n % 2)),
            intervention_names: names(2),
            gene_names: names(5),
            cell_names: names(12).into(),
            covariates: Covariates::default(),
            truth: None,
        }
    }

    /// A network whose decoder, running statistics and shifts matter.
    fn network(prior: Prior) -> Network<f64> {
        network_of(prior, Likelihood::NegativeBinomial)
    }

    fn network_of(prior: Prior, likelihood: Likelihood) -> Network<f64> {
        let architecture = Architecture { n_hidden: 4, prior, likelihood, ..Architecture::new(5, 2, 1) };
        let mut network = Network::new(architecture, 11);
        let wave = |i: usize| (i as f64 * 2.3 + 0.4).sin();
        for layer in network.tensors.decoder.clone() {
            let norm = layer.norm.expect("normalised");
            network.running[&norm.running_mean].iter_mut().enumerate().for_each(|(i, v)| *v = 0.3 * wave(i));
            network.running[&norm.running_variance].iter_mut().enumerate().for_each(|(i, v)| *v = 1.0 + 0.5 * wave(i));
            network.parameters[&norm.weight].iter_mut().enumerate().for_each(|(i, v)| *v = 1.0 + 0.4 * wave(i + 7));
            network.parameters[&norm.bias].iter_mut().enumerate().for_each(|(i, v)| *v = 0.5 + 0.5 * wave(i + 3));
        }
        // A proposal wider than the prior, so that weights have a variance.
        let head = network.tensors.latent_log_variance.clone();
        network.parameters[&head.weight].fill(0.0);
        network.parameters[&head.bias].fill(0.3);
        if let Some(shift) = network.tensors.shift.clone() {
            network.parameters[&shift].copy_from_slice(&[0.8, -1.1]);
        }
        if let Some(mask_logit) = network.tensors.mask_logit.clone() {
            network.parameters[&mask_logit].copy_from_slice(&[0.4, -0.7]);
        }
        network
    }

    /// log p(x|z) by plain loops over the decoder's tensors.
    fn log_likelihood(network: &Network<f64>, data: &Dataset, n: usize, z: f64) -> f64 {
        let p = &network.parameters;
        let linear = |weight: &[f64], bias: &[f64], x: &[f64]| -> Vec<f64> {
            let rows = weight.chunks_exact(x.len()).zip(bias);
            rows.map(|(w, b)| b + w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()).collect()
        };
        let mut h = vec![z];
        for layer in &network.tensors.decoder {
            let norm = layer.norm.as_ref().expect("normalised");
            h = linear(&p[&layer.linear.weight], &p[&layer.linear.bias], &h);
            for (j, h) in h.iter_mut().enumerate() {
                let (mean, variance) =
                    (network.running[&norm.running_mean][j], network.running[&norm.running_variance][j]);
                let u = (*h - mean) / (variance + batch_norm::EPSILON).sqrt();
                *h = (p[&norm.weight][j] * u + p[&norm.bias][j]).max(0.0);
            }
        }
        let head = &network.tensors.decoder_output;
        let logits = linear(&p[&head.weight], &p[&head.bias], &h);
        let total: f64 = logits.iter().map(|l| l.exp()).sum();
        let mut x = [0.0; 5];
        data.counts.row(n).for_each(|g, count| x[g] = count as f64);
        let mut value = 0.0;
        for g in 0..5 {
            let mu = data.library[n] * logits[g].exp() / total;
            value += match &network.tensors.log_dispersion {
                Some(log_dispersion) => {
                    let theta = p[log_dispersion][g].exp();
                    libm::lgamma(x[g] + theta) - libm::lgamma(theta) - libm::lgamma(x[g] + 1.0)
                        + theta * (theta / (theta + mu)).ln()
                        + x[g] * (mu / (theta + mu)).ln()
                }
                None => x[g] * mu.ln() - mu - libm::lgamma(x[g] + 1.0),
            };
        }
        value
    }

    /// The integral of exp(f) over z within 12 of `centre`, as a logarithm.
    fn log_integral(centre: f64, f: impl Fn(f64) -> f64) -> f64 {
        let step = 0.004;
        let mut sum = LogMeanExp::new();
        (0..6000).for_each(|i| sum.add(f(centre - 12.0 + (i as f64 + 0.5) * step)));
        sum.value() + 24f64.ln()
    }

    fn log_normal(z: f64, mean: f64, variance: f64) -> f64 {
        -0.5 * ((z - mean).powi(2) / variance + (std::f64::consts::TAU * variance).ln())
    }

    fn bounds(network: &Network<f64>, data: &Dataset, cells: &[usize], particles: usize, seed: u64) -> Vec<Bound> {
        let team = Team::single();
        let mut workspace = Workspace::new(&network.architecture, 64, data.interventions.max_len());
        let posterior = network.posterior(&team, &mut workspace, data, cells).expect("in memory");
        network.bounds(&team, &mut workspace, data, cells, &posterior, particles, seed).expect("in memory")
    }

    #[test]
    fn one_latent_agrees_with_quadrature() {
        let data = screen();
        let cells: Vec<usize> = (0..12).collect();
        let mut fixed = network(MASKED);
        fixed.prior_mut().freeze();
        for (network, on) in [
            (network(Prior::Standard), [0.0, 0.0]),
            (network(Prior::Shifted), [1.0, 1.0]),
            (network_of(Prior::Shifted, Likelihood::Poisson), [1.0, 1.0]),
            // Random masks: the likelihood is a mixture over the mask.
            (network(MASKED), [0.4f64, -0.7].map(|logit| 1.0 / (1.0 + (-logit).exp()))),
            (fixed, [1.0, 0.0]),
        ] {
            let shifts = network.tensors.shift.as_ref().map_or(vec![0.0; 2], |s| network.parameters[s].to_vec());
            let team = Team::single();
            let mut workspace = Workspace::new(&network.architecture, 64, 1);
            let posterior = network.posterior(&team, &mut workspace, &data, &cells).expect("in memory");
            let particles = 40_000;
            let got =
                network.bounds(&team, &mut workspace, &data, &cells, &posterior, particles, 5).expect("in memory");
            for n in 0..12 {
                let (shift, on) = (shifts[n % 2], on[n % 2]);
                let prior = |z: f64| on * log_normal(z, shift, 1.0).exp() + (1.0 - on) * log_normal(z, 0.0, 1.0).exp();
                let log_joint = |z: f64| log_likelihood(&network, &data, n, z) + prior(z).ln();
                let exact = -log_integral(0.0, log_joint);
                let (m, v) = (posterior.mean[n], posterior.variance[n]);
                // Standard error of log(mean of weights): their coefficient of variation over the root of their number.
                // Drawn masks add at most as much again.
                let second = log_integral(0.0, |z| 2.0 * log_joint(z) - log_normal(z, m, v)) + 2.0 * exact;
                let spread = second.exp() - 1.0;
                assert!(spread < 20.0, "the case is too hard for this test: {spread}");
                let tolerance = 8.0 * (spread / particles as f64).sqrt() + 1e-6;
                assert!((got[n].iwelbo - exact).abs() < tolerance, "{n}: {} {exact} +- {tolerance}", got[n].iwelbo);

                let divergences = [shift, 0.0].map(|p| 0.5 * ((m - p).powi(2) + v - 1.0 - v.ln()));
                let kl = on * divergences[0] + (1.0 - on) * divergences[1];
                // Moments of -log p(x|z) under q; it is positive here, so powers have logarithms.
                let moment = |power: f64| {
                    let nll = |z: f64| -log_likelihood(&network, &data, n, z);
                    log_integral(m, |z| power * nll(z).ln() + log_normal(z, m, v)).exp()
                };
                let variance =
                    moment(2.0) - moment(1.0).powi(2) + on * (1.0 - on) * (divergences[0] - divergences[1]).powi(2);
                let want = moment(1.0) + kl;
                let tolerance = 5.0 * (variance / particles as f64).sqrt();
                assert!((got[n].elbo - want).abs() < tolerance, "cell {n}: {} {want} +- {tolerance}", got[n].elbo);
                assert!(tolerance < 0.1, "{tolerance}");
            }
        }
    }

    #[test]
    fn folded_layers_decode_as_unfolded_ones_do() {
        let mut data = screen();
        let codes = (0..12).map(|n| n % 3).collect();
        let levels = ["a", "b", "c"].map(str::to_owned).to_vec();
        data.covariates.categorical.push(Categorical { name: "batch".into(), levels, codes });
        data.covariates.continuous.push(Continuous { name: "age".into(), values: (0..12).map(|n| n as f64).collect() });
        for (batch_norm, layer_norm, deeply) in
            [(true, false, true), (true, true, true), (true, false, false), (false, true, true), (false, false, true)]
        {
            let mut network = Network::<f64>::new(
                Architecture {
                    n_hidden: 7,
                    n_layers: 3,
                    categorical_levels: vec![3],
                    n_continuous: 1,
                    deeply_inject_covariates: deeply,
                    batch_norm,
                    layer_norm,
                    ..Architecture::new(5, 2, 3)
                },
                4,
            );
            let wave = |i: usize| (i as f64 * 1.7 + 0.2).sin();
            for norm in network.tensors.decoder.clone().into_iter().filter_map(|layer| layer.norm) {
                network.running[&norm.running_mean].iter_mut().enumerate().for_each(|(i, v)| *v = wave(i));
                network.running[&norm.running_variance]
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, v)| *v = 1.1 + wave(i + 1));
                network.parameters[&norm.weight].iter_mut().enumerate().for_each(|(i, v)| *v = 1.0 + wave(i + 2));
                network.parameters[&norm.bias].iter_mut().enumerate().for_each(|(i, v)| *v = wave(i + 3));
            }
            let mut workspace = Workspace::new(&network.architecture, ROWS_PER_BLOCK, 1);
            network.prepare_evaluation(&mut workspace);
            let folded = network.fold_decoder(&workspace);
            let cells: Vec<usize> = (0..12).collect();
            let (blocks, shared) = workspace.split(cells.len(), 1);
            let pass = Pass { network: &network, batch: Batch::new(&data, &cells), shared };
            // SAFETY: the only block is taken once.
            let mut block = unsafe { blocks.part(0) };
            block.cells.z.iter_mut().enumerate().for_each(|(i, z)| *z = 2.0 * wave(i + 4));
            pass.load_covariates(block.cells.covariates, 0..12);
            pass.decode(&mut block, &folded);
            let got = block.cells.logits.to_vec();
            block.cells.logits.fill(0.0);
            for layer in 0..3 {
                pass.start_hidden(Side::Decoder, layer, &mut block, 0..ROWS_PER_BLOCK, false);
                pass.finish_hidden(Side::Decoder, layer, &mut block, false);
            }
            pass.output(&mut block);
            for (got, want) in got.iter().zip(&*block.cells.logits) {
                assert!((got - want).abs() < 1e-13 * (1.0 + want.abs()), "{batch_norm} {layer_norm}: {got} {want}");
            }
        }
    }

    #[test]
    fn bounds_under_two_priors_are_those_of_two_networks() {
        let data = screen();
        let cells: Vec<usize> = (0..12).collect();
        for frozen in [true, false] {
            let mut first = network(MASKED);
            if frozen {
                first.prior_mut().freeze();
            }
            let mut second = first.clone();
            let shift = second.tensors.shift.clone().expect("shifts");
            second.parameters[&shift].iter_mut().enumerate().for_each(|(i, shift)| *shift += 0.3 + i as f64);
            let team = Team::single();
            let mut workspace = Workspace::new(&first.architecture, 512, 1);
            let posterior = first.posterior(&team, &mut workspace, &data, &cells).expect("in memory");
            let (room, done) = (&mut workspace, Vec::new());
            let priors = [&second, &first];
            let both = first
                .bounds_under(priors, &team, room, &data, &cells, &posterior, 150, 5, done, |_| Ok(()))
                .expect("in memory");
            let alone = [&second, &first].map(|network| bounds(network, &data, &cells, 150, 5));
            for (n, [of_second, of_first]) in both.into_iter().enumerate() {
                assert_eq!((of_second, of_first), (alone[0][n], alone[1][n]), "cell {n}, frozen: {frozen}");
            }
            // Of cells whose mask is on.
            assert!(alone[0].iter().zip(&alone[1]).any(|(a, b)| a.elbo != b.elbo && a.iwelbo != b.iwelbo));
        }
    }

    #[test]
    fn more_samples_tighten_the_bound() {
        let data = screen();
        let cells: Vec<usize> = (0..12).collect();
        let network = network(MASKED);
        // Means over 12 cells x 40 seeds: the differences below are several standard errors each.
        let mean = |particles: usize, of: fn(&Bound) -> f64| {
            let values: Vec<f64> =
                (0..40).flat_map(|seed| bounds(&network, &data, &cells, particles, seed)).map(|b| of(&b)).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let by_particles = [1, 2, 8, 64].map(|particles| mean(particles, |bound| bound.iwelbo));
        assert!(by_particles.windows(2).all(|pair| pair[1] < pair[0]), "{by_particles:?}");
        let elbo = mean(64, |bound| bound.elbo);
        assert!(by_particles[3] < elbo, "{by_particles:?} {elbo}");
        // With one sample the two agree in expectation.
        assert!((by_particles[0] - elbo).abs() < 0.15, "{by_particles:?} {elbo}");
    }

    #[test]
    fn a_correlated_posterior_bounds_the_same_likelihood() {
        let data = screen();
        let cells: Vec<usize> = (0..12).collect();
        let sizes = Architecture { n_hidden: 4, prior: Prior::Shifted, ..Architecture::new(5, 2, 3) };
        let full = Network::<f64>::new(Architecture { full_covariance: true, ..sizes }, 11);
        let head = full.tensors.latent_factor.clone().expect("a head");
        // Both proposals a little wider than the prior: importance weights of either have a variance.
        let of = |factor: [f64; 3]| {
            let mut network = full.clone();
            let variance = network.tensors.latent_log_variance.clone();
            network.parameters[&variance.weight].fill(0.0);
            network.parameters[&variance.bias].fill(0.3);
            network.parameters[&head.bias].copy_from_slice(&factor);
            bounds(&network, &data, &cells, 20_000, 5)
        };
        let (diagonal, correlated) = (of([0.0; 3]), of([0.5, -0.4, 0.3]));
        for (a, b) in diagonal.iter().zip(&correlated) {
            // The likelihood does not depend on the proposal, the ELBO does: the factor adds to the divergence.
            assert!((a.iwelbo - b.iwelbo).abs() < 0.05, "{} {}", a.iwelbo, b.iwelbo);
            assert!((a.elbo - b.elbo).abs() > 0.1, "{} {}", a.elbo, b.elbo);
        }
    }

    #[test]
    fn threads_and_memory_do_not_change_a_bit() {
        let settings =
            Simulation { n_interventions: 4, n_genes: 20, cells_per_intervention: 9, seed: 1, ..Simulation::default() };
        let data = simulate(&settings).expect("a simulation").dataset;
        let network = Network::<f32>::new(Architecture { n_hidden: 16, ..Architecture::new(20, 4, 15) }, 2);
        let cells: Vec<usize> = (3..36).collect();
        let l = network.architecture.n_latents;
        let mut workspace = Workspace::new(&network.architecture, 512, 1);
        let posterior = network.posterior(&Team::single(), &mut workspace, &data, &cells).expect("in memory");
        let of = |threads: usize, capacity: usize, cells: &[usize], posterior: &Posterior<f32>| {
            Team::with(threads, |team| {
                let mut workspace = Workspace::new(&network.architecture, capacity, 1);
                network.bounds(team, &mut workspace, &data, cells, posterior, 70, 3).expect("in memory")
            })
        };
        let first = of(1, 512, &cells, &posterior);
        for (threads, capacity) in [(2, 512), (3, 512), (1, 32), (2, 100)] {
            assert_eq!(of(threads, capacity, &cells, &posterior), first, "{threads} threads, {capacity} rows");
            let again =
                Team::with(threads, |team| network.posterior(team, &mut workspace, &data, &cells)).expect("in memory");
            assert_eq!(again, posterior);
        }
        // A cell's bound does not depend on its neighbours.
        let backwards = |rows: &[f32]| rows.rchunks_exact(l).flatten().copied().collect();
        let reversed = Posterior {
            mean: backwards(&posterior.mean),
            variance: backwards(&posterior.variance),
            factor: Vec::new(),
        };
        let mut bounds = of(2, 512, &cells.iter().rev().copied().collect::<Vec<_>>(), &reversed);
        bounds.reverse();
        assert_eq!(bounds, first);
    }

    #[test]
    fn the_mean_of_exponentials_neither_overflows_nor_forgets() {
        let of = |terms: &[f64]| {
            let mut mean = LogMeanExp::new();
            terms.iter().for_each(|&t| mean.add(t));
            mean.value()
        };
        assert!((of(&[-1e5, -1e5 + 2f64.ln()]) - (-1e5 + 1.5f64.ln())).abs() < 1e-10);
        assert!((of(&[1e5, 1e5 - 800.0]) - (1e5 - 2f64.ln())).abs() < 1e-10);
        assert_eq!(of(&[f64::NEG_INFINITY, 0.0, f64::NEG_INFINITY, f64::NEG_INFINITY]), -(4f64.ln()));
        assert_eq!(of(&[f64::NEG_INFINITY]), f64::NEG_INFINITY);
        assert!(of(&[0.0, f64::NAN, 1.0]).is_nan());
    }
}
