//! Rules that take a raw value to a checked one: its range, its default, and what to say outside.
//!
//! A rule is a function of the place where the value was said and of the value, `None` where nothing was said.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;
use crate::settings::origin::Place;
use crate::settings::time_limit::TimeLimit;
use crate::system::files::with_files;

/// A range of allowed numbers, which can say itself in words.
#[derive(Debug, Clone, Copy)]
pub(super) struct NumberRange {
    low: f64,
    low_allowed: bool,
    high: f64,
    high_allowed: bool,
}

impl NumberRange {
    pub(super) const fn closed(low: f64, high: f64) -> Self {
        Self { low, low_allowed: true, high, high_allowed: true }
    }

    pub(super) const fn above(low: f64, high: f64) -> Self {
        Self { low, low_allowed: false, high, high_allowed: true }
    }

    pub(super) const fn below(low: f64, high: f64) -> Self {
        Self { low, low_allowed: true, high, high_allowed: false }
    }

    fn contains(self, value: f64) -> bool {
        let above = if self.low_allowed { value >= self.low } else { value > self.low };
        let below = if self.high_allowed { value <= self.high } else { value < self.high };
        above && below
    }
}

impl std::fmt::Display for NumberRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let low = if self.low_allowed { "at least" } else { "above" };
        let high = if self.high_allowed { "at most" } else { "below" };
        write!(f, "{low} {} and {high} {}", self.low, self.high)
    }
}

/// A number in a range.
pub(super) fn number(default: f64, range: NumberRange) -> impl Fn(Place, Option<f64>) -> Result<f64> {
    move |place, value| {
        let value = value.unwrap_or(default);
        match range.contains(value) {
            true => Ok(value),
            false => Err(place.out_of_range(value, format!("give a number {range}"))),
        }
    }
}

/// A number in a range, or none.
pub(super) fn number_or_none(range: NumberRange) -> impl Fn(Place, Option<f64>) -> Result<Option<f64>> {
    move |place, value| value.map(|value| number(value, range)(place, Some(value))).transpose()
}

/// A whole number from `low` to `high`.
pub(super) fn whole<T: TryFrom<i64>>(default: T, low: i64, high: i64) -> impl FnOnce(Place, Option<i64>) -> Result<T> {
    move |place, value| match value {
        None => Ok(default),
        Some(value) => {
            let checked = (low..=high).contains(&value).then(|| T::try_from(value).ok()).flatten();
            checked.ok_or_else(|| place.out_of_range(value, format!("give a whole number from {low} to {high}")))
        }
    }
}

/// A whole number from `low` to `high`, or none.
pub(super) fn whole_or_none(low: i64, high: i64) -> impl Fn(Place, Option<i64>) -> Result<Option<usize>> {
    move |place, value| value.map(|value| whole(0, low, high)(place, Some(value))).transpose()
}

/// A seed: a whole number that is not negative.
pub(super) fn seed(default: u64) -> impl FnOnce(Place, Option<i64>) -> Result<u64> {
    whole(default, 0, i64::MAX)
}

/// Any value of its type.
pub(super) fn any<T>(default: T) -> impl FnOnce(Place, Option<T>) -> Result<T> {
    move |_, value| Ok(value.unwrap_or(default))
}

/// Any value of its type, or none.
pub(super) fn any_or_none<T>() -> impl Fn(Place, Option<T>) -> Result<Option<T>> {
    |_, value| Ok(value)
}

/// A time above 0 and of at most ten years, or none.
pub(super) fn time_or_none() -> impl Fn(Place, Option<String>) -> Result<Option<TimeLimit>> {
    |place, value| {
        let Some(text) = value else { return Ok(None) };
        match text.parse::<TimeLimit>() {
            Ok(limit) if limit.0 > Duration::ZERO && limit.0.as_secs() <= 86_400 * 3_650 => Ok(Some(limit)),
            _ => {
                let remedy =
                    "give days, hours, minutes and seconds, as in 1d12h, 11h50m or 90m, or a number of seconds";
                Err(place.refused(format!("\"{text}\" is no time"), remedy))
            }
        }
    }
}

