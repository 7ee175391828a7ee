//! Edges checked by guides: those of an intervention must agree on its edges, and those of control cells must have none.
//! Derivation: `derivations/evidence.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::dataset::{Dataset, Guides};
pub use crate::evaluation::edge::GuideAgreement;
use crate::evaluation::edge::{Edge, averaged};
use crate::inference::effects::InterventionEffects;
use crate::model::prior::evidence::{EffectsToWeigh, Evidence, Weighed};
use crate::numerics::real::Real;
use crate::training::turn::TurnedEvidence;

/// Cells of a guide below which nothing is said of it.
pub const FEWEST_CELLS: usize = 5;
/// Local false sign rate below which the cells of a guide show an edge.
const SURE_OF_SIGN: f64 = 0.05;

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

/// Effects of guides, a row of L each, and the cells that each is worth.
struct GuideEffects<K> {
    /// What each row is of.
    of: Vec<K>,
    rows: Vec<f64>,
    worth: Vec<f64>,
}

impl<K> GuideEffects<K> {
    /// Weighed along the axes of every turn, on whitened latents.
    fn weighed(
        &self,
        effects: &InterventionEffects,
        turns: &[TurnedEvidence],
        weigh: impl Fn(&Evidence, EffectsToWeigh<'_>) -> Weighed,
    ) -> Weighed {
        let whitened = effects.of_others(self.rows.clone(), self.worth.clone()).whitened();
        averaged(turns, effects.n_latents, |turn| weigh(&turn.evidence, whitened.turned(&turn.rotation).to_weigh()))
    }
}

/// Effects of the cells of each guide of each intervention, Eq. (E20). `means` are the posterior means of `cells` (cells x L).
fn effects_of_guides<R: Real>(
    data: &Dataset,
    guides: &Guides,
    cells: &[usize],
    means: &[R],
    effects: &InterventionEffects,
) -> GuideEffects<(usize, u32)> {
    let l = effects.n_latents;
    let mut sums: BTreeMap<(usize, u32), OfGuide> = BTreeMap::new();
    for (&cell, mean) in cells.iter().zip(means.chunks_exact(l)) {
        let (Some(a), Some(guide)) = (data.interventions.single(cell), guides.codes[cell]) else { continue };
        let dose = f64::from(data.interventions.row(cell).1[0]);
        let explained = effects.without_intervention(data, cell);
        sums.entry((a, guide)).or_default().add(dose, mean.iter().zip(explained).map(|(z, e)| z.to_f64() - e));
    }
    sums.retain(|_, of| of.n_cells >= FEWEST_CELLS && of.weight > 0.0);
    GuideEffects {
        of: sums.keys().copied().collect(),
        rows: sums.values().flat_map(|of| of.sum.iter().map(|sum| sum / of.weight)).collect(),
        worth: sums.values().map(|of| of.weight).collect(),
    }
}

/// Asks of every edge in `found` which guides of its intervention show it, Eq. (E22). `means` are the posterior means of `cells`
/// (cells x L).
pub(super) fn agreement<'a, R: Real>(
    data: &Dataset,
    cells: &[usize],
    means: &[R],
    effects: &InterventionEffects,
    turns: &[TurnedEvidence],
    found: impl Iterator<Item = &'a mut Edge>,
) {
    let Some(guides) = &data.guides else { return };
    let by_guide = effects_of_guides(data, guides, cells, means, effects);
    let weighed = by_guide.weighed(effects, turns, Evidence::weigh_again);
    for edge in found {
        let rows = (0..by_guide.of.len()).filter(|&row| by_guide.of[row].0 == edge.intervention);
        let shows = |row: usize| {
            let at = row * effects.n_latents + edge.latent;
            weighed.lfsr(at) < SURE_OF_SIGN && weighed.shift[at] * edge.shift > 0.0
        };
        let shown: Vec<bool> = rows.map(shows).collect();
        let agreeing = shown.iter().filter(|shows| **shows).count();
        edge.guides = Some(GuideAgreement { guides: shown.len(), agreeing });
    }
}

/// Effects of each guide of control cells against the other control cells of the same levels of all categorical covariates,
/// Eq. (E21). A guide that shares levels with no other is left out.
fn effects_of_controls<R: Real>(
    data: &Dataset,
    guides: &Guides,
    cells: &[usize],
    means: &[R],
    l: usize,
) -> GuideEffects<usize> {
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
    let mut found = GuideEffects { of: Vec::new(), rows: Vec::new(), worth: Vec::new() };
    for guide in (0..sizes.len()).filter(|&guide| sizes[guide] >= FEWEST_CELLS) {
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
        if total > 0.0 {
            found.of.push(guide);
            found.worth.push(total);
            found.rows.extend(row.into_iter().map(|value| value / total));
        }
    }
    found
}

