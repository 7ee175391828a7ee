//! How sure an edge is: the evidence that an intervention acts on a latent. Derivation: `derivations/evidence.md`.

use crate::model::prior::mask::sigmoid;
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::numerics::symmetric::inverse;

/// Share of the entries without an edge whose leakage is wide, Eq. (E5).
const WIDE_SHARE: f64 = 0.2;
/// How much wider it is.
const WIDE: f64 = 2.5;
/// Leakage of the other effects of an intervention into a latent, as a share of their length, before there is evidence of it.
const LEAKAGE: f64 = 0.1;
/// Weight of that, in entries, over all latents, and of all latents in each.
const LEAKAGE_WEIGHTS: [f64; 2] = [20.0, 10.0];
/// Leakages at which empirical Bayes begins: of the models that it ends at, the likeliest counts.
const STARTS: [f64; 2] = [LEAKAGE, 0.02];
/// Deviation of effects without an edge beyond that of sampling, before there is evidence of it, and the weights of that as those of
/// the leakage.
const SCATTER: f64 = 0.02;
/// Deviation of the mixing of a latent into another before there is evidence of it, and the weight of that in entries.
const MIXING: [f64; 2] = [0.06, 50.0];
/// Leverage of an entry on the mixing of its latent, at most.
const MOST_LEVERAGE: f64 = 0.95;
/// Spread of the shifts of edges about their size, as a share of it, before there is evidence; its weight in edges.
const SPREAD: [f64; 2] = [0.2, 2.0];
/// Distortion of a shift by the mixing of its own latent, in units of the leakage.
const DISTORTION: f64 = 1.27;
/// Distortion of a shift by an encoder that is not linear, as a share of it, Eq. (E15): where cells show all of a latent, and what
/// is added to that where they show nothing of it.
const CURVATURE: [f64; 2] = [0.06, 0.17];
/// Share of a latent's variance that cells do not show, where nobody says: that of simulated screens of 2,000 counts per cell.
const UNSEEN: f64 = 0.15;
/// Least share of the leakage that is left where axes are aimed at the very effects that show it.
const LEAST_LEFT: f64 = 0.2;
/// Rounds of empirical Bayes.
const ROUNDS: usize = 30;
/// Those without mixing, at the start.
const PLAIN_ROUNDS: usize = 5;
/// Rounds in which a Gaussian slab gives the first probabilities.
const FIRST_ROUNDS: usize = 30;
/// Above so many latents, mixing is not estimated: its cost grows with their fourth power.
const MOST_MIXED: usize = 100;
/// Bounds of the share of edges.
const SHARES: [f64; 2] = [1e-4, 0.5];

/// Effects to weigh. A interventions, all with cells; L latents.
#[derive(Debug, Clone, Copy)]
pub struct EffectsToWeigh<'a> {
    /// Effects in deviations within interventions, A x L, those along different latents being independent.
    pub effects: &'a [f64],
    /// Cells of each intervention, A.
    pub cells: &'a [f64],
    /// What leaks besides the other effects of each intervention, as a squared length, A; empty: nothing.
    pub background: &'a [f64],
    /// Share of the variance of each latent that the cells do not show, L; empty: that of a typical screen.
    pub unseen: &'a [f64],
    /// Cells that effects are relative to; 0 without controls.
    pub controls: f64,
    /// Latents about which cells say something, and whose axes may be aimed at these effects; 0: none is.
    pub n_used: usize,
    /// L.
    pub n_latents: usize,
}

/// What is known of every edge. A interventions, L latents.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Posterior probability of each edge, A x L.
    pub probability: Vec<f64>,
    /// Shift, given that there is an edge: posterior mean, A x L.
    pub shift: Vec<f64>,
    /// Its posterior deviation, A x L.
    pub deviation: Vec<f64>,
    /// Effect on each latent where there is no edge, L.
    pub origin: Vec<f64>,
    /// Log-likelihood of the effects, edges integrated out.
    pub log_likelihood: f64,
    /// How much more likely the effects on each latent are than without any edge, nats, L.
    pub gain: Vec<f64>,
    model: EdgeModel,
}

/// What is known of pairs: probability of an edge, shift if there is one, and its deviation; a row of L for each set of cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighed {
    /// Posterior probability of each edge.
    pub probability: Vec<f64>,
    /// Shift, given that there is an edge: posterior mean.
    pub shift: Vec<f64>,
    /// Its posterior deviation.
    pub deviation: Vec<f64>,
}

impl EffectsToWeigh<'_> {
    /// What leaks into the effects of an intervention besides its other effects.
    fn background(&self, a: usize) -> f64 {
        self.background.get(a).copied().unwrap_or(0.0)
    }
}

impl Evidence {
    /// What is known of the edges themselves.
    pub fn weighed(&self) -> Weighed {
        let Self { probability, shift, deviation, .. } = self;
        Weighed { probability: probability.clone(), shift: shift.clone(), deviation: deviation.clone() }
    }

