//! Training from disk beside training in memory: speed on the same cells, and most memory as the cells of a screen grow.
//!
//! `cargo bench --bench stream [-- speed CELLS GENES BUFFER_MB | memory CELLS]`
//!
//! Without arguments: speed of 60,000 cells x 1,187 genes through a buffer of 32 MB, and memory from 4,000 to 400,000 cells x 400 genes.
//!
//! Speed: epochs of both take turns, so that a busy machine slows both alike, and the medians are compared. The screen is
//! sorted by intervention. Memory: the program itself runs one epoch on files of
//! growing size in processes of their own, with a buffer of 8 MB.

use std::path::Path;
use std::process::Command;

use svae_cpu::data::counts::ScreenCounts;
use svae_cpu::data::counts::in_memory::CountsBuilder;
use svae_cpu::data::dataset::Dataset;
use svae_cpu::data::formats::anndata_writer::{AnnDataWriter, FrameColumn};
use svae_cpu::data::loading::load::{LoadOptions, load};
use svae_cpu::model::architecture::Architecture;
use svae_cpu::model::network::Network;
use svae_cpu::model::objective::Objective;
use svae_cpu::model::prior::sparsity::Penalty;
use svae_cpu::parallel::team::Team;
use svae_cpu::system::console::Silent;
use svae_cpu::training::trainer::{TrainingSettings, TrainingTask, train};
use svae_cpu::words::grouped;

/// Interventions of the screens; the cells of each lie together.
const INTERVENTIONS: usize = 100;
/// Times that each way of reading takes its turn.
const ROUNDS: u64 = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |text: &str| text.parse().expect("a number");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            speed(60_000, 1_187, 32);
            memory(4_000);
        }
        ["speed", cells, genes, buffer] => speed(number(cells), number(genes), number(buffer)),
        ["memory", cells] => memory(number(cells)),
        _ => panic!("usage: cargo bench --bench stream [-- speed CELLS GENES BUFFER_MB | memory CELLS]"),
    }
}

/// Counts of which about one in six is not zero, with gene means that differ.
fn counts(cells: usize, genes: usize) -> ScreenCounts {
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    // Out of 256, how often a gene is seen.
    let often: Vec<u32> = (0..genes).map(|_| next() % 16 * (next() % 16) * 3 / 4).collect();
    let mut builder = CountsBuilder::new(genes);
    for _ in 0..cells {
        for (gene, often) in often.iter().enumerate() {
            let draw = next();
            // No cell without counts.
            if draw % 256 < *often || gene == 0 {
                builder.push(gene, 1 + (draw >> 8 & draw >> 12 & 15));
            }
        }
        builder.end_cell();
    }
    builder.finish().into()
}

fn write(path: &Path, counts: &ScreenCounts, compressed: bool) {
    let file = AnnDataWriter::create(path).expect("a file");
    let file = if compressed { file } else { file.uncompressed() };
    let n = counts.n_cells();
    file.counts("X", counts).expect("counts");
    let names = |n: usize, what: &str| (0..n).map(|i| format!("{what}_{i}")).collect::<Vec<String>>();
    let codes = (0..n).map(|i| (i * INTERVENTIONS / n) as i64).collect();
    let labels = FrameColumn::Categorical(names(INTERVENTIONS, "intervention"), codes);
    file.frame("obs", &names(n, "cell"), &[("label".to_owned(), labels)]).expect("obs");
    file.frame("var", &names(counts.n_genes(), "gene"), &[]).expect("var");
    file.finish().expect("written");
}

