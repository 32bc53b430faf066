"""Single convolutions on codes of 8 bits in ONNX Runtime, for our runtime to give the same codes.

    pip install onnx onnxruntime numpy
    python tests/peers/qlinear_conv.py --output crates/releq-runtime/tests/golden/qlinear_conv.json
    cargo test -p releq-runtime --test qlinear_conv

The first command writes the file that the test reads every time: convolutions of all kinds with random weights, and what
`QLinearConv` gives for random codes. More of them, with more channels, are compared once in a while:

    python tests/peers/qlinear_conv.py --random 1000 --seed 2 --output random.json
    RELEQ_QLINEAR_CONV=$PWD/random.json cargo test -p releq-runtime --test qlinear_conv -- --nocapture

So are those of a network. ONNX Runtime computes it for images of the network's input, [images, channels, height, width] in a file of
NumPy, noise unless there is one; each of its convolutions becomes a case, with the codes that it reads there:

    releq export NETWORK --weights FILE --bits 8 --activation-bits 8 --quantizer wrpn-scaled-per-channel --output int8.onnx
    python tests/peers/qlinear_conv.py --model int8.onnx --images 2 --output network.json

Every convolution is also computed here, in whole numbers by NumPy, as the documentation of `releq_runtime::reference` says. The
script fails if ONNX Runtime's codes are others, with its optimizations or without. On x86 processors without 8-bit dot products
(VNNI) they may be, because ONNX Runtime lets sums of two products saturate at 16 bits there.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

LEVELS = onnxruntime.GraphOptimizationLevel


def session(model, level, optimized=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = level
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def ceiling(case):
    """The code that a rectifier ends at."""
    grid = case["y"]
    if case["ceiling"] is None:
        return 255
    return min(255, grid["zero_point"] + int(np.rint(np.float32(case["ceiling"]) / np.float32(grid["scale"]))))


def theirs(case):
    """What ONNX Runtime gives: a `QLinearConv`, and a `Clip` of its codes for a rectifier that the grid does not end at."""
    x, y, w = case["x"], case["y"], case["weights"]
    constants = {
        "x_scale": np.float32(x["scale"]),
        "x_zero": np.uint8(x["zero_point"]),
        "w": w,
        "w_scale": np.float32(case["scales"]),
        "w_zero": np.zeros(len(case["scales"]), np.int8),
        "y_scale": np.float32(y["scale"]),
        "y_zero": np.uint8(y["zero_point"]),
        "low": np.uint8(y["zero_point"]),
        "high": np.uint8(ceiling(case)),
    }
    if len(case["scales"]) == 1:
        constants["w_scale"], constants["w_zero"] = np.float32(case["scales"][0]), np.int8(0)
    if case["bias"] is not None:
        constants["bias"] = np.int32(case["bias"])
    names = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]
    conv = helper.make_node(
        "QLinearConv", names + ["bias"] * (case["bias"] is not None), ["codes"],
        kernel_shape=w.shape[2:], strides=[case["stride"]] * 2, pads=case["padding"], dilations=[case["dilation"]] * 2,
        group=case["groups"],
    )  # fmt: skip
    nodes = [conv] + [helper.make_node("Clip", ["codes", "low", "high"], ["clipped"])] * case["rectified"]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    input = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, *case["codes"].shape])
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.UINT8, None)
    graph = helper.make_graph(nodes, "conv", [input], [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    run = lambda level: session(model, level).run(None, {"x": case["codes"][None]})[0][0]
    optimized, plain = run(LEVELS.ORT_ENABLE_ALL), run(LEVELS.ORT_DISABLE_ALL)
    if not np.array_equal(optimized, plain):
        sys.exit(f"{case['name']}: ONNX Runtime's optimizations change {(optimized != plain).sum()} of {plain.size} codes")
    return plain


def sums(case):
    """The exact sums, [outputs, height, width]."""
    w, groups, stride, dilation = case["weights"].astype(np.int64), case["groups"], case["stride"], case["dilation"]
    top, left, bottom, right = case["padding"]
    image = np.pad(case["codes"].astype(np.int64) - case["x"]["zero_point"], [(0, 0), (top, bottom), (left, right)])
    height, width = [(size - dilation * (side - 1) - 1) // stride + 1 for size, side in zip(image.shape[1:], w.shape[2:])]
    out = np.zeros((len(w), height, width), np.int64)
    for group, rows in enumerate(np.split(np.arange(len(w)), groups)):
        channels = image[group * w.shape[1] : (group + 1) * w.shape[1]]
        for row, column in np.ndindex(*w.shape[2:]):
            taps = channels[:, row * dilation :: stride, column * dilation :: stride][:, :height, :width]
            out[rows] += np.einsum("oc,chw->ohw", w[rows, :, row, column], taps)
    return out if case["bias"] is None else out + np.int64(case["bias"])[:, None, None]


def expected(case):
    """What the codes are defined to be: every step in single precision, rounding half to even."""
    x, y = case["x"], case["y"]
    factors = np.float32(x["scale"]) * np.float32(case["scales"]) / np.float32(y["scale"])
    zero = np.float32(y["zero_point"])
    values = np.clip(sums(case).astype(np.float32) * factors[:, None, None], -zero, 255 - zero)
    codes = (np.rint(values) + zero).astype(np.uint8)
    return np.clip(codes, y["zero_point"], ceiling(case)) if case["rectified"] else codes


def short(value):
    """Five digits, so that the file is small and the number the same in every program."""
    return float(f"{value:.5g}")


def draw(rng, name, **given):
    """A convolution whose codes fill the range of its outputs and somewhat more. What is not given is random."""
    pick = lambda key, choices: given[key] if key in given else choices[rng.integers(len(choices))]
    kernel = pick("kernel", [1, 3, 3, 5])
    dilation = pick("dilation", [1, 1, 1, 2])
    stride = pick("stride", [1, 1, 2])
    padding = pick("padding", [[side] * 4 for side in range(kernel // 2 + 1)] + [[0, 0, kernel // 2, kernel // 2]])
    channels = pick("channels", [1, 3, 16, 20, 33, 64])
    groups = {"dense": 1, "depthwise": channels, "grouped": next((g for g in (2, 3) if channels % g == 0), 1)}
    kind = pick("kind", ["dense", "dense", "dense", "depthwise", "grouped"])
    # More channels of outputs than inputs are not depthwise for our runtime.
    outputs = channels if kind == "depthwise" else pick("outputs", [1, 12, 16, 17, 40, 96]) * groups[kind]
    side = max(5, dilation * (kernel - 1) + 1)
    size = pick("size", [[side, side], [side + 3, side + 1], [14, 14]])
    bits = pick("bits", [8, 8, 8, 6, 4, 3, 2, 1])
    shape = (outputs, channels // groups[kind], kernel, kernel)
    half = 2 ** (bits - 1)
    weights = rng.choice([-1, 1], shape) if bits == 1 else rng.integers(-half, half, shape)
    x = {"scale": short(rng.uniform(0.005, 0.05)), "zero_point": int(pick("x_zero", [0, 128, 255, rng.integers(256)]))}
    y = {"scale": 1.0, "zero_point": int(pick("y_zero", [0, 0, 128, 255, rng.integers(256)]))}
    count = 1 if pick("one_scale", [False, False, True]) else outputs
    case = {
        "name": name, "stride": stride, "padding": padding, "dilation": dilation, "groups": groups[kind], "x": x, "y": y,
        "rectified": False, "ceiling": None, "scales": [short(value) for value in rng.uniform(0.5, 1.5, count) / half],
        "bias": None, "codes": rng.integers(0, 256, (channels, *size)).astype(np.uint8), "weights": weights.astype(np.int8),
    }  # fmt: skip
    spread = max(1.0, float(sums(case).std()))
    if pick("bias", [True, True, False]):
        case["bias"] = [int(value) for value in rng.normal(0, spread, outputs)]
    y["scale"] = short(x["scale"] * spread / half / rng.uniform(30, 90))
    if "powers" in given:
        # All steps are exact, so many sums lie half way between two codes.
        case["scales"] = [2.0**-power for power in rng.integers(0, 3, outputs)]
        x["scale"], y["scale"] = 0.5, 0.5 * 2.0 ** np.floor(np.log2(spread / 30))
    if pick("rectified", [False, False, True]):
        case["rectified"] = True
        case["ceiling"] = pick("ceiling", [None, short(y["scale"] * rng.uniform(20, 100))])
    return case


def kinds(rng):
    """One of every kind, small."""
    small = {"channels": 3, "size": [6, 4], "outputs": 9, "kernel": 3, "stride": 1, "dilation": 1, "kind": "dense", "bits": 8}
    small |= {"padding": [1] * 4, "rectified": False, "one_scale": False, "bias": True}
    depthwise = {"kind": "depthwise", "channels": 19}
    for name, given in {
        "padded with code 137": {"x_zero": 137, "y_zero": 90, "outputs": 17},
        "padded with code 255, one scale, no bias": {"x_zero": 255, "y_zero": 255, "one_scale": True, "bias": False},
        "padded with code 0": {"x_zero": 0, "y_zero": 131},
        "stride of 2": {"stride": 2, "x_zero": 101, "y_zero": 128, "outputs": 19},
        "stride of 2, padded right and below alone": {"stride": 2, "padding": [0, 0, 1, 1], "x_zero": 77, "y_zero": 60},
        "1 x 1": {"kernel": 1, "padding": [0] * 4, "channels": 21, "x_zero": 19, "y_zero": 128, "outputs": 33},
        "1 x 1, stride of 2, no bias": {"kernel": 1, "padding": [0] * 4, "channels": 16, "stride": 2, "bias": False, "y_zero": 3},
        "5 x 5": {"kernel": 5, "padding": [2] * 4, "channels": 2, "x_zero": 200, "y_zero": 120},
        "ReLU by the end of the range": {"x_zero": 5, "y_zero": 0, "rectified": True, "ceiling": None},
        "ReLU within the range": {"x_zero": 128, "y_zero": 70, "rectified": True, "ceiling": None},
        "clipped within the range": {"x_zero": 0, "y_zero": 40, "rectified": True},
        "halves": {"powers": True, "bits": 2, "outputs": 17, "x_zero": 128, "y_zero": 128},
        "weights of 4 bits": {"bits": 4, "x_zero": 128, "y_zero": 128},
        "weights of 2 bits": {"bits": 2, "x_zero": 33, "y_zero": 0, "one_scale": True},
        "weights of 1 bit": {"bits": 1, "x_zero": 128, "y_zero": 128},
        "depthwise": depthwise | {"x_zero": 150, "y_zero": 100},
        "depthwise, stride of 2, ReLU": depthwise | {"stride": 2, "x_zero": 0, "y_zero": 0, "rectified": True, "ceiling": None},
        "depthwise, 5 x 5, halves": depthwise | {"kernel": 5, "padding": [2] * 4, "powers": True, "bits": 3, "x_zero": 99, "y_zero": 128},
        "two groups": {"kind": "grouped", "channels": 4, "outputs": 6, "x_zero": 128, "y_zero": 128},
        "dilated": {"dilation": 2, "padding": [2] * 4, "x_zero": 128, "y_zero": 128},
    }.items():
        yield draw(rng, name, **small | given)


def of_network(path, images):
    """Every convolution of a network whose activations have 8 bits, and the codes that ONNX Runtime reads and gives there."""
    with tempfile.TemporaryDirectory() as folder:
        fused = pathlib.Path(folder) / "fused.onnx"
        # Without the rewrites for one processor, which move convolutions to another order of dimensions.
        session(str(path), LEVELS.ORT_ENABLE_EXTENDED, fused)
        model = onnx.load(str(fused))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convs = [node for node in model.graph.node if node.op_type == "QLinearConv"]
    if not convs or any(node.op_type == "Conv" for node in model.graph.node):
        sys.exit(f"{path}: no convolutions on integers, or not all of them")
    names = sorted({name for node in convs for name in (node.input[0], node.output[0])})
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names)
    tapped = session(model.SerializeToString(), LEVELS.ORT_DISABLE_ALL)
    [input] = tapped.get_inputs()
    if isinstance(images, int):
        images = np.random.default_rng(1).standard_normal((images, *input.shape[1:])).astype(np.float32)
    for number, image in enumerate(images):
        seen = dict(zip(names, tapped.run(names, {input.name: image[None]})))
        for node in convs:
            x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *bias = node.input
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if np.any(constants[w_zero]) or constants[w].dtype != np.int8:
                sys.exit(f"{node.name}: weights with a zero point")
            [stride] = set(attributes.get("strides", [1]))
            [dilation] = set(attributes.get("dilations", [1]))
            case = {
                "name": f"{node.name or node.output[0]}, image {number}", "stride": stride, "dilation": dilation,
                "padding": list(attributes.get("pads", [0] * 4)), "groups": attributes.get("group", 1),
                "x": {"scale": float(constants[x_scale]), "zero_point": int(constants[x_zero])},
                "y": {"scale": float(constants[y_scale]), "zero_point": int(constants[y_zero])},
                "rectified": False, "ceiling": None, "scales": [float(scale) for scale in constants[w_scale].ravel()],
                "bias": [int(code) for code in constants[bias[0]]] if bias else None,
                "codes": seen[x][0], "weights": constants[w],
            }  # fmt: skip
            yield case, seen[node.output[0]][0]


def text(array):
    """Bytes as hexadecimal digits, row-major; weights in two's complement."""
    return np.ascontiguousarray(array).tobytes().hex()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, help="file to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--random", type=int, help="write this many random convolutions, not one of every kind")
    parser.add_argument("--model", help="write the convolutions of this ONNX model with activations of 8 bits")
    parser.add_argument("--images", default="1", help="file .npy of images for the model, or how many of noise")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    if args.model:
        images = int(args.images) if args.images.isdigit() else np.load(args.images)
        pairs = of_network(args.model, images)
    elif args.random:
        pairs = ((case, theirs(case)) for case in (draw(rng, f"random {number}") for number in range(args.random)))
    else:
        pairs = ((case, theirs(case)) for case in kinds(rng))
    written, codes, wrong = [], 0, 0
    for case, out in pairs:
        differ = int((out != expected(case)).sum())
        if differ:
            print(f"{case['name']}: {differ} of {out.size} codes of ONNX Runtime are others", file=sys.stderr)
        codes, wrong = codes + out.size, wrong + differ
        shapes = {"input": case["codes"].shape, "outputs": len(case["weights"]), "kernel": case["weights"].shape[2]}
        arrays = {"codes": text(case["codes"]), "weights": text(case["weights"]), "expected": text(out)}
        written.append(json.dumps(case | shapes | arrays, separators=(",", ":")))
    head = json.dumps({"from": f"tests/peers/qlinear_conv.py, seed {args.seed}", "onnxruntime": onnxruntime.__version__})
    pathlib.Path(args.output).write_text(head[:-1] + ', "cases": [\n' + ",\n".join(written) + "\n]}\n")
    print(f"{len(written)} convolutions, {codes} codes, of which {wrong} are not those computed in whole numbers")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
