//! AnnData files (.h5ad) written in the encoding of AnnData 0.8 and newer, which all later versions read.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rust_hdf5::types::HBool;
use rust_hdf5::{DatatypeMessage, H5Dataset, H5File, H5Group, Hdf5Error};
use tempfile::TempPath;

use crate::data::counts::ScreenCounts;
use crate::data::counts::in_memory::Counts;
pub use crate::data::formats::frame::{Frame, FrameColumn, NumberWidth};
use crate::error::{Error, Result};

/// Elements of a chunk of a long array.
const CHUNK: usize = 1 << 17;
/// Arrays shorter than this are stored as they are.
const SMALL: usize = 1 << 10;
/// Level of DEFLATE: the fastest, since bytes are shuffled first.
const LEVEL: u32 = 1;

/// How the name of a file begins that is not finished.
pub const UNFINISHED: &str = ".h5ad-";

/// An .h5ad file under construction. It appears under its name only when [`AnnDataWriter::finish`] has returned; what is
/// written twice gives the same bytes.
pub struct AnnDataWriter {
    path: PathBuf,
    temporary: TempPath,
    file: H5File,
    compressed: bool,
}

impl AnnDataWriter {
    /// Starts a file beside `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(UNFINISHED);
        // The usual permissions (less the umask), not those of a secret.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(folder).map_err(|e| Error::io("writing", path, e))?.into_temp_path();
        let failed = |e: Hdf5Error| Error::io("writing", path, std::io::Error::other(e));
        // Without times the same contents give the same bytes.
        let file = H5File::options().track_times(false).no_locking().create(&temporary).map_err(failed)?;
        let writer = Self { path: path.to_path_buf(), temporary, file, compressed: true };
        let root = writer.file.root_group();
        writer.encode(&root, "anndata", "0.1.0")?;
        for name in ["layers", "obsm", "obsp", "uns", "varm", "varp"] {
            writer.dict(name)?;
        }
        Ok(writer)
    }

    /// Stores what follows without compression, each array in one piece.
    pub fn uncompressed(self) -> Self {
        Self { compressed: false, ..self }
    }

    fn check<T>(&self, result: std::result::Result<T, Hdf5Error>) -> Result<T> {
        result.map_err(|e| Error::io("writing", &self.path, std::io::Error::other(e)))
    }

    fn encode(&self, group: &H5Group, kind: &str, version: &str) -> Result<()> {
        self.check(group.set_attr_string("encoding-type", kind))?;
        self.check(group.set_attr_string("encoding-version", version))
    }

    fn encode_dataset(&self, dataset: &H5Dataset, kind: &str) -> Result<()> {
        for (name, value) in [("encoding-type", kind), ("encoding-version", "0.2.0")] {
            let attribute = dataset.new_attr::<rust_hdf5::types::VarLenUnicode>().shape(()).create(name);
            self.check(self.check(attribute)?.write_string(value))?;
        }
        Ok(())
    }

    fn group(&self, name: &str) -> Result<H5Group> {
        let mut group = self.file.root_group();
        for part in name.split('/') {
            group = self.check(group.group(part))?;
        }
        Ok(group)
    }

    /// Creates a group whose parent exists.
    fn new_group(&self, name: &str, kind: &str, version: &str) -> Result<H5Group> {
        let group = match name.rsplit_once('/') {
            Some((parent, leaf)) => self.check(self.group(parent)?.create_group(leaf))?,
            None => self.check(self.file.create_group(name))?,
        };
        self.encode(&group, kind, version)?;
        Ok(group)
    }

    /// Creates an empty mapping, such as `uns/svae`.
    ///
    /// # Errors
    /// [`Error::Io`], as for all that follow.
    pub fn dict(&self, name: &str) -> Result<()> {
        self.new_group(name, "dict", "0.1.0").map(drop)
    }

    /// Creates an array of the given shape and passes its blocks to `fill(range)`, elements in C order.
    fn array<T: rust_hdf5::types::H5Type>(
        &self,
        name: &str,
        shape: &[usize],
        encoded: bool,
        mut fill: impl FnMut(std::ops::Range<usize>) -> Result<Vec<T>>,
    ) -> Result<()> {
        let n: usize = shape.iter().product();
        let builder = self.file.new_dataset::<T>().shape(shape);
        if n < SMALL {
            let dataset = self.check(builder.create(name))?;
            if n > 0 {
                self.check(dataset.write_raw(&fill(0..n)?))?;
            }
            return if encoded { self.encode_dataset(&dataset, "array") } else { Ok(()) };
        }
        let width: usize = shape[1..].iter().product();
        let rows = (CHUNK / width).clamp(1, shape[0]);
        let mut chunk = shape.to_vec();
        chunk[0] = rows;
        let builder = if self.compressed { builder.chunk(&chunk).shuffle_deflate(LEVEL) } else { builder };
        let dataset = self.check(builder.create(name))?;
        for start in (0..shape[0]).step_by(rows) {
            let count = rows.min(shape[0] - start);
            let values = fill(start * width..(start + count) * width)?;
            let (mut starts, mut counts) = (vec![0; shape.len()], shape.to_vec());
            (starts[0], counts[0]) = (start, count);
            self.check(dataset.write_slice(&starts, &counts, &values))?;
        }
        if encoded { self.encode_dataset(&dataset, "array") } else { Ok(()) }
    }

    /// Writes an array of single precision, such as `obsm/X_svae`.
    pub fn array_f32(&self, name: &str, shape: &[usize], values: &[f64]) -> Result<()> {
        self.array(name, shape, true, |range| Ok(values[range].iter().map(|&x| x as f32).collect()))
    }

    /// Writes an array of single precision whose elements `next(n)` delivers, the next `n` at each call.
    pub(crate) fn array_f32_by(
        &self,
        name: &str,
        shape: &[usize],
        mut next: impl FnMut(usize) -> Result<Vec<f32>>,
    ) -> Result<()> {
        self.array(name, shape, true, |range| next(range.len()))
    }

    /// Begins arrays of single precision and one shape, which grow row by row together, `at_once` rows at a time.
    ///
    /// # Errors
    /// [`Error::Io`], as for all others.
    pub fn growing_arrays(&self, names: &[&str], shape: [usize; 2], at_once: usize) -> Result<GrowingArrays> {
        let arrays = names.iter().map(|name| {
            let builder = self.file.new_dataset::<f32>().shape(shape);
            let builder = match shape[0] > at_once {
                true => builder.chunk(&[at_once, shape[1]]).shuffle_deflate(LEVEL),
                false => builder,
            };
            let dataset = self.check(builder.create(name))?;
            self.encode_dataset(&dataset, "array")?;
            Ok(dataset)
        });
        Ok(GrowingArrays { arrays: arrays.collect::<Result<_>>()?, width: shape[1], n_rows: 0 })
    }

    /// Begins a CSR matrix of single precision that grows cell by cell. Its entries wait in a file without a name beside this one: an array
    /// is created with its length.
    ///
    /// # Errors
    /// [`Error::Io`], as for all others.
    pub fn growing_counts(&self, n_genes: usize) -> Result<GrowingCounts> {
        let folder = self.temporary.parent().unwrap_or(Path::new("."));
        let waiting = || tempfile::tempfile_in(folder).map_err(|e| Error::io("writing", &self.path, e));
        let entries = BufWriter::with_capacity(1 << 16, waiting()?);
        Ok(GrowingCounts { entries, offsets: vec![0], n_genes })
    }

    /// Writes a CSR matrix that has grown.
    ///
    /// # Errors
    /// [`Error::Io`], as for all others.
    pub fn grown_counts(&self, name: &str, grown: GrowingCounts) -> Result<()> {
        let GrowingCounts { entries, offsets, n_genes } = grown;
        let failed = |e| Error::io("writing", &self.path, e);
        let mut entries = BufReader::with_capacity(1 << 16, entries.into_inner().map_err(|e| failed(e.into_error()))?);
        let group = self.new_group(name, "csr_matrix", "0.1.0")?;
        self.check(group.set_attr_array_numeric("shape", &[offsets.len() as i64 - 1, n_genes as i64]))?;
        let n = offsets[offsets.len() - 1] as usize;
        let mut part = |which: usize, range: std::ops::Range<usize>| -> Result<Vec<u32>> {
            entries.seek(SeekFrom::Start(8 * range.start as u64)).map_err(failed)?;
            let mut bytes = vec![0; 8 * range.len()];
            entries.read_exact(&mut bytes).map_err(failed)?;
            let pairs = bytes.as_chunks::<4>().0.iter().skip(which).step_by(2);
            Ok(pairs.map(|&bytes| u32::from_le_bytes(bytes)).collect())
        };
        self.array(&format!("{name}/data"), &[n], false, |range| {
            Ok(part(1, range)?.into_iter().map(|x| x as f32).collect())
        })?;
        self.array(&format!("{name}/indices"), &[n], false, |range| {
            Ok(part(0, range)?.into_iter().map(|gene| gene as i32).collect())
        })?;
        self.array(&format!("{name}/indptr"), &[offsets.len()], false, |range| Ok(offsets[range].to_vec()))
    }

    /// Writes an array that is held in single precision.
    pub fn array_single(&self, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        self.array(name, shape, true, |range| Ok(values[range].to_vec()))
    }

    /// Writes an array of double precision.
    pub fn array_f64(&self, name: &str, shape: &[usize], values: &[f64]) -> Result<()> {
        self.array(name, shape, true, |range| Ok(values[range].to_vec()))
    }

    /// Writes a text.
    pub fn string(&self, name: &str, text: &str) -> Result<()> {
        // A text without characters has no width; one zero byte stands for it.
        let bytes = if text.is_empty() { vec![0] } else { text.as_bytes().to_vec() };
        let datatype = DatatypeMessage::FixedString { size: bytes.len() as u32, padding: 1, charset: 1 };
        let dataset = self.check(self.file.new_dataset::<u8>().datatype(datatype).scalar().create(name))?;
        self.check(dataset.write_raw_bytes(&bytes))?;
        self.encode_dataset(&dataset, "string")
    }

    /// Writes a list of texts.
    pub fn strings<'a, S: AsRef<str> + ?Sized + 'a>(
        &self,
        name: &str,
        texts: impl IntoIterator<Item = &'a S>,
    ) -> Result<()> {
        let texts: Vec<&str> = texts.into_iter().map(AsRef::as_ref).collect();
        // A list of none must have no place in the file: HDF5 takes one of length 0 for damage.
        let dataset = match texts.is_empty() {
            true => {
                let text = DatatypeMessage::vlen_string_utf8();
                self.check(self.file.new_dataset::<u8>().datatype(text).shape([0]).create(name))?
            }
            false => self.check(self.file.write_vlen_strings(name, &texts))?,
        };
        self.encode_dataset(&dataset, "string-array")
    }

    /// Writes a table such as `obs`: the names of its rows, then its columns. A column without a name is left out.
    pub fn frame<'a, S: AsRef<str> + ?Sized + 'a>(
        &self,
        name: &str,
        index: impl IntoIterator<Item = &'a S>,
        columns: &[(String, FrameColumn)],
    ) -> Result<()> {
        self.frame_with_index(name, (None, index), columns)
    }

    /// As [`AnnDataWriter::frame`], with an index that may have a name.
    pub fn frame_with_index<'a, S: AsRef<str> + ?Sized + 'a>(
        &self,
        name: &str,
        (called, index): (Option<&str>, impl IntoIterator<Item = &'a S>),
        columns: &[(String, FrameColumn)],
    ) -> Result<()> {
        let group = self.new_group(name, "dataframe", "0.2.0")?;
        let taken = |name: &str| {
            let begins =
                |column: &str| column == name || column.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
            columns.iter().any(|(column, _)| begins(column))
        };
        let usable = |name: &&str| !name.is_empty() && *name != "." && !name.contains('/') && !taken(name);
        let mut index_name = called.filter(usable).unwrap_or("_index").to_owned();
        while taken(&index_name) {
            index_name.push('_');
        }
        self.strings(&format!("{name}/{index_name}"), index)?;
        self.check(group.set_attr_string("_index", &index_name))?;
        let within =
            |column: &str| column.match_indices('/').any(|(at, _)| columns.iter().any(|c| c.0 == column[..at]));
        let stored = |column: &str| can_be_stored(column) && !within(column);
        let columns: Vec<&(String, FrameColumn)> = columns.iter().filter(|(column, _)| stored(column)).collect();
        let order: Vec<&str> = columns.iter().map(|(column, _)| column.as_str()).collect();
        match order.is_empty() {
            // As AnnData writes an empty order: numbers, none of them.
            true => self.check(group.set_attr_array_numeric::<f64>("column-order", &[]))?,
            false => self.check(group.set_attr_string_array("column-order", &order))?,
        }
        let mut folders = std::collections::BTreeSet::new();
        for (column, values) in columns {
            // A slash in a name makes groups, as AnnData has it.
            for (at, _) in column.match_indices('/') {
                if folders.insert(&column[..at]) {
                    let path = format!("{name}/{}", &column[..at]);
                    let (parent, leaf) = path.rsplit_once('/').expect("a table is above");
                    self.check(self.group(parent)?.create_group(leaf))?;
                }
            }
            self.column(&format!("{name}/{column}"), values)?;
        }
        Ok(())
    }

    /// Writes a column, or the levels of one.
    fn column(&self, name: &str, values: &FrameColumn) -> Result<()> {
        match values {
            FrameColumn::Categorical(levels, codes) => {
                self.codes(name, levels.len(), codes, false)?;
                self.strings(&format!("{name}/categories"), levels)
            }
            FrameColumn::Levels(levels, codes, ordered) => {
                self.codes(name, levels.len(), codes, *ordered)?;
                self.column(&format!("{name}/categories"), levels)
            }
            FrameColumn::Strings(values) => self.strings(name, values),
            FrameColumn::Integers(values) => {
                self.array(name, &[values.len()], true, |range| Ok(values[range].to_vec()))
            }
            FrameColumn::Numbers(values) => self.array_f64(name, &[values.len()], values),
            FrameColumn::Flags(values) => self.flags(name, values),
            FrameColumn::Stored(width, values) => self.stored(name, *width, values),
            FrameColumn::Nullable(values, missing) => {
                let kind = match **values {
                    FrameColumn::Strings(_) => "nullable-string-array",
                    FrameColumn::Flags(_) => "nullable-boolean",
                    _ => "nullable-integer",
                };
                self.new_group(name, kind, "0.1.0")?;
                self.column(&format!("{name}/values"), values)?;
                self.flags(&format!("{name}/mask"), missing)
            }
        }
    }

    fn flags(&self, name: &str, values: &[bool]) -> Result<()> {
        self.array(name, &[values.len()], true, |range| Ok(values[range].iter().map(|&f| HBool::from(f)).collect()))
    }

    /// Writes numbers in the type that is asked for.
    fn stored(&self, name: &str, width: NumberWidth, values: &FrameColumn) -> Result<()> {
        let shape = [values.len()];
        macro_rules! cast {
            ($values:expr, $to:ty) => {
                self.array(name, &shape, true, |range| Ok($values[range].iter().map(|&x| x as $to).collect()))
            };
        }
        match (values, width) {
            (FrameColumn::Integers(values), NumberWidth::I8) => cast!(values, i8),
            (FrameColumn::Integers(values), NumberWidth::I16) => cast!(values, i16),
            (FrameColumn::Integers(values), NumberWidth::I32) => cast!(values, i32),
            (FrameColumn::Integers(values), NumberWidth::U8) => cast!(values, u8),
            (FrameColumn::Integers(values), NumberWidth::U16) => cast!(values, u16),
            (FrameColumn::Integers(values), NumberWidth::U32) => cast!(values, u32),
            (FrameColumn::Integers(values), NumberWidth::U64) => cast!(values, u64),
            (FrameColumn::Numbers(values), NumberWidth::F32) => cast!(values, f32),
            (values, _) => self.column(name, values),
        }
    }

    /// Writes the level of each row of a column of categories, whose levels follow.
    fn codes(&self, name: &str, n_levels: usize, codes: &[i64], ordered: bool) -> Result<()> {
        let group = self.new_group(name, "categorical", "0.2.0")?;
        self.check(group.set_attr_numeric("ordered", &HBool::from(ordered)))?;
        let (name, shape) = (format!("{name}/codes"), [codes.len()]);
        match n_levels {
            0..128 => self.array(&name, &shape, true, |range| Ok(codes[range].iter().map(|&c| c as i8).collect())),
            128..32_768 => {
                self.array(&name, &shape, true, |range| Ok(codes[range].iter().map(|&c| c as i16).collect()))
            }
            _ => self.array(&name, &shape, true, |range| Ok(codes[range].iter().map(|&c| c as i32).collect())),
        }
    }

    /// Writes counts as a CSR matrix of single precision (double where a count needs it), a block at a time.
    pub fn counts(&self, name: &str, counts: &ScreenCounts) -> Result<()> {
        let group = self.new_group(name, "csr_matrix", "0.1.0")?;
        let shape = [counts.n_cells() as i64, counts.n_genes() as i64];
        self.check(group.set_attr_array_numeric("shape", &shape))?;
        let n = counts.n_nonzero();
        let mut offsets = vec![0i64];
        let mut largest = 0;
        let all: Vec<usize> = (0..counts.n_cells()).collect();
        counts.visit(&all, |cell, row| {
            offsets.push(offsets[cell] + row.len() as i64);
            row.for_each(|_, x| largest = largest.max(x));
        })?;
        let wide = n > i32::MAX as usize;
        let indptr = format!("{name}/indptr");
        match wide {
            true => self.array(&indptr, &[offsets.len()], false, |range| Ok(offsets[range].to_vec()))?,
            false => self.array(&indptr, &[offsets.len()], false, |range| {
                Ok(offsets[range].iter().map(|&at| at as i32).collect())
            })?,
        }
        let name_of = |part: &str| format!("{name}/{part}");
        match wide {
            true => self.array(&name_of("indices"), &[n], false, entries(counts, |g, _| g as i64))?,
            false => self.array(&name_of("indices"), &[n], false, entries(counts, |g, _| g as i32))?,
        }
        // Whole numbers up to 2^24 are exact in single precision.
        match largest > 1 << 24 {
            true => self.array(&name_of("data"), &[n], false, entries(counts, |_, x| f64::from(x))),
            false => self.array(&name_of("data"), &[n], false, entries(counts, |_, x| x as f32)),
        }
    }

    /// Completes the file: flushed to the disk, then renamed into place.
    ///
    /// # Errors
    /// [`Error::Io`]; a file that was there before is then untouched.
    pub fn finish(self) -> Result<()> {
        let Self { path, temporary, file, .. } = self;
        let failed = |e: std::io::Error| Error::io("writing", &path, e);
        file.close().map_err(|e| failed(std::io::Error::other(e)))?;
        std::fs::File::open(&temporary).and_then(|file| file.sync_all()).map_err(failed)?;
        temporary.persist(&path).map_err(|e| failed(e.error))?;
        #[cfg(unix)]
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(())
    }
}

