"""A float ONNX file to int8 as ONNX Runtime's quantizer makes it: i8 weights, u8 activations."""

import logging
import pathlib
import tempfile

from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from pictures import pictures

CALIBRATION_PICTURES = 16

STATIC = {"qoperator": QuantFormat.QOperator, "qdq": QuantFormat.QDQ}


class Pictures(CalibrationDataReader):
    """Feeds generated pictures to the input `name`."""

    def __init__(self, name, height, width):
        self.feeds = ({name: picture[None]} for picture in pictures(CALIBRATION_PICTURES, height, width))

    def get_next(self):
        return next(self.feeds, None)


def quantize(float_file, output, form, name, height, width):
    """Writes `output` in a form: "qoperator" and "qdq", whose activations have scales from pictures and whose weights
    one for each channel, or "dynamic", whose activations get theirs at run time and whose weights have one a tensor.

    The input `name` is float32 `[1, 3, height, width]`, normalised.
    """
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        prepared = pathlib.Path(folder) / "prepared.onnx"
        quant_pre_process(float_file, prepared, skip_symbolic_shape=True)
        if form == "dynamic":
            quantize_dynamic(prepared, output, weight_type=QuantType.QInt8)
        else:
            quantize_static(
                prepared,
                output,
                Pictures(name, height, width),
                quant_format=STATIC[form],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
