//! What the true model of a simulation says about its cells: the floor of their negative log-likelihood, and how well
//! their latents can be known.
//!
//! Derivation: `derivations/iwelbo.md`, the section on the oracle.

use crate::data::dataset::{Dataset, Truth};
use crate::data::mixing::{GeneratingModel, MixingNetwork};
use crate::evaluation::correlation::{Correlation, Latents};
use crate::evaluation::held_out::{Group, mean};
use crate::evaluation::mcc::mcc;
use crate::evaluation::regression::linear_r2;
use crate::model::particles::LogMeanExp;
use crate::numerics::random::{Purpose, fill_normal, stream};
use crate::numerics::special::LnFactorial;
use crate::parallel::team::{Team, tiles};

/// Cells at most: of the floor shared out evenly over the interventions, of the latents spread evenly over all cells.
pub const CELLS: usize = 2000;
/// Samples per cell.
pub const PARTICLES: usize = 200;
/// Every so many samples one is drawn from the wide part of the proposal.
const WIDE_EVERY: usize = 10;
/// Standard deviations of the proposal's parts, as multiples of those of the normal approximation.
const WIDTHS: [f64; 2] = [1.05, 2.0];
/// Which of so many samples is drawn from the prior, where the proposal has it as a part.
const FROM_PRIOR: usize = 4;
/// Steps of the search for the mode, at most.
const STEPS: usize = 30;

/// The floor and what it was measured on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Oracle {
    /// Mean negative log-likelihood in nats per cell: within each intervention, then over interventions.
    pub nll: f64,
    /// Cells it was measured on.
    pub cells: usize,
    /// Samples per cell.
    pub particles: usize,
}

/// The floor on the cells of `groups`: importance sampling with the true decoder and the true prior.
///
/// To take seconds, each group is represented by its first cells, [`CELLS`] in all. `None` without a group, or where the
/// truth is unknown.
pub fn oracle(
    team: &Team,
    data: &Dataset,
    generating: &GeneratingModel,
    groups: &[Group],
    seed: u64,
) -> Option<Oracle> {
    let each = CELLS.div_ceil(groups.len().max(1));
    let cells: Vec<Vec<usize>> = groups.iter().map(|group| group.cells.iter().copied().take(each).collect()).collect();
    if cells.is_empty() {
        return None;
    }
    let of_group = |cells: &Vec<usize>| Some(mean(&true_nll(team, data, generating, cells, seed)?));
    let means: Vec<f64> = cells.iter().map(of_group).collect::<Option<_>>()?;
    Some(Oracle { nll: mean(&means), cells: cells.iter().map(Vec::len).sum(), particles: PARTICLES })
}

/// The negative log-likelihood of each of `cells`, nats, as [`oracle`] finds it; `None` where the truth is unknown.
pub fn true_nll(
    team: &Team,
    data: &Dataset,
    generating: &GeneratingModel,
    cells: &[usize],
    seed: u64,
) -> Option<Vec<f64>> {
    let truth = data.truth.as_ref()?;
    let mut values = vec![0.0; cells.len()];
    team.run(cells.len(), tiles(&mut values, 1), |i, value| {
        value[0] = sample(data, truth, generating, cells[i], PARTICLES, seed).nll;
    });
    Some(values)
}

/// How well latents can be known from counts: the posterior means of the true model, scored as those of a trained one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentOracle {
    /// Mean correlation coefficient (Pearson) of matched latents.
    pub mcc_pearson: f64,
    /// Mean correlation coefficient (Spearman) of matched latents.
    pub mcc_spearman: f64,
    /// R2 of the linear regression from posterior means to true latents.
    pub r2: f64,
    /// Mean divergence, in nats, of the best normal posterior with a diagonal covariance from that with a full one; `None` where
    /// cells escaped their intervention, because their posteriors are no normals.
    pub diagonal_gap: Option<f64>,
    /// Cells it was measured on.
    pub cells: usize,
    /// Samples per cell.
    pub particles: usize,
}

