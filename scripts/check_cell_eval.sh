#!/usr/bin/env bash
# Lets cell-eval (PyPI), which others judge predictions by, judge those of a small run, and compares what both compute.
# Installs cell-eval from PyPI into target/cell-eval; without Python 3.11 it says so, and fails only in CI.
set -euo pipefail
cd "$(dirname "$0")/.."

nothing() {
    echo "check_cell_eval: $1, nothing was checked"
    if [ -n "${CI:-}" ]; then exit 1; else exit 0; fi
}
python=$(command -v python3 || true)
[ -n "$python" ] || nothing "there is no python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || nothing "cell-eval needs Python 3.11 or newer"
[ -x target/cell-eval/bin/python ] || "$python" -m venv target/cell-eval
if ! target/cell-eval/bin/python -c 'import cell_eval' 2>/dev/null; then
    target/cell-eval/bin/pip install --quiet --disable-pip-version-check 'cell-eval==0.8.2' || nothing "cell-eval cannot be installed"
fi

program=${SVAE_CPU:-target/release/svae-cpu}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$program" run --sim-cells 100 --sim-interventions 8 --sim-combinations 10 --sim-controls 300 --sim-genes 60 --sim-latents 5 --sim-depth 3000 \
    --latents 5 --holdout combinations:0.5 --particles 10 --no-h5ad --quiet --out "$folder/run" >"$folder/log" 2>&1
target/cell-eval/bin/cell-eval run -ap "$folder/run/cell_eval_pred.h5ad" -ar "$folder/run/cell_eval_real.h5ad" --pert-col perturbation \
    --control-pert control --num-threads 2 --profile full -o "$folder/judged" >>"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
target/cell-eval/bin/python -W ignore scripts/check_cell_eval.py "$folder"
