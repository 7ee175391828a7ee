//! The drawings of the report, each from plain numbers.

use crate::results::page::cluster::{average_linkage, leaf_order};
use crate::results::page::svg::{Scale, Svg, at, escape, label};
use crate::words::grouped;

/// A curve of a line chart.
pub(crate) struct Curve {
    /// Number of its colour.
    pub colour: usize,
    pub points: Vec<(f64, f64)>,
}

/// A horizontal line with its name, across a line chart.
pub(crate) struct ReferenceLine {
    pub class: &'static str,
    pub value: f64,
    pub name: String,
}

/// Width of most drawings, near the width that they are shown at.
const WIDTH: f64 = 340.0;
/// Width of a scatter.
const SCATTER_WIDTH: f64 = 390.0;

/// Curves over epochs. With `clip`, early values far above the rest are cut off at the top.
pub(crate) fn lines(
    title: &str,
    y_name: &str,
    curves: &[Curve],
    levels: &[ReferenceLine],
    mark: Option<f64>,
    clip: bool,
) -> String {
    let (left, right, top, bottom) = (52.0, WIDTH - 12.0, 22.0, 216.0);
    let mut svg = Svg::new(WIDTH, 256.0, true, title);
    let finite = |v: &f64| v.is_finite();
    let last = curves.iter().flat_map(|c| c.points.iter().map(|p| p.0)).fold(1.0, f64::max);
    let first = curves.iter().flat_map(|c| c.points.iter().map(|p| p.0)).fold(last, f64::min);
    let values = |from: f64| curves.iter().flat_map(move |c| c.points.iter().filter(move |p| p.0 >= from).map(|p| p.1));
    let low = values(first).filter(finite).fold(f64::INFINITY, f64::min);
    let settled = first + (last - first) * 0.06;
    let mut high = values(if clip { settled } else { first }).filter(finite).fold(f64::NEG_INFINITY, f64::max);
    let mut low = if low.is_finite() { low } else { 0.0 };
    high = if high.is_finite() { high } else { low + 1.0 };
    for level in levels {
        // A level far away would flatten the curves; near ones are shown.
        if (level.value - high).abs() < 1.5 * (high - low) || (low..=high).contains(&level.value) {
            high = high.max(level.value);
            low = low.min(level.value);
        }
    }
    let y = Scale::new(low, high, bottom, top).rounded();
    let x = Scale::new(first.min(last - 1.0), last, left, right);
    let id = format!("clip{}", title.bytes().fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(b as u32)));
    svg.raw(&format!(
        "<clipPath id=\"{id}\"><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/></clipPath>",
        at(left),
        at(top - 1.0),
        at(right - left),
        at(bottom - top + 2.0)
    ));
    svg.y_axis(y, left, right, 5);
    svg.x_axis(x, bottom, 5, "epoch");
    svg.text("name", 4.0, 12.0, "start", y_name);
    if let Some(epoch) = mark {
        svg.line("mark", x.of(epoch), top, x.of(epoch), bottom);
        let near_end = epoch > first + 0.6 * (last - first);
        let (dx, anchor) = if near_end { (-4.0, "end") } else { (4.0, "start") };
        // Below the name of a level that lies near the top.
        let has_name = levels.iter().any(|level| level.value <= y.high && y.of(level.value) < top + 24.0);
        let height = if has_name { 33.0 } else { 9.0 };
        svg.text("note", x.of(epoch) + dx, top + height, anchor, &format!("kept: epoch {epoch}"));
    }
    for level in levels.iter().filter(|level| (y.low..=y.high).contains(&level.value)) {
        let at = y.of(level.value);
        svg.line(level.class, left, at, right, at);
        svg.text("note", right, if at < top + 24.0 { at + 12.0 } else { at - 4.0 }, "end", &level.name);
    }
    for curve in curves {
        let extra = format!("clip-path=\"url(#{id})\"");
        let step = curve.points.len().div_ceil(600).max(1);
        let n = curve.points.len();
        let thinned = curve.points.iter().enumerate().filter(|(i, _)| i % step == 0 || i + 1 == n);
        svg.polyline(&format!("curve s{}", curve.colour), &extra, thinned.map(|(_, p)| (x.of(p.0), y.of(p.1))));
    }
    svg.finish()
}

