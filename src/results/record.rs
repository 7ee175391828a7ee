//! The record of a run: settings, figures, what was read from the data.

use std::io::Write;

use crate::data::loading::load::DataSummary;
use crate::display::json::to_json;
use crate::error::Result;
use crate::evaluation::metrics::Metrics;
use crate::evaluation::predictions::bounds::HeldOutBounds;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::results::read::json;
use crate::settings::Settings;

/// The importance-weighted bounds of held-out combinations that a run of the folder has found; `None` where it has not.
///
/// # Errors
/// [`crate::InputError`] for figures that are damaged.
pub fn held_out_bounds(folder: &ResultsFolder) -> Result<Option<HeldOutBounds>> {
    for file in [ResultsFile::Evaluation, ResultsFile::Metrics].map(|file| folder.file(file)) {
        if file.is_file() {
            let figures = json(&file)?;
            let of = |key: &str| figures["heldout"][key].as_f64();
            if let (Some(by_combination), Some(by_cell)) = (of("nll_iwelbo"), of("nll_iwelbo_by_cell")) {
                return Ok(Some(HeldOutBounds::new(by_combination, by_cell)));
            }
        }
    }
    Ok(None)
}

impl ResultsFolder {
    /// Writes `config.toml`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_config(&self, config: &Settings) -> Result<()> {
        self.write(ResultsFile::Config, |file| file.write_all(config.to_toml().as_bytes()))
    }

    /// Writes `metrics.json`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_metrics(&self, metrics: &Metrics) -> Result<()> {
        self.write(ResultsFile::Metrics, |file| writeln!(file, "{}", to_json(metrics)))
    }

    /// Writes `data.json`: what was read from the data file, chosen and dropped.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_data_summary(&self, summary: &DataSummary) -> Result<()> {
        self.write(ResultsFile::DataSummary, |file| writeln!(file, "{}", to_json(summary)))
    }

    /// Writes `evaluation.json`, the metrics of a model that was read.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_evaluation(&self, metrics: &Metrics) -> Result<()> {
        self.write(ResultsFile::Evaluation, |file| writeln!(file, "{}", to_json(metrics)))
    }
}