    /// Weighs further effects by the hyper-parameters found: those of cells against others like them, which have their origin
    /// at 0. As everywhere, an edge into a latent without evidence does not count.
    pub fn weigh(&self, of: EffectsToWeigh<'_>) -> Weighed {
        let mut weighed = self.with_model(of, &self.model);
        discount(&mut weighed.probability, &self.gain, of.n_used);
        weighed
    }

    /// Weighs the effects of parts of the cells of interventions, from the origin found: edges are as likely as not,
    /// Eq. (E22), since the whole intervention has them.
    pub fn weigh_again(&self, of: EffectsToWeigh<'_>) -> Weighed {
        let effects: Vec<f64> =
            of.effects.iter().enumerate().map(|(at, effect)| effect - self.origin[at % of.n_latents]).collect();
        self.with_model(EffectsToWeigh { effects: &effects, ..of }, &EdgeModel { share: 0.5, ..self.model.clone() })
    }

    fn with_model(&self, of: EffectsToWeigh<'_>, model: &EdgeModel) -> Weighed {
        let (l, n) = (of.n_latents, of.effects.len());
        let [mut probability, mut shifts, mut deviations] = [(); 3].map(|()| Vec::with_capacity(n));
        for (row, cells) in of.effects.chunks_exact(l).zip(of.cells) {
            let total: f64 = row.iter().map(|effect| effect * effect).sum();
            for (k, &effect) in row.iter().enumerate() {
                let entry = WeighedPair::new(model, k, effect, (total - effect * effect).max(0.0), 1.0 / cells);
                let (shift, deviation) = entry.shift(model, k);
                probability.push(entry.probability);
                shifts.push(shift);
                deviations.push(deviation);
            }
        }
        Weighed { probability, shift: shifts, deviation: deviations }
    }
}

/// Hyper-parameters, by empirical Bayes.
#[derive(Debug, Clone, PartialEq)]
struct EdgeModel {
    /// Share of entries with an edge.
    share: f64,
    /// Shifts of edges lie about this size, either way ...
    size: f64,
    /// ... with this variance.
    variance: f64,
    /// Variance of that size itself: few edges say little about it.
    size_variance: f64,
    /// Squared leakage into each latent, L.
    leakage: Vec<f64>,
    /// Variance of effects without an edge beyond that of sampling, L: interventions differ in more than what they are meant to do.
    scatter: Vec<f64>,
    /// Squared distortion of shifts by the encoder, as a share of them, L.
    curvature: Vec<f64>,
    /// Share of the leakage that shows: axes are aimed at the effects.
    left: f64,
}

/// Logarithm of the density of N(0, v) at y, without its constant.
#[inline(always)]
fn log_normal(y: f64, v: f64) -> f64 {
    -0.5 * (Real::ln(v) + y * y / v)
}

/// ln(e^a + e^b).
#[inline(always)]
fn log_sum(a: f64, b: f64) -> f64 {
    a.max(b) + Real::ln_1p(Real::exp(-(a - b).abs()))
}

/// Variances of an entry without an edge, Eq. (E5), and their mean.
#[derive(Clone, Copy)]
struct Widths {
    narrow: f64,
    wide: f64,
    mean: f64,
}

impl Widths {
    #[inline(always)]
    fn new(sampling: f64, leakage: f64, others: f64) -> Self {
        let (narrow, wide) = (sampling + leakage * others, sampling + leakage * WIDE * WIDE * others);
        Self { narrow, wide, mean: (1.0 - WIDE_SHARE) * narrow + WIDE_SHARE * wide }
    }

    /// Log-density at y, and the probability that the leakage is wide.
    #[inline(always)]
    fn spike(self, y: f64) -> (f64, f64) {
        let narrow = Real::ln(1.0 - WIDE_SHARE) + log_normal(y, self.narrow);
        let wide = Real::ln(WIDE_SHARE) + log_normal(y, self.wide);
        let both = log_sum(narrow, wide);
        (both, Real::exp(wide - both))
    }
}

/// Log-density of a two-sided slab at y, Eq. (E4), and the probability of its upper side.
#[inline(always)]
fn slab(y: f64, size: f64, variance: f64) -> (f64, f64) {
    let (upper, lower) = (log_normal(y - size, variance), log_normal(y + size, variance));
    let both = log_sum(upper, lower);
    (both - std::f64::consts::LN_2, Real::exp(upper - both))
}

/// What leaks into an entry by the mixing of latents, Eq. (E6): A x L each.
struct Mixing {
    mean: Vec<f64>,
    variance: Vec<f64>,
    /// Variance of an entry of the mixing matrix off its diagonal.
    prior: f64,
}

/// Weighs effects by empirical Bayes; `mixes` says whether the mixing of latents is estimated too.
pub fn evidence(of: EffectsToWeigh<'_>, mixes: bool) -> Evidence {
    let [first, second] = STARTS.map(|leakage| evidence_from(leakage, of, mixes));
    if second.log_likelihood > first.log_likelihood { second } else { first }
}

