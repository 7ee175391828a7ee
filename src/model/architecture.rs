//! Sizes and choices of a network, and from them the table of its tensors.

use crate::model::likelihood::Likelihood;
use crate::model::parameters::{Layout, LayoutBuilder, Tensor};
use serde::Deserialize;
use serde::Serialize;
use std::sync::Arc;

/// Most hidden layers an encoder or a decoder may have.
pub const MAX_LAYERS: usize = 8;

/// Distribution of the latents z that the decoder reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LatentDistribution {
    /// Normal
    Normal,
    /// Softmax of a normal
    LogisticNormal,
}

/// How a cell's latents depend, a priori, on its interventions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Prior {
    /// N(0, I): VAE, beta-VAE.
    Standard,
    /// N(shift of the intervention, I), no mask: iVAE as the paper describes it.
    Shifted,
    /// N(mask * shift of the intervention, I), mask drawn per cell from a Gumbel-sigmoid at a temperature.
    Masked {
        /// Whether the forward value is thresholded (straight-through) or soft.
        kind: MaskKind,
        /// Temperature of the Gumbel-sigmoid.
        temperature: f64,
    },
}

/// How the mask enters the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum MaskKind {
    /// 0 or 1, with the gradient of the soft sample (straight-through)
    Hard,
    /// The Gumbel-sigmoid sample itself
    Soft,
}

/// Sizes and choices of a network. Dimensions: genes G, interventions A, latents L, hidden units H.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// Genes, G.
    pub n_genes: usize,
    /// Interventions, A.
    pub n_interventions: usize,
    /// Latents, L.
    pub n_latents: usize,
    /// Hidden units per layer, H.
    pub n_hidden: usize,
    /// Hidden layers of the encoder and of the decoder, each.
    pub n_layers: usize,
    /// Levels of each categorical covariate; one with fewer than two levels carries nothing and is dropped.
    pub categorical_levels: Vec<usize>,
    /// Number of continuous covariates.
    pub n_continuous: usize,
    /// Whether the encoder receives the covariates too (the decoder always does).
    pub encode_covariates: bool,
    /// Whether hidden layers after the first receive the categorical covariates again.
    pub deeply_inject_covariates: bool,
    /// Batch normalisation after each hidden linear layer.
    pub batch_norm: bool,
    /// Layer normalisation (without scale and offset) after it.
    pub layer_norm: bool,
    /// Probability that dropout silences a hidden unit of the encoder.
    pub dropout_rate: f64,
    /// Distribution of the latent.
    pub latent_distribution: LatentDistribution,
    /// Whether the latents of a cell are correlated in its posterior; otherwise its covariance is diagonal.
    pub full_covariance: bool,
    /// Prior of the latent.
    pub prior: Prior,
    /// Likelihood of the counts.
    pub likelihood: Likelihood,
    /// Constant that the reference adds inside the logarithms of the negative binomial; 0 for the exact one.
    pub likelihood_epsilon: f64,
}

impl Architecture {
    /// The model of the paper: two hidden layers of 128 units, batch normalisation, dropout 0.1, hard masks.
    pub fn new(n_genes: usize, n_interventions: usize, n_latents: usize) -> Self {
        Self {
            n_genes,
            n_interventions,
            n_latents,
            n_hidden: 128,
            n_layers: 2,
            categorical_levels: Vec::new(),
            n_continuous: 0,
            encode_covariates: false,
            deeply_inject_covariates: true,
            batch_norm: true,
            layer_norm: false,
            dropout_rate: 0.1,
            latent_distribution: LatentDistribution::Normal,
            full_covariance: false,
            prior: Prior::Masked { kind: MaskKind::Hard, temperature: 1.0 },
            likelihood: Likelihood::NegativeBinomial,
            likelihood_epsilon: 0.0,
        }
    }

    /// Width of the one-hot covariates.
    pub fn one_hot_width(&self) -> usize {
        self.categorical_levels.iter().filter(|&&levels| levels > 1).sum()
    }

    /// Entries of a posterior's covariance factor below its diagonal, L(L-1)/2; 0 where the covariance is diagonal.
    pub fn factor_width(&self) -> usize {
        if self.full_covariance { self.n_latents * (self.n_latents - 1) / 2 } else { 0 }
    }

    /// Width of all covariates: continuous ones, then the one-hot ones.
    pub fn covariate_width(&self) -> usize {
        self.n_continuous + self.one_hot_width()
    }
}

/// Which covariates a layer receives beside its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// None.
    Nothing,
    /// The one-hot covariates.
    OneHot,
    /// The continuous and the one-hot covariates.
    All,
}

/// A linear layer: weight (n_out x (n_in + covariates); the encoder's first layer holds its transpose) and bias (n_out).
#[derive(Debug, Clone)]
pub struct LinearTensors {
    /// Weight.
    pub weight: Tensor,
    /// Bias.
    pub bias: Tensor,
    /// Width of the input without covariates.
    pub n_in: usize,
    /// Width of the covariates received.
    pub n_covariates: usize,
    /// Which covariates these are.
    pub injection: Injection,
    /// Width of the output.
    pub n_out: usize,
}

/// Scale and offset of a batch normalisation, and where its running statistics stand.
#[derive(Debug, Clone)]
pub struct NormTensors {
    /// Scale, gamma.
    pub weight: Tensor,
    /// Offset, beta.
    pub bias: Tensor,
    /// Running mean, in the buffer of running statistics.
    pub running_mean: Tensor,
    /// Running variance, in the buffer of running statistics.
    pub running_variance: Tensor,
}

/// A hidden layer: linear, normalisation, ReLU, dropout.
#[derive(Debug, Clone)]
pub struct HiddenLayer {
    /// The linear part.
    pub linear: LinearTensors,
    /// Batch normalisation, if used.
    pub norm: Option<NormTensors>,
}

