//! Simulated screens with known latents, shifts and targets: the two simulators of the sparse-mechanism-shift model.

use std::collections::BTreeSet;

use rand::seq::index;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, Normal, StandardNormal};
use serde::Deserialize;
use serde::Serialize;

use crate::data::counts::in_memory::{Counts, CountsBuilder};
use crate::data::dataset::{Categorical, Covariates, Dataset, InterventionRows, TrueInteraction, Truth};
use crate::data::mixing::{GeneratingModel, MixingNetwork, MixingPlan, by_cell, draw_count};
use crate::error::{InputError, Result};
use crate::numerics::random::{SamplerPurpose, sampler_stream};
use crate::parallel::team::Team;

/// `sparse-shift`: expected total count of a gene over all cells.
const GENE_TOTAL: f64 = 1e6;
/// `paper`: expected total count of a cell.
const CELL_TOTAL: f64 = 1e5;
/// Mean size of a shift, in standard deviations of a latent, and the standard deviation of that size.
const SHIFT: (f64, f64) = (5.0, 0.5);
/// Of so many combinations one is a triple, the others are pairs.
const TRIPLE_EVERY: usize = 4;
/// Name of the covariate that holds the batches.
pub const BATCH: &str = "batch";

/// Which simulator makes the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SimulationKind {
    // Softmax over cells, 1e6 counts per gene.
    /// As the reference code does: targets drawn with replacement, rates normalised over cells
    #[default]
    SparseShift,
    // Softmax over genes, 1e5 counts per cell.
    /// As the paper's text says: targets without replacement, rates normalised over genes
    Paper,
}

impl SimulationKind {
    /// Name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            SimulationKind::SparseShift => "sparse-shift",
            SimulationKind::Paper => "paper",
        }
    }
}

/// Settings of a simulation; it is written with the names of its settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulation {
    /// Which simulator.
    pub kind: SimulationKind,
    /// Number of interventions, A.
    #[serde(rename = "interventions")]
    pub n_interventions: usize,
    /// Cells under each intervention.
    #[serde(rename = "cells")]
    pub cells_per_intervention: usize,
    /// Number of genes, G.
    #[serde(rename = "genes")]
    pub n_genes: usize,
    /// Number of latents, L.
    #[serde(rename = "latents")]
    pub n_latents: usize,
    /// If given, interventions target only the first that many latents.
    #[serde(rename = "targeted_latents")]
    pub n_targeted_latents: Option<usize>,
    /// If given, the expected total count of every cell.
    pub depth: Option<usize>,
    /// If given, the mean size of the shifts in standard deviations of a latent, instead of 5; 0: no intervention acts.
    pub shift: Option<f64>,
    /// If given, counts are negative binomial with this inverse dispersion, not Poisson.
    pub dispersion: Option<f64>,
    /// If given, the probability with which an intervention that hits one of the first two latents hits both.
    pub together: Option<f64>,
    /// If given, cells come from that many batches, each with an effect on the expression.
    #[serde(rename = "batches")]
    pub n_batches: Option<usize>,
    /// If given, the probability with which a cell escaped its intervention.
    pub escaped: Option<f64>,
    /// If given, that many control cells, on which no intervention acts.
    #[serde(rename = "controls")]
    pub n_controls: Option<usize>,
    /// If given, that many combinations of two or three interventions, each with as many cells as an intervention.
    #[serde(rename = "combinations")]
    pub n_combinations: Option<usize>,
    /// If given, the share of the combinations whose shift is not the sum of its members' in one latent.
    pub interactions: Option<f64>,
    /// If given, the cells of each intervention alone have that many doses in turn, evenly from 1 down.
    #[serde(rename = "doses")]
    pub n_doses: Option<usize>,
    /// Seed; the same settings and seed give the same data at any number of threads.
    pub seed: u64,
}

impl Default for Simulation {
    /// The size of the paper's tables: 100 interventions of 500 cells, 15 latents, 100 genes.
    fn default() -> Self {
        Self {
            kind: SimulationKind::SparseShift,
            n_interventions: 100,
            n_latents: 15,
            n_genes: 100,
            cells_per_intervention: 500,
            n_targeted_latents: None,
            depth: None,
            shift: None,
            dispersion: None,
            together: None,
            n_batches: None,
            escaped: None,
            n_controls: None,
            n_combinations: None,
            interactions: None,
            n_doses: None,
            seed: 0,
        }
    }
}

/// A simulated screen and everything it was made from.
#[derive(Debug, Clone)]
pub struct Simulated {
    /// The screen, with its truth; cells ordered by intervention, then by combination, control cells last. A cell without any count is possible in
    /// principle (rates are positive, counts random) and is kept, unless a depth or a dispersion was asked for.
    pub dataset: Dataset,
    /// The true decoder, and what counts are drawn from.
    pub generating: GeneratingModel,
    /// Shift drawn for every intervention and latent, targeted or not, interventions x L, row-major.
    pub shifts: Vec<f64>,
    /// Whether an intervention targets a latent, interventions x L, row-major; none does if shifts are 0.
    pub targets: Vec<bool>,
}

impl Simulation {
    /// Names of the interventions: `intervention_00`, `intervention_01`, ... with leading zeros.
    pub fn intervention_names(&self) -> Vec<String> {
        numbered("intervention_", self.n_interventions)
    }

    /// Names of the interventions held out by default of a screen without combinations: the last fifth, rounded down.
    pub fn default_holdout(&self) -> Vec<String> {
        self.intervention_names().split_off(self.n_interventions - self.n_interventions / 5)
    }

    /// Number of cells, controls included.
    pub fn n_cells(&self) -> usize {
        self.n_perturbed() + self.n_controls.unwrap_or(0)
    }

