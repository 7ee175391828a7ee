//! Checks against golden vectors: forward, gradients, running statistics, evaluation mode and Adam trajectories that
//! another system (PyTorch autograd in float64) computed. The format is described in `tests/golden/README.md`.

use crate::data::counts::in_memory::Counts;
use crate::data::dataset::{Categorical, Continuous, Covariates, Dataset, InterventionRows};
use crate::data::formats::npz::Npz;
use crate::data::minibatch::Batch;
use crate::error::{Error, InputError, Result};
use crate::model::adam::{Adam, AdamSettings};
use crate::model::architecture::{Architecture, LatentDistribution, MaskKind, Prior};
use crate::model::likelihood::Likelihood;
use crate::model::network::Network;
use crate::model::noise::Noise;
use crate::model::objective::Objective;
use crate::model::parameters::Buffer;
use crate::model::pass::StepInput;
use crate::model::prior::sparsity::Penalty;
use crate::model::workspace::Workspace;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::verification::outcome::{Check, CheckKind};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Largest relative error allowed in f64: what vectors computed in float64 can promise.
pub const TOLERANCE_F64: f64 = 1e-9;

/// Largest error allowed in f32, relative to the largest value of the tensor or of the layer it belongs to.
///
/// The longest path from a parameter to a gradient passes about ten sums of up to seventy terms. If rounding errors of
/// 2^-24 add up linearly, that is 10 * 70 * 6e-8 = 4e-5; normalising a feature that hardly varies over the cells
/// amplifies it by up to 1 / sqrt(0.001), about 30. Hence 1e-3.
pub const TOLERANCE_F32: f64 = 1e-3;

/// Values below this share of the largest one are compared with that share: a bias in front of a batch normalisation
/// has gradient zero, and what is stored for it is rounding.
const FLOOR_SHARE: f64 = 1e-3;

fn one() -> f64 {
    1.0
}

fn negative_binomial() -> String {
    "negative_binomial".to_owned()
}

fn yes() -> bool {
    true
}

/// VectorSettings of a vector; names follow scvi-tools.
#[derive(Debug, Clone, Deserialize)]
struct VectorSettings {
    n_genes: usize,
    n_latent: usize,
    n_hidden: usize,
    n_layers: usize,
    n_labels: usize,
    #[serde(default)]
    n_batch: usize,
    #[serde(default)]
    n_cats_per_cov: Vec<usize>,
    #[serde(default)]
    n_cont: usize,
    #[serde(default)]
    encode_covariates: bool,
    #[serde(default = "yes")]
    deeply_inject_covariates: bool,
    #[serde(default)]
    dropout_rate: f64,
    latent_distribution: String,
    #[serde(default = "yes")]
    batch_norm: bool,
    #[serde(default)]
    layer_norm: bool,
    mask: String,
    #[serde(default = "one")]
    tau: f64,
    objective: String,
    #[serde(default = "yes")]
    use_intervention_prior: bool,
    #[serde(default = "yes")]
    use_global_kl: bool,
    #[serde(default = "yes")]
    warmup: bool,
    #[serde(default = "one")]
    kl_weight: f64,
    #[serde(default = "one")]
    beta: f64,
    #[serde(default)]
    sparse_mask_penalty: f64,
    n_obs: usize,
    #[serde(default)]
    steps: usize,
    #[serde(default)]
    lr: f64,
    #[serde(default)]
    adam_eps: f64,
    #[serde(default)]
    weight_decay: f64,
    #[serde(default = "negative_binomial")]
    likelihood: String,
    #[serde(default)]
    eps: f64,
}

/// A vector's file, opened.
struct Vector {
    npz: Npz,
    settings: VectorSettings,
    stem: String,
}

