//! How close a predicted mean log expression is to an observed one. Derivation: `derivations/judgement.md`.

use crate::evaluation::predictions::profiles::LogExpression;
use crate::parallel::team::{Team, tiles};

/// Genes that count as the strongest.
const STRONGEST: usize = 20;
/// Cells of each side of an energy distance, at most.
pub const ENERGY_CELLS: usize = 100;

/// A figure by which predictions are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// Pearson correlation over genes of the differences from control.
    PearsonControl,
    /// Pearson correlation over genes of the differences from the mean of the perturbed.
    PearsonCentroid,
    /// Mean squared error, genes weighed by how differently they are expressed.
    WeightedMse,
    /// Share of the weighted variance of the differences from control that is explained.
    WeightedR2,
    /// Share of the other observed combinations that are farther from the prediction than its own.
    CentroidAccuracy,
    /// Share of the 20 most differently expressed genes among the 20 that are predicted to change most.
    TopGenes,
    /// Share of the other predictions that are closer to what is observed than its own.
    Rank,
    /// Energy distance of predicted and observed cells.
    EnergyDistance,
}

/// Number of scores.
pub const N_SCORES: usize = Score::ALL.len();

/// A value of each score, not a number where there is none.
pub type Scores = [f64; N_SCORES];

impl Score {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 8] = [
        Self::PearsonControl,
        Self::PearsonCentroid,
        Self::WeightedMse,
        Self::WeightedR2,
        Self::CentroidAccuracy,
        Self::TopGenes,
        Self::Rank,
        Self::EnergyDistance,
    ];

    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::PearsonControl => "pearson_control",
            Self::PearsonCentroid => "pearson_centroid",
            Self::WeightedMse => "weighted_mse",
            Self::WeightedR2 => "weighted_r2",
            Self::CentroidAccuracy => "centroid_accuracy",
            Self::TopGenes => "top20_recall",
            Self::Rank => "rank",
            Self::EnergyDistance => "energy_distance",
        }
    }

    /// Whether a higher value is better.
    pub fn higher_is_better(self) -> bool {
        !matches!(self, Self::WeightedMse | Self::Rank | Self::EnergyDistance)
    }

    /// Its value for a perfect prediction.
    pub fn perfect(self) -> f64 {
        if self.higher_is_better() { 1.0 } else { 0.0 }
    }
}

/// What the scores of a combination are measured by.
#[derive(Debug, Clone)]
pub struct ScoreFrame<'a> {
    /// What differences are taken from, G.
    pub reference: &'a [f64],
    /// Mean of the perturbed, G.
    pub centroid: &'a [f64],
    /// Weights of the genes, G; their sum is 1.
    pub weights: Vec<f64>,
    /// The most differently expressed genes, ascending.
    pub strongest: Vec<usize>,
    /// Squared distances of each prediction from the observed centroids of the other combinations.
    pub others: Vec<Vec<f64>>,
}

impl ScoreFrame<'_> {
    /// Scores of the prediction number `which` of a combination observed as `truth` (G each) that need nothing but the two.
    pub fn scores(&self, which: usize, truth: &[f64], predicted: &[f64]) -> Scores {
        let (reference, weights) = (self.reference, &self.weights);
        let error = weighted(weights, truth.iter().zip(predicted).map(|(t, p)| (t - p).powi(2)));
        let mean = weighted(weights, truth.iter().zip(reference).map(|(t, r)| t - r));
        let total = weighted(weights, truth.iter().zip(reference).map(|(t, r)| (t - r - mean).powi(2)));
        let others = &self.others[which];
        let own = squared_distance(truth, predicted);
        let farther = others.iter().filter(|&&other| other > own).count();
        let mut scores = [f64::NAN; N_SCORES];
        let mut set = |score: Score, value: f64| scores[score as usize] = value;
        set(Score::PearsonControl, pearson(truth, predicted, reference));
        set(Score::PearsonCentroid, pearson(truth, predicted, self.centroid));
        set(Score::WeightedMse, error);
        set(Score::WeightedR2, 1.0 - error / total);
        if !others.is_empty() {
            set(Score::CentroidAccuracy, farther as f64 / others.len() as f64);
        }
        let changes: Vec<f64> = predicted.iter().zip(reference).map(|(p, r)| (p - r).abs()).collect();
        // A prediction of no change names no genes.
        if changes.iter().any(|&change| change > 0.0) {
            let named = largest(&changes, self.strongest.len());
            let found = named.iter().filter(|gene| self.strongest.binary_search(gene).is_ok()).count();
            set(Score::TopGenes, found as f64 / self.strongest.len() as f64);
        }
        scores
    }
}

