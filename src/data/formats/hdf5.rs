//! HDF5 files, opened with distrust: the module through which every reader of them goes. Names errors by file and place.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rust_hdf5::{DatatypeMessage, H5Dataset, H5File, H5Group, Hdf5Error, LinkClass};

use crate::data::counts::row_source::{CellSink, RowSource};
use crate::data::formats::column::Column;
use crate::data::formats::counts_sink::{BLOCK, CountsSink, SparseBlock, check_indptr, push_dense, read_csc, read_csr};
use crate::data::formats::hdf5_attributes::{TextList, text_list};
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::system::files::open_input;

/// DEFLATE cannot expand by more than this factor, so a shape that promises more is lying. No other filter comes close.
const MAX_EXPANSION: u64 = 1032;
/// Values of a dense matrix converted at a time, at most, however it is chunked.
const MOST_AT_ONCE: usize = 1 << 24;
/// Bytes of a chunk, at most, where the data set itself is smaller.
const MOST_CHUNK: u64 = 1 << 26;
/// Values looked at to tell what a matrix holds, at each of two places.
const SAMPLE: usize = 1 << 15;

/// Endings of the names of HDF5 files.
pub(crate) const HDF5_ENDINGS: [&str; 4] = [".h5ad", ".h5", ".hdf5", ".h5mu"];

/// An open HDF5 file.
pub(crate) struct Hdf5 {
    path: PathBuf,
    file: H5File,
    /// Bytes of the file.
    length: u64,
    /// The group that paths begin at; empty for the whole file.
    root: String,
}

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// A table.
    Dense,
    /// Compressed rows: the rows of the table one after another.
    Rows,
    /// Compressed columns.
    Columns,
}

/// A matrix of a file, cells x genes, that has been found but not read.
pub(crate) struct Matrix {
    /// Path within the file.
    pub name: String,
    pub storage: Storage,
}

/// What a matrix is made of, for `inspect`.
pub(crate) struct MatrixFacts {
    pub dtype: String,
    pub compression: Option<String>,
    /// Stored values of a sparse matrix.
    pub n_stored: Option<usize>,
}

impl Hdf5 {
    /// Opens `path`.
    ///
    /// # Errors
    /// [`InputError`] if the file is absent or no HDF5 file.
    pub fn open(path: &Path) -> Result<Self> {
        let length = open_input(path)?.metadata().map_or(0, |m| m.len());
        let file = H5File::options().best_effort_locking().open(path).map_err(|e| {
            InputError::new(
                format!("this is not a readable HDF5 file ({e})"),
                "copy or write the file again, it is damaged or of another kind",
            )
            .in_file(path)
        })?;
        Ok(Self { path: path.to_path_buf(), file, length, root: String::new() })
    }

    /// Opens `path` for what lies in the group `root`: paths begin there.
    ///
    /// # Errors
    /// As [`Hdf5::open`].
    pub fn open_within(path: &Path, root: &str) -> Result<Self> {
        Ok(Self { root: root.to_owned(), ..Self::open(path)? })
    }

    /// The group that paths begin at.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Path in the file of what is called `name` here.
    fn full(&self, name: &str) -> String {
        match (self.root.as_str(), name) {
            ("", name) => name.to_owned(),
            (root, "") => root.to_owned(),
            (root, name) => format!("{root}/{name}"),
        }
    }

