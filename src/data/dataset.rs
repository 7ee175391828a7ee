//! A screen: counts, size factors, interventions, covariates and, for simulations, the truth.

use crate::data::counts::ScreenCounts;
use crate::data::counts::in_memory::{Counts, CountsBuilder};
use crate::data::names::Names;
use crate::error::Result;

/// Which interventions each cell received, as sparse rows of doses over interventions.
///
/// A cell under one intervention has one entry of dose 1. Combinations (several entries) and other doses
/// are rows of the same kind: the prior mean of a cell is the sum of its interventions' masked shifts, each times its dose.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InterventionRows {
    n_cells: usize,
    /// `offsets[n]..offsets[n + 1]` are the entries of cell `n`; empty as long as every cell has one.
    offsets: Vec<u32>,
    interventions: Vec<u32>,
    /// Empty as long as all are 1.
    doses: Vec<f32>,
    max_len: usize,
}

/// Doses of rows whose doses are all 1; longer rows hold their own.
const ONES: [f32; 16] = [1.0; 16];

impl InterventionRows {
    /// One intervention of dose 1 per cell.
    pub fn one_hot(labels: impl IntoIterator<Item = usize>) -> Self {
        let mut rows = Self::default();
        for a in labels {
            rows.push(&[(a as u32, 1.0)]);
        }
        rows
    }

    /// Appends a cell.
    pub fn push(&mut self, row: &[(u32, f32)]) {
        if self.offsets.is_empty() && row.len() != 1 {
            self.offsets = (0..=self.n_cells as u32).collect();
        }
        let plain = row.len() <= ONES.len() && row.iter().all(|&(_, dose)| dose == 1.0);
        if self.doses.is_empty() && !plain {
            self.doses = vec![1.0; self.interventions.len()];
        }
        self.interventions.extend(row.iter().map(|&(a, _)| a));
        if !(plain && self.doses.is_empty()) {
            self.doses.extend(row.iter().map(|&(_, dose)| dose));
        }
        self.n_cells += 1;
        if !self.offsets.is_empty() {
            self.offsets.push(self.interventions.len() as u32);
        }
        self.max_len = self.max_len.max(row.len());
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.n_cells
    }

    /// Largest number of interventions on one cell: one mask is drawn for each.
    pub fn max_len(&self) -> usize {
        self.max_len
    }

