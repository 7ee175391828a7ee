//! A checkpoint on disk: magic, format, header, parts, checksum; the one before it is kept until it is whole.
//!
//! Layout: 8 bytes of magic, the number of the format (32 bits), the header (JSON, for people too), the results of
//! finished stages by name, the work in progress if there is any, and XXH3-64 of all bytes before. Encoding:
//! [`crate::checkpoint::encoding`].

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::checkpoint::encoding::{ByteReader, DecodeError, Encode};
use crate::data::identity::DataIdentity;
use crate::error::{Error, Result};
use crate::system::files::{sync_folder, write_atomically};

/// Name of the newest checkpoint in a results folder.
pub const CHECKPOINT: &str = "checkpoint";
/// Name of the one before it.
pub const PREVIOUS: &str = "checkpoint.previous";
/// Name of one that may not be on disk yet.
pub const NEXT: &str = "checkpoint.next";

const MAGIC: [u8; 8] = *b"SVAE+CKP";
/// Changes whenever the same bytes would mean something else.
const FORMAT: u32 = 1;

/// What a checkpoint belongs to, and where its run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Name and version of the program.
    pub program: String,
    /// Settings that results depend on.
    pub settings: Vec<(String, String)>,
    /// The cells.
    pub data: DataIdentity,
    /// Vector instructions in use when it was written.
    pub simd: String,
    /// Number of ranks of the run when it was written.
    pub ranks: usize,
    /// Seconds since 1970 at which the run began.
    pub started: u64,
    /// Seconds that the run has taken, without the time between a stop and the resumption.
    pub seconds: f64,
    /// Every resumption so far.
    pub resumes: Vec<Resume>,
    /// The stage that was under way when it was written.
    pub stage: String,
}

/// One resumption of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Seconds since 1970.
    pub time: u64,
    /// Name of the machine, where the system says.
    pub host: Option<String>,
    /// Threads.
    pub threads: usize,
    /// Vector instructions in use.
    pub simd: String,
    /// The stage that was resumed.
    pub stage: String,
}

/// A part of a run's state: the stage, and what it wrote.
pub type NamedBytes = (String, Vec<u8>);

/// A checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The run it belongs to, and where that stands.
    pub header: Header,
    /// Results of finished stages.
    pub finished: Vec<NamedBytes>,
    /// Work in progress.
    pub current: Option<NamedBytes>,
}

/// A writer that computes the checksum of what it passes on.
struct Summing<W> {
    out: W,
    sum: Xxh3,
}

impl<W: Write> Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.out.write_all(bytes)
    }

    fn part(&mut self, (name, bytes): (&str, &[u8])) -> io::Result<()> {
        let mut head = Vec::new();
        name.to_owned().encode(&mut head);
        bytes.len().encode(&mut head);
        self.write(&head)?;
        self.write(bytes)
    }
}

/// Writes a checkpoint.
///
/// # Errors
/// Those of `out`.
pub fn write(
    out: impl Write,
    header: &Header,
    finished: &[NamedBytes],
    current: Option<(&str, &[u8])>,
) -> io::Result<()> {
    let mut out = Summing { out, sum: Xxh3::new() };
    let mut head = MAGIC.to_vec();
    FORMAT.encode(&mut head);
    serde_json::to_string(header)?.encode(&mut head);
    finished.len().encode(&mut head);
    out.write(&head)?;
    for (name, bytes) in finished {
        out.part((name, bytes))?;
    }
    out.write(&[u8::from(current.is_some())])?;
    if let Some(part) = current {
        out.part(part)?;
    }
    let sum = out.sum.digest().to_le_bytes();
    out.out.write_all(&sum)
}

/// Reads a checkpoint.
///
/// # Errors
/// [`DecodeError`] if the bytes are not those of a whole checkpoint of this format.
pub fn read(bytes: &[u8]) -> std::result::Result<Checkpoint, DecodeError> {
    let Some(rest) = bytes.strip_prefix(&MAGIC) else {
        return Err(DecodeError("it is no checkpoint of svae-cpu".to_owned()));
    };
    let format = u32::decode(&mut ByteReader::new(rest))?;
    let Some((content, sum)) = bytes.split_last_chunk::<8>() else {
        return Err(DecodeError("it ends too early".to_owned()));
    };
    if xxh3_64(content) != u64::from_le_bytes(*sum) {
        return Err(DecodeError("its checksum is wrong: it is damaged or not whole".to_owned()));
    }
    // Only a file that is whole can be believed to be of another format.
    if format != FORMAT {
        return Err(DecodeError(format!("its format is {format}, and this version of svae-cpu knows {FORMAT}")));
    }
    let mut input = ByteReader::new(&content[MAGIC.len() + size_of::<u32>()..]);
    let header = String::decode(&mut input)?;
    let header =
        serde_json::from_str(&header).map_err(|error| DecodeError(format!("its header is unreadable ({error})")))?;
    let part = |input: &mut ByteReader<'_>| -> std::result::Result<NamedBytes, DecodeError> {
        let name = String::decode(input)?;
        let length = usize::decode(input)?;
        Ok((name, input.take(length)?.to_vec()))
    };
    let finished = (0..usize::decode(&mut input)?).map(|_| part(&mut input)).collect::<std::result::Result<_, _>>()?;
    let current = match u8::decode(&mut input)? {
        0 => None,
        _ => Some(part(&mut input)?),
    };
    input.end()?;
    Ok(Checkpoint { header, finished, current })
}

