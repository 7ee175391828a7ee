//! Each block of the model by itself.
//!
//! A block with many outputs is turned into one number, the sum of its outputs with random weights; the weights are
//! then the gradient that its backward receives. Sizes are arguments, so that tests can draw them.

use crate::data::counts::in_memory::Counts;
use crate::data::dataset::InterventionRows;
use crate::model::adam::{Adam, AdamSettings};
use crate::model::architecture::{LatentDistribution, MaskKind};
use crate::model::latent as posterior;
use crate::model::layers::{
    activation as relu, batch_norm as norm, input_layer as first, layer_norm as row_norm, linear as layer,
};
use crate::model::likelihood::poisson as poisson_likelihood;
use crate::model::likelihood::{CellCounts, Likelihood, Prepared, Scratch};
use crate::model::parameters::{Buffer, LayoutBuilder};
use crate::model::prior::sparsity::Penalty;
use crate::model::prior::table::{CellInterventions, MaskBuffers, Masks, PriorTable};
use crate::model::prior::{mask, shift};
use crate::model::workspace::Log1pTable;
use crate::numerics::matmul::{Accumulate, Rows};
use crate::parallel::team::Team;
use crate::verification::finite_differences::comparison::{Comparison, Evaluation, Random};
use crate::verification::outcome::{Check, CheckKind};

/// Rows of a block, as the workspace cuts them.
const ROWS: usize = crate::model::workspace::ROWS_PER_BLOCK;

/// Every block, at sizes that cross the vector widths and the row blocks.
pub fn check_blocks(seed: u64) -> Vec<Check> {
    let mut checks = vec![
        linear(37, 21, 0, 19, seed),
        named(linear(37, 21, 5, 35, seed), "linear, with covariates"),
        input_layer(37, 70, 3, 19, false, seed),
        named(input_layer(37, 70, 3, 145, true, seed), "input layer, by non-zero counts"),
        batch_norm(70, 19, seed),
        layer_norm(9, 37, seed),
        activation(33, 17, None, seed),
        named(activation(33, 17, Some(0.3), seed), "ReLU and dropout"),
        latent(7, 15, LatentDistribution::Normal, false, seed),
        named(latent(7, 15, LatentDistribution::LogisticNormal, false, seed), "latent, logistic-normal"),
        named(latent(7, 15, LatentDistribution::Normal, true, seed), "latent, full covariance"),
        soft_mask(37, 1.0, seed),
        named(soft_mask(37, 0.3, seed), "soft mask, temperature 0.3"),
        hard_mask(1000, 0.7, seed),
        prior(5, 4, 17, 3, seed),
        integrated_masks(5, 4, 17, 3, seed),
        penalty(Penalty::SpikeAndSlab { alpha: 100.0 }, 35, seed),
        penalty(Penalty::MeanProbability { alpha: 10.0 }, 35, seed),
        negative_binomial(37, 0.0, seed),
        negative_binomial(37, 1e-8, seed),
        poisson(37, seed),
    ];
    checks.push(adam(1000, 5, seed));
    checks
}

/// Divergences of all cells, summed.
fn divergence(batch: usize, mean: &[f64], variance: &[f64], prior_mean: &[f64]) -> f64 {
    let mut each = vec![0.0; batch];
    shift::divergences(&mut each, &mut vec![0.0; mean.len()], mean, variance, prior_mean);
    each.iter().sum()
}

fn named(check: Check, name: &str) -> Check {
    Check { name: name.to_owned(), ..check }
}

