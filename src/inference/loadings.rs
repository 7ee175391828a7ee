//! What each latent does to each gene: decoder differences along a latent (`derivations/loadings.md`), and how well counts
//! could tell (`derivations/gene_effects.md`).

use crate::data::minibatch::Batch;
use crate::inference::Inference;
use crate::numerics::real::Real;
use crate::numerics::spread::evenly_spaced;
use std::f64::consts::LN_2;

/// Half of the distance over which the decoder is differenced, in units of the latent's prior deviation.
pub const DELTA: f64 = 1.0;

/// At most so many cells are averaged over.
pub const MOST_CELLS: usize = 1000;

/// At most `most` of `cells`, evenly spaced, so that the choice needs no random numbers.
pub fn spread(cells: &[usize], most: usize) -> Vec<usize> {
    evenly_spaced(cells.len(), most).map(|place| cells[place]).collect()
}

/// What each latent does to each gene.
#[derive(Debug, Clone, PartialEq)]
pub struct Loadings {
    /// Change of the gene's log2 rate per unit of the latent, Eq. (D2): genes x L.
    pub log2_fold_change: Vec<f64>,
    /// Its standard error, Eq. (Ge4), in the same unit: genes x L; infinite where counts say nothing.
    pub standard_error: Vec<f64>,
}

impl<R: Real> Inference<'_, R> {
    /// The loadings, averaged over `cells`, which stand for `n_cells` of a screen.
    ///
    /// `latents` holds the posterior means of `cells` (cells x L); their counts are not read.
    pub fn gene_loadings(&mut self, cells: &[usize], latents: &[R], n_cells: usize) -> Loadings {
        let (g, l) = (self.network.architecture.n_genes, self.network.architecture.n_latents);
        let likelihood = self.network.architecture.likelihood;
        let dispersion = likelihood.inverse_thetas(self.network.log_dispersion(), g);
        let mut information = Information::new(dispersion, center(latents, l));
        let mut sums = vec![0.0; g * l];
        self.network.prepare_evaluation(self.workspace);
        let (mut z, mut means, mut here) = (Vec::new(), vec![0.0; g], vec![0.0; l]);
        let capacity = self.workspace.capacity();
        for (cells, latents) in cells.chunks(capacity).zip(latents.chunks(capacity * l)) {
            let batch = Batch::new(self.data, cells);
            let log_rates = self.network.log_rates(self.team, self.workspace, batch, latents);
            for ((&cell, row), latent) in cells.iter().zip(log_rates.chunks_exact(g)).zip(latents.chunks_exact(l)) {
                let library = self.data.library[cell];
                means.iter_mut().zip(row).for_each(|(mean, rate)| *mean = library * Real::exp(rate.to_f64()));
                here.iter_mut().zip(latent).for_each(|(wide, z)| *wide = z.to_f64());
                information.add(&means, &here);
            }
            for k in 0..l {
                for sign in [1.0, -1.0] {
                    z.clear();
                    z.extend_from_slice(latents);
                    z.iter_mut().skip(k).step_by(l).for_each(|z| *z += R::from_f64(sign * DELTA));
                    let log_rates = self.network.log_rates(self.team, self.workspace, batch, &z);
                    for row in log_rates.chunks_exact(g) {
                        for (gene, log_rate) in row.iter().enumerate() {
                            sums[gene * l + k] += sign * log_rate.to_f64();
                        }
                    }
                }
            }
        }
        let n = cells.len().max(1) as f64;
        let scale = 1.0 / (2.0 * DELTA * LN_2 * n);
        sums.iter_mut().for_each(|sum| *sum *= scale);
        Loadings { log2_fold_change: sums, standard_error: information.standard_errors(n_cells as f64 / n) }
    }
}

/// Mean of each latent over cells (cells x L).
fn center<R: Real>(latents: &[R], l: usize) -> Vec<f64> {
    let mut sums = vec![0.0; l];
    latents.chunks_exact(l).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, z)| *sum += z.to_f64()));
    let n = (latents.len() / l).max(1) as f64;
    sums.iter_mut().for_each(|sum| *sum /= n);
    sums
}

