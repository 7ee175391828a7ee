//! The results folder: chosen without touching another run, every file in it whole or absent.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use crate::checkpoint::file as checkpoint;
use crate::data::formats::{anndata_writer, npz};
use crate::error::{Error, InputError, Result};
use crate::results::catalogue::ResultsFile;
use crate::system::files;
use crate::system::files::{FolderLock, LOCK, write_atomically};

/// Parent of the numbered results folders, relative to the working directory.
pub const RESULTS_ROOT: &str = "results";

/// How names begin of files that are not yet whole.
const UNFINISHED: [&str; 3] = [files::UNFINISHED, anndata_writer::UNFINISHED, npz::UNFINISHED];

/// An existing folder that belongs to one run.
#[derive(Debug)]
pub struct ResultsFolder {
    path: PathBuf,
    /// Whether this process is the one that writes.
    writes: bool,
    /// Held as long as the folder is being filled.
    lock: Option<FolderLock>,
}

/// What to do about a run that a folder already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// Refuse to touch it.
    Keep,
    /// Remove it.
    Replace,
    /// Resume it.
    Resume,
}

/// Refuses, without writing anything, an `out` that is a file, that holds a run which is to be kept, or in which another
/// process works.
///
/// Called before data are read, so that a mistake costs no time.
///
/// # Errors
/// [`InputError`] naming the folder; [`Error::Occupied`].
pub fn check_destination(out: Option<&Path>, earlier: Earlier) -> Result<()> {
    let Some(path) = out else { return Ok(()) };
    if path.exists() && !path.is_dir() {
        return Err(InputError::new("this is a file, not a folder", "choose another --out").in_file(path).into());
    }
    if path.is_dir() {
        FolderLock::probe(path)?;
    }
    if earlier == Earlier::Keep
        && let Some(marker) = ResultsFile::MARKERS.iter().find(|file| file.within(path).exists())
    {
        let (problem, remedy) = match ResultsFile::Metrics.within(path).exists() {
            true => ("a run", "choose another --out, or add --overwrite to replace that run"),
            false => (
                "a run that is not finished",
                "add --resume to resume it, choose another --out, or add --overwrite to replace it",
            ),
        };
        let error = InputError::new(format!("the folder already holds {problem} ({})", marker.name()), remedy);
        return Err(error.in_file(path).into());
    }
    Ok(())
}

/// Whether the folder at `path` holds a finished run.
pub fn is_finished(path: &Path) -> bool {
    [ResultsFile::Config, ResultsFile::Metrics].iter().all(|file| file.within(path).is_file())
}

impl ResultsFolder {
    /// The folder of a run that has been done.
    ///
    /// # Errors
    /// [`InputError`] if there is no such folder, or no run in it.
    pub fn open(path: &Path) -> Result<Self> {
        let refused = |problem: &str| -> Error {
            InputError::new(problem, "name the results folder of a run (results/0001, say)").in_file(path).into()
        };
        if !path.is_dir() {
            return Err(refused("there is no such folder"));
        }
        for file in [ResultsFile::Config, ResultsFile::Model] {
            if !file.within(path).is_file() {
                return Err(refused(&format!("the folder holds no run ({} is missing)", file.name())));
            }
        }
        Ok(Self { path: path.to_path_buf(), writes: true, lock: None })
    }

    /// The folder of a run that has been done, in which no other process works until the value is dropped.
    ///
    /// # Errors
    /// As [`ResultsFolder::open`]; [`Error::Occupied`]; [`Error::Io`].
    pub fn open_to_add(path: &Path) -> Result<Self> {
        let folder = Self::open(path)?;
        Ok(Self { lock: FolderLock::take(path)?, ..folder })
    }

    /// Creates `out`, or the next numbered folder under `results/` where `out` is `None`.
    ///
    /// The files of a run already there are removed if it is to be replaced, so that old and new never mix. Until the value
    /// is dropped, no other process works in the folder.
    ///
    /// # Errors
    /// As [`check_destination`]; [`Error::Io`] when the folder cannot be made.
    pub fn create(out: Option<&Path>, earlier: Earlier) -> Result<Self> {
        check_destination(out, earlier)?;
        let Some(path) = out else { return Self::create_numbered(Path::new(RESULTS_ROOT)) };
        std::fs::create_dir_all(path).map_err(|source| Error::io("creating", path, source))?;
        let folder = Self { path: path.to_path_buf(), writes: true, lock: FolderLock::take(path)? };
        // Another process may have finished the run just now.
        if earlier == Earlier::Resume && is_finished(path) {
            let error = InputError::new("the run is finished, there is nothing to resume", "look at its report.html");
            return Err(error.in_file(path).into());
        }
        folder.remove_unfinished()?;
        // Only what a checkpoint leads to is worth keeping.
        if earlier != Earlier::Resume || !checkpoint::exists(path) {
            // The figures first, so that a folder that is half removed does not look finished.
            let files = [ResultsFile::Metrics].into_iter().chain(ResultsFile::ALL.iter().copied());
            files.into_iter().try_for_each(|file| folder.remove(file.name()))?;
        }
        Ok(folder)
    }