/// [`crate::model::layers::linear`] of `batch` rows: gradients of input, weight and bias, the latter two in tiles of 16 rows.
pub fn linear(batch: usize, n_in: usize, n_covariates: usize, n_out: usize, seed: u64) -> Check {
    let mut random = Random::new(seed, 1);
    let width = n_in + n_covariates;
    let x = random.normal(batch * n_in);
    let covariates = random.normal(batch * n_covariates);
    let (weight, bias) = (random.normal(n_out * width), random.normal(n_out));
    let d_y = random.normal(batch * n_out);
    let injected = (n_covariates > 0).then(|| Rows::new(&covariates, batch, n_covariates));
    let value = |x: &[f64], weight: &[f64], bias: &[f64]| {
        let mut y = vec![0.0; batch * n_out];
        layer::forward(&mut y, Rows::new(x, batch, n_in), injected, weight, bias, n_in);
        Evaluation::weighted(&d_y, &y)
    };

    let mut d_x = random.normal(batch * n_in);
    let before = d_x.clone();
    layer::backward_input(&mut d_x, Accumulate::Add, Rows::new(&d_y, batch, n_out), &weight, n_in, n_out);
    d_x.iter_mut().zip(&before).for_each(|(d, b)| *d -= b);
    let (mut d_weight, mut d_bias) = (vec![f64::NAN; n_out * width], vec![f64::NAN; n_out]);
    for from in (0..n_out).step_by(16) {
        let to = (from + 16).min(n_out);
        layer::backward_parameters(
            &mut d_weight[from * width..to * width],
            &mut d_bias[from..to],
            Rows::strided(&d_y[from..], batch, to - from, n_out),
            Rows::new(&x, batch, n_in),
            injected,
            n_in,
        );
    }
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &x, &d_x, |x| value(x, &weight, &bias));
    comparison.gradient(&mut random, &weight, &d_weight, |weight| value(&x, weight, &bias));
    comparison.gradient(&mut random, &bias, &d_bias, |bias| value(&x, &weight, bias));
    comparison.check("linear")
}

/// [`crate::model::layers::input_layer`] of `batch` cells, dense or by non-zero counts: gradients of weight (in tiles of 32 rows)
/// and bias. Every third count is not zero.
pub fn input_layer(batch: usize, n_genes: usize, n_covariates: usize, n_out: usize, sparse: bool, seed: u64) -> Check {
    let mut random = Random::new(seed, 11);
    let mut table: Vec<u32> = random.uniform(batch * n_genes, 0.0, 30.0).iter().map(|&x| x as u32).collect();
    table.iter_mut().enumerate().filter(|(i, _)| i % 3 > 0).for_each(|(_, x)| *x = 0);
    let counts = Counts::from_dense(n_genes, &table);
    let dense: Vec<f64> = table.iter().map(|&x| (x as f64).ln_1p()).collect();
    let covariates = random.normal(batch * n_covariates);
    let injected = (n_covariates > 0).then(|| Rows::new(&covariates, batch, n_covariates));
    let n_rows = n_genes + n_covariates;
    let (weight, bias) = (random.normal(n_rows * n_out), random.normal(n_out));
    let d_y = random.normal(batch * n_out);
    let (row, log1p) = (|i: usize| counts.row(i), Log1pTable::new());
    let input = match sparse {
        true => first::Input::Nonzero { row, log1p: &log1p, n_genes },
        false => first::Input::Dense { values: &dense, n_genes },
    };
    let value = |weight: &[f64], bias: &[f64]| {
        let mut y = vec![0.0; batch * n_out];
        first::forward(&mut y, input, injected, weight, bias);
        Evaluation::weighted(&d_y, &y)
    };
    let (mut d_weight, mut d_bias) = (vec![f64::NAN; n_rows * n_out], vec![f64::NAN; n_out]);
    for from in (0..n_rows).step_by(32) {
        let rows = from..(from + 32).min(n_rows);
        let tile = &mut d_weight[rows.start * n_out..rows.end * n_out];
        first::backward_weight(tile, rows, &d_y, n_out, input, injected);
    }
    layer::backward_bias(&mut d_bias, Rows::new(&d_y, batch, n_out));
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &weight, &d_weight, |weight| value(weight, &bias));
    comparison.gradient(&mut random, &bias, &d_bias, |bias| value(&weight, bias));
    comparison.check("input layer")
}

