//! A network beside the linear model of the same cells: what the simpler one finds as well, and which of them fits better.

use std::collections::BTreeSet;

use crate::data::dataset::Dataset;
use crate::data::screen::Screen;
use crate::error::Result;
use crate::evaluation::certainty::edges_found;
use crate::evaluation::correlation::{Correlation, Latents};
use crate::evaluation::mcc::mcc;
use crate::evaluation::metrics::LinearMetrics;
use crate::evaluation::recovery::Recovery;
use crate::evaluation::target_graph::{score_targets, targets_from_prior_means};
use crate::inference::linear::{LinearInference, LinearModel};
use crate::inference::trained_model::TrainedModel;
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::settings::Settings;

/// Cells whose latents are held at double precision at once.
const CELLS_AT_A_TIME: usize = 8192;

/// The linear model beside `network`, whose bound on the validation cells is `bound`, nats per cell; `None` on all ranks but the
/// first.
///
/// # Errors
/// Counts on disk that cannot be read.
pub fn linear_rival<R: Real>(
    team: &Team,
    config: &Settings,
    screen: &Screen,
    network: &mut impl TrainedModel<R>,
    bound: f64,
) -> Result<Option<LinearMetrics>> {
    let Screen { data, split, .. } = screen;
    let (l, seed) = (config.model.latents, config.execution.seed);
    if !team.ranks().is_first() {
        network.posterior_means(&split.train)?;
        return Ok(None);
    }
    // Before there are posterior means: it holds some of its own.
    let linear = LinearModel::fit(team, data, &split.train, config.linear_settings())?;
    let means = network.posterior_means(&split.train)?;
    let mut model = LinearInference { team, model: &linear, data };
    // No more precisely, and in no more memory, than those of the network.
    let mut linear_means = Vec::with_capacity(means.len());
    for cells in split.train.chunks(CELLS_AT_A_TIME) {
        linear_means.extend(model.posterior_means(cells)?.into_iter().map(R::from_f64));
    }
    let found = |means: &[R]| -> BTreeSet<(usize, usize)> {
        let edges = edges_found(team, data, &split.train, means, config.output.fdr, seed);
        edges.iter().map(|edge| (edge.intervention, edge.latent)).collect()
    };
    let (of_network, of_linear) = (found(&means), found(&linear_means));
    let matched = mcc(team, Latents::new(&means, l), Latents::new(&linear_means, l), Correlation::Pearson);
    let n_shared = shared(&of_network, &of_linear, &matched.pairs);
    drop((means, linear_means));
    let objective = config.objective(data.n_interventions(), split.train.len());
    let bound_validation = model.elbo(&split.validation, &objective, seed)?.total;
    let (mcc_pearson, f1) = match recovered(team, data, &mut model, &split.trained)? {
        Some((mcc, f1)) => (Some(mcc), Some(f1)),
        None => (None, None),
    };
    Ok(Some(LinearMetrics {
        n_edges: of_linear.len(),
        n_edges_of_network: of_network.len(),
        n_shared,
        bound_validation: Some(bound_validation).filter(|bound| bound.is_finite()),
        advantage_of_network: Some(bound_validation - bound).filter(|gap| gap.is_finite()),
        mcc_pearson,
        f1,
    }))
}

/// How many edges of one graph the other has too, given which latents match.
fn shared(
    of_network: &BTreeSet<(usize, usize)>,
    of_linear: &BTreeSet<(usize, usize)>,
    pairs: &[(usize, usize)],
) -> usize {
    let partner = |latent: usize| pairs.iter().find(|&&(network, _)| network == latent).map(|&(_, linear)| linear);
    of_network.iter().filter(|&&(a, k)| partner(k).is_some_and(|linear| of_linear.contains(&(a, linear)))).count()
}

/// Mean correlation coefficient and corrected F1 of the linear model, where the truth is known.
fn recovered(
    team: &Team,
    data: &Dataset,
    model: &mut LinearInference<'_>,
    trained: &[bool],
) -> Result<Option<(f64, f64)>> {
    let Some(truth) = &data.truth else { return Ok(None) };
    let all: Vec<usize> = (0..data.n_cells()).collect();
    let means = model.posterior_means(&all)?;
    let recovery = Recovery::new(data, &means, model.n_latents(), |a| trained[a]).expect("the truth is known");
    let pearson = recovery.mcc(team, Correlation::Pearson);
    let masks = model.prior().masks_on().expect("a linear model has masks");
    let targets = targets_from_prior_means(&truth.prior_means);
    let scores = score_targets(&targets, &masks, &pearson.correlation, trained);
    Ok(Some((pearson.mean, scores.corrected.f1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_edges_are_those_into_matched_latents() {
        let network = BTreeSet::from([(0, 0), (0, 1), (1, 1), (2, 2)]);
        let linear = BTreeSet::from([(0, 1), (1, 0), (2, 2), (2, 1)]);
        // Latent 0 of the network is 1 of the linear model, 1 is 0, 2 has no partner.
        assert_eq!(shared(&network, &linear, &[(0, 1), (1, 0)]), 2);
        assert_eq!(shared(&network, &linear, &[]), 0);
    }
}
