//! Pieces that several sections of the report are made of.

use crate::results::page::charts::Curve;
use crate::results::page::svg::escape;
use crate::training::history::EpochRecord;

/// Colours of groups.
pub(super) const COLOURS: usize = 8;
/// Most rows of a bar chart.
pub(super) const MOST_BARS: usize = 30;
/// Most rows of a map in any case.
pub(super) const MOST_MAP_ROWS: usize = 400;

/// A figure: what it is, how to read it, and the drawing.
pub(super) fn figure(title: &str, explanation: &str, drawing: &str) -> String {
    format!(
        "<figure><figcaption><b>{}</b><span>{}</span></figcaption>\n{drawing}\n</figure>\n",
        escape(title),
        escape(explanation)
    )
}

/// A legend: class of the swatch and name.
pub(super) fn key(entries: &[(String, String)]) -> String {
    let entries: String =
        entries.iter().map(|(class, name)| format!("<span><i class=\"{class}\"></i>{}</span>", escape(name))).collect();
    format!("<div class=\"key\">{entries}</div>\n")
}

/// The number under `key`, if there is one.
pub(super) fn number(value: &serde_json::Value, key: &str) -> Option<f64> {
    value.get(key)?.as_f64()
}

/// The course of a figure over the epochs, in the colour of this number.
pub(super) fn curve(colour: usize, history: &[EpochRecord], of: impl Fn(&EpochRecord) -> f64) -> Curve {
    Curve { colour, points: history.iter().map(|r| (r.epoch as f64, of(r))).collect() }
}

/// Legend of the curves of training and validation cells.
pub(super) fn both() -> String {
    key(&[("thin k0".to_owned(), "training".to_owned()), ("thin k1".to_owned(), "validation".to_owned())])
}
