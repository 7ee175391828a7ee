//! How sure an edge is: the evidence that an intervention acts on a latent. Derivation: `derivations/evidence.md`.

use crate::model::prior::mask::{sigmoid, softplus};
use crate::numerics::real::Real;

/// Leakage of an intervention's own total effect into a latent that it does not act on, as a share.
const LEAKAGE: f64 = 0.12;
/// Rounds of expectation and maximisation.
const ROUNDS: usize = 30;

/// What is known of every edge. A interventions, L latents; all A x L.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Posterior probability that there is an edge.
    pub probability: Vec<f64>,
    /// Shift, given that there is one: posterior mean.
    pub shift: Vec<f64>,
    /// Its posterior deviation.
    pub deviation: Vec<f64>,
}

/// The evidence of `effects` (A x L) with sampling variances `variances` (A x L, infinite for interventions without cells).
pub fn evidence(effects: &[f64], variances: &[f64], l: usize) -> Evidence {
    let spike: Vec<f64> = effects
        .chunks_exact(l)
        .zip(variances.chunks_exact(l))
        .flat_map(|(row, variances)| {
            let total: f64 = row.iter().map(|e| e * e).sum();
            variances.iter().map(move |variance| variance + LEAKAGE * LEAKAGE * total)
        })
        .collect();
    let known: Vec<usize> = (0..effects.len()).filter(|&at| spike[at].is_finite()).collect();
    let (mut log_odds, mut slab) = (Real::ln(0.1 / 0.9), vec![9.0; l]);
    let mut probability = vec![0.0; effects.len()];
    for _ in 0..ROUNDS {
        let (mut sums, mut squares) = (vec![0.0; l], vec![0.0; l]);
        for &at in &known {
            let (k, square) = (at % l, effects[at] * effects[at]);
            let (narrow, wide) = (spike[at], spike[at] + slab[k]);
            let log_ratio = 0.5 * (Real::ln(narrow / wide) + square * (1.0 / narrow - 1.0 / wide));
            let q: f64 = sigmoid(log_odds + log_ratio);
            probability[at] = q;
            sums[k] += q;
            squares[k] += q * square;
        }
        let pi = ((1.0 + sums.iter().sum::<f64>()) / (20.0 + known.len() as f64)).clamp(1e-3, 0.5);
        log_odds = Real::ln(pi / (1.0 - pi));
        for k in 0..l {
            slab[k] = (squares[k] + 1.0) / (sums[k] + 1.0);
        }
    }
    let _ = softplus::<f64>;
    let (mut shift, mut deviation) = (vec![0.0; effects.len()], vec![0.0; effects.len()]);
    for &at in &known {
        let shrinkage = slab[at % l] / (slab[at % l] + spike[at]);
        shift[at] = shrinkage * effects[at];
        deviation[at] = (shrinkage * spike[at]).sqrt();
    }
    Evidence { probability, shift, deviation }
}
