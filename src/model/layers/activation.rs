//! ReLU and dropout, which always come together. Derivation: `derivations/activation.md`.

use crate::numerics::real::Real;
use crate::numerics::simd::{by_columns, columns, columns_mut, vectorized};

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

/// [`forward`] of `v` + `bias`. v: n x H, bias: H.
///
/// The addition is worth a pass of its own saved, and more: a maximum alone, in place, is compiled to stores under a mask, which take
/// some processors ten times as long.
pub fn forward_with_bias<R: Real>(v: &mut [R], bias: &[R]) {
    vectorized(
        #[inline(always)]
        || {
            for row in v.chunks_exact_mut(bias.len()) {
                for (v, &bias) in row.iter_mut().zip(bias) {
                    *v = positive_part(*v + bias);
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

/// [`batch_norm::forward`](crate::model::layers::batch_norm::forward), then [`forward`], in one pass. out, y, keep: n x H; others: H.
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
    vectorized(
        #[inline(always)]
        || by_columns!(h, columns_after_batch_norm(out, y, mean, inverse, gamma, beta, keep)),
    );
}

#[inline(always)]
fn columns_after_batch_norm<R: Real, const W: usize>(
    from: usize,
    out: &mut [R],
    y: &[R],
    mean: &[R],
    inverse: &[R],
    gamma: &[R],
    beta: &[R],
    keep: Option<&[R]>,
) {
    let h = mean.len();
    let [mean, inverse, gamma, beta] = [mean, inverse, gamma, beta].map(|values| *columns::<R, W>(values, from));
    for row in (0..out.len()).step_by(h) {
        let (out, y) = (columns_mut::<R, W>(out, row + from), columns::<R, W>(y, row + from));
        for j in 0..W {
            out[j] = positive_part(((y[j] - mean[j]) * inverse[j]).fma(gamma[j], beta[j]));
        }
        if let Some(keep) = keep {
            let keep = columns::<R, W>(keep, row + from);
            for j in 0..W {
                out[j] *= keep[j];
            }
        }
    }
}

/// [`backward`], then [`batch_norm::block_gradient_sums`](crate::model::layers::batch_norm::block_gradient_sums), in one pass.
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
    vectorized(
        #[inline(always)]
        || by_columns!(h, columns_backward_with_sums(d, sums, out, keep, y, mean, inverse)),
    );
}

#[inline(always)]
fn columns_backward_with_sums<R: Real, const W: usize>(
    from: usize,
    d: &mut [R],
    sums: &mut [R],
    out: &[R],
    keep: Option<&[R]>,
    y: &[R],
    mean: &[R],
    inverse: &[R],
) {
    let h = mean.len();
    let [mean, inverse] = [mean, inverse].map(|values| *columns::<R, W>(values, from));
    let (mut d_beta, mut d_gamma) = ([R::ZERO; W], [R::ZERO; W]);
    for row in (0..d.len()).step_by(h) {
        let (d, out) = (columns_mut::<R, W>(d, row + from), columns::<R, W>(out, row + from));
        if let Some(keep) = keep {
            let keep = columns::<R, W>(keep, row + from);
            for j in 0..W {
                d[j] *= keep[j];
            }
        }
        let y = columns::<R, W>(y, row + from);
        for j in 0..W {
            d[j] = if out[j] > R::ZERO { d[j] } else { R::ZERO };
            d_beta[j] += d[j];
            d_gamma[j] = ((y[j] - mean[j]) * inverse[j]).fma(d[j], d_gamma[j]);
        }
    }
    *columns_mut(sums, from) = d_beta;
    *columns_mut(sums, h + from) = d_gamma;
}
