//! MuData files (.h5mu): several modalities of the same cells, each laid out as an AnnData file, of which that with the genes is read.

use std::collections::HashMap;
use std::path::Path;

use crate::data::counts::row_source::RowSource;
use crate::data::formats::column::Column;
use crate::data::formats::counts_sink::CountsSink;
use crate::data::formats::frame::Frame;
use crate::data::formats::h5ad::H5ad;
use crate::data::formats::hdf5::{HDF5_ENDINGS, Hdf5};
use crate::data::formats::screen_file::{CellMatrix, OpenOptions, RawTruth, ScreenFile, StoredMatrix, has_ending};
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::words::first_few;

/// The group of the modalities.
const MODALITIES: &str = "mod";
/// What the modality of the genes is usually called.
const OF_GENES: [&str; 6] = ["rna", "gene", "gex", "gene_expression", "transcriptome", "expression"];
/// What modalities of guides are usually called, where the counts of guides are not among those of the genes.
const OF_GUIDES: [&str; 9] =
    ["gdo", "guide", "guides", "crispr", "grna", "sgrna", "guide_capture", "crispr_guide_capture", "gd"];

/// An open file, and the modality of it that is read.
pub(crate) struct MuData {
    /// The whole, for its table of cells.
    whole: H5ad,
    modality: H5ad,
    name: String,
    /// The row of the whole's table of each cell of the modality.
    rows: Vec<usize>,
    /// The modality of the guides, if it is another one, and their names.
    guides: Option<(H5ad, Vec<String>)>,
    notes: Vec<String>,
}

impl MuData {
    /// Whether a file is one by its name, or an HDF5 file with modalities and no matrix of its own.
    pub fn recognises(path: &Path) -> bool {
        let holds_modalities =
            |hdf5: Hdf5| hdf5.group(MODALITIES).is_some() && hdf5.group("X").is_none() && !hdf5.has_dataset("X");
        has_ending(path, &[".h5mu"])
            || (has_ending(path, &HDF5_ENDINGS) && Hdf5::open(path).is_ok_and(holds_modalities))
    }

    /// Opens a file and finds its cells.
    ///
    /// # Errors
    /// [`InputError`] if it is no such file, if it is not told which modality holds the genes, or if its tables do not fit together.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let hdf5 = Hdf5::open(path)?;
        let names = hdf5.children(MODALITIES)?;
        let name = chosen(&names, options.modality).map_err(|error| error.in_file(path))?.to_owned();
        let within = |name: &str, layer| H5ad::of(Hdf5::open_within(path, &format!("{MODALITIES}/{name}"))?, layer);
        let modality = within(&name, options.layer)?;
        let whole = H5ad::of(hdf5, None)?;
        let rows = rows_of(&whole, &modality, &name)?;

        let size = |name: &String| match within(name, None).and_then(|modality| modality.shape()) {
            Ok((n_cells, n_features)) => format!("{name} ({n_cells} x {n_features})"),
            Err(_) => name.clone(),
        };
        let others: Vec<String> = names.iter().filter(|other| **other != name).map(size).collect();
        let mut notes = Vec::new();
        if !others.is_empty() {
            notes.push(format!(
                "the genes are those of modality {}; the others are {}; --modality names another",
                size(&name),
                first_few(&others)
            ));
        }
        let mut guides = None;
        if modality.guide_names().is_empty() {
            let is_one = |other: &&String| **other != name && OF_GUIDES.contains(&other.to_lowercase().as_str());
            if let Some(of_guides) = names.iter().find(is_one) {
                let file = within(of_guides, None)?;
                let names = file.gene_names()?.unwrap_or_default();
                guides = Some((file, names));
            }
        }
        notes.extend(modality.notes());
        Ok(Self { whole, modality, name, rows, guides, notes })
    }

    /// Whether the column `name` is one of the whole rather than of the modality.
    fn is_of_whole(&self, name: &str) -> Result<bool> {
        Ok(self.whole.fields("obs")?.iter().any(|field| field == name))
    }
}

