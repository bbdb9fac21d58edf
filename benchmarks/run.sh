#!/usr/bin/env bash
# Builds and runs the benchmarks, keeps what they print in build/benchmarks/*.jsonl and prints a Markdown table with
# machine and versions.
#
#   benchmarks/run.sh                all
#   benchmarks/run.sh sketch ...     these alone (names of source files without .cpp)
#
# A program and its Python peer take turns, so that both see the same machine; a program whose name ends in _mpi runs
# with each number of ranks. Settings, from the environment:
#   BENCHMARK_ROUNDS=3    turns of each program and peer
#   BENCHMARK_THREADS     threads of a program without ranks (all cores); one rank has one thread
#   BENCHMARK_RANKS="2 4" numbers of ranks
#   BENCHMARK_TIMEOUT=900 seconds after which one program is given up
#   SAGE_BUILD_DIR        the build (build/cuda)
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tools/common.sh"

folder=$project/benchmarks
build=${SAGE_BUILD_DIR:-$project/build/cuda}
results=$project/build/benchmarks
rounds=${BENCHMARK_ROUNDS:-3}
threads=${BENCHMARK_THREADS:-$(nproc)}
read -r -a rank_counts <<<"${BENCHMARK_RANKS:-2 4}"
timeout=${BENCHMARK_TIMEOUT:-900}

step "looking for the build in $build"
if [ ! -f "$build/CMakeCache.txt" ]; then give_up "There is none: run ./test.sh first, or name one with SAGE_BUILD_DIR."; fi
SAGE_PYTHON=$(sed -n 's/^LIBTORCH_PYTHON:FILEPATH=//p' "$build/CMakeCache.txt")
if ! "${SAGE_PYTHON:=python3}" -c 'import torch' 2>/dev/null; then
  give_up "The peers need a Python with the same LibTorch, and $SAGE_PYTHON has no torch: build with LIBTORCH_PYTHON."
fi
export SAGE_PYTHON

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  for source in "$folder"/*.cpp; do names+=("$(basename "$source" .cpp)"); done
fi
for name in "${names[@]}"; do
  if [ ! -f "$folder/$name.cpp" ]; then
    give_up "There is no benchmark $name; there are: $(cd "$folder" && printf '%s ' *.cpp | sed 's/\.cpp//g')"
  fi
done

step "building ${names[*]} (log: build/log/benchmarks.log)" "$log_folder/benchmarks.log"
cmake --build "$build" --parallel "$(nproc)" --target "${names[@]/#/bench_}" >"$log_folder/benchmarks.log" 2>&1

mkdir -p "$results"
"$SAGE_PYTHON" "$folder/table.py" describe --build "$build" >"$results/machine.json"

# run_one RESULT COMMAND...: the command's lines go to RESULT.jsonl; if it fails, one more line says so.
run_one() {
  local result=$1 status=0
  shift
  timeout "$timeout" "$@" >"$results/$result.jsonl" 2>"$results/$result.log" || status=$?
  if [ "$status" -ne 0 ]; then
    "$SAGE_PYTHON" "$folder/table.py" failed "$result" "$status" "$results/$result.log" >>"$results/$result.jsonl"
  fi
}

for name in "${names[@]}"; do
  # The peers in training keep freed memory as our program does (launch/main.cpp): what the allocator does is no part of
  # the comparison.
  peer_settings=()
  case $name in
    training_step | training_step_mpi)
      peer_settings=("MALLOC_MMAP_THRESHOLD_=$((1 << 30))" "MALLOC_TRIM_THRESHOLD_=$((1 << 30))")
      ;;
  esac
  rm -f "$results/$name".*.jsonl "$results/$name".*.log
  peer=$folder/${name}_peer.py
  for round in $(seq "$rounds"); do
    step "running $name, round $round of $rounds"
    if [[ $name == *_mpi ]]; then
      export OMP_NUM_THREADS=1
      for ranks in "${rank_counts[@]}"; do
        run_one "$name.ranks$ranks.round$round" \
          mpirun --oversubscribe --bind-to none -np "$ranks" "$build/bin/bench_$name"
        if [ -f "$peer" ]; then
          run_one "$name.ranks$ranks.peer.round$round" \
            env "${peer_settings[@]}" "BENCHMARK_RANKS=$ranks" "$SAGE_PYTHON" "$peer"
        fi
      done
    else
      export OMP_NUM_THREADS=$threads
      run_one "$name.round$round" "$build/bin/bench_$name"
      if [ -f "$peer" ]; then
        run_one "$name.peer.round$round" env "${peer_settings[@]}" "$SAGE_PYTHON" "$peer"
      fi
    fi
  done
done

step "making the table"
"$SAGE_PYTHON" "$folder/table.py" table "$results" "${names[@]}" | tee "$results/table.md"
