//! The figures of a trained model on its screen: bounds, recovered latents and targets, plain baselines.

use crate::data::dataset::Dataset;
use crate::data::screen::Screen;
use crate::error::Result;
use crate::evaluation::certainty::Certainty;
use crate::evaluation::correlation::Correlation;
use crate::evaluation::linear_rival::linear_rival;
use crate::evaluation::mcc::Matching;
use crate::evaluation::metrics::{
    BaselineMetrics, EdgeMetrics, GraphMetrics, InteractionMetrics, LatentOracleMetrics, MaskMetrics, Metrics,
    PrecisionRecall, Timing,
};
use crate::evaluation::oracle::latent_oracle;
use crate::evaluation::pooled;
use crate::evaluation::recovery::Recovery;
use crate::evaluation::target_graph::{TargetScore, score_targets, targets_from_prior_means, two_largest_shifts};
use crate::inference::trained_model::TrainedModel;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::settings::Settings;
use crate::system::machine::peak_rss_bytes;
use crate::training::trainer::Training;

/// What is found of a trained model before its edges are judged.
#[derive(Debug, Clone)]
pub struct Judgement {
    metrics: Metrics,
    /// Matched latents, `(true, inferred)`, where the truth is known.
    matched: Option<Vec<(usize, usize)>>,
}

impl Judgement {
    /// All figures: those of the edges too, for a model of which these are known.
    pub fn with_edges(self, data: &Dataset, certainty: Option<&Certainty>) -> Metrics {
        let truth = data.truth.as_ref().zip(self.matched.as_deref());
        let interactions = certainty.and_then(|certainty| Some((certainty.interactions.as_ref()?, certainty.fdr)));
        Metrics {
            edges: certainty.map(|certainty| EdgeMetrics::new(certainty, truth)),
            interactions: interactions.map(|(found, fdr)| InteractionMetrics::new(found, fdr, truth)),
            ..self.metrics
        }
    }
}

/// Judges a trained model; `between` is called after each of its parts, on every process, and ends it with its error.
///
/// On several processes the figures are whole on the first one; the others lack those that need the counts of all cells.
///
/// # Errors
/// Counts on disk that cannot be read; baselines that cannot be fitted; what `between` returns.
pub fn judge<R: Real, M: TrainedModel<R>>(
    team: &Team,
    config: &Settings,
    screen: &Screen,
    model: &mut M,
    training: Option<&Training>,
    between: &mut dyn FnMut() -> Result<()>,
) -> Result<Judgement> {
    let mut judge = Judge {
        team,
        config,
        screen,
        masks: model.prior().masks_on(),
        model,
        latents: Vec::new(),
        recovered: None,
        matched: None,
        metrics: unjudged(config, screen, training),
    };
    // Every process walks the same list, so that all of them meet in `between` equally often.
    for part in Judge::PARTS {
        part(&mut judge)?;
        between()?;
    }
    Ok(Judgement { metrics: judge.metrics, matched: judge.matched })
}

/// Judges a trained model that was read again, edges included.
///
/// # Errors
/// As [`judge`].
pub fn judge_saved<R: Real, M: TrainedModel<R>>(
    team: &Team,
    config: &Settings,
    screen: &Screen,
    model: &mut M,
    between: &mut dyn FnMut() -> Result<()>,
) -> Result<Metrics> {
    let judgement = judge(team, config, screen, model, None, between)?;
    let (Screen { data, split, .. }, fdr, seed) = (screen, config.output.fdr, config.execution.seed);
    let certainty = Certainty::of(team, model, data, split, fdr, seed)?;
    Ok(judgement.with_edges(data, certainty.as_ref()))
}

