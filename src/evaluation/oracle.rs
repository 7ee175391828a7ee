//! What the true model of a simulation says about its cells: the floor of their negative log-likelihood, and how well
//! their latents can be known.
//!
//! Derivation: `derivations/iwelbo.md`, the section on the oracle.

use crate::data::dataset::{Dataset, Truth};
use crate::data::simulate::MixingNetwork;
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

/// The floor on the cells of `groups`: importance sampling with the true decoder and the true prior means.
///
/// To take seconds, each group is represented by its first cells, [`CELLS`] in all. `None` without a group, or where the
/// truth is unknown.
pub fn oracle(team: &Team, data: &Dataset, mixing: &MixingNetwork, groups: &[Group], seed: u64) -> Option<Oracle> {
    let truth = data.truth.as_ref()?;
    let each = CELLS.div_ceil(groups.len().max(1));
    let cells: Vec<Vec<usize>> = groups.iter().map(|group| group.cells.iter().copied().take(each).collect()).collect();
    if cells.is_empty() {
        return None;
    }
    let of_group = |cells: &Vec<usize>| {
        let mut values = vec![0.0; cells.len()];
        team.run(cells.len(), tiles(&mut values, 1), |i, value| {
            value[0] = sample(data, truth, mixing, cells[i], PARTICLES, seed).nll;
        });
        mean(&values)
    };
    let means: Vec<f64> = cells.iter().map(of_group).collect();
    Some(Oracle { nll: mean(&means), cells: cells.iter().map(Vec::len).sum(), particles: PARTICLES })
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
    /// Mean divergence, in nats, of the best normal posterior with a diagonal covariance from that with a full one.
    pub diagonal_gap: f64,
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
    mixing: &MixingNetwork,
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
        let cell = sample(data, truth, mixing, chosen[i], PARTICLES, seed);
        row[..l].copy_from_slice(&cell.mean);
        row[l] = cell.diagonal_gap;
    });
    let inferred: Vec<f64> = found.chunks_exact(l + 1).flat_map(|row| &row[..l]).copied().collect();
    let gaps: Vec<f64> = found.chunks_exact(l + 1).map(|row| row[l]).collect();
    let latents: Vec<f64> = chosen.iter().flat_map(|&n| &truth.latents[n * l..(n + 1) * l]).copied().collect();
    let (inferred, latents) = (Latents::new(&inferred, l), Latents::new(&latents, l));
    Some(LatentOracle {
        mcc_pearson: mcc(team, latents, inferred, Correlation::Pearson).mean,
        mcc_spearman: mcc(team, latents, inferred, Correlation::Spearman).mean,
        r2: linear_r2(inferred, latents),
        diagonal_gap: mean(&gaps),
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
    /// What the diagonal costs, Eq. (I10), nats.
    diagonal_gap: f64,
}

/// Importance sampling of cell `n` under the true model.
fn sample(
    data: &Dataset,
    truth: &Truth,
    mixing: &MixingNetwork,
    n: usize,
    particles: usize,
    seed: u64,
) -> TruePosterior {
    let l = truth.n_latents;
    let mut x = vec![0.0; data.n_genes()];
    let mut ln_factorials = 0.0;
    let ln_factorial = LnFactorial::new();
    data.counts.row(n).for_each(|g, count| {
        x[g] = count as f64;
        ln_factorials += ln_factorial.of(count);
    });
    let mut prior_mean = vec![0.0; l];
    let (interventions, doses) = data.interventions.row(n);
    for (&a, &dose) in interventions.iter().zip(doses) {
        let means = &truth.prior_means[a as usize * l..(a as usize + 1) * l];
        prior_mean.iter_mut().zip(means).for_each(|(p, m)| *p += dose as f64 * m);
    }
    let mut cell = Cell { mixing, x, prior_mean, scratch: Vec::new(), log_rates: vec![0.0; data.n_genes()] };
    // The true latents only start the search; the estimate is unbiased from wherever it starts.
    let normal = Normal::at_mode(&mut cell, &truth.latents[n * l..(n + 1) * l]);

    let parts = [1.0 - 1.0 / WIDE_EVERY as f64, 1.0 / WIDE_EVERY as f64];
    let (mut noise, mut words) = (vec![0.0; l], vec![0; l + 1]);
    let mut weights = LogMeanExp::new();
    let mut drawn: Vec<(f64, Vec<f64>)> = Vec::with_capacity(particles);
    for s in 0..particles {
        fill_normal(&mut noise, &mut words, &mut stream(seed, Purpose::Oracle, s as u64, n as u64));
        let width = WIDTHS[usize::from(s % WIDE_EVERY == WIDE_EVERY - 1)];
        noise.iter_mut().for_each(|e| *e *= width);
        let z = normal.at(&noise);
        // Density of the mixture; both parts share the distance, Eq. (I7).
        let squared: f64 = noise.iter().map(|e| e * e).sum();
        let mixture: f64 = parts
            .iter()
            .zip(WIDTHS)
            .map(|(share, c)| share * (-0.5 * squared / (c * c) - l as f64 * c.ln()).exp())
            .sum();
        let log_weight = cell.log_joint(&z) - normal.log_root_determinant - mixture.ln();
        weights.add(log_weight);
        drawn.push((log_weight, z));
    }
    // Self-normalised, Eq. (I9): the weights of all samples add up to 1.
    let total = weights.value() + (particles as f64).ln();
    let mut posterior_mean = vec![0.0; l];
    for (log_weight, z) in &drawn {
        let share = (log_weight - total).exp();
        posterior_mean.iter_mut().zip(z).for_each(|(m, z)| *m += share * z);
    }
    TruePosterior { nll: ln_factorials - weights.value(), mean: posterior_mean, diagonal_gap: normal.diagonal_gap() }
}

/// A cell under the true model.
struct Cell<'a> {
    mixing: &'a MixingNetwork,
    x: Vec<f64>,
    prior_mean: Vec<f64>,
    scratch: Vec<f64>,
    log_rates: Vec<f64>,
}

