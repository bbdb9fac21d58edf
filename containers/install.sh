#!/usr/bin/env bash
# install.sh setup|build: what the Dockerfile and the Apptainer recipe run, on a bare Debian or Ubuntu image, as root.
#
#   setup   Debian packages, and LibTorch with the Python tools in SAGE_CACHE (default here: /opt/sage/cache)
#   build   the program, installed in SAGE_PREFIX (default: /opt/sage); the build folder is removed
#
# Two steps, so that an image builder keeps the first where only sources have changed.
export SAGE_CACHE=${SAGE_CACHE:-/opt/sage/cache}
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tools/common.sh"
# shellcheck source=tools/setup.sh
source "$project/tools/setup.sh"
# shellcheck source=tools/build.sh
source "$project/tools/build.sh"
prefix=${SAGE_PREFIX:-/opt/sage}

case "$*" in
  setup)
    set_up
    ln -sfn "$(dirname "$(dirname "$SAGE_PYTHON")")" "$SAGE_CACHE/python" # one name, whatever the versions
    chmod -R a+rX "$SAGE_CACHE" # for whoever the container runs as
    rm -rf /var/lib/apt/lists/* "$HOME/.cache/pip"
    ;;
  build)
    set_up_python
    build cuda sage
    cmake --install "$project/build/cuda" --prefix "$prefix"
    rm -rf "$project/build"
    ;;
  *) give_up "Usage: containers/install.sh setup|build" ;;
esac
say "containers/install.sh $*: done."