/// The guides of control cells as if they were interventions; `is_edge` says whether a pair of a probability would be an edge of the
/// graph. `None` unless control cells come from several guides.
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
    let controls = effects_of_controls(data, guides, cells, means, l);
    let n_guides = controls.of.len();
    if n_guides < 2 {
        return None;
    }
    let weighed = controls.weighed(effects, turns, Evidence::weigh);
    let edge = |at: usize| ControlEdge {
        guide: guides.names[controls.of[at / l]].clone(),
        latent: at % l,
        probability: weighed.probability[at],
        shift: weighed.shift[at],
    };
    let edges: Vec<ControlEdge> = (0..n_guides * l).filter(|&at| is_edge(weighed.probability[at])).map(edge).collect();
    Some(ControlGuides { n_guides, n_pairs: n_guides * l, n_edges: edges.len(), edges })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::{Categorical, InterventionRows};
    use crate::data::simulate::{Simulation, simulate};
    use crate::evaluation::certainty::Certainty;
    use crate::parallel::team::Team;

    const PER_INTERVENTION: usize = 4;
    const OF_CONTROLS: usize = 5;

    /// A screen of 12 interventions of 80 cells from four guides each, and 250 control cells from five.
    fn screen() -> Dataset {
        let simulation = Simulation {
            n_interventions: 12,
            n_latents: 3,
            n_genes: 10,
            cells_per_intervention: 80,
            n_controls: Some(250),
            seed: 5,
            ..Simulation::default()
        };
        let mut data = simulate(&simulation).expect("a simulation").dataset;
        let of = |n: usize| match data.interventions.single(n) {
            Some(a) => a * PER_INTERVENTION + n % PER_INTERVENTION,
            None => 12 * PER_INTERVENTION + n % OF_CONTROLS,
        };
        let codes = (0..data.n_cells()).map(|n| Some(of(n) as u32)).collect();
        let names = (0..12 * PER_INTERVENTION + OF_CONTROLS).map(|guide| format!("guide {guide}")).collect();
        data.guides = Some(Guides { name: "guide".to_owned(), names, codes });
        data
    }

    fn latents(data: &Dataset) -> Vec<f64> {
        data.truth.as_ref().expect("simulated").latents.clone()
    }

    /// What is found where latents are known as they are.
    fn certainty(data: &Dataset, latents: &[f64]) -> Certainty {
        let cells: Vec<usize> = (0..data.n_cells()).collect();
        Team::with(2, |team| Certainty::new(team, data, &cells, latents, 0.05, 3))
    }

    fn guides(data: &mut Dataset) -> &mut Guides {
        data.guides.as_mut().expect("guides")
    }

    #[test]
    fn guides_agree_on_true_edges_and_those_of_controls_have_none() {
        let data = screen();
        let found = certainty(&data, &latents(&data));
        assert!(found.found().count() >= 12);
        assert!(found.found().all(|e| e.guides == Some(GuideAgreement { guides: 4, agreeing: 4 })));
        assert!(found.edges.iter().filter(|edge| edge.q_value > 0.05).all(|edge| edge.guides.is_none()));
        let expected = ControlGuides { n_guides: OF_CONTROLS, n_pairs: 3 * OF_CONTROLS, n_edges: 0, edges: Vec::new() };
        assert_eq!(found.control_guides, Some(expected));
        let n_edges = found.found().count();
        let replication = GuideReplication { n_edges, n_replicated: n_edges, share: Some(1.0) };
        assert_eq!(GuideReplication::new(found.found()), Some(replication));
    }

    #[test]
    fn a_guide_whose_cells_escaped_does_not_agree() {
        let data = screen();
        let mut latents = latents(&data);
        let (first, means) = (certainty(&data, &latents), &data.truth.as_ref().expect("simulated").prior_means);
        let a = first.found().next().expect("an edge").intervention;
        for n in (0..data.n_cells()).filter(|n| data.interventions.single(*n) == Some(a) && n % PER_INTERVENTION == 1) {
            (0..3).for_each(|k| latents[n * 3 + k] -= means[a * 3 + k]);
        }
        let found = certainty(&data, &latents);
        assert!(found.found().any(|edge| edge.intervention == a));
        for edge in found.found() {
            let agreeing = if edge.intervention == a { 3 } else { 4 };
            assert_eq!(edge.guides, Some(GuideAgreement { guides: 4, agreeing }), "{edge:?}");
        }
    }

    #[test]
    fn a_control_guide_off_its_target_is_found() {
        let data = screen();
        let mut latents = latents(&data);
        for n in (0..data.n_cells()).filter(|n| data.interventions.row(*n).0.is_empty() && n % OF_CONTROLS == 2) {
            latents[n * 3 + 1] -= 4.0;
        }
        let found = certainty(&data, &latents).control_guides.expect("several guides");
        assert_eq!(found.n_edges, 1, "{found:?}");
        let edge = &found.edges[0];
        assert_eq!((edge.guide.as_str(), edge.latent), ("guide 50", 1));
        assert!(edge.probability > 0.99 && (-5.0..-3.0).contains(&edge.shift), "{edge:?}");
    }

    #[test]
    fn cells_without_a_guide_and_guides_of_few_cells_are_not_asked() {
        let mut data = screen();
        let latents = latents(&data);
        let controls = data.n_cells() - 250;
        let codes = &mut guides(&mut data).codes;
        // Of each intervention the first guide keeps four cells; of the controls every other cell loses its guide.
        (0..controls).filter(|n| n % PER_INTERVENTION == 0 && n % 80 >= 16).for_each(|n| codes[n] = None);
        (controls..controls + 250).filter(|n| n % 2 == 0).for_each(|n| codes[n] = None);
        let found = certainty(&data, &latents);
        assert!(found.found().all(|e| e.guides == Some(GuideAgreement { guides: 3, agreeing: 3 })));
        assert_eq!(found.control_guides.expect("several guides").n_edges, 0);
        // A single guide of controls is no several.
        let codes = &mut guides(&mut data).codes;
        (controls..controls + 250).filter(|n| n % OF_CONTROLS != 2).for_each(|n| codes[n] = None);
        assert_eq!(certainty(&data, &latents).control_guides, None);
        data.guides = None;
        let found = certainty(&data, &latents);
        assert!(found.control_guides.is_none() && found.edges.iter().all(|edge| edge.guides.is_none()));
        assert_eq!(GuideReplication::new(found.found()), None);
    }

    #[test]
    fn guides_named_as_interventions_have_one_guide_each() {
        let mut data = screen();
        let codes = (0..data.n_cells()).map(|n| data.interventions.single(n).map(|a| a as u32)).collect();
        data.guides = Some(Guides { name: "label".to_owned(), names: data.intervention_names.clone(), codes });
        let found = certainty(&data, &latents(&data));
        assert!(found.found().all(|e| e.guides == Some(GuideAgreement { guides: 1, agreeing: 1 })));
        assert_eq!(GuideReplication::new(found.found()).expect("guides are known").share, None);
        assert_eq!(found.control_guides, None);
    }

    /// Cells of three batches, with numbers in place of latents that depend on everything.
    fn batches() -> (Dataset, Vec<f64>) {
        let mut data = screen();
        let batch = |n: usize| (n * n % 7 % 3) as u32;
        let codes: Vec<u32> = (0..data.n_cells()).map(batch).collect();
        let mut latents = latents(&data);
        latents.iter_mut().enumerate().for_each(|(at, z)| *z += f64::from(codes[at / 3]) * [3.0, -2.0, 0.5][at % 3]);
        let levels = ["a", "b", "c"].map(str::to_owned).to_vec();
        data.covariates.categorical = vec![Categorical { name: "batch".to_owned(), levels, codes }];
        (data, latents)
    }

    fn assert_near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-9), "{found:?} {expected:?}");
    }

    #[test]
    fn the_effect_of_a_control_guide_is_that_of_an_intervention_on_control_cells() {
        let (mut data, latents) = batches();
        let cells: Vec<usize> = (0..data.n_cells()).filter(|&n| data.interventions.row(n).0.is_empty()).collect();
        let means: Vec<f64> = cells.iter().flat_map(|n| &latents[n * 3..n * 3 + 3]).copied().collect();
        let of_guides = data.guides.clone().expect("guides");
        let found = effects_of_controls(&data, &of_guides, &cells, &means, 3);
        assert_eq!(found.of, [48, 49, 50, 51, 52]);
        for (place, &guide) in found.of.iter().enumerate() {
            let mut rows = InterventionRows::default();
            let mut of_guide = [0.0; 3];
            let mut of_all = [0.0; 3];
            for n in 0..data.n_cells() {
                let is_guide = of_guides.codes[n] == Some(guide as u32);
                rows.push(if is_guide { &[(0, 1.0)] } else { &[] });
                if cells.contains(&n) {
                    let batch = data.covariates.categorical[0].codes[n] as usize;
                    of_all[batch] += 1.0;
                    of_guide[batch] += f64::from(u8::from(is_guide));
                }
            }
            data.interventions = rows;
            let joint = InterventionEffects::new(&data, &cells, &means, 3);
            assert_near(&found.rows[place * 3..place * 3 + 3], &joint.effects[..3]);
            // What the batches leave of the variance of the guide's column.
            let worth: f64 = (0..3).map(|b| of_guide[b] - of_guide[b] * of_guide[b] / of_all[b]).sum();
            assert_near(&found.worth[place..=place], &[worth]);
        }
    }

    #[test]
    fn the_effect_of_an_intervention_is_the_mean_of_those_of_its_guides() {
        let (data, latents) = batches();
        let cells: Vec<usize> = (0..data.n_cells()).collect();
        let effects = InterventionEffects::new(&data, &cells, &latents, 3);
        let found = effects_of_guides(&data, data.guides.as_ref().expect("guides"), &cells, &latents, &effects);
        for a in 0..12 {
            let mut mean = [0.0; 3];
            for (row, _) in found.of.iter().enumerate().filter(|(_, (of, _))| *of == a) {
                (0..3).for_each(|k| mean[k] += found.worth[row] * found.rows[row * 3 + k] / 80.0);
            }
            assert_near(&mean, &effects.effects[a * 3..a * 3 + 3]);
        }
    }
}
