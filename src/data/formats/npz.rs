//! NumPy archives (.npz): arrays read with conversion and bounded memory, and written whole or not at all.

use crate::words::first_few;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;
use npyz::{DType, NpyHeader, Order, TypeChar, WriterBuilder};
use rawzip::path::EntryPath;
use rawzip::time::UtcDateTime;
use rawzip::{
    CompressionMethod, FileReader, RECOMMENDED_BUFFER_SIZE, ZipArchive, ZipArchiveEntryWayfinder, ZipArchiveWriter,
};
use tempfile::NamedTempFile;

use crate::error::{Error, InputError, Result};
use crate::system::files::open_input;

/// Longest .npy header read, in bytes; NumPy itself writes 128 for a plain array.
const MAX_HEADER: usize = 1 << 16;
/// DEFLATE cannot expand by more than this factor, so a header that promises more is lying.
const MAX_EXPANSION: u64 = 1032;
/// Elements converted at a time.
const BLOCK: usize = 1 << 14;

/// What the elements of an array are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementKind {
    /// Boolean.
    Bool,
    /// Signed or unsigned integer of 1, 2, 4 or 8 bytes.
    Integer,
    /// Floating point of 2, 4 or 8 bytes.
    Float,
    /// Text: `<U` or `|S`.
    Text,
}

/// An open .npz archive.
#[derive(Debug)]
pub struct Npz {
    path: PathBuf,
    archive: ZipArchive<FileReader>,
    names: Vec<String>,
    members: HashMap<String, Member>,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    wayfinder: ZipArchiveEntryWayfinder,
    method: CompressionMethod,
}

