//! Differences of lgamma and digamma that the negative binomial needs, and log factorials.
//!
//! For a count x and an inverse dispersion theta (derivations/negative_binomial.md, Eqs. (N4) and (N5)):
//!
//! - `D(x, theta) = lgamma(x + theta) - lgamma(theta) - x ln theta = sum over 0 <= j < x of ln(1 + j / theta)`
//! - `E(x, theta) = theta dD/dtheta = -sum over 0 <= j < x of j / (theta + j)`
//!
//! Both vanish at x = 0 and x = 1 and in the Poisson limit. Written as lgamma differences they lose every digit where
//! theta is much larger than x; nothing here subtracts such large values. Counts below [`table_counts`] are sums, kept
//! in a table per gene; larger counts continue the sum from K = `table_counts` by [`rising_differences`].

use crate::numerics::real::Real;
use std::sync::LazyLock;

/// K: counts below it are looked up as sums, counts from it on use Stirling's series, whose argument is then >= K.
///
/// 4 in single precision (three terms of the series leave 4e-8), 12 in double (seven terms leave 2e-18).
#[inline(always)]
pub fn table_counts<R: Real>() -> usize {
    if is_single::<R>() { 4 } else { 12 }
}

#[inline(always)]
fn is_single<R: Real>() -> bool {
    R::EPSILON.to_f64() > 1e-10
}

/// `S(y) = lgamma(y) - (y - 1/2) ln y + y - ln(2 pi)/2` and `P(y) = ln y - 1/(2y) - digamma(y)`, given 1/y, for y >= K.
#[inline(always)]
pub fn stirling_tails<R: Real>(inverse: R) -> (R, R) {
    /// B_2k / (2k (2k - 1)), highest order first.
    const S: [f64; 7] =
        [1.0 / 156.0, -691.0 / 360_360.0, 1.0 / 1188.0, -1.0 / 1680.0, 1.0 / 1260.0, -1.0 / 360.0, 1.0 / 12.0];
    /// B_2k / 2k, highest order first.
    const P: [f64; 7] =
        [1.0 / 12.0, -691.0 / 32_760.0, 1.0 / 132.0, -1.0 / 240.0, 1.0 / 252.0, -1.0 / 120.0, 1.0 / 12.0];
    let square = inverse * inverse;
    let first = if is_single::<R>() { 4 } else { 0 };
    let (mut s, mut p) = (R::from_f64(S[first]), R::from_f64(P[first]));
    for k in first + 1..7 {
        s = s.fma(square, R::from_f64(S[k]));
        p = p.fma(square, R::from_f64(P[k]));
    }
    (s * inverse, p * square)
}

/// What the Stirling form needs of a gene; depends on theta only. a = theta + K.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rising<R> {
    /// theta
    pub theta: R,
    /// 1 / a
    pub inverse_shifted: R,
    /// ln(a / theta) = ln(1 + K / theta)
    pub slope: R,
    /// D(K, theta) - S(a)
    pub value: R,
    /// E(K, theta) + theta P(a)
    pub derivative: R,
}

/// `(D(x, theta), E(x, theta))` for x = K + `excess_count`, excess_count >= 0, from Eqs. (N10) and (N11).
///
/// No term exceeds a small multiple of the result, at any theta: the terms of D that grow with theta were cancelled
/// on paper, and what is left of them is `w ln(1+w) + (ln(1+w) - w)`, which shrinks like w^2.
#[inline(always)]
pub fn rising_differences<R: Real>(excess_count: R, gene: &Rising<R>) -> (R, R) {
    let shift = R::from_f64(table_counts::<R>() as f64);
    let half = R::from_f64(0.5);
    let n = excess_count;
    let a = gene.theta + shift;
    let w = n * gene.inverse_shifted;
    let (log, excess, reciprocal) = w.ln_1p_and_reciprocal();
    let inverse = gene.inverse_shifted * reciprocal; // 1 / y, y = x + theta = a (1 + w)
    let (s, p) = stirling_tails(inverse);
    let value = gene.value + n * gene.slope + a * w.fma(log, excess) - half * log + s;
    let derivative = gene.derivative + a * excess - shift * log + gene.theta * (half * w * inverse - p);
    (value, derivative)
}

static LN_FACTORIALS: LazyLock<Vec<f64>> = LazyLock::new(|| (0..4096).map(|x| libm::lgamma(x as f64 + 1.0)).collect());

/// ln(x!) = lgamma(x + 1), in nats: a table below 4096, Stirling's series above (both within a few units in the last place).
#[derive(Debug, Clone, Copy)]
pub struct LnFactorial(&'static [f64]);

impl LnFactorial {
    /// The table, filled at the first call of the process.
    pub fn new() -> Self {
        Self(&LN_FACTORIALS)
    }

    /// ln(x!).
    #[inline(always)]
    pub fn of(self, x: u32) -> f64 {
        match self.0.get(x as usize) {
            Some(&value) => value,
            None => ln_factorial_by_series(x),
        }
    }
}

/// Out of line, or the compiler computes it for every count of a loop and then selects.
#[cold]
#[inline(never)]
fn ln_factorial_by_series(x: u32) -> f64 {
    let x = x as f64;
    // The next term is 1 / (1260 x^5), below 1e-21.
    let tail = (1.0 / 12.0 - 1.0 / (360.0 * x * x)) / x;
    x * (Real::ln(x) - 1.0) + 0.5 * Real::ln(std::f64::consts::TAU * x) + tail
}

impl Default for LnFactorial {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_factorial_agrees_with_the_product_and_is_continuous_at_the_end_of_the_table() {
        let ln_factorial = LnFactorial::new();
        let mut product = 1.0f64;
        for x in 1..=20u32 {
            product *= x as f64;
            assert!((ln_factorial.of(x) - product.ln()).abs() <= 4.0 * f64::EPSILON * product.ln());
        }
        for x in [4095, 4096, 4097, 65_535, 1_000_000, u32::MAX] {
            let want = libm::lgamma(x as f64 + 1.0);
            assert!((ln_factorial.of(x) - want).abs() <= 4.0 * f64::EPSILON * want, "{x}");
        }
    }

    #[test]
    fn stirling_tails_satisfy_their_recurrences() {
        // lgamma(y+1) = lgamma(y) + ln y and digamma(y+1) = digamma(y) + 1/y, rewritten for the tails.
        for y in [12.0f64, 13.7, 20.0, 100.0] {
            let (s0, p0) = stirling_tails(1.0 / y);
            let (s1, p1) = stirling_tails(1.0 / (y + 1.0));
            let (log, excess) = (1.0 / y).ln_1p_pair();
            let s = y * excess + 0.5 * log;
            assert!((s0 - s1 - s).abs() < 4.0 * f64::EPSILON, "S at {y}");
            let p = 1.0 / y - log + 0.5 / (y + 1.0) - 0.5 / y;
            assert!((p1 - p0 - (log - 0.5 / (y + 1.0) + 0.5 / y - 1.0 / y)).abs() < f64::EPSILON, "P at {y}: {p}");
        }
    }
}
