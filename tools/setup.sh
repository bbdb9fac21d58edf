# Set-up of a bare Debian 12 or Ubuntu 24.04 machine; sourced by quickstart.sh, test.sh and .ci/run after common.sh.
# Installs only what is missing, and needs root only for that.
#
# Gives SAGE_PYTHON (a Python with LibTorch and the tools of tools/requirements.txt), the digits data set in the cache,
# and SAGE_DATA_DIR.
# shellcheck shell=bash disable=SC2154 # variables of common.sh

# ---- Debian packages -------------------------------------------------------------------------------------------------
needed_packages=(cmake ninja-build g++ git ca-certificates libopenmpi-dev openmpi-bin libyaml-cpp-dev libfmt-dev
  libgtest-dev nlohmann-json3-dev libcli11-dev zlib1g-dev libjpeg-dev libpng-dev libcurl4-openssl-dev
  xz-utils python3)
helpful_packages=(ccache mold) # they only make building faster

package_installed() {
  dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

missing_of() {
  local name
  for name in "$@"; do
    package_installed "$name" || printf '%s ' "$name"
  done
}

# install_packages NAME...: with apt-get, as root or through sudo. Names the command where neither is possible.
install_packages() {
  local as_root=() log=$log_folder/packages.log
  step "installing the Debian packages $*" "$log"
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      give_up "Root is needed to install them and there is no sudo here. As root, run:
  apt-get update && apt-get install -y $*
and start this script again."
    fi
    say "   (not root: using sudo, which may ask for your password)"
    as_root=(sudo)
  fi
  if ! {
    "${as_root[@]}" apt-get update &&
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
  } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    give_up "apt-get could not install them (log: $log). Try by hand:
  apt-get update && apt-get install -y --no-install-recommends $*"
  fi
}

set_up_packages() {
  step "looking for the Debian packages that the build needs"
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "   This is neither Debian nor Ubuntu (untried): going on with what is installed. The build needs what Debian calls"
    say "   ${needed_packages[*]}"
    return
  fi
  local missing helpful
  missing=$(missing_of "${needed_packages[@]}")
  helpful=$(missing_of "${helpful_packages[@]}")
  if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # words on purpose
    install_packages $missing $helpful
  elif [ -n "$helpful" ]; then
    say "   All there. (${helpful% } would make building faster.)"
  else
    say "   All there."
  fi
}

# ---- Python environment ----------------------------------------------------------------------------------------------
# The versions that tools/requirements.txt was pinned for.
usable_python() {
  "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

choose_python() {
  local candidate
  for candidate in "$(command -v python3 || true)" /usr/bin/python3; do
    if [ -n "$candidate" ] && usable_python "$candidate"; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

# Libraries of an installed CUDA 13 toolkit that the wheel would otherwise bring along as 3 GB of packages.
toolkit_has_libraries() {
  local library known
  known=$(ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null || true)
  for library in cudart.so.13 cublas.so.13 cudnn.so.9 nccl.so.2 cusparse.so.12 cufft.so.12 cupti.so.13; do
    case $known in *"lib$library"*) ;; *) return 1 ;; esac
  done
}

imports_work() { "$1" -c 'import torch, torchvision, numpy, sklearn, matplotlib, safetensors, pytest' >/dev/null 2>&1; }

# make_environment FOLDER PYTHON: the whole environment, in FOLDER.
make_environment() {
  local folder=$1 python=$2 pip=("$1/bin/python" -m pip --disable-pip-version-check --quiet --retries 5)
  "$python" -m venv "$folder"
  "${pip[@]}" install -r "$project/tools/requirements.txt"
  if toolkit_has_libraries; then
    say "   A CUDA 13 toolkit with cuDNN and NCCL is installed: torch without its CUDA packages."
    "${pip[@]}" install --no-deps -r "$project/tools/requirements-torch.txt" \
      nvidia-cusparselt-cu13==0.8.0 nvidia-nvshmem-cu13==3.4.5 nvidia-cufile==1.20.0.107
    if imports_work "$folder/bin/python"; then return; fi
    say "   torch does not start with that toolkit: installing its own CUDA packages after all."
  fi
  "${pip[@]}" install -r "$project/tools/requirements-torch.txt" -c "$project/tools/requirements.txt"
  imports_work "$folder/bin/python" || { "$folder/bin/python" -c 'import torch, torchvision'; return 1; }
}

set_up_python() {
  local python key final aside log=$log_folder/python.log
  step "looking for a Python environment with LibTorch" "$log"
  : >"$log"
  python=$(choose_python) || give_up "No Python 3.11 to 3.13 found: neither python3 on the PATH nor /usr/bin/python3 is one."
  key=$({ cat "$project/tools/requirements.txt" "$project/tools/requirements-torch.txt" && "$python" -VV && echo "$python"; } |
    sha256sum | cut -c1-16)
  final=$SAGE_CACHE/venv-$key
  # One set-up at a time: a second one waits here and then finds the environment made. It is made aside and renamed when
  # whole, so what an interrupted set-up leaves is never taken for an environment.
  exec 8>"$SAGE_CACHE/set-up.lock"
  flock 8
  if [ ! -x "$final/bin/python" ]; then
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
      if command -v apt-get >/dev/null; then
        install_packages python3-venv
        step "making a Python environment" "$log"
      else
        give_up "$python lacks the venv module: install it (Debian: python3-venv)."
      fi
    fi
    say "   Making $final (downloads LibTorch, over 500 MB)"
    rm -rf "$SAGE_CACHE"/venv-aside.*
    aside=$(mktemp -d "$SAGE_CACHE/venv-aside.XXXXXX")
    # In a process of its own: `set -e` does not hold inside a condition.
    bash -c 'source "$1"; source "$2"; trap - ERR; make_environment "$3" "$4"' - "$project/tools/common.sh" \
      "$project/tools/setup.sh" "$aside" "$python" > >(tee -a "$log") 2>&1 ||
      give_up "The Python packages could not be installed (log: $log). Is there a network, and room in $SAGE_CACHE?"
    grep -rlIF "$aside" "$aside/bin" | xargs -r sed -i "s|$aside|$final|g" # the scripts in bin/ name their folder
    mv -T "$aside" "$final"
  fi
  flock -u 8
  exec 8>&-
  export SAGE_PYTHON=$final/bin/python
  imports_work "$SAGE_PYTHON" ||
    give_up "The environment $final no longer works. Remove that folder and start again."
  say "   $SAGE_PYTHON ($("$SAGE_PYTHON" -c 'import torch; print("LibTorch", torch.__version__)'))"
}

# ---- Data ------------------------------------------------------------------------------------------------------------
# The real 8x8 handwritten digits (1,797 of them) come with scikit-learn.
set_up_digits() {
  step "putting the handwritten digits into the data folder"
  export SAGE_DATA_DIR=${SAGE_DATA_DIR:-$SAGE_CACHE/data}
  local source
  source=$("$SAGE_PYTHON" -c 'import importlib.util as u, pathlib
print(pathlib.Path(u.find_spec("sklearn").origin).parent / "datasets/data/digits.csv.gz")')
  digits_folder=$SAGE_CACHE/data/digits
  if [ ! -s "$digits_folder/digits.csv.gz" ]; then
    mkdir -p "$digits_folder"
    cp "$source" "$digits_folder/.digits.$$"
    mv "$digits_folder/.digits.$$" "$digits_folder/digits.csv.gz"
  fi
  say "   $digits_folder/digits.csv.gz"
}

set_up() {
  set_up_packages
  set_up_python
  set_up_digits
}