/// Where empirical Bayes ends that begins at a leakage.
fn evidence_from(leakage: f64, of: EffectsToWeigh<'_>, mixes: bool) -> Evidence {
    let (l, n) = (of.n_latents, of.effects.len());
    let mut probability = first_probabilities(leakage, of);
    let mut model = first_model(leakage, of, &probability);
    let mut mixing = Mixing { mean: vec![0.0; n], variance: vec![0.0; n], prior: MIXING[0] * MIXING[0] };
    let mut origin = vec![0.0; l];
    let mixes = mixes && l > 1 && l <= MOST_MIXED;
    let mut found = vec![WeighedPair::default(); n];
    let mut used = model.clone();
    for round in 0..ROUNDS {
        let x: Vec<f64> = (0..n).map(|at| of.effects[at] - origin[at % l]).collect();
        if mixes && round >= PLAIN_ROUNDS {
            mixing.update(of, &x, &probability, &model.leakage);
        }
        let totals: Vec<f64> = x.chunks_exact(l).map(|row| row.iter().map(|x| x * x).sum()).collect();
        vectorized(
            #[inline(always)]
            || {
                for at in 0..n {
                    let y = x[at] - mixing.mean[at];
                    let others = (totals[at / l] - x[at] * x[at]).max(0.0) + of.background(at / l);
                    let sampling = 1.0 / of.cells[at / l] + mixing.variance[at];
                    found[at] = WeighedPair::new(&model, at % l, y, others, sampling);
                    probability[at] = found[at].probability;
                }
            },
        );
        used = model.clone();
        model.update(&found, l);
        move_origin(&mut origin, &found, of.controls);
    }
    let gains: Vec<f64> = (0..l).map(|k| found.iter().skip(k).step_by(l).map(|entry| entry.gain).sum()).collect();
    let mut evidence = Evidence {
        log_likelihood: found.iter().map(|entry| entry.gain + entry.spike).sum(),
        shift: Vec::with_capacity(n),
        deviation: Vec::with_capacity(n),
        probability,
        origin,
        gain: gains,
        model: used,
    };
    discount(&mut evidence.probability, &evidence.gain, of.n_used);
    for (at, entry) in found.iter().enumerate() {
        let (shift, deviation) = entry.shift(&model, at % l);
        evidence.shift.push(shift);
        evidence.deviation.push(deviation);
    }
    evidence
}

/// Gain in nats that a latent needs before its edges count: more than the choice of an axis brings without any edge, Eq. (E7).
pub fn least_gain(n_used: usize) -> f64 {
    n_used as f64 + 2.0
}

/// Takes the probability of edges (rows of L) from latents whose gain does not pay for their axis, Eq. (E7).
fn discount(probability: &mut [f64], gain: &[f64], n_used: usize) {
    if n_used == 0 {
        return;
    }
    let l = gain.len();
    for (at, probability) in probability.iter_mut().enumerate() {
        *probability *= sigmoid(gain[at % l] - least_gain(n_used));
    }
}

/// One intervention and latent, weighed under the present hyper-parameters.
#[derive(Debug, Clone, Copy, Default)]
struct WeighedPair {
    y: f64,
    others: f64,
    narrow: f64,
    wide: f64,
    mean: f64,
    /// Probability of wide leakage, if there is no edge.
    is_wide: f64,
    /// Probability of the upper side, if there is an edge.
    is_upper: f64,
    spike: f64,
    probability: f64,
    /// Log-likelihood with edges integrated out, less that without an edge.
    gain: f64,
}

impl WeighedPair {
    #[inline(always)]
    fn new(model: &EdgeModel, k: usize, y: f64, others: f64, sampling: f64) -> Self {
        let widths = Widths::new(sampling + model.scatter[k], model.leakage[k], others);
        let (spike, is_wide) = widths.spike(y);
        let (slab, is_upper) = slab(y, model.size, widths.mean + model.variance);
        let log_ratio = slab - spike;
        let (on, off) = (Real::ln(model.share), Real::ln(1.0 - model.share));
        let Widths { narrow, wide, mean } = widths;
        Self {
            y,
            others,
            narrow,
            wide,
            mean,
            is_wide,
            is_upper,
            spike,
            probability: sigmoid(on - off + log_ratio),
            gain: log_sum(off, on + log_ratio),
        }
    }

