"""Writes the golden rows that `tests/zoo_forward.rs` compares with, from PyTorch.

    python tests/golden/make_forward.py [FOLDER WITH CHECKPOINTS]

Run once with PyTorch on the CPU; the files it writes are kept in the repository. Every network of the zoo is
built here again, from `torch.nn` alone; its parameters and inputs follow from a formula of names and indices,
so that nothing but a few logits is stored. With a folder, the logits of the two published checkpoints are
written as well.
"""

import datetime
import math
import pathlib
import sys

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent


# ---- values by formula -------------------------------------------------------------------------------------


def hash_name(name):
    """32-bit FNV-1a."""
    state = 0x811C9DC5
    for byte in name.encode():
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    return state


def noise(name, count):
    """`count` numbers in [-1, 1), multiples of 2^-23, by the integer hash `lowbias32`."""
    x = np.arange(count, dtype=np.uint32) + np.uint32(hash_name(name))
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return (x >> np.uint32(8)).astype(np.float32) / np.float32(2**23) - np.float32(1)


def parameter(name, shape):
    values = noise(name, math.prod(shape))
    role = name.rsplit(".", 1)[1]
    if role == "weight" and len(shape) > 1:
        values = values * np.float32(math.sqrt(6 / math.prod(shape[1:])))
    elif role == "weight":
        values = np.float32(1) + np.float32(0.25) * values
    elif role == "running_var":
        values = np.float32(1) + np.float32(0.5) * values
    else:
        values = np.float32(0.125) * values
    return torch.from_numpy(values.reshape(shape))


def fill(model):
    state = model.state_dict()
    state = {n: parameter(n, tuple(t.shape)) for n, t in state.items() if "num_batches" not in n}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("num_batches" in name for name in missing)
    return model


def images(count, shape):
    return torch.from_numpy(noise("input", count * math.prod(shape)).reshape(count, *shape))


# ---- networks ----------------------------------------------------------------------------------------------


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu_(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu_(self.conv2(x)), 2)
        return self.fc2(F.relu_(self.fc1(x.flatten(1))))


class SimpleNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu_(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu_(self.conv2(x)), 2)
        return self.fc3(F.relu_(self.fc2(F.relu_(self.fc1(x.flatten(1))))))


class Sequential(nn.Module):
    """Features, flatten, classifier."""

    def __init__(self, features, classifier):
        super().__init__()
        self.features, self.classifier = nn.Sequential(*features), classifier

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def svhn():
    features, before = [], 3
    for channels, padding, pool in [
        (32, 1, False), (32, 1, True), (64, 1, False), (64, 1, True),
        (128, 1, False), (128, 1, True), (256, 0, True),
    ]:
        features += [nn.Conv2d(before, channels, 3, padding=padding), nn.ReLU(inplace=True), nn.Dropout(0.3)]
        features += [nn.MaxPool2d(2)] if pool else []
        before = channels
    return Sequential(features, nn.Sequential(nn.Linear(256, 10)))


class Svhn10(nn.Module):
    def __init__(self):
        super().__init__()
        before = 3
        for index, channels in enumerate([32, 32, 64, 64, 128, 128, 256, 256], 1):
            setattr(self, f"conv{index}", nn.Conv2d(before, channels, 3, padding=1))
            before = channels
        self.fc1, self.fc2 = nn.Linear(1024, 256), nn.Linear(256, 10)

    def forward(self, x):
        for index in range(1, 9):
            x = F.relu_(getattr(self, f"conv{index}")(x))
            x = F.max_pool2d(x, 2) if index % 2 == 0 else x
        return self.fc2(F.relu_(self.fc1(x.flatten(1))))


def vgg_features(channels):
    features, before = [], 3
    for out in channels:
        if out == "M":
            features.append(nn.MaxPool2d(2))
        else:
            features += [nn.Conv2d(before, out, 3, padding=1), nn.ReLU(inplace=True)]
            before = out
    return features


VGG11 = [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]
VGG16 = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]


def classifier(inputs, hidden, outputs, dropout_first):
    linear = [nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(inplace=True)]
    if dropout_first:
        return nn.Sequential(nn.Dropout(), *linear, nn.Linear(hidden, outputs))
    return nn.Sequential(*linear, nn.Dropout(), nn.Linear(hidden, outputs))


