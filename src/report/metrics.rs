//! The figures of a run, in the order and under the names of `metrics.json`.
//!
//! ELBO and log-likelihood values are *negative* bounds in nats per cell: lower is better.

use serde::Serialize;

use super::table::Table;
use crate::config::Method;

/// Why a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// All epochs were done.
    EpochLimit,
    /// The validation ELBO had not improved for `patience` epochs.
    EarlyStopping,
    /// A value was not finite; the last good state was kept.
    NonFinite,
}

impl StopReason {
    /// The reason in words.
    pub fn in_words(self) -> &'static str {
        match self {
            StopReason::EpochLimit => "epoch limit",
            StopReason::EarlyStopping => "early stopping",
            StopReason::NonFinite => "non-finite value",
        }
    }
}

/// The figures of a run. Figures that need the truth are absent where it is unknown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    /// Method trained.
    pub method: Method,
    /// Seed of the random streams.
    pub seed: u64,
    /// Number of cells.
    pub n_cells: usize,
    /// Number of genes, G.
    pub n_genes: usize,
    /// Number of interventions, A.
    pub n_interventions: usize,
    /// Epochs trained.
    pub epochs: usize,
    /// Why the training ended.
    pub stop_reason: StopReason,
    /// Negative ELBO of the training cells with the kept weights, nats per cell.
    pub elbo_train: f64,
    /// Negative ELBO of the validation cells with the kept weights, nats per cell.
    pub elbo_validation: f64,
    /// Mean correlation coefficient (Pearson) of matched latents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcc_pearson: Option<f64>,
    /// Mean correlation coefficient (Spearman) of matched latents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcc_spearman: Option<f64>,
    /// R2 of the linear regression from inferred to true latents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r2: Option<f64>,
    /// Identification of targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<GraphMetrics>,
    /// How full the masks are, for methods that learn them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<MaskMetrics>,
    /// What simple models reach on the same validation cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineMetrics>,
    /// Time and memory.
    pub timing: Timing,
}

/// Identification of targets by the two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GraphMetrics {
    /// As the reference implementation scores: signed correlations, all interventions.
    pub reference: PrecisionRecall,
    /// Absolute correlations, trained interventions only; perfect recovery scores 1.
    pub corrected: PrecisionRecall,
}

/// Precision, recall and their harmonic mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PrecisionRecall {
    /// Share of the inferred targets that are true.
    pub precision: f64,
    /// Share of the true targets that are inferred.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

/// How full the masks of the trained interventions are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MaskMetrics {
    /// Share of (intervention, latent) pairs with mask probability above 0.5.
    pub fraction_on: f64,
    /// Number of interventions with at least one such latent.
    pub interventions_with_target: usize,
}

/// Negative log-likelihoods of simple models, nats per cell, on the validation cells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BaselineMetrics {
    /// One negative binomial per gene: mean proportional to the size factor, one dispersion per gene.
    pub pooled_negative_binomial: f64,
}

/// Time and memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    /// Seconds spent in training.
    pub train_seconds: f64,
    /// Training cells passed per second of training.
    pub cells_per_second: f64,
    /// Seconds of the whole run.
    pub total_seconds: f64,
    /// Largest resident memory of the process, in bytes; null where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
}

impl Metrics {
    /// The JSON text of the metrics, keys in the order of this structure, without a final line break.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("metrics are plain numbers and names")
    }

    /// The metrics as a table for people.
    pub fn table(&self) -> Table {
        let mut table = Table::new(["metric", "value", "note"]).right_aligned([1]);
        let mut row = |name: &str, value: String, note: &str| table.push([name.to_owned(), value, note.to_owned()]);
        row("method", self.method.name().to_owned(), "");
        row("seed", self.seed.to_string(), "");
        row("cells", grouped(self.n_cells as u64), "");
        row("genes", grouped(self.n_genes as u64), "");
        row("interventions", grouped(self.n_interventions as u64), "");
        row("epochs", self.epochs.to_string(), self.stop_reason.in_words());
        row("ELBO, training", format!("{:.2}", self.elbo_train), "negative, nats per cell; lower is better");
        row("ELBO, validation", format!("{:.2}", self.elbo_validation), "");
        if let Some(baseline) = &self.baseline {
            let value = baseline.pooled_negative_binomial;
            row("pooled negative binomial", format!("{value:.2}"), "validation cells; a useful model is lower");
        }
        if let Some(value) = self.mcc_pearson {
            row("MCC, Pearson", format!("{value:.3}"), "1 is perfect");
        }
        if let Some(value) = self.mcc_spearman {
            row("MCC, Spearman", format!("{value:.3}"), "");
        }
        if let Some(value) = self.r2 {
            row("R2", format!("{value:.3}"), "inferred to true latents");
        }
        if let Some(graph) = &self.graph {
            for (name, scores) in [("corrected", graph.corrected), ("reference", graph.reference)] {
                let note = format!("precision {:.3}, recall {:.3}", scores.precision, scores.recall);
                row(&format!("targets F1, {name}"), format!("{:.3}", scores.f1), &note);
            }
        }
        if let Some(mask) = &self.mask {
            row("masks on", format!("{:.1} %", 100.0 * mask.fraction_on), "");
            row("interventions with a target", grouped(mask.interventions_with_target as u64), "");
        }
        row("training", seconds(self.timing.train_seconds), &format!("{} cells/s", rate(self.timing.cells_per_second)));
        row("whole run", seconds(self.timing.total_seconds), "");
        if let Some(bytes) = self.timing.peak_rss_bytes {
            row("peak memory", format!("{:.0} MB", bytes as f64 / 1e6), "");
        }
        table
    }
}

