//! The training loop: epochs of minibatches, validation after each, early stopping. It can be interrupted at any step and
//! resumed.

use crate::checkpoint::encoding::{
    ByteReader, DecodeError, Encode, decode_values, encode_choices, encode_fields, encode_values,
};
use crate::data::dataset::Dataset;
use crate::data::minibatch::{Minibatches, Order};
use crate::error::{NonFinite, Result};
use crate::inference::effects::InterventionEffects;
use crate::inference::{Inference, evaluation_workspace};
use crate::model::adam::{Adam, AdamSettings};
use crate::model::network::Network;
use crate::model::noise::Noise;
use crate::model::objective::Objective;
use crate::model::parameters::Buffer;
use crate::model::pass::StepInput;
use crate::model::step::Optimizer;
use crate::model::workspace::Workspace;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::training::early_stopping::EarlyStopping;
use crate::training::history::{EpochRecord, KeepEpoch, StopReason};
use crate::training::identification::{self, Due, LATER_TURNS, RENEWED_EVERY};
use crate::training::observer::Observer;
use crate::training::rotation::rotate_and_prune;
use crate::training::schedule::Schedule;
use crate::training::snapshot::Snapshot;
use std::ops::Range;
use std::time::Instant;

/// A last minibatch with fewer cells is left out (scvi-tools; batch statistics of so few mean nothing).
pub(crate) const SMALLEST_BATCH: usize = 3;

/// Shares of the epochs after which latents are rotated and weak masks pruned: late enough for masks to have converged, early enough
/// for them to converge again.
pub const ROTATE_AFTER: [f64; 4] = [0.25, 0.4, 0.55, 0.7];

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
    /// Its step size over all epochs.
    pub schedule: Schedule,
    /// Epochs at most, of all, before the latents are turned for the first time, where masks are integrated out.
    pub dense_epochs: usize,
    /// Masks of a lower probability are pruned after latents are rotated, at [`ROTATE_AFTER`]; 0: neither is ever done.
    pub prune_masks_below: f64,
    /// Seed of order and noise.
    pub seed: u64,
    /// Added to the epoch in the address of random streams: a second training with another number sees other noise.
    pub stream_offset: u64,
    /// Places of the parameters that are trained; `None`: all that [`Network::trainable`] names.
    pub trained: Option<Vec<Range<usize>>>,
}

impl TrainingSettings {
    /// Plain ones: every epoch at full KL weight and the optimiser's own step size, none stopped early, the last one kept.
    pub fn plain(epochs: usize, batch_size: usize) -> Self {
        Self {
            epochs,
            retraining_epochs: epochs,
            batch_size,
            warmup_epochs: 0,
            patience: 0,
            keep: KeepEpoch::Last,
            adam: AdamSettings::default(),
            schedule: Schedule::Constant,
            dense_epochs: epochs.div_ceil(2),
            prune_masks_below: 0.0,
            seed: 0,
            stream_offset: 0,
            trained: None,
        }
    }

    /// KL weight of an epoch (from 0): rises linearly from 0 to 1 over the warm-up.
    pub fn kl_weight(&self, epoch: usize) -> f64 {
        match self.warmup_epochs {
            0 => 1.0,
            n => (epoch as f64 / n as f64).min(1.0),
        }
    }
}

/// How a training went; the network holds the weights that are kept.
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
    /// Training cells that passed through the network, all epochs together.
    pub cells_passed: usize,
}

impl Training {
    /// Validation ELBO of the epoch whose weights are kept; none without a finite one.
    pub fn kept_elbo(&self, keep: KeepEpoch) -> Option<f64> {
        let elbo = |record: &EpochRecord| Some(record.validation_elbo).filter(|elbo| elbo.is_finite());
        match keep {
            KeepEpoch::Last => self.history.last().and_then(elbo),
            KeepEpoch::Best => self.history.iter().filter_map(elbo).min_by(f64::total_cmp),
        }
    }

