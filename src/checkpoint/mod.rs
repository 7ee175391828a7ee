//! Checkpoints: what a run needs to be resumed after any interruption and end with the same bytes.
//!
//! A run is a sequence of stages. A [`ResumableRun`] keeps the results of those that are finished and, whenever it is due, writes
//! them to disk with the state of the one under way. A stage that finds its result there is not done again; one that
//! finds its state continues from it. Results and states are bytes under the names of the stages.

pub mod encoding;
pub mod file;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::checkpoint::encoding::{ByteReader, DecodeError};
use crate::checkpoint::file::{Checkpoint, Header, NamedBytes, Resume};
use crate::data::identity::DataIdentity;
use crate::error::{Error, InputError, Result};
use crate::numerics::simd;
use crate::parallel::ranks::Ranks;
use crate::system::console::{Console, Silent};
use crate::system::interruption::{Action, Boundary, Cause, SaveSchedule};
use crate::system::machine::host;
use crate::words::seconds as in_words;

/// What tells a run from any other: only a checkpoint of the same settings and data is resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDescription {
    /// Settings that results depend on, as keys and values.
    pub settings: Vec<(String, String)>,
    /// The screen.
    pub data: DataIdentity,
    /// Command that resumes the run, for messages.
    pub resume_command: String,
}

/// When a run began, how long it took and when it was resumed.
#[derive(Debug, Clone, PartialEq)]
pub struct RunHistory {
    /// Seconds since 1970 at which the run began.
    pub started: u64,
    /// Seconds that it has taken, without the time between a stop and the resumption.
    pub seconds: f64,
    /// Every resumption.
    pub resumes: Vec<Resume>,
}

/// A run that can be resumed: the results of its finished stages, and when its state is saved.
#[derive(Debug)]
pub struct ResumableRun<'a> {
    /// `None`: nothing is saved.
    folder: Option<PathBuf>,
    header: Header,
    /// Command that resumes the run.
    command: String,
    schedule: SaveSchedule,
    console: &'a dyn Console,
    begin: Instant,
    /// Seconds of the run before `begin`.
    seconds_before: f64,
    results: Vec<NamedBytes>,
    /// The state of the interrupted stage, until that stage asks for it.
    interrupted: Option<NamedBytes>,
    /// Whether a stage has ended since the last checkpoint.
    changed: bool,
    /// When the newest whole checkpoint was written, or read.
    last_saved: Option<Instant>,
    /// The processes that share the run; the first one writes.
    ranks: &'a Ranks,
    /// What each rank wants to do next, as numbers of [`wish`].
    wishes: Vec<f64>,
}

impl<'a> ResumableRun<'a> {
    /// A run of which nothing is saved, and which stops when a signal asks for it.
    pub fn unsaved() -> Self {
        let data = DataIdentity { cells: 0, genes: 0, interventions: 0, checksum: String::new() };
        let header = Header {
            program: String::new(),
            settings: Vec::new(),
            data,
            simd: String::new(),
            ranks: 1,
            started: now(),
            seconds: 0.0,
            resumes: Vec::new(),
            stage: String::new(),
        };
        Self::with(None, header, String::new(), SaveSchedule::unsaved(), &Silent, Instant::now())
    }

    fn with(
        folder: Option<PathBuf>,
        header: Header,
        command: String,
        schedule: SaveSchedule,
        console: &'a dyn Console,
        begin: Instant,
    ) -> Self {
        Self {
            folder,
            header,
            command,
            schedule,
            console,
            begin,
            seconds_before: 0.0,
            results: Vec::new(),
            interrupted: None,
            changed: false,
            last_saved: None,
            ranks: Ranks::alone(),
            wishes: Vec::new(),
        }
    }

    /// The same run, shared by several processes: the first one reads and writes checkpoints, and all of them stop and save at
    /// the same places.
    pub fn among(mut self, ranks: &'a Ranks) -> Self {
        if !ranks.is_first() {
            self.folder = None;
        }
        self.header.ranks = ranks.size();
        self.wishes = vec![0.0; ranks.size()];
        Self { ranks, ..self }
    }

    /// A run that is saved in `folder`, and which began at `begin` in this process. Its `console` hears of checkpoints.
    pub fn new(
        folder: &Path,
        run: RunDescription,
        schedule: SaveSchedule,
        console: &'a dyn Console,
        begin: Instant,
    ) -> Self {
        let RunDescription { settings, data, resume_command } = run;
        let header = Header {
            program: concat!("svae-cpu ", env!("CARGO_PKG_VERSION")).to_owned(),
            settings,
            data,
            simd: simd::level().to_owned(),
            ranks: 1,
            started: now().saturating_sub(begin.elapsed().as_secs()),
            seconds: 0.0,
            resumes: Vec::new(),
            stage: String::new(),
        };
        Self::with(Some(folder.to_path_buf()), header, resume_command, schedule, console, begin)
    }

