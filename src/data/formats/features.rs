//! The names that 10x matrices come with: barcodes, and features, of which some are genes of some genome.

use std::path::Path;

use crate::data::formats::column::Column;
use crate::data::formats::counts_sink::CountsSink;
use crate::data::formats::screen_file::CellMatrix;
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::words::first_few;

/// The kind of features whose counts are modelled.
const GENE_EXPRESSION: &str = "Gene Expression";
/// The kind of features that are guides.
const GUIDE_CAPTURE: &str = "CRISPR Guide Capture";

/// Features as listed.
#[derive(Debug, Default)]
pub(crate) struct Features {
    pub ids: Vec<String>,
    pub names: Vec<String>,
    /// Kind of each feature; empty if all are genes.
    pub kinds: Vec<String>,
    /// Genome of each feature; empty if not said.
    pub genomes: Vec<String>,
}

/// The features that are read.
#[derive(Debug)]
pub(crate) struct Genes {
    pub ids: Vec<String>,
    pub names: Vec<String>,
    /// Number among the genes of each listed feature; -1 if it is none.
    pub number: Vec<i64>,
    /// Identifiers of the features that are guides.
    pub guides: Vec<String>,
    /// Number among these of each listed feature; -1 if it is none.
    pub guide_number: Vec<i64>,
    /// What was left out.
    pub notes: Vec<String>,
}

impl Features {
    /// The genes among the features, of one genome if it is named.
    ///
    /// # Errors
    /// [`InputError`] if there are none, or no such genome.
    pub fn genes(self, genome: Option<&str>) -> Result<Genes, InputError> {
        let mut genomes: Vec<&String> = self.genomes.iter().filter(|genome| !genome.is_empty()).collect();
        genomes.sort_unstable();
        genomes.dedup();
        if let Some(genome) = genome
            && !genomes.iter().any(|known| *known == genome)
        {
            let remedy = match genomes.is_empty() {
                true => "leave out --genome: the features have no genome".to_string(),
                false => format!("--genome may be {}", first_few(&genomes)),
            };
            return Err(InputError::new(format!("there are no features of genome `{genome}`"), remedy));
        }
        // Where no feature is called a gene, all are taken.
        let any_gene = self.kinds.iter().any(|kind| kind == GENE_EXPRESSION);
        let mut notes = Vec::new();
        let mut others: Vec<(&str, usize)> = Vec::new();
        let (mut n_genes, mut n_foreign) = (0, 0);
        let mut number = Vec::with_capacity(self.names.len());
        for n in 0..self.names.len() {
            if any_gene && self.kinds[n] != GENE_EXPRESSION {
                match others.iter_mut().find(|(kind, _)| *kind == self.kinds[n]) {
                    Some((_, size)) => *size += 1,
                    None => others.push((&self.kinds[n], 1)),
                }
                number.push(-1);
            } else if genome.is_some_and(|genome| self.genomes[n] != genome) {
                n_foreign += 1;
                number.push(-1);
            } else {
                number.push(n_genes);
                n_genes += 1;
            }
        }
        for (kind, n) in others {
            notes.push(format!("left out {n} features of type {kind}: only gene expression is modelled"));
        }
        if n_foreign > 0 {
            notes.push(format!("left out {n_foreign} genes of other genomes"));
        }
        if genome.is_none() && genomes.len() > 1 {
            let known = first_few(&genomes);
            notes.push(format!("genes of several genomes are read: {known}; choose one with --genome"));
        }
        let mut guides = Vec::new();
        let mut guide_number = vec![-1; self.names.len()];
        for (n, _) in self.kinds.iter().enumerate().filter(|(_, kind)| *kind == GUIDE_CAPTURE) {
            guide_number[n] = guides.len() as i64;
            guides.push(self.ids[n].clone());
        }
        let kept = |values: Vec<String>| -> Vec<String> {
            values.into_iter().zip(&number).filter(|(_, number)| **number >= 0).map(|(value, _)| value).collect()
        };
        Ok(Genes { ids: kept(self.ids), names: kept(self.names), number, guides, guide_number, notes })
    }
}

impl Genes {
    /// The number among the genes of each feature; `None` if all are genes.
    pub fn numbers(&self) -> Option<&[i64]> {
        (self.names.len() < self.number.len()).then_some(&self.number)
    }

    /// Says that the features come `n` times, one list after the other: what a gene has in each is added up.
    pub fn repeat(&mut self, n: usize) {
        self.number = self.number.repeat(n);
        self.guide_number = self.guide_number.repeat(n);
    }

    /// Those of `values`, one for each feature, that belong to genes.
    pub fn of_genes<T>(&self, values: Vec<T>) -> Vec<T> {
        values.into_iter().zip(&self.number).filter(|(_, number)| **number >= 0).map(|(value, _)| value).collect()
    }

