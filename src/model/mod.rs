//! The model, in the order its data flow: encoder, latent, prior, decoder, likelihood, objective.

pub mod adam;
pub mod architecture;
pub mod clock;
pub mod latent;
pub mod layers;
pub mod likelihood;
pub mod method;
pub mod network;
pub mod objective;
pub mod parameters;
pub mod prior;
pub mod workspace;
