//! Counts that stay on disk give what counts in memory give, in bounded memory, and say what is wrong with their file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use svae_cpu::Error;
use svae_cpu::data::counts::in_memory::Counts;
use svae_cpu::data::dataset::Dataset;
use svae_cpu::data::formats::anndata_writer::{AnnDataWriter, FrameColumn};
use svae_cpu::data::loading::load::{LoadOptions, Loaded, load};
use svae_cpu::data::minibatch::{Minibatches, Order};
use svae_cpu::data::simulate::{Simulation, simulate};
use svae_cpu::inference::{Inference, evaluation_workspace};
use svae_cpu::model::architecture::{Architecture, MaskKind, Prior};
use svae_cpu::model::network::Network;
use svae_cpu::model::objective::Objective;
use svae_cpu::model::prior::sparsity::Penalty;
use svae_cpu::parallel::team::Team;
use svae_cpu::system::console::Silent;
use svae_cpu::training::history::EpochRecord;
use svae_cpu::training::trainer::{TrainingSettings, TrainingTask, train};
use tempfile::TempDir;

use crate::support::{names, program, run, said};

/// A buffer that holds few cells of a small screen at a time.
const SMALL: usize = 6_000;

/// Writes a screen as AnnData, its labels in `obs["gene"]`.
fn write(path: &Path, data: &Dataset, uncompressed: bool) {
    let file = AnnDataWriter::create(path).expect("a file");
    let file = if uncompressed { file.uncompressed() } else { file };
    file.counts("X", &data.counts).expect("counts");
    let codes = (0..data.n_cells()).map(|n| data.interventions.single(n).map_or(-1, |a| a as i64)).collect();
    let columns = [
        ("gene".to_owned(), FrameColumn::Categorical(data.intervention_names.clone(), codes)),
        ("lane".to_owned(), FrameColumn::Integers((0..data.n_cells() as i64).map(|n| n % 2).collect())),
    ];
    file.frame("obs", &data.cell_names, &columns).expect("obs");
    file.frame("var", &data.gene_names, &[]).expect("var");
    file.finish().expect("written");
}

/// A simulated screen, its cells sorted by intervention.
fn screen(interventions: usize, cells: usize, genes: usize) -> Dataset {
    let simulation = Simulation {
        n_interventions: interventions,
        n_latents: 3,
        n_genes: genes,
        cells_per_intervention: cells,
        seed: 5,
        ..Simulation::default()
    };
    let mut data = simulate(&simulation).expect("a simulation").dataset;
    // Some zeros, and empty neither cells nor genes.
    let mut table = vec![0; data.n_cells() * genes];
    for n in 0..data.n_cells() {
        data.counts.row(n).for_each(|g, x| table[n * genes + g] = if (n + g) % 4 == 0 { 0 } else { x + 1 });
    }
    data.counts = Counts::from_dense(genes, &table).into();
    data.library = (0..data.n_cells()).map(|n| data.counts.row(n).sum() as f64).collect();
    data
}

fn in_memory() -> LoadOptions {
    LoadOptions { label_key: Some("gene".to_owned()), ..LoadOptions::default() }
}

fn on_disk(buffer: usize) -> LoadOptions {
    LoadOptions { stream: Some(buffer), ..in_memory() }
}

