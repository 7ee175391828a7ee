//! The objective: the only place that knows the number of cells, the mean over a minibatch and the KL weight.
//! Derivation: `derivations/objective.md`.

use crate::model::prior::sparsity::Penalty;

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
        Weights { cell: total / batch as f64, kl: warmup * self.beta, penalty: self.penalty.weight(warmup) }
    }
}
