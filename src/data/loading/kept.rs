//! Which cells of a file are used, and why the others are not.

use std::path::Path;

use crate::data::formats::column::Levels;
use crate::data::formats::counts_sink::cell_place;
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

    /// Leaves out the cells of interventions that have fewer than `least` of those still kept; controls stay.
    ///
    /// # Errors
    /// [`InputError`] if none is left, without file.
    pub fn drop_rare_labels(&mut self, labels: &Levels, controls: &[usize], least: usize) -> Result<(), InputError> {
        if least <= 1 {
            return Ok(());
        }
        let mut sizes = vec![0; labels.names.len()];
        self.cells().filter_map(|n| labels.codes[n]).for_each(|code| sizes[code as usize] += 1);
        let rare: Vec<bool> = sizes
            .iter()
            .enumerate()
            .map(|(level, &size)| size > 0 && size < least && !controls.contains(&level))
            .collect();
        let n_rare = rare.iter().filter(|rare| **rare).count();
        let n_levels = sizes.iter().filter(|size| **size > 0).count();
        self.record("interventions", n_rare, n_levels, format!("they have fewer than {least} cells"));
        let reason = format!("their intervention has fewer than {least} cells");
        self.retain(|n| !labels.codes[n].is_some_and(|code| rare[code as usize]), reason);
        match self.is_empty() {
            true => {
                let problem = format!("no intervention has {least} cells or more");
                Err(InputError::new(problem, "choose a smaller --min-cells-per-label"))
            }
            false => Ok(()),
        }
    }
}
