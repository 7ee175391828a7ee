//! The figures of a graph whose edges are known to be more or less sure and, where the truth is known, whether they are as sure
//! as they say.

use std::collections::BTreeSet;

use crate::data::dataset::Truth;
use crate::evaluation::certainty::{Certainty, Edge};
use crate::evaluation::guides::GuideReplication;
use crate::evaluation::metrics::{CalibrationMetrics, EdgeMetrics};

/// A local false sign rate below which the sign of a shift counts as known.
pub const SURE_OF_SIGN: f64 = 0.05;
/// Bins of the expected calibration error.
const BINS: usize = 10;

impl EdgeMetrics {
    /// The figures of the edges; `truth` is the true screen with the matching of its latents: pairs `(true, inferred)`.
    pub fn new(certainty: &Certainty, truth: Option<(&Truth, &[(usize, usize)])>) -> Self {
        let with_edge: BTreeSet<usize> = certainty.found().map(|edge| edge.intervention).collect();
        Self {
            fdr: certainty.fdr,
            n_pairs: certainty.edges.len(),
            n_edges: certainty.found().count(),
            interventions_with_edge: with_edge.len(),
            expected_false: certainty.found().fold(0.0, |sum, edge| sum + 1.0 - edge.probability),
            permutation: certainty.permutation,
            control_guides: certainty.control_guides.clone(),
            replication: GuideReplication::new(certainty.found()),
            limits: certainty.limits.clone(),
            calibration: truth.map(|(truth, pairs)| calibration(certainty, truth, pairs)),
        }
    }
}

