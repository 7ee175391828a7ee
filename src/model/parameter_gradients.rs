//! Gradients of the parameters from those of the activations, and the optimiser's step on them while they are in the caches.

use crate::model::adam::{Adam, AdamStep};
use crate::model::clock::Stage;
use crate::model::gradient_plan::GradientTask;
use crate::model::layers::{input_layer, linear};
use crate::model::network::Network;
use crate::model::parameters::Buffer;
use crate::model::pass::{StepInput, interventions_of};
use crate::model::prior::table::PriorTable;
use crate::model::tensors::LinearLayer;
use crate::model::workspace::{ROWS_PER_BLOCK, Workspace};
use crate::numerics::matmul::Rows;
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::parallel::team::{Team, pieces_pair, reordered};
use std::ops::Range;

impl<R: Real> Network<R> {
    /// Gradients of everything but normalisation, each from all rows at once, shared out by tiles of the output.
    pub(crate) fn parameter_gradients(
        &self,
        team: &Team,
        workspace: &Workspace<R>,
        gradient: &mut Buffer<R>,
        input: StepInput<'_>,
    ) {
        let output = pieces_pair(&mut gradient.values, &self.plan.weight_pieces, &self.plan.bias_pieces);
        let output = reordered(output, &self.plan.order);
        team.run(self.plan.tasks.len(), output, |i, (main, second)| {
            let mut lap = workspace.clock.lap();
            let i = self.plan.order.at(i);
            let values = [&self.plan.weight_pieces[i], &self.plan.bias_pieces[i]]
                .map(|piece| &self.parameters.values[piece.clone()]);
            self.parameter_gradient(i, main, second, values, workspace, input);
            lap.end(Stage::ParameterGradients);
        });
    }

    /// [`Network::parameter_gradients`], each followed by a step of the optimiser on the same parameters.
    pub(crate) fn parameter_steps(
        &mut self,
        team: &Team,
        workspace: &Workspace<R>,
        gradient: &mut Buffer<R>,
        adam: &mut Adam<R>,
        step: &AdamStep<R>,
        trained: &[Range<usize>],
        input: StepInput<'_>,
    ) {
        let mut parameters = std::mem::take(&mut self.parameters.values);
        // The only gradients that read parameters are those of shifts and mask logits, each its own, before the step.
        let network = &*self;
        let (weights_at, biases_at) = (&network.plan.weight_pieces[..], &network.plan.bias_pieces[..]);
        let output = (
            pieces_pair(&mut gradient.values, weights_at, biases_at),
            pieces_pair(&mut parameters, weights_at, biases_at),
            pieces_pair(&mut adam.first.values, weights_at, biases_at),
            pieces_pair(&mut adam.second.values, weights_at, biases_at),
        );
        let output = reordered(output, &network.plan.order);
        team.run(network.plan.tasks.len(), output, |i, (gradient, parameters, first, second)| {
            let i = network.plan.order.at(i);
            let mut lap = workspace.clock.lap();
            let values = [&*parameters.0, &*parameters.1];
            network.parameter_gradient(i, gradient.0, gradient.1, values, workspace, input);
            lap.end(Stage::ParameterGradients);
            let of_main = (&weights_at[i], gradient.0, parameters.0, first.0, second.0);
            let of_second = (&biases_at[i], gradient.1, parameters.1, first.1, second.1);
            for (piece, gradient, parameters, first, second) in [of_main, of_second] {
                for range in overlaps(trained, piece) {
                    let at = range.start - piece.start..range.end - piece.start;
                    let (gradient, first) = (&gradient[at.clone()], &mut first[at.clone()]);
                    step.apply(&mut parameters[at.clone()], gradient, first, &mut second[at]);
                }
            }
            lap.end(Stage::Adam);
        });
        for piece in &network.plan.norm_pieces {
            for range in overlaps(trained, piece) {
                let (gradient, first) = (&gradient.values[range.clone()], &mut adam.first.values[range.clone()]);
                step.apply(&mut parameters[range.clone()], gradient, first, &mut adam.second.values[range]);
            }
        }
        self.parameters.values = parameters;
    }

