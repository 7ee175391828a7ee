//! From an open file to a data set: selection, checks, assembly.

pub(crate) mod annotations;
pub(crate) mod assignments;
pub(crate) mod called;
pub(crate) mod controls;
pub(crate) mod frames;
pub(crate) mod genes;
pub(crate) mod giveaways;
pub(crate) mod guards;
pub mod inspect;
pub(crate) mod intervention_columns;
pub(crate) mod interventions;
pub(crate) mod kept;
pub mod load;
pub(crate) mod members;
pub(crate) mod options;
pub(crate) mod select_genes;
pub(crate) mod separators;
pub(crate) mod suggested_reading;
pub(crate) mod summary;
pub(crate) mod truth;
