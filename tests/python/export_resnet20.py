"""Exports a checkpoint of akamaster/pytorch_resnet_cifar10 to ONNX in three ways, to compare them with the checkpoint.

    pip install torch onnx onnxscript
    python export_resnet20.py resnet20.th FOLDER

    releq evaluate resnet20_option_a --weights resnet20.th --data cifar10
    releq evaluate FOLDER/resnet20_legacy.onnx --data cifar10 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225

`resnet20_legacy.onnx` and `resnet20_dynamo.onnx` come from PyTorch's two exporters as they are, which make batch norms part
of the convolutions; `resnet20_norms.onnx` keeps them.
"""
import pathlib
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.widens = inputs != outputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.widens:
            half = x.shape[1] // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return F.relu(y + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[Block(16, 16, 1) for _ in range(3)])
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(F.avg_pool2d(x, x.size(3)).view(x.size(0), -1))


def main():
    checkpoint, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(exist_ok=True)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    state = {name.removeprefix("module."): value for name, value in state["state_dict"].items()}
    network = ResNet20()
    network.load_state_dict(state)
    network.eval()
    batch = dict(dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}}, dynamo=False)
    for name, how in {
        "resnet20_legacy": batch,
        "resnet20_norms": dict(**batch, do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE),
        "resnet20_dynamo": dict(dynamo=True, verbose=False),
    }.items():
        path = folder / f"{name}.onnx"
        torch.onnx.export(network, (torch.zeros(1, 3, 32, 32),), str(path), input_names=["input"], output_names=["logits"], **how)
        print(path)


main()
