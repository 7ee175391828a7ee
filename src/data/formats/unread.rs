//! Files of counts that are not read, and the line that makes one of them that is.

use std::path::Path;

use crate::data::formats::screen_file::has_ending;
use crate::error::InputError;

/// A kind of file.
struct Unread {
    endings: &'static [&'static str],
    /// In sentences.
    name: &'static str,
    /// What makes another file of it, in which FILE stands for it and BARE for it without its ending.
    remedy: &'static str,
}

const UNREAD: [Unread; 6] = [
    Unread {
        endings: &[".h5ad.gz", ".h5mu.gz", ".h5.gz"],
        name: "compressed HDF5 files",
        remedy: "unpack it: gunzip -k FILE",
    },
    Unread {
        endings: &[".zarr", ".zarr.zip"],
        name: "Zarr stores",
        remedy: "write it as AnnData, in Python: anndata.read_zarr(\"FILE\").write_h5ad(\"BARE.h5ad\")",
    },
    Unread {
        endings: &[".loom"],
        name: "Loom files",
        remedy: "write it as AnnData, in Python: anndata.io.read_loom(\"FILE\").write_h5ad(\"BARE.h5ad\")",
    },
    Unread {
        endings: &[".rds", ".rdata", ".rda", ".qs"],
        name: "files of R",
        remedy: "write its counts and the table of its cells, in R: Matrix::writeMM(counts, \"matrix.mtx\"), with the names in \
                 barcodes.tsv and genes.tsv",
    },
    Unread {
        endings: &[".h5seurat"],
        name: "files of SeuratDisk",
        remedy: "write it as AnnData, in R: SeuratDisk::Convert(\"FILE\", dest = \"h5ad\")",
    },
    Unread {
        endings: &[".tar", ".tar.gz", ".tgz", ".zip", ".7z"],
        name: "archives of files",
        remedy: "unpack it, and name the folder or file in it that holds the counts",
    },
];

/// What to do with a file, or a folder, that is not read as it is; `None` for any other.
pub(super) fn to_convert(path: &Path) -> Option<InputError> {
    let of = UNREAD.iter().find(|of| has_ending(path, of.endings))?;
    let shown = path.display().to_string();
    let shown = shown.trim_end_matches('/');
    let ending = of.endings.iter().filter(|ending| shown.to_lowercase().ends_with(**ending)).map(|e| e.len()).max()?;
    let remedy = of.remedy.replace("FILE", shown).replace("BARE", &shown[..shown.len() - ending]);
    Some(InputError::new(format!("{} are not read", of.name), remedy).in_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_converts_names_the_file() {
        for (path, parts) in [
            ("a/screen.h5ad.gz", ["a/screen.h5ad.gz", "gunzip -k a/screen.h5ad.gz"]),
            ("Screen.ZARR", ["Zarr", "read_zarr(\"Screen.ZARR\").write_h5ad(\"Screen.h5ad\")"]),
            ("x.rds", ["x.rds", "writeMM"]),
        ] {
            let error = to_convert(Path::new(path)).expect(path).to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        for path in ["screen.h5ad", "counts.csv.gz", "matrix.mtx.gz", "gz", "folder"] {
            assert!(to_convert(Path::new(path)).is_none(), "{path}");
        }
    }
}