class Block(nn.Module):
    def __init__(self, before, channels, stride, padded):
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.channels, self.padded, self.downsample = channels, padded, None
        if stride > 1 and not padded:
            conv = nn.Conv2d(before, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu_(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        elif x.shape != out.shape:
            quarter = self.channels // 4
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
        return F.relu_(out + x)


class ResNet20(nn.Module):
    def __init__(self, padded):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        before = 16
        for stage, channels in enumerate([16, 32, 64], 1):
            blocks = []
            for block in range(3):
                stride = 2 if stage > 1 and block == 0 else 1
                blocks.append(Block(before, channels, stride, padded))
                before = channels
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        setattr(self, "linear" if padded else "fc", nn.Linear(64, 10))
        self.last = "linear" if padded else "fc"

    def forward(self, x):
        x = F.relu_(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return getattr(self, self.last)(x.mean((2, 3)))


def alexnet():
    features = [
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
    ]
    linear = [nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(inplace=True)]
    return Sequential(features, nn.Sequential(*linear, nn.Linear(4096, 1000)))


class MobileNetV1(nn.Module):
    def __init__(self, tensorflow):
        super().__init__()
        epsilon, act = (1e-3, nn.ReLU6) if tensorflow else (1e-5, nn.ReLU)

        def windows(before, out, stride, groups):
            conv = nn.Conv2d(before, out, 3, stride, 1, groups=groups, bias=False)
            if tensorflow and stride == 2:
                # `SAME` on an even side: nothing above and on the left.
                conv.padding = (0, 0)
                conv.register_forward_pre_hook(lambda _, x: (F.pad(x[0], (0, 1, 0, 1)),))
            return conv

        def norm(channels):
            return nn.BatchNorm2d(channels, eps=epsilon)

        def first(before, out, stride):
            return nn.Sequential(windows(before, out, stride, 1), norm(out), act())

        def pair(before, out, stride):
            pointwise = nn.Conv2d(before, out, 1, bias=False)
            return nn.Sequential(
                windows(before, before, stride, before), norm(before), act(), pointwise, norm(out), act()
            )

        self.model = nn.Sequential(
            first(3, 32, 2), pair(32, 64, 1), pair(64, 128, 2), pair(128, 128, 1), pair(128, 256, 2),
            pair(256, 256, 1), pair(256, 512, 2), *[pair(512, 512, 1) for _ in range(5)],
            pair(512, 1024, 2), pair(1024, 1024, 1),
        )
        self.fc = nn.Linear(1024, 1000)

    def forward(self, x):
        return self.fc(self.model(x).mean((2, 3)))


NETWORKS = {
    "lenet": (LeNet, (1, 28, 28)),
    "simplenet": (SimpleNet, (3, 32, 32)),
    "svhn": (svhn, (3, 32, 32)),
    "svhn10": (Svhn10, (3, 32, 32)),
    "vgg11": (lambda: Sequential(vgg_features(VGG11), nn.Linear(512, 10)), (3, 32, 32)),
    "vgg16": (lambda: Sequential(vgg_features(VGG16), nn.Linear(512, 10)), (3, 32, 32)),
    "vgg16_3fc": (
        lambda: Sequential(vgg_features(VGG16), classifier(512, 512, 10, False)),
        (3, 32, 32),
    ),
    "resnet20": (lambda: ResNet20(padded=False), (3, 32, 32)),
    "resnet20_option_a": (lambda: ResNet20(padded=True), (3, 32, 32)),
    "alexnet": (alexnet, (3, 224, 224)),
    "mobilenet_v1": (lambda: MobileNetV1(tensorflow=False), (3, 224, 224)),
    "mobilenet_v1_tf": (lambda: MobileNetV1(tensorflow=True), (3, 224, 224)),
}

CHECKPOINTS = {"simplenet": "simplenet_cifar.pth.tar", "resnet20_option_a": "resnet20-12fca82f.th"}


def checkpoint(name, folder):
    """The network with the weights of its published checkpoint."""
    model = NETWORKS[name][0]()
    state = torch.load(folder / CHECKPOINTS[name], map_location="cpu", weights_only=True)["state_dict"]
    state = {key.removeprefix("module."): value for key, value in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("num_batches" in key for key in missing), (missing, unexpected)
    return model.eval()


# ---- files -------------------------------------------------------------------------------------------------


def write(file, models):
    lines = [
        f"# make_forward.py, PyTorch {torch.__version__}, {datetime.date.today()}",
        "network,image,class,logit",
    ]
    for name, model in models:
        with torch.no_grad():
            logits = model.eval()(images(2, NETWORKS[name][1]))
        for image, row in enumerate(logits[:, :10].tolist()):
            lines += [f"{name},{image},{index},{logit:.9g}" for index, logit in enumerate(row)]
        print(name, [round(value, 4) for value in logits[0, :5].tolist()])
    (HERE / file).write_text("\n".join(lines) + "\n")


def main():
    torch.manual_seed(0)
    write("forward.csv", ((name, fill(make())) for name, (make, _) in NETWORKS.items()))
    # The same parameters in the two formats of torch.save, as training scripts leave them behind.
    network = fill(nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(images(2, (1, 4, 4))).sum().backward()
    optimizer.step()
    fill(network)
    saved = {"epoch": 3, "model_state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved, HERE / "tiny_zip.pt")
    wrapped = nn.DataParallel(network).half().state_dict()
    torch.save(wrapped, HERE / "tiny_legacy.pth", _use_new_zipfile_serialization=False)
    if len(sys.argv) > 1:
        folder = pathlib.Path(sys.argv[1])
        write("checkpoints.csv", ((name, checkpoint(name, folder)) for name in CHECKPOINTS))


if __name__ == "__main__":
    main()
