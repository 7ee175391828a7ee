//! Dense matrix products on row-major slices: a thin layer over faer, always on the calling thread.

use crate::numerics::real::Real;
use crate::numerics::simd::{fixed_order, is_avx2, vectorized};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Whether a product replaces its output or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    /// `c = ...`
    Replace,
    /// `c += ...`
    Add,
}

impl From<Accumulate> for Accum {
    fn from(into: Accumulate) -> Accum {
        match into {
            Accumulate::Replace => Accum::Replace,
            Accumulate::Add => Accum::Add,
        }
    }
}

/// A row-major matrix whose rows may be wider apart than they are long.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, R> {
    data: &'a [R],
    n_rows: usize,
    n_cols: usize,
    stride: usize,
}

impl<'a, R: Real> Rows<'a, R> {
    /// `data`, n_rows x n_cols, contiguous.
    pub fn new(data: &'a [R], n_rows: usize, n_cols: usize) -> Self {
        Self::strided(data, n_rows, n_cols, n_cols)
    }

    /// The first `n_cols` of every `stride` values of `data`.
    pub fn strided(data: &'a [R], n_rows: usize, n_cols: usize, stride: usize) -> Self {
        assert!(n_cols <= stride && (n_rows == 0 || data.len() >= (n_rows - 1) * stride + n_cols));
        Self { data, n_rows, n_cols, stride }
    }

    /// Some of the columns.
    pub fn columns(self, columns: std::ops::Range<usize>) -> Self {
        Self { data: &self.data[columns.start.min(self.data.len())..], n_cols: columns.len(), ..self }
    }

    /// The rows, in order.
    #[inline(always)]
    pub fn iter(self) -> impl Iterator<Item = &'a [R]> {
        (0..self.n_rows).map(move |i| &self.data[i * self.stride..i * self.stride + self.n_cols])
    }

    fn view(self) -> MatRef<'a, R> {
        MatRef::from_row_major_slice_with_stride(self.data, self.n_rows, self.n_cols, self.stride)
    }
}

/// `c (+)= a b^T`; a: m x k, b: n x k, c: m x n (contiguous).
pub fn a_bt<R: Real>(c: &mut [R], into: Accumulate, a: Rows<R>, b: Rows<R>) {
    let (m, n, k) = (a.n_rows, b.n_rows, a.n_cols);
    if fixed_order() {
        let (a, b) =
            (Strided { data: a.data, row: a.stride, column: 1 }, Strided { data: b.data, row: 1, column: b.stride });
        return fixed_order_product(c, n, into, (m, n, k), a, b);
    }
    product(MatMut::from_row_major_slice_mut(c, m, n), into, a.view(), b.view().transpose());
}

/// `c (+)= a b`; a: m x k, b: k x n, c: m x n (contiguous).
pub fn a_b<R: Real>(c: &mut [R], into: Accumulate, a: Rows<R>, b: Rows<R>) {
    let (m, n, k) = (a.n_rows, b.n_cols, a.n_cols);
    if fixed_order() {
        let (a, b) =
            (Strided { data: a.data, row: a.stride, column: 1 }, Strided { data: b.data, row: b.stride, column: 1 });
        return fixed_order_product(c, n, into, (m, n, k), a, b);
    }
    product(MatMut::from_row_major_slice_mut(c, m, n), into, a.view(), b.view());
}

/// `c (+)= a^T b`; a: k x m, b: k x n, c: rows of length n, `c_stride` apart.
pub fn at_b<R: Real>(c: &mut [R], c_stride: usize, into: Accumulate, a: Rows<R>, b: Rows<R>) {
    if fixed_order() {
        let sizes = (a.n_cols, b.n_cols, a.n_rows);
        let (a, b) =
            (Strided { data: a.data, row: 1, column: a.stride }, Strided { data: b.data, row: b.stride, column: 1 });
        return fixed_order_product(c, c_stride, into, sizes, a, b);
    }
    // The transpose of a column-major view: faer 0.24.4's row-major one with a stride swaps its strides.
    let c = MatMut::from_column_major_slice_with_stride_mut(c, b.n_cols, a.n_cols, c_stride).transpose_mut();
    product(c, into, a.view().transpose(), b.view());
}

