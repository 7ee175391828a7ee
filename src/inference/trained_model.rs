//! What is asked of a trained model about the cells of a screen, whether it is a network or linear.

use crate::error::Result;
use crate::inference::Inference;
use crate::inference::cells::CellFindings;
use crate::inference::elbo::Elbo;
use crate::inference::loadings::Loadings;
use crate::model::objective::Objective;
use crate::model::prior::table::PriorTable;
use crate::numerics::real::Real;

/// A trained model with L latents, to be asked about cells of a screen.
pub trait TrainedModel<R: Real> {
    /// L.
    fn n_latents(&self) -> usize;

    /// Shifts and masks.
    fn prior(&self) -> PriorTable<'_, R>;

    /// Posterior means of `cells`, cells x L.
    ///
    /// # Errors
    /// Counts on disk that cannot be read; likewise below.
    fn posterior_means(&mut self, cells: &[usize]) -> Result<Vec<R>>;

    /// Negative ELBO of `cells`, nats per cell, by one sample of each.
    ///
    /// # Errors
    /// As above.
    fn elbo(&mut self, cells: &[usize], objective: &Objective, seed: u64) -> Result<Elbo>;

    /// Mean divergence of each latent from its prior over `cells`, nats; L.
    ///
    /// # Errors
    /// As above.
    fn divergence_by_latent(&mut self, cells: &[usize], seed: u64) -> Result<Vec<f64>>;

    /// Calls `found` for every cell of the screen in order, on the first process. Returns the total count of each gene.
    ///
    /// # Errors
    /// As above; what `found` fails with.
    fn for_each_cell(&mut self, seed: u64, found: impl FnMut(CellFindings<'_, R>) -> Result<()>) -> Result<Vec<f64>>;

    /// What each latent does to each gene, about `cells` with these posterior means (cells x L), which stand for `n_cells` cells.
    fn gene_loadings(&mut self, cells: &[usize], latents: &[R], n_cells: usize) -> Loadings;
}

impl<R: Real> TrainedModel<R> for Inference<'_, R> {
    fn n_latents(&self) -> usize {
        self.network.architecture.n_latents
    }

    fn prior(&self) -> PriorTable<'_, R> {
        self.network.prior()
    }

    fn posterior_means(&mut self, cells: &[usize]) -> Result<Vec<R>> {
        Inference::posterior_means(self, cells)
    }

    fn elbo(&mut self, cells: &[usize], objective: &Objective, seed: u64) -> Result<Elbo> {
        Inference::elbo(self, cells, objective, seed)
    }

    fn divergence_by_latent(&mut self, cells: &[usize], seed: u64) -> Result<Vec<f64>> {
        Inference::divergence_by_latent(self, cells, seed)
    }

    fn for_each_cell(&mut self, seed: u64, found: impl FnMut(CellFindings<'_, R>) -> Result<()>) -> Result<Vec<f64>> {
        Inference::for_each_cell(self, seed, found)
    }

    fn gene_loadings(&mut self, cells: &[usize], latents: &[R], n_cells: usize) -> Loadings {
        Inference::gene_loadings(self, cells, latents, n_cells)
    }
}
