//! Reads real screens, a simulation of the reference program and golden vectors that lie outside the project, if they
//! are there. Expected values were computed with anndata and NumPy.

use std::path::PathBuf;

use svae_cpu::data::dataset::Dataset;
use svae_cpu::data::formats::npz::Npz;
use svae_cpu::data::loading::inspect::inspect;
use svae_cpu::data::loading::load::{LoadOptions, load};
use svae_cpu::data::simulate::{Simulation, simulate};

fn shared(file: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SVAE_SHARED_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")), PathBuf::from);
    let path = folder.join(file);
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

fn level_counts(dataset: &Dataset) -> Vec<(&str, usize)> {
    let mut counts: Vec<(&str, usize)> = dataset.intervention_names.iter().map(|name| (name.as_str(), 0)).collect();
    for n in 0..dataset.n_cells() {
        counts[dataset.interventions.single(n).unwrap()].1 += 1;
    }
    counts
}

fn total(dataset: &Dataset) -> u64 {
    (0..dataset.n_cells()).map(|n| dataset.counts.row(n).sum()).sum()
}

fn largest(dataset: &Dataset) -> u32 {
    let mut largest = 0;
    (0..dataset.n_cells()).for_each(|n| dataset.counts.row(n).for_each(|_, x| largest = largest.max(x)));
    largest
}

#[test]
fn norman19() {
    let Some(path) = shared("data/norman19_k562_counts.h5ad") else { return };
    let options = LoadOptions {
        batch_key: Some("batch".into()),
        continuous_covariates: vec!["ngenes".into()],
        size_factor_key: Some("ncounts".into()),
        ..LoadOptions::default()
    };
    let loaded = load(&path, &options).unwrap();
    assert_eq!(loaded.notes, ["interventions are read from obs[\"perturbation\"]"]);
    let dataset = loaded.dataset;
    assert_eq!((dataset.n_cells(), dataset.n_genes(), dataset.n_interventions()), (3375, 500, 34));
    assert_eq!((total(&dataset), dataset.counts.n_nonzero(), largest(&dataset)), (510_299, 50_462, 755));
    assert_eq!([0, 1, 2, 3373, 3374].map(|n| dataset.counts.row(n).sum()), [206, 95, 228, 29, 18]);
    assert_eq!((dataset.gene_names[0].as_str(), dataset.gene_names[499].as_str()), ("PERM1", "LINC00316"));
    assert_eq!((&dataset.cell_names[0], &dataset.cell_names[3374]), ("TGGTTAGCACATCCGG-3", "TCAATCTGTACCGTAT-8"));
    let levels = level_counts(&dataset);
    assert_eq!(
        (levels[0], levels[4], levels[23], levels[33]),
        (("BPGM+SAMD1", 100), ("FOXL2+HOXB9", 80), ("PLK4", 95), ("control", 100))
    );
    assert_eq!(levels.iter().map(|(_, n)| n).sum::<usize>(), 3375);
    let batch = &dataset.covariates.categorical[0];
    let sizes: Vec<usize> = (0..8).map(|level| batch.codes.iter().filter(|&&code| code == level).count()).collect();
    assert_eq!((batch.levels[0].as_str(), sizes), ("norman19_gem1", vec![462, 411, 402, 402, 419, 416, 436, 427]));
    assert_eq!((dataset.library[0], dataset.library.iter().sum::<f64>()), (19_854.0, 47_781_661.0));
    assert_eq!(dataset.covariates.continuous[0].values.len(), 3375);
    assert_eq!(dataset.truth, None);
}

#[test]
fn papalexi2021() {
    let Some(path) = shared("data/papalexi2021_counts.h5ad") else { return };
    let dataset = load(&path, &LoadOptions::default()).unwrap().dataset;
    assert_eq!((dataset.n_cells(), dataset.n_genes(), dataset.n_interventions()), (16_192, 299, 26));
    assert_eq!((total(&dataset), dataset.counts.n_nonzero(), largest(&dataset)), (3_387_496, 1_092_512, 278));
    assert_eq!([0, 1, 2, 16_190, 16_191].map(|n| dataset.counts.row(n).sum()), [212, 173, 249, 175, 238]);
    let levels = level_counts(&dataset);
    assert_eq!((levels[0], levels[18], levels[25]), (("ATF2", 891), ("SPI1", 33), ("non-targeting", 1923)));
    assert_eq!(dataset.library[0], 212.0);
}

#[test]
fn schraivogel2020() {
    let Some(path) = shared("data/schraivogel2020_counts.h5ad") else { return };
    let dataset = load(&path, &LoadOptions::default()).unwrap().dataset;
    assert_eq!((dataset.n_cells(), dataset.n_genes(), dataset.n_interventions()), (19_098, 72, 15));
    assert_eq!((total(&dataset), dataset.counts.n_nonzero(), largest(&dataset)), (18_012_695, 863_621, 8507));
    assert_eq!([0, 1, 2, 19_096, 19_097].map(|n| dataset.counts.row(n).sum()), [317, 506, 4019, 596, 1058]);
    let levels = level_counts(&dataset);
    assert_eq!((levels[5], levels[13], levels[14]), (("HS2", 961), ("ZFPM2", 302), ("non-targeting", 7793)));
}

/// Files of many tools: labels stand in for interventions where the files hold none.
#[test]
fn formats_of_many_tools() {
    let Some(folder) = shared("data/formats") else { return };
    let read = |name: &str, label: &str, layer: Option<&str>| {
        let options =
            LoadOptions { label_key: Some(label.into()), layer: layer.map(str::to_string), ..LoadOptions::default() };
        load(&folder.join(name), &options).map(|loaded| loaded.dataset)
    };
    for layer in ["counts", "csc_counts", "dense_counts"] {
        let dataset = read("anndataR_example_66b9c76.h5ad", "leiden", Some(layer)).unwrap();
        assert_eq!((dataset.n_cells(), dataset.n_genes(), total(&dataset)), (50, 100, 9805), "{layer}");
        assert_eq!(dataset.counts.row(3).sum(), 201, "{layer}");
        assert_eq!(level_counts(&dataset).iter().map(|(_, n)| *n).collect::<Vec<_>>(), [13, 11, 8, 8, 5, 5]);
    }
    for (name, sum, row, raw, first) in
        [("anndata_v0.7.0_adata.h5ad", 285, 15, 627, "S"), ("anndata_v0.7.8_adata.h5ad", 302, 14, 568, "h")]
    {
        let dataset = read(name, "obs_cat", None).unwrap();
        assert_eq!((total(&dataset), dataset.counts.row(4).sum()), (sum, row), "{name}");
        assert_eq!(dataset.intervention_names[dataset.interventions.single(0).unwrap()], first, "{name}");
        let dataset = read(name, "obs_cat", Some("raw")).unwrap();
        assert_eq!((dataset.n_genes(), total(&dataset)), (40, raw), "{name}");
    }
    for name in ["anndata_v0.5.0_adata.h5ad", "scanpy_pbmc68k_reduced_d53464f.h5ad"] {
        let message = read(name, "bulk_labels", None).unwrap_err().to_string();
        assert!(message.contains("X, cell 0") && message.contains("raw counts"), "{message}");
    }
    for (name, n_nonzero) in
        [("tenx_v3_filtered_feature_bc_matrix.h5", 23_866.0), ("mtx_3.0.0_filtered_feature_bc_matrix", 23_866.0)]
    {
        let found = inspect(&folder.join(name), None, None, None).unwrap();
        assert_eq!((found.n_cells, found.n_genes), (1107, 507), "{name}");
        assert!((found.matrices[0].density * 1107.0 * 507.0 - n_nonzero).abs() < 1e-6, "{name}");
    }
    let found = inspect(&folder.join("tenx_v1.2.0_multiple_genomes.h5"), None, Some("another_genome"), None).unwrap();
    assert_eq!((found.n_cells, found.n_genes), (12, 343));
    assert!((found.matrices[0].density * 12.0 * 343.0 - 12.0).abs() < 1e-9);
}

#[test]
fn reference_simulation_with_its_truth() {
    let Some(path) = shared("data/sim_seed0.h5ad") else { return };
    let dataset = load(&path, &LoadOptions::default()).unwrap().dataset;
    assert_eq!((dataset.n_cells(), dataset.n_genes(), dataset.n_interventions()), (25_000, 100, 100));
    assert_eq!((total(&dataset), dataset.counts.n_nonzero(), largest(&dataset)), (100_007_602, 2_495_110, 3990));
    assert_eq!([0, 1, 2, 24_998, 24_999].map(|n| dataset.counts.row(n).sum()), [3331, 3430, 3010, 3419, 4899]);
    assert_eq!([0, 1, 2, 3].map(|n| dataset.interventions.single(n).unwrap()), [9, 18, 59, 98]);
    assert!(level_counts(&dataset).iter().all(|&(_, n)| n == 250));
    let truth = dataset.truth.unwrap();
    assert_eq!(truth.n_latents, 15);
    assert!((truth.latents.iter().sum::<f64>() - 9_634.269_050_292_161).abs() < 1e-6);
    assert!((truth.prior_means.iter().sum::<f64>() - 38.219_917_441_365_38).abs() < 1e-9);
    assert!((truth.latents[0] - 0.530_530_63).abs() < 1e-7 && (truth.prior_means[5] - 4.062_178_81).abs() < 1e-7);
}

/// Mean and standard deviation of log1p counts, share of zeros, and library quantiles 5, 25, 50, 75, 95 %.
fn summary(dataset: &Dataset) -> ([f64; 3], [f64; 5]) {
    let n = (dataset.n_cells() * dataset.n_genes()) as f64;
    let (mut sum, mut squares) = (0.0, 0.0);
    for cell in 0..dataset.n_cells() {
        dataset.counts.row(cell).for_each(|_, x| {
            let log = (x as f64).ln_1p();
            sum += log;
            squares += log * log;
        });
    }
    let mut library = dataset.library.clone();
    library.sort_by(f64::total_cmp);
    let quantiles = [0.05, 0.25, 0.5, 0.75, 0.95].map(|q| library[(q * library.len() as f64) as usize]);
    let zeros = 1.0 - dataset.counts.n_nonzero() as f64 / n;
    ([sum / n, (squares / n - (sum / n).powi(2)).sqrt(), zeros], quantiles)
}

/// The reference's simulation must look like one more seed of ours: within the spread of ours, not within a chosen
/// tolerance. With 12 seeds, 5 standard deviations are exceeded by chance about once in 2,000 comparisons (t, 11 degrees
/// of freedom).
#[test]
fn our_simulations_look_like_the_reference() {
    let Some(path) = shared("data/sim_seed0.h5ad") else { return };
    let (reference, reference_library) = summary(&load(&path, &LoadOptions::default()).unwrap().dataset);
    let ours: Vec<_> = (0..12)
        .map(|seed| {
            let settings = Simulation { cells_per_intervention: 250, seed, ..Simulation::default() };
            summary(&simulate(&settings).unwrap().dataset)
        })
        .collect();
    let compare = |what: &str, reference: f64, ours: Vec<f64>| {
        let n = ours.len() as f64;
        let mean = ours.iter().sum::<f64>() / n;
        let sd = (ours.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        println!("{what}: reference {reference:.4}, ours {mean:.4} +- {sd:.4}");
        assert!((reference - mean).abs() < 5.0 * sd, "{what}: reference {reference}, ours {mean} +- {sd}");
        // A spread so wide that anything passes would be no test.
        assert!(sd < 0.3 * mean.abs().max(0.02), "{what}: spread {sd} around {mean}");
    };
    for (i, what) in ["mean log1p", "sd log1p", "zeros"].into_iter().enumerate() {
        compare(what, reference[i], ours.iter().map(|(s, _)| s[i]).collect());
    }
    for (i, what) in
        ["library 5 %", "library 25 %", "library 50 %", "library 75 %", "library 95 %"].into_iter().enumerate()
    {
        compare(what, reference_library[i], ours.iter().map(|(_, q)| q[i]).collect());
    }
}

#[test]
fn golden_vectors_open() {
    let Some(path) = shared("golden/spike_slab_two_layers_dropout.npz") else { return };
    let npz = Npz::open(path).unwrap();
    let config = npz.string("config").unwrap();
    assert!(config.starts_with('{') && config.ends_with('}'), "{config}");
    let (shape, weight) = npz.array_f64("grad/z_encoder.encoder.fc_layers.Layer 0.0.weight").unwrap();
    assert_eq!((shape, weight.len()), (vec![16, 12], 192));
    assert_eq!(npz.array_f64("in/cat_covs").unwrap().0, [32, 0]);
    assert_eq!(npz.array_f64("in/dropout").unwrap().0, [2, 32, 16]);
    let (shape, labels) = npz.array_i64("in/label").unwrap();
    assert!(shape == [32] && labels.iter().all(|a| (0..5).contains(a)));
    // Every array of every kind can be read whole.
    for name in npz.names() {
        match name.as_str() {
            "config" => assert!(npz.array_f64(name).is_err()),
            _ => assert_eq!(
                npz.array_f64(name).unwrap().0.iter().product::<usize>(),
                npz.array_f64(name).unwrap().1.len()
            ),
        }
    }
}
