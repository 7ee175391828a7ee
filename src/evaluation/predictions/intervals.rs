//! How well the intervals of predictions hold on held-out combinations. Derivation: `derivations/judgement.md`.

use serde::Serialize;

use crate::evaluation::edge::DEVIATIONS_OF_95;

/// Widenings of intervals between which the right one is sought, and how often the range is halved.
const WIDENINGS: (f64, f64) = (0.1, 100.0);
const BISECTIONS: usize = 40;

/// How well the 95 % intervals of predicted mean log expression hold, genes of all combinations together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct IntervalFigures {
    /// Share that holds what was observed, its sampling error allowed for, as training cells make the intervals.
    pub coverage: f64,
    /// How many times wider they must be to hold 95 %, Eq. (J10).
    pub widening: f64,
    /// Share that those of one half of the combinations hold, so many times wider as the other half asks for.
    pub coverage_widened: f64,
}

/// What decides whether an interval holds what was observed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Miss {
    /// Squared difference of observed and predicted.
    pub square: f64,
    /// Variance of the truth about the prediction.
    pub variance: f64,
    /// Sampling variance of what was observed.
    pub sampling: f64,
}

impl Miss {
    /// Share of intervals, so many times wider, that hold what was observed.
    fn coverage<'a>(misses: impl Iterator<Item = &'a Self>, widening: f64) -> f64 {
        let (mut held, mut all) = (0usize, 0usize);
        for Self { square, variance, sampling } in misses {
            held += usize::from(*square <= DEVIATIONS_OF_95.powi(2) * (widening * widening * variance + sampling));
            all += 1;
        }
        held as f64 / all as f64
    }

    /// The least widening with which 95 % hold, by bisection of its logarithm; Eq. (J10).
    fn widening<'a>(misses: impl Iterator<Item = &'a Self> + Clone) -> f64 {
        let (mut low, mut high) = WIDENINGS;
        for _ in 0..BISECTIONS {
            let middle = (low * high).sqrt();
            match Self::coverage(misses.clone(), middle) < 0.95 {
                true => low = middle,
                false => high = middle,
            }
        }
        high
    }
}

/// How well the intervals of predictions hold, by the misses of each combination's genes; `None` for a single combination.
pub(crate) fn intervals(misses: &[Vec<Miss>]) -> Option<IntervalFigures> {
    if misses.len() < 2 {
        return None;
    }
    let all = || misses.iter().flatten();
    let half = |first: usize| misses.iter().skip(first).step_by(2).flatten();
    let crossed = [0, 1].map(|first| Miss::coverage(half(first), Miss::widening(half(1 - first))));
    let share = half(0).count() as f64 / all().count() as f64;
    Some(IntervalFigures {
        coverage: Miss::coverage(all(), 1.0),
        widening: Miss::widening(all()),
        coverage_widened: share * crossed[0] + (1.0 - share) * crossed[1],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::random::{Purpose, fill_normal, stream};

    #[test]
    fn intervals_that_are_too_narrow_are_widened_by_as_much() {
        let (n, combinations) = (20_000, 6);
        let mut noise = vec![0.0; n * combinations];
        fill_normal(&mut noise, &mut vec![0; n * combinations], &mut stream(5, Purpose::Shuffle, 0, 0));
        // The truth scatters twice as far as is said, what is observed by 0.5 more.
        let miss = |e: &f64| Miss { square: (e * 4.25f64.sqrt()).powi(2), variance: 1.0, sampling: 0.25 };
        let misses: Vec<Vec<Miss>> = noise.chunks_exact(n).map(|noise| noise.iter().map(miss).collect()).collect();
        let found = intervals(&misses).expect("several combinations");
        // P(|e| <= 1.96 sqrt(1.25 / 4.25)) = 0.712.
        assert!((found.coverage - 0.712).abs() < 0.004, "{found:?}");
        assert!((found.widening - 2.0).abs() < 0.02, "{found:?}");
        assert!((found.coverage_widened - 0.95).abs() < 0.002, "{found:?}");
        assert_eq!(intervals(&misses[..1]), None);
    }
}
