//! AnnData files (.h5ad), from those of AnnData 0.5 (tables of records) to those of 0.12.

use std::path::Path;

use crate::data::counts::row_source::RowSource;
use crate::data::formats::column::Column;
use crate::data::formats::counts_sink::CountsSink;
use crate::data::formats::features::{Features, Genes};
use crate::data::formats::frame::Frame;
use crate::data::formats::hdf5::{HDF5_ENDINGS, Hdf5, Matrix, RowReader, Storage};
use crate::data::formats::screen_file::{CellMatrix, RawTruth, ScreenFile, StoredMatrix, has_ending};
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::words::first_few;

const WRITE_AGAIN: &str = "open the file with a current AnnData and write it again";

/// Most columns of a matrix of `obsm`: more are a damaged index.
const MOST_COLUMNS: usize = 10_000_000;

/// Columns of `var` that say what kind of feature each row is.
const FEATURE_KINDS: [&str; 2] = ["feature_types", "feature_type"];
/// Columns of `var` that hold identifiers of guides and genes.
const IDENTIFIERS: [&str; 2] = ["gene_ids", "gene_id"];

/// An open .h5ad file and the matrix of it that is read.
pub(crate) struct H5ad {
    hdf5: Hdf5,
    /// As given by `--layer`.
    layer: Option<String>,
    /// Which rows of `var` are genes, where it says so.
    features: Option<Genes>,
}

impl H5ad {
    /// Whether a file is HDF5 by its name: what no other format takes of these is read as AnnData, or refused with the
    /// names of what it holds.
    pub fn recognises(path: &Path) -> bool {
        has_ending(path, &HDF5_ENDINGS)
    }

    /// Opens a file; `layer` names the matrix to read, else `X`.
    ///
    /// # Errors
    /// [`InputError`] if it is absent, no HDF5 file, or neither called .h5ad nor like AnnData inside.
    pub fn open(path: &Path, layer: Option<&str>) -> Result<Self> {
        let hdf5 = Hdf5::open(path)?;
        let has_tables = ["obs", "var"].iter().any(|name| hdf5.group(name).is_some() || hdf5.has_dataset(name));
        if !has_tables && !has_ending(path, &[".h5ad"]) {
            let groups = first_few(&hdf5.children("")?);
            return Err(InputError::new(
                format!("it is neither an AnnData nor a 10x file: it holds {groups}"),
                "give a file with `obs`, `var` and `X`, or one with `matrix`",
            )
            .in_file(path)
            .into());
        }
        Self::of(hdf5, layer)
    }

    /// What is in an open file, or in a group of one.
    ///
    /// # Errors
    /// [`InputError`] if what it says of its features is damaged.
    pub(super) fn of(hdf5: Hdf5, layer: Option<&str>) -> Result<Self> {
        let mut file = Self { hdf5, layer: layer.map(str::to_string), features: None };
        file.features =
            file.read_features().map_err(|error| error.in_file(file.hdf5.path()).at(file.hdf5.place("var")))?;
        Ok(file)
    }

    /// The file.
    pub(super) fn hdf5(&self) -> &Hdf5 {
        &self.hdf5
    }

    /// What `var` says of the kinds of features, as the files of CellRanger do. A table that cannot be read says nothing here; it is
    /// refused where it is needed.
    fn read_features(&self) -> Result<Option<Genes>, InputError> {
        let Ok(table) = self.genes_table() else { return Ok(None) };
        let Ok(fields) = self.fields(&table) else { return Ok(None) };
        let Some(key) = FEATURE_KINDS.into_iter().find(|key| fields.iter().any(|field| field == key)) else {
            return Ok(None);
        };
        let texts = |key: &str| self.stored_column(&table, key).ok().and_then(texts_of);
        let (Some(kinds), Ok(names)) = (texts(key), self.row_names(&table)) else { return Ok(None) };
        let known = IDENTIFIERS.into_iter().find(|key| fields.iter().any(|field| field == key));
        let ids = known.and_then(texts).filter(|ids| ids.len() == names.len()).unwrap_or_else(|| names.clone());
        if kinds.len() != names.len() {
            let problem = format!("there are {} types of features for {} rows", kinds.len(), names.len());
            return Err(InputError::new(problem, WRITE_AGAIN));
        }
        Features { ids, names, kinds, genomes: Vec::new() }.genes(None).map(Some)
    }

