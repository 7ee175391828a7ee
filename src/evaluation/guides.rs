//! Edges checked by guides: those of an intervention must agree on its edges, and those of control cells must have none.
//! Derivation: `derivations/evidence.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::dataset::Dataset;
use crate::evaluation::certainty::{Edge, averaged};
use crate::inference::effects::InterventionEffects;
use crate::model::prior::evidence::{Effects, Weighed};
use crate::numerics::real::Real;
use crate::training::turn::TurnedEvidence;

/// Cells of a guide below which nothing is said of it.
pub const FEWEST_CELLS: usize = 5;
/// Local false sign rate below which the cells of a guide show an edge.
const SURE_OF_SIGN: f64 = 0.05;

/// What the guides of an intervention say of one of its edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuideAgreement {
    /// Guides with at least [`FEWEST_CELLS`] cells.
    pub guides: usize,
    /// Those whose cells by themselves show the edge, with its sign.
    pub agreeing: usize,
}

/// The guides of control cells as if they were interventions, each against the other control cells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlGuides {
    /// Guides with at least [`FEWEST_CELLS`] control cells.
    pub n_guides: usize,
    /// Pairs of a guide and a latent.
    pub n_pairs: usize,
    /// Pairs that would be edges of the graph: their q-value beside its pairs is within the false discovery rate.
    pub n_edges: usize,
    /// These pairs.
    pub edges: Vec<ControlEdge>,
}

/// A guide of control cells that acts on a latent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlEdge {
    /// Its name.
    pub guide: String,
    /// Number of the latent.
    pub latent: usize,
    /// Posterior probability that it does.
    pub probability: f64,
    /// Shift, if it does, in deviations of the latent's prior: posterior mean.
    pub shift: f64,
}

/// How many of the edges are shared by guides.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GuideReplication {
    /// Edges of interventions with two or more guides of enough cells.
    pub n_edges: usize,
    /// Those that two or more of these guides show.
    pub n_replicated: usize,
    /// The share of them; absent where there is no such edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

impl GuideReplication {
    /// Of the edges of a graph; `None` where no guides are known.
    pub fn new<'a>(found: impl Iterator<Item = &'a Edge>) -> Option<Self> {
        let agreements: Vec<GuideAgreement> = found.filter_map(|edge| edge.guides).collect();
        let several: Vec<&GuideAgreement> = agreements.iter().filter(|agreement| agreement.guides > 1).collect();
        let n_replicated = several.iter().filter(|agreement| agreement.agreeing > 1).count();
        (!agreements.is_empty()).then(|| Self {
            n_edges: several.len(),
            n_replicated,
            share: (!several.is_empty()).then(|| n_replicated as f64 / several.len() as f64),
        })
    }
}

/// Effects on whitened latents, weighed along the axes of every turn.
fn weighed_over_turns(
    effects: &InterventionEffects,
    turns: &[TurnedEvidence],
    weigh: impl Fn(&TurnedEvidence, Effects<'_>) -> Weighed,
) -> Weighed {
    let whitened = effects.whitened();
    averaged(turns, effects.n_latents, |turn| weigh(turn, whitened.turned(&turn.rotation).to_weigh()))
}

/// Sums over cells of a guide.
#[derive(Debug, Clone, Default)]
struct OfGuide {
    n_cells: usize,
    /// Sum of squared doses.
    weight: f64,
    /// Sum of doses times latents, L.
    sum: Vec<f64>,
}

impl OfGuide {
    fn add(&mut self, dose: f64, latents: impl ExactSizeIterator<Item = f64>) {
        self.n_cells += 1;
        self.weight += dose * dose;
        self.sum.resize(latents.len(), 0.0);
        self.sum.iter_mut().zip(latents).for_each(|(sum, z)| *sum += dose * z);
    }
}

/// Asks of every edge in `found` which guides of its intervention show it, Eqs. (E20) and (E22). `means` are the posterior means of
/// `cells` (cells x L).
pub(super) fn agreement<'a, R: Real>(
    data: &Dataset,
    cells: &[usize],
    means: &[R],
    effects: &InterventionEffects,
    turns: &[TurnedEvidence],
    found: impl Iterator<Item = &'a mut Edge>,
) {
    let Some(guides) = &data.guides else { return };
    let l = effects.n_latents;
    let mut sums: BTreeMap<(usize, u32), OfGuide> = BTreeMap::new();
    for (&cell, mean) in cells.iter().zip(means.chunks_exact(l)) {
        let (Some(a), Some(guide)) = (data.interventions.single(cell), guides.codes[cell]) else { continue };
        let dose = f64::from(data.interventions.row(cell).1[0]);
        let explained = effects.without_intervention(data, cell);
        sums.entry((a, guide)).or_default().add(dose, mean.iter().zip(explained).map(|(z, e)| z.to_f64() - e));
    }
    sums.retain(|_, of| of.n_cells >= FEWEST_CELLS && of.weight > 0.0);
    let rows = sums.values().flat_map(|of| of.sum.iter().map(|sum| sum / of.weight)).collect();
    let of_guides = effects.of_others(rows, sums.values().map(|of| of.weight).collect());
    let weighed = weighed_over_turns(&of_guides, turns, |turn, of| turn.evidence.weigh_again(of));
    for edge in found {
        let places = || sums.keys().enumerate().filter(|(_, (a, _))| *a == edge.intervention);
        let shows = |row: usize| {
            let at = row * l + edge.latent;
            weighed.lfsr(at) < SURE_OF_SIGN && weighed.shift[at] * edge.shift > 0.0
        };
        let agreeing = places().filter(|(row, _)| shows(*row)).count();
        edge.guides = Some(GuideAgreement { guides: places().count(), agreeing });
    }
}

