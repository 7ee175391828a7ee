//! When to stop, and which epoch was best.

/// Watches the validation ELBO.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EarlyStopping {
    /// Epochs without improvement before stopping; 0 never stops.
    pub patience: usize,
    /// Best value so far (negative ELBO, lower is better).
    pub best: f64,
    /// Epochs since the best one.
    pub waited: usize,
}

impl EarlyStopping {
    /// No epoch seen.
    pub fn new(patience: usize) -> Self {
        Self { patience, best: f64::INFINITY, waited: 0 }
    }

    /// Takes in an epoch's value; true if it is the best so far.
    pub fn improves(&mut self, value: f64) -> bool {
        let better = value < self.best;
        if better {
            self.best = value;
            self.waited = 0;
        } else {
            self.waited += 1;
        }
        better
    }

    /// Whether patience has run out.
    pub fn should_stop(&self) -> bool {
        self.patience > 0 && self.waited >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_after_patience_epochs_without_improvement() {
        let mut stopping = EarlyStopping::new(2);
        assert!(stopping.improves(3.0));
        assert!(!stopping.improves(3.0));
        assert!(!stopping.should_stop());
        assert!(stopping.improves(2.5));
        assert!(!stopping.improves(f64::NAN) && !stopping.should_stop());
        assert!(!stopping.improves(2.6) && stopping.should_stop());
        let mut never = EarlyStopping::new(0);
        (0..100).for_each(|_| {
            never.improves(1.0);
        });
        assert!(!never.should_stop());
    }
}
