//! What the training cells of combinations show beyond a model's predictions of them, carried over to other combinations by Gaussian
//! process regression (kriging). Derivation: `derivations/predictions.md`.

use crate::numerics::real::Real;
use crate::numerics::symmetric;

/// Combinations that are carried over from, at most, and those of them by which the kernel's scales are found.
pub const MOST_SITES: usize = 512;
const SITES_FOR_SCALES: usize = 160;
/// Factors by which scales are tried larger and smaller, coarse to fine.
const STEPS: [f64; 4] = [8.0, 3.0, 1.7, 1.25];
/// Rounds over all scales with each factor, at most.
const ROUNDS: usize = 8;
/// Smallest share of the residuals' variance that a component of the kernel is tried with: as good as none.
const LEAST_SHARE: f64 = 1e-4;
/// Combinations that what is expected of a gene's residuals is worth.
const PRIOR_SITES: f64 = 4.0;

/// A combination, as the kernel sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Numbers of the interventions, ascending, and their doses.
    pub members: Vec<(u32, f32)>,
    /// The model's prior mean of its cells' latents, L.
    pub latents: Vec<f64>,
}

/// What the training cells of a combination show beyond the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Residual {
    /// The combination.
    pub site: Site,
    /// Observed less predicted effect, G.
    pub residual: Vec<f64>,
    /// Sampling variance of the observed effect, G.
    pub variance: Vec<f64>,
}

impl Residual {
    /// Mean over genes of the sampling variance.
    fn mean_variance(&self) -> f64 {
        self.variance.iter().sum::<f64>() / self.variance.len() as f64
    }
}

/// Scales of the kernel, Eq. (Cb7).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scales {
    /// Variance of what a member brings into every combination.
    member: f64,
    /// Variance of what depends smoothly on the latents.
    smooth: f64,
    /// Distance in latents over which that changes.
    length: f64,
    /// Variance of what is a combination's own.
    own: f64,
}

/// Residuals of training combinations, ready to be carried over.
#[derive(Debug, Clone)]
pub struct Kriging {
    sites: Vec<Site>,
    scales: Scales,
    /// Whether residuals vanish without intervention.
    from_controls: bool,
    /// Inverse of the residuals' covariance, n x n.
    precision: Vec<f64>,
    /// The same times the residuals, n x G.
    solved: Vec<f64>,
    /// Variance of each gene's residuals, in units of the covariance, G.
    genes: Vec<f64>,
}

/// What is carried over to a combination.
#[derive(Debug, Clone, PartialEq)]
pub struct CarriedOver {
    /// What comes to the model's prediction, G.
    pub residual: Vec<f64>,
    /// Variance of the truth about the prediction that this makes, G, Eq. (Cb11).
    pub variance: Vec<f64>,
}

impl Kriging {
    /// Finds the scales of the kernel by the marginal likelihood, Eq. (Cb8), and solves for its weights. `from_controls`: residuals
    /// are differences from control cells, so that they vanish where nothing acts. `None` without residuals, or where they are no
    /// larger than their noise.
    pub fn new(residuals: &[Residual], from_controls: bool) -> Option<Self> {
        let g = residuals.first()?.residual.len();
        let n = residuals.len();
        let squares = |r: &Residual| r.residual.iter().map(|x| x * x).sum::<f64>() / g as f64;
        let signal = residuals.iter().map(|r| squares(r) - r.mean_variance()).sum::<f64>() / n as f64;
        if signal <= 0.0 || !signal.is_finite() {
            return None;
        }
        let some: Vec<&Residual> =
            (0..n.min(SITES_FOR_SCALES)).map(|i| &residuals[i * n / n.min(SITES_FOR_SCALES)]).collect();
        let scales = likeliest_scales(&some, from_controls, signal);
        let all: Vec<&Residual> = residuals.iter().collect();
        let precision = symmetric::inverse(&SitePairs::new(&all, from_controls).covariance(&scales), n)?;
        let sites: Vec<Site> = residuals.iter().map(|r| r.site.clone()).collect();
        let mut solved = vec![0.0; n * g];
        for (to, weights) in solved.chunks_exact_mut(g).zip(precision.chunks_exact(n)) {
            add_weighted(to, weights, residuals.iter().map(|r| &r.residual[..]));
        }
        // What is expected of a gene follows its sampling variance, which says how much there is of it.
        let mut genes = vec![0.0; g];
        for r in residuals {
            genes.iter_mut().zip(&r.variance).for_each(|(gene, variance)| *gene += variance);
        }
        let noise = genes.iter().sum::<f64>() / g as f64;
        genes.iter_mut().for_each(|gene| *gene = PRIOR_SITES * if noise > 0.0 { *gene / noise } else { 1.0 });
        for (solved, r) in solved.chunks_exact(g).zip(residuals) {
            for (gene, (solved, residual)) in genes.iter_mut().zip(solved.iter().zip(&r.residual)) {
                *gene += solved * residual;
            }
        }
        genes.iter_mut().for_each(|gene| *gene /= n as f64 + PRIOR_SITES);
        Some(Self { sites, scales, from_controls, precision, solved, genes })
    }