    /// Removes what a process that was killed after its last result left in the folder of a finished run.
    ///
    /// # Errors
    /// [`Error::Occupied`]; [`Error::Io`].
    pub fn tidy(path: &Path) -> Result<()> {
        if path.join(LOCK).exists() || checkpoint::exists(path) {
            let folder = Self { path: path.to_path_buf(), writes: true, lock: FolderLock::take(path)? };
            folder.remove_unfinished()?;
            checkpoint::remove(path)?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let file = self.path.join(name);
        match std::fs::remove_file(&file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::io("replacing", file, source)),
            _ => Ok(()),
        }
    }

    /// Removes what a process that was killed had not finished writing.
    fn remove_unfinished(&self) -> Result<()> {
        let failed = |source| Error::io("reading", &self.path, source);
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(name) = name.to_str().filter(|name| UNFINISHED.iter().any(|prefix| name.starts_with(prefix))) {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    /// Creates the folder after the highest number under `root`: 0001, 0002, ... Creating a folder is atomic, so two
    /// runs that start together get two folders.
    fn create_numbered(root: &Path) -> Result<Self> {
        let failed = |source| Error::io("creating a folder in", root, source);
        std::fs::create_dir_all(root).map_err(failed)?;
        let mut highest = 0;
        for entry in std::fs::read_dir(root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
            highest = highest.max(number.and_then(|name| name.parse::<u32>().ok()).unwrap_or(0));
        }
        for number in highest.saturating_add(1)..=u32::MAX {
            let path = root.join(format!("{number:04}"));
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let lock = FolderLock::take(&path)?;
                    return Ok(Self { path, writes: true, lock });
                }
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(failed(source)),
            }
        }
        Err(failed(io::Error::other("all numbers are taken")))
    }

