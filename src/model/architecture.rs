//! Sizes and choices of a network.

use crate::model::likelihood::Likelihood;
use serde::Deserialize;
use serde::Serialize;

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
    /// N(mask * shift of the intervention, I), the mask being random.
    Masked {
        /// Whether the mask is integrated out, or drawn per cell from a Gumbel-sigmoid.
        kind: MaskKind,
        /// Temperature of the Gumbel-sigmoid.
        temperature: f64,
    },
}

/// How the mask enters the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum MaskKind {
    /// Not drawn: the divergence is its mean over the mask, in closed form
    Integrated,
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

/// Covariance of the latents in a cell's posterior.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PosteriorCovariance {
    /// Diagonal: latents are independent given the counts (as the reference implementation does)
    Diagonal,
    /// Full, of a Cholesky factor that the encoder gives for every cell
    Full,
}
