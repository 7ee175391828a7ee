//! The negative binomial against a high-precision table, closed forms and finite differences.
//!
//! The table is tests/negative_binomial_table.csv; its first line is the command that made it.

use proptest::prelude::*;
use svae_cpu::data::counts::in_memory::Counts;
use svae_cpu::model::likelihood::negative_binomial::count_gradient;
use svae_cpu::model::likelihood::with_epsilon::DispersionWithEpsilon;
use svae_cpu::model::likelihood::{CellCounts, Likelihood, Prepared, Scratch};
use svae_cpu::numerics::real::Real;

/// Allowed error: `relative * |expected| + floor`.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    relative: f64,
    floor: f64,
}

impl Tolerance {
    /// The error of a sum whose terms add up to `terms` in absolute value, each with a relative error of
    /// `n_roundings` half spacings of R. No algorithm that adds those terms can promise less than `n_roundings` = 1.
    fn of_sum<R: Real>(n_roundings: f64, terms: f64) -> Self {
        Self { relative: 0.0, floor: n_roundings * 0.5 * R::EPSILON.to_f64() * terms }
    }

    fn relative<R: Real>(n_roundings: f64) -> Self {
        // The floor is the smallest normal number: below it there is no relative accuracy.
        Self { relative: n_roundings * 0.5 * R::EPSILON.to_f64(), floor: smallest_normal::<R>() }
    }

    /// Error as a multiple of what is allowed.
    fn excess(self, got: f64, want: f64) -> f64 {
        if got.is_nan() { f64::INFINITY } else { (got - want).abs() / (self.relative * want.abs() + self.floor) }
    }

    fn check(self, got: f64, want: f64, what: &str) {
        assert!(self.excess(got, want) <= 1.0, "{what}: got {got:e}, want {want:e}, {self:?}");
    }
}

fn smallest_normal<R: Real>() -> f64 {
    if R::NAME == "f32" { f32::MIN_POSITIVE as f64 } else { f64::MIN_POSITIVE }
}

/// One row of counts with everything the kernels need.
struct Cell<R> {
    counts: Counts,
    x: Vec<R>,
    library: R,
    log_theta: Vec<R>,
    likelihood: Prepared<R>,
    scratch: Scratch<R>,
}

impl<R: Real> Cell<R> {
    fn new(counts: &[u32], library: f64, log_theta: &[f64]) -> Self {
        let log_theta: Vec<R> = log_theta.iter().map(|&l| R::from_f64(l)).collect();
        let mut likelihood = Prepared::new(Likelihood::NegativeBinomial, 0.0, counts.len());
        likelihood.update(&log_theta);
        Self {
            counts: Counts::from_dense(counts.len(), counts),
            x: counts.iter().map(|&x| R::of_count(x)).collect(),
            library: R::from_f64(library),
            log_theta,
            likelihood,
            scratch: Scratch::new(counts.len()),
        }
    }

    /// From here on the likelihood has this epsilon.
    fn set_epsilon(&mut self, epsilon: f64) {
        self.likelihood =
            Prepared::NegativeBinomialWithEpsilon(DispersionWithEpsilon::new(self.x.len(), R::from_f64(epsilon)));
        self.likelihood.update(&self.log_theta);
    }

    /// -log p and its gradients in logits and log_theta.
    fn gradient(&mut self, logits: &[f64], scale: f64, epsilon: Option<f64>) -> (f64, Vec<f64>, Vec<f64>) {
        let mut d: Vec<R> = logits.iter().map(|&l| R::from_f64(l)).collect();
        let mut d_log_theta = vec![R::ZERO; d.len()];
        if let Some(epsilon) = epsilon {
            self.set_epsilon(epsilon);
        }
        let value = self.add_gradient(&mut d, R::from_f64(scale), &mut d_log_theta);
        let wide = |v: Vec<R>| v.into_iter().map(R::to_f64).collect();
        (value, wide(d), wide(d_log_theta))
    }

    /// -log p; the logits become their gradient, that in log_theta is added.
    fn add_gradient(&mut self, logits: &mut [R], scale: R, d_log_theta: &mut [R]) -> f64 {
        let cell = CellCounts { x: &self.x, nonzero: self.counts.row(0), library: self.library };
        self.likelihood.value_and_gradient(logits, cell, scale, d_log_theta, &mut self.scratch)
    }

