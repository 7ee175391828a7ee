//! Negative binomial likelihood of a cell's counts, fused with the softmax of the decoder's logits.
//!
//! Derivation and numerics: `derivations/negative_binomial.md`. Legend: `g` gene, `x` count, `mu = library * rho` mean,
//! `rho = softmax(logits)`, `theta = exp(log_theta)` inverse dispersion (variance `mu + mu^2 / theta`), `t = mu / theta`.
//! All values are in nats. Everything is kept in log space, so no constant is added inside any logarithm; the variant
//! that adds one is [`forward_backward_with_epsilon`].
//!
//! Rows are worked through in blocks of [`LANES`] genes, the last one padded. Sums run over `LANES` parallel sums in f64,
//! whatever the vector width, so results have the same bits on every instruction set.

use crate::data::counts::in_memory::CountsRow;
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::numerics::special::{LnFactorial, Rising, rising_differences, stirling_tails, table_counts};
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};

/// Genes per block, and parallel sums of every reduction: the single-precision lanes of the widest vectors.
pub const LANES: usize = 16;

pub(super) type Block<R> = [R; LANES];

/// A sum in [`LANES`] parallel sums of R, emptied into f64 every [`Sum::PERIOD`] blocks so that long rows lose no digits.
pub(super) struct Sum<R> {
    lanes: Block<R>,
    flushed: [f64; LANES],
}

impl<R: Real> Sum<R> {
    const PERIOD: usize = 16;

    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { lanes: [R::ZERO; LANES], flushed: [0.0; LANES] }
    }

    /// Adds the values of block number `b`.
    #[inline(always)]
    pub(super) fn add(&mut self, b: usize, values: &Block<R>) {
        for i in 0..LANES {
            self.lanes[i] += values[i];
        }
        self.end_block(b);
    }

    /// To be called after adding block number `b` to the lanes.
    #[inline(always)]
    fn end_block(&mut self, b: usize) {
        if b % Self::PERIOD == Self::PERIOD - 1 {
            self.flush();
        }
    }

    /// Out of line, so that the lanes stay one vector in the loops that add to them.
    #[inline(never)]
    fn flush(&mut self) {
        for i in 0..LANES {
            self.flushed[i] += self.lanes[i].f64();
        }
        self.lanes = [R::ZERO; LANES];
    }

    /// Sum of the lanes, pairwise.
    #[inline(always)]
    pub(super) fn total(mut self) -> f64 {
        self.flush();
        let mut s = self.flushed;
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                s[i] += s[i + width];
            }
            width /= 2;
        }
        s[0]
    }
}

/// |log_theta| is clamped here, far outside what data can tell from the Poisson or from the all-or-nothing limit, so that
/// theta, 1 / theta and their products with means and counts stay normal numbers in single precision.
const LOG_THETA_LIMIT: f64 = 40.0;

/// Values that depend on log_theta only, per gene; derived once per step and shared by all cells.
#[derive(Debug, Clone)]
pub struct Dispersion<R> {
    n_genes: usize,
    /// Genes in blocks, the last one padded with theta = 1.
    genes: Vec<GeneBlock<R>>,
    /// `[D(x, theta), E(x, theta)]` for x < K; blocks of genes x K. Rows x = 0 and 1 are zero.
    table: Vec<[Block<R>; 2]>,
    epsilon: R,
    /// Of genes in blocks, where a likelihood with epsilon was asked for; else empty.
    with_epsilon: Vec<EpsilonBlock<R>>,
}

/// What Eqs. (N12)-(N14) need of [`LANES`] genes, with h = theta + epsilon.
#[derive(Debug, Clone, Copy)]
struct EpsilonBlock<R> {
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

/// [`LANES`] genes side by side.
#[derive(Debug, Clone, Copy)]
struct GeneBlock<R> {
    theta: Block<R>,
    inverse_theta: Block<R>,
    /// The other fields of [`Rising`].
    inverse_shifted: Block<R>,
    slope: Block<R>,
    value: Block<R>,
    derivative: Block<R>,
}

impl<R: Real> GeneBlock<R> {
    const ONES: Self = Self {
        theta: [R::ONE; LANES],
        inverse_theta: [R::ONE; LANES],
        inverse_shifted: [R::ONE; LANES],
        slope: [R::ONE; LANES],
        value: [R::ONE; LANES],
        derivative: [R::ONE; LANES],
    };

    #[inline(always)]
    fn rising(&self, i: usize) -> Rising<R> {
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
        Self::make(n_genes, R::ZERO, Vec::new())
    }

