//! The Poisson likelihood against an independent density, its decomposition, its role as a limit and finite differences.

use proptest::prelude::*;
use statrs::distribution::{Discrete, Poisson};
use statrs::function::gamma::ln_gamma;
use svae_cpu::data::counts::in_memory::Counts;
use svae_cpu::model::likelihood::poisson::{count_terms, value, value_and_gradient};
use svae_cpu::model::likelihood::{CellCounts, Likelihood, Prepared, Scratch};
use svae_cpu::numerics::real::Real;

/// Counts, logits and library of one cell; 1 to 67 genes cross the blocks of 16.
#[derive(Debug, Clone)]
struct Draw {
    counts: Vec<u32>,
    logits: Vec<f64>,
    library: f64,
}

impl Draw {
    /// -log p by the evaluation path.
    fn value<R: Real>(&self) -> f64 {
        let (counts, x) = self.row::<R>();
        let cell = CellCounts { x: &x, nonzero: counts.row(0), library: R::from_f64(self.library) };
        value(&reals::<R>(&self.logits), cell, count_terms(cell.nonzero))
    }

    /// -log p and its gradient in the logits, times `scale`, by the training path.
    fn gradient<R: Real>(&self, scale: f64) -> (f64, Vec<f64>) {
        let (counts, x) = self.row::<R>();
        let mut d = reals::<R>(&self.logits);
        let cell = CellCounts { x: &x, nonzero: counts.row(0), library: R::from_f64(self.library) };
        let value = value_and_gradient(&mut d, cell, R::from_f64(scale), &mut Scratch::new(x.len()));
        (value, d.into_iter().map(R::to_f64).collect())
    }

    fn row<R: Real>(&self) -> (Counts, Vec<R>) {
        (Counts::from_dense(self.counts.len(), &self.counts), self.counts.iter().map(|&x| R::of_count(x)).collect())
    }

    fn total(&self) -> f64 {
        self.counts.iter().map(|&x| f64::from(x)).sum()
    }

    /// log rho of every gene.
    fn log_shares(&self) -> Vec<f64> {
        let top = self.logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self.logits.iter().map(|l| (l - top).exp()).sum();
        self.logits.iter().map(|l| l - top - sum.ln()).collect()
    }

    /// Sum of the absolute terms of Eqs. (Po1) and (Po2): no sum of them can be better than to some roundings of it.
    fn size(&self) -> f64 {
        let log_library = if self.library > 0.0 { self.library.ln().abs() } else { 0.0 };
        let term = |(&x, log_share): (&u32, f64)| {
            let x = f64::from(x);
            x * (log_library + log_share.abs()) + ln_gamma(x + 1.0)
        };
        self.counts.iter().zip(self.log_shares()).map(term).sum::<f64>() + 2.0 * self.library
    }
}

fn reals<R: Real>(values: &[f64]) -> Vec<R> {
    values.iter().map(|&v| R::from_f64(v)).collect()
}

/// Sizes of the counts from a screen to a simulation, zeros most often.
fn any_count() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(0u32), 4 => 1..6u32, 2 => 0..300u32, 1 => 300..40_000u32]
}

