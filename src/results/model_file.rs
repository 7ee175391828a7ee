//! The models of a results folder: every tensor by name in a safetensors file with what the model says about itself, read
//! back with every name and shape checked, and for the same settings and data.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::io::{self, Write};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::data::dataset::{Categorical, Dataset};
use crate::error::{Error, InputError, Result};
use crate::inference::linear::LinearModel;
use crate::model::architecture::Architecture;
use crate::model::likelihood::Likelihood;
use crate::model::network::Network;
use crate::model::parameters::Buffer;
use crate::numerics::real::Real;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::settings::Settings;
use crate::system::safetensors::{NamedTensor, TensorValues, write_safetensors};
use crate::training::shift_fit::HeldoutBatchNorm;

/// Metadata of a model at the end of the held-out protocol which say that its encoder statistics drifted.
const BATCH_NORM_KEY: &str = "heldout_batch_norm";
const DRIFT: &str = "drift";

/// What a saved model says about itself.
pub(crate) fn metadata(config: &Settings, data: &Dataset) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        ("program".to_owned(), concat!("svae-cpu ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("method".to_owned(), config.model.method.name().to_owned()),
        ("interventions".to_owned(), serde_json::json!(data.intervention_names).to_string()),
        ("genes".to_owned(), serde_json::json!(data.gene_names).to_string()),
        ("categorical_covariates".to_owned(), {
            let levels = |c: &Categorical| serde_json::json!({"name": c.name, "levels": c.levels});
            serde_json::Value::from_iter(data.covariates.categorical.iter().map(levels)).to_string()
        }),
        ("continuous_covariates".to_owned(), {
            let names = data.covariates.continuous.iter().map(|c| c.name.as_str());
            serde_json::Value::from_iter(names).to_string()
        }),
    ]);
    // A model that does not say has a negative binomial, as all of them once had.
    if config.model.likelihood != Likelihood::NegativeBinomial {
        metadata.insert("likelihood".to_owned(), config.model.likelihood.name().to_owned());
    }
    metadata
}

/// Says in the metadata of a fitted model how its shifts were fitted.
pub(crate) fn add_batch_norm(metadata: &mut BTreeMap<String, String>, batch_norm: Option<HeldoutBatchNorm>) {
    if batch_norm == Some(HeldoutBatchNorm::Drift) {
        metadata.insert(BATCH_NORM_KEY.to_owned(), DRIFT.to_owned());
    }
}

/// Whether the encoder statistics of a fitted model drifted, by its metadata.
pub(crate) fn drifted(metadata: &BTreeMap<String, String>) -> bool {
    metadata.get(BATCH_NORM_KEY).is_some_and(|value| value == DRIFT)
}

/// Reads a model of a folder, and what it says about itself.
///
/// # Errors
/// [`InputError`] for a file that is no model, or one that does not belong to the settings and data.
pub(crate) fn read_model<R: Real>(
    config: &Settings,
    data: &Dataset,
    folder: &ResultsFolder,
    file: ResultsFile,
) -> Result<(Network<R>, BTreeMap<String, String>)> {
    let path = folder.file(file);
    let (network, found) = read_network(&path, config.architecture(data))?;
    for (key, wanted) in metadata(config, data) {
        if key != "program" && found.get(&key) != Some(&wanted) {
            let remedy = "give the data and settings that the model was trained with";
            let problem = match key.as_str() {
                "interventions" => format!("the model was trained on other interventions than {} has", data.source),
                "genes" => format!("the model was trained on other genes than {} has", data.source),
                "categorical_covariates" | "continuous_covariates" => {
                    format!(
                        "the model was trained with other covariates, or other levels of them, than {} has",
                        data.source
                    )
                }
                _ => format!("the model's {key} is not {wanted}, as the settings say"),
            };
            return Err(InputError::new(problem, remedy).in_file(path).into());
        }
    }
    Ok((network, found))
}

impl ResultsFolder {
    /// Writes every tensor of a network by name, and what it says about itself; Python's `safetensors` package reads it.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_model(
        &self,
        file: ResultsFile,
        model: &dyn SavedModel,
        metadata: &BTreeMap<String, String>,
    ) -> Result<()> {
        self.write(file, |out| model.write_tensors(out, metadata))
    }
}

