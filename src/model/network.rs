//! The network: forward and backward of a minibatch, stage by stage, each stage shared out over row blocks.
//!
//! `counts -> encoder -> latent -> mask -> prior -> decoder -> negative binomial -> objective`, and the same list
//! upwards into the gradient buffer. Batch normalisation needs sums over all rows, so a stage ends where one is formed.

mod decode;
mod particles;

pub use particles::{Bound, LogMeanExp, Posterior};

use crate::data::counts::in_memory::CountsRow;
pub use crate::data::minibatch::Batch;
use crate::model::adam::{Adam, AdamSettings, AdamStep};
use crate::model::architecture::{Architecture, HiddenLayer, Injection, LinearTensors, Prior, Tensors};
use crate::model::clock::Stage;
use crate::model::latent;
use crate::model::layers::{activation, batch_norm, input_layer, layer_norm, linear};
use crate::model::likelihood::{CellCounts, CountSampler};
use crate::model::objective::Weights;
use crate::model::parameters::{Buffer, Tensor, initialize, initialize_running};
use crate::model::prior::shift;
use crate::model::prior::sparsity::Penalty;
use crate::model::prior::table::{CellInterventions, MaskBuffers, Masks, PriorTable, PriorTableMut};
use crate::model::workspace::{
    Block, CellBlock, LayerBlock, LayerBuffers, LayerStatistics, Log1pTable, ROWS_PER_BLOCK, Shared, Workspace,
    words_per_row,
};
use crate::numerics::matmul::{Into, Rows};
use crate::numerics::random::{Purpose, dropout_rows, fill_words, logistic_rows, normal_rows};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::parallel::ranks::Ranks;
use crate::parallel::team::{Permutation, Team, pieces_pair, reordered};
use std::ops::Range;

/// Where the noise of a pass comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// Random streams of (seed, epoch, cell), for training.
    Training {
        /// Seed of the run.
        seed: u64,
        /// Epoch.
        epoch: u64,
    },
    /// Random streams of (seed, draw, cell), for evaluation.
    Evaluation {
        /// Seed of the run.
        seed: u64,
        /// Number of the draw.
        draw: u64,
    },
    /// The workspace's noise buffers as they stand.
    Given,
}

/// What a loss is formed of.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// The minibatch.
    pub batch: Batch<'a>,
    /// Its noise.
    pub noise: Noise,
    /// Weights of the parts of the loss.
    pub weights: Weights,
    /// Penalty on the masks.
    pub penalty: Penalty,
}

/// What moves the parameters.
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
    gradient_tasks: Vec<GradientTask>,
    /// Numbers of the tasks, in the order in which they are begun.
    gradient_order: Permutation,
    weight_pieces: Vec<Range<usize>>,
    bias_pieces: Vec<Range<usize>>,
    /// Scales and offsets of the normalisations, whose gradients are formed before those of the tasks.
    norm_pieces: Vec<Range<usize>>,
}

/// A share of the gradient that one thread computes, from all rows at once.
#[derive(Debug, Clone)]
enum GradientTask {
    /// Output rows of a linear layer.
    Linear { layer: LinearLayer, rows: Range<usize> },
    /// Rows of the encoder's first layer: genes, then covariates.
    Input { rows: Range<usize> },
    /// Log-dispersions.
    Dispersion,
    /// Shifts and mask logits.
    Interventions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinearLayer {
    Encoder(usize),
    LatentMean,
    LatentLogVariance,
    LatentFactor,
    Decoder(usize),
    DecoderOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Encoder,
    Decoder,
}

/// Output rows per task: enough work to outweigh starting it.
fn rows_per_task(linear: &LinearTensors) -> usize {
    (8_192 / (linear.n_in + linear.n_covariates).max(1)).next_multiple_of(16).clamp(16, 128)
}

impl<R: Real> Network<R> {
    /// A network with starting values drawn from `seed`.
    pub fn new(architecture: Architecture, seed: u64) -> Self {
        let tensors = Tensors::new(&architecture);
        let parameters = initialize(&tensors, seed);
        let running = initialize_running(&tensors);
        let mut network = Self {
            architecture,
            tensors,
            parameters,
            running,
            frozen_mask: None,
            gradient_tasks: Vec::new(),
            gradient_order: Permutation::default(),
            weight_pieces: Vec::new(),
            bias_pieces: Vec::new(),
            norm_pieces: Vec::new(),
        };
        network.plan_gradient();
        network
    }

    fn linear(&self, layer: LinearLayer) -> &LinearTensors {
        match layer {
            LinearLayer::Encoder(l) => &self.tensors.encoder[l].linear,
            LinearLayer::LatentMean => &self.tensors.latent_mean,
            LinearLayer::LatentLogVariance => &self.tensors.latent_log_variance,
            LinearLayer::LatentFactor => self.tensors.latent_factor.as_ref().expect("planned for a full covariance"),
            LinearLayer::Decoder(l) => &self.tensors.decoder[l].linear,
            LinearLayer::DecoderOutput => &self.tensors.decoder_output,
        }
    }

