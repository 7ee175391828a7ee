//! The figures of a finished run, read back from its `metrics.json`: tables are the same whether a run was done just
//! now or long ago.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, InputError, Result};
use crate::results::catalogue::ResultsFile;

/// A figure of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, the column's.
    pub key: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// Where it stands in `metrics.json`; empty for one that is worked out.
    pub path: &'static [&'static str],
    /// Digits after the point for people.
    pub digits: usize,
    /// Whether it stands in the tables for people too.
    pub shown: bool,
}

const fn metric(key: &'static str, label: &'static str, path: &'static [&'static str], digits: usize) -> Metric {
    Metric { key, label, path, digits, shown: true }
}

const fn hidden(key: &'static str, label: &'static str, path: &'static [&'static str], digits: usize) -> Metric {
    Metric { shown: false, ..metric(key, label, path, digits) }
}

/// The negative ELBO of the validation cells without the penalty of the masks, by which settings are chosen.
pub const CRITERION_ELBO: &str = "elbo_unpenalised";
/// Unsupervised disentanglement ranking.
pub const CRITERION_UDR: &str = "udr";

/// The figures of the tables, in their order.
pub const METRICS: [Metric; 18] = [
    metric("mcc_pearson", "MCC, Pearson", &["mcc_pearson"], 3),
    metric("oracle_mcc_pearson", "MCC, oracle", &["oracle", "mcc_pearson"], 3),
    metric("mcc_spearman", "MCC, Spearman", &["mcc_spearman"], 3),
    metric("r2", "R2", &["r2"], 3),
    metric("reference_precision", "precision, reference", &["graph", "reference", "precision"], 3),
    metric("reference_recall", "recall, reference", &["graph", "reference", "recall"], 3),
    metric("reference_f1", "F1, reference", &["graph", "reference", "f1"], 3),
    hidden("corrected_precision", "precision, corrected", &["graph", "corrected", "precision"], 3),
    hidden("corrected_recall", "recall, corrected", &["graph", "corrected", "recall"], 3),
    metric("corrected_f1", "F1, corrected", &["graph", "corrected", "f1"], 3),
    metric("elbo_validation", "ELBO, validation", &["elbo_validation"], 2),
    metric(CRITERION_ELBO, "without penalty", &[], 2),
    metric(CRITERION_UDR, "UDR", &[], 3),
    metric("heldout_nll", "held-out NLL", &["heldout", "nll_iwelbo"], 2),
    metric("heldout_elbo", "held-out ELBO", &["heldout", "elbo"], 2),
    metric("heldout_mcc_pearson", "MCC, fitted model", &["heldout", "latents", "mcc_pearson"], 3),
    metric("heldout_oracle", "oracle", &["heldout", "oracle", "nll"], 2),
    metric("mask_on", "masks on", &["mask", "fraction_on"], 3),
];

/// The time columns, which stand last.
pub const TIMES: [Metric; 2] = [
    metric("train_seconds", "training, s", &["timing", "train_seconds"], 0),
    metric("total_seconds", "whole run, s", &["timing", "total_seconds"], 0),
];

/// The figures of a finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// A value for each of [`METRICS`], where it has one; UDR is filled in later.
    pub values: Vec<Option<f64>>,
    /// A value for each of [`TIMES`].
    pub times: Vec<Option<f64>>,
    /// Mean divergence of each latent, nats.
    pub latent_kl: Vec<f64>,
    /// Epochs of the first training.
    pub epochs: Option<u64>,
    /// Why it ended; empty for the linear model.
    pub stop_reason: String,
    /// Whether there are held-out figures.
    pub heldout: bool,
    /// Number of held-out interventions in the means.
    pub n_heldout: Option<u64>,
    /// Held-out interventions with too few cells for a mean.
    pub left_out: Vec<String>,
}

impl Figures {
    /// Reads `metrics.json` in `folder`.
    ///
    /// # Errors
    /// A file that cannot be read or is no metrics file.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = ResultsFile::Metrics.within(folder);
        let text = std::fs::read_to_string(&path).map_err(|source| Error::io("reading", &path, source))?;
        let damaged = || InputError::new("these are no metrics of a run", "repeat the run").in_file(&path);
        let metrics: Value = serde_json::from_str(&text).map_err(|_| damaged())?;
        let at = |path: &[&str]| path.iter().try_fold(&metrics, |value, key| value.get(key));
        let number = |path: &[&str]| at(path).and_then(Value::as_f64);
        let list = |path: &[&str]| at(path).and_then(Value::as_array).cloned().unwrap_or_default();
        let words = |path: &[&str]| at(path).and_then(Value::as_str).map(str::to_owned);
        words(&["method"]).ok_or_else(damaged)?;
        let unpenalised = number(&["reconstruction_validation"]).zip(number(&["kl_validation"])).map(|(r, k)| r + k);
        let value = |metric: &Metric| match metric.key {
            CRITERION_ELBO => unpenalised,
            _ if metric.path.is_empty() => None,
            _ => number(metric.path),
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Self {
            values: METRICS.iter().map(value).collect(),
            times: TIMES.iter().map(|metric| number(metric.path)).collect(),
            latent_kl: list(&["latent_kl"]).iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect(),
            epochs: at(&["epochs"]).and_then(Value::as_u64),
            stop_reason: words(&["stop_reason"]).unwrap_or_default(),
            heldout: at(&["heldout"]).is_some(),
            n_heldout: at(&["heldout", "n_interventions"]).and_then(Value::as_u64),
            left_out: list(&["heldout", "left_out"]).iter().filter_map(text).collect(),
        })
    }

    /// The figure called `key`.
    pub fn value(&self, key: &str) -> Option<f64> {
        METRICS.iter().position(|metric| metric.key == key).and_then(|i| self.values[i])
    }

    /// Sets the figure called `key`.
    pub fn set(&mut self, key: &str, value: f64) {
        if let Some(i) = METRICS.iter().position(|metric| metric.key == key) {
            self.values[i] = Some(value);
        }
    }
}