    /// Mean validation ELBO of the last `n` epochs, or of all if there are fewer; none without a finite one.
    pub fn mean_elbo(&self, n: usize) -> Option<f64> {
        let last = &self.history[self.history.len().saturating_sub(n)..];
        let sum: f64 = last.iter().map(|record| record.validation_elbo).sum();
        Some(sum / last.len() as f64).filter(|mean| mean.is_finite())
    }
}

encode_fields! {
    Training { stop_reason, non_finite, history, seconds, cells_passed }
    EarlyStopping { patience, best, waited }
    EpochProgress { epoch, step, loss, reconstruction, kl, cells, seconds }
    Phases { sparse_from, due }
}

encode_choices! {
    Due { 0 = Nothing, 1 = Evidence, 2 = Turn, 3 = FirstTurn, 4 = LastTurn }
}

/// Where a training stands that finds the graph.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Phases {
    /// Epochs of the dense phase, once it is over.
    sparse_from: Option<usize>,
    /// What is due before the next step.
    due: Due,
}

/// Where a training stands, and the sums of its present epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct EpochProgress {
    /// Epochs that are complete.
    epoch: usize,
    /// Minibatches of the present epoch that are done.
    step: usize,
    /// Their losses, summed.
    loss: f64,
    /// Their negative log-likelihoods, summed over cells.
    reconstruction: f64,
    /// Their divergences, summed over cells.
    kl: f64,
    /// Their cells.
    cells: usize,
    /// Seconds spent on the epoch before the last restart.
    seconds: f64,
}

/// What a call of [`Trainer::advance`] did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Advance {
    /// A minibatch was passed.
    Step,
    /// All minibatches of an epoch had been passed; it was validated and is over.
    Epoch(EpochRecord),
    /// The training is over.
    Ended,
}

/// What a network is trained on, and how.
#[derive(Debug, Clone, Copy)]
pub struct TrainingTask<'a> {
    /// The screen.
    pub data: &'a Dataset,
    /// Cells that train.
    pub train: &'a [usize],
    /// Cells that validate.
    pub validation: &'a [usize],
    /// What is minimised.
    pub objective: &'a Objective,
    /// Epochs, optimiser, seed.
    pub settings: &'a TrainingSettings,
}

/// A training that advances one minibatch at a time, and can be saved in between.
///
/// The order of the cells and all noise are addressed by (seed, epoch, cell), so that the numbers of the epoch and of
/// the minibatch say where in every random stream it stands.
#[derive(Debug)]
pub struct Trainer<'a, R> {
    network: &'a mut Network<R>,
    task: TrainingTask<'a>,
    workspace: Workspace<R>,
    evaluation: Workspace<R>,
    gradient: Buffer<R>,
    trained: Vec<Range<usize>>,
    /// What is left of an epoch, and the epoch's number.
    minibatches: Option<(usize, Minibatches<'a>)>,
    adam: Adam<R>,
    stopping: EarlyStopping,
    best: Snapshot<R>,
    last_good: Snapshot<R>,
    progress: EpochProgress,
    /// Where masks are integrated out.
    phases: Option<Phases>,
    /// Of epochs that are complete; seconds, of all before the last restart.
    training: Training,
    ended: bool,
    restarted: Instant,
    epoch_restarted: Instant,
}

impl<'a, R: Real> Trainer<'a, R> {
    /// Before the first step of a training of `network`.
    pub fn new(network: &'a mut Network<R>, task: TrainingTask<'a>) -> Self {
        let TrainingTask { data, train, settings, .. } = task;
        let now = Instant::now();
        let batch_size = settings.batch_size.min(train.len());
        let finds_graph = settings.trained.is_none() && identification::applies(network);
        if finds_graph {
            identification::begin(network);
        }
        Self {
            workspace: Workspace::new(&network.architecture, batch_size, data.interventions.max_len()),
            evaluation: evaluation_workspace(network, data),
            gradient: Buffer::zeros(&network.parameters.layout),
            trained: settings.trained.clone().unwrap_or_else(|| match &network.tensors.mask_logit {
                // Set by the evidence.
                Some(mask_logit) if finds_graph => network.all_but([mask_logit]),
                _ => network.trainable(),
            }),
            phases: finds_graph.then_some(Phases { sparse_from: None, due: Due::Nothing }),
            minibatches: None,
            adam: Adam::new(&network.parameters),
            stopping: EarlyStopping::new(settings.patience),
            best: Snapshot::of(network),
            last_good: Snapshot::of(network),
            progress: EpochProgress::default(),
            training: Training {
                stop_reason: StopReason::EpochLimit,
                non_finite: None,
                history: Vec::with_capacity(settings.epochs.min(1 << 16)),
                seconds: 0.0,
                cells_passed: 0,
            },
            ended: false,
            restarted: now,
            epoch_restarted: now,
            network,
            task,
        }
    }

