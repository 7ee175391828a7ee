//! A training that is left at any step and taken up by another process, in miniature; and which checkpoints are taken
//! up.

use std::path::Path;
use std::time::Duration;

use crate::checkpoint::encoding::Encode;
use crate::checkpoint::*;
use crate::data::simulate::{Simulation, simulate};
use crate::model::architecture::Architecture;
use crate::model::network::Network;
use crate::model::objective::{Objective, Penalty};
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::settings::RawConfig;
use crate::system::interruption::Interval;
use crate::training::history::KeepEpoch;
use crate::training::schedule::Schedule;
use crate::training::trainer::{Advance, Trainer, Training, TrainingSettings, train};

fn screen(seed: u64) -> Dataset {
    let simulation = Simulation {
        n_interventions: 4,
        n_latents: 3,
        n_genes: 12,
        cells_per_intervention: 15,
        seed,
        ..Simulation::default()
    };
    simulate(&simulation).expect("a simulation").dataset
}

fn network<R: Real>(data: &Dataset) -> Network<R> {
    let architecture = Architecture { n_hidden: 8, ..Architecture::new(data.n_genes(), data.n_interventions(), 4) };
    Network::new(architecture, 3)
}

fn settings() -> TrainingSettings {
    TrainingSettings { warmup_epochs: 2, keep: KeepEpoch::Best, seed: 5, ..TrainingSettings::plain(3, 16) }
}

const OBJECTIVE: Objective =
    Objective { penalty: Penalty::SpikeAndSlab { alpha: 4.0 }, beta: 1.0, scale_to_all_cells: true, n_cells: 50 };

/// All that a training leaves, but for its seconds, by bits: values that are not finite are compared too.
fn bits<R: Real>(network: &Network<R>, training: &Training) -> (Vec<u64>, Vec<u8>) {
    let values = network.parameters.values.iter().chain(&network.running.values);
    let mut training = Training { seconds: 0.0, ..training.clone() };
    training.history.iter_mut().for_each(|record| record.seconds = 0.0);
    let mut bytes = Vec::new();
    training.encode(&mut bytes);
    (values.map(|v| v.f64().to_bits()).collect(), bytes)
}

fn left_at_every_step<R: Real>(settings: &TrainingSettings) -> usize {
    let data = screen(1);
    // Not a multiple of the minibatch, and with a last one that is too small to be used.
    let (cells, validation): (Vec<usize>, Vec<usize>) = ((0..50).collect(), (50..60).collect());
    let mut whole = network::<R>(&data);
    let training = train(&Team::single(), &mut whole, &data, &cells, &validation, &OBJECTIVE, settings, |_| ())
        .expect("counts in memory");
    let expected = bits(&whole, &training);
    for steps in 0.. {
        let mut bytes = Vec::new();
        let ended = {
            let mut first = network::<R>(&data);
            let mut trainer = Trainer::new(&mut first, &data, &cells, &validation, &OBJECTIVE, settings);
            let ended =
                (0..steps).any(|_| trainer.advance(&Team::single()).expect("counts in memory") == Advance::Ended);
            trainer.save(&mut bytes);
            ended
        };
        let found = Team::with(1 + steps % 3, |team| {
            let mut second = network::<R>(&data);
            let mut trainer = Trainer::new(&mut second, &data, &cells, &validation, &OBJECTIVE, settings);
            trainer.load(&mut ByteReader::new(&bytes)).expect("the same training");
            while trainer.advance(team).expect("counts in memory") != Advance::Ended {}
            let training = trainer.finish();
            bits(&second, &training)
        });
        assert!(found == expected, "left after {steps} steps");
        if ended {
            return steps;
        }
    }
    unreachable!("trainings end")
}

#[test]
fn a_training_that_is_left_after_any_step_ends_with_the_same_bits() {
    // Three minibatches of 16 cells, of two more none, and the validation: four pieces an epoch, and the end.
    assert_eq!(left_at_every_step::<f32>(&settings()), 13);
    assert_eq!(left_at_every_step::<f64>(&TrainingSettings { schedule: Schedule::Cosine, ..settings() }), 13);
    let last = TrainingSettings { keep: KeepEpoch::Last, stream_offset: 1 << 24, ..settings() };
    assert_eq!(left_at_every_step::<f32>(&last), 13);
    // Steps so large that it gets worse, and stops early with weights of an earlier epoch.
    let mut early = TrainingSettings { patience: 2, epochs: 40, ..settings() };
    early.adam.learning_rate = 0.5;
    let steps = left_at_every_step::<f32>(&early);
    assert!(steps < 4 * 40 && steps % 4 == 1, "{steps}");
    // Steps so large that a value is no longer finite.
    early.adam.learning_rate = 1e30;
    left_at_every_step::<f32>(&early);
}

