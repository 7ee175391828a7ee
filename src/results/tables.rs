//! Tables of a fitted model for people and other programs: targets, genes of each latent, cells.

use crate::evaluation::interpretation::{CONTROL, CellRecord, Target};
use std::borrow::Cow;
use std::io;

use crate::data::dataset::Dataset;
use crate::error::Result;
use crate::results::folder::ResultsFolder;
use crate::system::files::GrowingTable;

/// Genes listed for each latent.
pub const GENES_PER_LATENT: usize = 50;

/// Columns of `cells.csv` before the covariates.
pub const CELL_COLUMNS: [&str; 9] = [
    "cell",
    "intervention",
    "split",
    "size_factor",
    "total_count",
    "n_genes",
    "reconstruction",
    "kl",
    "nearest_intervention",
];

/// Names of a cell's interventions, joined by `+`.
pub fn intervention_of(data: &Dataset, n: usize) -> String {
    if data.interventions.row(n).0.is_empty() {
        return CONTROL.to_owned();
    }
    let names = data.interventions.row(n).0.iter().map(|&a| data.intervention_names[a as usize].as_str());
    names.collect::<Vec<_>>().join("+")
}

/// `cells.csv` under construction.
#[derive(Debug)]
pub struct CellsTable<'a> {
    data: &'a Dataset,
    table: GrowingTable,
    /// Number of the next cell.
    next: usize,
}

impl CellsTable<'_> {
    /// Appends the next cell.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn push(&mut self, record: &CellRecord) -> Result<()> {
        let (data, n) = (self.data, self.next);
        self.next += 1;
        let intervention = match data.interventions.single(n) {
            Some(a) => Cow::Borrowed(&data.intervention_names[a]),
            None => Cow::Owned(intervention_of(data, n)),
        };
        let numbers = [
            data.library[n].to_string(),
            record.total.to_string(),
            record.n_genes.to_string(),
            record.reconstruction.to_string(),
            record.kl.to_string(),
        ];
        let [library, total, n_genes, reconstruction, kl] = numbers.each_ref().map(String::as_str);
        let nearest = record.nearest.name(&data.intervention_names);
        let split = record.split.name();
        let row =
            [&data.cell_names[n], intervention.as_str(), split, library, total, n_genes, reconstruction, kl, nearest];
        let covariates = &data.covariates;
        let levels = covariates.categorical.iter().map(|c| Cow::Borrowed(c.levels[c.codes[n] as usize].as_str()));
        let values = covariates.continuous.iter().map(|c| Cow::Owned(c.values[n].to_string()));
        let row = row.into_iter().map(Cow::Borrowed).chain(levels).chain(values);
        self.table.push(row.map(|field: Cow<str>| field.into_owned()))
    }

    /// Completes the table.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn finish(self) -> Result<()> {
        assert_eq!(self.next, self.data.n_cells(), "a row per cell");
        self.table.finish()
    }
}

impl ResultsFolder {
    /// Writes `targets.csv`, a row per [`Target`].
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_targets(&self, intervention_names: &[String], targets: &[Target]) -> Result<()> {
        self.write_csv("targets.csv", &["intervention", "latent", "probability", "shift"], targets, |t| {
            vec![
                intervention_names[t.intervention].clone(),
                format!("latent_{}", t.latent),
                t.probability.to_string(),
                t.shift.to_string(),
            ]
        })
    }

    /// Writes `genes_per_latent.csv`: for each latent the genes that it moves most, by the size of their loading
    /// (genes x L, log2 fold change per unit of the latent).
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_genes_per_latent(&self, gene_names: &[String], n_latents: usize, loadings: &[f64]) -> Result<()> {
        let rows: Vec<(usize, usize, usize)> = (0..n_latents)
            .flat_map(|k| {
                let genes = strongest(loadings, n_latents, k, GENES_PER_LATENT);
                genes.into_iter().enumerate().map(move |(rank, gene)| (k, rank + 1, gene))
            })
            .collect();
        self.write_csv(
            "genes_per_latent.csv",
            &["latent", "rank", "gene", "log2_fold_change"],
            &rows,
            |&(k, rank, gene)| {
                vec![
                    format!("latent_{k}"),
                    rank.to_string(),
                    gene_names[gene].clone(),
                    loadings[gene * n_latents + k].to_string(),
                ]
            },
        )
    }

    /// Begins `cells.csv`: a row per cell with the columns [`CELL_COLUMNS`], then its covariates.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn cells_table<'a>(&self, data: &'a Dataset) -> Result<CellsTable<'a>> {
        let covariates = &data.covariates;
        let names = covariates.categorical.iter().map(|c| c.name.as_str());
        let names = names.chain(covariates.continuous.iter().map(|c| c.name.as_str()));
        let header: Vec<&str> = CELL_COLUMNS.into_iter().chain(names).collect();
        Ok(CellsTable { data, table: GrowingTable::create(self.path().join("cells.csv"), &header)?, next: 0 })
    }

    fn write_csv<T>(&self, name: &str, header: &[&str], rows: &[T], row: impl Fn(&T) -> Vec<String>) -> Result<()> {
        self.write(name, |file| -> io::Result<()> {
            let mut table = csv::Writer::from_writer(file);
            table.write_record(header)?;
            for item in rows {
                table.write_record(row(item))?;
            }
            table.flush()
        })
    }
}

/// The `most` genes with the largest loading of latent `k` in size, largest first; equal ones in their own order.
pub fn strongest(loadings: &[f64], n_latents: usize, k: usize, most: usize) -> Vec<usize> {
    let size = |gene: &usize| loadings[gene * n_latents + k].abs();
    let mut genes: Vec<usize> = (0..loadings.len() / n_latents).collect();
    genes.sort_by(|a, b| size(b).total_cmp(&size(a)));
    genes.truncate(most);
    genes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::interpretation::targets;

    #[test]
    fn targets_are_the_likely_pairs_of_trained_interventions() {
        let masks = [0.9, 0.1, 0.6, 0.99, 0.5, 0.7];
        let shifts = [1.0, 9.0, -2.0, 3.0, 4.0, 5.0];
        let found = targets(3, Some(&masks), &shifts, &[true, false]);
        assert_eq!(
            found,
            [
                Target { intervention: 0, latent: 2, probability: 0.6, shift: -2.0 },
                Target { intervention: 0, latent: 0, probability: 0.9, shift: 1.0 }
            ]
        );
        assert_eq!(targets(3, None, &shifts, &[false, true]).len(), 3);
    }

    #[test]
    fn the_strongest_genes_come_first_whatever_their_sign() {
        let loadings = [0.1, 0.0, -3.0, 0.0, 2.0, 0.0, -0.2, 0.0];
        assert_eq!(strongest(&loadings, 2, 0, 3), [1, 2, 3]);
        assert_eq!(strongest(&loadings, 2, 1, 9), [0, 1, 2, 3]);
    }
}
