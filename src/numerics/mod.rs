//! Arithmetic under the model: scalars, vectorised loops, matrix products, fixed-order sums, random streams.

#![allow(
    clippy::too_many_arguments,
    clippy::too_many_lines,
    reason = "kernels take every buffer and size as an argument"
)]

pub mod aligned;
pub mod matmul;
pub mod random;
pub mod real;
pub mod simd;
pub mod special;
pub mod spread;
pub mod sum;
pub mod symmetric;