/// A model that is saved as tensors.
pub trait SavedModel: Debug {
    /// Writes every tensor by name, and what the model says about itself.
    ///
    /// # Errors
    /// Those of `out`.
    fn write_tensors(&self, out: &mut dyn Write, metadata: &BTreeMap<String, String>) -> io::Result<()>;
}

impl<R: Real> SavedModel for Network<R>
where
    for<'a> &'a [R]: Into<TensorValues<'a>>,
{
    fn write_tensors(&self, mut out: &mut dyn Write, metadata: &BTreeMap<String, String>) -> io::Result<()> {
        write_safetensors(&mut out, &SavedValues::of(self).tensors(), metadata)
    }
}

/// The sizes of a linear model: genes, latents, interventions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinearSizes {
    pub(crate) genes: usize,
    pub(crate) latents: usize,
    pub(crate) interventions: usize,
}

/// The tensors of a linear model, with their shapes.
fn linear_tensors(model: &mut LinearModel, sizes: LinearSizes) -> Vec<(&'static str, Vec<usize>, &mut Vec<f64>)> {
    let LinearSizes { genes: g, latents: l, interventions: a } = sizes;
    let mut tensors = vec![
        ("mean", vec![g], &mut model.mean),
        ("weight", vec![l, g], &mut model.weight),
        ("origin", vec![l], &mut model.origin),
        ("loading", vec![g, l], &mut model.loading),
        ("residual_variance", vec![g], &mut model.residual_variance),
        ("noise_variance", vec![l], &mut model.noise_variance),
        ("inverse_squares", vec![l], &mut model.inverse_squares),
        ("intercept", vec![g], &mut model.intercept),
        ("slope", vec![g], &mut model.slope),
        ("shift", vec![a, l], &mut model.shift),
        ("mask_logit", vec![a, l], &mut model.mask_logit),
    ];
    if model.likelihood.n_parameters(g) > 0 {
        tensors.push(("log_dispersion", vec![g], &mut model.log_dispersion));
    }
    tensors
}

impl SavedModel for LinearModel {
    fn write_tensors(&self, mut out: &mut dyn Write, metadata: &BTreeMap<String, String>) -> io::Result<()> {
        let (genes, latents) = (self.n_genes(), self.n_latents);
        let sizes = LinearSizes { genes, latents, interventions: self.shift.len() / latents };
        let mut model = self.clone();
        let tensors = linear_tensors(&mut model, sizes);
        let named = tensors.into_iter().map(|(name, shape, values)| {
            let values: &[f64] = values;
            NamedTensor { name: name.to_owned(), shape, values: values.into() }
        });
        let tensors: Vec<NamedTensor<'_>> = named.collect();
        write_safetensors(&mut out, &tensors, metadata)
    }
}

/// Reads a linear model of these sizes.
///
/// # Errors
/// As [`read_network`].
pub(crate) fn read_linear(path: &Path, likelihood: Likelihood, sizes: LinearSizes) -> Result<LinearModel> {
    let bytes = read_bytes(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(path, error))?;
    let mut model = LinearModel { n_latents: sizes.latents, ..LinearModel::of(likelihood) };
    let mut tensors = linear_tensors(&mut model, sizes);
    let known = |name: &str| tensors.iter().any(|(known, ..)| *known == name);
    if let Some(name) = file.names().into_iter().filter(|name| !known(name)).min() {
        return Err(foreign(path, name, "the model of the settings has no such tensor").into());
    }
    for (name, shape, values) in &mut tensors {
        let read: Vec<f64> = values_of(&file, path, name, shape)?;
        **values = read;
    }
    drop(tensors);
    Ok(model)
}

/// The values of a network as they are saved: every tensor in the order of its shape, parameters then running statistics.
struct SavedValues<R> {
    buffers: [Buffer<R>; 2],
}

