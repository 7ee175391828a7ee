//! Processes ("ranks") that train one model together, each on its share of the cells.
//!
//! Sums over ranks are formed in the order of the ranks, from values that every rank has sent to every other one, so
//! they are the same bits on all ranks and in every repetition, whatever the network does. With one process nothing is
//! sent and nothing is computed. Without the feature `mpi` there is only ever one process. See `docs/mpi.md`.

#[cfg(not(feature = "mpi"))]
mod alone;
#[cfg(feature = "mpi")]
mod mpi;

#[cfg(not(feature = "mpi"))]
use alone::{Environment, World, join};
#[cfg(feature = "mpi")]
use mpi::{Environment, World, join};

use std::borrow::Cow;
use std::io::Write;
use std::sync::{Mutex, MutexGuard};

use crate::error::{Error, InputError, Result};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::system::console::complaint;

/// Environment variables in which the launchers of MPI jobs tell a process how many they started: Open MPI, MPICH and
/// its relatives.
const SIZE_VARIABLES: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];

/// Sums of this many bytes or more are formed by slices, one to a rank, which sends less than everything to everyone.
const LARGE: usize = 1 << 14;

/// The processes of a job, as one of them sees them.
#[derive(Debug)]
pub struct Ranks {
    world: Option<World>,
    scratch: Mutex<SumBuffers>,
}

/// The processes that were started together, while they communicate.
pub struct Job {
    // The environment ends after those who use it.
    ranks: Ranks,
    _environment: Option<Environment>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job of {}", self.ranks.size())
    }
}

impl Job {
    /// Joins the processes that `mpirun` or another launcher has started together with this one; this one is alone if it
    /// was started without, or if the program was built without MPI.
    ///
    /// # Errors
    /// [`Error::Ranks`] if MPI cannot be started.
    pub fn join() -> Result<Self> {
        let (world, environment) = join()?.unzip();
        Ok(Self { ranks: Ranks { world, scratch: Mutex::default() }, _environment: environment })
    }

    /// Its processes.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }
}

/// One process.
static ALONE: Ranks = Ranks { world: None, scratch: Mutex::new(SumBuffers { sent: Vec::new(), received: Vec::new() }) };

