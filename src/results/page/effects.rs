//! Shifts and masks as the sections on interventions show them: effects, targets, the order of latents.

use crate::model::prior::table::is_likely;
use crate::results::page::folder::Run;

/// What the masked shifts of a model amount to.
pub(super) struct Effects {
    /// Length of the masked shift of each intervention; 0 where not trained or without shifts.
    pub effect: Vec<f64>,
    /// Number of targets of each intervention.
    pub n_targets: Vec<usize>,
    /// Number of trained interventions that target each latent.
    pub per_latent: Vec<usize>,
    /// Latents, the most targeted first.
    pub latent_order: Vec<usize>,
    /// p x shift, interventions x L.
    pub masked: Vec<f64>,
}

impl Effects {
    pub(super) fn new(run: &Run) -> Self {
        let l = run.n_latents;
        let a = run.interventions.len();
        let mut effects = Self {
            effect: vec![0.0; a],
            n_targets: vec![0; a],
            per_latent: vec![0; l],
            latent_order: (0..l).collect(),
            masked: vec![0.0; a * l],
        };
        let Some(shifts) = &run.shifts else { return effects };
        if let Some(certainty) = &run.certainty {
            for edge in &certainty.edges {
                let is_target = edge.q_value <= certainty.fdr;
                effects.add(edge.intervention, edge.latent, edge.probability * edge.shift, is_target);
            }
        } else {
            for (i, k) in (0..a).filter(|&i| run.trained[i]).flat_map(|i| (0..l).map(move |k| (i, k))) {
                let p = run.masks.as_ref().map_or(1.0, |masks| masks[i * l + k]);
                effects.add(i, k, p * shifts[i * l + k], is_likely(p));
            }
        }
        effects.effect.iter_mut().for_each(|effect| *effect = effect.sqrt());
        let weight = |k: usize| (0..a).map(|i| effects.masked[i * l + k].abs()).sum::<f64>();
        effects
            .latent_order
            .sort_by(|&x, &y| effects.per_latent[y].cmp(&effects.per_latent[x]).then(weight(y).total_cmp(&weight(x))));
        effects
    }

    /// Takes the masked shift of an intervention along a latent in.
    fn add(&mut self, intervention: usize, latent: usize, effect: f64, is_target: bool) {
        self.masked[intervention * self.per_latent.len() + latent] = effect;
        if is_target {
            self.n_targets[intervention] += 1;
            self.per_latent[latent] += 1;
            self.effect[intervention] += effect * effect;
        }
    }
}
