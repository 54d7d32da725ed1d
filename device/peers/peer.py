"""Runs a model of ours in another runtime: finds the file that this runtime is fastest with, and times that.

usage: peer.py RUNTIME MODEL THREADS      RUNTIME: onnxruntime, openvino, litert, ncnn or rten

README.md has the protocol. A twin of MODEL that is missing is made first, which takes seconds to a minute.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

from twins import FILES

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "graft" / "peers"

# What a runtime may run: the model file itself, or a twin of twins.py.
MODEL = "model"
CANDIDATES = {
    "onnxruntime": [MODEL, "qdq"],
    "openvino": [MODEL, "qdq"],
    "litert": ["tflite"],
    "ncnn": ["ncnn"],
    "rten": ["qdq", "dynamic", "float"],
}

# Runs of each candidate, of which the fastest counts.
TRIAL = 30


def file_of(candidate, model):
    """The path of a candidate, made where missing; none where it can't be made here."""
    if candidate == MODEL:
        return model
    folder = CACHE / "twins" / hashlib.sha256(model.read_bytes()).hexdigest()[:16]
    file = folder / FILES[candidate]
    if not file.exists():
        # In a process of its own: what it takes to make a twin must not count as the runtime's memory.
        maker = subprocess.run([sys.executable, HERE / "twins.py", model, folder, candidate], stdout=sys.stderr)
        if maker.returncode:
            print(f"{file} is missing and can't be made", file=sys.stderr)
            return None
    return file


def command(runtime, file, threads):
    """What runs exactly this file."""
    if runtime == "rten":
        return [CACHE / "bin" / "graft-peer-rten", file, threads]
    return [sys.executable, HERE / "runtime.py", runtime, file, threads]


def trial(runtime, file, threads):
    """The fastest of a few runs in processor milliseconds; infinite where the runtime refuses the file."""
    result = subprocess.run(command(runtime, file, threads), input=f"{TRIAL}\n", capture_output=True, text=True)
    if result.returncode:
        print(f"{runtime} refuses {file}:\n{result.stderr[-1000:]}", file=sys.stderr)
        return float("inf")
    return min(json.loads(result.stdout.splitlines()[-1])["cpu_milliseconds"])


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in CANDIDATES:
        sys.exit(__doc__)
    runtime, model, threads = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    files = [file for candidate in CANDIDATES[runtime] if (file := file_of(candidate, model))]
    if not files:
        sys.exit(f"{runtime} has no file to run")
    best = files[0] if len(files) == 1 else min(files, key=lambda file: trial(runtime, file, threads))
    chosen = command(runtime, best, threads)
    os.execv(chosen[0], chosen)


if __name__ == "__main__":
    main()
