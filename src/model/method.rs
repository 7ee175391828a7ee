//! The methods: which prior, mask and penalty each of them has.

use crate::model::architecture::{MaskKind, Prior};
use crate::model::prior::sparsity::Penalty;
use serde::{Deserialize, Serialize};

/// Which model is trained: the prior of the latents given the intervention, its mask, and the penalty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Prior N(0, I)
    Vae,
    /// Prior N(0, I), KL multiplied by beta
    BetaVae,
    /// Prior N(shift, I), every intervention on every latent
    Ivae,
    /// Prior N(mask * shift, I), penalty on the mean mask probability
    Svae,
    /// Prior N(mask * shift, I), spike-and-slab prior on the mask
    SvaePlus,
    /// Principal components of log counts, turned by the rule of svae-plus: no network, no training
    Pca,
}

impl Method {
    /// The method's name as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Method::Vae => "vae",
            Method::BetaVae => "beta-vae",
            Method::Ivae => "ivae",
            Method::Svae => "svae",
            Method::SvaePlus => "svae-plus",
            Method::Pca => "pca",
        }
    }

    /// Whether the prior mean of a cell depends on its intervention.
    pub fn uses_interventions(self) -> bool {
        !matches!(self, Method::Vae | Method::BetaVae)
    }

    /// Whether it trains a network.
    pub fn trains_network(self) -> bool {
        self != Method::Pca
    }

    /// Whether a mask is learned, and with it a sparsity (`alpha`), a kind of sample and a temperature.
    pub fn learns_mask(self) -> bool {
        matches!(self, Method::Svae | Method::SvaePlus)
    }

    /// Prior of the latents; the arguments are the mask of an iVAE, and kind and temperature of a mask with a sparsity.
    pub fn prior(self, ivae_mask: IvaeMask, kind: MaskKind, temperature: f64) -> Prior {
        match self {
            Method::Vae | Method::BetaVae => Prior::Standard,
            Method::Ivae => match ivae_mask {
                IvaeMask::Ones => Prior::Shifted,
                IvaeMask::Learned => Prior::Masked { kind: MaskKind::Hard, temperature: 1.0 },
            },
            Method::Svae | Method::SvaePlus => Prior::Masked { kind, temperature },
            Method::Pca => Prior::Masked { kind: MaskKind::Integrated, temperature },
        }
    }

    /// Penalty on the masks, of strength `alpha` where there is one.
    pub fn penalty(self, alpha: f64) -> Penalty {
        match self {
            Method::Vae | Method::BetaVae | Method::Ivae | Method::Pca => Penalty::None,
            Method::Svae => Penalty::MeanProbability { alpha },
            Method::SvaePlus => Penalty::SpikeAndSlab { alpha },
        }
    }
}

/// Mask of the iVAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum IvaeMask {
    /// None: every intervention acts on every latent (as the paper says)
    Ones,
    /// A hard mask, learned without any penalty (as the reference implementation does)
    Learned,
}
