//! What a screen leaves open: latents that could be turned into each other, too few interventions, latents that cells say nothing
//! about or that follow something technical. Derivation: `derivations/evidence.md`.

use serde::{Deserialize, Serialize};

use crate::data::dataset::Dataset;
use crate::evaluation::edge::Edge;
use crate::inference::effects::{InterventionEffects, WhitenedEffects};
use crate::model::prior::evidence::{Evidence, least_gain, turn_losses};
use crate::numerics::real::Real;

/// Two latents are one block if a turn by 15 degrees or more loses less than this, nats.
const LEAST_LOSS: f64 = 6.0;
/// Variance of posterior means, of 1 a priori, below which cells say nothing about a latent.
const LEAST_VARIANCE: f64 = 0.05;
/// Share of a latent's variance that depth or batch explains, from which on it follows them.
const TECHNICAL_SHARE: f64 = 0.5;
/// Interventions per latent that acts, below which its axis is a guess.
const FEWEST_PER_LATENT: usize = 3;
/// Names in a sentence, at most.
const MOST_NAMES: usize = 5;

/// What a screen leaves open.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Identifiability {
    /// Groups of latents that could be turned into each other at no cost.
    pub blocks: Vec<Vec<usize>>,
    /// Latents that cells say nothing about.
    pub unused: Vec<usize>,
    /// Latents without any edge that follow the depth or a covariate.
    pub technical: Vec<usize>,
    /// Number of latents with evidence of edges.
    pub n_latents_with_edges: usize,
    /// All of it in sentences.
    pub notes: Vec<String>,
}

impl Identifiability {
    /// What the posterior means of `cells` (cells x L) leave open, given the evidence along the present axes and the edges found.
    pub fn new<R: Real>(
        data: &Dataset,
        cells: &[usize],
        means: &[R],
        effects: &InterventionEffects,
        whitened: &WhitenedEffects,
        evidence: &Evidence,
        found: &[Edge],
    ) -> Self {
        let l = effects.n_latents;
        let names = |latents: &[usize]| latents.iter().map(|k| format!("latent {k}")).collect::<Vec<_>>();
        let mut notes = Vec::new();

        let gaining: Vec<bool> = evidence.gain.iter().map(|&gain| gain > least_gain(whitened.n_used)).collect();
        let losses = if l > 1 { turn_losses(whitened.to_weigh(), evidence) } else { vec![f64::INFINITY] };
        let together = |j: usize, k: usize| gaining[j] && gaining[k] && losses[j * l + k] < LEAST_LOSS;
        let blocks = connected(l, together);
        for block in &blocks {
            notes.push(format!(
                "{} could be turned into each other at no cost: the interventions do not tell their axes apart. Read an edge \
                 into one of them as an edge into all of them.",
                listed(&names(block))
            ));
        }

        let acting = gaining.iter().filter(|gaining| **gaining).count();
        let n_interventions = whitened.interventions.len();
        if acting > 1 && n_interventions < FEWEST_PER_LATENT * acting {
            notes.push(format!(
                "{n_interventions} interventions act on {acting} latents, fewer than {FEWEST_PER_LATENT} for each: the axes of \
                 the latents, and so which of them an edge leads into, are in part a guess."
            ));
        }
        if n_interventions == 1 {
            notes.push(
                "There is a single intervention: which latents it acts on depends on axes that nothing fixes."
                    .to_owned(),
            );
        }

        let unused: Vec<usize> = (0..l).filter(|&k| effects.within[k * l + k] < LEAST_VARIANCE).collect();
        if !unused.is_empty() {
            let verb = if unused.len() == 1 { "is" } else { "are" };
            notes.push(format!(
                "{} {verb} not in use: cells say nothing about {}.",
                listed(&names(&unused)),
                if unused.len() == 1 { "it" } else { "them" }
            ));
        }
        let has_edge = |k: usize| found.iter().any(|edge| edge.latent == k);
        let mut technical = Vec::new();
        for k in (0..l).filter(|&k| !has_edge(k) && !unused.contains(&k)) {
            if let Some(cause) = technical_cause(data, cells, means, [k, l]) {
                notes.push(format!("Latent {k} follows {cause} and no intervention: it is technical."));
                technical.push(k);
            }
        }
        notes.extend(confounded(data, cells));
        Self { blocks, unused, technical, n_latents_with_edges: acting, notes }
    }

    /// The latents that a latent cannot be told from, itself among them, as in `latent_2+latent_5`; empty where there are none.
    pub fn block_name(&self, latent: usize) -> String {
        let names = |block: &Vec<usize>| block.iter().map(|k| format!("latent_{k}")).collect::<Vec<_>>().join("+");
        self.blocks.iter().find(|block| block.contains(&latent)).map_or_else(String::new, names)
    }
}

