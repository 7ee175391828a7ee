//! The outcome of `svae-cpu verify`: one line per check.

use serde::Serialize;

/// How a check was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// A hand-written gradient against finite differences.
    FiniteDifference,
    /// A value against a plain formula for it, or against an identity that it must satisfy.
    Formula,
    /// Values and gradients against a vector computed by another system.
    Golden,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What was checked; for a vector, the stem of its file's name is part of it.
    pub name: String,
    /// How.
    pub kind: CheckKind,
    /// Number of values compared (in the table only).
    #[serde(skip)]
    pub points: usize,
    /// Largest error found, relative as the check defines it; NaN (null in JSON) if a value was not finite.
    pub worst_relative_error: f64,
    /// Largest error allowed.
    pub tolerance: f64,
    /// Whether the check passed.
    pub pass: bool,
}

impl Check {
    /// A check of `points` values, which passes when the error is a number within the tolerance.
    pub fn new(
        name: impl Into<String>,
        kind: CheckKind,
        points: usize,
        worst_relative_error: f64,
        tolerance: f64,
    ) -> Self {
        // A comparison with NaN is false, and a check of nothing is no check.
        let pass = points > 0 && worst_relative_error <= tolerance;
        Self { name: name.into(), kind, points, worst_relative_error, tolerance, pass }
    }
}

/// All checks of a verification.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Whether every check passed, and there was at least one.
    pub pass: bool,
    /// The checks, in the order made.
    pub checks: Vec<Check>,
}

impl Verification {
    /// Collects `checks`.
    pub fn new(checks: Vec<Check>) -> Self {
        Self { pass: !checks.is_empty() && checks.iter().all(|check| check.pass), checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_nan_do_not_pass() {
        let check = |points, error| Check::new("decoder", CheckKind::FiniteDifference, points, error, 1e-6);
        assert!(check(3, 1e-7).pass);
        assert!(!check(3, 1e-5).pass);
        assert!(!check(3, f64::NAN).pass);
        assert!(!check(0, 0.0).pass);
        assert!(!Verification::new(vec![]).pass);
        assert!(!Verification::new(vec![check(3, 1e-7), check(3, 1e-5)]).pass);
        assert!(Verification::new(vec![check(3, 1e-7)]).pass);
    }
}
