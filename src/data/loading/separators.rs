//! Labels that look like combinations of other labels, and what separates their parts.

use std::collections::BTreeSet;

use crate::data::loading::assignments::parts_of;
use crate::data::loading::guards::is_usual_control;

/// What may stand between the parts of a label, in the order in which it is tried.
const SEPARATORS: [&str; 9] = ["||", "+", "|", "_", ";", ",", "&", "/", ":"];

/// A separator that takes labels apart into other labels.
#[derive(Debug, PartialEq)]
pub(crate) struct FoundSeparator {
    /// What stands between the parts.
    pub separator: &'static str,
    /// Labels that it takes apart, and their cells.
    pub n_labels: usize,
    pub n_cells: usize,
    /// One of them whose parts are all labels by themselves.
    pub example: String,
}

/// The separator of the labels `names`, with the cells of each: it takes one of them apart into several that also occur alone, and
/// at least half of the others into parts of which one does. What is a control, as usual or in `controls`, may be a part of any.
pub(crate) fn find_separator(names: &[String], sizes: &[usize], controls: &[String]) -> Option<FoundSeparator> {
    let used: Vec<(&str, usize)> =
        names.iter().map(String::as_str).zip(sizes.iter().copied()).filter(|(_, size)| *size > 0).collect();
    let control = |name: &str| controls.iter().any(|known| known == name) || is_usual_control(name);
    SEPARATORS.into_iter().find_map(|separator| {
        let mut alone: BTreeSet<&str> = BTreeSet::new();
        // Labels of several interventions, and of one or none with controls.
        let (mut several, mut with_control) = (Vec::new(), Vec::new());
        for &(name, size) in used.iter().filter(|(name, _)| !control(name)) {
            let parts: BTreeSet<&str> = parts_of(name, separator).collect();
            let acting: Vec<&str> = parts.iter().copied().filter(|part| !control(part)).collect();
            if acting.len() > 1 {
                several.push((name, size, acting));
            } else {
                alone.extend(acting);
                with_control.extend((parts.len() > 1).then_some(size));
            }
        }
        let known = |parts: &[&str]| parts.iter().filter(|part| alone.contains(*part)).count();
        let (example, ..) = several.iter().find(|(_, _, parts)| known(parts) == parts.len())?;
        let n_explained = several.iter().filter(|(_, _, parts)| known(parts) > 0).count() + with_control.len();
        let n_labels = several.len() + with_control.len();
        (2 * n_explained >= n_labels).then(|| FoundSeparator {
            separator,
            n_labels,
            n_cells: several.iter().map(|(_, size, _)| size).chain(&with_control).sum(),
            example: example.to_string(),
        })
    })
}

/// A warning where labels look like combinations of others.
pub(crate) fn unread_combinations(names: &[String], sizes: &[usize], controls: &[String]) -> Option<String> {
    let FoundSeparator { separator, n_labels, n_cells, example } = find_separator(names, sizes, controls)?;
    Some(format!(
        "{n_cells} cells have labels that look like several of the other labels, separated by `{separator}` ({n_labels} labels, \
         such as `{example}`), and each of these is taken for an intervention of its own; --combination-separator \
         '{separator}' reads them as combinations"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(labels: &[&str], controls: &[&str]) -> Option<(&'static str, usize)> {
        let names: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
        let controls: Vec<String> = controls.iter().map(|label| label.to_string()).collect();
        find_separator(&names, &vec![2; names.len()], &controls).map(|found| (found.separator, found.n_cells))
    }

    #[test]
    fn separators_are_told_by_parts_that_are_labels() {
        assert_eq!(found(&["ctrl", "KLF1+ctrl", "ctrl+CEBPA", "CEBPA+KLF1"], &[]), Some(("+", 6)));
        assert_eq!(found(&["NT_1", "IRF1_1", "JAK2_1", "NT_2|IRF1_1", "JAK2_1|IRF1_1"], &[]), Some(("|", 4)));
        // Of most pairs one member never occurs alone.
        assert_eq!(found(&["control", "A", "B", "A+B", "A+C", "B+D", "D+E"], &[]), Some(("+", 8)));
        assert_eq!(found(&["na", "CEBPA", "CEBPE", "CEBPA || CEBPE"], &["na"]), Some(("||", 2)));
        assert_eq!(found(&["control", "CEBPA", "CEBPE", "CEBPE_CEBPA"], &[]), Some(("_", 2)));
        let identities =
            ["NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0", "A_NegCtrl0__A_NegCtrl0", "NegCtrl1_B__NegCtrl1_B", "A_B__A_B"];
        assert_eq!(found(&identities, &[]), Some(("_", 6)));
    }

    #[test]
    fn separators_inside_of_names_are_none() {
        assert_eq!(found(&["NT_1", "NT_2", "STAT1_1", "STAT1_2", "JAK2_1"], &[]), None);
        assert_eq!(found(&["STAT1_+_95907328.23-P1P2", "STAT1_+_95907330.23-P1P2", "control"], &[]), None);
        assert_eq!(found(&["A", "B", "A+ctrl"], &[]), None, "nothing but controls is added");
        // One label of many happens to be made of others.
        assert_eq!(found(&["A", "B", "A_B", "C_1", "C_2", "D_1"], &[]), None);
        let names = ["A".to_owned(), "B".to_owned(), "A+B".to_owned()];
        assert_eq!(unread_combinations(&names, &[1, 1, 0], &[]), None, "a level without cells");
        assert!(unread_combinations(&names, &[1, 1, 7], &[]).unwrap().starts_with("7 cells have labels"));
    }
}
