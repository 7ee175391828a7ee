//! Inverse dispersions of negative binomial counts, gene by gene, given the means: maximum likelihood, and the log-likelihood.
//!
//! Mean and inverse dispersion parametrise the negative binomial: x ~ NB(mu, theta), variance mu + mu^2/theta.

use std::ops::Range;

use crate::data::counts::ScreenCounts;
use crate::error::Result;

/// Smallest inverse dispersion considered.
pub const THETA_MIN: f64 = 1e-6;
/// Largest inverse dispersion considered: the Poisson distribution for every practical purpose.
pub const THETA_MAX: f64 = 1e8;
/// Up to this count, sums over 0..x are taken term by term; beyond it, Stirling's series is exact to rounding.
const DIRECT: u32 = 512;

/// Non-zero counts of some cells, gene by gene.
pub(crate) struct ByGene {
    offsets: Vec<usize>,
    /// Position in the list of cells, not the cell's own number.
    positions: Vec<u32>,
    counts: Vec<u32>,
}

impl ByGene {
    /// The counts of `genes` in `cells`; `sizes` says how many each gene has.
    pub(crate) fn gather(counts: &ScreenCounts, cells: &[usize], genes: Range<usize>, sizes: &[usize]) -> Result<Self> {
        let mut offsets = vec![0usize];
        for (g, size) in sizes.iter().enumerate() {
            offsets.push(offsets[g] + size);
        }
        let mut next = offsets.clone();
        let held = offsets[genes.len()];
        let (mut positions, mut values) = (vec![0; held], vec![0; held]);
        counts.visit(cells, |i, row| {
            row.for_each(|g, x| {
                if genes.contains(&g) {
                    let slot = &mut next[g - genes.start];
                    positions[*slot] = i as u32;
                    values[*slot] = x;
                    *slot += 1;
                }
            });
        })?;
        Ok(Self { offsets, positions, counts: values })
    }

    pub(crate) fn gene(&self, g: usize) -> (&[u32], &[u32]) {
        let range = self.offsets[g]..self.offsets[g + 1];
        (&self.positions[range.clone()], &self.counts[range])
    }
}

/// Maximum-likelihood inverse dispersion of one gene, given the mean `mu` of every cell and its non-zero counts.
///
/// Near the Poisson limit the likelihood rises with theta when sum((x - mu)^2 - x) <= 0, no variance beyond Poisson:
/// then theta = [`THETA_MAX`]. Otherwise a zero of the derivative is found by Newton's method on log theta, kept inside
/// a shrinking bracket by bisection, from the moment estimate sum(mu^2) / sum((x - mu)^2 - x).
pub fn fit_theta(mu: &[f64], positions: &[u32], counts: &[u32]) -> f64 {
    let squares: f64 = mu.iter().map(|m| m * m).sum();
    let entries = || positions.iter().zip(counts).map(|(&i, &x)| (mu[i as usize], x as f64));
    let excess = squares + entries().map(|(m, x)| x * (x - 2.0 * m - 1.0)).sum::<f64>();
    // Written so that a NaN (a mean that is not finite) ends here too.
    if excess.is_nan() || excess <= 0.0 {
        return THETA_MAX;
    }
    // above[k]: cells whose count exceeds k.
    let top = counts.iter().copied().max().unwrap_or(0).min(DIRECT) as usize;
    let mut above = vec![0.0; top];
    let mut large = Vec::new();
    for &x in counts {
        if let Some(last) = above.get_mut((x.min(DIRECT) as usize).wrapping_sub(1)) {
            *last += 1.0;
        }
        if x > DIRECT {
            large.push(x as f64);
        }
    }
    for k in (1..top).rev() {
        above[k - 1] += above[k];
    }

    let (mut low, mut high) = (THETA_MIN.ln(), THETA_MAX.ln());
    let mut u = (squares / excess).ln().clamp(low, high);
    for _ in 0..100 {
        let theta = u.exp();
        // d/dtheta and d2/dtheta2 of the log-likelihood; digamma differences are sums over 0..x of 1/(theta + k).
        let (mut d1, mut d2) = (0.0, 0.0);
        for (k, &cells) in above.iter().enumerate() {
            let r = 1.0 / (theta + k as f64);
            d1 += cells * r;
            d2 -= cells * r * r;
        }
        for &x in &large {
            let (d, t) = psi_differences(theta + DIRECT as f64, x - DIRECT as f64);
            d1 += d;
            d2 += t;
        }
        for (m, x) in entries() {
            let r = 1.0 / (theta + m);
            d1 -= x * r;
            d2 += x * r * r;
        }
        let all = dense_sums(theta, mu);
        d1 += all.share - all.log;
        d2 += all.share / theta - all.share_squared;

        let (slope, curvature) = (theta * d1, theta * d1 + theta * theta * d2);
        if slope > 0.0 {
            low = u;
        } else {
            high = u;
        }
        let newton = u - slope / curvature;
        let next = if curvature < 0.0 && newton > low && newton < high { newton } else { 0.5 * (low + high) };
        let moved = (next - u).abs();
        u = next;
        if moved < 1e-10 || high - low < 1e-10 {
            break;
        }
    }
    u.exp()
}

