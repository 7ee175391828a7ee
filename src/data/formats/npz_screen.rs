//! Screens in NumPy archives (.npz): counts, labels and, for simulations, the truth.

use std::collections::BTreeSet;
use std::path::Path;

use crate::data::combinations::{joint_label, joint_members, joint_sets};
use crate::data::dataset::Dataset;
use crate::data::formats::column::Column;
use crate::data::formats::counts_sink::{
    BLOCK, CountsSink, SparseBlock, cell_place, check_indptr, push_dense, read_csc, read_csr,
};
use crate::data::formats::npz::{ArrayStream, ElementKind, Npz, NpzWriter};
use crate::data::formats::screen_file::{CellMatrix, RawTruth, ScreenFile, StoredMatrix, has_ending};
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::words::first_few;

/// Values looked at to tell what the matrix holds.
const SAMPLE: usize = 1 << 16;

/// Array of the cells that escaped their intervention.
const ESCAPED: &str = "escaped_truth";
/// Array of the cells' doses.
const DOSE: &str = "dose";
/// Label of cells under no intervention.
const CONTROL: &str = "control";

/// A screen in a .npz archive.
pub(crate) struct NpzScreen {
    npz: Npz,
}

impl NpzScreen {
    /// Whether a file is an archive, by its name.
    pub fn recognises(path: &Path) -> bool {
        has_ending(path, &[".npz"])
    }

    /// Opens an archive.
    ///
    /// # Errors
    /// As [`Npz::open`].
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { npz: Npz::open(path)? })
    }

    /// Arrays that are no columns of the cells.
    const RESERVED: [&str; 13] = [
        "x",
        "data",
        "indices",
        "indptr",
        "shape",
        "format",
        "_is_array",
        "gene_names",
        "cell_names",
        "intervention_names",
        "latents",
        "prior_means",
        ESCAPED,
    ];

    fn is_sparse(&self) -> bool {
        !self.npz.contains("x") && self.npz.contains("data")
    }

    fn fault(&self, name: &str, problem: impl Into<String>, remedy: impl Into<String>) -> InputError {
        InputError::new(problem, remedy).in_file(self.npz.path()).at(format!("array `{name}`"))
    }

    fn vector<'a>(&'a self, name: &str) -> Result<ArrayStream<'a>> {
        let array = self.npz.array(name)?;
        match array.shape() {
            [_] => Ok(array),
            shape => Err(self.fault(name, format!("it has shape {shape:?}, not one axis"), "store a 1-d array").into()),
        }
    }

    fn names(&self, name: &str) -> Result<Option<Vec<String>>> {
        if !self.npz.contains(name) {
            return Ok(None);
        }
        Ok(Some(self.vector(name)?.into_strings()?.1))
    }

    /// Whether a sparse matrix is compressed by cell (CSR) rather than by gene (CSC).
    fn by_cell(&self) -> Result<bool> {
        if !self.npz.contains("format") {
            return Ok(true);
        }
        match self.npz.string("format")?.as_str() {
            "csr" => Ok(true),
            "csc" => Ok(false),
            format => {
                let problem = format!("sparse matrices of format `{format}` are not read");
                Err(self.fault("format", problem, "convert with .tocsr()").into())
            }
        }
    }

    fn read_sparse(&self, sink: &mut CountsSink) -> Result<()> {
        let indptr = self.vector("indptr")?.into_i64()?.1;
        let n_stored = self.vector("data")?.shape()[0];
        let n_indices = self.vector("indices")?.shape()[0];
        if n_indices != n_stored {
            return Err(sink
                .fault(
                    format!("there are {n_stored} values but {n_indices} indices"),
                    "the sparse matrix is damaged, write the file again",
                )
                .into());
        }
        let by_cell = self.by_cell()?;
        check_indptr(sink, &indptr, n_stored, by_cell)?;
        let (mut data, mut indices) = (self.vector("data")?, self.vector("indices")?);
        let width = (data.width() + indices.width()) as u64;
        sink.expect_bytes(if by_cell { 1 } else { 2 } * width * n_stored as u64);
        let next: SparseBlock = &mut |range, minor, values, bytes| {
            // Columns are read twice.
            if range.start == 0 {
                (data, indices) = (self.vector("data")?, self.vector("indices")?);
            }
            indices.next_i64(range.len(), minor)?;
            data.next_f64(range.len(), values)?;
            *bytes = width * range.len() as u64;
            Ok(())
        };
        match by_cell {
            true => read_csr(sink, &indptr, n_stored, BLOCK, next),
            false => read_csc(sink, &indptr, n_stored, BLOCK, next),
        }
    }

    fn dense_shape(&self, array: &ArrayStream) -> Result<(usize, usize)> {
        match array.shape() {
            &[n_cells, n_genes] => Ok((n_cells, n_genes)),
            shape => Err(self.fault("x", format!("it has shape {shape:?}"), "store a table, cells x genes").into()),
        }
    }
}

