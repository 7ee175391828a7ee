//! The files that screens come in, each read by a file of this folder.

pub mod anndata_writer;
pub(crate) mod counts_sink;
pub(crate) mod features;
pub(crate) mod h5ad;
pub(crate) mod hdf5;
pub(crate) mod labels;
pub(crate) mod matrix_market;
pub mod npz;
pub(crate) mod npz_screen;
pub(crate) mod screen_file;
pub(crate) mod tenx;