#[test]
fn the_state_of_another_training_is_refused() {
    let data = screen(1);
    let cells: Vec<usize> = (0..50).collect();
    let settings = settings();
    let mut small = network::<f32>(&data);
    let mut bytes = Vec::new();
    Trainer::new(&mut small, &data, &cells, &[], &OBJECTIVE, &settings).save(&mut bytes);
    let mut large = Network::<f32>::new(Architecture { n_hidden: 9, ..small.architecture.clone() }, 3);
    let mut trainer = Trainer::new(&mut large, &data, &cells, &[], &OBJECTIVE, &settings);
    assert!(trainer.load(&mut ByteReader::new(&bytes)).is_err());
    let mut trainer = Trainer::new(&mut small, &data, &cells, &[], &OBJECTIVE, &settings);
    assert!(trainer.load(&mut ByteReader::new(&bytes[..bytes.len() - 1])).is_err());
    bytes.push(0);
    assert!(trainer.load(&mut ByteReader::new(&bytes)).is_err());
}

fn config(epochs: i64) -> Config {
    let mut raw = RawConfig::default();
    raw.training.epochs = Some(epochs);
    Config::load(None, raw).expect("valid")
}

fn resumable(folder: &Path, config: &Config, data: &Dataset) -> ResumableRun<'static> {
    let schedule = SaveSchedule::new(Interval::Time(Duration::ZERO), None);
    ResumableRun::new(folder, config, data, schedule, ProgressKind::Silent, Instant::now()).expect("counts in memory")
}

/// Two checkpoints of the settings and data given: the newest after the stages a and b, the other after a.
fn checkpoints(folder: &Path, config: &Config, data: &Dataset) {
    let mut first = resumable(folder, config, data);
    first.store_result("a", |out| out.push(1)).expect("saved");
    first.store_result("b", |out| out.push(2)).expect("saved");
}

fn stages(run: &ResumableRun<'_>) -> Vec<String> {
    run.results.iter().map(|(name, _)| name.clone()).collect()
}

#[test]
fn a_checkpoint_of_other_settings_or_data_is_refused_with_the_reason() {
    let (config_, data) = (config(3), screen(1));
    let folder = tempfile::tempdir().expect("a folder");
    checkpoints(folder.path(), &config_, &data);
    let mut same = resumable(folder.path(), &config_, &data);
    same.resume(&config_, 1).expect("the same run");
    assert_eq!(stages(&same), ["a", "b"]);

    let refused = |config: &Config, data: &Dataset| {
        let error = resumable(folder.path(), config, data).resume(config, 1).expect_err("another run");
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let said = refused(&config(4), &data);
    assert!(said.contains("`epochs` is 3 there and 4 here") && said.contains("--overwrite"), "{said}");
    let said = refused(&Config { threads: Some(2), alpha: Some(2.0), ..config_.clone() }, &data);
    assert!(said.contains("`alpha` is not set there and 2.0 here"), "{said}");
    let said = refused(&config_, &screen(2));
    assert!(said.contains("other data") && said.contains("contents differ"), "{said}");
    let mut smaller = screen(1);
    smaller.gene_names.pop();
    let said = refused(&config_, &smaller);
    assert!(said.contains("other data") || said.contains("genes"), "{said}");
    // Where files lie, and how many threads there are, is indifferent.
    let threads = Config { threads: Some(7), ..config_.clone() };
    resumable(folder.path(), &threads, &data).resume(&threads, 7).expect("the same run");
}

#[test]
fn any_change_of_the_data_changes_their_checksum() {
    let whole = identity(&screen(1)).expect("in memory");
    assert_eq!(whole, identity(&Dataset { source: "elsewhere".to_owned(), ..screen(1) }).expect("in memory"));
    let changed: [fn(&mut Dataset); 6] = [
        |data| data.library[7] += 1.0,
        |data| data.gene_names[3].push('x'),
        |data| {
            data.cell_names = data.cell_names.select(&[&[1, 0], &(2..data.n_cells()).collect::<Vec<_>>()[..]].concat())
        },
        |data| data.intervention_names.swap(0, 1),
        |data| data.counts = data.counts.select(&(1..data.n_cells()).chain([0]).collect::<Vec<_>>()).into(),
        |data| data.truth.as_mut().expect("simulated").latents[0] += 1.0,
    ];
    for (i, change) in changed.into_iter().enumerate() {
        let mut data = screen(1);
        change(&mut data);
        assert_ne!(identity(&data).expect("in memory").checksum, whole.checksum, "change {i}");
    }
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let (config, data) = (config(3), screen(1));
    let folder = tempfile::tempdir().expect("a folder");
    let [newest, previous] = [file::CHECKPOINT, file::PREVIOUS].map(|name| folder.path().join(name));
    let mut nothing = resumable(folder.path(), &config, &data);
    nothing.resume(&config, 1).expect("nothing to resume is the beginning");
    assert!(stages(&nothing).is_empty());

    checkpoints(folder.path(), &config, &data);
    let mut bytes = std::fs::read(&newest).expect("a checkpoint");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&newest, &bytes).expect("written");
    let mut resumed = resumable(folder.path(), &config, &data);
    resumed.resume(&config, 1).expect("the one before");
    assert_eq!(stages(&resumed), ["a"]);
    assert_eq!(resumed.history().resumes.len(), 1);

    // Between its last two steps a write leaves only the one before.
    std::fs::remove_file(&newest).expect("removed");
    resumable(folder.path(), &config, &data).resume(&config, 1).expect("the one before");
    std::fs::write(&newest, b"something else").expect("written");
    std::fs::write(&previous, &bytes[..20]).expect("written");
    let said = resumable(folder.path(), &config, &data).resume(&config, 1).expect_err("both are bad");
    assert_eq!(said.exit_code(), 2);
    for part in ["no checkpoint of svae-cpu", "checkpoint.previous", "checksum", "--overwrite"] {
        assert!(said.to_string().contains(part), "{part}: {said}");
    }
}

