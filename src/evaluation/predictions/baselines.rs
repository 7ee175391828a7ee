//! Predictions without a model, from the mean log expression of training cells.

use crate::evaluation::predictions::profiles::TrainingProfiles;

/// Penalty on the squared coefficients of [`PlainPrediction::Linear`].
const RIDGE: f64 = 0.1;
/// Sweeps over the interventions, and the change of the largest coefficient below which they end.
const SWEEPS: (usize, f64) = (1000, 1e-7);

/// How a combination is predicted without a model; derivation: `derivations/judgement.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainPrediction {
    /// As control.
    NoChange,
    /// As the mean of all combinations.
    PerturbedMean,
    /// As the mean of its members.
    MatchingMean,
    /// Control, and the sum of the members' effects.
    Additive,
    /// Control, and the sum of effects that a ridge regression finds in all combinations.
    Linear,
}

impl PlainPrediction {
    /// All of them, from the plainest on.
    pub const ALL: [Self; 5] = [Self::NoChange, Self::PerturbedMean, Self::MatchingMean, Self::Additive, Self::Linear];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoChange => "no change",
            Self::PerturbedMean => "mean of perturbed",
            Self::MatchingMean => "mean of members",
            Self::Additive => "additive",
            Self::Linear => "linear",
        }
    }
}

/// The baselines of a screen, ready to predict.
#[derive(Debug, Clone)]
pub struct Baselines<'a> {
    training: &'a TrainingProfiles,
    /// Coefficients of the ridge regression, interventions x G.
    linear: Vec<f64>,
}

impl<'a> Baselines<'a> {
    /// Those that know what `training` tells.
    pub fn new(training: &'a TrainingProfiles) -> Self {
        Self { training, linear: ridge(training) }
    }

    /// The mean log expression (G) that a baseline predicts of a combination.
    pub fn predict(&self, baseline: PlainPrediction, members: &[(u32, f32)]) -> Vec<f64> {
        let TrainingProfiles { reference, centroid, effects, .. } = self.training;
        let g = reference.len();
        // A member without cells of its own is as any other.
        let effect = |a: u32, gene: usize| match &effects[a as usize] {
            Some(effect) => effect[gene],
            None => centroid[gene] - reference[gene],
        };
        let sum = |gene: usize, of: &dyn Fn(u32, usize) -> f64| -> f64 {
            members.iter().map(|&(a, dose)| f64::from(dose) * of(a, gene)).sum()
        };
        let predicted = |gene: usize| match baseline {
            PlainPrediction::NoChange => reference[gene],
            PlainPrediction::PerturbedMean => centroid[gene],
            PlainPrediction::MatchingMean => reference[gene] + sum(gene, &effect) / members.len() as f64,
            PlainPrediction::Additive => reference[gene] + sum(gene, &effect),
            PlainPrediction::Linear => reference[gene] + sum(gene, &|a, gene| self.linear[a as usize * g + gene]),
        };
        (0..g).map(predicted).collect()
    }
}

/// Ridge regression, Eq. (J4), of the profiles' differences from the reference on the doses of their members: interventions x G, by
/// sweeps over the interventions, each of which solves for one of them given the others.
fn ridge(training: &TrainingProfiles) -> Vec<f64> {
    let TrainingProfiles { reference, profiles, effects, .. } = training;
    let g = reference.len();
    let mut left: Vec<Vec<f64>> =
        profiles.iter().map(|profile| profile.mean.iter().zip(reference).map(|(m, r)| m - r).collect()).collect();
    let mut with: Vec<Vec<(usize, f64)>> = vec![Vec::new(); effects.len()];
    for (p, profile) in profiles.iter().enumerate() {
        profile.combination.members.iter().for_each(|&(a, dose)| with[a as usize].push((p, f64::from(dose))));
    }
    let mut found = vec![0.0; effects.len() * g];
    for _ in 0..SWEEPS.0 {
        let mut largest = 0.0f64;
        for (with, coefficients) in with.iter().zip(found.chunks_exact_mut(g)) {
            let squares: f64 = with.iter().map(|(_, dose)| dose * dose).sum();
            for (gene, coefficient) in coefficients.iter_mut().enumerate() {
                let product: f64 = with.iter().map(|&(p, dose)| dose * left[p][gene]).sum();
                let next = (product + squares * *coefficient) / (squares + RIDGE);
                let change = next - *coefficient;
                *coefficient = next;
                with.iter().for_each(|&(p, dose)| left[p][gene] -= dose * change);
                largest = largest.max(change.abs());
            }
        }
        if largest < SWEEPS.1 {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::combinations::Combination;
    use crate::evaluation::predictions::profiles::Profile;

    /// Three interventions of two genes: 0 and 1 alone and together, 2 with 0 alone; the third has no cells of its own.
    fn training() -> TrainingProfiles {
        let profile = |members: &[(u32, f32)], mean: [f64; 2]| Profile {
            combination: Combination { label: String::new(), members: members.to_vec(), cells: vec![0] },
            mean: mean.to_vec(),
            squares: vec![0.0; 2],
        };
        let profiles = vec![
            profile(&[(0, 1.0)], [2.0, 1.0]),
            profile(&[(1, 1.0)], [1.0, 3.0]),
            profile(&[(0, 1.0), (2, 1.0)], [4.0, 2.0]),
        ];
        TrainingProfiles {
            reference: vec![1.0, 1.0],
            reference_cells: vec![0],
            has_controls: true,
            centroid: vec![7.0 / 3.0, 2.0],
            profiles,
            effects: vec![Some(vec![1.0, 0.0]), Some(vec![0.0, 2.0]), None],
        }
    }

    #[test]
    fn baselines_are_those_of_their_names() {
        let training = training();
        let baselines = Baselines::new(&training);
        // Without rounding in the last digits.
        let of = |baseline, members: &[(u32, f32)]| -> Vec<f64> {
            baselines.predict(baseline, members).iter().map(|x| (x * 1e9).round() / 1e9).collect()
        };
        let third = |n: f64| (n / 3.0 * 1e9).round() / 1e9;
        let both = [(0, 1.0), (1, 1.0)];
        assert_eq!(of(PlainPrediction::NoChange, &both), [1.0, 1.0]);
        assert_eq!(of(PlainPrediction::PerturbedMean, &both), [third(7.0), 2.0]);
        assert_eq!(of(PlainPrediction::MatchingMean, &both), [1.5, 2.0]);
        assert_eq!(of(PlainPrediction::Additive, &both), [2.0, 3.0]);
        assert_eq!(of(PlainPrediction::Additive, &[(0, 0.5), (1, 1.0)]), [1.5, 3.0]);
        assert_eq!(of(PlainPrediction::Additive, &[(1, 1.0), (2, 1.0)]), [third(7.0), 4.0]);
    }

    #[test]
    fn the_ridge_solves_its_equations() {
        let training = training();
        let found = ridge(&training);
        // (D'D + 0.1) W = D'Y, the rows of D being (1 0 0), (0 1 0), (1 0 1).
        let gram = [[2.1, 0.0, 1.0], [0.0, 1.1, 0.0], [1.0, 0.0, 1.1]];
        let right = [[4.0, 1.0], [0.0, 2.0], [3.0, 1.0]];
        for a in 0..3 {
            for gene in 0..2 {
                let got: f64 = (0..3).map(|b| gram[a][b] * found[b * 2 + gene]).sum();
                assert!((got - right[a][gene]).abs() < 1e-5, "{a} {gene}: {got}");
            }
        }
    }
}
