//! Counts of a screen: cells x genes, compressed sparse rows of small integers.

/// Counts, cells x genes, as compressed sparse rows (CSR). Zeros are not stored; genes ascend within a row.
///
/// Gene indices and counts take two bytes each when both fit, four bytes each otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    n_genes: usize,
    /// `offsets[n]..offsets[n+1]` are the entries of cell `n`; length `n_cells + 1`.
    offsets: Vec<usize>,
    entries: Entries,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entries {
    Narrow { genes: Vec<u16>, values: Vec<u16> },
    Wide { genes: Vec<u32>, values: Vec<u32> },
}

/// The non-zero counts of one cell.
#[derive(Debug, Clone, Copy)]
pub enum CountsRow<'a> {
    /// Two-byte gene indices and values.
    Narrow(&'a [u16], &'a [u16]),
    /// Four-byte gene indices and values.
    Wide(&'a [u32], &'a [u32]),
}

impl CountsRow<'_> {
    /// Calls `f(gene, count)` for every non-zero count, genes ascending.
    #[inline(always)]
    pub fn for_each(self, mut f: impl FnMut(usize, u32)) {
        match self {
            CountsRow::Narrow(genes, values) => {
                for (&g, &x) in genes.iter().zip(values) {
                    f(g as usize, x as u32);
                }
            }
            CountsRow::Wide(genes, values) => {
                for (&g, &x) in genes.iter().zip(values) {
                    f(g as usize, x);
                }
            }
        }
    }

    /// Number of non-zero counts.
    pub fn len(self) -> usize {
        match self {
            CountsRow::Narrow(genes, _) => genes.len(),
            CountsRow::Wide(genes, _) => genes.len(),
        }
    }

    /// Whether the cell has no counts at all.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Total count of the cell.
    pub fn sum(self) -> u64 {
        let mut total = 0;
        self.for_each(|_, x| total += x as u64);
        total
    }
}

/// Collects cells one at a time into [`Counts`]; starts narrow and widens once, when a value needs it.
#[derive(Debug)]
pub struct CountsBuilder {
    counts: Counts,
}

impl CountsBuilder {
    /// An empty matrix over `n_genes` genes.
    pub fn new(n_genes: usize) -> Self {
        let entries = if n_genes <= u16::MAX as usize + 1 {
            Entries::Narrow { genes: Vec::new(), values: Vec::new() }
        } else {
            Entries::Wide { genes: Vec::new(), values: Vec::new() }
        };
        Self { counts: Counts { n_genes, offsets: vec![0], entries } }
    }

    /// Adds a count to the current cell. Genes of a cell must come in ascending order; zeros are skipped.
    #[inline]
    pub fn push(&mut self, gene: usize, count: u32) {
        debug_assert!(gene < self.counts.n_genes);
        if count == 0 {
            return;
        }
        if count > u16::MAX as u32
            && let Entries::Narrow { genes, values } = &mut self.counts.entries
        {
            self.counts.entries = Entries::Wide {
                genes: genes.iter().map(|&g| g as u32).collect(),
                values: values.iter().map(|&x| x as u32).collect(),
            };
        }
        match &mut self.counts.entries {
            Entries::Narrow { genes, values } => {
                genes.push(gene as u16);
                values.push(count as u16);
            }
            Entries::Wide { genes, values } => {
                genes.push(gene as u32);
                values.push(count);
            }
        }
    }

    /// Ends the current cell.
    pub fn end_cell(&mut self) {
        let end = match &self.counts.entries {
            Entries::Narrow { genes, .. } => genes.len(),
            Entries::Wide { genes, .. } => genes.len(),
        };
        self.counts.offsets.push(end);
    }

    /// The finished matrix.
    pub fn finish(self) -> Counts {
        self.counts
    }
}

impl Counts {
    /// Counts from a dense row-major table, cells x genes.
    pub fn from_dense(n_genes: usize, table: &[u32]) -> Self {
        let mut builder = CountsBuilder::new(n_genes);
        for row in table.chunks_exact(n_genes) {
            for (g, &x) in row.iter().enumerate() {
                builder.push(g, x);
            }
            builder.end_cell();
        }
        builder.finish()
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of genes.
    pub fn n_genes(&self) -> usize {
        self.n_genes
    }

    /// Number of stored (non-zero) counts.
    pub fn n_nonzero(&self) -> usize {
        *self.offsets.last().expect("offsets start with 0")
    }

    /// Whether at most a quarter of the counts is not zero, so that visiting these alone is faster.
    pub fn is_mostly_zero(&self) -> bool {
        4.0 * self.n_nonzero() as f64 <= self.n_cells() as f64 * self.n_genes as f64
    }

    /// The non-zero counts of cell `n`.
    #[inline]
    pub fn row(&self, n: usize) -> CountsRow<'_> {
        let (start, end) = (self.offsets[n], self.offsets[n + 1]);
        match &self.entries {
            Entries::Narrow { genes, values } => CountsRow::Narrow(&genes[start..end], &values[start..end]),
            Entries::Wide { genes, values } => CountsRow::Wide(&genes[start..end], &values[start..end]),
        }
    }

    /// Asks for cell `n` to be brought near the processor; has no effect on any result.
    #[inline]
    pub fn prefetch(&self, n: usize) {
        match self.row(n) {
            CountsRow::Narrow(genes, values) => (prefetch(genes), prefetch(values)),
            CountsRow::Wide(genes, values) => (prefetch(genes), prefetch(values)),
        };
    }

    /// The matrix restricted to `cells`, in that order.
    pub fn select(&self, cells: &[usize]) -> Self {
        let mut builder = CountsBuilder::new(self.n_genes);
        for &n in cells {
            self.row(n).for_each(|g, x| builder.push(g, x));
            builder.end_cell();
        }
        builder.finish()
    }

    /// Bytes held by the matrix.
    pub fn bytes(&self) -> usize {
        let width = match self.entries {
            Entries::Narrow { .. } => 4,
            Entries::Wide { .. } => 8,
        };
        self.n_nonzero() * width + self.offsets.len() * size_of::<usize>()
    }
}

/// Asks for every cache line of `slice`.
#[inline(always)]
fn prefetch<T>(slice: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in slice.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch of an address within a slice reads nothing visible.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slice;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_count_widens_without_loss() {
        let table = [0, 3, 0, 65_535, 0, 70_000, 1, 2];
        let counts = Counts::from_dense(4, &table);
        let mut back = vec![0; 8];
        for n in 0..2 {
            counts.row(n).for_each(|g, x| back[n * 4 + g] = x);
        }
        assert_eq!(back, table);
        assert_eq!(counts.n_nonzero(), 5);
        assert_eq!(counts.row(1).sum(), 70_003);
        assert_eq!(counts.select(&[1, 0]).row(1).sum(), 65_538);
    }
}
