//! Simulated screens with known latents, shifts and targets: the two simulators of the sparse-mechanism-shift model.

use faer::Mat;
use rand::seq::index;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, Normal, Poisson, StandardNormal};
use serde::Deserialize;
use serde::Serialize;

use crate::data::counts::in_memory::CountsBuilder;
use crate::data::dataset::{Covariates, Dataset, InterventionRows, Truth};
use crate::error::{InputError, Result};
use crate::numerics::random::{SamplerPurpose, sampler_stream};
use crate::numerics::real::Real;
use crate::numerics::simd::{by_columns, columns, columns_mut, vectorized};
use crate::parallel::team::{Team, tiles};

/// Negative slope of the mixing network's LeakyReLU.
const LEAK: f64 = 0.2;
/// Width of the mixing network's hidden layers.
const MIXING_WIDTH: usize = 40;
/// `sparse-shift`: expected total count of a gene over all cells.
const GENE_TOTAL: f64 = 1e6;
/// `paper`: expected total count of a cell.
const CELL_TOTAL: f64 = 1e5;

/// Which simulator makes the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SimulationKind {
    // Softmax over cells, 1e6 counts per gene.
    /// As the reference code does: targets drawn with replacement, rates normalised over cells
    #[default]
    SparseShift,
    // Softmax over genes, 1e5 counts per cell.
    /// As the paper's text says: targets without replacement, rates normalised over genes
    Paper,
}

impl SimulationKind {
    /// Name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            SimulationKind::SparseShift => "sparse-shift",
            SimulationKind::Paper => "paper",
        }
    }
}

/// Settings of a simulation; it is written with the names of its settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulation {
    /// Which simulator.
    pub kind: SimulationKind,
    /// Number of interventions, A.
    #[serde(rename = "interventions")]
    pub n_interventions: usize,
    /// Cells under each intervention.
    #[serde(rename = "cells")]
    pub cells_per_intervention: usize,
    /// Number of genes, G.
    #[serde(rename = "genes")]
    pub n_genes: usize,
    /// Number of latents, L.
    #[serde(rename = "latents")]
    pub n_latents: usize,
    /// If given, interventions target only the first that many latents.
    #[serde(rename = "targeted_latents")]
    pub n_targeted_latents: Option<usize>,
    /// Seed; the same settings and seed give the same data at any number of threads.
    pub seed: u64,
}

impl Default for Simulation {
    /// The size of the paper's tables: 100 interventions of 500 cells, 15 latents, 100 genes.
    fn default() -> Self {
        Self {
            kind: SimulationKind::SparseShift,
            n_interventions: 100,
            n_latents: 15,
            n_genes: 100,
            cells_per_intervention: 500,
            seed: 0,
            n_targeted_latents: None,
        }
    }
}

/// A simulated screen and everything it was made from.
#[derive(Debug, Clone)]
pub struct Simulated {
    /// The screen, with its truth; cells ordered by intervention. A cell without any count is possible in principle
    /// (rates are positive, counts random) and is kept.
    pub dataset: Dataset,
    /// The true decoder.
    pub mixing: MixingNetwork,
    /// Shift drawn for every intervention and latent, targeted or not, interventions x L, row-major.
    pub shifts: Vec<f64>,
    /// Whether an intervention targets a latent, interventions x L, row-major.
    pub targets: Vec<bool>,
}

impl Simulation {
    /// Names of the interventions: `intervention_00`, `intervention_01`, ... with leading zeros.
    pub fn intervention_names(&self) -> Vec<String> {
        numbered("intervention_", self.n_interventions)
    }

    /// Names of the interventions held out by default: the last fifth, rounded down.
    pub fn default_holdout(&self) -> Vec<String> {
        self.intervention_names().split_off(self.n_interventions - self.n_interventions / 5)
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("interventions", self.n_interventions),
            ("latents", self.n_latents),
            ("genes", self.n_genes),
            ("cells per intervention", self.cells_per_intervention),
        ];
        if let Some((what, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(InputError::new(format!("a simulation needs {what}"), "choose 1 or more").into());
        }
        match self.n_targeted_latents {
            Some(0) => Err(InputError::new("no latent may be targeted", "allow 1 or more").into()),
            Some(n) if n > self.n_latents => Err(InputError::new(
                format!("{n} latents may be targeted, of only {}", self.n_latents),
                "target at most as many as there are",
            )
            .into()),
            _ => Ok(()),
        }
    }

