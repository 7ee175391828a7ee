//! Sparse-mechanism-shift variational auto-encoder (sVAE+) for perturbation screens, on CPUs, with hand-derived gradients.

pub mod data;
pub mod error;
pub mod model;
pub mod numerics;

pub use error::{Error, InputError, Result};