/// Both ways of reading a file.
fn both(path: &Path, options: &LoadOptions, buffer: usize) -> (Loaded, Loaded) {
    let memory = load(path, options).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let disk = load(path, &LoadOptions { stream: Some(buffer), ..options.clone() });
    (memory, disk.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Fails unless the two hold the same, and every cell of `disk` has the counts that it has in `memory`.
#[track_caller]
fn assert_same(memory: &Loaded, disk: &Loaded) {
    assert_eq!(memory.summary, disk.summary);
    assert_eq!(memory.notes, disk.notes);
    let (memory, disk) = (&memory.dataset, &disk.dataset);
    assert!(disk.counts.disk().is_some() && memory.counts.disk().is_none());
    assert_eq!((memory.n_cells(), memory.n_genes()), (disk.n_cells(), disk.n_genes()));
    assert_eq!(memory.counts.n_nonzero(), disk.counts.n_nonzero());
    assert_eq!(memory.counts.is_mostly_zero(), disk.counts.is_mostly_zero());
    let rest = |data: &Dataset| Dataset { counts: Counts::from_dense(1, &[]).into(), ..data.clone() };
    assert_eq!(rest(memory), rest(disk));
    let ascending: Vec<usize> = (0..memory.n_cells()).collect();
    let descending: Vec<usize> = ascending.iter().rev().copied().collect();
    let every_third: Vec<usize> = ascending.iter().copied().step_by(3).collect();
    for cells in [&ascending, &descending, &every_third] {
        let mut seen = Vec::new();
        let visited = disk.counts.visit(cells, |i, row| {
            let mut entries = Vec::new();
            row.for_each(|g, x| entries.push((g, x)));
            seen.push((i, entries));
        });
        visited.expect("readable");
        assert_eq!(seen.len(), cells.len());
        for ((i, entries), &n) in seen.iter().zip(cells) {
            let mut wanted = Vec::new();
            memory.counts.row(n).for_each(|g, x| wanted.push((g, x)));
            assert_eq!((entries, cells[*i]), (&wanted, n));
        }
    }
    assert_eq!(disk.resident(&every_third).expect("readable").counts, memory.counts.select(&every_third).into());
}

/// Files that AnnData itself has written, of all its versions.
#[test]
fn every_file_that_stores_counts_by_cell_is_read_as_into_memory() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats");
    let (mut streamed, mut refused) = (0, 0);
    for name in names(&folder).iter().filter(|name| name.ends_with(".h5ad")) {
        let options = LoadOptions {
            layer: name.contains("layers").then(|| "counts".to_owned()),
            drop_unlabelled_cells: true,
            ..LoadOptions::default()
        };
        let path = folder.join(name);
        if let Err(error) = load(&path, &LoadOptions { stream: Some(1 << 20), ..options.clone() }) {
            let message = error.to_string();
            // Some tables of old versions are not read at all.
            if load(&path, &options).is_err_and(|in_memory| in_memory.to_string() == message) {
                continue;
            }
            assert!(message.contains("CSC") && message.contains(".tocsr()"), "{message}");
            assert!(name.contains("csc") || message.contains("adata.layers[\"counts\"] ="), "{message}");
            assert_eq!(error.exit_code(), 2);
            refused += 1;
            continue;
        }
        for buffer in [1 << 16, 1 << 24] {
            let (memory, disk) = both(&path, &options, buffer);
            assert_same(&memory, &disk);
        }
        streamed += 1;
    }
    assert!(streamed > 15 && refused > 6, "{streamed} {refused}");
}

#[test]
fn choices_of_cells_and_genes_are_those_of_counts_in_memory() {
    let folder = TempDir::new().expect("a folder");
    let data = screen(4, 30, 20);
    let list = folder.path().join("genes.txt");
    fs::write(&list, data.gene_names[3..15].join("\n")).expect("written");
    let least = data.library[40] as u64;
    for uncompressed in [false, true] {
        let path = folder.path().join("s.h5ad");
        write(&path, &data, uncompressed);
        let plain = in_memory();
        let many = [
            plain.clone(),
            LoadOptions { top_genes: Some(7), ..plain.clone() },
            LoadOptions { top_genes: Some(7), batch_key: Some("lane".to_owned()), min_counts: least, ..plain.clone() },
            LoadOptions { genes: Some(list.clone()), continuous_covariates: vec!["lane".to_owned()], ..plain.clone() },
            LoadOptions { control: vec![data.intervention_names[1].clone()], min_counts: least, ..plain.clone() },
        ];
        for options in many {
            // Uncompressed values are read a few at a time; compressed ones need room for a chunk.
            let buffer = if uncompressed { SMALL } else { 1 << 17 };
            let (memory, disk) = both(&path, &options, buffer);
            assert_same(&memory, &disk);
        }
    }
}

#[test]
fn values_that_are_no_counts_are_refused_as_in_memory() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("s.h5ad");
    let file = AnnDataWriter::create(&path).expect("a file");
    let mut values = vec![1.0; 40 * 5];
    values[77] = 1.5;
    file.array_f64("X", &[40, 5], &values).expect("values");
    let labels = (0..40).map(|n| n % 2).collect();
    let columns = [("gene".to_owned(), FrameColumn::Categorical(vec!["a".into(), "b".into()], labels))];
    file.frame("obs", &(0..40).map(|n| n.to_string()).collect::<Vec<_>>(), &columns).expect("obs");
    file.frame("var", &(0..5).map(|g| g.to_string()).collect::<Vec<_>>(), &[]).expect("var");
    file.finish().expect("written");
    let [memory, disk] = [in_memory(), on_disk(SMALL)].map(|options| load(&path, &options).expect_err("no counts"));
    assert_eq!(memory.to_string(), disk.to_string());
    assert!(disk.to_string().contains("cell 15"), "{disk}");
}

