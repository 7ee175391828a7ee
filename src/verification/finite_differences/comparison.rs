//! A derivative and its difference.
//!
//! A derivative is differenced by the central stencil of fourth order,
//! `(f(x - 2h) - 8 f(x - h) + 8 f(x + h) - f(x + 2h)) / (12 h)`, whose truncation is about `h^4 f'''''/ 30` and whose
//! rounding is about `eps |f| / h`. Both are smallest together near `h = eps^(1/5)`, here times `max(1, |x|)`.
//!
//! Two things call for a smaller step: a ReLU that changes sides between the points of the stencil, where the function
//! has a kink and no difference is right; and a normalisation of nearly equal values, whose fifth derivative is huge.
//! The step then shrinks by 16, up to three times. Which step is used is decided by the differences and the kinks
//! alone: see [`Comparison::derivative`].

use crate::numerics::random::{Philox, Purpose, fill_normal, stream, u32_to_unit_f64};
use crate::verification::outcome::{Check, CheckKind};

/// How far a derivative may be from its difference: a relative part, and a floor for what rounding leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Largest error relative to the larger of the two. Covers truncation.
    pub relative: f64,
    /// Rounding of a value, in units of its magnitude times the machine epsilon; divided by the step, it is the floor.
    pub rounding: f64,
}

/// Truncation at h = eps^(1/5) is 1e-14 times the fifth derivative: 1e-7 leaves room for functions whose fifth
/// derivative is a million times the first, and any wrong sign, factor or missing term exceeds it by far.
/// A value is a sum of products of sums, each rounded: with a few hundred terms added in order, errors of tens of
/// units in the last place of the sum of magnitudes are the rule, hence 64.
pub const TOLERANCE: Tolerance = Tolerance { relative: 1e-7, rounding: 64.0 };

/// Coordinates of a tensor that are differenced one by one; all its coordinates are covered by a random direction.
const COORDINATES: usize = 4;
/// Steps tried: the first is near eps^(1/5), each of the others a sixteenth of the one before. Powers of two, so that
/// x + h is off by no more than the rounding of x.
const STEPS: [f64; 4] = [1.0 / 1024.0, 1.0 / 16_384.0, 1.0 / 262_144.0, 1.0 / 4_194_304.0];

/// A function's value at a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// The value.
    pub value: f64,
    /// Sum of the magnitudes of the terms that make it, to which rounding is proportional.
    pub magnitude: f64,
    /// Digest of the sides of all kinks; differs when one was crossed.
    pub sides: u64,
}

impl Evaluation {
    /// `sum_i weights[i] values[i]`, of a function without kinks.
    pub fn weighted(weights: &[f64], values: &[f64]) -> Self {
        let mut total = Self { value: 0.0, magnitude: 0.0, sides: 0 };
        for (w, v) in weights.iter().zip(values) {
            total.value += w * v;
            total.magnitude += (w * v).abs();
        }
        total
    }

    /// The same with the sides of the kinks that `outputs` (of ReLUs) stand for.
    pub fn with_sides<'a>(mut self, outputs: impl IntoIterator<Item = &'a [f64]>) -> Self {
        for values in outputs {
            for &v in values {
                // FNV-1a over one bit per unit.
                self.sides = (self.sides ^ u64::from(v > 0.0)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(1);
            }
        }
        self
    }
}

/// Derivatives compared with differences so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Derivatives compared.
    pub points: usize,
    /// Derivatives left out, because every step met a kink.
    pub rejected: usize,
    /// Largest error, relative to the larger of derivative and difference or, where that is below it, to the floor.
    pub worst: f64,
    tolerance: Tolerance,
}

impl Default for Comparison {
    fn default() -> Self {
        Self { points: 0, rejected: 0, worst: 0.0, tolerance: TOLERANCE }
    }
}

impl Comparison {
    /// Compares `derivative` with differences of `f(step)`, the function at that distance from the point; `base` is f(0).
    ///
    /// A step is not used if it crosses a kink. Where derivative and difference disagree, the next smaller step tells
    /// whether the difference is at fault: truncation changes by 16^4, so a disagreement that is more than four times
    /// the change between the two differences is none of theirs and stands. The tolerance is the same throughout.
    pub fn derivative(&mut self, derivative: f64, base: Evaluation, scale: f64, mut f: impl FnMut(f64) -> Evaluation) {
        let mut last: Option<(f64, f64)> = None; // difference and error
        for h in STEPS.map(|step| step * scale) {
            let crossed = |points: &[Evaluation; 2]| points.iter().any(|point| point.sides != base.sides);
            let outer = [-2.0 * h, 2.0 * h].map(&mut f);
            if crossed(&outer) {
                continue;
            }
            let inner = [-h, h].map(&mut f);
            if crossed(&inner) {
                continue;
            }
            let ([a, d], [b, c]) = (outer.map(|point| point.value), inner.map(|point| point.value));
            let difference = ((a - d) + 8.0 * (c - b)) / (12.0 * h);
            if let Some((before, _)) = last
                && (derivative - before).abs() > 4.0 * (difference - before).abs()
            {
                break;
            }
            let floor = self.tolerance.rounding * f64::EPSILON * base.magnitude / h;
            let size = derivative.abs().max(difference.abs()).max(floor / self.tolerance.relative);
            let distance = (derivative - difference).abs();
            let error = if distance == 0.0 { 0.0 } else { distance / size };
            last = Some((difference, error));
            if error <= self.tolerance.relative {
                break;
            }
        }
        match last {
            Some((_, error)) => {
                self.points += 1;
                // f64::max would pass over a NaN; here it stays.
                self.worst = if error > self.worst || error.is_nan() { error } else { self.worst };
            }
            None => self.rejected += 1,
        }
    }

