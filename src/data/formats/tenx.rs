//! Feature-barcode matrices of 10x Genomics (.h5), as CellRanger 2 (a group per genome) and 3 or newer write them.

use std::path::Path;

use crate::data::formats::counts_sink::CountsSink;
use crate::data::formats::features::{Features, GEM_WELL, Genes, gem_wells};
use crate::data::formats::hdf5::{Hdf5, Matrix, Storage};
use crate::data::formats::screen_file::{Column, ScreenFile, StoredMatrix};
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::words::list;

/// An open file and the group of it that is read.
pub(crate) struct Tenx {
    hdf5: Hdf5,
    group: String,
    genes: Genes,
    barcodes: Vec<String>,
    notes: Vec<String>,
}

impl Tenx {
    /// Whether a file looks like one of CellRanger's.
    pub fn recognises(hdf5: &Hdf5) -> bool {
        !groups(hdf5).is_empty()
    }

    /// Takes over an open file and reads its names.
    ///
    /// # Errors
    /// [`InputError`] if there are several genomes in groups of their own and none is chosen, if there is no such
    /// genome, or if parts are missing.
    pub fn new(hdf5: Hdf5, genome: Option<&str>) -> Result<Self> {
        let groups = groups(&hdf5);
        if groups.iter().any(|group| group == "matrix") {
            let strings = |name: &str| hdf5.strings(&format!("matrix/features/{name}"));
            let (ids, names) = (strings("id")?, strings("name")?);
            let optional = |name: &str| match hdf5.has_dataset(&format!("matrix/features/{name}")) {
                true => strings(name),
                false => Ok(Vec::new()),
            };
            let features = Features { ids, names, kinds: optional("feature_type")?, genomes: optional("genome")? };
            return Self::assemble(hdf5, "matrix".to_string(), features, genome);
        }
        let place = |error: InputError| error.in_file(hdf5.path());
        let group = match (genome, &groups[..]) {
            (Some(genome), groups) if groups.iter().any(|group| group == genome) => genome.to_string(),
            (Some(genome), groups) => {
                let remedy = format!("--genome may be {}", list(groups));
                return Err(place(InputError::new(format!("there is no genome `{genome}`"), remedy)).into());
            }
            (None, [group]) => group.clone(),
            (None, groups) => {
                let problem = format!("it holds a matrix for each of the genomes {}", list(groups));
                return Err(place(InputError::new(problem, "choose one with --genome")).into());
            }
        };
        let ids = hdf5.strings(&format!("{group}/genes"))?;
        let names = hdf5.strings(&format!("{group}/gene_names"))?;
        Self::assemble(hdf5, group, Features { ids, names, ..Features::default() }, None)
    }

    fn assemble(hdf5: Hdf5, group: String, features: Features, genome: Option<&str>) -> Result<Self> {
        let n_features = features.names.len();
        for (list, what) in [(&features.ids, "identifiers"), (&features.kinds, "types"), (&features.genomes, "genomes")]
        {
            let optional = what != "identifiers";
            if list.len() != n_features && !(optional && list.is_empty()) {
                let problem = format!("there are {} {what} for {n_features} features", list.len());
                return Err(hdf5.fault(&group, problem, "write the file again").into());
            }
        }
        let barcodes = hdf5.strings(&format!("{group}/barcodes"))?;
        let shape = hdf5.integers(&format!("{group}/shape"))?;
        if shape != [n_features as i64, barcodes.len() as i64] {
            let problem = format!("shape {shape:?} does not fit {n_features} features and {} barcodes", barcodes.len());
            return Err(hdf5.fault(&format!("{group}/shape"), problem, "write the file again").into());
        }
        let mut genes = features.genes(genome).map_err(|error| error.in_file(hdf5.path()).at(&*group))?;
        let notes = std::mem::take(&mut genes.notes);
        Ok(Self { hdf5, group, genes, barcodes, notes })
    }

    fn matrix(&self) -> Matrix {
        // Genes x barcodes by columns is barcodes x genes by rows.
        Matrix { name: self.group.clone(), storage: Storage::Rows }
    }
}

/// Groups that hold a matrix: `matrix`, or one per genome.
fn groups(hdf5: &Hdf5) -> Vec<String> {
    let mut groups = hdf5.children("").unwrap_or_default();
    groups.retain(|group| hdf5.has_dataset(&format!("{group}/barcodes")));
    groups
}

impl ScreenFile for Tenx {
    fn path(&self) -> &Path {
        self.hdf5.path()
    }

    fn format(&self) -> String {
        match self.group.as_str() {
            "matrix" => "10x Genomics (CellRanger 3 or newer)".to_string(),
            genome => format!("10x Genomics (CellRanger 2), genome {genome}"),
        }
    }

    fn shape(&self) -> Result<(usize, usize)> {
        Ok((self.barcodes.len(), self.genes.names.len()))
    }

    fn cell_names(&self) -> Result<Option<Names>> {
        Ok(Some(self.barcodes.iter().collect()))
    }

    fn gene_names(&self) -> Result<Option<Vec<String>>> {
        Ok(Some(self.genes.names.clone()))
    }

    fn gene_ids(&self) -> Result<Option<Vec<String>>> {
        Ok(Some(self.genes.ids.clone()))
    }

    fn counts_place(&self) -> String {
        self.group.clone()
    }

    fn read_counts(&self, sink: &mut CountsSink) -> Result<()> {
        let number = &self.genes.number;
        // Features beyond the list go to a gene that does not exist, so that they are refused.
        let gene_of = |feature: i64| match usize::try_from(feature) {
            Ok(feature) => number.get(feature).copied().unwrap_or(i64::MAX),
            Err(_) => feature,
        };
        self.hdf5.read_sparse(&self.group, Storage::Rows, sink, gene_of)
    }

    fn column_names(&self) -> Result<Vec<String>> {
        Ok(gem_wells(&self.barcodes).map(|_| GEM_WELL.to_string()).into_iter().collect())
    }

    fn column_place(&self, name: &str) -> String {
        format!("column `{name}`")
    }

    fn column(&self, _name: &str, _label: bool) -> Result<Column> {
        Ok(Column::Integers(gem_wells(&self.barcodes).unwrap_or_default()))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn matrices(&self) -> Result<Vec<StoredMatrix>> {
        let facts = self.hdf5.matrix_facts(&self.matrix())?;
        Ok(vec![StoredMatrix {
            name: self.group.clone(),
            n_cells: self.barcodes.len(),
            n_genes: self.genes.number.len(),
            storage: "CSR",
            dtype: facts.dtype,
            compression: facts.compression,
            n_stored: facts.n_stored,
            sample: self.hdf5.sample(&self.matrix())?,
        }])
    }
}
