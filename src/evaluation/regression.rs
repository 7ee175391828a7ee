//! How much of the true latents a linear map of the inferred ones explains (R2).

use faer::Mat;

use crate::evaluation::columns::{Columns, TILE};
use crate::evaluation::correlation::Latents;

/// A direction of the inferred latents is spurious when less than this share of a column's norm remains after those
/// before it.
const RANK_TOLERANCE: f64 = 1e-12;

/// Coefficient of determination of the least-squares regression, with intercept, of each true latent on all inferred
/// ones.
///
/// `inferred` is N x K, `truth` N x L. Returns the plain average over the L true latents of 1 - (residual sum of
/// squares)/(total sum of squares), each measured on the cells that were fitted, as scikit-learn's
/// `LinearRegression().fit(inferred, truth).score(inferred, truth)` does. A true latent that does not vary counts 1, as
/// there.
///
/// Columns are centred and scaled to unit norm, and `[inferred | truth]` is reduced tile by tile to the triangle of its
/// QR decomposition, so nothing is squared and memory does not grow with N. Constant, duplicate and dependent inferred
/// latents are harmless: the small triangle is decomposed again with column pivoting and only its significant rows are
/// used.
///
/// # Panics
/// If the tables differ in their number of cells.
pub fn linear_r2(inferred: Latents, truth: Latents) -> f64 {
    let n = inferred.n_cells();
    assert_eq!(n, truth.n_cells(), "both tables hold the same cells");
    let (k, l) = (inferred.n_latents(), truth.n_latents());
    let x = Columns::new(n, k, |r, c| inferred.at(r, c));
    let y = Columns::new(n, l, |r, c| truth.at(r, c));

    // Triangle of [X Y]: p x p, p = K + L.
    let p = k + l;
    let mut triangle = Mat::<f64>::zeros(p, p);
    let mut tile = vec![0.0; TILE * p];
    for start in (0..n).step_by(TILE) {
        let count = TILE.min(n - start);
        x.standardise(start, count, &mut tile, p);
        y.standardise(start, count, &mut tile[k..], p);
        let stacked = Mat::from_fn(p + count, p, |i, j| if i < p { triangle[(i, j)] } else { tile[(i - p) * p + j] });
        triangle = stacked.qr().thin_R().to_owned();
    }

    // Rows that X can reach: X = Q1 R, R P = Q2 S, and the rows of Q2' (Q1' Y) beyond the rank of S are residual.
    let mut rotated = Mat::from_fn(k, l, |i, j| triangle[(i, k + j)]);
    let mut rank = 0;
    // The pivoted decomposition of a matrix of zeros is not defined.
    if (0..k).any(|c| x.varies(c)) {
        let top = Mat::from_fn(k, k, |i, j| if i <= j { triangle[(i, j)] } else { 0.0 });
        let pivoted = top.col_piv_qr();
        let s = pivoted.thin_R();
        rank = (0..k).take_while(|&i| s[(i, i)].abs() > RANK_TOLERANCE).count();
        rotated = pivoted.compute_Q().transpose() * rotated;
    }
    let explained = (0..l).map(|j| {
        if !y.varies(j) {
            return 1.0;
        }
        let inside: f64 = (rank..k).map(|i| rotated[(i, j)].powi(2)).sum();
        let outside: f64 = (k..=k + j).map(|i| triangle[(i, k + j)].powi(2)).sum();
        1.0 - (inside + outside)
    });
    explained.sum::<f64>() / l as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::DMatrix;
    use proptest::prelude::*;

    /// The same quantity from the eigenvectors of the correlation matrix of the inferred latents. (nalgebra's singular
    /// value decomposition is no oracle here: on duplicate columns its singular values miss the matrix's Frobenius
    /// norm.)
    fn by_eigenvectors(inferred: Latents, truth: Latents) -> f64 {
        let centred = |t: Latents| {
            let mut m = DMatrix::from_fn(t.n_cells(), t.n_latents(), |i, j| t.at(i, j));
            for mut column in m.column_iter_mut() {
                let mean = column.mean();
                column.add_scalar_mut(-mean);
                let norm = column.norm();
                if norm > 1e-9 {
                    column /= norm;
                } else {
                    column.fill(0.0);
                }
            }
            m
        };
        let (x, y) = (centred(inferred), centred(truth));
        let eigen = (x.transpose() * &x).symmetric_eigen();
        let kept: Vec<_> = (0..x.ncols()).filter(|&i| eigen.eigenvalues[i] > 1e-9).collect();
        let mut u = x * eigen.eigenvectors.select_columns(&kept);
        for (mut column, &i) in u.column_iter_mut().zip(&kept) {
            column /= eigen.eigenvalues[i].sqrt();
        }
        let projected = u.transpose() * &y;
        let columns = (0..y.ncols()).map(|j| {
            if y.column(j).norm() == 0.0 {
                1.0
            } else {
                projected.column(j).norm_squared() / y.column(j).norm_squared()
            }
        });
        columns.sum::<f64>() / y.ncols() as f64
    }

    #[test]
    fn equals_numpy_least_squares() {
        // `python scripts/evaluation_reference.py regression`: numpy.linalg.lstsq with an intercept column.
        let at = |i: usize, j: usize, m: usize| ((i * 73 + j * 151 + 7 * i * i * (j + 1)) % m) as f64;
        let inferred: Vec<f64> = (0..60).flat_map(|i| (0..4).map(move |j| at(i, j, 29))).collect();
        let truth: Vec<f64> = (0..60)
            .flat_map(|i| (0..2).map(move |j| at(i, j, 29) - 0.5 * at(i, j + 2, 29) + at(i, j + 5, 31) + 100.0))
            .collect();
        let r2 = linear_r2(Latents::new(&inferred, 4), Latents::new(&truth, 2));
        assert!((r2 - 0.5405943780990177).abs() < 1e-13, "{r2}");
    }

    #[test]
    fn the_edges_have_their_known_values() {
        let z: Vec<f64> = (0..200).map(|i| (i as f64 * 0.37).sin()).collect();
        let constant = vec![3.0; 200];
        let one = |v: &[f64]| linear_r2(Latents::new(v, 1), Latents::new(&z, 1));
        assert!((one(&z.iter().map(|v| 5.0 - 1e-3 * v).collect::<Vec<_>>()) - 1.0).abs() < 1e-12);
        assert!(one(&constant).abs() < 1e-15);
        assert_eq!(linear_r2(Latents::new(&z, 1), Latents::new(&constant, 1)), 1.0);
        // As many latents as cells less one fit exactly.
        let wide: Vec<f64> = (0..3 * 7).map(|t| (t as f64 * 1.7).cos()).collect();
        assert!((linear_r2(Latents::new(&wide, 7), Latents::new(&z[..3], 1)) - 1.0).abs() < 1e-12);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// Agrees with the eigenvectors, with duplicate, constant and summed columns among the inferred latents.
        #[test]
        fn equals_projection_on_eigenvectors(
            n in prop::sample::select(vec![9usize, 30, 1024, 1500]), k in 1usize..5, l in 1usize..4,
            kinds in prop::collection::vec(0u8..4, 4), values in prop::collection::vec(-1.0f64..1.0, 64), scale in -3i32..4,
        ) {
            let base = |i: usize, j: usize| values[(i * 7 + j * 13 + i * i) % 64] + ((i * (j + 2)) as f64).sin();
            let inferred: Vec<f64> = (0..n * k).map(|t| {
                let (i, j) = (t / k, t % k);
                let v = match kinds[j] {
                    0 if j > 0 => base(i, 0),
                    1 => 2.0,
                    2 if j > 1 => base(i, 0) - 0.5 * base(i, 1),
                    _ => base(i, j),
                };
                v * 10f64.powi(scale * (j % 2) as i32)
            }).collect();
            let truth: Vec<f64> = (0..n * l).map(|t| base(t / l, t % l) + base(t / l, t % l + 4) + 7.0).collect();
            let (x, y) = (Latents::new(&inferred, k), Latents::new(&truth, l));
            let (got, want) = (linear_r2(x, y), by_eigenvectors(x, y));
            prop_assert!((got - want).abs() < 1e-9, "{} {}", got, want);
        }
    }
}
