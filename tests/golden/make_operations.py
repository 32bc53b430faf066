"""Writes `operations.csv`, that `tests/operations.rs` compares with, from PyTorch.

    python tests/golden/make_operations.py

Each operation stands in a small network, behind a convolution and before a fully connected layer. Parameters
and images follow from the formula of `make_forward.py`. Stored are the logits of two images, and the gradients
of their mean cross-entropy by the first weights of the convolution and by those of the operation.
"""

import datetime

import torch
import torch.nn as nn
import torch.nn.functional as F
from make_forward import HERE, images, parameter

INPUT = (3, 9, 8)
LABELS = torch.tensor([1, 3])


def same(conv):
    """TensorFlow's padding of a 3x3 convolution with stride 2 over an even side."""
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv)


def padded(x, value=0.0):
    """One row above, two columns on the right."""
    return F.pad(x, (0, 2, 1, 0), value=value)


def mean_of_inside(x):
    pool = lambda x: F.avg_pool2d(padded(x), 3, 2)
    return pool(x) / pool(torch.ones_like(x))


def squeezed(x):
    return x * x.mean((2, 3), keepdim=True)


class ScaleShift(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(6)), nn.Parameter(torch.empty(6))

    def forward(self, x):
        return x * self.weight[:, None, None] + self.bias[:, None, None]


OPERATIONS = {
    "conv_wide": nn.Conv2d(6, 5, (1, 5), padding=(0, 2)),
    "conv_strides": nn.Conv2d(6, 5, (3, 2), stride=(2, 1), groups=1),
    "conv_same": same(nn.Conv2d(6, 5, 3, stride=2)),
    "conv_dilated": nn.Conv2d(6, 5, 3, padding=(2, 1), dilation=(2, 1)),
    "conv_dilated_strides": nn.Conv2d(6, 4, 2, stride=(3, 2), dilation=(2, 3), groups=2),
    "depthwise_same": same(nn.Conv2d(6, 6, 3, stride=2, groups=6)),
    "depthwise_dilated": nn.Conv2d(6, 6, (2, 3), padding=(1, 2), dilation=2, groups=6),
    "max_pool_ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max_pool_ceil_padded": nn.MaxPool2d((2, 3), (3, 2), padding=(1, 1), ceil_mode=True),
    "max_pool_sides": lambda x: F.max_pool2d(padded(x, -torch.inf), 3, 2),
    "avg_pool_ceil": nn.AvgPool2d(2, 3, ceil_mode=True, count_include_pad=False),
    "avg_pool_ceil_counted": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
    "avg_pool_ceil_counted_wide": nn.AvgPool2d((3, 4), (4, 3), padding=(1, 2), ceil_mode=True),
    "avg_pool_sides": mean_of_inside,
    "avg_pool_sides_counted": lambda x: F.avg_pool2d(padded(x), 3, 2),
    "relu6": F.relu6,
    "clip_at_zero": lambda x: F.hardtanh(x, 0, 0.75),
    "clip": lambda x: F.hardtanh(x, -0.5, 0.25),
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": F.hardsigmoid,
    "hard_sigmoid_onnx": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "silu": F.silu,
    "hard_swish": F.hardswish,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "mul_channels": squeezed,
    "mul_images": lambda x: x * F.relu(x),
    "concat": lambda x: torch.cat([x, F.relu(x)], 1),
    "scale_shift": ScaleShift(),
    "channel_slice": lambda x: x[:, 1:5],
    "channel_shuffle": lambda x: torch.channel_shuffle(x, 3),
    "local_response_norm": lambda x: F.local_response_norm(x, 3, 0.5, 0.75, 1.5),
    "local_response_norm_power": lambda x: F.local_response_norm(x, 5, 0.5, 0.6, 1.0),
}


def fill(module, name):
    """Parameters that follow from the name of the layer and their own last name."""
    state = {key: parameter(f"{name}.{key.rsplit('.', 1)[-1]}", tuple(value.shape)) for key, value in module.state_dict().items()}
    module.load_state_dict(state)


def main():
    lines = [
        f"# make_operations.py, PyTorch {torch.__version__}, {datetime.date.today()}",
        "operation,values,index,value",
    ]
    for name, operation in OPERATIONS.items():
        before = nn.Conv2d(3, 6, 3, padding=1)
        fill(before, "before")
        if isinstance(operation, nn.Module):
            fill(operation, "op")
        x = operation(before(images(2, INPUT))).flatten(1)
        after = nn.Linear(x.shape[1], 4)
        fill(after, "after")
        logits = after(x)
        F.cross_entropy(logits, LABELS).backward()
        values = {"logits": logits, "before.weight": before.weight.grad}
        if isinstance(operation, nn.Module):
            values |= {f"op.{key.rsplit('.', 1)[-1]}": value.grad for key, value in operation.named_parameters()}
        for key, tensor in values.items():
            for index, value in enumerate(tensor.flatten()[:10].tolist()):
                lines.append(f"{name},{key},{index},{value:.9g}")
    (HERE / "operations.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
