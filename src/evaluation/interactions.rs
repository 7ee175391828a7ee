//! Combinations that act otherwise than by the sum of their members: which latents deviate, how surely, and in which way.
//! Derivation: `derivations/interactions.md`.

use serde::Serialize;

use crate::data::combinations::{Combination, combination_label};
use crate::data::dataset::{Dataset, InterventionRows};
use crate::evaluation::edge::{DEVIATIONS_OF_95, averaged, q_values};
use crate::inference::effects::InterventionEffects;
use crate::model::prior::evidence::{EffectsToWeigh, Weighed, evidence};
use crate::numerics::real::Real;
use crate::numerics::symmetric::inverse;
use crate::training::turn::TurnedEvidence;

/// Weight with which interactions without evidence lie at 0, in cells: a sum is what is expected.
const FIXED_ORIGIN: f64 = 1e12;
/// How much of the length of a sum leaks, as a share of how much of other deviations does, Eq. (Ia3).
const FROM_SUMS: f64 = 0.4;
/// Share of a deviation outside of the span of the members above which it is new, Eq. (Ia5).
const NEW_SHARE: f64 = 0.5;
/// By which factor one member must weigh more than another to dominate it.
const DOMINANCE: f64 = 2.0;

/// In which way a combination acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InteractionClass {
    /// As the sum of its members, as far as its cells can tell.
    Additive,
    /// More than the sum, along the members' effects.
    Synergy,
    /// Less than the sum, along the members' effects.
    Suppression,
    /// As one of the members, the other being masked.
    Dominance,
    /// Otherwise than any sum of multiples of its members' effects.
    Neomorphism,
}

impl InteractionClass {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Additive, Self::Synergy, Self::Suppression, Self::Dominance, Self::Neomorphism];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Additive => "additive",
            Self::Synergy => "synergy",
            Self::Suppression => "suppression",
            Self::Dominance => "dominance",
            Self::Neomorphism => "neomorphism",
        }
    }
}

/// A combination that has been compared with its members.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedCombination {
    /// Its name.
    pub label: String,
    /// Numbers of its members, ascending.
    pub members: Vec<u32>,
    /// Their doses.
    pub doses: Vec<f32>,
    /// Its training cells.
    pub n_cells: usize,
    /// In which way it acts.
    pub class: InteractionClass,
    /// By how much each member's effect is to be multiplied to come nearest to that of the combination; 1 each in a sum.
    pub coefficients: Vec<f64>,
}

impl ComparedCombination {
    /// Length of its coefficients: the root of its number of members in a sum, more in a synergy.
    pub fn magnitude(&self) -> f64 {
        self.coefficients.iter().map(|c| c * c).sum::<f64>().sqrt()
    }
}

/// One combination and one latent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interaction {
    /// Number of the combination among those compared.
    pub combination: usize,
    /// Number of the latent.
    pub latent: usize,
    /// Posterior probability that the combination deviates from the sum of its members on this latent.
    pub probability: f64,
    /// Local false sign rate of the deviation.
    pub lfsr: f64,
    /// The share of additive pairs to expect among all at least as probable.
    pub q_value: f64,
    /// By how much it deviates, if it does, in deviations of the latent's prior: posterior mean.
    pub deviation: f64,
    /// Lower end of its 95 % interval.
    pub deviation_low: f64,
    /// Upper end of its 95 % interval.
    pub deviation_high: f64,
    /// The sum of the members' effects.
    pub sum: f64,
}

/// What is found of combinations.
#[derive(Debug, Clone, PartialEq)]
pub struct Interactions {
    /// Combinations with enough cells, whose members have enough cells alone.
    pub combinations: Vec<ComparedCombination>,
    /// Every pair of these and a latent, by combination, then latent.
    pub pairs: Vec<Interaction>,
    /// Names of the combinations that were not compared.
    pub not_compared: Vec<String>,
}

/// Deviations of combinations from their sums on whitened latents, Eqs. (Ia1) and (Ia2): a row of L each.
struct Deviations {
    rows: Vec<f64>,
    /// Sums of the members' effects.
    sums: Vec<f64>,
    /// Effects of the combinations.
    joint: Vec<f64>,
    /// Effects of the members, times their doses.
    of_members: Vec<Vec<f64>>,
    /// The cells that each is worth.
    worth: Vec<f64>,
    n_latents: usize,
}

