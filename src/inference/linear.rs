//! The linear model: latents that are a linear map of log counts, and what it says of cells. Derivation:
//! `derivations/principal_components.md`. G genes, L latents, A interventions; everything is f64.

use crate::data::counts::in_memory::CountsRow;
use crate::data::dataset::Dataset;
use crate::data::minibatch::Minibatches;
use crate::error::Result;
use crate::inference::cells::CellFindings;
use crate::inference::elbo::Elbo;
use crate::inference::loadings::Loadings;
use crate::inference::trained_model::TrainedModel;
use crate::model::likelihood::{CellCounts, Likelihood, Prepared, Scratch};
use crate::model::objective::Objective;
use crate::model::prior::mask::sigmoid;
use crate::model::prior::table::{Masks, PriorTable};
use crate::numerics::random::{Purpose, fill_normal, stream};
use crate::numerics::real::Real;
use crate::numerics::simd::vectorized;
use crate::parallel::team::{Team, tiles};
use std::f64::consts::LN_2;

/// Counts of a cell are brought to this total before their logarithm is taken, Eq. (Pc1).
const TOTAL: f64 = 1e4;
/// Cells of a minibatch, and cells that a thread takes at a time.
const BATCH: usize = 2048;
const ROWS: usize = 32;
/// Partial sums of a pass over cells.
const PARTS: usize = 16;

/// A linear map from log counts to latents and back, with a prior and a likelihood.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearModel {
    /// L.
    pub n_latents: usize,
    /// Distribution of the counts about their means.
    pub likelihood: Likelihood,
    /// Mean log counts, G.
    pub mean: Vec<f64>,
    /// From centred log counts to latents, L x G, Eq. (Pc3).
    pub weight: Vec<f64>,
    /// Where the latents have their origin, L, Eq. (Pc3).
    pub origin: Vec<f64>,
    /// From latents, counted from the mean of all cells, to centred log counts: G x L, Eq. (Pc4).
    pub loading: Vec<f64>,
    /// Variance of the log counts about what the latents explain, G.
    pub residual_variance: Vec<f64>,
    /// Variance of each latent that is noise of the counts, L, Eq. (Pc5).
    pub noise_variance: Vec<f64>,
    /// Diagonal of the inverse of the latents' sums of squares over the training cells, L.
    pub inverse_squares: Vec<f64>,
    /// Log rates at the mean of all cells, G, Eq. (Pc8).
    pub intercept: Vec<f64>,
    /// Log rate per centred log count, G, Eq. (Pc8).
    pub slope: Vec<f64>,
    /// Logarithm of the inverse dispersion, G; empty for a likelihood without.
    pub log_dispersion: Vec<f64>,
    /// Shifts, A x L; 0 for an intervention without training cells.
    pub shift: Vec<f64>,
    /// Logits of the probabilities that an intervention acts on a latent, A x L.
    pub mask_logit: Vec<f64>,
}

/// The log counts of a cell that are not 0, Eq. (Pc1), by gene.
pub(crate) fn log_counts(row: CountsRow<'_>, entries: &mut Vec<(usize, f64)>) {
    entries.clear();
    let scale = TOTAL / row.sum() as f64;
    row.for_each(|gene, count| entries.push((gene, Real::ln_1p(scale * f64::from(count)))));
}

