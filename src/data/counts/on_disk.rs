//! Counts that stay in their file: any cells of it are brought into memory, a window of them at a time.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::data::counts::in_memory::{Counts, CountsBuilder};
use crate::data::counts::row_source::RowSource;
use crate::error::{Error, InputError, Result};

/// Cells of a chunk of the shuffle, at least, where windows are large enough for many such chunks.
const CHUNK_CELLS: usize = 64;
/// A chunk holds that many of the pieces that the file compresses together, so that few are decompressed twice.
const COMPRESSED_PIECES: usize = 4;
/// Chunks of a window, at least, unless there are fewer cells: chunks become shorter rather than fewer.
const CHUNKS_PER_WINDOW: usize = 128;
/// Most bytes that reading a stored value needs: its stored and its read form together.
const BYTES_PER_STORED: usize = 12;
/// Bytes that a window holds for each cell beside its counts: its number, its row and its offset.
const BYTES_PER_CELL: usize = 24;

/// Counts of a screen that stay in their file, cells x genes.
#[derive(Clone)]
pub struct DiskCounts {
    path: PathBuf,
    identity: Identity,
    source: Arc<dyn RowSource>,
    /// Row of the file of each cell; all in order if absent.
    rows: Option<Vec<u32>>,
    /// New number of each gene of the file that is used; all are if absent.
    gene_of: Option<Vec<Option<u32>>>,
    n_cells: usize,
    n_genes: usize,
    n_nonzero: usize,
    /// Bytes that windows may take in all.
    buffer: usize,
}

/// What tells one file from another, or from itself after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    length: u64,
    modified: Option<SystemTime>,
    /// Device and number of the file, where the system has them.
    number: (u64, u64),
}

/// How cells on disk are shuffled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShufflePlan {
    /// Neighbouring cells that stay together until they are in memory.
    pub chunk_cells: usize,
    /// Chunks that are in memory, and shuffled, together.
    pub window_chunks: usize,
}

/// Some cells' counts in memory.
#[derive(Debug, Default)]
pub struct Window {
    /// Their counts.
    pub counts: Counts,
    /// Row among them of each cell asked for.
    pub rows: Vec<usize>,
}

impl Identity {
    /// Of the file at `path` as it is now.
    ///
    /// # Errors
    /// [`Error::Io`] if it is not there.
    pub fn of(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io("reading counts from", path, e))?;
        let number = Self::number(&metadata);
        Ok(Self { length: metadata.len(), modified: metadata.modified().ok(), number })
    }

    #[cfg(unix)]
    fn number(metadata: &Metadata) -> (u64, u64) {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino())
    }

    #[cfg(not(unix))]
    fn number(_: &Metadata) -> (u64, u64) {
        (0, 0)
    }
}

