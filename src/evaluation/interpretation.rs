//! What a trained model says about a screen, in the terms of its users: targets, genes of each latent, cells.

use crate::data::dataset::Dataset;
use crate::data::split::ScreenSplit;
use crate::error::Result;
use crate::evaluation::certainty::{Certainty, Edge};
use crate::evaluation::gene_effects::GeneEffects;
use crate::inference::loadings::{MOST_CELLS, spread};
use crate::inference::trained_model::TrainedModel;
use crate::model::prior::table::PriorTable;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use std::collections::BTreeSet;

/// What a trained model says about a screen.
#[derive(Debug, Clone, PartialEq)]
pub struct Interpretation {
    /// Probabilities of the masks, interventions x L, for models with masks.
    pub masks: Option<Vec<f64>>,
    /// Shifts, interventions x L, for models with shifts.
    pub shifts: Option<Vec<f64>>,
    /// Edges of the graph: pairs of intervention and latent with a q-value within the false discovery rate or, where none is
    /// known, a mask that is likely to be on.
    pub targets: Vec<Target>,
    /// What each latent does to each gene.
    pub genes: GeneEffects,
    /// How sure every pair is, for models whose masks follow the evidence.
    pub certainty: Option<Certainty>,
    /// What is found of each cell, where it is asked for.
    pub cells: Option<CellFigures>,
}

/// What is found of the cells, in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CellFigures {
    /// Part of the screen.
    pub subset: Vec<Subset>,
    /// Negative log-likelihood, nats.
    pub reconstruction: Vec<f64>,
    /// Divergence of the latents from their prior, nats.
    pub kl: Vec<f64>,
    /// Nearest prior: its number plus 1, 0 for the prior without any shift, -1 where that is unknown.
    pub nearest: Vec<i32>,
}

impl CellFigures {
    fn push(&mut self, record: &CellRecord) {
        self.subset.push(record.subset);
        self.reconstruction.push(record.reconstruction);
        self.kl.push(record.kl);
        self.nearest.push(match record.nearest {
            Nearest::Intervention(a) => a as i32 + 1,
            Nearest::NoTarget => 0,
            Nearest::Unknown => -1,
        });
    }
}

impl Interpretation {
    /// Reads `model` out in one pass over the cells, and calls `cell(mean, record)` for each of them, in their order, with
    /// its posterior mean: on the first process, which is the one that writes.
    ///
    /// # Errors
    /// Counts on disk that cannot be read; what `cell` fails with.
    pub fn new<R: Real>(
        team: &Team,
        model: &mut impl TrainedModel<R>,
        data: &Dataset,
        split: &ScreenSplit,
        Readout { seed, fdr, keep }: Readout,
        mut cell: impl FnMut(&[f64], &CellRecord) -> Result<()>,
    ) -> Result<Self> {
        let l = model.n_latents();
        let wide = |values: &[R]| values.iter().map(|v| v.to_f64()).collect::<Vec<f64>>();
        let certainty = Certainty::of(team, model, data, split, fdr, seed)?;
        let prior = model.prior();
        let (masks, shifts) = (prior.probabilities().map(|masks| wide(&masks)), prior.shifts.map(wide));
        let targets = match &certainty {
            Some(certainty) => certainty.found().map(Target::from).collect(),
            None => targets(prior, &split.trained),
        };
        let priors = priors(&targets, prior);

        let first = team.ranks().is_first();
        // Decoded from latents, without counts: the first process has all it needs.
        let chosen = if first { spread(&split.train, MOST_CELLS) } else { Vec::new() };
        let mut latents_chosen: Vec<R> = Vec::with_capacity(chosen.len() * l);
        let mut left = chosen.iter().copied().peekable();
        let mut train = split.train.iter().copied().peekable();
        let mut validation = split.validation.iter().copied().peekable();
        let mut cells = (keep && first).then(CellFigures::default);
        let mut latent = vec![0.0; l];

        let mut mean_count = model.for_each_cell(seed, |found| {
            let n = found.cell;
            if left.next_if_eq(&n).is_some() {
                latents_chosen.extend_from_slice(found.mean);
            }
            latent.iter_mut().zip(found.mean).for_each(|(wide, z)| *wide = z.to_f64());
            let record = CellRecord {
                subset: match (train.next_if_eq(&n), validation.next_if_eq(&n)) {
                    (Some(_), _) => Subset::Train,
                    (_, Some(_)) => Subset::Validation,
                    _ => Subset::HeldOut,
                },
                total: found.total,
                n_genes: found.n_genes,
                reconstruction: found.reconstruction,
                kl: found.kl,
                nearest: if shifts.is_none() { Nearest::Unknown } else { nearest(&latent, &priors) },
            };
            cell(&latent, &record)?;
            cells.iter_mut().for_each(|cells| cells.push(&record));
            Ok(())
        })?;
        mean_count.iter_mut().for_each(|total| *total /= data.n_cells() as f64);
        let loadings = model.gene_loadings(&chosen, &latents_chosen, split.train.len());
        let genes = GeneEffects::new(l, mean_count, loadings);
        Ok(Self { masks, shifts, targets, certainty, genes, cells })
    }
}

