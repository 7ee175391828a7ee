//! Rows of genes in blocks of [`LANES`], the last one padded, and what all likelihoods do with them: sums, the softmax.
//!
//! Sums run over [`LANES`] parallel sums in f64, whatever the vector width, so results have the same bits on every
//! instruction set.

use crate::data::counts::in_memory::CountsRow;
use crate::numerics::real::Real;

/// Genes per block, and parallel sums of every reduction: the single-precision lanes of the widest vectors.
pub const LANES: usize = 16;

/// [`LANES`] genes side by side.
pub(super) type Block<R> = [R; LANES];

/// A sum in [`LANES`] parallel sums of R, emptied into f64 every [`Sum::PERIOD`] blocks so that long rows lose no digits.
pub(super) struct Sum<R> {
    pub(super) lanes: Block<R>,
    flushed: [f64; LANES],
}

impl<R: Real> Sum<R> {
    const PERIOD: usize = 16;

    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { lanes: [R::ZERO; LANES], flushed: [0.0; LANES] }
    }

    /// Adds the values of block number `b`.
    #[inline(always)]
    pub(super) fn add(&mut self, b: usize, values: &Block<R>) {
        for i in 0..LANES {
            self.lanes[i] += values[i];
        }
        self.end_block(b);
    }

    /// To be called after adding block number `b` to the lanes.
    #[inline(always)]
    pub(super) fn end_block(&mut self, b: usize) {
        if b % Self::PERIOD == Self::PERIOD - 1 {
            self.flush();
        }
    }

    /// Out of line, so that the lanes stay one vector in the loops that add to them.
    #[inline(never)]
    fn flush(&mut self) {
        for i in 0..LANES {
            self.flushed[i] += self.lanes[i].to_f64();
        }
        self.lanes = [R::ZERO; LANES];
    }

    /// Sum of the lanes, pairwise.
    #[inline(always)]
    pub(super) fn total(mut self) -> f64 {
        self.flush();
        let mut s = self.flushed;
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                s[i] += s[i + width];
            }
            width /= 2;
        }
        s[0]
    }
}

/// The counts of one cell.
#[derive(Debug, Clone, Copy)]
pub struct CellCounts<'a, R> {
    /// Of every gene, n_genes.
    pub x: &'a [R],
    /// The same, those that are not zero.
    pub nonzero: CountsRow<'a>,
    /// Total of the means.
    pub library: R,
}

/// Working memory of one cell; reused for all cells of a block of rows.
#[derive(Debug, Clone)]
pub struct Scratch<R> {
    /// exp(logit - largest logit); n_genes, in blocks.
    pub(super) rates: Vec<Block<R>>,
    /// Genes whose count is K or more, and count - K; the first `n_large`, then leftovers.
    pub(super) large_genes: Vec<u32>,
    pub(super) large_counts: Vec<R>,
    pub(super) n_large: usize,
}

impl<R: Real> Scratch<R> {
    /// For cells of `n_genes` genes.
    pub fn new(n_genes: usize) -> Self {
        let n_padded = n_genes.next_multiple_of(LANES).max(LANES);
        Self {
            rates: vec![[R::ZERO; LANES]; n_padded / LANES],
            large_genes: vec![0; n_padded],
            large_counts: vec![R::ZERO; n_padded],
            n_large: 0,
        }
    }
}

/// Sum of `f` in four parallel sums, so that additions need not wait for each other.
#[inline(always)]
pub(super) fn sum_four<T>(items: &[T], f: impl Fn(&T) -> f64) -> f64 {
    let mut sums = [0.0; 4];
    let (fours, rest) = items.as_chunks::<4>();
    for four in fours {
        for lane in 0..4 {
            sums[lane] += f(&four[lane]);
        }
    }
    for (sum, item) in sums.iter_mut().zip(rest) {
        *sum += f(item);
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// Largest of `values`; NaN are passed over (they reach the sums by themselves).
#[inline(always)]
pub(super) fn largest<R: Real>(values: &[R]) -> R {
    let mut top = [-R::INFINITY; LANES];
    let (blocks, tail) = values.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            top[i] = block[i].larger(top[i]);
        }
    }
    for (top, &v) in top.iter_mut().zip(tail) {
        *top = v.larger(*top);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            top[i] = top[i + width].larger(top[i]);
        }
        width /= 2;
    }
    top[0]
}

/// `rates = exp(logits - top)` and their sum.
#[inline(always)]
pub(super) fn exponentials<R: Real>(logits: &[R], top: R, rates: &mut [Block<R>]) -> f64 {
    let mut total = Sum::new();
    let (blocks, tail) = logits.as_chunks::<LANES>();
    for (b, (block, rates)) in blocks.iter().zip(rates.iter_mut()).enumerate() {
        for i in 0..LANES {
            rates[i] = (block[i] - top).exp_nonpositive();
        }
        total.add(b, rates);
    }
    if !tail.is_empty() {
        let mut last = padded(tail, top);
        for (i, rate) in last.iter_mut().enumerate() {
            let here = (*rate - top).exp_nonpositive();
            *rate = if i < tail.len() { here } else { R::ZERO };
        }
        rates[blocks.len()] = last;
        total.add(blocks.len(), &last);
    }
    total.total()
}

/// The incomplete last block, completed by `with`. Copied in pieces of fixed size: a call of memcpy takes longer.
#[inline(always)]
pub(super) fn padded<R: Real>(tail: &[R], with: R) -> Block<R> {
    let mut block = [with; LANES];
    copy_pieces(&mut block, tail, tail.len());
    block
}

/// The used part of a block, back to where [`padded`] took it.
#[inline(always)]
pub(super) fn copy_back<R: Real>(tail: &mut [R], block: &Block<R>) {
    let n = tail.len();
    copy_pieces(tail, block, n);
}

#[inline(always)]
fn copy_pieces<R: Real>(to: &mut [R], from: &[R], n: usize) {
    let mut at = 0;
    if n == LANES {
        to[..LANES].copy_from_slice(&from[..LANES]);
        return;
    }
    if n & 8 != 0 {
        to[..8].copy_from_slice(&from[..8]);
        at = 8;
    }
    if n & 4 != 0 {
        to[at..at + 4].copy_from_slice(&from[at..at + 4]);
        at += 4;
    }
    if n & 2 != 0 {
        to[at..at + 2].copy_from_slice(&from[at..at + 2]);
        at += 2;
    }
    if n & 1 != 0 {
        to[at] = from[at];
    }
}

/// `from - scale * values`.
#[inline(always)]
pub(super) fn subtract_scaled<R: Real>(from: &Block<R>, scale: R, values: &Block<R>) -> Block<R> {
    let mut result = [R::ZERO; LANES];
    for i in 0..LANES {
        result[i] = values[i].fma(-scale, from[i]);
    }
    result
}
