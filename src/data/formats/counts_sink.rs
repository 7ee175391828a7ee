//! Where the counts of every format arrive: each value is checked, and rows, columns or loose entries become one matrix.

use std::ops::Range;
use std::path::Path;

use crate::data::counts::in_memory::{Counts, CountsBuilder, CountsScatter};
use crate::data::names::Names;
use crate::error::{InputError, Result};

/// Stored values converted at a time.
pub(crate) const BLOCK: usize = 1 << 17;

const DAMAGED: &str = "the sparse matrix is damaged, write the file again";

/// Told how many bytes of how many have been read.
pub(crate) type ByteProgress<'a> = &'a mut dyn FnMut(u64, u64);

/// Delivers the stored entries of a range of a sparse matrix: minor indices, values, and the bytes that these took.
/// Ranges follow one another.
pub(crate) type SparseBlock<'a> = &'a mut dyn FnMut(Range<usize>, &mut Vec<i64>, &mut Vec<f64>, &mut u64) -> Result<()>;

/// Receives one entry: cell, gene, value.
pub(crate) type EntrySink<'a> = &'a mut dyn FnMut(i64, i64, f64) -> Result<()>;

/// Receives the counts of a file and checks every value.
pub(crate) struct CountsSink<'a> {
    path: &'a Path,
    place: String,
    cell_names: &'a Names,
    gene_names: &'a [String],
    /// Number among the genes of each column of the matrix, -1 if it is none; all are genes if absent.
    features: Option<&'a [i64]>,
    /// Whether several columns are of one gene, so that their sum is no repair.
    shared_genes: bool,
    /// New number of each gene that is kept; all are if absent.
    gene_of: Option<&'a [Option<u32>]>,
    /// Cells whose counts are not kept.
    left_out: Option<&'a [bool]>,
    progress: ByteProgress<'a>,
    bytes: (u64, u64),
    builder: CountsBuilder,
    scattered: Option<Counts>,
    /// Total count of each finished cell, over all genes.
    totals: Vec<u64>,
    /// What the kept genes sum up to, where the counts are not held.
    kept: Option<Sizes>,
    /// The current cell.
    row: Vec<(u32, u32)>,
    total: u64,
    ascending: bool,
    n_mended: usize,
    no_count: bool,
}

/// What a [`CountsSink`] has received.
pub(crate) struct CountsRead {
    /// Counts of the kept genes; cells that are left out are empty.
    pub counts: Counts,
    /// Total count of each cell over all genes of the file; 0 for cells that are left out.
    pub totals: Vec<u64>,
    /// Cells whose entries were out of order or doubled.
    pub n_mended: usize,
    /// What the kept genes sum up to, where the counts were checked but not held.
    pub kept: Option<Sizes>,
}

/// Sizes of cells over the genes that are kept.
#[derive(Default)]
pub(crate) struct Sizes {
    /// Number of each cell's counts.
    pub n_nonzero: Vec<u32>,
    /// Total count of each cell; absent where all genes are kept, which makes it that over all genes.
    pub totals: Option<Vec<u64>>,
}

impl<'a> CountsSink<'a> {
    pub fn new(
        path: &'a Path,
        place: String,
        cell_names: &'a Names,
        gene_names: &'a [String],
        progress: ByteProgress<'a>,
    ) -> Self {
        Self {
            path,
            place,
            cell_names,
            gene_names,
            features: None,
            shared_genes: false,
            gene_of: None,
            left_out: None,
            progress,
            bytes: (0, 0),
            builder: CountsBuilder::new(gene_names.len()),
            scattered: None,
            totals: Vec::new(),
            kept: None,
            row: Vec::new(),
            total: 0,
            ascending: true,
            n_mended: 0,
            no_count: false,
        }
    }

    /// Takes the columns of the matrix for features, of which those with a number from 0 on in `features` are genes.
    pub fn number_features(&mut self, features: Option<&'a [i64]>) {
        self.features = features;
        let mut seen = vec![false; self.gene_names.len()];
        self.shared_genes = features.into_iter().flatten().any(|&gene| match usize::try_from(gene) {
            Ok(gene) => seen.get_mut(gene).is_some_and(|seen| std::mem::replace(seen, true)),
            Err(_) => false,
        });
    }

    /// Keeps only the genes with a number in `gene_of`, `n` of them.
    pub fn keep_genes(&mut self, gene_of: &'a [Option<u32>], n: usize) {
        self.gene_of = Some(gene_of);
        self.builder = CountsBuilder::new(n);
    }

    /// Keeps nothing of the cells marked.
    pub fn leave_out(&mut self, cells: &'a [bool]) {
        self.left_out = Some(cells);
    }

    /// Checks the counts and adds them up, but holds none of them.
    pub fn count_only(&mut self) {
        self.kept = Some(Sizes::default());
    }

