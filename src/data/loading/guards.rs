//! Warnings about data that would mislead: doubled names, labels with one cell, odd library sizes, batches that are
//! confounded with interventions, matrices that are not counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::data::dataset::{Categorical, InterventionRows};
use crate::data::formats::screen_file::StoredMatrix;
use crate::error::InputError;
use crate::words::first_few;

/// Labels that usually mark control cells.
const USUAL_CONTROLS: [&str; 18] = [
    "control",
    "controls",
    "ctrl",
    "non-targeting",
    "non_targeting",
    "nontargeting",
    "non targeting",
    "nt",
    "negctrl",
    "neg_ctrl",
    "negative_control",
    "safe-targeting",
    "safe_targeting",
    "unperturbed",
    "untreated",
    "vehicle",
    "dmso",
    "mock",
];

/// Whether a label usually marks control cells; it may be numbered, as in `NT_1` and `NegCtrl0`.
pub(crate) fn is_usual_control(label: &str) -> bool {
    let label = label.to_lowercase();
    let unnumbered = label.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['_', '-', ' ', '.']);
    [label.as_str(), unnumbered].iter().any(|name| USUAL_CONTROLS.contains(name))
}

/// What a matrix holds, from some of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatrixKind {
    /// Whole numbers, none negative.
    Counts,
    /// Only 0 and 1.
    Binary,
    /// Fractions, as small as logarithms are.
    LogNormalised,
    /// Fractions.
    Normalised,
    /// Negative values.
    Scaled,
    /// Values that are no numbers.
    Missing,
    /// Only zeros.
    Empty,
}

impl MatrixKind {
    /// Largest value of logarithms of counts.
    const LARGEST_LOGARITHM: f64 = 30.0;

    pub fn of(values: &[f64]) -> Self {
        let largest = values.iter().copied().fold(0.0, f64::max);
        if values.iter().any(|x| !x.is_finite()) {
            MatrixKind::Missing
        } else if values.iter().any(|x| *x < 0.0) {
            MatrixKind::Scaled
        } else if values.iter().any(|x| x.fract() != 0.0) {
            if largest < Self::LARGEST_LOGARITHM { MatrixKind::LogNormalised } else { MatrixKind::Normalised }
        } else if largest == 0.0 {
            MatrixKind::Empty
        } else if largest == 1.0 {
            MatrixKind::Binary
        } else {
            MatrixKind::Counts
        }
    }

    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            MatrixKind::Counts => "raw counts",
            MatrixKind::Binary => "only 0 and 1",
            MatrixKind::LogNormalised => "log-normalised values",
            MatrixKind::Normalised => "normalised values",
            MatrixKind::Scaled => "scaled values (some are negative)",
            MatrixKind::Missing => "values that are not finite",
            MatrixKind::Empty => "only zeros",
        }
    }

    pub fn is_counts(self) -> bool {
        matches!(self, MatrixKind::Counts | MatrixKind::Binary)
    }
}

/// Adds to an error about a matrix without counts where in the file counts are.
pub(crate) fn point_to_counts(mut error: InputError, matrices: &[StoredMatrix]) -> InputError {
    // The first is the one that was refused.
    let others: Vec<&str> = matrices
        .iter()
        .skip(1)
        .filter(|matrix| MatrixKind::of(&matrix.sample).is_counts())
        .map(|matrix| matrix.name.as_str())
        .collect();
    if let Some(name) = others.first() {
        error.remedy =
            format!("{}: {} of this file holds raw counts, add --layer {name}", error.remedy, first_few(&others));
    }
    error
}

/// Names that occur more than once, with how often, in the order of the first.
pub(crate) fn doubled<'a, S: AsRef<str> + ?Sized + 'a>(
    names: impl IntoIterator<Item = &'a S, IntoIter: Clone>,
) -> Vec<(&'a str, usize)> {
    let names = names.into_iter().map(AsRef::as_ref);
    // Most screens have none, which the checksums of the names alone tell.
    let checksum = |name: &str| xxhash_rust::xxh3::xxh3_64(name.as_bytes());
    let mut checksums: Vec<u64> = names.clone().map(checksum).collect();
    checksums.sort_unstable();
    let mut suspects: Vec<u64> = checksums.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    drop(checksums);
    if suspects.is_empty() {
        return Vec::new();
    }
    suspects.dedup();
    let suspicious = |name: &&str| suspects.binary_search(&checksum(name)).is_ok();
    let mut sizes: HashMap<&str, usize> = HashMap::new();
    names.clone().filter(suspicious).for_each(|name| *sizes.entry(name).or_default() += 1);
    let mut seen = BTreeSet::new();
    names
        .filter(|name| sizes.get(name).is_some_and(|&n| n > 1) && seen.insert(*name))
        .map(|name| (name, sizes[name]))
        .collect()
}