    /// Compares `gradient` with differences of `f` at `x`: some coordinates at random, and one random direction.
    pub fn gradient(
        &mut self,
        random: &mut Random,
        x: &[f64],
        gradient: &[f64],
        mut f: impl FnMut(&[f64]) -> Evaluation,
    ) {
        assert_eq!(x.len(), gradient.len());
        if x.is_empty() {
            return;
        }
        let base = f(x);
        let mut moved = x.to_vec();
        for i in random.some_of(x.len(), COORDINATES) {
            self.derivative(gradient[i], base, x[i].abs().max(1.0), |step| {
                moved[i] = x[i] + step;
                let value = f(&moved);
                moved[i] = x[i];
                value
            });
        }
        let direction = random.direction(x.len());
        let along: f64 = direction.iter().zip(gradient).map(|(d, g)| d * g).sum();
        self.derivative(along, base, 1.0, |step| {
            for ((moved, &x), &d) in moved.iter_mut().zip(x).zip(&direction) {
                *moved = step.mul_add(d, x);
            }
            f(&moved)
        });
    }

    /// The check under this name.
    pub fn check(&self, name: impl Into<String>) -> Check {
        Check::new(name, CheckKind::FiniteDifference, self.points, self.worst, self.tolerance.relative)
    }
}

/// Random points, from the streams kept for verification.
#[derive(Debug)]
pub struct Random(Philox);

impl Random {
    /// The stream `item` of `seed`.
    pub fn new(seed: u64, item: u64) -> Self {
        Self(stream(seed, Purpose::Verification, 0, item))
    }

    /// Standard normal numbers.
    pub fn normal(&mut self, n: usize) -> Vec<f64> {
        let (mut out, mut words) = (vec![0.0; n], vec![0; n + 1]);
        fill_normal(&mut out, &mut words, &mut self.0);
        out
    }

    /// Uniform numbers between `from` and `to`.
    pub fn uniform(&mut self, n: usize, from: f64, to: f64) -> Vec<f64> {
        (0..n).map(|_| from + (to - from) * u32_to_unit_f64(self.0.next_u32())).collect()
    }

    /// A whole number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.bounded(n as u32) as usize
    }

    /// Up to `count` different numbers below `n`.
    pub fn some_of(&mut self, n: usize, count: usize) -> Vec<usize> {
        if n <= count {
            return (0..n).collect();
        }
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count {
            let i = self.below(n);
            if !chosen.contains(&i) {
                chosen.push(i);
            }
        }
        chosen
    }

    /// A random direction of length one.
    pub fn direction(&mut self, n: usize) -> Vec<f64> {
        let mut d = self.normal(n);
        let length = d.iter().map(|d| d * d).sum::<f64>().sqrt();
        d.iter_mut().for_each(|d| *d /= length);
        d
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(derivative: f64, scale: f64, f: impl Fn(f64) -> f64) -> Comparison {
        let mut comparison = Comparison::default();
        let at = |step| {
            let value = f(step);
            Evaluation { value, magnitude: value.abs(), sides: 0 }
        };
        comparison.derivative(derivative, at(0.0), scale, at);
        comparison
    }

    #[test]
    fn a_right_derivative_passes_and_a_wrong_one_does_not() {
        assert!(error(1f64.cos(), 1.0, |s| (1.0 + s).sin()).check("sine").pass);
        // Of a function that bends within a thousandth: only a smaller step can tell.
        let sharp = |s: f64| (1000.0 * s + 0.3).tanh();
        let slope = 1000.0 * (1.0 - 0.3f64.tanh().powi(2));
        assert!(error(slope, 1.0, sharp).check("sharp").pass);
        for wrong in [1.0 + 1e-6, 1.0 - 1e-6, -1.0, 0.0, f64::NAN] {
            assert!(!error(wrong * 1f64.cos(), 1.0, |s| (1.0 + s).sin()).check("sine").pass, "{wrong}");
            assert!(!error(wrong * slope, 1.0, sharp).check("sharp").pass, "{wrong}");
        }
    }

    #[test]
    fn a_kink_is_not_differenced_across() {
        // Kink at -1e-5: the first three steps cross it, the last does not.
        let relu = |step: f64| {
            let y = (step + 1e-5).max(0.0);
            Evaluation { value: y, magnitude: 1.0, sides: 0 }.with_sides([&[y][..]])
        };
        let mut comparison = Comparison::default();
        comparison.derivative(1.0, relu(0.0), 1.0, relu);
        assert!(comparison.points == 1 && comparison.check("relu").pass);
        let mut wrong = Comparison::default();
        wrong.derivative(0.999, relu(0.0), 1.0, relu);
        assert!(!wrong.check("relu").pass);
        // At the kink itself there is nothing to compare, and a check of nothing does not pass.
        let mut at = Comparison::default();
        at.derivative(0.5, relu(-1e-5), 1.0, |step| relu(step - 1e-5));
        assert!(at.points == 0 && at.rejected == 1 && !at.check("relu").pass);
    }
}