/// A table of interventions x latents as a heat map.
pub(crate) struct Heat<'a> {
    /// Names of all rows.
    pub names: &'a [String],
    /// Rows shown, in order.
    pub rows: &'a [usize],
    /// Latents shown, in order.
    pub columns: &'a [usize],
}

/// What a heat map shows of one pair of row and latent.
pub(crate) struct Mark {
    /// Its colour.
    pub class: &'static str,
    /// Share of the side of its cell, up to 1.
    pub size: f64,
    /// From 0 to 1.
    pub opacity: f64,
    /// Shown on hover.
    pub hint: String,
}

/// Height of a row of a heat map.
fn row_height(n: usize) -> f64 {
    if n <= 40 { 17.0 } else { 13.0 }
}

impl Heat<'_> {
    /// Draws the map: `cell(row, latent)` gives colour class, strength from 0 to 1 and hint. `tree` is drawn on the right.
    pub fn draw(
        &self,
        title: &str,
        tree: Option<&Tree>,
        cell: impl Fn(usize, usize) -> (&'static str, f64, String),
    ) -> String {
        self.draw_marks(title, tree, |a, k| {
            let (class, strength, hint) = cell(a, k);
            (strength >= 0.03).then_some(Mark { class, size: 1.0, opacity: strength, hint })
        })
    }

    /// Draws the map with a mark for each pair of row and latent that has one. `tree` is drawn on the right.
    pub fn draw_marks(&self, title: &str, tree: Option<&Tree>, mark: impl Fn(usize, usize) -> Option<Mark>) -> String {
        let height = row_height(self.rows.len());
        let width = if self.columns.len() > 30 { 13.0 } else { 17.0 };
        let longest = self.rows.iter().map(|&a| self.names[a].chars().count()).max().unwrap_or(0).min(16);
        let left = 12.0 + 6.6 * longest as f64;
        let top = 34.0;
        let right = left + width * self.columns.len() as f64;
        let tree_width = if tree.is_some() { 64.0 } else { 4.0 };
        let bottom = top + height * self.rows.len() as f64;
        let mut svg = Svg::new(right + tree_width, bottom + 6.0, false, title);
        svg.text("name", left, 11.0, "start", "latent");
        for (i, k) in self.columns.iter().enumerate() {
            let x = left + width * (i as f64 + 0.5);
            svg.text("tick", x, 27.0, "middle", &k.to_string());
        }
        for (i, &a) in self.rows.iter().enumerate() {
            let y = top + height * i as f64;
            svg.name("small", left - 6.0, y + height / 2.0 + 3.6, "end", &self.names[a], 16);
            // One quiet band per row; only cells that say something are drawn on it.
            svg.rect("cell", left, y + 0.5, right - left, height - 1.0, 1.0, "");
            for (j, &k) in self.columns.iter().enumerate() {
                if let Some(Mark { class, size, opacity, hint }) = mark(a, k) {
                    let (w, h) = (size * (width - 1.0), size * (height - 1.0));
                    let x = left + width * j as f64 + (width - w) / 2.0;
                    svg.rect(class, x, y + (height - h) / 2.0, w, h, opacity.min(1.0), &hint);
                }
            }
        }
        if let Some(tree) = tree {
            let x = Scale::new(0.0, tree.height, right + 4.0, right + tree_width - 4.0);
            for branch in &tree.branches {
                let y = |row: f64| top + height * (row + 0.5);
                let points = [
                    (x.of(branch.heights.0), y(branch.rows.0)),
                    (x.of(branch.height), y(branch.rows.0)),
                    (x.of(branch.height), y(branch.rows.1)),
                    (x.of(branch.heights.1), y(branch.rows.1)),
                ];
                svg.polyline("tree", "", points.into_iter());
            }
        }
        svg.finish()
    }
}

/// The tree of a clustering, ready to be drawn.
pub(crate) struct Tree {
    branches: Vec<Branch>,
    height: f64,
}

struct Branch {
    /// Positions of the two subtrees among the ordered rows.
    rows: (f64, f64),
    /// Their heights.
    heights: (f64, f64),
    height: f64,
}