/// The true model's view of the latents of `cells`, of which every so many-th is taken, [`CELLS`] at most. `None`
/// without a cell, or where the truth is unknown.
pub fn latent_oracle(
    team: &Team,
    data: &Dataset,
    generating: &GeneratingModel,
    cells: &[usize],
    seed: u64,
) -> Option<LatentOracle> {
    let truth = data.truth.as_ref()?;
    let chosen: Vec<usize> = cells.iter().copied().step_by(cells.len().div_ceil(CELLS).max(1)).collect();
    if chosen.is_empty() {
        return None;
    }
    let l = truth.n_latents;
    // A row per cell: its posterior mean, then its gap.
    let mut found = vec![0.0; chosen.len() * (l + 1)];
    team.run(chosen.len(), tiles(&mut found, l + 1), |i, row| {
        let cell = sample(data, truth, generating, chosen[i], PARTICLES, seed);
        row[..l].copy_from_slice(&cell.mean);
        row[l] = cell.diagonal_gap.unwrap_or(f64::NAN);
    });
    let inferred: Vec<f64> = found.chunks_exact(l + 1).flat_map(|row| &row[..l]).copied().collect();
    let gaps: Vec<f64> = found.chunks_exact(l + 1).map(|row| row[l]).collect();
    let latents: Vec<f64> = chosen.iter().flat_map(|&n| &truth.latents[n * l..(n + 1) * l]).copied().collect();
    let (inferred, latents) = (Latents::new(&inferred, l), Latents::new(&latents, l));
    Some(LatentOracle {
        mcc_pearson: mcc(team, latents, inferred, Correlation::Pearson).mean,
        mcc_spearman: mcc(team, latents, inferred, Correlation::Spearman).mean,
        r2: linear_r2(inferred, latents),
        diagonal_gap: (generating.escaped == 0.0).then(|| mean(&gaps)),
        cells: chosen.len(),
        particles: PARTICLES,
    })
}

/// A cell under the true model, up to the Monte Carlo error of the samples.
struct TruePosterior {
    /// Negative log-likelihood, nats.
    nll: f64,
    /// Posterior mean of the latents, L.
    mean: Vec<f64>,
    /// What the diagonal costs, Eq. (I10), nats; `None` for a mixture.
    diagonal_gap: Option<f64>,
}

/// Importance sampling of cell `n` under the true model; of a cell that may have escaped, under both its priors, Eq. (I12).
fn sample(
    data: &Dataset,
    truth: &Truth,
    generating: &GeneratingModel,
    n: usize,
    particles: usize,
    seed: u64,
) -> TruePosterior {
    let l = truth.n_latents;
    let mut x = vec![0.0; data.n_genes()];
    let mut of_counts = 0.0;
    let ln_factorial = LnFactorial::new();
    data.counts.row(n).for_each(|g, count| {
        x[g] = count as f64;
        of_counts += ln_factorial.of(count);
        if let Some(theta) = generating.dispersion {
            of_counts -= libm::lgamma(x[g] + theta) - libm::lgamma(theta) - x[g] * theta.ln();
        }
    });
    let prior_mean = truth.prior_mean(data.interventions.row(n));
    // Where no intervention acts, to escape it changes nothing.
    let escaped = if prior_mean.iter().any(|&p| p != 0.0) { generating.escaped } else { 0.0 };
    let published = generating.depth.is_none() && generating.dispersion.is_none() && generating.escaped == 0.0;
    let mut cell = Cell {
        mixing: &generating.mixing,
        // A cell that says little has a posterior as wide as its prior wherever the decoder's kinks make it flat.
        proposes_prior: !published,
        dispersion: generating.dispersion,
        batch: data.covariates.categorical.first().map_or(0, |batches| batches.codes[n] as usize),
        x,
        prior_mean,
        scratch: Vec::new(),
        log_rates: vec![0.0; data.n_genes()],
    };
    let start = &truth.latents[n * l..(n + 1) * l];
    let mut parts = Vec::with_capacity(2);
    if escaped < 1.0 {
        parts.push((1.0 - escaped, sample_under_prior(&mut cell, start, n, particles, seed)));
    }
    if escaped > 0.0 {
        cell.prior_mean.fill(0.0);
        parts.push((escaped, sample_under_prior(&mut cell, start, n, particles, seed)));
    }
    if let [(_, part)] = &mut parts[..] {
        let mean = std::mem::take(&mut part.mean);
        return TruePosterior { nll: of_counts - part.log_likelihood, mean, diagonal_gap: Some(part.diagonal_gap) };
    }
    let logs: Vec<f64> = parts.iter().map(|(share, part)| share.ln() + part.log_likelihood).collect();
    let total = log_sum_exp([logs[0], logs[1]]);
    let mut posterior_mean = vec![0.0; l];
    for (log, (_, part)) in logs.iter().zip(&parts) {
        let share = (log - total).exp();
        posterior_mean.iter_mut().zip(&part.mean).for_each(|(m, z)| *m += share * z);
    }
    TruePosterior { nll: of_counts - total, mean: posterior_mean, diagonal_gap: None }
}