/// A model that is being judged.
struct Judge<'a, R: Real, M> {
    team: &'a Team<'a>,
    config: &'a Settings,
    screen: &'a Screen,
    model: &'a mut M,
    /// Whether each mask is on, interventions x L, for models with masks.
    masks: Option<Vec<bool>>,
    /// Posterior means of all cells, from when they are computed until they are compared with the true ones.
    latents: Vec<R>,
    /// True and inferred latents, and how they match.
    recovered: Option<(Recovery, Matching)>,
    /// The pairs of that matching, once all has been judged by it.
    matched: Option<Vec<(usize, usize)>>,
    metrics: Metrics,
}

impl<R: Real, M: TrainedModel<R>> Judge<'_, R, M> {
    /// The parts of the judgement, in order. What needs the counts of all cells is left to the first process.
    const PARTS: [fn(&mut Self) -> Result<()>; 7] = [
        Self::bounds,
        Self::latent_kl,
        Self::latents,
        Self::baseline,
        Self::match_latents,
        Self::recovery,
        Self::linear,
    ];

    /// Negative ELBO of the training and of the validation cells.
    fn bounds(&mut self) -> Result<()> {
        let Screen { data, split, .. } = self.screen;
        let objective = self.config.objective(data.n_interventions(), split.train.len());
        let seed = self.config.execution.seed;
        let on_training = self.model.elbo(&split.train, &objective, seed)?;
        let on_validation = self.model.elbo(&split.validation, &objective, seed)?;
        self.metrics.elbo_train = on_training.total;
        self.metrics.elbo_validation = on_validation.total;
        self.metrics.reconstruction_validation = on_validation.reconstruction;
        self.metrics.kl_validation = on_validation.kl;
        Ok(())
    }

    /// Divergence of each latent, and how full the masks are.
    fn latent_kl(&mut self) -> Result<()> {
        let split = &self.screen.split;
        let cells: Vec<usize> = [&split.train[..], &split.validation].concat();
        let seed = self.config.execution.seed;
        self.metrics.latent_kl = self.model.divergence_by_latent(&cells, seed)?;
        let l = self.model.n_latents();
        self.metrics.mask = self.masks.as_ref().map(|masks| {
            let rows =
                || masks.chunks_exact(l).zip(&split.trained).filter(|(_, trained)| **trained).map(|(row, _)| row);
            let on = rows().flatten().filter(|on| **on).count();
            MaskMetrics {
                fraction_on: on as f64 / rows().flatten().count() as f64,
                interventions_with_target: rows().filter(|row| row.contains(&true)).count(),
            }
        });
        Ok(())
    }

    /// Posterior means, all at once only where there are true latents to compare them with, which are held too.
    fn latents(&mut self) -> Result<()> {
        let data = &self.screen.data;
        if data.truth.is_some() {
            let all: Vec<usize> = (0..data.n_cells()).collect();
            self.latents = self.model.posterior_means(&all)?;
        }
        Ok(())
    }

    /// What plain models reach on the validation cells.
    fn baseline(&mut self) -> Result<()> {
        let Screen { data, split, .. } = self.screen;
        let (team, train, validation) = (self.team, &split.train, &split.validation);
        if validation.is_empty() || !team.ranks().is_first() {
            return Ok(());
        }
        let pooled = pooled::pooled_negative_binomial(team, data, train, validation)?;
        let each = pooled::per_intervention_negative_binomial(team, data, train, validation, pooled::PSEUDO_CELLS)?;
        self.metrics.baseline = Some(BaselineMetrics {
            pooled_negative_binomial: pooled.nll_per_cell,
            per_intervention_negative_binomial: each.nll_per_cell,
        });
        Ok(())
    }

    /// What the linear model finds, beside a network whose edges are weighed by the same rule.
    fn linear(&mut self) -> Result<()> {
        if !self.config.model.integrates_mask() {
            return Ok(());
        }
        let bound = self.metrics.reconstruction_validation + self.metrics.kl_validation;
        self.metrics.linear = linear_rival(self.team, self.config, self.screen, self.model, bound)?;
        Ok(())
    }

    /// Matches inferred latents with true ones, where these are known.
    fn match_latents(&mut self) -> Result<()> {
        let latents = std::mem::take(&mut self.latents);
        if !self.team.ranks().is_first() {
            return Ok(());
        }
        let (l, trained) = (self.model.n_latents(), &self.screen.split.trained);
        self.recovered = Recovery::new(&self.screen.data, &latents, l, |a| trained[a]).map(|recovery| {
            drop(latents);
            let pearson = recovery.mcc(self.team, Correlation::Pearson);
            (recovery, pearson)
        });
        Ok(())
    }

    /// How well latents and targets are recovered, where the true ones are known.
    fn recovery(&mut self) -> Result<()> {
        let Some((recovery, pearson)) = self.recovered.take() else { return Ok(()) };
        let (data, metrics) = (&self.screen.data, &mut self.metrics);
        metrics.mcc_spearman = Some(recovery.mcc(self.team, Correlation::Spearman).mean);
        metrics.r2 = Some(recovery.r2());
        let (generating, seed) = (self.screen.generating.as_deref(), self.config.execution.seed);
        let ceiling = generating.and_then(|model| latent_oracle(self.team, data, model, &recovery.cells, seed));
        metrics.oracle = ceiling.map(|o| LatentOracleMetrics {
            mcc_pearson: o.mcc_pearson,
            mcc_spearman: o.mcc_spearman,
            r2: o.r2,
            diagonal_gap: o.diagonal_gap,
            n_cells: o.cells,
            particles: o.particles,
        });
        // An iVAE without masks is judged by the two largest shifts of each intervention.
        let largest = || {
            let shifts: Vec<f64> = self.model.prior().shifts?.iter().map(|shift| shift.to_f64()).collect();
            Some(two_largest_shifts(&shifts, self.model.n_latents()))
        };
        let truth = data.truth.as_ref().expect("what is recovered is known");
        if let Some(masks) = self.masks.clone().or_else(largest) {
            let targets = targets_from_prior_means(&truth.prior_means);
            let scores = score_targets(&targets, &masks, &pearson.correlation, &self.screen.split.trained);
            let of = |s: TargetScore| PrecisionRecall { precision: s.precision, recall: s.recall, f1: s.f1 };
            metrics.graph = Some(GraphMetrics { reference: of(scores.reference), corrected: of(scores.corrected) });
        }
        metrics.mcc_pearson = Some(pearson.mean);
        self.matched = Some(pearson.pairs);
        Ok(())
    }
}

