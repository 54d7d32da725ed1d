#!/bin/sh
# Prints docs/benchmarks.md: graft-device beside other runtimes on this machine.
#
# usage: benchmarks.sh MODEL… > docs/benchmarks.md      after setup.sh and `cargo build --release --workspace`
set -eu

cd "$(dirname "$0")/../.."
cat <<END
# Benchmarks

Made by \`device/peers/benchmarks.sh\`. Batch 1, one thread, times of the processor in milliseconds; the runtimes take short
turns, which count where a register-only loop ran at full speed just before and after. Each runs at its own defaults, on the
model or its twin (\`device/peers/README.md\`). "ours / its" is the ratio of medians: below 1 ours is faster. Memory is the
process's most, Python included for the others.

Processor: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores; $(grep -qE 'avx512_vnni|avx_vnni' /proc/cpuinfo && echo with || echo without) VNNI. Date: $(date -u +%F).
END
for model in "$@"; do
    printf '\n## %s\n\n' "$(basename "$(dirname "$model")")/$(basename "$model")"
    target/release/graft-device bench "$model" --runs 200 --compare onnxruntime,openvino,litert,ncnn,rten |
        awk '/^$/ { table = 1 } !table { print "    " $0; next } { print }'
done
