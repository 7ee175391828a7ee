//! Starting values of parameters and running statistics.

use crate::model::parameters::Buffer;
use crate::model::prior::mask;
use crate::model::tensors::Tensors;
use crate::numerics::random::{Purpose, fill_normal, stream, u32_to_unit_f64};
use crate::numerics::real::Real;

/// Starting values: linear layers from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), normalisation scales 1 and offsets 0,
/// log-dispersions and shifts from N(0, 1), mask logits at 5.
pub fn initialize<R: Real>(tensors: &Tensors, seed: u64) -> Buffer<R> {
    let mut parameters = Buffer::zeros(&tensors.parameters);
    let mut index = 0;
    let mut next_stream = || {
        index += 1;
        stream(seed, Purpose::Initialization, 0, index)
    };
    for linear in tensors.linear_layers() {
        let bound = 1.0 / ((linear.n_in + linear.n_covariates) as f64).sqrt();
        for tensor in [&linear.weight, &linear.bias] {
            let mut random = next_stream();
            let entry = tensors.parameters.at(tensor).clone();
            let mut draw = || R::from_f64(bound * (2.0 * u32_to_unit_f64(random.next_u32()) - 1.0));
            parameters.set_in_order(&entry, std::iter::repeat_with(&mut draw));
        }
    }
    for norm in tensors.encoder.iter().chain(&tensors.decoder).filter_map(|layer| layer.norm.as_ref()) {
        parameters[&norm.weight].fill(R::ONE);
    }
    for tensor in [tensors.log_dispersion.as_ref(), tensors.shift.as_ref()].into_iter().flatten() {
        let mut words = vec![0; tensor.0.len() + 1];
        fill_normal(&mut parameters[tensor], &mut words, &mut next_stream());
    }
    if let Some(mask_logit) = &tensors.mask_logit {
        parameters[mask_logit].fill(R::from_f64(mask::INITIAL));
    }
    parameters
}

/// Starting values of the running statistics: mean 0, variance 1.
pub fn initialize_running<R: Real>(tensors: &Tensors) -> Buffer<R> {
    let mut running = Buffer::zeros(&tensors.running);
    for norm in tensors.encoder.iter().chain(&tensors.decoder).filter_map(|layer| layer.norm.as_ref()) {
        running[&norm.running_variance].fill(R::ONE);
    }
    running
}
