//! The prior of all interventions as one value: their shifts, and the masks that say which latents these act on.
//!
//! The only place that forms a prior mean or its gradients, and that says whether a mask is on. Derivation:
//! `derivations/prior.md`. Legend: A interventions, L latents, n cells, E interventions per cell at most.

use crate::data::dataset::InterventionRows;
use crate::model::architecture::MaskKind;
use crate::model::prior::{mask, shift};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

/// Shifts and masks, for reading.
#[derive(Debug, Clone, Copy)]
pub struct PriorTable<'a, R> {
    /// Latents, L.
    pub n_latents: usize,
    /// Shifts, A x L; `None` where the prior does not depend on interventions.
    pub shifts: Option<&'a [R]>,
    /// Which latents the shifts act on.
    pub masks: Masks<'a, R>,
}

/// Masks of all interventions.
#[derive(Debug, Clone, Copy)]
pub enum Masks<'a, R> {
    /// None: every intervention acts on every latent.
    Ones,
    /// Held fixed at these values, A x L.
    Fixed(&'a [R]),
    /// Integrated out of the divergence, Eq. (P8).
    Integrated {
        /// Logits of their probabilities, A x L.
        logits: &'a [R],
    },
    /// Drawn in each cell.
    Drawn {
        /// Logits of their probabilities, A x L.
        logits: &'a [R],
        /// Whether the forward value is thresholded or soft.
        kind: MaskKind,
        /// Temperature of the Gumbel-sigmoid.
        temperature: f64,
    },
}

/// The interventions of n cells; buffers of masks have room for `per_cell` of each, E.
#[derive(Debug, Clone, Copy)]
pub struct CellInterventions<'a> {
    /// Interventions of all cells of a screen.
    pub rows: &'a InterventionRows,
    /// Numbers of the n cells.
    pub cells: &'a [usize],
    /// E.
    pub per_cell: usize,
}

/// Masks of n cells and what they are drawn from, n x E x L each.
#[derive(Debug)]
pub struct MaskBuffers<'a, R> {
    /// Receives the masks.
    pub mask: &'a mut [R],
    /// Receives the derivative of each mask in its logit, unless masks are fixed.
    pub slope: &'a mut [R],
    /// Lends its room to the logits.
    pub logit: &'a mut [R],
    /// Logistic noise, where masks are drawn.
    pub noise: &'a [R],
}

/// Whether a mask of this probability counts as on.
pub fn is_likely(probability: f64) -> bool {
    probability > 0.5
}

impl<'a, R: Real> PriorTable<'a, R> {
    /// Whether each cell draws its masks.
    pub fn draws_masks(&self) -> bool {
        matches!(self.masks, Masks::Drawn { .. })
    }

