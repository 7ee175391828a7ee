//! The turn of the latents, of any size, after which interventions act on as few of them as possible. Derivation:
//! `derivations/rotation.md`.

use crate::inference::effects::WhitenedEffects;
use crate::model::prior::evidence::{Evidence, evidence};
use crate::numerics::random::{Purpose, fill_normal, stream};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::parallel::team::{Team, tiles};

/// Angles that are tried at the widest scale, in degrees from -45 on.
const COARSE: usize = 30;
const COARSE_STEP: f64 = 3.0;
/// Angles that are tried at narrower scales, in degrees either way.
const FINE: [f64; 12] = [45.0, 30.0, 20.0, 14.0, 10.0, 7.0, 5.0, 3.5, 2.5, 1.5, 1.0, 0.5];
/// Scales of the cost, one after the other, as shares of the root mean square length of the effects, Eq. (V5).
const SCALES: [f64; 3] = [0.3, 0.15, 0.075];
/// Least scale, in deviations of the mean of an intervention's cells.
const LEAST_SCALE: f64 = 1.5;
/// Share by which a turn of two axes must lower their cost.
const LEAST_GAIN: f64 = 1e-4;
/// Passes over all pairs at each scale, at most.
const MOST_PASSES: usize = 30;
/// Bases from which a turn is sought where axes may stand anywhere.
pub const STARTS: usize = 16;
/// Turns of the lowest cost that are compared by their evidence.
const COMPARED: usize = 8;

/// A turn of the latents.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Turn {
    /// Orthogonal matrix, L x L.
    pub rotation: Vec<f64>,
    /// Eq. (V4) afterwards, at the narrowest scale.
    pub cost: f64,
}

/// Turns of effects with the lowest cost of Eq. (V4) that turns of two axes at a time reach from `starts` bases, the present one and
/// random ones: at most eight, lowest first.
pub fn sparsest_turns(team: &Team, found: &WhitenedEffects, starts: usize, seed: u64) -> Vec<Turn> {
    let l = found.n_latents;
    let scales = scales(found);
    let mut turns = vec![Turn::default(); starts.max(1)];
    team.run(turns.len(), tiles(&mut turns, 1), |start, turn| {
        let basis = if start == 0 { identity(l) } else { random_basis(l, seed, start) };
        turn[0] = descend(found, basis, &scales);
    });
    turns.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    turns.truncate(COMPARED);
    turns
}

/// The evidence of effects along axes that are turned against the present ones.
#[derive(Debug, Clone)]
pub struct TurnedEvidence {
    /// The turn, L x L.
    pub rotation: Vec<f64>,
    /// The evidence along the turned axes.
    pub evidence: Evidence,
}

/// The evidence along the present axes, then along those of each of [`sparsest_turns`].
pub fn evidence_of_turns(team: &Team, found: &WhitenedEffects, starts: usize, seed: u64) -> Vec<TurnedEvidence> {
    let mut rotations = vec![identity(found.n_latents)];
    rotations.extend(sparsest_turns(team, found, starts, seed).into_iter().map(|turn| turn.rotation));
    let mut weighed: Vec<Option<Evidence>> = vec![None; rotations.len()];
    team.run(rotations.len(), tiles(&mut weighed, 1), |i, weighed| {
        weighed[0] = Some(evidence(found.turned(&rotations[i]).to_weigh(), true));
    });
    let both = rotations.into_iter().zip(weighed.into_iter().flatten());
    both.map(|(rotation, evidence)| TurnedEvidence { rotation, evidence }).collect()
}

/// Of [`sparsest_turns`], the one under which the effects are likeliest; `None` if they are likelier along the present axes.
pub fn likeliest_turn(team: &Team, found: &WhitenedEffects, starts: usize, seed: u64) -> Option<Vec<f64>> {
    let l = found.n_latents;
    let turns = evidence_of_turns(team, found, starts, seed);
    let likelihood = |i: usize| turns[i].evidence.log_likelihood;
    let best = (0..turns.len()).reduce(|best, i| if likelihood(i) > likelihood(best) { i } else { best });
    let best = best.filter(|&best| best > 0).and_then(|best| turns.into_iter().nth(best))?;
    // Each axis in the place of the present one that it is most like, so that as little as possible changes places.
    let axis = |(axis, sign): (usize, f64)| best.rotation[axis * l..(axis + 1) * l].iter().map(move |r| sign * r);
    Some(matched(&best.rotation, l).into_iter().flat_map(axis).collect())
}

