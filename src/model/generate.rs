//! Draws from the model: latents from the prior, counts from the likelihood.

use crate::model::likelihood::CountSampler;
use crate::model::network::Network;
use crate::numerics::real::Real;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

impl<R: Real> Network<R> {
    /// What draws counts about the means that the decoder gives.
    pub fn count_sampler(&self) -> CountSampler {
        self.architecture.likelihood.sampler(self.log_dispersion())
    }

    /// Draws the latents of a cell under these interventions, each with its dose, and appends them to `z`: masks first, then
    /// noise, latent by latent. The cell begins at the latents `start` (L), or at 0 with the noise of the prior.
    pub fn draw_latents(&self, members: &[(u32, f32)], start: Option<&[f64]>, random: &mut ChaCha8Rng, z: &mut Vec<R>) {
        let prior = self.prior();
        for k in 0..prior.n_latents {
            let mean = prior.draw_mean(members, k, random);
            let rest: f64 = start.map_or_else(|| StandardNormal.sample(random), |start| start[k]);
            z.push(R::from_f64(mean + rest));
        }
    }
}