    /// Logits of the masks' probabilities, A x L; `None` without masks, or where they are fixed.
    pub fn logits(&self) -> Option<&'a [R]> {
        match self.masks {
            Masks::Drawn { logits, .. } | Masks::Integrated { logits } => Some(logits),
            Masks::Ones | Masks::Fixed(_) => None,
        }
    }

    /// The same prior, of which each sample of a cell draws its masks where they are random.
    pub fn drawing(self) -> Self {
        let masks = match self.masks {
            Masks::Integrated { logits } => Masks::Drawn { logits, kind: MaskKind::Hard, temperature: 1.0 },
            other => other,
        };
        Self { masks, ..self }
    }

    /// Whether the mask of an intervention on a latent is on: its probability exceeds one half.
    pub fn is_on(&self, intervention: usize, latent: usize) -> bool {
        let at = intervention * self.n_latents + latent;
        match self.masks {
            Masks::Ones => true,
            Masks::Fixed(masks) => is_likely(masks[at].to_f64()),
            // The sign is not subject to rounding.
            Masks::Drawn { logits, .. } | Masks::Integrated { logits } => logits[at] > R::ZERO,
        }
    }

    /// Probability that the mask of an intervention on a latent is on.
    pub fn probability(&self, intervention: usize, latent: usize) -> R {
        let at = intervention * self.n_latents + latent;
        match self.masks {
            Masks::Ones => R::ONE,
            Masks::Fixed(masks) => masks[at],
            Masks::Drawn { logits, .. } | Masks::Integrated { logits } => mask::sigmoid(logits[at]),
        }
    }

    /// Probability of each mask (fixed ones: their value), A x L; `None` without masks.
    pub fn probabilities(&self) -> Option<Vec<R>> {
        match self.masks {
            Masks::Ones => None,
            Masks::Fixed(masks) => Some(masks.to_vec()),
            Masks::Drawn { logits, .. } | Masks::Integrated { logits } => {
                Some(logits.iter().map(|&logit| mask::sigmoid(logit)).collect())
            }
        }
    }

    /// Whether each mask is on, A x L; `None` without masks.
    pub fn masks_on(&self) -> Option<Vec<bool>> {
        let n = match self.masks {
            Masks::Ones => return None,
            Masks::Fixed(masks) => masks.len(),
            Masks::Drawn { logits, .. } | Masks::Integrated { logits } => logits.len(),
        };
        Some((0..n).map(|at| self.is_on(at / self.n_latents, at % self.n_latents)).collect())
    }

    /// Pairs of intervention and latent whose mask is on, by intervention; none without shifts.
    pub fn targets(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let n = self.shifts.map_or(0, <[R]>::len);
        (0..n).map(|at| (at / self.n_latents, at % self.n_latents)).filter(|&(a, k)| self.is_on(a, k))
    }

    /// Shift of an intervention along a latent; 0 without shifts.
    pub fn shift(&self, intervention: usize, latent: usize) -> R {
        self.shifts.map_or(R::ZERO, |shifts| shifts[intervention * self.n_latents + latent])
    }

    /// Prior mean under each intervention alone, where masks are on exactly if that is the likelier: A x L, empty without
    /// shifts.
    pub fn effects(&self) -> Vec<f64> {
        let mut effects = vec![0.0; self.shifts.map_or(0, <[R]>::len)];
        self.targets().for_each(|(a, k)| effects[a * self.n_latents + k] = self.shift(a, k).to_f64());
        effects
    }

    /// Draws the prior mean along a latent of a cell under these interventions, each with its dose.
    pub fn draw_mean(&self, members: &[(u32, f32)], latent: usize, random: &mut ChaCha8Rng) -> f64 {
        let mut mean = 0.0;
        for &(a, dose) in members {
            // Drawn in any case, so that the noise of one cell does not depend on the masks of another.
            let on = random.random::<f64>() < self.probability(a as usize, latent).to_f64();
            mean += if on { f64::from(dose) * self.shift(a as usize, latent).to_f64() } else { 0.0 };
        }
        mean
    }

    /// The prior mean (L) of cells under these interventions, each with its dose, Eq. (P1), as expected over the masks.
    pub fn expected_mean(&self, members: &[(u32, f32)]) -> Vec<f64> {
        let mean = |&(a, dose): &(u32, f32), k| {
            f64::from(dose) * (self.probability(a as usize, k) * self.shift(a as usize, k)).to_f64()
        };
        (0..self.n_latents).map(|k| members.iter().map(|member| mean(member, k)).sum()).collect()
    }

    /// Masks of some cells, drawn by Eqs. (M4)-(M7), or their probabilities where they are integrated out.
    pub fn masks_of_cells(&self, buffers: MaskBuffers<'_, R>, of: CellInterventions<'_>) {
        let MaskBuffers { mask, slope, logit, noise } = buffers;
        match self.masks {
            Masks::Ones => mask.fill(R::ONE),
            Masks::Fixed(masks) => self.copy_rows(mask, masks, of),
            Masks::Integrated { logits } => {
                self.copy_rows(logit, logits, of);
                mask::probabilities(mask, slope, logit);
            }
            // One loop then draws all of them.
            Masks::Drawn { logits, kind, temperature } => {
                self.copy_rows(logit, logits, of);
                mask::forward(mask, slope, logit, noise, kind, R::from_f64(temperature));
            }
        }
    }

    /// Copies the rows (L) of each cell's interventions out of `table` (A x L) to their places (n x E x L).
    fn copy_rows(&self, to: &mut [R], table: &[R], of: CellInterventions<'_>) {
        let l = self.n_latents;
        for (i, &cell) in of.cells.iter().enumerate() {
            for (e, &a) in of.rows.row(cell).0.iter().enumerate() {
                let at = (i * of.per_cell + e) * l;
                to[at..at + l].copy_from_slice(&table[a as usize * l..(a as usize + 1) * l]);
            }
        }
    }

    /// Prior means of some cells (n x L) given their masks (n x E x L), Eq. (P1).
    pub fn means_of_cells(&self, prior_mean: &mut [R], masks: &[R], of: CellInterventions<'_>) {
        prior_mean.fill(R::ZERO);
        let Some(shifts) = self.shifts else { return };
        let l = self.n_latents;
        vectorized(
            #[inline(always)]
            || {
                for (i, &cell) in of.cells.iter().enumerate() {
                    let prior_mean = &mut prior_mean[i * l..(i + 1) * l];
                    let (interventions, doses) = of.rows.row(cell);
                    for e in 0..interventions.len() {
                        let at = (i * of.per_cell + e) * l;
                        let dose = R::from_f64(doses[e] as f64);
                        let a = interventions[e] as usize * l;
                        shift::add_intervention(prior_mean, dose, &masks[at..at + l], &shifts[a..a + l]);
                    }
                }
            },
        );
    }

    /// Adds to the divergences of some cells (n) what random masks add where they are integrated out, Eq. (P8), given their
    /// slopes (n x E x L).
    pub fn add_mask_divergences(&self, kl: &mut [f64], slopes: &[R], of: CellInterventions<'_>) {
        let (Some(shifts), Masks::Integrated { .. }) = (self.shifts, self.masks) else { return };
        let l = self.n_latents;
        vectorized(
            #[inline(always)]
            || {
                for (i, (kl, &cell)) in kl.iter_mut().zip(of.cells).enumerate() {
                    let (interventions, doses) = of.rows.row(cell);
                    for (e, (&a, &dose)) in interventions.iter().zip(doses).enumerate() {
                        let (at, a) = ((i * of.per_cell + e) * l, a as usize * l);
                        let dose = R::from_f64(dose as f64);
                        *kl += shift::mask_divergence(dose, &slopes[at..at + l], &shifts[a..a + l]);
                    }
                }
            },
        );
    }

    /// Adds, cell by cell in order, the gradients in shifts and mask logits (A x L; of the latter only where masks are random),
    /// Eqs. (P5)-(P6), given the gradient of the weighted divergence in the posterior mean (n x L), the negative of that in
    /// the prior mean, and the masks and, where they are random, their slopes (n x E x L). Where masks are integrated out, those
    /// of Eqs. (P9)-(P10) times `kl_scale`, the weight of the divergence, come to them.
    pub fn add_gradient(
        &self,
        [d_shift, d_logit]: [&mut [R]; 2],
        (d_posterior_mean, kl_scale): (&[R], R),
        [masks, slopes]: [&[R]; 2],
        of: CellInterventions<'_>,
    ) {
        let Some(shifts) = self.shifts else { return };
        let l = self.n_latents;
        let random = self.logits().is_some();
        let integrated = matches!(self.masks, Masks::Integrated { .. });
        let mut d_prior_mean = [R::ZERO; 64];
        for (i, &cell) in of.cells.iter().enumerate() {
            let (interventions, doses) = of.rows.row(cell);
            for (e, (&a, &dose)) in interventions.iter().zip(doses).enumerate() {
                let at = (i * of.per_cell + e) * l;
                let a = a as usize * l;
                // In pieces of 64 latents, so that no buffer is needed.
                for from in (0..l).step_by(64) {
                    let to = (from + 64).min(l);
                    let slopes = if random { &slopes[at + from..at + to] } else { &[] };
                    let d = &mut d_prior_mean[..to - from];
                    for (d, &d_m) in d.iter_mut().zip(&d_posterior_mean[i * l + from..i * l + to]) {
                        *d = -d_m;
                    }
                    shift::add_intervention_gradient(
                        &mut d_shift[a + from..a + to],
                        random.then(|| &mut d_logit[a + from..a + to]),
                        d,
                        R::from_f64(dose as f64),
                        &masks[at + from..at + to],
                        slopes,
                        &shifts[a + from..a + to],
                    );
                    if integrated {
                        shift::add_mask_divergence_gradient(
                            [&mut d_shift[a + from..a + to], &mut d_logit[a + from..a + to]],
                            kl_scale,
                            R::from_f64(dose as f64),
                            [&masks[at + from..at + to], slopes],
                            &shifts[a + from..a + to],
                        );
                    }
                }
            }
        }
    }
}

