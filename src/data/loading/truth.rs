//! The truth of a simulation, where a file holds it.

use crate::data::dataset::{TrueInteraction, Truth};
use crate::data::formats::screen_file::{RawTruth, ScreenFile};
use crate::error::Result;

/// The truth of a file, for the levels of its labels.
pub(crate) struct StoredTruth {
    truth: Truth,
    /// Row of `prior_means` of each level.
    rows: Vec<usize>,
}

impl StoredTruth {
    /// That of the cells that are used (of all, if `cells` is absent) and of the given levels.
    pub fn select(self, cells: Option<&[usize]>, levels: impl Iterator<Item = usize>) -> Truth {
        let Self { mut truth, rows } = self;
        let l = truth.n_latents;
        let select = |values: &[f64], n: usize| values[n * l..(n + 1) * l].to_vec();
        if let Some(cells) = cells {
            truth.latents = cells.iter().flat_map(|&n| select(&truth.latents, n)).collect();
            if !truth.escaped.is_empty() {
                truth.escaped = cells.iter().map(|&n| truth.escaped[n]).collect();
            }
        }
        truth.prior_means = levels.flat_map(|level| select(&truth.prior_means, rows[level])).collect();
        truth
    }

    /// As [`StoredTruth::select`], where the levels called `stored` are sets of the interventions called `names`, as `parts` tells:
    /// the prior means of levels of one part are those of the interventions, and what those of several parts have beyond the sum
    /// is their interaction. `None` if an intervention has no level of its own.
    pub fn of_sets(
        self,
        cells: Option<&[usize]>,
        names: &[String],
        stored: &[String],
        parts: impl Fn(&str) -> Vec<String>,
    ) -> Option<Truth> {
        let l = self.truth.n_latents;
        let number = |name: &String| names.binary_search(name).ok();
        let mut alone = vec![None; names.len()];
        let mut joint: Vec<(Vec<u32>, usize)> = Vec::new();
        for (level, name) in stored.iter().enumerate() {
            let mut members: Vec<u32> = parts(name).iter().filter_map(|part| Some(number(part)? as u32)).collect();
            members.sort_unstable();
            members.dedup();
            match members[..] {
                [] => {}
                [a] => alone[a as usize] = Some(level),
                _ => joint.push((members, level)),
            }
        }
        let alone: Vec<usize> = alone.into_iter().collect::<Option<_>>()?;
        joint.sort();
        let of_joint: Vec<f64> =
            joint.iter().flat_map(|(_, level)| self.truth.prior_means[self.rows[*level] * l..][..l].to_vec()).collect();
        let mut truth = self.select(cells, alone.into_iter());
        let deviations = joint.into_iter().zip(of_joint.chunks(l)).map(|((members, _), mean)| {
            let sum = truth.prior_mean((&members, &vec![1.0; members.len()]));
            // Sums in another order differ in their last digits.
            let beyond = |(mean, sum): (&f64, &f64)| if (mean - sum).abs() > 1e-9 { mean - sum } else { 0.0 };
            TrueInteraction { members, deviation: mean.iter().zip(&sum).map(beyond).collect() }
        });
        let acts = |of: &TrueInteraction| of.deviation.iter().any(|d| *d != 0.0);
        truth.interactions = deviations.filter(acts).collect();
        Some(truth)
    }
}

/// The truth, if stored, for so many levels of the labels, with the numbers that they stand for; `None` (and a note) if it does
/// not fit.
///
/// # Errors
/// What the file's reader says of arrays that are damaged.
pub(crate) fn read_truth(
    file: &dyn ScreenFile,
    n_cells: usize,
    (n_levels, numbers): (usize, Option<&[i64]>),
    notes: &mut Vec<String>,
) -> Result<Option<StoredTruth>> {
    let Some(RawTruth { latents, prior_means, escaped }) = file.truth()? else { return Ok(None) };
    let ([n_rows, n_latents], [n_means, also]) = (&latents.0[..], &prior_means.0[..]) else {
        notes.push("the stored truth is ignored: latents and prior means are not tables".to_string());
        return Ok(None);
    };
    let finite = latents.1.iter().chain(&prior_means.1).all(|x| x.is_finite());
    // Numbered interventions number the rows too; named ones are counted.
    let by_number = numbers.and_then(|numbers| {
        numbers.iter().map(|&a| usize::try_from(a).ok().filter(|a| a < n_means)).collect::<Option<Vec<usize>>>()
    });
    let level_rows = by_number.or_else(|| (*n_means == n_levels).then(|| (0..n_levels).collect()));
    match level_rows {
        Some(rows) if *n_rows == n_cells && n_latents == also && *n_latents > 0 && finite => {
            let escaped: Vec<bool> = escaped.unwrap_or_default().iter().map(|&escaped| escaped != 0.0).collect();
            if !(escaped.is_empty() || escaped.len() == n_cells) {
                let n = escaped.len();
                notes.push(format!(
                    "the stored truth is ignored: it says of {n} cells whether they escaped, not {n_cells}"
                ));
                return Ok(None);
            }
            let truth = Truth {
                n_latents: *n_latents,
                latents: latents.1,
                prior_means: prior_means.1,
                escaped,
                interactions: Vec::new(),
            };
            Ok(Some(StoredTruth { truth, rows }))
        }
        _ => {
            notes.push(format!(
                "the stored truth is ignored: latents {:?} and prior means {:?} do not fit {n_cells} cells under \
                 {n_levels} interventions, or are not finite",
                latents.0, prior_means.0
            ));
            Ok(None)
        }
    }
}
