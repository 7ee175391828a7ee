//! How good a fitted model is: recovered latents, recovered targets, likelihood against plain baselines.

pub mod assignment;
pub mod certainty;
pub(crate) mod columns;
pub mod correlation;
pub mod edge;
pub mod edge_metrics;
pub mod gene_effects;
pub mod guides;
pub mod held_out;
pub mod held_out_protocol;
pub mod identifiability;
mod interaction_metrics;
pub mod interactions;
pub mod interpretation;
pub mod judge;
pub mod linear_rival;
pub mod mcc;
pub mod metrics;
pub mod oracle;
pub mod pooled;
pub mod predictions;
pub mod recovery;
pub mod regression;
pub mod target_graph;
pub mod udr;
