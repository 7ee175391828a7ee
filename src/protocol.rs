//! The held-out protocol on one page: fix the masks, train again, fit the held-out shifts, judge the held-out cells.
//!
//! Derivation: `derivations/heldout.md`.

use std::time::Instant;

use crate::config::HeldoutBatchNorm;
use crate::data::dataset::Dataset;
use crate::data::simulate::MixingNetwork;
use crate::error::{NonFinite, Result};
use crate::evaluation::held_out::{HeldOutCells, baselines, mean};
use crate::evaluation::oracle::oracle;
use crate::model::network::{Bound, Network};
use crate::model::objective::Objective;
use crate::numerics::real::Real;
use crate::numerics::team::Team;
use crate::report::metrics::{
    BaselineMetrics, BoundMetrics, HeldoutMetrics, HeldoutSeconds, InterventionMetrics, OracleMetrics,
    RetrainingMetrics, StageMetrics, grouped,
};
use crate::report::progress::{Progress, ProgressKind};
use crate::training::held_out;
use crate::training::trainer::{Training, TrainingSettings, evaluation_workspace, train};

/// What is held out of a screen, and how it is to be judged.
#[derive(Debug)]
pub struct Protocol<'a> {
    /// The screen.
    pub data: &'a Dataset,
    /// Cells that train.
    pub train: &'a [usize],
    /// Cells that validate.
    pub validation: &'a [usize],
    /// Held-out interventions, ascending.
    pub interventions: &'a [usize],
    /// Cells under any of them, ascending.
    pub cells: &'a [usize],
    /// The true decoder, where the screen was simulated in this process.
    pub mixing: Option<&'a MixingNetwork>,
    /// Objective of the first training.
    pub objective: Objective,
    /// Settings of the first training.
    pub settings: TrainingSettings,
    /// Samples per cell of the importance-weighted bound.
    pub particles: usize,
    /// Running statistics of batch normalisation during the fit.
    pub batch_norm: HeldoutBatchNorm,
    /// How progress is shown.
    pub progress: ProgressKind<'a>,
}

/// What the protocol finds.
#[derive(Debug)]
pub struct Adapted {
    /// Figures on the held-out cells.
    pub metrics: HeldoutMetrics,
    /// The second training.
    pub retraining: Training,
}

/// Bounds of the groups of held-out cells, and their mean.
#[derive(Debug, Clone)]
struct Bounds {
    iwelbo: Vec<f64>,
    elbo: Vec<f64>,
    mean: BoundMetrics,
}

