//! The judgement of a model's predictions of held-out combinations, beside baselines and a noise ceiling.
//! Derivation: `derivations/judgement.md`.

use rand_distr::{Distribution, StandardNormal};
use serde::Serialize;

use crate::data::combinations::Combination;
use crate::data::dataset::{Dataset, Truth};
use crate::data::mixing::GeneratingModel;
use crate::data::screen::Screen;
use crate::error::Result;
use crate::evaluation::edge::DEVIATIONS_OF_95;
use crate::evaluation::predictions::baselines::{Baselines, PlainPrediction};
use crate::evaluation::predictions::bounds::HeldOutBounds;
use crate::evaluation::predictions::intervals::{IntervalFigures, Miss, intervals};
use crate::evaluation::predictions::judged::judged_combinations;
use crate::evaluation::predictions::kriging::{CarriedOver, Kriging, Residual, Site, chosen_sites};
use crate::evaluation::predictions::non_additive::{Item, NonAdditive, RESAMPLES, non_additive, resample};
use crate::evaluation::predictions::profiles::{LogExpression, Profile, TrainingProfiles};
use crate::evaluation::predictions::scores::{
    ENERGY_CELLS, N_SCORES, Score, ScoreFrame, Scores, energy_distance, pearson, squared_distance, strongest,
    weights_of, welch,
};
use crate::inference::loadings::spread;
use crate::inference::prediction::{Basis, Predictor, log_normalise, prior_latents};
use crate::model::network::Network;
use crate::numerics::random::{SamplerPurpose, sampler_stream};
use crate::numerics::real::Real;
use crate::parallel::team::{Team, tiles};

/// Name of the model among the predictors, with what the cells of the members say beyond it.
pub const MODEL: &str = "model";
/// Name of the model without that.
pub const MODEL_ALONE: &str = "model alone";
/// Name of the model that a simulation was drawn from.
pub const TRUE_MODEL: &str = "true model";
/// Cells that a prediction is the mean of: at least, at most, and the counts to be drawn for all predictions together.
const CELLS: (usize, usize, usize) = (256, 2048, 400_000_000);
/// Control cells by which genes are weighed, at most.
const MOST_CONTROLS: usize = 2000;
/// Scores in which the model is compared with the baselines.
const COMPARED: [Score; 3] = [Score::WeightedMse, Score::CentroidAccuracy, Score::PearsonControl];

/// How well held-out combinations are predicted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictionJudgement {
    /// Combinations judged: held out, of members that were trained on, with more than ten cells.
    pub n_combinations: usize,
    /// Their cells.
    pub n_cells: usize,
    /// Whether differences are from control cells; if not, from the mean of the perturbed.
    pub from_controls: bool,
    /// Importance-weighted bounds of the held-out cells, nats per cell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounds: Option<HeldOutBounds>,
    /// Means over the combinations, of each predictor.
    pub predictors: Vec<PredictorFigures>,
    /// The range that the cells leave each score.
    pub ranges: Vec<ScoreRange>,
    /// The model beside each baseline.
    pub comparisons: Vec<ModelComparison>,
    /// How well intervals of the model's predictions hold; absent with a single combination, or where nothing is carried over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intervals: Option<IntervalFigures>,
    /// Each combination, by each predictor.
    pub combinations: Vec<CombinationFigures>,
    /// How far combinations, held out or not, are from the sum of their members.
    pub non_additive: Vec<NonAdditive>,
}

/// What a predictor reaches in the mean over combinations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictorFigures {
    /// Its name.
    pub predictor: &'static str,
    /// Its scores.
    pub scores: Vec<ScoreFigure>,
    /// Pearson correlation of all differences from control at once, combinations x genes.
    pub flat_pearson: f64,
    /// Share of their variance that is explained.
    pub flat_r2: f64,
}

/// A score in the mean over combinations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ScoreFigure {
    /// Its name.
    pub score: &'static str,
    /// Its value; absent where a prediction has none, as the direction of no change.
    pub value: Option<f64>,
    /// Half the width of its 95 % interval over resampled cells; absent for scores that are not resampled.
    pub margin: Option<f64>,
    /// How far it is from the negative control (0) to the ceiling of the cells (1), against half of the cells.
    pub of_range: Option<f64>,
}

