//! Random numbers addressed by (seed, purpose, epoch, cell): the same whatever the threads or the order of work. Every
//! stream of the program is made here.

use crate::numerics::real::Real;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_philox::splitmix64;
pub use rand_philox::{Philox, u32_to_unit_f64};

/// What random numbers of training and evaluation are for; streams of different purposes never overlap. The number 3 is
/// free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Purpose {
    /// Starting values of the parameters.
    Initialization = 1,
    /// Order of the cells in an epoch.
    Shuffle = 2,
    /// Noise of the latent sample, training.
    Latent = 4,
    /// Logistic noise of the masks, training.
    Mask = 5,
    /// Dropout in the encoder.
    Dropout = 6,
    /// Noise of the latent sample, evaluation.
    EvaluationLatent = 7,
    /// Logistic noise of the masks, evaluation.
    EvaluationMask = 8,
    /// Random points of `svae-cpu verify`.
    Verification = 9,
    /// Noise of the latent samples of an importance-weighted bound; the epoch is the sample's number.
    ParticleLatent = 10,
    /// Logistic noise of the masks of an importance-weighted bound; the epoch is the sample's number.
    ParticleMask = 11,
    /// Samples of the bound under the true decoder of a simulation.
    Oracle = 12,
    /// Bases from which turns of the latents are sought; the epoch is the basis's number.
    Turn = 13,
    /// Permutations of labels; the epoch is the permutation's number.
    Permutation = 14,
    /// Where the search for principal components begins.
    Components = 15,
}

/// The stream of one (seed, purpose, epoch, item): Philox 4x32-10 with these as its counter (Salmon et al. 2011).
///
/// Every item owns 2^32 blocks of four words; `epoch` < 2^32 and `item` < 2^48.
pub fn stream(seed: u64, purpose: Purpose, epoch: u64, item: u64) -> Philox {
    let key = splitmix64(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let counter = ((purpose as u128) << 112) | ((epoch as u128) << 80) | ((item as u128) << 32);
    Philox::new([key as u32, (key >> 32) as u32], counter)
}

/// What random numbers of samplers are for: simulated screens, the split, and what is drawn from a trained model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplerPurpose {
    /// The screens of `svae-cpu bench`.
    Benchmark,
    /// Split into training and validation cells.
    Split,
    /// Which combinations are held out.
    HeldOutCombinations,
    /// Targets of the interventions of a simulated screen.
    SimulatedTargets,
    /// Its shifts.
    SimulatedShifts,
    /// Its true decoder.
    SimulatedMixing,
    /// Its latents, a stream per cell.
    SimulatedLatents,
    /// Its counts, a stream per cell.
    SimulatedCounts,
    /// Which of its interventions hit the first two latents together.
    SimulatedTogether,
    /// Which of its cells escaped their intervention.
    SimulatedEscapes,
    /// Effects of its batches.
    SimulatedBatches,
    /// Its combinations of interventions.
    SimulatedCombinations,
    /// Which of them interact, and how.
    SimulatedInteractions,
    /// Latents of cells drawn from a trained model, a stream per cell.
    ModelLatents,
    /// Their counts, a stream per cell.
    ModelCounts,
    /// Latents of cells that predictions begin from, a stream per cell.
    PredictedLatents,
    /// Counts of predicted cells, a stream per cell.
    PredictedCounts,
    /// Shifts within their uncertainty, a stream per intervention.
    PredictedShifts,
    /// Cells drawn again to tell how sure a figure is, a stream per resample of each set of cells.
    Resampled,
    /// Posterior sample of this number, a stream per cell.
    PosteriorSample(usize),
}

