//! Hand-derived gradients against finite differences, in f64: every block by itself, and the whole objective.

mod blocks;
mod comparison;
mod objective;

pub use blocks::{
    activation, adam, batch_norm, check_blocks, hard_mask, input_layer, integrated_masks, latent, layer_norm, linear,
    negative_binomial, penalty, poisson, prior, soft_mask,
};
pub use comparison::{Comparison, Evaluation, Random, TOLERANCE, Tolerance};
pub use objective::{check_network, check_objective, network_at_a_random_point};
