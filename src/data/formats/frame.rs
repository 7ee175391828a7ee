//! Tables that are copied from an input to the results: the names of their rows, and columns of every type that AnnData knows.

use std::collections::HashMap;

use crate::data::formats::column::{Column, is_missing};
use crate::data::names::Names;

/// The type in which numbers are stored, where it is another than that of most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberWidth {
    /// Whole numbers of one byte.
    I8,
    /// Whole numbers of two bytes.
    I16,
    /// Whole numbers of four bytes.
    I32,
    /// Whole numbers of one byte that are not negative.
    U8,
    /// Whole numbers of two bytes that are not negative.
    U16,
    /// Whole numbers of four bytes that are not negative.
    U32,
    /// Whole numbers of eight bytes that are not negative.
    U64,
    /// Single precision.
    F32,
}

/// A column of `obs` or `var`.
#[derive(Debug, Clone, PartialEq)]
pub enum FrameColumn {
    /// Levels and the level of each row, -1 where missing.
    Categorical(Vec<String>, Vec<i64>),
    /// Levels of any type, the level of each row (-1 where missing), and whether the levels are ordered.
    Levels(Box<FrameColumn>, Vec<i64>, bool),
    /// Text.
    Strings(Vec<String>),
    /// Whole numbers.
    Integers(Vec<i64>),
    /// Numbers.
    Numbers(Vec<f64>),
    /// Truth values.
    Flags(Vec<bool>),
    /// Whole numbers or numbers that are stored in another type than eight bytes with a sign.
    Stored(NumberWidth, Box<FrameColumn>),
    /// Values, and whether each is missing.
    Nullable(Box<FrameColumn>, Vec<bool>),
}

impl FrameColumn {
    /// Number of rows.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            FrameColumn::Categorical(_, codes) | FrameColumn::Levels(_, codes, _) => codes.len(),
            FrameColumn::Strings(values) => values.len(),
            FrameColumn::Integers(values) => values.len(),
            FrameColumn::Numbers(values) => values.len(),
            FrameColumn::Flags(values) => values.len(),
            FrameColumn::Stored(_, values) | FrameColumn::Nullable(values, _) => values.len(),
        }
    }

    /// The rows `rows` of the column, in that order.
    pub fn select(&self, rows: &[usize]) -> Self {
        fn pick<T: Clone>(values: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().map(|&n| values[n].clone()).collect()
        }
        match self {
            FrameColumn::Categorical(levels, codes) => FrameColumn::Categorical(levels.clone(), pick(codes, rows)),
            FrameColumn::Levels(levels, codes, ordered) => {
                FrameColumn::Levels(levels.clone(), pick(codes, rows), *ordered)
            }
            FrameColumn::Strings(values) => FrameColumn::Strings(pick(values, rows)),
            FrameColumn::Integers(values) => FrameColumn::Integers(pick(values, rows)),
            FrameColumn::Numbers(values) => FrameColumn::Numbers(pick(values, rows)),
            FrameColumn::Flags(values) => FrameColumn::Flags(pick(values, rows)),
            FrameColumn::Stored(width, values) => FrameColumn::Stored(*width, Box::new(values.select(rows))),
            FrameColumn::Nullable(values, missing) => {
                FrameColumn::Nullable(Box::new(values.select(rows)), pick(missing, rows))
            }
        }
    }

    /// A column of a file that has no types of its own, such as a table of labels: text becomes categories, in which what stands
    /// for a missing value is missing.
    pub(crate) fn of(column: Column) -> Self {
        match column {
            Column::Categorical { levels, codes, .. } => {
                let known = |code: i64| if (0..levels.len() as i64).contains(&code) { code } else { -1 };
                let codes = codes.into_iter().map(known).collect();
                FrameColumn::Categorical(levels, codes)
            }
            Column::Strings(values) => {
                categories(values.iter().map(|text| (!is_missing(text)).then_some(text.as_str())))
            }
            Column::Integers(values) => FrameColumn::Integers(values),
            Column::Numbers(values) => FrameColumn::Numbers(values),
            Column::Flags(values) => FrameColumn::Flags(values),
        }
    }
}

/// A table: its rows and its columns, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// What its index is called, if it has a name.
    pub index: Option<String>,
    /// Names of the rows.
    pub names: Names,
    /// Columns by name.
    pub columns: Vec<(String, FrameColumn)>,
}

/// Names as a categorical column, levels in alphabetical order; `None` is missing.
pub(crate) fn categories<S: AsRef<str>>(values: impl Iterator<Item = Option<S>>) -> FrameColumn {
    let mut numbers: HashMap<String, i64> = HashMap::new();
    // By order of appearance first: so no name is held for every row.
    let number = |value: Option<S>| {
        let Some(value) = value else { return -1 };
        match numbers.get(value.as_ref()) {
            Some(&number) => number,
            None => {
                let number = numbers.len() as i64;
                numbers.insert(value.as_ref().to_owned(), number);
                number
            }
        }
    };
    let mut codes: Vec<i64> = values.map(number).collect();
    let mut levels: Vec<(String, i64)> = numbers.into_iter().collect();
    levels.sort_unstable();
    let mut sorted = vec![0; levels.len()];
    levels.iter().enumerate().for_each(|(place, &(_, number))| sorted[number as usize] = place as i64);
    codes.iter_mut().filter(|code| **code >= 0).for_each(|code| *code = sorted[*code as usize]);
    FrameColumn::Categorical(levels.into_iter().map(|(name, _)| name).collect(), codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_sorted_and_codes_follow() {
        let column = categories([Some("b"), Some("a"), None, Some("b")].into_iter());
        assert_eq!(column, FrameColumn::Categorical(vec!["a".into(), "b".into()], vec![1, 0, -1, 1]));
        let texts = ["b", "NA", "a"].map(str::to_owned).to_vec();
        let column = FrameColumn::of(Column::Strings(texts));
        assert_eq!(column, FrameColumn::Categorical(vec!["a".into(), "b".into()], vec![1, -1, 0]));
    }

    #[test]
    fn rows_are_selected_whatever_the_type() {
        let whole = || Box::new(FrameColumn::Integers(vec![3, 4, 5]));
        for (column, wanted) in [
            (FrameColumn::Levels(whole(), vec![2, -1, 0], true), FrameColumn::Levels(whole(), vec![0, -1], true)),
            (
                FrameColumn::Stored(NumberWidth::U8, whole()),
                FrameColumn::Stored(NumberWidth::U8, Box::new(FrameColumn::Integers(vec![5, 4]))),
            ),
            (
                FrameColumn::Nullable(whole(), vec![false, true, false]),
                FrameColumn::Nullable(Box::new(FrameColumn::Integers(vec![5, 4])), vec![false, true]),
            ),
        ] {
            assert_eq!(column.len(), 3);
            assert_eq!(column.select(&[2, 1]), wanted);
        }
    }
}
