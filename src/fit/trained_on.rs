//! What a model was trained on: the names that tie it to data.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::data::counts::in_memory::{Counts, CountsBuilder};
use crate::data::dataset::{Categorical, Continuous, Covariates, Dataset, InterventionRows};
use crate::data::names::{Names, without_version};
use crate::error::{Error, InputError, Result};
use crate::model::architecture::Architecture;
use crate::results::catalogue::ResultsFile;
use crate::results::model_file::saved_metadata;
use crate::settings::Settings;
use crate::words::rejoined;

/// Names listed in a message.
const MOST_NAMES: usize = 5;

/// Names of everything that a model was trained on, in the model's order.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedOn {
    /// Interventions.
    pub interventions: Vec<String>,
    /// Genes.
    pub genes: Vec<String>,
    /// Categorical covariates, each with its levels.
    pub categorical: Vec<(String, Vec<String>)>,
    /// Continuous covariates.
    pub continuous: Vec<String>,
    /// The folder that the model was read from, for messages.
    folder: Option<PathBuf>,
}

impl TrainedOn {
    /// The names of a screen.
    pub(crate) fn of(data: &Dataset) -> Self {
        let Covariates { categorical, continuous } = &data.covariates;
        Self {
            interventions: data.intervention_names.clone(),
            genes: data.gene_names.clone(),
            categorical: categorical.iter().map(|c| (c.name.clone(), c.levels.clone())).collect(),
            continuous: continuous.iter().map(|c| c.name.clone()).collect(),
            folder: None,
        }
    }

