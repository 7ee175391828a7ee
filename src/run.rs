//! A whole run on one page: data, split, training, evaluation, results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::config::{self, Config, LatentDistribution, MaskKind, Method, Precision, Source};
use crate::data::dataset::Dataset;
use crate::data::load::{LoadOptions, load, write_npz};
use crate::data::npz::NpzWriter;
use crate::data::{simulate as simulator, split};
use crate::error::{InputError, Result};
use crate::evaluation::correlation::{Correlation, Latents};
use crate::evaluation::target_graph::{TargetScore, masks_from_probabilities, score_targets, targets_from_prior_means};
use crate::evaluation::{mcc, pooled, regression};
use crate::model::architecture::{self, Architecture, Prior};
use crate::model::network::Network;
use crate::model::objective::{Objective, Penalty};
use crate::numerics::real::Real;
use crate::numerics::team::Team;
use crate::report::metrics::{
    BaselineMetrics, GraphMetrics, MaskMetrics, Metrics, PrecisionRecall, Timing, peak_rss_bytes,
};
use crate::report::progress::{Progress, ProgressKind};
use crate::report::results::{ResultsFolder, Tensor, check_destination};
use crate::report::verification::Verification;
use crate::training::adam::AdamSettings;
use crate::training::trainer::{Training, TrainingSettings, elbo, evaluation_workspace, posterior_means, train};

/// What a run leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its figures.
    pub metrics: Metrics,
    /// Its results folder.
    pub folder: PathBuf,
}

/// Trains a model as `config` says and writes a results folder.
///
/// # Errors
/// Input that cannot be used (nothing is written then), a failed write, or a loss that is not finite (the results of
/// the last good state are written then).
pub fn run(config: &Config) -> Result<Outcome> {
    let start = Instant::now();
    check_destination(config.out.as_deref(), config.overwrite)?;
    let (data, notes) = read(config)?;
    let held_out = config.held_out(&data.intervention_names)?;
    let cells = Cells::new(config, &data, &held_out)?;
    let config = config.resolved(&data.intervention_names, cells.train.len())?;
    let folder = ResultsFolder::create(config.out.as_deref(), config.overwrite)?;
    match config.precision {
        Precision::F32 => run_in::<f32>(&config, &data, &cells, folder, &notes, start),
        Precision::F64 => run_in::<f64>(&config, &data, &cells, folder, &notes, start),
    }
}

/// The screen that the settings name, and what there is to say about it.
fn read(config: &Config) -> Result<(Dataset, Vec<String>)> {
    match config.source() {
        Source::File(path) => {
            let options = LoadOptions {
                label_key: config.label_key.clone(),
                batch_key: config.batch_key.clone(),
                categorical_covariates: config.categorical_covariates.clone(),
                continuous_covariates: config.continuous_covariates.clone(),
                size_factor_key: config.size_factor_key.clone(),
                drop_empty_cells: config.drop_empty_cells,
            };
            let loaded = load(path, &options)?;
            Ok((loaded.dataset, loaded.notes))
        }
        Source::Simulation(simulation) => {
            let dataset = simulator::simulate(&simulator_settings(simulation))?.dataset;
            Ok((dataset, Vec::new()))
        }
    }
}

fn simulator_settings(s: &config::Simulation) -> simulator::Simulation {
    simulator::Simulation {
        kind: match s.kind {
            config::SimulationKind::SparseShift => simulator::SimulationKind::SparseShift,
            config::SimulationKind::Paper => simulator::SimulationKind::Paper,
        },
        n_interventions: s.interventions,
        n_latents: s.latents,
        n_genes: s.genes,
        cells_per_intervention: s.cells,
        seed: s.seed,
        n_targeted_latents: None,
    }
}

/// Which cells train, validate and are held out, by number, ascending.
struct Cells {
    train: Vec<usize>,
    validation: Vec<usize>,
    /// Whether each intervention is trained on.
    trained: Vec<bool>,
}