/// The range between a prediction that knows nothing of a combination and half of its own cells, as its other half is judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ScoreRange {
    /// Name of the score.
    pub score: &'static str,
    /// The negative control: the mean of the perturbed or, for differences from it, no change.
    pub floor: f64,
    /// The other half of the cells.
    pub ceiling: f64,
    /// Share of the way from the negative control to a perfect score that the other half goes.
    pub dynamic_range: f64,
}

/// The model beside a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ModelComparison {
    /// Name of the baseline.
    pub baseline: &'static str,
    /// Name of the score.
    pub score: &'static str,
    /// Value of the model less that of the baseline.
    pub difference: f64,
    /// Half the width of its 95 % interval over resampled cells.
    pub margin: f64,
    /// Whether the model is worse, beyond the interval.
    pub worse: bool,
    /// Whether the model is better, beyond the interval.
    pub better: bool,
}

/// The scores of one prediction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CombinationFigures {
    /// Label of the combination.
    pub combination: String,
    /// Its cells.
    pub n_cells: usize,
    /// Name of the predictor.
    pub predictor: &'static str,
    /// Values in the order of [`Score::ALL`], not a number where there is none.
    pub scores: Scores,
}

/// Cells as observed and as predicted, for a judge of another make.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgedCells {
    /// Label of each combination.
    pub labels: Vec<String>,
    /// Observed cells of each.
    pub observed: Vec<LogExpression>,
    /// As many predicted cells.
    pub predicted: Vec<LogExpression>,
    /// Control cells.
    pub controls: LogExpression,
}

/// A predictor and what it says.
struct Predicted {
    name: &'static str,
    /// Mean log expression of each combination, G.
    means: Vec<Vec<f64>>,
    /// Some cells of each.
    cells: Vec<LogExpression>,
    /// Variance of the truth about each mean, G, where that is known.
    variances: Option<Vec<Vec<f64>>>,
}

/// Judges the predictions of a network on the held-out combinations of a screen; `None` where none can be judged. Also returns cells for
/// a judge of another make, where there are control cells.
///
/// # Errors
/// Counts on disk that cannot be read.
pub fn judge_predictions<R: Real>(
    team: &Team,
    network: &Network<R>,
    screen: &Screen,
    bounds: Option<HeldOutBounds>,
    seed: u64,
) -> Result<Option<(PredictionJudgement, Option<JudgedCells>)>> {
    let Screen { data, split, .. } = screen;
    let combinations = judged_combinations(screen);
    if combinations.is_empty() {
        return Ok(None);
    }
    let training = TrainingProfiles::new(data, split)?;
    let controls = LogExpression::of(data, &spread(&training.reference_cells, MOST_CONTROLS))?;
    let mut predictors = by_baselines(&training, &combinations, &controls);
    predictors.extend(by_model(team, network, screen, &training, &combinations, seed));
    if let (Some(generating), Some(truth)) = (&screen.generating, &data.truth) {
        predictors.push(by_true_model(team, data, generating, truth, &training, &combinations, seed));
    }
    let mut trial = JudgementTrial::new(team, data, &training, &controls, &combinations, seed)?;
    for number in 0..combinations.len() {
        trial.judge(number, &predictors)?;
    }
    let non_additive = non_additive(team, data, split, &training, seed)?;
    let judgement = trial.judgement(&predictors, bounds, non_additive);
    Ok(Some((judgement, training.has_controls.then(|| trial.into_cells(predictors, controls)))))
}

/// What the baselines say; their cells are control cells moved by the effect, none of it below 0.
fn by_baselines(training: &TrainingProfiles, combinations: &[Combination], controls: &LogExpression) -> Vec<Predicted> {
    let baselines = Baselines::new(training);
    let some = controls.spread(ENERGY_CELLS);
    let of = |baseline: PlainPrediction| {
        let means: Vec<Vec<f64>> =
            combinations.iter().map(|combination| baselines.predict(baseline, &combination.members)).collect();
        let cells = means.iter().map(|mean| moved(&some, mean, &training.reference)).collect();
        Predicted { name: baseline.name(), means, cells, variances: None }
    };
    PlainPrediction::ALL.into_iter().map(of).collect()
}

