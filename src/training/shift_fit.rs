//! Held-out interventions: masks fixed for a second training, then their shifts fitted with all else frozen.
//!
//! Derivation: `derivations/heldout.md`.

use crate::checkpoint::ResumableRun;
use crate::error::Result;
use crate::model::adam::Adam;
use crate::model::network::Network;
use crate::model::objective::Objective;
use crate::model::parameters::Buffer;
use crate::model::particles::Posterior;
use crate::model::prior::shift;
use crate::model::prior::sparsity::Penalty;
use crate::model::prior::table::{CellInterventions, MaskBuffers};
use crate::numerics::random::{Purpose, shuffle, stream};
use crate::numerics::real::Real;
use crate::parallel::team::Team;
use crate::training::history::KeepEpoch;
use crate::training::observer::Observer;
use crate::training::schedule::Schedule;
use crate::training::stage::train_in;
use crate::training::trainer::{SMALLEST_BATCH, Trainer, Training, TrainingSettings, TrainingTask};
use serde::Deserialize;
use serde::Serialize;
use std::ops::Range;

/// Epochs of the fit of the shifts.
pub const FIT_EPOCHS: usize = 300;
/// Steps of the fit, at least.
pub const FIT_STEPS: usize = 5000;
/// Adam's step size in the fit of the shifts.
pub const FIT_LEARNING_RATE: f64 = 0.005;
/// Distance between the stages in the addresses of random streams; more than any number of epochs.
const STREAMS_PER_STAGE: u64 = 1 << 24;

/// Settings of the second training, on fixed masks: those of the first, but the KL weight is 1 from the start.
pub fn retraining_settings(first: &TrainingSettings) -> TrainingSettings {
    TrainingSettings {
        epochs: first.retraining_epochs,
        warmup_epochs: 0,
        stream_offset: STREAMS_PER_STAGE,
        ..first.clone()
    }
}

/// Settings of the fit of the shifts to `n_cells` cells: step size 0.005, without early stopping, 300 epochs or as many
/// as make 5,000 steps.
///
/// Adam moves a shift by about the step size a step, and shifts start at 0: one of 5, as a simulation has, is 1,000
/// steps away, more than 300 epochs of a few cells hold.
pub fn fit_settings(first: &TrainingSettings, n_cells: usize) -> TrainingSettings {
    let steps_per_epoch = n_cells.div_ceil(first.batch_size).max(1);
    let mut settings = TrainingSettings {
        epochs: FIT_EPOCHS.max(FIT_STEPS.div_ceil(steps_per_epoch)),
        warmup_epochs: 0,
        patience: 0,
        keep: KeepEpoch::Last,
        stream_offset: 2 * STREAMS_PER_STAGE,
        schedule: Schedule::Constant,
        ..first.clone()
    };
    settings.adam.learning_rate = FIT_LEARNING_RATE;
    settings
}

/// The objective once masks are fixed: no penalty; `n_cells` is the number of cells trained or fitted on.
pub fn fixed_objective(first: &Objective, n_cells: usize) -> Objective {
    Objective { penalty: Penalty::None, n_cells, ..*first }
}

/// Places of the shifts of `held_out` (ascending) in the parameters; adjacent rows in one range.
fn shift_ranges<R: Real>(network: &Network<R>, held_out: &[usize]) -> Vec<Range<usize>> {
    let Some(shift) = &network.tensors.shift else { return Vec::new() };
    let l = network.architecture.n_latents;
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for &a in held_out {
        let row = shift.0.start + a * l..shift.0.start + (a + 1) * l;
        match ranges.last_mut() {
            Some(last) if last.end == row.start => last.end = row.end,
            _ => ranges.push(row),
        }
    }
    ranges
}

