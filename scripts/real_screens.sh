#!/usr/bin/env bash
# The table of real screens in docs/results.md. Usage: scripts/real_screens.sh FOLDER_OF_H5AD_FILES [FOLDER]
set -euo pipefail
data=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
out=${2:-results/real-screens}
source scripts/metric.sh
cargo build --release --locked
parts() { echo "$(metric "$1" method reconstruction_validation) $(metric "$1" method kl_validation)" | awk '{print $1 + $2}'; }
echo '| screen | cells x genes | interventions | validation ELBO | of which likelihood + KL | pooled negative binomial | masks on | with a target | epochs | training, s |'
echo '|---|---|---|---|---|---|---|---|---|---|'
for name in norman19_k562 schraivogel2020 papalexi2021; do
  d=$out/$name
  ./target/release/svae-cpu run --data "$data/${name}_counts.h5ad" --label-key perturbation --quiet --overwrite --out "$d" >/dev/null
  printf '| %s | %s x %s | %s | %.2f | %.2f | %.2f | %.1f %% | %s | %s | %.0f |\n' "$name" \
    "$(metric "$d" method n_cells)" "$(metric "$d" method n_genes)" "$(metric "$d" method n_interventions)" \
    "$(metric "$d" method elbo_validation)" "$(parts "$d")" "$(metric "$d" baseline pooled_negative_binomial)" \
    "$(metric "$d" mask fraction_on | awk '{print 100 * $1}')" "$(metric "$d" mask interventions_with_target)" \
    "$(metric "$d" method epochs)" "$(metric "$d" timing train_seconds)"
done
