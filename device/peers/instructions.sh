#!/bin/sh
# Prints how many million instructions graft-device and other runtimes take for one picture on ARM, from its pixels or
# normalised values to logits: a table for docs/benchmarks.md. Counts are no times: they know nothing of latency and
# caches, but are the same on every machine.
#
# One core: the count is of one thread, and laying weights out would use several. The other runtimes have no wheels for
# 32-bit; of the files that ONNX Runtime may run, the one with fewer instructions counts.
#
# usage: instructions.sh MODEL…      needs gcc, Debian's qemu-user, and libc6-armhf-cross for 32-bit; see arm64.sh, setup.sh
set -eu

cd "$(dirname "$0")/../.."
here=$PWD/device/peers
peers=${XDG_CACHE_HOME:-$HOME/.cache}/graft/peers
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
gcc -shared -fPIC -O2 -o "$scratch/instructions.so" "$here/instructions.c"
[ -x "$peers/bin/python" ] || "$here/setup.sh" >&2
others=$("$here/arm64.sh")
arm64=$(device/cross arm64 --profile release)
armv7=$(device/cross armv7 --profile release)

# What the emulated processors see as the system, with what Linux tells of them: the runtimes choose their code by it.
system() {
    cpu=$1 part=$2 features=$3
    mkdir -p "$scratch/$cpu/proc"
    ln -s "$others"/system/* "$scratch/$cpu"
    printf '%s\t: %s\n' processor 0 Features "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid$features" \
        'CPU implementer' 0x41 'CPU architecture' 8 'CPU variant' 0x1 'CPU part' "$part" 'CPU revision' 0 \
        >"$scratch/$cpu/proc/cpuinfo"
}
system cortex-a76 0xd0b ' atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp'
system cortex-a53 0xd03 ''

# Runs a command and keeps what it and the plugin say.
count() {
    "$@" 2>"$scratch/messages" >/dev/null || { cat "$scratch/messages" >&2; exit 1; }
}
# Millions with one decimal, of so many runs.
millions() {
    echo $(($1 / $2 / 100000)) | sed 's/\(.\)$/.\1/'
}

# Of our two totals the difference is that of the runs; each further run is done twice, once for the total and once layer
# by layer.
total() {
    count "$@"
    sed -n 's/^instructions: //p' "$scratch/messages"
}
ours() {
    few=$(total "$@" bench "$model" --runs 2)
    more=$(total "$@" bench "$model" --runs 6)
    millions $((more - few)) 8
}

# The other runtimes write a line when they have run a few times, and one after further 4 runs.
runs() {
    root=$scratch/$1
    count taskset -c 0 qemu-aarch64 -L "$root" -plugin "$scratch/instructions.so" -cpu "$1" \
        -E PYTHONPATH="$others/runtimes" -E PYTHONDONTWRITEBYTECODE=1 -E OPENBLAS_NUM_THREADS=1 \
        -E LD_LIBRARY_PATH="$root/usr/lib/aarch64-linux-gnu:$root/lib/aarch64-linux-gnu" \
        "$root/usr/bin/python3" "$here/runtime.py" "$2" "$3" 1 <"$scratch/four"
    sed -n 's/^so far: //p' "$scratch/messages" | sed -n '1p;$p' | { read -r few && read -r more && echo $((more - few)); }
}
echo 4 >"$scratch/four"

# On a processor, of a runtime, with the best of its files.
theirs() {
    cpu=$1 runtime=$2
    shift 2
    for kind in "$@"; do
        file=$(PYTHONPATH=$here "$peers/bin/python" -c 'import pathlib, peer, sys
print(peer.file_of(sys.argv[1], pathlib.Path(sys.argv[2])))' "$kind" "$model")
        runs "$cpu" "$runtime" "$file"
    done | sort -n | { read -r fewest && millions "$fewest" 4; }
}
version() {
    echo "$1 $(sed -n "s/^$2==//p" "$here/requirements.txt")"
}

echo '| model | runtime | Cortex-A76: dot products | Cortex-A53: none | Cortex-A7: 32-bit |'
echo '|---|---|---|---|---|'
for model in "$@"; do
    a76=$(ours taskset -c 0 qemu-aarch64 -plugin "$scratch/instructions.so" -cpu cortex-a76 "$arm64")
    a53=$(ours taskset -c 0 qemu-aarch64 -plugin "$scratch/instructions.so" -cpu cortex-a53 "$arm64")
    a7=$(ours taskset -c 0 qemu-arm -L /usr/arm-linux-gnueabihf -plugin "$scratch/instructions.so" -cpu cortex-a7 "$armv7")
    echo "| $(basename "$(dirname "$model")")/$(basename "$model") | graft-device | $a76 | $a53 | $a7 |"
    a76=$(theirs cortex-a76 onnxruntime model qdq)
    a53=$(theirs cortex-a53 onnxruntime model qdq)
    echo "| | $(version onnxruntime onnxruntime) | $a76 | $a53 | |"
    a76=$(theirs cortex-a76 litert tflite)
    a53=$(theirs cortex-a53 litert tflite)
    echo "| | $(version litert ai-edge-litert) | $a76 | $a53 | |"
done
