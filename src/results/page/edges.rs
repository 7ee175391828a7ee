//! How sure the edges are, as the report shows it: a map of all pairs, the strongest edges with their intervals, sentences.

use crate::evaluation::certainty::{Certainty, Edge};
use crate::evaluation::guides::{ControlEdge, ControlGuides, GuideReplication};
use crate::results::page::charts;
use crate::results::page::charts::{Heat, IntervalRow, Mark};
use crate::results::page::folder::Run;
use crate::results::page::parts::{figure, key};
use crate::results::page::svg::{label, shortened};
use crate::words::{grouped, percent};

/// Style of the drawings, which other methods have no use for.
pub(super) const STYLE: &str = include_str!("edges.css");

/// Most edges with their intervals.
const MOST_EDGES: usize = 40;
/// Most latents of a block that are named beside an edge.
const MOST_NAMED: usize = 3;
/// Most pairs below them that are no edges.
const MOST_UNCERTAIN: usize = 8;
/// Most edges of guides of control cells that are named.
const MOST_CONTROLS: usize = 5;
/// Probability below which a pair is not shown.
const LEAST_PROBABILITY: f64 = 0.05;

/// How the section on interventions begins.
pub(super) fn introduction(certainty: &Certainty) -> String {
    let rate = percent(certainty.fdr);
    format!(
        "Of every pair of intervention and latent it is known how probable it is that the intervention acts on the latent, and how \
         far it shifts the latent if it does. A pair is an edge if its q-value is up to {rate}: among all pairs at least as \
         probable, that share is expected to be no edge. Shifts are in units of the latent's own deviation (1); the sign of a \
         latent is arbitrary. All numbers: <code>edges.csv</code>, edges alone <code>targets.csv</code>, \
         <code>graph.graphml</code>."
    )
}

/// What the checks on the screen's own cells say, and whether each is a caution.
pub(super) fn checks(run: &Run, certainty: &Certainty) -> Vec<(bool, String)> {
    let mut found = vec![(exceeds_chance(certainty), permutation(run, certainty))];
    found.extend(certainty.control_guides.as_ref().map(|found| (found.n_edges > 0, control_guides(found))));
    if let Some(GuideReplication { n_edges, n_replicated, share: Some(_) }) = GuideReplication::new(certainty.found()) {
        let text = format!(
            "Of {} whose intervention has several guides, {} shown by two or more of them.",
            match n_edges {
                1 => "1 edge".to_owned(),
                n => format!("{} edges", grouped(n as u64)),
            },
            match n_replicated {
                1 => "1 is".to_owned(),
                n => format!("{} are", grouped(n as u64)),
            }
        );
        found.push((2 * n_replicated < n_edges, text));
    }
    found
}

/// The check with guides of control cells as a sentence.
fn control_guides(found: &ControlGuides) -> String {
    let name = |edge: &ControlEdge| format!("{} into latent {}", edge.guide, edge.latent);
    let shown: Vec<String> = found.edges.iter().take(MOST_CONTROLS).map(name).collect();
    let edges = match found.n_edges {
        0 => "there is no edge".to_owned(),
        n => {
            let more = if n > shown.len() { format!(" and {} more", n - shown.len()) } else { String::new() };
            let edges = if n == 1 { "1 edge is" } else { &format!("{} edges are", grouped(n as u64)) };
            format!(
                "{edges} found ({}{more}). Such a guide acts off its target, or edges are less sure than they seem",
                shown.join(", ")
            )
        }
    };
    format!("Were each of the {} guides of control cells an intervention against the others: {edges}.", found.n_guides)
}

/// The check with permuted labels as a sentence.
fn permutation(run: &Run, certainty: &Certainty) -> String {
    let check = &certainty.permutation;
    let within = if run.cells.batch.is_some() { " within batches" } else { "" };
    let permuted = format!("With the labels of cells permuted{within}, {} times over,", check.n_permutations);
    if check.mean_edges == 0.0 {
        return format!("{permuted} no edge is found.");
    }
    let compared = match check.permutation_fdr {
        Some(share) => format!(": {} of what is found with the labels as they are", percent(share)),
        None => String::new(),
    };
    let some = percent(check.share_with_edges);
    format!(
        "{permuted} {:.1} edges are found on average, in {some} of the permutations any{compared}.",
        check.mean_edges
    )
}

/// Whether chance finds more than the rate allows for.
fn exceeds_chance(certainty: &Certainty) -> bool {
    certainty.permutation.permutation_fdr.is_some_and(|share| share > certainty.fdr)
}