    /// The names in the model of a results folder.
    ///
    /// # Errors
    /// [`InputError`] for a model that does not say what it was trained on.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = ResultsFile::Model.within(folder);
        let metadata = saved_metadata(&path)?;
        let parsed = |key: &str| -> Result<serde_json::Value> {
            let value = metadata.get(key).and_then(|text| serde_json::from_str(text).ok());
            Ok(value.ok_or_else(|| {
                InputError::new(
                    format!("the model does not say which {key} it was trained on"),
                    "train it again with this version of svae-cpu",
                )
                .in_file(&path)
            })?)
        };
        let names = |value: &serde_json::Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
        };
        let categorical = parsed("categorical_covariates")?;
        let categorical = categorical.as_array().into_iter().flatten();
        Ok(Self {
            interventions: names(&parsed("interventions")?),
            genes: names(&parsed("genes")?),
            categorical: categorical
                .map(|c| (c["name"].as_str().unwrap_or_default().to_owned(), names(&c["levels"])))
                .collect(),
            continuous: names(&parsed("continuous_covariates")?),
            folder: Some(folder.to_path_buf()),
        })
    }

    /// The architecture of a network of these settings.
    pub(crate) fn architecture(&self, settings: &Settings) -> Architecture {
        settings.architecture(&self.dataset(Counts::from_dense(self.genes.len().max(1), &[]), Names::default()))
    }

    /// What is wrong with a request to the model.
    pub(crate) fn error(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        self.located(InputError::new(problem, remedy)).into()
    }

    /// As [`TrainedOn::error`], at a flag of the command line.
    pub(crate) fn error_at(&self, problem: impl Into<String>, remedy: impl Into<String>, flag: &str) -> Error {
        self.located(InputError::new(problem, remedy)).at(flag).into()
    }

    /// The error, in the folder that the model was read from.
    pub(crate) fn located(&self, error: InputError) -> InputError {
        match &self.folder {
            Some(folder) => error.in_file(folder),
            None => error,
        }
    }

    /// A data set over the model's genes, interventions and covariates, whose cells have neither.
    pub(crate) fn dataset(&self, counts: Counts, cell_names: Names) -> Dataset {
        let n = cell_names.len();
        let mut interventions = InterventionRows::default();
        (0..n).for_each(|_| interventions.push(&[]));
        Dataset {
            source: self.folder.as_ref().map_or_else(String::new, |folder| folder.display().to_string()),
            counts: counts.into(),
            library: vec![1.0; n],
            interventions,
            intervention_names: self.interventions.clone(),
            gene_names: self.genes.clone(),
            cell_names,
            covariates: Covariates {
                categorical: self
                    .categorical
                    .iter()
                    .map(|(name, levels)| Categorical { name: name.clone(), levels: levels.clone(), codes: vec![0; n] })
                    .collect(),
                continuous: self
                    .continuous
                    .iter()
                    .map(|name| Continuous { name: name.clone(), values: vec![0.0; n] })
                    .collect(),
            },
            guides: None,
            truth: None,
        }
    }

    /// Cells as the model sees them. Those that have its genes and covariates are taken as they are, others [matched](Self::matched).
    ///
    /// # Errors
    /// As [`TrainedOn::matched`].
    pub(crate) fn as_seen<'a>(&self, cells: &'a Dataset, covariates: bool) -> Result<Cow<'a, Dataset>> {
        match (Self { folder: self.folder.clone(), interventions: self.interventions.clone(), ..Self::of(cells) })
            == *self
        {
            true => Ok(Cow::Borrowed(cells)),
            false => Ok(Cow::Owned(self.matched(cells, covariates, &mut Vec::new())?)),
        }
    }

    /// Cells matched with the model: their genes by name, their covariates (if `covariates` is set) by name and by the names
    /// of levels, their size factors being the counts of its genes. `notes` receives sentences on what is missing.
    ///
    /// # Errors
    /// [`InputError`] if no gene matches or two columns bear the name of one gene, for a covariate that is not there, and
    /// for a level that the model has not seen.
    pub(crate) fn matched(&self, data: &Dataset, covariates: bool, notes: &mut Vec<String>) -> Result<Dataset> {
        let mut cells = self.dataset(self.matched_counts(data, notes)?, data.cell_names.clone());
        cells.source.clone_from(&data.source);
        cells.library = (0..cells.n_cells()).map(|n| cells.counts.row(n).sum() as f64).collect();
        if covariates {
            self.match_covariates(data, &mut cells.covariates)?;
        }
        Ok(cells)
    }

    /// Levels and values of the model's covariates, in its order.
    fn match_covariates(&self, data: &Dataset, ours: &mut Covariates) -> Result<()> {
        let missing = |name: &str| {
            let remedy = "give every covariate that the model was trained with";
            InputError::new(format!("there is no covariate `{name}`"), remedy).in_file(&data.source)
        };
        for ours in &mut ours.categorical {
            let found = data.covariates.categorical.iter().find(|theirs| theirs.name == ours.name);
            let theirs = found.ok_or_else(|| missing(&ours.name))?;
            let numbers: Vec<u32> = theirs
                .levels
                .iter()
                .map(|level| match ours.levels.iter().position(|known| known == level) {
                    Some(number) => Ok(number as u32),
                    None => Err(InputError::new(
                        format!("the model was not trained on the level `{level}` of `{}`", ours.name),
                        format!("its levels are {}", some(&ours.levels)),
                    )
                    .in_file(&data.source)),
                })
                .collect::<Result<_, InputError>>()?;
            ours.codes = theirs.codes.iter().map(|&code| numbers[code as usize]).collect();
        }
        for ours in &mut ours.continuous {
            let found = data.covariates.continuous.iter().find(|theirs| theirs.name == ours.name);
            ours.values.clone_from(&found.ok_or_else(|| missing(&ours.name))?.values);
        }
        Ok(())
    }

    /// The counts of the model's genes, in its order; notes say which are missing and how many others are ignored.
    fn matched_counts(&self, data: &Dataset, notes: &mut Vec<String>) -> Result<Counts> {
        let path = Path::new(&data.source);
        let number: HashMap<&str, usize> = self.genes.iter().enumerate().map(|(g, name)| (name.as_str(), g)).collect();
        let mut place: Vec<Option<usize>> = Vec::with_capacity(data.n_genes());
        let mut found = vec![false; self.genes.len()];
        // Ensembl identifiers match whatever their versions, unless the model has two versions of one.
        let mut bare: HashMap<&str, Option<usize>> = HashMap::new();
        for (g, name) in self.genes.iter().enumerate() {
            bare.entry(without_version(name)).and_modify(|known| *known = None).or_insert(Some(g));
        }
        for name in &data.gene_names {
            let other = || bare.get(without_version(name)).copied().flatten();
            let gene = number.get(name.as_str()).copied().or_else(other);
            if let Some(gene) = gene
                && std::mem::replace(&mut found[gene], true)
            {
                let remedy = "give the genes unique names (var_names_make_unique)";
                return Err(InputError::new(format!("two genes are called `{name}`"), remedy).in_file(path).into());
            }
            place.push(gene);
        }
        let missing: Vec<&String> =
            self.genes.iter().zip(&found).filter(|(_, found)| !**found).map(|(name, _)| name).collect();
        if missing.len() == self.genes.len() {
            let problem = "none of its genes is a gene of the model";
            let remedy = format!(
                "name genes as the training data did; the model's are {}, the file's {}",
                some(&self.genes),
                some(&data.gene_names)
            );
            return Err(InputError::new(problem, remedy).in_file(path).into());
        }
        let matched = self.genes.len() - missing.len();
        notes.push(format!("{matched} of {} genes of the model are in the file", self.genes.len()));
        if !missing.is_empty() {
            notes.push(format!("counts of missing genes are taken as 0: {}", some(&missing)));
        }
        let extra = data.n_genes() - matched;
        if extra > 0 {
            notes.push(format!("{extra} other genes of the file are ignored"));
        }
        let mut builder = CountsBuilder::new(self.genes.len());
        let (mut row, mut n_empty) = (Vec::new(), 0);
        for n in 0..data.n_cells() {
            row.clear();
            data.counts.row(n).for_each(|g, x| row.extend(place[g].map(|gene| (gene, x))));
            row.sort_unstable();
            n_empty += usize::from(row.is_empty());
            row.iter().for_each(|&(gene, x)| builder.push(gene, x));
            builder.end_cell();
        }
        if n_empty > 0 {
            notes.push(format!("{n_empty} cells have no count for any gene of the model: their latents say nothing"));
        }
        Ok(builder.finish())
    }

    /// Numbers of `names` among `known`.
    pub(crate) fn find(&self, names: &[String], known: &[String], what: &str, flag: &str) -> Result<Vec<usize>> {
        let mut chosen = Vec::new();
        // Names may have commas, at which the list was cut.
        for name in &rejoined(names, |name| known.iter().any(|other| other == name)) {
            let Some(number) = known.iter().position(|other| other == name) else {
                let near = known
                    .iter()
                    .map(|other| (strsim::jaro_winkler(other, name), other))
                    .max_by(|a, b| a.0.total_cmp(&b.0))
                    .filter(|(likeness, _)| *likeness > 0.7);
                let remedy = match near {
                    Some((_, near)) => format!("did you mean `{near}`?"),
                    None => format!("the model knows {}", some(known)),
                };
                let problem = format!("the model knows no {what} `{name}`");
                return Err(self.error_at(problem, remedy, flag));
            };
            if !chosen.contains(&number) {
                chosen.push(number);
            }
        }
        Ok(chosen)
    }
}

/// The first few of some names.
fn some<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<&str> = names.iter().take(MOST_NAMES).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_messages_are_few() {
        assert_eq!(some(&["a", "b"]), "a, b");
        assert_eq!(some(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }
}
