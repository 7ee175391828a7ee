//! What a trained model predicts of combinations of interventions, whether a screen has them or not.
//! Derivation: `derivations/predictions.md`.

use std::collections::{BTreeMap, HashMap};

use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

use crate::data::combinations::{combination_label, parse_combination};
use crate::data::counts::in_memory::{Counts, CountsBuilder};
use crate::data::dataset::{Dataset, InterventionRows};
use crate::data::loading::controls::names_control;
use crate::error::Result;
use crate::evaluation::edge::DEVIATIONS_OF_95;
use crate::evaluation::predictions::kriging::{CarriedOver, Kriging, Residual, Site};
use crate::evaluation::predictions::observed::{ObservedEffect, ObservedEffects};
use crate::fit::fitted::{Fitted, ModelSource, TrainedNetwork};
use crate::fit::sample::draw_counts;
use crate::inference::prediction::{Basis, Predictor, TOTAL, prior_latents};
use crate::inference::{Inference, evaluation_workspace};
use crate::model::latent;
use crate::model::network::Network;
use crate::model::prior::table::PriorTable;
use crate::numerics::random::{SamplerPurpose, sampler_stream};
use crate::numerics::real::Real;
use crate::parallel::team::{Team, tiles};
use crate::results::catalogue::ResultsFile;
use crate::results::page::folder::edges;
use crate::results::predictions::{PredictedControl, PredictedEffects, TakeCells, TakePredictions};
use crate::words::rejoined;

/// Cells whose mean is a prediction.
const CELLS: usize = 128;
/// Draws of shifts from their uncertainty, and the cells that each is decoded in.
const DRAWS: (usize, usize) = (32, 32);
/// Values of a prediction that are held at a time, about.
const HELD: usize = 1 << 17;
/// What stands for all pairs of trained interventions.
const ALL_PAIRS: &str = "all-pairs";
/// Least mean expression, counts per 10,000, of which a fold change is formed: the decoder's softmax may give none.
const LEAST: f64 = 1e-9;
/// Mean expression, counts per 10,000, that intervals of fold changes are cut off at.
const DETECTABLE: f64 = 1e-3;

/// Interventions that are to act together, each with its dose.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The canonical label.
    pub label: String,
    /// Numbers of the interventions, ascending, and their doses.
    pub members: Vec<(u32, f32)>,
}

/// Cells under no intervention from which predictions begin.
struct Start {
    /// Their covariates and size factors.
    data: Dataset,
    /// Their latents, cells x L.
    latents: Vec<f64>,
}

/// What predictions rest on beside the model.
#[derive(Debug, Clone, Copy)]
pub struct PredictionBasis<'a> {
    /// Control cells to begin from; `None`: cells are drawn from the prior.
    pub controls: Option<&'a Dataset>,
    /// What training cells show; `None`: the model predicts alone.
    pub observed: Option<&'a ObservedEffects>,
    /// How many times wider intervals are than training cells say, [`Fitted::interval_widening`].
    pub widening: f64,
}

/// What is known of a shift: the probability of its mask, itself, and its standard error.
type UncertainShift = (f64, f64, f64);

