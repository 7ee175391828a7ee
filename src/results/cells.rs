//! The files with a row per cell: `cells.csv`, written and read here alone, and `latents.npz`.

use std::borrow::Cow;
use std::path::Path;

use crate::data::dataset::Dataset;
use crate::data::formats::npz::NpzWriter;
use crate::error::{Error, Result};
use crate::evaluation::interpretation::{CellRecord, Subset};
use crate::numerics::real::Precision;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::results::read::{damaged, missing, number};
use crate::system::files::GrowingTable;

/// Columns of `cells.csv` before the covariates.
const COLUMNS: [&str; 9] = [
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
// Places of those that are read back.
const INTERVENTION: usize = 1;
const SPLIT: usize = 2;
const SIZE_FACTOR: usize = 3;
const TOTAL_COUNT: usize = 4;
const N_GENES: usize = 5;

/// Takes the posterior mean (L) of the next cell and what else is found of it.
pub type PutCell<'a> = dyn FnMut(&[f64], &CellRecord) -> Result<()> + 'a;

/// Writes `cells.csv` and `latents.npz` while `find` passes on the cells of `data`, one by one in their order: none of them
/// is held. Returns what `find` returns. A process that does not write drops them.
///
/// # Errors
/// [`Error::Io`] naming the file; what `find` fails with, and then neither file appears.
pub fn write_cells<T>(
    folder: &ResultsFolder,
    data: &Dataset,
    n_latents: usize,
    precision: Precision,
    find: impl FnOnce(&mut PutCell) -> Result<T>,
) -> Result<T> {
    if !folder.writes() {
        return find(&mut |_, _| Ok(()));
    }
    let mut table = CellsTable::create(folder, data)?;
    let mut npz = NpzWriter::create(folder.file(ResultsFile::Latents))?;
    let mut found = None;
    npz.add_floats("latents", &[data.n_cells(), n_latents], precision == Precision::F32, |put| {
        found = Some(find(&mut |mean, record| {
            put(mean)?;
            table.push(record)
        })?);
        Ok(())
    })?;
    npz.add_strings("cells", &data.cell_names)?;
    npz.finish()?;
    table.finish()?;
    Ok(found.expect("it is found while the latents are written"))
}

/// `cells.csv` under construction: a row per cell with the columns [`COLUMNS`], then its covariates.
struct CellsTable<'a> {
    data: &'a Dataset,
    table: GrowingTable,
    /// Number of the next cell.
    next: usize,
}

impl<'a> CellsTable<'a> {
    fn create(folder: &ResultsFolder, data: &'a Dataset) -> Result<Self> {
        let covariates = &data.covariates;
        let names = covariates.categorical.iter().map(|c| c.name.as_str());
        let names = names.chain(covariates.continuous.iter().map(|c| c.name.as_str()));
        let header: Vec<&str> = COLUMNS.into_iter().chain(names).collect();
        Ok(Self { data, table: GrowingTable::create(folder.file(ResultsFile::Cells), &header)?, next: 0 })
    }

    fn push(&mut self, record: &CellRecord) -> Result<()> {
        let (data, n) = (self.data, self.next);
        self.next += 1;
        let intervention = match data.interventions.single(n) {
            Some(a) => Cow::Borrowed(&data.intervention_names[a]),
            None => Cow::Owned(data.combination_of(n)),
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
        let split = record.subset.name();
        let row =
            [&data.cell_names[n], intervention.as_str(), split, library, total, n_genes, reconstruction, kl, nearest];
        let covariates = &data.covariates;
        let levels = covariates.categorical.iter().map(|c| Cow::Borrowed(c.levels[c.codes[n] as usize].as_str()));
        let values = covariates.continuous.iter().map(|c| Cow::Owned(c.values[n].to_string()));
        let row = row.into_iter().map(Cow::Borrowed).chain(levels).chain(values);
        self.table.push(row.map(|field: Cow<str>| field.into_owned()))
    }

    fn finish(self) -> Result<()> {
        assert_eq!(self.next, self.data.n_cells(), "a row per cell");
        self.table.finish()
    }
}

/// A row of `cells.csv`.
#[derive(Debug)]
pub struct CellRow<'a> {
    path: &'a Path,
    record: &'a csv::StringRecord,
    /// Number of the cell.
    pub cell: usize,
}

impl CellRow<'_> {
    /// Name of the cell's interventions.
    pub fn intervention(&self) -> &str {
        &self.record[INTERVENTION]
    }

    /// Whether it belongs to this part of the screen.
    pub fn is_in(&self, subset: Subset) -> bool {
        &self.record[SPLIT] == subset.name()
    }

    /// Its size factor.
    ///
    /// # Errors
    /// [`crate::InputError`] if there is no number; likewise below.
    pub fn size_factor(&self) -> Result<f64> {
        self.number(SIZE_FACTOR)
    }

    /// Its total count.
    ///
    /// # Errors
    /// As [`CellRow::size_factor`].
    pub fn total_count(&self) -> Result<f64> {
        self.number(TOTAL_COUNT)
    }

    /// Its number of genes with a count.
    ///
    /// # Errors
    /// As [`CellRow::size_factor`].
    pub fn n_genes(&self) -> Result<f64> {
        self.number(N_GENES)
    }

    /// Its covariate of this number as text, categorical ones first.
    pub fn covariate(&self, i: usize) -> Option<&str> {
        self.record.get(COLUMNS.len() + i)
    }

    /// Its covariate of this number as a number.
    ///
    /// # Errors
    /// As [`CellRow::size_factor`].
    ///
    /// # Panics
    /// If there are fewer covariates.
    pub fn covariate_value(&self, i: usize) -> Result<f64> {
        self.number(COLUMNS.len() + i)
    }

    fn number(&self, column: usize) -> Result<f64> {
        number(self.path, self.cell, &self.record[column])
    }
}

