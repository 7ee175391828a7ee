//! Threads: as many as were asked for or granted, and no more.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether a thread of this name is one of a team, beside the first.
fn computes(name: &str) -> bool {
    name.strip_prefix("svae-").is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Trains for a moment under `wrapper` (a command that runs another, or nothing) and returns the threads that the manifest
/// names and the most that the process was seen to have.
fn trained(folder: &Path, wrapper: &[&str], environment: &[(&str, &str)], flags: &[&str]) -> (u64, usize) {
    let out = folder.join("out");
    let run = ["run", "--sim-cells", "200", "--sim-interventions", "20", "--epochs", "12", "--no-heldout", "--quiet"];
    let words: Vec<&str> = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_svae-cpu")]).chain(run).collect();
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .args(flags)
        .args(["--overwrite", "--no-h5ad", "--out"])
        .arg(&out)
        .env_remove("RAYON_NUM_THREADS")
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    let tasks = format!("/proc/{}/task", child.id());
    let mut most = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        // Threads that compute are numbered; the first one has the program's name, and the one that waits for signals its own.
        let threads = std::fs::read_dir(&tasks).into_iter().flatten().filter_map(Result::ok);
        let names = threads.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        most = most.max(1 + names.filter(|name| computes(name.trim_end())).count());
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    assert!(status.success(), "{words:?}");
    let manifest = std::fs::read_to_string(out.join("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    (manifest["threads"].as_u64().expect("a number"), most)
}

#[test]
fn what_is_asked_for_or_granted_is_used_and_no_more() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    assert_eq!(trained(folder, &[], &[], &["--threads", "3"]), (3, 3));
    assert_eq!(trained(folder, &[], &[("RAYON_NUM_THREADS", "2")], &[]), (2, 2));
    assert_eq!(trained(folder, &[], &[("RAYON_NUM_THREADS", "2")], &["--threads", "1"]), (1, 1), "the flag wins");
    let granted = std::thread::available_parallelism().expect("a number").get();
    assert_eq!(trained(folder, &[], &[], &[]), (granted as u64, granted));
}

#[test]
fn an_affinity_mask_is_obeyed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    if Command::new("taskset").arg("--version").output().is_err() {
        println!("taskset is not installed: the affinity mask was not tested");
        return;
    }
    assert_eq!(trained(folder.path(), &["taskset", "-c", "0"], &[], &[]), (1, 1));
}

/// A control group of the system with a quota of one processor, removed again at the end.
struct Quota(PathBuf);

impl Quota {
    /// `None` where this process may not make one.
    fn of_one_processor() -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("svae-cpu-test-{}", std::process::id());
        let (unified, group) = match root.join("cgroup.controllers").exists() {
            true => (true, root.join(name)),
            false => (false, root.join("cpu").join(name)),
        };
        std::fs::create_dir(&group).ok()?;
        let quota = Self(group);
        let write = |file: &str, value: &str| std::fs::write(quota.0.join(file), value).ok();
        match unified {
            true => {
                // Where it is on already, this changes nothing.
                let _ = std::fs::write(root.join("cgroup.subtree_control"), "+cpu");
                write("cpu.max", "100000 100000")?;
            }
            false => {
                write("cpu.cfs_period_us", "100000")?;
                write("cpu.cfs_quota_us", "100000")?;
            }
        }
        Some(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn the_quota_of_a_control_group_is_obeyed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(quota) = Quota::of_one_processor() else {
        println!("no control group can be made here: the quota was not tested");
        return;
    };
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", quota.0.display());
    assert_eq!(trained(folder.path(), &["sh", "-c", &enter, "sh"], &[], &[]), (1, 1));
    // Asked for in so many words, more threads are started all the same.
    assert_eq!(trained(folder.path(), &["sh", "-c", &enter, "sh"], &[], &["--threads", "2"]), (2, 2));
}