    /// What is carried over to a combination, Eqs. (Cb9) to (Cb11).
    pub fn carry_over(&self, site: &Site) -> CarriedOver {
        let (n, g) = (self.sites.len(), self.genes.len());
        let kernel: Vec<f64> =
            self.sites.iter().map(|other| self.scales.kernel(site, other, self.from_controls)).collect();
        let mut residual = vec![0.0; g];
        add_weighted(&mut residual, &kernel, self.solved.chunks_exact(g));
        let mut known = vec![0.0; n];
        add_weighted(&mut known, &kernel, self.precision.chunks_exact(n));
        let known: f64 = known.iter().zip(&kernel).map(|(a, b)| a * b).sum();
        let left = (self.scales.kernel(site, site, self.from_controls) - known).max(0.0);
        CarriedOver { residual, variance: self.genes.iter().map(|gene| gene * left).collect() }
    }
}

/// Adds rows times weights.
fn add_weighted<'a>(to: &mut [f64], weights: &[f64], rows: impl Iterator<Item = &'a [f64]>) {
    for (weight, row) in weights.iter().zip(rows) {
        to.iter_mut().zip(row).for_each(|(to, x)| *to += weight * x);
    }
}

impl Scales {
    /// Covariance of what two combinations show beyond the model, noise apart, Eq. (Cb7).
    fn kernel(&self, a: &Site, b: &Site, from_controls: bool) -> f64 {
        let parts = KernelParts::new(a, b);
        self.of_parts(&parts, (squared_length(&a.latents), squared_length(&b.latents)), from_controls)
    }

    fn of_parts(&self, parts: &KernelParts, (a, b): (f64, f64), from_controls: bool) -> f64 {
        let scale = -0.5 / (self.length * self.length);
        let mut smooth = Real::exp(scale * parts.distance);
        if from_controls {
            smooth -= Real::exp(scale * (a + b));
        }
        let own = if parts.same { self.own } else { 0.0 };
        self.member * parts.shared + self.smooth * smooth + own
    }

    fn each(&mut self) -> [&mut f64; 4] {
        [&mut self.member, &mut self.smooth, &mut self.length, &mut self.own]
    }
}

/// What the kernel takes of two combinations.
struct KernelParts {
    /// Sum over shared members of the products of their doses.
    shared: f64,
    /// Squared distance of the latents.
    distance: f64,
    /// Whether they are the same.
    same: bool,
}

impl KernelParts {
    fn new(a: &Site, b: &Site) -> Self {
        let dose = |c: u32| b.members.iter().find(|member| member.0 == c).map_or(0.0, |member| f64::from(member.1));
        Self {
            shared: a.members.iter().map(|&(c, w)| f64::from(w) * dose(c)).sum(),
            distance: a.latents.iter().zip(&b.latents).map(|(a, b)| (a - b) * (a - b)).sum(),
            same: a.members == b.members && a.members.iter().any(|member| member.1 != 0.0),
        }
    }
}