/// The name of a column, or none.
pub(super) fn column_or_none(place: Place, value: Option<String>) -> Result<Option<String>> {
    match value {
        Some(text) if text.trim().is_empty() => Err(place.refused("the name is empty", "give the name of a column")),
        value => Ok(value),
    }
}

/// Names, each once.
pub(super) fn names(place: Place, value: Option<Vec<String>>) -> Result<Vec<String>> {
    let names = value.unwrap_or_default();
    for (i, name) in names.iter().enumerate() {
        if name.trim().is_empty() {
            return Err(place.refused("a name is empty", "give names, separated by commas"));
        }
        if names[..i].contains(name) {
            return Err(place.refused(format!("\"{name}\" is named twice"), "name each once"));
        }
    }
    Ok(names)
}

/// Names, each once and at least one, or none at all.
pub(super) fn names_or_none(place: Place, value: Option<Vec<String>>) -> Result<Option<Vec<String>>> {
    match value {
        Some(list) if list.is_empty() => Err(place.refused("it names nothing", "give names, separated by commas")),
        value => value.map(|list| names(place, Some(list))).transpose(),
    }
}

/// What separates the parts of a label, or none.
pub(super) fn separator_or_none(place: Place, value: Option<String>) -> Result<Option<String>> {
    match value {
        Some(text) if text.is_empty() => {
            Err(place.refused("the separator is empty", "give what stands between the parts of a label, such as +"))
        }
        value => Ok(value),
    }
}

/// The path of something, or none; `what` is a file or a folder, `example` says which one to give.
pub(super) fn path_or_none(
    what: &'static str,
    example: &'static str,
) -> impl Fn(Place, Option<PathBuf>) -> Result<Option<PathBuf>> {
    move |place, value| match value {
        Some(path) if path.as_os_str().is_empty() => {
            Err(place.refused(format!("the name of the {what} is empty"), format!("give the path of {example}")))
        }
        value => Ok(value),
    }
}

/// One path or several: the first, and the others; `example` says what one is the path of.
pub(super) fn paths(
    place: Place,
    values: Option<Vec<PathBuf>>,
    example: &str,
) -> Result<(Option<PathBuf>, Vec<PathBuf>)> {
    let Some(values) = values else { return Ok((None, Vec::new())) };
    if values.is_empty() || values.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(place.refused("the name of the file is empty".to_owned(), format!("give the path of {example}")));
    }
    let mut values = values.into_iter();
    Ok((values.next(), values.collect()))
}

/// Labels, with every entry `@file` replaced by the lines of that file; `@@name` is the label `@name`. A label with commas may have
/// been cut there: pieces are kept, and joined where labels are known.
pub(super) fn labels_or_none(place: Place, value: Option<Vec<String>>) -> Result<Option<Vec<String>>> {
    let Some(entries) = value else { return Ok(None) };
    let refused = |problem: String| place.refused(problem, NAME_A_FILE);
    Ok(Some(with_files(&entries).map_err(|(path, source)| {
        refused(format!("the file of labels {} cannot be read: {source}", path.display()))
    })?))
}

/// As [`labels_or_none`], but at least one, and none where nothing is said.
pub(super) fn labels(place: Place, value: Option<Vec<String>>) -> Result<Vec<String>> {
    let nothing =
        value.as_ref().is_some_and(|list| list.iter().any(|entry| entry.trim().is_empty()) && list.len() == 1);
    if nothing {
        return Err(place.refused("a name is empty", "give names, separated by commas"));
    }
    Ok(labels_or_none(place, value)?.unwrap_or_default())
}

/// What to do about a file of labels that cannot be read.
const NAME_A_FILE: &str = "name a text file with one label per line after @";
