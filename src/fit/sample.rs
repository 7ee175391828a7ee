//! Cells under interventions, simulated by a trained model.

use crate::fit::donors::Donors;
use crate::fit::fitted::{Fitted, TrainedNetwork};

use std::ops::Range;

use rand::RngExt;

use crate::data::combinations::combination_label;
use crate::data::counts::in_memory::{Counts, CountsBuilder};
use crate::data::dataset::{Dataset, InterventionRows};
use crate::data::minibatch::Batch;
use crate::error::Result;
use crate::inference::evaluation_workspace;
use crate::model::network::Network;
use crate::numerics::random::{SamplerPurpose, sampler_stream};
use crate::numerics::real::Real;
use crate::parallel::team::Team;

/// Which cells [`Fitted::sample`] simulates.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRequest {
    /// Interventions that act together.
    pub interventions: Vec<String>,
    /// Number of cells.
    pub cells: usize,
    /// Size factor of all cells; `None`: those of training cells.
    pub size_factor: Option<f64>,
    /// Seed.
    pub seed: u64,
}

impl Default for SampleRequest {
    /// A hundred cells under no intervention.
    fn default() -> Self {
        Self { interventions: Vec::new(), cells: 100, size_factor: None, seed: 0 }
    }
}

/// Simulated cells.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledCells {
    /// The cells, under the one label of their combination.
    pub data: Dataset,
    /// Their latents, cells x L, row-major.
    pub latents: Vec<f64>,
    /// Whether they come from the model that was fitted to held-out interventions.
    pub from_held_out_fit: bool,
}

impl Fitted {
    /// Simulates cells under a combination of interventions (none: without any).
    ///
    /// A cell takes size factor and covariates of a training cell drawn at random, draws its masks, its latents and its
    /// counts as the model says. Where one of the interventions was held out, the model fitted to it is used.
    ///
    /// # Errors
    /// [`crate::InputError`] for an intervention that the model does not know, or that it was never fitted to.
    pub fn sample(&self, request: &SampleRequest) -> Result<SampledCells> {
        let Self { trained_on, settings, .. } = self;
        let chosen =
            trained_on.find(&request.interventions, &trained_on.interventions, "intervention", "--intervention")?;
        if !chosen.is_empty() && !settings.model.method.uses_interventions() {
            let problem = format!("the latents of a {} do not depend on interventions", settings.model.method.name());
            let remedy = "leave --intervention out, or train a model whose prior has shifts (sVAE+, sVAE, iVAE)";
            return Err(trained_on.error_at(problem, remedy, "--intervention"));
        }
        settings.refuse_without_network("sampling of cells").map_err(|error| trained_on.located(error))?;
        let donors = self.donors()?;
        let held_out = chosen.iter().copied().find(|&a| !donors.trained[a]);
        let (data, latents) = match &*self.weights_for(held_out)? {
            TrainedNetwork::Single(network) => self.sample_in(network, request, &chosen, &donors),
            TrainedNetwork::Double(network) => self.sample_in(network, request, &chosen, &donors),
            TrainedNetwork::Linear(_) => unreachable!("refused above"),
        };
        Ok(SampledCells { data, latents, from_held_out_fit: held_out.is_some() })
    }

    /// The cells of a request, and their latents (cells x L).
    fn sample_in<R: Real>(
        &self,
        network: &Network<R>,
        request: &SampleRequest,
        chosen: &[usize],
        donors: &Donors,
    ) -> (Dataset, Vec<f64>) {
        let Self { trained_on, settings, .. } = self;
        let names = (0..request.cells).map(|n| format!("simulated_{n}")).collect();
        let mut data = trained_on.dataset(Counts::from_dense(trained_on.genes.len(), &[]), names);
        let members: Vec<(u32, f32)> = chosen.iter().map(|&a| (a as u32, 1.0)).collect();
        let (numbers, doses): (Vec<u32>, Vec<f32>) = members.iter().copied().unzip();
        let label = combination_label(&trained_on.interventions, &numbers, &doses);
        data.interventions = InterventionRows::one_hot(vec![0; request.cells]);
        data.intervention_names = vec![label];
        let mut z = Vec::with_capacity(request.cells * settings.model.latents);
        for n in 0..request.cells {
            let mut random = sampler_stream(request.seed, SamplerPurpose::ModelLatents, n);
            let donor = donors.cells[random.random_range(0..donors.cells.len())];
            donors.give(donor, request.size_factor, &mut data, n);
            network.draw_latents(&members, None, &mut random, &mut z);
        }
        data.counts = Team::with(settings.n_threads(), |team| {
            draw_counts(team, network, &data, (0..request.cells, &z), |n| ((request.seed, n), None))
        })
        .into();
        (data, z.iter().map(|z| z.to_f64()).collect())
    }
}

/// From which seed and stream of it a cell is drawn, and by which factor the mean of each gene (G) is moved.
pub(super) type Draw<'a> = ((u64, usize), Option<&'a [f64]>);

/// Draws the counts of a range of cells of `data` from their latents (so many x L); `draw` says how those of a cell are.
pub(super) fn draw_counts<'a, R: Real>(
    team: &Team,
    network: &Network<R>,
    data: &Dataset,
    (cells, z): (Range<usize>, &[R]),
    draw: impl Fn(usize) -> Draw<'a>,
) -> Counts {
    let (l, g) = (network.architecture.n_latents, network.architecture.n_genes);
    let sampler = network.count_sampler();
    let mut workspace = evaluation_workspace(network, data);
    network.prepare_evaluation(&mut workspace);
    let all: Vec<usize> = cells.collect();
    let mut builder = CountsBuilder::new(g);
    let capacity = workspace.capacity();
    for (batch, z) in all.chunks(capacity).zip(z.chunks(capacity * l)) {
        let log_rates = network.log_rates(team, &mut workspace, Batch::new(data, batch), z);
        for (&n, row) in batch.iter().zip(log_rates.chunks_exact(g)) {
            let ((seed, number), factors) = draw(n);
            let mut random = sampler_stream(seed, SamplerPurpose::ModelCounts, number);
            for (gene, log_rate) in row.iter().enumerate() {
                let factor = factors.map_or(1.0, |factors| factors[gene]);
                let mean = data.library[n] * log_rate.to_f64().exp() * factor;
                builder.push(gene, sampler.draw(gene, mean, &mut random));
            }
            builder.end_cell();
        }
    }
    builder.finish()
}