    /// -log p by the evaluation path.
    fn value(&mut self, logits: &[f64]) -> f64 {
        let mut logits: Vec<R> = logits.iter().map(|&l| R::from_f64(l)).collect();
        let cell = CellCounts { x: &self.x, nonzero: self.counts.row(0), library: self.library };
        let terms = self.likelihood.count_terms(cell.nonzero, &mut self.scratch);
        self.likelihood.value(&mut logits, cell, terms, &mut self.scratch)
    }

    /// -log p with epsilon by the evaluation path.
    fn value_with_epsilon(&mut self, logits: &[f64], epsilon: f64) -> f64 {
        self.set_epsilon(epsilon);
        self.value(logits)
    }
}

struct Row {
    x: u32,
    mu: f64,
    log_theta: f64,
    log_p: f64,
    d_log_mu: f64,
    d_log_theta: f64,
}

fn table() -> Vec<Row> {
    let text = include_str!("negative_binomial_table.csv");
    let rows: Vec<Row> = text
        .lines()
        .skip(2)
        .map(|line| {
            let v: Vec<f64> = line.split(',').map(|field| field.parse().expect("a number")).collect();
            Row { x: v[0] as u32, mu: v[1], log_theta: v[2], log_p: v[3], d_log_mu: v[4], d_log_theta: v[5] }
        })
        .collect();
    assert!(rows.len() > 3000, "the table is cut short");
    rows
}

/// D = lgamma(x + theta) - lgamma(theta) - x ln theta and E = theta dD/dtheta as the sums that define them; long sums
/// are cut at 4096 terms and continued by the integral (midpoint rule), good to 1e-6: enough for the size of a term.
fn count_sizes(x: u32, theta: f64) -> (f64, f64) {
    let head = x.min(4096);
    let d: f64 = (0..head).map(|j| (j as f64 / theta).ln_1p()).sum();
    let e: f64 = (0..head).map(|j| j as f64 / (theta + j as f64)).sum();
    if x <= head {
        return (d, e);
    }
    let f = |j: f64| (theta + j) * (j / theta).ln_1p() - j;
    let g = |j: f64| j - theta * (j / theta).ln_1p();
    let (from, to) = (head as f64 - 0.5, x as f64 - 0.5);
    (d + f(to) - f(from), e + g(to) - g(from))
}

/// Sums of the absolute terms of Eq. (N3) and of Eqs. (N7) and (N8), which set the floor of any error.
fn term_sizes(x: u32, log_mu: f64, log_theta: f64) -> (f64, f64) {
    let (mu, theta, n) = (log_mu.exp(), log_theta.exp(), x as f64);
    let (d, e) = count_sizes(x, theta);
    let t = mu / theta;
    let log = t.ln_1p();
    let value = n * log_mu.abs() + (n + theta) * log + d + libm::lgamma(n + 1.0);
    let dense = if t < 1.0 {
        // |ln(1+t) - t| <= t^2 / 2, and never more than t.
        t * (n - mu).abs() / (1.0 + t) + theta * (0.5 * t * t).min(t)
    } else {
        (n + theta) * t / (1.0 + t) + theta * log
    };
    (value, dense + e)
}

