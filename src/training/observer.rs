//! Who is told how a training goes.

use crate::system::console::Silent;
use crate::training::history::EpochRecord;

/// Name of the first training, which displays may leave out.
pub const FIRST_TRAINING: &str = "training";

/// Hears of stages and epochs while they happen. What is not of interest can be left out.
///
/// A closure `FnMut(&EpochRecord)` is an observer of epochs alone, and [`Silent`] of nothing.
pub trait Observer {
    /// A stage begins, of at most `epochs` epochs that pass `cells` cells each; both are 0 where it has no epochs.
    fn stage(&mut self, _name: &str, _epochs: usize, _cells: usize) {}

    /// An epoch of the stage is over.
    fn epoch(&mut self, _record: &EpochRecord) {}

    /// The stage is over, or was left early.
    fn stage_ended(&mut self) {}

    /// Something worth knowing: a sentence.
    fn note(&mut self, _text: &str) {}

    /// Something that may cost the user time or results: a sentence.
    fn warn(&mut self, _text: &str) {}
}

impl Observer for Silent {}

impl<F: FnMut(&EpochRecord)> Observer for F {
    fn epoch(&mut self, record: &EpochRecord) {
        self(record);
    }
}
