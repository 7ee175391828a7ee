//! How fast a training step is on this machine, beside the fastest that its matrix products alone could be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_distr::{Distribution, Gamma, LogNormal, Poisson};
use serde::Serialize;

use crate::commands::screen;
use crate::data::counts::in_memory::CountsBuilder;
use crate::data::dataset::{Covariates, Dataset, InterventionRows};
use crate::data::minibatch::Batch;
use crate::data::screen::Screen;
use crate::data::simulate::{Simulation, simulate};
use crate::display::table::Table;
use crate::error::Result;
use crate::inference::bounds::BoundsRequest;
use crate::inference::{Inference, evaluation_workspace};
use crate::model::adam::{Adam, AdamSettings};
use crate::model::architecture::Architecture;
use crate::model::clock::{Stage, StageClock};
use crate::model::network::Network;
use crate::model::noise::Noise;
use crate::model::objective::Objective;
use crate::model::parameters::Buffer;
use crate::model::particles::Samples;
use crate::model::pass::StepInput;
use crate::model::prior::sparsity::Penalty;
use crate::model::step::Optimizer;
use crate::model::workspace::Workspace;
use crate::numerics::aligned::Aligned;
use crate::numerics::matmul::{Accumulate, Rows, a_b, a_bt, at_b};
use crate::numerics::random::{Purpose, SamplerPurpose, sampler_stream, shuffle, stream};
use crate::numerics::real::{Precision, Real};
use crate::numerics::simd;
use crate::parallel::team::Team;
use crate::settings::Settings;
use crate::system::machine::peak_rss_bytes;
use crate::training::shift_fit::{HeldoutBatchNorm, fit_settings};
use crate::words::{grouped, seconds};

/// Cells per minibatch at the two shapes.
pub const BATCH: usize = 128;

/// A data set of the size and sparsity to be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
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
            Shape::Screen => Ok(screen(20_000)),
        }
    }
}

/// Cells of a screen, 1,187 genes under 600 interventions, with counts like those of a Perturb-seq screen: log-normal gene means, gamma-distributed library sizes, negative binomial
/// noise of inverse dispersion 2; about one count in six is non-zero.
pub fn screen(n_cells: usize) -> Dataset {
    let (n_genes, n_interventions) = (1_187, 600);
    let mut random = sampler_stream(1, SamplerPurpose::Benchmark, 0);
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
        counts: counts.into(),
        library,
        interventions: InterventionRows::one_hot((0..n_cells).map(|n| n % n_interventions)),
        intervention_names: (0..n_interventions).map(|a| a.to_string()).collect(),
        gene_names: (0..n_genes).map(|g| g.to_string()).collect(),
        cell_names: (0..n_cells).map(|n| n.to_string()).collect(),
        covariates: Covariates::default(),
        guides: None,
        truth: None,
    }
}

/// What to time.
#[derive(Debug)]
pub struct BenchPlan {
    /// Shapes.
    pub shapes: Vec<Shape>,
    /// A run of the user's own.
    pub own: Option<Settings>,
    /// Numbers of threads at the shapes.
    pub threads: Vec<usize>,
    /// Time for each timing.
    pub duration: Duration,
}

/// Times shapes and a run of the user's own, and predicts that run.
///
/// # Errors
/// Input that cannot be used.
pub fn bench(plan: &BenchPlan) -> Result<Benchmark> {
    if let Some(config) = &plan.own {
        config.refuse_without_network("`svae-cpu bench`")?;
    }
    let mut shapes = Vec::new();
    for shape in &plan.shapes {
        let data = shape.dataset()?;
        let (architecture, objective) = (architecture(&data), objective(&data));
        let workload =
            Workload { name: shape.name(), data: &data, architecture: &architecture, objective, batch: BATCH };
        shapes.extend(plan.threads.iter().map(|&threads| measure::<f32>(&workload, threads, plan.duration)));
    }
    let mut prediction = None;
    if let Some(config) = &plan.own {
        let (speed, predicted) = bench_run(config, plan.duration)?;
        prediction = Some(predicted);
        shapes.push(speed);
    }
    Ok(Benchmark { simd: simd::level(), shapes, prediction })
}