/// What of a model is read out, and how.
#[derive(Debug, Clone, Copy)]
pub struct Readout {
    /// Seed of the random streams.
    pub seed: u64,
    /// False discovery rate of the graph.
    pub fdr: f64,
    /// Whether the figures of the cells are held.
    pub keep: bool,
}

/// Prior mean of each intervention that has targets.
fn priors<R: Real>(targets: &[Target], prior: PriorTable<R>) -> Vec<(usize, Vec<f64>)> {
    let (effects, l) = (prior.effects(), prior.n_latents);
    let interventions: BTreeSet<usize> = targets.iter().map(|target| target.intervention).collect();
    interventions.into_iter().map(|a| (a, effects[a * l..(a + 1) * l].to_vec())).collect()
}

/// The nearest of the priors and the one without shift; all have variance 1, so distance decides.
fn nearest(latent: &[f64], priors: &[(usize, Vec<f64>)]) -> Nearest {
    let mut best = (latent.iter().map(|z| z * z).sum::<f64>(), Nearest::NoTarget);
    for (a, mean) in priors {
        let distance = latent.iter().zip(mean).map(|(z, m)| (z - m) * (z - m)).sum::<f64>();
        if distance < best.0 {
            best = (distance, Nearest::Intervention(*a));
        }
    }
    best.1
}

/// A latent that an intervention targets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Number of the intervention.
    pub intervention: usize,
    /// Number of the latent.
    pub latent: usize,
    /// Probability that the intervention acts on the latent (1 for models without masks).
    pub probability: f64,
    /// How far it shifts the latent, in deviations of the latent's prior.
    pub shift: f64,
    /// Share of false edges to expect among those at least as probable, for models whose masks are integrated out.
    pub q_value: Option<f64>,
}

impl From<&Edge> for Target {
    fn from(edge: &Edge) -> Self {
        let Edge { intervention, latent, probability, shift, q_value, .. } = *edge;
        Self { intervention, latent, probability, shift, q_value: Some(q_value) }
    }
}

/// One cell of `cells.csv`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CellRecord {
    /// Which part of the screen it belongs to.
    pub subset: Subset,
    /// Its total count over the genes that are used.
    pub total: u64,
    /// Genes with a count.
    pub n_genes: usize,
    /// Negative log-likelihood, nats.
    pub reconstruction: f64,
    /// Divergence of its latents from their prior, nats.
    pub kl: f64,
    /// The prior nearest to the cell's posterior mean.
    pub nearest: Nearest,
}

/// The prior of a trained intervention that lies nearest to a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearest {
    /// The model's prior knows no interventions.
    Unknown,
    /// The prior without any shift, which all interventions without targets share.
    NoTarget,
    /// That of the intervention of this number.
    Intervention(usize),
}

impl Nearest {
    /// The word in tables.
    pub fn name(self, intervention_names: &[String]) -> &str {
        match self {
            Nearest::Unknown => "",
            Nearest::NoTarget => NO_TARGET,
            Nearest::Intervention(a) => &intervention_names[a],
        }
    }
}

/// Part of the screen that a cell belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subset {
    /// Trained on.
    Train,
    /// Watched during the training.
    Validation,
    /// Of a held-out intervention.
    HeldOut,
}

impl Subset {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Subset::Train => "train",
            Subset::Validation => "validation",
            Subset::HeldOut => "held-out",
        }
    }
}

/// Word for a cell that is nearest to the prior without any shift.
pub const NO_TARGET: &str = "(no target)";

/// The pairs of intervention and latent with a probability above one half, by intervention, then by size of the shift; none
/// without shifts.
///
/// Interventions that were not `trained` on have no targets: their masks are where they started.
pub fn targets<R: Real>(prior: PriorTable<R>, trained: &[bool]) -> Vec<Target> {
    let target = |(a, k): (usize, usize)| Target {
        intervention: a,
        latent: k,
        probability: prior.probability(a, k).to_f64(),
        shift: prior.shift(a, k).to_f64(),
        q_value: None,
    };
    let mut all: Vec<Target> = prior.targets().filter(|&(a, _)| trained[a]).map(target).collect();
    all.sort_by(|a, b| a.intervention.cmp(&b.intervention).then(b.shift.abs().total_cmp(&a.shift.abs())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::prior::table::Masks;

    #[test]
    fn the_nearest_prior_is_found_and_interventions_without_targets_share_one() {
        let (shifts, masks) = ([-4.0, 9.0, 9.0, 9.0, 9.0, 4.0], [0.9, 0.0, 0.0, 0.5, 0.0, 0.9]);
        let prior = PriorTable::<f64> { n_latents: 2, shifts: Some(&shifts), masks: Masks::Fixed(&masks) };
        let priors = priors(&targets(prior, &[true; 3]), prior);
        assert_eq!(priors, [(0, vec![-4.0, 0.0]), (2, vec![0.0, 4.0])]);
        assert_eq!(nearest(&[0.3, 3.0], &priors), Nearest::Intervention(2));
        assert_eq!(nearest(&[-3.0, 1.0], &priors), Nearest::Intervention(0));
        assert_eq!(nearest(&[1.0, -1.0], &priors), Nearest::NoTarget);
    }
}
