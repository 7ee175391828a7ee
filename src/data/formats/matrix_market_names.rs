//! The files that name the cells and features of a matrix-market file, as each of the programs that write them calls them.

use std::path::{Path, PathBuf};

use crate::data::formats::features::Features;
use crate::data::formats::screen_file::{OpenOptions, has_ending};
use crate::data::formats::text::Lines;
use crate::error::{Error, InputError, Result};
use crate::words::first_few;

/// Longest line read, in bytes.
pub(super) const MAX_LINE: usize = 1 << 16;

/// Whether the name of a file is that of a matrix.
pub(super) fn is_matrix(path: &Path) -> bool {
    has_ending(path, &[".mtx", ".mtx.gz"])
}

/// The matrix of a folder: the one file whose name ends in matrix.mtx or matrix.mtx.gz, else in .mtx or .mtx.gz.
pub(super) fn find_matrix(folder: &Path) -> Result<PathBuf> {
    let files = matrices_of(folder)?;
    let refused = |problem: String, remedy: &str| InputError::new(problem, remedy).in_file(folder);
    match &files[..] {
        [file] => Ok(file.clone()),
        [] => {
            let problem = "this is a folder, and there is no matrix.mtx in it".to_string();
            let below = folders_with_a_matrix(folder);
            if let Some(alevin) = below.iter().find(|name| *name == ALEVIN) {
                return find_matrix(&folder.join(alevin));
            }
            let remedy = match below.is_empty() {
                true => {
                    "name a folder with matrix.mtx, barcodes.tsv and features.tsv (each may be .gz), or a data file"
                        .to_owned()
                }
                false => format!("name the folder below it that holds the matrix: {}", first_few(&below)),
            };
            Err(refused(problem, &remedy).into())
        }
        files => {
            let names: Vec<String> =
                files.iter().filter_map(|path| path.file_name()?.to_str().map(str::to_string)).collect();
            let problem = format!("the folder holds several matrices: {}", first_few(&names));
            Err(refused(problem, "name one of these files; its barcodes and features are those with the same prefix")
                .into())
        }
    }
}

/// The folder of the matrix within that of a run of alevin or alevin-fry.
const ALEVIN: &str = "alevin";

/// The matrices of a folder, sorted.
fn matrices_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("reading", folder, e))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_matrix(path)).collect();
    files.sort();
    Ok(files)
}

/// Names of the folders of a folder that hold matrices, sorted.
fn folders_with_a_matrix(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    let holds = |path: &Path| matrices_of(path).is_ok_and(|matrices| !matrices.is_empty());
    let mut names: Vec<String> =
        entries.filter(|entry| holds(&entry.path())).filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The names of the cells and features of a matrix, as they are listed.
pub(super) struct ListedNames {
    pub barcodes: Vec<String>,
    pub features: Features,
    pub barcodes_path: PathBuf,
    pub features_path: PathBuf,
    /// How many columns beside each other may belong to one feature: three where counts of spliced, unspliced and ambiguous
    /// molecules stand beside each other, as alevin-fry writes them.
    pub columns_per_feature: usize,
}

impl ListedNames {
    /// The names that belong to a matrix of `shape`. What was found by less than its usual name is noted.
    ///
    /// # Errors
    /// [`InputError`] if a file of names is absent or damaged.
    pub fn of(matrix: &Path, shape: [usize; 2], options: &OpenOptions, notes: &mut Vec<String>) -> Result<Self> {
        let mut found = |given: Option<&Path>, names: &NameFiles| match given {
            Some(given) => Ok(given.to_path_buf()),
            None => names.beside(matrix, notes),
        };
        let barcodes_path = found(options.barcodes, &BARCODES)?;
        let features_path = found(options.features, &FEATURES)?;
        let barcodes = BARCODES.read(&barcodes_path, shape, notes)?;
        let mut features = Features::default();
        for line in FEATURES.read(&features_path, shape, notes)? {
            let mut fields = line.into_iter();
            let id = fields.next().unwrap_or_default();
            features.names.push(fields.next().unwrap_or_else(|| id.clone()));
            features.ids.push(id);
            features.kinds.push(fields.next().unwrap_or_default());
        }
        if let Some(path) = symbols_beside(&features_path) {
            let symbols = read_table(&path)?;
            if symbols.len() != features.ids.len() {
                let problem = format!("it has {} names for {} genes", symbols.len(), features.ids.len());
                let remedy = format!("write it and {} again", features_path.display());
                return Err(InputError::new(problem, remedy).in_file(&path).into());
            }
            features.names = symbols.into_iter().map(|mut line| line.swap_remove(0)).collect();
        }
        let of_alevin = stem_of(matrix).ends_with(QUANTS) && stem_of(&features_path).ends_with(QUANTS_COLUMNS);
        Ok(Self {
            barcodes: barcodes.into_iter().map(|mut line| line.swap_remove(0)).collect(),
            features,
            barcodes_path,
            features_path,
            columns_per_feature: if of_alevin { 3 } else { 1 },
        })
    }
}

/// What alevin and alevin-fry call a matrix of cells x genes, and what the name of the file of its genes ends in.
const QUANTS: &str = "quants_mat";
const QUANTS_COLUMNS: &str = "quants_mat_cols";

/// The name of a file without its ending.
fn stem_of(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The names of the genes beside their identifiers, as bustools and kb write them: `x.genes.names.txt` beside `x.genes.txt`.
fn symbols_beside(features: &Path) -> Option<PathBuf> {
    let stem = stem_of(features);
    let endings = NAME_ENDINGS.iter().map(|ending| features.with_file_name(format!("{stem}{SYMBOLS}{ending}")));
    endings.into_iter().find(|path| stem.ends_with("genes") && path.is_file())
}

/// What stands behind the name of a list of genes in that of their names.
const SYMBOLS: &str = ".names";

/// The files that name one side of a matrix.
struct NameFiles {
    /// What they are called, in the order in which they are looked for.
    stems: &'static [&'static str],
    /// What else may be part of their names.
    also: &'static [&'static str],
    /// What the name of a matrix ends in, and what stands behind it in the name of such a file.
    appended: (&'static str, &'static str),
    /// The flag that names one.
    flag: &'static str,
    /// What the first line of such a file may hold that is a header.
    headers: &'static [&'static str],
    /// Whether one file may serve several matrices.
    shared: bool,
}

