#!/usr/bin/env python3
"""Copies an AnnData file and adds columns of obs in which labels are permuted within batches. Needs numpy, pandas, anndata.

Usage: scripts/permute_labels.py SCREEN.h5ad LABEL_COLUMN BATCH_COLUMN PERMUTED.h5ad

The columns are called permuted_0 to permuted_9. A training on any of them should find no edge:

    for i in 0 1 2 3 4 5 6 7 8 9; do
        svae-cpu run --data PERMUTED.h5ad --label-key permuted_$i --batch-key BATCH_COLUMN --out permuted/$i
    done
    grep -H '"n_edges"' permuted/*/metrics.json
"""
import sys

import anndata
import numpy as np


def main():
    source, label, batch, target = sys.argv[1:]
    screen = anndata.read_h5ad(source)
    labels, batches = screen.obs[label].astype(str).to_numpy(), screen.obs[batch].astype(str).to_numpy()
    for i in range(10):
        draw = np.random.default_rng(i)
        permuted = labels.copy()
        for level in np.unique(batches):
            cells = np.flatnonzero(batches == level)
            permuted[cells] = labels[draw.permutation(cells)]
        screen.obs[f"permuted_{i}"] = permuted
        screen.obs[f"permuted_{i}"] = screen.obs[f"permuted_{i}"].astype("category")
    screen.write_h5ad(target)


if __name__ == "__main__":
    main()
