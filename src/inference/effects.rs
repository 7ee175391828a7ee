//! What interventions do to the latents of their cells: least squares of posterior means on interventions and covariates.
//! Derivation: `derivations/evidence.md`.

use std::collections::BTreeMap;

use crate::data::dataset::Dataset;
use crate::error::Result;
use crate::inference::Inference;
use crate::model::prior::evidence::EffectsToWeigh;
use crate::numerics::real::Real;
use crate::numerics::symmetric::eigen;

/// Most rounds of the least squares.
const MOST_ROUNDS: usize = 200;
/// Residual, relative to the right-hand side, at which they are solved.
const SOLVED: f64 = 1e-12;
/// Variance within interventions below which a latent is not blown up: cells say next to nothing about it.
const LEAST_VARIANCE: f64 = 0.1;
/// Variance below which cells say nothing about a latent.
const UNUSED: f64 = 0.05;

/// Effects of all interventions on all latents, as estimated from cells. A interventions, L latents.
#[derive(Debug, Clone, PartialEq)]
pub struct InterventionEffects {
    /// L.
    pub n_latents: usize,
    /// Effects, A x L: the least squares of Eq. (E1); 0 for an intervention without cells.
    pub effects: Vec<f64>,
    /// Sum of the squared doses of each intervention over the cells, A: its number of cells, where each received dose 1.
    pub cells: Vec<f64>,
    /// Control cells, which effects are relative to; 0 without.
    pub controls: f64,
    /// What effects are relative to, L: the mean over all cells of what the constant and the covariates explain.
    pub origin: Vec<f64>,
    /// What the constant and each level of the categorical covariates, one after the other, explain: a row of L each.
    pub others: Vec<f64>,
    /// Covariance of posterior means about what interventions and covariates explain, L x L.
    pub within: Vec<f64>,
}

/// Effects in units of the deviation of cells, in which the cells of an intervention scatter alike along all latents.
#[derive(Debug, Clone, PartialEq)]
pub struct WhitenedEffects {
    /// Numbers of the interventions with cells.
    pub interventions: Vec<usize>,
    /// Their effects, one row each.
    pub effects: Vec<f64>,
    /// Their cells.
    pub cells: Vec<f64>,
    /// Control cells.
    pub controls: f64,
    /// Latents about which cells say something.
    pub n_used: usize,
    /// L.
    pub n_latents: usize,
    /// From whitened latents to those of the model, L x L, Eq. (E2).
    pub colour: Vec<f64>,
    /// Share of the variance of each latent within interventions that the cells do not show, L.
    pub unseen: Vec<f64>,
}

/// Cells that the design does not tell apart.
struct CellGroup {
    interventions: Vec<(usize, f64)>,
    /// Columns of covariates: one level of each.
    levels: Vec<usize>,
    cells: f64,
    sum: Vec<f64>,
}

impl<R: Real> Inference<'_, R> {
    /// Effects of all interventions on the latents of `cells`.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn intervention_effects(&mut self, cells: &[usize]) -> Result<InterventionEffects> {
        let means = self.posterior_means(cells)?;
        Ok(InterventionEffects::new(self.data, cells, &means, self.network.architecture.n_latents))
    }
}