/// How the edges compare with the true ones. A latent without a partner has no true edge.
///
/// Inferred latents are known up to sign and scale. Both come, for each of them, from the regression of the shifts on the true
/// ones over the true edges, through the origin.
fn calibration(certainty: &Certainty, truth: &Truth, pairs: &[(usize, usize)]) -> CalibrationMetrics {
    let shift_of = |edge: &Edge| {
        let partner = pairs.iter().find(|&&(_, inferred)| inferred == edge.latent);
        partner.map_or(0.0, |&(of, _)| truth.prior_means[edge.intervention * truth.n_latents + of])
    };
    let n_inferred = certainty.edges.iter().map(|edge| edge.latent + 1).max().unwrap_or(0);
    let mut sums = vec![(0.0, 0.0); n_inferred];
    for edge in &certainty.edges {
        let (shift, (product, square)) = (shift_of(edge), &mut sums[edge.latent]);
        *product += shift * edge.shift;
        *square += shift * shift;
    }
    let scale = |latent: usize| if sums[latent].1 > 0.0 { sums[latent].0 / sums[latent].1 } else { 0.0 };
    // Each pair with its true shift, on the scale of its latent.
    let judged: Vec<(&Edge, bool, f64)> =
        certainty.edges.iter().map(|edge| (edge, shift_of(edge) != 0.0, shift_of(edge) * scale(edge.latent))).collect();

    let interventions: BTreeSet<usize> = certainty.edges.iter().map(|edge| edge.intervention).collect();
    let row = |a: usize| &truth.prior_means[a * truth.n_latents..(a + 1) * truth.n_latents];
    let n_true = interventions.iter().flat_map(|&a| row(a)).filter(|shift| **shift != 0.0).count();
    let found = || judged.iter().filter(|(edge, ..)| edge.q_value <= certainty.fdr);
    let n_found_true = found().filter(|(_, is_true, _)| *is_true).count();
    let matched: Vec<bool> = judged
        .iter()
        .filter(|(_, is_true, _)| *is_true)
        .map(|&(edge, _, shift)| (edge.shift_low..=edge.shift_high).contains(&shift))
        .collect();
    let wrong_signs: Vec<bool> = judged
        .iter()
        .filter(|(edge, ..)| edge.lfsr < SURE_OF_SIGN)
        .map(|&(edge, is_true, shift)| !is_true || shift * edge.shift <= 0.0)
        .collect();
    CalibrationMetrics {
        n_true,
        false_discovery_proportion: share(found().count() - n_found_true, found().count()).unwrap_or(0.0),
        recall: share(n_found_true, n_true).unwrap_or(0.0),
        interval_coverage: share(matched.iter().filter(|inside| **inside).count(), matched.len()),
        n_signs: wrong_signs.len(),
        sign_errors: share(wrong_signs.iter().filter(|wrong| **wrong).count(), wrong_signs.len()),
        calibration_error: calibration_error(judged.iter().map(|&(edge, is_true, _)| (edge.probability, is_true))),
    }
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Expected calibration error: the distance between mean probability and share of true ones, averaged over equally wide bins of
/// probability by the pairs in each.
fn calibration_error(pairs: impl Iterator<Item = (f64, bool)>) -> f64 {
    let (mut gaps, mut n) = ([0.0; BINS], 0usize);
    for (probability, is_true) in pairs {
        gaps[((probability * BINS as f64) as usize).min(BINS - 1)] += probability - f64::from(u8::from(is_true));
        n += 1;
    }
    gaps.iter().map(|gap| gap.abs()).sum::<f64>() / n.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::certainty::PermutationCheck;
    use crate::evaluation::identifiability::Identifiability;

    fn edge(intervention: usize, latent: usize, probability: f64, q_value: f64, shift: f64) -> Edge {
        Edge {
            intervention,
            latent,
            probability,
            lfsr: 1.0 - probability,
            q_value,
            shift,
            shift_low: shift - 0.5,
            shift_high: shift + 0.5,
            probability_large: probability,
            guides: None,
        }
    }

    fn certainty(edges: Vec<Edge>) -> Certainty {
        let permutation =
            PermutationCheck { n_permutations: 4, mean_edges: 0.5, share_with_edges: 0.25, permutation_fdr: None };
        Certainty {
            fdr: 0.05,
            edges,
            permutation,
            control_guides: None,
            limits: Identifiability::default(),
            interactions: None,
        }
    }

    fn truth(n_latents: usize, prior_means: Vec<f64>) -> Truth {
        Truth { n_latents, latents: Vec::new(), prior_means, escaped: Vec::new(), interactions: Vec::new() }
    }

    #[test]
    fn figures_are_those_of_a_small_case_done_by_hand() {
        // Inferred 0 is true 1 with the sign turned and half the scale; inferred 1 has no partner.
        let truth = truth(2, vec![3.0, 4.0, 0.0, -2.0, 0.0, 0.0]);
        let certainty = certainty(vec![
            edge(0, 0, 1.0, 0.0, -2.0),
            edge(0, 1, 0.98, 0.01, 1.0),
            edge(1, 0, 0.97, 0.02, 1.0),
            edge(1, 1, 0.25, 0.3, 0.1),
            edge(2, 0, 0.0, 0.4, 0.2),
            edge(2, 1, 0.0, 0.4, 0.2),
        ]);
        let found = EdgeMetrics::new(&certainty, Some((&truth, &[(1, 0)])));
        assert_eq!((found.n_pairs, found.n_edges, found.interventions_with_edge), (6, 3, 2));
        assert!((found.expected_false - 0.05).abs() < 1e-12);
        let calibration = found.calibration.expect("the truth is known");
        assert_eq!((calibration.n_true, calibration.n_signs), (3, 3));
        assert_eq!(calibration.false_discovery_proportion, 1.0 / 3.0);
        assert_eq!(calibration.recall, 2.0 / 3.0);
        assert_eq!(calibration.interval_coverage, Some(1.0));
        assert_eq!(calibration.sign_errors, Some(1.0 / 3.0));
        // Bins: three of 0.9 to 1 hold 2.95 of 2 true ones, one of 0.2 to 0.3 is false, two of 0 are.
        assert!((calibration.calibration_error - (0.95 + 0.25) / 6.0).abs() < 1e-12);
        assert_eq!(EdgeMetrics::new(&certainty, None).calibration, None);
    }

    #[test]
    fn a_shift_of_the_wrong_sign_and_one_outside_its_interval_are_seen() {
        let truth = truth(1, vec![4.0, 4.0, 4.0]);
        let edges = vec![edge(0, 0, 1.0, 0.0, 4.0), edge(1, 0, 1.0, 0.0, 4.0), edge(2, 0, 1.0, 0.0, -1.0)];
        let found = EdgeMetrics::new(&certainty(edges), Some((&truth, &[(0, 0)])));
        let calibration = found.calibration.expect("the truth is known");
        // The scale is 7/12, the true shift on it 7/3: inside no interval.
        assert_eq!(calibration.interval_coverage, Some(0.0));
        assert_eq!(calibration.sign_errors, Some(1.0 / 3.0));
        assert_eq!(calibration.false_discovery_proportion, 0.0);
    }

    #[test]
    fn a_screen_without_any_effect_has_nothing_to_cover() {
        let truth = truth(1, vec![0.0, 0.0]);
        let edges = vec![edge(0, 0, 0.25, 0.75, 0.1), edge(1, 0, 0.25, 0.75, -0.1)];
        let found = EdgeMetrics::new(&certainty(edges), Some((&truth, &[(0, 0)])));
        assert_eq!((found.n_edges, found.expected_false.to_bits()), (0, 0.0f64.to_bits()));
        let calibration = found.calibration.expect("the truth is known");
        assert_eq!((calibration.interval_coverage, calibration.sign_errors), (None, None));
        assert_eq!((calibration.recall, calibration.calibration_error), (0.0, 0.25));
    }
}