impl Fitted {
    /// The combinations that entries such as `A+B`, `A x 0.5+B` or `all-pairs` name, each once, in their order; members without a
    /// dose get `dose`.
    ///
    /// # Errors
    /// [`crate::InputError`] for a member that the model does not know (with the nearest one), for a combination of controls alone,
    /// and where nothing is named.
    pub fn wanted(&self, entries: &[String], dose: f32) -> Result<Vec<Wanted>> {
        let flag = "--interventions";
        let names = &self.trained_on.interventions;
        let number: HashMap<&str, usize> = names.iter().enumerate().map(|(a, name)| (name.as_str(), a)).collect();
        let is_control = |name: &str| names_control(&self.settings.input.control, name);
        // Names may have commas, at which the list was cut.
        let position = |name: &str| number.get(name).copied();
        let is_known = |entry: &str| parse_combination(entry, position, is_control).is_ok();
        let (mut wanted, mut places) = (Vec::new(), BTreeMap::new());
        let mut add = |members: Vec<(u32, f32)>| {
            let (numbers, doses): (Vec<u32>, Vec<f32>) = members.iter().copied().unzip();
            let label = combination_label(names, &numbers, &doses);
            places.entry(label.clone()).or_insert_with(|| wanted.push(Wanted { label, members }));
        };
        for entry in &rejoined(entries, is_known) {
            if entry == ALL_PAIRS && !number.contains_key(entry.as_str()) {
                let trained = self.donors()?.trained;
                let known: Vec<u32> = (0..names.len() as u32).filter(|&a| trained[a as usize]).collect();
                for (i, &a) in known.iter().enumerate() {
                    known[i + 1..].iter().for_each(|&b| add(vec![(a, dose), (b, dose)]));
                }
                continue;
            }
            let known = |name: &str| number.get(name).copied();
            let mut members = parse_combination(entry, known, is_control).map_err(|unknown| {
                match self.trained_on.find(std::slice::from_ref(&unknown), names, "intervention", flag) {
                    Err(error) => error,
                    Ok(_) => self.trained_on.error_at(format!("`{entry}` is no combination"), "write A+B", flag),
                }
            })?;
            if members.is_empty() {
                let problem = format!("`{entry}` names no intervention, only controls");
                return Err(self.trained_on.error_at(problem, "name one intervention or more, as in A+B", flag));
            }
            members.iter_mut().filter(|member| member.1 == 1.0).for_each(|member| member.1 = dose);
            add(members);
        }
        if wanted.is_empty() {
            let remedy = "name combinations (A+B), a file of them (@FILE) or all-pairs";
            return Err(self.trained_on.error_at("no combination is named", remedy, flag));
        }
        Ok(wanted)
    }

    /// How many times wider the intervals of predictions are than training cells say, by how far the combinations that the run held out
    /// were missed, Eq. (J10); 1 where none was judged.
    pub fn interval_widening(&self) -> f64 {
        let ModelSource::Folder(folder) = &self.source else { return 1.0 };
        let text = std::fs::read_to_string(ResultsFile::Judgement.within(folder)).unwrap_or_default();
        let judged: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        judged.and_then(|judged| judged["intervals"]["widening"].as_f64()).unwrap_or(1.0)
    }

    /// Predicts the mean expression under each of the `wanted` combinations, and passes it to `take`, so many at a time that memory
    /// does not grow with their number.
    ///
    /// The same cells are decoded under every combination and without one: `controls`, or cells drawn from the prior with the
    /// covariates of training cells. What training cells of combinations show beyond the model is carried over, Eq. (Cb9). Where a
    /// member was held out, the model fitted to it is used for all.
    ///
    /// # Errors
    /// [`crate::InputError`] for an intervention that the model was never fitted to, or a model that cannot predict; those of `take`.
    pub fn predict(
        &self,
        wanted: &[Wanted],
        basis: PredictionBasis<'_>,
        seed: u64,
        take: &mut dyn TakePredictions,
    ) -> Result<()> {
        let held_out = self.check_predicts(wanted)?;
        match &*self.weights_for(held_out)? {
            TrainedNetwork::Single(network) => self.predict_in(network, wanted, basis, seed, take),
            TrainedNetwork::Double(network) => self.predict_in(network, wanted, basis, seed, take),
            TrainedNetwork::Linear(_) => unreachable!("refused before"),
        }
    }

