//! The section on the data: what was read, and how cells and counts are distributed.

use std::fmt::Write;

use crate::results::page::charts;
use crate::results::page::charts::Histogram;
use crate::results::page::folder::{CellSummary, Run};
use crate::results::page::parts::{MOST_BARS, figure};
use crate::results::page::svg::escape;
use crate::words::grouped;

/// What was read, then histograms of the cells.
pub(super) fn data(run: &Run) -> String {
    let mut sizes: Vec<(usize, usize)> = run.cells.sizes.iter().copied().zip(0..).collect();
    sizes.sort_by_key(|&(n, a)| (std::cmp::Reverse(n), a));
    let n = sizes.len();
    let mut row = String::new();
    if n <= MOST_BARS + 5 {
        let bars: Vec<(String, f64, String)> =
            sizes.iter().map(|&(count, a)| (run.cells.names[a].clone(), count as f64, grouped(count as u64))).collect();
        row += &figure("Cells per intervention", "", &charts::named_bars("Cells per intervention", "cells", &bars));
    } else {
        let counts: Vec<f64> = sizes.iter().map(|&(count, _)| count as f64).collect();
        let (smallest, largest) = (sizes[n - 1], sizes[0]);
        let text = format!(
            "From {} ({}) to {} ({}); the median is {}.",
            grouped(smallest.0 as u64),
            run.cells.names[smallest.1],
            grouped(largest.0 as u64),
            run.cells.names[largest.1],
            grouped(sizes[n / 2].0 as u64)
        );
        let drawing = Histogram::of(&counts).draw("Cells per intervention", "cells", "interventions");
        row += &figure("Cells per intervention", &text, &drawing);
    }
    let CellSummary { total, n_genes, .. } = &run.cells;
    let text = format!("Median {}, over the genes of the model.", grouped(total.median as u64));
    row += &figure("Total count", &text, &total.histogram.draw("Total count per cell", "counts per cell", "cells"));
    let detected = n_genes.sum;
    let all = run.cells.n as f64 * run.metrics["n_genes"].as_f64().unwrap_or(1.0);
    let text = format!(
        "Median {} genes with a count; {:.1} % of the matrix is not zero.",
        grouped(n_genes.median as u64),
        100.0 * detected / all.max(1.0)
    );
    row +=
        &figure("Detected genes", &text, &n_genes.histogram.draw("Detected genes per cell", "genes per cell", "cells"));
    if let Some(size_factor) = &run.cells.size_factor {
        let text = format!("Median {}. The likelihood scales by these.", grouped(size_factor.median as u64));
        row += &figure("Size factors", &text, &size_factor.histogram.draw("Size factors", "size factor", "cells"));
    }
    format!("{}<div class=\"row\">\n{row}</div>\n", run.summary.as_ref().map(reading).unwrap_or_default())
}

/// What was read from the file, left out and found doubtful.
fn reading(summary: &serde_json::Value) -> String {
    let number = |key: &str| grouped(summary[key].as_u64().unwrap_or(0));
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let list = |key: &str| summary[key].as_array().cloned().unwrap_or_default();
    let mut lines = vec![format!(
        "{} file, counts from {}: {} cells and {} genes, of which {} and {} are used.",
        word(&summary["format"]),
        word(&summary["matrix"]),
        number("n_cells_read"),
        number("n_genes_read"),
        number("n_cells"),
        number("n_genes")
    )];
    for control in list("controls") {
        let n = grouped(control["n_cells"].as_u64().unwrap_or(0));
        lines.push(format!("Control, under no intervention: {} ({n} cells).", word(&control["label"])));
    }
    for dropped in list("dropped") {
        let n = grouped(dropped["n"].as_u64().unwrap_or(0));
        lines.push(format!("Left out: {n} {}, because {}.", word(&dropped["what"]), word(&dropped["reason"])));
    }
    lines.extend(list("notes").iter().map(|note| format!("{}.", word(note))));
    let mut text = String::from("<ul class=\"findings\">\n");
    for line in lines {
        let _ = writeln!(text, "<li>{}</li>", escape(&line));
    }
    for warning in list("warnings") {
        let _ = writeln!(text, "<li class=\"caution\">{}</li>", escape(&word(&warning)));
    }
    text + "</ul>\n"
}