impl DiskCounts {
    /// The counts that `source` reads from the file at `path`: `n_cells` rows, and the genes with a number in `gene_of`
    /// (the map and how many there are). `buffer` is the number of bytes that windows may take in all. The number of
    /// non-zero counts is that of the stored ones until it is known ([`DiskCounts::with_n_nonzero`]).
    ///
    /// # Errors
    /// [`InputError`] if the rows of the file are not those of the first pass, or if it compresses so many of them
    /// together that half of the buffer cannot hold them.
    pub(crate) fn new(
        path: &Path,
        identity: Identity,
        source: Box<dyn RowSource>,
        n_cells: usize,
        gene_of: Option<(Vec<Option<u32>>, usize)>,
        buffer: usize,
    ) -> Result<Self> {
        if !source.has_rows(n_cells) {
            return Err(source.changed().into());
        }
        let together = source.compressed_together().saturating_mul(BYTES_PER_STORED);
        if together > buffer / 2 {
            let problem = format!(
                "the file compresses {} values at a time, more than fit into a buffer of {} MB",
                source.compressed_together(),
                buffer >> 20
            );
            let remedy =
                format!("give --stream-buffer {} or more, or write it with smaller chunks", (together >> 19) + 1);
            return Err(InputError::new(problem, remedy).in_file(path).into());
        }
        let (n_genes, n_nonzero) = (source.n_genes(), source.n_stored(n_cells));
        let (gene_of, n_genes) = gene_of.map_or((None, n_genes), |(map, n)| (Some(map), n));
        Ok(Self {
            path: path.to_path_buf(),
            identity,
            source: source.into(),
            rows: None,
            gene_of,
            n_cells,
            n_genes,
            n_nonzero,
            buffer,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.n_cells
    }

    /// Number of genes.
    pub fn n_genes(&self) -> usize {
        self.n_genes
    }

    /// Number of non-zero counts.
    pub fn n_nonzero(&self) -> usize {
        self.n_nonzero
    }

    /// The same counts, of which so many are not zero.
    pub(crate) fn with_n_nonzero(&self, n_nonzero: usize) -> Self {
        Self { n_nonzero, ..self.clone() }
    }

    /// Bytes that windows may take in all.
    pub fn buffer(&self) -> usize {
        self.buffer
    }

    /// Bytes of the tables that find a cell's counts.
    pub fn bytes(&self) -> usize {
        let maps = self.rows.as_ref().map_or(0, |rows| rows.len() * size_of::<u32>())
            + self.gene_of.as_ref().map_or(0, |genes| genes.len() * size_of::<Option<u32>>());
        self.source.bytes() + maps
    }

    /// The same counts restricted to `cells` and genes, as [`Counts::restrict`] understands them. The number of non-zero
    /// counts is that of before until it is known.
    pub(crate) fn restricted(&self, cells: &[usize], gene_of: Option<(&[Option<u32>], usize)>) -> Self {
        let all = cells.len() == self.n_cells;
        let rows = match &self.rows {
            Some(rows) => Some(cells.iter().map(|&n| rows[n]).collect()),
            None if all => None,
            None => Some(cells.iter().map(|&n| n as u32).collect()),
        };
        let composed = gene_of.map(|(map, _)| match &self.gene_of {
            Some(before) => before.iter().map(|gene| gene.and_then(|gene| map[gene as usize])).collect(),
            None => map.to_vec(),
        });
        Self {
            rows,
            gene_of: composed.or_else(|| self.gene_of.clone()),
            n_cells: cells.len(),
            n_genes: gene_of.map_or(self.n_genes, |(_, n)| n),
            ..self.clone()
        }
    }

    /// Bytes of a cell in a window, on average.
    fn bytes_per_cell(&self) -> usize {
        let width = if self.n_genes <= u16::MAX as usize + 1 { 4 } else { 8 };
        (width * self.n_nonzero).div_ceil(self.n_cells.max(1)) + BYTES_PER_CELL
    }

    /// Cells of a window: two windows, one in use and one being read, fill the buffer.
    pub fn window_cells(&self) -> usize {
        (self.buffer / 2 / self.bytes_per_cell()).max(1)
    }

    /// How training cells are shuffled.
    pub fn shuffle_plan(&self) -> ShufflePlan {
        let window = self.window_cells();
        let stored_per_cell = (self.source.n_stored(self.n_cells) / self.n_cells.max(1)).max(1);
        let pieces = COMPRESSED_PIECES.saturating_mul(self.source.compressed_together()).div_ceil(stored_per_cell);
        let chunk_cells = pieces.max(CHUNK_CELLS).min(window / CHUNKS_PER_WINDOW).max(1);
        ShufflePlan { chunk_cells, window_chunks: (window / chunk_cells).max(1) }
    }

    /// The counts of `cells`, which may come in any order, in the place of a window that is done with: memory then stays
    /// in few pieces, however many windows are read.
    ///
    /// # Errors
    /// As [`DiskCounts::read`].
    pub fn window(&self, cells: &[usize], old: Window) -> Result<Window> {
        let Window { counts, mut rows } = old;
        rows.clear();
        if cells.is_sorted_by(|a, b| a < b) {
            let counts = self.read_in_place_of(counts, cells)?;
            rows.extend(0..cells.len());
            return Ok(Window { counts, rows });
        }
        let mut ascending = cells.to_vec();
        ascending.sort_unstable();
        ascending.dedup();
        let counts = self.read_in_place_of(counts, &ascending)?;
        rows.extend(cells.iter().map(|n| ascending.binary_search(n).expect("it is among its own")));
        Ok(Window { counts, rows })
    }

    /// The counts of `cells`, which ascend.
    ///
    /// # Errors
    /// [`Error::Io`] if the file has vanished, has changed since the run began, or cannot be read.
    pub fn read(&self, cells: &[usize]) -> Result<Counts> {
        self.read_in_place_of(Counts::default(), cells)
    }

    fn read_in_place_of(&self, old: Counts, cells: &[usize]) -> Result<Counts> {
        let counts = self.read_unchecked(old, cells);
        // Whatever went wrong, a file that is not the same any more is the reason; and what was read of it is worthless.
        let now = Identity::of(&self.path)?;
        let failed = |reason: String| Error::io("reading counts from", &self.path, std::io::Error::other(reason));
        if now != self.identity {
            return Err(failed(
                "the file has changed since the run began; put it back as it was and start again".to_owned(),
            ));
        }
        counts.map_err(|error| match error {
            Error::Input(error) => failed(error.to_string()),
            other => other,
        })
    }

    fn read_unchecked(&self, old: Counts, cells: &[usize]) -> Result<Counts> {
        let rows: Vec<usize> = match &self.rows {
            Some(rows) => cells.iter().map(|&n| rows[n] as usize).collect(),
            None => cells.to_vec(),
        };
        let mut builder = CountsBuilder::in_place_of(old, self.n_genes);
        // A restriction to some genes leaves fewer: then the average is the better guess.
        let average = (self.n_nonzero / self.n_cells.max(1) + 1) * cells.len();
        builder.reserve(cells.len(), self.source.n_entries(&rows).map_or(average, |most| most.min(average)));
        let (mut kept_genes, mut kept_counts) = (Vec::new(), Vec::new());
        self.source.read(&rows, &mut |genes, counts| {
            kept_genes.clear();
            kept_counts.clear();
            for (&gene, &count) in genes.iter().zip(counts).filter(|(_, count)| **count > 0) {
                let gene = match &self.gene_of {
                    None => Some(gene),
                    Some(map) => map[gene as usize],
                };
                if let Some(gene) = gene {
                    kept_genes.push(gene);
                    kept_counts.push(count);
                }
            }
            if !kept_genes.is_sorted_by(|a, b| a < b) {
                self.mend(&mut kept_genes, &mut kept_counts)?;
            }
            builder.push_cell(&kept_genes, &kept_counts);
            Ok(())
        })?;
        Ok(builder.finish())
    }

    /// Sorts the entries of a cell by gene and sums those of one gene, as the first pass understood them.
    #[cold]
    fn mend(&self, genes: &mut Vec<u32>, counts: &mut Vec<u32>) -> Result<()> {
        let mut entries: Vec<(u32, u32)> = genes.iter().copied().zip(counts.iter().copied()).collect();
        entries.sort_by_key(|&(gene, _)| gene);
        genes.clear();
        counts.clear();
        for (gene, count) in entries {
            match counts.last_mut() {
                Some(sum) if genes.last() == Some(&gene) => {
                    *sum = sum.checked_add(count).ok_or_else(|| self.source.changed())?;
                }
                _ => {
                    genes.push(gene);
                    counts.push(count);
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for DiskCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {} counts in {}", self.n_cells, self.n_genes, self.path.display())
    }
}

impl PartialEq for DiskCounts {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, &self.identity, &self.rows, &self.gene_of)
            == (&other.path, &other.identity, &other.rows, &other.gene_of)
    }
}

impl Eq for DiskCounts {}