    /// Counts of the guides of `cells`, if there are any guides; `read` passes all features to a sink. `path` and `place` are for
    /// messages.
    ///
    /// # Errors
    /// As `read`.
    pub fn guide_counts(
        &self,
        cells: &Names,
        (path, place): (&Path, &str),
        read: impl FnOnce(&mut CountsSink) -> Result<()>,
    ) -> Result<Option<CellMatrix>> {
        let Genes { guides, guide_number, .. } = self;
        if guides.is_empty() {
            return Ok(None);
        }
        let mut silent = |_, _| {};
        let mut sink = CountsSink::new(path, place.to_owned(), cells, guides, &mut silent);
        sink.number_features(Some(guide_number));
        read(&mut sink)?;
        let counts = sink.finish()?.counts;
        let mut rows = vec![Vec::new(); cells.len()];
        for (n, row) in rows.iter_mut().enumerate() {
            counts.row(n).for_each(|guide, count| row.push((guide as u32, f64::from(count))));
        }
        Ok(Some(CellMatrix { names: guides.clone(), rows }))
    }
}

/// The names that come with a matrix of 10x Genomics: genes and barcodes, and the one column that barcodes give.
pub(crate) struct TenxNames {
    pub genes: Genes,
    barcodes: Vec<String>,
}

impl TenxNames {
    pub fn new(genes: Genes, barcodes: Vec<String>) -> Self {
        Self { genes, barcodes }
    }

    /// Numbers of cells and genes.
    pub fn shape(&self) -> (usize, usize) {
        (self.barcodes.len(), self.genes.names.len())
    }

    /// Barcodes of the cells.
    pub fn cells(&self) -> Names {
        self.barcodes.iter().collect()
    }

    /// The number among the genes of each feature; `None` if all are genes.
    pub fn numbers(&self) -> Option<&[i64]> {
        self.genes.numbers()
    }

    /// What annotates the genes.
    pub fn gene_columns(&self) -> Vec<(String, Vec<String>)> {
        vec![("gene_ids".to_owned(), self.genes.ids.clone())]
    }

    /// Names of the columns of the cells.
    pub fn column_names(&self) -> Vec<String> {
        gem_wells(&self.barcodes).map(|_| GEM_WELL.to_string()).into_iter().collect()
    }

    /// The GEM well of each cell.
    pub fn gem_well(&self) -> Column {
        Column::Integers(gem_wells(&self.barcodes).unwrap_or_default())
    }
}

/// The GEM well of each cell, if every barcode ends in one ("AAACCTGA-2") and there are several.
fn gem_wells(barcodes: &[String]) -> Option<Vec<i64>> {
    let well = |barcode: &String| barcode.rsplit_once('-')?.1.parse::<u16>().ok().map(i64::from);
    let wells: Vec<i64> = barcodes.iter().map(well).collect::<Option<_>>()?;
    wells.iter().any(|well| *well != wells[0]).then_some(wells)
}

/// The one column that barcodes give.
const GEM_WELL: &str = "gem_well";

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| value.to_string()).collect()
    }

    #[test]
    fn only_genes_of_the_genome_are_kept() {
        let features = || Features {
            ids: texts(&["i0", "i1", "i2", "i3"]),
            names: texts(&["a", "b", "c", "d"]),
            kinds: texts(&["Gene Expression", "CRISPR Guide Capture", "Gene Expression", "Gene Expression"]),
            genomes: texts(&["GRCh38", "", "mm10", "GRCh38"]),
        };
        let all = features().genes(None).unwrap();
        assert_eq!((all.names, all.number), (texts(&["a", "c", "d"]), vec![0, -1, 1, 2]));
        assert_eq!((all.guides, all.guide_number), (texts(&["i1"]), vec![-1, 0, -1, -1]));
        assert_eq!(all.notes.len(), 2, "{:?}", all.notes);
        let human = features().genes(Some("GRCh38")).unwrap();
        assert_eq!((human.ids, human.number), (texts(&["i0", "i3"]), vec![0, -1, -1, 1]));
        assert!(features().genes(Some("hg19")).unwrap_err().to_string().contains("`GRCh38`, `mm10`"));
    }

    #[test]
    fn gem_wells_are_read_from_barcodes() {
        assert_eq!(gem_wells(&texts(&["AA-1", "AC-2"])), Some(vec![1, 2]));
        assert_eq!(gem_wells(&texts(&["AA-1", "AC-1"])), None);
        assert_eq!(gem_wells(&texts(&["AA-1", "AC"])), None);
        assert_eq!(gem_wells(&[]), None);
    }
}