impl InterventionEffects {
    /// The effects on `cells`, whose posterior means these are (cells x L).
    pub fn new<R: Real>(data: &Dataset, cells: &[usize], means: &[R], n_latents: usize) -> Self {
        let l = n_latents;
        let a = data.n_interventions();
        let groups = groups(data, cells, means, l);
        let mut outer = vec![0.0; l * l];
        for mean in means.chunks_exact(l) {
            for j in 0..l {
                for k in 0..=j {
                    outer[j * l + k] += mean[j].to_f64() * mean[k].to_f64();
                }
            }
        }
        let controls = groups.iter().filter(|group| group.interventions.is_empty()).map(|group| group.cells).sum();
        let n_levels: usize = data.covariates.categorical.iter().map(|column| column.levels.len()).sum();
        let system = NormalEquations { groups: &groups, n_interventions: a, width: a + 1 + n_levels };
        let solution = system.solve(l);
        for group in &groups {
            // Residual sums of squares: those of the cells, less what the fit explains.
            let fitted = group.fitted(&solution, a, l);
            for j in 0..l {
                for k in 0..=j {
                    outer[j * l + k] +=
                        group.cells * fitted[j] * fitted[k] - fitted[j] * group.sum[k] - fitted[k] * group.sum[j];
                }
            }
        }
        let n = cells.len().max(1) as f64;
        let within = (0..l * l).map(|at| outer[(at / l).max(at % l) * l + (at / l).min(at % l)] / n).collect();
        let mut dose_squares = vec![0.0; a];
        for group in &groups {
            group.interventions.iter().for_each(|&(a, dose)| dose_squares[a] += dose * dose * group.cells);
        }
        let mut origin = vec![0.0; l];
        for group in &groups {
            for (column, _) in group.columns(a).filter(|(column, _)| *column >= a) {
                let row = &solution[column * l..(column + 1) * l];
                origin.iter_mut().zip(row).for_each(|(origin, value)| *origin += group.cells * value / n);
            }
        }
        let mut effects = solution[..a * l].to_vec();
        for (effects, &cells) in effects.chunks_exact_mut(l).zip(&dose_squares) {
            if cells == 0.0 {
                effects.fill(0.0);
            }
        }
        let others = solution[a * l..].to_vec();
        Self { n_latents, effects, cells: dose_squares, controls, origin, others, within }
    }

    /// What is explained of a cell before any intervention acts on it, L.
    pub fn without_intervention(&self, data: &Dataset, cell: usize) -> Vec<f64> {
        let l = self.n_latents;
        let mut explained = self.others[..l].to_vec();
        let mut first = 1;
        for column in &data.covariates.categorical {
            let row = first + column.codes[cell] as usize;
            let of_level = &self.others[row * l..(row + 1) * l];
            explained.iter_mut().zip(of_level).for_each(|(explained, value)| *explained += value);
            first += column.levels.len();
        }
        explained
    }

    /// The effects of other sets of cells (a row of L each) on the same latents, and how many cells they are worth.
    pub fn of_others(&self, effects: Vec<f64>, cells: Vec<f64>) -> Self {
        Self { effects, cells, ..self.clone() }
    }

    /// The effects of the interventions with cells on whitened latents, Eq. (E2).
    pub fn whitened(&self) -> WhitenedEffects {
        let l = self.n_latents;
        let (values, vectors) = eigen(self.within.clone(), l);
        let power = |exponent: fn(f64) -> f64| -> Vec<f64> {
            let scales: Vec<f64> = values.iter().map(|&value| exponent(value.max(LEAST_VARIANCE))).collect();
            let of = |i: usize, j: usize| (0..l).map(|k| vectors[i * l + k] * scales[k] * vectors[j * l + k]).sum();
            (0..l * l).map(|at| of(at / l, at % l)).collect()
        };
        let white = power(|variance| 1.0 / variance.sqrt());
        let interventions: Vec<usize> = (0..self.cells.len()).filter(|&a| self.cells[a] > 0.0).collect();
        let row = |&a: &usize| times(&white, &self.effects[a * l..(a + 1) * l]);
        WhitenedEffects {
            effects: interventions.iter().flat_map(row).collect(),
            cells: interventions.iter().map(|&a| self.cells[a]).collect(),
            interventions,
            controls: self.controls,
            n_used: values.iter().filter(|&&value| value >= UNUSED).count(),
            n_latents: l,
            unseen: (0..l).map(|k| (1.0 - self.within[k * (l + 1)]).clamp(0.0, 1.0)).collect(),
            colour: power(f64::sqrt),
        }
    }

    /// The effects along turned latents: `rotation` (L x L) times each row; the covariance turns with them.
    pub fn turned(&self, rotation: &[f64]) -> Self {
        let l = self.n_latents;
        let rows = |values: &[f64]| values.chunks_exact(l).flat_map(|row| times(rotation, row)).collect::<Vec<f64>>();
        let half = rows(&self.within);
        let within = rows(&(0..l * l).map(|at| half[at % l * l + at / l]).collect::<Vec<f64>>());
        Self {
            effects: rows(&self.effects),
            origin: times(rotation, &self.origin),
            others: rows(&self.others),
            within,
            ..self.clone()
        }
    }
}

