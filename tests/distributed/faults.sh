#!/bin/bash
# faults.sh MPIRUN PROGRAM RANKS WAY STATUS SPEAKER PATTERN [DEADLINE]: runs the program, whose last rank fails in the
# given way, and checks that the job ends in time with the status, that the message comes from the rank (`last`, `any`,
# or `none`: there must be no message) and matches the pattern, and that no process is left.
# In time: 10 s after the fault, or, with a deadline of collectives in seconds, so long and 1 s more.
set -u
mpirun=$1 program=$2 ranks=$3 way=$4 status=$5 speaker=$6 pattern=$7 deadline=${8:-}
output=$(mktemp)
trap 'rm -f "$output"' EXIT
start=$(date +%s%3N)
timeout 40 "$mpirun" --oversubscribe --bind-to none -np "$ranks" "$program" "$way" ${deadline:+"$deadline"} \
  >"$output" 2>&1
got=$?
end=$(date +%s%3N)
cat "$output"
fail() {
  echo "FAILED ($way, $ranks ranks): $1"
  exit 1
}
[ "$got" -eq "$status" ] || fail "exit status $got, expected $status"

fault=$(sed -n 's/^fault at //p' "$output" | head -n 1)
took=$((end - ${fault:-$start}))
limit=10000
# Half a second is for mpirun itself, which ends its daemons after the last rank.
[ -z "$deadline" ] || limit=$((deadline * 1000 + 1500))
[ "$took" -le "$limit" ] || fail "took $took ms, expected at most $limit"

messages=$(grep '^sage: ' "$output" | grep -v 'signal 15')
case $speaker in
none) [ -z "$messages" ] || fail "there should be no message" ;;
last) pattern="^sage: \[rank $((ranks - 1))\] $pattern" ;;
any) [ "$ranks" -eq 1 ] && pattern="^sage: $pattern" || pattern="^sage: \[rank [0-9]*\] $pattern" ;;
esac
grep -q "$pattern" "$output" || fail "nothing matches '$pattern'"

sleep 0.2 # the memory of a killed process takes a moment to be given back
# shellcheck disable=SC2013 # words: numbers
for pid in $(sed -n 's/^pid //p' "$output"); do
  if kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; then
    fail "process $pid is left"
  fi
done
[ "$(grep -c '^pid ' "$output")" -eq "$ranks" ] || fail "not every rank told its pid"
echo "ok ($way, $ranks ranks): status $got, $took ms"
