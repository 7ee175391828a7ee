//! The held-out protocol on one page: fix the masks, train again, fit the held-out shifts, judge the held-out cells.
//!
//! Derivation: `derivations/heldout.md`.

use std::time::Instant;

use crate::checkpoint::ResumableRun;
use crate::checkpoint::encoding::{ByteReader, DecodeError, Encode, encode_fields};
use crate::data::dataset::Dataset;
use crate::data::simulate::MixingNetwork;
use crate::display::progress::{Progress, ProgressKind};
use crate::error::{NonFinite, Result};
use crate::evaluation::correlation::Correlation;
use crate::evaluation::held_out::{HeldOutCells, baselines, mean};
use crate::evaluation::metrics::{
    BaselineMetrics, BoundMetrics, HeldoutMetrics, HeldoutSeconds, InterventionMetrics, OracleMetrics, RecoveryMetrics,
    RetrainingMetrics, StageMetrics,
};
use crate::evaluation::oracle::oracle;
use crate::evaluation::recovery::Recovery;
use crate::model::network::{Bound, Network};
use crate::model::objective::Objective;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::system::interruption::Boundary;
use crate::training::shift_fit;
use crate::training::shift_fit::HeldoutBatchNorm;
use crate::training::trainer::{
    Snapshot, Trainer, Training, TrainingSettings, evaluation_workspace, posterior_means, train_in,
};
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
pub struct HeldOutFit {
    /// Figures on the held-out cells.
    pub metrics: HeldoutMetrics,
    /// The second training.
    pub retraining: Training,
}

encode_fields! {
    Bound { iwelbo, elbo }
}

/// Bounds of the groups of held-out cells, and their mean.
#[derive(Debug, Clone)]
struct Bounds {
    iwelbo: Vec<f64>,
    elbo: Vec<f64>,
    mean: BoundMetrics,
}

