//! The same bytes on any number of threads, and whether gradient and optimiser run one after the other or together.

use svae_cpu::commands::bench::{Shape, architecture};
use svae_cpu::data::dataset::Dataset;
use svae_cpu::data::minibatch::Batch;
use svae_cpu::inference::bounds::BoundsRequest;
use svae_cpu::inference::{Inference, evaluation_workspace};
use svae_cpu::model::adam::{Adam, AdamSettings};
use svae_cpu::model::architecture::{Architecture, MaskKind, Prior};
use svae_cpu::model::network::Network;
use svae_cpu::model::noise::Noise;
use svae_cpu::model::objective::Objective;
use svae_cpu::model::parameters::Buffer;
use svae_cpu::model::particles::Samples;
use svae_cpu::model::pass::StepInput;
use svae_cpu::model::prior::sparsity::Penalty;
use svae_cpu::model::step::Optimizer;
use svae_cpu::model::workspace::Workspace;
use svae_cpu::numerics::real::Real;
use svae_cpu::parallel::team::Team;
use svae_cpu::system::console::Silent;
use svae_cpu::training::schedule::Schedule;
use svae_cpu::training::trainer::{TrainingSettings, TrainingTask, train};

/// Bits of everything that a short training leaves: parameters, running statistics, losses, latents, bounds.
fn bits<R: Real>(shape: Shape, masks: MaskKind, threads: usize) -> Vec<u64> {
    let data = shape.dataset().unwrap();
    // Not a multiple of the minibatch: the last one has its own blocks.
    let cells: Vec<usize> = (0..1_000).map(|n| n * 7).collect();
    let validation: Vec<usize> = (0..300).map(|n| n * 7 + 1).collect();
    let prior = Prior::Masked { kind: masks, temperature: 1.0 };
    let mut network = Network::<R>::new(Architecture { prior, ..architecture(&data) }, 3);
    let objective = Objective {
        penalty: match masks {
            MaskKind::Integrated => Penalty::None,
            MaskKind::Hard | MaskKind::Soft => Penalty::SpikeAndSlab { alpha: 20.0 },
        },
        beta: 1.0,
        scale_to_all_cells: true,
        n_cells: cells.len(),
    };
    let settings =
        TrainingSettings { warmup_epochs: 2, schedule: Schedule::Cosine, seed: 3, ..TrainingSettings::plain(2, 128) };
    // Masks that are integrated out: the first turn between the two epochs, the last one after them.
    assert_eq!(settings.dense_epochs, 1);
    Team::with(threads, |team| {
        let mut bits = Vec::new();
        let task = TrainingTask {
            data: &data,
            train: &cells,
            validation: &validation,
            objective: &objective,
            settings: &settings,
        };
        let training = train(team, &mut network, task, &mut Silent).expect("in memory");
        for record in &training.history {
            bits.extend([record.train_loss, record.validation_elbo, record.mean_mask].map(f64::to_bits));
        }
        let mut workspace = evaluation_workspace(&network, &data);
        let mut inference = Inference { team, network: &network, data: &data, workspace: &mut workspace };
        let latents = inference.posterior_means(&validation).expect("in memory");
        let few = &validation[..20];
        let posterior = inference.posterior(few).expect("in memory");
        let request = BoundsRequest { cells: few, samples: Samples { posterior: &posterior, particles: 50, seed: 3 } };
        for bound in inference.bounds(&request).expect("in memory") {
            bits.extend([bound.iwelbo, bound.elbo].map(f64::to_bits));
        }
        let values = network.parameters.values.iter().chain(&network.running.values).chain(&latents);
        bits.extend(values.map(|v| v.to_f64().to_bits()));
        bits
    })
}

#[test]
fn threads_do_not_change_a_bit() {
    for shape in [Shape::Simulation, Shape::Screen] {
        for masks in [MaskKind::Hard, MaskKind::Integrated] {
            let one = bits::<f32>(shape, masks, 1);
            for threads in [2, 3, 8] {
                let name = shape.name();
                assert!(
                    bits::<f32>(shape, masks, threads) == one,
                    "{name}, {masks:?}: {threads} threads differ from one"
                );
            }
        }
    }
    let one = bits::<f64>(Shape::Simulation, MaskKind::Integrated, 1);
    assert!(bits::<f64>(Shape::Simulation, MaskKind::Integrated, 3) == one, "f64: 3 threads differ from one");
}

/// What a training step is taken on, where the divergence has half its weight.
fn halfway_through_warm_up<'a>(data: &'a Dataset, cells: &'a [usize], objective: &Objective) -> StepInput<'a> {
    StepInput {
        batch: Batch::new(data, cells),
        noise: Noise::Training { seed: 1, epoch: 0 },
        weights: objective.weights(cells.len(), 0.5),
        penalty: objective.penalty,
    }
}

