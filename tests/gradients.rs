//! Hand-derived gradients against finite differences in f64: every block, and the whole objective with respect to
//! every tensor, over random architectures; and the regions where floating-point numbers are in danger.
//!
//! Sizes cross the vector widths (8, 16 and 32 lanes) and the row blocks of a minibatch (32 cells). Step, stencil and
//! tolerance are those of `svae_cpu::verification::finite_differences`, where they are explained.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use svae_cpu::data::counts::in_memory::Counts;
use svae_cpu::data::dataset::{Categorical, Continuous, Covariates, Dataset, InterventionRows};
use svae_cpu::data::minibatch::Batch;
use svae_cpu::model::adam::{Adam, AdamSettings};
use svae_cpu::model::architecture::{Architecture, LatentDistribution, MaskKind, Prior};
use svae_cpu::model::latent;
use svae_cpu::model::layers::batch_norm;
use svae_cpu::model::likelihood::Likelihood;
use svae_cpu::model::network::Network;
use svae_cpu::model::noise::Noise;
use svae_cpu::model::objective::{Objective, Weights};
use svae_cpu::model::parameters::{Buffer, LayoutBuilder};
use svae_cpu::model::pass::StepInput;
use svae_cpu::model::prior::sparsity::Penalty;
use svae_cpu::model::prior::{mask, shift as prior};
use svae_cpu::model::step::Loss;
use svae_cpu::model::workspace::Workspace;
use svae_cpu::numerics::real::Real;
use svae_cpu::parallel::team::Team;
use svae_cpu::verification::finite_differences as differences;
use svae_cpu::verification::finite_differences::Random;
use svae_cpu::verification::outcome::Check;

/// The failed checks, as text.
fn failures(checks: &[Check]) -> Result<(), TestCaseError> {
    let failed: Vec<String> = checks
        .iter()
        .filter(|check| !check.pass)
        .map(|c| format!("{}: {:e} > {:e} ({} points)", c.name, c.worst_relative_error, c.tolerance, c.points))
        .collect();
    prop_assert!(!checks.is_empty() && failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// The same cases in every run, unless PROPTEST_RNG_SEED says otherwise.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let rng_seed = match default.rng_seed {
        RngSeed::Random => RngSeed::Fixed(20_230_411),
        fixed => fixed,
    };
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..default }
}

fn distribution() -> impl Strategy<Value = LatentDistribution> {
    prop_oneof![Just(LatentDistribution::Normal), Just(LatentDistribution::LogisticNormal)]
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn linear(batch in 1..70usize, n_in in 1..70usize, n_covariates in 0..9usize, n_out in 1..70usize, seed: u64) {
        failures(&[differences::linear(batch, n_in, n_covariates, n_out, seed)])?;
    }

    #[test]
    fn input_layer(
        batch in 1..40usize,
        n_genes in 1..70usize,
        n_covariates in 0..5usize,
        n_out in 1..300usize,
        sparse: bool,
        seed: u64,
    ) {
        failures(&[differences::input_layer(batch, n_genes, n_covariates, n_out, sparse, seed)])?;
    }

    #[test]
    fn batch_normalisation(batch in 1..100usize, width in 1..40usize, seed: u64) {
        failures(&[differences::batch_norm(batch, width, seed)])?;
    }

    #[test]
    fn layer_normalisation(batch in 1..40usize, width in 2..70usize, seed: u64) {
        failures(&[differences::layer_norm(batch, width, seed)])?;
    }

    #[test]
    fn activation(batch in 1..40usize, width in 1..70usize, dropout in proptest::option::of(0.05..0.8f64), seed: u64) {
        failures(&[differences::activation(batch, width, dropout, seed)])?;
    }

    #[test]
    fn latent_sample(
        batch in 1..20usize, n_latents in 1..40usize, distribution in distribution(), full: bool, seed: u64,
    ) {
        failures(&[differences::latent(batch, n_latents, distribution, full, seed)])?;
    }

    #[test]
    fn soft_mask(n in 1..70usize, temperature in 0.2..3f64, seed: u64) {
        failures(&[differences::soft_mask(n, temperature, seed)])?;
    }

    #[test]
    fn hard_mask_passes_on_the_soft_gradient(n in 1..70usize, temperature in 0.2..3f64, seed: u64) {
        failures(&[differences::hard_mask(n, temperature, seed)])?;
    }

    #[test]
    fn prior_divergence(
        batch in 1..9usize, n_interventions in 1..6usize, n_latents in 1..70usize, per_cell in 1..4usize, seed: u64,
    ) {
        failures(&[differences::prior(batch, n_interventions, n_latents, per_cell, seed)])?;
    }

    #[test]
    fn integrated_masks(
        batch in 1..9usize, n_interventions in 1..6usize, n_latents in 1..70usize, per_cell in 1..4usize, seed: u64,
    ) {
        failures(&[differences::integrated_masks(batch, n_interventions, n_latents, per_cell, seed)])?;
    }

    #[test]
    fn penalties(n in 1..70usize, alpha in 0.5..200f64, seed: u64) {
        failures(&[
            differences::penalty(Penalty::SpikeAndSlab { alpha }, n, seed),
            differences::penalty(Penalty::MeanProbability { alpha }, n, seed),
        ])?;
    }

    #[test]
    fn negative_binomial(n_genes in 1..70usize, seed: u64) {
        failures(&[
            differences::negative_binomial(n_genes, 0.0, seed),
            differences::negative_binomial(n_genes, 1e-8, seed),
        ])?;
    }

    #[test]
    fn poisson(n_genes in 1..70usize, seed: u64) {
        failures(&[differences::poisson(n_genes, seed)])?;
    }

    #[test]
    fn adam_follows_its_formulas(n in 1..100usize, steps in 1..8usize, seed: u64) {
        failures(&[differences::adam(n, steps, seed)])?;
    }
}

