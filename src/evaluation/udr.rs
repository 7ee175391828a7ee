//! Unsupervised disentanglement ranking (UDR): which of several fitted models to trust when no truth is known.
//!
//! Well disentangled models agree with each other up to order and sign; entangled ones are each entangled in their own
//! way (Duan, Matthey, Saraiva, Watters, Burgess, Lerchner, Higgins, *Unsupervised Model Selection for Variational
//! Disentangled Representation Learning*, ICLR 2020). The formulas stand in derivations/udr.md.

use crate::error::InputError;
use crate::evaluation::correlation::{CorrelationMatrix, Latents, correlate_ranks, doubled_ranks};
use crate::parallel::team::Team;

/// A latent is informative when its mean Kullback-Leibler divergence to the prior exceeds this, in nats (the paper's
/// threshold).
pub const INFORMATIVE_NATS: f64 = 0.01;

/// One fitted model, as the ranking sees it.
#[derive(Debug, Clone, Copy)]
pub struct FittedLatents<'a> {
    /// Posterior means, cells x K; the same cells in the same order for every model.
    pub means: Latents<'a>,
    /// Mean Kullback-Leibler divergence of each latent's posterior to its prior over those cells, nats; length K.
    pub kl: &'a [f64],
}

/// The ranking of M models.
#[derive(Debug, Clone, PartialEq)]
pub struct Udr {
    /// Score of each model in [0, 1], higher is better: the median of its agreement with the others, Eq. (U5).
    pub scores: Vec<f64>,
    /// Agreement of each pair, M x M, row-major, symmetric, Eq. (U4); 0 on the diagonal, which is not used.
    pub pairs: Vec<f64>,
    /// Number of informative latents of each model.
    pub n_informative: Vec<usize>,
}

/// Ranks `models` (M of them, numbers of latents may differ) by their mutual agreement.
///
/// Models of one setting from several seeds make the comparison meaningful; the paper uses at least five.
///
/// # Errors
/// With fewer than two models, with models of different cells, or if a model's `kl` does not hold one number per
/// latent.
pub fn udr(team: &Team, models: &[FittedLatents]) -> Result<Udr, InputError> {
    if models.len() < 2 {
        return Err(InputError::new(
            format!("disentanglement ranking compares models, and {} was given", models.len()),
            "give at least two, better five or more",
        ));
    }
    let n = models[0].means.n_cells();
    for (i, model) in models.iter().enumerate() {
        if model.means.n_cells() != n {
            return Err(InputError::new(
                format!("model {} holds {} cells and model 0 holds {n}", i, model.means.n_cells()),
                "compare latents of the same cells",
            ));
        }
        if model.kl.len() != model.means.n_latents() {
            return Err(InputError::new(
                format!("model {i} has {} latents and {} divergences", model.means.n_latents(), model.kl.len()),
                "give one mean divergence per latent",
            ));
        }
    }
    let m = models.len();
    // The informative latents and their ranks, Eq. (U1): the others take no part in any sum or maximum.
    let informative: Vec<(usize, Vec<u32>)> = models
        .iter()
        .map(|model| {
            let ranks = doubled_ranks(team, model.means);
            let kept: Vec<usize> = (0..model.kl.len()).filter(|&k| model.kl[k] > INFORMATIVE_NATS).collect();
            (kept.len(), kept.iter().flat_map(|&k| &ranks[k * n..(k + 1) * n]).copied().collect())
        })
        .collect();
    let mut pairs = vec![0.0; m * m];
    for i in 0..m {
        for j in 0..i {
            // Eq. (U2)
            let ((di, first), (dj, second)) = (&informative[i], &informative[j]);
            let similarity = correlate_ranks(n, *di, first, *dj, second).abs();
            let agreement = relative_strength(&similarity);
            pairs[i * m + j] = agreement;
            pairs[j * m + i] = agreement;
        }
    }
    let scores = (0..m)
        .map(|i| {
            let mut others: Vec<f64> = (0..m).filter(|&j| j != i).map(|j| pairs[i * m + j]).collect();
            others.sort_by(f64::total_cmp);
            // Eq. (U5)
            0.5 * (others[(m - 2) / 2] + others[(m - 1) / 2])
        })
        .collect();
    let n_informative = informative.iter().map(|(d, _)| *d).collect();
    Ok(Udr { scores, pairs, n_informative })
}

