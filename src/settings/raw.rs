//! Raw settings: every key optional, declared once for the configuration file and the command line.
//!
//! A row of a group is all that a setting needs here: its help, its flag, the type in which it is written, the type in which it
//! is used, and the rule from one to the other with its default and its range.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::data::loading::options::{LoadOptions, SeveralInterventions, USUAL_BUFFER};
use crate::data::simulate::SimulationKind;
use crate::error::{InputError, Result};
use crate::model::architecture::{LatentDistribution, MAX_LAYERS, MaskKind, PosteriorCovariance};
use crate::model::likelihood::Likelihood;
use crate::model::method::{IvaeMask, Method};
use crate::numerics::real::Precision;
use crate::numerics::simd::Level;
use crate::settings::origin::Origin;
use crate::settings::ranges::{
    NumberRange, any, any_or_none, column_or_none, labels, labels_or_none, names, names_or_none, number,
    number_or_none, path_or_none, paths, seed, separator_or_none, time_or_none, whole, whole_or_none,
};
use crate::settings::time_limit::TimeLimit;
use crate::system::console::LogFormat;
use crate::training::history::KeepEpoch;
use crate::training::schedule::Schedule;
use crate::training::shift_fit::HeldoutBatchNorm;
use crate::training::starts::MOST_STARTS;

/// A named set of defaults for model and training; `docs/recipe.md` says how each was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// What the published code does, its traits included
    Reference,
    /// What recovers simulated latents and targets best
    Tuned,
}

impl Recipe {
    /// Its name as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Recipe::Reference => "reference",
            Recipe::Tuned => "tuned",
        }
    }
}

