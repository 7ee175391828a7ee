//! How the graph is found in the course of a training: dense at first, then turned, then on the evidence of each edge, its mask
//! integrated out. Derivations: `derivations/rotation.md`, `derivations/evidence.md`; `docs/recipe.md` shows what each step brings.

use crate::inference::effects::InterventionEffects;
use crate::model::architecture::{LatentDistribution, MaskKind, Prior};
use crate::model::network::Network;
use crate::model::prior::evidence::evidence;
use crate::model::prior::mask;
use crate::numerics::real::Real;
use crate::training::turn::sparsest_turn;

/// Bases from which the first turn is sought.
const FIRST_STARTS: usize = 10;
/// Bases from which later turns are sought.
const LATER_STARTS: usize = 4;
/// Epochs after which the evidence is renewed.
pub(crate) const RENEWED_EVERY: usize = 10;
/// Turns within the sparse phase; they divide it evenly.
pub(crate) const LATER_TURNS: usize = 3;
/// Size of the shifts at the start, as a share of those that are drawn.
const SMALL: f64 = 0.1;

/// What is due before the training goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// The evidence of every edge.
    Evidence,
    /// A turn of the latents, and the evidence after it.
    Turn,
    /// The first turn, with which the dense phase ends.
    FirstTurn,
    /// The last turn, on the evidence of the weights that are kept.
    LastTurn,
}

/// Whether the masks of a network are integrated out, so that its graph is found in this way.
pub fn applies<R>(network: &Network<R>) -> bool {
    matches!(network.architecture.prior, Prior::Masked { kind: MaskKind::Integrated, .. })
        && network.frozen_mask.is_none()
}

/// Opens every edge before the first step.
pub(crate) fn begin<R: Real>(network: &mut Network<R>) {
    let prior = network.prior_mut();
    if let (Some(shifts), Some(logits)) = (prior.shifts, prior.mask_logits) {
        shifts.iter_mut().for_each(|shift| *shift = *shift * R::from_f64(SMALL));
        logits.fill(R::from_f64(mask::OPEN));
    }
}

/// Turns the latents if that is due, and sets masks and shifts by the evidence. Returns whether a turn was made.
pub(crate) fn identify<R: Real>(network: &mut Network<R>, found: &InterventionEffects, due: Due, seed: u64) -> bool {
    let l = network.architecture.n_latents;
    let starts = match due {
        Due::Nothing | Due::Evidence => 0,
        Due::FirstTurn => FIRST_STARTS,
        Due::Turn | Due::LastTurn => LATER_STARTS,
    };
    // A softmax of latents has axes of its own.
    let turns = starts > 0 && l > 1 && network.architecture.latent_distribution == LatentDistribution::Normal;
    let mut found = found.clone();
    if turns {
        let turn = sparsest_turn(&found.effects, l, starts, seed);
        found = found.turned(&turn.rotation);
        network.rotate_latents(&turn.rotation, &found.effects, &vec![true; l], 0.0);
    }
    let variances = found.sampling_variances();
    let evidence = evidence(&found.effects, &variances, l);
    let log_odds: Vec<f64> = evidence.probability.iter().map(|&q| Real::ln(q / (1.0 - q))).collect();
    network.prior_mut().set_edges(&found.effects, &log_odds, |at| variances[at].is_finite());
    turns
}