/// Welch's t statistic of each gene between cells and others of which mean and variance are given: (mean, variance, cells).
pub fn welch(cells: &LogExpression, (mean, variance, n): (&[f64], &[f64], usize)) -> Vec<f64> {
    let (m, v) = cells.moments();
    let statistic = |gene: usize| {
        let error = v[gene] / cells.n_cells() as f64 + variance[gene] / n as f64;
        if error > 0.0 { (m[gene] - mean[gene]) / error.sqrt() } else { 0.0 }
    };
    (0..mean.len()).map(statistic).collect()
}

/// Weights of genes by their statistics, Eq. (J5): absolute values scaled to [0, 1], squared, with the sum 1.
pub fn weights_of(statistics: &[f64]) -> Vec<f64> {
    let sizes: Vec<f64> = statistics.iter().map(|t| t.abs()).collect();
    let (low, high) = sizes.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &t| (low.min(t), high.max(t)));
    let scaled: Vec<f64> =
        sizes.iter().map(|t| if high > low { ((t - low) / (high - low)).powi(2) } else { 1.0 }).collect();
    let total: f64 = scaled.iter().sum();
    scaled.iter().map(|weight| weight / total).collect()
}

/// The most differently expressed genes, ascending.
pub fn strongest(statistics: &[f64]) -> Vec<usize> {
    largest(&statistics.iter().map(|t| t.abs()).collect::<Vec<_>>(), STRONGEST)
}

/// Places of the `most` largest values, ascending; of equal ones the first.
fn largest(values: &[f64], most: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    places.truncate(most);
    places.sort_unstable();
    places
}

fn weighted(weights: &[f64], values: impl Iterator<Item = f64>) -> f64 {
    weights.iter().zip(values).map(|(weight, value)| weight * value).sum()
}