    /// Posterior mean and deviation of the shift, given an edge, Eq. (E15).
    fn shift(&self, model: &EdgeModel, k: usize) -> (f64, f64) {
        let spread = 1.0 - WIDE_SHARE + WIDE_SHARE * WIDE * WIDE;
        let leakage = model.leakage[k] / model.left;
        let variance = self.mean + (DISTORTION * DISTORTION * leakage * spread + model.curvature[k]) * self.y * self.y;
        let slab_variance = model.variance + model.size_variance;
        let weight = slab_variance / (slab_variance + variance);
        let (_, is_upper) = slab(self.y, model.size, variance + slab_variance);
        let upper = model.size + weight * (self.y - model.size);
        let lower = -model.size + weight * (self.y + model.size);
        let distance = upper - lower;
        let mean = is_upper * upper + (1.0 - is_upper) * lower;
        (mean, (weight * variance + is_upper * (1.0 - is_upper) * distance * distance).sqrt())
    }
}

/// Probabilities under a Gaussian slab and leakage of a fixed share of the whole effect, to begin with.
fn first_probabilities(leakage: f64, of: EffectsToWeigh<'_>) -> Vec<f64> {
    let (l, n) = (of.n_latents, of.effects.len());
    let totals: Vec<f64> = of.effects.chunks_exact(l).map(|row| row.iter().map(|e| e * e).sum()).collect();
    let leaking = |a: usize| totals[a] + of.background(a);
    let spike: Vec<f64> =
        (0..n).map(|at| 1.0 / of.cells[at / l] + 1.44 * leakage * leakage * leaking(at / l)).collect();
    let (mut share, mut slabs) = (0.1, vec![9.0; l]);
    let mut probability = vec![0.0; n];
    for _ in 0..FIRST_ROUNDS {
        let (mut sums, mut squares) = (vec![0.0; l], vec![0.0; l]);
        let log_odds = Real::ln(share / (1.0 - share));
        vectorized(
            #[inline(always)]
            || {
                for at in 0..n {
                    let (k, e) = (at % l, of.effects[at]);
                    let log_ratio = log_normal(e, spike[at] + slabs[k]) - log_normal(e, spike[at]);
                    probability[at] = sigmoid(log_odds + log_ratio);
                    sums[k] += probability[at];
                    squares[k] += probability[at] * e * e;
                }
            },
        );
        share = ((1.0 + sums.iter().sum::<f64>()) / (20.0 + n as f64)).clamp(1e-3, 0.5);
        (0..l).for_each(|k| slabs[k] = (squares[k] + 1.0) / (sums[k] + 1.0));
    }
    if probability.iter().all(|&p| p < 0.5) {
        probability.iter_mut().for_each(|p| *p = p.max(1e-3));
    }
    probability
}

fn first_model(leakage: f64, of: EffectsToWeigh<'_>, probability: &[f64]) -> EdgeModel {
    let l = of.n_latents;
    let sum: f64 = probability.iter().sum();
    let squares: f64 = probability.iter().zip(of.effects).map(|(p, e)| p * e * e).sum();
    let size = (squares / sum.max(f64::MIN_POSITIVE)).sqrt().max(1e-3);
    EdgeModel {
        share: 0.1,
        size,
        variance: 0.25 * size * size,
        leakage: vec![leakage * leakage; l],
        scatter: vec![SCATTER * SCATTER; l],
        size_variance: size * size,
        curvature: (0..l).map(|k| curvature(of.unseen.get(k).copied().unwrap_or(UNSEEN))).collect(),
        left: (1.0 - of.n_used.saturating_sub(1) as f64 / of.cells.len().max(1) as f64).max(LEAST_LEFT),
    }
}

/// Square of the distortion of shifts along a latent of which the cells do not show this share.
fn curvature(unseen: f64) -> f64 {
    let share = CURVATURE[0] + CURVATURE[1] * unseen.clamp(0.0, 1.0);
    share * share
}

impl EdgeModel {
    /// A step of empirical Bayes, Eqs. (E9)-(E11).
    fn update(&mut self, found: &[WeighedPair], l: usize) {
        let sum: f64 = found.iter().map(|entry| entry.probability).sum();
        let share = ((1.0 + sum) / (20.0 + found.len() as f64)).clamp(SHARES[0], SHARES[1]);
        // Shifts under either side, as distances from it along it.
        let sides = |entry: &WeighedPair| {
            let weight = self.variance / (self.variance + entry.mean);
            let upper = self.size + weight * (entry.y - self.size);
            let lower = self.size + weight * (-entry.y - self.size);
            (weight, upper, lower)
        };
        let sizes: f64 = found
            .iter()
            .map(|entry| {
                let (_, upper, lower) = sides(entry);
                entry.probability * (entry.is_upper * upper + (1.0 - entry.is_upper) * lower)
            })
            .sum();
        let size = sizes / sum.max(f64::MIN_POSITIVE);
        let squares: f64 = found
            .iter()
            .map(|entry| {
                let (weight, upper, lower) = sides(entry);
                let (upper, lower) = (upper - size, lower - size);
                let spread = entry.is_upper * upper * upper + (1.0 - entry.is_upper) * lower * lower;
                entry.probability * (spread + weight * entry.mean)
            })
            .sum();
        let expected = SPREAD[0] * size;
        let variance = (squares + SPREAD[1] * expected * expected) / (sum + SPREAD[1]);
        let leakage = self.leakage_after(found, l);
        let scatter = self.scatter_after(found, l);
        let size_variance = size * size / (1.0 + sum);
        *self = Self { share, size, variance, size_variance, leakage, scatter, ..self.clone() };
    }

