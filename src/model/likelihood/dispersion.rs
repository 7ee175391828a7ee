//! What the negative binomial derives from the inverse dispersions, once per step and gene.
//!
//! Derivation: `derivations/negative_binomial.md`.

use crate::model::likelihood::blocks::{Block, LANES, padded};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::numerics::special::{Rising, stirling_tails, table_counts};

/// |log_theta| is clamped here, far outside what data can tell from the Poisson or from the all-or-nothing limit, so that
/// theta, 1 / theta and their products with means and counts stay normal numbers in single precision.
const LOG_THETA_LIMIT: f64 = 40.0;

/// Values that depend on log_theta only, per gene; derived once per step and shared by all cells.
#[derive(Debug, Clone)]
pub struct Dispersion<R> {
    n_genes: usize,
    /// Genes in blocks, the last one padded with theta = 1.
    pub(super) genes: Vec<GeneBlock<R>>,
    /// `[D(x, theta), E(x, theta)]` for x < K; blocks of genes x K. Rows x = 0 and 1 are zero.
    pub(super) table: Vec<[Block<R>; 2]>,
}

/// What Eqs. (N3)-(N11) need of [`LANES`] genes side by side.
#[derive(Debug, Clone, Copy)]
pub struct GeneBlock<R> {
    pub(super) theta: Block<R>,
    pub(super) inverse_theta: Block<R>,
    /// The other fields of [`Rising`].
    pub(super) inverse_shifted: Block<R>,
    pub(super) slope: Block<R>,
    pub(super) value: Block<R>,
    pub(super) derivative: Block<R>,
}

impl<R: Real> GeneBlock<R> {
    pub(super) const ONES: Self = Self {
        theta: [R::ONE; LANES],
        inverse_theta: [R::ONE; LANES],
        inverse_shifted: [R::ONE; LANES],
        slope: [R::ONE; LANES],
        value: [R::ONE; LANES],
        derivative: [R::ONE; LANES],
    };

    /// The lane `i`, as the functions of the counts take it.
    #[inline(always)]
    pub(super) fn rising(&self, i: usize) -> Rising<R> {
        Rising {
            theta: self.theta[i],
            inverse_shifted: self.inverse_shifted[i],
            slope: self.slope[i],
            value: self.value[i],
            derivative: self.derivative[i],
        }
    }
}

impl<R: Real> Dispersion<R> {
    /// For `n_genes` genes, with theta = 1 until the first [`update`](Self::update).
    pub fn new(n_genes: usize) -> Self {
        let n_blocks = n_genes.div_ceil(LANES);
        let mut new = Self {
            n_genes,
            genes: vec![GeneBlock::ONES; n_blocks],
            table: vec![[[R::ZERO; LANES]; 2]; n_blocks * table_counts::<R>()],
        };
        new.update(&vec![R::ZERO; n_genes]);
        new
    }

    /// Number of genes.
    pub fn n_genes(&self) -> usize {
        self.n_genes
    }

    /// Derives everything from `log_theta` (n_genes). Allocates nothing.
    pub fn update(&mut self, log_theta: &[R]) {
        assert_eq!(log_theta.len(), self.n_genes);
        vectorized(
            #[inline(always)]
            || {
                let (whole, tail) = log_theta.as_chunks::<LANES>();
                for (b, block) in whole.iter().enumerate() {
                    self.update_block(b, block);
                }
                if !tail.is_empty() {
                    self.update_block(whole.len(), &padded(tail, R::ZERO));
                }
            },
        );
    }

    #[inline(always)]
    fn update_block(&mut self, b: usize, log_theta: &Block<R>) {
        let k_max = table_counts::<R>();
        let limit = R::from_f64(LOG_THETA_LIMIT);
        let mut theta = [R::ZERO; LANES];
        let mut inverse = [R::ZERO; LANES];
        for i in 0..LANES {
            // Comparisons that are false for NaN, so that a lost parameter shows.
            let l = log_theta[i];
            let l = if l > limit { limit } else { l };
            let l = if l < -limit { -limit } else { l };
            theta[i] = l.exp();
            inverse[i] = R::ONE / theta[i];
        }
        let mut value = [R::ZERO; LANES];
        let mut derivative = [R::ZERO; LANES];
        // Row j + 1 of the table adds the term j of the sums, Eqs. (N4) and (N5); the row K becomes the offsets below.
        for j in 1..k_max {
            let j_ = R::from_f64(j as f64);
            for i in 0..LANES {
                value[i] += (j_ * inverse[i]).ln_1p();
                derivative[i] -= j_ / (theta[i] + j_);
            }
            if j + 1 < k_max {
                self.table[b * k_max + j + 1] = [value, derivative];
            }
        }
        let shift = R::from_f64(k_max as f64);
        let mut inverse_shifted = [R::ZERO; LANES];
        let mut slope = [R::ZERO; LANES];
        for i in 0..LANES {
            inverse_shifted[i] = R::ONE / (theta[i] + shift);
            slope[i] = (shift * inverse[i]).ln_1p();
            let (s, p) = stirling_tails(inverse_shifted[i]);
            value[i] -= s;
            derivative[i] += theta[i] * p;
        }
        self.genes[b] = GeneBlock { theta, inverse_theta: inverse, inverse_shifted, slope, value, derivative };
    }
}