/// Sums of `width` values over `cells`: `add(entries, sums)` adds a cell, given its log counts. The sum is the same bytes on any
/// number of threads.
///
/// # Errors
/// Counts on disk that cannot be read.
pub(crate) fn sum_over_cells(
    team: &Team,
    data: &Dataset,
    cells: &[usize],
    width: usize,
    add: impl Fn(&[(usize, f64)], &mut [f64]) + Sync,
) -> Result<Vec<f64>> {
    let mut parts = vec![0.0; PARTS * width];
    let mut batches = Minibatches::of_cells(data, cells, BATCH)?;
    let mut first = 0;
    while let Some(batch) = batches.next()? {
        team.run(PARTS, tiles(&mut parts, width), |part, sums| {
            let mut entries = Vec::new();
            for i in (0..batch.cells.len()).filter(|i| (first + i) / ROWS % PARTS == part) {
                log_counts(batch.row(i), &mut entries);
                add(&entries, sums);
            }
        });
        first += batch.cells.len();
    }
    let mut sums = vec![0.0; width];
    for part in parts.chunks_exact(width.max(1)) {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    Ok(sums)
}

/// Rows of `width` values, one for each of `cells`: `row(place, counts, values)` fills that of a cell.
///
/// # Errors
/// Counts on disk that cannot be read.
fn rows_of_cells(
    team: &Team,
    data: &Dataset,
    cells: &[usize],
    width: usize,
    row: impl Fn(usize, CountsRow<'_>, &mut [f64]) + Sync,
) -> Result<Vec<f64>> {
    let mut rows = vec![0.0; cells.len() * width];
    let mut batches = Minibatches::of_cells(data, cells, BATCH)?;
    let mut first = 0;
    while let Some(batch) = batches.next()? {
        let n = batch.cells.len();
        let of_batch = &mut rows[first * width..(first + n) * width];
        team.run(n.div_ceil(ROWS), tiles(of_batch, ROWS * width), |block, values| {
            for (i, values) in values.chunks_exact_mut(width).enumerate() {
                let i = block * ROWS + i;
                row(batch.cells[i], batch.row(i), values);
            }
        });
        first += n;
    }
    Ok(rows)
}

/// A linear map of log counts.
pub(crate) struct Projection {
    /// G x rows: a cell reads the few genes that it has.
    by_gene: Vec<f64>,
    /// What comes off, rows.
    center: Vec<f64>,
}

impl Projection {
    /// `weight` (rows x G) times the log counts less `mean` (G), less `origin` (rows).
    pub(crate) fn new(weight: &[f64], mean: &[f64], origin: &[f64]) -> Self {
        let (g, l) = (mean.len(), origin.len());
        Self {
            by_gene: (0..g * l).map(|at| weight[at % l * g + at / l]).collect(),
            center: weight.chunks_exact(g).zip(origin).map(|(row, o)| o + dot(row, mean)).collect(),
        }
    }

    fn apply(&self, row: CountsRow<'_>, values: &mut [f64]) {
        let l = self.center.len();
        let mut entries = Vec::new();
        log_counts(row, &mut entries);
        values.iter_mut().zip(&self.center).for_each(|(value, center)| *value = -center);
        entries.iter().for_each(|&(gene, y)| add_scaled(values, y, &self.by_gene[gene * l..(gene + 1) * l]));
    }

    /// Of each of `cells`: cells x rows.
    ///
    /// # Errors
    /// Counts on disk that cannot be read.
    pub(crate) fn of_cells(&self, team: &Team, data: &Dataset, cells: &[usize]) -> Result<Vec<f64>> {
        rows_of_cells(team, data, cells, self.center.len(), |_, row, values| self.apply(row, values))
    }
}

/// Sum of products, in order.
pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Adds a multiple of `x` to `sum`.
#[inline(always)]
pub(crate) fn add_scaled(sum: &mut [f64], scale: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += scale * x);
}

impl LinearModel {
    /// A model without genes, latents and interventions.
    pub fn of(likelihood: Likelihood) -> Self {
        Self {
            n_latents: 0,
            likelihood,
            mean: Vec::new(),
            weight: Vec::new(),
            origin: Vec::new(),
            loading: Vec::new(),
            residual_variance: Vec::new(),
            noise_variance: Vec::new(),
            inverse_squares: Vec::new(),
            intercept: Vec::new(),
            slope: Vec::new(),
            log_dispersion: Vec::new(),
            shift: Vec::new(),
            mask_logit: Vec::new(),
        }
    }

    /// Number of genes, G.
    pub fn n_genes(&self) -> usize {
        self.mean.len()
    }

    /// From log counts to latents, Eq. (Pc3).
    pub(crate) fn projection(&self) -> Projection {
        Projection::new(&self.weight, &self.mean, &self.origin)
    }

    /// Shifts and masks.
    pub fn prior(&self) -> PriorTable<'_, f64> {
        let masks = Masks::Integrated { logits: &self.mask_logit };
        PriorTable { n_latents: self.n_latents, shifts: Some(&self.shift), masks }
    }

    /// Centred log counts of a gene at these latents, Eq. (Pc4).
    pub(crate) fn read_back(&self, gene: usize, latents: &[f64]) -> f64 {
        let l = self.n_latents;
        let terms = self.loading[gene * l..(gene + 1) * l].iter().zip(latents.iter().zip(&self.origin));
        terms.map(|(b, (z, o))| b * (z + o)).sum()
    }

    /// Mean of the latents of a cell under its prior, L, and what its masks add to its divergence, Eqs. (Pc6) and (Pc7).
    fn prior_of(&self, data: &Dataset, cell: usize) -> (Vec<f64>, Vec<f64>) {
        let l = self.n_latents;
        let (mut mean, mut spread) = (vec![0.0; l], vec![0.0; l]);
        let (interventions, doses) = data.interventions.row(cell);
        for (&a, &dose) in interventions.iter().zip(doses) {
            for k in 0..l {
                let at = a as usize * l + k;
                let (probability, effect) = (sigmoid(self.mask_logit[at]), f64::from(dose) * self.shift[at]);
                mean[k] += probability * effect;
                spread[k] += 0.5 * probability * (1.0 - probability) * effect * effect / (1.0 - self.noise_variance[k]);
            }
        }
        (mean, spread)
    }

    /// A draw from the posterior of a cell whose map this is, Eq. (Pc6): the noise is that of its one sample.
    pub(crate) fn draw(&self, data: &Dataset, cell: usize, map: &[f64], seed: u64) -> Vec<f64> {
        let l = self.n_latents;
        let (prior, _) = self.prior_of(data, cell);
        let (mut noise, mut words) = (vec![0.0; l], vec![0; l + 1]);
        fill_normal(&mut noise, &mut words, &mut stream(seed, Purpose::EvaluationLatent, 0, cell as u64));
        for k in 0..l {
            let v = self.noise_variance[k];
            noise[k] = prior[k] + (1.0 - v) * (map[k] - prior[k]) + (v * (1.0 - v)).sqrt() * noise[k];
        }
        noise
    }

    /// Divergence of each latent of a cell from its prior, Eq. (Pc7).
    fn divergences(&self, data: &Dataset, cell: usize, map: &[f64], divergences: &mut [f64]) {
        let (prior, mut spread) = self.prior_of(data, cell);
        for k in 0..self.n_latents {
            let (v, distance) = (self.noise_variance[k], map[k] - prior[k]);
            spread[k] += 0.5 * (v + (1.0 - v) * distance * distance - 1.0 - Real::ln(v));
        }
        divergences.copy_from_slice(&spread);
    }
}