/// Every tensor of a network, by role.
#[derive(Debug, Clone)]
pub struct Tensors {
    /// Hidden layers of the encoder.
    pub encoder: Vec<HiddenLayer>,
    /// Head for the posterior mean m.
    pub latent_mean: LinearTensors,
    /// Head for log(v - 1e-4), v the posterior variance.
    pub latent_log_variance: LinearTensors,
    /// Head for the covariance factor below its diagonal, unless the covariance is diagonal.
    pub latent_factor: Option<LinearTensors>,
    /// Hidden layers of the decoder.
    pub decoder: Vec<HiddenLayer>,
    /// Head for the logits of the expression rates rho.
    pub decoder_output: LinearTensors,
    /// Logarithm of the inverse dispersion theta of each gene (`px_r` in scvi-tools), if the likelihood has one.
    pub log_dispersion: Option<Tensor>,
    /// Shift of each intervention (A x L), if the prior has shifts (`action_prior_mean` in the reference).
    pub shift: Option<Tensor>,
    /// Logits of the masks (A x L), if the prior has masks.
    pub mask_logit: Option<Tensor>,
    /// Names and shapes of the trained tensors.
    pub parameters: Arc<Layout>,
    /// Names and shapes of the running statistics.
    pub running: Arc<Layout>,
}

impl Tensors {
    /// The tensors of `architecture`.
    pub fn new(architecture: &Architecture) -> Self {
        let a = architecture;
        let mut parameters = LayoutBuilder::default();
        let mut running = LayoutBuilder::default();

        let linear = |name: String, n_in: usize, injection: Injection, n_out: usize, l: &mut LayoutBuilder| {
            let n_covariates = match injection {
                Injection::Nothing => 0,
                Injection::OneHot => a.one_hot_width(),
                Injection::All => a.covariate_width(),
            };
            let shape = [n_out, n_in + n_covariates];
            LinearTensors {
                weight: match name.as_str() {
                    // Rows per gene, for products with sparse counts.
                    "encoder.0" => l.add_transposed(format!("{name}.weight"), shape),
                    _ => l.add(format!("{name}.weight"), &shape),
                },
                bias: l.add(format!("{name}.bias"), &[n_out]),
                n_in,
                n_covariates,
                injection: if n_covariates == 0 { Injection::Nothing } else { injection },
                n_out,
            }
        };
        let mut hidden = |name: &str, n_in: usize, covariates: bool, l: &mut LayoutBuilder| -> Vec<HiddenLayer> {
            (0..a.n_layers)
                .map(|i| {
                    let injection = match (covariates, i) {
                        (false, _) => Injection::Nothing,
                        (true, 0) => Injection::All,
                        (true, _) if a.deeply_inject_covariates => Injection::OneHot,
                        (true, _) => Injection::Nothing,
                    };
                    let n_in = if i == 0 { n_in } else { a.n_hidden };
                    HiddenLayer {
                        linear: linear(format!("{name}.{i}"), n_in, injection, a.n_hidden, l),
                        norm: a.batch_norm.then(|| NormTensors {
                            weight: l.add(format!("{name}.{i}.norm.weight"), &[a.n_hidden]),
                            bias: l.add(format!("{name}.{i}.norm.bias"), &[a.n_hidden]),
                            running_mean: running.add(format!("{name}.{i}.norm.running_mean"), &[a.n_hidden]),
                            running_variance: running.add(format!("{name}.{i}.norm.running_variance"), &[a.n_hidden]),
                        }),
                    }
                })
                .collect()
        };

        let encoder = hidden("encoder", a.n_genes, a.encode_covariates, &mut parameters);
        let decoder_at = a.n_latents;
        let decoder = hidden("decoder", decoder_at, true, &mut parameters);
        let latent_mean = linear("latent.mean".into(), a.n_hidden, Injection::Nothing, a.n_latents, &mut parameters);
        let latent_log_variance =
            linear("latent.log_variance".into(), a.n_hidden, Injection::Nothing, a.n_latents, &mut parameters);
        let latent_factor = (a.factor_width() > 0)
            .then(|| linear("latent.factor".into(), a.n_hidden, Injection::Nothing, a.factor_width(), &mut parameters));
        let decoder_output =
            linear("decoder.output".into(), a.n_hidden, Injection::Nothing, a.n_genes, &mut parameters);
        let log_dispersion = a.likelihood.add_tensor(a.n_genes, &mut parameters);
        let table = [a.n_interventions, a.n_latents];
        let shift = (a.prior != Prior::Standard).then(|| parameters.add("shift".into(), &table));
        let mask_logit = matches!(a.prior, Prior::Masked { .. }).then(|| parameters.add("mask_logit".into(), &table));
        Self {
            encoder,
            latent_mean,
            latent_log_variance,
            latent_factor,
            decoder,
            decoder_output,
            log_dispersion,
            shift,
            mask_logit,
            parameters: parameters.finish(),
            running: running.finish(),
        }
    }

    /// Every linear layer whose starting values are drawn, in order of the forward pass; the head of the covariance factor
    /// starts at 0, where the posterior is diagonal.
    pub fn linear_layers(&self) -> impl Iterator<Item = &LinearTensors> {
        self.encoder
            .iter()
            .map(|layer| &layer.linear)
            .chain([&self.latent_mean, &self.latent_log_variance])
            .chain(self.decoder.iter().map(|layer| &layer.linear))
            .chain([&self.decoder_output])
    }
}

/// Covariance of the latents in a cell's posterior.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PosteriorCovariance {
    /// Diagonal: latents are independent given the counts (as the reference implementation does)
    Diagonal,
    /// Full, of a Cholesky factor that the encoder gives for every cell
    Full,
}
