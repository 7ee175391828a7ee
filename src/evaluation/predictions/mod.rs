//! Predictions of held-out combinations beside plain baselines: what they are compared with, how, and what comes of it.
//! Derivation: `derivations/judgement.md`.

pub mod baselines;
pub mod bounds;
pub mod intervals;
pub mod judge;
pub mod judged;
pub mod kriging;
pub mod non_additive;
pub mod observed;
pub mod profiles;
pub mod scores;
