//! Which checkpoints are resumed, and what is kept of a run that ends early.

use std::path::Path;
use std::time::Duration;

use crate::checkpoint::encoding::Encode;
use crate::checkpoint::*;
use crate::data::dataset::Dataset;
use crate::data::identity::identity;
use crate::data::simulate::small_screen as screen;
use crate::system::interruption::Interval;

/// A run of so many epochs on `data`.
fn described(epochs: usize, data: &Dataset) -> RunDescription {
    RunDescription {
        settings: vec![("method".to_owned(), "\"svae-plus\"".to_owned()), ("epochs".to_owned(), epochs.to_string())],
        data: identity(data).expect("counts in memory"),
        resume_command: "svae-cpu run --resume folder".to_owned(),
    }
}

fn resumable(folder: &Path, run: &RunDescription) -> ResumableRun<'static> {
    let schedule = SaveSchedule::new(Interval::Time(Duration::ZERO), None);
    ResumableRun::new(folder, run.clone(), schedule, &Silent, Instant::now())
}

/// Two checkpoints of a run: the newest after the stages a and b, the other after a.
fn checkpoints(folder: &Path, run: &RunDescription) {
    let mut first = resumable(folder, run);
    first.store_result("a", |out| out.push(1)).expect("saved");
    first.store_result("b", |out| out.push(2)).expect("saved");
}

fn stages(run: &ResumableRun<'_>) -> Vec<String> {
    run.results.iter().map(|(name, _)| name.clone()).collect()
}

#[test]
fn a_checkpoint_of_other_settings_or_data_is_refused_with_the_reason() {
    let data = screen(1);
    let run = described(3, &data);
    let folder = tempfile::tempdir().expect("a folder");
    checkpoints(folder.path(), &run);
    let mut same = resumable(folder.path(), &run);
    same.resume(1).expect("the same run");
    assert_eq!(stages(&same), ["a", "b"]);

    let refused = |other: &RunDescription| {
        let error = resumable(folder.path(), other).resume(1).expect_err("another run");
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let said = refused(&described(4, &data));
    assert!(said.contains("`epochs` is 3 there and 4 here") && said.contains("--overwrite"), "{said}");
    let mut more = run.clone();
    more.settings.push(("alpha".to_owned(), "2.0".to_owned()));
    let said = refused(&more);
    assert!(said.contains("`alpha` is not set there and 2.0 here"), "{said}");
    let said = refused(&described(3, &screen(2)));
    assert!(said.contains("other data") && said.contains("contents differ"), "{said}");
    let mut smaller = screen(1);
    smaller.gene_names.pop();
    let said = refused(&described(3, &smaller));
    assert!(said.contains("other data") || said.contains("genes"), "{said}");
    // Another folder or command is the same run.
    let moved = RunDescription { resume_command: "svae-cpu run --resume elsewhere".to_owned(), ..run };
    resumable(folder.path(), &moved).resume(7).expect("the same run");
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let run = described(3, &screen(1));
    let folder = tempfile::tempdir().expect("a folder");
    let [newest, previous] = [file::CHECKPOINT, file::PREVIOUS].map(|name| folder.path().join(name));
    let mut nothing = resumable(folder.path(), &run);
    nothing.resume(1).expect("nothing to resume is the beginning");
    assert!(stages(&nothing).is_empty());

    checkpoints(folder.path(), &run);
    let mut bytes = std::fs::read(&newest).expect("a checkpoint");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&newest, &bytes).expect("written");
    let mut resumed = resumable(folder.path(), &run);
    resumed.resume(1).expect("the one before");
    assert_eq!(stages(&resumed), ["a"]);
    assert_eq!(resumed.history().resumes.len(), 1);

    // Between its last two steps a write leaves only the one before.
    std::fs::remove_file(&newest).expect("removed");
    resumable(folder.path(), &run).resume(1).expect("the one before");
    std::fs::write(&newest, b"something else").expect("written");
    std::fs::write(&previous, &bytes[..20]).expect("written");
    let said = resumable(folder.path(), &run).resume(1).expect_err("both are bad");
    assert_eq!(said.exit_code(), 2);
    for part in ["no checkpoint of svae-cpu", "checkpoint.previous", "checksum", "--overwrite"] {
        assert!(said.to_string().contains(part), "{part}: {said}");
    }
}

#[test]
fn work_that_was_begun_is_not_lost_before_its_stage_asks_for_it() {
    let run = described(3, &screen(1));
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = resumable(folder.path(), &run);
    first.store_result("a", |out| out.push(1)).expect("saved");
    first.checkpoint_if_due("b", Boundary::Step, |out| out.push(9)).expect("saved");

    let mut second = resumable(folder.path(), &run);
    second.resume(1).expect("resumed");
    second.store_result("between", |out| out.push(3)).expect("saved");
    let mut third = resumable(folder.path(), &run);
    third.resume(2).expect("resumed");
    assert_eq!(stages(&third), ["a", "between"]);
    assert_eq!(third.history().resumes.iter().map(|resume| resume.threads).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(third.saved_state("a", u8::decode).expect("readable"), None);
    assert_eq!(third.saved_state("b", u8::decode).expect("readable"), Some(9));
    assert_eq!(third.saved_state("b", u8::decode).expect("taken"), None);
    assert_eq!(third.saved_result("a", u8::decode).expect("readable"), Some(1));
    assert!(third.saved_result("a", u64::decode).is_err() && third.saved_result("a", |_| Ok(())).is_err());
}

#[test]
fn a_run_goes_on_when_a_checkpoint_cannot_be_written_and_keeps_the_last_one() {
    let description = described(3, &screen(1));
    let parent = tempfile::tempdir().expect("a folder");
    let [folder, away] = ["run", "away"].map(|name| parent.path().join(name));
    std::fs::create_dir(&folder).expect("a folder");
    let mut run = resumable(&folder, &description);
    run.store_result("a", |out| out.push(1)).expect("saved");
    std::fs::rename(&folder, &away).expect("moved");
    run.checkpoint_if_due("b", Boundary::Step, |out| out.push(9)).expect("goes on");
    run.schedule = SaveSchedule::new(Interval::Epoch, Some(Instant::now()));
    let stopped = run.checkpoint_if_due("b", Boundary::Step, |out| out.push(9)).expect_err("stops");
    assert_eq!(stopped.exit_code(), 75);
    for part in ["the time limit", "could not be written", "is kept", "svae-cpu run --resume"] {
        assert!(stopped.to_string().contains(part), "{part}: {stopped}");
    }
    assert_eq!(
        file::read(&std::fs::read(away.join(file::CHECKPOINT)).expect("kept")).expect("whole").finished.len(),
        1
    );

    // Where nothing was ever saved, that is a failure.
    let mut run = resumable(&folder, &description);
    run.schedule = SaveSchedule::new(Interval::Epoch, Some(Instant::now()));
    assert_eq!(run.checkpoint_if_due("b", Boundary::Step, |out| out.push(9)).expect_err("fails").exit_code(), 1);
}

#[test]
fn what_a_process_wants_is_understood_by_the_others() {
    let signals = [1, 10, 15].map(|number| Action::Stop(Cause::Signal(number)));
    for next in [Action::GoOn, Action::Save, Action::Stop(Cause::TimeLimit)].into_iter().chain(signals) {
        assert_eq!(wished(wish(next)), next);
        assert_eq!(wish(next) >= STOP, matches!(next, Action::Stop(_)));
    }
}