impl Npz {
    /// Opens `path` and lists its arrays; nothing else is read yet.
    ///
    /// # Errors
    /// [`InputError`] if the file is absent, is no zip archive, holds two arrays of one name or is encrypted.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = open_input(path)?;
        let damaged = |e: rawzip::Error| {
            InputError::new(format!("this is not a readable .npz archive ({e})"), "write it again with numpy.savez")
                .in_file(path)
        };
        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let archive = ZipArchive::from_file(file, &mut buffer).map_err(damaged)?;
        let mut names = Vec::new();
        let mut members = HashMap::new();
        let mut entries = archive.entries(&mut buffer);
        while let Some(entry) = entries.next_entry().map_err(damaged)? {
            let name = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
            // Anything but an array is not ours to judge.
            let Some(name) = name.strip_suffix(".npy") else { continue };
            if entry.flags().is_encrypted() {
                return Err(InputError::new("the archive is encrypted", "store it without a password")
                    .in_file(path)
                    .at(format!("array `{name}`"))
                    .into());
            }
            let member = Member { wayfinder: entry.wayfinder(), method: entry.compression_method() };
            if members.insert(name.to_string(), member).is_some() {
                return Err(InputError::new(
                    format!("the archive holds two arrays called `{name}`"),
                    "keep one of them",
                )
                .in_file(path)
                .into());
            }
            names.push(name.to_string());
        }
        Ok(Self { path: path.to_path_buf(), archive, names, members })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the arrays, in the order of the archive, without ".npy".
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the archive holds an array of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Opens one array: its header is read and checked, its elements are not read yet.
    ///
    /// # Errors
    /// [`InputError`] if the array is absent, damaged, of a type that is not read (Python objects among them) or
    /// promises more elements than its bytes can hold.
    pub fn array(&self, name: &str) -> Result<ArrayStream<'_>> {
        let fault = Fault { path: &self.path, name };
        let member = self.members.get(name).ok_or_else(|| {
            fault.because("there is no such array", format!("the archive holds {}", first_few(&self.names)))
        })?;
        let entry = self.archive.get_entry(member.wayfinder).map_err(|e| fault.damaged(e))?;
        let (start, end) = entry.compressed_data_range();
        let stored = end.saturating_sub(start);
        let raw = BufReader::with_capacity(1 << 16, entry.reader());
        let (mut reader, most): (Box<dyn Read + '_>, u64) = match member.method {
            CompressionMethod::STORE => (Box::new(entry.verifying_reader(raw)), stored),
            CompressionMethod::DEFLATE => (
                Box::new(entry.verifying_reader(DeflateDecoder::new(raw))),
                stored.saturating_mul(MAX_EXPANSION).saturating_add(1 << 10),
            ),
            other => {
                return Err(fault
                    .because(
                        format!("it is compressed by a method that is not read ({other:?})"),
                        "write the archive with numpy.savez or numpy.savez_compressed",
                    )
                    .into());
            }
        };
        let header = read_header(&mut reader).map_err(|e| fault.damaged(e))?;
        if header.uses_pickled_array() {
            return Err(fault
                .because(
                    "it holds Python objects, which only Python can read",
                    "convert it first, for example with .astype(str) or .astype(float)",
                )
                .into());
        }
        let DType::Plain(dtype) = header.dtype() else {
            return Err(fault.because("its elements are records", "store each field as an array of its own").into());
        };
        let bad_type = || {
            fault.because(
                format!("elements of type {dtype} are not read"),
                "convert them to a common integer, floating-point or text type",
            )
        };
        let (kind, width) = match (dtype.type_char(), dtype.size_field()) {
            (TypeChar::Bool, 1) => (ElementKind::Bool, 1),
            (TypeChar::Int | TypeChar::Uint, w @ (1 | 2 | 4 | 8)) => (ElementKind::Integer, w),
            (TypeChar::Float, w @ (2 | 4 | 8)) => (ElementKind::Float, w),
            (TypeChar::ByteStr, w @ 0..=0xffff_ffff) => (ElementKind::Text, w),
            (TypeChar::UnicodeStr, w @ 0..=0xffff_ffff) => (ElementKind::Text, 4 * w),
            _ => return Err(bad_type().into()),
        };
        // Text of no width would otherwise let a few bytes promise any number of elements.
        let n = header.shape().iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let n = n
            .filter(|&n| if width == 0 { n <= 1 } else { n.checked_mul(width).is_some_and(|bytes| bytes <= most) })
            .ok_or_else(|| {
                fault.because(
                    format!("its header promises {:?} elements, more than the archive can hold", header.shape()),
                    "the file is damaged, write it again",
                )
            })?;
        Ok(ArrayStream {
            path: &self.path,
            name: name.to_string(),
            reader,
            shape: header.shape().iter().map(|&d| d as usize).collect(),
            fortran: header.order() == Order::Fortran && header.shape().len() > 1,
            kind,
            signed: dtype.type_char() == TypeChar::Int,
            unicode: dtype.type_char() == TypeChar::UnicodeStr,
            big_endian: dtype.endianness() == npyz::Endianness::Big,
            width: width as usize,
            remaining: n as usize,
        })
    }

    /// Shape and elements (C order) of a numeric or boolean array, converted to `f64`.
    pub fn array_f64(&self, name: &str) -> Result<(Vec<usize>, Vec<f64>)> {
        self.array(name)?.into_f64()
    }

    /// Shape and elements (C order) of an integer or boolean array.
    pub fn array_i64(&self, name: &str) -> Result<(Vec<usize>, Vec<i64>)> {
        self.array(name)?.into_i64()
    }

    /// The text of a 0-d array (or of one with a single element).
    pub fn string(&self, name: &str) -> Result<String> {
        let (shape, mut texts) = self.array(name)?.into_strings()?;
        match texts.len() {
            1 => Ok(texts.remove(0)),
            _ => Err(Fault { path: &self.path, name }
                .because(format!("one text was expected, its shape is {shape:?}"), "store a single string")
                .into()),
        }
    }

    /// Shape and elements (C order) of a text array (`<U` or `|S` in UTF-8).
    pub fn strings(&self, name: &str) -> Result<(Vec<usize>, Vec<String>)> {
        self.array(name)?.into_strings()
    }
}

