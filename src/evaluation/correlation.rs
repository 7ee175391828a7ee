//! Correlation, Pearson or Spearman, of every true latent with every inferred one.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use serde::Serialize;

use crate::evaluation::columns::{Columns, TILE};
use crate::numerics::real::Real;
use crate::parallel::team::{Team, tiles};

/// A table of latents, cells x latents, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Latents<'a, R = f64> {
    values: &'a [R],
    n_latents: usize,
}

impl<'a, R: Real> Latents<'a, R> {
    /// Views `values` as rows of `n_latents`.
    ///
    /// # Panics
    /// If `values` is no whole number of rows.
    pub fn new(values: &'a [R], n_latents: usize) -> Self {
        assert!(n_latents > 0 && values.len().is_multiple_of(n_latents), "a table of latents has whole rows");
        Self { values, n_latents }
    }

    /// Number of cells, N.
    pub fn n_cells(&self) -> usize {
        self.values.len() / self.n_latents
    }

    /// Number of latents.
    pub fn n_latents(&self) -> usize {
        self.n_latents
    }

    /// Latent `k` of cell `n`.
    #[inline(always)]
    pub fn at(&self, n: usize, k: usize) -> f64 {
        self.values[n * self.n_latents + k].to_f64()
    }
}

/// Which correlation coefficient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Correlation {
    /// Linear correlation.
    Pearson,
    /// Pearson's correlation of the ranks; ties share their average rank.
    Spearman,
}

/// Signed correlations, one row per latent of the first table and one column per latent of the second.
#[derive(Debug, Clone, PartialEq)]
pub struct CorrelationMatrix {
    /// Number of latents of the first table (rows), L.
    pub n_rows: usize,
    /// Number of latents of the second table (columns), K.
    pub n_columns: usize,
    /// L x K, row-major, each in [-1, 1].
    pub values: Vec<f64>,
}

impl CorrelationMatrix {
    /// Correlation of latent `row` of the first table with latent `column` of the second.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.n_columns + column]
    }

    /// The matrix of absolute values.
    pub fn abs(mut self) -> Self {
        self.values.iter_mut().for_each(|r| *r = r.abs());
        self
    }
}

/// Correlation of each column of `first` (N x L) with each column of `second` (N x K): L x K, signed.
///
/// A column that is constant, or that holds a value which is not finite, correlates 0 with everything: it tells nothing
/// about any latent. The result is never NaN. Work is one pass of products over standardised tiles of rows; ranks are
/// sorted column by column in parallel, and the result does not depend on the number of threads.
///
/// # Panics
/// If the tables differ in their number of cells.
pub fn correlation_matrix<R: Real>(
    team: &Team,
    first: Latents<R>,
    second: Latents<R>,
    kind: Correlation,
) -> CorrelationMatrix {
    let n = first.n_cells();
    assert_eq!(n, second.n_cells(), "both tables hold the same cells");
    match kind {
        Correlation::Pearson => correlate(
            &Columns::new(n, first.n_latents, |r, c| first.at(r, c)),
            &Columns::new(n, second.n_latents, |r, c| second.at(r, c)),
        ),
        Correlation::Spearman => {
            let (left, right) = (doubled_ranks(team, first), doubled_ranks(team, second));
            correlate_ranks(n, first.n_latents, &left, second.n_latents, &right)
        }
    }
}

/// Spearman correlations of `l` columns with `k` columns of ranks, each column-major as [`doubled_ranks`] returns them.
pub(crate) fn correlate_ranks(n_cells: usize, l: usize, first: &[u32], k: usize, second: &[u32]) -> CorrelationMatrix {
    correlate(
        &Columns::new(n_cells, l, |r, c| first[c * n_cells + r] as f64),
        &Columns::new(n_cells, k, |r, c| second[c * n_cells + r] as f64),
    )
}

