#!/usr/bin/env bash
# Compares SAGE (keep: top and keep: filter), class-balanced random and all data under one recipe: the runs, a table and
# a plot. quickstart.sh runs it on the digits. Safe to repeat: what is finished is not repeated.
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tools/common.sh"

usage() {
  cat <<'TEXT'
Usage: launch/compare.sh CONFIG.yaml RESULTS [options] [key=value ...]

Trains every method on every kind of labels with every seed, one run after another, in RESULTS/<method>_<labels>_seed<k>,
and writes RESULTS/table.txt and RESULTS/plot.png. key=value goes to all runs, for example data.path=/data.

  --ranks N            MPI ranks of a run (default 2)
  --seeds N            seeds 1 to N (default 3)
  --methods LIST       of top,filter,random,all (default: these) and variants of filter: by_loss (cut off by the loss),
                       confident (counted by confident counting alone), strata, farthest, facility (what is drawn covers
                       the rest), facility_by_loss, clusters (agreement with the nearest of four directions), full (all
                       parameters), last_block (of the MLP)
  --labels LIST        of clean,wrong20,wrong40 (default: clean,wrong20); wrong20: 20 % of the training labels made wrong
  --fresh              repeat the runs that are finished already

SAGE_PROGRAM names the program (default: build/cuda/bin/sage), SAGE_PYTHON a Python with matplotlib.
TEXT
}

ranks=2 seeds=3 methods=top,filter,random,all kinds=clean,wrong20 repeat_all=false positional=() settings=()
while [ $# -gt 0 ]; do
  case $1 in
    --ranks | --seeds | --methods | --labels) [ -n "${2:-}" ] || give_up "$1 wants a value. launch/compare.sh --help shows which." ;;&
    --ranks) ranks=${2:-} && shift ;;
    --seeds) seeds=${2:-} && shift ;;
    --methods) methods=${2:-} && shift ;;
    --labels) kinds=${2:-} && shift ;;
    --fresh) repeat_all=true ;;
    -h | --help) usage && exit 0 ;;
    -*) give_up "Unknown option $1. launch/compare.sh --help shows the options." ;;
    *=*) settings+=("$1") ;;
    *) positional+=("$1") ;;
  esac
  shift
done
[ ${#positional[@]} -eq 2 ] || give_up "Expected CONFIG.yaml and RESULTS. launch/compare.sh --help shows how."
config=${positional[0]} results=${positional[1]}
[[ $ranks =~ ^[1-9][0-9]*$ ]] || give_up "--ranks wants a whole number of at least 1, not '$ranks'."
[[ $seeds =~ ^[1-9][0-9]*$ ]] || give_up "--seeds wants a whole number of at least 1, not '$seeds'."
[ -f "$config" ] || give_up "$config: no such file."
sage=${SAGE_PROGRAM:-$project/build/cuda/bin/sage}
[ -x "$sage" ] || give_up "$sage is not there: build first (./quickstart.sh does), or set SAGE_PROGRAM."
python=${SAGE_PYTHON:-python3}

# What sets the methods apart; everything else is the configuration's. Random and all data need no scores, so no proxy.
declare -A arms=(
  [top]="selection.method=sage selection.keep=top"
  [filter]="selection.method=sage selection.keep=filter"
  [by_loss]="selection.method=sage selection.keep=filter selection.filter.by=small_loss"
  [confident]="selection.method=sage selection.keep=filter selection.filter.count=confident"
  [strata]="selection.method=sage selection.keep=coverage selection.coverage=stratified"
  [farthest]="selection.method=sage selection.keep=coverage selection.coverage=farthest_first"
  [facility]="selection.method=sage selection.keep=coverage selection.coverage=facility_location"
  [facility_by_loss]="selection.method=sage selection.keep=coverage selection.coverage=facility_location selection.filter.by=small_loss"
  [clusters]="selection.method=sage selection.keep=filter selection.clusters=4"
  [full]="selection.method=sage selection.keep=filter selection.gradient.scope=full"
  [last_block]="selection.method=sage selection.keep=filter selection.gradient.scope=[fc2.*,fc.*]"
  [random]="selection.method=random selection.scorer=current"
  [all]="selection.mode=none selection.scorer=current"
)
declare -A noises=([clean]=0.0 [wrong20]=0.2 [wrong40]=0.4)
IFS=, read -ra method_list <<<"$methods"
IFS=, read -ra kind_list <<<"$kinds"
for method in "${method_list[@]}"; do [ -n "${arms[$method]:-}" ] || give_up "--methods: unknown '$method'."; done
for kind in "${kind_list[@]}"; do [ -n "${noises[$kind]:-}" ] || give_up "--labels: unknown '$kind'."; done

mkdir -p "$results"
program_hash=$(cat "$sage" "$config" | sha256sum | cut -c1-16)
launch=(mpirun -np "$ranks" --bind-to none)
if [ "$(nproc)" -lt "$ranks" ]; then launch+=(--oversubscribe); fi

# run_one NAME KEY=VALUE...: trains in RESULTS/NAME unless the same program with the same settings has done so.
run_one() {
  local name=$1 folder=$results/$1 log=$results/$1.log started=$SECONDS stamp
  shift
  stamp=$(printf '%s\n' "$program_hash" "$ranks" "$@" | sha256sum | cut -c1-16)
  run_number=$((run_number + 1))
  if ! $repeat_all && [ "$(cat "$folder.finished" 2>/dev/null || true)" = "$stamp" ] && [ -s "$folder/metrics.json" ]; then
    say "   [$run_number/$run_count] $name: finished before"
    return
  fi
  current_step="training $name"
  current_log=$log
  rm -f "$folder.finished"
  "${launch[@]}" "$sage" train "$config" "$@" "output_dir=$folder" --overwrite </dev/null >"$log" 2>&1
  echo "$stamp" >"$folder.finished"
  say "   [$run_number/$run_count] $name: $((SECONDS - started)) s"
}

run_number=0
run_count=$((seeds * ${#method_list[@]} * ${#kind_list[@]}))
step "training $run_count times, $ranks ranks each (run folders and logs: $results/)"
for seed in $(seq 1 "$seeds"); do
  for kind in "${kind_list[@]}"; do
    for method in "${method_list[@]}"; do
      # shellcheck disable=SC2086 # several settings in one word
      run_one "${method}_${kind}_seed$seed" ${arms[$method]} "data.corrupt_labels=${noises[$kind]}" "seed=$seed" \
        "${settings[@]}"
    done
  done
done

step "the result" "$log_folder/report.log"
"$python" "$project/analysis/compare_runs.py" "$results" --seeds "$seeds" --methods "$methods" --labels "$kinds" \
  2>"$log_folder/report.log"
