//! The models of a results folder: what they say about themselves, and reading them back for the same settings and data.

use std::collections::BTreeMap;

use crate::data::dataset::{Categorical, Dataset};
use crate::error::{InputError, Result};
use crate::model::likelihood::Likelihood;
use crate::model::network::Network;
use crate::numerics::real::Real;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::settings::Config;
use crate::system::safetensors::{Tensor, write_safetensors};
use crate::training::shift_fit::HeldoutBatchNorm;

/// Metadata of a model at the end of the held-out protocol which say that its encoder statistics drifted.
const BATCH_NORM_KEY: &str = "heldout_batch_norm";
const DRIFT: &str = "drift";

/// What a saved model says about itself.
pub(crate) fn metadata(config: &Config, data: &Dataset) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        ("program".to_owned(), concat!("svae-cpu ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("method".to_owned(), config.method.name().to_owned()),
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
    if config.likelihood != Likelihood::NegativeBinomial {
        metadata.insert("likelihood".to_owned(), config.likelihood.name().to_owned());
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
    config: &Config,
    data: &Dataset,
    folder: &ResultsFolder,
    file: ResultsFile,
) -> Result<(Network<R>, BTreeMap<String, String>)> {
    let path = folder.file(file);
    let (network, found) = Network::read(&path, config.architecture(data))?;
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
    /// Writes a model, which Python's `safetensors` package reads.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    ///
    /// # Panics
    /// As [`write_safetensors`].
    pub fn write_model(
        &self,
        file: ResultsFile,
        tensors: &[Tensor<'_>],
        metadata: &BTreeMap<String, String>,
    ) -> Result<()> {
        self.write(file, |out| write_safetensors(out, tensors, metadata))
    }
}
