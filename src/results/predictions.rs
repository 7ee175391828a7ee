//! Predictions of combinations, as they are passed on and as the file that they are written to, a few combinations at a time.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::data::counts::in_memory::{Counts, CountsBuilder};
use crate::data::dataset::Dataset;
use crate::data::formats::anndata_writer::{AnnDataWriter, FrameColumn, GrowingArrays, GrowingCounts};
use crate::data::formats::npz_screen::write_npz;
use crate::error::{Error, Result};
use crate::parallel::team::{Team, tiles};
use crate::results::anndata::annotations;
use crate::results::output_file::OutputKind;
use crate::system::files::GrowingTable;

/// Columns of the table of predictions.
const COLUMNS: [&str; 8] = [
    "combination",
    "gene",
    "control",
    "mean",
    "effect",
    "log2_fold_change",
    "log2_fold_change_low",
    "log2_fold_change_high",
];
/// Matrices of an AnnData file of predictions: the mean expression, and its layers.
const MATRICES: [&str; 5] =
    ["X", "layers/effect", "layers/log2_fold_change", "layers/log2_fold_change_low", "layers/log2_fold_change_high"];

/// Rows of latents in a chunk of a file of simulated cells.
const LATENTS_AT_ONCE: usize = 4096;

/// What is predicted of a combination, gene by gene.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictedEffects {
    /// Its label.
    pub label: String,
    /// Number of its members.
    pub n_members: usize,
    /// Mean expression, counts per 10,000.
    pub mean: Vec<f64>,
    /// Effect against control: the difference in ln(1 + mean expression).
    pub effect: Vec<f64>,
    /// log2 of the mean expression over that of control.
    pub log2_fold_change: Vec<f64>,
    /// The 95 % interval of the fold change, Eq. (Cb12), or Eq. (Cb5) by the model alone; `None` where a member's shifts have no known error.
    pub interval: Option<[Vec<f64>; 2]>,
}

/// What is said before predictions.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictedControl {
    /// Mean expression without any intervention, counts per 10,000.
    pub mean: Vec<f64>,
    /// Predictions passed on at a time, but for the last ones.
    pub at_once: usize,
    /// Whether they come from the model that was fitted to held-out interventions.
    pub from_held_out_fit: bool,
}

/// Takes the control first, then the predictions, so many at a time.
pub trait TakePredictions {
    /// What is written of the control.
    ///
    /// # Errors
    /// Those of writing; likewise below.
    fn control(&mut self, control: &PredictedControl) -> Result<()>;

    /// The next predictions.
    ///
    /// # Errors
    /// As above.
    fn predictions(&mut self, team: &Team, predictions: &[PredictedEffects]) -> Result<()>;
}

/// A table of predictions with a row per combination and gene.
pub struct PredictionTable {
    table: GrowingTable,
    /// Names of the genes as fields of the table.
    genes: Vec<String>,
    control: Vec<f64>,
}

impl PredictionTable {
    /// Begins the table `path`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file; likewise below.
    pub fn create(path: &Path, genes: &[String]) -> Result<Self> {
        let table = GrowingTable::create(path.to_path_buf(), &COLUMNS)?;
        Ok(Self { table, genes: genes.iter().map(|gene| field(gene)).collect(), control: Vec::new() })
    }

    /// Completes it.
    ///
    /// # Errors
    /// As above.
    pub fn finish(self) -> Result<()> {
        self.table.finish()
    }
}

impl TakePredictions for PredictionTable {
    fn control(&mut self, control: &PredictedControl) -> Result<()> {
        self.control.clone_from(&control.mean);
        Ok(())
    }

