//! Which combinations do something else than the sum of what their members do. Derivation: `derivations/judgement.md`.

use std::collections::BTreeMap;

use rand::RngExt;
use serde::Serialize;

use crate::data::dataset::Dataset;
use crate::data::split::ScreenSplit;
use crate::error::Result;
use crate::evaluation::held_out::TOO_FEW_CELLS;
use crate::evaluation::predictions::profiles::{LogExpression, TrainingProfiles};
use crate::inference::loadings::spread;
use crate::numerics::random::{SamplerPurpose, sampler_stream};
use crate::parallel::team::{Team, tiles};

/// Resamples of the cells.
pub const RESAMPLES: usize = 200;
/// False discovery rate up to which a combination counts as not additive.
const RATE: f64 = 0.05;
/// Control cells that are resampled, at most.
const MOST_CONTROLS: usize = 2000;

/// How far a combination is from the sum of its members.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NonAdditive {
    /// Its label.
    pub combination: String,
    /// Its cells.
    pub n_cells: usize,
    /// Whether they were held out.
    pub held_out: bool,
    /// Root mean square over genes of its difference from control in log expression.
    pub effect: f64,
    /// The same of its difference from the sum.
    pub deviation: f64,
    /// The same of what resampling the cells makes of a deviation of 0.
    pub noise: f64,
    /// Share of the resamples whose noise reaches the deviation.
    pub p_value: f64,
    /// The smallest false discovery rate (Benjamini and Hochberg) at which it is found.
    pub q_value: f64,
    /// Whether it is found at 5 %.
    pub non_additive: bool,
}

/// How far every combination of a screen is from the sum of its members, where all have cells of their own at dose 1: training cells,
/// or held-out cells of the combination. Without control cells there is no sum.
///
/// # Errors
/// Counts on disk that cannot be read.
pub fn non_additive(
    team: &Team,
    data: &Dataset,
    split: &ScreenSplit,
    training: &TrainingProfiles,
    seed: u64,
) -> Result<Vec<NonAdditive>> {
    if !training.has_controls {
        return Ok(Vec::new());
    }
    let g = data.n_genes();
    let single: BTreeMap<u32, &[usize]> = training
        .profiles
        .iter()
        .filter_map(|profile| match profile.combination.members[..] {
            [(a, 1.0)] => Some((a, &profile.combination.cells[..])),
            _ => None,
        })
        .collect();
    let controls = LogExpression::of(data, &spread(&training.reference_cells, MOST_CONTROLS))?;
    let noise_of_controls = resampled(team, &controls, seed, Item::Control);
    let mut noise_of: BTreeMap<u32, (Vec<f64>, Vec<f32>)> = BTreeMap::new();
    let mut found = Vec::new();
    let mut cells: Vec<usize> = split.train.iter().chain(&split.held_out).copied().collect();
    cells.sort_unstable();
    for (number, combination) in data.combinations(cells).into_iter().enumerate() {
        let members = &combination.members;
        let known = members.iter().all(|(a, dose)| *dose == 1.0 && single.contains_key(a));
        if members.len() < 2 || !known || combination.cells.len() <= TOO_FEW_CELLS {
            continue;
        }
        for &(a, _) in members {
            if let std::collections::btree_map::Entry::Vacant(place) = noise_of.entry(a) {
                let cells = LogExpression::of(data, single[&a])?;
                let noise = resampled(team, &cells, seed, Item::Member(a));
                place.insert((cells.mean_weighted(&vec![1; cells.n_cells()]), noise));
            }
        }
        let observed = LogExpression::of(data, &combination.cells)?;
        let noise_of_observed = resampled(team, &observed, seed, Item::Combination(number));
        let mean = observed.mean_weighted(&vec![1; observed.n_cells()]);
        // D = t - sum of the members + (members - 1) control, and the same of the resamples, Eq. (J8).
        let surplus = (members.len() - 1) as f64;
        let reference = &training.reference;
        let mut deviation = vec![0.0; g];
        for (gene, deviation) in deviation.iter_mut().enumerate() {
            let sum: f64 = members.iter().map(|(a, _)| noise_of[a].0[gene]).sum();
            *deviation = mean[gene] - sum + surplus * reference[gene];
        }
        let noise: Vec<f64> = (0..RESAMPLES)
            .map(|b| {
                let at = |gene: usize| b * g + gene;
                let of = |gene: usize| {
                    let sum: f64 = members.iter().map(|(a, _)| f64::from(noise_of[a].1[at(gene)])).sum();
                    f64::from(noise_of_observed[at(gene)]) - sum + surplus * f64::from(noise_of_controls[at(gene)])
                };
                root_mean_square((0..g).map(of))
            })
            .collect();
        let size = root_mean_square(deviation.iter().copied());
        let reached = noise.iter().filter(|&&noise| noise >= size).count();
        found.push(NonAdditive {
            combination: combination.label,
            n_cells: combination.cells.len(),
            held_out: split.held_out.binary_search(&combination.cells[0]).is_ok(),
            effect: root_mean_square(mean.iter().zip(reference).map(|(mean, reference)| mean - reference)),
            deviation: size,
            noise: root_mean_square(noise.iter().copied()),
            p_value: (1 + reached) as f64 / (1 + RESAMPLES) as f64,
            q_value: f64::NAN,
            non_additive: false,
        });
    }
    adjust(&mut found);
    Ok(found)
}

