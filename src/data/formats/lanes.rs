//! Several files of one screen, each from a lane of its own: their cells one after another, over the genes that all of them have.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use crate::data::formats::column::{Column, is_missing};
use crate::data::formats::counts_sink::CountsSink;
use crate::data::formats::labels::LabelTable;
use crate::data::formats::screen_file::{CellMatrix, OpenOptions, ScreenFile, StoredMatrix};
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::words::first_few;

/// What the column of the lanes is called, or else, where the files have such a column.
const LANE: [&str; 2] = ["lane", "data_file"];
/// The column of the genes by which those of several files are matched.
const IDENTIFIERS: &str = "gene_ids";

/// A file of one lane.
struct Lane {
    name: String,
    file: Box<dyn ScreenFile>,
    /// Names of its cells in the file.
    cells: Names,
    /// Labels of its cells, where it has a table of its own.
    labels: Option<LabelTable>,
    /// Number among the genes of all lanes of each column of its matrix; -1 if it is none.
    gene_of: Vec<i64>,
    /// Number among the guides of all lanes of each of its guides.
    guide_of: Vec<u32>,
}

/// The files of a screen.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    cells: Names,
    genes: Vec<String>,
    gene_columns: Vec<(String, Vec<String>)>,
    guides: Vec<String>,
    columns: Vec<String>,
    lane_column: &'static str,
    notes: Vec<String>,
}

impl Lanes {
    /// Joins `files`, which `options` say how to read.
    ///
    /// # Errors
    /// [`InputError`] if a file comes twice, if there are not as many tables of labels as files, if no gene is in all files; as reading
    /// names and labels does.
    pub fn join(files: Vec<(PathBuf, Box<dyn ScreenFile>)>, options: &OpenOptions) -> Result<Self> {
        let paths: Vec<&Path> = files.iter().map(|(path, _)| path.as_path()).collect();
        let names = lane_names(&paths);
        let (mut lanes, mut notes): (Vec<Lane>, Vec<String>) = (Vec::new(), Vec::new());
        for (n, ((_, file), name)) in files.into_iter().zip(names).enumerate() {
            let n_cells = file.shape()?.0;
            let cells = file.cell_names()?.unwrap_or_else(|| (0..n_cells).map(|n| format!("cell_{n}")).collect());
            let labels = options.lane_labels.get(n).map(|path| LabelTable::read(path, &cells, true)).transpose()?;
            if let Some(table) = labels.as_ref().filter(|table| table.has_several_rows()) {
                let problem = "a barcode has several rows with different values";
                let remedy = "keep one row per barcode, or give one table of the cells of all files";
                return Err(InputError::new(problem, remedy).in_file(table.path()).into());
            }
            let said = file.notes().into_iter().chain(labels.iter().flat_map(|table| table.notes.clone()));
            for note in said.collect::<HashSet<_>>() {
                notes.push(format!("{name}: {note}"));
            }
            lanes.push(Lane { name, file, cells, labels, gene_of: Vec::new(), guide_of: Vec::new() });
        }
        notes.sort();
        let mut joined = Self {
            cells: joined_names(&lanes, &mut notes),
            lanes,
            genes: Vec::new(),
            gene_columns: Vec::new(),
            guides: Vec::new(),
            columns: Vec::new(),
            lane_column: LANE[0],
            notes,
        };
        joined.match_genes()?;
        joined.match_guides();
        joined.match_columns()?;
        let shown: Vec<String> =
            joined.lanes.iter().map(|lane| format!("{} ({} cells)", lane.name, lane.cells.len())).collect();
        joined.notes.push(format!(
            "{} files are read as one screen, with their names in the column {}: {}",
            joined.lanes.len(),
            joined.lane_column,
            first_few(&shown)
        ));
        Ok(joined)
    }