/// [`crate::model::layers::batch_norm`] in training mode, over row blocks: gradients of input, scale and offset.
pub fn batch_norm(batch: usize, width: usize, seed: u64) -> Check {
    let mut random = Random::new(seed, 2);
    let y = random.normal(batch * width);
    let (gamma, beta) = (random.normal(width), random.normal(width));
    let d_u = random.normal(batch * width);
    let moments = |y: &[f64]| {
        let mut blocks = vec![0.0; batch.div_ceil(ROWS) * 2 * width];
        for (moments, rows) in blocks.chunks_exact_mut(2 * width).zip(y.chunks(ROWS * width)) {
            norm::block_moments(moments, rows);
        }
        let (mut mean, mut squares) = (vec![0.0; width], vec![0.0; width]);
        norm::combine_moments(&mut mean, &mut squares, &blocks, |i| (batch - i * ROWS).min(ROWS));
        let mut inverse = vec![0.0; width];
        norm::inverse_deviation(&mut inverse, &squares, batch);
        (mean, inverse)
    };
    let value = |y: &[f64], gamma: &[f64], beta: &[f64]| {
        let (mean, inverse) = moments(y);
        let mut u = vec![0.0; batch * width];
        norm::forward(&mut u, y, &mean, &inverse, gamma, beta);
        Evaluation::weighted(&d_u, &u)
    };

    let (mean, inverse) = moments(&y);
    let mut sums = vec![0.0; batch.div_ceil(ROWS) * 2 * width];
    for (i, sums) in sums.chunks_exact_mut(2 * width).enumerate() {
        let rows = i * ROWS * width..((i + 1) * ROWS * width).min(y.len());
        norm::block_gradient_sums(sums, &d_u[rows.clone()], &y[rows], &mean, &inverse);
    }
    let (mut d_gamma, mut d_beta) = (vec![0.0; width], vec![0.0; width]);
    norm::combine_gradient_sums(&mut d_beta, &mut d_gamma, &sums);
    let mut d_y = d_u.clone();
    norm::backward(&mut d_y, &y, &mean, &inverse, &gamma, &d_beta, &d_gamma, batch);
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &y, &d_y, |y| value(y, &gamma, &beta));
    comparison.gradient(&mut random, &gamma, &d_gamma, |gamma| value(&y, gamma, &beta));
    comparison.gradient(&mut random, &beta, &d_beta, |beta| value(&y, &gamma, beta));
    comparison.check("batch normalisation")
}

/// [`crate::model::layers::layer_norm`]: gradient of the input.
pub fn layer_norm(batch: usize, width: usize, seed: u64) -> Check {
    let mut random = Random::new(seed, 3);
    let u = random.normal(batch * width);
    let d_v = random.normal(batch * width);
    let mut statistics = vec![0.0; 2 * batch];
    row_norm::forward(&mut u.clone(), &mut statistics, width);
    let mut d_u = d_v.clone();
    for ((d, u), s) in d_u.chunks_exact_mut(width).zip(u.chunks_exact(width)).zip(statistics.chunks_exact(2)) {
        row_norm::backward_row(d, u, s);
    }
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &u, &d_u, |u| {
        let mut v = u.to_vec();
        row_norm::forward(&mut v, &mut vec![0.0; 2 * batch], width);
        Evaluation::weighted(&d_v, &v)
    });
    comparison.check("layer normalisation")
}

/// [`crate::model::layers::activation`], with dropout at this rate if given: gradient of the input.
pub fn activation(batch: usize, width: usize, dropout: Option<f64>, seed: u64) -> Check {
    let mut random = Random::new(seed, 4);
    let n = batch * width;
    let v = random.normal(n);
    let d_h = random.normal(n);
    let keep: Option<Vec<f64>> = dropout.map(|rate| {
        let draws = random.uniform(n, 0.0, 1.0);
        draws.iter().map(|&u| if u < rate { 0.0 } else { 1.0 / (1.0 - rate) }).collect()
    });
    let forward = |v: &[f64]| {
        let mut h = v.to_vec();
        relu::forward(&mut h, keep.as_deref());
        h
    };
    let mut d_v = d_h.clone();
    relu::backward(&mut d_v, &forward(&v), keep.as_deref());
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &v, &d_v, |v| {
        let h = forward(v);
        Evaluation::weighted(&d_h, &h).with_sides([&h[..]])
    });
    comparison.check("ReLU")
}

