"""Golden vectors of the model in PyTorch float64: recompute and check existing files, or make new ones.

    make_vectors.py --check DIR_OR_FILE...   recompute every output from the stored parameters and inputs, print errors
    make_vectors.py --make DIR [NAME...]     write the vectors this program defines (all of them, or those named)

The schema of a file and the meaning of every config key are in tests/golden/README.md. Needs numpy, torch and mpmath.

The gradients come from PyTorch autograd, with three exceptions where the plain operation loses digits in float64:
the likelihood with eps = 0 (`ExactNegativeBinomial` and `ExactPoisson`, evaluated in 50 decimal digits), the logistic
function (`Sigmoid`) and softplus (`softplus`). `--check` runs eps = 0 files through plain autograd too, as an independent
test of the derivatives written by hand here.
"""

import argparse
import json
import pathlib
import sys
import zlib

import mpmath
import numpy as np
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
mpmath.mp.dps = 50

BN_MOMENTUM, BN_EPS = 0.01, 1e-3
LN_EPS = 1e-5
VAR_FLOOR = 1e-4


# ---------------------------------------------------------------------------------------------------------------------
# Numerically careful pieces


class Sigmoid(torch.autograd.Function):
    """Logistic function whose derivative is s(a) s(-a): s(a) (1 - s(a)) has no correct digit left at a = 35."""

    @staticmethod
    def forward(ctx, a):
        ctx.save_for_backward(a)
        return torch.sigmoid(a)

    @staticmethod
    def backward(ctx, grad):
        (a,) = ctx.saved_tensors
        return grad * torch.sigmoid(a) * torch.sigmoid(-a)


def softplus(a):
    """log(1 + e^a) without the linear shortcut above 20 of torch.nn.functional.softplus, whose error is 2e-9 there."""
    return torch.clamp(a, min=0) + torch.log1p(torch.exp(-a.abs()))


class ExactNegativeBinomial(torch.autograd.Function):
    """log NB(x; mean e^log_mu, inverse dispersion e^log_theta) and both derivatives, each correctly rounded to float64.

    All arguments are (B, G). Evaluated with mpmath in 50 digits, so that neither lgamma(x + theta) - lgamma(theta) at
    theta = 1e8 nor its derivative suffers cancellation.
    """

    @staticmethod
    def forward(ctx, x, log_mu, log_theta):
        value, d_mu, d_theta = (np.empty(x.shape) for _ in range(3))
        xs, mus, thetas = x.numpy(), log_mu.detach().numpy(), log_theta.detach().numpy()
        lgamma, digamma, log, exp, log1p = mpmath.loggamma, mpmath.digamma, mpmath.log, mpmath.exp, mpmath.log1p
        for i in np.ndindex(*x.shape):
            k, lm, lt = mpmath.mpf(xs[i]), mpmath.mpf(mus[i]), mpmath.mpf(thetas[i])
            mu, theta = exp(lm), exp(lt)
            total = log(theta + mu)
            value[i] = theta * (lt - total) + k * (lm - total) + lgamma(k + theta) - lgamma(theta) - lgamma(k + 1)
            d_mu[i] = theta * (k - mu) / (theta + mu)
            d_theta[i] = theta * (lt - total + (mu - k) / (theta + mu) + digamma(k + theta) - digamma(theta))
        ctx.save_for_backward(torch.from_numpy(d_mu), torch.from_numpy(d_theta))
        return torch.from_numpy(value)

    @staticmethod
    def backward(ctx, grad):
        d_mu, d_theta = ctx.saved_tensors
        return None, grad * d_mu, grad * d_theta


class ExactPoisson(torch.autograd.Function):
    """log Poisson(x; mean e^log_mu) and its derivative in log_mu, each correctly rounded to float64.

    Both arguments are (B, G). Evaluated with mpmath in 50 digits.
    """

    @staticmethod
    def forward(ctx, x, log_mu):
        value, d_mu = np.empty(x.shape), np.empty(x.shape)
        xs, mus = x.numpy(), log_mu.detach().numpy()
        for i in np.ndindex(*x.shape):
            k, lm = mpmath.mpf(xs[i]), mpmath.mpf(mus[i])
            mu = mpmath.exp(lm)
            value[i] = k * lm - mu - mpmath.loggamma(k + 1)
            d_mu[i] = k - mu
        ctx.save_for_backward(torch.from_numpy(d_mu))
        return torch.from_numpy(value)

    @staticmethod
    def backward(ctx, grad):
        (d_mu,) = ctx.saved_tensors
        return None, grad * d_mu