const BARCODES: NameFiles = NameFiles {
    stems: &["barcodes"],
    also: &["barcode", "cells", "cell_metadata"],
    appended: (QUANTS, "_rows"),
    flag: "--barcodes",
    headers: &["barcode", "barcodes", "cell", "cells", "cell_id", "cell_barcode", "cb", "bc_wells"],
    shared: false,
};
const FEATURES: NameFiles = NameFiles {
    stems: &["features", "genes"],
    also: &["feature", "gene"],
    appended: (QUANTS, "_cols"),
    flag: "--features",
    headers: &[
        "gene",
        "genes",
        "gene_id",
        "gene_ids",
        "gene_name",
        "feature",
        "features",
        "feature_id",
        "symbol",
        "id",
        "ensembl_id",
    ],
    shared: true,
};
/// What R calls a column that has no name.
const NAMELESS: [&str; 3] = ["x", "V1", ""];
/// Endings of such files.
const NAME_ENDINGS: [&str; 6] = [".tsv.gz", ".tsv", ".txt.gz", ".txt", ".csv.gz", ".csv"];
/// Last words of the name of a matrix that say no more than that it is one.
const MATRIX_WORDS: [&str; 17] = [
    "matrix",
    "counts",
    "count",
    "raw",
    "filtered",
    "umi",
    "umis",
    "expression",
    "mtx",
    // Of several matrices of the same cells and genes, as kb writes them.
    "mature",
    "nascent",
    "ambiguous",
    "spliced",
    "unspliced",
    "cell",
    "nucleus",
    "total",
];

/// Text without what separates the words of a name at its end.
fn bare(text: &str) -> &str {
    text.trim_end_matches(['_', '-', '.', ' '])
}

impl NameFiles {
    /// The lines of such a file of a matrix of `shape`, without its header: it has one where it has a line too many for the matrix.
    fn read(&self, path: &Path, shape: [usize; 2], notes: &mut Vec<String>) -> Result<Vec<Vec<String>>> {
        let mut table = read_table(path)?;
        let too_many = table.len().checked_sub(1).is_some_and(|n| shape.contains(&n));
        if too_many && !shape.contains(&table.len()) && self.is_header(&table[0]) {
            let header = first_few(&table[0]);
            notes.push(format!("the first line of {} is taken for its header: {header}", path.display()));
            table.remove(0);
        }
        Ok(table)
    }

    /// Whether a first line is a header.
    fn is_header(&self, line: &[String]) -> bool {
        let is_one = |field: &String| {
            NAMELESS.contains(&field.as_str()) || self.headers.contains(&field.to_lowercase().as_str())
        };
        line.first().is_some_and(is_one)
    }

