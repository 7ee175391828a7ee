//! A training as a stage of a resumable run: its result is read if the run holds it, else it continues from where it was
//! interrupted.

use crate::checkpoint::ResumableRun;
use crate::checkpoint::encoding::{ByteReader, Encode};
use crate::error::Result;
use crate::model::network::Network;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::system::interruption::Boundary;
use crate::training::observer::Observer;
use crate::training::snapshot::Snapshot;
use crate::training::trainer::{Advance, Trainer, Training, TrainingTask};

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