    /// Those of the values of all rows of `var` that belong to genes.
    fn of_genes<T>(&self, values: Vec<T>) -> Vec<T> {
        match &self.features {
            Some(genes) if genes.number.len() == values.len() => genes.of_genes(values),
            _ => values,
        }
    }

    /// The order of the columns of a table, if it is kept.
    pub(super) fn stored_order(&self, table: &str) -> Option<Vec<String>> {
        self.hdf5.record_fields(table).or_else(|| self.hdf5.text_list(table, "column-order"))
    }

    fn fault(&self, name: &str, problem: impl Into<String>, remedy: impl Into<String>) -> InputError {
        self.hdf5.fault(name, problem, remedy)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.hdf5.has_dataset(name)
    }

    /// `raw/X`, or `raw.X` as AnnData 0.6 and older called it.
    fn raw(&self, part: &str) -> Option<String> {
        let names = [format!("raw/{part}"), format!("raw.{part}")];
        names.into_iter().find(|name| self.has(name) || self.hdf5.group(name).is_some())
    }

    /// Path of the matrix that `--layer` names.
    fn counts_name(&self) -> Result<String> {
        let layers = || self.hdf5.children("layers");
        match self.layer.as_deref() {
            None | Some("X") => Ok("X".to_string()),
            Some(layer) if layers()?.iter().any(|name| name == layer) => Ok(format!("layers/{layer}")),
            Some("raw" | "raw.X" | "raw/X") => {
                let missing = || self.fault("raw", "it holds no counts", "leave out --layer, or name a layer");
                Ok(self.raw("X").ok_or_else(missing)?)
            }
            Some(layer) => {
                let mut known = vec!["X".to_string()];
                known.extend(layers()?);
                known.extend(self.raw("X").map(|_| "raw".to_string()));
                let known = first_few(&known);
                let error =
                    self.fault("layers", format!("there is no layer `{layer}`"), format!("--layer may be {known}"));
                Err(error.into())
            }
        }
    }

    /// The table that names the genes of the matrix that is read.
    fn genes_table(&self) -> Result<String> {
        Ok(match self.counts_name()?.strip_prefix("raw") {
            Some(_) => self.raw("var").ok_or_else(|| self.fault("raw/var", "it is missing", WRITE_AGAIN))?,
            None => "var".to_string(),
        })
    }

    /// How the matrix `name` is stored.
    fn matrix(&self, name: &str) -> Result<Matrix> {
        let matrix = |storage| Ok(Matrix { name: name.to_string(), storage });
        if self.hdf5.group(name).is_none() {
            return match self.hdf5.dataset(name)? {
                Some(_) => matrix(Storage::Dense),
                None => Err(self.fault(name, "there are no counts", "store raw counts in X or in a layer").into()),
            };
        }
        let attribute = |attribute| self.hdf5.attribute(name, attribute);
        match attribute("encoding-type").or_else(|| attribute("h5sparse_format")).as_deref() {
            Some("csr_matrix" | "csr") => matrix(Storage::Rows),
            Some("csc_matrix" | "csc") => matrix(Storage::Columns),
            Some(other) => Err(self
                .fault(
                    name,
                    format!("matrices stored as `{other}` are not read"),
                    "convert with .tocsr() before writing",
                )
                .into()),
            None => Err(self.fault(name, "it does not say how it is stored", WRITE_AGAIN).into()),
        }
    }

    /// A column of `obs` or `var` in any of its encodings.
    pub(super) fn stored_column(&self, table: &str, column: &str) -> Result<Column> {
        let name = format!("{table}/{column}");
        if self.hdf5.record_fields(table).is_some() {
            let values = self.hdf5.record_column(table, column)?;
            // Levels were kept apart from the table.
            let levels = format!("uns/{column}_categories");
            return match values {
                Column::Integers(codes) if self.has(&levels) => self.categorical(&name, &levels, codes),
                values => Ok(values),
            };
        }
        if self.hdf5.group(&name).is_none() {
            // AnnData 0.7 kept the levels beside the columns.
            let levels = format!("{table}/__categories/{column}");
            return match self.hdf5.dataset(&levels)? {
                Some(_) => self.categorical(&name, &levels, self.hdf5.integers(&name)?),
                None => self.hdf5.plain_column(&name),
            };
        }
        let has = |child: &str| self.has(&format!("{name}/{child}"));
        if has("codes") && has("categories/values") {
            let (levels, codes) = (format!("{name}/categories/values"), format!("{name}/codes"));
            return self.categorical(&name, &levels, self.hdf5.integers(&codes)?);
        }
        if has("codes") && has("categories") {
            return self.categorical(
                &name,
                &format!("{name}/categories"),
                self.hdf5.integers(&format!("{name}/codes"))?,
            );
        }
        if has("values") && has("mask") {
            let values = self.hdf5.plain_column(&format!("{name}/values"))?;
            let Column::Flags(missing) = self.hdf5.plain_column(&format!("{name}/mask"))? else {
                return Err(self.fault(&name, "its mask holds no booleans", "write the file again").into());
            };
            return self.masked(&name, values, &missing);
        }
        Err(self.fault(&name, "this kind of column is not read", "convert it to text, numbers or categories").into())
    }

