//! The same bytes on any number of threads.

use svae_cpu::benchmark::{Shape, architecture};
use svae_cpu::config::{KeepEpoch, Schedule};
use svae_cpu::model::network::Network;
use svae_cpu::model::objective::{Objective, Penalty};
use svae_cpu::numerics::team::Team;
use svae_cpu::training::adam::AdamSettings;
use svae_cpu::training::trainer::{TrainingSettings, evaluation_workspace, posterior_means, train};

/// Bits of everything that a short training leaves: parameters, running statistics, losses, latents, bounds.
fn bits(shape: Shape, threads: usize) -> Vec<u64> {
    let data = shape.dataset().unwrap();
    // Not a multiple of the minibatch: the last one has its own blocks.
    let cells: Vec<usize> = (0..1_000).map(|n| n * 7).collect();
    let validation: Vec<usize> = (0..300).map(|n| n * 7 + 1).collect();
    let mut network = Network::<f32>::new(architecture(&data), 3);
    let objective = Objective {
        penalty: Penalty::SpikeAndSlab { alpha: 20.0 },
        beta: 1.0,
        scale_to_all_cells: true,
        n_cells: cells.len(),
    };
    let settings = TrainingSettings {
        epochs: 2,
        batch_size: 128,
        warmup_epochs: 2,
        patience: 0,
        keep: KeepEpoch::Last,
        schedule: Schedule::Cosine,
        adam: AdamSettings::default(),
        seed: 3,
        stream_offset: 0,
        trained: None,
    };
    Team::with(threads, |team| {
        let mut bits = Vec::new();
        let training = train(team, &mut network, &data, &cells, &validation, &objective, &settings, |_| ());
        for record in &training.history {
            bits.extend([record.train_loss, record.validation_elbo, record.mean_mask].map(f64::to_bits));
        }
        let mut workspace = evaluation_workspace(&network, &data);
        let latents = posterior_means(team, &network, &mut workspace, &data, &validation);
        let few = &validation[..20];
        let posterior = network.posterior(team, &mut workspace, &data, few);
        for bound in network.bounds(team, &mut workspace, &data, few, &posterior, 50, 3) {
            bits.extend([bound.iwelbo, bound.elbo].map(f64::to_bits));
        }
        let values = network.parameters.values.iter().chain(&network.running.values).chain(&latents);
        bits.extend(values.map(|v| v.to_bits() as u64));
        bits
    })
}

#[test]
fn threads_do_not_change_a_bit() {
    for shape in [Shape::Simulation, Shape::Screen] {
        let one = bits(shape, 1);
        for threads in [2, 3, 8] {
            assert!(bits(shape, threads) == one, "{}: {threads} threads differ from one", shape.name());
        }
    }
}