/// Cells moved by the difference of two profiles, none of it below 0.
fn moved(cells: &LogExpression, to: &[f64], from: &[f64]) -> LogExpression {
    let values = cells.rows().flat_map(|row| {
        let places = row.iter().zip(to.iter().zip(from));
        places.map(|(&x, (to, from))| (f64::from(x) + to - from).max(0.0) as f32)
    });
    LogExpression { n_genes: cells.n_genes, values: values.collect() }
}

/// Number of cells that each of so many predictions is the mean of.
fn n_cells(n_predictions: usize, n_genes: usize) -> usize {
    (CELLS.2 / (n_predictions * n_genes)).clamp(CELLS.0, CELLS.1)
}

/// What the network says: its effects on the observed reference, and the same with what the members' own cells say beyond it.
fn by_model<R: Real>(
    team: &Team,
    network: &Network<R>,
    screen: &Screen,
    training: &TrainingProfiles,
    combinations: &[Combination],
    seed: u64,
) -> [Predicted; 2] {
    let Screen { data, split, .. } = screen;
    let (g, prior) = (data.n_genes(), network.prior());
    let means: Vec<Vec<f64>> = combinations.iter().map(|found| prior.expected_mean(&found.members)).collect();
    // What the reference is a mean of.
    let references: Vec<Vec<f64>> = match training.has_controls {
        true => vec![prior.expected_mean(&[])],
        false => training.profiles.iter().map(|found| prior.expected_mean(&found.combination.members)).collect(),
    };
    let profiles: Vec<&Profile> = training.profiles.iter().filter(|found| found.combination.cells.len() > 1).collect();
    let of_profiles: Vec<&[(u32, f32)]> = profiles.iter().map(|found| &found.combination.members[..]).collect();
    let is_wanted = |a: u32| combinations.iter().any(|found| found.members.iter().any(|member| member.0 == a));
    let profiles: Vec<&Profile> = chosen_sites(&of_profiles, is_wanted).into_iter().map(|i| profiles[i]).collect();
    let of_sites: Vec<Vec<f64>> =
        profiles.iter().map(|found| prior.expected_mean(&found.combination.members)).collect();
    let donors: Vec<usize> = split.train.iter().copied().filter(|&n| data.library[n] > 0.0).collect();
    let most = combinations.iter().map(|found| found.cells.len()).max().unwrap_or(0).max(ENERGY_CELLS);
    let n = n_cells(means.len() + references.len() + of_sites.len(), g).max(most);
    let cells: Vec<usize> = (0..n).map(|i| donors[i * donors.len() / n]).collect();
    let latents = prior_latents(n, network.architecture.n_latents, seed);
    let mut predictor = Predictor::new(team, network, Basis { data, cells: &cells, latents: &latents });
    let base = mean_row(&predictor.mean_log_expression(&references, seed), g);
    let logs = predictor.mean_log_expression(&means, seed);
    let site =
        |combination: &Combination, mean: &[f64]| Site { members: combination.members.clone(), latents: mean.to_vec() };
    let residuals: Vec<Residual> = profiles
        .iter()
        .zip(&of_sites)
        .zip(predictor.mean_log_expression(&of_sites, seed).chunks_exact(g))
        .map(|((found, mean), log)| {
            let n = found.combination.cells.len() as f64;
            let observed = found.mean.iter().zip(&training.reference).map(|(mean, reference)| mean - reference);
            Residual {
                site: site(&found.combination, mean),
                residual: observed.zip(log.iter().zip(&base)).map(|(e, (log, base))| e - (log - base)).collect(),
                variance: found.squares.iter().map(|squares| squares / (n - 1.0) / n).collect(),
            }
        })
        .collect();
    let kriging = Kriging::new(&residuals, training.has_controls);
    let on_reference = |log: &[f64]| -> Vec<f64> {
        log.iter().zip(&base).zip(&training.reference).map(|((log, base), reference)| log - base + reference).collect()
    };
    let carried: Vec<Option<CarriedOver>> = combinations
        .iter()
        .zip(&means)
        .map(|(found, mean)| kriging.as_ref().map(|kriging| kriging.carry_over(&site(found, mean))))
        .collect();
    let corrected = |(mean, carried): (&Vec<f64>, &Option<CarriedOver>)| -> Vec<f64> {
        let beyond = carried.as_ref().map_or(&[][..], |carried| &carried.residual);
        let mut mean = mean.clone();
        mean.iter_mut().zip(beyond).for_each(|(mean, beyond)| *mean += beyond);
        mean.iter_mut().for_each(|mean| *mean = mean.max(0.0));
        mean
    };
    let alone: Vec<Vec<f64>> = logs.chunks_exact(g).map(on_reference).collect();
    let both = alone.iter().zip(&carried).map(corrected).collect::<Vec<_>>();
    let drawn: Vec<LogExpression> = means
        .iter()
        .zip(combinations)
        .map(|(mean, found)| {
            let values = predictor.log_expression_of_cells(mean, found.cells.len().max(ENERGY_CELLS), seed);
            LogExpression { n_genes: g, values }
        })
        .collect();
    [(MODEL_ALONE, alone), (MODEL, both)].map(|(name, means)| {
        let cells = drawn.iter().zip(means.iter().zip(logs.chunks_exact(g)));
        // Of one of them as many as were held out are wanted later.
        let of = |(cells, (to, from)): (&LogExpression, (&Vec<f64>, &[f64]))| match name {
            MODEL => moved(cells, to, from),
            _ => moved(&cells.spread(ENERGY_CELLS), to, from),
        };
        let variances = match name {
            MODEL => carried.iter().map(|carried| carried.as_ref().map(|carried| carried.variance.clone())).collect(),
            _ => None,
        };
        Predicted { name, cells: cells.map(of).collect(), means, variances }
    })
}