fn any_cell() -> impl Strategy<Value = Draw> {
    (1..=67usize).prop_flat_map(|n| {
        let counts = prop_oneof![
            prop::collection::vec(any_count(), n),
            prop::collection::vec(1..300u32, n),
            prop::collection::vec(prop_oneof![9 => Just(0u32), 1 => 1..20u32], n),
        ];
        (counts, prop::collection::vec(-8.0..8.0f64, n), 0.5..2.0f64).prop_map(|(counts, logits, factor)| {
            let library = factor * counts.iter().map(|&x| f64::from(x)).sum::<f64>().max(1.0);
            Draw { counts, logits, library }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn values_agree_with_an_independent_density(draw in any_cell()) {
        let shares = draw.log_shares();
        let log_p = |(&x, log_share): (&u32, &f64)| {
            Poisson::new(draw.library * log_share.exp()).expect("a positive mean").ln_pmf(u64::from(x))
        };
        let want: f64 = -draw.counts.iter().zip(&shares).map(log_p).sum::<f64>();
        // statrs' own ln x! is good to about 1e-15 of its terms.
        let allowed = 1e-13 * draw.size();
        let (evaluated, (trained, _)) = (draw.value::<f64>(), draw.gradient::<f64>(3.0));
        prop_assert!((evaluated - want).abs() <= allowed, "evaluation {evaluated}, want {want}");
        prop_assert!((trained - want).abs() <= allowed, "training {trained}, want {want}");
    }

    #[test]
    fn the_gradient_is_the_one_of_its_parts(draw in any_cell(), scale in 0.1..10.0f64) {
        // Eq. (Po3), put into Eq. (N9).
        let shares: Vec<f64> = draw.log_shares().iter().map(|s| s.exp()).collect();
        let by_log_mean: Vec<f64> =
            draw.counts.iter().zip(&shares).map(|(&x, share)| f64::from(x) - draw.library * share).collect();
        let sum: f64 = by_log_mean.iter().sum();
        let (_, got) = draw.gradient::<f64>(scale);
        for g in 0..got.len() {
            let want = -scale * (by_log_mean[g] - shares[g] * sum);
            let size = f64::from(draw.counts[g]) + shares[g] * 3.0 * (draw.library + draw.total());
            prop_assert!((got[g] - want).abs() <= 1e-13 * scale * size, "gene {g}: {}, want {want}", got[g]);
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences(draw in any_cell(), scale in 0.1..10.0f64) {
        let (_, got) = draw.gradient::<f64>(scale);
        let (size, h) = (draw.size(), 1e-3);
        for g in 0..got.len() {
            let at = |step: f64| {
                let mut moved = draw.clone();
                moved.logits[g] += step * h;
                moved.value::<f64>()
            };
            let difference = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * h);
            // The stencil errs by h^4 / 30 times the fifth derivative, at most some times X, and by the roundings of the
            // values over h.
            let allowed = size * (16.0 * f64::EPSILON / h + h.powi(4));
            prop_assert!((got[g] / scale - difference).abs() <= allowed, "logit {g}: {}, {difference}", got[g] / scale);
        }
    }

    #[test]
    fn a_cell_is_its_total_and_the_split_of_it(draw in any_cell()) {
        // Eq. (Po5).
        let total = draw.total();
        let of_total = total * draw.library.ln() - draw.library - ln_gamma(total + 1.0);
        let term = |(&x, share): (&u32, f64)| f64::from(x) * share - ln_gamma(f64::from(x) + 1.0);
        let split = ln_gamma(total + 1.0) + draw.counts.iter().zip(draw.log_shares()).map(term).sum::<f64>();
        // Of the logarithm of X! that the two parts share, nothing is left.
        let allowed = 1e-13 * (draw.size() + 2.0 * ln_gamma(total + 1.0));
        let got = -draw.value::<f64>();
        prop_assert!((got - (of_total + split)).abs() <= allowed, "{got}, want {}", of_total + split);
    }

    #[test]
    fn it_is_the_limit_of_the_negative_binomial(draw in any_cell()) {
        let n = draw.counts.len();
        let (counts, x) = draw.row::<f64>();
        let mut likelihood = Prepared::new(Likelihood::NegativeBinomial, 0.0, n);
        likelihood.update(&vec![40.0; n]);
        let (mut d, mut scratch) = (draw.logits.clone(), Scratch::new(n));
        let cell = CellCounts { x: &x, nonzero: counts.row(0), library: draw.library };
        let limit = likelihood.value_and_gradient(&mut d, cell, 1.0, &mut vec![0.0; n], &mut scratch);
        let (value, gradient) = draw.gradient::<f64>(1.0);
        // Eq. (Po6), at most X^2 / theta, and roundings.
        let of_order = (draw.total() + draw.library).powi(2) * (-40f64).exp();
        prop_assert!((value - limit).abs() <= of_order + 1e-13 * draw.size(), "{value}, {limit}");
        for g in 0..n {
            let allowed = of_order + 1e-13 * (draw.total() + draw.library);
            prop_assert!((gradient[g] - d[g]).abs() <= allowed, "gene {g}: {}, {}", gradient[g], d[g]);
        }
    }

    #[test]
    fn f32_stays_within_its_bound_of_f64(draw in any_cell()) {
        // The same inputs for both: numbers that single precision holds.
        let single = |v: &[f64]| v.iter().map(|&v| f64::from(v as f32)).collect::<Vec<_>>();
        let draw = Draw { logits: single(&draw.logits), library: f64::from(draw.library as f32), ..draw };
        let (narrow, wide) = (draw.gradient::<f32>(1.0), draw.gradient::<f64>(1.0));
        let unit = 0.5 * f64::from(f32::EPSILON);
        // A share errs by its exponent, rounded at its distance to the largest logit (at most 16), and by exp, sum,
        // quotient and product (8); the sum of the shares errs as much, and X times its logarithm with it. A term of
        // the value: difference, product, and a sum of 16 in single precision.
        let allowed = unit * (24.0 * draw.total() + 20.0 * draw.size());
        prop_assert!((narrow.0 - wide.0).abs() <= allowed, "training {} {} {allowed}", narrow.0, wide.0);
        let evaluated = draw.value::<f32>();
        prop_assert!((evaluated - wide.0).abs() <= allowed, "evaluation {evaluated} {} {allowed}", wide.0);
        for (g, log_share) in draw.log_shares().into_iter().enumerate() {
            let mean = log_share.exp() * draw.total();
            let allowed = unit * (48.0 * mean + 2.0 * f64::from(draw.counts[g])) + f64::from(f32::MIN_POSITIVE);
            prop_assert!((narrow.1[g] - wide.1[g]).abs() <= allowed, "logit {g}: {} {}", narrow.1[g], wide.1[g]);
        }
    }
}

#[test]
fn probabilities_sum_to_one() {
    for mu in [1e-8, 0.5, 3.0, 20.0, 400.0] {
        let p = |x: u32| (-Draw { counts: vec![x], logits: vec![0.3], library: mu }.value::<f64>()).exp();
        let mut total = 0.0;
        for x in 0.. {
            total += p(x);
            if f64::from(x) > mu && p(x) < 1e-17 {
                break;
            }
        }
        // At most a thousand terms, the largest of them with a relative error of some roundings of x log mu, 3e3.
        assert!((total - 1.0).abs() < 1e-12, "mu {mu}: {total}");
    }
}

#[test]
fn log_mean_survives_the_underflow_of_its_rate() {
    // Rates of e^-150 are zero in single precision; a count there costs 150 nats, no more and no less.
    let draw = Draw { counts: vec![500, 1, 0, 3], logits: vec![60.0, -90.0, 0.0, -90.0], library: 504.0 };
    let (narrow, wide) = (draw.gradient::<f32>(1.0), draw.gradient::<f64>(1.0));
    assert!(wide.0 > 4.0 * 143.0);
    for value in [narrow.0, draw.value::<f32>(), draw.value::<f64>()] {
        assert!((value - wide.0).abs() < 1e-5 * wide.0, "{value} {}", wide.0);
    }
    for g in 0..4 {
        assert!((narrow.1[g] - wide.1[g]).abs() < 24.0 * 0.5 * f64::from(f32::EPSILON) * 1008.0, "gene {g}");
    }
    // A count pulls its logit up with the full weight of its size.
    assert!((narrow.1[3] + 3.0).abs() < 1e-4);
}

#[test]
fn empty_cells_and_lost_parameters_are_visible_not_fatal() {
    let empty = Draw { counts: vec![0; 20], logits: vec![0.3; 20], library: 0.0 };
    let (value, d) = empty.gradient::<f32>(1.0);
    assert_eq!((value, empty.value::<f32>()), (0.0, 0.0), "no counts and no library: certain");
    assert!(d.iter().all(|&v| v == 0.0));
    // The probability of no event is e^-library, whatever the logits.
    let of_size = Draw { library: 7.5, ..empty };
    let (value, d) = of_size.gradient::<f32>(1.0);
    assert_eq!((value, of_size.value::<f32>()), (7.5, 7.5));
    assert!(d.iter().all(|&v| v == 0.0));
    for place in [0, 7, 19] {
        let mut lost = Draw { counts: vec![1; 20], logits: vec![0.3; 20], library: 20.0 };
        lost.logits[place] = f64::NAN;
        let (value, d) = lost.gradient::<f32>(1.0);
        assert!(value.is_nan() && lost.value::<f32>().is_nan() && d.iter().all(|d| d.is_nan()));
    }
}