    fn predictions(&mut self, team: &Team, predictions: &[PredictedEffects]) -> Result<()> {
        let mut lines = vec![String::new(); predictions.len()];
        let (genes, control) = (&self.genes, &self.control);
        team.run(predictions.len(), tiles(&mut lines, 1), |i, lines| {
            let (found, text) = (&predictions[i], &mut lines[0]);
            let label = field(&found.label);
            for (g, gene) in genes.iter().enumerate() {
                // Single precision is what the model computes in; more digits would be noise.
                let numbers = [control[g], found.mean[g], found.effect[g], found.log2_fold_change[g]].map(|x| x as f32);
                let [control, mean, effect, change] = numbers;
                let _ = write!(text, "{label},{gene},{control},{mean},{effect},{change},");
                let _ = match &found.interval {
                    Some([low, high]) => writeln!(text, "{},{}", low[g] as f32, high[g] as f32),
                    None => writeln!(text, ","),
                };
            }
        });
        lines.iter().try_for_each(|lines| self.table.push_lines(lines))
    }
}

/// A name as a field of a table.
fn field(name: &str) -> String {
    match name.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

/// An AnnData file of predictions with a row per combination: expression in `X`, effects and fold changes in `layers`.
pub struct PredictionFile<'a> {
    file: AnnDataWriter,
    genes: &'a [String],
    /// Labels of all combinations that will come.
    labels: Vec<String>,
    n_members: Vec<i64>,
    control: Vec<f64>,
    matrices: Option<GrowingArrays>,
}

impl<'a> PredictionFile<'a> {
    /// Begins the file `path` for predictions of these combinations.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file; likewise below.
    pub fn create(path: &Path, genes: &'a [String], labels: Vec<String>) -> Result<Self> {
        let file = AnnDataWriter::create(path)?;
        Ok(Self { file, genes, labels, n_members: Vec::new(), control: Vec::new(), matrices: None })
    }

    /// Completes it.
    ///
    /// # Errors
    /// As above.
    pub fn finish(self) -> Result<()> {
        let Self { file, genes, labels, n_members, control, matrices } = self;
        drop(matrices);
        file.frame("obs", &labels, &[("n_members".to_owned(), FrameColumn::Integers(n_members))])?;
        file.frame("var", genes, &[("control".to_owned(), FrameColumn::Numbers(control))])?;
        file.finish()
    }
}

impl TakePredictions for PredictionFile<'_> {
    fn control(&mut self, control: &PredictedControl) -> Result<()> {
        self.control.clone_from(&control.mean);
        let shape = [self.labels.len(), self.genes.len()];
        self.matrices = Some(self.file.growing_arrays(&MATRICES, shape, control.at_once)?);
        Ok(())
    }

    fn predictions(&mut self, _: &Team, predictions: &[PredictedEffects]) -> Result<()> {
        self.n_members.extend(predictions.iter().map(|found| found.n_members as i64));
        let unknown = vec![f64::NAN; self.genes.len()];
        let end = |found: &'_ PredictedEffects, i: usize| match &found.interval {
            Some(interval) => interval[i].clone(),
            None => unknown.clone(),
        };
        let of = |matrix: usize, found: &PredictedEffects| match matrix {
            0 => found.mean.clone(),
            1 => found.effect.clone(),
            2 => found.log2_fold_change.clone(),
            matrix => end(found, matrix - 3),
        };
        let blocks: Vec<Vec<f32>> = (0..MATRICES.len())
            .map(|matrix| predictions.iter().flat_map(|found| of(matrix, found)).map(|x| x as f32).collect())
            .collect();
        self.matrices.as_mut().expect("begun with the control").push(&self.file, &blocks)
    }
}

/// Takes simulated cells, a few combinations at a time.
pub trait TakeCells {
    /// All that is known of all cells but their counts, and whether they come from the model that was fitted to held-out interventions.
    ///
    /// # Errors
    /// Those of writing; likewise below.
    fn begin(&mut self, cells: &Dataset, from_held_out_fit: bool) -> Result<()>;

    /// The counts and latents (cells x L) of the next cells.
    ///
    /// # Errors
    /// As above.
    fn cells(&mut self, counts: Counts, latents: &[f64]) -> Result<()>;
}

/// A file of simulated cells. Counts are written as they come, but for a NumPy archive, which is written at the end.
pub struct CellsFile {
    path: PathBuf,
    n_latents: usize,
    content: CellsContent,
    /// What is known of all cells but their counts, once begun.
    data: Option<Dataset>,
    /// Whether the cells come from the model that was fitted to held-out interventions.
    pub from_held_out_fit: bool,
    n_written: usize,
}