impl SamplerPurpose {
    /// Number of the first stream. Those of the simulators differ in the upper 16 of 64 bits, those of a trained model in
    /// the bits from 40 on of the upper half.
    fn first_stream(self) -> u64 {
        const OF_A_MODEL: u64 = 1 << 63;
        match self {
            Self::Benchmark => 0,
            Self::Split => 0x0073_706c_6974,
            Self::HeldOutCombinations => 11 << 48,
            Self::SimulatedTargets => 1 << 48,
            Self::SimulatedShifts => 2 << 48,
            Self::SimulatedMixing => 3 << 48,
            Self::SimulatedLatents => 4 << 48,
            Self::SimulatedCounts => 5 << 48,
            Self::SimulatedTogether => 6 << 48,
            Self::SimulatedEscapes => 7 << 48,
            Self::SimulatedBatches => 8 << 48,
            Self::SimulatedCombinations => 9 << 48,
            Self::SimulatedInteractions => 10 << 48,
            Self::ModelLatents => OF_A_MODEL,
            Self::ModelCounts => OF_A_MODEL | 1 << 40,
            Self::PredictedLatents => 12 << 48,
            Self::PredictedCounts => 13 << 48,
            Self::PredictedShifts => 14 << 48,
            Self::Resampled => 15 << 48,
            Self::PosteriorSample(number) => OF_A_MODEL | (number as u64 + 2) << 40,
        }
    }
}

/// The stream of one (seed, purpose, cell) for the samplers of other crates; `cell` is 0 where a purpose has one stream.
pub fn sampler_stream(seed: u64, purpose: SamplerPurpose, cell: usize) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(purpose.first_stream() | cell as u64);
    random
}

