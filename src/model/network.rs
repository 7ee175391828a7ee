//! A network: what it is, and what is asked of it without a minibatch.
//!
//! Its passes are [`step`](crate::model::step) (training), [`evaluate`](crate::model::evaluate),
//! [`decode`](crate::model::decode) and [`particles`](crate::model::particles).

use crate::model::architecture::{Architecture, MaskKind, Prior};
use crate::model::gradient_plan::GradientPlan;
use crate::model::initial_values::{initialize, initialize_running};
use crate::model::parameters::{Buffer, Tensor, two_tensors};
use crate::model::prior::sparsity::Penalty;
use crate::model::prior::table::{Masks, PriorTable, PriorTableMut};
use crate::model::tensors::Tensors;
use crate::numerics::real::Real;
use std::ops::Range;

/// A network: architecture, parameters and running statistics.
#[derive(Debug, Clone)]
pub struct Network<R> {
    /// Sizes and choices.
    pub architecture: Architecture,
    /// Every tensor, by role.
    pub tensors: Tensors,
    /// Parameters.
    pub parameters: Buffer<R>,
    /// Running statistics of batch normalisation.
    pub running: Buffer<R>,
    /// Masks held fixed (A x L), once frozen.
    pub frozen_mask: Option<Vec<R>>,
    pub(crate) plan: GradientPlan,
}

impl<R: Real> Network<R> {
    /// A network with starting values drawn from `seed`.
    pub fn new(architecture: Architecture, seed: u64) -> Self {
        let tensors = Tensors::new(&architecture);
        let parameters = initialize(&tensors, seed);
        let running = initialize_running(&tensors);
        let plan = GradientPlan::new(&tensors);
        Self { architecture, tensors, parameters, running, frozen_mask: None, plan }
    }

    /// The same network with the first `n_interventions` of its interventions alone.
    ///
    /// # Panics
    /// If its masks are frozen.
    pub fn of_first(self, n_interventions: usize) -> Self {
        assert!(self.frozen_mask.is_none(), "masks are frozen later");
        let architecture = Architecture { n_interventions, ..self.architecture };
        let tensors = Tensors::new(&architecture);
        let mut parameters = Buffer::zeros(&tensors.parameters);
        for entry in tensors.parameters.entries() {
            // Only tables of interventions differ, and their last rows are the ones that go.
            let from = self.parameters.layout.find(&entry.name).expect("a tensor of both").range.start;
            parameters.values[entry.range.clone()]
                .copy_from_slice(&self.parameters.values[from..from + entry.range.len()]);
        }
        let plan = GradientPlan::new(&tensors);
        Self { architecture, tensors, parameters, running: self.running, frozen_mask: None, plan }
    }