/// A cell under the true decoder and one normal prior.
struct PartOfMixture {
    /// Log-likelihood without what depends on the counts alone, nats.
    log_likelihood: f64,
    /// Posterior mean of the latents, L.
    mean: Vec<f64>,
    /// What the diagonal costs, Eq. (I10), nats.
    diagonal_gap: f64,
}

/// Importance sampling of a cell, number `n`, from the normal approximation that the search from `start` finds.
fn sample_under_prior(cell: &mut Cell, start: &[f64], n: usize, particles: usize, seed: u64) -> PartOfMixture {
    let l = start.len();
    // The true latents only start the search; the estimate is unbiased from wherever it starts.
    let normal = Normal::at_mode(cell, start);

    let part = 1.0 / WIDE_EVERY as f64;
    let shares = [if cell.proposes_prior { 1.0 - 2.0 * part } else { 1.0 - part }, part];
    let (mut noise, mut words) = (vec![0.0; l], vec![0; l + 1]);
    let mut weights = LogMeanExp::new();
    let mut drawn: Vec<(f64, Vec<f64>)> = Vec::with_capacity(particles);
    for s in 0..particles {
        fill_normal(&mut noise, &mut words, &mut stream(seed, Purpose::Oracle, s as u64, n as u64));
        let z = if cell.proposes_prior && s % WIDE_EVERY == FROM_PRIOR {
            let z: Vec<f64> = noise.iter().zip(&cell.prior_mean).map(|(e, p)| p + e).collect();
            noise = normal.noise_of(&z);
            z
        } else {
            let width = WIDTHS[usize::from(s % WIDE_EVERY == WIDE_EVERY - 1)];
            noise.iter_mut().for_each(|e| *e *= width);
            normal.at(&noise)
        };
        // Density of the mixture; both normals around the mode share the distance, Eq. (I7).
        let squared: f64 = noise.iter().map(|e| e * e).sum();
        let mixture: f64 = shares
            .iter()
            .zip(WIDTHS)
            .map(|(share, c)| share * (-0.5 * squared / (c * c) - l as f64 * c.ln()).exp())
            .sum();
        let log_joint = cell.log_joint(&z);
        let log_weight = if cell.proposes_prior {
            let by_prior = part.ln() - 0.5 * squared_distance(&z, &cell.prior_mean);
            log_joint - log_sum_exp([by_prior, normal.log_root_determinant + mixture.ln()])
        } else {
            log_joint - normal.log_root_determinant - mixture.ln()
        };
        weights.add(log_weight);
        drawn.push((log_weight, z));
    }
    // Self-normalised, Eq. (I9): the weights of all samples add up to 1.
    let total = weights.value() + (particles as f64).ln();
    let mut mean = vec![0.0; l];
    for (log_weight, z) in &drawn {
        let share = (log_weight - total).exp();
        mean.iter_mut().zip(z).for_each(|(m, z)| *m += share * z);
    }
    PartOfMixture { log_likelihood: weights.value(), mean, diagonal_gap: normal.diagonal_gap() }
}

/// A cell under the true decoder and a normal prior.
struct Cell<'a> {
    mixing: &'a MixingNetwork,
    /// Whether the prior is a part of the proposal, Eq. (I13).
    proposes_prior: bool,
    dispersion: Option<f64>,
    batch: usize,
    x: Vec<f64>,
    prior_mean: Vec<f64>,
    scratch: Vec<f64>,
    log_rates: Vec<f64>,
}

