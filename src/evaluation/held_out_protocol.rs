//! The held-out protocol: fix the masks, train again, fit the held-out shifts, judge the held-out cells.
//!
//! Derivation: `derivations/heldout.md`.

use std::time::Instant;

use crate::checkpoint::ResumableRun;
use crate::checkpoint::encoding::{ByteReader, DecodeError, Encode, encode_fields};
use crate::data::dataset::Dataset;
use crate::data::mixing::GeneratingModel;
use crate::error::{NonFinite, Result};
use crate::evaluation::correlation::Correlation;
use crate::evaluation::held_out::{HeldOutCells, baselines, mean};
use crate::evaluation::metrics::{
    BaselineMetrics, BoundMetrics, HeldoutMetrics, HeldoutSeconds, InterventionMetrics, OracleMetrics, RecoveryMetrics,
    RetrainingMetrics, StageMetrics,
};
use crate::evaluation::oracle::oracle;
use crate::evaluation::recovery::Recovery;
use crate::inference::bounds::BoundsRequest;
use crate::inference::{Inference, evaluation_workspace};
use crate::model::network::Network;
use crate::model::objective::Objective;
use crate::model::particles::{Bound, Samples};
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::system::interruption::Boundary;
use crate::training::observer::Observer;
use crate::training::shift_fit::{self, HeldoutBatchNorm};
use crate::training::snapshot::Snapshot;
use crate::training::stage::train_stage;
use crate::training::trainer::{Training, TrainingSettings, TrainingTask};
use crate::words::grouped;

/// Name of the second training.
const RETRAINING: &str = "retraining";
/// Name of the fit of the held-out shifts.
const FITTING: &str = "fitting";
/// When bounds are estimated.
const BEFORE: &str = "before binarisation";
const RETRAINED: &str = "after retraining";
const FITTED: &str = "after fitting";
/// The last two at once.
const BOTH: &str = "after retraining and after fitting";

/// What is held out of a screen, and how it is to be judged.
#[derive(Debug)]
pub struct Protocol<'a> {
    /// The screen.
    pub data: &'a Dataset,
    /// Cells that train.
    pub train: &'a [usize],
    /// Cells that validate.
    pub validation: &'a [usize],
    /// Interventions without a training cell, ascending.
    pub interventions: &'a [usize],
    /// Held-out cells, under any of them or under a held-out combination; ascending.
    pub cells: &'a [usize],
    /// The model that the screen was drawn from, where it was simulated in this process.
    pub generating: Option<&'a GeneratingModel>,
    /// Objective of the first training.
    pub objective: Objective,
    /// Settings of the first training.
    pub settings: TrainingSettings,
    /// Samples per cell of the importance-weighted bound.
    pub particles: usize,
    /// Running statistics of batch normalisation during the fit.
    pub batch_norm: HeldoutBatchNorm,
}

/// What the protocol finds.
#[derive(Debug)]
pub struct HeldOutFit {
    /// Figures on the held-out cells.
    pub metrics: HeldoutMetrics,
    /// The second training; `None` where nothing had to be fitted.
    pub retraining: Option<Training>,
}

encode_fields! {
    Bound { iwelbo, elbo }
}

/// Bounds of the held-out cells after the stages of the protocol.
struct StageBounds {
    before: Bounds,
    /// Not known of a fitted model that is read.
    retrained: Option<Bounds>,
    fitted: Bounds,
}

/// Bounds of the groups of held-out cells, and their mean.
#[derive(Debug, Clone)]
struct Bounds {
    /// Mean of the importance-weighted bound over the cells of all groups.
    iwelbo_by_cell: f64,
    iwelbo: Vec<f64>,
    elbo: Vec<f64>,
    mean: BoundMetrics,
}

