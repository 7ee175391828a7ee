//! The latents of cells.

use crate::error::Result;
use crate::inference::Inference;
use crate::numerics::real::Real;

impl<R: Real> Inference<'_, R> {
    /// Posterior means of `cells`, cells x L.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn posterior_means(&mut self, cells: &[usize]) -> Result<Vec<R>> {
        let l = self.network.architecture.n_latents;
        let mut means = Vec::with_capacity(self.team.ranks().mine(cells).len() * l);
        self.for_each_batch(cells, |this, batch| {
            this.network.encode(this.team, this.workspace, batch);
            means.extend_from_slice(&this.workspace.cells.mean[..batch.cells.len() * l]);
        })?;
        Ok(self.team.ranks().gather_rows(cells, l, means))
    }
}