/// [`crate::model::latent`] with the divergence of [`crate::model::prior::shift`]: gradients of mean, log-variance and, with a
/// `full` covariance, of its factor.
pub fn latent(batch: usize, n_latents: usize, distribution: LatentDistribution, full: bool, seed: u64) -> Check {
    let mut random = Random::new(seed, 5);
    let n = batch * n_latents;
    let (mean, prior_mean, noise) = (random.normal(n), random.normal(n), random.normal(n));
    // From variances at the floor of 1e-4 to large ones.
    let log_variance = random.uniform(n, -14.0, 3.0);
    let weight = random.normal(n);
    let factor = random.normal(if full { batch * n_latents * (n_latents - 1) / 2 } else { 0 });
    let scale = 0.7;
    let forward = |mean: &[f64], log_variance: &[f64], factor: &[f64]| {
        let (mut z, mut variance) = (vec![0.0; n], vec![0.0; n]);
        posterior::forward(&mut z, &mut variance, mean, log_variance, factor, Some(&noise), distribution, n_latents);
        (z, variance)
    };
    let value = |mean: &[f64], log_variance: &[f64], factor: &[f64]| {
        let (z, variance) = forward(mean, log_variance, factor);
        let mut of_factor = vec![0.0; batch];
        shift::add_factor_divergences(&mut of_factor, factor);
        let divergence = divergence(batch, mean, &variance, &prior_mean) + of_factor.iter().sum::<f64>();
        let of_sample = Evaluation::weighted(&weight, &z);
        let (value, magnitude) = (of_sample.value + scale * divergence, of_sample.magnitude + divergence);
        Evaluation { value, magnitude, ..of_sample }
    };

    let (z, variance) = forward(&mean, &log_variance, &factor);
    let mut d_z = weight.clone();
    let (mut d_kl_mean, mut d_mean, mut d_log_variance) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    shift::divergence_gradient(&mut d_kl_mean, &mean, &prior_mean, scale);
    posterior::backward(
        &mut d_mean,
        &mut d_log_variance,
        &mut d_z,
        &z,
        &variance,
        &noise,
        &d_kl_mean,
        scale,
        distribution,
        n_latents,
    );
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &mean, &d_mean, |mean| value(mean, &log_variance, &factor));
    comparison
        .gradient(&mut random, &log_variance, &d_log_variance, |log_variance| value(&mean, log_variance, &factor));
    if full {
        let mut d_factor = vec![0.0; factor.len()];
        posterior::correlate_backward(&mut d_factor, &d_z, &factor, &noise, scale, n_latents);
        comparison.gradient(&mut random, &factor, &d_factor, |factor| value(&mean, &log_variance, factor));
    }
    comparison.check("latent")
}

/// [`crate::model::prior::mask`], soft: derivative in the logit.
pub fn soft_mask(n: usize, temperature: f64, seed: u64) -> Check {
    let mut random = Random::new(seed, 6);
    let logit: Vec<f64> = random.normal(n).iter().map(|l| 3.0 * l).collect();
    let noise = random.normal(n);
    let weight = random.normal(n);
    let mut slope = vec![0.0; n];
    mask::forward(&mut vec![0.0; n], &mut slope, &logit, &noise, MaskKind::Soft, temperature);
    let d_logit: Vec<f64> = slope.iter().zip(&weight).map(|(s, w)| s * w).collect();
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &logit, &d_logit, |logit| {
        let mut y = vec![0.0; n];
        mask::forward(&mut y, &mut vec![0.0; n], logit, &noise, MaskKind::Soft, temperature);
        Evaluation::weighted(&weight, &y)
    });
    comparison.check("soft mask")
}

