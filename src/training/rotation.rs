//! Rotation and pruning during a training, which free masks from bad minima: latents are rotated so that interventions act on as few
//! of them as possible, and weak masks are switched off. Derivation: `derivations/rotation.md`.

use crate::model::architecture::LatentDistribution;
use crate::model::network::Network;
use crate::numerics::real::Real;

/// Angles from minus this to one less than this are tried, in degrees; larger ones only swap the two axes or change their signs.
const MOST_DEGREES: i32 = 45;
/// Rotations by fewer degrees are left to the gradient.
const FEWEST_DEGREES: i32 = 5;
/// Share by which a rotation must lower the sum of Eq. (V3) over its two latents.
const LEAST_GAIN: f64 = 0.005;
/// Passes over all pairs, at most.
const MOST_PASSES: usize = 50;
/// Least effect that keeps the mask of a rotated latent on: where a mask is as often on as off at the default sparsity.
const SMALLEST_EFFECT: f64 = 1.0;

/// Rotates the latents of a network in training and switches off its masks of a probability below `weak`; does nothing
/// without masks, or once they are frozen. Returns how many latents were rotated.
pub fn rotate_and_prune<R: Real>(network: &mut Network<R>, weak: f64) -> usize {
    let l = network.architecture.n_latents;
    let prior = network.prior();
    if !prior.draws_masks() {
        return 0;
    }
    let mut effects = prior.effects();
    let mut n_rotated = 0;
    // A softmax of latents has axes of its own.
    if network.architecture.latent_distribution == LatentDistribution::Normal
        && let Some(rotation) = sparsest_rotation(&mut effects, l)
    {
        let rotated: Vec<bool> = (0..l).map(|k| rotation[k * l + k] != 1.0).collect();
        n_rotated = rotated.iter().filter(|&&rotated| rotated).count();
        network.rotate_latents(&rotation, &effects, &rotated, SMALLEST_EFFECT);
    }
    network.prior_mut().switch_off_below(weak);
    n_rotated
}

/// What one effect adds to Eq. (V3).
fn sparsity_cost(effect: f64) -> f64 {
    Real::ln_1p(effect * effect)
}