    /// Number of cells under an intervention or a combination.
    fn n_perturbed(&self) -> usize {
        (self.n_interventions + self.n_combinations.unwrap_or(0)) * self.cells_per_intervention
    }

    /// The interventions of each cell, in their order; control cells, the last ones, have none.
    pub fn intervention_rows(&self) -> InterventionRows {
        let n_single = self.n_interventions * self.cells_per_intervention;
        let mut rows = match self.n_doses {
            None => InterventionRows::one_hot((0..n_single).map(|n| n / self.cells_per_intervention)),
            Some(n_doses) => {
                let mut rows = InterventionRows::default();
                for n in 0..n_single {
                    let (a, cell) = (n / self.cells_per_intervention, n % self.cells_per_intervention);
                    rows.push(&[(a as u32, (n_doses - cell % n_doses) as f32 / n_doses as f32)]);
                }
                rows
            }
        };
        for members in self.combinations() {
            let row: Vec<(u32, f32)> = members.into_iter().map(|a| (a as u32, 1.0)).collect();
            (0..self.cells_per_intervention).for_each(|_| rows.push(&row));
        }
        (self.n_perturbed()..self.n_cells()).for_each(|_| rows.push(&[]));
        rows
    }

    /// Number of pairs and of triples among the combinations.
    fn pairs_and_triples(&self) -> [usize; 2] {
        let n = self.n_combinations.unwrap_or(0);
        [n - n / TRIPLE_EVERY, n / TRIPLE_EVERY]
    }

    /// The members of each combination, ascending; all sets of interventions of one size are as likely, none comes twice.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn combinations(&self) -> Vec<Vec<usize>> {
        let (n, a) = (self.n_combinations.unwrap_or(0), self.n_interventions);
        let mut random = sampler_stream(self.seed, SamplerPurpose::SimulatedCombinations, 0);
        let mut taken = BTreeSet::new();
        let mut drawn = Vec::with_capacity(n);
        while drawn.len() < n {
            let size = if drawn.len() % TRIPLE_EVERY == TRIPLE_EVERY - 1 { 3 } else { 2 };
            let mut members = index::sample(&mut random, a, size).into_vec();
            members.sort_unstable();
            if taken.insert(members.clone()) {
                drawn.push(members);
            }
        }
        drawn
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("interventions", self.n_interventions),
            ("latents", self.n_latents),
            ("genes", self.n_genes),
            ("cells per intervention", self.cells_per_intervention),
            ("counts per cell", self.depth.unwrap_or(1)),
            ("batches", self.n_batches.unwrap_or(1)),
            ("doses", self.n_doses.unwrap_or(1)),
        ];
        if let Some((what, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(InputError::new(format!("a simulation needs {what}"), "choose 1 or more").into());
        }
        let shares = [("together", self.together), ("escaped", self.escaped), ("interactions", self.interactions)];
        if let Some((what, share)) =
            shares.iter().find(|(_, share)| share.is_some_and(|share| !(0.0..=1.0).contains(&share)))
        {
            let problem = format!("the share `{what}` is {}", share.unwrap_or(f64::NAN));
            return Err(InputError::new(problem, "choose a number from 0 to 1").into());
        }
        if self.shift.is_some_and(|shift| !(shift >= 0.0 && shift.is_finite())) {
            return Err(InputError::new("the size of the shifts is no number from 0 on", "choose one").into());
        }
        if self.dispersion.is_some_and(|theta| !(theta > 0.0 && theta.is_finite())) {
            return Err(InputError::new("the inverse dispersion is no number above 0", "choose one").into());
        }
        if self.together.is_some() && self.n_targeted_latents.unwrap_or(self.n_latents).min(self.n_latents) < 2 {
            let problem = "two latents are to be hit together, but only one can be targeted";
            return Err(InputError::new(problem, "let 2 or more be targeted").into());
        }
        self.check_combinations()?;
        match self.n_targeted_latents {
            Some(0) => Err(InputError::new("no latent may be targeted", "allow 1 or more").into()),
            Some(n) if n > self.n_latents => Err(InputError::new(
                format!("{n} latents may be targeted, of only {}", self.n_latents),
                "target at most as many as there are",
            )
            .into()),
            _ => Ok(()),
        }
    }

    /// Refuses more combinations than there are, and interactions of none.
    fn check_combinations(&self) -> Result<()> {
        let a = self.n_interventions as u128;
        let there = [a * (a.max(1) - 1) / 2, a * (a.max(1) - 1) * (a.max(2) - 2) / 6];
        for ((wanted, there), what) in self.pairs_and_triples().into_iter().zip(there).zip(["pairs", "triples"]) {
            if wanted as u128 > there {
                let problem = format!(
                    "{} combinations have {wanted} {what}, and {a} interventions make up {there}",
                    self.n_combinations.unwrap_or(0)
                );
                return Err(InputError::new(problem, "ask for fewer, or for more interventions").into());
            }
        }
        if self.interactions.is_some() && self.n_combinations.is_none() {
            let problem = "interactions are those of combinations, of which there are none";
            return Err(InputError::new(problem, "ask for combinations too").into());
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let mut about = format!(
            "{}: {} interventions of {} cells, {} latents",
            self.kind.name(),
            self.n_interventions,
            self.cells_per_intervention,
            self.n_latents,
        );
        let mut add = |text: Option<String>| about.extend(text);
        add(self.n_targeted_latents.map(|n| format!(", the first {n} targeted")));
        add(self.together.map(|share| format!(", the first two together in a share of {share}")));
        add(self.shift.map(|shift| format!(", shifts of {shift}")));
        add(self.escaped.map(|share| format!(", a share of {share} escaped")));
        add(self.n_combinations.map(|n| format!(", {n} combinations")));
        add(self.interactions.map(|share| format!(", a share of {share} of them with an interaction")));
        add(self.n_doses.map(|n| format!(", {n} doses")));
        add(Some(format!(", {} genes", self.n_genes)));
        add(self.depth.map(|depth| format!(", {depth} counts per cell")));
        add(self.dispersion.map(|theta| format!(", inverse dispersion {theta}")));
        add(self.n_batches.map(|n| format!(", {n} batches")));
        add(self.n_controls.map(|n| format!(", {n} control cells")));
        add(Some(format!(", seed {}", self.seed)));
        format!("simulated ({about})")
    }
}

