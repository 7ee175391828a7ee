//! Shares out threads to jobs: one each while jobs outnumber threads, several each otherwise.

use std::sync::{Condvar, Mutex};

use crate::parallel::team::SpareThreads;

/// Threads that no job has.
struct Free {
    threads: usize,
    /// Jobs that have not started.
    waiting: usize,
}

/// Calls `work(job, threads, spare)` for every job, in order, at any time on no more than `threads` threads together.
///
/// A job gets an equal share of the threads that are free when it starts, at least one. When none waits any more, free threads are
/// in the `spare`, for jobs to take on.
///
/// # Panics
/// If `work` panics.
pub fn share_out<T: Send>(threads: usize, jobs: Vec<T>, work: impl Fn(T, usize, &SpareThreads) + Sync) {
    let spare = &SpareThreads::new(threads.max(1));
    let free = &Mutex::new(Free { threads: threads.max(1), waiting: jobs.len() });
    let (freed, work) = (&Condvar::new(), &work);
    const UNHARMED: &str = "no one panics while holding this lock";
    // Once no job waits for the free threads, they go to those that work.
    let settle = |free: &mut Free| {
        if free.waiting == 0 {
            spare.give(std::mem::take(&mut free.threads));
        }
    };
    std::thread::scope(|scope| {
        for job in jobs {
            let mut now = free.lock().expect(UNHARMED);
            while now.threads == 0 {
                now = freed.wait(now).expect(UNHARMED);
            }
            let share = (now.threads / now.waiting).max(1);
            now.threads -= share;
            now.waiting -= 1;
            settle(&mut now);
            drop(now);
            scope.spawn(move || {
                work(job, share, spare);
                let mut now = free.lock().expect(UNHARMED);
                now.threads += share;
                settle(&mut now);
                freed.notify_one();
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::parallel::team::{Team, tiles};

    #[test]
    fn no_more_threads_are_used_than_there_are_and_none_is_left_idle() {
        for (threads, jobs) in [(1, 3), (4, 9), (8, 3), (5, 1), (0, 2)] {
            let (now, peak, done) = (Mutex::new(0), Mutex::new(0), Mutex::new(Vec::new()));
            // The jobs that fit in together wait for each other.
            let together = jobs.min(threads.max(1));
            let barrier = Barrier::new(together);
            share_out(threads, (0..jobs).collect(), |job, share, _| {
                let used = {
                    let mut now = now.lock().unwrap();
                    *now += share;
                    *now
                };
                let mut peak = peak.lock().unwrap();
                *peak = used.max(*peak);
                drop(peak);
                if job < together {
                    barrier.wait();
                }
                *now.lock().unwrap() -= share;
                done.lock().unwrap().push(job);
            });
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, (0..jobs).collect::<Vec<_>>());
            assert_eq!(peak.into_inner().unwrap(), threads.max(1), "{threads} threads, {jobs} jobs");
        }
    }

    #[test]
    fn the_last_jobs_take_on_the_threads_of_those_that_have_ended() {
        let (finished, largest) = (AtomicUsize::new(0), AtomicUsize::new(0));
        share_out(4, (0..6).collect(), |job, share, spare| {
            Team::with_spare_threads(share, spare, |team| {
                let mut out = [0; 64];
                let mut pass = || team.run(64, tiles(&mut out, 1), |i, part| part[0] += i);
                if job < 5 {
                    (0..100).for_each(|_| pass());
                    finished.fetch_add(1, Ordering::SeqCst);
                } else {
                    // Until all the others have ended and their threads are here.
                    while team.threads() < 4 {
                        pass();
                        std::thread::yield_now();
                    }
                    assert_eq!(finished.load(Ordering::SeqCst), 5);
                }
                largest.fetch_max(team.threads(), Ordering::SeqCst);
            });
        });
        assert_eq!(largest.into_inner(), 4);
    }
}
