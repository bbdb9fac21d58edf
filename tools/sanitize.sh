#!/usr/bin/env bash
# sanitize.sh [asan|tsan]: builds everything with a sanitizer (both, one after the other, without an argument) in
# build/asan or build/tsan and runs all C++ tests under it. Sets up what is missing. Safe to repeat. Ends with the
# counts, and with a non-zero exit status if any test failed or a sanitizer found anything.
#
# asan: addresses, leaks and undefined behaviour; without detect_stack_use_after_return, for which GCC 12 lays variables of
# 64 bytes (the vectors of AVX-512) at addresses that they cannot have. tsan: data races between threads
# of our own (loaders, writers, MPI's worker, the watchdog); OpenMP's regions run with one thread there, because the
# barriers of GCC's OpenMP cannot be seen by the sanitizer, which then reports every use after them. What they must overlook in
# libraries that are not built with them, and why, is in tests/sanitizers/.
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=tools/setup.sh
source "$project/tools/setup.sh"
# shellcheck source=tools/build.sh
source "$project/tools/build.sh"

case "$*" in
"") presets=(asan tsan) ;;
asan | tsan) presets=("$1") ;;
*) give_up "Usage: tools/sanitize.sh [asan|tsan]" ;;
esac
set_up

failed=()
summary=()
for preset in "${presets[@]}"; do
  begin=$SECONDS
  build "$preset"
  built=$SECONDS
  log=$log_folder/ctest-$preset.log
  step "running the C++ tests under $preset (log: build/log/ctest-$preset.log)" "$log"
  (cd "$project" && ctest --preset "$preset" --no-tests=error) 2>&1 | tee "$log" || failed+=("$preset")
  counts=$("$SAGE_PYTHON" "$project/tools/count_tests.py" "$project/build/$preset/Testing/Temporary/LastTest.log" || true)
  summary+=("$preset: $counts; $(grep -E 'tests passed' "$log" | tail -n 1 || true)")
  summary+=("$preset: built in $((built - begin)) s, tested in $((SECONDS - built)) s")
done
say ""
printf '%s\n' "${summary[@]}"
if [ ${#failed[@]} -gt 0 ]; then
  trap - ERR
  say "sanitize.sh: FAILED (${failed[*]}); the logs are in build/log/."
  exit 1
fi
say "sanitize.sh: all tests passed."
