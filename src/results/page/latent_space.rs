//! The section on the latent space: cells on two principal components, by intervention, batch and total count.

use crate::results::page::charts;
use crate::results::page::charts::PointGroup;
use crate::results::page::folder::{MOST_POINTS, Run};
use crate::results::page::parts::{COLOURS, figure, key};
use crate::results::page::svg::escape;
use crate::words::grouped;

/// Three scatters of the same cells; empty for fewer than two cells.
pub(super) fn latent_space(run: &Run) -> String {
    let n = run.cells.n;
    if n < 2 {
        return String::new();
    }
    let explained = run.space.explained.map(|share| 100.0 * share);
    let axes = [
        format!("first component ({:.0} % of the variance)", explained[0]),
        format!("second component ({:.0} % of the variance)", explained[1]),
    ];
    let names = [axes[0].as_str(), axes[1].as_str()];
    let row = by_intervention(run, names) + &by_batch(run, names) + &by_total_count(run, names);
    let thinned = if n > MOST_POINTS {
        format!(" {} of {} cells are drawn.", grouped(MOST_POINTS as u64), grouped(n as u64))
    } else {
        String::new()
    };
    format!("<p>Principal components of the posterior means.{thinned}</p>\n<div class=\"row wide\">\n{row}</div>\n")
}

/// Interventions whose cells lie farthest from the middle of all cells get the colours.
fn by_intervention(run: &Run, axes: [&str; 2]) -> String {
    let (l, names) = (run.n_latents, &run.cells.names);
    let (sums, middle, sizes) = (&run.space.sums, &run.space.mean, &run.cells.sizes);
    let distance = |a: usize| -> f64 {
        (0..l).map(|k| (sums[a * l + k] / sizes[a].max(1) as f64 - middle[k]).powi(2)).sum::<f64>().sqrt()
    };
    let mut ranked: Vec<usize> = (0..names.len()).filter(|&a| sizes[a] >= 5).collect();
    ranked.sort_by(|&x, &y| distance(y).total_cmp(&distance(x)));
    ranked.truncate(COLOURS);
    let mut groups: Vec<PointGroup> = names
        .iter()
        .enumerate()
        .map(|(a, name)| PointGroup {
            colour: ranked.iter().position(|&other| other == a),
            id: Some(a),
            name: name.clone(),
            points: Vec::new(),
        })
        .collect();
    run.cells.drawn.iter().for_each(|cell| groups[cell.intervention].points.push(cell.point));
    let mut alphabetical: Vec<usize> = (0..names.len()).filter(|&a| !groups[a].points.is_empty()).collect();
    alphabetical.sort_by(|&x, &y| names[x].cmp(&names[y]));
    let options: String =
        alphabetical.iter().map(|&a| format!("<option value=\"{a}\">{}</option>", escape(&names[a]))).collect();
    let choice = format!(
        "<div class=\"key\" hidden><label>Pick one out: <select data-for=\"by-intervention\"><option value=\"\">(the \
         colours)</option>{options}</select></label></div>\n"
    );
    let legend = key(&legend(&ranked, names));
    let drawing = charts::scatter("Cells by intervention", axes, &groups);
    figure(
        "By intervention",
        "In colour those whose cells lie farthest from the middle.",
        &format!("<div id=\"by-intervention\">{legend}{choice}{drawing}</div>"),
    )
}

/// The largest batches get the colours; empty where there is no categorical covariate.
fn by_batch(run: &Run, axes: [&str; 2]) -> String {
    let Some((name, levels, sizes)) = &run.cells.batch else { return String::new() };
    let mut order: Vec<usize> = (0..levels.len()).collect();
    order.sort_by(|&x, &y| sizes[y].cmp(&sizes[x]));
    order.truncate(COLOURS);
    order.sort_unstable();
    let mut groups: Vec<PointGroup> = levels
        .iter()
        .enumerate()
        .map(|(i, level)| PointGroup {
            colour: order.iter().position(|&other| other == i),
            id: None,
            name: level.clone(),
            points: Vec::new(),
        })
        .collect();
    run.cells.drawn.iter().for_each(|cell| groups[cell.batch].points.push(cell.point));
    let text = "Batches that stand apart were not explained by the covariates.";
    let drawing = charts::scatter("Cells by batch", axes, &groups);
    figure(&format!("By {name}"), text, &(key(&legend(&order, levels)) + &drawing))
}

/// Four parts of equal size by total count: a gradient here means that depth leaks into the latents.
fn by_total_count(run: &Run, axes: [&str; 2]) -> String {
    let edges = run.cells.total.quarters;
    let part = |total: f64| edges.iter().filter(|&&edge| total >= edge).count();
    let count = |v: f64| grouped(v as u64);
    let parts = [
        format!("below {}", count(edges[0])),
        format!("to {}", count(edges[1])),
        format!("to {}", count(edges[2])),
        format!("{} and more", count(edges[2])),
    ];
    let colours = [8, 9, 10, 11];
    let mut groups: Vec<PointGroup> = (0..4)
        .map(|i| PointGroup { colour: Some(colours[i]), id: None, name: parts[i].clone(), points: Vec::new() })
        .collect();
    run.cells.drawn.iter().for_each(|cell| groups[part(cell.total)].points.push(cell.point));
    let legend: Vec<(String, String)> = (0..4).map(|i| (format!("k{}", colours[i]), parts[i].clone())).collect();
    figure(
        "By total count",
        "Four parts of equal size. A gradient means that sequencing depth leaks into the latents.",
        &(key(&legend) + &charts::scatter("Cells by total count", axes, &groups)),
    )
}

/// A legend of the groups in colour and, in one entry, of the others.
fn legend(coloured: &[usize], names: &[String]) -> Vec<(String, String)> {
    let mut legend: Vec<(String, String)> =
        coloured.iter().enumerate().map(|(c, &i)| (format!("k{c}"), names[i].clone())).collect();
    if names.len() > coloured.len() {
        legend.push(("kdust".to_owned(), format!("{} others", names.len() - coloured.len())));
    }
    legend
}
