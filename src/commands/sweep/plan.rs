//! What a sweep is going to do: every run with its resolved settings, its folder and its data, all checked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::commands::screen;
use crate::commands::sweep::figures::Figures;
use crate::data::dataset::InterventionRows;
use crate::data::screen::LoadedScreen;
use crate::data::split::ScreenSplit;
use crate::error::{Error, InputError, Result};
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::settings::{Grid, RawSettings, Settings, Source, rank_of};

/// One run of the sweep.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    /// Its name.
    pub name: String,
    /// Its settings, complete.
    pub config: Settings,
    /// Its results folder.
    pub folder: PathBuf,
    /// Number of its data among [`Plan::data`].
    pub data: usize,
    /// Whether it is to be judged on held-out cells.
    pub held_out: bool,
    /// Number of its setting: runs of one setting differ in their seeds alone.
    pub setting: usize,
}

/// Every run of a sweep, and the data that they share.
#[derive(Debug)]
pub struct Plan {
    /// Folder of the sweep.
    pub folder: PathBuf,
    /// The runs, in the order of the grid.
    pub runs: Vec<PlannedRun>,
    /// Distinct data.
    pub data: Vec<SharedData>,
    /// Number of settings.
    pub n_settings: usize,
    /// Keys that the grid lists, or in which settings differ, in the order of a configuration file, the method first.
    pub columns: Vec<String>,
    /// What there is to say about data that were read.
    pub notes: Vec<String>,
}

/// Data that several runs use: read, or simulated by the first that needs them.
#[derive(Debug)]
pub struct SharedData {
    config: Settings,
    names: Vec<String>,
    interventions: InterventionRows,
    source: String,
    read: Mutex<Option<LoadedScreen>>,
    /// Runs that still need them.
    waiting: AtomicUsize,
}

impl SharedData {
    fn new(config: &Settings) -> Result<Self> {
        let (names, interventions, source, found) = match config.source() {
            // A simulation is known before it is made; it is made when a run needs it.
            Source::Simulation(simulation) => {
                let rows = simulation.intervention_rows();
                (simulation.intervention_names(), rows, "the simulation".to_owned(), None)
            }
            Source::File(_) => {
                let found = screen::load(&Team::single(), config)?;
                let data = &found.data;
                (data.intervention_names.clone(), data.interventions.clone(), data.source.clone(), Some(found))
            }
        };
        let (read, waiting) = (Mutex::new(found), AtomicUsize::new(0));
        Ok(Self { config: config.clone(), names, interventions, source, read, waiting })
    }

    /// The data; whoever comes first simulates them, the others wait.
    ///
    /// # Errors
    /// As reading them.
    pub(crate) fn get(&self, team: &Team) -> Result<LoadedScreen> {
        // A panic while simulating leaves nothing behind that is half done.
        let mut slot = self.read.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(found) = &*slot {
            return Ok(found.clone());
        }
        let found = screen::load(team, &self.config)?;
        *slot = Some(found.clone());
        Ok(found)
    }

    /// Says that a further run will need the data.
    pub fn expect_use(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    /// Says that a run is done with the data; after the last one they are let go.
    pub fn release(&self) {
        if self.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            *self.read.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        }
    }

    /// How the cells are split for a run with the settings `config`.
    ///
    /// # Errors
    /// Held-out labels that do not exist, or that leave nothing to train on.
    pub(crate) fn split(&self, config: &Settings) -> Result<ScreenSplit> {
        let held_out = config.held_out(&self.names, &self.interventions)?;
        let (fraction, seed) = (config.training.validation_fraction, config.execution.seed);
        ScreenSplit::new(&self.source, &self.interventions, self.names.len(), held_out, fraction, seed)
    }
}

/// Keys that make runs of one setting differ.
const SEED_KEYS: [&str; 2] = ["seed", "simulation.seed"];

/// Folder of the runs within that of the sweep.
const RUNS_FOLDER: &str = "runs";

