//! What is found of every cell of a screen, cell by cell.

use crate::data::minibatch::Minibatches;
use crate::error::Result;
use crate::inference::Inference;
use crate::model::noise::Noise;
use crate::numerics::real::Real;

/// What is found of one cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CellFindings<'a, R> {
    /// Its number.
    pub cell: usize,
    /// Posterior mean of its latents, L.
    pub mean: &'a [R],
    /// Negative log-likelihood, nats.
    pub reconstruction: f64,
    /// Divergence of its latents from their prior, nats.
    pub kl: f64,
    /// Its total count.
    pub total: u64,
    /// Genes with a count.
    pub n_genes: usize,
}

impl<R: Real> Inference<'_, R> {
    /// Calls `found` for every cell of the screen in order, on the first process, with what all of them found in one pass over
    /// the counts; one latent sample and one mask draw per cell, of `seed`. Returns the total count of each gene, on every
    /// process.
    ///
    /// # Errors
    /// Counts on disk that cannot be read; what `found` fails with.
    pub fn for_each_cell(
        &mut self,
        seed: u64,
        mut found: impl FnMut(CellFindings<'_, R>) -> Result<()>,
    ) -> Result<Vec<f64>> {
        let (team, ranks, l) = (self.team, self.team.ranks(), self.network.architecture.n_latents);
        self.network.prepare_evaluation(self.workspace);
        // Whole numbers, which f64 adds without rounding, in whatever order.
        let mut totals = vec![0.0; self.network.architecture.n_genes];
        let all: Vec<usize> = (0..self.data.n_cells()).collect();
        let mine = ranks.mine(&all);
        let mut batches = Minibatches::of_cells(self.data, &mine, self.workspace.capacity())?;
        // As many cells at a time as give each process a minibatch: cells go round among processes.
        for piece in all.chunks(self.workspace.capacity() * ranks.size()) {
            let (mut figures, mut means) = (Vec::new(), Vec::new());
            if let Some(batch) = batches.next()? {
                self.network.evaluate(team, self.workspace, batch, Noise::Evaluation { seed, draw: 0 });
                let cells = &self.workspace.cells;
                for i in 0..batch.cells.len() {
                    let row = batch.row(i);
                    row.for_each(|gene, count| totals[gene] += f64::from(count));
                    figures.extend([cells.reconstruction[i], cells.kl[i], row.sum() as f64, row.len() as f64]);
                }
                means.extend_from_slice(&cells.mean[..batch.cells.len() * l]);
            }
            let figures = ranks.gather_rows(piece, 4, figures);
            let means = ranks.gather_rows(piece, l, means);
            if !ranks.is_first() {
                continue;
            }
            let of_cells = piece.iter().zip(figures.as_chunks::<4>().0).zip(means.chunks_exact(l));
            for ((&cell, &[reconstruction, kl, total, n_genes]), mean) in of_cells {
                let (total, n_genes) = (total as u64, n_genes as usize);
                found(CellFindings { cell, mean, reconstruction, kl, total, n_genes })?;
            }
        }
        ranks.sum(&mut totals);
        Ok(totals)
    }
}
