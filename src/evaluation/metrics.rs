//! The figures of a run, in the order and under the names of `metrics.json`.
//!
//! ELBO and log-likelihood values are *negative* bounds in nats per cell: lower is better.

use crate::training::history::StopReason;
use crate::words::{grouped, rate, seconds};
use serde::Serialize;

use crate::display::table::Table;
use crate::model::method::Method;
use crate::training::shift_fit::HeldoutBatchNorm;

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
    /// Epochs trained; absent where a trained model was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Why the training ended; absent where a trained model was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReason>,
    /// Trainings from several starting values, where there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<StartsMetrics>,
    /// Negative ELBO of the training cells with the kept weights, nats per cell.
    pub elbo_train: f64,
    /// Negative ELBO of the validation cells with the kept weights, nats per cell.
    pub elbo_validation: f64,
    /// Its part that is the mean negative log-likelihood of the validation cells.
    pub reconstruction_validation: f64,
    /// Its part that is the mean KL divergence of the latents. What is missing to the sum is the penalty's share.
    pub kl_validation: f64,
    /// Mean KL divergence of each latent over training and validation cells, nats; about 0 for a latent not in use.
    pub latent_kl: Vec<f64>,
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
    /// How well the true model knows the latents, where the run simulated its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oracle: Option<LatentOracleMetrics>,
    /// What simple models reach on the same validation cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineMetrics>,
    /// Figures on held-out interventions, where any are held out and not skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heldout: Option<HeldoutMetrics>,
    /// Time and memory.
    pub timing: Timing,
}

/// Trainings of one model from several starting values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StartsMetrics {
    /// Validation ELBO of the epoch that each training keeps, as in its history, or that of its trial: the mean over the last tenth
    /// of the epochs; none where it ended in values that are not finite.
    pub elbo_validation: Vec<Option<f64>>,
    /// Epochs of each trial; none where every start was trained to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial_epochs: Option<usize>,
    /// Number of the training that was kept, from 0.
    pub kept: usize,
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

/// Negative log-likelihoods of simple models, nats per cell, on the validation cells or on the held-out cells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BaselineMetrics {
    /// One negative binomial per gene: mean proportional to the size factor, one dispersion per gene; fitted to the
    /// training cells.
    pub pooled_negative_binomial: f64,
    /// The same with rates of each intervention, drawn towards the pool. Of held-out interventions they are fitted to
    /// one half of the cells and judged on the other, both ways round.
    pub per_intervention_negative_binomial: f64,
}

/// Figures on the cells of held-out interventions. Bounds are means within each intervention, then over interventions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldoutMetrics {
    /// Importance-weighted bound of the negative log-likelihood after the fit of the shifts, nats per cell.
    pub nll_iwelbo: f64,
    /// Negative ELBO after the fit of the shifts, nats per cell.
    pub elbo: f64,
    /// Samples per cell.
    pub particles: usize,
    /// Number of interventions in the means.
    pub n_interventions: usize,
    /// Running statistics of batch normalisation during the fit; absent where the prior has no shifts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_norm: Option<HeldoutBatchNorm>,
    /// The two bounds after each stage.
    pub stages: StageMetrics,
    /// How well the fitted model, after its second training, recovers the latents of the trained interventions' cells; where the
    /// truth is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latents: Option<RecoveryMetrics>,
    /// What simple models reach on the same cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineMetrics>,
    /// The floor, known where the screen was simulated by this very run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oracle: Option<OracleMetrics>,
    /// The bounds of each intervention after the fit.
    pub per_intervention: Vec<InterventionMetrics>,
    /// Interventions with too few cells for a mean.
    pub left_out: Vec<String>,
    /// The second training; absent where a trained model was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retraining: Option<RetrainingMetrics>,
    /// Seconds spent.
    pub seconds: HeldoutSeconds,
}

/// How well latents are recovered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RecoveryMetrics {
    /// Mean correlation coefficient (Pearson) of matched latents.
    pub mcc_pearson: f64,
    /// Mean correlation coefficient (Spearman) of matched latents.
    pub mcc_spearman: f64,
    /// R2 of the linear regression from inferred to true latents.
    pub r2: f64,
}

/// Bounds after the stages of the held-out protocol.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StageMetrics {
    /// With the masks as trained, random.
    pub before_binarisation: BoundMetrics,
    /// After the second training, on fixed masks; held-out shifts are 0. Absent where only the fitted model is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_retraining: Option<BoundMetrics>,
    /// After the fit of the held-out shifts.
    pub after_fitting: BoundMetrics,
}

/// Two bounds of a negative log-likelihood, nats per cell: lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BoundMetrics {
    /// Importance-weighted bound.
    pub nll_iwelbo: f64,
    /// Negative ELBO.
    pub elbo: f64,
}

/// The bounds of one held-out intervention.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InterventionMetrics {
    /// Its name.
    pub intervention: String,
    /// Number of its cells.
    pub n_cells: usize,
    /// Importance-weighted bound, nats per cell.
    pub nll_iwelbo: f64,
    /// Negative ELBO, nats per cell.
    pub elbo: f64,
}

