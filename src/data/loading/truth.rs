//! The truth of a simulation, where a file holds it.

use crate::data::dataset::Truth;
use crate::data::formats::column::Levels;
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
}

/// The truth, if stored; `None` (and a note) if it does not fit.
///
/// # Errors
/// What the file's reader says of arrays that are damaged.
pub(crate) fn read_truth(
    file: &dyn ScreenFile,
    n_cells: usize,
    labels: &Levels,
    notes: &mut Vec<String>,
) -> Result<Option<StoredTruth>> {
    let Some(RawTruth { latents, prior_means, escaped }) = file.truth()? else { return Ok(None) };
    let ([n_rows, n_latents], [n_means, also]) = (&latents.0[..], &prior_means.0[..]) else {
        notes.push("the stored truth is ignored: latents and prior means are not tables".to_string());
        return Ok(None);
    };
    let finite = latents.1.iter().chain(&prior_means.1).all(|x| x.is_finite());
    let n_levels = labels.names.len();
    // Numbered interventions number the rows too; named ones are counted.
    let by_number = labels.numbers.as_ref().and_then(|numbers| {
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