/// Name in this program of a tensor of scvi-tools.
pub fn our_name(scvi: &str) -> Option<String> {
    let scvi = scvi.strip_prefix("module.").unwrap_or(scvi);
    let fixed = match scvi {
        "px_r" => Some("log_dispersion"),
        "action_prior_mean" => Some("shift"),
        "mask_logit" | "action_prior_logit" => Some("mask_logit"),
        _ => None,
    };
    if let Some(name) = fixed {
        return Some(name.to_owned());
    }
    for (theirs, ours) in [
        ("z_encoder.mean_encoder.", "latent.mean."),
        ("z_encoder.var_encoder.", "latent.log_variance."),
        ("decoder.px_scale_decoder.0.", "decoder.output."),
    ] {
        if let Some(rest) = scvi.strip_prefix(theirs) {
            return Some(format!("{ours}{rest}"));
        }
    }
    for (theirs, ours) in
        [("z_encoder.encoder.fc_layers.Layer ", "encoder"), ("decoder.px_decoder.fc_layers.Layer ", "decoder")]
    {
        if let Some(rest) = scvi.strip_prefix(theirs) {
            let mut parts = rest.splitn(3, '.');
            let (layer, part, tensor) = (parts.next()?, parts.next()?, parts.next()?);
            return match part {
                "0" => Some(format!("{ours}.{layer}.{tensor}")),
                "1" => Some(format!("{ours}.{layer}.norm.{}", tensor.replace("_var", "_variance"))),
                _ => None,
            };
        }
    }
    None
}

/// The worst error over the values compared.
#[derive(Debug, Clone, Copy, Default)]
struct Worst {
    error: f64,
    points: usize,
}

impl Worst {
    /// Takes in an error; a NaN stays.
    fn add(&mut self, error: f64) {
        if error.is_nan() || error > self.error {
            self.error = error;
        }
    }

    /// Compares `got` with `want`; `scale` is the value below which differences count in full.
    fn compare<R: Real>(&mut self, got: &[R], want: &[f64], scale: f64, normwise: bool) {
        assert_eq!(got.len(), want.len());
        for (got, &want) in got.iter().zip(want) {
            let difference = (got.to_f64() - want).abs();
            let against = if normwise { scale } else { want.abs().max(FLOOR_SHARE * scale) };
            let error = if difference == 0.0 { 0.0 } else { difference / against };
            self.points += 1;
            self.add(error);
        }
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |a: f64, &b| a.max(b.abs()))
}

impl Vector {
    fn open(path: &Path) -> Result<Self> {
        let npz = Npz::open(path)?;
        let settings: VectorSettings = serde_json::from_str(&npz.string("config")?).map_err(|error| {
            InputError::new(
                format!("the settings cannot be read ({error})"),
                "store the keys that tests/golden/README.md lists",
            )
            .in_file(path)
            .at("array `config`")
        })?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let vector = Self { npz, settings, stem };
        let s = &vector.settings;
        let sizes = [s.n_genes, s.n_latent, s.n_hidden, s.n_layers, s.n_labels, s.n_obs];
        if sizes.contains(&0) || s.n_layers > crate::model::architecture::MAX_LAYERS {
            return Err(vector.fault("config", "sizes must be at least 1, and n_layers at most 8".into()));
        }
        for (key, value, known) in [
            ("mask", &s.mask, ["hard", "soft", "fixed"].as_slice()),
            ("objective", &s.objective, &["spike_slab", "mean"]),
            ("latent_distribution", &s.latent_distribution, &["normal", "ln"]),
            ("likelihood", &s.likelihood, &["negative_binomial", "poisson"]),
        ] {
            if !known.contains(&value.as_str()) {
                return Err(vector.fault("config", format!("`{key}` is \"{value}\", known are {known:?}")));
            }
        }
        Ok(vector)
    }

    fn fault(&self, array: &str, problem: String) -> Error {
        InputError::new(problem, "make the vector again; tests/golden/README.md describes the format")
            .in_file(self.npz.path())
            .at(format!("array `{array}`"))
            .into()
    }

    fn array(&self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let (found, values) = self.npz.array_f64(name)?;
        // An empty array stands for one with any dimension of size 0.
        if found == shape || (values.is_empty() && shape.contains(&0)) {
            return Ok(values);
        }
        Err(self.fault(name, format!("its shape is {found:?}, expected {shape:?}")))
    }

