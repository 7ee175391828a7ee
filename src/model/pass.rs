//! One stripe of a minibatch: the blocks of the model, called on the rows that a thread works on.
//!
//! [`step`](crate::model::step) and [`evaluate`](crate::model::evaluate) say in which order.

use crate::data::counts::in_memory::CountsRow;
use crate::data::minibatch::Batch;
use crate::model::latent;
use crate::model::layers::{activation, batch_norm, input_layer, layer_norm, linear};
use crate::model::likelihood::CellCounts;
use crate::model::network::Network;
use crate::model::noise::{Noise, fill_noise};
use crate::model::objective::Weights;
use crate::model::parameters::{Buffer, Tensor};
use crate::model::prior::shift;
use crate::model::prior::sparsity::Penalty;
use crate::model::prior::table::{CellInterventions, MaskBuffers, PriorTable};
use crate::model::tensors::{Injection, LinearTensors, Side};
use crate::model::workspace::{
    Block, CellBlock, LayerBlock, LayerStatistics, Log1pTable, ROWS_PER_BLOCK, Shared, Workspace, words_per_row,
};
use crate::numerics::matmul::{Accumulate, Rows};
use crate::numerics::random::{Purpose, dropout_rows, fill_words};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::parallel::team::Team;
use std::ops::Range;

/// What a loss is formed of.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// The minibatch.
    pub batch: Batch<'a>,
    /// Its noise.
    pub noise: Noise,
    /// Weights of the parts of the loss.
    pub weights: Weights,
    /// Penalty on the masks.
    pub penalty: Penalty,
}

/// One pass over a minibatch, as seen by a row block.
pub(crate) struct Pass<'a, R> {
    pub network: &'a Network<R>,
    pub batch: Batch<'a>,
    pub shared: Shared<'a, R>,
}

impl<R: Real> Network<R> {
    /// Runs `f` on every stripe of the minibatch's row blocks.
    pub(crate) fn stage(
        &self,
        team: &Team,
        workspace: &mut Workspace<R>,
        batch: Batch,
        f: impl Fn(&Pass<R>, &mut Block<R>, Range<usize>) + Sync,
    ) {
        let n = batch.cells.len();
        let n_blocks = n.div_ceil(ROWS_PER_BLOCK);
        let bytes = ROWS_PER_BLOCK * self.architecture.n_genes * size_of::<R>();
        // A product of a single row is summed in another order: a last block that is not whole stays alone on any number of threads.
        let stripe = match n.is_multiple_of(ROWS_PER_BLOCK) {
            true => blocks_per_stripe(n_blocks, team.threads(), bytes),
            false => 1,
        };
        let (stripes, shared) = workspace.split(n, stripe);
        let pass = Pass { network: self, batch, shared };
        team.run(n_blocks.div_ceil(stripe), stripes, |i, mut block| {
            let from = i * stripe * ROWS_PER_BLOCK;
            f(&pass, &mut block, from..(from + stripe * ROWS_PER_BLOCK).min(n));
        });
    }

    /// What the encoder's first layer reads, for the rows of a minibatch from `first` on. dense: rows x G.
    pub(crate) fn input<'a>(
        &self,
        dense: &'a [R],
        log1p: &'a Log1pTable<R>,
        batch: Batch<'a>,
        first: usize,
    ) -> input_layer::Input<'a, R, impl Fn(usize) -> CountsRow<'a>> {
        let n_genes = self.architecture.n_genes;
        if batch.data.counts.is_mostly_zero() {
            let row = move |i: usize| batch.row(first + i);
            input_layer::Input::Nonzero { row, log1p, n_genes }
        } else {
            input_layer::Input::Dense { values: dense, n_genes }
        }
    }

    /// The covariates that a layer receives, as columns of the covariate buffer.
    pub(crate) fn covariates<'a>(&self, linear: &LinearTensors, covariates: &'a [R], n: usize) -> Option<Rows<'a, R>> {
        let width = self.architecture.covariate_width();
        match linear.injection {
            Injection::Nothing => None,
            Injection::OneHot => {
                let skip = self.architecture.n_continuous;
                Some(Rows::strided(&covariates[skip..], n, width - skip, width))
            }
            Injection::All => Some(Rows::new(covariates, n, width)),
        }
    }
}