#[test]
fn work_that_was_begun_is_not_lost_before_its_stage_asks_for_it() {
    let (config, data) = (config(3), screen(1));
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = resumable(folder.path(), &config, &data);
    first.store_result("a", |out| out.push(1)).expect("saved");
    first.checkpoint_if_due("b", Boundary::Step, |out| out.push(9)).expect("saved");

    let mut second = resumable(folder.path(), &config, &data);
    second.resume(&config, 1).expect("resumed");
    second.store_result("between", |out| out.push(3)).expect("saved");
    let mut third = resumable(folder.path(), &config, &data);
    third.resume(&config, 2).expect("resumed");
    assert_eq!(stages(&third), ["a", "between"]);
    assert_eq!(third.history().resumes.iter().map(|resume| resume.threads).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(third.saved_state("a", u8::decode).expect("readable"), None);
    assert_eq!(third.saved_state("b", u8::decode).expect("readable"), Some(9));
    assert_eq!(third.saved_state("b", u8::decode).expect("taken"), None);
    assert_eq!(third.saved_result("a", u8::decode).expect("readable"), Some(1));
    assert!(third.saved_result("a", u64::decode).is_err() && third.saved_result("a", |_| Ok(())).is_err());
}

#[test]
fn a_run_goes_on_when_a_checkpoint_cannot_be_written_and_keeps_the_last_one() {
    let (config, data) = (config(3), screen(1));
    let parent = tempfile::tempdir().expect("a folder");
    let [folder, away] = ["run", "away"].map(|name| parent.path().join(name));
    std::fs::create_dir(&folder).expect("a folder");
    let mut run = resumable(&folder, &config, &data);
    run.store_result("a", |out| out.push(1)).expect("saved");
    std::fs::rename(&folder, &away).expect("moved");
    run.checkpoint_if_due("b", Boundary::Step, |out| out.push(9)).expect("goes on");
    run.schedule = SaveSchedule::new(Interval::Epoch, Some(Instant::now()));
    let stopped = run.checkpoint_if_due("b", Boundary::Step, |out| out.push(9)).expect_err("stops");
    assert_eq!(stopped.exit_code(), 75);
    for part in ["the time limit", "could not be written", "is kept", "svae-cpu run --resume"] {
        assert!(stopped.to_string().contains(part), "{part}: {stopped}");
    }
    assert_eq!(
        file::read(&std::fs::read(away.join(file::CHECKPOINT)).expect("kept")).expect("whole").finished.len(),
        1
    );

    // Where nothing was ever saved, that is a failure.
    let mut run = resumable(&folder, &config, &data);
    run.schedule = SaveSchedule::new(Interval::Epoch, Some(Instant::now()));
    assert_eq!(run.checkpoint_if_due("b", Boundary::Step, |out| out.push(9)).expect_err("fails").exit_code(), 1);
}

#[test]
fn what_a_process_wants_is_understood_by_the_others() {
    let signals = [1, 10, 15].map(|number| Action::Stop(Cause::Signal(number)));
    for next in [Action::GoOn, Action::Save, Action::Stop(Cause::TimeLimit)].into_iter().chain(signals) {
        assert_eq!(wished(wish(next)), next);
        assert_eq!(wish(next) >= STOP, matches!(next, Action::Stop(_)));
    }
}
