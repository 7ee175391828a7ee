//! How the graph is found in the course of a training: dense at first, then turned, then on the evidence of each edge, its mask
//! integrated out. Derivations: `derivations/rotation.md`, `derivations/evidence.md`; `docs/recipe.md` shows what each step brings.

use crate::inference::effects::InterventionEffects;
use crate::model::architecture::{LatentDistribution, MaskKind, Prior};
use crate::model::network::Network;
use crate::model::prior::evidence::evidence;
use crate::model::prior::mask;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::training::turn::likeliest_turn;

/// Bases from which the first turn and the last are sought.
pub(crate) const FIRST_STARTS: usize = 16;
/// Bases from which later turns are sought.
const LATER_STARTS: usize = 4;
/// Epochs after which the evidence is renewed.
pub(crate) const RENEWED_EVERY: usize = 10;
/// Turns within the sparse phase; they divide it evenly.
pub(crate) const LATER_TURNS: usize = 3;
/// Rounds of empirical Bayes.
pub(crate) const ROUNDS: usize = 30;
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
        shifts.iter_mut().for_each(|shift| *shift *= R::from_f64(SMALL));
        logits.fill(R::from_f64(mask::OPEN));
    }
}

/// Turns the latents if that is due, and sets masks and shifts by the evidence. Returns whether a turn was made.
pub(crate) fn identify<R: Real>(
    team: &Team,
    network: &mut Network<R>,
    mut found: InterventionEffects,
    due: Due,
    seed: u64,
) -> bool {
    let l = network.architecture.n_latents;
    let starts = match due {
        Due::Nothing | Due::Evidence => 0,
        Due::FirstTurn => FIRST_STARTS,
        Due::Turn | Due::LastTurn => LATER_STARTS,
    };
    let mut whitened = found.whitened();
    // A softmax of latents has axes of its own.
    let is_free = network.architecture.latent_distribution == LatentDistribution::Normal;
    let searches = starts > 0 && l > 1 && is_free;
    let turn = searches.then(|| likeliest_turn(team, &whitened, starts, seed)).flatten();
    if let Some(rotation) = &turn {
        found = found.turned(rotation);
        whitened = found.whitened();
        network.rotate_latents(rotation, &found.effects, &vec![true; l], 0.0);
        network.turn_variances(rotation);
    }
    let evidence = evidence(whitened.to_weigh(), ROUNDS, starts > 0);
    let colour = |row: usize| -> f64 {
        whitened.colour[row * l..(row + 1) * l].iter().zip(&evidence.origin).map(|(c, o)| c * o).sum()
    };
    let origin: Vec<f64> = (0..l).map(colour).collect();
    if is_free {
        // Where no intervention acts is where the prior has its mean.
        network.translate_latents(&origin.iter().zip(&found.origin).map(|(o, c)| o + c).collect::<Vec<f64>>());
    }
    for (&a, probability) in whitened.interventions.iter().zip(evidence.probability.chunks_exact(l)) {
        let effects = &found.effects[a * l..(a + 1) * l];
        let shifts: Vec<f64> = effects.iter().zip(&origin).map(|(e, o)| e - o).collect();
        let log_odds: Vec<f64> = probability.iter().map(|&q| Real::ln(q / (1.0 - q))).collect();
        network.prior_mut().set_edges(a, &shifts, &log_odds);
    }
    turn.is_some()
}