impl Protocol<'_> {
    /// Takes a network from the end of its training through the protocol; it holds the fitted model then. Stages that
    /// the run has seen finished are not done again.
    ///
    /// # Errors
    /// A second training or a fit that ends in values which are not finite; what cannot be fitted to no cells; counts on
    /// disk that cannot be read; as [`ResumableRun::checkpoint_if_due`].
    pub fn run<R: Real>(
        &self,
        team: &Team,
        network: &mut Network<R>,
        run: &mut ResumableRun<'_>,
    ) -> Result<HeldOutFit> {
        let mut seconds = HeldoutSeconds::default();
        let groups = HeldOutCells::new(self.data, self.cells, self.interventions);
        let [before] = self.bounds_in(run, team, network, [network], &groups, BEFORE, &mut seconds.bounds)?;

        shift_fit::forget(network, self.interventions);
        network.freeze_masks();
        let settings = shift_fit::retraining_settings(&self.settings);
        let objective = shift_fit::fixed_objective(&self.objective, self.train.len());
        let retraining = match load_trained(run, RETRAINING, network)? {
            Some(retraining) => retraining,
            None => {
                let mut progress = Progress::of_stage(self.progress, RETRAINING, settings.epochs, self.train.len());
                let trainer = Trainer::new(network, self.data, self.train, self.validation, &objective, &settings);
                let training = train_in(run, RETRAINING, team, trainer, |record| progress.epoch(record));
                progress.finish();
                let training = training?;
                finish_trained(run, RETRAINING, network, &training)?;
                training
            }
        };
        seconds.retraining = retraining.seconds;
        if let Some(non_finite) = retraining.non_finite {
            return Err(non_finite.into());
        }
        let (retrained, fitted) = match network.tensors.shift.as_ref().map(|_| self.batch_norm) {
            None => {
                let [bounds] =
                    self.bounds_in(run, team, network, [network], &groups, RETRAINED, &mut seconds.bounds)?;
                (bounds.clone(), bounds)
            }
            Some(HeldoutBatchNorm::Frozen) => {
                seconds.fitting = self.fit(team, network, run)?;
                let unfitted = self.unfitted(network);
                let [retrained, fitted] =
                    self.bounds_in(run, team, network, [&unfitted, network], &groups, BOTH, &mut seconds.bounds)?;
                (retrained, fitted)
            }
            // The fit changes the encoder's statistics and with them the samples.
            Some(HeldoutBatchNorm::Drift) => {
                let [retrained] =
                    self.bounds_in(run, team, network, [network], &groups, RETRAINED, &mut seconds.bounds)?;
                seconds.fitting = self.fit(team, network, run)?;
                let [fitted] = self.bounds_in(run, team, network, [network], &groups, FITTED, &mut seconds.bounds)?;
                (retrained, fitted)
            }
        };
        run.check()?;
        let ended = RetrainingMetrics { epochs: retraining.history.len(), stop_reason: retraining.stop_reason };
        let batch_norm = network.tensors.shift.is_some().then_some(self.batch_norm);
        let stages = [Some(before), Some(retrained), Some(fitted)];
        let metrics = self.metrics(team, network, groups, stages, Some(ended), batch_norm, seconds)?;
        Ok(HeldOutFit { metrics, retraining })
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
    ) -> Result<HeldoutMetrics> {
        let mut seconds = HeldoutSeconds::default();
        let groups = HeldOutCells::new(self.data, self.cells, self.interventions);
        fitted.freeze_masks();
        let [before] = self.bounds_in(run, team, trained, [trained], &groups, BEFORE, &mut seconds.bounds)?;
        let batch_norm = fitted.tensors.shift.is_some().then_some(self.batch_norm);
        let (retrained, after) = match batch_norm {
            Some(HeldoutBatchNorm::Frozen) => {
                let priors = [&self.unfitted(&fitted), &fitted];
                let [retrained, after] =
                    self.bounds_in(run, team, &fitted, priors, &groups, BOTH, &mut seconds.bounds)?;
                (Some(retrained), after)
            }
            None | Some(HeldoutBatchNorm::Drift) => {
                let [after] = self.bounds_in(run, team, &fitted, [&fitted], &groups, FITTED, &mut seconds.bounds)?;
                (batch_norm.is_none().then(|| after.clone()), after)
            }
        };
        self.metrics(team, &fitted, groups, [Some(before), retrained, Some(after)], None, batch_norm, seconds)
    }

    /// A network as it was before its held-out shifts were fitted without a change of anything else: they were 0.
    fn unfitted<R: Real>(&self, fitted: &Network<R>) -> Network<R> {
        let mut unfitted = fitted.clone();
        shift_fit::set_shifts(&mut unfitted, self.interventions, R::ZERO);
        unfitted
    }

    /// Fits the shifts of the held-out interventions, and says how many seconds that took.
    fn fit<R: Real>(&self, team: &Team, network: &mut Network<R>, run: &mut ResumableRun<'_>) -> Result<f64> {
        let load = |input: &mut ByteReader<'_>| -> std::result::Result<(Snapshot<R>, f64), DecodeError> {
            let mut fitted = Snapshot::of(network);
            fitted.load(input)?;
            Ok((fitted, f64::decode(input)?))
        };
        if let Some((fitted, seconds)) = run.saved_result(FITTING, load)? {
            fitted.restore(network);
            return Ok(seconds);
        }
        let start = Instant::now();
        let objective = shift_fit::fixed_objective(&self.objective, self.cells.len());
        let settings = shift_fit::fit_settings(&self.settings, self.cells.len());
        match self.batch_norm {
            HeldoutBatchNorm::Frozen => {
                Progress::of_stage(self.progress, FITTING, settings.epochs, self.cells.len()).finish();
                let mut workspace = evaluation_workspace(network, self.data);
                let posterior = network.posterior(team, &mut workspace, self.data, self.cells)?;
                // So quick that it is done again from its beginning if it is interrupted.
                shift_fit::fit_shifts(
                    team,
                    network,
                    self.data,
                    self.cells,
                    &posterior,
                    self.interventions,
                    &objective,
                    &settings,
                    || run.check(),
                )?;
                if let Some(name) = network.parameters.first_non_finite() {
                    let tensor = format!("parameter `{name}`, fitted to held-out cells,");
                    return Err(NonFinite { epoch: settings.epochs, step: 1, tensor }.into());
                }
            }
            HeldoutBatchNorm::Drift => {
                let mut progress = Progress::of_stage(self.progress, FITTING, settings.epochs, self.cells.len());
                let training = shift_fit::fit_shifts_drifting(
                    team,
                    network,
                    self.data,
                    self.cells,
                    self.interventions,
                    &objective,
                    &settings,
                    run,
                    FITTING,
                    |record| progress.epoch(record),
                );
                progress.finish();
                if let Some(non_finite) = training?.non_finite {
                    return Err(non_finite.into());
                }
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        run.store_result(FITTING, |out| {
            Snapshot::of(network).save(out);
            seconds.encode(out);
        })?;
        Ok(seconds)
    }

    /// Bounds of the held-out cells under the priors of several networks, as the stage of a run that `of` names.
    fn bounds_in<R: Real, const N: usize>(
        &self,
        run: &mut ResumableRun<'_>,
        team: &Team,
        network: &Network<R>,
        priors: [&Network<R>; N],
        groups: &HeldOutCells,
        of: &'static str,
        seconds: &mut f64,
    ) -> Result<[Bounds; N]> {
        let stage = format!("bounds {of}");
        let n_bounds = N * groups.groups.iter().map(|group| group.cells.len()).sum::<usize>();
        let load = |input: &mut ByteReader<'_>| match (Vec::<Bound>::decode(input)?, f64::decode(input)?) {
            (bounds, _) if bounds.len() > n_bounds || !bounds.len().is_multiple_of(N) => {
                Err(DecodeError(format!("it has {} bounds, not up to {n_bounds}", bounds.len())))
            }
            (bounds, seconds) => Ok((bounds.as_chunks::<N>().0.to_vec(), seconds)),
        };
        let means = |bounds: &[[Bound; N]]| {
            std::array::from_fn(|i| means(groups, &bounds.iter().map(|bounds| bounds[i]).collect::<Vec<_>>()))
        };
        if let Some((bounds, spent)) = run.saved_result(&stage, load)? {
            *seconds += spent;
            return Ok(means(&bounds));
        }
        let start = Instant::now();
        let (done, before) = run.saved_state(&stage, load)?.unwrap_or_default();
        let spent = || before + start.elapsed().as_secs_f64();
        let bounds = self.bounds(team, network, priors, groups, of, done, |bounds| {
            run.checkpoint_if_due(&stage, Boundary::Step, |out| {
                bounds.as_flattened().to_vec().encode(out);
                spent().encode(out);
            })
        })?;
        run.store_result(&stage, |out| {
            bounds.as_flattened().to_vec().encode(out);
            spent().encode(out);
        })?;
        *seconds += spent();
        Ok(means(&bounds))
    }

    /// Bounds of the cells of `groups`, of which the first ones are `done`.
    fn bounds<R: Real, const N: usize>(
        &self,
        team: &Team,
        network: &Network<R>,
        priors: [&Network<R>; N],
        groups: &HeldOutCells,
        stage: &'static str,
        done: Vec<[Bound; N]>,
        between: impl FnMut(&[[Bound; N]]) -> Result<()>,
    ) -> Result<Vec<[Bound; N]>> {
        let cells = groups.cells();
        if !cells.is_empty() {
            let (n, particles) = (grouped(cells.len() as u64), grouped(self.particles as u64));
            Progress::of_stage(self.progress, stage, 0, 0)
                .note(&format!("held-out bounds {stage}: {n} cells x {particles} samples"));
        }
        let mut workspace = evaluation_workspace(network, self.data);
        let posterior = network.posterior(team, &mut workspace, self.data, &cells)?;
        let (particles, seed) = (self.particles, self.settings.seed);
        network.bounds_under(
            priors,
            team,
            &mut workspace,
            self.data,
            &cells,
            &posterior,
            particles,
            seed,
            done,
            between,
        )
    }

    /// How well the latents of the trained interventions' cells are recovered, where the truth is known.
    fn recovered<R: Real>(&self, team: &Team, network: &Network<R>) -> Result<Option<RecoveryMetrics>> {
        if self.data.truth.is_none() {
            return Ok(None);
        }
        let all: Vec<usize> = (0..self.data.n_cells()).collect();
        let mut workspace = evaluation_workspace(network, self.data);
        let means = posterior_means(team, network, &mut workspace, self.data, &all)?;
        let is_trained = |a: usize| !self.interventions.contains(&a);
        let found = Recovery::new(self.data, &means, network.architecture.n_latents, is_trained);
        Ok(found.map(|found| RecoveryMetrics {
            mcc_pearson: found.mcc(team, Correlation::Pearson).mean,
            mcc_spearman: found.mcc(team, Correlation::Spearman).mean,
            r2: found.r2(),
        }))
    }

    fn metrics<R: Real>(
        &self,
        team: &Team,
        network: &Network<R>,
        groups: HeldOutCells,
        [before, retrained, fitted]: [Option<Bounds>; 3],
        retraining: Option<RetrainingMetrics>,
        batch_norm: Option<HeldoutBatchNorm>,
        mut seconds: HeldoutSeconds,
    ) -> Result<HeldoutMetrics> {
        let (before, fitted) = (before.expect("the first stage"), fitted.expect("the last stage"));
        let latents = self.recovered(team, network)?;
        let start = Instant::now();
        let (mut baseline, mut floor) = (None, None);
        // These need the counts of all cells, which the first process has.
        if !groups.groups.is_empty() && team.ranks().is_first() {
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
            retraining,
            seconds,
        })
    }
}

