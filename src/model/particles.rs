//! Importance-weighted bounds: many latent samples of each cell through the decoder. Derivation: `derivations/iwelbo.md`.

use crate::data::minibatch::Batch;
use crate::model::architecture::LatentDistribution;
use crate::model::latent;
use crate::model::layers::{activation, layer_norm, linear};
use crate::model::likelihood::CellCounts;
use crate::model::network::Network;
use crate::model::noise::fill_noise;
use crate::model::pass::{MOST_BLOCKS_PER_STRIPE, Pass, most_blocks_per_stripe};
use crate::model::tensors::{HiddenLayer, LinearTensors, Side};
use crate::model::workspace::{Block, LayerStatistics, ROWS_PER_BLOCK, Workspace};
use crate::numerics::matmul::{Accumulate, Rows};
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

/// Samples that bounds are formed of.
#[derive(Debug)]
pub struct Samples<'a, R> {
    /// Posterior of some cells.
    pub posterior: &'a Posterior<R>,
    /// Samples of each, S.
    pub particles: usize,
    /// Seed of their noise: that of sample s of a cell is the stream of (seed, s, cell), so that the first samples are the
    /// same whatever their number.
    pub seed: u64,
}

impl<R> Clone for Samples<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Samples<'_, R> {}

/// A network made ready to decode many samples of a cell, and the networks under whose priors these are weighed; they have
/// the rest in common with it.
#[derive(Debug)]
pub struct ParticlePass<'a, R, const N: usize> {
    network: &'a Network<R>,
    priors: [&'a Network<R>; N],
    decoder: Vec<FoldedLayer<R>>,
    n_blocks: usize,
    /// Row blocks of the workspace that a cell takes.
    stripe: usize,
}

impl<'a, R: Real, const N: usize> ParticlePass<'a, R, N> {
    /// Prepares the evaluation of `network` in `workspace`. A cell is one tile of the team's work, and its samples pass through
    /// one stripe of the workspace, so memory does not grow with their number.
    ///
    /// # Panics
    /// If the workspace is smaller than a row block.
    pub fn new(
        network: &'a Network<R>,
        priors: [&'a Network<R>; N],
        team: &Team,
        workspace: &mut Workspace<R>,
    ) -> Self {
        assert!(workspace.capacity() >= ROWS_PER_BLOCK, "room for a row block");
        network.prepare_evaluation(workspace);
        let n_blocks = workspace.capacity() / ROWS_PER_BLOCK;
        let bytes = ROWS_PER_BLOCK * network.architecture.n_genes * size_of::<R>();
        // As long as there is a stripe for every thread.
        let stripe = most_blocks_per_stripe(bytes).min(n_blocks / team.threads()).max(1);
        Self { network, priors, decoder: network.fold_decoder(workspace), n_blocks, stripe }
    }

    /// Most cells of a minibatch, whatever the number of threads.
    pub fn most_cells(&self) -> usize {
        self.n_blocks
    }

    /// Most cells of a minibatch for this team.
    pub fn cells_at_once(&self) -> usize {
        self.n_blocks / self.stripe
    }

    /// Bounds of the cells of a minibatch, those at `places` of the posterior, under each prior; where masks are random, one is
    /// drawn per sample.
    ///
    /// # Panics
    /// If there are no samples, or more cells than [`ParticlePass::cells_at_once`].
    pub fn bounds(
        &self,
        team: &Team,
        workspace: &mut Workspace<R>,
        batch: Batch,
        places: &[usize],
        samples: Samples<'_, R>,
    ) -> Vec<[Bound; N]> {
        assert!(samples.particles > 0, "a sample");
        let (l, width) = (self.network.architecture.n_latents, self.network.architecture.factor_width());
        let rows_of_cell = self.stripe * ROWS_PER_BLOCK;
        let mut all = vec![[Bound::default(); N]; places.len()];
        let (stripes, shared) = workspace.split(places.len() * rows_of_cell, self.stripe);
        team.run(places.len(), (stripes, tiles(&mut all, 1)), |i, (mut block, bounds)| {
            let (mut copies, mut rows) = ([0; MOST_ROWS], [0; MOST_ROWS]);
            let batch = batch.repeated(i, &mut copies[..rows_of_cell], &mut rows[..rows_of_cell]);
            let passes = self.priors.map(|network| Pass { network, batch, shared });
            let pass = Pass { network: self.network, batch, shared };
            let cells = &mut block.cells;
            let of_cell = |rows: &mut [R], values: &[R], width: usize| {
                let values = &values[places[i] * width..(places[i] + 1) * width];
                rows.chunks_exact_mut(width.max(1)).for_each(|row| row.copy_from_slice(values));
            };
            of_cell(cells.mean, &samples.posterior.mean, l);
            of_cell(cells.variance, &samples.posterior.variance, l);
            of_cell(cells.factor, &samples.posterior.factor, width);
            bounds[0] = pass.bounds(passes, &mut block, &self.decoder, samples.particles, samples.seed);
        });
        all
    }
}

impl<R: Real> Network<R> {
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
#[derive(Debug)]
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
                linear::multiply_transposed(here.out, Accumulate::Replace, input, covariates, transpose, n_in, n_out);
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
        let library = R::from_f64(self.batch.data.library[cell]);

        // What all samples share.
        let cells = &mut block.cells;
        cells.x[..g].fill(R::ZERO);
        nonzero.for_each(|gene, count| cells.x[gene] = R::of_count(count));
        self.load_covariates(cells.covariates, 0..n_rows);
        let half_log_variance: f64 = 0.5 * cells.variance[..l].iter().map(|v| Real::ln(v.to_f64())).sum::<f64>();
        let likelihood = self.shared.likelihood;
        let count_terms = likelihood.count_terms(nonzero, &mut cells.likelihood_scratch[0]);
        // Width of the noise of masks.
        let masks = if self.network.prior().drawing().draws_masks() { self.shared.max_interventions * l } else { 0 };
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
                prior.prior_by(prior.network.prior().drawing(), cells, 0..n_rows);
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
                    weights.add(half_log_variance + 0.5 * log_ratio[r].to_f64() - nll);
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
    use crate::data::dataset::{Categorical, Continuous, five_genes as screen};
    use crate::model::architecture::Architecture;
    use crate::parallel::team::Split;

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
