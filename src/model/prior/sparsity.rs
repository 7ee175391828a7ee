//! The penalty that keeps masks sparse. Derivation: `derivations/objective.md`, Eqs. (O3)-(O6).

use crate::model::prior::mask::{sigmoid, sigmoid_derivative, softplus};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::numerics::sum::sum_of;

/// What is added for the masks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Penalty {
    /// Nothing: VAE, beta-VAE, iVAE, and every model once its masks are frozen.
    None,
    /// Spike-and-slab, pi ~ Beta(1, alpha): sum of -log alpha + (alpha - 1) softplus(logit), Eq. (O3).
    SpikeAndSlab {
        /// Strength of the sparsity.
        alpha: f64,
    },
    /// alpha times the mean mask probability, Eq. (O4).
    MeanProbability {
        /// Strength of the sparsity.
        alpha: f64,
    },
}

impl Penalty {
    /// Its weight in the loss at warm-up weight `warmup` (0 to 1), Eq. (O2).
    pub fn weight(self, warmup: f64) -> f64 {
        match self {
            Penalty::None => 0.0,
            Penalty::SpikeAndSlab { .. } => warmup,
            Penalty::MeanProbability { .. } => 1.0,
        }
    }

    /// Value, Eq. (O3) or Eq. (O4).
    pub fn value<R: Real>(self, logits: &[R]) -> f64 {
        match self {
            Penalty::None => 0.0,
            Penalty::SpikeAndSlab { alpha } => {
                let sum = sum_of(
                    logits,
                    #[inline(always)]
                    |l| softplus(l),
                );
                (alpha - 1.0) * sum - logits.len() as f64 * Real::ln(alpha)
            }
            Penalty::MeanProbability { alpha } => {
                let sum = sum_of(
                    logits,
                    #[inline(always)]
                    |l| sigmoid(l),
                );
                alpha * sum / logits.len() as f64
            }
        }
    }

    /// Adds `weight` times the gradient, Eq. (O5) or Eq. (O6).
    pub fn add_gradient<R: Real>(self, d_logits: &mut [R], logits: &[R], weight: f64) {
        match self {
            Penalty::None => {}
            Penalty::SpikeAndSlab { alpha } => {
                let factor = R::from_f64(weight * (alpha - 1.0));
                vectorized(
                    #[inline(always)]
                    || {
                        for (d, &l) in d_logits.iter_mut().zip(logits) {
                            *d += factor * sigmoid(l);
                        }
                    },
                );
            }
            Penalty::MeanProbability { alpha } => {
                let factor = R::from_f64(weight * alpha / logits.len() as f64);
                vectorized(
                    #[inline(always)]
                    || {
                        for (d, &l) in d_logits.iter_mut().zip(logits) {
                            *d += factor * sigmoid_derivative(l);
                        }
                    },
                );
            }
        }
    }
}
