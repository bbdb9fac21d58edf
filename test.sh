#!/usr/bin/env bash
# Sets up what is missing, builds everything and runs all tests. Safe to repeat. Ends with one line that says how it
# went, and with a non-zero exit status if anything failed.
#
# Real data for the tests is looked for in SAGE_DATA_DIR, else in the packed data beside the checkout
# (../shared/data/unpack.sh, which unpacks into the cache), else in the cache. Tests whose data is not found are not
# registered, and the list below says so.
source "$(dirname "${BASH_SOURCE[0]}")/tools/common.sh"
source "$project/tools/setup.sh"
source "$project/tools/build.sh"

if [ $# -gt 0 ]; then give_up "test.sh takes no arguments: it sets up, builds and runs all tests."; fi
set_up
unpack_beside=$project/../shared/data/unpack.sh
if [ "$SAGE_DATA_DIR" = "$SAGE_CACHE/data" ] && [ -x "$unpack_beside" ]; then
  step "unpacking the real data beside the checkout into $SAGE_CACHE/data" "$log_folder/unpack.log"
  "$unpack_beside" "$SAGE_CACHE/data" >"$log_folder/unpack.log" 2>&1
fi

step "looking for real data in $SAGE_DATA_DIR"
for name in digits fashion-mnist cifar-10-batches-bin cifar-100-subset tiny-imagenet-20 hymenoptera-30; do
  if [ -d "$SAGE_DATA_DIR/$name" ]; then
    say "   $name: found"
  else
    say "   $name: not found, so its tests are not registered"
  fi
done

# Which tests there are depends on the data found, so CMake looks again each time.
build cuda

failed=()
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
step "running the C++ tests (log: build/log/ctest.log)" "$log_folder/ctest.log"
ctest --test-dir "$project/build/cuda" --output-on-failure --no-tests=error 2>&1 | tee "$log_folder/ctest.log" || failed+=(ctest)

step "running the Python tests (log: build/log/pytest.log)" "$log_folder/pytest.log"
SAGE_BUILD_DIR=$project/build/cuda "$SAGE_PYTHON" -m pytest -q -p no:cacheprovider "$project/tests" 2>&1 |
  tee "$log_folder/pytest.log" || failed+=(pytest)

# Counts of single GoogleTest tests, which ctest counts by program.
googletests=$("$SAGE_PYTHON" "$project/tools/count_tests.py" "$project/build/cuda/Testing/Temporary/LastTest.log" || true)
ctests=$(grep -E 'tests passed' "$log_folder/ctest.log" | tail -n 1 || true)
pytests=$(tail -n 1 "$log_folder/pytest.log" || true)
say ""
say "GoogleTest: $googletests"
say "ctest:      $ctests"
say "pytest:     $pytests"
if [ ${#failed[@]} -gt 0 ]; then
  trap - ERR
  say "test.sh: FAILED (${failed[*]}); the logs are in build/log/."
  exit 1
fi
say "test.sh: all tests passed."