impl Protocol<'_> {
    /// Takes a network from the end of its training through the protocol; it holds the fitted model then. Stages whose
    /// result the run holds are not done again. Where every held-out combination has known members alone, nothing is fitted:
    /// the network is judged as it is (see [`Protocol::judge_unfitted`]).
    ///
    /// # Errors
    /// A second training or a fit that ends in values which are not finite; what cannot be fitted to no cells; counts on
    /// disk that cannot be read; as [`ResumableRun::checkpoint_if_due`].
    pub fn run<R: Real>(
        &self,
        team: &Team,
        network: &mut Network<R>,
        run: &mut ResumableRun<'_>,
        observer: &mut dyn Observer,
    ) -> Result<HeldOutFit> {
        if self.interventions.is_empty() {
            return Ok(HeldOutFit { metrics: self.judge_unfitted(team, network, run, observer)?, retraining: None });
        }
        let mut steps = self.steps(team, run, observer);
        let [before] = steps.bounds(network, [network], BEFORE)?;
        let retraining = steps.retrain(network)?;
        let (retrained, fitted) = match network.tensors.shift.as_ref().map(|_| self.batch_norm) {
            None => {
                let [bounds] = steps.bounds(network, [network], RETRAINED)?;
                (bounds.clone(), bounds)
            }
            Some(HeldoutBatchNorm::Frozen) => {
                steps.fit(network)?;
                let [retrained, fitted] = steps.bounds(network, [&self.unfitted(network), network], BOTH)?;
                (retrained, fitted)
            }
            // The fit changes the encoder's statistics and with them the samples.
            Some(HeldoutBatchNorm::Drift) => {
                let [retrained] = steps.bounds(network, [network], RETRAINED)?;
                steps.fit(network)?;
                let [fitted] = steps.bounds(network, [network], FITTED)?;
                (retrained, fitted)
            }
        };
        steps.run.check()?;
        let metrics =
            steps.metrics(network, StageBounds { before, retrained: Some(retrained), fitted }, Some(&retraining))?;
        Ok(HeldOutFit { metrics, retraining: Some(retraining) })
    }

    /// Judges a trained network on combinations of interventions that it knows: their shifts add up, Eq. (Cb1), and nothing is
    /// fitted.
    ///
    /// # Errors
    /// As [`Protocol::judge`].
    pub fn judge_unfitted<R: Real>(
        &self,
        team: &Team,
        trained: &Network<R>,
        run: &mut ResumableRun<'_>,
        observer: &mut dyn Observer,
    ) -> Result<HeldoutMetrics> {
        let mut steps = self.steps(team, run, observer);
        let [before] = steps.bounds(trained, [trained], BEFORE)?;
        steps.metrics(trained, StageBounds { fitted: before.clone(), before, retrained: None }, None)
    }

    /// Judges a model that has been through the protocol: `trained` as after the first training, `fitted` at the end.
    ///
    /// # Errors
    /// Baselines that cannot be fitted; counts on disk that cannot be read; as [`ResumableRun::checkpoint_if_due`].
    pub fn judge<R: Real>(
        &self,
        team: &Team,
        trained: &Network<R>,
        mut fitted: Network<R>,
        run: &mut ResumableRun<'_>,
        observer: &mut dyn Observer,
    ) -> Result<HeldoutMetrics> {
        let mut steps = self.steps(team, run, observer);
        fitted.prior_mut().freeze();
        let [before] = steps.bounds(trained, [trained], BEFORE)?;
        let (retrained, after) = match fitted.tensors.shift.as_ref().map(|_| self.batch_norm) {
            Some(HeldoutBatchNorm::Frozen) => {
                let [retrained, after] = steps.bounds(&fitted, [&self.unfitted(&fitted), &fitted], BOTH)?;
                (Some(retrained), after)
            }
            Some(HeldoutBatchNorm::Drift) => {
                let [after] = steps.bounds(&fitted, [&fitted], FITTED)?;
                (None, after)
            }
            None => {
                let [after] = steps.bounds(&fitted, [&fitted], FITTED)?;
                (Some(after.clone()), after)
            }
        };
        steps.metrics(&fitted, StageBounds { before, retrained, fitted: after }, None)
    }

    fn steps<'s, 'r>(
        &'s self,
        team: &'s Team<'s>,
        run: &'s mut ResumableRun<'r>,
        observer: &'s mut dyn Observer,
    ) -> Steps<'s, 'r> {
        let groups = HeldOutCells::new(self.data, self.cells, self.interventions);
        Steps { protocol: self, team, run, observer, groups, seconds: HeldoutSeconds::default() }
    }

    /// A network as it was before its held-out shifts were fitted without a change of anything else: they were 0.
    fn unfitted<R: Real>(&self, fitted: &Network<R>) -> Network<R> {
        let mut unfitted = fitted.clone();
        unfitted.prior_mut().set_shifts(self.interventions, R::ZERO);
        unfitted
    }

    /// How well the latents of the trained interventions' cells are recovered, where the truth is known.
    fn recovered<R: Real>(&self, team: &Team, network: &Network<R>) -> Result<Option<RecoveryMetrics>> {
        if self.data.truth.is_none() {
            return Ok(None);
        }
        let all: Vec<usize> = (0..self.data.n_cells()).collect();
        let mut workspace = evaluation_workspace(network, self.data);
        let mut inference = Inference { team, network, data: self.data, workspace: &mut workspace };
        let means = inference.posterior_means(&all)?;
        let is_trained = |a: usize| !self.interventions.contains(&a);
        let found = Recovery::new(self.data, &means, network.architecture.n_latents, is_trained);
        Ok(found.map(|found| RecoveryMetrics {
            mcc_pearson: found.mcc(team, Correlation::Pearson).mean,
            mcc_spearman: found.mcc(team, Correlation::Spearman).mean,
            r2: found.r2(),
        }))
    }
}

