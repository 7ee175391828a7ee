//! From files to minibatches: counts, labels and covariates of cells.

pub mod anndata_writer;
pub mod counts;
pub mod dataset;
pub(crate) mod h5ad;
pub mod load;
pub mod npz;
pub mod simulate;
pub mod split;
