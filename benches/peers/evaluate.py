"""Scores the published checkpoints on an image folder with PyTorch and Pillow, the peer of `releq evaluate`.

    python benches/peers/evaluate.py NETWORK FOLDER_WITH_CHECKPOINTS IMAGE_FOLDER [--mean M] [--std S] [--wrpn BITS]

NETWORK is `simplenet` or `resnet20_option_a`; IMAGE_FOLDER holds one folder for each class. `--mean` and `--std`
take one number for all channels or three, joined by commas; `--wrpn` quantizes the weights of every layer.
"""

import argparse
import pathlib
import sys
import time

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "golden"))
import make_forward  # noqa: E402

NORMALIZATION = {
    "simplenet": ([0.5] * 3, [0.5] * 3),
    "resnet20_option_a": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


def numbers(text):
    values = [float(part) for part in text.split(",")]
    return values * 3 if len(values) == 1 else values


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("network", choices=NORMALIZATION)
    parser.add_argument("weights", type=pathlib.Path)
    parser.add_argument("images", type=pathlib.Path)
    parser.add_argument("--mean", type=numbers)
    parser.add_argument("--std", type=numbers)
    parser.add_argument("--wrpn", type=int)
    args = parser.parse_args()
    mean, std = NORMALIZATION[args.network]
    mean, std = torch.tensor(args.mean or mean), torch.tensor(args.std or std)

    started = time.time()
    classes = sorted(path.name for path in args.images.iterdir() if path.is_dir())
    files = [(path, label) for label, name in enumerate(classes) for path in sorted((args.images / name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    labels = torch.tensor([label for _, label in files])
    decoded = time.time()

    model = make_forward.checkpoint(args.network, args.weights)
    if args.wrpn:
        levels = 2 ** (args.wrpn - 1) - 1
        for layer in model.modules():
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
                layer.weight.data = torch.round(layer.weight.data.clamp(-1, 1) * levels) / levels
    correct = 0
    with torch.no_grad():
        for start in range(0, len(files), 500):
            batch = torch.from_numpy(pixels[start : start + 500]).float() / 255
            batch = ((batch - mean) / std).permute(0, 3, 1, 2)
            correct += (model(batch).argmax(1) == labels[start : start + 500]).sum().item()
    print(
        f"{args.network}: {correct} of {len(files)}; mean {mean.tolist()}, std {std.tolist()}, wrpn {args.wrpn}; "
        f"decoding {decoded - started:.1f} s, inference {time.time() - decoded:.1f} s"
    )


if __name__ == "__main__":
    main()