/// Simulates a screen.
///
/// Each intervention targets 1, 2 or 3 latents (uniform; drawn with replacement by `sparse-shift`, so fewer may
/// differ); a shift is a random sign times Normal(5, 0.5), scaled where another mean is asked for; a cell's latents are
/// Normal(shift * target, I), or Normal(0, I) if it escaped or is a control; shifts of a combination add up, each times its dose,
/// Eqs. (Cb1) and (Cb2) of `derivations/predictions.md`; its counts are Poisson, or negative binomial, with
/// the means of [`MixingNetwork`].
///
/// # Errors
/// [`InputError`] if a size is zero, a number is out of its range, more latents are targeted than there are, or a cell of a
/// screen of a given depth or dispersion has no count at all.
pub fn simulate(settings: &Simulation) -> Result<Simulated> {
    simulate_on(&Team::single(), settings)
}

/// [`simulate`] with a team of threads; the result does not depend on their number.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_on(team: &Team, settings: &Simulation) -> Result<Simulated> {
    settings.check()?;
    let (n_latents, n_genes, seed) = (settings.n_latents, settings.n_genes, settings.seed);
    let (mut targets, shifts) = (draw_targets(settings), draw_shifts(settings));
    if settings.shift == Some(0.0) {
        targets.fill(false);
    }
    let prior_means: Vec<f64> = shifts.iter().zip(&targets).map(|(&s, &t)| if t { s } else { 0.0 }).collect();

    let (interventions, n_cells) = (settings.intervention_rows(), settings.n_cells());
    let (escaped, interactions) = (draw_escaped(settings), draw_interactions(settings));
    let mut truth = Truth { n_latents, latents: Vec::new(), prior_means, escaped, interactions };
    let mut latents = vec![0.0; n_cells * n_latents];
    by_cell(team, &mut latents, n_latents, |n, z| {
        let escaped = truth.escaped.get(n).is_some_and(|&escaped| escaped);
        let mean = truth.prior_mean(if escaped { (&[], &[]) } else { interventions.row(n) });
        let mut random = sampler_stream(seed, SamplerPurpose::SimulatedLatents, n);
        for (z, mean) in z.iter_mut().zip(mean) {
            let noise: f64 = StandardNormal.sample(&mut random);
            *z = mean + noise;
        }
    });

    let batches = settings.n_batches.map(|n| batches_of(n, n_cells));
    let (gene_total, cell_total) = match settings.kind {
        SimulationKind::SparseShift => (Some(GENE_TOTAL), None),
        SimulationKind::Paper => (None, Some(CELL_TOTAL)),
    };
    let plan = MixingPlan {
        n_genes,
        gene_total,
        cell_total: settings.depth.map(|depth| depth as f64).or(cell_total),
        n_batches: settings.n_batches.unwrap_or(0),
        batches: batches.as_ref().map_or(&[], |batches| &batches.codes),
        seed,
    };
    let (mixing, log_rates) = MixingNetwork::draw(team, &plan, n_latents, &latents);
    truth.latents = latents;
    let (counts, library) = draw_counts(team, settings, log_rates)?;

    let dataset = Dataset {
        source: settings.describe(),
        counts: counts.into(),
        library,
        interventions,
        intervention_names: settings.intervention_names(),
        gene_names: numbered("gene_", n_genes),
        cell_names: numbered("cell_", n_cells).into(),
        covariates: Covariates { categorical: batches.into_iter().collect(), ..Covariates::default() },
        guides: None,
        truth: Some(truth),
    };
    let (depth, dispersion, escaped) = (settings.depth, settings.dispersion, settings.escaped.unwrap_or(0.0));
    Ok(Simulated { dataset, generating: GeneratingModel { mixing, depth, dispersion, escaped }, shifts, targets })
}

/// Whether each intervention targets each latent, interventions x L, row-major.
fn draw_targets(settings: &Simulation) -> Vec<bool> {
    let n_latents = settings.n_latents;
    let candidates = settings.n_targeted_latents.unwrap_or(n_latents);
    let mut random = sampler_stream(settings.seed, SamplerPurpose::SimulatedTargets, 0);
    let mut targets = vec![false; settings.n_interventions * n_latents];
    for targets in targets.chunks_exact_mut(n_latents) {
        let n = random.random_range(1..=3);
        match settings.kind {
            SimulationKind::SparseShift => (0..n).for_each(|_| targets[random.random_range(0..candidates)] = true),
            SimulationKind::Paper => {
                index::sample(&mut random, candidates, n.min(candidates)).iter().for_each(|k| targets[k] = true);
            }
        }
    }
    if let Some(share) = settings.together {
        let mut random = sampler_stream(settings.seed, SamplerPurpose::SimulatedTogether, 0);
        for targets in targets.chunks_exact_mut(n_latents) {
            let (both, second) = (random.random::<f64>() < share, random.random::<bool>());
            match (targets[0], targets[1]) {
                (false, false) => {}
                _ if both => targets[..2].fill(true),
                (true, true) => targets[usize::from(second)] = false,
                _ => {}
            }
        }
    }
    targets
}

