"""Opens results.h5ad with anndata and scanpy and holds it against the other files of the results folder.

    python scripts/check_results_h5ad.py RESULTS_FOLDER [INPUT.h5ad]

Needs the packages anndata and scanpy. With INPUT.h5ad, the file the run was made from, its obs and var are compared too.
"""

import csv
import json
import sys
from importlib.metadata import version
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp


def table(path):
    """Names of the rows and numbers of a table with a name in front of each row."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    return [row[0] for row in rows[1:]], np.array([[float(x) for x in row[1:]] for row in rows[1:]])


def read(path):
    """A table with its numbers to the last bit, and names such as NA left as they are."""
    return pd.read_csv(path, keep_default_na=False, float_precision="round_trip")


def check_storage(path):
    """No text of length 0 has a place in the file, which HDF5 1.14.4 and newer take for damage."""
    def visit(name, item):
        if isinstance(item, h5py.Dataset) and item.size == 0:
            assert item.id.get_offset() is None, f"{path}: {name} is empty, yet has an address"

    with h5py.File(path) as file:
        file.visititems(visit)


def check_embedding(adata):
    """As cellxgene asks of an embedding, and of a file."""
    names = [name for name in adata.obsm if name.startswith("X_")]
    assert "X_svae" in names
    z = adata.obsm["X_svae"]
    assert isinstance(z, np.ndarray) and z.dtype.kind == "f" and z.shape[0] == adata.n_obs and z.shape[1] >= 2
    assert not np.isinf(z).any() and not np.isnan(z).all()
    assert adata.obs_names.is_unique and adata.var_names.is_unique
    assert not any("/" in name for name in adata.obsm)


def plain(frame):
    """A table whose text is held in one way: newer versions of anndata write text without missing values as nullable, older ones cannot
    open that, so results have it as plain text."""
    frame = frame.copy()
    frame.index = frame.index.astype(object)
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.StringDtype):
            frame[name] = frame[name].astype(object)
        elif isinstance(frame[name].dtype, pd.CategoricalDtype) and isinstance(frame[name].cat.categories.dtype, pd.StringDtype):
            frame[name] = frame[name].cat.rename_categories(frame[name].cat.categories.astype(object))
    return frame


def check_copy(adata, original):
    """Columns, index and order of the input, of the rows that are left."""
    # Not of a part of an AnnData object, which forgets levels without rows.
    tables = [(adata.obs, original.obs.loc[adata.obs_names]), (adata.var, original.var.loc[adata.var_names])]
    for ours, theirs in tables:
        assert ours.index.name == theirs.index.name
        kept = [name for name in theirs.columns if not name.startswith("svae_") or name in ours.columns]
        new = [name for name in kept if name in RESULTS]
        kept = [name for name in kept if name not in new]
        assert list(ours.columns[: len(kept)]) == kept, (list(ours.columns), kept)
        pd.testing.assert_frame_equal(plain(ours[kept]), plain(theirs[kept]))


# Columns that a run adds, in the place of those of an earlier run.
RESULTS = ["svae_" + name for name in
           ["intervention", "split", "size_factor", "reconstruction", "kl", "nearest_intervention", "mean_count"]]


def check(folder, source=None):
    check_storage(folder / "results.h5ad")
    adata = sc.read_h5ad(folder / "results.h5ad")
    check_embedding(adata)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert adata.shape == (metrics["n_cells"], metrics["n_genes"]), adata.shape
    assert adata.obs_names.is_unique or source is not None

    # Counts: sorted CSR of whole numbers.
    assert sp.isspmatrix_csr(adata.X) or isinstance(adata.X, sp.csr_array), type(adata.X)
    adata.X.check_format(full_check=True)
    assert np.all(adata.X.data == np.round(adata.X.data)) and adata.X.data.min() > 0

    cells = read(folder / "cells.csv")
    assert list(adata.obs_names) == [str(name) for name in cells["cell"]]
    assert np.array_equal(np.asarray(adata.X.sum(axis=1)).ravel(), cells["total_count"])
    assert np.array_equal(adata.X.getnnz(axis=1), cells["n_genes"])
    for column in ["intervention", "split"]:
        assert list(adata.obs["svae_" + column].astype(str)) == list(cells[column].astype(str)), column
    for column in ["size_factor", "reconstruction", "kl"]:
        np.testing.assert_array_equal(adata.obs["svae_" + column], cells[column].astype(float))

    latents = np.load(folder / "latents.npz")["latents"]
    np.testing.assert_array_equal(adata.obsm["X_svae"], latents.astype(np.float32))

    results = adata.uns["svae"]
    assert results["method"] == metrics["method"] and "[simulation]" in results["config"] or "data" in results["config"]
    assert json.loads(results["metrics"])["elbo_validation"] == metrics["elbo_validation"]
    interventions = list(results["interventions"])
    for key in ["masks", "shifts"]:
        if (folder / f"{key}.csv").exists():
            names, values = table(folder / f"{key}.csv")
            assert names == interventions, key
            np.testing.assert_allclose(results[key], values, rtol=1e-15)
    history = read(folder / "history.csv")
    for column in results["history"].columns:
        np.testing.assert_allclose(results["history"][column], history[column], rtol=1e-15)
    if (folder / "targets.csv").exists():
        targets = read(folder / "targets.csv")
        assert len(targets) == len(results["targets"])
        assert list(results["targets"]["latent"]) == list(targets["latent"])
        # Where there are none, the table does not say what its columns hold.
        np.testing.assert_allclose(results["targets"]["shift"], pd.to_numeric(targets["shift"]), rtol=1e-15)
    if (folder / "edges.csv").exists():
        edges = read(folder / "edges.csv")
        assert list(results["edges"].columns) == list(edges.columns)
        assert list(results["edges"]["intervention"]) == list(edges["intervention"])
        for column in edges.columns.drop(["intervention", "latent", "block"]):
            # Numbers of guides are empty where there is no column of guides.
            np.testing.assert_allclose(results["edges"][column], pd.to_numeric(edges[column]), rtol=1e-15)
        assert list(results["edges"]["block"]) == list(edges["block"].fillna(""))
        assert list(targets.columns) == list(results["targets"].columns)
        assert list(adata.obs["svae_nearest_intervention"].astype(str)) == list(cells["nearest_intervention"].astype(str))

    loadings = pd.DataFrame(adata.varm["svae_loadings"], index=adata.var_names)
    genes = read(folder / "genes_per_latent.csv")
    for latent, rows in genes.groupby("latent"):
        column = loadings[int(latent.removeprefix("latent_"))]
        if loadings.index.is_unique:
            np.testing.assert_allclose(column[rows["gene"]], rows["log2_fold_change"], rtol=1e-6, atol=1e-7)
    shrunken = pd.DataFrame(adata.varm["svae_loadings_shrunken"], index=adata.var_names)
    errors = pd.DataFrame(adata.varm["svae_loadings_se"], index=adata.var_names)
    for latent, rows in genes.groupby("latent"):
        k = int(latent.removeprefix("latent_"))
        if shrunken.index.is_unique:
            for effects, name in [(shrunken, "shrunken_log2_fold_change"), (errors, "standard_error")]:
                np.testing.assert_allclose(effects[k][rows["gene"]], rows[name], rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(adata.var["svae_mean_count"][rows["gene"]], rows["mean_count"], rtol=1e-12)
        # The first gene has the largest effect of all.
        assert np.isclose(shrunken[k].abs().max(), rows["shrunken_log2_fold_change"].abs().iloc[0], rtol=1e-6, atol=1e-7)
    means = np.asarray(adata.X.mean(axis=0), dtype=float).ravel()
    np.testing.assert_allclose(adata.var["svae_mean_count"], means, rtol=1e-4)

    if source is not None:
        original = anndata.read_h5ad(source)
        check_copy(adata, original)
        original = original[adata.obs_names, adata.var_names]
        for ours, theirs in [(adata.obs, original.obs), (adata.var, original.var)]:
            for column in theirs.columns[~theirs.columns.str.startswith("svae_")]:
                assert column in ours.columns, f"{column} was not copied"
                if pd.api.types.is_numeric_dtype(theirs[column].dtype):
                    np.testing.assert_array_equal(ours[column].to_numpy(float), theirs[column].to_numpy(float))
                else:
                    assert list(ours[column].astype(str)) == list(theirs[column].astype(str)), column

    # What users do next; neighbours of a thousand cells, to be quick.
    adata = adata[:1000].copy()
    sc.pp.neighbors(adata, use_rep="X_svae", n_neighbors=5)
    assert "connectivities" in adata.obsp
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    copy = folder / "copy_of_results.h5ad"
    adata.write_h5ad(copy)
    copy.unlink()
    print(f"{folder}/results.h5ad: {metrics['n_cells']} cells x {adata.n_vars} genes, opened by anndata "
          f"{version('anndata')} and scanpy {version('scanpy')}, agrees with the other files")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    check(Path(sys.argv[1]), *map(Path, sys.argv[2:]))