/// For each present axis the turned one most like it, and the sign that makes them alike: pairs are taken in the order of their
/// likeness.
pub fn matched(rotation: &[f64], l: usize) -> Vec<(usize, f64)> {
    let mut order: Vec<usize> = (0..l * l).collect();
    order.sort_by(|&i, &j| rotation[j].abs().total_cmp(&rotation[i].abs()).then(i.cmp(&j)));
    let (mut of_axis, mut taken) = (vec![None; l], vec![false; l]);
    for at in order {
        let (turned, present) = (at / l, at % l);
        if !taken[turned] && of_axis[present].is_none() {
            taken[turned] = true;
            of_axis[present] = Some((turned, rotation[at].signum()));
        }
    }
    of_axis.into_iter().flatten().collect()
}

/// Eq. (V5).
fn scales(found: &WhitenedEffects) -> [f64; 3] {
    let (a, l) = (found.cells.len().max(1) as f64, found.n_latents);
    let cells = found.cells.iter().sum::<f64>() / a;
    let columns = columns(found, &identity(l));
    let square: f64 = columns.iter().flatten().map(|e| e * e).sum::<f64>() / a - l as f64 / cells;
    let length = square.max(0.0).sqrt();
    SCALES.map(|share| (share * length).max(LEAST_SCALE / cells.sqrt()))
}

/// Effects along the axes of a basis, one axis after the other, from their origin.
fn columns(found: &WhitenedEffects, basis: &[f64]) -> Vec<Vec<f64>> {
    let l = found.n_latents;
    let dot = |axis: &[f64], row: &[f64]| axis.iter().zip(row).map(|(r, e)| r * e).sum::<f64>();
    let mut columns: Vec<Vec<f64>> =
        basis.chunks_exact(l).map(|axis| found.effects.chunks_exact(l).map(|row| dot(axis, row)).collect()).collect();
    centre(&mut columns, found.controls);
    columns
}

/// Most interventions do not act on a latent: without controls, the median is its origin.
fn centre(columns: &mut [Vec<f64>], controls: f64) {
    if controls > 0.0 {
        return;
    }
    for column in columns {
        let median = median(column);
        column.iter_mut().for_each(|e| *e -= median);
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n => 0.5 * (sorted[(n - 1) / 2] + sorted[n / 2]),
    }
}

fn identity(l: usize) -> Vec<f64> {
    (0..l * l).map(|at| if at % (l + 1) == 0 { 1.0 } else { 0.0 }).collect()
}

/// An orthogonal matrix, uniformly distributed: Gram and Schmidt's basis of normal numbers.
fn random_basis(l: usize, seed: u64, start: usize) -> Vec<f64> {
    let (mut basis, mut words) = (vec![0.0f64; l * l], vec![0; l * l + 1]);
    fill_normal(&mut basis, &mut words, &mut stream(seed, Purpose::Turn, start as u64, 0));
    for j in 0..l {
        // Twice is enough for orthogonality to rounding.
        for _ in 0..2 {
            for i in 0..j {
                let dot: f64 = (0..l).map(|k| basis[i * l + k] * basis[j * l + k]).sum();
                (0..l).for_each(|k| basis[j * l + k] -= dot * basis[i * l + k]);
            }
        }
        let norm = (0..l).map(|k| basis[j * l + k] * basis[j * l + k]).sum::<f64>().sqrt();
        (0..l).for_each(|k| basis[j * l + k] /= norm);
    }
    basis
}

/// Turns of two axes at a time, from `rotation` on, at one scale after the other.
fn descend(found: &WhitenedEffects, mut rotation: Vec<f64>, scales: &[f64]) -> Turn {
    let l = found.n_latents;
    let mut axes = columns(found, &rotation);
    for (i, &scale) in scales.iter().enumerate() {
        for _ in 0..MOST_PASSES {
            let mut turned = false;
            for j in 0..l {
                for k in j + 1..l {
                    turned |= turn_pair(&mut axes, &mut rotation, [j, k], scale, i == 0);
                }
            }
            if !turned {
                break;
            }
        }
        centre(&mut axes, found.controls);
    }
    let narrowest = scales[scales.len() - 1];
    let cost = axes.iter().flatten().map(|e| Real::ln_1p(e / narrowest * (e / narrowest))).sum();
    Turn { rotation, cost }
}