    fn describe(&self) -> String {
        let targeted = self.n_targeted_latents.map(|n| format!(", the first {n} targeted")).unwrap_or_default();
        format!(
            "simulated ({}: {} interventions of {} cells, {} latents{targeted}, {} genes, seed {})",
            self.kind.name(),
            self.n_interventions,
            self.cells_per_intervention,
            self.n_latents,
            self.n_genes,
            self.seed
        )
    }
}

/// Simulates a screen.
///
/// Each intervention targets 1, 2 or 3 latents (uniform; drawn with replacement by `sparse-shift`, so fewer may
/// differ); a shift is a random sign times Normal(5, 0.5); a cell's latents are Normal(shift * target, I); its counts
/// are Poisson with the means of [`MixingNetwork`].
///
/// # Errors
/// [`InputError`] if a size is zero or more latents are targeted than there are.
pub fn simulate(settings: &Simulation) -> Result<Simulated> {
    simulate_on(&Team::single(), settings)
}

/// [`simulate`] with a team of threads; the result does not depend on their number.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_on(team: &Team, settings: &Simulation) -> Result<Simulated> {
    settings.check()?;
    let (n_interventions, n_latents, n_genes) = (settings.n_interventions, settings.n_latents, settings.n_genes);
    let n_cells = n_interventions * settings.cells_per_intervention;
    let seed = settings.seed;

    let targets = draw_targets(settings);
    let mut random = sampler_stream(seed, SamplerPurpose::SimulatedShifts, 0);
    let magnitude = Normal::new(5.0, 0.5).expect("a positive standard deviation");
    let shifts: Vec<f64> = (0..n_interventions * n_latents)
        .map(|_| {
            let sign = if random.random::<bool>() { 1.0 } else { -1.0 };
            sign * magnitude.sample(&mut random)
        })
        .collect();
    let prior_means: Vec<f64> = shifts.iter().zip(&targets).map(|(&s, &t)| if t { s } else { 0.0 }).collect();

    let labels: Vec<usize> = (0..n_cells).map(|n| n / settings.cells_per_intervention).collect();
    let mut latents = vec![0.0; n_cells * n_latents];
    by_cell(team, &mut latents, n_latents, |n, z| {
        let mut random = sampler_stream(seed, SamplerPurpose::SimulatedLatents, n);
        for (z, mean) in z.iter_mut().zip(&prior_means[labels[n] * n_latents..]) {
            let noise: f64 = StandardNormal.sample(&mut random);
            *z = mean + noise;
        }
    });

    let (mixing, log_rates) = MixingNetwork::draw(team, settings, &latents);
    let mut table = vec![0u32; n_cells * n_genes];
    by_cell(team, &mut table, n_genes, |n, x| {
        let mut random = sampler_stream(seed, SamplerPurpose::SimulatedCounts, n);
        for (x, log_rate) in x.iter_mut().zip(&log_rates[n * n_genes..]) {
            *x = poisson(log_rate.exp(), &mut random);
        }
    });
    drop(log_rates);
    let mut counts = CountsBuilder::new(n_genes);
    let mut library = Vec::with_capacity(n_cells);
    for row in table.chunks_exact(n_genes) {
        row.iter().enumerate().for_each(|(g, &x)| counts.push(g, x));
        counts.end_cell();
        library.push(row.iter().map(|&x| x as u64).sum::<u64>() as f64);
    }

    let dataset = Dataset {
        source: settings.describe(),
        counts: counts.finish().into(),
        library,
        interventions: InterventionRows::one_hot(labels),
        intervention_names: settings.intervention_names(),
        gene_names: numbered("gene_", n_genes),
        cell_names: numbered("cell_", n_cells).into(),
        covariates: Covariates::default(),
        truth: Some(Truth { n_latents, latents, prior_means }),
    };
    Ok(Simulated { dataset, mixing, shifts, targets })
}

/// Cells of one piece of work.
const CELLS_PER_TILE: usize = 256;

/// Calls `f(n, row of cell n)` for every row of a table of `width` columns, on any thread.
fn by_cell<T: Send>(team: &Team, table: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let rows_per_tile = CELLS_PER_TILE * width;
    team.run(table.len().div_ceil(rows_per_tile), tiles(table, rows_per_tile), |tile, rows| {
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            f(tile * CELLS_PER_TILE + i, row);
        }
    });
}

