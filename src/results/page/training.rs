//! The section on the training: figures by epoch.

use crate::results::page::charts;
use crate::results::page::charts::ReferenceLine;
use crate::results::page::folder::Run;
use crate::results::page::parts::{both, curve, figure, number};

/// The curves of the first training; empty where there is no history.
pub(super) fn training(run: &Run) -> String {
    if run.history.is_empty() {
        return String::new();
    }
    let both = both();
    let kept = run.kept_epoch();
    let mut levels = Vec::new();
    if let Some(value) = number(&run.metrics["baseline"], "pooled_negative_binomial") {
        levels.push(ReferenceLine { class: "base", value, name: "pooled negative binomial".to_owned() });
    }
    let fit = charts::lines(
        "Reconstruction and divergence by epoch",
        "nats per cell",
        &[
            curve(0, &run.history, |r| r.train_reconstruction + r.train_kl),
            curve(1, &run.history, |r| r.validation_reconstruction + r.validation_kl),
        ],
        &levels,
        kept,
        true,
    );
    let mut row = figure(
        "Fit",
        "Negative log-likelihood and divergence of the latents, lower is better; without the prior of the masks. The \
         weights of the marked epoch are kept.",
        &(both.clone() + &fit),
    );
    if run.history.iter().any(|r| r.kl_global != 0.0) {
        let elbo = charts::lines(
            "Negative ELBO by epoch",
            "nats per cell",
            &[curve(0, &run.history, |r| r.train_elbo), curve(1, &run.history, |r| r.validation_elbo)],
            &[],
            kept,
            true,
        );
        let text =
            "The fit plus the prior of the masks, spread over the cells of each curve: what early stopping watches.";
        row += &figure("Negative ELBO", text, &(both.clone() + &elbo));
    }
    let kl = charts::lines(
        "KL divergence by epoch",
        "nats per cell",
        &[curve(0, &run.history, |r| r.train_kl), curve(1, &run.history, |r| r.validation_kl)],
        &[],
        None,
        true,
    );
    row += &figure(
        "Divergence of the latents from their prior",
        "How much each cell's latents say beyond what its intervention foretells; its weight in the loss rises over the \
         warm-up.",
        &(both.clone() + &kl),
    );
    if run.masks.is_some() {
        let mask = charts::lines(
            "Mean mask probability by epoch",
            "mean probability",
            &[curve(2, &run.history, |r| r.mean_mask)],
            &[],
            None,
            false,
        );
        let text = match run.certainty {
            Some(_) => {
                "All masks are on until the latents are turned; from then on they follow the evidence of each edge."
            }
            None => "All masks start near 1; sparsity switches off those that the data do not ask for.",
        };
        row += &figure("Mean mask probability", text, &mask);
    }
    format!("<div class=\"row\">\n{row}</div>\n")
}
