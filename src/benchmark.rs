//! How fast a training step is on this machine, beside the fastest that its matrix products alone could be.

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, LogNormal, Poisson};

use crate::data::counts::CountsBuilder;
use crate::data::dataset::{Covariates, Dataset, InterventionRows};
use crate::data::simulate::{Simulation, simulate};
use crate::error::Result;
use crate::model::architecture::Architecture;
use crate::model::network::{Batch, Network, Noise};
use crate::model::objective::{Objective, Penalty};
use crate::model::parameters::Buffer;
use crate::model::workspace::Workspace;
use crate::numerics::clock::{Stage, StageClock};
use crate::numerics::matmul::{Into, Rows, a_b, a_bt, at_b};
use crate::numerics::team::Team;
use crate::training::adam::{Adam, AdamSettings};

/// Cells per minibatch.
pub const BATCH: usize = 128;

/// A data set of the size and sparsity to be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// 100 genes, 15 latents, 100 interventions: the paper's simulation, nearly every count non-zero.
    Simulation,
    /// 1,187 genes, 15 latents, 600 interventions, most counts zero: a genome-scale screen.
    Screen,
}

impl Shape {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Simulation => "simulation",
            Shape::Screen => "screen",
        }
    }

    /// Cells per second of the reference implementation at this shape on two cores.
    pub fn reference_cells_per_second(self) -> f64 {
        match self {
            Shape::Simulation => 20_100.0,
            Shape::Screen => 5_900.0,
        }
    }

    /// Cells of this shape.
    ///
    /// # Errors
    /// None in practice; those of the simulator.
    pub fn dataset(self) -> Result<Dataset> {
        match self {
            Shape::Simulation => {
                Ok(simulate(&Simulation { cells_per_intervention: 200, ..Simulation::default() })?.dataset)
            }
            Shape::Screen => Ok(screen(20_000, 1_187, 600)),
        }
    }
}

/// Counts like those of a Perturb-seq screen: log-normal gene means, gamma-distributed library sizes, negative binomial
/// noise of inverse dispersion 2; about one count in six is non-zero.
fn screen(n_cells: usize, n_genes: usize, n_interventions: usize) -> Dataset {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let means: Vec<f64> = LogNormal::new(-2.6, 1.3).expect("valid").sample_iter(&mut random).take(n_genes).collect();
    let depth = Gamma::new(8.0, 1.0 / 8.0).expect("valid");
    let noise = Gamma::new(2.0, 0.5).expect("valid");
    let mut counts = CountsBuilder::new(n_genes);
    for _ in 0..n_cells {
        let depth: f64 = depth.sample(&mut random);
        for (g, mean) in means.iter().enumerate() {
            let rate: f64 = mean * depth * noise.sample(&mut random);
            let x = if rate > 0.0 { Poisson::new(rate).map_or(0.0, |p| p.sample(&mut random)) } else { 0.0 };
            counts.push(g, x as u32);
        }
        // No cell without counts.
        counts.end_cell();
    }
    let counts = counts.finish();
    let library = (0..n_cells).map(|n| counts.row(n).sum().max(1) as f64).collect();
    Dataset {
        source: "benchmark".to_owned(),
        counts,
        library,
        interventions: InterventionRows::one_hot((0..n_cells).map(|n| n % n_interventions)),
        intervention_names: (0..n_interventions).map(|a| a.to_string()).collect(),
        gene_names: (0..n_genes).map(|g| g.to_string()).collect(),
        cell_names: (0..n_cells).map(|n| n.to_string()).collect(),
        covariates: Covariates::default(),
        truth: None,
    }
}

/// Speed of the training step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSpeed {
    /// Threads used.
    pub threads: usize,
    /// Training cells per second.
    pub cells_per_second: f64,
    /// Milliseconds per step of [`BATCH`] cells: the median.
    pub ms_per_step: f64,
    /// Matrix products alone, 10^9 multiplications and additions per second.
    pub gflops: f64,
    /// Milliseconds per step and thread that each stage takes, on average.
    pub stages: Vec<(Stage, f64)>,
    /// What the stages leave of a step: statistics over the minibatch, sharing out work, waiting for other threads.
    pub everything_else: f64,
}

/// Products of a step as (rows of the output, columns, depth, kind).
fn products(a: &Architecture) -> Vec<(usize, usize, usize, Product)> {
    let tensors = crate::model::architecture::Tensors::new(a);
    let mut all = Vec::new();
    for (i, linear) in tensors.linear_layers().enumerate() {
        let n_in = linear.n_in + linear.n_covariates;
        all.push((BATCH, linear.n_out, n_in, Product::Forward));
        all.push((linear.n_out, n_in, BATCH, Product::Weight));
        // The first layer's input needs no gradient.
        if i > 0 {
            all.push((BATCH, n_in, linear.n_out, Product::Input));
        }
    }
    all
}

