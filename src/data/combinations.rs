//! Combinations of interventions: which of them a screen has, and what they are called.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::data::dataset::{Dataset, InterventionRows};

/// What cells are called under which no intervention acts.
pub const CONTROL: &str = "(control)";

/// Cells of a combination, and of each of its members alone, below which the two are not compared.
pub const FEWEST_TO_COMPARE: usize = 10;

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

/// What lies between the name of a member and its dose in a label.
const TIMES: &str = " x ";

/// The combination that a label names, such as `A+B` or `A x 0.5+B`, in any order; `number` knows the interventions by name, and
/// names for which `is_control` holds say nothing more. A name may itself contain the joint or the times sign.
///
/// # Errors
/// The first part of the label that is no name, with the dose that is none, if any.
pub fn parse_combination(
    label: &str,
    number: impl Fn(&str) -> Option<usize>,
    is_control: impl Fn(&str) -> bool,
) -> Result<Vec<(u32, f32)>, String> {
    let member = |text: &str| -> Option<Option<(u32, f32)>> {
        let name = text.trim();
        if is_control(name) {
            return Some(None);
        }
        if let Some(a) = number(text).or_else(|| number(name)) {
            return Some(Some((a as u32, 1.0)));
        }
        let (name, dose) = name.rsplit_once(TIMES)?;
        let dose = dose.parse::<f32>().ok().filter(|dose| dose.is_finite() && *dose >= 0.0)?;
        if is_control(name) { Some(None) } else { number(name).map(|a| Some((a as u32, dose))) }
    };
    let pieces: Vec<&str> = label.split("+").collect();
    let mut row: Vec<(u32, f32)> = Vec::new();
    let mut from = 0;
    while from < pieces.len() {
        // The shortest name first: what joins members is seldom part of a name.
        let found = (from + 1..=pieces.len()).find_map(|to| Some((to, member(&pieces[from..to].join("+"))?)));
        let Some((to, found)) = found else { return Err(pieces[from].trim().to_owned()) };
        row.extend(found);
        from = to;
    }
    // A member that comes again counts once.
    row.sort_by_key(|&(a, _)| a);
    row.dedup_by_key(|&mut (a, _)| a);
    Ok(row)
}

/// Which of the interventions called `names` are members of any combination with one of these labels.
pub fn members_in<'a>(labels: impl IntoIterator<Item = &'a str>, names: &[String]) -> Vec<bool> {
    let number: HashMap<&str, usize> = names.iter().enumerate().map(|(a, name)| (name.as_str(), a)).collect();
    let mut found = vec![false; names.len()];
    for label in labels.into_iter().collect::<BTreeSet<_>>() {
        let members = parse_combination(label, |name| number.get(name).copied(), |_| false).unwrap_or_default();
        members.iter().for_each(|&(a, _)| found[a as usize] = true);
    }
    found
}

/// The members of a cell under several interventions, ascending and each once; `None` for a cell under fewer than two.
pub fn joint_members(members: &[u32]) -> Option<Vec<u32>> {
    let mut members = (members.len() > 1).then(|| members.to_vec())?;
    members.sort_unstable();
    members.dedup();
    (members.len() > 1).then_some(members)
}

/// The sets of members of all cells under several interventions, at whatever doses.
pub fn joint_sets(rows: &InterventionRows) -> BTreeSet<Vec<u32>> {
    (0..rows.n_cells()).filter_map(|n| joint_members(rows.row(n).0)).collect()
}