/// Interventions of some cells of a batch.
pub(crate) fn interventions_of<'a>(batch: Batch<'a>, cells: &'a [usize], per_cell: usize) -> CellInterventions<'a> {
    CellInterventions { rows: &batch.data.interventions, cells, per_cell }
}

impl<R: Real> Pass<'_, R> {
    pub(crate) fn tensor(&self, tensor: &Tensor) -> &[R] {
        &self.network.parameters[tensor]
    }

    /// Counts, size factors and covariates of a block's cells.
    pub(crate) fn load(&self, cells: &mut CellBlock<R>, rows: Range<usize>) {
        let g = self.network.architecture.n_genes;
        let numbers = &self.batch.cells[rows.clone()];
        // Cells come in random order from all over memory: fetch them all at once, not one after another.
        self.batch.prefetch(rows.clone());
        let dense = !self.batch.data.counts.is_mostly_zero();
        let log1p = self.shared.log1p;
        for (i, &cell) in numbers.iter().enumerate() {
            let x = &mut cells.x[i * g..(i + 1) * g];
            x.fill(R::ZERO);
            let counts = self.batch.row(rows.start + i);
            if dense {
                let input = &mut cells.input[i * g..(i + 1) * g];
                input.fill(R::ZERO);
                counts.for_each(
                    #[inline(always)]
                    |gene, count| (x[gene], input[gene]) = (R::of_count(count), log1p.of(count)),
                );
            } else {
                counts.for_each(
                    #[inline(always)]
                    |gene, count| x[gene] = R::of_count(count),
                );
            }
            cells.library[i] = R::from_f64(self.batch.data.library[cell]);
        }
        self.load_covariates(cells.covariates, rows);
    }

    /// Noise of a block's cells: latents, masks and, in training, dropout.
    pub(crate) fn draw_noise(
        &self,
        cells: &mut CellBlock<R>,
        encoder: &mut [Option<LayerBlock<R>>],
        rows: Range<usize>,
        noise: Noise,
        training: bool,
    ) {
        let a = &self.network.architecture;
        let l = a.n_latents;
        let e = self.shared.max_interventions * l;
        let (seed, epoch, latent, mask) = match noise {
            Noise::Given => return,
            Noise::Training { seed, epoch } => (seed, epoch, Purpose::Latent, Purpose::Mask),
            Noise::Evaluation { seed, draw } => (seed, draw, Purpose::EvaluationLatent, Purpose::EvaluationMask),
        };
        let numbers = &self.batch.cells[rows];
        let address = |i: usize| (epoch, numbers[i] as u64);
        let words = &mut *cells.words;
        let e = if self.network.prior().draws_masks() { e } else { 0 };
        let buffers = [&mut *cells.latent_noise, &mut *cells.mask_noise];
        fill_noise(buffers, [l, e], words, seed, [latent, mask], address);
        if !training || a.dropout_rate == 0.0 {
            return;
        }
        vectorized(
            #[inline(always)]
            || {
                let per_row = words_per_row(a.n_hidden.div_ceil(2));
                let words = &mut words[..numbers.len() * per_row];
                for l in 0..a.n_layers {
                    let layer = encoder[l].as_mut().expect("layers up to n_layers exist");
                    fill_words(words, per_row, seed, Purpose::Dropout, l * per_row / 4, address);
                    dropout_rows(layer.keep, a.n_hidden, a.dropout_rate, words, per_row);
                }
            },
        );
    }

    pub(crate) fn load_covariates(&self, out: &mut [R], rows: Range<usize>) {
        let a = &self.network.architecture;
        let width = a.covariate_width();
        if width == 0 {
            return;
        }
        let covariates = &self.batch.data.covariates;
        out.fill(R::ZERO);
        for (row, &cell) in out.chunks_exact_mut(width).zip(&self.batch.cells[rows]) {
            for (out, column) in row.iter_mut().zip(&covariates.continuous) {
                *out = R::from_f64(column.values[cell]);
            }
            let mut at = a.n_continuous;
            for (column, &levels) in covariates.categorical.iter().zip(&a.categorical_levels) {
                if levels > 1 {
                    row[at + column.codes[cell] as usize] = R::ONE;
                    at += levels;
                }
            }
        }
    }

    /// Linear part of a hidden layer, and the block's moments of its output.
    pub(crate) fn start_hidden(&self, side: Side, l: usize, block: &mut Block<R>, rows: Range<usize>, training: bool) {
        let layer = &self.network.tensors.hidden(side)[l];
        let (layers, first_input): (_, &[R]) = match side {
            Side::Encoder => (&mut block.encoder, block.cells.input),
            Side::Decoder => (&mut block.decoder, block.cells.z),
        };
        let (before, here) = layers.split_at_mut(l);
        let input = before.last().map_or(first_input, |layer| layer.as_ref().expect("a layer before").out);
        let here = here[0].as_mut().expect("layers up to n_layers exist");
        let n = input.len() / layer.linear.n_in;
        let covariates = self.network.covariates(&layer.linear, block.cells.covariates, n);
        let (weight, bias) = (self.tensor(&layer.linear.weight), self.tensor(&layer.linear.bias));
        if side == Side::Encoder && l == 0 {
            let input = self.network.input(input, self.shared.log1p, self.batch, rows.start);
            input_layer::forward(here.pre, input, covariates, weight, bias);
        } else {
            let n_in = layer.linear.n_in;
            linear::forward(here.pre, Rows::new(input, n, n_in), covariates, weight, bias, n_in);
        }
        if training && layer.norm.is_some() {
            let h = self.network.architecture.n_hidden;
            for (sums, pre) in here.sums.chunks_mut(2 * h).zip(here.pre.chunks(ROWS_PER_BLOCK * h)) {
                batch_norm::block_moments(sums, pre);
            }
        }
    }

    pub(crate) fn statistics(&self, side: Side, l: usize) -> &LayerStatistics<R> {
        match side {
            Side::Encoder => &self.shared.encoder_statistics[l],
            Side::Decoder => &self.shared.decoder_statistics[l],
        }
    }

    /// Normalisation, ReLU and dropout of a hidden layer.
    pub(crate) fn finish_hidden(&self, side: Side, l: usize, block: &mut Block<R>, training: bool) {
        let layer = layer_block(block, side, l);
        let keep: Option<&[R]> = (training && !layer.keep.is_empty()).then_some(&*layer.keep);
        let layer_norm = self.network.architecture.layer_norm;
        match &self.network.tensors.hidden(side)[l].norm {
            Some(norm) => {
                let s = self.statistics(side, l);
                let (gamma, beta) = (self.tensor(&norm.weight), self.tensor(&norm.bias));
                if !layer_norm {
                    activation::after_batch_norm(layer.out, layer.pre, &s.mean, &s.inverse, gamma, beta, keep);
                    return;
                }
                batch_norm::forward(layer.out, layer.pre, &s.mean, &s.inverse, gamma, beta);
            }
            None => layer.out.copy_from_slice(layer.pre),
        }
        if layer_norm {
            layer_norm::forward(layer.out, layer.row_statistics, self.network.architecture.n_hidden);
        }
        activation::forward(layer.out, keep);
    }

    /// Backward of [`Pass::finish_hidden`], up to the sums over the batch: `d` holds the gradient of `out` on entry
    /// and of the batch normalisation's output on exit.
    pub(crate) fn finish_hidden_backward(&self, side: Side, l: usize, block: &mut Block<R>) {
        let layer = layer_block(block, side, l);
        let keep: Option<&[R]> = (!layer.keep.is_empty()).then_some(&*layer.keep);
        let h = self.network.architecture.n_hidden;
        let norm = self.network.tensors.hidden(side)[l].norm.as_ref();
        let s = self.statistics(side, l);
        let layer_norm = self.network.architecture.layer_norm;
        let blocks = layer.d.chunks_mut(ROWS_PER_BLOCK * h).zip(layer.sums.chunks_mut(2 * h)).enumerate();
        if norm.is_some() && !layer_norm {
            for (i, (d, sums)) in blocks {
                let rows = i * ROWS_PER_BLOCK * h..i * ROWS_PER_BLOCK * h + d.len();
                let (out, pre, keep) =
                    (&layer.out[rows.clone()], &layer.pre[rows.clone()], keep.map(|keep| &keep[rows]));
                activation::backward_with_sums(d, sums, out, keep, pre, &s.mean, &s.inverse);
            }
            return;
        }
        activation::backward(layer.d, layer.out, keep);
        if layer_norm {
            let row_scratch = &mut layer.row_scratch[..h];
            let rows = layer.d.chunks_exact_mut(h).zip(layer.pre.chunks_exact(h));
            for ((d, pre), statistics) in rows.zip(layer.row_statistics.chunks_exact(2)) {
                // The input of the layer normalisation is not kept: made again here.
                match norm {
                    Some(norm) => {
                        let (gamma, beta) = (self.tensor(&norm.weight), self.tensor(&norm.bias));
                        batch_norm::forward(row_scratch, pre, &s.mean, &s.inverse, gamma, beta);
                    }
                    None => row_scratch.copy_from_slice(pre),
                }
                layer_norm::backward_row(d, row_scratch, statistics);
            }
        }
        if norm.is_some() {
            let rows = layer.d.chunks(ROWS_PER_BLOCK * h).zip(layer.pre.chunks(ROWS_PER_BLOCK * h));
            for (sums, (d, pre)) in layer.sums.chunks_mut(2 * h).zip(rows) {
                batch_norm::block_gradient_sums(sums, d, pre, &s.mean, &s.inverse);
            }
        }
    }

    /// Backward of the batch normalisation: `d` becomes the gradient of the linear part's output.
    pub(crate) fn start_hidden_backward(&self, side: Side, l: usize, block: &mut Block<R>, sums: &Buffer<R>, n: usize) {
        if let Some(norm) = &self.network.tensors.hidden(side)[l].norm {
            let s = self.statistics(side, l);
            let layer = layer_block(block, side, l);
            let (d_gamma, d_beta) = (&sums[&norm.weight], &sums[&norm.bias]);
            let gamma = self.tensor(&norm.weight);
            batch_norm::backward(layer.d, layer.pre, &s.mean, &s.inverse, gamma, d_beta, d_gamma, n);
        }
    }

    /// Gradient of the output of the layer before hidden layer `l` (> 0).
    pub(crate) fn hidden_input_backward(&self, side: Side, l: usize, block: &mut Block<R>) {
        let linear = &self.network.tensors.hidden(side)[l].linear;
        let layers = match side {
            Side::Encoder => &mut block.encoder,
            Side::Decoder => &mut block.decoder,
        };
        let (before, here) = layers.split_at_mut(l);
        let before = before[l - 1].as_mut().expect("a layer before");
        let here = here[0].as_ref().expect("layers up to n_layers exist");
        let d_y = Rows::new(here.d, here.d.len() / linear.n_out, linear.n_out);
        let weight = self.tensor(&linear.weight);
        linear::backward_input(before.d, Accumulate::Replace, d_y, weight, linear.n_in, linear.n_out);
    }

    /// Posterior and, with noise, a sample from it.
    pub(crate) fn latent(&self, block: &mut Block<R>, sample: bool) {
        let a = &self.network.architecture;
        let t = &self.network.tensors;
        let hidden = block.encoder[a.n_layers - 1].as_ref().expect("the last layer").out as &[R];
        let h = Rows::new(hidden, hidden.len() / a.n_hidden, a.n_hidden);
        let cells = &mut block.cells;
        for (head, out) in [(&t.latent_mean, &mut cells.mean), (&t.latent_log_variance, &mut cells.log_variance)] {
            linear::forward(out, h, None, self.tensor(&head.weight), self.tensor(&head.bias), a.n_hidden);
        }
        if let Some(head) = &t.latent_factor {
            linear::forward(cells.factor, h, None, self.tensor(&head.weight), self.tensor(&head.bias), a.n_hidden);
        }
        latent::forward(
            cells.z,
            cells.variance,
            cells.mean,
            cells.log_variance,
            cells.factor,
            sample.then_some(&*cells.latent_noise),
            a.latent_distribution,
            a.n_latents,
        );
    }

    /// Masks, prior means and divergences of a block's cells.
    pub(crate) fn prior(&self, cells: &mut CellBlock<R>, rows: Range<usize>) {
        self.prior_by(self.network.prior(), cells, rows);
    }

    /// [`Pass::prior`] by a table of this network.
    pub(crate) fn prior_by(&self, prior: PriorTable<'_, R>, cells: &mut CellBlock<R>, rows: Range<usize>) {
        let of = interventions_of(self.batch, &self.batch.cells[rows], self.shared.max_interventions);
        if prior.shifts.is_some() {
            let (mask, slope) = (&mut *cells.mask, &mut *cells.slope);
            let buffers = MaskBuffers { mask, slope, logit: cells.mask_logit, noise: cells.mask_noise };
            prior.masks_of_cells(buffers, of);
        }
        prior.means_of_cells(cells.prior_mean, cells.mask, of);
        // The gradient of z is not in use yet: it lends its room.
        shift::divergences(cells.kl, cells.d_z, cells.mean, cells.variance, cells.prior_mean);
        shift::add_factor_divergences(cells.kl, cells.factor);
        prior.add_mask_divergences(cells.kl, cells.slope, of);
    }

    /// Logits of the expression rates.
    pub(crate) fn output(&self, block: &mut Block<R>) {
        let a = &self.network.architecture;
        let head = &self.network.tensors.decoder_output;
        let hidden = block.decoder[a.n_layers - 1].as_ref().expect("the last layer").out as &[R];
        linear::forward(
            block.cells.logits,
            Rows::new(hidden, hidden.len() / a.n_hidden, a.n_hidden),
            None,
            self.tensor(&head.weight),
            self.tensor(&head.bias),
            a.n_hidden,
        );
    }

    /// Negative log-likelihood of a block's cells.
    pub(crate) fn likelihood(&self, block: &mut Block<R>, rows: Range<usize>) {
        let a = &self.network.architecture;
        let cells = &mut block.cells;
        let g = a.n_genes;
        let (likelihood, scratch) = (self.shared.likelihood, &mut cells.likelihood_scratch[0]);
        let end = rows.end;
        for (i, row) in rows.enumerate() {
            // What has left the caches since the rows were loaded is fetched while the one before is worked on.
            self.batch.prefetch(row + 1..end.min(row + 2));
            let (logits, x) = (&mut cells.logits[i * g..(i + 1) * g], &cells.x[i * g..(i + 1) * g]);
            let cell = CellCounts { x, nonzero: self.batch.row(row), library: cells.library[i] };
            let terms = likelihood.count_terms(cell.nonzero, scratch);
            cells.reconstruction[i] = likelihood.value(logits, cell, terms, scratch);
        }
    }

    /// Negative log-likelihood of a block's cells, and its gradients in logits and log-dispersions.
    pub(crate) fn likelihood_and_gradient(&self, block: &mut Block<R>, rows: Range<usize>, scale: R) {
        let a = &self.network.architecture;
        let cells = &mut block.cells;
        let g = a.n_genes;
        let (likelihood, scratch) = (self.shared.likelihood, &mut cells.likelihood_scratch[0]);
        let width = a.likelihood.n_parameters(g);
        cells.d_log_dispersion.fill(R::ZERO);
        let end = rows.end;
        for (i, row) in rows.enumerate() {
            // What has left the caches since the rows were loaded is fetched while the one before is worked on.
            self.batch.prefetch(row + 1..end.min(row + 2));
            let (logits, x) = (&mut cells.logits[i * g..(i + 1) * g], &cells.x[i * g..(i + 1) * g]);
            let cell = CellCounts { x, nonzero: self.batch.row(row), library: cells.library[i] };
            let d_log_dispersion = &mut cells.d_log_dispersion[i / ROWS_PER_BLOCK * width..][..width];
            cells.reconstruction[i] = likelihood.value_and_gradient(logits, cell, scale, d_log_dispersion, scratch);
        }
    }

    /// Gradient of the decoder's last hidden layer.
    pub(crate) fn output_backward(&self, block: &mut Block<R>) {
        let head = &self.network.tensors.decoder_output;
        let last = block.decoder[self.network.architecture.n_layers - 1].as_mut().expect("the last layer");
        let n = block.cells.logits.len() / head.n_out;
        let d_y = Rows::new(block.cells.logits, n, head.n_out);
        linear::backward_input(last.d, Accumulate::Replace, d_y, self.tensor(&head.weight), head.n_in, head.n_out);
    }

    /// From the decoder's first layer through z and the divergence to the encoder's last hidden layer.
    pub(crate) fn latent_backward(&self, block: &mut Block<R>, kl_scale: R) {
        let a = &self.network.architecture;
        let t = &self.network.tensors;
        let cells = &mut block.cells;
        let n = cells.library.len();
        let first = block.decoder[0].as_ref().expect("a first layer");
        let of_first = &t.decoder[0].linear;
        let d_y = Rows::new(first.d, n, of_first.n_out);
        let weight = self.tensor(&of_first.weight);
        linear::backward_input(cells.d_z, Accumulate::Replace, d_y, weight, of_first.n_in, of_first.n_out);
        shift::divergence_gradient(cells.d_kl_mean, cells.mean, cells.prior_mean, kl_scale);
        latent::backward(
            cells.d_mean,
            cells.d_log_variance,
            cells.d_z,
            cells.z,
            cells.variance,
            cells.latent_noise,
            cells.d_kl_mean,
            kl_scale,
            a.latent_distribution,
            a.n_latents,
        );
        let last = block.encoder[a.n_layers - 1].as_mut().expect("the last layer");
        let heads = [
            (&t.latent_mean, &cells.d_mean, Accumulate::Replace),
            (&t.latent_log_variance, &cells.d_log_variance, Accumulate::Add),
        ];
        for (head, d, into) in heads {
            let d = Rows::new(d, n, a.n_latents);
            linear::backward_input(last.d, into, d, self.tensor(&head.weight), a.n_hidden, a.n_latents);
        }
        if let Some(head) = &t.latent_factor {
            latent::correlate_backward(
                cells.d_factor,
                cells.d_z,
                cells.factor,
                cells.latent_noise,
                kl_scale,
                a.n_latents,
            );
            let d = Rows::new(cells.d_factor, n, head.n_out);
            linear::backward_input(last.d, Accumulate::Add, d, self.tensor(&head.weight), a.n_hidden, head.n_out);
        }
    }
}

