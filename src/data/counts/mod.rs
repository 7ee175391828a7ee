//! Counts of cells x genes: in memory, or in their file.

use std::sync::Arc;

use crate::data::counts::in_memory::{Counts, CountsRow};
use crate::data::counts::on_disk::{DiskCounts, Window};
use crate::error::Result;

pub mod in_memory;
pub mod on_disk;
pub(crate) mod row_source;

/// The counts of a screen, cells x genes, wherever they are.
///
/// What holds for both is asked here: sizes, and a pass over cells ([`ScreenCounts::visit`]). Rows are at hand only in
/// memory ([`ScreenCounts::in_memory`]); minibatches bring those on disk there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScreenCounts {
    /// All in memory.
    InMemory(Counts),
    /// In their file, from which windows of them are read.
    OnDisk(Arc<DiskCounts>),
}

impl From<Counts> for ScreenCounts {
    fn from(counts: Counts) -> Self {
        Self::InMemory(counts)
    }
}

impl From<DiskCounts> for ScreenCounts {
    fn from(counts: DiskCounts) -> Self {
        Self::OnDisk(Arc::new(counts))
    }
}

impl ScreenCounts {
    /// The counts, if they are in memory.
    pub fn in_memory(&self) -> Option<&Counts> {
        match self {
            Self::InMemory(counts) => Some(counts),
            Self::OnDisk(_) => None,
        }
    }

    /// Their reader, if they are on disk.
    pub fn disk(&self) -> Option<&Arc<DiskCounts>> {
        match self {
            Self::InMemory(_) => None,
            Self::OnDisk(disk) => Some(disk),
        }
    }

    /// Calls `f(i, row)` for the i-th of `cells`, in that order. Counts on disk are read a window at a time; that is
    /// fast where the cells ascend.
    ///
    /// # Errors
    /// As [`DiskCounts::read`]; none in memory.
    pub fn visit(&self, cells: &[usize], mut f: impl FnMut(usize, CountsRow)) -> Result<()> {
        let disk = match self {
            Self::InMemory(counts) => {
                cells.iter().enumerate().for_each(|(i, &n)| f(i, counts.row(n)));
                return Ok(());
            }
            Self::OnDisk(disk) => disk,
        };
        let (mut first, mut window) = (0, Window::default());
        for cells in cells.chunks(disk.window_cells()) {
            window = disk.window(cells, window)?;
            window.rows.iter().enumerate().for_each(|(i, &row)| f(first + i, window.counts.row(row)));
            first += cells.len();
        }
        Ok(())
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        match self {
            Self::InMemory(counts) => counts.n_cells(),
            Self::OnDisk(disk) => disk.n_cells(),
        }
    }

    /// Number of genes.
    pub fn n_genes(&self) -> usize {
        match self {
            Self::InMemory(counts) => counts.n_genes(),
            Self::OnDisk(disk) => disk.n_genes(),
        }
    }

    /// Number of non-zero counts.
    pub fn n_nonzero(&self) -> usize {
        match self {
            Self::InMemory(counts) => counts.n_nonzero(),
            Self::OnDisk(disk) => disk.n_nonzero(),
        }
    }

    /// Sets the number of non-zero counts of those on disk, which a pass over them tells; those in memory know it.
    pub(crate) fn set_n_nonzero(&mut self, n_nonzero: usize) {
        if let Self::OnDisk(disk) = self {
            *disk = Arc::new(disk.with_n_nonzero(n_nonzero));
        }
    }

    /// Whether at most a quarter of the counts is not zero, so that visiting these alone is faster.
    pub fn is_mostly_zero(&self) -> bool {
        match self {
            Self::InMemory(counts) => counts.is_mostly_zero(),
            Self::OnDisk(disk) => in_memory::is_mostly_zero(disk.n_nonzero(), disk.n_cells(), disk.n_genes()),
        }
    }

    /// As [`Counts::drop_counts_of`]; of counts on disk none are held.
    pub fn drop_counts_of(&mut self, dropped: impl Fn(usize) -> bool) {
        if let Self::InMemory(counts) = self {
            counts.drop_counts_of(dropped);
        }
    }

    /// The non-zero counts of cell `n`.
    ///
    /// # Panics
    /// If there is no such cell, or the counts are on disk.
    pub fn row(&self, n: usize) -> CountsRow<'_> {
        self.held().row(n)
    }

    /// The matrix restricted to `cells`, in that order.
    ///
    /// # Panics
    /// If the counts are on disk.
    pub fn select(&self, cells: &[usize]) -> Counts {
        self.held().select(cells)
    }

    fn held(&self) -> &Counts {
        self.in_memory().expect("counts in memory: those on disk are visited")
    }

    /// As [`Counts::restrict`]; counts on disk remember what is left.
    pub fn restrict(&mut self, cells: &[usize], gene_of: Option<(&[Option<u32>], usize)>) {
        match self {
            Self::InMemory(counts) => counts.restrict(cells, gene_of),
            Self::OnDisk(disk) => *disk = Arc::new(disk.restricted(cells, gene_of)),
        }
    }

    /// Bytes in memory: of the matrix, or of the tables that find a cell's counts in its file.
    pub fn bytes(&self) -> usize {
        match self {
            Self::InMemory(counts) => counts.bytes(),
            Self::OnDisk(disk) => disk.bytes(),
        }
    }
}