/// The rows of all minibatches of an epoch, from one on.
fn rows(data: &Dataset, order: &Order, batch: usize, first: usize) -> Vec<(usize, Vec<(usize, u32)>)> {
    let mut all = Vec::new();
    let mut batches = Minibatches::of_epoch(data, order.clone(), batch, first).expect("started");
    while let Some(batch) = batches.next().expect("readable") {
        for (i, &n) in batch.cells.iter().enumerate() {
            let mut row = Vec::new();
            batch.row(i).for_each(|g, x| row.push((g, x)));
            all.push((n, row));
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever the buffer and the minibatch, every cell comes once and brings its own counts, and an epoch can be
    /// entered at any step.
    #[test]
    fn an_epoch_brings_every_cell_once(buffer in 1usize..30_000, batch in 1usize..50, first in 0usize..12, epoch in 0u64..9) {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("s.h5ad");
        let data = screen(3, 40, 10);
        write(&path, &data, true);
        let disk = load(&path, &on_disk(buffer)).expect("readable").dataset;
        let cells: Vec<usize> = (0..data.n_cells()).filter(|n| n % 5 != 2).collect();
        let order = Order::shuffled(&disk.counts, &cells, 3, epoch);
        let all = rows(&disk, &order, batch, 0);
        let mut sorted: Vec<usize> = all.iter().map(|(n, _)| *n).collect();
        sorted.sort_unstable();
        prop_assert_eq!(&sorted, &cells);
        for (n, row) in &all {
            let mut wanted = Vec::new();
            data.counts.row(*n).for_each(|g, x| wanted.push((g, x)));
            prop_assert_eq!(row, &wanted);
        }
        let from = (first * batch).min(all.len());
        prop_assert_eq!(rows(&disk, &order, batch, first), &all[from..]);
    }
}

fn network(data: &Dataset) -> Network<f32> {
    network_with(data, MaskKind::Hard)
}

fn network_with(data: &Dataset, kind: MaskKind) -> Network<f32> {
    let prior = Prior::Masked { kind, temperature: 1.0 };
    let architecture =
        Architecture { n_hidden: 16, prior, ..Architecture::new(data.n_genes(), data.n_interventions(), 3) };
    Network::new(architecture, 3)
}

fn settings(epochs: usize, seed: u64) -> TrainingSettings {
    TrainingSettings { warmup_epochs: 4, retraining_epochs: 2, seed, ..TrainingSettings::plain(epochs, 32) }
}

fn objective(n_cells: usize) -> Objective {
    Objective { penalty: Penalty::SpikeAndSlab { alpha: 5.0 }, beta: 1.0, scale_to_all_cells: true, n_cells }
}

/// Cells that train and cells that validate.
fn split(data: &Dataset) -> (Vec<usize>, Vec<usize>) {
    (0..data.n_cells()).partition(|n| n % 10 != 3)
}

#[test]
fn threads_and_the_pace_of_reading_do_not_change_a_bit() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("s.h5ad");
    write(&path, &screen(6, 50, 24), true);
    let data = load(&path, &on_disk(12_000)).expect("readable").dataset;
    let (cells, validation) = split(&data);
    let plan = data.counts.disk().expect("on disk").shuffle_plan();
    assert!(plan.chunk_cells * plan.window_chunks < cells.len(), "{plan:?}: several windows");
    let bits = |kind, threads| {
        let mut network = network_with(&data, kind);
        Team::with(threads, |team| {
            let (objective, settings) = (&objective(cells.len()), &settings(3, 1));
            let task = TrainingTask { data: &data, train: &cells, validation: &validation, objective, settings };
            // A reader that had been given time is as far as one that had not.
            let mut wait = |_: &EpochRecord| std::thread::sleep(Duration::from_millis(3 * threads as u64));
            let ran = train(team, &mut network, task, &mut wait).expect("readable");
            let mut workspace = evaluation_workspace(&network, &data);
            let mut inference = Inference { team, network: &network, data: &data, workspace: &mut workspace };
            let latents = inference.posterior_means(&validation).expect("readable");
            let losses = ran.history.iter().flat_map(|r| [r.train_loss, r.validation_elbo]).map(f64::to_bits);
            let values = network.parameters.values.iter().chain(&latents).map(|v| v.to_bits() as u64);
            losses.chain(values).collect::<Vec<u64>>()
        })
    };
    // Masks that are integrated out: in the first epochs all are on, then latents are turned by what all cells say.
    for kind in [MaskKind::Hard, MaskKind::Integrated] {
        let one = bits(kind, 1);
        for threads in [1, 2, 3] {
            assert!(bits(kind, threads) == one, "{kind:?}, {threads} threads");
        }
    }
}

/// A file sorted by intervention, read in runs of neighbours through windows of less than a third of the cells: training on
/// it ends where training in memory ends, within what the seed changes.
#[test]
fn a_sorted_file_trains_as_well_from_disk() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("s.h5ad");
    write(&path, &screen(8, 300, 30), true);
    let memory = load(&path, &in_memory()).expect("readable").dataset;
    let disk = load(&path, &on_disk(140_000)).expect("readable").dataset;
    let plan = disk.counts.disk().expect("on disk").shuffle_plan();
    let (cells, validation) = split(&memory);
    assert!(plan.chunk_cells >= 4 && 3 * plan.chunk_cells * plan.window_chunks < cells.len(), "{plan:?}");
    let reached = |data: &Dataset, seed| {
        let mut network = Network::<f32>::new(network(data).architecture, seed);
        let (team, objective, settings) = (Team::single(), objective(cells.len()), &settings(12, seed));
        let task = TrainingTask { data, train: &cells, validation: &validation, objective: &objective, settings };
        train(&team, &mut network, task, &mut Silent).expect("trained");
        let mut workspace = evaluation_workspace(&network, data);
        let mut inference = Inference { team: &team, network: &network, data, workspace: &mut workspace };
        let found = inference.elbo(&validation, &objective, 0).expect("readable");
        found.reconstruction + found.kl
    };
    let of = |data: &Dataset| (0..6).map(|seed| reached(data, seed)).collect::<Vec<f64>>();
    let (in_memory, on_disk) = (of(&memory), of(&disk));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let variance =
        |values: &[f64]| values.iter().map(|v| (v - mean(values)).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
    assert_ne!(in_memory, on_disk, "another order");
    // Two samples of six runs: 3.2 standard errors of the difference is the two-sided 1 % point of t with 10 degrees of
    // freedom.
    let error = ((variance(&in_memory) + variance(&on_disk)) / 6.0).sqrt();
    let difference = mean(&on_disk) - mean(&in_memory);
    assert!(difference.abs() < 3.2 * error, "{in_memory:?} {on_disk:?}: {difference} +- {error}");
}

/// Runs the program and expects it to succeed.
#[track_caller]
fn succeed(folder: &Path, args: &[&str]) -> String {
    let (code, _, err) = said(&run(folder, args));
    assert_eq!(code, 0, "{args:?}: {err}");
    err
}

/// A table without the columns whose names are given.
fn without(path: PathBuf, columns: &[&str]) -> Vec<Vec<String>> {
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().expect("a header");
    let kept: Vec<usize> = (0..header.len()).filter(|&i| !columns.contains(&header[i].as_str())).collect();
    lines.map(|line| kept.iter().map(|&i| line[i].clone()).collect()).collect()
}

/// The figures of a run, without times.
fn figures(path: PathBuf) -> serde_json::Value {
    let text = fs::read_to_string(path).expect("figures");
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    value.as_object_mut().expect("an object").remove("timing");
    if let Some(heldout) = value.get_mut("heldout").and_then(|heldout| heldout.as_object_mut()) {
        heldout.remove("seconds");
    }
    value
}

/// Where one window holds all cells the order is that of memory, and so is every byte: training, the held-out protocol,
/// tables, latents; and `evaluate` and `fit-shifts` on the folder.
#[test]
fn a_run_whose_cells_fit_the_buffer_is_the_run_in_memory() {
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    write(&at.join("s.h5ad"), &screen(5, 40, 20), false);
    let common = [
        "run",
        "--data",
        "s.h5ad",
        "--label-key",
        "gene",
        "--batch-key",
        "lane",
        "--holdout",
        "intervention_4",
        "--epochs",
        "3",
        "--hidden",
        "8",
        "--latents",
        "3",
        "--particles",
        "5",
        "--quiet",
    ];
    succeed(at, &[&common[..], &["--out", "memory"]].concat());
    succeed(at, &[&common[..], &["--out", "disk", "--stream", "--stream-buffer", "8"]].concat());
    let (memory, disk) = (at.join("memory"), at.join("disk"));
    assert_eq!(names(&memory), names(&disk));
    for name in [
        "model.safetensors",
        "model_heldout.safetensors",
        "latents.npz",
        "cells.csv",
        "masks.npz",
        "edges.csv",
        "targets.csv",
        "shifts_heldout.csv",
        "genes_per_latent.csv",
        "graph.dot",
        "data.json",
    ] {
        let (one, other) = (fs::read(memory.join(name)), fs::read(disk.join(name)));
        match (one, other) {
            (Ok(one), Ok(other)) => assert!(one == other, "{name}"),
            (one, other) => assert!(name == "masks.npz" && one.is_err() && other.is_err(), "{name}"),
        }
    }
    for name in ["history.csv", "history_retrain.csv"] {
        assert_eq!(without(memory.join(name), &["seconds"]), without(disk.join(name), &["seconds"]));
    }
    assert_eq!(figures(memory.join("metrics.json")), figures(disk.join("metrics.json")));
    let config = fs::read_to_string(disk.join("config.toml")).expect("settings");
    assert!(config.contains("stream = true") && config.contains("stream_buffer = 8"), "{config}");
    assert!(!fs::read_to_string(memory.join("config.toml")).expect("settings").contains("stream_buffer"));
    // results.h5ad holds the same screen, readable again, from disk too.
    let options = LoadOptions { label_key: Some("gene".to_owned()), ..LoadOptions::default() };
    let [one, other] = [&memory, &disk].map(|run| load(&run.join("results.h5ad"), &options).expect("readable").dataset);
    assert_eq!((one.counts, one.library), (other.counts, other.library));

    succeed(at, &["evaluate", "disk", "--quiet"]);
    succeed(at, &["evaluate", "memory", "--quiet"]);
    assert_eq!(figures(memory.join("evaluation.json")), figures(disk.join("evaluation.json")));
    succeed(at, &["fit-shifts", "disk", "--overwrite", "--quiet"]);
    assert!(
        fs::read(memory.join("model_heldout.safetensors")).expect("a model")
            == fs::read(disk.join("model_heldout.safetensors")).expect("a model")
    );
    succeed(at, &["verify", "disk/config.toml"]);
}

/// The same model judged from memory and from disk, a few cells at a time.
#[test]
fn figures_do_not_depend_on_the_buffer() {
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    write(&at.join("s.h5ad"), &screen(6, 4000, 60), false);
    let args = [
        "run",
        "--data",
        "s.h5ad",
        "--label-key",
        "gene",
        "--holdout",
        "intervention_1,intervention_4",
        "--epochs",
        "1",
        "--hidden",
        "8",
        "--latents",
        "3",
        "--particles",
        "2",
        "--quiet",
        "--no-h5ad",
        "--stream",
        "--stream-buffer",
        "4",
        "--out",
        "disk",
    ];
    succeed(at, &args);
    let data = load(&at.join("s.h5ad"), &on_disk(4 << 20)).expect("readable").dataset;
    assert!(data.counts.disk().expect("on disk").window_cells() * 2 < data.n_cells(), "several windows");
    succeed(at, &["evaluate", "disk", "--quiet"]);
    let from_disk = figures(at.join("disk/evaluation.json"));
    let settings = fs::read_to_string(at.join("disk/config.toml")).expect("settings");
    let settings = settings.replace("stream = true", "stream = false").replace("stream_buffer = 4", "");
    fs::write(at.join("disk/config.toml"), settings).expect("written");
    succeed(at, &["evaluate", "disk", "--quiet"]);
    assert_eq!(from_disk, figures(at.join("disk/evaluation.json")));
}

#[test]
fn what_cannot_be_streamed_is_refused_in_a_sentence() {
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats");
    let file = |name: &str| formats.join(name).display().to_string();
    for (args, parts) in [
        (vec!["--stream"], &["--stream", "--data"][..]),
        (vec!["--data", "x.h5ad", "--stream-buffer", "9"], &["--stream-buffer", "no effect"][..]),
        (vec!["--data", "x.h5ad", "--stream", "--stream-buffer", "0"], &["--stream-buffer"][..]),
    ] {
        let (code, _, err) = said(&run(at, &[&["run"], &args[..]].concat()));
        assert_eq!(code, 2, "{err}");
        assert!(parts.iter().all(|part| err.contains(part)), "{err}");
    }
    for (name, part) in
        [("anndata0_12_csc_i32.h5ad", "tocsr"), ("scipy_csr.npz", "h5ad"), ("mtx_v3", "h5ad"), ("tenx_v3.h5", "h5ad")]
    {
        let labels = file("labels.csv");
        let (code, _, err) =
            said(&run(at, &["run", "--data", &file(name), "--labels", &labels, "--stream", "--out", "r"]));
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(name) && err.contains(part) && err.contains("--stream"), "{err}");
        assert!(!at.join("r").exists(), "nothing is written");
    }
    // More is compressed together than the buffer holds.
    let error =
        load(&formats.join("anndata0_12_csr_lzf_u16.h5ad"), &LoadOptions { stream: Some(9), ..LoadOptions::default() });
    let message = error.expect_err("no room").to_string();
    assert!(message.contains("--stream-buffer"), "{message}");
}

