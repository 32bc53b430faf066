"""Whether others compute with exported networks what the fake-quantized weights say.

    pip install torch torchvision onnx onnxruntime qonnx numpy safetensors
    cargo build --release -p releq-cli
    python tests/peers/export.py target/release/releq [--resnet20 resnet20-12fca82f.th]

Every network is exported as dq, qcdq, qonnx and packed at 8, 4, 3, 2 and 1 bits and with mixed bitwidths. Expected are the
outputs of `releq run` for weights that are rounded already (form safetensors). Differences are the largest over images and
classes, as a share of the spread: the standard deviation of a logit over the images, averaged over the classes.

- onnx.checker accepts the models, and ONNX Runtime computes the outputs, without optimizations and with all: up to 1e-5, or four
  times as much as its outputs for a model in single precision differ between the two ("alone"), which is more where images hardly
  differ, as at 1 bit without retraining, and for weights that were never trained.
- With session.disable_quant_qdq=1 and all optimizations its outputs are those of a model in single precision that holds the
  dequantized weights, bit for bit. That model is made here, by NumPy, without the program. Without optimizations, weights that
  are no constants are multiplied in another order.
- QONNX's executor computes the outputs, and its inference_cost counts the weights at their bitwidths.
- The program reads each file back with the same bitwidths, and Python reads the packed file to the same weights.

With --cifar10 FOLDER, ResNet-20 is also exported with activations of 8 bits at every bitwidth. ONNX Runtime's optimized model
must have integer kernels alone for convolutions, and its accuracy on the test images is shown beside the one that the program
measured by rounding activations in single precision.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime
import qonnx
import torch
import torchvision
from onnx import numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.inference_cost import inference_cost
from safetensors.numpy import load_file

warnings.filterwarnings("ignore")
torch.manual_seed(1)
torch.set_num_threads(1)
IMAGES, QONNX_IMAGES = 64, 2
ROOT = pathlib.Path(__file__).parents[2]


class Failed(Exception):
    pass


def expect(condition, message):
    if not condition:
        raise Failed(message)


def reader():
    """The function that the description of the format gives, as it stands there."""
    text = (ROOT / "docs" / "packed-format.md").read_text()
    names = {}
    exec(re.search(r"```python\n(.*?)```", text, re.S)[1], names)
    return names["read"]


def pictures(rng, count, shape):
    """Images that differ as photographs do, in large areas: noise alone is one image to a network that averages."""
    channels, height, width = shape
    coarse = rng.standard_normal((count, channels, 4, 4))
    areas = coarse.repeat(-(-height // 4), axis=2).repeat(-(-width // 4), axis=3)[:, :, :height, :width]
    return (areas + 0.3 * rng.standard_normal((count, *shape))).astype(np.float32)


def test_images(folder, count):
    """Test images as ResNet-20 takes them, and their classes."""
    from PIL import Image

    names = sorted(path.name for path in (pathlib.Path(folder) / "test").iterdir())
    files = [(path, label) for label, name in enumerate(names) for path in sorted((pathlib.Path(folder) / "test" / name).iterdir())]
    files = files[:: max(1, len(files) // count)]
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB"), np.float32) / 255 for path, _ in files])
    return ((pixels - mean) / std).transpose(0, 3, 1, 2).copy(), np.array([label for _, label in files])


def spread(logits):
    return float(logits.std(axis=0).mean())


def run_onnx(path, x, qdq=True, optimized=True):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    if not qdq:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batch = session.get_inputs()[0].shape[0]
    step = batch if isinstance(batch, int) else len(x)
    return np.concatenate([session.run(None, {name: x[i : i + step]})[0] for i in range(0, len(x), step)])


def dequantized(path, to):
    """Replaces all nodes between constants and layers by what they compute; gives the tensors that layers read."""
    model = onnx.load(str(path))
    graph = model.graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept, weights = [], {}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "Clip", "DequantizeLinear") or node.input[0] not in known:
            kept.append(node)
            continue
        args = [known[name] for name in node.input]
        if node.op_type == "Clip":
            value = np.clip(*args)
        else:
            scale = args[1].reshape([-1] + [1] * (args[0].ndim - 1)) if args[1].ndim else args[1]
            if node.op_type == "QuantizeLinear":
                value = np.clip(np.rint(args[0] / scale), -128, 127).astype(np.int8)
            else:
                value = args[0].astype(np.float32) * scale.astype(np.float32)
                weights[node.output[0]] = value
        known[node.output[0]] = value
    read = {name for node in kept for name in node.input}
    graph.ClearField("node")
    graph.ClearField("initializer")
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(known[name], name) for name in known if name in read)
    onnx.save(model, str(to))
    return weights


class Peer:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def releq(self, *args):
        done = subprocess.run([self.program, *map(str, args)], capture_output=True, text=True)
        expect(done.returncode == 0, f"releq {args}: {done.stderr}")
        return done.stdout

    def logits(self, network, weights, images):
        out = self.folder / "out.npz"
        self.releq("run", network, "--weights", weights, "--input", images, "--output", out)
        return np.load(out)["logits"]

    def export(self, source, bits, form, suffix=".onnx"):
        path = self.folder / f"{form}{suffix}"
        told = self.releq("export", *source, "--bits", bits, "--form", form, "--output", path, "--json")
        return path, json.loads(told)

    def check(self, name, source, network, shape):
        rng = np.random.default_rng(7)
        x = pictures(rng, IMAGES, shape)
        images = self.folder / "x.npz"
        np.savez(images, x=x)
        layers = len(json.loads(self.releq("export", *source, "--output", self.folder / "a.onnx", "--json"))["layers"])
        mixed = [2 + i % 7 if i % 8 else 1 for i in range(layers)]
        for label, bits in [(str(b), [b] * layers) for b in (8, 4, 3, 2, 1)] + [("mixed", mixed)]:
            text = ",".join(map(str, bits))
            rounded, _ = self.export(source, text, "safetensors", ".safetensors")
            expected = self.logits(network, rounded, images)
            unit = spread(expected)
            weights = sorted(array.tobytes() for key, array in load_file(rounded).items() if key.endswith("weight"))
            cells = []
            for form in ("dq", "qcdq"):
                path, told = self.export(source, text, form)
                onnx.checker.check_model(str(path), full_check=True)
                flat = self.folder / "flat.onnx"
                # Zeros have one sign here.
                for array in dequantized(path, flat).values():
                    expect(
                        any(np.array_equal(array.ravel(), np.frombuffer(other, np.float32)) for other in weights),
                        f"{name} {label} {form}: a weight differs",
                    )
                differences = [np.abs(run_onnx(path, x, optimized=o) - expected).max() / unit for o in (False, True)]
                own = np.abs(run_onnx(flat, x, optimized=False) - run_onnx(flat, x)).max() / unit
                tolerance = max(1e-5, 4 * own)
                difference = max(differences)
                expect(difference < tolerance, f"{name} {label} {form}: {difference:.1e} of the spread, {own:.1e} there alone")
                same = np.array_equal(run_onnx(path, x, qdq=False), run_onnx(flat, x))
                expect(same, f"{name} {label} {form}: not the outputs of the dequantized model")
                back = json.loads(self.releq("import", path, "--json"))
                expect(back["bits"] == bits, f"{name} {label} {form}: read back as {back['bits']}")
                cells.append(f"{difference:.0e}")
                if form == "dq":
                    cells.insert(0, f"{own:.0e}")
                    cells[-1] += f" ({told['bytes'] / 1000:.0f} kB, ONNX {told['opset']})"
                else:
                    cells[-1] += f" ({told['bytes'] / 1000:.0f} kB)"
            cells.append(self.qonnx(name, label, source, text, bits, x, expected, unit, tolerance))
            cells.append(self.packed(name, label, source, text, bits, rounded, images, expected))
            print(f"| {name} | {label} | {' | '.join(cells)} |", flush=True)

    def qonnx(self, name, label, source, text, bits, x, expected, unit, tolerance):
        path, told = self.export(source, text, "qonnx")
        model = ModelWrapper(str(path)).transform(InferShapes())
        names = model.graph.input[0].name, model.graph.output[0].name
        got = np.concatenate([execute_onnx(model, {names[0]: x[i : i + 1]})[names[1]] for i in range(QONNX_IMAGES)])
        difference = np.abs(got - expected[:QONNX_IMAGES]).max() / unit
        expect(difference < tolerance, f"{name} {label} qonnx: {difference:.1e} of the spread")
        back = json.loads(self.releq("import", path, "--json"))
        expect(back["bits"] == bits, f"{name} {label} qonnx: read back as {back['bits']}")
        cost = inference_cost(str(path), discount_sparsity=False)["total_cost"]
        counted = {key[len("mem_w_") :]: value for key, value in cost.items() if key.startswith("mem_w_")}
        sizes = {}
        profiles = self.weights(source)
        for layer, width in zip(profiles, bits):
            sizes[width] = sizes.get(width, 0) + layer
        got_bits = {}
        for key, count in counted.items():
            width = re.search(r"INT<?(\d+)", key)
            got_bits[int(width[1]) if width else key] = got_bits.get(int(width[1]) if width else key, 0) + count
        wanted = {width: count for width, count in sizes.items() if width > 1}
        seen = {width: count for width, count in got_bits.items() if width in wanted}
        expect(seen == wanted, f"{name} {label} qonnx: inference_cost counts {counted}, expected {sizes}")
        note = "" if 1 not in bits else f", 1 bit as {'/'.join(k for k in counted if 'INT' not in k) or 'INT'}"
        return f"{difference:.0e} ({told['bytes'] / 1000:.0f} kB{note})"

    def int8(self, source, folder, count):
        images, labels = test_images(folder, count)
        print("\n| bits of weights | weights alone | 8-bit activations, measured | ONNX Runtime | same class |\n|---|---|---|---|---|")
        path, optimized = self.folder / "int8.onnx", self.folder / "optimized.onnx"
        for bits in (8, 4, 3, 2):
            told = self.releq(
                "export", *source, "--bits", bits, "--quantizer", "wrpn-scaled-per-channel", "--activation-bits", 8,
                "--data", folder, "--output", path, "--json",
            )  # fmt: skip
            accuracy = json.loads(told)["accuracy"]
            onnx.checker.check_model(str(path), full_check=True)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.optimized_model_filepath = str(optimized)
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            kinds = [node.op_type for node in onnx.load(str(optimized)).graph.node]
            convs = sum(node.op_type == "Conv" for node in onnx.load(str(path)).graph.node)
            expect(kinds.count("QLinearConv") == convs and "Conv" not in kinds, f"int8 {bits}: {sorted(set(kinds))}")
            got = run_onnx(path, images).argmax(axis=1)
            weights_only, _ = self.export(source + ["--quantizer", "wrpn-scaled-per-channel"], str(bits), "dq")
            same = (got == run_onnx(weights_only, images).argmax(axis=1)).mean()
            cells = [accuracy["weights_only"], accuracy["with_activations"], (got == labels).mean(), same]
            print(f"| {bits} | {' | '.join(f'{100 * cell:.2f} %' for cell in cells)} |", flush=True)

    def weights(self, source):
        told = json.loads(self.releq("export", *source, "--output", self.folder / "a.onnx", "--json"))
        model = onnx.load(str(self.folder / "a.onnx"))
        readers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
        sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
        expect(len(readers) == len(told["layers"]), "as many layers as readers of weights")
        return [sizes[node.input[1]] for node in readers]

    def packed(self, name, label, source, text, bits, rounded, images, expected):
        path, told = self.export(source, text, "packed", ".releq.safetensors")
        out = self.folder / "out.npz"
        self.releq("run", path, "--input", images, "--output", out)
        expect(np.array_equal(np.load(out)["logits"], expected), f"{name} {label} packed: other outputs")
        weights = load_file(rounded)
        for key, value in reader()(path):
            expect(np.array_equal(value, weights[key]), f"{name} {label} packed: `{key}` differs")
        back = json.loads(self.releq("import", path, "--json"))
        expect(back["bits"] == bits, f"{name} {label} packed: read back as {back['bits']}")
        return f"{told['bytes'] / 1000:.0f} kB"


def mobilenet(folder, keeps_norms):
    """MobileNetV2 for 10 classes, with seeded weights and statistics of the norms that fit them."""
    torch.manual_seed(1)
    model = torchvision.models.mobilenet_v2(num_classes=10)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # The mean over all batches: nothing is left of the statistics that a new norm has.
            module.momentum = None
    rng = np.random.default_rng(3)
    with torch.no_grad():
        for _ in range(20):
            model(torch.from_numpy(pictures(rng, 16, (3, 64, 64))))
    path = folder / f"mobilenet_v2_{'kept' if keeps_norms else 'folded'}.onnx"
    kept = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE} if keeps_norms else {}
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1
    names = {"input_names": ["pixels"], "output_names": ["scores"], "dynamic_axes": {"pixels": {0: "n"}, "scores": {0: "n"}}}
    torch.onnx.export(model.eval(), torch.randn(1, 3, 64, 64), str(path), dynamo=False, **names, **kept)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the program releq")
    parser.add_argument("--resnet20", help="checkpoint of ResNet-20 of akamaster/pytorch_resnet_cifar10")
    parser.add_argument("--cifar10", help="folder of CIFAR-10 with test/CLASS/*.jpg, for activations of 8 bits")
    parser.add_argument("--only", help="networks whose names have this in them")
    args = parser.parse_args()
    versions = {m.__name__: getattr(m, "__version__", "1.0.0") for m in (onnx, onnxruntime, qonnx, torch, torchvision)}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print("| network | bits | ONNX Runtime alone | dq | qcdq | qonnx | packed |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        peer = Peer(str(pathlib.Path(args.program).resolve()), folder)
        lenet = folder / "lenet.st"
        networks = [("LeNet", lambda: (["lenet", "--weights", lenet], "lenet"), (1, 28, 28))]
        if args.resnet20:
            checkpoint = pathlib.Path(args.resnet20).resolve()
            resnet20 = ["resnet20_option_a", "--weights", checkpoint]
            networks.append(("ResNet-20", lambda: (resnet20, "resnet20_option_a"), (3, 32, 32)))
        for keeps_norms in (False, True):
            name = f"MobileNetV2, norms {'kept' if keeps_norms else 'folded'}"
            made = lambda keeps_norms=keeps_norms: ([path := mobilenet(folder, keeps_norms)], path)
            networks.append((name, made, (3, 64, 64)))
        for name, make, shape in networks:
            if args.only and args.only not in name:
                continue
            if name == "LeNet":
                peer.releq("train", "lenet", "--data", "digits", "--epochs", "1", "--output", lenet)
            source, network = make()
            peer.check(name, source, network, shape)
        if args.cifar10:
            expect(args.resnet20, "--cifar10 is for --resnet20")
            peer.int8(resnet20, args.cifar10, 10_000)


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(f"FAILED: {failed}")