    /// Resumes the run from the newest usable checkpoint of its folder; without any checkpoint the run starts from the
    /// beginning.
    ///
    /// # Errors
    /// [`InputError`] if there are checkpoints and none can be used, with the reasons.
    pub fn resume(&mut self, threads: usize) -> Result<()> {
        let found = self.ranks.first_error(self.newest())?;
        let found = self.ranks.first_bytes(found.unwrap_or_default());
        if found.is_empty() {
            return Ok(());
        }
        let found = file::read(&found).map_err(|damage| self.damaged("unknown", damage))?;
        self.take_up(found, threads);
        Ok(())
    }

    /// The bytes of the newest usable checkpoint of the folder, if it holds any.
    fn newest(&self) -> Result<Option<Vec<u8>>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let mut refused: Vec<(PathBuf, String)> = Vec::new();
        for name in [file::CHECKPOINT, file::PREVIOUS] {
            let path = folder.join(name);
            let bytes = match file::bytes(&path) {
                Ok(None) => continue,
                Ok(Some(bytes)) => Ok(bytes),
                Err(error) => Err(format!("it cannot be read ({error})")),
            };
            let usable = bytes.and_then(|bytes| {
                let found = file::read(&bytes).map_err(|DecodeError(reason)| reason)?;
                self.same_run(&found.header).map(|()| bytes)
            });
            match usable {
                Err(reason) => refused.push((path, reason)),
                Ok(bytes) => {
                    for (path, reason) in &refused {
                        let text = format!("{}: {reason}; the checkpoint before it is used.", path.display());
                        self.console.warn(&text);
                    }
                    return Ok(Some(bytes));
                }
            }
        }
        let Some((path, reason)) = refused.first() else {
            self.console.note(&format!("{} holds no checkpoint: the run starts at its beginning.", folder.display()));
            return Ok(None);
        };
        let mut problem = format!("the run cannot be resumed: {reason}");
        if let Some((path, reason)) = refused.get(1) {
            problem += &format!("; and {}: {reason}", path.display());
        }
        let remedy = "give the settings and data that it was started with, or start anew with --overwrite in the place of \
                      --resume";
        Err(InputError::new(problem, remedy).in_file(path).into())
    }

    fn take_up(&mut self, found: Checkpoint, threads: usize) {
        let Checkpoint { header, finished, current } = found;
        let stage = match header.stage.as_str() {
            "" => "the beginning".to_owned(),
            stage => stage.to_owned(),
        };
        self.console.event("resumed", json!({ "stage": stage, "seconds_before": header.seconds }));
        if !self.console.shows_events() {
            self.console.note(&format!("Resumed in the stage {stage}, after {} of work.", in_words(header.seconds)));
        }
        if header.simd != self.header.simd && !simd::fixed_order() {
            self.console.warn(&format!(
                "the run was begun with {} and is resumed with {}: the last digits may differ from those of a run on one \
                 kind of processor; --simd baseline rules this out.",
                header.simd, self.header.simd
            ));
        }
        if header.ranks != self.header.ranks {
            self.console.warn(&format!(
                "the run was begun on {} and is resumed on {}: the last digits may differ from those of a run on one number \
                 of ranks.",
                ranks(header.ranks),
                ranks(self.header.ranks)
            ));
        }
        self.header.started = header.started;
        self.header.resumes = header.resumes;
        let (host, simd) = (host(), self.header.simd.clone());
        self.header.resumes.push(Resume { time: now(), host, threads, simd, stage: stage.clone() });
        self.seconds_before = header.seconds;
        self.results = finished;
        self.interrupted = current;
        self.header.stage = header.stage;
        self.last_saved = Some(Instant::now());
        self.schedule.saved();
    }

    /// The reason why a checkpoint with this header is not of this run, if it is not.
    fn same_run(&self, found: &Header) -> std::result::Result<(), String> {
        let ours = &self.header;
        if found.program != ours.program {
            let (theirs, ours) = (&found.program, &ours.program);
            return Err(format!("it was written by {theirs}, and this is {ours}, which may compute other digits"));
        }
        let value = |settings: &[(String, String)], key: &str| {
            let found = settings.iter().find(|(name, _)| name == key);
            found.map_or("not set".to_owned(), |(_, value)| value.clone())
        };
        for (key, _) in found.settings.iter().chain(&ours.settings) {
            let (theirs, ours) = (value(&found.settings, key), value(&ours.settings, key));
            if theirs != ours {
                return Err(format!("its run has other settings (`{key}` is {theirs} there and {ours} here)"));
            }
        }
        let shape = |data: &DataIdentity| {
            format!("{} cells, {} genes and {} interventions", data.cells, data.genes, data.interventions)
        };
        let (theirs, ours) = (shape(&found.data), shape(&ours.data));
        if theirs != ours {
            return Err(format!("its run has other data ({theirs}, not {ours})"));
        }
        if found.data != self.header.data {
            return Err("its run has other data (of the same size, but the contents differ)".to_owned());
        }
        Ok(())
    }

    /// Seconds that the run has taken so far, without the time between a stop and the resumption.
    pub fn seconds(&self) -> f64 {
        self.seconds_before + self.begin.elapsed().as_secs_f64()
    }

    /// When the run began, how long it has taken and when it was resumed.
    pub fn history(&self) -> RunHistory {
        RunHistory { started: self.header.started, seconds: self.seconds(), resumes: self.header.resumes.clone() }
    }

    /// Reads, with `load`, the result of a stage that was finished before the run was resumed; `None` if it was not.
    ///
    /// # Errors
    /// [`InputError`] if the saved bytes are not what `load` expects.
    pub fn saved_result<T>(
        &self,
        stage: &str,
        load: impl FnOnce(&mut ByteReader<'_>) -> std::result::Result<T, DecodeError>,
    ) -> Result<Option<T>> {
        let Some((_, bytes)) = self.results.iter().find(|(name, _)| name == stage) else { return Ok(None) };
        let mut input = ByteReader::new(bytes);
        let result = load(&mut input).and_then(|result| input.end().map(|()| result));
        result.map(Some).map_err(|damage| self.damaged(stage, damage))
    }

    /// Takes, with `load`, the state in which a stage was interrupted; `None` if it was not. It is handed out once.
    ///
    /// # Errors
    /// [`InputError`] if the saved bytes are not what `load` expects.
    pub fn saved_state<T>(
        &mut self,
        stage: &str,
        load: impl FnOnce(&mut ByteReader<'_>) -> std::result::Result<T, DecodeError>,
    ) -> Result<Option<T>> {
        let Some((_, bytes)) = self.interrupted.take_if(|(name, _)| name == stage) else { return Ok(None) };
        load(&mut ByteReader::new(&bytes)).map(Some).map_err(|damage| self.damaged(stage, damage))
    }

    /// The error for a stage whose saved bytes are not what was expected.
    pub fn damaged(&self, stage: &str, DecodeError(reason): DecodeError) -> Error {
        let problem = format!("the run cannot be resumed in the stage {stage}: {reason}");
        let error = InputError::new(problem, "start anew with --overwrite in the place of --resume");
        error.in_file(self.folder.as_deref().unwrap_or(Path::new("")).join(file::CHECKPOINT)).into()
    }

    /// Stores the result of a stage, which `save` encodes, for the checkpoints to come.
    ///
    /// # Errors
    /// As [`ResumableRun::checkpoint_if_due`].
    pub fn store_result(&mut self, stage: &str, save: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        if self.folder.is_some() {
            let mut bytes = Vec::new();
            save(&mut bytes);
            self.results.push((stage.to_owned(), bytes));
            self.changed = true;
        }
        self.header.stage = format!("after {stage}");
        self.between(Boundary::Stage)
    }

    /// To be called between two pieces of a stage: writes a checkpoint with its state, which `save` encodes, if one is due.
    ///
    /// # Errors
    /// [`Error::Stopped`] when it is time to stop; the failed write if the state could not be saved then and none was
    /// before.
    #[inline]
    pub fn checkpoint_if_due(
        &mut self,
        stage: &str,
        boundary: Boundary,
        save: impl FnOnce(&mut Vec<u8>),
    ) -> Result<()> {
        match self.next(boundary) {
            Action::GoOn => Ok(()),
            next => self.save_state(next, stage, save),
        }
    }

    /// What to do now, on all processes alike: stop if any of them has to, save when the first one finds it due.
    #[inline]
    fn next(&mut self, boundary: Boundary) -> Action {
        let own = self.schedule.next(boundary);
        if self.ranks.is_alone() {
            return own;
        }
        self.ranks.all_gather(&[wish(own)], &mut self.wishes);
        let stop = self.wishes.iter().copied().find(|&wish| wish >= STOP);
        wished(stop.unwrap_or(self.wishes[0]))
    }

    #[cold]
    fn save_state(&mut self, next: Action, stage: &str, save: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut bytes = Vec::new();
        if self.folder.is_some() {
            save(&mut bytes);
        }
        self.header.stage = stage.to_owned();
        let saved = self.write(Some((stage, &bytes)));
        self.conclude(next, saved)
    }

    /// Writes a checkpoint with the state of a stage that cannot continue, which `save` encodes. A failure to do so is a warning.
    ///
    /// # Errors
    /// None in practice.
    pub fn save_now(&mut self, stage: &str, save: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.save_state(Action::Save, stage, save)
    }

    /// To be called between two pieces of work whose state is not saved: stops if it is time to.
    ///
    /// # Errors
    /// As [`ResumableRun::checkpoint_if_due`].
    #[inline]
    pub fn check(&mut self) -> Result<()> {
        self.between(Boundary::Step)
    }

    fn between(&mut self, boundary: Boundary) -> Result<()> {
        match self.next(boundary) {
            Action::GoOn => Ok(()),
            next => {
                let saved = self.save();
                self.conclude(next, saved)
            }
        }
    }

    /// Writes a checkpoint with the results of the finished stages, if one of them is in none yet.
    ///
    /// # Errors
    /// The failed write.
    pub fn save(&mut self) -> Result<()> {
        if !self.changed {
            self.schedule.saved();
            return Ok(());
        }
        // What was read stays until its stage asks for it.
        let begun = self.interrupted.clone();
        self.write(begun.as_ref().map(|(stage, bytes)| (stage.as_str(), &bytes[..])))
    }

    fn write(&mut self, current: Option<(&str, &[u8])>) -> Result<()> {
        self.schedule.saved();
        let Some(folder) = &self.folder else { return Ok(()) };
        let start = Instant::now();
        let header = Header { seconds: self.seconds(), ..self.header.clone() };
        file::replace(folder, &header, &self.results, current)?;
        self.changed = false;
        self.last_saved = Some(Instant::now());
        let seconds = start.elapsed().as_secs_f64();
        let path = folder.join(file::CHECKPOINT);
        self.console.event("checkpoint", json!({ "file": path, "stage": header.stage, "seconds": seconds }));
        Ok(())
    }

    /// Continues or stops, after a checkpoint was written or failed to be.
    fn conclude(&mut self, next: Action, saved: Result<()>) -> Result<()> {
        let last = || match self.last_saved {
            Some(kept) => format!("the last whole one, of {} ago, is kept", in_words(kept.elapsed().as_secs_f64())),
            None => "there is none yet".to_owned(),
        };
        match (next, saved) {
            (Action::Stop(cause), Ok(())) => Err(self.stopped(cause, "")),
            (Action::Stop(cause), Err(error)) if self.last_saved.is_some() => {
                Err(self.stopped(cause, &format!(" (the checkpoint could not be written: {error}; {})", last())))
            }
            (Action::Stop(_), Err(error)) => Err(error),
            (_, Err(error)) => {
                self.console.warn(&format!(
                    "the checkpoint could not be written ({error}); the run continues, and {}.",
                    last()
                ));
                Ok(())
            }
            (_, Ok(())) => Ok(()),
        }
    }

    fn stopped(&self, cause: Cause, aside: &str) -> Error {
        let stage = &self.header.stage;
        let at = if stage.is_empty() { "before the training".to_owned() } else { format!("in the stage {stage}") };
        if self.folder.is_none() {
            return Error::Stopped(format!("stopped by {cause}; nothing was changed: start the same command again"));
        }
        match self.last_saved {
            Some(_) => Error::Stopped(format!("stopped by {cause} {at}{aside}; resume it with: {}", self.command)),
            None => Error::Stopped(format!("stopped by {cause} {at}; nothing had to be saved: start the run again")),
        }
    }

    /// Advice for when results could not be written: how to resume the run, if a checkpoint is there.
    pub fn advice(&self) -> Option<String> {
        let _ = self.last_saved?;
        Some(format!(
            "The state of the run is kept in its checkpoint; once the obstacle is gone, resume it with: {}",
            self.command
        ))
    }
}

/// The number of a wish to stop for the time limit; the number of a signal is added.
const STOP: f64 = 2.0;

/// What a process wants to do next, as a number.
fn wish(next: Action) -> f64 {
    match next {
        Action::GoOn => 0.0,
        Action::Save => 1.0,
        Action::Stop(Cause::TimeLimit) => STOP,
        Action::Stop(Cause::Signal(number)) => STOP + f64::from(number),
    }
}

/// What a number of [`wish`] means.
fn wished(wish: f64) -> Action {
    match wish {
        0.0 => Action::GoOn,
        1.0 => Action::Save,
        STOP => Action::Stop(Cause::TimeLimit),
        signal => Action::Stop(Cause::Signal((signal - STOP) as i32)),
    }
}

/// A number of ranks, in words.
fn ranks(n: usize) -> String {
    if n == 1 { "one rank".to_owned() } else { format!("{n} ranks") }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
