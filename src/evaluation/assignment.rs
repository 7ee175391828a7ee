//! The exact one-to-one assignment of largest total weight.

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;

/// Pairs `(row, column)`, rows ascending, that maximise the sum of `weights` (`n_rows` x `n_columns`, row-major) with
/// each row and column used at most once; `min(n_rows, n_columns)` pairs.
///
/// The solver needs totally ordered weights whose sums are exact, so weights are rounded to whole numbers of 2^-40
/// times the largest magnitude. The total found is therefore within `min(n_rows, n_columns) * 2^-40` (1e-10 for a
/// hundred latents) of the optimum, relative to that magnitude: far below the sampling error of a correlation. Integers
/// also rule out the endless loops that rounding can cause in label updates. Weights that are not finite count as 0.
///
/// # Panics
/// If `weights` is not `n_rows` x `n_columns`.
pub fn largest_assignment(weights: &[f64], n_rows: usize, n_columns: usize) -> Vec<(usize, usize)> {
    assert_eq!(weights.len(), n_rows * n_columns, "weights are n_rows x n_columns");
    if weights.is_empty() {
        return Vec::new();
    }
    let largest = weights.iter().filter(|w| w.is_finite()).fold(0.0f64, |m, w| m.max(w.abs()));
    let whole = |row: usize, column: usize| -> i64 {
        let w = weights[row * n_columns + column];
        if largest > 0.0 && w.is_finite() { (w / largest * (1u64 << 40) as f64).round() as i64 } else { 0 }
    };
    // The solver wants no more rows than columns.
    let transpose = n_rows > n_columns;
    let (short, long) = if transpose { (n_columns, n_rows) } else { (n_rows, n_columns) };
    let matrix = Matrix::from_fn(short, long, |(s, t)| if transpose { whole(t, s) } else { whole(s, t) });
    let (_, chosen) = kuhn_munkres(&matrix);
    let mut pairs: Vec<_> =
        chosen.into_iter().enumerate().map(|(s, t)| if transpose { (t, s) } else { (s, t) }).collect();
    pairs.sort_unstable();
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Best total over all assignments, by trying them all.
    fn exhaustive(weights: &[f64], n_rows: usize, n_columns: usize, row: usize, used: u32, left: usize) -> f64 {
        if row == n_rows || left == 0 {
            return if left == 0 { 0.0 } else { f64::NEG_INFINITY };
        }
        let mut best = exhaustive(weights, n_rows, n_columns, row + 1, used, left);
        for c in (0..n_columns).filter(|c| used >> c & 1 == 0) {
            let rest = exhaustive(weights, n_rows, n_columns, row + 1, used | 1 << c, left - 1);
            best = best.max(weights[row * n_columns + c] + rest);
        }
        best
    }

    proptest! {
        #[test]
        fn equals_exhaustive_search(
            n_rows in 1usize..6, n_columns in 1usize..6, values in prop::collection::vec(-1.0f64..1.0, 25),
        ) {
            let weights = &values[..n_rows * n_columns];
            let pairs = largest_assignment(weights, n_rows, n_columns);
            prop_assert_eq!(pairs.len(), n_rows.min(n_columns));
            let mut columns: Vec<_> = pairs.iter().map(|p| p.1).collect();
            columns.sort_unstable();
            columns.dedup();
            prop_assert_eq!(columns.len(), pairs.len());
            prop_assert!(pairs.windows(2).all(|w| w[0].0 < w[1].0));
            let total: f64 = pairs.iter().map(|&(r, c)| weights[r * n_columns + c]).sum();
            let best = exhaustive(weights, n_rows, n_columns, 0, 0, n_rows.min(n_columns));
            prop_assert!((total - best).abs() < 1e-10, "{} {}", total, best);
        }
    }

    #[test]
    fn a_hundred_latents_and_degenerate_weights_are_solved() {
        // Weights that favour (r, 37 r + 5 mod 101): a known permutation of 100 rows into 101 columns.
        let weights: Vec<f64> =
            (0..100 * 101).map(|t| if (t / 101 * 37 + 5) % 101 == t % 101 { 0.9 } else { 0.2 }).collect();
        let pairs = largest_assignment(&weights, 100, 101);
        assert!(pairs.iter().all(|&(r, c)| c == (r * 37 + 5) % 101));
        assert_eq!(largest_assignment(&[0.0; 6], 3, 2).len(), 2);
        assert_eq!(largest_assignment(&[f64::NAN, 0.5, f64::INFINITY, f64::NAN], 2, 2).len(), 2);
        assert!(largest_assignment(&[], 0, 4).is_empty());
    }
}