#[derive(Debug, Clone, Copy)]
enum Product {
    Forward,
    Weight,
    Input,
}

/// Multiplications and additions of the matrix products of one step.
pub fn flop_per_step(a: &Architecture) -> f64 {
    products(a).iter().map(|&(m, n, k, _)| 2.0 * (m * n * k) as f64).sum()
}

/// faer's best single-precision rate over the step's own products on one core, in GFLOP/s.
pub fn peak_gflops(a: &Architecture) -> f64 {
    let mut best: f64 = 0.0;
    for (m, n, k, kind) in products(a) {
        let values = |len: usize| -> Vec<f32> { (0..len).map(|i| (i % 17) as f32 * 0.01).collect() };
        let (left, right, mut out) = (values(m * k), values(n * k), values(m * n));
        let mut once = || match kind {
            Product::Forward => a_bt(&mut out, Into::Replace, Rows::new(&left, m, k), Rows::new(&right, n, k)),
            Product::Weight => at_b(&mut out, n, Into::Replace, Rows::new(&left, k, m), Rows::new(&right, k, n)),
            Product::Input => a_b(&mut out, Into::Replace, Rows::new(&left, m, k), Rows::new(&right, k, n)),
        };
        once();
        for _ in 0..20 {
            let flop = 2.0 * (m * n * k) as f64;
            let repeats = (2e8 / flop).clamp(1.0, 1e4) as usize;
            let start = Instant::now();
            (0..repeats).for_each(|_| once());
            best = best.max(flop * repeats as f64 / start.elapsed().as_secs_f64() / 1e9);
        }
    }
    best
}

/// Times training steps (gradient and Adam) in single precision on shuffled cells for about `duration`.
pub fn step_speed(data: &Dataset, architecture: &Architecture, threads: usize, duration: Duration) -> StepSpeed {
    let mut network = Network::<f32>::new(architecture.clone(), 0);
    let mut workspace = Workspace::new(architecture, BATCH, data.interventions.max_len());
    workspace.clock = StageClock::running();
    let mut gradient = Buffer::zeros(&network.parameters.layout);
    let mut adam = Adam::new(&network.parameters);
    let objective = Objective {
        penalty: Penalty::SpikeAndSlab { alpha: data.n_interventions() as f64 },
        beta: 1.0,
        scale_to_all_cells: true,
        n_cells: data.n_cells(),
    };
    let mut order: Vec<usize> = (0..data.n_cells()).collect();
    crate::random::shuffle(&mut order, &mut crate::random::stream(0, crate::random::Purpose::Shuffle, 0, 0));
    let mut times = Vec::new();
    Team::with(threads, |team| {
        let all = 0..network.parameters.values.len();
        let start = Instant::now();
        'timing: for epoch in 0.. {
            for cells in order.chunks_exact(BATCH) {
                let step = Instant::now();
                network.loss_and_gradient(
                    team,
                    &mut workspace,
                    &mut gradient,
                    Batch { data, cells },
                    Noise::Training { seed: 0, epoch },
                    objective.weights(cells.len(), 1.0),
                    objective.penalty,
                );
                let mut lap = workspace.clock.lap();
                adam.step(
                    team,
                    &mut network.parameters,
                    &gradient,
                    std::slice::from_ref(&all),
                    &AdamSettings::default(),
                );
                lap.end(Stage::Adam);
                times.push(step.elapsed().as_secs_f64());
                if start.elapsed() > duration && times.len() > 20 {
                    break 'timing;
                }
            }
        }
    });
    let per_step = 1e3 / (times.len() * threads.max(1)) as f64;
    let stages: Vec<_> = Stage::ALL.iter().map(|&s| (s, workspace.clock.seconds(s) * per_step)).collect();
    let mean = times.iter().sum::<f64>() * 1e3 / times.len() as f64;
    let everything_else = mean - stages.iter().map(|(_, ms)| ms).sum::<f64>();
    // The first steps fill caches and page in buffers.
    let mut times = times.split_off(10);
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    StepSpeed {
        threads,
        cells_per_second: BATCH as f64 / median,
        ms_per_step: median * 1e3,
        gflops: flop_per_step(architecture) / median / 1e9,
        stages,
        everything_else,
    }
}

/// The model that is timed: two hidden layers of 128, 15 latents.
pub fn architecture(data: &Dataset) -> Architecture {
    Architecture::new(data.n_genes(), data.n_interventions(), 15)
}
