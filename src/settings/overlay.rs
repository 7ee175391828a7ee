//! Flags over a file.

use crate::error::Result;
use crate::model::architecture::MaskKind;
use crate::model::method::Method;
use crate::settings::keys::{
    EVIDENCE_KEYS, GUMBEL_KEYS, HELDOUT_KEYS, INTEGRATED_KEYS, STARTS_KEYS, unused_by, unused_with,
};
use crate::settings::raw::{RawData, RawSettings, RawSimulation};

/// Keys of a file that flags make useless, and so drop.
pub(super) fn dropped_by(flags: &RawSettings) -> impl Iterator<Item = &'static str> {
    let by_method = flags.model.method.map_or(&[][..], unused_by);
    let by_likelihood = flags.model.likelihood.map_or(&[][..], unused_with);
    let by_heldout = if flags.training.heldout == Some(false) { &HELDOUT_KEYS[..] } else { &[] };
    let by_starts = if flags.training.starts == Some(1) { &STARTS_KEYS[..] } else { &[] };
    let by_mask = match flags.model.mask {
        Some(MaskKind::Integrated) => [&GUMBEL_KEYS[..], &[]],
        Some(MaskKind::Hard | MaskKind::Soft) => [&INTEGRATED_KEYS[..], &EVIDENCE_KEYS],
        None => [&[][..]; 2],
    };
    by_method
        .iter()
        .chain(by_mask.into_iter().flatten())
        .chain(by_likelihood)
        .chain(by_heldout)
        .chain(by_starts)
        .copied()
}

impl RawSettings {
    /// These settings, with those of `flags` in their place where `flags` has any.
    ///
    /// Flags that name data replace a simulation described in the file, and the other way round; a flag that names the
    /// method, the masks or the likelihood drops the file's settings that it does not use, as `--no-heldout` and `--starts 1` do theirs.
    pub(super) fn overlaid(mut self, flags: Self) -> Result<Self> {
        if flags.data.data.is_some() {
            self.simulation = RawSimulation::default();
        } else if flags.simulation != RawSimulation::default() {
            self.data = RawData::default();
        }
        if flags.model.method == Some(Method::Svae) && self.model.mask == Some(MaskKind::Integrated) {
            // Its penalty is on masks that are drawn.
            self.model.mask = None;
        }
        let mut table = self.to_table()?;
        for key in dropped_by(&flags) {
            table.remove(key);
        }
        for (key, value) in flags.to_table()? {
            match (table.get_mut(&key), value) {
                (Some(toml::Value::Table(below)), toml::Value::Table(above)) => below.extend(above),
                (_, value) => {
                    table.insert(key, value);
                }
            }
        }
        Ok(table.try_into().expect("both tables were written from this type"))
    }
}
