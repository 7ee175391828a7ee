//! Proof that the gradients are right, for tests and for `svae-cpu verify`.

pub mod finite_differences;
pub mod golden;
pub mod outcome;