/// Reads a table `cells.csv` row by row, and returns the names of its covariates.
///
/// # Errors
/// [`crate::InputError`] naming the file if it is missing or no such table; [`Error::Io`]; what `row` fails with.
pub fn each_cell(path: &Path, mut row: impl FnMut(&CellRow) -> Result<()>) -> Result<Vec<String>> {
    let bad = |e: csv::Error| -> Error {
        match e.into_kind() {
            csv::ErrorKind::Io(source) if source.kind() == std::io::ErrorKind::NotFound => missing(path).into(),
            csv::ErrorKind::Io(source) => Error::io("reading", path, source),
            csv::ErrorKind::Utf8 { .. } => damaged(path, "it is not valid UTF-8").into(),
            csv::ErrorKind::UnequalLengths { expected_len, len, pos } => {
                let line = pos.map_or(0, |pos| pos.line());
                let problem = format!("it is no table (line {line} has {len} fields, the first line {expected_len})");
                damaged(path, &problem).into()
            }
            _ => damaged(path, "it is no table").into(),
        }
    };
    let mut table = csv::ReaderBuilder::new().buffer_capacity(1 << 16).from_path(path).map_err(bad)?;
    let header = table.headers().map_err(bad)?.clone();
    if header.len() < COLUMNS.len() || header.iter().zip(COLUMNS).any(|(found, wanted)| found != wanted) {
        return Err(damaged(path, &format!("its columns do not begin with {}", COLUMNS.join(", "))).into());
    }
    let (mut record, mut cell) = (csv::StringRecord::new(), 0);
    while table.read_record(&mut record).map_err(bad)? {
        row(&CellRow { path, record: &record, cell })?;
        cell += 1;
    }
    Ok(header.iter().skip(COLUMNS.len()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::npz::Npz;
    use crate::data::simulate::{Simulation, simulate};
    use crate::evaluation::interpretation::Nearest;
    use crate::results::folder::Earlier;

    #[test]
    fn columns_are_read_where_they_are_written() {
        let places = [INTERVENTION, SPLIT, SIZE_FACTOR, TOTAL_COUNT, N_GENES];
        assert_eq!(
            places.map(|place| COLUMNS[place]),
            ["intervention", "split", "size_factor", "total_count", "n_genes"]
        );
    }

    #[test]
    fn a_table_of_other_columns_or_uneven_rows_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = ResultsFile::Cells.within(folder.path());
        let refused = |text: &str| {
            std::fs::write(&path, text).expect("written");
            let error = each_cell(&path, |row| row.size_factor().map(|_| ())).expect_err("refused");
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        let header = COLUMNS.join(",");
        assert!(refused("cell,intervention\n").contains("its columns do not begin with cell, intervention"));
        assert!(refused(&format!("{header}\na,b\n")).contains("line 2 has 2 fields"));
        let text = refused(&format!("{header}\nc,i,train,much,1,1,0,0,\n"));
        assert!(text.contains("row 2") && text.contains("a number belongs"), "{text}");
        std::fs::remove_file(&path).expect("removed");
        assert!(each_cell(&path, |_| Ok(())).expect_err("missing").to_string().contains("no such file"));
    }

    #[test]
    fn cells_are_read_back_as_written_and_none_appear_before_all_are_found() {
        let simulation = Simulation {
            n_interventions: 3,
            n_latents: 2,
            n_genes: 5,
            cells_per_intervention: 4,
            seed: 1,
            ..Simulation::default()
        };
        let data = simulate(&simulation).expect("a screen").dataset;
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = ResultsFolder::create(Some(&parent.path().join("run")), Earlier::Keep).expect("a new folder");
        let record = |n: usize| CellRecord {
            subset: if n < 8 { Subset::Train } else { Subset::HeldOut },
            total: 10 + n as u64,
            n_genes: n % 5,
            reconstruction: 1.5,
            kl: 0.25,
            nearest: Nearest::NoTarget,
        };
        let files = [ResultsFile::Cells, ResultsFile::Latents].map(|file| folder.file(file));
        let failed = write_cells(&folder, &data, 2, Precision::F64, |put| -> Result<()> {
            put(&[0.5, 1.0], &record(0))?;
            Err(damaged(Path::new("counts"), "they cannot be read").into())
        });
        assert!(failed.is_err() && files.iter().all(|file| !file.exists()));

        let found = write_cells(&folder, &data, 2, Precision::F64, |put| {
            (0..data.n_cells()).try_for_each(|n| put(&[n as f64, 1.0 / 3.0], &record(n)))?;
            Ok("found")
        });
        assert_eq!(found.expect("written"), "found");
        let mut n_read = 0;
        let covariates = each_cell(&files[0], |row| {
            let n = row.cell;
            assert_eq!(row.intervention(), data.combination_of(n));
            assert_eq!((row.is_in(Subset::Train), row.is_in(Subset::HeldOut)), (n < 8, n >= 8));
            assert_eq!(row.size_factor()?, data.library[n]);
            assert_eq!((row.total_count()?, row.n_genes()?), (10.0 + n as f64, (n % 5) as f64));
            n_read += 1;
            Ok(())
        });
        assert_eq!((covariates.expect("readable").len(), n_read), (0, data.n_cells()));
        let (shape, latents) = Npz::open(&files[1]).expect("readable").array_f64("latents").expect("latents");
        assert_eq!((shape, latents[5]), (vec![data.n_cells(), 2], 1.0 / 3.0));
    }
}
