//! Sparse-mechanism-shift variational auto-encoder (sVAE+) for perturbation screens, on CPUs, with hand-derived gradients.

pub mod cli;
pub mod config;
pub mod data;
pub mod error;
pub mod report;
pub mod run;

pub use error::{Error, InputError, Result};
