//! How sure the edges of the graph are: each pair of intervention and latent with its probability, its shift and what speaks
//! against it. Derivation: `derivations/evidence.md`.

use serde::{Deserialize, Serialize};

use crate::data::dataset::Dataset;
use crate::data::split::ScreenSplit;
use crate::error::Result;
use crate::inference::effects::InterventionEffects;
use crate::inference::{Inference, evaluation_workspace};
use crate::model::network::Network;
use crate::model::prior::evidence::{Evidence, evidence};
use crate::model::prior::table::Masks;
use crate::numerics::random::{Purpose, shuffle, stream};
use crate::numerics::real::Real;
use crate::parallel::team::Team;

/// A shift beyond this, in deviations of the latent's prior, counts as large.
pub const LARGE_SHIFT: f64 = 0.25;
/// Permutations of the labels.
pub const PERMUTATIONS: usize = 20;
/// Rounds of empirical Bayes.
const ROUNDS: usize = 30;
/// Deviations on either side of a mean that hold 95 % of a normal distribution.
const DEVIATIONS_OF_95: f64 = 1.959_963_984_540_054;

/// What is known of one pair of intervention and latent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge {
    /// Number of the intervention.
    pub intervention: usize,
    /// Number of the latent.
    pub latent: usize,
    /// Posterior probability that the intervention acts on the latent.
    pub probability: f64,
    /// Local false sign rate: the probability that the shift is 0 or has the other sign.
    pub lfsr: f64,
    /// The share of false edges to expect among all edges at least as probable as this one (Bayesian false discovery rate).
    pub q_value: f64,
    /// Shift, if there is an edge, in deviations of the latent's prior: posterior mean.
    pub shift: f64,
    /// Lower end of its 95 % interval.
    pub shift_low: f64,
    /// Upper end of its 95 % interval.
    pub shift_high: f64,
    /// Probability that there is an edge whose shift is beyond [`LARGE_SHIFT`] either way.
    pub probability_large: f64,
}

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
}

impl Certainty {
    /// The certainty of the edges of `network`; `None` where its masks are not integrated out.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn of_network<R: Real>(
        team: &Team,
        network: &Network<R>,
        data: &Dataset,
        split: &ScreenSplit,
        fdr: f64,
        seed: u64,
    ) -> Result<Option<Self>> {
        let Masks::Integrated { .. } = network.prior().masks else { return Ok(None) };
        let mut workspace = evaluation_workspace(network, data);
        let means = Inference { team, network, data, workspace: &mut workspace }.posterior_means(&split.train)?;
        Ok(Some(Self::new(data, &split.train, &means, network.architecture.n_latents, fdr, seed)))
    }

    /// The certainty of the edges of the trained interventions of a screen, from the posterior means of its training cells
    /// (cells x L).
    pub fn new<R: Real>(data: &Dataset, cells: &[usize], means: &[R], l: usize, fdr: f64, seed: u64) -> Self {
        let edges = edges(&InterventionEffects::new(data, cells, means, l));
        let n_edges = edges.iter().filter(|edge| edge.q_value <= fdr).count();
        let permutation = permutation_check(data, cells, means, l, fdr, seed, n_edges);
        Self { fdr, edges, permutation }
    }

    /// The edges of the graph: those with a q-value up to the false discovery rate.
    pub fn found(&self) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(|edge| edge.q_value <= self.fdr)
    }
}

/// Every pair of an intervention with cells and a latent.
fn edges(found: &InterventionEffects) -> Vec<Edge> {
    let l = found.n_latents;
    let whitened = found.whitened();
    let evidence = evidence(whitened.to_weigh(), ROUNDS, true);
    let q_values = q_values(&evidence.probability);
    let edge = |(at, q_value): (usize, f64)| edge(&evidence, at, [whitened.interventions[at / l], at % l], q_value);
    q_values.into_iter().enumerate().map(edge).collect()
}

fn edge(evidence: &Evidence, at: usize, [intervention, latent]: [usize; 2], q_value: f64) -> Edge {
    let (probability, shift, deviation) = (evidence.probability[at], evidence.shift[at], evidence.deviation[at]);
    let below = |limit: f64| normal_cdf((limit - shift) / deviation);
    let half = DEVIATIONS_OF_95 * deviation;
    Edge {
        intervention,
        latent,
        probability,
        lfsr: probability * normal_cdf(-shift.abs() / deviation) + (1.0 - probability),
        q_value,
        shift,
        shift_low: shift - half,
        shift_high: shift + half,
        probability_large: probability * (below(-LARGE_SHIFT) + 1.0 - below(LARGE_SHIFT)),
    }
}

/// Normal distribution function.
fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2)
}

/// Mean of 1 - probability over all at least as probable, Eq. (E8), for each; equal ones share it.
fn q_values(probabilities: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&i, &j| probabilities[j].total_cmp(&probabilities[i]).then(i.cmp(&j)));
    let mut values = vec![0.0; probabilities.len()];
    let (mut sum, mut from) = (0.0, 0);
    while from < order.len() {
        let to = from + order[from..].iter().take_while(|&&i| probabilities[i] == probabilities[order[from]]).count();
        sum += order[from..to].iter().map(|&i| 1.0 - probabilities[i]).sum::<f64>();
        order[from..to].iter().for_each(|&i| values[i] = sum / to as f64);
        from = to;
    }
    values
}

fn permutation_check<R: Real>(
    data: &Dataset,
    cells: &[usize],
    means: &[R],
    l: usize,
    fdr: f64,
    seed: u64,
    n_edges: usize,
) -> PermutationCheck {
    // Cells of one combination of levels after the other.
    let levels = |place: usize| -> Vec<u32> {
        data.covariates.categorical.iter().map(|column| column.codes[cells[place]]).collect()
    };
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|&place| levels(place));
    let mut permuted = means.to_vec();
    let counts: Vec<usize> = (0..PERMUTATIONS)
        .map(|number| {
            let random = &mut stream(seed, Purpose::Permutation, number as u64, 0);
            let mut taken = order.clone();
            for batch in taken.chunk_by_mut(|&a, &b| levels(a) == levels(b)) {
                shuffle(batch, random);
            }
            for (&to, &from) in order.iter().zip(&taken) {
                permuted[to * l..(to + 1) * l].copy_from_slice(&means[from * l..(from + 1) * l]);
            }
            let edges = edges(&InterventionEffects::new(data, cells, &permuted, l));
            edges.iter().filter(|edge| edge.q_value <= fdr).count()
        })
        .collect();
    let mean_edges = counts.iter().sum::<usize>() as f64 / PERMUTATIONS as f64;
    PermutationCheck {
        n_permutations: PERMUTATIONS,
        mean_edges,
        share_with_edges: counts.iter().filter(|&&n| n > 0).count() as f64 / PERMUTATIONS as f64,
        permutation_fdr: (n_edges > 0).then(|| mean_edges / n_edges as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_values_are_the_share_of_false_edges_to_expect() {
        assert_eq!(q_values(&[0.5, 1.0, 0.9, 0.9]), [0.175, 0.0, 0.2 / 3.0, 0.2 / 3.0]);
        assert_eq!(q_values(&[]), [0.0; 0]);
    }
}
