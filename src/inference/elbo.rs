//! The negative ELBO of cells, and the divergence of each latent.

use crate::error::Result;
use crate::inference::Inference;
use crate::model::noise::Noise;
use crate::model::objective::Objective;
use crate::numerics::real::Real;

/// Negative ELBO of some cells and its parts, nats per cell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Elbo {
    /// reconstruction + kl + penalty share.
    pub total: f64,
    /// Mean negative log-likelihood.
    pub reconstruction: f64,
    /// Mean divergence from the prior.
    pub kl: f64,
}

impl<R: Real> Inference<'_, R> {
    /// Negative ELBO of `cells`, one latent sample and one mask draw per cell: mean reconstruction + mean divergence +
    /// penalty / number of cells. The noise depends on the seed only, so that epochs compare under the same.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn elbo(&mut self, cells: &[usize], objective: &Objective, seed: u64) -> Result<Elbo> {
        if cells.is_empty() {
            return Ok(Elbo { total: f64::NAN, reconstruction: f64::NAN, kl: f64::NAN });
        }
        let mut sums = [0.0; 2];
        self.for_each_batch(cells, |this, batch| {
            this.network.evaluate(this.team, this.workspace, batch, Noise::Evaluation { seed, draw: 0 });
            sums[0] += this.workspace.cells.reconstruction[..batch.cells.len()].iter().sum::<f64>();
            sums[1] += this.workspace.cells.kl[..batch.cells.len()].iter().sum::<f64>();
        })?;
        self.team.ranks().sum(&mut sums);
        let n = cells.len() as f64;
        let [reconstruction, kl] = sums.map(|sum| sum / n);
        Ok(Elbo { total: reconstruction + kl + self.network.penalty(objective.penalty) / n, reconstruction, kl })
    }

    /// Mean KL divergence of each latent from its prior over `cells`, nats; length L. Where masks are random, one is drawn
    /// per cell, as for [`Inference::elbo`].
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn divergence_by_latent(&mut self, cells: &[usize], seed: u64) -> Result<Vec<f64>> {
        let l = self.network.architecture.n_latents;
        let width = self.network.architecture.factor_width();
        let mut sums = vec![0.0; l];
        self.for_each_batch(cells, |this, batch| {
            this.network.evaluate(this.team, this.workspace, batch, Noise::Evaluation { seed, draw: 0 });
            let found = &this.workspace.cells;
            let posterior = found.mean.chunks_exact(l).zip(found.variance.chunks_exact(l));
            for ((mean, variance), prior_mean) in
                posterior.zip(found.prior_mean.chunks_exact(l)).take(batch.cells.len())
            {
                for (k, sum) in sums.iter_mut().enumerate() {
                    let (v, distance) = (variance[k].to_f64(), mean[k].to_f64() - prior_mean[k].to_f64());
                    // The term of latent k in Eq. (P2).
                    *sum += 0.5 * (v + distance * distance - 1.0 - Real::ln(v));
                }
            }
            for factor in found.factor.chunks_exact(width.max(1)).take(batch.cells.len()) {
                for (k, sum) in sums.iter_mut().enumerate().skip(1) {
                    // The term of latent k in Eq. (P7).
                    let row = &factor[k * (k - 1) / 2..k * (k + 1) / 2];
                    *sum += 0.5 * row.iter().map(|f| f.to_f64() * f.to_f64()).sum::<f64>();
                }
            }
        })?;
        self.team.ranks().sum(&mut sums);
        Ok(sums.iter().map(|sum| sum / cells.len().max(1) as f64).collect())
    }
}
