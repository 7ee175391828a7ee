//! The figures of a run, as a table for people.

use crate::display::table::Table;
use crate::evaluation::interactions::InteractionClass;
use crate::evaluation::metrics::{EdgeMetrics, HeldoutMetrics, InteractionMetrics, Metrics};
use crate::training::history::StopReason;
use crate::training::shift_fit::HeldoutBatchNorm;
use crate::words::{grouped, percent, rate, seconds};

/// The figures of a run as a table for people.
pub fn metrics_table(metrics: &Metrics) -> Table {
    let mut table = Table::new(["metric", "value", "note"]).right_aligned([1]);
    let mut row = |name: &str, value: String, note: &str| table.push([name.to_owned(), value, note.to_owned()]);
    row("method", metrics.method.name().to_owned(), "");
    row("seed", metrics.seed.to_string(), "");
    row("cells", grouped(metrics.n_cells as u64), "");
    row("genes", grouped(metrics.n_genes as u64), "");
    row("interventions", grouped(metrics.n_interventions as u64), "");
    if let Some(epochs) = metrics.epochs {
        row("epochs", epochs.to_string(), metrics.stop_reason.map_or("", StopReason::in_words));
    }
    row("ELBO, training", format!("{:.2}", metrics.elbo_train), "negative, nats per cell; lower is better");
    row("ELBO, validation", format!("{:.2}", metrics.elbo_validation), "");
    if let Some(baseline) = &metrics.baseline {
        let value = baseline.pooled_negative_binomial;
        row("pooled negative binomial", format!("{value:.2}"), "validation cells; a useful model is lower");
        let value = baseline.per_intervention_negative_binomial;
        row("negative binomial per intervention", format!("{value:.2}"), "validation cells");
    }
    if let Some(value) = metrics.mcc_pearson {
        row("MCC, Pearson", format!("{value:.3}"), "1 is perfect");
    }
    if let Some(value) = metrics.mcc_spearman {
        row("MCC, Spearman", format!("{value:.3}"), "");
    }
    if let Some(value) = metrics.r2 {
        row("R2", format!("{value:.3}"), "inferred to true latents");
    }
    if let Some(graph) = &metrics.graph {
        for (name, scores) in [("corrected", graph.corrected), ("reference", graph.reference)] {
            let note = format!("precision {:.3}, recall {:.3}", scores.precision, scores.recall);
            row(&format!("targets F1, {name}"), format!("{:.3}", scores.f1), &note);
        }
    }
    if let Some(oracle) = &metrics.oracle {
        let note = format!("the true model, on {} cells", grouped(oracle.n_cells as u64));
        row("oracle's MCC, Pearson", format!("{:.3}", oracle.mcc_pearson), &note);
        row("oracle's R2", format!("{:.3}", oracle.r2), &note);
    }
    if let (Some(mask), None) = (&metrics.mask, &metrics.edges) {
        row("masks on", format!("{:.1} %", 100.0 * mask.fraction_on), "");
        row("interventions with a target", grouped(mask.interventions_with_target as u64), "");
    }
    if let Some(edges) = &metrics.edges {
        edge_rows(edges, &mut row);
    }
    if let Some(interactions) = &metrics.interactions {
        interaction_rows(interactions, &mut row);
    }
    if let Some(linear) = &metrics.linear {
        let note = format!("{} of them among those above", grouped(linear.n_shared as u64));
        row("edges, linear model", grouped(linear.n_edges as u64), &note);
    }
    if let Some(heldout) = &metrics.heldout {
        held_out_rows(heldout, &mut row);
    }
    if let (Some(time), Some(speed)) = (metrics.timing.train_seconds, metrics.timing.cells_per_second) {
        row("training", seconds(time), &format!("{} cells/s", rate(speed)));
    }
    row("whole run", seconds(metrics.timing.total_seconds), "");
    if let Some(bytes) = metrics.timing.peak_rss_bytes {
        row("peak memory", format!("{:.0} MB", bytes as f64 / 1e6), "");
    }
    table
}