def likelihood_of(cfg):
    """The likelihood of a case; files written before there was a choice do not name it."""
    return cfg.get("likelihood", "negative_binomial")


def log_prob(cfg, params, x, log_mu, exact):
    """Log-likelihood of each count, (B, G), by the likelihood of the config."""
    if likelihood_of(cfg) == "negative_binomial":
        return nb_log_prob(x, log_mu, params["px_r"], cfg["eps"], exact)
    if exact:
        return ExactPoisson.apply(x, log_mu)
    return x * log_mu - torch.exp(log_mu) - torch.lgamma(x + 1)


def nb_log_prob(x, log_mu, px_r, eps, exact):
    """Negative binomial log-likelihood, (B, G). eps > 0: eps inside each log; eps = 0: log space, exact or plain."""
    if eps > 0:
        mu, theta = torch.exp(log_mu), torch.exp(px_r)
        log_total = torch.log(theta + mu + eps)
        ratio = theta * (torch.log(theta + eps) - log_total) + x * (torch.log(mu + eps) - log_total)
        return ratio + torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    log_theta = px_r.expand_as(log_mu)
    if exact:
        return ExactNegativeBinomial.apply(x, log_mu, log_theta)
    theta = torch.exp(log_theta)
    log_total = torch.logaddexp(log_theta, log_mu)
    ratio = theta * (log_theta - log_total) + x * (log_mu - log_total)
    return ratio + torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)


# ---------------------------------------------------------------------------------------------------------------------
# Networks


def one_hots(cfg, inputs):
    """One-hot encodings of [batch, *categorical covariates], those with a single level left out."""
    columns = [inputs["batch"][:, 0]] + [inputs["cat_covs"][:, j] for j in range(len(cfg["n_cats_per_cov"]))]
    levels = [cfg["n_batch"], *cfg["n_cats_per_cov"]]
    return [F.one_hot(c, n).double() for c, n in zip(columns, levels) if n > 1]


def hidden_layers(cfg, params, running, prefix, h, cats, dropout, training):
    """n_layers x (Linear, BatchNorm, LayerNorm, ReLU, Dropout); `running` is updated in place when training."""
    for i in range(cfg["n_layers"]):
        if cats and (i == 0 or cfg.get("deeply_inject_covariates", True)):
            h = torch.cat([h, *cats], dim=1)
        h = F.linear(h, params[f"{prefix}.fc_layers.Layer {i}.0.weight"], params[f"{prefix}.fc_layers.Layer {i}.0.bias"])
        if cfg["batch_norm"]:
            norm = f"{prefix}.fc_layers.Layer {i}.1"
            if training:
                mean, var = h.mean(0), h.var(0, unbiased=False)
                for key, new in ((f"{norm}.running_mean", mean), (f"{norm}.running_var", h.var(0, unbiased=True))):
                    running[key] = (1 - BN_MOMENTUM) * running[key] + BN_MOMENTUM * new.detach()
            else:
                mean, var = running[f"{norm}.running_mean"], running[f"{norm}.running_var"]
            h = (h - mean) / torch.sqrt(var + BN_EPS) * params[f"{norm}.weight"] + params[f"{norm}.bias"]
        if cfg["layer_norm"]:
            centred = h - h.mean(1, keepdim=True)
            h = centred / torch.sqrt((centred**2).mean(1, keepdim=True) + LN_EPS)
        h = torch.relu(h)
        if dropout is not None:
            h = h * dropout[i]
    return h


