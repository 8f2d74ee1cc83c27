"""Export architectures with random weights and statistics that fit them: to ONNX, and to `.pt2`.

    python tests/fidelity/export.py FOLDER [--only LIBRARY/NAME ...] [--seconds 300]

Each file is written when it is done, and what is there already is not done again.
"""

import argparse
import copy
import importlib
import os
import pathlib
import signal
import sys
import traceback
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import stand_ins

NORMS = ("BatchNorm", "FrozenBatchNorm")
OPSETS = (17, 14, 13, 18, 15, 16)


def outputs(value):
    """Return the tensors that a network's result is made of, in order."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    parts = value.values() if hasattr(value, "values") else value if isinstance(value, (tuple, list)) else ()
    return [tensor for part in parts for tensor in outputs(part)]


def plain(network):
    """Return a module of the network's tensors alone, which both exporters can write."""
    import torch

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return tuple(outputs(self.network(x)))

    return Plain().eval()


def sample(shape, batch):
    """Return noise for an input."""
    import torch

    if shape == "tokens":
        return torch.randint(0, 500, (batch, 24))
    return torch.randn(batch, *((3, shape, shape) if isinstance(shape, int) else shape))


def batch_norms(network):
    """Return the BatchNorms of a network, frozen ones too."""
    return [
        module for module in network.modules()
        if any(name in kind.__name__ for kind in type(module).__mro__ for name in NORMS)
        and getattr(module, "running_var", None) is not None
    ]  # fmt: skip


def randomize(network, shape, fitted):
    """Give each BatchNorm gamma of 0.5 to 1.5 and beta of 0.3 N(0, 1), and then the statistics of noise, or random
    ones."""
    import torch

    norms = batch_norms(network)
    with torch.no_grad():
        for norm in norms:
            if norm.weight is not None:
                norm.weight.copy_(torch.rand_like(norm.weight) + 0.5)
                norm.bias.copy_(0.3 * torch.randn_like(norm.bias))
            if not fitted:
                norm.running_mean.normal_(0, 0.3)
                norm.running_var.uniform_(0.5, 1.5)
                continue
            norm.momentum = None
            if hasattr(norm, "reset_running_stats"):
                norm.reset_running_stats()
            norm.train()
        for _ in range(3 if fitted else 0):
            network(sample(shape, 4))
    network.eval()
    return len(norms)


def write(path, save):
    """Call `save` with a file beside the path and put it into place, so that half a file is never seen."""
    if path.exists():
        return
    staged = path.with_name("." + path.name)
    try:
        save(str(staged))
        os.replace(staged, path)
        print("written", path.name, path.stat().st_size // 1000, "kB", flush=True)
    except Exception as error:
        print("FAILED", path.name, type(error).__name__, str(error).strip().splitlines()[:1], flush=True)
        if os.environ.get("SHOW"):
            traceback.print_exc()
    finally:
        staged.unlink(missing_ok=True)


def save_onnx(network, x, path, opset, free):
    """Export by TorchScript, with the BatchNorms kept, and the batch free or not."""
    import torch

    torch.onnx.export(
        copy.deepcopy(network), (x,), path, dynamo=False, opset_version=opset, input_names=["input"],
        training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False, verbose=False,
        dynamic_axes={"input": {0: "N"}} if free else None,
    )  # fmt: skip


def save_dynamo(network, x, path):
    """Export by torch.export, in the opset that it writes."""
    import torch

    torch.onnx.export(network, (x,), dynamo=True, optimize=False, verbose=False, opset_version=18).save(path)


def save_reference(network, shape, batch, path):
    """Write inputs, and what the network computes of them in float64."""
    import numpy
    import torch

    double = copy.deepcopy(network).double()
    inputs = [sample(shape, batch) for _ in range(8)]
    with torch.no_grad():
        runs = [double(x.double() if x.is_floating_point() else x) for x in inputs]
    results = {f"y{index}": torch.stack(values).numpy() for index, values in enumerate(zip(*runs, strict=True))}
    numpy.savez(path, x=torch.stack(inputs).numpy(), **results)


def export(library, name, shape, folder):
    """Write all the forms of one architecture."""
    import libraries
    import torch
    from architectures import UNFITTED

    label = f"{library}_{name}".replace("-", "_").replace(".yaml", "").lower()
    seed = zlib.crc32(label.encode())
    lowest = {"own": 13, "pytorchcv": 13, "transformers": 16}.get(library, 14)  # what their operators take
    opset = max(OPSETS[seed % len(OPSETS)], lowest)
    ends = (".onnx", ".pt2", ".npz", *([".dynamo.onnx"] if seed % 3 == 1 else []))
    files = [folder / (label + end) for end in ends]
    if all(file.exists() for file in files):
        return
    torch.manual_seed(seed)
    size = (shape, shape) if isinstance(shape, int) else shape
    network = getattr(libraries, library)(name, size[0] if library == "transformers" else size).eval()
    count = randomize(network, shape, f"{library}/{name}" not in UNFITTED)
    network = plain(network)
    torch.manual_seed(seed)
    batch = 2 if library == "own" else 1
    x = sample(shape, batch)
    with torch.no_grad():
        results = network(x)
    sizes = ", ".join(f"{tuple(y.shape)} rms {y.square().mean().sqrt():.2g}" for y in results[:3])
    print(label, count, "BatchNorms", sizes, flush=True)
    writers = {
        ".onnx": lambda path: save_onnx(network, x, path, opset, seed % 3 == 0),
        ".pt2": lambda path: torch.export.save(torch.export.export(network, (x,)), path),
        ".npz": lambda path: save_reference(network, shape, batch, path),
        ".dynamo.onnx": lambda path: save_dynamo(network, x, path),
    }
    for file, end in zip(files, ends, strict=True):
        write(file, writers[end])


def main():
    """Export what was asked for, one after the other."""
    from architectures import ARCHITECTURES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seconds", type=int, default=300)
    options = parser.parse_args()
    importlib.import_module("transformers")  # before the stand-ins, since it asks whether torchvision is there
    stand_ins.install("torchvision", "torchaudio")
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("takes too long")))
    for library, names in ARCHITECTURES.items():
        for name, shape in names.items():
            if options.only and f"{library}/{name}" not in options.only and library not in options.only:
                continue
            signal.alarm(options.seconds)
            try:
                export(library, name, shape, options.folder)
            except Exception as error:
                print("FAILED", library, name, type(error).__name__, str(error).splitlines()[:1], flush=True)
                if os.environ.get("SHOW"):
                    traceback.print_exc()
            finally:
                signal.alarm(0)


if __name__ == "__main__":
    main()
