//! Feature-barcode matrices of 10x Genomics (.h5), as CellRanger 2 (a group per genome) and 3 or newer write them.

use std::path::Path;

use crate::data::formats::column::Column;
use crate::data::formats::counts_sink::CountsSink;
use crate::data::formats::features::{Features, TenxNames};
use crate::data::formats::hdf5::{HDF5_ENDINGS, Hdf5, Matrix, Storage};
use crate::data::formats::screen_file::{CellMatrix, ScreenFile, StoredMatrix, has_ending};
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::words::first_few;

/// An open file and the group of it that is read.
pub(crate) struct Tenx {
    hdf5: Hdf5,
    group: String,
    names: TenxNames,
    notes: Vec<String>,
}

impl Tenx {
    /// Whether a file is one of CellRanger's: what is inside counts, not the name.
    pub fn recognises(path: &Path) -> bool {
        has_ending(path, &HDF5_ENDINGS) && Hdf5::open(path).is_ok_and(|hdf5| !groups(&hdf5).is_empty())
    }

    /// Opens a file and reads its names.
    ///
    /// # Errors
    /// [`InputError`] if there are several genomes in groups of their own and none is chosen, if there is no such
    /// genome, or if parts are missing.
    pub fn open(path: &Path, genome: Option<&str>) -> Result<Self> {
        let hdf5 = Hdf5::open(path)?;
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
                let remedy = format!("--genome may be {}", first_few(groups));
                return Err(place(InputError::new(format!("there is no genome `{genome}`"), remedy)).into());
            }
            (None, [group]) => group.clone(),
            (None, groups) => {
                let problem = format!("it holds a matrix for each of the genomes {}", first_few(groups));
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
        Ok(Self { hdf5, group, names: TenxNames::new(genes, barcodes), notes })
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
        Ok(self.names.shape())
    }

    fn cell_names(&self) -> Result<Option<Names>> {
        Ok(Some(self.names.cells()))
    }

    fn gene_names(&self) -> Result<Option<Vec<String>>> {
        Ok(Some(self.names.genes.names.clone()))
    }

    fn gene_columns(&self) -> Result<Vec<(String, Vec<String>)>> {
        Ok(self.names.gene_columns())
    }

    fn counts_place(&self) -> String {
        self.group.clone()
    }

    fn read_counts(&self, sink: &mut CountsSink) -> Result<()> {
        self.hdf5.read_sparse(&self.group, Storage::Rows, sink)
    }

    fn feature_numbers(&self) -> Option<&[i64]> {
        self.names.numbers()
    }

    fn guide_names(&self) -> &[String] {
        &self.names.genes.guides
    }

    fn guide_counts(&self) -> Result<Option<CellMatrix>> {
        let read = |sink: &mut CountsSink| self.read_counts(sink);
        self.names.genes.guide_counts(&self.names.cells(), (self.path(), &self.group), read)
    }

    fn column_names(&self) -> Result<Vec<String>> {
        Ok(self.names.column_names())
    }

    fn column_place(&self, name: &str) -> String {
        format!("column `{name}`")
    }

    fn column(&self, _name: &str, _label: bool) -> Result<Column> {
        Ok(self.names.gem_well())
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn matrices(&self) -> Result<Vec<StoredMatrix>> {
        let facts = self.hdf5.matrix_facts(&self.matrix())?;
        Ok(vec![StoredMatrix {
            name: self.group.clone(),
            n_cells: self.names.shape().0,
            n_genes: self.names.genes.number.len(),
            storage: "CSR",
            dtype: facts.dtype,
            compression: facts.compression,
            n_stored: facts.n_stored,
            sample: self.hdf5.sample(&self.matrix())?,
        }])
    }
}