/// Largest resident memory of this process so far, in bytes; `None` where the system does not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    parse_peak_rss(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// A whole number with its thousands separated: 12,345.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Cells per second, rounded to three digits or so.
pub(crate) fn rate(value: f64) -> String {
    if value.is_finite() && value >= 0.0 { grouped(value.round() as u64) } else { "-".to_owned() }
}

/// A duration for people: 0.52 s, 12.3 s, 4 min 05 s, 2 h 03 min.
pub fn seconds(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return "-".to_owned();
    }
    let whole = value.round() as u64;
    match whole {
        0..10 => format!("{value:.2} s"),
        10..60 => format!("{value:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics {
            method: Method::SvaePlus,
            seed: 7,
            n_cells: 50_000,
            n_genes: 100,
            n_interventions: 100,
            epochs: 212,
            stop_reason: StopReason::EarlyStopping,
            elbo_train: 314.25,
            elbo_validation: 315.5,
            mcc_pearson: Some(0.9),
            mcc_spearman: Some(0.8),
            r2: Some(0.85),
            graph: Some(GraphMetrics {
                reference: PrecisionRecall { precision: 0.5, recall: 0.25, f1: 1.0 / 3.0 },
                corrected: PrecisionRecall { precision: 1.0, recall: 0.5, f1: 2.0 / 3.0 },
            }),
            mask: Some(MaskMetrics { fraction_on: 0.125, interventions_with_target: 80 }),
            baseline: Some(BaselineMetrics { pooled_negative_binomial: 400.0 }),
            timing: Timing {
                train_seconds: 61.0,
                cells_per_second: 123_456.7,
                total_seconds: 3725.0,
                peak_rss_bytes: Some(1 << 30),
            },
        }
    }

    #[test]
    fn json_has_the_promised_keys_in_order() {
        let value: serde_json::Value = serde_json::from_str(&metrics().to_json()).expect("JSON");
        let keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "method",
                "seed",
                "n_cells",
                "n_genes",
                "n_interventions",
                "epochs",
                "stop_reason",
                "elbo_train",
                "elbo_validation",
                "mcc_pearson",
                "mcc_spearman",
                "r2",
                "graph",
                "mask",
                "baseline",
                "timing"
            ]
        );
        assert_eq!(value["method"], "svae-plus");
        assert_eq!(value["stop_reason"], "early_stopping");
        assert_eq!(value["graph"]["corrected"]["f1"], 2.0 / 3.0);
        assert_eq!(value["graph"]["reference"]["recall"], 0.25);
        assert_eq!(value["timing"]["peak_rss_bytes"], 1u64 << 30);
    }

    #[test]
    fn figures_that_need_the_truth_are_absent_without_it() {
        let unknown = Metrics { mcc_pearson: None, mcc_spearman: None, r2: None, graph: None, ..metrics() };
        let value: serde_json::Value = serde_json::from_str(&unknown.to_json()).expect("JSON");
        for key in ["mcc_pearson", "mcc_spearman", "r2", "graph"] {
            assert!(value.get(key).is_none(), "{key}");
        }
        assert!(!unknown.table().to_string().contains("MCC"));
    }

    #[test]
    fn the_table_shows_every_figure() {
        let text = metrics().table().to_string();
        for shown in [
            "svae-plus",
            "50,000",
            "212",
            "early stopping",
            "315.50",
            "0.900",
            "0.667",
            "12.5 %",
            "123,457",
            "1 h 02 min",
        ] {
            assert!(text.contains(shown), "{shown} in\n{text}");
        }
    }

    #[test]
    fn peak_memory_is_read_from_the_kernel() {
        assert_eq!(parse_peak_rss("VmPeak:\t  99 kB\nVmHWM:\t   1234 kB\n"), Some(1234 * 1024));
        assert_eq!(parse_peak_rss("VmPeak:\t  99 kB\n"), None);
        #[cfg(target_os = "linux")]
        assert!(peak_rss_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.5, 12.34, 59.96, 3599.7, 7380.0].map(seconds),
            ["0.50 s", "12.3 s", "1 min 00 s", "1 h 00 min", "2 h 03 min"]
        );
    }
}
