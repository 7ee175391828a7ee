//! ReLU and dropout, which always come together. Derivation: `derivations/activation.md`.

use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;

/// Forward in place, Eq. (R1): h = max(v, 0) * keep; keep: dropout factors of the same shape, if any.
pub fn forward<R: Real>(v: &mut [R], keep: Option<&[R]>) {
    vectorized(
        #[inline(always)]
        || {
            for v in v.iter_mut() {
                *v = positive_part(*v);
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

/// max(u, 0), written so that a NaN passes through.
#[inline(always)]
fn positive_part<R: Real>(u: R) -> R {
    if u < R::ZERO { R::ZERO } else { u }
}

/// [`batch_norm::forward`](super::batch_norm::forward), then [`forward`], in one pass. out, y, keep: n x H; others: H.
pub fn after_batch_norm<R: Real>(
    out: &mut [R],
    y: &[R],
    mean: &[R],
    inverse: &[R],
    gamma: &[R],
    beta: &[R],
    keep: Option<&[R]>,
) {
    let h = mean.len();
    let (inverse, gamma, beta) = (&inverse[..h], &gamma[..h], &beta[..h]);
    vectorized(
        #[inline(always)]
        || match keep {
            None => {
                for (out, y) in out.chunks_exact_mut(h).zip(y.chunks_exact(h)) {
                    for j in 0..h {
                        let u = ((y[j] - mean[j]) * inverse[j]).fma(gamma[j], beta[j]);
                        out[j] = positive_part(u);
                    }
                }
            }
            Some(keep) => {
                for ((out, y), keep) in out.chunks_exact_mut(h).zip(y.chunks_exact(h)).zip(keep.chunks_exact(h)) {
                    for j in 0..h {
                        let u = ((y[j] - mean[j]) * inverse[j]).fma(gamma[j], beta[j]);
                        out[j] = positive_part(u) * keep[j];
                    }
                }
            }
        },
    );
}

/// [`backward`], then [`batch_norm::block_gradient_sums`](super::batch_norm::block_gradient_sums), in one pass.
///
/// d, out, keep, y: n x H; sums: 2 H; others: H.
pub fn backward_with_sums<R: Real>(
    d: &mut [R],
    sums: &mut [R],
    out: &[R],
    keep: Option<&[R]>,
    y: &[R],
    mean: &[R],
    inverse: &[R],
) {
    let h = mean.len();
    let inverse = &inverse[..h];
    let (d_beta, d_gamma) = sums.split_at_mut(h);
    let d_gamma = &mut d_gamma[..h];
    vectorized(
        #[inline(always)]
        || {
            d_beta.fill(R::ZERO);
            d_gamma.fill(R::ZERO);
            for (row, (d, out)) in d.chunks_exact_mut(h).zip(out.chunks_exact(h)).enumerate() {
                let y = &y[row * h..(row + 1) * h];
                match keep {
                    None => {
                        for j in 0..h {
                            d[j] = if out[j] > R::ZERO { d[j] } else { R::ZERO };
                        }
                    }
                    Some(keep) => {
                        let keep = &keep[row * h..(row + 1) * h];
                        for j in 0..h {
                            d[j] = if out[j] > R::ZERO { d[j] * keep[j] } else { R::ZERO };
                        }
                    }
                }
                for j in 0..h {
                    d_beta[j] += d[j];
                    d_gamma[j] = ((y[j] - mean[j]) * inverse[j]).fma(d[j], d_gamma[j]);
                }
            }
        },
    );
}
