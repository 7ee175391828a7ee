//! The figures of combinations beside the sums of their members and, where the truth is known, how right they are.

use crate::data::dataset::Truth;
use crate::evaluation::interactions::{Interaction, InteractionClass, Interactions};
use crate::evaluation::metrics::{ClassCount, InteractionMetrics, InteractionRecovery};

impl InteractionMetrics {
    /// The figures at a false discovery rate; `truth` is the true screen with the matching of its latents: pairs `(true, inferred)`.
    pub fn new(found: &Interactions, fdr: f64, truth: Option<(&Truth, &[(usize, usize)])>) -> Self {
        let of_class = |class: InteractionClass| ClassCount {
            class,
            n: found.combinations.iter().filter(|of| of.class == class).count(),
        };
        Self {
            n_compared: found.combinations.len(),
            n_not_compared: found.not_compared.len(),
            n_interactions: found.found(fdr).count(),
            expected_false: found.found(fdr).fold(0.0, |sum, pair| sum + 1.0 - pair.probability),
            classes: InteractionClass::ALL.map(of_class).to_vec(),
            recovery: truth.map(|(truth, matched)| recovery(found, fdr, truth, matched)),
        }
    }
}

/// How the interactions compare with the true ones. A latent without a partner has none.
fn recovery(found: &Interactions, fdr: f64, truth: &Truth, matched: &[(usize, usize)]) -> InteractionRecovery {
    let is_true = |pair: &Interaction| {
        let members = &found.combinations[pair.combination].members;
        let of = matched.iter().find(|(_, inferred)| *inferred == pair.latent);
        let at = truth.interactions.binary_search_by(|other| other.members.cmp(members));
        at.ok().zip(of).is_some_and(|(at, &(of, _))| truth.interactions[at].deviation[of] != 0.0)
    };
    let compared = |members: &Vec<u32>| found.combinations.iter().filter(|of| of.members == *members).count();
    let n_of = |deviation: &[f64]| deviation.iter().filter(|d| **d != 0.0).count();
    let n_true = truth.interactions.iter().map(|of| compared(&of.members) * n_of(&of.deviation)).sum();
    let (n_found, n_right) = (found.found(fdr).count(), found.found(fdr).filter(|pair| is_true(pair)).count());
    let share = |n: usize, of: usize| if of > 0 { n as f64 / of as f64 } else { 0.0 };
    InteractionRecovery {
        n_true,
        false_discovery_proportion: share(n_found - n_right, n_found),
        recall: share(n_right, n_true),
    }
}