    /// A path within the file as Python would write it.
    pub fn place(&self, name: &str) -> String {
        match self.root.split_once('/') {
            Some((outer, inner)) => format!("{outer}[\"{inner}\"].{}", place(name)),
            None => place(name),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A fault at `name`, a path within the file.
    pub fn fault(&self, name: &str, problem: impl Into<String>, remedy: impl Into<String>) -> InputError {
        InputError::new(problem, remedy).in_file(&self.path).at(self.place(name))
    }

    fn damaged(&self, name: &str, error: Hdf5Error) -> InputError {
        self.fault(name, format!("it cannot be read ({error})"), "copy or write the file again")
    }

    /// A group, or `None` if there is no group of that name.
    pub fn group(&self, name: &str) -> Option<H5Group> {
        let mut group = self.file.root_group();
        for part in self.full(name).split('/').filter(|part| !part.is_empty()) {
            group = group.group(part).ok()?;
        }
        Some(group)
    }

    /// Names of what lies in a group, sorted; none if there is no such group.
    pub fn children(&self, name: &str) -> Result<Vec<String>> {
        let Some(group) = self.group(name) else { return Ok(Vec::new()) };
        let failed = |e| self.damaged(name, e);
        let mut names = group.dataset_names().map_err(failed)?;
        names.extend(group.group_names().map_err(failed)?);
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// A text attribute of a group or of a data set.
    pub fn attribute(&self, name: &str, attribute: &str) -> Option<String> {
        match self.group(name) {
            Some(group) => group.attr_string(attribute).ok(),
            None => self.file.dataset(&self.full(name)).ok()?.attr(attribute).ok()?.read_string().ok(),
        }
    }

    /// An attribute of a group that is a list of texts, if it has one that can be read.
    pub fn text_list(&self, group: &str, attribute: &str) -> Option<Vec<String>> {
        match text_list(&self.path, &self.full(group), attribute)? {
            TextList::Texts(texts) => Some(texts),
            TextList::References(references, n) => {
                let texts = heap_texts(&self.path, &references, n).ok()??;
                Some(texts.iter().map(str::to_owned).collect())
            }
        }
    }

    /// Whether there is a data set of that name.
    pub fn has_dataset(&self, name: &str) -> bool {
        self.file.dataset(&self.full(name)).is_ok()
    }

    /// A data set whose size is plausible, or `None` if there is none of that name.
    pub fn dataset(&self, name: &str) -> Result<Option<H5Dataset>> {
        let dataset = match self.file.dataset(&self.full(name)) {
            Ok(dataset) => dataset,
            Err(Hdf5Error::NotFound(_)) => return Ok(None),
            Err(e) => return Err(self.damaged(name, e).into()),
        };
        let shape = dataset.shape();
        let bytes = shape.iter().try_fold(dataset.element_size() as u64, |bytes, &d| bytes.checked_mul(d as u64));
        let compressed = dataset.filters().map_or(true, |filters| !filters.is_empty());
        let most = match compressed {
            true => self.length.saturating_mul(MAX_EXPANSION),
            false => self.length,
        };
        // A little is granted: small data sets are stored in headers and chunks of their own.
        let most = most.saturating_add(1 << 20);
        let lies = |what: &str, shape: &[usize]| {
            let problem = format!("its {what} {shape:?} promises more than the file can hold");
            self.fault(name, problem, "the file is damaged, copy or write it again")
        };
        let Some(bytes) = bytes.filter(|&bytes| bytes <= most) else { return Err(lies("shape", &shape).into()) };
        if let Some(chunk) = dataset.chunk_dims() {
            let size = chunk.iter().try_fold(dataset.element_size() as u64, |size, &d| size.checked_mul(d as u64));
            if size.is_none_or(|size| size > most.min(bytes.max(MOST_CHUNK))) {
                return Err(lies("chunk", &chunk).into());
            }
        }
        Ok(Some(dataset))
    }

    /// A data set that must be there.
    pub fn required(&self, name: &str) -> Result<H5Dataset> {
        Ok(self.dataset(name)?.ok_or_else(|| self.fault(name, "it is missing", "write the file again"))?)
    }

    /// A one-dimensional data set that must be there.
    pub fn vector(&self, name: &str) -> Result<H5Dataset> {
        let dataset = self.required(name)?;
        match dataset.shape()[..] {
            [_] => Ok(dataset),
            ref shape => {
                Err(self.fault(name, format!("it has shape {shape:?}, not one axis"), "write the file again").into())
            }
        }
    }

    /// Type of the elements.
    pub fn datatype(&self, name: &str, dataset: &H5Dataset) -> Result<DatatypeMessage> {
        Ok(dataset.datatype().map_err(|e| self.damaged(name, e))?)
    }

    /// Part of a numeric data set, from any type that holds numbers, converted to `f64`.
    pub fn numbers(&self, name: &str, dataset: &H5Dataset, starts: &[usize], counts: &[usize]) -> Result<Vec<f64>> {
        let failed = |e| self.damaged(name, e);
        Ok(match self.datatype(name, dataset)? {
            DatatypeMessage::FloatingPoint { .. } => {
                dataset.read_numeric_slice_as::<f64>(starts, counts).map_err(failed)?
            }
            DatatypeMessage::FixedPoint { .. } => {
                let values = dataset.read_numeric_slice_as::<i64>(starts, counts).map_err(failed)?;
                values.into_iter().map(|x| x as f64).collect()
            }
            ref flags if is_flag(flags) => {
                let values = dataset.read_slice::<u8>(starts, counts).map_err(failed)?;
                values.into_iter().map(|x| x as f64).collect()
            }
            other => return Err(self.not_numeric(name, &other).into()),
        })
    }

    /// A whole integer vector.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let dataset = self.vector(name)?;
        let datatype = self.datatype(name, &dataset)?;
        if !matches!(datatype, DatatypeMessage::FixedPoint { .. }) {
            return Err(self.not_numeric(name, &datatype).into());
        }
        Ok(dataset.read_numeric_as::<i64>().map_err(|e| self.damaged(name, e))?)
    }

    fn not_numeric(&self, name: &str, datatype: &DatatypeMessage) -> InputError {
        self.fault(name, format!("numbers were expected, it holds {datatype}"), "check how it was written")
    }

    /// A whole text vector; bytes that are no UTF-8 are an error, whatever character set the file declares.
    pub fn strings(&self, name: &str) -> Result<Vec<String>> {
        let dataset = self.vector(name)?;
        let datatype = self.datatype(name, &dataset)?;
        if !is_text(&datatype) {
            return Err(self
                .fault(name, format!("text was expected, it holds {datatype}"), "check how it was written")
                .into());
        }
        self.texts(name, &dataset)
    }

    /// As [`Hdf5::strings`], in few bytes; `None` if it is no plain text.
    pub fn names(&self, name: &str) -> Result<Option<Names>> {
        let dataset = self.vector(name)?;
        let datatype = self.datatype(name, &dataset)?;
        if !is_text(&datatype) {
            return Ok(None);
        }
        match self.heap_texts(name, &dataset) {
            Some(names) => Ok(Some(names)),
            None => Ok(Some(self.library_texts(name, &dataset)?.into())),
        }
    }

    /// Texts of variable length, where [`heap_texts`] can read them.
    fn heap_texts(&self, name: &str, dataset: &H5Dataset) -> Option<Names> {
        let &[n] = &dataset.shape()[..] else { return None };
        if !matches!(dataset.datatype(), Ok(DatatypeMessage::VarLenString { .. })) || !self.is_here(name) {
            return None;
        }
        heap_texts(&self.path, &dataset.read_raw_bytes().ok()?, n).ok()?
    }

    /// Whether no part of a path is a link to somewhere else.
    fn is_here(&self, name: &str) -> bool {
        let mut group = self.file.root_group();
        let name = self.full(name);
        let mut parts = name.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            if !matches!(group.link_class(part), Ok(LinkClass::Hard)) {
                return false;
            }
            if parts.peek().is_some() {
                match group.group(part) {
                    Ok(inner) => group = inner,
                    Err(_) => return false,
                }
            }
        }
        true
    }

    fn texts(&self, name: &str, dataset: &H5Dataset) -> Result<Vec<String>> {
        match self.heap_texts(name, dataset) {
            Some(names) => Ok(names.iter().map(str::to_owned).collect()),
            None => self.library_texts(name, dataset),
        }
    }

    fn library_texts(&self, name: &str, dataset: &H5Dataset) -> Result<Vec<String>> {
        // A declared character set is often wrong (ASCII for UTF-8), so the bytes alone decide.
        let texts = dataset.read_strings_lossy().map_err(|e| self.damaged(name, e))?;
        if let Some(n) = texts.iter().position(|text| text.contains(char::REPLACEMENT_CHARACTER)) {
            return Err(self.not_unicode(name, n).into());
        }
        Ok(texts)
    }

    fn not_unicode(&self, name: &str, n: usize) -> InputError {
        self.fault(name, format!("entry {n} is not valid UTF-8"), "store text as UTF-8")
    }

    /// A whole vector of any type that annotations have.
    pub fn plain_column(&self, name: &str) -> Result<Column> {
        let dataset = self.vector(name)?;
        let failed = |e| self.damaged(name, e);
        Ok(match self.datatype(name, &dataset)? {
            DatatypeMessage::FixedPoint { .. } => Column::Integers(dataset.read_numeric_as::<i64>().map_err(failed)?),
            DatatypeMessage::FloatingPoint { .. } => Column::Numbers(dataset.read_numeric_as::<f64>().map_err(failed)?),
            ref text if is_text(text) => Column::Strings(self.texts(name, &dataset)?),
            ref flags if is_flag(flags) => {
                let flags = dataset.read_raw::<u8>().map_err(failed)?;
                Column::Flags(flags.into_iter().map(|flag| flag != 0).collect())
            }
            other => return Err(self.unread_type(name, &other).into()),
        })
    }

    fn unread_type(&self, name: &str, datatype: &DatatypeMessage) -> InputError {
        self.fault(name, format!("columns of type {datatype} are not read"), "convert it to text or numbers")
    }

    /// Names of the fields of a table stored as records, as AnnData 0.6 and older did; `None` if it is no such table.
    pub fn record_fields(&self, name: &str) -> Option<Vec<String>> {
        match self.file.dataset(&self.full(name)).ok()?.datatype().ok()? {
            DatatypeMessage::Compound { members, .. } => Some(members.into_iter().map(|member| member.name).collect()),
            _ => None,
        }
    }

    /// One field of a table stored as records.
    pub fn record_column(&self, table: &str, field: &str) -> Result<Column> {
        let dataset = self.vector(table)?;
        let name = format!("{table}/{field}");
        let DatatypeMessage::Compound { size, members } = self.datatype(table, &dataset)? else {
            return Err(self.fault(table, "it is no table", "write the file again").into());
        };
        let member = members
            .into_iter()
            .find(|member| member.name == field)
            .ok_or_else(|| self.fault(&name, "it is missing", "check the name of the column"))?;
        let (size, from) = (size as usize, member.offset as usize);
        let width = member.datatype.element_size() as usize;
        if size == 0 || width == 0 || from.checked_add(width).is_none_or(|end| end > size) {
            return Err(self.fault(&name, "it reaches past its record", "the file is damaged, write it again").into());
        }
        let bytes = dataset.read_raw_bytes().map_err(|e| self.damaged(table, e))?;
        let entries = bytes.chunks_exact(size).map(|record| &record[from..from + width]);
        let little = |entry: &[u8], order: rust_hdf5::ByteOrder| -> [u8; 8] {
            let mut wide = [0; 8];
            wide[..entry.len()].copy_from_slice(entry);
            if order == rust_hdf5::ByteOrder::BigEndian {
                wide[..entry.len()].reverse();
            }
            wide
        };
        Ok(match member.datatype {
            DatatypeMessage::FixedPoint { byte_order, signed, .. } if width <= 8 => {
                let shift = if signed { 64 - 8 * width as u32 } else { 0 };
                let value = |entry| (i64::from_le_bytes(little(entry, byte_order)) << shift) >> shift;
                Column::Integers(entries.map(value).collect())
            }
            DatatypeMessage::FloatingPoint { byte_order, .. } if width == 4 || width == 8 => {
                let value = |entry| match width {
                    4 => f32::from_bits(u64::from_le_bytes(little(entry, byte_order)) as u32) as f64,
                    _ => f64::from_le_bytes(little(entry, byte_order)),
                };
                Column::Numbers(entries.map(value).collect())
            }
            DatatypeMessage::FixedString { padding, .. } => {
                let mut texts = Vec::new();
                for (n, entry) in entries.enumerate() {
                    let end = entry.iter().position(|&byte| byte == 0).unwrap_or(width);
                    let text = std::str::from_utf8(&entry[..end]).map_err(|_| self.not_unicode(&name, n))?;
                    texts.push(if padding == 2 { text.trim_end_matches(' ') } else { text }.to_string());
                }
                Column::Strings(texts)
            }
            ref flags if is_flag(flags) => Column::Flags(entries.map(|entry| entry[0] != 0).collect()),
            other => {
                return Err(self
                    .fault(
                        &name,
                        format!("fields of type {other} in a table of records are not read"),
                        "open the file with AnnData 0.7 or newer and write it again",
                    )
                    .into());
            }
        })
    }

    /// A numeric table (two axes), whole.
    pub fn table(&self, name: &str) -> Result<Option<(Vec<usize>, Vec<f64>)>> {
        let Some(dataset) = self.dataset(name)? else { return Ok(None) };
        let shape = dataset.shape();
        if shape.len() != 2 || shape.contains(&0) {
            return Ok(Some((shape, Vec::new())));
        }
        let values = self.numbers(name, &dataset, &[0, 0], &shape)?;
        Ok(Some((shape, values)))
    }

    /// Passes every cell of a matrix to `sink`.
    pub fn read_matrix(&self, matrix: &Matrix, sink: &mut CountsSink) -> Result<()> {
        let name = &matrix.name;
        let (n_cells, n_genes) = (sink.n_cells(), sink.n_genes());
        if matrix.storage == Storage::Dense {
            let x = self.required(name)?;
            if x.shape() != [n_cells, n_genes] {
                return Err(sink
                    .fault(
                        format!("it has shape {:?} for {n_cells} cells and {n_genes} genes", x.shape()),
                        "write the file again",
                    )
                    .into());
            }
            let width = (x.element_size() * n_genes) as u64;
            sink.expect_bytes(width * n_cells as u64);
            let rows = whole_chunks(BLOCK / n_genes, chunk_length(&x)).min(n_cells);
            if let Some(&[tall, wide]) = x.chunk_dims().as_deref()
                && rows * n_genes > MOST_AT_ONCE
                && wide < n_genes
            {
                return self.read_tiles(name, &x, tall, wide, sink);
            }
            for start in (0..n_cells).step_by(rows) {
                let n = rows.min(n_cells - start);
                push_dense(sink, n_genes, &self.numbers(name, &x, &[start, 0], &[n, n_genes])?)?;
                sink.advance(n as u64 * width);
            }
            return Ok(());
        }
        self.read_sparse(name, matrix.storage, sink)
    }

    /// Passes a dense matrix to `sink` by its chunks, which are too tall for rows to be read in order.
    fn read_tiles(&self, name: &str, x: &H5Dataset, tall: usize, wide: usize, sink: &mut CountsSink) -> Result<()> {
        let (n_cells, n_genes) = (sink.n_cells(), sink.n_genes());
        sink.expect_bytes(2 * (x.element_size() * n_genes * n_cells) as u64);
        sink.receive_unordered(|sink, entry| {
            for first_cell in (0..n_cells).step_by(tall.max(1)) {
                for first_gene in (0..n_genes).step_by(wide.max(1)) {
                    let (rows, columns) = (tall.min(n_cells - first_cell), wide.min(n_genes - first_gene));
                    let values = self.numbers(name, x, &[first_cell, first_gene], &[rows, columns])?;
                    for (row, values) in values.chunks_exact(columns).enumerate() {
                        for (column, &value) in values.iter().enumerate().filter(|(_, value)| **value != 0.0) {
                            entry((first_cell + row) as i64, (first_gene + column) as i64, value)?;
                        }
                    }
                    sink.advance((x.element_size() * rows * columns) as u64);
                }
            }
            Ok(())
        })
    }

    /// Passes a sparse matrix to `sink`.
    pub fn read_sparse(&self, name: &str, storage: Storage, sink: &mut CountsSink) -> Result<()> {
        let [indptr_name, data_name, indices_name] = ["indptr", "data", "indices"].map(|part| format!("{name}/{part}"));
        let n_major = if storage == Storage::Rows { sink.n_cells() } else { sink.n_genes() };
        let n_pointers = self.vector(&indptr_name)?.shape()[0];
        if n_pointers != n_major + 1 {
            let what = if storage == Storage::Rows { "cells" } else { "genes" };
            return Err(sink
                .fault(
                    format!("`indptr` has {n_pointers} values for {n_major} {what}"),
                    "the sparse matrix is damaged, write the file again",
                )
                .into());
        }
        let indptr = self.integers(&indptr_name)?;
        let (data, indices) = (self.vector(&data_name)?, self.vector(&indices_name)?);
        let n_stored = data.shape()[0];
        if indices.shape()[0] != n_stored {
            return Err(sink
                .fault(
                    format!("there are {n_stored} values but {} indices", indices.shape()[0]),
                    "the sparse matrix is damaged, write the file again",
                )
                .into());
        }
        check_indptr(sink, &indptr, n_stored, storage == Storage::Rows)?;
        let datatype = self.datatype(&indices_name, &indices)?;
        if !matches!(datatype, DatatypeMessage::FixedPoint { .. }) {
            return Err(self.not_numeric(&indices_name, &datatype).into());
        }
        let width = (data.element_size() + indices.element_size()) as u64;
        let passes = if storage == Storage::Rows { 1 } else { 2 };
        sink.expect_bytes(passes * width * n_stored as u64);
        let chunk = chunk_length(&data).max(chunk_length(&indices));
        let block = whole_chunks(BLOCK, chunk).min(n_stored).max(1);
        let next: SparseBlock = &mut |range, minor, values, advance| {
            let (start, n) = ([range.start], [range.len()]);
            *values = self.numbers(&data_name, &data, &start, &n)?;
            *minor = indices.read_numeric_slice_as::<i64>(&start, &n).map_err(|e| self.damaged(&indices_name, e))?;
            *advance = n[0] as u64 * width;
            Ok(())
        };
        match storage {
            Storage::Rows => read_csr(sink, &indptr, n_stored, block, next),
            _ => read_csc(sink, &indptr, n_stored, block, next),
        }
    }

    /// Type, compression and size of a matrix.
    pub fn matrix_facts(&self, matrix: &Matrix) -> Result<MatrixFacts> {
        let values = self.values_name(matrix);
        let dataset = self.required(&values)?;
        let compression = dataset.filters().ok().map(|filters| {
            let names: Vec<String> = filters.iter().map(|filter| filter_name(filter.id)).collect();
            names.join("+")
        });
        let dense = matrix.storage == Storage::Dense;
        Ok(MatrixFacts {
            dtype: dtype_name(&self.datatype(&values, &dataset)?),
            compression: compression.filter(|names| !names.is_empty()),
            n_stored: (!dense).then(|| dataset.shape().iter().product()),
        })
    }

    fn values_name(&self, matrix: &Matrix) -> String {
        match matrix.storage {
            Storage::Dense => matrix.name.clone(),
            _ => format!("{}/data", matrix.name),
        }
    }

    /// Some values of a matrix, from its start and its middle.
    pub fn sample(&self, matrix: &Matrix) -> Result<Vec<f64>> {
        let name = self.values_name(matrix);
        let dataset = self.required(&name)?;
        let shape = dataset.shape();
        if shape.is_empty() || shape.contains(&0) {
            return Ok(Vec::new());
        }
        let width: usize = shape[1..].iter().product();
        let rows = (SAMPLE / width).clamp(1, shape[0]);
        let mut values = Vec::new();
        for start in [0, (shape[0] - rows) / 2] {
            let mut starts = vec![0; shape.len()];
            starts[0] = start;
            let mut counts = shape.clone();
            counts[0] = rows;
            values.extend(self.numbers(&name, &dataset, &starts, &counts)?);
        }
        Ok(values)
    }
}

/// Reads rows of a matrix of an HDF5 file.
pub(crate) struct RowReader {
    hdf5: Hdf5,
    layout: RowLayout,
    n_genes: usize,
}

enum RowLayout {
    /// `indptr` says which are the stored entries of a row.
    Sparse {
        indptr: Pointers,
        data: Elements,
        indices: Elements,
    },
    Dense(Elements),
}

/// A numeric data set whose elements are read in the type that they are stored in, where that is a usual one.
struct Elements {
    name: String,
    dataset: H5Dataset,
    native: Option<Native>,
    /// Length of a chunk along the first axis; 1 where there are none.
    chunk: usize,
    compressed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Native {
    F32,
    F64,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
}

/// Entries that are read and passed over rather than skipped, where nothing is compressed.
const SHORT_GAP: usize = 1 << 12;
/// What a value that is no count means in a file that was checked before.
const CHANGED: &str = "it holds values that it did not hold when the run began";

impl RowReader {
    /// A reader of `matrix` of a file, opened anew, which has `n_genes` columns.
    ///
    /// # Errors
    /// As [`Hdf5::open`]; [`InputError`] if the matrix is stored by columns.
    pub fn open(file: &Hdf5, matrix: &Matrix, n_genes: usize) -> Result<Self> {
        let hdf5 = Hdf5::open_within(file.path(), file.root())?;
        let name = &matrix.name;
        let layout = match matrix.storage {
            Storage::Dense => RowLayout::Dense(Elements::find(&hdf5, name)?),
            Storage::Rows => RowLayout::Sparse {
                indptr: Pointers::new(hdf5.integers(&format!("{name}/indptr"))?),
                data: Elements::find(&hdf5, &format!("{name}/data"))?,
                indices: Elements::find(&hdf5, &format!("{name}/indices"))?,
            },
            Storage::Columns => {
                let problem = "the counts are stored by gene (CSC), so the counts of a cell lie all over the file";
                // Raw counts cannot be set in place.
                let (from, to) = match name.starts_with("raw") {
                    true => ("raw.X".to_string(), "layers[\"counts\"]".to_string()),
                    false => (place(name), place(name)),
                };
                let remedy =
                    format!("store them by cell (in Python: adata.{to} = adata.{from}.tocsr()), or leave out --stream");
                return Err(hdf5.fault(name, problem, remedy).into());
            }
        };
        Ok(Self { hdf5, layout, n_genes })
    }
}

impl RowSource for RowReader {
    fn n_genes(&self) -> usize {
        self.n_genes
    }

