//! Where the noise of a pass comes from: streams addressed by cell, so that no order of the work changes it.

use crate::model::workspace::words_per_row;
use crate::numerics::random::{Purpose, fill_words, logistic_rows, normal_rows};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;

/// Where the noise of a pass comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// Random streams of (seed, epoch, cell), for training.
    Training {
        /// Seed of the run.
        seed: u64,
        /// Epoch.
        epoch: u64,
    },
    /// Random streams of (seed, draw, cell), for evaluation.
    Evaluation {
        /// Seed of the run.
        seed: u64,
        /// Number of the draw.
        draw: u64,
    },
    /// The workspace's noise buffers as they stand.
    Given,
}

/// Fills the noise of some rows: of latents (rows x `widths[0]`) and, if their width is not 0, of masks (rows x `widths[1]`).
/// `purposes` are theirs in the streams of `seed`, `address` gives the pair of numbers of a row; `words` lends its room.
pub(crate) fn fill_noise<R: Real>(
    [latent, mask]: [&mut [R]; 2],
    widths: [usize; 2],
    words: &mut [u32],
    seed: u64,
    purposes: [Purpose; 2],
    address: impl Fn(usize) -> (u64, u64) + Copy,
) {
    vectorized(
        #[inline(always)]
        || {
            let per_row = words_per_row(widths[0] + 1);
            let used = &mut words[..latent.len() / widths[0] * per_row];
            fill_words(used, per_row, seed, purposes[0], 0, address);
            normal_rows(latent, widths[0], used, per_row);
            if widths[1] > 0 {
                let per_row = words_per_row(widths[1]);
                let used = &mut words[..mask.len() / widths[1] * per_row];
                fill_words(used, per_row, seed, purposes[1], 0, address);
                logistic_rows(mask, widths[1], used, per_row);
            }
        },
    );
}
