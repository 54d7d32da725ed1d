#!/bin/sh
# Photos a second in training, ours beside PyTorch's (channels_last, tuned malloc), in turns on the same cores.
#
#   host/benches/training_step.sh PYTHON [ROUNDS] [THREADS]
#
# PYTHON has torch, torchvision and efficientnet-lite-pytorch. Medians of all steps but the first two of each turn.
set -eu
python=$1 rounds=${2:-3} threads=${3:-2}
cd "$(dirname "$0")/../.."
cargo build --release --workspace --benches --quiet
ours=$(ls -t target/release/deps/training_step-* | grep -v '\.d$' | head -1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for case in ${CASES:-efficientnet_lite0:224:32 efficientnet_lite0:160:32}; do
    IFS=: read -r name size batch <<EOF
$case
EOF
    for _ in $(seq "$rounds"); do
        RAYON_NUM_THREADS=$threads "$ours" "$name" "$size" "$batch" 8 | tail -n +3 >> "$work/$case.graft"
        MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 \
            "$python" host/benches/training_step.py "$name" "$size" "$batch" 8 "$threads" | tail -n +3 >> "$work/$case.torch"
    done
    for who in graft torch; do
        sort -g "$work/$case.$who" | awk -v who=$who -v case="$case" -v batch="$batch" \
            '{ s[NR] = $1 } END { m = s[int((NR + 1) / 2)]; printf "%-28s %-6s %7.1f photos/s (best %.1f)\n", case, who, batch / m, batch / s[1] }'
    done
done
