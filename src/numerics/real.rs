//! The scalar of the model: `f32` to train, `f64` to verify, one code for both.
//!
//! `exp`, `ln` and `ln_1p` are branch-free polynomials, so that loops over them vectorise (see
//! [`vectorized`](crate::numerics::simd::vectorized)) and give the same bits at every vector width.

use serde::Deserialize;
use serde::Serialize;
use std::fmt::{Debug, Display};
use std::iter::Sum;

/// A floating-point scalar: `f32` or `f64`.
pub trait Real:
    faer::traits::RealField + Copy + Default + Debug + Display + Send + Sync + Sum + npyz::Serialize + 'static
{
    /// "f32" or "f64".
    const NAME: &'static str;
    /// Spacing of the numbers next to one.
    const EPSILON: Self;
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Positive infinity.
    const INFINITY: Self;

    /// Nearest value to `x`.
    fn from_f64(x: f64) -> Self;
    /// The value, exactly.
    fn to_f64(self) -> f64;
    /// Nearest value to the count `x`.
    fn of_count(x: u32) -> Self;
    /// Uniform on the open interval (0, 1) from 32 random bits.
    fn open_unit(bits: u32) -> Self;
    /// `self * a + b` with one rounding.
    fn fma(self, a: Self, b: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Whether the value is neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// e to the power `self`; 0 below the smallest subnormal, infinity above the largest finite value, NaN for NaN.
    fn exp(self) -> Self;
    /// Natural logarithm; -infinity at 0, NaN below, subnormals included.
    fn ln(self) -> Self;
    /// `(ln(1 + t), ln(1 + t) - t)` for t >= 0, each to relative accuracy, also where t is tiny.
    fn ln_1p_pair(self) -> (Self, Self);
    /// `e^self` for `self <= 0`, never smaller than about the smallest normal number; NaN for NaN. Fewer instructions
    /// than [`exp`](Real::exp): one power of two instead of two.
    fn exp_nonpositive(self) -> Self;
    /// `(ln(1 + t), ln(1 + t) - t, 1 / (1 + t))` for 0 <= t < largest finite / 8, with a single division; within 3.5, 12
    /// and 3 spacings. What rounding 1 + t loses is left out where t > sqrt(2) - 1, unlike in
    /// [`ln_1p_pair`](Real::ln_1p_pair).
    fn ln_1p_and_reciprocal(self) -> (Self, Self, Self);

    /// ln(1 + t) for t >= 0.
    #[inline(always)]
    fn ln_1p(self) -> Self {
        self.ln_1p_pair().0
    }

    /// The larger of two numbers (the second if the first is NaN).
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

macro_rules! real {
    (
        $t:ident, $name:literal, $bits:ident, $signed:ident, mantissa $mantissa:literal, bias $bias:literal,
        magic $magic:literal, exp in $lowest:literal to $highest:literal normal from $lowest_normal:literal, ln2 $ln2_high:literal + $ln2_low:literal,
        exp series [$e0:expr $(, $e:expr)*], atanh series [$a0:expr $(, $a:expr)*], unit($u:ident) $unit:expr
    ) => {
        impl Real for $t {
            const NAME: &'static str = $name;
            const EPSILON: Self = $t::EPSILON;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const INFINITY: Self = $t::INFINITY;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn of_count(x: u32) -> Self {
                x as $t
            }
            #[inline(always)]
            fn open_unit($u: u32) -> Self {
                $unit
            }
            #[inline(always)]
            fn fma(self, a: Self, b: Self) -> Self {
                self.mul_add(a, b)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $t::abs(self)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                $t::is_finite(self)
            }

            #[inline(always)]
            fn exp(self) -> Self {
                // Comparisons that are false for NaN keep a NaN in place.
                let x = if self > $highest { $highest } else { self };
                let x = if x < $lowest { $lowest } else { x };
                // Adding 1.5 * 2^mantissa rounds to an integer and leaves it in the low bits.
                let shifted = x.mul_add(std::$t::consts::LOG2_E, $magic);
                let n = shifted - $magic;
                let r = n.mul_add(-$ln2_low, n.mul_add(-$ln2_high, x));
                let mut p: $t = $e0;
                $( p = p.mul_add(r, $e); )*
                let p = p.mul_add(r * r, r) + 1.0;
                // 2^n in two factors, so that results may be subnormal or infinite.
                let half = n.mul_add(0.5, $magic);
                let first = half.to_bits() as $signed - ($magic as $t).to_bits() as $signed;
                let second = shifted.to_bits() as $signed - ($magic as $t).to_bits() as $signed - first;
                let power = |k: $signed| $t::from_bits(((k + $bias) as $bits) << $mantissa);
                p * power(first) * power(second)
            }

            #[inline(always)]
            fn ln(self) -> Self {
                let (exponent, f) = split_exponent(self);
                let (log, _) = ln_near_one(f, exponent);
                let log = if self == $t::INFINITY { self } else { log };
                let log = if self == 0.0 { -$t::INFINITY } else { log };
                if self >= 0.0 { log } else { $t::NAN }
            }

            #[inline(always)]
            fn ln_1p_pair(self) -> (Self, Self) {
                let t = self;
                let u = 1.0 + t;
                let (exponent, f) = split_exponent(u);
                // What rounding 1 + t lost. Below sqrt(2) - 1 nothing is reduced: f is t itself, exactly.
                let small = exponent == 0.0;
                let lost = if small { 0.0 } else { (t - (u - 1.0)) / u };
                let f = if small { t } else { f };
                let (log, excess) = ln_near_one(f, exponent);
                let log = log + lost;
                let excess = if small { excess } else { log - t };
                let log = if u == $t::INFINITY { u } else { log };
                (log, excess)
            }

            #[inline(always)]
            fn exp_nonpositive(self) -> Self {
                let x = if self < $lowest_normal { $lowest_normal } else { self };
                let shifted = x.mul_add(std::$t::consts::LOG2_E, $magic);
                let n = shifted - $magic;
                let r = n.mul_add(-$ln2_low, n.mul_add(-$ln2_high, x));
                let mut p: $t = $e0;
                $( p = p.mul_add(r, $e); )*
                let p = p.mul_add(r * r, r) + 1.0;
                // The low bits of `shifted` are n; the constant's own low bits vanish in the shift.
                p * $t::from_bits(shifted.to_bits().wrapping_add($bias) << $mantissa)
            }

            #[inline(always)]
            fn ln_1p_and_reciprocal(self) -> (Self, Self, Self) {
                let t = self;
                let u = 1.0 + t;
                let (exponent, fraction) = <$t as SplitFloat>::split_normal(u);
                let small = exponent == 0.0;
                let f = if small { t } else { fraction };
                // 1 / u and f / (2 + f) out of one division.
                let shared = 1.0 / (u * (2.0 + f));
                let reciprocal = (2.0 + f) * shared;
                let s = f * u * shared;
                // What rounding u lost is at most half a spacing of u, about one of ln u: left out.
                let (log, excess) = <$t as SplitFloat>::series(f, s, exponent);
                let excess = if small { excess } else { log - t };
                (log, excess, reciprocal)
            }
        }

        const _: () = {
            use $t as T;
            impl SplitFloat for T {
                /// `x = 2^exponent (1 + f)` with 1 + f in [sqrt(1/2), sqrt(2)).
                #[inline(always)]
                fn split(x: T) -> (T, T) {
                    let tiny = x < T::MIN_POSITIVE;
                    let scale: T = if tiny { (1u64 << $mantissa) as T } else { 1.0 };
                    let correction: T = if tiny { $mantissa as T } else { 0.0 };
                    let (exponent, f) = Self::split_normal(x * scale);
                    (exponent - correction, f)
                }
                #[inline(always)]
                fn split_normal(x: T) -> (T, T) {
                    const SQRT_HALF: $bits = (std::$t::consts::FRAC_1_SQRT_2).to_bits();
                    let bits = x.to_bits().wrapping_sub(SQRT_HALF);
                    // The exponent field, plus one bias to keep it positive, read as the low bits of a large float.
                    let field = (bits.wrapping_add(($bias as $bits) << $mantissa)) >> $mantissa;
                    let large: T = (1u64 << $mantissa) as T;
                    let exponent = T::from_bits(field | large.to_bits()) - (large + $bias as T);
                    let fraction = T::from_bits((bits & ((1 << $mantissa) - 1)).wrapping_add(SQRT_HALF));
                    (exponent, fraction - 1.0)
                }
                /// `(exponent ln 2 + ln(1 + f), ln(1 + f) - f)`, by 2 artanh(s), s = f / (2 + f).
                #[inline(always)]
                fn near_one(f: T, exponent: T) -> (T, T) {
                    Self::series(f, f / (2.0 + f), exponent)
                }
                #[inline(always)]
                fn series(f: T, s: T, exponent: T) -> (T, T) {
                    let square = s * s;
                    let mut p: T = 2.0 * $a0;
                    $( p = p.mul_add(square, 2.0 * $a); )*
                    let tail = p * square;
                    let half_square = 0.5 * f * f;
                    // ln(1+f) = f - (f^2/2 - s (f^2/2 + tail)): the large parts are exact.
                    let excess = s * (half_square + tail) - half_square;
                    let log = exponent.mul_add($ln2_high, exponent.mul_add($ln2_low, excess) + f);
                    (log, excess)
                }
            }
        };
    };
}

trait SplitFloat: Sized {
    fn split(x: Self) -> (Self, Self);
    /// The same for x neither zero nor subnormal.
    fn split_normal(x: Self) -> (Self, Self);
    fn near_one(f: Self, exponent: Self) -> (Self, Self);
    /// `near_one` with s = f / (2 + f) given.
    fn series(f: Self, s: Self, exponent: Self) -> (Self, Self);
}

#[inline(always)]
fn split_exponent<T: SplitFloat>(x: T) -> (T, T) {
    T::split(x)
}

#[inline(always)]
fn ln_near_one<T: SplitFloat>(f: T, exponent: T) -> (T, T) {
    T::near_one(f, exponent)
}

real! {
    f32, "f32", u32, i32, mantissa 23, bias 127,
    magic 12_582_912.0, exp in -104.0 to 89.0 normal from -87.0, ln2 0.693_145_75 + 1.428_606_8e-6,
    exp series [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5],
    atanh series [1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0],
    // 23 bits: with 24 the largest would round to 1.
    unit(bits) ((bits >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0)
}

real! {
    f64, "f64", u64, i64, mantissa 52, bias 1023,
    magic 6_755_399_441_055_744.0, exp in -746.0 to 710.0 normal from -708.0,
    ln2 0.693_147_180_369_123_8 + 1.908_214_929_270_587_7e-10,
    exp series [
        1.0 / 6_227_020_800.0, 1.0 / 479_001_600.0, 1.0 / 39_916_800.0, 1.0 / 3_628_800.0, 1.0 / 362_880.0,
        1.0 / 40_320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5
    ],
    atanh series [
        1.0 / 21.0, 1.0 / 19.0, 1.0 / 17.0, 1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0,
        1.0 / 3.0
    ],
    unit(bits) (bits as f64 + 0.5) * (1.0 / 4_294_967_296.0)
}

/// Floating-point type of the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single precision
    F32,
    /// Double precision
    F64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worst error of `got` against `want`, in units of f32 or f64 spacing at `want`.
    fn ulps(got: f64, want: f64, epsilon: f64, smallest: f64) -> f64 {
        if got == want || (got.is_nan() && want.is_nan()) {
            return 0.0;
        }
        let spacing = (2f64.powi(want.abs().log2().floor().max(-1022.0) as i32) * epsilon).max(smallest);
        (got - want).abs() / spacing
    }

    fn worst(
        points: impl Iterator<Item = f64>,
        got: impl Fn(f64) -> f64,
        want: impl Fn(f64) -> f64,
        e: f64,
        s: f64,
    ) -> f64 {
        points.map(|x| ulps(got(x), want(x), e, s)).fold(0.0, f64::max)
    }

    fn all_f32(from: u32, to: u32) -> impl Iterator<Item = f64> {
        // Every 97th float: a prime step meets every low-bit pattern.
        (from..to).step_by(97).map(|bits| f32::from_bits(bits) as f64)
    }

    const E32: f64 = f32::EPSILON as f64;
    const S32: f64 = 1.401298464324817e-45;
    const S64: f64 = 5e-324;

    #[test]
    fn exp_f32_is_within_1_1_ulp_on_its_whole_domain() {
        let got = |x: f64| Real::exp(x as f32) as f64;
        let want = |x: f64| (x.exp() as f32) as f64;
        let top = 100f32.to_bits();
        let exact = |x: f64| if want(x).is_infinite() { want(x) } else { x.exp() };
        let positive = worst(all_f32(0, top), got, exact, E32, S32);
        let negative = worst(all_f32(0, 120f32.to_bits()).map(|x| -x), got, exact, E32, S32);
        // Half an ulp from the last addition, a quarter each from rounding r and the sum before it, 0.1 from the series.
        assert!(positive < 1.1 && negative < 1.1, "{positive} {negative}");
    }

    #[test]
    fn ln_f32_is_within_one_ulp_on_its_whole_domain() {
        let worst = worst(all_f32(1, f32::INFINITY.to_bits()), |x| Real::ln(x as f32) as f64, f64::ln, E32, S32);
        assert!(worst < 1.0, "{worst}");
    }

    #[test]
    fn ln_1p_f32_keeps_relative_accuracy_on_its_whole_domain() {
        let log = worst(all_f32(0, f32::INFINITY.to_bits()), |x| Real::ln_1p(x as f32) as f64, f64::ln_1p, E32, S32);
        assert!(log < 1.5, "{log}");
        // ln(1+t) - t by its series where f64 would lose digits.
        let excess = |t: f64| {
            if t < 1e-3 { t * t * (-0.5 + t * (1.0 / 3.0 - t * (0.25 - t * 0.2))) } else { t.ln_1p() - t }
        };
        let above_underflow = 1e-17f32.to_bits();
        let worst =
            worst(all_f32(above_underflow, f32::MAX.to_bits()), |x| (x as f32).ln_1p_pair().1 as f64, excess, E32, S32);
        assert!(worst < 6.0, "{worst}");
    }

    #[test]
    fn lean_variants_in_f32_are_accurate_on_their_domains() {
        let lean = |t: f64| (t as f32).ln_1p_and_reciprocal();
        let top = 1e37f32.to_bits();
        let log = worst(all_f32(0, top), |t| lean(t).0 as f64, f64::ln_1p, E32, S32);
        // Two for the series, 1.5 for the rounding of 1 + t where t > sqrt(2) - 1, so that ln(1 + t) > 0.34.
        assert!(log < 3.5, "log {log}");
        let reciprocal = worst(all_f32(0, top), |t| lean(t).2 as f64, |t| 1.0 / (1.0 + t), E32, S32);
        // Roundings of u, u (2 + f), the quotient, 2 + f (twice, cancelling in part) and the product.
        assert!(reciprocal < 3.0, "reciprocal {reciprocal}");
        let excess = |t: f64| {
            if t < 1e-3 { t * t * (-0.5 + t * (1.0 / 3.0 - t * (0.25 - t * 0.2))) } else { t.ln_1p() - t }
        };
        let worst_excess = worst(all_f32(1e-17f32.to_bits(), top), |t| lean(t).1 as f64, excess, E32, S32);
        // As in ln_1p_pair, plus the rounding of 1 + t: half a spacing of u over u, 5.7 spacings of the smallest value it
        // meets, 0.068 at t = sqrt(2) - 1.
        assert!(worst_excess < 12.0, "excess {worst_excess}");
        let exp = worst(
            all_f32(0, 87f32.to_bits()).map(|x| -x),
            |x| Real::exp_nonpositive(x as f32) as f64,
            f64::exp,
            E32,
            S32,
        );
        assert!(exp < 1.1, "exp {exp}");
        let floor = Real::exp_nonpositive(-1e30f32);
        assert!(floor > 0.0 && floor < 2e-38);
        assert!(f32::NAN.exp_nonpositive().is_nan() && f64::NAN.exp_nonpositive().is_nan());
        assert!(f32::NAN.ln_1p_and_reciprocal().0.is_nan() && f64::NAN.ln_1p_and_reciprocal().0.is_nan());
    }

    #[test]
    fn lean_variants_in_f64_are_accurate_on_their_domains() {
        let wide =
            || (-1_000..1_000).flat_map(|e| [1.0, 1.1, 1.3, 1.414, 1.5, 1.9].map(|m| m * 2f64.powf(e as f64 / 10.0)));
        let log = worst(wide(), |t: f64| t.ln_1p_and_reciprocal().0, f64::ln_1p, f64::EPSILON, S64);
        let reciprocal = worst(wide(), |t: f64| t.ln_1p_and_reciprocal().2, |t| 1.0 / (1.0 + t), f64::EPSILON, S64);
        let exp = worst((0..708_000).map(|i| i as f64 * -1e-3), Real::exp_nonpositive, f64::exp, f64::EPSILON, S64);
        assert!(log < 4.5 && reciprocal < 4.0 && exp < 2.0, "{log} {reciprocal} {exp}");
        // ln(1+t) - t against its general twin: within 6 and 12 spacings of the truth (the bounds shown in f32).
        let worst_excess =
            worst(wide(), |t: f64| t.ln_1p_and_reciprocal().1, |t: f64| t.ln_1p_pair().1, f64::EPSILON, S64);
        assert!(worst_excess < 18.0, "{worst_excess}");
    }

    #[test]
    fn f64_functions_agree_with_the_standard_library() {
        // The platform's functions are themselves good to an ulp, hence the bound of two.
        let grid = (-7_450_000..7_098_000).step_by(37).map(|i| i as f64 * 1e-4);
        let exp = worst(grid, Real::exp, f64::exp, f64::EPSILON, S64);
        assert!(exp < 2.0, "exp {exp}");
        let wide =
            || (-10_700..10_230).flat_map(|e| [1.0, 1.1, 1.3, 1.414, 1.5, 1.9].map(|m| m * 2f64.powf(e as f64 / 10.0)));
        let ln = worst(wide(), Real::ln, f64::ln, f64::EPSILON, S64);
        assert!(ln < 2.0, "ln {ln}");
        let ln_1p = worst(wide(), Real::ln_1p, f64::ln_1p, f64::EPSILON, S64);
        assert!(ln_1p < 2.0, "ln_1p {ln_1p}");
    }

    #[test]
    fn special_values_are_kept() {
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(Real::exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(0f64), 1.0);
        assert!(Real::exp(f32::NAN).is_nan() && Real::exp(f64::NAN).is_nan());
        assert_eq!(Real::ln(0f32), f32::NEG_INFINITY);
        assert_eq!(Real::ln(f64::INFINITY), f64::INFINITY);
        assert!(Real::ln(-1f32).is_nan() && Real::ln(f64::NAN).is_nan());
        assert_eq!(Real::ln(5e-324), f64::ln(5e-324));
        assert_eq!(Real::ln_1p(f32::INFINITY), f32::INFINITY);
        assert_eq!(Real::ln_1p(0f64), 0.0);
        assert!(f32::open_unit(u32::MAX) < 1.0 && f32::open_unit(0) > 0.0);
    }

    #[test]
    fn vectorised_loops_give_the_same_bits_as_single_calls() {
        let x: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) * 0.173).collect();
        let mut looped = x.clone();
        super::super::simd::vectorized(|| {
            for v in &mut looped {
                *v = Real::ln_1p(Real::exp(*v));
            }
        });
        for (l, x) in looped.iter().zip(&x) {
            assert_eq!(l.to_bits(), Real::ln_1p(Real::exp(*x)).to_bits());
        }
    }
}
