//! What a file must offer for its counts to stay in it.

use crate::error::{InputError, Result};

/// Receives a cell: its genes, and their counts.
pub(crate) type CellSink<'a> = &'a mut dyn FnMut(&[u32], &[u32]) -> Result<()>;

/// Any rows of a matrix of cells x genes, read by their numbers. A first pass has checked every value of it, so what does
/// not fit has changed since.
pub(crate) trait RowSource: Send + Sync {
    /// Number of genes of the file.
    fn n_genes(&self) -> usize;

    /// Whether there are `n_rows` rows, one after another.
    fn has_rows(&self, n_rows: usize) -> bool;

    /// Stored values of the first `n_rows` rows.
    fn n_stored(&self, n_rows: usize) -> usize;

    /// Entries that the given rows have at most; `None` if only their reading tells.
    fn n_entries(&self, rows: &[usize]) -> Option<usize>;

    /// Stored values that can only be decompressed together; 1 where nothing is compressed.
    fn compressed_together(&self) -> usize;

    /// Bytes of the tables that find a row.
    fn bytes(&self) -> usize;

    /// Calls `cell(genes, counts)` for each of `rows`, which ascend; zeros and genes out of order are passed on as stored.
    ///
    /// # Errors
    /// [`RowSource::changed`] for a value that is no count, what the file's library says, and the errors of `cell`.
    fn read(&self, rows: &[usize], cell: CellSink) -> Result<()>;

    /// The error for a file that is no longer what it was.
    fn changed(&self) -> InputError;
}
