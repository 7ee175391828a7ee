//! Random numbers addressed by (seed, purpose, epoch, cell): the same whatever the threads or the order of work.

use crate::numerics::real::Real;
use rand_philox::{Philox, splitmix64};

/// What random numbers are for; streams of different purposes never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Purpose {
    /// Starting values of the parameters.
    Initialization = 1,
    /// Order of the cells in an epoch.
    Shuffle = 2,
    /// Split into training and validation cells.
    Split = 3,
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
}

/// The stream of one (seed, purpose, epoch, item): Philox 4x32-10 with these as its counter (Salmon et al. 2011).
///
/// Every item owns 2^32 blocks of four words; `epoch` < 2^32 and `item` < 2^48.
pub fn stream(seed: u64, purpose: Purpose, epoch: u64, item: u64) -> Philox {
    let key = splitmix64(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let counter = ((purpose as u128) << 112) | ((epoch as u128) << 80) | ((item as u128) << 32);
    Philox::new([key as u32, (key >> 32) as u32], counter)
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
    let minus_two = R::of(-2.0);
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

/// Pairs of numbers that [`fill_normal_rows`] works on at a time.
const PAIRS_AT_ONCE: usize = 256;

/// Standard normal numbers, the row `r` of `width` numbers from `stream_of(r)`: the same as by [`fill_normal`] row by
/// row. Short rows are worked on together, which fills the vectors that a single one would leave half empty; `words`
/// gives room for the words of one row.
#[inline(always)]
pub fn fill_normal_rows<R: Real>(
    out: &mut [R],
    width: usize,
    words: &mut [u32],
    mut stream_of: impl FnMut(usize) -> Philox,
) {
    let pairs = width.div_ceil(2);
    let rows_at_once = PAIRS_AT_ONCE / pairs.max(1);
    if rows_at_once < 2 {
        out.chunks_exact_mut(width).enumerate().for_each(|(r, row)| fill_normal(row, words, &mut stream_of(r)));
        return;
    }
    let words = &mut words[..2 * pairs];
    let (mut radius, mut angle) = ([0u32; PAIRS_AT_ONCE], [0u32; PAIRS_AT_ONCE]);
    let (mut first, mut second) = ([R::ZERO; PAIRS_AT_ONCE], [R::ZERO; PAIRS_AT_ONCE]);
    let minus_two = R::of(-2.0);
    for (group, rows) in out.chunks_mut(rows_at_once * width).enumerate() {
        let n_rows = rows.len() / width;
        for r in 0..n_rows {
            stream_of(group * rows_at_once + r).fill_u32(words);
            radius[r * pairs..(r + 1) * pairs].copy_from_slice(&words[..pairs]);
            angle[r * pairs..(r + 1) * pairs].copy_from_slice(&words[pairs..]);
        }
        let n = n_rows * pairs;
        let numbers = first[..n].iter_mut().zip(&mut second[..n]);
        for ((first, second), (&r, &a)) in numbers.zip(radius[..n].iter().zip(&angle[..n])) {
            let r = (minus_two * Real::ln(R::open_unit(r))).sqrt();
            let (sine, cosine) = sin_cos_turn(R::open_unit(a));
            *first = r * cosine;
            *second = r * sine;
        }
        for (r, row) in rows.chunks_exact_mut(width).enumerate() {
            for (k, value) in row.iter_mut().enumerate() {
                let of = if k % 2 == 0 { &first } else { &second };
                *value = of[r * pairs + k / 2];
            }
        }
    }
}

/// Logistic numbers, log u - log(1 - u).
#[inline(always)]
pub fn fill_logistic<R: Real>(out: &mut [R], words: &mut [u32], random: &mut Philox) {
    let words = &mut words[..out.len()];
    random.fill_u32(words);
    for (out, &word) in out.iter_mut().zip(words.iter()) {
        let u = R::open_unit(word);
        *out = Real::ln(u) - Real::ln(R::ONE - u);
    }
}

/// Dropout factors: 0 with probability `rate`, else 1 / (1 - rate). Sixteen random bits decide each.
#[inline(always)]
pub fn fill_dropout<R: Real>(out: &mut [R], rate: f64, words: &mut [u32], random: &mut Philox) {
    let words = &mut words[..out.len().div_ceil(2)];
    random.fill_u32(words);
    let threshold = (rate * 65_536.0).round();
    // The rate that sixteen bits can express, so that the factor's mean is exactly one.
    let kept = R::of(65_536.0 / (65_536.0 - threshold));
    let threshold = threshold as u32;
    let keep = |bits: u32| if bits < threshold { R::ZERO } else { kept };
    let mut chunks = out.chunks_exact_mut(2);
    for (pair, &word) in (&mut chunks).zip(words.iter()) {
        pair[0] = keep(word & 0xffff);
        pair[1] = keep(word >> 16);
    }
    if let [last] = chunks.into_remainder() {
        *last = keep(words[words.len() - 1] & 0xffff);
    }
}

/// `(sin 2 pi u, cos 2 pi u)` for u in (0, 1), by Taylor series on an eighth of a turn either side of an axis.
#[inline(always)]
fn sin_cos_turn<R: Real>(u: R) -> (R, R) {
    // The axis is the nearest quarter turn, found by comparison so that loops vectorise.
    let one = R::ONE;
    let at = |edge: f64| if u >= R::of(edge) { one } else { R::ZERO };
    let (q1, q2, q3, q4) = (at(0.125), at(0.375), at(0.625), at(0.875));
    let r = (u - R::of(0.25) * (q1 + q2 + q3 + q4)) * R::of(std::f64::consts::TAU);
    let r2 = r * r;
    // Terms up to r^17: below 1e-17 at r = pi/4.
    let mut sine = R::ZERO;
    let mut cosine = R::ZERO;
    let mut k = 17;
    while k >= 3 {
        sine = (sine + one) * r2 * R::of(-1.0 / (k * (k - 1)) as f64);
        cosine = (cosine + one) * r2 * R::of(-1.0 / ((k - 1) * (k - 2)) as f64);
        k -= 2;
    }
    let sine = (sine + one) * r;
    let cosine = cosine + one;
    // Rotate by q quarter turns: odd q swaps, the signs follow.
    let odd = q1 - q2 + q3 - q4;
    let sine_sign = one - R::of(2.0) * (q2 - q4);
    let cosine_sign = one - R::of(2.0) * (q1 - q3);
    let swapped = odd > R::of(0.5);
    let s = if swapped { cosine } else { sine };
    let c = if swapped { sine } else { cosine };
    (s * sine_sign, c * cosine_sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::simd::vectorized;

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

        fill_dropout(&mut x, 0.1, &mut words, &mut stream(3, Purpose::Dropout, 1, 2));
        let zeros = x.iter().filter(|&&v| v == 0.0).count() as f64 / n as f64;
        assert!((zeros - 0.1).abs() < 0.0034, "{zeros}");
        assert!((moments(&x).0 - 1.0).abs() < 0.0038);
        fill_dropout(&mut x, 0.0, &mut words, &mut stream(3, Purpose::Dropout, 1, 2));
        assert!(x.iter().all(|&v| v == 1.0));
    }

    #[test]
    fn rows_together_are_the_rows_one_by_one() {
        fn check<R: Real>() {
            // Widths either side of the vectors' and of what fits at once.
            for width in [1, 2, 3, 5, 8, 15, 16, 17, 33, 250, 256, 257, 512, 700] {
                let n_rows = 37;
                let of = |r: usize| stream(9, Purpose::ParticleLatent, r as u64, 4);
                let (mut words, mut together, mut apart) =
                    (vec![0; width + 1], vec![R::ZERO; n_rows * width], vec![R::ZERO; n_rows * width]);
                vectorized(|| fill_normal_rows(&mut together, width, &mut words, of));
                let rows = apart.chunks_exact_mut(width).enumerate();
                vectorized(|| rows.for_each(|(r, row)| fill_normal(row, &mut words, &mut of(r))));
                assert!(together == apart, "{width}");
            }
        }
        check::<f32>();
        check::<f64>();
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
