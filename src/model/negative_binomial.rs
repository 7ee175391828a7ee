//! Negative binomial likelihood of a cell's counts, fused with the softmax of the decoder's logits.
//!
//! Derivation and numerics: `derivations/negative_binomial.md`. Legend: `g` gene, `x` count, `mu = library * rho` mean,
//! `rho = softmax(logits)`, `theta = exp(log_theta)` inverse dispersion (variance `mu + mu^2 / theta`), `t = mu / theta`.
//! All values are in nats. Everything is kept in log space, so no constant is added inside any logarithm; the variant
//! that adds one is [`forward_backward_with_epsilon`].
//!
//! Rows are worked through in blocks of [`LANES`] genes, the last one padded. Sums run over `LANES` parallel sums in f64,
//! whatever the vector width, so results have the same bits on every instruction set.

use crate::data::counts::CountsRow;
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::numerics::special::{LnFactorial, Rising, rising_differences, stirling_tails, table_counts};

/// Genes per block, and parallel sums of every reduction: the single-precision lanes of the widest vectors.
pub const LANES: usize = 16;

type Block<R> = [R; LANES];
type Sums = [f64; LANES];

/// |log_theta| is clamped here, far outside what data can tell from the Poisson or from the all-or-nothing limit, so that
/// theta, 1 / theta and their products with means and counts stay normal numbers in single precision.
const LOG_THETA_LIMIT: f64 = 40.0;

/// Values that depend on log_theta only, per gene; derived once per step and shared by all cells.
#[derive(Debug, Clone)]
pub struct Dispersion<R> {
    n_genes: usize,
    /// theta; genes in blocks, padded with 1.
    theta: Vec<Block<R>>,
    /// 1 / theta
    inverse_theta: Vec<Block<R>>,
    /// The fields of [`Rising`], gene by gene.
    inverse_shifted: Vec<Block<R>>,
    slope: Vec<Block<R>>,
    value: Vec<Block<R>>,
    derivative: Vec<Block<R>>,
    /// D(x, theta) for x < K; K x padded genes. Rows 0 and 1 are zero.
    table_value: Vec<R>,
    /// E(x, theta), likewise.
    table_derivative: Vec<R>,
}

impl<R: Real> Dispersion<R> {
    /// For `n_genes` genes, with theta = 1 until the first [`update`](Self::update).
    pub fn new(n_genes: usize) -> Self {
        let n_blocks = n_genes.div_ceil(LANES);
        let blocks = || vec![[R::ONE; LANES]; n_blocks];
        let table = || vec![R::ZERO; table_counts::<R>() * n_blocks * LANES];
        let mut new = Self {
            n_genes,
            theta: blocks(),
            inverse_theta: blocks(),
            inverse_shifted: blocks(),
            slope: blocks(),
            value: blocks(),
            derivative: blocks(),
            table_value: table(),
            table_derivative: table(),
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
        let n_padded = self.theta.len() * LANES;
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
                value[i] = value[i] + (j_ * inverse[i]).ln_1p();
                derivative[i] = derivative[i] - j_ / (theta[i] + j_);
            }
            if j + 1 < k_max {
                let at = (j + 1) * n_padded + b * LANES;
                self.table_value[at..at + LANES].copy_from_slice(&value);
                self.table_derivative[at..at + LANES].copy_from_slice(&derivative);
            }
        }
        let shift = R::of(k_max as f64);
        let mut inverse_shifted = [R::ZERO; LANES];
        let mut slope = [R::ZERO; LANES];
        for i in 0..LANES {
            inverse_shifted[i] = R::ONE / (theta[i] + shift);
            slope[i] = (shift * inverse[i]).ln_1p();
            let (s, p) = stirling_tails(inverse_shifted[i]);
            value[i] = value[i] - s;
            derivative[i] = derivative[i] + theta[i] * p;
        }
        self.theta[b] = theta;
        self.inverse_theta[b] = inverse;
        self.inverse_shifted[b] = inverse_shifted;
        self.slope[b] = slope;
        self.value[b] = value;
        self.derivative[b] = derivative;
    }

    #[inline(always)]
    fn rising(&self, b: usize, i: usize) -> Rising<R> {
        Rising {
            theta: self.theta[b][i],
            inverse_shifted: self.inverse_shifted[b][i],
            slope: self.slope[b][i],
            value: self.value[b][i],
            derivative: self.derivative[b][i],
        }
    }
}