/// The figures that need no judgement, beside places for the others.
fn unjudged(config: &Settings, screen: &Screen, training: Option<&Training>) -> Metrics {
    let data = &screen.data;
    Metrics {
        method: config.model.method,
        seed: config.execution.seed,
        n_cells: data.n_cells(),
        n_genes: data.n_genes(),
        n_interventions: data.n_interventions(),
        epochs: training.map(|training| training.history.len()),
        stop_reason: training.map(|training| training.stop_reason),
        starts: None,
        elbo_train: f64::NAN,
        elbo_validation: f64::NAN,
        reconstruction_validation: f64::NAN,
        kl_validation: f64::NAN,
        latent_kl: Vec::new(),
        mcc_pearson: None,
        mcc_spearman: None,
        r2: None,
        graph: None,
        mask: None,
        edges: None,
        interactions: None,
        linear: None,
        oracle: None,
        baseline: None,
        heldout: None,
        timing: Timing {
            train_seconds: training.map(|training| training.seconds),
            cells_per_second: training.map(|training| training.cells_passed as f64 / training.seconds),
            total_seconds: 0.0,
            peak_rss_bytes: None,
        },
    }
}

/// The figures with the seconds spent on them, and the most memory that the process has held.
pub fn timed(mut metrics: Metrics, seconds: f64) -> Metrics {
    metrics.timing.total_seconds = seconds;
    metrics.timing.peak_rss_bytes = peak_rss_bytes();
    metrics
}