/// Columns that faer's single-precision kernels for AVX2 work on as one, in vectors of [`VECTOR`]. The last ones of a product are fewer;
/// a single vector of them takes nearly as long as two, there being too few sums side by side.
const KERNEL_COLUMNS: usize = 24;
const VECTOR: usize = 8;

/// Terms from which on a product cut in two pays.
const CUT_TERMS: usize = 64;

/// `c (+)= a b`, on AVX2 in two pieces where the last columns would be a single vector: 128 columns as 112 and 16, in vectors
/// 3 + 3 + 3 + 3 + 2 and 2, not 3 + 3 + 3 + 3 + 3 + 1.
fn product<R: Real>(c: MatMut<R>, into: Accumulate, a: MatRef<R>, b: MatRef<R>) {
    let (n, last) = (c.ncols(), c.ncols() % KERNEL_COLUMNS);
    let narrow = n > KERNEL_COLUMNS && (1..=VECTOR).contains(&last);
    if narrow && a.ncols() >= CUT_TERMS && size_of::<R>() == size_of::<f32>() && is_avx2() {
        product_in_two(c, into, a, b, n - VECTOR - last);
    } else {
        matmul(c, into.into(), a, b, R::ONE, Par::Seq);
    }
}

/// `c (+)= a b`, the columns before `at` first. Every value is the same sum either way.
fn product_in_two<R: Real>(c: MatMut<R>, into: Accumulate, a: MatRef<R>, b: MatRef<R>, at: usize) {
    let ((c_left, c_right), (b_left, b_right)) = (c.split_at_col_mut(at), b.split_at_col(at));
    matmul(c_left, into.into(), a, b_left, R::ONE, Par::Seq);
    matmul(c_right, into.into(), a, b_right, R::ONE, Par::Seq);
}

/// Values at `data[row * i + column * j]`.
#[derive(Clone, Copy)]
struct Strided<'a, R> {
    data: &'a [R],
    row: usize,
    column: usize,
}

/// Columns of a tile of [`fixed_order_product`], and steps of its sums that are copied together.
const TILE_COLUMNS: usize = 32;
const TILE_ROWS: usize = 4;
const TILE_DEPTH: usize = 64;

