//! Layer normalisation over the features of one cell, without scale and offset. Derivation: `derivations/layer_norm.md`.

use crate::numerics::real::Real;

/// Added to the variance before its root (PyTorch's default).
pub const EPSILON: f64 = 1e-5;

/// Forward in place, Eq. (Y1), row by row: v = (u - mean) / sqrt(variance + epsilon).
///
/// rows: n x H; statistics: n x 2, receives mean and inverse deviation of each row.
pub fn forward<R: Real>(rows: &mut [R], statistics: &mut [R], h: usize) {
    let scale = R::ONE / R::from_f64(h as f64);
    for (row, statistics) in rows.chunks_exact_mut(h).zip(statistics.chunks_exact_mut(2)) {
        let mean = row.iter().copied().sum::<R>() * scale;
        let variance = row.iter().map(|&u| (u - mean) * (u - mean)).sum::<R>() * scale;
        let inverse = R::ONE / (variance + R::from_f64(EPSILON)).sqrt();
        for u in row {
            *u = (*u - mean) * inverse;
        }
        statistics.copy_from_slice(&[mean, inverse]);
    }
}

/// Gradient of one row's input, in place, Eq. (Y2): d holds d_v on entry and d_u on exit; u: the row's input.
pub fn backward_row<R: Real>(d: &mut [R], u: &[R], statistics: &[R]) {
    let (mean, inverse) = (statistics[0], statistics[1]);
    let scale = R::ONE / R::from_f64(d.len() as f64);
    let sum = d.iter().copied().sum::<R>() * scale;
    let product = d.iter().zip(u).map(|(&d, &u)| d * (u - mean) * inverse).sum::<R>() * scale;
    for (d, &u) in d.iter_mut().zip(u) {
        *d = inverse * (*d - sum - (u - mean) * inverse * product);
    }
}
