//! What the cells of an intervention say beyond a model's prediction of it. Derivation: `derivations/judgement.md`.

/// What comes to a model's prediction of an intervention, G: the difference of the observed effect from the predicted one, times the
/// share of it that is not noise, Eq. (J10). `variance` is the noise of the observed effect, summed over genes. Returns the share too.
pub fn correction(observed: &[f64], predicted: &[f64], variance: f64) -> (Vec<f64>, f64) {
    let mut left: Vec<f64> = observed.iter().zip(predicted).map(|(observed, predicted)| observed - predicted).collect();
    let squares: f64 = left.iter().map(|x| x * x).sum();
    let share = if squares > 0.0 { (1.0 - variance / squares).max(0.0) } else { 0.0 };
    left.iter_mut().for_each(|x| *x *= share);
    (left, share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::random::{Purpose, fill_normal, stream};

    #[test]
    fn noise_is_left_out_and_what_is_certain_is_taken_over() {
        let n = 10_000;
        let mut noise = vec![0.0; n];
        fill_normal(&mut noise, &mut vec![0; n], &mut stream(3, Purpose::Shuffle, 0, 0));
        let predicted = vec![0.3; n];
        // Nothing but noise: the shares of 10,000 genes deviate by 1.4 % from 1.
        let observed: Vec<f64> = noise.iter().map(|e| 0.3 + 0.1 * e).collect();
        let (left, share) = correction(&observed, &predicted, 0.01 * n as f64);
        assert!(share < 0.06 && left.iter().all(|x| x.abs() < 0.03), "{share}");
        // A difference of the same size as the noise: the best share is a half.
        let observed: Vec<f64> = noise.iter().enumerate().map(|(i, e)| 0.3 + 0.1 * (e + [1.0, -1.0][i % 2])).collect();
        let (left, share) = correction(&observed, &predicted, 0.01 * n as f64);
        assert!((share - 0.5).abs() < 0.03, "{share}");
        let error = |of: &dyn Fn(usize) -> f64| (0..n).map(|i| (of(i) - 0.1 * [1.0, -1.0][i % 2]).powi(2)).sum::<f64>();
        assert!(
            error(&|i| left[i]) < 0.6 * error(&|i| observed[i] - 0.3) && error(&|i| left[i]) < 0.6 * error(&|_| 0.0)
        );
        assert_eq!(correction(&[1.0, 2.0], &[0.0, 0.0], 0.0), (vec![1.0, 2.0], 1.0));
        assert_eq!(correction(&[1.0], &[1.0], 0.0), (vec![0.0], 0.0));
    }
}