    /// Simulates `cells` cells under each of the `wanted` combinations, as [`Fitted::predict`] begins and [`Fitted::sample`] draws, and
    /// passes them to `take`, a few combinations at a time. The mean of each gene is moved from what the model predicts alone to what
    /// [`Fitted::predict`] does.
    ///
    /// # Errors
    /// As [`Fitted::predict`].
    pub fn predict_cells(
        &self,
        wanted: &[Wanted],
        basis: PredictionBasis<'_>,
        cells: usize,
        seed: u64,
        take: &mut dyn TakeCells,
    ) -> Result<()> {
        let held_out = self.check_predicts(wanted)?;
        match &*self.weights_for(held_out)? {
            TrainedNetwork::Single(network) => self.cells_in(network, wanted, basis, (cells, seed), take),
            TrainedNetwork::Double(network) => self.cells_in(network, wanted, basis, (cells, seed), take),
            TrainedNetwork::Linear(_) => unreachable!("refused before"),
        }
    }

    /// The held-out intervention among the wanted ones, if there is one.
    fn check_predicts(&self, wanted: &[Wanted]) -> Result<Option<usize>> {
        if !self.settings.model.method.uses_interventions() {
            let problem =
                format!("the latents of a {} do not depend on interventions", self.settings.model.method.name());
            let remedy = "train a model whose prior has shifts (sVAE+, sVAE, iVAE)";
            return Err(self.trained_on.error(problem, remedy));
        }
        self.settings.refuse_without_network("prediction").map_err(|error| self.trained_on.located(error))?;
        let trained = self.donors()?.trained;
        let mut members = wanted.iter().flat_map(|wanted| &wanted.members).map(|&(a, _)| a as usize);
        Ok(members.find(|&a| !trained[a]))
    }

    fn predict_in<R: Real>(
        &self,
        network: &Network<R>,
        wanted: &[Wanted],
        basis: PredictionBasis<'_>,
        seed: u64,
        take: &mut dyn TakePredictions,
    ) -> Result<()> {
        let g = self.trained_on.genes.len();
        let prior = network.prior();
        Team::with(self.settings.n_threads(), |team| {
            let start = self.start(team, network, basis.controls, CELLS, seed)?;
            let cells: Vec<usize> = (0..CELLS).collect();
            let from = Basis { data: &start.data, cells: &cells, latents: &start.latents };
            let mut predictor = Predictor::new(team, network, from);
            let control = mean_expression(&mut predictor, &[prior.expected_mean(&[])]);
            let at_once = (HELD / g).clamp(1, 1024);
            let from_held_out_fit = self.check_predicts(wanted)?.is_some();
            let of_members = self.variances(team, network, wanted, &start, seed)?;
            let beyond = basis.observed.and_then(|seen| BeyondModel::new(&mut predictor, prior, seen, &control));
            let mean = beyond.as_ref().map_or(&control, |beyond| beyond.observed).clone();
            take.control(&PredictedControl { mean, at_once, from_held_out_fit })?;
            for wanted in wanted.chunks(at_once) {
                let means: Vec<Vec<f64>> = wanted.iter().map(|wanted| prior.expected_mean(&wanted.members)).collect();
                let expression = mean_expression(&mut predictor, &means);
                let mut predictions: Vec<Option<PredictedEffects>> = vec![None; wanted.len()];
                team.run(wanted.len(), tiles(&mut predictions, 1), |i, to| {
                    let mean = &expression[i * g..(i + 1) * g];
                    to[0] = Some(match &beyond {
                        Some(beyond) => beyond.predicted(&wanted[i], &means[i], mean, basis.widening),
                        None => predicted_alone(&wanted[i], mean, &control, &of_members),
                    });
                });
                take.predictions(team, &predictions.into_iter().flatten().collect::<Vec<_>>())?;
            }
            Ok(())
        })
    }