impl WhitenedEffects {
    /// What the evidence weighs.
    pub fn to_weigh(&self) -> EffectsToWeigh<'_> {
        let Self { effects, cells, controls, n_used, n_latents, unseen, .. } = self;
        let (controls, n_used, n_latents) = (*controls, *n_used, *n_latents);
        EffectsToWeigh { effects, cells, background: &[], unseen, controls, n_used, n_latents }
    }

    /// The effects along turned latents: `rotation` (L x L) times each row. Whitening commutes with the turn.
    pub fn turned(&self, rotation: &[f64]) -> Self {
        let l = self.n_latents;
        let effects = self.effects.chunks_exact(l).flat_map(|row| times(rotation, row)).collect();
        // Of the covariance, the square of the matrix of colours, along the turned axes.
        let shown = |axis: &[f64]| times(&self.colour, axis).iter().map(|x| x * x).sum::<f64>();
        let unseen = rotation.chunks_exact(l).map(|axis| (1.0 - shown(axis)).clamp(0.0, 1.0)).collect();
        Self { effects, unseen, ..self.clone() }
    }
}

/// A matrix (L x L) times a vector.
fn times(matrix: &[f64], vector: &[f64]) -> Vec<f64> {
    let dot = |row: &[f64]| row.iter().zip(vector).map(|(m, v)| m * v).sum();
    matrix.chunks_exact(vector.len()).map(dot).collect()
}

impl CellGroup {
    /// What the solution says of each of its cells, L.
    fn fitted(&self, solution: &[f64], n_interventions: usize, l: usize) -> Vec<f64> {
        let mut fitted = vec![0.0; l];
        self.columns(n_interventions).for_each(|(column, weight)| {
            let row = &solution[column * l..(column + 1) * l];
            fitted.iter_mut().zip(row).for_each(|(fitted, value)| *fitted += weight * value);
        });
        fitted
    }

    /// Columns of the design, with their values: interventions, the constant, levels of covariates.
    fn columns(&self, n_interventions: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let others = std::iter::once(0).chain(self.levels.iter().map(|level| level + 1));
        self.interventions.iter().copied().chain(others.map(move |column| (n_interventions + column, 1.0)))
    }
}

fn groups<R: Real>(data: &Dataset, cells: &[usize], means: &[R], l: usize) -> Vec<CellGroup> {
    let mut places = BTreeMap::new();
    let mut groups: Vec<CellGroup> = Vec::new();
    for (&cell, mean) in cells.iter().zip(means.chunks_exact(l)) {
        let (interventions, doses) = data.interventions.row(cell);
        let levels: Vec<u32> = data.covariates.categorical.iter().map(|column| column.codes[cell]).collect();
        let bits: Vec<u32> = doses.iter().map(|dose| dose.to_bits()).collect();
        let place = *places.entry((interventions.to_vec(), bits, levels.clone())).or_insert_with(|| {
            let mut first = 0;
            let of_column = |(column, &level): (&crate::data::dataset::Categorical, &u32)| {
                first += column.levels.len();
                first - column.levels.len() + level as usize
            };
            groups.push(CellGroup {
                interventions: interventions.iter().zip(doses).map(|(&a, &dose)| (a as usize, dose as f64)).collect(),
                levels: data.covariates.categorical.iter().zip(&levels).map(of_column).collect(),
                cells: 0.0,
                sum: vec![0.0; l],
            });
            groups.len() - 1
        });
        groups[place].cells += 1.0;
        groups[place].sum.iter_mut().zip(mean).for_each(|(sum, m)| *sum += m.to_f64());
    }
    groups
}

/// The least squares of Eq. (E1), without the matrix.
struct NormalEquations<'a> {
    groups: &'a [CellGroup],
    n_interventions: usize,
    /// Columns of the design.
    width: usize,
}