/// Shifts and masks, for changing.
#[derive(Debug)]
pub struct PriorTableMut<'a, R> {
    /// Latents, L.
    pub n_latents: usize,
    /// Shifts, A x L.
    pub shifts: Option<&'a mut [R]>,
    /// Logits of the masks, A x L; `None` without masks.
    pub mask_logits: Option<&'a mut [R]>,
    /// Masks held fixed, A x L, in the place of those drawn.
    pub fixed: &'a mut Option<Vec<R>>,
}

impl<R: Real> PriorTableMut<'_, R> {
    /// Fixes every mask at 0 or 1, whether its probability exceeds one half, Eq. (H2); nothing without masks.
    pub fn freeze(&mut self) {
        let threshold = |&logit: &R| if logit > R::ZERO { R::ONE } else { R::ZERO };
        *self.fixed = self.mask_logits.as_ref().map(|logits| logits.iter().map(threshold).collect());
    }

    /// Forgets interventions, Eq. (H1): shift 0, mask logits as at the start. Nothing where the prior has neither.
    pub fn forget(&mut self, interventions: &[usize]) {
        self.set_shifts(interventions, R::ZERO);
        let l = self.n_latents;
        if let Some(logits) = &mut self.mask_logits {
            interventions.iter().for_each(|&a| logits[a * l..(a + 1) * l].fill(R::from_f64(mask::INITIAL)));
        }
    }

    /// Sets every shift of these interventions to `value`.
    pub fn set_shifts(&mut self, interventions: &[usize], value: R) {
        let l = self.n_latents;
        if let Some(shifts) = &mut self.shifts {
            interventions.iter().for_each(|&a| shifts[a * l..(a + 1) * l].fill(value));
        }
    }

    /// Sets the shifts of an intervention and the logits of its masks, L each.
    pub fn set_edges(&mut self, intervention: usize, shifts: &[f64], logits: &[f64]) {
        let row = intervention * self.n_latents..(intervention + 1) * self.n_latents;
        if let Some(to) = &mut self.shifts {
            to[row.clone()].iter_mut().zip(shifts).for_each(|(to, &shift)| *to = R::from_f64(shift));
        }
        if let Some(to) = &mut self.mask_logits {
            let within = |logit: f64| R::from_f64(logit.clamp(-mask::OPEN, mask::OPEN));
            to[row].iter_mut().zip(logits).for_each(|(to, &logit)| *to = within(logit));
        }
    }

    /// Gives masks of a lower probability than `probability` the logit [`mask::OFF`], unless theirs is lower still; nothing
    /// without masks, or once they are frozen. Their shifts stay.
    pub fn switch_off_below(&mut self, probability: f64) {
        let Some(logits) = self.mask_logits.as_mut().filter(|_| self.fixed.is_none()) else { return };
        let (off, limit) = (R::from_f64(mask::OFF), R::from_f64(Real::ln(probability / (1.0 - probability))));
        for logit in logits.iter_mut() {
            if *logit < limit && *logit > off {
                *logit = off;
            }
        }
    }

    /// After a rotation of the latents, Eq. (V2): along latents that are `rotated`, shifts become the given `effects` (A x L),
    /// and masks are on where these are at least `smallest`, off elsewhere.
    pub fn rotate(&mut self, effects: &[f64], rotated: &[bool], smallest: f64) {
        let l = self.n_latents;
        let places = || (0..l).filter(|&k| rotated[k]).flat_map(|k| (k..effects.len()).step_by(l));
        if let Some(shifts) = &mut self.shifts {
            places().for_each(|at| shifts[at] = R::from_f64(effects[at]));
        }
        if let Some(logits) = &mut self.mask_logits {
            places().for_each(|at| {
                logits[at] = R::from_f64(if effects[at].abs() >= smallest { mask::ON } else { mask::OFF })
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_of_one_half_is_off() {
        let on = [false, true, false, true];
        let of = |masks| PriorTable::<f64> { n_latents: 2, shifts: Some(&[1.0, -2.0, 3.0, 4.0]), masks };
        let (fixed, logits) = ([0.5, 0.500001, 0.0, 1.0], [0.0, 1e-6, -40.0, 40.0]);
        for masks in [Masks::Fixed(&fixed), Masks::Drawn { logits: &logits, kind: MaskKind::Hard, temperature: 1.0 }] {
            assert_eq!(of(masks).masks_on().expect("masks"), on);
            assert_eq!(of(masks).targets().collect::<Vec<_>>(), [(0, 1), (1, 1)]);
            assert_eq!(of(masks).effects(), [0.0, -2.0, 0.0, 4.0]);
        }
        assert_eq!(of(Masks::Ones).masks_on(), None);
        assert_eq!(of(Masks::Ones).effects(), [1.0, -2.0, 3.0, 4.0]);
    }
}
