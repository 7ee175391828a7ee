//! From an open file to a data set: selection, checks, assembly.

pub(crate) mod guards;
pub mod inspect;
pub mod load;
pub(crate) mod select_genes;
pub(crate) mod summary;
