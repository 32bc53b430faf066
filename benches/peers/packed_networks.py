"""Times whole networks: packed files on our runtime, and the same networks in ONNX Runtime, one thread, batch 1, in turn.

    pip install onnxruntime onnx numpy
    cargo build --release -p releq-cli -p releq-c
    python benches/peers/packed_networks.py --data MNIST --network lenet --weights lenet.safetensors --bits 2,2,3,2

For every --network there are --weights, --bits and --data, in this order. `releq export` writes the network in three forms: packed with
activations of 8 bits; as an ONNX model with those activations, which ONNX Runtime fuses to its integer kernels; and in single
precision. Another packed file has 8 bits everywhere. All four are loaded into this process, ours through the C interface, and take turns in
every round. Times are processor times of the thread that runs them, so that other load on the machine counts little; the table has
medians over rounds, and least times in brackets. Both sides get an image as numbers and give logits as numbers.

The kernels that ONNX Runtime chose are listed below the table.
"""

import argparse
import collections
import ctypes
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime

FLOATS = ctypes.POINTER(ctypes.c_float)


class Ours:
    def __init__(self, library, path, threads):
        self.c = ctypes.CDLL(str(library))
        self.c.releq_load.argtypes, self.c.releq_load.restype = [ctypes.c_char_p, ctypes.c_size_t], ctypes.c_void_p
        self.c.releq_run.argtypes = [ctypes.c_void_p, FLOATS, ctypes.c_size_t, FLOATS, ctypes.c_size_t]
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

        run.keep = image
        return run


def theirs(path, image, optimized=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
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


def seconds(run, calls):
    start = time.thread_time()
    for _ in range(calls):
        run()
    return (time.thread_time() - start) / calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = pathlib.Path(__file__).resolve().parents[2]
    release = root / "target" / "release"
    parser.add_argument("--network", action="append", required=True)
    parser.add_argument("--weights", action="append", required=True)
    parser.add_argument("--bits", action="append", required=True)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--arguments", default="", help="more arguments of `releq export`, such as of image folders")
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--program", default=release / "releq")
    parser.add_argument("--library", default=release / "libreleq_c.so")
    args = parser.parse_args()
    lists = [args.network, args.weights, args.bits, args.data]
    if len({len(values) for values in lists}) > 1:
        sys.exit("name --weights, --bits and --data for every --network")
    print(f"ONNX Runtime {onnxruntime.__version__}, one thread, ms of processor time: medians of {args.rounds} rounds (least)\n")
    print("| network | bits | packed | 8 bits | ONNX Runtime int8 | ONNX Runtime fp32 | packed / int8 | packed / fp32 | loading, ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    remarks = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)

        def export(name, source, *options):
            path = folder / name
            command = [args.program, "export", *source, *options, "--output", path, "--json"]
            told = subprocess.run([str(word) for word in command], capture_output=True, text=True)
            if told.returncode:
                sys.exit(told.stderr)
            return path, json.loads(told.stdout)

        for network, weights, bits, data in zip(*lists):
            source = [network, "--weights", weights] if weights != "-" else [network]
            quantizer = ["--quantizer", "wrpn-scaled-per-channel"]
            int8 = ["--activation-bits", "8", "--data", data, "--images", "200", *args.arguments.split()]
            packed, _ = export("p.safetensors", source, "--bits", bits, *quantizer, *int8, "--form", "packed")
            eight, _ = export("e.safetensors", source, "--bits", "8", *quantizer, *int8, "--form", "packed")
            qdq, _ = export("q.onnx", source, "--bits", bits, *quantizer, *int8)
            full, _ = export("f.onnx", source)
            shape = onnx.load(str(full)).graph.input[0].type.tensor_type.shape.dim[1:]
            image = np.random.default_rng(1).standard_normal([d.dim_value for d in shape]).astype(np.float32)
            sessions = [theirs(qdq, image, folder / "optimized.onnx"), theirs(full, image)]
            outputs = sessions[1]().size
            models = [Ours(args.library, path, 1) for path in (packed, eight)]
            # The same network: logits of both sides agree as far as rounding activations lets them.
            ours, other = models[0].runner(image, outputs)(), sessions[0]()
            near = np.abs(ours - other).max() / np.ptp(other)
            runs = [model.runner(image, outputs) for model in models] + [session.timed for session in sessions]
            calls = [max(1, int(0.005 / max(seconds(run, 3), 1e-6))) for run in runs]
            times = [[] for _ in runs]
            for _ in range(args.rounds):
                for run, count, taken in zip(runs, calls, times):
                    taken.append(1e3 * seconds(run, count))
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
