//! Which cells, genes and annotations of a file to use.

use std::path::{Path, PathBuf};

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::data::formats::screen_file::OpenOptions;
use crate::error::InputError;

/// What becomes of cells under several interventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SeveralInterventions {
    /// They are cells of a combination
    Keep,
    /// They are left out
    Drop,
}

/// Which cells, genes and annotations to use, and how; it is written with the names of its settings.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct LoadOptions {
    /// Matrix of an AnnData file: a layer, `X` or `raw`; if absent, `X`.
    pub layer: Option<String>,
    /// Genome of a 10x file; if absent, all.
    pub genome: Option<String>,
    /// Modality of a MuData file; if absent, the one that is usually that of the genes.
    pub modality: Option<String>,
    /// File of the barcodes of a matrix-market file; if absent, the one that belongs to it by its name.
    pub barcodes: Option<PathBuf>,
    /// File of its features, likewise.
    pub features: Option<PathBuf>,
    /// Table of labels (CSV or TSV): a row per barcode.
    pub labels: Option<PathBuf>,
    /// Further files of the same screen, each from a lane of its own.
    #[serde(skip)]
    pub further_data: Vec<PathBuf>,
    /// Tables of labels of these, in their order; if there are none, `labels` holds the cells of all files.
    #[serde(skip)]
    pub further_labels: Vec<PathBuf>,
    /// Column of the intervention label; if absent, one of the usual names.
    pub label_key: Option<String>,
    /// Labels of control cells, on which no intervention acts.
    pub control: Vec<String>,
    /// What separates the interventions of a label; if absent, a label is one intervention.
    pub combination_separator: Option<String>,
    /// Columns that say of each cell at which dose (0: not at all) it received the intervention that each is called after: names
    /// of columns, or what several begin with, or of a matrix of the cells. They stand in for the label.
    pub intervention_columns: Option<Vec<String>>,
    /// Column of the doses of a cell: one for all of its interventions, or one for each.
    pub dose_key: Option<String>,
    /// Table of guides and their targets: each guide stands for its target.
    pub guide_targets: Option<PathBuf>,
    /// Fewest counts of a guide in a cell that received it; guides are features of the matrix of counts, or the
    /// `intervention_columns`. They stand in for the label.
    pub guide_threshold: Option<usize>,
    /// What becomes of cells under several interventions. If absent they are kept, but a table of labels has one row per cell.
    pub several_interventions: Option<SeveralInterventions>,
    /// Column of the guide of each cell, by which edges are checked.
    pub guide_key: Option<String>,
    /// Column of the batch label: the first categorical covariate.
    pub batch_key: Option<String>,
    /// Further categorical covariates.
    pub categorical_covariates: Vec<String>,
    /// Continuous covariates.
    pub continuous_covariates: Vec<String>,
    /// Column of size factors; if absent, the total count of each cell over the genes that are used.
    pub size_factor_key: Option<String>,
    /// Column of the genes by which to call them; if absent, by the names that the file gives them.
    pub gene_names: Option<String>,
    /// Names of genes that a model knows: genes are called by the column that has most of them.
    #[serde(skip)]
    pub known_genes: Vec<String>,
    /// File of the genes to use.
    pub genes: Option<PathBuf>,
    /// Number of highly variable genes to use.
    pub top_genes: Option<usize>,
    /// Interventions with fewer cells are left out, with their cells.
    pub min_cells_per_label: usize,
    /// Cells with a lower total count, over all genes of the file, are left out.
    pub min_counts: u64,
    /// Whether cells without any count are left out instead of refused.
    pub drop_empty_cells: bool,
    /// Whether the cells are taken without labels, for a model that was trained on others: all get one intervention.
    #[serde(skip)]
    pub unlabelled: bool,
    /// Whether cells without a label are left out instead of refused.
    pub drop_unlabelled_cells: bool,
    /// Bytes that counts may take in memory, where they stay in their file ([`ScreenCounts`](crate::data::counts::ScreenCounts)).
    #[serde(flatten, serialize_with = "stream_settings")]
    pub stream: Option<usize>,
}

/// Megabytes of counts in memory where nothing else is said.
pub const USUAL_BUFFER: usize = 1024;

/// Writes [`LoadOptions::stream`] as two settings, the buffer in megabytes.
fn stream_settings<S: Serializer>(stream: &Option<usize>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    let mut settings = serializer.serialize_map(None)?;
    settings.serialize_entry("stream", &stream.is_some())?;
    settings.serialize_entry("stream_buffer", &stream.map_or(USUAL_BUFFER, |bytes| bytes >> 20))?;
    settings.end()
}

impl LoadOptions {
    /// # Errors
    /// [`InputError`] if two options exclude each other.
    pub(crate) fn check(&self) -> Result<(), InputError> {
        if self.genes.is_some() && self.top_genes.is_some() {
            return Err(InputError::new("genes are both listed and to be selected", "choose one of the two"));
        }
        if self.combination_separator.as_deref() == Some("") {
            return Err(InputError::new(
                "the separator of combinations is empty",
                "give what stands between the parts",
            ));
        }
        let of_labels = self.label_key.is_some() || self.combination_separator.is_some() || self.dose_key.is_some();
        match self.reads_no_label() && of_labels {
            true => Err(InputError::new(
                "interventions are read from columns or guide counts, but something is said of labels too",
                "choose one of the two",
            )),
            false => Ok(()),
        }
    }

    /// Whether interventions are read from elsewhere than a label.
    pub fn reads_no_label(&self) -> bool {
        self.intervention_columns.is_some() || self.guide_threshold.is_some()
    }

    /// The table of labels of all cells, if there is one.
    pub(crate) fn table_of_all(&self) -> Option<&Path> {
        self.labels.as_deref().filter(|_| self.further_labels.is_empty())
    }

    /// What matters before the file is opened.
    pub(crate) fn for_opening(&self) -> OpenOptions<'_> {
        let keys = self.label_key.iter().chain(&self.guide_key).chain(&self.batch_key).chain(&self.size_factor_key);
        let keys = keys.chain(&self.categorical_covariates).chain(&self.continuous_covariates).chain(&self.dose_key);
        OpenOptions {
            layer: self.layer.as_deref(),
            genome: self.genome.as_deref(),
            barcodes: self.barcodes.as_deref(),
            features: self.features.as_deref(),
            modality: self.modality.as_deref(),
            labels: self.table_of_all(),
            further: &self.further_data,
            lane_labels: match self.further_labels.is_empty() {
                true => Vec::new(),
                false => self.labels.iter().chain(&self.further_labels).map(PathBuf::as_path).collect(),
            },
            columns: keys.map(String::as_str).collect(),
            beginnings: match self.labels {
                Some(_) => Vec::new(),
                None => self.intervention_columns.iter().flatten().map(|entry| entry.trim_end_matches('*')).collect(),
            },
        }
    }
}