/// "a", "a and b", "a, b and c".
fn listed(names: &[String]) -> String {
    let text = match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    };
    // It begins a sentence.
    text[..1.min(text.len())].to_uppercase() + &text[1.min(text.len())..]
}

/// Groups of two and more that pairs connect.
fn connected(n: usize, together: impl Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
    let mut group: Vec<usize> = (0..n).collect();
    for j in 0..n {
        for k in j + 1..n {
            if together(j, k) && group[j] != group[k] {
                let (kept, gone) = (group[j].min(group[k]), group[j].max(group[k]));
                group.iter_mut().filter(|g| **g == gone).for_each(|g| *g = kept);
            }
        }
    }
    let members = |g: usize| (0..n).filter(|&k| group[k] == g).collect::<Vec<usize>>();
    (0..n).map(members).filter(|members| members.len() > 1).collect()
}

/// What explains most of the variance of a latent, if it is the depth or a categorical covariate.
fn technical_cause<R: Real>(data: &Dataset, cells: &[usize], means: &[R], [k, l]: [usize; 2]) -> Option<String> {
    let values: Vec<f64> = means.iter().skip(k).step_by(l).map(|m| m.to_f64()).collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let total: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    if total <= 0.0 {
        return None;
    }
    let depth: Vec<f64> = cells.iter().map(|&cell| Real::ln_1p(data.library[cell])).collect();
    let mean_depth = depth.iter().sum::<f64>() / n;
    let spread: f64 = depth.iter().map(|d| (d - mean_depth) * (d - mean_depth)).sum();
    let product: f64 = depth.iter().zip(&values).map(|(d, v)| (d - mean_depth) * (v - mean)).sum();
    if spread > 0.0 && product * product > TECHNICAL_SHARE * spread * total {
        return Some("the number of counts of the cells".to_owned());
    }
    data.covariates.categorical.iter().find_map(|column| {
        let mut sums = vec![(0.0, 0.0); column.levels.len()];
        for (&cell, value) in cells.iter().zip(&values) {
            let (sum, count) = &mut sums[column.codes[cell] as usize];
            *sum += value - mean;
            *count += 1.0;
        }
        let between: f64 = sums.iter().filter(|(_, n)| *n > 0.0).map(|(sum, n)| sum * sum / n).sum();
        (between > TECHNICAL_SHARE * total).then(|| format!("the covariate `{}`", column.name))
    })
}

/// Interventions whose cells share a level of a covariate with no other cells: what they do cannot be told from what the level does.
fn confounded(data: &Dataset, cells: &[usize]) -> Vec<String> {
    let mut notes = Vec::new();
    for column in &data.covariates.categorical {
        // Of each level the only intervention, unless there are several or none.
        let mut only = vec![None; column.levels.len()];
        let mut several = vec![false; column.levels.len()];
        for &cell in cells {
            let level = column.codes[cell] as usize;
            let intervention = data.interventions.single(cell);
            match (only[level], intervention) {
                (None, Some(a)) => only[level] = Some(a),
                (Some(before), Some(a)) if before == a => {}
                _ => several[level] = true,
            }
        }
        let mut alone: Vec<usize> = only.iter().zip(&several).filter(|(_, s)| !**s).filter_map(|(a, _)| *a).collect();
        alone.sort_unstable();
        alone.dedup();
        let elsewhere = |a: usize| {
            let of = |&&cell: &&usize| data.interventions.single(cell) == Some(a);
            cells.iter().filter(of).any(|&cell| several[column.codes[cell] as usize])
        };
        alone.retain(|&a| !elsewhere(a));
        if !alone.is_empty() && column.levels.len() > 1 {
            let shown: Vec<&str> =
                alone.iter().take(MOST_NAMES).map(|&a| data.intervention_names[a].as_str()).collect();
            let more = alone.len().saturating_sub(MOST_NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            notes.push(format!(
                "No other cells share the `{}` of {}{more}: what the intervention does cannot be told from what `{}` does.",
                column.name,
                shown.join(", "),
                column.name
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_connect_groups() {
        let pairs = [(0, 3), (3, 5), (1, 2)];
        let together = |j: usize, k: usize| pairs.contains(&(j, k)) || pairs.contains(&(k, j));
        assert_eq!(connected(6, together), [vec![0, 3, 5], vec![1, 2]]);
        assert_eq!(connected(3, |_, _| false), Vec::<Vec<usize>>::new());
        assert_eq!(
            listed(&["latent 1".into(), "latent 2".into(), "latent 4".into()]),
            "Latent 1, latent 2 and latent 4"
        );
    }
}