/// Whether HDF5 can hold a column of that name: each part between slashes is one of its names.
fn can_be_stored(column: &str) -> bool {
    column.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// Arrays that grow row by row, all by as many.
pub struct GrowingArrays {
    arrays: Vec<H5Dataset>,
    width: usize,
    n_rows: usize,
}

impl GrowingArrays {
    /// Appends rows to each array of `file`; all but the last ones are as many as was said at the beginning.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn push(&mut self, file: &AnnDataWriter, blocks: &[Vec<f32>]) -> Result<()> {
        let n = blocks[0].len() / self.width;
        for (array, values) in self.arrays.iter().zip(blocks) {
            file.check(array.write_slice(&[self.n_rows, 0], &[n, self.width], values))?;
        }
        self.n_rows += n;
        Ok(())
    }
}

/// A CSR matrix that grows cell by cell.
pub struct GrowingCounts {
    /// Gene and count of each entry.
    entries: BufWriter<File>,
    /// Where the entries of each cell begin.
    offsets: Vec<i64>,
    n_genes: usize,
}

impl GrowingCounts {
    /// Appends cells.
    ///
    /// # Errors
    /// Those of the file that entries wait in.
    pub fn push(&mut self, counts: &Counts) -> std::io::Result<()> {
        for n in 0..counts.n_cells() {
            let row = counts.row(n);
            self.offsets.push(self.offsets[self.offsets.len() - 1] + row.len() as i64);
            let mut bytes = Vec::with_capacity(8 * row.len());
            row.for_each(|gene, x| {
                bytes.extend((gene as u32).to_le_bytes());
                bytes.extend(x.to_le_bytes());
            });
            self.entries.write_all(&bytes)?;
        }
        Ok(())
    }
}