/// What of it is open.
enum CellsContent {
    Table(Option<Box<GrowingTable>>),
    Archive(CountsBuilder),
    AnnData(Option<(AnnDataWriter, GrowingCounts, GrowingArrays)>),
}

impl CellsFile {
    /// Readies the file `path`; nothing is written yet.
    pub fn new(path: &Path, kind: OutputKind, n_genes: usize, n_latents: usize) -> Self {
        let content = match kind {
            OutputKind::Csv => CellsContent::Table(None),
            OutputKind::Npz => CellsContent::Archive(CountsBuilder::new(n_genes)),
            OutputKind::H5ad => CellsContent::AnnData(None),
        };
        let path = path.to_path_buf();
        Self { path, n_latents, content, data: None, from_held_out_fit: false, n_written: 0 }
    }

    /// Completes it, and returns the number of its cells.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file; likewise above.
    pub fn finish(self) -> Result<usize> {
        let Self { path, content, data, n_written, .. } = self;
        let Some(mut data) = data else { return Ok(0) };
        match content {
            CellsContent::Table(table) => table.map_or(Ok(()), |table| table.finish())?,
            CellsContent::Archive(builder) => {
                data.counts = builder.finish().into();
                write_npz(&data, &path)?;
            }
            CellsContent::AnnData(None) => {}
            CellsContent::AnnData(Some((file, counts, latents))) => {
                drop(latents);
                file.grown_counts("X", counts)?;
                let mut obs = annotations(&data);
                obs.push(("size_factor".to_owned(), FrameColumn::Numbers(data.library.clone())));
                file.frame("obs", &data.cell_names, &obs)?;
                file.frame("var", &data.gene_names, &[])?;
                file.finish()?;
            }
        }
        Ok(n_written)
    }
}

impl TakeCells for CellsFile {
    fn begin(&mut self, cells: &Dataset, from_held_out_fit: bool) -> Result<()> {
        self.data = Some(cells.clone());
        self.from_held_out_fit = from_held_out_fit;
        match &mut self.content {
            CellsContent::Table(table) => {
                let header: Vec<&str> =
                    ["cell"].into_iter().chain(cells.gene_names.iter().map(String::as_str)).collect();
                *table = Some(Box::new(GrowingTable::create(self.path.clone(), &header)?));
            }
            CellsContent::Archive(_) => {}
            CellsContent::AnnData(open) => {
                let file = AnnDataWriter::create(&self.path)?;
                let counts = file.growing_counts(cells.gene_names.len())?;
                let shape = [cells.library.len(), self.n_latents];
                let latents = file.growing_arrays(&["obsm/X_svae"], shape, LATENTS_AT_ONCE)?;
                *open = Some((file, counts, latents));
            }
        }
        Ok(())
    }

    fn cells(&mut self, counts: Counts, latents: &[f64]) -> Result<()> {
        let data = self.data.as_ref().expect("begun");
        match &mut self.content {
            CellsContent::Table(table) => {
                let table = table.as_mut().expect("begun");
                let mut row = vec![0; counts.n_genes()];
                for n in 0..counts.n_cells() {
                    row.fill(0);
                    counts.row(n).for_each(|gene, x| row[gene] = x);
                    let name = data.cell_names[self.n_written + n].to_owned();
                    table.push([name].into_iter().chain(row.iter().map(u32::to_string)))?;
                }
            }
            CellsContent::Archive(builder) => (0..counts.n_cells()).for_each(|n| builder.push_row(counts.row(n))),
            CellsContent::AnnData(open) => {
                let (file, matrix, arrays) = open.as_mut().expect("begun");
                matrix.push(&counts).map_err(|e| Error::io("writing", &self.path, e))?;
                arrays.push(file, &[latents.iter().map(|&z| z as f32).collect()])?;
            }
        }
        self.n_written += counts.n_cells();
        Ok(())
    }
}
