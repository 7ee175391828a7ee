//! ReLU and dropout, which always come together. Derivation: `derivations/activation.md`.

use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;

/// Forward in place, Eq. (R1): h = max(v, 0) * keep; keep: dropout factors of the same shape, if any.
pub fn forward<R: Real>(v: &mut [R], keep: Option<&[R]>) {
    vectorized(
        #[inline(always)]
        || {
            for v in v.iter_mut() {
                // Written so that a NaN passes through.
                *v = if *v < R::ZERO { R::ZERO } else { *v };
            }
            if let Some(keep) = keep {
                for (v, &keep) in v.iter_mut().zip(keep) {
                    *v *= keep;
                }
            }
        },
    );
}

/// Gradient in place, Eq. (R2): d holds d_h on entry and d_v on exit; h: output of [`forward`].
///
/// Where a unit was dropped, h = 0 and the gradient is 0 either way, so the sign of h stands for that of v.
pub fn backward<R: Real>(d: &mut [R], h: &[R], keep: Option<&[R]>) {
    vectorized(
        #[inline(always)]
        || {
            for (d, &h) in d.iter_mut().zip(h) {
                *d = if h > R::ZERO { *d } else { R::ZERO };
            }
            if let Some(keep) = keep {
                for (d, &keep) in d.iter_mut().zip(keep) {
                    *d *= keep;
                }
            }
        },
    );
}
