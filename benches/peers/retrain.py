"""Training and inference of LeNet, SimpleNet and ResNet-20: PyTorch channels-last on the CPU beside the native trainer.

    python benches/peers/retrain.py --bench PATH [--rounds 5] [--seconds 2] [--networks lenet,simplenet,resnet20]

PATH is the executable that `cargo bench --bench retrain --no-run` names. Every figure is the median over rounds; in a
round all sides run once, each in a process of its own, in turn, so that a busy machine hits all alike. Ratios are
taken within a round, and the median of those is shown.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

TRAIN_BATCH, INFER_BATCH = 128, 256


def lenet(nn):
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    ), (1, 28, 28)


def simplenet(nn):
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    ), (3, 32, 32)


def resnet20(nn):
    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.relu = nn.ReLU(inplace=True)
            self.shortcut = nn.Identity()
            if stride != 1:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x):
            y = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    layers, inputs = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)], 16
    for stage, outputs in enumerate((16, 32, 64)):
        for block in range(3):
            layers.append(Block(inputs, outputs, 2 if stage > 0 and block == 0 else 1))
            inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers), (3, 32, 32)


NETWORKS = {"lenet": lenet, "simplenet": simplenet, "resnet20": resnet20}


def worker(name, mode, threads, seconds):
    """Prints images per second and peak memory in MB of this process."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network, shape = NETWORKS[name](torch.nn)
    network = network.to(memory_format=torch.channels_last)
    batch = TRAIN_BATCH if mode == "train" else INFER_BATCH
    images = torch.rand(batch, *shape).to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    loss = torch.nn.CrossEntropyLoss()

    def train():
        optimizer.zero_grad(set_to_none=True)
        loss(network(images), labels).backward()
        optimizer.step()

    def infer():
        with torch.inference_mode():
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
    return sum(float(rate) for rate, _ in answers), max(float(memory) for _, memory in answers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", help="the retrain benchmark")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--networks", default="lenet,simplenet,resnet20")
    parser.add_argument("--one-thread", action="store_true", help="leave out the comparison on two cores")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, mode, threads, seconds = arguments.worker
        return worker(name, mode, int(threads), float(seconds))
    if not arguments.bench:
        parser.error("--bench is needed")
    seconds = str(arguments.seconds)

    def torch(threads, name, mode):
        return [sys.executable, __file__, "--worker", name, mode, str(threads), seconds]

    print("| network | work | PyTorch, 1 thread | native, 1 thread | ratio | PyTorch, 2 threads | 2 native workers"
          " | ratio | 2 workers over 1 | memory, MB: PyTorch | native |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in arguments.networks.split(","):
        for mode in ("train", "infer"):
            native = [arguments.bench, "--peer", name, mode, "native", seconds]
            rounds = []
            for _ in range(arguments.rounds):
                sides = [run(torch(1, name, mode)), run(native)]
                if not arguments.one_thread:
                    sides += [run(torch(2, name, mode)), run(native, native)]
                rounds.append(sides)

            def median(of):
                return statistics.median(of(sides) for sides in rounds)

            cells = [f"{median(lambda s: s[0][0]):,.0f}", f"{median(lambda s: s[1][0]):,.0f}",
                     f"{median(lambda s: s[1][0] / s[0][0]):.2f}x"]
            if not arguments.one_thread:
                cells += [f"{median(lambda s: s[2][0]):,.0f}", f"{median(lambda s: s[3][0]):,.0f}",
                          f"{median(lambda s: s[3][0] / s[2][0]):.2f}x", f"{median(lambda s: s[3][0] / s[1][0]):.2f}x"]
            else:
                cells += ["", "", "", ""]
            cells += [f"{median(lambda s: s[0][1]):.0f}", f"{median(lambda s: s[1][1]):.0f}"]
            print(f"| {name} | {mode} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