/// `c (+)= a b`, (m, n, k) in size. Every value is one sum over k in ascending order, by multiply-adds that round once,
/// starting from zero or from `c`: the same bits on every processor.
fn fixed_order_product<R: Real>(
    c: &mut [R],
    c_stride: usize,
    into: Accumulate,
    (m, n, k): (usize, usize, usize),
    a: Strided<R>,
    b: Strided<R>,
) {
    vectorized(
        #[inline(always)]
        || {
            if into == Accumulate::Replace {
                for i in 0..m {
                    c[i * c_stride..i * c_stride + n].fill(R::ZERO);
                }
            }
            let mut tile = [[R::ZERO; TILE_COLUMNS]; TILE_DEPTH];
            for from_l in (0..k).step_by(TILE_DEPTH) {
                let depth = (k - from_l).min(TILE_DEPTH);
                for from_j in (0..n).step_by(TILE_COLUMNS) {
                    let columns = (n - from_j).min(TILE_COLUMNS);
                    for l in 0..depth {
                        for j in 0..columns {
                            tile[l][j] = b.data[(from_l + l) * b.row + (from_j + j) * b.column];
                        }
                    }
                    for from_i in (0..m).step_by(TILE_ROWS) {
                        let rows = (m - from_i).min(TILE_ROWS);
                        let mut sums = [[R::ZERO; TILE_COLUMNS]; TILE_ROWS];
                        for i in 0..rows {
                            let at = (from_i + i) * c_stride + from_j;
                            sums[i][..columns].copy_from_slice(&c[at..at + columns]);
                        }
                        for l in 0..depth {
                            for i in 0..TILE_ROWS {
                                // Rows past the end repeat the last one and are not stored.
                                let row = from_i + i.min(rows - 1);
                                let factor = a.data[row * a.row + (from_l + l) * a.column];
                                for j in 0..TILE_COLUMNS {
                                    sums[i][j] = factor.fma(tile[l][j], sums[i][j]);
                                }
                            }
                        }
                        for i in 0..rows {
                            let at = (from_i + i) * c_stride + from_j;
                            c[at..at + columns].copy_from_slice(&sums[i][..columns]);
                        }
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(n: usize, seed: u64) -> Vec<f64> {
        (0..n).map(|i| ((i as f64 + 1.0) * (seed as f64 + 0.37)).sin()).collect()
    }

    fn naive(
        m: usize,
        n: usize,
        k: usize,
        a: impl Fn(usize, usize) -> f64,
        b: impl Fn(usize, usize) -> f64,
    ) -> Vec<f64> {
        (0..m * n).map(|at| (0..k).map(|i| a(at / n, i) * b(i, at % n)).sum()).collect()
    }

    fn check<R: Real>(m: usize, n: usize, k: usize, gap: usize, into: Accumulate) {
        let of = |v: &[f64]| -> Vec<R> { v.iter().map(|&v| R::from_f64(v)).collect() };
        let start = values(m * (n + gap), 5);
        let tolerance = 4.0 * (k as f64 + 2.0) * R::EPSILON.to_f64();
        let close = |got: &[R], want: &[f64], stride: usize| {
            for i in 0..m {
                for j in 0..stride {
                    let before = start[i * stride + j];
                    let kept = if j >= n { Some(before) } else { None };
                    let base = if into == Accumulate::Add { before } else { 0.0 };
                    let want = kept.unwrap_or_else(|| base + want[i * n + j]);
                    assert!((got[i * stride + j].to_f64() - want).abs() <= tolerance, "{m} {n} {k} at {i} {j}");
                }
            }
        };
        // Operands with a gap after each row.
        let (a, b) = (values(m * (k + gap), 1), values(n * (k + gap), 2));
        let mut c = of(&start[..m * n]);
        let start_dense = |got: &[R], want: &[f64]| {
            for at in 0..m * n {
                let base = if into == Accumulate::Add { start[at] } else { 0.0 };
                assert!((got[at].to_f64() - base - want[at]).abs() <= tolerance, "{m} {n} {k}");
            }
        };
        a_bt(&mut c, into, Rows::strided(&of(&a), m, k, k + gap), Rows::strided(&of(&b), n, k, k + gap));
        start_dense(&c, &naive(m, n, k, |i, l| a[i * (k + gap) + l], |l, j| b[j * (k + gap) + l]));

        let b = values(k * (n + gap), 3);
        let mut c = of(&start[..m * n]);
        a_b(&mut c, into, Rows::strided(&of(&a), m, k, k + gap), Rows::strided(&of(&b), k, n, n + gap));
        start_dense(&c, &naive(m, n, k, |i, l| a[i * (k + gap) + l], |l, j| b[l * (n + gap) + j]));

        let a = values(k * (m + gap), 4);
        let mut c = of(&start);
        at_b(&mut c, n + gap, into, Rows::strided(&of(&a), k, m, m + gap), Rows::strided(&of(&b), k, n, n + gap));
        close(&c, &naive(m, n, k, |i, l| a[l * (m + gap) + i], |l, j| b[l * (n + gap) + j]), n + gap);
    }

    #[test]
    fn products_of_fixed_order_are_plain_sums_bit_by_bit() {
        let single = |values: Vec<f64>| -> Vec<f32> { values.iter().map(|&v| v as f32).collect() };
        for (m, n, k) in [(1, 1, 1), (5, 33, 65), (32, 128, 100), (9, 15, 200)] {
            let (a, b) = (single(values(m * k, 1)), single(values(k * n, 2)));
            let start = single(values(m * n, 3));
            for into in [Accumulate::Replace, Accumulate::Add] {
                let mut got = start.clone();
                let a_view = Strided { data: &a, row: k, column: 1 };
                let b_view = Strided { data: &b, row: n, column: 1 };
                fixed_order_product(&mut got, n, into, (m, n, k), a_view, b_view);
                // b given by columns.
                let turned: Vec<f32> = (0..n * k).map(|at| b[at % k * n + at / k]).collect();
                let mut turned_got = start.clone();
                let turned_view = Strided { data: &turned, row: 1, column: k };
                fixed_order_product(&mut turned_got, n, into, (m, n, k), a_view, turned_view);
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let first = if into == Accumulate::Add { start[i * n + j] } else { 0.0 };
                    let want = (0..k).fold(first, |sum, l| a[i * k + l].mul_add(b[l * n + j], sum));
                    assert_eq!(got[i * n + j].to_bits(), want.to_bits(), "{m} {n} {k} at {i} {j}");
                    assert_eq!(turned_got[i * n + j].to_bits(), want.to_bits(), "{m} {n} {k} at {i} {j}");
                }
            }
        }
    }

    fn blocks_alone_and_together<R: Real>(blocks: usize, n: usize, k: usize, into: Accumulate) {
        let rows = crate::model::workspace::ROWS_PER_BLOCK;
        let of = |v: Vec<f64>| -> Vec<R> { v.into_iter().map(R::from_f64).collect() };
        let (a, b) = (of(values(blocks * rows * k, 1)), of(values(n * k, 2)));
        for product in [
            |c: &mut [R], into, a: &[R], b: &[R], m, n, k| a_bt(c, into, Rows::new(a, m, k), Rows::new(b, n, k)),
            |c: &mut [R], into, a: &[R], b: &[R], m, n, k| a_b(c, into, Rows::new(a, m, k), Rows::new(b, k, n)),
        ] {
            let mut together = of(values(blocks * rows * n, 3));
            let mut alone = together.clone();
            product(&mut together, into, &a, &b, blocks * rows, n, k);
            for (c, a) in alone.chunks_mut(rows * n).zip(a.chunks(rows * k)) {
                product(c, into, a, &b, rows, n, k);
            }
            assert!(together == alone, "{blocks} blocks, {n} columns, {k} terms, {into:?}");
        }
    }

    #[test]
    fn rows_of_whole_blocks_have_the_same_bits_alone_and_together() {
        for n in [1, 2, 7, 15, 16, 33, 105, 128, 256, 1187] {
            for k in [1, 2, 15, 16, 33, 105, 128, 256, 1187] {
                for (blocks, into) in [(2, Accumulate::Add), (3, Accumulate::Replace), (4, Accumulate::Add)] {
                    blocks_alone_and_together::<f32>(blocks, n, k, into);
                    blocks_alone_and_together::<f64>(blocks, n, k, into);
                }
            }
        }
    }

    #[test]
    fn a_product_cut_in_two_has_the_same_bits() {
        for (m, n, k) in [(128, 128, 128), (32, 100, 64), (1, 128, 100), (64, 32, 1187), (7, 27, 515)] {
            let single = |values: Vec<f64>| -> Vec<f32> { values.iter().map(|&v| v as f32).collect() };
            let (a, b, start) = (single(values(m * k, 1)), single(values(k * n, 2)), single(values(m * n, 3)));
            for into in [Accumulate::Replace, Accumulate::Add] {
                let (mut whole, mut cut) = (start.clone(), start.clone());
                let [a, b] = [(&a, m, k), (&b, k, n)].map(|(v, r, c)| MatRef::from_row_major_slice(v, r, c));
                let c = MatMut::from_row_major_slice_mut(&mut whole, m, n);
                matmul(c, into.into(), a, b, 1.0, Par::Seq);
                product_in_two(
                    MatMut::from_row_major_slice_mut(&mut cut, m, n),
                    into,
                    a,
                    b,
                    n - VECTOR - n % KERNEL_COLUMNS,
                );
                assert!(whole.iter().zip(&cut).all(|(w, c)| w.to_bits() == c.to_bits()), "{m} {n} {k} {into:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn products_agree_with_plain_loops(m in 1usize..70, n in 1usize..70, k in 1usize..70, gap in 0usize..4, add: bool) {
            let into = if add { Accumulate::Add } else { Accumulate::Replace };
            check::<f64>(m, n, k, gap, into);
            check::<f32>(m, n, k, gap, into);
        }
    }
}
