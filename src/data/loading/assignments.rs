//! What each cell was given, as it is written down: a label, a label of several parts, rows of a table, columns of numbers, or
//! counts of guides.

use std::collections::{BTreeMap, BTreeSet};

use crate::data::formats::column::{Column, Levels};
use crate::error::InputError;
use crate::words::first_few;

/// Labels of cells, and the parts that each of them has.
#[derive(Debug)]
pub(crate) struct Assignments {
    /// A level for each cell.
    pub labels: Levels,
    /// Parts of each level with their doses, as they are written down.
    pub parts: Vec<Vec<(String, f32)>>,
    /// Whether each level is its own only part.
    pub plain: bool,
    /// The levels of the column that they were read from, if it is one.
    pub stored: Option<StoredLevels>,
}

/// Levels of a column, by which a file may hold more than their cells.
#[derive(Debug)]
pub(crate) struct StoredLevels {
    pub names: Vec<String>,
    pub numbers: Option<Vec<i64>>,
}

impl StoredLevels {
    fn of(labels: &Levels) -> Self {
        Self { names: labels.names.clone(), numbers: labels.numbers.clone() }
    }
}

/// The parts of a label: what stands between separators, without blanks around it; nothing between two separators is no part.
pub(crate) fn parts_of<'a>(label: &'a str, separator: &'a str) -> impl Iterator<Item = &'a str> {
    let separator = if separator.trim().is_empty() { separator } else { separator.trim() };
    label.split(separator).map(str::trim).filter(|part| !part.is_empty())
}

/// The parts of a label, which is its only one where nothing separates them.
pub(crate) fn parts_of_label(label: &str, separator: Option<&str>) -> Vec<String> {
    match separator {
        Some(separator) => parts_of(label, separator).map(str::to_owned).collect(),
        None => vec![label.to_owned()],
    }
}

impl Assignments {
    /// Labels as they stand.
    pub fn plain(labels: Levels) -> Self {
        let parts = labels.names.iter().map(|name| vec![(name.clone(), 1.0)]).collect();
        let stored = Some(StoredLevels::of(&labels));
        Self { labels, parts, plain: true, stored }
    }

    /// Labels whose parts are separated; a label that is one of `whole` is not taken apart.
    ///
    /// # Errors
    /// [`InputError`] for a label without any part.
    pub fn separated(labels: Levels, separator: &str, whole: &[String]) -> Result<Self, InputError> {
        let mut parts = Vec::with_capacity(labels.names.len());
        for name in &labels.names {
            let found: Vec<(String, f32)> = match whole.contains(name) {
                true => vec![(name.clone(), 1.0)],
                false => parts_of(name, separator).map(|part| (part.to_owned(), 1.0)).collect(),
            };
            if found.is_empty() {
                let problem = format!("the label `{name}` has no part that is not the separator `{separator}`");
                return Err(InputError::new(problem, "mend the label, or give another --combination-separator"));
            }
            parts.push(found);
        }
        let stored = Some(StoredLevels::of(&labels));
        Ok(Self { labels, parts, plain: false, stored })
    }

    /// Interventions of each cell by number among `names`, with doses; none where they are unknown.
    pub fn from_rows(rows: impl IntoIterator<Item = Option<Vec<(u32, f32)>>>, names: &[String]) -> Self {
        let mut numbers: BTreeMap<Vec<(u32, u32)>, u32> = BTreeMap::new();
        let mut codes = Vec::new();
        for row in rows {
            codes.push(row.map(|row| {
                let key = row.into_iter().map(|(a, dose)| (a, dose.to_bits())).collect();
                let next = numbers.len() as u32;
                *numbers.entry(key).or_insert(next)
            }));
        }
        let mut parts = vec![Vec::new(); numbers.len()];
        for (key, number) in numbers {
            let part = |(a, dose): (u32, u32)| (names[a as usize].clone(), f32::from_bits(dose));
            parts[number as usize] = key.into_iter().map(part).collect();
        }
        let name =
            |parts: &Vec<(String, f32)>| parts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("+");
        let labels = Levels { names: parts.iter().map(name).collect(), numbers: None, codes };
        Self { labels, parts, plain: false, stored: None }
    }