/// The map of all pairs: size by probability, colour by shift; `tree` stands beside its rows.
pub(super) fn map(run: &Run, certainty: &Certainty, heat: &Heat, tree: &charts::Tree) -> String {
    let l = run.n_latents;
    let mut places: Vec<Option<&Edge>> = vec![None; run.interventions.len() * l];
    certainty.edges.iter().for_each(|edge| places[edge.intervention * l + edge.latent] = Some(edge));
    let shown = || certainty.edges.iter().filter(|edge| edge.probability >= LEAST_PROBABILITY);
    let strongest = shown().map(|edge| edge.shift.abs()).fold(1e-9, f64::max);
    let drawing = heat.draw_marks("Probability and shift of every edge", Some(tree), |a, k| {
        let edge = places[a * l + k].filter(|edge| edge.probability >= LEAST_PROBABILITY)?;
        let class = match (edge.q_value <= certainty.fdr, edge.shift > 0.0) {
            (true, true) => "up",
            (true, false) => "down",
            (false, true) => "open up",
            (false, false) => "open down",
        };
        let opacity = 0.25 + 0.75 * (edge.shift.abs() / strongest).powf(0.7);
        Some(Mark { class, size: edge.probability.sqrt(), opacity, hint: hint(run, edge) })
    });
    let ramp = format!(
        "<div class=\"key\"><span>shift {} <span class=\"ramp both\"></span> {}</span></div>\n",
        label(-strongest, 0.1),
        label(strongest, 0.1)
    );
    let marks = key(&[
        ("filled".to_owned(), "edge".to_owned()),
        ("open".to_owned(), "uncertain".to_owned()),
        ("open little".to_owned(), "improbable".to_owned()),
    ]);
    let explanation = format!(
        "The area of a mark is the probability of the edge, its colour the shift. Filled: an edge at a false discovery rate of {}; \
         outlined: no edge at that rate, but not ruled out; nothing below a probability of {}. Interventions that act alike stand \
         together (average linkage, tree on the right); latents are ordered by their number of edges.",
        percent(certainty.fdr),
        label(LEAST_PROBABILITY, 0.01)
    );
    figure("Edges", &explanation, &format!("{ramp}{marks}<div class=\"scroll\">{drawing}</div>"))
}

/// The strongest edges with their intervals, and below them the most probable pairs that are no edges.
pub(super) fn ranked(run: &Run, certainty: &Certainty) -> String {
    let mut found: Vec<&Edge> = certainty.found().collect();
    found.sort_by(|a, b| b.shift.abs().total_cmp(&a.shift.abs()));
    let likely = |edge: &&Edge| edge.q_value > certainty.fdr && edge.probability >= LEAST_PROBABILITY;
    let mut others: Vec<&Edge> = certainty.edges.iter().filter(likely).collect();
    others.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let (n_found, n_others) = (found.len(), others.len());
    others.truncate(MOST_UNCERTAIN);
    found.truncate(MOST_EDGES - others.len());
    let rate = percent(certainty.fdr);
    if found.is_empty() && others.is_empty() {
        let text = format!("None at a false discovery rate of {rate}, and no other pair is even remotely probable.");
        return figure("Strongest edges", &text, "");
    }
    let with_guides = found.iter().any(|edge| edge.guides.is_some());
    let rows: Vec<IntervalRow> =
        found.iter().chain(&others).map(|edge| row(run, certainty, edge, with_guides)).collect();
    let n_of = |shown: usize, all: usize| match shown == all {
        true => format!("{all}"),
        false => format!("{shown} of {all}"),
    };
    let edges = match n_found {
        0 => format!("No pair is an edge at a false discovery rate of {rate}."),
        1 => format!("The edge at a false discovery rate of {rate}."),
        _ => format!(
            "{} edges at a false discovery rate of {rate}, the longest shifts first.",
            n_of(found.len(), n_found)
        ),
    };
    let uncertain = match n_others {
        0 => String::new(),
        _ => format!(
            " Faded, below the line: {} that are not ruled out, the most probable first.",
            n_of(others.len(), n_others)
        ),
    };
    let guides = match with_guides {
        true => " Guides: how many of those of the intervention show the edge by themselves.",
        false => "",
    };
    let text = format!("Shift and its 95 % interval, given that there is an edge. {edges}{uncertain}{guides}");
    let divider = format!("q above {rate}: uncertain");
    let columns = ["prob.", "q", "guides"];
    let columns = if rows[0].notes.len() == columns.len() { &columns[..] } else { &columns[..2] };
    figure("Strongest edges", &text, &charts::intervals("Strongest edges", "shift", columns, &divider, &rows))
}

fn row(run: &Run, certainty: &Certainty, edge: &Edge, with_guides: bool) -> IntervalRow {
    let guides = edge.guides.map_or(String::new(), |found| format!("{} of {}", found.agreeing, found.guides));
    let notes = [small(edge.probability), small(edge.q_value)].into_iter().chain(with_guides.then_some(guides));
    // An edge into a latent that others could stand for is one into all of them.
    let blocks = &certainty.limits.blocks;
    let block = blocks.iter().find(|block| block.contains(&edge.latent)).cloned().unwrap_or(vec![edge.latent]);
    let mut latents: Vec<String> = block.iter().map(usize::to_string).collect();
    if latents.len() > MOST_NAMED {
        latents.truncate(MOST_NAMED);
        latents.push("\u{2026}".to_owned());
    }
    IntervalRow {
        name: format!("{} \u{2192} {}", shortened(&run.interventions[edge.intervention], 15), latents.join("+")),
        value: edge.shift,
        low: edge.shift_low,
        high: edge.shift_high,
        uncertain: edge.q_value > certainty.fdr,
        notes: notes.collect(),
        hint: hint(run, edge),
    }
}

fn hint(run: &Run, edge: &Edge) -> String {
    format!(
        "{}, latent {}: probability {}, shift {} ({} to {}), q-value {}, false sign rate {}",
        run.interventions[edge.intervention],
        edge.latent,
        small(edge.probability),
        label(edge.shift, 0.01),
        label(edge.shift_low, 0.01),
        label(edge.shift_high, 0.01),
        small(edge.q_value),
        small(edge.lfsr)
    )
}

/// A probability to three digits, which is not called 0 or 1 if it is not.
fn small(probability: f64) -> String {
    match probability {
        p if p < 0.0005 => "<0.001".to_owned(),
        p if p > 0.9995 => ">0.999".to_owned(),
        p => format!("{p:.3}"),
    }
}
