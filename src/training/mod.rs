//! From a network and a screen to a trained network.

pub mod components;
pub mod early_stopping;
pub mod history;
pub mod identification;
pub mod observer;
pub mod rotation;
pub mod schedule;
pub mod shift_fit;
pub(crate) mod snapshot;
pub(crate) mod stage;
pub mod starts;
pub mod trainer;
pub mod turn;

#[cfg(test)]
mod tests;
