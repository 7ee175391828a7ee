//! What gives the label of a cell away, or follows it: genes that are guides, depth, covariates.

use std::collections::BTreeMap;

use crate::data::counts::ScreenCounts;
use crate::data::dataset::{Continuous, Dataset, InterventionRows};
use crate::error::{InputError, Result};
use crate::words::{first_few, percent};

/// Share of a gene's counts in the cells of one intervention from which on it gives these away.
const NEARLY_ALL: f64 = 0.9;
/// Cells of an intervention, as a share of all, up to which that says anything.
const MOST_CELLS: f64 = 0.5;
/// Counts of a gene below which little is known of it, and the share of the intervention's cells that have any.
const FEWEST_COUNTS: u64 = 20;
const FEWEST_CELLS: f64 = 0.2;
/// Counts of a gene in one cell beyond which more say nothing more: a few cells are no intervention.
const MOST_OF_A_CELL: u32 = 10;
/// Share of the variance of log size factors between labels from which on depth follows them.
const DEPTH: f64 = 0.25;
/// ... and of a covariate.
const COVARIATE: f64 = 0.5;

/// A warning that names genes whose counts are nearly all in the cells of one intervention (or of the controls), unless they are the
/// target of that intervention, by its name: guides among the genes do that.
///
/// # Errors
/// Counts on disk that cannot be read.
pub(crate) fn telling_genes(data: &Dataset) -> Result<Option<String>> {
    let control = data.n_interventions();
    let groups = |n: usize| -> Vec<usize> {
        match data.interventions.row(n).0 {
            [] => vec![control],
            members => members.iter().map(|&a| a as usize).collect(),
        }
    };
    let mut cells = vec![0_usize; control + 1];
    (0..data.n_cells()).for_each(|n| groups(n).into_iter().for_each(|group| cells[group] += 1));
    if cells.iter().filter(|n| **n > 0).count() < 2 {
        return Ok(None);
    }
    let candidates = majorities(&data.counts, groups)?;
    // Of each gene: all counts, those in its candidate, cells of the candidate that have any.
    let mut found = vec![(0_u64, 0_u64, 0_usize); data.n_genes()];
    let all: Vec<usize> = (0..data.n_cells()).collect();
    data.counts.visit(&all, |n, row| {
        let groups = groups(n);
        row.for_each(|g, x| {
            let (total, inside, n_inside) = &mut found[g];
            let x = u64::from(x.min(MOST_OF_A_CELL));
            *total += x;
            if groups.contains(&candidates[g]) {
                *inside += x;
                *n_inside += 1;
            }
        });
    })?;
    let tells = |g: &usize| {
        let ((total, inside, n_inside), group) = (found[*g], candidates[*g]);
        let n = cells[group];
        let own = group < control && is_target(&data.gene_names[*g], &data.intervention_names[group]);
        !own && total >= FEWEST_COUNTS
            && inside as f64 >= NEARLY_ALL * total as f64
            && n as f64 <= MOST_CELLS * data.n_cells() as f64
            && n_inside as f64 >= FEWEST_CELLS * n as f64
    };
    let names: Vec<&String> = (0..data.n_genes()).filter(tells).map(|g| &data.gene_names[g]).collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "{} genes have nearly all of their counts in the cells of one intervention and tell it by that ({}); leave them out \
             (--genes) if they are guides or reporters: latents would follow the label",
            names.len(),
            first_few(&names)
        )
    }))
}

/// Whether a gene is what an intervention is called after.
fn is_target(gene: &str, intervention: &str) -> bool {
    intervention.eq_ignore_ascii_case(gene)
        || intervention
            .split(['_', '-', '+', '|', ' ', '.', ':', ';', ','])
            .next()
            .is_some_and(|first| first.eq_ignore_ascii_case(gene))
}

/// The group of cells that has most counts of each gene, if any has more than half of them.
fn majorities(counts: &ScreenCounts, groups: impl Fn(usize) -> Vec<usize>) -> Result<Vec<usize>> {
    // By votes that cancel each other: no more is held than a candidate of each gene.
    let mut votes = vec![(0_usize, 0_u64); counts.n_genes()];
    let all: Vec<usize> = (0..counts.n_cells()).collect();
    counts.visit(&all, |n, row| {
        let groups = groups(n);
        row.for_each(|g, x| {
            for &group in &groups {
                let (candidate, lead) = &mut votes[g];
                let x = u64::from(x.min(MOST_OF_A_CELL));
                if *candidate == group {
                    *lead += x;
                } else if *lead >= x {
                    *lead -= x;
                } else {
                    (*candidate, *lead) = (group, x - *lead);
                }
            }
        });
    })?;
    Ok(votes.into_iter().map(|(candidate, _)| candidate).collect())
}

/// Share of the variance of `values` that lies between the labels of the cells, less what chance gives; 0 if nothing varies.
fn explained(values: &[f64], labels: &[usize]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let mut groups: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (value, label) in values.iter().zip(labels) {
        let (sum, size) = groups.entry(*label).or_default();
        *sum += value - mean;
        *size += 1.0;
    }
    let total: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let between: f64 = groups.values().map(|(sum, size)| sum * sum / size).sum();
    let (n_groups, scale) = (groups.len() as f64, mean.abs().max(1.0));
    if groups.len() < 2 || n <= n_groups || total <= n * (1e-9 * scale).powi(2) {
        return 0.0;
    }
    1.0 - (total - between).max(0.0) / total * (n - 1.0) / (n - n_groups)
}

