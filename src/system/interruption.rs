//! When a run has to stop early: the signals of batch systems, and a time limit of its own.

use crate::error::EXIT_CODE;
use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Number of the first signal that asked for an end; 0 as long as none has.
static REQUESTED: AtomicI32 = AtomicI32::new(0);
/// Number of [`Deferral`]s: work under way that has something to save before the process ends.
static DEFERRED: AtomicUsize = AtomicUsize::new(0);

/// A signal repeated within this time is the same request: some senders (`timeout`, a terminal and its shell) send it
/// to a process and once more to its whole group.
#[cfg(unix)]
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// Why a run stops early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A signal of this number.
    Signal(i32),
    /// The time limit.
    TimeLimit,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::TimeLimit => write!(f, "the time limit"),
            Cause::Signal(number) => match name(*number) {
                Some(name) => write!(f, "{name}"),
                None => write!(f, "signal {number}"),
            },
        }
    }
}

#[cfg(unix)]
fn name(signal: i32) -> Option<&'static str> {
    signal_hook::low_level::signal_name(signal)
}

#[cfg(not(unix))]
fn name(_: i32) -> Option<&'static str> {
    None
}

/// The signal that has asked for an end, if one has.
#[inline]
pub fn requested() -> Option<Cause> {
    match REQUESTED.load(Ordering::Relaxed) {
        0 => None,
        number => Some(Cause::Signal(number)),
    }
}

/// While it lives, the first signal is only recorded, to be asked for by [`requested`]. Without one, a signal ends the process
/// at once, because there is nothing to save.
#[derive(Debug)]
pub struct Deferral(());

impl Deferral {
    /// From now on there is something to save.
    pub fn begin() -> Self {
        DEFERRED.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Deferral {
    fn drop(&mut self) {
        DEFERRED.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Listens, for the rest of the process, to SIGTERM, SIGINT and SIGUSR1; `farewell` is called before a process that has
/// nothing to save exits with code 75. A second signal, a second or more after the first, ends the process as it would
/// have without this function.
///
/// SIGXFSZ is caught too, so that a file that grows over the limit of the system is a failed write and not a sudden
/// end.
///
/// # Errors
/// If the system refuses.
#[cfg(unix)]
pub fn listen(farewell: impl Fn(Cause) + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
    use signal_hook::iterator::Signals;

    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGXFSZ])?;
    std::thread::Builder::new().name("svae-signals".to_owned()).spawn(move || {
        let mut first: Option<Instant> = None;
        for signal in signals.forever().filter(|&signal| signal != SIGXFSZ) {
            match first {
                Some(since) if since.elapsed() < SAME_REQUEST => {}
                Some(_) => drop(signal_hook::low_level::emulate_default_handler(signal)),
                None => {
                    first = Some(Instant::now());
                    REQUESTED.store(signal, Ordering::SeqCst);
                    if DEFERRED.load(Ordering::SeqCst) == 0 {
                        farewell(Cause::Signal(signal));
                        std::process::exit(i32::from(EXIT_CODE));
                    }
                }
            }
        }
    })?;
    Ok(())
}

/// Elsewhere signals keep their usual effect.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn listen(_: impl Fn(Cause) + Send + 'static) -> std::io::Result<()> {
    Ok(())
}

/// How often a run is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// At the end of every epoch.
    Epoch,
    /// At the first step after this time.
    Time(Duration),
}

/// What to do between two pieces of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The next piece of work.
    GoOn,
    /// Save the state, then the next piece of work.
    Save,
    /// Save the state and end.
    Stop(Cause),
}

/// A point between two pieces of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// The end of a step, or of a few cells.
    Step,
    /// The end of an epoch.
    Epoch,
    /// The end of a stage, whose result should not be lost if it took some time.
    Stage,
}

/// A stage that ends this long after the last checkpoint is saved although none is due.
const WORTH_SAVING: Duration = Duration::from_secs(10);

/// When a run is saved and when it has to stop.
#[derive(Debug, Clone)]
pub struct SaveSchedule {
    every: Option<Interval>,
    deadline: Option<Instant>,
    saved: Instant,
}

impl SaveSchedule {
    /// Saves `every` so often and ends at the `deadline`, or when a signal asks for it.
    pub fn new(every: Interval, deadline: Option<Instant>) -> Self {
        Self { every: Some(every), deadline, saved: Instant::now() }
    }

    /// A schedule of work of which nothing is saved, and which ends when a signal asks for it.
    pub fn unsaved() -> Self {
        Self { every: None, deadline: None, saved: Instant::now() }
    }

    /// Why the work has to end now, if it has to.
    #[inline]
    pub fn cause(&self) -> Option<Cause> {
        requested().or_else(|| self.deadline.filter(|&deadline| Instant::now() >= deadline).map(|_| Cause::TimeLimit))
    }

    /// What to do now. This is the one place where it is decided whether a run stops, and when it is saved: processes
    /// that train together have to agree here.
    #[inline]
    pub fn next(&self, boundary: Boundary) -> Action {
        if let Some(cause) = self.cause() {
            return Action::Stop(cause);
        }
        let due = match self.every {
            None => false,
            Some(Interval::Epoch) => boundary != Boundary::Step,
            Some(Interval::Time(interval)) => {
                let waited = self.saved.elapsed();
                waited >= interval || boundary == Boundary::Stage && waited >= WORTH_SAVING
            }
        };
        if due { Action::Save } else { Action::GoOn }
    }

    /// A checkpoint was written, or tried to be, just now.
    pub fn saved(&mut self) {
        self.saved = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_saved_when_it_is_due() {
        let schedule = SaveSchedule::new(Interval::Epoch, None);
        assert_eq!(
            [Boundary::Step, Boundary::Epoch].map(|boundary| schedule.next(boundary)),
            [Action::GoOn, Action::Save]
        );
        assert_eq!(SaveSchedule::new(Interval::Time(Duration::ZERO), None).next(Boundary::Step), Action::Save);
        let mut schedule = SaveSchedule::new(Interval::Time(Duration::from_secs(3600)), None);
        assert_eq!(schedule.next(Boundary::Stage), Action::GoOn);
        // A stage that took a while is not put at risk.
        schedule.saved -= WORTH_SAVING;
        assert_eq!(
            [Boundary::Epoch, Boundary::Stage].map(|boundary| schedule.next(boundary)),
            [Action::GoOn, Action::Save]
        );
        schedule.saved();
        assert_eq!(schedule.next(Boundary::Stage), Action::GoOn);
    }

    #[test]
    fn the_deadline_ends_the_work() {
        let now = Instant::now();
        assert_eq!(SaveSchedule::new(Interval::Epoch, Some(now)).next(Boundary::Step), Action::Stop(Cause::TimeLimit));
        let later = SaveSchedule::new(Interval::Epoch, Some(now + Duration::from_secs(3600)));
        assert_eq!(later.next(Boundary::Step), Action::GoOn);
        assert_eq!(SaveSchedule::unsaved().next(Boundary::Stage), Action::GoOn);
    }
}
