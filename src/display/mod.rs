//! What a person sees on a terminal: tables and progress.

pub mod json;
pub mod judgement;
pub mod linear_rival;
pub mod metrics_table;
pub mod progress;
pub mod table;
pub mod verification_table;