impl Ranks {
    /// One process.
    pub fn alone() -> &'static Self {
        &ALONE
    }

    /// Refuses a job whose processes cannot communicate: the program was built without MPI, or with another MPI than that of
    /// the launcher.
    ///
    /// # Errors
    /// [`InputError`].
    pub fn check_launcher(&self) -> Result<(), InputError> {
        let of = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
        let Some(n) = SIZE_VARIABLES.into_iter().find_map(of).filter(|&n| n > 1 && self.is_alone()) else {
            return Ok(());
        };
        let (built, remedy) = match cfg!(feature = "mpi") {
            true => ("with another MPI than that of the launcher", "build it anew with the MPI that starts it"),
            false => ("without MPI", "build it with `cargo build --release --features mpi`, or start one process"),
        };
        let problem = format!("{n} processes were started as one job, but this program was built {built}");
        Err(InputError::new(problem, remedy))
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.world.as_ref().map_or(0, World::rank)
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.world.as_ref().map_or(1, World::size)
    }

    /// Whether this process is the one that prints and writes.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Whether there is no other process.
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// The rank that holds a cell. Neighbours in a file, which often share a label, go to different ranks.
    pub fn owner(&self, cell: usize) -> usize {
        cell % self.size()
    }

    /// Whether this rank holds a cell.
    pub fn holds(&self, cell: usize) -> bool {
        self.owner(cell) == self.rank()
    }

    /// Those of `cells` that this rank holds, in their order.
    pub fn mine<'a>(&self, cells: &'a [usize]) -> Cow<'a, [usize]> {
        match self.is_alone() {
            true => Cow::Borrowed(cells),
            false => Cow::Owned(cells.iter().copied().filter(|&cell| self.holds(cell)).collect()),
        }
    }

    /// Places, within `cells`, of those that this rank holds.
    pub fn my_places(&self, cells: &[usize]) -> Vec<usize> {
        (0..cells.len()).filter(|&i| self.holds(cells[i])).collect()
    }

    /// Replaces `values` on every rank by their sums over all ranks, each formed in the order of the ranks.
    pub fn sum<R: Real>(&self, values: &mut [R]) {
        let Some(world) = &self.world else { return };
        let (n, ranks) = (values.len(), world.size());
        let mut scratch = self.scratch();
        if size_of_val(values) < LARGE {
            let (_, received) = scratch.of::<R>(0, n * ranks);
            world.all_gather(bytes(values), bytes_mut(received));
            sum_in_order(values, received);
            return;
        }
        // Every rank sums up one slice of the values and hands it to the others.
        let slice = n.div_ceil(ranks);
        let (sent, received) = scratch.of::<R>(slice * ranks, slice * ranks);
        sent[..n].copy_from_slice(values);
        sent[n..].fill(R::ZERO);
        world.exchange(bytes(sent), bytes_mut(received));
        sum_in_order(&mut sent[..slice], received);
        world.all_gather(bytes(&sent[..slice]), bytes_mut(received));
        values.copy_from_slice(&received[..n]);
    }

    /// The `values` of every rank, in the order of the ranks, into `all`; every rank has as many.
    pub fn all_gather<R: Real>(&self, values: &[R], all: &mut [R]) {
        match &self.world {
            Some(world) => world.all_gather(bytes(values), bytes_mut(all)),
            None => all.copy_from_slice(values),
        }
    }

    /// The rows of all `cells`, in that order, from the rows of those that each rank holds.
    ///
    /// `own` has `width` values for each cell of [`Ranks::mine`].
    pub fn gather_rows<R: Real>(&self, cells: &[usize], width: usize, own: Vec<R>) -> Vec<R> {
        let Some(world) = &self.world else { return own };
        let mut rows = vec![0; world.size()];
        cells.iter().for_each(|&cell| rows[self.owner(cell)] += 1);
        assert_eq!(own.len(), rows[world.rank()] * width, "a row for each cell that the rank holds");
        let share = rows.iter().max().map_or(0, |most| most * width);
        let mut sent = own;
        sent.resize(share, R::ZERO);
        let mut received = vec![R::ZERO; share * world.size()];
        world.all_gather(bytes(&sent), bytes_mut(&mut received));
        let mut next: Vec<usize> = (0..world.size()).map(|rank| rank * share).collect();
        let mut all = Vec::with_capacity(cells.len() * width);
        for &cell in cells {
            let at = &mut next[self.owner(cell)];
            all.extend_from_slice(&received[*at..*at + width]);
            *at += width;
        }
        all
    }

    /// The text of every rank, in the order of the ranks.
    pub fn gather_texts(&self, text: &str) -> Vec<String> {
        let Some(world) = &self.world else { return vec![text.to_owned()] };
        let mut lengths = vec![0.0; world.size()];
        self.all_gather(&[text.len() as f64], &mut lengths);
        let longest = lengths.iter().fold(0.0, |a: f64, &b| a.max(b)) as usize;
        let mut sent = text.as_bytes().to_vec();
        sent.resize(longest, 0);
        let mut received = vec![0; longest * world.size()];
        world.all_gather(&sent, &mut received);
        let whole = |(rank, &length): (usize, &f64)| {
            String::from_utf8_lossy(&received[rank * longest..rank * longest + length as usize]).into_owned()
        };
        lengths.iter().enumerate().map(whole).collect()
    }

    /// The text of the first rank.
    pub fn first_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.first_bytes(text.as_bytes().to_vec())).into_owned()
    }

    /// The bytes of the first rank.
    pub fn first_bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let Some(world) = &self.world else { return bytes };
        let mut length = [0; size_of::<u64>()];
        if self.is_first() {
            length = (bytes.len() as u64).to_ne_bytes();
        }
        world.broadcast(&mut length);
        bytes.resize(u64::from_ne_bytes(length) as usize, 0);
        world.broadcast(&mut bytes);
        bytes
    }

    /// The text of the first rank that has one.
    pub fn first_of(&self, text: Option<String>) -> Option<String> {
        match self.is_alone() {
            true => text,
            false => self.gather_texts(&text.unwrap_or_default()).into_iter().find(|text| !text.is_empty()),
        }
    }

    /// Whether any rank says so.
    pub fn any(&self, one: bool) -> bool {
        let mut sum = [f64::from(u8::from(one))];
        self.sum(&mut sum);
        sum[0] > 0.0
    }

    /// The result of this rank if no rank failed; else, on every rank, the error of the first that failed.
    ///
    /// # Errors
    /// As described.
    pub fn first_error<T>(&self, result: Result<T>) -> Result<T> {
        if self.is_alone() {
            return result;
        }
        // By this, and no text, the ranks tell that all is well.
        let told = result.as_ref().err().map_or_else(String::new, |error| format!("{} {error}", error.exit_code()));
        let all = self.gather_texts(&told);
        match (all.iter().position(|told| !told.is_empty()), result) {
            (None, result) => result,
            (Some(rank), _) => {
                let (code, message) = all[rank].split_once(' ').expect("a code and a message");
                let message = match rank {
                    // What all ranks met is told as one process would tell it.
                    0 => message.to_owned(),
                    _ => format!("rank {rank} of {}: {message}", self.size()),
                };
                Err(Error::Ranks { message, exit_code: code.parse().expect("an exit code") })
            }
        }
    }

    /// Checks that `text`, which describes `what`, is the same on every rank.
    ///
    /// # Errors
    /// [`Error::Ranks`], on every rank, naming the first rank that differs.
    pub fn check_same(&self, what: &str, text: &str) -> Result<()> {
        let all = self.gather_texts(text);
        match all.iter().position(|other| *other != all[0]) {
            None => Ok(()),
            Some(rank) => {
                let message = format!(
                    "rank {rank} has read other {what} than rank 0; give every rank the same files and the same command."
                );
                Err(Error::Ranks { message, exit_code: 2 })
            }
        }
    }

    /// Ends the job with a message if `values` are not the same bits on every rank: ranks that have diverged would train
    /// different models unnoticed.
    pub fn check_together<R: Real>(&self, what: &str, values: &[R]) {
        if self.is_alone() {
            return;
        }
        let all = self.gather_texts(&digest(values.iter().map(|value| value.to_f64().to_bits())));
        if let Some(rank) = all.iter().position(|other| *other != all[0]) {
            let message =
                format!("the {what} of rank {rank} are not those of rank 0; the machines compute differently.");
            if self.is_first() {
                self.end_job(&Error::Ranks { message, exit_code: 1 });
            }
            self.wait_for_the_end();
        }
    }

    /// Prints an error that this rank alone has met, and ends the whole job with its exit code.
    pub fn end_job(&self, error: &Error) -> ! {
        let located = match self.is_alone() {
            true => error.to_string(),
            false => format!("rank {} of {}: {error}", self.rank(), self.size()),
        };
        let located = Error::Ranks { message: located, exit_code: error.exit_code() };
        // With standard error closed there is nobody to tell; the exit code still speaks.
        let _ = writeln!(std::io::stderr(), "{}", complaint(&located));
        match &self.world {
            Some(world) => world.abort(error.exit_code()),
            None => std::process::exit(error.exit_code().into()),
        }
    }

    /// Waits until another rank ends the job.
    fn wait_for_the_end(&self) -> ! {
        loop {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    fn scratch(&self) -> MutexGuard<'_, SumBuffers> {
        self.scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Ranks {
    /// A rank that panics takes the others with it, which would wait for it for ever.
    fn drop(&mut self) {
        if let (true, Some(world)) = (std::thread::panicking(), &self.world) {
            let _ = writeln!(std::io::stderr(), "error: rank {} of {} has a fault.", self.rank(), self.size());
            world.abort(1);
        }
    }
}

/// A 64-bit hash of `words`, as text: FNV-1a over eight bytes at a time.
pub fn digest(words: impl Iterator<Item = u64>) -> String {
    let hash = words.fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| (hash ^ word).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// values = the sum of the rows of `received`, first to last; as many as fit.
fn sum_in_order<R: Real>(values: &mut [R], received: &[R]) {
    let mut rows = received.chunks_exact(values.len().max(1));
    if let Some(first) = rows.next() {
        values.copy_from_slice(first);
    }
    vectorized(
        #[inline(always)]
        || {
            for row in rows {
                for (sum, &value) in values.iter_mut().zip(row) {
                    *sum += value;
                }
            }
        },
    );
}

/// Buffers for sums, reused from one to the next. Words of eight bytes hold values of either precision.
#[derive(Debug, Default)]
struct SumBuffers {
    sent: Vec<u64>,
    received: Vec<u64>,
}

impl SumBuffers {
    /// Room for so many values.
    fn of<R: Real>(&mut self, sent: usize, received: usize) -> (&mut [R], &mut [R]) {
        fn room<R: Real>(words: &mut Vec<u64>, n: usize) -> &mut [R] {
            let needed = (n * size_of::<R>()).div_ceil(size_of::<u64>());
            if words.len() < needed {
                words.resize(needed, 0);
            }
            // SAFETY: the words are initialised and at least as long and as aligned as n values of `R` (f32 or f64), for
            // which every pattern of bits is a value.
            unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), n) }
        }
        (room(&mut self.sent, sent), room(&mut self.received, received))
    }
}

