//! From raw settings to checked ones: each value by its rule, then what two of them say together.

use std::path::Path;
use std::str::FromStr;

use crate::data::loading::options::LoadOptions;
use crate::data::simulate::{Simulation, SimulationKind};
use crate::error::{Error, Result};
use crate::model::architecture::{MaskKind, PosteriorCovariance};
use crate::model::method::Method;
use crate::settings::config::Settings;
use crate::settings::effect::without_effect;
use crate::settings::file;
use crate::settings::origin::Origin;
use crate::settings::ranges::{NumberRange, number, number_or_none, paths, seed, whole, whole_or_none};
use crate::settings::raw::{RawSettings, RawSimulation};

impl FromStr for Settings {
    type Err = Error;

    /// The settings in the text of a configuration file.
    ///
    /// # Errors
    /// [`crate::InputError`] naming the line of a key that is unknown, out of range or without effect.
    fn from_str(text: &str) -> Result<Self> {
        let (raw, origin) = file::parse(text, Path::new("settings"))?;
        raw.check(&origin)
    }
}

impl Default for Settings {
    fn default() -> Self {
        RawSettings::default().check(&Origin::default()).expect("the defaults are valid")
    }
}

impl Settings {
    /// Reads `file` if there is one, lays `flags` over it and checks the result.
    ///
    /// # Errors
    /// [`crate::InputError`] naming the file and line, or the flag, of the first setting that cannot be used.
    pub fn load(file: Option<&Path>, flags: RawSettings) -> Result<Self> {
        let flag_keys = flags.given_keys()?;
        let (from_file, mut origin) = match file {
            Some(path) => file::read(path)?,
            None => (RawSettings::default(), Origin::default()),
        };
        let raw = from_file.overlaid(flags)?;
        origin.flags = flag_keys;
        raw.check(&origin)
    }
}

impl RawSettings {
    /// The checked settings, those of the recipe filled in; errors point to where `origin` says that a key was given.
    pub(super) fn check(self, origin: &Origin) -> Result<Settings> {
        let given = self.given_keys()?;
        self.refuse_two_sources(&given, origin)?;
        let Self { mut data, model, training, execution, interruption, output, simulation } = self.over_recipe()?;
        let (path, further_data) = paths(origin.place("data"), data.data.take(), "a data file")?;
        let execution = execution.check(origin)?;
        let simulation = match path {
            Some(_) => None,
            None => Some(simulation.check_at(origin, execution.seed)?),
        };
        let mut config = Settings {
            data: path,
            input: LoadOptions { further_data, ..data.check(origin)? },
            model: model.check(origin)?,
            training: training.check(origin)?,
            execution,
            interruption: interruption.check(origin)?,
            output: output.check(origin)?,
            simulation,
        };
        let is_given = |key: &str| given.iter().any(|name| name == key);
        config.fit_model_to_method(origin, is_given)?;
        config.refuse_contradictions(origin)?;
        if let Some(unused) = without_effect(&config).find(|unused| is_given(unused.key)) {
            return Err(origin.error(unused.key, unused.problem, unused.remedy));
        }
        Ok(config)
    }

    /// Refuses two settings that each say which data, or which genes, are used.
    fn refuse_two_sources(&self, given: &[String], origin: &Origin) -> Result<()> {
        if let Some(key) = given.iter().find(|key| key.starts_with("simulation."))
            && self.data.data.is_some()
        {
            let remedy = "leave out either --data or the settings of the simulation";
            return Err(origin.error(key, "a simulation was asked for, but data are given", remedy));
        }
        if self.data.genes.is_some() && self.data.top_genes.is_some() {
            let problem = "a file of genes is given too, which says which genes are used";
            return Err(origin.error("top_genes", problem, "leave out either --genes or --top-genes"));
        }
        Ok(())
    }
}

impl Settings {
    /// Defaults and ranges that depend on the method or on the number of latents.
    fn fit_model_to_method(&mut self, origin: &Origin, is_given: impl Fn(&str) -> bool) -> Result<()> {
        let model = &mut self.model;
        if model.method == Method::BetaVae && !is_given("beta") {
            model.beta = 10.0;
        }
        if !model.method.trains_network() {
            self.training.heldout = false;
        }
        if model.method == Method::Svae && model.mask == MaskKind::Integrated {
            let problem = "the penalty of svae is on masks that are drawn";
            return Err(origin.error("mask", problem, "choose --mask hard or --mask soft, or --method svae-plus"));
        }
        // Without a spike-and-slab prior alpha is the weight of a penalty, which may be absent.
        let range = match model.method {
            Method::Svae => NumberRange::closed(0.0, 1e9),
            _ => NumberRange::above(0.0, 1e9),
        };
        if model.alpha.is_some() {
            number(1.0, range)(origin.place("alpha"), model.alpha)?;
        }
        if model.latents == 1 && model.posterior_covariance == Some(PosteriorCovariance::Full) {
            if is_given("posterior_covariance") {
                let problem = "a single latent has nothing to correlate with";
                return Err(origin.error("posterior_covariance", problem, "leave it out, or take more --latents"));
            }
            model.posterior_covariance = Some(PosteriorCovariance::Diagonal);
        }
        Ok(())
    }

