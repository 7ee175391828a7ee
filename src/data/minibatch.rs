//! Minibatches: which cells come together and in which order, and their counts brought into memory ahead of their use.
//!
//! Counts in memory are shuffled as one. Counts on disk are shuffled chunk by chunk (`derivations/streaming.md`):
//! runs of neighbouring cells are drawn in random order, a window of many runs is read into memory, and its cells are
//! shuffled. A thread of its own reads the next window while one is in use. Which cells make a minibatch follows from
//! seed, epoch and file alone, never from how fast anything was read.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;

use crate::data::counts::ScreenCounts;
use crate::data::counts::in_memory::{Counts, CountsBuilder, CountsRow, prefetch};
use crate::data::counts::on_disk::{DiskCounts, ShufflePlan, Window};
use crate::data::dataset::Dataset;
use crate::error::{Error, Result};
use crate::numerics::random::{Purpose, shuffle, stream};

/// Cells to work on.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The screen.
    pub data: &'a Dataset,
    /// Numbers of the cells, in the order of the rows.
    pub cells: &'a [usize],
    /// The counts that are in memory, if they are.
    counts: Option<&'a Counts>,
    /// Where each cell is among these.
    rows: &'a [usize],
}

impl<'a> Batch<'a> {
    /// `cells` of a screen. Where its counts are on disk the minibatch has none: it serves for what needs only the rest.
    pub fn new(data: &'a Dataset, cells: &'a [usize]) -> Self {
        Self { data, cells, counts: data.counts.in_memory(), rows: cells }
    }

    /// `cells`, which are the `rows` of `counts`.
    pub fn resident(data: &'a Dataset, cells: &'a [usize], counts: &'a Counts, rows: &'a [usize]) -> Self {
        assert_eq!(cells.len(), rows.len(), "a row for each cell");
        Self { data, cells, counts: Some(counts), rows }
    }

    /// The non-zero counts of the i-th cell.
    ///
    /// # Panics
    /// If the minibatch has no counts.
    #[inline]
    pub fn row(&self, i: usize) -> CountsRow<'a> {
        self.counts.expect("a minibatch whose counts were read").row(self.rows[i])
    }

    /// Asks for the counts and size factors of cells, by their rows in the minibatch, to be brought near the processor; has no
    /// effect on any result.
    #[inline]
    pub fn prefetch(&self, rows: Range<usize>) {
        let Some(counts) = self.counts else { return };
        // One cell's places decide where its counts are: all places first, so that no cell waits for another's.
        for i in rows.clone() {
            counts.prefetch_place(self.rows[i]);
            prefetch(&self.data.library[self.cells[i]..=self.cells[i]]);
        }
        rows.for_each(|i| counts.prefetch(self.rows[i]));
    }

    /// `copies` times the i-th cell; `cells` and `rows` give room for that.
    pub fn repeated<'b>(&self, i: usize, cells: &'b mut [usize], rows: &'b mut [usize]) -> Batch<'b>
    where
        'a: 'b,
    {
        cells.fill(self.cells[i]);
        rows.fill(self.rows[i]);
        Batch { data: self.data, cells, counts: self.counts, rows }
    }
}

/// Cells in the order in which they are worked on, and the windows in which they are brought into memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The cells.
    pub cells: Vec<usize>,
    /// Where each window ends; a single one, and without meaning, where the counts are in memory.
    windows: Vec<usize>,
}

impl Order {
    /// `cells` (ascending) of an epoch, shuffled: as one where the counts are in memory or one window holds all,
    /// otherwise as the file allows. A function of its arguments alone.
    pub fn shuffled(counts: &ScreenCounts, cells: &[usize], seed: u64, epoch: u64) -> Self {
        match counts.disk() {
            None => Self::by_windows(cells, ShufflePlan { chunk_cells: 1, window_chunks: usize::MAX }, seed, epoch),
            Some(disk) => Self::by_windows(cells, disk.shuffle_plan(), seed, epoch),
        }
    }