/// The rows of the edges.
fn edge_rows(edges: &EdgeMetrics, row: &mut impl FnMut(&str, String, &str)) {
    let rate = percent(edges.fdr);
    let chance = edges.permutation.mean_edges;
    let note = format!("at a false discovery rate of {rate}; {chance:.1} by chance, with labels permuted");
    row("edges", grouped(edges.n_edges as u64), &note);
    row("interventions with an edge", grouped(edges.interventions_with_edge as u64), "");
    if let Some(found) = &edges.calibration {
        let note =
            format!("of the edges; {} of {} true ones found", percent(found.recall), grouped(found.n_true as u64));
        row("false edges", percent(found.false_discovery_proportion), &note);
        if let Some(coverage) = found.interval_coverage {
            row("95 % intervals right", percent(coverage), "of the shifts of true edges");
        }
    }
}

/// The rows of combinations beside the sums of their members.
fn interaction_rows(found: &InteractionMetrics, row: &mut impl FnMut(&str, String, &str)) {
    let n_additive =
        found.classes.iter().filter(|of| of.class == InteractionClass::Additive).map(|of| of.n).sum::<usize>();
    let note = match found.n_not_compared {
        0 => "compared with the sums of their members".to_owned(),
        n => format!(
            "compared with the sums of their members; {n} with too few cells, of them or of a member alone, are not"
        ),
    };
    row("combinations", grouped(found.n_compared as u64), &note);
    let note =
        format!("a combination and a latent off the sum; {} combinations are additive", grouped(n_additive as u64));
    row("interactions", grouped(found.n_interactions as u64), &note);
    if let Some(of) = &found.recovery {
        let note =
            format!("of the interactions; {} of {} true ones found", percent(of.recall), grouped(of.n_true as u64));
        row("false interactions", percent(of.false_discovery_proportion), &note);
    }
}

