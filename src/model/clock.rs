//! Where the time of a step goes: a clock per stage, summed over threads, off unless a benchmark turns it on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A stage of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Counts, size factors and covariates into the minibatch's buffers.
    Minibatch,
    /// Noise of latents, masks and dropout.
    Noise,
    /// Encoder and posterior, forward.
    Encoder,
    /// Masks, prior means and divergences, forward.
    MaskAndPrior,
    /// Decoder, forward.
    Decoder,
    /// Likelihood and its gradient.
    Likelihood,
    /// Gradients of activations.
    Backward,
    /// Gradients of parameters.
    ParameterGradients,
    /// The optimiser.
    Adam,
}

impl Stage {
    /// Every stage, in the order of a step.
    pub const ALL: [Stage; 9] = [
        Stage::Minibatch,
        Stage::Noise,
        Stage::Encoder,
        Stage::MaskAndPrior,
        Stage::Decoder,
        Stage::Likelihood,
        Stage::Backward,
        Stage::ParameterGradients,
        Stage::Adam,
    ];

    /// Name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Minibatch => "minibatch",
            Stage::Noise => "noise",
            Stage::Encoder => "encoder",
            Stage::MaskAndPrior => "mask_and_prior",
            Stage::Decoder => "decoder",
            Stage::Likelihood => "likelihood",
            Stage::Backward => "backward",
            Stage::ParameterGradients => "parameter_gradients",
            Stage::Adam => "adam",
        }
    }
}

/// Time spent in each stage so far, by all threads together.
#[derive(Debug, Default)]
pub struct StageClock {
    on: bool,
    nanoseconds: [AtomicU64; Stage::ALL.len()],
}

impl StageClock {
    /// A clock that runs.
    pub fn running() -> Self {
        Self { on: true, ..Self::default() }
    }

    /// Starts to measure on this thread.
    #[inline]
    pub fn lap(&self) -> Lap<'_> {
        Lap { clock: self, since: self.on.then(Instant::now) }
    }

    /// Seconds spent in `stage`.
    pub fn seconds(&self, stage: Stage) -> f64 {
        self.nanoseconds[stage as usize].load(Ordering::Relaxed) as f64 * 1e-9
    }
}

/// A measurement in progress.
#[derive(Debug)]
pub struct Lap<'a> {
    clock: &'a StageClock,
    since: Option<Instant>,
}

impl Lap<'_> {
    /// Counts the time since the start, or since the last call, as spent in `stage`.
    #[inline]
    pub fn end(&mut self, stage: Stage) {
        if let Some(since) = &mut self.since {
            let now = Instant::now();
            let spent = (now - *since).as_nanos() as u64;
            self.clock.nanoseconds[stage as usize].fetch_add(spent, Ordering::Relaxed);
            *since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_add_up_and_a_stopped_clock_counts_nothing() {
        let clock = StageClock::running();
        let start = Instant::now();
        let mut lap = clock.lap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        lap.end(Stage::Encoder);
        std::thread::sleep(std::time::Duration::from_millis(1));
        lap.end(Stage::Adam);
        let total: f64 = Stage::ALL.iter().map(|&stage| clock.seconds(stage)).sum();
        assert!(clock.seconds(Stage::Encoder) >= 0.002 && clock.seconds(Stage::Adam) >= 0.001);
        assert!(total <= start.elapsed().as_secs_f64());
        let stopped = StageClock::default();
        stopped.lap().end(Stage::Adam);
        assert_eq!(stopped.seconds(Stage::Adam), 0.0);
    }
}
