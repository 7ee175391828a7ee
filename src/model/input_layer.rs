//! The encoder's first linear layer, which reads the counts. Derivation: `derivations/linear.md`.
//!
//! Its weight is held transposed, a row of H values per gene, so that cells which are mostly zero visit their non-zero
//! counts only: as many rows are added up forward, and added to backward, as a cell has expressed genes.

use crate::data::counts::CountsRow;
use crate::numerics::matmul::{Into, Rows, a_b, at_b};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use std::ops::Range;

/// Input of the layer: log(1 + x), B x G, and which of it is not zero, if that is worth knowing.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a, R, F> {
    /// log(1 + x), B x G.
    pub dense: &'a [R],
    /// Number of genes, G.
    pub n_genes: usize,
    /// Non-zero counts of a row; `None` where most counts are not zero.
    pub nonzero: Option<F>,
}

/// Forward, Eq. (L5). y: B x H, covariates: B x J, weight: (G + J) x H, bias: H.
pub fn forward<'c, R: Real, F: Fn(usize) -> CountsRow<'c>>(
    y: &mut [R],
    input: Input<R, F>,
    covariates: Option<Rows<R>>,
    weight: &[R],
    bias: &[R],
) {
    let (h, g) = (bias.len(), input.n_genes);
    vectorized(
        #[inline(always)]
        || y.chunks_exact_mut(h).for_each(|row| row.copy_from_slice(bias)),
    );
    match input.nonzero {
        Some(nonzero) => {
            for (i, (y, x)) in y.chunks_exact_mut(h).zip(input.dense.chunks_exact(g)).enumerate() {
                match nonzero(i) {
                    CountsRow::Narrow(genes, _) => add_rows(y, genes, x, weight),
                    CountsRow::Wide(genes, _) => add_rows(y, genes, x, weight),
                }
            }
        }
        None => a_b(y, Into::Add, Rows::new(input.dense, y.len() / h, g), Rows::new(&weight[..g * h], g, h)),
    }
    if let Some(c) = covariates {
        a_b(y, Into::Add, c, Rows::new(&weight[g * h..], weight.len() / h - g, h));
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
    let (n, g) = (d_y.len() / h, input.n_genes);
    let genes = rows.start.min(g)..rows.end.min(g);
    let (of_genes, of_covariates) = d_weight.split_at_mut(genes.len() * h);
    match input.nonzero {
        Some(nonzero) => {
            of_genes.fill(R::ZERO);
            for (i, (d_y, x)) in d_y.chunks_exact(h).zip(input.dense.chunks_exact(g)).enumerate() {
                match nonzero(i) {
                    CountsRow::Narrow(list, _) => add_to_rows(of_genes, within(list, &genes), genes.start, x, d_y),
                    CountsRow::Wide(list, _) => add_to_rows(of_genes, within(list, &genes), genes.start, x, d_y),
                }
            }
        }
        None if !genes.is_empty() => {
            let x = Rows::strided(&input.dense[genes.start..], n, genes.len(), g);
            at_b(of_genes, h, Into::Replace, x, Rows::new(d_y, n, h));
        }
        None => {}
    }
    if let Some(c) = covariates.filter(|_| !of_covariates.is_empty()) {
        let c = c.columns(rows.start.max(g) - g..rows.end - g);
        at_b(of_covariates, h, Into::Replace, c, Rows::new(d_y, n, h));
    }
}

/// Values side by side in registers while a row is summed up.
const CHUNK: usize = 128;

/// y += sum over `genes` of x[gene] times that row of the weight.
fn add_rows<R: Real, I: Copy + std::convert::Into<u32>>(y: &mut [R], genes: &[I], x: &[R], weight: &[R]) {
    let h = y.len();
    vectorized(
        #[inline(always)]
        || {
            let (chunks, _) = y.as_chunks_mut::<CHUNK>();
            for (c, chunk) in chunks.iter_mut().enumerate() {
                let mut sums = *chunk;
                for &gene in genes {
                    let gene = gene.into() as usize;
                    let (factor, from) = (x[gene], gene * h + c * CHUNK);
                    let row: &[R; CHUNK] = weight[from..from + CHUNK].try_into().expect("that long");
                    for j in 0..CHUNK {
                        sums[j] = factor.fma(row[j], sums[j]);
                    }
                }
                *chunk = sums;
            }
            let rest = h / CHUNK * CHUNK;
            if rest < h {
                for &gene in genes {
                    let gene = gene.into() as usize;
                    let factor = x[gene];
                    let row = &weight[gene * h + rest..(gene + 1) * h];
                    for (y, &w) in y[rest..].iter_mut().zip(row) {
                        *y = factor.fma(w, *y);
                    }
                }
            }
        },
    );
}

/// Row `gene - first` of `rows`, for every one of `genes`, += x[gene] times d_y.
fn add_to_rows<R: Real, I: Copy + std::convert::Into<u32>>(
    rows: &mut [R],
    genes: &[I],
    first: usize,
    x: &[R],
    d_y: &[R],
) {
    let h = d_y.len();
    vectorized(
        #[inline(always)]
        || {
            for &gene in genes {
                let gene = gene.into() as usize;
                let factor = x[gene];
                let row = &mut rows[(gene - first) * h..(gene - first + 1) * h];
                for (row, &d) in row.iter_mut().zip(d_y) {
                    *row = factor.fma(d, *row);
                }
            }
        },
    );
}

/// The part of an ascending list of genes that lies in `range`.
fn within<'a, I: Copy + std::convert::Into<u32>>(genes: &'a [I], range: &Range<usize>) -> &'a [I] {
    let before = |limit: usize| genes.partition_point(|&gene| (gene.into() as usize) < limit);
    &genes[before(range.start)..before(range.end)]
}
