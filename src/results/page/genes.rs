//! The section on the genes of each latent.

use crate::results::page::charts;
use crate::results::page::effects::Effects;
use crate::results::page::folder::Run;
use crate::results::page::parts::figure;

/// Genes shown for each latent.
const MOST_GENES: usize = 10;

/// A card per latent with the genes that it moves most.
pub(super) fn genes(run: &Run, effects: &Effects) -> String {
    if run.genes.is_empty() {
        return String::new();
    }
    let shown = |k: usize| &run.genes[k][..run.genes[k].len().min(MOST_GENES)];
    let most =
        (0..run.n_latents).flat_map(|k| shown(k).iter().map(|gene| gene.shrunken.abs())).fold(0.0, f64::max).max(1e-9);
    let cards: String = effects
        .latent_order
        .iter()
        .map(|&k| {
            let text = match (run.shifts.is_some(), effects.per_latent[k]) {
                (false, _) => String::new(),
                (true, 0) => "no intervention".to_owned(),
                (true, 1) => "1 intervention".to_owned(),
                (true, n) => format!("{n} interventions"),
            };
            if shown(k).iter().all(|gene| gene.shrunken == 0.0) {
                let nothing = "The counts support no effect on any gene.";
                let text = if text.is_empty() { nothing.to_owned() } else { format!("{text}. {nothing}") };
                return figure(&format!("Latent {k}"), &text, "");
            }
            let drawing = charts::gene_bars(&format!("Genes of latent {k}"), shown(k), most);
            figure(&format!("Latent {k}"), &text, &drawing)
        })
        .collect();
    format!(
        "<p>Change of expression, in log2 fold change, when a latent rises by one unit: mean over cells of the decoder's \
         difference along the latent, shrunken towards 0 where the gene is seen too rarely to tell. Beside it the standard \
         error before the shrinkage (s.e.) and the mean count of a cell. The {MOST_GENES} genes that move most, on one \
         scale; more of them in <code>genes_per_latent.csv</code>.</p>\n<div class=\"genes\">\n{cards}</div>\n"
    )
}
