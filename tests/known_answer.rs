//! A case whose answer is known exactly, trained to it.
//!
//! With a single gene the softmax is one whatever the decoder says, so every cell's mean is its library and latents tell
//! nothing: the best posterior is the prior (divergence 0), and the best dispersion is the maximum of the negative
//! binomial likelihood with known means, a one-dimensional problem that is solved here by bisection.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, Poisson};
use statrs::function::gamma::{digamma, ln_gamma};
use svae_cpu::data::counts::in_memory::Counts;
use svae_cpu::data::dataset::{Covariates, Dataset, InterventionRows};
use svae_cpu::inference::{Inference, evaluation_workspace};
use svae_cpu::model::adam::AdamSettings;
use svae_cpu::model::architecture::{Architecture, MaskKind, Prior};
use svae_cpu::model::network::Network;
use svae_cpu::model::objective::Objective;
use svae_cpu::model::prior::sparsity::Penalty;
use svae_cpu::parallel::team::Team;
use svae_cpu::system::console::Silent;
use svae_cpu::training::trainer::{TrainingSettings, TrainingTask, train};

const CELLS: usize = 2_000;
const TRUE_THETA: f64 = 2.0;

fn one_gene() -> Dataset {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let library: Vec<f64> = (0..CELLS).map(|n| 5.0 + (n % 40) as f64).collect();
    let noise = Gamma::new(TRUE_THETA, 1.0 / TRUE_THETA).unwrap();
    let counts: Vec<u32> = library
        .iter()
        .map(|mean| Poisson::new(mean * noise.sample(&mut random)).unwrap().sample(&mut random) as u32)
        .collect();
    Dataset {
        source: "one gene".into(),
        counts: Counts::from_dense(1, &counts).into(),
        library,
        interventions: InterventionRows::one_hot((0..CELLS).map(|n| n % 3)),
        intervention_names: ["a", "b", "c"].map(String::from).to_vec(),
        gene_names: vec!["gene".into()],
        cell_names: (0..CELLS).map(|n| n.to_string()).collect(),
        covariates: Covariates::default(),
        guides: None,
        truth: None,
    }
}

fn counts_and_means(data: &Dataset) -> Vec<(f64, f64)> {
    (0..CELLS).map(|n| (data.counts.row(n).sum() as f64, data.library[n])).collect()
}

/// The dispersion at which the derivative of the log-likelihood vanishes.
fn best_theta(cells: &[(f64, f64)]) -> f64 {
    let slope = |theta: f64| -> f64 {
        cells
            .iter()
            .map(|&(x, mu)| {
                digamma(x + theta) - digamma(theta) + (theta / (theta + mu)).ln() + 1.0 - (x + theta) / (theta + mu)
            })
            .sum()
    };
    let (mut low, mut high) = (0.1, 100.0);
    for _ in 0..100 {
        let middle = f64::sqrt(low * high);
        if slope(middle) > 0.0 { low = middle } else { high = middle }
    }
    low
}

fn negative_log_likelihood(cells: &[(f64, f64)], theta: f64) -> f64 {
    let of = |&(x, mu): &(f64, f64)| {
        theta * (theta / (theta + mu)).ln() + x * (mu / (theta + mu)).ln() + ln_gamma(x + theta)
            - ln_gamma(theta)
            - ln_gamma(x + 1.0)
    };
    -cells.iter().map(of).sum::<f64>() / cells.len() as f64
}

#[test]
fn training_reaches_the_known_optimum() {
    let data = one_gene();
    let cells: Vec<usize> = (0..CELLS).collect();
    let facts = counts_and_means(&data);
    let theta = best_theta(&facts);
    let best = negative_log_likelihood(&facts, theta);
    assert!((theta / TRUE_THETA - 1.0).abs() < 0.15, "the maximum is near the truth: {theta}");

    for prior in [Prior::Standard, Prior::Shifted, Prior::Masked { kind: MaskKind::Hard, temperature: 1.0 }] {
        let architecture =
            Architecture { n_hidden: 8, n_layers: 1, dropout_rate: 0.0, prior, ..Architecture::new(1, 3, 2) };
        let mut network = Network::<f64>::new(architecture, 1);
        // Masks all on, without noise from their sampling: the answer is that of free shifts.
        if network.tensors.mask_logit.is_some() {
            network.frozen_mask = Some(vec![1.0; 6]);
        }
        let objective = Objective { penalty: Penalty::None, beta: 1.0, scale_to_all_cells: false, n_cells: CELLS };
        let settings = |learning_rate, seed| TrainingSettings {
            adam: AdamSettings { learning_rate, epsilon: 1e-8, weight_decay: 0.0, ..AdamSettings::default() },
            seed,
            ..TrainingSettings::plain(100, 200)
        };
        let team = Team::single();
        // A falling step size, so that the noise of minibatches dies away.
        for (seed, learning_rate) in [0.02, 2e-3, 2e-4].into_iter().enumerate() {
            let settings = settings(learning_rate, seed as u64);
            let task = TrainingTask {
                data: &data,
                train: &cells,
                validation: &[],
                objective: &objective,
                settings: &settings,
            };
            train(&team, &mut network, task, &mut Silent).expect("in memory");
        }
        let fitted = network.parameters[network.tensors.log_dispersion.as_ref().expect("a dispersion")][0].exp();
        let mut workspace = evaluation_workspace(&network, &data);
        let mut inference = Inference { team: &team, network: &network, data: &data, workspace: &mut workspace };
        let reached = inference.elbo(&cells, &objective, 0).expect("in memory");
        // The likelihood is flat at its maximum: an error of 1 % in theta moves it by about 1e-5 nats.
        assert!((fitted / theta - 1.0).abs() < 0.01, "{prior:?}: theta {fitted}, known {theta}");
        assert!(
            (reached.reconstruction - best).abs() < 1e-4,
            "{prior:?}: {} nats, known {best}",
            reached.reconstruction
        );
        assert!(reached.kl >= 0.0 && reached.kl < 1e-3, "{prior:?}: divergence {}, known 0", reached.kl);
    }
}
