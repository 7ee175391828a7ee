//! Small pieces of SVG: elements as text, numbers without noise, axes with round ticks.

use std::fmt::Write;

pub(crate) use crate::results::graph::escape_xml as escape;

/// A number for a coordinate: at most one decimal.
pub(crate) fn at(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A number for people: enough digits for the size of a step between neighbours.
pub(crate) fn label(value: f64, step: f64) -> String {
    let decimals = (-step.abs().max(1e-12).log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.trim_start_matches(['-', '0', '.']).is_empty() {
        return "0".to_owned();
    }
    if value.abs() >= 10_000.0 && decimals == 0 {
        let sign = if value < 0.0 { "\u{2212}" } else { "" };
        return format!("{sign}{}", crate::words::grouped(value.abs().round() as u64));
    }
    text.replace('-', "\u{2212}")
}

/// A linear scale from values to coordinates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    pub low: f64,
    pub high: f64,
    pub from: f64,
    pub to: f64,
}

impl Scale {
    /// A scale for values from `low` to `high`, widened where both are one.
    pub fn new(low: f64, high: f64, from: f64, to: f64) -> Self {
        let (low, high) = if high - low > 1e-12 * (low.abs() + high.abs()) && (high - low).is_finite() {
            (low, high)
        } else {
            (low - 0.5, low + 0.5)
        };
        Self { low, high, from, to }
    }

    /// The same scale from one round number to another.
    pub fn rounded(self) -> Self {
        let step = self.step(5);
        Self { low: (self.low / step + 1e-9).floor() * step, high: (self.high / step - 1e-9).ceil() * step, ..self }
    }

    /// Coordinate of a value.
    pub fn of(self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Distance between about `n` round ticks.
    fn step(self, n: usize) -> f64 {
        let rough = (self.high - self.low) / n as f64;
        let power = 10f64.powf(rough.log10().floor());
        let factor = match rough / power {
            f if f < 1.5 => 1.0,
            f if f < 3.5 => 2.0,
            f if f < 7.5 => 5.0,
            _ => 10.0,
        };
        factor * power
    }

    /// Round values within the scale, about `n` of them, each with its label.
    pub fn ticks(self, n: usize) -> Vec<(f64, String)> {
        let step = self.step(n);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last.min(first + 100)).map(|i| (i as f64 * step, label(i as f64 * step, step))).collect()
    }
}

/// An SVG drawing under construction.
#[derive(Debug)]
pub(crate) struct Svg {
    text: String,
}

impl Svg {
    /// A drawing of so many units; `title` is read out by screen readers. A `fluid` one fills the width it is given.
    pub fn new(width: f64, height: f64, fluid: bool, title: &str) -> Self {
        let (w, h) = (at(width), at(height));
        let size = if fluid { "class=\"fluid\"".to_owned() } else { format!("width=\"{w}\" height=\"{h}\"") };
        Self { text: format!("<svg viewBox=\"0 0 {w} {h}\" {size} role=\"img\" aria-label=\"{}\">\n", escape(title)) }
    }

    /// Appends markup as it is.
    pub fn raw(&mut self, markup: &str) {
        self.text.push_str(markup);
        self.text.push('\n');
    }

    /// A line.
    pub fn line(&mut self, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
        let _ = writeln!(
            self.text,
            "<line class=\"{class}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
            at(x1),
            at(y1),
            at(x2),
            at(y2)
        );
    }

    /// Text; `anchor` is start, middle or end.
    pub fn text(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        let _ = writeln!(
            self.text,
            "<text class=\"{class}\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            at(x),
            at(y),
            escape(text)
        );
    }

    /// A name shortened to `most` characters, the whole of it on hover.
    pub fn name(&mut self, class: &str, x: f64, y: f64, anchor: &str, name: &str, most: usize) {
        let short = shortened(name, most);
        if short == name {
            return self.text(class, x, y, anchor, name);
        }
        let _ = writeln!(
            self.text,
            "<text class=\"{class}\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}<title>{}</title></text>",
            at(x),
            at(y),
            escape(&short),
            escape(name)
        );
    }

    /// A rectangle with a hint on hover (none where it is empty).
    #[expect(clippy::too_many_arguments, reason = "the attributes of the element")]
    pub fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64, opacity: f64, hint: &str) {
        let _ = write!(
            self.text,
            "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"",
            at(x),
            at(y),
            at(width),
            at(height)
        );
        if opacity < 1.0 {
            let _ = write!(self.text, " fill-opacity=\"{:.2}\"", opacity);
        }
        match hint {
            "" => self.text.push_str("/>\n"),
            hint => {
                let _ = writeln!(self.text, "><title>{}</title></rect>", escape(hint));
            }
        }
    }

    /// A circle with a hint on hover.
    pub fn circle(&mut self, class: &str, x: f64, y: f64, radius: f64, hint: &str) {
        let _ = writeln!(
            self.text,
            "<circle class=\"{class}\" cx=\"{}\" cy=\"{}\" r=\"{}\"><title>{}</title></circle>",
            at(x),
            at(y),
            at(radius),
            escape(hint)
        );
    }

    /// The path of a line through points; it is broken where a value is not finite.
    pub fn polyline(&mut self, class: &str, extra: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        let mut pen_down = false;
        for (x, y) in points {
            if !(x.is_finite() && y.is_finite()) {
                pen_down = false;
                continue;
            }
            let _ = write!(path, "{}{} {}", if pen_down { 'L' } else { 'M' }, at(x), at(y));
            pen_down = true;
        }
        let _ = writeln!(self.text, "<path class=\"{class}\" {extra} d=\"{path}\"/>");
    }

    /// Horizontal grid lines with labels on the left, as the vertical scale says.
    pub fn y_axis(&mut self, y: Scale, left: f64, right: f64, n: usize) {
        for (value, label) in y.ticks(n) {
            let at = y.of(value);
            self.line("grid", left, at, right, at);
            self.text("tick", left - 6.0, at + 3.5, "end", &label);
        }
    }

    /// Labels below, as the horizontal scale says, and the name of the axis.
    pub fn x_axis(&mut self, x: Scale, bottom: f64, n: usize, name: &str) {
        self.line("axis", x.from, bottom, x.to, bottom);
        for (value, label) in x.ticks(n) {
            self.line("axis", x.of(value), bottom, x.of(value), bottom + 4.0);
            self.text("tick", x.of(value), bottom + 16.0, "middle", &label);
        }
        self.text("name", (x.from + x.to) / 2.0, bottom + 32.0, "middle", name);
    }

    /// The finished drawing.
    pub fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }
}

