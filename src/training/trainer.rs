//! The training loop: epochs of minibatches, validation after each, early stopping.

use super::adam::{Adam, AdamSettings};
use super::early_stopping::EarlyStopping;
use crate::config::{KeepEpoch, Schedule};
use crate::data::dataset::Dataset;
use crate::data::minibatch::{Minibatches, Order};
use crate::error::{NonFinite, Result};
use crate::model::network::{Network, Noise};
use crate::model::objective::Objective;
use crate::model::parameters::Buffer;
use crate::model::workspace::Workspace;
use crate::numerics::real::Real;
use crate::numerics::team::Team;
use crate::report::metrics::StopReason;
use crate::report::progress::EpochRecord;
use std::ops::Range;
use std::time::Instant;

/// Cells evaluated at a time.
const EVALUATION_BATCH: usize = 512;

/// A last minibatch with fewer cells is left out (scvi-tools; batch statistics of so few mean nothing).
pub(super) const SMALLEST_BATCH: usize = 3;

/// Settings of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingSettings {
    /// Most epochs.
    pub epochs: usize,
    /// Most epochs of a second training, on fixed masks.
    pub retraining_epochs: usize,
    /// Cells of a minibatch, B.
    pub batch_size: usize,
    /// Epochs over which the KL weight rises from 0 to 1; 0 starts at 1.
    pub warmup_epochs: usize,
    /// Epochs without improvement before stopping; 0 never stops early.
    pub patience: usize,
    /// Which epoch's weights are kept.
    pub keep: KeepEpoch,
    /// Optimiser.
    pub adam: AdamSettings,
    /// Course of its step size over all epochs.
    pub schedule: Schedule,
    /// Seed of order and noise.
    pub seed: u64,
    /// Added to the epoch in the address of random streams: a second training with another number sees other noise.
    pub stream_offset: u64,
    /// Places of the parameters that are trained; `None`: all that [`Network::trainable`] names.
    pub trained: Option<Vec<Range<usize>>>,
}

impl TrainingSettings {
    /// KL weight of an epoch (from 0): rises linearly from 0 to 1 over the warm-up.
    pub fn kl_weight(&self, epoch: usize) -> f64 {
        match self.warmup_epochs {
            0 => 1.0,
            n => (epoch as f64 / n as f64).min(1.0),
        }
    }
}

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

/// Negative ELBO of `cells` in evaluation mode, one latent sample and one mask draw per cell: mean reconstruction + mean
/// divergence + penalty / number of cells. The noise depends on the seed only, so that epochs compare under the same.
///
/// # Errors
/// Counts on disk that cannot be read, as for all that follow.
pub fn elbo<R: Real>(
    team: &Team,
    network: &Network<R>,
    workspace: &mut Workspace<R>,
    data: &Dataset,
    cells: &[usize],
    objective: &Objective,
    seed: u64,
) -> Result<Elbo> {
    if cells.is_empty() {
        return Ok(Elbo { total: f64::NAN, reconstruction: f64::NAN, kl: f64::NAN });
    }
    network.prepare_evaluation(workspace);
    let (mut reconstruction, mut kl) = (0.0, 0.0);
    let mut batches = Minibatches::of_cells(data, cells, workspace.capacity())?;
    while let Some(batch) = batches.next()? {
        network.evaluate(team, workspace, batch, Noise::Evaluation { seed, draw: 0 });
        reconstruction += workspace.cells.reconstruction[..batch.cells.len()].iter().sum::<f64>();
        kl += workspace.cells.kl[..batch.cells.len()].iter().sum::<f64>();
    }
    let n = cells.len() as f64;
    let (reconstruction, kl) = (reconstruction / n, kl / n);
    Ok(Elbo { total: reconstruction + kl + network.penalty(objective.penalty) / n, reconstruction, kl })
}

/// Posterior means of `cells`, cells x L.
pub fn posterior_means<R: Real>(
    team: &Team,
    network: &Network<R>,
    workspace: &mut Workspace<R>,
    data: &Dataset,
    cells: &[usize],
) -> Result<Vec<R>> {
    network.prepare_evaluation(workspace);
    let mut means = Vec::with_capacity(cells.len() * network.architecture.n_latents);
    let mut batches = Minibatches::of_cells(data, cells, workspace.capacity())?;
    while let Some(batch) = batches.next()? {
        network.encode(team, workspace, batch);
        means.extend_from_slice(&workspace.cells.mean[..batch.cells.len() * network.architecture.n_latents]);
    }
    Ok(means)
}

