//! The linear model of a screen: principal components of log counts, whitened within interventions and turned by the rule of
//! the networks. Derivation: `derivations/principal_components.md`. G genes, L latents, A interventions.

use crate::data::dataset::Dataset;
use crate::error::Result;
use crate::inference::effects::InterventionEffects;
use crate::inference::gene_dispersion::{ByGene, THETA_MAX, fit_theta};
use crate::inference::linear::{LinearModel, Projection, add_scaled, dot, sum_over_cells};
use crate::model::likelihood::Likelihood;
use crate::model::prior::mask;
use crate::numerics::random::{Purpose, fill_normal, stream};
use crate::numerics::real::Real;
use crate::numerics::spread::evenly_spaced;
use crate::numerics::symmetric::eigen;
use crate::parallel::team::{Team, tiles};
use crate::training::identification::{InterventionRow, WeighedShifts};
use crate::training::turn::{STARTS, likeliest_turn};

/// Vectors that are sought beside the components.
const SPARE: usize = 10;
/// Products with the covariance between two projections, and projections at most.
const DEPTH: usize = 3;
const MOST_ROUNDS: usize = 12;
/// Residual of a component, relative to the largest variance, at which it is found.
const FOUND: f64 = 1e-7;
/// Length, relative to that before, of what is left of a vector that depends on others.
const DEPENDENT: f64 = 1e-10;
/// Variance, relative to the largest, along which cells do not differ.
const NO_VARIANCE: f64 = 1e-12;
/// Bounds of the variance of a latent that is noise.
const NOISE: [f64; 2] = [1e-6, 0.95];
/// Means and dispersions are fitted to that many training cells at most, evenly spaced.
const MOST_FITTED: usize = 10_000;
/// Steps of Newton's method at most, and twice the gain that is not worth one, nats.
const MOST_STEPS: usize = 50;
const LEAST_DECREMENT: f64 = 1e-9;
/// Counts held at once, gene by gene.
const MOST_COUNTS: usize = 1 << 25;
/// Counts given to a gene that no training cell shows.
const UNSEEN_GENE_COUNT: f64 = 0.5;
/// Logit of an edge of an intervention without training cells.
const NO_EDGE: f64 = -mask::OPEN;

/// What to fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearSettings {
    /// L.
    pub n_latents: usize,
    /// Distribution of the counts about their means.
    pub likelihood: Likelihood,
    /// Seed of the bases from which the turn is sought, and of the samples that dispersions are fitted at.
    pub seed: u64,
}

/// Mean and variance of the log counts of each gene, Eq. (Pc1).
struct Moments {
    mean: Vec<f64>,
    variance: Vec<f64>,
}