/// Checks every row of the table, in a row of `n_genes` genes whose others have no counts and next to no rate: one gene
/// takes the path of dense rows, many that of sparse rows. Prints the worst error found.
fn check_table<R: Real>(n_genes: usize) {
    let negligible = if R::NAME == "f32" { -200.0 } else { -800.0 };
    let mut worst = [(0.0f64, String::new()), (0.0, String::new()), (0.0, String::new())];
    let mut see = |i: usize, excess: f64, row: &Row, got: f64, want: f64| {
        if excess > worst[i].0 {
            let Row { x, mu, log_theta, .. } = row;
            worst[i] = (excess, format!("x {x}, mu {mu:e}, log theta {log_theta}: got {got:e}, want {want:e}"));
        }
    };
    for row in table() {
        let mut counts = vec![0; n_genes];
        let mut logits = vec![negligible; n_genes];
        let gene = n_genes / 2;
        counts[gene] = row.x;
        logits[gene] = 0.5;
        let mut cell = Cell::<R>::new(&counts, row.mu, &vec![row.log_theta; n_genes]);
        let (value, _, d_log_theta) = cell.gradient(&logits, 1.0, None);
        let (value_size, log_theta_size) = term_sizes(row.x, row.mu.ln(), row.log_theta);
        // Longest path: logit offset (3), exp of log theta (2), its inverse, t (2), ln(1 + t) (4), products and sums (4).
        let tolerance = Tolerance::of_sum::<R>(16.0, value_size);
        see(0, tolerance.excess(-value, row.log_p), &row, -value, row.log_p);
        let forward = cell.value(&logits);
        see(0, tolerance.excess(-forward, row.log_p), &row, -forward, row.log_p);
        // As above, with ln(1 + t) - t (6) and the offsets of E, themselves sums of K terms.
        let tolerance = Tolerance::of_sum::<R>(24.0, log_theta_size);
        see(2, tolerance.excess(-d_log_theta[gene], row.d_log_theta), &row, -d_log_theta[gene], row.d_log_theta);
        // A product: (x - mu) has one rounding, 1 / (1 + t) a relative error of 5 and that of t (4).
        let theta = R::from_f64(row.log_theta).exp();
        let (_, d_log_mu, _) =
            count_gradient(R::of_count(row.x), R::from_f64(row.mu), R::from_f64(row.mu.ln()), theta, R::ONE / theta);
        see(
            1,
            Tolerance::relative::<R>(12.0).excess(d_log_mu.to_f64(), row.d_log_mu),
            &row,
            d_log_mu.to_f64(),
            row.d_log_mu,
        );
    }
    for (what, (excess, place)) in ["log p", "d log p / d log mu", "d log p / d log theta"].iter().zip(&worst) {
        println!("{} {n_genes} genes, {what}: {excess:.2} of the tolerance; {place}", R::NAME);
    }
    for (what, (excess, place)) in ["log p", "d log p / d log mu", "d log p / d log theta"].iter().zip(&worst) {
        assert!(*excess <= 1.0, "{} {what} misses by {excess} times the tolerance: {place}", R::NAME);
    }
}

#[test]
fn f64_agrees_with_the_table() {
    check_table::<f64>(1);
    check_table::<f64>(40);
}

#[test]
fn f32_agrees_with_the_table() {
    check_table::<f32>(1);
    check_table::<f32>(40);
}

/// log p of one count.
fn log_p(x: u32, mu: f64, log_theta: f64) -> f64 {
    -Cell::<f64>::new(&[x], mu, &[log_theta]).gradient(&[0.0], 1.0, None).0
}

#[test]
fn closed_forms_hold() {
    for mu in [1e-8f64, 0.3, 1.0, 7.0, 300.0, 1e6] {
        for log_theta in [-9.0f64, -1.0, 0.0, 2.0, 18.0] {
            let theta = log_theta.exp();
            let check = |x: u32, want: f64, what: &str| {
                let (size, _) = term_sizes(x, mu.ln(), log_theta);
                Tolerance::of_sum::<f64>(16.0, size).check(log_p(x, mu, log_theta), want, what);
            };
            check(0, -theta * (mu / theta).ln_1p(), "x = 0");
            check(1, mu.ln() - (1.0 + theta) * (mu / theta).ln_1p(), "x = 1");
        }
        for x in [0u32, 1, 2, 5, 11, 12, 13, 100, 5000] {
            let (size, _) = term_sizes(x, mu.ln(), 0.0);
            let geometric = x as f64 * mu.ln() - (x as f64 + 1.0) * mu.ln_1p();
            Tolerance::of_sum::<f64>(16.0, size).check(log_p(x, mu, 0.0), geometric, "theta = 1 is geometric");
            // Poisson, to first order in 1 / theta; the second order is below x^3 / theta^2 = 1e-15.
            let departure = ((x as f64 - mu).powi(2) - x as f64) / (2.0 * 38f64.exp());
            let poisson = x as f64 * mu.ln() - mu - libm::lgamma(x as f64 + 1.0) + departure;
            let (size, _) = term_sizes(x, mu.ln(), 38.0);
            Tolerance::of_sum::<f64>(16.0, size).check(log_p(x, mu, 38.0), poisson, "theta to infinity is Poisson");
        }
    }
}

#[test]
fn probabilities_sum_to_one() {
    for mu in [0.5f64, 3.0, 20.0] {
        for log_theta in [-1.5f64, 0.0, 1.0, 4.0, 12.0] {
            let mut total = 0.0;
            for x in 0.. {
                let p = log_p(x, mu, log_theta).exp();
                total += p;
                if x as f64 > mu && p < 1e-16 {
                    break;
                }
            }
            // The tail beyond is at most a few hundred such terms; each term has a relative error of 1e-14.
            assert!((total - 1.0).abs() < 1e-13, "mu {mu}, log theta {log_theta}: {total}");
        }
    }
}

