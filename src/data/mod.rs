//! From files to minibatches: counts, labels and covariates of cells.

pub mod anndata_writer;
pub mod counts;
mod counts_sink;
pub mod dataset;
pub mod disk_counts;
mod features;
mod guards;
pub(crate) mod h5ad;
mod hdf5;
pub mod inspect;
mod labels;
pub mod load;
mod matrix_market;
pub mod minibatch;
pub mod names;
pub mod npz;
mod npz_screen;
mod screen_file;
mod select_genes;
pub mod simulate;
pub mod split;
mod summary;
mod tenx;
