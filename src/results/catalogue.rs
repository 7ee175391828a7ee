//! Every file of a results folder: its name, what it holds and when it is written.
//!
//! Names of files stand here alone. Removing an earlier run, the table of `docs/output.md` and the tests of a run all go by
//! this list, so a new output file is one row here and its writer.

use std::path::{Path, PathBuf};

use crate::checkpoint::file as checkpoint;

/// When a file of a results folder is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// When the run begins.
    AtStart,
    /// While the run goes on; a finished run removes it.
    WhileRunning,
    /// When the model is trained and has been judged.
    AfterTraining,
    /// When the model has been through the held-out protocol.
    AfterHeldOut,
    /// When held-out combinations have been judged; by `svae-cpu judge` too.
    AfterJudgement,
    /// When all figures are known.
    AtEnd,
    /// By `svae-cpu evaluate` and `svae-cpu fit-shifts`.
    OnRequest,
}

/// Declares the files, one a row, so that none can be left out of [`ResultsFile::ALL`].
macro_rules! files {
    ($($(#[$doc:meta])+ $file:ident = $name:expr, $when:ident, $contents:literal;)+) => {
        /// A file of a results folder.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ResultsFile {
            $($(#[$doc])+ $file,)+
        }

        impl ResultsFile {
            /// Every file, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$file),+];

            /// Its name in the folder.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$file => $name),+ }
            }

            /// What it holds, in one line; its row of `docs/output.md` begins with it.
            pub const fn contents(self) -> &'static str {
                match self { $(Self::$file => $contents),+ }
            }

            /// When it is written.
            pub const fn when(self) -> When {
                match self { $(Self::$file => When::$when),+ }
            }
        }
    };
}

files! {
    /// The report. Writer: [`crate::results::page`].
    Report = "report.html", AtEnd, "everything on one page that needs no network, light or dark";
    /// The screen with the results in it. Writer: [`crate::results::anndata`].
    AnnData = "results.h5ad", AtEnd, "the cells with their results, for scanpy";

    /// All pairs of intervention and latent, and how sure they are; only where masks are integrated out. Writer:
    /// [`crate::results::tables`].
    Edges = "edges.csv", AfterTraining,
        "how sure it is that an intervention acts on a latent, and how far it shifts it, of every pair";
    /// Pairs of intervention and latent that are edges of the graph. Writer: [`crate::results::tables`].
    Targets = "targets.csv", AfterTraining,
        "intervention, latent, probability and shift of every pair that is an edge of the graph";
    /// Combinations beside the sums of their members; only where there are combinations and masks are integrated out. Writer:
    /// [`crate::results::tables`].
    Interactions = "interactions.csv", AfterTraining,
        "of every combination and latent: how sure it is that the combination deviates from the sum of its members, and by how much";
    /// Probabilities of the masks. Writer: [`crate::results::tables`].
    Masks = "masks.csv", AfterTraining, "probability that an intervention (row) targets a latent (column)";
    /// Shifts. Writer: [`crate::results::tables`].
    Shifts = "shifts.csv", AfterTraining, "how far an intervention (row) shifts a latent (column)";
    /// Targets as a graph. Writer: [`crate::results::graph`].
    GraphMl = "graph.graphml", AfterTraining,
        "interventions and the latents they target, for Cytoscape, Gephi and networkx";
    /// Targets as a graph. Writer: [`crate::results::graph`].
    GraphDot = "graph.dot", AfterTraining, "the same graph for Graphviz";
    /// Genes of each latent. Writer: [`crate::results::tables`].
    GenesPerLatent = "genes_per_latent.csv", AfterTraining,
        "the 50 genes that each latent moves most";

    /// Latents of the cells. Writer: [`crate::results::cells`].
    Latents = "latents.npz", AfterTraining, "posterior mean of every cell";
    /// Table of the cells. Writer: [`crate::results::cells`].
    Cells = "cells.csv", AfterTraining,
        "of each cell: intervention, part of the split, size factor, total count, detected genes, its two parts of the ELBO";

    /// The model. Writer: [`crate::results::model_file`].
    Model = "model.safetensors", AfterTraining, "all weights by name, for Python";
    /// Epochs of the training. Writer: [`crate::results::tables`].
    History = "history.csv", AfterTraining,
        "a row per epoch: loss, ELBO parts for training and validation, mean mask, seconds";
    /// The model at the end of the held-out protocol. Writer: [`crate::results::model_file`].
    HeldOutModel = "model_heldout.safetensors", AfterHeldOut,
        "the model with the shifts of held-out interventions fitted";
    /// Shifts at the end of the held-out protocol. Writer: [`crate::results::tables`].
    HeldOutShifts = "shifts_heldout.csv", AfterHeldOut, "its shifts, those of held-out interventions included";
    /// Epochs of the second training. Writer: [`crate::results::tables`].
    RetrainingHistory = "history_retrain.csv", AfterHeldOut,
        "a row per epoch of the second training, on fixed masks";

    /// Predictions of held-out combinations beside baselines. Writer: [`crate::results::judgement`].
    Judgement = "judgement.json", AfterJudgement,
        "how well held-out combinations are predicted, beside baselines and a noise ceiling";
    /// The same by combination. Writer: [`crate::results::judgement`].
    JudgementScores = "judgement.csv", AfterJudgement, "the scores of each held-out combination by each predictor";
    /// Combinations that deviate from the sum. Writer: [`crate::results::judgement`].
    NonAdditive = "non_additive.csv", AfterJudgement,
        "how far every combination is from the sum of its members in log expression, and whether beyond noise";
    /// Held-out and control cells for cell-eval. Writer: [`crate::results::judgement`].
    CellEvalReal = "cell_eval_real.h5ad", AfterJudgement, "held-out and control cells, log-normalised, for cell-eval";
    /// Predicted and control cells for cell-eval. Writer: [`crate::results::judgement`].
    CellEvalPrediction = "cell_eval_pred.h5ad", AfterJudgement,
        "as many predicted cells and the same control cells, for cell-eval";

    /// Settings. Writer: [`crate::results::record`].
    Config = "config.toml", AtStart, "all settings as used; `svae-cpu run config.toml` repeats the run";
    /// Figures; the last file of a run, so that a folder that holds it holds a finished run. Writer: [`crate::results::record`].
    Metrics = "metrics.json", AtEnd, "the figures of the run";
    /// Data as read; not for a simulation. Writer: [`crate::results::record`].
    DataSummary = "data.json", AfterTraining,
        "what was read from the data file: cells of each label, what was dropped and why, warnings";
    /// Origin of the folder. Writer: [`crate::results::manifest`].
    Manifest = "manifest.json", AtEnd,
        "what made the folder: version, commit, command, machine, processor, vector instructions, threads, input with checksum, times, resumptions, memory";
    /// Figures found later. Writer: [`crate::results::record`].
    Evaluation = "evaluation.json", OnRequest,
        "the figures found by `svae-cpu evaluate` or `fit-shifts`, named as in `metrics.json`";

    /// The newest checkpoint. Writer: [`crate::checkpoint`].
    Checkpoint = checkpoint::CHECKPOINT, WhileRunning, "the newest state of a run that can be resumed";
    /// The checkpoint before it. Writer: [`crate::checkpoint`].
    PreviousCheckpoint = checkpoint::PREVIOUS, WhileRunning, "the state before it, until the newest is whole on disk";
    /// A checkpoint that is being written. Writer: [`crate::checkpoint`].
    NextCheckpoint = checkpoint::NEXT, WhileRunning, "a state that is being written";
}

impl ResultsFile {
    /// The files that show that a folder holds a run.
    pub const MARKERS: [Self; 4] = [Self::Config, Self::Checkpoint, Self::PreviousCheckpoint, Self::Metrics];

    /// Where the file lies in a results folder.
    pub fn within(self, folder: &Path) -> PathBuf {
        folder.join(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_files_share_a_name() {
        let mut names: Vec<&str> = ResultsFile::ALL.iter().map(|file| file.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ResultsFile::ALL.len());
    }

    #[test]
    fn the_documentation_has_a_row_for_every_file() {
        let page = include_str!("../../docs/output.md");
        for file in ResultsFile::ALL {
            let row = format!("\n| `{}` | {}", file.name(), file.contents());
            assert!(page.contains(&row), "docs/output.md lacks a row that begins with {row}");
        }
    }
}