    /// Expected square of the scatter of every entry, Eq. (E3), weighed by how much of it can be seen.
    fn scatter_after(&self, found: &[WeighedPair], l: usize) -> Vec<f64> {
        let (mut sums, mut weights) = (vec![0.0; l], vec![0.0; l]);
        for (at, entry) in found.iter().enumerate() {
            let k = at % l;
            let prior = self.scatter[k];
            let square = |variance: f64| {
                let mean = prior / variance * entry.y;
                mean * mean + prior * (1.0 - prior / variance)
            };
            let expected = (1.0 - entry.is_wide) * square(entry.narrow) + entry.is_wide * square(entry.wide);
            let weight = (1.0 - entry.probability) * prior / entry.narrow;
            sums[k] += weight * expected;
            weights[k] += weight;
        }
        pooled(&sums, &weights, SCATTER * SCATTER)
    }

    /// Expected square of the leakage of every entry, Eq. (E11), weighed by how much of it can be seen.
    fn leakage_after(&self, found: &[WeighedPair], l: usize) -> Vec<f64> {
        let (mut sums, mut weights) = (vec![0.0; l], vec![0.0; l]);
        for (at, entry) in found.iter().enumerate() {
            let k = at % l;
            let narrow = self.leakage[k];
            let square = |prior: f64, variance: f64| {
                let gain = prior * entry.others.sqrt() / variance * entry.y;
                gain * gain + prior * (1.0 - prior * entry.others / variance)
            };
            let wide = WIDE * WIDE;
            let expected = (1.0 - entry.is_wide) * square(narrow, entry.narrow)
                + entry.is_wide * square(narrow * wide, entry.wide) / wide;
            let weight = (1.0 - entry.probability) * narrow * entry.others / entry.narrow;
            sums[k] += weight * expected;
            weights[k] += weight;
        }
        pooled(&sums, &weights, LEAKAGE * LEAKAGE)
    }
}

/// Weighted means for each latent, drawn towards that of all, which is drawn towards `prior`.
fn pooled(sums: &[f64], weights: &[f64], prior: f64) -> Vec<f64> {
    let [of_all, of_each] = LEAKAGE_WEIGHTS;
    let all = (sums.iter().sum::<f64>() + of_all * prior) / (weights.iter().sum::<f64>() + of_all);
    sums.iter().zip(weights).map(|(sum, weight)| (sum + of_each * all) / (weight + of_each)).collect()
}

/// Moves the origin of each latent to the mean of its entries without an edge, Eq. (E12); the controls hold it at 0 with the weight of
/// their number.
fn move_origin(origin: &mut [f64], found: &[WeighedPair], controls: f64) {
    let l = origin.len();
    for (k, origin) in origin.iter_mut().enumerate() {
        let (mut sum, mut weights) = (0.0, 1e-9);
        for entry in found.iter().skip(k).step_by(l) {
            let weight = (1.0 - entry.probability) / entry.mean;
            sum += weight * entry.y;
            weights += weight;
        }
        // Controls see the origin at 0: what moves it is pulled back by as much.
        *origin += (sum - controls * *origin) / (weights + controls);
    }
}

impl Mixing {
    /// Ridge regression of the entries without an edge on the edges of the other latents, each entry being left out where it is
    /// predicted, Eq. (E6).
    fn update(&mut self, of: EffectsToWeigh<'_>, x: &[f64], probability: &[f64], leakage: &[f64]) {
        let l = of.n_latents;
        let spread = 1.0 - WIDE_SHARE + WIDE_SHARE * WIDE * WIDE;
        let (mut squares, mut count) = (0.0, 0.0);
        let edges: Vec<f64> = probability.iter().zip(x).map(|(p, x)| p * x).collect();
        let totals: Vec<f64> = edges.chunks_exact(l).map(|row| row.iter().map(|e| e * e).sum()).collect();
        for k in 0..l {
            let weight: Vec<f64> = (0..of.cells.len())
                .map(|i| {
                    let others = totals[i] - edges[i * l + k] * edges[i * l + k];
                    (1.0 - probability[i * l + k]) / (1.0 / of.cells[i] + leakage[k] * spread * others)
                })
                .collect();
            let Some((covariance, mixing)) = self.ridge(&edges, &weight, x, k, l) else { continue };
            squares += mixing.iter().map(|b| b * b).sum::<f64>();
            squares += (0..l).filter(|&j| j != k).map(|j| covariance[j * l + j]).sum::<f64>();
            count += (l - 1) as f64;
            for (i, row) in edges.chunks_exact(l).enumerate() {
                // The latent itself takes no part: its row and column of the covariance are 0.
                let predicted: f64 = row.iter().zip(&mixing).map(|(e, b)| e * b).sum();
                let of_axis = |axis: &[f64]| -> f64 { axis.iter().zip(row).map(|(c, e)| c * e).sum() };
                let variance: f64 = covariance.chunks_exact(l).zip(row).map(|(axis, e)| e * of_axis(axis)).sum();
                let kept = 1.0 - (weight[i] * variance).min(MOST_LEVERAGE);
                let at = i * l + k;
                self.mean[at] = x[at] - (x[at] - predicted) / kept;
                self.variance[at] = variance / kept;
            }
        }
        self.prior = (squares + MIXING[1] * MIXING[0] * MIXING[0]) / (count + MIXING[1]);
    }

