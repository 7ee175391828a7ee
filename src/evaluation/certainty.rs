//! How sure the edges of the graph are: each pair of intervention and latent with its probability, its shift and what speaks
//! against it. Derivation: `derivations/evidence.md`.

use serde::{Deserialize, Serialize};

use crate::data::dataset::Dataset;
use crate::data::split::ScreenSplit;
use crate::error::Result;
pub use crate::evaluation::edge::Edge;
use crate::evaluation::edge::{DEVIATIONS_OF_95, LARGE_SHIFT, averaged, normal_cdf, q_values};
use crate::evaluation::guides::{ControlGuides, agreement, control_guides};
use crate::evaluation::identifiability::Identifiability;
use crate::evaluation::interactions::Interactions;
use crate::inference::effects::{InterventionEffects, WhitenedEffects};
use crate::inference::trained_model::TrainedModel;
use crate::model::prior::evidence::{Weighed, evidence};
use crate::model::prior::table::Masks;
use crate::numerics::random::{Purpose, shuffle, stream};
use crate::numerics::real::Real;
use crate::parallel::team::{Team, tiles};
use crate::training::turn::{STARTS, TurnedEvidence, evidence_of_turns};

/// Permutations of the labels.
pub const PERMUTATIONS: usize = 20;

/// How many edges there would be if labels meant nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PermutationCheck {
    /// Permutations of the labels, within each combination of categorical covariates.
    pub n_permutations: usize,
    /// Mean number of edges found in them.
    pub mean_edges: f64,
    /// Share of the permutations with any edge.
    pub share_with_edges: f64,
    /// Mean number of edges found, divided by the number found with the labels as they are; absent where that is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permutation_fdr: Option<f64>,
}

/// The edges of a graph and how sure they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Certainty {
    /// False discovery rate up to which a pair counts as an edge of the graph.
    pub fdr: f64,
    /// Every pair of a trained intervention and a latent, by intervention, then latent.
    pub edges: Vec<Edge>,
    /// The same with labels permuted.
    pub permutation: PermutationCheck,
    /// The same for guides of control cells, where there are several.
    pub control_guides: Option<ControlGuides>,
    /// What the screen leaves open.
    pub limits: Identifiability,
    /// Combinations that act otherwise than by the sum of their members, where there are any combinations.
    pub interactions: Option<Interactions>,
}

impl Certainty {
    /// The certainty of the edges of `model`; `None` where its masks are not integrated out.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn of<R: Real>(
        team: &Team,
        model: &mut impl TrainedModel<R>,
        data: &Dataset,
        split: &ScreenSplit,
        fdr: f64,
        seed: u64,
    ) -> Result<Option<Self>> {
        let Masks::Integrated { .. } = model.prior().masks else { return Ok(None) };
        let means = model.posterior_means(&split.train)?;
        Ok(Some(Self::new(team, data, &split.train, &means, fdr, seed)))
    }

    /// The certainty of the edges of the trained interventions of a screen, from the posterior means of its training cells
    /// (cells x L).
    ///
    /// # Panics
    /// If there are no cells.
    pub fn new<R: Real>(team: &Team, data: &Dataset, cells: &[usize], means: &[R], fdr: f64, seed: u64) -> Self {
        let l = means.len() / cells.len();
        let effects = InterventionEffects::new(data, cells, means, l);
        let whitened = effects.whitened();
        let (turns, mut edges) = edges_over_turns(team, &whitened, seed);
        agreement(data, cells, means, &effects, &turns, edges.iter_mut().filter(|edge| edge.q_value <= fdr));
        let found: Vec<Edge> = edges.iter().filter(|edge| edge.q_value <= fdr).copied().collect();
        let q_value = q_value_among(&edges);
        let control_guides = control_guides(data, cells, means, &effects, &turns, |p| q_value(p) <= fdr);
        let permutation = permutation_check(team, data, cells, means, fdr, seed, found.len());
        let limits = Identifiability::new(data, cells, means, &effects, &whitened, &turns[0].evidence, &found);
        let interactions = Interactions::new(data, cells, means, &turns, fdr);
        Self { fdr, edges, permutation, control_guides, limits, interactions }
    }

    /// The edges of the graph: those with a q-value up to the false discovery rate.
    pub fn found(&self) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(|edge| edge.q_value <= self.fdr)
    }
}