    /// Number of columns of the matrix: genes, or features of which some are.
    pub fn n_genes(&self) -> usize {
        self.features.map_or(self.gene_names.len(), <[i64]>::len)
    }

    fn n_kept_genes(&self) -> usize {
        self.gene_of.map_or(self.gene_names.len(), |map| map.iter().flatten().count())
    }

    /// Number of cells to come in all.
    pub fn n_cells(&self) -> usize {
        self.cell_names.len()
    }

    /// Says how many bytes there are to read.
    pub fn expect_bytes(&mut self, bytes: u64) {
        self.bytes = (0, bytes);
        (self.progress)(0, bytes);
    }

    /// Says that `bytes` more have been read.
    pub fn advance(&mut self, bytes: u64) {
        self.bytes.0 += bytes;
        (self.progress)(self.bytes.0, self.bytes.1);
    }

    /// Adds a value of the current cell; `gene` is checked too.
    #[inline]
    pub fn push(&mut self, gene: i64, value: f64) -> Result<()> {
        let Some(gene) = numbered(self.features, gene) else { return Ok(()) };
        // Saturates below 0 and above u32::MAX, NaN becomes 0: in each case the values differ.
        let count = value as u32;
        if count as f64 != value || gene < 0 || gene >= self.gene_names.len() as i64 {
            return Err(self.bad_entry(self.totals.len(), gene, value).into());
        }
        if count > 0 {
            self.total += count as u64;
            let gene = match self.gene_of {
                None => gene as u32,
                Some(map) => match map[gene as usize] {
                    Some(gene) => gene,
                    None => return Ok(()),
                },
            };
            self.ascending &= self.row.last().is_none_or(|&(last, _)| last < gene);
            self.row.push((gene, count));
        }
        Ok(())
    }

    /// Ends the current cell; entries out of order are sorted, entries of one gene summed, as SciPy understands them.
    pub fn end_cell(&mut self) -> Result<()> {
        let cell = self.totals.len();
        if cell >= self.n_cells() {
            return Err(self.fault(format!("it has more rows than the {cell} cells"), DAMAGED).into());
        }
        if !self.ascending {
            self.row.sort_by_key(|&(gene, _)| gene);
            let mut merged: Vec<(u32, u32)> = Vec::with_capacity(self.row.len());
            for &(gene, count) in &self.row {
                match merged.last_mut() {
                    Some((last, sum)) if *last == gene => match sum.checked_add(count) {
                        Some(total) => *sum = total,
                        None => return Err(self.bad_entry(cell, gene as i64, *sum as f64 + count as f64).into()),
                    },
                    _ => merged.push((gene, count)),
                }
            }
            self.row = merged;
            self.ascending = true;
            self.n_mended += usize::from(!self.shared_genes);
        }
        if self.left_out.is_some_and(|cells| cells[cell]) {
            self.row.clear();
            self.total = 0;
        }
        match &mut self.kept {
            Some(kept) => {
                kept.n_nonzero.push(self.row.len() as u32);
                if self.gene_of.is_some() {
                    let total = self.row.iter().map(|&(_, count)| count as u64).sum();
                    kept.totals.get_or_insert_default().push(total);
                }
            }
            None => {
                for &(gene, count) in &self.row {
                    self.builder.push(gene as usize, count);
                }
                self.builder.end_cell();
            }
        }
        self.totals.push(self.total);
        self.row.clear();
        self.total = 0;
        Ok(())
    }

    /// Number of cells that have ended.
    pub fn n_ended(&self) -> usize {
        self.totals.len()
    }

    /// Forgets everything received, to begin anew.
    pub fn reset(&mut self) {
        self.builder = CountsBuilder::new(self.n_kept_genes());
        self.totals.clear();
        self.kept = self.kept.take().map(|_| Sizes::default());
        self.row.clear();
        self.total = 0;
        self.ascending = true;
        self.n_mended = 0;
    }

