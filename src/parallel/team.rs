//! A team of threads that splits one short piece of work after another into tiles, as a training step needs; and the ranks
//! it works with.
//!
//! Work is cut into tiles whose number and size never depend on the number of threads; a tile writes only its own
//! part of the output. So results are the same bytes on any number of threads.

use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::parallel::ranks::Ranks;

/// Output that is handed out tile by tile.
///
/// # Safety
/// Parts of different indices must not overlap.
pub unsafe trait Split: Sync {
    /// The part of the output that a tile writes.
    type Part;

    /// The part of tile `i`.
    ///
    /// # Safety
    /// Each index may be taken at most once while the split exists.
    unsafe fn part(&self, i: usize) -> Self::Part;
}

/// A slice cut into consecutive chunks of equal length (the last may be shorter, or empty).
#[derive(Debug)]
pub struct Tiles<'a, T> {
    start: *mut T,
    len: usize,
    tile: usize,
    slice: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Tiles<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Tiles<'_, T> {}

// SAFETY: the chunks are disjoint parts of a slice that is borrowed mutably for as long as the tiles exist.
unsafe impl<T: Send> Sync for Tiles<'_, T> {}
unsafe impl<T: Send> Send for Tiles<'_, T> {}

/// Cuts `slice` into chunks of `tile` values.
pub fn tiles<T>(slice: &mut [T], tile: usize) -> Tiles<'_, T> {
    Tiles { start: slice.as_mut_ptr(), len: slice.len(), tile, slice: PhantomData }
}

unsafe impl<'a, T: Send> Split for Tiles<'a, T> {
    type Part = &'a mut [T];

    #[inline]
    unsafe fn part(&self, i: usize) -> &'a mut [T] {
        let from = (i * self.tile).min(self.len);
        let to = (from + self.tile).min(self.len);
        // SAFETY: within the slice; chunks of different indices are disjoint and each is taken once.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), to - from) }
    }
}

/// A slice cut into given, disjoint ranges.
#[derive(Debug)]
pub struct Pieces<'a, T> {
    start: *mut T,
    ranges: &'a [Range<usize>],
    slice: PhantomData<&'a mut [T]>,
}

unsafe impl<T: Send> Sync for Pieces<'_, T> {}

/// Cuts `slice` twice, at ranges that ascend within each list and overlap nowhere; empty ranges are allowed.
///
/// # Panics
/// If ranges overlap or reach past the end.
pub fn pieces_pair<'a, T>(
    slice: &'a mut [T],
    first: &'a [Range<usize>],
    second: &'a [Range<usize>],
) -> (Pieces<'a, T>, Pieces<'a, T>) {
    let mut lists = [first, second].map(|list| list.iter().filter(|range| !range.is_empty()).peekable());
    let mut end = 0;
    loop {
        let starts = lists.each_mut().map(|list| list.peek().map_or(usize::MAX, |range| range.start));
        let next = if starts[0] <= starts[1] { lists[0].next() } else { lists[1].next() };
        let Some(range) = next else { break };
        assert!(range.start >= end && range.end <= slice.len(), "ranges must ascend without overlap");
        end = range.end;
    }
    let start = slice.as_mut_ptr();
    (Pieces { start, ranges: first, slice: PhantomData }, Pieces { start, ranges: second, slice: PhantomData })
}

unsafe impl<'a, T: Send> Split for Pieces<'a, T> {
    type Part = &'a mut [T];

    #[inline]
    unsafe fn part(&self, i: usize) -> &'a mut [T] {
        let range = &self.ranges[i];
        if range.is_empty() {
            return &mut [];
        }
        // SAFETY: checked to be disjoint and within the slice when the pieces were cut.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// A permutation of 0..n.
#[derive(Debug, Clone, Default)]
pub struct Permutation(Vec<usize>);

impl Permutation {
    /// The order that sorts `0..n` by `key`; of equal keys the smaller number comes first.
    pub fn sorted_by_key<K: Ord>(n: usize, key: impl FnMut(&usize) -> K) -> Self {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(key);
        Self(order)
    }

    /// What stands at place `i`.
    #[inline]
    pub fn at(&self, i: usize) -> usize {
        self.0[i]
    }
}

/// A split whose parts are permuted.
#[derive(Debug)]
pub struct Reordered<'a, S> {
    output: S,
    order: &'a Permutation,
}

/// Part i of the result is part `order.at(i)` of `output`.
pub fn reordered<S: Split>(output: S, order: &Permutation) -> Reordered<'_, S> {
    Reordered { output, order }
}

