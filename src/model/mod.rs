//! The model, block by block: each forward stands beside its hand-derived backward.

pub mod negative_binomial;