impl LinearModel {
    /// The linear model of the cells `train`, all of which this process holds.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub fn fit(team: &Team, data: &Dataset, train: &[usize], settings: LinearSettings) -> Result<Self> {
        let LinearSettings { n_latents: l, likelihood, seed } = settings;
        let (g, n) = (data.n_genes(), train.len().max(1) as f64);
        let Moments { mean, variance } = moments(team, data, train)?;
        let (variances, axes) = principal_components(team, data, train, &mean, l)?;
        let along = Projection::new(&axes, &mean, &vec![0.0; l]).of_cells(team, data, train)?;
        let found = InterventionEffects::new(data, train, &along, l);
        drop(along);
        let [mut white, mut colour] = whitening(&found.within, l);
        let mut found = found.turned(&white);
        if let Some(turn) = likeliest_turn(team, &found.whitened(), STARTS, seed) {
            found = found.turned(&turn);
            white = product(&turn, &white, l);
            colour = product(&colour, &transposed(&turn, l), l);
        }
        let whitened = found.whitened();
        let WeighedShifts { origin, rows } = WeighedShifts::new(&found, &whitened, true);
        let n_interventions = data.n_interventions();
        let (mut shift, mut mask_logit) = (vec![0.0; n_interventions * l], vec![NO_EDGE; n_interventions * l]);
        for InterventionRow { intervention, shifts, logits } in rows {
            let row = intervention * l..(intervention + 1) * l;
            shift[row.clone()].copy_from_slice(&shifts);
            let bounded = logits.iter().map(|logit| logit.clamp(NO_EDGE, -NO_EDGE));
            mask_logit[row].iter_mut().zip(bounded).for_each(|(to, logit)| *to = logit);
        }
        // Eqs. (Pc3) and (Pc4).
        let (mut weight, mut loading) = (vec![0.0; l * g], vec![0.0; g * l]);
        for k in 0..l {
            for j in 0..l {
                add_scaled(&mut weight[k * g..(k + 1) * g], white[k * l + j], &axes[j * g..(j + 1) * g]);
                for gene in 0..g {
                    loading[gene * l + k] += axes[j * g + gene] * colour[j * l + k];
                }
            }
        }
        let explained = |gene: usize| -> f64 { (0..l).map(|j| variances[j] * axes[j * g + gene].powi(2)).sum() };
        let residual_variance: Vec<f64> = (0..g).map(|gene| (variance[gene] - explained(gene)).max(0.0)).collect();
        let noise = |row: &[f64]| row.iter().zip(&residual_variance).map(|(w, v)| w * w * v).sum::<f64>();
        let noise_variance = weight.chunks_exact(g).map(|row| noise(row).clamp(NOISE[0], NOISE[1])).collect();
        // The latents' covariance is white diag(variances) white^T.
        let seen = |j: usize| variances[j] > NO_VARIANCE * variances[0];
        let inverse_square = |k: usize| -> f64 {
            (0..l).filter(|&j| seen(j)).map(|j| colour[j * l + k].powi(2) / (n * variances[j])).sum()
        };
        let mut model = Self {
            n_latents: l,
            likelihood,
            origin,
            inverse_squares: (0..l).map(inverse_square).collect(),
            mean,
            weight,
            loading,
            residual_variance,
            noise_variance,
            intercept: Vec::new(),
            slope: Vec::new(),
            log_dispersion: Vec::new(),
            shift,
            mask_logit,
        };
        model.fit_likelihood(team, data, train, seed)?;
        Ok(model)
    }

    /// Sets intercepts, slopes and dispersions, Eq. (Pc8).
    fn fit_likelihood(&mut self, team: &Team, data: &Dataset, train: &[usize], seed: u64) -> Result<()> {
        let g = self.n_genes();
        let cells: Vec<usize> = evenly_spaced(train.len(), MOST_FITTED).map(|place| train[place]).collect();
        let maps = self.projection().of_cells(team, data, &cells)?;
        let latents: Vec<Vec<f64>> = cells
            .iter()
            .zip(maps.chunks_exact(self.n_latents))
            .map(|(&cell, map)| self.draw(data, cell, map, seed))
            .collect();
        let mut sizes = vec![0; g];
        data.counts.visit(&cells, |_, row| row.for_each(|gene, _| sizes[gene] += 1))?;
        let library: Vec<f64> = cells.iter().map(|&cell| data.library[cell]).collect();
        let mut fitted = vec![[0.0; 3]; g];
        let mut start = 0;
        while start < g {
            let (mut end, mut held) = (start + 1, sizes[start]);
            while end < g && held + sizes[end] <= MOST_COUNTS {
                held += sizes[end];
                end += 1;
            }
            let counts = ByGene::gather(&data.counts, &cells, start..end, &sizes[start..end])?;
            team.run(end - start, tiles(&mut fitted[start..end], 1), |i, fitted| {
                let (places, counts) = counts.gene(i);
                let read: Vec<f64> = latents.iter().map(|z| self.read_back(start + i, z)).collect();
                let delta = 1.0 / (1.0 - Real::exp(-self.mean[start + i]));
                let [intercept, slope] = regress(&library, &read, (places, counts), delta);
                let mean = |(l, read): (&f64, &f64)| l * Real::exp(intercept + slope * read);
                let means: Vec<f64> = library.iter().zip(&read).map(mean).collect();
                let theta = if counts.is_empty() { THETA_MAX } else { fit_theta(&means, places, counts) };
                fitted[0] = [intercept, slope, Real::ln(theta)];
            });
            start = end;
        }
        self.intercept = fitted.iter().map(|&[intercept, ..]| intercept).collect();
        self.slope = fitted.iter().map(|&[_, slope, _]| slope).collect();
        self.log_dispersion = match self.likelihood.n_parameters(g) {
            0 => Vec::new(),
            _ => fitted.iter().map(|&[.., log_theta]| log_theta).collect(),
        };
        Ok(())
    }
}