/// Rows of `table` (rows x `width`) in the order of their clustering, and its tree.
pub(crate) fn clustered(table: &[f64], width: usize) -> (Vec<usize>, Tree) {
    let n = table.len() / width;
    let weight: Vec<f64> = table.chunks_exact(width).map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt()).collect();
    let mut merges = average_linkage(table, width);
    let order = leaf_order(n, &mut merges, &weight);
    let mut place = vec![(0.0, 0.0); n];
    order.iter().enumerate().for_each(|(at, &row)| place[row] = (at as f64, 0.0));
    let mut branches = Vec::new();
    for merge in &merges {
        let (first, second) = (place[merge.first], place[merge.second]);
        branches.push(Branch { rows: (first.0, second.0), heights: (first.1, second.1), height: merge.height });
        place.push(((first.0 + second.0) / 2.0, merge.height));
    }
    let height = merges.last().map_or(1.0, |merge| merge.height);
    (order, Tree { branches, height })
}

/// A bar chart with a name per row: name, value, text at its end, hint.
pub(crate) fn named_bars(title: &str, x_name: &str, rows: &[(String, f64, String)]) -> String {
    let height = 17.0;
    let longest = rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0).min(18);
    let left = 14.0 + 6.6 * longest as f64;
    let (top, right) = (6.0, WIDTH - 74.0);
    let bottom = top + height * rows.len() as f64;
    let mut svg = Svg::new(WIDTH, bottom + 42.0, true, title);
    let most = rows.iter().map(|row| row.1).fold(0.0, f64::max);
    let x = Scale::new(0.0, if most > 0.0 { most } else { 1.0 }, left, right).rounded();
    for (value, _) in x.ticks(5) {
        svg.line("grid", x.of(value), top, x.of(value), bottom);
    }
    svg.x_axis(x, bottom, 5, x_name);
    for (i, (name, value, note)) in rows.iter().enumerate() {
        let y = top + height * i as f64;
        svg.name("small", left - 6.0, y + height / 2.0 + 3.6, "end", name, 18);
        let hint = format!("{name}: {}", label(*value, 0.01));
        svg.rect("bar", left, y + 3.0, (x.of(*value) - left).max(0.5), height - 6.0, 1.0, &hint);
        svg.text("note", x.of(*value) + 5.0, y + height / 2.0 + 3.6, "start", note);
    }
    svg.finish()
}

/// Columns with a label under each: label, value.
pub(crate) fn columns(title: &str, x_name: &str, y_name: &str, bars: &[(String, f64)]) -> String {
    let (left, right, top, bottom) = (46.0, WIDTH - 8.0, 22.0, 196.0);
    let mut svg = Svg::new(WIDTH, 236.0, true, title);
    let most = bars.iter().map(|bar| bar.1).fold(1.0, f64::max);
    let y = Scale::new(0.0, most, bottom, top).rounded();
    svg.y_axis(y, left, right, 4);
    svg.text("name", 4.0, 12.0, "start", y_name);
    let width = (right - left) / bars.len().max(1) as f64;
    for (i, (name, value)) in bars.iter().enumerate() {
        let x = left + width * i as f64;
        let gap = (width * 0.12).min(3.0);
        let hint = format!("{name}: {}", label(*value, 1.0));
        svg.rect("bar", x + gap, y.of(*value), width - 2.0 * gap, bottom - y.of(*value), 1.0, &hint);
        let longest = 6.0 + 6.2 * bars.iter().map(|bar| bar.0.chars().count()).max().unwrap_or(1) as f64;
        if i % (longest / width).ceil() as usize == 0 {
            svg.text("tick", x + width / 2.0, bottom + 15.0, "middle", name);
        }
    }
    svg.line("axis", left, bottom, right, bottom);
    svg.text("name", (left + right) / 2.0, bottom + 33.0, "middle", x_name);
    svg.finish()
}

/// A histogram of some values, which are not held.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Histogram {
    low: f64,
    high: f64,
    /// Of few whole numbers, how often each occurs.
    whole: Option<Vec<(i64, usize)>>,
    /// Values in each part of the range otherwise.
    bins: Vec<usize>,
}

impl Histogram {
    /// Ends of the horizontal axis.
    const AXIS: (f64, f64) = (52.0, WIDTH - 16.0);

    /// The histogram of `values`, in any order.
    pub fn of(values: &[f64]) -> Self {
        let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        let mut found = Self { low, high, whole: None, bins: Vec::new() };
        if values.iter().all(|v| v.fract() == 0.0) && high - low < 30.0 {
            let count = |whole: i64| values.iter().filter(|&&v| v == whole as f64).count();
            let (low, high) = (low as i64, high as i64);
            found.whole = Some(((low - 1).max(0)..=high + 1).map(|whole| (whole, count(whole))).collect());
            return found;
        }
        let x = found.scale();
        let n_bins = ((values.len() as f64).sqrt() as usize).clamp(5, 40);
        found.bins = vec![0; n_bins];
        for &v in values {
            let share = (found.place(v) - x.low) / (x.high - x.low);
            found.bins[((share * n_bins as f64) as usize).min(n_bins - 1)] += 1;
        }
        found
    }

