//! The tables of a sweep: one row per setting with means and standard deviations over seeds, and one row per run.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::commands::sweep::figures::{Figures, METRICS, Metric, TIMES};
use crate::commands::sweep::plan::Plan;
use crate::display::table::Table;
use crate::error::Result;
use crate::settings::{Criterion, Selection, Settings};
use crate::system::files::write_atomically;

/// How a run of the sweep stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// It is finished.
    Finished(Box<Figures>),
    /// It failed, for this reason.
    Failed(String),
    /// It has not been done, for this reason.
    Missing(String),
}

impl Status {
    fn name(&self) -> &'static str {
        match self {
            Status::Finished(_) => "finished",
            Status::Failed(_) => "failed",
            Status::Missing(_) => "missing",
        }
    }
}

/// Mean, standard deviation, median and range over the runs of a setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stat {
    /// Mean.
    pub mean: f64,
    /// Standard deviation, with n - 1; `None` for a single run.
    pub sd: Option<f64>,
    /// Median: of an even number, the mean of the middle two.
    pub median: f64,
    /// Lowest and highest.
    pub range: [f64; 2],
    /// Number of runs that have the figure.
    pub n: usize,
}

impl Stat {
    /// Of the values that there are; `None` without any. Values that are not finite count as absent.
    pub fn of(values: impl Iterator<Item = Option<f64>>) -> Option<Self> {
        let values: Vec<f64> = values.flatten().filter(|value| value.is_finite()).collect();
        let mut sorted = values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        let median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
        Some(Self { mean, sd, median, range: [sorted[0], sorted[n - 1]], n })
    }
}

/// A row: one setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// A value for each of the plan's columns, where the setting has it.
    pub setting: Vec<Option<toml::Value>>,
    /// Runs that are finished.
    pub finished: usize,
    /// Runs that failed.
    pub failed: usize,
    /// Runs that have not been done.
    pub missing: usize,
    /// Whether the setting is chosen; `None` where nothing is selected.
    pub selected: Option<bool>,
    /// For each of [`METRICS`].
    pub stats: Vec<Option<Stat>>,
    /// For each of [`TIMES`].
    pub times: Vec<Option<Stat>>,
    /// Held-out interventions left out of the means for want of cells, in any run.
    pub left_out: BTreeSet<String>,
}

impl Row {
    /// The mean of the figure called `key`.
    pub fn mean(&self, key: &str) -> Option<f64> {
        let i = METRICS.iter().position(|metric| metric.key == key)?;
        self.stats[i].map(|stat| stat.mean)
    }
}

/// How the runs of a setting are summed up in a table for people.
struct Summary {
    name: &'static str,
    show: fn(&Stat, usize) -> String,
}

const MEANS: Summary = Summary {
    name: "Means ± standard deviations",
    show: |stat, digits| {
        let sd = stat.sd.map_or_else(String::new, |sd| format!(" ± {sd:.digits$}"));
        format!("{:.digits$}{sd}", stat.mean)
    },
};

const MEDIANS: Summary = Summary {
    name: "Medians (lowest to highest)",
    show: |stat, digits| {
        let ([low, high], several) = (stat.range, stat.n > 1);
        let range = if several { format!(" ({low:.digits$} to {high:.digits$})") } else { String::new() };
        format!("{:.digits$}{range}", stat.median)
    },
};

/// The tables of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Tables {
    columns: Vec<String>,
    /// One per setting, in the order of the grid.
    pub rows: Vec<Row>,
    selection: Option<Selection>,
    runs: Vec<RunRow>,
    notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct RunRow {
    name: String,
    setting: Vec<Option<toml::Value>>,
    seed: u64,
    simulation_seed: Option<u64>,
    status: Status,
}

/// The values of `columns` in the settings of a run.
fn values_of(columns: &[String], config: &Settings) -> Vec<Option<toml::Value>> {
    let keys = config.saved_keys();
    columns.iter().map(|column| keys.iter().find(|(key, _)| key == column).map(|(_, value)| value.clone())).collect()
}