    fn plan_gradient(&mut self) {
        let n = self.architecture.n_layers;
        // In the order of the parameters.
        let layers = (0..n)
            .map(LinearLayer::Encoder)
            .chain((0..n).map(LinearLayer::Decoder))
            .chain([LinearLayer::LatentMean, LinearLayer::LatentLogVariance])
            .chain(self.tensors.latent_factor.is_some().then_some(LinearLayer::LatentFactor))
            .chain([LinearLayer::DecoderOutput]);
        let (mut tasks, mut weights, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        for layer in layers {
            let linear = self.linear(layer);
            let width = linear.n_in + linear.n_covariates;
            let (weight, bias) = (linear.weight.0.start, linear.bias.0.clone());
            if layer == LinearLayer::Encoder(0) {
                // Tiles of genes; the first one also forms the gradient of the bias.
                let step = (width / 8).next_multiple_of(16).clamp(32, 256);
                for from in (0..width).step_by(step) {
                    let rows = from..(from + step).min(width);
                    weights.push(weight + rows.start * linear.n_out..weight + rows.end * linear.n_out);
                    biases.push(if from == 0 { bias.clone() } else { 0..0 });
                    tasks.push(GradientTask::Input { rows });
                }
                continue;
            }
            let step = rows_per_task(linear);
            for from in (0..linear.n_out).step_by(step) {
                let rows = from..(from + step).min(linear.n_out);
                weights.push(weight + rows.start * width..weight + rows.end * width);
                biases.push(bias.start + rows.start..bias.start + rows.end);
                tasks.push(GradientTask::Linear { layer, rows });
            }
        }
        if let Some(log_dispersion) = &self.tensors.log_dispersion {
            weights.push(log_dispersion.0.clone());
            biases.push(0..0);
            tasks.push(GradientTask::Dispersion);
        }
        if let Some(shift) = &self.tensors.shift {
            weights.push(shift.0.clone());
            biases.push(self.tensors.mask_logit.as_ref().map_or(0..0, |mask_logit| mask_logit.0.clone()));
            tasks.push(GradientTask::Interventions);
        }
        // Tasks that cannot be cut come first, so that no thread is left with one of them while the others wait.
        self.gradient_order = Permutation::sorted_by_key(tasks.len(), |&i| match &tasks[i] {
            GradientTask::Interventions => 0,
            GradientTask::Dispersion => 1,
            GradientTask::Input { .. } => 2,
            GradientTask::Linear { .. } => 3,
        });
        let norms = [Side::Encoder, Side::Decoder].into_iter().flat_map(|side| self.hidden(side));
        let norms = norms.filter_map(|layer| layer.norm.as_ref());
        self.norm_pieces = norms.flat_map(|norm| [norm.weight.0.clone(), norm.bias.0.clone()]).collect();
        (self.gradient_tasks, self.weight_pieces, self.bias_pieces) = (tasks, weights, biases);
    }

    fn hidden(&self, side: Side) -> &[HiddenLayer] {
        match side {
            Side::Encoder => &self.tensors.encoder,
            Side::Decoder => &self.tensors.decoder,
        }
    }

    /// Shifts and masks of all interventions.
    pub fn prior(&self) -> PriorTable<'_, R> {
        let values = |tensor: &Option<Tensor>| tensor.as_ref().map(|tensor| &self.parameters[tensor]);
        self.prior_of(values(&self.tensors.shift), values(&self.tensors.mask_logit))
    }