/// Mean over the rows of a table of `width` columns.
fn mean_row(values: &[f64], width: usize) -> Vec<f64> {
    let n = (values.len() / width) as f64;
    let mut mean = vec![0.0; width];
    values.chunks_exact(width).for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x / n));
    mean
}

/// What the model says that the screen was drawn from, by cells drawn from it again.
fn by_true_model(
    team: &Team,
    data: &Dataset,
    generating: &GeneratingModel,
    truth: &Truth,
    training: &TrainingProfiles,
    combinations: &[Combination],
    seed: u64,
) -> Predicted {
    let (g, l) = (data.n_genes(), truth.n_latents);
    let n = n_cells(combinations.len() + 1, g);
    let draw = |members: &[(u32, f32)]| -> LogExpression {
        let (numbers, doses): (Vec<u32>, Vec<f32>) = members.iter().copied().unzip();
        let mean = truth.prior_mean((&numbers, &doses));
        let mut values = vec![0.0f32; n * g];
        team.run(n, tiles(&mut values, g), |i, row| {
            let mut random = sampler_stream(seed, SamplerPurpose::PredictedLatents, i);
            let escaped = (i as f64 + 0.5) / (n as f64) < generating.escaped;
            let z: Vec<f64> = (0..l)
                .map(|k| {
                    let noise: f64 = StandardNormal.sample(&mut random);
                    if escaped { noise } else { mean[k] + noise }
                })
                .collect();
            let mut random = sampler_stream(seed, SamplerPurpose::PredictedCounts, i);
            let mut counts: Vec<f64> = generating.draw(&z, i, &mut random).into_iter().map(f64::from).collect();
            log_normalise(&mut counts);
            row.iter_mut().zip(&counts).for_each(|(to, &x)| *to = x as f32);
        });
        LogExpression { n_genes: g, values }
    };
    let mean_of = |cells: &LogExpression| cells.mean_weighted(&vec![1; cells.n_cells()]);
    let base = match training.has_controls {
        true => mean_of(&draw(&[])),
        false => {
            let rows: Vec<f64> =
                training.profiles.iter().flat_map(|found| mean_of(&draw(&found.combination.members))).collect();
            mean_row(&rows, g)
        }
    };
    let (mut means, mut cells) = (Vec::new(), Vec::new());
    for combination in combinations {
        let drawn = draw(&combination.members);
        let effect = mean_of(&drawn);
        means.push(effect.iter().zip(&base).zip(&training.reference).map(|((e, b), r)| e - b + r).collect());
        cells.push(drawn.spread(ENERGY_CELLS));
    }
    Predicted { name: TRUE_MODEL, means, cells, variances: None }
}