#[test]
fn every_block_passes_at_the_sizes_of_the_program() {
    for seed in 0..5 {
        failures(&differences::check_blocks(seed)).expect("all blocks pass");
    }
}

/// One random model, screen and minibatch.
#[derive(Debug, Clone)]
struct Case {
    architecture: Architecture,
    n_cells: usize,
    /// Most interventions of a cell.
    per_cell: usize,
    frozen_mask: bool,
    penalty: Penalty,
    scale_to_all_cells: bool,
    beta: f64,
    warmup: f64,
    seed: u64,
}

impl Case {
    /// Counts from 0 to hundreds; several weighted interventions per cell, some cells with none.
    fn screen(&self) -> Dataset {
        let a = &self.architecture;
        let mut random = Random::new(self.seed, 1000);
        let exponents = random.uniform(self.n_cells * a.n_genes, -3.0, 5.0);
        let counts: Vec<u32> = exponents.iter().map(|e| e.exp() as u32).collect();
        let counts = Counts::from_dense(a.n_genes, &counts);
        let library = (0..self.n_cells).map(|n| counts.row(n).sum() as f64 + 1.0).collect();
        let mut interventions = InterventionRows::default();
        for _ in 0..self.n_cells {
            let several = if self.per_cell == 1 { 1 } else { random.below(self.per_cell + 1) };
            let weights = random.uniform(several, -0.5, 1.5);
            let row: Vec<_> = weights.iter().map(|&w| (random.below(a.n_interventions) as u32, w as f32)).collect();
            interventions.push(&row);
        }
        let categorical = a.categorical_levels.iter().map(|&levels| Categorical {
            codes: (0..self.n_cells).map(|_| random.below(levels) as u32).collect(),
            levels: (0..levels).map(|level| level.to_string()).collect(),
            name: String::new(),
        });
        let categorical = categorical.collect();
        let continuous = (0..a.n_continuous)
            .map(|_| Continuous { name: String::new(), values: random.normal(self.n_cells) })
            .collect();
        Dataset {
            source: "random".into(),
            library,
            interventions,
            intervention_names: (0..a.n_interventions).map(|i| i.to_string()).collect(),
            gene_names: (0..a.n_genes).map(|i| i.to_string()).collect(),
            cell_names: (0..self.n_cells).map(|i| i.to_string()).collect(),
            covariates: Covariates { categorical, continuous },
            guides: None,
            truth: None,
            counts: counts.into(),
        }
    }