    /// As [`Dispersion::new`], for a likelihood with `epsilon` inside each logarithm of the density, Eq. (N12).
    pub fn with_epsilon(n_genes: usize, epsilon: R) -> Self {
        let one = [R::ONE; LANES];
        let ones = EpsilonBlock { theta: one, h: one, inverse_h: one, epsilon_share: one, theta_share: one, log: one };
        Self::make(n_genes, epsilon, vec![ones; n_genes.div_ceil(LANES)])
    }

    fn make(n_genes: usize, epsilon: R, with_epsilon: Vec<EpsilonBlock<R>>) -> Self {
        let n_blocks = n_genes.div_ceil(LANES);
        let mut new = Self {
            n_genes,
            genes: vec![GeneBlock::ONES; n_blocks],
            table: vec![[[R::ZERO; LANES]; 2]; n_blocks * table_counts::<R>()],
            epsilon,
            with_epsilon,
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
        let limit = R::of(LOG_THETA_LIMIT);
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
            let j_ = R::of(j as f64);
            for i in 0..LANES {
                value[i] += (j_ * inverse[i]).ln_1p();
                derivative[i] -= j_ / (theta[i] + j_);
            }
            if j + 1 < k_max {
                self.table[b * k_max + j + 1] = [value, derivative];
            }
        }
        let shift = R::of(k_max as f64);
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
        if let Some(block) = self.with_epsilon.get_mut(b) {
            block.theta = theta;
            for i in 0..LANES {
                let h = theta[i] + self.epsilon;
                let inverse_h = R::ONE / h;
                (block.h[i], block.inverse_h[i]) = (h, inverse_h);
                block.epsilon_share[i] = self.epsilon * inverse_h;
                block.theta_share[i] = theta[i] * inverse_h;
                block.log[i] = (self.epsilon * inverse[i]).ln_1p();
            }
        }
    }

