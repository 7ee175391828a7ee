//! A training as a stage of a resumable run: its result is read if the run holds it, and it goes on from where it was
//! interrupted.

use crate::checkpoint::ResumableRun;
use crate::checkpoint::encoding::{ByteReader, DecodeError, Encode, decode_values, encode_values};
use crate::error::Result;
use crate::model::network::Network;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::system::interruption::Boundary;
use crate::training::observer::Observer;
use crate::training::trainer::{Advance, Trainer, Training, TrainingTask};

/// Parameters and running statistics of a network at some time.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot<R> {
    parameters: Vec<R>,
    running: Vec<R>,
}

impl<R: Real> Snapshot<R> {
    pub(crate) fn of(network: &Network<R>) -> Self {
        Self { parameters: network.parameters.values.to_vec(), running: network.running.values.to_vec() }
    }

    pub(crate) fn take(&mut self, network: &Network<R>) {
        self.parameters.copy_from_slice(&network.parameters.values);
        self.running.copy_from_slice(&network.running.values);
    }

    pub(crate) fn restore(&self, network: &mut Network<R>) {
        network.parameters.values.copy_from_slice(&self.parameters);
        network.running.values.copy_from_slice(&self.running);
    }

    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        let Self { parameters, running } = self;
        encode_values(parameters, out);
        encode_values(running, out);
    }

    /// Reads a snapshot in the place of this one, which must be of the same network.
    pub(crate) fn load(&mut self, input: &mut ByteReader<'_>) -> Result<(), DecodeError> {
        let Self { parameters, running } = self;
        decode_values(parameters, input)?;
        decode_values(running, input)
    }
}

/// Takes `network` to the end of a training, the stage `stage` of a run. With `trial`, a state written by
/// [`Trainer::save`], a training that was not interrupted before begins there.
///
/// # Errors
/// As [`train_in`].
pub(crate) fn train_stage<R: Real>(
    run: &mut ResumableRun<'_>,
    stage: &str,
    team: &Team,
    network: &mut Network<R>,
    task: TrainingTask<'_>,
    trial: Option<&[u8]>,
    observer: &mut dyn Observer,
) -> Result<Training> {
    let saved = run.saved_result(stage, |input| {
        let mut trained = Snapshot::of(network);
        trained.load(input)?;
        trained.restore(network);
        Training::decode(input)
    })?;
    if let Some(training) = saved {
        return Ok(training);
    }
    let mut trainer = Trainer::new(network, task);
    if let Some(state) = trial {
        trainer.load(&mut ByteReader::new(state)).map_err(|error| run.damaged(stage, error))?;
    }
    let training = train_in(run, stage, team, trainer, observer)?;
    run.store_result(stage, |out| {
        Snapshot::of(network).save(out);
        training.encode(out);
    })?;
    Ok(training)
}

/// Takes a new training to its end as the stage `stage` of a run, from where it was interrupted, and tells the observer.
///
/// # Errors
/// As [`ResumableRun::checkpoint_if_due`]; counts on disk that cannot be read, once the state before them is saved.
pub(crate) fn train_in<R: Real>(
    run: &mut ResumableRun<'_>,
    stage: &str,
    team: &Team,
    mut trainer: Trainer<'_, R>,
    observer: &mut dyn Observer,
) -> Result<Training> {
    let TrainingTask { train, settings, .. } = trainer.task();
    observer.stage(stage, settings.epochs, train.len());
    let ended = run.saved_state(stage, |input| trainer.load(input)).and_then(|_| {
        let save = |trainer: &Trainer<'_, R>, out: &mut Vec<u8>| trainer.save(out);
        advance_while(run, stage, team, &mut trainer, observer, |_| true, save)
    });
    observer.stage_ended();
    ended.map(|()| trainer.finish())
}

/// Advances a training as long as it is not over and `wanted`. Between any two steps its state, which `save` writes, is
/// saved if that is due.
///
/// # Errors
/// As [`train_in`].
pub(crate) fn advance_while<R: Real>(
    run: &mut ResumableRun<'_>,
    stage: &str,
    team: &Team,
    trainer: &mut Trainer<'_, R>,
    observer: &mut dyn Observer,
    wanted: impl Fn(&Trainer<'_, R>) -> bool,
    save: impl Fn(&Trainer<'_, R>, &mut Vec<u8>),
) -> Result<()> {
    while wanted(trainer) {
        let boundary = match trainer.advance(team) {
            Ok(Advance::Step) => Boundary::Step,
            Ok(Advance::Epoch(record)) => {
                observer.epoch(&record);
                Boundary::Epoch
            }
            Ok(Advance::Ended) => break,
            Err(error) => {
                run.save_now(stage, |out| save(trainer, out))?;
                return Err(error);
            }
        };
        run.checkpoint_if_due(stage, boundary, |out| save(trainer, out))?;
    }
    Ok(())
}
