//! Mean log expression of combinations: of cells under them, and of what training cells tell of their members.

use crate::data::combinations::Combination;
use crate::data::dataset::Dataset;
use crate::data::split::ScreenSplit;
use crate::error::Result;
use crate::inference::prediction::log_normalise;

/// ln(1 + 1e4 x / t) of some cells, cells x genes, in single precision.
#[derive(Debug, Clone, PartialEq)]
pub struct LogExpression {
    /// Number of genes, G.
    pub n_genes: usize,
    /// cells x G, row-major.
    pub values: Vec<f32>,
}

impl LogExpression {
    /// Of `cells`, in that order.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn of(data: &Dataset, cells: &[usize]) -> Result<Self> {
        let mut values = Vec::with_capacity(cells.len() * data.n_genes());
        each_log_expression(data, cells, |row| values.extend(row.iter().map(|&x| x as f32)))?;
        Ok(Self { n_genes: data.n_genes(), values })
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.values.len() / self.n_genes
    }

    /// The cells, one after another.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.n_genes)
    }

    /// Mean over the cells, each counted `times` often.
    ///
    /// # Panics
    /// If `times` does not have a number for each cell.
    pub fn mean_weighted(&self, times: &[u32]) -> Vec<f64> {
        assert_eq!(times.len(), self.n_cells(), "a number for each cell");
        let mut mean = vec![0.0; self.n_genes];
        for (row, &times) in self.rows().zip(times).filter(|(_, times)| **times > 0) {
            let times = f64::from(times);
            mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += times * f64::from(x));
        }
        let n: f64 = times.iter().map(|&times| f64::from(times)).sum();
        mean.iter_mut().for_each(|mean| *mean /= n);
        mean
    }

    /// Every second cell, from `first` (0 or 1) on.
    pub fn half(&self, first: usize) -> Self {
        let values = self.rows().skip(first).step_by(2).flatten().copied().collect();
        Self { n_genes: self.n_genes, values }
    }

    /// At most so many cells, evenly spread.
    pub fn spread(&self, most: usize) -> Self {
        let step = self.n_cells().div_ceil(most).max(1);
        Self { n_genes: self.n_genes, values: self.rows().step_by(step).flatten().copied().collect() }
    }

    /// Mean and variance over the cells of each gene.
    pub fn moments(&self) -> (Vec<f64>, Vec<f64>) {
        let n = self.n_cells() as f64;
        let mean = self.mean_weighted(&vec![1; self.n_cells()]);
        let mut variance = vec![0.0; self.n_genes];
        for row in self.rows() {
            for ((variance, mean), &x) in variance.iter_mut().zip(&mean).zip(row) {
                *variance += (f64::from(x) - mean).powi(2);
            }
        }
        variance.iter_mut().for_each(|variance| *variance /= (n - 1.0).max(1.0));
        (mean, variance)
    }
}

/// Calls `f` with the log expression (G) of each of `cells`, in their order.
fn each_log_expression(data: &Dataset, cells: &[usize], mut f: impl FnMut(&[f64])) -> Result<()> {
    let mut expression = vec![0.0; data.n_genes()];
    data.counts.visit(cells, |_, row| {
        expression.fill(0.0);
        row.for_each(|gene, count| expression[gene] = f64::from(count));
        log_normalise(&mut expression);
        f(&expression);
    })
}

/// Mean log expression of a combination.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The combination, with the cells whose mean it is.
    pub combination: Combination,
    /// Mean log expression, G.
    pub mean: Vec<f64>,
    /// Sum over cells of squared differences from it, G.
    pub squares: Vec<f64>,
}

/// What the training cells tell of interventions.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingProfiles {
    /// What effects are differences from: the mean of the control cells or, where there are none, [`TrainingProfiles::centroid`].
    pub reference: Vec<f64>,
    /// The training cells of control; of all training cells, where there are none.
    pub reference_cells: Vec<usize>,
    /// Whether there are control cells.
    pub has_controls: bool,
    /// Mean of the profiles of all combinations of one intervention or more.
    pub centroid: Vec<f64>,
    /// Their profiles.
    pub profiles: Vec<Profile>,
    /// Effect of each intervention at dose 1 by its own cells, Eq. (J2), G; `None` where it has none.
    pub effects: Vec<Option<Vec<f64>>>,
}

impl TrainingProfiles {
    /// Of the training cells of a screen.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn new(data: &Dataset, split: &ScreenSplit) -> Result<Self> {
        let mut profiles = Vec::new();
        let mut control = None;
        for combination in data.combinations(split.train.iter().copied()) {
            let (mean, squares) = mean_and_squares(data, &combination.cells)?;
            let without = combination.members.is_empty();
            let profile = Profile { combination, mean, squares };
            match without {
                true => control = Some(profile),
                false => profiles.push(profile),
            }
        }
        let mut centroid = vec![0.0; data.n_genes()];
        for profile in &profiles {
            centroid.iter_mut().zip(&profile.mean).for_each(|(sum, x)| *sum += x / profiles.len() as f64);
        }
        let has_controls = control.is_some();
        let (reference, reference_cells) = match control {
            Some(control) => (control.mean, control.combination.cells),
            None => (centroid.clone(), split.train.clone()),
        };
        let effects = effects(data.n_interventions(), &profiles, &reference);
        Ok(Self { reference, reference_cells, has_controls, centroid, profiles, effects })
    }
}

/// Mean log expression of cells and the sum over cells of squared differences from it, G each, without a table of them.
fn mean_and_squares(data: &Dataset, cells: &[usize]) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut mean, mut squares) = (vec![0.0; data.n_genes()], vec![0.0; data.n_genes()]);
    each_log_expression(data, cells, |row| {
        for ((mean, squares), x) in mean.iter_mut().zip(&mut squares).zip(row) {
            *mean += x;
            *squares += x * x;
        }
    })?;
    let n = cells.len() as f64;
    for (mean, squares) in mean.iter_mut().zip(&mut squares) {
        *mean /= n;
        *squares = (*squares - n * *mean * *mean).max(0.0);
    }
    Ok((mean, squares))
}

/// The least squares through the reference of each intervention's own profiles on their doses, Eq. (J2), by cells.
fn effects(n_interventions: usize, profiles: &[Profile], reference: &[f64]) -> Vec<Option<Vec<f64>>> {
    let mut sums: Vec<Option<(f64, Vec<f64>)>> = vec![None; n_interventions];
    for Profile { combination, mean, .. } in profiles {
        let [(a, dose)] = combination.members[..] else { continue };
        let (dose, n) = (f64::from(dose), combination.cells.len() as f64);
        let (squares, sum) = sums[a as usize].get_or_insert_with(|| (0.0, vec![0.0; reference.len()]));
        *squares += n * dose * dose;
        for (sum, (mean, reference)) in sum.iter_mut().zip(mean.iter().zip(reference)) {
            *sum += n * dose * (mean - reference);
        }
    }
    let effect = |sum: Option<(f64, Vec<f64>)>| {
        let (squares, mut sum) = sum.filter(|(squares, _)| *squares > 0.0)?;
        sum.iter_mut().for_each(|x| *x /= squares);
        Some(sum)
    };
    sums.into_iter().map(effect).collect()
}