    /// As [`Order::shuffled`], by a given plan.
    pub fn by_windows(cells: &[usize], plan: ShufflePlan, seed: u64, epoch: u64) -> Self {
        let mut random = stream(seed, Purpose::Shuffle, epoch, 0);
        let per_window = plan.chunk_cells.saturating_mul(plan.window_chunks).max(1);
        if cells.len() <= per_window {
            let mut cells = cells.to_vec();
            shuffle(&mut cells, &mut random);
            return Self { windows: vec![cells.len()], cells };
        }
        let mut chunks: Vec<&[usize]> = cells.chunks(plan.chunk_cells.max(1)).collect();
        shuffle(&mut chunks, &mut random);
        let mut order = Self { cells: Vec::with_capacity(cells.len()), windows: Vec::new() };
        for window in chunks.chunks(plan.window_chunks.max(1)) {
            let from = order.cells.len();
            window.iter().for_each(|chunk| order.cells.extend_from_slice(chunk));
            shuffle(&mut order.cells[from..], &mut random);
            order.windows.push(order.cells.len());
        }
        order
    }
}

/// The minibatches of a pass over cells, one after another.
#[derive(Debug)]
pub struct Minibatches<'a> {
    data: &'a Dataset,
    cells: Cow<'a, [usize]>,
    batch_size: usize,
    /// Where the next minibatch starts.
    next: usize,
    /// `None` where the counts are in memory.
    reader: Option<WindowReader>,
}

impl<'a> Minibatches<'a> {
    /// Passes over `cells` in their order, `batch_size` at a time; the last minibatch may be smaller. Counts on disk are
    /// read fast where the cells ascend.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses a thread for reading.
    pub fn of_cells(data: &'a Dataset, cells: &'a [usize], batch_size: usize) -> Result<Self> {
        let windows = data.counts.disk().map(|disk| {
            let most = disk.window_cells();
            (1..=cells.len().div_ceil(most)).map(|n| (n * most).min(cells.len())).collect::<Vec<_>>()
        });
        Self::new(data, Cow::Borrowed(cells), windows.unwrap_or_default(), batch_size, 0)
    }

    /// The minibatches of an epoch, from the one of number `first` on (from 0).
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses a thread for reading.
    pub fn of_epoch(data: &'a Dataset, order: Order, batch_size: usize, first: usize) -> Result<Self> {
        Self::new(data, Cow::Owned(order.cells), order.windows, batch_size, first.saturating_mul(batch_size))
    }

    fn new(
        data: &'a Dataset,
        cells: Cow<'a, [usize]>,
        windows: Vec<usize>,
        batch_size: usize,
        first_cell: usize,
    ) -> Result<Self> {
        assert!(batch_size > 0, "a minibatch has cells");
        let next = first_cell.min(cells.len());
        let reader = match data.counts.disk() {
            Some(disk) if next < cells.len() => Some(WindowReader::start(Arc::clone(disk), &cells, windows, next)?),
            _ => None,
        };
        Ok(Self { data, cells, batch_size, next, reader })
    }

    /// The next minibatch; `None` after the last.
    ///
    /// # Errors
    /// As [`DiskCounts::read`]; none where the counts are in memory.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Batch<'_>>> {
        self.next_of(self.batch_size)
    }

    /// The next `n` cells, or fewer at the end; `None` after the last.
    ///
    /// # Errors
    /// As [`Minibatches::next`].
    pub fn next_of(&mut self, n: usize) -> Result<Option<Batch<'_>>> {
        if self.next == self.cells.len() {
            return Ok(None);
        }
        let (from, to) = (self.next, (self.next + n).min(self.cells.len()));
        self.next = to;
        let cells = &self.cells[from..to];
        match &mut self.reader {
            None => Ok(Some(Batch::new(self.data, cells))),
            Some(reader) => {
                let (counts, rows) = reader.rows(&self.cells, from, to)?;
                Ok(Some(Batch::resident(self.data, cells, counts, rows)))
            }
        }
    }
}

/// Receives the windows that a thread of its own reads.
#[derive(Debug)]
struct WindowReader {
    disk: Arc<DiskCounts>,
    /// Where each window ends in the order of the cells.
    ends: Vec<usize>,
    /// Number of the next window that is asked for, and where it starts.
    asked: (usize, usize),
    /// Cells of the windows that are asked for, and windows whose place these may take.
    requests: Option<Sender<(Vec<usize>, Window)>>,
    windows: Option<Receiver<Result<Window>>>,
    thread: Option<JoinHandle<()>>,
    current: Window,
    /// Places in the order of the cells of the current window.
    start: usize,
    end: usize,
    /// A minibatch that lies in two windows, or more.
    across: Counts,
    across_rows: Vec<usize>,
}

