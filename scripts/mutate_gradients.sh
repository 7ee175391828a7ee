#!/usr/bin/env bash
# Breaks the gradients on purpose, one at a time, and expects the tests of tests/gradients.rs to notice each.
#
#     scripts/mutate_gradients.sh [NAME...]      all mutations, or those named
#
# Needs a clean working tree under src/. Every mutation replaces one exact piece of text, which must occur exactly
# once in its file, so a mutation that no longer fits the code is an error, not a pass. The file is put back after each.
# Prints one line per mutation with the tests that went red; exits 1 if a mutation survived.
# The last result stands in scripts/mutate_gradients.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! git diff --quiet HEAD -- src tests; then
    echo "commit or stash the changes under src/ and tests/ first" >&2
    exit 2
fi

# Lightly optimised and compiled in many pieces: a mutation is compiled in a fraction of the time that the release build takes.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=1

# name | file | text | replacement
mutations='
linear-bias-not-summed|src/model/layers/linear.rs|*d_bias += d_y;|*d_bias = d_y;
linear-covariates-accumulate|src/model/layers/linear.rs|at_b(&mut d_weight[n_in..], width, Accumulate::Replace, d_y, c);|at_b(&mut d_weight[n_in..], width, Accumulate::Add, d_y, c);
input-layer-replaces-instead-of-adding|src/model/layers/input_layer.rs|row[j] = factor.fma(d[j], row[j]);|row[j] = factor * d[j];
input-layer-forgets-the-value|src/model/layers/input_layer.rs|let row = &mut rows[(gene - tile.start) * h..(gene - tile.start + 1) * h];|let (factor, row) = (R::ONE + R::ZERO * factor, &mut rows[(gene - tile.start) * h..(gene - tile.start + 1) * h]);
fused-relu-passes-everything|src/model/layers/activation.rs|d[j] = if out[j] > R::ZERO { d[j] } else { R::ZERO };|d[j] = if out[j] > R::ZERO { d[j] } else { d[j] };
fused-sums-uncentred|src/model/layers/activation.rs|d_gamma[j] = ((y[j] - mean[j]) * inverse[j]).fma(d[j], d_gamma[j]);|d_gamma[j] = (y[j] * inverse[j]).fma(d[j], d_gamma[j]);
batch-norm-without-mean-term|src/model/layers/batch_norm.rs|share * (y_hat * d_gamma[j] + d_beta[j])|share * (y_hat * d_gamma[j])
batch-norm-sign-of-variance-term|src/model/layers/batch_norm.rs|share * (y_hat * d_gamma[j] + d_beta[j])|share * (d_beta[j] - y_hat * d_gamma[j])
batch-norm-scale-gradient-uncentred|src/model/layers/batch_norm.rs|d_gamma[j] = ((y[j] - mean[j]) * inverse[j]).fma(d_u[j], d_gamma[j]);|d_gamma[j] = (y[j] * inverse[j]).fma(d_u[j], d_gamma[j]);
layer-norm-without-mean-term|src/model/layers/layer_norm.rs|*d - sum - (u - mean)|*d - (u - mean)
relu-passes-everything|src/model/layers/activation.rs|if h > R::ZERO { *d } else { R::ZERO }|if h > R::ZERO { *d } else { *d }
dropout-not-in-gradient|src/model/layers/activation.rs|*d *= keep;|*d *= if keep > R::ZERO { R::ONE } else { R::ONE };
softmax-without-inner-product|src/model/latent.rs|*d = z * (*d - inner);|*d = z * (*d - R::ZERO * inner);
latent-sign-in-variance|src/model/latent.rs|kl_scale * (R::ONE - R::ONE / v)|kl_scale * (R::ONE + R::ONE / v)
latent-floor-forgotten|src/model/latent.rs|d_v * (v - floor)|d_v * (v - R::ZERO * floor)
latent-wrong-root|src/model/latent.rs|d_z[i] * noise[i] / v.sqrt()|d_z[i] * noise[i] / v
latent-mean-without-divergence|src/model/latent.rs|d_mean[i] = d_z[i] + d_kl_mean[i];|d_mean[i] = d_z[i] + R::ZERO * d_kl_mean[i];
covariance-factor-without-divergence|src/model/latent.rs|*d = d_z[k].fma(e, kl_scale * f);|*d = d_z[k].fma(e, R::ZERO * kl_scale * f);
mask-slope-without-temperature|src/model/prior/mask.rs|slope[k] = sigmoid_derivative(s) * inverse;|slope[k] = sigmoid_derivative(s);
prior-shift-without-weight|src/model/prior/shift.rs|*d_shift += weight * mask * d_p;|*d_shift += mask * d_p;
prior-sign-of-logit|src/model/prior/shift.rs|*d_logit += weight * shift * d_p * slope;|*d_logit -= weight * shift * d_p * slope;
integrated-mask-variance-of-one-weight|src/model/prior/shift.rs|0.5 * (weight * weight * sum).to_f64()|0.5 * (weight * sum).to_f64()
integrated-mask-shift-doubled|src/model/prior/shift.rs|let of_shift = scale * slope * shift;|let of_shift = (scale + scale) * slope * shift;
integrated-mask-sign-of-logit|src/model/prior/shift.rs|*d_logit += of_shift * shift * (half - mask);|*d_logit += of_shift * shift * (mask - half);
prior-mean-sign|src/model/prior/table.rs|*d = -d_m;|*d = d_m;
penalty-of-spike-and-slab|src/model/prior/sparsity.rs|*d += factor * sigmoid(l);|*d += factor * sigmoid_derivative(l);
penalty-mean-not-divided|src/model/prior/sparsity.rs|R::from_f64(weight * alpha / logits.len() as f64)|R::from_f64(weight * alpha)
kl-weight-forgotten|src/model/step.rs|R::from_f64(weights.cell * weights.kl)|R::from_f64(weights.cell)
variance-head-replaces-mean-head|src/model/pass.rs|(&t.latent_log_variance, &cells.d_log_variance, Accumulate::Add)|(&t.latent_log_variance, &cells.d_log_variance, Accumulate::Replace)
dispersion-of-first-block-only|src/model/parameter_gradients.rs|blocks.take(n.div_ceil(ROWS_PER_BLOCK))|blocks.take(n.div_ceil(ROWS_PER_BLOCK).min(1))
frozen-mask-still-learns|src/model/parameter_gradients.rs|if let Masks::Drawn { logits, .. } = prior.masks {|if let Some(logits) = self.tensors.mask_logit.as_ref().map(|tensor| &self.parameters[tensor]) {
likelihood-softmax-uncentred|src/model/likelihood/negative_binomial.rs|// d log p / d logit_g = d_g - rho_g sum_h d_h, Eq. (N9).|let by_logit: Sum<R> = Sum::new();
likelihood-sign-of-dispersion|src/model/likelihood/negative_binomial.rs|a[i] = a_i.fma(-row.scale, a[i]);|a[i] = a_i.fma(row.scale, a[i]);
likelihood-branch-of-dispersion|src/model/likelihood/negative_binomial.rs|let shape = if small { excess } else { log };|let shape = if small { log } else { log };
likelihood-with-constant-sign|src/model/likelihood/with_epsilon.rs|let small = from_count - theta * excess|let small = from_count + theta * excess
likelihood-with-constant-share|src/model/likelihood/with_epsilon.rs|let by_log_mu = x * share - (x + theta) * mu_share;|let by_log_mu = x * share - theta * mu_share;
likelihood-poisson-library-for-total|src/model/likelihood/poisson.rs|let centre = R::from_f64(count_total / total);|let centre = R::from_f64(library.to_f64() / total);
adam-without-second-correction|src/model/adam.rs|v[j].sqrt().fma(correction, epsilon)|v[j].sqrt().fma(R::ONE + R::ZERO * correction, epsilon)
adam-sign-of-decay|src/model/adam.rs|decay.fma(p[j], gradient[j])|(-decay).fma(p[j], gradient[j])
'

file=
restore() { if [ -n "$file" ]; then git checkout --quiet HEAD -- "$file"; file=; fi; }
trap restore EXIT

survived=0
while IFS='|' read -r name file text replacement; do
    if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then
        file=
        continue
    fi
    count=$(TEXT="$text" perl -0777 -ne 'print scalar(() = /\Q$ENV{TEXT}\E/g)' "$file")
    if [ "$count" != 1 ]; then
        echo "$name: its text occurs $count times in $file; bring the mutation up to date" >&2
        file=
        exit 2
    fi
    TEXT="$text" NEW="$replacement" perl -0777 -pi -e 's/\Q$ENV{TEXT}\E/$ENV{NEW}/' "$file"
    log=$(mktemp)
    if ! cargo test --quiet --test all --no-run >"$log" 2>&1; then
        sed 's/^/    /' "$log" >&2
        echo "$name: the mutated code does not compile" >&2
        exit 2
    fi
    if PROPTEST_MAX_SHRINK_ITERS=0 RUST_BACKTRACE=0 cargo test --quiet --test all gradients:: >"$log" 2>&1 </dev/null; then
        printf '%-40s SURVIVED\n' "$name"
        survived=1
    else
        # Only a test that says so counts as red.
        red=$(sed -n 's/^---- gradients::\(.*\) stdout ----$/\1/p' "$log" | sort -u | paste -sd ' ')
        if [ -z "$red" ]; then
            sed 's/^/    /' "$log" >&2
            echo "$name: the tests ended without a verdict" >&2
            exit 2
        fi
        printf '%-40s caught by %s\n' "$name" "$red"
    fi
    rm -f "$log"
    restore
done < <(sed '/^$/d' <<<"$mutations")
exit $survived
