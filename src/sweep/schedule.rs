//! Shares out threads to jobs: one each while jobs outnumber threads, several each otherwise.

use std::sync::{Condvar, Mutex};

/// Calls `work(job, threads)` for every job, in order, at any time on no more than `threads` threads together.
///
/// A job gets an equal share of the threads that are free when it starts, at least one, and keeps it to its end.
///
/// # Panics
/// If `work` panics.
pub fn share_out<T: Send>(threads: usize, jobs: Vec<T>, work: impl Fn(T, usize) + Sync) {
    let free = Mutex::new(threads.max(1));
    let (free, freed, work) = (&free, &Condvar::new(), &work);
    let n = jobs.len();
    std::thread::scope(|scope| {
        for (i, job) in jobs.into_iter().enumerate() {
            let mut available = free.lock().expect("no one panics while holding this lock");
            while *available == 0 {
                available = freed.wait(available).expect("no one panics while holding this lock");
            }
            let share = (*available / (n - i)).max(1);
            *available -= share;
            drop(available);
            scope.spawn(move || {
                work(job, share);
                *free.lock().expect("no one panics while holding this lock") += share;
                freed.notify_one();
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_threads_are_used_than_there_are_and_none_is_left_idle() {
        for (threads, jobs) in [(1, 3), (4, 9), (8, 3), (5, 1), (0, 2)] {
            let (now, peak, done) = (Mutex::new(0), Mutex::new(0), Mutex::new(Vec::new()));
            share_out(threads, (0..jobs).collect(), |job, share| {
                assert!(share >= 1 && (share == 1 || jobs < threads || job + 1 == jobs), "{share} of {threads}");
                let used = {
                    let mut now = now.lock().unwrap();
                    *now += share;
                    *now
                };
                let mut peak = peak.lock().unwrap();
                *peak = used.max(*peak);
                drop(peak);
                std::thread::sleep(std::time::Duration::from_millis(30));
                *now.lock().unwrap() -= share;
                done.lock().unwrap().push(job);
            });
            let mut done = done.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, (0..jobs).collect::<Vec<_>>());
            assert_eq!(peak.into_inner().unwrap(), threads.max(1), "{threads} threads, {jobs} jobs");
        }
    }
}