/// Fits the shifts of the `held_out` interventions (ascending) to the cells that `task` trains on, with everything else frozen, running
/// statistics included, Eqs. (H3)-(H5).
///
/// With the encoder in evaluation mode the posterior of a cell does not change, and only the divergence depends on the
/// shifts: `posterior` (of these cells, in their order) is all that is needed, and no pass through the network. `between` is
/// called after every step, and ends the fit with its error.
///
/// # Errors
/// Those of `between`.
///
/// # Panics
/// If masks are still random.
pub fn fit_shifts<R: Real>(
    team: &Team,
    network: &mut Network<R>,
    task: TrainingTask<'_>,
    posterior: &Posterior<R>,
    held_out: &[usize],
    mut between: impl FnMut() -> Result<()>,
) -> Result<()> {
    let TrainingTask { data, train: cells, objective, settings, .. } = task;
    let Some(shift) = network.tensors.shift.clone() else { return Ok(()) };
    assert!(network.prior().logits().is_none(), "masks are frozen first");
    let l = network.architecture.n_latents;
    let ranges = shift_ranges(network, held_out);

    let batch_size = settings.batch_size.min(cells.len()).max(1);
    let mut gradient = Buffer::zeros(&network.parameters.layout);
    let mut adam = Adam::new(&network.parameters);
    let (mut prior_mean, mut d_mean) = (vec![R::ZERO; l], vec![R::ZERO; l]);
    let per_cell = data.interventions.max_len();
    let mut masks = vec![R::ZERO; per_cell * l];
    let mut order: Vec<usize> = Vec::new();
    for epoch in 0..settings.epochs {
        order.clear();
        order.extend(0..cells.len());
        let stream_epoch = settings.stream_offset + epoch as u64;
        shuffle(&mut order, &mut stream(settings.seed, Purpose::Shuffle, stream_epoch, 0));
        for batch in order.chunks(batch_size) {
            if batch.len() < SMALLEST_BATCH && order.len() >= SMALLEST_BATCH {
                break;
            }
            let weights = objective.weights(batch.len(), 1.0);
            let scale = R::from_f64(weights.cell * weights.kl);
            let prior = network.prior();
            let d_shifts = &mut gradient[&shift];
            d_shifts.fill(R::ZERO);
            for &i in batch {
                let of = CellInterventions { rows: &data.interventions, cells: &cells[i..=i], per_cell };
                // Fixed ones need neither noise nor room for slopes.
                let buffers = MaskBuffers { mask: &mut masks, slope: &mut [], logit: &mut [], noise: &[] };
                prior.masks_of_cells(buffers, of);
                prior.means_of_cells(&mut prior_mean, &masks, of);
                let mean = &posterior.mean[i * l..(i + 1) * l];
                shift::divergence_gradient(&mut d_mean, mean, &prior_mean, scale);
                prior.add_gradient([&mut *d_shifts, &mut []], (&d_mean, scale), [&masks, &[]], of);
            }
            // Only the shifts in `ranges` move.
            adam.step(team, &mut network.parameters, &gradient, &ranges, &settings.adam);
            between()?;
        }
    }
    Ok(())
}

/// Fits the shifts of `held_out` as the reference implementation does for its baselines: by a training whose cells are the held-out
/// ones, in training mode, so that the encoder's running statistics move with them. The decoder takes no part, Eq. (H6). It is the
/// stage `stage` of the run; what it records is the divergence alone.
///
/// # Errors
/// As [`train_in`].
pub(crate) fn fit_shifts_drifting<R: Real>(
    run: &mut ResumableRun<'_>,
    stage: &str,
    team: &Team,
    network: &mut Network<R>,
    task: TrainingTask<'_>,
    held_out: &[usize],
    observer: &mut dyn Observer,
) -> Result<Training> {
    let settings = TrainingSettings { trained: Some(shift_ranges(network, held_out)), ..task.settings.clone() };
    let trainer = Trainer::new(network, TrainingTask { settings: &settings, ..task });
    train_in(run, stage, team, trainer, observer)
}