def forward(cfg, params, running, inputs, training=True, exact=True):
    """All outputs of one minibatch as a dict of tensors; updates `running` in place when training."""
    x, label = inputs["x"], inputs["label"]
    cats, cont = one_hots(cfg, inputs), inputs["cont_covs"]

    encoded = torch.log1p(x)
    encoder_cats = []
    if cfg["encode_covariates"]:
        encoded, encoder_cats = torch.cat([encoded, cont], dim=1), cats
    dropout = inputs["dropout"] if training and cfg["dropout_rate"] > 0 else None
    h = hidden_layers(cfg, params, running, "z_encoder.encoder", encoded, encoder_cats, dropout, training)
    q_mean = F.linear(h, params["z_encoder.mean_encoder.weight"], params["z_encoder.mean_encoder.bias"])
    q_var = torch.exp(F.linear(h, params["z_encoder.var_encoder.weight"], params["z_encoder.var_encoder.bias"]))
    q_var = q_var + VAR_FLOOR
    z = q_mean + torch.sqrt(q_var) * inputs["eps_z"]
    if cfg["latent_distribution"] == "ln":
        z = torch.softmax(z, dim=-1)

    mask_logit = params["mask_logit"]
    if cfg["mask"] == "fixed":
        mask = inputs["fixed_mask"][label]
    else:
        argument = (mask_logit[label] + inputs["logistic_noise"]) / cfg["tau"]
        mask = Sigmoid.apply(argument)
        if cfg["mask"] == "hard":
            # Straight-through: the added difference is exactly 0 or 1 in value and carries no gradient.
            mask = mask - mask.detach() + (argument.detach() > 0).double()
    prior_mean = mask * params["action_prior_mean"][label]
    if not cfg["use_intervention_prior"]:
        prior_mean = torch.zeros_like(prior_mean)

    h = hidden_layers(
        cfg, params, running, "decoder.px_decoder", torch.cat([z, cont], dim=1), cats, None, training
    )
    scale_logits = F.linear(h, params["decoder.px_scale_decoder.0.weight"], params["decoder.px_scale_decoder.0.bias"])
    log_scale = torch.log_softmax(scale_logits, dim=-1)
    log_mu = torch.log(x.sum(1, keepdim=True)) + log_scale
    reconst = -log_prob(cfg, params, x, log_mu, exact).sum(1)
    kl_z = 0.5 * (q_var + (q_mean - prior_mean) ** 2 - 1 - torch.log(q_var)).sum(1)

    weight = cfg["kl_weight"] if cfg["warmup"] else 1.0
    mask_prob = Sigmoid.apply(mask_logit)
    kl_global = torch.zeros(())
    per_cell = (reconst + weight * cfg["beta"] * kl_z).mean()
    if cfg["objective"] == "spike_slab":
        alpha = torch.tensor(float(cfg["sparse_mask_penalty"]))
        if cfg["use_global_kl"]:
            kl_global = ((alpha - 1) * softplus(mask_logit) - torch.log(alpha)).sum()
        loss = cfg["n_obs"] * per_cell + weight * kl_global
    else:
        loss = per_cell + cfg["sparse_mask_penalty"] * mask_prob.mean()
    return dict(
        loss=loss, reconst=reconst, kl_z=kl_z, kl_global=kl_global, q_mean=q_mean, q_var=q_var, z=z,
        px_scale=torch.exp(log_scale), mask=mask, mask_prob=mask_prob, prior_mean=prior_mean,
    )  # fmt: skip


def step(cfg, params, running, inputs, exact):
    """One training forward and backward: (outputs, gradients), detached; updates `running` in place."""
    leaves = {k: v.clone().requires_grad_() for k, v in params.items()}
    outputs = forward(cfg, leaves, running, inputs, True, exact)
    grads = torch.autograd.grad(outputs["loss"], list(leaves.values()), allow_unused=True)
    # A parameter that does not enter the loss (mask_logit under a fixed mask) is stored with gradient zero.
    grads = {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(params.items(), grads)}
    return {k: v.detach() for k, v in outputs.items()}, grads