fn squared_length(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum()
}

/// What the covariance of some residuals is made of, whatever its scales.
struct SitePairs {
    /// Of each pair, the lower triangle by rows.
    parts: Vec<KernelParts>,
    /// Squared length of the latents of each.
    lengths: Vec<f64>,
    /// Sampling variance of each, mean over genes.
    noise: Vec<f64>,
    from_controls: bool,
}

impl SitePairs {
    fn new(residuals: &[&Residual], from_controls: bool) -> Self {
        let pairs = (0..residuals.len()).flat_map(|i| (0..=i).map(move |j| (i, j)));
        Self {
            parts: pairs.map(|(i, j)| KernelParts::new(&residuals[i].site, &residuals[j].site)).collect(),
            lengths: residuals.iter().map(|r| squared_length(&r.site.latents)).collect(),
            noise: residuals.iter().map(|r| r.mean_variance()).collect(),
            from_controls,
        }
    }

    /// The covariance of the residuals, noise included: n x n, of which the lower triangle is filled.
    fn covariance(&self, scales: &Scales) -> Vec<f64> {
        let n = self.lengths.len();
        let mut covariance = vec![0.0; n * n];
        let mut parts = self.parts.iter();
        for i in 0..n {
            for j in 0..=i {
                let parts = parts.next().expect("a pair");
                let lengths = (self.lengths[i], self.lengths[j]);
                covariance[i * n + j] = scales.of_parts(parts, lengths, self.from_controls);
            }
            covariance[i * n + i] += self.noise[i];
        }
        covariance
    }
}

/// The scales that the residuals are likeliest under, by trying each in turn larger and smaller; `signal`: their variance, noise apart.
fn likeliest_scales(residuals: &[&Residual], from_controls: bool, signal: f64) -> Scales {
    let n = residuals.len();
    let pairs = SitePairs::new(residuals, from_controls);
    let products: Vec<f64> = (0..n)
        .flat_map(|i| (0..=i).map(move |j| (i, j)))
        .map(|(i, j)| {
            let (a, b) = (&residuals[i].residual, &residuals[j].residual);
            a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / a.len() as f64
        })
        .collect();
    let loss = |scales: &Scales| -> f64 {
        let covariance = pairs.covariance(scales);
        let Some((precision, log_determinant)) = symmetric::inverse_and_log_determinant(&covariance, n) else {
            return f64::INFINITY;
        };
        let mut trace = 0.0;
        let mut at = 0;
        for i in 0..n {
            for j in 0..=i {
                trace += if i == j { 1.0 } else { 2.0 } * precision[i * n + j] * products[at];
                at += 1;
            }
        }
        log_determinant + trace
    };
    let typical = (pairs.lengths.iter().sum::<f64>() / n as f64).sqrt().max(1.0);
    let third = signal / 3.0;
    let mut best = Scales { member: third / 2.0, smooth: third, length: typical, own: third };
    let bounds = [
        (LEAST_SHARE * signal, 10.0 * signal),
        (LEAST_SHARE * signal, 10.0 * signal),
        (typical / 10.0, 10.0 * typical),
        (LEAST_SHARE * signal, 10.0 * signal),
    ];
    let mut least = loss(&best);
    for step in STEPS {
        for _ in 0..ROUNDS {
            let before = least;
            for (which, (low, high)) in bounds.into_iter().enumerate() {
                for factor in [step, 1.0 / step] {
                    let mut tried = best;
                    let scale = &mut *tried.each()[which];
                    *scale = (*scale * factor).clamp(low, high);
                    let found = loss(&tried);
                    if found < least {
                        (least, best) = (found, tried);
                        break;
                    }
                }
            }
            if least == before {
                break;
            }
        }
    }
    best
}