    fn categorical(&self, name: &str, levels: &str, codes: Vec<i64>) -> Result<Column> {
        let flag = |flag: bool| if flag { "True" } else { "False" }.to_string();
        let (levels, numbers) = match self.hdf5.plain_column(levels)? {
            Column::Strings(levels) => (levels, None),
            Column::Integers(levels) => (levels.iter().map(i64::to_string).collect(), Some(levels)),
            Column::Numbers(levels) => (levels.iter().map(f64::to_string).collect(), None),
            Column::Flags(levels) => (levels.into_iter().map(flag).collect(), None),
            Column::Categorical { .. } => {
                return Err(self.fault(name, "its levels are categories themselves", "convert it to text").into());
            }
        };
        Ok(Column::Categorical { levels, numbers, codes })
    }

    /// A nullable column: values where the mask is true are missing.
    fn masked(&self, name: &str, values: Column, missing: &[bool]) -> Result<Column> {
        if values.len() != missing.len() {
            return Err(self.fault(name, "values and mask differ in length", "write the file again").into());
        }
        Ok(match values {
            Column::Integers(values) => match missing.contains(&true) {
                false => Column::Integers(values),
                true => Column::Numbers(
                    values.iter().zip(missing).map(|(&x, &gone)| if gone { f64::NAN } else { x as f64 }).collect(),
                ),
            },
            Column::Numbers(mut values) => {
                values.iter_mut().zip(missing).filter(|(_, gone)| **gone).for_each(|(x, _)| *x = f64::NAN);
                Column::Numbers(values)
            }
            Column::Strings(mut values) => {
                values.iter_mut().zip(missing).filter(|(_, gone)| **gone).for_each(|(text, _)| text.clear());
                Column::Strings(values)
            }
            Column::Flags(values) => Column::Categorical {
                levels: vec!["False".into(), "True".into()],
                numbers: None,
                codes: values.iter().zip(missing).map(|(&x, &gone)| if gone { -1 } else { x as i64 }).collect(),
            },
            categorical @ Column::Categorical { .. } => categorical,
        })
    }

    /// Name of the column of `obs` or `var` that names the rows.
    pub(super) fn index_name(&self, table: &str) -> Result<String> {
        let usual = ["_index", "index"];
        if let Some(fields) = self.hdf5.record_fields(table) {
            let found = fields.into_iter().find(|field| usual.contains(&field.as_str()));
            let missing = || self.fault(table, "its index (the names of its rows) is missing", WRITE_AGAIN);
            return Ok(found.ok_or_else(missing)?);
        }
        if self.hdf5.group(table).is_none() {
            let problem = if self.has(table) { "it is no table" } else { "it is missing" };
            return Err(self.fault(table, problem, WRITE_AGAIN).into());
        }
        let named = self.hdf5.attribute(table, "_index");
        let exists = |name: &String| {
            let name = format!("{table}/{name}");
            !name.ends_with('/') && (self.has(&name) || self.hdf5.group(&name).is_some())
        };
        named
            .into_iter()
            .chain(usual.map(str::to_string))
            .find(exists)
            .ok_or_else(|| self.fault(table, "its index (the names of its rows) is missing", WRITE_AGAIN).into())
    }

    pub(super) fn n_rows(&self, table: &str) -> Result<usize> {
        let index = self.index_name(table)?;
        if self.hdf5.record_fields(table).is_some() {
            return Ok(self.hdf5.vector(table)?.shape()[0]);
        }
        let name = format!("{table}/{index}");
        match self.hdf5.group(&name) {
            Some(_) => Ok(self.stored_column(table, &index)?.len()),
            None => Ok(self.hdf5.vector(&name)?.shape()[0]),
        }
    }