impl Interactions {
    /// Those of the combinations of `cells`, whose posterior means these are (cells x L); `None` where there are none. `turns` are
    /// those of the evidence of the edges, and a pair is an interaction if its q-value is up to `fdr`.
    pub fn new<R: Real>(
        data: &Dataset,
        cells: &[usize],
        means: &[R],
        turns: &[TurnedEvidence],
        fdr: f64,
    ) -> Option<Self> {
        let l = means.len() / cells.len().max(1);
        let (compared, others) = data.comparable(cells);
        if compared.is_empty() && others.is_empty() {
            return None;
        }
        let not_compared = others.into_iter().map(|of| of.label).collect();
        if compared.is_empty() {
            return Some(Self { combinations: Vec::new(), pairs: Vec::new(), not_compared });
        }
        let origin = &turns[0].evidence.origin;
        let found = Deviations::new(data, &compared, (cells, means), origin);
        let weighed = averaged(turns, l, |turn| found.weigh(&turn.rotation));
        let pairs = pairs(&weighed, &found);
        let combinations = compared
            .into_iter()
            .enumerate()
            .map(|(c, of)| {
                let deviates = pairs[c * l..(c + 1) * l].iter().any(|pair| pair.q_value <= fdr);
                let coefficients = found.coefficients(c);
                let class = if deviates { found.class(c, &coefficients) } else { InteractionClass::Additive };
                let (members, doses): (Vec<u32>, Vec<f32>) = of.members.iter().copied().unzip();
                let label = combination_label(&data.intervention_names, &members, &doses);
                ComparedCombination { label, members, doses, n_cells: of.cells.len(), class, coefficients }
            })
            .collect();
        Some(Self { combinations, pairs, not_compared })
    }

    /// The pairs that are interactions at a false discovery rate.
    pub fn found(&self, fdr: f64) -> impl Iterator<Item = &Interaction> {
        self.pairs.iter().filter(move |pair| pair.q_value <= fdr)
    }
}

impl Deviations {
    fn new<R: Real>(
        data: &Dataset,
        compared: &[Combination],
        (cells, means): (&[usize], &[R]),
        origin: &[f64],
    ) -> Self {
        let l = origin.len();
        // Every combination as an intervention of its own, so that members are known from their own cells alone.
        let a = data.n_interventions();
        let all: Vec<Combination> =
            data.combinations(cells.iter().copied()).into_iter().filter(|of| of.members.len() > 1).collect();
        let mut number = vec![None; data.n_cells()];
        for (c, of) in all.iter().enumerate() {
            of.cells.iter().for_each(|&n| number[n] = Some((a + c) as u32));
        }
        let mut interventions = InterventionRows::default();
        for (n, number) in number.iter().enumerate() {
            match (number, data.interventions.row(n)) {
                (Some(number), _) => interventions.push(&[(*number, 1.0)]),
                (None, ([a], [dose])) => interventions.push(&[(*a, *dose)]),
                // Controls, and cells under several interventions that are not among `cells`.
                (None, _) => interventions.push(&[]),
            }
        }
        let mut intervention_names = data.intervention_names.clone();
        intervention_names.extend(all.iter().map(|of| of.label.clone()));
        let apart = Dataset { interventions, intervention_names, ..data.without_counts() };
        let whitened = InterventionEffects::new(&apart, cells, means, l).whitened();
        let row = |number: usize| {
            let at = whitened.interventions.binary_search(&number).expect("an intervention with cells");
            (&whitened.effects[at * l..(at + 1) * l], whitened.cells[at])
        };
        let mut found = Self {
            rows: Vec::new(),
            sums: Vec::new(),
            joint: Vec::new(),
            of_members: Vec::new(),
            worth: Vec::new(),
            n_latents: l,
        };
        for of in compared {
            let place = all.iter().position(|other| other.members == of.members).expect("one of all");
            let (joint, n_joint) = row(a + place);
            // Effects are relative to the controls, or to the origin that interventions without an edge share.
            let excess = of.members.iter().map(|&(_, dose)| f64::from(dose)).sum::<f64>() - 1.0;
            let (mut variance, base) = match whitened.controls > 0.0 {
                true => (1.0 / n_joint + excess * excess / whitened.controls, 0.0),
                false => (1.0 / n_joint, 1.0),
            };
            let (mut sum, mut members) = (vec![0.0; l], Vec::with_capacity(of.members.len() * l));
            for &(member, dose) in &of.members {
                let (effect, n_member) = row(member as usize);
                let dose = f64::from(dose);
                variance += dose * dose / n_member;
                for k in 0..l {
                    let part = dose * (effect[k] - base * origin[k]);
                    sum[k] += part;
                    members.push(part);
                }
            }
            let joint: Vec<f64> = joint.iter().zip(origin).map(|(effect, origin)| effect - base * origin).collect();
            found.rows.extend(joint.iter().zip(&sum).map(|(joint, sum)| joint - sum));
            found.joint.extend(joint);
            found.sums.extend(sum);
            found.of_members.push(members);
            found.worth.push(1.0 / variance);
        }
        found
    }