/// Working memory of one cell; reused for all cells of a block of rows.
#[derive(Debug, Clone)]
pub struct Scratch<R> {
    /// exp(logit - largest logit); n_genes, in blocks.
    rates: Vec<Block<R>>,
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
/// Eqs. (N3), (N6) and (N7); the mean is given twice, because `mu` may underflow where `log_mu` does not.
#[inline(always)]
pub fn entry<R: Real>(x: R, mu: R, log_mu: R, theta: R, inverse_theta: R) -> (R, R, R) {
    let t = mu * inverse_theta;
    let (log, excess, reciprocal) = t.ln_1p_and_reciprocal();
    let total = x + theta;
    let by_log_mu = (x - mu) * reciprocal;
    let value = x * log_mu - total * log;
    // Eq. (N7a) cancels for large t, Eq. (N7b) for small t.
    let small = t * by_log_mu - theta * excess;
    let large = total * (t * reciprocal) - theta * log;
    (value, by_log_mu, if t < R::ONE { small } else { large })
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
            let log_offset = log_offset(library, top, total);
            let mean_scale = R::of(library.f64() / total);

            let mut value: Sums = [0.0; LANES];
            let mut by_logit: Sums = [0.0; LANES];
            let (blocks, tail) = logits.as_chunks_mut::<LANES>();
            let (x_blocks, x_tail) = x.as_chunks::<LANES>();
            let (d_blocks, d_tail) = d_log_theta.as_chunks_mut::<LANES>();
            let n_whole = blocks.len();
            for b in 0..n_whole {
                let (v, d, a) = dense_block(b, &blocks[b], &x_blocks[b], log_offset, mean_scale, dispersion, scratch);
                add(&mut value, &v);
                add(&mut by_logit, &d);
                blocks[b] = d;
                d_blocks[b] = subtract_scaled(&d_blocks[b], scale, &a);
            }
            if !tail.is_empty() {
                let (l, x) = (padded(tail, R::ZERO), padded(x_tail, R::ZERO));
                let (v, d, a) = dense_block(n_whole, &l, &x, log_offset, mean_scale, dispersion, scratch);
                add(&mut value, &v);
                add(&mut by_logit, &d);
                tail.copy_from_slice(&d[..tail.len()]);
                let sum = subtract_scaled(&padded(d_tail, R::ZERO), scale, &a);
                d_tail.copy_from_slice(&sum[..d_tail.len()]);
            }

            // d log p / d logit_g = d_g - rho_g sum_h d_h, Eq. (N8).
            let centre = R::of(tree(&by_logit) / total);
            for (block, rates) in blocks.iter_mut().zip(&scratch.rates) {
                for i in 0..LANES {
                    block[i] = scale * (rates[i] * centre - block[i]);
                }
            }
            for (l, &rate) in tail.iter_mut().zip(&scratch.rates[scratch.rates.len().min(n_whole)..].as_flattened()[..])
            {
                *l = scale * (rate * centre - *l);
            }

            let counts = count_part::<R, true>(nonzero, ln_factorial, dispersion, Some(x), scale, d_log_theta, scratch);
            -(tree(&value) + counts)
        },
    )
}

/// Sum over a cell's non-zero counts of D(x, theta) - ln x!, the part of log p that does not depend on the mean.
pub fn count_terms<R: Real>(nonzero: CountsRow<'_>, dispersion: &Dispersion<R>, scratch: &mut Scratch<R>) -> f64 {
    let ln_factorial = LnFactorial::new();
    vectorized(
        #[inline(always)]
        || count_part::<R, false>(nonzero, ln_factorial, dispersion, None, R::ZERO, &mut [], scratch),
    )
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
            let mut total: Sums = [0.0; LANES];
            let mut weighted: Sums = [0.0; LANES];
            let mut count: Sums = [0.0; LANES];
            // sum x log mu = sum x logit + (log library - logsumexp) sum x, Eq. (N2).
            let (blocks, tail) = logits.as_chunks_mut::<LANES>();
            let (x_blocks, x_tail) = x.as_chunks::<LANES>();
            let mut last = padded(tail, top);
            let last_x = padded(x_tail, R::ZERO);
            for (l, x) in blocks.iter_mut().zip(x_blocks) {
                add(&mut weighted, &exponential_block(l, x, top));
                add(&mut total, l);
                add(&mut count, x);
            }
            if !tail.is_empty() {
                add(&mut weighted, &exponential_block(&mut last, &last_x, top));
                last[tail.len()..].fill(R::ZERO);
                add(&mut total, &last);
                add(&mut count, &last_x);
            }

            let total = tree(&total);
            let mean_scale = R::of(library.f64() / total);
            let mut log_sum: Sums = [0.0; LANES];
            for (b, (rates, x)) in blocks.iter().zip(x_blocks).enumerate() {
                add(&mut log_sum, &log_block(b, rates, x, mean_scale, dispersion));
            }
            if !tail.is_empty() {
                add(&mut log_sum, &log_block(blocks.len(), &last, &last_x, mean_scale, dispersion));
            }
            let n_counts = tree(&count);
            let mean_part = if library > R::ZERO || library.f64().is_nan() {
                n_counts * (Real::ln(library.f64()) - Real::ln(total))
            } else {
                0.0
            };
            -(tree(&weighted) + mean_part - tree(&log_sum) + count_terms)
        },
    )
}

