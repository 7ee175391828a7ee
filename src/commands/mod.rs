//! What each subcommand does; a file does what `svae-cpu` says under its name.

pub mod bench;
pub mod embed;
pub mod evaluate;
pub mod fit_shifts;
pub mod inspect;
pub mod judge;
pub(crate) mod new_cells;
pub mod normalize;
pub mod predict;
pub mod report;
pub mod run;
pub(crate) mod run_folder;
pub(crate) mod run_linear;
pub mod sample;
pub(crate) mod screen;
pub mod simulate;
pub mod sweep;
pub mod verify;