impl Cell<'_> {
    /// log p(x|z) + log p(z), without what depends on the counts alone and -L/2 log(2 pi).
    fn log_joint(&mut self, z: &[f64]) -> f64 {
        self.mixing.log_rates_into(z, self.batch, &mut self.scratch, &mut self.log_rates);
        let counts = self.x.iter().zip(&self.log_rates);
        let likelihood: f64 = match self.dispersion {
            None => counts.map(|(x, log)| x * log - log.exp()).sum(),
            Some(theta) => counts.map(|(x, log)| x * log - (x + theta) * libm::log1p(log.exp() / theta)).sum(),
        };
        likelihood - 0.5 * squared_distance(z, &self.prior_mean)
    }

    /// Derivative of log p(x|z) in each log mean, and the information about it, given the log means: Eqs. (I6) and (I11).
    fn slope_and_information(&self, log_rates: &[f64]) -> (Vec<f64>, Vec<f64>) {
        // The variance of a count over its mean.
        let spread = |mean: f64| self.dispersion.map_or(1.0, |theta| 1.0 + mean / theta);
        let means = || log_rates.iter().map(|log| log.exp());
        let slope = self.x.iter().zip(means()).map(|(x, mean)| (x - mean) / spread(mean)).collect();
        (slope, means().map(|mean| mean / spread(mean)).collect())
    }
}

/// The normal approximation around the mode: mean, and the Cholesky factor C of the precision C C^T.
struct Normal {
    mode: Vec<f64>,
    /// Lower triangle, L x L, row-major.
    factor: Vec<f64>,
    /// log of the root of the precision's determinant.
    log_root_determinant: f64,
}

impl Normal {
    /// The mode found from `start` by Fisher scoring with step halving, and the precision there, Eq. (I6).
    fn at_mode(cell: &mut Cell, start: &[f64]) -> Self {
        let l = start.len();
        let genes = cell.x.len();
        let mut z = start.to_vec();
        let mut value = cell.log_joint(&z);
        let mut jacobian = vec![0.0; l * genes];
        let mut log_rates = vec![0.0; genes];
        let mut factor = vec![0.0; l * l];
        for step in 0..=STEPS {
            cell.mixing.log_rates_and_jacobian(&z, cell.batch, &mut log_rates, &mut jacobian);
            let (slope, information) = cell.slope_and_information(&log_rates);
            let mut gradient = vec![0.0; l];
            for i in 0..l {
                let row = &jacobian[i * genes..(i + 1) * genes];
                let from_counts: f64 = row.iter().zip(&slope).map(|(j, s)| j * s).sum();
                gradient[i] = from_counts - (z[i] - cell.prior_mean[i]);
                let weighted: Vec<f64> = row.iter().zip(&information).map(|(j, i)| j * i).collect();
                for k in 0..=i {
                    let other = &jacobian[k * genes..(k + 1) * genes];
                    let sum: f64 = weighted.iter().zip(other).map(|(a, b)| a * b).sum();
                    factor[i * l + k] = sum + if i == k { 1.0 } else { 0.0 };
                }
            }
            cholesky(&mut factor, l);
            if step == STEPS {
                break;
            }
            let direction = solve_transposed(&factor, &solve(&factor, &gradient));
            // Where counts change the slope's sign between two pieces of the network the full step may overshoot.
            let mut share = 1.0;
            let gained = loop {
                let next: Vec<f64> = z.iter().zip(&direction).map(|(z, d)| z + share * d).collect();
                let there = cell.log_joint(&next);
                if there > value {
                    let gained = there - value;
                    (z, value) = (next, there);
                    break gained;
                }
                share *= 0.5;
                if share < 1e-3 {
                    break 0.0;
                }
            };
            if gained < 1e-6 {
                break;
            }
        }
        let log_root_determinant = (0..l).map(|i| factor[i * l + i].ln()).sum();
        Self { mode: z, factor, log_root_determinant }
    }

    /// Divergence of the best normal with a diagonal covariance, whose precisions are the diagonal's, Eq. (I10).
    fn diagonal_gap(&self) -> f64 {
        let l = self.mode.len();
        let row = |i: usize| &self.factor[i * l..i * l + i + 1];
        let precision = |i: usize| row(i).iter().map(|c| c * c).sum::<f64>();
        (0..l).map(|i| 0.5 * precision(i).ln()).sum::<f64>() - self.log_root_determinant
    }

    /// mode + C^-T noise.
    fn at(&self, noise: &[f64]) -> Vec<f64> {
        let mut z = solve_transposed(&self.factor, noise);
        z.iter_mut().zip(&self.mode).for_each(|(z, m)| *z += m);
        z
    }

