//! The figures of a run, in the order and under the names of `metrics.json`.
//!
//! ELBO and log-likelihood values are *negative* bounds in nats per cell: lower is better.

use serde::{Deserialize, Serialize};

use crate::evaluation::certainty::PermutationCheck;
use crate::evaluation::guides::{ControlGuides, GuideReplication};
use crate::evaluation::identifiability::Identifiability;
use crate::evaluation::interactions::InteractionClass;
use crate::model::method::Method;
use crate::training::history::StopReason;
use crate::training::shift_fit::HeldoutBatchNorm;
use crate::training::starts::StartsMetrics;

/// The figures of a run. Figures that need the truth are absent where it is unknown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    /// Method trained.
    pub method: Method,
    /// Seed of the random streams.
    pub seed: u64,
    /// Number of cells.
    pub n_cells: usize,
    /// Number of genes, G.
    pub n_genes: usize,
    /// Number of interventions, A.
    pub n_interventions: usize,
    /// Epochs trained; absent where a trained model was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Why the training ended; absent where a trained model was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReason>,
    /// Trainings from several starting values, where there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<StartsMetrics>,
    /// Negative ELBO of the training cells with the kept weights, nats per cell.
    pub elbo_train: f64,
    /// Negative ELBO of the validation cells with the kept weights, nats per cell.
    pub elbo_validation: f64,
    /// Its part that is the mean negative log-likelihood of the validation cells.
    pub reconstruction_validation: f64,
    /// Its part that is the mean KL divergence of the latents. What is missing to the sum is the penalty's share.
    pub kl_validation: f64,
    /// Mean KL divergence of each latent over training and validation cells, nats; about 0 for a latent not in use.
    pub latent_kl: Vec<f64>,
    /// Mean correlation coefficient (Pearson) of matched latents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcc_pearson: Option<f64>,
    /// Mean correlation coefficient (Spearman) of matched latents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcc_spearman: Option<f64>,
    /// R2 of the linear regression from inferred to true latents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r2: Option<f64>,
    /// Identification of targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<GraphMetrics>,
    /// How full the masks are, for methods that learn them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<MaskMetrics>,
    /// How many edges there are and how sure they are, for models whose masks are integrated out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edges: Option<EdgeMetrics>,
    /// Which combinations act otherwise than by the sum of their members, where edges are known and cells are under several
    /// interventions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interactions: Option<InteractionMetrics>,
    /// What the linear model of the same cells finds, beside a network whose masks are integrated out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear: Option<LinearMetrics>,
    /// How well the true model knows the latents, where the run simulated its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oracle: Option<LatentOracleMetrics>,
    /// What simple models reach on the same validation cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineMetrics>,
    /// Figures on held-out interventions, where any are held out and not skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heldout: Option<HeldoutMetrics>,
    /// Time and memory.
    pub timing: Timing,
}

/// The linear model (principal components, turned and weighed as the network) beside the network.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LinearMetrics {
    /// Edges that it finds at the false discovery rate of the graph.
    pub n_edges: usize,
    /// Edges of the network.
    pub n_edges_of_network: usize,
    /// Edges of the network that it finds too: latents are matched one to one by the correlation of their posterior means on the
    /// training cells.
    pub n_shared: usize,
    /// Its negative ELBO of the validation cells, nats per cell; absent without such cells, as is the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_validation: Option<f64>,
    /// By how many nats per validation cell the network's bound (reconstruction and divergence) is better; negative: worse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advantage_of_network: Option<f64>,
    /// Its mean correlation coefficient (Pearson), where the truth is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcc_pearson: Option<f64>,
    /// Its F1 of the targets (corrected), where the truth is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f1: Option<f64>,
}

/// Combinations beside the sums of their members.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InteractionMetrics {
    /// Combinations that were compared with their members.
    pub n_compared: usize,
    /// Combinations with too few cells, or with a member that has too few alone.
    pub n_not_compared: usize,
    /// Pairs of a combination and a latent that deviate from the sum, at the false discovery rate of the edges.
    pub n_interactions: usize,
    /// Those of them to expect to be false.
    pub expected_false: f64,
    /// Combinations of each class.
    pub classes: Vec<ClassCount>,
    /// How they compare with the true ones, where these are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<InteractionRecovery>,
}

