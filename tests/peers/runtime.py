r"""Accuracy of packed networks on the runtime, beside the same weights with activations in full precision.

    pip install numpy pillow
    cargo build --release -p releq-cli
    python tests/peers/runtime.py lenet --weights lenet.safetensors --bits 4 --data MNIST --mean 0.1307 --std 0.3081
    python tests/peers/runtime.py resnet20_option_a --weights resnet20-12fca82f.th --bits 8 --data CIFAR10 \
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    python tests/peers/runtime.py mobilenet_v1_tf --weights mobilenet_v1.safetensors --bits 8 --data IMAGENET --images 1000 \
        --side 224 --classes classes.csv --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5

The network has to be the one that the weights were trained for. `mobilenet_v1` takes the weights of `mobilenet_v1_tf` as well, because
both have the same parameters, but it lacks ReLU6 and pads other sides: with them it classifies far fewer images.

--data is a folder with MNIST's files, or with train/CLASS/*.jpg and test/CLASS/*.jpg (or val/). Images that have --side pixels on each side
are taken as they are, others are scaled and cropped; both sides see the same numbers. The program exports a packed file with activations
of 8 bits, whose ranges come from 300 training images, and runs it twice: with integers, and with `--backend native`, where the same
weights meet activations in full precision. With --classes, a table with the columns wnid and index says which output a folder's class is.

With --onnxruntime (pip install onnxruntime), the same network is exported as an ONNX model with the same activations as well, and ONNX
Runtime's integer kernels have to agree with ours: the same class for 99 % of the images, and logits that differ by at most 2 % of their
spread, both as roots of mean squares. The script fails if they do not. It also prints how many images have the same logits on both sides.
"""

import argparse
import csv
import gzip
import pathlib
import subprocess
import sys
import tempfile

import numpy as np


def mnist(folder, count):
    def values(name, header):
        path = next(iter(pathlib.Path(folder).glob(name + "*")))
        data = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
        return np.frombuffer(data, np.uint8)[header:]

    images = values("t10k-images", 16).reshape(-1, 1, 28, 28)
    return images[:count].astype(np.float32) / 255, values("t10k-labels", 8)[:count].astype(int)


def tests_in(folder):
    return next(path for path in (pathlib.Path(folder) / half for half in ("test", "val")) if path.is_dir())


def is_whole(folder, side):
    """Whether images have this many pixels on each side already."""
    from PIL import Image

    return Image.open(next(tests_in(folder).glob("*/*"))).size == (side, side)


def pictures(folder, count, side, classes):
    from PIL import Image

    root = tests_in(folder)
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    number = {name: index for index, name in enumerate(names)}
    if classes:
        with open(classes, newline="") as file:
            number = {row["wnid"]: int(row["index"]) for row in csv.DictReader(file)}
    files = sorted((path for path in root.glob("*/*")), key=lambda path: (path.name, path.parent.name))[:count]

    def read(path):
        image = Image.open(path).convert("RGB")
        if image.size != (side, side):
            scale = side * 8 / 7 / min(image.size)
            image = image.resize([max(side, round(length * scale)) for length in image.size], Image.BILINEAR)
            left, top = [(length - side) // 2 for length in image.size]
            image = image.crop((left, top, left + side, top + side))
        return np.asarray(image, np.float32).transpose(2, 0, 1) / 255

    return np.stack([read(path) for path in files]), np.array([number[path.parent.name] for path in files])


def agreement(path, x, ours):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    theirs = np.concatenate([session.run(None, {name: image[None]})[0] for image in x])
    same = (theirs.argmax(axis=1) == ours.argmax(axis=1)).mean()
    # Both sum the same integers, but may round the factor behind them differently.
    equal = (np.abs(theirs - ours).max(axis=1) < 1e-5 * theirs.std()).mean()
    return same, equal, np.sqrt(np.mean((theirs - ours) ** 2)) / theirs.std()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("network")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--bits", default="8")
    parser.add_argument("--quantizer", default="wrpn-scaled-per-channel")
    parser.add_argument("--data", required=True)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--mean", required=True)
    parser.add_argument("--std", required=True)
    parser.add_argument("--classes")
    parser.add_argument("--shift", type=int, default=0, help="added to the numbers of classes")
    parser.add_argument("--onnxruntime", action="store_true", help="compare with ONNX Runtime's integer kernels")
    parser.add_argument("--program", default=root / "target" / "release" / "releq")
    args = parser.parse_args()
    is_mnist = any(pathlib.Path(args.data).glob("t10k-images*"))
    x, labels = mnist(args.data, args.images) if is_mnist else pictures(args.data, args.images, args.side, args.classes)
    mean, std = [np.float32([float(v) for v in text.split(",")])[:, None, None] for text in (args.mean, args.std)]
    x = ((x - mean) / std).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)

        def releq(*words):
            done = subprocess.run([str(word) for word in (args.program, *words)], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            return done.stdout

        packed = folder / "packed.safetensors"
        more = ["--classes", args.classes] if args.classes else []
        if not is_mnist and is_whole(args.data, args.side):
            # The ranges are those of images as they are, too: the program would scale ImageNet's before it crops them.
            more += ["--resize-shorter", args.side]

        def export(form, path):
            releq(
                "export", args.network, "--weights", args.weights, "--bits", args.bits, "--quantizer", args.quantizer, "--form", form,
                "--activation-bits", 8, "--data", args.data, "--mean", args.mean, "--std", args.std, "--images", 100, *more, "--output", path,
            )  # fmt: skip

        export("packed", packed)
        floats = [line for line in releq("run", packed, "--explain").splitlines() if " float" in line]
        np.savez(folder / "x.npz", x=x)

        def logits(*how):
            releq("run", packed, "--input", folder / "x.npz", "--output", folder / "out.npz", *how)
            return np.load(folder / "out.npz")["logits"]

        ours = logits()
        integers, full = ours.argmax(axis=1), logits("--backend", "native").argmax(axis=1)
        accuracy = [100 * (got == labels + args.shift).mean() for got in (full, integers)]
        print(
            f"| {args.network} | {args.bits} | {len(x)} | {accuracy[0]:.2f} % | {accuracy[1]:.2f} % | {accuracy[1] - accuracy[0]:+.2f} | "
            f"{100 * (integers == full).mean():.2f} % | {len(floats)} |"
        )
        if args.onnxruntime:
            export("dq", folder / "int8.onnx")
            same, equal, apart = agreement(folder / "int8.onnx", x, ours)
            print(
                f"ONNX Runtime, int8: same class for {100 * same:.2f} % of {len(x)} images, logits {100 * apart:.3f} % of their spread apart, "
                f"equal for {100 * equal:.2f} % of the images"
            )
            if same < 0.99 or apart > 0.02:
                sys.exit("ONNX Runtime's integer kernels and ours differ by more than is allowed")


if __name__ == "__main__":
    main()
