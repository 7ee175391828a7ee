//! Sparse-mechanism-shift variational auto-encoder (sVAE+) for perturbation screens, on CPUs, with hand-derived gradients.

pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod data;
pub mod display;
pub mod error;
pub mod evaluation;
pub mod fit;
pub mod inference;
pub mod model;
pub mod numerics;
pub mod parallel;
pub mod results;
pub mod settings;
pub mod system;
pub mod training;
pub mod verification;
pub mod words;

pub use error::{Error, InputError, Result};
