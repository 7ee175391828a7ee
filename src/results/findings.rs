//! What a run finds, written into its folder: the trained model and its tables, what it says of the screen, the fitted
//! model.

use crate::data::dataset::Dataset;
use crate::data::screen::Screen;
use crate::error::Result;
use crate::evaluation::held_out_protocol::HeldOutFit;
use crate::evaluation::interpretation::Interpretation;
use crate::model::network::Network;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::cells::write_cells;
use crate::results::folder::ResultsFolder;
use crate::results::model_file::{add_batch_norm, metadata};
use crate::settings::Config;
use crate::system::safetensors::TensorValues;
use crate::training::trainer::Training;

impl ResultsFolder {
    /// Writes a trained model, its history and the tables of its parameters: `history.csv`, `model.safetensors`, and, where
    /// the model has them, `masks.csv` and `shifts.csv`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_trained<R: Real>(
        &self,
        config: &Config,
        data: &Dataset,
        network: &Network<R>,
        training: &Training,
    ) -> Result<()>
    where
        for<'a> &'a [R]: Into<TensorValues<'a>>,
    {
        self.write_history(ResultsFile::History.name(), &training.history)?;
        self.write_model(ResultsFile::Model.name(), &network.saved().tensors(), &metadata(config, data))?;
        let l = network.architecture.n_latents;
        if let Some(masks) = network.mask_probabilities() {
            self.write_masks(&data.intervention_names, l, &in_double(&masks))?;
        }
        if let Some(shift) = &network.tensors.shift {
            self.write_shifts(&data.intervention_names, l, &in_double(&network.parameters[shift]))?;
        }
        Ok(())
    }

    /// Reads a trained model out on its screen and writes what it says: `cells.csv` and `latents.npz` as they are found, so
    /// that the cells are never held at once, then `targets.csv`, the graph and `genes_per_latent.csv`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file; as [`Interpretation::new`].
    pub fn write_interpretation<R: Real>(
        &self,
        team: &Team,
        config: &Config,
        screen: &Screen,
        network: &Network<R>,
    ) -> Result<Interpretation> {
        let (data, l, keep) = (&*screen.data, config.latents, config.h5ad);
        let found = write_cells(self, data, l, config.precision, |cell| {
            Interpretation::new(team, network, screen, config.seed, keep, cell)
        })?;
        let names = &data.intervention_names;
        if found.shifts.is_some() {
            self.write_targets(names, &found.targets)?;
            self.write_graph(names, &screen.split.trained, l, &found.targets)?;
        }
        self.write_genes_per_latent(&data.gene_names, l, &found.loadings)?;
        Ok(found)
    }

    /// Writes what the held-out protocol leaves behind: `history_retrain.csv`, `model_heldout.safetensors` and, where the
    /// model has shifts, `shifts_heldout.csv`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_adapted<R: Real>(
        &self,
        config: &Config,
        data: &Dataset,
        network: &Network<R>,
        adapted: &HeldOutFit,
    ) -> Result<()>
    where
        for<'a> &'a [R]: Into<TensorValues<'a>>,
    {
        self.write_history(ResultsFile::RetrainingHistory.name(), &adapted.retraining.history)?;
        if let Some(shift) = &network.tensors.shift {
            let (values, l) = (in_double(&network.parameters[shift]), network.architecture.n_latents);
            self.write_intervention_table(ResultsFile::HeldOutShifts.name(), &data.intervention_names, l, &values)?;
        }
        let mut metadata = metadata(config, data);
        add_batch_norm(&mut metadata, adapted.metrics.batch_norm);
        self.write_model(ResultsFile::HeldOutModel.name(), &network.saved().tensors(), &metadata)
    }
}

/// Values in double precision, for tables.
fn in_double<R: Real>(values: &[R]) -> Vec<f64> {
    values.iter().map(|v| v.f64()).collect()
}