/// Sums over all cells of log(1 + mu/theta), mu/(theta + mu) and mu/(theta + mu)^2.
struct DenseSums {
    log: f64,
    share: f64,
    share_squared: f64,
}

fn dense_sums(theta: f64, mu: &[f64]) -> DenseSums {
    const LANES: usize = 8;
    // Products of eight factors 1 + mu/theta share one logarithm; they overflow only beyond mu/theta = 1e38.
    const DEPTH: usize = 8;
    let inverse = 1.0 / theta;
    let (mut log, mut share, mut share_squared) = (0.0, [0.0; LANES], [0.0; LANES]);
    let chunks = mu.chunks_exact(LANES * DEPTH);
    let rest = chunks.remainder();
    for chunk in chunks {
        let mut product = [1.0; LANES];
        for row in chunk.chunks_exact(LANES) {
            for i in 0..LANES {
                let r = 1.0 / (theta + row[i]);
                product[i] *= 1.0 + row[i] * inverse;
                share[i] += row[i] * r;
                share_squared[i] += row[i] * r * r;
            }
        }
        log += product.iter().map(|p: &f64| p.ln()).sum::<f64>();
    }
    let (mut share, mut share_squared) = (share.iter().sum::<f64>(), share_squared.iter().sum::<f64>());
    for &m in rest {
        let r = 1.0 / (theta + m);
        log += (m * inverse).ln_1p();
        share += m * r;
        share_squared += m * r * r;
    }
    DenseSums { log, share, share_squared }
}

/// digamma(a + d) - digamma(a) and trigamma(a + d) - trigamma(a), by Stirling's series, for a of at least [`DIRECT`].
fn psi_differences(a: f64, d: f64) -> (f64, f64) {
    let (p, q) = (1.0 / a, 1.0 / (a + d));
    let first = |r: f64| -r / 2.0 - r * r / 12.0 + r.powi(4) / 120.0;
    let second = |r: f64| r + r * r / 2.0 + r.powi(3) / 6.0 - r.powi(5) / 30.0;
    ((d / a).ln_1p() + first(q) - first(p), second(q) - second(p))
}

/// Sum over `mu.len()` cells of -log NB(x; mu, theta), nats; cells not among `positions` have count 0.
pub fn negative_log_likelihood(theta: f64, mu: &[f64], positions: &[u32], counts: &[u32]) -> f64 {
    weighted_negative_log_likelihood(theta, mu, positions, counts, None)
}

/// As [`negative_log_likelihood`], with a weight of each cell where these are given.
pub(crate) fn weighted_negative_log_likelihood(
    theta: f64,
    mu: &[f64],
    positions: &[u32],
    counts: &[u32],
    weights: Option<&[f64]>,
) -> f64 {
    let weight = |i: usize| weights.map_or(1.0, |weights| weights[i]);
    // A count of 0 costs theta log(1 + mu/theta), and every count at least that much.
    let zeros: f64 = mu.iter().enumerate().map(|(i, m)| weight(i) * (theta * (m / theta).ln_1p())).sum();
    // rising[x] = log( theta (theta+1) .. (theta+x-1) / x! ), without the cancellation of lgamma differences.
    let top = counts.iter().copied().max().unwrap_or(0).min(DIRECT) as usize;
    let mut rising = Vec::with_capacity(top + 1);
    rising.push(0.0);
    for k in 0..top {
        rising.push(rising[k] + (theta + k as f64).ln() - (k as f64 + 1.0).ln());
    }
    let gains = positions.iter().zip(counts).map(|(&i, &x)| {
        let m = mu[i as usize];
        let direct = x.min(DIRECT) as usize;
        let mut value = rising[direct] + x as f64 * (m / (theta + m)).ln();
        if x > DIRECT {
            let (d, base) = ((x - DIRECT) as f64, DIRECT as f64);
            value += lgamma_difference(theta + base, d) - lgamma_difference(1.0 + base, d);
        }
        weight(i as usize) * value
    });
    zeros - gains.sum::<f64>()
}

/// lgamma(a + d) - lgamma(a) by Stirling's series, for a of at least [`DIRECT`].
fn lgamma_difference(a: f64, d: f64) -> f64 {
    let b = a + d;
    let series = |r: f64| r / 12.0 - r.powi(3) / 360.0;
    d * (b.ln() - 1.0) + (a - 0.5) * (d / a).ln_1p() + series(1.0 / b) - series(1.0 / a)
}
