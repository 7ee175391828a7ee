//! What a trained model says about a screen, in the terms of its users: targets, genes of each latent, cells.

use crate::data::dataset::Dataset;
use crate::data::minibatch::Minibatches;
use crate::error::Result;
use crate::evaluation::loadings::{MOST_CELLS, gene_loadings, spread};
use crate::model::network::Network;
use crate::numerics::real::Real;
use crate::numerics::team::Team;
use crate::report::tables::{CellRecord, Nearest, Split, Target, targets};
use crate::training::trainer::evaluation_workspace;

/// Which cells were trained on, watched, held out; and which interventions were trained on.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Cells trained on.
    pub train: &'a [usize],
    /// Cells watched.
    pub validation: &'a [usize],
    /// Whether each intervention was trained on.
    pub trained: &'a [bool],
}

/// What a trained model says about a screen.
#[derive(Debug, Clone, PartialEq)]
pub struct Interpretation {
    /// Probabilities of the masks, interventions x L, for models with masks.
    pub masks: Option<Vec<f64>>,
    /// Shifts, interventions x L, for models with shifts.
    pub shifts: Option<Vec<f64>>,
    /// Likely pairs of intervention and latent.
    pub targets: Vec<Target>,
    /// Change of each gene's log2 rate per unit of each latent, genes x L, Eq. (D2).
    pub loadings: Vec<f64>,
    /// A record per cell.
    pub cells: Vec<CellRecord>,
    /// Posterior mean of each cell, cells x L.
    pub latents: Vec<f64>,
}

impl Interpretation {
    /// Reads `network` out; `latents` are the posterior means of all cells of `data`, cells x L.
    pub fn new<R: Real>(
        team: &Team,
        network: &Network<R>,
        data: &Dataset,
        parts: Parts,
        latents: &[R],
        seed: u64,
    ) -> Result<Self> {
        let l = network.architecture.n_latents;
        let wide = |values: &[R]| values.iter().map(|v| v.f64()).collect::<Vec<f64>>();
        let masks = network.mask_probabilities().map(|masks| wide(&masks));
        let shifts = network.tensors.shift.as_ref().map(|shift| wide(&network.parameters[shift]));
        let targets = shifts.as_ref().map_or(Vec::new(), |shifts| targets(l, masks.as_deref(), shifts, parts.trained));

        let mut workspace = evaluation_workspace(network, data);
        // Decoded from latents, without counts: the first process has all it needs, and is the one that writes.
        let chosen = if team.ranks().is_first() { spread(parts.train, MOST_CELLS) } else { Vec::new() };
        let loadings = gene_loadings(team, network, &mut workspace, data, &chosen, latents);

        let mut split = vec![Split::HeldOut; data.n_cells()];
        parts.train.iter().for_each(|&n| split[n] = Split::Train);
        parts.validation.iter().for_each(|&n| split[n] = Split::Validation);
        let latents = wide(latents);
        let priors = priors(&targets, l, data.n_interventions());
        let nearest = |n: usize| match shifts {
            None => Nearest::Unknown,
            Some(_) => nearest(&latents[n * l..(n + 1) * l], &priors),
        };
        let all: Vec<usize> = (0..data.n_cells()).collect();
        let own = team.ranks().own(&all);
        // Of each cell: two parts of its bound, its total count and its number of genes.
        let mut figures = Vec::with_capacity(4 * own.len());
        network.prepare_evaluation(&mut workspace);
        let mut batches = Minibatches::of_cells(data, &own, workspace.capacity())?;
        while let Some(batch) = batches.next()? {
            let (reconstruction, kl) = network.cell_elbo(team, &mut workspace, batch, seed);
            for (i, (&reconstruction, &kl)) in reconstruction.iter().zip(kl).enumerate() {
                let row = batch.row(i);
                figures.extend([reconstruction, kl, row.sum() as f64, row.len() as f64]);
            }
        }
        let figures = team.ranks().gather_rows(&all, 4, figures);
        let record = |(n, &[reconstruction, kl, total, n_genes]): (usize, &[f64; 4])| CellRecord {
            split: split[n],
            total: total as u64,
            n_genes: n_genes as usize,
            reconstruction,
            kl,
            nearest: nearest(n),
        };
        let cells = figures.as_chunks::<4>().0.iter().enumerate().map(record).collect();
        Ok(Self { masks, shifts, targets, loadings, cells, latents })
    }
}

/// Prior mean of each intervention that has targets.
fn priors(targets: &[Target], l: usize, n_interventions: usize) -> Vec<(usize, Vec<f64>)> {
    let mut means = vec![Vec::new(); n_interventions];
    for t in targets {
        means[t.intervention].resize(l, 0.0);
        means[t.intervention][t.latent] = t.shift;
    }
    means.into_iter().enumerate().filter(|(_, mean)| !mean.is_empty()).collect()
}

/// The nearest of the priors and the one without shift; all have variance 1, so distance decides.
fn nearest(latent: &[f64], priors: &[(usize, Vec<f64>)]) -> Nearest {
    let mut best = (latent.iter().map(|z| z * z).sum::<f64>(), Nearest::NoTarget);
    for (a, mean) in priors {
        let distance = latent.iter().zip(mean).map(|(z, m)| (z - m) * (z - m)).sum::<f64>();
        if distance < best.0 {
            best = (distance, Nearest::Intervention(*a));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_prior_is_found_and_interventions_without_targets_share_one() {
        let targets = [
            Target { intervention: 2, latent: 1, probability: 0.9, shift: 4.0 },
            Target { intervention: 0, latent: 0, probability: 0.9, shift: -4.0 },
        ];
        let priors = priors(&targets, 2, 3);
        assert_eq!(priors, [(0, vec![-4.0, 0.0]), (2, vec![0.0, 4.0])]);
        assert_eq!(nearest(&[0.3, 3.0], &priors), Nearest::Intervention(2));
        assert_eq!(nearest(&[-3.0, 1.0], &priors), Nearest::Intervention(0));
        assert_eq!(nearest(&[1.0, -1.0], &priors), Nearest::NoTarget);
    }
}