/// Declares a group of settings: as they are written (every key optional), as they are used, and the check between.
macro_rules! settings {
    (
        $(#[doc = $group:tt])+
        $raw:ident => $checked:ident, $heading:literal {
            $($(#[doc = $doc:tt])+ #[arg $arg:tt] $key:ident: $from:ty => $to:ty = $rule:expr;)+
        }
    ) => {
        $(#[doc = $group])+
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
        #[command(next_help_heading = $heading)]
        pub struct $raw {
            $($(#[doc = $doc])+ #[arg $arg] pub $key: Option<$from>,)+
        }

        $(#[doc = $group])+
        #[derive(Debug, Clone, PartialEq, Serialize)]
        pub struct $checked {
            $($(#[doc = $doc])+ pub $key: $to,)+
        }

        impl $raw {
            pub(super) fn check(self, origin: &Origin) -> Result<$checked> {
                Ok($checked { $($key: ($rule)(origin.place(stringify!($key)), self.$key)?,)+ })
            }
        }
    };
}

/// Everything that a configuration file or the flags of `svae-cpu run` may say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct RawSettings {
    /// The data file.
    #[serde(flatten)]
    #[command(flatten)]
    pub data: RawData,
    /// The model.
    #[serde(flatten)]
    #[command(flatten)]
    pub model: RawModel,
    /// The training.
    #[serde(flatten)]
    #[command(flatten)]
    pub training: RawTraining,
    /// Seed and threads.
    #[serde(flatten)]
    #[command(flatten)]
    pub execution: RawExecution,
    /// Stopping early and going on.
    #[serde(flatten)]
    #[command(flatten)]
    pub interruption: RawInterruption,
    /// Results and messages.
    #[serde(flatten)]
    #[command(flatten)]
    pub output: RawOutput,
    /// The simulation, a table of its own in the file.
    #[serde(default)]
    #[command(flatten)]
    pub simulation: RawSimulation,
}

/// Settings of the data file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct RawData {
    /// Data file: AnnData (.h5ad), MuData (.h5mu), 10x Genomics (.h5), a matrix-market folder, a table of counts or .npz; several (each
    /// with its own --data) are lanes of one screen; without it, data are simulated
    #[arg(long, value_name = "FILE")]
    #[serde(default, deserialize_with = "one_or_several", serialize_with = "as_one_or_several")]
    pub data: Option<Vec<PathBuf>>,
    /// Column of obs that holds the intervention of each cell
    #[arg(long, value_name = "COLUMN")]
    pub label_key: Option<String>,
    /// What stands between the interventions of a label, as in `A+B`: cells are then under several of them; order, repetition and
    /// control labels among them do not matter
    #[arg(long, value_name = "SEP", allow_hyphen_values = true)]
    pub combination_separator: Option<String>,
    /// Columns of obs with the dose of an intervention in each cell (0: none, 1), separated by commas: their names, what several
    /// begin with (guide_*), or a matrix of obsm; instead of --label-key
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub intervention_columns: Option<Vec<String>>,
    /// Column of obs with the dose of each cell: a number, or one for each intervention of its label (1+0.5)
    #[arg(long, value_name = "COLUMN")]
    pub dose_key: Option<String>,
    /// Table of guides and their targets (CSV or TSV, such as CellRanger's feature reference): labels are guides, interventions
    /// their targets
    #[arg(long, value_name = "FILE")]
    pub guide_targets: Option<PathBuf>,
    /// Fewest counts of a guide in a cell that received it: guides are the CRISPR Guide Capture features of a 10x matrix, or the
    /// --intervention-columns; instead of --label-key
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub guide_threshold: Option<i64>,
    /// Cells under several interventions (by default kept, but several rows of --labels for a barcode are refused)
    #[arg(long, value_name = "KIND")]
    pub several_interventions: Option<SeveralInterventions>,
    /// Column of obs that holds the guide of each cell: each edge is checked by the guides of its intervention, and guides of
    /// control cells as if they were interventions (svae-plus with integrated masks, pca)
    #[arg(long, value_name = "COLUMN")]
    pub guide_key: Option<String>,
    /// Column of obs that holds the batch of each cell
    #[arg(long, value_name = "COLUMN")]
    pub batch_key: Option<String>,
    /// Columns of obs with further categorical covariates, separated by commas
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub categorical_covariates: Option<Vec<String>>,
    /// Columns of obs with continuous covariates, separated by commas
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub continuous_covariates: Option<Vec<String>>,
    /// Column of obs with the size factor (library size) of each cell, instead of its total count
    #[arg(long, value_name = "COLUMN")]
    pub size_factor_key: Option<String>,
    /// Leave out cells without any count (and say how many) instead of refusing the data
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub drop_empty_cells: Option<bool>,
    /// Matrix of an AnnData file that holds the raw counts: a layer, or raw (by default X)
    #[arg(long, value_name = "LAYER")]
    pub layer: Option<String>,
    /// Genome to read from a 10x file of several (by default all, where they share one matrix)
    #[arg(long, value_name = "GENOME")]
    pub genome: Option<String>,
    /// Modality of a MuData file that holds the genes (by default the one called rna, gene or gex, or the only one)
    #[arg(long, value_name = "NAME")]
    pub modality: Option<String>,
    /// File of the barcodes of a matrix-market file (by default the one that belongs to it by its name)
    #[arg(long, value_name = "FILE")]
    pub barcodes: Option<PathBuf>,
    /// File of the features or genes of a matrix-market file (by default the one that belongs to it by its name)
    #[arg(long, value_name = "FILE")]
    pub features: Option<PathBuf>,
    /// Table of the cells' labels (CSV or TSV): a row per barcode; its columns may be named wherever one of obs may; where there are
    /// several --data, one for all, or as many as these and in their order
    #[arg(long, value_name = "FILE")]
    #[serde(default, deserialize_with = "one_or_several", serialize_with = "as_one_or_several")]
    pub labels: Option<Vec<PathBuf>>,
    /// Labels of control cells, separated by commas, patterns of them (non-targeting*), or @FILE with one label per line: no
    /// intervention acts on them, their latents have the prior N(0, I)
    #[arg(long, value_name = "LABEL,...|@FILE", value_delimiter = ',')]
    pub control: Option<Vec<String>>,
    /// Column of var by which genes are called, such as gene_symbols (by default the names of the file)
    #[arg(long, value_name = "COLUMN")]
    pub gene_names: Option<String>,
    /// Use only the genes listed in this file, one name or identifier per line
    #[arg(long, value_name = "FILE")]
    pub genes: Option<PathBuf>,
    /// Use only this many genes, the most variable ones (as seurat_v3 finds them, within each batch if --batch-key is given)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub top_genes: Option<i64>,
    /// Leave out interventions with fewer cells, with these cells [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min_cells_per_label: Option<i64>,
    /// Leave out cells with a lower total count over all genes of the file [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min_counts: Option<i64>,
    /// Leave out cells without an intervention label instead of refusing the data
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub drop_unlabelled_cells: Option<bool>,
    /// Leave the counts of an .h5ad file on disk and read them as they are needed, for screens larger than memory
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub stream: Option<bool>,
    /// Megabytes of counts in memory with --stream; more mix distant cells better [default: 1024]
    #[arg(long, value_name = "MB", allow_negative_numbers = true)]
    pub stream_buffer: Option<i64>,
}

/// One path as text, or a list of them.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the path of a file, or a list of paths")]
enum OneOrSeveral {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Vec<PathBuf>>, D::Error> {
    Ok(Some(match OneOrSeveral::deserialize(deserializer)? {
        OneOrSeveral::One(path) => vec![path],
        OneOrSeveral::Several(paths) => paths,
    }))
}

fn as_one_or_several<S: Serializer>(
    paths: &Option<Vec<PathBuf>>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match paths.as_deref() {
        None => serializer.serialize_none(),
        Some([path]) => path.serialize(serializer),
        Some(paths) => paths.serialize(serializer),
    }
}

impl RawData {
    /// What is read of a data file; the file itself is left to the caller.
    pub(super) fn check(self, origin: &Origin) -> Result<LoadOptions> {
        let at = |key| origin.place(key);
        let (table, further_tables) = paths(at("labels"), self.labels, "a file")?;
        let streams = self.stream.unwrap_or(false);
        let megabytes = whole(USUAL_BUFFER, 1, 1 << 24)(at("stream_buffer"), self.stream_buffer)?;
        Ok(LoadOptions {
            label_key: column_or_none(at("label_key"), self.label_key)?,
            combination_separator: separator_or_none(at("combination_separator"), self.combination_separator)?,
            intervention_columns: names_or_none(at("intervention_columns"), self.intervention_columns)?,
            dose_key: column_or_none(at("dose_key"), self.dose_key)?,
            guide_targets: path_or_none("file", "a table of guides and targets")(
                at("guide_targets"),
                self.guide_targets,
            )?,
            guide_threshold: whole_or_none(1, 1_000_000_000)(at("guide_threshold"), self.guide_threshold)?,
            several_interventions: self.several_interventions,
            guide_key: column_or_none(at("guide_key"), self.guide_key)?,
            batch_key: column_or_none(at("batch_key"), self.batch_key)?,
            categorical_covariates: names(at("categorical_covariates"), self.categorical_covariates)?,
            continuous_covariates: names(at("continuous_covariates"), self.continuous_covariates)?,
            size_factor_key: column_or_none(at("size_factor_key"), self.size_factor_key)?,
            drop_empty_cells: self.drop_empty_cells.unwrap_or(false),
            layer: column_or_none(at("layer"), self.layer)?,
            genome: column_or_none(at("genome"), self.genome)?,
            modality: column_or_none(at("modality"), self.modality)?,
            barcodes: path_or_none("file", "a file")(at("barcodes"), self.barcodes)?,
            features: path_or_none("file", "a file")(at("features"), self.features)?,
            labels: table,
            further_labels: further_tables,
            further_data: Vec::new(),
            control: labels(at("control"), self.control)?,
            gene_names: column_or_none(at("gene_names"), self.gene_names)?,
            known_genes: Vec::new(),
            genes: path_or_none("file", "a file")(at("genes"), self.genes)?,
            top_genes: whole_or_none(1, 10_000_000)(at("top_genes"), self.top_genes)?,
            min_cells_per_label: whole(1, 1, 1_000_000_000)(at("min_cells_per_label"), self.min_cells_per_label)?,
            min_counts: whole(0, 0, 1_000_000_000)(at("min_counts"), self.min_counts)?,
            drop_unlabelled_cells: self.drop_unlabelled_cells.unwrap_or(false),
            unlabelled: false,
            stream: streams.then_some(megabytes << 20),
        })
    }
}

settings! {
    /// Settings of the model.
    RawModel => ModelKeys, "Model" {
        /// Method to train [default: svae-plus]
        #[arg(long, value_name = "METHOD")]
        method: Method => Method = any(Method::SvaePlus);
        /// Defaults of all settings that are not given: those of the published code, or tuned ones (by default neither)
        #[arg(long, value_name = "RECIPE")]
        recipe: Recipe => Option<Recipe> = any_or_none();
        /// Number of latents [default: 15; 20 where masks are integrated out]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        latents: i64 => usize = whole(15, 1, 4096);
        /// Width of the hidden layers (default: 128; where masks are integrated out, 256 from 18,000 training cells on)
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        hidden: i64 => Option<usize> = whole_or_none(1, 65_536);
        /// Number of hidden layers of the encoder, and of the decoder [default: 2]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        layers: i64 => usize = whole(2, 1, MAX_LAYERS as i64);
        /// Sparsity of the mask: higher values let interventions target fewer latents (svae, svae-plus with --mask hard or
        /// soft; by default the number of interventions)
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        alpha: f64 => Option<f64> = any_or_none();
        /// Weight of the KL divergence of the latents (by default 10 for beta-vae, 1 for the others; vae has none)
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        beta: f64 => f64 = number(1.0, NumberRange::closed(0.0, 1e6));
        /// Mask in the training: integrated out and set by the evidence of each edge (svae-plus), or drawn in every forward
        /// pass (svae, svae-plus) [default: hard; integrated for svae-plus]
        #[arg(long, value_name = "KIND")]
        mask: MaskKind => MaskKind = any(MaskKind::Hard);
        /// Temperature of the Gumbel-sigmoid mask (svae, svae-plus with --mask hard or soft) [default: 1.0]
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        temperature: f64 => f64 = number(1.0, NumberRange::closed(0.01, 100.0));
        /// Mask of the iVAE: ones (the paper), or learned without penalty (the reference) [default: ones]
        #[arg(long, value_name = "KIND")]
        ivae_mask: IvaeMask => IvaeMask = any(IvaeMask::Ones);
        /// Distribution of the latents [default: normal]
        #[arg(long, value_name = "KIND")]
        latent_distribution: LatentDistribution => LatentDistribution = any(LatentDistribution::Normal);
        /// Covariance of the latents in a cell's posterior (default: diagonal; where masks are integrated out, full from 30,000
        /// training cells on)
        #[arg(long, value_name = "KIND")]
        posterior_covariance: PosteriorCovariance => Option<PosteriorCovariance> = any_or_none();
        /// Dropout rate in the encoder [default: 0.1; 0 where masks are integrated out]
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        dropout: f64 => f64 = number(0.1, NumberRange::below(0.0, 1.0));
        /// Batch normalisation of the hidden layers [default: true]
        #[arg(long, value_name = "BOOL")]
        batch_norm: bool => bool = any(true);
        /// Layer normalisation of the hidden layers [default: false]
        #[arg(long, value_name = "BOOL")]
        layer_norm: bool => bool = any(false);
        /// Distribution of the counts about their means [default: negative-binomial]
        #[arg(long, value_name = "KIND")]
        likelihood: Likelihood => Likelihood = any(Likelihood::NegativeBinomial);
        /// Constant inside the logarithms of the negative binomial; 1e-8 as in the reference implementation [default: 0.0]
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        likelihood_epsilon: f64 => f64 = number(0.0, NumberRange::closed(0.0, 0.01));
        /// Give the covariates to the encoder too [default: false]
        #[arg(long, value_name = "BOOL")]
        encode_covariates: bool => bool = any(false);
        /// Give the covariates to every hidden layer, not only to the first [default: true]
        #[arg(long, value_name = "BOOL")]
        deeply_inject_covariates: bool => bool = any(true);
    }
}

settings! {
    /// Settings of the training.
    RawTraining => TrainingKeys, "Training" {
        /// Labels held out of the training: interventions or combinations (A+B), NAME,NAME,... or @FILE with one label per line;
        /// combinations:0.25 is a random quarter of the combinations (by default the last fifth of a simulation's
        /// interventions, or a quarter of its combinations, and none of a data file's; an empty list holds out none)
        #[arg(long, value_name = "LABEL,...|@FILE", value_delimiter = ',')]
        holdout: Vec<String> => Option<Vec<String>> = labels_or_none;
        /// Largest number of epochs (default: 500, or enough for 20,000 steps if that is more; where masks are integrated out,
        /// enough for 8,000 steps, more for more than 20 latents, and at least 120, or 30 from 18,000 training cells on)
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        epochs: i64 => Option<usize> = whole_or_none(1, 1_000_000);
        /// Cells per minibatch (default: 128; where masks are integrated out, 512 from 18,000 training cells on)
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        batch_size: i64 => Option<usize> = whole_or_none(3, 1_000_000);
        /// Epochs over which the weight of the KL divergence rises from 0 to 1 (default: 50; where masks are integrated out,
        /// those of 1,200 steps, more for more than 20 latents)
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        warmup_epochs: i64 => Option<usize> = whole_or_none(0, 1_000_000);
        /// Stop after this many epochs without a better validation ELBO; 0 never stops early [default: 45; 0 where masks are integrated
        /// out]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        patience: i64 => usize = whole(45, 0, 1_000_000);
        /// Adam's step size (default: 0.001; where masks are integrated out 0.002, and 0.004 from 18,000 training cells on)
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        learning_rate: f64 => Option<f64> = number_or_none(NumberRange::above(0.0, 1.0));
        /// Course of the step size: constant, falling to a hundredth along half a cosine over the epochs, or doing so over
        /// their second half [default: constant; late-cosine where masks are integrated out]
        #[arg(long, value_name = "COURSE")]
        schedule: Schedule => Schedule = any(Schedule::Constant);
        /// L2 penalty, added to the gradient as weight times this [default: 1e-6]
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        weight_decay: f64 => f64 = number(1e-6, NumberRange::closed(0.0, 1.0));
        /// Adam's epsilon [default: 0.01]
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        adam_epsilon: f64 => f64 = number(0.01, NumberRange::above(0.0, 1.0));
        /// Fraction of the training cells set aside for validation [default: 0.1]
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        validation_fraction: f64 => f64 = number(0.1, NumberRange::above(0.0, 0.5));
        /// Epoch whose weights are kept, by validation ELBO or simply the last [default: best]
        #[arg(long, value_name = "EPOCH")]
        keep: KeepEpoch => KeepEpoch = any(KeepEpoch::Best);
        /// Share of the epochs, at most, in which every intervention acts on every latent, before latents are turned and edges
        /// are weighed (svae-plus with integrated masks) [default: 0.4]
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        dense_share: f64 => f64 = number(0.4, NumberRange::closed(0.0, 1.0));
        /// Let the combinations of the training cells deviate from the sums of their members during the training, so that those
        /// that interact do not bend the latents (svae-plus with integrated masks) [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        learn_interactions: bool => bool = any(false);
        /// Four times in the training, turn the latents to where interventions act on fewer of them, and switch off the
        /// masks whose probability is lower; those that matter come back; 0: do neither [default: 0]
        #[arg(long, value_name = "P", allow_negative_numbers = true)]
        prune_masks_below: f64 => f64 = number(0.0, NumberRange::below(0.0, 1.0));
        /// Trainings from different starting values, of which the one with the lowest validation ELBO is kept [default: 1]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        starts: i64 => usize = whole(1, 1, MOST_STARTS as i64);
        /// Share of the epochs after which only the best of several starts goes on; 1: each is trained to its end [default: 1]
        #[arg(long, value_name = "X", allow_negative_numbers = true)]
        trial_share: f64 => f64 = number(1.0, NumberRange::above(0.0, 1.0));
        /// Floating-point type of the training [default: f32]
        #[arg(long, value_name = "TYPE")]
        precision: Precision => Precision = any(Precision::F32);
        /// Skip what follows the training when interventions are held out: retraining with fixed masks, fitting their
        /// shifts, and bounds on their cells
        #[arg(long = "no-heldout", value_name = "BOOL", num_args = 0..=1, require_equals = true,
            default_missing_value = "true", value_parser = negated)]
        heldout: bool => bool = any(true);
        /// Largest number of epochs of the retraining with fixed masks (default: that of --epochs; where masks are integrated
        /// out, a third of it)
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        retraining_epochs: i64 => Option<usize> = whole_or_none(1, 1_000_000);
        /// Samples per cell of the importance-weighted bound on held-out cells [default: 1000]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        particles: i64 => usize = whole(1000, 1, 1_000_000);
        /// Running statistics of batch normalisation while held-out shifts are fitted; drift is what the reference
        /// implementation's baselines do [default: frozen]
        #[arg(long, value_name = "KIND")]
        heldout_batch_norm: HeldoutBatchNorm => HeldoutBatchNorm = any(HeldoutBatchNorm::Frozen);
    }
}

settings! {
    /// Seed and threads.
    RawExecution => ExecutionKeys, "Execution" {
        /// Seed of every random stream [default: 0]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        seed: i64 => u64 = seed(0);
        /// Number of threads (by default RAYON_NUM_THREADS, else all that the machine allows)
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        threads: i64 => Option<usize> = whole_or_none(1, 1024);
        /// What the last digits may depend on: native, on the kind of processor; baseline, on nothing [default: native]
        #[arg(long, value_name = "LEVEL")]
        simd: Level => Level = any(Level::Native);
    }
}

settings! {
    /// Stopping early and going on.
    RawInterruption => InterruptionKeys, "Interruptions" {
        /// Go on with the run that the results folder holds, if it holds one
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        resume: bool => bool = any(false);
        /// Minutes between two checkpoints; 0 writes one after every epoch [default: 10]
        #[arg(long, value_name = "MINUTES", allow_negative_numbers = true)]
        checkpoint_every: f64 => f64 = number(10.0, NumberRange::closed(0.0, 1e6));
        /// Stop after this time, such as 11h50m, 90m or 600s, with a checkpoint and exit code 75 (by default never)
        #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
        time_limit: String => Option<TimeLimit> = time_or_none();
    }
}

settings! {
    /// Where results go and what is printed.
    RawOutput => OutputKeys, "Output" {
        /// Results folder (by default the next numbered folder under results/)
        #[arg(long, value_name = "DIR")]
        out: PathBuf => Option<PathBuf> = path_or_none("folder", "a results folder");
        /// Replace a run that the results folder already holds
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        overwrite: bool => bool = any(false);
        /// Share of false edges to expect among those of the graph (Bayesian false discovery rate; svae-plus with integrated
        /// masks, pca) [default: 0.05]
        #[arg(long, value_name = "Q", allow_negative_numbers = true)]
        fdr: f64 => f64 = number(0.05, NumberRange::closed(0.0, 1.0));
        /// Write no results.h5ad, the copy of the data with the results in it for Python
        #[arg(long = "no-h5ad", value_name = "BOOL", num_args = 0..=1, require_equals = true,
            default_missing_value = "true", value_parser = negated)]
        h5ad: bool => bool = any(true);
        /// Print the metrics as one JSON object on standard output, and nothing else there
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        json: bool => bool = any(false);
        /// Print no progress
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        quiet: bool => bool = any(false);
        /// Progress as text for people, or as one JSON object per line and event [default: text]
        #[arg(long, value_name = "FORMAT")]
        log_format: LogFormat => LogFormat = any(LogFormat::Text);
    }
}

/// The value of a setting whose flag says its opposite.
fn negated(text: &str) -> std::result::Result<bool, std::str::ParseBoolError> {
    text.parse::<bool>().map(|value| !value)
}

/// Settings of the simulation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[command(next_help_heading = "Simulation (without --data)")]
pub struct RawSimulation {
    /// Simulator [default: sparse-shift]
    #[arg(id = "sim_kind", long = "simulation", value_name = "KIND")]
    pub kind: Option<SimulationKind>,
    /// Number of interventions [default: 100]
    #[arg(id = "sim_interventions", long = "sim-interventions", value_name = "N", allow_negative_numbers = true)]
    pub interventions: Option<i64>,
    /// Number of cells of each intervention [default: 500]
    #[arg(id = "sim_cells", long = "sim-cells", value_name = "N", allow_negative_numbers = true)]
    pub cells: Option<i64>,
    /// Number of genes [default: 100]
    #[arg(id = "sim_genes", long = "sim-genes", value_name = "N", allow_negative_numbers = true)]
    pub genes: Option<i64>,
    /// Number of true latents [default: 15]
    #[arg(id = "sim_latents", long = "sim-latents", value_name = "N", allow_negative_numbers = true)]
    pub latents: Option<i64>,
    /// Let interventions target only the first N latents (by default all of them)
    #[arg(id = "sim_targeted_latents", long = "sim-targeted-latents", value_name = "N", allow_negative_numbers = true)]
    pub targeted_latents: Option<i64>,
    /// Expected total count of every cell (by default 100,000 with paper, and what 1,000,000 counts per gene over all cells
    /// amount to with sparse-shift, which falls as cells are added)
    #[arg(id = "sim_depth", long = "sim-depth", value_name = "N", allow_negative_numbers = true)]
    pub depth: Option<i64>,
    /// Mean size of the shifts, in standard deviations of a latent; 0: no intervention acts (by default 5)
    #[arg(id = "sim_shift", long = "sim-shift", value_name = "SD", allow_negative_numbers = true)]
    pub shift: Option<f64>,
    /// Inverse dispersion of negative binomial counts, of variance mean + mean^2 / THETA (by default counts are Poisson)
    #[arg(id = "sim_dispersion", long = "sim-dispersion", value_name = "THETA", allow_negative_numbers = true)]
    pub dispersion: Option<f64>,
    /// Of the interventions that hit one of the first two latents, let this share hit both and the others one (by default
    /// targets are independent)
    #[arg(id = "sim_together", long = "sim-together", value_name = "SHARE", allow_negative_numbers = true)]
    pub together: Option<f64>,
    /// Draw cells of N batches, which change the expression of each gene by some 30 % (by default of one)
    #[arg(id = "sim_batches", long = "sim-batches", value_name = "N", allow_negative_numbers = true)]
    pub batches: Option<i64>,
    /// Let this share of the cells escape their intervention: they keep its label, and are as if it did not act (by default none)
    #[arg(id = "sim_escaped", long = "sim-escaped", value_name = "SHARE", allow_negative_numbers = true)]
    pub escaped: Option<f64>,
    /// Number of control cells, on which no intervention acts (by default none)
    #[arg(id = "sim_controls", long = "sim-controls", value_name = "N", allow_negative_numbers = true)]
    pub controls: Option<i64>,
    /// Number of combinations of two or, every fourth, three interventions, whose shifts add up, with as many cells each as an
    /// intervention (by default none)
    #[arg(id = "sim_combinations", long = "sim-combinations", value_name = "N", allow_negative_numbers = true)]
    pub combinations: Option<i64>,
    /// Let the shift of this share of the combinations differ from the sum in one latent (by default none)
    #[arg(id = "sim_interactions", long = "sim-interactions", value_name = "SHARE", allow_negative_numbers = true)]
    pub interactions: Option<f64>,
    /// Give the cells of each intervention alone N doses in turn, evenly from 1 down: 1, 1/2 with 2 (by default 1)
    #[arg(id = "sim_doses", long = "sim-doses", value_name = "N", allow_negative_numbers = true)]
    pub doses: Option<i64>,
    /// Seed of the simulator (by default that of --seed)
    #[arg(id = "sim_seed", long = "sim-seed", value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<i64>,
}

impl RawSettings {
    /// Dotted names of the keys that have a value.
    pub(super) fn given_keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for (key, value) in self.to_table()? {
            match value {
                toml::Value::Table(table) => keys.extend(table.keys().map(|name| format!("{key}.{name}"))),
                _ => keys.push(key),
            }
        }
        Ok(keys)
    }

    pub(super) fn to_table(&self) -> Result<toml::Table> {
        let (data, out) = (&self.data, &self.output.out);
        let single =
            [(&data.barcodes, "--barcodes"), (&data.features, "--features"), (&data.genes, "--genes"), (out, "--out")];
        let several = [(&data.data, "--data"), (&data.labels, "--labels")];
        let several =
            several.into_iter().flat_map(|(paths, flag)| paths.iter().flatten().map(move |path| (path, flag)));
        for (path, flag) in single.into_iter().filter_map(|(path, flag)| Some((path.as_ref()?, flag))).chain(several) {
            if path.to_str().is_none() {
                return Err(InputError::new("the path is not valid UTF-8", "rename the file or folder")
                    .at(flag)
                    .into());
            }
        }
        Ok(toml::Table::try_from(self).expect("settings with UTF-8 paths can be written as TOML"))
    }
}
