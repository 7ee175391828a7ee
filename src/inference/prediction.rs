//! What cells under interventions are expected to look like: decoded from the same cells, each moved by the prior mean of a
//! combination. Derivation: `derivations/predictions.md`.

use rand_distr::{Distribution, StandardNormal};

use crate::data::dataset::Dataset;
use crate::data::minibatch::Batch;
use crate::inference::evaluation_workspace;
use crate::model::network::Network;
use crate::model::workspace::Workspace;
use crate::numerics::random::{SamplerPurpose, sampler_stream};
use crate::numerics::real::Real;
use crate::parallel::team::{Team, tiles};

/// Total count of a cell that expression is given for.
pub const TOTAL: f64 = 1e4;
/// Genes of a piece of work.
const GENES_PER_TILE: usize = 64;

/// Cells under no intervention, from which predictions begin.
#[derive(Debug, Clone)]
pub struct Basis<'a> {
    /// Their covariates and size factors.
    pub data: &'a Dataset,
    /// Which of these cells they are; a cell may come again.
    pub cells: &'a [usize],
    /// Their latents, cells x L.
    pub latents: &'a [f64],
}

/// Latents of `n` cells under no intervention as the prior has them: N(0, I), n x L, a stream of `seed` each.
pub fn prior_latents(n: usize, n_latents: usize, seed: u64) -> Vec<f64> {
    let mut latents = Vec::with_capacity(n * n_latents);
    for cell in 0..n {
        let mut random = sampler_stream(seed, SamplerPurpose::PredictedLatents, cell);
        latents.extend((0..n_latents).map(|_| -> f64 { StandardNormal.sample(&mut random) }));
    }
    latents
}

/// Counts of a cell to ln(1 + 1e4 x / t), t being their total, in place; a cell without counts stays at 0.
pub fn log_normalise(counts: &mut [f64]) {
    let total: f64 = counts.iter().sum();
    if total > 0.0 {
        counts.iter_mut().for_each(|x| *x = Real::ln(1.0 + TOTAL * *x / total));
    }
}

/// A network that predicts.
#[derive(Debug)]
pub struct Predictor<'a, R> {
    team: &'a Team<'a>,
    network: &'a Network<R>,
    basis: Basis<'a>,
    workspace: Workspace<R>,
}

impl<'a, R: Real> Predictor<'a, R> {
    /// Of a network, with the cells that its predictions begin from.
    pub fn new(team: &'a Team<'a>, network: &'a Network<R>, basis: Basis<'a>) -> Self {
        let mut workspace = evaluation_workspace(network, basis.data);
        network.prepare_evaluation(&mut workspace);
        Self { team, network, basis, workspace }
    }

    /// Decodes the cells of the basis moved by each of the `means` (one of L a combination), and calls `pass(team, first, rows)` for
    /// one block of rates (rows x G) after another; row `first + i` is cell (first + i) mod cells of combination (first + i) / cells.
    fn decode(&mut self, means: &[Vec<f64>], mut pass: impl FnMut(&Team, usize, &[R])) {
        let (l, n) = (self.network.architecture.n_latents, self.basis.cells.len());
        let g = self.network.architecture.n_genes;
        let capacity = self.workspace.capacity();
        let (mut z, mut cells) = (Vec::new(), Vec::new());
        for first in (0..means.len() * n).step_by(capacity) {
            let rows = first..(first + capacity).min(means.len() * n);
            z.clear();
            cells.clear();
            for row in rows {
                let (mean, cell) = (&means[row / n], row % n);
                cells.push(self.basis.cells[cell]);
                let start = &self.basis.latents[cell * l..(cell + 1) * l];
                z.extend(start.iter().zip(mean).map(|(start, mean)| R::from_f64(start + mean)));
            }
            let batch = Batch::new(self.basis.data, &cells);
            let rates = self.network.rates(self.team, &mut self.workspace, batch, &z);
            pass(self.team, first, &rates[..cells.len() * g]);
        }
    }

    /// Mean rate of each gene over the cells of the basis, moved by each of the prior `means`: combinations x G, Eq. (Cb3).
    pub fn mean_rates(&mut self, means: &[Vec<f64>]) -> Vec<f64> {
        let (g, n) = (self.network.architecture.n_genes, self.basis.cells.len());
        // Gene by gene, so that a thread has the sums of its genes: genes x combinations.
        let mut sums = vec![0.0; g * means.len()];
        let n_combinations = means.len();
        self.decode(means, |team, first, rates| {
            let output = tiles(&mut sums, GENES_PER_TILE * n_combinations);
            team.run(g.div_ceil(GENES_PER_TILE), output, |tile, sums| {
                let from = tile * GENES_PER_TILE;
                let mut total = [0.0; GENES_PER_TILE];
                let mut rows = rates.chunks_exact(g).enumerate().peekable();
                while let Some((i, row)) = rows.next() {
                    let genes = &row[from..(from + GENES_PER_TILE).min(g)];
                    total.iter_mut().zip(genes).for_each(|(total, rate)| *total += rate.to_f64());
                    let combination = (first + i) / n;
                    if (first + i + 1).is_multiple_of(n) || rows.peek().is_none() {
                        for (sums, total) in sums.chunks_exact_mut(n_combinations).zip(&mut total) {
                            sums[combination] += std::mem::take(total);
                        }
                    }
                }
            });
        });
        let mean = |at: usize| sums[at % g * n_combinations + at / g] / n as f64;
        (0..g * n_combinations).map(mean).collect()
    }