/// Intercept and slope of the log rate of a gene on `read`, Eq. (Pc8): Poisson regression with the log library as offset, by Newton's
/// method with halved steps. `counts` are the places and values of those that are not 0; `delta` is the deviation of the slope's
/// prior.
fn regress(library: &[f64], read: &[f64], (places, counts): (&[u32], &[u32]), delta: f64) -> [f64; 2] {
    let total: f64 = counts.iter().map(|&x| f64::from(x)).sum();
    let along: f64 = places.iter().zip(counts).map(|(&i, &x)| f64::from(x) * read[i as usize]).sum();
    let start = Real::ln(total.max(UNSEEN_GENE_COUNT) / library.iter().sum::<f64>());
    if total == 0.0 || !delta.is_finite() {
        return [start, 0.0];
    }
    let penalty = 1.0 / (delta * delta);
    // Log-likelihood, and the sums of the means times 1, read and read^2.
    let at = |[intercept, slope]: [f64; 2]| {
        let mut sums = [0.0; 3];
        for (l, read) in library.iter().zip(read) {
            let mean = l * Real::exp(intercept + slope * read);
            sums[0] += mean;
            sums[1] += mean * read;
            sums[2] += mean * read * read;
        }
        (intercept * total + slope * along - sums[0] - 0.5 * penalty * slope * slope, sums)
    };
    let mut here = [start, 0.0];
    let (mut value, mut sums) = at(here);
    for _ in 0..MOST_STEPS {
        let (by_intercept, by_slope) = (total - sums[0], along - sums[1] - penalty * here[1]);
        let (a, b, c) = (sums[0], sums[1], sums[2] + penalty);
        let determinant = a * c - b * b;
        let step = [(c * by_intercept - b * by_slope) / determinant, (a * by_slope - b * by_intercept) / determinant];
        if by_intercept * step[0] + by_slope * step[1] < LEAST_DECREMENT {
            break;
        }
        let mut share = 1.0;
        let better = loop {
            let there = [here[0] + share * step[0], here[1] + share * step[1]];
            let (new, new_sums) = at(there);
            if new >= value {
                break Some((there, new, new_sums));
            }
            share *= 0.5;
            if share < 1e-6 {
                break None;
            }
        };
        let Some((there, new, new_sums)) = better else { break };
        (here, value, sums) = (there, new, new_sums);
    }
    here
}

fn moments(team: &Team, data: &Dataset, cells: &[usize]) -> Result<Moments> {
    let (g, n) = (data.n_genes(), cells.len().max(1) as f64);
    let sums = sum_over_cells(team, data, cells, 2 * g, |entries, sums| {
        for &(gene, y) in entries {
            sums[gene] += y;
            sums[g + gene] += y * y;
        }
    })?;
    let mean: Vec<f64> = sums[..g].iter().map(|sum| sum / n).collect();
    let variance = sums[g..].iter().zip(&mean).map(|(sum, mean)| (sum / n - mean * mean).max(0.0)).collect();
    Ok(Moments { mean, variance })
}

