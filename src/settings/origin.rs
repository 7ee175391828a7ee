//! Where settings were said, for messages: the line of a file, or a flag.

use std::path::PathBuf;

use crate::error::{Error, InputError};

/// Where each raw setting came from, for messages.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    /// The configuration file.
    pub(super) file: Option<PathBuf>,
    /// Line of each key of the file, as (dotted key, line from 1).
    pub(super) lines: Vec<(String, usize)>,
    /// Dotted keys given as flags.
    pub(super) flags: Vec<String>,
}

impl Origin {
    /// The place of `key`, for the rules.
    pub(super) fn place<'a>(&'a self, key: &'a str) -> Place<'a> {
        Place { key, origin: self }
    }

    /// An error about `key`, located at its flag or its line in the file.
    pub(super) fn error(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        let error = InputError::new(problem, remedy);
        if self.flags.iter().any(|flag| flag == key) {
            return error.at(flag_of(key)).into();
        }
        match (&self.file, self.lines.iter().find(|(name, _)| name == key)) {
            (Some(file), Some((_, line))) => error.in_file(file).at(format!("line {line}, key `{key}`")).into(),
            _ => error.at(flag_of(key)).into(),
        }
    }
}

/// The flag of a dotted key.
pub(super) fn flag_of(key: &str) -> String {
    match key.strip_prefix("simulation.") {
        Some("kind") => "--simulation".to_owned(),
        Some(name) => format!("--sim-{}", name.replace('_', "-")),
        None if key == "heldout" || key == "h5ad" => format!("--no-{key}"),
        None => format!("--{}", key.replace('_', "-")),
    }
}

/// A key, and where it was said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The dotted key.
    pub(super) key: &'a str,
    /// Where settings came from.
    pub(super) origin: &'a Origin,
}

impl Place<'_> {
    pub(super) fn refused(self, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        self.origin.error(self.key, problem, remedy)
    }

    pub(super) fn out_of_range(self, value: impl std::fmt::Display, remedy: String) -> Error {
        self.refused(format!("{value} is out of range"), remedy)
    }
}
