//! A training step allocates nothing: every buffer was made before the first one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use svae_cpu::benchmark::{BATCH, Shape, architecture};
use svae_cpu::model::network::{Batch, Network, Noise};
use svae_cpu::model::objective::{Objective, Penalty};
use svae_cpu::model::parameters::Buffer;
use svae_cpu::model::workspace::Workspace;
use svae_cpu::numerics::team::Team;
use svae_cpu::training::adam::{Adam, AdamSettings};

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
                Batch::new(&data, &cells),
                Noise::Training { seed: 0, epoch },
                objective.weights(BATCH, 1.0),
                objective.penalty,
            );
            let settings = AdamSettings::default();
            adam.step(team, &mut network.parameters, &gradient, std::slice::from_ref(&all), &settings);
        }
        ALLOCATIONS.load(Ordering::Relaxed) - before
    })
}

#[test]
fn a_step_allocates_nothing() {
    // One test, so that no other one allocates meanwhile; one thread, so that each product's cache is filled for sure.
    for shape in [Shape::Simulation, Shape::Screen] {
        assert_eq!(allocations_of_ten_steps(shape, 1), 0, "{}", shape.name());
    }
}
