//! The turn of the latents, of any size, after which interventions act on as few of them as possible. Derivation:
//! `derivations/rotation.md`.

use crate::numerics::random::{Purpose, fill_normal, stream};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;

/// Angles that are tried first, in degrees either way.
const COARSE: [i32; 2] = [-45, 45];
const STEP: i32 = 5;
/// Halvings of the step about the best angle.
const HALVINGS: usize = 5;
/// Share by which a turn of two axes must lower their sum of Eq. (V3).
const LEAST_GAIN: f64 = 1e-5;
/// Passes over all pairs, at most.
const MOST_PASSES: usize = 60;

/// A turn of the latents.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Orthogonal matrix, L x L.
    pub rotation: Vec<f64>,
    /// Eq. (V3) afterwards.
    pub cost: f64,
}

/// The turn of `effects` (A x L) with the lowest sum of Eq. (V3) that turns of two axes at a time reach from `starts` bases:
/// the present one, and random ones.
pub fn sparsest_turn(effects: &[f64], l: usize, starts: usize, seed: u64) -> Turn {
    let from = |start: usize| {
        let basis = if start == 0 { identity(l) } else { random_basis(l, seed, start) };
        descend(effects, l, basis)
    };
    (0..starts.max(1)).map(from).min_by(|a, b| a.cost.total_cmp(&b.cost)).expect("a start")
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

/// Turns of two axes at a time, from `rotation` on.
fn descend(effects: &[f64], l: usize, mut rotation: Vec<f64>) -> Turn {
    let a = effects.len() / l;
    // An axis after the other, so that pairs are read in order.
    let mut axes: Vec<Vec<f64>> = rotation
        .chunks_exact(l)
        .map(|axis| effects.chunks_exact(l).map(|row| axis.iter().zip(row).map(|(r, e)| r * e).sum()).collect())
        .collect();
    for _ in 0..MOST_PASSES {
        let mut turned = false;
        for j in 0..l {
            for k in j + 1..l {
                let (x, y) = (&axes[j], &axes[k]);
                let before = pair_cost(x, y, 1.0, 0.0);
                let (angle, after) = best_angle(x, y);
                if after >= (1.0 - LEAST_GAIN) * before {
                    continue;
                }
                let (sine, cosine) = libm::sincos(angle);
                let turn = |x: f64, y: f64| (cosine * x + sine * y, cosine * y - sine * x);
                for i in 0..a {
                    (axes[j][i], axes[k][i]) = turn(axes[j][i], axes[k][i]);
                }
                for column in 0..l {
                    let (of_j, of_k) = (j * l + column, k * l + column);
                    (rotation[of_j], rotation[of_k]) = turn(rotation[of_j], rotation[of_k]);
                }
                turned = true;
            }
        }
        if !turned {
            break;
        }
    }
    let cost = axes.iter().flatten().map(|e| Real::ln_1p(e * e)).sum();
    Turn { rotation, cost }
}

/// The angle by which to turn two axes, and their sum of Eq. (V3) there.
fn best_angle(x: &[f64], y: &[f64]) -> (f64, f64) {
    let cost = |degrees: f64| {
        let (sine, cosine) = libm::sincos(degrees.to_radians());
        pair_cost(x, y, cosine, sine)
    };
    let tried =
        (COARSE[0]..COARSE[1]).step_by(STEP as usize).map(|degrees| (cost(f64::from(degrees)), f64::from(degrees)));
    let (mut lowest, mut best) = tried.min_by(|a, b| a.0.total_cmp(&b.0)).expect("some angles");
    let mut step = 0.5 * f64::from(STEP);
    for _ in 0..HALVINGS {
        let centre = best;
        for degrees in [centre - step, centre + step] {
            let here = cost(degrees);
            if here < lowest {
                (lowest, best) = (here, degrees);
            }
        }
        step *= 0.5;
    }
    (best.to_radians(), lowest)
}

/// Rows whose terms are multiplied before their logarithm is taken.
const ROWS: usize = 64;
/// Products at a time.
const LANES: usize = 8;

/// Eq. (V3) of two axes, turned by an angle of this cosine and sine.
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