/// The protocol under way.
struct Steps<'s, 'r> {
    protocol: &'s Protocol<'s>,
    team: &'s Team<'s>,
    run: &'s mut ResumableRun<'r>,
    observer: &'s mut dyn Observer,
    groups: HeldOutCells,
    /// Seconds spent so far.
    seconds: HeldoutSeconds,
}

impl Steps<'_, '_> {
    /// Forgets the held-out interventions, fixes the masks and trains again.
    fn retrain<R: Real>(&mut self, network: &mut Network<R>) -> Result<Training> {
        let Protocol { data, train, validation, interventions, .. } = *self.protocol;
        network.prior_mut().forget(interventions);
        network.prior_mut().freeze();
        let settings = &shift_fit::retraining_settings(&self.protocol.settings);
        let objective = &shift_fit::fixed_objective(&self.protocol.objective, train.len());
        let task = TrainingTask { data, train, validation, objective, settings };
        let retraining = train_stage(self.run, RETRAINING, self.team, network, task, None, self.observer)?;
        self.seconds.retraining = retraining.seconds;
        match retraining.non_finite {
            Some(non_finite) => Err(non_finite.into()),
            None => Ok(retraining),
        }
    }

    /// Fits the shifts of the held-out interventions.
    fn fit<R: Real>(&mut self, network: &mut Network<R>) -> Result<()> {
        let load = |input: &mut ByteReader<'_>| -> std::result::Result<(Snapshot<R>, f64), DecodeError> {
            let mut fitted = Snapshot::of(network);
            fitted.load(input)?;
            Ok((fitted, f64::decode(input)?))
        };
        if let Some((fitted, seconds)) = self.run.saved_result(FITTING, load)? {
            fitted.restore(network);
            self.seconds.fitting = seconds;
            return Ok(());
        }
        let start = Instant::now();
        let Protocol { data, cells, interventions, .. } = *self.protocol;
        let objective = &shift_fit::fixed_objective(&self.protocol.objective, cells.len());
        let settings = &shift_fit::fit_settings(&self.protocol.settings, cells.len());
        let task = TrainingTask { data, train: cells, validation: &[], objective, settings };
        match self.protocol.batch_norm {
            HeldoutBatchNorm::Frozen => {
                self.observer.stage(FITTING, settings.epochs, cells.len());
                self.observer.stage_ended();
                let mut workspace = evaluation_workspace(network, data);
                let mut inference = Inference { team: self.team, network: &*network, data, workspace: &mut workspace };
                let posterior = inference.posterior(cells)?;
                // So quick that it is done again from its beginning if it is interrupted.
                let between = || self.run.check();
                shift_fit::fit_shifts(self.team, network, task, &posterior, interventions, between)?;
                if let Some(name) = network.parameters.first_non_finite() {
                    let tensor = format!("parameter `{name}`, fitted to held-out cells,");
                    return Err(NonFinite { epoch: settings.epochs, step: 1, tensor }.into());
                }
            }
            HeldoutBatchNorm::Drift => {
                let training = shift_fit::fit_shifts_drifting(
                    self.run,
                    FITTING,
                    self.team,
                    network,
                    task,
                    interventions,
                    self.observer,
                )?;
                if let Some(non_finite) = training.non_finite {
                    return Err(non_finite.into());
                }
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        self.run.store_result(FITTING, |out| {
            Snapshot::of(network).save(out);
            seconds.encode(out);
        })?;
        self.seconds.fitting = seconds;
        Ok(())
    }

    /// Bounds of the held-out cells under the priors of several networks, as the stage that `of` names.
    fn bounds<R: Real, const N: usize>(
        &mut self,
        network: &Network<R>,
        priors: [&Network<R>; N],
        of: &str,
    ) -> Result<[Bounds; N]> {
        let stage = format!("bounds {of}");
        let cells = self.groups.cells();
        let n_bounds = N * cells.len();
        let load = |input: &mut ByteReader<'_>| match (Vec::<Bound>::decode(input)?, f64::decode(input)?) {
            (bounds, _) if bounds.len() > n_bounds || !bounds.len().is_multiple_of(N) => {
                Err(DecodeError(format!("it has {} bounds, not up to {n_bounds}", bounds.len())))
            }
            (bounds, seconds) => Ok((bounds.as_chunks::<N>().0.to_vec(), seconds)),
        };
        if let Some((bounds, spent)) = self.run.saved_result(&stage, load)? {
            self.seconds.bounds += spent;
            return Ok(self.means(&bounds));
        }
        let start = Instant::now();
        let (done, before) = self.run.saved_state(&stage, load)?.unwrap_or_default();
        let spent = || before + start.elapsed().as_secs_f64();
        let save = |bounds: &[[Bound; N]], out: &mut Vec<u8>| {
            bounds.as_flattened().to_vec().encode(out);
            spent().encode(out);
        };
        let Protocol { data, particles, .. } = *self.protocol;
        if !cells.is_empty() {
            let (n, samples) = (grouped(cells.len() as u64), grouped(particles as u64));
            self.observer.stage(of, 0, 0);
            self.observer.note(&format!("held-out bounds {of}: {n} cells x {samples} samples"));
            self.observer.stage_ended();
        }
        let mut workspace = evaluation_workspace(network, data);
        let mut inference = Inference { team: self.team, network, data, workspace: &mut workspace };
        let posterior = inference.posterior(&cells)?;
        let seed = self.protocol.settings.seed;
        let between =
            |bounds: &[[Bound; N]]| self.run.checkpoint_if_due(&stage, Boundary::Step, |out| save(bounds, out));
        let request = BoundsRequest { cells: &cells, samples: Samples { posterior: &posterior, particles, seed } };
        let bounds = inference.bounds_under(priors, &request, done, between)?;
        self.run.store_result(&stage, |out| save(&bounds, out))?;
        self.seconds.bounds += spent();
        Ok(self.means(&bounds))
    }

