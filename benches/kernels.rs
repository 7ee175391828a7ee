//! Nanoseconds per entry of the element-wise kernels, and at which sparsity the first layer gains from visiting non-zero
//! counts only: `cargo bench --bench kernels`. One thread; best of several rounds.

use std::hint::black_box;
use std::time::Instant;
use svae_cpu::data::counts::in_memory::Counts;
use svae_cpu::model::layers::input_layer::{Input, backward_weight, forward as input_forward};
use svae_cpu::model::likelihood::{CellCounts, Likelihood, Prepared, Scratch};
use svae_cpu::model::workspace::Log1pTable;
use svae_cpu::numerics::real::Real;
use svae_cpu::numerics::simd::{level, vectorized};

/// Best time of one call in nanoseconds.
fn best(mut call: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..30 {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed().as_nanos() as f64);
    }
    best
}

/// A small generator of uniform numbers, so that the bench needs no setup.
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn negative_binomial<R: Real>(shape: &str, n_cells: usize, n_genes: usize, draw: impl Fn(&mut Uniform) -> u32) {
    let mut uniform = Uniform(7);
    let table: Vec<u32> = (0..n_cells * n_genes).map(|_| draw(&mut uniform)).collect();
    let counts = Counts::from_dense(n_genes, &table);
    let x: Vec<R> = table.iter().map(|&x| R::of_count(x)).collect();
    let library: Vec<R> = (0..n_cells).map(|n| R::from_f64(counts.row(n).sum() as f64)).collect();
    let logits: Vec<R> = (0..n_cells * n_genes).map(|_| R::from_f64(4.0 * uniform.next() - 2.0)).collect();
    let log_theta: Vec<R> = (0..n_genes).map(|_| R::from_f64(4.0 * uniform.next() - 1.0)).collect();
    let mut likelihood = Prepared::new(Likelihood::NegativeBinomial, 0.0, n_genes);
    let mut with_epsilon = Prepared::new(Likelihood::NegativeBinomial, 1e-8, n_genes);
    with_epsilon.update(&log_theta);
    let mut scratch = Scratch::new(n_genes);
    let mut d_log_theta = vec![R::ZERO; n_genes];
    let mut buffer = logits.clone();
    let per = 1.0 / (n_cells * n_genes) as f64;
    let genes = |n: usize| n * n_genes..(n + 1) * n_genes;
    let cell = |n: usize| CellCounts { x: &x[genes(n)], nonzero: counts.row(n), library: library[n] };

    let update = best(|| likelihood.update(black_box(&log_theta))) / n_genes as f64;
    let copy = best(|| black_box(&mut buffer).copy_from_slice(&logits));
    let mut train = |likelihood: &Prepared<R>| {
        best(|| {
            buffer.copy_from_slice(&logits);
            for n in 0..n_cells {
                let logits = &mut buffer[genes(n)];
                black_box(likelihood.value_and_gradient(logits, cell(n), R::ONE, &mut d_log_theta, &mut scratch));
            }
        }) - copy
    };
    let (train, plain) = (train(&likelihood), train(&with_epsilon));
    let count_only = best(|| {
        for n in 0..n_cells {
            black_box(likelihood.count_terms(counts.row(n), &mut scratch));
        }
    });
    let evaluate = best(|| {
        buffer.copy_from_slice(&logits);
        for n in 0..n_cells {
            black_box(likelihood.value(&mut buffer[genes(n)], cell(n), 0.0, &mut scratch));
        }
    }) - copy;
    println!(
        "{:>4} {shape:<28} value_and_gradient {:6.2}  value {:6.2}  count_terms {:6.2}  with_epsilon {:6.2}  update/gene {:6.2}",
        R::NAME,
        train * per,
        evaluate * per,
        count_only * per,
        plain * per,
        update,
    );
}