/// Writes a checkpoint into `folder`. Once there has been a whole checkpoint, there is one at every moment, also if the
/// machine stops.
///
/// # Errors
/// [`Error::Io`]; what was there before is then still there.
pub fn replace(folder: &Path, header: &Header, finished: &[NamedBytes], current: Option<(&str, &[u8])>) -> Result<()> {
    let [newest, previous, next] = [CHECKPOINT, PREVIOUS, NEXT].map(|name| folder.join(name));
    write_atomically(&next, |file| write(file, header, finished, current))?;
    let failed = |source| Error::io("writing", &newest, source);
    match std::fs::rename(&newest, &previous) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
        _ => {}
    }
    std::fs::rename(&next, &newest).map_err(failed)?;
    sync_folder(folder).map_err(failed)
}

/// Whether `folder` holds a checkpoint, whole or not.
pub fn exists(folder: &Path) -> bool {
    [CHECKPOINT, PREVIOUS].iter().any(|name| folder.join(name).exists())
}

/// Removes the checkpoints of `folder`.
///
/// # Errors
/// [`Error::Io`] for one that cannot be removed.
pub fn remove(folder: &Path) -> Result<()> {
    for name in [NEXT, PREVIOUS, CHECKPOINT] {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(Error::io("removing", path, source)),
            _ => {}
        }
    }
    Ok(())
}

/// The bytes of a file; `None` if there is none.
pub(crate) fn bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(mut file) => {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut file, &mut bytes)?;
            Ok(Some(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            program: "svae-cpu 1".to_owned(),
            settings: vec![("epochs".to_owned(), "3".to_owned())],
            data: DataIdentity { cells: 3, genes: 2, interventions: 1, checksum: "00".to_owned() },
            simd: "avx2".to_owned(),
            ranks: 1,
            started: 5,
            seconds: 0.1,
            resumes: vec![Resume {
                time: 6,
                host: None,
                threads: 2,
                simd: "avx2".to_owned(),
                stage: "training".to_owned(),
            }],
            stage: "training".to_owned(),
        }
    }

    fn bytes_of(current: Option<(&str, &[u8])>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let finished = [("a".to_owned(), vec![1, 2, 3]), ("b".to_owned(), Vec::new())];
        write(&mut bytes, &header(), &finished, current).expect("in memory");
        bytes
    }

    #[test]
    fn what_was_written_is_read_back() {
        let found = read(&bytes_of(Some(("c", &[9; 100])))).expect("whole");
        assert_eq!(found.header, header());
        assert_eq!(found.finished, [("a".to_owned(), vec![1, 2, 3]), ("b".to_owned(), Vec::new())]);
        assert_eq!(found.current, Some(("c".to_owned(), vec![9; 100])));
        assert_eq!(read(&bytes_of(None)).expect("whole").current, None);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let whole = bytes_of(Some(("c", &[9; 100])));
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "cut to {cut} bytes");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(read(&longer).is_err());
        for bit in 0..8 * whole.len() {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_format_is_said_to_be_one() {
        let mut bytes = bytes_of(None);
        bytes.truncate(bytes.len() - 8);
        bytes[8] = 7;
        let sum = xxh3_64(&bytes).to_le_bytes();
        bytes.extend(sum);
        let DecodeError(reason) = read(&bytes).expect_err("unknown");
        assert!(reason.contains("its format is 7"), "{reason}");
        let DecodeError(reason) = read(b"something else").expect_err("unknown");
        assert!(reason.contains("no checkpoint of svae-cpu"), "{reason}");
    }

    #[test]
    fn the_one_before_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let of =
            |name: &str| read(&std::fs::read(folder.path().join(name)).expect("a file")).expect("whole").header.seconds;
        for seconds in [1.0, 2.0, 3.0] {
            replace(folder.path(), &Header { seconds, ..header() }, &[], None).expect("written");
        }
        assert_eq!([of(CHECKPOINT), of(PREVIOUS)], [3.0, 2.0]);
        assert!(exists(folder.path()) && !folder.path().join(NEXT).exists());
        remove(folder.path()).expect("removed");
        remove(folder.path()).expect("nothing to remove");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
