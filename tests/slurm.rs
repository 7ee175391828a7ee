//! The batch files of `scripts/slurm`, run here with stand-ins for Slurm's own programs: signalled, queued again,
//! finished.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{names, run, said};

const SCREEN: [&str; 12] = [
    "--sim-interventions",
    "5",
    "--sim-cells",
    "60",
    "--sim-genes",
    "12",
    "--hidden",
    "8",
    "--latents",
    "3",
    "--particles",
    "20",
];

/// A cluster: a folder with `scontrol`, which notes down what is queued again, and `srun`, which is one task.
struct Cluster(tempfile::TempDir);

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        let stand_in = |name: &str, text: &str| {
            fs::write(bin.join(name), text).expect("written");
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("executable");
        };
        stand_in("scontrol", "#!/bin/sh\necho \"$@\" >> queue\n");
        // Options of its own first, then the program; signals go to the program itself.
        stand_in("srun", "#!/bin/sh\nwhile [ \"${1#--}\" != \"$1\" ]; do shift; done\nexec \"$@\"\n");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn job(&self, file: &str, args: &[&str], variables: &[(&str, &str)]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/slurm").join(file);
        let program = PathBuf::from(env!("CARGO_BIN_EXE_svae-cpu"));
        let path = std::env::var("PATH").expect("a path");
        let path =
            format!("{}:{}:{path}", self.path().join("bin").display(), program.parent().expect("a folder").display());
        let mut command = Command::new("bash");
        command.arg(script).args(args).current_dir(self.path()).env("PATH", path).envs(variables.iter().copied());
        command.env("SLURM_JOB_ID", "17").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What was queued again, a line each.
    fn queue(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path().join("queue")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().expect("a shell");
    assert!(sent.success());
}

/// Starts a job, signals it when `file` is there, and waits for its end.
fn interrupted(cluster: &Cluster, mut job: Command, name: &str, file: &str) -> Output {
    let mut child = job.spawn().expect("bash");
    let start = Instant::now();
    while !cluster.path().join(file).exists() {
        assert!(child.try_wait().expect("a child").is_none(), "it ended before {file} was there");
        if start.elapsed() > Duration::from_secs(60) {
            signal(&child, "TERM");
            panic!("{file} does not appear");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(&child, name);
    child.wait_with_output().expect("a child")
}

#[test]
fn a_run_is_queued_again_until_it_is_finished() {
    for (file, name) in [("run.sbatch", "USR1"), ("run.sbatch", "TERM"), ("mpi.sbatch", "")] {
        let cluster = Cluster::new();
        let args =
            |epochs: &'static str| [&SCREEN[..], &["--out", "a", "--epochs", epochs, "--patience", "0"]].concat();
        // Long enough to be caught, for the first two.
        let long = [&args("3000")[..], &["--checkpoint-every", "0"]].concat();
        match name {
            // As the tasks of a step are signalled by the scheduler itself, here the time limit stands for it.
            "" => {
                let limited = [&long[..], &["--time-limit", "1"]].concat();
                let (code, _, err) = said(&cluster.job(file, &limited, &[]).output().expect("bash"));
                assert_eq!(code, 75, "{err}");
            }
            name => {
                let output = interrupted(&cluster, cluster.job(file, &long, &[]), name, "a/checkpoint");
                let (code, _, err) = said(&output);
                assert_eq!(code, 75, "{err}");
                assert!(err.contains(&format!("stopped by SIG{name}")), "{err}");
            }
        }
        assert_eq!(cluster.queue(), ["requeue 17"], "{file}");
        assert!(cluster.path().join("a/checkpoint").is_file());

        // Queued too often, it stays where it is.
        let limited = [&long[..], &["--time-limit", "1"]].concat();
        let mut job = cluster.job(file, &limited, &[("SLURM_RESTART_COUNT", "3"), ("MOST_RESTARTS", "3")]);
        let (code, _, err) = said(&job.output().expect("bash"));
        assert!(code == 75 && err.contains("not queued again"), "{err}");
        assert_eq!(cluster.queue().len(), 1);

        // A refusal is not queued again.
        let (code, _, err) = said(&cluster.job(file, &args("2"), &[]).output().expect("bash"));
        assert!(code == 2 && err.contains("other settings"), "{err}");
        assert_eq!(cluster.queue().len(), 1);
        fs::remove_dir_all(cluster.path().join("a")).expect("removed");
        let (code, out, err) = said(&cluster.job(file, &args("2"), &[]).output().expect("bash"));
        assert!(code == 0 && out.contains("Results: a"), "{err}");
        assert_eq!(cluster.queue().len(), 1);
    }
}

#[test]
fn the_shares_of_a_sweep_are_queued_again_until_all_are_finished() {
    let cluster = Cluster::new();
    let grid = "epochs = 150\npatience = 0\ncheckpoint_every = 0\nhidden = 8\nlatents = 3\nparticles = 20\n\
                [simulation]\nseed = 3\ninterventions = 5\ncells = 60\ngenes = 12\n[grid]\nseed = [0, 1, 2]\n";
    fs::write(cluster.path().join("grid.toml"), grid).expect("a grid");
    let task = |number: &'static str| {
        let variables = [
            ("SLURM_ARRAY_JOB_ID", "40"),
            ("SLURM_ARRAY_TASK_ID", number),
            ("SLURM_ARRAY_TASK_MIN", "0"),
            ("SLURM_ARRAY_TASK_COUNT", "2"),
        ];
        cluster.job("sweep.sbatch", &["grid.toml"], &variables)
    };
    let first = interrupted(&cluster, task("0"), "USR1", "results/grid/runs/svae-plus_seed-0/checkpoint");
    assert_eq!(said(&first).0, 75, "{}", said(&first).2);
    assert_eq!(cluster.queue(), ["requeue 40_0"]);
    for number in ["0", "1"] {
        let (code, _, err) = said(&task(number).output().expect("bash"));
        assert_eq!(code, 0, "{err}");
    }
    assert_eq!(cluster.queue().len(), 1);
    assert_eq!(names(&cluster.path().join("results/grid/runs")).len(), 3);
    let tables = run(cluster.path(), &["sweep", "grid.toml", "--tables-only"]);
    assert_eq!(said(&tables).0, 0, "{}", said(&tables).2);
    assert!(cluster.path().join("results/grid/table.md").is_file());
}
