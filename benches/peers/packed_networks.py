"""Times whole networks: packed files on our runtime, and the same networks in ONNX Runtime, batch 1, in turn.

    pip install onnxruntime onnx numpy
    cargo build --release -p releq-cli -p releq-c
    python benches/peers/packed_networks.py --all                                     # the table of docs/benchmarks.md
    python benches/peers/packed_networks.py --network resnet18 --bits 4 --threads 2   # one network, two threads
    python benches/peers/packed_networks.py --network lenet --weights lenet.safetensors --bits 2,2,3,2 --data MNIST

For every --network there are --bits; --weights and --data too, in the same order, or neither: then weights are at random and images are
noise, which takes as long, and nothing has to be fetched. --network is a network of the zoo, `resnet18` or `mobilenet_v2`, which are built
here as torchvision has them, or a model.onnx, with `--weights -` for those in the file.

`releq export` writes the network in three forms: packed with activations of 8 bits; as an ONNX model with those activations, which ONNX
Runtime fuses to its integer kernels; and in single precision. Another packed file has 8 bits everywhere. All four are loaded into this
process, ours through the C interface, and take turns in every round. Times are processor times of the thread that runs them, so that
other load on the machine counts little; the table has medians over rounds, and least times in brackets. Both sides get an image as
numbers and give logits as numbers.

With --threads 2 or more, times are wall clock, because the work is in other threads as well: nothing else may run on the machine. Threads of
ONNX Runtime wait for work in loops, so each turn begins after a pause that lets them sleep.

The kernels that ONNX Runtime chose are listed below the table. A build of the profile `dev` is fully optimized as well; --program
target/debug/releq and --library target/debug/libreleq_c.so name it.
"""

import argparse
import collections
import ctypes
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FLOATS = ctypes.POINTER(ctypes.c_float)

# AlexNet has the paper's bits, and so does LeNet.
ALL = [
    ("lenet", "2,2,3,2"), ("resnet20_option_a", "4"), ("resnet18", "4"), ("mobilenet_v2", "4"), ("mobilenet_v1_tf", "8"),
    ("alexnet", "8,4,4,4,4,4,4,8"), ("alexnet", "2"),
]  # fmt: skip
# Images of networks that do not take 224 x 224 pixels in three colours.
SHAPES = {"lenet": (1, 28, 28)} | dict.fromkeys(["simplenet", "resnet20", "resnet20_option_a"], (3, 32, 32))


class Built:
    """An ONNX model with weights at random, its norms folded already."""

    def __init__(self):
        self.nodes, self.tensors, self.rng = [], [], np.random.default_rng(1)

    def node(self, kind, inputs, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, value):
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def weights(self, *shape):
        spread = np.sqrt(2 / np.prod(shape[1:]))
        return [self.constant(spread * self.rng.standard_normal(shape)), self.constant(0.1 * self.rng.standard_normal(shape[0]))]

    def conv(self, x, channels, outputs, kernel, stride=1, groups=1):
        weights = self.weights(outputs, channels // groups, kernel, kernel)
        pads = [kernel // 2] * 4
        return self.node("Conv", [x, *weights], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=groups)

    def relu6(self, x):
        return self.node("Clip", [x, self.constant(0), self.constant(6)])

    def save(self, x, features, path):
        flat = self.node("Flatten", [self.node("GlobalAveragePool", [x])], axis=1)
        logits = self.node("Gemm", [flat, *self.weights(1000, features)], transB=1)
        tensor = lambda name, *shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        inputs, outputs = [tensor("x", 1, 3, 224, 224)], [tensor(logits, 1, 1000)]
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.tensors)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))


def resnet18(path):
    model = Built()
    x = model.node("Relu", [model.conv("x", 3, 64, 7, 2)])
    x = model.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for outputs in (64, 128, 256, 512):
        for stride in (1 if outputs == 64 else 2, 1):
            inner = model.node("Relu", [model.conv(x, channels, outputs, 3, stride)])
            inner = model.conv(inner, outputs, outputs, 3)
            shortcut = x if channels == outputs else model.conv(x, channels, outputs, 1, stride)
            x, channels = model.node("Relu", [model.node("Add", [inner, shortcut])]), outputs
    model.save(x, 512, path)