impl Cells {
    fn new(config: &Config, data: &Dataset, held_out: &[usize]) -> Result<Self> {
        let mut trained = vec![true; data.n_interventions()];
        held_out.iter().for_each(|&a| trained[a] = false);
        let in_training = |&n: &usize| data.interventions.row(n).0.iter().all(|&a| trained[a as usize]);
        let cells: Vec<usize> = (0..data.n_cells()).filter(in_training).collect();
        let (train, validation) = split::split(&cells, config.validation_fraction, config.seed)?;
        if train.len() < 3 {
            let problem = format!("only {} cells are left to train on", train.len());
            return Err(InputError::new(problem, "hold out less, or bring more cells").in_file(&data.source).into());
        }
        Ok(Self { train, validation, trained })
    }
}

/// The network that the settings describe, for this screen.
pub fn architecture(config: &Config, data: &Dataset) -> Architecture {
    let kind = match config.mask {
        MaskKind::Hard => architecture::MaskKind::Hard,
        MaskKind::Soft => architecture::MaskKind::Soft,
    };
    Architecture {
        n_hidden: config.hidden,
        n_layers: config.layers,
        categorical_levels: data.covariates.categorical.iter().map(|column| column.levels.len()).collect(),
        n_continuous: data.covariates.continuous.len(),
        encode_covariates: config.encode_covariates,
        deeply_inject_covariates: config.deeply_inject_covariates,
        batch_norm: config.batch_norm,
        layer_norm: config.layer_norm,
        dropout_rate: config.dropout,
        latent_distribution: match config.latent_distribution {
            LatentDistribution::Normal => architecture::LatentDistribution::Normal,
            LatentDistribution::LogisticNormal => architecture::LatentDistribution::LogisticNormal,
        },
        prior: match config.method {
            Method::Vae | Method::BetaVae => Prior::Standard,
            Method::Ivae => Prior::Shifted,
            Method::Svae | Method::SvaePlus => Prior::Masked { kind, temperature: config.temperature },
        },
        likelihood_epsilon: config.likelihood_epsilon,
        ..Architecture::new(data.n_genes(), data.n_interventions(), config.latents)
    }
}

/// The objective that the settings describe, on `n_cells` training cells.
pub fn objective(config: &Config, n_interventions: usize, n_cells: usize) -> Objective {
    let alpha = config.alpha_for(n_interventions);
    Objective {
        penalty: match config.method {
            Method::Vae | Method::BetaVae | Method::Ivae => Penalty::None,
            Method::Svae => Penalty::MeanProbability { alpha },
            Method::SvaePlus => Penalty::SpikeAndSlab { alpha },
        },
        beta: config.beta,
        scale_to_all_cells: config.method == Method::SvaePlus,
        n_cells,
    }
}

fn training_settings(config: &Config, n_training: usize) -> TrainingSettings {
    TrainingSettings {
        epochs: config.epochs_for(n_training),
        batch_size: config.batch_size,
        warmup_epochs: config.warmup_epochs,
        patience: config.patience,
        keep: config.keep,
        adam: AdamSettings {
            learning_rate: config.learning_rate,
            epsilon: config.adam_epsilon,
            weight_decay: config.weight_decay,
            ..AdamSettings::default()
        },
        seed: config.seed,
    }
}