    /// `(interventions, doses)` of cell `n`.
    #[inline]
    pub fn row(&self, n: usize) -> (&[u32], &[f32]) {
        let range = match self.offsets[..] {
            [] => n..n + 1,
            ref offsets => offsets[n] as usize..offsets[n + 1] as usize,
        };
        let doses = match self.doses[..] {
            [] => &ONES[..range.len()],
            ref doses => &doses[range.clone()],
        };
        (&self.interventions[range], doses)
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
    /// The covariates of `cells`, in that order.
    pub(crate) fn select(&self, cells: &[usize]) -> Self {
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

/// The guide of each cell: one of several against the same intervention, or of several controls.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Guides {
    /// Column name.
    pub name: String,
    /// Names of the guides.
    pub names: Vec<String>,
    /// Guide of each cell, `None` where it is unknown.
    pub codes: Vec<Option<u32>>,
}

impl Guides {
    fn select(&self, cells: &[usize]) -> Self {
        Self { codes: cells.iter().map(|&n| self.codes[n]).collect(), ..self.clone() }
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
    /// Whether each cell escaped its intervention, so that its latents have the prior mean 0; empty where none did.
    pub escaped: Vec<bool>,
    /// Combinations that act otherwise than by the sum of their members' shifts, by members, ascending.
    pub interactions: Vec<TrueInteraction>,
}

/// By how much the true prior mean of a combination is not the sum of its members'.
#[derive(Debug, Clone, PartialEq)]
pub struct TrueInteraction {
    /// The members of the combination, ascending.
    pub members: Vec<u32>,
    /// What comes to the sum at dose 1 of every member, L; at other doses that times their product.
    pub deviation: Vec<f64>,
}

impl Truth {
    /// The prior mean (L) of cells under these interventions and doses that did not escape them: the sum over the members, each
    /// times its dose, and the interaction of exactly these members, Eqs. (Cb1) and (Cb2) of `derivations/predictions.md`.
    pub fn prior_mean(&self, (interventions, doses): (&[u32], &[f32])) -> Vec<f64> {
        let l = self.n_latents;
        let mut mean = vec![0.0; l];
        for (&a, &dose) in interventions.iter().zip(doses) {
            let means = &self.prior_means[a as usize * l..(a as usize + 1) * l];
            mean.iter_mut().zip(means).for_each(|(p, m)| *p += f64::from(dose) * m);
        }
        if let Ok(i) = self.interactions.binary_search_by(|other| other.members[..].cmp(interventions)) {
            let doses: f64 = doses.iter().map(|&dose| f64::from(dose)).product();
            mean.iter_mut().zip(&self.interactions[i].deviation).for_each(|(p, d)| *p += doses * d);
        }
        mean
    }
}

/// A screen. All of it is in memory, but for the counts where they stay in their file.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Where it came from, for messages and records: a path, or the simulator's settings.
    pub source: String,
    /// Counts, cells x genes.
    pub counts: ScreenCounts,
    /// Size factor of each cell (`library` of the likelihood): its total count unless a column was named.
    pub library: Vec<f64>,
    /// Interventions of each cell.
    pub interventions: InterventionRows,
    /// Names of the interventions, indexed as in `interventions`.
    pub intervention_names: Vec<String>,
    /// Names of the genes.
    pub gene_names: Vec<String>,
    /// Names of the cells (barcodes).
    pub cell_names: Names,
    /// Covariates.
    pub covariates: Covariates,
    /// Guides, where they were named: what is found is checked by them, and the training does not see them.
    pub guides: Option<Guides>,
    /// The truth, where it is known.
    pub truth: Option<Truth>,
}

impl Dataset {
    /// The screen with all counts 0 and without its truth: the names, interventions, covariates, guides and size factors of its cells.
    pub fn without_counts(&self) -> Self {
        let mut counts = CountsBuilder::new(self.n_genes());
        (0..self.n_cells()).for_each(|_| counts.end_cell());
        Self {
            source: self.source.clone(),
            counts: counts.finish().into(),
            library: self.library.clone(),
            interventions: self.interventions.clone(),
            intervention_names: self.intervention_names.clone(),
            gene_names: self.gene_names.clone(),
            cell_names: self.cell_names.clone(),
            covariates: self.covariates.clone(),
            guides: self.guides.clone(),
            truth: None,
        }
    }

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
            counts: counts.into(),
            library: cells.iter().map(|&n| self.library[n]).collect(),
            interventions: self.interventions.select(cells),
            intervention_names: self.intervention_names.clone(),
            gene_names: self.gene_names.clone(),
            cell_names: self.cell_names.select(cells),
            covariates: self.covariates.select(cells),
            guides: self.guides.as_ref().map(|guides| guides.select(cells)),
            truth: self.truth.as_ref().map(|truth| Truth {
                n_latents: truth.n_latents,
                latents: cells
                    .iter()
                    .flat_map(|&n| &truth.latents[n * truth.n_latents..(n + 1) * truth.n_latents])
                    .copied()
                    .collect(),
                prior_means: truth.prior_means.clone(),
                escaped: if truth.escaped.is_empty() {
                    Vec::new()
                } else {
                    cells.iter().map(|&n| truth.escaped[n]).collect()
                },
                interactions: truth.interactions.clone(),
            }),
        }
    }
}

/// For tests: small counts of five genes under two interventions, so that posteriors of one latent are wide.
#[cfg(test)]
pub(crate) fn five_genes() -> Dataset {
    let table: Vec<u32> = (0..12).flat_map(|n| (0..5).map(move |g| ((n * 7 + g * 5 + n * g) % 6) as u32)).collect();
    let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    Dataset {
        source: "test".into(),
        library: table.chunks(5).map(|x| x.iter().sum::<u32>() as f64).collect(),
        counts: Counts::from_dense(5, &table).into(),
        interventions: InterventionRows::one_hot((0..12).map(|n| n % 2)),
        intervention_names: names(2),
        gene_names: names(5),
        cell_names: names(12).into(),
        covariates: Covariates::default(),
        guides: None,
        truth: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_whatever_their_doses_and_lengths() {
        let long: Vec<(u32, f32)> = (0..20).map(|a| (a, 1.0)).collect();
        let kinds: [&[(u32, f32)]; 5] = [&[(3, 1.0)], &[], &[(1, 1.0), (2, 1.0)], &[(0, 0.5)], &long];
        // All orders of three of them, each after plain rows and before others.
        for pick in 0..125 {
            let rows: Vec<&[(u32, f32)]> =
                [0, 0, pick % 5, pick / 5 % 5, pick / 25, 0].iter().map(|&kind| kinds[kind]).collect();
            let mut held = InterventionRows::default();
            rows.iter().for_each(|row| held.push(row));
            assert_eq!(held.n_cells(), rows.len());
            assert_eq!(held.max_len(), rows.iter().map(|row| row.len()).max().unwrap());
            for (n, row) in rows.iter().enumerate() {
                let (a, w): (Vec<u32>, Vec<f32>) = row.iter().copied().unzip();
                assert_eq!(held.row(n), (&a[..], &w[..]), "{pick}: {n}");
            }
            assert_eq!(held.select(&(0..rows.len()).collect::<Vec<_>>()), held);
        }
    }
}
