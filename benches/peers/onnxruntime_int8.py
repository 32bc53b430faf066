"""Times ONNX Runtime's int8 kernels and ours on the same layers, in turn, one thread.

    pip install onnxruntime onnx numpy
    cargo build --release -p releq-cli
    python benches/peers/onnxruntime_int8.py

Both sides compute the same function, unsigned 8-bit codes to unsigned 8-bit codes with 8-bit weights: QLinearConv
(QLinearMatMul for fully connected layers) there, a convolution in place with its epilogue here. Theirs includes the
overhead of a session's run, which it cannot go without. A round times every layer on one side, then on the
other; the table gives medians over rounds.
"""

import argparse
import csv
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
from onnx import TensorProto, helper, numpy_helper

# Name, input channels, side of the input, output channels, kernel, stride, padding.
CONVS = [
    ("ResNet-20, 16 channels", 16, 32, 16, 3, 1, 1),
    ("ResNet-20, 32 channels", 32, 16, 32, 3, 1, 1),
    ("ResNet-20, 64 channels", 64, 8, 64, 3, 1, 1),
    ("LeNet conv2", 20, 12, 50, 5, 1, 0),
    ("VGG, 128 channels", 128, 16, 128, 3, 1, 1),
    ("VGG, 512 channels", 512, 4, 512, 3, 1, 1),
    ("AlexNet conv2", 64, 27, 192, 5, 1, 2),
    ("AlexNet conv3", 192, 13, 384, 3, 1, 1),
    ("MobileNet, 1x1, 128 channels", 128, 28, 128, 1, 1, 0),
    ("MobileNet, 1x1, 512 channels", 512, 14, 512, 1, 1, 0),
]
# Name, inputs, outputs.
LINEARS = [("LeNet fc1", 800, 500), ("AlexNet fc1", 9216, 4096)]


def scalar(name, value, dtype):
    return numpy_helper.from_array(np.array(value, dtype=dtype), name)


def session(node, x_shape, y_shape, initializers):
    initializers = initializers + [
        scalar("x_scale", 0.02, np.float32),
        scalar("x_zero", 0, np.uint8),
        scalar("w_scale", 0.01, np.float32),
        scalar("w_zero", 0, np.int8),
        scalar("y_scale", 0.2, np.float32),
        scalar("y_zero", 0, np.uint8),
    ]
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, x_shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, y_shape)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    made = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(1)
    binding = made.io_binding()
    binding.bind_cpu_input("x", rng.integers(0, 256, x_shape, dtype=np.uint8))
    binding.bind_output("y", "cpu")
    return lambda: made.run_with_iobinding(binding)


def conv(in_ch, side, out_ch, kernel, stride, pad):
    rng = np.random.default_rng(0)
    weights = rng.integers(-128, 128, (out_ch, in_ch, kernel, kernel), dtype=np.int8)
    bias = rng.integers(-1000, 1000, out_ch, dtype=np.int32)
    node = helper.make_node(
        "QLinearConv",
        ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero", "b"],
        ["y"],
        strides=[stride, stride],
        pads=[pad] * 4,
    )
    out = (side + 2 * pad - kernel) // stride + 1
    initializers = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
    return session(node, [1, in_ch, side, side], [1, out_ch, out, out], initializers)


def linear(inputs, outputs):
    rng = np.random.default_rng(0)
    weights = rng.integers(-128, 128, (inputs, outputs), dtype=np.int8)
    node = helper.make_node(
        "QLinearMatMul",
        ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"],
        ["y"],
    )
    return session(node, [1, inputs], [1, outputs], [numpy_helper.from_array(weights, "w")])


def seconds(run):
    """Median of samples of at least two milliseconds."""
    run()
    calls, took = 1, 0.0
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        took = time.perf_counter() - start
        if took >= 0.002:
            break
        calls *= 2
    samples = []
    for _ in range(11):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        samples.append((time.perf_counter() - start) / calls)
    return statistics.median(samples)


def ours(binary, folder, turn):
    """Medians of our layers in seconds, by name."""
    layers = folder / "layers.csv"
    with open(layers, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            "network,layer,type,in_ch,in_h,in_w,out_ch,kernel,stride,pad,groups".split(",")
        )
        for name, in_ch, side, out_ch, kernel, stride, pad in CONVS:
            row = ["peer", name, "conv", in_ch, side, side, out_ch, kernel, stride, pad, 1]
            writer.writerow(row)
        for name, inputs, outputs in LINEARS:
            writer.writerow(["peer", name, "fc", inputs, 1, 1, outputs, 1, 1, 0, 1])
    table = folder / f"latency-{turn}.json"
    command = [binary, "cost", "--layers", layers, "--bits", "8", "--cost", "size"]
    command += ["--cpu-table", table, "--cpu-kernels", "int8"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = json.loads(table.read_text())["rows"]
    return {row["layer"]["name"]: row["timing"]["median_us"] / 1e6 for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often both sides take their turn")
    root = pathlib.Path(__file__).resolve().parents[2]
    default = root / "target" / "release" / "releq"
    parser.add_argument("--binary", default=default, help="our side: the program releq")
    args = parser.parse_args()
    if not pathlib.Path(args.binary).exists():
        sys.exit(f"no {args.binary}: run `cargo build --release -p releq-cli`")

    theirs = {name: conv(*shape) for name, *shape in CONVS}
    theirs |= {name: linear(*shape) for name, *shape in LINEARS}
    operations = {
        name: 2 * in_ch * out_ch * kernel**2 * ((side + 2 * pad - kernel) // stride + 1) ** 2
        for name, in_ch, side, out_ch, kernel, stride, pad in CONVS
    }
    operations |= {name: 2 * inputs * outputs for name, inputs, outputs in LINEARS}
    times = {name: ([], []) for name in theirs}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            print(f"round {turn + 1} of {args.rounds}", file=sys.stderr)
            for name, run in theirs.items():
                times[name][0].append(seconds(run))
            for name, took in ours(args.binary, pathlib.Path(folder), turn).items():
                times[name][1].append(took)
    print(f"ONNX Runtime {onnxruntime.__version__}, one thread, medians of {args.rounds} rounds")
    print(f"{'layer':<30}{'theirs us':>10}{'ours us':>10}{'GOP/s':>8}{'GOP/s':>8}{'ratio':>8}")
    for name, (them, us) in times.items():
        them, us = statistics.median(them), statistics.median(us)
        gops = [operations[name] / took / 1e9 for took in (them, us)]
        print(
            f"{name:<30}{them * 1e6:>10.1f}{us * 1e6:>10.1f}{gops[0]:>8.0f}{gops[1]:>8.0f}{them / us:>7.2f}x"
        )


if __name__ == "__main__":
    main()
