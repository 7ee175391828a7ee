#!/usr/bin/env python3
"""Medians over seeds of a sweep's screens, a row for each kind of screen. Standard library alone.

Usage: scripts/grid_table.py SWEEP_FOLDER [FOLDER_OF_THE_SAME_SCREENS_WITH_THE_REFERENCE_RECIPE]

Columns: MCC and corrected F1 of the defaults, of the linear model and of the reference recipe, and the MCC of the true model.
"""
import json
import re
import sys
from pathlib import Path
from statistics import median


def figures(folder):
    """Lists of (MCC, F1, MCC of the true model) by kind of screen and method."""
    found = {}
    for path in sorted(folder.glob("runs/*/metrics.json")):
        run = json.loads(path.read_text())
        kind = re.sub(r"^(svae-plus|pca)_?|_?seed-\d+", "", path.parent.name) or "base"
        f1 = ((run.get("graph") or {}).get("corrected") or {}).get("f1")
        oracle = (run.get("oracle") or {}).get("mcc_pearson")
        found.setdefault(kind, {}).setdefault(run["method"], []).append((run.get("mcc_pearson"), f1, oracle))
    return found


def middle(records, column):
    values = [record[column] for record in records if record[column] is not None]
    return f"{median(values):.3f}" if values else ""


def plain(kind):
    return re.sub(r"latents-\d+_sim-latents", "latents", kind).replace("sim-", "").replace("_", ", ")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    grid = figures(Path(sys.argv[1]))
    reference = {plain(kind): of for kind, of in figures(Path(sys.argv[2])).items()} if len(sys.argv) == 3 else {}
    print("| screen | seeds | sVAE+: MCC, F1 | linear model: MCC, F1 | reference recipe: MCC, F1 | true model: MCC |")
    print("|---|---|---|---|---|---|")
    for kind, of in grid.items():
        both = lambda records: ", ".join(filter(None, (middle(records, 0), middle(records, 1))))
        ours, linear = of.get("svae-plus", []), of.get("pca", [])
        theirs = reference.get(plain(kind), {}).get("svae-plus", [])
        print(f"| {plain(kind)} | {len(ours)} | {both(ours)} | {both(linear)} | {both(theirs)} | {middle(ours, 2)} |")


if __name__ == "__main__":
    main()
