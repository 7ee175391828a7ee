//! The decoder alone: expression rates of latents that need not come from the encoder.

use crate::data::minibatch::Batch;
use crate::model::architecture::LatentDistribution;
use crate::model::latent;
use crate::model::network::Network;
use crate::model::tensors::Side;
use crate::model::workspace::Workspace;
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::parallel::team::Team;

impl<R: Real> Network<R> {
    /// Log rates log rho (cells x G, natural logarithm; a row's exponentials sum to one) of the latents `z` (cells x L,
    /// before the softmax of a logistic-normal) under the covariates of the batch's cells, in evaluation mode.
    ///
    /// The rows lie in the workspace. Call [`Network::prepare_evaluation`] once before, after any change of the
    /// parameters.
    ///
    /// # Panics
    /// If `z` does not have that shape or the batch is larger than the workspace.
    pub fn log_rates<'w>(&self, team: &Team, workspace: &'w mut Workspace<R>, batch: Batch, z: &[R]) -> &'w mut [R] {
        self.decode(team, workspace, batch, z, |row| {
            let largest = row.iter().fold(-R::INFINITY, |m, &x| m.larger(x));
            let total = vectorized(
                #[inline(always)]
                || {
                    let mut total = R::ZERO;
                    for &logit in row.iter() {
                        total += (logit - largest).exp();
                    }
                    total
                },
            );
            let constant = largest + Real::ln(total);
            row.iter_mut().for_each(|logit| *logit -= constant);
        })
    }

    /// As [`Network::log_rates`], the rates themselves.
    ///
    /// # Panics
    /// As [`Network::log_rates`].
    pub fn rates<'w>(&self, team: &Team, workspace: &'w mut Workspace<R>, batch: Batch, z: &[R]) -> &'w mut [R] {
        self.decode(team, workspace, batch, z, |row| {
            vectorized(
                #[inline(always)]
                || {
                    let largest = row.iter().fold(-R::INFINITY, |m, &x| m.larger(x));
                    for logit in row.iter_mut() {
                        *logit = (*logit - largest).exp();
                    }
                    let total = row.iter().fold(R::ZERO, |total, &rate| total + rate);
                    let factor = R::ONE / total;
                    row.iter_mut().for_each(|rate| *rate *= factor);
                },
            );
        })
    }

    /// The decoder's last layer (cells x G), each row of it passed through `finish`.
    fn decode<'w>(
        &self,
        team: &Team,
        workspace: &'w mut Workspace<R>,
        batch: Batch,
        z: &[R],
        finish: impl Fn(&mut [R]) + Sync,
    ) -> &'w mut [R] {
        let a = &self.architecture;
        let (g, l, n) = (a.n_genes, a.n_latents, batch.cells.len());
        assert_eq!(z.len(), n * l, "cells x latents");
        self.stage(team, workspace, batch, |pass, block, rows| {
            pass.load_covariates(block.cells.covariates, rows.clone());
            block.cells.z.copy_from_slice(&z[rows.start * l..rows.end * l]);
            if a.latent_distribution == LatentDistribution::LogisticNormal {
                block.cells.z.chunks_exact_mut(l).for_each(latent::softmax);
            }
            for layer in 0..a.n_layers {
                pass.start_hidden(Side::Decoder, layer, block, rows.clone(), false);
                pass.finish_hidden(Side::Decoder, layer, block, false);
            }
            pass.output(block);
            block.cells.logits.chunks_exact_mut(g).for_each(&finish);
        });
        &mut workspace.cells.logits[..n * g]
    }
}
