//! From a network and a screen to a trained network.

pub mod adam;
pub mod early_stopping;
pub mod held_out;
pub mod schedule;
pub mod settling;
pub mod starts;
pub mod trainer;