def adam_trajectory(cfg, params, running, batches, exact):
    """Losses before each update, then the final parameters and running statistics."""
    params, running = dict(params), dict(running)
    first = {k: torch.zeros_like(v) for k, v in params.items()}
    second = {k: torch.zeros_like(v) for k, v in params.items()}
    losses = []
    for t, inputs in enumerate(batches, start=1):
        outputs, grads = step(cfg, params, running, inputs, exact)
        losses.append(outputs["loss"].item())
        for k, g in grads.items():
            g = g + cfg["weight_decay"] * params[k]
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * g * g
            denominator = torch.sqrt(second[k] / (1 - 0.999**t)) + cfg["adam_eps"]
            params[k] = params[k] - cfg["lr"] * (first[k] / (1 - 0.9**t)) / denominator
    return np.array(losses), {**params, **running}


def compute(cfg, params, running, inputs, batches, exact=True):
    """Every computed array of a file, by its key."""
    result = {}
    after = dict(running)
    outputs, grads = step(cfg, params, after, inputs, exact)
    result.update({f"out/{k}": v.numpy() for k, v in outputs.items()})
    result.update({f"grad/{k}": v.numpy() for k, v in grads.items()})
    result.update({f"running_after/{k}": v.numpy() for k, v in after.items()})
    with torch.no_grad():
        evaluated = forward(cfg, params, after, inputs, False, exact)
    result.update({f"eval/{k}": evaluated[k].numpy() for k in ("q_mean", "reconst", "kl_z")})
    if batches:
        losses, final = adam_trajectory(cfg, params, running, batches, exact)
        result["traj/loss"] = losses
        result.update({f"traj/final/{k}": v.numpy() for k, v in final.items()})
    return result


# ---------------------------------------------------------------------------------------------------------------------
# Checking


def load(path):
    """(config, parameters, running statistics, minibatch, trajectory minibatches, raw arrays) of one file."""
    with np.load(path) as archive:
        raw = {k: archive[k] for k in archive.files}
    cfg = json.loads(str(raw.pop("config")))

    def tensors(prefix):
        return {k[len(prefix) :]: torch.from_numpy(v.copy()) for k, v in raw.items() if k.startswith(prefix)}

    state = tensors("param/")
    running = {k: v for k, v in state.items() if ".running_" in k}
    params = {k: v for k, v in state.items() if ".running_" not in k}
    batches = [tensors(f"traj/step{i}/") for i in range(cfg["steps"])]
    return cfg, params, running, tensors("in/"), batches, raw


def worst_errors(ours, stored):
    """Largest |ours - stored| / max(|stored|, 1e-3 * S) per group of keys.

    S is the largest magnitude in the array, except for gradients, where it is the largest over all gradients: the bias
    of a Linear before a BatchNorm has gradient 0, and its array holds nothing but rounding.
    """
    overall = max((np.abs(v).max() for k, v in stored.items() if k.startswith("grad/")), default=0.0)
    worst = {}
    for key, value in stored.items():
        group = key.rsplit("/", 1)[0]
        if key not in ours:
            raise SystemExit(f"no value computed for {key}")
        if ours[key].shape != value.shape:
            raise SystemExit(f"{key}: shape {ours[key].shape}, stored {value.shape}")
        if value.size == 0:
            continue
        scale = overall if group == "grad" else np.abs(value).max()
        error = np.abs(ours[key] - value) / np.maximum(np.abs(value), 1e-3 * scale + 1e-300)
        error = error.max() if np.isfinite(ours[key]).all() else np.inf
        if error >= worst.get(group, (-1.0, ""))[0]:
            worst[group] = (float(error), key.rsplit("/", 1)[1])
    return worst


def check(paths, tolerance):
    """Print the worst error of every group in every file; the process fails if one is above the tolerance."""
    failed = []
    for path in paths:
        cfg, params, running, inputs, batches, raw = load(path)
        stored = {k: v for k, v in raw.items() if not k.startswith(("param/", "in/", "traj/step"))}
        ways = [("float64 autograd", False)] if cfg["eps"] > 0 else [("exact", True), ("float64 autograd", False)]
        for way, exact in ways:
            errors = worst_errors(compute(cfg, params, running, inputs, batches, exact), stored)
            # Plain float64 is expected to lose digits where theta is huge: shown there, but not a failure.
            large_theta = "px_r" in params and float(params["px_r"].max()) > 8
            informative = not exact and cfg["eps"] == 0 and large_theta
            worst = max(v for v, _ in errors.values())
            verdict = "ok" if worst <= tolerance else ("expected loss" if informative else "FAIL")
            if verdict == "FAIL":
                failed.append(path.name)
            detail = "  ".join(f"{g} {v:.1e} ({n})" if v > tolerance else f"{g} {v:.1e}" for g, (v, n) in errors.items())
            print(f"{path.name:48} {way:17} worst {worst:.1e} {verdict:5} | {detail}", flush=True)
    if failed:
        sys.exit(f"above {tolerance:g}: {', '.join(failed)}")