    /// Refuses settings that cannot hold together.
    fn refuse_contradictions(&self, origin: &Origin) -> Result<()> {
        if self.interruption.resume && self.output.overwrite {
            let remedy = "leave out --overwrite to resume the run, or --resume to replace it";
            return Err(origin.error("resume", "a run cannot be both resumed and replaced", remedy));
        }
        if self.interruption.resume && self.output.out.is_none() {
            return Err(origin.error("resume", "it is not said which run is meant", "add --out DIR"));
        }
        Ok(())
    }
}

/// Most cells of a simulation.
const MOST_CELLS: usize = 100_000_000;

impl RawSimulation {
    /// The checked simulation; `seed` is used where the simulation has none of its own.
    ///
    /// # Errors
    /// [`crate::InputError`] naming the flag that is out of range.
    pub fn check(self, seed: u64) -> Result<Simulation> {
        self.check_at(&Origin::default(), seed)
    }

    fn check_at(self, origin: &Origin, default_seed: u64) -> Result<Simulation> {
        let at = |key| origin.place(key);
        let kind = self.kind.unwrap_or(SimulationKind::SparseShift);
        // An intervention of the `paper` simulator has up to three distinct targets.
        let fewest_latents = if kind == SimulationKind::Paper { 3 } else { 1 };
        let n_latents = whole(15, fewest_latents, 1000)(at("simulation.latents"), self.latents)?;
        let n_targeted_latents =
            whole_or_none(1, n_latents as i64)(at("simulation.targeted_latents"), self.targeted_latents)?;
        let share = || number_or_none(NumberRange::closed(0.0, 1.0));
        let simulation = Simulation {
            kind,
            n_interventions: whole(100, 2, 100_000)(at("simulation.interventions"), self.interventions)?,
            cells_per_intervention: whole(500, 1, 1_000_000)(at("simulation.cells"), self.cells)?,
            n_genes: whole(100, 2, 1_000_000)(at("simulation.genes"), self.genes)?,
            n_latents,
            n_targeted_latents,
            depth: whole_or_none(1, 10_000_000)(at("simulation.depth"), self.depth)?,
            shift: number_or_none(NumberRange::closed(0.0, 100.0))(at("simulation.shift"), self.shift)?,
            dispersion: number_or_none(NumberRange::closed(0.01, 1e6))(at("simulation.dispersion"), self.dispersion)?,
            together: share()(at("simulation.together"), self.together)?,
            n_batches: whole_or_none(2, 1000)(at("simulation.batches"), self.batches)?,
            escaped: share()(at("simulation.escaped"), self.escaped)?,
            n_controls: whole_or_none(0, MOST_CELLS as i64)(at("simulation.controls"), self.controls)?,
            n_combinations: whole_or_none(0, 10_000_000)(at("simulation.combinations"), self.combinations)?,
            interactions: share()(at("simulation.interactions"), self.interactions)?,
            n_doses: whole_or_none(1, 1000)(at("simulation.doses"), self.doses)?,
            seed: seed(default_seed)(at("simulation.seed"), self.seed)?,
        };
        if simulation.interactions.is_some() && simulation.n_combinations.is_none() {
            let problem = "there are no combinations that could interact";
            return Err(origin.error("simulation.interactions", problem, "leave it out, or add --sim-combinations N"));
        }
        let (a, c) = (simulation.n_interventions, simulation.cells_per_intervention);
        if simulation.n_cells() > MOST_CELLS {
            let controls = simulation.n_controls.map_or_else(String::new, |n| format!(" and {n} control cells"));
            let both = simulation.n_combinations.map_or_else(String::new, |n| format!(" and {n} combinations"));
            let problem = format!("{a} interventions{both} of {c} cells{controls} are {} cells", simulation.n_cells());
            let remedy = format!("simulate at most {MOST_CELLS} cells");
            return Err(origin.error("simulation.cells", problem, remedy));
        }
        if simulation.together.is_some() && n_targeted_latents.unwrap_or(n_latents) < 2 {
            let problem = "only one latent can be targeted, so no two are hit together";
            return Err(origin.error(
                "simulation.together",
                problem,
                "leave it out, or let 2 or more latents be targeted",
            ));
        }
        if simulation.escaped.is_some() && simulation.shift == Some(0.0) {
            let problem = "no intervention acts on any cell, so none can escape";
            return Err(origin.error(
                "simulation.escaped",
                problem,
                "leave it out, or ask for larger shifts (--sim-shift)",
            ));
        }
        Ok(simulation)
    }
}
