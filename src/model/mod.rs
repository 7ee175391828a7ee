//! The model of one minibatch, in training and in evaluation: no file, no setting, no message.
//!
//! What it is: [`architecture`], [`method`], [`tensors`], [`parameters`], [`network`]. Its blocks, each with hand-derived
//! gradients: [`layers`], [`latent`], [`prior`], [`likelihood`], [`objective`], [`adam`]. What is done with it: [`step`] (the
//! training), [`evaluate`], [`decode`], [`particles`] and [`generate`], of which the first three run a [`pass`] over row
//! blocks of a [`workspace`].

#![allow(
    clippy::too_many_arguments,
    clippy::too_many_lines,
    reason = "kernels take every buffer and size as an argument"
)]

pub mod adam;
pub mod architecture;
pub mod clock;
pub mod decode;
pub mod evaluate;
pub mod generate;
pub(crate) mod gradient_plan;
pub mod initial_values;
pub mod latent;
pub mod layers;
pub mod likelihood;
pub mod method;
pub mod network;
pub mod noise;
pub mod objective;
pub mod parameter_gradients;
pub mod parameters;
pub mod particles;
pub mod pass;
pub mod prior;
pub mod step;
pub mod tensors;
pub mod workspace;