impl Cell<'_> {
    /// log p(x|z) + log p(z|a), without -log x! and -L/2 log(2 pi).
    fn log_joint(&mut self, z: &[f64]) -> f64 {
        self.mixing.log_rates_into(z, &mut self.scratch, &mut self.log_rates);
        let likelihood: f64 = self.x.iter().zip(&self.log_rates).map(|(x, log)| x * log - log.exp()).sum();
        let distance: f64 = z.iter().zip(&self.prior_mean).map(|(z, p)| (z - p) * (z - p)).sum();
        likelihood - 0.5 * distance
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
            cell.mixing.log_rates_and_jacobian(&z, &mut log_rates, &mut jacobian);
            let rates: Vec<f64> = log_rates.iter().map(|log| log.exp()).collect();
            let mut gradient = vec![0.0; l];
            for i in 0..l {
                let row = &jacobian[i * genes..(i + 1) * genes];
                let from_counts: f64 = row.iter().zip(&cell.x).zip(&rates).map(|((j, x), r)| j * (x - r)).sum();
                gradient[i] = from_counts - (z[i] - cell.prior_mean[i]);
                let weighted: Vec<f64> = row.iter().zip(&rates).map(|(j, r)| j * r).collect();
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
            n_targeted_latents: None,
        };
        simulate(&settings).expect("a simulation")
    }

    #[test]
    fn one_latent_agrees_with_quadrature() {
        let Simulated { dataset, mixing, .. } = screen(SimulationKind::SparseShift, 1, 6, 2);
        let truth = dataset.truth.as_ref().expect("a truth");
        let (mut worst, mut total) = (0f64, 0.0);
        for n in (0..200).step_by(7) {
            let a = dataset.interventions.single(n).expect("one intervention");
            let prior_mean = truth.prior_means[a];
            let mut x = [0.0; 6];
            let mut ln_factorials = 0.0;
            dataset.counts.row(n).for_each(|g, count| {
                x[g] = count as f64;
                ln_factorials += libm::lgamma(count as f64 + 1.0);
            });
            // Counts of some 5000 leave a posterior of width 0.01 or so: a step of 1e-4 over 12 standard deviations.
            let mut sum = LogMeanExp::new();
            let (step, range) = (1e-4, 12.0);
            let points = (2.0 * range / step) as usize;
            for i in 0..points {
                let z = prior_mean - range + (i as f64 + 0.5) * step;
                let likelihood: f64 =
                    mixing.log_rates(&[z]).iter().zip(x).map(|(log, x)| x * log - log.exp()).sum::<f64>();
                sum.add(likelihood - 0.5 * (z - prior_mean).powi(2));
            }
            let integral = sum.value() + (points as f64 * step).ln() - 0.5 * std::f64::consts::TAU.ln();
            let want = ln_factorials - integral;
            let got = sample(&dataset, truth, &mixing, n, 2000, 3).nll;
            worst = worst.max((got - want).abs());
            total += got - want;
        }
        // Weights of a one-dimensional normal proposal vary by a few tenths: 2000 of them are good to about 0.01.
        assert!(worst < 0.06 && (total / 29.0).abs() < 0.015, "{worst} {total}");
    }

    #[test]
    fn posterior_means_of_one_latent_agree_with_quadrature_and_score_high() {
        let Simulated { dataset, mixing, .. } = screen(SimulationKind::SparseShift, 1, 6, 2);
        let truth = dataset.truth.as_ref().expect("a truth");
        for n in (0..200).step_by(23) {
            let prior_mean = truth.prior_means[dataset.interventions.single(n).expect("one intervention")];
            let mut x = [0.0; 6];
            dataset.counts.row(n).for_each(|g, count| x[g] = count as f64);
            let log_joint = |z: f64| {
                let likelihood: f64 = mixing.log_rates(&[z]).iter().zip(x).map(|(log, x)| x * log - log.exp()).sum();
                likelihood - 0.5 * (z - prior_mean).powi(2)
            };
            let found = sample(&dataset, truth, &mixing, n, 2000, 3);
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
            assert!(found.diagonal_gap.abs() < 1e-12, "one latent has no correlations");
        }
        let cells: Vec<usize> = (0..200).collect();
        let on =
            |threads| Team::with(threads, |team| latent_oracle(team, &dataset, &mixing, &cells, 1).expect("known"));
        let got = on(1);
        assert_eq!(got, on(3));
        assert!(got.cells == 200 && got.r2 > 0.99 && got.mcc_pearson > 0.99, "{got:?}");
        assert!(latent_oracle(&Team::single(), &dataset, &mixing, &[], 1).is_none());
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
            let Simulated { dataset, mixing, .. } = screen(kind, 5, 40, 4);
            let mut truth = dataset.truth.clone().expect("a truth");
            let at = |truth: &Truth, particles: usize, seed: u64| {
                let cells: Vec<f64> =
                    (0..200).step_by(5).map(|n| sample(&dataset, truth, &mixing, n, particles, seed).nll).collect();
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
        for kind in [SimulationKind::SparseShift, SimulationKind::Paper] {
            let Simulated { dataset, mixing, .. } = screen(kind, 4, 9, 6);
            let z = &dataset.truth.as_ref().expect("a truth").latents[..4];
            let (mut log_rates, mut jacobian) = (vec![0.0; 9], vec![0.0; 36]);
            mixing.log_rates_and_jacobian(z, &mut log_rates, &mut jacobian);
            for (a, b) in log_rates.iter().zip(mixing.log_rates(z)) {
                assert!((a - b).abs() < 1e-12 * (1.0 + b.abs()));
            }
            for k in 0..4 {
                let moved = |h: f64| {
                    let mut z = z.to_vec();
                    z[k] += h;
                    mixing.log_rates(&z)
                };
                let h = 1e-6;
                for (g, (up, down)) in moved(h).iter().zip(moved(-h)).enumerate() {
                    let want = (up - down) / (2.0 * h);
                    assert!((jacobian[k * 9 + g] - want).abs() < 1e-7 * (1.0 + want.abs()), "{kind:?} {k} {g}");
                }
            }
        }
    }

    #[test]
    fn groups_count_alike_and_the_threads_do_not_matter() {
        let Simulated { dataset, mixing, .. } = screen(SimulationKind::SparseShift, 3, 10, 8);
        let group = |cells: std::ops::Range<usize>| Group { name: String::new(), cells: cells.collect() };
        let groups = [group(120..160), group(160..171)];
        let on = |threads| Team::with(threads, |team| oracle(team, &dataset, &mixing, &groups, 1).expect("known"));
        let got = on(1);
        assert_eq!(got, on(3));
        assert_eq!((got.cells, got.particles), (51, PARTICLES));
        let alone = |i: usize| oracle(&Team::single(), &dataset, &mixing, &groups[i..=i], 1).expect("known").nll;
        assert!((got.nll - 0.5 * (alone(0) + alone(1))).abs() < 1e-9);
        assert!(oracle(&Team::single(), &dataset, &mixing, &[], 1).is_none());
    }
}