    /// The folder that the first of several processes writes, as the others see it: what they write goes nowhere.
    pub fn of_first_rank(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writes: false, lock: None }
    }

    /// Whether what this process writes reaches the folder.
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Whether other processes are kept out: not on a file system without locks.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where `file` lies, or will lie, in the folder.
    pub fn file(&self, file: ResultsFile) -> PathBuf {
        file.within(&self.path)
    }

    /// Writes a file atomically; see [`write_atomically`]. A process that does not write does nothing.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write(&self, file: ResultsFile, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<()> {
        if !self.writes {
            return Ok(());
        }
        write_atomically(&self.file(file), write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn folder() -> (tempfile::TempDir, ResultsFolder) {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = ResultsFolder::create(Some(&parent.path().join("run")), Earlier::Keep).expect("a new folder");
        (parent, folder)
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    #[test]
    fn folders_are_numbered_after_the_highest() {
        let root = tempfile::tempdir().expect("a temporary folder");
        for name in ["0007", "notes", "12x"] {
            std::fs::create_dir(root.path().join(name)).expect("a folder");
        }
        let first = ResultsFolder::create_numbered(root.path()).expect("a new folder");
        let second = ResultsFolder::create_numbered(root.path()).expect("a new folder");
        assert_eq!(first.path(), root.path().join("0008"));
        assert_eq!(second.path(), root.path().join("0009"));
    }

    #[test]
    fn runs_that_start_together_get_different_folders() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let mut paths: Vec<PathBuf> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| ResultsFolder::create_numbered(root.path()).expect("a new folder").path().to_owned())
                })
                .collect();
            starts.into_iter().map(|start| start.join().expect("no panic")).collect()
        });
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 8);
    }

    #[test]
    fn a_folder_with_a_run_is_refused_and_untouched_unless_overwritten() {
        for marker in ResultsFile::MARKERS.map(ResultsFile::name) {
            let parent = tempfile::tempdir().expect("a temporary folder");
            std::fs::write(parent.path().join(marker), "old").expect("a file");
            std::fs::write(parent.path().join(ResultsFile::History.name()), "old").expect("a file");
            std::fs::write(parent.path().join("notes.txt"), "mine").expect("a file");
            let error = ResultsFolder::create(Some(parent.path()), Earlier::Keep).expect_err("a run is there");
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("--overwrite") && error.to_string().contains(marker), "{error}");
            assert_eq!(names(parent.path()).len(), 3);
            let folder = ResultsFolder::create(Some(parent.path()), Earlier::Replace).expect("may be replaced");
            assert_eq!(names(parent.path()), [LOCK, "notes.txt"]);
            drop(folder);
            assert_eq!(names(parent.path()), ["notes.txt"]);
        }
    }

    #[test]
    fn a_file_is_no_folder() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = ResultsFolder::create(Some(file.path()), Earlier::Replace).expect_err("a file");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let (_parent, folder) = folder();
        folder.write(ResultsFile::Targets, |file| file.write_all(b"old")).expect("written");
        let error = folder
            .write(ResultsFile::Targets, |file| {
                file.write_all(b"new and half")?;
                Err(io::Error::other("the disk is full"))
            })
            .expect_err("fails");
        assert!(
            error.to_string().contains(ResultsFile::Targets.name()) && error.to_string().contains("the disk is full"),
            "{error}"
        );
        assert_eq!(std::fs::read(folder.file(ResultsFile::Targets)).expect("readable"), b"old");
        assert_eq!(names(folder.path()), [LOCK, ResultsFile::Targets.name()]);
    }

    #[test]
    fn a_folder_has_one_run_at_a_time() {
        let (_parent, folder) = folder();
        let path = folder.path().to_owned();
        for earlier in [Earlier::Keep, Earlier::Replace, Earlier::Resume] {
            let error = ResultsFolder::create(Some(&path), earlier).expect_err("occupied");
            let whom = format!("process {}", std::process::id());
            assert!(matches!(error, Error::Occupied { .. }) && error.to_string().contains(&whom), "{error}");
        }
        drop(folder);
        assert!(names(&path).is_empty(), "the lock is removed");
        ResultsFolder::create(Some(&path), Earlier::Keep).expect("free");
    }

    #[test]
    fn what_a_killed_process_left_half_written_is_removed() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        for name in
            [".writing-x1", ".h5ad-x1", ".npz-x1", "mine.tmp", checkpoint::PREVIOUS, ResultsFile::History.name()]
        {
            std::fs::write(parent.path().join(name), "x").expect("a file");
        }
        let kept = [checkpoint::PREVIOUS, ResultsFile::History.name(), "mine.tmp"];
        drop(ResultsFolder::create(Some(parent.path()), Earlier::Resume).expect("a folder"));
        assert_eq!(names(parent.path()), kept);
        drop(ResultsFolder::create(Some(parent.path()), Earlier::Replace).expect("a folder"));
        assert_eq!(names(parent.path()), ["mine.tmp"]);

        // A finished run is not resumed, and loses only what nobody needs.
        for name in [
            ResultsFile::Config.name(),
            ResultsFile::Metrics.name(),
            ResultsFile::History.name(),
            LOCK,
            ".writing-x2",
            checkpoint::CHECKPOINT,
        ] {
            std::fs::write(parent.path().join(name), "x").expect("a file");
        }
        let error = ResultsFolder::create(Some(parent.path()), Earlier::Resume).expect_err("finished");
        assert!(error.to_string().contains("is finished"), "{error}");
        ResultsFolder::tidy(parent.path()).expect("tidied");
        assert_eq!(
            names(parent.path()),
            [ResultsFile::Config.name(), ResultsFile::History.name(), ResultsFile::Metrics.name(), "mine.tmp"]
        );
    }

    #[test]
    fn the_folder_of_another_rank_is_not_written() {
        let (_parent, folder) = folder();
        let other = ResultsFolder::of_first_rank(folder.path());
        other.write(ResultsFile::Targets, |file| file.write_all(b"x")).expect("nothing to do");
        assert!(folder.writes() && !other.writes());
        assert_eq!(names(folder.path()), [LOCK]);
    }

    #[cfg(unix)]
    #[test]
    fn files_are_as_readable_as_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let (_parent, folder) = folder();
        folder.write(ResultsFile::Targets, |file| file.write_all(b"x")).expect("written");
        std::fs::write(folder.path().join("b.txt"), "x").expect("written");
        let mode = |name| std::fs::metadata(folder.path().join(name)).expect("a file").permissions().mode();
        assert_eq!(mode(ResultsFile::Targets.name()), mode("b.txt"));
    }
}
