//! The top of the report: the figures of the run, and what they say in sentences.

use crate::evaluation::certainty::Certainty;
use crate::results::page::edges;
use serde::Deserialize;

use crate::display::linear_rival::linear_sentence;
use crate::evaluation::metrics::LinearMetrics;
use crate::results::page::folder::Run;
use crate::results::page::parts::number;
use crate::results::page::svg::escape;
use crate::words::{grouped, percent, seconds};

/// Tiles with the figures of the run, then its findings.
pub(super) fn summary(run: &Run) -> String {
    let m = &run.metrics;
    let count = |key: &str| grouped(m[key].as_u64().unwrap_or(0));
    let mut tiles: Vec<(String, String)> =
        vec![(count("n_cells"), "cells".to_owned()), (count("n_genes"), "genes".to_owned())];
    let held_out = run.cells.names.len() - run.trained_names();
    tiles.push((
        count("n_interventions"),
        match held_out {
            0 => "interventions".to_owned(),
            n => format!("interventions, {n} of them held out"),
        },
    ));
    tiles.push((run.n_latents.to_string(), "latents".to_owned()));
    if let Some(fit) = kept_fit(run) {
        tiles.push((format!("{fit:.2}"), "fit of the validation cells, nats".to_owned()));
    }
    if let Some(elbo) = number(m, "elbo_validation") {
        tiles.push((format!("{elbo:.2}"), "negative ELBO, validation cells".to_owned()));
    }
    if let Some(value) = number(&m["baseline"], "pooled_negative_binomial") {
        tiles.push((format!("{value:.2}"), "pooled negative binomial, same cells".to_owned()));
    }
    if let Some(certainty) = &run.certainty {
        let rate = percent(certainty.fdr);
        tiles.push((grouped(certainty.found().count() as u64), format!("edges at a false discovery rate of {rate}")));
        let with = grouped(m["edges"]["interventions_with_edge"].as_u64().unwrap_or(0));
        tiles.push((with, "interventions with an edge".to_owned()));
    } else if let Some(mask) = m.get("mask") {
        let share = 100.0 * number(mask, "fraction_on").unwrap_or(0.0);
        tiles.push((format!("{share:.1} %"), "of the masks are on".to_owned()));
        tiles.push((mask["interventions_with_target"].to_string(), "interventions with a target".to_owned()));
    }
    for (key, name) in [("mcc_pearson", "MCC with the true latents"), ("r2", "R\u{b2} of the true latents")] {
        if let Some(value) = number(m, key) {
            tiles.push((format!("{value:.3}"), name.to_owned()));
        }
    }
    if let Some(value) = m.get("graph").and_then(|graph| number(&graph["corrected"], "f1")) {
        tiles.push((format!("{value:.3}"), "F1 of the targets (corrected)".to_owned()));
    }
    if let Some(value) = m.get("heldout").and_then(|heldout| number(heldout, "nll_iwelbo")) {
        tiles.push((format!("{value:.2}"), "held-out negative log-likelihood".to_owned()));
    }
    if let Some(value) = number(&m["timing"], "train_seconds") {
        tiles.push((seconds(value), "of training".to_owned()));
    }
    let tiles: String = tiles
        .iter()
        .map(|(value, name)| {
            format!("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escape(value), escape(name))
        })
        .collect();
    let findings: String = findings(run)
        .into_iter()
        .map(|(caution, text)| {
            let text = escape(&text);
            match caution {
                true => format!("<li><div class=\"caution\">{text}</div></li>\n"),
                false => format!("<li>{text}</li>\n"),
            }
        })
        .collect();
    format!("<div class=\"tiles\">\n{tiles}</div>\n<ul class=\"findings\">\n{findings}</ul>\n")
}

/// Sentences on the run, and whether each is a caution.
fn findings(run: &Run) -> Vec<(bool, String)> {
    let m = &run.metrics;
    let mut found = Vec::new();
    if let (Some(fit), Some(pooled)) = (kept_fit(run), number(&m["baseline"], "pooled_negative_binomial")) {
        let gap = pooled - fit;
        found.push(if gap > 0.0 {
            let text = "nats per validation cell better than a negative binomial without any latent.";
            (false, format!("The model is {gap:.2} {text}"))
        } else {
            (true, format!(
                "A negative binomial without any latent does better on the validation cells, by {:.2} nats: this model \
                 says nothing of use. Check that X holds raw counts, and train longer.",
                -gap
            ))
        });
    }
    if let Some(certainty) = &run.certainty {
        found.extend(edge_findings(run, certainty));
    } else if let Some(mask) = m.get("mask") {
        let (share, with) = (number(mask, "fraction_on").unwrap_or(0.0), mask["interventions_with_target"].as_u64());
        let trained = run.trained.iter().filter(|&&trained| trained).count();
        let text = format!(
            "{} of {trained} trained interventions target at least one of {} latents.",
            with.unwrap_or(0),
            run.n_latents
        );
        found.push((false, text));
        if share > 0.9 {
            found.push((true, format!(
                "{:.0} % of the masks are still on, as all are at the start: the sparsity has not taken hold yet. Train \
                 for more epochs, or raise alpha.",
                100.0 * share
            )));
        } else if share * run.n_latents as f64 <= 0.15 {
            let text = "The masks are almost empty. On small screens a smaller alpha lets more effects through.";
            found.push((true, text.to_owned()));
        }
    }
    let linear = m.get("linear").and_then(|linear| LinearMetrics::deserialize(linear).ok());
    if let Some(linear) = linear {
        let beaten = linear.advantage_of_network.is_none_or(|gap| gap > 0.0);
        found.push((!beaten, linear_sentence(&linear)));
    }
    let best = run.best_epoch();
    if let (Some(best), Some("epoch_limit")) = (best, m["stop_reason"].as_str())
        && best as usize + 5 >= run.history.len()
        && run.history.len() > 1
    {
        let text = "The training ended at its limit of epochs while the ELBO was still falling: more epochs may help.";
        found.push((true, text.to_owned()));
    }
    if m["stop_reason"].as_str() == Some("non_finite") {
        found.push((true, "The training ended early because a value was not finite.".to_owned()));
    }
    if let Some(heldout) = m.get("heldout")
        && let (Some(nll), Some(pooled)) =
            (number(heldout, "nll_iwelbo"), number(&heldout["baseline"], "pooled_negative_binomial"))
    {
        let n = heldout["n_interventions"].as_u64().unwrap_or(0);
        let comparison = if nll < pooled { "better" } else { "worse" };
        found.push((nll >= pooled, format!(
            "On the cells of {n} held-out interventions the model is {:.2} nats {comparison} than the pooled negative \
             binomial.",
            (nll - pooled).abs()
        )));
    }
    found
}

/// Sentences on the edges, and whether each is a caution.
fn edge_findings(run: &Run, certainty: &Certainty) -> Vec<(bool, String)> {
    let edges = &run.metrics["edges"];
    let count = |value: &serde_json::Value| grouped(value.as_u64().unwrap_or(0));
    let (rate, trained) = (percent(certainty.fdr), run.trained.iter().filter(|&&trained| trained).count());
    let mut found = match certainty.found().count() {
        0 => vec![(
            true,
            format!(
                "No pair of intervention and latent is an edge at a false discovery rate of {rate}: the screen does not show that any \
             of the {trained} trained interventions acts on a latent."
            ),
        )],
        n => vec![(
            false,
            format!(
                "{} of {} pairs of intervention and latent are edges at a false discovery rate of {rate}, {:.1} of which are expected \
             to be false; {} of {trained} trained interventions have at least one.",
                grouped(n as u64),
                count(&edges["n_pairs"]),
                number(edges, "expected_false").unwrap_or(0.0),
                count(&edges["interventions_with_edge"])
            ),
        )],
    };
    found.extend(edges::checks(run, certainty));
    found.extend(certainty.limits.notes.iter().map(|note| (true, note.clone())));
    if let Some(truth) = edges.get("calibration") {
        let share = |key: &str| number(truth, key).map_or("none".to_owned(), percent);
        found.push((false, format!(
            "Beside the true edges: {} of the edges are false, {} of the {} true ones are found, and {} of their shifts lie in the \
             95 % intervals.",
            share("false_discovery_proportion"),
            share("recall"),
            count(&truth["n_true"]),
            share("interval_coverage")
        )));
    }
    found
}

/// Reconstruction and divergence of the validation cells in the kept epoch, which compare with other models; the ELBO
/// counts the prior of the masks too.
fn kept_fit(run: &Run) -> Option<f64> {
    if run.history.is_empty() {
        // A linear model has no epochs and no such prior.
        return number(&run.metrics, "elbo_validation");
    }
    let kept = run.kept_epoch()?;
    let record = run.history.iter().find(|r| r.epoch as f64 == kept)?;
    let fit = record.validation_reconstruction + record.validation_kl;
    fit.is_finite().then_some(fit)
}