    /// Receives entries in any order: `pass` delivers all of them to the closure that it is given, and is called twice.
    /// The first pass checks and counts, the second puts each entry in its place: no more is held than the result.
    pub fn receive_unordered(&mut self, mut pass: impl FnMut(&mut Self, EntrySink) -> Result<()>) -> Result<()> {
        struct Tally {
            sizes: Vec<usize>,
            totals: Vec<u64>,
            largest: u32,
        }
        let (n_cells, n_genes) = (self.n_cells(), self.gene_names.len());
        let (features, gene_of, left_out) = (self.features, self.gene_of, self.left_out);
        let kept = |cell: usize, gene: i64| -> Option<u32> {
            match (left_out, gene_of) {
                (Some(cells), _) if cells[cell] => None,
                (_, Some(map)) => map[gene as usize],
                _ => Some(gene as u32),
            }
        };
        let mut tally = Tally { sizes: vec![0; n_cells], totals: vec![0; n_cells], largest: 0 };
        let (path, place, cell_names, gene_names) = (self.path, self.place.clone(), self.cell_names, self.gene_names);
        let mut no_count = false;
        let checked = pass(self, &mut |cell, gene, value| {
            let Some(gene) = numbered(features, gene) else { return Ok(()) };
            let count = value as u32;
            let outside = cell < 0 || cell >= n_cells as i64;
            if count as f64 != value || outside || gene < 0 || gene >= n_genes as i64 {
                if outside {
                    return Err(InputError::new(
                        format!("a value belongs to cell number {cell}, but there are {n_cells} cells"),
                        "the matrix is damaged, write the file again",
                    )
                    .in_file(path)
                    .at(&*place)
                    .into());
                }
                no_count = gene >= 0 && gene < n_genes as i64;
                return Err(bad_entry(path, &place, cell_names, gene_names, cell as usize, gene, value).into());
            }
            let cell = cell as usize;
            if count > 0 && !left_out.is_some_and(|cells| cells[cell]) {
                tally.totals[cell] += count as u64;
                if kept(cell, gene).is_some() {
                    tally.sizes[cell] += 1;
                    tally.largest = tally.largest.max(count);
                }
            }
            Ok(())
        });
        self.no_count = no_count;
        checked?;
        let mut scatter = CountsScatter::new(self.n_kept_genes(), &tally.sizes, tally.largest);
        let changed = || InputError::new("it changed while it was read", "try again").in_file(path).at(&*place);
        pass(self, &mut |cell, gene, value| {
            let Some(gene) = numbered(features, gene) else { return Ok(()) };
            let count = value as u32;
            let (cell_at, gene_at) = (cell as usize, gene as usize);
            if cell_at >= n_cells || gene_at >= n_genes {
                return Err(changed().into());
            }
            if count > 0
                && let Some(gene) = kept(cell_at, gene)
                && !scatter.put(cell_at, gene, count)
            {
                return Err(changed().into());
            }
            Ok(())
        })?;
        let (counts, n_mended) = scatter.finish().map_err(|problem| self.fault(problem, "write the file again"))?;
        self.scattered = Some(counts);
        self.totals = tally.totals;
        self.n_mended = if self.shared_genes { 0 } else { n_mended };
        Ok(())
    }

    /// Everything received.
    ///
    /// # Errors
    /// [`InputError`] if cells are missing.
    pub fn finish(self) -> Result<CountsRead> {
        if self.totals.len() != self.n_cells() {
            let problem = format!("it has {} rows for {} cells", self.totals.len(), self.n_cells());
            return Err(self.fault(problem, "write the file again").into());
        }
        let counts = self.scattered.unwrap_or_else(|| self.builder.finish());
        Ok(CountsRead { counts, totals: self.totals, n_mended: self.n_mended, kept: self.kept })
    }

    /// A fault of the matrix as a whole.
    pub fn fault(&self, problem: impl Into<String>, remedy: impl Into<String>) -> InputError {
        InputError::new(problem, remedy).in_file(self.path).at(&*self.place)
    }

    /// Whether the matrix was refused for a value that is no count, though its place was right.
    pub fn met_a_value_that_is_no_count(&self) -> bool {
        self.no_count
    }

    #[cold]
    fn bad_entry(&mut self, cell: usize, gene: i64, value: f64) -> InputError {
        self.no_count = gene >= 0 && gene < self.gene_names.len() as i64;
        bad_entry(self.path, &self.place, self.cell_names, self.gene_names, cell, gene, value)
    }
}

/// The number of the gene in column `column` of a matrix, `None` if that is none; where there is no such column, it is that of no
/// gene, to be refused.
#[inline]
fn numbered(features: Option<&[i64]>, column: i64) -> Option<i64> {
    let Some(features) = features else { return Some(column) };
    match usize::try_from(column).ok().and_then(|column| features.get(column)) {
        Some(&number) => (number >= 0).then_some(number),
        None if column < 0 => Some(column),
        None => Some(i64::MAX),
    }
}

#[cold]
fn bad_entry(
    path: &Path,
    place: &str,
    cell_names: &Names,
    gene_names: &[String],
    cell: usize,
    gene: i64,
    value: f64,
) -> InputError {
    let cell = cell_place(cell, cell_names);
    let Some(gene_name) = usize::try_from(gene).ok().and_then(|gene| gene_names.get(gene)) else {
        return InputError::new(
            format!("a value belongs to gene number {gene}, but there are {} genes", gene_names.len()),
            "the matrix is damaged, write the file again",
        )
        .in_file(path)
        .at(format!("{place}, {cell}"));
    };
    let (problem, remedy) = if value.is_nan() {
        ("a count is missing (NaN)".to_string(), "give raw counts, with 0 where nothing was seen")
    } else if value.is_infinite() {
        ("a count is infinite".to_string(), "give raw counts")
    } else if value < 0.0 {
        (
            format!("the count is {value}, below zero; the matrix looks scaled or batch-corrected"),
            "give the raw counts (whole numbers)",
        )
    } else if value.fract() != 0.0 {
        (
            format!("the count is {value}, not a whole number; the matrix looks normalised or log-transformed"),
            "give the raw counts",
        )
    } else {
        (format!("the count is {value}, above the largest that is read ({})", u32::MAX), "check the matrix")
    };
    InputError::new(problem, remedy).in_file(path).at(format!("{place}, {cell}, gene {gene} (`{gene_name}`)"))
}

