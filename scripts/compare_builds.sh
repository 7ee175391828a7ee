#!/usr/bin/env bash
# Whether two builds of svae-cpu compute the same results, byte for byte: for releases, and for changes that should not matter.
#
#     scripts/compare_builds.sh OLD_BINARY NEW_BINARY [CASE...]      all cases, or those named
#
# Every case runs the same commands with both builds, each in a folder of its own, and compares all files that they leave. The
# cases are small (under three minutes for all on two cores) and take every method, the held-out stages and every other command
# through both levels of --simd and both precisions. One line per case; exits 1 if a case differs, 2 if one does not run.
# With KEEP=DIR, the files stay in DIR.
#
# A comparison holds for one processor and, with --simd native, for its kind alone.
set -euo pipefail
export LC_ALL=C

# --- What may differ -------------------------------------------------------------------------------------------------

# Flags that the two builds call by different names, as the cases below have them: [--name-below]=--name-in-that-build.
declare -A old_flags=() new_flags=()

# Files that only one of the builds writes, by name.
only_in_old=''
only_in_new='table_medians.md'

# Files that hold something else in the two builds, by name, and are not compared.
changed_files='genes_per_latent.csv report.html'
changed_files+=' runs.csv table.csv table.json table.md table_selected.csv table_selected.json table_selected.md'

# Tables and columns of results.h5ad that only one of the builds writes.
added_entries='var/svae_mean_count varm/svae_loadings_se varm/svae_loadings_shrunken'

# Lines of config.toml that only one of the builds writes, for settings that the other does not have.
added_settings='likelihood = "negative-binomial"'

without_added_settings() { if [ -n "$added_settings" ]; then grep -vxF -- "$added_settings" "$@"; else cat "$@"; fi; }

# Everything in an HDF5 file, as text; needs h5py, which scripts/check_results_h5ad.sh installs into target/python.
python=$(dirname "$0")/../target/python/bin/python
[ -x "$python" ] || python=python3
hdf5_as_text() {
    "$python" - "$1" $added_entries <<'END'
import hashlib
import sys

import h5py
import numpy


added = sys.argv[2:]
added_names = {entry.rsplit("/")[-1] for entry in added}


def text(value):
    """Of an attribute: without the columns that were added, where it lists columns."""
    return str([item for item in value if item not in added_names]) if isinstance(value, numpy.ndarray) else str(value)


def show(name, entry):
    if name in added:
        return
    attributes = sorted((key, text(value)) for key, value in entry.attrs.items())
    if not isinstance(entry, h5py.Dataset):
        print(name, attributes)
    elif isinstance(entry[()], bytes):
        print(name, attributes, entry[()].decode(), sep="\n")
    else:
        print(name, attributes, entry.dtype, hashlib.sha256(repr(entry[()].tolist()).encode()).hexdigest())


h5py.File(sys.argv[1]).visititems(show)
END
}

# comparable FILE: its contents without what differs from run to run, or tells the builds apart.
comparable() {
    case $1 in
    # Seconds of each epoch: the last column.
    */history*.csv) sed 's/,[^,]*$//' "$1" ;;
    # Times, speed and memory of the run, and the times of its held-out stages.
    */metrics.json | */evaluation.json)
        sed -E '/^ *"(train_seconds|cells_per_second|total_seconds|peak_rss_bytes)":/d; /^ *"seconds": \{/,/\}/d' "$1"
        ;;
    # Which build ran, where and when, for how long and in how much memory; the command begins with the path of
    # the binary.
    */manifest.json)
        sed -E '/^ *"(program|commit|working_directory|host|started|ended|seconds|peak_rss_bytes)":/d;
                /^ *"command": \[/,/\]/d' "$1" | case $1 in
            # How many threads were free for a run.
            */sweep/s/runs/*) sed '/^ *"threads":/d' ;;
            # Its data are the results.h5ad of another run.
            */stream/b/*) sed -E '/^ *"(bytes|crc32)":/d' ;;
            *) cat ;;
            esac
        ;;
    */config.toml) without_added_settings "$1" ;;
    # The version of the program, the time of the training and a copy of config.toml.
    */report.html)
        sed -E 's/svae-cpu [0-9]+(\.[0-9]+)+//; s|<b>[^<]*</b>( *<[^>]*> *of training)|\1|; s/&#10;/\n/g; s/&quot;/"/g' "$1" \
            | without_added_settings
        ;;
    # A copy of config.toml again, which shifts whatever comes after it.
    */results.h5ad)
        if [ -z "$added_settings$added_entries" ]; then
            cat "$1"
        elif [ "$reads_hdf5" = yes ]; then
            hdf5_as_text "$1" | without_added_settings
        fi
        ;;
    # Times of the runs of a sweep: the last two columns; in tables, with their deviations and medians.
    */runs.csv) sed -E 's/(,[^,]*){2}$//' "$1" ;;
    */table.csv | */table_selected.csv) sed -E 's/(,[^,]*){6}$//' "$1" ;;
    */table.md | */table_medians.md | */table_selected.md) sed -E 's/(\|[^|]*){2}\|$//' "$1" ;;
    */table.json | */table_selected.json) sed -E '/^ *"(train|total)_seconds": \{/,/\}/d' "$1" ;;
    *) cat "$1" ;;
    esac
}

