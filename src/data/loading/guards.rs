//! Warnings about data that would mislead: doubled names, labels with one cell, odd library sizes, batches that are
//! confounded with interventions, matrices that are not counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::data::dataset::{Categorical, InterventionRows};
use crate::data::formats::column::Levels;
use crate::data::formats::screen_file::StoredMatrix;
use crate::error::InputError;
use crate::words::first_few;

/// Labels that usually mark control cells.
const USUAL_CONTROLS: [&str; 28] = [
    "control",
    "controls",
    "ctrl",
    "non-targeting",
    "non_targeting",
    "nontargeting",
    "non targeting",
    "nt",
    "ntc",
    "no-target",
    "no_target",
    "negctrl",
    "neg_ctrl",
    "neg-ctrl",
    "negative_control",
    "negative control",
    "negative-control",
    "scramble",
    "scrambled",
    "scr",
    "safe",
    "safe-targeting",
    "safe_targeting",
    "unperturbed",
    "untreated",
    "vehicle",
    "dmso",
    "mock",
];

/// What the names of control guides may begin with.
const GUIDE_BEGINNINGS: [&str; 3] = ["sg", "grna", "guide"];

/// Whether a label usually marks control cells: such a name, alone or followed by what tells guides apart, as in `NT_1`, `NegCtrl0`,
/// `sgNT-3` or `non-targeting_+_1.23-P1P2`, or by more about a treatment (`DMSO_24h`).
pub(crate) fn is_usual_control(label: &str) -> bool {
    let label = label.to_lowercase();
    let label = label.trim_start_matches(|c: char| !c.is_alphanumeric());
    let begins =
        |label: &str| USUAL_CONTROLS.iter().any(|name| label.strip_prefix(name).is_some_and(tells_guides_apart));
    let without = |beginning: &&str| Some(label.strip_prefix(*beginning)?.trim_start_matches(['_', '-', ' ', '.']));
    begins(label)
        || GUIDE_BEGINNINGS.iter().filter_map(without).any(begins)
        || label.split(|c: char| !c.is_alphanumeric()).next() == Some("dmso")
}

/// Whether what follows the name of a control says no more than which guide it is: numbers, and words that go with them.
fn tells_guides_apart(rest: &str) -> bool {
    const WORDS: [&str; 17] = [
        "", "g", "sg", "sgrna", "grna", "guide", "guides", "ctrl", "control", "controls", "human", "mouse", "hs", "mm",
        "p1", "p2", "p1p2",
    ];
    let is_number = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit());
    let numbered = |word: &str| {
        let bare = word.trim_end_matches(|c: char| c.is_ascii_digit());
        is_number(word) || WORDS.contains(&word) || WORDS.contains(&bare)
    };
    // A letter right after the name makes another word of it.
    let apart = rest.chars().next().is_none_or(|c| !c.is_alphabetic());
    apart && rest.split(|c: char| !c.is_alphanumeric()).all(numbered)
}

/// What a matrix holds, from some of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatrixKind {
    /// Whole numbers, none negative.
    Counts,
    /// Only 0 and 1.
    Binary,
    /// Mostly whole numbers, and fractions among them.
    MostlyWhole,
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
            let some = values.iter().filter(|x| **x != 0.0);
            let whole = some.clone().filter(|x| x.fract() == 0.0).count();
            if some.clone().count() >= ENOUGH_TO_TELL && 2 * whole > some.count() {
                return MatrixKind::MostlyWhole;
            }
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
            MatrixKind::MostlyWhole => "whole numbers with fractions among them (expected or corrected counts)",
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

/// What is wrong with fractions among whole numbers, in the place of what is wrong with fractions.
const NORMALISED: &str = "the matrix looks normalised or log-transformed";
const CORRECTED: &str = "most of the matrix are whole numbers, so that it looks like expected counts of reads that map to several genes, \
                         or like corrected counts";