    /// Covariance (L x L) and mean (L) of the row of the mixing matrix into latent `k`, whose own entries are 0; `None` if rounding
    /// leaves no positive definite matrix.
    fn ridge(&self, edges: &[f64], weight: &[f64], x: &[f64], k: usize, l: usize) -> Option<(Vec<f64>, Vec<f64>)> {
        let mut precision = vec![0.0; l * l];
        let mut right = vec![0.0; l];
        vectorized(
            #[inline(always)]
            || {
                for (i, row) in edges.chunks_exact(l).enumerate() {
                    for j in 0..l {
                        let weighted = weight[i] * row[j];
                        right[j] += weighted * x[i * l + k];
                        for (p, e) in precision[j * l..j * l + j + 1].iter_mut().zip(row) {
                            *p += weighted * e;
                        }
                    }
                }
            },
        );
        right[k] = 0.0;
        precision[k * l..(k + 1) * l].fill(0.0);
        (0..l).for_each(|j| precision[j * l + k] = 0.0);
        (0..l).for_each(|j| precision[j * l + j] += 1.0 / self.prior);
        let mut covariance = inverse(&precision, l)?;
        for j in 0..l {
            covariance[j * l + k] = 0.0;
            covariance[k * l + j] = 0.0;
        }
        let mixing = covariance.chunks_exact(l).map(|row| row.iter().zip(&right).map(|(c, r)| c * r).sum()).collect();
        Some((covariance, mixing))
    }
}

