//! The likelihood of counts given the decoder's logits: which there are, and what the network asks of one.
//!
//! A likelihood is a file of this folder with its value, its gradient in the logits and its draw, and a row in every `match`
//! below; `derivations/` has a page for each. All of them share the mean `mu = library * softmax(logits)`.

pub mod blocks;
pub mod dispersion;
pub mod negative_binomial;
pub mod poisson;
pub mod with_epsilon;

pub use blocks::{CellCounts, Scratch};

use crate::data::counts::in_memory::CountsRow;
use crate::model::parameters::{LayoutBuilder, Tensor};
use crate::numerics::real::Real;
use dispersion::Dispersion;
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use with_epsilon::DispersionWithEpsilon;

/// Distribution of a count about its mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Likelihood {
    /// Negative binomial: variance mean + mean^2 / theta, with an inverse dispersion theta learned for every gene
    NegativeBinomial,
    /// Poisson: variance equal to the mean
    Poisson,
}

impl Likelihood {
    /// Its name as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Likelihood::NegativeBinomial => "negative-binomial",
            Likelihood::Poisson => "poisson",
        }
    }

    /// Number of parameters of its own that it learns: one for each gene, or none.
    pub fn n_parameters(self, n_genes: usize) -> usize {
        match self {
            Likelihood::NegativeBinomial => n_genes,
            Likelihood::Poisson => 0,
        }
    }

    /// Adds the tensor that it learns to `layout`, if it has one: the logarithm of the inverse dispersion theta of each gene.
    pub fn add_tensor(self, n_genes: usize, layout: &mut LayoutBuilder) -> Option<Tensor> {
        match self {
            Likelihood::NegativeBinomial => Some(layout.add("log_dispersion".into(), &[n_genes])),
            Likelihood::Poisson => None,
        }
    }

    /// 1 / theta of each of `n_genes` genes, 0 for the Poisson: a count of mean mu has the variance mu + mu^2 / theta.
    /// `log_dispersion` (n_genes) is the tensor of [`Likelihood::add_tensor`], or empty.
    pub fn inverse_thetas<R: Real>(self, log_dispersion: &[R], n_genes: usize) -> Vec<f64> {
        match self {
            Likelihood::NegativeBinomial => log_dispersion.iter().map(|t| Real::exp(-t.to_f64())).collect(),
            Likelihood::Poisson => vec![0.0; n_genes],
        }
    }

    /// A draw of counts; `log_dispersion` (n_genes) is the tensor of [`Likelihood::add_tensor`], or empty.
    pub fn sampler<R: Real>(self, log_dispersion: &[R]) -> CountSampler {
        match self {
            Likelihood::NegativeBinomial => {
                CountSampler::NegativeBinomial { theta: log_dispersion.iter().map(|t| t.to_f64().exp()).collect() }
            }
            Likelihood::Poisson => CountSampler::Poisson,
        }
    }
}

/// What draws counts about given means.
#[derive(Debug, Clone)]
pub enum CountSampler {
    /// With the inverse dispersion of each gene.
    NegativeBinomial {
        /// Inverse dispersions, n_genes.
        theta: Vec<f64>,
    },
    /// With nothing but the mean.
    Poisson,
}

impl CountSampler {
    /// A count of `gene` with this mean.
    pub fn draw(&self, gene: usize, mean: f64, random: &mut ChaCha8Rng) -> u32 {
        match self {
            CountSampler::NegativeBinomial { theta } => negative_binomial::draw(mean, theta[gene], random),
            CountSampler::Poisson => poisson::draw(mean, random),
        }
    }
}

/// A likelihood with what depends on its parameters alone, computed once per step and shared by all cells.
#[derive(Debug, Clone)]
pub enum Prepared<R> {
    /// The exact negative binomial.
    NegativeBinomial(Dispersion<R>),
    /// The negative binomial with a constant inside its logarithms, Eq. (N12).
    NegativeBinomialWithEpsilon(DispersionWithEpsilon<R>),
    /// Nothing to prepare.
    Poisson,
}

impl<R: Real> Prepared<R> {
    /// Of `n_genes` genes, with log-dispersions of 0 until [`Prepared::update`] is called; `epsilon` is the constant that the
    /// reference adds inside the logarithms of the negative binomial, 0 for the exact one.
    pub fn new(likelihood: Likelihood, epsilon: f64, n_genes: usize) -> Self {
        match likelihood {
            Likelihood::NegativeBinomial if epsilon > 0.0 => {
                Self::NegativeBinomialWithEpsilon(DispersionWithEpsilon::new(n_genes, R::from_f64(epsilon)))
            }
            Likelihood::NegativeBinomial => Self::NegativeBinomial(Dispersion::new(n_genes)),
            Likelihood::Poisson => Self::Poisson,
        }
    }

