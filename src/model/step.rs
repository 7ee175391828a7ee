//! A step of training: forward and backward of a minibatch, stage by stage, each stage shared out over row blocks.
//!
//! `counts -> encoder -> latent -> mask -> prior -> decoder -> likelihood -> objective`, and the same list upwards into the
//! gradient buffer. Batch normalisation needs sums over all rows, so a stage ends where one is formed.

use crate::data::minibatch::Batch;
use crate::model::adam::{Adam, AdamSettings};
use crate::model::clock::Stage;
use crate::model::layers::batch_norm;
use crate::model::network::Network;
use crate::model::noise::Noise;
use crate::model::parameters::{Buffer, Tensor, two_tensors};
use crate::model::pass::StepInput;
use crate::model::prior::shift;
use crate::model::prior::sparsity::Penalty;
use crate::model::tensors::Side;
use crate::model::workspace::{LayerBuffers, LayerStatistics, ROWS_PER_BLOCK, Workspace};
use crate::numerics::real::Real;
use crate::parallel::ranks::Ranks;
use crate::parallel::team::Team;
use std::ops::Range;

/// The optimiser of a step.
#[derive(Debug)]
pub struct Optimizer<'a, R> {
    /// Its moments.
    pub adam: &'a mut Adam<R>,
    /// Places of the parameters that are moved.
    pub trained: &'a [Range<usize>],
    /// Its settings.
    pub settings: &'a AdamSettings,
}

/// Sums over the cells of a minibatch, and the loss made of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Loss {
    /// The objective, Eq. (O1).
    pub total: f64,
    /// Negative log-likelihood, summed over cells, nats.
    pub reconstruction: f64,
    /// Divergence from the prior, summed over cells, nats.
    pub kl: f64,
    /// Penalty on the masks, without weight.
    pub penalty: f64,
}

impl<R: Real> Network<R> {
    /// Loss and gradient of a minibatch in training mode: batch statistics, dropout, noise.
    ///
    /// `gradient` is overwritten. The running statistics move towards the batch's.
    ///
    /// Where the team is one of several processes, each passes the cells of the minibatch that it holds, and all get the
    /// loss, gradient and statistics of the whole minibatch; see `docs/mpi.md`.
    pub fn loss_and_gradient(
        &mut self,
        team: &Team,
        workspace: &mut Workspace<R>,
        gradient: &mut Buffer<R>,
        input: StepInput<'_>,
    ) -> Loss {
        let ranks = team.ranks();
        // From here on the batch is what this process holds of the whole.
        workspace.share.divide(ranks, input.batch.cells, self.architecture.n_hidden);
        let own = std::mem::take(&mut workspace.share.own);
        let batch = if ranks.is_alone() { input.batch } else { Batch::new(input.batch.data, &own) };
        let input = StepInput { batch, ..input };
        let loss = self.loss_and_activation_gradients(team, workspace, gradient, input);
        // The penalty, and the gradients that are sums over all processes already, are added up once.
        let penalty = if ranks.is_first() { input.penalty } else { Penalty::None };
        self.parameter_gradients(team, workspace, gradient, StepInput { penalty, ..input });
        if !ranks.is_first() {
            self.plan.norm_pieces.iter().for_each(|piece| gradient.values[piece.clone()].fill(R::ZERO));
        }
        ranks.sum(&mut gradient.values);
        workspace.share.own = own;
        loss
    }

    /// [`Network::loss_and_gradient`], then a step of the optimiser on the values in `trained`. Each thread moves the
    /// parameters whose gradient it has just formed, while they are in its caches. With a loss that is not finite the
    /// parameters stay as they are.
    ///
    /// Where `trained` are shifts alone, nothing behind the divergence is computed, Eq. (H6): the loss is that of the divergence,
    /// its reconstruction not a number, and running statistics of the decoder stay.
    pub fn training_step(
        &mut self,
        team: &Team,
        workspace: &mut Workspace<R>,
        gradient: &mut Buffer<R>,
        optimizer: Optimizer<'_, R>,
        input: StepInput<'_>,
    ) -> Loss {
        if self.are_shifts(optimizer.trained) {
            return self.shift_step(team, workspace, gradient, optimizer, input);
        }
        let Optimizer { adam, trained, settings } = optimizer;
        if !team.ranks().is_alone() {
            // A gradient is whole only once all processes have sent their parts.
            let loss = self.loss_and_gradient(team, workspace, gradient, input);
            if loss.total.is_finite() {
                adam.step(team, &mut self.parameters, gradient, trained, settings);
            }
            return loss;
        }
        workspace.share.divide(team.ranks(), input.batch.cells, self.architecture.n_hidden);
        let loss = self.loss_and_activation_gradients(team, workspace, gradient, input);
        if loss.total.is_finite() {
            let step = adam.begin_step(settings);
            self.parameter_steps(team, workspace, gradient, adam, &step, trained, input);
        }
        loss
    }