/// The negative log-likelihood under the true model, averaged as the bounds are, on some of the held-out cells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OracleMetrics {
    /// Nats per cell.
    pub nll: f64,
    /// Cells it was measured on.
    pub n_cells: usize,
    /// Samples per cell.
    pub particles: usize,
}

/// How well the true model knows the latents of some cells of the trained interventions: the ceiling of the scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatentOracleMetrics {
    /// Mean correlation coefficient (Pearson) of its posterior means.
    pub mcc_pearson: f64,
    /// Mean correlation coefficient (Spearman) of its posterior means.
    pub mcc_spearman: f64,
    /// R2 of the linear regression from its posterior means to the true latents.
    pub r2: f64,
    /// Nats per cell that a diagonal covariance of the posterior costs at the true model.
    pub diagonal_gap: f64,
    /// Cells it was measured on.
    pub n_cells: usize,
    /// Samples per cell.
    pub particles: usize,
}

/// How the second training went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RetrainingMetrics {
    /// Epochs trained.
    pub epochs: usize,
    /// Why it ended.
    pub stop_reason: StopReason,
}

/// Seconds spent on held-out interventions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct HeldoutSeconds {
    /// Second training.
    pub retraining: f64,
    /// Fit of the shifts.
    pub fitting: f64,
    /// Bounds, all stages.
    pub bounds: f64,
    /// Baselines and oracle.
    pub baselines: f64,
}

/// Time and memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    /// Seconds spent in training; absent where a trained model was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_seconds: Option<f64>,
    /// Training cells passed per second of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cells_per_second: Option<f64>,
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

    /// The metrics as a JSON value.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("metrics are plain numbers and names")
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
        if let Some(epochs) = self.epochs {
            row("epochs", epochs.to_string(), self.stop_reason.map_or("", StopReason::in_words));
        }
        row("ELBO, training", format!("{:.2}", self.elbo_train), "negative, nats per cell; lower is better");
        row("ELBO, validation", format!("{:.2}", self.elbo_validation), "");
        if let Some(baseline) = &self.baseline {
            let value = baseline.pooled_negative_binomial;
            row("pooled negative binomial", format!("{value:.2}"), "validation cells; a useful model is lower");
            let value = baseline.per_intervention_negative_binomial;
            row("negative binomial per intervention", format!("{value:.2}"), "validation cells");
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
        if let Some(oracle) = &self.oracle {
            let note = format!("the true model, on {} cells", grouped(oracle.n_cells as u64));
            row("oracle's MCC, Pearson", format!("{:.3}", oracle.mcc_pearson), &note);
            row("oracle's R2", format!("{:.3}", oracle.r2), &note);
        }
        if let Some(mask) = &self.mask {
            row("masks on", format!("{:.1} %", 100.0 * mask.fraction_on), "");
            row("interventions with a target", grouped(mask.interventions_with_target as u64), "");
        }
        if let Some(heldout) = &self.heldout {
            heldout.rows(&mut row);
        }
        if let (Some(time), Some(speed)) = (self.timing.train_seconds, self.timing.cells_per_second) {
            row("training", seconds(time), &format!("{} cells/s", rate(speed)));
        }
        row("whole run", seconds(self.timing.total_seconds), "");
        if let Some(bytes) = self.timing.peak_rss_bytes {
            row("peak memory", format!("{:.0} MB", bytes as f64 / 1e6), "");
        }
        table
    }
}

