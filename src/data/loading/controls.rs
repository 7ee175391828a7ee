//! The labels that a list of controls names: whole labels, labels with commas, patterns.

use std::collections::BTreeSet;

use crate::words::{fits, nearest, rejoined};

/// Whether an entry of a list is a pattern, in which `*` stands for anything.
fn is_pattern(entry: &str) -> bool {
    entry.contains('*')
}

/// The `known` labels that `entries` name, which were cut at commas. A label as it stands comes first, then a pattern; an entry that
/// is neither stays as it is, whole where that is nearly a label. A pattern is about single interventions: of `joint` labels, which are
/// of several, it names some only where it fits none of the others.
pub(crate) fn named_controls(entries: &[String], known: &BTreeSet<&str>, joint: &BTreeSet<&str>) -> Vec<String> {
    let mut controls: Vec<String> = Vec::new();
    let mut unknown: Vec<String> = Vec::new();
    for entry in rejoined(entries, |name| known.contains(name)) {
        let matching: Vec<&str> = match known.contains(entry.as_str()) || !is_pattern(&entry) {
            true => Vec::new(),
            false => {
                let (of_several, single): (Vec<&str>, Vec<&str>) =
                    known.iter().copied().filter(|name| fits(&entry, name)).partition(|name| joint.contains(name));
                if single.is_empty() { of_several } else { single }
            }
        };
        if !known.contains(entry.as_str()) && matching.is_empty() {
            unknown.push(entry);
            continue;
        }
        let found = if matching.is_empty() { vec![entry.as_str()] } else { matching };
        for name in found {
            if !controls.iter().any(|control| control == name) {
                controls.push(name.to_owned());
            }
        }
    }
    // The pieces of a label that was misspelt are told as one.
    let whole = entries.join(",");
    match unknown.len() > 1 && nearest(&whole, known.iter().copied()).is_some() {
        true => controls.push(whole),
        false => controls.extend(unknown),
    }
    controls
}

/// Whether `entries` name a label as a control, for who does not know all labels.
pub(crate) fn names_control(entries: &[String], name: &str) -> bool {
    entries.iter().map(|entry| entry.trim()).any(|entry| entry == name || (is_pattern(entry) && fits(entry, name)))
        || (name.contains(',') && rejoined(entries, |entry| entry == name).iter().any(|entry| entry == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_before_patterns_and_commas() {
        let known = BTreeSet::from(["NT_1", "NT_2", "NT*", "[('DMSO_TF', 0.0, 'uM')]", "STAT1_+_1.23-P1P2"]);
        let named = |text: &str| {
            let entries: Vec<String> = text.split(',').map(str::to_owned).collect();
            named_controls(&entries, &known, &BTreeSet::new())
        };
        assert_eq!(named("[('DMSO_TF', 0.0, 'uM')],NT_2"), ["[('DMSO_TF', 0.0, 'uM')]", "NT_2"]);
        assert_eq!(named("NT*"), ["NT*"], "a label as it stands");
        assert_eq!(named("NT_*"), ["NT_1", "NT_2"]);
        assert_eq!(named("NT_*, NT_1"), ["NT_1", "NT_2"]);
        assert_eq!(named("scramble*"), ["scramble*"]);
        assert_eq!(named("[('DMSO_TF', 0.1, 'uM')]"), ["[('DMSO_TF', 0.1, 'uM')]"]);
        // A cell under an intervention and a control is no control.
        let known = BTreeSet::from(["NT_1", "NT_1|A", "A", "x_1", "x_2"]);
        let joint = BTreeSet::from(["NT_1|A", "x_1", "x_2"]);
        let named = |entry: &str| named_controls(&[entry.to_owned()], &known, &joint);
        assert_eq!(named("NT_*"), ["NT_1"]);
        assert_eq!(named("NT_1|*"), ["NT_1|A"]);
        assert_eq!(named("x_*"), ["x_1", "x_2"]);
        let entries = ["NT_*".to_owned(), "a".to_owned(), "b".to_owned()];
        assert!(names_control(&entries, "NT_7") && names_control(&entries, "a,b") && !names_control(&entries, "c"));
    }
}
