//! What can go wrong, and whose turn it is: bad input (the user can mend it), a failed run, or an early stop.

use std::fmt;
use std::path::{Path, PathBuf};

/// Result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error whose kind says whether the user, the machine or the optimisation is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input or the command line is wrong; nothing was written. Exit code 2.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A file could not be read or written. Exit code 1.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a participle: "reading", "writing".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The optimisation produced a value that is not a finite number. Exit code 1.
    #[error(transparent)]
    NonFinite(#[from] NonFinite),
    /// A check of `svae-cpu verify` failed; the table was already printed. Exit code 1.
    #[error("{0}")]
    Verification(String),
    /// Some runs of a sweep failed; the others were finished and the table was already printed. Exit code 1.
    #[error("{0}")]
    Sweep(String),
    /// The work was stopped early, by a signal or a time limit, and can be resumed as the text says. Exit code 75.
    #[error("{0}")]
    Stopped(String),
    /// Another process works in the same folder. Exit code 1.
    #[error("{}: another run{by} works in this folder; wait for its end, or choose another --out.", folder.display())]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// Who it is, if that is known: " (process 12 on node3)".
        by: String,
    },
    /// Results could not be written, but the state of the run is kept. Exit code 1.
    #[error("{source}\n{advice}")]
    Unwritten {
        /// The failed write.
        source: Box<Error>,
        /// What is kept and how to go on.
        advice: String,
    },
    /// Something went wrong on one of several processes, and all of them know. The exit code is that of its error.
    #[error("{message}")]
    Ranks {
        /// What went wrong, and where.
        message: String,
        /// Exit code of every process.
        exit_code: u8,
    },
}

impl Error {
    /// Process exit code: 1 failed, 2 bad input, 75 stopped early.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Input(_) => 2,
            Error::Stopped(_) => EXIT_CODE,
            Error::Ranks { exit_code, .. } => *exit_code,
            Error::Io { .. }
            | Error::NonFinite(_)
            | Error::Verification(_)
            | Error::Sweep(_)
            | Error::Occupied { .. }
            | Error::Unwritten { .. } => 1,
        }
    }

    /// Whether every process of a job of several has met this error, so that each ends by itself.
    pub fn is_shared(&self) -> bool {
        match self {
            // All ranks hold the same sums and parameters, so a value that is not finite is found by all; and they agree
            // when to stop.
            Error::NonFinite(_) | Error::Stopped(_) | Error::Ranks { .. } => true,
            Error::Input(_)
            | Error::Io { .. }
            | Error::Verification(_)
            | Error::Sweep(_)
            | Error::Occupied { .. }
            | Error::Unwritten { .. } => false,
        }
    }

    /// An input/output failure on `path`; `action` is a participle ("reading").
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Error::Io { action, path: path.into(), source }
    }
}

/// Input that cannot be used: which file, where in it, what is wrong and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputError {
    /// The file, if the fault lies in one.
    pub file: Option<PathBuf>,
    /// The place in the file ("cell 12, gene 3", "key `epochs`", "obs[\"batch\"]").
    pub place: Option<String>,
    /// What is wrong, without a final full stop.
    pub problem: String,
    /// What the user can do, without a final full stop.
    pub remedy: String,
}

impl InputError {
    /// A fault that lies in no file (a flag, a combination of settings).
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file: None, place: None, problem: problem.into(), remedy: remedy.into() }
    }

    /// The same fault, located in `file`.
    pub fn in_file(mut self, file: impl AsRef<Path>) -> Self {
        self.file = Some(file.as_ref().to_path_buf());
        self
    }

    /// The same fault, located at `place`.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)?;
        // A remedy may be a question: "did you mean `latents`?".
        if self.remedy.ends_with('?') { Ok(()) } else { f.write_str(".") }
    }
}

impl std::error::Error for InputError {}

/// Where a value first stopped being a finite number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{tensor} is not finite at epoch {epoch}, step {step}; the last good state was kept; \
     try a smaller --learning-rate or --precision f64."
)]
pub struct NonFinite {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Step within the epoch, counted from 1.
    pub step: usize,
    /// Name of the first tensor, in order of computation, that holds a non-finite value.
    pub tensor: String,
}

/// Exit code of a run that was stopped early and can be resumed (EX_TEMPFAIL of `sysexits.h`).
pub const EXIT_CODE: u8 = 75;
