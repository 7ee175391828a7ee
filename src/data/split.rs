//! Splits cells into those that train and those that validate.

use std::collections::BTreeSet;

use rand::seq::SliceRandom;

use crate::data::combinations::{joint_label, joint_members, joint_sets};
use crate::data::dataset::InterventionRows;
use crate::error::{InputError, Result};
use crate::numerics::random::{SamplerPurpose, sampler_stream};

/// What is held out of a screen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeldOut {
    /// Interventions, with every combination of which they are members; ascending.
    pub interventions: Vec<usize>,
    /// Combinations, by their members (two or more, ascending), at whatever doses.
    pub combinations: BTreeSet<Vec<u32>>,
}

impl HeldOut {
    /// A share of the combinations of these cells: rounded, and at least one. All choices of so many are as likely; that of a seed
    /// depends on the `names` of the interventions, not on their numbers.
    pub fn share_of_combinations(rows: &InterventionRows, names: &[String], share: f64, seed: u64) -> Self {
        let mut sets: Vec<Vec<u32>> = joint_sets(rows).into_iter().collect();
        sets.sort_by_cached_key(|members| joint_label(names, members));
        sets.shuffle(&mut sampler_stream(seed, SamplerPurpose::HeldOutCombinations, 0));
        sets.truncate(((share * sets.len() as f64).round() as usize).max(1));
        Self { interventions: Vec::new(), combinations: sets.into_iter().collect() }
    }
}

/// Which cells of a screen train, validate and are held out, by number, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenSplit {
    /// Cells that train.
    pub train: Vec<usize>,
    /// Cells that validate.
    pub validation: Vec<usize>,
    /// Cells under any held-out intervention or combination.
    pub held_out: Vec<usize>,
    /// The interventions that no cell in training has seen: those held out, and members of held-out combinations that come in no
    /// other cell. Ascending.
    pub held_out_interventions: Vec<usize>,
    /// The held-out combinations, by their members.
    pub held_out_combinations: BTreeSet<Vec<u32>>,
    /// Of `held_out_interventions`, those that held-out combinations alone contain.
    pub unseen_members: Vec<usize>,
    /// Whether each intervention is trained on.
    pub trained: Vec<bool>,
}

/// Fewest cells to train on: those of the smallest minibatch.
const FEWEST_CELLS: usize = 3;

impl ScreenSplit {
    /// Splits cells under `interventions`, of which there are `n_interventions`: those under a held-out intervention or combination
    /// are held out, `validation_fraction` of the others validate. `source` is the name of the screen for messages.
    ///
    /// # Errors
    /// [`InputError`] if too few cells are left to train on; as [`split`].
    pub fn new(
        source: &str,
        interventions: &InterventionRows,
        n_interventions: usize,
        held_out: HeldOut,
        validation_fraction: f64,
        seed: u64,
    ) -> Result<Self> {
        let HeldOut { interventions: mut held_out_interventions, combinations: held_out_combinations } = held_out;
        let mut trained = vec![true; n_interventions];
        held_out_interventions.iter().for_each(|&a| trained[a] = false);
        let in_training = |&n: &usize| {
            let members = interventions.row(n).0;
            members.iter().all(|&a| trained[a as usize])
                && joint_members(members).is_none_or(|members| !held_out_combinations.contains(&members))
        };
        let (cells, held_out): (Vec<usize>, Vec<usize>) = (0..interventions.n_cells()).partition(in_training);
        let unseen_members = unseen(interventions, &cells, &held_out_combinations, &trained);
        unseen_members.iter().for_each(|&a| trained[a] = false);
        held_out_interventions.extend(&unseen_members);
        held_out_interventions.sort_unstable();
        let (train, validation) = split(&cells, validation_fraction, seed)?;
        if train.len() < FEWEST_CELLS {
            let problem = format!("only {} cells are left to train on", train.len());
            return Err(InputError::new(problem, "hold out less, or bring more cells").in_file(source).into());
        }
        Ok(Self { train, validation, held_out, held_out_interventions, held_out_combinations, unseen_members, trained })
    }
}

/// Members of held-out combinations that are not held out themselves, yet come in none of `cells`; ascending.
fn unseen(
    interventions: &InterventionRows,
    cells: &[usize],
    combinations: &BTreeSet<Vec<u32>>,
    trained: &[bool],
) -> Vec<usize> {
    let mut members: BTreeSet<u32> = combinations.iter().flatten().copied().filter(|&a| trained[a as usize]).collect();
    for &n in cells {
        if members.is_empty() {
            break;
        }
        interventions.row(n).0.iter().for_each(|a| {
            members.remove(a);
        });
    }
    members.into_iter().map(|a| a as usize).collect()
}