/// Mean KL divergence of each latent from its prior over `cells`, in evaluation mode, nats; length L. Where masks are
/// random, one is drawn per cell, as for [`elbo`].
pub fn divergence_by_latent<R: Real>(
    team: &Team,
    network: &Network<R>,
    workspace: &mut Workspace<R>,
    data: &Dataset,
    cells: &[usize],
    seed: u64,
) -> Result<Vec<f64>> {
    network.prepare_evaluation(workspace);
    let l = network.architecture.n_latents;
    let mut sums = vec![0.0; l];
    let mut batches = Minibatches::of_cells(data, cells, workspace.capacity())?;
    while let Some(batch) = batches.next()? {
        network.evaluate(team, workspace, batch, Noise::Evaluation { seed, draw: 0 });
        let found = &workspace.cells;
        let posterior = found.mean.chunks_exact(l).zip(found.variance.chunks_exact(l));
        for ((mean, variance), prior_mean) in posterior.zip(found.prior_mean.chunks_exact(l)).take(batch.cells.len()) {
            for (k, sum) in sums.iter_mut().enumerate() {
                let (v, distance) = (variance[k].f64(), mean[k].f64() - prior_mean[k].f64());
                // The term of latent k in Eq. (P2).
                *sum += 0.5 * (v + distance * distance - 1.0 - Real::ln(v));
            }
        }
        let width = network.architecture.factor_width();
        for factor in found.factor.chunks_exact(width.max(1)).take(batch.cells.len()) {
            for (k, sum) in sums.iter_mut().enumerate().skip(1) {
                // The term of latent k in Eq. (P7).
                let row = &factor[k * (k - 1) / 2..k * (k + 1) / 2];
                *sum += 0.5 * row.iter().map(|f| f.f64() * f.f64()).sum::<f64>();
            }
        }
    }
    Ok(sums.iter().map(|sum| sum / cells.len().max(1) as f64).collect())
}

/// A workspace for [`elbo`] and [`posterior_means`].
pub fn evaluation_workspace<R: Real>(network: &Network<R>, data: &Dataset) -> Workspace<R> {
    Workspace::new(&network.architecture, EVALUATION_BATCH, data.interventions.max_len())
}

/// Parameters and running statistics as they stood after some epoch.
#[derive(Debug, Clone)]
struct Snapshot<R> {
    parameters: Buffer<R>,
    running: Buffer<R>,
}

impl<R: Real> Snapshot<R> {
    fn of(network: &Network<R>) -> Self {
        Self { parameters: network.parameters.clone(), running: network.running.clone() }
    }

    fn take(&mut self, network: &Network<R>) {
        self.parameters.values.copy_from_slice(&network.parameters.values);
        self.running.values.copy_from_slice(&network.running.values);
    }

    fn restore(&self, network: &mut Network<R>) {
        network.parameters.values.copy_from_slice(&self.parameters.values);
        network.running.values.copy_from_slice(&self.running.values);
    }
}

/// How a training went. The network holds the kept weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Where a value stopped being finite, if that is why.
    pub non_finite: Option<NonFinite>,
    /// One record per epoch.
    pub history: Vec<EpochRecord>,
    /// Seconds spent.
    pub seconds: f64,
    /// Training cells passed, all epochs together.
    pub cells_passed: usize,
}

