//! The columns that annotate cells: where they are, and which of them are used for what.

use std::collections::BTreeSet;
use std::path::Path;

use crate::data::dataset::{Categorical, Continuous, Covariates, Guides};
use crate::data::formats::column::{Column, Levels, is_missing};
use crate::data::formats::labels::LabelTable;
use crate::data::formats::screen_file::ScreenFile;
use crate::data::loading::assignments::{
    Assignments, StoredLevels, doubtful_separator, from_table_rows, parts_of_label,
};
use crate::data::loading::controls::named_controls;
use crate::data::loading::guards::similar_labels;
use crate::data::loading::intervention_columns::{InterventionColumns, doses_in};
use crate::data::loading::members::{GuideTargets, Members};
use crate::data::loading::options::LoadOptions;
use crate::data::loading::separators::unread_combinations;
use crate::error::{InputError, Result};
use crate::words::{first_few, nearest};

/// UsedColumns that usually hold the intervention, looked for when none is named.
pub(crate) const USUAL_LABELS: [&str; 13] = [
    "perturbation",
    "intervention",
    "condition",
    "treatment",
    "guide_identity",
    "guide_id",
    "feature_call",
    "target_gene",
    "gene",
    "target",
    "label",
    "labels",
    "chem",
];

/// The columns that annotate cells: those of the file, and those of a table of labels, which come first.
pub(crate) struct Annotations<'a> {
    pub file: &'a dyn ScreenFile,
    pub table: Option<&'a LabelTable>,
    pub n_cells: usize,
}

