//! AnnData files (.h5ad): the only module that touches HDF5.

use std::path::{Path, PathBuf};

use rust_hdf5::{DatatypeMessage, H5Dataset, H5File, H5Group, Hdf5Error};

use super::anndata_writer::{Frame, FrameColumn};
use super::load::{BLOCK, Column, CountsSink, RawTruth, ScreenFile, push_dense, read_csr};
use super::npz::open_input;
use crate::error::{InputError, Result};

/// DEFLATE cannot expand by more than this factor, so a shape that promises more is lying.
const MAX_EXPANSION: u64 = 1032;

/// An open .h5ad file, as AnnData 0.7 and newer write it.
pub(crate) struct H5ad {
    path: PathBuf,
    file: H5File,
    /// No data set can hold more bytes than this.
    most: u64,
}

/// How the counts are stored.
enum Counts {
    Dense(H5Dataset),
    Csr,
}

impl H5ad {
    /// Opens `path`.
    ///
    /// # Errors
    /// [`InputError`] if the file is absent or no HDF5 file.
    pub fn open(path: &Path) -> Result<Self> {
        let length = open_input(path)?.metadata().map_or(0, |m| m.len());
        let file = H5File::options().best_effort_locking().open(path).map_err(|e| {
            InputError::new(format!("this is not a readable HDF5 file ({e})"), "write it again with AnnData")
                .in_file(path)
        })?;
        let most = length.saturating_mul(MAX_EXPANSION).saturating_add(1 << 20);
        Ok(Self { path: path.to_path_buf(), file, most })
    }

    fn fault(&self, place: &str, problem: impl Into<String>, remedy: impl Into<String>) -> InputError {
        InputError::new(problem, remedy).in_file(&self.path).at(place)
    }

    fn damaged(&self, place: &str, error: Hdf5Error) -> InputError {
        self.fault(place, format!("it cannot be read ({error})"), "write the file again with a current AnnData")
    }

    /// A group such as `obs`, or `None` if there is no group of that name.
    fn group(&self, name: &str) -> Option<H5Group> {
        let mut group = self.file.root_group();
        for part in name.split('/') {
            group = group.group(part).ok()?;
        }
        Some(group)
    }

    /// A data set whose size is plausible, or `None` if there is none of that name.
    fn dataset(&self, name: &str) -> Result<Option<H5Dataset>> {
        let dataset = match self.file.dataset(name) {
            Ok(dataset) => dataset,
            Err(Hdf5Error::NotFound(_)) => return Ok(None),
            Err(e) => return Err(self.damaged(&place(name), e).into()),
        };
        let shape = dataset.shape();
        let bytes = shape.iter().try_fold(dataset.element_size() as u64, |bytes, &d| bytes.checked_mul(d as u64));
        if bytes.is_none_or(|bytes| bytes > self.most) {
            return Err(self
                .fault(
                    &place(name),
                    format!("its shape {shape:?} promises more than the file can hold"),
                    "the file is damaged, write it again",
                )
                .into());
        }
        Ok(Some(dataset))
    }

    fn required(&self, name: &str) -> Result<H5Dataset> {
        Ok(self
            .dataset(name)?
            .ok_or_else(|| self.fault(&place(name), "it is missing", "write the file again with AnnData"))?)
    }

    /// A one-dimensional data set.
    fn vector(&self, name: &str) -> Result<H5Dataset> {
        let dataset = self.required(name)?;
        match dataset.shape()[..] {
            [_] => Ok(dataset),
            ref shape => Err(self
                .fault(&place(name), format!("it has shape {shape:?}, not one axis"), "write the file again")
                .into()),
        }
    }

