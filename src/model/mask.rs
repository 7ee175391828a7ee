//! Gumbel-sigmoid masks: which latents an intervention targets, drawn once per cell. Derivation: `derivations/mask.md`.

use super::architecture::MaskKind;
use crate::numerics::real::Real;

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
/// All L long. `slope` receives dy/dlogit, which is also the gradient that the hard mask passes on.
pub fn forward<R: Real>(mask: &mut [R], slope: &mut [R], logit: &[R], noise: &[R], kind: MaskKind, temperature: R) {
    let inverse = R::ONE / temperature;
    for k in 0..mask.len() {
        let s = (logit[k] + noise[k]) * inverse;
        let y = sigmoid(s);
        slope[k] = sigmoid_derivative(s) * inverse;
        mask[k] = match kind {
            MaskKind::Soft => y,
            // y > 1/2 exactly when s > 0; the sign is not subject to rounding.
            MaskKind::Hard => {
                if s > R::ZERO {
                    R::ONE
                } else {
                    R::ZERO
                }
            }
        };
    }
}