/// Agreement of two models from the similarities of their informative latents, Eq. (U4); 0 when one has none.
fn relative_strength(similarity: &CorrelationMatrix) -> f64 {
    let (da, db) = (similarity.n_rows, similarity.n_columns);
    // A latent that resembles none of the other model's contributes 0, Eq. (U3).
    let strength = |line: &mut dyn Iterator<Item = f64>| {
        let (largest, sum) = line.fold((0.0f64, 0.0), |(l, s), r| (l.max(r), s + r));
        if sum > 0.0 { largest * largest / sum } else { 0.0 }
    };
    if da == 0 || db == 0 {
        return 0.0;
    }
    let columns: f64 = (0..db).map(|b| strength(&mut (0..da).map(|a| similarity.at(a, b)))).sum();
    let rows: f64 = (0..da).map(|a| strength(&mut (0..db).map(|b| similarity.at(a, b)))).sum();
    (columns + rows) / (da + db) as f64
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;
    use rand::{RngExt, SeedableRng};
    use rand_distr::StandardNormal;

    use super::*;

    const N: usize = 20_000;
    const K: usize = 6;

    fn normals(n: usize, seed: u64) -> Vec<f64> {
        let mut rng = rand::rngs::ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| rng.sample(StandardNormal)).collect()
    }

    /// The latents in another order, with signs and monotone bends.
    fn rearranged(z: &[f64], turn: usize) -> Vec<f64> {
        let sign = |k: usize| if (k + turn).is_multiple_of(2) { 1.0 } else { -1.0 };
        z.chunks(K)
            .flat_map(|row| (0..K).map(|k| sign(k) * row[(k * 5 + turn) % K].powi(3)).collect::<Vec<_>>())
            .collect()
    }

    fn rotated(z: &[f64], seed: u64) -> Vec<f64> {
        let q = DMatrix::from_vec(K, K, normals(K * K, seed)).qr().q();
        let z = DMatrix::from_row_slice(N, K, z);
        (z * q).transpose().as_slice().to_vec()
    }

    fn rank(tables: &[Vec<f64>], kl: &[f64]) -> Udr {
        let models: Vec<_> = tables.iter().map(|t| FittedLatents { means: Latents::new(t, K), kl }).collect();
        udr(&Team::single(), &models).unwrap()
    }

    #[test]
    fn agreeing_models_score_one_and_rotated_ones_low() {
        let z = normals(N * K, 1);
        let agreeing: Vec<_> = (0..4).map(|t| rearranged(&z, t)).collect();
        let same = rank(&agreeing, &[1.0; K]);
        // Sampling noise alone: five other latents at |r| of about 0.8/sqrt(N) each leave 1/(1 + 0.028).
        assert!(same.scores.iter().all(|&s| s > 0.96 && s <= 1.0), "{same:?}");
        let turned: Vec<_> = (0..4).map(|t| rotated(&z, 10 + t)).collect();
        let apart = rank(&turned, &[1.0; K]);
        assert!(apart.scores.iter().all(|&s| s < 0.35), "{apart:?}");
        // Three good models and two entangled ones: the good ones rank first, by a wide margin.
        let mixed = [&agreeing[..3], &turned[..2]].concat();
        let mixed = rank(&mixed, &[1.0; K]);
        let worst_good = mixed.scores[..3].iter().copied().fold(1.0, f64::min);
        let best_bad = mixed.scores[3..].iter().copied().fold(0.0, f64::max);
        assert!(worst_good > best_bad + 0.2, "{mixed:?}");
    }

    #[test]
    fn latents_at_the_prior_take_no_part() {
        // Two informative latents each, the rest noise of the model's own at its prior.
        let z = normals(N * K, 2);
        let with_noise = |seed: u64| {
            let noise = normals(N * K, seed);
            let mut t = z.clone();
            t.iter_mut().enumerate().filter(|(i, _)| i % K >= 2).for_each(|(i, v)| *v = noise[i]);
            t
        };
        let tables = [with_noise(3), with_noise(4), with_noise(5)];
        let kl = [1.2, 0.02, 0.01, 0.0, 1e-4, 0.0099];
        let ranking = rank(&tables, &kl);
        assert_eq!(ranking.n_informative, [2, 2, 2]);
        assert!(ranking.scores.iter().all(|&s| s > 0.98), "{ranking:?}");
        assert!(rank(&tables, &[1.0; K]).scores.iter().all(|&s| s < 0.6));
        let silent = rank(&tables, &[0.0; K]);
        assert_eq!((silent.scores, silent.n_informative), (vec![0.0; 3], vec![0; 3]));
    }

    #[test]
    fn the_formula_gives_what_it_gives_by_hand() {
        // Columns: .64/1.0, .25/.75, 0; rows: .64/1.3, .0625/.45... written out below.
        let r = CorrelationMatrix { n_rows: 2, n_columns: 3, values: vec![0.8, 0.5, 0.0, 0.2, 0.25, 0.0] };
        let by_hand = (0.64 / 1.0 + 0.25 / 0.75 + 0.0 + 0.64 / 1.3 + 0.0625 / 0.45) / 5.0;
        assert!((relative_strength(&r) - by_hand).abs() < 1e-15);
        let one = CorrelationMatrix { n_rows: 2, n_columns: 2, values: vec![0.0, 1.0, 1.0, 0.0] };
        assert_eq!(relative_strength(&one), 1.0);
    }

    #[test]
    fn the_score_is_the_median_over_the_other_models() {
        let z = normals(N * K, 6);
        let tables = [rearranged(&z, 0), rearranged(&z, 1), rotated(&z, 20), rotated(&z, 21)];
        for m in [2, 3, 4] {
            let ranking = rank(&tables[..m], &[1.0; K]);
            for i in 0..m {
                let mut others: Vec<f64> = (0..m).filter(|&j| j != i).map(|j| ranking.pairs[i * m + j]).collect();
                others.sort_by(f64::total_cmp);
                let median = match others[..] {
                    [a] => a,
                    [a, b] => (a + b) / 2.0,
                    [_, b, _] => b,
                    _ => unreachable!(),
                };
                assert_eq!(ranking.scores[i], median);
                for j in 0..m {
                    assert_eq!(ranking.pairs[i * m + j], ranking.pairs[j * m + i]);
                }
            }
        }
    }

    #[test]
    fn unusable_input_is_refused_in_a_sentence() {
        let (z, short) = (vec![0.0; 12], vec![0.0; 6]);
        let model = |t, kl| FittedLatents { means: Latents::new(t, 2), kl };
        let kl = [1.0, 1.0];
        let message = |models: &[FittedLatents]| udr(&Team::single(), models).unwrap_err().to_string();
        assert!(message(&[model(&z, &kl)]).contains("compares models"));
        assert!(message(&[model(&z, &kl), model(&short, &kl)]).contains("same cells"));
        assert!(message(&[model(&z, &kl), model(&z, &kl[..1])]).contains("one mean divergence per latent"));
    }
}
