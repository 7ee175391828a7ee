//! Cells per second of a training step at two shapes, per thread count, beside the peak of the matrix products: the
//! figures of `svae-cpu bench`.
//!
//! `cargo bench --bench train_step [-- SECONDS]`

use std::time::Duration;
use svae_cpu::commands::bench::{BATCH, Benchmark, Shape, Workload, architecture, measure, objective};
use svae_cpu::numerics::simd;

fn main() {
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(5.0);
    let most = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut shapes = Vec::new();
    for shape in [Shape::Simulation, Shape::Screen] {
        let data = shape.dataset().expect("the benchmark's data can be made");
        let architecture = architecture(&data);
        let objective = objective(&data);
        let workload =
            Workload { name: shape.name(), data: &data, architecture: &architecture, objective, batch: BATCH };
        for threads in (0..).map(|i| 1 << i).take_while(|&n| n <= most) {
            let speed = measure::<f32>(&workload, threads, Duration::from_secs_f64(seconds));
            let reference = shape.reference_cells_per_second();
            eprintln!(
                "{} on {threads}: {:.1} times the reference on two cores",
                shape.name(),
                speed.cells_per_second / reference
            );
            shapes.push(speed);
        }
    }
    println!("{}", Benchmark { simd: simd::level(), shapes, prediction: None }.text());
}
