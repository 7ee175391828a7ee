//! Checked settings: every value is in its range and every setting takes effect.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::data::combinations::{joint_label, joint_sets, parse_combination};
use crate::data::dataset::InterventionRows;
use crate::data::loading::controls::names_control;
use crate::data::loading::options::LoadOptions;
use crate::data::simulate::Simulation;
use crate::data::split::HeldOut;
use crate::error::{Error, InputError, Result};
use crate::model::architecture::{MaskKind, PosteriorCovariance};
use crate::model::method::Method;
use crate::settings::raw::{ExecutionKeys, InterruptionKeys, ModelKeys, OutputKeys, TrainingKeys};
use crate::system::interruption::{Interval, SaveSchedule};
use crate::words::{nearest, rejoined};

/// Where the cells come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source<'a> {
    /// A file.
    File(&'a Path),
    /// A simulation.
    Simulation(&'a Simulation),
}

/// Keys whose default depends on the data: [`Settings::resolved`] fills them in.
pub(crate) const KEYS_BY_DATA: [&str; 9] = [
    "hidden",
    "posterior_covariance",
    "batch_size",
    "learning_rate",
    "epochs",
    "warmup_epochs",
    "retraining_epochs",
    "alpha",
    "holdout",
];

/// Training cells from which on a screen has many, where masks are integrated out.
const MANY_CELLS: usize = 18_000;

/// Size of a network and of the steps of its training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Covariance of the latents in a cell's posterior.
    pub posterior_covariance: PosteriorCovariance,
    /// Cells per minibatch.
    pub batch_size: usize,
    /// Adam's step size.
    pub learning_rate: f64,
}

/// Checked settings: every value is in its range and every setting takes effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// Data file; `None` when simulated. Relative to the working directory.
    pub data: Option<PathBuf>,
    /// Which cells, genes and annotations of it are read, and how.
    #[serde(flatten)]
    pub input: LoadOptions,
    /// The model. `alpha`: `None` is the number of interventions (see [`Settings::alpha_for`]); `hidden`, `posterior_covariance`: `None`
    /// leaves it to the number of training cells (see [`Settings::capacity_for`]).
    #[serde(flatten)]
    pub model: ModelKeys,
    /// The training. `holdout`: `None` is the default of the data (see [`Settings::held_out`]); `epochs`, `batch_size`,
    /// `learning_rate`: `None` leaves it to the number of training cells (see [`Settings::epochs_for`], [`Settings::capacity_for`]).
    #[serde(flatten)]
    pub training: TrainingKeys,
    /// Seed and threads; `None` is as many threads as the machine allows (see [`Settings::n_threads`]).
    #[serde(flatten)]
    pub execution: ExecutionKeys,
    /// Stopping early and going on.
    #[serde(flatten)]
    pub interruption: InterruptionKeys,
    /// Results and messages.
    #[serde(flatten)]
    pub output: OutputKeys,
    /// The simulation; `None` when data are read. Exactly one of `data` and `simulation` is set.
    pub simulation: Option<Simulation>,
}

