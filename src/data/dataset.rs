//! A screen in memory: counts, size factors, interventions, covariates and, for simulations, the truth.

use super::counts::Counts;
use crate::error::Result;

/// Which interventions each cell received, as sparse rows of weights over interventions.
///
/// A cell under one intervention has one entry of weight 1. Combinations (several entries) and doses (other weights)
/// are rows of the same kind: the prior mean of a cell is the weighted sum of its interventions' masked shifts.
#[derive(Debug, Clone, PartialEq)]
pub struct InterventionRows {
    offsets: Vec<u32>,
    interventions: Vec<u32>,
    weights: Vec<f32>,
    max_len: usize,
}

impl Default for InterventionRows {
    fn default() -> Self {
        Self { offsets: vec![0], interventions: Vec::new(), weights: Vec::new(), max_len: 0 }
    }
}

impl InterventionRows {
    /// One intervention of weight 1 per cell.
    pub fn one_hot(labels: impl IntoIterator<Item = usize>) -> Self {
        let mut rows = Self::default();
        for a in labels {
            rows.push(&[(a as u32, 1.0)]);
        }
        rows
    }

    /// Appends a cell.
    pub fn push(&mut self, row: &[(u32, f32)]) {
        for &(a, w) in row {
            self.interventions.push(a);
            self.weights.push(w);
        }
        self.offsets.push(self.interventions.len() as u32);
        self.max_len = self.max_len.max(row.len());
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Largest number of interventions on one cell: one mask is drawn for each.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// `(interventions, weights)` of cell `n`.
    #[inline]
    pub fn row(&self, n: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[n] as usize..self.offsets[n + 1] as usize;
        (&self.interventions[range.clone()], &self.weights[range])
    }

    /// The intervention of cell `n` if it has exactly one.
    pub fn single(&self, n: usize) -> Option<usize> {
        match self.row(n).0 {
            [a] => Some(*a as usize),
            _ => None,
        }
    }

    /// The rows of `cells`, in that order.
    pub fn select(&self, cells: &[usize]) -> Self {
        let mut rows = Self::default();
        for &n in cells {
            let (a, w) = self.row(n);
            let row: Vec<_> = a.iter().copied().zip(w.iter().copied()).collect();
            rows.push(&row);
        }
        rows
    }
}

/// One categorical covariate (a batch label, a donor): a level per cell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Categorical {
    /// Column name.
    pub name: String,
    /// Names of the levels.
    pub levels: Vec<String>,
    /// Level of each cell.
    pub codes: Vec<u32>,
}

/// One continuous covariate: a value per cell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Continuous {
    /// Column name.
    pub name: String,
    /// Value of each cell.
    pub values: Vec<f64>,
}

/// Covariates in the order the model receives them: categorical (the batch label first), then continuous.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Covariates {
    /// Categorical covariates; one with a single level is dropped by the model.
    pub categorical: Vec<Categorical>,
    /// Continuous covariates.
    pub continuous: Vec<Continuous>,
}

impl Covariates {
    fn select(&self, cells: &[usize]) -> Self {
        Self {
            categorical: self
                .categorical
                .iter()
                .map(|c| Categorical {
                    name: c.name.clone(),
                    levels: c.levels.clone(),
                    codes: cells.iter().map(|&n| c.codes[n]).collect(),
                })
                .collect(),
            continuous: self
                .continuous
                .iter()
                .map(|c| Continuous { name: c.name.clone(), values: cells.iter().map(|&n| c.values[n]).collect() })
                .collect(),
        }
    }
}

/// What a simulation knows and a screen does not.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// Number of true latents, L.
    pub n_latents: usize,
    /// True latents, cells x L, row-major.
    pub latents: Vec<f64>,
    /// True prior means (shift times target, zero where an intervention does not act), interventions x L, row-major.
    pub prior_means: Vec<f64>,
}

/// A screen in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Where it came from, for messages and records: a path, or the simulator's settings.
    pub source: String,
    /// Counts, cells x genes.
    pub counts: Counts,
    /// Size factor of each cell (`library` of the likelihood): its total count unless a column was named.
    pub library: Vec<f64>,
    /// Interventions of each cell.
    pub interventions: InterventionRows,
    /// Names of the interventions, indexed as in `interventions`.
    pub intervention_names: Vec<String>,
    /// Names of the genes.
    pub gene_names: Vec<String>,
    /// Names of the cells (barcodes).
    pub cell_names: Vec<String>,
    /// Covariates.
    pub covariates: Covariates,
    /// The truth, where it is known.
    pub truth: Option<Truth>,
}

impl Dataset {
    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.counts.n_cells()
    }

    /// Number of genes.
    pub fn n_genes(&self) -> usize {
        self.counts.n_genes()
    }

    /// Number of interventions, A.
    pub fn n_interventions(&self) -> usize {
        self.intervention_names.len()
    }

    /// The data set restricted to `cells`, in that order; interventions keep their numbers.
    ///
    /// # Panics
    /// If the counts are on disk.
    pub fn select(&self, cells: &[usize]) -> Self {
        self.restricted(cells, self.counts.select(cells))
    }

    /// As [`Dataset::select`], of `cells` that ascend, with their counts in memory wherever they were.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn resident(&self, cells: &[usize]) -> Result<Self> {
        match self.counts.disk() {
            Some(disk) => Ok(self.restricted(cells, disk.read(cells)?)),
            None => Ok(self.select(cells)),
        }
    }

    fn restricted(&self, cells: &[usize], counts: Counts) -> Self {
        Self {
            source: self.source.clone(),
            counts,
            library: cells.iter().map(|&n| self.library[n]).collect(),
            interventions: self.interventions.select(cells),
            intervention_names: self.intervention_names.clone(),
            gene_names: self.gene_names.clone(),
            cell_names: cells.iter().map(|&n| self.cell_names[n].clone()).collect(),
            covariates: self.covariates.select(cells),
            truth: self.truth.as_ref().map(|truth| Truth {
                n_latents: truth.n_latents,
                latents: cells
                    .iter()
                    .flat_map(|&n| &truth.latents[n * truth.n_latents..(n + 1) * truth.n_latents])
                    .copied()
                    .collect(),
                prior_means: truth.prior_means.clone(),
            }),
        }
    }
}