impl HeldoutMetrics {
    /// Rows of the table for people.
    fn rows(&self, row: &mut impl FnMut(&str, String, &str)) {
        let few = match self.left_out.len() {
            0 => String::new(),
            n => format!("; {n} left out: too few cells"),
        };
        row("held-out interventions", self.n_interventions.to_string(), &format!("in the means below{few}"));
        let drifted = self.batch_norm == Some(HeldoutBatchNorm::Drift);
        let samples = format!(
            "IWELBO, {} samples{}",
            grouped(self.particles as u64),
            if drifted { "; encoder statistics drifted" } else { "" }
        );
        row("held-out NLL", format!("{:.2}", self.nll_iwelbo), &samples);
        row("held-out ELBO", format!("{:.2}", self.elbo), "negative, nats per cell");
        row("  before binarisation", format!("{:.2}", self.stages.before_binarisation.nll_iwelbo), "IWELBO");
        if let Some(bounds) = &self.stages.after_retraining {
            row("  after retraining", format!("{:.2}", bounds.nll_iwelbo), "IWELBO; held-out shifts are 0");
        }
        if let Some(latents) = &self.latents {
            let note = format!("of the fitted model; Spearman {:.3}, R2 {:.3}", latents.mcc_spearman, latents.r2);
            row("  MCC, Pearson", format!("{:.3}", latents.mcc_pearson), &note);
        }
        if let Some(baseline) = &self.baseline {
            let note = "held-out cells; a useful model is lower";
            row("  pooled negative binomial", format!("{:.2}", baseline.pooled_negative_binomial), note);
            let value = baseline.per_intervention_negative_binomial;
            row("  negative binomial per intervention", format!("{value:.2}"), "cross-fitted on halves of the cells");
        }
        if let Some(oracle) = &self.oracle {
            let note = format!("the true model, on {} cells", grouped(oracle.n_cells as u64));
            row("  oracle", format!("{:.2}", oracle.nll), &note);
        }
        let s = &self.seconds;
        let spent = s.retraining + s.fitting + s.bounds + s.baselines;
        let parts =
            format!("retraining {}, fit {}, bounds {}", seconds(s.retraining), seconds(s.fitting), seconds(s.bounds));
        row("held-out stages", seconds(spent), &parts);
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
            epochs: Some(212),
            stop_reason: Some(StopReason::EarlyStopping),
            starts: None,
            elbo_train: 314.25,
            reconstruction_validation: 320.0,
            kl_validation: 20.0,
            latent_kl: vec![1.5, 0.0],
            elbo_validation: 315.5,
            mcc_pearson: Some(0.9),
            mcc_spearman: Some(0.8),
            r2: Some(0.85),
            graph: Some(GraphMetrics {
                reference: PrecisionRecall { precision: 0.5, recall: 0.25, f1: 1.0 / 3.0 },
                corrected: PrecisionRecall { precision: 1.0, recall: 0.5, f1: 2.0 / 3.0 },
            }),
            mask: Some(MaskMetrics { fraction_on: 0.125, interventions_with_target: 80 }),
            oracle: Some(LatentOracleMetrics {
                mcc_pearson: 0.982,
                mcc_spearman: 0.947,
                r2: 0.965,
                diagonal_gap: 4.9,
                n_cells: 2000,
                particles: 200,
            }),
            baseline: Some(BaselineMetrics {
                pooled_negative_binomial: 400.0,
                per_intervention_negative_binomial: 399.0,
            }),
            heldout: Some(HeldoutMetrics {
                nll_iwelbo: 314.875,
                elbo: 316.0,
                particles: 1000,
                n_interventions: 1,
                batch_norm: Some(HeldoutBatchNorm::Frozen),
                stages: StageMetrics {
                    before_binarisation: BoundMetrics { nll_iwelbo: 330.25, elbo: 340.0 },
                    after_retraining: Some(BoundMetrics { nll_iwelbo: 329.75, elbo: 339.0 }),
                    after_fitting: BoundMetrics { nll_iwelbo: 314.875, elbo: 316.0 },
                },
                baseline: None,
                oracle: Some(OracleMetrics { nll: 297.5, n_cells: 2000, particles: 200 }),
                per_intervention: vec![InterventionMetrics {
                    intervention: "a".into(),
                    n_cells: 11,
                    nll_iwelbo: 314.875,
                    elbo: 316.0,
                }],
                left_out: vec!["b".into()],
                latents: Some(RecoveryMetrics { mcc_pearson: 0.957, mcc_spearman: 0.889, r2: 0.916 }),
                retraining: Some(RetrainingMetrics { epochs: 100, stop_reason: StopReason::EarlyStopping }),
                seconds: HeldoutSeconds::default(),
            }),
            timing: Timing {
                train_seconds: Some(61.0),
                cells_per_second: Some(123_456.7),
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
                "reconstruction_validation",
                "kl_validation",
                "latent_kl",
                "mcc_pearson",
                "mcc_spearman",
                "r2",
                "graph",
                "mask",
                "oracle",
                "baseline",
                "heldout",
                "timing"
            ]
        );
        assert_eq!(value["method"], "svae-plus");
        assert_eq!(value["stop_reason"], "early_stopping");
        assert_eq!(value["graph"]["corrected"]["f1"], 2.0 / 3.0);
        assert_eq!(value["heldout"]["batch_norm"], "frozen");
        assert_eq!(value["heldout"]["stages"]["after_retraining"]["nll_iwelbo"], 329.75);
        assert_eq!(value["graph"]["reference"]["recall"], 0.25);
        assert_eq!(value["timing"]["peak_rss_bytes"], 1u64 << 30);
    }

    #[test]
    fn figures_that_need_the_truth_are_absent_without_it() {
        let heldout = metrics().heldout.map(|heldout| HeldoutMetrics { latents: None, ..heldout });
        let unknown = Metrics {
            mcc_pearson: None,
            mcc_spearman: None,
            r2: None,
            graph: None,
            oracle: None,
            heldout,
            ..metrics()
        };
        let value: serde_json::Value = serde_json::from_str(&unknown.to_json()).expect("JSON");
        for key in ["mcc_pearson", "mcc_spearman", "r2", "graph"] {
            assert!(value.get(key).is_none(), "{key}");
        }
        assert!(value["heldout"].get("latents").is_none());
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
            "0.982",
            "0.965",
            "0.957",
            "0.889",
            "0.916",
            "12.5 %",
            "123,457",
            "314.88",
            "330.25",
            "297.50",
            "1 left out",
            "1 h 02 min",
        ] {
            assert!(text.contains(shown), "{shown} in\n{text}");
        }
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