    /// Finds the genes that all files have, by identifiers where all have them, in the order of the first.
    fn match_genes(&mut self) -> Result<()> {
        let mut names = Vec::new();
        let mut columns = Vec::new();
        for lane in &self.lanes {
            let n_genes = lane.file.shape()?.1;
            let of_lane =
                lane.file.gene_names()?.unwrap_or_else(|| (0..n_genes).map(|g| format!("gene_{g}")).collect());
            names.push(of_lane);
            let mut of_lane = lane.file.gene_columns()?;
            of_lane.retain(|(_, texts)| texts.len() == n_genes);
            columns.push(of_lane);
        }
        let identifiers = |columns: &[(String, Vec<String>)]| {
            columns.iter().find(|(name, _)| name == IDENTIFIERS).map(|(_, texts)| texts.clone())
        };
        let by_identifier: Option<Vec<Vec<String>>> = columns.iter().map(|columns| identifiers(columns)).collect();
        let keys = by_identifier.unwrap_or_else(|| names.clone());
        // Of a name that comes several times the first is meant by the first, and so on.
        let numbered = |keys: &[String]| {
            let mut seen: HashMap<String, usize> = HashMap::new();
            let mut number = |key: &String| {
                let times = seen.entry(key.clone()).or_default();
                *times += 1;
                (key.clone(), *times)
            };
            keys.iter().map(&mut number).collect::<Vec<_>>()
        };
        let keys: Vec<Vec<(String, usize)>> = keys.iter().map(|keys| numbered(keys)).collect();
        let sets: Vec<HashSet<&(String, usize)>> = keys.iter().map(|keys| keys.iter().collect()).collect();
        let shared: Vec<usize> =
            (0..keys[0].len()).filter(|&g| sets.iter().all(|set| set.contains(&keys[0][g]))).collect();
        if shared.is_empty() {
            let problem = format!("no gene is in all of the {} files", self.lanes.len());
            let remedy = "give files whose genes have the same identifiers or names";
            return Err(InputError::new(problem, remedy).in_file(self.lanes[0].file.path()).into());
        }
        let number: HashMap<&(String, usize), i64> = shared.iter().map(|&g| &keys[0][g]).zip(0..).collect();
        for (lane, keys) in self.lanes.iter_mut().zip(&keys) {
            let of_gene: Vec<i64> = keys.iter().map(|key| number.get(key).copied().unwrap_or(-1)).collect();
            let n_left_out = of_gene.iter().filter(|gene| **gene < 0).count();
            if n_left_out > 0 {
                self.notes.push(format!("{}: left out {n_left_out} genes that are not in all files", lane.name));
            }
            let of_column = |gene: &i64| usize::try_from(*gene).map_or(-1, |gene| of_gene[gene]);
            lane.gene_of = match lane.file.feature_numbers() {
                Some(features) => features.iter().map(of_column).collect(),
                None => of_gene,
            };
        }
        let pick = |texts: &[String]| shared.iter().map(|&gene| texts[gene].clone()).collect();
        self.genes = pick(&names[0]);
        self.gene_columns = columns[0].iter().map(|(name, texts)| (name.clone(), pick(texts))).collect();
        Ok(())
    }

    fn match_guides(&mut self) {
        let mut number: HashMap<String, u32> = HashMap::new();
        for lane in &mut self.lanes {
            for guide in lane.file.guide_names() {
                let next = self.guides.len() as u32;
                let at = *number.entry(guide.clone()).or_insert(next);
                if at == next {
                    self.guides.push(guide.clone());
                }
                lane.guide_of.push(at);
            }
        }
    }

    /// Finds the columns that all files have, or all tables of labels.
    fn match_columns(&mut self) -> Result<()> {
        let of_lane = |lane: &Lane| -> Result<Vec<String>> {
            let mut names: Vec<String> = lane.labels.iter().flat_map(|table| table.columns().to_vec()).collect();
            let of_file = lane.file.column_names()?;
            names.extend(of_file.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
            Ok(names)
        };
        let all: Vec<Vec<String>> = self.lanes.iter().map(of_lane).collect::<Result<_>>()?;
        let shared = |name: &&String| all.iter().all(|names| names.contains(name));
        self.columns = all[0].iter().filter(shared).cloned().collect();
        let mut missing: Vec<&String> = all.iter().flatten().filter(|name| !shared(name)).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            self.notes.push(format!("columns that are not in all files are not read: {}", first_few(&missing)));
        }
        self.lane_column = match self.columns.iter().any(|name| name == LANE[0]) {
            true => LANE[1],
            false => LANE[0],
        };
        self.columns.retain(|name| name != self.lane_column);
        self.columns.push(self.lane_column.to_owned());
        Ok(())
    }
}

/// What lanes are called: by the part of their paths in which they differ, or else by numbers.
fn lane_names(paths: &[&Path]) -> Vec<String> {
    let parts = |path: &&Path| -> Vec<String> {
        let without = if path.is_dir() { path.to_path_buf() } else { path.with_extension("") };
        let normal = |part: Component| match part {
            Component::Normal(part) => Some(part.to_string_lossy().into_owned()),
            _ => None,
        };
        without.components().filter_map(normal).collect()
    };
    let parts: Vec<Vec<String>> = paths.iter().map(parts).collect();
    for back in 1..=parts.iter().map(Vec::len).min().unwrap_or(0) {
        let names: Vec<&String> = parts.iter().map(|parts| &parts[parts.len() - back]).collect();
        if names.iter().collect::<HashSet<_>>().len() == names.len() {
            return names.into_iter().cloned().collect();
        }
    }
    (1..=paths.len()).map(|n| n.to_string()).collect()
}