    fn architecture(&self) -> Architecture {
        let s = &self.settings;
        let kind = if s.mask == "soft" { MaskKind::Soft } else { MaskKind::Hard };
        Architecture {
            n_hidden: s.n_hidden,
            n_layers: s.n_layers,
            categorical_levels: [s.n_batch].into_iter().chain(s.n_cats_per_cov.iter().copied()).collect(),
            n_continuous: s.n_cont,
            encode_covariates: s.encode_covariates,
            deeply_inject_covariates: s.deeply_inject_covariates,
            batch_norm: s.batch_norm,
            layer_norm: s.layer_norm,
            dropout_rate: s.dropout_rate,
            latent_distribution: match s.latent_distribution.as_str() {
                "ln" => LatentDistribution::LogisticNormal,
                _ => LatentDistribution::Normal,
            },
            prior: match s.use_intervention_prior {
                true => Prior::Masked { kind, temperature: s.tau },
                false => Prior::Standard,
            },
            likelihood: match s.likelihood.as_str() {
                "poisson" => Likelihood::Poisson,
                _ => Likelihood::NegativeBinomial,
            },
            likelihood_epsilon: s.eps,
            ..Architecture::new(s.n_genes, s.n_labels, s.n_latent)
        }
    }

    fn objective(&self) -> Objective {
        let s = &self.settings;
        let alpha = s.sparse_mask_penalty;
        let spike_slab = s.objective == "spike_slab";
        Objective {
            penalty: match (spike_slab, s.use_global_kl) {
                (true, true) => Penalty::SpikeAndSlab { alpha },
                (true, false) => Penalty::None,
                (false, _) => Penalty::MeanProbability { alpha },
            },
            beta: s.beta,
            scale_to_all_cells: spike_slab,
            n_cells: s.n_obs,
        }
    }

    fn warmup(&self) -> f64 {
        if self.settings.warmup { self.settings.kl_weight } else { 1.0 }
    }

    /// The minibatch under `prefix` ("in/", "traj/step0/").
    fn dataset(&self, prefix: &str) -> Result<Dataset> {
        let s = &self.settings;
        let (shape, x) = self.npz.array_f64(&format!("{prefix}x"))?;
        let [n, g] = shape[..] else { return Err(self.fault("x", format!("its shape is {shape:?}"))) };
        if g != s.n_genes || n == 0 {
            return Err(self.fault(&format!("{prefix}x"), format!("its shape is {shape:?}, n_genes is {}", s.n_genes)));
        }
        if let Some(bad) = x.iter().find(|&&x| !(x >= 0.0 && x.fract() == 0.0 && x <= u32::MAX as f64)) {
            return Err(self.fault(&format!("{prefix}x"), format!("{bad} is not a count")));
        }
        let counts: Vec<u32> = x.iter().map(|&x| x as u32).collect();
        let library = x.chunks_exact(g).map(|row| row.iter().sum()).collect();
        let codes = |name: &str, columns: usize, levels: &dyn Fn(usize) -> usize| -> Result<Vec<Vec<u32>>> {
            let name = format!("{prefix}{name}");
            let values = self.array(&name, &[n, columns])?;
            (0..columns)
                .map(|c| {
                    (0..n)
                        .map(|row| {
                            let code = values[row * columns + c];
                            match code >= 0.0 && code < levels(c).max(1) as f64 {
                                true => Ok(code as u32),
                                false => Err(self.fault(&name, format!("{code} is not a level of column {c}"))),
                            }
                        })
                        .collect()
                })
                .collect()
        };
        let label_name = format!("{prefix}label");
        let labels = self.array(&label_name, &[n])?;
        if let Some(bad) = labels.iter().find(|&&a| !(a >= 0.0 && a < s.n_labels as f64)) {
            return Err(self.fault(&label_name, format!("{bad} is not a label, n_labels is {}", s.n_labels)));
        }
        let mut categorical = Vec::new();
        let batch = if self.npz.contains(&format!("{prefix}batch")) {
            codes("batch", 1, &|_| s.n_batch)?
        } else {
            vec![vec![0; n]]
        };
        let further = match s.n_cats_per_cov.len() {
            0 => Vec::new(),
            columns => codes("cat_covs", columns, &|c| s.n_cats_per_cov[c])?,
        };
        for codes in batch.into_iter().chain(further) {
            categorical.push(Categorical { codes, ..Categorical::default() });
        }
        let continuous = match s.n_cont {
            0 => Vec::new(),
            columns => {
                let values = self.array(&format!("{prefix}cont_covs"), &[n, columns])?;
                let column = |c| values.iter().skip(c).step_by(columns).copied().collect();
                (0..columns).map(|c| Continuous { values: column(c), ..Continuous::default() }).collect()
            }
        };
        Ok(Dataset {
            source: self.stem.clone(),
            counts: Counts::from_dense(g, &counts).into(),
            library,
            interventions: InterventionRows::one_hot(labels.iter().map(|&a| a as usize)),
            intervention_names: (0..s.n_labels).map(|a| a.to_string()).collect(),
            gene_names: (0..g).map(|g| g.to_string()).collect(),
            cell_names: (0..n).map(|n| n.to_string()).collect(),
            covariates: Covariates { categorical, continuous },
            guides: None,
            truth: None,
        })
    }

