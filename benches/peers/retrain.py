"""Training and inference of the networks of the zoo: PyTorch channels-last on the CPU beside our trainers.

    python benches/peers/retrain.py --bench PATH [--rounds 5] [--seconds 2] [--networks lenet,simplenet,resnet20]
        [--backends native,flex] [--one-thread] [--bf16]
    python benches/peers/retrain.py --bench PATH --networks mobilenet_v2,squeezenet1_1,efficientnet_b0   # with torchvision, onnxscript

PATH is the executable that `cargo bench --bench retrain --no-run` names. Every figure is the median over rounds; in a
round all sides run once, each in a process of its own, in turn, so that a busy machine hits all alike. Ratios are
taken within a round, and the median of those is shown. Two threads of PyTorch stand beside two workers of ours, which
is how a search uses two cores. With --bf16, PyTorch also computes under autocast in bfloat16, and ratios are over the faster of the
two; `native-bf16` is ours. Networks on images of 224 pixels take batches of 16. Networks of torchvision are exported
to ONNX, norms kept, and imported; they have no dropout and no stochastic depth here, so that both sides do the same.
"""

import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "golden"))

TRAIN_BATCH, INFER_BATCH, LARGE_IMAGES_BATCH = 128, 256, 16
OF_TORCHVISION = ("mobilenet_v2", "squeezenet1_1", "efficientnet_b0")
LARGE_IMAGES = ("alexnet", "mobilenet_v1", *OF_TORCHVISION)


def batch_of(name, mode):
    if name in LARGE_IMAGES:
        return LARGE_IMAGES_BATCH
    return TRAIN_BATCH if mode == "train" else INFER_BATCH


def torch_network(name):
    """A network, and the shape of its images."""
    if name not in OF_TORCHVISION:
        import make_forward

        make, shape = make_forward.NETWORKS[name]
        return make(), shape
    import torch
    import torchvision

    options = {"stochastic_depth_prob": 0.0} if name == "efficientnet_b0" else {}
    network = getattr(torchvision.models, name)(**options)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return network, (3, 224, 224)


def export(name, folder):
    """The network as an ONNX model, if our zoo has none of this name; what our side calls it."""
    if name not in OF_TORCHVISION:
        return name
    import torch

    network, shape = torch_network(name)
    path = os.path.join(folder, f"{name}.onnx")
    torch.onnx.export(network.eval(), (torch.zeros(1, *shape),), path, external_data=False, optimize=False, verbose=False)
    return path


def worker(name, mode, threads, seconds, precision):
    """Prints images per second and peak memory in MB of this process."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network, shape = torch_network(name)
    network = network.to(memory_format=torch.channels_last)
    batch = batch_of(name, mode)
    images = torch.rand(batch, *shape).to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    loss = torch.nn.CrossEntropyLoss()
    cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")

    def train():
        optimizer.zero_grad(set_to_none=True)
        with cast:
            error = loss(network(images), labels)
        error.backward()
        optimizer.step()

    def infer():
        with torch.inference_mode(), cast:
            network(images)

    network.train(mode == "train")
    step = train if mode == "train" else infer
    # PyTorch makes its primitives in the first steps.
    step(), step()
    rates, start = [], time.perf_counter()
    while not rates or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        step()
        rates.append(batch / (time.perf_counter() - before))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{statistics.median(rates):.1f} {memory:.1f}")


def run(*commands):
    """Runs processes side by side; the sum of their rates, the largest memory."""
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    answers = [process.communicate()[0].split() for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a process failed")
    return sum(float(answer[0]) for answer in answers), max(float(answer[1]) for answer in answers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", help="the retrain benchmark")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--networks", default="lenet,simplenet,resnet20")
    parser.add_argument("--backends", default="native", help="ours, the first is the one that ratios are of")
    parser.add_argument("--one-thread", action="store_true", help="leave out the comparison on two cores")
    parser.add_argument("--bf16", action="store_true", help="PyTorch under autocast in bfloat16 as well")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, mode, threads, seconds, precision = arguments.worker
        return worker(name, mode, int(threads), float(seconds), precision)
    if not arguments.bench:
        parser.error("--bench is needed")
    seconds = str(arguments.seconds)

    def torch(precision, threads, name, mode):
        return [sys.executable, __file__, "--worker", name, mode, str(threads), seconds, precision]

    def ours(backend, name, mode):
        return [arguments.bench, "--peer", ours_is[name], mode, backend, seconds, str(batch_of(name, mode))]

    networks = arguments.networks.split(",")
    folder = tempfile.TemporaryDirectory()
    ours_is = {name: export(name, folder.name) for name in networks}
    backends = arguments.backends.split(",")
    precisions = ["fp32", "bf16"] if arguments.bf16 else ["fp32"]
    header = ["network", "work"]
    for workers in [1] if arguments.one_thread else [1, 2]:
        named = {"fp32": "PyTorch", "bf16": "PyTorch bf16"}
        header += [f"{named[p]}, {workers} thread{'s'[:workers - 1]}" for p in precisions]
        header += [f"{backend}, {workers}" for backend in backends] + ["ratio"]
    header += [] if arguments.one_thread else ["2 over 1"]
    header += ["memory, MB: PyTorch", backends[0]]
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for name in networks:
        for mode in ("train", "infer"):
            rounds = []
            for _ in range(arguments.rounds):
                sides = [run(torch(p, 1, name, mode)) for p in precisions]
                sides += [run(ours(b, name, mode)) for b in backends]
                if not arguments.one_thread:
                    sides += [run(torch(p, 2, name, mode)) for p in precisions]
                    sides += [run(*[ours(b, name, mode)] * 2) for b in backends]
                rounds.append(sides)

            def median(of):
                return statistics.median(of(sides) for sides in rounds)

            cells, peers = [], len(precisions)
            count = peers + len(backends)
            for first in range(0, len(rounds[0]), count):
                cells += [f"{median(lambda s, i=i: s[i][0]):,.0f}" for i in range(first, first + count)]
                best = lambda sides: max(rate for rate, _ in sides[first:first + peers])
                cells += [f"{median(lambda s: s[first + peers][0] / best(s)):.2f}x"]
            if not arguments.one_thread:
                cells += [f"{median(lambda s: s[count + peers][0] / s[peers][0]):.2f}x"]
            cells += [f"{median(lambda s, i=i: s[i][1]):.0f}" for i in (0, peers)]
            print(f"| {name} | {mode} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