/// Times the steps of a run with these settings on its own data, and predicts the run.
fn bench_run(config: &Settings, duration: Duration) -> Result<(Speed, Prediction)> {
    let screen = Team::with(config.n_threads(), |team| screen::read(team, config))?;
    let Screen { data, split, .. } = &screen;
    let config = config.resolved(&data.intervention_names, &data.interventions, split.train.len())?;
    let settings = config.training_settings(split.train.len());
    let objective = config.objective(data.n_interventions(), split.train.len());
    let architecture = config.architecture(data);
    let batch = settings.batch_size;
    // Counts on disk are timed by as many cells as are in memory at once.
    let sample = match data.counts.disk() {
        Some(disk) => Some(data.resident(&(0..disk.window_cells().min(data.n_cells())).collect::<Vec<_>>())?),
        None => None,
    };
    let measured: &Dataset = match &sample {
        Some(sample) => sample,
        None => data,
    };
    let workload = Workload { name: "run", data: measured, architecture: &architecture, objective, batch };
    let speed = match config.training.precision {
        Precision::F32 => measure::<f32>(&workload, config.n_threads(), duration),
        Precision::F64 => measure::<f64>(&workload, config.n_threads(), duration),
    };
    // Only an encoder whose statistics drift is run while shifts are fitted, and then changes the samples of a bound.
    let drifts =
        config.model.method.uses_interventions() && config.training.heldout_batch_norm == HeldoutBatchNorm::Drift;
    let sizes = RunSizes {
        train: split.train.len(),
        validation: split.validation.len(),
        held_out: if config.training.heldout { split.held_out.len() } else { 0 },
        epochs: settings.epochs,
        other_epochs: (config.training.starts - 1) * config.trial_epochs(settings.epochs).unwrap_or(settings.epochs),
        retraining_epochs: settings.retraining_epochs,
        fit_epochs: if drifts { fit_settings(&settings, split.held_out.len()).epochs } else { 0 },
        particles: config.training.particles,
        bounds: if drifts { 3 } else { 2 },
        scalar: if config.training.precision == Precision::F32 { 4 } else { 8 },
    };
    let predicted = predict(&speed, &sizes, &architecture, data);
    Ok((speed, predicted))
}

/// What is timed: a model on data.
#[derive(Debug)]
pub struct Workload<'a> {
    /// Name in tables.
    pub name: &'a str,
    /// The screen.
    pub data: &'a Dataset,
    /// The network.
    pub architecture: &'a Architecture,
    /// The objective.
    pub objective: Objective,
    /// Cells per minibatch.
    pub batch: usize,
}

/// Speed of one workload on some threads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// Name of the workload.
    pub name: String,
    /// Threads used.
    pub threads: usize,
    /// Training cells per second, by the median step.
    pub cells_per_second: f64,
    /// Milliseconds per step: the median.
    pub ms_per_step: f64,
    /// Matrix products of a step alone, 10^9 multiplications and additions per second.
    pub gflops: f64,
    /// The rate of the fastest of the step's products on one thread, the median of turns with the steps, times the threads.
    pub peak_gflops: f64,
    /// gflops / peak_gflops.
    pub share_of_peak: f64,
    /// Milliseconds per step and thread that each stage takes, on average; `everything_else` is what they leave:
    /// statistics over the minibatch, sharing out work, waiting for other threads.
    pub stages: BTreeMap<&'static str, f64>,
    /// Cells per second whose posterior means are computed.
    pub encoded_cells_per_second: f64,
    /// Samples per second of the importance-weighted bound, all cells together.
    pub particles_per_second: f64,
    /// Most memory that the process has held so far, where the system says.
    pub peak_rss_bytes: Option<u64>,
}

