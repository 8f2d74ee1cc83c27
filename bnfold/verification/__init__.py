"""Judge whether a folded model computes what the original computes: gates, cheapest first."""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnfold import __version__
from bnfold.files.load import LoadedModel, load
from bnfold.verification.outputs import OutputOptions, check_outputs
from bnfold.verification.results import GateResult, LayerResult, OutputResult, Verification
from bnfold.verification.weights import check_weights

GATES = ("weights", "outputs")


@dataclass(frozen=True)
class VerifyOptions:
    """Which gates to run, and how the outputs are judged."""

    gates: Collection[str] = GATES
    outputs: OutputOptions = field(default_factory=OutputOptions)


def verify_files(original: Path, folded: Path, options: VerifyOptions) -> tuple[Verification, LoadedModel, LoadedModel]:
    """Judge ``folded`` against ``original``. Raises InputError if either can't be read."""
    first, second = load(original), load(folded)
    gates: list[GateResult] = []
    layers: list[LayerResult] = []
    outputs: list[OutputResult] = []
    device: dict[str, Any] = {"asked": "cpu", "used": None, "nodes_on_cpu": [], "provider_options": {}}
    fed: dict[str, Any] = {"source": None, "seed": options.outputs.inputs.seed, "samples": 0}
    if "weights" in options.gates:
        gate, layers = check_weights(first, second)
        gates.append(gate)
    if "outputs" in options.gates:
        found = check_outputs(original, folded, options.outputs)
        gates.append(found.gate)
        outputs, fed, device = found.results, found.fed, found.device
    return Verification(gates, layers, outputs, device, fed, versions()), first, second


def versions() -> dict[str, str]:
    """What took part, for the report."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"bnfold": __version__, "python": platform.python_version()}
    for package in ("onnx", "numpy", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