impl NormalEquations<'_> {
    /// The solution of least norm that conjugate gradients from 0 reach, width x L. Without controls the constant stays 0.
    fn solve(&self, l: usize) -> Vec<f64> {
        let mut right = vec![0.0; self.width * l];
        let mut diagonal = vec![0.0; self.width];
        for group in self.groups {
            for (column, weight) in group.columns(self.n_interventions) {
                diagonal[column] += weight * weight * group.cells;
                let row = &mut right[column * l..(column + 1) * l];
                row.iter_mut().zip(&group.sum).for_each(|(right, sum)| *right += weight * sum);
            }
        }
        let without_controls = self.groups.iter().all(|group| !group.interventions.is_empty());
        // Effects and constant are then the same thing, and levels of covariates are deviations.
        let free = |column: usize| diagonal[column] > 0.0 && !(without_controls && column == self.n_interventions);
        let scale: Vec<f64> = (0..self.width).map(|c| if free(c) { 1.0 / diagonal[c].sqrt() } else { 0.0 }).collect();
        let scaled = |values: &mut [f64]| {
            for (row, scale) in values.chunks_exact_mut(l).zip(&scale) {
                row.iter_mut().for_each(|value| *value *= scale);
            }
        };
        let dot = |x: &[f64], y: &[f64]| -> Vec<f64> {
            let mut dots = vec![0.0; l];
            for (x, y) in x.chunks_exact(l).zip(y.chunks_exact(l)) {
                dots.iter_mut().zip(x.iter().zip(y)).for_each(|(dot, (x, y))| *dot += x * y);
            }
            dots
        };
        scaled(&mut right);
        let mut solution = vec![0.0; right.len()];
        let mut residual = right.clone();
        let mut direction = right.clone();
        let mut size = dot(&residual, &residual);
        let goal: Vec<f64> = size.iter().map(|size| size * SOLVED * SOLVED).collect();
        for _ in 0..MOST_ROUNDS {
            if size.iter().zip(&goal).all(|(size, goal)| size <= goal) {
                break;
            }
            let mut applied = direction.clone();
            scaled(&mut applied);
            applied = self.apply(&applied, l);
            scaled(&mut applied);
            let curvature = dot(&direction, &applied);
            let step: Vec<f64> = size.iter().zip(&curvature).map(|(s, c)| if *c > 0.0 { s / c } else { 0.0 }).collect();
            for at in 0..solution.len() {
                solution[at] += step[at % l] * direction[at];
                residual[at] -= step[at % l] * applied[at];
            }
            let before = std::mem::replace(&mut size, dot(&residual, &residual));
            for at in 0..direction.len() {
                let (now, before) = (size[at % l], before[at % l]);
                direction[at] = residual[at] + if before > 0.0 { now / before } else { 0.0 } * direction[at];
            }
        }
        scaled(&mut solution);
        solution
    }

    /// The matrix of the normal equations times `values`, width x L each.
    fn apply(&self, values: &[f64], l: usize) -> Vec<f64> {
        let mut applied = vec![0.0; values.len()];
        for group in self.groups {
            let fitted = group.fitted(values, self.n_interventions, l);
            for (column, weight) in group.columns(self.n_interventions) {
                let row = &mut applied[column * l..(column + 1) * l];
                row.iter_mut().zip(&fitted).for_each(|(applied, f)| *applied += weight * group.cells * f);
            }
        }
        applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::counts::in_memory::Counts;
    use crate::data::dataset::{Categorical, Covariates, InterventionRows};

    /// A screen of these rows of interventions and batches, whose counts do not matter.
    fn screen(rows: &[Vec<(u32, f32)>], batches: &[u32], n_interventions: usize) -> Dataset {
        let n = rows.len();
        let mut interventions = InterventionRows::default();
        rows.iter().for_each(|row| interventions.push(row));
        let levels = (0..=batches.iter().copied().max().unwrap_or(0)).map(|b| b.to_string()).collect();
        Dataset {
            source: "made by hand".into(),
            counts: Counts::from_dense(1, &vec![1; n]).into(),
            library: vec![1.0; n],
            interventions,
            intervention_names: (0..n_interventions).map(|a| a.to_string()).collect(),
            gene_names: vec!["gene".into()],
            cell_names: (0..n).map(|i| i.to_string()).collect(),
            covariates: Covariates {
                categorical: vec![Categorical { name: "batch".into(), levels, codes: batches.to_vec() }],
                continuous: Vec::new(),
            },
            guides: None,
            truth: None,
        }
    }

    #[test]
    fn doses_and_batches_are_told_apart() {
        // Two latents, three interventions of different doses and combined, two batches, controls.
        let effects = [[2.0, 0.0], [0.0, -1.5], [0.5, 1.0]];
        let (control, batch) = ([0.3, -0.4], [[0.0, 0.0], [1.0, -2.0]]);
        let rows: Vec<Vec<(u32, f32)>> = vec![
            vec![],
            vec![(0, 1.0)],
            vec![(1, 1.0)],
            vec![(0, 0.5), (2, 1.0)],
            vec![(2, 2.0)],
            vec![(0, 1.0), (1, 1.0), (2, -1.0)],
            vec![],
            vec![(1, 1.0)],
        ];
        let batches = [0, 0, 0, 1, 1, 1, 1, 1];
        let rows: Vec<Vec<(u32, f32)>> = (0..3).flat_map(|_| rows.clone()).collect();
        let batches = batches.repeat(3);
        let data = screen(&rows, &batches, 3);
        let mean = |row: &[(u32, f32)], b: u32, k: usize| {
            control[k] + batch[b as usize][k] + row.iter().map(|&(a, w)| w as f64 * effects[a as usize][k]).sum::<f64>()
        };
        // Deviations that cancel over the three copies of each row.
        let means: Vec<f64> = (0..rows.len())
            .flat_map(|i| (0..2).map(move |k| (i, k)))
            .map(|(i, k)| mean(&rows[i], batches[i], k) + [0.6, -0.1, -0.5][i / 8] * [1.0, -0.5][k])
            .collect();
        let cells: Vec<usize> = (0..rows.len()).collect();
        let found = InterventionEffects::new(&data, &cells, &means, 2);
        for a in 0..3 {
            for k in 0..2 {
                let got = found.effects[a * 2 + k];
                assert!((got - effects[a][k]).abs() < 1e-9, "{a} {k}: {got}");
            }
        }
        assert_eq!(found.controls, 6.0);
        assert_eq!(found.cells, [3.0 * 2.25, 9.0, 3.0 * 6.0]);
        let squares = (0.36 + 0.01 + 0.25) / 3.0;
        for (got, want) in found.within.iter().zip([squares, -0.5 * squares, -0.5 * squares, 0.25 * squares]) {
            assert!((got - want).abs() < 1e-9, "{got} {want}");
        }
        // Means over the cells: 5 of 8 are in the second batch.
        for k in 0..2 {
            let want = control[k] + batch[1][k] * 5.0 / 8.0;
            assert!((found.origin[k] - want).abs() < 1e-9, "{} {want}", found.origin[k]);
        }
        // Along turned axes, and whitened: deviations of cells then have variance 1 wherever they vary.
        let turned = found.turned(&[0.6, 0.8, -0.8, 0.6]);
        assert!((turned.effects[0] - 1.2).abs() < 1e-9 && (turned.effects[1] + 1.6).abs() < 1e-9);
        let white = found.whitened();
        assert_eq!(white.interventions, [0, 1, 2]);
        let colour = &white.colour;
        for a in 0..3 {
            for k in 0..2 {
                let back: f64 = (0..2).map(|j| colour[k * 2 + j] * white.effects[a * 2 + j]).sum();
                assert!((back - effects[a][k]).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn the_mean_of_each_intervention_is_its_effect() {
        let rows: Vec<Vec<(u32, f32)>> = (0..12).map(|i| vec![(i % 3, 1.0)]).collect();
        let data = screen(&rows, &[0; 12], 4);
        let means: Vec<f64> = (0..12).map(|i| ((i * i) as f64 * 0.37).sin()).collect();
        let found = InterventionEffects::new(&data, &(0..12).collect::<Vec<_>>(), &means, 1);
        for a in 0..3 {
            let mean = (0..4).map(|i| means[3 * i + a]).sum::<f64>() / 4.0;
            let origin = found.origin[0];
            assert!((found.effects[a] + origin - mean).abs() < 1e-9, "{} {origin} {mean}", found.effects[a]);
        }
        assert_eq!((found.effects[3], found.cells[3], found.controls), (0.0, 0.0, 0.0));
    }
}
