//! Highly variable genes by the variance of standardised counts, as `scanpy.pp.highly_variable_genes` finds them with
//! `flavor="seurat_v3"`.

use crate::data::counts::ScreenCounts;
use crate::error::Result;

/// Share of the genes in each local fit.
const SPAN: f64 = 0.3;
/// Share of a local fit's genes in a cell of the interpolation.
const CELL: f64 = 0.2;

/// The `n_top` most variable genes of the given cells, ascending. `batch` gives the batch of each of `cells`; genes are
/// then ranked within each batch, and the median rank decides, the number of batches in which a gene is among the top
/// breaking ties.
///
/// Within a batch the logarithm of the variance is fitted by that of the mean (loess), counts are standardised by the
/// fitted variance, clipped at the square root of the number of cells, and the variance of the result ranks the genes.
///
/// # Errors
/// Counts on disk that cannot be read.
pub(crate) fn highly_variable(
    counts: &ScreenCounts,
    cells: &[usize],
    batch: Option<&[u32]>,
    n_top: usize,
) -> Result<Vec<usize>> {
    let n_genes = counts.n_genes();
    let batches: Vec<Vec<usize>> = match batch {
        None => vec![cells.to_vec()],
        Some(codes) => {
            let mut batches = vec![Vec::new(); codes.iter().max().map_or(0, |&code| code as usize + 1)];
            cells.iter().zip(codes).for_each(|(&cell, &code)| batches[code as usize].push(cell));
            // A single cell has no variance.
            batches.retain(|cells| cells.len() > 1);
            batches
        }
    };
    // Ranks of each gene in the batches where it is among the top.
    let mut ranks: Vec<Vec<usize>> = vec![Vec::new(); n_genes];
    for cells in &batches {
        let variance = standardised_variance(counts, cells)?;
        let mut order: Vec<usize> = (0..n_genes).collect();
        order.sort_by(|&a, &b| variance[b].total_cmp(&variance[a]));
        for (rank, &gene) in order.iter().take(n_top).enumerate() {
            ranks[gene].push(rank);
        }
    }
    let median = |ranks: &mut Vec<usize>| -> f64 {
        ranks.sort_unstable();
        let n = ranks.len();
        match n {
            0 => f64::INFINITY,
            _ => (ranks[(n - 1) / 2] + ranks[n / 2]) as f64 / 2.0,
        }
    };
    let medians: Vec<f64> = ranks.iter_mut().map(median).collect();
    let mut order: Vec<usize> = (0..n_genes).collect();
    order.sort_by(|&a, &b| medians[a].total_cmp(&medians[b]).then(ranks[b].len().cmp(&ranks[a].len())));
    order.truncate(n_top);
    order.sort_unstable();
    Ok(order)
}

/// Variance of the standardised and clipped counts of each gene over `cells` (two or more).
fn standardised_variance(counts: &ScreenCounts, cells: &[usize]) -> Result<Vec<f64>> {
    let (n_genes, n) = (counts.n_genes(), cells.len() as f64);
    let (mut sum, mut squares) = (vec![0.0; n_genes], vec![0.0; n_genes]);
    counts.visit(cells, |_, row| {
        row.for_each(|g, x| {
            sum[g] += x as f64;
            squares[g] += (x as f64).powi(2);
        });
    })?;
    let mean: Vec<f64> = sum.iter().map(|sum| sum / n).collect();
    let variance: Vec<f64> =
        mean.iter().zip(&squares).map(|(mean, squares)| (squares / n - mean * mean).max(0.0) * n / (n - 1.0)).collect();
    // A gene with the same count in every cell has no variance; rounding must not give it one.
    let varies = |g: &usize| variance[*g] > 1e-12 * mean[*g] * mean[*g];
    let fitted_genes: Vec<usize> = (0..n_genes).filter(varies).collect();
    let x: Vec<f64> = fitted_genes.iter().map(|&g| mean[g].log10()).collect();
    let y: Vec<f64> = fitted_genes.iter().map(|&g| variance[g].log10()).collect();
    let fit = loess(&x, &y, SPAN);
    // Where nothing was fitted the logarithm stays 0, and the standard deviation 1.
    let mut deviation = vec![1.0; n_genes];
    fitted_genes.iter().zip(&fit).for_each(|(&g, fit)| deviation[g] = 10f64.powf(*fit).sqrt());

    let limit: Vec<f64> = mean.iter().zip(&deviation).map(|(mean, sd)| sd * n.sqrt() + mean).collect();
    let (mut sum, mut squares) = (vec![0.0; n_genes], vec![0.0; n_genes]);
    counts.visit(cells, |_, row| {
        row.for_each(|g, x| {
            let clipped = (x as f64).min(limit[g]);
            sum[g] += clipped;
            squares[g] += clipped * clipped;
        });
    })?;
    Ok((0..n_genes)
        .map(|g| {
            let scale = (n - 1.0) * deviation[g] * deviation[g];
            (n * mean[g] * mean[g] + squares[g] - 2.0 * sum[g] * mean[g]) / scale
        })
        .collect())
}

