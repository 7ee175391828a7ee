//! What training cells show of interventions by themselves, in mean expression. Derivation: `derivations/predictions.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::data::dataset::Dataset;
use crate::data::split::ScreenSplit;
use crate::error::Result;
use crate::inference::prediction::TOTAL;
use crate::numerics::real::Real;

/// What the training cells of an intervention show by themselves at dose 1.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedEffect {
    /// ln(1 + mean expression) less that of control, expression being counts per 10,000; G.
    pub effect: Vec<f64>,
    /// Variance of each by how the cells of the intervention scatter, G.
    pub variance: Vec<f64>,
}

/// The effects of those of the interventions `wanted` that have two training cells or more of their own at dose 1, by their numbers;
/// `None` without training cells of control.
///
/// # Errors
/// Counts on disk that cannot be read.
pub fn observed_effects(
    data: &Dataset,
    split: &ScreenSplit,
    wanted: &BTreeSet<u32>,
) -> Result<Option<BTreeMap<u32, ObservedEffect>>> {
    let combinations = data.combinations(split.train.iter().copied());
    let Some(control) = combinations.iter().find(|combination| combination.members.is_empty()) else { return Ok(None) };
    let (control, _) = moments(data, &control.cells)?;
    let mut found = BTreeMap::new();
    for combination in &combinations {
        let [(a, 1.0)] = combination.members[..] else { continue };
        if !wanted.contains(&a) || combination.cells.len() < 2 {
            continue;
        }
        let (mean, variance) = moments(data, &combination.cells)?;
        let n = combination.cells.len() as f64;
        let effect = mean.iter().zip(&control).map(|(mean, control)| Real::ln(1.0 + mean) - Real::ln(1.0 + control));
        let variance = mean.iter().zip(&variance).map(|(mean, variance)| variance / n / (1.0 + mean).powi(2));
        found.insert(a, ObservedEffect { effect: effect.collect(), variance: variance.collect() });
    }
    Ok(Some(found))
}

/// Mean and variance over cells of each gene's counts per 10,000.
fn moments(data: &Dataset, cells: &[usize]) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut sums, mut squares) = (vec![0.0; data.n_genes()], vec![0.0; data.n_genes()]);
    data.counts.visit(cells, |_, row| {
        let total = row.sum() as f64;
        row.for_each(|gene, count| {
            let x = TOTAL * f64::from(count) / total;
            sums[gene] += x;
            squares[gene] += x * x;
        });
    })?;
    let n = cells.len() as f64;
    let mean: Vec<f64> = sums.iter().map(|sum| sum / n).collect();
    let variance =
        squares.iter().zip(&mean).map(|(squares, mean)| ((squares - n * mean * mean) / (n - 1.0).max(1.0)).max(0.0));
    let variance = variance.collect();
    Ok((mean, variance))
}