impl ScreenFile for NpzScreen {
    fn path(&self) -> &Path {
        self.npz.path()
    }

    fn format(&self) -> String {
        "NumPy archive".to_string()
    }

    fn shape(&self) -> Result<(usize, usize)> {
        if !self.is_sparse() {
            if !self.npz.contains("x") {
                return Err(InputError::new(
                    format!("it holds neither `x` nor `data`, but {}", first_few(self.npz.names())),
                    "store counts as `x` (cells x genes) or with scipy.sparse.save_npz",
                )
                .in_file(self.path())
                .into());
            }
            return self.dense_shape(&self.npz.array("x")?);
        }
        let by_cell = self.by_cell()?;
        let shape = self.vector("shape")?.into_i64()?.1;
        match shape[..] {
            // Indices are four bytes wide at most.
            [n_cells @ 0..=0xffff_ffff, n_genes @ 0..=0xffff_ffff]
                if self.vector("indptr")?.shape()[0] as i64 - 1 == if by_cell { n_cells } else { n_genes } =>
            {
                Ok((n_cells as usize, n_genes as usize))
            }
            _ => Err(self
                .fault(
                    "shape",
                    format!("shape {shape:?} does not fit an `indptr` of {}", self.vector("indptr")?.shape()[0]),
                    "the sparse matrix is damaged, write the file again",
                )
                .into()),
        }
    }

    fn cell_names(&self) -> Result<Option<Names>> {
        Ok(self.names("cell_names")?.map(Names::from))
    }

    fn gene_names(&self) -> Result<Option<Vec<String>>> {
        self.names("gene_names")
    }

    fn counts_place(&self) -> String {
        if self.is_sparse() { "sparse matrix".into() } else { "array `x`".into() }
    }

    fn read_counts(&self, sink: &mut CountsSink) -> Result<()> {
        if self.is_sparse() {
            return self.read_sparse(sink);
        }
        let mut x = self.npz.array("x")?;
        let (n_cells, n_genes) = self.dense_shape(&x)?;
        let width = x.width() as u64;
        let mut values = Vec::new();
        if x.is_fortran() {
            sink.expect_bytes(2 * width * (n_cells * n_genes) as u64);
            return sink.receive_unordered(|sink, entry| {
                let mut x = self.npz.array("x")?;
                for gene in 0..n_genes {
                    values.clear();
                    x.next_f64(n_cells, &mut values)?;
                    for (cell, &value) in values.iter().enumerate() {
                        entry(cell as i64, gene as i64, value)?;
                    }
                    sink.advance(width * n_cells as u64);
                }
                Ok(())
            });
        }
        sink.expect_bytes(width * (n_cells * n_genes) as u64);
        let rows = (BLOCK / n_genes).max(1);
        for start in (0..n_cells).step_by(rows) {
            values.clear();
            x.next_f64(rows.min(n_cells - start) * n_genes, &mut values)?;
            push_dense(sink, n_genes, &values)?;
            sink.advance(width * values.len() as u64);
        }
        Ok(())
    }

    fn column_names(&self) -> Result<Vec<String>> {
        let names = self.npz.names().iter();
        Ok(names.filter(|name| !Self::RESERVED.contains(&name.as_str())).cloned().collect())
    }

    fn column_place(&self, name: &str) -> String {
        format!("array `{name}`")
    }

    fn column(&self, name: &str, label: bool) -> Result<Column> {
        let array = self.vector(name)?;
        if label && array.kind() == ElementKind::Integer && self.npz.contains("intervention_names") {
            let levels = self.names("intervention_names")?.expect("the array is there");
            return Ok(Column::Categorical { levels, numbers: None, codes: array.into_i64()?.1 });
        }
        Ok(match array.kind() {
            ElementKind::Integer => Column::Integers(array.into_i64()?.1),
            ElementKind::Bool => Column::Flags(array.into_i64()?.1.into_iter().map(|flag| flag != 0).collect()),
            ElementKind::Float => Column::Numbers(array.into_f64()?.1),
            ElementKind::Text => Column::Strings(array.into_strings()?.1),
        })
    }

