"""Makes a small net as ONNX Runtime's static quantizer writes it, in both of its forms, and prints its logits for both:
python3 static_onnx.py FOLDER

The net has what MobileNetV3, ResNet and Inception have. The picture is the one that `graft_engine::bare` generates. One
line for each file: its name, a tab, and the logits as hexadecimal float32 bits.
"""

import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

SHAPE = (1, 3, 32, 32)


class Net:
    """A float graph in the making, with random weights."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(7)
        self.nodes, self.weights = [], []

    def node(self, kind: str, inputs: list, **attributes) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 10
        values = self.random.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, x: str, inputs: int, outputs: int, kernel=(1, 1), stride=1, group=1) -> str:
        pads = [k // 2 for k in kernel] * 2
        weights = self.constant(outputs, inputs // group, *kernel)
        return self.node(
            "Conv", [x, weights, self.constant(outputs)], kernel_shape=kernel, strides=[stride] * 2, pads=pads, group=group
        )


def float_net() -> onnx.ModelProto:
    net = Net()
    x = net.node("Relu", [net.conv("input", 3, 16, (3, 3), 2)])
    x = net.node("MaxPool", [x], kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    y = net.node("HardSwish", [net.conv(x, 16, 24)])
    y = net.node("Relu", [net.conv(y, 24, 24, (5, 5), 1, group=24)])
    squeezed = net.node("Relu", [net.conv(net.node("GlobalAveragePool", [y]), 24, 8)])
    gate = net.node("HardSigmoid", [net.conv(squeezed, 8, 24)], alpha=1 / 6)
    x = net.node("Add", [x, net.conv(net.node("Mul", [gate, y]), 24, 16)])
    pooled = net.node("AveragePool", [x], kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, count_include_pad=1)
    branches = [net.conv(x, 16, 8, (1, 7)), net.conv(x, 16, 12, (7, 1)), net.conv(pooled, 16, 4)]
    x = net.node("Relu", [net.node("Concat", branches, axis=1)])
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x])])
    logits = net.node("Gemm", [x, net.constant(10, 24), net.constant(10)], transB=1)
    graph = helper.make_graph(
        net.nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, (1, 10))],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


class Pictures(CalibrationDataReader):
    def __init__(self) -> None:
        random = np.random.default_rng(1)
        self.left = [{"input": random.normal(0, 1, SHAPE).astype(np.float32)} for _ in range(8)]

    def get_next(self) -> dict | None:
        return self.left.pop() if self.left else None


def main(folder: str) -> None:
    below = pathlib.Path(folder)
    below.mkdir(parents=True, exist_ok=True)
    onnx.save(float_net(), below / "float.onnx")
    count = int(np.prod(SHAPE))
    picture = (np.arange(count, dtype=np.uint64) * np.uint64(2_654_435_761) >> np.uint64(8)) & np.uint64(255)
    picture = ((picture.astype(np.float32) - 127) / 64).reshape(SHAPE)
    for form in (QuantFormat.QOperator, QuantFormat.QDQ):
        file = below / f"{form.name.lower()}.onnx"
        quantize_static(
            below / "float.onnx",
            file,
            Pictures(),
            quant_format=form,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.x64quantprecision", "1")
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"input": picture})
        bits = logits.reshape(-1).astype("<f4").view("<u4")
        print(file.name, " ".join(f"{value:08x}" for value in bits), sep="\t")


main(*sys.argv[1:])