/// Delivers the stored entries of `counts` in order, range after range.
fn entries<T>(
    counts: &ScreenCounts,
    of: impl Fn(usize, u32) -> T,
) -> impl FnMut(std::ops::Range<usize>) -> Result<Vec<T>> {
    let (mut cell, mut left) = (0, Vec::new());
    // Of counts on disk, the window that is in memory and its first cell.
    let (mut window, mut first) = (Counts::default(), 0);
    move |range| {
        let mut out: Vec<T> = std::mem::take(&mut left);
        out.reserve(range.len().saturating_sub(out.len()));
        while out.len() < range.len() {
            let held = match counts {
                ScreenCounts::InMemory(counts) => counts,
                ScreenCounts::OnDisk(disk) => {
                    if cell == first + window.n_cells() {
                        window = Counts::default();
                        first = cell;
                        let cells: Vec<usize> = (first..(first + disk.window_cells()).min(disk.n_cells())).collect();
                        window = disk.read(&cells)?;
                    }
                    &window
                }
            };
            held.row(cell - first).for_each(|g, x| out.push(of(g, x)));
            cell += 1;
        }
        left = out.split_off(range.len());
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_order_whatever_the_blocks() {
        let counts = Counts::from_dense(3, &[1, 0, 2, 0, 0, 0, 3, 4, 5, 0, 6, 0]).into();
        for block in 1..8 {
            let mut next = entries(&counts, |g, x| (g, x));
            let mut all = Vec::new();
            for start in (0..6).step_by(block) {
                all.extend(next(start..(start + block).min(6)).expect("in memory"));
            }
            assert_eq!(all, [(0, 1), (2, 2), (0, 3), (1, 4), (2, 5), (1, 6)]);
        }
    }

    #[test]
    fn the_same_contents_give_the_same_bytes_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = 7u32;
        let table: Vec<u32> = (0..300 * 40)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 28).saturating_sub(8)
            })
            .collect();
        let counts = Counts::from_dense(40, &table).into();
        let names = |n: usize| (0..n).map(|i| format!("n\u{e4}me_{i}")).collect::<Vec<_>>();
        let write = |name: &str| {
            let path = folder.path().join(name);
            let file = AnnDataWriter::create(&path).expect("created");
            file.counts("X", &counts).expect("counts");
            let codes = (0..300).map(|n| n % 3 - 1).collect();
            let columns = [
                ("kind".to_owned(), FrameColumn::Categorical(vec!["a".into(), "b".into()], codes)),
                ("flag".to_owned(), FrameColumn::Flags((0..300).map(|n| n % 2 == 0).collect())),
                ("a/b".to_owned(), FrameColumn::Integers(vec![0; 300])),
            ];
            file.frame("obs", &names(300), &columns).expect("obs");
            file.frame("var", &names(40), &[]).expect("var");
            file.dict("uns/svae").expect("a group");
            file.string("uns/svae/config", "").expect("text");
            file.array_f32("obsm/X_svae", &[300, 5], &[0.5; 1500]).expect("latents");
            file.finish().expect("finished");
            std::fs::read(path).expect("written")
        };
        assert_eq!(write("a.h5ad"), write("b.h5ad"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2);
    }
}
