#!/usr/bin/env bash
# Starts `sage` under mpirun, here or on the hosts of a file, one rank per GPU or per core (or several):
#
#   launch/mpirun.sh train configs/digits_quickstart.yaml output_dir=runs/digits
#   launch/mpirun.sh --ranks 2 --threads 4 train configs/cifar10_sage.yaml
#   launch/mpirun.sh --hostfile hosts --gpus 4 --interface eth0 train configs/cifar10_sage.yaml device=cuda
#
# docs/clusters.md explains hosts, interfaces and what to look at when a job does not start.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
  cat <<'TEXT'
Usage: launch/mpirun.sh [options] COMMAND [arguments of sage ...]

  --ranks N          ranks in all (default: one for each GPU of --gpus, else one for each core or slot)
  --gpus N           GPUs of each node: one rank each; without it no GPU is counted
  --threads N        compute threads of each rank (default: the cores of a node / its ranks)
  --hostfile FILE    one line a host, `name slots=N`, N the ranks that it takes; without it: this machine
  --interface NAMES  network interfaces for MPI and NCCL, with commas (eth0,ib0); default: MPI's choice
  --oversubscribe    more ranks than slots or cores
  --dry-run          print the command and stop

SAGE names the program (default: build/cuda/bin/sage of this project, else `sage` along PATH).
Signals: kill -USR1 of the mpirun process saves and stops (docs/exit_codes.md).
TEXT
}

give_up() {
  echo "launch/mpirun.sh: $1" >&2
  exit 2
}

ranks='' gpus='' threads='' hostfile='' interface='' oversubscribe=false dry_run=false
while [ $# -gt 0 ]; do
  case $1 in
    --ranks | --gpus | --threads | --hostfile | --interface) [ $# -ge 2 ] || give_up "$1 wants a value; --help shows which" ;;&
    --ranks | --gpus | --threads) [[ $2 =~ ^[1-9][0-9]*$ ]] || give_up "$1 wants a whole number of at least 1, not '$2'" ;;&
    --ranks) ranks=$2 && shift ;;
    --gpus) gpus=$2 && shift ;;
    --threads) threads=$2 && shift ;;
    --hostfile) hostfile=$2 && shift ;;
    --interface) interface=$2 && shift ;;
    --oversubscribe) oversubscribe=true ;;
    --dry-run) dry_run=true ;;
    -h | --help) usage && exit 0 ;;
    -*) give_up "unknown option $1; --help shows the options" ;;
    *) break ;;
  esac
  shift
done
[ $# -gt 0 ] || give_up "a command of sage is missing, for example train CONFIG.yaml; --help shows how"
command -v mpirun >/dev/null || give_up "mpirun is not along PATH (Debian: openmpi-bin)"

sage=${SAGE:-$here/../build/cuda/bin/sage}
if [ -z "${SAGE:-}" ] && [ ! -x "$sage" ]; then sage=$(command -v sage || true); fi
if [ -z "$sage" ] || [ ! -x "$sage" ]; then give_up "no program at ${sage:-build/cuda/bin/sage}: build first, or set SAGE"; fi
sage=$(realpath "$sage")

hosts=1 slots=0
if [ -n "$hostfile" ]; then
  [ -f "$hostfile" ] || give_up "$hostfile: no such hostfile"
  while read -r host rest; do
    case $host in '' | '#'*) continue ;; esac
    [[ " $rest" =~ \ slots=([0-9]+) ]] || give_up "$hostfile: '$host' has no slots=N: how many ranks does it take?"
    if [ -n "$gpus" ] && [ "${BASH_REMATCH[1]}" -ne "$gpus" ]; then
      give_up "$hostfile: '$host' has slots=${BASH_REMATCH[1]}, and --gpus says $gpus a node: one rank per GPU"
    fi
    slots=$((slots + BASH_REMATCH[1])) hosts=$((hosts + 1))
  done <"$hostfile"
  hosts=$((hosts - 1))
  [ "$hosts" -gt 0 ] || give_up "$hostfile names no host"
fi
if [ -z "$ranks" ]; then
  if [ -n "$hostfile" ]; then ranks=$slots; elif [ -n "$gpus" ]; then ranks=$gpus; else ranks=$(nproc); fi
fi
if [ -n "$hostfile" ] && [ "$ranks" -gt "$slots" ] && ! $oversubscribe; then
  give_up "--ranks $ranks are more than the $slots slots of $hostfile: give fewer, or --oversubscribe"
fi
if [ -n "$gpus" ] && [ "$ranks" -gt $((gpus * hosts)) ]; then
  give_up "--ranks $ranks are more than $hosts x $gpus GPUs: one rank per GPU"
fi
if [ -z "$hostfile" ] && [ -z "$gpus" ] && [ "$ranks" -gt "$(nproc)" ] && ! $oversubscribe; then
  give_up "--ranks $ranks are more than the $(nproc) cores here: give fewer, or --oversubscribe"
fi

# Ranks are not bound: each shares its node's cores evenly with the others there, and has threads of its own.
command=(mpirun -np "$ranks" --bind-to none)
if [ -n "$hostfile" ]; then command+=(--hostfile "$hostfile"); fi
if [ -n "$hostfile" ] && [ -n "$gpus" ]; then command+=(--map-by "ppr:$gpus:node"); fi
if $oversubscribe; then command+=(--oversubscribe); fi
if [ -n "$threads" ]; then command+=(-x "OMP_NUM_THREADS=$threads"); fi
if [ -n "$interface" ]; then
  command+=(--mca btl_tcp_if_include "$interface" --mca oob_tcp_if_include "$interface" -x "NCCL_SOCKET_IFNAME=$interface")
fi
# What the ranks of other hosts need of this environment.
for name in SAGE_DATA_DIR LD_LIBRARY_PATH NCCL_DEBUG; do
  if [ -n "${!name:-}" ]; then command+=(-x "$name"); fi
done
command+=("$sage" "$@")
if $dry_run; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
if [ "$(id -u)" -eq 0 ] && [ -z "${OMPI_ALLOW_RUN_AS_ROOT_CONFIRM:-}" ]; then
  give_up "mpirun refuses to run as root: set OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, or be another user"
fi
exec "${command[@]}"