/// Checks that `indptr` runs from 0 to `n_stored` without falling; `by_cell` says what it counts, for messages.
pub(crate) fn check_indptr(sink: &CountsSink, indptr: &[i64], n_stored: usize, by_cell: bool) -> Result<()> {
    let (n_major, what) = if by_cell { (sink.n_cells(), "cells") } else { (sink.n_genes(), "genes") };
    if indptr.len() != n_major + 1 {
        return Err(sink.fault(format!("`indptr` has {} values for {n_major} {what}", indptr.len()), DAMAGED).into());
    }
    let (first, last) = (indptr[0], indptr[indptr.len() - 1]);
    if first != 0 || last != n_stored as i64 {
        let problem = format!("`indptr` runs from {first} to {last}, but {n_stored} values are stored");
        return Err(sink.fault(problem, DAMAGED).into());
    }
    if let Some(n) = indptr.windows(2).position(|pair| pair[1] < pair[0]) {
        let at = match by_cell {
            true => cell_place(n, sink.cell_names),
            false => match numbered(sink.features, n as i64).and_then(|gene| sink.gene_names.get(gene as usize)) {
                Some(name) => format!("gene {n} (`{name}`)"),
                None => format!("feature {n}"),
            },
        };
        return Err(sink
            .fault(format!("`indptr` falls from {} to {}", indptr[n], indptr[n + 1]), DAMAGED)
            .at(format!("{}, {at}", sink.place))
            .into());
    }
    Ok(())
}

/// Passes compressed rows (a row per cell) to `sink`, `block` entries at a time. `indptr` has been checked.
pub(crate) fn read_csr(
    sink: &mut CountsSink,
    indptr: &[i64],
    n_stored: usize,
    block: usize,
    next: SparseBlock,
) -> Result<()> {
    let (mut genes, mut values, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut cell = 0;
    for start in (0..n_stored).step_by(block) {
        let range = start..(start + block).min(n_stored);
        genes.clear();
        values.clear();
        next(range.clone(), &mut genes, &mut values, &mut bytes)?;
        for (at, (&gene, &value)) in range.zip(genes.iter().zip(&values)) {
            while indptr[cell + 1] <= at as i64 {
                sink.end_cell()?;
                cell += 1;
            }
            sink.push(gene, value)?;
        }
        sink.advance(bytes);
    }
    for _ in cell..sink.n_cells() {
        sink.end_cell()?;
    }
    Ok(())
}

/// Passes compressed columns (a column per gene) to `sink`, transposed in two passes. `indptr` has been checked.
pub(crate) fn read_csc(
    sink: &mut CountsSink,
    indptr: &[i64],
    n_stored: usize,
    block: usize,
    next: SparseBlock,
) -> Result<()> {
    let (mut cells, mut values, mut bytes) = (Vec::new(), Vec::new(), 0);
    sink.receive_unordered(|sink, entry| {
        let mut gene = 0;
        for start in (0..n_stored).step_by(block) {
            let range = start..(start + block).min(n_stored);
            cells.clear();
            values.clear();
            next(range.clone(), &mut cells, &mut values, &mut bytes)?;
            for (at, (&cell, &value)) in range.zip(cells.iter().zip(&values)) {
                while indptr[gene + 1] <= at as i64 {
                    gene += 1;
                }
                entry(cell, gene as i64, value)?;
            }
            sink.advance(bytes);
        }
        Ok(())
    })
}

/// Passes whole cells, row-major, to `sink`.
pub(crate) fn push_dense(sink: &mut CountsSink, n_genes: usize, values: &[f64]) -> Result<()> {
    for row in values.chunks_exact(n_genes) {
        for (gene, &value) in row.iter().enumerate() {
            sink.push(gene as i64, value)?;
        }
        sink.end_cell()?;
    }
    Ok(())
}

/// `cell 12 (`AAACCTGA-1`)`, for messages.
pub(crate) fn cell_place(n: usize, cell_names: &Names) -> String {
    match cell_names.get(n) {
        Some(name) => format!("cell {n} (`{name}`)"),
        None => format!("cell {n}"),
    }
}