/// Sum over genes of squared differences.
pub fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// Pearson correlation of the differences of `a` and `b` from `origin`; not a number where one of them does not vary.
pub fn pearson(a: &[f64], b: &[f64], origin: &[f64]) -> f64 {
    let n = a.len() as f64;
    let differences = || a.iter().zip(b).zip(origin).map(|((a, b), origin)| (a - origin, b - origin));
    let (sum_a, sum_b) = differences().fold((0.0, 0.0), |(x, y), (a, b)| (x + a, y + b));
    let (mean_a, mean_b) = (sum_a / n, sum_b / n);
    let (mut product, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (a, b) in differences() {
        product += (a - mean_a) * (b - mean_b);
        of_a += (a - mean_a).powi(2);
        of_b += (b - mean_b).powi(2);
    }
    product / (of_a * of_b).sqrt()
}

/// Energy distance of two sets of cells, Eq. (J7): twice the mean distance between them less the mean distances within each.
pub fn energy_distance(team: &Team, x: &LogExpression, y: &LogExpression) -> f64 {
    2.0 * mean_distance(team, x, y) - mean_distance(team, x, x) - mean_distance(team, y, y)
}

fn mean_distance(team: &Team, x: &LogExpression, y: &LogExpression) -> f64 {
    let mut sums = vec![0.0; x.n_cells()];
    team.run(x.n_cells(), tiles(&mut sums, 1), |i, sum| {
        let a = &x.values[i * x.n_genes..(i + 1) * x.n_genes];
        sum[0] = y.rows().map(|b| f64::from(distance(a, b))).sum();
    });
    sums.iter().sum::<f64>() / (x.n_cells() * y.n_cells()) as f64
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums side by side.
    let mut sums = [0.0f32; 8];
    let (pairs_a, rest_a) = a.as_chunks::<8>();
    let (pairs_b, rest_b) = b.as_chunks::<8>();
    for (a, b) in pairs_a.iter().zip(pairs_b) {
        for i in 0..8 {
            sums[i] += (a[i] - b[i]) * (a[i] - b[i]);
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| (a - b) * (a - b)).sum();
    (sums.iter().sum::<f32>() + rest).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_known_predictions() {
        let (reference, centroid) = ([0.0; 4], [1.0, 0.0, 0.0, 0.0]);
        let truth = [2.0, 1.0, 0.0, -1.0];
        let predictions = [truth.to_vec(), vec![1.0, 0.5, 0.0, -0.5], vec![0.0; 4], vec![-2.0, -1.0, 0.0, 1.0]];
        let others = [[2.0, 0.0, 0.0, 0.0], [0.0, 0.1, 0.0, 0.0], [9.0; 4]];
        let distances = |p: &Vec<f64>| others.iter().map(|other| squared_distance(p, other)).collect();
        let scale = ScoreFrame {
            reference: &reference,
            centroid: &centroid,
            weights: vec![0.5, 0.25, 0.0, 0.25],
            strongest: vec![0, 1],
            others: predictions.iter().map(distances).collect(),
        };
        let of = |i: usize, score: Score| scale.scores(i, &truth, &predictions[i])[score as usize];
        for score in [Score::PearsonControl, Score::PearsonCentroid, Score::WeightedMse, Score::WeightedR2] {
            assert!((of(0, score) - score.perfect()).abs() < 1e-12, "{score:?}");
        }
        assert_eq!((of(0, Score::CentroidAccuracy), of(0, Score::TopGenes)), (1.0, 1.0));
        // Half the effect: the direction is right, and so is one quarter of the squared error left.
        assert!((of(1, Score::PearsonControl) - 1.0).abs() < 1e-12);
        assert!((of(1, Score::WeightedMse) - (0.5 * 1.0 + 0.25 * 0.25 + 0.25 * 0.25)).abs() < 1e-12);
        // The weighted mean of the truth is 1, its variance 0.5 * 1 + 0.25 * 0 + 0.25 * 4.
        assert!((of(1, Score::WeightedR2) - (1.0 - 0.625 / 1.5)).abs() < 1e-12);
        // No change: no direction, no genes; the second of the others lies nearer than the truth does.
        assert!(of(2, Score::PearsonControl).is_nan() && of(2, Score::TopGenes).is_nan());
        assert!((of(2, Score::CentroidAccuracy) - 1.0 / 3.0).abs() < 1e-12);
        assert!((of(3, Score::PearsonControl) + 1.0).abs() < 1e-12);
    }

    #[test]
    fn weights_grow_with_the_statistic_and_add_up() {
        let weights = weights_of(&[0.0, -2.0, 1.0, 4.0]);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(weights[0], 0.0);
        assert!((weights[3] / weights[1] - 4.0).abs() < 1e-12);
        assert_eq!(weights_of(&[1.0, 1.0]), [0.5, 0.5]);
        assert_eq!(strongest(&[1.0, -3.0, 2.0]), [0, 1, 2]);
    }

    #[test]
    fn the_energy_distance_is_none_of_a_set_from_itself_and_that_of_two_points() {
        let team = Team::single();
        let of = |values: &[f32]| LogExpression { n_genes: 2, values: values.to_vec() };
        let x = of(&[0.0, 0.0, 3.0, 4.0, 1.0, 1.0]);
        assert!(energy_distance(&team, &x, &x).abs() < 1e-9);
        assert!((energy_distance(&team, &of(&[0.0, 0.0]), &of(&[3.0, 4.0])) - 10.0).abs() < 1e-6);
        let long: Vec<f32> = (0..19).map(|i| i as f32).collect();
        assert!((distance(&long, &[0.0; 19]) - (18.0 * 19.0 * 37.0 / 6.0f32).sqrt()).abs() < 1e-3);
    }
}
