//! Tables of a fitted model for people and other programs: epochs, masks, shifts, targets, genes of each latent.

use std::io;

use crate::error::Result;
use crate::evaluation::certainty::{Certainty, Edge};
use crate::evaluation::gene_effects::GeneEffects;
use crate::evaluation::interactions::Interactions;
use crate::evaluation::interpretation::Interpretation;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::training::history::EpochRecord;

/// Genes listed for each latent.
pub const GENES_PER_LATENT: usize = 50;

/// A column of numbers of the edges; what is not known is not a number, and an empty field.
pub(crate) type EdgeColumn = (&'static str, fn(&Edge) -> f64);

/// The columns of `edges.csv` after intervention and latent.
pub(crate) const EDGE_COLUMNS: [EdgeColumn; 9] = [
    ("probability", |edge| edge.probability),
    ("lfsr", |edge| edge.lfsr),
    ("q_value", |edge| edge.q_value),
    ("shift", |edge| edge.shift),
    ("shift_low", |edge| edge.shift_low),
    ("shift_high", |edge| edge.shift_high),
    ("probability_large", |edge| edge.probability_large),
    ("guides", |edge| edge.guides.map_or(f64::NAN, |found| found.guides as f64)),
    ("guides_agreeing", |edge| edge.guides.map_or(f64::NAN, |found| found.agreeing as f64)),
];

/// Those of `targets.csv` beyond the ones that it has for every model: probability and shift.
pub(crate) fn target_columns() -> impl Iterator<Item = EdgeColumn> + Clone {
    EDGE_COLUMNS.into_iter().filter(|(name, _)| !["probability", "shift"].contains(name))
}

/// The columns of `interactions.csv`.
pub(crate) const INTERACTION_COLUMNS: [&str; 12] = [
    "combination",
    "n_cells",
    "class",
    "magnitude",
    "latent",
    "probability",
    "lfsr",
    "q_value",
    "deviation",
    "deviation_low",
    "deviation_high",
    "sum",
];

/// The columns of `genes_per_latent.csv`.
pub(crate) const GENE_COLUMNS: [&str; 7] =
    ["latent", "rank", "gene", "log2_fold_change", "standard_error", "shrunken_log2_fold_change", "mean_count"];

impl ResultsFolder {
    /// Writes a history, a row per epoch with the columns of [`EpochRecord`].
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_history(&self, file: ResultsFile, records: &[EpochRecord]) -> Result<()> {
        self.write(file, |out| {
            let mut table = csv::Writer::from_writer(out);
            for record in records {
                table.serialize(record)?;
            }
            table.flush()
        })
    }

    /// Writes a table with a row per intervention and the columns `intervention`, `latent_0`, `latent_1`, ...
    ///
    /// `values` is interventions x latents, row-major.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    ///
    /// # Panics
    /// If `values` does not have that shape.
    pub fn write_intervention_table(
        &self,
        file: ResultsFile,
        intervention_names: &[String],
        n_latents: usize,
        values: &[f64],
    ) -> Result<()> {
        assert_eq!(values.len(), intervention_names.len() * n_latents, "{}: interventions x latents", file.name());
        self.write(file, |out| {
            let mut table = csv::Writer::from_writer(out);
            table.write_field("intervention")?;
            for k in 0..n_latents {
                table.write_field(format!("latent_{k}"))?;
            }
            table.write_record(None::<&[u8]>)?;
            for (intervention, row) in intervention_names.iter().zip(values.chunks_exact(n_latents)) {
                table.write_field(intervention)?;
                for value in row {
                    table.write_field(value.to_string())?;
                }
                table.write_record(None::<&[u8]>)?;
            }
            table.flush()
        })
    }

    /// Writes `edges.csv`, a row per pair of a trained intervention and a latent.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_edges(&self, intervention_names: &[String], certainty: &Certainty) -> Result<()> {
        let numbers = EDGE_COLUMNS.map(|(name, _)| name);
        let header = [&["intervention", "latent"][..], &numbers, &["block"]].concat();
        self.write_csv(ResultsFile::Edges, &header, &certainty.edges, |edge| {
            let mut row = pair(intervention_names, edge.intervention, edge.latent);
            row.extend(EDGE_COLUMNS.iter().map(|(_, of)| field(of(edge))));
            row.push(certainty.limits.block_name(edge.latent));
            row
        })
    }

    /// Writes `interactions.csv`, a row per pair of a combination and a latent.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_interactions(&self, found: &Interactions) -> Result<()> {
        self.write_csv(ResultsFile::Interactions, &INTERACTION_COLUMNS, &found.pairs, |pair| {
            let of = &found.combinations[pair.combination];
            let mut row =
                vec![of.label.clone(), of.n_cells.to_string(), of.class.name().to_owned(), of.magnitude().to_string()];
            row.push(format!("latent_{}", pair.latent));
            let numbers = [pair.probability, pair.lfsr, pair.q_value, pair.deviation];
            let ends = [pair.deviation_low, pair.deviation_high, pair.sum];
            row.extend(numbers.into_iter().chain(ends).map(field));
            row
        })
    }

    /// Writes `targets.csv`, a row per target; with the columns of `edges.csv` where it is known how sure they are.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_targets(&self, intervention_names: &[String], found: &Interpretation) -> Result<()> {
        let mut header = vec!["intervention", "latent", "probability", "shift"];
        let Some(certainty) = &found.certainty else {
            return self.write_csv(ResultsFile::Targets, &header, &found.targets, |target| {
                let mut row = pair(intervention_names, target.intervention, target.latent);
                row.extend([target.probability.to_string(), target.shift.to_string()]);
                row
            });
        };
        header.extend(target_columns().map(|(name, _)| name).chain(["block"]));
        let edges: Vec<&Edge> = certainty.found().collect();
        self.write_csv(ResultsFile::Targets, &header, &edges, |edge| {
            let mut row = pair(intervention_names, edge.intervention, edge.latent);
            row.extend([edge.probability.to_string(), edge.shift.to_string()]);
            row.extend(target_columns().map(|(_, of)| field(of(edge))));
            row.push(certainty.limits.block_name(edge.latent));
            row
        })
    }

    /// Writes `genes_per_latent.csv`: for each latent the genes that it moves most, by their shrunken effect.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_genes_per_latent(&self, gene_names: &[String], genes: &GeneEffects) -> Result<()> {
        let l = genes.n_latents;
        let rows: Vec<(usize, usize, usize)> = (0..l)
            .flat_map(|k| {
                let strongest = genes.strongest(k, GENES_PER_LATENT);
                strongest.into_iter().enumerate().map(move |(rank, gene)| (k, rank + 1, gene))
            })
            .collect();
        self.write_csv(ResultsFile::GenesPerLatent, &GENE_COLUMNS, &rows, |&(k, rank, gene)| {
            vec![
                format!("latent_{k}"),
                rank.to_string(),
                gene_names[gene].clone(),
                genes.log2_fold_change[gene * l + k].to_string(),
                genes.standard_error[gene * l + k].to_string(),
                genes.shrunken[gene * l + k].to_string(),
                genes.mean_count[gene].to_string(),
            ]
        })
    }

    pub(super) fn write_csv<T>(
        &self,
        file: ResultsFile,
        header: &[&str],
        rows: &[T],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<()> {
        self.write(file, |out| -> io::Result<()> {
            let mut table = csv::Writer::from_writer(out);
            table.write_record(header)?;
            for item in rows {
                table.write_record(row(item))?;
            }
            table.flush()
        })
    }
}

