//! The true decoder of a simulated screen, and the whole model that its counts are drawn from.

use faer::Mat;
use rand::Rng;
use rand_distr::{Distribution, Gamma, Poisson, StandardNormal};

use crate::numerics::random::{SamplerPurpose, sampler_stream};
use crate::numerics::real::Real;
use crate::numerics::simd::{by_columns, columns, columns_mut, vectorized};
use crate::parallel::team::{Team, tiles};

/// Negative slope of the mixing network's LeakyReLU.
const LEAK: f64 = 0.2;
/// Width of the mixing network's hidden layers.
const MIXING_WIDTH: usize = 40;
/// Standard deviation of a batch's effect on the log rate of a gene.
pub const BATCH_SD: f64 = 0.3;
/// Cells of one piece of work.
const CELLS_PER_TILE: usize = 256;

/// Calls `f(n, row of cell n)` for every row of a table of `width` columns, on any thread.
pub(crate) fn by_cell<T: Send>(team: &Team, table: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let rows_per_tile = CELLS_PER_TILE * width;
    team.run(table.len().div_ceil(rows_per_tile), tiles(table, rows_per_tile), |tile, rows| {
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            f(tile * CELLS_PER_TILE + i, row);
        }
    });
}

/// The model that the counts of a simulated screen are drawn from, given their prior means.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratingModel {
    /// Latents to log means of the counts.
    pub mixing: MixingNetwork,
    /// Expected total count of every cell, where it was asked for.
    pub depth: Option<usize>,
    /// Inverse dispersion of negative binomial counts (variance `mu + mu^2 / theta`); `None`: they are Poisson.
    pub dispersion: Option<f64>,
    /// Probability that a cell under an intervention escaped it, so that its latents have the prior N(0, I).
    pub escaped: f64,
}

impl GeneratingModel {
    /// Draws the counts (G) of cell number `n` with latents `z` (L), of the batch whose turn it is.
    pub fn draw(&self, z: &[f64], n: usize, random: &mut impl Rng) -> Vec<u32> {
        let batch = n % self.mixing.n_batches().max(1);
        let rates = self.mixing.log_rates(z, batch);
        rates.into_iter().map(|log_rate| draw_count(log_rate.exp(), self.dispersion, random)).collect()
    }
}

/// A count of this mean: negative binomial with the inverse dispersion that is given, else Poisson.
pub(crate) fn draw_count(mean: f64, dispersion: Option<f64>, random: &mut impl Rng) -> u32 {
    let rate = match dispersion {
        None => mean,
        // Poisson with a mean from a gamma distribution: variance mean + mean^2 / theta.
        Some(theta) => Gamma::new(theta, mean / theta).map_or(0.0, |gamma| gamma.sample(random)),
    };
    // Means below the smallest positive number count nothing; those the sampler refuses do not arise.
    Poisson::new(rate).map_or(0, |poisson| poisson.sample(random) as u32)
}

/// What the rates of a simulation are normalised to, and its batches.
pub(crate) struct MixingPlan<'a> {
    /// Number of genes, G.
    pub n_genes: usize,
    /// If given, the rates of each gene add up to this over all cells (unless `cell_total` is given too, which comes after).
    pub gene_total: Option<f64>,
    /// If given, the rates of each cell add up to this over all genes.
    pub cell_total: Option<f64>,
    /// Number of batches, each with an effect on the log rates; 0: none has.
    pub n_batches: usize,
    /// Batch of each cell; empty without batches.
    pub batches: &'a [u32],
    /// Seed of weights and batch effects.
    pub seed: u64,
}

