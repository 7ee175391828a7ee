//! The encoder's first linear layer, which reads the counts. Derivation: `derivations/linear.md`.
//!
//! Its weight is held transposed, a row of H values per gene, so that cells which are mostly zero visit their non-zero
//! counts only: as many rows are added up forward, and added to backward, as a cell has expressed genes.

use crate::data::counts::in_memory::CountsRow;
use crate::model::workspace::Log1pTable;
use crate::numerics::matmul::{Accumulate, Rows, a_b, at_b};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use std::ops::Range;

/// Input of the layer, log(1 + x), for B cells of `n_genes` genes, G.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a, R, F> {
    /// Every value, B x G, where most counts are not zero.
    Dense {
        /// log(1 + x), B x G.
        values: &'a [R],
        /// Number of genes, G.
        n_genes: usize,
    },
    /// The non-zero counts of each row, where they are few.
    Nonzero {
        /// Counts of row i.
        row: F,
        /// What makes log(1 + x) of them.
        log1p: &'a Log1pTable<R>,
        /// Number of genes, G.
        n_genes: usize,
    },
}

impl<R, F> Input<'_, R, F> {
    fn n_genes(&self) -> usize {
        match self {
            Input::Dense { n_genes, .. } | Input::Nonzero { n_genes, .. } => *n_genes,
        }
    }
}

/// Forward, Eq. (L5). y: B x H, covariates: B x J, weight: (G + J) x H, bias: H.
pub fn forward<'c, R: Real, F: Fn(usize) -> CountsRow<'c>>(
    y: &mut [R],
    input: Input<R, F>,
    covariates: Option<Rows<R>>,
    weight: &[R],
    bias: &[R],
) {
    let (h, g) = (bias.len(), input.n_genes());
    vectorized(
        #[inline(always)]
        || y.chunks_exact_mut(h).for_each(|row| row.copy_from_slice(bias)),
    );
    match input {
        Input::Nonzero { row, log1p, .. } => {
            for (i, y) in y.chunks_exact_mut(h).enumerate() {
                match row(i) {
                    CountsRow::Narrow(genes, counts) => add_rows(y, genes, counts, log1p, weight),
                    CountsRow::Wide(genes, counts) => add_rows(y, genes, counts, log1p, weight),
                }
            }
        }
        Input::Dense { values, .. } => {
            a_b(y, Accumulate::Add, Rows::new(values, y.len() / h, g), Rows::new(&weight[..g * h], g, h));
        }
    }
    if let Some(c) = covariates {
        a_b(y, Accumulate::Add, c, Rows::new(&weight[g * h..], weight.len() / h - g, h));
    }
}

/// Gradient of a tile of the weight's rows, Eq. (L6), overwritten. d_weight: rows x H, d_y: B x H.
pub fn backward_weight<'c, R: Real, F: Fn(usize) -> CountsRow<'c>>(
    d_weight: &mut [R],
    rows: Range<usize>,
    d_y: &[R],
    h: usize,
    input: Input<R, F>,
    covariates: Option<Rows<R>>,
) {
    let (n, g) = (d_y.len() / h, input.n_genes());
    let genes = rows.start.min(g)..rows.end.min(g);
    let (of_genes, of_covariates) = d_weight.split_at_mut(genes.len() * h);
    match input {
        Input::Nonzero { row, log1p, .. } => add_to_rows(of_genes, genes, d_y, h, row, log1p),
        Input::Dense { values, .. } if !genes.is_empty() => {
            let x = Rows::strided(&values[genes.start..], n, genes.len(), g);
            at_b(of_genes, h, Accumulate::Replace, x, Rows::new(d_y, n, h));
        }
        Input::Dense { .. } => {}
    }
    if let Some(c) = covariates.filter(|_| !of_covariates.is_empty()) {
        let c = c.columns(rows.start.max(g) - g..rows.end - g);
        at_b(of_covariates, h, Accumulate::Replace, c, Rows::new(d_y, n, h));
    }
}

/// Values side by side in registers while a row is summed up.
const CHUNK: usize = 128;

