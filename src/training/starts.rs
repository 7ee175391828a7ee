//! Training from several starting values, of which the best is kept: the loss has many minima, and chance decides in which of them
//! a training ends. `docs/recipe.md` shows what this gains.

use serde::Serialize;

use crate::checkpoint::ResumableRun;
use crate::checkpoint::encoding::{ByteReader, DecodeError, Encode, encode_fields};
use crate::error::Result;
use crate::model::network::Network;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::training::observer::{FIRST_TRAINING, Observer};
use crate::training::stage::{advance_while, train_stage};
use crate::training::trainer::{Trainer, Training, TrainingSettings, TrainingTask};

/// Most trainings from different starting values in one run.
pub const MOST_STARTS: usize = 10;

/// Name of the training from a starting value, as a stage.
fn training_from(start: usize) -> String {
    match start {
        0 => FIRST_TRAINING.to_owned(),
        start => format!("training from start {}", start + 1),
    }
}

/// The stage of all trials.
const TRIALS: &str = "trials";

/// A trial is judged by the last one in so many of its epochs.
const JUDGED: usize = 10;

/// Starting values, of which the best is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starts {
    /// How many.
    pub n: usize,
    /// Epochs that each is trained for before the best continues; `None`: each is trained to its end.
    pub trial_epochs: Option<usize>,
}

/// The settings of the start of number `start`; they differ in the seed.
fn settings_of(first: &TrainingSettings, start: usize) -> TrainingSettings {
    // Far from the seeds that people give to other runs.
    let seed = first.seed.wrapping_add((start as u64) << 40);
    TrainingSettings { seed, ..first.clone() }
}

/// Figures of trainings from several starting values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StartsMetrics {
    /// Validation ELBO of the epoch that each training keeps, as in its history, or that of its trial: the mean over the last tenth
    /// of the epochs; none where it ended in values that are not finite.
    pub elbo_validation: Vec<Option<f64>>,
    /// Epochs of each trial; none where every start was trained to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial_epochs: Option<usize>,
    /// Number of the training that was kept, from 0.
    pub kept: usize,
}

/// Trains from several starting values, each with a network made by `new_network` from its seed, and keeps the training with the
/// lowest validation ELBO, the first of equals. `task` is that of the first start. The training's seconds and cells are those of all
/// together.
///
/// # Errors
/// As [`ResumableRun::checkpoint_if_due`]; counts on disk that cannot be read.
pub fn train_from_starts<R: Real>(
    run: &mut ResumableRun<'_>,
    team: &Team,
    task: TrainingTask<'_>,
    starts: Starts,
    new_network: impl Fn(u64) -> Network<R>,
    observer: &mut dyn Observer,
) -> Result<(Network<R>, Training, Option<StartsMetrics>)> {
    let (network, training, metrics) = match starts.trial_epochs {
        Some(epochs) => train_the_best(run, team, task, (starts.n, epochs), new_network, observer)?,
        None => train_all(run, team, task, starts.n, new_network, observer)?,
    };
    Ok((network, training, (starts.n > 1).then_some(metrics)))
}

fn train_all<R: Real>(
    run: &mut ResumableRun<'_>,
    team: &Team,
    task: TrainingTask<'_>,
    n: usize,
    new_network: impl Fn(u64) -> Network<R>,
    observer: &mut dyn Observer,
) -> Result<(Network<R>, Training, StartsMetrics)> {
    let mut kept: Option<(f64, usize, Network<R>, Training)> = None;
    let (mut seconds, mut cells_passed) = (0.0, 0);
    let mut elbo_validation = Vec::new();
    for i in 0..n {
        let settings = &settings_of(task.settings, i);
        let mut network = new_network(settings.seed);
        let task = TrainingTask { settings, ..task };
        let training = train_stage(run, &training_from(i), team, &mut network, task, None, observer)?;
        seconds += training.seconds;
        cells_passed += training.cells_passed;
        let elbo = training.kept_elbo(settings.keep).filter(|_| training.non_finite.is_none());
        elbo_validation.push(elbo);
        let elbo = elbo.unwrap_or(f64::INFINITY);
        if kept.as_ref().is_none_or(|(lowest, ..)| elbo < *lowest) {
            kept = Some((elbo, i, network, training));
        }
    }
    let (_, i, network, training) = kept.expect("at least one start");
    let metrics = StartsMetrics { elbo_validation, trial_epochs: None, kept: i };
    Ok((network, Training { seconds, cells_passed, ..training }, metrics))
}

/// How a start did in its first epochs.
#[derive(Debug, Clone, PartialEq)]
struct Trial {
    /// Mean validation ELBO of the last tenth of its epochs; none where a value was not finite.
    elbo: Option<f64>,
    seconds: f64,
    cells_passed: usize,
}