    fn network(&self) -> Network<f64> {
        let mut network = differences::network_at_a_random_point(&self.architecture, self.seed);
        if self.frozen_mask
            && let Some(probabilities) = network.prior().probabilities()
        {
            network.frozen_mask = Some(probabilities.iter().map(|&p| if p > 0.5 { 1.0 } else { 0.0 }).collect());
        }
        network
    }

    fn weights(&self, batch: usize) -> Weights {
        let objective = Objective {
            penalty: self.penalty,
            beta: self.beta,
            scale_to_all_cells: self.scale_to_all_cells,
            n_cells: 1000,
        };
        objective.weights(batch, self.warmup)
    }

    /// The cells in an order of their own, so that row and cell differ.
    fn cells(&self) -> Vec<usize> {
        (0..self.n_cells).rev().collect()
    }
}

fn architecture() -> impl Strategy<Value = Architecture> {
    let prior = prop_oneof![
        1 => Just(Prior::Standard),
        1 => Just(Prior::Shifted),
        4 => (prop_oneof![Just(MaskKind::Hard), Just(MaskKind::Soft), Just(MaskKind::Integrated)], 0.4..2f64)
            .prop_map(|(kind, temperature)| Prior::Masked { kind, temperature }),
    ];
    let likelihood = prop_oneof![
        Just((Likelihood::NegativeBinomial, 0.0)),
        Just((Likelihood::NegativeBinomial, 1e-8)),
        Just((Likelihood::Poisson, 0.0)),
    ];
    let covariates =
        prop_oneof![Just((vec![], 0)), (prop::collection::vec(1..5usize, 1..4), 0..3usize), Just((vec![1], 2)),];
    (
        (1..4usize, 1..41usize, 1..71usize, 1..21usize, 1..6usize),
        covariates,
        any::<[bool; 6]>(),
        distribution(),
        prior,
        likelihood,
    )
        .prop_map(|(sizes, covariates, flags, latent_distribution, prior, (likelihood, likelihood_epsilon))| {
            let (n_layers, n_hidden, n_genes, n_latents, n_interventions) = sizes;
            let [encode_covariates, deeply_inject_covariates, batch_norm, layer_norm, dropout, full_covariance] = flags;
            Architecture {
                n_genes,
                n_interventions,
                n_latents,
                n_hidden,
                n_layers,
                categorical_levels: covariates.0,
                n_continuous: covariates.1,
                encode_covariates,
                deeply_inject_covariates,
                batch_norm,
                layer_norm,
                dropout_rate: if dropout { 0.2 } else { 0.0 },
                latent_distribution,
                full_covariance,
                prior,
                likelihood,
                likelihood_epsilon,
            }
        })
}

