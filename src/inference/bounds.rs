//! Importance-weighted bounds of many cells. Derivation: `derivations/iwelbo.md`.

use crate::data::minibatch::Minibatches;
use crate::error::Result;
use crate::inference::Inference;
use crate::model::network::Network;
use crate::model::particles::{Bound, ParticlePass, Samples};
use crate::numerics::real::Real;

/// Which bounds are asked for.
#[derive(Debug)]
pub struct BoundsRequest<'a, R> {
    /// The cells.
    pub cells: &'a [usize],
    /// Samples of their posterior, see [`Inference::posterior`].
    pub samples: Samples<'a, R>,
}

impl<R: Real> Inference<'_, R> {
    /// Bounds of cells, each computed by the process that holds it.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    ///
    /// # Panics
    /// If there are no samples or the workspace is smaller than a row block.
    pub fn bounds(&mut self, request: &BoundsRequest<'_, R>) -> Result<Vec<Bound>> {
        let bounds = self.bounds_under([self.network], request, Vec::new(), |_| Ok(()))?;
        Ok(bounds.into_iter().map(|[bound]| bound).collect())
    }

    /// As [`Inference::bounds`], under the priors of several networks that have the rest in common with this one: their
    /// samples are decoded once. The first cells are `done` already; `between` is called after every few cells with all bounds
    /// so far, and its error ends the work early.
    ///
    /// # Errors
    /// Those of `between`, and of [`Inference::bounds`].
    ///
    /// # Panics
    /// As [`Inference::bounds`]; if more bounds are done than there are cells.
    pub fn bounds_under<const N: usize>(
        &mut self,
        priors: [&Network<R>; N],
        request: &BoundsRequest<'_, R>,
        done: Vec<[Bound; N]>,
        mut between: impl FnMut(&[[Bound; N]]) -> Result<()>,
    ) -> Result<Vec<[Bound; N]>> {
        let (team, ranks) = (self.team, self.team.ranks());
        let pass = ParticlePass::new(self.network, priors, team, self.workspace);
        let mut bounds = done;
        let left = &request.cells[bounds.len()..];
        let mine = ranks.mine(left);
        let at_once = pass.cells_at_once();
        let mut batches = Minibatches::of_cells(self.data, &mine, at_once)?;
        // Every rank passes the same chunks, whatever its threads, of which it works on the cells that it holds, so that all
        // call `between` at the same places.
        for chunk in left.chunks(pass.most_cells() * ranks.size()) {
            let places: Vec<usize> = ranks.my_places(chunk).iter().map(|place| bounds.len() + place).collect();
            let mut found = Vec::with_capacity(2 * N * places.len());
            for places in places.chunks(at_once) {
                let batch = batches.next_of(places.len())?.expect("a minibatch for each chunk of bounds");
                let of_batch = pass.bounds(team, self.workspace, batch, places, request.samples);
                found.extend(of_batch.as_flattened().iter().flat_map(|bound| [bound.iwelbo, bound.elbo]));
            }
            let all = ranks.gather_rows(chunk, 2 * N, found);
            bounds.extend(
                all.chunks_exact(2 * N)
                    .map(|values| std::array::from_fn(|i| Bound { iwelbo: values[2 * i], elbo: values[2 * i + 1] })),
            );
            between(&bounds)?;
        }
        Ok(bounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Dataset;
    use crate::data::dataset::five_genes as screen;
    use crate::data::simulate::{Simulation, simulate};
    use crate::model::architecture::{Architecture, MaskKind, Prior};
    use crate::model::layers::batch_norm;
    use crate::model::likelihood::Likelihood;
    use crate::model::particles::{LogMeanExp, Posterior};
    use crate::model::workspace::Workspace;
    use crate::parallel::team::Team;

    const MASKED: Prior = Prior::Masked { kind: MaskKind::Hard, temperature: 0.7 };

    /// A network whose decoder, running statistics and shifts matter.
    fn network(prior: Prior) -> Network<f64> {
        network_of(prior, Likelihood::NegativeBinomial)
    }

    fn network_of(prior: Prior, likelihood: Likelihood) -> Network<f64> {
        let architecture = Architecture { n_hidden: 4, prior, likelihood, ..Architecture::new(5, 2, 1) };
        let mut network = Network::new(architecture, 11);
        let wave = |i: usize| (i as f64 * 2.3 + 0.4).sin();
        for layer in network.tensors.decoder.clone() {
            let norm = layer.norm.expect("normalised");
            network.running[&norm.running_mean].iter_mut().enumerate().for_each(|(i, v)| *v = 0.3 * wave(i));
            network.running[&norm.running_variance].iter_mut().enumerate().for_each(|(i, v)| *v = 1.0 + 0.5 * wave(i));
            network.parameters[&norm.weight].iter_mut().enumerate().for_each(|(i, v)| *v = 1.0 + 0.4 * wave(i + 7));
            network.parameters[&norm.bias].iter_mut().enumerate().for_each(|(i, v)| *v = 0.5 + 0.5 * wave(i + 3));
        }
        // A proposal wider than the prior, so that weights have a variance.
        let head = network.tensors.latent_log_variance.clone();
        network.parameters[&head.weight].fill(0.0);
        network.parameters[&head.bias].fill(0.3);
        if let Some(shift) = network.tensors.shift.clone() {
            network.parameters[&shift].copy_from_slice(&[0.8, -1.1]);
        }
        if let Some(mask_logit) = network.tensors.mask_logit.clone() {
            network.parameters[&mask_logit].copy_from_slice(&[0.4, -0.7]);
        }
        network
    }

    /// log p(x|z) by plain loops over the decoder's tensors.
    fn log_likelihood(network: &Network<f64>, data: &Dataset, n: usize, z: f64) -> f64 {
        let p = &network.parameters;
        let linear = |weight: &[f64], bias: &[f64], x: &[f64]| -> Vec<f64> {
            let rows = weight.chunks_exact(x.len()).zip(bias);
            rows.map(|(w, b)| b + w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()).collect()
        };
        let mut h = vec![z];
        for layer in &network.tensors.decoder {
            let norm = layer.norm.as_ref().expect("normalised");
            h = linear(&p[&layer.linear.weight], &p[&layer.linear.bias], &h);
            for (j, h) in h.iter_mut().enumerate() {
                let (mean, variance) =
                    (network.running[&norm.running_mean][j], network.running[&norm.running_variance][j]);
                let u = (*h - mean) / (variance + batch_norm::EPSILON).sqrt();
                *h = (p[&norm.weight][j] * u + p[&norm.bias][j]).max(0.0);
            }
        }
        let head = &network.tensors.decoder_output;
        let logits = linear(&p[&head.weight], &p[&head.bias], &h);
        let total: f64 = logits.iter().map(|l| l.exp()).sum();
        let mut x = [0.0; 5];
        data.counts.row(n).for_each(|g, count| x[g] = count as f64);
        let mut value = 0.0;
        for g in 0..5 {
            let mu = data.library[n] * logits[g].exp() / total;
            value += match &network.tensors.log_dispersion {
                Some(log_dispersion) => {
                    let theta = p[log_dispersion][g].exp();
                    libm::lgamma(x[g] + theta) - libm::lgamma(theta) - libm::lgamma(x[g] + 1.0)
                        + theta * (theta / (theta + mu)).ln()
                        + x[g] * (mu / (theta + mu)).ln()
                }
                None => x[g] * mu.ln() - mu - libm::lgamma(x[g] + 1.0),
            };
        }
        value
    }

    /// The integral of exp(f) over z within 12 of `centre`, as a logarithm.
    fn log_integral(centre: f64, f: impl Fn(f64) -> f64) -> f64 {
        let step = 0.004;
        let mut sum = LogMeanExp::new();
        (0..6000).for_each(|i| sum.add(f(centre - 12.0 + (i as f64 + 0.5) * step)));
        sum.value() + 24f64.ln()
    }

    fn log_normal(z: f64, mean: f64, variance: f64) -> f64 {
        -0.5 * ((z - mean).powi(2) / variance + (std::f64::consts::TAU * variance).ln())
    }

    /// Posterior of cells and bounds from samples of it, with room for `capacity` rows.
    fn posterior_and_bounds<R: Real>(
        team: &Team,
        network: &Network<R>,
        data: &Dataset,
        cells: &[usize],
        [capacity, particles]: [usize; 2],
        seed: u64,
    ) -> (Posterior<R>, Vec<Bound>) {
        let mut workspace = Workspace::new(&network.architecture, capacity, data.interventions.max_len());
        let mut inference = Inference { team, network, data, workspace: &mut workspace };
        let posterior = inference.posterior(cells).expect("in memory");
        let request = BoundsRequest { cells, samples: Samples { posterior: &posterior, particles, seed } };
        let bounds = inference.bounds(&request).expect("in memory");
        (posterior, bounds)
    }

    fn bounds(network: &Network<f64>, data: &Dataset, cells: &[usize], particles: usize, seed: u64) -> Vec<Bound> {
        posterior_and_bounds(&Team::single(), network, data, cells, [64, particles], seed).1
    }

    #[test]
    fn one_latent_agrees_with_quadrature() {
        let data = screen();
        let cells: Vec<usize> = (0..12).collect();
        let mut fixed = network(MASKED);
        fixed.prior_mut().freeze();
        for (network, on) in [
            (network(Prior::Standard), [0.0, 0.0]),
            (network(Prior::Shifted), [1.0, 1.0]),
            (network_of(Prior::Shifted, Likelihood::Poisson), [1.0, 1.0]),
            // Random masks: the likelihood is a mixture over the mask.
            (network(MASKED), [0.4f64, -0.7].map(|logit| 1.0 / (1.0 + (-logit).exp()))),
            (fixed, [1.0, 0.0]),
        ] {
            let shifts = network.tensors.shift.as_ref().map_or(vec![0.0; 2], |s| network.parameters[s].to_vec());
            let particles = 40_000;
            let (posterior, got) = posterior_and_bounds(&Team::single(), &network, &data, &cells, [64, particles], 5);
            for n in 0..12 {
                let (shift, on) = (shifts[n % 2], on[n % 2]);
                let prior = |z: f64| on * log_normal(z, shift, 1.0).exp() + (1.0 - on) * log_normal(z, 0.0, 1.0).exp();
                let log_joint = |z: f64| log_likelihood(&network, &data, n, z) + prior(z).ln();
                let exact = -log_integral(0.0, log_joint);
                let (m, v) = (posterior.mean[n], posterior.variance[n]);
                // Standard error of log(mean of weights): their coefficient of variation over the root of their number.
                // Drawn masks add at most as much again.
                let second = log_integral(0.0, |z| 2.0 * log_joint(z) - log_normal(z, m, v)) + 2.0 * exact;
                let spread = second.exp() - 1.0;
                assert!(spread < 20.0, "the case is too hard for this test: {spread}");
                let tolerance = 8.0 * (spread / particles as f64).sqrt() + 1e-6;
                assert!((got[n].iwelbo - exact).abs() < tolerance, "{n}: {} {exact} +- {tolerance}", got[n].iwelbo);

                let divergences = [shift, 0.0].map(|p| 0.5 * ((m - p).powi(2) + v - 1.0 - v.ln()));
                let kl = on * divergences[0] + (1.0 - on) * divergences[1];
                // Moments of -log p(x|z) under q; it is positive here, so powers have logarithms.
                let moment = |power: f64| {
                    let nll = |z: f64| -log_likelihood(&network, &data, n, z);
                    log_integral(m, |z| power * nll(z).ln() + log_normal(z, m, v)).exp()
                };
                let variance =
                    moment(2.0) - moment(1.0).powi(2) + on * (1.0 - on) * (divergences[0] - divergences[1]).powi(2);
                let want = moment(1.0) + kl;
                let tolerance = 5.0 * (variance / particles as f64).sqrt();
                assert!((got[n].elbo - want).abs() < tolerance, "cell {n}: {} {want} +- {tolerance}", got[n].elbo);
                assert!(tolerance < 0.1, "{tolerance}");
            }
        }
    }

    #[test]
    fn bounds_under_two_priors_are_those_of_two_networks() {
        let data = screen();
        let cells: Vec<usize> = (0..12).collect();
        for frozen in [true, false] {
            let mut first = network(MASKED);
            if frozen {
                first.prior_mut().freeze();
            }
            let mut second = first.clone();
            let shift = second.tensors.shift.clone().expect("shifts");
            second.parameters[&shift].iter_mut().enumerate().for_each(|(i, shift)| *shift += 0.3 + i as f64);
            let team = Team::single();
            let mut workspace = Workspace::new(&first.architecture, 512, 1);
            let mut inference = Inference { team: &team, network: &first, data: &data, workspace: &mut workspace };
            let posterior = inference.posterior(&cells).expect("in memory");
            let samples = Samples { posterior: &posterior, particles: 150, seed: 5 };
            let request = BoundsRequest { cells: &cells, samples };
            let both = inference.bounds_under([&second, &first], &request, Vec::new(), |_| Ok(())).expect("in memory");
            let alone = [&second, &first].map(|network| bounds(network, &data, &cells, 150, 5));
            for (n, [of_second, of_first]) in both.into_iter().enumerate() {
                assert_eq!((of_second, of_first), (alone[0][n], alone[1][n]), "cell {n}, frozen: {frozen}");
            }
            // Of cells whose mask is on.
            assert!(alone[0].iter().zip(&alone[1]).any(|(a, b)| a.elbo != b.elbo && a.iwelbo != b.iwelbo));
        }
    }

    #[test]
    fn more_samples_tighten_the_bound() {
        let data = screen();
        let cells: Vec<usize> = (0..12).collect();
        let network = network(MASKED);
        // Means over 12 cells x 40 seeds: the differences below are several standard errors each.
        let mean = |particles: usize, of: fn(&Bound) -> f64| {
            let values: Vec<f64> =
                (0..40).flat_map(|seed| bounds(&network, &data, &cells, particles, seed)).map(|b| of(&b)).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let by_particles = [1, 2, 8, 64].map(|particles| mean(particles, |bound| bound.iwelbo));
        assert!(by_particles.windows(2).all(|pair| pair[1] < pair[0]), "{by_particles:?}");
        let elbo = mean(64, |bound| bound.elbo);
        assert!(by_particles[3] < elbo, "{by_particles:?} {elbo}");
        // With one sample the two agree in expectation.
        assert!((by_particles[0] - elbo).abs() < 0.15, "{by_particles:?} {elbo}");
    }

    #[test]
    fn a_correlated_posterior_bounds_the_same_likelihood() {
        let data = screen();
        let cells: Vec<usize> = (0..12).collect();
        let sizes = Architecture { n_hidden: 4, prior: Prior::Shifted, ..Architecture::new(5, 2, 3) };
        let full = Network::<f64>::new(Architecture { full_covariance: true, ..sizes }, 11);
        let head = full.tensors.latent_factor.clone().expect("a head");
        // Both proposals a little wider than the prior: importance weights of either have a variance.
        let of = |factor: [f64; 3]| {
            let mut network = full.clone();
            let variance = network.tensors.latent_log_variance.clone();
            network.parameters[&variance.weight].fill(0.0);
            network.parameters[&variance.bias].fill(0.3);
            network.parameters[&head.bias].copy_from_slice(&factor);
            bounds(&network, &data, &cells, 20_000, 5)
        };
        let (diagonal, correlated) = (of([0.0; 3]), of([0.5, -0.4, 0.3]));
        for (a, b) in diagonal.iter().zip(&correlated) {
            // The likelihood does not depend on the proposal, the ELBO does: the factor adds to the divergence.
            assert!((a.iwelbo - b.iwelbo).abs() < 0.05, "{} {}", a.iwelbo, b.iwelbo);
            assert!((a.elbo - b.elbo).abs() > 0.1, "{} {}", a.elbo, b.elbo);
        }
    }

    #[test]
    fn threads_and_memory_do_not_change_a_bit() {
        let settings =
            Simulation { n_interventions: 4, n_genes: 20, cells_per_intervention: 9, seed: 1, ..Simulation::default() };
        let data = simulate(&settings).expect("a simulation").dataset;
        let network = Network::<f32>::new(Architecture { n_hidden: 16, ..Architecture::new(20, 4, 15) }, 2);
        let cells: Vec<usize> = (3..36).collect();
        let ask = |threads: usize, capacity: usize, ask: &mut dyn FnMut(&mut Inference<'_, f32>)| {
            Team::with(threads, |team| {
                let workspace = &mut Workspace::new(&network.architecture, capacity, 1);
                ask(&mut Inference { team, network: &network, data: &data, workspace });
            });
        };
        let posterior_of = |threads: usize| {
            let mut posterior = None;
            ask(threads, 512, &mut |inference| posterior = Some(inference.posterior(&cells).expect("in memory")));
            posterior.expect("asked")
        };
        let bounds_of = |threads: usize, capacity: usize, cells: &[usize], posterior: &Posterior<f32>| {
            let request = BoundsRequest { cells, samples: Samples { posterior, particles: 70, seed: 3 } };
            let mut bounds = Vec::new();
            ask(threads, capacity, &mut |inference| bounds = inference.bounds(&request).expect("in memory"));
            bounds
        };
        let posterior = posterior_of(1);
        let first = bounds_of(1, 512, &cells, &posterior);
        for (threads, capacity) in [(2, 512), (3, 512), (1, 32), (2, 100)] {
            let bounds = bounds_of(threads, capacity, &cells, &posterior);
            assert_eq!(bounds, first, "{threads} threads, {capacity} rows");
            assert_eq!(posterior_of(threads), posterior);
        }
        // A cell's bound does not depend on its neighbours.
        let l = network.architecture.n_latents;
        let backwards = |rows: &[f32]| rows.rchunks_exact(l).flatten().copied().collect();
        let (mean, variance) = (backwards(&posterior.mean), backwards(&posterior.variance));
        let reversed = Posterior { mean, variance, factor: Vec::new() };
        let backwards: Vec<usize> = cells.iter().rev().copied().collect();
        let mut bounds = bounds_of(2, 512, &backwards, &reversed);
        bounds.reverse();
        assert_eq!(bounds, first);
    }
}