    fn is_logarithmic(&self) -> bool {
        self.low > 0.0 && self.high > 30.0 * self.low
    }

    /// A value as the axis shows it.
    fn place(&self, v: f64) -> f64 {
        if self.is_logarithmic() { v.log10() } else { v }
    }

    fn scale(&self) -> Scale {
        Scale::new(self.place(self.low), self.place(self.high), Self::AXIS.0, Self::AXIS.1)
    }

    /// Draws it; on a logarithmic axis where the values span more than a factor of 30.
    pub fn draw(&self, title: &str, x_name: &str, y_name: &str) -> String {
        if let Some(whole) = &self.whole {
            // A column each.
            let bars: Vec<(String, f64)> =
                whole.iter().map(|&(whole, count)| (whole.to_string(), count as f64)).collect();
            return columns(title, x_name, y_name, &bars);
        }
        let (logarithmic, x, bins) = (self.is_logarithmic(), self.scale(), &self.bins);
        let ((left, right), n_bins) = (Self::AXIS, bins.len());
        let (top, bottom) = (22.0, 196.0);
        let mut svg = Svg::new(WIDTH, 236.0, true, title);
        let most = bins.iter().copied().max().unwrap_or(1).max(1);
        let y = Scale::new(0.0, most as f64, bottom, top).rounded();
        svg.y_axis(y, left, right, 4);
        svg.text("name", 4.0, 12.0, "start", y_name);
        let width = (right - left) / n_bins as f64;
        for (i, &count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            let edge = |i: usize| {
                let v = x.low + (x.high - x.low) * i as f64 / n_bins as f64;
                let v = if logarithmic { 10f64.powf(v) } else { v };
                label(v, (self.high - self.low) / 100.0)
            };
            let hint = format!("{} to {}: {}", edge(i), edge(i + 1), grouped(count as u64));
            let at = y.of(count as f64);
            svg.rect("bar", left + width * i as f64 + 0.5, at, width - 1.0, bottom - at, 1.0, &hint);
        }
        if logarithmic {
            svg.line("axis", left, bottom, right, bottom);
            let mut last = f64::NEG_INFINITY;
            for power in x.low.floor() as i32..=x.high.ceil() as i32 {
                for digit in [1.0, 2.0, 5.0] {
                    let value = digit * 10f64.powi(power);
                    let place = x.of(value.log10());
                    if (left..=right + 0.5).contains(&place) {
                        svg.line("axis", place, bottom, place, bottom + 4.0);
                        let text = label(value, value);
                        let room = 5.0 + 3.4 * text.chars().count() as f64;
                        if place - room > last {
                            svg.text("tick", place, bottom + 16.0, "middle", &text);
                            last = place + room;
                        }
                    }
                }
            }
            svg.text("name", (left + right) / 2.0, bottom + 32.0, "middle", &format!("{x_name} (logarithmic)"));
        } else {
            svg.x_axis(x, bottom, 5, x_name);
        }
        svg.finish()
    }
}

/// Points of one group of a scatter.
pub(crate) struct PointGroup {
    /// Number of its colour; `None`: unobtrusive.
    pub colour: Option<usize>,
    /// Number by which the page's script finds it.
    pub id: Option<usize>,
    pub name: String,
    pub points: Vec<[f64; 2]>,
}

