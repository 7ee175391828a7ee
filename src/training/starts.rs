//! Training from several starting values, of which one is kept: the loss has many minima, and chance decides in which of them a
//! training ends. `docs/recipe.md` shows what this brings.

use crate::checkpoint::ResumableRun;
use crate::checkpoint::encoding::{ByteReader, DecodeError, Encode, encode_fields};
use crate::data::dataset::Dataset;
use crate::display::progress::{Progress, ProgressKind};
use crate::error::Result;
use crate::evaluation::held_out_protocol::{finish_trained, load_trained};
use crate::evaluation::metrics::StartsMetrics;
use crate::model::network::Network;
use crate::model::objective::Objective;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::settings::MOST_STARTS;
use crate::system::interruption::Boundary;
use crate::training::trainer::{Advance, Trainer, Training, TrainingSettings, train_in};

/// Names of the trainings as stages, one for each starting value.
const TRAINING: [&str; MOST_STARTS] = [
    "training",
    "training from start 2",
    "training from start 3",
    "training from start 4",
    "training from start 5",
    "training from start 6",
    "training from start 7",
    "training from start 8",
    "training from start 9",
    "training from start 10",
];

/// Names of their trials in progress reports.
const TRIAL: [&str; MOST_STARTS] = [
    "trial of start 1",
    "trial of start 2",
    "trial of start 3",
    "trial of start 4",
    "trial of start 5",
    "trial of start 6",
    "trial of start 7",
    "trial of start 8",
    "trial of start 9",
    "trial of start 10",
];

/// The stage of all trials.
const TRIALS: &str = "trials";

/// A trial is judged by the last epochs of so many.
const JUDGED: usize = 10;

/// What every start is trained on, and how.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The cells.
    pub data: &'a Dataset,
    /// Those that train.
    pub train: &'a [usize],
    /// Those that validate.
    pub validation: &'a [usize],
    /// What is minimised.
    pub objective: &'a Objective,
    /// Settings of the first start; the others differ in the seed.
    pub settings: &'a TrainingSettings,
    /// How progress is shown.
    pub progress: ProgressKind<'a>,
}

impl Start<'_> {
    /// The settings of the start of number `start`.
    fn settings_of(&self, start: usize) -> TrainingSettings {
        // Far from the seeds that people give to other runs.
        let seed = self.settings.seed.wrapping_add((start as u64) << 40);
        TrainingSettings { seed, ..self.settings.clone() }
    }
}

/// Trains from `n` starting values, each with a network made by `new_network` from its seed, and keeps the training with the lowest
/// validation ELBO, the first of equals. With `trial_epochs` all are trained for so many epochs, and only the best goes on. The
/// training's seconds and cells are those of all together.
///
/// # Errors
/// As [`ResumableRun::checkpoint_if_due`]; counts on disk that cannot be read.
pub fn train_from_starts<R: Real>(
    run: &mut ResumableRun<'_>,
    team: &Team,
    start: Start<'_>,
    n: usize,
    trial_epochs: Option<usize>,
    new_network: impl Fn(u64) -> Network<R>,
) -> Result<(Network<R>, Training, Option<StartsMetrics>)> {
    let (network, training, metrics) = match trial_epochs {
        Some(epochs) => train_the_best(run, team, start, n, epochs, new_network)?,
        None => train_all(run, team, start, n, new_network)?,
    };
    Ok((network, training, (n > 1).then_some(metrics)))
}

fn train_all<R: Real>(
    run: &mut ResumableRun<'_>,
    team: &Team,
    start: Start<'_>,
    n: usize,
    new_network: impl Fn(u64) -> Network<R>,
) -> Result<(Network<R>, Training, StartsMetrics)> {
    let mut kept: Option<(f64, usize, Network<R>, Training)> = None;
    let (mut seconds, mut cells_passed) = (0.0, 0);
    let mut elbo_validation = Vec::new();
    for (i, stage) in TRAINING.into_iter().enumerate().take(n) {
        let settings = start.settings_of(i);
        let mut network = new_network(settings.seed);
        let training = train_one(run, team, start, stage, &settings, &mut network, None)?;
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

/// Takes `network` to the end of its training, from its trial if there was one, unless the run holds the result.
fn train_one<R: Real>(
    run: &mut ResumableRun<'_>,
    team: &Team,
    start: Start<'_>,
    stage: &'static str,
    settings: &TrainingSettings,
    network: &mut Network<R>,
    trial: Option<&[u8]>,
) -> Result<Training> {
    if let Some(training) = load_trained(run, stage, network)? {
        return Ok(training);
    }
    let name = if stage == TRAINING[0] { "" } else { stage };
    let mut progress = Progress::of_stage(start.progress, name, settings.epochs, start.train.len());
    let mut trainer = Trainer::new(network, start.data, start.train, start.validation, start.objective, settings);
    if let Some(state) = trial {
        trainer.load(&mut ByteReader::new(state)).map_err(|damage| run.damaged(stage, damage))?;
    }
    let training = train_in(run, stage, team, trainer, |record| progress.epoch(record));
    progress.finish();
    let training = training?;
    finish_trained(run, stage, network, &training)?;
    Ok(training)
}

/// A start that was trained for the first epochs.
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
    /// Number of the best.
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
    start: Start<'_>,
    n: usize,
    epochs: usize,
    new_network: impl Fn(u64) -> Network<R>,
) -> Result<(Network<R>, Training, StartsMetrics)> {
    let trials = try_all(run, team, start, n, epochs, &new_network)?;
    let settings = start.settings_of(trials.best);
    let mut network = new_network(settings.seed);
    let training = train_one(run, team, start, TRAINING[0], &settings, &mut network, Some(&trials.state))?;
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
    start: Start<'_>,
    n: usize,
    epochs: usize,
    new_network: impl Fn(u64) -> Network<R>,
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
    for (i, name) in TRIAL.into_iter().enumerate().take(n).skip(trials.done.len()) {
        let settings = start.settings_of(i);
        let mut network = new_network(settings.seed);
        let mut trainer =
            Trainer::new(&mut network, start.data, start.train, start.validation, start.objective, &settings);
        if let Some(state) = under_way.take() {
            trainer.load(&mut ByteReader::new(&state)).map_err(|damage| run.damaged(TRIALS, damage))?;
        }
        let mut progress = Progress::of_stage(start.progress, name, epochs, start.train.len());
        let tried = try_one(run, team, &mut trainer, &trials, epochs, &mut progress);
        progress.finish();
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

/// Takes a training to the end of its trial.
fn try_one<R: Real>(
    run: &mut ResumableRun<'_>,
    team: &Team,
    trainer: &mut Trainer<'_, R>,
    before: &Trials,
    epochs: usize,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let save = |trainer: &Trainer<'_, R>, out: &mut Vec<u8>| {
        before.encode(out);
        let mut state = Vec::new();
        trainer.save(&mut state);
        state.encode(out);
    };
    while trainer.position().0 < epochs {
        let boundary = match trainer.advance(team) {
            Ok(Advance::Step) => Boundary::Step,
            Ok(Advance::Epoch(record)) => {
                progress.epoch(&record);
                Boundary::Epoch
            }
            Ok(Advance::Ended) => break,
            Err(error) => {
                run.save_now(TRIALS, |out| save(trainer, out))?;
                return Err(error);
            }
        };
        run.checkpoint_if_due(TRIALS, boundary, |out| save(trainer, out))?;
    }
    Ok(())
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
