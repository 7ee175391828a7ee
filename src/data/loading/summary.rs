//! What was read from a data file, and what was left out and why: saved beside the results.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::data::dataset::{Dataset, Guides};
use crate::data::formats::screen_file::ScreenFile;

/// What was read, chosen and dropped.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct DataSummary {
    /// The file, or the simulation.
    pub source: String,
    /// Format of the file.
    pub format: String,
    /// The matrix of the file that held the counts.
    pub matrix: String,
    /// Cells of the file.
    pub n_cells_read: usize,
    /// Genes of the file.
    pub n_genes_read: usize,
    /// Cells that are used.
    pub n_cells: usize,
    /// Genes that are used.
    pub n_genes: usize,
    /// Interventions, without controls.
    pub n_interventions: usize,
    /// Non-zero counts that are used.
    pub n_nonzero: usize,
    /// Median size factor of the cells.
    pub median_library: f64,
    /// Labels that are controls (no intervention acts on their cells), and their cells.
    pub controls: Vec<LabelCount>,
    /// Cells of each intervention.
    pub interventions: Vec<LabelCount>,
    /// Cells by the number of their interventions, where any has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cells_by_number: Vec<NumberCount>,
    /// Cells of each combination of several interventions, or of one at another dose than 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub combinations: Vec<CombinationCount>,
    /// Cells of each guide, where guides were named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guides: Vec<LabelCount>,
    /// What was left out, in order.
    pub dropped: Vec<Dropped>,
    /// What might be wrong with the data.
    pub warnings: Vec<String>,
    /// What else there is to say about how the file was read.
    pub notes: Vec<String>,
}

impl DataSummary {
    /// Of a data set and the file that it was read from; what was read, chosen and dropped is left to say.
    pub(crate) fn of(file: &dyn ScreenFile, dataset: &Dataset) -> Self {
        let mut library = dataset.library.clone();
        library.sort_unstable_by(f64::total_cmp);
        Self {
            source: dataset.source.clone(),
            format: file.format(),
            matrix: file.counts_place(),
            n_cells: dataset.n_cells(),
            n_genes: dataset.n_genes(),
            n_interventions: dataset.n_interventions(),
            n_nonzero: dataset.counts.n_nonzero(),
            median_library: library[library.len() / 2],
            guides: dataset.guides.as_ref().map(LabelCount::of_guides).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Counts combinations of several interventions, and cells by the number of theirs, where there are any.
    pub(crate) fn count_combinations(&mut self, dataset: &Dataset) {
        let rows = &dataset.interventions;
        let at_dose_1 = |n: usize| matches!(rows.row(n), ([] | [_], [] | [1.0]));
        if (0..rows.n_cells()).all(at_dose_1) {
            return;
        }
        let found = dataset.combinations(0..rows.n_cells());
        let mut by_number: BTreeMap<usize, usize> = BTreeMap::new();
        found.iter().for_each(|of| *by_number.entry(of.members.len()).or_default() += of.cells.len());
        let count = |(n_interventions, n_cells)| NumberCount { n_interventions, n_cells };
        self.cells_by_number = by_number.into_iter().map(count).collect();
        let listed = found.iter().filter(|of| !matches!(of.members[..], [] | [(_, 1.0)]));
        self.combinations = listed
            .map(|of| CombinationCount {
                label: of.label.clone(),
                members: of.members.iter().map(|&(a, _)| dataset.intervention_names[a as usize].clone()).collect(),
                doses: of.members.iter().map(|&(_, dose)| dose).collect(),
                n_cells: of.cells.len(),
            })
            .collect();
    }
}

/// A number of interventions, and the cells that are under so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NumberCount {
    /// Number of interventions; 0 for controls.
    pub n_interventions: usize,
    /// Cells under so many.
    pub n_cells: usize,
}

/// A combination and its cells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CombinationCount {
    /// Its name.
    pub label: String,
    /// Names of its members, ascending.
    pub members: Vec<String>,
    /// Their doses.
    pub doses: Vec<f32>,
    /// Cells under exactly these.
    pub n_cells: usize,
}

/// A label and its number of cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelCount {
    /// The label.
    pub label: String,
    /// Cells with it.
    pub n_cells: usize,
}

impl LabelCount {
    /// Cells of each guide.
    fn of_guides(guides: &Guides) -> Vec<Self> {
        let mut sizes = vec![0; guides.names.len()];
        guides.codes.iter().flatten().for_each(|&guide| sizes[guide as usize] += 1);
        guides.names.iter().cloned().zip(sizes).map(|(label, n_cells)| Self { label, n_cells }).collect()
    }
}

/// Something left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// "cells", "genes" or "interventions".
    pub what: &'static str,
    /// How many.
    pub n: usize,
    /// Why, in words.
    pub reason: String,
}

impl Dropped {
    /// As a plain sentence; `of` is the number there was.
    pub(crate) fn sentence(&self, of: usize) -> String {
        format!("dropped {} of {of} {} because {}", self.n, self.what, self.reason)
    }
}
