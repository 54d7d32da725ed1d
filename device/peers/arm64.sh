#!/bin/sh
# Makes what instructions.sh runs other runtimes on, under an emulator: Debian's Python for 64-bit ARM and the runtimes'
# wheels, in $XDG_CACHE_HOME/graft/peers/arm64 or ~/.cache/graft/peers/arm64 (260 MB). Prints that folder.
#
# usage: arm64.sh      needs Debian (apt-get, dpkg), a network, and setup.sh; no root, and the system stays as it is
set -eu

here=$(cd "$(dirname "$0")" && pwd)
peers=${XDG_CACHE_HOME:-$HOME/.cache}/graft/peers
arm64=$peers/arm64
if [ ! -d "$arm64" ]; then
    unfinished=$(mktemp -d "$arm64.XXXXXX")
    trap 'rm -rf "$unfinished"' EXIT

    # An apt of its own that has nothing installed: so all that Python needs comes along.
    apt=$unfinished/apt
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    get() {
        apt-get --quiet --quiet -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root \
            -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" "$@" >&2
    }
    get update
    get install --yes --download-only --no-install-recommends python3 libstdc++6
    for package in "$apt"/cache/archives/*.deb; do
        dpkg -x "$package" "$unfinished/system"
    done
    rm -r "$apt"

    python=$(readlink "$unfinished/system/usr/bin/python3")
    grep -E '^(ai-edge-litert|numpy|onnxruntime)==' "$here/requirements.txt" >"$unfinished/requirements.txt"
    "$peers/bin/python" -m pip install --quiet --target "$unfinished/runtimes" --only-binary :all: \
        --python-version "${python#python}" --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
        --platform manylinux2014_aarch64 --requirement "$unfinished/requirements.txt" >&2
    # Another run may have been faster: then its folder stays and ours goes.
    mv -T "$unfinished" "$arm64" 2>/dev/null || [ -d "$arm64" ]
fi
echo "$arm64"
