//! Poisson likelihood of a cell's counts, fused with the softmax of the decoder's logits.
//!
//! Derivation and numerics: `derivations/poisson.md`. Legend: `g` gene, `x` count, `mu = library * rho` mean and variance,
//! `rho = softmax(logits)`. All values are in nats. The means of a cell sum to its library, so its log density needs no
//! mean of a gene, Eq. (Po2), and its gradient no library, Eq. (Po4).

use crate::data::counts::in_memory::CountsRow;
use crate::model::likelihood::blocks::{
    Block, CellCounts, LANES, Scratch, Sum, copy_back, exponentials, largest, padded, sum_four,
};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::numerics::special::LnFactorial;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, Poisson};

/// One cell, training. `logits_then_gradient` (n_genes) holds the logits and receives the gradient of
/// `scale * (-log p)` with respect to them.
///
/// Returns -log p, unscaled. Non-finite inputs give a non-finite result, never a panic.
///
/// # Panics
/// If a length is wrong.
pub fn value_and_gradient<R: Real>(
    logits_then_gradient: &mut [R],
    cell: CellCounts<'_, R>,
    scale: R,
    scratch: &mut Scratch<R>,
) -> f64 {
    let CellCounts { x, nonzero, library } = cell;
    let logits = logits_then_gradient;
    assert!(logits.len() == x.len() && scratch.rates.len() * LANES >= x.len());
    let (count_total, count_terms) = (nonzero.sum() as f64, count_terms(nonzero));
    vectorized(
        #[inline(always)]
        || {
            let top = largest(logits);
            let total = exponentials(logits, top, &mut scratch.rates);
            let centre = R::from_f64(count_total / total);
            let mut weighted: Sum<R> = Sum::new();
            let (blocks, tail) = logits.as_chunks_mut::<LANES>();
            let (x_blocks, x_tail) = x.as_chunks::<LANES>();
            let n_whole = blocks.len();
            for (b, (logits, x)) in blocks.iter_mut().zip(x_blocks).enumerate() {
                weighted.add(b, &gradient_block(logits, x, &scratch.rates[b], top, centre, scale));
            }
            if !tail.is_empty() {
                let (mut last, x) = (padded(tail, top), padded(x_tail, R::ZERO));
                weighted.add(n_whole, &gradient_block(&mut last, &x, &scratch.rates[n_whole], top, centre, scale));
                copy_back(tail, &last);
            }
            -(weighted.total() + means_part(count_total, library, total) + count_terms)
        },
    )
}

/// Minus the sum over a cell's non-zero counts of ln x!, the part of log p that does not depend on the mean.
pub fn count_terms(nonzero: CountsRow<'_>) -> f64 {
    let ln_factorial = LnFactorial::new();
    match nonzero {
        CountsRow::Narrow(_, counts) => sum_four(counts, |&x| -ln_factorial.of(x as u32)),
        CountsRow::Wide(_, counts) => sum_four(counts, |&x| -ln_factorial.of(x)),
    }
}

/// One cell, evaluation: -log p given `logits` (n_genes). `count_terms` comes from [`count_terms`] and may be shared by
/// any number of calls for the same cell.
///
/// # Panics
/// If a length is wrong.
pub fn value<R: Real>(logits: &[R], cell: CellCounts<'_, R>, count_terms: f64) -> f64 {
    let CellCounts { x, library, .. } = cell;
    assert!(logits.len() == x.len());
    vectorized(
        #[inline(always)]
        || {
            let top = largest(logits);
            let mut total: Sum<R> = Sum::new();
            let mut weighted: Sum<R> = Sum::new();
            let mut count: Sum<R> = Sum::new();
            let (blocks, tail) = logits.as_chunks::<LANES>();
            let (x_blocks, x_tail) = x.as_chunks::<LANES>();
            for (b, (logits, x)) in blocks.iter().zip(x_blocks).enumerate() {
                let (rates, products) = value_block(logits, x, top);
                total.add(b, &rates);
                weighted.add(b, &products);
                count.add(b, x);
            }
            if !tail.is_empty() {
                let (b, x) = (blocks.len(), padded(x_tail, R::ZERO));
                let (mut rates, products) = value_block(&padded(tail, top), &x, top);
                for i in tail.len()..LANES {
                    rates[i] = R::ZERO;
                }
                total.add(b, &rates);
                weighted.add(b, &products);
                count.add(b, &x);
            }
            -(weighted.total() + means_part(count.total(), library, total.total()) + count_terms)
        },
    )
}

/// A count about this mean; 0 where the mean is no positive number.
pub fn draw(mean: f64, random: &mut ChaCha8Rng) -> u32 {
    Poisson::new(mean).map_or(0, |poisson: Poisson<f64>| poisson.sample(random) as u32)
}

/// Eq. (Po2) without its first and its last sum: `X log_offset - library`, where `total` is the sum of exp(logit - top).
/// A cell without counts has no use for the logarithm of a library of zero.
#[inline(always)]
fn means_part<R: Real>(count_total: f64, library: R, total: f64) -> f64 {
    let mean_scale = library.to_f64() / total;
    let log_offset = if mean_scale == 0.0 { 0.0 } else { Real::ln(mean_scale) };
    count_total * log_offset - library.to_f64()
}

/// Logits of one block become the gradient of `scale * (-log p)`, Eq. (Po4); returns `x (logit - top)`.
#[inline(always)]
fn gradient_block<R: Real>(
    logits: &mut Block<R>,
    x: &Block<R>,
    rates: &Block<R>,
    top: R,
    centre: R,
    scale: R,
) -> Block<R> {
    let mut weighted = [R::ZERO; LANES];
    for i in 0..LANES {
        weighted[i] = x[i] * (logits[i] - top);
        logits[i] = scale * rates[i].fma(centre, -x[i]);
    }
    weighted
}

/// `exp(logit - top)` and `x (logit - top)` of one block.
#[inline(always)]
fn value_block<R: Real>(logits: &Block<R>, x: &Block<R>, top: R) -> (Block<R>, Block<R>) {
    let mut rates = [R::ZERO; LANES];
    let mut weighted = [R::ZERO; LANES];
    for i in 0..LANES {
        let below = logits[i] - top;
        rates[i] = below.exp_nonpositive();
        weighted[i] = x[i] * below;
    }
    (rates, weighted)
}
