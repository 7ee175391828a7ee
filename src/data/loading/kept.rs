//! Which cells of a file are used, and why the others are not.

use std::path::Path;

use crate::data::formats::column::Levels;
use crate::data::formats::counts_sink::cell_place;
use crate::data::loading::members::Members;
use crate::data::loading::summary::Dropped;
use crate::data::names::Names;
use crate::error::{InputError, Result};

/// The cells that are still used, and why others are not.
pub(crate) struct CellFilter<'a> {
    /// The file, and the names of its cells.
    file: &'a Path,
    names: &'a Names,
    /// Whether each cell of the file is.
    stays: Vec<bool>,
    pub n_cells: usize,
    pub dropped: Vec<Dropped>,
    pub notes: Vec<String>,
}

impl<'a> CellFilter<'a> {
    /// All cells of a file.
    pub fn all(file: &'a Path, names: &'a Names) -> Self {
        let n_cells = names.len();
        Self { file, names, stays: vec![true; n_cells], n_cells, dropped: Vec::new(), notes: Vec::new() }
    }

    /// Leaves out the cells for which `stays` is false.
    pub fn retain(&mut self, stays: impl Fn(usize) -> bool, reason: impl Into<String>) {
        let before = self.n_cells;
        for (n, kept) in self.stays.iter_mut().enumerate().filter(|(_, kept)| **kept) {
            *kept = stays(n);
            self.n_cells -= usize::from(!*kept);
        }
        self.record("cells", before - self.n_cells, before, reason);
    }

    /// Numbers of the cells in the file, ascending.
    pub fn cells(&self) -> impl Iterator<Item = usize> {
        self.stays.iter().enumerate().filter(|(_, kept)| **kept).map(|(n, _)| n)
    }

    /// Whether no cell is left.
    pub fn is_empty(&self) -> bool {
        self.n_cells == 0
    }

    /// Whether no cell is left out.
    pub fn are_all(&self) -> bool {
        self.n_cells == self.stays.len()
    }

    /// Writes down that `n` of `of` cells, genes or interventions are left out.
    pub fn record(&mut self, what: &'static str, n: usize, of: usize, reason: impl Into<String>) {
        if n > 0 {
            let dropped = Dropped { what, n, reason: reason.into() };
            let of = if what == "cells" { self.stays.len() } else { of };
            self.notes.push(dropped.sentence(of));
            self.dropped.push(dropped);
        }
    }

    /// The cell of number `n` in the file, in words.
    pub fn place(&self, n: usize) -> String {
        cell_place(n, self.names)
    }

    /// Leaves out the cells whose total count is below `least`.
    ///
    /// # Errors
    /// [`InputError`] if none is left.
    pub fn drop_small(&mut self, totals: &[u64], least: u64) -> Result<()> {
        if least == 0 {
            return Ok(());
        }
        self.retain(|n| totals[n] >= least, format!("their total count is below {least}"));
        match self.is_empty() {
            true => {
                let problem = format!("no cell has {least} counts or more");
                Err(InputError::new(problem, "choose a smaller --min-counts").in_file(self.file).into())
            }
            false => Ok(()),
        }
    }

    /// Leaves out the cells whose total count is 0, if that is `allowed`; `of_genes` says over which genes, in words.
    ///
    /// # Errors
    /// [`InputError`] if it is not and there are such cells, or if there are no others.
    pub fn drop_empty(&mut self, total: impl Fn(usize) -> u64, allowed: bool, of_genes: &str) -> Result<()> {
        let n_empty = self.cells().filter(|&n| total(n) == 0).count();
        if n_empty == self.n_cells {
            return Err(InputError::new(format!("no cell has any count{of_genes}"), "check the matrix")
                .in_file(self.file)
                .into());
        }
        if n_empty > 0 && !allowed {
            let n_cells = self.stays.len();
            let first = self.cells().find(|&n| total(n) == 0).expect("some cell is empty");
            return Err(InputError::new(
                format!("{n_empty} of {n_cells} cells have no counts{of_genes} at all, the first is this one"),
                "leave them out with --drop-empty-cells, or filter the file",
            )
            .in_file(self.file)
            .at(self.place(first))
            .into());
        }
        self.retain(|n| total(n) > 0, format!("they have no counts{of_genes}"));
        Ok(())
    }

    /// Leaves out the cells with several of the interventions of `acting`, which has those of each level.
    ///
    /// # Errors
    /// [`InputError`] if no cell is left, without file.
    pub fn drop_several(&mut self, labels: &Levels, acting: &[Vec<(u32, f32)>]) -> Result<(), InputError> {
        let several = |n: usize| labels.codes[n].is_some_and(|code| acting[code as usize].len() > 1);
        self.retain(|n| !several(n), "they are under several interventions");
        match self.is_empty() {
            true => {
                let remedy = "keep them with --several-interventions keep";
                Err(InputError::new("every cell is under several interventions", remedy))
            }
            false => Ok(()),
        }
    }

    /// Leaves out the cells of interventions that have fewer than `least` of those still kept; controls stay.
    ///
    /// # Errors
    /// [`InputError`] if none is left, without file.
    pub fn drop_rare_labels(
        &mut self,
        labels: &Levels,
        members: &Members,
        controls: &[u32],
        least: usize,
    ) -> Result<(), InputError> {
        if least <= 1 {
            return Ok(());
        }
        let mut is_rare = vec![false; members.names.len()];
        let mut n_before = None;
        // Cells under several interventions go with the rare ones, which may make others rare.
        let none_left = loop {
            let mut sizes = vec![0; members.names.len()];
            let of_cell = |n: usize| labels.codes[n].map(|code| &members.of[code as usize]);
            let kept = |set: &Vec<(u32, f32)>| !set.iter().any(|&(a, _)| is_rare[a as usize]);
            let sets = self.cells().filter_map(of_cell).filter(|set| kept(set));
            sets.flatten().for_each(|&(a, _)| sizes[a as usize] += 1);
            n_before.get_or_insert(sizes.iter().filter(|size| **size > 0).count());
            let rare = |a: &usize| (1..least).contains(&sizes[*a]) && !controls.contains(&(*a as u32));
            let found: Vec<usize> = (0..sizes.len()).filter(rare).collect();
            if found.is_empty() {
                break (0..sizes.len()).all(|a| sizes[a] == 0 || controls.contains(&(a as u32)));
            }
            found.into_iter().for_each(|a| is_rare[a] = true);
        };
        let n_rare = is_rare.iter().filter(|rare| **rare).count();
        let n_before = n_before.unwrap_or_default();
        self.record("interventions", n_rare, n_before, format!("they have fewer than {least} cells"));
        let reason = format!("their intervention has fewer than {least} cells");
        let has_rare = |code: u32| members.of[code as usize].iter().any(|&(a, _)| is_rare[a as usize]);
        self.retain(|n| !labels.codes[n].is_some_and(has_rare), reason);
        match self.is_empty() || none_left {
            true => {
                let problem = format!("no intervention has {least} cells or more");
                Err(InputError::new(problem, "choose a smaller --min-cells-per-label"))
            }
            false => Ok(()),
        }
    }
}
