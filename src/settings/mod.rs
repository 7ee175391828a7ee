//! Settings in two stages: raw (all optional, from a TOML file and from flags) and checked (what the program runs on).
//!
//! A key of the file is the flag's name with underscores: `--label-key` is `label_key`; the simulation's flags are the
//! keys of a `[simulation]` table. Flags win over the file. Keys that are unknown, out of range, or that the chosen
//! method or data would not use are refused. The checked settings are saved beside the results, and reading that file
//! gives the same settings again.
//!
//! The way of a setting: `raw` declares it, `file` reads it, `overlay` and `recipe` say what wins, `ranges` and `check` refuse
//! what cannot be, `effect` what would do nothing, `config` holds it, `saved` writes it, `build` hands it to the layer that
//! acts on it.

mod build;
mod check;
mod config;
mod effect;
mod file;
mod grid;
mod keys;
mod origin;
mod overlay;
mod ranges;
mod raw;
mod recipe;
mod saved;
mod time_limit;

pub(crate) use config::KEYS_BY_DATA;
pub use config::{Settings, Source, threads_or_all};
pub use grid::{Criterion, Grid, GridRun, Selection};
pub use keys::INDIFFERENT_KEYS;
pub(crate) use keys::rank_of;
pub use raw::{
    ExecutionKeys, InterruptionKeys, ModelKeys, OutputKeys, RawData, RawExecution, RawInterruption, RawModel,
    RawOutput, RawSettings, RawSimulation, RawTraining, Recipe, TrainingKeys,
};
pub use time_limit::TimeLimit;

#[cfg(test)]
mod tests;