impl Annotations<'_> {
    fn of_table(&self, name: &str) -> Option<&LabelTable> {
        self.table.filter(|table| table.columns().iter().any(|column| column == name))
    }

    fn names(&self) -> Result<Vec<String>> {
        let mut names = self.table.map_or_else(Vec::new, |table| table.columns().to_vec());
        names.extend(self.file.column_names()?);
        Ok(names)
    }

    /// File and place of a column, for messages.
    pub fn place(&self, name: &str) -> (&Path, String) {
        match self.of_table(name) {
            Some(table) => (table.path(), format!("column `{name}`")),
            None => (self.file.path(), self.file.column_place(name)),
        }
    }

    /// An error about a column.
    pub fn error(&self, name: &str, error: InputError) -> InputError {
        let (path, place) = self.place(name);
        match name {
            "" => error.in_file(path),
            _ => error.in_file(path).at(place),
        }
    }

    fn read(&self, name: &str, label: bool) -> Result<Column> {
        self.read_with(name, label, &[])
    }

    /// As [`Annotations::read`], but a text that is one of `named` is not missing.
    fn read_with(&self, name: &str, label: bool, named: &[String]) -> Result<Column> {
        let column = match self.of_table(name) {
            Some(table) => table.column_with(name, label, named)?,
            None => self.file.column(name, label)?,
        };
        match column.len() {
            n if n == self.n_cells => Ok(column),
            n => {
                let problem = format!("it has {n} values for {} cells", self.n_cells);
                Err(self.error(name, InputError::new(problem, "give one value per cell")).into())
            }
        }
    }

    /// The levels of a column; labels that are `named` are some, whatever they look like. `notes` receives what was joined.
    fn levels(&self, name: &str, (label, named): (bool, &[String]), notes: &mut Vec<String>) -> Result<Levels> {
        let column = self.read_with(name, label, named)?;
        let mut levels = column.into_levels_with(named).map_err(|e| self.error(name, e))?;
        let joined = levels.join_blanks();
        if !joined.is_empty() {
            let shown: Vec<String> = joined.iter().map(|level| format!("\"{level}\"")).collect();
            let place = self.place(name).1;
            notes.push(format!("{place}: blanks around levels do not count: {}", first_few(&shown)));
        }
        Ok(levels)
    }

    fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.read(name, false)?.into_numbers().map_err(|e| self.error(name, e))?)
    }

    /// The column of the intervention: as named, else one with a usual name.
    fn choose_label(&self, options: &LoadOptions, notes: &mut Vec<String>) -> Result<String> {
        if let Some(key) = &options.label_key {
            return Ok(key.clone());
        }
        // Who gives a table of labels means one of its columns.
        let (columns, path) = match self.table {
            Some(table) => (table.columns().to_vec(), table.path()),
            None => (self.file.column_names()?, self.file.path()),
        };
        let mut usual: Vec<&str> = USUAL_LABELS.into_iter().filter(|name| columns.iter().any(|c| c == name)).collect();
        if let (Some(_), [only]) = (self.table, &columns[..]) {
            usual = vec![only];
        }
        match usual[..] {
            [key] => {
                let place = match self.table {
                    Some(table) => format!("column `{key}` of {}", table.path().display()),
                    None => self.file.column_place(key),
                };
                notes.push(format!("interventions are read from {place}"));
                Ok(key.to_string())
            }
            [] if columns.is_empty() => Err(InputError::new(
                "it says nothing about the cells' interventions",
                "give a table of barcodes and interventions with --labels FILE",
            )
            .in_file(path)
            .into()),
            [] => Err(InputError::new(
                "none of the cells' columns has a usual name for the intervention",
                format!("name one of {} with --label-key", first_few(&columns)),
            )
            .in_file(path)
            .into()),
            _ => Err(InputError::new(
                format!("several columns could hold the intervention: {}", first_few(&usual)),
                "name the right one with --label-key",
            )
            .in_file(path)
            .into()),
        }
    }

    /// Every named column exists and no column is used for two things.
    fn check_keys(&self, options: &LoadOptions, label_key: Option<&String>) -> Result<()> {
        let columns = self.names()?;
        let categorical = options.batch_key.iter().chain(&options.categorical_covariates);
        let covariates: Vec<&String> = categorical.chain(&options.continuous_covariates).collect();
        let label = label_key.filter(|_| !options.unlabelled);
        let others =
            label.into_iter().chain(&options.dose_key).chain(&options.guide_key).chain(&options.size_factor_key);
        for key in covariates.iter().copied().chain(others) {
            if !columns.contains(key) {
                let known = match (columns.is_empty(), nearest(key, columns.iter().map(String::as_str))) {
                    (true, _) => "the file says nothing of its cells: name a table of them with --labels".to_owned(),
                    (false, Some(near)) => format!("did you mean `{near}`? the columns are {}", first_few(&columns)),
                    (false, None) => format!("the columns are {}", first_few(&columns)),
                };
                return Err(self.error(key, InputError::new("there is no such column of the cells", known)).into());
            }
        }
        let answers = label.into_iter().chain(&options.dose_key);
        if let Some(key) = answers.into_iter().find(|key| covariates.contains(key)) {
            return Err(self
                .error(
                    key,
                    InputError::new(
                        "the intervention label cannot be a covariate as well: the decoder would see the answer",
                        "leave it out of the covariates",
                    ),
                )
                .into());
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = covariates.iter().find(|key| !seen.insert(**key)) {
            return Err(self.error(twice, InputError::new("it is named as a covariate twice", "name it once")).into());
        }
        Ok(())
    }

    /// Reads every column that `options` name.
    ///
    /// # Errors
    /// [`InputError`] if the label cannot be told, a column is absent or used for two things, or its values are of the
    /// wrong kind or number.
    pub fn read_columns(&self, options: &LoadOptions, notes: &mut Vec<String>) -> Result<UsedColumns> {
        let no_label = options.unlabelled || options.reads_no_label();
        let label_key = if no_label { None } else { Some(self.choose_label(options, notes)?) };
        self.check_keys(options, label_key.as_ref())?;
        let targets = options.guide_targets.as_ref().map(|path| GuideTargets::read(path)).transpose()?;
        if let (Some(targets), Some(separator)) = (&targets, &options.combination_separator) {
            targets.check_separator(separator)?;
        }
        let mut control = options.control.clone();
        let (assigned, label_key) = match label_key {
            Some(key) => (self.assigned_by_label(&key, options, (targets.as_ref(), &mut control), notes)?, key),
            None if options.unlabelled => {
                let codes = vec![Some(0); self.n_cells];
                let labels = Levels { names: vec!["unlabelled".to_owned()], numbers: None, codes };
                (Assignments::plain(labels), String::new())
            }
            None => self.assigned_by_columns(options, notes)?,
        };
        // Labels with commas, and patterns, are told by what there is to name.
        let parts = assigned.parts.iter().flatten().map(|(part, _)| part.as_str());
        let of_targets = targets.iter().flat_map(GuideTargets::names);
        let known = parts.chain(of_targets).chain(assigned.labels.names.iter().map(String::as_str)).collect();
        let several = assigned.parts.iter().zip(&assigned.labels.names).filter(|(parts, _)| parts.len() > 1);
        let control = named_controls(&control, &known, &several.map(|(_, name)| name.as_str()).collect());
        let members = Members::new(&assigned, targets.as_ref(), &control)?;
        let mut warnings = self.separator_warnings(&assigned, options, &control, targets.is_some());
        warnings.extend(similar_labels(&assigned.labels, &self.place(&label_key).1));
        let mut categorical = Vec::new();
        for key in options.batch_key.iter().chain(&options.categorical_covariates) {
            categorical.push((key.clone(), self.levels(key, (false, &[]), notes)?));
        }
        let mut continuous = Vec::new();
        for key in &options.continuous_covariates {
            continuous.push(Continuous { name: key.clone(), values: self.numbers(key)? });
        }
        let guides = match &options.guide_key {
            Some(key) => Some((key.clone(), self.levels(key, (true, &options.control), notes)?)),
            None => None,
        };
        let size_factor_key = options.size_factor_key.as_deref().or(self.file.stored_library());
        let size_factors = match size_factor_key {
            Some(key) => Some((key.to_string(), self.numbers(key)?)),
            None => None,
        };
        let Assignments { labels, plain, stored, .. } = assigned;
        let plain = plain && targets.is_none();
        Ok(UsedColumns {
            label_key,
            labels,
            control,
            members,
            plain,
            stored,
            warnings,
            guides,
            categorical,
            continuous,
            size_factors,
        })
    }

    /// What the label column says of each cell, and the doses of another; the entries of `control` become the labels that they name.
    fn assigned_by_label(
        &self,
        key: &str,
        options: &LoadOptions,
        (targets, control): (Option<&GuideTargets>, &mut Vec<String>),
        notes: &mut Vec<String>,
    ) -> Result<Assignments> {
        let separator = options.combination_separator.as_deref();
        let located = |error: InputError| self.error(key, error);
        let rows = self.of_table(key).filter(|table| table.has_several_rows());
        let assigned = match rows {
            Some(table) => from_table_rows(&table.all_values(key)?, separator),
            None => {
                let levels = self.levels(key, (true, &options.control), notes)?;
                let parts = levels.names.iter().flat_map(|name| parts_of_label(name, separator)).collect::<Vec<_>>();
                let of_targets = targets.into_iter().flat_map(GuideTargets::names);
                let labels = levels.names.iter().map(String::as_str);
                let known = labels.chain(parts.iter().map(String::as_str)).chain(of_targets).collect();
                let joint = levels.names.iter().filter(|name| parts_of_label(name, separator).len() > 1);
                *control = named_controls(control, &known, &joint.map(String::as_str).collect());
                match separator {
                    Some(separator) => Assignments::separated(levels, separator, control).map_err(located)?,
                    None => Assignments::plain(levels),
                }
            }
        };
        let Some(dose_key) = &options.dose_key else { return Ok(assigned) };
        if rows.is_some() {
            let problem = "doses are not read from a table with several rows per barcode";
            let remedy = "write a row per barcode, with labels and doses such as `A+B` and `1+0.5`";
            return Err(self.error(dose_key, InputError::new(problem, remedy)).into());
        }
        let doses = self.read(dose_key, false)?;
        let place = |n: usize| format!("the first such cell is number {n}");
        let dosed = assigned.with_doses(doses, separator, control, place);
        Ok(dosed.map_err(|error| self.error(dose_key, error))?)
    }

    /// What columns of numbers or counts of guides say of each cell, and the name of the first of them.
    fn assigned_by_columns(&self, options: &LoadOptions, notes: &mut Vec<String>) -> Result<(Assignments, String)> {
        let mut rows = InterventionColumns::new(self.n_cells);
        let place = match &options.intervention_columns {
            Some(entries) => {
                for entry in entries {
                    self.add_columns(entry, &mut rows, notes)?;
                }
                entries[0].clone()
            }
            None => {
                let Some(guides) = self.file.guide_counts()? else {
                    let problem =
                        "it has no features of type CRISPR Guide Capture, whose counts --guide-threshold is about";
                    let remedy =
                        "name columns with counts of guides with --intervention-columns, or a label with --label-key";
                    return Err(InputError::new(problem, remedy).in_file(self.file.path()).into());
                };
                rows.add_matrix(guides).map_err(|error| self.error("", error))?;
                String::new()
            }
        };
        rows.check_names().map_err(|error| self.error(&place, error))?;
        Ok((rows.finish(options.guide_threshold), place))
    }

    /// Adds the columns that an entry of the intervention columns means: one of that name, those of a matrix of that name, or
    /// all that begin with it and hold numbers, which are called after what follows.
    fn add_columns(&self, entry: &str, rows: &mut InterventionColumns, notes: &mut Vec<String>) -> Result<()> {
        let columns = self.names()?;
        let matrices = self.file.cell_matrix_names()?;
        if matrices.iter().any(|name| name == entry) {
            let matrix = self.file.cell_matrix(entry)?;
            if matrix.rows.len() != self.n_cells {
                let problem = format!("it has {} rows for {} cells", matrix.rows.len(), self.n_cells);
                return Err(InputError::new(problem, "write the file again")
                    .in_file(self.file.path())
                    .at(entry)
                    .into());
            }
            let located = |error: InputError| error.in_file(self.file.path()).at(entry);
            return Ok(rows.add_matrix(matrix).map_err(located)?);
        }
        if columns.iter().any(|column| column == entry) {
            let values = doses_in(self.read(entry, false)?).map_err(|error| self.error(entry, error))?;
            return Ok(rows.add(entry, &values).map_err(|error| self.error(entry, error))?);
        }
        let beginning = entry.strip_suffix('*').unwrap_or(entry);
        let among = match (beginning, self.table) {
            ("", Some(table)) => table.columns().to_vec(),
            _ => columns.clone(),
        };
        let mut others = Vec::new();
        let mut n_found = 0;
        let begins = |column: &&String| {
            column.starts_with(beginning) && column.len() > beginning.len() && !matrices.contains(column)
        };
        for column in among.iter().filter(begins) {
            match self.read(column, false).and_then(|values| Ok(doses_in(values)?)) {
                Ok(values) => {
                    rows.add(&column[beginning.len()..], &values).map_err(|error| self.error(column, error))?;
                    n_found += 1;
                }
                Err(_) => others.push(column),
            }
        }
        if n_found == 0 {
            let known = [&columns[..], &matrices[..]].concat();
            let remedy = match nearest(beginning, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`? the columns are {}", first_few(&known)),
                None => format!("the columns are {}", first_few(&known)),
            };
            let problem =
                format!("no column of numbers is called `{entry}` or begins so, as --intervention-columns says");
            let file = self.table.map_or(self.file.path(), |table| table.path());
            return Err(InputError::new(problem, remedy).in_file(file).into());
        }
        match beginning {
            "" => notes.push(format!("{n_found} columns of numbers are interventions")),
            _ => notes.push(format!("{n_found} columns that begin with `{beginning}` are interventions")),
        }
        if !others.is_empty() {
            notes.push(format!(
                "columns that begin with `{beginning}` and hold no numbers are no interventions: {}",
                first_few(&others)
            ));
        }
        Ok(())
    }

    /// What might be wrong with the separator, or with its absence.
    fn separator_warnings(
        &self,
        assigned: &Assignments,
        options: &LoadOptions,
        control: &[String],
        by_target: bool,
    ) -> Vec<String> {
        let labels = &assigned.labels;
        let warning = match &options.combination_separator {
            Some(separator) => doubtful_separator(assigned, separator, control),
            None if assigned.plain && !by_target => unread_combinations(&labels.names, &labels.sizes(), control),
            None => None,
        };
        warning.into_iter().collect()
    }

    /// A level for each cell of a column.
    ///
    /// # Errors
    /// [`InputError`] if a cell has none: `what` it lacks, and the `remedy`. `place` puts a cell in words.
    pub fn complete(
        &self,
        key: &str,
        levels: &Levels,
        (what, remedy): (&str, &str),
        place: impl Fn(usize) -> String,
    ) -> Result<Vec<u32>> {
        let Some(first) = levels.codes.iter().position(Option::is_none) else {
            return Ok(levels.codes.iter().flatten().copied().collect());
        };
        let n_missing = levels.codes.iter().filter(|code| code.is_none()).count();
        let n_cells = levels.codes.len();
        let problem = format!("{n_missing} of {n_cells} cells have no {what}, the first is {}", place(first));
        Err(self.error(key, InputError::new(problem, remedy)).into())
    }

    /// Covariates of the cells that are used, in the order that the model receives them in.
    ///
    /// # Errors
    /// [`InputError`] if a cell has no value, or a number is not finite. `place` puts a cell in words.
    pub fn covariates(
        &self,
        categorical: Vec<(String, Levels)>,
        continuous: Vec<Continuous>,
        place: impl Fn(usize) -> String,
        notes: &mut Vec<String>,
    ) -> Result<Covariates> {
        let mut covariates = Covariates::default();
        for (name, mut levels) in categorical {
            self.drop_unused(&name, &mut levels, notes);
            let missing = ("value", "label these cells or leave them out of the file");
            let codes = self.complete(&name, &levels, missing, &place)?;
            covariates.categorical.push(Categorical { name, levels: levels.names, codes });
        }
        for Continuous { name, values } in &continuous {
            if let Some(n) = values.iter().position(|x| !x.is_finite()) {
                let error = InputError::new(
                    format!("the value of {} is {}", place(n), values[n]),
                    "a continuous covariate needs a finite number for every cell",
                );
                return Err(self.error(name, error).into());
            }
        }
        covariates.continuous = continuous;
        Ok(covariates)
    }

    /// The guides of the cells that are used; a cell may have none.
    ///
    /// # Errors
    /// [`InputError`] if no cell has one.
    pub fn guides(&self, (name, mut levels): (String, Levels), notes: &mut Vec<String>) -> Result<Guides> {
        self.drop_unused(&name, &mut levels, notes);
        if levels.names.is_empty() {
            let error = InputError::new("no cell has a guide", "check the column, or leave out --guide-key");
            return Err(self.error(&name, error).into());
        }
        Ok(Guides { name, names: levels.names, codes: levels.codes })
    }

    /// Restricts a column to the levels in use; the old number of each level that stays.
    pub fn drop_unused(&self, key: &str, levels: &mut Levels, notes: &mut Vec<String>) -> Vec<usize> {
        let before = levels.names.clone();
        let kept = levels.drop_unused();
        let unused: Vec<&String> = before
            .iter()
            .enumerate()
            .filter(|(level, name)| kept.binary_search(level).is_err() && !is_missing(name))
            .map(|(_, name)| name)
            .collect();
        if !unused.is_empty() {
            let place = self.place(key).1;
            notes.push(format!("{place}: levels without cells are left out: {}", first_few(&unused)));
        }
        kept
    }
}

/// The columns that are used.
pub(crate) struct UsedColumns {
    /// Name of the column of the intervention, or of the first of several; empty if none is read.
    pub label_key: String,
    pub labels: Levels,
    /// The labels of controls.
    pub control: Vec<String>,
    /// The interventions, or controls, that each of the labels stands for.
    pub members: Members,
    /// Whether each label is one intervention of its own name.
    pub plain: bool,
    /// The levels of the column as it is stored, and their numbers; absent where there is none.
    pub stored: Option<StoredLevels>,
    /// What might be wrong with how they were read.
    pub warnings: Vec<String>,
    /// Name of their column, and the guide of each cell.
    pub guides: Option<(String, Levels)>,
    /// By name, the batch first.
    pub categorical: Vec<(String, Levels)>,
    pub continuous: Vec<Continuous>,
    /// Name of their column, and the size factor of each cell.
    pub size_factors: Option<(String, Vec<f64>)>,
}

impl UsedColumns {
    /// Restricts every column to the cells that are used, if not all are; size factors have been taken out before.
    pub fn select(&mut self, cells: Option<&[usize]>) {
        let Some(cells) = cells else { return };
        self.labels.codes = pick(&self.labels.codes, cells);
        let columns = self.categorical.iter_mut().chain(&mut self.guides);
        columns.for_each(|(_, levels)| levels.codes = pick(&levels.codes, cells));
        self.continuous.iter_mut().for_each(|covariate| covariate.values = pick(&covariate.values, cells));
    }
}

/// The values of `cells`.
pub(crate) fn pick<T: Copy>(values: &[T], cells: &[usize]) -> Vec<T> {
    cells.iter().map(|&n| values[n]).collect()
}
