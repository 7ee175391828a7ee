#!/usr/bin/env bash
# Opens results.h5ad of two small runs in Python: of a simulation, and of the first run's own results.h5ad.
# Installs anndata, scanpy and networkx from PyPI into target/python; without Python it says so, and fails only in CI.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$(command -v python3 || true)
if [ -z "$python" ]; then
    echo "check_results_h5ad: there is no python3, nothing was checked"
    if [ -n "${CI:-}" ]; then exit 1; else exit 0; fi
fi
if ! [ -x target/python/bin/python ]; then
    "$python" -m venv target/python
fi
if ! target/python/bin/python -c 'import anndata, scanpy, networkx' 2>/dev/null; then
    if ! target/python/bin/pip install --quiet --disable-pip-version-check anndata scanpy networkx; then
        echo "check_results_h5ad: anndata and scanpy cannot be installed, nothing was checked"
        if [ -n "${CI:-}" ]; then exit 1; else exit 0; fi
    fi
fi

program=${SVAE_CPU:-target/release/svae-cpu}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
settings=(--epochs 100 --hidden 16 --latents 5 --particles 10 --quiet)
"$program" run --sim-cells 40 --sim-interventions 12 --sim-genes 60 "${settings[@]}" --out "$folder/a" >"$folder/log"
"$program" run --data "$folder/a/results.h5ad" --label-key intervention "${settings[@]}" --out "$folder/b" >"$folder/log"
"$program" embed --model "$folder/a" --data "$folder/a/results.h5ad" --out "$folder/e.h5ad" >"$folder/log" 2>&1
"$program" normalize --model "$folder/a" --out "$folder/n.h5ad" >"$folder/log"
"$program" sample --model "$folder/a" --intervention intervention_03 --cells 50 --out "$folder/s.h5ad" >"$folder/log"
target/python/bin/python -W ignore scripts/check_results_h5ad.py "$folder/a"
target/python/bin/python -W ignore scripts/check_results_h5ad.py "$folder/b" "$folder/a/results.h5ad"
# Where nothing acts, and of some cells and genes of a screen whose columns are of every kind.
"$program" run --sim-cells 40 --sim-interventions 12 --sim-genes 60 --sim-shift 0 "${settings[@]}" --out "$folder/none" >"$folder/log"
"$program" run --data tests/formats/public/screen.h5ad --label-key missing_category --drop-unlabelled-cells --control control \
    "${settings[@]}" --out "$folder/some" >"$folder/log"
[ "$(wc -l <"$folder/none/targets.csv")" = 1 ] || { echo "check_results_h5ad: there are targets where nothing acts"; exit 1; }
target/python/bin/python -W ignore scripts/check_results_h5ad.py "$folder/none"
target/python/bin/python -W ignore - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import anndata

sys.path.insert(0, "scripts")
from check_results_h5ad import check_copy, check_storage

folder = Path(sys.argv[1])
for path in [*folder.glob("*/results.h5ad"), *folder.glob("*.h5ad")]:
    check_storage(path)
results = anndata.read_h5ad(folder / "some/results.h5ad")
assert results.shape == (6, 9)
check_copy(results, anndata.read_h5ad("tests/formats/public/screen.h5ad"))
print("columns of the input, of every kind: as they were")
PYTHON
# As R reads it, where R is.
if command -v Rscript >/dev/null && Rscript -e 'quit(status = !requireNamespace("rhdf5", quietly = TRUE))' 2>/dev/null; then
    Rscript scripts/check_results_h5ad.R "$folder/none/results.h5ad" "$folder/some/results.h5ad"
else
    echo "check_results_h5ad: there is no R with rhdf5 (Debian: r-bioc-rhdf5), what R reads was not checked"
fi
target/python/bin/python -W ignore - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import networkx
import numpy as np
import pandas as pd
import scanpy as sc

folder = Path(sys.argv[1])
results = sc.read_h5ad(folder / "a/results.h5ad")
np.testing.assert_array_equal(sc.read_h5ad(folder / "e.h5ad").obsm["X_svae"], results.obsm["X_svae"])
np.testing.assert_allclose(sc.read_h5ad(folder / "n.h5ad").X.sum(axis=1), 1e4, rtol=1e-5)
assert sc.read_h5ad(folder / "s.h5ad").obs["intervention"].unique().tolist() == ["intervention_03"]
graph = networkx.read_graphml(folder / "a/graph.graphml")
targets = pd.read_csv(folder / "a/targets.csv")
assert graph.number_of_edges() == len(targets) > 0
print("embed, normalize, sample and graph.graphml: read by scanpy and networkx")
PYTHON