/// Most row blocks that are worked on as one.
pub(crate) const MOST_BLOCKS_PER_STRIPE: usize = 4;

/// Most bytes of the logits of a stripe of several blocks, so that they stay in a core's cache.
pub(crate) const MOST_BYTES_PER_STRIPE: usize = 1 << 20;

/// Row blocks that a thread works on as one, of `n_blocks` with so many bytes of logits each: its whole share, or equal parts
/// of that.
pub(crate) fn blocks_per_stripe(n_blocks: usize, threads: usize, bytes: usize) -> usize {
    let share = n_blocks.div_ceil(threads).max(1);
    share.div_ceil(share.div_ceil(most_blocks_per_stripe(bytes)))
}

/// Most row blocks, with so many bytes of logits each, that are worked on as one.
pub(crate) fn most_blocks_per_stripe(bytes: usize) -> usize {
    (MOST_BYTES_PER_STRIPE / bytes.max(1)).clamp(1, MOST_BLOCKS_PER_STRIPE)
}

pub(crate) fn layer_block<'a, 'w, R>(block: &'a mut Block<'w, R>, side: Side, l: usize) -> &'a mut LayerBlock<'w, R> {
    let layers = match side {
        Side::Encoder => &mut block.encoder,
        Side::Decoder => &mut block.decoder,
    };
    layers[l].as_mut().expect("layers up to n_layers exist")
}

#[cfg(test)]
mod tests {
    use super::blocks_per_stripe;

    #[test]
    fn stripes_are_equal_shares_of_the_blocks_that_fit_a_cache() {
        for (n_blocks, threads, kilobytes, stripe) in [
            (4, 1, 16, 4),
            (4, 2, 16, 2),
            (4, 3, 16, 2),
            (4, 4, 16, 1),
            (4, 8, 16, 1),
            (0, 2, 16, 1),
            (6, 2, 16, 3),
            (10, 2, 16, 3),
            (16, 2, 16, 4),
            (16, 2, 300, 3),
            (16, 2, 600, 1),
            (16, 2, 5000, 1),
        ] {
            let found = blocks_per_stripe(n_blocks, threads, kilobytes * 1024);
            assert_eq!(found, stripe, "{n_blocks} blocks of {kilobytes} kB, {threads} threads");
        }
    }
}