/// As [`forward_backward`], with `epsilon` added inside each logarithm of the density (Eq. (N11)), as the published
/// reference does with 1e-8. Not fused; the density is no longer normalised.
pub fn forward_backward_with_epsilon<R: Real>(
    logits_then_gradient: &mut [R],
    x: &[R],
    nonzero: CountsRow<'_>,
    library: R,
    dispersion: &Dispersion<R>,
    scale: R,
    epsilon: R,
    d_log_theta: &mut [R],
    scratch: &mut Scratch<R>,
) -> f64 {
    let n_genes = dispersion.n_genes;
    assert!(logits_then_gradient.len() == n_genes && x.len() == n_genes && d_log_theta.len() == n_genes);
    let logits = logits_then_gradient;
    rates(logits);
    let mut value = 0.0;
    let mut by_logit = 0.0;
    for g in 0..n_genes {
        let theta = dispersion.theta.as_flattened()[g];
        let (v, d, a) = entry_with_epsilon(x[g], library * logits[g], theta, epsilon);
        value += v.f64();
        by_logit += d.f64();
        d_log_theta[g] = d_log_theta[g] - scale * a;
        scratch.rates.as_flattened_mut()[g] = d;
    }
    let centre = R::of(by_logit);
    for (l, &d) in logits.iter_mut().zip(scratch.rates.as_flattened()) {
        *l = scale * (*l * centre - d);
    }
    let ln_factorial = LnFactorial::new();
    value += count_part::<R, true>(nonzero, ln_factorial, dispersion, Some(x), scale, d_log_theta, scratch);
    -value
}

/// As [`entry`], with `epsilon` inside each logarithm: Eqs. (N11) to (N13), h = theta + epsilon, T = mu / h.
#[inline(always)]
fn entry_with_epsilon<R: Real>(x: R, mu: R, theta: R, epsilon: R) -> (R, R, R) {
    let h = theta + epsilon;
    let t = mu / h;
    let (log, excess) = t.ln_1p_pair();
    let total = h + mu;
    // x = 0 must not meet ln 0.
    let count_part = if x > R::ZERO { x * ((mu + epsilon).ln() - (epsilon / theta).ln_1p()) } else { R::ZERO };
    let value = count_part - (x + theta) * log;
    let share = if x > R::ZERO { mu / (mu + epsilon) } else { R::ZERO };
    let by_log_mu = x * share - (x + theta) * (mu / total);
    let from_count = x * (epsilon + mu) / total;
    let small = from_count - theta * excess - theta * (mu / total) * (epsilon / h + t);
    let large = from_count + theta * (theta / h) * (mu / total) - theta * log;
    (value, by_log_mu, if t < R::ONE { small } else { large })
}

