//! Times as settings write them: `11h50m`.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

/// A time that is written as numbers of days, hours, minutes and seconds: `11h50m`; a plain number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit(pub Duration);

impl std::fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.0.as_secs();
        for (unit, letter) in TIME_UNITS {
            if rest >= unit || unit == 1 && self.0.as_secs() == 0 {
                write!(f, "{}{letter}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

/// Seconds of each unit, the largest first.
pub const TIME_UNITS: [(u64, char); 4] = [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')];

impl FromStr for TimeLimit {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let mut total = 0u64;
        let mut digits = String::new();
        let mut largest = u64::MAX;
        for c in text.trim().chars().chain(text.ends_with(|c: char| c.is_ascii_digit()).then_some('s')) {
            if c.is_ascii_digit() {
                digits.push(c);
                continue;
            }
            let (unit, _) = TIME_UNITS.into_iter().find(|(_, letter)| *letter == c).ok_or(())?;
            // Units fall, so that none is given twice.
            if unit >= largest {
                return Err(());
            }
            largest = unit;
            let number: u64 = std::mem::take(&mut digits).parse().map_err(|_| ())?;
            total = number.checked_mul(unit).and_then(|seconds| total.checked_add(seconds)).ok_or(())?;
        }
        if largest == u64::MAX { Err(()) } else { Ok(Self(Duration::from_secs(total))) }
    }
}

impl Serialize for TimeLimit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
