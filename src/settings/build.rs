//! From checked settings to what the layers below take: options of the reader, network, objective, training.

use crate::data::dataset::Dataset;
use crate::data::loading::load::LoadOptions;
use crate::data::simulate;
use crate::model::adam::AdamSettings;
use crate::model::architecture::{Architecture, PosteriorCovariance};
use crate::model::method::Method;
use crate::model::objective::Objective;
use crate::settings::{Config, Simulation};
use crate::training::trainer::TrainingSettings;

impl Config {
    /// Which cells, genes and annotations of a data file are read, and how.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            label_key: self.label_key.clone(),
            batch_key: self.batch_key.clone(),
            categorical_covariates: self.categorical_covariates.clone(),
            continuous_covariates: self.continuous_covariates.clone(),
            size_factor_key: self.size_factor_key.clone(),
            drop_empty_cells: self.drop_empty_cells,
            layer: self.layer.clone(),
            genome: self.genome.clone(),
            labels: self.labels.clone(),
            control: self.control.clone(),
            genes: self.genes.clone(),
            top_genes: self.top_genes,
            min_cells_per_label: self.min_cells_per_label,
            min_counts: self.min_counts as u64,
            drop_unlabelled_cells: self.drop_unlabelled_cells,
            unlabelled: false,
            stream: self.stream.then_some(self.stream_buffer << 20),
        }
    }

    /// The network for a screen.
    pub fn architecture(&self, data: &Dataset) -> Architecture {
        Architecture {
            n_hidden: self.hidden,
            n_layers: self.layers,
            categorical_levels: data.covariates.categorical.iter().map(|column| column.levels.len()).collect(),
            n_continuous: data.covariates.continuous.len(),
            encode_covariates: self.encode_covariates,
            deeply_inject_covariates: self.deeply_inject_covariates,
            batch_norm: self.batch_norm,
            layer_norm: self.layer_norm,
            dropout_rate: self.dropout,
            latent_distribution: self.latent_distribution,
            full_covariance: self.posterior_covariance == PosteriorCovariance::Full,
            prior: self.method.prior(self.ivae_mask, self.mask, self.temperature),
            likelihood: self.likelihood,
            likelihood_epsilon: self.likelihood_epsilon,
            ..Architecture::new(data.n_genes(), data.n_interventions(), self.latents)
        }
    }

    /// The objective on `n_training` cells of a screen with `n_interventions` interventions.
    pub fn objective(&self, n_interventions: usize, n_training: usize) -> Objective {
        let alpha = self.alpha_for(n_interventions);
        Objective {
            penalty: self.method.penalty(alpha),
            beta: self.beta,
            scale_to_all_cells: self.method == Method::SvaePlus,
            n_cells: n_training,
        }
    }

    /// The training on `n_training` cells.
    pub fn training_settings(&self, n_training: usize) -> TrainingSettings {
        TrainingSettings {
            epochs: self.epochs_for(n_training),
            retraining_epochs: self.retraining_epochs.unwrap_or_else(|| self.epochs_for(n_training)),
            batch_size: self.batch_size,
            warmup_epochs: self.warmup_epochs,
            patience: self.patience,
            keep: self.keep,
            schedule: self.schedule,
            prune_masks_below: self.prune_masks_below,
            adam: AdamSettings {
                learning_rate: self.learning_rate,
                epsilon: self.adam_epsilon,
                weight_decay: self.weight_decay,
                ..AdamSettings::default()
            },
            seed: self.seed,
            stream_offset: 0,
            trained: None,
        }
    }
}

/// The simulator that a simulation's settings ask for.
pub fn simulator(settings: &Simulation) -> simulate::Simulation {
    simulate::Simulation {
        kind: settings.kind,
        n_interventions: settings.interventions,
        n_latents: settings.latents,
        n_genes: settings.genes,
        cells_per_intervention: settings.cells,
        seed: settings.seed,
        n_targeted_latents: settings.targeted_latents,
    }
}
