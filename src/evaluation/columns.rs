//! Columns of a table centred and brought to unit norm, one tile of rows at a time.

/// Rows standardised at once: 100 columns of a tile stay in the second-level cache.
pub(crate) const TILE: usize = 1024;

/// Centre and Euclidean norm of each column of a table that is read through a function of (row, column).
///
/// A standardised column sums to zero and has unit norm, so that the product of two of them is their correlation.
/// Columns that carry no information have norm infinity and standardise to zeros: constant up to rounding, or holding a
/// value that is not finite.
#[derive(Debug, Clone)]
pub(crate) struct Columns<F> {
    pub n_rows: usize,
    pub n_columns: usize,
    centre: Vec<f64>,
    norm: Vec<f64>,
    at: F,
}

impl<F: Fn(usize, usize) -> f64> Columns<F> {
    /// Two passes over the table. Each tile is summed by itself first, which keeps rounding small.
    pub fn new(n_rows: usize, n_columns: usize, at: F) -> Self {
        // Sums are taken of differences to the first row: a constant column is then centred exactly.
        let first: Vec<f64> = (0..n_columns).map(|c| if n_rows > 0 { at(0, c) } else { 0.0 }).collect();
        let mut largest = vec![0.0f64; n_columns];
        let mut total = vec![0.0; n_columns];
        let mut partial = vec![0.0; n_columns];
        for start in (0..n_rows).step_by(TILE) {
            partial.fill(0.0);
            for r in start..(start + TILE).min(n_rows) {
                for c in 0..n_columns {
                    let x = at(r, c);
                    partial[c] += x - first[c];
                    largest[c] = largest[c].max(x.abs());
                }
            }
            total.iter_mut().zip(&partial).for_each(|(t, p)| *t += p);
        }
        let centre: Vec<f64> = first.iter().zip(&total).map(|(f, t)| f + t / n_rows.max(1) as f64).collect();

        let mut widest = vec![0.0f64; n_columns];
        total.fill(0.0);
        for start in (0..n_rows).step_by(TILE) {
            partial.fill(0.0);
            for r in start..(start + TILE).min(n_rows) {
                for c in 0..n_columns {
                    let d = at(r, c) - centre[c];
                    partial[c] += d * d;
                    widest[c] = widest[c].max(d.abs());
                }
            }
            total.iter_mut().zip(&partial).for_each(|(t, p)| *t += p);
        }
        let norm = (0..n_columns)
            .map(|c| {
                let norm = total[c].sqrt();
                // What varies by less than the rounding of its own mean is constant.
                let varies = widest[c] > 4.0 * f64::EPSILON * largest[c];
                if varies && norm.is_finite() && norm > 0.0 { norm } else { f64::INFINITY }
            })
            .collect();
        Self { n_rows, n_columns, centre, norm, at }
    }

    /// Whether column `c` varies; if not, it standardises to zeros.
    pub fn varies(&self, c: usize) -> bool {
        self.norm[c].is_finite()
    }

    /// Writes the standardised rows `start..start + count` into `tile`, row-major with `stride` values per row.
    pub fn standardise(&self, start: usize, count: usize, tile: &mut [f64], stride: usize) {
        for (i, row) in tile.chunks_mut(stride).take(count).enumerate() {
            for c in 0..self.n_columns {
                row[c] = if self.varies(c) { ((self.at)(start + i, c) - self.centre[c]) / self.norm[c] } else { 0.0 };
            }
        }
    }
}
