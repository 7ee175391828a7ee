//! How the interventions of a file are best read: what separates them, which are controls, how many cells are under how many.

use std::collections::BTreeMap;

use crate::data::formats::column::{Column, Levels};
use crate::data::loading::assignments::Assignments;
use crate::data::loading::guards::is_usual_control;
use crate::data::loading::members::Members;
use crate::data::loading::separators::find_separator;
use crate::data::loading::summary::NumberCount;
use crate::error::Result;
use crate::words::first_few;

/// A way to read the interventions of a file.
pub(crate) struct SuggestedReading {
    /// What separates the interventions of a label.
    pub separator: Option<&'static str>,
    /// Members that are usually controls.
    pub controls: Vec<String>,
    /// Cells of each other member, by name.
    pub sizes: Vec<(String, usize)>,
    /// Interventions of each cell; none of those without a label.
    pub rows: Vec<Vec<(u32, f32)>>,
    /// Names of the members, by which `rows` are numbered.
    pub names: Vec<String>,
    /// Cells by the number of their interventions.
    pub cells_by_number: Vec<NumberCount>,
    /// Cells without a label.
    pub n_missing: usize,
}

impl SuggestedReading {
    /// Of labels, which are taken apart where that gives other labels.
    ///
    /// # Errors
    /// As [`Members::new`].
    pub fn of_labels(labels: &Levels) -> Result<Self> {
        let separator = find_separator(&labels.names, &labels.sizes(), &[]).map(|found| found.separator);
        let (names, codes) = (labels.names.clone(), labels.codes.clone());
        let labels = Levels { names, numbers: None, codes };
        let assigned = match separator {
            Some(separator) => Assignments::separated(labels, separator, &[])?,
            None => Assignments::plain(labels),
        };
        Self::of(&assigned, separator)
    }

    /// Of what each cell was given.
    ///
    /// # Errors
    /// As [`Members::new`].
    pub fn of(assigned: &Assignments, separator: Option<&'static str>) -> Result<Self> {
        let members = Members::new(assigned, None, &[])?;
        let sizes = members.sizes(&assigned.labels);
        let controls: Vec<u32> =
            (0..members.names.len() as u32).filter(|&a| is_usual_control(&members.names[a as usize])).collect();
        let acting = members.acting(&controls);
        let codes = &assigned.labels.codes;
        let mut by_number: BTreeMap<usize, usize> = BTreeMap::new();
        for code in codes.iter().flatten() {
            *by_number.entry(acting[*code as usize].len()).or_default() += 1;
        }
        let is_control = |a: &usize| controls.contains(&(*a as u32));
        let others = (0..sizes.len()).filter(|a| sizes[*a] > 0 && !is_control(a));
        Ok(Self {
            separator,
            controls: controls
                .iter()
                .filter(|a| sizes[**a as usize] > 0)
                .map(|&a| members.names[a as usize].clone())
                .collect(),
            sizes: others.map(|a| (members.names[a].clone(), sizes[a])).collect(),
            rows: codes.iter().map(|code| code.map_or_else(Vec::new, |code| acting[code as usize].clone())).collect(),
            cells_by_number: by_number
                .into_iter()
                .map(|(n_interventions, n_cells)| NumberCount { n_interventions, n_cells })
                .collect(),
            n_missing: codes.iter().filter(|code| code.is_none()).count(),
            names: members.names,
        })
    }

    /// Whether any cell is under several interventions.
    pub fn has_several(&self) -> bool {
        self.cells_by_number.iter().any(|of| of.n_interventions > 1)
    }

    /// A hint that interventions look like several guides of the same targets: half of them are numbered names that others share.
    pub fn look_like_guides(&self) -> Option<String> {
        let stem = |name: &str| -> Option<String> {
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            let bare = stem.trim_end_matches(['_', '-', '.']);
            (stem.len() < name.len() && bare.len() < stem.len() && !bare.is_empty()).then(|| bare.to_owned())
        };
        let mut by_stem: BTreeMap<String, Vec<&String>> = BTreeMap::new();
        for (name, _) in &self.sizes {
            if let Some(stem) = stem(name) {
                by_stem.entry(stem).or_default().push(name);
            }
        }
        let shared = || by_stem.values().filter(|names| names.len() > 1);
        let n_shared: usize = shared().map(Vec::len).sum();
        let names = shared().next().filter(|_| 2 * n_shared >= self.sizes.len())?;
        Some(format!(
            "interventions look like several guides of the same targets ({}); --guide-targets FILE, a table of guides and \
             targets, reads them as their targets",
            first_few(names)
        ))
    }
}

/// What several columns of 0 and 1 begin with, up to an underscore, if there are such among `columns`: those of most.
pub(crate) fn shared_beginning<'a>(columns: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for column in columns {
        if let Some(at) = column.find('_').filter(|at| at + 1 < column.len()) {
            *sizes.entry(&column[..=at]).or_default() += 1;
        }
    }
    let found = sizes.into_iter().filter(|(_, n)| *n > 1).max_by_key(|(_, n)| *n);
    found.map(|(beginning, _)| beginning.to_owned())
}

/// Whether a column holds 0 and 1, and both of them.
pub(crate) fn is_binary(column: &Column) -> bool {
    let both = |zero: bool, one: bool| zero && one;
    match column {
        Column::Flags(values) => both(values.contains(&false), values.contains(&true)),
        Column::Integers(values) => {
            values.iter().all(|x| [0, 1].contains(x)) && both(values.contains(&0), values.contains(&1))
        }
        Column::Numbers(values) => {
            values.iter().all(|x| [0.0, 1.0].contains(x)) && both(values.contains(&0.0), values.contains(&1.0))
        }
        Column::Strings(_) | Column::Categorical { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guides_of_one_target_are_told_from_numbered_genes() {
        let hint = |names: &[&str]| {
            let levels = Levels {
                names: names.iter().map(|name| name.to_string()).collect(),
                numbers: None,
                codes: (0..names.len() as u32).map(Some).collect(),
            };
            SuggestedReading::of_labels(&levels).unwrap().look_like_guides()
        };
        assert!(hint(&["NT_1", "STAT1_1", "STAT1_2", "JAK2_1", "JAK2_2"]).unwrap().contains("`JAK2_1`, `JAK2_2`"));
        assert_eq!(hint(&["STAT1", "STAT2", "JAK1", "JAK2"]), None);
        assert_eq!(hint(&["STAT1_1", "STAT1_2", "A", "B", "C", "D"]), None);
    }

    #[test]
    fn columns_share_what_most_of_them_begin_with() {
        let columns = ["guide_A", "guide_B", "is_low", "x", "guide_C", "is_high", "_"];
        assert_eq!(shared_beginning(columns.into_iter()).as_deref(), Some("guide_"));
        assert_eq!(shared_beginning(["a_b", "b_c"].into_iter()), None);
        assert!(is_binary(&Column::Integers(vec![0, 1, 1])) && !is_binary(&Column::Integers(vec![1, 1])));
        assert!(is_binary(&Column::Numbers(vec![0.0, 1.0])) && !is_binary(&Column::Numbers(vec![0.0, 1.0, f64::NAN])));
    }
}