/// One array of an archive, read front to back.
pub struct ArrayStream<'a> {
    path: &'a Path,
    name: String,
    reader: Box<dyn Read + 'a>,
    shape: Vec<usize>,
    fortran: bool,
    kind: ElementKind,
    signed: bool,
    unicode: bool,
    big_endian: bool,
    /// Bytes of an element.
    width: usize,
    /// Elements not read yet.
    remaining: usize,
}

impl ArrayStream<'_> {
    /// Shape of the array; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What the elements are.
    pub fn kind(&self) -> ElementKind {
        self.kind
    }

    /// Bytes of an element.
    pub fn width(&self) -> usize {
        self.width
    }

    /// NumPy's name of the elements' type.
    pub fn dtype(&self) -> String {
        let bits = 8 * self.width;
        match self.kind {
            ElementKind::Bool => "bool".to_string(),
            ElementKind::Integer => format!("{}int{bits}", if self.signed { "" } else { "u" }),
            ElementKind::Float => format!("float{bits}"),
            ElementKind::Text => "text".to_string(),
        }
    }

    /// Whether the elements come in Fortran order (first index fastest).
    pub fn is_fortran(&self) -> bool {
        self.fortran
    }

    /// Appends the next elements to `out` as `f64`, at most `most` of them, in the order of the file.
    ///
    /// # Errors
    /// [`InputError`] if the array holds text or its bytes are damaged or end early.
    pub fn next_f64(&mut self, most: usize, out: &mut Vec<f64>) -> Result<()> {
        let (big, width) = (self.big_endian, self.width);
        match (self.kind, self.signed) {
            (ElementKind::Float, _) => self.next(most, out, |b| match width {
                2 => half_to_f64(integer(b, big) as u16),
                4 => f32::from_bits(integer(b, big) as u32) as f64,
                _ => f64::from_bits(integer(b, big)),
            }),
            (ElementKind::Integer, true) => self.next(most, out, |b| signed_integer(b, big) as f64),
            (ElementKind::Integer, false) | (ElementKind::Bool, _) => self.next(most, out, |b| integer(b, big) as f64),
            (ElementKind::Text, _) => Err(self.not_a("numbers").into()),
        }
    }

    /// Appends the next elements to `out` as `i64`, at most `most` of them, in the order of the file.
    ///
    /// # Errors
    /// [`InputError`] if the array holds neither integers nor booleans, a value over 2^63 - 1, or is damaged.
    pub fn next_i64(&mut self, most: usize, out: &mut Vec<i64>) -> Result<()> {
        let big = self.big_endian;
        match (self.kind, self.signed) {
            (ElementKind::Integer, true) => self.next(most, out, |b| signed_integer(b, big)),
            (ElementKind::Integer, false) | (ElementKind::Bool, _) => {
                let mut too_large = None;
                self.next(most, out, |b| {
                    let value = integer(b, big);
                    i64::try_from(value).unwrap_or_else(|_| {
                        too_large = Some(value);
                        0
                    })
                })?;
                match too_large {
                    Some(value) => Err(self
                        .fault()
                        .because(format!("{value} does not fit in a signed 64-bit integer"), "check the array")
                        .into()),
                    None => Ok(()),
                }
            }
            _ => Err(self.not_a("integers").into()),
        }
    }

    /// All elements as `f64`, in C order.
    pub fn into_f64(mut self) -> Result<(Vec<usize>, Vec<f64>)> {
        let mut values = Vec::new();
        self.next_f64(usize::MAX, &mut values)?;
        Ok(self.in_c_order(values))
    }

    /// All elements as `i64`, in C order.
    pub fn into_i64(mut self) -> Result<(Vec<usize>, Vec<i64>)> {
        let mut values = Vec::new();
        self.next_i64(usize::MAX, &mut values)?;
        Ok(self.in_c_order(values))
    }

    /// All elements as text, in C order.
    pub fn into_strings(mut self) -> Result<(Vec<usize>, Vec<String>)> {
        if self.kind != ElementKind::Text {
            return Err(self.not_a("text").into());
        }
        let (unicode, big) = (self.unicode, self.big_endian);
        let mut texts = Vec::new();
        let mut bad = None;
        self.next(usize::MAX, &mut texts, |bytes| {
            let text = if unicode { utf32(bytes, big) } else { utf8(bytes) };
            text.unwrap_or_else(|| {
                bad = Some(());
                String::new()
            })
        })?;
        if bad.is_some() {
            return Err(self.fault().because("its text is not valid Unicode", "store it as UTF-8 text").into());
        }
        Ok(self.in_c_order(texts))
    }

    /// Reads up to `most` elements through `convert`; after the last one the checksum of the archive is verified.
    fn next<T>(&mut self, most: usize, out: &mut Vec<T>, mut convert: impl FnMut(&[u8]) -> T) -> Result<()> {
        let mut wanted = most.min(self.remaining);
        // Wide text in small blocks, so that the buffer stays small too.
        let block = if self.width > 64 { BLOCK * 64 / self.width } else { BLOCK }.max(1);
        let mut buffer = Vec::new();
        while wanted > 0 {
            let n = wanted.min(block);
            if self.width == 0 {
                out.extend((0..n).map(|_| convert(&[])));
            } else {
                buffer.clear();
                // Grows with what arrives, not with what was promised.
                let bytes = (&mut self.reader).take((n * self.width) as u64).read_to_end(&mut buffer);
                match bytes {
                    Ok(bytes) if bytes == n * self.width => {}
                    Ok(_) => return Err(self.fault().damaged("it ends early").into()),
                    Err(e) => return Err(self.fault().damaged(e).into()),
                }
                out.extend(buffer.chunks_exact(self.width).map(&mut convert));
            }
            wanted -= n;
            self.remaining -= n;
        }
        if self.remaining == 0 {
            match self.reader.read(&mut [0; 1]) {
                Ok(0) => {}
                Ok(_) => return Err(self.fault().damaged("bytes follow its last element").into()),
                Err(e) => return Err(self.fault().damaged(e).into()),
            }
        }
        Ok(())
    }

    fn fault(&self) -> Fault<'_> {
        Fault { path: self.path, name: &self.name }
    }

    fn not_a(&self, wanted: &str) -> InputError {
        let found = match self.kind {
            ElementKind::Bool => "booleans",
            ElementKind::Integer => "integers",
            ElementKind::Float => "floating-point numbers",
            ElementKind::Text => "text",
        };
        self.fault().because(format!("{wanted} were expected, it holds {found}"), "check which array was meant")
    }

    fn in_c_order<T>(self, values: Vec<T>) -> (Vec<usize>, Vec<T>) {
        if !self.fortran || values.is_empty() {
            return (self.shape, values);
        }
        let mut values: Vec<Option<T>> = values.into_iter().map(Some).collect();
        let mut index = vec![0; self.shape.len()];
        let mut ordered = Vec::with_capacity(values.len());
        for _ in 0..values.len() {
            let at = index.iter().zip(&self.shape).rev().fold(0, |at, (&i, &d)| at * d + i);
            ordered.push(values[at].take().expect("each index is visited once"));
            for (i, &d) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < d {
                    break;
                }
                *i = 0;
            }
        }
        (self.shape, ordered)
    }
}