impl<R: Real> SavedValues<R> {
    fn of(network: &Network<R>) -> Self {
        Self {
            buffers: [&network.parameters, &network.running].map(|buffer| {
                let mut ordered = Buffer::zeros(&buffer.layout);
                for entry in buffer.layout.entries() {
                    let values = ordered.values[entry.range.clone()].iter_mut();
                    values.zip(buffer.in_order(entry)).for_each(|(to, value)| *to = value);
                }
                ordered
            }),
        }
    }

    fn tensors(&self) -> Vec<NamedTensor<'_>>
    where
        for<'a> &'a [R]: Into<TensorValues<'a>>,
    {
        self.buffers
            .iter()
            .flat_map(|buffer| buffer.layout.entries().iter().map(move |entry| (buffer, entry)))
            .map(|(buffer, entry)| NamedTensor {
                name: entry.name.clone(),
                shape: entry.shape.clone(),
                values: (&buffer.values[entry.range.clone()]).into(),
            })
            .collect()
    }
}

/// Reads a network of the given architecture, and the metadata of its file. Masks are not frozen.
///
/// # Errors
/// [`InputError`] naming the file, and the tensor where one is to blame: a file that is damaged or no safetensors
/// file, a tensor that is missing, unknown, of another shape or type, or that holds a value which is not finite.
pub fn read_network<R: Real>(
    path: &Path,
    architecture: Architecture,
) -> Result<(Network<R>, BTreeMap<String, String>)> {
    let bytes = read_bytes(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(path, error))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(path, error))?;
    let metadata: HashMap<String, String> = header.metadata().clone().unwrap_or_default();

    let mut network = Network::new(architecture, 0);
    let known = |name: &str| {
        let buffers = [&network.parameters, &network.running];
        buffers.iter().any(|buffer| buffer.layout.find(name).is_some())
    };
    if let Some(name) = file.names().into_iter().filter(|name| !known(name)).min() {
        return Err(foreign(path, name, "the model of the settings has no such tensor").into());
    }
    for buffer in [&mut network.parameters, &mut network.running] {
        fill(buffer, &file, path)?;
    }
    Ok((network, metadata.into_iter().collect()))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            let error = InputError::new("there is no such file", "name the folder of a finished run");
            Err(error.in_file(path).into())
        }
        Err(source) => Err(Error::io("reading", path, source)),
    }
}

fn damaged(path: &Path, error: safetensors::SafeTensorError) -> InputError {
    InputError::new(
        format!("this is no whole safetensors file ({error})"),
        "restore the file, or repeat the run with `svae-cpu run` on the folder's config.toml",
    )
    .in_file(path)
}

/// The metadata of a saved model, which tell what it was trained on.
///
/// # Errors
/// [`InputError`] naming a file that is missing or no safetensors file.
pub fn saved_metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    use std::io::Read;

    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => {
            let error = InputError::new("there is no such file", "name the folder of a finished run");
            Error::from(error.in_file(path))
        }
        _ => Error::io("reading", path, source),
    };
    let damaged = || {
        let remedy = "restore the file, or repeat the run with `svae-cpu run` on the folder's config.toml";
        InputError::new("this is no whole safetensors file", remedy).in_file(path)
    };
    // The header alone: eight bytes of length, then JSON.
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| damaged())?;
    let size = u64::from_le_bytes(size);
    if size > length.saturating_sub(8) {
        return Err(damaged().into());
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(failed)?;
    let header: serde_json::Value = serde_json::from_slice(&header).map_err(|_| damaged())?;
    let metadata = header.get("__metadata__").cloned().unwrap_or_else(|| serde_json::json!({}));
    Ok(serde_json::from_value(metadata).map_err(|_| damaged())?)
}

fn foreign(path: &Path, tensor: &str, problem: impl Into<String>) -> InputError {
    InputError::new(problem, "the file and config.toml must come from the same run")
        .in_file(path)
        .at(format!("tensor `{tensor}`"))
}

/// Fills every tensor of `buffer` from `file`.
fn fill<R: Real>(buffer: &mut Buffer<R>, file: &SafeTensors, path: &Path) -> Result<(), InputError> {
    let layout = buffer.layout.clone();
    for entry in layout.entries() {
        let values = values_of::<R>(file, path, &entry.name, &entry.shape)?;
        buffer.set_in_order(entry, values);
    }
    Ok(())
}