# --- The cases -------------------------------------------------------------------------------------------------------

# Sizes that are no multiple of a vector's width. The last two interventions are held out.
simulation='--sim-interventions 10 --sim-cells 60 --sim-genes 43 --sim-latents 5'
network='--hidden 37 --latents 7 --batch-size 48'
# Masks as every release has them.
drawn='--mask hard'
epochs='--epochs 12 --warmup-epochs 4 --quiet'
training="$epochs --particles 60 --threads 2"
small="$simulation $network $training"
# A screen of mostly zeros, in CellRanger's layout, with covariates and control cells.
file="--data ../../input --labels ../../input/labels.csv --label-key guide --control none --holdout g5,g6"
covariates='--categorical-covariates batch --continuous-covariates score'

cases() {
    local method of_method
    for method in vae beta-vae ivae svae svae-plus; do
        of_method="--method $method"
        [ $method != svae-plus ] || of_method+=" $drawn"
        compare "$method" run $small $of_method --out r
        compare "$method-reference" run $small --method $method --recipe reference --simd baseline --out r
        compare "$method-file" run $file $covariates $network $training $of_method --out r
    done
    compare tuned run $small $drawn --recipe tuned --starts 2 --out r
    compare f64 run $small $drawn --precision f64 --out r
    compare f64-reference run $small --recipe reference --simd baseline --precision f64 --out r
    compare one-thread run $simulation $network $epochs $drawn --threads 1 --simd baseline --out r
    compare soft-mask run $small --mask soft --temperature 0.7 --out r
    compare svae-soft-mask-f64 run $small --method svae --mask soft --alpha 3 --precision f64 --simd baseline --out r
    compare ivae-learned-mask run $small --method ivae --ivae-mask learned --out r
    compare full-covariance run $small $drawn --posterior-covariance full --out r
    compare logistic-normal run $small $drawn --latent-distribution logistic-normal --beta 2 --out r
    compare layer-norm run $small $drawn --layer-norm true --layers 3 --dropout 0 --out r
    compare no-norm run $small $drawn --batch-norm false --layers 1 --weight-decay 0.001 --out r
    compare wide run $simulation $drawn --hidden 130 --latents 67 --batch-size 200 $training --out r
    compare schedules run $small $drawn --schedule late-cosine --keep last --learning-rate 0.01 --patience 2 --out r
    compare starts run $small $drawn --schedule cosine --learning-rate 0.02 --starts 3 --trial-share 0.5 --prune-masks-below 0.6 --out r
    compare drift run $small $drawn --heldout-batch-norm drift --retraining-epochs 5 --likelihood-epsilon 1e-8 --out r
    compare paper-simulation run $small $drawn --simulation paper --sim-targeted-latents 3 --sim-seed 4 --seed 9 --out r
    compare covariates-everywhere run $file $drawn $covariates $network $training --encode-covariates true --layers 3 --out r
    compare covariates-shallow run $file $drawn --batch-key batch --size-factor-key size $network $training \
        --deeply-inject-covariates false --simd baseline --out r
    compare chosen-genes run $file $drawn --top-genes 30 --batch-key batch --min-counts 20 --min-cells-per-label 15 \
        $network $training --out r

    compare simulate simulate $simulation --out a.npz : simulate $simulation --simulation paper --seed 3 --out b.npz
    compare stream run $simulation $network $drawn $epochs --no-heldout --out a \
        : run --data a/results.h5ad --label-key svae_intervention --holdout intervention_9 \
        --stream --stream-buffer 1 $network $drawn $training --out b
    compare saved-model run $file $drawn $covariates $network $training --out r \
        : embed --model r --data ../../input --out e.csv --threads 2 \
        : embed --model r --data r/results.h5ad --out e.npz --threads 2 \
        : embed --model r --data r/results.h5ad --out e.h5ad --threads 1 \
        : normalize --model r --out n.csv --genes gene3,gene5,gene8 \
        : normalize --model r --out n.npz --samples 3 --seed 1 \
        : sample --model r --intervention g1,g2 --cells 70 --out s.npz \
        : sample --model r --cells 50 --size-factor 300 --seed 2 --out s.h5ad
    compare evaluate run $small $drawn --out r : evaluate r --particles 90 --threads 2 --quiet : report r
    compare fit-shifts run $simulation $drawn $network $epochs --no-heldout --simd baseline --out r \
        : fit-shifts r --heldout-batch-norm drift --particles 60 --threads 2 --quiet
    compare sweep sweep ../../input/grid.toml $simulation --sim-seed 3 $network $training --out s --select udr
    compare inspect inspect ../../input --labels ../../input/labels.csv --json
}

