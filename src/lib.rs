//! Sparse-mechanism-shift variational auto-encoder (sVAE+) for perturbation screens, on CPUs, with hand-derived gradients.

pub mod application;
pub mod benchmark;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
pub mod evaluation;
pub mod interpretation;
pub mod interruption;
mod memory;
pub mod model;
pub mod numerics;
pub mod protocol;
pub mod random;
pub mod ranks;
pub mod report;
pub mod run;
pub mod sweep;
pub mod training;
pub mod verification;

pub use error::{Error, InputError, Result};