    fn means<const N: usize>(&self, bounds: &[[Bound; N]]) -> [Bounds; N] {
        std::array::from_fn(|i| means(&self.groups, &bounds.iter().map(|bounds| bounds[i]).collect::<Vec<_>>()))
    }

    /// The figures of the protocol, whose last network is `network`.
    fn metrics<R: Real>(
        self,
        network: &Network<R>,
        bounds: StageBounds,
        retraining: Option<&Training>,
    ) -> Result<HeldoutMetrics> {
        let Steps { protocol, team, groups, mut seconds, .. } = self;
        let StageBounds { before, retrained, fitted } = bounds;
        let latents = protocol.recovered(team, network)?;
        let start = Instant::now();
        let (mut baseline, mut floor) = (None, None);
        // These need the counts of all cells, which the first process has.
        if !groups.groups.is_empty() && team.ranks().is_first() {
            let found = baselines(team, protocol.data, protocol.train, &groups)?;
            baseline = Some(BaselineMetrics {
                pooled_negative_binomial: found.pooled,
                per_intervention_negative_binomial: found.per_intervention,
            });
            let (data, seed) = (protocol.data, protocol.settings.seed);
            floor = protocol.generating.and_then(|model| oracle(team, data, model, &groups.groups, seed));
        }
        seconds.baselines = start.elapsed().as_secs_f64();
        let has_combinations = protocol.cells.iter().any(|&n| protocol.data.interventions.row(n).0.len() > 1);
        let per_intervention = groups.groups.iter().zip(fitted.iwelbo.iter().zip(&fitted.elbo));
        Ok(HeldoutMetrics {
            nll_iwelbo: fitted.mean.nll_iwelbo,
            nll_iwelbo_by_cell: has_combinations.then_some(fitted.iwelbo_by_cell),
            elbo: fitted.mean.elbo,
            particles: protocol.particles,
            n_interventions: groups.groups.len(),
            batch_norm: (network.tensors.shift.is_some() && !protocol.interventions.is_empty())
                .then_some(protocol.batch_norm),
            stages: StageMetrics {
                before_binarisation: before.mean,
                after_retraining: retrained.map(|bounds| bounds.mean),
                after_fitting: fitted.mean,
            },
            latents,
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
            retraining: retraining.map(|training| RetrainingMetrics {
                epochs: training.history.len(),
                stop_reason: training.stop_reason,
            }),
            seconds,
        })
    }
}

/// Means of the bounds of each cell of `groups`, in their order.
fn means(groups: &HeldOutCells, bounds: &[Bound]) -> Bounds {
    let means = |of: fn(&Bound) -> f64| groups.means(&bounds.iter().map(of).collect::<Vec<f64>>());
    let (iwelbo, elbo) = (means(|bound| bound.iwelbo), means(|bound| bound.elbo));
    let iwelbo_by_cell = mean(&bounds.iter().map(|bound| bound.iwelbo).collect::<Vec<f64>>());
    let mean = BoundMetrics { nll_iwelbo: mean(&iwelbo), elbo: mean(&elbo) };
    Bounds { iwelbo_by_cell, iwelbo, elbo, mean }
}