    fn cell_matrix_names(&self) -> Result<Vec<String>> {
        let names = self.column_names()?.into_iter();
        names
            .filter_map(|name| {
                let array = self.npz.array(&name);
                array.map(|array| (array.shape().len() == 2).then_some(name)).transpose()
            })
            .collect()
    }

    fn cell_matrix(&self, name: &str) -> Result<CellMatrix> {
        let (shape, values) = self.npz.array_f64(name)?;
        let [n_rows, n_columns] = shape[..] else {
            return Err(self.fault(name, format!("it has shape {shape:?}"), "store a row per cell").into());
        };
        let stored = self.names(&format!("{name}_names"))?.filter(|names| names.len() == n_columns);
        let names = stored.unwrap_or_else(|| (0..n_columns).map(|j| format!("{name}_{j}")).collect());
        Ok(CellMatrix::from_dense(names, n_rows, &values))
    }

    fn stored_library(&self) -> Option<&'static str> {
        self.npz.contains("library").then_some("library")
    }

    fn truth(&self) -> Result<Option<RawTruth>> {
        if !self.npz.contains("latents") || !self.npz.contains("prior_means") {
            return Ok(None);
        }
        let latents = self.npz.array_f64("latents")?;
        let prior_means = self.npz.array_f64("prior_means")?;
        let escaped = self.npz.contains(ESCAPED).then(|| self.npz.array_f64(ESCAPED)).transpose()?;
        Ok(Some(RawTruth { latents, prior_means, escaped: escaped.map(|(_, values)| values) }))
    }

    fn matrices(&self) -> Result<Vec<StoredMatrix>> {
        let (n_cells, n_genes) = self.shape()?;
        let sparse = self.is_sparse();
        let mut array = self.npz.array(if sparse { "data" } else { "x" })?;
        let mut sample = Vec::new();
        let n_stored = sparse.then(|| array.shape().iter().product());
        let dtype = array.dtype();
        array.next_f64(SAMPLE, &mut sample)?;
        let storage = match (sparse, sparse && self.by_cell()?) {
            (false, _) => "dense",
            (true, true) => "CSR",
            (true, false) => "CSC",
        };
        let name = if sparse { "sparse matrix" } else { "x" };
        let compression = None;
        Ok(vec![StoredMatrix { name: name.into(), n_cells, n_genes, storage, dtype, compression, n_stored, sample }])
    }
}

