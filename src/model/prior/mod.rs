//! The prior of the latents given the interventions of a cell: masks and shifts.

pub mod evidence;
pub mod mask;
pub mod shift;
pub mod sparsity;
pub mod table;
