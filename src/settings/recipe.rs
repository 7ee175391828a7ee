//! Recipes: named sets of defaults, in whose place anything that is said explicitly wins.

use crate::error::Result;
use crate::model::architecture::{MaskKind, PosteriorCovariance};
use crate::model::method::{IvaeMask, Method};
use crate::settings::keys::unused_with;
use crate::settings::raw::{RawSettings, Recipe};
use crate::training::history::KeepEpoch;
use crate::training::schedule::Schedule;
use crate::training::shift_fit::HeldoutBatchNorm;

impl Recipe {
    /// Sets its defaults for `method`, without those that the method does not use; `drawn` says whether masks are asked for that are
    /// drawn.
    fn defaults(self, method: Method, drawn: bool, raw: &mut RawSettings) {
        let (model, training) = (&mut raw.model, &mut raw.training);
        match self {
            Recipe::Reference => {
                model.likelihood_epsilon = Some(1e-8);
                training.epochs = Some(300);
                training.keep = Some(KeepEpoch::Last);
                if method == Method::Ivae {
                    model.ivae_mask = Some(IvaeMask::Learned);
                }
                // The published sVAE+ freezes its encoder while it fits shifts, the published baselines do not.
                if matches!(method, Method::Ivae | Method::Svae) {
                    training.heldout_batch_norm = Some(HeldoutBatchNorm::Drift);
                }
            }
            // The evidence does what the other tuned settings are for; what is left is effort.
            Recipe::Tuned if method == Method::SvaePlus && !drawn => {
                model.hidden = Some(256);
                training.starts = Some(4);
            }
            Recipe::Tuned => {
                model.dropout = Some(0.0);
                model.hidden = Some(256);
                model.posterior_covariance = Some(PosteriorCovariance::Full);
                training.batch_size = Some(1024);
                training.learning_rate = Some(0.004);
                training.schedule = Some(Schedule::LateCosine);
                training.patience = Some(0);
                training.retraining_epochs = Some(200);
                training.starts = Some(8);
                training.trial_share = Some(0.15);
                if method.learns_mask() {
                    training.prune_masks_below = Some(0.75);
                }
            }
        }
    }
}

/// The defaults of a training that integrates masks out; `docs/recipe.md` shows how each was found.
fn integrated_defaults(raw: &mut RawSettings) {
    raw.model.mask = Some(MaskKind::Integrated);
    raw.model.latents = Some(20);
    raw.model.dropout = Some(0.0);
    raw.training.schedule = Some(Schedule::LateCosine);
    raw.training.patience = Some(0);
}

impl RawSettings {
    /// These settings over the defaults of their recipe, if they name one, and of their method.
    pub(crate) fn over_recipe(self) -> Result<Self> {
        let method = self.model.method.unwrap_or(Method::SvaePlus);
        let mut defaults = RawSettings::default();
        let drawn = self.model.mask.is_some_and(|mask| mask != MaskKind::Integrated);
        if method == Method::SvaePlus && !drawn && self.model.recipe != Some(Recipe::Reference) {
            integrated_defaults(&mut defaults);
        }
        if let Some(recipe) = self.model.recipe {
            recipe.defaults(method, drawn, &mut defaults);
        }
        let mut table = defaults.to_table()?;
        for key in self.model.likelihood.map_or(&[][..], unused_with) {
            table.remove(*key);
        }
        for (key, value) in self.to_table()? {
            table.insert(key, value);
        }
        Ok(table.try_into().expect("both tables were written from this type"))
    }
}
