//! Settings as they are saved beside the results, and what is compared of them.

use std::path::Path;

use crate::settings::config::Settings;
use crate::settings::effect::without_effect;
use crate::settings::keys::{INDIFFERENT_KEYS, UNSAVED_KEYS, data_keys, saved_order, simulation_keys};
use crate::words::quoted;

impl Settings {
    /// The settings as the text of a configuration file, without those that say only where to write and what to print.
    /// Reading it gives the same settings (with those at their defaults).
    pub fn to_toml(&self) -> String {
        let mut table = toml::Table::try_from(self).expect("checked settings can be written as TOML");
        for key in UNSAVED_KEYS.into_iter().chain(without_effect(self).map(|unused| unused.key)) {
            table.remove(key);
        }
        for (key, labels) in [("holdout", self.training.holdout.as_ref()), ("control", Some(&self.input.control))] {
            let (Some(labels), true) = (labels, table.contains_key(key)) else { continue };
            // A label that begins with @ must not be read back as the name of a file.
            let entries = labels.iter().map(|label| match label.strip_prefix('@') {
                Some(rest) => toml::Value::String(format!("@@{rest}")),
                None => toml::Value::String(label.clone()),
            });
            table.insert(key.to_owned(), toml::Value::Array(entries.collect()));
        }
        let several = [
            ("data", self.data.as_ref(), &self.input.further_data),
            ("labels", self.input.labels.as_ref(), &self.input.further_labels),
        ];
        for (key, first, further) in several {
            if let (Some(first), false, true) = (first, further.is_empty(), table.contains_key(key)) {
                let paths = std::iter::once(first).chain(further).map(|path| path.display().to_string().into());
                table.insert(key.to_owned(), toml::Value::Array(paths.collect()));
            }
        }
        // A struct keeps the order of its fields, a table does not.
        let order = saved_order();
        let mut text = String::from("# Settings of this run. Repeat it with: svae-cpu run THIS_FILE\n");
        for key in order.iter().filter(|key| *key != "simulation") {
            if let Some(value) = table.get(key) {
                let mut line = toml::Table::new();
                line.insert(key.clone(), value.clone());
                text.push_str(&toml::to_string(&line).expect("a single key can be written"));
            }
        }
        if let Some(simulation) = &self.simulation {
            text.push_str("\n[simulation]\n");
            text.push_str(&toml::to_string(simulation).expect("a simulation can be written"));
        }
        text
    }

    /// The settings that are saved, as (dotted key, value), in their order.
    pub fn saved_keys(&self) -> Vec<(String, toml::Value)> {
        let mut saved: toml::Table = toml::from_str(&self.to_toml()).expect("settings are written as TOML");
        let mut keys = Vec::new();
        for key in saved_order() {
            match saved.remove(&key) {
                Some(toml::Value::Table(table)) => {
                    let names = simulation_keys();
                    let of = |name: &String| Some((format!("{key}.{name}"), table.get(name)?.clone()));
                    keys.extend(names.iter().filter_map(of));
                }
                Some(value) => keys.push((key, value)),
                None => {}
            }
        }
        keys
    }

    /// The settings that say which cells are read or simulated, as text: the same for runs that can share them.
    pub fn data_identity(&self) -> String {
        let about_data = data_keys();
        let keys = self.saved_keys().into_iter().filter(|(key, _)| about_data.contains(key));
        keys.map(|(key, value)| format!("{key} = {value}\n")).collect()
    }

    /// The saved settings that results depend on, as keys and values.
    pub fn settings_of_results(&self) -> Vec<(String, String)> {
        let mut keys = self.saved_keys();
        keys.retain(|(key, _)| !INDIFFERENT_KEYS.contains(&key.as_str()));
        keys.into_iter().map(|(key, value)| (key, value.to_string())).collect()
    }

    /// The command that resumes a run of these settings in `folder`.
    pub fn resume_command(&self, folder: &Path) -> String {
        let no_h5ad = if self.output.h5ad { "" } else { " --no-h5ad" };
        format!("svae-cpu run --resume {}{no_h5ad}", quoted(folder))
    }
}