/// Sets the q-values of Benjamini and Hochberg.
fn adjust(found: &mut [NonAdditive]) {
    let n = found.len() as f64;
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by(|&a, &b| found[b].p_value.total_cmp(&found[a].p_value));
    let mut smallest = 1.0f64;
    for (from_last, &i) in order.iter().enumerate() {
        let rank = n - from_last as f64;
        smallest = smallest.min(found[i].p_value * n / rank);
        found[i].q_value = smallest;
        found[i].non_additive = smallest <= RATE;
    }
}

/// What is resampled.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item {
    Control,
    Member(u32),
    Combination(usize),
}

/// How often each of `n` cells comes in a resample.
pub(super) fn resample(n: usize, seed: u64, item: Item, number: usize) -> Vec<u32> {
    let item = match item {
        Item::Control => 1,
        Item::Member(a) => 1 << 27 | a as usize,
        Item::Combination(number) => 1 << 28 | number,
    };
    let mut random = sampler_stream(seed, SamplerPurpose::Resampled, item << 10 | number);
    let mut times = vec![0; n];
    (0..n).for_each(|_| times[random.random_range(0..n)] += 1);
    times
}

/// Deviation of the mean of each resample from the mean of the cells: resamples x G.
fn resampled(team: &Team, cells: &LogExpression, seed: u64, item: Item) -> Vec<f32> {
    let g = cells.n_genes;
    let mean = cells.mean_weighted(&vec![1; cells.n_cells()]);
    let mut deviations = vec![0.0f32; RESAMPLES * g];
    team.run(RESAMPLES, tiles(&mut deviations, g), |b, deviations| {
        let again = cells.mean_weighted(&resample(cells.n_cells(), seed, item, b));
        for (deviation, (again, mean)) in deviations.iter_mut().zip(again.iter().zip(&mean)) {
            *deviation = (again - mean) as f32;
        }
    });
    deviations
}

fn root_mean_square(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    (values.map(|value| value * value).sum::<f64>() / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::InterventionRows;
    use crate::data::simulate::{Simulated, Simulation, simulate};
    use crate::data::split::{HeldOut, ScreenSplit};

    #[test]
    fn q_values_are_those_of_the_procedure() {
        let of = |p_value: f64| NonAdditive {
            combination: String::new(),
            n_cells: 0,
            held_out: false,
            effect: 0.0,
            deviation: 0.0,
            noise: 0.0,
            p_value,
            q_value: 0.0,
            non_additive: false,
        };
        let mut found = [0.01, 0.5, 0.02, 0.04].map(of);
        adjust(&mut found);
        let want = [0.04, 0.5, 0.04, 0.04 * 4.0 / 3.0];
        for (found, want) in found.iter().zip(want) {
            assert!((found.q_value - want).abs() < 1e-12 && found.non_additive == (want <= 0.05));
        }
    }

    #[test]
    fn what_adds_up_by_construction_is_additive_and_what_does_not_is_found() {
        let settings = Simulation {
            n_interventions: 2,
            n_controls: Some(1200),
            cells_per_intervention: 400,
            n_genes: 40,
            n_latents: 4,
            depth: Some(2000),
            shift: Some(2.0),
            ..Simulation::default()
        };
        let Simulated { mut dataset, .. } = simulate(&settings).expect("a simulation");
        // Intervention 2 does nothing, so half of the cells of 0 stand for 0 and 2 together; half of those of 1 stand for 0 and 1, as if
        // 0 did nothing beside 1.
        let mut rows = InterventionRows::default();
        for n in 0..2000 {
            let row: &[(u32, f32)] = match n {
                0..200 => &[(0, 1.0)],
                200..400 => &[(0, 1.0), (2, 1.0)],
                400..600 => &[(1, 1.0)],
                600..800 => &[(0, 1.0), (1, 1.0)],
                800..1400 => &[],
                _ => &[(2, 1.0)],
            };
            rows.push(row);
        }
        dataset.interventions = rows;
        dataset.intervention_names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let split = ScreenSplit::new("", &dataset.interventions, 3, HeldOut::default(), 0.1, 0).expect("enough cells");
        let training = TrainingProfiles::new(&dataset, &split).expect("in memory");
        let on = |threads| {
            Team::with(threads, |team| non_additive(team, &dataset, &split, &training, 1).expect("in memory"))
        };
        let found = on(1);
        assert_eq!(found, on(3));
        let [both, other] = &found[..] else { panic!("{found:?}") };
        assert_eq!((both.combination.as_str(), other.combination.as_str()), ("a+b", "a+c"));
        assert!(both.non_additive && both.deviation > 3.0 * both.noise, "{both:?}");
        assert!(!other.non_additive && other.deviation < 2.0 * other.noise, "{other:?}");
        assert!(other.effect > 3.0 * other.noise, "{other:?}");
        // The noise is that of four means: the variances of their cells over their numbers.
        let of_mean = |cells: &[usize]| {
            let cells = LogExpression::of(&dataset, cells).expect("in memory");
            cells.moments().1.iter().sum::<f64>() / (cells.n_cells() * cells.n_genes) as f64
        };
        let sets = training.profiles.iter().filter(|profile| {
            let members: Vec<u32> = profile.combination.members.iter().map(|&(a, _)| a).collect();
            [&[0][..], &[2], &[0, 2]].contains(&&members[..])
        });
        let expected: f64 = sets.map(|profile| of_mean(&profile.combination.cells)).sum();
        let expected = (expected + of_mean(&training.reference_cells)).sqrt();
        // Of 200 resamples of about four independent parts the mean square has a deviation of 5 %.
        assert!((other.noise / expected - 1.0).abs() < 0.1, "{} {expected}", other.noise);
    }
}
