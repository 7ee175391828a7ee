//! What training cells show of combinations, in mean expression. Derivation: `derivations/predictions.md`.

use crate::data::combinations::Combination;
use crate::data::dataset::Dataset;
use crate::data::split::ScreenSplit;
use crate::error::Result;
use crate::evaluation::predictions::kriging::chosen_sites;
use crate::inference::prediction::TOTAL;
use crate::numerics::real::Real;

/// What the training cells of a combination show.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedEffect {
    /// Numbers of its interventions, ascending, and their doses.
    pub members: Vec<(u32, f32)>,
    /// ln(1 + mean expression) less that of control, expression being counts per 10,000 of the size factor; G.
    pub effect: Vec<f64>,
    /// Variance of that by how the cells of the combination scatter, G.
    pub variance: Vec<f64>,
}

/// What training cells show of control and of combinations.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedEffects {
    /// Mean expression of the control cells, counts per 10,000 of the size factor; G.
    pub control: Vec<f64>,
    /// Combinations of one intervention or more.
    pub combinations: Vec<ObservedEffect>,
}

/// The effects of combinations of one intervention or more that have two training cells or more, of too many those that share a member
/// with what is `wanted` first; `None` without training cells of control.
///
/// # Errors
/// Counts on disk that cannot be read.
pub fn observed_effects(
    data: &Dataset,
    split: &ScreenSplit,
    wanted: impl Fn(u32) -> bool,
) -> Result<Option<ObservedEffects>> {
    let combinations = data.combinations(split.train.iter().copied());
    let Some(control) = combinations.iter().find(|combination| combination.members.is_empty()) else { return Ok(None) };
    let (control, _) = moments(data, &control.cells)?;
    let seen: Vec<&Combination> = combinations.iter().filter(|c| !c.members.is_empty() && c.cells.len() > 1).collect();
    let members: Vec<&[(u32, f32)]> = seen.iter().map(|combination| &combination.members[..]).collect();
    let mut found = Vec::new();
    for combination in chosen_sites(&members, wanted).into_iter().map(|i| seen[i]) {
        let (mean, variance) = moments(data, &combination.cells)?;
        let n = combination.cells.len() as f64;
        let effect = mean.iter().zip(&control).map(|(mean, control)| Real::ln(1.0 + mean) - Real::ln(1.0 + control));
        let variance = mean.iter().zip(&variance).map(|(mean, variance)| variance / n / (1.0 + mean).powi(2));
        found.push(ObservedEffect {
            members: combination.members.clone(),
            effect: effect.collect(),
            variance: variance.collect(),
        });
    }
    Ok(Some(ObservedEffects { control, combinations: found }))
}

/// Mean and variance over cells of each gene's counts per 10,000 of their size factors, as rates of the model are.
fn moments(data: &Dataset, cells: &[usize]) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut sums, mut squares) = (vec![0.0; data.n_genes()], vec![0.0; data.n_genes()]);
    data.counts.visit(cells, |i, row| {
        let total = data.library[cells[i]];
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::five_genes;

    #[test]
    fn expression_is_per_size_factor() {
        let mut data = five_genes();
        let cells: Vec<usize> = (0..data.n_cells()).collect();
        let by_total = moments(&data, &cells).expect("in memory");
        data.library.iter_mut().for_each(|library| *library *= 8.0);
        let (mean, variance) = moments(&data, &cells).expect("in memory");
        assert!(by_total.0.iter().any(|mean| *mean > 100.0));
        assert!(mean.iter().zip(&by_total.0).all(|(mean, whole)| (8.0 * mean - whole).abs() < 1e-9 * whole));
        assert!(variance.iter().zip(&by_total.1).all(|(part, whole)| (64.0 * part - whole).abs() < 1e-9 * whole));
    }
}