/// The true decoder of a simulation: latents to log means of the counts.
///
/// Four linear maps L-40-40-40-G without bias, LeakyReLU 0.2 after the first three. Each weight has orthonormal rows
/// or columns times `sqrt(2/(1+0.2^2)) * sqrt(2/(fan_in+fan_out))`; the logits are divided by their standard deviation
/// over the whole simulated data set, moved by the effects of the cell's batch, and normalised by a softmax over cells, over
/// genes, or over cells and then over genes.
#[derive(Debug, Clone, PartialEq)]
pub struct MixingNetwork {
    layers: Vec<MixingLayer>,
    /// Standard deviation of the unscaled logits over all simulated cells and genes.
    logit_sd: f64,
    /// Effect of each batch on each scaled logit, batches x G, row-major; empty without batches.
    batch_effects: Vec<f64>,
    /// Total of a gene over the simulated cells, where rates are normalised over them.
    gene_total: Option<f64>,
    /// With `gene_total` only: log of the sum over the simulated cells of exp(scaled logit), for each gene.
    log_normaliser: Vec<f64>,
    /// Total of a cell over the genes, where rates are normalised over them.
    cell_total: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
struct MixingLayer {
    n_in: usize,
    n_out: usize,
    /// in x out, row-major.
    weight: Vec<f64>,
}

impl MixingNetwork {
    /// Draws the weights and, from the latents (cells x L) of the whole data set, the normalisation constants.
    /// Returns the network and the log rates of these cells, cells x G.
    pub(crate) fn draw(team: &Team, plan: &MixingPlan<'_>, n_latents: usize, latents: &[f64]) -> (Self, Vec<f64>) {
        let n_genes = plan.n_genes;
        let mut random = sampler_stream(plan.seed, SamplerPurpose::SimulatedMixing, 0);
        let widths = [n_latents, MIXING_WIDTH, MIXING_WIDTH, MIXING_WIDTH, n_genes];
        let layers = widths
            .windows(2)
            .map(|pair| {
                let (n_in, n_out) = (pair[0], pair[1]);
                let gain = (2.0 / (1.0 + LEAK * LEAK)).sqrt() * (2.0 / (n_in + n_out) as f64).sqrt();
                let mut weight = orthonormal(n_in, n_out, &mut random);
                weight.iter_mut().for_each(|w| *w *= gain);
                MixingLayer { n_in, n_out, weight }
            })
            .collect();
        let mut random = sampler_stream(plan.seed, SamplerPurpose::SimulatedBatches, 0);
        let effect = |_| BATCH_SD * Distribution::<f64>::sample(&StandardNormal, &mut random);
        let mut mixing = Self {
            layers,
            logit_sd: 1.0,
            batch_effects: (0..plan.n_batches * n_genes).map(effect).collect(),
            gene_total: plan.gene_total,
            log_normaliser: Vec::new(),
            cell_total: plan.cell_total,
        };

        let n_cells = latents.len() / n_latents;
        let mut logits = vec![0.0; n_cells * n_genes];
        by_cell(team, &mut logits, n_genes, |n, logits| {
            mixing.logits(&latents[n * n_latents..(n + 1) * n_latents], &mut Vec::new(), logits);
        });

        // All sums below run over the cells in order: the same at any number of threads.
        let n = logits.len() as f64;
        let mean = logits.iter().sum::<f64>() / n;
        let variance = logits.iter().map(|l| (l - mean) * (l - mean)).sum::<f64>() / n;
        // A single logit has no spread to divide by.
        mixing.logit_sd = if variance > 0.0 { variance.sqrt() } else { 1.0 };
        by_cell(team, &mut logits, n_genes, |n, row| mixing.scale(plan.batches.get(n).map_or(0, |&b| b as usize), row));
        if plan.gene_total.is_some() {
            let mut largest = vec![f64::NEG_INFINITY; n_genes];
            for row in logits.chunks_exact(n_genes) {
                largest.iter_mut().zip(row).for_each(|(m, l)| *m = m.max(*l));
            }
            let mut sum = vec![0.0; n_genes];
            for row in logits.chunks_exact(n_genes) {
                for (sum, (l, m)) in sum.iter_mut().zip(row.iter().zip(&largest)) {
                    *sum += (l - m).exp();
                }
            }
            mixing.log_normaliser = largest.iter().zip(&sum).map(|(m, s)| m + s.ln()).collect();
        }
        by_cell(team, &mut logits, n_genes, |_, row| mixing.normalise(row));
        (mixing, logits)
    }

    /// Number of latents, L.
    pub fn n_latents(&self) -> usize {
        self.layers[0].n_in
    }

    /// Number of batches with an effect; 0 without batches.
    pub fn n_batches(&self) -> usize {
        self.batch_effects.len() / self.n_genes()
    }

    /// Number of genes, G.
    pub fn n_genes(&self) -> usize {
        self.layers[self.layers.len() - 1].n_out
    }

    /// Log of the mean count of each gene (length G) for a cell of `batch` (0 without batches) with latents `z` (length L), with
    /// the normalisation constants of the simulated data set.
    ///
    /// # Panics
    /// If `z` has not length L, or there is no such batch.
    pub fn log_rates(&self, z: &[f64], batch: usize) -> Vec<f64> {
        let mut log_rates = vec![0.0; self.n_genes()];
        self.log_rates_into(z, batch, &mut Vec::new(), &mut log_rates);
        log_rates
    }