/// A number, or nothing where it is none.
fn field(value: f64) -> String {
    if value.is_nan() { String::new() } else { value.to_string() }
}

/// The fields that name a pair.
fn pair(intervention_names: &[String], intervention: usize, latent: usize) -> Vec<String> {
    vec![intervention_names[intervention].clone(), format!("latent_{latent}")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::interpretation::{Target, targets};
    use crate::model::prior::table::{Masks, PriorTable};
    use crate::results::folder::Earlier;

    fn folder() -> (tempfile::TempDir, ResultsFolder) {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = ResultsFolder::create(Some(&parent.path().join("run")), Earlier::Keep).expect("a new folder");
        (parent, folder)
    }

    #[test]
    fn targets_are_the_likely_pairs_of_trained_interventions() {
        let masks = [0.9, 0.1, 0.6, 0.99, 0.5, 0.7];
        let shifts = [1.0, 9.0, -2.0, 3.0, 4.0, 5.0];
        let prior = PriorTable::<f64> { n_latents: 3, shifts: Some(&shifts), masks: Masks::Fixed(&masks) };
        let found = targets(prior, &[true, false]);
        assert_eq!(
            found,
            [
                Target { intervention: 0, latent: 2, probability: 0.6, shift: -2.0, q_value: None },
                Target { intervention: 0, latent: 0, probability: 0.9, shift: 1.0, q_value: None }
            ]
        );
        assert_eq!(targets(PriorTable { masks: Masks::Ones, ..prior }, &[false, true]).len(), 3);
    }

    #[test]
    fn genes_stand_by_their_shrunken_effect_with_all_figures_beside_it() {
        let (_parent, folder) = folder();
        let genes = GeneEffects {
            n_latents: 2,
            mean_count: vec![0.001, 4.5],
            log2_fold_change: vec![-8.0, 0.25, 1.5, -0.5],
            standard_error: vec![4.0, f64::INFINITY, 0.125, 0.0625],
            shrunken: vec![-0.0625, 0.0, 1.25, -0.375],
        };
        folder.write_genes_per_latent(&["RARE".to_owned(), "SEEN".to_owned()], &genes).expect("written");
        let text = std::fs::read_to_string(folder.file(ResultsFile::GenesPerLatent)).expect("readable");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "latent,rank,gene,log2_fold_change,standard_error,shrunken_log2_fold_change,mean_count",
                "latent_0,1,SEEN,1.5,0.125,1.25,4.5",
                "latent_0,2,RARE,-8,4,-0.0625,0.001",
                "latent_1,1,SEEN,-0.5,0.0625,-0.375,4.5",
                "latent_1,2,RARE,0.25,inf,0,0.001",
            ]
        );
    }

    #[test]
    fn history_has_a_row_per_epoch() {
        let (_parent, folder) = folder();
        let record = EpochRecord {
            epoch: 1,
            kl_weight: 0.02,
            train_loss: 1e7,
            train_elbo: 400.0,
            train_reconstruction: 390.0,
            train_kl: 10.0,
            kl_global: 0.5,
            validation_elbo: 401.0,
            validation_reconstruction: 391.0,
            validation_kl: 10.0,
            mean_mask: 0.99,
            seconds: 0.25,
        };
        folder.write_history(ResultsFile::History, &[record, EpochRecord { epoch: 2, ..record }]).expect("written");
        let text = std::fs::read_to_string(folder.file(ResultsFile::History)).expect("readable");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "epoch,kl_weight,train_loss,train_elbo,train_reconstruction,train_kl,kl_global,validation_elbo,\
             validation_reconstruction,validation_kl,mean_mask,seconds"
        );
        assert_eq!(lines.len(), 3);
        assert!(lines[2].starts_with("2,0.02,"));
    }

    #[test]
    fn tables_of_interventions_carry_names_and_full_precision() {
        let (_parent, folder) = folder();
        let interventions = ["A,B".to_owned(), "say \"x\"".to_owned()];
        let values = [0.1, 1.0 / 3.0, -2.5e-300, 7.0];
        folder.write_intervention_table(ResultsFile::Shifts, &interventions, 2, &values).expect("written");
        let mut reader = csv::Reader::from_path(folder.file(ResultsFile::Shifts)).expect("readable");
        assert_eq!(reader.headers().expect("a header"), vec!["intervention", "latent_0", "latent_1"]);
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
        assert_eq!([&rows[0][0], &rows[1][0]], ["A,B", "say \"x\""]);
        let back: Vec<f64> = rows.iter().flat_map(|row| [&row[1], &row[2]].map(|v| v.parse().unwrap())).collect();
        assert_eq!(back, values);
    }
}