/// The edges of the graph alone, as [`Certainty::found`] of [`Certainty::new`] gives them.
pub(crate) fn edges_found<R: Real>(
    team: &Team,
    data: &Dataset,
    cells: &[usize],
    means: &[R],
    fdr: f64,
    seed: u64,
) -> Vec<Edge> {
    let l = means.len() / cells.len();
    let whitened = InterventionEffects::new(data, cells, means, l).whitened();
    let (_, mut edges) = edges_over_turns(team, &whitened, seed);
    edges.retain(|edge| edge.q_value <= fdr);
    edges
}

/// The evidence along each of the turns, and every pair by their average.
fn edges_over_turns(team: &Team, whitened: &WhitenedEffects, seed: u64) -> (Vec<TurnedEvidence>, Vec<Edge>) {
    let l = whitened.n_latents;
    let turns = evidence_of_turns(team, whitened, STARTS, seed);
    let edges = edges(&whitened.interventions, l, averaged(&turns, l, |turn| turn.evidence.weighed()));
    (turns, edges)
}

/// Every pair of these interventions and a latent.
fn edges(interventions: &[usize], l: usize, weighed: Weighed) -> Vec<Edge> {
    let q_values = q_values(&weighed.probability);
    let edge = |(at, q_value): (usize, f64)| {
        let (probability, shift, deviation) = (weighed.probability[at], weighed.shift[at], weighed.deviation[at]);
        let below = |limit: f64| normal_cdf((limit - shift) / deviation);
        let half = DEVIATIONS_OF_95 * deviation;
        Edge {
            intervention: interventions[at / l],
            latent: at % l,
            probability,
            lfsr: weighed.lfsr(at),
            q_value,
            shift,
            shift_low: shift - half,
            shift_high: shift + half,
            probability_large: probability * (below(-LARGE_SHIFT) + 1.0 - below(LARGE_SHIFT)),
            guides: None,
        }
    };
    q_values.into_iter().enumerate().map(edge).collect()
}

/// The q-value, Eq. (E8), that one more pair of a probability would have beside these.
fn q_value_among(edges: &[Edge]) -> impl Fn(f64) -> f64 + use<> {
    let mut doubts: Vec<f64> = edges.iter().map(|edge| 1.0 - edge.probability).collect();
    doubts.sort_by(f64::total_cmp);
    move |probability| {
        let alone = 1.0 - probability;
        let surer = &doubts[..doubts.partition_point(|&doubt| doubt <= alone)];
        let value = (surer.iter().sum::<f64>() + alone) / (surer.len() + 1) as f64;
        if alone > 0.5 { alone } else { value }
    }
}

fn permutation_check<R: Real>(
    team: &Team,
    data: &Dataset,
    cells: &[usize],
    means: &[R],
    fdr: f64,
    seed: u64,
    n_edges: usize,
) -> PermutationCheck {
    let l = means.len() / cells.len();
    // Cells of one combination of levels after the other.
    let levels = |place: usize| -> Vec<u32> {
        data.covariates.categorical.iter().map(|column| column.codes[cells[place]]).collect()
    };
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|&place| levels(place));
    let mut counts = vec![0; PERMUTATIONS];
    team.run(PERMUTATIONS, tiles(&mut counts, 1), |number, count| {
        let random = &mut stream(seed, Purpose::Permutation, number as u64, 0);
        let mut taken = order.clone();
        for batch in taken.chunk_by_mut(|&a, &b| levels(a) == levels(b)) {
            shuffle(batch, random);
        }
        // The cell whose labels each posterior mean gets.
        let mut labelled = vec![0; cells.len()];
        order.iter().zip(&taken).for_each(|(&to, &from)| labelled[from] = cells[to]);
        let whitened = InterventionEffects::new(data, &labelled, means, l).whitened();
        let found = evidence(whitened.to_weigh(), true);
        count[0] = q_values(&found.probability).into_iter().filter(|&q| q <= fdr).count();
    });
    let mean_edges = counts.iter().sum::<usize>() as f64 / PERMUTATIONS as f64;
    PermutationCheck {
        n_permutations: PERMUTATIONS,
        mean_edges,
        share_with_edges: counts.iter().filter(|&&n| n > 0).count() as f64 / PERMUTATIONS as f64,
        permutation_fdr: (n_edges > 0).then(|| mean_edges / n_edges as f64),
    }
}