fn draw_targets(settings: &Simulation) -> Vec<bool> {
    let n_latents = settings.n_latents;
    let candidates = settings.n_targeted_latents.unwrap_or(n_latents);
    let mut random = sampler_stream(settings.seed, SamplerPurpose::SimulatedTargets, 0);
    let mut targets = vec![false; settings.n_interventions * n_latents];
    for targets in targets.chunks_exact_mut(n_latents) {
        let n = random.random_range(1..=3);
        match settings.kind {
            SimulationKind::SparseShift => (0..n).for_each(|_| targets[random.random_range(0..candidates)] = true),
            SimulationKind::Paper => {
                index::sample(&mut random, candidates, n.min(candidates)).iter().for_each(|k| targets[k] = true);
            }
        }
    }
    targets
}

fn poisson(mean: f64, random: &mut impl Rng) -> u32 {
    // Means below the smallest positive number count nothing; those the sampler refuses do not arise.
    Poisson::new(mean).map_or(0, |poisson| poisson.sample(random) as u32)
}

fn numbered(prefix: &str, n: usize) -> Vec<String> {
    let width = n.saturating_sub(1).to_string().len();
    (0..n).map(|i| format!("{prefix}{i:0width$}")).collect()
}

/// The true decoder of a simulation: latents to log rates of the Poisson counts.
///
/// Four linear maps L-40-40-40-G without bias, LeakyReLU 0.2 after the first three. Each weight has orthonormal rows
/// or columns times `sqrt(2/(1+0.2^2)) * sqrt(2/(fan_in+fan_out))`; the logits are divided by their standard deviation
/// over the whole simulated data set and normalised by a softmax over cells or over genes.
#[derive(Debug, Clone, PartialEq)]
pub struct MixingNetwork {
    kind: SimulationKind,
    layers: Vec<MixingLayer>,
    /// Standard deviation of the unscaled logits over all simulated cells and genes.
    logit_sd: f64,
    /// `sparse-shift` only: log of the sum over the simulated cells of exp(scaled logit), for each gene.
    log_normaliser: Vec<f64>,
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
    fn draw(team: &Team, settings: &Simulation, latents: &[f64]) -> (Self, Vec<f64>) {
        let (n_latents, n_genes) = (settings.n_latents, settings.n_genes);
        let mut random = sampler_stream(settings.seed, SamplerPurpose::SimulatedMixing, 0);
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
        let mut mixing = Self { kind: settings.kind, layers, logit_sd: 1.0, log_normaliser: Vec::new() };

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
        logits.iter_mut().for_each(|l| *l /= mixing.logit_sd);
        if settings.kind == SimulationKind::SparseShift {
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

    /// Number of genes, G.
    pub fn n_genes(&self) -> usize {
        self.layers[self.layers.len() - 1].n_out
    }

    /// Log of the Poisson mean of each gene (length G) for a cell with latents `z` (length L), with the normalisation
    /// constants of the simulated data set.
    ///
    /// # Panics
    /// If `z` has not length L.
    pub fn log_rates(&self, z: &[f64]) -> Vec<f64> {
        let mut log_rates = vec![0.0; self.n_genes()];
        self.log_rates_into(z, &mut Vec::new(), &mut log_rates);
        log_rates
    }

    /// [`MixingNetwork::log_rates`] without allocation once `scratch` has grown: writes to `log_rates` (length G).
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn log_rates_into(&self, z: &[f64], scratch: &mut Vec<f64>, log_rates: &mut [f64]) {
        self.logits(z, scratch, log_rates);
        log_rates.iter_mut().for_each(|l| *l /= self.logit_sd);
        self.normalise(log_rates);
    }

    /// [`MixingNetwork::log_rates`] (length G) and their derivatives in each latent (L x G, row-major).
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn log_rates_and_jacobian(&self, z: &[f64], log_rates: &mut [f64], jacobian: &mut [f64]) {
        let (n_latents, n_genes) = (self.n_latents(), self.n_genes());
        assert_eq!(jacobian.len(), n_latents * n_genes, "one row per latent");
        self.log_rates_into(z, &mut Vec::new(), log_rates);
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
            if self.kind == SimulationKind::Paper {
                // The softmax over genes: each derivative less its mean under the rates.
                let mean: f64 = out.iter().zip(&*log_rates).map(|(d, log)| d * log.exp() / CELL_TOTAL).sum();
                out.iter_mut().for_each(|d| *d -= mean);
            }
        }
    }

    /// Scaled logits of a cell to log rates, in place.
    fn normalise(&self, logits: &mut [f64]) {
        match self.kind {
            SimulationKind::SparseShift => {
                for (l, normaliser) in logits.iter_mut().zip(&self.log_normaliser) {
                    *l += GENE_TOTAL.ln() - normaliser;
                }
            }
            SimulationKind::Paper => {
                let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let normaliser = largest + logits.iter().map(|l| (l - largest).exp()).sum::<f64>().ln();
                logits.iter_mut().for_each(|l| *l += CELL_TOTAL.ln() - normaliser);
            }
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

/// A screen of 60 cells that tests of other modules train on.
#[cfg(test)]
pub(crate) fn small_screen(seed: u64) -> Dataset {
    let simulation = Simulation {
        n_interventions: 4,
        n_latents: 3,
        n_genes: 12,
        cells_per_intervention: 15,
        seed,
        ..Simulation::default()
    };
    simulate(&simulation).expect("a simulation").dataset
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(kind: SimulationKind) -> Simulation {
        Simulation { kind, cells_per_intervention: 20, seed: 3, ..Simulation::default() }
    }

    #[test]
    fn totals_are_those_of_the_specification() {
        let simulated = simulate(&small(SimulationKind::SparseShift)).unwrap();
        let dataset = &simulated.dataset;
        assert_eq!((dataset.n_cells(), dataset.n_genes(), dataset.n_interventions()), (2000, 100, 100));
        let total: f64 = dataset.library.iter().sum();
        // Poisson(100 genes x 1e6) has standard deviation 1e4.
        assert!((total - 1e8).abs() < 5e4, "total {total}");
        let mut genes = vec![0.0; 100];
        for n in 0..2000 {
            dataset.counts.row(n).for_each(|g, x| genes[g] += x as f64);
            assert_eq!(dataset.counts.row(n).sum() as f64, dataset.library[n]);
        }
        assert!(genes.iter().all(|total| (total - 1e6).abs() < 5e3), "{genes:?}");

        let paper = simulate(&small(SimulationKind::Paper)).unwrap().dataset;
        assert!(paper.library.iter().all(|library| (library - 1e5).abs() < 5.0 * 1e5f64.sqrt()));
    }

    #[test]
    fn counts_have_the_means_of_the_network() {
        for kind in [SimulationKind::SparseShift, SimulationKind::Paper] {
            let Simulated { dataset, mixing, .. } = simulate(&small(kind)).unwrap();
            let truth = dataset.truth.as_ref().unwrap();
            // Pearson's chi-squared of counts against means: n times (1 +- sqrt(2/n)) or so.
            let (mut chi2, mut n_terms) = (0.0, 0.0);
            for n in 0..dataset.n_cells() {
                let log_rates = mixing.log_rates(&truth.latents[n * 15..(n + 1) * 15]);
                let mut x = vec![0.0; 100];
                dataset.counts.row(n).for_each(|g, count| x[g] = count as f64);
                for (x, log_rate) in x.iter().zip(log_rates) {
                    let mean = log_rate.exp();
                    if mean > 5.0 {
                        chi2 += (x - mean) * (x - mean) / mean;
                        n_terms += 1.0;
                    }
                }
            }
            let sd = f64::sqrt(2.2 / n_terms);
            assert!((chi2 / n_terms - 1.0).abs() < 5.0 * sd, "{kind:?}: {} +- {sd}", chi2 / n_terms);
        }
    }

    #[test]
    fn targets_and_shifts_are_distributed_as_specified() {
        let mut n_targets = [0usize; 4];
        for (kind, seeds) in [(SimulationKind::SparseShift, 0..30), (SimulationKind::Paper, 30..60)] {
            let mut of_kind = [0usize; 4];
            for seed in seeds {
                let settings =
                    Simulation { kind, cells_per_intervention: 1, n_genes: 2, seed, ..Simulation::default() };
                let simulated = simulate(&settings).unwrap();
                let truth = simulated.dataset.truth.unwrap();
                for a in 0..100 {
                    let targets = &simulated.targets[a * 15..(a + 1) * 15];
                    of_kind[targets.iter().filter(|&&t| t).count()] += 1;
                }
                for (i, &mean) in truth.prior_means.iter().enumerate() {
                    assert_eq!(mean, if simulated.targets[i] { simulated.shifts[i] } else { 0.0 });
                }
            }
            assert_eq!(of_kind[0], 0);
            // Number of distinct targets of 1, 2 or 3 draws from 15.
            let expected = match kind {
                SimulationKind::SparseShift => {
                    let one = 1.0 + 1.0 / 15.0 + 1.0 / 225.0;
                    let three = 14.0 * 13.0 / 225.0;
                    [0.0, one / 3.0, (3.0 - one - three) / 3.0, three / 3.0]
                }
                SimulationKind::Paper => [0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0],
            };
            for (found, p) in of_kind.iter().zip(expected) {
                let sd = f64::sqrt(3000.0 * p * (1.0 - p));
                assert!((*found as f64 - 3000.0 * p).abs() <= 4.5 * sd, "{kind:?}: {of_kind:?}, expected {p}");
            }
            n_targets.iter_mut().zip(of_kind).for_each(|(sum, n)| *sum += n);
        }
        assert_eq!(n_targets.iter().sum::<usize>(), 6000);

        let settings = Simulation { n_interventions: 2000, cells_per_intervention: 1, ..Simulation::default() };
        let shifts = simulate(&settings).unwrap().shifts;
        let n = shifts.len() as f64;
        let positive = shifts.iter().filter(|&&s| s > 0.0).count() as f64;
        assert!((positive / n - 0.5).abs() < 5.0 * 0.5 / n.sqrt());
        let mean = shifts.iter().map(|s| s.abs()).sum::<f64>() / n;
        let sd = (shifts.iter().map(|s| (s.abs() - mean).powi(2)).sum::<f64>() / n).sqrt();
        assert!((mean - 5.0).abs() < 5.0 * 0.5 / n.sqrt() && (sd - 0.5).abs() < 5.0 * 0.5 / (2.0 * n).sqrt());
    }

    #[test]
    fn latents_are_normal_around_their_prior_mean() {
        let dataset = simulate(&small(SimulationKind::SparseShift)).unwrap().dataset;
        let truth = dataset.truth.unwrap();
        let n = truth.latents.len() as f64;
        let (mut sum, mut squares) = (0.0, 0.0);
        for (i, z) in truth.latents.iter().enumerate() {
            let a = dataset.interventions.single(i / 15).unwrap();
            let noise = z - truth.prior_means[a * 15 + i % 15];
            sum += noise;
            squares += noise * noise;
        }
        assert!((sum / n).abs() < 5.0 / n.sqrt() && (squares / n - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
    }

    #[test]
    fn only_the_first_latents_are_targeted_on_request() {
        for kind in [SimulationKind::SparseShift, SimulationKind::Paper] {
            let settings = Simulation { n_targeted_latents: Some(2), ..small(kind) };
            let targets = simulate(&settings).unwrap().targets;
            for targets in targets.chunks_exact(15) {
                assert!(targets[..2].contains(&true) && !targets[2..].contains(&true));
            }
        }
        for n in [0, 16] {
            assert!(simulate(&Simulation { n_targeted_latents: Some(n), ..Simulation::default() }).is_err());
        }
        assert!(simulate(&Simulation { n_genes: 0, ..Simulation::default() }).is_err());
    }

    #[test]
    fn mixing_weights_are_orthonormal_up_to_the_gain() {
        let mixing = simulate(&small(SimulationKind::SparseShift)).unwrap().mixing;
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
        let Simulated { dataset, mixing, .. } = simulate(&small(SimulationKind::Paper)).unwrap();
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
        for (log_rate, rate) in mixing.log_rates(z).iter().zip(&rates) {
            assert!((log_rate.exp() / (1e5 * rate / total) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn the_seed_decides_and_the_threads_do_not() {
        let settings = small(SimulationKind::SparseShift);
        let first = simulate(&settings).unwrap();
        let second = Team::with(3, |team| simulate_on(team, &settings).unwrap());
        assert_eq!(first.dataset, second.dataset);
        assert_eq!(first.mixing, second.mixing);
        let other = simulate(&Simulation { seed: 4, ..settings }).unwrap();
        assert_ne!(first.targets, other.targets);
        assert_ne!(first.dataset.counts, other.dataset.counts);
    }

    #[test]
    fn names_and_holdout() {
        let settings = Simulation::default();
        assert_eq!(settings.intervention_names()[7], "intervention_07");
        let holdout = settings.default_holdout();
        assert_eq!((holdout.len(), holdout[0].as_str()), (20, "intervention_80"));
        assert_eq!(numbered("g", 1), ["g0"]);
    }
}
