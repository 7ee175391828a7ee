//! Figures on held-out cells: bounds averaged within each intervention, then over interventions, and plain baselines.

use crate::data::combinations::Combination;
use crate::data::dataset::Dataset;
use crate::error::Result;
use crate::evaluation::pooled;
use crate::parallel::team::Team;

/// Interventions with this many cells or fewer are left out of the means, as the reference implementation does.
pub const TOO_FEW_CELLS: usize = 10;

/// Cells under the same interventions at the same doses.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The name of the [combination](crate::data::combinations::combination_label).
    pub name: String,
    /// The cells, ascending.
    pub cells: Vec<usize>,
}

/// Held-out cells by intervention.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeldOutCells {
    /// Interventions with enough cells for a mean.
    pub groups: Vec<Group>,
    /// Names of those with too few ([`TOO_FEW_CELLS`] or fewer), or none.
    pub left_out: Vec<String>,
}

impl HeldOutCells {
    /// Groups `cells`, which are those under at least one of the interventions `held_out`.
    pub fn new(data: &Dataset, cells: &[usize], held_out: &[usize]) -> Self {
        let groups = data.combinations(cells.iter().copied());
        let mut found = Self::default();
        for &a in held_out {
            if !groups.iter().any(|group| group.members.iter().any(|&(b, _)| b as usize == a)) {
                found.left_out.push(data.intervention_names[a].clone());
            }
        }
        for Combination { label: name, cells, .. } in groups {
            match cells.len() {
                0..=TOO_FEW_CELLS => found.left_out.push(name),
                _ => found.groups.push(Group { name, cells }),
            }
        }
        found
    }

    /// The cells of all groups, in order of the groups.
    pub fn cells(&self) -> Vec<usize> {
        self.groups.iter().flat_map(|group| &group.cells).copied().collect()
    }

    /// Means of `values` (one per cell of [`HeldOutCells::cells`]) within each group.
    pub fn means(&self, values: &[f64]) -> Vec<f64> {
        let mut from = 0;
        self.groups
            .iter()
            .map(|group| {
                let n = group.cells.len();
                from += n;
                values[from - n..from].iter().sum::<f64>() / n as f64
            })
            .collect()
    }
}

/// Mean of some values; NaN of none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Negative log-likelihoods of plain negative binomials on held-out cells, nats per cell, averaged as the bounds are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOutBaselines {
    /// Rates and dispersions of the training cells, all interventions alike.
    pub pooled: f64,
    /// Rates of each held-out intervention from one half of its cells, judged on the other half, and the other way
    /// round (see [`pooled::per_intervention_negative_binomial`] for the rates).
    pub per_intervention: f64,
}

/// Fits the baselines to the cells `train` (the second one to half of the held-out cells too) and judges them on the
/// held-out cells.
///
/// # Errors
/// As [`pooled::pooled_negative_binomial`].
pub fn baselines(team: &Team, data: &Dataset, train: &[usize], held_out: &HeldOutCells) -> Result<HeldOutBaselines> {
    let n_groups = held_out.groups.len() as f64;
    let weight = |group: &Group| 1.0 / (n_groups * group.cells.len() as f64);
    let weights: Vec<f64> =
        held_out.groups.iter().flat_map(|group| std::iter::repeat_n(weight(group), group.cells.len())).collect();
    let pooled = pooled::weighted(team, data, train, &held_out.cells(), &weights, None)?.nll_per_cell;

    let mut per_intervention = 0.0;
    for half in 0..2 {
        let mut fitted = train.to_vec();
        let (mut judged, mut weights) = (Vec::new(), Vec::new());
        for group in &held_out.groups {
            for (i, &cell) in group.cells.iter().enumerate() {
                if i % 2 == half {
                    judged.push(cell);
                    weights.push(weight(group));
                } else {
                    fitted.push(cell);
                }
            }
        }
        let share = pooled::weighted(team, data, &fitted, &judged, &weights, Some(pooled::PSEUDO_CELLS))?;
        per_intervention += share.nll_per_cell;
    }
    Ok(HeldOutBaselines { pooled, per_intervention })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::simulate::{Simulation, simulate};

    fn screen(cells_per_intervention: usize) -> Dataset {
        let simulation =
            Simulation { n_interventions: 4, n_genes: 8, cells_per_intervention, seed: 2, ..Simulation::default() };
        simulate(&simulation).expect("a simulation").dataset
    }

    #[test]
    fn ten_cells_are_too_few_and_eleven_are_enough() {
        let data = screen(12);
        let cells: Vec<usize> = (26..47).collect();
        let found = HeldOutCells::new(&data, &cells, &[2, 3]);
        assert_eq!(found.left_out, ["intervention_2"]);
        assert_eq!(found.groups.len(), 1);
        assert_eq!((found.groups[0].name.as_str(), found.groups[0].cells.len()), ("intervention_3", 11));
        assert_eq!(found.cells(), (36..47).collect::<Vec<_>>());
        let none = HeldOutCells::new(&data, &(24..34).collect::<Vec<_>>(), &[2, 3]);
        assert_eq!(none.left_out, ["intervention_3", "intervention_2"]);
        assert!(mean(&none.means(&[])).is_nan());
    }

    #[test]
    fn means_weigh_interventions_alike() {
        let data = screen(20);
        let cells: Vec<usize> = (40..71).collect();
        let found = HeldOutCells::new(&data, &cells, &[2, 3]);
        let values: Vec<f64> = found.cells().iter().map(|&n| if n < 60 { 1.0 } else { 4.0 }).collect();
        assert_eq!(found.means(&values), [1.0, 4.0]);
        assert_eq!(mean(&found.means(&values)), 2.5);
    }

    #[test]
    fn combinations_are_groups_of_their_own() {
        let mut data = screen(20);
        let mut rows = crate::data::dataset::InterventionRows::default();
        (0..80).for_each(|n| match n % 2 {
            0 => rows.push(&[(2, 1.0)]),
            _ => rows.push(&[(1, 0.5), (2, 1.0)]),
        });
        data.interventions = rows;
        let found = HeldOutCells::new(&data, &(0..80).collect::<Vec<_>>(), &[2]);
        let names: Vec<&str> = found.groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["intervention_1 x 0.5+intervention_2", "intervention_2"]);
    }

    #[test]
    fn baselines_on_equal_groups_are_those_of_plain_means() {
        let data = screen(40);
        let train: Vec<usize> = (0..80).collect();
        let found = HeldOutCells::new(&data, &(80..160).collect::<Vec<_>>(), &[2, 3]);
        let got = baselines(&Team::single(), &data, &train, &found).expect("fits");
        let pooled = pooled::pooled_negative_binomial(&Team::single(), &data, &train, &found.cells())
            .expect("fits")
            .nll_per_cell;
        assert!((got.pooled - pooled).abs() < 1e-9 * pooled);
        // By hand: one half fitted, the other judged, and vice versa.
        let half = |parity: usize| -> Vec<usize> { (80..160).filter(|n| n % 2 == parity).collect() };
        let by_hand: f64 = (0..2)
            .map(|parity| {
                let fitted = [&train[..], &half(1 - parity)].concat();
                let judged = half(parity);
                pooled::per_intervention_negative_binomial(
                    &Team::single(),
                    &data,
                    &fitted,
                    &judged,
                    pooled::PSEUDO_CELLS,
                )
                .expect("fits")
                .nll_per_cell
                    / 2.0
            })
            .sum();
        assert!((got.per_intervention - by_hand).abs() < 1e-9 * by_hand);
        // Twenty cells tell an intervention's rates better than the pool does.
        assert!(got.per_intervention < got.pooled);
    }
}