    /// Panics unless it is of `n_genes` genes and knows epsilon.
    #[track_caller]
    fn check_epsilon(&self, n_genes: usize) {
        assert!(n_genes == self.n_genes && self.with_epsilon.len() == self.genes.len(), "made with epsilon");
    }
}

/// Working memory of one cell; reused for all cells of a block of rows.
#[derive(Debug, Clone)]
pub struct Scratch<R> {
    /// exp(logit - largest logit); n_genes, in blocks.
    pub(super) rates: Vec<Block<R>>,
    /// Genes whose count is K or more, and count - K; the first `n_large`, then leftovers.
    large_genes: Vec<u32>,
    large_counts: Vec<R>,
    n_large: usize,
}

impl<R: Real> Scratch<R> {
    /// For cells of `n_genes` genes.
    pub fn new(n_genes: usize) -> Self {
        let n_padded = n_genes.next_multiple_of(LANES).max(LANES);
        Self {
            rates: vec![[R::ZERO; LANES]; n_padded / LANES],
            large_genes: vec![0; n_padded],
            large_counts: vec![R::ZERO; n_padded],
            n_large: 0,
        }
    }
}

/// One count without its count-only part: `(log p - D + ln x!, d log p / d log mu, d log p / d log theta - E)`,
/// Eq. (N3) and Eqs. (N6)-(N8); the mean is given twice, because `mu` may underflow where `log_mu` does not.
#[inline(always)]
pub fn entry<R: Real>(x: R, mu: R, log_mu: R, theta: R, inverse_theta: R) -> (R, R, R) {
    let t = mu * inverse_theta;
    let (log, excess, reciprocal) = t.ln_1p_and_reciprocal();
    let total = x + theta;
    let residual = x - mu;
    let by_log_mu = residual * reciprocal;
    let value = x.fma(log_mu, -(total * log));
    // Eq. (N7) for small t, Eq. (N8) for large t, where the other one cancels.
    let small = t < R::ONE;
    let count = if small { residual } else { total };
    let shape = if small { excess } else { log };
    let by_log_theta = (t * reciprocal).fma(count, -(theta * shape));
    (value, by_log_mu, by_log_theta)
}

/// One cell, training. `logits_then_gradient` (n_genes) holds the logits and receives the gradient of
/// `scale * (-log p)` with respect to them; `d_log_theta` (n_genes) is added the same for log_theta.
///
/// `x` (n_genes) and `nonzero` are the same counts twice; `library` is their mean's total. Returns -log p, unscaled.
/// Non-finite inputs give a non-finite result, never a panic.
pub fn forward_backward<R: Real>(
    logits_then_gradient: &mut [R],
    x: &[R],
    nonzero: CountsRow<'_>,
    library: R,
    dispersion: &Dispersion<R>,
    scale: R,
    d_log_theta: &mut [R],
    scratch: &mut Scratch<R>,
) -> f64 {
    let n_genes = dispersion.n_genes;
    assert!(logits_then_gradient.len() == n_genes && x.len() == n_genes && d_log_theta.len() == n_genes);
    let (n_nonzero, ln_factorial) = (nonzero.len(), LnFactorial::new());
    assert!(n_nonzero <= n_genes && scratch.rates.len() * LANES >= n_genes);
    vectorized(
        #[inline(always)]
        || {
            let logits = logits_then_gradient;
            let top = largest(logits);
            let total = exponentials(logits, top, &mut scratch.rates);
            let mean_scale = library.f64() / total;
            let row =
                RowConstants { log_offset: log_offset(mean_scale, top.f64()), mean_scale: R::of(mean_scale), scale };

            let mut value: Sum<R> = Sum::new();
            let mut by_logit: Sum<R> = Sum::new();
            let (blocks, tail) = logits.as_chunks_mut::<LANES>();
            let (x_blocks, x_tail) = x.as_chunks::<LANES>();
            let (d_blocks, d_tail) = d_log_theta.as_chunks_mut::<LANES>();
            let n_whole = blocks.len();
            let (rates, genes) = (&scratch.rates[..], &dispersion.genes[..]);
            for b in 0..n_whole {
                let (l, d) = (&mut blocks[b], &mut d_blocks[b]);
                dense_block(l, d, &mut value.lanes, &mut by_logit.lanes, &x_blocks[b], &rates[b], &genes[b], row);
                value.end_block(b);
                by_logit.end_block(b);
            }
            if !tail.is_empty() {
                let (mut l, mut d, x) = (padded(tail, R::ZERO), padded(d_tail, R::ZERO), padded(x_tail, R::ZERO));
                let (rates, genes) = (&rates[n_whole], &genes[n_whole]);
                dense_block(&mut l, &mut d, &mut value.lanes, &mut by_logit.lanes, &x, rates, genes, row);
                copy_back(tail, &l);
                copy_back(d_tail, &d);
            }

            // d log p / d logit_g = d_g - rho_g sum_h d_h, Eq. (N9).
            let centre = R::of(by_logit.total() / total);
            for (l, &rate) in logits.iter_mut().zip(scratch.rates.as_flattened()) {
                *l = scale * rate.fma(centre, -*l);
            }

            let counts = count_part::<R, true>(nonzero, ln_factorial, dispersion, x, scale, d_log_theta, scratch);
            -(value.total() + counts)
        },
    )
}

/// Sum over a cell's non-zero counts of D(x, theta) - ln x!, the part of log p that does not depend on the mean.
pub fn count_terms<R: Real>(nonzero: CountsRow<'_>, dispersion: &Dispersion<R>, scratch: &mut Scratch<R>) -> f64 {
    let ln_factorial = LnFactorial::new();
    // Lent by the scratch for a dense row of counts, which the likelihood of a mostly non-zero row is faster on.
    let mut x = std::mem::take(&mut scratch.rates);
    let value = vectorized(
        #[inline(always)]
        || {
            let dense = x.as_flattened_mut();
            if is_mostly_nonzero(nonzero, dispersion.n_genes) {
                dense.fill(R::ZERO);
                nonzero.for_each(
                    #[inline(always)]
                    |g, count| dense[g] = R::of_count(count),
                );
            }
            let dense = &dense[..dispersion.n_genes];
            count_part::<R, false>(nonzero, ln_factorial, dispersion, dense, R::ZERO, &mut [], scratch)
        },
    );
    scratch.rates = x;
    value
}

/// Whether every gene is visited rather than every non-zero count.
#[inline(always)]
pub fn is_mostly_nonzero(nonzero: CountsRow<'_>, n_genes: usize) -> bool {
    let n_nonzero = match nonzero {
        CountsRow::Narrow(genes, _) => genes.len(),
        CountsRow::Wide(genes, _) => genes.len(),
    };
    4 * n_nonzero >= n_genes
}

/// One cell, evaluation: -log p given `logits` (n_genes), which are overwritten. `count_terms` comes from
/// [`count_terms`] and may be shared by any number of calls for the same cell.
pub fn forward<R: Real>(logits: &mut [R], x: &[R], library: R, dispersion: &Dispersion<R>, count_terms: f64) -> f64 {
    let n_genes = dispersion.n_genes;
    assert!(logits.len() == n_genes && x.len() == n_genes);
    vectorized(
        #[inline(always)]
        || {
            let top = largest(logits);
            let mut total: Sum<R> = Sum::new();
            let mut weighted: Sum<R> = Sum::new();
            let mut count: Sum<R> = Sum::new();
            // sum x log mu = sum x logit + (log library - logsumexp) sum x, Eq. (N2).
            let (blocks, tail) = logits.as_chunks_mut::<LANES>();
            let (x_blocks, x_tail) = x.as_chunks::<LANES>();
            let mut last = padded(tail, top);
            let last_x = padded(x_tail, R::ZERO);
            for (b, (l, x)) in blocks.iter_mut().zip(x_blocks).enumerate() {
                weighted.add(b, &exponential_block(l, x, top));
                total.add(b, l);
                count.add(b, x);
            }
            if !tail.is_empty() {
                weighted.add(blocks.len(), &exponential_block(&mut last, &last_x, top));
                for i in 0..LANES {
                    last[i] = if i < tail.len() { last[i] } else { R::ZERO };
                }
                total.add(blocks.len(), &last);
                count.add(blocks.len(), &last_x);
            }

            let mean_scale = library.f64() / total.total();
            let log_offset: R = log_offset(mean_scale, 0.0);
            let mean_scale = R::of(mean_scale);
            let mut log_sum: Sum<R> = Sum::new();
            for (b, (rates, x)) in blocks.iter().zip(x_blocks).enumerate() {
                log_sum.add(b, &log_block(b, rates, x, mean_scale, dispersion));
            }
            if !tail.is_empty() {
                log_sum.add(blocks.len(), &log_block(blocks.len(), &last, &last_x, mean_scale, dispersion));
            }
            -(weighted.total() + log_offset.f64() * count.total() - log_sum.total() + count_terms)
        },
    )
}

/// As [`forward_backward`], with the epsilon of `dispersion` added inside each logarithm of the density (Eq. (N12)), as the
/// published reference does with 1e-8. The mean is taken from its rate, not in log space; the density is no longer normalised.
///
/// # Panics
/// If a length is wrong, or `dispersion` was made without epsilon.
pub fn forward_backward_with_epsilon<R: Real>(
    logits_then_gradient: &mut [R],
    x: &[R],
    nonzero: CountsRow<'_>,
    library: R,
    dispersion: &Dispersion<R>,
    scale: R,
    d_log_theta: &mut [R],
    scratch: &mut Scratch<R>,
) -> f64 {
    let n_genes = dispersion.n_genes;
    dispersion.check_epsilon(logits_then_gradient.len());
    assert!(logits_then_gradient.len() == n_genes && x.len() == n_genes && d_log_theta.len() == n_genes);
    let logits = logits_then_gradient;
    let (n_nonzero, ln_factorial) = (nonzero.len(), LnFactorial::new());
    assert!(n_nonzero <= n_genes && scratch.rates.len() * LANES >= n_genes);
    vectorized(
        #[inline(always)]
        || {
            let top = largest(logits);
            let total = exponentials(logits, top, &mut scratch.rates);
            let mean_scale = R::of(library.f64() / total);
            let mut value: Sum<R> = Sum::new();
            let mut by_logit: Sum<R> = Sum::new();
            // The logits are not needed any more: they become d log p / d log mu, block by block.
            for (b, (rates, genes)) in scratch.rates.iter().zip(&dispersion.with_epsilon).enumerate() {
                let here = b * LANES..n_genes.min((b + 1) * LANES);
                let x = padded(&x[here.clone()], R::ZERO);
                let (v, d, a) = epsilon_block(&x, rates, genes, mean_scale, dispersion.epsilon);
                value.add(b, &v);
                by_logit.add(b, &d);
                copy_back(&mut logits[here.clone()], &d);
                let sum = subtract_scaled(&padded(&d_log_theta[here.clone()], R::ZERO), scale, &a);
                copy_back(&mut d_log_theta[here], &sum);
            }
            let centre = R::of(by_logit.total() / total);
            for (l, &rate) in logits.iter_mut().zip(scratch.rates.as_flattened()) {
                *l = scale * rate.fma(centre, -*l);
            }
            let counts = count_part::<R, true>(nonzero, ln_factorial, dispersion, x, scale, d_log_theta, scratch);
            -(value.total() + counts)
        },
    )
}

/// What [`forward_with_epsilon`] adds to [`count_terms`]: the sum over a cell's counts of -x log(1 + epsilon / theta), Eq. (N12).
///
/// # Panics
/// If `dispersion` was made without epsilon.
pub fn epsilon_terms<R: Real>(nonzero: CountsRow<'_>, dispersion: &Dispersion<R>) -> f64 {
    let mut sum = 0.0;
    nonzero.for_each(
        #[inline(always)]
        |gene, count| sum -= f64::from(count) * dispersion.with_epsilon[gene / LANES].log[gene % LANES].f64(),
    );
    sum
}

/// As [`forward`], with the epsilon of `dispersion` inside each logarithm of the density (Eq. (N12)); `count_terms` is the sum of
/// [`count_terms`] and [`epsilon_terms`].
///
/// # Panics
/// If a length is wrong, or `dispersion` was made without epsilon.
pub fn forward_with_epsilon<R: Real>(
    logits: &[R],
    x: &[R],
    library: R,
    dispersion: &Dispersion<R>,
    count_terms: f64,
    scratch: &mut Scratch<R>,
) -> f64 {
    let (n_genes, epsilon) = (dispersion.n_genes, dispersion.epsilon);
    dispersion.check_epsilon(logits.len());
    assert!(logits.len() == n_genes && x.len() == n_genes && scratch.rates.len() * LANES >= n_genes);
    vectorized(
        #[inline(always)]
        || {
            let total = exponentials(logits, largest(logits), &mut scratch.rates);
            let mean_scale = R::of(library.f64() / total);
            let mut value: Sum<R> = Sum::new();
            let (x_blocks, x_tail) = x.as_chunks::<LANES>();
            for (b, (x, (rates, genes))) in
                x_blocks.iter().zip(scratch.rates.iter().zip(&dispersion.with_epsilon)).enumerate()
            {
                value.add(b, &epsilon_value_block(x, rates, genes, mean_scale, epsilon));
            }
            if !x_tail.is_empty() {
                let (b, x) = (x_blocks.len(), padded(x_tail, R::ZERO));
                let (rates, genes) = (&scratch.rates[b], &dispersion.with_epsilon[b]);
                value.add(b, &epsilon_value_block(&x, rates, genes, mean_scale, epsilon));
            }
            -(value.total() + count_terms)
        },
    )
}

/// What depends on the mean in Eq. (N12), for one block of genes.
#[inline(always)]
fn epsilon_value_block<R: Real>(
    x: &Block<R>,
    rates: &Block<R>,
    genes: &EpsilonBlock<R>,
    mean_scale: R,
    epsilon: R,
) -> Block<R> {
    let mut value = [R::ZERO; LANES];
    for i in 0..LANES {
        let mu = rates[i] * mean_scale;
        // x = 0 must not meet ln 0.
        let from_count = if x[i] > R::ZERO { x[i] * (mu + epsilon).ln() } else { R::ZERO };
        value[i] = from_count - (x[i] + genes.theta[i]) * (mu * genes.inverse_h[i]).ln_1p();
    }
    value
}

/// [`entry_with_epsilon`] for one block of genes.
#[inline(always)]
fn epsilon_block<R: Real>(
    x: &Block<R>,
    rates: &Block<R>,
    genes: &EpsilonBlock<R>,
    mean_scale: R,
    epsilon: R,
) -> (Block<R>, Block<R>, Block<R>) {
    let mut value = [R::ZERO; LANES];
    let mut by_log_mu = [R::ZERO; LANES];
    let mut by_log_theta = [R::ZERO; LANES];
    for i in 0..LANES {
        (value[i], by_log_mu[i], by_log_theta[i]) = entry_with_epsilon(x[i], rates[i] * mean_scale, genes, i, epsilon);
    }
    (value, by_log_mu, by_log_theta)
}

/// As [`entry`], of lane `i`, with `epsilon` inside each logarithm: Eqs. (N12)-(N14), T = mu / h.
#[inline(always)]
fn entry_with_epsilon<R: Real>(x: R, mu: R, genes: &EpsilonBlock<R>, i: usize, epsilon: R) -> (R, R, R) {
    let (theta, epsilon_share) = (genes.theta[i], genes.epsilon_share[i]);
    let t = mu * genes.inverse_h[i];
    let (log, excess) = t.ln_1p_pair();
    let inverse_total = R::ONE / (genes.h[i] + mu);
    let (with_epsilon, mu_share) = (mu + epsilon, mu * inverse_total);
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

/// A count with this mean and inverse dispersion: Poisson about a gamma.
pub fn draw(mean: f64, theta: f64, random: &mut ChaCha8Rng) -> u32 {
    // Beyond these the gamma is one number and its sampler has nothing to do.
    let rate = match Gamma::new(theta, mean / theta) {
        Ok(gamma) if theta < 1e12 => gamma.sample(random),
        _ => mean,
    };
    super::poisson::draw(rate, random)
}

/// Softmax in place: logits (n_genes) become rates rho that sum to one.
pub fn rates<R: Real>(logits: &mut [R]) {
    vectorized(
        #[inline(always)]
        || {
            let top = largest(logits);
            let mut total: Sum<R> = Sum::new();
            let (blocks, tail) = logits.as_chunks_mut::<LANES>();
            for (b, block) in blocks.iter_mut().enumerate() {
                for l in block.iter_mut() {
                    *l = (*l - top).exp();
                }
                total.add(b, block);
            }
            for l in tail.iter_mut() {
                *l = (*l - top).exp();
            }
            total.add(blocks.len(), &padded(tail, R::ZERO));
            let inverse = R::of(1.0 / total.total());
            for l in logits.iter_mut() {
                *l *= inverse;
            }
        },
    );
}

/// Logits become `exp(logit - top)`; returns `x (logit - top)`.
#[inline(always)]
fn exponential_block<R: Real>(logits: &mut Block<R>, x: &Block<R>, top: R) -> Block<R> {
    let mut weighted = [R::ZERO; LANES];
    for i in 0..LANES {
        let below = logits[i] - top;
        logits[i] = below.exp_nonpositive();
        weighted[i] = x[i] * below;
    }
    weighted
}

/// `(x + theta) ln(1 + t)` for one block of genes.
#[inline(always)]
fn log_block<R: Real>(b: usize, rates: &Block<R>, x: &Block<R>, mean_scale: R, dispersion: &Dispersion<R>) -> Block<R> {
    let (theta, inverse) = (&dispersion.genes[b].theta, &dispersion.genes[b].inverse_theta);
    let mut result = [R::ZERO; LANES];
    for i in 0..LANES {
        let t = rates[i] * mean_scale * inverse[i];
        result[i] = (x[i] + theta[i]) * t.ln_1p_and_reciprocal().0;
    }
    result
}

/// What the blocks of a row share.
#[derive(Clone, Copy)]
struct RowConstants<R> {
    /// log library - logsumexp(logits)
    log_offset: R,
    /// library / sum exp(logit - top)
    mean_scale: R,
    scale: R,
}

/// [`entry`] for one block of genes: logits become d log p / d log mu, `d_log_theta` is added to.
#[inline(always)]
fn dense_block<R: Real>(
    logits: &mut Block<R>,
    d_log_theta: &mut Block<R>,
    value: &mut Block<R>,
    by_logit: &mut Block<R>,
    x: &Block<R>,
    rates: &Block<R>,
    genes: &GeneBlock<R>,
    row: RowConstants<R>,
) {
    // Local copies, so that the compiler knows that nothing overlaps.
    let (mut l, mut a, mut v, mut s) = (*logits, *d_log_theta, *value, *by_logit);
    let (x, rates, theta, inverse_theta) = (*x, *rates, genes.theta, genes.inverse_theta);
    for i in 0..LANES {
        let mu = rates[i] * row.mean_scale;
        let (v_i, d_i, a_i) = entry(x[i], mu, l[i] + row.log_offset, theta[i], inverse_theta[i]);
        v[i] += v_i;
        s[i] += d_i;
        l[i] = d_i;
        a[i] = a_i.fma(-row.scale, a[i]);
    }
    (*logits, *d_log_theta, *value, *by_logit) = (l, a, v, s);
}

/// Sum of D - ln x! over the non-zero counts; with `GRADIENT`, `d_log_theta -= scale * E`.
///
/// Rows that are mostly zero visit their non-zero counts; others compute D and E of every gene of the dense row `x`,
/// which takes fewer instructions per gene than a visit takes per count.
#[inline(always)]
fn count_part<R: Real, const GRADIENT: bool>(
    nonzero: CountsRow<'_>,
    ln_factorial: LnFactorial,
    dispersion: &Dispersion<R>,
    x: &[R],
    scale: R,
    d_log_theta: &mut [R],
    scratch: &mut Scratch<R>,
) -> f64 {
    let mut value = Sum::new();
    let sum = if is_mostly_nonzero(nonzero, dispersion.n_genes) {
        counts_in_place::<R, GRADIENT>(x, dispersion, scale, d_log_theta, &mut value);
        match nonzero {
            CountsRow::Narrow(_, counts) => sum_four(counts, |&x| -ln_factorial.of(x as u32)),
            CountsRow::Wide(_, counts) => sum_four(counts, |&x| -ln_factorial.of(x)),
        }
    } else {
        let sum = match nonzero {
            CountsRow::Narrow(genes, counts) => {
                look_up::<R, u16, GRADIENT>(genes, counts, ln_factorial, dispersion, scale, d_log_theta, scratch)
            }
            CountsRow::Wide(genes, counts) => {
                look_up::<R, u32, GRADIENT>(genes, counts, ln_factorial, dispersion, scale, d_log_theta, scratch)
            }
        };
        large_collected::<R, GRADIENT>(dispersion, scale, d_log_theta, scratch, &mut value);
        sum
    };
    sum + value.total()
}

/// Small counts of the non-zero ones, by table; collects the large ones. Returns the sum of D - ln x! but for the D of
/// large counts.
#[inline(always)]
fn look_up<R: Real, I: Copy + Into<u32>, const GRADIENT: bool>(
    genes: &[I],
    counts: &[I],
    ln_factorial: LnFactorial,
    dispersion: &Dispersion<R>,
    scale: R,
    d_log_theta: &mut [R],
    scratch: &mut Scratch<R>,
) -> f64 {
    let k_max = table_counts::<R>();
    let table = &dispersion.table[..];
    let large_genes = &mut scratch.large_genes[..];
    let large_counts = &mut scratch.large_counts[..];
    let mut n_large = 0;
    // Two sums, so that additions need not wait for each other.
    let mut values = R::ZERO;
    let mut ln_factorials = 0.0;
    for (&g, &count) in genes.iter().zip(counts) {
        let (g, count): (u32, u32) = (g.into(), count.into());
        let is_large = count as usize >= k_max;
        // Row 0 is zero: no branch to mispredict.
        let row = if is_large { 0 } else { count as usize };
        let [value, derivative] = &table[g as usize / LANES * k_max + row];
        values += value[g as usize % LANES];
        ln_factorials += ln_factorial.of(count);
        if GRADIENT {
            let d = &mut d_log_theta[g as usize];
            *d -= scale * derivative[g as usize % LANES];
        }
        // Written always, kept if large.
        large_genes[n_large] = g;
        large_counts[n_large] = R::of_count(count.wrapping_sub(k_max as u32));
        n_large += is_large as usize;
    }
    scratch.n_large = n_large;
    values.f64() - ln_factorials
}

/// D and E of the collected large counts.
#[inline(always)]
fn large_collected<R: Real, const GRADIENT: bool>(
    dispersion: &Dispersion<R>,
    scale: R,
    d_log_theta: &mut [R],
    scratch: &Scratch<R>,
    sum: &mut Sum<R>,
) {
    for start in (0..scratch.n_large).step_by(LANES) {
        let used = (scratch.n_large - start).min(LANES);
        let genes = &scratch.large_genes[start..start + LANES];
        let counts = &scratch.large_counts[start..start + LANES];
        // Gathered lane by lane, so that the evaluation is one vector loop; unused lanes keep harmless ones.
        let mut block = GeneBlock::<R>::ONES;
        let mut n = [R::ZERO; LANES];
        for i in 0..used {
            let from = &dispersion.genes[genes[i] as usize / LANES];
            let lane = genes[i] as usize % LANES;
            block.theta[i] = from.theta[lane];
            block.inverse_shifted[i] = from.inverse_shifted[lane];
            block.slope[i] = from.slope[lane];
            block.value[i] = from.value[lane];
            block.derivative[i] = from.derivative[lane];
            n[i] = counts[i];
        }
        let mut value = [R::ZERO; LANES];
        let mut derivative = [R::ZERO; LANES];
        for i in 0..LANES {
            (value[i], derivative[i]) = rising_differences(n[i], &block.rising(i));
        }
        value[used..].fill(R::ZERO);
        sum.add(start / LANES, &value);
        if GRADIENT {
            for i in 0..used {
                let d = &mut d_log_theta[genes[i] as usize];
                *d -= scale * derivative[i];
            }
        }
    }
}

/// D and E of every gene of the dense row `x`.
#[inline(always)]
fn counts_in_place<R: Real, const GRADIENT: bool>(
    x: &[R],
    dispersion: &Dispersion<R>,
    scale: R,
    d_log_theta: &mut [R],
    sum: &mut Sum<R>,
) {
    let (x_blocks, x_tail) = x.as_chunks::<LANES>();
    let (d_blocks, d_tail) = d_log_theta.as_chunks_mut::<LANES>();
    for (b, x) in x_blocks.iter().enumerate() {
        let (value, derivative) = counts_block(b, x, dispersion);
        sum.add(b, &value);
        if GRADIENT {
            d_blocks[b] = subtract_scaled(&d_blocks[b], scale, &derivative);
        }
    }
    if !x_tail.is_empty() {
        let b = x_blocks.len();
        let (value, derivative) = counts_block(b, &padded(x_tail, R::ZERO), dispersion);
        sum.add(b, &value);
        if GRADIENT {
            copy_back(d_tail, &subtract_scaled(&padded(d_tail, R::ZERO), scale, &derivative));
        }
    }
}

/// D and E for one block of genes: by table below K (as selections, there being no gather), by Stirling's series above.
#[inline(always)]
fn counts_block<R: Real>(b: usize, x: &Block<R>, dispersion: &Dispersion<R>) -> (Block<R>, Block<R>) {
    let k_max = table_counts::<R>();
    let shift = R::of(k_max as f64);
    let (x, genes) = (*x, dispersion.genes[b]);
    let table = &dispersion.table[b * k_max..(b + 1) * k_max];
    let mut value = [R::ZERO; LANES];
    let mut derivative = [R::ZERO; LANES];
    for i in 0..LANES {
        let n = x[i] - shift;
        let is_large = n >= R::ZERO;
        let (d, e) = rising_differences(n.larger(R::ZERO), &genes.rising(i));
        let mut d = if is_large { d } else { R::ZERO };
        let mut e = if is_large { e } else { R::ZERO };
        for k in 2..k_max {
            let (table_d, table_e) = (table[k][0][i], table[k][1][i]);
            let here = x[i] == R::of(k as f64);
            d = if here { table_d } else { d };
            e = if here { table_e } else { e };
        }
        value[i] = d;
        derivative[i] = e;
    }
    (value, derivative)
}

/// Sum of `f` in four parallel sums, so that additions need not wait for each other.
#[inline(always)]
pub(super) fn sum_four<T>(items: &[T], f: impl Fn(&T) -> f64) -> f64 {
    let mut sums = [0.0; 4];
    let (fours, rest) = items.as_chunks::<4>();
    for four in fours {
        for lane in 0..4 {
            sums[lane] += f(&four[lane]);
        }
    }
    for (sum, item) in sums.iter_mut().zip(rest) {
        *sum += f(item);
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// log library - logsumexp(logits), given library / sum exp(logit - top); 0 for a cell without counts, where it is
/// multiplied by counts of zero.
#[inline(always)]
fn log_offset<R: Real>(mean_scale: f64, top: f64) -> R {
    R::of(if mean_scale == 0.0 { 0.0 } else { Real::ln(mean_scale) - top })
}

/// Largest of `values`; NaN are passed over (they reach the sums by themselves).
#[inline(always)]
pub(super) fn largest<R: Real>(values: &[R]) -> R {
    let mut top = [-R::INFINITY; LANES];
    let (blocks, tail) = values.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            top[i] = block[i].larger(top[i]);
        }
    }
    for (top, &v) in top.iter_mut().zip(tail) {
        *top = v.larger(*top);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            top[i] = top[i + width].larger(top[i]);
        }
        width /= 2;
    }
    top[0]
}

/// `rates = exp(logits - top)` and their sum.
#[inline(always)]
pub(super) fn exponentials<R: Real>(logits: &[R], top: R, rates: &mut [Block<R>]) -> f64 {
    let mut total = Sum::new();
    let (blocks, tail) = logits.as_chunks::<LANES>();
    for (b, (block, rates)) in blocks.iter().zip(rates.iter_mut()).enumerate() {
        for i in 0..LANES {
            rates[i] = (block[i] - top).exp_nonpositive();
        }
        total.add(b, rates);
    }
    if !tail.is_empty() {
        let mut last = padded(tail, top);
        for (i, rate) in last.iter_mut().enumerate() {
            let here = (*rate - top).exp_nonpositive();
            *rate = if i < tail.len() { here } else { R::ZERO };
        }
        rates[blocks.len()] = last;
        total.add(blocks.len(), &last);
    }
    total.total()
}

/// The incomplete last block, completed by `with`. Copied in pieces of fixed size: a call of memcpy takes longer.
#[inline(always)]
pub(super) fn padded<R: Real>(tail: &[R], with: R) -> Block<R> {
    let mut block = [with; LANES];
    copy_pieces(&mut block, tail, tail.len());
    block
}

/// The used part of a block, back to where [`padded`] took it.
#[inline(always)]
pub(super) fn copy_back<R: Real>(tail: &mut [R], block: &Block<R>) {
    let n = tail.len();
    copy_pieces(tail, block, n);
}

#[inline(always)]
fn copy_pieces<R: Real>(to: &mut [R], from: &[R], n: usize) {
    let mut at = 0;
    if n == LANES {
        to[..LANES].copy_from_slice(&from[..LANES]);
        return;
    }
    if n & 8 != 0 {
        to[..8].copy_from_slice(&from[..8]);
        at = 8;
    }
    if n & 4 != 0 {
        to[at..at + 4].copy_from_slice(&from[at..at + 4]);
        at += 4;
    }
    if n & 2 != 0 {
        to[at..at + 2].copy_from_slice(&from[at..at + 2]);
        at += 2;
    }
    if n & 1 != 0 {
        to[at] = from[at];
    }
}

#[inline(always)]
fn subtract_scaled<R: Real>(from: &Block<R>, scale: R, values: &Block<R>) -> Block<R> {
    let mut result = [R::ZERO; LANES];
    for i in 0..LANES {
        result[i] = values[i].fma(-scale, from[i]);
    }
    result
}
