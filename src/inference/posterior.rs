//! Posterior of cells.

use crate::error::Result;
use crate::inference::Inference;
use crate::model::particles::Posterior;
use crate::numerics::real::Real;

impl<R: Real> Inference<'_, R> {
    /// Posterior of `cells`.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn posterior(&mut self, cells: &[usize]) -> Result<Posterior<R>> {
        let (l, width) = (self.network.architecture.n_latents, self.network.architecture.factor_width());
        let n = self.team.ranks().mine(cells).len();
        let room = |width: usize| Vec::with_capacity(n * width);
        let (mut mean, mut variance, mut factor) = (room(l), room(l), room(width));
        self.for_each_batch(cells, |this, batch| {
            this.network.encode(this.team, this.workspace, batch);
            let (found, n) = (&this.workspace.cells, batch.cells.len());
            mean.extend_from_slice(&found.mean[..n * l]);
            variance.extend_from_slice(&found.variance[..n * l]);
            factor.extend_from_slice(&found.factor[..n * width]);
        })?;
        let gathered = |width: usize, rows: Vec<R>| self.team.ranks().gather_rows(cells, width, rows);
        Ok(Posterior { mean: gathered(l, mean), variance: gathered(l, variance), factor: gathered(width, factor) })
    }

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