    /// Takes in new parameters: `log_dispersion` (n_genes), empty where the likelihood has none. Allocates nothing.
    pub fn update(&mut self, log_dispersion: &[R]) {
        match self {
            Self::NegativeBinomial(dispersion) => dispersion.update(log_dispersion),
            Self::NegativeBinomialWithEpsilon(dispersion) => dispersion.update(log_dispersion),
            Self::Poisson => {}
        }
    }

    /// The part of a cell's log p that does not depend on its means, formed once where many of these are tried.
    pub fn count_terms(&self, nonzero: CountsRow<'_>, scratch: &mut Scratch<R>) -> f64 {
        match self {
            Self::NegativeBinomial(dispersion) => negative_binomial::count_terms(nonzero, dispersion, scratch),
            Self::NegativeBinomialWithEpsilon(dispersion) => with_epsilon::count_terms(nonzero, dispersion, scratch),
            Self::Poisson => poisson::count_terms(nonzero),
        }
    }

    /// -log p of a cell given its `logits` (n_genes), which may be overwritten, and its [`count_terms`](Self::count_terms).
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn value(&self, logits: &mut [R], cell: CellCounts<'_, R>, count_terms: f64, scratch: &mut Scratch<R>) -> f64 {
        match self {
            Self::NegativeBinomial(dispersion) => negative_binomial::value(logits, cell, dispersion, count_terms),
            Self::NegativeBinomialWithEpsilon(dispersion) => {
                with_epsilon::value(logits, cell, dispersion, count_terms, scratch)
            }
            Self::Poisson => poisson::value(logits, cell, count_terms),
        }
    }

    /// -log p of a cell. `logits_then_gradient` (n_genes) holds the logits and receives the gradient of `scale * (-log p)`
    /// with respect to them; that with respect to the log-dispersions is added to `d_log_dispersion` (n_genes; empty for a
    /// likelihood without).
    ///
    /// # Panics
    /// If a length is wrong.
    pub fn value_and_gradient(
        &self,
        logits_then_gradient: &mut [R],
        cell: CellCounts<'_, R>,
        scale: R,
        d_log_dispersion: &mut [R],
        scratch: &mut Scratch<R>,
    ) -> f64 {
        let (l, d) = (logits_then_gradient, d_log_dispersion);
        match self {
            Self::NegativeBinomial(at) => negative_binomial::value_and_gradient(l, cell, at, scale, d, scratch),
            Self::NegativeBinomialWithEpsilon(at) => {
                negative_binomial::value_and_gradient(l, cell, at, scale, d, scratch)
            }
            Self::Poisson => poisson::value_and_gradient(l, cell, scale, scratch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn counts_have_the_mean_and_variance_of_their_likelihood() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let n = 40_000;
        let negative_binomial = |theta: f64| Likelihood::NegativeBinomial.sampler(&[0.0, theta.ln()]);
        let poisson = || Likelihood::Poisson.sampler::<f64>(&[]);
        for (sampler, mean, dispersion) in [
            (negative_binomial(2.0), 3.0, 0.5),
            (negative_binomial(5.0), 0.2, 0.2),
            (negative_binomial(1e13), 50.0, 0.0),
            (poisson(), 0.2, 0.0),
            (poisson(), 50.0, 0.0),
        ] {
            let x: Vec<f64> = (0..n).map(|_| f64::from(sampler.draw(1, mean, &mut random))).collect();
            let m = x.iter().sum::<f64>() / n as f64;
            let v = x.iter().map(|x| (x - m).powi(2)).sum::<f64>() / n as f64;
            let wanted = mean + mean * mean * dispersion;
            // Five standard errors of the mean; the variance within a tenth.
            assert!((m - mean).abs() < 5.0 * (wanted / n as f64).sqrt(), "{sampler:?}: {m} {mean}");
            assert!((v / wanted - 1.0).abs() < 0.1, "{sampler:?}: {v} {wanted}");
        }
        for sampler in [negative_binomial(1.0), poisson()] {
            assert_eq!(sampler.draw(1, 0.0, &mut random), 0);
        }
    }
}
