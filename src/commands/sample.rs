//! `svae-cpu sample`: cells under interventions, simulated by a trained model.

use std::path::Path;

use crate::error::Result;
use crate::fit::{Fitted, SampleRequest};
use crate::results::output_file::{OutputKind, Written, write_simulated};

/// Simulates cells and writes them with their latents.
///
/// # Errors
/// As [`Fitted::sample`]; as writing does.
pub fn sample(model: &Fitted, request: &SampleRequest, out: &Path, kind: OutputKind) -> Result<Written> {
    let sampled = model.sample(request)?;
    write_simulated(out, kind, &sampled.data, &sampled.latents, model.settings().model.latents)?;
    let mut notes = Vec::new();
    if sampled.from_held_out_fit {
        notes.push("cells come from the model that was fitted to held-out interventions".to_owned());
    }
    Ok(Written { n_cells: sampled.data.n_cells(), notes })
}
