"""Small ONNX models and the outputs that others compute for them: the files of tests/golden/onnx.

    pip install torch onnx onnxruntime onnxscript numpy
    python make_onnx.py [FOLDER]

Written with torch 2.15.0, onnx 1.23.2 and ONNX Runtime 1.32.0 on 2026-11-27. For every NAME.onnx there is NAME.npz with
`x` [3, channels, height, width] and `logits` [3, classes]: PyTorch's for the networks that PyTorch exports, ONNX Runtime's
for those that are written node by node, as Keras, Paddle and Caffe2 write them.
"""
import pathlib
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn as nn
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
OUT = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "onnx"


def norm(channels, **kwargs):
    return nn.BatchNorm2d(channels, **kwargs)


class Plain(nn.Module):
    """A LeNet for digits, whose flattening asks for the size of the batch."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3, bias=False)
        self.fc1, self.fc2 = nn.Linear(216, 12), nn.Linear(12, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2, ceil_mode=True)
        return self.fc2(F.relu(self.fc1(x.view(x.size(0), -1))))


class Residual(nn.Module):
    """Shortcuts with a projection (B) or with channels of zeros (A)."""

    def __init__(self, option):
        super().__init__()
        self.option = option
        self.stem, self.bn = nn.Conv2d(3, 6, 3, 1, 1, bias=False), norm(6)
        self.conv1, self.bn1 = nn.Conv2d(6, 11, 3, 2, 1, bias=False), norm(11)
        self.conv2, self.bn2 = nn.Conv2d(11, 11, 3, 1, 1, bias=False), norm(11)
        if option == "B":
            self.down = nn.Sequential(nn.Conv2d(6, 11, 1, 2, bias=False), norm(11))
        self.drop, self.fc = nn.Dropout(0.25), nn.Linear(11, 5)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = self.down(x) if self.option == "B" else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 3))
        x = F.relu(x + y)
        return self.fc(self.drop(F.avg_pool2d(x, x.size(3)).view(x.size(0), -1)))


class Inverted(nn.Module):
    """MobileNetV2's block, ReLU6, a mean over rows and columns."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), norm(6), nn.ReLU6())
        self.block = nn.Sequential(
            nn.Conv2d(6, 12, 1, bias=False), norm(12), nn.ReLU6(),
            nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False), norm(12), nn.ReLU6(),
            nn.Conv2d(12, 6, 1, bias=False), norm(6),
        )
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.fc((x + self.block(x)).mean([2, 3]))


class Gates(nn.Module):
    """Squeeze and excitation after two kinds of activations."""

    def __init__(self, act, gate):
        super().__init__()
        self.conv, self.bn, self.act, self.gate = nn.Conv2d(3, 8, 3, 2, 1), norm(8), act(), gate()
        self.down, self.up, self.fc = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1), nn.Linear(8, 5)

    def forward(self, x):
        x = self.act(self.bn(self.conv(x)))
        x = x * self.gate(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.fc(self.act(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)))


class Branches(nn.Module):
    """Kernels that are not square, padding that counts and does not, a pool whose last window is cut."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, (1, 5), padding=(0, 2))
        self.b = nn.Conv2d(3, 3, 3, padding=2, dilation=2)
        self.bn = norm(10)
        self.head = nn.Conv2d(10, 5, 1)

    def forward(self, x):
        x = (x - 0.4) / torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)
        x = torch.cat([self.a(x), self.b(x), F.avg_pool2d(x, 3, 1, 1)], 1)
        x = F.relu(self.bn(F.max_pool2d(x, 3, 2, ceil_mode=True)))
        x = self.head(F.avg_pool2d(x, 3, 2, 1, count_include_pad=False))
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)


class Shuffle(nn.Module):
    """ShuffleNet's halves and shuffle, and pixels that are normalized channel by channel."""

    def __init__(self):
        super().__init__()
        self.conv, self.branch, self.bn = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1), norm(4)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.cat([torch.unsqueeze(x[:, c], 1) * (0.5 + c) + 0.1 * c for c in range(3)], 1)
        a, b = F.relu(self.conv(x)).chunk(2, 1)
        x = torch.cat([a, F.relu(self.bn(self.branch(b)))], 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return self.fc(x.mean([2, 3]))


class Functions(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(3, 6, 3, 2), nn.Linear(6 * 9, 8), nn.Linear(8, 5)
        self.prelu = nn.PReLU()

    def forward(self, x):
        x = F.gelu(self.conv(x))
        x = torch.flatten(F.leaky_relu(self.prelu(F.hardtanh(x, -0.5, 2.0)) - 0.1, 0.2), 1)
        return F.log_softmax(self.fc2(torch.tanh(self.fc1(x))), 1)


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 5), nn.Softmax(1))


