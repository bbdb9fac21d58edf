# Configuring and building; sourced by quickstart.sh and test.sh after common.sh and setup.sh.
# shellcheck shell=bash disable=SC2154 # variables of common.sh

# Compiler processes that fit: one a core, each with 1.5 GB of the memory that is free now.
build_jobs() {
  local cores memory_mib jobs
  cores=$(nproc)
  memory_mib=$(awk '/^MemAvailable:/ {print int($2 / 1024)}' /proc/meminfo)
  jobs=$((memory_mib / 1536))
  if [ "$jobs" -lt 1 ]; then jobs=1; fi
  if [ "$jobs" -gt "$cores" ]; then jobs=$cores; fi
  echo "$jobs"
}

# build PRESET [TARGET...]: everything, or these targets, in build/PRESET.
build() {
  local preset=$1 folder=$project/build/$1 log=$log_folder/build-$1.log fresh=() targets=() jobs
  shift
  if [ $# -gt 0 ]; then targets=(--target "$@"); fi
  if [ -z "${CUDACXX:-}" ] && ! command -v nvcc >/dev/null && [ -x /usr/local/cuda/bin/nvcc ]; then
    export CUDACXX=/usr/local/cuda/bin/nvcc
  fi
  step "configuring (preset $preset, folder build/$preset)" "$log"
  # Another LibTorch than last time: what CMake remembers of the old one would be mixed with the new one.
  if [ -f "$folder/CMakeCache.txt" ] && ! grep -qF "LIBTORCH_PYTHON:FILEPATH=$SAGE_PYTHON" "$folder/CMakeCache.txt"; then
    fresh=(--fresh)
  fi
  (cd "$project" && cmake --preset "$preset" "${fresh[@]}") >"$log" 2>&1
  grep -E '^-- (CUDA part|Real data)' "$log" | sed 's/^-- /   /' || true
  jobs=$(build_jobs)
  step "building with $jobs processes (log: build/log/build-$preset.log)" "$log"
  cmake --build "$folder" --parallel "$jobs" "${targets[@]}" 2>&1 | tee -a "$log" |
    awk '/^\[[0-9]+\/[0-9]+\]/ { if (++n % 20 == 0) { print "   " $1; fflush() } next }
         /ninja: no work to do/ { print "   nothing to do"; next }
         /error|warning|FAILED/ { print; fflush() }'
}
