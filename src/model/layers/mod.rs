//! Layers of encoder and decoder: forward and backward, one block of rows at a time.

pub mod activation;
pub mod batch_norm;
pub mod input_layer;
pub mod layer_norm;
pub mod linear;
