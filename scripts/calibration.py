#!/usr/bin/env python3
"""Pools how sure edges are with whether they are true, over the simulated screens of a sweep. Standard library alone.

Usage: scripts/calibration.py SWEEP_FOLDER

Prints a table with a row for each kind of screen and one for all. Proportions are of edges (or pairs, or signs) pooled over
screens; the limit is the upper end of a one-sided 95 % interval by 2,000 bootstrap samples of screens.
"""
import json
import random
import re
import sys
from pathlib import Path

def screens(folder):
    """One record for each run whose truth is known: kind of screen, seed, and its metrics and edges."""
    for metrics in sorted(folder.glob("runs/*/metrics.json")):
        run = json.loads(metrics.read_text())
        calibration = (run.get("edges") or {}).get("calibration")
        if run["method"] != "svae-plus" or calibration is None:
            continue
        kind = re.sub(r"^svae-plus_?|_?seed-\d+$", "", metrics.parent.name) or "base"
        yield kind, run["edges"], calibration


def rate(part, whole):
    return part / whole if whole else float("nan")


def pooled(records):
    """Sums over screens: edges, false ones, signs, wrong ones, true pairs, covered ones, calibration error by pairs."""
    edges = sum(e["n_edges"] for e, _ in records)
    false = sum(e["n_edges"] * c["false_discovery_proportion"] for e, c in records)
    true = sum(c["n_true"] for _, c in records)
    found = sum(c["n_true"] * c["recall"] for _, c in records)
    covered = sum(c["n_true"] * (c.get("interval_coverage") or 0) for _, c in records)
    signs = sum(c["n_signs"] for _, c in records)
    wrong = sum(c["n_signs"] * (c.get("sign_errors") or 0) for _, c in records)
    pairs = sum(e["n_pairs"] for e, _ in records)
    gap = sum(e["n_pairs"] * c["calibration_error"] for e, c in records)
    any_edge = sum(e["n_edges"] > 0 for e, _ in records)
    return dict(
        screens=len(records), edges=edges, fdp=rate(false, edges), recall=rate(found, true), coverage=rate(covered, true),
        signs=rate(wrong, signs), error=rate(gap, pairs), any_edge=rate(any_edge, len(records)),
    )


def limit(records, key, samples=2000):
    draw = random.Random(1)
    values = sorted(v for v in (pooled(draw.choices(records, k=len(records)))[key] for _ in range(samples)) if v == v)
    return values[int(0.95 * (len(values) - 1))] if values else float("nan")


def row(name, records):
    p = pooled(records)
    say = lambda value, digits=3: "" if value != value else f"{value:.{digits}f}"
    return (f"| {name} | {p['screens']} | {p['edges']} | {say(p['fdp'])} ({say(limit(records, 'fdp'))}) | {say(p['recall'])} | "
            f"{say(p['coverage'])} | {say(p['signs'])} | {say(p['error'])} | {say(p['any_edge'], 2)} |")


def main():
    folder = Path(sys.argv[1])
    by_kind = {}
    for kind, edges, calibration in screens(folder):
        by_kind.setdefault(kind, []).append((edges, calibration))
    print("| screen | screens | edges at 5 % | false among them (limit) | recall | coverage of 95 % intervals | wrong signs | "
          "calibration error | with any edge |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, records in by_kind.items():
        print(row(kind, records))
    print(row("all", [record for records in by_kind.values() for record in records]))


if __name__ == "__main__":
    main()
