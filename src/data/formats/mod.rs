//! The files that screens come in, each format read by a file of this folder: a reader, and a row of `FORMATS`.

use std::path::{Path, PathBuf};

use crate::data::formats::delimited::Delimited;
use crate::data::formats::h5ad::H5ad;
use crate::data::formats::lanes::Lanes;
use crate::data::formats::matrix_market::MatrixMarket;
use crate::data::formats::mudata::MuData;
use crate::data::formats::npz_screen::NpzScreen;
use crate::data::formats::screen_file::{Format, OpenOptions, ScreenFile};
use crate::data::formats::tenx::Tenx;
use crate::error::{InputError, Result};

pub mod anndata_writer;
pub(crate) mod column;
pub(crate) mod counts_sink;
pub(crate) mod delimited;
pub(crate) mod features;
pub mod frame;
pub(crate) mod h5ad;
pub(crate) mod h5ad_frame;
pub(crate) mod hdf5;
pub(crate) mod hdf5_attributes;
pub(crate) mod labels;
pub(crate) mod lanes;
pub(crate) mod matrix_market;
pub(crate) mod matrix_market_names;
pub(crate) mod mudata;
pub mod npz;
pub(crate) mod npz_screen;
pub(crate) mod screen_file;
pub(crate) mod tenx;
pub(crate) mod text;
pub(crate) mod unread;

pub use npz_screen::write_npz;

/// Every format that is read. The first that recognises a path opens it.
pub(crate) static FORMATS: [Format; 6] = [
    Format {
        name: "a matrix-market folder",
        endings: "",
        recognises: MatrixMarket::recognises,
        open: |path, options| Ok(Box::new(MatrixMarket::open(path, options)?)),
        takes_layer: false,
        takes_genome: false,
        takes_modality: false,
        takes_names: true,
    },
    Format {
        name: "a NumPy archive",
        endings: ".npz",
        recognises: NpzScreen::recognises,
        open: |path, _| Ok(Box::new(NpzScreen::open(path)?)),
        takes_layer: false,
        takes_genome: false,
        takes_modality: false,
        takes_names: false,
    },
    Format {
        name: "a 10x file",
        endings: ".h5",
        recognises: Tenx::recognises,
        open: |path, options| Ok(Box::new(Tenx::open(path, options.genome)?)),
        takes_layer: false,
        takes_genome: true,
        takes_modality: false,
        takes_names: false,
    },
    Format {
        name: "a MuData file",
        endings: ".h5mu",
        recognises: MuData::recognises,
        open: |path, options| Ok(Box::new(MuData::open(path, options)?)),
        takes_layer: true,
        takes_genome: false,
        takes_modality: true,
        takes_names: false,
    },
    Format {
        name: "an AnnData file",
        endings: ".h5ad",
        recognises: H5ad::recognises,
        open: |path, options| Ok(Box::new(H5ad::open(path, options.layer)?)),
        takes_layer: true,
        takes_genome: false,
        takes_modality: false,
        takes_names: false,
    },
    Format {
        name: "a table of counts",
        endings: ".csv, .tsv, .txt, or these and .gz",
        recognises: Delimited::recognises,
        open: |path, options| Ok(Box::new(Delimited::open(path, options)?)),
        takes_layer: false,
        takes_genome: false,
        takes_modality: false,
        takes_names: false,
    },
];

/// Whether a path is that of a screen by its name, be it there or not; a folder has to hold a matrix.
pub(crate) fn names_a_screen(path: &Path) -> bool {
    match path.is_dir() {
        true => matrix_market_names::find_matrix(path).is_ok() || unread::to_convert(path).is_some(),
        false => unread::to_convert(path).is_some() || FORMATS.iter().any(|format| (format.recognises)(path)),
    }
}

/// Opens a file of any format, or several as one screen.
///
/// # Errors
/// [`InputError`] if a file is absent, damaged or of no known format, or if an option has no effect on its format; as joining files does.
pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn ScreenFile>> {
    let (further, tables) = (options.further, &options.lane_labels);
    let refused = |problem: String, remedy: &str| -> Result<Box<dyn ScreenFile>> {
        Err(InputError::new(problem, remedy).in_file(path).into())
    };
    if !tables.is_empty() && tables.len() != further.len() + 1 {
        let problem = format!("there are {} tables of labels for {} data files", tables.len(), further.len() + 1);
        return refused(problem, "give one table for all cells, or one for each file and in the same order");
    }
    if further.is_empty() {
        return open_one(path, options);
    }
    if options.barcodes.is_some() || options.features.is_some() {
        let problem = "--barcodes and --features name the files of one matrix, but there are several".to_owned();
        return refused(problem, "leave them out, and call the files of names as their matrix");
    }
    let paths = || std::iter::once(path).chain(further.iter().map(PathBuf::as_path));
    if let Some(twice) = paths().enumerate().find(|(n, path)| paths().take(*n).any(|other| other == *path)) {
        return refused(format!("{} is given twice", twice.1.display()), "name each file once");
    }
    let mut files = Vec::new();
    for (n, path) in paths().enumerate() {
        let labels = tables.get(n).copied().or(options.labels);
        files.push((path.to_path_buf(), open_one(path, &OpenOptions { labels, ..options.clone() })?));
    }
    Ok(Box::new(Lanes::join(files, options)?))
}

/// Opens a file of any format.
fn open_one(path: &Path, options: &OpenOptions) -> Result<Box<dyn ScreenFile>> {
    if let Some(error) = unread::to_convert(path) {
        return Err(error.into());
    }
    let Some(format) = FORMATS.iter().find(|format| (format.recognises)(path)) else {
        let known = FORMATS.each_ref().map(|format| match format.endings {
            "" => format.name.to_string(),
            endings => format!("{} ({endings})", format.name),
        });
        let (last, others) = known.split_last().expect("there are formats");
        let remedy = format!("give {} or {last}", others.join(", "));
        return Err(InputError::new("files of this kind are not read", remedy).in_file(path).into());
    };
    let flags = [
        (options.layer.is_some(), format.takes_layer, "--layer"),
        (options.genome.is_some(), format.takes_genome, "--genome"),
        (options.modality.is_some(), format.takes_modality, "--modality"),
        (options.barcodes.is_some(), format.takes_names, "--barcodes"),
        (options.features.is_some(), format.takes_names, "--features"),
    ];
    for (given, taken, flag) in flags {
        if given && !taken {
            let problem = format!("{flag} has no effect on {}", format.name);
            return Err(InputError::new(problem, "leave it out").in_file(path).into());
        }
    }
    (format.open)(path, options)
}