    /// The same with the doses of a column: one number for all parts of a cell, or one for each, separated by `separator` or by
    /// `+`. Parts that are controls need none, and a part at dose 0 was not given.
    ///
    /// # Errors
    /// [`InputError`] if a dose is absent, not a number, negative or not finite, or if a cell has more or fewer doses than parts.
    /// `place` puts a cell in words.
    pub fn with_doses(
        self,
        doses: Column,
        separator: Option<&str>,
        controls: &[String],
        place: impl Fn(usize) -> String,
    ) -> Result<Self, InputError> {
        let doses = as_text(doses).into_levels()?;
        let mut pairs: BTreeMap<(u32, Option<u32>), u32> = BTreeMap::new();
        let (mut names, mut parts, mut codes) = (Vec::new(), Vec::new(), Vec::new());
        for (n, (label, dose)) in self.labels.codes.iter().zip(&doses.codes).enumerate() {
            let Some(label) = *label else {
                codes.push(None);
                continue;
            };
            let next = pairs.len() as u32;
            let number = *pairs.entry((label, *dose)).or_insert(next);
            if number == next {
                let text = dose.map(|dose| doses.names[dose as usize].as_str());
                let found = dosed(&self.parts[label as usize], text, separator, controls);
                parts.push(found.map_err(|problem| {
                    let problem = format!("{problem}, {}", place(n));
                    InputError::new(
                        problem,
                        "give a number from 0 on for each intervention of the cell, as in `1` or `1+0.5`",
                    )
                })?);
                names.push(self.labels.names[label as usize].clone());
            }
            codes.push(Some(number));
        }
        let labels = Levels { names, numbers: None, codes };
        Ok(Self { labels, parts, plain: false, stored: self.stored })
    }
}

/// Labels of cells with several rows of a table, each of which may hold several parts.
pub(crate) fn from_table_rows(values: &[Vec<&str>], separator: Option<&str>) -> Assignments {
    let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
    let parts = |text: &&str| parts_of_label(text, separator);
    let all: Vec<Vec<String>> = values.iter().map(|texts| texts.iter().flat_map(parts).collect()).collect();
    all.iter().flatten().for_each(|name| {
        numbers.insert(name, 0);
    });
    numbers.values_mut().enumerate().for_each(|(number, place)| *place = number as u32);
    let names: Vec<String> = numbers.keys().map(|name| name.to_string()).collect();
    let row = |parts: &Vec<String>| {
        let mut row: Vec<(u32, f32)> = parts.iter().map(|part| (numbers[part.as_str()], 1.0)).collect();
        row.sort_by_key(|&(a, _)| a);
        (!row.is_empty()).then_some(row)
    };
    Assignments::from_rows(all.iter().map(row), &names)
}

/// A warning where a separator takes no label apart, or only into parts of which none is a label by itself.
pub(crate) fn doubtful_separator(assigned: &Assignments, separator: &str, controls: &[String]) -> Option<String> {
    let acting = |parts: &Vec<(String, f32)>| -> BTreeSet<String> {
        parts.iter().map(|(name, _)| name.clone()).filter(|name| !controls.contains(name)).collect()
    };
    let sizes = assigned.labels.sizes();
    let used = || assigned.parts.iter().zip(&assigned.labels.names).zip(&sizes).filter(|(_, size)| **size > 0);
    let mut alone = BTreeSet::new();
    let mut several = Vec::new();
    for ((parts, name), _) in used() {
        let acting = acting(parts);
        match acting.len() {
            0 => {}
            1 => alone.extend(acting),
            _ => several.push((name, acting)),
        }
    }
    if !used().any(|((parts, _), _)| parts.len() > 1) {
        return Some(format!(
            "no label has the separator `{separator}` in it, so no cell is under several interventions"
        ));
    }
    let (first, _) = several.first()?;
    several.iter().all(|(_, parts)| parts.is_disjoint(&alone)).then(|| {
        format!(
            "the separator `{separator}` takes {} labels apart, such as `{first}`, but none of their parts is a label by itself; \
             if it belongs to their names, leave it out",
            several.len()
        )
    })
}

/// Numbers as text, so that equal ones are one level; anything else as it is.
fn as_text(column: Column) -> Column {
    match column {
        Column::Numbers(values) => {
            let text = |value: f64| if value.is_nan() { String::new() } else { value.to_string() };
            Column::Strings(values.into_iter().map(text).collect())
        }
        other => other,
    }
}

/// Parts at the doses of `text`; what is wrong with them otherwise.
fn dosed(
    parts: &[(String, f32)],
    text: Option<&str>,
    separator: Option<&str>,
    controls: &[String],
) -> Result<Vec<(String, f32)>, String> {
    let is_control = |name: &String| controls.contains(name);
    if parts.iter().all(|(name, _)| is_control(name)) {
        return Ok(parts.to_vec());
    }
    let Some(text) = text else { return Err("the dose is missing".to_owned()) };
    let fields: Vec<&str> = match (text.trim().parse::<f64>(), separator) {
        (Ok(_), _) => vec![text],
        (Err(_), Some(separator)) if text.contains(separator) => parts_of(text, separator).collect(),
        _ => parts_of(text, "+").collect(),
    };
    let doses: Vec<f32> = fields.iter().map(|field| dose_of(field)).collect::<Result<_, _>>()?;
    if doses.len() != 1 && doses.len() != parts.len() {
        let names: Vec<&String> = parts.iter().map(|(name, _)| name).collect();
        return Err(format!("`{text}` is {} doses for {}", doses.len(), first_few(&names)));
    }
    let mut found = Vec::with_capacity(parts.len());
    for (i, (name, _)) in parts.iter().enumerate() {
        if is_control(name) {
            found.push((name.clone(), 1.0));
            continue;
        }
        let dose = if doses.len() == 1 { doses[0] } else { doses[i] };
        if dose > 0.0 {
            found.push((name.clone(), dose));
        }
    }
    Ok(found)
}

