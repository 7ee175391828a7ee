//! Small symmetric matrices, by plain loops: the same bits on every processor.

use crate::numerics::real::Real;

/// The inverse of a positive definite matrix of which the lower triangle is given (n x n), by its Cholesky factor; `None` if a pivot
/// is not positive.
pub fn inverse(lower: &[f64], n: usize) -> Option<Vec<f64>> {
    inverse_and_log_determinant(lower, n).map(|(inverse, _)| inverse)
}

/// [`inverse`], and the logarithm of the determinant of the matrix.
pub fn inverse_and_log_determinant(lower: &[f64], n: usize) -> Option<(Vec<f64>, f64)> {
    let mut factor = vec![0.0; n * n];
    let mut log_determinant = 0.0;
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| factor[i * n + k] * factor[j * n + k]).sum();
            let rest = lower[i * n + j] - dot;
            factor[i * n + j] = if i != j {
                rest / factor[j * n + j]
            } else if rest > 0.0 && rest.is_finite() {
                log_determinant += Real::ln(rest);
                rest.sqrt()
            } else {
                return None;
            };
        }
    }
    // The factor's inverse, row by row: each is a sum of those above it.
    let mut half = vec![0.0; n * n];
    for i in 0..n {
        let (above, row) = half.split_at_mut(i * n);
        for (k, above) in above.chunks_exact(n).enumerate() {
            let weight = -factor[i * n + k] / factor[i * n + i];
            row[..=k].iter_mut().zip(above).for_each(|(to, x)| *to += weight * x);
        }
        row[i] = 1.0 / factor[i * n + i];
    }
    let mut inverse = vec![0.0; n * n];
    for row in half.chunks_exact(n).enumerate().map(|(k, row)| &row[..=k]) {
        for (i, &weight) in row.iter().enumerate() {
            inverse[i * n..i * n + i + 1].iter_mut().zip(row).for_each(|(to, x)| *to += weight * x);
        }
    }
    for i in 0..n {
        for j in 0..i {
            inverse[j * n + i] = inverse[i * n + j];
        }
    }
    Some((inverse, log_determinant))
}

/// Eigenvalues and eigenvectors (columns) of a symmetric matrix, by cyclic Jacobi rotations.
pub fn eigen(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut v = vec![0.0; n * n];
    (0..n).for_each(|i| v[i * n + i] = 1.0);
    for _sweep in 0..60 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        let diagonal: f64 = (0..n).map(|i| a[i * n + i].powi(2)).sum();
        if off <= 1e-26 * diagonal || off == 0.0 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = a[p * n + q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    let (akp, akq) = (a[k * n + p], a[k * n + q]);
                    a[k * n + p] = c * akp - s * akq;
                    a[k * n + q] = s * akp + c * akq;
                }
                for k in 0..n {
                    let (apk, aqk) = (a[p * n + k], a[q * n + k]);
                    a[p * n + k] = c * apk - s * aqk;
                    a[q * n + k] = s * apk + c * aqk;
                    let (vkp, vkq) = (v[k * n + p], v[k * n + q]);
                    v[k * n + p] = c * vkp - s * vkq;
                    v[k * n + q] = s * vkp + c * vkq;
                }
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_times_its_inverse_is_one() {
        let n = 7;
        let wave = |i: usize, j: usize| ((3 * i + 5 * j) as f64).sin();
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                matrix[i * n + j] = (0..n).map(|k| wave(i, k) * wave(j, k)).sum::<f64>() + f64::from(u8::from(i == j));
            }
        }
        let inverse = inverse(&matrix, n).expect("positive definite");
        for i in 0..n {
            for j in 0..n {
                let got: f64 = (0..n).map(|k| matrix[i * n + k] * inverse[k * n + j]).sum();
                assert!((got - f64::from(u8::from(i == j))).abs() < 1e-12, "{i} {j}: {got}");
            }
        }
        assert_eq!(super::inverse(&[1.0, 2.0, 2.0, 1.0], 2), None);
    }

    #[test]
    fn eigenvalues_agree_with_an_independent_library() {
        let n = 9;
        let b: Vec<f64> = (0..n * n).map(|i| (i as f64 * 1.7 + 0.3).sin()).collect();
        let a: Vec<f64> = (0..n * n).map(|i| (0..n).map(|k| b[(i / n) * n + k] * b[(i % n) * n + k]).sum()).collect();
        let mut found = eigen(a.clone(), n).0;
        let mut wanted: Vec<f64> =
            nalgebra::DMatrix::from_row_slice(n, n, &a).symmetric_eigenvalues().iter().copied().collect();
        found.sort_by(f64::total_cmp);
        wanted.sort_by(f64::total_cmp);
        assert!(found.iter().zip(&wanted).all(|(f, w)| (f - w).abs() < 1e-10), "{found:?} {wanted:?}");
    }
}
