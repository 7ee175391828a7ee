//! Grid files of `svae-cpu sweep`: settings that all runs share, axes of values, and what is selected among them.
//!
//! At the top stand the keys of a configuration file. A table `[grid]` gives lists of values, one run for every
//! combination; each `[[runs]]` block adds lists and values of its own, over those of `[grid]`. A setting that a run's
//! method does not use is left out of that run, so an axis `alpha` multiplies the runs of svae and not those of vae.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use toml::Value;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, InputError, Result};
use crate::model::likelihood::Likelihood;
use crate::model::method::Method;
use crate::settings::config::Settings;
use crate::settings::file::{fault, insert, line_at, read_text, syntax_error};
use crate::settings::keys::{DATA_KEYS, HELDOUT_KEYS, data_keys, known_keys, rank, unused_by, unused_with};
use crate::settings::origin::{Origin, flag_of};
use crate::settings::raw::{InterruptionKeys, RawSettings, RawSimulation};
use crate::system::console::LogFormat;
use crate::words::nearest;

/// By what one of several settings is chosen without knowing the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// Lowest negative ELBO of the validation cells, without the penalty of the masks
    Elbo,
    /// Highest unsupervised disentanglement ranking: agreement between runs of several seeds on the same data
    Udr,
}

impl Criterion {
    /// Its name as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Criterion::Elbo => "elbo",
            Criterion::Udr => "udr",
        }
    }
}

/// What is selected: one setting among those that differ only in the keys `over`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// By what.
    pub by: Criterion,
    /// Keys of the hyper-parameters that are chosen.
    pub over: Vec<String>,
}

/// Hyper-parameters that are chosen where the grid does not say which.
const SELECTED_KEYS: [&str; 2] = ["alpha", "beta"];

/// One run of a grid.
#[derive(Debug, Clone)]
pub struct GridRun {
    /// Name of its folder: the method, what the grid's lists and blocks and the flags say of it, and the seed.
    pub name: String,
    /// Its settings, without those that concern the whole sweep (threads, output).
    pub config: Settings,
    /// Keys of which `[grid]`, its `[[runs]]` block or a flag speaks.
    pub named: Vec<String>,
    origin: Origin,
}

impl GridRun {
    /// An error of this run's setting `key`, located in the grid file where the file speaks of it.
    pub fn error(&self, key: &str, error: &InputError) -> Error {
        let said = self.origin.lines.iter().any(|(name, _)| name == key) || self.origin.flags.iter().any(|k| k == key);
        if said {
            return self.origin.error(key, error.problem.clone(), error.remedy.clone());
        }
        let file = self.origin.file.clone().unwrap_or_default();
        let error = InputError::new(error.problem.clone(), error.remedy.clone());
        error.in_file(file).at(format!("run {}", self.name)).into()
    }
}

/// A checked grid.
#[derive(Debug, Clone)]
pub struct Grid {
    /// The file.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// The runs, each different from all others.
    pub runs: Vec<GridRun>,
    /// What is selected, if anything.
    pub selection: Option<Selection>,
    /// Folder of the sweep; `results/` and the file's name without its ending where nothing is said.
    pub out: PathBuf,
    /// Threads of the whole sweep.
    pub threads: Option<usize>,
    /// Whether finished runs are redone.
    pub overwrite: bool,
    /// Whether the table is printed as JSON.
    pub json: bool,
    /// Whether progress is left out.
    pub quiet: bool,
    /// When runs are saved, and when the sweep stops early.
    pub interruption: InterruptionKeys,
    /// Format of what is said on standard error.
    pub log_format: LogFormat,
}

/// Most runs of a grid: more is a slip of the pen.
const MOST_RUNS: usize = 100_000;

/// Keys that concern the whole sweep.
const SWEEP_KEYS: [&str; 9] =
    ["threads", "out", "overwrite", "resume", "json", "quiet", "checkpoint_every", "time_limit", "log_format"];

/// Tables of a grid file beside the settings.
const TABLES: [&str; 3] = ["grid", "runs", "select"];

/// A key with its value, or several.
#[derive(Debug, Clone)]
struct Setting {
    /// Dotted name.
    key: String,
    values: Vec<Value>,
    /// Line in the file; `None` for a flag.
    line: Option<usize>,
    /// Whether it stands in `[grid]` or `[[runs]]` or is a flag, and so in the names of runs.
    named: bool,
}