/// The values of a tensor of `file`, row-major.
fn values_of<R: Real>(file: &SafeTensors, path: &Path, name: &str, shape: &[usize]) -> Result<Vec<R>, InputError> {
    let foreign = |problem: String| foreign(path, name, problem);
    let tensor = file.tensor(name).map_err(|_| foreign("the file lacks it".to_owned()))?;
    if tensor.shape() != shape {
        return Err(foreign(format!("its shape is {:?}, not {shape:?}", tensor.shape())));
    }
    let values: Vec<R> = match (tensor.dtype(), R::NAME) {
        (Dtype::F32, "f32") => {
            let bytes = tensor.data().as_chunks::<4>().0;
            bytes.iter().map(|b| R::from_f64(f32::from_le_bytes(*b) as f64)).collect()
        }
        (Dtype::F64, "f64") => {
            let bytes = tensor.data().as_chunks::<8>().0;
            bytes.iter().map(|b| R::from_f64(f64::from_le_bytes(*b))).collect()
        }
        (found, wanted) => {
            let found = format!("{found:?}").to_lowercase();
            return Err(foreign(format!("its values are {found}, not {wanted} as the settings say")));
        }
    };
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(foreign(format!("value {i} is not finite"))),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network<f32> {
        Network::new(Architecture { n_hidden: 5, ..Architecture::new(7, 3, 2) }, 4)
    }

    fn bytes(tensors: &[NamedTensor<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let metadata = BTreeMap::from([("method".to_owned(), "svae-plus".to_owned())]);
        write_safetensors(&mut bytes, tensors, &metadata).expect("in memory");
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(Network<f32>, BTreeMap<String, String>)> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), bytes).expect("written");
        read_network(file.path(), network().architecture)
    }

    #[test]
    fn what_was_written_is_read_back() {
        let network = network();
        let (back, metadata) = read(&bytes(&SavedValues::of(&network).tensors())).expect("readable");
        assert_eq!(back.parameters, network.parameters);
        assert_eq!(back.running, network.running);
        assert_eq!(metadata["method"], "svae-plus");
    }

    #[test]
    fn damaged_and_foreign_files_are_refused_by_name() {
        let network = network();
        let saved = SavedValues::of(&network);
        let whole = saved.tensors();
        let good = bytes(&whole);
        let refused = |bytes: &[u8]| {
            let error = read(bytes).expect_err("refused");
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        for cut in [0, 5, 9, good.len() / 2, good.len() - 1] {
            assert!(refused(&good[..cut]).contains("no whole safetensors file"), "{cut}");
        }
        assert!(refused(b"not a model at all, but long enough").contains("safetensors"));

        let mut lacking = whole.clone();
        lacking.remove(3);
        assert!(refused(&bytes(&lacking)).contains(&format!("tensor `{}`: the file lacks it", whole[3].name)));
        let mut unknown = whole.clone();
        unknown[0].name = "encoder.9.weight".to_owned();
        assert!(refused(&bytes(&unknown)).contains("tensor `encoder.9.weight`: the model of the settings has no such"));
        let mut reshaped = whole.clone();
        reshaped[0].shape.reverse();
        assert!(refused(&bytes(&reshaped)).contains("its shape is [7, 5], not [5, 7]"));
        let double = vec![0f64; 35];
        let mut retyped = whole.clone();
        retyped[0].values = (&double[..]).into();
        assert!(refused(&bytes(&retyped)).contains("its values are f64, not f32"));
        let mut infinite = [0f32; 35];
        infinite[8] = f32::INFINITY;
        let mut bad = whole.clone();
        bad[0].values = (&infinite[..]).into();
        assert!(refused(&bytes(&bad)).contains("value 8 is not finite"));

        let missing = read_network::<f32>(Path::new("/nowhere/model.safetensors"), network.architecture.clone());
        assert!(missing.expect_err("missing").to_string().contains("no such file"));
    }
}
