//! Run-time choice of the vector instructions that element-wise loops are compiled for.
//!
//! These loops give the same bits on every instruction set: sums have a fixed order and multiply-adds round once. Matrix
//! products are faer's, whose order of summation depends on the processor; [`Level::Baseline`] replaces them by products of a
//! fixed order.

use serde::Deserialize;
use serde::Serialize;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

static FIXED_ORDER: AtomicBool = AtomicBool::new(false);
static PLAIN: AtomicBool = AtomicBool::new(false);

/// What the last digits of results may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The kind of processor: the fastest matrix products that it offers
    Native,
    /// Nothing: the same bytes on any processor, with slower matrix products
    Baseline,
}

impl Level {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Level::Native => "native",
            Level::Baseline => "baseline",
        }
    }

    /// Makes this the level of the whole process. To be called before any work is done.
    pub fn choose(self) {
        FIXED_ORDER.store(self == Level::Baseline, Ordering::Relaxed);
    }
}

/// Whether matrix products keep a fixed order of summation.
#[inline(always)]
pub(crate) fn fixed_order() -> bool {
    FIXED_ORDER.load(Ordering::Relaxed)
}

/// Runs element-wise loops without vector instructions, as on the oldest processor of the target, to compare results.
pub fn without_vectors(plain: bool) {
    PLAIN.store(plain, Ordering::Relaxed);
}

fn arch() -> pulp::Arch {
    if PLAIN.load(Ordering::Relaxed) { pulp::Arch::Scalar } else { pulp::Arch::new() }
}

/// Whether the processor has AVX2, but not AVX-512.
pub(crate) fn is_avx2() -> bool {
    static IS: LazyLock<bool> = LazyLock::new(|| level() == "avx2");
    *IS
}

/// Runs `f` compiled for the widest vector instructions of this processor (AVX-512, AVX2 with FMA, or plain).
///
/// `f` is one generic body, inlined into one function per instruction set, where the compiler vectorises its loops.
/// Everything `f` calls must be `#[inline(always)]`, or it stays compiled for the plain instruction set, where a fused
/// multiply-add is a function call. That holds for `f` itself as well: a closure is inlined or not by its size, so larger
/// ones are written `vectorized(#[inline(always)] || ...)`, and iterator adaptors that take closures are avoided.
#[inline(always)]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    arch().dispatch(f)
}

/// `W` values of `slice` from `from` on.
#[inline(always)]
pub fn columns<R, const W: usize>(slice: &[R], from: usize) -> &[R; W] {
    slice[from..from + W].try_into().expect("as long as the range")
}

/// `W` values of `slice` from `from` on.
#[inline(always)]
pub fn columns_mut<R, const W: usize>(slice: &mut [R], from: usize) -> &mut [R; W] {
    (&mut slice[from..from + W]).try_into().expect("as long as the range")
}

/// Calls `kernel::<_, W>(from, arguments...)` for tiles of W columns that make up `h` columns. A kernel passes over all rows with
/// what belongs to its columns in registers, where a loop over whole rows would load it again for each.
macro_rules! by_columns {
    ($h:expr, $kernel:ident($($argument:expr),*)) => {{
        let (h, mut from) = ($h, 0);
        while from + 32 <= h {
            $kernel::<_, 32>(from, $($argument),*);
            from += 32;
        }
        while from + 4 <= h {
            $kernel::<_, 4>(from, $($argument),*);
            from += 4;
        }
        while from < h {
            $kernel::<_, 1>(from, $($argument),*);
            from += 1;
        }
    }};
}
pub(crate) use by_columns;

/// Name of the instruction set in use, for records of a run.
pub fn level() -> &'static str {
    let name = format!("{:?}", arch());
    match name {
        n if n.starts_with("V4") => "avx512",
        n if n.starts_with("V3") => "avx2",
        n if n.starts_with("Neon") => "neon",
        _ => "baseline",
    }
}
