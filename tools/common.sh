# Sourced by the scripts at the top of the project: where things are, messages, and a clear word on failure.
# shellcheck shell=bash
set -Eeuo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export SAGE_CACHE=${SAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sage}
log_folder=$project/build/log
mkdir -p "$log_folder" "$SAGE_CACHE"

current_step="starting"
current_log=""

say() { printf '%s\n' "$*"; }

# step "what is being done" [log file]: what `report_failure` names if it goes wrong.
step() {
  current_step=$1
  current_log=${2:-}
  say "== $1"
}

# give_up "what is wrong and what to do": ends the script with that message as its last word.
give_up() {
  trap - ERR
  printf '\n%s FAILED while: %s\n%s\n' "$(basename "$0")" "$current_step" "$*" >&2
  exit 1
}

report_failure() {
  local status=$1
  trap - ERR
  printf '\n%s FAILED (exit status %s) while: %s\n' "$(basename "$0")" "$status" "$current_step" >&2
  if [ -n "$current_log" ] && [ -s "$current_log" ]; then
    printf 'The end of its log, %s:\n' "$current_log" >&2
    tail -n 25 "$current_log" >&2
  fi
  printf 'It is safe to run %s again.\n' "$(basename "$0")" >&2
  exit "$status"
}
trap 'report_failure $?' ERR
trap 'trap - ERR; printf "\n%s: stopped while: %s\n" "$(basename "$0")" "$current_step" >&2; exit 130' INT TERM

# OpenMPI refuses to start as root unless told twice.
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