/// Names of the cells: as they are where all differ, else with their lanes.
fn joined_names(lanes: &[Lane], notes: &mut Vec<String>) -> Names {
    let n_cells: usize = lanes.iter().map(|lane| lane.cells.len()).sum();
    let mut seen = HashSet::with_capacity(n_cells);
    let of_lane = |lane: &Lane| lane.cells.iter().collect::<HashSet<_>>().len();
    lanes.iter().for_each(|lane| seen.extend(lane.cells.iter()));
    if seen.len() == lanes.iter().map(of_lane).sum::<usize>() {
        return lanes.iter().flat_map(|lane| lane.cells.iter()).collect();
    }
    let (first, lane) = (lanes[0].cells.iter().next().unwrap_or_default(), &lanes[0].name);
    notes.push(format!(
        "cells of several files have the same barcode, so that all are called by their lanes: {first}-{lane}"
    ));
    let named = |lane: &Lane| lane.cells.iter().map(|cell| format!("{cell}-{}", lane.name)).collect::<Vec<_>>();
    lanes.iter().flat_map(named).collect()
}

/// Columns one after another: of their own type where all have the same, as numbers where all are, else as text.
fn joined_columns(columns: Vec<Column>) -> Column {
    fn all<T>(columns: &[Column], of: impl Fn(&Column) -> Option<Vec<T>>) -> Option<Vec<T>> {
        columns.iter().map(of).collect::<Option<Vec<_>>>().map(|parts| parts.into_iter().flatten().collect())
    }
    if let Some(values) = all(&columns, |column| match column {
        Column::Integers(values) => Some(values.clone()),
        _ => None,
    }) {
        return Column::Integers(values);
    }
    if let Some(values) = all(&columns, |column| match column {
        Column::Flags(values) => Some(values.clone()),
        _ => None,
    }) {
        return Column::Flags(values);
    }
    if let Some(values) = all(&columns, |column| match column {
        Column::Integers(values) => Some(values.iter().map(|x| *x as f64).collect()),
        Column::Numbers(values) => Some(values.clone()),
        _ => None,
    }) {
        return Column::Numbers(values);
    }
    let texts = |column: Column| -> Vec<String> {
        match column {
            Column::Categorical { levels, codes, .. } => {
                let level = |code: i64| usize::try_from(code).ok().and_then(|code| levels.get(code)).cloned();
                codes.into_iter().map(|code| level(code).unwrap_or_default()).collect()
            }
            Column::Strings(values) => values,
            Column::Integers(values) => values.iter().map(i64::to_string).collect(),
            Column::Numbers(values) => values.iter().map(f64::to_string).collect(),
            Column::Flags(values) => values.iter().map(|x| if *x { "True" } else { "False" }.to_owned()).collect(),
        }
    };
    let numbers = |column: &Column| match column {
        Column::Categorical { numbers: Some(numbers), levels, codes } if levels.len() == numbers.len() => {
            codes.iter().map(|code| usize::try_from(*code).ok().and_then(|code| numbers.get(code)).copied()).collect()
        }
        _ => None,
    };
    // Levels that are numbers stay numbers, in their order.
    match all(&columns, numbers) {
        Some(values) => Column::Integers(values),
        None => Column::Strings(columns.into_iter().flat_map(texts).collect()),
    }
}

impl ScreenFile for Lanes {
    fn path(&self) -> &Path {
        self.lanes[0].file.path()
    }

    fn format(&self) -> String {
        format!("{}, {} files", self.lanes[0].file.format(), self.lanes.len())
    }

    fn shape(&self) -> Result<(usize, usize)> {
        Ok((self.cells.len(), self.genes.len()))
    }

    fn cell_names(&self) -> Result<Option<Names>> {
        Ok(Some(self.cells.clone()))
    }

    fn gene_names(&self) -> Result<Option<Vec<String>>> {
        Ok(Some(self.genes.clone()))
    }

    fn gene_columns(&self) -> Result<Vec<(String, Vec<String>)>> {
        Ok(self.gene_columns.clone())
    }

    fn counts_place(&self) -> String {
        self.lanes[0].file.counts_place()
    }

