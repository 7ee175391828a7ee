//! The model, in the order its data flow: encoder, latent, mask, prior, decoder, likelihood, objective.

pub mod activation;
pub mod architecture;
pub mod batch_norm;
pub mod input_layer;
pub mod latent;
pub mod layer_norm;
pub mod linear;
pub mod mask;
pub mod negative_binomial;
pub mod network;
pub mod objective;
pub mod parameters;
pub mod prior;
pub mod workspace;
