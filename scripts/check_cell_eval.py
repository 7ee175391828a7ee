"""Holds what cell-eval says of a run's predictions against judgement.csv and against the cells themselves.

    python scripts/check_cell_eval.py FOLDER      with FOLDER/run, the results folder, and FOLDER/judged, what cell-eval wrote

cell-eval judges predicted cells, as many as there are held-out ones; the run judges the mean of many more. So its correlations are
those of the cells to the last digit, and those of the run within four deviations of what resampling the predicted cells makes of them.
"""

import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

folder = Path(sys.argv[1])
real, predicted = (anndata.read_h5ad(folder / f"run/cell_eval_{name}.h5ad") for name in ("real", "pred"))
assert real.var_names.equals(predicted.var_names)
assert (real.obs["perturbation"].value_counts() == predicted.obs["perturbation"].value_counts()).all()


def means(cells):
    return pd.DataFrame(np.asarray(cells.X, dtype=float)).groupby(cells.obs["perturbation"].to_numpy(), observed=True).mean()


random = np.random.default_rng(0)
judged = pd.read_csv(folder / "judged/results.csv").set_index("perturbation")
scores = pd.read_csv(folder / "run/judgement.csv").set_index(["predictor", "combination"]).loc["model"]
of_real, of_predicted = means(real), means(predicted)
np.testing.assert_allclose(of_real.loc["control"], of_predicted.loc["control"])
for label in judged.index:
    deltas = [of.loc[label] - of.loc["control"] for of in (of_real, of_predicted)]
    by_hand = np.corrcoef(*deltas)[0, 1]
    theirs, ours = judged.loc[label, "pearson_delta"], scores.loc[label, "pearson_control"]
    cells = np.asarray(predicted.X[(predicted.obs["perturbation"] == label).to_numpy()], dtype=float)
    resampled = [cells[random.integers(len(cells), size=len(cells))].mean(axis=0) for _ in range(200)]
    noise = np.std([np.corrcoef(deltas[0], mean - of_predicted.loc["control"])[0, 1] for mean in resampled])
    print(f"{label}: cell-eval {theirs:.4f}, from the files {by_hand:.4f}, judgement.csv {ours:.4f}")
    assert abs(theirs - by_hand) < 1e-4 and abs(theirs - ours) < 4 * noise, label
    assert abs(judged.loc[label, "mse"] - np.mean((of_real.loc[label] - of_predicted.loc[label]) ** 2)) < 1e-4, label
print(f"{len(judged)} combinations judged by cell-eval and by the run: they agree")
