//! What a run leaves behind: the results folder and every file in it.

pub(crate) mod anndata;
pub mod folder;
pub mod graph;
pub mod manifest;
pub(crate) mod page;
pub mod tables;
