//! The prior of a cell's latents given its interventions, and the divergence from it. Derivation: `derivations/prior.md`.

use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;

/// Adds one intervention to the prior mean of a cell, Eq. (P1): p += weight * mask * shift. All L long.
#[inline(always)]
pub fn add_intervention<R: Real>(prior_mean: &mut [R], weight: R, mask: &[R], shift: &[R]) {
    for ((p, &mask), &shift) in prior_mean.iter_mut().zip(mask).zip(shift) {
        *p += weight * mask * shift;
    }
}

/// KL(Normal(m, v) || Normal(p, 1)) of each cell, Eq. (P2), in nats, into `kl` (n). mean, variance, prior_mean: n x L;
/// `terms` (n x L) is overwritten.
pub fn divergences<R: Real>(kl: &mut [f64], terms: &mut [R], mean: &[R], variance: &[R], prior_mean: &[R]) {
    let n = terms.len();
    let (mean, variance, prior_mean) = (&mean[..n], &variance[..n], &prior_mean[..n]);
    let l = n / kl.len();
    vectorized(
        #[inline(always)]
        || {
            for k in 0..n {
                let distance = mean[k] - prior_mean[k];
                terms[k] = distance.fma(distance, variance[k] - R::ONE) - Real::ln(variance[k]);
            }
            for (i, kl) in kl.iter_mut().enumerate() {
                let mut total = R::ZERO;
                for k in i * l..(i + 1) * l {
                    total += terms[k];
                }
                *kl = 0.5 * total.to_f64();
            }
        },
    );
}

/// What the random mask of one intervention adds to the divergence of a cell, Eq. (P8), in nats: half the variance of
/// weight * mask * shift, over the latents. All L long; `slope` is q (1 - q), q the probability of the mask.
#[inline(always)]
pub fn mask_divergence<R: Real>(weight: R, slope: &[R], shift: &[R]) -> f64 {
    let sum = slope.iter().zip(shift).fold(R::ZERO, |sum, (&slope, &shift)| (slope * shift).fma(shift, sum));
    0.5 * (weight * weight * sum).to_f64()
}

/// Adds `scale` times the gradients of Eq. (P8) in shift and mask logit, Eqs. (P9)-(P10), to theirs. All L long; `mask` is
/// the mask's probability q, `slope` is q (1 - q).
#[inline(always)]
pub fn add_mask_divergence_gradient<R: Real>(
    [d_shift, d_logit]: [&mut [R]; 2],
    scale: R,
    weight: R,
    [mask, slope]: [&[R]; 2],
    shift: &[R],
) {
    let scale = scale * weight * weight;
    let half = R::from_f64(0.5);
    for ((((d_shift, d_logit), &mask), &slope), &shift) in
        d_shift.iter_mut().zip(d_logit).zip(mask).zip(slope).zip(shift)
    {
        let of_shift = scale * slope * shift;
        *d_shift += of_shift;
        *d_logit += of_shift * shift * (half - mask);
    }
}

/// Adds to `kl` (n) what the covariance factor below its diagonal contributes to the divergence, Eq. (P7): half the sum of
/// its squares. `factor`: n x L(L-1)/2, or empty.
pub fn add_factor_divergences<R: Real>(kl: &mut [f64], factor: &[R]) {
    if factor.is_empty() {
        return;
    }
    let width = factor.len() / kl.len();
    for (kl, factor) in kl.iter_mut().zip(factor.chunks_exact(width)) {
        *kl += 0.5
            * vectorized(
                #[inline(always)]
                || factor.iter().fold(R::ZERO, |sum, &f| f.fma(f, sum)),
            )
            .to_f64();
    }
}

/// Gradient of `scale` times the divergence in m, Eq. (P3); that in p is its negative. All n x L.
pub fn divergence_gradient<R: Real>(d_mean: &mut [R], mean: &[R], prior_mean: &[R], scale: R) {
    vectorized(
        #[inline(always)]
        || {
            for ((d, &m), &p) in d_mean.iter_mut().zip(mean).zip(prior_mean) {
                *d = scale * (m - p);
            }
        },
    );
}

/// Gradients in shift and mask logit of one intervention of a cell, Eqs. (P5)-(P6), added to theirs. All L long.
///
/// `d_prior_mean` is the gradient in the cell's prior mean, `slope` the derivative of the mask in its logit, Eq. (M6).
#[inline]
pub fn add_intervention_gradient<R: Real>(
    d_shift: &mut [R],
    d_logit: Option<&mut [R]>,
    d_prior_mean: &[R],
    weight: R,
    mask: &[R],
    slope: &[R],
    shift: &[R],
) {
    for ((d_shift, &d_p), &mask) in d_shift.iter_mut().zip(d_prior_mean).zip(mask) {
        *d_shift += weight * mask * d_p;
    }
    if let Some(d_logit) = d_logit {
        for (((d_logit, &d_p), &slope), &shift) in d_logit.iter_mut().zip(d_prior_mean).zip(slope).zip(shift) {
            *d_logit += weight * shift * d_p * slope;
        }
    }
}
