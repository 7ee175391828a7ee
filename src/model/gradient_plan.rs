//! How the gradient of a step is cut into tasks, each of which one thread forms from all rows at once.

use crate::model::tensors::{LinearLayer, LinearTensors, Side, Tensors};
use crate::parallel::team::Permutation;
use std::ops::Range;

/// A share of the gradient that one thread computes, from all rows at once.
#[derive(Debug, Clone)]
pub(crate) enum GradientTask {
    /// Output rows of a linear layer.
    Linear { layer: LinearLayer, rows: Range<usize> },
    /// Rows of the encoder's first layer: genes, then covariates.
    Input { rows: Range<usize> },
    /// Log-dispersions.
    Dispersion,
    /// Shifts and mask logits.
    Interventions,
}

/// The tasks of a network, and the places of their gradients in the flat buffer.
#[derive(Debug, Clone)]
pub(crate) struct GradientPlan {
    /// In the order of the parameters.
    pub tasks: Vec<GradientTask>,
    /// Numbers of the tasks, in the order in which they are begun.
    pub order: Permutation,
    /// What each task forms: weights, log-dispersions or shifts,
    pub weight_pieces: Vec<Range<usize>>,
    /// and biases or mask logits, or nothing.
    pub bias_pieces: Vec<Range<usize>>,
    /// Scales and offsets of the normalisations, whose gradients are formed before those of the tasks.
    pub norm_pieces: Vec<Range<usize>>,
}

impl GradientPlan {
    /// The plan for these tensors.
    pub fn new(tensors: &Tensors) -> Self {
        let n = tensors.encoder.len();
        // In the order of the parameters.
        let layers = (0..n)
            .map(LinearLayer::Encoder)
            .chain((0..n).map(LinearLayer::Decoder))
            .chain([LinearLayer::LatentMean, LinearLayer::LatentLogVariance])
            .chain(tensors.latent_factor.is_some().then_some(LinearLayer::LatentFactor))
            .chain([LinearLayer::DecoderOutput]);
        let (mut tasks, mut weights, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        for layer in layers {
            let linear = tensors.linear(layer);
            let width = linear.n_in + linear.n_covariates;
            let (weight, bias) = (linear.weight.0.start, linear.bias.0.clone());
            if layer == LinearLayer::Encoder(0) {
                // Tiles of genes; the first one also forms the gradient of the bias.
                let step = (width / 8).next_multiple_of(16).clamp(32, 256);
                for from in (0..width).step_by(step) {
                    let rows = from..(from + step).min(width);
                    weights.push(weight + rows.start * linear.n_out..weight + rows.end * linear.n_out);
                    biases.push(if from == 0 { bias.clone() } else { 0..0 });
                    tasks.push(GradientTask::Input { rows });
                }
                continue;
            }
            let step = rows_per_task(linear);
            for from in (0..linear.n_out).step_by(step) {
                let rows = from..(from + step).min(linear.n_out);
                weights.push(weight + rows.start * width..weight + rows.end * width);
                biases.push(bias.start + rows.start..bias.start + rows.end);
                tasks.push(GradientTask::Linear { layer, rows });
            }
        }
        if let Some(log_dispersion) = &tensors.log_dispersion {
            weights.push(log_dispersion.0.clone());
            biases.push(0..0);
            tasks.push(GradientTask::Dispersion);
        }
        if let Some(shift) = &tensors.shift {
            weights.push(shift.0.clone());
            biases.push(tensors.mask_logit.as_ref().map_or(0..0, |mask_logit| mask_logit.0.clone()));
            tasks.push(GradientTask::Interventions);
        }
        // Tasks that cannot be cut come first, so that no thread is left with one of them while the others wait.
        let order = Permutation::sorted_by_key(tasks.len(), |&i| match &tasks[i] {
            GradientTask::Interventions => 0,
            GradientTask::Dispersion => 1,
            GradientTask::Input { .. } => 2,
            GradientTask::Linear { .. } => 3,
        });
        let norms = [Side::Encoder, Side::Decoder].into_iter().flat_map(|side| tensors.hidden(side));
        let norms = norms.filter_map(|layer| layer.norm.as_ref());
        let norm_pieces = norms.flat_map(|norm| [norm.weight.0.clone(), norm.bias.0.clone()]).collect();
        Self { tasks, order, weight_pieces: weights, bias_pieces: biases, norm_pieces }
    }
}

/// Output rows per task: enough work to outweigh starting it.
fn rows_per_task(linear: &LinearTensors) -> usize {
    (8_192 / (linear.n_in + linear.n_covariates).max(1)).next_multiple_of(16).clamp(16, 128)
}