/// The trials so far.
#[derive(Debug, Default, PartialEq)]
struct Trials {
    done: Vec<Trial>,
    /// Index of the best.
    best: usize,
    /// Where its training stands, as saved by [`Trainer::save`].
    state: Vec<u8>,
}

encode_fields! {
    Trial { elbo, seconds, cells_passed }
    Trials { done, best, state }
}

impl Trials {
    fn add(&mut self, trial: Trial, state: Vec<u8>) {
        let elbo = |trial: &Trial| trial.elbo.unwrap_or(f64::INFINITY);
        if self.done.get(self.best).is_none_or(|best| elbo(&trial) < elbo(best)) {
            (self.best, self.state) = (self.done.len(), state);
        }
        self.done.push(trial);
    }
}

fn train_the_best<R: Real>(
    run: &mut ResumableRun<'_>,
    team: &Team,
    task: TrainingTask<'_>,
    (n, epochs): (usize, usize),
    new_network: impl Fn(u64) -> Network<R>,
    observer: &mut dyn Observer,
) -> Result<(Network<R>, Training, StartsMetrics)> {
    let trials = try_all(run, team, task, (n, epochs), &new_network, observer)?;
    let settings = &settings_of(task.settings, trials.best);
    let mut network = new_network(settings.seed);
    let task = TrainingTask { settings, ..task };
    let training = train_stage(run, FIRST_TRAINING, team, &mut network, task, Some(&trials.state), observer)?;
    let others = || trials.done.iter().enumerate().filter(|(i, _)| *i != trials.best).map(|(_, trial)| trial);
    let seconds = training.seconds + others().map(|trial| trial.seconds).sum::<f64>();
    let cells_passed = training.cells_passed + others().map(|trial| trial.cells_passed).sum::<usize>();
    let elbo_validation = trials.done.iter().map(|trial| trial.elbo).collect();
    let metrics = StartsMetrics { elbo_validation, trial_epochs: Some(epochs), kept: trials.best };
    Ok((network, Training { seconds, cells_passed, ..training }, metrics))
}

/// Trains every start for `epochs` epochs, as one stage of the run.
fn try_all<R: Real>(
    run: &mut ResumableRun<'_>,
    team: &Team,
    task: TrainingTask<'_>,
    (n, epochs): (usize, usize),
    new_network: impl Fn(u64) -> Network<R>,
    observer: &mut dyn Observer,
) -> Result<Trials> {
    if let Some(trials) = run.saved_result(TRIALS, Trials::decode)? {
        return Ok(trials);
    }
    let load = |input: &mut ByteReader<'_>| -> std::result::Result<_, DecodeError> {
        let begun = (Trials::decode(input)?, Vec::<u8>::decode(input)?);
        input.end().map(|()| begun)
    };
    let (mut trials, mut under_way) = match run.saved_state(TRIALS, load)? {
        Some((trials, state)) => (trials, Some(state)),
        None => (Trials::default(), None),
    };
    for i in trials.done.len()..n {
        let settings = &settings_of(task.settings, i);
        let mut network = new_network(settings.seed);
        let mut trainer = Trainer::new(&mut network, TrainingTask { settings, ..task });
        if let Some(state) = under_way.take() {
            trainer.load(&mut ByteReader::new(&state)).map_err(|damage| run.damaged(TRIALS, damage))?;
        }
        observer.stage(&format!("trial of start {}", i + 1), epochs, task.train.len());
        let wanted = |trainer: &Trainer<'_, R>| trainer.position().0 < epochs;
        let tried = advance_while(run, TRIALS, team, &mut trainer, observer, wanted, |trainer, out| {
            trials.encode(out);
            let mut state = Vec::new();
            trainer.save(&mut state);
            state.encode(out);
        });
        observer.stage_ended();
        tried?;
        let mut state = Vec::new();
        trainer.save(&mut state);
        let training = trainer.so_far();
        let judged = epochs.div_ceil(JUDGED);
        let elbo = training.mean_elbo(judged).filter(|_| training.non_finite.is_none());
        trials.add(Trial { elbo, seconds: training.seconds, cells_passed: training.cells_passed }, state);
    }
    run.store_result(TRIALS, |out| trials.encode(out))?;
    Ok(trials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_trial_is_kept_the_first_of_equals() {
        let mut trials = Trials::default();
        for (i, elbo) in [None, Some(320.0), Some(319.5), Some(319.5), None, Some(322.0)].into_iter().enumerate() {
            trials.add(Trial { elbo, seconds: 1.0, cells_passed: i }, vec![i as u8]);
        }
        assert_eq!((trials.best, &trials.state[..], trials.done.len()), (2, &[2u8][..], 6));
        let mut nothing = Trials::default();
        (0..3).for_each(|i| nothing.add(Trial { elbo: None, seconds: 1.0, cells_passed: i }, vec![i as u8]));
        assert_eq!((nothing.best, &nothing.state[..]), (0, &[0u8][..]));
    }
}