    /// [`MixingNetwork::log_rates`] without allocation once `scratch` has grown: writes to `log_rates` (length G).
    ///
    /// # Panics
    /// If a length is wrong, or there is no such batch.
    pub fn log_rates_into(&self, z: &[f64], batch: usize, scratch: &mut Vec<f64>, log_rates: &mut [f64]) {
        self.logits(z, scratch, log_rates);
        self.scale(batch, log_rates);
        self.normalise(log_rates);
    }

    /// [`MixingNetwork::log_rates`] (length G) and their derivatives in each latent (L x G, row-major).
    ///
    /// # Panics
    /// If a length is wrong, or there is no such batch.
    pub fn log_rates_and_jacobian(&self, z: &[f64], batch: usize, log_rates: &mut [f64], jacobian: &mut [f64]) {
        let (n_latents, n_genes) = (self.n_latents(), self.n_genes());
        assert_eq!(jacobian.len(), n_latents * n_genes, "one row per latent");
        self.log_rates_into(z, batch, &mut Vec::new(), log_rates);
        // Row 0 holds the activations, row 1 + k their derivatives in latent k.
        let width = MIXING_WIDTH.max(n_latents).max(n_genes);
        let mut input = vec![0.0; (1 + n_latents) * width];
        let mut output = input.clone();
        input[..n_latents].copy_from_slice(z);
        (0..n_latents).for_each(|k| input[(1 + k) * width + k] = 1.0);
        for (i, layer) in self.layers.iter().enumerate() {
            for (input, output) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
                layer.apply(&input[..layer.n_in], &mut output[..layer.n_out]);
            }
            if i + 1 < self.layers.len() {
                let (activations, derivatives) = output.split_at_mut(width);
                for (j, h) in activations[..layer.n_out].iter_mut().enumerate() {
                    if *h < 0.0 {
                        *h *= LEAK;
                        derivatives.chunks_exact_mut(width).for_each(|row| row[j] *= LEAK);
                    }
                }
            }
            std::mem::swap(&mut input, &mut output);
        }
        for (out, row) in jacobian.chunks_exact_mut(n_genes).zip(input[width..].chunks_exact(width)) {
            out.iter_mut().zip(row).for_each(|(out, d)| *out = d / self.logit_sd);
            if let Some(total) = self.cell_total {
                // The softmax over genes: each derivative less its mean under the rates.
                let mean: f64 = out.iter().zip(&*log_rates).map(|(d, log)| d * log.exp() / total).sum();
                out.iter_mut().for_each(|d| *d -= mean);
            }
        }
    }

    /// Logits of a cell of `batch` to scaled ones, in place.
    fn scale(&self, batch: usize, logits: &mut [f64]) {
        logits.iter_mut().for_each(|l| *l /= self.logit_sd);
        if !self.batch_effects.is_empty() {
            let effects = &self.batch_effects[batch * logits.len()..(batch + 1) * logits.len()];
            logits.iter_mut().zip(effects).for_each(|(l, effect)| *l += effect);
        }
    }

    /// Scaled logits of a cell to log rates, in place.
    fn normalise(&self, logits: &mut [f64]) {
        if let Some(total) = self.gene_total {
            for (l, normaliser) in logits.iter_mut().zip(&self.log_normaliser) {
                *l += total.ln() - normaliser;
            }
        }
        if let Some(total) = self.cell_total {
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let normaliser = largest + logits.iter().map(|l| (l - largest).exp()).sum::<f64>().ln();
            logits.iter_mut().for_each(|l| *l += total.ln() - normaliser);
        }
    }

    /// Unscaled logits of one cell.
    fn logits(&self, z: &[f64], scratch: &mut Vec<f64>, logits: &mut [f64]) {
        assert_eq!(z.len(), self.n_latents(), "one value per latent");
        assert_eq!(logits.len(), self.n_genes(), "one value per gene");
        scratch.clear();
        scratch.resize(2 * MIXING_WIDTH, 0.0);
        let (mut input, mut output) = scratch.split_at_mut(MIXING_WIDTH);
        let (last, hidden) = self.layers.split_last().expect("four layers");
        for (i, layer) in hidden.iter().enumerate() {
            layer.apply(if i == 0 { z } else { input }, output);
            output.iter_mut().for_each(|h| *h = if *h < 0.0 { LEAK * *h } else { *h });
            std::mem::swap(&mut input, &mut output);
        }
        last.apply(input, logits);
    }
}

