"""Makes the files that the other runtimes run, and keeps them.

usage: twins.py NAME|MODEL OUTPUT_DIR

NAME is a network of networks.py: NAME.float.onnx, NAME.qdq.onnx and NAME.qoperator.onnx are made.
"""

import pathlib
import sys

from quantize import FORMATS, quantize


def network(name, folder):
    """The files of the network `name` below `folder`, made where missing."""
    import networks

    folder.mkdir(parents=True, exist_ok=True)
    float_file = folder / f"{name}.float.onnx"
    if not float_file.exists():
        networks.export(name, float_file)
    size = networks.NETWORKS[name][1]
    for form in FORMATS:
        output = folder / f"{name}.{form}.onnx"
        if not output.exists():
            quantize(float_file, output, form, "input", size, size)


if __name__ == "__main__":
    network(sys.argv[1], pathlib.Path(sys.argv[2]))