/// Combinations of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// The class.
    pub class: InteractionClass,
    /// How many there are.
    pub n: usize,
}

/// Interactions beside the true ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct InteractionRecovery {
    /// True interactions of the combinations that were compared.
    pub n_true: usize,
    /// Share of those found that are none.
    pub false_discovery_proportion: f64,
    /// Share of the true ones that are found.
    pub recall: f64,
}

/// Identification of targets by the two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GraphMetrics {
    /// As the reference implementation scores: signed correlations, all interventions.
    pub reference: PrecisionRecall,
    /// Absolute correlations, trained interventions only; perfect recovery scores 1.
    pub corrected: PrecisionRecall,
}

/// Precision, recall and their harmonic mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PrecisionRecall {
    /// Share of the inferred targets that are true.
    pub precision: f64,
    /// Share of the true targets that are inferred.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

/// How full the masks of the trained interventions are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MaskMetrics {
    /// Share of (intervention, latent) pairs with mask probability above 0.5.
    pub fraction_on: f64,
    /// Number of interventions with at least one such latent.
    pub interventions_with_target: usize,
}

/// The edges of the graph and how sure they are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EdgeMetrics {
    /// False discovery rate up to which a pair counts as an edge.
    pub fdr: f64,
    /// Pairs of a trained intervention and a latent.
    pub n_pairs: usize,
    /// Pairs whose q-value is within the rate: the edges of the graph.
    pub n_edges: usize,
    /// Interventions with at least one edge.
    pub interventions_with_edge: usize,
    /// Edges to expect to be false: the sum of 1 - probability over the edges.
    pub expected_false: f64,
    /// The same with labels permuted.
    pub permutation: PermutationCheck,
    /// Guides of control cells as if they were interventions; absent where there are not several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_guides: Option<ControlGuides>,
    /// How many edges several guides share; absent where guides are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<GuideReplication>,
    /// What the screen leaves open.
    pub limits: Identifiability,
    /// Whether they are as sure as they say; absent where the truth is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationMetrics>,
}

/// The edges of one screen beside the true ones, latents matched as for the MCC.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CalibrationMetrics {
    /// True edges of the trained interventions.
    pub n_true: usize,
    /// Share of the edges found that are not true; 0 where none is found.
    pub false_discovery_proportion: f64,
    /// Share of the true edges that are found.
    pub recall: f64,
    /// Share of the true edges on matched latents whose true shift lies in the 95 % interval; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_coverage: Option<f64>,
    /// Pairs with a local false sign rate below 0.05.
    pub n_signs: usize,
    /// Share of these whose shift is 0 or has the other sign; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_errors: Option<f64>,
    /// Expected calibration error of the probabilities of all pairs, in ten bins.
    pub calibration_error: f64,
}

/// Negative log-likelihoods of simple models, nats per cell, on the validation cells or on the held-out cells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BaselineMetrics {
    /// One negative binomial per gene: mean proportional to the size factor, one dispersion per gene; fitted to the
    /// training cells.
    pub pooled_negative_binomial: f64,
    /// The same with rates of each intervention, drawn towards the pool. Of held-out interventions they are fitted to
    /// one half of the cells and judged on the other, both ways round.
    pub per_intervention_negative_binomial: f64,
}