/// Writes a data set as .npz: `x` (cells x genes) if at least half of the counts are non-zero, else the arrays of
/// `scipy.sparse.save_npz`; `label` (number of the intervention of each cell) and `intervention_names`, `gene_names`,
/// `cell_names`, `library`, a column per covariate under its own name and, where known, `latents` (cells x L),
/// `prior_means` (labels x L) and `escaped_truth` (cells). Labels are the interventions, then the combinations that cells are under
/// (`A+B`), each with its prior mean at dose 1, then `control` for cells under none; doses other than 1 are a column `dose`.
/// [`load`](crate::data::loading::load::load) gives the same data set back, if it is told of the control, of `+` and of `dose`.
///
/// # Errors
/// [`InputError`] if a cell has several interventions at different doses, a covariate has a name that the archive needs, or an
/// intervention that of the controls; [`Error::Io`](crate::error::Error::Io) if it cannot be written.
pub fn write_npz(dataset: &Dataset, path: &Path) -> Result<()> {
    let (n_cells, n_genes) = (dataset.n_cells(), dataset.n_genes());
    let counts = &dataset.counts;
    let Labels { labels, names, doses, joint } = labels_of(dataset)?;
    let covariates = &dataset.covariates;
    let columns = covariates.categorical.iter().map(|c| &c.name).chain(covariates.continuous.iter().map(|c| &c.name));
    let mut taken: BTreeSet<&str> = NpzScreen::RESERVED.into_iter().chain(["label", "library", DOSE]).collect();
    for name in columns {
        if !taken.insert(name) {
            return Err(InputError::new(
                format!("a covariate called `{name}` cannot be written to .npz"),
                "give it another name",
            )
            .into());
        }
    }

    let mut npz = NpzWriter::create(path)?;
    if counts.n_nonzero() >= n_cells * n_genes / 2 {
        let mut table = vec![0; n_cells * n_genes];
        for (n, row) in table.chunks_exact_mut(n_genes).enumerate() {
            counts.row(n).for_each(|g, x| row[g] = x);
        }
        npz.add_u32("x", &[n_cells, n_genes], &table)?;
    } else {
        let (mut values, mut genes, mut indptr) = (Vec::new(), Vec::new(), vec![0]);
        for n in 0..n_cells {
            counts.row(n).for_each(|g, x| {
                values.push(x);
                genes.push(g as i64);
            });
            indptr.push(values.len() as i64);
        }
        npz.add_string("format", "csr")?;
        npz.add_i64("shape", &[2], &[n_cells as i64, n_genes as i64])?;
        npz.add_u32("data", &[values.len()], &values)?;
        npz.add_i64("indices", &[genes.len()], &genes)?;
        npz.add_i64("indptr", &[indptr.len()], &indptr)?;
    }
    npz.add_i64("label", &[n_cells], &labels)?;
    npz.add_f64("library", &[n_cells], &dataset.library)?;
    npz.add_strings("intervention_names", &names)?;
    npz.add_strings("gene_names", &dataset.gene_names)?;
    npz.add_strings("cell_names", &dataset.cell_names)?;
    if let Some(doses) = &doses {
        npz.add_f64(DOSE, &[n_cells], doses)?;
    }
    for covariate in &covariates.categorical {
        let values = covariate.codes.iter().map(|&code| &covariate.levels[code as usize]);
        npz.add_strings(&covariate.name, values)?;
    }
    for covariate in &covariates.continuous {
        npz.add_f64(&covariate.name, &[n_cells], &covariate.values)?;
    }
    if let Some(truth) = &dataset.truth {
        npz.add_f64("latents", &[n_cells, truth.n_latents], &truth.latents)?;
        let mut prior_means = truth.prior_means.clone();
        for members in &joint {
            prior_means.extend(truth.prior_mean((members, &vec![1.0; members.len()])));
        }
        // Control cells have a label, so they have a row, of zeros.
        prior_means.resize(names.len() * truth.n_latents, 0.0);
        npz.add_f64("prior_means", &[names.len(), truth.n_latents], &prior_means)?;
        if !truth.escaped.is_empty() {
            let escaped: Vec<i64> = truth.escaped.iter().map(|&escaped| i64::from(escaped)).collect();
            npz.add_i64(ESCAPED, &[n_cells], &escaped)?;
        }
    }
    npz.finish()
}

/// The labels that an archive gives the cells of a data set.
struct Labels {
    /// The number of each cell's label.
    labels: Vec<i64>,
    /// Their names: the interventions, the combinations, then that of cells under none, if there are any.
    names: Vec<String>,
    /// Dose of each cell; `None` where all are 1.
    doses: Option<Vec<f64>>,
    /// Members of the combinations, in the order of their names.
    joint: Vec<Vec<u32>>,
}

fn labels_of(dataset: &Dataset) -> Result<Labels> {
    let (rows, n_interventions) = (&dataset.interventions, dataset.n_interventions());
    let joint: Vec<Vec<u32>> = joint_sets(rows).into_iter().collect();
    let control = (n_interventions + joint.len()) as i64;
    let mut labels = Vec::with_capacity(dataset.n_cells());
    let mut doses = Vec::with_capacity(dataset.n_cells());
    for n in 0..dataset.n_cells() {
        let (members, of_members) = rows.row(n);
        labels.push(match (members, joint_members(members)) {
            ([], _) => control,
            ([a, ..], None) => i64::from(*a),
            (_, Some(set)) => (n_interventions + joint.binary_search(&set).expect("one of the sets")) as i64,
        });
        let dose = of_members.first().copied().unwrap_or(1.0);
        if of_members.iter().any(|&other| other != dose) {
            let problem = "a cell under interventions at different doses cannot be written to .npz";
            let error = InputError::new(problem, "give all of them one dose");
            return Err(error.at(cell_place(n, &dataset.cell_names)).into());
        }
        doses.push(f64::from(dose));
    }
    let mut names = dataset.intervention_names.clone();
    names.extend(joint.iter().map(|members| joint_label(&dataset.intervention_names, members)));
    if labels.contains(&control) {
        if names.iter().any(|name| name == CONTROL) {
            let problem = format!("an intervention is called `{CONTROL}`, as cells under none are");
            return Err(InputError::new(problem, "give it another name").into());
        }
        names.push(CONTROL.to_owned());
    }
    let doses = doses.iter().any(|&dose| dose != 1.0).then_some(doses);
    Ok(Labels { labels, names, doses, joint })
}
