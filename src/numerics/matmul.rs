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
    let c = MatMut::from_row_major_slice_with_stride_mut(c, a.n_cols, b.n_cols, c_stride);
    matmul(c, into.into(), a.view().transpose(), b.view(), R::ONE, Par::Seq);
}