    fn cells_in<R: Real>(
        &self,
        network: &Network<R>,
        wanted: &[Wanted],
        basis: PredictionBasis<'_>,
        (cells, seed): (usize, u64),
        take: &mut dyn TakeCells,
    ) -> Result<()> {
        let (l, g) = (self.settings.model.latents, self.trained_on.genes.len());
        let prior = network.prior();
        Team::with(self.settings.n_threads(), |team| {
            let of_means = self.start(team, network, basis.controls, CELLS, seed)?;
            let means: Vec<usize> = (0..CELLS).collect();
            let from = Basis { data: &of_means.data, cells: &means, latents: &of_means.latents };
            let mut predictor = Predictor::new(team, network, from);
            let control = mean_expression(&mut predictor, &[prior.expected_mean(&[])]);
            let beyond = basis.observed.and_then(|seen| BeyondModel::new(&mut predictor, prior, seen, &control));
            let start = self.start(team, network, basis.controls, cells, seed)?;
            let all: Vec<usize> = (0..wanted.len()).flat_map(|_| 0..cells).collect();
            let names: Vec<String> =
                wanted.iter().flat_map(|wanted| (0..cells).map(|n| format!("{}_{n}", wanted.label))).collect();
            // Cells that have no counts yet.
            let mut none = CountsBuilder::new(g);
            all.iter().for_each(|_| none.end_cell());
            let mut data = self.trained_on.dataset(none.finish(), names.into());
            data.library = all.iter().map(|&n| start.data.library[n]).collect();
            data.covariates = start.data.covariates.select(&all);
            data.interventions = InterventionRows::one_hot((0..wanted.len()).flat_map(|c| vec![c; cells]));
            data.intervention_names = wanted.iter().map(|wanted| wanted.label.clone()).collect();
            take.begin(&data, self.check_predicts(wanted)?.is_some())?;
            let at_once = (HELD / (g * cells)).max(1);
            for (chunk, wanted) in wanted.chunks(at_once).enumerate() {
                let first = chunk * at_once;
                let mut z = Vec::with_capacity(wanted.len() * cells * l);
                for wanted in wanted {
                    for n in 0..cells {
                        let mut random = sampler_stream(seed, SamplerPurpose::ModelLatents, n);
                        let start = &start.latents[n * l..(n + 1) * l];
                        network.draw_latents(&wanted.members, Some(start), &mut random, &mut z);
                    }
                }
                let factors = match &beyond {
                    Some(beyond) => beyond.factors(&mut predictor, prior, wanted),
                    None => Vec::new(),
                };
                let range = first * cells..(first + wanted.len()) * cells;
                let counts = draw_counts(team, network, &data, (range, &z), |n| {
                    let factors = factors.get(n / cells - first).map(|factors: &Vec<f64>| &factors[..]);
                    ((seed, n % cells), factors)
                });
                take.cells(counts, &z.iter().map(|z| z.to_f64()).collect::<Vec<_>>())?;
            }
            Ok(())
        })
    }

    /// So many cells to begin from: control cells in turn with samples of their posterior, or samples of the prior with what
    /// evenly spread training cells have.
    fn start<R: Real>(
        &self,
        team: &Team,
        network: &Network<R>,
        controls: Option<&Dataset>,
        n: usize,
        seed: u64,
    ) -> Result<Start> {
        let l = network.architecture.n_latents;
        let names: Vec<String> = (0..n).map(|i| i.to_string()).collect();
        let Some(controls) = controls else {
            let donors = self.donors()?;
            let mut data = self.trained_on.dataset(Counts::from_dense(self.trained_on.genes.len(), &[]), names.into());
            (0..n).for_each(|i| donors.give(donors.cells[i * donors.cells.len() / n], None, &mut data, i));
            return Ok(Start { data, latents: prior_latents(n, l, seed) });
        };
        let controls = self.trained_on.as_seen(controls, true)?;
        let there = controls.n_cells();
        let picks: Vec<usize> = (0..n).map(|i| if there >= n { i * there / n } else { i % there }).collect();
        let all: Vec<usize> = (0..there).collect();
        let workspace = &mut evaluation_workspace(network, &controls);
        let posterior = Inference { team, network, data: &controls, workspace }.posterior(&all)?;
        let width = network.architecture.factor_width();
        let mut latents = Vec::with_capacity(n * l);
        for (i, &cell) in picks.iter().enumerate() {
            let mut random = sampler_stream(seed, SamplerPurpose::PredictedLatents, i);
            let mut z = posterior.mean[cell * l..(cell + 1) * l].to_vec();
            let mut draws = vec![R::ZERO; l];
            for (k, draw) in draws.iter_mut().enumerate() {
                let noise: f64 = StandardNormal.sample(&mut random);
                *draw = R::from_f64(noise);
                z[k] += posterior.variance[cell * l + k].sqrt() * *draw;
            }
            latent::correlate(&mut z, &posterior.factor[cell * width..(cell + 1) * width], &draws, l);
            latents.extend(z.iter().map(|z| z.to_f64()));
        }
        let mut data = self.trained_on.dataset(Counts::from_dense(self.trained_on.genes.len(), &[]), names.into());
        data.library = picks.iter().map(|&cell| controls.library[cell]).collect();
        data.covariates = controls.covariates.select(&picks);
        Ok(Start { data, latents })
    }