/// The modality that is named, or else that of the genes.
fn chosen<'a>(names: &'a [String], named: Option<&str>) -> Result<&'a str, InputError> {
    let find = |wanted: &str| names.iter().find(|name| name.as_str() == wanted);
    let known = || format!("--modality may be {}", first_few(names));
    if names.is_empty() {
        let remedy = "write it with MuData, or name an AnnData file (.h5ad)";
        return Err(InputError::new("it holds no modalities", remedy));
    }
    if let Some(named) = named {
        let found = find(named).ok_or_else(|| InputError::new(format!("there is no modality `{named}`"), known()))?;
        return Ok(found);
    }
    let usual = OF_GENES.iter().find_map(|usual| names.iter().find(|name| name.to_lowercase() == *usual));
    match (usual, names) {
        (Some(usual), _) => Ok(usual),
        (None, [only]) => Ok(only),
        _ => Err(InputError::new("it is not told which of its modalities holds the genes", known())),
    }
}

/// The row of the whole's table of each cell of a modality: as `obsmap` says (from 1 on, 0 where the modality lacks a cell), or by name.
fn rows_of(whole: &H5ad, modality: &H5ad, name: &str) -> Result<Vec<usize>> {
    let n_cells = modality.n_rows("obs")?;
    let map = format!("obsmap/{name}");
    let damaged = |problem: String| whole.hdf5().fault(&map, problem, "write the file again");
    let n_whole = whole.n_rows("obs")?;
    if whole.has(&map) {
        let numbers = whole.hdf5().integers(&map)?;
        if numbers.len() != n_whole {
            return Err(damaged(format!("it has {} entries for {n_whole} cells", numbers.len())).into());
        }
        let mut rows = vec![None; n_cells];
        for (row, &number) in numbers.iter().enumerate().filter(|(_, number)| **number != 0) {
            let place = usize::try_from(number - 1).ok().and_then(|cell| rows.get_mut(cell));
            let place = place.ok_or_else(|| damaged(format!("it names cell {number} of {n_cells}")))?;
            *place = Some(row);
        }
        let rows: Option<Vec<usize>> = rows.into_iter().collect();
        return Ok(rows.ok_or_else(|| damaged("it leaves out cells of the modality".to_owned()))?);
    }
    let names = whole.many_row_names("obs")?;
    let numbers: HashMap<&str, usize> = names.iter().enumerate().map(|(n, name)| (name, n)).collect();
    let cells = modality.many_row_names("obs")?;
    let row = |cell: &str| {
        let missing = || {
            let problem = format!("there is no cell `{cell}`, which modality {name} has");
            whole.hdf5().fault("obs", problem, "write the file again")
        };
        numbers.get(cell).copied().ok_or_else(missing)
    };
    Ok(cells.iter().map(row).collect::<std::result::Result<_, _>>()?)
}

impl ScreenFile for MuData {
    fn path(&self) -> &Path {
        self.modality.path()
    }

    fn format(&self) -> String {
        format!("MuData, modality {}", self.name)
    }

    fn shape(&self) -> Result<(usize, usize)> {
        self.modality.shape()
    }

    fn cell_names(&self) -> Result<Option<Names>> {
        self.modality.cell_names()
    }

    fn gene_names(&self) -> Result<Option<Vec<String>>> {
        self.modality.gene_names()
    }

    fn gene_columns(&self) -> Result<Vec<(String, Vec<String>)>> {
        self.modality.gene_columns()
    }

    fn feature_numbers(&self) -> Option<&[i64]> {
        self.modality.feature_numbers()
    }

    fn counts_place(&self) -> String {
        self.modality.counts_place()
    }

    fn read_counts(&self, sink: &mut CountsSink) -> Result<()> {
        self.modality.read_counts(sink)
    }

    fn rows(&self) -> Result<Box<dyn RowSource>> {
        self.modality.rows()
    }