impl Plan {
    /// Plans the runs of a grid; data files are read, nothing is written.
    ///
    /// # Errors
    /// [`InputError`] for the first run that cannot be done.
    pub fn new(grid: &Grid) -> Result<Self> {
        let folder = grid.out.clone();
        if folder.exists() && !folder.is_dir() {
            let error = InputError::new("this is a file, not a folder", "choose another --out");
            return Err(error.in_file(&folder).into());
        }
        let mut data: Vec<SharedData> = Vec::new();
        let mut data_numbers: HashMap<String, usize> = HashMap::new();
        let mut settings: HashMap<String, usize> = HashMap::new();
        let mut seen: HashMap<String, String> = HashMap::new();
        let mut splits: HashMap<String, (usize, usize)> = HashMap::new();
        let mut runs = Vec::with_capacity(grid.runs.len());
        for run in &grid.runs {
            let identity = run.config.data_identity();
            let number = match data_numbers.get(&identity) {
                Some(&number) => number,
                None => {
                    data.push(SharedData::new(&run.config)?);
                    data_numbers.insert(identity, data.len() - 1);
                    data.len() - 1
                }
            };
            let located = |error: Error| match &error {
                Error::Input(input) => run.error("holdout", input),
                _ => error,
            };
            // How many cells train and are held out is the same for all seeds.
            let split =
                format!("{number} {:?} {}", run.config.training.holdout, run.config.training.validation_fraction);
            let (n_train, n_held_out) = match splits.get(&split) {
                Some(&found) => found,
                None => {
                    let found = data[number].split(&run.config).map_err(located)?;
                    let found = (found.train.len(), found.held_out.len());
                    splits.insert(split, found);
                    found
                }
            };
            let config = run.config.resolved(&data[number].names, &data[number].interventions, n_train)?;
            let text = config.to_toml();
            if let Some(earlier) = seen.insert(text, run.name.clone()) {
                let problem = format!("the runs {earlier} and {} are the same once defaults are filled in", run.name);
                return Err(InputError::new(problem, "leave one of them out").in_file(&grid.file).into());
            }
            let mut keys = config.saved_keys();
            keys.retain(|(key, _)| !SEED_KEYS.contains(&key.as_str()));
            let next = settings.len();
            let setting = *settings.entry(format!("{keys:?}")).or_insert(next);
            let folder = folder.join(RUNS_FOLDER).join(&run.name);
            let held_out = config.training.heldout && n_held_out > 0;
            runs.push(PlannedRun { name: run.name.clone(), config, folder, data: number, held_out, setting });
        }
        if let Some(other) = runs.iter().find(|run| run.config.execution.simd != runs[0].config.execution.simd) {
            let problem =
                format!("the runs {} and {} differ in `simd`, which holds for a whole sweep", runs[0].name, other.name);
            return Err(InputError::new(problem, "set it once, at the top").in_file(&grid.file).into());
        }
        let notes = data.iter().flat_map(SharedData::notes).collect();
        let columns = columns(grid, &runs);
        Ok(Self { folder, runs, data, n_settings: settings.len(), columns, notes })
    }
}

impl SharedData {
    fn notes(&self) -> Vec<String> {
        let read = self.read.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        read.as_ref().map_or_else(Vec::new, |read| read.notes.clone())
    }
}

/// Keys that describe a setting in the tables.
fn columns(grid: &Grid, runs: &[PlannedRun]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut values: HashMap<String, Vec<toml::Value>> = HashMap::new();
    for run in runs {
        for (key, value) in run.config.saved_keys() {
            if !order.contains(&key) {
                order.push(key.clone());
            }
            let known = values.entry(key).or_default();
            if !known.contains(&value) {
                known.push(value);
            }
        }
    }
    let named = |key: &String| grid.runs.iter().any(|run| run.named.contains(key));
    order.retain(|key| {
        let seed = SEED_KEYS.contains(&key.as_str());
        !seed && key != "method" && (named(key) || values[key].len() > 1)
    });
    // Keys of one method come after those of others in the order above; a configuration file's order is steadier.
    order.sort_by_key(|key| rank_of(key));
    order.insert(0, "method".to_owned());
    order
}

/// Whether a run has to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It is finished.
    Finished(Box<Figures>),
    /// There is nothing of it.
    Absent,
    /// There is something of it that does not count, for this reason.
    Unfinished(String),
}

/// What the folder of a run holds.
pub fn state(run: &PlannedRun) -> State {
    if !run.folder.is_dir() {
        return State::Absent;
    }
    match finished(run, &run.folder) {
        Ok(figures) => State::Finished(Box::new(figures)),
        Err(reason) => State::Unfinished(reason),
    }
}

fn finished(run: &PlannedRun, folder: &Path) -> std::result::Result<Figures, String> {
    for file in [ResultsFile::Metrics, ResultsFile::Config, ResultsFile::Model, ResultsFile::Latents] {
        if !file.within(folder).is_file() {
            return Err(format!("it did not finish ({} is missing)", file.name()));
        }
    }
    let saved = Settings::load(Some(&ResultsFile::Config.within(folder)), RawSettings::default())
        .map_err(|_| "its config.toml is damaged".to_owned())?;
    let (saved, wanted) = (saved.saved_keys(), run.config.saved_keys());
    let differs = |keys: &[(String, toml::Value)], others: &[(String, toml::Value)]| {
        keys.iter().find(|entry| !others.contains(entry)).map(|(key, _)| key.clone())
    };
    if let Some(key) = differs(&wanted, &saved).or_else(|| differs(&saved, &wanted)) {
        return Err(format!("its settings were other ones ({key})"));
    }
    let figures = Figures::read(folder).map_err(|_| "its metrics.json is damaged".to_owned())?;
    if figures.stop_reason == "non_finite" || (run.held_out && !figures.heldout) {
        return Err("it had failed".to_owned());
    }
    Ok(figures)
}
