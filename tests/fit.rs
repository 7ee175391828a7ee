//! The library's facade: the weights of the command line, models that are saved and opened, mistakes.

use std::path::Path;

use svae_cpu::data::counts::in_memory::Counts;
use svae_cpu::data::dataset::{Dataset, InterventionRows};
use svae_cpu::data::loading::load::{LoadOptions, load};
use svae_cpu::training::history::EpochRecord;
use svae_cpu::{Error, Fitted, Observer, RatesRequest, SampleRequest, Settings, fit};

use crate::support::{names, run, said};

const SETTINGS: &str = "latents = 4\nhidden = 24\nepochs = 6\nwarmup_epochs = 2\nbatch_size = 32\nthreads = 2\n";

/// A simulated screen, written by the program into `folder` and read from there.
fn screen(folder: &Path) -> Dataset {
    let simulate =
        ["simulate", "--sim-interventions", "6", "--sim-cells", "30", "--sim-genes", "40", "--sim-latents", "3"];
    let (code, _, complaint) = said(&run(folder, &[&simulate[..], &["--out", "screen.npz"]].concat()));
    assert_eq!(code, 0, "{complaint}");
    load(&folder.join("screen.npz"), &LoadOptions::default()).expect("a screen").dataset
}

fn settings(more: &str) -> Settings {
    format!("{SETTINGS}{more}").parse().expect("settings")
}

fn bytes(folder: &Path, file: &str) -> Vec<u8> {
    std::fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn the_library_writes_what_the_command_line_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = screen(folder.path());
    for (i, more) in [
        "",
        "precision = \"f64\"\ndense_share = 0.3\n",
        "mask = \"hard\"\nalpha = 3\n",
        "method = \"ivae\"\nprecision = \"f64\"\n",
        "starts = 2\nlikelihood = \"poisson\"\n",
    ]
    .iter()
    .enumerate()
    {
        let (config, by_program, here) =
            (format!("{i}.toml"), format!("program_{i}"), folder.path().join(format!("here_{i}")));
        std::fs::write(folder.path().join(&config), format!("{SETTINGS}{more}")).expect("written");
        let arguments = ["run", &config, "--data", "screen.npz", "--out", &by_program, "--no-h5ad", "--quiet"];
        let (code, _, complaint) = said(&run(folder.path(), &arguments));
        assert_eq!(code, 0, "{complaint}");
        fit(&data, &settings(more), &mut |_: &EpochRecord| {}).expect("a model").save(&here).expect("saved");
        let by_program = folder.path().join(by_program);
        for file in names(&here) {
            match file.as_str() {
                // Paths, seconds.
                "config.toml" | ".lock" => {}
                "history.csv" => {
                    let without_seconds = |folder: &Path| {
                        let text = String::from_utf8(bytes(folder, &file)).expect("UTF-8");
                        text.lines()
                            .map(|line| line.rsplit_once(',').expect("columns").0.to_owned())
                            .collect::<Vec<_>>()
                    };
                    assert_eq!(without_seconds(&here), without_seconds(&by_program), "{i}");
                }
                _ => assert!(bytes(&here, &file) == bytes(&by_program, &file), "{i}: {file} differs"),
            }
        }
        assert!(names(&here).len() > 7, "{:?}", names(&here));
    }
}

#[test]
fn an_opened_model_says_what_the_fitted_one_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = screen(folder.path());
    let fitted = fit(&data, &settings(""), &mut |_: &EpochRecord| {}).expect("a model");
    let path = folder.path().join("saved");
    fitted.save(&path).expect("saved");
    let opened = Fitted::open(&path).expect("a model");
    let certainty = fitted.certainty().expect("masks are integrated out");
    assert_eq!((certainty.edges.len(), certainty.found().count()), (6 * 4, fitted.targets().len()));
    assert!(opened.certainty().is_none() && opened.targets().is_empty());

    let latents = fitted.latents(&data).expect("latents");
    assert_eq!((latents.len(), opened.latents(&data).expect("latents")), (180 * 4, latents.clone()));
    assert_eq!((opened.masks(), opened.shifts()), (fitted.masks(), fitted.shifts()));
    assert_eq!((fitted.masks().map(<[f64]>::len), fitted.shifts().map(<[f64]>::len)), (Some(24), Some(24)));
    let genes = RatesRequest { genes: Some(vec![data.gene_names[3].clone()]), samples: 3, ..RatesRequest::default() };
    let rates = fitted.rates(&data, &genes).expect("rates");
    assert_eq!((rates.len(), opened.rates(&data, &genes).expect("rates")), (180, rates.clone()));
    let two =
        SampleRequest { interventions: data.intervention_names[..2].to_vec(), cells: 7, ..SampleRequest::default() };
    let sampled = fitted.sample(&two).expect("cells");
    let again = opened.sample(&two).expect("cells");
    assert_eq!((&again.data.counts, &again.latents), (&sampled.data.counts, &sampled.latents));
    assert_eq!(sampled.data.intervention_names, [data.intervention_names[..2].join("+")]);

    // Genes in another order, one of them missing, one unknown: matched by name.
    let mut dense = vec![0; 180 * 39];
    for (n, row) in dense.chunks_exact_mut(39).enumerate() {
        data.counts.row(n).for_each(|gene, count| {
            if gene > 0 {
                row[39 - gene] = count
            }
        });
    }
    let gene_names = data.gene_names[1..].iter().rev().cloned().collect();
    let mut other = Dataset { counts: Counts::from_dense(39, &dense).into(), gene_names, ..data.clone() };
    other.gene_names[0] = "unknown".to_owned();
    assert_eq!(fitted.latents(&other).expect("latents").len(), latents.len());
    other.gene_names.iter_mut().for_each(|name| name.push('?'));
    assert!(matches!(fitted.latents(&other), Err(Error::Input(_))));
}