/// The rows of a plan whose runs stand as `statuses` says, with nothing selected.
pub fn rows(plan: &Plan, statuses: &[Status]) -> Vec<Row> {
    let row = |setting: usize| {
        let runs: Vec<usize> = (0..plan.runs.len()).filter(|&i| plan.runs[i].setting == setting).collect();
        let finished: Vec<&Figures> = runs
            .iter()
            .filter_map(|&i| match &statuses[i] {
                Status::Finished(figures) => Some(&**figures),
                _ => None,
            })
            .collect();
        let count = |name: &str| runs.iter().filter(|&&i| statuses[i].name() == name).count();
        Row {
            setting: values_of(&plan.columns, &plan.runs[runs[0]].config),
            finished: finished.len(),
            failed: count("failed"),
            missing: count("missing"),
            selected: None,
            stats: (0..METRICS.len()).map(|m| Stat::of(finished.iter().map(|figures| figures.values[m]))).collect(),
            times: (0..TIMES.len()).map(|m| Stat::of(finished.iter().map(|figures| figures.times[m]))).collect(),
            left_out: finished.iter().flat_map(|figures| figures.left_out.iter().cloned()).collect(),
        }
    };
    (0..plan.n_settings).map(row).collect()
}

/// A value of a setting for a cell of a table.
fn text_of(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Array(list) => list.iter().map(text_of).collect::<Vec<_>>().join("; "),
        value => value.to_string(),
    }
}

/// Longest list of names in a table for people.
const SHORT: usize = 30;

fn short_text_of(value: &toml::Value) -> String {
    match (value, text_of(value)) {
        (toml::Value::Array(list), text) if text.chars().count() > SHORT => {
            format!("{} and {} more", text_of(&list[0]), list.len() - 1)
        }
        (_, text) => text,
    }
}

fn json_of(value: &toml::Value) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

impl Tables {
    /// The tables of a plan.
    pub fn new(
        plan: &Plan,
        rows: Vec<Row>,
        statuses: &[Status],
        selection: Option<Selection>,
        notes: Vec<String>,
    ) -> Self {
        let runs = plan.runs.iter().zip(statuses).map(|(run, status)| RunRow {
            name: run.name.clone(),
            setting: values_of(&plan.columns, &run.config),
            seed: run.config.execution.seed,
            simulation_seed: run.config.simulation.as_ref().map(|simulation| simulation.seed),
            status: status.clone(),
        });
        Self { columns: plan.columns.clone(), rows, selection, runs: runs.collect(), notes }
    }