    /// Puts the noise under `prefix` into the workspace, and the fixed mask, if any, into the network.
    fn load_noise<R: Real>(
        &self,
        prefix: &str,
        workspace: &mut Workspace<R>,
        network: &mut Network<R>,
        n: usize,
    ) -> Result<()> {
        let s = &self.settings;
        let put = |to: &mut [R], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, &from)| *to = R::from_f64(from));
        put(&mut workspace.cells.latent_noise, &self.array(&format!("{prefix}eps_z"), &[n, s.n_latent])?);
        put(&mut workspace.cells.mask_noise, &self.array(&format!("{prefix}logistic_noise"), &[n, s.n_latent])?);
        if s.dropout_rate > 0.0 {
            let keep = self.array(&format!("{prefix}dropout"), &[s.n_layers, n, s.n_hidden])?;
            for (layer, keep) in workspace.encoder.iter_mut().zip(keep.chunks_exact(n * s.n_hidden)) {
                put(&mut layer.keep, keep);
            }
        }
        if s.mask == "fixed" && s.use_intervention_prior {
            let fixed = self.array(&format!("{prefix}fixed_mask"), &[s.n_labels, s.n_latent])?;
            network.frozen_mask = Some(fixed.iter().map(|&v| R::from_f64(v)).collect());
        }
        Ok(())
    }

    /// Name in the file of each tensor under `prefix` that the buffer's layout knows.
    fn names<R>(&self, prefix: &str, buffer: &Buffer<R>) -> Vec<(String, String)> {
        let mut names = Vec::new();
        for name in self.npz.names() {
            if let Some(ours) = name.strip_prefix(prefix).and_then(our_name)
                && buffer.layout.find(&ours).is_some()
            {
                names.push((name.clone(), ours));
            }
        }
        names
    }

    /// Fills `buffer` with the tensors under `prefix`; every tensor must be there.
    fn load_tensors<R: Real>(&self, prefix: &str, buffer: &mut Buffer<R>) -> Result<()> {
        let names = self.names(prefix, buffer);
        let layout = buffer.layout.clone();
        for entry in layout.entries() {
            let Some((name, _)) = names.iter().find(|(_, ours)| *ours == entry.name) else {
                return Err(self.fault(prefix, format!("no tensor there stands for `{}`", entry.name)));
            };
            buffer.set_in_order(entry, self.array(name, &entry.shape)?.into_iter().map(R::from_f64));
        }
        Ok(())
    }

    /// Compares every tensor of `buffer` with those under `prefix`; every tensor must be there.
    fn compare_tensors<R: Real>(&self, prefix: &str, buffer: &Buffer<R>, normwise: bool) -> Result<Worst> {
        let mut want = Buffer::<f64>::zeros(&buffer.layout);
        self.load_tensors(prefix, &mut want)?;
        let overall = largest(&want.values);
        // The layer that a tensor belongs to: "encoder.0" of "encoder.0.norm.weight".
        let layer = |name: &str| {
            name.trim_end_matches(".weight").trim_end_matches(".bias").trim_end_matches(".norm").to_owned()
        };
        let mut worst = Worst::default();
        for entry in buffer.layout.entries() {
            // In f32, rounding is relative to the terms that were summed. A layer's bias sums the same terms as its
            // weight (to zero, in front of a batch normalisation), so the scale is the layer's, not the tensor's.
            let of_layer = buffer.layout.entries().iter().filter(|other| layer(&other.name) == layer(&entry.name));
            let of_layer = of_layer.map(|other| largest(&want.values[other.range.clone()])).fold(0.0, f64::max);
            let (got, want) = (&buffer.values[entry.range.clone()], &want.values[entry.range.clone()]);
            let scale = if normwise { of_layer.max(FLOOR_SHARE * overall) } else { overall };
            worst.compare(got, want, scale, normwise);
        }
        Ok(worst)
    }

    fn compare<R: Real>(
        &self,
        worst: &mut Worst,
        name: &str,
        got: &[R],
        shape: &[usize],
        normwise: bool,
    ) -> Result<()> {
        if !self.npz.contains(name) {
            return Ok(());
        }
        let want = self.array(name, shape)?;
        worst.compare(got, &want, largest(&want), normwise);
        Ok(())
    }

    #[expect(clippy::too_many_lines, reason = "the arrays of a vector, in the order in which the model computes them")]
    fn check<R: Real>(&self) -> Result<Vec<Check>> {
        let s = &self.settings;
        let normwise = R::EPSILON.to_f64() > 1e-10;
        let tolerance = if normwise { TOLERANCE_F32 } else { TOLERANCE_F64 };
        let mut checks = Vec::new();
        let mut report = |part: &str, worst: Worst| {
            let name = format!("{} ({}, {part})", self.stem, R::NAME);
            checks.push(Check::new(name, CheckKind::Golden, worst.points, worst.error, tolerance));
        };

        let mut network = Network::<R>::new(self.architecture(), 0);
        self.load_tensors("param/", &mut network.parameters)?;
        self.load_tensors("param/", &mut network.running)?;
        let (start, start_running) = (network.parameters.clone(), network.running.clone());
        let data = self.dataset("in/")?;
        let n = data.n_cells();
        let cells: Vec<usize> = (0..n).collect();
        let batch = Batch::new(&data, &cells);
        let mut workspace = Workspace::new(&network.architecture, n, 1);
        self.load_noise("in/", &mut workspace, &mut network, n)?;
        let mut gradient = Buffer::zeros(&network.parameters.layout);
        let objective = self.objective();
        let weights = objective.weights(n, self.warmup());
        let team = Team::single();
        let loss = network.loss_and_gradient(
            &team,
            &mut workspace,
            &mut gradient,
            StepInput { batch, noise: Noise::Given, weights, penalty: objective.penalty },
        );

        let l = s.n_latent;
        let mut worst = Worst::default();
        if !self.npz.contains("out/loss") {
            return Err(self.fault("out/loss", "it is missing".into()));
        }
        self.compare(&mut worst, "out/loss", &[loss.total], &[], normwise)?;
        let penalty = if s.objective == "spike_slab" { loss.penalty } else { 0.0 };
        self.compare(&mut worst, "out/kl_global", &[penalty], &[], normwise)?;
        let c = &workspace.cells;
        self.compare(&mut worst, "out/reconst", &c.reconstruction, &[n], normwise)?;
        self.compare(&mut worst, "out/kl_z", &c.kl, &[n], normwise)?;
        self.compare(&mut worst, "out/q_mean", &c.mean, &[n, l], normwise)?;
        self.compare(&mut worst, "out/q_var", &c.variance, &[n, l], normwise)?;
        self.compare(&mut worst, "out/z", &c.z, &[n, l], normwise)?;
        self.compare(&mut worst, "out/prior_mean", &c.prior_mean, &[n, l], normwise)?;
        if s.use_intervention_prior {
            self.compare(&mut worst, "out/mask", &c.mask, &[n, l], normwise)?;
            if network.frozen_mask.is_none() {
                let probabilities = network.prior().probabilities().expect("a prior with masks");
                self.compare(&mut worst, "out/mask_prob", &probabilities, &[s.n_labels, l], normwise)?;
            }
        }
        report("forward", worst);
        report("gradient", self.compare_tensors("grad/", &gradient, normwise)?);
        if s.batch_norm {
            report("running statistics", self.compare_tensors("running_after/", &network.running, normwise)?);
        }

        if self.npz.contains("eval/reconst") {
            network.prepare_evaluation(&mut workspace);
            network.evaluate(&team, &mut workspace, batch, Noise::Given);
            let mut worst = Worst::default();
            self.compare(&mut worst, "eval/reconst", &workspace.cells.reconstruction, &[n], normwise)?;
            self.compare(&mut worst, "eval/kl_z", &workspace.cells.kl, &[n], normwise)?;
            self.compare(&mut worst, "eval/q_mean", &workspace.cells.mean, &[n, l], normwise)?;
            report("evaluation", worst);
        }

        if s.steps > 0 {
            (network.parameters, network.running) = (start, start_running);
            let mut adam = Adam::new(&network.parameters);
            let settings = AdamSettings {
                learning_rate: s.lr,
                epsilon: s.adam_eps,
                weight_decay: s.weight_decay,
                ..AdamSettings::default()
            };
            let mut losses = Vec::new();
            for step in 0..s.steps {
                let prefix = format!("traj/step{step}/");
                let data = self.dataset(&prefix)?;
                let n = data.n_cells();
                let cells: Vec<usize> = (0..n).collect();
                let batch = Batch::new(&data, &cells);
                if n > workspace.capacity() {
                    workspace = Workspace::new(&network.architecture, n, 1);
                }
                self.load_noise(&prefix, &mut workspace, &mut network, n)?;
                let loss = network.loss_and_gradient(
                    &team,
                    &mut workspace,
                    &mut gradient,
                    StepInput {
                        batch,
                        noise: Noise::Given,
                        weights: objective.weights(n, self.warmup()),
                        penalty: objective.penalty,
                    },
                );
                losses.push(loss.total);
                let all = 0..network.parameters.values.len();
                adam.step(&team, &mut network.parameters, &gradient, std::slice::from_ref(&all), &settings);
            }
            let mut worst = Worst::default();
            self.compare(&mut worst, "traj/loss", &losses, &[s.steps], normwise)?;
            for tensors in [&network.parameters, &network.running].into_iter().filter(|b| !b.layout.is_empty()) {
                let part = self.compare_tensors("traj/final/", tensors, normwise)?;
                worst.points += part.points;
                worst.add(part.error);
            }
            report("trajectory", worst);
        }
        Ok(checks)
    }
}

/// The vectors (`.npz`) of a folder, by name.
///
/// # Errors
/// If the folder cannot be read or holds no vector.
pub fn vectors(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| {
        InputError::new(format!("the folder of golden vectors cannot be read ({error})"), "check the path")
            .in_file(folder)
    })?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "npz"))
        .collect();
    paths.sort();
    if paths.is_empty() {
        return Err(InputError::new("the folder holds no golden vector (.npz)", "name the folder that holds them")
            .in_file(folder)
            .into());
    }
    Ok(paths)
}

/// Checks the vector in `path`, in f64 and in f32.
///
/// # Errors
/// If the file is not a golden vector.
pub fn check(path: &Path) -> Result<Vec<Check>> {
    let vector = Vector::open(path)?;
    let mut checks = vector.check::<f64>()?;
    checks.extend(vector.check::<f32>()?);
    Ok(checks)
}
