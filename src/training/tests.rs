//! A training that is left at any step and taken up by another process, in miniature.

use crate::checkpoint::ResumableRun;
use crate::checkpoint::encoding::{ByteReader, Encode};
use crate::data::dataset::{Dataset, InterventionRows};
use crate::data::simulate::small_screen as screen;
use crate::model::architecture::{Architecture, LatentDistribution, MaskKind, Prior};
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
use std::sync::LazyLock;

fn architecture(data: &Dataset) -> Architecture {
    Architecture { n_hidden: 8, ..Architecture::new(data.n_genes(), data.n_interventions(), 4) }
}

fn network<R: Real>(data: &Dataset) -> Network<R> {
    Network::new(architecture(data), 3)
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
    let task = TrainingTask { data: &data, train: &cells, validation: &validation, objective: &OBJECTIVE, settings };
    pieces_of::<R>(task, || network(&data))
}

/// Leaves a training after each of its pieces, takes it up on another number of threads, and expects the same bits; returns the
/// number of pieces.
fn pieces_of<R: Real>(task: TrainingTask<'_>, network: impl Fn() -> Network<R> + Sync) -> usize {
    let mut whole = network();
    let training = train(&Team::single(), &mut whole, task, &mut Silent).expect("counts in memory");
    let expected = bits(&whole, &training);
    for steps in 0.. {
        let mut bytes = Vec::new();
        let ended = {
            let mut first = network();
            let mut trainer = Trainer::new(&mut first, task);
            let ended =
                (0..steps).any(|_| trainer.advance(&Team::single()).expect("counts in memory") == Advance::Ended);
            trainer.save(&mut bytes);
            ended
        };
        let found = Team::with(1 + steps % 3, |team| {
            let mut second = network();
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

/// Twelve epochs in which masks are integrated out, two of them dense: after these the first turn, later ones within the ten that
/// follow, the evidence between them, and the last turn.
fn with_turns() -> TrainingSettings {
    TrainingSettings { epochs: 14, dense_epochs: 2, ..settings() }
}

const INTEGRATED: Prior = Prior::Masked { kind: MaskKind::Integrated, temperature: 1.0 };
const UNPENALISED: Objective = Objective { penalty: Penalty::None, ..OBJECTIVE };

/// The pieces of a training on all of a screen but ten cells that validate, with masks integrated out.
fn pieces_with_turns<R: Real>(data: &Dataset, architecture: &Architecture, settings: &TrainingSettings) -> usize {
    let n = data.n_cells();
    let (cells, validation): (Vec<usize>, Vec<usize>) = ((0..n - 10).collect(), (n - 10..n).collect());
    let objective = &UNPENALISED;
    let task = TrainingTask { data, train: &cells, validation: &validation, objective, settings };
    pieces_of::<R>(task, || Network::new(Architecture { prior: INTEGRATED, ..architecture.clone() }, 3))
}

#[test]
fn a_training_with_turns_that_is_left_after_any_step_ends_with_the_same_bits() {
    let data = screen(1);
    let architecture = architecture(&data);
    // Four pieces an epoch as above; of 12 sparse epochs a turn after the 3rd, the 6th, the 9th and the last, the evidence after the
    // 10th; the first turn before them; the end.
    let expected = 14 * 4 + 4 + 1 + 1 + 1;
    assert_eq!(pieces_with_turns::<f32>(&data, &architecture, &with_turns()), expected);
    assert_eq!(pieces_with_turns::<f64>(&data, &architecture, &with_turns()), expected);
    let late = TrainingSettings { keep: KeepEpoch::Last, schedule: Schedule::LateCosine, ..with_turns() };
    assert_eq!(pieces_with_turns::<f32>(&data, &architecture, &late), expected);
    // Steps so large that both phases stop early, or that a value is no longer finite.
    for learning_rate in [0.5, 1e30] {
        let mut settings = TrainingSettings { patience: 2, epochs: 40, dense_epochs: 20, ..settings() };
        settings.adam.learning_rate = learning_rate;
        let pieces = pieces_with_turns::<f32>(&data, &architecture, &settings);
        assert!(pieces < 40 * 4, "{pieces}");
    }
}

#[test]
fn a_screen_that_leaves_nothing_to_turn_is_trained_on_all_the_same() {
    let data = screen(1);
    let architecture = architecture(&data);
    let expected = 14 * 4 + 4 + 1 + 1 + 1;
    // A softmax of latents has axes of its own, and a single latent has no other.
    let logistic = Architecture { latent_distribution: LatentDistribution::LogisticNormal, ..architecture.clone() };
    assert_eq!(pieces_with_turns::<f32>(&data, &logistic, &with_turns()), expected);
    assert_eq!(
        pieces_with_turns::<f32>(&data, &Architecture { n_latents: 1, ..architecture }, &with_turns()),
        expected
    );
}

/// The screen under other interventions, one row a cell.
fn under(data: &Dataset, n_interventions: usize, row: impl Fn(usize) -> Vec<(u32, f32)>) -> Dataset {
    let mut interventions = InterventionRows::default();
    (0..data.n_cells()).for_each(|n| interventions.push(&row(n)));
    let intervention_names = (0..n_interventions).map(|a| format!("intervention_{a}")).collect();
    Dataset { interventions, intervention_names, truth: None, ..data.clone() }
}

#[test]
fn interventions_of_every_kind_are_trained_on_with_turns() {
    let data = screen(1);
    let screens = [
        // Combinations, doses (of 0 and below 0 too), one received twice, controls.
        under(&data, 5, |n| match n % 6 {
            0 => vec![],
            1 => vec![(0, 1.0), (1, 1.0)],
            2 => vec![(1, 0.5), (2, 2.0), (3, -1.0)],
            3 => vec![(2, 1.0), (2, 1.0)],
            4 => vec![(3, 0.0)],
            _ => vec![(n as u32 % 5, 1.0)],
        }),
        // One intervention, with controls and without.
        under(&data, 1, |n| if n % 2 == 0 { vec![(0, 1.0)] } else { vec![] }),
        under(&data, 1, |_| vec![(0, 1.0)]),
        // As many as there are cells.
        under(&data, 60, |n| vec![(n as u32, 1.0)]),
        // None at all: control cells alone.
        under(&data, 2, |_| vec![]),
    ];
    for (i, data) in screens.iter().enumerate() {
        let network = || Network::<f32>::new(Architecture { prior: INTEGRATED, ..architecture(data) }, 3);
        assert!(pieces_of(task_without_validation(data), network) > 14 * 4, "{i}");
        let mut trained = network();
        let training =
            train(&Team::single(), &mut trained, task_without_validation(data), &mut Silent).expect("counts in memory");
        assert_eq!((training.non_finite, training.history.len()), (None, 14), "{i}");
        assert_eq!(trained.parameters.first_non_finite(), None, "{i}");
        let probabilities = trained.prior().probabilities().expect("masks");
        assert!(probabilities.iter().all(|q| (0.0..=1.0).contains(q)), "{i}: {probabilities:?}");
    }
}

/// Every cell of a screen trains, and none validates.
fn task_without_validation(data: &Dataset) -> TrainingTask<'_> {
    static CELLS: LazyLock<Vec<usize>> = LazyLock::new(|| (0..60).collect());
    static SETTINGS: LazyLock<TrainingSettings> = LazyLock::new(with_turns);
    TrainingTask { data, train: &CELLS, validation: &[], objective: &UNPENALISED, settings: &SETTINGS }
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
