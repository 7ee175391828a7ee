//! The section on predictions of held-out combinations: the model beside baselines, and combinations that are not the sum of their
//! members.

use std::fmt::Write;

use serde_json::Value;

use crate::results::page::folder::Run;
use crate::results::page::parts::{figure, number};
use crate::results::page::svg::escape;

/// Combinations listed as not additive.
const MOST_ROWS: usize = 20;

/// What it costs a combination that it was not seen, where that is known, and how well intervals hold.
fn generalisation(judgement: &Value) -> String {
    let number = |value: &Value, digits: usize| value.as_f64().map(|value| format!("{value:.digits$}"));
    let percent = |value: &Value| value.as_f64().map(|value| format!("{:.0} %", 100.0 * value));
    let (bounds, intervals) = (&judgement["bounds"]["generalisation"], &judgement["intervals"]);
    let mut text = String::new();
    if let Some(cost) = number(&bounds["cost"], 2) {
        let _ = writeln!(
            text,
            "<p>Cells of these combinations lie {cost} nats more above the true model than cells of combinations that were trained on.</p>"
        );
    }
    let held = [&intervals["coverage"], &intervals["coverage_widened"]].map(percent);
    if let ([Some(before), Some(after)], Some(widening)) = (held, number(&intervals["widening"], 2)) {
        let _ = writeln!(
            text,
            "<p>95 % intervals of the model's predictions hold {before} as training cells make them; multiplied in width by {widening}, as \
             <code>svae-cpu predict</code> does, {after} (of one half of the combinations, by what the other half asks for).</p>"
        );
    }
    text
}

/// What the judgement found; empty where none was made.
pub(super) fn predictions(run: &Run) -> String {
    let Some(judgement) = &run.judgement else { return String::new() };
    let each = |key: &str| judgement[key].as_array().into_iter().flatten();
    let mut text = String::new();
    let worse: Vec<String> = each("comparisons").filter(|found| found["worse"] == true).map(worse).collect();
    match worse.is_empty() {
        true => text.push_str(
            "<p>The model is worse than no baseline beyond the error of resampling the held-out cells.</p>\n",
        ),
        false => worse.iter().for_each(|sentence| {
            let _ = writeln!(text, "<p><b>{sentence}</b></p>");
        }),
    }
    text += &generalisation(judgement);
    let names: Vec<&str> =
        each("predictors").next().into_iter().flat_map(scores).map(|score| name(score, "score")).collect();
    let header: String =
        names.iter().map(|name| format!("<th class=\"n\">{}</th>", escape(&name.replace('_', " ")))).collect();
    let rows: String = each("predictors")
        .map(|found| {
            let cells: String = scores(found).map(|score| format!("<td class=\"n\">{}</td>", shown(score))).collect();
            format!("<tr><td>{}</td>{cells}</tr>\n", escape(name(found, "predictor")))
        })
        .collect();
    let ranges: String = [("what knows nothing of a combination", "floor"), ("half of its own cells", "ceiling")]
        .into_iter()
        .map(|(label, key)| {
            let of = |score: &&str| {
                let range = each("ranges").find(|range| range["score"] == **score);
                let value = range.and_then(|range| number(range, key));
                format!("<td class=\"n\">{}</td>", value.map_or(String::new(), |value| format!("{value:.3}")))
            };
            let cells: String = names.iter().map(of).collect();
            format!("<tr><td>{label}</td>{cells}</tr>\n")
        })
        .collect();
    text += &figure(
        "Held-out combinations",
        "Means over combinations, \u{b1} 95 % over resampled cells. Lower is better for errors, rank and energy distance. The last two rows \
         are the range that half of the cells leave.",
        &format!("<div class=\"scroll\"><table><tr><th>predictor</th>{header}</tr>\n{rows}{ranges}</table></div>"),
    );
    text + &non_additive(each("non_additive").filter(|found| found["non_additive"] == true).collect())
}

fn name<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

fn scores(predictor: &Value) -> impl Iterator<Item = &Value> {
    predictor["scores"].as_array().into_iter().flatten()
}

fn shown(score: &Value) -> String {
    match (number(score, "value"), number(score, "margin")) {
        (Some(value), Some(margin)) => format!("{value:.3} \u{b1} {margin:.3}"),
        (Some(value), None) => format!("{value:.3}"),
        (None, _) => "\u{2013}".to_owned(),
    }
}

/// That the model is worse than a baseline.
fn worse(found: &Value) -> String {
    format!(
        "The model is worse than the baseline \u{201c}{}\u{201d} in {}, by {:.4} \u{b1} {:.4}.",
        escape(name(found, "baseline")),
        escape(&name(found, "score").replace('_', " ")),
        number(found, "difference").unwrap_or(f64::NAN).abs(),
        number(found, "margin").unwrap_or(f64::NAN)
    )
}

/// The combinations that are not the sum of their members, the farthest first; empty where there are none.
fn non_additive(mut found: Vec<&Value>) -> String {
    if found.is_empty() {
        return String::new();
    }
    let ratio = |found: &Value| number(found, "deviation").unwrap_or(0.0) / number(found, "noise").unwrap_or(1.0);
    found.sort_by(|a, b| ratio(b).total_cmp(&ratio(a)));
    let row = |found: &&Value| {
        let cell = |key: &str| format!("<td class=\"n\">{:.3}</td>", number(found, key).unwrap_or(f64::NAN));
        let numbers: String = ["effect", "deviation", "noise", "q_value"].map(cell).concat();
        format!(
            "<tr><td>{}</td><td class=\"n\">{}</td>{numbers}</tr>\n",
            escape(name(found, "combination")),
            found["n_cells"]
        )
    };
    let rows: String = found.iter().take(MOST_ROWS).map(row).collect();
    figure(
        "Combinations that are not the sum of their members",
        &format!(
            "{} in all, the {} farthest; root mean squares over genes of log expression.",
            found.len(),
            found.len().min(MOST_ROWS)
        ),
        &format!(
            "<table><tr><th>combination</th><th class=\"n\">cells</th><th class=\"n\">effect</th><th class=\"n\">deviation</th>\
             <th class=\"n\">noise</th><th class=\"n\">q</th></tr>\n{rows}</table>"
        ),
    )
}
