#!/usr/bin/env bash
# Builds the fuzzing programs with clang, runs each over its kept corpus, then fuzzes each for some seconds. Ends with a
# non-zero status on a finding, whose input then lies in build/fuzz/findings.
#
#   tests/fuzz/run.sh [seconds per target: 10; 0 for the corpus alone] [target ...]
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../tools/common.sh"
# shellcheck source=tools/setup.sh
source "$project/tools/setup.sh"
# shellcheck source=tools/build.sh
source "$project/tools/build.sh"

seconds=${1:-10}
shift || true
all_targets=(safetensors checkpoint_state config cifar idx human_labels tar sketch metrics image packed)
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then targets=("${all_targets[@]}"); fi
folder=$project/build/fuzz
at_once=$(nproc)
corpus=$project/tests/fuzz/corpus
runs=$folder/runs findings=$folder/findings

CXX=$(command -v clang++-14 || command -v clang++) ||
  give_up "clang++ is not installed (Debian 12: clang-14 libclang-rt-14-dev; elsewhere: clang and its compiler-rt)."
export CXX
set_up
build fuzz

# One target: replays the corpus, then fuzzes from it. New inputs go to build/fuzz/work.
run_target() {
  local target=$1 work=$folder/work/$1 log=$runs/$1.log
  mkdir -p "$work"
  local options=(-timeout=10 -rss_limit_mb=3000 -max_len=4096 -artifact_prefix="$findings/$target-")
  case $target in cifar | idx | tar) options+=(-max_len=12288) ;; esac  # records and blocks
  if ! "$folder/bin/fuzz_$target" "${options[@]}" -runs=0 "$corpus/$target" > "$log" 2>&1; then return 1; fi
  if [ "$seconds" -eq 0 ]; then return 0; fi
  "$folder/bin/fuzz_$target" "${options[@]}" -max_total_time="$seconds" -print_final_stats=1 "$work" "$corpus/$target" \
    >> "$log" 2>&1
}
# LibTorch is not instrumented: what it keeps for the life of the process would be reported as lost.
export ASAN_OPTIONS=detect_leaks=${SAGE_FUZZ_LEAKS:-1}:allocator_may_return_null=1
export OMP_NUM_THREADS=1
# The files to read lie in memory: thousands are written each second. A program that crashes leaves them.
TMPDIR=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" sage_fuzz_XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

mkdir -p "$runs" "$findings"
step "fuzzing ${#targets[@]} readers for $seconds s each"
failed=()
pending=()
finish() {
  local pid=${pending[0]%%:*} target=${pending[0]#*:}
  pending=("${pending[@]:1}")
  if wait "$pid"; then
    say "   $(printf '%-18s' "$target")$(grep -oE 'stat::number_of_executed_units: +[0-9]+' "$runs/$target.log" | grep -oE '[0-9]+$' || echo 0) executions,$(grep -oE ' cov: [0-9]+ ft: [0-9]+' "$runs/$target.log" | tail -1)"
  else
    failed+=("$target")
    say "   $(printf '%-18s' "$target")FINDING"
  fi
}
for target in "${targets[@]}"; do
  run_target "$target" &
  pending+=("$!:$target")
  if [ ${#pending[@]} -ge "$at_once" ]; then finish; fi
done
while [ ${#pending[@]} -gt 0 ]; do finish; done

if [ ${#failed[@]} -gt 0 ]; then
  for target in "${failed[@]}"; do tail -n 30 "$runs/$target.log" >&2; done
  give_up "The readers of ${failed[*]} did what they must not; the inputs are in $findings. Mend the reader, and keep the
input as tests/fuzz/corpus/TARGET/found_NAME."
fi
say "tests/fuzz/run.sh: nothing found."
