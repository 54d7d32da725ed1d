"""A float ONNX file to full-integer TFLite: the same layers, weights and quantities, by TensorFlow's own converter.

Convolutions and pools whose output is as large as TensorFlow's "SAME" gives are padded so, whatever the ONNX file pads
on which side: the same work, without the separate Pad operator that LiteRT would have to run for the others.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import onnx
import tensorflow
from onnx import numpy_helper

from pictures import pictures

CALIBRATION_PICTURES = 16


class Network(tensorflow.Module):
    """Runs the graph of an ONNX file in NHWC."""

    def __init__(self, graph):
        super().__init__()
        self.graph = graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)

    def __call__(self, image):
        values = {self.graph.input[0].name: image}
        for node in self.graph.node:
            if node.op_type != "Constant":
                values[node.output[0]] = self.run(node, values)
        return values[self.graph.output[0].name]

    def run(self, node, values):
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        inputs = [values.get(name, self.constants.get(name)) for name in node.input]
        first = inputs[0]
        match node.op_type:
            case "Conv":
                return convolution(first, inputs[1], inputs[2], attributes)
            case "MaxPool":
                same_size(first, attributes["kernel_shape"], attributes)
                return tensorflow.nn.max_pool2d(first, attributes["kernel_shape"], attributes["strides"], "SAME")
            case "Relu":
                return tensorflow.nn.relu(first)
            case "Clip" if (inputs[1], inputs[2]) == (0, 6):
                return tensorflow.nn.relu6(first)
            case "Add":
                return first + inputs[1]
            case "GlobalAveragePool":
                return tensorflow.reduce_mean(first, axis=[1, 2])
            case "Flatten" | "Identity":
                return first
            case "Gemm" if attributes.get("transB") == 1:
                return tensorflow.matmul(first, inputs[1].T) + inputs[2]
        raise ValueError(f"no TensorFlow twin of the operator {node.op_type}")


def convolution(image, weights, bias, attributes):
    """`image` NHWC, `weights` OIHW."""
    strides = [1, *attributes.get("strides", [1, 1]), 1]
    same_size(image, weights.shape[2:], attributes)
    group = attributes.get("group", 1)
    if group == 1:
        result = tensorflow.nn.conv2d(image, weights.transpose(2, 3, 1, 0), strides, "SAME")
    elif group == image.shape[3] == weights.shape[0]:
        result = tensorflow.nn.depthwise_conv2d(image, weights.transpose(2, 3, 0, 1), strides, "SAME")
    else:
        raise ValueError("no TensorFlow twin of a convolution in groups")
    return result + bias


def same_size(image, kernel, attributes):
    """Refuses what "SAME" would give another size, and dilation."""
    pads = attributes.get("pads", [0, 0, 0, 0])
    for axis, side in enumerate(image.shape[1:3]):
        stride = attributes.get("strides", [1, 1])[axis]
        outputs = (side + pads[axis] + pads[axis + 2] - kernel[axis]) // stride + 1
        if outputs != -(-side // stride) or attributes.get("dilations", [1, 1])[axis] != 1:
            raise ValueError("no TensorFlow twin of this padding")


def convert(float_file, output):
    """Writes `output`; its input is int8 `[1, height, width, 3]`, its output int8 `[1, labels]`."""
    graph = onnx.load(float_file).graph
    _, channels, height, width = [dimension.dim_value for dimension in graph.input[0].type.tensor_type.shape.dim]
    network = Network(graph)
    signature = tensorflow.TensorSpec([1, height, width, channels], tensorflow.float32)
    function = tensorflow.function(network.__call__, autograph=False).get_concrete_function(signature)
    converter = tensorflow.lite.TFLiteConverter.from_concrete_functions([function], network)
    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    examples = pictures(CALIBRATION_PICTURES, height, width).transpose(0, 2, 3, 1)
    converter.representative_dataset = lambda: ([example[None]] for example in examples)
    converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tensorflow.int8
    converter.inference_output_type = tensorflow.int8
    output.write_bytes(converter.convert())