#[test]
fn a_file_that_changes_during_training_ends_it_with_the_last_epoch_kept() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 4] = [
        (|path| fs::remove_file(path).expect("removed"), "No such file"),
        (
            |path| fs::OpenOptions::new().write(true).open(path).expect("opened").set_len(2000).expect("cut"),
            "has changed since the run began",
        ),
        (
            |path| {
                let file = fs::OpenOptions::new().append(true).open(path).expect("opened");
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("touched");
            },
            "has changed since the run began",
        ),
        (
            |path| {
                let other = path.with_extension("new");
                fs::copy(path, &other).expect("copied");
                fs::rename(&other, path).expect("put in its place");
            },
            "has changed since the run began",
        ),
    ];
    for (change, reason) in changes {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("s.h5ad");
        write(&path, &screen(4, 40, 20), true);
        let data = load(&path, &on_disk(SMALL)).expect("readable").dataset;
        let (cells, validation) = split(&data);
        let mut network = network(&data);
        let (mut epochs, mut expected) = (0, network.clone());
        let mut once = network.clone();
        let (objective, two, nine) = (&objective(cells.len()), &settings(2, 1), &settings(9, 1));
        let task = TrainingTask { data: &data, train: &cells, validation: &validation, objective, settings: two };
        train(&Team::single(), &mut once, task, &mut Silent).expect("two epochs");
        expected.parameters = once.parameters;
        let mut count = |_: &EpochRecord| {
            epochs += 1;
            if epochs == 2 {
                change(&path);
            }
        };
        let ran = train(&Team::single(), &mut network, TrainingTask { settings: nine, ..task }, &mut count);
        let error = ran.expect_err("the file is not what it was");
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert_eq!(error.exit_code(), 1);
        let message = error.to_string();
        assert!(message.contains(reason) && message.contains("s.h5ad"), "{message}");
        assert_eq!(epochs, 2);
        assert_eq!(network.parameters.values, expected.parameters.values, "the state after the second epoch");
    }
}