/// A dose: a number that is finite and not negative.
fn dose_of(text: &str) -> Result<f32, String> {
    match text.trim().parse::<f32>() {
        Ok(dose) if dose.is_finite() && dose >= 0.0 => Ok(dose),
        Ok(_) => Err(format!("the dose is {text}")),
        Err(_) => Err(format!("the dose `{text}` is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(names: &[&str]) -> Levels {
        let codes = (0..names.len() as u32).map(Some).collect();
        Levels { names: names.iter().map(|name| name.to_string()).collect(), numbers: None, codes }
    }

    fn shown(parts: &[(String, f32)]) -> Vec<(&str, f32)> {
        parts.iter().map(|(name, dose)| (name.as_str(), *dose)).collect()
    }

    #[test]
    fn nothing_between_separators_and_blanks_around_a_part_mean_nothing() {
        let whole = ["non_targeting".to_owned()];
        let found = Assignments::separated(levels(&["A_B__A_B", "A", "non_targeting", "_B "]), "_", &whole).unwrap();
        let parts: Vec<Vec<&str>> =
            found.parts.iter().map(|parts| parts.iter().map(|(name, _)| name.as_str()).collect()).collect();
        assert_eq!(parts, [vec!["A", "B", "A", "B"], vec!["A"], vec!["non_targeting"], vec!["B"]]);
        assert!(Assignments::separated(levels(&["+ +"]), "+", &[]).unwrap_err().to_string().contains("`+ +`"));
    }

    #[test]
    fn doses_are_one_for_all_or_one_for_each() {
        let names = ["A+B", "A+B", "A", "ctrl", "ctrl+B", "A+B"];
        let mut labels = levels(&["A+B", "A", "ctrl", "ctrl+B"]);
        labels.codes = [0, 0, 1, 2, 3, 0].map(Some).to_vec();
        let doses = ["2", "1+0.5", "1e-1", "", "1+3", "0+4"].map(str::to_owned);
        let read = |doses: &[String]| {
            let labels = Levels { names: labels.names.clone(), numbers: None, codes: labels.codes.clone() };
            let assigned = Assignments::separated(labels, "+", &[]).unwrap();
            assigned
                .with_doses(Column::Strings(doses.to_vec()), Some("+"), &["ctrl".to_owned()], |n| format!("cell {n}"))
        };
        let found = read(&doses).unwrap();
        let of_cell = |n: usize| shown(&found.parts[found.labels.codes[n].unwrap() as usize]);
        assert_eq!(of_cell(0), [("A", 2.0), ("B", 2.0)]);
        assert_eq!(of_cell(1), [("A", 1.0), ("B", 0.5)]);
        assert_eq!(of_cell(2), [("A", 0.1)]);
        assert_eq!(of_cell(3), [("ctrl", 1.0)]);
        assert_eq!(of_cell(4), [("ctrl", 1.0), ("B", 3.0)]);
        assert_eq!(of_cell(5), [("B", 4.0)]);
        assert_eq!(found.labels.names.len(), names.len());
        for (wrong, part) in [
            ("", "the dose is missing, cell 1"),
            ("-1", "the dose is -1, cell 1"),
            ("1+high", "`high` is not a number, cell 1"),
            ("inf", "the dose is inf, cell 1"),
            ("1+2+3", "is 3 doses for `A`, `B`, cell 1"),
        ] {
            let mut doses = doses.clone();
            doses[1] = wrong.to_owned();
            let message = read(&doses).unwrap_err().to_string();
            assert!(message.contains(part), "{wrong}: {message}");
        }
        let numbers = Assignments::plain(levels(&["A", "B"]));
        let found = numbers.with_doses(Column::Numbers(vec![0.5, 1.0]), None, &[], |n| n.to_string()).unwrap();
        assert_eq!((shown(&found.parts[0]), shown(&found.parts[1])), (vec![("A", 0.5)], vec![("B", 1.0)]));
    }

    #[test]
    fn cells_with_the_same_row_share_a_level() {
        let names = ["A".to_owned(), "B".to_owned()];
        let rows = [Some(vec![(0, 1.0)]), None, Some(vec![]), Some(vec![(0, 1.0), (1, 2.0)]), Some(vec![(0, 1.0)])];
        let found = Assignments::from_rows(rows, &names);
        assert_eq!(found.labels.codes, [Some(0), None, Some(1), Some(2), Some(0)]);
        assert_eq!(found.labels.names, ["A", "", "A+B"]);
        assert_eq!(shown(&found.parts[2]), [("A", 1.0), ("B", 2.0)]);
    }
}