/// Trains `network` on the cells `train`, watching the cells `validation`, and calls `on_epoch` after every epoch.
///
/// # Errors
/// Counts on disk that cannot be read; the network then holds the state after the last epoch that was complete.
pub fn train<R: Real>(
    team: &Team,
    network: &mut Network<R>,
    data: &Dataset,
    train: &[usize],
    validation: &[usize],
    objective: &Objective,
    settings: &TrainingSettings,
    mut on_epoch: impl FnMut(&EpochRecord),
) -> Result<Training> {
    let start = Instant::now();
    let batch_size = settings.batch_size.min(train.len());
    let mut workspace = Workspace::new(&network.architecture, batch_size, data.interventions.max_len());
    let mut evaluation = evaluation_workspace(network, data);
    let mut gradient = Buffer::zeros(&network.parameters.layout);
    let mut adam = Adam::new(&network.parameters);
    let mut stopping = EarlyStopping::new(settings.patience);
    let mut best = Snapshot::of(network);
    let mut last_good = Snapshot::of(network);
    let trained = settings.trained.clone().unwrap_or_else(|| network.trainable());
    let mut training = Training {
        stop_reason: StopReason::EpochLimit,
        non_finite: None,
        history: Vec::new(),
        seconds: 0.0,
        cells_passed: 0,
    };

    'epochs: for epoch in 0..settings.epochs {
        let epoch_start = Instant::now();
        let stream_epoch = settings.stream_offset + epoch as u64;
        let order = Order::shuffled(&data.counts, train, settings.seed, stream_epoch);
        let kl_weight = settings.kl_weight(epoch);
        let noise = Noise::Training { seed: settings.seed, epoch: stream_epoch };
        let (mut loss_sum, mut reconstruction, mut kl, mut cells_seen, mut steps) = (0.0, 0.0, 0.0, 0usize, 0usize);
        let mut batches = Minibatches::of_epoch(data, order, batch_size, 0)?;
        for step in 0.. {
            let batch = match batches.next() {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(error) => {
                    last_good.restore(network);
                    return Err(error);
                }
            };
            let n = batch.cells.len();
            if n < SMALLEST_BATCH && train.len() >= SMALLEST_BATCH {
                break;
            }
            let progress = (epoch as f64 + (step * batch_size) as f64 / train.len() as f64) / settings.epochs as f64;
            let learning_rate = settings.adam.learning_rate * settings.schedule.factor(progress);
            let loss = network.training_step(
                team,
                &mut workspace,
                &mut gradient,
                &mut adam,
                &trained,
                &AdamSettings { learning_rate, ..settings.adam },
                batch,
                noise,
                objective.weights(n, kl_weight),
                objective.penalty,
            );
            if !loss.total.is_finite() {
                let tensor =
                    network.first_non_finite(&workspace, n).unwrap_or_else(|| "the loss, of finite parts,".to_owned());
                training.non_finite = Some(NonFinite { epoch: epoch + 1, step: step + 1, tensor });
                training.stop_reason = StopReason::NonFinite;
                last_good.restore(network);
                break 'epochs;
            }
            loss_sum += loss.total;
            reconstruction += loss.reconstruction;
            kl += loss.kl;
            cells_seen += n;
            steps += 1;
        }
        training.cells_passed += cells_seen;

        let kl_global = network.penalty(objective.penalty);
        let seen = cells_seen as f64;
        let on_validation = elbo(team, network, &mut evaluation, data, validation, objective, settings.seed)?;
        let record = EpochRecord {
            epoch: epoch + 1,
            kl_weight,
            train_loss: loss_sum / steps as f64,
            train_elbo: (reconstruction + kl) / seen + kl_global / seen,
            train_reconstruction: reconstruction / seen,
            train_kl: kl / seen,
            kl_global,
            validation_elbo: on_validation.total,
            validation_reconstruction: on_validation.reconstruction,
            validation_kl: on_validation.kl,
            mean_mask: mean_mask(network),
            seconds: epoch_start.elapsed().as_secs_f64(),
        };
        training.history.push(record);
        on_epoch(&record);
        let watched = if validation.is_empty() { record.train_elbo } else { record.validation_elbo };
        if let Some(name) = network.parameters.first_non_finite() {
            let tensor = format!("parameter `{name}`");
            training.non_finite = Some(NonFinite { epoch: epoch + 1, step: steps, tensor });
            training.stop_reason = StopReason::NonFinite;
            last_good.restore(network);
            break;
        }
        last_good.take(network);
        if stopping.improves(watched) {
            best.take(network);
        }
        if stopping.should_stop() {
            training.stop_reason = StopReason::EarlyStopping;
            break;
        }
    }
    if settings.keep == KeepEpoch::Best && stopping.best.is_finite() {
        best.restore(network);
    }
    training.seconds = start.elapsed().as_secs_f64();
    Ok(training)
}

fn mean_mask<R: Real>(network: &Network<R>) -> f64 {
    network.mask_probabilities().map_or(1.0, |mask| mask.iter().map(|m| m.f64()).sum::<f64>() / mask.len() as f64)
}