/// The sums over cells in Eq. (Ge3), with latents counted from a point near their mean so that few digits cancel.
struct Information {
    /// 1 / theta of each gene.
    inverse_thetas: Vec<f64>,
    /// Where latents are counted from, L.
    origin: Vec<f64>,
    /// Sums of the weights, per gene.
    weights: Vec<f64>,
    /// Sums of weight x latent and of weight x latent^2, genes x L.
    moments: Vec<[f64; 2]>,
}

impl Information {
    fn new(inverse_thetas: Vec<f64>, origin: Vec<f64>) -> Self {
        let (g, l) = (inverse_thetas.len(), origin.len());
        Self { inverse_thetas, origin, weights: vec![0.0; g], moments: vec![[0.0; 2]; g * l] }
    }

    /// Adds a cell: the mean count of each gene, and its latents.
    fn add(&mut self, means: &[f64], latents: &[f64]) {
        let l = self.origin.len();
        let genes = self.weights.iter_mut().zip(self.moments.chunks_exact_mut(l));
        for ((mean, inverse_theta), (total, moments)) in means.iter().zip(&self.inverse_thetas).zip(genes) {
            // Eq. (Ge2).
            let weight = mean / (1.0 + mean * inverse_theta);
            *total += weight;
            for ((moments, z), origin) in moments.iter_mut().zip(latents).zip(&self.origin) {
                let z = z - origin;
                moments[0] += weight * z;
                moments[1] += weight * z * z;
            }
        }
    }

