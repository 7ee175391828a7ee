//! Batch normalisation over the cells of a minibatch. Derivation: `derivations/batch_norm.md`.
//!
//! A minibatch is worked on in row blocks; sums over the batch are formed per block and then over blocks in order,
//! so that they are the same on any number of threads.

use crate::numerics::real::Real;
use crate::numerics::simd::{by_columns, columns, columns_mut, vectorized};

/// Added to the variance before its root (scvi-tools).
pub const EPSILON: f64 = 0.001;
/// Weight of a minibatch in the running statistics (scvi-tools).
pub const MOMENTUM: f64 = 0.01;

/// Mean and sum of squared deviations of each feature over the rows of a block, Eq. (B1).
///
/// moments: mean (H) then squared deviations (H); y: n x H.
pub fn block_moments<R: Real>(moments: &mut [R], y: &[R]) {
    let h = moments.len() / 2;
    vectorized(
        #[inline(always)]
        || by_columns!(h, columns_block_moments(moments, y)),
    );
}

#[inline(always)]
fn columns_block_moments<R: Real, const W: usize>(from: usize, moments: &mut [R], y: &[R]) {
    let h = moments.len() / 2;
    let n = y.len() / h;
    let (mut mean, mut squares) = ([R::ZERO; W], [R::ZERO; W]);
    for row in (0..y.len()).step_by(h) {
        let y = columns::<R, W>(y, row + from);
        for j in 0..W {
            mean[j] += y[j];
        }
    }
    let scale = R::ONE / R::from_f64(n.max(1) as f64);
    for j in 0..W {
        mean[j] *= scale;
    }
    for row in (0..y.len()).step_by(h) {
        let y = columns::<R, W>(y, row + from);
        for j in 0..W {
            let deviation = y[j] - mean[j];
            squares[j] = deviation.fma(deviation, squares[j]);
        }
    }
    *columns_mut(moments, from) = mean;
    *columns_mut(moments, h + from) = squares;
}

/// Moments of the whole minibatch from those of its blocks, in order, Eq. (B2). Blocks without rows count for nothing.
///
/// mean, squares: H; blocks: per block mean (H) and squared deviations (H); rows(i): number of rows of block i.
pub fn combine_moments<R: Real>(mean: &mut [R], squares: &mut [R], blocks: &[R], rows: impl Fn(usize) -> usize) {
    let h = mean.len();
    vectorized(
        #[inline(always)]
        || {
            mean.fill(R::ZERO);
            squares.fill(R::ZERO);
            let mut seen = 0;
            for (i, block) in blocks.chunks_exact(2 * h).enumerate() {
                let n = rows(i);
                if n == 0 {
                    continue;
                }
                let total = seen + n;
                let share = R::from_f64(n as f64 / total as f64);
                let weight = R::from_f64(seen as f64 * n as f64 / total as f64);
                let (block_mean, block_squares) = block.split_at(h);
                for j in 0..h {
                    let delta = block_mean[j] - mean[j];
                    mean[j] = delta.fma(share, mean[j]);
                    squares[j] += (delta * delta).fma(weight, block_squares[j]);
                }
                seen = total;
            }
        },
    );
}

/// Moves the running statistics towards a minibatch of n rows: its mean and its unbiased variance, Eq. (B4).
pub fn update_running<R: Real>(
    running_mean: &mut [R],
    running_variance: &mut [R],
    mean: &[R],
    squares: &[R],
    n: usize,
) {
    let momentum = R::from_f64(MOMENTUM);
    let keep = R::from_f64(1.0 - MOMENTUM);
    // One row has no unbiased variance; torch refuses it, here the running variance is then left alone.
    let unbiased = (n > 1).then(|| R::ONE / R::from_f64((n - 1) as f64));
    for j in 0..mean.len() {
        running_mean[j] = keep * running_mean[j] + momentum * mean[j];
        if let Some(unbiased) = unbiased {
            running_variance[j] = keep * running_variance[j] + momentum * (squares[j] * unbiased);
        }
    }
}

/// 1 / sqrt(variance + epsilon), from squared deviations over n rows, Eq. (B3).
pub fn inverse_deviation<R: Real>(inverse: &mut [R], squares: &[R], n: usize) {
    let scale = R::ONE / R::from_f64(n as f64);
    for (inverse, &squares) in inverse.iter_mut().zip(squares) {
        *inverse = R::ONE / (squares * scale + R::from_f64(EPSILON)).sqrt();
    }
}

