"""Training and inference of the networks of the zoo on a GPU: our trainers beside PyTorch.

    python benches/peers/gpu.py --bench PATH [--bench NAME=PATH ...] [--sides torch,native,wgpu]
        [--networks lenet,simplenet,resnet20,vgg16] [--batches 64,512] [--bits 4] [--workers 1,16] [--seconds 0.7]

PATH is the executable that `cargo bench --bench retrain --no-run --features releq-cli/wgpu` names; several
builds stand beside each other under their names. Every row is one figure, printed as soon as it is there:

    side,build,network,work,batch,precision,images_per_second,memory_mb,first_step_s

`torch` has the precisions fp32, tf32 and bf16 (autocast), each twice. In `resident`, images stay on the GPU and nothing
waits for a step. In `stepwise`, images come from ordinary host memory and the loss, or the logits, go back to it in every
step, which is what our trainers do. `native` runs on the CPU, in batches of 64 alone, for its rate does not depend on
them: in one process, and in as many side by side as --workers says, whose rates are added up. Memory is that of the
process, or, for PyTorch, the peak on the GPU. --limit ends a process of ours that takes longer; what it had printed counts.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "golden"))

PRECISIONS = ("fp32", "tf32", "bf16")


def row(*cells):
    print(",".join(str(cell) for cell in cells), flush=True)


# ---- PyTorch -----------------------------------------------------------------------------------------------


def torch_figure(network, shape, mode, batch, precision, form, seconds, device):
    """Images per second, peak MB on the device, seconds of the first step."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if precision == "bf16" else torch.contiguous_format
    network = network.to(device, memory_format=layout).train(mode == "train")
    images, labels = torch.rand(batch, *shape), torch.arange(batch) % 10
    resident = images.to(device, memory_format=layout), labels.to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    loss = torch.nn.CrossEntropyLoss()
    cuda = device == "cuda"
    cast = torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")

    def step():
        if form == "resident":
            x, y = resident
        else:
            x, y = images.to(device, memory_format=layout), labels.to(device)
        if mode == "train":
            optimizer.zero_grad(set_to_none=True)
            with cast:
                value = loss(network(x), y)
            value.backward()
            optimizer.step()
        else:
            with torch.inference_mode(), cast:
                value = network(x)
        if form == "stepwise":
            value.detach().float().cpu()

    def wait():
        if cuda:
            torch.cuda.synchronize()

    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    step()
    wait()
    first = time.perf_counter() - start
    for _ in range(5):
        step()
    wait()
    # Steps are timed in groups of a twentieth of the time, since nothing may wait within one.
    start = time.perf_counter()
    step()
    wait()
    group = max(1, int(seconds / 20 / (time.perf_counter() - start)))
    rates, begin = [], time.perf_counter()
    while not rates or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        for _ in range(group):
            step()
        wait()
        rates.append(group * batch / (time.perf_counter() - start))
    memory = torch.cuda.max_memory_allocated() / 2**20 if cuda else 0
    return statistics.median(rates), memory, first


def torch_rows(arguments):
    import make_forward
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"# PyTorch {torch.__version__} on {name}, cuDNN {torch.backends.cudnn.version()}", flush=True)
    for network in arguments.networks:
        make, shape = make_forward.NETWORKS[network]
        for mode in ("train", "infer"):
            for batch in arguments.batches:
                for precision in PRECISIONS:
                    for form in ("resident", "stepwise"):
                        torch.manual_seed(0)
                        figures = torch_figure(
                            make(), shape, mode, batch, precision, form, arguments.seconds, device
                        )
                        rate, memory, first = figures
                        cells = f"{rate:.1f}", f"{memory:.1f}", f"{first:.3f}"
                        row("torch", form, network, mode, batch, precision, *cells)


# ---- ours --------------------------------------------------------------------------------------------------


def processes(count, command, limit):
    """The lines of so many processes, side by side, and what went wrong."""
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(count)
    ]
    outputs, failure, end = [], None, time.monotonic() + limit
    for process in running:
        try:
            output, errors = process.communicate(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            failure = f"ended after {limit:.0f} s"
        if process.returncode and failure is None:
            failure = " ".join(errors.split())[-600:]
        outputs.append(output.splitlines())
    return outputs, failure


def our_rows(arguments, side, build, path):
    native = side == "native"
    batches = [64] if native else arguments.batches
    precisions = ["float"] + arguments.bits
    combinations = [
        (mode, batch, bits) for mode in ("train", "infer") for batch in batches for bits in precisions
    ]
    for network in arguments.networks:
        for count in arguments.workers if native else [1]:
            command = [path, "--peer", network, "train,infer", side, str(arguments.seconds)]
            command += [",".join(map(str, batches)), ",".join(precisions)]
            outputs, failure = processes(count, command, arguments.limit)
            for combination, lines in zip(combinations, zip(*outputs)):
                mode, batch, bits = combination
                figures = [line.split() for line in lines]
                rate = sum(float(figure[0]) for figure in figures)
                label = f"{side}-{count}" if native else side
                row(label, build, network, mode, batch, bits, f"{rate:.1f}", *figures[0][1:])
            if failure:
                print(f"# {side} {build} {network}: {failure}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", action="append", default=[], help="the retrain benchmark, or NAME=PATH")
    parser.add_argument("--sides", default="torch,native,wgpu")
    parser.add_argument("--networks", default="lenet,simplenet,resnet20,vgg16")
    parser.add_argument("--batches", default="64,512")
    parser.add_argument("--bits", default="", help="bitwidths of weights, besides full precision")
    parser.add_argument("--workers", default="1", help="processes of the native trainer, side by side")
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one process of ours")
    arguments = parser.parse_args()
    arguments.networks = arguments.networks.split(",")
    arguments.batches = [int(batch) for batch in arguments.batches.split(",")]
    arguments.workers = [int(count) for count in arguments.workers.split(",")]
    arguments.bits = arguments.bits.split(",") if arguments.bits else []
    sides = arguments.sides.split(",")
    row("side,build,network,work,batch,precision,images_per_second,memory_mb,first_step_s")
    if "torch" in sides:
        torch_rows(arguments)
    for bench in arguments.bench:
        build, _, path = bench.rpartition("=")
        for side in sides:
            if side != "torch":
                our_rows(arguments, side, build or "default", path)


if __name__ == "__main__":
    main()
