//! What a run leaves behind: the results folder and every file in it.

pub mod anndata;
pub mod catalogue;
pub mod cells;
pub mod findings;
pub mod folder;
pub mod graph;
pub mod judgement;
pub mod manifest;
pub mod model_file;
pub mod output_file;
pub mod page;
pub mod predictions;
mod read;
pub mod record;
pub mod tables;
