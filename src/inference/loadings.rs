//! What each latent does to each gene: decoder differences along a latent. Derivation: `derivations/loadings.md`.

use crate::data::minibatch::Batch;
use crate::inference::Inference;
use crate::numerics::real::Real;
use crate::numerics::spread::evenly_spaced;

/// Half of the distance over which the decoder is differenced, in units of the latent's prior deviation.
pub const DELTA: f64 = 1.0;

/// At most so many cells are averaged over.
pub const MOST_CELLS: usize = 1000;

/// At most `most` of `cells`, evenly spaced, so that the choice needs no random numbers.
pub fn spread(cells: &[usize], most: usize) -> Vec<usize> {
    evenly_spaced(cells.len(), most).map(|place| cells[place]).collect()
}

impl<R: Real> Inference<'_, R> {
    /// Change of each gene's log2 expression rate per unit of each latent, Eq. (D2): genes x L.
    ///
    /// The mean runs over `cells`, whose posterior means `latents` holds (cells x L); their counts are not read.
    pub fn gene_loadings(&mut self, cells: &[usize], latents: &[R]) -> Vec<f64> {
        let (g, l) = (self.network.architecture.n_genes, self.network.architecture.n_latents);
        let mut sums = vec![0.0; g * l];
        self.network.prepare_evaluation(self.workspace);
        let mut z = Vec::new();
        let capacity = self.workspace.capacity();
        for (cells, latents) in cells.chunks(capacity).zip(latents.chunks(capacity * l)) {
            let batch = Batch::new(self.data, cells);
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
        let scale = 1.0 / (2.0 * DELTA * std::f64::consts::LN_2 * cells.len().max(1) as f64);
        sums.iter_mut().for_each(|sum| *sum *= scale);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Dataset;
    use crate::data::simulate::{Simulation, simulate};
    use crate::model::architecture::Architecture;
    use crate::model::network::Network;
    use crate::model::workspace::Workspace;
    use crate::parallel::team::Team;

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
            inference.gene_loadings(&cells, &latents)
        });
        for k in 0..3 {
            for g in 1..7 {
                let found = loadings[g * 3 + k] - loadings[k];
                let wanted = slope(g, k) - slope(0, k);
                assert!((found - wanted).abs() < 1e-10, "gene {g}, latent {k}: {found} {wanted}");
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