    /// Weighed along turned axes.
    fn weigh(&self, rotation: &[f64]) -> Weighed {
        let l = self.n_latents;
        let along = |axis: &[f64], row: &[f64]| axis.iter().zip(row).map(|(r, x)| r * x).sum::<f64>();
        let mut turned = Vec::with_capacity(self.rows.len());
        for row in self.rows.chunks_exact(l) {
            turned.extend(rotation.chunks_exact(l).map(|axis| along(axis, row)));
        }
        let square = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>();
        let background: Vec<f64> = self.sums.chunks_exact(l).map(|row| FROM_SUMS * FROM_SUMS * square(row)).collect();
        let of = EffectsToWeigh {
            effects: &turned,
            cells: &self.worth,
            background: &background,
            unseen: &[],
            controls: FIXED_ORIGIN,
            n_used: 0,
            n_latents: l,
        };
        evidence(of, false).weighed()
    }

    /// Multiples of the members' effects that come nearest to the effect of the combination, Eq. (Ia4).
    fn coefficients(&self, c: usize) -> Vec<f64> {
        let l = self.n_latents;
        let rows: Vec<&[f64]> = self.of_members[c].chunks_exact(l).collect();
        let joint = &self.joint[c * l..(c + 1) * l];
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let n = rows.len();
        // An effect below that of sampling says nothing of its multiple, which then stays near 1.
        let ridge = l as f64 / self.worth[c];
        let mut gram = vec![0.0; n * n];
        for i in 0..n {
            (0..n).for_each(|j| gram[i * n + j] = dot(rows[i], rows[j]));
            gram[i * n + i] += ridge;
        }
        let right: Vec<f64> = rows.iter().map(|row| dot(row, joint) + ridge).collect();
        let inverse = inverse(&gram, n).expect("a ridge makes it positive definite");
        (0..n).map(|i| dot(&inverse[i * n..(i + 1) * n], &right)).collect()
    }

    /// The class of a combination that deviates, Eq. (Ia5).
    fn class(&self, c: usize, coefficients: &[f64]) -> InteractionClass {
        let l = self.n_latents;
        let (joint, deviation) = (&self.joint[c * l..(c + 1) * l], &self.rows[c * l..(c + 1) * l]);
        let fitted = |k: usize| -> f64 {
            coefficients.iter().enumerate().map(|(i, coefficient)| coefficient * self.of_members[c][i * l + k]).sum()
        };
        let square = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
        let residual: f64 = (0..l).map(|k| (joint[k] - fitted(k)).powi(2)).sum();
        if residual > NEW_SHARE * square(deviation) {
            return InteractionClass::Neomorphism;
        }
        let (least, most) =
            coefficients.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
        if most > 0.0 && least * DOMINANCE < most {
            return InteractionClass::Dominance;
        }
        match square(coefficients) > coefficients.len() as f64 {
            true => InteractionClass::Synergy,
            false => InteractionClass::Suppression,
        }
    }
}