/// A scatter of groups, the unobtrusive ones below.
pub(crate) fn scatter(title: &str, names: [&str; 2], groups: &[PointGroup]) -> String {
    let (left, right, top, bottom) = (44.0, SCATTER_WIDTH - 10.0, 24.0, 330.0);
    let mut svg = Svg::new(SCATTER_WIDTH, 370.0, true, title);
    let range = |axis: usize| {
        let values = groups.iter().flat_map(|g| g.points.iter().map(move |p| p[axis]));
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let margin = 0.03 * (high - low);
        if low.is_finite() { (low - margin, high + margin) } else { (0.0, 1.0) }
    };
    let ((x0, x1), (y0, y1)) = (range(0), range(1));
    let (x, y) = (Scale::new(x0, x1, left, right), Scale::new(y0, y1, bottom, top));
    svg.y_axis(y, left, right, 6);
    for (value, _) in x.ticks(6) {
        svg.line("grid", x.of(value), top, x.of(value), bottom);
    }
    svg.x_axis(x, bottom, 6, names[0]);
    svg.text("name", 4.0, 13.0, "start", names[1]);
    svg.raw("<g>");
    let mut order: Vec<&PointGroup> = groups.iter().filter(|g| g.colour.is_none()).collect();
    order.extend(groups.iter().filter(|g| g.colour.is_some()));
    for group in order.into_iter().filter(|g| !g.points.is_empty()) {
        let class = group.colour.map_or("dots dust".to_owned(), |c| format!("dots s{c}"));
        let id = group.id.map_or(String::new(), |id| format!(" data-i=\"{id}\""));
        let dots: String = group.points.iter().map(|p| format!("M{} {}h0", at(x.of(p[0])), at(y.of(p[1])))).collect();
        svg.raw(&format!("<path class=\"{class}\"{id} d=\"{dots}\"><title>{}</title></path>", escape(&group.name)));
    }
    svg.raw("</g>");
    svg.finish()
}

/// One row of a dot plot: name, filled dot, hollow dot.
pub(crate) struct Dot {
    pub name: String,
    pub filled: f64,
    pub hollow: f64,
    pub hint: String,
}

/// Two values per named row, with vertical lines.
pub(crate) fn dots(title: &str, x_name: &str, rows: &[Dot], levels: &[ReferenceLine]) -> String {
    let height = 18.0;
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).min(18);
    let left = 14.0 + 6.6 * longest as f64;
    let (top, right) = (6.0, WIDTH - 14.0);
    let bottom = top + height * rows.len() as f64;
    let mut svg = Svg::new(WIDTH, bottom + 42.0, true, title);
    let values = || rows.iter().flat_map(|row| [row.filled, row.hollow]).chain(levels.iter().map(|l| l.value));
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(f64::NEG_INFINITY, f64::max);
    let margin = 0.04 * (high - low);
    let x = Scale::new(low - margin, high + margin, left, right);
    for (value, _) in x.ticks(5) {
        svg.line("grid", x.of(value), top, x.of(value), bottom);
    }
    svg.x_axis(x, bottom, 5, x_name);
    for level in levels {
        svg.line(level.class, x.of(level.value), top, x.of(level.value), bottom);
    }
    for (i, row) in rows.iter().enumerate() {
        let y = top + height * (i as f64 + 0.5);
        svg.name("small", left - 6.0, y + 3.6, "end", &row.name, 18);
        svg.line("stem", x.of(row.filled), y, x.of(row.hollow), y);
        svg.circle("hollow", x.of(row.hollow), y, 4.0, &row.hint);
        svg.circle("bar", x.of(row.filled), y, 4.0, &row.hint);
    }
    svg.finish()
}

/// A row of a plot of intervals.
pub(crate) struct IntervalRow {
    pub name: String,
    /// The point, and the ends of its interval.
    pub value: f64,
    pub low: f64,
    pub high: f64,
    /// Whether it is one of the uncertain ones, which stand below the others.
    pub uncertain: bool,
    /// Text in the columns beside it.
    pub notes: Vec<String>,
    pub hint: String,
}

