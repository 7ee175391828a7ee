//! What a trained model is used for: latents of new cells, denoised expression, simulated cells.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

use crate::commands::screen;
use crate::data::counts::in_memory::{Counts, CountsBuilder};
use crate::data::dataset::{Categorical, Continuous, Covariates, Dataset, InterventionRows};
use crate::data::formats::anndata_writer::{AnnDataWriter, FrameColumn};
use crate::data::formats::npz::NpzWriter;
use crate::data::formats::write_npz;
use crate::data::loading::load::{LoadOptions, load};
use crate::data::names::Names;
use crate::error::{InputError, Result};
use crate::evaluation::interpretation::CONTROL;
use crate::model::architecture::Architecture;
use crate::model::latent;
use crate::model::network::{Batch, Network, saved_metadata};
use crate::numerics::real::{Precision, Real};
use crate::parallel::team::Team;
use crate::results::anndata::annotations;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::results::tables::CELL_COLUMNS;
use crate::settings::Config;
use crate::system::files::write_atomically;
use crate::training::trainer::{evaluation_workspace, posterior_means};

/// Names listed in a message.
const MOST_NAMES: usize = 5;

/// A model on disk, with all that is needed to use it without the data that it was trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedModel {
    config: Config,
    folder: PathBuf,
    interventions: Vec<String>,
    genes: Vec<String>,
    categorical: Vec<(String, Vec<String>)>,
    continuous: Vec<String>,
}

/// What came of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Cells written.
    pub n_cells: usize,
    /// Plain sentences for the user.
    pub notes: Vec<String>,
}

/// Kind of file that results are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Comma-separated values.
    Csv,
    /// NumPy archive.
    Npz,
    /// AnnData.
    H5ad,
}

impl OutputKind {
    /// The kind that the name of a file says.
    ///
    /// # Errors
    /// [`InputError`] for another ending; for a file that exists, unless `overwrite` is set; for a folder that does not.
    pub fn check(path: &Path, overwrite: bool) -> Result<Self> {
        let refused = |problem: &str, remedy: &str| InputError::new(problem, remedy).in_file(path).at("--out");
        let kind = match path.extension().and_then(|ending| ending.to_str()).map(str::to_lowercase).as_deref() {
            Some("csv") => OutputKind::Csv,
            Some("npz") => OutputKind::Npz,
            Some("h5ad") => OutputKind::H5ad,
            _ => {
                return Err(refused(
                    "files of this kind are not written",
                    "name a file that ends in .csv, .npz or .h5ad",
                )
                .into());
            }
        };
        if path.is_dir() {
            return Err(refused("this is a folder", "name a file").into());
        }
        if path.exists() && !overwrite {
            return Err(refused("the file exists", "choose another --out, or add --overwrite to replace it").into());
        }
        if let Some(folder) = path.parent()
            && !folder.as_os_str().is_empty()
            && !folder.is_dir()
        {
            return Err(refused("its folder does not exist", "create the folder first").into());
        }
        Ok(kind)
    }
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

    fn architecture(&self) -> Architecture {
        self.config.architecture(&self.dataset(Counts::from_dense(self.genes.len().max(1), &[]), Names::default()))
    }