/// What a grid file says.
#[derive(Debug, Default)]
struct GridFile {
    base: Vec<Setting>,
    axes: Vec<Setting>,
    /// Each with the line of its first key.
    blocks: Vec<(Option<usize>, Vec<Setting>)>,
    selection: Option<Selection>,
}

impl Grid {
    /// Reads the grid at `path` and lays `flags` over every run; a flag takes the place of an axis, but the flag of the
    /// method picks the runs of that method where the grid names methods.
    ///
    /// # Errors
    /// [`InputError`] naming the line, or the flag, of the first thing that cannot be used, in any run.
    pub fn load(path: &Path, flags: RawSettings, select: Option<Criterion>) -> Result<Self> {
        let text = read_text(path)?;
        let mut file = Reader { text: &text, path, known: known_keys() }.read()?;
        if let Some(by) = select {
            let over = SELECTED_KEYS.map(str::to_owned).to_vec();
            file.selection.get_or_insert(Selection { by, over }).by = by;
        }
        file.checked(text.clone(), path, flags)
    }
}

/// Reads a grid file, remembering where things stand.
struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
    known: Vec<String>,
}

impl Reader<'_> {
    fn refused(&self, line: usize, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        InputError::new(problem, remedy).in_file(self.path).at(format!("line {line}")).into()
    }

    fn line(&self, offset: usize) -> usize {
        line_at(self.text, offset)
    }

    fn read(&self) -> Result<GridFile> {
        let syntax = |error: toml::de::Error| syntax_error(&error, self.text, self.path);
        let document = DeTable::parse(self.text).map_err(syntax)?;
        let values: toml::Table = toml::from_str(self.text).map_err(syntax)?;
        let mut file = GridFile::default();
        // The file's own order, so that the first mistake is the one reported.
        let mut entries: Vec<_> = document.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut base = toml::Table::new();
        for (key, spanned) in entries {
            let name: &str = key.get_ref();
            let line = self.line(key.span().start);
            match (name, spanned.get_ref(), &values[name]) {
                ("grid", DeValue::Table(places), Value::Table(table)) => {
                    file.axes = self.layer(places, table, true)?;
                }
                ("runs", DeValue::Array(blocks), Value::Array(tables)) => {
                    for (block, table) in blocks.iter().zip(tables) {
                        let (DeValue::Table(places), Value::Table(table)) = (block.get_ref(), table) else {
                            return Err(self.refused(line, "`runs` holds something else than tables", RUNS_EXAMPLE));
                        };
                        let first = places.keys().map(|key| key.span().start).min();
                        file.blocks.push((first.map(|offset| self.line(offset)), self.layer(places, table, true)?));
                    }
                    if file.blocks.is_empty() {
                        return Err(self.refused(line, "`runs` is empty", RUNS_EXAMPLE));
                    }
                }
                ("select", DeValue::Table(places), Value::Table(table)) => {
                    file.selection = Some(self.selection(line, places, table)?);
                }
                ("runs", ..) => return Err(self.refused(line, "`runs` is no list of tables", RUNS_EXAMPLE)),
                ("grid" | "select", ..) => {
                    let remedy = format!("open a table with a line [{name}]");
                    return Err(self.refused(line, format!("`{name}` is no table"), remedy));
                }
                (_, _, value) => {
                    let is_setting = name == "simulation" || self.known.iter().any(|known| known == name);
                    if let (false, Some(table)) = (is_setting, nearest(name, TABLES)) {
                        let remedy = format!("did you mean `{table}`?");
                        return Err(self.refused(line, format!("there is no setting or table `{name}`"), remedy));
                    }
                    base.insert(name.to_owned(), value.clone());
                }
            }
        }
        // What is left are the settings that all runs share.
        let mut places = document.into_inner();
        TABLES.iter().for_each(|name| drop(places.remove(*name)));
        file.base = self.layer(&places, &base, false)?;
        Ok(file)
    }

    /// The settings of one table, in the file's order.
    fn layer(&self, places: &DeTable, table: &toml::Table, axes: bool) -> Result<Vec<Setting>> {
        let mut found: Vec<(String, usize, &Value)> = Vec::new();
        for (key, place) in places.iter() {
            let name: &str = key.get_ref();
            match (place.get_ref(), &table[name]) {
                (DeValue::Table(inner), Value::Table(values)) if name == "simulation" => {
                    for key in inner.keys() {
                        let inner: &str = key.get_ref();
                        found.push((format!("simulation.{inner}"), self.line(key.span().start), &values[inner]));
                    }
                }
                (_, value) => found.push((name.to_owned(), self.line(key.span().start), value)),
            }
        }
        found.sort_by_key(|(_, line, _)| *line);
        found.into_iter().map(|(key, line, value)| self.setting(key, line, value, axes)).collect()
    }

    fn setting(&self, key: String, line: usize, value: &Value, axes: bool) -> Result<Setting> {
        if axes && SWEEP_KEYS.contains(&key.as_str()) {
            let problem = format!("`{key}` concerns the whole sweep");
            return Err(self.refused(line, problem, "write it above the first table, or give it as a flag"));
        }
        let single = fault(&key, value, &self.known);
        let (Some((problem, remedy)), Value::Array(list)) = (&single, value) else {
            return match single {
                Some((problem, remedy)) => Err(self.refused(line, problem, remedy)),
                None => Ok(Setting { key, values: vec![value.clone()], line: Some(line), named: axes }),
            };
        };
        if !self.known.contains(&key) {
            return Err(self.refused(line, problem.clone(), remedy.clone()));
        }
        if !axes {
            let remedy = "lists of values belong into [grid] or into a [[runs]] block";
            return Err(self.refused(line, format!("`{key}` is a list here"), remedy));
        }
        if list.is_empty() {
            return Err(self.refused(line, format!("the axis `{key}` is empty"), "list at least one value"));
        }
        for (i, value) in list.iter().enumerate() {
            if let Some((problem, remedy)) = fault(&key, value, &self.known) {
                return Err(self.refused(line, problem, remedy));
            }
            if list[..i].iter().any(|earlier| same(earlier, value)) {
                let problem = format!("the axis `{key}` lists {value} twice");
                return Err(self.refused(line, problem, "list each value once"));
            }
        }
        Ok(Setting { key, values: list.clone(), line: Some(line), named: axes })
    }

    fn selection(&self, line: usize, places: &DeTable, table: &toml::Table) -> Result<Selection> {
        let example = "write by = \"elbo\" or by = \"udr\" below [select]";
        for key in places.keys() {
            if !["by", "over"].contains(&&**key.get_ref()) {
                let problem = format!("there is no setting `{}` in [select]", key.get_ref());
                let remedy = match nearest(key.get_ref(), ["by", "over"]) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => "it knows `by` and `over`".to_owned(),
                };
                return Err(self.refused(self.line(key.span().start), problem, remedy));
            }
        }
        let line_of = |name: &str| {
            let key = places.keys().find(|key| &**key.get_ref() == name);
            key.map_or(line, |key| self.line(key.span().start))
        };
        let by = match table.get("by").map(|by| by.clone().try_into::<Criterion>()) {
            Some(Ok(by)) => by,
            Some(Err(_)) => return Err(self.refused(line_of("by"), format!("`by` is {}", table["by"]), example)),
            None => return Err(self.refused(line, "[select] does not say by what", example)),
        };
        let over = match table.get("over") {
            None => SELECTED_KEYS.map(str::to_owned).to_vec(),
            Some(over) => {
                let keys: Vec<String> = over.clone().try_into().map_err(|_| {
                    self.refused(line_of("over"), "`over` is no list of keys", "write over = [\"alpha\", \"beta\"]")
                })?;
                for key in &keys {
                    self.hyper_parameter(key, line_of("over"))?;
                }
                if keys.is_empty() {
                    return Err(self.refused(line_of("over"), "`over` is empty", "name at least one key"));
                }
                keys
            }
        };
        Ok(Selection { by, over })
    }

    /// Refuses what is no setting of the model or of its training.
    fn hyper_parameter(&self, key: &str, line: usize) -> Result<()> {
        let mut table = toml::Table::new();
        insert(&mut table, key, Value::Boolean(true));
        if !self.known.iter().any(|known| known == key) {
            let (problem, remedy) = fault(key, &Value::Boolean(true), &self.known).expect("not known");
            return Err(self.refused(line, problem, remedy));
        }
        let about_data = data_keys().iter().any(|known| known == key);
        if about_data || SWEEP_KEYS.contains(&key) || ["seed", "method", "holdout", "precision"].contains(&key) {
            let problem = format!("`{key}` is no hyper-parameter");
            let remedy = "name settings of the model or its training, such as alpha, beta or epochs";
            return Err(self.refused(line, problem, remedy));
        }
        Ok(())
    }
}

