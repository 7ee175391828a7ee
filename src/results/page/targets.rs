//! The section on interventions and the latents they target: maps, strongest interventions, latents in use.

use std::fmt::Write;

use crate::results::page::charts;
use crate::results::page::charts::Heat;
use crate::results::page::edges;
use crate::results::page::effects::Effects;
use crate::results::page::folder::Run;
use crate::results::page::parts::{MOST_BARS, MOST_MAP_ROWS, figure};
use crate::results::page::svg::{escape, label};

/// Interventions beyond this number are shown in the maps only if they have a target.
const MOST_ROWS: usize = 150;

/// Maps of shifts and masks, then bars; empty where there are no shifts, or nothing was trained on.
pub(super) fn targets(run: &Run, effects: &Effects) -> String {
    let Some(shifts) = &run.shifts else { return String::new() };
    let trained: Vec<usize> = (0..run.interventions.len()).filter(|&a| run.trained[a]).collect();
    if trained.is_empty() {
        return String::new();
    }
    let (shown, left_out) = rows_of_maps(&trained, effects);
    let shown_of = match left_out.is_empty() {
        true => String::new(),
        false => format!(" The maps show {} of {} interventions.", shown.len(), trained.len()),
    };
    let mut text = match &run.certainty {
        Some(certainty) => format!("<p>{}{shown_of}</p>\n", edges::introduction(certainty)),
        None => format!(
            "<p>Each intervention shifts the mean of the few latents that its mask switches on. The length of a shift is in units \
         of the latent's own deviation (1); the sign of a latent is arbitrary. All numbers: <code>targets.csv</code>, \
         <code>masks.csv</code>, <code>shifts.csv</code>, <code>graph.graphml</code>.{shown_of}</p>\n"
        ),
    };
    let maps = maps(run, shifts, effects, &shown);
    let bars = strongest_interventions(run, effects) + &interventions_per_latent(effects);
    let mut details = String::new();
    if !left_out.is_empty() {
        let without: Vec<String> = left_out.iter().map(|&a| escape(&run.interventions[a])).collect();
        let _ = writeln!(
            details,
            "<details><summary>{} interventions are not in the maps: without targets, or with the weakest effects</summary>\
             <p>{}</p></details>",
            left_out.len(),
            without.join(", ")
        );
    }
    let _ = writeln!(text, "<div class=\"maps\">\n{maps}<div class=\"stack\">\n{bars}</div>\n</div>\n{details}");
    text
}

/// Interventions that the maps show and those that they leave out: of very many, the ones with the strongest effects stay.
fn rows_of_maps(trained: &[usize], effects: &Effects) -> (Vec<usize>, Vec<usize>) {
    if trained.len() <= MOST_ROWS {
        return (trained.to_vec(), Vec::new());
    }
    let mut by_effect = trained.to_vec();
    by_effect.sort_by(|&x, &y| effects.effect[y].total_cmp(&effects.effect[x]));
    let keep: Vec<usize> = by_effect.into_iter().filter(|&a| effects.n_targets[a] > 0).take(MOST_MAP_ROWS).collect();
    trained.iter().copied().partition(|a| keep.contains(a))
}

/// The maps of shifts and of mask probabilities, or of edges with the strongest of them, where it is known how sure they are;
/// with interventions that act alike side by side.
fn maps(run: &Run, shifts: &[f64], effects: &Effects, shown: &[usize]) -> String {
    let ranked = run.certainty.as_ref().map(|certainty| {
        let ranked = edges::ranked(run, certainty);
        format!("<div class=\"stack\">\n{ranked}</div>\n")
    });
    if shown.is_empty() {
        return ranked.unwrap_or_default();
    }
    let (names, l) = (&run.interventions, run.n_latents);
    let table: Vec<f64> = shown.iter().flat_map(|&a| &effects.masked[a * l..(a + 1) * l]).copied().collect();
    let (order, tree) = charts::clustered(&table, l);
    let rows: Vec<usize> = order.iter().map(|&i| shown[i]).collect();
    let heat = Heat { names, rows: &rows, columns: &effects.latent_order };
    if let (Some(certainty), Some(ranked)) = (&run.certainty, ranked) {
        return edges::map(run, certainty, &heat, &tree) + &ranked;
    }
    let strongest = table.iter().fold(0.0f64, |m, x| m.max(x.abs())).max(1e-9);
    let drawing = heat.draw("Shift of each latent under each intervention", Some(&tree), |a, k| {
        let effect = effects.masked[a * l + k];
        let class = if effect > 0.0 { "up" } else { "down" };
        let hint = format!("{}, latent {k}: shift {}", names[a], label(effect, 0.01));
        (class, (effect.abs() / strongest).powf(0.7), hint)
    });
    let ramp = format!(
        "<div class=\"key\"><span>{} <span class=\"ramp both\"></span> {}</span></div>\n",
        label(-strongest, 0.1),
        label(strongest, 0.1)
    );
    let mut maps = figure(
        "Shifts",
        "Mask probability times shift. Interventions that act alike stand together (average linkage, tree on the right); \
         latents are ordered by the number of interventions that target them.",
        &format!("{ramp}<div class=\"scroll\">{drawing}</div>"),
    );
    if let Some(masks) = &run.masks {
        let drawing = heat.draw("Mask probability of each latent under each intervention", None, |a, k| {
            let (p, shift) = (masks[a * l + k], shifts[a * l + k]);
            let hint =
                format!("{}, latent {k}: probability {}, shift {}", names[a], label(p, 0.01), label(shift, 0.01));
            ("on", p, hint)
        });
        let ramp = "<div class=\"key\"><span>0 <span class=\"ramp on\"></span> 1</span></div>\n";
        maps += &figure(
            "Mask probabilities",
            "The probability that an intervention acts on a latent, in the same order.",
            &format!("{ramp}<div class=\"scroll\">{drawing}</div>"),
        );
    }
    maps
}

/// Bars of the largest effects; empty where no intervention has one.
fn strongest_interventions(run: &Run, effects: &Effects) -> String {
    let mut strongest: Vec<usize> = (0..run.interventions.len()).filter(|&a| effects.effect[a] > 0.0).collect();
    strongest.sort_by(|&x, &y| effects.effect[y].total_cmp(&effects.effect[x]));
    let n_with = strongest.len();
    strongest.truncate(MOST_BARS);
    if strongest.is_empty() {
        return String::new();
    }
    let bars: Vec<(String, f64, String)> = strongest
        .iter()
        .map(|&a| {
            let n = effects.n_targets[a];
            let targets = format!("{n} {}", if n == 1 { "latent" } else { "latents" });
            (run.interventions[a].clone(), effects.effect[a], targets)
        })
        .collect();
    let length = match run.certainty {
        Some(_) => "Length of the shift over all edges, each times its probability",
        None => "Length of the masked shift",
    };
    let text = match n_with > bars.len() {
        true => format!("{length}, the {} largest of {n_with}.", bars.len()),
        false => format!("{length}."),
    };
    let drawing = charts::named_bars("Strongest interventions", "length of the shift", &bars);
    figure("Strongest interventions", &text, &drawing)
}

/// Bars of the latents by how often they are targeted.
fn interventions_per_latent(effects: &Effects) -> String {
    let bars: Vec<(String, f64)> =
        effects.latent_order.iter().map(|&k| (k.to_string(), effects.per_latent[k] as f64)).collect();
    figure(
        "Interventions per latent",
        "How many trained interventions target each latent. A latent that none targets holds variation between cells of \
         the same intervention.",
        &charts::columns("Interventions per latent", "latent", "interventions", &bars),
    )
}