# ---------------------------------------------------------------------------------------------------------------------
# Making


BASE = dict(
    n_genes=12, n_latent=4, n_hidden=16, n_layers=2, n_labels=5, n_batch=1, n_cats_per_cov=[], n_cont=0,
    encode_covariates=False, deeply_inject_covariates=True, dropout_rate=0.0, latent_distribution="normal",
    batch_norm=True, layer_norm=False, mask="hard", tau=1.0, mask_logit_mean=0.5, objective="spike_slab",
    use_intervention_prior=True, use_global_kl=True, warmup=True, kl_weight=0.7, beta=1.0, sparse_mask_penalty=10.0,
    n_obs=1000, n_cells=16, mean_count=6.0, steps=0, lr=0.001, adam_eps=0.01, weight_decay=1e-6,
)  # fmt: skip
COVARIATES = dict(n_batch=3, n_cats_per_cov=[2, 4], n_cont=2)
MEAN = dict(objective="mean", sparse_mask_penalty=20.0)
POISSON = dict(likelihood="poisson")

# name: (overrides of BASE, the eps values to write: 0 gives a negative binomial's file the prefix "exact_")
CASES = {
    "covariates_decoder": (COVARIATES, (0.0, 1e-8)),
    "covariates_encoder": (COVARIATES | dict(encode_covariates=True), (0.0, 1e-8)),
    "covariates_shallow": (COVARIATES | dict(encode_covariates=True, deeply_inject_covariates=False), (0.0,)),
    "covariates_shallow_decoder": (COVARIATES | dict(n_layers=3, n_hidden=8, deeply_inject_covariates=False), (0.0,)),
    "covariates_single_level": (dict(n_cats_per_cov=[1, 3], n_cont=1, encode_covariates=True), (0.0,)),
    "layer_norm": (dict(batch_norm=False, layer_norm=True), (0.0,)),
    "both_norms": (COVARIATES | dict(layer_norm=True), (0.0,)),
    "no_norm": (dict(batch_norm=False, n_cells=11), (0.0,)),
    "latent_ln": (dict(latent_distribution="ln", dropout_rate=0.1, n_latent=6), (0.0, 1e-8)),
    "three_layers": (dict(n_layers=3, n_hidden=10, dropout_rate=0.2), (0.0,)),
    "soft_mask_low_temperature": (dict(mask="soft", tau=0.3), (0.0,)),
    "svae_covariates": (COVARIATES | MEAN | dict(encode_covariates=True), (0.0, 1e-8)),
    "vae_covariates": (
        COVARIATES | MEAN | dict(sparse_mask_penalty=0.0, use_intervention_prior=False, beta=4.0), (0.0,)
    ),
    "frozen_mask_covariates": (COVARIATES | dict(mask="fixed", use_global_kl=False, warmup=False), (0.0,)),
    "warmup_start": (dict(n_layers=1, kl_weight=0.0), (0.0,)),
    "extreme": (dict(n_genes=18, n_cells=12, n_layers=1, mean_count=4000.0), (0.0,)),
    "near_poisson": (dict(n_layers=1, mean_count=300.0), (0.0,)),
    "wide": (
        dict(n_genes=70, n_hidden=40, n_cells=37, n_latent=7, n_labels=9, n_batch=3, n_cont=1, encode_covariates=True),
        (0.0,),
    ),
    "one_cell": (dict(n_cells=1, batch_norm=False, n_layers=1), (0.0,)),
    "two_cells": (dict(n_cells=2, n_layers=1), (0.0,)),
    "three_cells": (dict(n_cells=3), (0.0,)),
    "covariates_trajectory": (
        COVARIATES | dict(latent_distribution="ln", dropout_rate=0.1, n_cells=24, steps=25), (0.0,)
    ),
    "svae_covariates_trajectory": (
        COVARIATES | MEAN | dict(encode_covariates=True, latent_distribution="ln", dropout_rate=0.1, n_cells=24,
                                 n_layers=1, steps=25),
        (1e-8,),
    ),
    # 19 and 35 genes: blocks of 16 and a remainder.
    "poisson": (POISSON | dict(n_genes=19), (0.0,)),
    "poisson_covariates": (
        POISSON | COVARIATES | MEAN | dict(n_genes=35, n_hidden=8, encode_covariates=True, latent_distribution="ln"),
        (0.0,),
    ),
    "poisson_trajectory": (POISSON | dict(n_hidden=8, n_layers=1, dropout_rate=0.1, steps=15), (0.0,)),
}  # fmt: skip


