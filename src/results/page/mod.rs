//! The report of a run: one page with its style, drawings and script inside, made from the files of a results folder.
//!
//! The same folder gives the same bytes. Without its script the page lacks nothing but the choice of an intervention.

mod charts;
mod cluster;
mod folder;
mod pca;
mod svg;

use std::fmt::Write;
use std::io::Write as _;

use charts::{Curve, Dot, Group, Heat, Histogram, Level};
use folder::{Cells, Run};
use svg::{escape, label};

use crate::error::Result;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::training::history::EpochRecord;
use crate::words::{grouped, seconds};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Most points of a scatter.
const MOST_POINTS: usize = 3000;
/// Colours of groups.
const COLOURS: usize = 8;
/// Most rows of a bar chart.
const MOST_BARS: usize = 30;
/// Interventions beyond this number are shown in the maps only if they have a target.
const MOST_ROWS: usize = 150;
/// Most rows of a map in any case.
const MOST_MAP_ROWS: usize = 400;
/// Genes shown for each latent.
const MOST_GENES: usize = 10;

impl ResultsFolder {
    /// Writes `report.html` from the other files of the folder. `metrics` (JSON) stands in for `metrics.json` where that is
    /// not written yet.
    ///
    /// # Errors
    /// [`crate::InputError`] naming a file of the folder that is missing or damaged; [`crate::Error::Io`].
    pub fn write_report(&self, metrics: Option<serde_json::Value>) -> Result<()> {
        if !self.writes() {
            return Ok(());
        }
        let page = page(&folder::read(self.path(), metrics)?);
        self.write(ResultsFile::Report.name(), |file| file.write_all(page.as_bytes()))
    }
}

/// A figure: what it is, how to read it, and the drawing.
fn figure(title: &str, explanation: &str, drawing: &str) -> String {
    format!(
        "<figure><figcaption><b>{}</b><span>{}</span></figcaption>\n{drawing}\n</figure>\n",
        escape(title),
        escape(explanation)
    )
}

/// A legend: class of the swatch and name.
fn key(entries: &[(String, String)]) -> String {
    let entries: String =
        entries.iter().map(|(class, name)| format!("<span><i class=\"{class}\"></i>{}</span>", escape(name))).collect();
    format!("<div class=\"key\">{entries}</div>\n")
}

fn number(value: &serde_json::Value, key: &str) -> Option<f64> {
    value.get(key)?.as_f64()
}

/// What several sections need.
struct Derived {
    /// Length of the masked shift of each intervention; 0 where not trained or without shifts.
    effect: Vec<f64>,
    /// Number of targets of each intervention.
    n_targets: Vec<usize>,
    /// Number of trained interventions that target each latent.
    per_latent: Vec<usize>,
    /// Latents, the most targeted first.
    latent_order: Vec<usize>,
    /// p x shift, interventions x L.
    effects: Vec<f64>,
}

impl Derived {
    fn new(run: &Run) -> Self {
        let l = run.n_latents;
        let a = run.interventions.len();
        let mut derived = Self {
            effect: vec![0.0; a],
            n_targets: vec![0; a],
            per_latent: vec![0; l],
            latent_order: (0..l).collect(),
            effects: vec![0.0; a * l],
        };
        let Some(shifts) = &run.shifts else { return derived };
        for i in (0..a).filter(|&i| run.trained[i]) {
            for k in 0..l {
                let p = run.masks.as_ref().map_or(1.0, |masks| masks[i * l + k]);
                let effect = p * shifts[i * l + k];
                derived.effects[i * l + k] = effect;
                if p > 0.5 {
                    derived.n_targets[i] += 1;
                    derived.per_latent[k] += 1;
                    derived.effect[i] += effect * effect;
                }
            }
            derived.effect[i] = derived.effect[i].sqrt();
        }
        let weight = |k: usize| (0..a).map(|i| derived.effects[i * l + k].abs()).sum::<f64>();
        derived
            .latent_order
            .sort_by(|&x, &y| derived.per_latent[y].cmp(&derived.per_latent[x]).then(weight(y).total_cmp(&weight(x))));
        derived
    }
}