impl Settings {
    /// Where the cells come from.
    pub fn source(&self) -> Source<'_> {
        match (&self.data, &self.simulation) {
            (Some(path), _) => Source::File(path),
            (None, Some(simulation)) => Source::Simulation(simulation),
            (None, None) => unreachable!("checked settings have data or a simulation"),
        }
    }

    /// Whether any covariate was named, or simulated.
    pub fn has_covariates(&self) -> bool {
        self.simulation.as_ref().is_some_and(|simulation| simulation.n_batches.is_some())
            || self.input.batch_key.is_some()
            || !self.input.categorical_covariates.is_empty()
            || !self.input.continuous_covariates.is_empty()
    }

    /// Sparsity of the mask for data with `n_interventions` interventions.
    pub fn alpha_for(&self, n_interventions: usize) -> f64 {
        self.model.alpha.unwrap_or(n_interventions as f64)
    }

    /// Largest number of epochs on `n_training` cells: as set, else 500, or more on a small screen.
    ///
    /// 500 is the larger of the two numbers that the paper chooses from.
    /// Adam moves a mask logit by about the learning rate a step, and logits start at 5: at a rate of 1e-3 no mask can
    /// switch off before 5,000 steps. A small screen gets enough epochs for 20,000 steps.
    ///
    /// Where masks are integrated out, the evidence sets them, and 8,000 steps are enough, or more for more than
    /// 20 latents (`docs/recipe.md`).
    pub fn epochs_for(&self, n_training: usize) -> usize {
        let (fewest, steps) = match self.model.integrates_mask() {
            true if n_training >= MANY_CELLS => (30, self.by_latents(8000)),
            true => (120, self.by_latents(8000)),
            false => (500, 20_000),
        };
        let enough = steps.div_ceil(self.steps_per_epoch(n_training));
        self.training.epochs.unwrap_or_else(|| usize::max(fewest, enough))
    }

    /// Epochs of the second training on `n_training` cells: as set, else those of the first, or a third of them where masks are
    /// integrated out (a ninth where cells are many): it starts from weights that know the edges.
    pub fn retraining_epochs_for(&self, n_training: usize) -> usize {
        let share = match self.model.integrates_mask() {
            true if n_training >= MANY_CELLS => 9,
            true => 3,
            false => 1,
        };
        self.training.retraining_epochs.unwrap_or_else(|| self.epochs_for(n_training).div_ceil(share))
    }

    /// Epochs of the warm-up on `n_training` cells: as set, else 50.
    ///
    /// Where masks are integrated out, as many as 1,200 steps take (more for more than 20 latents): in a shorter warm-up latents that matter are lost, in a longer one
    /// those that do not are kept.
    pub fn warmup_epochs_for(&self, n_training: usize) -> usize {
        let by_steps = || match self.model.integrates_mask() {
            true => self.by_latents(1200).div_ceil(self.steps_per_epoch(n_training)),
            false => 50,
        };
        self.training.warmup_epochs.unwrap_or_else(by_steps)
    }

    /// Steps that `of_20` become with more than 20 latents: more by the square of their number.
    fn by_latents(&self, of_20: usize) -> usize {
        of_20 * self.model.latents.max(20).pow(2) / 400
    }

    fn steps_per_epoch(&self, n_training: usize) -> usize {
        n_training.div_ceil(self.capacity_for(n_training).batch_size).max(1)
    }

    /// Size of the network and of its steps on `n_training` cells: as set, else that of the published code.
    ///
    /// Where masks are integrated out and cells are many, a wider network and a full covariance recover latents better; on fewer cells
    /// they lose axes (`docs/recipe.md`).
    pub fn capacity_for(&self, n_training: usize) -> Capacity {
        let (model, training) = (&self.model, &self.training);
        let integrates = model.integrates_mask();
        let (hidden, covariance, batch_size, learning_rate) = match integrates && n_training >= MANY_CELLS {
            true if model.latents > 1 => (256, PosteriorCovariance::Full, 512, 0.004),
            true => (256, PosteriorCovariance::Diagonal, 512, 0.004),
            false => (128, PosteriorCovariance::Diagonal, 128, if integrates { 0.002 } else { 0.001 }),
        };
        Capacity {
            hidden: model.hidden.unwrap_or(hidden),
            posterior_covariance: model.posterior_covariance.unwrap_or(covariance),
            batch_size: training.batch_size.unwrap_or(batch_size),
            learning_rate: training.learning_rate.unwrap_or(learning_rate),
        }
    }

    /// Epochs, of `epochs`, after which only the best of several starts goes on; `None`: each is trained to its end.
    pub fn trial_epochs(&self, epochs: usize) -> Option<usize> {
        let trial = ((self.training.trial_share * epochs as f64).round() as usize).max(1);
        (self.training.starts > 1 && trial < epochs).then_some(trial)
    }

    /// Refuses what only a network can do, such as "normalisation".
    ///
    /// # Errors
    /// [`InputError`] for a method that trains none.
    pub fn refuse_without_network(&self, what: &str) -> std::result::Result<(), InputError> {
        if self.model.method.trains_network() {
            return Ok(());
        }
        let problem = format!("{what} is not offered for the linear model (method {})", self.model.method.name());
        Err(InputError::new(problem, "train a network, for example with --method svae-plus"))
    }

    /// Whether combinations may deviate from the sums of their members in the training.
    pub fn learns_interactions(&self) -> bool {
        self.training.learn_interactions && self.model.integrates_mask()
    }

    /// Number of threads: as set, else `RAYON_NUM_THREADS`, else what the operating system grants the process.
    pub fn n_threads(&self) -> usize {
        threads_or_all(self.execution.threads)
    }
}

