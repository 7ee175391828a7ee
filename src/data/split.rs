//! Splits cells into those that train and those that validate.

use rand::seq::SliceRandom;

use crate::data::dataset::InterventionRows;
use crate::error::{InputError, Result};
use crate::numerics::random::{SamplerPurpose, sampler_stream};

/// Which cells of a screen train, validate and are held out, by number, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenSplit {
    /// Cells that train.
    pub train: Vec<usize>,
    /// Cells that validate.
    pub validation: Vec<usize>,
    /// Cells under any held-out intervention.
    pub held_out: Vec<usize>,
    /// The held-out interventions.
    pub held_out_interventions: Vec<usize>,
    /// Whether each intervention is trained on.
    pub trained: Vec<bool>,
}

/// Fewest cells to train on: those of the smallest minibatch.
const FEWEST_CELLS: usize = 3;

impl ScreenSplit {
    /// Splits cells under `interventions`, of which there are `n_interventions`: those under a held-out intervention are
    /// held out, `validation_fraction` of the others validate. `source` is the name of the screen for messages.
    ///
    /// # Errors
    /// [`InputError`] if too few cells are left to train on; as [`split`].
    pub fn new(
        source: &str,
        interventions: &InterventionRows,
        n_interventions: usize,
        held_out_interventions: Vec<usize>,
        validation_fraction: f64,
        seed: u64,
    ) -> Result<Self> {
        let mut trained = vec![true; n_interventions];
        held_out_interventions.iter().for_each(|&a| trained[a] = false);
        let in_training = |&n: &usize| interventions.row(n).0.iter().all(|&a| trained[a as usize]);
        let (cells, held_out): (Vec<usize>, Vec<usize>) = (0..interventions.n_cells()).partition(in_training);
        let (train, validation) = split(&cells, validation_fraction, seed)?;
        if train.len() < FEWEST_CELLS {
            let problem = format!("only {} cells are left to train on", train.len());
            return Err(InputError::new(problem, "hold out less, or bring more cells").in_file(source).into());
        }
        Ok(Self { train, validation, held_out, held_out_interventions, trained })
    }
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
