//! The command line: one file per subcommand, arguments only.

mod arguments;
pub mod bench;
mod dispatch;
pub mod embed;
pub mod evaluate;
pub mod fit_shifts;
pub mod groups;
pub mod inspect;
pub mod judge;
mod manual;
pub mod normalize;
pub mod predict;
pub mod report;
pub mod run;
pub mod sample;
pub mod shell;
pub mod simulate;
pub mod sweep;
mod values;
pub mod verify;

pub use arguments::{Cli, Command};
pub use dispatch::dispatch;