    /// Standard errors in log2, Eq. (Ge4), genes x L, where each cell stands for `copies`.
    fn standard_errors(&self, copies: f64) -> Vec<f64> {
        let l = self.origin.len();
        let of_gene = |(&total, moments): (&f64, &[[f64; 2]])| {
            let error = move |&[first, second]: &[f64; 2]| {
                let information = if total > 0.0 { second - first * first / total } else { 0.0 };
                // Nothing but rounding is left where the latent is the same in all cells.
                let seen = information > 1e-12 * second;
                if seen { 1.0 / (LN_2 * (copies * information).sqrt()) } else { f64::INFINITY }
            };
            moments.iter().map(error).collect::<Vec<f64>>()
        };
        self.weights.iter().zip(self.moments.chunks_exact(l)).flat_map(of_gene).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Dataset;
    use crate::data::simulate::{Simulation, simulate};
    use crate::model::architecture::Architecture;
    use crate::model::likelihood::Likelihood;
    use crate::model::network::Network;
    use crate::model::workspace::Workspace;
    use crate::parallel::team::Team;
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    fn screen() -> Dataset {
        let settings =
            Simulation { n_interventions: 4, n_genes: 7, cells_per_intervention: 10, ..Simulation::default() };
        simulate(&settings).expect("a screen").dataset
    }

    #[test]
    fn cells_are_spread_evenly() {
        let cells: Vec<usize> = (100..200).collect();
        assert_eq!(spread(&cells, 4), [100, 125, 150, 175]);
        assert_eq!(spread(&cells, 1000), cells);
        assert!(spread(&[], 5).is_empty());
    }

    /// Without hidden non-linearity the logits are linear in z, and loadings have a closed form up to the constant of
    /// the softmax, which differences between genes do not see.
    #[test]
    fn a_linear_decoder_gives_its_own_weights() {
        let data = screen();
        let architecture = Architecture { n_hidden: 6, n_layers: 1, ..Architecture::new(7, 4, 3) };
        let mut network = Network::<f64>::new(architecture, 5);
        let layer = network.tensors.decoder[0].clone();
        // A bias large enough that every unit stays in the linear part of its ReLU.
        network.parameters[&layer.linear.bias].fill(50.0);
        let head = network.tensors.decoder_output.clone();
        let weight: Vec<f64> = network.parameters[&layer.linear.weight].to_vec();
        let output: Vec<f64> = network.parameters[&head.weight].to_vec();
        // Running statistics start at mean 0 and variance 1, so the normalisation is a known factor.
        let factor = 1.0 / (1.0 + crate::model::layers::batch_norm::EPSILON).sqrt();
        let slope = |g: usize, k: usize| -> f64 {
            (0..6).map(|h| output[g * 6 + h] * factor * weight[h * 3 + k]).sum::<f64>() / std::f64::consts::LN_2
        };
        let latents: Vec<f64> = (0..data.n_cells() * 3).map(|i| (i as f64 * 0.7).sin()).collect();
        let mut workspace = Workspace::new(&network.architecture, 16, 1);
        let cells: Vec<usize> = (0..data.n_cells()).collect();
        let loadings = Team::with(2, |team| {
            let mut inference = Inference { team, network: &network, data: &data, workspace: &mut workspace };
            inference.gene_loadings(&cells, &latents, cells.len()).log2_fold_change
        });
        for k in 0..3 {
            for g in 1..7 {
                let found = loadings[g * 3 + k] - loadings[k];
                let wanted = slope(g, k) - slope(0, k);
                assert!((found - wanted).abs() < 1e-10, "gene {g}, latent {k}: {found} {wanted}");
            }
        }
    }

    /// Two groups of cells, latent 1 and -1, Poisson: the textbook's error of a log ratio of two rates is
    /// sqrt(1 / total + 1 / total'), over a distance of two units.
    #[test]
    fn the_standard_error_of_two_groups_is_that_of_a_ratio_of_rates() {
        for (likelihood, theta) in [(Likelihood::Poisson, f64::INFINITY), (Likelihood::NegativeBinomial, 0.5)] {
            let inverse = likelihood.inverse_thetas(&[theta.ln()], 1);
            let mut information = Information::new(inverse, vec![0.2, 0.0]);
            for _ in 0..10 {
                information.add(&[3.0], &[1.0, 0.7]);
            }
            for _ in 0..30 {
                information.add(&[0.25], &[-1.0, 0.7]);
            }
            let precision = |mean: f64, n: f64| n * mean / (1.0 + mean / theta);
            let wanted = (1.0 / precision(3.0, 10.0) + 1.0 / precision(0.25, 30.0)).sqrt() / (2.0 * LN_2);
            let found = information.standard_errors(1.0);
            assert!((found[0] / wanted - 1.0).abs() < 1e-12, "{found:?} {wanted}");
            // The other latent is the same in all cells.
            assert_eq!(found[1], f64::INFINITY);
            // Each cell stands for four: half the error.
            assert!((information.standard_errors(4.0)[0] / wanted - 0.5).abs() < 1e-12);
        }
    }

    /// The slope of log mean in z that fits `counts` best, the intercept being fitted too, by Fisher scoring.
    fn fitted_slope(z: &[f64], counts: &[f64], inverse_theta: f64, start: [f64; 2]) -> f64 {
        let [mut a, mut b] = start;
        for _ in 0..12 {
            let (mut i, mut score) = ([0.0; 3], [0.0; 2]);
            for (z, x) in z.iter().zip(counts) {
                let mean = (a + b * z).exp();
                let weight = mean / (1.0 + mean * inverse_theta);
                let residual = weight * (x - mean) / mean;
                score = [score[0] + residual, score[1] + residual * z];
                i = [i[0] + weight, i[1] + weight * z, i[2] + weight * z * z];
            }
            let determinant = i[0] * i[2] - i[1] * i[1];
            a += (i[2] * score[0] - i[1] * score[1]) / determinant;
            b += (i[0] * score[1] - i[1] * score[0]) / determinant;
        }
        b
    }

    #[test]
    fn slopes_fitted_to_drawn_counts_spread_as_their_standard_error_says() {
        let (n, draws) = (400, 1500);
        let z: Vec<f64> = (0..n).map(|i| 1.5 * (i as f64 * 0.7).sin() + 0.5 * (i as f64 * 1.3).cos()).collect();
        for (likelihood, log_theta, [a, b]) in [
            (Likelihood::NegativeBinomial, 1.5_f64.ln(), [0.5, 0.4]),
            (Likelihood::NegativeBinomial, 4.0_f64.ln(), [-1.0, -0.6]),
            (Likelihood::Poisson, 0.0, [-0.5, 0.5]),
        ] {
            let inverse = likelihood.inverse_thetas(&[log_theta], 1)[0];
            let mut information = Information::new(vec![inverse], vec![0.0]);
            z.iter().for_each(|&z| information.add(&[(a + b * z).exp()], &[z]));
            let wanted = information.standard_errors(1.0)[0] * LN_2;
            let sampler = likelihood.sampler(&[log_theta]);
            let mut random = ChaCha8Rng::seed_from_u64(5);
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..draws {
                let counts: Vec<f64> =
                    z.iter().map(|z| f64::from(sampler.draw(0, (a + b * z).exp(), &mut random))).collect();
                let error = fitted_slope(&z, &counts, inverse, [a, b]) - b;
                sum += error;
                squares += error * error;
            }
            let n = draws as f64;
            let spread = (squares / n - (sum / n).powi(2)).sqrt();
            // A deviation of n draws is known up to 1 / sqrt(2 n) of itself: four times that.
            assert!((spread / wanted - 1.0).abs() < 4.0 / (2.0 * n).sqrt(), "{likelihood:?}: {spread} {wanted}");
        }
    }

    #[test]
    fn standard_errors_are_those_of_the_decoded_means_whatever_the_batches_and_threads() {
        let data = screen();
        let network = Network::<f64>::new(Architecture { n_hidden: 8, ..Architecture::new(7, 4, 3) }, 5);
        let cells: Vec<usize> = (0..data.n_cells()).collect();
        let latents: Vec<f64> = (0..data.n_cells() * 3).map(|i| (i as f64 * 0.7).sin()).collect();
        let of = |threads, capacity| {
            let mut workspace = Workspace::new(&network.architecture, capacity, 1);
            Team::with(threads, |team| {
                let mut inference = Inference { team, network: &network, data: &data, workspace: &mut workspace };
                inference.gene_loadings(&cells, &latents, 4 * cells.len())
            })
        };
        let found = of(1, 64);
        assert_eq!(found, of(3, 64));
        assert_eq!(found.standard_error, of(2, 16).standard_error);
        let mut workspace = Workspace::new(&network.architecture, 64, 1);
        network.prepare_evaluation(&mut workspace);
        let rates =
            Team::with(1, |team| network.log_rates(team, &mut workspace, Batch::new(&data, &cells), &latents).to_vec());
        let theta: Vec<f64> = network.log_dispersion().iter().map(|t| t.exp()).collect();
        for (g, theta) in theta.iter().enumerate() {
            let mean = |n: usize| data.library[n] * rates[n * 7 + g].exp();
            // The variance of a count is mean + mean^2 / theta, and the slope of its mean in log mean is the mean.
            let weight: Vec<f64> =
                cells.iter().map(|&n| mean(n).powi(2) / (mean(n) + mean(n).powi(2) / theta)).collect();
            for k in 0..3 {
                let total: f64 = weight.iter().sum();
                let center = cells.iter().map(|&n| weight[n] * latents[n * 3 + k]).sum::<f64>() / total;
                let information: f64 = cells.iter().map(|&n| weight[n] * (latents[n * 3 + k] - center).powi(2)).sum();
                let wanted = 1.0 / (LN_2 * (4.0 * information).sqrt());
                let found = found.standard_error[g * 3 + k];
                assert!((found / wanted - 1.0).abs() < 1e-9, "gene {g}, latent {k}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn log_rates_of_a_cell_sum_to_one_and_threads_change_nothing() {
        let data = screen();
        let network = Network::<f32>::new(Architecture { n_hidden: 8, ..Architecture::new(7, 4, 3) }, 5);
        let cells: Vec<usize> = (0..data.n_cells()).collect();
        let latents: Vec<f32> = (0..data.n_cells() * 3).map(|i| (i as f32 * 0.7).sin()).collect();
        let of = |threads| {
            let mut workspace = Workspace::new(&network.architecture, 64, 1);
            network.prepare_evaluation(&mut workspace);
            Team::with(threads, |team| {
                network.log_rates(team, &mut workspace, Batch::new(&data, &cells), &latents).to_vec()
            })
        };
        let rates = of(1);
        for row in rates.chunks_exact(7) {
            let total: f64 = row.iter().map(|r| (*r as f64).exp()).sum();
            assert!((total - 1.0).abs() < 1e-5, "{total}");
        }
        assert_eq!(rates, of(3));
    }
}