    /// A data set over the model's genes, interventions and covariates, whose cells have neither.
    fn dataset(&self, counts: Counts, cell_names: Names) -> Dataset {
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
    fn read_cells(&self, path: &Path, drop_empty_cells: bool, covariates: bool) -> Result<(Dataset, Vec<String>)> {
        let mut options = LoadOptions { unlabelled: true, drop_empty_cells, ..LoadOptions::default() };
        if covariates {
            options.batch_key = self.config.batch_key.clone();
            options.categorical_covariates = self.config.categorical_covariates.clone();
            options.continuous_covariates = self.config.continuous_covariates.clone();
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

    /// Writes the latents (posterior means) of the cells of `data`.
    ///
    /// # Errors
    /// As reading and writing do.
    pub fn embed(&self, data: &Path, drop_empty_cells: bool, out: &Path, kind: OutputKind) -> Result<Written> {
        let (cells, notes) = self.read_cells(data, drop_empty_cells, self.config.encode_covariates)?;
        let latents = match self.config.precision {
            Precision::F32 => self.latents::<f32>(&cells)?,
            Precision::F64 => self.latents::<f64>(&cells)?,
        };
        let l = self.config.latents;
        let names: Vec<String> = (0..l).map(|k| format!("latent_{k}")).collect();
        match kind {
            OutputKind::Csv => write_table(out, &cells.cell_names, &names, |n, k| latents[n * l + k])?,
            OutputKind::Npz => {
                let mut npz = NpzWriter::create(out)?;
                let single: Vec<f32> = latents.iter().map(|&z| z as f32).collect();
                match self.config.precision {
                    Precision::F32 => npz.add_f32("latents", &[cells.n_cells(), l], &single)?,
                    Precision::F64 => npz.add_f64("latents", &[cells.n_cells(), l], &latents)?,
                }
                npz.add_strings("cells", &cells.cell_names)?;
                npz.finish()?;
            }
            OutputKind::H5ad => {
                let file = AnnDataWriter::create(out)?;
                file.counts("X", &cells.counts)?;
                file.frame("obs", &cells.cell_names, &[])?;
                file.frame("var", &cells.gene_names, &[])?;
                file.array_f32("obsm/X_svae", &[cells.n_cells(), l], &latents)?;
                file.finish()?;
            }
        }
        Ok(Written { n_cells: cells.n_cells(), notes })
    }

    fn latents<R: Real>(&self, cells: &Dataset) -> Result<Vec<f64>> {
        let (network, _) = Network::<R>::read(&ResultsFile::Model.within(&self.folder), self.architecture())?;
        let all: Vec<usize> = (0..cells.n_cells()).collect();
        let mut workspace = evaluation_workspace(&network, cells);
        let means =
            Team::with(self.config.n_threads(), |team| posterior_means(team, &network, &mut workspace, cells, &all))?;
        Ok(means.iter().map(|z| z.f64()).collect())
    }

    /// Writes the denoised expression of cells: the decoder's rates, times `scale`, of the named genes (`None`: all).
    ///
    /// At the posterior mean of each cell or, with `samples` > 0, as the mean over so many samples of its posterior. `data`
    /// is read as [`SavedModel::embed`] does; `None` means the cells of the run itself.
    ///
    /// # Errors
    /// [`InputError`] for a gene that the model does not know; as reading and writing do.
    pub fn normalize(&self, request: &Normalize, out: &Path, kind: OutputKind) -> Result<Written> {
        let chosen = match &request.genes {
            None => (0..self.genes.len()).collect(),
            Some(names) => self.find(names, &self.genes, "gene", "--genes")?,
        };
        let (cells, notes) = match &request.data {
            Some(path) => {
                let (cells, notes) = self.read_cells(path, request.drop_empty_cells, true)?;
                (Arc::new(cells), notes)
            }
            None => {
                let loaded = Team::with(self.config.n_threads(), |team| screen::load(team, &self.config))?;
                let (data, notes) = (loaded.data, loaded.notes);
                if data.gene_names != self.genes {
                    let remedy = "give the data that the model was trained on, or name a file with --data";
                    let problem = "the genes are not those of the model";
                    return Err(InputError::new(problem, remedy).in_file(&data.source).into());
                }
                (data, notes)
            }
        };
        let rates = match self.config.precision {
            Precision::F32 => self.rates::<f32>(&cells, &chosen, request)?,
            Precision::F64 => self.rates::<f64>(&cells, &chosen, request)?,
        };
        let names: Vec<String> = chosen.iter().map(|&g| self.genes[g].clone()).collect();
        let (n, g) = (cells.n_cells(), chosen.len());
        match kind {
            OutputKind::Csv => write_table(out, &cells.cell_names, &names, |n, i| f64::from(rates[n * g + i]))?,
            OutputKind::Npz => {
                let mut npz = NpzWriter::create(out)?;
                npz.add_f32("expression", &[n, g], &rates)?;
                npz.add_strings("cells", &cells.cell_names)?;
                npz.add_strings("genes", &names)?;
                npz.finish()?;
            }
            OutputKind::H5ad => {
                let file = AnnDataWriter::create(out)?;
                file.array_single("X", &[n, g], &rates)?;
                let obs = if request.data.is_none() { annotations(&cells) } else { Vec::new() };
                file.frame("obs", &cells.cell_names, &obs)?;
                file.frame("var", &names, &[])?;
                file.finish()?;
            }
        }
        Ok(Written { n_cells: n, notes })
    }

    fn rates<R: Real>(&self, cells: &Dataset, chosen: &[usize], request: &Normalize) -> Result<Vec<f32>> {
        let (network, _) = Network::<R>::read(&ResultsFile::Model.within(&self.folder), self.architecture())?;
        let (g, l, scale) = (self.genes.len(), self.config.latents, request.scale);
        let all: Vec<usize> = (0..cells.n_cells()).collect();
        let mut workspace = evaluation_workspace(&network, cells);
        Team::with(self.config.n_threads(), |team| {
            let posterior = network.posterior(team, &mut workspace, cells, &all)?;
            let mut rates = Vec::with_capacity(all.len() * chosen.len());
            for (at, batch) in all.chunks(workspace.capacity()).enumerate() {
                let range = at * workspace.capacity() * l..(at * workspace.capacity() + batch.len()) * l;
                let (mean, variance) = (&posterior.mean[range.clone()], &posterior.variance[range]);
                let width = network.architecture.factor_width();
                let first = at * workspace.capacity() * width;
                let factor = &posterior.factor[first..first + batch.len() * width];
                let mut sums = vec![0.0; batch.len() * chosen.len()];
                for sample in 0..request.samples.max(1) {
                    let mut z = mean.to_vec();
                    let mut draws = vec![R::ZERO; z.len()];
                    if request.samples > 0 {
                        for (i, &n) in batch.iter().enumerate() {
                            let mut random = stream(request.seed, n, SAMPLES_FROM + sample as u64);
                            for k in i * l..(i + 1) * l {
                                let noise: f64 = StandardNormal.sample(&mut random);
                                draws[k] = R::of(noise);
                                z[k] += variance[k].sqrt() * draws[k];
                            }
                        }
                        latent::correlate(&mut z, factor, &draws, l);
                    }
                    let log_rates = network.log_rates(team, &mut workspace, Batch::new(cells, batch), &z);
                    for (sums, row) in sums.chunks_exact_mut(chosen.len()).zip(log_rates.chunks_exact(g)) {
                        for (sum, &gene) in sums.iter_mut().zip(chosen) {
                            *sum += row[gene].f64().exp();
                        }
                    }
                }
                let factor = scale / request.samples.max(1) as f64;
                rates.extend(sums.iter().map(|sum| (sum * factor) as f32));
            }
            Ok(rates)
        })
    }

    /// Numbers of `names` among `known`.
    fn find(&self, names: &[String], known: &[String], what: &str, flag: &str) -> Result<Vec<usize>> {
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

    /// Simulates cells under a combination of interventions (none: without any) and writes them with their latents.
    ///
    /// A cell takes size factor and covariates of a training cell drawn at random, draws its masks, its latents and its
    /// counts as the model says. Where one of the interventions was held out, the model fitted to it is used.
    ///
    /// # Errors
    /// [`InputError`] for an intervention that the model does not know, or that it was never fitted to; as writing does.
    pub fn sample(&self, request: &Sample, out: &Path, kind: OutputKind) -> Result<Written> {
        let chosen = self.find(&request.interventions, &self.interventions, "intervention", "--intervention")?;
        if !chosen.is_empty() && !self.config.method.uses_interventions() {
            let problem = format!("the latents of a {} do not depend on interventions", self.config.method.name());
            let remedy = "leave --intervention out, or train a model whose prior has shifts (sVAE+, sVAE, iVAE)";
            return Err(InputError::new(problem, remedy).in_file(&self.folder).at("--intervention").into());
        }
        let donors = Donors::read(&ResultsFile::Cells.within(&self.folder), self)?;
        let held_out = chosen.iter().find(|&&a| !donors.trained[a]);
        let model = match held_out {
            None => ResultsFile::Model,
            Some(&a) if !ResultsFile::HeldOutModel.within(&self.folder).is_file() => {
                let problem = format!("`{}` was held out of the training and never fitted", self.interventions[a]);
                let remedy = "fit it with `svae-cpu fit-shifts`, or sample another intervention";
                return Err(InputError::new(problem, remedy).in_file(&self.folder).at("--intervention").into());
            }
            Some(_) => ResultsFile::HeldOutModel,
        };
        let (data, latents) = match self.config.precision {
            Precision::F32 => self.simulated::<f32>(request, &chosen, &donors, model)?,
            Precision::F64 => self.simulated::<f64>(request, &chosen, &donors, model)?,
        };
        let (n, l) = (data.n_cells(), self.config.latents);
        match kind {
            OutputKind::Csv => {
                let mut dense = vec![0; n * self.genes.len()];
                for (cell, row) in dense.chunks_exact_mut(self.genes.len()).enumerate() {
                    data.counts.row(cell).for_each(|g, x| row[g] = x);
                }
                let g = self.genes.len();
                write_table(out, &data.cell_names, &self.genes, |n, i| f64::from(dense[n * g + i]))?;
            }
            OutputKind::Npz => write_npz(&data, out)?,
            OutputKind::H5ad => {
                let file = AnnDataWriter::create(out)?;
                file.counts("X", &data.counts)?;
                let mut obs = annotations(&data);
                obs.push(("size_factor".to_owned(), FrameColumn::Numbers(data.library.clone())));
                file.frame("obs", &data.cell_names, &obs)?;
                file.frame("var", &self.genes, &[])?;
                file.array_f32("obsm/X_svae", &[n, l], &latents)?;
                file.finish()?;
            }
        }
        let mut notes = Vec::new();
        if model == ResultsFile::HeldOutModel {
            notes.push("cells come from the model that was fitted to held-out interventions".to_owned());
        }
        Ok(Written { n_cells: n, notes })
    }

    fn simulated<R: Real>(
        &self,
        request: &Sample,
        chosen: &[usize],
        donors: &Donors,
        model: ResultsFile,
    ) -> Result<(Dataset, Vec<f64>)> {
        let (mut network, _) = Network::<R>::read(&model.within(&self.folder), self.architecture())?;
        if model == ResultsFile::HeldOutModel {
            network.freeze_masks();
        }
        let l = self.config.latents;
        let masks = network.mask_probabilities();
        let shifts = network.tensors.shift.as_ref().map(|shift| network.parameters[shift].to_vec());
        let sampler = network.count_sampler();

        let names = (0..request.cells).map(|n| format!("simulated_{n}")).collect();
        let mut data = self.dataset(Counts::from_dense(self.genes.len(), &[]), names);
        let label = match chosen {
            [] => CONTROL.to_owned(),
            _ => chosen.iter().map(|&a| self.interventions[a].as_str()).collect::<Vec<_>>().join("+"),
        };
        data.interventions = InterventionRows::one_hot(vec![0; request.cells]);
        data.intervention_names = vec![label];
        let mut z = Vec::with_capacity(request.cells * l);
        for n in 0..request.cells {
            let mut random = stream(request.seed, n, LATENTS);
            let donor = donors.cells[random.random_range(0..donors.cells.len())];
            data.library[n] = request.size_factor.unwrap_or(donors.size_factor[donor]);
            for (column, codes) in data.covariates.categorical.iter_mut().zip(&donors.codes) {
                column.codes[n] = codes[donor];
            }
            for (column, values) in data.covariates.continuous.iter_mut().zip(&donors.values) {
                column.values[n] = values[donor];
            }
            for k in 0..l {
                let mut mean = 0.0;
                for &a in chosen {
                    let p = masks.as_ref().map_or(1.0, |masks| masks[a * l + k].f64());
                    // Drawn in any case, so that the noise of one cell does not depend on the masks of another.
                    let on = random.random::<f64>() < p;
                    mean += if on { shifts.as_ref().map_or(0.0, |shifts| shifts[a * l + k].f64()) } else { 0.0 };
                }
                let noise: f64 = StandardNormal.sample(&mut random);
                z.push(R::of(mean + noise));
            }
        }
        let mut workspace = evaluation_workspace(&network, &data);
        network.prepare_evaluation(&mut workspace);
        let all: Vec<usize> = (0..request.cells).collect();
        let mut builder = CountsBuilder::new(self.genes.len());
        Team::with(self.config.n_threads(), |team| {
            for batch in all.chunks(workspace.capacity()) {
                let from = batch[0] * l;
                let z = &z[from..from + batch.len() * l];
                let log_rates = network.log_rates(team, &mut workspace, Batch::new(&data, batch), z);
                for (&n, row) in batch.iter().zip(log_rates.chunks_exact(self.genes.len())) {
                    let mut random = stream(request.seed, n, COUNTS);
                    for (gene, log_rate) in row.iter().enumerate() {
                        let mean = data.library[n] * log_rate.f64().exp();
                        builder.push(gene, sampler.draw(gene, mean, &mut random));
                    }
                    builder.end_cell();
                }
            }
        });
        data.counts = builder.finish().into();
        Ok((data, z.iter().map(|z| z.f64()).collect()))
    }
}

/// Streams of [`stream`]: latents, counts, and posterior samples from this number on.
const LATENTS: u64 = 0;
const COUNTS: u64 = 1;
const SAMPLES_FROM: u64 = 2;

/// Random numbers of a cell, for this purpose.
fn stream(seed: u64, cell: usize, purpose: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // The simulator's own streams have small numbers in the upper 16 bits; these begin at half of their range.
    random.set_stream((1 << 63) | (purpose << 40) | cell as u64);
    random
}

/// What `svae-cpu normalize` is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// New cells; `None`: those of the run.
    pub data: Option<PathBuf>,
    /// Names of the genes; `None`: all.
    pub genes: Option<Vec<String>>,
    /// Sum of a cell's rates over all genes.
    pub scale: f64,
    /// Posterior samples; 0: the posterior mean.
    pub samples: usize,
    /// Seed of the samples.
    pub seed: u64,
    /// Whether cells without counts are left out.
    pub drop_empty_cells: bool,
}

/// What `svae-cpu sample` is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Interventions that act together.
    pub interventions: Vec<String>,
    /// Number of cells.
    pub cells: usize,
    /// Size factor of all cells; `None`: those of training cells.
    pub size_factor: Option<f64>,
    /// Seed.
    pub seed: u64,
}

/// The training cells whose size factors and covariates simulated cells take.
struct Donors {
    /// Numbers of the training cells.
    cells: Vec<usize>,
    size_factor: Vec<f64>,
    /// Levels of each categorical covariate.
    codes: Vec<Vec<u32>>,
    /// Values of each continuous covariate.
    values: Vec<Vec<f64>>,
    /// Whether each intervention of the model was trained on.
    trained: Vec<bool>,
}

impl Donors {
    fn read(path: &Path, model: &SavedModel) -> Result<Self> {
        let remedy = "repeat the run with `svae-cpu run` on the folder's config.toml";
        let damaged = |problem: &str| InputError::new(problem, remedy).in_file(path);
        let mut table = csv::Reader::from_path(path).map_err(|e| damaged(&format!("it cannot be read ({e})")))?;
        let n_columns = CELL_COLUMNS.len() + model.categorical.len() + model.continuous.len();
        let mut donors = Self {
            cells: Vec::new(),
            size_factor: Vec::new(),
            codes: vec![Vec::new(); model.categorical.len()],
            values: vec![Vec::new(); model.continuous.len()],
            trained: vec![false; model.interventions.len()],
        };
        let interventions: HashMap<&str, usize> =
            model.interventions.iter().enumerate().map(|(a, name)| (name.as_str(), a)).collect();
        for (n, row) in table.records().enumerate() {
            let row = row.map_err(|e| damaged(&format!("it is no table ({e})")))?;
            if row.len() != n_columns {
                return Err(damaged("it has other columns than the model's covariates ask for").into());
            }
            let number = |column: usize| -> Result<f64> {
                let value = row[column].parse::<f64>().ok().filter(|value| value.is_finite());
                Ok(value.ok_or_else(|| damaged("it holds no number where one belongs").at(format!("row {}", n + 2)))?)
            };
            let factor = number(3)?;
            if &row[2] == "train" && factor > 0.0 {
                donors.cells.push(n);
            }
            if &row[2] != "held-out"
                && let Some(&a) = interventions.get(&row[1])
            {
                donors.trained[a] = true;
            }
            donors.size_factor.push(factor);
            for (i, (codes, (_, levels))) in donors.codes.iter_mut().zip(&model.categorical).enumerate() {
                let level = &row[CELL_COLUMNS.len() + i];
                let code = levels.iter().position(|known| known == level);
                codes.push(code.ok_or_else(|| damaged(&format!("the model knows no level `{level}`")))? as u32);
            }
            for (i, values) in donors.values.iter_mut().enumerate() {
                values.push(number(CELL_COLUMNS.len() + model.categorical.len() + i)?);
            }
        }
        if donors.cells.is_empty() {
            return Err(damaged("it holds no training cell").into());
        }
        Ok(donors)
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

/// Writes a table with a row per cell.
fn write_table(path: &Path, rows: &Names, columns: &[String], value: impl Fn(usize, usize) -> f64) -> Result<()> {
    write_atomically(path, |file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_field("cell")?;
        table.write_record(columns)?;
        for (n, name) in rows.iter().enumerate() {
            table.write_field(name)?;
            for i in 0..columns.len() {
                // Single precision is what the model computes in; more digits would be noise.
                table.write_field((value(n, i) as f32).to_string())?;
            }
            table.write_record(None::<&[u8]>)?;
        }
        table.flush()
    })
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
