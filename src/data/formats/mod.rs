//! The files that screens come in, each format read by a file of this folder: a reader, and a row of `FORMATS`.

use std::path::Path;

use crate::data::formats::delimited::Delimited;
use crate::data::formats::h5ad::H5ad;
use crate::data::formats::matrix_market::MatrixMarket;
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
pub(crate) mod matrix_market;
pub mod npz;
pub(crate) mod npz_screen;
pub(crate) mod screen_file;
pub(crate) mod tenx;
pub(crate) mod text;

pub use npz_screen::write_npz;

/// Every format that is read. The first that recognises a path opens it.
pub(crate) static FORMATS: [Format; 5] = [
    Format {
        name: "a matrix-market folder",
        endings: "",
        recognises: MatrixMarket::recognises,
        open: |path, options| Ok(Box::new(MatrixMarket::open(path, options)?)),
        takes_layer: false,
        takes_genome: false,
        takes_names: true,
    },
    Format {
        name: "a NumPy archive",
        endings: ".npz",
        recognises: NpzScreen::recognises,
        open: |path, _| Ok(Box::new(NpzScreen::open(path)?)),
        takes_layer: false,
        takes_genome: false,
        takes_names: false,
    },
    Format {
        name: "a 10x file",
        endings: ".h5",
        recognises: Tenx::recognises,
        open: |path, options| Ok(Box::new(Tenx::open(path, options.genome)?)),
        takes_layer: false,
        takes_genome: true,
        takes_names: false,
    },
    Format {
        name: "an AnnData file",
        endings: ".h5ad",
        recognises: H5ad::recognises,
        open: |path, options| Ok(Box::new(H5ad::open(path, options.layer)?)),
        takes_layer: true,
        takes_genome: false,
        takes_names: false,
    },
    Format {
        name: "a table of counts",
        endings: ".csv, .tsv, .txt, or these and .gz",
        recognises: Delimited::recognises,
        open: |path, options| Ok(Box::new(Delimited::open(path, options)?)),
        takes_layer: false,
        takes_genome: false,
        takes_names: false,
    },
];

/// Opens a file of any format.
///
/// # Errors
/// [`InputError`] if the file is absent, damaged or of no known format, or if an option has no effect on its format.
pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn ScreenFile>> {
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
