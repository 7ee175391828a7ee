//! The section on combinations that act otherwise than by the sum of their members.

use std::fmt::Write;

use crate::evaluation::interactions::InteractionClass;
use crate::results::page::charts;
use crate::results::page::charts::IntervalRow;
use crate::results::page::folder::{Run, ShownInteraction};
use crate::results::page::parts::figure;
use crate::results::page::svg::{escape, label, shortened};
use crate::words::{grouped, percent};

/// Most interactions with their intervals.
const MOST_PAIRS: usize = 40;
/// Most combinations named of a class.
const MOST_NAMES: usize = 12;

/// Classes of the combinations, and the deviations from sums with their intervals; empty where none was compared.
pub(super) fn interactions(run: &Run) -> String {
    let Some(certainty) = run.certainty.as_ref().filter(|_| !run.interactions.is_empty()) else { return String::new() };
    let rate = percent(certainty.fdr);
    let mut found: Vec<&ShownInteraction> =
        run.interactions.iter().filter(|pair| pair.q_value <= certainty.fdr).collect();
    found.sort_by(|a, b| b.deviation.abs().total_cmp(&a.deviation.abs()));
    let mut text = format!(
        "<p>Each combination is compared with the sum of its members, which are known from the cells that carry one of them alone. \
         A combination and a latent interact if the deviation from the sum has a q-value up to {rate}; a combination without \
         any such deviation is additive, as far as its cells can tell. All numbers: <code>interactions.csv</code>.</p>\n"
    );
    // Long names: as wide as the page.
    text += &classes(run);
    let n_found = found.len();
    found.truncate(MOST_PAIRS);
    let rows: Vec<IntervalRow> = found.iter().map(|pair| row(pair)).collect();
    let explanation = match n_found {
        0 => format!("None at a false discovery rate of {rate}: every combination is the sum of its members."),
        n => {
            let shown = if n > rows.len() { format!("{} of {}", rows.len(), grouped(n as u64)) } else { n.to_string() };
            format!(
                "Deviation from the sum and its 95 % interval, the largest first: {shown} at a false discovery rate of {rate}."
            )
        }
    };
    let drawing = match rows.is_empty() {
        true => String::new(),
        false => charts::intervals("Deviations from sums", "deviation", &["prob.", "sum"], "", &rows),
    };
    let deviations = figure("Deviations from sums", &explanation, &drawing);
    text + "<div class=\"maps\">\n" + &deviations + "</div>\n"
}

/// A table of the classes and their combinations.
fn classes(run: &Run) -> String {
    let l = run.n_latents.max(1);
    // A row per combination: its pairs follow one another.
    let combinations: Vec<&ShownInteraction> = run.interactions.iter().step_by(l).collect();
    let mut rows = String::new();
    for class in InteractionClass::ALL {
        let of: Vec<&&ShownInteraction> = combinations.iter().filter(|row| row.class == class.name()).collect();
        if of.is_empty() {
            continue;
        }
        let named = |row: &&&ShownInteraction| {
            format!("{} ({} cells, magnitude {})", escape(&row.combination), row.n_cells, label(row.magnitude, 0.01))
        };
        let mut names: Vec<String> = of.iter().take(MOST_NAMES).map(named).collect();
        if of.len() > MOST_NAMES {
            names.push(format!("{} more", of.len() - MOST_NAMES));
        }
        let _ = writeln!(
            rows,
            "<tr><td style=\"white-space: nowrap\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            class.name(),
            of.len(),
            names.join(", ")
        );
    }
    let table = format!("<table><tr><th>class</th><th class=\"n\">combinations</th><th></th></tr>\n{rows}</table>");
    let explanation = "Magnitude: length of the multiples of the members' effects that come nearest to the combination; 1.41 is \
                       a sum of two. Dominance: one member counts twice as much as another; neomorphism: most of the deviation is \
                       in latents that no member moves.";
    figure("Classes of combinations", explanation, &table)
}

fn row(pair: &ShownInteraction) -> IntervalRow {
    IntervalRow {
        name: format!("{} \u{2192} {}", shortened(&pair.combination, 15), pair.latent),
        value: pair.deviation,
        low: pair.low,
        high: pair.high,
        uncertain: false,
        notes: vec![format!("{:.3}", pair.probability), label(pair.sum, 0.01)],
        hint: format!(
            "{}, latent {}: deviation {} ({} to {}) from the sum {}, {}",
            pair.combination,
            pair.latent,
            label(pair.deviation, 0.01),
            label(pair.low, 0.01),
            label(pair.high, 0.01),
            label(pair.sum, 0.01),
            pair.class
        ),
    }
}