    /// Variance of the log2 fold change of each gene under each member at each of its doses, by draws of its shifts from their
    /// uncertainty, Eq. (Cb5); `None` where that is not known.
    fn variances<R: Real>(
        &self,
        team: &Team,
        network: &Network<R>,
        wanted: &[Wanted],
        start: &Start,
        seed: u64,
    ) -> Result<Variances> {
        let mut members: Vec<(u32, u32)> =
            wanted.iter().flat_map(|wanted| &wanted.members).map(|&(a, dose)| (a, dose.to_bits())).collect();
        members.sort_unstable();
        members.dedup();
        let Some(shifts) = self.uncertain_shifts(network)? else { return Ok(Variances::new()) };
        let (l, g) = (network.architecture.n_latents, network.architecture.n_genes);
        let (draws, n_cells) = DRAWS;
        let cells: Vec<usize> = (0..n_cells).map(|i| i * start.data.library.len() / n_cells).collect();
        let latents: Vec<f64> =
            cells.iter().flat_map(|&cell| &start.latents[cell * l..(cell + 1) * l]).copied().collect();
        let mut predictor =
            Predictor::new(team, network, Basis { data: &start.data, cells: &cells, latents: &latents });
        let mut variances = Variances::new();
        for (a, bits) in members {
            let Some(of_member) = shifts.get(&a) else { continue };
            let mut random = sampler_stream(seed, SamplerPurpose::PredictedShifts, a as usize);
            let dose = f64::from(f32::from_bits(bits));
            let means: Vec<Vec<f64>> = (0..draws)
                .map(|_| {
                    let of = |&(probability, shift, error): &UncertainShift| {
                        let on = random.random::<f64>() < probability;
                        let noise: f64 = StandardNormal.sample(&mut random);
                        if on { dose * (shift + error * noise) } else { 0.0 }
                    };
                    of_member.iter().map(of).collect()
                })
                .collect();
            let expression = mean_expression(&mut predictor, &means);
            let logs: Vec<f64> =
                expression.iter().map(|mean| Real::ln(mean.max(LEAST)) / std::f64::consts::LN_2).collect();
            let variance = |gene: usize| {
                let of_draws = || logs.iter().skip(gene).step_by(g);
                let mean = of_draws().sum::<f64>() / draws as f64;
                of_draws().map(|value| (value - mean) * (value - mean)).sum::<f64>() / (draws - 1) as f64
            };
            variances.insert((a, bits), (0..g).map(variance).collect());
        }
        Ok(variances)
    }