/// The name of a combination of these members, each at dose 1.
pub fn joint_label(intervention_names: &[String], members: &[u32]) -> String {
    combination_label(intervention_names, members, &vec![1.0; members.len()])
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

impl Dataset {
    /// The combinations of `cells` that can be compared with their members, then the others: those of several members, at the same
    /// doses.
    pub fn comparable(&self, cells: &[usize]) -> (Vec<Combination>, Vec<Combination>) {
        let mut alone = vec![0; self.n_interventions()];
        cells.iter().filter_map(|&n| self.interventions.single(n)).for_each(|a| alone[a] += 1);
        let enough = |of: &Combination| {
            of.cells.len() >= FEWEST_TO_COMPARE
                && of.members.iter().all(|&(a, _)| alone[a as usize] >= FEWEST_TO_COMPARE)
        };
        let all = self.combinations(cells.iter().copied());
        all.into_iter().filter(|of| of.members.len() > 1).partition(enough)
    }

    /// The screen with an intervention more for each set of interventions that can be compared with its members on `cells`: all cells
    /// under exactly these receive it, at the product of their doses, Eq. (Ia6) of `derivations/interactions.md`. `None` where there is
    /// no such set.
    pub fn with_interactions(&self, cells: &[usize]) -> Option<Self> {
        let members = |of: Combination| of.members.into_iter().map(|(a, _)| a).collect::<Vec<u32>>();
        let sets: BTreeSet<Vec<u32>> = self.comparable(cells).0.into_iter().map(members).collect();
        if sets.is_empty() {
            return None;
        }
        let number: BTreeMap<Vec<u32>, u32> = sets.iter().cloned().zip(self.n_interventions() as u32..).collect();
        let mut interventions = InterventionRows::default();
        for n in 0..self.n_cells() {
            let (members, doses) = self.interventions.row(n);
            let mut row: Vec<(u32, f32)> = members.iter().copied().zip(doses.iter().copied()).collect();
            if let Some(&number) = joint_members(members).and_then(|members| number.get(&members)) {
                row.push((number, doses.iter().product()));
            }
            interventions.push(&row);
        }
        let mut intervention_names = self.intervention_names.clone();
        intervention_names.extend(sets.iter().map(|set| joint_label(&self.intervention_names, set)));
        Some(Self { interventions, intervention_names, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::five_genes;

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

    #[test]
    fn labels_name_their_members_in_any_order() {
        let names = ["KLF1", "STAT1_+_95", "A x 2"];
        let number = |name: &str| names.iter().position(|known| *known == name);
        let of = |label| parse_combination(label, number, |name| name == "ctrl");
        for label in ["KLF1+STAT1_+_95", "STAT1_+_95 + KLF1", "ctrl+STAT1_+_95+KLF1+KLF1"] {
            assert_eq!(of(label).expect("names"), [(0, 1.0), (1, 1.0)], "{label}");
        }
        assert_eq!(of("ctrl").expect("a name"), []);
        assert_eq!(of("KLF1 x 0.5+A x 2").expect("names"), [(0, 0.5), (2, 1.0)]);
        assert_eq!(of("KLF1+KLF2").expect_err("unknown"), "KLF2");
        assert_eq!(of("KLF1 x -1").expect_err("no dose"), "KLF1 x -1");
        assert_eq!(of("").expect_err("empty"), "");
    }

    #[test]
    fn sets_of_members_leave_out_doses_and_single_interventions() {
        let mut rows = InterventionRows::default();
        for row in [&[(2, 1.0), (0, 1.0)][..], &[], &[(0, 0.5), (2, 1.0)], &[(1, 1.0)], &[(1, 1.0), (1, 1.0)]] {
            rows.push(row);
        }
        assert_eq!(joint_sets(&rows).into_iter().collect::<Vec<_>>(), [[0, 2]]);
        let names = ["b", "x", "a"].map(str::to_owned);
        assert_eq!(joint_label(&names, &[0, 2]), "a+b");
        assert_eq!(members_in(["a+b x 0.5", "c", "(control)"], &names), [true, false, true]);
    }

    #[test]
    fn sets_that_can_be_compared_become_interventions() {
        let kinds: [&[(u32, f32)]; 6] =
            [&[(0, 1.0)], &[(1, 1.0)], &[(0, 1.0), (1, 0.5)], &[(1, 1.0), (2, 1.0)], &[], &[(0, 2.0), (1, 2.0)]];
        let mut interventions = InterventionRows::default();
        (0..72).for_each(|n| interventions.push(kinds[n % 6]));
        let base = five_genes();
        let cells: Vec<usize> = (0..72).collect();
        let intervention_names = ["A", "B", "C"].map(str::to_owned).to_vec();
        let of_base: Vec<usize> = cells.iter().map(|n| n % base.n_cells()).collect();
        let data = Dataset { interventions, intervention_names, ..base.select(&of_base) };
        let extended = data.with_interactions(&cells).expect("A and B can be compared");
        assert_eq!(extended.intervention_names, ["A", "B", "C", "A+B"]);
        for n in 0..72 {
            let (members, doses) = extended.interventions.row(n);
            match n % 6 {
                2 => assert_eq!((members, doses), (&[0, 1, 3][..], &[1.0, 0.5, 0.5][..])),
                5 => assert_eq!((members, doses), (&[0, 1, 3][..], &[2.0, 2.0, 4.0][..])),
                kind => assert_eq!((members.len(), members), (kinds[kind].len(), data.interventions.row(n).0)),
            }
        }
        let few: Vec<usize> = (0..48).collect();
        assert!(data.with_interactions(&few).is_none(), "8 cells of each");
    }
}
