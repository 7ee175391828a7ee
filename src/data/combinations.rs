//! Combinations of interventions: which of them a screen has, and what they are called.

use std::collections::BTreeMap;

use crate::data::dataset::Dataset;

/// What cells are called under which no intervention acts.
pub const CONTROL: &str = "(control)";

/// Interventions that cells received together, each at its dose: none for controls, one for most cells of most screens.
#[derive(Debug, Clone, PartialEq)]
pub struct Combination {
    /// Its name, as [`combination_label`] makes it.
    pub label: String,
    /// Numbers of the interventions, ascending, and their doses.
    pub members: Vec<(u32, f32)>,
    /// The cells that received exactly these, ascending.
    pub cells: Vec<usize>,
}

/// The name of a combination: names of its members in ascending order, joined by `+`, with doses other than 1
/// (`CEBPE+KLF1 x 0.5`); [`CONTROL`] where it has none.
pub fn combination_label(intervention_names: &[String], members: &[u32], doses: &[f32]) -> String {
    if members.is_empty() {
        return CONTROL.to_owned();
    }
    let mut parts: Vec<(&str, f32)> =
        members.iter().zip(doses).map(|(&a, &dose)| (intervention_names[a as usize].as_str(), dose)).collect();
    parts.sort_by(|x, y| x.0.cmp(y.0));
    let part = |(name, dose): (&str, f32)| if dose == 1.0 { name.to_owned() } else { format!("{name} x {dose}") };
    parts.into_iter().map(part).collect::<Vec<_>>().join("+")
}

impl Dataset {
    /// The name of what cell `n` received.
    pub fn combination_of(&self, n: usize) -> String {
        let (members, doses) = self.interventions.row(n);
        combination_label(&self.intervention_names, members, doses)
    }

    /// Everything that any of `cells` received, in the order of the numbers of the members: controls, single interventions,
    /// and combinations of several.
    pub fn combinations(&self, cells: impl IntoIterator<Item = usize>) -> Vec<Combination> {
        let mut groups: BTreeMap<Vec<(u32, u32)>, Vec<usize>> = BTreeMap::new();
        for n in cells {
            let (members, doses) = self.interventions.row(n);
            let mut key: Vec<(u32, u32)> =
                members.iter().copied().zip(doses.iter().map(|dose| dose.to_bits())).collect();
            key.sort_unstable();
            groups.entry(key).or_default().push(n);
        }
        let of = |(key, mut cells): (Vec<(u32, u32)>, Vec<usize>)| {
            cells.sort_unstable();
            let label = self.combination_of(cells[0]);
            Combination { label, members: key.into_iter().map(|(a, w)| (a, f32::from_bits(w))).collect(), cells }
        };
        groups.into_iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::{InterventionRows, five_genes};

    #[test]
    fn order_of_members_does_not_matter_and_doses_do() {
        let mut interventions = InterventionRows::default();
        let rows: [&[(u32, f32)]; 6] =
            [&[(1, 1.0), (0, 1.0)], &[], &[(0, 1.0), (1, 1.0)], &[(0, 1.0)], &[(0, 0.5)], &[(0, 1.0), (1, 0.5)]];
        rows.iter().for_each(|row| interventions.push(row));
        let intervention_names = vec!["KLF1".to_owned(), "CEBPE".to_owned()];
        let data = Dataset { interventions, intervention_names, ..five_genes() };
        let found = data.combinations(0..6);
        let shown: Vec<(&str, &[usize])> = found.iter().map(|c| (c.label.as_str(), &c.cells[..])).collect();
        let expected: [(&str, &[usize]); 5] = [
            ("(control)", &[1]),
            ("KLF1 x 0.5", &[4]),
            ("KLF1", &[3]),
            ("CEBPE x 0.5+KLF1", &[5]),
            ("CEBPE+KLF1", &[0, 2]),
        ];
        assert_eq!(shown, expected);
        assert_eq!(found[4].members, [(0, 1.0), (1, 1.0)]);
    }
}
