//! What a network says of many cells.

pub mod loadings;
