//! Which genes of a file are used: those of a list, or the most variable ones.

use std::collections::BTreeMap;
use std::path::Path;

use crate::data::counts::ScreenCounts;
use crate::data::formats::column::Levels;
use crate::data::formats::labels::read_names;
use crate::data::loading::called::GeneNames;
use crate::data::loading::kept::CellFilter;
use crate::data::loading::select_genes::highly_variable;
use crate::data::names::without_version;
use crate::error::{InputError, Result};
use crate::words::first_few;

/// The new number of each gene that is used, and how many these are.
pub(crate) type GeneNumbers = (Vec<Option<u32>>, usize);

/// The new number of each gene that the file at `path` lists, by any of its names, and how many there are. Ensembl identifiers are
/// found with and without their versions.
pub(crate) fn listed_genes(path: &Path, genes: &GeneNames, notes: &mut Vec<String>) -> Result<GeneNumbers> {
    let listed = read_names(path)?;
    let gene_names = &genes.names;
    let mut wanted: BTreeMap<&str, bool> = listed.iter().map(|name| (name.as_str(), false)).collect();
    let mut of_bare: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    listed.iter().for_each(|name| of_bare.entry(without_version(name)).or_default().push(name));
    let mut n = 0;
    let mut gene_of = Vec::with_capacity(gene_names.len());
    for gene in 0..gene_names.len() {
        let mut found = false;
        for name in genes.all(gene) {
            for listed in of_bare.get(without_version(name)).into_iter().flatten() {
                // Two versions of one identifier are two.
                if *listed == name || without_version(listed) == *listed || without_version(name) == name {
                    wanted.insert(listed, true);
                    found = true;
                }
            }
        }
        gene_of.push(found.then_some(n));
        n += found as u32;
    }
    let missing: Vec<&str> = wanted.iter().filter(|(_, seen)| !**seen).map(|(name, _)| *name).collect();
    if n == 0 {
        let problem = format!("none of its {} genes ({}) is in the data", wanted.len(), first_few(&missing));
        let remedy = format!("write them as the data file does: {}", first_few(&gene_names[..gene_names.len().min(3)]));
        return Err(InputError::new(problem, remedy).in_file(path).into());
    }
    if !missing.is_empty() {
        notes.push(format!(
            "{} of {} listed genes are not in the data: {}",
            missing.len(),
            wanted.len(),
            first_few(&missing)
        ));
    }
    Ok((gene_of, n as usize))
}

/// Numbers of the genes among `n_genes` that have a new number.
pub(crate) fn numbered(gene_of: &[Option<u32>]) -> Vec<usize> {
    (0..gene_of.len()).filter(|&gene| gene_of[gene].is_some()).collect()
}

/// The `n_top` most variable genes over the cells that are used, within batches if each of these cells has one; `None` if
/// there are no more genes than that.
///
/// # Errors
/// Counts on disk that cannot be read.
pub(crate) fn variable_genes(
    counts: &ScreenCounts,
    cells: &mut CellFilter,
    batch: Option<&Levels>,
    n_top: usize,
) -> Result<Option<GeneNumbers>> {
    let n_genes = counts.n_genes();
    if n_top >= n_genes {
        return Ok(None);
    }
    let used: Vec<usize> = cells.cells().collect();
    let batch: Option<Vec<u32>> = batch.and_then(|levels| used.iter().map(|&n| levels.codes[n]).collect());
    let chosen = highly_variable(counts, &used, batch.as_deref(), n_top)?;
    let mut gene_of = vec![None; n_genes];
    chosen.iter().enumerate().for_each(|(new, &old)| gene_of[old] = Some(new as u32));
    cells.record("genes", n_genes - n_top, n_genes, format!("they are not among the {n_top} most variable"));
    Ok(Some((gene_of, n_top)))
}