    /// Whether `trained` are shifts and nothing else.
    fn are_shifts(&self, trained: &[Range<usize>]) -> bool {
        let within =
            |shift: &Tensor| trained.iter().all(|range| shift.0.start <= range.start && range.end <= shift.0.end);
        !trained.is_empty() && self.tensors.shift.as_ref().is_some_and(within)
    }

    /// [`Network::training_step`] on shifts alone.
    fn shift_step(
        &mut self,
        team: &Team,
        workspace: &mut Workspace<R>,
        gradient: &mut Buffer<R>,
        Optimizer { adam, trained, settings }: Optimizer<'_, R>,
        input: StepInput<'_>,
    ) -> Loss {
        let (ranks, weights) = (team.ranks(), input.weights);
        workspace.share.divide(ranks, input.batch.cells, self.architecture.n_hidden);
        let own = std::mem::take(&mut workspace.share.own);
        let batch = if ranks.is_alone() { input.batch } else { Batch::new(input.batch.data, &own) };
        self.encode_in_training(team, workspace, batch, input.noise);
        let kl_scale = R::from_f64(weights.kl * weights.cell);
        self.stage(team, workspace, batch, |pass, block, rows| {
            pass.finish_hidden(Side::Encoder, self.architecture.n_layers - 1, block, true);
            pass.latent(block, false);
            pass.prior(&mut block.cells, rows);
            let cells = &mut block.cells;
            shift::divergence_gradient(cells.d_kl_mean, cells.mean, cells.prior_mean, kl_scale);
        });
        let shift = self.tensors.shift.as_ref().expect("shifts are trained");
        let (d_shift, d_logit): (_, &mut [R]) = match &self.tensors.mask_logit {
            Some(mask_logit) => two_tensors(&mut gradient.values, shift, mask_logit),
            None => (&mut gradient[shift], &mut []),
        };
        let of_divergence = StepInput { batch, penalty: Penalty::None, ..input };
        self.intervention_gradient(workspace, [&mut *d_shift, d_logit], self.prior(), of_divergence);
        ranks.sum(d_shift);
        let mut kl = [workspace.cells.kl[..batch.cells.len()].iter().sum::<f64>()];
        ranks.sum(&mut kl);
        workspace.share.own = own;
        let [kl] = kl;
        let total = weights.cell * weights.kl * kl;
        if total.is_finite() {
            adam.step(team, &mut self.parameters, gradient, trained, settings);
        }
        Loss { total, reconstruction: f64::NAN, kl, penalty: 0.0 }
    }

    /// The encoder in training mode, up to the last hidden layer's linear part and its statistics over the minibatch.
    fn encode_in_training(&mut self, team: &Team, workspace: &mut Workspace<R>, batch: Batch, noise: Noise) {
        for l in 0..self.architecture.n_layers {
            self.stage(team, workspace, batch, |pass, block, rows| {
                let mut lap = pass.shared.clock.lap();
                if l == 0 {
                    pass.load(&mut block.cells, rows.clone());
                    lap.end(Stage::Minibatch);
                    pass.draw_noise(&mut block.cells, &mut block.encoder, rows.clone(), noise, true);
                    lap.end(Stage::Noise);
                } else {
                    pass.finish_hidden(Side::Encoder, l - 1, block, true);
                }
                pass.start_hidden(Side::Encoder, l, block, rows.clone(), true);
                lap.end(Stage::Encoder);
            });
            self.batch_statistics(team.ranks(), workspace, Side::Encoder, l);
        }
    }

