//! Files that are opened, files that appear whole or not at all, and the right to work in a folder.

use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, InputError, Result};
use crate::system::machine::host;

/// Opens a file for reading; an absent one is the user's to mend, anything else is the machine's.
pub(crate) fn open_input(path: &Path) -> Result<File> {
    match File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|m| m.is_dir()) => {
            Err(InputError::new("this is a folder", "name a file").in_file(path).into())
        }
        Ok(file) => Ok(file),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(InputError::new("there is no such file", "check the path").in_file(path).into())
        }
        Err(e) => Err(Error::io("reading", path, e)),
    }
}

/// Entries of a list, of which `@file` stands for the lines of that file, without blanks around them, and `@@name` for `@name`.
/// Empty ones are left out.
///
/// # Errors
/// The file that cannot be read, and why.
pub(crate) fn with_files(entries: &[String]) -> std::result::Result<Vec<String>, (PathBuf, io::Error)> {
    let mut all = Vec::new();
    for entry in entries {
        if let Some(name) = entry.strip_prefix("@@") {
            all.push(format!("@{name}"));
        } else if let Some(path) = entry.strip_prefix('@') {
            let text = std::fs::read_to_string(path).map_err(|error| (PathBuf::from(path), error))?;
            let text = text.trim_start_matches('\u{feff}');
            let before = all.len();
            for line in text.lines().map(str::trim) {
                // A line is whole, so that one that comes again says nothing more.
                if !all[before..].iter().any(|known: &String| known == line) {
                    all.push(line.to_owned());
                }
            }
        } else {
            all.push(entry.clone());
        }
    }
    all.retain(|name| !name.is_empty());
    Ok(all)
}

/// Writes a file beside `path`, syncs it and renames it to `path`, so that `path` is never half written.
///
/// # Errors
/// [`Error::Io`] naming `path`; whatever stood there before is still there.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<()> {
    let result = (|| {
        let file = unfinished(path)?;
        let mut buffered = BufWriter::with_capacity(1 << 16, file.as_file());
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        complete(file, path)
    })();
    result.map_err(|source| Error::io("writing", path, source))
}

/// How the name of a file begins that [`write_atomically`] has not finished.
pub const UNFINISHED: &str = ".writing-";

/// A file beside `path` that is to become it.
fn unfinished(path: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    // Temporary files are private by default; results are as readable as any other file of the user.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder_of(path))
}

/// Brings a whole file to disk and gives it its name.
fn complete(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder_of(path))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A table that is written row by row, and appears under its name when [`GrowingTable::finish`] has returned.
#[derive(Debug)]
pub struct GrowingTable {
    path: PathBuf,
    rows: csv::Writer<NamedTempFile>,
}

impl GrowingTable {
    /// Begins the table `path` with its header.
    pub fn create(path: PathBuf, header: &[&str]) -> Result<Self> {
        let failed = |e| Error::io("writing", &path, e);
        let file = unfinished(&path).map_err(failed)?;
        let rows = csv::WriterBuilder::new().buffer_capacity(1 << 16).from_writer(file);
        let mut table = Self { path, rows };
        table.push(header.iter().copied())?;
        Ok(table)
    }

    /// Appends a row.
    pub fn push<S: AsRef<[u8]>>(&mut self, row: impl IntoIterator<Item = S>) -> Result<()> {
        self.rows.write_record(row).map_err(|e| Error::io("writing", &self.path, e.into()))
    }

    /// Appends whole lines of text, which are rows already.
    ///
    /// # Errors
    /// [`Error::Io`] naming the table.
    pub fn push_lines(&mut self, lines: &str) -> Result<()> {
        let flushed = self.rows.flush().and_then(|()| self.rows.get_ref().as_file().write_all(lines.as_bytes()));
        flushed.map_err(|e| Error::io("writing", &self.path, e))
    }

    /// Completes the table.
    pub fn finish(self) -> Result<()> {
        let Self { path, rows } = self;
        let file = rows.into_inner().map_err(|e| Error::io("writing", &path, e.into_error()))?;
        complete(file, &path).map_err(|e| Error::io("writing", &path, e))
    }
}

/// Brings the names in a folder to disk: a new one lasts only from then on.
///
/// # Errors
/// Those of the system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Name of the file whose lock says that a process works in a folder.
pub const LOCK: &str = ".lock";

/// The right to work in a folder. The system takes it from a process that ends, however that ends.
#[derive(Debug)]
pub struct FolderLock {
    path: PathBuf,
    _file: File,
}

impl FolderLock {
    /// Takes the right to work in `folder`; `None` on a file system without locks.
    pub fn take(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(LOCK);
        let failed = |source| Error::io("writing", &path, source);
        loop {
            let mut file =
                File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(occupied(folder, &mut file)),
                Err(TryLockError::Error(_)) => return Ok(None),
                Ok(()) => {}
            }
            // Whoever held the lock before may have removed the file between its opening and its locking here.
            if !is_at(&file, &path) {
                continue;
            }
            let whom = format!("process {} on {}", std::process::id(), host().as_deref().unwrap_or("this machine"));
            // For the message to others only; a full disk is noticed where it matters.
            let _ = file.set_len(0).and_then(|()| file.write_all(whom.as_bytes()));
            return Ok(Some(Self { path, _file: file }));
        }
    }

    /// Refuses a folder in which another process works.
    pub fn probe(folder: &Path) -> Result<()> {
        let Ok(mut file) = File::open(folder.join(LOCK)) else { return Ok(()) };
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Err(occupied(folder, &mut file)),
            _ => Ok(()),
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Still locked: nobody else can have taken the lock of this file.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn occupied(folder: &Path, file: &mut File) -> Error {
    let mut whom = String::new();
    let known = file.read_to_string(&mut whom).is_ok() && !whom.is_empty();
    Error::Occupied { folder: folder.to_path_buf(), by: if known { format!(" ({whom})") } else { String::new() } }
}

/// Whether `file` is what stands at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(found)) => (open.dev(), open.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}