/// A name of at most `most` characters.
pub(crate) fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    let kept: String = name.chars().take(most - 1).collect();
    format!("{}\u{2026}", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_scale() {
        let texts = |low: f64, high: f64| -> Vec<String> {
            Scale::new(low, high, 0.0, 1.0).ticks(5).into_iter().map(|(_, text)| text).collect()
        };
        assert_eq!(texts(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(-3.0, 7.5), ["\u{2212}2", "0", "2", "4", "6"]);
        assert_eq!(texts(183.1, 184.2), ["183.2", "183.4", "183.6", "183.8", "184.0", "184.2"]);
        assert_eq!(texts(0.0, 50_000.0)[5], "50,000");
        // One value alone still has an axis.
        assert!(texts(5.0, 5.0).len() > 1);
    }

    #[test]
    fn scales_map_ends_to_ends() {
        let scale = Scale::new(2.0, 4.0, 10.0, 0.0);
        assert_eq!((scale.of(2.0), scale.of(4.0), scale.of(3.0)), (10.0, 0.0, 5.0));
        let rounded = Scale::new(0.13, 0.97, 0.0, 1.0).rounded();
        assert_eq!((rounded.low, rounded.high), (0.0, 1.0));
    }

    #[test]
    fn coordinates_are_short_and_names_are_cut() {
        assert_eq!([at(1.0), at(-0.04), at(2.25), at(7.1234)], ["1", "0", "2.2", "7.1"]);
        assert_eq!(shortened("non-targeting", 8), "non-tar\u{2026}");
        assert_eq!(shortened("\u{3b1}\u{3b2}", 2), "\u{3b1}\u{3b2}");
    }

    #[test]
    fn text_is_escaped_everywhere() {
        let mut svg = Svg::new(10.0, 10.0, true, "a<b");
        svg.text("t", 0.0, 0.0, "start", "<script>");
        svg.rect("r", 0.0, 0.0, 1.0, 1.0, 0.5, "x & \"y\"");
        let text = svg.finish();
        assert!(!text.contains("<script>") && text.contains("a&lt;b") && text.contains("x &amp; &quot;y&quot;"));
    }
}