    /// Runs that failed, with their reasons.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.runs.iter().filter_map(|run| match &run.status {
            Status::Failed(reason) => Some((run.name.as_str(), reason.as_str())),
            _ => None,
        })
    }

    /// Number of runs that have not been done.
    pub fn missing(&self) -> usize {
        self.runs.iter().filter(|run| matches!(run.status, Status::Missing(_))).count()
    }

    /// Writes `table.csv`, `table.md`, `table.json`, `table_medians.md`, `runs.csv` and, where something is selected, the same tables of the
    /// selected settings as `table_selected.*`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        self.write_tables(folder, "table", |_| true)?;
        let medians = self.markdown(&self.rows.iter().collect::<Vec<_>>(), &MEDIANS);
        write_atomically(&folder.join("table_medians.md"), |file| file.write_all(medians.as_bytes()))?;
        if self.selection.is_some() {
            self.write_tables(folder, "table_selected", |row| row.selected == Some(true))?;
        } else {
            // Those of an earlier call would no longer belong to the table.
            for ending in ["csv", "md", "json"] {
                let _ = std::fs::remove_file(folder.join(format!("table_selected.{ending}")));
            }
        }
        self.write_runs(&folder.join("runs.csv"))
    }

    fn write_tables(&self, folder: &Path, name: &str, keep: fn(&Row) -> bool) -> Result<()> {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| keep(row)).collect();
        write_atomically(&folder.join(format!("{name}.csv")), |file| self.csv(&rows, file))?;
        let text = self.markdown(&rows, &MEANS);
        write_atomically(&folder.join(format!("{name}.md")), |file| file.write_all(text.as_bytes()))?;
        let text = self.json(&rows);
        write_atomically(&folder.join(format!("{name}.json")), |file| writeln!(file, "{text}"))
    }

    fn csv(&self, rows: &[&Row], out: impl Write) -> std::io::Result<()> {
        let mut table = csv::Writer::from_writer(out);
        let mut header = self.columns.clone();
        header.extend(["runs", "failed", "missing"].map(str::to_owned));
        if self.selection.is_some() {
            header.push("selected".to_owned());
        }
        let of = |metric: &Metric| ["mean", "sd", "median"].map(|what| format!("{}_{what}", metric.key));
        header.extend(METRICS.iter().flat_map(of));
        header.push("heldout_left_out".to_owned());
        header.extend(TIMES.iter().flat_map(of));
        table.write_record(&header)?;
        for row in rows {
            let mut cells: Vec<String> =
                row.setting.iter().map(|value| value.as_ref().map_or_else(String::new, text_of)).collect();
            cells.extend([row.finished, row.failed, row.missing].map(|n| n.to_string()));
            cells.extend(row.selected.map(|selected| selected.to_string()));
            let of = |stat: &Option<Stat>| {
                [stat.map(|stat| stat.mean), stat.and_then(|stat| stat.sd), stat.map(|stat| stat.median)].map(number)
            };
            cells.extend(row.stats.iter().flat_map(of));
            cells.push(row.left_out.iter().cloned().collect::<Vec<_>>().join("; "));
            cells.extend(row.times.iter().flat_map(of));
            table.write_record(&cells)?;
        }
        table.flush()
    }

    /// The table for people: figures that no row has are left out.
    fn cells(&self, rows: &[&Row], summary: &Summary) -> (Vec<String>, Vec<Vec<String>>) {
        let shown = |of: fn(&Row) -> &[Option<Stat>], m: usize| rows.iter().any(|row| of(row)[m].is_some());
        let metrics = (0..METRICS.len()).filter(|&m| METRICS[m].shown && shown(|row| &row.stats, m));
        let metrics: Vec<usize> = metrics.collect();
        let times: Vec<usize> = (0..TIMES.len()).filter(|&m| shown(|row| &row.times, m)).collect();
        let left_out = rows.iter().any(|row| !row.left_out.is_empty());
        let mut header = self.columns.clone();
        header.push("runs".to_owned());
        if self.selection.is_some() {
            header.push("selected".to_owned());
        }
        header.extend(metrics.iter().map(|&m| METRICS[m].label.to_owned()));
        if left_out {
            header.push("left out".to_owned());
        }
        header.extend(times.iter().map(|&m| TIMES[m].label.to_owned()));
        let of = |metric: &Metric, stat: &Option<Stat>| match stat {
            None => "-".to_owned(),
            Some(stat) => (summary.show)(stat, metric.digits),
        };
        let cells = rows.iter().map(|row| {
            let mut cells: Vec<String> =
                row.setting.iter().map(|value| value.as_ref().map_or_else(|| "-".to_owned(), short_text_of)).collect();
            let planned = row.finished + row.failed + row.missing;
            cells.push(match row.finished == planned {
                true => planned.to_string(),
                false => format!("{} of {planned}", row.finished),
            });
            cells.extend(row.selected.map(|selected| if selected { "yes" } else { "" }.to_owned()));
            cells.extend(metrics.iter().map(|&m| of(&METRICS[m], &row.stats[m])));
            if left_out {
                cells.push(row.left_out.len().to_string());
            }
            cells.extend(times.iter().map(|&m| of(&TIMES[m], &row.times[m])));
            cells
        });
        let cells = cells.collect();
        (header, cells)
    }

    /// What has to be said below a table.
    fn remarks(&self, rows: &[&Row], summary: &Summary) -> Vec<String> {
        let mut remarks = vec![format!(
            "{} over seeds. ELBO and NLL are negative bounds in nats per cell: lower is better.",
            summary.name
        )];
        if let Some(selection) = &self.selection {
            let by = match selection.by {
                Criterion::Elbo => "the lowest validation ELBO without the penalty of the masks",
                Criterion::Udr => "the highest UDR",
            };
            remarks.push(format!("Selected over {}: {by}.", selection.over.join(", ")));
        }
        let left_out: BTreeSet<&String> = rows.iter().flat_map(|row| &row.left_out).collect();
        if !left_out.is_empty() {
            let names: Vec<&str> = left_out.iter().map(|name| name.as_str()).collect();
            remarks.push(format!(
                "Left out of the held-out means, with 10 cells or fewer in some run: {}.",
                names.join(", ")
            ));
        }
        remarks.extend(self.notes.iter().cloned());
        remarks.extend(self.failed().map(|(name, reason)| format!("{name} failed: {reason}")));
        for run in &self.runs {
            if let Status::Missing(reason) = &run.status {
                remarks.push(format!("{} is missing: {reason}.", run.name));
            }
        }
        remarks
    }

    fn markdown(&self, rows: &[&Row], summary: &Summary) -> String {
        let (header, cells) = self.cells(rows, summary);
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = line(&header) + &format!("|{}\n", "---|".repeat(header.len()));
        cells.iter().for_each(|row| text += &line(row));
        for remark in self.remarks(rows, summary) {
            text += &format!("\n{}\n", remark.replace('\n', " "));
        }
        text
    }

    /// The table as aligned text, with its remarks.
    pub fn text(&self) -> String {
        let rows: Vec<&Row> = self.rows.iter().collect();
        let (header, cells) = self.cells(&rows, &MEANS);
        let n = header.len();
        let mut table = Table::new(header).right_aligned(self.columns.len()..n);
        cells.into_iter().for_each(|row| table.push(row));
        format!("{table}\n\n{}", self.remarks(&rows, &MEANS).join("\n"))
    }

    /// All settings as JSON.
    pub fn to_json(&self) -> String {
        self.json(&self.rows.iter().collect::<Vec<_>>())
    }

    fn json(&self, rows: &[&Row]) -> String {
        let stats = |metrics: &[Metric], stats: &[Option<Stat>]| -> Map<String, Value> {
            let found = metrics.iter().zip(stats).filter_map(|(metric, stat)| {
                let stat = (*stat)?;
                Some((
                    metric.key.to_owned(),
                    json!({ "mean": stat.mean, "sd": stat.sd, "median": stat.median, "n": stat.n }),
                ))
            });
            found.collect()
        };
        let settings = rows.iter().map(|row| {
            let keys = self.columns.iter().zip(&row.setting);
            let setting: Map<String, Value> =
                keys.filter_map(|(key, value)| Some((key.clone(), json_of(value.as_ref()?)))).collect();
            let mut object = json!({
                "setting": setting,
                "runs": row.finished,
                "failed": row.failed,
                "missing": row.missing,
            });
            if let Some(selected) = row.selected {
                object["selected"] = selected.into();
            }
            object["metrics"] = stats(&METRICS, &row.stats).into();
            object["heldout_left_out"] = json!(row.left_out);
            object["times"] = stats(&TIMES, &row.times).into();
            object
        });
        let settings: Vec<Value> = settings.collect();
        let selection = self.selection.as_ref().map(|s| json!({ "by": s.by.name(), "over": s.over }));
        let failed: Vec<Value> = self.failed().map(|(name, reason)| json!({ "run": name, "reason": reason })).collect();
        let object = json!({
            "selection": selection,
            "settings": settings,
            "failed": failed,
            "missing": self.missing(),
            "notes": self.notes,
        });
        serde_json::to_string_pretty(&object).expect("tables are plain numbers and names")
    }

    fn write_runs(&self, path: &Path) -> Result<()> {
        write_atomically(path, |file| {
            let mut table = csv::Writer::from_writer(file);
            let mut header = vec!["run".to_owned(), "status".to_owned(), "reason".to_owned()];
            header.extend(self.columns.iter().cloned());
            header.extend(["seed", "simulation.seed", "epochs", "stop_reason"].map(str::to_owned));
            header.extend(METRICS.iter().map(|metric| metric.key.to_owned()));
            header.extend(["heldout_interventions", "heldout_left_out"].map(str::to_owned));
            header.extend(TIMES.iter().map(|metric| metric.key.to_owned()));
            table.write_record(&header)?;
            for run in &self.runs {
                let reason = match &run.status {
                    Status::Finished(_) => "",
                    Status::Failed(reason) | Status::Missing(reason) => reason,
                };
                let mut cells = vec![run.name.clone(), run.status.name().to_owned(), reason.to_owned()];
                cells.extend(run.setting.iter().map(|value| value.as_ref().map_or_else(String::new, text_of)));
                cells.push(run.seed.to_string());
                cells.push(run.simulation_seed.map_or_else(String::new, |seed| seed.to_string()));
                if let Status::Finished(figures) = &run.status {
                    let whole = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
                    cells.extend([whole(figures.epochs), figures.stop_reason.clone()]);
                    cells.extend(figures.values.iter().map(|value| number(*value)));
                    cells.extend([whole(figures.n_heldout), figures.left_out.join("; ")]);
                    cells.extend(figures.times.iter().map(|value| number(*value)));
                }
                cells.resize(header.len(), String::new());
                table.write_record(&cells)?;
            }
            table.flush()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_of_the_values_that_there_are() {
        let of = |values: &[f64]| Stat::of(values.iter().map(|&value| Some(value)).chain([None, Some(f64::NAN)]));
        assert_eq!(of(&[]), None);
        let three = of(&[5.0, -1.0, 2.0]).expect("a figure");
        assert_eq!((three.median, three.range, three.mean, three.n), (2.0, [-1.0, 5.0], 2.0, 3));
        assert_eq!(of(&[4.0, 10.0, 1.0, 2.0]).expect("a figure").median, 3.0);
        assert_eq!((MEDIANS.show)(&three, 1), "2.0 (-1.0 to 5.0)");
        assert_eq!((MEANS.show)(&three, 1), "2.0 ± 3.0");
        let one = of(&[0.25]).expect("a figure");
        assert_eq!(((MEDIANS.show)(&one, 2), (MEANS.show)(&one, 2)), ("0.25".to_owned(), "0.25".to_owned()));
    }
}
