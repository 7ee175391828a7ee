//! Plain negative binomial baselines: what a model without latents says about the validation cells.
//!
//! Mean and inverse dispersion parametrise the negative binomial: x ~ NB(mu, theta), variance mu + mu^2/theta. The mean
//! is mu\[n,g\] = library\[n\] * rate, the rate being that of the gene, or of the gene under the cell's intervention;
//! each gene has one theta, fitted by maximum likelihood with the means held fixed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::data::dataset::Dataset;
use crate::error::{InputError, Result};
use crate::inference::gene_dispersion::{ByGene, THETA_MAX, fit_theta, weighted_negative_log_likelihood};
use crate::numerics::spread::evenly_spaced;
use crate::parallel::team::{Team, tiles};

/// Cells' worth of pooled rates that [`per_intervention_negative_binomial`] adds to each intervention unless told
/// otherwise.
pub const PSEUDO_CELLS: f64 = 10.0;
/// Counts given in all to a gene that no training cell shows: its rate must not be 0, or one count later is impossible.
const UNSEEN_GENE_COUNT: f64 = 0.5;
/// Gene-wise entries held at once; more genes wait for the next pass over the cells.
const BLOCK_ENTRIES: usize = 1 << 25;
/// Bytes of such an entry.
const BYTES_PER_ENTRY: usize = 8;
/// Inverse dispersions are fitted to that many training cells at most, evenly spaced: more cells would hardly move them,
/// while all of them, gene by gene, are too many to hold or to read again and again. Rates are always those of all.
const MOST_FITTED: usize = 200_000;

/// A fitted baseline and its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// Mean negative log-likelihood per validation cell, nats, summed over genes; of [`weighted`], the weighted sum.
    pub nll_per_cell: f64,
    /// Pooled rate of each gene: its share of the training cells' libraries.
    pub rates: Vec<f64>,
    /// Inverse dispersion of each gene, within [`THETA_MIN`](crate::inference::gene_dispersion::THETA_MIN) and [`THETA_MAX`].
    pub theta: Vec<f64>,
}

/// The pooled baseline: mean = library times the gene's overall rate (all counts over all libraries of the training
/// cells).
///
/// `train` and `validation` are cells of `data`. A gene without counts in training gets half a count in all and theta =
/// [`THETA_MAX`]. Genes run in parallel; the sum over genes is in their order, so the figure does not depend on the
/// number of threads.
///
/// # Errors
/// If either list is empty, the training cells' libraries sum to nothing, or counts on disk cannot be read.
pub fn pooled_negative_binomial(
    team: &Team,
    data: &Dataset,
    train: &[usize],
    validation: &[usize],
) -> Result<Baseline> {
    fit(team, data, train, validation, None, None, MOST_FITTED)
}

/// The per-intervention baseline: mean = library times the gene's rate under the cell's intervention.
///
/// The rate of gene g under intervention a is (X\[a,g\] + w rate\[g\]) / (library\[a\] + w): counts and libraries
/// summed over a's training cells, plus `pseudo_cells` average libraries w at the pooled rate, which keeps
/// interventions of few cells near the pool. Cells with the same combination of interventions and doses form one group;
/// validation cells of a group unseen in training get the pooled rate. theta as in the pooled baseline, one per gene,
/// given these means.
///
/// # Errors
/// As [`pooled_negative_binomial`], and if `pseudo_cells` is not a positive number.
pub fn per_intervention_negative_binomial(
    team: &Team,
    data: &Dataset,
    train: &[usize],
    validation: &[usize],
    pseudo_cells: f64,
) -> Result<Baseline> {
    let groups = groups(data, train, validation, pseudo_cells)?;
    fit(team, data, train, validation, Some(groups), None, MOST_FITTED)
}

/// Either baseline (per intervention if `pseudo_cells` is given), scored by a weighted sum over the validation cells
/// instead of their mean; `weights` has one for each of them.
///
/// # Errors
/// As for the baselines without weights.
pub fn weighted(
    team: &Team,
    data: &Dataset,
    train: &[usize],
    validation: &[usize],
    weights: &[f64],
    pseudo_cells: Option<f64>,
) -> Result<Baseline> {
    let groups = pseudo_cells.map(|pseudo_cells| groups(data, train, validation, pseudo_cells)).transpose()?;
    fit(team, data, train, validation, groups, Some(weights), MOST_FITTED)
}

