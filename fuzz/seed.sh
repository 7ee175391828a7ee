#!/usr/bin/env bash
# Fills fuzz/corpus with the small files of tests/formats, from which the fuzzer starts. Usage: fuzz/seed.sh
set -euo pipefail
cd "$(dirname "$0")"
formats=../tests/formats
mkdir -p corpus/{h5ad,mudata,lanes,tenx,matrix_market,npz,delimited,labels,names}
cp "$formats"/*.h5ad "$formats"/public/*.h5ad corpus/h5ad/
cp "$formats"/*.h5 corpus/tenx/
cp "$formats"/*.h5mu corpus/mudata/
cp "$formats"/table_cells.csv corpus/lanes/
cp "$formats"/alevin_fry/alevin/quants_mat.mtx corpus/matrix_market/usa.mtx
for source in "$formats"/mtx_v2/GRCh38/matrix.mtx "$formats"/mtx_other/GSM1_matrix.mtx; do
  cp "$source" "corpus/matrix_market/$(basename "$(dirname "$source")").mtx"
done
gzip -dc "$formats"/mtx_v3/matrix.mtx.gz >corpus/matrix_market/v3.mtx
cp "$formats"/scipy_*.npz "$formats"/numpy_dense.npz corpus/npz/
cp "$formats"/table_* corpus/delimited/
cp "$formats"/labels* corpus/labels/
cp "$formats"/mtx_v2/GRCh38/barcodes.tsv corpus/names/
sed 's/.*/"&"/; 1i "x"' "$formats"/mtx_v2/GRCh38/barcodes.tsv >corpus/names/of_r.txt
tr , " " <"$formats"/labels.csv | sed '1s/barcode //; 1i # by hand' >corpus/labels/of_r.txt