def mobilenet_v2(path):
    model = Built()
    x, channels = model.relu6(model.conv("x", 3, 32, 3, 2)), 32
    blocks = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for factor, outputs, count, first in blocks:
        for stride in [first] + [1] * (count - 1):
            wide = channels * factor
            inner = x if factor == 1 else model.relu6(model.conv(x, channels, wide, 1))
            inner = model.relu6(model.conv(inner, wide, wide, 3, stride, groups=wide))
            inner = model.conv(inner, wide, outputs, 1)
            is_residual = stride == 1 and channels == outputs
            x, channels = model.node("Add", [inner, x]) if is_residual else inner, outputs
    model.save(model.relu6(model.conv(x, channels, 1280, 1)), 1280, path)


BUILT = {"resnet18": resnet18, "mobilenet_v2": mobilenet_v2}


class Ours:
    def __init__(self, library, path, threads):
        self.c = ctypes.CDLL(str(library))
        self.c.releq_load.argtypes, self.c.releq_load.restype = [ctypes.c_char_p, ctypes.c_size_t], ctypes.c_void_p
        self.c.releq_run.argtypes = [ctypes.c_void_p, FLOATS, ctypes.c_size_t, FLOATS, ctypes.c_size_t]
        self.c.releq_free.argtypes, self.c.releq_free.restype = [ctypes.c_void_p], None
        self.c.releq_last_error.restype = ctypes.c_char_p
        start = time.perf_counter()
        self.model = self.c.releq_load(str(path).encode(), threads)
        self.loading = time.perf_counter() - start
        if not self.model:
            sys.exit(self.c.releq_last_error().decode())

    def runner(self, image, outputs):
        logits = np.zeros(outputs, np.float32)
        image = np.ascontiguousarray(image, np.float32)
        arguments = (self.model, image.ctypes.data_as(FLOATS), image.size, logits.ctypes.data_as(FLOATS), outputs)

        def run():
            if self.c.releq_run(*arguments):
                sys.exit(self.c.releq_last_error().decode())
            return logits

        run.keep = self, image
        return run

    def __del__(self):
        self.c.releq_free(self.model)


def theirs(path, image, threads, optimized=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, np.ascontiguousarray(image[None], np.float32))
    output = session.get_outputs()[0].name
    binding.bind_output(output, "cpu")

    def run():
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy().ravel()

    def timed():
        session.run_with_iobinding(binding)

    run.timed = timed
    return run


