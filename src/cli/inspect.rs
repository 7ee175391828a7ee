//! Arguments of `svae-cpu inspect`.

use std::path::PathBuf;

use crate::data::loading::load::LoadOptions;

/// Arguments of `svae-cpu inspect`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// Data file or matrix-market folder; several are lanes of one screen
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Matrix of an AnnData file to look at first: a layer, or raw (by default X)
    #[arg(long, value_name = "LAYER")]
    pub layer: Option<String>,
    /// Genome of a 10x file
    #[arg(long, value_name = "GENOME")]
    pub genome: Option<String>,
    /// Modality of a MuData file (by default the one of the genes)
    #[arg(long, value_name = "NAME")]
    pub modality: Option<String>,
    /// Table of labels (CSV or TSV) to look at as well; of several files, one for all or one for each
    #[arg(long, value_name = "FILE")]
    pub labels: Vec<PathBuf>,
    /// Print one JSON object on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
}

impl InspectArgs {
    /// The first file, and how it and the others are opened.
    pub fn opened(&self) -> (PathBuf, LoadOptions) {
        let mut files = self.files.iter().cloned();
        let mut tables = self.labels.iter().cloned();
        let (first, labels) = (files.next().unwrap_or_default(), tables.next());
        let options = LoadOptions {
            layer: self.layer.clone(),
            genome: self.genome.clone(),
            modality: self.modality.clone(),
            labels,
            further_data: files.collect(),
            further_labels: tables.collect(),
            ..LoadOptions::default()
        };
        (first, options)
    }
}

const EXAMPLES: &str = "\
Examples:
  svae-cpu inspect screen.h5ad                         matrices, columns, and the command to train on it
  svae-cpu inspect filtered_feature_bc_matrix --labels guides.csv
  svae-cpu inspect screen.h5ad --json | jq -r .command";