/// Sizes of the counts from a screen to a simulation, zeros most often.
fn any_count() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(0u32), 4 => 1..6u32, 2 => 0..300u32, 1 => 300..40_000u32]
}

/// Counts, logits, log_theta and the library of one cell; 1 to 67 genes cross the blocks of 16.
#[derive(Debug, Clone)]
struct Draw {
    counts: Vec<u32>,
    logits: Vec<f64>,
    log_theta: Vec<f64>,
    library: f64,
}

fn any_cell() -> impl Strategy<Value = Draw> {
    (1..=67usize).prop_flat_map(|n| {
        let counts = prop_oneof![
            prop::collection::vec(any_count(), n),
            prop::collection::vec(1..300u32, n),
            prop::collection::vec(prop_oneof![9 => Just(0u32), 1 => 1..20u32], n),
        ];
        let logits = prop::collection::vec(-8.0..8.0f64, n);
        (counts, logits, prop::collection::vec(-9.0..18.0f64, n), 0.5..2.0f64).prop_map(
            |(counts, logits, log_theta, factor)| {
                let library = factor * counts.iter().map(|&x| x as f64).sum::<f64>().max(1.0);
                Draw { counts, logits, log_theta, library }
            },
        )
    })
}

/// log mu of every gene of a draw.
fn log_means(draw: &Draw) -> Vec<f64> {
    let top = draw.logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = draw.logits.iter().map(|l| (l - top).exp()).sum();
    draw.logits.iter().map(|l| draw.library.ln() + l - top - sum.ln()).collect()
}

/// Sum of the absolute terms of a cell's log p.
fn cell_size(draw: &Draw) -> f64 {
    let log_mu = log_means(draw);
    (0..draw.counts.len()).map(|g| term_sizes(draw.counts[g], log_mu[g], draw.log_theta[g]).0).sum()
}

/// Derivative by the five-point central stencil, and its tolerance. Its step is scaled to the argument; its error is
/// h^4 / 30 times the fifth derivative (here at most some tens of times the terms of the function, which are
/// exponentials and logarithms of exponentials), plus the roundings of the function over h.
fn difference(at: f64, size: f64, mut f: impl FnMut(f64) -> f64) -> (f64, Tolerance) {
    let h = 5e-4 * at.abs().max(1.0);
    let d = (8.0 * (f(at + h) - f(at - h)) - (f(at + 2.0 * h) - f(at - 2.0 * h))) / (12.0 * h);
    (d, Tolerance { relative: 1e-9, floor: size * (16.0 * f64::EPSILON / h + h.powi(4)) })
}