    /// The shifts of each intervention of which it is known how uncertain they are; `None` where it is of none.
    fn uncertain_shifts<R: Real>(&self, network: &Network<R>) -> Result<Option<BTreeMap<u32, Vec<UncertainShift>>>> {
        let (names, l) = (&self.trained_on.interventions, network.architecture.n_latents);
        let edges = match &self.source {
            ModelSource::Training(record) => match &record.interpretation.certainty {
                Some(certainty) => certainty.edges.clone(),
                None => return Ok(None),
            },
            ModelSource::Folder(folder) => {
                let path = ResultsFile::Edges.within(folder);
                if !path.is_file() {
                    return Ok(None);
                }
                edges(&path, names, l)?
            }
        };
        let prior = network.prior();
        let mut shifts: BTreeMap<u32, Vec<UncertainShift>> = BTreeMap::new();
        for edge in edges {
            let (a, k) = (edge.intervention, edge.latent);
            let of_intervention = shifts.entry(a as u32).or_insert_with(|| vec![(0.0, 0.0, 0.0); l]);
            let error = (edge.shift_high - edge.shift_low) / (2.0 * DEVIATIONS_OF_95);
            let error = if error.is_finite() { error } else { 0.0 };
            of_intervention[k] = (prior.probability(a, k).to_f64(), prior.shift(a, k).to_f64(), error);
        }
        Ok(Some(shifts))
    }
}

/// Variances of log2 fold changes by member and the bits of its dose; genes each.
type Variances = BTreeMap<(u32, u32), Vec<f64>>;

/// Mean expression, counts per 10,000: combinations x G.
fn mean_expression<R: Real>(predictor: &mut Predictor<'_, R>, means: &[Vec<f64>]) -> Vec<f64> {
    let mut rates = predictor.mean_rates(means);
    rates.iter_mut().for_each(|rate| *rate *= TOTAL);
    rates
}

/// What observed combinations show beyond the model in ln(1 + mean expression), ready to be carried over.
struct BeyondModel<'a> {
    kriging: Kriging,
    /// Mean expression of control cells by the model, and as observed.
    control: &'a [f64],
    observed: &'a Vec<f64>,
}

impl<'a> BeyondModel<'a> {
    /// `None` where that is nothing but noise.
    fn new<R: Real>(
        predictor: &mut Predictor<'_, R>,
        prior: PriorTable<'_, R>,
        observed: &'a ObservedEffects,
        control: &'a [f64],
    ) -> Option<Self> {
        let seen = &observed.combinations;
        let means: Vec<Vec<f64>> = seen.iter().map(|seen| prior.expected_mean(&seen.members)).collect();
        let expression = mean_expression(predictor, &means);
        let residual = |((seen, latents), mean): ((&ObservedEffect, Vec<f64>), &[f64])| {
            let effect = mean.iter().zip(control).map(|(mean, control)| logarithm(*mean) - logarithm(*control));
            Residual {
                site: Site { members: seen.members.clone(), latents },
                residual: seen.effect.iter().zip(effect).map(|(seen, predicted)| seen - predicted).collect(),
                variance: seen.variance.clone(),
            }
        };
        let residuals: Vec<Residual> =
            seen.iter().zip(means).zip(expression.chunks_exact(control.len())).map(residual).collect();
        Some(Self { kriging: Kriging::new(&residuals, true)?, control, observed: &observed.control })
    }

    /// The effects under a combination with these prior means of its latents and this mean expression by the model, Eq. (Cb9), as the
    /// mean expression that they lead to from observed control cells; and what is carried over.
    fn mean(&self, wanted: &Wanted, latents: &[f64], mean: &[f64]) -> (Vec<f64>, CarriedOver) {
        let site = Site { members: wanted.members.clone(), latents: latents.to_vec() };
        let carried = self.kriging.carry_over(&site);
        let of = |gene: usize| {
            let effect = logarithm(mean[gene]) - logarithm(self.control[gene]) + carried.residual[gene];
            moved(self.observed[gene], effect)
        };
        ((0..mean.len()).map(of).collect(), carried)
    }

