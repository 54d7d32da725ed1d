"""Makes the files that the other runtimes run, once each.

usage: twins.py MODEL OUTPUT_DIR [KIND...]    MODEL.onnx with its float file MODEL.float.onnx beside it; every kind
       twins.py NAME OUTPUT_DIR               a network of networks.py as float, QDQ and QOperator ONNX files
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile

# What a twin is called in its folder, by kind. ncnn's weights lie beside it as ncnn.bin.
FILES = {
    "float": "float.onnx",
    "qdq": "qdq.onnx",
    "dynamic": "dynamic.onnx",
    "tflite": "int8.tflite",
    "ncnn": "ncnn.param",
}


def float_file_of(model):
    """`model.float.onnx` of `model.onnx`, `resnet18.float.onnx` of `resnet18.qdq.onnx`."""
    return model.with_name(model.name.split(".")[0] + ".float.onnx")


def input_of(file):
    """Name, height and width of the input, float32 `[1, 3, height, width]`."""
    import onnx

    image = onnx.load(file).graph.input[0]
    shape = [dimension.dim_value for dimension in image.type.tensor_type.shape.dim]
    return image.name, shape[2], shape[3]


def strip(float_file, output):
    """Writes the network alone: it begins with the normalised picture, float32 `[1, 3, height, width]`.

    Our float files begin with the uint8 picture `[1, height, width, 3]`, normalise and transpose it.
    """
    import onnx

    model = onnx.load(float_file)
    graph = model.graph
    image = graph.input[0]
    if image.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
        _, height, width, channels = [dimension.dim_value for dimension in image.type.tensor_type.shape.dim]
        last = next(index for index, node in enumerate(graph.node) if node.op_type == "Transpose")
        picture = onnx.helper.make_tensor_value_info(
            graph.node[last].output[0], onnx.TensorProto.FLOAT, [1, channels, height, width]
        )
        del graph.node[: last + 1]
        image.CopyFrom(picture)
        used = {name for node in graph.node for name in node.input}
        for constant in [constant for constant in graph.initializer if constant.name not in used]:
            graph.initializer.remove(constant)
    del model.metadata_props[:]
    onnx.checker.check_model(model)
    onnx.save(model, output)


def ncnn(float_file, output):
    """pnnx with its default options: it stores the weights as f16."""
    program = pathlib.Path(importlib.util.find_spec("pnnx").submodule_search_locations[0]) / "pnnx"
    _, height, width = input_of(float_file)
    arguments = [f"inputshape=[1,3,{height},{width}]", f"ncnnparam={output}", f"ncnnbin={output.with_suffix('.bin')}"]
    # It leaves its other outputs in the folder of its input.
    with tempfile.TemporaryDirectory() as folder:
        link = pathlib.Path(folder) / "float.onnx"
        link.symlink_to(float_file.resolve())
        result = subprocess.run([program, link, *arguments], cwd=folder, capture_output=True, text=True)
    if result.returncode:
        raise ValueError(f"pnnx failed:\n{result.stdout}{result.stderr}")
    # pnnx leaves out the size of the input, which ncnn's format has a place for.
    name = "Input                    in0                      0 1 in0"
    output.write_text(output.read_text().replace(name, f"{name} 0={width} 1={height} 2=3"))


def write(kind, float_file, output):
    """Makes the twin `kind` of a stripped float file."""
    if kind == "tflite":
        import tflite

        tflite.convert(float_file, output)
    elif kind == "ncnn":
        ncnn(float_file, output)
    else:
        from quantize import quantize

        quantize(float_file, output, kind, *input_of(float_file))


def make(output, writer):
    """Makes `output` unless it is there: `writer` writes it in a folder of its own, and no half file is found."""
    if output.exists():
        return
    print(f"making {output}", file=sys.stderr)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        made = pathlib.Path(folder) / output.name
        writer(made)
        # The file that `output` stands for comes last: where it is, the ones beside it are too.
        for file in sorted(pathlib.Path(folder).iterdir(), key=lambda file: file == made):
            os.replace(file, output.with_name(file.name))


def twin(kind, model, folder):
    """The path of the twin `kind` of the file `model`, made in `folder` where missing."""
    output = folder / FILES[kind]
    if not output.exists():
        float_file = folder / FILES["float"]
        make(float_file, lambda made: strip(float_file_of(model), made))
        make(output, lambda made: write(kind, float_file, made))
    return output


def network(name, folder):
    """Makes the ONNX files of the network `name` in `folder`."""
    import networks
    from quantize import STATIC, quantize

    float_file = folder / f"{name}.float.onnx"
    make(float_file, lambda made: networks.export(name, made))
    for form in STATIC:
        make(
            folder / f"{name}.{form}.onnx",
            lambda made, form=form: quantize(float_file, made, form, *input_of(float_file)),
        )


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    source, folder, kinds = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
    if source.suffix == ".onnx":
        for kind in kinds or FILES:
            twin(kind, source, folder)
    else:
        network(sys.argv[1], folder)


if __name__ == "__main__":
    main()