def single(array):
    """Rounded to what float32 holds, kept as float64: a float32 program then starts from exactly the same numbers."""
    return np.asarray(array, dtype=np.float32).astype(np.float64)


def initial_state(cfg, rng):
    """Random parameters and running statistics, by their scvi-tools names."""
    genes, latent, hidden, labels = cfg["n_genes"], cfg["n_latent"], cfg["n_hidden"], cfg["n_labels"]
    one_hot_width = sum(n for n in [cfg["n_batch"], *cfg["n_cats_per_cov"]] if n > 1)
    state = {"px_r": rng.normal(size=genes)} if likelihood_of(cfg) == "negative_binomial" else {}
    state |= {
        "action_prior_mean": rng.normal(size=(labels, latent)),
        "mask_logit": rng.normal(cfg["mask_logit_mean"], 1.5, size=(labels, latent)),
    }

    def linear(name, n_in, n_out):
        bound = 1 / np.sqrt(n_in)
        state[f"{name}.weight"] = rng.uniform(-bound, bound, size=(n_out, n_in))
        state[f"{name}.bias"] = rng.uniform(-bound, bound, size=n_out)

    def hidden_stack(prefix, n_in, with_cats):
        for i in range(cfg["n_layers"]):
            injected = one_hot_width * (with_cats and (i == 0 or cfg["deeply_inject_covariates"]))
            linear(f"{prefix}.fc_layers.Layer {i}.0", (n_in if i == 0 else hidden) + injected, hidden)
            if cfg["batch_norm"]:
                norm = f"{prefix}.fc_layers.Layer {i}.1"
                state[f"{norm}.weight"] = rng.uniform(0.6, 1.5, size=hidden)
                state[f"{norm}.bias"] = rng.normal(0, 0.25, size=hidden)
                state[f"{norm}.running_mean"] = rng.normal(0, 0.3, size=hidden)
                state[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, size=hidden)

    encode = cfg["encode_covariates"]
    hidden_stack("z_encoder.encoder", genes + cfg["n_cont"] * encode, encode)
    linear("z_encoder.mean_encoder", hidden, latent)
    linear("z_encoder.var_encoder", hidden, latent)
    hidden_stack("decoder.px_decoder", latent + cfg["n_cont"], True)
    linear("decoder.px_scale_decoder.0", hidden, genes)
    return state


def minibatch(cfg, rng):
    """Random counts, labels, covariates and noise of one minibatch."""
    cells, genes, latent = cfg["n_cells"], cfg["n_genes"], cfg["n_latent"]
    means = cfg["mean_count"] * genes * rng.dirichlet(np.full(genes, 2.0), size=cells)
    uniform = rng.uniform(1e-6, 1 - 1e-6, size=(cells, latent))
    keep = rng.uniform(size=(cfg["n_layers"], cells, cfg["n_hidden"])) >= cfg["dropout_rate"]
    levels = cfg["n_cats_per_cov"]
    batch = {
        "x": rng.poisson(rng.gamma(2.0, means / 2.0)).astype(np.float64),
        "label": rng.integers(cfg["n_labels"], size=cells),
        "batch": rng.integers(cfg["n_batch"], size=(cells, 1)),
        "eps_z": single(rng.normal(size=(cells, latent))),
        "logistic_noise": single(np.log(uniform) - np.log1p(-uniform)),
        "fixed_mask": (rng.uniform(size=(cfg["n_labels"], latent)) < 0.4).astype(np.float64),
        "cat_covs": np.stack([rng.integers(n, size=cells) for n in levels], 1) if levels else np.zeros((cells, 0), int),
        "cont_covs": single(rng.normal(size=(cells, cfg["n_cont"]))),
        "dropout": single(keep / (1 - cfg["dropout_rate"])) if cfg["dropout_rate"] > 0 else np.zeros(0),
    }
    batch["x"][batch["x"].sum(1) == 0, 0] = 1.0
    return batch