/// The rotation, L x L, after which `effects` (interventions x L) spread least over the latents, among those that rotations of two
/// axes at a time reach, Eq. (V3); `None` if none is worth it. The effects are rotated.
fn sparsest_rotation(effects: &mut [f64], l: usize) -> Option<Vec<f64>> {
    let mut rotation: Vec<f64> = (0..l * l).map(|at| if at % (l + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let mut found = false;
    for _ in 0..MOST_PASSES {
        let mut rotated = false;
        for j in 0..l {
            for k in j + 1..l {
                let cost_after = |degrees: i32| -> f64 {
                    let (sine, cosine) = sine_and_cosine(degrees);
                    let turn = |row: &[f64]| (cosine * row[j] + sine * row[k], cosine * row[k] - sine * row[j]);
                    effects.chunks_exact(l).map(turn).map(|(a, b)| sparsity_cost(a) + sparsity_cost(b)).sum()
                };
                let before = cost_after(0);
                let tried = (-MOST_DEGREES..MOST_DEGREES).map(|degrees| (cost_after(degrees), degrees));
                let (after, degrees) = tried.min_by(|a, b| a.0.total_cmp(&b.0)).expect("some angles");
                if degrees.abs() < FEWEST_DEGREES || after >= (1.0 - LEAST_GAIN) * before {
                    continue;
                }
                let (sine, cosine) = sine_and_cosine(degrees);
                for row in effects.chunks_exact_mut(l) {
                    (row[j], row[k]) = (cosine * row[j] + sine * row[k], cosine * row[k] - sine * row[j]);
                }
                for column in 0..l {
                    let (a, b) = (rotation[j * l + column], rotation[k * l + column]);
                    rotation[j * l + column] = cosine * a + sine * b;
                    rotation[k * l + column] = cosine * b - sine * a;
                }
                (rotated, found) = (true, true);
            }
        }
        if !rotated {
            break;
        }
    }
    found.then_some(rotation)
}

fn sine_and_cosine(degrees: i32) -> (f64, f64) {
    libm::sincos(f64::from(degrees).to_radians())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::minibatch::Batch;
    use crate::data::simulate::{Simulation, simulate};
    use crate::model::architecture::{Architecture, MaskKind, Prior};
    use crate::model::noise::Noise;
    use crate::model::prior::mask;
    use crate::model::workspace::Workspace;
    use crate::parallel::team::Team;

    const L: usize = 5;

    /// Effects of 60 interventions on one to three of five latents, as a simulation draws them.
    fn sparse_effects() -> Vec<f64> {
        let wave = |i: usize| (i as f64 * 2.7 + 0.4).sin();
        let mut effects = vec![0.0; 60 * L];
        for (a, row) in effects.chunks_exact_mut(L).enumerate() {
            for target in 0..=a % 3 {
                row[(3 * a + 2 * target * a + target) % L] = wave(a + target).signum() * (4.5 + wave(7 * a));
            }
        }
        effects
    }

    fn total(effects: &[f64]) -> f64 {
        effects.iter().map(|&effect| sparsity_cost(effect)).sum()
    }

    #[test]
    fn rotated_axes_are_found_again() {
        let sparse = sparse_effects();
        let mut left_alone = sparse.clone();
        assert_eq!(sparsest_rotation(&mut left_alone, L), None);
        assert_eq!(left_alone, sparse);
        for angles in [[37, 0], [-30, 0], [20, 40], [-44, 15]] {
            let mut mixed = sparse.clone();
            for (degrees, (j, k)) in angles.into_iter().zip([(1, 3), (3, 4)]) {
                let (sine, cosine) = sine_and_cosine(degrees);
                for row in mixed.chunks_exact_mut(L) {
                    (row[j], row[k]) = (cosine * row[j] + sine * row[k], cosine * row[k] - sine * row[j]);
                }
            }
            let before = mixed.clone();
            assert!(total(&mixed) > 1.02 * total(&sparse), "{angles:?}: {} {}", total(&mixed), total(&sparse));
            let rotation = sparsest_rotation(&mut mixed, L).expect("a rotation");
            // Angles are whole degrees: a single one is found exactly, of two the one that is undone second as nearly as can be.
            let excess = if angles[1] == 0 { 1e-12 } else { 0.005 };
            assert!(
                total(&mixed) < total(&sparse) * (1.0 + excess),
                "{angles:?}: {} {}",
                total(&mixed),
                total(&sparse)
            );
            for (row, rotated) in before.chunks_exact(L).zip(mixed.chunks_exact(L)) {
                for (axis, &rotated) in rotation.chunks_exact(L).zip(rotated) {
                    let want: f64 = axis.iter().zip(row).map(|(r, e)| r * e).sum();
                    assert!((rotated - want).abs() < 1e-12, "{rotated} {want}");
                }
            }
            // Latents that take no part stay as they are, to the bit.
            assert_eq!((rotation[0], rotation[2 * L + 2]), (1.0, 1.0));
        }
    }

    #[test]
    fn a_rotated_network_decodes_what_it_decoded() {
        let settings = Simulation {
            n_interventions: 6,
            n_genes: 20,
            n_latents: 4,
            cells_per_intervention: 5,
            seed: 2,
            ..Simulation::default()
        };
        let data = simulate(&settings).expect("a simulation").dataset;
        let prior = Prior::Masked { kind: MaskKind::Hard, temperature: 1.0 };
        let architecture = Architecture { n_hidden: 8, prior, ..Architecture::new(20, 6, L) };
        let mut network = Network::<f64>::new(architecture.clone(), 3);
        let shift = network.tensors.shift.clone().expect("shifts");
        let logit = network.tensors.mask_logit.clone().expect("masks");
        // Interventions act along axes between latents 1 and 3, and on latent 0.
        network.parameters[&shift].fill(0.0);
        network.parameters[&logit].fill(-40.0);
        let (sine, cosine) = sine_and_cosine(30);
        for a in 0..6 {
            let effects = match a {
                0 | 1 => [(1, 5.0 * cosine), (3, 5.0 * sine)],
                2 | 3 => [(1, -4.0 * sine), (3, 4.0 * cosine)],
                _ => [(0, 5.0), (2, 0.0)],
            };
            for (k, effect) in effects.into_iter().filter(|(_, effect)| *effect != 0.0) {
                network.parameters[&shift][a * L + k] = effect;
                network.parameters[&logit][a * L + k] = 40.0;
            }
        }
        let cells: Vec<usize> = (0..30).collect();
        let team = Team::single();
        // Noise that is all 0: z is the posterior mean.
        let look = |network: &Network<f64>| {
            let mut workspace = Workspace::new(&architecture, 32, 1);
            network.prepare_evaluation(&mut workspace);
            network.evaluate(&team, &mut workspace, Batch::new(&data, &cells), Noise::Given);
            (workspace.cells.mean[..30 * L].to_vec(), workspace.cells.reconstruction[..30].to_vec())
        };
        let (means, reconstruction) = look(&network);
        assert_eq!(rotate_and_prune(&mut network, 0.75), 2);
        let (rotated, same) = look(&network);
        for (a, b) in reconstruction.iter().zip(&same) {
            assert!((a - b).abs() < 1e-10 * a.abs(), "{a} {b}");
        }
        for (before, after) in means.chunks_exact(L).zip(rotated.chunks_exact(L)) {
            let want = [cosine * before[1] + sine * before[3], cosine * before[3] - sine * before[1]];
            assert!((after[1] - want[0]).abs() + (after[3] - want[1]).abs() < 1e-10, "{after:?} {want:?}");
            assert_eq!((after[0], after[2], after[4]), (before[0], before[2], before[4]));
        }
        let (shifts, logits) = (&network.parameters[&shift], &network.parameters[&logit]);
        assert!((shifts[1] - 5.0).abs() < 1e-10 && shifts[3].abs() < 1e-10);
        assert!(logits[1] > 0.0 && logits[3] == mask::OFF && logits[4 * L] == 40.0, "{logits:?}");
        assert!((shifts[2 * L + 3] - 4.0).abs() < 1e-10 && logits[2 * L + 3] > 0.0 && logits[2 * L + 1] == mask::OFF);
        // Once more there is nothing to do.
        assert_eq!(rotate_and_prune(&mut network, 0.75), 0);
        network.prior_mut().freeze();
        let frozen = network.parameters.values.to_vec();
        assert_eq!(rotate_and_prune(&mut network, 0.99), 0);
        assert_eq!(network.parameters.values.to_vec(), frozen);
    }
}
