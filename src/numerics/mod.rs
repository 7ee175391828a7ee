//! Arithmetic under the model: scalars, vectorised loops, matrix products, fixed-order sums, random streams.

pub mod aligned;
pub mod matmul;
pub mod random;
pub mod real;
pub mod simd;
pub mod special;
pub mod spread;
pub mod sum;
