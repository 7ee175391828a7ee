//! A screen as training and evaluation take it: its cells, what is known about them, and how they are split.

use std::sync::Arc;

use crate::data::dataset::Dataset;
use crate::data::loading::load::DataSummary;
use crate::data::mixing::GeneratingModel;
use crate::data::split::ScreenSplit;

/// A screen as it was read or simulated; several runs may share it.
#[derive(Debug, Clone)]
pub struct LoadedScreen {
    /// The cells.
    pub data: Arc<Dataset>,
    /// The model that a simulation was drawn from.
    pub generating: Option<Arc<GeneratingModel>>,
    /// Plain sentences for the user about the data.
    pub notes: Vec<String>,
    /// What was read from the file, if there is one.
    pub summary: Option<DataSummary>,
}

impl LoadedScreen {
    /// The screen with its cells split.
    pub fn split_as(self, split: ScreenSplit) -> Screen {
        let Self { data, generating, notes, summary } = self;
        Screen { data, generating, notes, summary, split }
    }
}

/// A screen with its cells split.
#[derive(Debug, Clone)]
pub struct Screen {
    /// The cells.
    pub data: Arc<Dataset>,
    /// The model that a simulation was drawn from.
    pub generating: Option<Arc<GeneratingModel>>,
    /// Plain sentences for the user about the data.
    pub notes: Vec<String>,
    /// What was read from the file, if there is one.
    pub summary: Option<DataSummary>,
    /// Which cells train, validate and are held out.
    pub split: ScreenSplit,
}
