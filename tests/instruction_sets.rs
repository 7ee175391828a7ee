//! With products of fixed order, the same bytes whether a processor has wide vectors or none.
//!
//! In a program of its own, because the level holds for a whole process.

use svae_cpu::commands::bench::{Shape, architecture};
use svae_cpu::inference::bounds::BoundsRequest;
use svae_cpu::inference::{Inference, evaluation_workspace};
use svae_cpu::model::architecture::Architecture;
use svae_cpu::model::network::Network;
use svae_cpu::model::objective::Objective;
use svae_cpu::model::particles::Samples;
use svae_cpu::model::prior::sparsity::Penalty;
use svae_cpu::numerics::real::Real;
use svae_cpu::numerics::simd;
use svae_cpu::parallel::team::Team;
use svae_cpu::system::console::Silent;
use svae_cpu::training::schedule::Schedule;
use svae_cpu::training::trainer::{TrainingSettings, TrainingTask, train};

/// Bits of what a short training and a bound leave.
fn bits<R: Real>(shape: Shape) -> Vec<u64> {
    let data = shape.dataset().unwrap();
    let cells: Vec<usize> = (0..75).map(|n| n * 9).collect();
    let validation: Vec<usize> = (0..40).map(|n| n * 9 + 1).collect();
    let small = Architecture { n_hidden: 20, ..architecture(&data) };
    let mut network = Network::<R>::new(small, 5);
    let penalty = Penalty::SpikeAndSlab { alpha: 20.0 };
    let objective = Objective { penalty, beta: 1.0, scale_to_all_cells: true, n_cells: cells.len() };
    let settings =
        TrainingSettings { warmup_epochs: 2, schedule: Schedule::Cosine, seed: 5, ..TrainingSettings::plain(2, 40) };
    let team = Team::single();
    let task = TrainingTask {
        data: &data,
        train: &cells,
        validation: &validation,
        objective: &objective,
        settings: &settings,
    };
    let training = train(&team, &mut network, task, &mut Silent).expect("in memory");
    let mut bits: Vec<u64> = training.history.iter().map(|record| record.validation_elbo.to_bits()).collect();
    let mut workspace = evaluation_workspace(&network, &data);
    let few = &validation[..4];
    let mut inference = Inference { team: &team, network: &network, data: &data, workspace: &mut workspace };
    let posterior = inference.posterior(few).expect("in memory");
    let request = BoundsRequest { cells: few, samples: Samples { posterior: &posterior, particles: 40, seed: 3 } };
    for bound in inference.bounds(&request).expect("in memory") {
        bits.extend([bound.iwelbo, bound.elbo].map(f64::to_bits));
    }
    bits.extend(network.parameters.values.iter().chain(&network.running.values).map(|v| v.to_f64().to_bits()));
    bits
}

#[test]
fn vectors_do_not_change_a_bit() {
    simd::Level::Baseline.choose();
    for shape in [Shape::Simulation, Shape::Screen] {
        let wide = (bits::<f32>(shape), bits::<f64>(shape));
        simd::without_vectors(true);
        assert_eq!(simd::level(), "baseline");
        let plain = (bits::<f32>(shape), bits::<f64>(shape));
        simd::without_vectors(false);
        assert!(wide == plain, "{}: vectors change results", shape.name());
    }
}