    fn column_names(&self) -> Result<Vec<String>> {
        let mut names = self.whole.fields("obs")?;
        let of_modality = self.modality.column_names()?;
        names.extend(of_modality.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
        Ok(names)
    }

    fn column_place(&self, name: &str) -> String {
        match self.is_of_whole(name) {
            Ok(true) => self.whole.column_place(name),
            _ => self.modality.column_place(name),
        }
    }

    fn column(&self, name: &str, label: bool) -> Result<Column> {
        if !self.is_of_whole(name)? {
            return self.modality.column(name, label);
        }
        let column = self.whole.column(name, label)?;
        let n_whole = self.whole.n_rows("obs")?;
        if column.len() != n_whole {
            let problem = format!("it has {} values for {n_whole} cells", column.len());
            return Err(self.whole.hdf5().fault(&format!("obs/{name}"), problem, "write the file again").into());
        }
        Ok(column.select(&self.rows))
    }

    fn cell_frame(&self, names: Names) -> Result<Frame> {
        let whole = self.whole.frame("obs", self.whole.many_row_names("obs")?)?;
        let mut columns: Vec<_> =
            whole.columns.into_iter().map(|(name, column)| (name, column.select(&self.rows))).collect();
        let of_modality = self.modality.frame("obs", names.clone())?;
        let further =
            of_modality.columns.into_iter().filter(|(name, _)| !columns.iter().any(|(known, _)| known == name));
        let further: Vec<_> = further.collect();
        columns.extend(further);
        Ok(Frame { index: whole.index, names, columns })
    }

    fn gene_frame(&self, names: Names) -> Result<Frame> {
        self.modality.gene_frame(names)
    }

    fn cell_matrix_names(&self) -> Result<Vec<String>> {
        self.modality.cell_matrix_names()
    }

    fn cell_matrix(&self, name: &str) -> Result<CellMatrix> {
        self.modality.cell_matrix(name)
    }

    fn guide_names(&self) -> &[String] {
        match &self.guides {
            Some((_, names)) => names,
            None => self.modality.guide_names(),
        }
    }

    fn guide_counts(&self) -> Result<Option<CellMatrix>> {
        let Some((file, names)) = &self.guides else { return self.modality.guide_counts() };
        let place = file.counts_place();
        let counted = file.many_row_names("obs")?;
        let mut silent = |_, _| {};
        let mut sink = CountsSink::new(self.path(), place, &counted, names, &mut silent);
        sink.number_features(file.feature_numbers());
        file.read_counts(&mut sink)?;
        let counts = sink.finish()?.counts;
        // Cells that the modality of the guides lacks have none.
        let numbers: HashMap<&str, usize> = counted.iter().enumerate().map(|(n, name)| (name, n)).collect();
        let cells = self.modality.many_row_names("obs")?;
        let row = |cell: &str| {
            let mut row = Vec::new();
            if let Some(&n) = numbers.get(cell) {
                counts.row(n).for_each(|guide, count| row.push((guide as u32, f64::from(count))));
            }
            row
        };
        Ok(Some(CellMatrix { names: names.clone(), rows: cells.iter().map(row).collect() }))
    }

    fn truth(&self) -> Result<Option<RawTruth>> {
        self.modality.truth()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn matrices(&self) -> Result<Vec<StoredMatrix>> {
        self.modality.matrices()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modality_of_the_genes_is_found_or_asked_for() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(chosen(&names(&["adt", "GEX", "rna"]), None).unwrap(), "rna");
        assert_eq!(chosen(&names(&["atac", "GEX"]), None).unwrap(), "GEX");
        assert_eq!(chosen(&names(&["mine"]), None).unwrap(), "mine");
        assert_eq!(chosen(&names(&["adt", "rna"]), Some("adt")).unwrap(), "adt");
        for (of, named) in [(&["a", "b"][..], None), (&["rna"], Some("RNA")), (&[], None)] {
            let error = chosen(&names(of), named).unwrap_err().to_string();
            assert!(of.is_empty() || error.contains("--modality may be"), "{error}");
        }
    }
}