/// The guides of control cells as if they were interventions, Eq. (E21); `is_edge` says whether a pair of a probability would be an
/// edge of the graph. `None` unless control cells come from several guides.
pub(super) fn control_guides<R: Real>(
    data: &Dataset,
    cells: &[usize],
    means: &[R],
    effects: &InterventionEffects,
    turns: &[TurnedEvidence],
    is_edge: impl Fn(f64) -> bool,
) -> Option<ControlGuides> {
    let guides = data.guides.as_ref()?;
    let l = effects.n_latents;
    // By combination of levels: all control cells, and those of each guide.
    let mut strata: BTreeMap<Vec<u32>, (OfGuide, BTreeMap<u32, OfGuide>)> = BTreeMap::new();
    let mut sizes = vec![0; guides.names.len()];
    for (&cell, mean) in cells.iter().zip(means.chunks_exact(l)) {
        if !data.interventions.row(cell).0.is_empty() {
            continue;
        }
        let levels = data.covariates.categorical.iter().map(|column| column.codes[cell]).collect();
        let (all, of_guides) = strata.entry(levels).or_default();
        let latents = || mean.iter().map(|z| z.to_f64());
        all.add(1.0, latents());
        if let Some(guide) = guides.codes[cell] {
            sizes[guide as usize] += 1;
            of_guides.entry(guide).or_default().add(1.0, latents());
        }
    }
    let (mut judged, mut rows, mut worth) = (Vec::new(), Vec::new(), Vec::new());
    for guide in (0..guides.names.len()).filter(|&guide| sizes[guide] >= FEWEST_CELLS) {
        let (mut row, mut total) = (vec![0.0; l], 0.0);
        for (all, of_guides) in strata.values() {
            let Some(of) = of_guides.get(&(guide as u32)).filter(|of| of.n_cells < all.n_cells) else { continue };
            let (n, rest) = (of.n_cells as f64, (all.n_cells - of.n_cells) as f64);
            let weight = n * rest / all.n_cells as f64;
            total += weight;
            for ((value, of), all) in row.iter_mut().zip(&of.sum).zip(&all.sum) {
                *value += weight * (of / n - (all - of) / rest);
            }
        }
        // Otherwise no other control cells share a batch with it.
        if total > 0.0 {
            judged.push(guide);
            worth.push(total);
            rows.extend(row.into_iter().map(|value| value / total));
        }
    }
    if judged.len() < 2 {
        return None;
    }
    let weighed =
        weighed_over_turns(&effects.of_others(rows, worth), turns, |turn, of| turn.evidence.weigh(of));
    let edge = |at: usize| ControlEdge {
        guide: guides.names[judged[at / l]].clone(),
        latent: at % l,
        probability: weighed.probability[at],
        shift: weighed.shift[at],
    };
    let n_pairs = weighed.probability.len();
    let edges: Vec<ControlEdge> = (0..n_pairs).filter(|&at| is_edge(weighed.probability[at])).map(edge).collect();
    Some(ControlGuides { n_guides: judged.len(), n_pairs, n_edges: edges.len(), edges })
}