    /// [`Network::prior`] with these shifts and mask logits (A x L each).
    fn prior_of<'a>(&'a self, shifts: Option<&'a [R]>, mask_logits: Option<&'a [R]>) -> PriorTable<'a, R> {
        let masks = match (self.architecture.prior, &self.frozen_mask, mask_logits) {
            (_, Some(fixed), _) => Masks::Fixed(fixed),
            (Prior::Masked { kind, temperature }, None, Some(logits)) => Masks::Drawn { logits, kind, temperature },
            _ => Masks::Ones,
        };
        PriorTable { n_latents: self.architecture.n_latents, shifts, masks }
    }

    /// Shifts and masks of all interventions, to be changed.
    pub fn prior_mut(&mut self) -> PriorTableMut<'_, R> {
        let (shifts, mask_logits) = match (&self.tensors.shift, &self.tensors.mask_logit) {
            (Some(shift), Some(mask_logit)) => {
                let (shifts, mask_logits) = two_ranges(&mut self.parameters.values, shift, mask_logit);
                (Some(shifts), Some(mask_logits))
            }
            (Some(shift), None) => (Some(&mut self.parameters[shift]), None),
            (None, _) => (None, None),
        };
        PriorTableMut { n_latents: self.architecture.n_latents, shifts, mask_logits, fixed: &mut self.frozen_mask }
    }

    /// Penalty on the masks as they stand, without weight; 0 once they are frozen.
    pub fn penalty(&self, penalty: Penalty) -> f64 {
        match self.prior().masks {
            Masks::Drawn { logits, .. } => penalty.value(logits),
            Masks::Ones | Masks::Fixed(_) => 0.0,
        }
    }

    /// Rotates the latents, Eq. (V2): the posterior mean becomes `rotation` (L x L) times what it was, the decoder turns it
    /// back. Of latents that are `turned`, shifts become the given `effects` (interventions x L), and masks are on where these
    /// are at least `smallest`, off elsewhere.
    pub fn rotate_latents(&mut self, rotation: &[f64], effects: &[f64], turned: &[bool], smallest: f64) {
        let l = self.architecture.n_latents;
        let rotate = |values: &[R], k: usize| -> R {
            let axis = &rotation[k * l..(k + 1) * l];
            R::of(axis.iter().zip(values).map(|(r, value)| r * value.f64()).sum::<f64>())
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

    /// Places, in the parameters, of everything that a training may change: all but the logits of frozen masks.
    pub fn trainable(&self) -> Vec<Range<usize>> {
        let all = self.parameters.values.len();
        match (&self.tensors.mask_logit, &self.frozen_mask) {
            (Some(mask_logit), Some(_)) => vec![0..mask_logit.0.start, mask_logit.0.end..all],
            _ => std::iter::once(0..all).collect(),
        }
    }

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
            self.norm_pieces.iter().for_each(|piece| gradient.values[piece.clone()].fill(R::ZERO));
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
        let kl_scale = R::of(weights.kl * weights.cell);
        self.stage(team, workspace, batch, |pass, block, rows| {
            pass.finish_hidden(Side::Encoder, self.architecture.n_layers - 1, block, true);
            pass.latent(block, false);
            pass.prior(&mut block.cells, rows);
            let cells = &mut block.cells;
            shift::divergence_gradient(cells.d_kl_mean, cells.mean, cells.prior_mean, kl_scale);
        });
        let shift = self.tensors.shift.as_ref().expect("shifts are trained");
        let (d_shift, d_logit): (_, &mut [R]) = match &self.tensors.mask_logit {
            Some(mask_logit) => two_ranges(&mut gradient.values, shift, mask_logit),
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
        let cell_scale = R::of(weights.cell);
        let kl_scale = R::of(weights.cell * weights.kl);
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

    /// Log-dispersions of the genes; empty where the likelihood has none.
    fn log_dispersion(&self) -> &[R] {
        self.tensors.log_dispersion.as_ref().map_or(&[], |tensor| &self.parameters[tensor])
    }

    /// What draws counts about the means that the decoder gives.
    pub fn count_sampler(&self) -> CountSampler {
        self.architecture.likelihood.sampler(self.log_dispersion())
    }

    /// Puts the running statistics in the place of the batch's, and readies the likelihood.
    pub fn prepare_evaluation(&self, workspace: &mut Workspace<R>) {
        workspace.likelihood.update(self.log_dispersion());
        for side in [Side::Encoder, Side::Decoder] {
            let statistics = match side {
                Side::Encoder => &mut workspace.encoder_statistics,
                Side::Decoder => &mut workspace.decoder_statistics,
            };
            for (layer, statistics) in self.hidden(side).iter().zip(statistics) {
                if let Some(norm) = &layer.norm {
                    statistics.mean.copy_from_slice(&self.running[&norm.running_mean]);
                    let variance = &self.running[&norm.running_variance];
                    batch_norm::inverse_deviation(&mut statistics.inverse, variance, 1);
                }
            }
        }
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

    /// Runs `f` on every stripe of the minibatch's row blocks.
    fn stage(
        &self,
        team: &Team,
        workspace: &mut Workspace<R>,
        batch: Batch,
        f: impl Fn(&Pass<R>, &mut Block<R>, Range<usize>) + Sync,
    ) {
        let n = batch.cells.len();
        let n_blocks = n.div_ceil(ROWS_PER_BLOCK);
        let bytes = ROWS_PER_BLOCK * self.architecture.n_genes * size_of::<R>();
        // A product of a single row is summed in another order: a last block that is not whole stays alone on any number of threads.
        let stripe = match n.is_multiple_of(ROWS_PER_BLOCK) {
            true => blocks_per_stripe(n_blocks, team.threads(), bytes),
            false => 1,
        };
        let (stripes, shared) = workspace.split(n, stripe);
        let pass = Pass { network: self, batch, shared };
        team.run(n_blocks.div_ceil(stripe), stripes, |i, mut block| {
            let from = i * stripe * ROWS_PER_BLOCK;
            f(&pass, &mut block, from..(from + stripe * ROWS_PER_BLOCK).min(n));
        });
    }

    /// Moments of a layer over the whole minibatch, from those of its blocks, then from those of the processes; moves the
    /// running statistics.
    fn batch_statistics(&mut self, ranks: &Ranks, workspace: &mut Workspace<R>, side: Side, l: usize) {
        let Some(norm) = self.hidden(side)[l].norm.clone() else { return };
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
        let (mean, variance) = two_ranges(&mut running_mean, &norm.running_mean, &norm.running_variance);
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
        let Some(norm) = &self.hidden(side)[l].norm else { return };
        let h = self.architecture.n_hidden;
        let mut share = std::mem::take(&mut workspace.share);
        let (buffers, _) = layer_of(workspace, side, l);
        let used = share.rows[ranks.rank()].div_ceil(ROWS_PER_BLOCK) * 2 * h;
        let (d_gamma, d_beta) = two_ranges(&mut gradient.values, &norm.weight, &norm.bias);
        batch_norm::combine_gradient_sums(d_beta, d_gamma, &buffers.sums[..used]);
        if !ranks.is_alone() {
            share.sent[..h].copy_from_slice(d_beta);
            share.sent[h..].copy_from_slice(d_gamma);
            ranks.all_gather(&share.sent, &mut share.received);
            batch_norm::combine_gradient_sums(d_beta, d_gamma, &share.received);
        }
        workspace.share = share;
    }

    /// Gradients of everything but normalisation, each from all rows at once, shared out by tiles of the output.
    fn parameter_gradients(
        &self,
        team: &Team,
        workspace: &Workspace<R>,
        gradient: &mut Buffer<R>,
        input: StepInput<'_>,
    ) {
        let output = pieces_pair(&mut gradient.values, &self.weight_pieces, &self.bias_pieces);
        let output = reordered(output, &self.gradient_order);
        team.run(self.gradient_tasks.len(), output, |i, (main, second)| {
            let mut lap = workspace.clock.lap();
            let i = self.gradient_order.at(i);
            let values =
                [&self.weight_pieces[i], &self.bias_pieces[i]].map(|piece| &self.parameters.values[piece.clone()]);
            self.parameter_gradient(i, main, second, values, workspace, input);
            lap.end(Stage::ParameterGradients);
        });
    }

    /// [`Network::parameter_gradients`], each followed by a step of the optimiser on the same parameters.
    fn parameter_steps(
        &mut self,
        team: &Team,
        workspace: &Workspace<R>,
        gradient: &mut Buffer<R>,
        adam: &mut Adam<R>,
        step: &AdamStep<R>,
        trained: &[Range<usize>],
        input: StepInput<'_>,
    ) {
        let mut parameters = std::mem::take(&mut self.parameters.values);
        // The only gradients that read parameters are those of shifts and mask logits, each its own, before the step.
        let network = &*self;
        let (weights_at, biases_at) = (&network.weight_pieces[..], &network.bias_pieces[..]);
        let output = (
            pieces_pair(&mut gradient.values, weights_at, biases_at),
            pieces_pair(&mut parameters, weights_at, biases_at),
            pieces_pair(&mut adam.first.values, weights_at, biases_at),
            pieces_pair(&mut adam.second.values, weights_at, biases_at),
        );
        let output = reordered(output, &network.gradient_order);
        team.run(network.gradient_tasks.len(), output, |i, (gradient, parameters, first, second)| {
            let i = network.gradient_order.at(i);
            let mut lap = workspace.clock.lap();
            let values = [&*parameters.0, &*parameters.1];
            network.parameter_gradient(i, gradient.0, gradient.1, values, workspace, input);
            lap.end(Stage::ParameterGradients);
            let of_main = (&weights_at[i], gradient.0, parameters.0, first.0, second.0);
            let of_second = (&biases_at[i], gradient.1, parameters.1, first.1, second.1);
            for (piece, gradient, parameters, first, second) in [of_main, of_second] {
                for range in overlaps(trained, piece) {
                    let at = range.start - piece.start..range.end - piece.start;
                    let (gradient, first) = (&gradient[at.clone()], &mut first[at.clone()]);
                    step.apply(&mut parameters[at.clone()], gradient, first, &mut second[at]);
                }
            }
            lap.end(Stage::Adam);
        });
        for piece in &network.norm_pieces {
            for range in overlaps(trained, piece) {
                let (gradient, first) = (&gradient.values[range.clone()], &mut adam.first.values[range.clone()]);
                step.apply(&mut parameters[range.clone()], gradient, first, &mut adam.second.values[range]);
            }
        }
        self.parameters.values = parameters;
    }

    /// Task `i` of [`Network::parameter_gradients`]; values: the parameters that `main` and `second` are gradients of.
    fn parameter_gradient(
        &self,
        i: usize,
        main: &mut [R],
        second: &mut [R],
        values: [&[R]; 2],
        workspace: &Workspace<R>,
        input: StepInput<'_>,
    ) {
        let n = input.batch.cells.len();
        match &self.gradient_tasks[i] {
            // A process may hold no cell of a minibatch.
            GradientTask::Linear { .. } | GradientTask::Input { .. } if n == 0 => {
                main.fill(R::ZERO);
                second.fill(R::ZERO);
            }
            GradientTask::Linear { layer, rows } => {
                self.linear_gradient(workspace, *layer, rows.clone(), main, second, n);
            }
            GradientTask::Input { rows } => {
                let linear = self.linear(LinearLayer::Encoder(0));
                let d_y = &workspace.encoder[0].d[..n * linear.n_out];
                let covariates = self.covariates(linear, &workspace.cells.covariates, n);
                let counts = self.input(&workspace.cells.input[..n * linear.n_in], &workspace.log1p, input.batch, 0);
                input_layer::backward_weight(main, rows.clone(), d_y, linear.n_out, counts, covariates);
                if !second.is_empty() {
                    linear::backward_bias(second, Rows::new(d_y, n, linear.n_out));
                }
            }
            GradientTask::Dispersion => {
                let blocks = workspace.cells.d_log_dispersion.chunks_exact(self.architecture.n_genes);
                vectorized(
                    #[inline(always)]
                    || {
                        main.fill(R::ZERO);
                        for block in blocks.take(n.div_ceil(ROWS_PER_BLOCK)) {
                            for (d, &part) in main.iter_mut().zip(block) {
                                *d += part;
                            }
                        }
                    },
                );
            }
            GradientTask::Interventions => {
                let mask_logits = self.tensors.mask_logit.as_ref().map(|_| values[1]);
                let prior = self.prior_of(Some(values[0]), mask_logits);
                self.intervention_gradient(workspace, [main, second], prior, input);
            }
        }
    }

    fn linear_gradient(
        &self,
        workspace: &Workspace<R>,
        layer: LinearLayer,
        rows: Range<usize>,
        d_weight: &mut [R],
        d_bias: &mut [R],
        n: usize,
    ) {
        let linear = self.linear(layer);
        let last = self.architecture.n_layers - 1;
        let cells = &workspace.cells;
        let (x, d_y) = match layer {
            LinearLayer::Encoder(0) => unreachable!("planned as tasks of the input"),
            LinearLayer::Encoder(l) => (&workspace.encoder[l - 1].out, &workspace.encoder[l].d),
            LinearLayer::LatentMean => (&workspace.encoder[last].out, &cells.d_mean),
            LinearLayer::LatentLogVariance => (&workspace.encoder[last].out, &cells.d_log_variance),
            LinearLayer::LatentFactor => (&workspace.encoder[last].out, &cells.d_factor),
            LinearLayer::Decoder(0) => (&cells.z, &workspace.decoder[0].d),
            LinearLayer::Decoder(l) => (&workspace.decoder[l - 1].out, &workspace.decoder[l].d),
            LinearLayer::DecoderOutput => (&workspace.decoder[last].out, &cells.logits),
        };
        let d_y = Rows::strided(&d_y[rows.start..], n, rows.len(), linear.n_out);
        let x = Rows::new(x, n, linear.n_in);
        let covariates = self.covariates(linear, &cells.covariates, n);
        linear::backward_parameters(d_weight, d_bias, d_y, x, covariates, linear.n_in);
    }

    /// Gradients of shifts and mask logits: cell by cell in order, then the penalty.
    fn intervention_gradient(
        &self,
        workspace: &Workspace<R>,
        [d_shift, d_logit]: [&mut [R]; 2],
        prior: PriorTable<R>,
        StepInput { batch, weights, penalty, .. }: StepInput<'_>,
    ) {
        let cells = &workspace.cells;
        d_shift.fill(R::ZERO);
        d_logit.fill(R::ZERO);
        let of = interventions_of(batch, batch.cells, workspace.max_interventions);
        prior.add_gradient([d_shift, d_logit], &cells.d_kl_mean, [&cells.mask, &cells.slope], of);
        if let Masks::Drawn { logits, .. } = prior.masks {
            penalty.add_gradient(d_logit, logits, weights.penalty);
        }
    }

    /// What the encoder's first layer reads, for the rows of a minibatch from `first` on. dense: rows x G.
    fn input<'a>(
        &self,
        dense: &'a [R],
        log1p: &'a Log1pTable<R>,
        batch: Batch<'a>,
        first: usize,
    ) -> input_layer::Input<'a, R, impl Fn(usize) -> CountsRow<'a>> {
        let n_genes = self.architecture.n_genes;
        if batch.data.counts.is_mostly_zero() {
            let row = move |i: usize| batch.row(first + i);
            input_layer::Input::Nonzero { row, log1p, n_genes }
        } else {
            input_layer::Input::Dense { values: dense, n_genes }
        }
    }

    /// The covariates that a layer receives, as columns of the covariate buffer.
    fn covariates<'a>(&self, linear: &LinearTensors, covariates: &'a [R], n: usize) -> Option<Rows<'a, R>> {
        let width = self.architecture.covariate_width();
        match linear.injection {
            Injection::Nothing => None,
            Injection::OneHot => {
                let skip = self.architecture.n_continuous;
                Some(Rows::strided(&covariates[skip..], n, width - skip, width))
            }
            Injection::All => Some(Rows::new(covariates, n, width)),
        }
    }
}