/// The bytes of some values.
fn bytes<R: Real>(values: &[R]) -> &[u8] {
    // SAFETY: `R` is f32 or f64, which have no padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of some values, to be overwritten.
fn bytes_mut<R: Real>(values: &mut [R]) -> &mut [u8] {
    // SAFETY: as for `bytes`; every pattern of bits is a value.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_everything_and_agrees_with_itself() {
        let ranks = Ranks::alone();
        assert!(ranks.is_first() && ranks.is_alone());
        let cells = [5, 2, 9];
        assert_eq!(*ranks.mine(&cells), cells);
        assert_eq!(ranks.my_places(&cells), [0, 1, 2]);
        let mut values = [1.5f32, -2.0];
        ranks.sum(&mut values);
        assert_eq!(values, [1.5, -2.0]);
        assert_eq!(ranks.gather_rows(&cells, 1, vec![1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]);
        assert!(ranks.any(true) && !ranks.any(false));
        assert_eq!(ranks.first_of(Some("x".to_owned())).as_deref(), Some("x"));
        assert!(ranks.check_same("settings", "a").is_ok());
        let error = ranks.first_error::<()>(Err(InputError::new("a", "b").into())).expect_err("its own error");
        assert_eq!((error.exit_code(), error.to_string().as_str()), (2, "a; b."));
    }

    #[test]
    fn sums_are_formed_from_the_first_rank_to_the_last() {
        // In another order the small number would survive.
        let mut values = [0.0f32; 2];
        sum_in_order(&mut values, &[1e8, 1.0, 1.0, 2.0, -1e8, 3.0]);
        assert_eq!(values, [0.0, 6.0]);
        sum_in_order::<f32>(&mut [], &[]);
    }

    #[test]
    fn scratch_has_room_for_either_precision() {
        let mut scratch = SumBuffers::default();
        let (sent, received) = scratch.of::<f32>(3, 5);
        (sent[2], received[4]) = (1.0, 2.0);
        assert_eq!((sent.len(), received.len()), (3, 5));
        assert_eq!(scratch.of::<f64>(7, 0).0.len(), 7);
    }
}