// SAFETY: in a permutation, different indices are different parts of `output`.
unsafe impl<S: Split> Split for Reordered<'_, S> {
    type Part = S::Part;

    #[inline]
    unsafe fn part(&self, i: usize) -> S::Part {
        // SAFETY: passed on from the caller.
        unsafe { self.output.part(self.order.at(i)) }
    }
}

macro_rules! split_tuple {
    ($($name:ident),+) => {
        unsafe impl<$($name: Split),+> Split for ($($name,)+) {
            type Part = ($($name::Part,)+);

            #[inline]
            #[allow(non_snake_case)]
            unsafe fn part(&self, i: usize) -> Self::Part {
                let ($($name,)+) = self;
                // SAFETY: passed on from the caller.
                unsafe { ($($name.part(i),)+) }
            }
        }
    };
}
split_tuple!(A, B);
split_tuple!(A, B, C);
split_tuple!(A, B, C, D);
split_tuple!(A, B, C, D, E);

/// One piece of work: a closure with its type erased.
#[derive(Clone, Copy)]
struct TileWork {
    call: unsafe fn(*const (), usize),
    closure: *const (),
}

/// State shared by the threads of a team.
struct TeamState {
    /// One word per thread, its share of the tiles: generation (24 bits), end (20), next tile (20). A tile is claimed by
    /// adding one. Who holds a claim below the end may use `job`: it stays in place until that tile is counted as complete.
    claims: Vec<Claim>,
    /// Threads that take part; claims of others have no tiles.
    active: AtomicUsize,
    job: AtomicPtr<TileWork>,
    complete: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

/// A word in a cache line of its own (two, because processors fetch them in pairs), so that waiting for it disturbs nobody.
#[repr(align(128))]
struct Claim(AtomicU64);

const TILE_BITS: u32 = 20;
const TILE_MASK: u64 = (1 << TILE_BITS) - 1;

impl Claim {
    /// Claims the next tile, if there is one.
    #[inline]
    fn next(&self) -> Option<usize> {
        if !self.has_tiles() {
            return None;
        }
        let claimed = self.0.fetch_add(1, Ordering::AcqRel);
        let tile = claimed & TILE_MASK;
        (tile < (claimed >> TILE_BITS) & TILE_MASK).then_some(tile as usize)
    }

    #[inline]
    fn has_tiles(&self) -> bool {
        let seen = self.0.load(Ordering::Acquire);
        seen & TILE_MASK < (seen >> TILE_BITS) & TILE_MASK
    }
}

impl TeamState {
    /// For `threads` threads, at most `most` later.
    fn new(threads: usize, most: usize) -> Self {
        Self {
            claims: (0..most).map(|_| Claim(AtomicU64::new(0))).collect(),
            active: AtomicUsize::new(threads),
            job: AtomicPtr::new(std::ptr::null_mut()),
            complete: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        }
    }

    /// Claims and runs tiles until none is left: those of thread `me` first, which find what the same tiles of the stage
    /// before left in its caches, then those of slower threads.
    fn work(&self, me: usize) {
        let n = self.active.load(Ordering::Relaxed);
        for victim in 0..n {
            while let Some(tile) = self.claims[(me + victim) % n].next() {
                // SAFETY: an unfinished tile is claimed, so the job (perhaps newer than the one first seen) is in place.
                let outcome = catch_unwind(AssertUnwindSafe(|| unsafe {
                    let job = *self.job.load(Ordering::Acquire);
                    (job.call)(job.closure, tile);
                }));
                if let Err(payload) = outcome {
                    self.panic.lock().expect("no one panics while holding this lock").get_or_insert(payload);
                }
                self.complete.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// What every thread but the first does: work, and between pieces of work spin, then yield, then sleep.
    fn wait_for_work(&self, me: usize) {
        let mut idle = 0u32;
        let mut since = None;
        while !self.stop.load(Ordering::Acquire) {
            if self.claims[me].has_tiles() {
                self.work(me);
                (idle, since) = (0, None);
                continue;
            }
            idle = idle.saturating_add(1);
            if idle < 20_000 {
                std::hint::spin_loop();
            } else if since.get_or_insert_with(Instant::now).elapsed() < Duration::from_millis(2) {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

/// A team of threads. The calling thread is one of them.
pub struct Team<'a> {
    shared: Option<&'a TeamState>,
    /// Adds a spare thread to the team, if there is one.
    recruit: Option<&'a (dyn Fn() + Sync)>,
    ranks: &'a Ranks,
}

impl std::fmt::Debug for Team<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team of {}", self.threads())
    }
}

/// A pool of spare threads, which teams can take while they work.
#[derive(Debug)]
pub struct SpareThreads {
    free: AtomicUsize,
    most: usize,
}

impl SpareThreads {
    /// An empty pool, for teams of at most `most` threads.
    pub fn new(most: usize) -> Self {
        Self { free: AtomicUsize::new(0), most }
    }

    /// Adds `threads` threads to the pool.
    pub fn give(&self, threads: usize) {
        self.free.fetch_add(threads, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        let fewer = |free: usize| free.checked_sub(1);
        // Nearly always 0, so that it is read first.
        self.free.load(Ordering::Relaxed) > 0
            && self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok()
    }
}

/// Ends the waiting of a team's threads, also when the body panics.
struct StopOnDrop<'a>(&'a TeamState);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

/// Gives back the spare threads of a team that began with `threads`, also when the body panics.
struct GiveBack<'a> {
    shared: &'a TeamState,
    threads: usize,
    spare: &'a SpareThreads,
}

impl Drop for GiveBack<'_> {
    fn drop(&mut self) {
        self.spare.give(self.shared.active.load(Ordering::Relaxed) - self.threads);
    }
}

impl Team<'_> {
    /// A team of the calling thread alone.
    pub fn single() -> Team<'static> {
        Team { shared: None, recruit: None, ranks: Ranks::alone() }
    }