/// [`crate::model::prior::mask`], hard, at the noise of a soft one: the same slope, and 1 where the soft mask exceeds 1/2.
///
/// The error is that of the slope against y (1 - y) / temperature, y by the plain formula; a wrong forward value or a
/// slope that differs from the soft mask's in a single bit counts as infinite.
pub fn hard_mask(n: usize, temperature: f64, seed: u64) -> Check {
    let mut random = Random::new(seed, 7);
    let logit: Vec<f64> = random.normal(n).iter().map(|l| 3.0 * l).collect();
    let noise = random.normal(n);
    let [mut hard, mut soft, mut slope, mut soft_slope] = [(); 4].map(|()| vec![0.0; n]);
    mask::forward(&mut hard, &mut slope, &logit, &noise, MaskKind::Hard, temperature);
    mask::forward(&mut soft, &mut soft_slope, &logit, &noise, MaskKind::Soft, temperature);
    let mut worst = 0f64;
    for k in 0..n {
        let s = (logit[k] + noise[k]) / temperature;
        // y (1 - y), with 1 - y by its own formula.
        let expected = 1.0 / ((1.0 + f64::exp(-s)) * (1.0 + f64::exp(s)) * temperature);
        worst = worst.max((slope[k] - expected).abs() / expected);
        if hard[k] != f64::from(u8::from(soft[k] > 0.5)) || slope[k] != soft_slope[k] || !slope[k].is_finite() {
            worst = f64::INFINITY;
        }
    }
    // A dozen roundings.
    Check::new("hard mask: the slope of the soft one", CheckKind::Formula, n, worst, 1e-14)
}

/// [`crate::model::prior::shift`]: gradients of the divergence in mean, shifts and mask logits, each cell under several
/// interventions of different weights, with soft masks.
pub fn prior(batch: usize, n_interventions: usize, n_latents: usize, per_cell: usize, seed: u64) -> Check {
    let mut random = Random::new(seed, 8);
    let (n, table) = (batch * n_latents, n_interventions * n_latents);
    let (mean, shift, logit) = (random.normal(n), random.normal(table), random.normal(table));
    let variance = random.uniform(n, 0.01, 3.0);
    let noise = random.normal(batch * per_cell * n_latents);
    let weights = random.uniform(batch * per_cell, -1.0, 2.0);
    let interventions: Vec<usize> = (0..batch * per_cell).map(|_| random.below(n_interventions)).collect();
    let scale = 1.3;
    let forward = |shift: &[f64], logit: &[f64]| {
        let [mut y, mut slope] = [(); 2].map(|()| vec![0.0; batch * per_cell * n_latents]);
        let mut prior_mean = vec![0.0; n];
        for (entry, &a) in interventions.iter().enumerate() {
            let at = entry * n_latents..(entry + 1) * n_latents;
            let of_a = a * n_latents..(a + 1) * n_latents;
            let cell = entry / per_cell;
            let (y, slope, noise) = (&mut y[at.clone()], &mut slope[at.clone()], &noise[at]);
            mask::forward(y, slope, &logit[of_a.clone()], noise, MaskKind::Soft, 0.8);
            let prior_mean = &mut prior_mean[cell * n_latents..(cell + 1) * n_latents];
            shift::add_intervention(prior_mean, weights[entry], y, &shift[of_a]);
        }
        (y, slope, prior_mean)
    };
    let value = |mean: &[f64], shift: &[f64], logit: &[f64]| {
        let (_, _, prior_mean) = forward(shift, logit);
        let total: f64 = divergence(batch, mean, &variance, &prior_mean);
        Evaluation { value: scale * total, magnitude: scale * (total + n as f64), sides: 0 }
    };

    let (y, slope, prior_mean) = forward(&shift, &logit);
    let mut d_mean = vec![0.0; n];
    shift::divergence_gradient(&mut d_mean, &mean, &prior_mean, scale);
    let d_prior_mean: Vec<f64> = d_mean.iter().map(|d| -d).collect();
    let (mut d_shift, mut d_logit) = (vec![0.0; table], vec![0.0; table]);
    for (entry, &a) in interventions.iter().enumerate() {
        let at = entry * n_latents..(entry + 1) * n_latents;
        let of_a = a * n_latents..(a + 1) * n_latents;
        let cell = entry / per_cell;
        shift::add_intervention_gradient(
            &mut d_shift[of_a.clone()],
            Some(&mut d_logit[of_a.clone()]),
            &d_prior_mean[cell * n_latents..(cell + 1) * n_latents],
            weights[entry],
            &y[at.clone()],
            &slope[at],
            &shift[of_a],
        );
    }
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &mean, &d_mean, |mean| value(mean, &shift, &logit));
    comparison.gradient(&mut random, &shift, &d_shift, |shift| value(&mean, shift, &logit));
    comparison.gradient(&mut random, &logit, &d_logit, |logit| value(&mean, &shift, logit));
    comparison.check("prior")
}

