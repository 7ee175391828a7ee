//! The outcome of `svae-cpu verify` for people: a line per check.

use crate::display::table::Table;
use crate::verification::outcome::{CheckKind, Verification};

/// The checks as a table for people.
pub fn verification_table(verification: &Verification) -> Table {
    let header = ["check", "by", "points", "worst relative error", "tolerance", "verdict"];
    let mut table = Table::new(header).right_aligned([2, 3, 4]);
    for check in &verification.checks {
        let kind = match check.kind {
            CheckKind::FiniteDifference => "finite differences",
            CheckKind::Formula => "formula",
            CheckKind::Golden => "vector",
        };
        table.push([
            check.name.clone(),
            kind.to_owned(),
            check.points.to_string(),
            format!("{:.1e}", check.worst_relative_error),
            format!("{:.0e}", check.tolerance),
            if check.pass { "pass" } else { "FAIL" }.to_owned(),
        ]);
    }
    table
}

/// One sentence on the outcome of a verification.
pub fn verification_summary(verification: &Verification) -> String {
    let failed = verification.checks.iter().filter(|check| !check.pass).count();
    match (verification.checks.len(), failed) {
        (0, _) => "Nothing was checked.".to_owned(),
        (n, 0) => format!("All {n} checks passed."),
        (n, failed) => format!("{failed} of {n} checks failed."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::json::to_json;
    use crate::verification::outcome::Check;

    #[test]
    fn json_has_the_promised_keys() {
        let check = Check::new("small_hard", CheckKind::Golden, 9, 1e-12, 1e-9);
        let verification = Verification::new(vec![check]);
        let value: serde_json::Value = serde_json::from_str(&to_json(&verification)).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({
                "pass": true,
                "checks": [{
                    "name": "small_hard", "kind": "golden", "worst_relative_error": 1e-12, "tolerance": 1e-9, "pass": true
                }]
            })
        );
        assert!(verification_table(&verification).to_string().contains("small_hard"));
    }
}
