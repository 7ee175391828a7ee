//! A column that annotates cells: as stored, and read as categories or as numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use crate::error::{InputError, Result};

/// Texts of a missing value, wherever labels are read from: what R, pandas and NumPy write for one.
const MISSING: [&str; 7] = ["", "NA", "N/A", "<NA>", "nan", "NaN", "None"];

/// Whether a text stands for a missing value: the one rule for categories, text and tables.
pub(crate) fn is_missing(text: &str) -> bool {
    MISSING.contains(&text.trim())
}

/// A column of cell annotations as stored.
#[derive(Debug)]
pub(crate) enum Column {
    /// Levels, the numbers they stand for if they are numbers, and a level per cell (negative: missing).
    Categorical {
        levels: Vec<String>,
        numbers: Option<Vec<i64>>,
        codes: Vec<i64>,
    },
    /// Text; empty or "nan" is missing.
    Strings(Vec<String>),
    Integers(Vec<i64>),
    /// Floating point; NaN is missing.
    Numbers(Vec<f64>),
    Flags(Vec<bool>),
}

/// A column read as categories.
#[derive(Debug)]
pub(crate) struct Levels {
    pub names: Vec<String>,
    pub numbers: Option<Vec<i64>>,
    /// Level of each cell, `None` if missing.
    pub codes: Vec<Option<u32>>,
}

impl Column {
    /// A column of a text file: as text if it is the `label`, else as numbers where all values are that are not missing.
    pub fn from_texts<'a>(values: impl Iterator<Item = &'a str> + Clone, label: bool) -> Self {
        Self::from_texts_with(values, label, &[])
    }

    /// As [`Column::from_texts`], but a text that is one of `named` is not missing.
    pub fn from_texts_with<'a>(values: impl Iterator<Item = &'a str> + Clone, label: bool, named: &[String]) -> Self {
        let gone = |text: &str| is_missing(text) && !named.iter().any(|name| name == text);
        let values = values.map(|text| if gone(text) { "" } else { text });
        if !label {
            if let Some(whole) = values.clone().map(|text| text.parse().ok()).collect::<Option<Vec<i64>>>() {
                return Column::Integers(whole);
            }
            let number = |text: &str| if text.is_empty() { Some(f64::NAN) } else { text.parse().ok() };
            if let Some(numbers) = values.clone().map(number).collect::<Option<Vec<f64>>>() {
                return Column::Numbers(numbers);
            }
        }
        Column::Strings(values.map(str::to_string).collect())
    }

    pub fn len(&self) -> usize {
        match self {
            Column::Categorical { codes, .. } => codes.len(),
            Column::Strings(values) => values.len(),
            Column::Integers(values) => values.len(),
            Column::Numbers(values) => values.len(),
            Column::Flags(values) => values.len(),
        }
    }

    /// The values of `rows`, in their order.
    pub fn select(self, rows: &[usize]) -> Self {
        fn pick<T: Clone>(values: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().map(|&row| values[row].clone()).collect()
        }
        match self {
            Column::Categorical { levels, numbers, codes } => {
                Column::Categorical { levels, numbers, codes: pick(&codes, rows) }
            }
            Column::Strings(values) => Column::Strings(pick(&values, rows)),
            Column::Integers(values) => Column::Integers(pick(&values, rows)),
            Column::Numbers(values) => Column::Numbers(pick(&values, rows)),
            Column::Flags(values) => Column::Flags(pick(&values, rows)),
        }
    }

    /// The column as categories: the stored order of levels, else ascending. Texts that stand for a missing value are none.
    pub fn into_levels(self) -> Result<Levels, InputError> {
        self.into_levels_with(&[])
    }

    /// As [`Column::into_levels`], but a text that is one of `named` is a level, whatever it looks like.
    pub fn into_levels_with(self, named: &[String]) -> Result<Levels, InputError> {
        let missing = |text: &str| is_missing(text) && !named.iter().any(|name| name == text);
        match self {
            Column::Categorical { levels, numbers, codes } => {
                let mut seen = BTreeSet::new();
                if let Some(twice) = levels.iter().find(|level| !seen.insert(*level)) {
                    return Err(InputError::new(format!("the level `{twice}` is listed twice"), "merge the two"));
                }
                let n_levels = levels.len() as i64;
                if let Some(n) = codes.iter().position(|&code| code >= n_levels) {
                    return Err(InputError::new(
                        format!("cell {n} has level number {}, but there are {n_levels} levels", codes[n]),
                        "write the file again",
                    ));
                }
                let gone: Vec<bool> = levels.iter().map(|level| missing(level)).collect();
                let code = |code: i64| u32::try_from(code).ok().filter(|&code| !gone[code as usize]);
                let codes = codes.into_iter().map(code).collect();
                Ok(Levels { names: levels, numbers, codes })
            }
            Column::Strings(values) => {
                let level = |value: String| (!missing(&value)).then_some(value);
                Ok(Levels::ascending(values.into_iter().map(level).collect(), None))
            }
            Column::Integers(values) => {
                let values = values.into_iter().map(Some).collect();
                Ok(Levels::ascending(values, Some(|value: &i64| *value)))
            }
            Column::Numbers(values) => {
                // 2^53: beyond, neighbouring whole numbers are one and the same.
                if let Some(value) = values.iter().find(|x| !x.is_nan() && (x.fract() != 0.0 || x.abs() > 9e15)) {
                    return Err(InputError::new(
                        format!("it holds numbers such as {value}, not categories"),
                        "name a categorical, text or integer column",
                    ));
                }
                let values = values.into_iter().map(|x| (!x.is_nan()).then_some(x as i64)).collect();
                Ok(Levels::ascending(values, Some(|value: &i64| *value)))
            }
            Column::Flags(values) => {
                let name = |flag| Some(if flag { "True" } else { "False" }.to_string());
                Ok(Levels::ascending(values.into_iter().map(name).collect(), None))
            }
        }
    }

    /// The column as numbers.
    pub fn into_numbers(self) -> Result<Vec<f64>, InputError> {
        match self {
            Column::Integers(values) => Ok(values.into_iter().map(|x| x as f64).collect()),
            Column::Numbers(values) => Ok(values),
            Column::Flags(values) => Ok(values.into_iter().map(f64::from).collect()),
            Column::Categorical { .. } | Column::Strings(_) => {
                Err(InputError::new("it holds categories or text, not numbers", "name a numeric column"))
            }
        }
    }
}

