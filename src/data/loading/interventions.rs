//! Labels of cells become rows of doses over interventions.

use crate::data::dataset::InterventionRows;
use crate::data::formats::column::Levels;
use crate::data::loading::annotations::Annotations;
use crate::data::loading::options::LoadOptions;
use crate::data::loading::summary::LabelCount;
use crate::error::{InputError, Result};
use crate::words::{first_few, nearest};

/// Numbers of the levels that are controls.
pub(crate) fn control_levels(
    labels: &Levels,
    options: &LoadOptions,
    annotations: &Annotations,
    label_key: &str,
) -> Result<Vec<usize>> {
    let sizes = labels.sizes();
    let mut controls = Vec::new();
    for name in &options.control {
        match labels.names.iter().position(|level| level == name).filter(|&level| sizes[level] > 0) {
            Some(level) => controls.push(level),
            None => {
                let remedy = match nearest(name, labels.names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("the labels are {}", first_few(&labels.names)),
                };
                let error = InputError::new(format!("no cell has the label \"{name}\" that --control names"), remedy);
                return Err(annotations.error(label_key, error).into());
            }
        }
    }
    Ok(controls)
}

/// The interventions of a screen.
pub(crate) struct Interventions {
    /// Those of each cell.
    pub rows: InterventionRows,
    /// Levels of the labels that they are, in their order.
    pub levels: Vec<usize>,
    /// Cells of each.
    pub counts: Vec<LabelCount>,
    /// Cells of the labels that are controls.
    pub controls: Vec<LabelCount>,
}

impl Interventions {
    /// One intervention of dose 1 for each cell, as its label (a level of `codes` each) says; none where the label is one
    /// of `controls`, which are numbered no more.
    ///
    /// # Errors
    /// [`InputError`] if every label is a control, without file.
    pub fn from_labels(labels: &Levels, codes: &[u32], controls: &[String]) -> Result<Self, InputError> {
        let sizes = labels.sizes();
        let (controls, levels): (Vec<usize>, Vec<usize>) =
            (0..labels.names.len()).partition(|&level| controls.contains(&labels.names[level]));
        if levels.is_empty() {
            return Err(InputError::new("every labelled cell is a control", "name fewer labels with --control"));
        }
        let mut number = vec![None; labels.names.len()];
        levels.iter().enumerate().for_each(|(a, &level)| number[level] = Some(a as u32));
        let mut rows = InterventionRows::default();
        for &code in codes {
            match number[code as usize] {
                Some(a) => rows.push(&[(a, 1.0)]),
                None => rows.push(&[]),
            }
        }
        let count = |level: &usize| LabelCount { label: labels.names[*level].clone(), n_cells: sizes[*level] };
        let (counts, controls) = (levels.iter().map(count).collect(), controls.iter().map(count).collect());
        Ok(Self { rows, levels, counts, controls })
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.counts.iter().map(|count| count.label.clone()).collect()
    }
}
