//! `svae-cpu inspect`: what is in a data file, and the command that would train on it.

pub use crate::data::loading::inspect::inspect_as;