    fn row_names(&self, table: &str) -> Result<Vec<String>> {
        let index = self.index_name(table)?;
        match self.stored_column(table, &index)? {
            Column::Strings(names) => Ok(names),
            Column::Integers(names) => Ok(names.iter().map(i64::to_string).collect()),
            Column::Categorical { levels, codes, .. } => {
                let name = |&code: &i64| usize::try_from(code).ok().and_then(|code| levels.get(code)).cloned();
                codes.iter().map(name).collect::<Option<_>>().ok_or_else(|| {
                    self.fault(&format!("{table}/{index}"), "a name is missing", "write the file again").into()
                })
            }
            _ => Err(self
                .fault(&format!("{table}/{index}"), "names are expected to be text", "write the file again")
                .into()),
        }
    }

    /// As [`H5ad::row_names`], in few bytes.
    pub(super) fn many_row_names(&self, table: &str) -> Result<Names> {
        let index = self.index_name(table)?;
        let name = format!("{table}/{index}");
        // Text as it is stored nearly always.
        let plain = self.hdf5.record_fields(table).is_none()
            && self.hdf5.group(&name).is_none()
            && !self.has(&format!("{table}/__categories/{index}"));
        if plain && let Some(names) = self.hdf5.names(&name)? {
            return Ok(names);
        }
        Ok(self.row_names(table)?.into())
    }

