//! From checked settings to what the layers below take: network, objective, training.

use crate::data::dataset::Dataset;
use crate::model::adam::AdamSettings;
use crate::model::architecture::{Architecture, PosteriorCovariance};
use crate::model::method::Method;
use crate::model::objective::Objective;
use crate::model::prior::sparsity::Penalty;
use crate::settings::config::Settings;
use crate::training::components::LinearSettings;
use crate::training::trainer::TrainingSettings;

impl Settings {
    /// The network for a screen, for which settings are [resolved](Settings::resolved).
    pub fn architecture(&self, data: &Dataset) -> Architecture {
        let capacity = self.capacity_for(data.n_cells());
        Architecture {
            n_hidden: capacity.hidden,
            n_layers: self.model.layers,
            categorical_levels: data.covariates.categorical.iter().map(|column| column.levels.len()).collect(),
            n_continuous: data.covariates.continuous.len(),
            encode_covariates: self.model.encode_covariates,
            deeply_inject_covariates: self.model.deeply_inject_covariates,
            batch_norm: self.model.batch_norm,
            layer_norm: self.model.layer_norm,
            dropout_rate: self.model.dropout,
            latent_distribution: self.model.latent_distribution,
            full_covariance: capacity.posterior_covariance == PosteriorCovariance::Full,
            prior: self.model.method.prior(self.model.ivae_mask, self.model.mask, self.model.temperature),
            likelihood: self.model.likelihood,
            likelihood_epsilon: self.model.likelihood_epsilon,
            ..Architecture::new(data.n_genes(), data.n_interventions(), self.model.latents)
        }
    }

    /// The objective on `n_training` cells of a screen with `n_interventions` interventions.
    pub fn objective(&self, n_interventions: usize, n_training: usize) -> Objective {
        let alpha = self.alpha_for(n_interventions);
        Objective {
            penalty: match self.model.integrates_mask() {
                true => Penalty::None,
                false => self.model.method.penalty(alpha),
            },
            beta: self.model.beta,
            scale_to_all_cells: self.model.method == Method::SvaePlus,
            n_cells: n_training,
        }
    }

    /// The linear model.
    pub fn linear_settings(&self) -> LinearSettings {
        let (n_latents, likelihood) = (self.model.latents, self.model.likelihood);
        LinearSettings { n_latents, likelihood, seed: self.execution.seed }
    }

    /// The training on `n_training` cells.
    pub fn training_settings(&self, n_training: usize) -> TrainingSettings {
        let capacity = self.capacity_for(n_training);
        TrainingSettings {
            epochs: self.epochs_for(n_training),
            retraining_epochs: self.retraining_epochs_for(n_training),
            batch_size: capacity.batch_size,
            warmup_epochs: self.warmup_epochs_for(n_training),
            patience: self.training.patience,
            keep: self.training.keep,
            schedule: self.training.schedule,
            dense_epochs: (self.training.dense_share * self.epochs_for(n_training) as f64).round() as usize,
            prune_masks_below: self.training.prune_masks_below,
            adam: AdamSettings {
                learning_rate: capacity.learning_rate,
                epsilon: self.training.adam_epsilon,
                weight_decay: self.training.weight_decay,
                ..AdamSettings::default()
            },
            seed: self.execution.seed,
            stream_offset: 0,
            trained: None,
        }
    }
}
