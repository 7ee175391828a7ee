//! The course of a training: a record per epoch, and why it ended.

use serde::{Deserialize, Serialize};

use crate::checkpoint::encoding::{ByteReader, DecodeError, Encode, encode_choices, encode_fields};

/// One epoch, a row of `history.csv`. ELBO parts are negative ELBO parts in nats per cell: lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Weight of the KL divergence in this epoch's loss.
    pub kl_weight: f64,
    /// Mean loss of the minibatches, as minimised (for sVAE+ it carries the number of training cells as a factor).
    pub train_loss: f64,
    /// Negative ELBO of the training cells: reconstruction + KL + share of the global KL.
    pub train_elbo: f64,
    /// Negative log-likelihood of the training cells.
    pub train_reconstruction: f64,
    /// KL divergence of the latents of the training cells.
    pub train_kl: f64,
    /// KL divergence of the mask, for the whole data set (not per cell).
    pub kl_global: f64,
    /// Negative ELBO of the validation cells.
    pub validation_elbo: f64,
    /// Negative log-likelihood of the validation cells.
    pub validation_reconstruction: f64,
    /// KL divergence of the latents of the validation cells.
    pub validation_kl: f64,
    /// Mean probability of the mask; 1 for methods without.
    pub mean_mask: f64,
    /// Seconds that the epoch took.
    pub seconds: f64,
}

/// Why a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// All epochs were done.
    EpochLimit,
    /// The validation ELBO had not improved for `patience` epochs.
    EarlyStopping,
    /// A value was not finite; the last good state was kept.
    NonFinite,
}

impl StopReason {
    /// The reason in words.
    pub fn in_words(self) -> &'static str {
        match self {
            StopReason::EpochLimit => "epoch limit",
            StopReason::EarlyStopping => "early stopping",
            StopReason::NonFinite => "non-finite value",
        }
    }
}

/// Which epoch's weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum KeepEpoch {
    /// The epoch with the best validation ELBO
    Best,
    /// The last epoch (as the reference implementation does)
    Last,
}

encode_fields! {
    EpochRecord {
        epoch, kl_weight, train_loss, train_elbo, train_reconstruction, train_kl, kl_global, validation_elbo,
        validation_reconstruction, validation_kl, mean_mask, seconds,
    }
}

encode_choices! {
    StopReason { 0 = EpochLimit, 1 = EarlyStopping, 2 = NonFinite }
}