    pub(super) fn fields(&self, table: &str) -> Result<Vec<String>> {
        let index = self.index_name(table)?;
        let mut names = match self.hdf5.record_fields(table) {
            Some(fields) => fields,
            None => self.hdf5.children(table)?,
        };
        names.retain(|name| *name != index && name != "__categories");
        // A name with a slash is stored as groups, which only the order of the columns tells from columns.
        if self.hdf5.record_fields(table).is_none()
            && let Some(order) = self.hdf5.text_list(table, "column-order")
        {
            let cut: Vec<&String> = order.iter().filter(|name| name.contains('/')).collect();
            names.retain(|name| !cut.iter().any(|of| of.split('/').next() == Some(name)));
            names.extend(cut.into_iter().cloned());
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// Matrices of `obsm`.
impl H5ad {
    /// Names of at least `n` columns without any: the text in `uns/NAME_names`, if that fits, else numbers.
    fn column_names_of(&self, path: &str, n: usize) -> Vec<String> {
        let name = path.strip_prefix("obsm/").unwrap_or(path);
        let stored = self.hdf5.strings(&format!("uns/{name}_names")).ok().filter(|names| names.len() >= n);
        stored.unwrap_or_else(|| (0..n).map(|j| format!("{name}_{j}")).collect())
    }

    fn dense_matrix(&self, path: &str) -> Result<CellMatrix> {
        let (shape, values) = self.hdf5.table(path)?.unwrap_or_default();
        let [n_rows, n_columns] = shape[..] else {
            return Err(self.fault(path, format!("it has shape {shape:?}"), "store a row per cell").into());
        };
        let mut names = self.column_names_of(path, n_columns);
        names.truncate(n_columns);
        Ok(CellMatrix::from_dense(names, n_rows, &values))
    }

    fn frame_matrix(&self, path: &str) -> Result<CellMatrix> {
        let names = self.fields(path)?;
        let mut rows = vec![Vec::new(); self.n_rows(path)?];
        for (j, name) in names.iter().enumerate() {
            let column = self.stored_column(path, name)?.into_numbers();
            let values =
                column.map_err(|error| error.in_file(self.path()).at(self.hdf5.place(&format!("{path}/{name}"))))?;
            if values.len() != rows.len() {
                let problem = format!("it has {} values for {} rows", values.len(), rows.len());
                return Err(self.fault(&format!("{path}/{name}"), problem, "write the file again").into());
            }
            for (row, &value) in rows.iter_mut().zip(&values).filter(|(_, x)| **x != 0.0) {
                row.push((j as u32, value));
            }
        }
        Ok(CellMatrix { names, rows })
    }

    fn sparse_matrix(&self, path: &str, by_row: bool) -> Result<CellMatrix> {
        let part = |part: &str| format!("{path}/{part}");
        let (indptr, indices) = (self.hdf5.integers(&part("indptr"))?, self.hdf5.integers(&part("indices"))?);
        let data = self.hdf5.plain_column(&part("data"))?.into_numbers().map_err(|error| error.in_file(self.path()))?;
        let damaged = || self.fault(path, "the sparse matrix is damaged", "write the file again");
        let ascends = indptr.windows(2).all(|pair| pair[0] <= pair[1]);
        let fits = indptr.first() == Some(&0) && indptr.last() == Some(&(data.len() as i64));
        if !ascends || !fits || indices.len() != data.len() || indices.iter().any(|index| *index < 0) {
            return Err(damaged().into());
        }
        let (n_major, n_minor) = (indptr.len() - 1, indices.iter().max().map_or(0, |&index| index as usize + 1));
        let (n_rows, n_columns) = if by_row { (n_major, n_minor) } else { (self.n_rows("obs")?, n_major) };
        if n_columns > MOST_COLUMNS || (!by_row && n_minor > n_rows) {
            return Err(damaged().into());
        }
        let mut rows = vec![Vec::new(); n_rows];
        for (major, range) in indptr.windows(2).enumerate() {
            for at in range[0] as usize..range[1] as usize {
                let (row, column) = if by_row { (major, indices[at] as usize) } else { (indices[at] as usize, major) };
                if data[at] != 0.0 {
                    rows[row].push((column as u32, data[at]));
                }
            }
        }
        rows.iter_mut().for_each(|row: &mut Vec<(u32, f64)>| row.sort_by_key(|&(column, _)| column));
        Ok(CellMatrix { names: self.column_names_of(path, n_columns), rows })
    }
}

impl ScreenFile for H5ad {
    fn path(&self) -> &Path {
        self.hdf5.path()
    }

    fn format(&self) -> String {
        match self.hdf5.record_fields("obs") {
            Some(_) => "AnnData (0.6 or older)".to_string(),
            None => "AnnData".to_string(),
        }
    }

    fn shape(&self) -> Result<(usize, usize)> {
        let n_cells = self.n_rows("obs")?;
        let n_rows = self.n_rows(&self.genes_table()?)?;
        let n_genes =
            self.features.as_ref().filter(|genes| genes.number.len() == n_rows).map(|genes| genes.names.len());
        Ok((n_cells, n_genes.unwrap_or(n_rows)))
    }

    fn cell_names(&self) -> Result<Option<Names>> {
        self.many_row_names("obs").map(Some)
    }

    fn gene_names(&self) -> Result<Option<Vec<String>>> {
        let names = self.row_names(&self.genes_table()?)?;
        Ok(Some(self.of_genes(names)))
    }

    fn gene_columns(&self) -> Result<Vec<(String, Vec<String>)>> {
        let table = self.genes_table()?;
        let n_rows = self.n_rows(&table)?;
        let texts = |name: String| {
            let texts = self.stored_column(&table, &name).ok().and_then(texts_of)?;
            (texts.len() == n_rows).then(|| (name, self.of_genes(texts)))
        };
        Ok(self.fields(&table)?.into_iter().filter_map(texts).collect())
    }

    fn feature_numbers(&self) -> Option<&[i64]> {
        self.features.as_ref().and_then(Genes::numbers)
    }

    fn guide_names(&self) -> &[String] {
        self.features.as_ref().map_or(&[], |genes| &genes.guides)
    }

    fn guide_counts(&self) -> Result<Option<CellMatrix>> {
        let Some(genes) = &self.features else { return Ok(None) };
        let cells = self.many_row_names("obs")?;
        genes.guide_counts(&cells, (self.path(), &self.counts_place()), |sink| self.read_counts(sink))
    }

    fn notes(&self) -> Vec<String> {
        self.features.as_ref().map_or_else(Vec::new, |genes| genes.notes.clone())
    }

    fn cell_frame(&self, names: Names) -> Result<Frame> {
        self.frame("obs", names)
    }

    fn gene_frame(&self, names: Names) -> Result<Frame> {
        let table = self.genes_table()?;
        let Some(number) = self.feature_numbers() else { return self.frame(&table, names) };
        let rows: Vec<usize> = (0..number.len()).filter(|&row| number[row] >= 0).collect();
        let all = self.frame(&table, self.many_row_names(&table)?)?;
        let columns = all.columns.into_iter().map(|(name, column)| (name, column.select(&rows))).collect();
        Ok(Frame { index: all.index, names, columns })
    }

    fn counts_place(&self) -> String {
        self.hdf5.place(&self.counts_name().unwrap_or_else(|_| "X".to_string()))
    }

    fn read_counts(&self, sink: &mut CountsSink) -> Result<()> {
        self.hdf5.read_matrix(&self.matrix(&self.counts_name()?)?, sink)
    }

    fn rows(&self) -> Result<Box<dyn RowSource>> {
        let n_columns = self.n_rows(&self.genes_table()?)?;
        Ok(Box::new(RowReader::open(&self.hdf5, &self.matrix(&self.counts_name()?)?, n_columns)?))
    }

    fn column_names(&self) -> Result<Vec<String>> {
        self.fields("obs")
    }

    fn column_place(&self, name: &str) -> String {
        self.hdf5.place(&format!("obs/{name}"))
    }

    fn column(&self, name: &str, _label: bool) -> Result<Column> {
        self.stored_column("obs", name)
    }

    fn cell_matrix_names(&self) -> Result<Vec<String>> {
        self.hdf5.children("obsm")
    }

    fn cell_matrix(&self, name: &str) -> Result<CellMatrix> {
        let path = format!("obsm/{name}");
        let kind =
            self.hdf5.attribute(&path, "encoding-type").or_else(|| self.hdf5.attribute(&path, "h5sparse_format"));
        match kind.as_deref() {
            _ if self.has(&path) => self.dense_matrix(&path),
            Some("dataframe") => self.frame_matrix(&path),
            Some(kind @ ("csr_matrix" | "csr" | "csc_matrix" | "csc")) => {
                self.sparse_matrix(&path, kind.starts_with("csr"))
            }
            _ => Err(self
                .fault(&path, "this kind of matrix is not read", "store a table, an array or a CSR matrix")
                .into()),
        }
    }

    fn truth(&self) -> Result<Option<RawTruth>> {
        let names = ["obsm/groundtruth_latent", "uns/prior_mean"];
        let (Some(latents), Some(prior_means)) = (self.hdf5.table(names[0])?, self.hdf5.table(names[1])?) else {
            return Ok(None);
        };
        let escaped = self.hdf5.table("obsm/groundtruth_escaped")?.map(|(_, values)| values);
        Ok(Some(RawTruth { latents, prior_means, escaped }))
    }

    fn matrices(&self) -> Result<Vec<StoredMatrix>> {
        let chosen = self.counts_name()?;
        let mut names = vec![("X".to_string(), "X".to_string())];
        for layer in self.hdf5.children("layers")? {
            names.push((format!("layers/{layer}"), layer));
        }
        names.extend(self.raw("X").map(|name| (name, "raw".to_string())));
        names.sort_by_key(|(path, _)| *path != chosen);
        let n_cells = self.n_rows("obs")?;
        let mut matrices = Vec::new();
        for (path, name) in names {
            if path == "X" && !self.has("X") && self.hdf5.group("X").is_none() && path != chosen {
                continue;
            }
            // One that cannot be read is no candidate, unless it was asked for.
            let matrix = match self.matrix(&path) {
                Ok(matrix) => matrix,
                Err(error) if path == chosen => return Err(error),
                Err(_) => continue,
            };
            let facts = self.hdf5.matrix_facts(&matrix)?;
            let table = match path.strip_prefix("raw") {
                Some(_) => self.raw("var").unwrap_or_default(),
                None => "var".to_string(),
            };
            matrices.push(StoredMatrix {
                name,
                n_cells,
                n_genes: self.n_rows(&table)?,
                storage: match matrix.storage {
                    Storage::Dense => "dense",
                    Storage::Rows => "CSR",
                    Storage::Columns => "CSC",
                },
                dtype: facts.dtype,
                compression: facts.compression,
                n_stored: facts.n_stored,
                sample: self.hdf5.sample(&matrix)?,
            });
        }
        Ok(matrices)
    }
}

/// A column of text or of categories as texts, empty where missing; `None` if it is no text.
fn texts_of(column: Column) -> Option<Vec<String>> {
    match column {
        Column::Strings(texts) => Some(texts),
        Column::Categorical { levels, numbers: None, codes } => {
            let text = |code: i64| usize::try_from(code).ok().and_then(|code| levels.get(code)).cloned();
            Some(codes.into_iter().map(|code| text(code).unwrap_or_default()).collect())
        }
        _ => None,
    }
}