fn functions<R: Real>() {
    for n in [1, 7, 8, 15, 16, 17, 64, 100, 1187] {
        let x: Vec<R> = (0..n).map(|i| R::from_f64(-8.0 + 16.0 * i as f64 / n as f64)).collect();
        let positive: Vec<R> = x.iter().map(|x| x.exp()).collect();
        let mut y = x.clone();
        let rounds = 20_000 / n + 1;
        let per = 1.0 / (rounds * n) as f64;
        let mut time = |input: &[R], f: fn(&mut [R], &[R])| {
            best(|| {
                for _ in 0..rounds {
                    f(black_box(&mut y), black_box(input));
                }
            }) * per
        };
        let exp = time(&x, |y, x| {
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y = Real::exp(*x);
                    }
                },
            )
        });
        let lean = time(&x, |y, x| {
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y = x.exp_nonpositive();
                    }
                },
            )
        });
        let ln = time(&positive, |y, x| {
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y = Real::ln(*x);
                    }
                },
            )
        });
        let ln_1p = time(&positive, |y, x| {
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y = Real::ln_1p(*x);
                    }
                },
            )
        });
        let shared = time(&positive, |y, x| {
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.iter_mut().zip(x) {
                        let (log, excess, reciprocal) = x.ln_1p_and_reciprocal();
                        *y = log + excess + reciprocal;
                    }
                },
            )
        });
        println!(
            "{:>4} n = {n:<5} exp {exp:6.2}  exp_nonpositive {lean:6.2}  ln {ln:6.2}  ln_1p {ln_1p:6.2}  ln_1p_and_reciprocal {shared:6.2}",
            R::NAME
        );
    }
}

/// The encoder's first layer on 128 cells, by dense products and by non-zero counts, in microseconds.
fn input_layer(likelihood: f64) {
    let (n_cells, n_genes, h) = (128, 1187, 128);
    let mut uniform = Uniform(3);
    let table: Vec<u32> = (0..n_cells * n_genes).map(|_| u32::from(uniform.next() < likelihood) * 3).collect();
    let counts = Counts::from_dense(n_genes, &table);
    let dense: Vec<f32> = table.iter().map(|&x| (x as f32).ln_1p()).collect();
    let weight: Vec<f32> = (0..n_genes * h).map(|_| uniform.next() as f32).collect();
    let (bias, mut y) = (vec![0.0f32; h], vec![0.0f32; n_cells * h]);
    let mut d_weight = vec![0.0f32; n_genes * h];
    let (row, log1p) = (|n: usize| counts.row(n), Log1pTable::new());
    let mut times = Vec::new();
    for sparse in [false, true] {
        let input = match sparse {
            true => Input::Nonzero { row, log1p: &log1p, n_genes },
            false => Input::Dense { values: &dense, n_genes },
        };
        times.push(best(|| input_forward(black_box(&mut y), input, None, &weight, &bias)) / 1e3);
        times.push(
            best(|| {
                // Tiles as in a training step.
                for from in (0..n_genes).step_by(160) {
                    let rows = from..(from + 160).min(n_genes);
                    backward_weight(&mut d_weight[rows.start * h..rows.end * h], rows, black_box(&y), h, input, None);
                }
            }) / 1e3,
        );
    }
    println!(
        "first layer, 128 x 1187, {:>2.0} % non-zero, us: forward dense {:5.0} sparse {:5.0}  gradient dense {:5.0} sparse {:5.0}",
        100.0 * likelihood,
        times[0],
        times[2],
        times[1],
        times[3]
    );
}

fn main() {
    println!("instructions: {}; all figures in ns per entry", level());
    // Counts of a simulation: nearly none zero, 0 to 300, most of them small.
    let simulated = |u: &mut Uniform| (300.0 * u.next() * u.next()) as u32;
    // Counts of a screen: 15 % non-zero, geometric from 1.
    let sparse = |u: &mut Uniform| if u.next() < 0.85 { 0 } else { 1 + (-(1.0 - u.next()).ln() * 1.5) as u32 };
    negative_binomial::<f32>("128 x 100, counts 0-300", 128, 100, simulated);
    negative_binomial::<f64>("128 x 100, counts 0-300", 128, 100, simulated);
    negative_binomial::<f32>("128 x 1187, 15 % non-zero", 128, 1187, sparse);
    negative_binomial::<f64>("128 x 1187, 15 % non-zero", 128, 1187, sparse);
    functions::<f32>();
    functions::<f64>();
    for likelihood in [0.02, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5] {
        input_layer(likelihood);
    }
}
