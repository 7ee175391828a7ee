//! The results folder: chosen without touching another run, every file in it whole or absent.

use crate::system::files::{FolderLock, LOCK, write_atomically};
use crate::system::safetensors::{Tensor, write_safetensors};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::file as checkpoint;
use crate::data::loading::load::DataSummary;
use crate::error::{Error, InputError, Result};
use crate::evaluation::metrics::Metrics;
use crate::results::manifest::Manifest;
use crate::settings::Config;
use crate::training::history::EpochRecord;

/// Parent of the numbered results folders, relative to the working directory.
pub const RESULTS_ROOT: &str = "results";

/// Files that show that a folder holds a run; the last one, that the run is finished.
const RUN_MARKERS: [&str; 4] = ["config.toml", checkpoint::CHECKPOINT, checkpoint::PREVIOUS, METRICS];

/// Name of the figures of a run, the last of its files to be written.
const METRICS: &str = "metrics.json";

/// Name of the posterior means of all cells.
pub(crate) const LATENTS: &str = "latents.npz";

/// How names begin of files that are not yet whole.
const UNFINISHED: [&str; 3] = [".writing-", ".h5ad-", ".npz-"];

/// Files that a run writes; those of an earlier run are removed before it is replaced.
const RUN_FILES: [&str; 23] = [
    "config.toml",
    "manifest.json",
    "metrics.json",
    "history.csv",
    "model.safetensors",
    LATENTS,
    "masks.csv",
    "shifts.csv",
    "history_retrain.csv",
    "model_heldout.safetensors",
    "shifts_heldout.csv",
    "evaluation.json",
    "data.json",
    "cells.csv",
    "targets.csv",
    "genes_per_latent.csv",
    "graph.graphml",
    "graph.dot",
    "results.h5ad",
    "report.html",
    checkpoint::CHECKPOINT,
    checkpoint::PREVIOUS,
    checkpoint::NEXT,
];

/// An existing folder that belongs to one run.
#[derive(Debug)]
pub struct ResultsFolder {
    path: PathBuf,
    /// Whether this process is the one that writes.
    writes: bool,
    /// Held as long as the folder is being filled.
    lock: Option<FolderLock>,
}

/// What to do about a run that a folder already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// Refuse to touch it.
    Keep,
    /// Remove it.
    Replace,
    /// Go on with it.
    Resume,
}

/// Refuses, without writing anything, an `out` that is a file, that holds a run which is to be kept, or in which another
/// process works.
///
/// Called before data are read, so that a mistake costs no time.
///
/// # Errors
/// [`InputError`] naming the folder; [`Error::Occupied`].
pub fn check_destination(out: Option<&Path>, earlier: Earlier) -> Result<()> {
    let Some(path) = out else { return Ok(()) };
    if path.exists() && !path.is_dir() {
        return Err(InputError::new("this is a file, not a folder", "choose another --out").in_file(path).into());
    }
    if path.is_dir() {
        FolderLock::probe(path)?;
    }
    if earlier == Earlier::Keep
        && let Some(marker) = RUN_MARKERS.iter().find(|name| path.join(name).exists())
    {
        let (problem, remedy) = match path.join(METRICS).exists() {
            true => ("a run", "choose another --out, or add --overwrite to replace that run"),
            false => (
                "a run that is not finished",
                "add --resume to go on with it, choose another --out, or add --overwrite to replace it",
            ),
        };
        let error = InputError::new(format!("the folder already holds {problem} ({marker})"), remedy);
        return Err(error.in_file(path).into());
    }
    Ok(())
}

/// Whether the folder at `path` holds a finished run.
pub fn is_finished(path: &Path) -> bool {
    ["config.toml", METRICS].iter().all(|name| path.join(name).is_file())
}

impl ResultsFolder {
    /// The folder of a run that has been done.
    ///
    /// # Errors
    /// [`InputError`] if there is no such folder, or no run in it.
    pub fn open(path: &Path) -> Result<Self> {
        let refused = |problem: &str| -> Error {
            InputError::new(problem, "name the results folder of a run (results/0001, say)").in_file(path).into()
        };
        if !path.is_dir() {
            return Err(refused("there is no such folder"));
        }
        for name in ["config.toml", "model.safetensors"] {
            if !path.join(name).is_file() {
                return Err(refused(&format!("the folder holds no run ({name} is missing)")));
            }
        }
        Ok(Self { path: path.to_path_buf(), writes: true, lock: None })
    }

