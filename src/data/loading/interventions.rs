//! Sets of interventions become rows of doses over those that any cell received.

use crate::data::combinations::CONTROL;
use crate::data::dataset::InterventionRows;
use crate::data::formats::column::Levels;
use crate::data::loading::members::Members;
use crate::data::loading::summary::LabelCount;
use crate::error::InputError;

/// The interventions of a screen.
pub(crate) struct Interventions {
    /// Those of each cell.
    pub rows: InterventionRows,
    /// Members of the labels that they are, in their order.
    pub members: Vec<usize>,
    /// Cells of each.
    pub counts: Vec<LabelCount>,
    /// Cells of each control on which no intervention acts.
    pub controls: Vec<LabelCount>,
}

impl Interventions {
    /// Those of each cell, as its label (a level of `codes` each) says, without `controls`, which are numbered no more.
    ///
    /// # Errors
    /// [`InputError`] if no label has any, without file.
    pub fn new(labels: &Levels, codes: &[u32], members: &Members, controls: &[u32]) -> Result<Self, InputError> {
        let sizes = labels.sizes();
        let acting = members.acting(controls);
        // Cells of each member, and those of them on which nothing acts.
        let (mut carried, mut idle) = (vec![0; members.names.len()], vec![0; members.names.len()]);
        let mut n_bare = 0;
        for ((all, acting), &size) in members.of.iter().zip(&acting).zip(&sizes) {
            all.iter().for_each(|&(a, _)| carried[a as usize] += size);
            match (&all[..], &acting[..]) {
                ([], _) => n_bare += size,
                (_, []) => all.iter().for_each(|&(a, _)| idle[a as usize] += size),
                _ => {}
            }
        }
        let is_control = |a: &usize| controls.contains(&(*a as u32));
        let acting_members: Vec<usize> = (0..carried.len()).filter(|a| carried[*a] > 0 && !is_control(a)).collect();
        if acting_members.is_empty() {
            return Err(InputError::new("every labelled cell is a control", "name fewer labels with --control"));
        }
        let mut number = vec![0; carried.len()];
        acting_members.iter().enumerate().for_each(|(new, &a)| number[a] = new as u32);
        let of_level: Vec<Vec<(u32, f32)>> =
            acting.iter().map(|set| set.iter().map(|&(a, dose)| (number[a as usize], dose)).collect()).collect();
        let mut rows = InterventionRows::default();
        codes.iter().for_each(|&code| rows.push(&of_level[code as usize]));
        let count = |a: &usize, sizes: &[usize]| LabelCount { label: members.names[*a].clone(), n_cells: sizes[*a] };
        let counts = acting_members.iter().map(|a| count(a, &carried)).collect();
        let mut controls: Vec<LabelCount> =
            (0..carried.len()).filter(|a| is_control(a) && idle[*a] > 0).map(|a| count(&a, &idle)).collect();
        if n_bare > 0 {
            controls.push(LabelCount { label: CONTROL.to_owned(), n_cells: n_bare });
        }
        Ok(Self { rows, members: acting_members, counts, controls })
    }

    /// Names of the interventions.
    pub fn names(&self) -> Vec<String> {
        self.counts.iter().map(|count| count.label.clone()).collect()
    }
}