/// `threads`, else `RAYON_NUM_THREADS`, else what the operating system grants the process.
pub fn threads_or_all(threads: Option<usize>) -> usize {
    threads
        .or_else(|| std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok().filter(|&n| n > 0))
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

impl Settings {
    /// What is held out of a screen whose interventions are called `intervention_names` and whose cells have these `rows` of them.
    ///
    /// A label names an intervention, or a combination by its members in any order; `combinations:SHARE` is a share of the
    /// combinations. Where nothing was said, a simulation holds out its last fifth of interventions, or a quarter of its
    /// combinations if it has any, and a data file holds out none.
    ///
    /// # Errors
    /// [`InputError`] for a label that the data do not have (with the nearest one), or when nothing is left to train on.
    pub fn held_out(&self, intervention_names: &[String], rows: &InterventionRows) -> Result<HeldOut> {
        let n = intervention_names.len();
        let Some(labels) = &self.training.holdout else {
            return Ok(match &self.simulation {
                Some(simulation) if simulation.n_combinations.unwrap_or(0) > 0 => {
                    let seed = self.execution.seed;
                    HeldOut::share_of_combinations(rows, intervention_names, USUAL_SHARE, seed)
                }
                Some(_) => HeldOut { interventions: (n - n / 5..n).collect(), ..HeldOut::default() },
                None => HeldOut::default(),
            });
        };
        let sets = if labels.is_empty() { BTreeSet::new() } else { joint_sets(rows) };
        let mut held_out = HeldOut::default();
        // Names may have commas, at which the list was cut.
        let number = |name: &str| intervention_names.iter().position(|known| known == name);
        let is_control = |name: &str| names_control(&self.input.control, name);
        let is_known = |label: &str| number(label).is_some() || parse_combination(label, number, is_control).is_ok();
        for label in &rejoined(labels, is_known) {
            let position = |label: &str| intervention_names.iter().position(|name| name == label);
            // "A, B" on the command line means the labels "A" and "B"; a label's own blanks come first.
            if let Some(a) = position(label).or_else(|| position(label.trim())) {
                held_out.interventions.push(a);
            } else if let Some(share) = label.trim().strip_prefix(SHARE_OF_COMBINATIONS) {
                let share = self.share_of_combinations(share, sets.len())?;
                let seed = self.execution.seed;
                let chosen = HeldOut::share_of_combinations(rows, intervention_names, share, seed);
                held_out.combinations.extend(chosen.combinations);
            } else {
                let members = self.members(label, intervention_names)?;
                if !sets.contains(&members) {
                    return Err(self.no_such_combination(label, intervention_names, sets.iter()));
                }
                held_out.combinations.insert(members);
            }
        }
        held_out.interventions.sort_unstable();
        held_out.interventions.dedup();
        if held_out.interventions.len() == n {
            return Err(self.in_data(
                InputError::new("every intervention is held out", "leave some in to train on").at("holdout"),
            ));
        }
        Ok(held_out)
    }

    /// The share in `combinations:SHARE`, of so many combinations.
    fn share_of_combinations(&self, text: &str, n_combinations: usize) -> Result<f64> {
        let refused = |problem: String, remedy: &str| Err(self.in_data(InputError::new(problem, remedy).at("holdout")));
        match text.trim().parse::<f64>() {
            Ok(share) if share > 0.0 && share <= 1.0 => match n_combinations {
                0 => refused(
                    "no cell is under several interventions, so no combination can be held out".to_owned(),
                    "name interventions, or say how labels join several of them",
                ),
                _ => Ok(share),
            },
            _ => refused(
                format!("\"{text}\" is no share of the combinations"),
                "give a number above 0, up to 1, as in combinations:0.25",
            ),
        }
    }

    /// The members of the combination that a label of --holdout names.
    fn members(&self, label: &str, names: &[String]) -> Result<Vec<u32>> {
        let number = |name: &str| names.iter().position(|known| known == name);
        let is_control = |name: &str| names_control(&self.input.control, name);
        parse_combination(label, number, is_control).map(|row| row.into_iter().map(|(a, _)| a).collect()).map_err(
            |unknown| {
                let remedy = match nearest(&unknown, names.iter().map(String::as_str)) {
                    Some(name) => format!("did you mean \"{name}\"?"),
                    None => {
                        format!("the data have {} interventions, the first of them \"{}\"", names.len(), first(names))
                    }
                };
                self.in_data(
                    InputError::new(format!("no cell has the label \"{label}\" that --holdout names"), remedy)
                        .at("holdout"),
                )
            },
        )
    }

    fn no_such_combination<'a>(
        &self,
        label: &str,
        names: &[String],
        sets: impl Iterator<Item = &'a Vec<u32>>,
    ) -> Error {
        let labels: Vec<String> = sets.map(|set| joint_label(names, set)).collect();
        let remedy = match nearest(label, labels.iter().map(String::as_str)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if labels.is_empty() => "say how labels join several interventions".to_owned(),
            None => format!("the data have {} combinations, the first of them \"{}\"", labels.len(), first(&labels)),
        };
        self.in_data(
            InputError::new(format!("no cell has the combination \"{label}\" that --holdout names"), remedy)
                .at("holdout"),
        )
    }

    /// The same settings with the defaults that depend on the data filled in: those of [`Settings::capacity_for`], `epochs`,
    /// `retraining_epochs`, `alpha` (where the method has one) and `holdout`.
    ///
    /// # Errors
    /// As [`Settings::held_out`].
    pub fn resolved(&self, intervention_names: &[String], rows: &InterventionRows, n_training: usize) -> Result<Self> {
        let held_out = self.held_out(intervention_names, rows)?;
        let mut config = self.clone();
        if self.model.method.learns_mask() && !self.model.integrates_mask() {
            config.model.alpha = Some(self.alpha_for(intervention_names.len()));
        }
        if self.model.method.trains_network() {
            let Capacity { hidden, posterior_covariance, batch_size, learning_rate } = self.capacity_for(n_training);
            config.model.hidden = Some(hidden);
            config.model.posterior_covariance = Some(posterior_covariance);
            config.training.batch_size = Some(batch_size);
            config.training.learning_rate = Some(learning_rate);
            config.training.epochs = Some(self.epochs_for(n_training));
            config.training.warmup_epochs = Some(self.warmup_epochs_for(n_training));
        }
        if self.training.heldout {
            config.training.retraining_epochs = Some(self.retraining_epochs_for(n_training));
        }
        let single = held_out.interventions.iter().map(|&a| intervention_names[a].clone());
        let joint = held_out.combinations.iter().map(|set| joint_label(intervention_names, set));
        config.training.holdout = Some(single.chain(joint).collect());
        Ok(config)
    }

    fn in_data(&self, error: InputError) -> Error {
        match &self.data {
            Some(path) => error.in_file(path).into(),
            None => error.into(),
        }
    }
}

/// How a label of --holdout begins that is a share of the combinations.
const SHARE_OF_COMBINATIONS: &str = "combinations:";
/// The share of a simulation's combinations that is held out where nothing is said.
const USUAL_SHARE: f64 = 0.25;

fn first(names: &[String]) -> &str {
    names.first().map_or("", String::as_str)
}

impl ModelKeys {
    /// Whether masks are integrated out of the divergence and follow the evidence, rather than being drawn.
    pub fn integrates_mask(&self) -> bool {
        self.method == Method::SvaePlus && self.mask == MaskKind::Integrated
    }

    /// Whether every edge is weighed by its evidence, so that the graph has a false discovery rate.
    pub fn weighs_edges(&self) -> bool {
        self.integrates_mask() || self.method == Method::Pca
    }
}

impl InterruptionKeys {
    /// When to save and when to stop a run of a process that began at `start`.
    pub fn save_schedule(&self, start: Instant) -> SaveSchedule {
        let every = match self.checkpoint_every {
            0.0 => Interval::Epoch,
            minutes => Interval::Time(Duration::from_secs_f64(60.0 * minutes)),
        };
        SaveSchedule::new(every, self.time_limit.map(|limit| start + limit.0))
    }
}