impl WindowReader {
    /// Begins to read the windows of `cells` that end at `ends`, from the cell at `first` on.
    fn start(disk: Arc<DiskCounts>, cells: &[usize], ends: Vec<usize>, first: usize) -> Result<Self> {
        let (requests, asked_for) = channel::<(Vec<usize>, Window)>();
        // Without a queue: one window is in use, and one is being read or waits to be taken.
        let (send, windows) = sync_channel(0);
        let reads = Arc::clone(&disk);
        let read = move || {
            for (piece, old) in asked_for {
                let window = reads.window(&piece, old);
                let failed = window.is_err();
                // Nobody waits any more where the pass was given up.
                if send.send(window).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("svae-read".to_owned()).spawn(read).map_err(|e| {
            let reason = std::io::Error::new(e.kind(), format!("no thread for reading ahead could be started: {e}"));
            Error::io("reading counts from", disk.path(), reason)
        })?;
        let passed = ends.partition_point(|&end| end <= first);
        let mut reader = Self {
            current: Window::default(),
            across: CountsBuilder::new(disk.n_genes()).finish(),
            across_rows: Vec::new(),
            disk,
            ends,
            asked: (passed, first),
            requests: Some(requests),
            windows: Some(windows),
            thread: Some(thread),
            start: first,
            end: first,
        };
        reader.ask(cells);
        Ok(reader)
    }

    /// Asks for the next window of `cells`, if there is one left.
    fn ask(&mut self, cells: &[usize]) {
        let (number, from) = self.asked;
        if let Some(&end) = self.ends.get(number)
            && let Some(requests) = &self.requests
        {
            // A reader that has ended says why when the window is taken.
            let _ = requests.send((cells[from..end].to_vec(), std::mem::take(&mut self.current)));
            self.asked = (number + 1, end);
        }
    }

    /// The counts that hold the cells at places `from..to` of `cells`, and these cells' rows among them.
    fn rows(&mut self, cells: &[usize], from: usize, to: usize) -> Result<(&Counts, &[usize])> {
        if from >= self.end {
            self.take(cells)?;
        }
        if to <= self.end {
            let rows = &self.current.rows[from - self.start..to - self.start];
            return Ok((&self.current.counts, rows));
        }
        let mut builder = CountsBuilder::new(self.disk.n_genes());
        for at in from..to {
            if at >= self.end {
                self.take(cells)?;
            }
            builder.push_row(self.current.counts.row(self.current.rows[at - self.start]));
        }
        self.across = builder.finish();
        self.across_rows.clear();
        self.across_rows.extend(0..to - from);
        Ok((&self.across, &self.across_rows))
    }

    /// Waits for the next window.
    fn take(&mut self, cells: &[usize]) -> Result<()> {
        // The window that was in use makes room for the one after the next, which is read once the next is taken.
        self.ask(cells);
        self.current = Window::default();
        let ended = || {
            let reason = std::io::Error::other("the thread that reads ahead has ended too early");
            Error::io("reading counts from", self.disk.path(), reason)
        };
        let windows = self.windows.as_ref().expect("there as long as the reader");
        self.current = windows.recv().map_err(|_| ended())??;
        self.start = self.end;
        self.end += self.current.rows.len();
        Ok(())
    }
}

impl Drop for WindowReader {
    fn drop(&mut self) {
        // The thread ends once nobody can receive.
        drop((self.windows.take(), self.requests.take()));
        if let Some(thread) = self.thread.take() {
            // A panic there has been told by the hook already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_window_is_the_shuffle_of_counts_in_memory() {
        let cells: Vec<usize> = (0..100).map(|n| 3 * n).collect();
        let in_memory = Order::shuffled(&Counts::from_dense(1, &[0; 300]).into(), &cells, 7, 4);
        let mut by_hand = cells.clone();
        shuffle(&mut by_hand, &mut stream(7, Purpose::Shuffle, 4, 0));
        assert_eq!(in_memory.cells, by_hand);
        let plan = ShufflePlan { chunk_cells: 10, window_chunks: 10 };
        assert_eq!(Order::by_windows(&cells, plan, 7, 4), in_memory);
        let plan = ShufflePlan { chunk_cells: 10, window_chunks: 9 };
        assert_ne!(Order::by_windows(&cells, plan, 7, 4), in_memory);
    }

    proptest! {
        /// Whatever the sizes, every cell comes once, and cells of a window are those of its chunks.
        #[test]
        fn every_cell_comes_once(
            n in 1usize..400, step in 1usize..4, chunk_cells in 1usize..40, window_chunks in 1usize..40, seed: u64,
            epoch in 0u64..1000,
        ) {
            let cells: Vec<usize> = (0..n).map(|n| n * step).collect();
            let order = Order::by_windows(&cells, ShufflePlan { chunk_cells, window_chunks }, seed, epoch);
            let mut sorted = order.cells.clone();
            sorted.sort_unstable();
            prop_assert_eq!(&sorted, &cells);
            prop_assert_eq!(order.windows.last(), Some(&n));
            let mut from = 0;
            for &end in &order.windows {
                prop_assert!(end - from <= chunk_cells * window_chunks && end > from);
                if order.windows.len() > 1 {
                    // Whole chunks: as many cells of each as it has in all.
                    let mut sizes = std::collections::BTreeMap::new();
                    for cell in &order.cells[from..end] {
                        *sizes.entry(cell / step / chunk_cells).or_insert(0) += 1;
                    }
                    for (chunk, size) in sizes {
                        prop_assert_eq!(size, chunk_cells.min(n - chunk * chunk_cells));
                    }
                }
                from = end;
            }
            prop_assert_eq!(&order, &Order::by_windows(&cells, ShufflePlan { chunk_cells, window_chunks }, seed, epoch));
        }
    }

    /// Variance of the number of a minibatch's cells under one of ten interventions, of a file sorted by them.
    fn variance(plan: ShufflePlan, batch: usize) -> (f64, f64) {
        let (n, per_intervention) = (4000, 400);
        let cells: Vec<usize> = (0..n).collect();
        let mut squares = Vec::new();
        for epoch in 0..1500 {
            let order = Order::by_windows(&cells, plan, 11, epoch);
            // One minibatch of each epoch: those of one epoch depend on each other.
            let of_first = order.cells[..batch].iter().filter(|cell| **cell < per_intervention).count();
            squares.push((of_first as f64 - 0.1 * batch as f64).powi(2));
        }
        let draws = squares.len() as f64;
        let mean = squares.iter().sum::<f64>() / draws;
        let error = (squares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / draws / draws).sqrt();
        (mean, error)
    }

    /// Eq. (W3), exactly as the page states it, for K chunks of which W make a window.
    fn predicted(n: f64, plan: ShufflePlan, batch: f64, share: f64) -> f64 {
        let (chunks, window) = (n / plan.chunk_cells as f64, plan.window_chunks as f64);
        let held = window * plan.chunk_cells as f64;
        let between = (chunks - window) / (window * (chunks - 1.0));
        batch * share * (1.0 - share) * ((held - batch) / (held - 1.0) + between * (batch - 1.0) * held / (held - 1.0))
    }

    #[test]
    fn minibatches_of_a_sorted_file_vary_as_derived() {
        for (chunk_cells, window_chunks, batch) in [(20, 40, 64), (40, 10, 64), (8, 100, 32)] {
            let plan = ShufflePlan { chunk_cells, window_chunks };
            let (got, error) = variance(plan, batch);
            let want = predicted(4000.0, plan, batch as f64, 0.1);
            assert!((got - want).abs() < 4.0 * error, "{plan:?}: {got} +- {error}, {want}");
            // And far from that of a full shuffle, where few chunks make a window.
            let full = predicted(4000.0, ShufflePlan { chunk_cells: 1, window_chunks: 4000 }, batch as f64, 0.1);
            assert!(want > full * (1.0 + 0.5 * (batch as f64 - 1.0) / window_chunks as f64), "{want} {full}");
        }
    }
}
