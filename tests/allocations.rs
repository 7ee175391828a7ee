//! A training step allocates nothing: every buffer was made before the first one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use svae_cpu::checkpoint::{ResumableRun, RunDescription};
use svae_cpu::commands::bench::{BATCH, Shape, architecture};
use svae_cpu::data::identity::identity;
use svae_cpu::data::minibatch::Batch;
use svae_cpu::model::adam::{Adam, AdamSettings};
use svae_cpu::model::network::Network;
use svae_cpu::model::noise::Noise;
use svae_cpu::model::objective::Objective;
use svae_cpu::model::parameters::Buffer;
use svae_cpu::model::pass::StepInput;
use svae_cpu::model::prior::sparsity::Penalty;
use svae_cpu::model::workspace::Workspace;
use svae_cpu::parallel::team::Team;
use svae_cpu::system::console::Silent;
use svae_cpu::system::interruption::{Boundary, Interval, SaveSchedule};
use svae_cpu::training::schedule::Schedule;
use svae_cpu::training::trainer::{Trainer, TrainingSettings, TrainingTask};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes every call on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of ten steps, after two that fill the caches of the matrix products.
fn allocations_of_ten_steps(shape: Shape, threads: usize) -> usize {
    let data = shape.dataset().unwrap();
    let architecture = architecture(&data);
    let mut network = Network::<f32>::new(architecture.clone(), 0);
    let mut workspace = Workspace::new(&architecture, BATCH, 1);
    let mut gradient = Buffer::zeros(&network.parameters.layout);
    let mut adam = Adam::new(&network.parameters);
    let objective = Objective {
        penalty: Penalty::SpikeAndSlab { alpha: 100.0 },
        beta: 1.0,
        scale_to_all_cells: true,
        n_cells: data.n_cells(),
    };
    let cells: Vec<usize> = (0..BATCH).collect();
    let all = 0..network.parameters.values.len();
    Team::with(threads, |team| {
        let mut before = 0;
        for epoch in 0..12 {
            if epoch == 2 {
                before = ALLOCATIONS.load(Ordering::Relaxed);
            }
            network.loss_and_gradient(
                team,
                &mut workspace,
                &mut gradient,
                StepInput {
                    batch: Batch::new(&data, &cells),
                    noise: Noise::Training { seed: 0, epoch },
                    weights: objective.weights(BATCH, 1.0),
                    penalty: objective.penalty,
                },
            );
            let settings = AdamSettings::default();
            adam.step(team, &mut network.parameters, &gradient, std::slice::from_ref(&all), &settings);
        }
        ALLOCATIONS.load(Ordering::Relaxed) - before
    })
}

/// Allocations of ten steps of a training that could be saved or stopped between any two.
fn allocations_of_a_training(shape: Shape) -> usize {
    let data = shape.dataset().unwrap();
    let mut network = Network::<f32>::new(architecture(&data), 0);
    let cells: Vec<usize> = (0..14 * BATCH).collect();
    let objective = Objective {
        penalty: Penalty::SpikeAndSlab { alpha: 100.0 },
        beta: 1.0,
        scale_to_all_cells: true,
        n_cells: cells.len(),
    };
    let settings = TrainingSettings { schedule: Schedule::Cosine, ..TrainingSettings::plain(1, BATCH) };
    let folder = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3600);
    let schedule = SaveSchedule::new(Interval::Time(hour), Some(Instant::now() + hour));
    let description =
        RunDescription { settings: Vec::new(), data: identity(&data).unwrap(), resume_command: String::new() };
    let mut run = ResumableRun::new(folder.path(), description, schedule, &Silent, Instant::now());
    let task = TrainingTask { data: &data, train: &cells, validation: &[], objective: &objective, settings: &settings };
    let mut trainer = Trainer::new(&mut network, task);
    let mut before = 0;
    for step in 0..12 {
        if step == 2 {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
        trainer.advance(&Team::single()).unwrap();
        run.checkpoint_if_due("training", Boundary::Step, |out| trainer.save(out)).unwrap();
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[test]
fn a_step_allocates_nothing() {
    // One test, so that no other one allocates meanwhile; one thread, so that each product's cache is filled for sure.
    for shape in [Shape::Simulation, Shape::Screen] {
        assert_eq!(allocations_of_ten_steps(shape, 1), 0, "{}", shape.name());
        assert_eq!(allocations_of_a_training(shape), 0, "{}", shape.name());
    }
}