# Counts of 400 cells and 150 genes: a tenth of the genes is frequent, the others mostly 0; each guide raises some genes.
make_input() {
    awk -v folder="$1" 'BEGIN {
        state = 1
        n_cells = 400; n_genes = 150; n = 0
        for (gene = 1; gene <= n_genes; gene++)
            printf "ENSG%05d\tgene%d\tGene Expression\n", gene, gene > (folder "/features.tsv")
        print "barcode,guide,batch,score,size" > (folder "/labels.csv")
        for (cell = 1; cell <= n_cells; cell++) {
            guide = cell % 8; total = 0
            for (gene = 1; gene <= n_genes; gene++) {
                mean = (gene % 10 == 0 ? 6 : 0.25) * (guide && gene % 8 == guide ? 3 : 1) * (1 + 0.5 * (cell % 3))
                # A geometric count of that mean, with the minimal standard generator.
                state = (state * 16807) % 2147483647
                count = int(log((state + 1) / 2147483649) / log(mean / (1 + mean)))
                if (count > 0) { lines[n++] = gene " " cell " " count; total += count }
            }
            printf "cell%d-1\n", cell > (folder "/barcodes.tsv")
            printf "cell%d-1,%s,%s,%.2f,%d\n", cell, guide ? "g" guide : "none", "b" (cell % 3), cell % 17 / 4, total + 50 \
                > (folder "/labels.csv")
        }
        print "%%MatrixMarket matrix coordinate integer general" > (folder "/matrix.mtx")
        print n_genes, n_cells, n > (folder "/matrix.mtx")
        for (i = 0; i < n; i++) print lines[i] > (folder "/matrix.mtx")
    }'
    printf 'mask = "hard"\n[grid]\nmethod = ["svae-plus"]\nalpha = [5, 20]\nseed = [0, 1]\n' >"$1/grid.toml"
}

# --- The comparison --------------------------------------------------------------------------------------------------

if [ $# -lt 2 ]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
old=$(realpath "$1") new=$(realpath "$2")
shift 2
wanted=("$@")

work=${KEEP:-$(mktemp -d)}
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work/old" "$work/new" "$work/input"
work=$(realpath "$work")
make_input "$work/input"

reads_hdf5=yes
"$python" -c 'import h5py' 2>/dev/null || reads_hdf5=no
if [ -n "$added_settings$added_entries" ] && [ $reads_hdf5 = no ]; then
    echo "results.h5ad is not compared: the builds write different things into it, and Python has no h5py to leave them out" >&2
fi

# commands WHICH FOLDER ARGUMENT... [: ARGUMENT...]...: runs the commands in the folder; standard output goes to files there.
commands() {
    local binary=$old word number=1 words=() names
    declare -n names="$1_flags"
    [ "$1" = old ] || binary=$new
    rm -rf "$2"
    mkdir -p "$2"
    cd "$2"
    shift 2
    for word in "$@" :; do
        if [ "$word" = : ]; then
            # What is printed for people may be worded anew; with --json it is a result like the others.
            if ! "$binary" "${words[@]}" >stdout.txt 2>stderr.txt; then
                echo "$binary ${words[*]}: $(tail -n 3 stderr.txt)" >&2
                return 1
            fi
            [[ " ${words[*]} " != *" --json "* ]] || cp stdout.txt "$number.json"
            rm stdout.txt stderr.txt
            words=()
            number=$((number + 1))
        else
            words+=("${names[$word]:-$word}")
        fi
    done
}

status=0 met=' '
compare() {
    local name=$1 file side different=() count=0
    shift
    met+="$name "
    [ ${#wanted[@]} = 0 ] || [[ " ${wanted[*]} " == *" $name "* ]] || return 0
    for side in old new; do
        if ! (commands $side "$work/$side/$name" "$@"); then
            printf '%-24s DOES NOT RUN with the %s build\n' "$name" $side
            status=2
            return 0
        fi
    done
    while read -r file; do
        if [[ " $only_in_old $only_in_new $changed_files " == *" ${file##*/} "* ]]; then continue; fi
        count=$((count + 1))
        if [ ! -e "$work/old/$name/$file" ]; then
            different+=("$file (new build only)")
        elif [ ! -e "$work/new/$name/$file" ]; then
            different+=("$file (old build only)")
        elif ! cmp -s <(comparable "$work/old/$name/$file") <(comparable "$work/new/$name/$file"); then
            different+=("$file")
        fi
    done < <(for side in old new; do (cd "$work/$side/$name" && find . -type f); done | sed 's|^\./||' | sort -u)
    if [ $count = 0 ]; then
        printf '%-24s LEAVES NO FILE\n' "$name"
        status=2
    elif [ ${#different[@]} = 0 ]; then
        printf '%-24s same bytes in %d files\n' "$name" $count
    else
        printf '%-24s DIFFERS in %d of %d files:' "$name" ${#different[@]} $count
        printf ' %s;' "${different[@]}" | sed 's/;$/\n/'
        [ $status != 0 ] || status=1
    fi
}

cases
for name in "${wanted[@]}"; do
    if [[ $met != *" $name "* ]]; then
        echo "there is no case $name; there are:$met" >&2
        status=2
    fi
done
exit $status
