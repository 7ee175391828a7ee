//! The posterior of a cell's latents and a sample from it. Derivation: `derivations/latent.md`.

use crate::model::architecture::LatentDistribution;
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;

/// Smallest posterior variance (scvi-tools).
pub const VARIANCE_FLOOR: f64 = 1e-4;

/// Forward, Eqs. (Z1)-(Z3): v = exp(log_variance) + 1e-4, z = m + sqrt(v) eps, softmax of it if logistic-normal.
///
/// All n x L but `factor`; `variance` and `z` are outputs. Without `noise`, z is the posterior mean. `factor`, if not
/// empty, correlates the latents, see [`correlate`].
pub fn forward<R: Real>(
    z: &mut [R],
    variance: &mut [R],
    mean: &[R],
    log_variance: &[R],
    factor: &[R],
    noise: Option<&[R]>,
    distribution: LatentDistribution,
    n_latents: usize,
) {
    vectorized(
        #[inline(always)]
        || {
            let floor = R::from_f64(VARIANCE_FLOOR);
            for (v, &log) in variance.iter_mut().zip(log_variance) {
                *v = Real::exp(log) + floor;
            }
            z.copy_from_slice(mean);
            if let Some(noise) = noise {
                for ((z, &v), &noise) in z.iter_mut().zip(variance.iter()).zip(noise) {
                    *z = v.sqrt().fma(noise, *z);
                }
                correlate(z, factor, noise, n_latents);
            }
        },
    );
    if distribution == LatentDistribution::LogisticNormal {
        z.chunks_exact_mut(n_latents).for_each(softmax);
    }
}

/// Adds the product of the noise with the covariance factor below its diagonal, Eq. (Z8):
/// `z[k] += sum over j < k of factor[k,j] eps[j]`.
///
/// z and noise n x L; `factor` n x L(L-1)/2, the rows of each cell's triangle one after another, or empty.
#[inline(always)]
pub fn correlate<R: Real>(z: &mut [R], factor: &[R], noise: &[R], n_latents: usize) {
    if factor.is_empty() {
        return;
    }
    let rows = z.chunks_exact_mut(n_latents).zip(noise.chunks_exact(n_latents));
    for ((z, noise), factor) in rows.zip(factor.chunks_exact(n_latents * (n_latents - 1) / 2)) {
        let mut at = 0;
        for k in 1..n_latents {
            let mut sum = R::ZERO;
            for (&f, &e) in factor[at..at + k].iter().zip(noise) {
                sum = f.fma(e, sum);
            }
            z[k] += sum;
            at += k;
        }
    }
}

/// Gradient of the covariance factor, Eq. (Z9): `d_factor[k,j] = d_z[k] eps[j] + kl_scale factor[k,j]`. Shapes as in
/// [`correlate`]; `d_z` is the gradient of the sample before the softmax, as [`backward`] leaves it.
pub fn correlate_backward<R: Real>(
    d_factor: &mut [R],
    d_z: &[R],
    factor: &[R],
    noise: &[R],
    kl_scale: R,
    n_latents: usize,
) {
    if factor.is_empty() {
        return;
    }
    let width = n_latents * (n_latents - 1) / 2;
    vectorized(
        #[inline(always)]
        || {
            let rows = d_z.chunks_exact(n_latents).zip(noise.chunks_exact(n_latents));
            let factors = d_factor.chunks_exact_mut(width).zip(factor.chunks_exact(width));
            for ((d_z, noise), (d_factor, factor)) in rows.zip(factors) {
                let mut at = 0;
                for k in 1..n_latents {
                    let row = d_factor[at..at + k].iter_mut().zip(&factor[at..at + k]).zip(noise);
                    for ((d, &f), &e) in row {
                        *d = d_z[k].fma(e, kl_scale * f);
                    }
                    at += k;
                }
            }
        },
    );
}

/// Softmax of one row, in place, Eq. (Z3).
pub fn softmax<R: Real>(row: &mut [R]) {
    let largest = row.iter().fold(row[0], |a, &b| b.larger(a));
    for value in row.iter_mut() {
        *value = Real::exp(*value - largest);
    }
    let scale = R::ONE / row.iter().copied().sum::<R>();
    for value in row.iter_mut() {
        *value *= scale;
    }
}

/// Gradients of posterior mean and log-variance, Eqs. (Z4)-(Z7).
///
/// d_z holds the gradient of z on entry (of the sample before the softmax on exit); `d_kl_mean` and `kl_scale` bring
/// in the divergence from the prior (Eq. (P3), Eq. (P4)): its gradient in m, and the factor of its gradient in v.
/// All n x L; `d_mean` and `d_log_variance` are outputs.
pub fn backward<R: Real>(
    d_mean: &mut [R],
    d_log_variance: &mut [R],
    d_z: &mut [R],
    z: &[R],
    variance: &[R],
    noise: &[R],
    d_kl_mean: &[R],
    kl_scale: R,
    distribution: LatentDistribution,
    n_latents: usize,
) {
    if distribution == LatentDistribution::LogisticNormal {
        for (d, z) in d_z.chunks_exact_mut(n_latents).zip(z.chunks_exact(n_latents)) {
            let inner: R = d.iter().zip(z).map(|(&d, &z)| d * z).sum();
            for (d, &z) in d.iter_mut().zip(z) {
                *d = z * (*d - inner);
            }
        }
    }
    let half = R::from_f64(0.5);
    let floor = R::from_f64(VARIANCE_FLOOR);
    let n = d_mean.len();
    let (d_log_variance, d_z, variance, noise, d_kl_mean) =
        (&mut d_log_variance[..n], &d_z[..n], &variance[..n], &noise[..n], &d_kl_mean[..n]);
    vectorized(
        #[inline(always)]
        || {
            for i in 0..n {
                let v = variance[i];
                d_mean[i] = d_z[i] + d_kl_mean[i];
                // Eq. (Z6): d_v = d_z eps / (2 sqrt v) + kl_scale (1 - 1/v) / 2. Eq. (Z7): dv/dlog_variance = v - 1e-4.
                let d_v = half * (d_z[i] * noise[i] / v.sqrt() + kl_scale * (R::ONE - R::ONE / v));
                d_log_variance[i] = d_v * (v - floor);
            }
        },
    );
}