/// The scores under way.
struct JudgementTrial<'a> {
    team: &'a Team<'a>,
    data: &'a Dataset,
    training: &'a TrainingProfiles,
    /// Mean, variance and number of control cells.
    controls: (Vec<f64>, Vec<f64>, usize),
    combinations: &'a [Combination],
    seed: u64,
    /// Mean log expression observed of each combination.
    truths: Vec<Vec<f64>>,
    /// Observed cells of each combination that has been judged.
    observed: Vec<LogExpression>,
    /// Scores of each combination and predictor.
    scores: Vec<Vec<Scores>>,
    /// The same against half of the cells.
    half_scores: Vec<Vec<Scores>>,
    /// Scores of the other half against it.
    ceilings: Vec<Scores>,
    /// Sums over combinations of the scores of each resample and predictor.
    resampled: Vec<Vec<Scores>>,
    /// How the intervals of each combination's genes hold.
    misses: Vec<Vec<Miss>>,
}

impl<'a> JudgementTrial<'a> {
    fn new(
        team: &'a Team<'a>,
        data: &'a Dataset,
        training: &'a TrainingProfiles,
        controls: &LogExpression,
        combinations: &'a [Combination],
        seed: u64,
    ) -> Result<Self> {
        let mut truths = Vec::with_capacity(combinations.len());
        for combination in combinations {
            let cells = LogExpression::of(data, &combination.cells)?;
            truths.push(cells.mean_weighted(&vec![1; cells.n_cells()]));
        }
        let (mean, variance) = controls.moments();
        Ok(Self {
            team,
            data,
            training,
            controls: (mean, variance, controls.n_cells()),
            combinations,
            seed,
            truths,
            observed: Vec::new(),
            scores: Vec::new(),
            half_scores: Vec::new(),
            ceilings: Vec::new(),
            resampled: Vec::new(),
            misses: Vec::new(),
        })
    }