impl Levels {
    fn ascending<T: Ord + Clone + Display>(values: Vec<Option<T>>, number: Option<fn(&T) -> i64>) -> Self {
        let levels: Vec<T> = values.iter().flatten().collect::<BTreeSet<_>>().into_iter().cloned().collect();
        let code = |value: T| levels.binary_search(&value).expect("each value is a level") as u32;
        Self {
            codes: values.into_iter().map(|value| value.map(code)).collect(),
            names: levels.iter().map(T::to_string).collect(),
            numbers: number.map(|number| levels.iter().map(number).collect()),
        }
    }

    /// Joins levels that differ in nothing but blanks around them; the names of those that were renamed or joined.
    pub fn join_blanks(&mut self) -> Vec<String> {
        let changed: Vec<String> = self.names.iter().filter(|name| name.trim() != name.as_str()).cloned().collect();
        if changed.is_empty() {
            return changed;
        }
        let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
        let (mut names, mut kept) = (Vec::new(), Vec::new());
        let mut renumbered = Vec::with_capacity(self.names.len());
        for (level, name) in self.names.iter().enumerate() {
            let name = name.trim().to_owned();
            let next = names.len() as u32;
            let number = *numbers.entry(name.clone()).or_insert(next);
            if number == next {
                names.push(name);
                kept.push(level);
            }
            renumbered.push(number);
        }
        self.codes.iter_mut().flatten().for_each(|code| *code = renumbered[*code as usize]);
        self.numbers = self.numbers.as_ref().map(|numbers| kept.iter().map(|&level| numbers[level]).collect());
        self.names = names;
        changed
    }

    /// Whether each cell has none.
    pub fn missing(&self) -> Vec<bool> {
        self.codes.iter().map(Option::is_none).collect()
    }

    /// Cells of each level.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.names.len()];
        self.codes.iter().flatten().for_each(|&code| sizes[code as usize] += 1);
        sizes
    }

    /// Restricts to the levels in use; the old number of each level that stays.
    pub fn drop_unused(&mut self) -> Vec<usize> {
        let used: Vec<bool> = self.sizes().into_iter().map(|size| size > 0).collect();
        let kept: Vec<usize> = (0..used.len()).filter(|&level| used[level]).collect();
        let mut renumbered = vec![0; used.len()];
        kept.iter().enumerate().for_each(|(new, &old)| renumbered[old] = new as u32);
        self.codes.iter_mut().flatten().for_each(|code| *code = renumbered[*code as usize]);
        self.names = kept.iter().map(|&level| std::mem::take(&mut self.names[level])).collect();
        self.numbers = self.numbers.as_ref().map(|numbers| kept.iter().map(|&level| numbers[level]).collect());
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| value.to_string()).collect()
    }

    #[test]
    fn what_is_missing_is_so_in_text_and_in_categories() {
        let all = ["a", "nan", "NaN", "None", "NA", "N/A", "<NA>", "", " ", "na", "b"];
        let wanted = [true, false, false, false, false, false, false, false, false, true, true];
        let codes = (0..all.len() as i64).collect();
        let categories = Column::Categorical { levels: texts(&all), numbers: None, codes };
        for column in [categories, Column::Strings(texts(&all)), Column::from_texts(all.into_iter(), true)] {
            let shown = format!("{column:?}");
            let found: Vec<bool> = column.into_levels().unwrap().codes.iter().map(Option::is_some).collect();
            assert_eq!(found, wanted, "{shown}");
        }
        // Who names it means it.
        let levels = Column::Strings(texts(&["None", "a"])).into_levels_with(&texts(&["None"])).unwrap();
        assert_eq!(levels.names, ["None", "a"]);
        assert!(matches!(Column::from_texts(["1", "N/A"].into_iter(), false), Column::Numbers(x) if x[1].is_nan()));
    }

    #[test]
    fn levels_that_differ_in_blanks_are_one() {
        let mut levels = Levels { names: texts(&["A ", "B", "A"]), numbers: None, codes: vec![Some(0), Some(2), None] };
        assert_eq!(levels.join_blanks(), ["A "]);
        assert_eq!((levels.names, levels.codes), (texts(&["A", "B"]), vec![Some(0), Some(0), None]));
    }
}