fn run_in<R: Real>(
    config: &Config,
    data: &Dataset,
    cells: &Cells,
    folder: ResultsFolder,
    notes: &[String],
    start: Instant,
) -> Result<Outcome>
where
    for<'a> &'a [R]: Into<crate::report::results::TensorValues<'a>>,
{
    let settings = training_settings(config, cells.train.len());
    let objective = objective(config, data.n_interventions(), cells.train.len());
    let mut network = Network::<R>::new(architecture(config, data), config.seed);
    let mut progress = Progress::new(ProgressKind::choose(config.quiet), settings.epochs, cells.train.len());
    for note in notes {
        progress.note(note);
    }
    Team::with(config.n_threads(), |team| {
        let training =
            train(team, &mut network, data, &cells.train, &cells.validation, &objective, &settings, |record| {
                progress.epoch(record)
            });
        progress.finish();
        let results = evaluate(team, config, data, cells, &network, &objective, &training, start)?;
        write(config, data, &folder, &network, &training, &results)?;
        match training.non_finite {
            Some(non_finite) => Err(non_finite.into()),
            None => Ok(Outcome { metrics: results.metrics, folder: folder.path().to_path_buf() }),
        }
    })
}

/// What evaluation finds.
struct Results<R> {
    metrics: Metrics,
    /// Posterior means of all cells, cells x L.
    latents: Vec<R>,
}

fn evaluate<R: Real>(
    team: &Team,
    config: &Config,
    data: &Dataset,
    cells: &Cells,
    network: &Network<R>,
    objective: &Objective,
    training: &Training,
    start: Instant,
) -> Result<Results<R>> {
    let mut workspace = evaluation_workspace(network, data);
    let mut elbo_of = |cells: &[usize]| elbo(team, network, &mut workspace, data, cells, objective, config.seed).total;
    let (elbo_train, elbo_validation) = (elbo_of(&cells.train), elbo_of(&cells.validation));
    let all: Vec<usize> = (0..data.n_cells()).collect();
    let latents = posterior_means(team, network, &mut workspace, data, &all);
    let l = network.architecture.n_latents;

    let probabilities = network.mask_probabilities();
    let masks = probabilities.as_ref().map(|p| {
        let p: Vec<f64> = p.iter().map(|p| p.f64()).collect();
        masks_from_probabilities(&p)
    });
    let mask = masks.as_ref().map(|masks| {
        let rows = || masks.chunks_exact(l).zip(&cells.trained).filter(|(_, trained)| **trained).map(|(row, _)| row);
        let on = rows().flatten().filter(|on| **on).count();
        MaskMetrics {
            fraction_on: on as f64 / rows().flatten().count() as f64,
            interventions_with_target: rows().filter(|row| row.contains(&true)).count(),
        }
    });

    let mut metrics = Metrics {
        method: config.method,
        seed: config.seed,
        n_cells: data.n_cells(),
        n_genes: data.n_genes(),
        n_interventions: data.n_interventions(),
        epochs: training.history.len(),
        stop_reason: training.stop_reason,
        elbo_train,
        elbo_validation,
        mcc_pearson: None,
        mcc_spearman: None,
        r2: None,
        graph: None,
        mask,
        baseline: None,
        timing: Timing {
            train_seconds: training.seconds,
            cells_per_second: training.cells_passed as f64 / training.seconds,
            total_seconds: 0.0,
            peak_rss_bytes: None,
        },
    };
    if !cells.validation.is_empty() {
        let baseline = pooled::pooled_negative_binomial(data, &cells.train, &cells.validation)?;
        metrics.baseline = Some(BaselineMetrics { pooled_negative_binomial: baseline.nll_per_cell });
    }
    if let Some(truth) = &data.truth {
        // Latents are compared on the cells of the trained interventions, as the reference does.
        let rows: Vec<usize> = (0..data.n_cells())
            .filter(|&n| data.interventions.row(n).0.iter().all(|&a| cells.trained[a as usize]))
            .collect();
        let inferred: Vec<f64> = rows.iter().flat_map(|&n| &latents[n * l..(n + 1) * l]).map(|z| z.f64()).collect();
        let k = truth.n_latents;
        let true_latents: Vec<f64> = rows.iter().flat_map(|&n| &truth.latents[n * k..(n + 1) * k]).copied().collect();
        let (inferred, true_latents) = (Latents::new(&inferred, l), Latents::new(&true_latents, k));
        let pearson = mcc::mcc(true_latents, inferred, Correlation::Pearson);
        metrics.mcc_spearman = Some(mcc::mcc(true_latents, inferred, Correlation::Spearman).mean);
        metrics.r2 = Some(regression::linear_r2(inferred, true_latents));
        if let Some(masks) = &masks {
            let targets = targets_from_prior_means(&truth.prior_means);
            let scores = score_targets(&targets, masks, &pearson.correlation, &cells.trained);
            let of = |s: TargetScore| PrecisionRecall { precision: s.precision, recall: s.recall, f1: s.f1 };
            metrics.graph = Some(GraphMetrics { reference: of(scores.reference), corrected: of(scores.corrected) });
        }
        metrics.mcc_pearson = Some(pearson.mean);
    }
    metrics.timing.total_seconds = start.elapsed().as_secs_f64();
    metrics.timing.peak_rss_bytes = peak_rss_bytes();
    Ok(Results { metrics, latents })
}