const RUNS_EXAMPLE: &str = "open each block with a line [[runs]]";

/// Whether two values ask for the same: 1 and 1.0 do.
fn same(a: &Value, b: &Value) -> bool {
    let number = |v: &Value| v.as_float().or(v.as_integer().map(|i| i as f64));
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

impl GridFile {
    fn checked(mut self, text: String, path: &Path, flags: RawSettings) -> Result<Grid> {
        let known = known_keys();
        let named = |setting: &Setting| setting.key == "method";
        let names_methods = self.base.iter().chain(&self.axes).any(named)
            || self.blocks.iter().any(|(_, block)| block.iter().any(named));
        let only = flags.model.method.filter(|_| names_methods);
        let mut flag_layer = self.lay(flags)?;
        flag_layer.retain(|flag| only.is_none() || flag.key != "method");
        let over_sweep = |key: &str| {
            let base = self.base.iter().find(|setting| setting.key == key);
            flag_layer.iter().find(|setting| setting.key == key).or(base)
        };
        let mut of_sweep = toml::Table::new();
        let mut origin = Origin { file: Some(path.to_owned()), ..Origin::default() };
        for key in SWEEP_KEYS {
            if let Some(setting) = over_sweep(key) {
                of_sweep.insert(key.to_owned(), setting.values[0].clone());
                match setting.line {
                    Some(line) => origin.lines.push((key.to_owned(), line)),
                    None => origin.flags.push(key.to_owned()),
                }
            }
        }
        if of_sweep.contains_key("resume") {
            let problem = "a sweep always goes on with what it has begun";
            return Err(origin.error("resume", problem, "leave it out"));
        }
        let of_sweep: RawSettings = of_sweep.try_into().expect("each value was checked");
        let of_sweep = of_sweep.check(&origin)?;
        let stem = path.file_stem().map_or_else(|| "sweep".into(), |stem| stem.to_string_lossy().into_owned());
        let out = of_sweep.output.out.unwrap_or_else(|| Path::new("results").join(stem));
        let runs = self.expand(path, &flag_layer, &known, only)?;
        Ok(Grid {
            file: path.to_owned(),
            text,
            runs,
            selection: self.selection,
            out,
            threads: of_sweep.execution.threads,
            overwrite: of_sweep.output.overwrite,
            json: of_sweep.output.json,
            quiet: of_sweep.output.quiet,
            interruption: of_sweep.interruption,
            log_format: of_sweep.output.log_format,
        })
    }

    /// The flags as a layer of settings; what they replace as a whole is dropped from the file's.
    fn lay(&mut self, flags: RawSettings) -> Result<Vec<Setting>> {
        let dropped: fn(&str) -> bool = if flags.data.data.is_some() {
            |key| key.starts_with("simulation.")
        } else if flags.simulation != RawSimulation::default() {
            |key| key == "data" || DATA_KEYS.contains(&key)
        } else {
            |_| false
        };
        let layers = [&mut self.base, &mut self.axes].into_iter().chain(self.blocks.iter_mut().map(|(_, block)| block));
        layers.for_each(|layer| layer.retain(|setting| !dropped(&setting.key)));
        let mut layer = Vec::new();
        for (key, value) in flags.to_table()? {
            let mut add = |key: String, value| {
                layer.push(Setting { key, values: vec![value], line: None, named: true });
            };
            match value {
                Value::Table(table) => table.into_iter().for_each(|(name, value)| add(format!("{key}.{name}"), value)),
                value => add(key, value),
            }
        }
        Ok(layer)
    }

    /// Every run, checked; only those of one method if that is wanted.
    fn expand(&self, path: &Path, flags: &[Setting], known: &[String], only: Option<Method>) -> Result<Vec<GridRun>> {
        let nothing = [(None, Vec::new())];
        let blocks = if self.blocks.is_empty() { &nothing[..] } else { &self.blocks };
        // A flag in the place of an axis makes runs equal, which is then meant.
        let replaced = |flag: &Setting| blocks.iter().any(|(_, block)| block.iter().any(|s| s.key == flag.key));
        let merge = flags.iter().any(|flag| replaced(flag) || self.axes.iter().any(|s| s.key == flag.key));
        let mut used: HashSet<*const Setting> = HashSet::new();
        let mut runs: Vec<GridRun> = Vec::new();
        let mut seen: HashMap<String, (usize, Option<usize>)> = HashMap::new();
        for (number, (line, block)) in blocks.iter().enumerate() {
            let mut settings: Vec<&Setting> = Vec::new();
            for layer in [flags, block, &self.axes, &self.base] {
                let new = |setting: &&Setting| {
                    !SWEEP_KEYS.contains(&setting.key.as_str()) && settings.iter().all(|s| s.key != setting.key)
                };
                let layer: Vec<&Setting> = layer.iter().filter(new).collect();
                settings.extend(layer);
            }
            settings.sort_by_key(|setting| rank(&setting.key, known));
            let total = settings.iter().try_fold(1usize, |n, setting| n.checked_mul(setting.values.len()));
            let Some(total) = total.filter(|&total| total.saturating_add(runs.len()) <= MOST_RUNS) else {
                let problem = format!("the grid asks for more than {MOST_RUNS} runs");
                return Err(InputError::new(problem, "shorten its axes").in_file(path).into());
            };
            let mut in_block = HashSet::new();
            for index in 0..total {
                let picked = combination(&settings, index);
                let mut table = toml::Table::new();
                let mut origin = Origin { file: Some(path.to_owned()), ..Origin::default() };
                for (setting, value) in &picked {
                    used.insert(*setting);
                    insert(&mut table, &setting.key, (*value).clone());
                    match setting.line {
                        Some(line) => origin.lines.push((setting.key.clone(), line)),
                        None => origin.flags.push(setting.key.clone()),
                    }
                }
                if !in_block.insert(table.to_string()) {
                    continue;
                }
                let raw: RawSettings = table.try_into().expect("each value was checked");
                let config = raw.check(&origin)?;
                let saved = config.to_toml();
                let name = name_of(&config, &picked);
                if let Some(&(earlier, earlier_line)) = seen.get(&saved) {
                    if merge {
                        continue;
                    }
                    let of = |number: usize, line: Option<usize>| match line {
                        Some(line) => format!("[[runs]] block {} (line {line})", number + 1),
                        None => format!("[[runs]] block {}", number + 1),
                    };
                    let problem = format!(
                        "the run {name} is asked for twice: {} and {}",
                        of(earlier, earlier_line),
                        of(number, *line)
                    );
                    return Err(InputError::new(problem, "leave it out of one of them").in_file(path).into());
                }
                seen.insert(saved, (number, *line));
                let named = picked.iter().filter(|(setting, _)| setting.named).map(|(s, _)| s.key.clone()).collect();
                runs.push(GridRun { name, config, named, origin });
            }
        }
        self.refuse_without_effect(path, flags, &used)?;
        if let Some(method) = only {
            runs.retain(|run| run.config.model.method == method);
            if runs.is_empty() {
                let problem = format!("no run of {} has the method {}", path.display(), method.name());
                return Err(InputError::new(problem, "choose a method that the grid names").at("--method").into());
            }
        }
        unique_names(&mut runs);
        Ok(runs)
    }
}

/// The settings of combination `index`: one value of each, without those that have no effect with the others.
fn combination<'a>(settings: &[&'a Setting], index: usize) -> Vec<(&'a Setting, &'a Value)> {
    let mut rest = index;
    let mut picked: Vec<(&Setting, &Value)> = Vec::with_capacity(settings.len());
    for setting in settings.iter().rev() {
        picked.push((setting, &setting.values[rest % setting.values.len()]));
        rest /= setting.values.len();
    }
    picked.reverse();
    let choice = |key: &str| picked.iter().find(|(setting, _)| setting.key == key).map(|(_, value)| *value);
    let checked = "each value was checked";
    let method = choice("method").map_or(Method::SvaePlus, |value| value.clone().try_into().expect(checked));
    let likelihood =
        choice("likelihood").map_or(Likelihood::NegativeBinomial, |value| value.clone().try_into().expect(checked));
    let skipped = choice("heldout").is_some_and(|value| value.as_bool() == Some(false));
    picked.retain(|(setting, _)| {
        let key = setting.key.as_str();
        let unused = unused_by(method).contains(&key) || unused_with(likelihood).contains(&key);
        !(unused || skipped && HELDOUT_KEYS.contains(&key))
    });
    picked
}

