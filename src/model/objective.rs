//! The objective: the only place that knows the number of cells, the mean over a minibatch and the KL weight.
//! Derivation: `derivations/objective.md`.

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

/// The loss of a minibatch as a weighted sum, Eq. (O1):
/// `cell * sum_n recon[n] + cell * kl * sum_n KL_z[n] + penalty * P(logits)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// Weight of a cell: N/B for sVAE+, 1/B for the other methods.
    pub cell: f64,
    /// Weight of the divergence within a cell: warm-up times beta.
    pub kl: f64,
    /// Weight of the penalty.
    pub penalty: f64,
}

/// The objective of a method on N cells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// Penalty on the masks.
    pub penalty: Penalty,
    /// Factor of the divergence, beta.
    pub beta: f64,
    /// Whether a minibatch's mean stands for all N cells (sVAE+) or for itself (other methods), Eq. (O2).
    pub scale_to_all_cells: bool,
    /// Number of training cells, N.
    pub n_cells: usize,
}

impl Objective {
    /// Weights for a minibatch of `batch` cells at warm-up weight `warmup` (0 to 1), Eq. (O2).
    pub fn weights(&self, batch: usize, warmup: f64) -> Weights {
        let total = if self.scale_to_all_cells { self.n_cells as f64 } else { 1.0 };
        Weights {
            cell: total / batch as f64,
            kl: warmup * self.beta,
            penalty: match self.penalty {
                Penalty::None => 0.0,
                Penalty::SpikeAndSlab { .. } => warmup,
                Penalty::MeanProbability { .. } => 1.0,
            },
        }
    }
}

impl Penalty {
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
                let factor = R::of(weight * (alpha - 1.0));
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
                let factor = R::of(weight * alpha / logits.len() as f64);
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
