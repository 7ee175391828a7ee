//! Run-time choice of the vector instructions that element-wise loops are compiled for.

/// Runs `f` compiled for the widest vector instructions of this processor (AVX-512, AVX2 with FMA, or plain).
///
/// `f` is one generic body, inlined into one function per instruction set, where the compiler vectorises its loops.
/// Everything `f` calls must be `#[inline(always)]`, or it stays compiled for the plain instruction set, where a fused
/// multiply-add is a function call. That holds for `f` itself as well: a closure is inlined or not by its size, so larger
/// ones are written `vectorized(#[inline(always)] || ...)`, and iterator adaptors that take closures are avoided.
#[inline(always)]
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Name of the instruction set in use, for records of a run.
pub fn level() -> &'static str {
    let name = format!("{:?}", pulp::Arch::new());
    match name {
        n if n.starts_with("V4") => "avx512",
        n if n.starts_with("V3") => "avx2",
        n if n.starts_with("Neon") => "neon",
        _ => "baseline",
    }
}