impl GridFile {
    /// Refuses a setting that no run has use for.
    fn refuse_without_effect(&self, path: &Path, flags: &[Setting], used: &HashSet<*const Setting>) -> Result<()> {
        let conditional = |key: &str| {
            HELDOUT_KEYS.contains(&key)
                || METHODS.iter().any(|&method| unused_by(method).contains(&key))
                || Likelihood::value_variants().iter().any(|&likelihood| unused_with(likelihood).contains(&key))
        };
        let idle = |setting: &&Setting| conditional(&setting.key) && !used.contains(&std::ptr::from_ref(*setting));
        if let Some(flag) = flags.iter().find(idle) {
            let remedy = "leave it out, or add runs whose method uses it";
            return Err(InputError::new("it has no effect on any run of the grid", remedy)
                .at(flag_of(&flag.key))
                .into());
        }
        let blocks = || self.blocks.iter().flat_map(|(_, block)| block);
        for setting in self.base.iter().chain(&self.axes).chain(blocks()).filter(idle) {
            // What a flag or a block replaces was a default, and has done its duty; a flag that names the method drops
            // what this method does not use, as it does for a configuration file.
            let by_flag = |flag: &Setting| {
                flag.key == setting.key || ["method", "likelihood", "heldout"].contains(&flag.key.as_str())
            };
            let other = |above: &Setting| above.key == setting.key && !std::ptr::eq(above, setting);
            let shared = !blocks().any(|of_block| std::ptr::eq(of_block, setting));
            if flags.iter().any(by_flag) || shared && (blocks().any(other) || self.axes.iter().any(other)) {
                continue;
            }
            let line = setting.line.expect("it stands in the file");
            let problem = format!("`{}` has no effect on any run it is written for", setting.key);
            let remedy = "leave it out, or move it to runs whose method uses it";
            return Err(InputError::new(problem, remedy).in_file(path).at(format!("line {line}")).into());
        }
        Ok(())
    }
}