/// A shift for each intervention and latent, interventions x L, row-major.
fn draw_shifts(settings: &Simulation) -> Vec<f64> {
    let mut random = sampler_stream(settings.seed, SamplerPurpose::SimulatedShifts, 0);
    (0..settings.n_interventions * settings.n_latents).map(|_| draw_shift(settings, &mut random)).collect()
}

/// A shift: a random sign times a normal magnitude.
fn draw_shift(settings: &Simulation, random: &mut impl Rng) -> f64 {
    let magnitude = Normal::new(SHIFT.0, SHIFT.1).expect("a positive standard deviation");
    let scale = settings.shift.unwrap_or(SHIFT.0) / SHIFT.0;
    let sign = if random.random::<bool>() { 1.0 } else { -1.0 };
    sign * magnitude.sample(random) * scale
}

/// Whether each cell escaped its intervention, which a control cell does not have; empty where none can.
fn draw_escaped(settings: &Simulation) -> Vec<bool> {
    let Some(share) = settings.escaped else { return Vec::new() };
    let mut random = sampler_stream(settings.seed, SamplerPurpose::SimulatedEscapes, 0);
    (0..settings.n_cells()).map(|n| n < settings.n_perturbed() && random.random::<f64>() < share).collect()
}

/// Combinations that deviate from the sum of their members, each in one of the latents that can be targeted and by a shift of its own.
fn draw_interactions(settings: &Simulation) -> Vec<TrueInteraction> {
    let Some(share) = settings.interactions else { return Vec::new() };
    let combinations = settings.combinations();
    let mut random = sampler_stream(settings.seed, SamplerPurpose::SimulatedInteractions, 0);
    let n = (share * combinations.len() as f64).round() as usize;
    let mut chosen = index::sample(&mut random, combinations.len(), n).into_vec();
    chosen.sort_unstable();
    let candidates = settings.n_targeted_latents.unwrap_or(settings.n_latents);
    let of = |c: usize| {
        let mut deviation = vec![0.0; settings.n_latents];
        let latent = random.random_range(0..candidates);
        deviation[latent] = draw_shift(settings, &mut random);
        TrueInteraction { members: combinations[c].iter().map(|&a| a as u32).collect(), deviation }
    };
    let mut interactions: Vec<TrueInteraction> = chosen.into_iter().map(of).collect();
    interactions.sort_by(|a, b| a.members.cmp(&b.members));
    interactions
}

/// The batches of the cells, in turn: every intervention has cells of each, as far as it has enough.
fn batches_of(n_batches: usize, n_cells: usize) -> Categorical {
    let codes = (0..n_cells).map(|n| (n % n_batches) as u32).collect();
    Categorical { name: BATCH.to_owned(), levels: numbered("batch_", n_batches), codes }
}

/// Counts with means exp(`log_rates`), cells x G, and the total of each cell.
///
/// # Errors
/// [`InputError`] for a cell without any count where settings decide how many counts there are.
fn draw_counts(team: &Team, settings: &Simulation, log_rates: Vec<f64>) -> Result<(Counts, Vec<f64>)> {
    let (n_genes, seed) = (settings.n_genes, settings.seed);
    let mut table = vec![0u32; log_rates.len()];
    by_cell(team, &mut table, n_genes, |n, x| {
        let mut random = sampler_stream(seed, SamplerPurpose::SimulatedCounts, n);
        for (x, log_rate) in x.iter_mut().zip(&log_rates[n * n_genes..]) {
            *x = draw_count(log_rate.exp(), settings.dispersion, &mut random);
        }
    });
    drop(log_rates);
    let mut counts = CountsBuilder::new(n_genes);
    let mut library = Vec::with_capacity(settings.n_cells());
    for (n, row) in table.chunks_exact(n_genes).enumerate() {
        row.iter().enumerate().for_each(|(g, &x)| counts.push(g, x));
        counts.end_cell();
        let total = row.iter().map(|&x| x as u64).sum::<u64>();
        if total == 0 && (settings.depth.is_some() || settings.dispersion.is_some()) {
            let problem = format!("the simulated cell {n} has no count at all");
            return Err(InputError::new(
                problem,
                "ask for more counts per cell (--sim-depth) or a higher --sim-dispersion",
            )
            .into());
        }
        library.push(total as f64);
    }
    Ok((counts.finish(), library))
}

fn numbered(prefix: &str, n: usize) -> Vec<String> {
    let width = n.saturating_sub(1).to_string().len();
    (0..n).map(|i| format!("{prefix}{i:0width$}")).collect()
}