/// Which of so many combinations are carried over from, where they are too many: those that share a member with what is `wanted`, then
/// the rest, each evenly spread.
pub fn chosen_sites(members: &[&[(u32, f32)]], wanted: impl Fn(u32) -> bool) -> Vec<usize> {
    let (shared, others): (Vec<usize>, Vec<usize>) =
        (0..members.len()).partition(|&i| members[i].iter().any(|&(a, _)| wanted(a)));
    let spread = |from: &[usize], most: usize| -> Vec<usize> {
        let n = from.len().min(most);
        (0..n).map(|i| from[i * from.len() / n]).collect()
    };
    let mut chosen = spread(&shared, MOST_SITES);
    chosen.extend(spread(&others, MOST_SITES - chosen.len()));
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::random::{Purpose, fill_normal, stream};

    const G: usize = 400;

    fn normal(n: usize, item: u64) -> Vec<f64> {
        let mut values = vec![0.0; n];
        fill_normal(&mut values, &mut vec![0; n], &mut stream(11, Purpose::Shuffle, 0, item));
        values
    }

    /// All pairs of `n` interventions and these alone; each acts on one of two latents.
    fn sites(n: u32) -> Vec<Site> {
        let shift = |a: u32| [[2.0, 0.0], [0.0, -2.0], [-1.0, 1.5], [1.0, 0.5]][a as usize % 4];
        let site = |members: &[u32]| Site {
            members: members.iter().map(|&a| (a, 1.0)).collect(),
            latents: (0..2).map(|k| members.iter().map(|&a| shift(a)[k]).sum()).collect(),
        };
        let pairs = (0..n).flat_map(|a| (a + 1..n).map(move |b| vec![a, b]));
        (0..n).map(|a| vec![a]).chain(pairs).map(|members| site(&members)).collect()
    }

    fn mean_square(values: impl Iterator<Item = f64>) -> f64 {
        let values: Vec<f64> = values.collect();
        values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64
    }

    /// Residuals of each site with so much noise, and the truth behind them.
    fn residuals(sites: &[Site], truth: &dyn Fn(&Site) -> Vec<f64>, noise: f64) -> Vec<Residual> {
        let of = |(i, site): (usize, &Site)| Residual {
            site: site.clone(),
            residual: truth(site).iter().zip(normal(G, 1000 + i as u64)).map(|(t, e)| t + noise * e).collect(),
            variance: vec![noise * noise; G],
        };
        sites.iter().enumerate().map(of).collect()
    }

    #[test]
    fn what_members_bring_along_is_carried_over_to_pairs_never_seen() {
        let sites = sites(7);
        let of_member = normal(7 * G, 0);
        let truth = |site: &Site| -> Vec<f64> {
            let part = |&(a, dose): &(u32, f32), gene: usize| f64::from(dose) * of_member[a as usize * G + gene];
            (0..G).map(|gene| site.members.iter().map(|member| part(member, gene)).sum()).collect()
        };
        let (seen, left): (Vec<Site>, Vec<Site>) =
            sites.iter().cloned().enumerate().fold((Vec::new(), Vec::new()), |(mut seen, mut left), (i, site)| {
                if site.members.len() == 2 && i % 3 == 0 {
                    left.push(site)
                } else {
                    seen.push(site)
                }
                (seen, left)
            });
        let kriging = Kriging::new(&residuals(&seen, &truth, 0.3), true).expect("residuals beyond their noise");
        for site in &left {
            let (carried, truth) = (kriging.carry_over(site), truth(site));
            let miss = mean_square(carried.residual.iter().zip(&truth).map(|(a, b)| a - b));
            // Two effects, of which each is known by 0.3 from its own cells and by as much from its pairs.
            assert!(miss < 2.0 * 0.3 * 0.3, "{miss}");
            let said = carried.variance.iter().sum::<f64>() / G as f64;
            assert!(said > 0.7 * miss && said < 1.5 * miss, "{said} {miss}");
        }
        // At another dose, in proportion.
        let half = |dose: f32| Site { members: vec![(0, dose)], latents: vec![f64::from(dose) * 2.0, 0.0] };
        let (one, other) = (kriging.carry_over(&half(0.5)).residual, truth(&half(0.5)));
        assert!(mean_square(one.iter().zip(&other).map(|(a, b)| a - b)) < 0.1 * mean_square(other.iter().copied()));
        let none = kriging.carry_over(&Site { members: vec![(0, 0.0)], latents: vec![0.0, 0.0] });
        assert!(none.residual.iter().all(|x| *x == 0.0) && none.variance.iter().all(|x| *x == 0.0));
    }

    #[test]
    fn what_is_a_combinations_own_is_not_carried_over_but_kept() {
        let sites = sites(8);
        let truth = |site: &Site| normal(G, 50 + site.members.iter().map(|m| 1u64 << m.0).sum::<u64>());
        let (seen, left) = (&sites[..30], &sites[30..]);
        let seen_residuals = residuals(seen, &truth, 0.1);
        let kriging = Kriging::new(&seen_residuals, true).expect("residuals beyond their noise");
        for site in left {
            let carried = kriging.carry_over(site);
            assert!(mean_square(carried.residual.iter().copied()) < 0.1, "nothing is known of others");
            let said = carried.variance.iter().sum::<f64>() / G as f64;
            assert!(said > 0.8 && said < 1.3, "{said}");
        }
        for site in seen {
            let (carried, truth) = (kriging.carry_over(site), truth(site));
            assert!(mean_square(carried.residual.iter().zip(&truth).map(|(a, b)| a - b)) < 0.02);
        }
    }

    #[test]
    fn what_depends_smoothly_on_the_latents_is_interpolated() {
        // Interventions that are all different, so that nothing is shared but the place.
        let place = normal(2 * 90, 7);
        let sites: Vec<Site> = (0..90)
            .map(|i| Site { members: vec![(i as u32, 1.0)], latents: place[2 * i..2 * i + 2].to_vec() })
            .collect();
        let waves = normal(4 * G, 3);
        let truth = |site: &Site| -> Vec<f64> {
            let z = &site.latents;
            (0..G)
                .map(|gene| {
                    let w = &waves[4 * gene..4 * gene + 4];
                    (w[0] * z[0] + w[1] * z[1]).sin() * w[2] + w[3] * z[0] * z[1]
                })
                .collect()
        };
        let kriging = Kriging::new(&residuals(&sites[..80], &truth, 0.1), true).expect("residuals");
        let miss = sites[80..].iter().map(|site| {
            let (carried, truth) = (kriging.carry_over(site).residual, truth(site));
            mean_square(carried.iter().zip(&truth).map(|(a, b)| a - b)) / mean_square(truth.into_iter())
        });
        assert!(miss.sum::<f64>() / 10.0 < 0.15);
    }

    #[test]
    fn noise_alone_is_no_reason_to_change_anything() {
        let sites = sites(8);
        let nothing = |_: &Site| vec![0.0; G];
        match Kriging::new(&residuals(&sites, &nothing, 0.5), true) {
            None => {}
            Some(kriging) => {
                let carried = kriging.carry_over(&sites[20]);
                assert!(mean_square(carried.residual.iter().copied()) < 0.01, "a share of noise of 0.25");
            }
        }
        assert!(Kriging::new(&[], true).is_none());
    }

    #[test]
    fn of_too_many_those_with_wanted_members_come_first() {
        let members: Vec<Vec<(u32, f32)>> = (0..2000u32).map(|i| vec![(i % 50, 1.0), (50 + i % 7, 1.0)]).collect();
        let members: Vec<&[(u32, f32)]> = members.iter().map(|members| &members[..]).collect();
        let chosen = chosen_sites(&members, |a| a == 3);
        assert_eq!(chosen.len(), MOST_SITES);
        assert!((3..2000).step_by(50).all(|i| chosen.contains(&i)) && chosen.is_sorted());
        assert_eq!(chosen_sites(&members[..5], |_| false), [0, 1, 2, 3, 4]);
    }
}
