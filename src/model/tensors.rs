//! The table of a network's tensors, by role.

use crate::model::architecture::{Architecture, Prior};
use crate::model::parameters::{Layout, LayoutBuilder, Tensor};
use std::sync::Arc;

/// The two halves of a network with hidden layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From counts to latents.
    Encoder,
    /// From latents to counts.
    Decoder,
}

/// A linear layer, by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearLayer {
    /// Hidden layer of the encoder.
    Encoder(usize),
    /// Head for the posterior mean.
    LatentMean,
    /// Head for the log-variance.
    LatentLogVariance,
    /// Head for the covariance factor.
    LatentFactor,
    /// Hidden layer of the decoder.
    Decoder(usize),
    /// Head for the logits.
    DecoderOutput,
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
    /// Hidden layers of one side, in order of the forward pass.
    pub fn hidden(&self, side: Side) -> &[HiddenLayer] {
        match side {
            Side::Encoder => &self.encoder,
            Side::Decoder => &self.decoder,
        }
    }

    /// A linear layer.
    ///
    /// # Panics
    /// If there is none in that place.
    pub fn linear(&self, layer: LinearLayer) -> &LinearTensors {
        match layer {
            LinearLayer::Encoder(l) => &self.encoder[l].linear,
            LinearLayer::LatentMean => &self.latent_mean,
            LinearLayer::LatentLogVariance => &self.latent_log_variance,
            LinearLayer::LatentFactor => self.latent_factor.as_ref().expect("planned for a full covariance"),
            LinearLayer::Decoder(l) => &self.decoder[l].linear,
            LinearLayer::DecoderOutput => &self.decoder_output,
        }
    }
}