/// The place of a fault: an array of a file.
struct Fault<'a> {
    path: &'a Path,
    name: &'a str,
}

impl Fault<'_> {
    fn because(&self, problem: impl Into<String>, remedy: impl Into<String>) -> InputError {
        InputError::new(problem, remedy).in_file(self.path).at(format!("array `{}`", self.name))
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> InputError {
        self.because(format!("it is damaged ({reason})"), "write the file again")
    }
}

/// Reads a .npy header with its sizes checked before anything is allocated or multiplied.
fn read_header(reader: &mut impl Read) -> Result<NpyHeader, String> {
    let mut header = vec![0; 10];
    reader.read_exact(&mut header).map_err(|e| e.to_string())?;
    if &header[..6] != b"\x93NUMPY" {
        return Err("it does not start as a .npy array".into());
    }
    let mut length = u16::from_le_bytes([header[8], header[9]]) as usize;
    if header[6] >= 2 {
        let mut more = [0; 2];
        reader.read_exact(&mut more).map_err(|e| e.to_string())?;
        length += (u16::from_le_bytes(more) as usize) << 16;
        header.extend(more);
    }
    if length > MAX_HEADER {
        return Err(format!("its header claims {length} bytes"));
    }
    let before = header.len();
    header.resize(before + length, 0);
    reader.read_exact(&mut header[before..]).map_err(|e| e.to_string())?;

    // The parser below multiplies the numbers of the header unchecked and descends into brackets recursively.
    let text = &header[before..];
    if text.iter().filter(|b| b"([{".contains(b)).count() > 64 {
        return Err("its header is not that of a plain array".into());
    }
    let numbers = text.split(|b| !b.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let mut product = 1u64;
    for digits in numbers {
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
        product = number
            .and_then(|number| product.checked_mul(number.max(1)))
            .filter(|&product| product < 1 << 60)
            .ok_or("its header claims an absurd size")?;
    }
    NpyHeader::from_reader(&header[..]).map_err(|e| e.to_string())
}

/// Unsigned integer of 1 to 8 bytes.
#[inline(always)]
fn integer(bytes: &[u8], big_endian: bool) -> u64 {
    let mut wide = [0; 8];
    if big_endian {
        for (to, from) in wide.iter_mut().zip(bytes.iter().rev()) {
            *to = *from;
        }
    } else {
        wide[..bytes.len()].copy_from_slice(bytes);
    }
    u64::from_le_bytes(wide)
}

/// Two's-complement integer of 1 to 8 bytes.
#[inline(always)]
fn signed_integer(bytes: &[u8], big_endian: bool) -> i64 {
    let shift = 64 - 8 * bytes.len() as u32;
    ((integer(bytes, big_endian) << shift) as i64) >> shift
}

/// IEEE 754 binary16, exactly.
fn half_to_f64(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = ((bits >> 10 & 0x1f) as i32, (bits & 0x3ff) as f64);
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        0x1f if fraction == 0.0 => sign * f64::INFINITY,
        0x1f => f64::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}

fn utf32(bytes: &[u8], big_endian: bool) -> Option<String> {
    let mut units: Vec<u32> = bytes.chunks_exact(4).map(|unit| integer(unit, big_endian) as u32).collect();
    while units.last() == Some(&0) {
        units.pop();
    }
    units.into_iter().map(char::from_u32).collect()
}

fn utf8(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |at| at + 1);
    std::str::from_utf8(&bytes[..end]).ok().map(str::to_string)
}

