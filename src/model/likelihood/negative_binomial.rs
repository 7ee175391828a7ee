//! Negative binomial likelihood of a cell's counts, fused with the softmax of the decoder's logits.
//!
//! Derivation and numerics: `derivations/negative_binomial.md`. Legend: `g` gene, `x` count, `mu = library * rho` mean,
//! `rho = softmax(logits)`, `theta = exp(log_theta)` inverse dispersion (variance `mu + mu^2 / theta`), `t = mu / theta`.
//! All values are in nats. Everything is kept in log space, so no constant is added inside any logarithm; the variant
//! that adds one is [`super::with_epsilon`].

use crate::data::counts::in_memory::CountsRow;
use crate::model::likelihood::blocks::{
    Block, CellCounts, LANES, Scratch, Sum, copy_back, exponentials, largest, padded, subtract_scaled, sum_four,
};
use crate::model::likelihood::dispersion::{Dispersion, GeneBlock};
use crate::model::likelihood::poisson;
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::numerics::special::{LnFactorial, rising_differences, table_counts};
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};

/// One count without its count-only part: `(log p - D + ln x!, d log p / d log mu, d log p / d log theta - E)`,
/// Eq. (N3) and Eqs. (N6)-(N8); the mean is given twice, because `mu` may underflow where `log_mu` does not.
#[inline(always)]
pub fn count_gradient<R: Real>(x: R, mu: R, log_mu: R, theta: R, inverse_theta: R) -> (R, R, R) {
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

/// A density with inverse dispersions, as [`value_and_gradient`] reads it: its genes in blocks.
pub trait GeneDensity<R: Real> {
    /// What it needs of a block of genes.
    type Genes: Copy;

    /// Genes in blocks, the last one padded.
    fn genes(&self) -> &[Self::Genes];

    /// What the part of the counts needs, which is the same for all.
    fn dispersion(&self) -> &Dispersion<R>;

    /// One count without its count-only part, of lane `i`: as [`count_gradient`].
    fn count_gradient(genes: &Self::Genes, i: usize, x: R, mu: R, log_mu: R) -> (R, R, R);
}

impl<R: Real> GeneDensity<R> for Dispersion<R> {
    type Genes = GeneBlock<R>;

    #[inline(always)]
    fn genes(&self) -> &[GeneBlock<R>] {
        &self.genes
    }

    #[inline(always)]
    fn dispersion(&self) -> &Dispersion<R> {
        self
    }

    #[inline(always)]
    fn count_gradient(genes: &GeneBlock<R>, i: usize, x: R, mu: R, log_mu: R) -> (R, R, R) {
        count_gradient(x, mu, log_mu, genes.theta[i], genes.inverse_theta[i])
    }
}

/// One cell, training. `logits_then_gradient` (n_genes) holds the logits and receives the gradient of
/// `scale * (-log p)` with respect to them; `d_log_theta` (n_genes) is added the same for log_theta.
///
/// Returns -log p, unscaled. Non-finite inputs give a non-finite result, never a panic.
///
/// # Panics
/// If a length is wrong.
pub fn value_and_gradient<R: Real, D: GeneDensity<R>>(
    logits_then_gradient: &mut [R],
    cell: CellCounts<'_, R>,
    density: &D,
    scale: R,
    d_log_theta: &mut [R],
    scratch: &mut Scratch<R>,
) -> f64 {
    let CellCounts { x, nonzero, library } = cell;
    let (genes, dispersion) = (density.genes(), density.dispersion());
    let n_genes = dispersion.n_genes();
    assert!(logits_then_gradient.len() == n_genes && x.len() == n_genes && d_log_theta.len() == n_genes);
    let (n_nonzero, ln_factorial) = (nonzero.len(), LnFactorial::new());
    assert!(n_nonzero <= n_genes && scratch.rates.len() * LANES >= n_genes);
    vectorized(
        #[inline(always)]
        || {
            let logits = logits_then_gradient;
            let top = largest(logits);
            let total = exponentials(logits, top, &mut scratch.rates);
            let mean_scale = library.to_f64() / total;
            let row = RowConstants {
                log_offset: log_offset(mean_scale, top.to_f64()),
                mean_scale: R::from_f64(mean_scale),
                scale,
            };

            let mut value: Sum<R> = Sum::new();
            let mut by_logit: Sum<R> = Sum::new();
            let (blocks, tail) = logits.as_chunks_mut::<LANES>();
            let (x_blocks, x_tail) = x.as_chunks::<LANES>();
            let (d_blocks, d_tail) = d_log_theta.as_chunks_mut::<LANES>();
            let n_whole = blocks.len();
            let rates = &scratch.rates[..];
            for b in 0..n_whole {
                let (l, d) = (&mut blocks[b], &mut d_blocks[b]);
                let sums = [&mut value.lanes, &mut by_logit.lanes];
                dense_block::<R, D>(l, d, sums, &x_blocks[b], &rates[b], &genes[b], row);
                value.end_block(b);
                by_logit.end_block(b);
            }
            if !tail.is_empty() {
                let (mut l, mut d, x) = (padded(tail, R::ZERO), padded(d_tail, R::ZERO), padded(x_tail, R::ZERO));
                let sums = [&mut value.lanes, &mut by_logit.lanes];
                dense_block::<R, D>(&mut l, &mut d, sums, &x, &rates[n_whole], &genes[n_whole], row);
                copy_back(tail, &l);
                copy_back(d_tail, &d);
            }

            // d log p / d logit_g = d_g - rho_g sum_h d_h, Eq. (N9).
            let centre = R::from_f64(by_logit.total() / total);
            for (l, &rate) in logits.iter_mut().zip(scratch.rates.as_flattened()) {
                *l = scale * rate.fma(centre, -*l);
            }

            let counts = count_part::<R, true>(nonzero, ln_factorial, dispersion, x, scale, d_log_theta, scratch);
            -(value.total() + counts)
        },
    )
}

/// A count with this mean and inverse dispersion: Poisson about a gamma.
pub fn draw(mean: f64, theta: f64, random: &mut ChaCha8Rng) -> u32 {
    // Beyond these the gamma is one number and its sampler has nothing to do.
    let rate = match Gamma::new(theta, mean / theta) {
        Ok(gamma) if theta < 1e12 => gamma.sample(random),
        _ => mean,
    };
    poisson::draw(rate, random)
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
            if is_mostly_nonzero(nonzero, dispersion.n_genes()) {
                dense.fill(R::ZERO);
                nonzero.for_each(
                    #[inline(always)]
                    |g, count| dense[g] = R::of_count(count),
                );
            }
            let dense = &dense[..dispersion.n_genes()];
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
///
/// # Panics
/// If a length is wrong.
pub fn value<R: Real>(logits: &mut [R], cell: CellCounts<'_, R>, dispersion: &Dispersion<R>, count_terms: f64) -> f64 {
    let CellCounts { x, library, .. } = cell;
    let n_genes = dispersion.n_genes();
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

            let mean_scale = library.to_f64() / total.total();
            let log_offset: R = log_offset(mean_scale, 0.0);
            let mean_scale = R::from_f64(mean_scale);
            let mut log_sum: Sum<R> = Sum::new();
            for (b, (rates, x)) in blocks.iter().zip(x_blocks).enumerate() {
                log_sum.add(b, &log_block(b, rates, x, mean_scale, dispersion));
            }
            if !tail.is_empty() {
                log_sum.add(blocks.len(), &log_block(blocks.len(), &last, &last_x, mean_scale, dispersion));
            }
            -(weighted.total() + log_offset.to_f64() * count.total() - log_sum.total() + count_terms)
        },
    )
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

/// [`GeneDensity::count_gradient`] for one block of genes: logits become d log p / d log mu, `d_log_theta` is added to.
#[inline(always)]
fn dense_block<R: Real, D: GeneDensity<R>>(
    logits: &mut Block<R>,
    d_log_theta: &mut Block<R>,
    [value, by_logit]: [&mut Block<R>; 2],
    x: &Block<R>,
    rates: &Block<R>,
    genes: &D::Genes,
    row: RowConstants<R>,
) {
    // Local copies, so that the compiler knows that nothing overlaps.
    let (mut l, mut a, mut v, mut s) = (*logits, *d_log_theta, *value, *by_logit);
    let (x, rates, genes) = (*x, *rates, *genes);
    for i in 0..LANES {
        let (v_i, d_i, a_i) = D::count_gradient(&genes, i, x[i], rates[i] * row.mean_scale, l[i] + row.log_offset);
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
    let sum = if is_mostly_nonzero(nonzero, dispersion.n_genes()) {
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
    values.to_f64() - ln_factorials
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
    let shift = R::from_f64(k_max as f64);
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
            let here = x[i] == R::from_f64(k as f64);
            d = if here { table_d } else { d };
            e = if here { table_e } else { e };
        }
        value[i] = d;
        derivative[i] = e;
    }
    (value, derivative)
}

/// log library - logsumexp(logits), given library / sum exp(logit - top); 0 for a cell without counts, where it is
/// multiplied by counts of zero.
#[inline(always)]
fn log_offset<R: Real>(mean_scale: f64, top: f64) -> R {
    R::from_f64(if mean_scale == 0.0 { 0.0 } else { Real::ln(mean_scale) - top })
}