/// The file is cut while the program trains: it ends with a sentence and keeps its state, and goes on with the file put back
/// to the bytes of a run that was never disturbed.
#[test]
fn a_run_survives_a_truncated_file() {
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    let (path, copy) = (at.join("s.h5ad"), at.join("copy"));
    write(&path, &screen(6, 400, 30), true);
    fs::copy(&path, &copy).expect("copied");
    let args = [
        "run",
        "--data",
        "s.h5ad",
        "--label-key",
        "gene",
        "--epochs",
        "60",
        "--hidden",
        "8",
        "--latents",
        "3",
        "--quiet",
        "--particles",
        "2",
        "--no-h5ad",
        "--stream",
        "--stream-buffer",
        "1",
    ];
    succeed(at, &[&args[..], &["--out", "whole"]].concat());
    let args = [&args[..], &["--checkpoint-every", "0", "--out", "r"]].concat();
    let child = program(at, &args).stderr(std::process::Stdio::piped()).spawn().expect("the program starts");
    let start = Instant::now();
    let begun = || at.join("r").exists() && names(&at.join("r")).iter().any(|name| name.starts_with("checkpoint"));
    while !begun() {
        assert!(start.elapsed() < Duration::from_secs(300), "no checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    let length = fs::metadata(&path).expect("a length").len();
    fs::OpenOptions::new().write(true).open(&path).expect("opened").set_len(length / 2).expect("cut");
    let (code, _, err) = said(&child.wait_with_output().expect("it ends"));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("s.h5ad") && err.contains("changed since the run began"), "{err}");
    assert!(err.contains("svae-cpu run --resume r") && !err.contains("panicked"), "{err}");
    // As long as the file is not back, nothing can go on, and nothing is lost.
    let (code, _, err) = said(&run(at, &["run", "--resume", "r", "--no-h5ad", "--quiet"]));
    assert!(code == 2 && err.contains("s.h5ad"), "{code}: {err}");
    fs::rename(&copy, &path).expect("put back");
    succeed(at, &["run", "--resume", "r", "--no-h5ad", "--quiet"]);
    for name in ["model.safetensors", "latents.npz", "cells.csv"] {
        let [one, other] = ["r", "whole"].map(|run| fs::read(at.join(run).join(name)).expect(name));
        assert!(one == other, "{name}");
    }
}

/// What is kept of each cell stays small: as cells grow a hundredfold the peak of the whole program, whose buffer is full in
/// both runs, grows by less than 100 bytes for each further cell. Names, labels, size factors, positions in the file, split
/// and order take about 50; holding the latents alone, or one string per name, would take 60 more. Where edges are weighed, posterior
/// means of the training cells are held, and beside them those of the linear model: 72 bytes each for 20 latents and nine cells of ten.
#[test]
#[cfg(target_os = "linux")]
fn memory_hardly_grows_with_the_cells() {
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    let peak = |n: usize, mask: &str| {
        let genes = 20;
        let count = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 29).saturating_sub(4);
        let mut table: Vec<u32> = (0..n * genes).map(count).collect();
        table.iter_mut().step_by(genes).for_each(|x| *x += 1);
        let file = AnnDataWriter::create(&at.join("s.h5ad")).expect("a file").uncompressed();
        file.counts("X", &Counts::from_dense(genes, &table).into()).expect("counts");
        let names = |what: &str, n: usize| (0..n).map(|i| format!("{what}_{i}")).collect::<Vec<_>>();
        let codes = (0..n).map(|i| (i * 10 / n) as i64).collect();
        let columns = [("gene".to_owned(), FrameColumn::Categorical(names("intervention", 10), codes))];
        file.frame("obs", &names("cell", n), &columns).expect("obs");
        file.frame("var", &names("gene", genes), &[]).expect("var");
        file.finish().expect("written");
        let args = ["run", "--data", "s.h5ad", "--label-key", "gene", "--epochs", "1", "--hidden", "8", "--no-h5ad"];
        let more = ["--threads", "1", "--stream", "--stream-buffer", "1", "--quiet", "--overwrite", "--out", "r"];
        succeed(at, &[&args[..], &["--mask", mask], &more].concat());
        let text = fs::read_to_string(at.join("r/metrics.json")).expect("figures");
        let figures: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        figures["timing"]["peak_rss_bytes"].as_f64().expect("known on this system")
    };
    let (few, many) = (20_000, 200_000);
    for (mask, most) in [("hard", 100.0), ("integrated", 260.0)] {
        let per_cell = (peak(many, mask) - peak(few, mask)) / (many - few) as f64;
        assert!(per_cell < most, "{mask}: {per_cell} bytes for each further cell");
    }
}
