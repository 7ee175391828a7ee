//! Text files, plain or gzip-compressed: whole, or line by line in bounded memory.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;

use crate::error::{Error, InputError, Result};
use crate::system::files::open_input;

/// Largest text read as a whole, in bytes after decompression.
const MOST_BYTES: u64 = 1 << 31;
/// What some programs write before UTF-8.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// Whether a file is compressed, by its name.
pub(crate) fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
}

/// What is in a file of that name, once decompressed.
fn decompressed(path: &Path, file: impl Read + 'static) -> Box<dyn Read> {
    match is_gzip(path) {
        true => Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file))),
        false => Box::new(file),
    }
}

/// The whole text of a small file, such as a table of labels or a list of names, without its byte order mark.
///
/// # Errors
/// [`InputError`], with the line, if it is absent, not UTF-8, or too large.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let fault = |problem: String, remedy: &str| InputError::new(problem, remedy).in_file(path);
    let mut bytes = Vec::new();
    match decompressed(path, open_input(path)?).take(MOST_BYTES).read_to_end(&mut bytes) {
        Ok(n) if (n as u64) < MOST_BYTES => {}
        Ok(_) => return Err(fault("it is too large for a table".into(), "check the file").into()),
        Err(e) if is_gzip(path) => {
            return Err(fault(format!("it cannot be decompressed ({e})"), "copy or write the file again").into());
        }
        Err(e) => return Err(Error::io("reading", path, e)),
    }
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        fault("it is not valid UTF-8".into(), "store it as UTF-8").at(format!("line {line}"))
    })?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

/// The lines of a file, plain or compressed, and how far it has been read.
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<Box<dyn Read>>,
    line: Vec<u8>,
    most: usize,
    number: usize,
    read: Rc<RefCell<u64>>,
}

/// Counts the bytes that pass.
struct Counted {
    file: File,
    read: Rc<RefCell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        *self.read.borrow_mut() += n as u64;
        Ok(n)
    }
}

impl Lines {
    /// Opens a file whose lines have at most `most` bytes each.
    pub fn open(path: &Path, most: usize) -> Result<Self> {
        let read = Rc::new(RefCell::new(0));
        let reader = decompressed(path, Counted { file: open_input(path)?, read: read.clone() });
        let reader = BufReader::with_capacity(1 << 16, reader);
        Ok(Self { path: path.to_path_buf(), reader, line: Vec::new(), most, number: 0, read })
    }

    /// The next line without its end; `None` after the last.
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        self.line.clear();
        self.number += 1;
        let n = (&mut self.reader).take(self.most as u64 + 1).read_until(b'\n', &mut self.line).map_err(|e| {
            self.fault(format!("line {}: it cannot be read ({e})", self.number), "copy or write the file again")
        })?;
        if n > self.most {
            return Err(self.bad_line("it is too long").into());
        }
        if n == 0 {
            return Ok(None);
        }
        while self.line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.pop();
        }
        Ok(Some(&self.line))
    }

    /// Number of the last line read, from 1 on.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Bytes of the file read so far.
    pub fn bytes(&self) -> u64 {
        *self.read.borrow()
    }

    /// A fault of the file.
    pub fn fault(&self, problem: impl Into<String>, remedy: impl Into<String>) -> InputError {
        InputError::new(problem, remedy).in_file(&self.path)
    }

    /// A fault of the last line read.
    pub fn bad_line(&self, problem: impl Into<String>) -> InputError {
        self.fault(problem, "the file is damaged or of another kind").at(format!("line {}", self.number))
    }
}

/// The number that digits alone write.
pub(crate) fn whole(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |n, &digit| digit.is_ascii_digit().then(|| n * 10 + (digit - b'0') as u64))
}

/// The number that a word writes, if it is one.
pub(crate) fn number(word: &[u8]) -> Option<f64> {
    match whole(word) {
        Some(value) if value < 1 << 53 => Some(value as f64),
        _ => std::str::from_utf8(word).ok()?.parse().ok(),
    }
}