/// The first `per_row` words (a multiple of 4) of one stream per row, from block `first_block` on: the same words as
/// [`stream`] gives, many rows at a time. `address(row)` is the epoch and the item of a row's stream.
#[inline(always)]
pub fn fill_words(
    words: &mut [u32],
    per_row: usize,
    seed: u64,
    purpose: Purpose,
    first_block: usize,
    address: impl Fn(usize) -> (u64, u64),
) {
    debug_assert!(per_row.is_multiple_of(4));
    let key = splitmix64(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    if per_row > 0 && per_row.is_multiple_of(4 * LANES) {
        // Long rows: all lanes are of one row, and all loops of constant length.
        for (row, words) in words.chunks_mut(per_row).enumerate() {
            let (epoch, item) = address(row);
            let second = (item >> 32) as u32 | (epoch as u32) << 16;
            let third = (epoch >> 16) as u32 | (purpose as u32) << 16;
            for (i, words) in words.as_chunks_mut::<{ 4 * LANES }>().0.iter_mut().enumerate() {
                let first = (first_block + i * LANES) as u32;
                let mut counter = [[0; LANES], [item as u32; LANES], [second; LANES], [third; LANES]];
                for lane in 0..LANES {
                    counter[0][lane] = first + lane as u32;
                }
                philox(&mut counter, [key as u32, (key >> 32) as u32]);
                for lane in 0..LANES {
                    for k in 0..4 {
                        words[4 * lane + k] = counter[k][lane];
                    }
                }
            }
        }
        return;
    }
    let (mut row, mut block) = (0, 0);
    for chunk in words.chunks_mut(4 * LANES) {
        let mut counter = [[0; LANES]; 4];
        for lane in 0..chunk.len() / 4 {
            let (epoch, item) = address(row);
            counter[0][lane] = (first_block + block) as u32;
            counter[1][lane] = item as u32;
            counter[2][lane] = (item >> 32) as u32 | (epoch as u32) << 16;
            counter[3][lane] = (epoch >> 16) as u32 | (purpose as u32) << 16;
            block += 1;
            if 4 * block == per_row {
                (row, block) = (row + 1, 0);
            }
        }
        philox(&mut counter, [key as u32, (key >> 32) as u32]);
        for lane in 0..chunk.len() / 4 {
            for k in 0..4 {
                chunk[4 * lane + k] = counter[k][lane];
            }
        }
    }
}

/// Blocks of random words made side by side: the lanes of the widest vectors.
const LANES: usize = 16;

/// Philox 4x32-10 (Salmon et al. 2011) of [`LANES`] counters, in place; `counter[k][lane]` is word k.
///
/// Each word lies in the low half of 64 bits, and what is left of products in the high half is carried along: the next product
/// takes the low half alone, so that a vector multiplies without its words being moved apart and together again.
#[inline(always)]
fn philox(counter: &mut [[u32; LANES]; 4], key: [u32; 2]) {
    const LOW: u64 = u32::MAX as u64;
    // As many at a time as the state of which stays in registers.
    const TOGETHER: usize = 8;
    for from in (0..LANES).step_by(TOGETHER) {
        let mut key = key;
        let [mut a, mut b, mut c, mut d] = [[0; TOGETHER]; 4];
        for i in 0..TOGETHER {
            (a[i], b[i]) = (u64::from(counter[0][from + i]), u64::from(counter[1][from + i]));
            (c[i], d[i]) = (u64::from(counter[2][from + i]), u64::from(counter[3][from + i]));
        }
        for _ in 0..10 {
            let keys = key.map(u64::from);
            for i in 0..TOGETHER {
                let (left, right) = ((a[i] & LOW) * 0xd251_1f53, (c[i] & LOW) * 0xcd9e_8d57);
                (a[i], b[i]) = (right >> 32 ^ b[i] ^ keys[0], right);
                (c[i], d[i]) = (left >> 32 ^ d[i] ^ keys[1], left);
            }
            key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        }
        for i in 0..TOGETHER {
            (counter[0][from + i], counter[1][from + i]) = (a[i] as u32, b[i] as u32);
            (counter[2][from + i], counter[3][from + i]) = (c[i] as u32, d[i] as u32);
        }
    }
}

/// A permutation of `0..n`, uniform, by Fisher and Yates.
pub fn shuffle<T>(items: &mut [T], random: &mut Philox) {
    for i in (1..items.len()).rev() {
        let j = random.bounded(i as u32 + 1) as usize;
        items.swap(i, j);
    }
}

/// Standard normal numbers, by Box and Muller; `words` gives room for one 32-bit word per number, rounded up to even.
#[inline(always)]
pub fn fill_normal<R: Real>(out: &mut [R], words: &mut [u32], random: &mut Philox) {
    let pairs = out.len().div_ceil(2);
    let words = &mut words[..2 * pairs];
    random.fill_u32(words);
    let (radius, angle) = words.split_at(pairs);
    let mut chunks = out.chunks_exact_mut(2);
    let minus_two = R::from_f64(-2.0);
    for ((pair, &r), &a) in (&mut chunks).zip(radius).zip(angle) {
        let r = (minus_two * Real::ln(R::open_unit(r))).sqrt();
        let (sine, cosine) = sin_cos_turn(R::open_unit(a));
        pair[0] = r * cosine;
        pair[1] = r * sine;
    }
    if let [last] = chunks.into_remainder() {
        let r = (minus_two * Real::ln(R::open_unit(radius[pairs - 1]))).sqrt();
        *last = r * sin_cos_turn(R::open_unit(angle[pairs - 1])).1;
    }
}

/// Rows of `width` standard normal numbers, from `per_row` random words each (`width`, rounded up to even, or more): the
/// same numbers as [`fill_normal`] gives row by row. Short rows fill whole vectors this way.
#[inline(always)]
pub fn normal_rows<R: Real>(out: &mut [R], width: usize, words: &[u32], per_row: usize) {
    if width == 0 {
        return;
    }
    let pairs = width.div_ceil(2);
    let minus_two = R::from_f64(-2.0);
    let n = out.len() / width * pairs;
    let (mut from_row, mut from) = (0, 0);
    let (mut to_row, mut to) = (0, 0);
    for start in (0..n).step_by(LANES) {
        let used = (n - start).min(LANES);
        let (mut radius, mut angle) = ([u32::MAX; LANES], [0; LANES]);
        for i in 0..used {
            radius[i] = words[from_row * per_row + from];
            angle[i] = words[from_row * per_row + pairs + from];
            from += 1;
            if from == pairs {
                (from_row, from) = (from_row + 1, 0);
            }
        }
        let (mut sines, mut cosines) = ([R::ZERO; LANES], [R::ZERO; LANES]);
        for i in 0..LANES {
            let r = (minus_two * Real::ln(R::open_unit(radius[i]))).sqrt();
            let (sine, cosine) = sin_cos_turn(R::open_unit(angle[i]));
            (sines[i], cosines[i]) = (r * sine, r * cosine);
        }
        for i in 0..used {
            let row = &mut out[to_row * width..(to_row + 1) * width];
            row[2 * to] = cosines[i];
            if 2 * to + 1 < width {
                row[2 * to + 1] = sines[i];
            }
            to += 1;
            if to == pairs {
                (to_row, to) = (to_row + 1, 0);
            }
        }
    }
}

/// Rows of `width` logistic numbers, log u - log(1 - u), from `per_row` random words each.
#[inline(always)]
pub fn logistic_rows<R: Real>(out: &mut [R], width: usize, words: &[u32], per_row: usize) {
    let (mut row, mut at) = (0, 0);
    for chunk in out.chunks_mut(LANES) {
        let mut bits = [0; LANES];
        for i in 0..chunk.len() {
            bits[i] = words[row * per_row + at];
            at += 1;
            if at == width {
                (row, at) = (row + 1, 0);
            }
        }
        let mut values = [R::ZERO; LANES];
        for i in 0..LANES {
            let u = R::open_unit(bits[i]);
            values[i] = Real::ln(u) - Real::ln(R::ONE - u);
        }
        let n = chunk.len();
        chunk.copy_from_slice(&values[..n]);
    }
}

/// Rows of `width` dropout factors, 0 with probability `rate`, else 1 / (1 - rate), from `per_row` random words each:
/// the low halves decide the first half of a row, the high halves the rest.
#[inline(always)]
pub fn dropout_rows<R: Real>(out: &mut [R], width: usize, rate: f64, words: &[u32], per_row: usize) {
    if width == 0 {
        return;
    }
    let threshold = (rate * 65_536.0).round();
    // The rate that sixteen bits can express, so that the factor's mean is exactly one.
    let kept = R::from_f64(65_536.0 / (65_536.0 - threshold));
    let threshold = threshold as u32;
    let half = width.div_ceil(2);
    for row in 0..out.len() / width {
        let words = &words[row * per_row..row * per_row + half];
        let (low, high) = out[row * width..(row + 1) * width].split_at_mut(half);
        for j in 0..half {
            low[j] = if words[j] & 0xffff < threshold { R::ZERO } else { kept };
        }
        let words = &words[..high.len()];
        for j in 0..words.len() {
            high[j] = if words[j] >> 16 < threshold { R::ZERO } else { kept };
        }
    }
}

/// `(sin 2 pi u, cos 2 pi u)` for u in (0, 1), by Taylor series on an eighth of a turn either side of an axis.
#[inline(always)]
fn sin_cos_turn<R: Real>(u: R) -> (R, R) {
    // The axis is the nearest quarter turn, found by comparison so that loops vectorise.
    let one = R::ONE;
    let at = |edge: f64| if u >= R::from_f64(edge) { one } else { R::ZERO };
    let (q1, q2, q3, q4) = (at(0.125), at(0.375), at(0.625), at(0.875));
    let r = (u - R::from_f64(0.25) * (q1 + q2 + q3 + q4)) * R::from_f64(std::f64::consts::TAU);
    let r2 = r * r;
    // Terms up to r^17: below 1e-17 at r = pi/4.
    let mut sine = R::ZERO;
    let mut cosine = R::ZERO;
    let mut k = 17;
    while k >= 3 {
        sine = (sine + one) * r2 * R::from_f64(-1.0 / (k * (k - 1)) as f64);
        cosine = (cosine + one) * r2 * R::from_f64(-1.0 / ((k - 1) * (k - 2)) as f64);
        k -= 2;
    }
    let sine = (sine + one) * r;
    let cosine = cosine + one;
    // Rotate by q quarter turns: odd q swaps, the signs follow.
    let odd = q1 - q2 + q3 - q4;
    let sine_sign = one - R::from_f64(2.0) * (q2 - q4);
    let cosine_sign = one - R::from_f64(2.0) * (q1 - q3);
    let swapped = odd > R::from_f64(0.5);
    let s = if swapped { cosine } else { sine };
    let c = if swapped { sine } else { cosine };
    (s * sine_sign, c * cosine_sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data and splits follow from these numbers, so they stay; and 2^40 cells of one purpose meet those of no other.
    #[test]
    fn samplers_keep_their_streams_and_share_none() {
        use SamplerPurpose::*;
        let by_cell = [
            SimulatedLatents,
            SimulatedCounts,
            PredictedLatents,
            PredictedCounts,
            PredictedShifts,
            Resampled,
            ModelLatents,
            ModelCounts,
            PosteriorSample(0),
            PosteriorSample(9),
        ];
        let single = [
            SimulatedTargets,
            SimulatedShifts,
            SimulatedMixing,
            SimulatedTogether,
            SimulatedEscapes,
            SimulatedBatches,
            SimulatedCombinations,
            SimulatedInteractions,
            HeldOutCombinations,
            Split,
            Benchmark,
        ];
        let mut firsts: Vec<u64> = by_cell.iter().chain(&single[..9]).map(|purpose| purpose.first_stream()).collect();
        firsts.sort_unstable();
        assert!(firsts.windows(2).all(|pair| pair[1] - pair[0] >= 1 << 40), "{firsts:x?}");
        assert_eq!(firsts[..15], std::array::from_fn::<u64, 15, _>(|i| (i as u64 + 1) << 48));
        assert_eq!(firsts[15..], [0u64, 1, 2, 11].map(|number| 1 << 63 | number << 40));
        assert_eq!(
            single[9..].iter().map(|purpose| purpose.first_stream()).collect::<Vec<_>>(),
            [0x73_706c_6974u64, 0]
        );
    }

    /// Logistic numbers one by one.
    fn fill_logistic<R: Real>(out: &mut [R], words: &mut [u32], random: &mut Philox) {
        let words = &mut words[..out.len()];
        random.fill_u32(words);
        for (out, &word) in out.iter_mut().zip(words.iter()) {
            let u = R::open_unit(word);
            *out = Real::ln(u) - Real::ln(R::ONE - u);
        }
    }

    #[test]
    fn sine_and_cosine_agree_with_the_standard_library() {
        for i in 1..100_000 {
            let u = i as f64 / 100_000.0;
            let (s, c) = sin_cos_turn(u);
            let (want_s, want_c) = (u * std::f64::consts::TAU).sin_cos();
            // The product u * 2 pi alone is off by up to 4.4e-16, half a spacing at 6.28.
            assert!((s - want_s).abs() < 8e-16 && (c - want_c).abs() < 8e-16, "{u}: {s} {want_s} {c} {want_c}");
        }
    }

    fn moments(x: &[f64]) -> (f64, f64, f64) {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let fourth = x.iter().map(|v| (v - mean).powi(4)).sum::<f64>() / n;
        (mean, variance, fourth / (variance * variance))
    }

    #[test]
    fn draws_have_the_moments_of_their_distributions() {
        let n = 200_001;
        let mut words = vec![0; n + 1];
        let mut x = vec![0f64; n];
        fill_normal(&mut x, &mut words, &mut stream(3, Purpose::Latent, 1, 2));
        let (mean, variance, kurtosis) = moments(&x);
        // Five standard errors each.
        assert!(mean.abs() < 0.012 && (variance - 1.0).abs() < 0.016 && (kurtosis - 3.0).abs() < 0.06);

        fill_logistic(&mut x, &mut words, &mut stream(3, Purpose::Mask, 1, 2));
        let (mean, variance, kurtosis) = moments(&x);
        let pi2 = std::f64::consts::PI.powi(2);
        assert!(mean.abs() < 0.021 && (variance - pi2 / 3.0).abs() < 0.07 && (kurtosis - 4.2).abs() < 0.3);

        stream(3, Purpose::Dropout, 1, 2).fill_u32(&mut words);
        dropout_rows(&mut x, n, 0.1, &words, n + 1);
        let zeros = x.iter().filter(|&&v| v == 0.0).count() as f64 / n as f64;
        assert!((zeros - 0.1).abs() < 0.0034, "{zeros}");
        assert!((moments(&x).0 - 1.0).abs() < 0.0038);
        dropout_rows(&mut x, n, 0.0, &words, n + 1);
        assert!(x.iter().all(|&v| v == 1.0));
    }

    #[test]
    fn many_rows_at_a_time_are_the_same_as_row_by_row() {
        for (width, rows) in [(1, 1), (15, 3), (16, 32), (7, 29), (40, 5), (63, 3), (127, 4)] {
            let per_row = (width + 1usize).next_multiple_of(4);
            let mut words = vec![0; rows * per_row];
            let address = |row: usize| (3 + row as u64, (row as u64) << 33 | 12);
            fill_words(&mut words, per_row, 7, Purpose::ParticleMask, 0, address);
            let (mut normal, mut logistic) = (vec![0f32; rows * width], vec![0f32; rows * width]);
            normal_rows(&mut normal, width, &words, per_row);
            logistic_rows(&mut logistic, width, &words, per_row);
            for row in 0..rows {
                let (epoch, item) = address(row);
                let (mut want, mut room) = (vec![0f32; width], vec![0; width + 1]);
                fill_normal(&mut want, &mut room, &mut stream(7, Purpose::ParticleMask, epoch, item));
                assert_eq!(normal[row * width..][..width], want, "{width} {row}");
                fill_logistic(&mut want, &mut room, &mut stream(7, Purpose::ParticleMask, epoch, item));
                assert_eq!(logistic[row * width..][..width], want, "{width} {row}");
                // Later blocks of a stream continue it.
                for words in [8, 64, 128] {
                    let mut later = vec![0; words];
                    fill_words(&mut later, words, 7, Purpose::ParticleMask, 5, |_| address(row));
                    let mut all = vec![0; 20 + words];
                    stream(7, Purpose::ParticleMask, epoch, item).fill_u32(&mut all);
                    assert_eq!(later, all[20..]);
                }
            }
        }
    }

    #[test]
    fn streams_are_addressed_and_distinct() {
        let first = |seed, purpose, epoch, item| stream(seed, purpose, epoch, item).next_u64();
        let here = first(1, Purpose::Latent, 2, 3);
        assert_eq!(here, first(1, Purpose::Latent, 2, 3));
        let others = [
            first(2, Purpose::Latent, 2, 3),
            first(1, Purpose::Mask, 2, 3),
            first(1, Purpose::Latent, 3, 3),
            first(1, Purpose::Latent, 2, 4),
        ];
        assert!(!others.contains(&here));
    }

    #[test]
    fn single_and_double_precision_see_the_same_noise() {
        let (mut words, mut single, mut double) = (vec![0; 64], vec![0f32; 63], vec![0f64; 63]);
        fill_normal(&mut single, &mut words, &mut stream(0, Purpose::Latent, 0, 0));
        fill_normal(&mut double, &mut words, &mut stream(0, Purpose::Latent, 0, 0));
        for (s, d) in single.iter().zip(&double) {
            // 23 bits against 32: angles differ by at most 2^-23 of a turn, radii by their share of it.
            assert!((*s as f64 - d).abs() < 1e-4 * (1.0 + d.abs()), "{s} {d}");
        }
    }
}