/// [`crate::model::prior::table`]: gradients of the divergence in mean, shifts and mask logits where masks are integrated out,
/// each cell under several interventions of different weights.
pub fn integrated_masks(batch: usize, n_interventions: usize, n_latents: usize, per_cell: usize, seed: u64) -> Check {
    let mut random = Random::new(seed, 10);
    let (n, table, entries) = (batch * n_latents, n_interventions * n_latents, batch * per_cell * n_latents);
    let (mean, shift) = (random.normal(n), random.normal(table));
    let logit: Vec<f64> = random.normal(table).iter().map(|l| 2.0 * l).collect();
    let variance = random.uniform(n, 0.01, 3.0);
    let mut rows = InterventionRows::default();
    for _ in 0..batch {
        let weights = random.uniform(per_cell, -1.0, 2.0);
        let row: Vec<_> = weights.iter().map(|&w| (random.below(n_interventions) as u32, w as f32)).collect();
        rows.push(&row);
    }
    let cells: Vec<usize> = (0..batch).collect();
    let of = CellInterventions { rows: &rows, cells: &cells, per_cell };
    let scale = 1.3;
    let forward = |shift: &[f64], logit: &[f64], mean: &[f64]| {
        let prior = PriorTable { n_latents, shifts: Some(shift), masks: Masks::Integrated { logits: logit } };
        let [mut mask, mut slope, mut room] = [(); 3].map(|()| vec![0.0; entries]);
        let buffers = MaskBuffers { mask: &mut mask, slope: &mut slope, logit: &mut room, noise: &[] };
        prior.masks_of_cells(buffers, of);
        let (mut prior_mean, mut kl) = (vec![0.0; n], vec![0.0; batch]);
        prior.means_of_cells(&mut prior_mean, &mask, of);
        shift::divergences(&mut kl, &mut vec![0.0; n], mean, &variance, &prior_mean);
        prior.add_mask_divergences(&mut kl, &slope, of);
        (kl.iter().sum::<f64>(), mask, slope, prior_mean)
    };
    let value = |mean: &[f64], shift: &[f64], logit: &[f64]| {
        let total = forward(shift, logit, mean).0;
        Evaluation { value: scale * total, magnitude: scale * (total + n as f64), sides: 0 }
    };
    let (_, mask, slope, prior_mean) = forward(&shift, &logit, &mean);
    let mut d_mean = vec![0.0; n];
    shift::divergence_gradient(&mut d_mean, &mean, &prior_mean, scale);
    let (mut d_shift, mut d_logit) = (vec![0.0; table], vec![0.0; table]);
    let prior = PriorTable { n_latents, shifts: Some(&shift), masks: Masks::Integrated { logits: &logit } };
    prior.add_gradient([&mut d_shift, &mut d_logit], (&d_mean, scale), [&mask, &slope], of);
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &mean, &d_mean, |mean| value(mean, &shift, &logit));
    comparison.gradient(&mut random, &shift, &d_shift, |shift| value(&mean, shift, &logit));
    comparison.gradient(&mut random, &logit, &d_logit, |logit| value(&mean, &shift, logit));
    comparison.check("prior, masks integrated out")
}

