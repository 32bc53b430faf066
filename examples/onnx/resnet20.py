"""Exports the published ResNet-20 (akamaster/pytorch_resnet_cifar10) to ONNX in the three ways that PyTorch has.

    python examples/onnx/resnet20.py resnet20-12fca82f.th out/
    releq search out/dynamo.onnx --data cifar10 --preprocess torchvision --held-out-from-test

`legacy.onnx` and `dynamo.onnx` have their batch norms folded into the convolutions, which is the default of both exporters;
`norms.onnx` has them kept.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two convolutions; where shapes change, the shortcut leaves out pixels and pads channels (option A of the paper)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.changes, self.pad = stride != 1 or inputs != outputs, outputs // 4

    def forward(self, x):
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.changes:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(out + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        sizes = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        for number, (inputs, outputs, stride) in enumerate(sizes, 1):
            blocks = [Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(2))]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = functional.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path, help="folder to write to")
    args = parser.parse_args()

    state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model = ResNet20()
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    model.eval()

    args.output.mkdir(parents=True, exist_ok=True)
    images = (torch.zeros(1, 3, 32, 32),)
    names = {"input_names": ["images"], "output_names": ["logits"]}
    torch.onnx.export(model, images, args.output / "legacy.onnx", dynamo=False, **names)
    torch.onnx.export(model, images, args.output / "dynamo.onnx", external_data=False, **names)
    torch.onnx.export(
        model, images, args.output / "norms.onnx", external_data=False, optimize=False, **names
    )


if __name__ == "__main__":
    main()