    /// The prediction of a combination, Eq. (Cb9), with its intervals, Eq. (Cb12).
    fn predicted(&self, wanted: &Wanted, latents: &[f64], mean: &[f64], widening: f64) -> PredictedEffects {
        let (mean, carried) = self.mean(wanted, latents, mean);
        let control = self.observed;
        let effect: Vec<f64> =
            mean.iter().zip(control).map(|(mean, control)| logarithm(*mean) - logarithm(*control)).collect();
        let log2_fold_change: Vec<f64> =
            mean.iter().zip(control).map(|(mean, control)| log2(*mean) - log2(*control)).collect();
        let interval = [-DEVIATIONS_OF_95, DEVIATIONS_OF_95].map(|deviations| {
            let end = |gene: usize| {
                let deviation = deviations * widening * carried.variance[gene].sqrt();
                // What cannot be detected is all the same; the prediction itself stays inside.
                let floor = DETECTABLE.min(mean[gene]);
                let end = (1.0 + control[gene]) * Real::exp(effect[gene] + deviation) - 1.0;
                log2(end.max(floor)) - log2(control[gene])
            };
            (0..control.len()).map(end).collect()
        });
        let (label, n_members) = (wanted.label.clone(), wanted.members.len());
        PredictedEffects { label, n_members, mean, effect, log2_fold_change, interval: Some(interval) }
    }

    /// By which factor the mean of each gene under each combination is moved from what the model says alone.
    fn factors<R: Real>(
        &self,
        predictor: &mut Predictor<'_, R>,
        prior: PriorTable<'_, R>,
        wanted: &[Wanted],
    ) -> Vec<Vec<f64>> {
        let latents: Vec<Vec<f64>> = wanted.iter().map(|wanted| prior.expected_mean(&wanted.members)).collect();
        let expression = mean_expression(predictor, &latents);
        let of = |((wanted, latents), alone): ((&Wanted, Vec<f64>), &[f64])| -> Vec<f64> {
            let (mean, _) = self.mean(wanted, &latents, alone);
            mean.iter().zip(alone).map(|(mean, alone)| mean / alone.max(LEAST)).collect()
        };
        wanted.iter().zip(latents).zip(expression.chunks_exact(self.control.len())).map(of).collect()
    }
}

/// ln(1 + m) of a mean expression m.
fn logarithm(mean: f64) -> f64 {
    Real::ln(1.0 + mean)
}

/// The prediction of a combination from the model's mean expression of it and of control (G each), Eqs. (Cb4) and (Cb5).
fn predicted_alone(wanted: &Wanted, mean: &[f64], control: &[f64], variances: &Variances) -> PredictedEffects {
    let effect: Vec<f64> =
        mean.iter().zip(control).map(|(mean, control)| logarithm(*mean) - logarithm(*control)).collect();
    let log2_fold_change: Vec<f64> =
        mean.iter().zip(control).map(|(mean, control)| log2(*mean) - log2(*control)).collect();
    let of_members: Option<Vec<&Vec<f64>>> =
        wanted.members.iter().map(|&(a, dose)| variances.get(&(a, dose.to_bits()))).collect();
    let interval = of_members.map(|of_members| {
        [-DEVIATIONS_OF_95, DEVIATIONS_OF_95].map(|deviations| {
            let end = |(gene, change): (usize, &f64)| {
                let variance: f64 = of_members.iter().map(|variances| variances[gene]).sum();
                change + deviations * variance.sqrt()
            };
            log2_fold_change.iter().enumerate().map(end).collect()
        })
    });
    let (label, n_members) = (wanted.label.clone(), wanted.members.len());
    PredictedEffects { label, n_members, mean: mean.to_vec(), effect, log2_fold_change, interval }
}

/// A mean expression moved by so much of ln(1 + mean); never by more than there is, down to what can be detected.
fn moved(mean: f64, beyond: f64) -> f64 {
    (mean + (1.0 + mean) * (Real::exp(beyond) - 1.0)).max(mean.min(DETECTABLE)).max(LEAST)
}

/// Base-2 logarithm of a mean expression.
fn log2(mean: f64) -> f64 {
    Real::ln(mean.max(LEAST)) / std::f64::consts::LN_2
}