/// Forward, Eq. (B3): u = gamma (y - mean) inverse + beta. u, y: n x H; others: H.
pub fn forward<R: Real>(u: &mut [R], y: &[R], mean: &[R], inverse: &[R], gamma: &[R], beta: &[R]) {
    let h = mean.len();
    let (inverse, gamma, beta) = (&inverse[..h], &gamma[..h], &beta[..h]);
    vectorized(
        #[inline(always)]
        || {
            for (u, y) in u.chunks_exact_mut(h).zip(y.chunks_exact(h)) {
                for j in 0..h {
                    u[j] = ((y[j] - mean[j]) * inverse[j]).fma(gamma[j], beta[j]);
                }
            }
        },
    );
}

/// Sums over a block's rows that the backward needs, Eq. (B5): of d_u (H) and of d_u * y_hat (H), into `sums`.
///
/// d_u, y: n x H.
pub fn block_gradient_sums<R: Real>(sums: &mut [R], d_u: &[R], y: &[R], mean: &[R], inverse: &[R]) {
    let h = mean.len();
    let inverse = &inverse[..h];
    let (d_beta, d_gamma) = sums.split_at_mut(h);
    let d_gamma = &mut d_gamma[..h];
    vectorized(
        #[inline(always)]
        || {
            d_beta.fill(R::ZERO);
            d_gamma.fill(R::ZERO);
            for (d_u, y) in d_u.chunks_exact(h).zip(y.chunks_exact(h)) {
                for j in 0..h {
                    d_beta[j] += d_u[j];
                    d_gamma[j] = ((y[j] - mean[j]) * inverse[j]).fma(d_u[j], d_gamma[j]);
                }
            }
        },
    );
}

/// Gradients of offset and scale: the sums over blocks, in order, Eq. (B5). d_beta, d_gamma: H.
pub fn combine_gradient_sums<R: Real>(d_beta: &mut [R], d_gamma: &mut [R], blocks: &[R]) {
    let h = d_beta.len();
    vectorized(
        #[inline(always)]
        || {
            d_beta.fill(R::ZERO);
            d_gamma.fill(R::ZERO);
            for block in blocks.chunks_exact(2 * h) {
                for j in 0..h {
                    d_beta[j] += block[j];
                    d_gamma[j] += block[h + j];
                }
            }
        },
    );
}

/// Gradient of the input, in place, Eq. (B6): d holds d_u on entry and d_y on exit. n: rows of the whole minibatch.
pub fn backward<R: Real>(
    d: &mut [R],
    y: &[R],
    mean: &[R],
    inverse: &[R],
    gamma: &[R],
    d_beta: &[R],
    d_gamma: &[R],
    n: usize,
) {
    let h = mean.len();
    vectorized(
        #[inline(always)]
        || by_columns!(h, columns_backward(d, y, mean, inverse, gamma, d_beta, d_gamma, n)),
    );
}

#[inline(always)]
fn columns_backward<R: Real, const W: usize>(
    from: usize,
    d: &mut [R],
    y: &[R],
    mean: &[R],
    inverse: &[R],
    gamma: &[R],
    d_beta: &[R],
    d_gamma: &[R],
    n: usize,
) {
    let h = mean.len();
    let share = R::ONE / R::from_f64(n as f64);
    let [mean, inverse, gamma] = [mean, inverse, gamma].map(|values| *columns::<R, W>(values, from));
    let [d_beta, d_gamma] = [d_beta, d_gamma].map(|values| *columns::<R, W>(values, from));
    for row in (0..d.len()).step_by(h) {
        let (d, y) = (columns_mut::<R, W>(d, row + from), columns::<R, W>(y, row + from));
        for j in 0..W {
            let y_hat = (y[j] - mean[j]) * inverse[j];
            let centred = d[j] - share * (y_hat * d_gamma[j] + d_beta[j]);
            d[j] = gamma[j] * inverse[j] * centred;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_without_rows_count_for_nothing() {
        let moments = |blocks: &[f64], rows: &[usize]| {
            let (mut mean, mut squares) = ([0.0], [0.0]);
            combine_moments(&mut mean, &mut squares, blocks, |i| rows[i]);
            (mean[0], squares[0])
        };
        let whole = moments(&[3.0, 2.0, 5.0, 8.0], &[4, 2]);
        assert_eq!(moments(&[0.0, 0.0, 3.0, 2.0, 7.0, 9.0, 5.0, 8.0], &[0, 4, 0, 2]), whole);
        assert_eq!(moments(&[1.0, 1.0], &[0]), (0.0, 0.0));
    }
}