    /// The folder of a run that has been done, in which no other process works until the value is dropped.
    ///
    /// # Errors
    /// As [`ResultsFolder::open`]; [`Error::Occupied`]; [`Error::Io`].
    pub fn open_to_add(path: &Path) -> Result<Self> {
        let folder = Self::open(path)?;
        Ok(Self { lock: FolderLock::take(path)?, ..folder })
    }

    /// Creates `out`, or the next numbered folder under `results/` where `out` is `None`.
    ///
    /// The files of a run already there are removed if it is to be replaced, so that old and new never mix. Until the value
    /// is dropped, no other process works in the folder.
    ///
    /// # Errors
    /// As [`check_destination`]; [`Error::Io`] when the folder cannot be made.
    pub fn create(out: Option<&Path>, earlier: Earlier) -> Result<Self> {
        check_destination(out, earlier)?;
        let Some(path) = out else { return Self::create_numbered(Path::new(RESULTS_ROOT)) };
        std::fs::create_dir_all(path).map_err(|source| Error::io("creating", path, source))?;
        let folder = Self { path: path.to_path_buf(), writes: true, lock: FolderLock::take(path)? };
        // Another process may have finished the run just now.
        if earlier == Earlier::Resume && is_finished(path) {
            let error =
                InputError::new("the run is finished, there is nothing to go on with", "look at its report.html");
            return Err(error.in_file(path).into());
        }
        folder.remove_unfinished()?;
        // Only what a checkpoint leads to is worth keeping.
        if earlier != Earlier::Resume || !checkpoint::exists(path) {
            folder.remove(&RUN_FILES)?;
        }
        Ok(folder)
    }

    /// Removes what a process that was killed after its last result left in the folder of a finished run.
    ///
    /// # Errors
    /// [`Error::Occupied`]; [`Error::Io`].
    pub fn tidy(path: &Path) -> Result<()> {
        if path.join(LOCK).exists() || checkpoint::exists(path) {
            let folder = Self { path: path.to_path_buf(), writes: true, lock: FolderLock::take(path)? };
            folder.remove_unfinished()?;
            checkpoint::remove(path)?;
        }
        Ok(())
    }