    /// Runs `body` with a team of `threads` threads (one if 0).
    pub fn with<T>(threads: usize, body: impl FnOnce(&Team) -> T) -> T {
        Self::among(Ranks::alone(), threads, body)
    }

    /// Runs `body` with a team of `threads` threads (one if 0) on each of several processes.
    pub fn among<T>(ranks: &Ranks, threads: usize, body: impl FnOnce(&Team) -> T) -> T {
        if threads <= 1 {
            return body(&Team { shared: None, recruit: None, ranks });
        }
        let shared = TeamState::new(threads, threads);
        Self::start(&shared, || body(&Team { shared: Some(&shared), recruit: None, ranks }))
    }

    /// As [`Team::with`], with a team that takes `spare` threads as they become free, and gives them back at its end.
    pub fn with_spare_threads<T>(threads: usize, spare: &SpareThreads, body: impl FnOnce(&Team) -> T) -> T {
        let threads = threads.max(1);
        let shared = &TeamState::new(threads, threads.max(spare.most));
        let _back = GiveBack { shared, threads, spare };
        std::thread::scope(|scope| {
            // Also when the body panics, before the threads of the scope are waited for.
            let _stop = StopOnDrop(shared);
            let recruit = || {
                let now = shared.active.load(Ordering::Relaxed);
                if now < shared.claims.len() && spare.take() {
                    shared.active.store(now + 1, Ordering::Relaxed);
                    scope.spawn(move || shared.wait_for_work(now));
                }
            };
            Self::start(shared, || body(&Team { shared: Some(shared), recruit: Some(&recruit), ranks: Ranks::alone() }))
        })
    }

    /// Runs `body` beside all but the first of the threads.
    fn start<T>(shared: &TeamState, body: impl FnOnce() -> T) -> T {
        let threads = shared.active.load(Ordering::Relaxed);
        if threads == 1 {
            return body();
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads - 1)
            .thread_name(|i| format!("svae-{}", i + 1))
            .build()
            .expect("the operating system grants the threads that were asked for");
        pool.in_place_scope(|scope| {
            for me in 1..threads {
                scope.spawn(move |_| shared.wait_for_work(me));
            }
            let _stop = StopOnDrop(shared);
            body()
        })
    }

    /// The processes that work together, this one among them.
    pub fn ranks(&self) -> &Ranks {
        self.ranks
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.shared.map_or(1, |shared| shared.active.load(Ordering::Relaxed))
    }

