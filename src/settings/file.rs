//! Reading a configuration file: every key that is unknown, or of the wrong type, is named with its line.

use std::path::Path;

use crate::error::{Error, InputError, Result};
use crate::settings::keys::known_keys;
use crate::settings::origin::{Origin, flag_of};
use crate::settings::raw::RawSettings;
use crate::words::nearest;

/// Reads the configuration file at `path`, refusing unknown keys and values of the wrong type.
pub(super) fn read(path: &Path) -> Result<(RawSettings, Origin)> {
    parse(&read_text(path)?, path)
}

/// The text of the file at `path`.
pub(super) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| -> Error {
        match source.kind() {
            std::io::ErrorKind::NotFound => InputError::new(
                "there is no such file",
                "give the path of a configuration file in TOML, or set everything by flags",
            )
            .in_file(path)
            .into(),
            _ => {
                InputError::new(format!("it cannot be read: {source}"), "give the path of a configuration file in TOML")
                    .in_file(path)
                    .into()
            }
        }
    })
}

/// Number of the line, from 1, of a place in a text.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    text[..offset.min(text.len())].matches('\n').count() + 1
}

/// An error of the TOML reader, located.
pub(super) fn syntax_error(error: &toml::de::Error, text: &str, path: &Path) -> Error {
    let mut input = InputError::new(
        format!("this is not valid TOML: {}", error.message().replace('\n', ", ")),
        "write one `key = value` per line",
    )
    .in_file(path);
    if let Some(span) = error.span() {
        input = input.at(format!("line {}", line_at(text, span.start)));
    }
    input.into()
}

/// What is wrong with a key and its value, and what to do: (problem, remedy).
pub(super) fn fault(key: &str, value: &toml::Value, known: &[String]) -> Option<(String, String)> {
    if !known.iter().any(|name| name == key) {
        let remedy = match nearest_key(key, known) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "remove it; `svae-cpu run --help` lists the flags, which are the keys".to_owned(),
        };
        return Some((format!("there is no setting `{key}`"), remedy));
    }
    let mut single = toml::Table::new();
    insert(&mut single, key, value.clone());
    let error = single.try_into::<RawSettings>().err()?;
    Some((format!("`{key}` cannot be used: {}", in_words(error.message())), example_of(key)))
}

/// Sets a dotted key of a table of settings.
pub(super) fn insert(table: &mut toml::Table, key: &str, value: toml::Value) {
    match key.strip_prefix("simulation.") {
        Some(name) => {
            let below = table.entry("simulation").or_insert_with(|| toml::Table::new().into());
            below.as_table_mut().expect("a table").insert(name.to_owned(), value);
        }
        None => {
            table.insert(key.to_owned(), value);
        }
    }
}

/// The settings in `text`, the contents of `path`.
pub(super) fn parse(text: &str, path: &Path) -> Result<(RawSettings, Origin)> {
    let syntax = |error: toml::de::Error| syntax_error(&error, text, path);
    let document = toml::de::DeTable::parse(text).map_err(syntax)?;
    let mut lines = Vec::new();
    for (key, value) in document.get_ref() {
        let name: &str = key.get_ref();
        match value.get_ref() {
            toml::de::DeValue::Table(table) if name == "simulation" => {
                for key in table.keys() {
                    lines.push((format!("simulation.{}", key.get_ref()), line_at(text, key.span().start)));
                }
            }
            _ => lines.push((name.to_owned(), line_at(text, key.span().start))),
        }
    }
    // The file's own order, so that the first mistake is the one reported.
    lines.sort_by_key(|(_, line)| *line);

    let known = known_keys();
    let values: toml::Table = toml::from_str(text).map_err(syntax)?;
    for (key, line) in &lines {
        let value = match key.strip_prefix("simulation.") {
            Some(name) => &values["simulation"][name],
            None => &values[key],
        };
        if let Some((problem, remedy)) = fault(key, value, &known) {
            return Err(InputError::new(problem, remedy).in_file(path).at(format!("line {line}")).into());
        }
    }
    let raw = values.try_into().map_err(syntax)?;
    Ok((raw, Origin { file: Some(path.to_owned()), lines, flags: Vec::new() }))
}

/// The known key nearest to `key`, whether it was written with dashes, as a flag or in the wrong table.
fn nearest_key<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let plain = key.replace('-', "_");
    let bare = plain.strip_prefix("simulation.").or(plain.strip_prefix("sim_")).unwrap_or(&plain);
    let leaf = |name: &'a str| name.strip_prefix("simulation.").unwrap_or(name);
    if let Some(same) = known.iter().find(|name| ***name == plain) {
        return Some(same);
    }
    let in_simulation = bare != plain;
    if let Some(same) = known.iter().find(|name| leaf(name) == bare && (!in_simulation || name.starts_with("sim"))) {
        return Some(same);
    }
    let found = nearest(bare, known.iter().map(|name| leaf(name)))?;
    known
        .iter()
        .find(|name| leaf(name) == found && in_simulation == name.starts_with("simulation."))
        .or_else(|| known.iter().find(|name| leaf(name) == found))
        .map(String::as_str)
}

/// A deserialiser's message with the names of Rust types put into words.
fn in_words(message: &str) -> String {
    let mut text = message.trim().replace('\n', ", ");
    for (name, words) in [
        ("expected i64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected a boolean", "expected true or false"),
        ("expected a sequence", "expected a list, such as [\"A\", \"B\"]"),
        ("expected path string", "expected a path in quotes"),
        ("expected a string", "expected text in quotes"),
        ("invalid type: ", "it is "),
        ("string \"", "the text \""),
        ("floating point", "the number"),
    ] {
        text = text.replace(name, words);
    }
    text
}

fn example_of(key: &str) -> String {
    let name = key.strip_prefix("simulation.").unwrap_or(key);
    format!("see {} in `svae-cpu run --help` for what `{name}` may be", flag_of(key))
}