    /// Part of a numeric data set, from the types that hold numbers, converted to `f64`.
    fn numbers(&self, name: &str, dataset: &H5Dataset, starts: &[usize], counts: &[usize]) -> Result<Vec<f64>> {
        let failed = |e| self.damaged(&place(name), e);
        let datatype = dataset.datatype().map_err(failed)?;
        Ok(match datatype {
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
    fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let dataset = self.vector(name)?;
        let datatype = dataset.datatype().map_err(|e| self.damaged(&place(name), e))?;
        if !matches!(datatype, DatatypeMessage::FixedPoint { .. }) {
            return Err(self.not_numeric(name, &datatype).into());
        }
        Ok(dataset.read_numeric_as::<i64>().map_err(|e| self.damaged(&place(name), e))?)
    }

    fn not_numeric(&self, name: &str, datatype: &DatatypeMessage) -> InputError {
        self.fault(&place(name), format!("numbers were expected, it holds {datatype}"), "check how it was written")
    }

    /// A whole vector of any type that annotations have.
    fn plain_column(&self, name: &str) -> Result<Column> {
        let dataset = self.vector(name)?;
        let failed = |e| self.damaged(&place(name), e);
        let datatype = dataset.datatype().map_err(failed)?;
        Ok(match datatype {
            DatatypeMessage::FixedPoint { .. } => Column::Integers(dataset.read_numeric_as::<i64>().map_err(failed)?),
            DatatypeMessage::FloatingPoint { .. } => Column::Numbers(dataset.read_numeric_as::<f64>().map_err(failed)?),
            DatatypeMessage::VarLenString { .. } | DatatypeMessage::FixedString { .. } => {
                Column::Strings(dataset.read_strings_lossy().map_err(failed)?)
            }
            ref flags if is_flag(flags) => {
                let flags = dataset.read_raw::<u8>().map_err(failed)?;
                Column::Flags(flags.into_iter().map(|flag| flag != 0).collect())
            }
            other => {
                let problem = format!("columns of type {other} are not read");
                return Err(self.fault(&place(name), problem, "convert it to text or numbers").into());
            }
        })
    }

    /// A column of `obs` or `var` in any of its encodings.
    fn stored_column(&self, table: &str, column: &str) -> Result<Column> {
        let name = format!("{table}/{column}");
        let has = |child: &str| self.file.dataset(&format!("{name}/{child}")).is_ok();
        if self.group(&name).is_none() {
            // AnnData 0.7 kept the levels beside the columns.
            let levels = format!("{table}/__categories/{column}");
            return match self.dataset(&levels)? {
                Some(_) => self.categorical(&name, &levels, &name),
                None => self.plain_column(&name),
            };
        }
        if has("codes") && has("categories") {
            return self.categorical(&name, &format!("{name}/categories"), &format!("{name}/codes"));
        }
        if has("values") && has("mask") {
            let values = self.plain_column(&format!("{name}/values"))?;
            let Column::Flags(missing) = self.plain_column(&format!("{name}/mask"))? else {
                return Err(self.fault(&place(&name), "its mask holds no booleans", "write the file again").into());
            };
            return self.masked(&name, values, &missing);
        }
        Err(self
            .fault(&place(&name), "this kind of column is not read", "convert it to text, numbers or categories")
            .into())
    }

    fn categorical(&self, name: &str, levels: &str, codes: &str) -> Result<Column> {
        let codes = self.integers(codes)?;
        let flag = |flag: bool| if flag { "True" } else { "False" }.to_string();
        let (levels, numbers) = match self.plain_column(levels)? {
            Column::Strings(levels) => (levels, None),
            Column::Integers(levels) => (levels.iter().map(i64::to_string).collect(), Some(levels)),
            Column::Numbers(levels) => (levels.iter().map(f64::to_string).collect(), None),
            Column::Flags(levels) => (levels.into_iter().map(flag).collect(), None),
            Column::Categorical { .. } => {
                return Err(self
                    .fault(&place(name), "its levels are categories themselves", "convert it to text")
                    .into());
            }
        };
        Ok(Column::Categorical { levels, numbers, codes })
    }

    /// A nullable column: values where the mask is true are missing.
    fn masked(&self, name: &str, values: Column, missing: &[bool]) -> Result<Column> {
        let lengths = |n: usize| match n == missing.len() {
            true => Ok(()),
            false => Err(self.fault(&place(name), "values and mask differ in length", "write the file again")),
        };
        Ok(match values {
            Column::Integers(values) => {
                lengths(values.len())?;
                match missing.contains(&true) {
                    false => Column::Integers(values),
                    true => Column::Numbers(
                        values.iter().zip(missing).map(|(&x, &gone)| if gone { f64::NAN } else { x as f64 }).collect(),
                    ),
                }
            }
            Column::Numbers(mut values) => {
                lengths(values.len())?;
                values.iter_mut().zip(missing).filter(|(_, gone)| **gone).for_each(|(x, _)| *x = f64::NAN);
                Column::Numbers(values)
            }
            Column::Strings(mut values) => {
                lengths(values.len())?;
                values.iter_mut().zip(missing).filter(|(_, gone)| **gone).for_each(|(text, _)| text.clear());
                Column::Strings(values)
            }
            Column::Flags(values) => {
                lengths(values.len())?;
                Column::Categorical {
                    levels: vec!["False".into(), "True".into()],
                    numbers: None,
                    codes: values.iter().zip(missing).map(|(&x, &gone)| if gone { -1 } else { x as i64 }).collect(),
                }
            }
            categorical @ Column::Categorical { .. } => categorical,
        })
    }

    /// Name of the column of `obs` or `var` that names the rows.
    fn index_name(&self, table: &str) -> Result<String> {
        let Some(group) = self.group(table) else {
            let problem = match self.file.dataset(table) {
                Ok(_) => "it is stored as AnnData 0.6 and older did",
                Err(_) => "it is missing",
            };
            return Err(self.fault(table, problem, "open the file with a current AnnData and write it again").into());
        };
        let named = group.attr_string("_index").ok();
        let exists = |name: &String| !name.is_empty() && self.file.dataset(&format!("{table}/{name}")).is_ok();
        named.into_iter().chain(["_index".to_string(), "index".to_string()]).find(exists).ok_or_else(|| {
            self.fault(table, "its index (the names of its rows) is missing", "write the file again with AnnData")
                .into()
        })
    }

    fn n_rows(&self, table: &str) -> Result<usize> {
        Ok(self.vector(&format!("{table}/{}", self.index_name(table)?))?.shape()[0])
    }

    fn row_names(&self, table: &str) -> Result<Vec<String>> {
        let index = self.index_name(table)?;
        match self.stored_column(table, &index)? {
            Column::Strings(names) => Ok(names),
            Column::Integers(names) => Ok(names.iter().map(i64::to_string).collect()),
            _ => Err(self
                .fault(&place(&format!("{table}/{index}")), "names are expected to be text", "write the file again")
                .into()),
        }
    }

    fn counts(&self) -> Result<Counts> {
        let Some(group) = self.group("X") else {
            return match self.dataset("X")? {
                Some(dataset) => Ok(Counts::Dense(dataset)),
                None => Err(self.fault("X", "there are no counts", "store raw counts in X").into()),
            };
        };
        let encoding = group.attr_string("encoding-type").or_else(|_| group.attr_string("h5sparse_format"));
        match encoding.as_deref() {
            Ok("csr_matrix" | "csr") => Ok(Counts::Csr),
            Ok(other) => Err(self
                .fault(
                    "X",
                    format!("matrices stored as `{other}` are not read"),
                    "convert with .tocsr() before writing",
                )
                .into()),
            Err(_) => Err(self
                .fault("X", "it does not say how it is stored", "write the file again with a current AnnData")
                .into()),
        }
    }

    /// A numeric table (two axes), whole.
    fn table(&self, name: &str) -> Result<Option<(Vec<usize>, Vec<f64>)>> {
        let Some(dataset) = self.dataset(name)? else { return Ok(None) };
        let shape = dataset.shape();
        if shape.len() != 2 || shape.contains(&0) {
            return Ok(Some((shape, Vec::new())));
        }
        let values = self.numbers(name, &dataset, &[0, 0], &shape)?;
        Ok(Some((shape, values)))
    }
}

/// Booleans are stored as an enumeration of one byte.
fn is_flag(datatype: &DatatypeMessage) -> bool {
    let DatatypeMessage::Enum { base, .. } = datatype else { return false };
    matches!(**base, DatatypeMessage::FixedPoint { size: 1, .. })
}

/// `obs/batch/codes` as Python would write it.
fn place(name: &str) -> String {
    match name.split_once('/') {
        Some((table @ ("obs" | "var" | "obsm" | "uns"), key)) => format!("{table}[\"{key}\"]"),
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

impl ScreenFile for H5ad {
    fn path(&self) -> &Path {
        &self.path
    }

    fn shape(&self) -> Result<(usize, usize)> {
        Ok((self.n_rows("obs")?, self.n_rows("var")?))
    }

    fn cell_names(&self) -> Result<Option<Vec<String>>> {
        self.row_names("obs").map(Some)
    }

    fn gene_names(&self) -> Result<Option<Vec<String>>> {
        self.row_names("var").map(Some)
    }

    fn counts_place(&self) -> String {
        "X".to_string()
    }

    fn read_counts(&self, sink: &mut CountsSink) -> Result<()> {
        let (n_cells, n_genes) = (sink.n_cells(), sink.n_genes());
        match self.counts()? {
            Counts::Dense(x) => {
                if x.shape() != [n_cells, n_genes] {
                    return Err(sink
                        .fault(
                            format!("it has shape {:?} for {n_cells} cells and {n_genes} genes", x.shape()),
                            "write the file again",
                        )
                        .into());
                }
                let rows = whole_chunks(BLOCK / n_genes, chunk_length(&x)).min(n_cells);
                for start in (0..n_cells).step_by(rows) {
                    let n = rows.min(n_cells - start);
                    push_dense(sink, n_genes, &self.numbers("X", &x, &[start, 0], &[n, n_genes])?)?;
                }
                Ok(())
            }
            Counts::Csr => {
                let indptr = self.integers("X/indptr")?;
                let (data, indices) = (self.vector("X/data")?, self.vector("X/indices")?);
                let n_stored = data.shape()[0];
                if indices.shape()[0] != n_stored {
                    return Err(sink
                        .fault(
                            format!("there are {n_stored} values but {} indices", indices.shape()[0]),
                            "the sparse matrix is damaged, write the file again",
                        )
                        .into());
                }
                let datatype = indices.datatype().map_err(|e| self.damaged("X/indices", e))?;
                if !matches!(datatype, DatatypeMessage::FixedPoint { .. }) {
                    return Err(self.not_numeric("X/indices", &datatype).into());
                }
                let chunk = chunk_length(&data).max(chunk_length(&indices));
                let block = whole_chunks(BLOCK, chunk).min(n_stored).max(1);
                read_csr(sink, &indptr, n_stored, block, |range, genes, values| {
                    let (start, n) = ([range.start], [range.len()]);
                    *values = self.numbers("X/data", &data, &start, &n)?;
                    *genes =
                        indices.read_numeric_slice_as::<i64>(&start, &n).map_err(|e| self.damaged("X/indices", e))?;
                    Ok(())
                })
            }
        }
    }

    fn column_names(&self) -> Result<Vec<String>> {
        let index = self.index_name("obs")?;
        let obs = self.group("obs").ok_or_else(|| self.fault("obs", "it is missing", "write the file again"))?;
        let failed = |e| self.damaged("obs", e);
        let mut names = obs.dataset_names().map_err(failed)?;
        names.extend(obs.group_names().map_err(failed)?);
        names.retain(|name| *name != index && name != "__categories");
        names.sort_unstable();
        Ok(names)
    }

    fn column_place(&self, name: &str) -> String {
        place(&format!("obs/{name}"))
    }

    fn column(&self, name: &str, _label: bool) -> Result<Column> {
        self.stored_column("obs", name)
    }

    fn stored_library(&self) -> Option<&'static str> {
        None
    }

    fn truth(&self) -> Result<Option<RawTruth>> {
        let names = ["obsm/groundtruth_latent", "uns/prior_mean"];
        let (Some(latents), Some(prior_means)) = (self.table(names[0])?, self.table(names[1])?) else {
            return Ok(None);
        };
        Ok(Some(RawTruth { latents, prior_means }))
    }
}

impl H5ad {
    /// The table `obs` or `var` for being copied: names of the rows, and each column that can be read, by name. A column
    /// of an unusual kind is left out, and so is the whole table where its names cannot be read.
    pub(crate) fn frame(&self, table: &str) -> Option<Frame> {
        let names = self.row_names(table).ok()?;
        let index = self.index_name(table).ok()?;
        let group = self.group(table)?;
        let mut keys = group.dataset_names().ok()?;
        keys.extend(group.group_names().ok()?);
        keys.retain(|name| *name != index && name != "__categories");
        keys.sort_unstable();
        let columns = keys.into_iter().filter_map(|key| {
            let column = match self.stored_column(table, &key).ok()? {
                Column::Categorical { levels, numbers, codes } => {
                    let known = |code: i64| if (0..levels.len() as i64).contains(&code) { code } else { -1 };
                    let codes = codes.into_iter().map(known).collect();
                    match numbers {
                        Some(numbers) => FrameColumn::CategoricalNumbers(numbers, codes),
                        None => FrameColumn::Categorical(levels, codes),
                    }
                }
                Column::Strings(values) => FrameColumn::Strings(values),
                Column::Integers(values) => FrameColumn::Integers(values),
                Column::Numbers(values) => FrameColumn::Numbers(values),
                Column::Flags(values) => FrameColumn::Flags(values),
            };
            (column.len() == names.len()).then_some((key, column))
        });
        let columns = columns.collect();
        Some((names, columns))
    }
}