    /// Calls `f(i, part i of output)` for every i below `n`, on any thread, and returns when all are done.
    ///
    /// # Panics
    /// With the panic of `f`, if it panics.
    pub fn run<S: Split>(&self, n: usize, output: S, f: impl Fn(usize, S::Part) + Sync) {
        if let Some(recruit) = self.recruit {
            recruit();
        }
        let threads = self.threads();
        let Some(shared) = self.shared.filter(|_| n > 1 && threads > 1) else {
            for i in 0..n {
                // SAFETY: every index is taken once.
                f(i, unsafe { output.part(i) });
            }
            return;
        };
        assert!((n as u64) < TILE_MASK / 2, "too many tiles");
        // SAFETY: every index is claimed, and so taken, once.
        let closure = |i: usize| f(i, unsafe { output.part(i) });
        let mut job = TileWork { call: call_of(&closure), closure: (&raw const closure).cast() };
        shared.job.store(&raw mut job, Ordering::Release);
        shared.complete.store(0, Ordering::Relaxed);
        // Every thread gets the same share of every stage with as many tiles: what they work on stays in its caches.
        let generation = (shared.claims[0].0.load(Ordering::Relaxed) >> (2 * TILE_BITS)).wrapping_add(1);
        let share = |thread: usize| (n * thread / threads) as u64;
        for (thread, claim) in shared.claims[..threads].iter().enumerate() {
            let (from, to) = (share(thread), share(thread + 1));
            claim.0.store((generation << (2 * TILE_BITS)) | (to << TILE_BITS) | from, Ordering::Release);
        }
        shared.work(0);
        let mut spins = 0u32;
        while shared.complete.load(Ordering::Acquire) < n {
            spins += 1;
            if spins < 20_000 {
                std::hint::spin_loop();
            } else {
                // Another program has the processor of the thread we wait for.
                std::thread::yield_now();
            }
        }
        let panic = shared.panic.lock().expect("no one panics while holding this lock").take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

/// The function that calls a closure of type `F` through an untyped pointer.
fn call_of<F: Fn(usize)>(_: &F) -> unsafe fn(*const (), usize) {
    unsafe fn call<F: Fn(usize)>(closure: *const (), i: usize) {
        // SAFETY: `closure` was made from a reference to an `F` that outlives the job.
        unsafe { (*closure.cast::<F>())(i) }
    }
    call::<F>
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            Team::with(threads, |team| {
                let mut counts = vec![0u32; 1003];
                for round in 0..2000 {
                    let n = round % 13;
                    team.run(n, tiles(&mut counts[..n * 77], 77), |i, part| {
                        for c in part {
                            *c += 1 + i as u32;
                        }
                    });
                }
                for (at, &c) in counts.iter().enumerate() {
                    let tile = at / 77;
                    let rounds = (0..2000).filter(|r| r % 13 > tile).count() as u32;
                    assert_eq!(c, rounds * (1 + tile as u32), "{threads} threads, {at}");
                }
            });
        }
    }

    #[test]
    fn a_team_takes_on_what_is_spare_and_gives_it_back() {
        let spare = SpareThreads::new(3);
        for start in [1, 2] {
            let mut counts = vec![0u32; 640];
            let mut seen = Vec::new();
            Team::with_spare_threads(start, &spare, |team| {
                for round in 0..3000 {
                    // In the middle of the work, once by one and once by more than there is room for.
                    match round {
                        1000 => spare.give(1),
                        2000 => spare.give(4),
                        _ => {}
                    }
                    team.run(64, tiles(&mut counts, 10), |i, part| part.iter_mut().for_each(|c| *c += i as u32));
                    if seen.last() != Some(&team.threads()) {
                        seen.push(team.threads());
                    }
                }
            });
            assert_eq!(seen, (start..=3).collect::<Vec<_>>(), "threads");
            assert!(counts.iter().enumerate().all(|(at, &c)| c == 3000 * (at / 10) as u32));
            assert_eq!(spare.free.swap(0, Ordering::Relaxed), 5, "all are back");
        }
    }

    #[test]
    fn a_growing_team_ends_when_its_body_panics() {
        let spare = SpareThreads::new(2);
        spare.give(1);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            Team::with_spare_threads(1, &spare, |team| {
                let mut out = [0; 8];
                team.run(8, tiles(&mut out, 1), |i, _| assert!(i != 5, "tile five"));
            });
        }));
        assert!(outcome.is_err());
        assert_eq!(spare.free.into_inner(), 1, "all are back");
    }

    #[test]
    fn a_panic_in_a_tile_reaches_the_caller_and_the_team_ends() {
        let outcome = catch_unwind(|| {
            Team::with(2, |team| {
                let mut out = [0; 8];
                team.run(8, tiles(&mut out, 1), |i, _| assert!(i != 5, "tile five"));
            });
        });
        assert!(outcome.is_err());
    }

    #[test]
    fn pieces_refuse_overlap() {
        let mut data = [0; 10];
        let mut refused = |first: &[Range<usize>], second: &[Range<usize>]| {
            catch_unwind(AssertUnwindSafe(|| pieces_pair(&mut data, first, second).0.ranges.len())).is_err()
        };
        assert!(refused(&[0..4, 3..5], &[]));
        assert!(refused(&[0..4, 4..11], &[]));
        assert!(refused(&[0..4, 6..8], &[5..7, 9..9]));
        assert!(!refused(&[0..4, 6..8], &[5..6, 8..10]));
        let (first, second) = ([0..4, 0..0, 6..10], [4..6, 0..0, 0..0]);
        Team::with(2, |team| {
            team.run(3, pieces_pair(&mut data, &first, &second), |i, (first, second)| {
                first.fill(i + 1);
                second.fill(i + 5);
            });
        });
        assert_eq!(data, [1, 1, 1, 1, 5, 5, 3, 3, 3, 3]);
    }
}