    fn has_rows(&self, n_rows: usize) -> bool {
        match &self.layout {
            RowLayout::Sparse { indptr, data, indices } => {
                let stored = data.dataset.shape();
                indptr.n_rows() == Some(n_rows)
                    && indptr.ascend()
                    && stored.len() == 1
                    && stored == indices.dataset.shape()
                    && indptr.at(n_rows) == stored[0]
            }
            RowLayout::Dense(table) => table.dataset.shape() == [n_rows, self.n_genes],
        }
    }

    fn n_stored(&self, n_rows: usize) -> usize {
        match &self.layout {
            RowLayout::Sparse { indptr, .. } if indptr.n_rows() >= Some(n_rows) => indptr.at(n_rows),
            RowLayout::Sparse { .. } => 0,
            RowLayout::Dense(_) => n_rows * self.n_genes,
        }
    }

    fn n_entries(&self, rows: &[usize]) -> Option<usize> {
        match &self.layout {
            RowLayout::Sparse { indptr, .. } => Some(rows.iter().map(|&n| indptr.at(n + 1) - indptr.at(n)).sum()),
            RowLayout::Dense(_) => None,
        }
    }

    fn compressed_together(&self) -> usize {
        let length = |elements: &Elements| if elements.compressed { elements.chunk } else { 1 };
        match &self.layout {
            RowLayout::Sparse { data, indices, .. } => length(data).max(length(indices)),
            RowLayout::Dense(table) if table.compressed => table.chunk.saturating_mul(self.n_genes),
            RowLayout::Dense(_) => 1,
        }
    }

