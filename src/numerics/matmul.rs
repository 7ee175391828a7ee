//! Dense matrix products on row-major slices: a thin layer over faer, always on the calling thread.

use super::real::Real;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Whether a product replaces its output or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// `c = ...`
    Replace,
    /// `c += ...`
    Add,
}

impl From<Into> for Accum {
    fn from(into: Into) -> Accum {
        match into {
            Into::Replace => Accum::Replace,
            Into::Add => Accum::Add,
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
pub fn a_bt<R: Real>(c: &mut [R], into: Into, a: Rows<R>, b: Rows<R>) {
    let c = MatMut::from_row_major_slice_mut(c, a.n_rows, b.n_rows);
    matmul(c, into.into(), a.view(), b.view().transpose(), R::ONE, Par::Seq);
}

/// `c (+)= a b`; a: m x k, b: k x n, c: m x n (contiguous).
pub fn a_b<R: Real>(c: &mut [R], into: Into, a: Rows<R>, b: Rows<R>) {
    let c = MatMut::from_row_major_slice_mut(c, a.n_rows, b.n_cols);
    matmul(c, into.into(), a.view(), b.view(), R::ONE, Par::Seq);
}

/// `c (+)= a^T b`; a: k x m, b: k x n, c: rows of length n, `c_stride` apart.
pub fn at_b<R: Real>(c: &mut [R], c_stride: usize, into: Into, a: Rows<R>, b: Rows<R>) {
    // The transpose of a column-major view: faer 0.24.4's row-major one with a stride swaps its strides.
    let c = MatMut::from_column_major_slice_with_stride_mut(c, b.n_cols, a.n_cols, c_stride).transpose_mut();
    matmul(c, into.into(), a.view().transpose(), b.view(), R::ONE, Par::Seq);
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

    fn check<R: Real>(m: usize, n: usize, k: usize, gap: usize, into: Into) {
        let of = |v: &[f64]| -> Vec<R> { v.iter().map(|&v| R::of(v)).collect() };
        let start = values(m * (n + gap), 5);
        let tolerance = 4.0 * (k as f64 + 2.0) * R::EPSILON.f64();
        let close = |got: &[R], want: &[f64], stride: usize| {
            for i in 0..m {
                for j in 0..stride {
                    let before = start[i * stride + j];
                    let kept = if j >= n { Some(before) } else { None };
                    let base = if into == Into::Add { before } else { 0.0 };
                    let want = kept.unwrap_or_else(|| base + want[i * n + j]);
                    assert!((got[i * stride + j].f64() - want).abs() <= tolerance, "{m} {n} {k} at {i} {j}");
                }
            }
        };
        // Operands with a gap after each row.
        let (a, b) = (values(m * (k + gap), 1), values(n * (k + gap), 2));
        let mut c = of(&start[..m * n]);
        let start_dense = |got: &[R], want: &[f64]| {
            for at in 0..m * n {
                let base = if into == Into::Add { start[at] } else { 0.0 };
                assert!((got[at].f64() - base - want[at]).abs() <= tolerance, "{m} {n} {k}");
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

    proptest! {
        #[test]
        fn products_agree_with_plain_loops(m in 1usize..70, n in 1usize..70, k in 1usize..70, gap in 0usize..4, add: bool) {
            let into = if add { Into::Add } else { Into::Replace };
            check::<f64>(m, n, k, gap, into);
            check::<f32>(m, n, k, gap, into);
        }
    }
}
