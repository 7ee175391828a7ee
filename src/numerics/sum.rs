//! Sums in a fixed order, whatever the vector width.

use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;

/// Partial sums kept side by side.
const LANES: usize = 16;

/// The sum of `f` over `values`, in f64: sixteen partial sums, then those in order.
pub fn sum_of<R: Real>(values: &[R], f: impl Fn(R) -> R) -> f64 {
    let mut lanes = [0.0; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    vectorized(
        #[inline(always)]
        || {
            for chunk in chunks {
                for (lane, &value) in lanes.iter_mut().zip(chunk) {
                    *lane += f(value).to_f64();
                }
            }
            for (lane, &value) in lanes.iter_mut().zip(rest) {
                *lane += f(value).to_f64();
            }
        },
    );
    lanes.iter().sum()
}