/// Local quadratic regression of `y` on `x` (Cleveland and Devlin 1988), evaluated at `x`: `span` of the points, weighted
/// by the tricube of their distance, enter each fit. Fits are made at the vertices of cells of few points and
/// interpolated by cubics with the fitted slopes, as in the authors' own program.
fn loess(x: &[f64], y: &[f64], span: f64) -> Vec<f64> {
    let n = x.len();
    if n == 0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let (sorted_x, sorted_y): (Vec<f64>, Vec<f64>) = order.iter().map(|&i| (x[i], y[i])).unzip();
    // Enough points for a parabola, whatever the span says.
    let q = ((n as f64 * span + 1e-5) as usize).clamp(n.min(10), n);
    let most = ((n as f64 * span * CELL) as usize).max(1);

    let (low, high) = (sorted_x[0], sorted_x[n - 1]);
    let margin = MARGIN * f64::max(high - low, 1e-3 * low.abs().max(high.abs()) + 1e-30);
    let mut vertices = vec![low - margin, high + margin];
    cut(&sorted_x, 0, n, most, low - margin, high + margin, &mut vertices);
    vertices.sort_by(f64::total_cmp);
    let fits: Vec<(f64, f64)> = vertices.iter().map(|&at| local_fit(&sorted_x, &sorted_y, q, at)).collect();

    x.iter()
        .map(|&x| {
            let right = vertices.partition_point(|&vertex| vertex < x).clamp(1, vertices.len() - 1);
            let (a, b) = (vertices[right - 1], vertices[right]);
            let ((value_a, slope_a), (value_b, slope_b)) = (fits[right - 1], fits[right]);
            let (h, t) = (b - a, (x - a) / (b - a));
            let (s, t2) = (1.0 - t, t * t);
            s * s * (1.0 + 2.0 * t) * value_a + t2 * (3.0 - 2.0 * t) * value_b + h * t * s * (s * slope_a - t * slope_b)
        })
        .collect()
}

/// By how much of their range the outer vertices lie beyond the points.
const MARGIN: f64 = 0.005;

/// Cuts the points `from..to` at their median until at most `most` are left; adds the cuts to `vertices`.
fn cut(x: &[f64], from: usize, to: usize, most: usize, low: f64, high: f64, vertices: &mut Vec<f64>) {
    if to - from <= most {
        return;
    }
    // The place nearest to the middle where the next point differs, to the right before to the left.
    let middle = (from + to - 1) / 2;
    let mut last = middle;
    for step in 0..=2 * (to - from) {
        let offset = step.div_ceil(2);
        let place = if step % 2 == 1 || step == 0 { middle + offset } else { middle.wrapping_sub(offset) };
        if place < from || place + 1 >= to {
            break;
        }
        if x[place] != x[place + 1] {
            last = place;
            break;
        }
    }
    let at = x[last];
    if at <= low || at >= high {
        return;
    }
    vertices.push(at);
    cut(x, from, last + 1, most, low, at, vertices);
    cut(x, last + 1, to, most, at, high, vertices);
}