/// A linear model, to be asked about cells of a screen that this process holds whole.
#[derive(Debug, Clone, Copy)]
pub struct LinearInference<'a> {
    /// The team that does the work.
    pub team: &'a Team<'a>,
    /// The model.
    pub model: &'a LinearModel,
    /// The screen.
    pub data: &'a Dataset,
}

/// Values of a cell after its map and its divergences (L each): negative log-likelihood, total count, genes with a count.
const FIGURES: usize = 3;

impl LinearInference<'_> {
    /// Of each of `cells` the latents and divergences (L each), then the values of [`FIGURES`].
    fn figures(&self, cells: &[usize], seed: u64) -> Result<Vec<f64>> {
        let Self { team, model, data } = *self;
        let (g, l) = (model.n_genes(), model.n_latents);
        let mut prepared = Prepared::<f64>::new(model.likelihood, 0.0, g);
        prepared.update(&model.log_dispersion);
        let projection = model.projection();
        rows_of_cells(team, data, cells, 2 * l + FIGURES, |cell, row, values| {
            let (map, rest) = values.split_at_mut(l);
            let (divergences, figures) = rest.split_at_mut(l);
            projection.apply(row, map);
            model.divergences(data, cell, map, divergences);
            let latents = model.draw(data, cell, map, seed);
            let log_rate = |gene| model.intercept[gene] + model.slope[gene] * model.read_back(gene, &latents);
            let mut logits: Vec<f64> = (0..g).map(log_rate).collect();
            let mut total = 0.0;
            vectorized(
                #[inline(always)]
                || logits.iter().for_each(|&logit| total += Real::exp(logit)),
            );
            let mut x = vec![0.0; g];
            row.for_each(|gene, count| x[gene] = f64::from(count));
            let scratch = &mut Scratch::new(g);
            let terms = prepared.count_terms(row, scratch);
            let counts = CellCounts { x: &x, nonzero: row, library: data.library[cell] * total };
            figures[0] = prepared.value(&mut logits, counts, terms, scratch);
            figures[1] = row.sum() as f64;
            figures[2] = row.len() as f64;
        })
    }
}