/// Interventions of some cells of a batch.
fn interventions_of<'a>(batch: Batch<'a>, cells: &'a [usize], per_cell: usize) -> CellInterventions<'a> {
    CellInterventions { rows: &batch.data.interventions, cells, per_cell }
}

/// What `range` has in common with each of `ranges`.
fn overlaps(ranges: &[Range<usize>], range: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    ranges.iter().map(|r| r.start.max(range.start)..r.end.min(range.end)).filter(|r| !r.is_empty())
}

/// Two tensors of one buffer, both writable.
fn two_ranges<'a, R>(values: &'a mut [R], a: &Tensor, b: &Tensor) -> (&'a mut [R], &'a mut [R]) {
    values.get_disjoint_mut([a.0.clone(), b.0.clone()]).expect("tensors do not overlap").into()
}

fn layer_of<R>(workspace: &mut Workspace<R>, side: Side, l: usize) -> (&mut LayerBuffers<R>, &mut LayerStatistics<R>) {
    match side {
        Side::Encoder => (&mut workspace.encoder[l], &mut workspace.encoder_statistics[l]),
        Side::Decoder => (&mut workspace.decoder[l], &mut workspace.decoder_statistics[l]),
    }
}

/// One pass over a minibatch, as seen by a row block.
struct Pass<'a, R> {
    network: &'a Network<R>,
    batch: Batch<'a>,
    shared: Shared<'a, R>,
}

