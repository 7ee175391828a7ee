//! Every buffer of a training step or an evaluation, allocated once, and their cut into row blocks.
//!
//! Legend: B cells of a minibatch, G genes, L latents, H hidden units, C covariates, E interventions per cell at most.
//! A row block is [`ROWS_PER_BLOCK`] cells; whatever the number of threads, a minibatch has the same blocks. Sums over rows are
//! formed by block. Everything else is done row by row, so that a thread may work on several neighbouring blocks, a stripe, as
//! one: products of more rows are faster.

use crate::model::architecture::{Architecture, MAX_LAYERS};
use crate::model::clock::StageClock;
use crate::model::likelihood::{Prepared, Scratch};
use crate::numerics::aligned::Aligned;
use crate::numerics::real::Real;
use crate::parallel::ranks::Ranks;
use crate::parallel::team::{Split, Tiles, tiles};

/// Cells of a row block.
pub const ROWS_PER_BLOCK: usize = 32;

/// Random words fetched per row where `needed` are used: whole blocks of the generator.
pub fn words_per_row(needed: usize) -> usize {
    needed.next_multiple_of(4)
}

/// Defines buffers with so many values per row or per block, their cut into tiles, and the view of one block.
macro_rules! block_buffers {
    (
        $(#[$doc:meta])* $Buffers:ident, $BufferTiles:ident, $Block:ident;
        rows { $( $(#[$row_doc:meta])* $row:ident: $row_type:ty, )* }
        blocks { $( $(#[$block_doc:meta])* $per_block:ident: $block_type:ty, )* }
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $Buffers<R> {
            $( $(#[$row_doc])* pub $row: Aligned<$row_type>, )*
            $( $(#[$block_doc])* pub $per_block: Vec<$block_type>, )*
            capacity: usize,
            scalar: std::marker::PhantomData<R>,
        }

        impl<R: Real> $Buffers<R> {
            fn tiles(&mut self, n_rows: usize, stripe: usize) -> $BufferTiles<'_, R> {
                assert!(n_rows <= self.capacity);
                let n_blocks = n_rows.div_ceil(ROWS_PER_BLOCK);
                $(
                    let width = self.$row.len() / self.capacity;
                    let $row = tiles(&mut self.$row[..n_rows * width], stripe * ROWS_PER_BLOCK * width);
                )*
                $(
                    let width = self.$per_block.len() / self.capacity.div_ceil(ROWS_PER_BLOCK);
                    let $per_block = tiles(&mut self.$per_block[..n_blocks * width], stripe * width);
                )*
                $BufferTiles { $($row,)* $($per_block,)* }
            }
        }

        #[derive(Clone, Copy)]
        struct $BufferTiles<'w, R> {
            $( $row: Tiles<'w, $row_type>, )*
            $( $per_block: Tiles<'w, $block_type>, )*
        }

        impl<'w, R: Real> $BufferTiles<'w, R> {
            /// # Safety
            /// Each stripe may be taken once.
            unsafe fn block(&self, i: usize) -> $Block<'w, R> {
                // SAFETY: passed on from the caller.
                unsafe {
                    $Block { $( $row: self.$row.part(i), )* $( $per_block: self.$per_block.part(i), )* }
                }
            }
        }

        /// One stripe of the buffers of the same name.
        #[allow(missing_docs)]
        pub struct $Block<'w, R> {
            $( pub $row: &'w mut [$row_type], )*
            $( pub $per_block: &'w mut [$block_type], )*
        }
    };
}

block_buffers! {
    /// Buffers of one hidden layer.
    LayerBuffers, LayerTiles, LayerBlock;
    rows {
        /// Output of the linear part, B x H.
        pre: R,
        /// Output of the layer, B x H.
        out: R,
        /// Gradient of `out`, then, in place, of `pre`: B x H.
        d: R,
        /// Mean and inverse deviation of each row, for layer normalisation, B x 2.
        row_statistics: R,
        /// Dropout factors, B x H; empty where there is no dropout.
        keep: R,
    }
    blocks {
        /// Moments of `pre` over a block's rows, or sums for its gradient: 2 H per block.
        sums: R,
        /// One row of H per block.
        row_scratch: R,
    }
}

block_buffers! {
    /// Buffers outside the hidden layers.
    CellBuffers, CellTiles, CellBlock;
    rows {
        /// Counts, B x G, dense.
        x: R,
        /// log(1 + x), B x G; not in use where most counts are zero.
        input: R,
        /// Size factor, B.
        library: R,
        /// Continuous, then one-hot covariates, B x C.
        covariates: R,
        /// Noise of the latent sample, B x L.
        latent_noise: R,
        /// Logistic noise of the masks, B x E x L.
        mask_noise: R,
        /// Posterior mean m, B x L.
        mean: R,
        /// log(v - 1e-4), B x L.
        log_variance: R,
        /// Posterior variance v, B x L.
        variance: R,
        /// Covariance factor below its diagonal, rows one after another, B x L(L-1)/2; empty where it is diagonal.
        factor: R,
        /// Latent sample, B x L.
        z: R,
        /// Mask logits of each cell's interventions, B x E x L.
        mask_logit: R,
        /// Masks, B x E x L.
        mask: R,
        /// Derivative of each mask in its logit, B x E x L.
        slope: R,
        /// Mean of the prior, B x L.
        prior_mean: R,
        /// Gradient of the weighted divergence in m, B x L; that in the prior mean is its negative.
        d_kl_mean: R,
        /// Gradient of the mean head's output, B x L.
        d_mean: R,
        /// Gradient of the log-variance head's output, B x L.
        d_log_variance: R,
        /// Gradient of the factor head's output, B x L(L-1)/2.
        d_factor: R,
        /// Gradient of z, B x L.
        d_z: R,
        /// Logits of the expression rates, then, in place, their gradient: B x G.
        logits: R,
        /// Negative log-likelihood in nats, B.
        reconstruction: f64,
        /// Divergence from the prior in nats, B.
        kl: f64,
    }
    blocks {
        /// Gradient of the log-dispersions from a block's rows, G per block; empty where the likelihood has none.
        d_log_dispersion: R,
        /// Scratch of the likelihood, one per block.
        likelihood_scratch: Scratch<R>,
        /// Random words, enough for a block's latents, masks or dropout of one layer.
        words: u32,
    }
}

/// Batch statistics of one normalised layer.
#[derive(Debug)]
pub struct LayerStatistics<R> {
    /// Mean over the minibatch (running mean in evaluation), H.
    pub mean: Vec<R>,
    /// Squared deviations from it, summed, H.
    pub squares: Vec<R>,
    /// Inverse deviation, H.
    pub inverse: Vec<R>,
}

/// Every buffer for minibatches of up to `capacity` cells.
#[derive(Debug)]
pub struct Workspace<R> {
    /// Buffers outside the hidden layers.
    pub cells: CellBuffers<R>,
    /// Buffers of the encoder's hidden layers.
    pub encoder: Vec<LayerBuffers<R>>,
    /// Buffers of the decoder's hidden layers.
    pub decoder: Vec<LayerBuffers<R>>,
    /// Batch statistics of the encoder's layers.
    pub encoder_statistics: Vec<LayerStatistics<R>>,
    /// Batch statistics of the decoder's layers.
    pub decoder_statistics: Vec<LayerStatistics<R>>,
    /// The likelihood with what it derives from its parameters.
    pub likelihood: Prepared<R>,
    /// log(1 + x) of counts.
    pub log1p: Log1pTable<R>,
    /// Most interventions of one cell, E.
    pub max_interventions: usize,
    /// Where the time goes, if a benchmark asks.
    pub clock: StageClock,
    /// How the rows of a minibatch lie on the processes.
    pub share: Share<R>,
    capacity: usize,
}

/// How the rows of a minibatch lie on the processes, and what these tell each other of their rows.
#[derive(Debug, Default)]
pub struct Share<R> {
    /// Cells of the minibatch that this process holds, in order; not used where it is alone.
    pub own: Vec<usize>,
    /// Rows of each process.
    pub rows: Vec<usize>,
    /// Two values per hidden unit from the rows of this process, 2 H.
    pub sent: Vec<R>,
    /// Those of every process, 2 H for each.
    pub received: Vec<R>,
}

impl<R: Real> Share<R> {
    /// Shares out the cells of a minibatch; no memory is allocated once the buffers are as large as it takes.
    pub fn divide(&mut self, ranks: &Ranks, cells: &[usize], n_hidden: usize) {
        self.own.clear();
        self.rows.clear();
        if ranks.is_alone() {
            self.rows.push(cells.len());
            return;
        }
        self.rows.resize(ranks.size(), 0);
        for &cell in cells {
            self.rows[ranks.owner(cell)] += 1;
            if ranks.holds(cell) {
                self.own.push(cell);
            }
        }
        self.sent.resize(2 * n_hidden, R::ZERO);
        self.received.resize(2 * n_hidden * ranks.size(), R::ZERO);
    }
}

/// log(1 + x) of counts x: a table for small ones.
#[derive(Debug, Clone)]
pub struct Log1pTable<R>(Vec<R>);

impl<R: Real> Log1pTable<R> {
    const SIZE: usize = 1024;

    /// The table.
    pub fn new() -> Self {
        Self((0..Self::SIZE).map(|x| Self::of_large(x as u32)).collect())
    }

    /// log(1 + x).
    #[inline(always)]
    pub fn of(&self, x: u32) -> R {
        match self.0.get(x as usize) {
            Some(&log) => log,
            None => Self::of_large(x),
        }
    }

    /// Out of line, so that loops over small counts stay short.
    #[cold]
    #[inline(never)]
    fn of_large(x: u32) -> R {
        R::of_count(x).ln_1p()
    }
}

impl<R: Real> Default for Log1pTable<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Real> Workspace<R> {
    /// Buffers for minibatches of up to `capacity` cells with up to `max_interventions` interventions each.
    pub fn new(a: &Architecture, capacity: usize, max_interventions: usize) -> Self {
        let zeros = |width: usize| Aligned::filled(capacity * width, R::ZERO);
        let n_blocks = capacity.div_ceil(ROWS_PER_BLOCK);
        let (g, l, h, e) = (a.n_genes, a.n_latents, a.n_hidden, max_interventions);
        let layers = |dropout: bool| -> Vec<LayerBuffers<R>> {
            (0..a.n_layers)
                .map(|_| LayerBuffers {
                    pre: zeros(h),
                    out: zeros(h),
                    d: zeros(h),
                    row_statistics: zeros(2),
                    keep: if dropout { zeros(h) } else { Aligned::default() },
                    sums: vec![R::ZERO; n_blocks * 2 * h],
                    row_scratch: vec![R::ZERO; n_blocks * h],
                    capacity,
                    scalar: std::marker::PhantomData,
                })
                .collect()
        };
        let statistics = || -> Vec<LayerStatistics<R>> {
            (0..a.n_layers)
                .map(|_| LayerStatistics {
                    mean: vec![R::ZERO; h],
                    squares: vec![R::ZERO; h],
                    inverse: vec![R::ONE; h],
                })
                .collect()
        };
        let words = ROWS_PER_BLOCK * words_per_row((l + 1).max(e * l).max(h.div_ceil(2)));
        Self {
            cells: CellBuffers {
                x: zeros(g),
                input: zeros(g),
                library: zeros(1),
                covariates: zeros(a.covariate_width()),
                latent_noise: zeros(l),
                mask_noise: zeros(e * l),
                mean: zeros(l),
                log_variance: zeros(l),
                variance: zeros(l),
                factor: zeros(a.factor_width()),
                z: zeros(l),
                mask_logit: zeros(e * l),
                mask: zeros(e * l),
                slope: zeros(e * l),
                prior_mean: zeros(l),
                d_kl_mean: zeros(l),
                d_mean: zeros(l),
                d_log_variance: zeros(l),
                d_factor: zeros(a.factor_width()),
                d_z: zeros(l),
                logits: zeros(g),
                reconstruction: Aligned::filled(capacity, 0.0),
                kl: Aligned::filled(capacity, 0.0),
                d_log_dispersion: vec![R::ZERO; n_blocks * a.likelihood.n_parameters(g)],
                likelihood_scratch: (0..n_blocks).map(|_| Scratch::new(g)).collect(),
                words: vec![0; n_blocks * words],
                capacity,
                scalar: std::marker::PhantomData,
            },
            encoder: layers(a.dropout_rate > 0.0),
            decoder: layers(false),
            encoder_statistics: statistics(),
            decoder_statistics: statistics(),
            likelihood: Prepared::new(a.likelihood, a.likelihood_epsilon, g),
            log1p: Log1pTable::new(),
            max_interventions,
            clock: StageClock::default(),
            share: Share::default(),
            capacity,
        }
    }

    /// Largest minibatch.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of all buffers, for predictions of memory.
    pub fn bytes(a: &Architecture, capacity: usize, max_interventions: usize) -> usize {
        let per_row = 3 * a.n_genes
            + a.covariate_width()
            + (10 + 4 * max_interventions) * a.n_latents
            + 2 * a.factor_width()
            + 7 * a.n_hidden * a.n_layers;
        capacity * per_row * size_of::<R>()
    }

    /// Cuts the buffers into stripes of so many row blocks, apart from the statistics, which all of them read.
    pub fn split(&mut self, n_rows: usize, stripe: usize) -> (Blocks<'_, R>, Shared<'_, R>) {
        fn layers<'w, R: Real>(
            buffers: &'w mut [LayerBuffers<R>],
            n_rows: usize,
            stripe: usize,
        ) -> [Option<LayerTiles<'w, R>>; MAX_LAYERS] {
            let mut all = [None; MAX_LAYERS];
            for (tiles, buffers) in all.iter_mut().zip(buffers) {
                *tiles = Some(buffers.tiles(n_rows, stripe));
            }
            all
        }
        let blocks = Blocks {
            cells: self.cells.tiles(n_rows, stripe),
            encoder: layers(&mut self.encoder, n_rows, stripe),
            decoder: layers(&mut self.decoder, n_rows, stripe),
        };
        let shared = Shared {
            encoder_statistics: &self.encoder_statistics,
            decoder_statistics: &self.decoder_statistics,
            likelihood: &self.likelihood,
            log1p: &self.log1p,
            max_interventions: self.max_interventions,
            clock: &self.clock,
        };
        (blocks, shared)
    }
}

/// What all stripes read.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy)]
pub struct Shared<'w, R> {
    pub encoder_statistics: &'w [LayerStatistics<R>],
    pub decoder_statistics: &'w [LayerStatistics<R>],
    pub likelihood: &'w Prepared<R>,
    pub log1p: &'w Log1pTable<R>,
    pub max_interventions: usize,
    pub clock: &'w StageClock,
}

/// The workspace cut into stripes.
pub struct Blocks<'w, R> {
    cells: CellTiles<'w, R>,
    encoder: [Option<LayerTiles<'w, R>>; MAX_LAYERS],
    decoder: [Option<LayerTiles<'w, R>>; MAX_LAYERS],
}

/// One stripe of the workspace: one row block or several.
pub struct Block<'w, R> {
    /// Buffers outside the hidden layers.
    pub cells: CellBlock<'w, R>,
    /// Hidden layers of the encoder; present up to the number of layers.
    pub encoder: [Option<LayerBlock<'w, R>>; MAX_LAYERS],
    /// Hidden layers of the decoder.
    pub decoder: [Option<LayerBlock<'w, R>>; MAX_LAYERS],
}

// SAFETY: a block is made of tiles with the same index, which do not overlap with those of another index.
unsafe impl<'w, R: Real> Split for Blocks<'w, R> {
    type Part = Block<'w, R>;

    unsafe fn part(&self, i: usize) -> Block<'w, R> {
        // SAFETY: passed on from the caller.
        unsafe {
            Block {
                cells: self.cells.block(i),
                encoder: std::array::from_fn(|l| self.encoder[l].map(|tiles| tiles.block(i))),
                decoder: std::array::from_fn(|l| self.decoder[l].map(|tiles| tiles.block(i))),
            }
        }
    }
}