    fn bytes(&self) -> usize {
        match &self.layout {
            RowLayout::Sparse { indptr, .. } => indptr.bytes(),
            RowLayout::Dense(_) => 0,
        }
    }

    fn read(&self, rows: &[usize], cell: CellSink) -> Result<()> {
        let (mut genes, mut counts) = (Vec::new(), Vec::new());
        match &self.layout {
            RowLayout::Sparse { indptr, data, indices } => {
                let chunk = data.chunk.max(indices.chunk);
                let gap = if data.compressed || indices.compressed { chunk.max(SHORT_GAP) } else { SHORT_GAP };
                let most = BLOCK.max(chunk.saturating_mul(8));
                let range = |n: usize| indptr.at(n)..indptr.at(n + 1);
                let mut next = 0;
                while next < rows.len() {
                    let start = range(rows[next]).start;
                    let mut end = range(rows[next]).end;
                    let mut last = next + 1;
                    while let Some(following) = rows.get(last).map(|&n| range(n))
                        && following.start - end <= gap
                        && following.end - start <= most
                    {
                        end = following.end;
                        last += 1;
                    }
                    indices.numbers(&self.hdf5, &[start], &[end - start], self.n_genes, &mut genes)?;
                    data.numbers(&self.hdf5, &[start], &[end - start], usize::MAX, &mut counts)?;
                    for &n in &rows[next..last] {
                        let entries = range(n).start - start..range(n).end - start;
                        cell(&genes[entries.clone()], &counts[entries])?;
                    }
                    next = last;
                }
            }
            RowLayout::Dense(table) => {
                genes.extend(0..self.n_genes as u32);
                let most = (BLOCK / self.n_genes.max(1)).max(table.chunk).max(1);
                let gap = if table.compressed { table.chunk } else { 0 };
                let mut next = 0;
                while next < rows.len() {
                    let start = rows[next];
                    let mut last = next + 1;
                    while let Some(&following) = rows.get(last)
                        && following - rows[last - 1] - 1 <= gap
                        && following - start < most
                    {
                        last += 1;
                    }
                    let n = rows[last - 1] + 1 - start;
                    table.numbers(&self.hdf5, &[start, 0], &[n, self.n_genes], usize::MAX, &mut counts)?;
                    for &row in &rows[next..last] {
                        cell(&genes, &counts[(row - start) * self.n_genes..(row + 1 - start) * self.n_genes])?;
                    }
                    next = last;
                }
            }
        }
        Ok(())
    }