/// A [`Penalty`]: gradient in the mask logits, with a weight.
pub fn penalty(penalty: Penalty, n: usize, seed: u64) -> Check {
    let mut random = Random::new(seed, 9);
    let logits: Vec<f64> = random.normal(n).iter().map(|l| 4.0 * l).collect();
    let weight = 0.6;
    let mut d_logits = vec![0.0; n];
    penalty.add_gradient(&mut d_logits, &logits, weight);
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &logits, &d_logits, |logits| {
        let value = weight * penalty.value(logits);
        let magnitude = match penalty {
            // The constant cancels part of the sum.
            Penalty::SpikeAndSlab { alpha } => value.abs() + 2.0 * logits.len() as f64 * alpha.ln().abs(),
            _ => value.abs(),
        };
        Evaluation { value, magnitude, sides: 0 }
    });
    comparison.check(match penalty {
        Penalty::None => "no penalty",
        Penalty::SpikeAndSlab { .. } => "penalty, spike-and-slab",
        Penalty::MeanProbability { .. } => "penalty, mean probability",
    })
}

/// [`crate::model::likelihood::negative_binomial`] of one cell: gradients in logits and log-dispersions.
///
/// Without `epsilon` it is the likelihood of evaluation that is differenced, and the gradient that of training.
pub fn negative_binomial(n_genes: usize, epsilon: f64, seed: u64) -> Check {
    let mut random = Random::new(seed, 10);
    let logits = random.normal(n_genes);
    let log_theta: Vec<f64> = random.normal(n_genes).iter().map(|t| 2.0 * t).collect();
    // Counts from zero to thousands, many of them zero.
    let exponents = random.uniform(n_genes, -3.0, 8.0);
    let counts: Vec<u32> = exponents.iter().map(|e| e.exp() as u32).collect();
    let counts = Counts::from_dense(n_genes, &counts);
    let row = counts.row(0);
    let mut x = vec![0.0; n_genes];
    row.for_each(|g, count| x[g] = count as f64);
    let library = 1.3 * row.sum() as f64 + 0.7;
    let scale = 1.7;
    let cell = CellCounts { x: &x, nonzero: row, library };
    let mut scratch = Scratch::new(n_genes);
    let likelihood = |log_theta: &[f64]| {
        let mut likelihood = Prepared::new(Likelihood::NegativeBinomial, epsilon, n_genes);
        likelihood.update(log_theta);
        likelihood
    };

    let (mut d_logits, mut d_log_theta) = (logits.clone(), vec![0.0; n_genes]);
    likelihood(&log_theta).value_and_gradient(&mut d_logits, cell, scale, &mut d_log_theta, &mut scratch);
    // ln x! and x log mu, of size x ln x each, all but cancel.
    let magnitude: f64 = x.iter().map(|&x| 2.0 * x * x.ln_1p() + 1.0).sum();
    let mut value = |logits: &[f64], log_theta: &[f64]| {
        let likelihood = likelihood(log_theta);
        let mut l = logits.to_vec();
        let loss = if epsilon > 0.0 {
            likelihood.value_and_gradient(&mut l, cell, 1.0, &mut vec![0.0; n_genes], &mut scratch)
        } else {
            let terms = likelihood.count_terms(row, &mut scratch);
            likelihood.value(&mut l, cell, terms, &mut scratch)
        };
        Evaluation { value: scale * loss, magnitude: scale * (loss.abs() + magnitude), sides: 0 }
    };
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &logits, &d_logits, |logits| value(logits, &log_theta));
    comparison.gradient(&mut random, &log_theta, &d_log_theta, |log_theta| value(&logits, log_theta));
    comparison.check(if epsilon > 0.0 {
        "negative binomial, constant inside the logarithms"
    } else {
        "negative binomial"
    })
}