    /// C^T (z - mode), the noise that [`Normal::at`] turns into `z`.
    fn noise_of(&self, z: &[f64]) -> Vec<f64> {
        let l = z.len();
        let from_mode: Vec<f64> = z.iter().zip(&self.mode).map(|(z, m)| z - m).collect();
        (0..l).map(|k| (k..l).map(|i| self.factor[i * l + k] * from_mode[i]).sum()).collect()
    }
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// log(exp(a) + exp(b)), one of them finite.
fn log_sum_exp([a, b]: [f64; 2]) -> f64 {
    let largest = a.max(b);
    largest + ((a - largest).exp() + (b - largest).exp()).ln()
}

/// The lower Cholesky factor, in place of the lower triangle; the upper one is not touched.
fn cholesky(a: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..=i {
            let inner: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let rest = a[i * n + j] - inner;
            a[i * n + j] = if i == j { rest.sqrt() } else { rest / a[j * n + j] };
        }
    }
}

/// C^-1 b.
fn solve(factor: &[f64], b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut y = b.to_vec();
    for i in 0..n {
        let inner: f64 = (0..i).map(|k| factor[i * n + k] * y[k]).sum();
        y[i] = (y[i] - inner) / factor[i * n + i];
    }
    y
}

/// C^-T b.
fn solve_transposed(factor: &[f64], b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut y = b.to_vec();
    for i in (0..n).rev() {
        let inner: f64 = (i + 1..n).map(|k| factor[k * n + i] * y[k]).sum();
        y[i] = (y[i] - inner) / factor[i * n + i];
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::simulate::{Simulated, Simulation, SimulationKind, simulate};

    fn screen(kind: SimulationKind, n_latents: usize, n_genes: usize, seed: u64) -> Simulated {
        let settings = Simulation {
            kind,
            n_interventions: 5,
            n_latents,
            n_genes,
            cells_per_intervention: 40,
            seed,
            ..Simulation::default()
        };
        simulate(&settings).expect("a simulation")
    }

    /// -log p(x) of every `stride`-th cell of a screen of one latent by a sum over a grid, beside what importance sampling finds.
    fn beside_quadrature(simulated: &Simulated, stride: usize) -> Vec<(f64, TruePosterior)> {
        let Simulated { dataset, generating, .. } = simulated;
        let truth = dataset.truth.as_ref().expect("a truth");
        let cells = (0..dataset.n_cells()).step_by(stride);
        let one = |n: usize| {
            let prior_mean = dataset.interventions.single(n).map_or(0.0, |a| truth.prior_means[a]);
            let batch = dataset.covariates.categorical.first().map_or(0, |batches| batches.codes[n] as usize);
            let mut x = vec![0.0; dataset.n_genes()];
            dataset.counts.row(n).for_each(|g, count| x[g] = count as f64);
            let log_density = |x: f64, log_mean: f64| match generating.dispersion {
                None => x * log_mean - log_mean.exp() - libm::lgamma(x + 1.0),
                // Counted failures against successes, as textbooks have it.
                Some(theta) => {
                    let p = theta / (theta + log_mean.exp());
                    libm::lgamma(x + theta) - libm::lgamma(theta) - libm::lgamma(x + 1.0)
                        + theta * p.ln()
                        + x * (1.0 - p).ln()
                }
            };
            let prior = |z: f64| {
                let at = |mean: f64| (-0.5 * (z - mean).powi(2)).exp() / std::f64::consts::TAU.sqrt();
                (1.0 - generating.escaped) * at(prior_mean) + generating.escaped * at(0.0)
            };
            // Some 5000 counts leave a posterior of width 0.01 or so: a step of 1e-4, 12 standard deviations beyond either prior.
            let mut sum = LogMeanExp::new();
            let (step, low) = (1e-4, prior_mean.min(0.0) - 12.0);
            let points = ((prior_mean.max(0.0) + 12.0 - low) / step) as usize;
            for i in 0..points {
                let z = low + (i as f64 + 0.5) * step;
                let log_rates = generating.mixing.log_rates(&[z], batch);
                let likelihood: f64 = x.iter().zip(log_rates).map(|(&x, log)| log_density(x, log)).sum();
                sum.add(likelihood + prior(z).ln());
            }
            (-sum.value() - (points as f64 * step).ln(), sample(dataset, truth, generating, n, 2000, 3))
        };
        cells.map(one).collect()
    }

    #[test]
    fn one_latent_agrees_with_quadrature() {
        let found = beside_quadrature(&screen(SimulationKind::SparseShift, 1, 6, 2), 7);
        let errors: Vec<f64> = found.iter().map(|(want, got)| got.nll - want).collect();
        // Weights of a one-dimensional normal proposal vary by a few tenths: 2000 of them are good to about 0.01.
        let worst = errors.iter().map(|error| error.abs()).fold(0.0, f64::max);
        assert!(errors.len() == 29 && worst < 0.06 && mean(&errors).abs() < 0.015, "{worst} {}", mean(&errors));
    }

    #[test]
    fn dispersion_batches_escapes_and_controls_agree_with_quadrature() {
        for kind in [SimulationKind::SparseShift, SimulationKind::Paper] {
            let settings = Simulation {
                kind,
                n_interventions: 5,
                n_latents: if kind == SimulationKind::Paper { 3 } else { 1 },
                n_genes: 6,
                cells_per_intervention: 40,
                depth: Some(200),
                shift: Some(2.0),
                dispersion: Some(3.0),
                n_batches: Some(3),
                escaped: Some(0.3),
                n_controls: Some(40),
                seed: 2,
                ..Simulation::default()
            };
            let simulated = simulate(&settings).expect("a simulation");
            if kind == SimulationKind::Paper {
                // Three latents are too many for a grid: more samples must agree with fewer.
                let truth = simulated.dataset.truth.as_ref().expect("a truth");
                let at = |particles: usize, seed: u64| {
                    let of = |n| sample(&simulated.dataset, truth, &simulated.generating, n, particles, seed).nll;
                    mean(&(0..240).step_by(11).map(of).collect::<Vec<f64>>())
                };
                assert!((at(PARTICLES, 1) - at(20 * PARTICLES, 2)).abs() < 0.03);
                continue;
            }
            let found = beside_quadrature(&simulated, 17);
            let errors: Vec<f64> = found.iter().map(|(want, got)| got.nll - want).collect();
            let worst = errors.iter().map(|error| error.abs()).fold(0.0, f64::max);
            assert!(errors.len() == 15 && worst < 0.06 && mean(&errors).abs() < 0.015, "{worst} {errors:?}");
            // Cells 204, 221 and 238 are controls, whose posterior is no mixture.
            assert!(found[..12].iter().all(|(_, got)| got.diagonal_gap.is_none()));
            assert!(found[12..].iter().all(|(_, got)| got.diagonal_gap.is_some()));
            let cells: Vec<usize> = (0..240).collect();
            let on = |threads| {
                let of = |team: &Team| latent_oracle(team, &simulated.dataset, &simulated.generating, &cells, 1);
                Team::with(threads, of).expect("known")
            };
            let got = on(1);
            assert_eq!(got, on(3));
            assert!(got.diagonal_gap.is_none() && got.r2 > 0.5 && got.r2 < 0.99, "{got:?}");
        }
    }

    #[test]
    fn posterior_means_of_one_latent_agree_with_quadrature_and_score_high() {
        let Simulated { dataset, generating, .. } = screen(SimulationKind::SparseShift, 1, 6, 2);
        let truth = dataset.truth.as_ref().expect("a truth");
        for n in (0..200).step_by(23) {
            let prior_mean = truth.prior_means[dataset.interventions.single(n).expect("one intervention")];
            let mut x = [0.0; 6];
            dataset.counts.row(n).for_each(|g, count| x[g] = count as f64);
            let log_joint = |z: f64| {
                let likelihood: f64 =
                    generating.mixing.log_rates(&[z], 0).iter().zip(x).map(|(log, x)| x * log - log.exp()).sum();
                likelihood - 0.5 * (z - prior_mean).powi(2)
            };
            let found = sample(&dataset, truth, &generating, n, 2000, 3);
            // A window of some twenty posterior deviations around the estimate.
            let (step, points) = (1e-4, 20_000);
            let at = |i: usize| found.mean[0] + (i as f64 - 0.5 * points as f64) * step;
            let largest = (0..points).map(|i| log_joint(at(i))).fold(f64::NEG_INFINITY, f64::max);
            let (mut mass, mut moment) = (0.0, 0.0);
            for i in 0..points {
                let weight = (log_joint(at(i)) - largest).exp();
                mass += weight;
                moment += weight * at(i);
            }
            assert!((found.mean[0] - moment / mass).abs() < 2e-3, "{n}: {} {}", found.mean[0], moment / mass);
            assert!(found.diagonal_gap.expect("a single normal").abs() < 1e-12, "one latent has no correlations");
        }
        let cells: Vec<usize> = (0..200).collect();
        let on =
            |threads| Team::with(threads, |team| latent_oracle(team, &dataset, &generating, &cells, 1).expect("known"));
        let got = on(1);
        assert_eq!(got, on(3));
        assert!(got.cells == 200 && got.r2 > 0.99 && got.mcc_pearson > 0.99, "{got:?}");
        assert!(latent_oracle(&Team::single(), &dataset, &generating, &[], 1).is_none());
    }

    #[test]
    fn a_diagonal_costs_what_correlations_are_worth() {
        // Precision [[1, 0.6], [0.6, 1]]: the divergence is -log(1 - 0.36) / 2.
        let factor = vec![1.0, 0.0, 0.6, 0.8];
        let normal = Normal { mode: vec![0.0; 2], factor, log_root_determinant: 0.8f64.ln() };
        assert!((normal.diagonal_gap() + 0.5 * 0.64f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn more_samples_change_little_and_wrong_prior_means_cost() {
        for kind in [SimulationKind::SparseShift, SimulationKind::Paper] {
            let Simulated { dataset, generating, .. } = screen(kind, 5, 40, 4);
            let mut truth = dataset.truth.clone().expect("a truth");
            let at = |truth: &Truth, particles: usize, seed: u64| {
                let cells: Vec<f64> =
                    (0..200).step_by(5).map(|n| sample(&dataset, truth, &generating, n, particles, seed).nll).collect();
                mean(&cells)
            };
            let (few, many) = (at(&truth, PARTICLES, 1), at(&truth, 20 * PARTICLES, 2));
            assert!((few - many).abs() < 0.05, "{kind:?}: {few} {many}");
            truth.prior_means.iter_mut().for_each(|m| *m += 1.0);
            assert!(at(&truth, PARTICLES, 1) > few + 1.0);
        }
    }

    #[test]
    fn the_jacobian_is_that_of_the_log_rates() {
        let hard = Simulation {
            n_interventions: 5,
            n_latents: 4,
            n_genes: 9,
            cells_per_intervention: 40,
            depth: Some(300),
            n_batches: Some(2),
            ..Simulation::default()
        };
        let screens = [
            (screen(SimulationKind::SparseShift, 4, 9, 6), 0),
            (screen(SimulationKind::Paper, 4, 9, 6), 0),
            (simulate(&hard).expect("a simulation"), 1),
        ];
        for (i, (Simulated { dataset, generating, .. }, batch)) in screens.into_iter().enumerate() {
            let z = &dataset.truth.as_ref().expect("a truth").latents[..4];
            let (mut log_rates, mut jacobian) = (vec![0.0; 9], vec![0.0; 36]);
            generating.mixing.log_rates_and_jacobian(z, batch, &mut log_rates, &mut jacobian);
            for (a, b) in log_rates.iter().zip(generating.mixing.log_rates(z, batch)) {
                assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()));
            }
            for k in 0..4 {
                let moved = |h: f64| {
                    let mut z = z.to_vec();
                    z[k] += h;
                    generating.mixing.log_rates(&z, batch)
                };
                let h = 1e-6;
                for (g, (up, down)) in moved(h).iter().zip(moved(-h)).enumerate() {
                    let want = (up - down) / (2.0 * h);
                    assert!((jacobian[k * 9 + g] - want).abs() < 1e-7 * (1.0 + want.abs()), "{i} {k} {g}");
                }
            }
        }
    }

    #[test]
    fn groups_count_alike_and_the_threads_do_not_matter() {
        let Simulated { dataset, generating, .. } = screen(SimulationKind::SparseShift, 3, 10, 8);
        let group = |cells: std::ops::Range<usize>| Group { name: String::new(), cells: cells.collect() };
        let groups = [group(120..160), group(160..171)];
        let on = |threads| Team::with(threads, |team| oracle(team, &dataset, &generating, &groups, 1).expect("known"));
        let got = on(1);
        assert_eq!(got, on(3));
        assert_eq!((got.cells, got.particles), (51, PARTICLES));
        let alone = |i: usize| oracle(&Team::single(), &dataset, &generating, &groups[i..=i], 1).expect("known").nll;
        assert!((got.nll - 0.5 * (alone(0) + alone(1))).abs() < 1e-9);
        assert!(oracle(&Team::single(), &dataset, &generating, &[], 1).is_none());
    }
}