/// Seconds of one epoch of training.
fn epoch(team: &Team, data: &Dataset, cells: &[usize], seed: u64) -> f64 {
    let architecture = Architecture::new(data.n_genes(), data.n_interventions(), 15);
    let mut network = Network::<f32>::new(architecture, 1);
    let objective = Objective {
        penalty: Penalty::SpikeAndSlab { alpha: 100.0 },
        beta: 1.0,
        scale_to_all_cells: true,
        n_cells: cells.len(),
    };
    let settings = TrainingSettings { warmup_epochs: 50, seed, ..TrainingSettings::plain(1, 128) };
    let task = TrainingTask { data, train: cells, validation: &[], objective: &objective, settings: &settings };
    train(team, &mut network, task, &mut Silent).expect("readable").seconds
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn speed(cells: usize, genes: usize, buffer: usize) {
    let folder = tempfile::tempdir().expect("a folder for the data");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let counts = counts(cells, genes);
    let buffer = buffer << 20;
    println!(
        "{} cells x {} genes, {:.0} % non-zero, {:.0} MB of counts in memory, buffer {:.0} MB, {threads} threads",
        grouped(cells as u64),
        grouped(genes as u64),
        100.0 * counts.n_nonzero() as f64 / (cells * genes) as f64,
        counts.bytes() as f64 / 1e6,
        buffer as f64 / 1e6
    );
    println!(
        "stored        file, MB  chunk x window  first pass, cells/s  reading, cells/s  memory, cells/s  disk, cells/s  ratio"
    );
    for compressed in [false, true] {
        let path = folder.path().join("screen.h5ad");
        write(&path, &counts, compressed);
        let options = LoadOptions { label_key: Some("label".to_owned()), ..LoadOptions::default() };
        let memory = load(&path, &options).expect("readable").dataset;
        let start = std::time::Instant::now();
        let disk = load(&path, &LoadOptions { stream: Some(buffer), ..options }).expect("readable").dataset;
        let first_pass = cells as f64 / start.elapsed().as_secs_f64();
        let all: Vec<usize> = (0..cells).collect();
        let start = std::time::Instant::now();
        disk.counts.visit(&all, |_, _| ()).expect("readable");
        let reading = cells as f64 / start.elapsed().as_secs_f64();
        let (mut in_memory, mut on_disk) = (Vec::new(), Vec::new());
        Team::with(threads, |team| {
            for round in 0..ROUNDS {
                in_memory.push(epoch(team, &memory, &all, round));
                on_disk.push(epoch(team, &disk, &all, round));
            }
        });
        let [in_memory, on_disk] = [in_memory, on_disk].map(|seconds| cells as f64 / median(seconds));
        let plan = disk.counts.disk().expect("on disk").shuffle_plan();
        println!(
            "{:<12} {:>9.0} {:>15} {:>20} {:>17} {:>16} {:>14} {:>6.2}",
            if compressed { "gzip" } else { "uncompressed" },
            std::fs::metadata(&path).expect("a file").len() as f64 / 1e6,
            format!("{} x {}", plan.chunk_cells, plan.window_chunks),
            grouped(first_pass as u64),
            grouped(reading as u64),
            grouped(in_memory as u64),
            grouped(on_disk as u64),
            on_disk / in_memory
        );
    }
}

fn memory(fewest: usize) {
    let folder = tempfile::tempdir().expect("a folder for the data");
    println!("    cells  counts, MB  memory, peak MB  disk, peak MB  disk, bytes per further cell");
    let mut before: Option<(usize, f64)> = None;
    for cells in [fewest, 10 * fewest, 100 * fewest] {
        let path = folder.path().join("screen.h5ad");
        let counts = counts(cells, 400);
        write(&path, &counts, false);
        let peak = |more: &[&str]| {
            let out = folder.path().join("run");
            let output = Command::new(env!("CARGO_BIN_EXE_svae-cpu"))
                .args(["run", "--data"])
                .arg(&path)
                .args(["--label-key", "label", "--epochs", "1", "--no-heldout", "--no-h5ad", "--quiet", "--overwrite"])
                .arg("--out")
                .arg(&out)
                .args(more)
                .output()
                .expect("the program starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = std::fs::read_to_string(out.join("metrics.json")).expect("figures");
            let figures: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            figures["timing"]["peak_rss_bytes"].as_f64().expect("known on this system")
        };
        let in_memory = peak(&[]);
        let on_disk = peak(&["--stream", "--stream-buffer", "8"]);
        let per_cell =
            before.map_or(String::new(), |(fewer, bytes)| format!("{:.0}", (on_disk - bytes) / (cells - fewer) as f64));
        println!(
            "{:>9} {:>11.0} {:>16.0} {:>14.0} {per_cell:>29}",
            grouped(cells as u64),
            counts.bytes() as f64 / 1e6,
            in_memory / 1e6,
            on_disk / 1e6,
        );
        before = Some((cells, on_disk));
    }
}
