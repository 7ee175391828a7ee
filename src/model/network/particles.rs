//! Importance-weighted bounds: many latent samples of each cell through the decoder. Derivation: `derivations/iwelbo.md`.

use super::{Batch, Network, Pass, Side};
use crate::data::dataset::Dataset;
use crate::model::architecture::LatentDistribution;
use crate::model::workspace::{Block, ROWS_PER_BLOCK, Workspace};
use crate::model::{latent, negative_binomial};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::numerics::team::{Team, tiles};
use crate::random::{Purpose, fill_logistic, fill_normal, stream};

/// Posterior of some cells' latents (before the softmax of a logistic-normal).
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior<R> {
    /// Means, cells x L.
    pub mean: Vec<R>,
    /// Variances, cells x L.
    pub variance: Vec<R>,
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
            self.sum += if self.largest > f64::NEG_INFINITY { (term - self.largest).exp() } else { 0.0 };
        } else if term == f64::NEG_INFINITY {
        } else {
            // Also a NaN, which then stays.
            self.sum = self.sum * (self.largest - term).exp() + 1.0;
            self.largest = term;
        }
    }

    /// log(mean(exp(terms))); minus infinity without terms.
    pub fn value(self) -> f64 {
        self.largest + (self.sum / self.n.max(1) as f64).ln()
    }
}

impl Default for LogMeanExp {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Real> Network<R> {
    /// Posterior of `cells`, in evaluation mode.
    pub fn posterior(
        &self,
        team: &Team,
        workspace: &mut Workspace<R>,
        data: &Dataset,
        cells: &[usize],
    ) -> Posterior<R> {
        self.prepare_evaluation(workspace);
        let l = self.architecture.n_latents;
        let mut posterior =
            Posterior { mean: Vec::with_capacity(cells.len() * l), variance: Vec::with_capacity(cells.len() * l) };
        for cells in cells.chunks(workspace.capacity()) {
            self.encode(team, workspace, Batch { data, cells });
            posterior.mean.extend_from_slice(&workspace.cells.mean[..cells.len() * l]);
            posterior.variance.extend_from_slice(&workspace.cells.variance[..cells.len() * l]);
        }
        posterior
    }

    /// Bounds of `cells` from `particles` samples each of their `posterior`, in evaluation mode.
    ///
    /// The noise of sample s of a cell is the stream of (seed, s, cell): the first samples are the same whatever their
    /// number. Where masks are still random, one is drawn per sample. A cell is one tile of the team's work, and its
    /// samples pass through one row block of the workspace, so memory does not grow with their number.
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
    ) -> Vec<Bound> {
        assert!(particles > 0 && workspace.capacity() >= ROWS_PER_BLOCK, "a sample, and room for a row block");
        self.prepare_evaluation(workspace);
        let l = self.architecture.n_latents;
        let mut bounds = vec![Bound::default(); cells.len()];
        let at_once = workspace.capacity() / ROWS_PER_BLOCK;
        for (chunk, (cells, bounds)) in cells.chunks(at_once).zip(bounds.chunks_mut(at_once)).enumerate() {
            let (blocks, shared) = workspace.split(cells.len() * ROWS_PER_BLOCK);
            team.run(cells.len(), (blocks, tiles(bounds, 1)), |i, (mut block, bound)| {
                let copies = [cells[i]; ROWS_PER_BLOCK];
                let pass = Pass { network: self, batch: Batch { data, cells: &copies }, shared };
                let at = (chunk * at_once + i) * l..(chunk * at_once + i + 1) * l;
                let (mean, variance) = (&posterior.mean[at.clone()], &posterior.variance[at]);
                bound[0] = pass.bound(&mut block, mean, variance, particles, seed);
            });
        }
        bounds
    }
}

