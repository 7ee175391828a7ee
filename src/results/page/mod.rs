//! The report of a run: one page with its style, drawings and script inside, made from the files of a results folder.
//!
//! The same folder gives the same bytes. Without its script the page lacks nothing but the choice of an intervention.

mod charts;
mod cluster;
mod data;
mod edges;
mod effects;
pub(crate) mod folder;
mod genes;
mod held_out;
mod interactions;
mod latent_space;
mod parts;
mod pca;
mod predictions;
mod settings;
mod summary;
mod svg;
mod targets;
mod training;

use std::fmt::Write;
use std::io::Write as _;

use crate::error::Result;
use crate::evaluation::metrics::Metrics;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use effects::Effects;
use folder::Run;
use svg::escape;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

impl ResultsFolder {
    /// Writes `report.html` from the other files of the folder. `metrics` stands in for `metrics.json` where that is not
    /// written yet.
    ///
    /// # Errors
    /// [`crate::InputError`] naming a file of the folder that is missing or damaged; [`crate::Error::Io`].
    pub fn write_report(&self, metrics: Option<&Metrics>) -> Result<()> {
        if !self.writes() {
            return Ok(());
        }
        let page = page(&folder::read(self.path(), metrics)?);
        self.write(ResultsFile::Report, |file| file.write_all(page.as_bytes()))
    }
}

/// The whole page.
fn page(run: &Run) -> String {
    let effects = Effects::new(run);
    let sections: Vec<(&str, &str, String)> = [
        ("training", "Training", training::training(run)),
        ("targets", "Interventions and latents", targets::targets(run, &effects)),
        ("interactions", "Combinations of interventions", interactions::interactions(run)),
        ("latents", "Latent space", latent_space::latent_space(run)),
        ("genes", "Genes of each latent", genes::genes(run, &effects)),
        ("heldout", "Held-out interventions", held_out::held_out(run)),
        ("predictions", "Predictions of combinations", predictions::predictions(run)),
        ("data", "Data", data::data(run)),
        ("repeat", "Settings, and how to repeat this run", settings::settings(run)),
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
         <title>{name} \u{b7} svae-cpu</title>\n<style>\n{STYLE}{edge_style}</style>\n</head>\n<body>\n<header>\n<h1>{name}</h1>\n\
         <p class=\"lead\">{method}, seed {seed}, trained by svae-cpu {version}</p>\n<nav>",
        name = escape(&source),
        edge_style = if run.certainty.is_some() { edges::STYLE } else { "" },
        method = escape(method),
        seed = run.metrics["seed"],
        version = env!("CARGO_PKG_VERSION"),
    );
    for (id, title, _) in &sections {
        let _ = write!(page, "<a href=\"#{id}\">{}</a>", escape(title));
    }
    page.push_str("</nav>\n</header>\n<main>\n");
    page.push_str(&summary::summary(run));
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