fn case() -> impl Strategy<Value = Case> {
    let penalty = prop_oneof![
        Just(Penalty::None),
        (1.5..100f64).prop_map(|alpha| Penalty::SpikeAndSlab { alpha }),
        (1.5..100f64).prop_map(|alpha| Penalty::MeanProbability { alpha }),
    ];
    let numbers = (0.5..4f64, prop_oneof![Just(1.0), 0.0..1f64], any::<u64>());
    (architecture(), 1..71usize, 1..4usize, prop::bool::weighted(0.15), penalty, any::<bool>(), numbers).prop_map(
        |(architecture, n_cells, per_cell, frozen_mask, penalty, scale_to_all_cells, (beta, warmup, seed))| Case {
            architecture,
            n_cells,
            per_cell,
            frozen_mask,
            penalty,
            scale_to_all_cells,
            beta,
            warmup,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn objective_in_every_tensor(case in case()) {
        let (network, screen, cells) = (case.network(), case.screen(), case.cells());
        let weights = case.weights(cells.len());
        let checks = differences::check_network(&network, &screen, &cells, weights, case.penalty, case.seed);
        failures(&checks)?;
    }

    #[test]
    fn gradients_are_the_same_bits_on_any_number_of_threads(case in case()) {
        same_bits::<f64>(&case, f64::to_bits)?;
        same_bits::<f32>(&case, |value| value.to_bits() as u64)?;
    }
}

/// Loss, gradient and running statistics after one step on a fresh network.
fn one_step<R: Real>(case: &Case, screen: &Dataset, threads: usize) -> (Loss, Buffer<R>, Buffer<R>) {
    let mut network = Network::<R>::new(case.architecture.clone(), case.seed);
    let cells = case.cells();
    let mut workspace = Workspace::new(&case.architecture, cells.len(), screen.interventions.max_len());
    let mut gradient = Buffer::zeros(&network.parameters.layout);
    gradient.values.fill(R::from_f64(f64::NAN));
    let loss = Team::with(threads, |team| {
        network.loss_and_gradient(
            team,
            &mut workspace,
            &mut gradient,
            StepInput {
                batch: Batch::new(screen, &cells),
                noise: Noise::Training { seed: case.seed, epoch: 3 },
                weights: case.weights(cells.len()),
                penalty: case.penalty,
            },
        )
    });
    (loss, gradient, network.running)
}

fn same_bits<R: Real>(case: &Case, bits: fn(R) -> u64) -> Result<(), TestCaseError> {
    let screen = case.screen();
    let (loss, gradient, running) = one_step::<R>(case, &screen, 1);
    prop_assert_eq!(gradient.first_non_finite(), None, "every tensor receives its gradient");
    let all = |buffer: &Buffer<R>| -> Vec<u64> { buffer.values.iter().map(|&v| bits(v)).collect() };
    for threads in [2, 3] {
        let other = one_step::<R>(case, &screen, threads);
        prop_assert_eq!(other.0, loss);
        prop_assert!(all(&other.1) == all(&gradient), "gradients differ on {} threads", threads);
        prop_assert!(all(&other.2) == all(&running), "running statistics differ on {} threads", threads);
    }
    Ok(())
}

/// A model like the paper's, small.
fn usual(n_cells: usize) -> Case {
    let mut architecture = Architecture::new(30, 5, 7);
    architecture.n_hidden = 20;
    Case {
        architecture,
        n_cells,
        per_cell: 1,
        frozen_mask: false,
        penalty: Penalty::SpikeAndSlab { alpha: 5.0 },
        scale_to_all_cells: true,
        beta: 1.0,
        warmup: 1.0,
        seed: 7,
    }
}

#[test]
fn a_bias_in_front_of_batch_normalisation_gets_no_gradient() {
    let case = usual(40);
    let (_, gradient, _) = one_step::<f64>(&case, &case.screen(), 1);
    let of = |name: &str| {
        let range = gradient.layout.find(name).expect("a tensor").range.clone();
        gradient.values[range].iter().fold(0f64, |a, b| a.max(b.abs()))
    };
    for layer in ["encoder.0", "encoder.1", "decoder.0", "decoder.1"] {
        // Zero but for the rounding of the 40 terms that cancel, which are as large as the weight's.
        let (bias, weight) = (of(&format!("{layer}.bias")), of(&format!("{layer}.weight")));
        assert!(bias < 1e-12 * weight && weight > 0.0, "{layer}: {bias:e}, weight {weight:e}");
    }
}

#[test]
fn objective_of_the_paper_s_model() {
    // 100 genes, 100 interventions, 15 latents, two layers of 128 units, hard masks; cells of two row blocks.
    let case = Case { architecture: Architecture::new(100, 100, 15), ..usual(40) };
    let (screen, cells) = (case.screen(), case.cells());
    let checks =
        differences::check_objective(&case.architecture, &screen, &cells, case.weights(40), case.penalty, case.seed);
    let n_tensors = case.network().parameters.layout.entries().len();
    assert_eq!(checks.len(), n_tensors + 2, "a check per tensor, and two for hard masks");
    failures(&checks).expect("every tensor passes");
    // Kinks leave something to compare everywhere: half of the points at least.
    assert!(checks.iter().all(|check| check.points >= 3), "{checks:?}");
}

#[test]
fn frozen_masks_receive_no_gradient() {
    let case = Case { frozen_mask: true, ..usual(40) };
    let checks = differences::check_network(
        &case.network(),
        &case.screen(),
        &case.cells(),
        case.weights(40),
        case.penalty,
        case.seed,
    );
    failures(&checks).expect("the gradient of the logits is zero, the others are as ever");
}

#[test]
fn a_single_cell_is_normalised_to_the_offset() {
    // B = 1: y_hat is 0, the output beta, and no gradient passes to the input.
    let (y, gamma, beta) = ([3.0, -1e6], [2.0, 3.0], [0.5, -0.25]);
    let (mut blocks, mut mean, mut squares, mut inverse) = ([0.0; 4], [0.0; 2], [9.0; 2], [0.0; 2]);
    batch_norm::block_moments(&mut blocks, &y);
    batch_norm::combine_moments(&mut mean, &mut squares, &blocks, |_| 1);
    batch_norm::inverse_deviation(&mut inverse, &squares, 1);
    let mut u = [0.0; 2];
    batch_norm::forward(&mut u, &y, &mean, &inverse, &gamma, &beta);
    assert_eq!((mean, squares, u), (y, [0.0; 2], beta));
    let (mut d, mut sums) = ([4.0, -5.0], [0.0; 4]);
    batch_norm::block_gradient_sums(&mut sums, &d, &y, &mean, &inverse);
    let (d_beta, d_gamma) = sums.split_at(2);
    assert_eq!((d_beta, d_gamma), (&[4.0, -5.0][..], &[0.0; 2][..]));
    batch_norm::backward(&mut d, &y, &mean, &inverse, &gamma, d_beta, d_gamma, 1);
    assert_eq!(d, [0.0; 2]);
    // The running variance has nothing to learn from one cell.
    let (mut running_mean, mut running_variance) = ([0.0; 2], [1.0; 2]);
    batch_norm::update_running(&mut running_mean, &mut running_variance, &mean, &squares, 1);
    assert!((running_mean[0] - 0.03).abs() < 1e-15 && running_variance == [1.0; 2]);
}

#[test]
fn moments_of_a_nearly_constant_feature_keep_their_digits() {
    // Mean 1000, deviation 0.01, in f32: the mean of squares minus the square of the mean would be noise of about 0.06.
    let n = 100;
    let y: Vec<f32> = Random::new(1, 0).normal(n).iter().map(|e| (1000.0 + 0.01 * e) as f32).collect();
    let exact_mean = y.iter().map(|&y| y as f64).sum::<f64>() / n as f64;
    let exact = y.iter().map(|&y| (y as f64 - exact_mean).powi(2)).sum::<f64>();
    let mut blocks = vec![0f32; 8];
    for (moments, rows) in blocks.chunks_exact_mut(2).zip(y.chunks(32)) {
        batch_norm::block_moments(moments, rows);
    }
    let (mut mean, mut squares) = ([0f32], [0f32]);
    batch_norm::combine_moments(&mut mean, &mut squares, &blocks, |i| (n - 32 * i).min(32));
    // A mean off by delta adds n delta^2: 100 (1000 * 2^-24 * 6)^2 = 1.3e-5 on 0.01.
    assert!((squares[0] as f64 - exact).abs() < 2e-3 * exact, "{} {exact}", squares[0]);
    assert!((mean[0] as f64 - exact_mean).abs() < 4e-4, "{} {exact_mean}", mean[0]);
}

#[test]
fn masks_and_penalties_stay_finite_at_extreme_logits() {
    for logit in [30.0, 40.0, 100.0, 709.0, 800.0, 1e6] {
        // For s >= 30, to rounding: 1 - sigmoid(s) = e^-s, softplus(s) = s, softplus(-s) = e^-s.
        let tail = f64::exp(-logit);
        let near = |got: f64, want: f64| (got - want).abs() <= 1e-12 * want.abs() + 1e-307;
        assert!(near(mask::sigmoid(-logit), tail) && near(mask::sigmoid(logit), 1.0), "{logit}");
        assert!(near(mask::sigmoid_derivative(logit), tail) && near(mask::sigmoid_derivative(-logit), tail));
        assert!(near(mask::softplus(logit), logit) && near(mask::softplus(-logit), tail));
        for sign in [-1.0, 1.0] {
            let single = (sign * logit) as f32;
            for penalty in [Penalty::SpikeAndSlab { alpha: 100.0 }, Penalty::MeanProbability { alpha: 100.0 }] {
                let mut gradient = [0f32];
                penalty.add_gradient(&mut gradient, &[single], 1.0);
                assert!(penalty.value(&[single]).is_finite() && gradient[0].is_finite(), "{penalty:?} at {single}");
            }
            let (mut y, mut slope) = ([0f32], [0f32]);
            for kind in [MaskKind::Hard, MaskKind::Soft] {
                mask::forward(&mut y, &mut slope, &[single], &[-15.0], kind, 0.1);
                assert!((0.0..=1.0).contains(&y[0]) && slope[0].is_finite() && slope[0] >= 0.0);
            }
        }
    }
    // At logit -40, where the logarithm of 1 - sigmoid rounds to 0, softplus keeps the value: sum = -2 ln 3 + 2 (3-1) e^-40.
    let value = Penalty::SpikeAndSlab { alpha: 1.0 }.value(&[-40.0, 40.0]);
    assert_eq!(value, 0.0);
    let value = Penalty::SpikeAndSlab { alpha: 2.0 }.value(&[40.0]);
    assert!((value - (40.0 - 2f64.ln())).abs() < 1e-13);
}

#[test]
fn variances_stop_at_their_floor_and_overflow_is_seen() {
    let (mut z, mut v) = ([0f32; 3], [0f32; 3]);
    let (mean, log_variance, noise) = ([1.0; 3], [-200.0, -9.0, 200.0], [2.0; 3]);
    latent::forward(&mut z, &mut v, &mean, &log_variance, &[], Some(&noise), LatentDistribution::Normal, 3);
    assert_eq!(v[0], 1e-4);
    assert!((z[0] - 1.02).abs() < 1e-6);
    assert!(v[2].is_infinite() && z[2].is_infinite(), "an overflow is not hidden");
    let mut kl = [0.0];
    prior::divergences(&mut kl, &mut [0.0; 3], &mean, &v, &[0.0; 3]);
    assert!(!kl[0].is_finite());
    let (mut d_mean, mut d_log_variance) = ([0f32; 3], [0f32; 3]);
    let mut d_z = [1f32; 3];
    let (d_kl, l) = ([0f32; 3], LatentDistribution::Normal);
    latent::backward(&mut d_mean, &mut d_log_variance, &mut d_z, &z, &v, &noise, &d_kl, 1.0, l, 3);
    // At the floor v no longer depends on its logarithm; just above it, the gradient is that of f64 to f32's digits of v.
    assert_eq!(d_log_variance[0], 0.0);
    let v: f64 = (-9f64).exp() + 1e-4;
    let want = 0.5 * (2.0 / v.sqrt() + 1.0 - 1.0 / v) * (v - 1e-4);
    assert!((d_log_variance[1] as f64 - want).abs() < 1e-6 * want.abs(), "{} {want}", d_log_variance[1]);
}

#[test]
fn bias_corrections_of_adam_keep_their_digits_in_single_precision() {
    let mut layout = LayoutBuilder::default();
    layout.add("p".into(), &[1]);
    let layout = layout.finish();
    let settings = AdamSettings { epsilon: 0.0, weight_decay: 0.0, ..AdamSettings::default() };
    let (mut p, mut g) = (Buffer::<f32>::zeros(&layout), Buffer::<f32>::zeros(&layout));
    let mut adam = Adam::new(&p);
    for t in 1..=3 {
        // A constant gradient: the corrected moments are g and g^2 at every step, and each step is the learning rate.
        g.values[0] = 3.0;
        adam.step(&Team::single(), &mut p, &g, std::slice::from_ref(&(0..1)), &settings);
        let want = -1e-3 * t as f64;
        assert!((p.values[0] as f64 - want).abs() < 4.0 * f32::EPSILON as f64 * want.abs(), "{} {want}", p.values[0]);
    }
    // What f32 would make of the second correction at the first step: 1 - 0.999 has lost four digits.
    let single = 1.0f32 - 0.999f32;
    assert!(((single as f64) / 1e-3 - 1.0).abs() > 1e-5);
}
