//! What each subcommand does; a file does what `svae-cpu` says under its name.

pub mod bench;
pub mod run;
pub mod saved_model;
pub mod sweep;