impl TrainedModel<f64> for LinearInference<'_> {
    fn n_latents(&self) -> usize {
        self.model.n_latents
    }

    fn prior(&self) -> PriorTable<'_, f64> {
        self.model.prior()
    }

    fn posterior_means(&mut self, cells: &[usize]) -> Result<Vec<f64>> {
        self.model.projection().of_cells(self.team, self.data, cells)
    }

    /// There is no penalty, and nothing that `objective` weighs.
    fn elbo(&mut self, cells: &[usize], _: &Objective, seed: u64) -> Result<Elbo> {
        if cells.is_empty() {
            return Ok(Elbo { total: f64::NAN, reconstruction: f64::NAN, kl: f64::NAN });
        }
        let l = self.n_latents();
        let (mut reconstruction, mut kl) = (0.0, 0.0);
        for row in self.figures(cells, seed)?.chunks_exact(2 * l + FIGURES) {
            reconstruction += row[2 * l];
            kl += row[l..2 * l].iter().sum::<f64>();
        }
        let n = cells.len() as f64;
        let (reconstruction, kl) = (reconstruction / n, kl / n);
        Ok(Elbo { total: reconstruction + kl, reconstruction, kl })
    }

    fn divergence_by_latent(&mut self, cells: &[usize], _: u64) -> Result<Vec<f64>> {
        let l = self.n_latents();
        let (mut sums, mut divergences) = (vec![0.0; l], vec![0.0; l]);
        for (map, &cell) in self.posterior_means(cells)?.chunks_exact(l).zip(cells) {
            self.model.divergences(self.data, cell, map, &mut divergences);
            sums.iter_mut().zip(&divergences).for_each(|(sum, d)| *sum += d);
        }
        Ok(sums.iter().map(|sum| sum / cells.len().max(1) as f64).collect())
    }

    fn for_each_cell(
        &mut self,
        seed: u64,
        mut found: impl FnMut(CellFindings<'_, f64>) -> Result<()>,
    ) -> Result<Vec<f64>> {
        let l = self.n_latents();
        let all: Vec<usize> = (0..self.data.n_cells()).collect();
        for cells in all.chunks(BATCH) {
            let figures = self.figures(cells, seed)?;
            for (&cell, row) in cells.iter().zip(figures.chunks_exact(2 * l + FIGURES)) {
                found(CellFindings {
                    cell,
                    mean: &row[..l],
                    reconstruction: row[2 * l],
                    kl: row[l..2 * l].iter().sum(),
                    total: row[2 * l + 1] as u64,
                    n_genes: row[2 * l + 2] as usize,
                })?;
            }
        }
        let mut totals = vec![0.0; self.model.n_genes()];
        self.data.counts.visit(&all, |_, row| row.for_each(|gene, count| totals[gene] += f64::from(count)))?;
        Ok(totals)
    }

    /// Eqs. (Pc9) and (Pc10); they do not depend on where the cells lie.
    fn gene_loadings(&mut self, _: &[usize], _: &[f64], _: usize) -> Loadings {
        let model = self.model;
        let l = model.n_latents;
        let n = model.mean.len() * l;
        let mut loadings = Loadings { log2_fold_change: vec![0.0; n], standard_error: vec![f64::INFINITY; n] };
        for (gene, &mean) in model.mean.iter().enumerate().filter(|(_, mean)| **mean > 0.0) {
            let per_log = 1.0 / (LN_2 * (1.0 - Real::exp(-mean)));
            for k in 0..l {
                let error = (model.residual_variance[gene] * model.inverse_squares[k]).sqrt();
                loadings.log2_fold_change[gene * l + k] = per_log * model.loading[gene * l + k];
                if error > 0.0 {
                    loadings.standard_error[gene * l + k] = per_log * error;
                }
            }
        }
        loadings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::counts::in_memory::Counts;
    use crate::data::dataset::InterventionRows;
    use crate::data::simulate::{Simulation, simulate};

    /// One latent, three genes, two interventions; a cell under both with doses, one under none.
    fn model_and_cells() -> (LinearModel, Dataset) {
        let model = LinearModel {
            n_latents: 1,
            mean: vec![3.0, 2.0, 0.5],
            weight: vec![0.8, -0.5, 0.3],
            origin: vec![0.2],
            loading: vec![0.4, -0.3, 0.2],
            residual_variance: vec![0.1, 0.2, 0.3],
            noise_variance: vec![0.3],
            inverse_squares: vec![0.1],
            intercept: vec![-1.0, -1.5, -2.0],
            slope: vec![1.0, 1.2, 2.0],
            log_dispersion: vec![1.0, 0.5, -0.5],
            shift: vec![1.5, -0.8],
            mask_logit: vec![0.4, -1.0],
            ..LinearModel::of(Likelihood::NegativeBinomial)
        };
        let simulation =
            Simulation { n_interventions: 2, n_genes: 3, cells_per_intervention: 1, ..Simulation::default() };
        let mut data = simulate(&simulation).expect("a screen").dataset;
        data.counts = Counts::from_dense(3, &[4, 1, 0, 2, 3, 1]).into();
        data.library = vec![5.0, 6.0];
        data.interventions = InterventionRows::default();
        data.interventions.push(&[(0, 1.5), (1, 0.5)]);
        data.interventions.push(&[]);
        (model, data)
    }

    fn normal(x: f64, mean: f64, variance: f64) -> f64 {
        (-0.5 * (x - mean) * (x - mean) / variance).exp() / (std::f64::consts::TAU * variance).sqrt()
    }

    /// Integral over the signal.
    fn integral(f: impl Fn(f64) -> f64) -> f64 {
        let step = 1e-3;
        (-12_000..=12_000).map(|i| step * f(step * f64::from(i))).sum()
    }

    #[test]
    fn the_divergence_is_that_of_the_densities() {
        let (model, data) = model_and_cells();
        let (v, u) = (0.3, 1.1);
        let on = [sigmoid(0.4), sigmoid(-1.0)];
        let effects = [1.5 * 1.5, -0.8 * 0.5];
        let mu = on[0] * effects[0] + on[1] * effects[1];
        let q = |t: f64| normal(t, mu + (1.0 - v) * (u - mu), v * (1.0 - v));
        let wanted: f64 = [[true, true], [true, false], [false, true], [false, false]]
            .iter()
            .map(|masks| {
                let weight: f64 = masks.iter().zip(on).map(|(&m, p)| if m { p } else { 1.0 - p }).product();
                let mean: f64 = masks.iter().zip(effects).filter(|(m, _)| **m).map(|(_, e)| e).sum();
                let terms = |t: f64| if q(t) > 0.0 { q(t) * (q(t) / normal(t, mean, 1.0 - v)).ln() } else { 0.0 };
                weight * integral(terms)
            })
            .sum();
        let mut found = [0.0];
        model.divergences(&data, 0, &[u], &mut found);
        assert!((found[0] - wanted).abs() < 1e-6, "{} {wanted}", found[0]);
    }

    #[test]
    fn the_bound_lies_above_the_likelihood() {
        let (model, data) = model_and_cells();
        let team = &Team::single();
        let mut inference = LinearInference { team, model: &model, data: &data };
        // The cell without interventions: its masks add nothing.
        let x = [2u32, 3, 1];
        let given = |t: f64| -> f64 {
            let of_gene = |(gene, &x): (usize, &u32)| {
                let log_rate = model.intercept[gene] + model.slope[gene] * model.read_back(gene, &[t]);
                let mu = data.library[1] * log_rate.exp();
                let (theta, x) = (model.log_dispersion[gene].exp(), f64::from(x));
                let choose = libm::lgamma(x + theta) - libm::lgamma(theta) - libm::lgamma(x + 1.0);
                choose + theta * (theta / (theta + mu)).ln() + x * (mu / (theta + mu)).ln()
            };
            x.iter().enumerate().map(of_gene).sum()
        };
        let likelihood = integral(|t| normal(t, 0.0, 0.7) * given(t).exp()).ln();
        let u = inference.posterior_means(&[1]).expect("in memory")[0];
        let q = |t: f64| normal(t, 0.7 * u, 0.3 * 0.7);
        let mut divergence = [0.0];
        model.divergences(&data, 1, &[u], &mut divergence);
        let exact = divergence[0] - integral(|t| q(t) * given(t));
        assert!(exact > -likelihood, "{exact} {likelihood}");
        let draws = 4000;
        let of = |seed: u64| inference.figures(&[1], seed).expect("in memory")[2] + divergence[0];
        let bounds: Vec<f64> = (0..draws).map(of).collect();
        let mean = bounds.iter().sum::<f64>() / draws as f64;
        let variance = bounds.iter().map(|b| (b - mean) * (b - mean)).sum::<f64>() / draws as f64;
        // Five standard errors.
        assert!((mean - exact).abs() < 5.0 * (variance / draws as f64).sqrt(), "{mean} {exact}");
    }
}