impl<R: Real> Pass<'_, R> {
    fn tensor(&self, tensor: &Tensor) -> &[R] {
        &self.network.parameters[tensor]
    }

    /// Counts, size factors and covariates of a block's cells.
    fn load(&self, cells: &mut CellBlock<R>, rows: Range<usize>) {
        let g = self.network.architecture.n_genes;
        let numbers = &self.batch.cells[rows.clone()];
        // Cells come in random order from all over memory: fetch them all at once, not one after another.
        self.batch.prefetch(rows.clone());
        let dense = !self.batch.data.counts.is_mostly_zero();
        let log1p = self.shared.log1p;
        for (i, &cell) in numbers.iter().enumerate() {
            let x = &mut cells.x[i * g..(i + 1) * g];
            x.fill(R::ZERO);
            let counts = self.batch.row(rows.start + i);
            if dense {
                let input = &mut cells.input[i * g..(i + 1) * g];
                input.fill(R::ZERO);
                counts.for_each(
                    #[inline(always)]
                    |gene, count| (x[gene], input[gene]) = (R::of_count(count), log1p.of(count)),
                );
            } else {
                counts.for_each(
                    #[inline(always)]
                    |gene, count| x[gene] = R::of_count(count),
                );
            }
            cells.library[i] = R::of(self.batch.data.library[cell]);
        }
        self.load_covariates(cells.covariates, rows);
    }

    /// Noise of a block's cells: latents, masks and, in training, dropout.
    fn draw_noise(
        &self,
        cells: &mut CellBlock<R>,
        encoder: &mut [Option<LayerBlock<R>>],
        rows: Range<usize>,
        noise: Noise,
        training: bool,
    ) {
        let a = &self.network.architecture;
        let l = a.n_latents;
        let e = self.shared.max_interventions * l;
        let (seed, epoch, latent, mask) = match noise {
            Noise::Given => return,
            Noise::Training { seed, epoch } => (seed, epoch, Purpose::Latent, Purpose::Mask),
            Noise::Evaluation { seed, draw } => (seed, draw, Purpose::EvaluationLatent, Purpose::EvaluationMask),
        };
        let numbers = &self.batch.cells[rows];
        let n = numbers.len();
        let network = self.network;
        let masks_drawn = e > 0 && network.prior().draws_masks();
        let address = |i: usize| (epoch, numbers[i] as u64);
        let words = &mut *cells.words;
        vectorized(
            #[inline(always)]
            || {
                let per_row = words_per_row(l + 1);
                fill_words(&mut words[..n * per_row], per_row, seed, latent, 0, address);
                normal_rows(cells.latent_noise, l, words, per_row);
                if masks_drawn {
                    let per_row = words_per_row(e);
                    fill_words(&mut words[..n * per_row], per_row, seed, mask, 0, address);
                    logistic_rows(cells.mask_noise, e, words, per_row);
                }
                if training && a.dropout_rate > 0.0 {
                    let per_row = words_per_row(a.n_hidden.div_ceil(2));
                    for l in 0..a.n_layers {
                        let layer = encoder[l].as_mut().expect("layers up to n_layers exist");
                        let first_block = l * per_row / 4;
                        fill_words(&mut words[..n * per_row], per_row, seed, Purpose::Dropout, first_block, address);
                        dropout_rows(layer.keep, a.n_hidden, a.dropout_rate, words, per_row);
                    }
                }
            },
        );
    }

    fn load_covariates(&self, out: &mut [R], rows: Range<usize>) {
        let a = &self.network.architecture;
        let width = a.covariate_width();
        if width == 0 {
            return;
        }
        let covariates = &self.batch.data.covariates;
        out.fill(R::ZERO);
        for (row, &cell) in out.chunks_exact_mut(width).zip(&self.batch.cells[rows]) {
            for (out, column) in row.iter_mut().zip(&covariates.continuous) {
                *out = R::of(column.values[cell]);
            }
            let mut at = a.n_continuous;
            for (column, &levels) in covariates.categorical.iter().zip(&a.categorical_levels) {
                if levels > 1 {
                    row[at + column.codes[cell] as usize] = R::ONE;
                    at += levels;
                }
            }
        }
    }

    /// Linear part of a hidden layer, and the block's moments of its output.
    fn start_hidden(&self, side: Side, l: usize, block: &mut Block<R>, rows: Range<usize>, training: bool) {
        let layer = &self.network.hidden(side)[l];
        let (layers, first_input): (_, &[R]) = match side {
            Side::Encoder => (&mut block.encoder, block.cells.input),
            Side::Decoder => (&mut block.decoder, block.cells.z),
        };
        let (before, here) = layers.split_at_mut(l);
        let input = before.last().map_or(first_input, |layer| layer.as_ref().expect("a layer before").out);
        let here = here[0].as_mut().expect("layers up to n_layers exist");
        let n = input.len() / layer.linear.n_in;
        let covariates = self.network.covariates(&layer.linear, block.cells.covariates, n);
        let (weight, bias) = (self.tensor(&layer.linear.weight), self.tensor(&layer.linear.bias));
        if side == Side::Encoder && l == 0 {
            let input = self.network.input(input, self.shared.log1p, self.batch, rows.start);
            input_layer::forward(here.pre, input, covariates, weight, bias);
        } else {
            let n_in = layer.linear.n_in;
            linear::forward(here.pre, Rows::new(input, n, n_in), covariates, weight, bias, n_in);
        }
        if training && layer.norm.is_some() {
            let h = self.network.architecture.n_hidden;
            for (sums, pre) in here.sums.chunks_mut(2 * h).zip(here.pre.chunks(ROWS_PER_BLOCK * h)) {
                batch_norm::block_moments(sums, pre);
            }
        }
    }

    fn statistics(&self, side: Side, l: usize) -> &LayerStatistics<R> {
        match side {
            Side::Encoder => &self.shared.encoder_statistics[l],
            Side::Decoder => &self.shared.decoder_statistics[l],
        }
    }

    /// Normalisation, ReLU and dropout of a hidden layer.
    fn finish_hidden(&self, side: Side, l: usize, block: &mut Block<R>, training: bool) {
        let layer = layer_block(block, side, l);
        let keep: Option<&[R]> = (training && !layer.keep.is_empty()).then_some(&*layer.keep);
        let layer_norm = self.network.architecture.layer_norm;
        match &self.network.hidden(side)[l].norm {
            Some(norm) => {
                let s = self.statistics(side, l);
                let (gamma, beta) = (self.tensor(&norm.weight), self.tensor(&norm.bias));
                if !layer_norm {
                    activation::after_batch_norm(layer.out, layer.pre, &s.mean, &s.inverse, gamma, beta, keep);
                    return;
                }
                batch_norm::forward(layer.out, layer.pre, &s.mean, &s.inverse, gamma, beta);
            }
            None => layer.out.copy_from_slice(layer.pre),
        }
        if layer_norm {
            layer_norm::forward(layer.out, layer.row_statistics, self.network.architecture.n_hidden);
        }
        activation::forward(layer.out, keep);
    }

    /// Backward of [`Pass::finish_hidden`], up to the sums over the batch: `d` holds the gradient of `out` on entry
    /// and of the batch normalisation's output on exit.
    fn finish_hidden_backward(&self, side: Side, l: usize, block: &mut Block<R>) {
        let layer = layer_block(block, side, l);
        let keep: Option<&[R]> = (!layer.keep.is_empty()).then_some(&*layer.keep);
        let h = self.network.architecture.n_hidden;
        let norm = self.network.hidden(side)[l].norm.as_ref();
        let s = self.statistics(side, l);
        let layer_norm = self.network.architecture.layer_norm;
        let blocks = layer.d.chunks_mut(ROWS_PER_BLOCK * h).zip(layer.sums.chunks_mut(2 * h)).enumerate();
        if norm.is_some() && !layer_norm {
            for (i, (d, sums)) in blocks {
                let rows = i * ROWS_PER_BLOCK * h..i * ROWS_PER_BLOCK * h + d.len();
                let (out, pre, keep) =
                    (&layer.out[rows.clone()], &layer.pre[rows.clone()], keep.map(|keep| &keep[rows]));
                activation::backward_with_sums(d, sums, out, keep, pre, &s.mean, &s.inverse);
            }
            return;
        }
        activation::backward(layer.d, layer.out, keep);
        if layer_norm {
            let row_scratch = &mut layer.row_scratch[..h];
            let rows = layer.d.chunks_exact_mut(h).zip(layer.pre.chunks_exact(h));
            for ((d, pre), statistics) in rows.zip(layer.row_statistics.chunks_exact(2)) {
                // The input of the layer normalisation is not kept: made again here.
                match norm {
                    Some(norm) => {
                        let (gamma, beta) = (self.tensor(&norm.weight), self.tensor(&norm.bias));
                        batch_norm::forward(row_scratch, pre, &s.mean, &s.inverse, gamma, beta);
                    }
                    None => row_scratch.copy_from_slice(pre),
                }
                layer_norm::backward_row(d, row_scratch, statistics);
            }
        }
        if norm.is_some() {
            let rows = layer.d.chunks(ROWS_PER_BLOCK * h).zip(layer.pre.chunks(ROWS_PER_BLOCK * h));
            for (sums, (d, pre)) in layer.sums.chunks_mut(2 * h).zip(rows) {
                batch_norm::block_gradient_sums(sums, d, pre, &s.mean, &s.inverse);
            }
        }
    }

    /// Backward of the batch normalisation: `d` becomes the gradient of the linear part's output.
    fn start_hidden_backward(&self, side: Side, l: usize, block: &mut Block<R>, sums: &Buffer<R>, n: usize) {
        if let Some(norm) = &self.network.hidden(side)[l].norm {
            let s = self.statistics(side, l);
            let layer = layer_block(block, side, l);
            let (d_gamma, d_beta) = (&sums[&norm.weight], &sums[&norm.bias]);
            let gamma = self.tensor(&norm.weight);
            batch_norm::backward(layer.d, layer.pre, &s.mean, &s.inverse, gamma, d_beta, d_gamma, n);
        }
    }

    /// Gradient of the output of the layer before hidden layer `l` (> 0).
    fn hidden_input_backward(&self, side: Side, l: usize, block: &mut Block<R>) {
        let linear = &self.network.hidden(side)[l].linear;
        let layers = match side {
            Side::Encoder => &mut block.encoder,
            Side::Decoder => &mut block.decoder,
        };
        let (before, here) = layers.split_at_mut(l);
        let before = before[l - 1].as_mut().expect("a layer before");
        let here = here[0].as_ref().expect("layers up to n_layers exist");
        let d_y = Rows::new(here.d, here.d.len() / linear.n_out, linear.n_out);
        let weight = self.tensor(&linear.weight);
        linear::backward_input(before.d, Into::Replace, d_y, weight, linear.n_in, linear.n_out);
    }

    /// Posterior and, with noise, a sample from it.
    fn latent(&self, block: &mut Block<R>, sample: bool) {
        let a = &self.network.architecture;
        let t = &self.network.tensors;
        let hidden = block.encoder[a.n_layers - 1].as_ref().expect("the last layer").out as &[R];
        let h = Rows::new(hidden, hidden.len() / a.n_hidden, a.n_hidden);
        let cells = &mut block.cells;
        for (head, out) in [(&t.latent_mean, &mut cells.mean), (&t.latent_log_variance, &mut cells.log_variance)] {
            linear::forward(out, h, None, self.tensor(&head.weight), self.tensor(&head.bias), a.n_hidden);
        }
        if let Some(head) = &t.latent_factor {
            linear::forward(cells.factor, h, None, self.tensor(&head.weight), self.tensor(&head.bias), a.n_hidden);
        }
        latent::forward(
            cells.z,
            cells.variance,
            cells.mean,
            cells.log_variance,
            cells.factor,
            sample.then_some(&*cells.latent_noise),
            a.latent_distribution,
            a.n_latents,
        );
    }

    /// Masks, prior means and divergences of a block's cells.
    fn prior(&self, cells: &mut CellBlock<R>, rows: Range<usize>) {
        let prior = self.network.prior();
        let of = interventions_of(self.batch, &self.batch.cells[rows], self.shared.max_interventions);
        if prior.shifts.is_some() {
            let (mask, slope) = (&mut *cells.mask, &mut *cells.slope);
            let buffers = MaskBuffers { mask, slope, logit: cells.mask_logit, noise: cells.mask_noise };
            prior.masks_of_cells(buffers, of);
        }
        prior.means_of_cells(cells.prior_mean, cells.mask, of);
        // The gradient of z is not in use yet: it lends its room.
        shift::divergences(cells.kl, cells.d_z, cells.mean, cells.variance, cells.prior_mean);
        shift::add_factor_divergences(cells.kl, cells.factor);
    }

    /// Logits of the expression rates.
    fn output(&self, block: &mut Block<R>) {
        let a = &self.network.architecture;
        let head = &self.network.tensors.decoder_output;
        let hidden = block.decoder[a.n_layers - 1].as_ref().expect("the last layer").out as &[R];
        linear::forward(
            block.cells.logits,
            Rows::new(hidden, hidden.len() / a.n_hidden, a.n_hidden),
            None,
            self.tensor(&head.weight),
            self.tensor(&head.bias),
            a.n_hidden,
        );
    }

    /// Negative log-likelihood of a block's cells.
    fn likelihood(&self, block: &mut Block<R>, rows: Range<usize>) {
        let a = &self.network.architecture;
        let cells = &mut block.cells;
        let g = a.n_genes;
        let (likelihood, scratch) = (self.shared.likelihood, &mut cells.likelihood_scratch[0]);
        let end = rows.end;
        for (i, row) in rows.enumerate() {
            // What has left the caches since the rows were loaded is fetched while the one before is worked on.
            self.batch.prefetch(row + 1..end.min(row + 2));
            let (logits, x) = (&mut cells.logits[i * g..(i + 1) * g], &cells.x[i * g..(i + 1) * g]);
            let cell = CellCounts { x, nonzero: self.batch.row(row), library: cells.library[i] };
            let terms = likelihood.count_terms(cell.nonzero, scratch);
            cells.reconstruction[i] = likelihood.value(logits, cell, terms, scratch);
        }
    }

    /// Negative log-likelihood of a block's cells, and its gradients in logits and log-dispersions.
    fn likelihood_and_gradient(&self, block: &mut Block<R>, rows: Range<usize>, scale: R) {
        let a = &self.network.architecture;
        let cells = &mut block.cells;
        let g = a.n_genes;
        let (likelihood, scratch) = (self.shared.likelihood, &mut cells.likelihood_scratch[0]);
        let width = a.likelihood.n_parameters(g);
        cells.d_log_dispersion.fill(R::ZERO);
        let end = rows.end;
        for (i, row) in rows.enumerate() {
            // What has left the caches since the rows were loaded is fetched while the one before is worked on.
            self.batch.prefetch(row + 1..end.min(row + 2));
            let (logits, x) = (&mut cells.logits[i * g..(i + 1) * g], &cells.x[i * g..(i + 1) * g]);
            let cell = CellCounts { x, nonzero: self.batch.row(row), library: cells.library[i] };
            let d_log_dispersion = &mut cells.d_log_dispersion[i / ROWS_PER_BLOCK * width..][..width];
            cells.reconstruction[i] = likelihood.value_and_gradient(logits, cell, scale, d_log_dispersion, scratch);
        }
    }

    /// Gradient of the decoder's last hidden layer.
    fn output_backward(&self, block: &mut Block<R>) {
        let head = &self.network.tensors.decoder_output;
        let last = block.decoder[self.network.architecture.n_layers - 1].as_mut().expect("the last layer");
        let n = block.cells.logits.len() / head.n_out;
        let d_y = Rows::new(block.cells.logits, n, head.n_out);
        linear::backward_input(last.d, Into::Replace, d_y, self.tensor(&head.weight), head.n_in, head.n_out);
    }

    /// From the decoder's first layer through z and the divergence to the encoder's last hidden layer.
    fn latent_backward(&self, block: &mut Block<R>, kl_scale: R) {
        let a = &self.network.architecture;
        let t = &self.network.tensors;
        let cells = &mut block.cells;
        let n = cells.library.len();
        let first = block.decoder[0].as_ref().expect("a first layer");
        let of_first = &t.decoder[0].linear;
        let d_y = Rows::new(first.d, n, of_first.n_out);
        let weight = self.tensor(&of_first.weight);
        linear::backward_input(cells.d_z, Into::Replace, d_y, weight, of_first.n_in, of_first.n_out);
        shift::divergence_gradient(cells.d_kl_mean, cells.mean, cells.prior_mean, kl_scale);
        latent::backward(
            cells.d_mean,
            cells.d_log_variance,
            cells.d_z,
            cells.z,
            cells.variance,
            cells.latent_noise,
            cells.d_kl_mean,
            kl_scale,
            a.latent_distribution,
            a.n_latents,
        );
        let last = block.encoder[a.n_layers - 1].as_mut().expect("the last layer");
        let heads = [
            (&t.latent_mean, &cells.d_mean, Into::Replace),
            (&t.latent_log_variance, &cells.d_log_variance, Into::Add),
        ];
        for (head, d, into) in heads {
            let d = Rows::new(d, n, a.n_latents);
            linear::backward_input(last.d, into, d, self.tensor(&head.weight), a.n_hidden, a.n_latents);
        }
        if let Some(head) = &t.latent_factor {
            latent::correlate_backward(
                cells.d_factor,
                cells.d_z,
                cells.factor,
                cells.latent_noise,
                kl_scale,
                a.n_latents,
            );
            let d = Rows::new(cells.d_factor, n, head.n_out);
            linear::backward_input(last.d, Into::Add, d, self.tensor(&head.weight), a.n_hidden, head.n_out);
        }
    }
}

