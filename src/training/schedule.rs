//! How the step size changes in the course of a training.

use serde::Deserialize;
use serde::Serialize;

/// What is left of the step size at the end of a cosine.
pub const FINAL_SHARE: f64 = 0.01;

/// Share of the steps before the step size of a late cosine begins to fall.
pub const LATE_FROM: f64 = 0.5;

/// Half a cosine from 1 at 0 to [`FINAL_SHARE`] at 1.
fn fall(progress: f64) -> f64 {
    let fallen = 0.5 * (1.0 - libm::cos(std::f64::consts::PI * progress.clamp(0.0, 1.0)));
    1.0 - (1.0 - FINAL_SHARE) * fallen
}

impl Schedule {
    /// Factor of the step size after `progress` (0 to 1) of all steps.
    ///
    /// `cosine`: from 1 to [`FINAL_SHARE`] along half a cosine (Loshchilov and Hutter 2017, their fifth equation, without restarts).
    /// `late-cosine`: 1 for the first half ([`LATE_FROM`]) of the steps, then that fall over the rest.
    pub fn factor(self, progress: f64) -> f64 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::Cosine => fall(progress),
            Schedule::LateCosine => fall((progress - LATE_FROM) / (1.0 - LATE_FROM)),
        }
    }
}

/// Course of the step size over a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The same for every step (as the reference implementation does)
    Constant,
    /// Falling to a hundredth along half a cosine
    Cosine,
    /// The same for the first half of the steps, then falling to a hundredth along half a cosine
    LateCosine,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cosine_falls_from_one_to_its_end() {
        let at = |progress| Schedule::Cosine.factor(progress);
        assert_eq!(at(0.0), 1.0);
        assert!((at(0.5) - 0.505).abs() < 1e-12 && (at(1.0) - FINAL_SHARE).abs() < 1e-12);
        assert!((0..100).all(|i| at(i as f64 / 100.0) > at((i + 1) as f64 / 100.0)));
        assert_eq!(Schedule::Constant.factor(0.7), 1.0);
        let late = |progress| Schedule::LateCosine.factor(progress);
        assert!(late(0.0) == 1.0 && late(0.5) == 1.0 && late(0.51) < 1.0);
        assert!((late(0.75) - 0.505).abs() < 1e-12 && (late(1.0) - FINAL_SHARE).abs() < 1e-12);
    }
}