LEGACY, DYNAMO = dict(dynamo=False, batch=True), dict(dynamo=True, external_data=False)
EVAL = torch.onnx.TrainingMode.PRESERVE
TORCH = {
    "plain_legacy": (Plain, (1, 28, 28), dict(**LEGACY, opset_version=13)),
    "residual_a_dynamo_external": (lambda: Residual("A"), (3, 8, 8), dict(dynamo=True, external_data=True)),
    "residual_a_legacy": (lambda: Residual("A"), (3, 8, 8), dict(**LEGACY, opset_version=11)),
    "residual_b_kept_legacy": (lambda: Residual("B"), (3, 8, 8), dict(**LEGACY, do_constant_folding=False, training=EVAL)),
    "residual_b_kept_dynamo": (lambda: Residual("B"), (3, 8, 8), dict(**DYNAMO, optimize=False)),
    "inverted_dynamo": (Inverted, (3, 8, 8), dict(**DYNAMO, dynamic=True)),
    "hard_gates_legacy": (lambda: Gates(nn.Hardswish, nn.Hardsigmoid), (3, 8, 8), dict(**LEGACY, opset_version=12)),
    "silu_gates_dynamo": (lambda: Gates(nn.SiLU, nn.Sigmoid), (3, 8, 8), dict(**DYNAMO)),
    "branches_legacy": (Branches, (3, 10, 8), dict(**LEGACY)),
    "shuffle_legacy": (Shuffle, (3, 8, 8), dict(**LEGACY)),
    "shuffle_dynamo": (Shuffle, (3, 8, 8), dict(**DYNAMO, optimize=False)),
    "functions_legacy": (Functions, (3, 8, 8), dict(**LEGACY, opset_version=17)),
    "mlp_softmax_dynamo": (mlp, (3, 4, 4), dict(**DYNAMO)),
}