fn write<R: Real>(
    config: &Config,
    data: &Dataset,
    folder: &ResultsFolder,
    network: &Network<R>,
    training: &Training,
    results: &Results<R>,
) -> Result<()>
where
    for<'a> &'a [R]: Into<crate::report::results::TensorValues<'a>>,
{
    folder.write_config(config)?;
    folder.write_history(&training.history)?;
    let buffers = [&network.parameters, &network.running];
    let tensors: Vec<Tensor> = buffers
        .iter()
        .flat_map(|buffer| buffer.layout.entries().iter().map(move |entry| (buffer, entry)))
        .map(|(buffer, entry)| Tensor {
            name: entry.name.clone(),
            shape: entry.shape.clone(),
            values: buffer.values[entry.range.clone()].into(),
        })
        .collect();
    let metadata = BTreeMap::from([
        ("program".to_owned(), concat!("svae-cpu ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("method".to_owned(), config.method.name().to_owned()),
        ("interventions".to_owned(), serde_json::json!(data.intervention_names).to_string()),
    ]);
    folder.write_model(&tensors, &metadata)?;

    let l = network.architecture.n_latents;
    let mut latents = NpzWriter::create(folder.path().join("latents.npz"))?;
    let values: Vec<f64> = results.latents.iter().map(|z| z.f64()).collect();
    let single: Vec<f32> = values.iter().map(|&z| z as f32).collect();
    match config.precision {
        Precision::F32 => latents.add_f32("latents", &[data.n_cells(), l], &single)?,
        Precision::F64 => latents.add_f64("latents", &[data.n_cells(), l], &values)?,
    }
    latents.add_strings("cells", &data.cell_names)?;
    latents.finish()?;

    let table = |values: &[R]| values.iter().map(|v| v.f64()).collect::<Vec<f64>>();
    if let Some(masks) = network.mask_probabilities() {
        folder.write_masks(&data.intervention_names, l, &table(&masks))?;
    }
    if let Some(shift) = &network.tensors.shift {
        folder.write_shifts(&data.intervention_names, l, &table(&network.parameters[shift]))?;
    }
    // Last, so that a folder with metrics is a finished run.
    folder.write_metrics(&results.metrics)
}

/// Simulates a screen into a `.npz` file, truth included.
///
/// # Errors
/// If the settings cannot be met or the file cannot be written.
pub fn simulate(simulation: &config::Simulation, out: &Path) -> Result<()> {
    write_npz(&simulator::simulate(&simulator_settings(simulation))?.dataset, out)
}

/// Checks every gradient for the settings and data given, and every vector in `golden`.
///
/// # Errors
/// If the data or a vector cannot be read; a failed check is no error but a verdict.
pub fn verify(_config: &Config, golden: Option<&Path>) -> Result<Verification> {
    let mut checks = Vec::new();
    if let Some(folder) = golden {
        for path in crate::verification::golden::vectors(folder)? {
            checks.extend(crate::verification::golden::check(&path)?);
        }
    }
    Ok(Verification::new(checks))
}