/// Compares every partial derivative of a cell with differences of `value`.
fn check_differences(draw: &Draw, epsilon: Option<f64>, scale: f64) -> Result<(), TestCaseError> {
    let value = |logits: &[f64], log_theta: &[f64]| {
        let mut cell = Cell::<f64>::new(&draw.counts, draw.library, log_theta);
        match epsilon {
            None => cell.value(logits),
            Some(_) => cell.gradient(logits, 1.0, epsilon).0,
        }
    };
    let size = cell_size(draw);
    let (_, d_logits, d_log_theta) =
        Cell::<f64>::new(&draw.counts, draw.library, &draw.log_theta).gradient(&draw.logits, scale, epsilon);
    for g in 0..draw.counts.len() {
        for (what, of_logit, got) in [("logit", true, d_logits[g]), ("log theta", false, d_log_theta[g])] {
            let from = if of_logit { &draw.logits } else { &draw.log_theta };
            let (want, tolerance) = difference(from[g], size, |v| {
                let mut moved = from.clone();
                moved[g] = v;
                if of_logit { value(&moved, &draw.log_theta) } else { value(&draw.logits, &moved) }
            });
            let excess = tolerance.excess(got / scale, want);
            prop_assert!(excess <= 1.0, "{what} {g}: gradient {}, difference {want}, {tolerance:?}", got / scale);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    #[test]
    fn gradients_agree_with_finite_differences(draw in any_cell(), scale in 0.1..10.0f64) {
        check_differences(&draw, None, scale)?;
    }

    #[test]
    fn gradients_with_epsilon_agree_with_finite_differences(
        draw in any_cell(),
        epsilon in prop_oneof![Just(1e-8f64), 1e-6..0.5f64],
        scale in 0.1..10.0f64,
    ) {
        check_differences(&draw, Some(epsilon), scale)?;
    }

    #[test]
    fn both_paths_with_epsilon_give_the_same_value(
        draw in any_cell(),
        epsilon in prop_oneof![Just(0.0), Just(1e-8f64), 1e-6..0.5f64],
    ) {
        let mut cell = Cell::<f64>::new(&draw.counts, draw.library, &draw.log_theta);
        let (trained, ..) = cell.gradient(&draw.logits, 1.0, Some(epsilon));
        let evaluated = cell.value_with_epsilon(&draw.logits, epsilon);
        // The evaluation sums x log(1 + epsilon / theta) apart.
        let apart = |(&x, log_theta): (&u32, &f64)| f64::from(x) * (epsilon / log_theta.exp()).ln_1p();
        let size = cell_size(&draw) + draw.counts.iter().zip(&draw.log_theta).map(apart).sum::<f64>();
        prop_assert!((trained - evaluated).abs() <= 1e-12 * size, "{trained} {evaluated}");
    }

    #[test]
    fn fused_and_plain_paths_agree(draw in any_cell()) {
        let mut cell = Cell::<f64>::new(&draw.counts, draw.library, &draw.log_theta);
        let (value, d_logits, d_log_theta) = cell.gradient(&draw.logits, 1.0, None);
        let (plain, plain_logits, plain_log_theta) = cell.gradient(&draw.logits, 1.0, Some(0.0));
        let size = cell_size(&draw);
        prop_assert!((value - plain).abs() <= 1e-12 * size, "{value} {plain}");
        prop_assert!((value - cell.value(&draw.logits)).abs() <= 1e-12 * size);
        // Every d log p / d log mu is a difference of x and mu, divided by 1 + t; the coupling adds rho times their sum.
        let log_mu = log_means(&draw);
        let coupling = draw.library + draw.counts.iter().map(|&x| x as f64).sum::<f64>();
        for g in 0..draw.counts.len() {
            let mu = log_mu[g].exp();
            let allowed = 1e-12 * (draw.counts[g] as f64 + mu + mu / draw.library * coupling);
            prop_assert!((d_logits[g] - plain_logits[g]).abs() <= allowed, "logit {g}");
            // The plain path sums terms of the size of x and mu wherever it is used.
            let (_, size) = term_sizes(draw.counts[g], log_mu[g], draw.log_theta[g]);
            let size = size + (draw.counts[g] as f64 + mu) * (mu / (mu + draw.log_theta[g].exp()));
            let error = (d_log_theta[g] - plain_log_theta[g]).abs();
            prop_assert!(error <= 1e-12 * size, "log theta {g}: {} {}", d_log_theta[g], plain_log_theta[g]);
        }
    }

    #[test]
    fn f32_stays_within_its_bound_of_f64(draw in any_cell()) {
        // The same inputs for both: numbers that single precision holds.
        let single = |v: &[f64]| v.iter().map(|&v| v as f32 as f64).collect::<Vec<_>>();
        let draw = Draw {
            logits: single(&draw.logits),
            log_theta: single(&draw.log_theta),
            library: draw.library as f32 as f64,
            ..draw
        };
        let narrow = Cell::<f32>::new(&draw.counts, draw.library, &draw.log_theta).gradient(&draw.logits, 1.0, None);
        let wide = Cell::<f64>::new(&draw.counts, draw.library, &draw.log_theta).gradient(&draw.logits, 1.0, None);
        // Relative error of a mean: the argument of exp is rounded at the size of its distance to the largest logit
        // (at most 16), exp, the sum, the quotient and the products add 8 half spacings. The log of the mean errs by
        // the size of logit and offset (at most 8 + 32).
        let unit = 0.5 * f32::EPSILON as f64;
        let mean_error = unit * 24.0;
        let log_mu = log_means(&draw);
        let sizes: Vec<_> =
            (0..draw.counts.len()).map(|g| term_sizes(draw.counts[g], log_mu[g], draw.log_theta[g])).collect();
        let size: f64 = sizes.iter().map(|s| s.0).sum();
        let n_counts: f64 = draw.counts.iter().map(|&x| x as f64).sum();
        // The terms at 16 roundings each, the mean's error in them, the log mean's in the counts' part.
        let allowed = unit * 16.0 * size + mean_error * (n_counts + draw.library) + unit * 40.0 * n_counts;
        prop_assert!((narrow.0 - wide.0).abs() <= allowed, "value {} {} {allowed}", narrow.0, wide.0);
        let part = |g: usize| {
            let (mu, x) = (log_mu[g].exp(), draw.counts[g] as f64);
            (mu + x) / (1.0 + mu / draw.log_theta[g].exp())
        };
        let coupling: f64 = (0..draw.counts.len()).map(part).sum();
        for g in 0..draw.counts.len() {
            let rho = log_mu[g].exp() / draw.library;
            let allowed = 2.0 * mean_error * (part(g) + rho * coupling) + f32::MIN_POSITIVE as f64;
            prop_assert!((narrow.1[g] - wide.1[g]).abs() <= allowed, "logit {g}: {} {}", narrow.1[g], wide.1[g]);
            let (mu, x) = (log_mu[g].exp(), draw.counts[g] as f64);
            let by_mean = (mu + x) * (mu / (mu + draw.log_theta[g].exp()));
            let allowed = 24.0 * unit * sizes[g].1 + 2.0 * mean_error * by_mean + f32::MIN_POSITIVE as f64;
            let (n, w) = (narrow.2[g], wide.2[g]);
            prop_assert!((n - w).abs() <= allowed, "log theta {g}: {n} {w} {allowed}");
        }
    }
}

#[test]
fn log_mean_survives_the_underflow_of_its_rate() {
    // Rates of e^-150 are zero in single precision; a count there costs 150 nats, no more and no less.
    let logits = [60.0, -90.0, 0.0, -90.0];
    let counts = [500, 1, 0, 3];
    let narrow = Cell::<f32>::new(&counts, 504.0, &[0.0; 4]).gradient(&logits, 1.0, None);
    let wide = Cell::<f64>::new(&counts, 504.0, &[0.0; 4]).gradient(&logits, 1.0, None);
    assert!(wide.0 > 4.0 * 143.0);
    Tolerance { relative: 1e-5, floor: 0.0 }.check(narrow.0, wide.0, "value");
    for g in 0..4 {
        // Sums of terms of the size of the counts, 504, and of the mean: 24 roundings, as in f32_stays_within_its_bound_of_f64.
        let tolerance = Tolerance::of_sum::<f32>(24.0, 1008.0);
        tolerance.check(narrow.1[g], wide.1[g], "logit");
        tolerance.check(narrow.2[g], wide.2[g], "log theta");
    }
    // A count pulls its logit up with the full weight of its size.
    assert!((narrow.1[3] + 3.0).abs() < 1e-4);
}

#[test]
fn log_theta_gradient_accumulates_and_scales() {
    let (counts, logits) = ([0, 4, 30, 1, 700], [0.1, 2.0, -1.0, 0.4, 3.0]);
    let mut cell = Cell::<f64>::new(&counts, 735.0, &[-1.0, 0.0, 2.0, 5.0, 1.0]);
    let (value, d_logits, d_log_theta) = cell.gradient(&logits, 1.0, None);
    for epsilon in [None, Some(0.0)] {
        let mut doubled = vec![10.0; 5];
        let mut d = logits.to_vec();
        if let Some(epsilon) = epsilon {
            cell.set_epsilon(epsilon);
        }
        let again = cell.add_gradient(&mut d, 2.0, &mut doubled);
        assert!((again - value).abs() < 1e-11 * value, "the value carries no scale");
        for g in 0..5 {
            assert!((d[g] - 2.0 * d_logits[g]).abs() < 1e-10);
            assert!((doubled[g] - 10.0 - 2.0 * d_log_theta[g]).abs() < 1e-10);
        }
    }
}

#[test]
fn empty_cells_and_lost_parameters_are_visible_not_fatal() {
    let (value, d, a) = Cell::<f32>::new(&[0; 20], 0.0, &[1.0; 20]).gradient(&[0.3; 20], 1.0, None);
    assert_eq!(value, 0.0, "no counts and no library: certain");
    assert!(d.iter().chain(&a).all(|&v| v == 0.0));
    for place in [0, 7, 19] {
        let mut logits = [0.3; 20];
        logits[place] = f64::NAN;
        assert!(Cell::<f32>::new(&[1; 20], 20.0, &[1.0; 20]).gradient(&logits, 1.0, None).0.is_nan());
        assert!(Cell::<f32>::new(&[1; 20], 20.0, &[1.0; 20]).value(&logits).is_nan());
        let mut log_theta = [0.3; 20];
        log_theta[place] = f64::NAN;
        assert!(Cell::<f64>::new(&[1; 20], 20.0, &log_theta).gradient(&[0.3; 20], 1.0, None).0.is_nan());
    }
}
