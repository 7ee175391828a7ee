//! The section on held-out interventions: bounds by stage and intervention, the second training, the fitted shifts.

use std::fmt::Write;

use crate::results::page::charts;
use crate::results::page::charts::{Dot, Heat, ReferenceLine};
use crate::results::page::folder::{Run, best_epoch_of};
use crate::results::page::parts::{MOST_BARS, MOST_MAP_ROWS, both, curve, figure, number};
use crate::results::page::svg::{escape, label};
use crate::words::grouped;

/// What the held-out protocol found; empty where the run holds nothing out.
pub(super) fn held_out(run: &Run) -> String {
    let Some(heldout) = run.metrics.get("heldout") else { return String::new() };
    let row = bounds_by_stage(heldout) + &second_training(run) + &bounds_per_intervention(heldout);
    let map = fitted_shifts(run);
    let mut text =
        format!("<div class=\"row wide\">\n{row}</div>\n<div class=\"maps\" style=\"margin-top:16px\">{map}</div>\n");
    let left_out: Vec<&str> =
        heldout["left_out"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    if !left_out.is_empty() {
        let _ = writeln!(text, "<p>Too few cells for a mean: {}.</p>", escape(&left_out.join(", ")));
    }
    text
}

/// A table of the importance-weighted bounds, and of other models on the same cells.
fn bounds_by_stage(heldout: &serde_json::Value) -> String {
    let (stages, baseline) = (&heldout["stages"], &heldout["baseline"]);
    let lines = [
        ("Model as trained", number(&stages["before_binarisation"], "nll_iwelbo")),
        ("Masks fixed, trained again, held-out shifts 0", number(&stages["after_retraining"], "nll_iwelbo")),
        ("Held-out shifts fitted", number(&stages["after_fitting"], "nll_iwelbo")),
        ("Pooled negative binomial", number(baseline, "pooled_negative_binomial")),
        ("Negative binomial per intervention", number(baseline, "per_intervention_negative_binomial")),
        ("The true model (oracle)", heldout.get("oracle").and_then(|oracle| number(oracle, "nll"))),
    ];
    let table: String = lines
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .map(|(name, value)| format!("<tr><td>{}</td><td class=\"n\">{value:.2}</td></tr>\n", escape(name)))
        .collect();
    let particles = grouped(heldout["particles"].as_u64().unwrap_or(0));
    figure(
        "Bounds by stage",
        &format!(
            "Negative log-likelihood of the held-out cells, nats per cell ({particles} samples); lower is better."
        ),
        &format!("<table><tr><th>stage or model</th><th class=\"n\">nats</th></tr>\n{table}</table>"),
    )
}

/// The curves of the second training; empty where there was none.
fn second_training(run: &Run) -> String {
    if run.retraining.is_empty() {
        return String::new();
    }
    let drawing = charts::lines(
        "Negative ELBO of the second training by epoch",
        "nats per cell",
        &[curve(0, &run.retraining, |r| r.train_elbo), curve(1, &run.retraining, |r| r.validation_elbo)],
        &[],
        best_epoch_of(&run.retraining),
        true,
    );
    let text = "With the masks fixed at 0 or 1, before the held-out interventions are fitted.";
    figure("Second training", text, &(both() + &drawing))
}

/// Both bounds of each intervention, the best first; empty where none has any.
fn bounds_per_intervention(heldout: &serde_json::Value) -> String {
    let mut rows: Vec<Dot> = Vec::new();
    for each in heldout["per_intervention"].as_array().into_iter().flatten() {
        let (Some(nll), Some(elbo)) = (number(each, "nll_iwelbo"), number(each, "elbo")) else { continue };
        let name = each["intervention"].as_str().unwrap_or("").to_owned();
        let hint = format!(
            "{name}: {} by importance sampling, {} by the ELBO, {} cells",
            label(nll, 0.01),
            label(elbo, 0.01),
            each["n_cells"]
        );
        rows.push(Dot { name, filled: nll, hollow: elbo, hint });
    }
    if rows.is_empty() {
        return String::new();
    }
    rows.sort_by(|a, b| a.filled.total_cmp(&b.filled));
    let mean = number(heldout, "nll_iwelbo").unwrap_or(f64::NAN);
    let line = [ReferenceLine { class: "mark", value: mean, name: "mean".to_owned() }];
    let shown = rows.len().min(2 * MOST_BARS);
    // Of very many, both ends.
    if rows.len() > shown {
        rows.drain(shown / 2..rows.len() - shown / 2);
    }
    let drawing = charts::dots(
        "Bounds per held-out intervention",
        "nats per cell",
        &rows,
        if mean.is_finite() { &line } else { &[] },
    );
    figure(
        "Bounds per intervention",
        "Filled: importance sampling. Hollow: ELBO. Dotted: the mean. Levels differ mostly because sequencing depth \
         does; compare a dot with the same dot of another model.",
        &drawing,
    )
}

/// The map of the fitted shifts; empty where none were fitted.
fn fitted_shifts(run: &Run) -> String {
    let Some(shifts) = &run.held_out_shifts else { return String::new() };
    let (names, l) = (&run.interventions, run.n_latents);
    let fitted: Vec<usize> = (0..names.len()).filter(|&a| !run.trained[a]).take(MOST_MAP_ROWS).collect();
    if fitted.is_empty() {
        return String::new();
    }
    let table: Vec<f64> = fitted.iter().flat_map(|&a| &shifts[a * l..(a + 1) * l]).copied().collect();
    let (order, tree) = charts::clustered(&table, l);
    let order: Vec<usize> = order.into_iter().map(|i| fitted[i]).collect();
    let columns: Vec<usize> = (0..l).collect();
    let strongest = table.iter().fold(0.0f64, |m, x| m.max(x.abs())).max(1e-9);
    let heat = Heat { names, rows: &order, columns: &columns };
    let drawing = heat.draw("Fitted shifts of held-out interventions", Some(&tree), |a, k| {
        let shift = shifts[a * l + k];
        let class = if shift > 0.0 { "up" } else { "down" };
        let hint = format!("{}, latent {k}: shift {}", names[a], label(shift, 0.01));
        (class, (shift.abs() / strongest).powf(0.7), hint)
    });
    let ramp = format!(
        "<div class=\"key\"><span>{} <span class=\"ramp both\"></span> {}</span></div>\n",
        label(-strongest, 0.1),
        label(strongest, 0.1)
    );
    let text = "All latents are open to a held-out intervention; latents are those of the second training.";
    figure("Fitted shifts", text, &format!("{ramp}<div class=\"scroll\">{drawing}</div>"))
}