/// Softmax in place: logits (n_genes) become rates rho that sum to one.
pub fn rates<R: Real>(logits: &mut [R]) {
    vectorized(
        #[inline(always)]
        || {
            let top = largest(logits);
            let mut total: Sums = [0.0; LANES];
            let (blocks, tail) = logits.as_chunks_mut::<LANES>();
            for block in blocks.iter_mut() {
                for l in block.iter_mut() {
                    *l = (*l - top).exp();
                }
                add(&mut total, block);
            }
            for l in tail.iter_mut() {
                *l = (*l - top).exp();
            }
            add(&mut total, &padded(tail, R::ZERO));
            let inverse = R::of(1.0 / tree(&total));
            for l in logits.iter_mut() {
                *l = *l * inverse;
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
    let (theta, inverse) = (&dispersion.theta[b], &dispersion.inverse_theta[b]);
    let mut result = [R::ZERO; LANES];
    for i in 0..LANES {
        let t = rates[i] * mean_scale * inverse[i];
        result[i] = (x[i] + theta[i]) * t.ln_1p_and_reciprocal().0;
    }
    result
}

/// Values of [`entry`] for one block of genes.
#[inline(always)]
fn dense_block<R: Real>(
    b: usize,
    logits: &Block<R>,
    x: &Block<R>,
    log_offset: R,
    mean_scale: R,
    dispersion: &Dispersion<R>,
    scratch: &Scratch<R>,
) -> (Block<R>, Block<R>, Block<R>) {
    let (rates, theta, inverse_theta) = (&scratch.rates[b], &dispersion.theta[b], &dispersion.inverse_theta[b]);
    let mut value = [R::ZERO; LANES];
    let mut by_log_mu = [R::ZERO; LANES];
    let mut by_log_theta = [R::ZERO; LANES];
    for i in 0..LANES {
        let (v, d, a) = entry(x[i], rates[i] * mean_scale, logits[i] + log_offset, theta[i], inverse_theta[i]);
        value[i] = v;
        by_log_mu[i] = d;
        by_log_theta[i] = a;
    }
    (value, by_log_mu, by_log_theta)
}

/// Sum of D - ln x! over the non-zero counts; with `GRADIENT`, `d_log_theta -= scale * E`.
///
/// Small counts are table rows (rows 0 and 1 are zero, so no branch is taken); large ones are collected and evaluated
/// in blocks, or, where they are most of the row `x`, in place over all genes.
#[inline(always)]
fn count_part<R: Real, const GRADIENT: bool>(
    nonzero: CountsRow<'_>,
    ln_factorial: LnFactorial,
    dispersion: &Dispersion<R>,
    x: Option<&[R]>,
    scale: R,
    d_log_theta: &mut [R],
    scratch: &mut Scratch<R>,
) -> f64 {
    let k_max = table_counts::<R>();
    let n_padded = dispersion.theta.len() * LANES;
    // Four sums, so that additions need not wait for each other.
    let mut sums = [0.0f64; 4];
    let mut turn = 0;
    let mut n_large = 0;
    nonzero.for_each(
        #[inline(always)]
        |g, count| {
            let is_large = count as usize >= k_max;
            let row = if is_large { 0 } else { count as usize };
            let at = row * n_padded + g;
            sums[turn & 3] += dispersion.table_value[at].f64() - ln_factorial.of(count);
            turn += 1;
            if GRADIENT {
                d_log_theta[g] = d_log_theta[g] - scale * dispersion.table_derivative[at];
            }
            scratch.large_genes[n_large] = g as u32;
            scratch.large_counts[n_large] = R::of_count(count.wrapping_sub(k_max as u32));
            n_large += is_large as usize;
        },
    );
    scratch.n_large = n_large;
    let mut value: Sums = [0.0; LANES];
    match x {
        Some(x) if GRADIENT && 4 * n_large >= dispersion.n_genes => {
            large_in_place(x, dispersion, scale, d_log_theta, &mut value);
        }
        _ => large_collected::<R, GRADIENT>(dispersion, scale, d_log_theta, scratch, &mut value),
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + tree(&value)
}

/// D and E of the collected large counts.
#[inline(always)]
fn large_collected<R: Real, const GRADIENT: bool>(
    dispersion: &Dispersion<R>,
    scale: R,
    d_log_theta: &mut [R],
    scratch: &Scratch<R>,
    sum: &mut Sums,
) {
    for start in (0..scratch.n_large).step_by(LANES) {
        let used = (scratch.n_large - start).min(LANES);
        let genes = &scratch.large_genes[start..start + LANES];
        let counts = &scratch.large_counts[start..start + LANES];
        let mut gathered = [Rising::default(); LANES];
        for i in 0..used {
            let g = genes[i] as usize;
            gathered[i] = dispersion.rising(g / LANES, g % LANES);
        }
        let mut value = [R::ZERO; LANES];
        let mut derivative = [R::ZERO; LANES];
        for i in 0..LANES {
            (value[i], derivative[i]) = rising_differences(counts[i], &gathered[i]);
        }
        value[used..].fill(R::ZERO);
        add(sum, &value);
        if GRADIENT {
            for i in 0..used {
                let g = genes[i] as usize;
                d_log_theta[g] = d_log_theta[g] - scale * derivative[i];
            }
        }
    }
}

/// D and E of the large counts of the dense row `x`, computed for every gene and kept for the large.
#[inline(always)]
fn large_in_place<R: Real>(x: &[R], dispersion: &Dispersion<R>, scale: R, d_log_theta: &mut [R], sum: &mut Sums) {
    let (x_blocks, x_tail) = x.as_chunks::<LANES>();
    let (d_blocks, d_tail) = d_log_theta.as_chunks_mut::<LANES>();
    for (b, (x, d)) in x_blocks.iter().zip(d_blocks).enumerate() {
        let (value, derivative) = large_block(b, x, dispersion);
        add(sum, &value);
        *d = subtract_scaled(d, scale, &derivative);
    }
    if !x_tail.is_empty() {
        let (value, derivative) = large_block(x_blocks.len(), &padded(x_tail, R::ZERO), dispersion);
        add(sum, &value);
        let last = subtract_scaled(&padded(d_tail, R::ZERO), scale, &derivative);
        d_tail.copy_from_slice(&last[..d_tail.len()]);
    }
}

/// D and E of the large counts of one block of genes, zero elsewhere.
#[inline(always)]
fn large_block<R: Real>(b: usize, x: &Block<R>, dispersion: &Dispersion<R>) -> (Block<R>, Block<R>) {
    let shift = R::of(table_counts::<R>() as f64);
    let mut value = [R::ZERO; LANES];
    let mut derivative = [R::ZERO; LANES];
    for i in 0..LANES {
        let n = x[i] - shift;
        let is_large = n >= R::ZERO;
        let (d, e) = rising_differences(n.larger(R::ZERO), &dispersion.rising(b, i));
        value[i] = if is_large { d } else { R::ZERO };
        derivative[i] = if is_large { e } else { R::ZERO };
    }
    (value, derivative)
}

/// log library - logsumexp(logits); 0 for a cell without counts, whose log mu is multiplied by counts of zero.
#[inline(always)]
fn log_offset<R: Real>(library: R, top: R, total: f64) -> R {
    let library = library.f64();
    if library == 0.0 { R::ZERO } else { R::of(Real::ln(library) - top.f64() - Real::ln(total)) }
}

/// Largest of `values`; NaN are passed over (they reach the sums by themselves).
#[inline(always)]
fn largest<R: Real>(values: &[R]) -> R {
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
    let mut result = top[0];
    for i in 1..LANES {
        result = top[i].larger(result);
    }
    result
}

/// `rates = exp(logits - top)` and their sum.
#[inline(always)]
fn exponentials<R: Real>(logits: &[R], top: R, rates: &mut [Block<R>]) -> f64 {
    let mut total: Sums = [0.0; LANES];
    let (blocks, tail) = logits.as_chunks::<LANES>();
    for (block, rates) in blocks.iter().zip(rates.iter_mut()) {
        for i in 0..LANES {
            rates[i] = (block[i] - top).exp_nonpositive();
        }
        add(&mut total, rates);
    }
    if !tail.is_empty() {
        let last = &mut rates[blocks.len()];
        let block = padded(tail, top);
        for i in 0..LANES {
            last[i] = (block[i] - top).exp_nonpositive();
        }
        last[tail.len()..].fill(R::ZERO);
        add(&mut total, last);
    }
    tree(&total)
}

#[inline(always)]
fn padded<R: Real>(tail: &[R], with: R) -> Block<R> {
    let mut block = [with; LANES];
    for (b, &v) in block.iter_mut().zip(tail) {
        *b = v;
    }
    block
}

#[inline(always)]
fn add<R: Real>(sums: &mut Sums, values: &Block<R>) {
    for i in 0..LANES {
        sums[i] += values[i].f64();
    }
}

#[inline(always)]
fn subtract_scaled<R: Real>(from: &Block<R>, scale: R, values: &Block<R>) -> Block<R> {
    let mut result = [R::ZERO; LANES];
    for i in 0..LANES {
        result[i] = from[i] - scale * values[i];
    }
    result
}

/// Sum of the lanes, pairwise.
#[inline(always)]
fn tree(sums: &Sums) -> f64 {
    let mut s = *sums;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            s[i] += s[i + width];
        }
        width /= 2;
    }
    s[0]
}