/// The rows of the held-out protocol.
fn held_out_rows(heldout: &HeldoutMetrics, row: &mut impl FnMut(&str, String, &str)) {
    let few = match heldout.left_out.len() {
        0 => String::new(),
        n => format!("; {n} left out: too few cells"),
    };
    row("held-out interventions", heldout.n_interventions.to_string(), &format!("in the means below{few}"));
    let drifted = heldout.batch_norm == Some(HeldoutBatchNorm::Drift);
    let samples = format!(
        "IWELBO, {} samples{}",
        grouped(heldout.particles as u64),
        if drifted { "; encoder statistics drifted" } else { "" }
    );
    row("held-out NLL", format!("{:.2}", heldout.nll_iwelbo), &samples);
    row("held-out ELBO", format!("{:.2}", heldout.elbo), "negative, nats per cell");
    row("  before binarisation", format!("{:.2}", heldout.stages.before_binarisation.nll_iwelbo), "IWELBO");
    if let Some(bounds) = &heldout.stages.after_retraining {
        row("  after retraining", format!("{:.2}", bounds.nll_iwelbo), "IWELBO; held-out shifts are 0");
    }
    if let Some(latents) = &heldout.latents {
        let note = format!("of the fitted model; Spearman {:.3}, R2 {:.3}", latents.mcc_spearman, latents.r2);
        row("  MCC, Pearson", format!("{:.3}", latents.mcc_pearson), &note);
    }
    if let Some(baseline) = &heldout.baseline {
        let note = "held-out cells; a useful model is lower";
        row("  pooled negative binomial", format!("{:.2}", baseline.pooled_negative_binomial), note);
        let value = baseline.per_intervention_negative_binomial;
        row("  negative binomial per intervention", format!("{value:.2}"), "cross-fitted on halves of the cells");
    }
    if let Some(oracle) = &heldout.oracle {
        let note = format!("the true model, on {} cells", grouped(oracle.n_cells as u64));
        row("  oracle", format!("{:.2}", oracle.nll), &note);
    }
    let s = &heldout.seconds;
    let spent = s.retraining + s.fitting + s.bounds + s.baselines;
    let parts =
        format!("retraining {}, fit {}, bounds {}", seconds(s.retraining), seconds(s.fitting), seconds(s.bounds));
    row("held-out stages", seconds(spent), &parts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::json::to_json;
    use crate::evaluation::certainty::PermutationCheck;
    use crate::evaluation::metrics::{
        BaselineMetrics, BoundMetrics, CalibrationMetrics, ClassCount, GraphMetrics, HeldoutSeconds,
        InteractionRecovery, InterventionMetrics, LatentOracleMetrics, LinearMetrics, MaskMetrics, OracleMetrics,
        PrecisionRecall, RecoveryMetrics, RetrainingMetrics, StageMetrics, Timing,
    };
    use crate::model::method::Method;

    fn linear() -> LinearMetrics {
        LinearMetrics {
            n_edges: 131,
            n_edges_of_network: 143,
            n_shared: 129,
            bound_validation: Some(318.25),
            advantage_of_network: Some(3.375),
            mcc_pearson: Some(0.787),
            f1: Some(0.93),
        }
    }

    fn edges() -> EdgeMetrics {
        EdgeMetrics {
            fdr: 0.05,
            n_pairs: 1200,
            n_edges: 143,
            interventions_with_edge: 78,
            expected_false: 0.625,
            permutation: PermutationCheck {
                n_permutations: 20,
                mean_edges: 2.125,
                share_with_edges: 0.25,
                permutation_fdr: Some(0.015),
            },
            control_guides: None,
            replication: None,
            limits: Default::default(),
            calibration: Some(CalibrationMetrics {
                n_true: 150,
                false_discovery_proportion: 0.035,
                recall: 0.92,
                interval_coverage: Some(0.947),
                n_signs: 144,
                sign_errors: Some(0.0),
                calibration_error: 0.01,
            }),
        }
    }

    fn interactions() -> InteractionMetrics {
        let of = |class, n| ClassCount { class, n };
        InteractionMetrics {
            n_compared: 40,
            n_not_compared: 3,
            n_interactions: 14,
            expected_false: 0.25,
            classes: vec![of(InteractionClass::Additive, 28), of(InteractionClass::Suppression, 12)],
            recovery: Some(InteractionRecovery { n_true: 16, false_discovery_proportion: 0.0, recall: 0.875 }),
        }
    }

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
            edges: Some(edges()),
            interactions: Some(interactions()),
            linear: Some(linear()),
            oracle: Some(LatentOracleMetrics {
                mcc_pearson: 0.982,
                mcc_spearman: 0.947,
                r2: 0.965,
                diagonal_gap: Some(4.9),
                n_cells: 2000,
                particles: 200,
            }),
            baseline: Some(BaselineMetrics {
                pooled_negative_binomial: 400.0,
                per_intervention_negative_binomial: 399.0,
            }),
            heldout: Some(HeldoutMetrics {
                nll_iwelbo_by_cell: None,
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
        let value: serde_json::Value = serde_json::from_str(&to_json(&metrics())).expect("JSON");
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
                "edges",
                "interactions",
                "linear",
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
        assert_eq!(value["edges"]["permutation"]["mean_edges"], 2.125);
        assert_eq!(value["edges"]["calibration"]["recall"], 0.92);
        assert_eq!(value["linear"]["advantage_of_network"], 3.375);
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
        let value: serde_json::Value = serde_json::from_str(&to_json(&unknown)).expect("JSON");
        for key in ["mcc_pearson", "mcc_spearman", "r2", "graph"] {
            assert!(value.get(key).is_none(), "{key}");
        }
        assert!(value["heldout"].get("latents").is_none());
        assert!(!metrics_table(&unknown).to_string().contains("MCC"));
    }

    #[test]
    fn the_table_shows_every_figure() {
        let text = metrics_table(&metrics()).to_string();
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
            "123,457",
            "143",
            "at a false discovery rate of 5 %; 2.1 by chance, with labels permuted",
            "78",
            "3.5 %",
            "92 % of 150 true ones found",
            "94.7 %",
            "131",
            "129 of them among those above",
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
    fn models_that_draw_their_masks_say_how_many_are_on() {
        let text = metrics_table(&Metrics { edges: None, ..metrics() }).to_string();
        assert!(text.contains("12.5 %") && !text.contains("discovery"), "{text}");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.05, 0.125, 0.0, 1.0, 0.0249].map(percent), ["5 %", "12.5 %", "0 %", "100 %", "2.5 %"]);
        assert_eq!(
            [0.5, 12.34, 59.96, 3599.7, 7380.0].map(seconds),
            ["0.50 s", "12.3 s", "1 min 00 s", "1 h 00 min", "2 h 03 min"]
        );
    }
}
