//! The whole objective with respect to every tensor of a network.

use crate::data::dataset::Dataset;
use crate::data::minibatch::Batch;
use crate::model::architecture::{Architecture, MaskKind, Prior};
use crate::model::network::Network;
use crate::model::noise::Noise;
use crate::model::objective::Weights;
use crate::model::parameters::Buffer;
use crate::model::pass::StepInput;
use crate::model::prior::sparsity::Penalty;
use crate::model::step::Loss;
use crate::model::workspace::Workspace;
use crate::parallel::team::Team;
use crate::verification::finite_differences::comparison::{Comparison, Evaluation, Random};
use crate::verification::outcome::{Check, CheckKind};

/// The objective of a network of this architecture, at a random point, on these cells, by [`check_network`].
pub fn check_objective(
    architecture: &Architecture,
    data: &Dataset,
    cells: &[usize],
    weights: Weights,
    penalty: Penalty,
    seed: u64,
) -> Vec<Check> {
    check_network(&network_at_a_random_point(architecture, seed), data, cells, weights, penalty, seed)
}

/// A network with starting values, apart from those that would hide an error: scales and offsets of normalisations
/// are not left at 1 and 0, a covariance factor not at 0, and mask logits not at 5, where masks are hardly ever off and their slopes tiny.
pub fn network_at_a_random_point(architecture: &Architecture, seed: u64) -> Network<f64> {
    let mut network = Network::new(architecture.clone(), seed);
    let mut random = Random::new(seed, 101);
    let tensors = network.tensors.clone();
    for norm in tensors.encoder.iter().chain(&tensors.decoder).filter_map(|layer| layer.norm.as_ref()) {
        for tensor in [&norm.weight, &norm.bias] {
            let noise = random.normal(tensor.0.len());
            network.parameters[tensor].iter_mut().zip(noise).for_each(|(p, n)| *p += 0.4 * n);
        }
    }
    if let Some(factor) = &tensors.latent_factor {
        let noise = random.normal(factor.weight.0.len());
        network.parameters[&factor.weight].iter_mut().zip(noise).for_each(|(p, n)| *p = 0.2 * n);
    }
    if let Some(mask_logit) = &tensors.mask_logit {
        let noise = random.normal(mask_logit.0.len());
        network.parameters[mask_logit].iter_mut().zip(noise).for_each(|(p, n)| *p = 1.5 * n);
    }
    network
}

/// The objective of `network` on a minibatch of `cells` in training mode, its noise drawn once and then held: one
/// check per tensor by finite differences.
///
/// A hard mask cannot be differenced in its logit, so masks are made soft for these checks. Where the network's own
/// are hard, two more follow: all other tensors with hard masks, by one random direction each; and the gradient of
/// the logits with hard masks against the soft mask's slope at the same noise, by a plain formula.
pub fn check_network(
    network: &Network<f64>,
    data: &Dataset,
    cells: &[usize],
    weights: Weights,
    penalty: Penalty,
    seed: u64,
) -> Vec<Check> {
    let mut random = Random::new(seed, 102);
    let mut soft = network.clone();
    let hard = matches!(network.architecture.prior, Prior::Masked { kind: MaskKind::Hard, .. });
    if hard && let Prior::Masked { kind, .. } = &mut soft.architecture.prior {
        *kind = MaskKind::Soft;
    }
    let mut point = Point::new(soft, data, cells, weights, penalty, seed);
    let gradient = point.gradient.clone();
    let mut checks = Vec::new();
    for entry in gradient.layout.entries() {
        let mut comparison = Comparison::default();
        let here = point.network.parameters.values[entry.range.clone()].to_vec();
        comparison.gradient(&mut random, &here, &gradient.values[entry.range.clone()], |values| {
            point.network.parameters.values[entry.range.clone()].copy_from_slice(values);
            point.evaluate()
        });
        point.network.parameters.values[entry.range.clone()].copy_from_slice(&here);
        checks.push(comparison.check(format!("objective: {}", entry.name)));
    }
    if hard && network.frozen_mask.is_none() {
        let mut point = Point::new(network.clone(), data, cells, weights, penalty, seed);
        checks.push(hard_masks(&mut point, &mut random));
        checks.push(straight_through(&mut point));
    }
    checks
}

/// A network, a minibatch with its noise, and the gradient there.
struct Point<'a> {
    network: Network<f64>,
    workspace: Workspace<f64>,
    gradient: Buffer<f64>,
    data: &'a Dataset,
    cells: &'a [usize],
    weights: Weights,
    penalty: Penalty,
    /// Magnitude of the terms that cancel within the likelihood: x log mu and ln x!.
    counts: f64,
}

impl<'a> Point<'a> {
    fn new(
        network: Network<f64>,
        data: &'a Dataset,
        cells: &'a [usize],
        weights: Weights,
        penalty: Penalty,
        seed: u64,
    ) -> Self {
        let workspace = Workspace::new(&network.architecture, cells.len(), data.interventions.max_len());
        let gradient = Buffer::zeros(&network.parameters.layout);
        let mut counts = 0.0;
        for &cell in cells {
            data.counts.row(cell).for_each(|_, x| counts += 2.0 * x as f64 * (x as f64).ln_1p());
        }
        let mut point = Self { network, workspace, gradient, data, cells, weights, penalty, counts };
        // Noise is drawn into the workspace here, and only here.
        point.loss(Noise::Training { seed, epoch: 0 });
        point
    }

