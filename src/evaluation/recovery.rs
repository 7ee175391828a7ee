//! How well the latents of a simulated screen are recovered.

use crate::data::dataset::Dataset;
use crate::evaluation::correlation::{Correlation, Latents};
use crate::evaluation::mcc::{Matching, mcc};
use crate::evaluation::regression::linear_r2;
use crate::numerics::real::Real;
use crate::parallel::team::Team;

/// True and inferred latents of the cells of trained interventions, on which the reference compares them too.
#[derive(Debug)]
pub struct Recovery {
    /// The cells, ascending.
    pub cells: Vec<usize>,
    truth: Vec<f64>,
    n_true: usize,
    inferred: Vec<f64>,
    n_inferred: usize,
}

impl Recovery {
    /// Of posterior `means` (all cells x `n_latents`); `is_trained` tells of an intervention whether it was trained. `None` where
    /// the truth is unknown.
    pub fn new<R: Real>(
        data: &Dataset,
        means: &[R],
        n_latents: usize,
        is_trained: impl Fn(usize) -> bool,
    ) -> Option<Self> {
        let truth = data.truth.as_ref()?;
        let n_true = truth.n_latents;
        let cells: Vec<usize> = (0..data.n_cells())
            .filter(|&n| data.interventions.row(n).0.iter().all(|&a| is_trained(a as usize)))
            .collect();
        let inferred =
            cells.iter().flat_map(|&n| &means[n * n_latents..(n + 1) * n_latents]).map(|z| z.to_f64()).collect();
        let truth = cells.iter().flat_map(|&n| &truth.latents[n * n_true..(n + 1) * n_true]).copied().collect();
        Some(Self { cells, truth, n_true, inferred, n_inferred: n_latents })
    }

    fn truth(&self) -> Latents<'_> {
        Latents::new(&self.truth, self.n_true)
    }

    fn inferred(&self) -> Latents<'_> {
        Latents::new(&self.inferred, self.n_inferred)
    }

    /// One-to-one matching of true and inferred latents, and the mean correlation coefficient.
    pub fn mcc(&self, team: &Team, kind: Correlation) -> Matching {
        mcc(team, self.truth(), self.inferred(), kind)
    }

    /// R2 of the linear regression from inferred to true latents.
    pub fn r2(&self) -> f64 {
        linear_r2(self.inferred(), self.truth())
    }
}