/// Figures on the cells of held-out interventions. Bounds are means within each intervention, then over interventions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldoutMetrics {
    /// Importance-weighted bound of the negative log-likelihood after the fit of the shifts, nats per cell.
    pub nll_iwelbo: f64,
    /// The same bound as a mean over the cells of all groups at once; where combinations are held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nll_iwelbo_by_cell: Option<f64>,
    /// Negative ELBO after the fit of the shifts, nats per cell.
    pub elbo: f64,
    /// Samples per cell.
    pub particles: usize,
    /// Number of interventions in the means.
    pub n_interventions: usize,
    /// Running statistics of batch normalisation during the fit; absent where the prior has no shifts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_norm: Option<HeldoutBatchNorm>,
    /// The two bounds after each stage.
    pub stages: StageMetrics,
    /// How well the fitted model, after its second training, recovers the latents of the trained interventions' cells; where the
    /// truth is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latents: Option<RecoveryMetrics>,
    /// What simple models reach on the same cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineMetrics>,
    /// The floor, known where the screen was simulated by this very run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oracle: Option<OracleMetrics>,
    /// The bounds of each intervention after the fit.
    pub per_intervention: Vec<InterventionMetrics>,
    /// Interventions with too few cells for a mean.
    pub left_out: Vec<String>,
    /// The second training; absent where a trained model was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retraining: Option<RetrainingMetrics>,
    /// Seconds spent.
    pub seconds: HeldoutSeconds,
}

/// How well latents are recovered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RecoveryMetrics {
    /// Mean correlation coefficient (Pearson) of matched latents.
    pub mcc_pearson: f64,
    /// Mean correlation coefficient (Spearman) of matched latents.
    pub mcc_spearman: f64,
    /// R2 of the linear regression from inferred to true latents.
    pub r2: f64,
}

/// Bounds after the stages of the held-out protocol.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StageMetrics {
    /// With the masks as trained, random.
    pub before_binarisation: BoundMetrics,
    /// After the second training, on fixed masks; held-out shifts are 0. Absent where only the fitted model is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_retraining: Option<BoundMetrics>,
    /// After the fit of the held-out shifts; as trained, where nothing had to be fitted.
    pub after_fitting: BoundMetrics,
}

/// Two bounds of a negative log-likelihood, nats per cell: lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BoundMetrics {
    /// Importance-weighted bound.
    pub nll_iwelbo: f64,
    /// Negative ELBO.
    pub elbo: f64,
}

/// The bounds of one held-out intervention.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InterventionMetrics {
    /// Its name.
    pub intervention: String,
    /// Number of its cells.
    pub n_cells: usize,
    /// Importance-weighted bound, nats per cell.
    pub nll_iwelbo: f64,
    /// Negative ELBO, nats per cell.
    pub elbo: f64,
}

/// The negative log-likelihood under the true model, averaged as the bounds are, on some of the held-out cells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OracleMetrics {
    /// Nats per cell.
    pub nll: f64,
    /// Cells it was measured on.
    pub n_cells: usize,
    /// Samples per cell.
    pub particles: usize,
}

/// How well the true model knows the latents of some cells of the trained interventions: the ceiling of the scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatentOracleMetrics {
    /// Mean correlation coefficient (Pearson) of its posterior means.
    pub mcc_pearson: f64,
    /// Mean correlation coefficient (Spearman) of its posterior means.
    pub mcc_spearman: f64,
    /// R2 of the linear regression from its posterior means to the true latents.
    pub r2: f64,
    /// Nats per cell that a diagonal covariance of the posterior costs at the true model; `None` where cells escaped their
    /// intervention, because their posteriors are no normals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagonal_gap: Option<f64>,
    /// Cells it was measured on.
    pub n_cells: usize,
    /// Samples per cell.
    pub particles: usize,
}

/// How the second training went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RetrainingMetrics {
    /// Epochs trained.
    pub epochs: usize,
    /// Why it ended.
    pub stop_reason: StopReason,
}

/// Seconds spent on held-out interventions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct HeldoutSeconds {
    /// Second training.
    pub retraining: f64,
    /// Fit of the shifts.
    pub fitting: f64,
    /// Bounds, all stages.
    pub bounds: f64,
    /// Baselines and oracle.
    pub baselines: f64,
}

/// Time and memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    /// Seconds spent in training; absent where a trained model was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_seconds: Option<f64>,
    /// Training cells passed per second of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cells_per_second: Option<f64>,
    /// Seconds of the whole run.
    pub total_seconds: f64,
    /// Largest resident memory of the process, in bytes; null where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
}
