//! Cells per second of a training step at two shapes, per thread count, beside the peak of the matrix products.
//!
//! `cargo bench --bench train_step [-- SECONDS]`

use std::time::Duration;
use svae_cpu::benchmark::{Shape, architecture, peak_gflops, step_speed};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds = arguments.iter().filter_map(|argument| argument.parse().ok()).next().unwrap_or(5.0);
    let most = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads: Vec<usize> = (0..).map(|i| 1 << i).take_while(|&n| n <= most).collect();
    println!("shape       threads    cells/s  ms/step  GFLOP/s  peak GFLOP/s  share of peak  x reference (2 cores)");
    for shape in [Shape::Simulation, Shape::Screen] {
        if arguments.iter().any(|a| a == "screen" || a == "simulation") && !arguments.iter().any(|a| a == shape.name())
        {
            continue;
        }
        let data = shape.dataset().expect("the benchmark's data can be made");
        let a = architecture(&data);
        for &threads in &threads {
            // The peak is measured beside each timing: the machine's speed drifts.
            let peak = peak_gflops(&a) * threads as f64;
            let speed = step_speed(&data, &a, threads, Duration::from_secs_f64(seconds));
            println!(
                "{:<11} {:>7} {:>10.0} {:>8.3} {:>8.0} {:>13.0} {:>14.2} {:>22.1}",
                shape.name(),
                threads,
                speed.cells_per_second,
                speed.ms_per_step,
                speed.gflops,
                peak,
                speed.gflops / peak,
                speed.cells_per_second / shape.reference_cells_per_second(),
            );
            let stages = speed.stages.iter().map(|(stage, ms)| (stage.name(), *ms));
            for (name, ms) in stages.chain([("everything_else", speed.everything_else)]) {
                println!("    {name:<20} {ms:>8.4} ms");
            }
        }
    }
}
