//! What a network says of many cells: passes over their minibatches, in evaluation mode.

pub mod bounds;
pub mod cells;
pub mod effects;
pub mod elbo;
pub mod gene_dispersion;
pub mod linear;
pub mod loadings;
pub mod posterior;
pub mod prediction;
pub mod trained_model;

use crate::data::dataset::Dataset;
use crate::data::minibatch::Batch;
use crate::data::minibatch::Minibatches;
use crate::error::Result;
use crate::model::network::Network;
use crate::model::workspace::Workspace;
use crate::numerics::real::Real;
use crate::parallel::team::Team;

/// Cells evaluated at a time.
const EVALUATION_BATCH: usize = 512;

/// A network in evaluation mode, to be asked about cells of a screen.
#[derive(Debug)]
pub struct Inference<'a, R> {
    /// The team that does the work.
    pub team: &'a Team<'a>,
    /// The network.
    pub network: &'a Network<R>,
    /// The screen.
    pub data: &'a Dataset,
    /// Room for a minibatch, as [`evaluation_workspace`] makes it.
    pub workspace: &'a mut Workspace<R>,
}

/// A workspace for [`Inference`] of a network about a screen.
pub fn evaluation_workspace<R: Real>(network: &Network<R>, data: &Dataset) -> Workspace<R> {
    Workspace::new(&network.architecture, EVALUATION_BATCH, data.interventions.max_len())
}

impl<R: Real> Inference<'_, R> {
    /// Calls `pass(inference, batch)` for one minibatch after another of those `cells` that this rank holds, in their order.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub(crate) fn for_each_batch(&mut self, cells: &[usize], mut pass: impl FnMut(&mut Self, Batch<'_>)) -> Result<()> {
        self.network.prepare_evaluation(self.workspace);
        let mine = self.team.ranks().mine(cells);
        let mut batches = Minibatches::of_cells(self.data, &mine, self.workspace.capacity())?;
        while let Some(batch) = batches.next()? {
            pass(self, batch);
        }
        Ok(())
    }
}
