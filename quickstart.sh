#!/usr/bin/env bash
# From a bare Debian 12 or Ubuntu 24.04 machine to a comparison on real data: sets up, builds, trains on the 8x8
# handwritten digits with two ranks, prints a table and draws a plot. Safe to repeat: what is finished is not repeated.
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools/common.sh"

for argument in "$@"; do
  case $argument in
    --fresh | --seeds | --ranks | --methods | --labels | --help | -h | *=*) ;;
    -*) give_up "Unknown option $argument. ./quickstart.sh --help shows the options." ;;
  esac
done
case ${1:-} in
  -h | --help)
    cat <<'TEXT'
Usage: ./quickstart.sh [--fresh] [--seeds N] [any option of launch/compare.sh]

Sets up what is missing, builds, then compares on the real 8x8 handwritten digits, with 2 MPI ranks and the same number
of optimiser steps for all: SAGE at 25 % (keep: top, keep: filter), class-balanced random 25 % and all data, on clean
labels and with 20 % wrong labels, 3 seeds each. The run folders, the table and the plot are in runs/quickstart/.
TEXT
    exit 0
    ;;
esac

# shellcheck source=tools/setup.sh
source "$project/tools/setup.sh"
# shellcheck source=tools/build.sh
source "$project/tools/build.sh"
set_up
build cuda sage
# shellcheck disable=SC2154 # of setup.sh
"$project/launch/compare.sh" "$project/configs/digits_quickstart.yaml" "$project/runs/quickstart" \
  "data.path=$digits_folder" "$@"
say "quickstart.sh: done. The same for your own configuration: launch/compare.sh --help"