/// Every pair of a combination and a latent.
fn pairs(weighed: &Weighed, found: &Deviations) -> Vec<Interaction> {
    let l = found.n_latents;
    let pair = |(at, q_value): (usize, f64)| {
        let half = DEVIATIONS_OF_95 * weighed.deviation[at];
        Interaction {
            combination: at / l,
            latent: at % l,
            probability: weighed.probability[at],
            lfsr: weighed.lfsr(at),
            q_value,
            deviation: weighed.shift[at],
            deviation_low: weighed.shift[at] - half,
            deviation_high: weighed.shift[at] + half,
            sum: found.sums[at],
        }
    };
    q_values(&weighed.probability).into_iter().enumerate().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::five_genes;
    use crate::numerics::random::{Purpose, fill_normal, stream};
    use crate::parallel::team::Team;
    use crate::training::turn::evidence_of_turns;

    const L: usize = 6;
    const RATE: f64 = 0.05;

    /// Cells of interventions, of pairs of them, and controls, and their latents.
    struct Toy {
        data: Dataset,
        means: Vec<f64>,
    }

    /// 12 interventions that each shift one or two latents by 3, and `pairs` of them: 60 cells of each and 300 controls. `deviate` changes the
    /// mean of the cells of a pair.
    fn toy(pairs: &[[u32; 2]], seed: u64, deviate: impl Fn(usize, &mut [f64])) -> Toy {
        let n_interventions = 12;
        let shift = |a: u32| -> Vec<f64> {
            let a = a as usize;
            let sign = if a.is_multiple_of(4) { -1.0 } else { 1.0 };
            (0..L).map(|k| if k == a % L || (a > 8 && k == (a + 2) % L) { 3.0 * sign } else { 0.0 }).collect()
        };
        let mut interventions = InterventionRows::default();
        let mut means = Vec::new();
        let random = &mut stream(seed, Purpose::Verification, 0, 0);
        let mut add = |members: &[u32], n: usize, mean: &[f64], rows: &mut InterventionRows| {
            let row: Vec<(u32, f32)> = members.iter().map(|&a| (a, 1.0)).collect();
            for _ in 0..n {
                let mut noise = vec![0.0; L];
                fill_normal(&mut noise, &mut [0; L], random);
                means.extend(noise.iter().zip(mean).map(|(z, mean)| z + mean));
                rows.push(&row);
            }
        };
        add(&[], 300, &[0.0; L], &mut interventions);
        for a in 0..n_interventions {
            add(&[a], 60, &shift(a), &mut interventions);
        }
        for (i, pair) in pairs.iter().enumerate() {
            let mut mean: Vec<f64> = shift(pair[0]).iter().zip(shift(pair[1])).map(|(x, y)| x + y).collect();
            deviate(i, &mut mean);
            add(pair, 60, &mean, &mut interventions);
        }
        let n = interventions.n_cells();
        let intervention_names = (0..n_interventions).map(|a| format!("i{a:02}")).collect();
        let base = five_genes();
        let cells: Vec<usize> = (0..n).map(|i| i % base.n_cells()).collect();
        Toy { data: Dataset { interventions, intervention_names, ..base.select(&cells) }, means }
    }

    fn found(toy: &Toy) -> Interactions {
        let cells: Vec<usize> = (0..toy.data.n_cells()).collect();
        let whitened = InterventionEffects::new(&toy.data, &cells, &toy.means, L).whitened();
        let turns = evidence_of_turns(&Team::single(), &whitened, 1, 0);
        Interactions::new(&toy.data, &cells, &toy.means, &turns, RATE).expect("there are pairs")
    }

    /// Twenty pairs.
    fn twenty() -> Vec<[u32; 2]> {
        let all: Vec<[u32; 2]> = (0..12).flat_map(|a| (a + 1..12).map(move |b| [a, b])).collect();
        (0..20).map(|i| all[i * 23 % all.len()]).collect()
    }

    #[test]
    fn planted_interactions_are_found_and_sums_are_not() {
        let (mut n_found, mut n_true, mut n_false) = (0, 0, 0);
        for seed in 0..10 {
            // Every fourth pair deviates in one latent by 1.5.
            let planted = |i: usize| i.is_multiple_of(4).then_some((i / 4 + seed as usize) % L);
            let toy = toy(&twenty(), seed, |i, mean| planted(i).into_iter().for_each(|k| mean[k] -= 1.5));
            let interactions = found(&toy);
            assert_eq!(interactions.combinations.len(), 20);
            // Combinations are in the order of their members.
            let mut order: Vec<usize> = (0..20).collect();
            order.sort_by_key(|&i| twenty()[i]);
            n_true += 5;
            for pair in interactions.found(RATE) {
                let right = planted(order[pair.combination]) == Some(pair.latent) && pair.deviation < 0.0;
                if right { n_found += 1 } else { n_false += 1 }
            }
            for of in &interactions.combinations {
                let c = interactions.combinations.iter().position(|other| other == of).expect("itself");
                let deviates = interactions.found(RATE).any(|pair| pair.combination == c);
                assert_eq!(of.class != InteractionClass::Additive, deviates);
            }
        }
        assert!(n_found as f64 >= 0.8 * n_true as f64, "{n_found} of {n_true}");
        assert!(n_false as f64 <= 0.1 * (n_found + n_false) as f64, "{n_false} false, {n_found} right");
        // Nothing deviates.
        let n: usize = (20..30).map(|seed| found(&toy(&twenty(), seed, |_, _| {})).found(RATE).count()).sum();
        assert!(n <= 1, "{n} interactions in ten screens without any");
    }

    #[test]
    fn sums_that_hold_only_roughly_are_no_interactions() {
        // An encoder that saturates: every combination is missed by a few percent of its length, in latents that it moves and others.
        let n: usize = (0..10)
            .map(|seed| {
                let toy = toy(&twenty(), seed, |i, mean| {
                    let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
                    for k in 0..L {
                        mean[k] += 0.08 * length * ((i * 7 + k * 5 + seed as usize) as f64).sin();
                    }
                });
                found(&toy).found(RATE).count()
            })
            .sum();
        assert!(n <= 3, "{n} interactions in ten screens whose sums are missed by a little");
    }

    #[test]
    fn classes_by_hand() {
        let joint = |members: [[f64; 3]; 2], joint: [f64; 3]| {
            let sums: Vec<f64> = (0..3).map(|k| members[0][k] + members[1][k]).collect();
            let rows = (0..3).map(|k| joint[k] - sums[k]).collect();
            let of_members = vec![members.concat()];
            let found = Deviations { rows, sums, joint: joint.to_vec(), of_members, worth: vec![1e9], n_latents: 3 };
            let coefficients = found.coefficients(0);
            (found.class(0, &coefficients), coefficients)
        };
        let members = [[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
        let (class, c) = joint(members, [3.0, 1.5, 0.0]);
        assert_eq!(class, InteractionClass::Synergy);
        assert!((c[0] - 1.5).abs() < 1e-6 && (c[1] - 1.5).abs() < 1e-6);
        assert_eq!(joint(members, [1.0, 0.4, 0.0]).0, InteractionClass::Suppression);
        assert_eq!(joint(members, [2.0, 0.1, 0.0]).0, InteractionClass::Dominance);
        assert_eq!(joint(members, [2.0, -1.0, 0.0]).0, InteractionClass::Dominance);
        assert_eq!(joint(members, [2.0, 1.0, 1.0]).0, InteractionClass::Neomorphism);
        // Half of the deviation lies along the members: the other half is not more than that.
        assert_eq!(joint(members, [3.0, 1.5, 0.5]).0, InteractionClass::Synergy);
        // A member without effect has no multiple.
        let (_, c) = joint([[2.0, 0.0, 0.0], [0.0; 3]], [2.5, 0.0, 0.0]);
        assert!((c[0] - 1.25).abs() < 1e-6 && (c[1] - 1.0).abs() < 1e-6, "{c:?}");
    }

    #[test]
    fn a_member_that_is_never_alone_is_not_compared() {
        let mut toy = toy(&[[0, 1], [2, 3], [4, 5]], 0, |_, _| {});
        // Intervention 3 has no cell of its own, and the last pair has few.
        let alone = |n: &usize| toy.data.interventions.row(*n).0 == [3];
        let mut kept: Vec<usize> = (0..toy.data.n_cells()).filter(|n| !alone(n)).collect();
        kept.truncate(kept.len() - 51);
        toy.means = kept.iter().flat_map(|&n| toy.means[n * L..(n + 1) * L].to_vec()).collect();
        toy.data = toy.data.select(&kept);
        let interactions = found(&toy);
        assert_eq!(interactions.not_compared, ["i02+i03", "i04+i05"]);
        assert_eq!(interactions.combinations[0].label, "i00+i01");
        assert_eq!((interactions.combinations[0].n_cells, interactions.pairs.len()), (60, L));
        let none = toy.data.select(&(0..400).collect::<Vec<_>>());
        let whitened =
            InterventionEffects::new(&none, &(0..400).collect::<Vec<_>>(), &toy.means[..400 * L], L).whitened();
        let turns = evidence_of_turns(&Team::single(), &whitened, 1, 0);
        assert!(Interactions::new(&none, &(0..400).collect::<Vec<_>>(), &toy.means[..400 * L], &turns, RATE).is_none());
    }
}
