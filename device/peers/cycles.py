"""Prints the cycles that the inner loops of the kernels for 64-bit ARM take by LLVM's models of processors, beside their
multiply-adds: a table for docs/benchmarks.md. The models know nothing of caches.

usage: cycles.py      needs rustup and Debian's llvm-19; LLVM_MCA names another llvm-mca
"""

import collections
import os
import pathlib
import re
import subprocess
import tempfile

KERNELS = pathlib.Path(__file__).resolve().parents[1] / "kernels" / "Cargo.toml"
TARGET = "aarch64-unknown-linux-musl"
LLVM_MCA = os.environ.get("LLVM_MCA", "llvm-mca-19")
ITERATIONS = 1000

# Processors, as llvm-mca calls them. Its Cortex-A76 and A72 are a Cortex-A57; the Neoverse N1 is an A76 for servers.
WITHOUT = {"Cortex-A53": "cortex-a53", "Cortex-A72": "cortex-a72"}
WITH = {"Cortex-A76": "neoverse-n1"}

# What a loop is called, a word of its function's name, what it multiplies with, its multiply-adds, its processors.
LOOPS = [
    ("dense, 6 positions x 16 channels x 16 deep", "matrix", {"sdot": 96}, 6 * 16 * 16, WITH),
    ("depthwise 3 x 3, 4 positions x 8 channels", "depthwise", {"sdot": 24}, 4 * 8 * 9, WITH),
    ("depthwise 5 x 5, 4 positions x 8 channels", "depthwise", {"sdot": 80}, 4 * 8 * 25, WITH),
    (
        "dense, 4 positions x 4 channels x 32 deep",
        "matrix",
        {"smull": 16, "smlal": 16, "smlal2": 32},
        4 * 4 * 32,
        WITHOUT,
    ),
    ("depthwise 3 x 3, 4 positions x 8 channels", "depthwise", {"smlal": 36, "smlal2": 36}, 4 * 8 * 9, WITHOUT),
]
MULTIPLICATIONS = {"sdot", "smull", "smull2", "smlal", "smlal2"}

BRANCH = re.compile(r"(b|b\.\w+|cbn?z|tbn?z|ret)\b")
INSTRUCTION = re.compile(r"[a-z][a-z0-9.]*(\s|$)")


def compile_kernels(folder):
    """The functions of the kernels as they ship: lines of assembly by name."""
    subprocess.run(["rustup", "target", "add", TARGET], cwd=KERNELS.parent, check=True, capture_output=True)
    assembly = folder / "kernels.s"
    options = ["--lib", "--target", TARGET, "--profile", "dist", "--target-dir", folder / "target", "--quiet"]
    command = ["cargo", "rustc", "--manifest-path", KERNELS, *options, "--", f"--emit=asm={assembly}"]
    subprocess.run(command, check=True)
    functions, lines = {}, []
    for line in assembly.read_text().splitlines():
        if line.startswith("_"):
            lines = functions[line.removesuffix(":")] = []
        lines.append(line.strip())
    return functions


def inner_loops(lines):
    """The lines from each label to each later branch back to it."""
    labels = {}
    for index, line in enumerate(lines):
        if line.endswith(":"):
            labels[line[:-1]] = index
        elif BRANCH.match(line) and line.split()[-1] in labels:
            yield lines[labels[line.split()[-1]] : index]


def straight(lines, functions):
    """The instructions of lines where no branch is taken, those of called functions among them."""
    instructions = []
    for line in lines:
        if line == "ret":
            break
        if line.startswith("bl\t"):
            instructions += straight(functions.get(line.split()[1], []), functions)
        elif INSTRUCTION.match(line) and not BRANCH.match(line):
            instructions.append(line)
    return instructions


def instructions_of(functions, word, multiplications):
    """The shortest loop with these multiplications: of depthwise ones that of stride 1, which loads least."""
    found = []
    for name, lines in functions.items():
        for loop in inner_loops(lines) if word in name else []:
            names = collections.Counter(line.split()[0] for line in loop if INSTRUCTION.match(line))
            if {name: names[name] for name in names if name in MULTIPLICATIONS} == multiplications:
                found.append(straight(loop, functions))
    return min(found, key=len)


def cycles(instructions, processor):
    """Cycles of one of many iterations, and those it would take if none waited for another's result."""
    options = ["-mtriple=aarch64", f"-mcpu={processor}", f"-iterations={ITERATIONS}"]
    answer = subprocess.run(
        [LLVM_MCA, *options], input="\n".join(instructions), check=True, capture_output=True, text=True
    ).stdout
    total, least = (re.search(rf"{field}:\s+([\d.]+)", answer)[1] for field in ("Total Cycles", "Block RThroughput"))
    return float(total) / ITERATIONS, float(least)


def main():
    with tempfile.TemporaryDirectory() as folder:
        functions = compile_kernels(pathlib.Path(folder))
    print("| loop | processor | instructions | multiply-adds | cycles | each cycle | cycles without waiting | each cycle |")
    print("|---|---|---|---|---|---|---|---|")
    for title, word, multiplications, multiply_adds, processors in LOOPS:
        instructions = instructions_of(functions, word, multiplications)
        for name, processor in processors.items():
            counted = [f"{c:.0f} | {multiply_adds / c:.1f}" for c in cycles(instructions, processor)]
            print(f"| {title} | {name} | {len(instructions)} | {multiply_adds} | {' | '.join(counted)} |")


if __name__ == "__main__":
    main()
