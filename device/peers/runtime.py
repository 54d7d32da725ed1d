"""Loads one file in one runtime as it is, and times it: the end of peer.py that measures.

usage: runtime.py RUNTIME FILE THREADS     RUNTIME: onnxruntime, openvino, litert or ncnn

README.md has the protocol.
"""

import importlib.metadata
import json
import pathlib
import sys
import time

import numpy

WARM_UP = 3


def random_picture(shape, kind):
    """The same uint8 picture every time, as float32 in the range of normalised pixels or as int8 where asked for."""
    pixels = numpy.random.default_rng(0).integers(0, 256, shape, numpy.uint8)
    if kind == numpy.float32:
        return (pixels.astype(numpy.float32) - 127.5) / 58
    return (pixels ^ 0x80).view(numpy.int8) if kind == numpy.int8 else pixels


class OnnxRuntime:
    def __init__(self):
        import onnxruntime

        self.module, self.version = onnxruntime, onnxruntime.__version__

    def load(self, file, threads):
        options = self.module.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = self.module.ExecutionMode.ORT_SEQUENTIAL
        session = self.module.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        image = session.get_inputs()[0]
        kind = {"tensor(uint8)": numpy.uint8, "tensor(float)": numpy.float32}[image.type]
        feed = {image.name: random_picture(image.shape, kind)}
        return lambda: session.run(None, feed)


class OpenVino:
    def __init__(self):
        import openvino

        self.module, self.version = openvino, version_of("openvino")

    def load(self, file, threads):
        core = self.module.Core()
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        model = core.compile_model(core.read_model(file), "CPU", options)
        image = model.input(0)
        picture = random_picture(tuple(image.shape), image.element_type.to_dtype().type)
        request = model.create_infer_request()
        request.set_input_tensor(self.module.Tensor(picture))
        return request.infer


class LiteRt:
    def __init__(self):
        from ai_edge_litert import interpreter

        self.module, self.version = interpreter, version_of("ai-edge-litert")

    def load(self, file, threads):
        model = self.module.Interpreter(str(file), num_threads=threads)
        model.allocate_tensors()
        image = model.get_input_details()[0]
        model.set_tensor(image["index"], random_picture(tuple(image["shape"]), image["dtype"]))
        return model.invoke


class Ncnn:
    def __init__(self):
        import ncnn

        self.module, self.version = ncnn, version_of("ncnn")

    def load(self, file, threads):
        network = self.module.Net()
        network.opt.num_threads = threads
        if network.load_param(str(file)) or network.load_model(str(file.with_suffix(".bin"))):
            raise ValueError(f"ncnn does not read {file}")
        # The line of the input ends in "0=width 1=height 2=channels".
        line = next(line for line in file.read_text().splitlines() if line.startswith("Input "))
        width, height, channels = [int(word.split("=")[1]) for word in line.split()[-3:]]
        picture = random_picture((channels, height, width), numpy.float32)
        first, last = network.input_names()[0], network.output_names()[0]

        def run():
            extractor = network.create_extractor()
            extractor.input(first, self.module.Mat(picture))
            return extractor.extract(last)

        return run


def precision_of(file):
    """The arithmetic that a file asks for; ncnn's twins are float alone, LiteRT's int8 alone."""
    if file.suffix == ".param":
        return "float, weights stored as f16"
    content = file.read_bytes()
    quantized = file.suffix == ".tflite" or b"QLinearConv" in content or b"QuantizeLinear" in content
    return "int8" if quantized else "float32"


def version_of(distribution):
    return importlib.metadata.version(distribution)


def memory(field):
    """Bytes of this process by the system's count, null where it does not tell: VmHWM is the most so far, VmRSS now."""
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), None)


RUNTIMES = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "litert": LiteRt, "ncnn": Ncnn}


def timed(run):
    """Wall and processor milliseconds of one run, all threads together."""
    wall, processor = time.perf_counter_ns(), time.process_time_ns()
    run()
    return (time.perf_counter_ns() - wall) / 1e6, (time.process_time_ns() - processor) / 1e6


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    name, file, threads = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    runtime = RUNTIMES[name]()
    before = memory("VmRSS")
    start = time.perf_counter()
    run = runtime.load(file, threads)
    load = time.perf_counter() - start
    for _ in range(WARM_UP):
        run()
    peak = memory("VmHWM")
    ready = {
        "runtime": name,
        "version": runtime.version,
        "model": f"{file.name}, {precision_of(file)}",
        "load_milliseconds": 1e3 * load,
        "peak_rss_bytes": peak,
        "imported_rss_bytes": before,
    }
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        times = [timed(run) for _ in range(int(line))]
        wall, processor = [list(column) for column in zip(*times)] or [[], []]
        print(json.dumps({"milliseconds": wall, "cpu_milliseconds": processor}), flush=True)


if __name__ == "__main__":
    main()
