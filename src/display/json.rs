//! Figures as JSON, for other programs.

use serde::Serialize;

/// The JSON text of figures, keys in the order of their structure, without a final line break.
///
/// # Panics
/// If they are more than numbers, names and lists of them.
pub fn to_json(figures: &impl Serialize) -> String {
    serde_json::to_string_pretty(figures).expect("figures are plain numbers and names")
}