/// How many nats the best turn of two latents by 15 to 75 degrees loses, for every pair (L x L, infinite on the diagonal), all else
/// being as the evidence has it, Eq. (E13).
pub fn turn_losses(of: EffectsToWeigh<'_>, found: &Evidence) -> Vec<f64> {
    let l = of.n_latents;
    let model = &found.model;
    let leakage = model.leakage.iter().sum::<f64>() / l as f64;
    let scatter = model.scatter.iter().sum::<f64>() / l as f64;
    let common = EdgeModel { leakage: vec![leakage], scatter: vec![scatter], ..model.clone() };
    let x: Vec<f64> = (0..of.effects.len()).map(|at| of.effects[at] - found.origin[at % l]).collect();
    let totals: Vec<f64> = x.chunks_exact(l).map(|row| row.iter().map(|x| x * x).sum()).collect();
    let mut losses = vec![f64::INFINITY; l * l];
    for j in 0..l {
        for k in j + 1..l {
            let after = |degrees: f64| -> f64 {
                let (sine, cosine) = libm::sincos(degrees.to_radians());
                vectorized(
                    #[inline(always)]
                    || {
                        let mut sum = 0.0;
                        for (i, row) in x.chunks_exact(l).enumerate() {
                            for turned in [cosine * row[j] + sine * row[k], cosine * row[k] - sine * row[j]] {
                                let others = (totals[i] - turned * turned).max(0.0);
                                let entry = WeighedPair::new(&common, 0, turned, others, 1.0 / of.cells[i]);
                                sum += entry.gain + entry.spike;
                            }
                        }
                        sum
                    },
                )
            };
            let angles = (15..=75).step_by(3).flat_map(|degrees| [f64::from(degrees), -f64::from(degrees)]);
            let best = angles.map(after).fold(f64::NEG_INFINITY, f64::max);
            losses[j * l + k] = after(0.0) - best;
            losses[k * l + j] = losses[j * l + k];
        }
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::random::{Purpose, fill_normal, stream};

    fn normals(n: usize, seed: u64) -> Vec<f64> {
        let mut values = vec![0.0; n];
        fill_normal(&mut values, &mut vec![0; n + 1], &mut stream(seed, Purpose::Verification, 77, 0));
        values
    }

    /// Effects of A interventions on one to three of L latents, shifts of `size` give or take a tenth, seen through a mixing of latents
    /// whose entries off the diagonal have this deviation, in `cells` cells each; with the true shifts, 0 where there is no edge.
    fn planted([a, l]: [usize; 2], size: f64, mixing: f64, cells: f64, seed: u64) -> (Vec<f64>, Vec<f64>) {
        let draws = normals(a * l * 3 + l * l, seed);
        let (noise, rest) = draws.split_at(a * l);
        let (spread, rest) = rest.split_at(a * l);
        let (order, mixed) = rest.split_at(a * l);
        let mut shifts = vec![0.0; a * l];
        for (i, row) in shifts.chunks_exact_mut(l).enumerate() {
            let mut latents: Vec<usize> = (0..l).collect();
            latents.sort_by(|&j, &k| order[i * l + j].total_cmp(&order[i * l + k]));
            for &k in &latents[..1 + i % 3.min(l)] {
                row[k] = order[i * l + k].signum() * size * (1.0 + 0.1 * spread[i * l + k]);
            }
        }
        let effects = (0..a * l).map(|at| {
            let (i, k) = (at / l, at % l);
            let leaks = (0..l).filter(|&j| j != k).map(|j| mixing * mixed[k * l + j] * shifts[i * l + j]).sum::<f64>();
            shifts[at] + leaks + noise[at] / cells.sqrt()
        });
        (effects.collect(), shifts)
    }

    fn weigh(effects: &[f64], cells: &[f64], l: usize) -> Evidence {
        evidence(
            EffectsToWeigh { effects, cells, background: &[], unseen: &[], controls: 0.0, n_used: l, n_latents: l },
            true,
        )
    }

    #[test]
    fn planted_edges_are_found_at_the_rate_that_is_claimed() {
        for (size, mixing, least_recall) in [(5.0, 0.04, 0.98), (5.0, 0.08, 0.97), (1.0, 0.04, 0.95)] {
            let (mut claimed, mut false_ones, mut called, mut hits, mut edges, mut covered) =
                (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
            for seed in 0..12 {
                let (effects, truth) = planted([100, 12], size, mixing, 60.0, seed);
                let found = weigh(&effects, &[60.0; 100], 12);
                for (at, &shift) in truth.iter().enumerate() {
                    let is_edge = shift != 0.0;
                    let p = found.probability[at];
                    edges += f64::from(u8::from(is_edge));
                    if p > 0.9 {
                        called += 1.0;
                        claimed += 1.0 - p;
                        false_ones += f64::from(u8::from(!is_edge));
                        hits += f64::from(u8::from(is_edge));
                    }
                    let within = (found.shift[at] - shift).abs() < 1.96 * found.deviation[at];
                    covered += f64::from(u8::from(is_edge && within));
                }
            }
            let recall = hits / edges;
            assert!(recall > least_recall, "size {size}, mixing {mixing}: recall {recall}");
            // Intervals of 95 % hold the truth as often, within four standard errors of the number of edges.
            let coverage = covered / edges;
            assert!(coverage > 0.95 - 4.0 * (0.95 * 0.05 / edges).sqrt(), "size {size}, mixing {mixing}: {coverage}");
            // Three standard errors of the number of false edges.
            let most = claimed + 3.0 * (claimed + 1.0_f64).sqrt();
            assert!(
                false_ones <= most,
                "size {size}, mixing {mixing}: {false_ones} of {called} false, {claimed} claimed"
            );
        }
    }

    #[test]
    fn an_empty_screen_has_no_edge() {
        let mut with_edges = 0;
        for seed in 0..60 {
            let (effects, _) = planted([60, 10], 0.0, 0.0, 40.0, 1000 + seed);
            let found = weigh(&effects, &[40.0; 60], 10);
            with_edges += usize::from(found.probability.iter().any(|&p| p > 0.95));
        }
        assert_eq!(with_edges, 0);
    }

    #[test]
    fn edges_of_many_sizes_are_not_taken_for_leakage() {
        // Few interventions, each with effects of very different sizes, which look much like a large leakage.
        let (a, l) = (33, 16);
        for seed in 0..6 {
            let mut normal = vec![0.0f64; 2 * a * l];
            fill_normal(&mut normal, &mut vec![0; 2 * a * l + 1], &mut stream(seed, Purpose::Turn, 40, 0));
            let (sizes, noise) = normal.split_at(a * l);
            let is_edge = |at: usize| (at / l + 3 * (at % l)) % 16 < 5;
            let shift = |at: usize| if is_edge(at) { sizes[at].signum() * f64::exp(1.2 * sizes[at]) } else { 0.0 };
            let effects: Vec<f64> = (0..a * l).map(|at| shift(at) + 0.1 * noise[at]).collect();
            let found = weigh(&effects, &vec![100.0; a], l);
            let sure: Vec<usize> = (0..a * l).filter(|&at| found.probability[at] > 0.9).collect();
            assert!(sure.iter().all(|&at| is_edge(at)), "seed {seed}");
            // A third of the shifts are shorter than 0.3.
            assert!(sure.len() > 50, "seed {seed}: {} of 165", sure.len());
        }
    }

    #[test]
    fn one_entry_by_hand() {
        let model = EdgeModel {
            share: 0.2,
            size: 3.0,
            variance: 0.5,
            leakage: vec![0.01],
            scatter: vec![0.003],
            size_variance: 0.01,
            curvature: vec![0.0064],
            left: 0.8,
        };
        let (y, others, sampling) = (2.2f64, 9.0, 0.017);
        let entry = WeighedPair::new(&model, 0, y, others, sampling);
        let density = |y: f64, v: f64| f64::exp(-0.5 * y * y / v) / v.sqrt();
        let (narrow, wide) = (0.02 + 0.01 * 9.0, 0.02 + 0.0625 * 9.0);
        let mean = 0.8 * narrow + 0.2 * wide;
        let spike = 0.8 * density(y, narrow) + 0.2 * density(y, wide);
        let slab = 0.5 * (density(y - 3.0, mean + 0.5) + density(y + 3.0, mean + 0.5));
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12 * want.abs(), "{got} {want}");
        near(entry.probability, 0.2 * slab / (0.2 * slab + 0.8 * spike));
        near(entry.gain, (0.8 + 0.2 * slab / spike).ln());
        near(entry.spike, spike.ln());
        // A mixture of two normal priors and a normal observation: nearly all on the upper side.
        let variance = mean + (1.27 * 1.27 * 0.01 / 0.8 * 2.05 + 0.0064) * y * y;
        let weight = 0.51 / (0.51 + variance);
        let (upper, lower) = (3.0 + weight * (y - 3.0), -3.0 + weight * (y + 3.0));
        let sides = [density(y - 3.0, variance + 0.51), density(y + 3.0, variance + 0.51)];
        let is_upper = sides[0] / (sides[0] + sides[1]);
        assert!(is_upper > 0.999_999);
        let (shift, deviation) = entry.shift(&model, 0);
        near(shift, is_upper * upper + (1.0 - is_upper) * lower);
        let of_sides = is_upper * (1.0 - is_upper) * (upper - lower) * (upper - lower);
        near(deviation, (weight * variance + of_sides).sqrt());
        // Where cells show nothing of a latent, a shift is known to 23 % at best.
        near(curvature(1.0), 0.23 * 0.23);
    }

    #[test]
    fn a_latent_that_cells_hardly_show_has_wider_intervals() {
        let (effects, _) = planted([60, 6], 5.0, 0.04, 60.0, 3);
        let cells = [60.0; 60];
        let unseen = [0.05, 0.05, 0.05, 0.6, 0.6, 0.6];
        let weigh = |n_used: usize| {
            let of = EffectsToWeigh {
                effects: &effects,
                cells: &cells,
                background: &[],
                unseen: &unseen,
                controls: 0.0,
                n_used,
                n_latents: 6,
            };
            evidence(of, true)
        };
        // Mean deviation, as a share of the shift, of the sure edges into half of the latents.
        let share = |found: &Evidence, of: std::ops::Range<usize>| {
            let sure = (0..effects.len()).filter(|&at| of.contains(&(at % 6)) && found.probability[at] > 0.9);
            let shares: Vec<f64> = sure.map(|at| found.deviation[at] / found.shift[at].abs()).collect();
            shares.iter().sum::<f64>() / shares.len() as f64
        };
        let found = weigh(6);
        let (shown, unseen) = (share(&found, 0..3), share(&found, 3..6));
        assert!(unseen > 1.2 * shown, "{unseen} {shown}");
        // Many axes, aimed at few effects.
        let aimed = weigh(48);
        assert!(share(&aimed, 0..3) > 1.1 * shown, "{} {shown}", share(&aimed, 0..3));
    }

    #[test]
    fn latents_that_are_always_hit_together_can_be_turned() {
        let (a, l) = (80, 6);
        let draws = normals(2 * a * l, 5);
        for together in [true, false] {
            let mut effects: Vec<f64> = draws[..a * l].iter().map(|e| e / 50f64.sqrt()).collect();
            for i in 0..a {
                // Shifts of all sizes: two normal ones, along two latents that the same interventions hit, are two normal ones along
                // any other axes of their plane. Latents 0 and 5 are hit by the same interventions, or by different ones.
                let size = |k: usize| draws[a * l + i * l + k] * 4.0;
                let k = i % 5;
                effects[i * l + k] += size(k);
                if k == 0 && (together || i % 2 == 0) {
                    effects[i * l + 5] += size(5);
                    if !together {
                        effects[i * l] -= size(0);
                    }
                }
            }
            let cells = vec![50.0; a];
            let of = EffectsToWeigh {
                effects: &effects,
                cells: &cells,
                background: &[],
                unseen: &[],
                controls: 0.0,
                n_used: l,
                n_latents: l,
            };
            let losses = turn_losses(of, &evidence(of, true));
            assert_eq!(losses[5] < 6.0, together, "{}", losses[5]);
            for (j, k) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
                assert!(losses[j * l + k] > 20.0, "{j} {k}: {}", losses[j * l + k]);
            }
        }
    }
}
