#!/bin/sh
# faults.sh MPIRUN PROGRAM RANKS WAY STATUS MESSAGES ABORTS: runs the program, which fails in the given way, and checks
# that the job ends within 10 s with the status, that the message was printed so many times with the number of a rank,
# and, where ABORTS is no, that MPI was ended in order.
set -u
mpirun=$1 program=$2 ranks=$3 way=$4 status=$5 messages=$6 aborts=$7
output=$(mktemp)
trap 'rm -f "$output"' EXIT
start=$(date +%s)
timeout 30 "$mpirun" --oversubscribe --bind-to none -np "$ranks" "$program" "$way" >"$output" 2>&1
got=$?
seconds=$(($(date +%s) - start))
cat "$output"
fail() {
  echo "FAILED ($way, $ranks ranks): $1"
  exit 1
}
[ "$got" -eq "$status" ] || fail "exit status $got, expected $status"
[ "$seconds" -le 10 ] || fail "took $seconds s"
count=$(grep -c '^sage: ' "$output")
[ "$count" -eq "$messages" ] || fail "$count messages, expected $messages"
if [ "$messages" -gt 0 ] && [ "$ranks" -gt 1 ]; then
  grep -q '^sage: \[rank [0-9]*\] ' "$output" || fail "the message names no rank"
fi
case $way in
one_*) grep -q "^sage: \[rank $((ranks - 1))\] error: the deliberate failure$" "$output" || fail "not the last rank's message" ;;
esac
# The other way round cannot be asked: mpirun does not always get to print its notice of MPI_Abort.
if [ "$aborts" = no ] && grep -q MPI_ABORT "$output"; then fail "the job was aborted"; fi
echo "ok ($way, $ranks ranks): status $got after $seconds s"