    /// Task `i` of [`Network::parameter_gradients`]; values: the parameters that `main` and `second` are gradients of.
    pub(crate) fn parameter_gradient(
        &self,
        i: usize,
        main: &mut [R],
        second: &mut [R],
        values: [&[R]; 2],
        workspace: &Workspace<R>,
        input: StepInput<'_>,
    ) {
        let n = input.batch.cells.len();
        match &self.plan.tasks[i] {
            // A process may hold no cell of a minibatch.
            GradientTask::Linear { .. } | GradientTask::Input { .. } if n == 0 => {
                main.fill(R::ZERO);
                second.fill(R::ZERO);
            }
            GradientTask::Linear { layer, rows } => {
                self.linear_gradient(workspace, *layer, rows.clone(), main, second, n);
            }
            GradientTask::Input { rows } => {
                let linear = self.tensors.linear(LinearLayer::Encoder(0));
                let d_y = &workspace.encoder[0].d[..n * linear.n_out];
                let covariates = self.covariates(linear, &workspace.cells.covariates, n);
                let counts = self.input(&workspace.cells.input[..n * linear.n_in], &workspace.log1p, input.batch, 0);
                input_layer::backward_weight(main, rows.clone(), d_y, linear.n_out, counts, covariates);
                if !second.is_empty() {
                    linear::backward_bias(second, Rows::new(d_y, n, linear.n_out));
                }
            }
            GradientTask::Dispersion => {
                let blocks = workspace.cells.d_log_dispersion.chunks_exact(self.architecture.n_genes);
                vectorized(
                    #[inline(always)]
                    || {
                        main.fill(R::ZERO);
                        for block in blocks.take(n.div_ceil(ROWS_PER_BLOCK)) {
                            for (d, &part) in main.iter_mut().zip(block) {
                                *d += part;
                            }
                        }
                    },
                );
            }
            GradientTask::Interventions => {
                let mask_logits = self.tensors.mask_logit.as_ref().map(|_| values[1]);
                let prior = self.prior_of(Some(values[0]), mask_logits);
                self.intervention_gradient(workspace, [main, second], prior, input);
            }
        }
    }

    pub(crate) fn linear_gradient(
        &self,
        workspace: &Workspace<R>,
        layer: LinearLayer,
        rows: Range<usize>,
        d_weight: &mut [R],
        d_bias: &mut [R],
        n: usize,
    ) {
        let linear = self.tensors.linear(layer);
        let last = self.architecture.n_layers - 1;
        let cells = &workspace.cells;
        let (x, d_y) = match layer {
            LinearLayer::Encoder(0) => unreachable!("planned as tasks of the input"),
            LinearLayer::Encoder(l) => (&workspace.encoder[l - 1].out, &workspace.encoder[l].d),
            LinearLayer::LatentMean => (&workspace.encoder[last].out, &cells.d_mean),
            LinearLayer::LatentLogVariance => (&workspace.encoder[last].out, &cells.d_log_variance),
            LinearLayer::LatentFactor => (&workspace.encoder[last].out, &cells.d_factor),
            LinearLayer::Decoder(0) => (&cells.z, &workspace.decoder[0].d),
            LinearLayer::Decoder(l) => (&workspace.decoder[l - 1].out, &workspace.decoder[l].d),
            LinearLayer::DecoderOutput => (&workspace.decoder[last].out, &cells.logits),
        };
        let d_y = Rows::strided(&d_y[rows.start..], n, rows.len(), linear.n_out);
        let x = Rows::new(x, n, linear.n_in);
        let covariates = self.covariates(linear, &cells.covariates, n);
        linear::backward_parameters(d_weight, d_bias, d_y, x, covariates, linear.n_in);
    }

    /// Gradients of shifts and mask logits: cell by cell in order, then the penalty.
    pub(crate) fn intervention_gradient(
        &self,
        workspace: &Workspace<R>,
        [d_shift, d_logit]: [&mut [R]; 2],
        prior: PriorTable<R>,
        StepInput { batch, weights, penalty, .. }: StepInput<'_>,
    ) {
        let cells = &workspace.cells;
        d_shift.fill(R::ZERO);
        d_logit.fill(R::ZERO);
        let of = interventions_of(batch, batch.cells, workspace.max_interventions);
        let kl_scale = R::from_f64(weights.cell * weights.kl);
        prior.add_gradient([d_shift, d_logit], (&cells.d_kl_mean, kl_scale), [&cells.mask, &cells.slope], of);
        if let Some(logits) = prior.logits() {
            penalty.add_gradient(d_logit, logits, weights.penalty);
        }
    }
}

/// What `range` has in common with each of `ranges`.
fn overlaps(ranges: &[Range<usize>], range: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    ranges.iter().map(|r| r.start.max(range.start)..r.end.min(range.end)).filter(|r| !r.is_empty())
}