const METHODS: [Method; 6] = [Method::Vae, Method::BetaVae, Method::Ivae, Method::Svae, Method::SvaePlus, Method::Pca];

/// Longest value in the name of a run.
const LONGEST_VALUE: usize = 40;

/// The name of a run: readable, and the same as long as the grid says the same of this run.
fn name_of(config: &Settings, picked: &[(&Setting, &Value)]) -> String {
    let values = toml::Table::try_from(config).expect("checked settings can be written as TOML");
    let mut name = config.model.method.name().to_owned();
    for (setting, _) in picked.iter().filter(|(setting, _)| setting.named) {
        let (label, value) = match setting.key.strip_prefix("simulation.") {
            _ if ["method", "seed"].contains(&setting.key.as_str()) => continue,
            Some("kind") => ("simulation".to_owned(), &values["simulation"]["kind"]),
            Some(key) => (format!("sim-{}", key.replace('_', "-")), &values["simulation"][key]),
            None => (setting.key.replace('_', "-"), &values[&setting.key]),
        };
        name += &format!("_{label}-{}", in_file_name(value));
    }
    format!("{name}_seed-{}", config.execution.seed)
}

/// A value as a part of a file's name; what cannot stand there as it is carries a checksum.
fn in_file_name(value: &Value) -> String {
    let plain = match value {
        Value::String(text) => text.clone(),
        Value::Float(number) => number.to_string(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => {
            list.iter().map(|v| v.as_str().map_or(v.to_string(), str::to_owned)).collect::<Vec<_>>().join("+")
        }
        value => value.to_string(),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    let clean: String = plain.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    if clean == plain && clean.len() <= LONGEST_VALUE {
        return clean;
    }
    let short: String = clean.chars().take(LONGEST_VALUE - 9).collect();
    format!("{short}-{:08x}", checksum(&plain))
}

/// FNV-1a, folded to 32 bits: the same on every machine and in every version.
fn checksum(text: &str) -> u32 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
}

/// Gives runs that share a name a checksum of their settings.
fn unique_names(runs: &mut [GridRun]) {
    let mut count: HashMap<String, usize> = HashMap::new();
    runs.iter().for_each(|run| *count.entry(run.name.clone()).or_default() += 1);
    for run in runs.iter_mut().filter(|run| count[&run.name] > 1) {
        run.name = format!("{}_{:08x}", run.name, checksum(&run.config.to_toml()));
    }
}
