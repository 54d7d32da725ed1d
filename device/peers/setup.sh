#!/bin/sh
# Makes the Python environment and the programs that run other runtimes, where graft-device looks for them:
# $XDG_CACHE_HOME/graft/peers, or ~/.cache/graft/peers.
#
# usage: setup.sh              the runtimes and what makes a model's twins for them: 2 GB
#        setup.sh --runtimes   without what makes twins, for a board that gets them from elsewhere: 0.5 GB
#        setup.sh --networks   also what makes the networks of networks.py (PyTorch): 5 GB more
# PYTHON names another interpreter, 3.11 to 3.13. Without cargo, rten is left out.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
peers=${XDG_CACHE_HOME:-$HOME/.cache}/graft/peers
case ${1:-} in
    '' | --runtimes | --networks) ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

"${PYTHON:-python3}" -m venv "$peers"
install() { "$peers/bin/python" -m pip install --quiet "$@"; }
cp "$here"/*.py "$peers"
install --requirement "$here/requirements.txt"
if [ "${1:-}" != --runtimes ]; then
    install --requirement "$here/requirements-twins.txt"
    # Only its program is used, which needs nothing of the PyTorch that the package asks for.
    install --no-deps --requirement "$here/requirements-pnnx.txt"
fi
if [ "${1:-}" = --networks ]; then
    install --requirement "$here/requirements-networks.txt"
fi
if command -v cargo >/dev/null; then
    cargo install --quiet --locked --force --path "$here/rten" --root "$peers" --target-dir "$peers/target"
    rm -r "$peers/target"
fi