def prepare(network, shape, generator):
    """Weights and statistics as after training, outputs that differ from image to image."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan = module.weight[0].numel()
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * (2.0 / fan) ** 0.5)
            if module.bias is not None:
                module.bias.data.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.weight.data.copy_(torch.rand(module.num_features, generator=generator) * 0.5 + 0.75)
            module.bias.data.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
    network.train()
    network(torch.randn(24, *shape, generator=generator))
    network.eval()


def export(name, make, shape, how, index):
    how, path = dict(how), OUT / f"{name}.onnx"
    torch.manual_seed(index)
    generator = torch.Generator().manual_seed(index)
    with torch.no_grad():
        network = make().eval()
        prepare(network, shape, generator)
        x = torch.randn(3, *shape, generator=generator)
        logits = network(x)
        sample = x[:1]
        if how.pop("batch", False):
            how["dynamic_axes"] = {"input": {0: "batch"}, "logits": {0: "batch"}}
        if how.pop("dynamic", False):
            how["dynamic_shapes"] = ({0: torch.export.Dim("batch", min=1, max=64)},)
            sample = x[:2]
        if how["dynamo"]:
            how["verbose"] = False
        torch.onnx.export(network, (sample,), str(path), input_names=["input"], output_names=["logits"], **how)
    # Names of source files and what was where when it was exported are most of a small file.
    model = onnx.load(path, load_external_data=False)
    for message in [model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer]:
        del message.metadata_props[:]
        message.doc_string = ""
    del model.graph.value_info[:]
    path.write_bytes(model.SerializeToString())
    return x.numpy(), logits.numpy()


class Nodes:
    """A model that is written node by node."""

    def __init__(self, opset, ir):
        self.opset, self.ir = opset, ir
        self.nodes, self.weights, self.inputs = [], [], []
        self.random = np.random.default_rng(opset)

    def __call__(self, op, *inputs, **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def weight(self, *shape, scale=0.5, kind="initializer", dtype=np.float32):
        values = self.random.normal(size=shape, scale=scale).astype(np.float32)
        return self.tensor(values.astype(dtype), kind)

    def positive(self, *shape, kind="initializer"):
        return self.tensor(self.random.uniform(0.5, 1.5, size=shape).astype(np.float32), kind)

    def tensor(self, values, kind="initializer"):
        values = np.asarray(values)
        if kind == "constant":
            return self("Constant", value=numpy_helper.from_array(values))
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        if kind == "input":
            element = helper.np_dtype_to_tensor_dtype(values.dtype)
            self.inputs.append(helper.make_tensor_value_info(name, element, values.shape))
        return name

    def model(self, shape, output, producer):
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        gives = helper.make_tensor_value_info(output, TensorProto.FLOAT, [shape[0], None])
        graph = helper.make_graph(self.nodes, "graph", [given, *self.inputs], [gives], self.weights)
        sets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=sets, ir_version=self.ir, producer_name=producer)


def keras():
    """Channels last, padding on two sides, a flattening by rows, norms that became Mul and Add."""
    g = Nodes(13, 7)
    x = g("Sub", g("Mul", "x", g.tensor(np.float32(0.5))), g.tensor(np.float32([0.1, 0.2, 0.3])))
    x = g("Transpose", x, perm=[0, 3, 1, 2])
    x = g("Conv", x, g.weight(6, 3, 3, 3), g.weight(6), strides=[2, 2], pads=[0, 0, 1, 1])
    x = g("Clip", x, g.tensor(np.float32(0)), g.tensor(np.float32(6)))
    x = g("Pad", x, g.tensor(np.int64([0, 0, 0, 0, 0, 0, 1, 1])))
    x = g("Conv", x, g.weight(6, 1, 3, 3), group=6, strides=[1, 1])
    x = g("Mul", x, g.positive(1, 6, 1, 1))
    x = g("Relu", g("Add", x, g.weight(1, 6, 1, 1)))
    x = g("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER")
    x = g("Transpose", x, perm=[0, 2, 3, 1])
    x = g("Reshape", x, g.tensor(np.int64([-1, 24])))
    x = g("Relu", g("Add", g("MatMul", x, g.weight(24, 7)), g.weight(7)))
    x = g("Add", g("MatMul", x, g.weight(7, 5)), g.weight(5))
    return g.model(["batch", 8, 8, 3], g("Softmax", x, axis=-1), "tf2onnx")


def paddle():
    """Every weight a constant, biases that are reshaped, a hard swish in four nodes, half precision."""
    g = Nodes(11, 7)
    x = g("Conv", "x", g.weight(6, 3, 3, 3, kind="constant"), strides=[2, 1], pads=[1, 1, 1, 1])
    x = g("BatchNormalization", x, *[g.positive(6, kind="constant") for _ in range(4)], epsilon=1e-3)
    inner = g("Clip", g("Add", x, g.tensor(np.float32(3), "constant")), g.tensor(np.float32(0), "constant"), g.tensor(np.float32(6), "constant"))
    x = g("Div", g("Mul", x, inner), g.tensor(np.float32(6), "constant"))
    half = g("Cast", g.weight(6, 1, 3, 3, kind="constant", dtype=np.float16), to=TensorProto.FLOAT)
    x = g("Conv", x, half, group=6, pads=[1, 1, 1, 1])
    x = g("Add", x, g("Reshape", g.weight(6, kind="constant"), g.tensor(np.int64([1, 6, 1, 1]), "constant")))
    gate = g("GlobalAveragePool", x)
    gate = g("Conv", gate, g.weight(6, 6, 1, 1, kind="constant"), g.weight(6, kind="constant"))
    x = g("Mul", x, g("HardSigmoid", gate, alpha=0.2, beta=0.5))
    x = g("Squeeze", g("GlobalAveragePool", x), axes=[2, 3])
    x = g("Add", g("MatMul", x, g.weight(6, 5, kind="constant")), g.weight(5, kind="constant"))
    return g.model([-1, 3, 8, 8], x, "PaddlePaddle")


def caffe():
    """Initialisers that are inputs, shared ones, weights of one number, a scale after a norm, a norm over channels."""
    g = Nodes(9, 3)
    w = lambda *shape: g.weight(*shape, kind="input")
    x = g("Conv", "x", w(6, 3, 3, 3), w(6), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    shared = [g.positive(6, kind="input") for _ in range(4)]
    x = g("BatchNormalization", x, *shared, epsilon=1e-5)
    axes = dict(axes=[1, 2])
    x = g("Add", g("Mul", x, g("Unsqueeze", w(6), **axes)), g("Unsqueeze", w(6), **axes))
    x = g("LRN", g("Relu", x), size=3, alpha=0.3, beta=0.75, bias=1.0)
    x = g("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    y = g("Conv", x, w(6, 3, 1, 1), kernel_shape=[1, 1], group=2)
    y = g("BatchNormalization", y, *shared, epsilon=1e-5)
    x = g("Clip", g("Sum", x, y), min=0.0, max=2.0)
    x = g("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    ones = g("ConstantOfShape", g.tensor(np.int64([4, 6, 1, 1]), "input"), value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5]))
    y = g("Conv", x, ones, kernel_shape=[1, 1])
    x = g("Concat", x, g("Sigmoid", y), axis=1)
    x = g("Dropout", x)
    x = g("Gemm", g("Reshape", x, g.tensor(np.int64([1, 40]), "input")), w(5, 40), w(5), transB=1, alpha=0.5, beta=2.0)
    return g.model([1, 3, 8, 8], g("Softmax", x), "onnx-caffe2")


BY_NODES = {"keras_channels_last": keras, "paddle_constants": paddle, "caffe_inputs": caffe}


def run(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [given] = [given for given in session.get_inputs() if given.name in ("x", "input")]
    images = x.transpose(0, 2, 3, 1) if given.shape[-1] == 3 else x
    return np.concatenate([session.run(None, {given.name: images[i : i + 1]})[0] for i in range(len(x))])


def main():
    OUT.mkdir(exist_ok=True)
    made = {}
    for index, (name, (make, shape, how)) in enumerate(TORCH.items()):
        made[name] = export(name, make, shape, how, index)
    for name, make in BY_NODES.items():
        model = make()
        onnx.checker.check_model(model)
        onnx.save(model, OUT / f"{name}.onnx")
        x = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
        made[name] = x, run(OUT / f"{name}.onnx", x)
    for name, (x, logits) in made.items():
        again = run(OUT / f"{name}.onnx", x)
        spread = logits.std(0).mean()
        error = np.abs(again - logits).max() / spread
        assert error < 1e-4, (name, error)
        np.savez(OUT / f"{name}.npz", x=x, logits=logits)
        size = sum(path.stat().st_size for path in OUT.glob(f"{name}.*"))
        print(f"{name:28} {size / 1e3:6.1f} kB, spread {spread:.3f}, ONNX Runtime differs by {error:.1e} of it", flush=True)


main()