/// The set of interventions of each cell, by number.
fn label_numbers(rows: &InterventionRows) -> Vec<usize> {
    let mut numbers: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
    let mut number = |n: usize| {
        let next = numbers.len();
        *numbers.entry(rows.row(n).0.to_vec()).or_insert(next)
    };
    (0..rows.n_cells()).map(&mut number).collect()
}

/// A warning where labels explain much of the size factors.
pub(crate) fn depth_by_label(data: &Dataset) -> Option<String> {
    let depth: Vec<f64> = data.library.iter().map(|size| size.ln()).collect();
    let share = explained(&depth, &label_numbers(&data.interventions));
    (share >= DEPTH).then(|| {
        format!(
            "labels explain {} of the variance of log size factors: cells of some interventions are sequenced deeper, or larger, than \
             others, and effects may be of depth; compare batches, or leave out small cells with --min-counts",
            percent(share)
        )
    })
}

/// Checks that a continuous covariate and the interventions can be told apart; a warning if the labels explain much of it.
///
/// # Errors
/// [`InputError`] if it has one value for all cells of a label, and different ones for different labels.
pub(crate) fn covariate_by_label(
    covariate: &Continuous,
    interventions: &InterventionRows,
) -> Result<Option<String>, InputError> {
    let labels = label_numbers(interventions);
    let mut value_of: BTreeMap<usize, f64> = BTreeMap::new();
    let constant =
        labels.iter().zip(&covariate.values).all(|(label, value)| *value_of.entry(*label).or_insert(*value) == *value);
    let first = covariate.values.first();
    let varies = covariate.values.iter().any(|value| Some(value) != first);
    if constant && varies && labels.len() > value_of.len() {
        return Err(InputError::new(
            "all cells of an intervention have the same value, and those of others have others: the decoder would see the answer",
            "leave this covariate out",
        ));
    }
    let share = explained(&covariate.values, &labels);
    Ok((share >= COVARIATE).then(|| {
        format!(
            "the covariate `{}` follows the labels, which explain {} of its variance: effects of interventions may be taken for \
             its own",
            covariate.name,
            percent(share)
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::counts::in_memory::Counts;
    use crate::data::dataset::five_genes;

    /// 40 cells: half of them controls, the others under one of two interventions; the first genes are guides of these.
    fn screen() -> Dataset {
        let label = |n: usize| match n % 4 {
            0 | 1 => None,
            2 => Some(0),
            _ => Some(1),
        };
        let mut interventions = InterventionRows::default();
        (0..40).for_each(|n| match label(n) {
            None => interventions.push(&[]),
            Some(a) => interventions.push(&[(a, 1.0)]),
        });
        let table: Vec<u32> = (0..40_usize)
            .flat_map(|n| {
                let of = |a: u32, x: u32| if label(n) == Some(a) { x } else { 0 };
                [of(0, 5), of(1, 4) + u32::from(n == 0), of(1, 9), 3 + n as u32 % 7, 2]
            })
            .collect();
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        Dataset {
            counts: Counts::from_dense(5, &table).into(),
            interventions,
            intervention_names: names(&["KLF1_g1", "STAT1"]),
            gene_names: names(&["guide_1", "guide_2", "STAT1", "GAPDH", "ACTB"]),
            library: table.chunks(5).map(|row| row.iter().sum::<u32>() as f64).collect(),
            cell_names: (0..40).map(|n| n.to_string()).collect(),
            ..five_genes()
        }
    }

    #[test]
    fn genes_that_tell_the_label_are_named_but_for_targets() {
        let text = telling_genes(&screen()).unwrap().unwrap();
        assert!(text.starts_with("2 genes") && text.contains("(`guide_1`, `guide_2`)"), "{text}");
        let one = Dataset { interventions: InterventionRows::one_hot(vec![0; 40]), ..screen() };
        assert_eq!(telling_genes(&one).unwrap(), None);
    }

    #[test]
    fn depth_and_covariates_that_follow_labels_are_told() {
        let mut data = screen();
        data.library = (0..40).map(|n| if n % 4 == 3 { 3000.0 } else { 1000.0 + n as f64 * 10.0 }).collect();
        assert!(depth_by_label(&data).unwrap().contains("of the variance of log size factors"));
        data.library = (0..40).map(|n| 1000.0 + (n / 4) as f64).collect();
        assert_eq!(depth_by_label(&data), None);
        let check = |of: &dyn Fn(usize) -> f64| {
            let covariate = Continuous { name: "age".into(), values: (0..40).map(of).collect() };
            covariate_by_label(&covariate, &data.interventions)
        };
        assert!(check(&|n| if n % 4 < 2 { 0.0 } else { (n % 4) as f64 }).is_err());
        assert!(check(&|n| (n % 4 + n / 20) as f64).unwrap().unwrap().contains("`age`"));
        assert_eq!(check(&|n| (n / 4) as f64), Ok(None));
        assert_eq!(check(&|_| 1.0), Ok(None));
    }
}