/// [`crate::model::likelihood::poisson`] of one cell: the gradient of training against differences of the likelihood of
/// evaluation.
pub fn poisson(n_genes: usize, seed: u64) -> Check {
    let mut random = Random::new(seed, 12);
    let logits = random.normal(n_genes);
    // Counts from zero to thousands, many of them zero.
    let exponents = random.uniform(n_genes, -3.0, 8.0);
    let counts: Vec<u32> = exponents.iter().map(|e| e.exp() as u32).collect();
    let counts = Counts::from_dense(n_genes, &counts);
    let row = counts.row(0);
    let mut x = vec![0.0; n_genes];
    row.for_each(|g, count| x[g] = count as f64);
    let library = 1.3 * row.sum() as f64 + 0.7;
    let scale = 1.7;

    let mut d_logits = logits.clone();
    let cell = CellCounts { x: &x, nonzero: row, library };
    poisson_likelihood::value_and_gradient(&mut d_logits, cell, scale, &mut Scratch::new(n_genes));
    // ln x! and x log mu, of size x ln x each, all but cancel.
    let magnitude: f64 = x.iter().map(|&x| 2.0 * x * x.ln_1p() + 1.0).sum();
    let terms = poisson_likelihood::count_terms(row);
    let mut comparison = Comparison::default();
    comparison.gradient(&mut random, &logits, &d_logits, |logits| {
        let loss = poisson_likelihood::value(logits, cell, terms);
        Evaluation { value: scale * loss, magnitude: scale * (loss.abs() + magnitude), sides: 0 }
    });
    comparison.check("Poisson")
}

/// [`Adam`] against the formulas of its paper, applied parameter by parameter, over `steps` steps on part of the
/// parameters; the rest must not move.
pub fn adam(n: usize, steps: usize, seed: u64) -> Check {
    let mut random = Random::new(seed, 11);
    let mut layout = LayoutBuilder::default();
    layout.add("values".into(), &[n]);
    let mut parameters = Buffer::<f64>::zeros(&layout.finish());
    parameters.values.copy_from_slice(&random.normal(n));
    let mut gradient = parameters.clone();
    let trained = [0..n / 3, n / 2..n];
    let AdamSettings { learning_rate, beta1, beta2, epsilon, weight_decay } = AdamSettings {
        // A decay large enough to be seen.
        weight_decay: 0.01,
        ..AdamSettings::default()
    };
    let settings = AdamSettings { learning_rate, beta1, beta2, epsilon, weight_decay };
    let mut expected = parameters.values.clone();
    let (mut first, mut second) = (vec![0.0; n], vec![0.0; n]);
    let mut adam = Adam::new(&parameters);
    for t in 1..=steps {
        gradient.values.copy_from_slice(&random.normal(n));
        adam.step(&Team::single(), &mut parameters, &gradient, &trained, &settings);
        for i in trained.iter().cloned().flatten() {
            let g = gradient.values[i] + weight_decay * expected[i];
            first[i] = beta1 * first[i] + (1.0 - beta1) * g;
            second[i] = beta2 * second[i] + (1.0 - beta2) * g * g;
            let unbiased_first = first[i] / (1.0 - beta1.powi(t as i32));
            let unbiased_second = second[i] / (1.0 - beta2.powi(t as i32));
            expected[i] -= learning_rate * unbiased_first / (unbiased_second.sqrt() + epsilon);
        }
    }
    let errors =
        parameters.values.iter().zip(expected.iter()).map(|(got, want)| (got - want).abs() / want.abs().max(1e-3));
    // Each step is a handful of roundings of a change of about 1e-3.
    Check::new("Adam", CheckKind::Formula, n, errors.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a }), 1e-12)
}
