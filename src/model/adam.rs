//! Adam with L2 weight decay, one pass over the flat buffers. Derivation: `derivations/adam.md`.

use crate::model::parameters::Buffer;
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::parallel::team::{Team, tiles};
use std::ops::Range;

/// Settings of the optimiser (Kingma and Ba 2015; weight decay added to the gradient, as torch.optim.Adam does).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamSettings {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// L2 decay, added to the gradient.
    pub weight_decay: f64,
}

impl Default for AdamSettings {
    /// The reference's settings.
    fn default() -> Self {
        Self { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 0.01, weight_decay: 1e-6 }
    }
}

/// State of the optimiser.
#[derive(Debug, Clone, PartialEq)]
pub struct Adam<R> {
    /// First moment of the gradient.
    pub first: Buffer<R>,
    /// Second moment of the gradient.
    pub second: Buffer<R>,
    /// Steps taken.
    pub steps: u64,
}

/// Values per tile: five arrays of a tile fit the second-level cache.
const TILE: usize = 16_384;

/// The constants of one step.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep<R> {
    beta1: R,
    beta2: R,
    rest1: R,
    rest2: R,
    decay: R,
    epsilon: R,
    rate: R,
    correction: R,
}

impl<R: Real> AdamStep<R> {
    /// Moves parameters by Eqs. (A1)-(A4), given their gradient, and updates its moments; all of one length.
    pub fn apply(&self, parameters: &mut [R], gradient: &[R], first: &mut [R], second: &mut [R]) {
        let &Self { beta1, beta2, rest1, rest2, decay, epsilon, rate, correction } = self;
        let (p, n) = (parameters, gradient.len());
        let (p, m, v) = (&mut p[..n], &mut first[..n], &mut second[..n]);
        vectorized(
            #[inline(always)]
            || {
                for j in 0..n {
                    let g = decay.fma(p[j], gradient[j]);
                    m[j] = rest1.fma(g, beta1 * m[j]);
                    v[j] = (rest2 * g).fma(g, beta2 * v[j]);
                    p[j] -= rate * m[j] / v[j].sqrt().fma(correction, epsilon);
                }
            },
        );
    }
}

impl<R: Real> Adam<R> {
    /// A fresh state for `parameters`.
    pub fn new(parameters: &Buffer<R>) -> Self {
        Self { first: Buffer::zeros(&parameters.layout), second: Buffer::zeros(&parameters.layout), steps: 0 }
    }

    /// Counts a step and returns its constants.
    pub fn begin_step(&mut self, settings: &AdamSettings) -> AdamStep<R> {
        self.steps += 1;
        let t = self.steps as f64;
        AdamStep {
            beta1: R::from_f64(settings.beta1),
            beta2: R::from_f64(settings.beta2),
            rest1: R::from_f64(1.0 - settings.beta1),
            rest2: R::from_f64(1.0 - settings.beta2),
            decay: R::from_f64(settings.weight_decay),
            epsilon: R::from_f64(settings.epsilon),
            // Bias corrections, in f64: 1 - beta2^t loses digits in f32 at small t.
            rate: R::from_f64(settings.learning_rate / (1.0 - libm::pow(settings.beta1, t))),
            correction: R::from_f64(1.0 / (1.0 - libm::pow(settings.beta2, t)).sqrt()),
        }
    }

    /// One step on the values in `trained`, Eqs. (A1)-(A4); the rest stays as it is.
    pub fn step(
        &mut self,
        team: &Team,
        parameters: &mut Buffer<R>,
        gradient: &Buffer<R>,
        trained: &[Range<usize>],
        settings: &AdamSettings,
    ) {
        let step = self.begin_step(settings);
        for range in trained {
            let gradient = &gradient.values[range.clone()];
            let output = (
                tiles(&mut parameters.values[range.clone()], TILE),
                tiles(&mut self.first.values[range.clone()], TILE),
                tiles(&mut self.second.values[range.clone()], TILE),
            );
            team.run(range.len().div_ceil(TILE), output, |i, (p, m, v)| {
                step.apply(p, &gradient[i * TILE..i * TILE + p.len()], m, v);
            });
        }
    }
}
