//! How long the sums over ranks take that a training step consists of.
//!
//! `mpirun -n 2 cargo bench --features mpi --bench ranks` (build it first, with `--no-run`)

use std::time::Instant;

use svae_cpu::commands::bench::{Shape, architecture};
use svae_cpu::model::tensors::Tensors;
use svae_cpu::parallel::ranks::Job;

/// Median seconds of `work` over several rounds, as this rank sees it.
fn median(mut work: impl FnMut()) -> f64 {
    (0..20).for_each(|_| work());
    let mut seconds: Vec<f64> = (0..201)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() {
    let job = Job::join().expect("MPI starts");
    let ranks = job.ranks();
    let line = |name: &str, values: usize| {
        let mut buffer = vec![1e-3_f32; values];
        let mut all = vec![0.0; values * ranks.size()];
        let gather = median(|| ranks.all_gather(&buffer, &mut all));
        let sum = median(|| {
            buffer.fill(1e-3);
            ranks.sum(&mut buffer);
        });
        if ranks.is_first() {
            println!("{name:<38} {values:>9} {:>12.1} {:>12.1}", gather * 1e6, sum * 1e6);
        }
    };
    if ranks.is_first() {
        println!("{} ranks{:>32} {:>9} {:>12} {:>12}", ranks.size(), "", "values", "gather, us", "sum, us");
    }
    line("loss", 2);
    line("batch normalisation of a layer", 256);
    for shape in [Shape::Simulation, Shape::Screen] {
        let data = shape.dataset().expect("a screen");
        let tensors = Tensors::new(&architecture(&data));
        line(&format!("gradient, {}", shape.name()), tensors.parameters.len());
    }
    line("a million values", 1 << 20);
}