/// Value and slope at `at` of the parabola fitted to the `q` points nearest to it, by weighted least squares.
fn local_fit(x: &[f64], y: &[f64], q: usize, at: f64) -> (f64, f64) {
    // The window of q neighbours, and its farther end.
    let (mut from, mut to) = (0, x.len());
    while to - from > q {
        if at - x[from] > x[to - 1] - at {
            from += 1;
        } else {
            to -= 1;
        }
    }
    let radius = f64::max((at - x[from]).abs(), (x[to - 1] - at).abs());
    let weight = |x: f64| match (x - at).abs() / radius {
        _ if radius == 0.0 => 1.0,
        r if r >= 1.0 => 0.0,
        r => (1.0 - r * r * r).powi(3),
    };
    // Columns 1, u, u^2 with u = (x - at) / radius, made orthogonal one after another.
    let scale = if radius > 0.0 { radius } else { 1.0 };
    let n = to - from;
    let mut w: Vec<f64> = x[from..to].iter().map(|&x| weight(x).sqrt()).collect();
    // All of them at the same distance.
    if w.iter().all(|w| *w == 0.0) {
        w.fill(1.0);
    }
    let u: Vec<f64> = x[from..to].iter().map(|&x| (x - at) / scale).collect();
    let mut columns: Vec<Vec<f64>> = (0..3).map(|power| (0..n).map(|i| w[i] * u[i].powi(power)).collect()).collect();
    let mut rest: Vec<f64> = (0..n).map(|i| w[i] * y[from + i]).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut r = [[0.0; 3]; 3];
    let mut projected = [0.0; 3];
    for k in 0..3 {
        let before = dot(&columns[k], &columns[k]);
        // Twice, so that rounding does not leave a trace of the earlier columns.
        for _ in 0..2 {
            for j in 0..k {
                if r[j][j] == 0.0 {
                    continue;
                }
                let (done, current) = columns.split_at_mut(k);
                let share = dot(&done[j], &current[0]);
                r[j][k] += share;
                current[0].iter_mut().zip(&done[j]).for_each(|(x, q)| *x -= share * q);
            }
        }
        let norm = dot(&columns[k], &columns[k]).sqrt();
        // A column that the others explain (few distinct points) is left out: a line or a constant is fitted.
        if norm * norm <= 1e-14 * before || norm == 0.0 {
            continue;
        }
        r[k][k] = norm;
        columns[k].iter_mut().for_each(|x| *x /= norm);
        projected[k] = dot(&columns[k], &rest);
        let share = projected[k];
        rest.iter_mut().zip(&columns[k]).for_each(|(x, q)| *x -= share * q);
    }
    let mut coefficients = [0.0; 3];
    for k in (0..3).rev() {
        if r[k][k] != 0.0 {
            let known: f64 = (k + 1..3).map(|j| r[k][j] * coefficients[j]).sum();
            coefficients[k] = (projected[k] - known) / r[k][k];
        }
    }
    (coefficients[0], coefficients[1] / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::counts::in_memory::Counts;

    #[test]
    fn a_parabola_is_fitted_exactly() {
        let x: Vec<f64> = (0..200).map(|i| ((i * 37) % 200) as f64 / 50.0 - 1.0).collect();
        let y: Vec<f64> = x.iter().map(|x| 0.5 + x - 0.25 * x * x).collect();
        // Between vertices a cubic with the right values and slopes is the parabola itself.
        for (got, want) in loess(&x, &y, 0.3).iter().zip(&y) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
    }

    #[test]
    fn few_or_equal_points_are_no_panic() {
        assert!(loess(&[], &[], 0.3).is_empty());
        assert_eq!(loess(&[1.0], &[2.0], 0.3), [2.0]);
        let fit = loess(&[1.0, 1.0, 2.0], &[1.0, 3.0, 5.0], 0.3);
        assert!(fit.iter().all(|x| x.is_finite()), "{fit:?}");
        let fit = loess(&[1.0; 50], &[3.0; 50], 0.3);
        assert!(fit.iter().all(|x| (x - 3.0).abs() < 1e-9), "{fit:?}");
    }

    #[test]
    fn variable_genes_come_before_even_ones() {
        // Gene 7 is on in a few cells only, gene 3 the same in all.
        let table: Vec<u32> = (0..100u32)
            .flat_map(|n| {
                (0..20u32).map(move |g| match g {
                    3 => 4,
                    7 => {
                        if n % 25 == 0 {
                            60
                        } else {
                            0
                        }
                    }
                    _ => (n * 7 + g * n * n) % (g + 3),
                })
            })
            .collect();
        let counts = Counts::from_dense(20, &table).into();
        let cells: Vec<usize> = (0..100).collect();
        assert_eq!(highly_variable(&counts, &cells, None, 1).unwrap(), [7]);
        assert!(!highly_variable(&counts, &cells, None, 19).unwrap().contains(&3));
        let batch: Vec<u32> = cells.iter().map(|n| (n % 2) as u32).collect();
        assert_eq!(highly_variable(&counts, &cells, Some(&batch), 1).unwrap(), [7]);
    }
}
