//! Counts in memory: cells x genes, compressed sparse rows of small integers.

/// Counts, cells x genes, as compressed sparse rows (CSR). Zeros are not stored; genes ascend within a row.
///
/// Gene indices and counts take two bytes each when both fit, four bytes each otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    n_genes: usize,
    /// `offsets[n]..offsets[n+1]` are the entries of cell `n`; length `n_cells + 1`.
    offsets: Vec<usize>,
    entries: Entries,
    /// Whether most counts were zero before the counts of some cells were dropped, if they were.
    mostly_zero: Option<bool>,
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
        Self { counts: Counts { n_genes, offsets: vec![0], entries, mostly_zero: None } }
    }

    /// An empty matrix over `n_genes` genes that takes the place of `counts` in memory.
    pub fn in_place_of(counts: Counts, n_genes: usize) -> Self {
        let mut builder = Self::new(n_genes);
        let new = &mut builder.counts;
        match (&mut new.entries, counts.entries) {
            (Entries::Narrow { genes, values }, Entries::Narrow { genes: old_genes, values: old_values }) => {
                (*genes, *values) = (old_genes, old_values);
                genes.clear();
                values.clear();
            }
            (Entries::Wide { genes, values }, Entries::Wide { genes: old_genes, values: old_values }) => {
                (*genes, *values) = (old_genes, old_values);
                genes.clear();
                values.clear();
            }
            _ => {}
        }
        new.offsets = counts.offsets;
        new.offsets.clear();
        new.offsets.push(0);
        builder
    }

    /// Room for `n_cells` cells with `n_nonzero` counts in all, in an empty matrix.
    pub fn reserve(&mut self, n_cells: usize, n_nonzero: usize) {
        /// What is too small goes first, and a little more is taken so that the next matrix in this place fits too.
        fn room<T>(values: &mut Vec<T>, n: usize) {
            if values.capacity() < n {
                *values = Vec::new();
                values.reserve_exact(n + n / 32);
            }
        }
        self.counts.offsets.reserve_exact(n_cells);
        match &mut self.counts.entries {
            Entries::Narrow { genes, values } => {
                room(genes, n_nonzero);
                room(values, n_nonzero);
            }
            Entries::Wide { genes, values } => {
                room(genes, n_nonzero);
                room(values, n_nonzero);
            }
        }
    }

    /// Adds a whole cell: ascending genes and their counts, none of them 0.
    pub fn push_cell(&mut self, genes: &[u32], counts: &[u32]) {
        debug_assert!(genes.is_sorted_by(|a, b| a < b) && !counts.contains(&0));
        let fits = counts.iter().fold(0, |all, &count| all | count) <= u16::MAX as u32;
        match &mut self.counts.entries {
            Entries::Narrow { genes: held, values } if fits => {
                held.extend(genes.iter().map(|&gene| gene as u16));
                values.extend(counts.iter().map(|&count| count as u16));
            }
            Entries::Wide { genes: held, values } => {
                held.extend_from_slice(genes);
                values.extend_from_slice(counts);
            }
            _ => genes.iter().zip(counts).for_each(|(&gene, &count)| self.push(gene as usize, count)),
        }
        self.end_cell();
    }

    /// Adds a cell of another matrix over the same genes.
    pub fn push_row(&mut self, row: CountsRow) {
        row.for_each(|gene, count| self.push(gene, count));
        self.end_cell();
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

impl Default for Counts {
    /// Without cells and genes.
    fn default() -> Self {
        CountsBuilder::new(0).finish()
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
        self.mostly_zero.unwrap_or_else(|| is_mostly_zero(self.n_nonzero(), self.n_cells(), self.n_genes))
    }

    /// Drops the counts of the cells for which `dropped` is true; all cells keep their numbers, these have no counts any
    /// more. Works in place.
    ///
    /// [`Counts::is_mostly_zero`] goes on to answer for all cells, because results depend on it in their last digits.
    pub fn drop_counts_of(&mut self, dropped: impl Fn(usize) -> bool) {
        fn compact<T: Copy>(
            genes: &mut Vec<T>,
            values: &mut Vec<T>,
            offsets: &mut [usize],
            dropped: impl Fn(usize) -> bool,
        ) {
            let (mut from, mut end) = (0, 0);
            for cell in 0..offsets.len() - 1 {
                let to = offsets[cell + 1];
                if !dropped(cell) {
                    genes.copy_within(from..to, end);
                    values.copy_within(from..to, end);
                    end += to - from;
                }
                offsets[cell + 1] = end;
                from = to;
            }
            genes.truncate(end);
            values.truncate(end);
            genes.shrink_to_fit();
            values.shrink_to_fit();
        }
        self.mostly_zero = Some(self.is_mostly_zero());
        match &mut self.entries {
            Entries::Narrow { genes, values } => compact(genes, values, &mut self.offsets, dropped),
            Entries::Wide { genes, values } => compact(genes, values, &mut self.offsets, dropped),
        }
    }

    /// The non-zero counts of cell `n`.
    ///
    /// # Panics
    /// If there is no such cell.
    #[inline]
    pub fn row(&self, n: usize) -> CountsRow<'_> {
        let (start, end) = (self.offsets[n], self.offsets[n + 1]);
        match &self.entries {
            Entries::Narrow { genes, values } => CountsRow::Narrow(&genes[start..end], &values[start..end]),
            Entries::Wide { genes, values } => CountsRow::Wide(&genes[start..end], &values[start..end]),
        }
    }

    /// Asks for what says where cell `n` is to be brought near the processor; has no effect on any result.
    #[inline]
    pub fn prefetch_place(&self, n: usize) {
        prefetch(&self.offsets[n..n + 2]);
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

    /// The matrix restricted to `cells`, ascending, and to genes with a number in `gene_of` (old number to new; the new
    /// ones ascend too). Works in place: no second copy is held.
    pub fn restrict(&mut self, cells: &[usize], gene_of: Option<(&[Option<u32>], usize)>) {
        fn compact<T: Copy + Into<u32> + TryFrom<u32>>(
            genes: &mut Vec<T>,
            values: &mut Vec<T>,
            offsets: &mut Vec<usize>,
            cells: &[usize],
            gene_of: Option<&[Option<u32>]>,
        ) {
            let mut end = 0;
            for (n, &cell) in cells.iter().enumerate() {
                let range = offsets[cell]..offsets[cell + 1];
                // Writes never overtake reads: everything moves towards the front.
                offsets[n] = end;
                for at in range {
                    let gene = match gene_of {
                        None => Some(genes[at]),
                        Some(map) => map[genes[at].into() as usize].and_then(|gene| T::try_from(gene).ok()),
                    };
                    if let Some(gene) = gene {
                        (genes[end], values[end]) = (gene, values[at]);
                        end += 1;
                    }
                }
            }
            offsets.truncate(cells.len());
            offsets.push(end);
            genes.truncate(end);
            values.truncate(end);
            genes.shrink_to_fit();
            values.shrink_to_fit();
        }
        let (map, n_genes) = (gene_of.map(|(map, _)| map), gene_of.map_or(self.n_genes, |(_, n)| n));
        match &mut self.entries {
            Entries::Narrow { genes, values } => compact(genes, values, &mut self.offsets, cells, map),
            Entries::Wide { genes, values } => compact(genes, values, &mut self.offsets, cells, map),
        }
        self.n_genes = n_genes;
    }

    /// Bytes held by the matrix.
    pub fn bytes(&self) -> usize {
        let width = match &self.entries {
            Entries::Narrow { .. } => 4,
            Entries::Wide { .. } => 8,
        };
        self.n_nonzero() * width + self.offsets.len() * size_of::<usize>()
    }
}

/// Whether at most a quarter of `n_cells` x `n_genes` counts is not zero.
pub(crate) fn is_mostly_zero(n_nonzero: usize, n_cells: usize, n_genes: usize) -> bool {
    4.0 * n_nonzero as f64 <= n_cells as f64 * n_genes as f64
}

/// Asks for every cache line of `slice`.
#[inline(always)]
pub(crate) fn prefetch<T>(slice: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in slice.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch of an address within a slice reads nothing visible.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slice;
}

/// Collects entries in any order into [`Counts`], once the number of entries of each cell and the largest count are known.
#[derive(Debug)]
pub struct CountsScatter {
    counts: Counts,
    /// Where the next entry of each cell goes.
    next: Vec<usize>,
}

impl CountsScatter {
    /// Room for `sizes[n]` entries of cell `n`, none above `largest`.
    pub fn new(n_genes: usize, sizes: &[usize], largest: u32) -> Self {
        let mut offsets = Vec::with_capacity(sizes.len() + 1);
        offsets.push(0);
        let mut n_entries = 0;
        for size in sizes {
            n_entries += size;
            offsets.push(n_entries);
        }
        let entries = if n_genes <= u16::MAX as usize + 1 && largest <= u16::MAX as u32 {
            Entries::Narrow { genes: vec![0; n_entries], values: vec![0; n_entries] }
        } else {
            Entries::Wide { genes: vec![0; n_entries], values: vec![0; n_entries] }
        };
        let next = offsets[..sizes.len()].to_vec();
        Self { counts: Counts { n_genes, offsets, entries, mostly_zero: None }, next }
    }

    /// Adds a count; false if it was not planned for.
    #[inline]
    pub fn put(&mut self, cell: usize, gene: u32, count: u32) -> bool {
        let at = self.next[cell];
        if at == self.counts.offsets[cell + 1] {
            return false;
        }
        self.next[cell] += 1;
        match &mut self.counts.entries {
            Entries::Narrow { genes, values } => {
                (genes[at], values[at]) = (gene as u16, count as u16);
                count <= u16::MAX as u32
            }
            Entries::Wide { genes, values } => {
                (genes[at], values[at]) = (gene, count);
                true
            }
        }
    }

    /// The finished matrix, and the number of cells in which a gene came more than once (its counts were summed).
    ///
    /// # Errors
    /// What is wrong, in words, if an entry is missing or a sum too large.
    pub fn finish(self) -> Result<(Counts, usize), &'static str> {
        let Self { counts, next } = self;
        if next[..] != counts.offsets[1..] {
            return Err("it changed while it was read");
        }
        let mut doubled = vec![false; counts.n_cells()];
        let sorted = match &counts.entries {
            Entries::Narrow { genes, .. } => rows_ascend(genes, &counts.offsets),
            Entries::Wide { genes, .. } => rows_ascend(genes, &counts.offsets),
        };
        if sorted {
            return Ok((counts, 0));
        }
        // Rare: sorted cell by cell into a second matrix.
        let mut builder = CountsBuilder::new(counts.n_genes);
        let mut row: Vec<(usize, u32)> = Vec::new();
        let mut overflow = false;
        for (n, doubled) in doubled.iter_mut().enumerate() {
            row.clear();
            counts.row(n).for_each(|g, x| row.push((g, x)));
            row.sort_by_key(|&(g, _)| g);
            row.dedup_by(|later, kept| {
                let same = later.0 == kept.0;
                if same {
                    *doubled = true;
                    let sum = kept.1.checked_add(later.1);
                    overflow |= sum.is_none();
                    kept.1 = sum.unwrap_or(u32::MAX);
                }
                same
            });
            row.iter().for_each(|&(g, x)| builder.push(g, x));
            builder.end_cell();
        }
        if overflow {
            return Err("counts of one cell and gene sum to more than 4294967295");
        }
        Ok((builder.finish(), doubled.iter().filter(|doubled| **doubled).count()))
    }
}

