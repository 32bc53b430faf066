"""Trains a small residual network on an image folder with PyTorch and exports it to ONNX.

The network has what imported networks have: ReLU6, depthwise layers, projections, dropout.

    python examples/onnx/residual.py cifar10 residual.onnx --epochs 3
    releq search residual.onnx --data cifar10 --preprocess torchvision

The exporter makes batch norms part of the convolutions unless it is told otherwise; `--keep-norms` does that, and the
network can then be retrained at higher learning rates.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def norm_act(channels):
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU6())


class Block(nn.Module):
    """A 3x3 convolution, then a depthwise and a pointwise one, beside a projection where shapes change."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            norm_act(outputs),
            nn.Conv2d(outputs, outputs, 3, 1, 1, groups=outputs, bias=False),
            norm_act(outputs),
            nn.Conv2d(outputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.act = nn.ReLU6()

    def forward(self, x):
        return self.act(self.main(x) + self.shortcut(x))


def network(classes):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        norm_act(16),
        Block(16, 16, 1),
        Block(16, 32, 2),
        Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(64, classes),
    )


def accuracy(model, loader):
    model.eval()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in loader)
    return right / len(loader.dataset)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path, help="folder with train/CLASS/ and test/CLASS/, images of 32 x 32")
    parser.add_argument("output", type=Path, help="ONNX file to write")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--keep-norms", action="store_true", help="leave batch norms as they are")
    args = parser.parse_args()

    torch.manual_seed(1)
    plain = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    moved = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    train = datasets.ImageFolder(args.data / "train", transforms.Compose(moved + plain))
    test = datasets.ImageFolder(args.data / "test", transforms.Compose(plain))
    train_loader = DataLoader(train, 128, shuffle=True, drop_last=True)
    test_loader = DataLoader(test, 500)

    model = network(len(train.classes))
    steps = args.epochs * len(train_loader)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, steps)
    started = time.time()
    for epoch in range(args.epochs):
        model.train()
        for x, y in train_loader:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: {time.time() - started:.0f} s, loss {loss.item():.2f}", flush=True)
    print(f"{100 * accuracy(model, test_loader):.2f} % of the test images")

    model.eval()
    # `optimize` is what makes norms part of convolutions.
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, 32, 32),),
        args.output,
        input_names=["images"],
        output_names=["logits"],
        external_data=False,
        optimize=not args.keep_norms,
    )


if __name__ == "__main__":
    main()