def seconds(run, calls, threads):
    clock = time.thread_time
    if threads > 1:
        clock = time.perf_counter
        time.sleep(0.05)
        # Wakes the threads of this side.
        run()
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = pathlib.Path(__file__).resolve().parents[2]
    release = root / "target" / "release"
    parser.add_argument("--all", action="store_true", help="every network of the table in docs/benchmarks.md")
    parser.add_argument("--network", action="append", default=[])
    parser.add_argument("--weights", action="append", help="at random, unless there is one for every network")
    parser.add_argument("--bits", action="append", default=[])
    parser.add_argument("--data", action="append", help="noise, unless there are images for every network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--arguments", default="", help="more arguments of `releq export`, such as of image folders")
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--program", default=release / "releq")
    parser.add_argument("--library", default=release / "libreleq_c.so")
    args = parser.parse_args()
    if args.all:
        args.network, args.bits = [list(column) for column in zip(*ALL)]
    nothing = [None] * len(args.network)
    lists = [args.network, args.weights or nothing, args.bits, args.data or nothing]
    if len({len(values) for values in lists}) > 1 or not args.network or (args.weights is None) != (args.data is None):
        sys.exit("name --bits for every --network, and --weights and --data for every one or for none; or say --all")
    clock = "processor time" if args.threads == 1 else "wall clock"
    print(f"ONNX Runtime {onnxruntime.__version__}, {args.threads} thread(s), ms of {clock}: medians of {args.rounds} rounds (least)\n")
    print("| network | bits | packed | 8 bits | ONNX Runtime int8 | ONNX Runtime fp32 | packed / int8 | packed / fp32 | loading, ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    remarks = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)

        def releq(*words):
            told = subprocess.run([str(word) for word in (args.program, *words)], capture_output=True, text=True)
            if told.returncode:
                sys.exit(told.stderr)

        def export(name, source, *options):
            path = folder / name
            releq("export", *source, *options, "--output", path)
            return path

        def noise(network):
            path, shape = folder / "noise.npz", SHAPES.get(network, (3, 224, 224))
            np.savez(path, x=np.random.default_rng(1).integers(0, 256, (20, *shape), np.uint8), y=np.arange(20) % 10)
            return path

        def at_random(network, data):
            if network in BUILT:
                path = folder / f"{network}.onnx"
                BUILT[network](path)
                return [path, "--preprocess", "torchvision"]
            path = folder / "random.safetensors"
            # What a training starts from, but for the norms' statistics: with those, signals fade until a bias fits in no integer.
            steps = ["--epochs", 2, "--batch-size", 1, "--learning-rate", 1e-9]
            releq("train", network, "--data", data, *steps, "--output", path)
            return [network, "--weights", path]

        for network, weights, bits, data in zip(*lists):
            if weights is None:
                data = noise(network)
                source = at_random(network, data)
            else:
                source = [network, "--weights", weights] if weights != "-" else [network]
            quantizer = ["--quantizer", "wrpn-scaled-per-channel"]
            int8 = ["--activation-bits", "8", "--data", data, "--images", "200", *args.arguments.split()]
            packed = export("p.safetensors", source, "--bits", bits, *quantizer, *int8, "--form", "packed")
            eight = export("e.safetensors", source, "--bits", "8", *quantizer, *int8, "--form", "packed")
            qdq = export("q.onnx", source, "--bits", bits, *quantizer, *int8)
            full = export("f.onnx", source)
            shape = onnx.load(str(full)).graph.input[0].type.tensor_type.shape.dim[1:]
            image = np.random.default_rng(1).standard_normal([d.dim_value for d in shape]).astype(np.float32)
            sessions = [theirs(qdq, image, args.threads, folder / "optimized.onnx"), theirs(full, image, args.threads)]
            outputs = sessions[1]().size
            models = [Ours(args.library, path, args.threads) for path in (packed, eight)]
            # The same network: logits of both sides agree as far as rounding activations lets them.
            ours, other = models[0].runner(image, outputs)(), sessions[0]()
            near = np.abs(ours - other).max() / np.ptp(other)
            runs = [model.runner(image, outputs) for model in models] + [session.timed for session in sessions]
            calls = [max(1, int(0.005 / max(seconds(run, 3, args.threads), 1e-6))) for run in runs]
            times = [[] for _ in runs]
            for _ in range(args.rounds):
                for run, count, taken in zip(runs, calls, times):
                    taken.append(1e3 * seconds(run, count, args.threads))
            medians = [statistics.median(taken) for taken in times]
            cells = [f"{median:.3f} ({min(taken):.3f})" for median, taken in zip(medians, times)]
            ratios = f"{medians[0] / medians[2]:.2f} | {medians[0] / medians[3]:.2f}"
            print(f"| {network} | {bits} | {' | '.join(cells)} | {ratios} | {1e3 * models[0].loading:.0f} |", flush=True)
            kinds = collections.Counter(node.op_type for node in onnx.load(str(folder / "optimized.onnx")).graph.node)
            chosen = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            remarks.append(f"{network}: logits differ by {near:.3f} of their range; ONNX Runtime int8 has {chosen}")
    print("\n" + "\n".join(remarks))


if __name__ == "__main__":
    main()
