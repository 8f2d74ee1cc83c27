"""Torch's own tools for folding BatchNorm beside bnfold, on every kind of module that the tests know.

``python -m benchmarks.torch_peers`` writes the table of docs/pytorch.md: how many of the kinds that can be folded each
tool folds rightly, and every kind where it computes something else than the module did. ``--resnet50 FOLDER`` times a
ResNet-50 instead.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import io
import itertools
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

import bnfold
from bnfold.api import FoldOptions
from tests.frontends.torch.modules import KINDS

ROOT = Path(__file__).parents[1]

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 1e-1}
MARKS = ("<!-- torch-peers -->", "<!-- /torch-peers -->")

PAIRS = [("conv", "bn"), ("conv1", "bn1"), ("conv2", "bn2"), ("linear", "bn")]
"""Names under which layers and their BatchNorms stand in the kinds that are no Sequential."""

Run = Callable[..., Any]
Folded = tuple[Run, int]
"""What runs the folded network, and how many BatchNorms are left in it."""


def by_bnfold(module: nn.Module, inputs: tuple[Tensor, ...]) -> Folded:
    """``bnfold.fold``, without its verification: what is judged here is the fold."""
    program = bnfold.fold(module, options=FoldOptions(verify=None), example_inputs=inputs).model
    return program.module(), _norms(program.graph)


def by_fx_fuse(module: nn.Module, inputs: tuple[Tensor, ...]) -> Folded:
    """``torch.fx.experimental.optimization.fuse``: pairs of modules in a symbolic trace."""
    from torch.fx.experimental.optimization import fuse

    del inputs
    fused = fuse(copy.deepcopy(module))
    return fused, _modules(fused)


def by_fuse_modules(module: nn.Module, inputs: tuple[Tensor, ...]) -> Folded:
    """``torch.ao.quantization.fuse_modules``, given the names of each layer and of its BatchNorm."""
    from torch.ao.quantization import fuse_modules

    del inputs
    copied = copy.deepcopy(module)
    names = [name for name, _ in copied.named_children()]
    layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.ConvTranspose1d, nn.ConvTranspose2d)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    together = [*itertools.pairwise(names)] if isinstance(copied, nn.Sequential) else PAIRS
    pairs = [
        list(pair)
        for pair in together
        if set(pair) <= set(names)
        and isinstance(getattr(copied, pair[0]), layers)
        and isinstance(getattr(copied, pair[1]), norms)
    ]
    fused = fuse_modules(copied, pairs) if pairs else copied
    return fused, _modules(fused)


def by_inductor(module: nn.Module, inputs: tuple[Tensor, ...]) -> Folded:
    """``torch.compile`` with inductor's freezing.

    A BatchNorm is left where the graph that it generates code for still multiplies by, or subtracts, a stored tensor (a
    PReLU's slope is taken for one).
    """
    import torch._dynamo
    from torch._inductor import config
    from torch._inductor.custom_graph_pass import CustomGraphPass

    left = 0

    class Count(CustomGraphPass):
        def __call__(self, graph: fx.Graph) -> None:
            nonlocal left
            products = (node for node in graph.nodes if str(node.target) in ("aten.mul.Tensor", "aten.sub.Tensor"))
            own = sum(any(used.op == "get_attr" for used in node.all_input_nodes) for node in products)
            left = own + _norms(graph) + sum("rsqrt" in str(node.target) for node in graph.nodes)

        def uuid(self) -> None:
            return None

    torch._dynamo.reset()
    with config.patch(freezing=True, fx_graph_cache=False, post_grad_custom_post_pass=Count()), torch.no_grad():
        compiled = torch.compile(module)
        compiled(*[tensor.clone() for tensor in inputs])
    return compiled, left


def by_exporter(module: nn.Module, inputs: tuple[Tensor, ...]) -> Folded:
    """The ONNX exporter with its optimizer, which folds BatchNorm into Conv, on onnxruntime."""
    import onnxruntime

    exported = torch.onnx.export(module, inputs, dynamo=True, optimize=True, verbose=False)
    file = io.BytesIO()
    exported.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*tensors: Tensor) -> Tensor:
        fed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return torch.from_numpy(session.run(None, fed)[0])

    left = sum(node.op_type == "BatchNormalization" for node in exported.model_proto.graph.node)
    return run, left


TOOLS = {
    "bnfold": by_bnfold,
    "`fx.experimental.optimization.fuse`": by_fx_fuse,
    "`ao.quantization.fuse_modules`": by_fuse_modules,
    "inductor, `freezing=True`": by_inductor,
    "ONNX exporter, `optimize=True`": by_exporter,
}


def _norms(graph: Any) -> int:
    return sum("batch_norm" in str(node.target) for node in graph.nodes)


def _modules(module: nn.Module) -> int:
    return sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def outcome(name: str, tool: Callable[..., Folded]) -> tuple[str, str]:
    """``folded``, ``left``, ``wrong`` or ``fails``, and what to say of it."""
    kind = KINDS[name]
    torch.manual_seed(0)
    module, inputs = kind.module(), kind.drawn()
    reference = copy.deepcopy(module)
    try:
        run, left = tool(module, inputs)
        with torch.no_grad():
            got = run(*[tensor.clone() for tensor in inputs]).double()
    except Exception as error:  # whatever a tool raises is its outcome
        return "fails", f"{type(error).__name__}"
    with torch.no_grad():
        want = reference(*[tensor.clone() for tensor in inputs]).double()
    error = float((got - want).abs().max() / want.abs().max())
    if not error <= TOLERANCES[inputs[0].dtype]:
        return "wrong", f"off by {error:.2g}"
    return ("folded" if not left else "left"), ""


def compare() -> str:
    """The table, and the list of what is wrong."""
    foldable = [name for name, kind in KINDS.items() if kind.folded and not kind.kept]
    others = len(KINDS) - len(foldable)
    heads = ("tool", "folds all", "leaves some", "fails", "wrong result", f"wrong result, of the {others} others")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    wrong: list[str] = []
    for title, tool in TOOLS.items():
        counts, beyond = dict.fromkeys(("folded", "left", "fails", "wrong"), 0), 0
        for name in KINDS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                what, why = outcome(name, tool)
            print(f"{title:40s} {name:25s} {what} {why}", file=sys.stderr)
            if name in foldable:
                counts[what] += 1
            if what == "wrong":
                wrong.append(f"- {title}: `{name}`, {why}")
                beyond += name not in foldable
        assert sum(counts.values()) == len(foldable)
        lines.append(f"| {title} | {' | '.join(map(str, (*counts.values(), beyond)))} |")
    when = datetime.date.today().strftime("%B %Y")
    shown_text = [
        f"Measured in {when} with torch {torch.__version__} (`python -m benchmarks.torch_peers`) on {len(KINDS)} kinds",
        f"of modules, {len(foldable)} of which can be folded:",
        "",
        *lines,
    ]
    return "\n".join([*shown_text, "", "The wrong results:", "", *(wrong or ["- nothing"]), ""])


class Block(nn.Module):
    """ResNet's bottleneck."""

    def __init__(self, inner: int, outer: int, stride: int, source: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(source, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        short = nn.Sequential(nn.Conv2d(source, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        self.downsample = short if stride != 1 or source != outer else None

    def forward(self, x: Tensor) -> Tensor:
        """Three convolutions beside a shortcut."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet50() -> nn.Module:
    """ResNet-50 with random weights and statistics."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    source = 64
    for count, inner, stride in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)):
        for place in range(count):
            layers.append(Block(inner, inner * 4, stride if place == 0 else 1, source))
            source = inner * 4
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    return module.eval()


def time_resnet50(folder: Path) -> None:
    """Seconds of torch's own load and save, and of bnfold's stages, on one file."""
    path = folder / "resnet50.pt2"
    sizes = ({0: torch.export.Dim("batch", min=2, max=64)},)
    torch.export.save(torch.export.export(resnet50(), (torch.randn(2, 3, 224, 224),), dynamic_shapes=sizes), path)
    start = time.perf_counter()
    program = torch.export.load(path)
    loaded = time.perf_counter()
    torch.export.save(program, folder / "copy.pt2")
    saved = time.perf_counter()
    size = path.stat().st_size / 1e6
    print(f"torch alone: load {loaded - start:.2f} s, save {saved - loaded:.2f} s; {size:.0f} MB")
    result = bnfold.fold(path, folder / "folded.pt2", FoldOptions(verify=None), force=True)
    print({stage: round(seconds, 2) for stage, seconds in result.seconds.items()}, result.inspection.summary())
    folded = torch.export.load(folder / "folded.pt2")
    print("batch of 3:", tuple(folded.module()(torch.randn(3, 3, 224, 224)).shape))


def main() -> None:
    """Write the table, or time a ResNet-50."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resnet50", type=Path, metavar="FOLDER", help="time a ResNet-50, with files in FOLDER")
    given = parser.parse_args()
    if given.resnet50:
        time_resnet50(given.resnet50)
        return
    page = ROOT / "docs" / "pytorch.md"
    text = page.read_text()
    start, end = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
    page.write_text(f"{text[:start]}\n{compare()}{text[end:]}")


if __name__ == "__main__":
    main()
