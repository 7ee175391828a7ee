//! Linear layer: y = x W_x^T + c W_c^T + b, with x the input, c covariates injected beside it. Derivation: `derivations/linear.md`.

use crate::numerics::matmul::{Accumulate, Rows, a_b, a_bt, at_b};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;

/// Forward, Eq. (L1). y: B x n_out, x: B x n_in, covariates: B x n_c, weight: n_out x (n_in + n_c), bias: n_out.
pub fn forward<R: Real>(y: &mut [R], x: Rows<R>, covariates: Option<Rows<R>>, weight: &[R], bias: &[R], n_in: usize) {
    let n_out = bias.len();
    vectorized(
        #[inline(always)]
        || y.chunks_exact_mut(n_out).for_each(|row| row.copy_from_slice(bias)),
    );
    let width = weight.len() / n_out;
    a_bt(y, Accumulate::Add, x, Rows::strided(weight, n_out, n_in, width));
    if let Some(c) = covariates {
        a_bt(y, Accumulate::Add, c, Rows::strided(&weight[n_in..], n_out, width - n_in, width));
    }
}

/// As [`forward`], with the transpose of the weight, (n_in + n_c) x n_out, which a product need not turn round: for weights that
/// many products share.
pub fn forward_transposed<R: Real>(
    y: &mut [R],
    x: Rows<R>,
    covariates: Option<Rows<R>>,
    transpose: &[R],
    bias: &[R],
    n_in: usize,
) {
    let n_out = bias.len();
    vectorized(
        #[inline(always)]
        || y.chunks_exact_mut(n_out).for_each(|row| row.copy_from_slice(bias)),
    );
    multiply_transposed(y, Accumulate::Add, x, covariates, transpose, n_in, n_out);
}

/// [`forward_transposed`] without the bias.
pub fn multiply_transposed<R: Real>(
    y: &mut [R],
    into: Accumulate,
    x: Rows<R>,
    covariates: Option<Rows<R>>,
    transpose: &[R],
    n_in: usize,
    n_out: usize,
) {
    let (of_input, of_covariates) = transpose.split_at(n_in * n_out);
    a_b(y, into, x, Rows::new(of_input, n_in, n_out));
    if let Some(c) = covariates {
        a_b(y, Accumulate::Add, c, Rows::new(of_covariates, of_covariates.len() / n_out, n_out));
    }
}

/// Gradient of the input, Eq. (L2). d_x: B x n_in, d_y: B x n_out, weight as in [`forward`].
pub fn backward_input<R: Real>(d_x: &mut [R], into: Accumulate, d_y: Rows<R>, weight: &[R], n_in: usize, n_out: usize) {
    a_b(d_x, into, d_y, Rows::strided(weight, n_out, n_in, weight.len() / n_out));
}

/// Gradient of a tile of output rows, Eqs. (L3)-(L4).
///
/// d_weight: the tile's rows of the weight's gradient (t x (n_in + n_c)), d_bias: its t biases; d_y: the tile's
/// columns of the output's gradient (B x t, strided). Both are overwritten.
pub fn backward_parameters<R: Real>(
    d_weight: &mut [R],
    d_bias: &mut [R],
    d_y: Rows<R>,
    x: Rows<R>,
    covariates: Option<Rows<R>>,
    n_in: usize,
) {
    let width = d_weight.len() / d_bias.len();
    at_b(d_weight, width, Accumulate::Replace, d_y, x);
    if let Some(c) = covariates {
        at_b(&mut d_weight[n_in..], width, Accumulate::Replace, d_y, c);
    }
    backward_bias(d_bias, d_y);
}

/// Gradient of the bias, Eq. (L4), overwritten. d_y: B x (length of d_bias).
pub fn backward_bias<R: Real>(d_bias: &mut [R], d_y: Rows<R>) {
    vectorized(
        #[inline(always)]
        || {
            d_bias.fill(R::ZERO);
            for row in d_y.iter() {
                for (d_bias, &d_y) in d_bias.iter_mut().zip(row) {
                    *d_bias += d_y;
                }
            }
        },
    );
}