/// Products of a step as (rows of the output, columns, depth, kind).
fn products(a: &Architecture, batch: usize) -> Vec<(usize, usize, usize, Product)> {
    let tensors = crate::model::tensors::Tensors::new(a);
    let mut all = Vec::new();
    for (i, linear) in tensors.linear_layers().enumerate() {
        let n_in = linear.n_in + linear.n_covariates;
        all.push((batch, linear.n_out, n_in, Product::Forward));
        all.push((linear.n_out, n_in, batch, Product::Weight));
        // The first layer's input needs no gradient.
        if i > 0 {
            all.push((batch, n_in, linear.n_out, Product::Input));
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
pub fn flop_per_step(a: &Architecture, batch: usize) -> f64 {
    products(a, batch).iter().map(|&(m, n, k, _)| 2.0 * (m * n * k) as f64).sum()
}

/// One of the matrix products of a step, in single precision on one core, ready to be timed.
struct TimedProduct {
    size: (usize, usize, usize),
    kind: Product,
    left: Aligned<f32>,
    right: Aligned<f32>,
    out: Aligned<f32>,
}

impl TimedProduct {
    fn new((m, n, k, kind): (usize, usize, usize, Product)) -> Self {
        let values = |len: usize| {
            let mut values = Aligned::filled(len, 0f32);
            values.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 17) as f32 * 0.01);
            values
        };
        Self { size: (m, n, k), kind, left: values(m * k), right: values(n * k), out: values(m * n) }
    }

    /// faer's rate over about `duration`, in GFLOP/s.
    fn gflops(&mut self, duration: Duration) -> f64 {
        let Self { size: (m, n, k), kind, ref left, ref right, ref mut out } = *self;
        let mut once = || match kind {
            Product::Forward => a_bt(out, Accumulate::Replace, Rows::new(left, m, k), Rows::new(right, n, k)),
            Product::Weight => at_b(out, n, Accumulate::Replace, Rows::new(left, k, m), Rows::new(right, k, n)),
            Product::Input => a_b(out, Accumulate::Replace, Rows::new(left, m, k), Rows::new(right, k, n)),
        };
        once();
        let (start, mut repeats) = (Instant::now(), 0);
        while repeats == 0 || start.elapsed() < duration {
            (0..10).for_each(|_| once());
            repeats += 10;
        }
        2.0 * (m * n * k) as f64 * f64::from(repeats) / start.elapsed().as_secs_f64() / 1e9
    }

    /// The fastest of a step's products.
    fn fastest(a: &Architecture, batch: usize) -> Self {
        let mut all: Vec<_> = products(a, batch).into_iter().map(Self::new).collect();
        let mut best = vec![0.0f64; all.len()];
        for _ in 0..5 {
            all.iter_mut().zip(&mut best).for_each(|(product, best)| {
                *best = best.max(product.gflops(Duration::from_millis(2)));
            });
        }
        let fastest = (0..all.len()).max_by(|&i, &j| best[i].total_cmp(&best[j])).expect("a step has products");
        all.swap_remove(fastest)
    }
}

/// Turns that the timing of steps and that of the fastest product take: the speed of a machine drifts.
const ROUNDS: u32 = 20;
/// How long the product is timed in its turn.
const PRODUCT_TURN: Duration = Duration::from_millis(5);

/// Times a workload on `threads` threads: training steps (gradient and Adam) on shuffled cells for about `duration`, then
/// evaluation for half as long.
pub fn measure<R: Real>(workload: &Workload, threads: usize, duration: Duration) -> Speed {
    let Workload { data, architecture, batch, .. } = *workload;
    let mut network = Network::<R>::new(architecture.clone(), 0);
    let mut order: Vec<usize> = (0..data.n_cells()).collect();
    shuffle(&mut order, &mut stream(0, Purpose::Shuffle, 0, 0));
    Team::with(threads, |team| {
        let StepTimes { times, peaks, clock } = steps(team, &mut network, workload, &order, duration);
        let per_step = 1e3 / (times.len() * threads.max(1)) as f64;
        let mut stages: BTreeMap<_, _> = Stage::ALL.iter().map(|&s| (s.name(), clock.seconds(s) * per_step)).collect();
        let mean = times.iter().sum::<f64>() * 1e3 / times.len() as f64;
        stages.insert("everything_else", mean - stages.values().sum::<f64>());
        let (step, peak) = (median(times), median(peaks) * threads.max(1) as f64);
        let gflops = flop_per_step(architecture, batch) / step / 1e9;
        let (encoded, particles) = evaluations(team, &network, data, &order, duration / 4);
        Speed {
            name: workload.name.to_owned(),
            threads,
            cells_per_second: batch.min(data.n_cells()) as f64 / step,
            ms_per_step: step * 1e3,
            gflops,
            peak_gflops: peak,
            share_of_peak: gflops / peak,
            stages,
            encoded_cells_per_second: encoded,
            particles_per_second: particles,
            peak_rss_bytes: peak_rss_bytes(),
        }
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What the timing of steps gives.
struct StepTimes {
    /// Seconds of each step.
    times: Vec<f64>,
    /// Rate of the fastest product on one thread in each round, GFLOP/s.
    peaks: Vec<f64>,
    /// Where the seconds went.
    clock: StageClock,
}

/// Times steps for about `duration` in all, in turns with the fastest of their products.
fn steps<R: Real>(
    team: &Team,
    network: &mut Network<R>,
    workload: &Workload,
    order: &[usize],
    duration: Duration,
) -> StepTimes {
    let Workload { data, architecture, ref objective, batch, .. } = *workload;
    let batch = batch.min(order.len());
    let mut product = TimedProduct::fastest(architecture, batch);
    let mut workspace = Workspace::new(architecture, batch, data.interventions.max_len());
    let mut gradient = Buffer::zeros(&network.parameters.layout);
    let mut adam = Adam::new(&network.parameters);
    let trained = network.trainable();
    let (mut times, mut peaks) = (Vec::new(), Vec::new());
    let mut minibatches = (0..).flat_map(|epoch| order.chunks_exact(batch).map(move |cells| (epoch, cells)));
    let mut step = |workspace: &mut Workspace<R>| {
        let (epoch, cells) = minibatches.next().expect("epochs have no end");
        let start = Instant::now();
        network.training_step(
            team,
            workspace,
            &mut gradient,
            Optimizer { adam: &mut adam, trained: &trained, settings: &AdamSettings::default() },
            StepInput {
                batch: Batch::new(data, cells),
                noise: Noise::Training { seed: 0, epoch },
                weights: objective.weights(cells.len(), 1.0),
                penalty: objective.penalty,
            },
        );
        start.elapsed().as_secs_f64()
    };
    // The first steps fill caches and page in buffers.
    for _ in 0..10 {
        step(&mut workspace);
    }
    workspace.clock = StageClock::running();
    for _ in 0..ROUNDS {
        peaks.push(product.gflops(PRODUCT_TURN));
        let start = Instant::now();
        while start.elapsed() < duration / ROUNDS {
            times.push(step(&mut workspace));
        }
    }
    StepTimes { times, peaks, clock: workspace.clock }
}

/// Counts are timed in memory, where nothing can fail.
const IN_MEMORY: &str = "counts in memory";

/// Cells encoded per second, and samples of the bound per second, each timed for about `duration`.
fn evaluations<R: Real>(
    team: &Team,
    network: &Network<R>,
    data: &Dataset,
    order: &[usize],
    duration: Duration,
) -> (f64, f64) {
    const PARTICLES: usize = 256;
    let mut workspace = evaluation_workspace(network, data);
    let rate = |per_call: usize, call: &mut dyn FnMut()| {
        call();
        let (start, mut calls) = (Instant::now(), 0);
        while start.elapsed() < duration {
            call();
            calls += per_call;
        }
        calls as f64 / start.elapsed().as_secs_f64()
    };
    let some = &order[..order.len().min(2048)];
    let mut inference = Inference { team, network, data, workspace: &mut workspace };
    let encoded = rate(some.len(), &mut || drop(inference.posterior(some).expect(IN_MEMORY)));
    let few = &order[..order.len().min(8 * team.threads())];
    let posterior = inference.posterior(few).expect(IN_MEMORY);
    let samples = Samples { posterior: &posterior, particles: PARTICLES, seed: 0 };
    let request = BoundsRequest { cells: few, samples };
    let particles = rate(few.len() * PARTICLES, &mut || {
        drop(inference.bounds(&request).expect(IN_MEMORY));
    });
    (encoded, particles)
}

/// The model that is timed at a shape: two hidden layers of 128, 15 latents.
pub fn architecture(data: &Dataset) -> Architecture {
    Architecture::new(data.n_genes(), data.n_interventions(), 15)
}

/// The objective of sVAE+ on all cells of `data`.
pub fn objective(data: &Dataset) -> Objective {
    Objective {
        penalty: Penalty::SpikeAndSlab { alpha: data.n_interventions() as f64 },
        beta: 1.0,
        scale_to_all_cells: true,
        n_cells: data.n_cells(),
    }
}

/// What a run would take, by its settings and the speeds measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// Threads that the run would use.
    pub threads: usize,
    /// Epochs, at most: early stopping may end a training sooner.
    pub epochs: usize,
    /// Seconds of the first training, at most.
    pub training_seconds: f64,
    /// Seconds of the stages on held-out interventions, at most; 0 where there are none.
    pub heldout_seconds: f64,
    /// Most memory.
    pub memory_bytes: u64,
}

/// Sizes of a run.
#[derive(Debug, Clone, Copy)]
pub struct RunSizes {
    /// Training cells.
    pub train: usize,
    /// Validation cells.
    pub validation: usize,
    /// Held-out cells whose stages are done.
    pub held_out: usize,
    /// Epochs at most.
    pub epochs: usize,
    /// Epochs of trials of starting values that are not kept, or of whole trainings from them.
    pub other_epochs: usize,
    /// Epochs of the retraining on fixed masks, at most.
    pub retraining_epochs: usize,
    /// Epochs of the fit of held-out shifts that pass through the encoder.
    pub fit_epochs: usize,
    /// Samples per held-out cell.
    pub particles: usize,
    /// How often these are drawn.
    pub bounds: usize,
    /// Bytes per value.
    pub scalar: usize,
}

/// Predicts a run of these sizes from the `speed` on its data.
pub fn predict(speed: &Speed, sizes: &RunSizes, architecture: &Architecture, data: &Dataset) -> Prediction {
    // An epoch ends with one forward pass over the validation cells, which costs about a third of a step per cell.
    let epoch = (sizes.train as f64 + sizes.validation as f64 / 3.0) / speed.cells_per_second;
    let training_seconds = (sizes.epochs + sizes.other_epochs) as f64 * epoch;
    let heldout_seconds = match sizes.held_out {
        0 => 0.0,
        cells => {
            let fit = (sizes.fit_epochs * cells) as f64 / speed.cells_per_second;
            sizes.retraining_epochs as f64 * epoch
                + fit
                + (sizes.bounds * cells * sizes.particles) as f64 / speed.particles_per_second
        }
    };
    let parameters = crate::model::tensors::Tensors::new(architecture).parameters.len() * sizes.scalar;
    let latents = 2 * data.n_cells() * architecture.n_latents * 8;
    // The process has held the data and a training already; a run adds the weights of the best and of the last epoch,
    // a copy for the held-out stages, and the latents that it writes.
    let memory_bytes = speed.peak_rss_bytes.unwrap_or(data.counts.bytes() as u64) + (4 * parameters + latents) as u64;
    Prediction { threads: speed.threads, epochs: sizes.epochs, training_seconds, heldout_seconds, memory_bytes }
}

/// What `svae-cpu bench` measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Benchmark {
    /// Vector instructions in use.
    pub simd: &'static str,
    /// Every workload on every number of threads.
    pub shapes: Vec<Speed>,
    /// A run of the user's own settings, if these were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
}

impl Benchmark {
    /// The figures as one JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and words")
    }

    /// The figures as tables.
    pub fn text(&self) -> String {
        let mut table = Table::new([
            "shape",
            "threads",
            "cells/s",
            "ms/step",
            "GFLOP/s",
            "peak",
            "share of peak",
            "encoded/s",
            "particles/s",
            "peak RSS, MB",
        ])
        .right_aligned(1..10);
        let mut stages = Table::new(
            ["ms per step and thread".to_owned()]
                .into_iter()
                .chain(self.shapes.iter().map(|s| format!("{}, {}", s.name, s.threads))),
        )
        .right_aligned(1..1 + self.shapes.len());
        for s in &self.shapes {
            table.push([
                s.name.clone(),
                s.threads.to_string(),
                grouped(s.cells_per_second as u64),
                format!("{:.3}", s.ms_per_step),
                format!("{:.0}", s.gflops),
                format!("{:.0}", s.peak_gflops),
                format!("{:.2}", s.share_of_peak),
                grouped(s.encoded_cells_per_second as u64),
                grouped(s.particles_per_second as u64),
                s.peak_rss_bytes.map_or("?".to_owned(), |bytes| format!("{:.0}", bytes as f64 / 1e6)),
            ]);
        }
        for name in Stage::ALL.iter().map(|stage| stage.name()).chain(["everything_else"]) {
            let of = |s: &Speed| format!("{:.3}", s.stages.get(name).copied().unwrap_or(0.0));
            stages.push([name.to_owned()].into_iter().chain(self.shapes.iter().map(of)));
        }
        let mut text = format!("{table}\n\n{stages}\n\nVector instructions: {}.", self.simd);
        if let Some(p) = &self.prediction {
            text += &format!(
                "\n\nThe run with these settings, on {} threads: at most {} epochs in {}, then {} for held-out interventions; about {:.0} MB.",
                p.threads,
                p.epochs,
                seconds(p.training_seconds),
                seconds(p.heldout_seconds),
                p.memory_bytes as f64 / 1e6
            );
        }
        text
    }
}