/// The whole page.
fn page(run: &Run) -> String {
    let derived = Derived::new(run);
    let sections: Vec<(&str, &str, String)> = [
        ("training", "Training", training(run)),
        ("targets", "Interventions and latents", targets(run, &derived)),
        ("latents", "Latent space", latent_space(run)),
        ("genes", "Genes of each latent", genes(run, &derived)),
        ("heldout", "Held-out interventions", held_out(run)),
        ("data", "Data", data(run)),
        ("repeat", "Settings, and how to repeat this run", settings(run)),
    ]
    .into_iter()
    .filter(|(_, _, content)| !content.is_empty())
    .collect();

    let source = source(run);
    let method = run.metrics["method"].as_str().unwrap_or("");
    let mut page = String::new();
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name} \u{b7} svae-cpu</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{name}</h1>\n\
         <p class=\"lead\">{method}, seed {seed}, trained by svae-cpu {version}</p>\n<nav>",
        name = escape(&source),
        method = escape(method),
        seed = run.metrics["seed"],
        version = env!("CARGO_PKG_VERSION"),
    );
    for (id, title, _) in &sections {
        let _ = write!(page, "<a href=\"#{id}\">{}</a>", escape(title));
    }
    page.push_str("</nav>\n</header>\n<main>\n");
    page.push_str(&summary(run));
    for (id, title, content) in &sections {
        let _ = write!(page, "<section id=\"{id}\">\n<h2>{}</h2>\n{content}</section>\n", escape(title));
    }
    let _ = write!(
        page,
        "<footer>Written by svae-cpu {}. Figures are means over cells in nats unless said otherwise; ELBO values are \
         negative bounds: lower is better.</footer>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    page
}

/// What was trained on, for the title.
fn source(run: &Run) -> String {
    match run.config.get("data").and_then(toml::Value::as_str) {
        Some(path) => path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned(),
        None => "Simulated screen".to_owned(),
    }
}