    /// What it trains on, and how.
    pub fn task(&self) -> TrainingTask<'a> {
        self.task
    }

    /// Appends the state of this training: all that [`Trainer::new`] is not given again.
    pub fn save(&self, out: &mut Vec<u8>) {
        // Without `..`: a new field does not compile before it is decided whether it is saved.
        let Self {
            network,
            adam: Adam { first, second, steps },
            stopping,
            best,
            last_good,
            progress,
            phases,
            training,
            ended,
            restarted,
            epoch_restarted,
            // Given again, or said by the phase.
            task: _,
            trained: _,
            // Filled anew by every step, every evaluation or every epoch.
            workspace: _,
            evaluation: _,
            gradient: _,
            minibatches: _,
        } = self;
        encode_values(&network.parameters.values, out);
        encode_values(&network.running.values, out);
        encode_values(&first.values, out);
        encode_values(&second.values, out);
        steps.encode(out);
        stopping.encode(out);
        best.save(out);
        last_good.save(out);
        let seconds = progress.seconds + epoch_restarted.elapsed().as_secs_f64();
        EpochProgress { seconds, ..*progress }.encode(out);
        let seconds = training.seconds + restarted.elapsed().as_secs_f64();
        Training { seconds, ..training.clone() }.encode(out);
        phases.encode(out);
        u8::from(*ended).encode(out);
    }

    /// Resumes, in a new training that was given the same, from a state that [`Trainer::save`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the state is that of a training that was given something else.
    pub fn load(&mut self, input: &mut ByteReader<'_>) -> Result<(), DecodeError> {
        decode_values(&mut self.network.parameters.values, input)?;
        decode_values(&mut self.network.running.values, input)?;
        decode_values(&mut self.adam.first.values, input)?;
        decode_values(&mut self.adam.second.values, input)?;
        self.adam.steps = Encode::decode(input)?;
        self.stopping = Encode::decode(input)?;
        self.best.load(input)?;
        self.last_good.load(input)?;
        self.progress = Encode::decode(input)?;
        self.training = Encode::decode(input)?;
        self.phases = Encode::decode(input)?;
        if self.phases.is_some_and(|phases| phases.sparse_from.is_some()) {
            self.fix_edges();
        }
        self.ended = u8::decode(input)? != 0;
        self.minibatches = None;
        self.restarted = Instant::now();
        self.epoch_restarted = self.restarted;
        input.end()
    }

    /// Epochs that are complete, and minibatches of the present one that are done.
    pub fn position(&self) -> (usize, usize) {
        (self.progress.epoch, self.progress.step)
    }

    /// Cells of a minibatch, all but perhaps the last one.
    fn batch_size(&self) -> usize {
        self.task.settings.batch_size.min(self.task.train.len())
    }

    /// Minibatches of an epoch.
    fn steps_per_epoch(&self) -> usize {
        let (n, batch_size) = (self.task.train.len(), self.batch_size().max(1));
        let too_small = n % batch_size != 0 && n % batch_size < SMALLEST_BATCH && n >= SMALLEST_BATCH;
        n.div_ceil(batch_size) - usize::from(too_small)
    }

    /// Passes the next minibatch or, after the last one of an epoch, validates.
    ///
    /// # Errors
    /// Counts on disk that cannot be read; the training then stands where it stood, and the network as after the last
    /// minibatch.
    pub fn advance(&mut self, team: &Team) -> Result<Advance> {
        if let Some(Phases { due, .. }) = self.phases.filter(|phases| phases.due != Due::Nothing) {
            return self.identify(team, due);
        }
        if self.ended || self.progress.epoch >= self.task.settings.epochs {
            self.ended = true;
            return Ok(Advance::Ended);
        }
        if self.progress.step < self.steps_per_epoch() { self.step(team) } else { self.end_epoch(team) }
    }

    fn step(&mut self, team: &Team) -> Result<Advance> {
        let (settings, EpochProgress { epoch, step, .. }) = (self.task.settings, self.progress);
        // Number of the epoch in the addresses of random streams.
        let stream_epoch = settings.stream_offset + epoch as u64;
        let batch_size = self.batch_size();
        if self.minibatches.as_ref().is_none_or(|(of, _)| *of != epoch) {
            // The thread that reads ahead for the epoch before ends first.
            self.minibatches = None;
            let order = Order::shuffled(&self.task.data.counts, self.task.train, settings.seed, stream_epoch);
            let minibatches = Minibatches::of_epoch(self.task.data, order, batch_size, step)?;
            self.minibatches = Some((epoch, minibatches));
        }
        let (_, minibatches) = self.minibatches.as_mut().expect("made above");
        let batch = match minibatches.next() {
            Ok(batch) => batch.expect("as many minibatches as an epoch has steps"),
            Err(error) => {
                self.minibatches = None;
                return Err(error);
            }
        };
        let n = batch.cells.len();
        let progress =
            (epoch as f64 + (step * batch_size) as f64 / self.task.train.len() as f64) / settings.epochs as f64;
        // A dense phase takes whole steps; what follows it has a course of its own.
        let progress = match self.phases {
            Some(Phases { sparse_from: None, .. }) => 0.0,
            Some(Phases { sparse_from: Some(from), .. }) => {
                let epochs = settings.epochs as f64;
                (progress * epochs - from as f64) / (epochs - from as f64)
            }
            None => progress,
        };
        let learning_rate = settings.adam.learning_rate * settings.schedule.factor(progress);
        let settings_now = AdamSettings { learning_rate, ..settings.adam };
        let loss = self.network.training_step(
            team,
            &mut self.workspace,
            &mut self.gradient,
            Optimizer { adam: &mut self.adam, trained: &self.trained, settings: &settings_now },
            StepInput {
                batch,
                noise: Noise::Training { seed: settings.seed, epoch: stream_epoch },
                weights: self.task.objective.weights(n, settings.kl_weight(epoch)),
                penalty: self.task.objective.penalty,
            },
        );
        if !loss.total.is_finite() {
            let tensor = team
                .ranks()
                .first_of(self.network.first_non_finite(&self.workspace, n))
                .unwrap_or_else(|| "the loss, of finite parts,".to_owned());
            self.fail(NonFinite { epoch: epoch + 1, step: step + 1, tensor });
            return Ok(Advance::Step);
        }
        let sums = &mut self.progress;
        sums.loss += loss.total;
        sums.reconstruction += loss.reconstruction;
        sums.kl += loss.kl;
        sums.cells += n;
        sums.step += 1;
        Ok(Advance::Step)
    }

    fn end_epoch(&mut self, team: &Team) -> Result<Advance> {
        let (sums, objective) = (self.progress, self.task.objective);
        // What it holds in memory makes room for the cells that validate.
        self.minibatches = None;
        team.ranks().check_together("parameters", &self.network.parameters.values);
        let kl_global = self.network.penalty(objective.penalty);
        let seen = sums.cells as f64;
        let seed = self.task.settings.seed;
        let workspace = &mut self.evaluation;
        let mut inference = Inference { team, network: self.network, data: self.task.data, workspace };
        let on_validation = inference.elbo(self.task.validation, objective, seed)?;
        // Nothing has changed so far, and nothing below can fail.
        self.training.cells_passed += sums.cells;
        let record = EpochRecord {
            epoch: sums.epoch + 1,
            kl_weight: self.task.settings.kl_weight(sums.epoch),
            train_loss: sums.loss / sums.step as f64,
            train_elbo: (sums.reconstruction + sums.kl) / seen + kl_global / seen,
            train_reconstruction: sums.reconstruction / seen,
            train_kl: sums.kl / seen,
            kl_global,
            validation_elbo: on_validation.total,
            validation_reconstruction: on_validation.reconstruction,
            validation_kl: on_validation.kl,
            mean_mask: mean_mask(self.network),
            seconds: sums.seconds + self.epoch_restarted.elapsed().as_secs_f64(),
        };
        self.training.history.push(record);
        self.progress = EpochProgress { epoch: sums.epoch + 1, ..EpochProgress::default() };
        self.epoch_restarted = Instant::now();

        let watched = if self.task.validation.is_empty() { record.train_elbo } else { record.validation_elbo };
        if let Some(name) = self.network.parameters.first_non_finite() {
            let tensor = format!("parameter `{name}`");
            self.fail(NonFinite { epoch: record.epoch, step: sums.step, tensor });
            return Ok(Advance::Epoch(record));
        }
        self.last_good.take(self.network);
        if self.stopping.improves(watched) {
            self.best.take(self.network);
        }
        if self.stopping.should_stop() {
            if !self.stopping.best.is_finite() {
                let tensor = "the ELBO of the cells that validate".to_owned();
                self.fail(NonFinite { epoch: record.epoch, step: sums.step, tensor });
                return Ok(Advance::Epoch(record));
            }
            self.training.stop_reason = StopReason::EarlyStopping;
            self.ended = true;
        }
        if self.phases.is_some() {
            self.end_epoch_of_phase();
            return Ok(Advance::Epoch(record));
        }
        let settings = self.task.settings;
        let rotates_after = |share: f64| (share * settings.epochs as f64).round() as usize == record.epoch;
        if settings.prune_masks_below > 0.0 && !self.ended && ROTATE_AFTER.into_iter().any(rotates_after) {
            rotate_and_prune(self.network, settings.prune_masks_below);
        }
        Ok(Advance::Epoch(record))
    }

    /// Says what is due after an epoch of a training that finds the graph.
    fn end_epoch_of_phase(&mut self) {
        let (settings, epoch) = (self.task.settings, self.progress.epoch);
        let Some(phases) = &mut self.phases else { return };
        phases.due = match phases.sparse_from {
            None if self.ended || epoch >= settings.dense_epochs => {
                phases.sparse_from = Some(epoch);
                self.ended = false;
                self.training.stop_reason = StopReason::EpochLimit;
                Due::FirstTurn
            }
            None => Due::Nothing,
            Some(_) if self.ended || epoch >= settings.epochs => Due::LastTurn,
            Some(from) => {
                let (done, all) = (epoch - from, settings.epochs - from);
                let is_turn = (1..=LATER_TURNS).any(|i| done == i * all / (LATER_TURNS + 1));
                match (is_turn, done % RENEWED_EVERY) {
                    (true, _) => Due::Turn,
                    (false, 0) => Due::Evidence,
                    _ => Due::Nothing,
                }
            }
        };
        if matches!(phases.due, Due::FirstTurn | Due::LastTurn)
            && settings.keep == KeepEpoch::Best
            && self.stopping.best.is_finite()
        {
            self.best.restore(self.network);
        }
    }

    /// Does what is due: turns the latents, weighs the evidence of every edge.
    fn identify(&mut self, team: &Team, due: Due) -> Result<Advance> {
        let TrainingTask { data, train, settings, .. } = self.task;
        // What it holds in memory makes room.
        self.minibatches = None;
        let workspace = &mut self.evaluation;
        let mut inference = Inference { team, network: &*self.network, data, workspace };
        let found = inference.intervention_effects(train)?;
        let seed = settings.seed.wrapping_add(self.progress.epoch as u64);
        // Nothing has changed so far, and nothing below can fail.
        if due == Due::LastTurn {
            self.last_turn(team, found, seed)?;
        } else if identification::identify(team, self.network, found, due.starts(), due != Due::Evidence, seed) {
            self.adam = Adam::new(&self.network.parameters);
        }
        if due == Due::FirstTurn {
            self.fix_edges();
            self.stopping = EarlyStopping::new(settings.patience);
        }
        self.last_good.take(self.network);
        if due == Due::LastTurn {
            self.best.take(self.network);
            self.ended = true;
        }
        if let Some(phases) = &mut self.phases {
            phases.due = Due::Nothing;
        }
        Ok(Advance::Step)
    }

    /// Weighs edges along the present axes and along turned ones, and keeps the turn if cells are described as well: no step follows in which
    /// posteriors could adapt to it.
    ///
    /// # Errors
    /// Counts on disk that cannot be read; the network is then as before.
    fn last_turn(&mut self, team: &Team, found: InterventionEffects, seed: u64) -> Result<()> {
        let TrainingTask { data, train, validation, objective, settings } = self.task;
        let cells = if validation.is_empty() { train } else { validation };
        let before = Snapshot::of(self.network);
        let mut bound = |network: &Network<R>| -> Result<f64> {
            let mut inference = Inference { team, network, data, workspace: &mut self.evaluation };
            Ok(inference.elbo(cells, objective, settings.seed)?.total)
        };
        identification::identify(team, self.network, found.clone(), 0, true, seed);
        let along_present = Snapshot::of(self.network);
        let bounds = bound(self.network).and_then(|present| {
            before.restore(self.network);
            let turned = identification::identify(team, self.network, found, Due::LastTurn.starts(), true, seed);
            Ok((present, if turned { bound(self.network)? } else { f64::INFINITY }))
        });
        match bounds {
            Ok((present, turned)) if turned <= present => Ok(()),
            Ok(_) => {
                along_present.restore(self.network);
                Ok(())
            }
            Err(error) => {
                before.restore(self.network);
                Err(error)
            }
        }
    }

    /// From now on shifts, as masks, are set by the evidence alone.
    fn fix_edges(&mut self) {
        let tensors = &self.network.tensors;
        self.trained = self.network.all_but(tensors.shift.iter().chain(&tensors.mask_logit));
    }

    /// Ends the training at a value that is not finite, with the last good weights.
    fn fail(&mut self, non_finite: NonFinite) {
        self.training.non_finite = Some(non_finite);
        self.training.stop_reason = StopReason::NonFinite;
        self.last_good.restore(self.network);
        self.ended = true;
    }

    /// How the training has gone so far.
    pub fn so_far(&self) -> Training {
        let seconds = self.training.seconds + self.restarted.elapsed().as_secs_f64();
        Training { seconds, ..self.training.clone() }
    }

    /// Ends the training; the network then holds the weights that are kept.
    pub fn finish(self) -> Training {
        if self.task.settings.keep == KeepEpoch::Best && self.stopping.best.is_finite() {
            self.best.restore(self.network);
        }
        let seconds = self.training.seconds + self.restarted.elapsed().as_secs_f64();
        Training { seconds, ..self.training }
    }
}

/// Trains `network`, and tells the observer of every epoch.
///
/// # Errors
/// Counts on disk that cannot be read; the network then holds the state after the last epoch that was complete.
pub fn train<R: Real>(
    team: &Team,
    network: &mut Network<R>,
    task: TrainingTask<'_>,
    observer: &mut dyn Observer,
) -> Result<Training> {
    let mut trainer = Trainer::new(network, task);
    loop {
        match trainer.advance(team) {
            Ok(Advance::Step) => {}
            Ok(Advance::Epoch(record)) => observer.epoch(&record),
            Ok(Advance::Ended) => return Ok(trainer.finish()),
            Err(error) => {
                trainer.last_good.restore(trainer.network);
                return Err(error);
            }
        }
    }
}

fn mean_mask<R: Real>(network: &Network<R>) -> f64 {
    network.prior().probabilities().map_or(1.0, |mask| mask.iter().map(|m| m.to_f64()).sum::<f64>() / mask.len() as f64)
}
