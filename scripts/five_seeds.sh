#!/usr/bin/env bash
# The five-seed table of the README: sVAE+ on the default simulation, one thread per run, two runs at a time.
# Usage: scripts/five_seeds.sh [FOLDER] [further flags of `svae-cpu run`]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-results/five-seeds}
shift || true
source scripts/metric.sh
cargo build --release --locked
mkdir -p "$out"
printf '%s\n' 0 1 2 3 4 | xargs -P 2 -I SEED \
  ./target/release/svae-cpu run --seed SEED --threads 1 --quiet --overwrite --no-heldout --out "$out/SEED" "$@" >/dev/null

echo '| seed | Pearson MCC | Spearman MCC | R2 | corrected F1 | reference F1 | validation ELBO | epochs | training, s |'
echo '|---|---|---|---|---|---|---|---|---|'
for seed in 0 1 2 3 4; do
  d=$out/$seed
  printf '| %s | %.3f | %.3f | %.3f | %.3f | %.3f | %.1f | %s | %.0f |\n' "$seed" \
    "$(metric "$d" method mcc_pearson)" "$(metric "$d" method mcc_spearman)" "$(metric "$d" method r2)" \
    "$(metric "$d" corrected f1)" "$(metric "$d" reference f1)" "$(metric "$d" method elbo_validation)" \
    "$(metric "$d" method epochs)" "$(metric "$d" timing train_seconds)"
done
