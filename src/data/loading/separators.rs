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
    /// Labels of several parts that are labels or controls themselves, and their cells.
    pub n_labels: usize,
    pub n_cells: usize,
    /// One of them.
    pub example: String,
}

/// The separator of the labels `names`, with the cells of each, if at least half of those that it takes apart have no other
/// parts than labels that also occur alone, and controls, which are called as usual or in `controls`.
pub(crate) fn find_separator(names: &[String], sizes: &[usize], controls: &[String]) -> Option<FoundSeparator> {
    let used: Vec<(&str, usize)> =
        names.iter().map(String::as_str).zip(sizes.iter().copied()).filter(|(_, size)| *size > 0).collect();
    let control = |name: &str| controls.iter().any(|known| known == name) || is_usual_control(name);
    SEPARATORS.into_iter().find_map(|separator| {
        let mut alone: BTreeSet<&str> = BTreeSet::new();
        // Labels of several interventions, and of one with a control.
        let (mut several, mut n_with_control) = (Vec::new(), 0);
        for &(name, size) in &used {
            if control(name) {
                continue;
            }
            let parts: BTreeSet<&str> = parts_of(name, separator).collect();
            let acting: Vec<&str> = parts.iter().copied().filter(|part| !control(part)).collect();
            match acting[..] {
                [] => {}
                [one] => {
                    n_with_control += usize::from(parts.len() > 1);
                    alone.insert(one);
                }
                _ => several.push((name, size, acting)),
            }
        }
        let n_parted = several.len() + n_with_control;
        several.retain(|(_, _, parts)| parts.iter().all(|part| alone.contains(part)));
        let n_explained = several.len() + n_with_control;
        let example = several.first().map(|(name, ..)| name.to_string())?;
        (2 * n_explained >= n_parted).then(|| FoundSeparator {
            separator,
            n_labels: several.len(),
            n_cells: several.iter().map(|(_, size, _)| size).sum(),
            example,
        })
    })
}

/// A warning where labels look like combinations of others.
pub(crate) fn unread_combinations(names: &[String], sizes: &[usize], controls: &[String]) -> Option<String> {
    let FoundSeparator { separator, n_labels, n_cells, example } = find_separator(names, sizes, controls)?;
    Some(format!(
        "{n_cells} cells have labels that look like several of the other labels, separated by `{separator}` ({n_labels} labels, \
         such as `{example}`), and each is taken for an intervention of its own; --combination-separator '{separator}' reads \
         them as combinations"
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
        assert_eq!(found(&["ctrl", "KLF1+ctrl", "ctrl+CEBPA", "CEBPA+KLF1"], &[]), Some(("+", 2)));
        assert_eq!(found(&["NT_1", "IRF1_1", "JAK2_1", "NT_2|IRF1_1", "JAK2_1|IRF1_1"], &[]), Some(("|", 2)));
        assert_eq!(found(&["na", "CEBPA", "CEBPE", "CEBPA || CEBPE"], &["na"]), Some(("||", 2)));
        assert_eq!(found(&["control", "CEBPA", "CEBPE", "CEBPE_CEBPA"], &[]), Some(("_", 2)));
        let identities =
            ["NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0", "A_NegCtrl0__A_NegCtrl0", "NegCtrl1_B__NegCtrl1_B", "A_B__A_B"];
        assert_eq!(found(&identities, &[]), Some(("_", 2)));
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