/// Gives the second and further genes of one name the endings -1, -2, ... as AnnData does.
pub(crate) fn make_unique(names: &mut [String]) {
    let mut taken: BTreeSet<String> = names.iter().cloned().collect();
    let mut seen: HashMap<String, usize> = HashMap::new();
    for name in names {
        let n = seen.entry(name.clone()).or_default();
        if *n > 0 {
            let mut candidate = format!("{name}-{n}");
            while !taken.insert(candidate.clone()) {
                *n += 1;
                candidate = format!("{name}-{n}");
            }
            *n += 1;
            *name = candidate;
        } else {
            *n = 1;
        }
    }
}

/// A sentence on names that are doubled.
pub(crate) fn doubled_names<'a, S: AsRef<str> + ?Sized + 'a>(
    names: impl IntoIterator<Item = &'a S, IntoIter: Clone>,
    what: &str,
    consequence: &str,
) -> Option<String> {
    let doubled = doubled(names);
    if doubled.is_empty() {
        return None;
    }
    let shown: Vec<&str> = doubled.iter().map(|(name, _)| *name).collect();
    Some(format!("{} names of {what} occur more than once ({}); {consequence}", doubled.len(), first_few(&shown)))
}

/// Sentences on interventions with so few cells that nothing can be learned from them.
pub(crate) fn rare_labels(names: &[String], sizes: &[usize]) -> Option<String> {
    let rare: Vec<&String> = names.iter().zip(sizes).filter(|(_, size)| **size == 1).map(|(name, _)| name).collect();
    (!rare.is_empty()).then(|| {
        format!(
            "{} interventions have a single cell ({}), from which nothing can be learned; --min-cells-per-label 2 leaves \
             them out",
            rare.len(),
            first_few(&rare)
        )
    })
}

/// A hint that a label looks like a control, if none was named.
pub(crate) fn unnamed_control(names: &[String]) -> Option<String> {
    let controls: Vec<&String> = names.iter().filter(|name| is_usual_control(name)).collect();
    let first = controls.first()?;
    Some(format!(
        "{} looks like a control but is treated as an intervention; --control \"{first}\" gives its cells the prior without \
         any shift",
        first_few(&controls)
    ))
}

/// By how many median absolute deviations of its logarithm a library must differ from the median to be told.
const OUTLIER: f64 = 6.0;
/// ... and by which factor.
const OUTLIER_FACTOR: f64 = 10.0;

