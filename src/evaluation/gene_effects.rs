//! Genes of a latent in order of the effects that counts can support. Derivation: `derivations/gene_effects.md`.

use crate::inference::loadings::Loadings;
use crate::numerics::real::Real;

/// What each latent does to each gene, in log2 fold change per unit of the latent; tables are genes x L.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneEffects {
    /// Number of latents.
    pub n_latents: usize,
    /// Mean count of each gene over the cells of the screen.
    pub mean_count: Vec<f64>,
    /// As decoded, Eq. (D2).
    pub log2_fold_change: Vec<f64>,
    /// Its standard error, Eq. (Ge4).
    pub standard_error: Vec<f64>,
    /// Shrunken towards 0 by as much as its standard error asks for, Eq. (Ge7).
    pub shrunken: Vec<f64>,
}

impl GeneEffects {
    /// Shrinks the effects of each latent.
    pub fn new(n_latents: usize, mean_count: Vec<f64>, loadings: Loadings) -> Self {
        let Loadings { log2_fold_change, standard_error } = loadings;
        let mut shrunken = vec![0.0; log2_fold_change.len()];
        for k in 0..n_latents {
            let effects = log2_fold_change.iter().zip(&standard_error).skip(k).step_by(n_latents);
            let effects: Vec<(f64, f64)> = effects.map(|(&effect, error)| (effect, error * error)).collect();
            let prior = prior_variance(&effects);
            for (shrunken, (effect, variance)) in shrunken.iter_mut().skip(k).step_by(n_latents).zip(effects) {
                // Eq. (Ge7); 0 where the error is infinite.
                *shrunken = if prior > 0.0 { effect * (prior / (prior + variance)) } else { 0.0 };
            }
        }
        Self { n_latents, mean_count, log2_fold_change, standard_error, shrunken }
    }

    /// The `most` genes with the largest shrunken effect of latent `k`, largest first. Equal ones, as are all of a latent
    /// whose effects are shrunken to nothing, stand in the order that they have as the prior variance goes to 0.
    pub fn strongest(&self, k: usize, most: usize) -> Vec<usize> {
        let at = |gene: usize| gene * self.n_latents + k;
        let limit = |gene: usize| self.log2_fold_change[at(gene)].abs() / self.standard_error[at(gene)].powi(2);
        let mut genes: Vec<usize> = (0..self.mean_count.len()).collect();
        genes.sort_by(|&a, &b| {
            let by_effect = self.shrunken[at(b)].abs().total_cmp(&self.shrunken[at(a)].abs());
            by_effect.then(limit(b).total_cmp(&limit(a)))
        });
        genes.truncate(most);
        genes
    }
}

/// Steps of the grid, a factor of 2 apart, on which the maximum of Eq. (Ge6) is looked for, and those of its refinement.
const STEPS: (i32, usize) = (48, 40);

/// The variance of a latent's effects, given (effect, squared standard error) of each gene: the maximum of Eq. (Ge6), 0
/// where there is none above.
fn prior_variance(effects: &[(f64, f64)]) -> f64 {
    let known: Vec<(f64, f64)> = effects.iter().copied().filter(|effect| effect.1.is_finite()).collect();
    let likelihood = |prior: f64| -> f64 {
        let of_gene = |&(effect, variance): &(f64, f64)| {
            let total = prior + variance;
            -0.5 * (Real::ln(total) + effect * effect / total)
        };
        known.iter().map(of_gene).sum()
    };
    // No variance beyond the largest squared effect raises the likelihood of any gene.
    let top = known.iter().map(|(effect, _)| effect * effect).fold(0.0, f64::max);
    let (mut best, mut highest) = (0.0, likelihood(0.0));
    for step in 0..STEPS.0 {
        let prior = top / 2f64.powi(step);
        let here = likelihood(prior);
        if here > highest {
            (best, highest) = (prior, here);
        }
    }
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (best / 2.0, best * 2.0);
    for _ in 0..if best > 0.0 { STEPS.1 } else { 0 } {
        let (left, right) = (high - ratio * (high - low), low + ratio * (high - low));
        if likelihood(left) < likelihood(right) {
            low = left;
        } else {
            high = right;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::random::{Purpose, fill_normal, stream};

    fn of_one_latent(effects: &[(f64, f64)]) -> GeneEffects {
        let (log2_fold_change, standard_error) = effects.iter().copied().unzip();
        GeneEffects::new(1, vec![1.0; effects.len()], Loadings { log2_fold_change, standard_error })
    }

    #[test]
    fn a_rare_gene_with_a_huge_fold_change_stands_below_a_well_seen_one() {
        let mut effects: Vec<(f64, f64)> = (0..100).map(|i| (0.4 * (i as f64).sin(), 0.05)).collect();
        effects[17] = (-8.1, 2.5);
        effects[40] = (1.2, 0.05);
        effects[41] = (3.0, f64::INFINITY);
        let found = of_one_latent(&effects);
        assert_eq!(found.strongest(0, 1), [40]);
        assert!(found.strongest(0, 60).iter().all(|gene| ![17, 41].contains(gene)));
        assert!(found.shrunken[17] < 0.0 && found.shrunken[17] > -0.5 && found.shrunken[41] == 0.0);
        assert!((found.shrunken[40] - 1.2).abs() < 0.05);
    }

    #[test]
    fn the_prior_variance_is_that_which_effects_were_drawn_with() {
        let (prior, n) = (0.36, 4000);
        let mut normal = vec![0.0; n];
        fill_normal(&mut normal, &mut vec![0; n], &mut stream(3, Purpose::Shuffle, 0, 0));
        let effects: Vec<(f64, f64)> = (0..n)
            .map(|i| {
                let variance: f64 = [0.0001, 0.04, 0.25, 4.0][i % 4];
                (normal[i] * f64::sqrt(prior + variance), variance)
            })
            .collect();
        // Information about the prior variance: the sum of 1 / (2 (prior + variance)^2); within four standard errors.
        let information: f64 = effects.iter().map(|(_, v)| 0.5 / (prior + v).powi(2)).sum();
        let found = prior_variance(&effects);
        assert!((found - prior).abs() < 4.0 / information.sqrt(), "{found}");
        // Equal errors have the closed form mean(effect^2) - variance.
        let equal = [(1.0, 0.5), (-2.0, 0.5), (0.5, 0.5)];
        assert!((prior_variance(&equal) - (5.25 / 3.0 - 0.5)).abs() < 1e-6);
        // The score at 0 is negative: no variance at all.
        assert_eq!(prior_variance(&[(0.1, 1.0), (-0.3, 1.0)]), 0.0);
        assert_eq!(prior_variance(&[(0.1, f64::INFINITY)]), 0.0);
    }

    #[test]
    fn genes_of_a_latent_that_is_not_used_stand_by_what_little_they_show() {
        let found = of_one_latent(&[(0.1, 5.0), (-0.09, 1.0), (0.0, 0.5), (2.0, f64::INFINITY)]);
        assert_eq!(found.shrunken, [0.0; 4]);
        assert_eq!(found.strongest(0, 9), [1, 0, 2, 3]);
    }
}