/// A screen of 60 cells that tests of other modules train on.
#[cfg(test)]
pub(crate) fn small_screen(seed: u64) -> Dataset {
    let simulation = Simulation {
        n_interventions: 4,
        n_latents: 3,
        n_genes: 12,
        cells_per_intervention: 15,
        seed,
        ..Simulation::default()
    };
    simulate(&simulation).expect("a simulation").dataset
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::mixing::BATCH_SD;

    fn small(kind: SimulationKind) -> Simulation {
        Simulation { kind, cells_per_intervention: 20, seed: 3, ..Simulation::default() }
    }

    #[test]
    fn totals_are_those_of_the_specification() {
        let simulated = simulate(&small(SimulationKind::SparseShift)).unwrap();
        let dataset = &simulated.dataset;
        assert_eq!((dataset.n_cells(), dataset.n_genes(), dataset.n_interventions()), (2000, 100, 100));
        let total: f64 = dataset.library.iter().sum();
        // Poisson(100 genes x 1e6) has standard deviation 1e4.
        assert!((total - 1e8).abs() < 5e4, "total {total}");
        let mut genes = vec![0.0; 100];
        for n in 0..2000 {
            dataset.counts.row(n).for_each(|g, x| genes[g] += x as f64);
            assert_eq!(dataset.counts.row(n).sum() as f64, dataset.library[n]);
        }
        assert!(genes.iter().all(|total| (total - 1e6).abs() < 5e3), "{genes:?}");

        let paper = simulate(&small(SimulationKind::Paper)).unwrap().dataset;
        assert!(paper.library.iter().all(|library| (library - 1e5).abs() < 5.0 * 1e5f64.sqrt()));
    }

    /// Counts of a screen of [`small`] with their true means, where these are above 5.
    fn counts_and_means(simulated: &Simulated) -> Vec<(f64, f64)> {
        let Simulated { dataset, generating, .. } = simulated;
        let truth = dataset.truth.as_ref().unwrap();
        let mut pairs = Vec::new();
        for n in 0..dataset.n_cells() {
            let log_rates = generating.mixing.log_rates(&truth.latents[n * 15..(n + 1) * 15], 0);
            let mut x = vec![0.0; 100];
            dataset.counts.row(n).for_each(|g, count| x[g] = count as f64);
            let means = log_rates.into_iter().map(f64::exp);
            pairs.extend(x.into_iter().zip(means).filter(|(_, mean)| *mean > 5.0));
        }
        pairs
    }

    #[test]
    fn counts_have_the_means_of_the_network() {
        for kind in [SimulationKind::SparseShift, SimulationKind::Paper] {
            // Pearson's chi-squared of counts against means: n times (1 +- sqrt(2/n)) or so.
            let (mut chi2, mut n_terms) = (0.0, 0.0);
            for (x, mean) in counts_and_means(&simulate(&small(kind)).unwrap()) {
                chi2 += (x - mean) * (x - mean) / mean;
                n_terms += 1.0;
            }
            let sd = f64::sqrt(2.2 / n_terms);
            assert!((chi2 / n_terms - 1.0).abs() < 5.0 * sd, "{kind:?}: {} +- {sd}", chi2 / n_terms);
        }
    }

    #[test]
    fn targets_and_shifts_are_distributed_as_specified() {
        let mut n_targets = [0usize; 4];
        for (kind, seeds) in [(SimulationKind::SparseShift, 0..30), (SimulationKind::Paper, 30..60)] {
            let mut of_kind = [0usize; 4];
            for seed in seeds {
                let settings =
                    Simulation { kind, cells_per_intervention: 1, n_genes: 2, seed, ..Simulation::default() };
                let simulated = simulate(&settings).unwrap();
                let truth = simulated.dataset.truth.unwrap();
                for a in 0..100 {
                    let targets = &simulated.targets[a * 15..(a + 1) * 15];
                    of_kind[targets.iter().filter(|&&t| t).count()] += 1;
                }
                for (i, &mean) in truth.prior_means.iter().enumerate() {
                    assert_eq!(mean, if simulated.targets[i] { simulated.shifts[i] } else { 0.0 });
                }
            }
            assert_eq!(of_kind[0], 0);
            // Number of distinct targets of 1, 2 or 3 draws from 15.
            let expected = match kind {
                SimulationKind::SparseShift => {
                    let one = 1.0 + 1.0 / 15.0 + 1.0 / 225.0;
                    let three = 14.0 * 13.0 / 225.0;
                    [0.0, one / 3.0, (3.0 - one - three) / 3.0, three / 3.0]
                }
                SimulationKind::Paper => [0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0],
            };
            for (found, p) in of_kind.iter().zip(expected) {
                let sd = f64::sqrt(3000.0 * p * (1.0 - p));
                assert!((*found as f64 - 3000.0 * p).abs() <= 4.5 * sd, "{kind:?}: {of_kind:?}, expected {p}");
            }
            n_targets.iter_mut().zip(of_kind).for_each(|(sum, n)| *sum += n);
        }
        assert_eq!(n_targets.iter().sum::<usize>(), 6000);

        let settings = Simulation { n_interventions: 2000, cells_per_intervention: 1, ..Simulation::default() };
        let shifts = simulate(&settings).unwrap().shifts;
        let n = shifts.len() as f64;
        let positive = shifts.iter().filter(|&&s| s > 0.0).count() as f64;
        assert!((positive / n - 0.5).abs() < 5.0 * 0.5 / n.sqrt());
        let mean = shifts.iter().map(|s| s.abs()).sum::<f64>() / n;
        let sd = (shifts.iter().map(|s| (s.abs() - mean).powi(2)).sum::<f64>() / n).sqrt();
        assert!((mean - 5.0).abs() < 5.0 * 0.5 / n.sqrt() && (sd - 0.5).abs() < 5.0 * 0.5 / (2.0 * n).sqrt());
    }

    #[test]
    fn latents_are_normal_around_their_prior_mean() {
        let dataset = simulate(&small(SimulationKind::SparseShift)).unwrap().dataset;
        let truth = dataset.truth.unwrap();
        let n = truth.latents.len() as f64;
        let (mut sum, mut squares) = (0.0, 0.0);
        for (i, z) in truth.latents.iter().enumerate() {
            let a = dataset.interventions.single(i / 15).unwrap();
            let noise = z - truth.prior_means[a * 15 + i % 15];
            sum += noise;
            squares += noise * noise;
        }
        assert!((sum / n).abs() < 5.0 / n.sqrt() && (squares / n - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
    }

    #[test]
    fn only_the_first_latents_are_targeted_on_request() {
        for kind in [SimulationKind::SparseShift, SimulationKind::Paper] {
            let settings = Simulation { n_targeted_latents: Some(2), ..small(kind) };
            let targets = simulate(&settings).unwrap().targets;
            for targets in targets.chunks_exact(15) {
                assert!(targets[..2].contains(&true) && !targets[2..].contains(&true));
            }
        }
        for n in [0, 16] {
            assert!(simulate(&Simulation { n_targeted_latents: Some(n), ..Simulation::default() }).is_err());
        }
        assert!(simulate(&Simulation { n_genes: 0, ..Simulation::default() }).is_err());
    }

    #[test]
    fn the_seed_decides_and_the_threads_do_not() {
        let settings = small(SimulationKind::SparseShift);
        let first = simulate(&settings).unwrap();
        let second = Team::with(3, |team| simulate_on(team, &settings).unwrap());
        assert_eq!(first.dataset, second.dataset);
        assert_eq!(first.generating, second.generating);
        let other = simulate(&Simulation { seed: 4, ..settings }).unwrap();
        assert_ne!(first.targets, other.targets);
        assert_ne!(first.dataset.counts, other.dataset.counts);
    }

    /// Everything that makes a screen harder at once.
    fn hard(kind: SimulationKind) -> Simulation {
        Simulation {
            depth: Some(500),
            shift: Some(2.0),
            dispersion: Some(4.0),
            together: Some(0.5),
            n_batches: Some(3),
            escaped: Some(0.3),
            n_controls: Some(70),
            ..small(kind)
        }
    }

    #[test]
    fn depth_is_the_expected_total_of_every_cell_however_many_there_are() {
        for kind in [SimulationKind::SparseShift, SimulationKind::Paper] {
            for (cells_per_intervention, depth) in [(5, 200), (5, 20_000), (50, 2_000)] {
                let settings = Simulation {
                    depth: Some(depth),
                    cells_per_intervention,
                    n_interventions: 40,
                    n_batches: Some(2),
                    ..small(kind)
                };
                let Simulated { dataset, generating, .. } = simulate(&settings).unwrap();
                let truth = dataset.truth.as_ref().unwrap();
                for n in (0..dataset.n_cells()).step_by(13) {
                    let log_rates = generating.mixing.log_rates(&truth.latents[n * 15..(n + 1) * 15], n % 2);
                    let total: f64 = log_rates.iter().map(|log| log.exp()).sum();
                    assert!((total / depth as f64 - 1.0).abs() < 1e-12, "{kind:?} {n}: {total}");
                }
                let (n, depth) = (dataset.n_cells() as f64, depth as f64);
                // Totals are Poisson.
                let mean = dataset.library.iter().sum::<f64>() / n;
                let variance = dataset.library.iter().map(|total| (total - depth).powi(2)).sum::<f64>() / n;
                assert!((mean - depth).abs() < 5.0 * (depth / n).sqrt(), "{kind:?} {depth}: {mean}");
                assert!((variance / depth - 1.0).abs() < 5.0 * (2.2 / n).sqrt(), "{kind:?} {depth}: {variance}");
            }
        }
    }

    #[test]
    fn shifts_are_scaled_and_none_is_left_in_the_null() {
        let plain = simulate(&small(SimulationKind::SparseShift)).unwrap();
        let of = |shift| simulate(&Simulation { shift: Some(shift), ..small(SimulationKind::SparseShift) }).unwrap();
        let five = of(5.0);
        assert_eq!((&five.shifts, &five.dataset.counts), (&plain.shifts, &plain.dataset.counts));
        let half = of(0.5);
        assert_eq!(half.targets, plain.targets);
        for (small, large) in half.shifts.iter().zip(&plain.shifts) {
            assert!((small * 10.0 - large).abs() < 1e-12, "{small} {large}");
        }
        let sizes: Vec<f64> =
            half.dataset.truth.unwrap().prior_means.iter().filter(|m| **m != 0.0).map(|m| m.abs()).collect();
        let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
        assert!((mean - 0.5).abs() < 5.0 * 0.05 / (sizes.len() as f64).sqrt(), "{mean}");

        let null = of(0.0);
        assert!(null.targets.iter().all(|target| !target));
        let truth = null.dataset.truth.unwrap();
        assert!(truth.prior_means.iter().all(|&mean| mean == 0.0));
        // The mean of each intervention's 20 cells, squared and times 20, is chi-squared: over 1,500 means of variance 1.
        let squares: f64 = truth
            .latents
            .chunks_exact(20 * 15)
            .flat_map(|cells| (0..15).map(|k| cells.iter().skip(k).step_by(15).sum::<f64>().powi(2) / 20.0))
            .sum();
        assert!((squares / 1500.0 - 1.0).abs() < 5.0 * (2.0f64 / 1500.0).sqrt(), "{squares}");
    }

    #[test]
    fn counts_are_as_dispersed_as_asked_for() {
        for kind in [SimulationKind::SparseShift, SimulationKind::Paper] {
            for theta in [0.5, 10.0] {
                let settings = Simulation { dispersion: Some(theta), depth: Some(5_000), ..small(kind) };
                let simulated = simulate(&settings).unwrap();
                assert_eq!(simulated.generating.dispersion, Some(theta));
                let (mut deviation, mut chi2, mut fourth, mut n_terms) = (0.0, 0.0, 0.0, 0.0);
                for (x, mean) in counts_and_means(&simulated) {
                    let z = (x - mean) / (mean + mean * mean / theta).sqrt();
                    deviation += z;
                    chi2 += z * z;
                    fourth += z.powi(4);
                    n_terms += 1.0;
                }
                let sd = f64::sqrt((fourth / n_terms - 1.0) / n_terms);
                assert!((deviation / n_terms).abs() < 5.0 / f64::sqrt(n_terms), "{kind:?} {theta}");
                assert!((chi2 / n_terms - 1.0).abs() < 5.0 * sd, "{kind:?} {theta}: {} +- {sd}", chi2 / n_terms);
            }
        }
    }

    #[test]
    fn the_first_two_latents_are_hit_together_as_often_as_asked_for() {
        for kind in [SimulationKind::SparseShift, SimulationKind::Paper] {
            let of = |together| {
                let settings = Simulation {
                    together,
                    n_interventions: 2000,
                    n_latents: 5,
                    n_genes: 2,
                    cells_per_intervention: 1,
                    ..small(kind)
                };
                simulate(&settings).unwrap().targets
            };
            let independent = of(None);
            for share in [0.0, 0.3, 1.0] {
                let targets = of(Some(share));
                let (mut any, mut both) = (0.0, 0.0);
                for (now, before) in targets.chunks_exact(5).zip(independent.chunks_exact(5)) {
                    assert_eq!(now[2..], before[2..]);
                    assert_eq!(now[0] || now[1], before[0] || before[1]);
                    any += f64::from(now[0] || now[1]);
                    both += f64::from(now[0] && now[1]);
                }
                let sd = f64::sqrt(share * (1.0 - share) / any);
                assert!(any > 800.0 && (both / any - share).abs() <= 5.0 * sd, "{kind:?} {share}: {both} of {any}");
            }
        }
        let one = Simulation { together: Some(1.0), n_targeted_latents: Some(1), ..Simulation::default() };
        assert!(simulate(&one).is_err());
    }

    #[test]
    fn batches_share_every_intervention_and_differ_in_expression() {
        let settings = Simulation { n_batches: Some(3), depth: Some(5_000), ..small(SimulationKind::SparseShift) };
        let Simulated { dataset, generating, .. } = simulate(&settings).unwrap();
        let [batches] = &dataset.covariates.categorical[..] else { panic!("one covariate") };
        assert_eq!((batches.name.as_str(), &batches.levels[..]), ("batch", &numbered("batch_", 3)[..]));
        for a in 0..100 {
            let mut sizes = [0; 3];
            (a * 20..(a + 1) * 20).for_each(|n| sizes[batches.codes[n] as usize] += 1);
            assert!(sizes.iter().all(|&size| size == 6 || size == 7), "{sizes:?}");
        }
        // Total counts of each gene in each batch; their log ratios spread as differences of two effects.
        let mut totals = vec![0.0; 3 * 100];
        // Deviance of the counts under the means of their own batch, and of the next.
        let (mut own, mut other) = (0.0, 0.0);
        let truth = dataset.truth.as_ref().unwrap();
        for n in 0..dataset.n_cells() {
            let batch = batches.codes[n] as usize;
            let mut x = vec![0.0; 100];
            dataset.counts.row(n).for_each(|g, count| x[g] = count as f64);
            totals[batch * 100..(batch + 1) * 100].iter_mut().zip(&x).for_each(|(total, x)| *total += x);
            let minus_log_density = |batch: usize| -> f64 {
                let log_rates = generating.mixing.log_rates(&truth.latents[n * 15..(n + 1) * 15], batch);
                x.iter().zip(log_rates).map(|(x, log)| log.exp() - x * log).sum()
            };
            own += minus_log_density(batch);
            other += minus_log_density((batch + 1) % 3);
        }
        assert!((other - own) / 2000.0 > 50.0, "{own} {other}");
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            let ratios: Vec<f64> = (0..100).map(|g| f64::ln(totals[a * 100 + g] / totals[b * 100 + g])).collect();
            let mean = ratios.iter().sum::<f64>() / 100.0;
            let sd = (ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 99.0).sqrt();
            let want = 2f64.sqrt() * BATCH_SD;
            assert!((sd / want - 1.0).abs() < 5.0 / 198f64.sqrt(), "{sd}, not {want}");
        }
    }

    #[test]
    fn as_many_cells_escape_as_asked_for_and_keep_their_label() {
        let settings = Simulation { escaped: Some(0.3), n_controls: Some(50), ..small(SimulationKind::SparseShift) };
        let Simulated { dataset, generating, .. } = simulate(&settings).unwrap();
        assert_eq!(generating.escaped, 0.3);
        let truth = dataset.truth.as_ref().unwrap();
        assert_eq!(truth.escaped.len(), 2050);
        assert!(truth.escaped[2000..].iter().all(|escaped| !escaped), "controls have nothing to escape");
        let n_escaped = truth.escaped.iter().filter(|&&escaped| escaped).count() as f64;
        assert!((n_escaped / 2000.0 - 0.3).abs() < 5.0 * f64::sqrt(0.3 * 0.7 / 2000.0), "{n_escaped}");
        let (mut squares, mut n) = ([0.0; 2], [0.0; 2]);
        for cell in 0..2000 {
            let a = dataset.interventions.single(cell).unwrap();
            assert_eq!(a, cell / 20);
            let escaped = truth.escaped[cell];
            for k in 0..15 {
                let mean = truth.prior_means[a * 15 + k];
                // Where the intervention acts, its escapees are centred on 0 and the others on its shift.
                if mean != 0.0 {
                    let centre = if escaped { 0.0 } else { mean };
                    squares[usize::from(escaped)] += (truth.latents[cell * 15 + k] - centre).powi(2);
                    n[usize::from(escaped)] += 1.0;
                }
            }
        }
        for (squares, n) in squares.iter().zip(n) {
            assert!(n > 500.0 && (squares / n - 1.0).abs() < 5.0 * f64::sqrt(2.0 / n), "{squares} of {n}");
        }
        let some = dataset.select(&[3, 1999, 2010]);
        let of = |n: usize| truth.escaped[n];
        assert_eq!(some.truth.unwrap().escaped, [of(3), of(1999), of(2010)]);
    }

    #[test]
    fn control_cells_are_under_no_intervention_and_change_no_other_latent() {
        let with = simulate(&Simulation { n_controls: Some(400), ..small(SimulationKind::SparseShift) }).unwrap();
        let without = simulate(&small(SimulationKind::SparseShift)).unwrap();
        let dataset = &with.dataset;
        assert_eq!((dataset.n_cells(), dataset.n_interventions()), (2400, 100));
        assert!((2000..2400).all(|n| dataset.interventions.row(n).0.is_empty()));
        let (latents, others) =
            (&dataset.truth.as_ref().unwrap().latents, &without.dataset.truth.as_ref().unwrap().latents);
        assert_eq!(latents[..2000 * 15], others[..]);
        let n = 400.0 * 15.0;
        let (sum, squares) = latents[2000 * 15..].iter().fold((0.0, 0.0), |(s, q), z| (s + z, q + z * z));
        assert!((sum / n).abs() < 5.0 / f64::sqrt(n) && (squares / n - 1.0).abs() < 5.0 * f64::sqrt(2.0 / n));
    }

    #[test]
    fn hard_screens_do_not_depend_on_the_threads() {
        for kind in [SimulationKind::SparseShift, SimulationKind::Paper] {
            let first = simulate(&hard(kind)).unwrap();
            let second = Team::with(3, |team| simulate_on(team, &hard(kind)).unwrap());
            assert_eq!(first.dataset, second.dataset);
            assert_eq!(first.generating, second.generating);
        }
    }

    #[test]
    fn what_cannot_be_simulated_is_refused() {
        let refused = |settings: Simulation| simulate(&settings).unwrap_err().to_string();
        let base = || small(SimulationKind::SparseShift);
        let empty = refused(Simulation { depth: Some(1), ..base() });
        assert!(empty.contains("no count at all") && empty.contains("--sim-depth"), "{empty}");
        assert!(refused(Simulation { depth: Some(0), ..base() }).contains("counts per cell"));
        assert!(refused(Simulation { n_batches: Some(0), ..base() }).contains("batches"));
        assert!(refused(Simulation { escaped: Some(1.5), ..base() }).contains("`escaped` is 1.5"));
        assert!(refused(Simulation { together: Some(f64::NAN), ..base() }).contains("`together` is NaN"));
        assert!(refused(Simulation { shift: Some(-1.0), ..base() }).contains("shifts"));
        assert!(refused(Simulation { dispersion: Some(0.0), ..base() }).contains("dispersion"));
    }

    #[test]
    fn combinations_add_up_their_shifts_but_for_interactions() {
        let settings = Simulation {
            n_interventions: 12,
            n_combinations: Some(20),
            interactions: Some(0.25),
            n_doses: Some(2),
            n_controls: Some(30),
            cells_per_intervention: 400,
            n_genes: 10,
            ..small(SimulationKind::SparseShift)
        };
        let Simulated { dataset, .. } = simulate(&settings).unwrap();
        let (rows, truth) = (&dataset.interventions, dataset.truth.as_ref().unwrap());
        assert_eq!((dataset.n_cells(), dataset.n_interventions()), (32 * 400 + 30, 12));
        let combinations = settings.combinations();
        assert_eq!(combinations.iter().filter(|members| members.len() == 3).count(), 5);
        assert_eq!(combinations.iter().collect::<BTreeSet<_>>().len(), 20, "none comes twice");
        assert_eq!(rows.row(400 * 12 - 1), (&[11][..], &[0.5][..]));
        assert!((32 * 400..dataset.n_cells()).all(|n| rows.row(n).0.is_empty()));

        // The latents of each combination's cells have the mean that members and interaction say.
        let deviates = |members: &[u32]| truth.interactions.iter().find(|found| found.members == members);
        for (c, members) in combinations.iter().enumerate() {
            let first = (12 + c) * 400;
            let row: Vec<u32> = members.iter().map(|&a| a as u32).collect();
            assert_eq!(rows.row(first).0, row);
            for k in 0..15 {
                let sum: f64 = members.iter().map(|a| truth.prior_means[a * 15 + k]).sum();
                let want = sum + deviates(&row).map_or(0.0, |found| found.deviation[k]);
                let mean = (first..first + 400).map(|n| truth.latents[n * 15 + k]).sum::<f64>() / 400.0;
                assert!((mean - want).abs() < 5.0 / 20.0, "{c} {k}: {mean} {want}");
            }
        }
        assert_eq!(truth.interactions.len(), 5);
        let one = |found: &TrueInteraction| found.deviation.iter().filter(|d| d.abs() > 2.0).count() == 1;
        assert!(truth.interactions.iter().all(one), "each in one latent, by a shift");
        let half = truth.prior_mean((&[3], &[0.5]));
        assert!((0..15).all(|k| half[k] == 0.5 * truth.prior_means[3 * 15 + k]));

        // Cells of single interventions are as without combinations.
        let plain = Simulation { n_combinations: None, interactions: None, n_controls: None, ..settings.clone() };
        let plain = simulate(&plain).unwrap().dataset.truth.unwrap();
        assert_eq!(plain.latents[..], truth.latents[..plain.latents.len()]);

        let refused = |settings: Simulation| simulate(&settings).unwrap_err().to_string();
        let many = refused(Simulation { n_combinations: Some(100), interactions: None, ..settings.clone() });
        assert!(many.contains("100 combinations have 75 pairs, and 12 interventions make up 66"), "{many}");
        assert!(refused(Simulation { n_combinations: None, ..settings }).contains("of which there are none"));
    }

    #[test]
    fn names_and_holdout() {
        let settings = Simulation::default();
        assert_eq!(settings.intervention_names()[7], "intervention_07");
        let holdout = settings.default_holdout();
        assert_eq!((holdout.len(), holdout[0].as_str()), (20, "intervention_80"));
        assert_eq!(numbered("g", 1), ["g0"]);
    }
}