    /// What a name begins with before it says that it is such a file; `None` if it does not.
    fn before_stem<'a>(&self, name: &'a str) -> Option<&'a str> {
        let small = name.to_ascii_lowercase();
        let body = NAME_ENDINGS.iter().find_map(|ending| small.strip_suffix(ending))?;
        // They go with a file of identifiers.
        if body.strip_suffix(SYMBOLS).is_some_and(|body| body.ends_with("genes")) {
            return None;
        }
        let at = self.stems.iter().chain(self.also).find_map(|stem| {
            let at = body.rfind(stem)?;
            // A word of its own.
            let apart = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
            (apart(body[..at].chars().last()) && apart(body[at + stem.len()..].chars().next())).then_some(at)
        })?;
        Some(bare(&name[..at]))
    }

    /// The file that belongs to a matrix: `GSM1_matrix.mtx.gz` goes with `GSM1_barcodes.tsv.gz`; else the one whose name begins as
    /// that of the matrix, or the only one beside the only matrix, or one for all matrices where that may be. What was found by less
    /// than its usual name is noted.
    fn beside(&self, matrix: &Path, notes: &mut Vec<String>) -> Result<PathBuf> {
        let name = matrix.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let whole = name.trim_end_matches(".gz").trim_end_matches(".mtx");
        let prefix = whole.strip_suffix("matrix").unwrap_or("");
        let folder = matrix.parent().unwrap_or(Path::new(""));
        let mut tried = Vec::new();
        for stem in self.stems {
            for ending in ["tsv.gz", "tsv"] {
                let path = folder.join(format!("{prefix}{stem}.{ending}"));
                if path.is_file() {
                    return Ok(path);
                }
                tried.push(format!("{prefix}{stem}.{ending}"));
            }
        }
        let names = file_names(folder);
        let (of, appended) = self.appended;
        if whole.ends_with(of)
            && let Some(name) = names.iter().find(|name| {
                name.strip_prefix(whole)
                    .and_then(|rest| rest.strip_prefix(appended))
                    .is_some_and(|ending| NAME_ENDINGS.contains(&ending))
            })
        {
            return Ok(folder.join(name));
        }
        let matrices = names.iter().filter(|name| is_matrix(Path::new(name))).count();
        let candidates: Vec<(&String, &str)> =
            names.iter().filter_map(|name| Some((name, self.before_stem(name)?))).collect();
        let mut begins = vec![bare(whole)];
        while let Some(last) = begins.last().copied()
            && let Some(word) = MATRIX_WORDS.iter().find(|word| last.to_ascii_lowercase().ends_with(**word))
        {
            begins.push(bare(&last[..last.len() - word.len()]));
        }
        let belongs: Vec<&String> =
            candidates.iter().filter(|(_, before)| begins.contains(before)).map(|(name, _)| *name).collect();
        let found = match (&belongs[..], &candidates[..]) {
            ([only], _) => Some(*only),
            ([], [(only, _)]) if matrices == 1 || self.shared => Some(*only),
            _ => None,
        };
        if let Some(found) = found {
            notes.push(format!("{} are read from {found}", self.stems[0]));
            return Ok(folder.join(found));
        }
        let there: Vec<&String> = candidates.iter().map(|(name, _)| *name).collect();
        let (problem, remedy) = match there.is_empty() {
            true => (
                format!("the file of its {} is missing", self.stems[0]),
                format!("put one of {} beside it, or name the file with {}", first_few(&tried), self.flag),
            ),
            false => (
                format!(
                    "it is not told which file of {} belongs to it: {} are there",
                    self.stems[0],
                    first_few(&there)
                ),
                format!("name the file with {}, or call it {}", self.flag, first_few(&tried)),
            ),
        };
        Err(InputError::new(problem, remedy).in_file(matrix).into())
    }
}

/// Names of the files of a folder, sorted.
fn file_names(folder: &Path) -> Vec<String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The lines of a tab-separated file, of which any fields may be in quotation marks. Files of commas are read so too.
fn read_table(path: &Path) -> Result<Vec<Vec<String>>> {
    let mut lines = Lines::open(path, MAX_LINE)?;
    let mut table = Vec::new();
    let delimiter = if has_ending(path, &[".csv", ".csv.gz"]) { ',' } else { '\t' };
    while let Some(line) = lines.next()? {
        let Ok(text) = std::str::from_utf8(line) else {
            return Err(lines.bad_line("it is not valid UTF-8").into());
        };
        table.push(text.split(delimiter).map(|field| unquoted(field.trim()).to_string()).collect());
    }
    // An empty last line is no entry.
    while table.last().is_some_and(|line: &Vec<String>| line.len() == 1 && line[0].is_empty()) {
        table.pop();
    }
    Ok(table)
}

/// A field without the quotation marks around it.
fn unquoted(field: &str) -> &str {
    field.strip_prefix('"').and_then(|field| field.strip_suffix('"')).unwrap_or(field)
}