    fn remove(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let file = self.path.join(name);
            match std::fs::remove_file(&file) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("replacing", file, source));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what a process that was killed had not finished writing.
    fn remove_unfinished(&self) -> Result<()> {
        let failed = |source| Error::io("reading", &self.path, source);
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(name) = name.to_str().filter(|name| UNFINISHED.iter().any(|prefix| name.starts_with(prefix))) {
                self.remove(&[name])?;
            }
        }
        Ok(())
    }

    /// Creates the folder after the highest number under `root`: 0001, 0002, ... Creating a folder is atomic, so two
    /// runs that start together get two folders.
    fn create_numbered(root: &Path) -> Result<Self> {
        let failed = |source| Error::io("creating a folder in", root, source);
        std::fs::create_dir_all(root).map_err(failed)?;
        let mut highest = 0;
        for entry in std::fs::read_dir(root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
            highest = highest.max(number.and_then(|name| name.parse::<u32>().ok()).unwrap_or(0));
        }
        for number in highest.saturating_add(1)..=u32::MAX {
            let path = root.join(format!("{number:04}"));
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let lock = FolderLock::take(&path)?;
                    return Ok(Self { path, writes: true, lock });
                }
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(failed(source)),
            }
        }
        Err(failed(io::Error::other("all numbers are taken")))
    }

    /// The folder that the first of several processes writes, as the others see it: what they write goes nowhere.
    pub fn of_first_rank(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writes: false, lock: None }
    }

    /// Whether what this process writes reaches the folder.
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Whether other processes are kept out: not on a file system without locks.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file `name` atomically; see [`write_atomically`].
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write(&self, name: &str, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<()> {
        if !self.writes {
            return Ok(());
        }
        write_atomically(&self.path.join(name), write)
    }

    /// Writes `config.toml`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write_config(&self, config: &Config) -> Result<()> {
        self.write("config.toml", |file| file.write_all(config.to_toml().as_bytes()))
    }

    /// Writes `manifest.json`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.write("manifest.json", |file| writeln!(file, "{}", manifest.to_json()))
    }

    /// Writes `metrics.json`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write_metrics(&self, metrics: &Metrics) -> Result<()> {
        self.write(METRICS, |file| writeln!(file, "{}", metrics.to_json()))
    }

    /// Writes `data.json`: what was read from the data file, chosen and dropped.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write_data_summary(&self, summary: &DataSummary) -> Result<()> {
        self.write("data.json", |file| {
            serde_json::to_writer_pretty(&mut *file, summary)?;
            writeln!(file)
        })
    }

    /// Writes `evaluation.json`, the metrics of a model that was read.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write_evaluation(&self, metrics: &Metrics) -> Result<()> {
        self.write("evaluation.json", |file| writeln!(file, "{}", metrics.to_json()))
    }

    /// Writes the history `name`, a row per epoch with the columns of [`EpochRecord`].
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn write_history(&self, name: &str, records: &[EpochRecord]) -> Result<()> {
        self.write(name, |file| {
            let mut table = csv::Writer::from_writer(file);
            for record in records {
                table.serialize(record)?;
            }
            table.flush()
        })
    }

    /// Writes `masks.csv`: the probability that each intervention targets each latent, interventions x latents.
    ///
    /// # Errors
    /// As [`ResultsFolder::write_intervention_table`].
    pub fn write_masks(&self, intervention_names: &[String], n_latents: usize, masks: &[f64]) -> Result<()> {
        self.write_intervention_table("masks.csv", intervention_names, n_latents, masks)
    }

    /// Writes `shifts.csv`: the shift of each latent under each intervention, interventions x latents.
    ///
    /// # Errors
    /// As [`ResultsFolder::write_intervention_table`].
    pub fn write_shifts(&self, intervention_names: &[String], n_latents: usize, shifts: &[f64]) -> Result<()> {
        self.write_intervention_table("shifts.csv", intervention_names, n_latents, shifts)
    }

    /// Writes a table with a row per intervention and the columns `intervention`, `latent_0`, `latent_1`, ...
    ///
    /// `values` is interventions x latents, row-major.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    ///
    /// # Panics
    /// If `values` does not have that shape.
    pub fn write_intervention_table(
        &self,
        name: &str,
        intervention_names: &[String],
        n_latents: usize,
        values: &[f64],
    ) -> Result<()> {
        assert_eq!(values.len(), intervention_names.len() * n_latents, "{name}: interventions x latents");
        self.write(name, |file| {
            let mut table = csv::Writer::from_writer(file);
            table.write_field("intervention")?;
            for k in 0..n_latents {
                table.write_field(format!("latent_{k}"))?;
            }
            table.write_record(None::<&[u8]>)?;
            for (intervention, row) in intervention_names.iter().zip(values.chunks_exact(n_latents)) {
                table.write_field(intervention)?;
                for value in row {
                    table.write_field(value.to_string())?;
                }
                table.write_record(None::<&[u8]>)?;
            }
            table.flush()
        })
    }

    /// Writes the model `name` (`model.safetensors`), which Python's `safetensors` package reads.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    ///
    /// # Panics
    /// As [`write_safetensors`].
    pub fn write_model(&self, name: &str, tensors: &[Tensor<'_>], metadata: &BTreeMap<String, String>) -> Result<()> {
        self.write(name, |file| write_safetensors(file, tensors, metadata))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::safetensors::TensorValues;

    fn folder() -> (tempfile::TempDir, ResultsFolder) {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = ResultsFolder::create(Some(&parent.path().join("run")), Earlier::Keep).expect("a new folder");
        (parent, folder)
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    #[test]
    fn folders_are_numbered_after_the_highest() {
        let root = tempfile::tempdir().expect("a temporary folder");
        for name in ["0007", "notes", "12x"] {
            std::fs::create_dir(root.path().join(name)).expect("a folder");
        }
        let first = ResultsFolder::create_numbered(root.path()).expect("a new folder");
        let second = ResultsFolder::create_numbered(root.path()).expect("a new folder");
        assert_eq!(first.path(), root.path().join("0008"));
        assert_eq!(second.path(), root.path().join("0009"));
    }

    #[test]
    fn runs_that_start_together_get_different_folders() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let mut paths: Vec<PathBuf> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| ResultsFolder::create_numbered(root.path()).expect("a new folder").path().to_owned())
                })
                .collect();
            starts.into_iter().map(|start| start.join().expect("no panic")).collect()
        });
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 8);
    }

    #[test]
    fn a_folder_with_a_run_is_refused_and_untouched_unless_overwritten() {
        for marker in RUN_MARKERS {
            let parent = tempfile::tempdir().expect("a temporary folder");
            std::fs::write(parent.path().join(marker), "old").expect("a file");
            std::fs::write(parent.path().join("history.csv"), "old").expect("a file");
            std::fs::write(parent.path().join("notes.txt"), "mine").expect("a file");
            let error = ResultsFolder::create(Some(parent.path()), Earlier::Keep).expect_err("a run is there");
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("--overwrite") && error.to_string().contains(marker), "{error}");
            assert_eq!(names(parent.path()).len(), 3);
            let folder = ResultsFolder::create(Some(parent.path()), Earlier::Replace).expect("may be replaced");
            assert_eq!(names(parent.path()), [LOCK, "notes.txt"]);
            drop(folder);
            assert_eq!(names(parent.path()), ["notes.txt"]);
        }
    }

    #[test]
    fn a_file_is_no_folder() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = ResultsFolder::create(Some(file.path()), Earlier::Replace).expect_err("a file");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let (_parent, folder) = folder();
        folder.write("a.txt", |file| file.write_all(b"old")).expect("written");
        let error = folder
            .write("a.txt", |file| {
                file.write_all(b"new and half")?;
                Err(io::Error::other("the disk is full"))
            })
            .expect_err("fails");
        assert!(error.to_string().contains("a.txt") && error.to_string().contains("the disk is full"), "{error}");
        assert_eq!(std::fs::read(folder.path().join("a.txt")).expect("readable"), b"old");
        assert_eq!(names(folder.path()), [LOCK, "a.txt"]);
    }

    #[test]
    fn a_folder_has_one_run_at_a_time() {
        let (_parent, folder) = folder();
        let path = folder.path().to_owned();
        for earlier in [Earlier::Keep, Earlier::Replace, Earlier::Resume] {
            let error = ResultsFolder::create(Some(&path), earlier).expect_err("occupied");
            let whom = format!("process {}", std::process::id());
            assert!(matches!(error, Error::Occupied { .. }) && error.to_string().contains(&whom), "{error}");
        }
        drop(folder);
        assert!(names(&path).is_empty(), "the lock is removed");
        ResultsFolder::create(Some(&path), Earlier::Keep).expect("free");
    }

    #[test]
    fn what_a_killed_process_left_half_written_is_removed() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        for name in [".writing-x1", ".h5ad-x1", ".npz-x1", "mine.tmp", checkpoint::PREVIOUS, "history.csv"] {
            std::fs::write(parent.path().join(name), "x").expect("a file");
        }
        let kept = [checkpoint::PREVIOUS, "history.csv", "mine.tmp"];
        drop(ResultsFolder::create(Some(parent.path()), Earlier::Resume).expect("a folder"));
        assert_eq!(names(parent.path()), kept);
        drop(ResultsFolder::create(Some(parent.path()), Earlier::Replace).expect("a folder"));
        assert_eq!(names(parent.path()), ["mine.tmp"]);

        // A finished run is not gone on with, and loses only what nobody needs.
        for name in ["config.toml", METRICS, "history.csv", LOCK, ".writing-x2", checkpoint::CHECKPOINT] {
            std::fs::write(parent.path().join(name), "x").expect("a file");
        }
        let error = ResultsFolder::create(Some(parent.path()), Earlier::Resume).expect_err("finished");
        assert!(error.to_string().contains("is finished"), "{error}");
        ResultsFolder::tidy(parent.path()).expect("tidied");
        assert_eq!(names(parent.path()), ["config.toml", "history.csv", METRICS, "mine.tmp"]);
    }

    #[test]
    fn the_folder_of_another_rank_is_not_written() {
        let (_parent, folder) = folder();
        let other = ResultsFolder::of_first_rank(folder.path());
        other.write("a.txt", |file| file.write_all(b"x")).expect("nothing to do");
        other.write_report(None).expect("nothing to do");
        assert!(folder.writes() && !other.writes());
        assert_eq!(names(folder.path()), [LOCK]);
    }

    #[cfg(unix)]
    #[test]
    fn files_are_as_readable_as_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let (_parent, folder) = folder();
        folder.write("a.txt", |file| file.write_all(b"x")).expect("written");
        std::fs::write(folder.path().join("b.txt"), "x").expect("written");
        let mode = |name| std::fs::metadata(folder.path().join(name)).expect("a file").permissions().mode();
        assert_eq!(mode("a.txt"), mode("b.txt"));
    }

    #[test]
    fn history_has_a_row_per_epoch() {
        let (_parent, folder) = folder();
        let record = EpochRecord {
            epoch: 1,
            kl_weight: 0.02,
            train_loss: 1e7,
            train_elbo: 400.0,
            train_reconstruction: 390.0,
            train_kl: 10.0,
            kl_global: 0.5,
            validation_elbo: 401.0,
            validation_reconstruction: 391.0,
            validation_kl: 10.0,
            mean_mask: 0.99,
            seconds: 0.25,
        };
        folder.write_history("history.csv", &[record, EpochRecord { epoch: 2, ..record }]).expect("written");
        let text = std::fs::read_to_string(folder.path().join("history.csv")).expect("readable");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "epoch,kl_weight,train_loss,train_elbo,train_reconstruction,train_kl,kl_global,validation_elbo,\
             validation_reconstruction,validation_kl,mean_mask,seconds"
        );
        assert_eq!(lines.len(), 3);
        assert!(lines[2].starts_with("2,0.02,"));
    }

    #[test]
    fn tables_of_interventions_carry_names_and_full_precision() {
        let (_parent, folder) = folder();
        let interventions = ["A,B".to_owned(), "say \"x\"".to_owned()];
        let values = [0.1, 1.0 / 3.0, -2.5e-300, 7.0];
        folder.write_shifts(&interventions, 2, &values).expect("written");
        let mut reader = csv::Reader::from_path(folder.path().join("shifts.csv")).expect("readable");
        assert_eq!(reader.headers().expect("a header"), vec!["intervention", "latent_0", "latent_1"]);
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
        assert_eq!([&rows[0][0], &rows[1][0]], ["A,B", "say \"x\""]);
        let back: Vec<f64> = rows.iter().flat_map(|row| [&row[1], &row[2]].map(|v| v.parse().unwrap())).collect();
        assert_eq!(back, values);
    }

    #[test]
    fn safetensors_are_read_by_the_format_s_own_crate() {
        let weights = [1.5f32, -2.0, 3.25, 0.0, 5.0, 6.0];
        let logits = [0.1f64, f64::MAX];
        let tensors = [
            Tensor { name: "encoder.0.weight".into(), shape: vec![2, 3], values: weights[..].into() },
            Tensor { name: "logit".into(), shape: vec![2], values: logits[..].into() },
            Tensor { name: "empty".into(), shape: vec![0, 4], values: TensorValues::F32(&[]) },
        ];
        let metadata: BTreeMap<String, String> =
            [("method", "svae-plus"), ("latents", "15"), ("format", "1")].map(|(k, v)| (k.into(), v.into())).into();
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, &tensors, &metadata).expect("written");
        let mut again = Vec::new();
        write_safetensors(&mut again, &tensors, &metadata).expect("written");
        assert_eq!(bytes, again);

        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a valid file");
        assert_eq!(file.len(), 3);
        let tensor = file.tensor("encoder.0.weight").expect("present");
        assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F32, &[2usize, 3][..]));
        assert_eq!(tensor.data(), weights.map(f32::to_le_bytes).as_flattened());
        let tensor = file.tensor("logit").expect("present");
        assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F64, &[2usize][..]));
        assert_eq!(tensor.data(), logits.map(f64::to_le_bytes).as_flattened());
        let (_, read) = safetensors::SafeTensors::read_metadata(&bytes).expect("a valid header");
        assert_eq!(read.metadata().as_ref().expect("metadata").len(), 3);
    }
}
