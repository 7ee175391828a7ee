//! Passes in evaluation mode: running statistics, no dropout.

use crate::data::minibatch::Batch;
use crate::model::layers::batch_norm;
use crate::model::network::Network;
use crate::model::noise::Noise;
use crate::model::tensors::Side;
use crate::model::workspace::{LayerBuffers, Workspace};
use crate::numerics::real::Real;
use crate::parallel::team::Team;

impl<R: Real> Network<R> {
    /// Puts the running statistics in the place of the batch's, and readies the likelihood.
    pub fn prepare_evaluation(&self, workspace: &mut Workspace<R>) {
        workspace.likelihood.update(self.log_dispersion());
        for side in [Side::Encoder, Side::Decoder] {
            let statistics = match side {
                Side::Encoder => &mut workspace.encoder_statistics,
                Side::Decoder => &mut workspace.decoder_statistics,
            };
            for (layer, statistics) in self.tensors.hidden(side).iter().zip(statistics) {
                if let Some(norm) = &layer.norm {
                    statistics.mean.copy_from_slice(&self.running[&norm.running_mean]);
                    let variance = &self.running[&norm.running_variance];
                    batch_norm::inverse_deviation(&mut statistics.inverse, variance, 1);
                }
            }
        }
    }

    /// Forward in evaluation mode: running statistics, no dropout. Results are in the workspace: posterior mean and
    /// variance, reconstruction and divergence per cell.
    ///
    /// Call [`Network::prepare_evaluation`] once before, after any change of the parameters.
    pub fn evaluate(&self, team: &Team, workspace: &mut Workspace<R>, batch: Batch, noise: Noise) {
        let n_layers = self.architecture.n_layers;
        self.stage(team, workspace, batch, |pass, block, rows| {
            pass.load(&mut block.cells, rows.clone());
            pass.draw_noise(&mut block.cells, &mut block.encoder, rows.clone(), noise, false);
            for l in 0..n_layers {
                pass.start_hidden(Side::Encoder, l, block, rows.clone(), false);
                pass.finish_hidden(Side::Encoder, l, block, false);
            }
            pass.latent(block, true);
            pass.prior(&mut block.cells, rows.clone());
            for l in 0..n_layers {
                pass.start_hidden(Side::Decoder, l, block, rows.clone(), false);
                pass.finish_hidden(Side::Decoder, l, block, false);
            }
            pass.output(block);
            pass.likelihood(block, rows);
        });
    }

    /// Posterior mean and variance alone, in evaluation mode.
    pub fn encode(&self, team: &Team, workspace: &mut Workspace<R>, batch: Batch) {
        self.stage(team, workspace, batch, |pass, block, rows| {
            pass.load(&mut block.cells, rows.clone());
            for l in 0..self.architecture.n_layers {
                pass.start_hidden(Side::Encoder, l, block, rows.clone(), false);
                pass.finish_hidden(Side::Encoder, l, block, false);
            }
            pass.latent(block, false);
        });
    }

    /// Name of the first tensor, in order of computation, that holds a value which is not finite: parameters, then
    /// what a forward pass over `n` rows left in the workspace.
    pub fn first_non_finite(&self, workspace: &Workspace<R>, n: usize) -> Option<String> {
        if let Some(name) = self.parameters.first_non_finite() {
            return Some(format!("parameter `{name}`"));
        }
        let bad = |values: &[R]| {
            let width = values.len() / workspace.capacity();
            values[..n * width].iter().any(|v| !v.is_finite())
        };
        let layers = |name: &str, layers: &[LayerBuffers<R>]| {
            layers.iter().enumerate().find_map(|(l, buffers)| {
                let parts = [("linear output", &buffers.pre), ("output", &buffers.out)];
                parts.iter().find(|(_, v)| bad(v)).map(|(part, _)| format!("{part} of `{name}.{l}`"))
            })
        };
        let cells = &workspace.cells;
        let named = |parts: &[(&str, &[R])]| parts.iter().find(|(_, v)| bad(v)).map(|(part, _)| part.to_string());
        named(&[("input log(1 + x)", &cells.input)])
            .or_else(|| layers("encoder", &workspace.encoder))
            .or_else(|| {
                named(&[
                    ("posterior mean", &cells.mean),
                    ("posterior log-variance", &cells.log_variance),
                    ("posterior variance", &cells.variance),
                    ("posterior covariance factor", &cells.factor),
                    ("latent sample", &cells.z),
                    ("prior mean", &cells.prior_mean),
                ])
            })
            .or_else(|| layers("decoder", &workspace.decoder))
            .or_else(|| {
                let bad = |values: &[f64]| values[..n].iter().any(|v| !v.is_finite());
                let parts = [("negative log-likelihood", &cells.reconstruction), ("divergence", &cells.kl)];
                parts.iter().find(|(_, v)| bad(v)).map(|(part, _)| part.to_string())
            })
    }
}