/// Counts what it hears.
#[derive(Default)]
struct Listener {
    stages: Vec<(String, usize, usize)>,
    epochs: usize,
    ended: usize,
}

impl Observer for Listener {
    fn stage(&mut self, name: &str, epochs: usize, cells: usize) {
        self.stages.push((name.to_owned(), epochs, cells));
    }

    fn epoch(&mut self, _: &EpochRecord) {
        self.epochs += 1;
    }

    fn stage_ended(&mut self) {
        self.ended += 1;
    }
}

#[test]
fn an_observer_hears_of_stages_and_epochs() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = screen(folder.path());
    let mut listener = Listener::default();
    let fitted = fit(&data, &settings(""), &mut listener).expect("a model");
    assert_eq!(listener.stages, [("training".to_owned(), 6, 162)]);
    assert_eq!((listener.epochs, listener.ended, fitted.history().len()), (6, 1, 6));
}

/// Checks what a fitted model says of its edges, in whatever screen: figures of probability and order, and as many as there are.
fn check_edges(fitted: &Fitted, n: usize, what: &str) {
    let certainty = fitted.certainty().expect("masks are integrated out");
    assert_eq!(certainty.edges.len(), n, "{what}");
    for edge in &certainty.edges {
        let shares = [edge.probability, edge.lfsr, edge.q_value];
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{what}: {edge:?}");
        assert!(edge.shift_low <= edge.shift && edge.shift <= edge.shift_high, "{what}: {edge:?}");
    }
}

#[test]
fn screens_of_every_kind_are_fitted_by_default() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = screen(folder.path());
    let silent = &mut |_: &EpochRecord| {};
    // The screen under other interventions, one row a cell.
    let under = |n_interventions: usize, row: &dyn Fn(u32) -> Vec<(u32, f32)>| {
        let mut interventions = InterventionRows::default();
        (0..data.n_cells() as u32).for_each(|n| interventions.push(&row(n)));
        let intervention_names = (0..n_interventions).map(|a| format!("i{a}")).collect();
        Dataset { interventions, intervention_names, truth: None, ..data.clone() }
    };
    let combined = under(6, &|n| match n % 5 {
        0 => vec![],
        1 => vec![(0, 1.0), (1, 1.0)],
        2 => vec![(1, 0.5), (2, 2.0), (3, -1.0)],
        3 => vec![(4, 0.25)],
        _ => vec![(n % 6, 1.0)],
    });
    check_edges(&fit(&combined, &settings(""), silent).expect("a model"), 6 * 4, "combinations and doses");
    let one = under(1, &|n| if n % 2 == 0 { vec![(0, 1.0)] } else { vec![] });
    check_edges(&fit(&one, &settings(""), silent).expect("a model"), 4, "one intervention");
    let alone = under(1, &|_| vec![(0, 1.0)]);
    check_edges(&fit(&alone, &settings(""), silent).expect("a model"), 4, "one intervention without controls");
    // Of 180 cells 18 validate: nothing is said of their interventions, which no cell trains.
    let single = under(180, &|n| vec![(n, 1.0)]);
    check_edges(&fit(&single, &settings(""), silent).expect("a model"), 162 * 4, "interventions of one cell");
    let one_latent = fit(&data, &SETTINGS.replace("latents = 4", "latents = 1").parse().expect("settings"), silent)
        .expect("a model");
    check_edges(&one_latent, 6, "one latent");
    for more in
        ["latent_distribution = \"logistic-normal\"\n", "posterior_covariance = \"full\"\n", "keep = \"last\"\n"]
    {
        check_edges(&fit(&data, &settings(more), silent).expect("a model"), 6 * 4, more);
    }
}

#[test]
fn mistakes_are_sentences() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = screen(folder.path());
    let text = |error: Error| error.to_string();
    let unknown: Result<Settings, _> = "latent = 4".parse();
    assert!(text(unknown.unwrap_err()).contains("did you mean `latents`?"));
    let silent = &mut |_: &EpochRecord| {};
    let held_out = settings("holdout = [\"nobody\"]\n");
    assert!(text(fit(&data, &held_out, silent).unwrap_err()).contains("no cell has the label \"nobody\""));

    let fitted =
        fit(&data, &settings(&format!("holdout = [\"{}\"]\n", data.intervention_names[5])), silent).expect("a model");
    let of = |name: &str| SampleRequest { interventions: vec![name.to_owned()], cells: 2, ..SampleRequest::default() };
    assert!(text(fitted.sample(&of("intervention_")).unwrap_err()).contains("the model knows no intervention"));
    assert!(
        text(fitted.sample(&of(&data.intervention_names[5])).unwrap_err()).contains("was held out of the training")
    );
    let gene = RatesRequest { genes: Some(vec!["nothing".to_owned()]), ..RatesRequest::default() };
    assert!(text(fitted.rates(&data, &gene).unwrap_err()).contains("the model knows no gene"));

    let path = folder.path().join("saved");
    assert!(Fitted::open(&path).is_err());
    fitted.save(&path).expect("saved");
    assert!(text(fitted.save(&path).unwrap_err()).contains("the folder already holds"));
    assert!(
        text(Fitted::open(&path).expect("a model").save(folder.path().join("b")).unwrap_err())
            .contains("has a folder already")
    );
}