/// Most row blocks that are worked on as one.
const MOST_BLOCKS_PER_STRIPE: usize = 4;

/// Most bytes of the logits of a stripe of several blocks, so that they stay in a core's cache.
const MOST_BYTES_PER_STRIPE: usize = 1 << 20;

/// Row blocks that a thread works on as one, of `n_blocks` with so many bytes of logits each: its whole share, or equal parts
/// of that.
fn blocks_per_stripe(n_blocks: usize, threads: usize, bytes: usize) -> usize {
    let share = n_blocks.div_ceil(threads).max(1);
    share.div_ceil(share.div_ceil(most_blocks_per_stripe(bytes)))
}

/// Most row blocks, with so many bytes of logits each, that are worked on as one.
fn most_blocks_per_stripe(bytes: usize) -> usize {
    (MOST_BYTES_PER_STRIPE / bytes.max(1)).clamp(1, MOST_BLOCKS_PER_STRIPE)
}

fn layer_block<'a, 'w, R>(block: &'a mut Block<'w, R>, side: Side, l: usize) -> &'a mut LayerBlock<'w, R> {
    let layers = match side {
        Side::Encoder => &mut block.encoder,
        Side::Decoder => &mut block.decoder,
    };
    layers[l].as_mut().expect("layers up to n_layers exist")
}

#[cfg(test)]
mod tests {
    use super::blocks_per_stripe;

    #[test]
    fn stripes_are_equal_shares_of_the_blocks_that_fit_a_cache() {
        for (n_blocks, threads, kilobytes, stripe) in [
            (4, 1, 16, 4),
            (4, 2, 16, 2),
            (4, 3, 16, 2),
            (4, 4, 16, 1),
            (4, 8, 16, 1),
            (0, 2, 16, 1),
            (6, 2, 16, 3),
            (10, 2, 16, 3),
            (16, 2, 16, 4),
            (16, 2, 300, 3),
            (16, 2, 600, 1),
            (16, 2, 5000, 1),
        ] {
            let found = blocks_per_stripe(n_blocks, threads, kilobytes * 1024);
            assert_eq!(found, stripe, "{n_blocks} blocks of {kilobytes} kB, {threads} threads");
        }
    }
}
