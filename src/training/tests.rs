//! A training that is left at any step and taken up by another process, in miniature.

use crate::checkpoint::ResumableRun;
use crate::checkpoint::encoding::{ByteReader, Encode};
use crate::data::dataset::Dataset;
use crate::data::simulate::small_screen as screen;
use crate::model::architecture::Architecture;
use crate::model::network::Network;
use crate::model::objective::Objective;
use crate::model::prior::sparsity::Penalty;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::system::console::Silent;
use crate::training::history::{EpochRecord, KeepEpoch};
use crate::training::observer::Observer;
use crate::training::schedule::Schedule;
use crate::training::starts::{Starts, train_from_starts};
use crate::training::trainer::{Advance, Trainer, Training, TrainingSettings, TrainingTask, train};

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
    (values.map(|v| v.to_f64().to_bits()).collect(), bytes)
}

fn left_at_every_step<R: Real>(settings: &TrainingSettings) -> usize {
    let data = screen(1);
    // Not a multiple of the minibatch, and with a last one that is too small to be used.
    let (cells, validation): (Vec<usize>, Vec<usize>) = ((0..50).collect(), (50..60).collect());
    let mut whole = network::<R>(&data);
    let task = TrainingTask { data: &data, train: &cells, validation: &validation, objective: &OBJECTIVE, settings };
    let training = train(&Team::single(), &mut whole, task, &mut Silent).expect("counts in memory");
    let expected = bits(&whole, &training);
    for steps in 0.. {
        let mut bytes = Vec::new();
        let ended = {
            let mut first = network::<R>(&data);
            let mut trainer = Trainer::new(&mut first, task);
            let ended =
                (0..steps).any(|_| trainer.advance(&Team::single()).expect("counts in memory") == Advance::Ended);
            trainer.save(&mut bytes);
            ended
        };
        let found = Team::with(1 + steps % 3, |team| {
            let mut second = network::<R>(&data);
            let mut trainer = Trainer::new(&mut second, task);
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
    let task = TrainingTask { data: &data, train: &cells, validation: &[], objective: &OBJECTIVE, settings: &settings };
    let mut small = network::<f32>(&data);
    let mut bytes = Vec::new();
    Trainer::new(&mut small, task).save(&mut bytes);
    let mut large = Network::<f32>::new(Architecture { n_hidden: 9, ..small.architecture.clone() }, 3);
    let mut trainer = Trainer::new(&mut large, task);
    assert!(trainer.load(&mut ByteReader::new(&bytes)).is_err());
    let mut trainer = Trainer::new(&mut small, task);
    assert!(trainer.load(&mut ByteReader::new(&bytes[..bytes.len() - 1])).is_err());
    bytes.push(0);
    assert!(trainer.load(&mut ByteReader::new(&bytes)).is_err());
}

/// Writes down what it hears.
#[derive(Default)]
struct Heard(Vec<String>);

impl Observer for Heard {
    fn stage(&mut self, name: &str, epochs: usize, cells: usize) {
        self.0.push(format!("{name}: {epochs} epochs of {cells} cells"));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.0.push(format!("epoch {}", record.epoch));
    }

    fn stage_ended(&mut self) {
        self.0.push("ended".to_owned());
    }
}

#[test]
fn an_observer_hears_of_every_stage_and_epoch() {
    let data = screen(1);
    let (cells, settings) = ((0..50).collect::<Vec<usize>>(), TrainingSettings::plain(2, 16));
    let task = TrainingTask { data: &data, train: &cells, validation: &[], objective: &OBJECTIVE, settings: &settings };
    let training = ["training: 2 epochs of 50 cells", "epoch 1", "epoch 2", "ended"];
    let trial = |n: usize| [format!("trial of start {n}: 1 epochs of 50 cells"), "epoch 1".into(), "ended".into()];
    let heard = |starts: Starts| {
        let (mut heard, run) = (Heard::default(), &mut ResumableRun::unsaved());
        let new_network = |_| network::<f32>(&data);
        train_from_starts(run, &Team::single(), task, starts, new_network, &mut heard).expect("counts in memory");
        heard.0
    };
    assert_eq!(heard(Starts { n: 1, trial_epochs: None }), training);
    // The best trial goes on after its first epoch.
    let tried = [&trial(1)[..], &trial(2), &[training[0], training[2], training[3]].map(str::to_owned)].concat();
    assert_eq!(heard(Starts { n: 2, trial_epochs: Some(1) }), tried);
}