/// Counts of a sample from which on it tells one from the other.
const ENOUGH_TO_TELL: usize = 50;

/// Adds to an error about a matrix without counts what else it may hold, and where in the file counts are.
pub(crate) fn point_to_counts(mut error: InputError, matrices: &[StoredMatrix]) -> InputError {
    let sample = matrices.first().map_or(&[][..], |matrix| &matrix.sample);
    if error.problem.contains(NORMALISED) && MatrixKind::of(sample) == MatrixKind::MostlyWhole {
        error.problem = error.problem.replace(NORMALISED, CORRECTED);
        "give counts of unique reads (matrix.mtx of STARsolo), uncorrected, or round them"
            .clone_into(&mut error.remedy);
    }
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

/// How `--control` names all of `controls` and none of the `others`: by what they begin with if they are many, else one by one.
pub(crate) fn control_list(controls: &[&str], others: &[&str]) -> String {
    const MANY: usize = 4;
    if let ([first, rest @ ..], true) = (controls, controls.len() >= MANY) {
        let shared = rest.iter().fold(first.len(), |n, name| {
            let same =
                first.char_indices().zip(name.chars()).find(|((_, a), b)| a != b).map_or(name.len(), |((at, _), _)| at);
            n.min(same).min(name.len())
        });
        // Digits that all happen to share belong to the numbers.
        let beginning = first[..shared].trim_end_matches(|c: char| c.is_ascii_digit());
        if beginning.len() > 1 && !beginning.contains('*') && !others.iter().any(|name| name.starts_with(beginning)) {
            return format!("{beginning}*");
        }
    }
    controls.join(",")
}

/// A hint that a label looks like a control, if none was named.
pub(crate) fn unnamed_control(names: &[String]) -> Option<String> {
    let (controls, others): (Vec<&str>, Vec<&str>) =
        names.iter().map(String::as_str).partition(|name| is_usual_control(name));
    let named = match &controls[..] {
        [] => return None,
        [_, _, _, _, ..] => control_list(&controls, &others),
        [first, ..] => first.to_string(),
    };
    Some(format!(
        "{} looks like a control but is treated as an intervention; --control \"{named}\" gives its cells the prior without \
         any shift",
        first_few(&controls)
    ))
}

/// A warning that there is nothing to compare the only intervention with.
pub(crate) fn lone_label(names: &[String], n_controls: usize, unlabelled: bool) -> Option<String> {
    match names {
        [only] if n_controls == 0 && !unlabelled => Some(format!(
            "all cells have the label `{only}` and none is a control, so there is nothing to compare them with; check the column, \
             or name the controls with --control"
        )),
        _ => None,
    }
}

/// A warning about counts that were made 0 and 1.
pub(crate) fn binary_counts(largest: u32, matrices: impl FnOnce() -> Vec<StoredMatrix>) -> Option<String> {
    if largest != 1 {
        return None;
    }
    let matrices = matrices();
    let counts = matrices.iter().skip(1).find(|matrix| MatrixKind::of(&matrix.sample) == MatrixKind::Counts);
    let elsewhere = counts.map_or_else(
        || "give the raw counts".to_owned(),
        |matrix| format!("{} of this file holds raw counts, add --layer {0}", matrix.name),
    );
    Some(format!(
        "all counts are 0 or 1, as if they had been made so (binarised): a model of counts learns little from them; {elsewhere}"
    ))
}

/// A warning about levels of a column that differ in letters' case, or in blanks, dashes and underscores, alone.
pub(crate) fn similar_labels(labels: &Levels, place: &str) -> Option<String> {
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, _) in labels.names.iter().zip(labels.sizes()).filter(|(_, size)| *size > 0) {
        let words = name.to_lowercase().replace(['_', '-'], " ");
        let key = words.split_whitespace().collect::<Vec<_>>().join(" ");
        groups.entry(key).or_default().push(name);
    }
    let similar: Vec<&str> = groups.into_values().filter(|names| names.len() > 1).flatten().collect();
    (!similar.is_empty()).then(|| {
        format!(
            "{place}: labels that are nearly the same are taken for different ones: {}; write them alike if they are",
            first_few(&similar)
        )
    })
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
        let mut expected = vec![2.0; 60];
        expected[7] = 1.25;
        assert_eq!(MatrixKind::of(&expected), MatrixKind::MostlyWhole);
    }

    #[test]
    fn fractions_among_counts_are_not_taken_for_logarithms() {
        let matrix = |sample: &[f64]| StoredMatrix {
            name: "X".into(),
            n_cells: 1,
            n_genes: 4,
            storage: "dense",
            dtype: "real".into(),
            compression: None,
            n_stored: None,
            sample: sample.to_vec(),
        };
        let error =
            || InputError::new(format!("the count is 0.5, not a whole number; {NORMALISED}"), "give the raw counts");
        let told = |sample: &[f64]| point_to_counts(error(), &[matrix(sample)]).to_string();
        assert!(told(&[0.0, 1.0, 2.0, 0.5].repeat(30)).contains("reads that map to several genes"));
        assert!(told(&[0.0, 0.7, 1.1, 0.5].repeat(30)).contains("log-transformed"));
        assert!(told(&[1.0, 2.0, 0.5]).contains("log-transformed"), "too few to tell");
    }

    #[test]
    fn controls_are_told_by_their_names_and_those_of_their_guides() {
        for name in [
            "NT",
            "NT_1",
            "non-targeting",
            "non-targeting_00001",
            "NegCtrl0",
            "sgNT-3",
            "scramble-2",
            "Non-Targeting_+_1.23-P1P2",
            "ctrl",
            "DMSO_24h",
            "[('DMSO_TF', 0.0, 'uM')]",
            "sgNonTargeting_Human_0001",
            "control_guide_7",
            "safe-targeting.3",
        ] {
            assert!(is_usual_control(name), "{name}");
        }
        for name in [
            "NT5E",
            "NTF3",
            "CTRL2A",
            "STAT1_+_1.23-P1P2",
            "SCRIB",
            "MOCKX",
            "A_ctrl",
            "SAFB",
            "na",
            "NTRK1",
            "control A",
        ] {
            assert!(!is_usual_control(name), "{name}");
        }
        let many = ["non-targeting_00001", "non-targeting_00002", "non-targeting_00003", "non-targeting_00012"];
        assert_eq!(control_list(&many, &["STAT1", "IRF1"]), "non-targeting_*");
        assert_eq!(control_list(&many[..2], &["STAT1"]), "non-targeting_00001,non-targeting_00002");
        assert_eq!(control_list(&["NT1", "NT2", "NT3", "NT4"], &["NTF3"]), "NT1,NT2,NT3,NT4");
        let names = texts(&[&many[..], &["STAT1"]].concat());
        assert!(unnamed_control(&names).unwrap().contains("--control \"non-targeting_*\""));
    }

    #[test]
    fn labels_that_are_nearly_the_same_are_told() {
        let levels = |names: &[&str]| Levels {
            names: texts(names),
            numbers: None,
            codes: (0..names.len() as u32).map(Some).collect(),
        };
        let text = similar_labels(&levels(&["STAT1", "stat1", "NT", "non-targeting", "Non_targeting"]), "obs").unwrap();
        assert!(text.contains("`STAT1`, `stat1`") && !text.contains("`NT`"), "{text}");
        assert_eq!(similar_labels(&levels(&["STAT1", "STAT2", "HLA-A"]), "obs"), None);
        assert!(lone_label(&texts(&["a"]), 0, false).is_some() && lone_label(&texts(&["a"]), 3, false).is_none());
        assert!(binary_counts(1, Vec::new).unwrap().contains("binarised") && binary_counts(2, Vec::new).is_none());
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