/// The `l` largest variances of the log counts of `cells`, and their axes (l x G); 0 where there are no more.
///
/// Rayleigh and Ritz's projection on a block Krylov space, begun anew from what it finds: the covariance itself, G x G, is never
/// formed.
fn principal_components(
    team: &Team,
    data: &Dataset,
    cells: &[usize],
    mean: &[f64],
    l: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let g = mean.len();
    let width = (l + SPARE).min(g);
    let (mut start, mut words) = (vec![0.0; width * g], vec![0; width * g + 1]);
    fill_normal(&mut start, &mut words, &mut stream(0, Purpose::Components, 0, 0));
    let mut block: Vec<Vec<f64>> = start.chunks_exact(g).map(<[f64]>::to_vec).collect();
    let mut values = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let (mut basis, mut images): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (Vec::new(), Vec::new());
        for _ in 0..DEPTH {
            let before = basis.len();
            add_orthonormal(&mut basis, block);
            let added = covariance_times(team, data, cells, mean, &basis[before..])?;
            block = added.clone();
            images.extend(added);
            if basis.len() == before {
                break;
            }
        }
        let m = basis.len();
        let mut projected = vec![0.0; m * m];
        team.run(m, tiles(&mut projected, m.max(1)), |i, row| {
            row.iter_mut().zip(&images).for_each(|(value, image)| *value = dot(&basis[i], image));
        });
        for i in 0..m {
            for j in 0..i {
                let middle = 0.5 * (projected[i * m + j] + projected[j * m + i]);
                (projected[i * m + j], projected[j * m + i]) = (middle, middle);
            }
        }
        let (found, vectors) = eigen(projected, m);
        let mut order: Vec<usize> = (0..m).collect();
        order.sort_by(|&a, &b| found[b].total_cmp(&found[a]));
        order.truncate(width);
        let combined = |of: &[Vec<f64>], column: usize| {
            let mut sum = vec![0.0; g];
            of.iter().enumerate().for_each(|(i, vector)| add_scaled(&mut sum, vectors[i * m + column], vector));
            sum
        };
        block = order.iter().map(|&column| combined(&basis, column)).collect();
        values = order.iter().map(|&column| found[column].max(0.0)).collect();
        let is_found = |(i, &column): (usize, &usize)| {
            let mut residual = combined(&images, column);
            add_scaled(&mut residual, -found[column], &block[i]);
            dot(&residual, &residual).sqrt() <= FOUND * values[0]
        };
        if order.iter().enumerate().take(l).all(is_found) {
            break;
        }
    }
    let mut axes = vec![0.0; l * g];
    values.resize(l.max(values.len()), 0.0);
    for (k, (axis, vector)) in axes.chunks_exact_mut(g).zip(&block).enumerate() {
        if values[k] > NO_VARIANCE * values[0] {
            axis.copy_from_slice(vector);
        } else {
            values[k] = 0.0;
        }
    }
    values.truncate(l);
    Ok((values, axes))
}

/// Adds to an orthonormal basis what of `vectors` lies outside it, by Gram and Schmidt.
fn add_orthonormal(basis: &mut Vec<Vec<f64>>, vectors: Vec<Vec<f64>>) {
    for mut vector in vectors {
        let before = dot(&vector, &vector).sqrt();
        // Twice is enough for orthogonality to rounding.
        for _ in 0..2 {
            for other in basis.iter() {
                let along = dot(other, &vector);
                add_scaled(&mut vector, -along, other);
            }
        }
        let length = dot(&vector, &vector).sqrt();
        if length > DEPENDENT * before {
            vector.iter_mut().for_each(|value| *value /= length);
            basis.push(vector);
        }
    }
}

/// The covariance of the log counts times each of `vectors` (G each), Eq. (Pc2).
fn covariance_times(
    team: &Team,
    data: &Dataset,
    cells: &[usize],
    mean: &[f64],
    vectors: &[Vec<f64>],
) -> Result<Vec<Vec<f64>>> {
    let (g, p, n) = (mean.len(), vectors.len(), cells.len().max(1) as f64);
    if p == 0 {
        return Ok(Vec::new());
    }
    let by_gene: Vec<f64> = (0..g * p).map(|at| vectors[at % p][at / p]).collect();
    let center: Vec<f64> = vectors.iter().map(|vector| dot(vector, mean)).collect();
    let sums = sum_over_cells(team, data, cells, (g + 1) * p, |entries, sums| {
        let mut along: Vec<f64> = center.iter().map(|center| -center).collect();
        entries.iter().for_each(|&(gene, y)| add_scaled(&mut along, y, &by_gene[gene * p..(gene + 1) * p]));
        entries.iter().for_each(|&(gene, y)| add_scaled(&mut sums[gene * p..(gene + 1) * p], y, &along));
        add_scaled(&mut sums[g * p..], 1.0, &along);
    })?;
    let image = |k: usize| (0..g).map(|gene| (sums[gene * p + k] - mean[gene] * sums[g * p + k]) / n).collect();
    Ok((0..p).map(image).collect())
}

/// The root of the inverse of a covariance (L x L), and its root; both 0 along axes without variance.
fn whitening(covariance: &[f64], l: usize) -> [Vec<f64>; 2] {
    let (values, vectors) = eigen(covariance.to_vec(), l);
    let largest = values.iter().copied().fold(0.0, f64::max);
    [|value: f64| 1.0 / value.sqrt(), f64::sqrt].map(|power| {
        let scales: Vec<f64> =
            values.iter().map(|&value| if value > NO_VARIANCE * largest { power(value) } else { 0.0 }).collect();
        let of = |i: usize, j: usize| (0..l).map(|k| vectors[i * l + k] * scales[k] * vectors[j * l + k]).sum();
        (0..l * l).map(|at| of(at / l, at % l)).collect()
    })
}

