//! The `svae-cpu` program: parse, run, exit code (0 done, 1 failed, 2 bad input, 75 stopped early).

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use svae_cpu::cli::{Cli, dispatch};
use svae_cpu::parallel::ranks::Job;
use svae_cpu::system::console::complaint;

fn main() -> ExitCode {
    let job = match Job::join() {
        Ok(job) => job,
        Err(error) => return failed(&error),
    };
    let ranks = job.ranks();
    // Every rank has the same command line; one of them says what is wrong with it.
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if ranks.is_first() {
                let _ = error.print();
            }
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match dispatch(cli, ranks) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if !ranks.is_alone() && !error.is_shared() => ranks.end_job(&error),
        Err(error) if ranks.is_first() => failed(&error),
        Err(error) => ExitCode::from(error.exit_code()),
    }
}

fn failed(error: &svae_cpu::Error) -> ExitCode {
    // With standard error closed there is nobody to tell; the exit code still speaks.
    let _ = writeln!(std::io::stderr(), "{}", complaint(error));
    ExitCode::from(error.exit_code())
}