    /// Mean over the cells of the basis, moved by each of the prior `means`, of ln(1 + 1e4 x / t), x being counts drawn about the
    /// rates at the cell's size factor and t their total: combinations x G, Eq. (Cb6). The streams of `seed` are those of the cells, the
    /// same for all combinations.
    pub fn mean_log_expression(&mut self, means: &[Vec<f64>], seed: u64) -> Vec<f64> {
        let (g, n) = (self.network.architecture.n_genes, self.basis.cells.len());
        let mut sums = vec![0.0; means.len() * g];
        self.each_log_expression(means, seed, |row, drawn| {
            let sums = &mut sums[row / n * g..][..g];
            sums.iter_mut().zip(drawn).for_each(|(sum, drawn)| *sum += drawn);
        });
        sums.iter_mut().for_each(|sum| *sum /= n as f64);
        sums
    }

    /// ln(1 + 1e4 x / t) of the first `n` cells of the basis (of all, if it has no more), moved by a prior `mean`: cells x G in single
    /// precision, drawn as [`Predictor::mean_log_expression`] does.
    pub fn log_expression_of_cells(&mut self, mean: &[f64], n: usize, seed: u64) -> Vec<f32> {
        let all = self.basis.clone();
        let n = n.min(all.cells.len());
        let l = self.network.architecture.n_latents;
        self.basis = Basis { cells: &all.cells[..n], latents: &all.latents[..n * l], ..all };
        let mut values = Vec::with_capacity(n * self.network.architecture.n_genes);
        self.each_log_expression(&[mean.to_vec()], seed, |_, row| values.extend(row.iter().map(|&x| x as f32)));
        self.basis = all;
        values
    }

    /// Calls `pass(row, log expression)` for the counts drawn of each cell of the basis, moved by each of the `means`.
    fn each_log_expression(&mut self, means: &[Vec<f64>], seed: u64, mut pass: impl FnMut(usize, &[f64])) {
        let (g, n) = (self.network.architecture.n_genes, self.basis.cells.len());
        let sampler = self.network.count_sampler();
        let library: Vec<f64> = self.basis.cells.iter().map(|&cell| self.basis.data.library[cell]).collect();
        let mut drawn: Vec<f64> = Vec::new();
        self.decode(means, |team, first, rates| {
            drawn.clear();
            drawn.resize(rates.len(), 0.0);
            team.run(rates.len() / g, tiles(&mut drawn, g), |i, drawn| {
                let cell = (first + i) % n;
                let mut random = sampler_stream(seed, SamplerPurpose::PredictedCounts, cell);
                for (gene, (drawn, rate)) in drawn.iter_mut().zip(&rates[i * g..(i + 1) * g]).enumerate() {
                    *drawn = f64::from(sampler.draw(gene, library[cell] * rate.to_f64(), &mut random));
                }
                log_normalise(drawn);
            });
            drawn.chunks_exact(g).enumerate().for_each(|(i, drawn)| pass(first + i, drawn));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::five_genes;
    use crate::model::architecture::Architecture;
    use crate::model::likelihood::Likelihood;

    #[test]
    fn means_are_those_of_single_cells_at_any_number_of_threads() {
        let data = five_genes();
        let network = Network::<f64>::new(Architecture { n_hidden: 8, ..Architecture::new(5, 2, 2) }, 3);
        let cells: Vec<usize> = (0..300).map(|n| n % 12).collect();
        let latents = prior_latents(300, 2, 7);
        let basis = Basis { data: &data, cells: &cells, latents: &latents };
        let means = [vec![0.0, 0.0], vec![1.5, -0.5], vec![-2.0, 4.0]];
        let on = |threads| {
            Team::with(threads, |team| {
                let mut predictor = Predictor::new(team, &network, basis.clone());
                (predictor.mean_rates(&means), predictor.mean_log_expression(&means, 1))
            })
        };
        let (rates, logs) = on(1);
        assert_eq!((rates.clone(), logs.clone()), on(3));
        // One cell at a time, and counts drawn again.
        let team = Team::single();
        let mut workspace = evaluation_workspace(&network, &data);
        network.prepare_evaluation(&mut workspace);
        let sampler = Likelihood::NegativeBinomial.sampler(network.log_dispersion());
        for (c, mean) in means.iter().enumerate() {
            let (mut want, mut want_log) = ([0.0; 5], [0.0; 5]);
            for (i, &cell) in cells.iter().enumerate() {
                let z: Vec<f64> = (0..2).map(|k| latents[i * 2 + k] + mean[k]).collect();
                let log_rates = network.log_rates(&team, &mut workspace, Batch::new(&data, &[cell]), &z);
                let mut random = sampler_stream(1, SamplerPurpose::PredictedCounts, i);
                let rates: Vec<f64> = log_rates.iter().map(|log| log.exp()).collect();
                let draw = |(gene, rate): (usize, &f64)| sampler.draw(gene, data.library[cell] * rate, &mut random);
                let counts: Vec<f64> = rates.iter().enumerate().map(draw).map(f64::from).collect();
                let total: f64 = counts.iter().sum();
                for gene in 0..5 {
                    want[gene] += rates[gene] / 300.0;
                    want_log[gene] += (1.0 + 1e4 * counts[gene] / total.max(1.0)).ln() / 300.0;
                }
            }
            for gene in 0..5 {
                assert!((rates[c * 5 + gene] / want[gene] - 1.0).abs() < 1e-12);
                // A count may differ where a rate does in its last digit.
                assert!((logs[c * 5 + gene] - want_log[gene]).abs() < 0.02 * want_log[gene].max(0.1), "{c} {gene}");
            }
        }
    }
}
