//! Mean correlation coefficient (MCC): how well inferred latents match true ones, one to one.

use crate::evaluation::assignment::largest_assignment;
use crate::evaluation::correlation::{Correlation, CorrelationMatrix, Latents, correlation_matrix};
use crate::numerics::real::Real;
use crate::parallel::team::Team;

/// A one-to-one matching of true and inferred latents.
#[derive(Debug, Clone, PartialEq)]
pub struct Matching {
    /// Mean |correlation| of the matched pairs: the MCC.
    pub mean: f64,
    /// Pairs `(true latent, inferred latent)`, true latents ascending; `min(L, K)` of them.
    pub pairs: Vec<(usize, usize)>,
    /// Signed correlations, true latents (rows) x inferred latents (columns).
    pub correlation: CorrelationMatrix,
}

/// MCC of the `truth` (N x L) and `inferred` (N x K) latents: |correlation|, optimal assignment, mean of the matched
/// entries.
///
/// With L different from K, the mean is over the `min(L, K)` pairs. In [0, 1]; 1 is recovery up to order, sign and
/// scale (Pearson) or up to order and monotone maps (Spearman).
///
/// # Panics
/// If the tables differ in their number of cells.
pub fn mcc<R: Real>(team: &Team, truth: Latents<R>, inferred: Latents<R>, kind: Correlation) -> Matching {
    let correlation = correlation_matrix(team, truth, inferred, kind);
    let absolute = correlation.clone().abs();
    let pairs = largest_assignment(&absolute.values, absolute.n_rows, absolute.n_columns);
    let mean = pairs.iter().map(|&(t, i)| absolute.at(t, i)).sum::<f64>() / pairs.len().max(1) as f64;
    Matching { mean, pairs, correlation }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 500 cells x 3 latents, nearly uncorrelated.
    fn truth() -> Vec<f64> {
        (0..500)
            .flat_map(|i| [1.0, 2.0, 3.0].map(|f| (f * i as f64 * 0.7).sin() + 0.1 * (i as f64 * f * f).cos()))
            .collect()
    }

    #[test]
    fn permuted_flipped_and_scaled_latents_are_recovered() {
        let truth = truth();
        // Inferred latents: a constant one, then the true 2, 0, 1 with signs, scales and a monotone bend.
        let inferred: Vec<f64> = truth.chunks(3).flat_map(|z| [4.0, -2.0 * z[2] + 1.0, z[0].exp(), -z[1]]).collect();
        let (t, i) = (Latents::new(&truth, 3), Latents::new(&inferred, 4));
        let spearman = mcc(&Team::single(), t, i, Correlation::Spearman);
        assert_eq!(spearman.pairs, [(0, 2), (1, 3), (2, 1)]);
        assert!((spearman.mean - 1.0).abs() < 1e-12);
        assert!(spearman.correlation.at(1, 3) < -0.999);
        let pearson = mcc(&Team::single(), t, i, Correlation::Pearson);
        assert_eq!(pearson.pairs, spearman.pairs);
        assert!(pearson.mean > 0.95 && pearson.mean < 0.999, "{}", pearson.mean);
        // The other way round the pairs are mirrored and the value is the same.
        let mirrored = mcc(&Team::single(), i, t, Correlation::Pearson);
        assert_eq!(mirrored.pairs, [(1, 2), (2, 0), (3, 1)]);
        assert!((mirrored.mean - pearson.mean).abs() < 1e-12);
    }

    #[test]
    fn latents_without_information_score_zero() {
        let truth = truth();
        let inferred = vec![0.5; 500 * 3];
        let matching = mcc(&Team::single(), Latents::new(&truth, 3), Latents::new(&inferred, 3), Correlation::Pearson);
        assert_eq!(matching.mean, 0.0);
        assert_eq!(matching.pairs.len(), 3);
    }
}