impl<R: Real> Pass<'_, R> {
    /// Bounds of the cell that every row of the batch stands for.
    fn bound(&self, block: &mut Block<R>, mean: &[R], variance: &[R], particles: usize, seed: u64) -> Bound {
        let a = &self.network.architecture;
        let (g, l) = (a.n_genes, a.n_latents);
        let cell = self.batch.cells[0];
        let nonzero = self.batch.data.counts.row(cell);
        let library = R::of(self.batch.data.library[cell]);

        // What all samples share.
        let cells = &mut block.cells;
        cells.x[..g].fill(R::ZERO);
        nonzero.for_each(|gene, count| cells.x[gene] = R::of_count(count));
        self.load_covariates(cells.covariates, 0..ROWS_PER_BLOCK);
        cells.mean.chunks_exact_mut(l).for_each(|row| row.copy_from_slice(mean));
        cells.variance.chunks_exact_mut(l).for_each(|row| row.copy_from_slice(variance));
        let half_log_variance: f64 = 0.5 * variance.iter().map(|v| v.f64().ln()).sum::<f64>();
        let count_terms =
            negative_binomial::count_terms(nonzero, self.shared.dispersion, &mut cells.likelihood_scratch[0]);
        let masks_drawn = self.network.tensors.mask_logit.is_some() && self.network.frozen_mask.is_none();
        if !masks_drawn {
            self.prior(cells, 0..ROWS_PER_BLOCK);
        }

        let mut weights = LogMeanExp::new();
        let (mut reconstruction, mut kl) = (0.0, 0.0);
        for first in (0..particles).step_by(ROWS_PER_BLOCK) {
            let n = (particles - first).min(ROWS_PER_BLOCK);
            let cells = &mut block.cells;
            self.particle_noise(cells.latent_noise, cells.mask_noise, cells.words, cell, first, seed, masks_drawn);
            if masks_drawn {
                self.prior(cells, 0..ROWS_PER_BLOCK);
            }
            // z before its softmax, and log p(z) - log q(z) up to the posterior's log-determinant, Eq. (I2).
            let mut log_ratio = [R::ZERO; ROWS_PER_BLOCK];
            let (z, noise, prior_mean) = (&mut *cells.z, &*cells.latent_noise, &*cells.prior_mean);
            vectorized(
                #[inline(always)]
                || {
                    for (((z, &v), &m), &e) in z.iter_mut().zip(&*cells.variance).zip(&*cells.mean).zip(noise) {
                        *z = v.sqrt().fma(e, m);
                    }
                    for (r, ratio) in log_ratio.iter_mut().enumerate() {
                        for k in r * l..(r + 1) * l {
                            let distance = z[k] - prior_mean[k];
                            *ratio += noise[k].fma(noise[k], -(distance * distance));
                        }
                    }
                },
            );
            if a.latent_distribution == LatentDistribution::LogisticNormal {
                cells.z.chunks_exact_mut(l).for_each(latent::softmax);
            }
            for layer in 0..a.n_layers {
                self.start_hidden(Side::Decoder, layer, block, false);
                self.finish_hidden(Side::Decoder, layer, block, false);
            }
            self.output(block);

            let cells = &mut block.cells;
            for r in 0..n {
                let (logits, x) = (&mut cells.logits[r * g..(r + 1) * g], &cells.x[..g]);
                let dispersion = self.shared.dispersion;
                let nll = if a.likelihood_epsilon > 0.0 {
                    negative_binomial::forward_backward_with_epsilon(
                        logits,
                        x,
                        nonzero,
                        library,
                        dispersion,
                        R::ZERO,
                        R::of(a.likelihood_epsilon),
                        cells.d_log_dispersion,
                        &mut cells.likelihood_scratch[0],
                    )
                } else {
                    negative_binomial::forward(logits, x, library, dispersion, count_terms)
                };
                weights.add(half_log_variance + 0.5 * log_ratio[r].f64() - nll);
                reconstruction += nll;
                kl += cells.kl[r];
            }
        }
        let n = particles as f64;
        Bound { iwelbo: -weights.value(), elbo: reconstruction / n + kl / n }
    }

    /// Noise of the samples `first`, `first` + 1, ... of a cell, a row each.
    fn particle_noise(
        &self,
        latent: &mut [R],
        mask: &mut [R],
        words: &mut [u32],
        cell: usize,
        first: usize,
        seed: u64,
        masks_drawn: bool,
    ) {
        let l = self.network.architecture.n_latents;
        let e = self.shared.max_interventions * l;
        vectorized(
            #[inline(always)]
            || {
                for (r, row) in latent.chunks_exact_mut(l).enumerate() {
                    let particle = (first + r) as u64;
                    fill_normal(row, words, &mut stream(seed, Purpose::ParticleLatent, particle, cell as u64));
                }
                if masks_drawn {
                    for (r, row) in mask.chunks_exact_mut(e.max(1)).enumerate() {
                        let particle = (first + r) as u64;
                        fill_logistic(row, words, &mut stream(seed, Purpose::ParticleMask, particle, cell as u64));
                    }
                }
            },
        );
    }
}
