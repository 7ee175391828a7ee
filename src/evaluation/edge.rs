//! One edge and how sure it is, and the average of what is known of edges over turns of the axes.
//! Derivation: `derivations/evidence.md`.

use crate::model::prior::evidence::Weighed;
use crate::numerics::real::Real;
use crate::training::turn::{TurnedEvidence, matched};

/// A shift beyond this, in deviations of the latent's prior, counts as large.
pub const LARGE_SHIFT: f64 = 0.25;
/// Exponent of the likelihoods by which turns are weighed: effects of one training are less certain than they say.
const TEMPER: f64 = 0.25;

/// Deviations on either side of a mean that hold 95 % of a normal distribution.
pub(crate) const DEVIATIONS_OF_95: f64 = 1.959_963_984_540_054;

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
    /// What the guides of the intervention say of it: of an edge of the graph, where guides are known.
    pub guides: Option<GuideAgreement>,
}

/// What the guides of an intervention say of one of its edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuideAgreement {
    /// Guides with enough cells.
    pub guides: usize,
    /// Those whose cells by themselves show the edge, with its sign.
    pub agreeing: usize,
}

/// The evidence averaged over turns of the axes, Eq. (E14), so that an edge is no surer than the axes it stands on. The first turn is
/// that to the present axes, with which those of the others are matched. `of` says what is averaged, along the axes of a turn.
pub(super) fn averaged(turns: &[TurnedEvidence], l: usize, of: impl Fn(&TurnedEvidence) -> Weighed) -> Weighed {
    let all: Vec<Weighed> = turns.iter().map(of).collect();
    let n = all[0].probability.len();
    let highest = turns.iter().map(|turn| turn.evidence.log_likelihood).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> =
        turns.iter().map(|turn| Real::exp(TEMPER * (turn.evidence.log_likelihood - highest))).collect();
    let total: f64 = weights.iter().sum();
    let [mut probability, mut sums, mut first, mut second] = [(); 4].map(|()| vec![0.0; n]);
    for ((turn, found), weight) in turns.iter().zip(&all).zip(&weights) {
        let of_axis = matched(&turn.rotation, l);
        for at in 0..n {
            let (axis, sign) = of_axis[at % l];
            let from = at - at % l + axis;
            let share = weight / total;
            // Shares sum to 1 up to rounding.
            probability[at] = f64::min(probability[at] + share * found.probability[from], 1.0);
            // Where no turn has an edge, what its shift would be still counts.
            let share = share * (found.probability[from] + 1e-9);
            let (mean, deviation) = (sign * found.shift[from], found.deviation[from]);
            sums[at] += share;
            first[at] += share * mean;
            second[at] += share * (deviation * deviation + mean * mean);
        }
    }
    let shift: Vec<f64> = first.iter().zip(&sums).map(|(first, sum)| first / sum).collect();
    let deviation = |at: usize| (second[at] / sums[at] - shift[at] * shift[at]).max(1e-12).sqrt();
    Weighed { probability, deviation: (0..n).map(deviation).collect(), shift }
}

impl Weighed {
    /// Local false sign rate of a pair.
    pub(super) fn lfsr(&self, at: usize) -> f64 {
        let (probability, z) = (self.probability[at], self.shift[at].abs() / self.deviation[at]);
        probability * normal_cdf(-z) + (1.0 - probability)
    }
}

/// Normal distribution function.
pub(super) fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2)
}

/// Mean of 1 - probability over all at least as probable, Eq. (E8), for each; equal ones share it. What is likelier no edge than an
/// edge has no lower value than 1 - probability, so that many certain edges do not carry it along.
pub(super) fn q_values(probabilities: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&i, &j| probabilities[j].total_cmp(&probabilities[i]).then(i.cmp(&j)));
    let mut values = vec![0.0; probabilities.len()];
    let (mut sum, mut from) = (0.0, 0);
    while from < order.len() {
        let to = from + order[from..].iter().take_while(|&&i| probabilities[i] == probabilities[order[from]]).count();
        sum += order[from..to].iter().map(|&i| 1.0 - probabilities[i]).sum::<f64>();
        let alone = 1.0 - probabilities[order[from]];
        let value = if alone > 0.5 { alone } else { sum / to as f64 };
        order[from..to].iter().for_each(|&i| values[i] = value);
        from = to;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_values_are_the_share_of_false_edges_to_expect() {
        assert_eq!(q_values(&[0.5, 1.0, 0.75, 0.75]), [0.25, 0.0, 0.5 / 3.0, 0.5 / 3.0]);
        assert_eq!(q_values(&[1.0, 1.0, 1.0, 0.25, 1.0]), [0.0, 0.0, 0.0, 0.75, 0.0]);
        assert_eq!(q_values(&[]), [0.0; 0]);
    }
}
