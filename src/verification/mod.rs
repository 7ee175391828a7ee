//! Checks of the hand-derived gradients, for tests and for `svae-cpu verify`.

pub mod finite_differences;
