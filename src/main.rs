//! The `svae-cpu` program: parse, run, exit code (0 done, 1 failed, 2 bad input, 75 stopped early).

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match svae_cpu::cli::dispatch(svae_cpu::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error closed there is nobody to tell; the exit code still speaks.
            let _ = writeln!(std::io::stderr(), "{}", svae_cpu::report::complaint(&error));
            ExitCode::from(error.exit_code())
        }
    }
}
