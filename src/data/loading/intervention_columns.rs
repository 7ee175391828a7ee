//! Columns with the dose of an intervention, or the counts of a guide, in each cell.

use crate::data::formats::column::{Column, is_missing};
use crate::data::formats::screen_file::CellMatrix;
use crate::data::loading::assignments::Assignments;
use crate::data::loading::guards::doubled;
use crate::error::InputError;
use crate::words::first_few;

/// Interventions of cells, collected column by column.
pub(crate) struct InterventionColumns {
    names: Vec<String>,
    /// Number and value of each column that is not zero, by cell.
    rows: Vec<Vec<(u32, f64)>>,
}

impl InterventionColumns {
    pub fn new(n_cells: usize) -> Self {
        Self { names: Vec::new(), rows: vec![Vec::new(); n_cells] }
    }

    /// Adds the intervention `name` with a value per cell, NaN where it is missing.
    ///
    /// # Errors
    /// [`InputError`] if there is another number of values than cells, or one that is no dose.
    pub fn add(&mut self, name: &str, values: &[f64]) -> Result<(), InputError> {
        if values.len() != self.rows.len() {
            let problem = format!("it has {} values for {} cells", values.len(), self.rows.len());
            return Err(InputError::new(problem, "give one value per cell"));
        }
        if let Some(n) = values.iter().position(|x| *x < 0.0 || x.is_infinite()) {
            let problem = format!("the value of cell number {n} is {}", values[n]);
            return Err(InputError::new(problem, "give 0 or 1, or a dose from 0 on"));
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        for (row, &value) in self.rows.iter_mut().zip(values).filter(|(_, value)| **value != 0.0) {
            row.push((number, value));
        }
        Ok(())
    }

    /// Adds the columns of a matrix with a row per cell.
    ///
    /// # Errors
    /// [`InputError`] if a value is no dose.
    pub fn add_matrix(&mut self, matrix: CellMatrix) -> Result<(), InputError> {
        for (n, row) in matrix.rows.iter().enumerate() {
            if let Some((a, value)) = row.iter().find(|(_, x)| *x < 0.0 || x.is_infinite()) {
                let problem = format!("the value of cell number {n} and `{}` is {value}", matrix.names[*a as usize]);
                return Err(InputError::new(problem, "give 0 or 1, or a dose from 0 on"));
            }
        }
        let first = self.names.len() as u32;
        self.names.extend(matrix.names);
        for (row, further) in self.rows.iter_mut().zip(matrix.rows) {
            row.extend(further.into_iter().map(|(a, value)| (first + a, value)));
        }
        Ok(())
    }

    /// # Errors
    /// [`InputError`] if two columns have the same name.
    pub fn check_names(&self) -> Result<(), InputError> {
        match &doubled(&self.names)[..] {
            [] => Ok(()),
            twice => {
                let names: Vec<&str> = twice.iter().map(|(name, _)| *name).collect();
                let problem = format!("several columns are the intervention {}", first_few(&names));
                Err(InputError::new(problem, "name each column once, with --intervention-columns"))
            }
        }
    }

    /// What each cell received: values are doses, or, if there is a `threshold`, counts that make a dose of 1 where they reach it.
    /// A cell with a missing value, or without any guide that reaches the threshold, is unlabelled.
    pub fn finish(self, threshold: Option<usize>) -> Assignments {
        let Self { names, rows } = self;
        let received = |row: Vec<(u32, f64)>| -> Option<Vec<(u32, f32)>> {
            match threshold {
                None if row.iter().any(|(_, value)| value.is_nan()) => None,
                None => Some(row.into_iter().map(|(a, value)| (a, value as f32)).collect()),
                Some(least) => {
                    let called: Vec<(u32, f32)> =
                        row.into_iter().filter(|(_, n)| *n >= least as f64).map(|(a, _)| (a, 1.0)).collect();
                    (!called.is_empty()).then_some(called)
                }
            }
        };
        Assignments::from_rows(rows.into_iter().map(received), &names)
    }
}

/// The numbers of a column, flags among them.
///
/// # Errors
/// [`InputError`] if it holds anything else.
pub(crate) fn doses_in(column: Column) -> Result<Vec<f64>, InputError> {
    let flag = |text: &str| match text {
        text if is_missing(text) => Some(f64::NAN),
        "True" | "true" | "TRUE" => Some(1.0),
        "False" | "false" | "FALSE" => Some(0.0),
        text => text.parse().ok(),
    };
    let not_numbers =
        || InputError::new("it holds categories or text, not numbers", "name columns of 0 and 1, or of doses");
    match column {
        Column::Strings(texts) => texts.iter().map(|text| flag(text)).collect::<Option<_>>().ok_or_else(not_numbers),
        Column::Categorical { levels, codes, .. } => {
            let values: Vec<f64> =
                levels.iter().map(|level| flag(level)).collect::<Option<_>>().ok_or_else(not_numbers)?;
            let value = |code: i64| usize::try_from(code).ok().and_then(|code| values.get(code)).copied();
            Ok(codes.into_iter().map(|code| value(code).unwrap_or(f64::NAN)).collect())
        }
        other => other.into_numbers(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doses_and_counts_of_guides() {
        let build = || {
            let mut columns = InterventionColumns::new(4);
            columns.add("A", &[1.0, 0.0, 0.0, f64::NAN]).unwrap();
            let rows = vec![vec![(0, 5.0)], vec![(1, 4.0)], vec![], vec![]];
            columns.add_matrix(CellMatrix { names: vec!["B".into(), "C".into()], rows }).unwrap();
            columns
        };
        let shown = |found: &Assignments| -> Vec<Option<Vec<(String, f32)>>> {
            found.labels.codes.iter().map(|code| code.map(|code| found.parts[code as usize].clone())).collect()
        };
        let part = |name: &str, dose: f32| (name.to_owned(), dose);
        let doses = build().finish(None);
        assert_eq!(
            shown(&doses),
            [Some(vec![part("A", 1.0), part("B", 5.0)]), Some(vec![part("C", 4.0)]), Some(vec![]), None]
        );
        let called = build().finish(Some(5));
        assert_eq!(shown(&called), [Some(vec![part("B", 1.0)]), None, None, None]);
        let mut twice = build();
        assert!(twice.check_names().is_ok());
        twice.add("B", &[0.0; 4]).unwrap();
        assert!(twice.check_names().unwrap_err().to_string().contains("`B`"));
        assert!(twice.add("D", &[0.0, -1.0, 0.0, 0.0]).unwrap_err().to_string().contains("cell number 1 is -1"));
        assert!(twice.add("D", &[0.0]).unwrap_err().to_string().contains("1 values for 4 cells"));
    }

    #[test]
    fn flags_and_numbers_are_doses_and_text_is_not() {
        let texts = |values: &[&str]| Column::Strings(values.iter().map(|text| text.to_string()).collect());
        assert_eq!(doses_in(texts(&["True", "False", "0.5"])).unwrap(), [1.0, 0.0, 0.5]);
        assert!(doses_in(texts(&["A", "1"])).is_err());
        let levels = vec!["0".to_owned(), "1".to_owned()];
        let column = Column::Categorical { levels, numbers: None, codes: vec![1, -1, 0] };
        let found = doses_in(column).unwrap();
        assert!(found[0] == 1.0 && found[1].is_nan() && found[2] == 0.0);
    }
}