fn rows_ascend<T: PartialOrd>(genes: &[T], offsets: &[usize]) -> bool {
    offsets.windows(2).all(|pair| genes[pair[0]..pair[1]].is_sorted_by(|a, b| a < b))
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

    #[test]
    fn dropped_cells_have_no_counts_and_change_no_decision() {
        // Three in eight counts are not zero: not mostly zero, and only what is left of them is.
        for large in [7, 70_000] {
            let table = [0, 3, 0, large, 0, 7, 1, 2, 0, 0, 0, 0, 9, 0, 0, 0];
            let counts = Counts::from_dense(4, &table);
            let mut held = counts.clone();
            held.drop_counts_of(|cell| cell % 2 == 0);
            assert!(!counts.is_mostly_zero() && !held.is_mostly_zero());
            assert_eq!((held.n_cells(), held.n_nonzero()), (4, 4));
            let entries = |counts: &Counts, cell| {
                let mut found = Vec::new();
                counts.row(cell).for_each(|gene, count| found.push((gene, count)));
                found
            };
            for cell in 0..4 {
                let want = if cell % 2 == 1 { entries(&counts, cell) } else { Vec::new() };
                assert_eq!(entries(&held, cell), want, "{cell}");
            }
        }
        let mut empty = Counts::from_dense(4, &[0, 0, 1, 0]);
        empty.drop_counts_of(|_| true);
        assert!(empty.is_mostly_zero() && empty.row(0).is_empty());
    }

    #[test]
    fn scattered_entries_give_the_matrix_of_ordered_ones() {
        let table = [0, 3, 0, 65_535, 0, 7, 1, 2];
        let counts = Counts::from_dense(4, &table);
        let mut scatter = CountsScatter::new(4, &[2, 3], 65_535);
        // By columns, as compressed columns come.
        for (cell, gene) in [(1, 2), (1, 1), (0, 1), (1, 3), (0, 3)] {
            assert!(scatter.put(cell, gene, table[cell * 4 + gene as usize]));
        }
        assert!(!scatter.put(0, 0, 1), "a cell is full");
        assert_eq!(scatter.finish().unwrap(), (counts.clone(), 0));
        let mut short = CountsScatter::new(4, &[1, 1], 1);
        short.put(0, 0, 1);
        assert!(short.finish().is_err());
        let mut doubled = CountsScatter::new(2, &[3], 70_000);
        for (gene, count) in [(1, 70_000), (0, 1), (1, 5)] {
            assert!(doubled.put(0, gene, count));
        }
        let (counts, n) = doubled.finish().unwrap();
        assert_eq!((counts, n), (Counts::from_dense(2, &[1, 70_005]), 1));
    }

    #[test]
    fn restricting_in_place_is_selecting() {
        let table: Vec<u32> = (0..60).map(|i| if i % 3 == 1 { 0 } else { i * 1000 }).collect();
        for wide in [1, 3] {
            let table: Vec<u32> = table.iter().map(|x| x * wide).collect();
            let mut counts = Counts::from_dense(6, &table);
            let cells = [0, 3, 4, 9];
            let kept = [1, 2, 5];
            let mut gene_of = vec![None; 6];
            kept.iter().enumerate().for_each(|(new, &old): (usize, &usize)| gene_of[old] = Some(new as u32));
            counts.restrict(&cells, Some((&gene_of, 3)));
            let small: Vec<u32> =
                cells.iter().flat_map(|&n| kept.iter().map(move |&g| (n, g))).map(|(n, g)| table[n * 6 + g]).collect();
            let mut back = vec![0; small.len()];
            (0..4).for_each(|n| counts.row(n).for_each(|g, x| back[n * 3 + g] = x));
            assert_eq!((back, counts.n_genes(), counts.n_cells()), (small, 3, 4));
        }
        let mut counts = Counts::from_dense(6, &table);
        let selected = counts.select(&[2, 7]);
        counts.restrict(&[2, 7], None);
        assert_eq!(counts, selected);
    }
}