    /// Shifts and masks of all interventions.
    pub fn prior(&self) -> PriorTable<'_, R> {
        let values = |tensor: &Option<Tensor>| tensor.as_ref().map(|tensor| &self.parameters[tensor]);
        self.prior_of(values(&self.tensors.shift), values(&self.tensors.mask_logit))
    }

    /// [`Network::prior`] with these shifts and mask logits (A x L each).
    pub(crate) fn prior_of<'a>(&'a self, shifts: Option<&'a [R]>, mask_logits: Option<&'a [R]>) -> PriorTable<'a, R> {
        let masks = match (self.architecture.prior, &self.frozen_mask, mask_logits) {
            (_, Some(fixed), _) => Masks::Fixed(fixed),
            (Prior::Masked { kind: MaskKind::Integrated, .. }, None, Some(logits)) => Masks::Integrated { logits },
            (Prior::Masked { kind, temperature }, None, Some(logits)) => Masks::Drawn { logits, kind, temperature },
            _ => Masks::Ones,
        };
        PriorTable { n_latents: self.architecture.n_latents, shifts, masks }
    }

    /// Shifts and masks of all interventions, to be changed.
    pub fn prior_mut(&mut self) -> PriorTableMut<'_, R> {
        let (shifts, mask_logits) = match (&self.tensors.shift, &self.tensors.mask_logit) {
            (Some(shift), Some(mask_logit)) => {
                let (shifts, mask_logits) = two_tensors(&mut self.parameters.values, shift, mask_logit);
                (Some(shifts), Some(mask_logits))
            }
            (Some(shift), None) => (Some(&mut self.parameters[shift]), None),
            (None, _) => (None, None),
        };
        PriorTableMut { n_latents: self.architecture.n_latents, shifts, mask_logits, fixed: &mut self.frozen_mask }
    }

    /// Penalty on the masks as they stand, without weight; 0 once they are frozen.
    pub fn penalty(&self, penalty: Penalty) -> f64 {
        self.prior().logits().map_or(0.0, |logits| penalty.value(logits))
    }

    /// Rotates the latents, Eq. (V2): the posterior mean becomes `rotation` (L x L) times what it was, the decoder turns it
    /// back. Of latents that are `turned`, shifts become the given `effects` (interventions x L), and masks are on where these
    /// are at least `smallest`, off elsewhere.
    pub fn rotate_latents(&mut self, rotation: &[f64], effects: &[f64], turned: &[bool], smallest: f64) {
        let l = self.architecture.n_latents;
        let rotate = |values: &[R], k: usize| -> R {
            let axis = &rotation[k * l..(k + 1) * l];
            R::from_f64(axis.iter().zip(values).map(|(r, value)| r * value.to_f64()).sum::<f64>())
        };
        let turned_latents = || (0..l).filter(|&k| turned[k]);
        let mut column = vec![R::ZERO; l];
        for tensor in [&self.tensors.latent_mean.weight, &self.tensors.latent_mean.bias] {
            let values = &mut self.parameters[tensor];
            let width = values.len() / l;
            for at in 0..width {
                (0..l).for_each(|k| column[k] = values[k * width + at]);
                turned_latents().for_each(|k| values[k * width + at] = rotate(&column, k));
            }
        }
        let first = &self.tensors.decoder[0].linear.weight;
        let width = l + self.tensors.decoder[0].linear.n_covariates;
        for row in self.parameters[first].chunks_exact_mut(width) {
            column.copy_from_slice(&row[..l]);
            turned_latents().for_each(|k| row[k] = rotate(&column, k));
        }
        self.prior_mut().rotate(effects, turned, smallest);
    }

    /// Turns the posterior variances with the latents as far as their head can, Eq. (V7): the log-variance along a turned axis becomes
    /// the mean of those along the old ones, weighed by the squares of the rotation (L x L). Exact where axes change places.
    pub fn turn_variances(&mut self, rotation: &[f64]) {
        let l = self.architecture.n_latents;
        let mut column = vec![0.0; l];
        for tensor in [&self.tensors.latent_log_variance.weight, &self.tensors.latent_log_variance.bias] {
            let values = &mut self.parameters[tensor];
            let width = values.len() / l;
            for at in 0..width {
                (0..l).for_each(|k| column[k] = values[k * width + at].to_f64());
                for (k, axis) in rotation.chunks_exact(l).enumerate() {
                    let mean: f64 = axis.iter().zip(&column).map(|(r, value)| r * r * value).sum();
                    values[k * width + at] = R::from_f64(mean);
                }
            }
        }
    }

    /// Moves the origin of the latents to where `offset` (L) is, Eq. (V6): posterior means become smaller by it, the decoder adds it
    /// again.
    pub fn translate_latents(&mut self, offset: &[f64]) {
        let l = self.architecture.n_latents;
        let bias = &mut self.parameters[&self.tensors.latent_mean.bias];
        bias.iter_mut().zip(offset).for_each(|(bias, offset)| *bias = R::from_f64(bias.to_f64() - offset));
        let first = &self.tensors.decoder[0].linear;
        let width = l + first.n_covariates;
        let rows = self.parameters[&first.weight].chunks_exact(width);
        let added: Vec<f64> = rows.map(|row| row.iter().zip(offset).map(|(w, o)| w.to_f64() * o).sum()).collect();
        let bias = &mut self.parameters[&first.bias];
        bias.iter_mut().zip(added).for_each(|(bias, added)| *bias = R::from_f64(bias.to_f64() + added));
    }

    /// Places, in the parameters, of everything that a training may change: all but the logits of frozen masks.
    pub fn trainable(&self) -> Vec<Range<usize>> {
        match (&self.tensors.mask_logit, &self.frozen_mask) {
            (Some(mask_logit), Some(_)) => self.all_but([mask_logit]),
            _ => self.all_but([]),
        }
    }

    /// Places, in the parameters, of all but these tensors, which are in the order of the parameters.
    pub fn all_but<'t>(&self, tensors: impl IntoIterator<Item = &'t Tensor>) -> Vec<Range<usize>> {
        let mut from = 0;
        let mut places = Vec::new();
        for Tensor(range) in tensors {
            places.push(from..range.start);
            from = range.end;
        }
        places.push(from..self.parameters.values.len());
        places
    }

    /// Log-dispersions of the genes; empty where the likelihood has none.
    pub(crate) fn log_dispersion(&self) -> &[R] {
        self.tensors.log_dispersion.as_ref().map_or(&[], |tensor| &self.parameters[tensor])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::minibatch::Batch;
    use crate::data::simulate::small_screen;
    use crate::model::noise::Noise;
    use crate::model::workspace::Workspace;
    use crate::parallel::team::Team;

    #[test]
    fn a_moved_origin_changes_no_rate() {
        let data = small_screen(2);
        let architecture = Architecture { n_hidden: 8, ..Architecture::new(12, 4, 3) };
        let mut network = Network::<f64>::new(architecture.clone(), 3);
        let cells: Vec<usize> = (0..20).collect();
        // Noise that is all 0: z is the posterior mean.
        let look = |network: &Network<f64>| {
            let mut workspace = Workspace::new(&architecture, 32, 1);
            network.prepare_evaluation(&mut workspace);
            network.evaluate(&Team::single(), &mut workspace, Batch::new(&data, &cells), Noise::Given);
            (workspace.cells.mean[..20 * 3].to_vec(), workspace.cells.reconstruction[..20].to_vec())
        };
        let (means, reconstruction) = look(&network);
        let offset = [0.7, -0.2, 1.5];
        network.translate_latents(&offset);
        let (moved, same) = look(&network);
        for (a, b) in reconstruction.iter().zip(&same) {
            assert!((a - b).abs() < 1e-10 * a.abs(), "{a} {b}");
        }
        for (i, (before, after)) in means.iter().zip(&moved).enumerate() {
            assert!((before - after - offset[i % 3]).abs() < 1e-12);
        }
    }

    #[test]
    fn variances_change_places_with_axes() {
        let architecture = Architecture { n_hidden: 4, ..Architecture::new(6, 2, 3) };
        let network = Network::<f64>::new(architecture, 3);
        let rows = |network: &Network<f64>| network.parameters[&network.tensors.latent_log_variance.weight].to_vec();
        let (before, mut turned) = (rows(&network), network.clone());
        turned.turn_variances(&[0.0, -1.0, 0.0, 0.6, 0.0, 0.8, -0.8, 0.0, 0.6]);
        let after = rows(&turned);
        for i in 0..4 {
            assert_eq!(after[i], before[4 + i]);
            assert!((after[4 + i] - 0.36 * before[i] - 0.64 * before[8 + i]).abs() < 1e-15);
        }
    }
}