fn product(a: &[f64], b: &[f64], l: usize) -> Vec<f64> {
    (0..l * l).map(|at| (0..l).map(|k| a[at / l * l + k] * b[k * l + at % l]).sum()).collect()
}

fn transposed(a: &[f64], l: usize) -> Vec<f64> {
    (0..l * l).map(|at| a[at % l * l + at / l]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::simulate::{Simulation, simulate};
    use crate::inference::linear::LinearInference;
    use crate::inference::trained_model::TrainedModel;
    use crate::model::objective::Objective;
    use crate::model::prior::sparsity::Penalty;

    fn screen(n_genes: usize) -> Dataset {
        let settings = Simulation {
            n_interventions: 8,
            n_genes,
            n_latents: 4,
            cells_per_intervention: 25,
            ..Simulation::default()
        };
        simulate(&settings).expect("a screen").dataset
    }

    fn settings(n_latents: usize) -> LinearSettings {
        LinearSettings { n_latents, likelihood: Likelihood::NegativeBinomial, seed: 1 }
    }

    /// Log counts, cells x G.
    fn log_counts_of(data: &Dataset, cells: &[usize]) -> Vec<f64> {
        let g = data.n_genes();
        let mut y = vec![0.0; cells.len() * g];
        let put = |i: usize, row: crate::data::counts::in_memory::CountsRow| {
            let total = row.sum() as f64;
            row.for_each(|gene, x| y[i * g + gene] = (1.0 + 1e4 * f64::from(x) / total).ln());
        };
        data.counts.visit(cells, put).expect("in memory");
        y
    }

    fn covariance(rows: &[f64], width: usize) -> (Vec<f64>, Vec<f64>) {
        let n = (rows.len() / width) as f64;
        let mut mean = vec![0.0; width];
        rows.chunks_exact(width).for_each(|row| add_scaled(&mut mean, 1.0 / n, row));
        let mut covariance = vec![0.0; width * width];
        for row in rows.chunks_exact(width) {
            for i in 0..width {
                for j in 0..width {
                    covariance[i * width + j] += (row[i] - mean[i]) * (row[j] - mean[j]) / n;
                }
            }
        }
        (mean, covariance)
    }

    #[test]
    fn components_are_those_of_the_covariance() {
        let (g, l) = (60, 4);
        let data = screen(g);
        // Some cells, in an order of their own.
        let cells: Vec<usize> = (0..data.n_cells()).rev().step_by(2).collect();
        let (mean, dense) = covariance(&log_counts_of(&data, &cells), g);
        let (wanted, vectors) = eigen(dense, g);
        let mut order: Vec<usize> = (0..g).collect();
        order.sort_by(|&a, &b| wanted[b].total_cmp(&wanted[a]));
        let found = moments(&Team::single(), &data, &cells).expect("in memory").mean;
        assert!(found.iter().zip(&mean).all(|(f, m)| (f - m).abs() < 1e-12));
        for threads in [1, 3] {
            let (values, axes) =
                Team::with(threads, |team| principal_components(team, &data, &cells, &mean, l)).expect("in memory");
            for (k, axis) in axes.chunks_exact(g).enumerate() {
                let column: Vec<f64> = (0..g).map(|gene| vectors[gene * g + order[k]]).collect();
                assert!((values[k] / wanted[order[k]] - 1.0).abs() < 1e-10, "{k}: {}", values[k]);
                assert!((dot(axis, &column).abs() - 1.0).abs() < 1e-8, "{k}");
            }
        }
    }

    #[test]
    fn scores_are_white_and_loadings_are_their_regression() {
        let (g, l) = (40, 4);
        let data = screen(g);
        let cells: Vec<usize> = (0..data.n_cells()).filter(|n| n % 5 != 0).collect();
        let team = &Team::single();
        let model = LinearModel::fit(team, &data, &cells, settings(l)).expect("in memory");
        let scores = LinearInference { team, model: &model, data: &data }.posterior_means(&cells).expect("in memory");
        let found = InterventionEffects::new(&data, &cells, &scores, l);
        for (at, value) in found.within.iter().enumerate() {
            assert!((value - f64::from(u8::from(at % (l + 1) == 0))).abs() < 1e-9, "{at}: {value}");
        }
        for (shift, effect) in model.shift.iter().zip(&found.effects) {
            assert!((shift - effect).abs() < 1e-9, "{shift} {effect}");
        }
        // Least squares of log counts on scores: what is left is orthogonal to these, and of the variance that is claimed.
        let y = log_counts_of(&data, &cells);
        let mut squares = vec![0.0; l * l];
        let mut left = vec![0.0; g * l];
        let mut variance = vec![0.0; g];
        for (y, u) in y.chunks_exact(g).zip(scores.chunks_exact(l)) {
            let u: Vec<f64> = u.iter().zip(&model.origin).map(|(u, o)| u + o).collect();
            for gene in 0..g {
                let residual = y[gene] - model.mean[gene] - dot(&model.loading[gene * l..(gene + 1) * l], &u);
                add_scaled(&mut left[gene * l..(gene + 1) * l], residual, &u);
                variance[gene] += residual * residual / cells.len() as f64;
            }
            (0..l).for_each(|j| add_scaled(&mut squares[j * l..(j + 1) * l], u[j], &u));
        }
        assert!(left.iter().all(|left| left.abs() < 1e-7), "{left:?}");
        assert!(variance.iter().zip(&model.residual_variance).all(|(v, r)| (v - r).abs() < 1e-9 * v));
        let wanted = crate::numerics::symmetric::inverse(&squares, l).expect("positive definite");
        for k in 0..l {
            assert!((model.inverse_squares[k] / wanted[k * l + k] - 1.0).abs() < 1e-8);
        }
        // The whole on three threads, to the bit.
        let again = Team::with(3, |team| LinearModel::fit(team, &data, &cells, settings(l))).expect("in memory");
        assert_eq!(again, model);
    }

    #[test]
    fn rates_are_the_likeliest() {
        let library: Vec<f64> = (0..200).map(|i| 5.0 + f64::from(i % 7)).collect();
        let read: Vec<f64> = (0..200).map(|i| (0.7 * f64::from(i)).sin()).collect();
        let x: Vec<u32> = (0..200).map(|i| (i % 3) * (i % 5) / 2).collect();
        let places: Vec<u32> = (0..200).filter(|&i| x[i as usize] > 0).collect();
        let counts: Vec<u32> = x.iter().copied().filter(|&x| x > 0).collect();
        let delta = 1.5;
        let found = regress(&library, &read, (&places, &counts), delta);
        let value = |[intercept, slope]: [f64; 2]| {
            let of_cell = |i: usize| {
                let log_mean = library[i].ln() + intercept + slope * read[i];
                f64::from(x[i]) * log_mean - log_mean.exp()
            };
            (0..200).map(of_cell).sum::<f64>() - 0.5 * (slope / delta) * (slope / delta)
        };
        for step in [[1e-3, 0.0], [-1e-3, 0.0], [0.0, 1e-3], [0.0, -1e-3]] {
            assert!(value([found[0] + step[0], found[1] + step[1]]) < value(found), "{found:?} {step:?}");
        }
        // A gene with a single count, where the slope would run away without its prior, and one without any.
        let [_, slope] = regress(&library, &read, (&[9], &[1]), delta);
        assert!(slope.abs() < 10.0);
        assert_eq!(regress(&library, &read, (&[], &[]), delta)[1], 0.0);
    }

    #[test]
    fn latents_beyond_the_genes_are_not_in_use() {
        let (g, l) = (5, 8);
        let data = screen(g);
        let cells: Vec<usize> = (0..data.n_cells()).collect();
        let team = &Team::single();
        let model = LinearModel::fit(team, &data, &cells, settings(l)).expect("in memory");
        let mut inference = LinearInference { team, model: &model, data: &data };
        let scores = inference.posterior_means(&cells).expect("in memory");
        let found = InterventionEffects::new(&data, &cells, &scores, l);
        let trace: f64 = (0..l).map(|k| found.within[k * l + k]).sum();
        assert!((trace - g as f64).abs() < 1e-6, "{trace}");
        let objective = Objective { penalty: Penalty::None, beta: 1.0, scale_to_all_cells: false, n_cells: 1 };
        let bound = inference.elbo(&cells, &objective, 1).expect("in memory");
        assert!(bound.total.is_finite() && model.residual_variance.iter().all(|v| *v < 1e-9), "{bound:?}");
    }
}
