//! Principal components of a table with few columns, by Jacobi rotations of its covariance.

use crate::numerics::symmetric::eigen;

/// The two largest principal components of some rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Pca {
    mean: Vec<f64>,
    axes: [Option<Vec<f64>>; 2],
    /// Share of the variance along each.
    pub explained: [f64; 2],
}

/// Sums up the covariance of rows, of which only one at a time need be in memory.
#[derive(Debug)]
pub(crate) struct Covariance {
    mean: Vec<f64>,
    n: f64,
    covariance: Vec<f64>,
    centred: Vec<f64>,
}

impl Covariance {
    /// The covariance of `n` rows with the given mean, before any is added.
    pub fn new(mean: Vec<f64>, n: usize) -> Self {
        let width = mean.len();
        Self { mean, n: n as f64, covariance: vec![0.0; width * width], centred: vec![0.0; width] }
    }

    /// Adds a row.
    pub fn add(&mut self, row: &[f64]) {
        let Self { mean, n, covariance, centred } = self;
        let width = mean.len();
        centred.iter_mut().zip(row.iter().zip(&*mean)).for_each(|(c, (x, m))| *c = x - m);
        for i in 0..width {
            for j in 0..=i {
                covariance[i * width + j] += centred[i] * centred[j] / *n;
            }
        }
    }

    /// The components, once all rows have been added. A single column is the first component, the second is 0.
    ///
    /// The sign of a component is that of its largest weight, so that it does not depend on chance.
    pub fn components(self) -> Pca {
        let Self { mean, mut covariance, .. } = self;
        let width = mean.len();
        for i in 0..width {
            for j in 0..i {
                covariance[j * width + i] = covariance[i * width + j];
            }
        }
        let (values, vectors) = eigen(covariance, width);
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let total: f64 = values.iter().sum();
        let axis = |i: usize| -> Option<Vec<f64>> {
            let column = *order.get(i)?;
            let mut axis: Vec<f64> = (0..width).map(|k| vectors[k * width + column]).collect();
            let largest = axis.iter().copied().fold(0.0f64, |m, x| if x.abs() > m.abs() { x } else { m });
            if largest < 0.0 {
                axis.iter_mut().for_each(|x| *x = -*x);
            }
            Some(axis)
        };
        let explained =
            |i: usize| order.get(i).map_or(0.0, |&k| if total > 0.0 { values[k].max(0.0) / total } else { 0.0 });
        Pca { axes: [axis(0), axis(1)], explained: [explained(0), explained(1)], mean }
    }
}

impl Pca {
    /// Coordinates of a row on both.
    pub fn point(&self, row: &[f64]) -> [f64; 2] {
        let project = |axis: &Option<Vec<f64>>| {
            axis.as_ref().map_or(0.0, |axis| row.iter().zip(&self.mean).zip(axis).map(|((x, m), a)| (x - m) * a).sum())
        };
        [project(&self.axes[0]), project(&self.axes[1])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Components of a table, and the points of its rows.
    fn pca(table: &[f64], width: usize) -> (Pca, Vec<[f64; 2]>) {
        let n = table.len() / width;
        let mut mean = vec![0.0; width];
        for row in table.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / n as f64);
        }
        let mut covariance = Covariance::new(mean, n);
        table.chunks_exact(width).for_each(|row| covariance.add(row));
        let pca = covariance.components();
        let points = table.chunks_exact(width).map(|row| pca.point(row)).collect();
        (pca, points)
    }

    #[test]
    fn a_stretched_cloud_lies_along_its_axis() {
        // Variance 4 along (0.6, 0.8), 0.25 across.
        let points: Vec<f64> = (0..400)
            .flat_map(|i| {
                let (u, v) = ((i % 20) as f64 / 19.0 - 0.5, (i / 20) as f64 / 19.0 - 0.5);
                [0.6 * 8.0 * u - 0.8 * 2.0 * v, 0.8 * 8.0 * u + 0.6 * 2.0 * v]
            })
            .collect();
        let (pca, points) = pca(&points, 2);
        assert!((pca.explained[0] - 16.0 / 17.0).abs() < 1e-9, "{:?}", pca.explained);
        assert!((points[0][0] - -4.0).abs() < 1e-9 && (points[0][1].abs() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_column_and_constant_columns_are_no_trouble() {
        let (_, points) = pca(&[1.0, 2.0, 3.0], 1);
        assert_eq!(points, [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]);
        let (flat, points) = pca(&[5.0; 8], 2);
        assert_eq!((flat.explained, points[3]), ([0.0; 2], [0.0; 2]));
    }
}
