//! Bounds of held-out combinations beside those of combinations that were trained on. Derivation: `derivations/judgement.md`.

use serde::Serialize;

use crate::data::combinations::Combination;
use crate::data::screen::Screen;
use crate::error::Result;
use crate::evaluation::oracle::true_nll;
use crate::evaluation::predictions::judged::{judged_combinations, of_known_members};
use crate::inference::bounds::BoundsRequest;
use crate::inference::loadings::spread;
use crate::inference::{Inference, evaluation_workspace};
use crate::model::network::Network;
use crate::model::particles::Samples;
use crate::numerics::real::Real;
use crate::parallel::team::Team;

/// Cells of either kind that are compared, at most, and samples of each.
const MOST_CELLS: usize = 1000;
const MOST_PARTICLES: usize = 500;

/// The importance-weighted bound of held-out cells by both definitions, nats per cell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct HeldOutBounds {
    /// Mean within each combination first, then over combinations.
    pub by_combination: f64,
    /// Mean over all cells.
    pub by_cell: f64,
    /// How cells of combinations that were not seen compare with those of combinations that were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generalisation: Option<Generalisation>,
}

/// Bounds of the cells of combinations of several interventions, means over some cells, nats per cell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Generalisation {
    /// Of held-out combinations.
    pub unseen: CellBounds,
    /// Of validation cells of combinations that were trained on.
    pub seen: CellBounds,
    /// How much more a cell of an unseen combination lies above the true model than one of a seen combination, Eq. (J11); where the true
    /// model is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}

/// Bounds of some cells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CellBounds {
    /// Number of cells.
    pub n_cells: usize,
    /// Mean importance-weighted bound, nats per cell.
    pub nll_iwelbo: f64,
    /// Mean negative log-likelihood of the same cells by the true model, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_model: Option<f64>,
}

impl HeldOutBounds {
    /// Of these bounds, to a billionth of a nat: what is read from a file may differ in its last digit from what was written.
    pub fn new(by_combination: f64, by_cell: f64) -> Self {
        Self { by_combination: rounded(by_combination), by_cell: rounded(by_cell), generalisation: None }
    }
}

fn rounded(bound: f64) -> f64 {
    (bound * 1e9).round() / 1e9
}

/// Compares the cells of the combinations that are judged with validation cells of combinations of several interventions that were
/// trained on; `None` where there are none of either.
///
/// # Errors
/// Counts on disk that cannot be read.
pub fn generalisation<R: Real>(
    team: &Team,
    network: &Network<R>,
    screen: &Screen,
    particles: usize,
    seed: u64,
) -> Result<Option<Generalisation>> {
    let Screen { data, split, .. } = screen;
    let cells_of = |combinations: Vec<Combination>| -> Vec<usize> {
        combinations.into_iter().flat_map(|combination| combination.cells).collect()
    };
    let known = |combination: &Combination| of_known_members(combination, &split.trained);
    let seen = data.combinations(split.validation.iter().copied()).into_iter().filter(known).collect();
    let [unseen, seen] = [judged_combinations(screen), seen].map(|of| spread(&cells_of(of), MOST_CELLS));
    if unseen.is_empty() || seen.is_empty() {
        return Ok(None);
    }
    let mut workspace = evaluation_workspace(network, data);
    let mut inference = Inference { team, network, data, workspace: &mut workspace };
    let mut of = |cells: &[usize]| -> Result<CellBounds> {
        let posterior = inference.posterior(cells)?;
        let samples = Samples { posterior: &posterior, particles: particles.min(MOST_PARTICLES), seed };
        let bounds = inference.bounds(&BoundsRequest { cells, samples })?;
        let n = cells.len() as f64;
        let truth = screen.generating.as_ref().and_then(|generating| true_nll(team, data, generating, cells, seed));
        Ok(CellBounds {
            n_cells: cells.len(),
            nll_iwelbo: rounded(bounds.iter().map(|bound| bound.iwelbo).sum::<f64>() / n),
            true_model: truth.map(|nll| rounded(nll.iter().sum::<f64>() / n)),
        })
    };
    let (unseen, seen) = (of(&unseen)?, of(&seen)?);
    let above = |bounds: CellBounds| bounds.true_model.map(|truth| bounds.nll_iwelbo - truth);
    let cost = above(unseen).zip(above(seen)).map(|(unseen, seen)| rounded(unseen - seen));
    Ok(Some(Generalisation { unseen, seen, cost }))
}
