//! Gumbel-sigmoid masks: which latents an intervention targets, drawn once per cell. Derivation: `derivations/mask.md`.

use crate::model::architecture::MaskKind;
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;

/// Logit that every mask starts from: all interventions target all latents (model of the paper, reference code).
pub const INITIAL: f64 = 5.0;

/// Logit of a mask that is on beyond doubt, in either precision: where masks are integrated out, all start here.
pub const OPEN: f64 = 40.0;

/// Logit of a mask that is switched off: a probability of 0.05, at which a gradient still moves it, Eq. (M8).
pub const OFF: f64 = -3.0;

/// Logit of a mask that is switched on: a probability of 0.88.
pub const ON: f64 = 2.0;

/// Logistic function, without overflow at either end, Eq. (M1).
#[inline(always)]
pub fn sigmoid<R: Real>(s: R) -> R {
    let e = Real::exp(-s.abs());
    let inverse = R::ONE / (R::ONE + e);
    if s < R::ZERO { e * inverse } else { inverse }
}

/// Derivative of the logistic function, Eq. (M2); exact to rounding also where the function is near 0 or 1.
#[inline(always)]
pub fn sigmoid_derivative<R: Real>(s: R) -> R {
    let e = Real::exp(-s.abs());
    let inverse = R::ONE / (R::ONE + e);
    e * inverse * inverse
}

/// ln(1 + e^s), without overflow, Eq. (M3).
#[inline(always)]
pub fn softplus<R: Real>(s: R) -> R {
    let positive = if s > R::ZERO { s } else { R::ZERO };
    positive + Real::ln_1p(Real::exp(-s.abs()))
}

/// Forward, Eqs. (M4)-(M5): mask = y or 1\[y > 1/2\], y = sigmoid((logit + noise) / temperature).
///
/// All L long. `slope` receives dy/dlogit, Eq. (M6), which the hard mask passes on too, Eq. (M7).
pub fn forward<R: Real>(mask: &mut [R], slope: &mut [R], logit: &[R], noise: &[R], kind: MaskKind, temperature: R) {
    let inverse = R::ONE / temperature;
    let hard = kind == MaskKind::Hard;
    let n = mask.len();
    let (slope, logit, noise) = (&mut slope[..n], &logit[..n], &noise[..n]);
    vectorized(
        #[inline(always)]
        || {
            for k in 0..n {
                let s = (logit[k] + noise[k]) * inverse;
                slope[k] = sigmoid_derivative(s) * inverse;
                // y > 1/2 exactly when s > 0; the sign is not subject to rounding.
                let thresholded = if s > R::ZERO { R::ONE } else { R::ZERO };
                mask[k] = if hard { thresholded } else { sigmoid(s) };
            }
        },
    );
}

/// Probability of each mask, Eq. (M1), into `mask`, and its derivative in the logit, Eq. (M2), into `slope`. All L long.
pub fn probabilities<R: Real>(mask: &mut [R], slope: &mut [R], logit: &[R]) {
    let n = mask.len();
    let (slope, logit) = (&mut slope[..n], &logit[..n]);
    vectorized(
        #[inline(always)]
        || {
            for k in 0..n {
                mask[k] = sigmoid(logit[k]);
                slope[k] = sigmoid_derivative(logit[k]);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eq. (M8).
    fn mean_slope(l: f64) -> f64 {
        let e = f64::exp(l);
        e * (l * (e + 1.0) - 2.0 * (e - 1.0)) / (e - 1.0).powi(3)
    }

    #[test]
    fn a_mask_that_is_switched_off_still_moves() {
        let n = 100_000;
        let noise: Vec<f64> = (0..n).map(|i| (i as f64 + 0.5) / n as f64).map(|t| f64::ln(t / (1.0 - t))).collect();
        let (mut mask, mut slope) = (vec![0.0; n], vec![0.0; n]);
        for l in [OFF, -1.0, 0.5, 5.0] {
            forward(&mut mask, &mut slope, &vec![l; n], &noise, MaskKind::Hard, 1.0);
            let mean = |values: &[f64]| values.iter().sum::<f64>() / n as f64;
            assert!((mean(&slope) - mean_slope(l)).abs() < 1e-7, "{l}: {} {}", mean(&slope), mean_slope(l));
            assert!((mean(&mask) - sigmoid(l)).abs() < 1e-5, "{l}: {}", mean(&mask));
        }
        assert!((mean_slope(OFF) / (1.0 / 6.0) - 0.43).abs() < 0.005);
    }
}