/// Splits `cells` into (train, validation), both ascending; the choice depends on `seed` and on which cells are
/// given, not on their order.
///
/// `validation_fraction` of the cells, rounded down, validate; at least one if the fraction is above zero.
///
/// # Errors
/// [`InputError`] if the fraction is not within [0, 1) or no cell is left to train on.
pub fn split(cells: &[usize], validation_fraction: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    if !(0.0..1.0).contains(&validation_fraction) {
        return Err(InputError::new(
            format!("the validation fraction is {validation_fraction}"),
            "choose a number from 0 up to, but below, 1",
        )
        .into());
    }
    let mut shuffled = cells.to_vec();
    shuffled.sort_unstable();
    let n = shuffled.len();
    // 0.1 * 10 must give 1 although 0.1 is not a tenth.
    let mut n_validation = (n as f64 * validation_fraction + 1e-9) as usize;
    if validation_fraction > 0.0 {
        n_validation = n_validation.max(1);
    }
    if n <= n_validation {
        return Err(InputError::new(
            format!("of {n} cells {} would validate, and none is left to train on", n_validation.min(n)),
            "give more cells or a smaller validation fraction",
        )
        .into());
    }
    shuffled.shuffle(&mut sampler_stream(seed, SamplerPurpose::Split, 0));
    let mut train = shuffled.split_off(n_validation);
    train.sort_unstable();
    shuffled.sort_unstable();
    Ok((train, shuffled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_lands_on_exactly_one_side() {
        let cells: Vec<usize> = (0..1000).filter(|n| n % 3 != 0).collect();
        let (train, validation) = split(&cells, 0.1, 7).unwrap();
        assert_eq!(validation.len(), 66);
        assert!(train.is_sorted() && validation.is_sorted());
        let mut all = [train.clone(), validation.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, cells);

        let reversed: Vec<usize> = cells.iter().rev().copied().collect();
        assert_eq!(split(&reversed, 0.1, 7).unwrap(), (train, validation.clone()));
        assert_ne!(split(&cells, 0.1, 8).unwrap().1, validation);
        // A shuffled choice, not a run of neighbours: the mean of 66 of 0..1000 has standard deviation 34.
        let mean = validation.iter().sum::<usize>() as f64 / 66.0;
        assert!((mean - 500.0).abs() < 4.0 * 34.0, "mean {mean}");
    }

    #[test]
    fn a_held_out_combination_leaves_its_members_in_and_says_which_are_unseen() {
        // Singles 0, 1 and pairs 0+1, 1+0 (the same), 1+2, 0+1 at another dose; 2 comes in no cell of its own.
        let mut rows = InterventionRows::default();
        let kinds: [&[(u32, f32)]; 6] = [
            &[(0, 1.0)],
            &[(1, 1.0)],
            &[(0, 1.0), (1, 1.0)],
            &[(1, 1.0), (0, 1.0)],
            &[(1, 1.0), (2, 1.0)],
            &[(0, 0.5), (1, 1.0)],
        ];
        (0..60).for_each(|n| rows.push(kinds[n % 6]));
        let held_out = |sets: &[&[u32]]| HeldOut {
            interventions: Vec::new(),
            combinations: sets.iter().map(|set| set.to_vec()).collect(),
        };
        let split = |held_out| ScreenSplit::new("", &rows, 3, held_out, 0.1, 0).expect("enough");
        let found = split(held_out(&[&[0, 1]]));
        assert!(found.held_out.iter().all(|n| [2, 3, 5].contains(&(n % 6))) && found.held_out.len() == 30);
        assert!(found.held_out_interventions.is_empty() && found.unseen_members.is_empty());
        assert_eq!(found.trained, [true; 3]);
        let found = split(held_out(&[&[1, 2]]));
        assert_eq!((found.held_out.len(), &found.unseen_members[..]), (10, &[2][..]));
        assert_eq!((&found.held_out_interventions[..], &found.trained[..]), (&[2][..], &[true, true, false][..]));

        let names = ["x", "y", "z"].map(str::to_owned);
        let share = |share, seed| HeldOut::share_of_combinations(&rows, &names, share, seed).combinations;
        assert_eq!(share(1.0, 0).len(), 2);
        assert_eq!(share(0.0, 0).len(), 1);
        assert_eq!(share(0.5, 4), share(0.5, 4));
        assert!((0..20).any(|seed| share(0.5, seed) != share(0.5, 4)), "it depends on the seed");
    }

    #[test]
    fn small_and_absurd_fractions() {
        assert_eq!(split(&[4, 9], 0.01, 0).unwrap().1.len(), 1);
        assert_eq!(split(&[4, 9], 0.0, 0).unwrap(), (vec![4, 9], vec![]));
        assert_eq!(split(&(0..10).collect::<Vec<_>>(), 0.1, 0).unwrap().1.len(), 1);
        assert_eq!(split(&(0..30).collect::<Vec<_>>(), 0.7, 0).unwrap().1.len(), 21);
        assert!(split(&[4], 0.1, 0).unwrap_err().to_string().contains("none is left"));
        assert!(split(&[], 0.0, 0).is_err());
        for fraction in [1.0, -0.1, f64::NAN] {
            assert!(split(&[1, 2, 3], fraction, 0).is_err());
        }
    }
}
