//! The negative binomial with a constant added inside each logarithm of its density (Eq. (N12)), as the published reference
//! does with 1e-8. The mean is taken from its rate, not in log space; the density is no longer normalised.
//!
//! Derivation: `derivations/negative_binomial.md`, Eqs. (N12)-(N14).

use crate::data::counts::in_memory::CountsRow;
use crate::model::likelihood::blocks::{Block, CellCounts, LANES, Scratch, Sum, exponentials, largest, padded};
use crate::model::likelihood::dispersion::Dispersion;
use crate::model::likelihood::negative_binomial::{self, GeneDensity};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;

/// What Eqs. (N12)-(N14) need of [`LANES`] genes, with h = theta + epsilon.
#[derive(Debug, Clone, Copy)]
pub struct EpsilonBlock<R> {
    epsilon: R,
    theta: Block<R>,
    h: Block<R>,
    inverse_h: Block<R>,
    /// epsilon / h
    epsilon_share: Block<R>,
    /// theta / h
    theta_share: Block<R>,
    /// log(1 + epsilon / theta)
    log: Block<R>,
}

/// [`Dispersion`], and what depends on log_theta and epsilon.
#[derive(Debug, Clone)]
pub struct DispersionWithEpsilon<R> {
    dispersion: Dispersion<R>,
    /// Genes in blocks, the last one padded.
    genes: Vec<EpsilonBlock<R>>,
}

impl<R: Real> DispersionWithEpsilon<R> {
    /// For `n_genes` genes, with theta = 1 until the first [`update`](Self::update).
    pub fn new(n_genes: usize, epsilon: R) -> Self {
        let one = [R::ONE; LANES];
        let ones = EpsilonBlock {
            epsilon,
            theta: one,
            h: one,
            inverse_h: one,
            epsilon_share: one,
            theta_share: one,
            log: one,
        };
        let mut new = Self { dispersion: Dispersion::new(n_genes), genes: vec![ones; n_genes.div_ceil(LANES)] };
        new.update_genes();
        new
    }

    /// Derives everything from `log_theta` (n_genes). Allocates nothing.
    pub fn update(&mut self, log_theta: &[R]) {
        self.dispersion.update(log_theta);
        self.update_genes();
    }

    fn update_genes(&mut self) {
        let (genes, plain) = (&mut self.genes, &self.dispersion.genes);
        vectorized(
            #[inline(always)]
            || {
                for (block, plain) in genes.iter_mut().zip(plain) {
                    block.theta = plain.theta;
                    for i in 0..LANES {
                        let h = plain.theta[i] + block.epsilon;
                        let inverse_h = R::ONE / h;
                        (block.h[i], block.inverse_h[i]) = (h, inverse_h);
                        block.epsilon_share[i] = block.epsilon * inverse_h;
                        block.theta_share[i] = plain.theta[i] * inverse_h;
                        block.log[i] = (block.epsilon * plain.inverse_theta[i]).ln_1p();
                    }
                }
            },
        );
    }
}

impl<R: Real> GeneDensity<R> for DispersionWithEpsilon<R> {
    type Genes = EpsilonBlock<R>;

    #[inline(always)]
    fn genes(&self) -> &[EpsilonBlock<R>] {
        &self.genes
    }

    #[inline(always)]
    fn dispersion(&self) -> &Dispersion<R> {
        &self.dispersion
    }

    #[inline(always)]
    fn count_gradient(genes: &EpsilonBlock<R>, i: usize, x: R, mu: R, _: R) -> (R, R, R) {
        count_gradient(x, mu, genes, i)
    }
}

/// The part of log p that does not depend on the mean: [`negative_binomial::count_terms`], and the sum over the counts of
/// -x log(1 + epsilon / theta), Eq. (N12).
pub fn count_terms<R: Real>(
    nonzero: CountsRow<'_>,
    density: &DispersionWithEpsilon<R>,
    scratch: &mut Scratch<R>,
) -> f64 {
    let mut sum = 0.0;
    nonzero.for_each(
        #[inline(always)]
        |gene, count| sum -= f64::from(count) * density.genes[gene / LANES].log[gene % LANES].to_f64(),
    );
    negative_binomial::count_terms(nonzero, &density.dispersion, scratch) + sum
}