    /// The loss, the gradients of every activation (in the workspace) and those of the normalisations (in `gradient`), of
    /// the minibatch of which this process holds `batch`.
    fn loss_and_activation_gradients(
        &mut self,
        team: &Team,
        workspace: &mut Workspace<R>,
        gradient: &mut Buffer<R>,
        input: StepInput<'_>,
    ) -> Loss {
        let StepInput { batch, noise, weights, penalty } = input;
        let ranks = team.ranks();
        // Cells of the whole minibatch.
        let n = workspace.share.rows.iter().sum();
        let n_layers = self.architecture.n_layers;
        workspace.likelihood.update(self.log_dispersion());

        // Forward: a stage per batch normalisation.
        self.encode_in_training(team, workspace, batch, noise);
        for l in 0..n_layers {
            self.stage(team, workspace, batch, |pass, block, rows| {
                let mut lap = pass.shared.clock.lap();
                if l == 0 {
                    pass.finish_hidden(Side::Encoder, n_layers - 1, block, true);
                    pass.latent(block, true);
                    lap.end(Stage::Encoder);
                    pass.prior(&mut block.cells, rows.clone());
                    lap.end(Stage::MaskAndPrior);
                } else {
                    pass.finish_hidden(Side::Decoder, l - 1, block, true);
                }
                pass.start_hidden(Side::Decoder, l, block, rows.clone(), true);
                lap.end(Stage::Decoder);
            });
            self.batch_statistics(ranks, workspace, Side::Decoder, l);
        }
        let cell_scale = R::from_f64(weights.cell);
        let kl_scale = R::from_f64(weights.cell * weights.kl);
        self.stage(team, workspace, batch, |pass, block, rows| {
            let mut lap = pass.shared.clock.lap();
            pass.finish_hidden(Side::Decoder, n_layers - 1, block, true);
            pass.output(block);
            lap.end(Stage::Decoder);
            pass.likelihood_and_gradient(block, rows, cell_scale);
            lap.end(Stage::Likelihood);
            pass.output_backward(block);
            pass.finish_hidden_backward(Side::Decoder, n_layers - 1, block);
            lap.end(Stage::Backward);
        });

        // Backward: a stage per batch normalisation, in the opposite order.
        for side in [Side::Decoder, Side::Encoder] {
            for l in (0..n_layers).rev() {
                self.gradient_sums(ranks, workspace, gradient, side, l);
                let sums = &*gradient;
                self.stage(team, workspace, batch, |pass, block, _| {
                    let mut lap = pass.shared.clock.lap();
                    pass.start_hidden_backward(side, l, block, sums, n);
                    if l > 0 {
                        pass.hidden_input_backward(side, l, block);
                        pass.finish_hidden_backward(side, l - 1, block);
                    } else if side == Side::Decoder {
                        pass.latent_backward(block, kl_scale);
                        pass.finish_hidden_backward(Side::Encoder, n_layers - 1, block);
                    }
                    lap.end(Stage::Backward);
                });
            }
        }
        let rows = batch.cells.len();
        let mut sums = [&workspace.cells.reconstruction, &workspace.cells.kl].map(|v| v[..rows].iter().sum::<f64>());
        ranks.sum(&mut sums);
        let [reconstruction, kl] = sums;
        let penalty = self.penalty(penalty);
        let total = weights.cell * (reconstruction + weights.kl * kl) + weights.penalty * penalty;
        Loss { total, reconstruction, kl, penalty }
    }

    /// Moments of a layer over the whole minibatch, from those of its blocks, then from those of the processes; moves the
    /// running statistics.
    fn batch_statistics(&mut self, ranks: &Ranks, workspace: &mut Workspace<R>, side: Side, l: usize) {
        let Some(norm) = self.tensors.hidden(side)[l].norm.clone() else { return };
        let mut share = std::mem::take(&mut workspace.share);
        let (here, n) = (share.rows[ranks.rank()], share.rows.iter().sum());
        let (buffers, statistics) = layer_of(workspace, side, l);
        let h = statistics.mean.len();
        batch_norm::combine_moments(
            &mut statistics.mean,
            &mut statistics.squares,
            &buffers.sums[..here.div_ceil(ROWS_PER_BLOCK) * 2 * h],
            |i| (here - i * ROWS_PER_BLOCK).min(ROWS_PER_BLOCK),
        );
        if !ranks.is_alone() {
            share.sent[..h].copy_from_slice(&statistics.mean);
            share.sent[h..].copy_from_slice(&statistics.squares);
            ranks.all_gather(&share.sent, &mut share.received);
            let (mean, squares) = (&mut statistics.mean, &mut statistics.squares);
            batch_norm::combine_moments(mean, squares, &share.received, |rank| share.rows[rank]);
        }
        batch_norm::inverse_deviation(&mut statistics.inverse, &statistics.squares, n);
        let mut running_mean = std::mem::take(&mut self.running.values);
        let (mean, variance) = two_tensors(&mut running_mean, &norm.running_mean, &norm.running_variance);
        batch_norm::update_running(mean, variance, &statistics.mean, &statistics.squares, n);
        self.running.values = running_mean;
        workspace.share = share;
    }

    /// Gradients of a layer's scale and offset, from the sums of its blocks, then from those of the processes.
    fn gradient_sums(
        &self,
        ranks: &Ranks,
        workspace: &mut Workspace<R>,
        gradient: &mut Buffer<R>,
        side: Side,
        l: usize,
    ) {
        let Some(norm) = &self.tensors.hidden(side)[l].norm else { return };
        let h = self.architecture.n_hidden;
        let mut share = std::mem::take(&mut workspace.share);
        let (buffers, _) = layer_of(workspace, side, l);
        let used = share.rows[ranks.rank()].div_ceil(ROWS_PER_BLOCK) * 2 * h;
        let (d_gamma, d_beta) = two_tensors(&mut gradient.values, &norm.weight, &norm.bias);
        batch_norm::combine_gradient_sums(d_beta, d_gamma, &buffers.sums[..used]);
        if !ranks.is_alone() {
            share.sent[..h].copy_from_slice(d_beta);
            share.sent[h..].copy_from_slice(d_gamma);
            ranks.all_gather(&share.sent, &mut share.received);
            batch_norm::combine_gradient_sums(d_beta, d_gamma, &share.received);
        }
        workspace.share = share;
    }
}

fn layer_of<R>(workspace: &mut Workspace<R>, side: Side, l: usize) -> (&mut LayerBuffers<R>, &mut LayerStatistics<R>) {
    match side {
        Side::Encoder => (&mut workspace.encoder[l], &mut workspace.encoder_statistics[l]),
        Side::Decoder => (&mut workspace.decoder[l], &mut workspace.decoder_statistics[l]),
    }
}