/// Rows with a point and its interval about zero, and columns of text beside them; the last, uncertain ones faded below a
/// line that says `divider`.
pub(crate) fn intervals(title: &str, x_name: &str, columns: &[&str], divider: &str, rows: &[IntervalRow]) -> String {
    let (height, gap, top) = (15.0, 18.0, 18.0);
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).min(20);
    let left = 12.0 + 6.8 * longest as f64;
    let column = |number: usize| WIDTH - 4.0 - 47.0 * (columns.len() - 1 - number) as f64;
    let right = column(0) - 47.0;
    let n_sure = rows.iter().filter(|row| !row.uncertain).count();
    let y_of = |i: usize| top + height * i as f64 + if i >= n_sure { gap } else { 0.0 };
    let bottom = y_of(rows.len());
    let mut svg = Svg::new(WIDTH, bottom + 40.0, true, title);
    let low = rows.iter().map(|row| row.low).fold(0.0, f64::min);
    let high = rows.iter().map(|row| row.high).fold(0.0, f64::max);
    let x = Scale::new(low, high, left + 4.0, right);
    for (value, _) in x.ticks(4) {
        svg.line("grid", x.of(value), top, x.of(value), bottom);
    }
    svg.line("axis", x.of(0.0), top, x.of(0.0), bottom);
    svg.x_axis(x, bottom, 4, x_name);
    columns.iter().enumerate().for_each(|(i, name)| svg.text("tick", column(i), 11.0, "end", name));
    if n_sure < rows.len() {
        let at = top + height * n_sure as f64;
        svg.line("mark", 4.0, at + 2.0, WIDTH - 4.0, at + 2.0);
        svg.text("note", 4.0, at + 14.0, "start", divider);
    }
    for (i, row) in rows.iter().enumerate() {
        let y = y_of(i) + height / 2.0;
        let direction = if row.value > 0.0 { "up" } else { "down" };
        svg.raw(if row.uncertain { "<g class=\"uncertain\">" } else { "<g>" });
        svg.name("small", left - 6.0, y + 3.6, "end", &row.name, 20);
        svg.line(&format!("whisker {direction}"), x.of(row.low), y, x.of(row.high), y);
        svg.circle(&format!("point {direction}"), x.of(row.value), y, 3.4, &row.hint);
        row.notes.iter().enumerate().for_each(|(i, note)| svg.text("note", column(i), y + 3.6, "end", note));
        svg.raw("</g>");
    }
    svg.finish()
}

/// A gene that a latent moves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MovedGene {
    pub name: String,
    /// Log2 fold change per unit of the latent, as decoded.
    pub log2_fold_change: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// The same, shrunken towards 0.
    pub shrunken: f64,
    /// Mean count of a cell.
    pub mean_count: f64,
}

/// Genes of a latent: bars of their shrunken effects to the left (down) and to the right (up) of zero, `most` being the end
/// of the axis, and beside them the standard errors and the mean counts.
pub(crate) fn gene_bars(title: &str, genes: &[MovedGene], most: f64) -> String {
    let (height, top) = (16.0, 18.0);
    let longest = genes.iter().map(|gene| gene.name.chars().count()).max().unwrap_or(0).min(14);
    let left = 12.0 + 6.5 * longest as f64;
    let [right, error_column, count_column] = [WIDTH - 118.0, WIDTH - 78.0, WIDTH - 4.0];
    let bottom = top + height * genes.len() as f64;
    let mut svg = Svg::new(WIDTH, bottom + 4.0, true, title);
    // Room for the number at the end of either side.
    let x = Scale::new(-most, most, left + 34.0, right - 34.0);
    svg.text("tick", x.of(0.0), 11.0, "middle", "effect");
    svg.text("tick", error_column, 11.0, "end", "s.e.");
    svg.text("tick", count_column, 11.0, "end", "mean count");
    svg.line("axis", x.of(0.0), top, x.of(0.0), bottom);
    for (i, gene) in genes.iter().enumerate() {
        let (y, value) = (top + height * i as f64, gene.shrunken);
        let line = y + height / 2.0 + 3.6;
        svg.name("small", left - 4.0, line, "end", &gene.name, 14);
        let (from, to) = (x.of(0.0).min(x.of(value)), x.of(0.0).max(x.of(value)));
        let class = if value > 0.0 { "up" } else { "down" };
        let [raw, error] = [gene.log2_fold_change, gene.standard_error].map(|number| label(number, 0.001));
        let hint = format!("{}: {}; as decoded {raw}, standard error {error}", gene.name, label(value, 0.001));
        svg.rect(class, from, y + 3.0, (to - from).max(0.5), height - 6.0, 1.0, &hint);
        let (place, anchor) = if value > 0.0 { (to + 3.0, "start") } else { (from - 3.0, "end") };
        svg.text("note", place, line, anchor, &label(value, 0.01));
        svg.text("note", error_column, line, "end", &three_digits(gene.standard_error));
        svg.text("note", count_column, line, "end", &three_digits(gene.mean_count));
    }
    svg.finish()
}

/// A number that is not negative, to about three digits.
fn three_digits(value: f64) -> String {
    match value {
        infinite if !infinite.is_finite() => "\u{221e}".to_owned(),
        large if large >= 9.995 => label(large, if large >= 99.95 { 1.0 } else { 0.1 }),
        small if small < 0.0005 => "<0.001".to_owned(),
        value => label(value, if value >= 0.9995 { 0.01 } else { 0.001 }),
    }
}
