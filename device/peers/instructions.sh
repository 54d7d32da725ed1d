#!/bin/sh
# Prints how many million instructions graft-device takes for one picture on ARM, from pixels to logits: a table for
# docs/benchmarks.md. Counts are no times: they know nothing of latency and caches, but are the same on every machine.
#
# One core: the count is of one thread, and laying weights out would use several.
#
# usage: instructions.sh MODEL…      needs gcc, Debian's qemu-user, and libc6-armhf-cross for 32-bit
set -eu

cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
gcc -shared -fPIC -O2 -o "$scratch/instructions.so" device/peers/instructions.c
arm64=$(device/cross arm64 --profile release)
armv7=$(device/cross armv7 --profile release)

# Each further run is done twice, once for the total and once layer by layer.
count() {
    "$@" 2>&1 >/dev/null | sed -n 's/^instructions: //p'
}
a_picture() {
    model=$1
    shift
    few=$(count "$@" bench "$model" --runs 2)
    more=$(count "$@" bench "$model" --runs 6)
    echo $(((more - few) / 8 / 100000)) | sed 's/\(.\)$/.\1/'
}

echo '| model | Cortex-A76: dot products | Cortex-A53: none | Cortex-A7: 32-bit |'
echo '|---|---|---|---|'
for model in "$@"; do
    a76=$(a_picture "$model" taskset -c 0 qemu-aarch64 -plugin "$scratch/instructions.so" -cpu cortex-a76 "$arm64")
    a53=$(a_picture "$model" taskset -c 0 qemu-aarch64 -plugin "$scratch/instructions.so" -cpu cortex-a53 "$arm64")
    a7=$(a_picture "$model" taskset -c 0 qemu-arm -L /usr/arm-linux-gnueabihf -plugin "$scratch/instructions.so" -cpu cortex-a7 "$armv7")
    echo "| $(basename "$(dirname "$model")")/$(basename "$model") | $a76 | $a53 | $a7 |"
done
