//! Arguments of `svae-cpu sweep`.

use std::path::PathBuf;

use crate::commands::sweep::{Part, Shard};
use crate::error::Result;
use crate::settings::{Criterion, Grid, RawSettings};

/// Arguments of `svae-cpu sweep`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SweepArgs {
    /// Grid of settings in TOML
    #[arg(value_name = "GRID.toml")]
    pub grid: PathBuf,
    /// Choose one setting among those that differ in alpha and beta alone (or in the keys that the grid's table
    /// `[select]` names): by validation ELBO or by UDR
    #[arg(long, value_name = "CRITERION")]
    pub select: Option<Criterion>,
    /// Do the i-th of n shares of the runs and write no table; a last call without it writes the table
    #[arg(long, value_name = "i/n", conflicts_with_all = ["tables_only", "list"])]
    pub shard: Option<Shard>,
    /// Do no run; write the tables of the runs that are finished
    #[arg(long, conflicts_with = "list")]
    pub tables_only: bool,
    /// Do nothing; check the grid and list its runs and how they stand
    #[arg(long)]
    pub list: bool,
    /// Settings given as flags, for every run; --method picks the runs of one method.
    #[command(flatten)]
    pub settings: RawSettings,
}

const EXAMPLES: &str = "\
A grid file holds settings as a configuration file does, then lists of values:

  epochs = 300                        # for all runs
  [simulation]
  cells = 250
  [grid]                              # a run for every combination
  seed = [0, 1, 2, 3, 4]
  [[runs]]                            # with each block of these
  method = [\"vae\", \"ivae\"]
  [[runs]]
  method = [\"svae\", \"svae-plus\"]
  mask = \"hard\"                       # masks are drawn, so that their sparsity counts
  alpha = [10, 30, 100]
  [select]                            # optional
  by = \"elbo\"                         # or \"udr\"

Examples:
  svae-cpu sweep scripts/table1.toml                       all runs, then the tables, in results/table1
  svae-cpu sweep scripts/table1.toml                       the same again: what was interrupted goes on
  svae-cpu sweep grid.toml --list                          which runs there are
  svae-cpu sweep grid.toml --sim-cells 50 --epochs 20      the same runs, small: a first look
  svae-cpu sweep grid.toml --method svae-plus              only the runs of that method
  svae-cpu sweep grid.toml --shard 3/8                     the third of eight jobs of an array
  svae-cpu sweep grid.toml --tables-only --select udr      choose otherwise

Exit codes: 0 done, 1 some runs failed, 2 bad input, 75 stopped early: the same command goes on.";

impl SweepArgs {
    /// The checked grid, and which part of it is wanted.
    ///
    /// # Errors
    /// As [`Grid::load`].
    pub fn checked(self) -> Result<(Grid, Part)> {
        let grid = Grid::load(&self.grid, self.settings, self.select)?;
        let part = match (self.shard, self.tables_only, self.list) {
            (Some(shard), ..) => Part::Shard(shard),
            (None, true, _) => Part::TablesOnly,
            (None, false, true) => Part::List,
            (None, false, false) => Part::Whole,
        };
        Ok((grid, part))
    }
}