/// Turns two axes by the best angle, if that is worth it.
fn turn_pair(axes: &mut [Vec<f64>], rotation: &mut [f64], [j, k]: [usize; 2], scale: f64, coarsely: bool) -> bool {
    let l = axes.len();
    let cost = |degrees: f64| {
        let (sine, cosine) = libm::sincos(degrees.to_radians());
        pair_cost(&axes[j], &axes[k], cosine / scale, sine / scale)
    };
    let before = cost(0.0);
    let lowest = |angles: &mut dyn Iterator<Item = f64>| {
        angles.map(|degrees| (cost(degrees), degrees)).min_by(|a, b| a.0.total_cmp(&b.0)).expect("some angles")
    };
    let (after, degrees) = match coarsely {
        true => lowest(&mut (0..COARSE).map(|i| COARSE_STEP * i as f64 - 45.0)),
        false => lowest(&mut FINE.into_iter().flat_map(|degrees| [-degrees, degrees])),
    };
    if after >= (1.0 - LEAST_GAIN) * before {
        return false;
    }
    let (sine, cosine) = libm::sincos(degrees.to_radians());
    let turn = |x: f64, y: f64| (cosine * x + sine * y, cosine * y - sine * x);
    for i in 0..axes[j].len() {
        (axes[j][i], axes[k][i]) = turn(axes[j][i], axes[k][i]);
    }
    for column in 0..l {
        let (of_j, of_k) = (j * l + column, k * l + column);
        (rotation[of_j], rotation[of_k]) = turn(rotation[of_j], rotation[of_k]);
    }
    true
}

/// Rows whose terms are multiplied before their logarithm is taken.
const ROWS: usize = 64;
/// Products at a time.
const LANES: usize = 8;

/// Eq. (V4) of two axes, turned by an angle of this cosine and sine, both divided by the scale.
fn pair_cost(x: &[f64], y: &[f64], cosine: f64, sine: f64) -> f64 {
    vectorized(
        #[inline(always)]
        || {
            let mut total = 0.0;
            for (x, y) in x.chunks(ROWS).zip(y.chunks(ROWS)) {
                let mut products = [1.0; LANES];
                for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
                    for ((product, &x), &y) in products.iter_mut().zip(x).zip(y) {
                        let (u, w) = (cosine * x + sine * y, cosine * y - sine * x);
                        *product *= (1.0 + u * u) * (1.0 + w * w);
                    }
                }
                for product in products {
                    total += Real::ln(product);
                }
            }
            total
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_of_any_size_is_found_again() {
        let (a, l) = (60, 6);
        let wave = |i: usize| (i as f64 * 2.7 + 0.4).sin();
        let mut sparse = vec![0.0; a * l];
        for (i, row) in sparse.chunks_exact_mut(l).enumerate() {
            row.iter_mut().enumerate().for_each(|(k, e)| *e = 0.1 * wave(11 * i + 5 * k));
            for target in 0..=i % 3 {
                row[(3 * i + 2 * target * i + target) % l] += wave(i + target).signum() * (4.5 + wave(7 * i));
            }
        }
        let effects = |rows: Vec<f64>| WhitenedEffects {
            interventions: (0..a).collect(),
            effects: rows,
            cells: vec![100.0; a],
            controls: 1e6,
            n_used: l,
            n_latents: l,
            colour: identity(l),
            unseen: vec![0.0; l],
        };
        let sparse = effects(sparse);
        let team = Team::single();
        for seed in 0..4 {
            // Turned by any angles in all planes at once.
            let turned = sparse.turned(&random_basis(l, 100 + seed, 1));
            let rotation = likeliest_turn(&team, &turned, 12, seed).expect("a turn");
            let found = turned.turned(&rotation);
            // At a scale well between the effects that are none and those that are.
            let total = |e: &WhitenedEffects| e.effects.iter().map(|e| Real::ln_1p(e / 0.4 * (e / 0.4))).sum::<f64>();
            assert!(total(&turned) > 1.5 * total(&sparse));
            assert!(total(&found) < 1.02 * total(&sparse), "{seed}: {} {}", total(&found), total(&sparse));
            for j in 0..l {
                for k in 0..l {
                    let dot: f64 = (0..l).map(|i| rotation[j * l + i] * rotation[k * l + i]).sum();
                    assert!((dot - f64::from(u8::from(j == k))).abs() < 1e-10);
                }
            }
        }
        // What is right already stays.
        assert_eq!(likeliest_turn(&team, &sparse, 1, 0), None);
        let alone = sparsest_turns(&Team::single(), &sparse, 5, 3);
        Team::with(3, |team| assert_eq!(sparsest_turns(team, &sparse, 5, 3), alone));
    }
}
