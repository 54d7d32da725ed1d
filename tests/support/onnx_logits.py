"""Checks a model and prints ONNX Runtime's logits: python3 onnx_logits.py MODEL PNG...

One line for each PNG, whose pixels are the model's input as they are: its path, a tab, and the logits as hexadecimal
float32 bits.
"""

import sys

import numpy as np
import onnx
import onnxruntime
from PIL import Image


def main(model: str, *pictures: str) -> None:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # On x86-64 without VNNI the default kernels saturate; these are exact.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for path in pictures:
        image = np.asarray(Image.open(path))[None]
        (logits,) = session.run(["logits"], {"image": image})
        bits = logits.reshape(-1).astype("<f4").view("<u4")
        print(path, " ".join(f"{value:08x}" for value in bits), sep="\t")


main(*sys.argv[1:])