def make_extreme(state, batch, rng):
    """theta from 1e-4 to 1e8, counts from 0 to 60,000 in each of those genes, saturated masks, means over 13 decades."""
    genes = state["px_r"].size
    state["px_r"] = rng.permutation(np.linspace(-9.21, 18.42, genes))
    state["mask_logit"] = np.where(rng.uniform(size=state["mask_logit"].shape) < 0.5, -1, 1) * rng.uniform(
        30, 36, size=state["mask_logit"].shape
    )
    state["decoder.px_scale_decoder.0.bias"] = rng.normal(0, 5, size=genes)
    x = np.floor(60000.0 ** rng.uniform(0, 1, size=batch["x"].shape))
    x[rng.uniform(size=x.shape) < 0.3] = 0.0
    x[0, :] = 0.0
    x[0, 0] = 1.0
    x[1, :] = 60000.0
    batch["x"] = x


def make(folder, names):
    """Write the cases named (all of them when none is)."""
    folder.mkdir(parents=True, exist_ok=True)
    unknown = set(names) - set(CASES)
    if unknown:
        sys.exit(f"no case is called {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    for name in names or CASES:
        overrides, eps_values = CASES[name]
        for eps in eps_values:
            # Seeded by the name, so that a case does not change when another is added; both eps share one input.
            seed = zlib.crc32(name.encode())
            cfg = BASE | overrides | dict(eps=eps, seed=seed)
            rng = np.random.default_rng(seed)
            state, batch = initial_state(cfg, rng), minibatch(cfg, rng)
            batches = [minibatch(cfg, rng) for _ in range(cfg["steps"])]
            if name == "extreme":
                make_extreme(state, batch, rng)
            if name == "near_poisson":
                state["px_r"] = rng.permutation(np.linspace(8.0, 18.42, cfg["n_genes"]))
            state = {k: single(v) for k, v in state.items()}
            arrays = {f"param/{k}": v for k, v in state.items()}
            arrays |= {f"in/{k}": v for k, v in batch.items()}
            arrays |= {f"traj/step{i}/{k}": v for i, b in enumerate(batches) for k, v in b.items()}

            tensors = {k: torch.from_numpy(v) for k, v in state.items()}
            running = {k: v for k, v in tensors.items() if ".running_" in k}
            params = {k: v for k, v in tensors.items() if ".running_" not in k}
            inputs, *rest = [{k: torch.from_numpy(v) for k, v in b.items()} for b in (batch, *batches)]
            arrays |= compute(cfg, params, running, inputs, rest)
            of_two = eps == 0 and likelihood_of(cfg) == "negative_binomial"
            path = folder / f"{'exact_' if of_two else ''}{name}.npz"
            np.savez_compressed(path, config=np.array(json.dumps(cfg)), **arrays)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB, loss {float(arrays['out/loss']):.6g}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="+", type=pathlib.Path, metavar="PATH", help="files, or folders of them")
    parser.add_argument("--tolerance", type=float, default=1e-10, help="of --check (default %(default)g)")
    parser.add_argument("--make", type=pathlib.Path, metavar="DIR", help="folder to write into")
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases for --make (default all)")
    args = parser.parse_args()
    if not args.check and not args.make:
        parser.error("--check or --make is needed")
    if args.make:
        make(args.make, args.names)
    if args.check:
        check([p for a in args.check for p in (sorted(a.glob("*.npz")) if a.is_dir() else [a])], args.tolerance)


if __name__ == "__main__":
    main()