/// One cell, evaluation: -log p given `logits` (n_genes). `count_terms` comes from [`count_terms`] and may be shared by any
/// number of calls for the same cell.
///
/// # Panics
/// If a length is wrong.
pub fn value<R: Real>(
    logits: &[R],
    cell: CellCounts<'_, R>,
    density: &DispersionWithEpsilon<R>,
    count_terms: f64,
    scratch: &mut Scratch<R>,
) -> f64 {
    let CellCounts { x, library, .. } = cell;
    let n_genes = density.dispersion.n_genes();
    assert!(logits.len() == n_genes && x.len() == n_genes && scratch.rates.len() * LANES >= n_genes);
    vectorized(
        #[inline(always)]
        || {
            let total = exponentials(logits, largest(logits), &mut scratch.rates);
            let mean_scale = R::from_f64(library.to_f64() / total);
            let mut value: Sum<R> = Sum::new();
            let (x_blocks, x_tail) = x.as_chunks::<LANES>();
            for (b, (x, (rates, genes))) in x_blocks.iter().zip(scratch.rates.iter().zip(&density.genes)).enumerate() {
                value.add(b, &epsilon_value_block(x, rates, genes, mean_scale));
            }
            if !x_tail.is_empty() {
                let (b, x) = (x_blocks.len(), padded(x_tail, R::ZERO));
                let (rates, genes) = (&scratch.rates[b], &density.genes[b]);
                value.add(b, &epsilon_value_block(&x, rates, genes, mean_scale));
            }
            -(value.total() + count_terms)
        },
    )
}

/// What depends on the mean in Eq. (N12), for one block of genes.
#[inline(always)]
fn epsilon_value_block<R: Real>(x: &Block<R>, rates: &Block<R>, genes: &EpsilonBlock<R>, mean_scale: R) -> Block<R> {
    let mut value = [R::ZERO; LANES];
    for i in 0..LANES {
        let mu = rates[i] * mean_scale;
        // x = 0 must not meet ln 0.
        let from_count = if x[i] > R::ZERO { x[i] * (mu + genes.epsilon).ln() } else { R::ZERO };
        value[i] = from_count - (x[i] + genes.theta[i]) * (mu * genes.inverse_h[i]).ln_1p();
    }
    value
}

/// As [`negative_binomial::count_gradient`], of lane `i`, with epsilon inside each logarithm: Eqs. (N12)-(N14), T = mu / h.
#[inline(always)]
fn count_gradient<R: Real>(x: R, mu: R, genes: &EpsilonBlock<R>, i: usize) -> (R, R, R) {
    let (theta, epsilon_share) = (genes.theta[i], genes.epsilon_share[i]);
    let t = mu * genes.inverse_h[i];
    let (log, excess) = t.ln_1p_pair();
    let inverse_total = R::ONE / (genes.h[i] + mu);
    let (with_epsilon, mu_share) = (mu + genes.epsilon, mu * inverse_total);
    // x = 0 must not meet ln 0 or 0 / 0.
    let count_part = if x > R::ZERO { x * (with_epsilon.ln() - genes.log[i]) } else { R::ZERO };
    let value = count_part - (x + theta) * log;
    let share = if x > R::ZERO { mu / with_epsilon } else { R::ZERO };
    let by_log_mu = x * share - (x + theta) * mu_share;
    let from_count = x * with_epsilon * inverse_total;
    let small = from_count - theta * excess - theta * mu_share * (epsilon_share + t);
    let large = from_count + theta * genes.theta_share[i] * mu_share - theta * log;
    (value, by_log_mu, if t < R::ONE { small } else { large })
}