/// Means of the bounds of each cell of `groups`, in their order.
fn means(groups: &HeldOutCells, bounds: &[Bound]) -> Bounds {
    let means = |of: fn(&Bound) -> f64| groups.means(&bounds.iter().map(of).collect::<Vec<f64>>());
    let (iwelbo, elbo) = (means(|bound| bound.iwelbo), means(|bound| bound.elbo));
    let mean = BoundMetrics { nll_iwelbo: mean(&iwelbo), elbo: mean(&elbo) };
    Bounds { iwelbo, elbo, mean }
}

/// Reads the result of a training that the run has seen finished, and sets the network to it.
///
/// # Errors
/// As [`ResumableRun::saved_result`].
pub(crate) fn load_trained<R: Real>(
    run: &ResumableRun<'_>,
    stage: &str,
    network: &mut Network<R>,
) -> Result<Option<Training>> {
    run.saved_result(stage, |input| {
        let mut trained = Snapshot::of(network);
        trained.load(input)?;
        trained.restore(network);
        Training::decode(input)
    })
}

/// Keeps the result of a training in the run.
///
/// # Errors
/// As [`ResumableRun::store_result`].
pub(crate) fn finish_trained<R: Real>(
    run: &mut ResumableRun<'_>,
    stage: &str,
    network: &Network<R>,
    training: &Training,
) -> Result<()> {
    run.store_result(stage, |out| {
        Snapshot::of(network).save(out);
        training.encode(out);
    })
}