#[test]
fn a_training_step_is_the_gradient_and_then_the_optimiser() {
    let data = Shape::Simulation.dataset().unwrap();
    let architecture = architecture(&data);
    let objective = svae_cpu::commands::bench::objective(&data);
    let cells: Vec<usize> = (0..700).collect();
    for frozen in [false, true] {
        let mut apart = Network::<f32>::new(architecture.clone(), 1);
        if frozen {
            apart.prior_mut().freeze();
        }
        // The second time only some of the parameters, with borders inside tensors.
        let n = apart.parameters.values.len();
        for trained in [apart.trainable(), vec![100..n / 3, n / 2 + 1..n - 7]] {
            let (mut apart, mut together) = (apart.clone(), apart.clone());
            let mut workspace = Workspace::new(&architecture, 128, 1);
            let mut gradient = Buffer::zeros(&apart.parameters.layout);
            let [mut adam, mut adam_together] = [Adam::new(&apart.parameters), Adam::new(&apart.parameters)];
            let settings = AdamSettings::default();
            Team::with(2, |team| {
                for cells in cells.chunks(128) {
                    let input = halfway_through_warm_up(&data, cells, &objective);
                    let w = &mut workspace;
                    let loss = apart.loss_and_gradient(team, w, &mut gradient, input);
                    adam.step(team, &mut apart.parameters, &gradient, &trained, &settings);
                    let optimizer = Optimizer { adam: &mut adam_together, trained: &trained, settings: &settings };
                    let found = together.training_step(team, w, &mut gradient, optimizer, input);
                    assert_eq!(loss, found);
                }
            });
            assert!(apart.parameters == together.parameters && apart.running == together.running, "frozen: {frozen}");
            assert!(adam == adam_together);
            let start = Network::<f32>::new(architecture.clone(), 1).parameters.values;
            let moved = |i: usize| apart.parameters.values[i] != start[i];
            assert!(
                trained.iter().cloned().flatten().any(moved) && !(0..100).any(|i| !trained[0].contains(&i) && moved(i))
            );
        }
    }
}

#[test]
fn a_step_of_shifts_alone_is_that_of_a_whole_pass() {
    let data = Shape::Simulation.dataset().unwrap();
    let objective = svae_cpu::commands::bench::objective(&data);
    let cells: Vec<usize> = (0..700).collect();
    for (full_covariance, frozen) in [(false, false), (false, true), (true, true)] {
        let architecture = Architecture { full_covariance, dropout_rate: 0.1, ..architecture(&data) };
        let mut whole = Network::<f32>::new(architecture.clone(), 1);
        if frozen {
            whole.prior_mut().freeze();
        }
        let mut short = whole.clone();
        let before = whole.clone();
        let shift = whole.tensors.shift.clone().unwrap().0;
        let trained = vec![shift.start + 30..shift.start + 75, shift.end - 15..shift.end];
        let mut workspace = Workspace::new(&architecture, 128, 1);
        let mut gradient = Buffer::zeros(&whole.parameters.layout);
        let [mut adam, mut adam_short] = [Adam::new(&whole.parameters), Adam::new(&whole.parameters)];
        let settings = AdamSettings::default();
        Team::with(2, |team| {
            for cells in cells.chunks(128) {
                let input = halfway_through_warm_up(&data, cells, &objective);
                let w = &mut workspace;
                let want = whole.loss_and_gradient(team, w, &mut gradient, input);
                adam.step(team, &mut whole.parameters, &gradient, &trained, &settings);
                let optimizer = Optimizer { adam: &mut adam_short, trained: &trained, settings: &settings };
                let found = short.training_step(team, w, &mut gradient, optimizer, input);
                assert_eq!(found.kl, want.kl);
                assert_eq!(found.total, input.weights.cell * input.weights.kl * want.kl);
                assert!(found.reconstruction.is_nan());
            }
        });
        assert!(whole.parameters == short.parameters && adam == adam_short, "{full_covariance} {frozen}");
        let moved: Vec<usize> = (0..whole.parameters.values.len())
            .filter(|&i| whole.parameters.values[i] != before.parameters.values[i])
            .collect();
        assert!(moved.len() > 30 && moved.iter().all(|i| trained.iter().any(|range| range.contains(i))));
        // The encoder's statistics move alike, those of the decoder in a whole pass only.
        for (layers, alike) in [(&whole.tensors.encoder, true), (&whole.tensors.decoder, false)] {
            for norm in layers.iter().map(|layer| layer.norm.as_ref().unwrap()) {
                for tensor in [&norm.running_mean, &norm.running_variance] {
                    assert_ne!(whole.running[tensor], before.running[tensor]);
                    assert_eq!(short.running[tensor], if alike { &whole } else { &before }.running[tensor]);
                }
            }
        }
    }
}
