//! Sparse-mechanism-shift variational auto-encoder (sVAE+) for perturbation screens, on CPUs, with hand-derived gradients.
//!
//! # In one call
//!
//! [`fit()`] trains a model on a screen in memory, and [`Fitted`] is what comes of it: latents, masks, shifts, expression without
//! noise, cells under interventions. Settings are the keys of a configuration file (`docs/settings.md`); an [`Observer`] hears of
//! every epoch. No folder, no message, no signal handler is involved.
//!
//! ```
//! use svae_cpu::data::simulate::{Simulation, simulate};
//! use svae_cpu::training::history::EpochRecord;
//! use svae_cpu::{Fitted, SampleRequest, Settings, fit};
//!
//! let simulation = Simulation {
//!     n_interventions: 8,
//!     cells_per_intervention: 40,
//!     n_genes: 30,
//!     n_latents: 4,
//!     ..Simulation::default()
//! };
//! let screen = simulate(&simulation)?.dataset;
//!
//! let settings: Settings = "latents = 4\nhidden = 32\nepochs = 15".parse()?;
//! let mut elbo = Vec::new();
//! let fitted = fit(&screen, &settings, &mut |epoch: &EpochRecord| elbo.push(epoch.validation_elbo))?;
//! assert!(elbo.last() < elbo.first());
//!
//! let latents = fitted.latents(&screen)?; // cells x latents
//! assert_eq!(latents.len(), 8 * 40 * 4);
//! let shifts = fitted.shifts().expect("sVAE+ has shifts"); // interventions x latents
//! assert_eq!(shifts.len(), 8 * 4);
//!
//! // Cells that received two interventions at once, a combination that the screen does not have.
//! let interventions = screen.intervention_names[..2].to_vec();
//! let both = fitted.sample(&SampleRequest { interventions, cells: 10, ..SampleRequest::default() })?;
//! assert_eq!(both.data.n_cells(), 10);
//!
//! // A results folder, as `svae-cpu run` writes it and `svae-cpu embed` takes it.
//! let folder = tempfile::tempdir().expect("a folder");
//! fitted.save(folder.path().join("first"))?;
//! assert_eq!(Fitted::open(folder.path().join("first"))?.latents(&screen)?, latents);
//! # Ok::<(), svae_cpu::Error>(())
//! ```
//!
//! # The house
//!
//! A module uses itself and those below it (`tests/architecture.rs`); `docs/architecture.md` is the map. From top to bottom:
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | arguments of each subcommand |
//! | [`commands`] | what each subcommand does; [`commands::run`] is the run on one page |
//! | [`mod@fit`] | the calls above |
//! | [`results`] | the files of a results folder, the report |
//! | [`display`] | progress and tables on a terminal |
//! | [`evaluation`] | scores, the held-out protocol, what a model says about a screen |
//! | [`verification`] | finite differences, vectors of another system |
//! | [`settings`] | settings from files and flags, checked |
//! | [`training`] | steps, starts, schedules, stopping |
//! | [`inference`] | a network over many cells |
//! | [`model`] | layers, prior, likelihood, objective, the network and its gradient |
//! | [`checkpoint`] | stages of a run, kept and resumed |
//! | [`data`] | file formats, counts, minibatches, simulators |
//! | [`parallel`] | threads and processes |
//! | [`system`] | files, console, signals, machine |
//! | [`numerics`] | matrix products, vector loops, special functions, random streams |
//! | [`words`] | numbers, times and names in sentences |
//! | [`mod@error`] | what can go wrong, and exit codes |

pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod data;
pub mod display;
pub mod error;
pub mod evaluation;
pub mod fit;
pub mod inference;
pub mod model;
pub mod numerics;
pub mod parallel;
pub mod results;
pub mod settings;
pub mod system;
pub mod training;
pub mod verification;
pub mod words;

pub use error::{Error, InputError, Result};
pub use fit::{Fitted, RatesRequest, SampleRequest, SampledCells, fit};
pub use settings::Settings;
pub use training::observer::Observer;