fn groups(data: &Dataset, train: &[usize], validation: &[usize], pseudo_cells: f64) -> Result<Groups> {
    if !(pseudo_cells.is_finite() && pseudo_cells > 0.0) {
        return Err(InputError::new(
            format!("the pseudo-count of the per-intervention baseline is {pseudo_cells} cells"),
            "give a positive number",
        )
        .into());
    }
    let mut numbers = BTreeMap::new();
    let key = |n: usize| {
        let (a, w) = data.interventions.row(n);
        a.iter().copied().zip(w.iter().map(|w| w.to_bits())).collect::<Vec<_>>()
    };
    let of_train: Vec<u32> = train
        .iter()
        .map(|&n| {
            let next = numbers.len() as u32;
            *numbers.entry(key(n)).or_insert(next)
        })
        .collect();
    let unseen = numbers.len() as u32;
    let of_validation = validation.iter().map(|&n| numbers.get(&key(n)).copied().unwrap_or(unseen)).collect();
    Ok(Groups { n: numbers.len() + 1, of_train, of_validation, pseudo_cells })
}

/// Cells that share a rate per gene.
struct Groups {
    n: usize,
    of_train: Vec<u32>,
    of_validation: Vec<u32>,
    pseudo_cells: f64,
}

#[expect(
    clippy::too_many_lines,
    reason = "sizes, totals and rates of all genes are shared by the blocks that are fitted"
)]
fn fit(
    team: &Team,
    data: &Dataset,
    train: &[usize],
    validation: &[usize],
    groups: Option<Groups>,
    weights: Option<&[f64]>,
    most_fitted: usize,
) -> Result<Baseline> {
    for (cells, what) in [(train, "training"), (validation, "validation")] {
        if cells.is_empty() {
            let problem = format!("there are no {what} cells");
            return Err(InputError::new(problem, "choose a split that leaves some").into());
        }
    }
    let all: f64 = train.iter().map(|&n| data.library[n]).sum();
    if !(all.is_finite() && all > 0.0) {
        return Err(InputError::new(
            format!("the libraries of the training cells sum to {all}"),
            "drop cells without counts or name another library column",
        )
        .into());
    }

    // Places in `train` of the cells that dispersions are fitted to.
    let places = evenly_spaced(train.len(), most_fitted);
    let is_sample = places.len() < train.len();
    let cells_fitted: Cow<[usize]> = match is_sample {
        true => places.clone().map(|i| train[i]).collect(),
        false => train.into(),
    };
    let groups_fitted: Cow<[u32]> = match &groups {
        Some(groups) if is_sample => places.clone().map(|i| groups.of_train[i]).collect(),
        Some(groups) => groups.of_train.as_slice().into(),
        None => Cow::default(),
    };

    let n_genes = data.n_genes();
    let mut totals = vec![0u64; n_genes];
    // Entries per gene.
    let (mut sizes_fitted, mut sizes_validation) = (vec![0usize; n_genes], vec![0usize; n_genes]);
    // Counts of each group, genes x groups, where those of the fitted cells are not all.
    let mut by_group = groups.as_ref().filter(|_| is_sample).map(|groups| vec![0.0; n_genes * groups.n]);
    let mut next = places.peekable();
    data.counts.visit(train, |i, row| {
        let is_fitted = next.next_if_eq(&i).is_some();
        row.for_each(|g, x| {
            totals[g] += x as u64;
            sizes_fitted[g] += is_fitted as usize;
            if let (Some(counts), Some(groups)) = (&mut by_group, &groups) {
                counts[g * groups.n + groups.of_train[i] as usize] += x as f64;
            }
        });
    })?;
    data.counts.visit(validation, |_, row| row.for_each(|g, _| sizes_validation[g] += 1))?;
    let sizes = |g: usize| sizes_fitted[g] + sizes_validation[g];
    // Each block is a pass over the file where the counts are on disk.
    let block = data.counts.disk().map_or(BLOCK_ENTRIES, |disk| disk.buffer() / 2 / BYTES_PER_ENTRY);
    let rates: Vec<f64> = totals.iter().map(|&t| (t as f64).max(UNSEEN_GENE_COUNT) / all).collect();
    let group_library = groups.as_ref().map(|groups| {
        let mut sums = vec![0.0; groups.n];
        groups.of_train.iter().zip(train).for_each(|(&a, &n)| sums[a as usize] += data.library[n]);
        sums
    });

    let mut theta = Vec::with_capacity(n_genes);
    let mut nll = 0.0;
    let mut start = 0;
    while start < n_genes {
        let mut end = start + 1;
        let mut held = sizes(start);
        while end < n_genes && held + sizes(end) <= block {
            held += sizes(end);
            end += 1;
        }
        let seen = ByGene::gather(&data.counts, &cells_fitted, start..end, &sizes_fitted[start..end])?;
        let unseen = ByGene::gather(&data.counts, validation, start..end, &sizes_validation[start..end])?;
        let mut fitted = vec![(0.0, 0.0); end - start];
        team.run(end - start, tiles(&mut fitted, 1), |i, fitted| {
            let (g, mu) = (start + i, &mut Vec::new());
            let (fit_on, score_on) = (seen.gene(g - start), unseen.gene(g - start));
            let group_rates = groups.as_ref().zip(group_library.as_ref()).map(|(groups, libraries)| {
                let w = groups.pseudo_cells * all / train.len() as f64;
                let mut counts = Vec::new();
                let counts = match &by_group {
                    Some(all) => &all[g * groups.n..(g + 1) * groups.n],
                    None => {
                        counts.resize(groups.n, 0.0);
                        fit_on
                            .0
                            .iter()
                            .zip(fit_on.1)
                            .for_each(|(&i, &x)| counts[groups_fitted[i as usize] as usize] += x as f64);
                        &counts[..]
                    }
                };
                let rate = |(x, l): (&f64, &f64)| (x + w * rates[g]) / (l + w);
                counts.iter().zip(libraries).map(rate).collect::<Vec<f64>>()
            });
            let means = |mu: &mut Vec<f64>, cells: &[usize], groups: &[u32]| {
                let library = cells.iter().map(|&n| data.library[n]);
                mu.clear();
                mu.reserve_exact(cells.len());
                match &group_rates {
                    Some(r) => mu.extend(library.zip(groups).map(|(l, &a)| l * r[a as usize])),
                    None => mu.extend(library.map(|l| l * rates[g])),
                }
            };
            means(mu, &cells_fitted, &groups_fitted);
            let theta = if totals[g] == 0 { THETA_MAX } else { fit_theta(mu, fit_on.0, fit_on.1) };
            means(mu, validation, groups.as_ref().map_or(&[], |groups| &groups.of_validation));
            fitted[0] = (theta, weighted_negative_log_likelihood(theta, mu, score_on.0, score_on.1, weights));
        });
        for (t, l) in fitted {
            theta.push(t);
            nll += l;
        }
        start = end;
    }
    let nll_per_cell = if weights.is_some() { nll } else { nll / validation.len() as f64 };
    Ok(Baseline { nll_per_cell, rates, theta })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_distr::{Distribution, Gamma, Poisson};

    use super::*;
    use crate::data::counts::ScreenCounts;
    use crate::data::counts::in_memory::Counts;
    use crate::data::dataset::{Covariates, InterventionRows};
    use crate::inference::gene_dispersion::{THETA_MIN, negative_log_likelihood};

    /// The counts of the first `n_genes` genes.
    fn gathered(counts: &ScreenCounts, cells: &[usize], n_genes: usize) -> ByGene {
        let mut sizes = vec![0; n_genes];
        cells.iter().for_each(|&n| counts.row(n).for_each(|g, _| sizes[g] += 1));
        ByGene::gather(counts, cells, 0..n_genes, &sizes).expect("in memory")
    }

    fn dataset(n_genes: usize, table: &[u32], library: Vec<f64>, labels: &[usize]) -> Dataset {
        let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        Dataset {
            source: "test".into(),
            counts: Counts::from_dense(n_genes, table).into(),
            intervention_names: names(labels.iter().max().unwrap() + 1),
            gene_names: names(n_genes),
            cell_names: names(library.len()).into(),
            library,
            interventions: InterventionRows::one_hot(labels.iter().copied()),
            covariates: Covariates::default(),
            guides: None,
            truth: None,
        }
    }

    #[test]
    fn log_likelihood_equals_fifty_digit_arithmetic() {
        // `python scripts/evaluation_reference.py negative_binomial`: mpmath, beside scipy.stats.nbinom.logpmf.
        for (x, mu, theta, expected) in [
            (0, 2.5, 0.7, -1.0638780276210893),
            (3, 2.5, 0.7, -2.4290126505100003),
            (40, 3.0, 1e-3, -10.613719811916566),
            (700, 650.0, 12.0, -6.276192587494131),
            (5, 4.0, 1e6, -1.8560219371789262),
            (90_000, 5e4, 2.0, -12.445694147658875),
        ] {
            let (positions, counts): (&[u32], &[u32]) = if x > 0 { (&[0], &[x]) } else { (&[], &[]) };
            let got = -negative_log_likelihood(theta, &[mu], positions, counts);
            // The value is a difference of terms of size x log x, each rounded.
            let terms = x as f64 * (x as f64 + 1.0).ln();
            assert!((got - expected).abs() < 1e-15 * (10.0 + terms), "{x} {mu} {theta}: {got} {expected}");
        }
    }

    #[test]
    fn a_small_case_equals_scipy_from_end_to_end() {
        // `python scripts/evaluation_reference.py negative_binomial`: nbinom maximised by scipy.optimize, Poisson for
        // the second gene.
        let at = |i: usize, j: usize, m: usize| (i * 73 + j * 151 + 7 * i * i * (j + 1)) % m;
        let table: Vec<u32> = (0..40).flat_map(|i| [(at(i, 0, 7) * at(i, 1, 5)) as u32, 2 + i as u32 % 2]).collect();
        let library = (0..40).map(|i| 50.0 + at(i, 3, 97) as f64).collect();
        let data = dataset(2, &table, library, &[0; 40]);
        let cells: Vec<usize> = (0..40).collect();
        let baseline = pooled_negative_binomial(&Team::single(), &data, &cells[..30], &cells[30..]).unwrap();
        assert!((baseline.theta[0] / 1.3561685109599528 - 1.0).abs() < 1e-6, "{:?}", baseline.theta);
        assert_eq!(baseline.theta[1], THETA_MAX);
        assert!((baseline.nll_per_cell - 4.7592438406987085).abs() < 1e-6, "{}", baseline.nll_per_cell);
        // One intervention only: shrinking towards the pool changes nothing.
        let grouped =
            per_intervention_negative_binomial(&Team::single(), &data, &cells[..30], &cells[30..], 3.0).unwrap();
        assert!((grouped.nll_per_cell - baseline.nll_per_cell).abs() < 1e-9);
    }

    #[test]
    fn known_inverse_dispersions_are_found() {
        let mut rng = rand::rngs::ChaCha8Rng::seed_from_u64(3);
        let (n, truth) = (20_000, [0.1, 0.5, 2.0, 10.0]);
        let rates = [0.002, 0.01, 0.02, 0.5];
        let library: Vec<f64> = (0..n).map(|_| rng.random_range(100.0..400.0)).collect();
        let mut table = Vec::new();
        for l in &library {
            for (theta, rate) in truth.iter().zip(rates) {
                let mean = Gamma::new(*theta, l * rate / theta).unwrap().sample(&mut rng);
                table.push(if mean > 0.0 { Poisson::new(mean).unwrap().sample(&mut rng) as u32 } else { 0 });
            }
            // A Poisson gene, and one that is never seen.
            table.push(Poisson::new(l * 0.01).unwrap().sample(&mut rng) as u32);
            table.push(0);
        }
        let data = dataset(6, &table, library.clone(), &vec![0; n]);
        let cells: Vec<usize> = (0..n).collect();
        let baseline = pooled_negative_binomial(&Team::single(), &data, &cells[..18_000], &cells[18_000..]).unwrap();
        for (got, want) in baseline.theta.iter().zip(truth) {
            // 18,000 cells give the inverse dispersion to about 2 percent (standard error); the draw is fixed.
            assert!((got / want - 1.0).abs() < 0.07, "{:?}", baseline.theta);
        }
        assert!(baseline.theta[4] > 100.0, "{:?}", baseline.theta);
        assert_eq!(baseline.theta[5], THETA_MAX);
        for (got, want) in baseline.rates.iter().zip(rates) {
            assert!((got / want - 1.0).abs() < 0.05);
        }
        // No other inverse dispersion explains the training cells better.
        let block = gathered(&data.counts, &cells[..18_000], 6);
        for g in 0..4 {
            let mu: Vec<f64> = library[..18_000].iter().map(|l| l * baseline.rates[g]).collect();
            let (positions, counts) = block.gene(g);
            let at = |theta| negative_log_likelihood(theta, &mu, positions, counts);
            let best = at(baseline.theta[g]);
            for factor in [0.5, 0.99, 1.01, 2.0] {
                assert!(best < at(baseline.theta[g] * factor), "gene {g}");
            }
        }
    }

    #[test]
    fn intervention_rates_help_where_interventions_act_and_unseen_ones_fall_back() {
        let mut rng = rand::rngs::ChaCha8Rng::seed_from_u64(4);
        let n = 3000;
        let labels: Vec<usize> = (0..n).map(|i| if i < 2800 { i % 3 } else { 3 }).collect();
        let mut table = Vec::new();
        for &a in &labels {
            for g in 0..4 {
                let mean = if a == g { 20.0 } else { 4.0 };
                table.push(Poisson::<f64>::new(mean).unwrap().sample(&mut rng) as u32);
            }
        }
        let data = dataset(4, &table, vec![10.0; n], &labels);
        let cells: Vec<usize> = (0..n).collect();
        let (train, seen, unseen) = (&cells[..2500], &cells[2500..2800], &cells[2800..]);
        let pooled = pooled_negative_binomial(&Team::single(), &data, train, seen).unwrap();
        let grouped = per_intervention_negative_binomial(&Team::single(), &data, train, seen, PSEUDO_CELLS).unwrap();
        assert!(grouped.nll_per_cell < pooled.nll_per_cell - 1.0, "{} {}", grouped.nll_per_cell, pooled.nll_per_cell);
        // The entropy of the truth, four Poissons of means 20, 4, 4, 4, is 0.5 log(2 pi e mean) less 1/(12 mean) each,
        // roughly.
        let entropy = |m: f64| 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E * m).ln() - 1.0 / (12.0 * m);
        let floor = entropy(20.0) * 0.75 + entropy(4.0) * 3.25;
        assert!((grouped.nll_per_cell - floor).abs() < 0.3, "{} {floor}", grouped.nll_per_cell);
        // Unseen: the same rates as the pool, so the two differ through theta alone.
        let fallback = per_intervention_negative_binomial(&Team::single(), &data, train, unseen, PSEUDO_CELLS).unwrap();
        let mu = vec![10.0 * fallback.rates[0]; unseen.len()];
        let block = gathered(&data.counts, unseen, 4);
        let by_hand: f64 = (0..4)
            .map(|g| {
                let mu: Vec<f64> = mu.iter().map(|m| m / fallback.rates[0] * fallback.rates[g]).collect();
                negative_log_likelihood(fallback.theta[g], &mu, block.gene(g).0, block.gene(g).1)
            })
            .sum();
        assert!((fallback.nll_per_cell - by_hand / unseen.len() as f64).abs() < 1e-9);
    }

    #[test]
    fn dispersions_of_a_sample_are_those_of_all_cells_and_rates_stay() {
        let mut rng = rand::rngs::ChaCha8Rng::seed_from_u64(8);
        let n = 12_000;
        let labels: Vec<usize> = (0..n).map(|i| i % 3).collect();
        let mut table = Vec::new();
        for &a in &labels {
            for g in 0..3 {
                // Negative binomials of inverse dispersion 2.
                let noise = Gamma::new(2.0, 0.5).unwrap().sample(&mut rng);
                table
                    .push(Poisson::<f64>::new(noise * if a == g { 9.0 } else { 3.0 }).unwrap().sample(&mut rng) as u32);
            }
        }
        let data = dataset(3, &table, vec![10.0; n], &labels);
        let cells: Vec<usize> = (0..n).collect();
        let (train, validation) = cells.split_at(10_000);
        for pseudo_cells in [None, Some(PSEUDO_CELLS)] {
            let of = |most| {
                let groups = pseudo_cells.map(|p| groups(&data, train, validation, p).unwrap());
                fit(&Team::single(), &data, train, validation, groups, None, most).unwrap()
            };
            let (all, sample) = (of(10_000), of(2_500));
            assert_eq!(all, of(usize::MAX));
            assert_eq!(all.rates, sample.rates);
            assert_ne!(all.theta, sample.theta);
            // The standard error of the sample's estimate is 3 to 4 %, and its square is what the likelihood loses.
            for (one, other) in all.theta.iter().zip(&sample.theta) {
                assert!((one / other - 1.0).abs() < 0.15, "{:?} {:?}", all.theta, sample.theta);
            }
            assert!((all.nll_per_cell - sample.nll_per_cell).abs() < 3e-3, "{all:?} {sample:?}");
        }
    }

    #[test]
    fn unusable_input_is_refused_in_a_sentence() {
        let data = dataset(2, &[1, 2, 3, 4], vec![3.0, 0.0], &[0, 0]);
        let message = |r: Result<Baseline>| r.unwrap_err().to_string();
        assert!(message(pooled_negative_binomial(&Team::single(), &data, &[], &[0])).contains("no training cells"));
        assert!(message(pooled_negative_binomial(&Team::single(), &data, &[0], &[])).contains("no validation cells"));
        assert!(message(pooled_negative_binomial(&Team::single(), &data, &[1], &[0])).contains("libraries"));
        for bad in [0.0, -1.0, f64::NAN] {
            assert!(
                message(per_intervention_negative_binomial(&Team::single(), &data, &[0], &[0], bad))
                    .contains("pseudo-count")
            );
        }
    }

    proptest! {
        /// The derivative formulas inside `fit_theta` lead to the top of the likelihood that `negative_log_likelihood`
        /// computes.
        #[test]
        fn no_nearby_theta_is_better(
            counts in prop::collection::vec(prop_oneof![Just(0u32), 0u32..6, 0u32..3000], 2..200), rate in 0.01f64..20.0,
        ) {
            let total: u32 = counts.iter().sum();
            prop_assume!(total > 0);
            let library: Vec<f64> = (0..counts.len()).map(|i| 1.0 + (i % 7) as f64 * rate).collect();
            let scale = total as f64 / library.iter().sum::<f64>();
            let mu: Vec<f64> = library.iter().map(|l| l * scale).collect();
            let positions: Vec<u32> = (0..counts.len() as u32).filter(|&i| counts[i as usize] > 0).collect();
            let values: Vec<u32> = counts.iter().copied().filter(|&x| x > 0).collect();
            let theta = fit_theta(&mu, &positions, &values);
            prop_assert!((THETA_MIN * 0.999..=THETA_MAX * 1.001).contains(&theta));
            let best = negative_log_likelihood(theta, &mu, &positions, &values);
            for factor in [0.9, 1.1] {
                let other = (theta * factor).min(THETA_MAX);
                let there = negative_log_likelihood(other, &mu, &positions, &values);
                prop_assert!(best <= there + 1e-9 * best.abs(), "{} at {}: {} {}", theta, other, best, there);
            }
        }
    }
}
