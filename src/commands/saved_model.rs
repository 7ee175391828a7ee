//! What a trained model is used for: latents of new cells, denoised expression, simulated cells.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use crate::data::counts::in_memory::{Counts, CountsBuilder};
use crate::data::dataset::{Categorical, Continuous, Covariates, Dataset, InterventionRows};
use crate::data::loading::load::{LoadOptions, load};
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::model::architecture::Architecture;
use crate::model::network::Network;
use crate::numerics::real::Real;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::results::model_file::{read_network, saved_metadata};
use crate::settings::Config;

/// Names listed in a message.
const MOST_NAMES: usize = 5;

/// A model on disk, with all that is needed to use it without the data that it was trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedModel {
    pub(crate) config: Config,
    pub(crate) folder: PathBuf,
    pub(crate) interventions: Vec<String>,
    pub(crate) genes: Vec<String>,
    pub(crate) categorical: Vec<(String, Vec<String>)>,
    pub(crate) continuous: Vec<String>,
}

/// What came of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Cells written.
    pub n_cells: usize,
    /// Plain sentences for the user.
    pub notes: Vec<String>,
}

impl SavedModel {
    /// The model of a results folder; `config` holds the settings of its config.toml.
    ///
    /// # Errors
    /// [`InputError`] for a folder without a run, or a model that does not say what it was trained on.
    pub fn open(config: &Config, folder: &Path) -> Result<Self> {
        let folder = ResultsFolder::open(folder)?;
        let path = folder.file(ResultsFile::Model);
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
            config: config.clone(),
            interventions: names(&parsed("interventions")?),
            genes: names(&parsed("genes")?),
            categorical: categorical
                .map(|c| (c["name"].as_str().unwrap_or_default().to_owned(), names(&c["levels"])))
                .collect(),
            continuous: names(&parsed("continuous_covariates")?),
            folder: folder.path().to_path_buf(),
        })
    }

    /// Names of the genes, in the model's order.
    pub fn genes(&self) -> &[String] {
        &self.genes
    }

    /// The network in a file of the folder.
    ///
    /// # Errors
    /// [`InputError`] for a file that is no such model.
    pub(crate) fn network<R: Real>(&self, file: ResultsFile) -> Result<Network<R>> {
        Ok(read_network(&file.within(&self.folder), self.architecture())?.0)
    }

    fn architecture(&self) -> Architecture {
        self.config.architecture(&self.dataset(Counts::from_dense(self.genes.len().max(1), &[]), Names::default()))
    }

    /// A data set over the model's genes, interventions and covariates, whose cells have neither.
    pub(crate) fn dataset(&self, counts: Counts, cell_names: Names) -> Dataset {
        let n = cell_names.len();
        let mut interventions = InterventionRows::default();
        (0..n).for_each(|_| interventions.push(&[]));
        Dataset {
            source: self.folder.display().to_string(),
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
            truth: None,
        }
    }

    /// Reads cells of `path` as the model sees them: its genes matched by name, covariates (if `covariates` is set) by the
    /// names of their levels.
    ///
    /// # Errors
    /// As [`load`]; [`InputError`] if no gene matches or two columns bear the name of one gene, and for a level that the
    /// model has not seen.
    pub(crate) fn read_cells(
        &self,
        path: &Path,
        drop_empty_cells: bool,
        covariates: bool,
    ) -> Result<(Dataset, Vec<String>)> {
        let mut options = LoadOptions { unlabelled: true, drop_empty_cells, ..LoadOptions::default() };
        if covariates {
            options.batch_key = self.config.input.batch_key.clone();
            options.categorical_covariates = self.config.input.categorical_covariates.clone();
            options.continuous_covariates = self.config.input.continuous_covariates.clone();
        }
        let loaded = load(path, &options)?;
        let (data, mut notes) = (loaded.dataset, loaded.notes);
        let counts = self.matched(&data, path, &mut notes)?;
        let mut cells = self.dataset(counts, data.cell_names);
        cells.source = path.display().to_string();
        cells.library = (0..cells.n_cells()).map(|n| cells.counts.row(n).sum() as f64).collect();
        if covariates {
            for (ours, theirs) in cells.covariates.categorical.iter_mut().zip(data.covariates.categorical) {
                let numbers: Vec<u32> = theirs
                    .levels
                    .iter()
                    .map(|level| match ours.levels.iter().position(|known| known == level) {
                        Some(number) => Ok(number as u32),
                        None => Err(InputError::new(
                            format!("the model was not trained on the level `{level}` of `{}`", ours.name),
                            format!("its levels are {}", some(&ours.levels)),
                        )
                        .in_file(path)),
                    })
                    .collect::<Result<_, InputError>>()?;
                ours.codes = theirs.codes.iter().map(|&code| numbers[code as usize]).collect();
            }
            cells.covariates.continuous = data.covariates.continuous;
        }
        Ok((cells, notes))
    }

    /// The counts of the model's genes, in its order; notes say which are missing and how many others are ignored.
    fn matched(&self, data: &Dataset, path: &Path, notes: &mut Vec<String>) -> Result<Counts> {
        let number: HashMap<&str, usize> = self.genes.iter().enumerate().map(|(g, name)| (name.as_str(), g)).collect();
        let mut place: Vec<Option<usize>> = Vec::with_capacity(data.n_genes());
        let mut found = vec![false; self.genes.len()];
        for name in &data.gene_names {
            let gene = number.get(name.as_str()).copied();
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
        for name in names {
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
                return Err(InputError::new(problem, remedy).in_file(&self.folder).at(flag).into());
            };
            if !chosen.contains(&number) {
                chosen.push(number);
            }
        }
        Ok(chosen)
    }
}

/// Streams of [`stream`]: latents, counts, and posterior samples from this number on.
pub(crate) const LATENTS: u64 = 0;
pub(crate) const COUNTS: u64 = 1;
pub(crate) const SAMPLES_FROM: u64 = 2;

/// Random numbers of a cell, for this purpose.
pub(crate) fn stream(seed: u64, cell: usize, purpose: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // The simulator's own streams have small numbers in the upper 16 bits; these begin at half of their range.
    random.set_stream((1 << 63) | (purpose << 40) | cell as u64);
    random
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