    fn read_counts(&self, sink: &mut CountsSink) -> Result<()> {
        let length = |lane: &Lane| std::fs::metadata(lane.file.path()).map_or(0, |metadata| metadata.len());
        sink.expect_bytes(self.lanes.iter().map(length).sum());
        for lane in &self.lanes {
            // One lane is held beside what has been read of all.
            let mut silent = |_, _| {};
            let place = lane.file.counts_place();
            let mut of_lane = CountsSink::new(lane.file.path(), place, &lane.cells, &self.genes, &mut silent);
            of_lane.number_features(Some(&lane.gene_of));
            lane.file.read_counts(&mut of_lane)?;
            let counts = of_lane.finish()?.counts;
            let mut row = Vec::new();
            for n in 0..lane.cells.len() {
                counts.row(n).for_each(|gene, count| row.push((gene as i64, f64::from(count))));
                for (gene, count) in row.drain(..) {
                    sink.push(gene, count)?;
                }
                sink.end_cell()?;
            }
            sink.advance(length(lane));
        }
        Ok(())
    }

    fn column_names(&self) -> Result<Vec<String>> {
        Ok(self.columns.clone())
    }

    fn column_place(&self, name: &str) -> String {
        format!("column `{name}`")
    }

    fn column(&self, name: &str, label: bool) -> Result<Column> {
        if name == self.lane_column {
            let levels = self.lanes.iter().map(|lane| lane.name.clone()).collect();
            let codes = (0..).zip(&self.lanes).flat_map(|(code, lane)| vec![code; lane.cells.len()]).collect();
            return Ok(Column::Categorical { levels, numbers: None, codes });
        }
        let of_lane = |lane: &Lane| match &lane.labels {
            Some(table) if table.columns().iter().any(|column| column == name) => table.column(name, label),
            _ => lane.file.column(name, label),
        };
        let mut columns: Vec<Column> = self.lanes.iter().map(of_lane).collect::<Result<_>>()?;
        // A column that lacks a value somewhere may be of text here and of numbers there.
        for column in &mut columns {
            if let Column::Strings(values) = column
                && values.iter().all(|text| is_missing(text))
                && !label
            {
                *column = Column::Numbers(vec![f64::NAN; values.len()]);
            }
        }
        Ok(joined_columns(columns))
    }

    fn guide_names(&self) -> &[String] {
        &self.guides
    }

    fn guide_counts(&self) -> Result<Option<CellMatrix>> {
        if self.guides.is_empty() {
            return Ok(None);
        }
        let mut rows = Vec::with_capacity(self.cells.len());
        for lane in &self.lanes {
            let Some(found) = lane.file.guide_counts()? else {
                rows.extend(vec![Vec::new(); lane.cells.len()]);
                continue;
            };
            for row in found.rows {
                let of_all = row.into_iter().map(|(guide, count)| (lane.guide_of[guide as usize], count));
                let mut row: Vec<(u32, f64)> = of_all.collect();
                row.sort_unstable_by_key(|&(guide, _)| guide);
                rows.push(row);
            }
        }
        Ok(Some(CellMatrix { names: self.guides.clone(), rows }))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn matrices(&self) -> Result<Vec<StoredMatrix>> {
        let mut matrices = Vec::new();
        for lane in &self.lanes {
            let first = lane.file.matrices()?.into_iter().next();
            matrices.extend(
                first.map(|matrix| StoredMatrix { name: format!("{} of {}", matrix.name, lane.name), ..matrix }),
            );
        }
        Ok(matrices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_called_by_what_differs() {
        let names = |paths: &[&str]| lane_names(&paths.iter().map(Path::new).collect::<Vec<_>>()).join(" ");
        assert_eq!(names(&["a/lane_1", "a/lane_2"]), "lane_1 lane_2");
        assert_eq!(names(&["s1/outs/matrix.h5", "s2/outs/matrix.h5"]), "s1 s2");
        assert_eq!(names(&["a/b", "b/a", "a/a"]), "1 2 3");
    }

    #[test]
    fn columns_of_the_same_type_stay_so() {
        let codes = vec![1, -1];
        let level = |levels: &[&str]| Column::Categorical {
            levels: levels.iter().map(|level| (*level).to_owned()).collect(),
            numbers: None,
            codes: codes.clone(),
        };
        let Column::Strings(texts) = joined_columns(vec![level(&["a", "b"]), level(&["b", "c"])]) else { panic!() };
        assert_eq!(texts, ["b", "", "c", ""]);
        let (whole, real) = (Column::Integers(vec![1]), Column::Numbers(vec![0.5]));
        assert!(matches!(joined_columns(vec![whole, real]), Column::Numbers(x) if x == [1.0, 0.5]));
        assert!(matches!(joined_columns(vec![Column::Flags(vec![true])]), Column::Flags(_)));
    }
}