/// y += sum over `genes` of log(1 + count) times the gene's row of the weight.
fn add_rows<R: Real, I: Copy + Into<u32>>(y: &mut [R], genes: &[I], counts: &[I], log1p: &Log1pTable<R>, weight: &[R]) {
    let h = y.len();
    vectorized(
        #[inline(always)]
        || {
            let (chunks, _) = y.as_chunks_mut::<CHUNK>();
            for (c, chunk) in chunks.iter_mut().enumerate() {
                let mut sums = *chunk;
                for (&gene, &count) in genes.iter().zip(counts) {
                    let (factor, from) = (log1p.of(count.into()), gene.into() as usize * h + c * CHUNK);
                    let row: &[R; CHUNK] = weight[from..from + CHUNK].try_into().expect("that long");
                    for j in 0..CHUNK {
                        sums[j] = factor.fma(row[j], sums[j]);
                    }
                }
                *chunk = sums;
            }
            let rest = h / CHUNK * CHUNK;
            if rest < h {
                for (&gene, &count) in genes.iter().zip(counts) {
                    let (gene, factor) = (gene.into() as usize, log1p.of(count.into()));
                    let row = &weight[gene * h + rest..(gene + 1) * h];
                    for (y, &w) in y[rest..].iter_mut().zip(row) {
                        *y = factor.fma(w, *y);
                    }
                }
            }
        },
    );
}

/// Values of the gradient that are worked on at a time: they stay in the first-level cache while all cells add to them.
const TILE_VALUES: usize = 4096;
/// Cells that add to a tile before the next tile is begun.
const CELLS_AT_ONCE: usize = 128;

/// `rows` = for each of `genes`, the sum over cells of log(1 + count) times their d_y. rows: genes x H, d_y: B x H.
fn add_to_rows<'c, R: Real>(
    rows: &mut [R],
    genes: Range<usize>,
    d_y: &[R],
    h: usize,
    row: impl Fn(usize) -> CountsRow<'c>,
    log1p: &Log1pTable<R>,
) {
    let tile = (TILE_VALUES / h).max(1);
    vectorized(
        #[inline(always)]
        || {
            rows.fill(R::ZERO);
            for (group, d_y) in d_y.chunks(CELLS_AT_ONCE * h).enumerate() {
                let first = group * CELLS_AT_ONCE;
                // Where each cell's list of genes goes on.
                let mut at = [0; CELLS_AT_ONCE];
                let n = d_y.len() / h;
                for i in 0..n {
                    at[i] = match row(first + i) {
                        CountsRow::Narrow(list, _) => list.partition_point(|&gene| (gene as usize) < genes.start),
                        CountsRow::Wide(list, _) => list.partition_point(|&gene| (gene as usize) < genes.start),
                    };
                }
                let mut from = genes.start;
                for rows in rows.chunks_mut(tile * h) {
                    let to = from + rows.len() / h;
                    for i in 0..n {
                        let d_y = &d_y[i * h..(i + 1) * h];
                        match row(first + i) {
                            CountsRow::Narrow(g, x) => add_to_tile(rows, from..to, d_y, g, x, &mut at[i], log1p),
                            CountsRow::Wide(g, x) => add_to_tile(rows, from..to, d_y, g, x, &mut at[i], log1p),
                        }
                    }
                    from = to;
                }
            }
        },
    );
}

/// Adds what a cell has of the genes in `tile`, ascending from entry `at` of its list, which ends after the last of them.
#[inline(always)]
fn add_to_tile<R: Real, I: Copy + Into<u32>>(
    rows: &mut [R],
    tile: Range<usize>,
    d_y: &[R],
    genes: &[I],
    counts: &[I],
    at: &mut usize,
    log1p: &Log1pTable<R>,
) {
    const UNROLLED: usize = 64;
    let h = d_y.len();
    let (d_chunks, d_rest) = d_y.as_chunks::<UNROLLED>();
    while *at < genes.len() {
        let gene = genes[*at].into() as usize;
        if gene >= tile.end {
            break;
        }
        let factor = log1p.of(counts[*at].into());
        let row = &mut rows[(gene - tile.start) * h..(gene - tile.start + 1) * h];
        let (chunks, rest) = row.as_chunks_mut::<UNROLLED>();
        for (row, d) in chunks.iter_mut().zip(d_chunks) {
            for j in 0..UNROLLED {
                row[j] = factor.fma(d[j], row[j]);
            }
        }
        for (row, &d) in rest.iter_mut().zip(d_rest) {
            *row = factor.fma(d, *row);
        }
        *at += 1;
    }
}