/// A sentence on cells whose library is far from all others.
pub(crate) fn library_outliers(library: &[f64]) -> Option<String> {
    let median = |values: &mut [f64]| {
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let mut logs: Vec<f64> = library.iter().map(|x| x.ln()).collect();
    let middle = median(&mut logs)?;
    logs.iter_mut().for_each(|x| *x = (*x - middle).abs());
    let spread = 1.4826 * median(&mut logs)?;
    drop(logs);
    let limit = f64::max(OUTLIER * spread, OUTLIER_FACTOR.ln());
    let outside = |x: &f64| (x.ln() - middle).abs() > limit;
    let low = library.iter().filter(|x| outside(x) && x.ln() < middle).count();
    let high = library.iter().filter(|x| outside(x) && x.ln() > middle).count();
    if low + high == 0 {
        return None;
    }
    let extreme = |pick: fn(f64, f64) -> f64, from: f64| library.iter().copied().fold(from, pick);
    let part =
        |n: usize, what: &str, extreme: f64| (n > 0).then(|| format!("{n} far {what} it (down or up to {extreme:.0})"));
    let parts: Vec<String> =
        [part(low, "below", extreme(f64::min, f64::INFINITY)), part(high, "above", extreme(f64::max, 0.0))]
            .into_iter()
            .flatten()
            .map(|text| text.replace("down or up", if text.contains("below") { "down" } else { "up" }))
            .collect();
    Some(format!(
        "the median size factor is {:.0}, but that of {}; such cells may be debris or doublets (--min-counts leaves out \
         small ones)",
        middle.exp(),
        parts.join(" and ")
    ))
}

/// Checks that a categorical covariate and the interventions can be told apart.
///
/// # Errors
/// [`InputError`] if each level holds the cells of a single intervention: the decoder would see the answer.
pub(crate) fn confounding(
    covariate: &Categorical,
    interventions: &InterventionRows,
    intervention_names: &[String],
) -> Result<Option<String>, InputError> {
    let n_levels = covariate.levels.len();
    // Control cells count as an intervention of their own.
    let control = intervention_names.len();
    let mut pairs = BTreeSet::new();
    for (n, &level) in covariate.codes.iter().enumerate() {
        match interventions.row(n).0 {
            [] => pairs.extend([(control, level as usize)]),
            row => pairs.extend(row.iter().map(|&a| (a as usize, level as usize))),
        }
    }
    let mut by_level: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    pairs.iter().for_each(|&(a, level)| by_level.entry(level).or_default().push(a));
    let groups: BTreeSet<usize> = pairs.iter().map(|&(a, _)| a).collect();
    if n_levels < 2 || groups.len() < 2 {
        return Ok(None);
    }
    if by_level.values().all(|interventions| interventions.len() == 1) {
        return Err(InputError::new(
            "each of its levels holds the cells of a single intervention: the decoder would see the answer",
            "leave this covariate out",
        ));
    }
    // Connected parts of the graph of levels and interventions that occur together.
    let mut part: Vec<usize> = (0..n_levels).collect();
    fn root(part: &mut [usize], mut level: usize) -> usize {
        while part[level] != level {
            part[level] = part[part[level]];
            level = part[level];
        }
        level
    }
    let mut first_level: BTreeMap<usize, usize> = BTreeMap::new();
    for &(a, level) in &pairs {
        let first = *first_level.entry(a).or_insert(level);
        let (x, y) = (root(&mut part, first), root(&mut part, level));
        part[x.max(y)] = x.min(y);
    }
    let mut parts: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for &level in by_level.keys() {
        parts.entry(root(&mut part, level)).or_default().push(&covariate.levels[level]);
    }
    if parts.len() > 1 {
        let mut shown = parts.values().map(|levels| first_few(levels));
        let (one, other) = (shown.next().expect("two parts"), shown.next().expect("two parts"));
        return Ok(Some(format!(
            "`{}` is confounded with the interventions: no intervention (nor control) occurs both in {one} and in {other}, so \
             differences between these cannot be told from effects of interventions",
            covariate.name
        )));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| value.to_string()).collect()
    }

    #[test]
    fn kinds_of_matrices() {
        for (values, kind) in [
            (&[0.0, 3.0, 1.0][..], MatrixKind::Counts),
            (&[0.0, 1.0], MatrixKind::Binary),
            (&[0.0, 1.5], MatrixKind::LogNormalised),
            (&[0.0, 100.5], MatrixKind::Normalised),
            (&[-1.0, 100.5], MatrixKind::Scaled),
            (&[f64::NAN, -1.0], MatrixKind::Missing),
            (&[], MatrixKind::Empty),
        ] {
            assert_eq!(MatrixKind::of(values), kind, "{values:?}");
        }
    }

    #[test]
    fn doubled_genes_get_endings_that_are_free() {
        let mut names = texts(&["A", "B", "A", "A-1", "A", "B"]);
        assert_eq!(doubled(&names), [("A", 3), ("B", 2)]);
        make_unique(&mut names);
        assert_eq!(names, ["A", "B", "A-2", "A-1", "A-3", "B-1"]);
        assert!(doubled(&names).is_empty());
    }

    #[test]
    fn libraries_far_from_the_others_are_told() {
        let mut library: Vec<f64> = (0..100).map(|n| 1000.0 + n as f64 * 10.0).collect();
        assert_eq!(library_outliers(&library), None);
        library.extend([2.0, 3.0, 900_000.0]);
        let text = library_outliers(&library).unwrap();
        assert!(
            text.contains("2 far below it (down to 2)") && text.contains("1 far above it (up to 900000)"),
            "{text}"
        );
        assert_eq!(library_outliers(&[]), None);
    }

    fn check(labels: &[usize], codes: &[u32]) -> Result<Option<String>, InputError> {
        let n_levels = codes.iter().max().unwrap() + 1;
        let levels = (0..n_levels).map(|level| format!("b{level}")).collect();
        let covariate = Categorical { name: "batch".into(), levels, codes: codes.to_vec() };
        let mut rows = InterventionRows::default();
        // Label 9 is a control.
        labels.iter().for_each(|&a| if a == 9 { rows.push(&[]) } else { rows.push(&[(a as u32, 1.0)]) });
        confounding(&covariate, &rows, &texts(&["x", "y", "z"]))
    }

    #[test]
    fn batches_that_share_no_intervention_are_confounded() {
        assert_eq!(check(&[0, 0, 1, 1], &[0, 1, 0, 1]), Ok(None));
        // A chain: batch 0 shares y with 1, which shares z with 2.
        assert_eq!(check(&[0, 1, 1, 2, 2], &[0, 0, 1, 1, 2]), Ok(None));
        let text = check(&[0, 1, 2, 2], &[0, 0, 1, 1]).unwrap().unwrap();
        assert!(text.contains("`b0`") && text.contains("`b1`"), "{text}");
        // Controls in both batches join them.
        assert_eq!(check(&[0, 9, 2, 9], &[0, 0, 1, 1]), Ok(None));
        assert!(check(&[0, 0, 1, 1], &[0, 1, 2, 2]).unwrap_err().to_string().contains("single intervention"));
        assert_eq!(check(&[0, 0], &[0, 1]), Ok(None), "one intervention cannot be confounded");
    }
}