/// How the name of an archive begins that is not finished.
pub const UNFINISHED: &str = ".npz-";

/// Writes a .npz archive that `numpy.load` reads. It appears under its name only when [`NpzWriter::finish`] has
/// returned; the same arrays give the same bytes.
#[derive(Debug)]
pub struct NpzWriter {
    path: PathBuf,
    archive: ZipArchiveWriter<BufWriter<NamedTempFile>>,
    names: Vec<String>,
}

impl NpzWriter {
    /// Starts an archive beside `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut builder = tempfile::Builder::new();
        builder.prefix(UNFINISHED);
        // The usual permissions (less the umask), not those of a secret.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder(&path)).map_err(|e| Error::io("writing", &path, e))?;
        Ok(Self { path, archive: ZipArchiveWriter::new(BufWriter::new(file)), names: Vec::new() })
    }

    /// Adds an array of `f32` in C order.
    pub fn add_f32(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        self.add(name, "<f4", shape, values.iter().copied())
    }

    /// Adds an array of `f64` in C order.
    pub fn add_f64(&mut self, name: &str, shape: &[usize], values: &[f64]) -> Result<()> {
        self.add(name, "<f8", shape, values.iter().copied())
    }

    /// Adds an array of `f64`, or `f32` if `single` is set, in C order; `fill` passes on its elements, some at a time.
    ///
    /// # Errors
    /// [`Error::Io`], also if `fill` passes on fewer or more elements than the shape has; and what `fill` fails with.
    pub fn add_floats(
        &mut self,
        name: &str,
        shape: &[usize],
        single: bool,
        fill: impl FnOnce(&mut dyn FnMut(&[f64]) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let path = self.path.clone();
        let io = |e| Error::io("writing", &path, e);
        match single {
            true => self.entry(name, "<f4", shape, |put| {
                fill(&mut |piece| piece.iter().try_for_each(|&x| put(&(x as f32))).map_err(io))
            }),
            false => self
                .entry(name, "<f8", shape, |put| fill(&mut |piece| piece.iter().try_for_each(&mut *put).map_err(io))),
        }
    }

    /// Adds an array of `i64` in C order.
    pub fn add_i64(&mut self, name: &str, shape: &[usize], values: &[i64]) -> Result<()> {
        self.add(name, "<i8", shape, values.iter().copied())
    }

    /// Adds an array of `u32` in C order.
    pub fn add_u32(&mut self, name: &str, shape: &[usize], values: &[u32]) -> Result<()> {
        self.add(name, "<u4", shape, values.iter().copied())
    }

    /// Adds a one-dimensional array of text.
    pub fn add_strings<'a, S: AsRef<str> + ?Sized + 'a>(
        &mut self,
        name: &str,
        texts: impl IntoIterator<Item = &'a S, IntoIter: ExactSizeIterator + Clone>,
    ) -> Result<()> {
        let texts = texts.into_iter();
        self.add_text(name, &[texts.len()], texts)
    }

    /// Adds one text as a 0-d array.
    pub fn add_string(&mut self, name: &str, text: &str) -> Result<()> {
        self.add_text(name, &[], [text].iter())
    }

    fn add_text<'a, S: AsRef<str> + ?Sized + 'a>(
        &mut self,
        name: &str,
        shape: &[usize],
        texts: impl ExactSizeIterator<Item = &'a S> + Clone,
    ) -> Result<()> {
        let width = texts.clone().map(|text| text.as_ref().chars().count()).max().unwrap_or(0).max(1);
        self.add(name, &format!("<U{width}"), shape, texts.map(|text| text.as_ref().to_string()))
    }

    fn add<T: npyz::Serialize>(
        &mut self,
        name: &str,
        dtype: &str,
        shape: &[usize],
        values: impl ExactSizeIterator<Item = T>,
    ) -> Result<()> {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "array `{name}`: shape and length differ");
        let path = self.path.clone();
        self.entry(name, dtype, shape, |put| {
            values.into_iter().try_for_each(|value| put(&value)).map_err(|e| Error::io("writing", &path, e))
        })
    }

    /// Adds an array whose elements `fill` hands to the closure that it is given.
    fn entry<T: npyz::Serialize>(
        &mut self,
        name: &str,
        dtype: &str,
        shape: &[usize],
        fill: impl FnOnce(&mut dyn FnMut(&T) -> std::io::Result<()>) -> Result<()>,
    ) -> Result<()> {
        let mut failed = None;
        assert!(!self.names.iter().any(|other| other == name), "array `{name}` is written twice");
        self.names.push(name.to_string());
        let written = (|| -> std::io::Result<()> {
            let other = std::io::Error::other;
            let (mut entry, config) = self
                .archive
                .new_file(EntryPath::verbatim(format!("{name}.npy").into_bytes()))
                .compression_method(CompressionMethod::DEFLATE)
                // The first day a zip archive can name: the bytes do not depend on the clock.
                .last_modified(UtcDateTime::from_unix(315_532_800))
                .start()
                .map_err(other)?;
            let encoder = DeflateEncoder::new(&mut entry, Compression::default());
            let mut data = config.wrap(encoder);
            {
                let dtype = DType::new_scalar(dtype.parse::<npyz::TypeStr>().map_err(std::io::Error::other)?);
                let shape: Vec<u64> = shape.iter().map(|&d| d as u64).collect();
                let buffered = BufWriter::with_capacity(1 << 16, &mut data);
                let mut array = npyz::WriteOptions::new().dtype(dtype).shape(&shape).writer(buffered).begin_nd()?;
                if let Err(error) = fill(&mut |value| array.push(value)) {
                    failed = Some(error);
                    return Err(std::io::Error::other("it is given up"));
                }
                array.finish()?;
            }
            data.flush()?;
            let (encoder, descriptor) = data.finish().map_err(other)?;
            encoder.finish()?;
            entry.finish(descriptor).map_err(other)?;
            Ok(())
        })();
        match failed {
            Some(error) => Err(error),
            None => written.map_err(|e| Error::io("writing", &self.path, e)),
        }
    }

    /// Completes the archive: flushed to the disk, then renamed into place.
    ///
    /// # Errors
    /// [`Error::Io`]; a file that was there before is then untouched.
    pub fn finish(self) -> Result<()> {
        let path = self.path;
        let finished = (|| -> std::io::Result<()> {
            let writer = self.archive.finish().map_err(std::io::Error::other)?;
            let file = writer.into_inner().map_err(|e| e.into_error())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            // The rename itself is lasting only once the folder is on the disk.
            #[cfg(unix)]
            File::open(folder(&path))?.sync_all()?;
            Ok(())
        })();
        finished.map_err(|e| Error::io("writing", &path, e))
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back_as_written_under_awkward_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let write = |path: &Path| {
            let mut writer = NpzWriter::create(path).unwrap();
            writer.add_f32("grad/z_encoder.Layer 0.0.weight", &[2, 3], &[1.0, -2.5, 3.0, 4.0, 5.0, 6.5]).unwrap();
            writer.add_f64("scalar", &[], &[0.1]).unwrap();
            writer.add_i64("codes", &[3], &[-1, i64::MAX, 7]).unwrap();
            writer.add_u32("none", &[0, 4], &[]).unwrap();
            writer.add_strings("gènes", &["αβ", "", "𝄞 c"]).unwrap();
            writer.add_string("config", "{\"a\": 1}").unwrap();
            writer.finish().unwrap();
            std::fs::read(path).unwrap()
        };
        assert_eq!(write(&path), write(&folder.path().join("b.npz")), "the same arrays give the same bytes");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");

        let npz = Npz::open(&path).unwrap();
        assert_eq!(npz.names()[0], "grad/z_encoder.Layer 0.0.weight");
        assert_eq!(npz.array_f64(&npz.names()[0]).unwrap(), (vec![2, 3], vec![1.0, -2.5, 3.0, 4.0, 5.0, 6.5]));
        assert_eq!(npz.array_f64("scalar").unwrap(), (vec![], vec![0.1]));
        assert_eq!(npz.array_i64("codes").unwrap(), (vec![3], vec![-1, i64::MAX, 7]));
        assert_eq!(npz.array_f64("none").unwrap(), (vec![0, 4], vec![]));
        assert_eq!(npz.strings("gènes").unwrap().1, ["αβ", "", "𝄞 c"]);
        assert_eq!(npz.string("config").unwrap(), "{\"a\": 1}");
        let error = npz.array_i64("scalar").unwrap_err().to_string();
        assert!(error.contains("`scalar`") && error.contains("floating-point"), "{error}");
        let error = npz.array_f64("absent").unwrap_err().to_string();
        assert!(error.contains("`codes`"), "{error}");
    }

    #[test]
    fn an_abandoned_archive_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = NpzWriter::create(folder.path().join("a.npz")).unwrap();
        writer.add_f64("x", &[1], &[1.0]).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn half_precision_is_exact() {
        for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65_504.0), (0x0001, 2f64.powi(-24))] {
            assert_eq!(half_to_f64(bits), value);
        }
        assert_eq!(half_to_f64(0xfc00), f64::NEG_INFINITY);
        assert!(half_to_f64(0x7e00).is_nan());
    }
}
