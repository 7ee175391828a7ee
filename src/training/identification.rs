//! How the graph is found in the course of a training: dense at first, then turned, then on the evidence of each edge, its mask
//! integrated out. Derivations: `derivations/rotation.md`, `derivations/evidence.md`; `docs/recipe.md` shows what each step brings.

use crate::inference::effects::{InterventionEffects, WhitenedEffects};
use crate::model::architecture::{LatentDistribution, MaskKind, Prior};
use crate::model::network::Network;
use crate::model::prior::evidence::evidence;
use crate::model::prior::mask;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::training::turn::{STARTS, likeliest_turn};

/// Bases from which later turns are sought than the first.
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
    /// The last turn, if it costs nothing, and the evidence of every edge, by the weights that are kept.
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

impl Due {
    /// Bases from which a turn is sought.
    pub(crate) fn starts(self) -> usize {
        match self {
            Due::Nothing | Due::Evidence => 0,
            Due::FirstTurn => STARTS,
            Due::Turn | Due::LastTurn => LATER_STARTS,
        }
    }
}

/// Turns the latents, if a turn from any of `starts` bases makes the effects likelier, and sets masks and shifts by the evidence;
/// `mixes` says whether that estimates the mixing of latents too. Returns whether a turn was made.
pub(crate) fn identify<R: Real>(
    team: &Team,
    network: &mut Network<R>,
    mut found: InterventionEffects,
    starts: usize,
    mixes: bool,
    seed: u64,
) -> bool {
    let l = network.architecture.n_latents;
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
    let WeighedShifts { origin, rows } = WeighedShifts::new(&found, &whitened, mixes);
    if is_free {
        // Where no intervention acts is where the prior has its mean.
        network.translate_latents(&origin);
    }
    for InterventionRow { intervention, shifts, logits } in rows {
        network.prior_mut().set_edges(intervention, &shifts, &logits);
    }
    turn.is_some()
}

/// Shifts and masks of the interventions with cells, as the evidence has them.
#[derive(Debug)]
pub(crate) struct WeighedShifts {
    /// Where no intervention acts, L.
    pub origin: Vec<f64>,
    /// A row for each intervention.
    pub rows: Vec<InterventionRow>,
}

/// Shifts of an intervention from the origin and logits of its masks, L each.
#[derive(Debug)]
pub(crate) struct InterventionRow {
    pub intervention: usize,
    pub shifts: Vec<f64>,
    /// Not bounded: infinite beside a probability of 0 or 1.
    pub logits: Vec<f64>,
}

impl WeighedShifts {
    /// Weighs effects, which are given as they are and whitened; `mixes` says whether the mixing of latents is estimated too.
    pub fn new(found: &InterventionEffects, whitened: &WhitenedEffects, mixes: bool) -> Self {
        let l = found.n_latents;
        let evidence = evidence(whitened.to_weigh(), mixes);
        let colour = |row: &[f64]| -> f64 { row.iter().zip(&evidence.origin).map(|(c, o)| c * o).sum() };
        let without_edge: Vec<f64> = whitened.colour.chunks_exact(l).map(colour).collect();
        let row = |(&intervention, probability): (&usize, &[f64])| {
            let effects = &found.effects[intervention * l..(intervention + 1) * l];
            InterventionRow {
                intervention,
                shifts: effects.iter().zip(&without_edge).map(|(e, o)| e - o).collect(),
                logits: probability.iter().map(|&q| Real::ln(q / (1.0 - q))).collect(),
            }
        };
        let rows = whitened.interventions.iter().zip(evidence.probability.chunks_exact(l)).map(row).collect();
        Self { origin: without_edge.iter().zip(&found.origin).map(|(o, c)| o + c).collect(), rows }
    }
}
