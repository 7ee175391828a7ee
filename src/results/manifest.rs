//! `manifest.json`: what made a results folder, so that a result can be traced to its program, input and machine.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::checkpoint::RunHistory;
use crate::checkpoint::file::Resume;
use crate::display::json::to_json;
use crate::error::{Error, Result};
use crate::numerics::simd;
use crate::parallel::team::Team;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;
use crate::settings::Settings;
use crate::system::machine::{host, line_of, peak_rss_bytes};

/// Origin of a results folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// Name and version of the program.
    pub program: String,
    /// Commit that the program was built from, where the build knew it (`build.rs`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<&'static str>,
    /// The command, as the shell passed it.
    pub command: Vec<String>,
    /// Working directory, which relative paths refer to.
    pub working_directory: Option<String>,
    /// Name of the machine, where the system says.
    pub host: Option<String>,
    /// Kind of processor.
    pub processor: Option<String>,
    /// Vector instructions in use.
    pub simd: &'static str,
    /// `native` or `baseline`: what the last digits may depend on.
    pub products: &'static str,
    /// Threads, of each process.
    pub threads: usize,
    /// Processes that trained the model together; the machine and the memory are those of the first.
    pub ranks: usize,
    /// Data file, with its length and checksum; absent for a simulation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<InputFile>,
    /// Further data files of the same screen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub further_input: Vec<InputFile>,
    /// Seconds since 1970 at which the run began.
    pub started: u64,
    /// Seconds since 1970 at which it ended.
    pub ended: u64,
    /// Seconds that it took, without the time between a stop and the resumption.
    pub seconds: f64,
    /// Every resumption; none of a run that was never interrupted.
    pub resumes: Vec<Resume>,
    /// Most memory held, where the system says.
    pub peak_rss_bytes: Option<u64>,
}

/// A data file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InputFile {
    /// Its path, as given.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// CRC-32 of its contents (as `crc32` and `gzip` compute it), in hexadecimal.
    pub crc32: String,
}

impl Manifest {
    /// What is known of a run with checked settings that ends now, by a team.
    ///
    /// # Errors
    /// [`Error::Io`] if the data file can no longer be read.
    pub fn new(config: &Settings, team: &Team, course: RunHistory) -> Result<Self> {
        let RunHistory { started, seconds, resumes } = course;
        let input = match &config.data {
            Some(path) if path.is_file() => Some(InputFile::read(path)?),
            _ => None,
        };
        let further = config.input.further_data.iter().filter(|path| path.is_file());
        let further_input = further.map(|path| InputFile::read(path)).collect::<Result<_>>()?;
        Ok(Self {
            program: format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
            command: std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect(),
            working_directory: std::env::current_dir().ok().map(|path| path.display().to_string()),
            commit: option_env!("SVAE_CPU_COMMIT"),
            host: host(),
            processor: line_of("/proc/cpuinfo", "model name"),
            simd: simd::level(),
            products: config.execution.simd.name(),
            threads: team.threads(),
            ranks: team.ranks().size(),
            input,
            further_input,
            started,
            ended: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            seconds,
            resumes,
            peak_rss_bytes: peak_rss_bytes(),
        })
    }
}

impl InputFile {
    fn read(path: &Path) -> Result<Self> {
        let reading = |source| Error::io("reading", path, source);
        let mut crc = flate2::CrcReader::new(std::fs::File::open(path).map_err(reading)?);
        let bytes = std::io::copy(&mut crc, &mut std::io::sink()).map_err(reading)?;
        let crc32 = format!("{:08x}", crc.crc().sum());
        Ok(Self { path: path.display().to_string(), bytes, crc32 })
    }
}

impl ResultsFolder {
    /// Writes `manifest.json`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.write(ResultsFile::Manifest, |file| writeln!(file, "{}", to_json(manifest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_crc32() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digits");
        std::fs::write(&path, b"123456789").unwrap();
        let file = InputFile::read(&path).unwrap();
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!((file.bytes, file.crc32.as_str()), (9, "cbf43926"));
    }
}