impl MixingLayer {
    fn apply(&self, input: &[f64], output: &mut [f64]) {
        vectorized(
            #[inline(always)]
            || by_columns!(self.n_out, columns_product(output, input, &self.weight)),
        );
    }
}

/// Product of a row with the columns of a matrix, which has as many columns as `output`.
#[inline(always)]
fn columns_product<R: Real, const W: usize>(from: usize, output: &mut [R], input: &[R], weight: &[R]) {
    let mut sum = [R::ZERO; W];
    for (&x, weights) in input.iter().zip(weight.chunks_exact(output.len())) {
        let weights = columns::<R, W>(weights, from);
        for j in 0..W {
            // Not fused: the simulated counts are the same with and without such an instruction.
            sum[j] += x * weights[j];
        }
    }
    *columns_mut(output, from) = sum;
}

/// A matrix (rows x columns, row-major) with orthonormal columns if it is tall, orthonormal rows otherwise: the Q of a
/// Gaussian matrix.
///
/// The signs of Q stay as Householder reflections leave them, as in the reference. This is not the uniform distribution
/// (the first entry of Q is always negative), and after LeakyReLU the difference shows in the counts: their logarithms
/// spread some 2 % wider than with uniformly distributed weights.
fn orthonormal(rows: usize, columns: usize, random: &mut impl Rng) -> Vec<f64> {
    let (tall, narrow) = (rows.max(columns), rows.min(columns));
    let gaussian: Vec<f64> = (0..tall * narrow).map(|_| StandardNormal.sample(random)).collect();
    let q = Mat::from_fn(tall, narrow, |i, j| gaussian[i * narrow + j]).qr().compute_thin_Q();
    let mut weight = Vec::with_capacity(rows * columns);
    for i in 0..rows {
        for j in 0..columns {
            weight.push(if rows > columns { q[(i, j)] } else { q[(j, i)] });
        }
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::simulate::{Simulated, Simulation, SimulationKind, simulate};

    fn small(kind: SimulationKind) -> Simulation {
        Simulation { kind, cells_per_intervention: 20, seed: 3, ..Simulation::default() }
    }

    #[test]
    fn mixing_weights_are_orthonormal_up_to_the_gain() {
        let mixing = simulate(&small(SimulationKind::SparseShift)).unwrap().generating.mixing;
        assert_eq!(
            mixing.layers.iter().map(|l| (l.n_in, l.n_out)).collect::<Vec<_>>(),
            [(15, 40), (40, 40), (40, 40), (40, 100)]
        );
        for layer in &mixing.layers {
            let gain2 = 2.0 / 1.04 * 2.0 / (layer.n_in + layer.n_out) as f64;
            let weight = nalgebra::DMatrix::from_row_slice(layer.n_in, layer.n_out, &layer.weight);
            // n_in <= n_out here: the rows are orthonormal.
            let gram = &weight * weight.transpose() / gain2;
            let off = (gram - nalgebra::DMatrix::identity(layer.n_in, layer.n_in)).amax();
            assert!(off < 1e-13, "{off}");
        }
        let tall = orthonormal(9, 4, &mut sampler_stream(0, SamplerPurpose::SimulatedMixing, 0));
        assert!(tall[0] < 0.0 && mixing.layers.iter().all(|layer| layer.weight[0] < 0.0), "Householder's signs");
        let tall = nalgebra::DMatrix::from_row_slice(9, 4, &tall);
        assert!((tall.transpose() * &tall - nalgebra::DMatrix::identity(4, 4)).amax() < 1e-13);
    }

    #[test]
    fn the_network_equals_matrix_products_written_out() {
        let Simulated { dataset, generating: GeneratingModel { mixing, .. }, .. } =
            simulate(&small(SimulationKind::Paper)).unwrap();
        let z = &dataset.truth.as_ref().unwrap().latents[15..30];
        let mut h = nalgebra::DMatrix::from_row_slice(1, 15, z);
        for (i, layer) in mixing.layers.iter().enumerate() {
            h *= nalgebra::DMatrix::from_row_slice(layer.n_in, layer.n_out, &layer.weight);
            if i < 3 {
                h.apply(|x| *x = x.max(0.2 * *x));
            }
        }
        let rates = (h / mixing.logit_sd).map(f64::exp);
        let total = rates.sum();
        for (log_rate, rate) in mixing.log_rates(z, 0).iter().zip(&rates) {
            assert!((log_rate.exp() / (1e5 * rate / total) - 1.0).abs() < 1e-12);
        }
    }
}