impl Protocol<'_> {
    /// Takes a network from the end of its training through the protocol; it holds the fitted model then.
    ///
    /// # Errors
    /// A second training or a fit that ends in values which are not finite; what cannot be fitted to no cells; counts on
    /// disk that cannot be read.
    pub fn run<R: Real>(&self, team: &Team, network: &mut Network<R>) -> Result<Adapted> {
        let mut seconds = HeldoutSeconds::default();
        let groups = HeldOutCells::new(self.data, self.cells, self.interventions);
        let before = timed(&mut seconds.bounds, || self.bounds(team, network, &groups, "before binarisation"))?;

        held_out::forget(network, self.interventions);
        network.freeze_masks();
        let settings = held_out::retraining_settings(&self.settings);
        let objective = held_out::fixed_objective(&self.objective, self.train.len());
        let mut progress = Progress::of_stage(self.progress, "retraining", settings.epochs, self.train.len());
        let retraining =
            train(team, network, self.data, self.train, self.validation, &objective, &settings, |record| {
                progress.epoch(record);
            })?;
        progress.finish();
        seconds.retraining = retraining.seconds;
        if let Some(non_finite) = retraining.non_finite {
            return Err(non_finite.into());
        }
        let retrained = timed(&mut seconds.bounds, || self.bounds(team, network, &groups, "after retraining"))?;

        let fitted = if network.tensors.shift.is_some() {
            timed(&mut seconds.fitting, || self.fit(team, network))?;
            timed(&mut seconds.bounds, || self.bounds(team, network, &groups, "after fitting"))?
        } else {
            retrained.clone()
        };
        let ended = RetrainingMetrics { epochs: retraining.history.len(), stop_reason: retraining.stop_reason };
        let batch_norm = network.tensors.shift.is_some().then_some(self.batch_norm);
        let stages = [Some(before), Some(retrained), Some(fitted)];
        let metrics = self.metrics(team, groups, stages, Some(ended), batch_norm, seconds)?;
        Ok(Adapted { metrics, retraining })
    }

    /// Judges a model that has been through the protocol: `trained` as after the first training, `fitted` at the end.
    ///
    /// # Errors
    /// Baselines that cannot be fitted; counts on disk that cannot be read.
    pub fn judge<R: Real>(&self, team: &Team, trained: &Network<R>, mut fitted: Network<R>) -> Result<HeldoutMetrics> {
        let mut seconds = HeldoutSeconds::default();
        let groups = HeldOutCells::new(self.data, self.cells, self.interventions);
        fitted.freeze_masks();
        let mut of =
            |network: &Network<R>, stage| timed(&mut seconds.bounds, || self.bounds(team, network, &groups, stage));
        let before = of(trained, "before binarisation")?;
        let after = of(&fitted, "after fitting")?;
        let batch_norm = fitted.tensors.shift.is_some().then_some(self.batch_norm);
        let retrained = match batch_norm {
            None => Some(after.clone()),
            // The fit changed the held-out shifts and nothing else; before it they were 0.
            Some(HeldoutBatchNorm::Frozen) => {
                held_out::set_shifts(&mut fitted, self.interventions, R::ZERO);
                Some(of(&fitted, "after retraining")?)
            }
            Some(HeldoutBatchNorm::Drift) => None,
        };
        self.metrics(team, groups, [Some(before), retrained, Some(after)], None, batch_norm, seconds)
    }

    /// Fits the shifts of the held-out interventions.
    fn fit<R: Real>(&self, team: &Team, network: &mut Network<R>) -> Result<()> {
        let objective = held_out::fixed_objective(&self.objective, self.cells.len());
        let settings = held_out::fit_settings(&self.settings, self.cells.len());
        match self.batch_norm {
            HeldoutBatchNorm::Frozen => {
                let mut workspace = evaluation_workspace(network, self.data);
                let posterior = network.posterior(team, &mut workspace, self.data, self.cells)?;
                held_out::fit_shifts(
                    team,
                    network,
                    self.data,
                    self.cells,
                    &posterior,
                    self.interventions,
                    &objective,
                    &settings,
                );
                if let Some(name) = network.parameters.first_non_finite() {
                    let tensor = format!("parameter `{name}`, fitted to held-out cells,");
                    return Err(NonFinite { epoch: settings.epochs, step: 1, tensor }.into());
                }
            }
            HeldoutBatchNorm::Drift => {
                let mut progress = Progress::of_stage(self.progress, "fitting", settings.epochs, self.cells.len());
                let training = held_out::fit_shifts_drifting(
                    team,
                    network,
                    self.data,
                    self.cells,
                    self.interventions,
                    &objective,
                    &settings,
                    |record| progress.epoch(record),
                )?;
                progress.finish();
                if let Some(non_finite) = training.non_finite {
                    return Err(non_finite.into());
                }
            }
        }
        Ok(())
    }

    fn bounds<R: Real>(
        &self,
        team: &Team,
        network: &Network<R>,
        groups: &HeldOutCells,
        stage: &'static str,
    ) -> Result<Bounds> {
        let cells = groups.cells();
        if !cells.is_empty() {
            let (n, particles) = (grouped(cells.len() as u64), grouped(self.particles as u64));
            Progress::of_stage(self.progress, stage, 0, 0)
                .note(&format!("held-out bounds {stage}: {n} cells x {particles} samples"));
        }
        let mut workspace = evaluation_workspace(network, self.data);
        let posterior = network.posterior(team, &mut workspace, self.data, &cells)?;
        let bounds =
            network.bounds(team, &mut workspace, self.data, &cells, &posterior, self.particles, self.settings.seed)?;
        let means = |of: fn(&Bound) -> f64| groups.means(&bounds.iter().map(of).collect::<Vec<f64>>());
        let (iwelbo, elbo) = (means(|bound| bound.iwelbo), means(|bound| bound.elbo));
        let mean = BoundMetrics { nll_iwelbo: mean(&iwelbo), elbo: mean(&elbo) };
        Ok(Bounds { iwelbo, elbo, mean })
    }

    fn metrics(
        &self,
        team: &Team,
        groups: HeldOutCells,
        [before, retrained, fitted]: [Option<Bounds>; 3],
        retraining: Option<RetrainingMetrics>,
        batch_norm: Option<HeldoutBatchNorm>,
        mut seconds: HeldoutSeconds,
    ) -> Result<HeldoutMetrics> {
        let (before, fitted) = (before.expect("the first stage"), fitted.expect("the last stage"));
        let start = Instant::now();
        let (mut baseline, mut floor) = (None, None);
        if !groups.groups.is_empty() {
            let found = baselines(team, self.data, self.train, &groups)?;
            baseline = Some(BaselineMetrics {
                pooled_negative_binomial: found.pooled,
                per_intervention_negative_binomial: found.per_intervention,
            });
            floor = self.mixing.and_then(|mixing| oracle(team, self.data, mixing, &groups.groups, self.settings.seed));
        }
        seconds.baselines = start.elapsed().as_secs_f64();
        let per_intervention = groups.groups.iter().zip(fitted.iwelbo.iter().zip(&fitted.elbo));
        Ok(HeldoutMetrics {
            nll_iwelbo: fitted.mean.nll_iwelbo,
            elbo: fitted.mean.elbo,
            particles: self.particles,
            n_interventions: groups.groups.len(),
            batch_norm,
            stages: StageMetrics {
                before_binarisation: before.mean,
                after_retraining: retrained.map(|bounds| bounds.mean),
                after_fitting: fitted.mean,
            },
            baseline,
            oracle: floor.map(|o| OracleMetrics { nll: o.nll, n_cells: o.cells, particles: o.particles }),
            per_intervention: per_intervention
                .map(|(group, (&nll_iwelbo, &elbo))| InterventionMetrics {
                    intervention: group.name.clone(),
                    n_cells: group.cells.len(),
                    nll_iwelbo,
                    elbo,
                })
                .collect(),
            left_out: groups.left_out,
            retraining,
            seconds,
        })
    }
}

/// Adds the time that `work` takes to `seconds`.
fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *seconds += start.elapsed().as_secs_f64();
    result
}