fn summary(run: &Run) -> String {
    let m = &run.metrics;
    let count = |key: &str| grouped(m[key].as_u64().unwrap_or(0));
    let mut tiles: Vec<(String, String)> =
        vec![(count("n_cells"), "cells".to_owned()), (count("n_genes"), "genes".to_owned())];
    let held_out = run.cells.names.len() - run.trained_names();
    tiles.push((
        count("n_interventions"),
        match held_out {
            0 => "interventions".to_owned(),
            n => format!("interventions, {n} of them held out"),
        },
    ));
    tiles.push((run.n_latents.to_string(), "latents".to_owned()));
    if let Some(fit) = kept_fit(run) {
        tiles.push((format!("{fit:.2}"), "fit of the validation cells, nats".to_owned()));
    }
    if let Some(elbo) = number(m, "elbo_validation") {
        tiles.push((format!("{elbo:.2}"), "negative ELBO, validation cells".to_owned()));
    }
    if let Some(value) = number(&m["baseline"], "pooled_negative_binomial") {
        tiles.push((format!("{value:.2}"), "pooled negative binomial, same cells".to_owned()));
    }
    if let Some(mask) = m.get("mask") {
        let share = 100.0 * number(mask, "fraction_on").unwrap_or(0.0);
        tiles.push((format!("{share:.1} %"), "of the masks are on".to_owned()));
        tiles.push((mask["interventions_with_target"].to_string(), "interventions with a target".to_owned()));
    }
    for (key, name) in [("mcc_pearson", "MCC with the true latents"), ("r2", "R\u{b2} of the true latents")] {
        if let Some(value) = number(m, key) {
            tiles.push((format!("{value:.3}"), name.to_owned()));
        }
    }
    if let Some(value) = m.get("graph").and_then(|graph| number(&graph["corrected"], "f1")) {
        tiles.push((format!("{value:.3}"), "F1 of the targets (corrected)".to_owned()));
    }
    if let Some(value) = m.get("heldout").and_then(|heldout| number(heldout, "nll_iwelbo")) {
        tiles.push((format!("{value:.2}"), "held-out negative log-likelihood".to_owned()));
    }
    if let Some(value) = number(&m["timing"], "train_seconds") {
        tiles.push((seconds(value), "of training".to_owned()));
    }
    let tiles: String = tiles
        .iter()
        .map(|(value, name)| {
            format!("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escape(value), escape(name))
        })
        .collect();
    let findings: String = findings(run)
        .into_iter()
        .map(|(caution, text)| {
            let text = escape(&text);
            match caution {
                true => format!("<li><div class=\"caution\">{text}</div></li>\n"),
                false => format!("<li>{text}</li>\n"),
            }
        })
        .collect();
    format!("<div class=\"tiles\">\n{tiles}</div>\n<ul class=\"findings\">\n{findings}</ul>\n")
}

/// Sentences on the run, and whether each is a caution.
fn findings(run: &Run) -> Vec<(bool, String)> {
    let m = &run.metrics;
    let mut found = Vec::new();
    if let (Some(fit), Some(pooled)) = (kept_fit(run), number(&m["baseline"], "pooled_negative_binomial")) {
        let gap = pooled - fit;
        found.push(if gap > 0.0 {
            let text = "nats per validation cell better than a negative binomial without any latent.";
            (false, format!("The model is {gap:.2} {text}"))
        } else {
            (true, format!(
                "A negative binomial without any latent does better on the validation cells, by {:.2} nats: this model \
                 says nothing of use. Check that X holds raw counts, and train longer.",
                -gap
            ))
        });
    }
    if let Some(mask) = m.get("mask") {
        let (share, with) = (number(mask, "fraction_on").unwrap_or(0.0), mask["interventions_with_target"].as_u64());
        let trained = run.trained.iter().filter(|&&trained| trained).count();
        let text = format!(
            "{} of {trained} trained interventions target at least one of {} latents.",
            with.unwrap_or(0),
            run.n_latents
        );
        found.push((false, text));
        if share > 0.9 {
            found.push((true, format!(
                "{:.0} % of the masks are still on, as all are at the start: the sparsity has not taken hold yet. Train \
                 for more epochs, or raise alpha.",
                100.0 * share
            )));
        } else if share * run.n_latents as f64 <= 0.15 {
            let text = "The masks are almost empty. On small screens a smaller alpha lets more effects through.";
            found.push((true, text.to_owned()));
        }
    }
    let best = kept_epoch(&run.history);
    if let (Some(best), Some("epoch_limit")) = (best, m["stop_reason"].as_str())
        && best as usize + 5 >= run.history.len()
        && run.history.len() > 1
    {
        let text = "The training ended at its limit of epochs while the ELBO was still falling: more epochs may help.";
        found.push((true, text.to_owned()));
    }
    if m["stop_reason"].as_str() == Some("non_finite") {
        found.push((true, "The training ended early because a value was not finite.".to_owned()));
    }
    if let Some(heldout) = m.get("heldout")
        && let (Some(nll), Some(pooled)) =
            (number(heldout, "nll_iwelbo"), number(&heldout["baseline"], "pooled_negative_binomial"))
    {
        let n = heldout["n_interventions"].as_u64().unwrap_or(0);
        let comparison = if nll < pooled { "better" } else { "worse" };
        found.push((nll >= pooled, format!(
            "On the cells of {n} held-out interventions the model is {:.2} nats {comparison} than the pooled negative \
             binomial.",
            (nll - pooled).abs()
        )));
    }
    found
}

/// Reconstruction and divergence of the validation cells in the kept epoch, which compare with other models; the ELBO
/// counts the prior of the masks too.
fn kept_fit(run: &Run) -> Option<f64> {
    let kept = run.kept_epoch()?;
    let record = run.history.iter().find(|r| r.epoch as f64 == kept)?;
    let fit = record.validation_reconstruction + record.validation_kl;
    fit.is_finite().then_some(fit)
}

/// The epoch with the lowest watched ELBO.
fn kept_epoch(history: &[EpochRecord]) -> Option<f64> {
    let watched = |r: &EpochRecord| if r.validation_elbo.is_finite() { r.validation_elbo } else { r.train_elbo };
    let best = history.iter().min_by(|a, b| watched(a).total_cmp(&watched(b)))?;
    Some(best.epoch as f64)
}

fn curve(colour: usize, history: &[EpochRecord], of: impl Fn(&EpochRecord) -> f64) -> Curve {
    Curve { colour, points: history.iter().map(|r| (r.epoch as f64, of(r))).collect() }
}

/// Legend of the curves of training and validation cells.
fn both() -> String {
    key(&[("thin k0".to_owned(), "training".to_owned()), ("thin k1".to_owned(), "validation".to_owned())])
}

fn training(run: &Run) -> String {
    if run.history.is_empty() {
        return String::new();
    }
    let both = both();
    let kept = run.kept_epoch();
    let mut levels = Vec::new();
    if let Some(value) = number(&run.metrics["baseline"], "pooled_negative_binomial") {
        levels.push(Level { class: "base", value, name: "pooled negative binomial".to_owned() });
    }
    let fit = charts::lines(
        "Reconstruction and divergence by epoch",
        "nats per cell",
        &[
            curve(0, &run.history, |r| r.train_reconstruction + r.train_kl),
            curve(1, &run.history, |r| r.validation_reconstruction + r.validation_kl),
        ],
        &levels,
        kept,
        true,
    );
    let mut row = figure(
        "Fit",
        "Negative log-likelihood and divergence of the latents, lower is better; without the prior of the masks. The \
         weights of the marked epoch are kept.",
        &(both.clone() + &fit),
    );
    if run.history.iter().any(|r| r.kl_global != 0.0) {
        let elbo = charts::lines(
            "Negative ELBO by epoch",
            "nats per cell",
            &[curve(0, &run.history, |r| r.train_elbo), curve(1, &run.history, |r| r.validation_elbo)],
            &[],
            kept,
            true,
        );
        let text =
            "The fit plus the prior of the masks, spread over the cells of each curve: what early stopping watches.";
        row += &figure("Negative ELBO", text, &(both.clone() + &elbo));
    }
    let kl = charts::lines(
        "KL divergence by epoch",
        "nats per cell",
        &[curve(0, &run.history, |r| r.train_kl), curve(1, &run.history, |r| r.validation_kl)],
        &[],
        None,
        true,
    );
    row += &figure(
        "Divergence of the latents from their prior",
        "How much each cell's latents say beyond what its intervention foretells; its weight in the loss rises over the \
         warm-up.",
        &(both.clone() + &kl),
    );
    if run.masks.is_some() {
        let mask = charts::lines(
            "Mean mask probability by epoch",
            "mean probability",
            &[curve(2, &run.history, |r| r.mean_mask)],
            &[],
            None,
            false,
        );
        let text = "All masks start near 1; sparsity switches off those that the data do not ask for.";
        row += &figure("Mean mask probability", text, &mask);
    }
    format!("<div class=\"row\">\n{row}</div>\n")
}

fn targets(run: &Run, derived: &Derived) -> String {
    let Some(shifts) = &run.shifts else { return String::new() };
    let l = run.n_latents;
    let names = &run.interventions;
    let mut shown: Vec<usize> = (0..names.len()).filter(|&a| run.trained[a]).collect();
    if shown.is_empty() {
        return String::new();
    }
    let n_trained = shown.len();
    let mut left_out = Vec::new();
    if shown.len() > MOST_ROWS {
        let mut by_effect = shown.clone();
        by_effect.sort_by(|&x, &y| derived.effect[y].total_cmp(&derived.effect[x]));
        let keep: Vec<usize> =
            by_effect.into_iter().filter(|&a| derived.n_targets[a] > 0).take(MOST_MAP_ROWS).collect();
        left_out = shown.iter().copied().filter(|a| !keep.contains(a)).collect();
        shown.retain(|a| keep.contains(a));
    }
    let mut text = format!(
        "<p>Each intervention shifts the mean of the few latents that its mask switches on. The length of a shift is in units \
         of the latent's own deviation (1); the sign of a latent is arbitrary. All numbers: <code>targets.csv</code>, \
         <code>masks.csv</code>, <code>shifts.csv</code>, <code>graph.graphml</code>.{}</p>\n",
        if left_out.is_empty() {
            String::new()
        } else {
            format!(" The maps show {} of {n_trained} interventions.", shown.len())
        }
    );
    let mut row = String::new();
    if !shown.is_empty() {
        let table: Vec<f64> = shown.iter().flat_map(|&a| &derived.effects[a * l..(a + 1) * l]).copied().collect();
        let (order, tree) = charts::clustered(&table, l);
        let rows: Vec<usize> = order.iter().map(|&i| shown[i]).collect();
        let heat = Heat { names, rows: &rows, columns: &derived.latent_order };
        let strongest = table.iter().fold(0.0f64, |m, x| m.max(x.abs())).max(1e-9);
        let drawing = heat.draw("Shift of each latent under each intervention", Some(&tree), |a, k| {
            let effect = derived.effects[a * l + k];
            let class = if effect > 0.0 { "up" } else { "down" };
            (
                class,
                (effect.abs() / strongest).powf(0.7),
                format!("{}, latent {k}: shift {}", names[a], label(effect, 0.01)),
            )
        });
        let ramp = format!(
            "<div class=\"key\"><span>{} <span class=\"ramp both\"></span> {}</span></div>\n",
            label(-strongest, 0.1),
            label(strongest, 0.1)
        );
        row += &figure(
            "Shifts",
            "Mask probability times shift. Interventions that act alike stand together (average linkage, tree on the right); \
             latents are ordered by the number of interventions that target them.",
            &format!("{ramp}<div class=\"scroll\">{drawing}</div>"),
        );
        if let Some(masks) = &run.masks {
            let drawing = heat.draw("Mask probability of each latent under each intervention", None, |a, k| {
                let p = masks[a * l + k];
                (
                    "on",
                    p,
                    format!(
                        "{}, latent {k}: probability {}, shift {}",
                        names[a],
                        label(p, 0.01),
                        label(shifts[a * l + k], 0.01)
                    ),
                )
            });
            let ramp = "<div class=\"key\"><span>0 <span class=\"ramp on\"></span> 1</span></div>\n";
            row += &figure(
                "Mask probabilities",
                "The probability that an intervention acts on a latent, in the same order.",
                &format!("{ramp}<div class=\"scroll\">{drawing}</div>"),
            );
        }
    }
    let maps = row;
    let mut details = String::new();
    if !left_out.is_empty() {
        let without: Vec<String> = left_out.iter().map(|&a| escape(&names[a])).collect();
        let _ = writeln!(
            details,
            "<details><summary>{} interventions are not in the maps: without targets, or with the weakest effects</summary>\
             <p>{}</p></details>",
            left_out.len(),
            without.join(", ")
        );
    }

    let mut strongest: Vec<usize> = (0..names.len()).filter(|&a| derived.effect[a] > 0.0).collect();
    strongest.sort_by(|&x, &y| derived.effect[y].total_cmp(&derived.effect[x]));
    let n_with = strongest.len();
    strongest.truncate(MOST_BARS);
    let mut row = String::new();
    if !strongest.is_empty() {
        let bars: Vec<(String, f64, String)> = strongest
            .iter()
            .map(|&a| {
                let n = derived.n_targets[a];
                (names[a].clone(), derived.effect[a], format!("{n} {}", if n == 1 { "latent" } else { "latents" }))
            })
            .collect();
        let text = match n_with > bars.len() {
            true => format!("Length of the masked shift, the {} largest of {n_with}.", bars.len()),
            false => "Length of the masked shift.".to_owned(),
        };
        row += &figure(
            "Strongest interventions",
            &text,
            &charts::named_bars("Strongest interventions", "length of the shift", &bars),
        );
    }
    let bars: Vec<(String, f64)> =
        derived.latent_order.iter().map(|&k| (k.to_string(), derived.per_latent[k] as f64)).collect();
    row += &figure(
        "Interventions per latent",
        "How many trained interventions target each latent. A latent that none targets holds variation between cells of \
         the same intervention.",
        &charts::columns("Interventions per latent", "latent", "interventions", &bars),
    );
    let _ = writeln!(text, "<div class=\"maps\">\n{maps}<div class=\"stack\">\n{row}</div>\n</div>\n{details}");
    text
}

fn latent_space(run: &Run) -> String {
    let l = run.n_latents;
    let n = run.cells.n;
    if n < 2 {
        return String::new();
    }
    let (space, drawn) = (&run.space, &run.cells.drawn);
    let axes = [
        format!("first component ({:.0} % of the variance)", 100.0 * space.explained[0]),
        format!("second component ({:.0} % of the variance)", 100.0 * space.explained[1]),
    ];
    let names = [axes[0].as_str(), axes[1].as_str()];

    // Interventions whose cells lie farthest from the middle of all cells get the colours.
    let n_names = run.cells.names.len();
    let (sums, middle, sizes) = (&space.sums, &space.mean, &run.cells.sizes);
    let distance = |a: usize| -> f64 {
        (0..l).map(|k| (sums[a * l + k] / sizes[a].max(1) as f64 - middle[k]).powi(2)).sum::<f64>().sqrt()
    };
    let mut ranked: Vec<usize> = (0..n_names).filter(|&a| sizes[a] >= 5).collect();
    ranked.sort_by(|&x, &y| distance(y).total_cmp(&distance(x)));
    ranked.truncate(COLOURS);
    let mut by_intervention: Vec<Group> = run
        .cells
        .names
        .iter()
        .enumerate()
        .map(|(a, name)| Group {
            colour: ranked.iter().position(|&other| other == a),
            id: Some(a),
            name: name.clone(),
            points: Vec::new(),
        })
        .collect();
    drawn.iter().for_each(|cell| by_intervention[cell.intervention].points.push(cell.point));
    let mut legend: Vec<(String, String)> =
        ranked.iter().enumerate().map(|(c, &a)| (format!("k{c}"), run.cells.names[a].clone())).collect();
    if n_names > ranked.len() {
        legend.push(("kdust".to_owned(), format!("{} others", n_names - ranked.len())));
    }
    let mut alphabetical: Vec<usize> = (0..n_names).filter(|&a| !by_intervention[a].points.is_empty()).collect();
    alphabetical.sort_by(|&x, &y| run.cells.names[x].cmp(&run.cells.names[y]));
    let options: String = alphabetical
        .iter()
        .map(|&a| format!("<option value=\"{a}\">{}</option>", escape(&run.cells.names[a])))
        .collect();
    let choice = format!(
        "<div class=\"key\" hidden><label>Pick one out: <select data-for=\"by-intervention\"><option value=\"\">(the \
         colours)</option>{options}</select></label></div>\n"
    );
    let drawing = charts::scatter("Cells by intervention", names, &by_intervention);
    let mut row = figure(
        "By intervention",
        "In colour those whose cells lie farthest from the middle.",
        &format!("<div id=\"by-intervention\">{}{choice}{drawing}</div>", key(&legend)),
    );
    if let Some((name, levels, sizes)) = &run.cells.batch {
        let mut order: Vec<usize> = (0..levels.len()).collect();
        order.sort_by(|&x, &y| sizes[y].cmp(&sizes[x]));
        order.truncate(COLOURS);
        order.sort_unstable();
        let mut groups: Vec<Group> = levels
            .iter()
            .enumerate()
            .map(|(i, level)| Group {
                colour: order.iter().position(|&other| other == i),
                id: None,
                name: level.clone(),
                points: Vec::new(),
            })
            .collect();
        drawn.iter().for_each(|cell| groups[cell.batch].points.push(cell.point));
        let mut legend: Vec<(String, String)> =
            order.iter().enumerate().map(|(c, &i)| (format!("k{c}"), levels[i].clone())).collect();
        if levels.len() > order.len() {
            legend.push(("kdust".to_owned(), format!("{} others", levels.len() - order.len())));
        }
        let text = "Batches that stand apart were not explained by the covariates.";
        let drawing = charts::scatter("Cells by batch", names, &groups);
        row += &figure(&format!("By {name}"), text, &(key(&legend) + &drawing));
    }
    // Four parts of equal size by total count: a gradient here means that depth leaks into the latents.
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
    let mut groups: Vec<Group> = (0..4)
        .map(|i| Group { colour: Some(colours[i]), id: None, name: parts[i].clone(), points: Vec::new() })
        .collect();
    drawn.iter().for_each(|cell| groups[part(cell.total)].points.push(cell.point));
    let legend: Vec<(String, String)> = (0..4).map(|i| (format!("k{}", colours[i]), parts[i].clone())).collect();
    row += &figure(
        "By total count",
        "Four parts of equal size. A gradient means that sequencing depth leaks into the latents.",
        &(key(&legend) + &charts::scatter("Cells by total count", names, &groups)),
    );
    let thinned = if n > MOST_POINTS {
        format!(" {} of {} cells are drawn.", grouped(MOST_POINTS as u64), grouped(n as u64))
    } else {
        String::new()
    };
    format!("<p>Principal components of the posterior means.{thinned}</p>\n<div class=\"row wide\">\n{row}</div>\n")
}

fn genes(run: &Run, derived: &Derived) -> String {
    if run.genes.is_empty() {
        return String::new();
    }
    let shown = |k: usize| &run.genes[k][..run.genes[k].len().min(MOST_GENES)];
    let most = (0..run.n_latents).flat_map(|k| shown(k).iter().map(|g| g.1.abs())).fold(0.0, f64::max).max(1e-9);
    let cards: String = derived
        .latent_order
        .iter()
        .map(|&k| {
            let text = match (run.shifts.is_some(), derived.per_latent[k]) {
                (false, _) => String::new(),
                (true, 0) => "no intervention".to_owned(),
                (true, 1) => "1 intervention".to_owned(),
                (true, n) => format!("{n} interventions"),
            };
            let drawing = charts::gene_bars(&format!("Genes of latent {k}"), shown(k), most);
            figure(&format!("Latent {k}"), &text, &drawing)
        })
        .collect();
    format!(
        "<p>Change of expression, in log2 fold change, when a latent rises by one unit: mean over cells of the decoder's \
         difference along the latent. The {MOST_GENES} genes that move most, on one scale; more of them in \
         <code>genes_per_latent.csv</code>.</p>\n<div class=\"genes\">\n{cards}</div>\n"
    )
}

fn held_out(run: &Run) -> String {
    let Some(heldout) = run.metrics.get("heldout") else { return String::new() };
    let mut rows: Vec<Dot> = Vec::new();
    for each in heldout["per_intervention"].as_array().into_iter().flatten() {
        let (Some(nll), Some(elbo)) = (number(each, "nll_iwelbo"), number(each, "elbo")) else { continue };
        let name = each["intervention"].as_str().unwrap_or("").to_owned();
        let hint = format!(
            "{name}: {} by importance sampling, {} by the ELBO, {} cells",
            label(nll, 0.01),
            label(elbo, 0.01),
            each["n_cells"]
        );
        rows.push(Dot { name, filled: nll, hollow: elbo, hint });
    }
    rows.sort_by(|a, b| a.filled.total_cmp(&b.filled));
    let mut lines: Vec<(String, Option<f64>)> = Vec::new();
    let stages = &heldout["stages"];
    for (key, name) in [
        ("before_binarisation", "Model as trained"),
        ("after_retraining", "Masks fixed, trained again, held-out shifts 0"),
        ("after_fitting", "Held-out shifts fitted"),
    ] {
        lines.push((name.to_owned(), number(&stages[key], "nll_iwelbo")));
    }
    lines.push(("Pooled negative binomial".to_owned(), number(&heldout["baseline"], "pooled_negative_binomial")));
    lines.push((
        "Negative binomial per intervention".to_owned(),
        number(&heldout["baseline"], "per_intervention_negative_binomial"),
    ));
    lines.push(("The true model (oracle)".to_owned(), heldout.get("oracle").and_then(|oracle| number(oracle, "nll"))));
    let table: String = lines
        .iter()
        .filter_map(|(name, value)| Some((name, (*value)?)))
        .map(|(name, value)| format!("<tr><td>{}</td><td class=\"n\">{value:.2}</td></tr>\n", escape(name)))
        .collect();
    let particles = grouped(heldout["particles"].as_u64().unwrap_or(0));
    let mut row = figure(
        "Bounds by stage",
        &format!(
            "Negative log-likelihood of the held-out cells, nats per cell ({particles} samples); lower is better."
        ),
        &format!("<table><tr><th>stage or model</th><th class=\"n\">nats</th></tr>\n{table}</table>"),
    );
    if !run.retraining.is_empty() {
        let drawing = charts::lines(
            "Negative ELBO of the second training by epoch",
            "nats per cell",
            &[curve(0, &run.retraining, |r| r.train_elbo), curve(1, &run.retraining, |r| r.validation_elbo)],
            &[],
            kept_epoch(&run.retraining),
            true,
        );
        let text = "With the masks fixed at 0 or 1, before the held-out interventions are fitted.";
        row += &figure("Second training", text, &(both() + &drawing));
    }
    if !rows.is_empty() {
        let mean = number(heldout, "nll_iwelbo").unwrap_or(f64::NAN);
        let levels = [Level { class: "mark", value: mean, name: "mean".to_owned() }];
        let shown = rows.len().min(2 * MOST_BARS);
        // Of very many, both ends.
        if rows.len() > shown {
            rows.drain(shown / 2..rows.len() - shown / 2);
        }
        let drawing = charts::dots(
            "Bounds per held-out intervention",
            "nats per cell",
            &rows,
            if mean.is_finite() { &levels } else { &[] },
        );
        row += &figure(
            "Bounds per intervention",
            "Filled: importance sampling. Hollow: ELBO. Dotted: the mean. Levels differ mostly because sequencing depth \
             does; compare a dot with the same dot of another model.",
            &drawing,
        );
    }
    let mut map = String::new();
    if let Some(shifts) = &run.held_out_shifts {
        let l = run.n_latents;
        let fitted: Vec<usize> =
            (0..run.interventions.len()).filter(|&a| !run.trained[a]).take(MOST_MAP_ROWS).collect();
        if !fitted.is_empty() {
            let table: Vec<f64> = fitted.iter().flat_map(|&a| &shifts[a * l..(a + 1) * l]).copied().collect();
            let (order, tree) = charts::clustered(&table, l);
            let order: Vec<usize> = order.into_iter().map(|i| fitted[i]).collect();
            let columns: Vec<usize> = (0..l).collect();
            let strongest = table.iter().fold(0.0f64, |m, x| m.max(x.abs())).max(1e-9);
            let heat = Heat { names: &run.interventions, rows: &order, columns: &columns };
            let drawing = heat.draw("Fitted shifts of held-out interventions", Some(&tree), |a, k| {
                let shift = shifts[a * l + k];
                let class = if shift > 0.0 { "up" } else { "down" };
                let hint = format!("{}, latent {k}: shift {}", run.interventions[a], label(shift, 0.01));
                (class, (shift.abs() / strongest).powf(0.7), hint)
            });
            let ramp = format!(
                "<div class=\"key\"><span>{} <span class=\"ramp both\"></span> {}</span></div>\n",
                label(-strongest, 0.1),
                label(strongest, 0.1)
            );
            let text = "All latents are open to a held-out intervention; latents are those of the second training.";
            map = figure("Fitted shifts", text, &format!("{ramp}<div class=\"scroll\">{drawing}</div>"));
        }
    }
    let mut text =
        format!("<div class=\"row wide\">\n{row}</div>\n<div class=\"maps\" style=\"margin-top:16px\">{map}</div>\n");
    let left_out: Vec<&str> =
        heldout["left_out"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    if !left_out.is_empty() {
        let _ = writeln!(text, "<p>Too few cells for a mean: {}.</p>", escape(&left_out.join(", ")));
    }
    text
}

fn data(run: &Run) -> String {
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
    let Cells { total, n_genes, .. } = &run.cells;
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

fn settings(run: &Run) -> String {
    format!(
        "<p>Save the text below as <code>config.toml</code> (it is the file of that name in the results folder), then</p>\n\
         <pre>svae-cpu run config.toml --out repeated</pre>\n\
         <p>gives the same weights on the same machine, whatever the number of threads.</p>\n\
         <pre>{}</pre>\n",
        escape(&run.config_text)
    )
}

impl Run {
    /// The epoch whose weights are kept.
    fn kept_epoch(&self) -> Option<f64> {
        match self.config.get("keep").and_then(toml::Value::as_str) {
            Some("last") => self.history.last().map(|r| r.epoch as f64),
            _ => kept_epoch(&self.history),
        }
    }

    /// Number of interventions among the cells that were trained on.
    fn trained_names(&self) -> usize {
        self.cells.trained.iter().filter(|&&trained| trained).count()
    }
}