fn correlate<F, G>(first: &Columns<F>, second: &Columns<G>) -> CorrelationMatrix
where
    F: Fn(usize, usize) -> f64,
    G: Fn(usize, usize) -> f64,
{
    let (n, l, k) = (first.n_rows, first.n_columns, second.n_columns);
    let mut values = vec![0.0; l * k];
    if values.is_empty() {
        return CorrelationMatrix { n_rows: l, n_columns: k, values };
    }
    let mut left = vec![0.0; TILE * l]; // TILE x L
    let mut right = vec![0.0; TILE * k]; // TILE x K
    for start in (0..n).step_by(TILE) {
        let count = TILE.min(n - start);
        first.standardise(start, count, &mut left, l);
        second.standardise(start, count, &mut right, k);
        matmul(
            MatMut::from_row_major_slice_mut(&mut values, l, k),
            Accum::Add,
            MatRef::from_row_major_slice(&left[..count * l], count, l).transpose(),
            MatRef::from_row_major_slice(&right[..count * k], count, k),
            1.0,
            Par::Seq,
        );
    }
    values.iter_mut().for_each(|r| *r = r.clamp(-1.0, 1.0));
    CorrelationMatrix { n_rows: l, n_columns: k, values }
}

/// Twice the average rank of every value within its column (2 for the smallest), column-major, N per latent.
///
/// Doubled ranks are whole numbers even where ties share a half-integer one. A column with a NaN gets rank 0
/// throughout.
pub(crate) fn doubled_ranks<R: Real>(team: &Team, table: Latents<R>) -> Vec<u32> {
    let n = table.n_cells();
    let mut ranks = vec![0u32; n * table.n_latents];
    team.run(table.n_latents, tiles(&mut ranks, n), |c, ranks| {
        // Adding zero turns -0 into +0: the two are one tie.
        let mut order: Vec<(f64, u32)> = (0..n).map(|r| (table.at(r, c) + 0.0, r as u32)).collect();
        if order.iter().any(|(x, _)| x.is_nan()) {
            return;
        }
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut start = 0;
        for tie in order.chunk_by(|a, b| a.0 == b.0) {
            // Ranks start+1 ..= start+len have the average (first + last)/2.
            let doubled = (2 * start + tie.len() + 1) as u32;
            for &(_, r) in tie {
                ranks[r as usize] = doubled;
            }
            start += tie.len();
        }
    });
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tables that scripts/evaluation_reference.py builds by the same rule: 40 cells, 3 true and 2 inferred latents,
    /// with ties.
    fn tables() -> (Vec<f64>, Vec<f64>) {
        let at = |i: usize, j: usize, m: usize| ((i * 73 + j * 151 + 7 * i * i * (j + 1)) % m) as f64;
        let first = (0..40).flat_map(|i| (0..3).map(move |j| at(i, j, 23) / 4.0)).collect();
        let second = (0..40)
            .flat_map(|i| (0..2).map(move |j| at(i, j, 23) * at(i, j + 1, 11) - 3.0 * at(i, 2 * j, 19)))
            .collect();
        (first, second)
    }

    #[test]
    fn pearson_and_spearman_equal_numpy_and_scipy() {
        // `python scripts/evaluation_reference.py correlation`: numpy.corrcoef and scipy.stats.spearmanr.
        let pearson = [
            0.6415676058772101,
            0.2128726791146539,
            -0.11151855181412804,
            0.7077490982966946,
            0.247475769531157,
            0.26798462050344674,
        ];
        let spearman = [
            0.5898060349217045,
            0.11451768626437865,
            -0.14312023835903429,
            0.6703899257179108,
            0.22456695295151105,
            0.15416566810426632,
        ];
        let (first, second) = tables();
        for (kind, expected) in [(Correlation::Pearson, pearson), (Correlation::Spearman, spearman)] {
            let r = correlation_matrix(&Team::single(), Latents::new(&first, 3), Latents::new(&second, 2), kind);
            for (got, want) in r.values.iter().zip(expected) {
                assert!((got - want).abs() < 1e-14, "{kind:?}: {got} {want}");
            }
        }
    }

    #[test]
    fn uninformative_columns_correlate_zero() {
        let n = 3000;
        // Constant, constant up to rounding, NaN, infinite, informative.
        let first: Vec<f64> = (0..n)
            .flat_map(|i| {
                let wobble = if i % 2 == 0 { 0.1 + 0.2 } else { 0.3 };
                [0.1, wobble, if i == 7 { f64::NAN } else { i as f64 }, i as f64, -(i as f64)]
            })
            .collect();
        let second: Vec<f64> = (0..n).map(|i| i as f64 * 1e-9 + 5.0).collect();
        let r = correlation_matrix(
            &Team::single(),
            Latents::new(&first, 5),
            Latents::new(&second, 1),
            Correlation::Pearson,
        );
        assert_eq!(r.values[..3], [0.0; 3]);
        assert!((r.values[3] - 1.0).abs() < 1e-6 && (r.values[4] + 1.0).abs() < 1e-6);
        let constant = vec![2.5; n];
        for kind in [Correlation::Pearson, Correlation::Spearman] {
            let r = correlation_matrix(&Team::single(), Latents::new(&constant, 1), Latents::new(&first, 5), kind);
            assert_eq!(r.values, [0.0; 5], "{kind:?}");
        }
        let ranks = correlation_matrix(
            &Team::single(),
            Latents::new(&first, 5),
            Latents::new(&second, 1),
            Correlation::Spearman,
        );
        assert_eq!(ranks.values[2], 0.0);
        assert!((ranks.values[4] + 1.0).abs() < 1e-12);
    }

    #[test]
    fn empty_and_single_cell_tables_give_zero() {
        for values in [vec![], vec![1.0, 2.0]] {
            for kind in [Correlation::Pearson, Correlation::Spearman] {
                let r = correlation_matrix(&Team::single(), Latents::new(&values, 2), Latents::new(&values, 2), kind);
                assert_eq!(r.values, [0.0; 4]);
            }
        }
    }

    #[test]
    fn ties_share_their_average_rank() {
        let ranks = doubled_ranks(&Team::single(), Latents::new(&[3.0, 0.0, 1.0, -0.0, 3.0, 3.0], 1));
        assert_eq!(ranks, [10, 3, 6, 3, 10, 10]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// The tiled product equals the textbook formula, at sizes on both sides of a tile.
        #[test]
        fn pearson_equals_the_textbook_formula(
            n in prop::sample::select(vec![2usize, 3, 17, 1023, 1024, 1025, 2500]),
            l in 1usize..6, k in 1usize..6, seed in 0u64..1000, offset in -1e4f64..1e4,
        ) {
            let value = |i: usize, j: usize, s: u64| {
                let mut h = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                h ^= (j as u64 + 7 * s + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                h ^= h >> 29;
                h = h.wrapping_mul(0x94D0_49BB_1331_11EB);
                (h >> 40) as f64 / 1e6
            };
            let first: Vec<f64> = (0..n * l).map(|t| offset + value(t / l, t % l, seed)).collect();
            let second: Vec<f64> = (0..n * k).map(|t| value(t / k, t % k, seed + 1) + 0.3 * first[t / k * l]).collect();
            let (a, b) = (Latents::new(&first, l), Latents::new(&second, k));
            let r = correlation_matrix(&Team::single(), a, b, Correlation::Pearson);
            for i in 0..l {
                for j in 0..k {
                    let mean = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
                    let (ma, mb) = (mean(&|t| a.at(t, i)), mean(&|t| b.at(t, j)));
                    let cov = mean(&|t| (a.at(t, i) - ma) * (b.at(t, j) - mb));
                    let sd = (mean(&|t| (a.at(t, i) - ma).powi(2)) * mean(&|t| (b.at(t, j) - mb).powi(2))).sqrt();
                    prop_assert!((r.at(i, j) - cov / sd).abs() < 1e-10);
                }
            }
        }
    }
}
