//! The likelihood of counts given the decoder's rates.

pub mod negative_binomial;
pub mod poisson;