    /// Loss; its gradient is left in place, and the running statistics, which it does not depend on, move.
    fn loss(&mut self, noise: Noise) -> Loss {
        self.network.loss_and_gradient(
            &Team::single(),
            &mut self.workspace,
            &mut self.gradient,
            StepInput { batch: Batch::new(self.data, self.cells), noise, weights: self.weights, penalty: self.penalty },
        )
    }

    fn evaluate(&mut self) -> Evaluation {
        let loss = self.loss(Noise::Given);
        let n_logits = self.network.tensors.mask_logit.as_ref().map_or(0, |tensor| tensor.0.len()) as f64;
        let constant = match self.penalty {
            Penalty::SpikeAndSlab { alpha } => 2.0 * n_logits * alpha.ln().abs(),
            _ => 0.0,
        };
        let w = self.weights;
        let of_cells = w.cell * (loss.reconstruction.abs() + w.kl.abs() * loss.kl.abs() + self.counts);
        let of_penalty = w.penalty * (loss.penalty.abs() + constant);
        let used = self.cells.len() * self.network.architecture.n_hidden;
        let layers = self.workspace.encoder.iter().chain(&self.workspace.decoder);
        Evaluation { value: loss.total, magnitude: of_cells.abs() + of_penalty.abs(), sides: 0 }
            .with_sides(layers.map(|layer| &layer.out[..used]))
    }
}

/// With hard masks, a random direction in each tensor but the logits.
fn hard_masks(point: &mut Point, random: &mut Random) -> Check {
    let gradient = point.gradient.clone();
    let base = point.evaluate();
    let mut comparison = Comparison::default();
    for entry in gradient.layout.entries() {
        let range = entry.range.clone();
        if point.network.tensors.mask_logit.as_ref().is_some_and(|logit| logit.0 == range) {
            continue;
        }
        let here = point.network.parameters.values[range.clone()].to_vec();
        let direction = random.direction(here.len());
        let along: f64 = direction.iter().zip(&gradient.values[range.clone()]).map(|(d, g)| d * g).sum();
        comparison.derivative(along, base, 1.0, |step| {
            let moved = &mut point.network.parameters.values[range.clone()];
            for ((moved, &here), &d) in moved.iter_mut().zip(&here).zip(&direction) {
                *moved = step.mul_add(d, here);
            }
            point.evaluate()
        });
        point.network.parameters.values[range].copy_from_slice(&here);
    }
    comparison.check("objective, hard masks: a direction in each tensor but the logits")
}

/// With hard masks, the gradient of the logits: for every cell and intervention, weight x shift x gradient of the
/// prior mean x the soft mask's slope at the same noise; then the penalty's.
fn straight_through(point: &mut Point) -> Check {
    let architecture = point.network.architecture.clone();
    let Prior::Masked { temperature, .. } = architecture.prior else { unreachable!("called for hard masks") };
    let tensors = point.network.tensors.clone();
    let (shift, logit) = (tensors.shift.expect("masks act on shifts"), tensors.mask_logit.expect("masks have logits"));
    point.loss(Noise::Given);
    let got = &point.gradient[&logit];
    let (shift, logit) = (&point.network.parameters[&shift], &point.network.parameters[&logit]);
    let l = architecture.n_latents;
    let sigmoid = |s: f64| 1.0 / (1.0 + (-s).exp());
    let cells = &point.workspace.cells;
    let (mut want, mut size) = (vec![0.0; logit.len()], vec![0.0; logit.len()]);
    for (row, &cell) in point.cells.iter().enumerate() {
        let (interventions, doses) = point.data.interventions.row(cell);
        for k in 0..l {
            // Mask and its distance from 1.
            let soft: Vec<(f64, f64)> = (0..interventions.len())
                .map(|e| {
                    let noise = cells.mask_noise[(row * point.workspace.max_interventions + e) * l + k];
                    let s = (logit[interventions[e] as usize * l + k] + noise) / temperature;
                    (sigmoid(s), sigmoid(-s))
                })
                .collect();
            let prior_mean: f64 = (0..soft.len())
                .map(|e| {
                    let mask = soft[e].0.round();
                    doses[e] as f64 * mask * shift[interventions[e] as usize * l + k]
                })
                .sum();
            let d_prior_mean = point.weights.cell * point.weights.kl * (prior_mean - cells.mean[row * l + k]);
            for e in 0..soft.len() {
                let i = interventions[e] as usize * l + k;
                let (y, rest) = soft[e];
                let term = doses[e] as f64 * shift[i] * d_prior_mean * (y * rest / temperature);
                want[i] += term;
                size[i] += term.abs();
            }
        }
    }
    for i in 0..logit.len() {
        let (y, rest) = (sigmoid(logit[i]), sigmoid(-logit[i]));
        let term = point.weights.penalty
            * match point.penalty {
                Penalty::None => 0.0,
                Penalty::SpikeAndSlab { alpha } => (alpha - 1.0) * y,
                Penalty::MeanProbability { alpha } => alpha * y * rest / logit.len() as f64,
            };
        want[i] += term;
        size[i] += term.abs();
    }
    // Where a slope underflows, so does its gradient, and the last digits with it.
    let errors = (0..logit.len()).map(|i| (got[i] - want[i]).abs() / (size[i] + 1e-280));
    let worst = errors.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a });
    // A few hundred roundings, most of them in the sum over cells.
    Check::new(
        "objective, hard masks: gradient of the logits by the soft slope",
        CheckKind::Formula,
        logit.len(),
        worst,
        1e-12,
    )
}