    fn changed(&self) -> InputError {
        let name = match &self.layout {
            RowLayout::Sparse { data, .. } => &data.name,
            RowLayout::Dense(table) => &table.name,
        };
        self.hdf5.fault(name, CHANGED, "put the file back as it was")
    }
}

/// Where the entries of each row of a sparse matrix start and end.
enum Pointers {
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
}

impl Pointers {
    fn new(indptr: Vec<i64>) -> Self {
        match indptr.iter().all(|&at| at <= i64::from(u32::MAX)) {
            true => Self::Narrow(indptr.iter().map(|&at| at.max(0) as u32).collect()),
            false => Self::Wide(indptr.iter().map(|&at| at.max(0) as u64).collect()),
        }
    }

    fn n_rows(&self) -> Option<usize> {
        match self {
            Self::Narrow(indptr) => indptr.len().checked_sub(1),
            Self::Wide(indptr) => indptr.len().checked_sub(1),
        }
    }

    #[inline]
    fn at(&self, n: usize) -> usize {
        match self {
            Self::Narrow(indptr) => indptr[n] as usize,
            Self::Wide(indptr) => indptr[n] as usize,
        }
    }

    fn ascend(&self) -> bool {
        match self {
            Self::Narrow(indptr) => indptr.is_sorted(),
            Self::Wide(indptr) => indptr.is_sorted(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Narrow(indptr) => size_of_val(&indptr[..]),
            Self::Wide(indptr) => size_of_val(&indptr[..]),
        }
    }
}

impl Elements {
    fn find(hdf5: &Hdf5, name: &str) -> Result<Self> {
        let dataset = hdf5.required(name)?;
        let native = Native::of(&hdf5.datatype(name, &dataset)?);
        let chunk = chunk_length(&dataset).unwrap_or(1).max(1);
        let compressed = chunk > 1 && dataset.filters().map_or(true, |filters| !filters.is_empty());
        Ok(Self { name: name.to_string(), dataset, native, chunk, compressed })
    }

