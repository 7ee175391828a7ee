//! Arithmetic under the model: scalars, vectorised loops, matrix products, fixed-order sums.

pub mod aligned;
pub mod clock;
pub mod matmul;
pub mod real;
pub mod simd;
pub mod special;
pub mod sum;
pub mod team;