    /// Judges what all predictors say of a combination.
    fn judge(&mut self, number: usize, predictors: &[Predicted]) -> Result<()> {
        let cells = LogExpression::of(self.data, &self.combinations[number].cells)?;
        let (mean, variance, n) = &self.controls;
        let of_controls = (&mean[..], &variance[..], *n);
        let halves = [cells.half(0), cells.half(1)].map(|half| (half.mean_weighted(&vec![1; half.n_cells()]), half));
        let others = |predicted: &[f64]| -> Vec<f64> {
            let truths = self.truths.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, truth)| truth);
            let all = truths.chain(self.training.profiles.iter().map(|profile| &profile.mean));
            all.map(|other| squared_distance(predicted, other)).collect()
        };
        let mut predictions: Vec<&[f64]> = predictors.iter().map(|predictor| &predictor.means[number][..]).collect();
        // The other half of the cells stands in for a prediction.
        predictions.push(&halves[1].0);
        let scale = ScoreFrame {
            reference: &self.training.reference,
            centroid: &self.training.centroid,
            weights: weights_of(&welch(&halves[0].1, of_controls)),
            strongest: strongest(&welch(&cells, of_controls)),
            others: predictions.iter().map(|predicted| others(predicted)).collect(),
        };
        let p = predictors.len();
        let against = |truth: &[f64]| -> Vec<Scores> {
            (0..=p).map(|which| scale.scores(which, truth, predictions[which])).collect()
        };
        let truth = &self.truths[number];
        let mut scores = against(truth);
        scores.truncate(p);
        let few = cells.spread(ENERGY_CELLS);
        for (scores, predictor) in scores.iter_mut().zip(predictors) {
            scores[Score::Rank as usize] = rank(truth, number, &predictor.means);
            let predicted = predictor.cells[number].spread(ENERGY_CELLS);
            scores[Score::EnergyDistance as usize] = energy_distance(self.team, &predicted, &few);
        }
        let of_model = predictors.iter().find_map(|predictor| Some((&predictor.means, predictor.variances.as_ref()?)));
        if let Some((means, variances)) = of_model {
            let (_, scatter) = cells.moments();
            let genes = truth.iter().zip(&means[number]).zip(variances[number].iter().zip(&scatter));
            let miss = |((truth, mean), (variance, scatter)): ((&f64, &f64), (&f64, &f64))| Miss {
                square: (truth - mean).powi(2),
                variance: *variance,
                sampling: scatter / cells.n_cells() as f64,
            };
            self.misses.push(genes.map(miss).collect());
        }
        let mut half_scores = against(&halves[0].0);
        self.ceilings.push(half_scores.pop().expect("the other half"));
        let mut again = vec![vec![[f64::NAN; N_SCORES]; p]; RESAMPLES];
        self.team.run(RESAMPLES, tiles(&mut again, 1), |b, again| {
            let times = resample(cells.n_cells(), self.seed, Item::Combination(number), b);
            let truth = cells.mean_weighted(&times);
            for (which, scores) in again[0].iter_mut().enumerate() {
                *scores = scale.scores(which, &truth, predictions[which]);
            }
        });
        if self.resampled.is_empty() {
            self.resampled = vec![vec![[0.0; N_SCORES]; p]; RESAMPLES];
        }
        for (sums, again) in self.resampled.iter_mut().flatten().zip(again.iter().flatten()) {
            sums.iter_mut().zip(again).for_each(|(sum, score)| *sum += score);
        }
        self.scores.push(scores);
        self.half_scores.push(half_scores);
        self.observed.push(cells);
        Ok(())
    }

    /// Mean over combinations of a score of a predictor.
    fn mean(&self, of: &[Vec<Scores>], predictor: usize, score: Score) -> f64 {
        of.iter().map(|scores| scores[predictor][score as usize]).sum::<f64>() / of.len() as f64
    }

    /// Half the width of the 95 % interval of what `of` says of the scores (sums over combinations) of the predictors.
    fn margin(&self, of: impl Fn(&[Scores]) -> f64) -> f64 {
        let n = self.combinations.len() as f64;
        let values: Vec<f64> = self.resampled.iter().map(|scores| of(scores) / n).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        DEVIATIONS_OF_95 * (squares / (values.len() - 1) as f64).sqrt()
    }

    fn ranges(&self, predictors: &[Predicted]) -> Vec<ScoreRange> {
        let place = |name: &str| predictors.iter().position(|predictor| predictor.name == name).expect("a baseline");
        let n = self.combinations.len() as f64;
        let of = |score: Score| {
            let floor = match score {
                Score::PearsonCentroid => PlainPrediction::NoChange,
                _ => PlainPrediction::PerturbedMean,
            };
            let floor = place(floor.name());
            let ceiling = self.ceilings.iter().map(|scores| scores[score as usize]).sum::<f64>() / n;
            let share = self.half_scores.iter().zip(&self.ceilings).map(|(scores, ceiling)| {
                let (low, high) = (scores[floor][score as usize], ceiling[score as usize]);
                ((high - low) / (score.perfect() - low)).clamp(-1.0, 1.0)
            });
            let dynamic_range = share.sum::<f64>() / n;
            ScoreRange {
                score: score.name(),
                floor: self.mean(&self.half_scores, floor, score),
                ceiling,
                dynamic_range,
            }
        };
        let resampled = |score: &Score| !matches!(score, Score::Rank | Score::EnergyDistance);
        Score::ALL.into_iter().filter(resampled).map(of).collect()
    }

    fn figures(&self, which: usize, predicted: &Predicted, ranges: &[ScoreRange]) -> PredictorFigures {
        let known = |value: f64| Some(value).filter(|value| value.is_finite());
        let of = |score: Score| {
            let range = ranges.iter().find(|range| range.score == score.name());
            let half = self.mean(&self.half_scores, which, score);
            ScoreFigure {
                score: score.name(),
                value: known(self.mean(&self.scores, which, score)),
                margin: range.and_then(|_| known(self.margin(|scores| scores[which][score as usize]))),
                of_range: range.and_then(|range| known((half - range.floor) / (range.ceiling - range.floor))),
            }
        };
        let flat = |profiles: &[Vec<f64>]| -> Vec<f64> {
            profiles.iter().flat_map(|mean| mean.iter().zip(&self.training.reference).map(|(x, r)| x - r)).collect()
        };
        let (truth, predictions) = (flat(&self.truths), flat(&predicted.means));
        let mean = truth.iter().sum::<f64>() / truth.len() as f64;
        let total: f64 = truth.iter().map(|t| (t - mean).powi(2)).sum();
        PredictorFigures {
            predictor: predicted.name,
            scores: Score::ALL.into_iter().map(of).collect(),
            flat_pearson: pearson(&truth, &predictions, &vec![0.0; truth.len()]),
            flat_r2: 1.0 - squared_distance(&truth, &predictions) / total,
        }
    }

    fn comparisons(&self, predictors: &[Predicted]) -> Vec<ModelComparison> {
        let model = predictors.iter().position(|predictor| predictor.name == MODEL).expect("the model");
        let mut found = Vec::new();
        for (which, predictor) in predictors[..PlainPrediction::ALL.len()].iter().enumerate() {
            for score in COMPARED {
                let at = score as usize;
                let difference = self.mean(&self.scores, model, score) - self.mean(&self.scores, which, score);
                let margin = self.margin(|scores| scores[model][at] - scores[which][at]);
                let gain = if score.higher_is_better() { difference } else { -difference };
                // A direction that a baseline does not have is not compared.
                if difference.is_finite() {
                    let (worse, better) = (gain < -margin, gain > margin);
                    let (baseline, score) = (predictor.name, score.name());
                    found.push(ModelComparison { baseline, score, difference, margin, worse, better });
                }
            }
        }
        found
    }

    fn judgement(
        &self,
        predictors: &[Predicted],
        bounds: Option<HeldOutBounds>,
        non_additive: Vec<NonAdditive>,
    ) -> PredictionJudgement {
        let ranges = self.ranges(predictors);
        let figures = |(which, predicted)| self.figures(which, predicted, &ranges);
        let each = self.combinations.iter().zip(&self.scores).flat_map(|(combination, scores)| {
            scores.iter().zip(predictors).map(|(&scores, predictor)| CombinationFigures {
                combination: combination.label.clone(),
                n_cells: combination.cells.len(),
                predictor: predictor.name,
                scores,
            })
        });
        PredictionJudgement {
            n_combinations: self.combinations.len(),
            n_cells: self.combinations.iter().map(|combination| combination.cells.len()).sum(),
            from_controls: self.training.has_controls,
            bounds,
            predictors: predictors.iter().enumerate().map(figures).collect(),
            comparisons: self.comparisons(predictors),
            intervals: intervals(&self.misses),
            combinations: each.collect(),
            ranges,
            non_additive,
        }
    }

    fn into_cells(self, predictors: Vec<Predicted>, controls: LogExpression) -> JudgedCells {
        let model = predictors.into_iter().find(|predictor| predictor.name == MODEL).expect("the model");
        let as_many = |(mut predicted, observed): (LogExpression, &LogExpression)| {
            predicted.values.truncate(observed.values.len());
            predicted
        };
        JudgedCells {
            labels: self.combinations.iter().map(|combination| combination.label.clone()).collect(),
            predicted: model.cells.into_iter().zip(&self.observed).map(as_many).collect(),
            observed: self.observed,
            controls,
        }
    }
}

/// Share of the other predictions that are closer to what is observed than its own; equal ones count half.
fn rank(truth: &[f64], number: usize, predictions: &[Vec<f64>]) -> f64 {
    let own = squared_distance(truth, &predictions[number]);
    let others = || predictions.iter().enumerate().filter(|(other, _)| *other != number);
    let closer: f64 = others()
        .map(|(_, other)| match squared_distance(truth, other).total_cmp(&own) {
            std::cmp::Ordering::Less => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 0.0,
        })
        .sum();
    closer / others().count() as f64
}