/// Running statistics of batch normalisation while the shifts of held-out interventions are fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum HeldoutBatchNorm {
    /// They stay as they are
    Frozen,
    /// Those of the encoder move with the held-out cells (as the reference implementation's baselines do)
    Drift,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Dataset;
    use crate::data::simulate::{Simulation, simulate};
    use crate::inference::{Inference, evaluation_workspace};
    use crate::model::architecture::{Architecture, MaskKind, Prior};

    use crate::system::console::Silent;
    use crate::training::trainer::train;

    fn screen() -> Dataset {
        let simulation = Simulation {
            n_interventions: 6,
            n_latents: 3,
            n_genes: 12,
            cells_per_intervention: 30,
            seed: 1,
            ..Simulation::default()
        };
        simulate(&simulation).expect("a simulation").dataset
    }

    fn network(data: &Dataset, prior: Prior) -> Network<f64> {
        let architecture =
            Architecture { n_hidden: 8, prior, ..Architecture::new(data.n_genes(), data.n_interventions(), 4) };
        Network::new(architecture, 3)
    }

    fn settings() -> TrainingSettings {
        TrainingSettings { retraining_epochs: 3, warmup_epochs: 2, seed: 5, ..TrainingSettings::plain(4, 16) }
    }

    const MASKED: Prior = Prior::Masked { kind: MaskKind::Hard, temperature: 1.0 };

    fn objective(scale_to_all_cells: bool) -> Objective {
        let penalty = Penalty::SpikeAndSlab { alpha: 10.0 };
        Objective { penalty, beta: 1.0, scale_to_all_cells, n_cells: 120 }
    }

    #[test]
    fn fitted_shifts_are_the_mean_posterior_means_and_nothing_else_changes() {
        let data = screen();
        let held_out = [1, 4, 5];
        let cells: Vec<usize> = (0..data.n_cells())
            .filter(|&n| data.interventions.row(n).0.iter().all(|&a| held_out.contains(&(a as usize))))
            .collect();
        let team = Team::single();
        for (prior, scaled) in [(MASKED, true), (MASKED, false), (Prior::Shifted, false)] {
            let mut network = network(&data, prior);
            let l = network.architecture.n_latents;
            // Masks of held-out interventions start on; one is switched off by hand to see that it is obeyed.
            network.prior_mut().forget(&held_out);
            if let Some(mask_logit) = network.tensors.mask_logit.clone() {
                network.parameters[&mask_logit][4 * l + 2] = -1.0;
            }
            network.prior_mut().freeze();
            let before = network.clone();
            let mut workspace = evaluation_workspace(&network, &data);
            let mut inference = Inference { team: &team, network: &network, data: &data, workspace: &mut workspace };
            let posterior = inference.posterior(&cells).expect("in memory");
            // Enough steps, and all cells in each, so that the optimiser comes to rest.
            let fit = TrainingSettings { epochs: 6000, batch_size: 1000, ..fit_settings(&settings(), cells.len()) };
            let objective = fixed_objective(&objective(scaled), cells.len());
            let never = || Ok(());
            let task =
                TrainingTask { data: &data, train: &cells, validation: &[], objective: &objective, settings: &fit };
            fit_shifts(&team, &mut network, task, &posterior, &held_out, never).unwrap();

            let shift = network.tensors.shift.clone().expect("shifts");
            let ranges = shift_ranges(&network, &held_out);
            assert_eq!(ranges.len(), 2, "rows 4 and 5 are one range");
            for (i, (&now, &was)) in network.parameters.values.iter().zip(&before.parameters.values).enumerate() {
                assert!(ranges.iter().any(|range| range.contains(&i)) || now == was, "parameter {i} moved");
            }
            assert_eq!(network.running, before.running);
            for &a in &held_out {
                for k in 0..l {
                    let of_a: Vec<f64> = (0..cells.len())
                        .filter(|&i| data.interventions.single(cells[i]) == Some(a))
                        .map(|i| posterior.mean[i * l + k])
                        .collect();
                    let off = prior == MASKED && (a, k) == (4, 2);
                    // Weight decay of 1e-6 draws towards 0 by 3e-6 of the value at most.
                    let want = if off { 0.0 } else { of_a.iter().sum::<f64>() / of_a.len() as f64 };
                    let got = network.parameters[&shift][a * l + k];
                    assert!((got - want).abs() < 1e-5 * (1.0 + want.abs()), "{prior:?} {a} {k}: {got} {want}");
                }
            }

            // The protocol's own settings end near it: minibatches leave a jitter of some steps of 0.005.
            let mut by_protocol = before.clone();
            let fit = fit_settings(&settings(), cells.len());
            let task = TrainingTask { settings: &fit, ..task };
            fit_shifts(&team, &mut by_protocol, task, &posterior, &held_out, never).unwrap();
            for (got, want) in by_protocol.parameters[&shift].iter().zip(&network.parameters[&shift]) {
                assert!((got - want).abs() < 0.05, "{got} {want}");
            }
        }
    }

    #[test]
    fn fixed_masks_are_not_trained_and_held_out_rows_stay_forgotten() {
        let data = screen();
        let held_out = [5];
        let cells: Vec<usize> = (0..data.n_cells()).filter(|&n| data.interventions.single(n) != Some(5)).collect();
        let mut network = network(&data, MASKED);
        let mask_logit = network.tensors.mask_logit.clone().expect("masks");
        let shift = network.tensors.shift.clone().expect("shifts");
        let l = network.architecture.n_latents;
        network.parameters[&mask_logit][..l].fill(-2.0);
        network.prior_mut().forget(&held_out);
        network.prior_mut().freeze();
        let before = network.clone();
        let settings = retraining_settings(&settings());
        assert_eq!(settings.kl_weight(0), 1.0);
        let objective = fixed_objective(&objective(true), cells.len());
        let task =
            TrainingTask { data: &data, train: &cells, validation: &[], objective: &objective, settings: &settings };
        let ran = train(&Team::single(), &mut network, task, &mut Silent).expect("in memory");
        assert_eq!(ran.history.len(), 3, "the retraining has epochs of its own");
        assert!(ran.history.iter().all(|record| record.kl_weight == 1.0 && record.kl_global == 0.0));
        assert_eq!(network.parameters[&mask_logit], before.parameters[&mask_logit]);
        assert_eq!(network.frozen_mask, before.frozen_mask);
        assert!(network.parameters[&shift][5 * l..].iter().all(|&s| s == 0.0));
        assert!(
            network.parameters[&shift][l..5 * l].iter().zip(&before.parameters[&shift][l..5 * l]).all(|(a, b)| a != b)
        );
        let frozen = network.frozen_mask.as_ref().expect("frozen");
        assert!(frozen[..l].iter().all(|&m| m == 0.0) && frozen[l..].iter().all(|&m| m == 1.0));
    }

    #[test]
    fn drift_moves_the_encoders_statistics_and_the_held_out_shifts_only() {
        let data = screen();
        let held_out = [4, 5];
        let cells: Vec<usize> = (120..180).collect();
        let mut network = network(&data, Prior::Shifted);
        network.prior_mut().forget(&held_out);
        let before = network.clone();
        let fit = TrainingSettings { epochs: 3, ..fit_settings(&settings(), cells.len()) };
        let objective = fixed_objective(&objective(false), cells.len());
        let team = Team::single();
        let run = &mut ResumableRun::unsaved();
        let task = TrainingTask { data: &data, train: &cells, validation: &[], objective: &objective, settings: &fit };
        fit_shifts_drifting(run, "fitting", &team, &mut network, task, &held_out, &mut Silent).expect("in memory");
        let ranges = shift_ranges(&network, &held_out);
        for (i, (&now, &was)) in network.parameters.values.iter().zip(&before.parameters.values).enumerate() {
            assert_eq!(ranges.iter().any(|range| range.contains(&i)), now != was, "parameter {i}");
        }
        let statistics = |network: &Network<f64>, encoder: bool| -> Vec<f64> {
            let layers = if encoder { &network.tensors.encoder } else { &network.tensors.decoder };
            let norms = layers.iter().map(|layer| layer.norm.as_ref().expect("normalised"));
            norms.flat_map(|norm| network.running[&norm.running_mean].to_vec()).collect()
        };
        assert_ne!(statistics(&network, true), statistics(&before, true));
        assert_eq!(statistics(&network, false), statistics(&before, false));
    }
}
