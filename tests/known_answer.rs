//! Cases whose answer is known exactly.
//!
//! A training: with a single gene the softmax is one whatever the decoder says, so every cell's mean is its library and latents tell
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
use svae_cpu::model::prior::shift;
use svae_cpu::model::prior::sparsity::Penalty;
use svae_cpu::model::prior::table::{CellInterventions, MaskBuffers, Masks, PriorTable};
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

/// Divergences of three cells from the prior under given masks, drawn or integrated out.
fn divergences(prior: PriorTable<'_, f64>, masks: &[f64], slopes: &[f64], of: CellInterventions<'_>) -> Vec<f64> {
    let mean = [0.4, -1.5, 0.0, 2.0, 0.3, -0.7];
    let variance = [0.5, 1.0, 2.0, 0.1, 1.3, 0.9];
    let (mut prior_mean, mut kl) = ([f64::NAN; 6], vec![f64::NAN; 3]);
    prior.means_of_cells(&mut prior_mean, masks, of);
    shift::divergences(&mut kl, &mut [f64::NAN; 6], &mean, &variance, &prior_mean);
    prior.add_mask_divergences(&mut kl, slopes, of);
    kl
}

#[test]
fn integrated_masks_are_the_mean_over_drawn_ones() {
    // Two latents, four interventions; one edge is almost certain, one almost excluded, one shift is 0.
    let shifts = [1.2, -0.8, 3.0, 0.5, -2.0, 0.0, 0.7, 1.9];
    let logits = [0.3, -1.2, 4.0, -30.0, 0.0, 1.0, 30.0, 2.5];
    fn table<'a>(shifts: &'a [f64], masks: Masks<'a, f64>) -> PriorTable<'a, f64> {
        PriorTable { n_latents: 2, shifts: Some(shifts), masks }
    }
    // A combination with doses, one below 0; a single intervention; one that a cell received twice, beside another.
    let mut rows = InterventionRows::default();
    let cells: [&[(u32, f32)]; 3] = [&[(0, 1.0), (2, 0.5), (3, -1.5)], &[(1, 2.0)], &[(0, 1.0), (0, 1.0), (2, 3.0)]];
    cells.iter().for_each(|row| rows.push(row));
    let of = CellInterventions { rows: &rows, cells: &[0, 1, 2], per_cell: 3 };
    // Three cells, three places for interventions, two latents.
    let places: Vec<(usize, usize)> = (0..3)
        .flat_map(|n| cells[n].iter().enumerate().map(move |(e, &(a, _))| ((n * 3 + e) * 2, a as usize * 2)))
        .flat_map(|(at, of_a)| [(at, of_a), (at + 1, of_a + 1)])
        .collect();
    assert_eq!(places.len(), 14);

    let (mut q, mut slopes) = (vec![0.0; 18], vec![0.0; 18]);
    let integrated = table(&shifts, Masks::Integrated { logits: &logits });
    let buffers = MaskBuffers { mask: &mut q, slope: &mut slopes, logit: &mut [0.0; 18], noise: &[] };
    integrated.masks_of_cells(buffers, of);
    let found = divergences(integrated, &q, &slopes, of);

    let mut expected = vec![0.0; 3];
    for drawn in 0..1 << places.len() {
        let (mut masks, mut probability) = (vec![0.0; 18], 1.0);
        for (i, &(at, edge)) in places.iter().enumerate() {
            let on = drawn >> i & 1 == 1;
            masks[at] = f64::from(u8::from(on));
            probability /= 1.0 + f64::exp(if on { -logits[edge] } else { logits[edge] });
        }
        // With masks that are not integrated out, nothing is added.
        let kl = divergences(table(&shifts, Masks::Fixed(&masks)), &masks, &[], of);
        expected.iter_mut().zip(kl).for_each(|(sum, kl)| *sum += probability * kl);
    }
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-12 * expected, "{found}, over all masks {expected}");
    }
    // The masks' part is no small one.
    let without: Vec<f64> = divergences(table(&shifts, Masks::Fixed(&q)), &q, &[], of);
    assert!(found.iter().zip(&without).all(|(found, without)| found - without > 0.1), "{found:?} {without:?}");
}
