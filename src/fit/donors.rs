//! The training cells whose size factors and covariates simulated cells take.

use std::collections::HashSet;
use std::path::Path;

use crate::data::combinations::members_in;
use crate::data::dataset::{Covariates, Dataset};
use crate::data::screen::Screen;
use crate::error::{InputError, Result};
use crate::evaluation::interpretation::Subset;
use crate::fit::trained_on::TrainedOn;
use crate::results::cells::each_cell;

/// The training cells whose size factors and covariates simulated cells take.
pub(crate) struct Donors {
    /// Numbers of the training cells.
    pub(crate) cells: Vec<usize>,
    size_factor: Vec<f64>,
    /// Levels of each categorical covariate.
    codes: Vec<Vec<u32>>,
    /// Values of each continuous covariate.
    values: Vec<Vec<f64>>,
    /// Whether each intervention of the model was trained on.
    pub(crate) trained: Vec<bool>,
}

impl Donors {
    /// Those of a screen.
    pub(crate) fn of(screen: &Screen) -> Self {
        let Screen { data, split, .. } = screen;
        let Covariates { categorical, continuous } = &data.covariates;
        Self {
            cells: split.train.iter().copied().filter(|&n| data.library[n] > 0.0).collect(),
            size_factor: data.library.clone(),
            codes: categorical.iter().map(|column| column.codes.clone()).collect(),
            values: continuous.iter().map(|column| column.values.clone()).collect(),
            trained: split.trained.clone(),
        }
    }

    /// Those in the `cells.csv` of a results folder.
    ///
    /// # Errors
    /// [`InputError`] for a table that is damaged or of another model.
    pub(crate) fn read(path: &Path, model: &TrainedOn) -> Result<Self> {
        let remedy = "repeat the run with `svae-cpu run` on the folder's config.toml";
        let damaged = |problem: &str| InputError::new(problem, remedy).in_file(path);
        let (n_categorical, n_continuous) = (model.categorical.len(), model.continuous.len());
        let n_covariates = n_categorical + n_continuous;
        let mut donors = Self {
            cells: Vec::new(),
            size_factor: Vec::new(),
            codes: vec![Vec::new(); n_categorical],
            values: vec![Vec::new(); n_continuous],
            trained: Vec::new(),
        };
        let mut labels: HashSet<String> = HashSet::new();
        let finite = |cell: usize, value: f64| match value.is_finite() {
            true => Ok(value),
            false => Err(damaged("it holds no number where one belongs").at(format!("row {}", cell + 2))),
        };
        each_cell(path, |row| {
            if row.covariate(n_covariates).is_some() || (n_covariates > 0 && row.covariate(n_covariates - 1).is_none())
            {
                return Err(damaged("it has other columns than the model's covariates ask for").into());
            }
            let factor = finite(row.cell, row.size_factor()?)?;
            if row.is_in(Subset::Train) && factor > 0.0 {
                donors.cells.push(row.cell);
            }
            if !row.is_in(Subset::HeldOut) && !labels.contains(row.intervention()) {
                labels.insert(row.intervention().to_owned());
            }
            donors.size_factor.push(factor);
            for (i, (codes, (_, levels))) in donors.codes.iter_mut().zip(&model.categorical).enumerate() {
                let level = row.covariate(i).unwrap_or_default();
                let code = levels.iter().position(|known| known == level);
                codes.push(code.ok_or_else(|| damaged(&format!("the model knows no level `{level}`")))? as u32);
            }
            for (i, values) in donors.values.iter_mut().enumerate() {
                values.push(finite(row.cell, row.covariate_value(n_categorical + i)?)?);
            }
            Ok(())
        })?;
        donors.trained = members_in(labels.iter().map(String::as_str), &model.interventions);
        if donors.cells.is_empty() {
            return Err(damaged("it holds no training cell").into());
        }
        Ok(donors)
    }

    /// Gives the covariates of the cell `donor`, and its size factor unless there is another one for all, to the cell `n`
    /// of `data`.
    pub(crate) fn give(&self, donor: usize, size_factor: Option<f64>, data: &mut Dataset, n: usize) {
        data.library[n] = size_factor.unwrap_or(self.size_factor[donor]);
        for (column, codes) in data.covariates.categorical.iter_mut().zip(&self.codes) {
            column.codes[n] = codes[donor];
        }
        for (column, values) in data.covariates.continuous.iter_mut().zip(&self.values) {
            column.values[n] = values[donor];
        }
    }
}
