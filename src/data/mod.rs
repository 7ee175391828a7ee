//! From files to minibatches: counts, labels and covariates of cells.

pub mod combinations;
pub mod counts;
pub mod dataset;
pub mod formats;
pub mod identity;
pub mod loading;
pub mod minibatch;
pub mod mixing;
pub mod names;
pub mod screen;
pub mod simulate;
pub mod split;
