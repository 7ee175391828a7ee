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

    /// Draws the latents of a cell under these interventions from their prior, and appends them to `z`: masks first, then
    /// noise, latent by latent.
    pub fn draw_latents(&self, interventions: &[usize], random: &mut ChaCha8Rng, z: &mut Vec<R>) {
        let prior = self.prior();
        for k in 0..prior.n_latents {
            let mean = prior.draw_mean(interventions, k, random);
            let noise: f64 = StandardNormal.sample(random);
            z.push(R::from_f64(mean + noise));
        }
    }
}
