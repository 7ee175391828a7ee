//! The ranks of an MPI job: three collective operations that move bytes, and the end of the job.

use std::io::Write;

use ferrompi::{Communicator, Mpi, ThreadLevel};

use crate::error::{Error, Result};

/// Environment variables that the launchers of MPI jobs set: Open MPI, PMIx, MPICH and its relatives, Intel MPI.
const LAUNCHERS: [&str; 5] = ["OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"];

/// The processes of an MPI job, more than one.
pub(crate) struct World {
    rank: usize,
    size: usize,
    all: Communicator,
}

/// MPI itself, from its start to its end.
pub(crate) type Environment = Mpi;

/// Starts MPI if a launcher started this process together with others; `None` if it is alone.
pub(crate) fn join() -> Result<Option<(World, Environment)>> {
    // MPI without a launcher works, but starts helper processes of its own.
    if LAUNCHERS.iter().all(|name| std::env::var_os(name).is_none()) {
        return Ok(None);
    }
    let failed = |error| Error::Ranks { message: format!("MPI does not start: {error}."), exit_code: 1 };
    // Threads share out work within a rank; the thread that joined does all the talking.
    let environment = Mpi::init_thread(ThreadLevel::Funneled).map_err(failed)?;
    let all = environment.world();
    let (rank, size) = (all.rank() as usize, all.size() as usize);
    Ok((size > 1).then_some((World { rank, size, all }, environment)))
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.size)
    }
}

impl World {
    pub(crate) fn rank(&self) -> usize {
        self.rank
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// What every rank sends, in the order of the ranks, on every rank.
    pub(crate) fn all_gather(&self, sent: &[u8], received: &mut [u8]) {
        let outcome = self.all.allgather(sent, received);
        self.check(outcome);
    }

    /// Sends the i-th of equal parts to rank i, and receives as much from each, in the order of the ranks.
    pub(crate) fn exchange(&self, sent: &[u8], received: &mut [u8]) {
        let outcome = self.all.alltoall(sent, received);
        self.check(outcome);
    }

    /// What the first rank has, on every rank.
    pub(crate) fn broadcast(&self, bytes: &mut [u8]) {
        let outcome = self.all.broadcast(bytes, 0);
        self.check(outcome);
    }

    /// A failed exchange leaves the ranks apart, which nothing can mend.
    fn check(&self, outcome: ferrompi::Result<()>) {
        if let Err(error) = outcome {
            let (rank, size) = (self.rank, self.size);
            let _ = writeln!(
                std::io::stderr(),
                "error: rank {rank} of {size}: the exchange between ranks failed: {error}."
            );
            self.abort(1);
        }
    }

    /// Ends all processes of the job with an exit code.
    pub(crate) fn abort(&self, exit_code: u8) -> ! {
        self.all.abort(exit_code.into())
    }
}