    /// Part of the data set as whole numbers below `limit`, into `out`.
    fn numbers(&self, hdf5: &Hdf5, starts: &[usize], counts: &[usize], limit: usize, out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        let mut good = true;
        macro_rules! read {
            ($type:ty, $whole:expr) => {{
                let values = self.dataset.read_slice::<$type>(starts, counts);
                let values = values.map_err(|e| hdf5.damaged(&self.name, e))?;
                let whole: fn($type) -> (u32, bool) = $whole;
                out.extend(values.iter().map(|&value| {
                    let (number, fits) = whole(value);
                    good &= fits && (number as usize) < limit;
                    number
                }));
            }};
        }
        macro_rules! integer {
            ($type:ty) => {
                read!($type, |x| (x as u32, u32::try_from(x).is_ok()))
            };
        }
        match self.native {
            Some(Native::F32) => read!(f32, |x| (x as u32, x as u32 as f32 == x)),
            Some(Native::F64) => read!(f64, |x| (x as u32, x as u32 as f64 == x)),
            Some(Native::I8) => integer!(i8),
            Some(Native::U8) => read!(u8, |x| (x as u32, true)),
            Some(Native::I16) => integer!(i16),
            Some(Native::U16) => read!(u16, |x| (x as u32, true)),
            Some(Native::I32) => integer!(i32),
            Some(Native::U32) => read!(u32, |x| (x, true)),
            Some(Native::I64) => integer!(i64),
            Some(Native::U64) => integer!(u64),
            None => {
                for value in hdf5.numbers(&self.name, &self.dataset, starts, counts)? {
                    let number = value as u32;
                    good &= number as f64 == value && (number as usize) < limit;
                    out.push(number);
                }
            }
        }
        match good {
            true => Ok(()),
            false => Err(hdf5.fault(&self.name, CHANGED, "put the file back as it was").into()),
        }
    }
}

impl Native {
    fn of(datatype: &DatatypeMessage) -> Option<Self> {
        match *datatype {
            DatatypeMessage::FloatingPoint { size: 4, bit_offset: 0, bit_precision: 32, exponent_size: 8, .. } => {
                Some(Native::F32)
            }
            DatatypeMessage::FloatingPoint { size: 8, bit_offset: 0, bit_precision: 64, exponent_size: 11, .. } => {
                Some(Native::F64)
            }
            DatatypeMessage::FixedPoint { size, signed, bit_offset: 0, bit_precision, .. }
                if bit_precision as u32 == 8 * size =>
            {
                match (size, signed) {
                    (1, true) => Some(Native::I8),
                    (1, false) => Some(Native::U8),
                    (2, true) => Some(Native::I16),
                    (2, false) => Some(Native::U16),
                    (4, true) => Some(Native::I32),
                    (4, false) => Some(Native::U32),
                    (8, true) => Some(Native::I64),
                    (8, false) => Some(Native::U64),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// Texts of variable length are kept in heaps all over the file. The latest heaps are held, up to so many bytes.
const HELD_HEAPS: usize = 1 << 20;
/// Largest heap that is read so.
const LARGEST_HEAP: u64 = 1 << 24;

/// The `n` texts that `references` point at in the file at `path`, one heap after another: the library itself would hold
/// all heaps at once, and every text several times. `None` where the file is not laid out plainly, or anything is odd
/// about it; the library then reads it, or says what is wrong.
fn heap_texts(path: &Path, references: &[u8], n: usize) -> std::io::Result<Option<Names>> {
    /// Length, address of the heap, number within the heap.
    const REFERENCE: usize = 16;
    let mut file = File::open(path)?;
    let mut superblock = [0; 32];
    file.read_exact(&mut superblock)?;
    let word = |from: usize| superblock[from..from + 8].iter().any(|&byte| byte != 0);
    let plain = superblock[..8] == *b"\x89HDF\r\n\x1a\n"
        && match superblock[8] {
            0 => superblock[13..15] == [8, 8] && !word(24),
            2 | 3 => superblock[9..11] == [8, 8] && !word(12),
            _ => false,
        };
    if !plain || references.len() != n.saturating_mul(REFERENCE) {
        return Ok(None);
    }
    let mut left = file.metadata()?.len().saturating_mul(2);
    let mut heaps: VecDeque<(u64, Heap)> = VecDeque::new();
    let mut names = Names::default();
    for reference in references.chunks_exact(REFERENCE) {
        let address = u64::from_le_bytes(reference[4..12].try_into().expect("eight bytes"));
        let number = u32::from_le_bytes(reference[12..].try_into().expect("four bytes"));
        if address == 0 || address == u64::MAX {
            names.push("");
            continue;
        }
        let at = match heaps.iter().position(|(of, _)| *of == address) {
            Some(at) => at,
            None => {
                let Some(heap) = Heap::read(&mut file, address)? else { return Ok(None) };
                // Heaps that are asked for again and again are for the library, which holds them all.
                let Some(rest) = left.checked_sub(heap.bytes.len() as u64) else { return Ok(None) };
                left = rest;
                let mut room = HELD_HEAPS.saturating_sub(heap.bytes.len());
                let fit = heaps.iter().take_while(|(_, heap)| {
                    let fits = heap.bytes.len() <= room;
                    room = room.saturating_sub(heap.bytes.len());
                    fits
                });
                heaps.truncate(fit.count());
                heaps.push_front((address, heap));
                0
            }
        };
        let text = heaps[at].1.object(number).and_then(|bytes| std::str::from_utf8(bytes).ok());
        match text.filter(|text| !text.contains(char::REPLACEMENT_CHARACTER)) {
            Some(text) => names.push(text),
            None => return Ok(None),
        }
    }
    names.shrink();
    Ok(Some(names))
}

/// A heap of texts: a global heap collection, in the words of the format.
struct Heap {
    bytes: Vec<u8>,
    /// Start and end of each object among the bytes, by its number; none for numbers that are not used.
    objects: Vec<(u32, u32)>,
}

impl Heap {
    /// Bytes before the first object, and before the contents of each.
    const HEADER: usize = 16;

    fn read(file: &mut File, address: u64) -> std::io::Result<Option<Self>> {
        let mut header = [0; Self::HEADER];
        file.seek(SeekFrom::Start(address))?;
        file.read_exact(&mut header)?;
        let size = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        if header[..5] != *b"GCOL\x01" || size < Self::HEADER as u64 || size > LARGEST_HEAP {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(size - Self::HEADER as u64).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size - Self::HEADER as u64 {
            return Ok(None);
        }
        let mut objects: Vec<(u32, u32)> = Vec::new();
        let mut at = 0;
        while let Some(header) = bytes.get(at..at + Self::HEADER) {
            let number = u16::from_le_bytes([header[0], header[1]]);
            // What follows is free.
            if number == 0 {
                break;
            }
            let length = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
            let start = at + Self::HEADER;
            let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
            let Some(end) = end.filter(|&end| end <= bytes.len()) else { return Ok(None) };
            objects.resize(objects.len().max(number as usize + 1), (0, 0));
            objects[number as usize] = (start as u32, end as u32);
            at = start + (end - start).next_multiple_of(8);
        }
        Ok(Some(Self { bytes, objects }))
    }

    fn object(&self, number: u32) -> Option<&[u8]> {
        let &(start, end) = self.objects.get(number as usize).filter(|(start, _)| *start > 0)?;
        Some(&self.bytes[start as usize..end as usize])
    }
}

/// Booleans are stored as an enumeration of one byte.
fn is_flag(datatype: &DatatypeMessage) -> bool {
    let DatatypeMessage::Enum { base, .. } = datatype else { return false };
    matches!(**base, DatatypeMessage::FixedPoint { size: 1, .. })
}

fn is_text(datatype: &DatatypeMessage) -> bool {
    matches!(datatype, DatatypeMessage::VarLenString { .. } | DatatypeMessage::FixedString { .. })
}

/// NumPy's name of a type.
fn dtype_name(datatype: &DatatypeMessage) -> String {
    match datatype {
        DatatypeMessage::FixedPoint { size, signed, .. } => {
            format!("{}int{}", if *signed { "" } else { "u" }, 8 * size)
        }
        DatatypeMessage::FloatingPoint { size, .. } => format!("float{}", 8 * size),
        flags if is_flag(flags) => "bool".to_string(),
        text if is_text(text) => "text".to_string(),
        other => other.to_string(),
    }
}

fn filter_name(id: u16) -> String {
    match id {
        1 => "gzip".into(),
        2 => "shuffle".into(),
        3 => "fletcher32".into(),
        4 => "szip".into(),
        32000 => "lzf".into(),
        32001 => "blosc".into(),
        32015 => "zstd".into(),
        other => format!("filter {other}"),
    }
}

/// `obs/batch/codes` as Python would write it.
fn place(name: &str) -> String {
    match name.split_once('/') {
        Some((table @ ("obs" | "var" | "obsm" | "uns" | "layers"), key)) => format!("{table}[\"{key}\"]"),
        _ => name.to_string(),
    }
}

/// The multiple of `chunk` that holds at least `wanted`: no chunk is then decompressed twice.
fn whole_chunks(wanted: usize, chunk: Option<usize>) -> usize {
    wanted.max(1).checked_next_multiple_of(chunk.unwrap_or(1).max(1)).unwrap_or(usize::MAX)
}

fn chunk_length(dataset: &H5Dataset) -> Option<usize> {
    dataset.chunk_dims().and_then(|dims| dims.first().copied())
}
