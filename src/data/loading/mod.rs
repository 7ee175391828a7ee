//! From an open file to a data set: selection, checks, assembly.

pub(crate) mod annotations;
pub(crate) mod genes;
pub(crate) mod guards;
pub mod inspect;
pub(crate) mod interventions;
pub(crate) mod kept;
pub mod load;
pub(crate) mod options;
pub(crate) mod select_genes;
pub(crate) mod summary;
pub(crate) mod truth;
