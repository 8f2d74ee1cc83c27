"""What this machine can do: versions, devices that really run a model, and what is missing with the command for it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bnfold.results.model import head

PARTS = {
    "onnx": ("reads and writes models", "pip install onnx"),
    "numpy": ("computes the folds", "pip install numpy"),
    "click": ("the command line", "pip install click"),
    "rich": ("tables and progress", "pip install rich"),
    "onnxruntime": ("runs models: verify, bench, calibrate", "pip install 'bnfold[cpu]'  (or 'bnfold[cuda]')"),
    "torch": ("PyTorch exported programs (.pt2)", "pip install 'bnfold[torch]'"),
    "onnxscript": ("fold --to onnx, for PyTorch exported programs", "pip install 'bnfold[torch]'"),
    "matplotlib": ("--plot and --report html", "pip install 'bnfold[html]'"),
    "jinja2": ("--report html", "pip install 'bnfold[html]'"),
    "distributed": ("--dask", "pip install 'bnfold[dask]'"),
}
"""Each library: what bnfold needs it for, and how to get it."""

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
"""Distributions that bring the module onnxruntime; they overwrite each other's files."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: ``ok``, ``missing`` (optional) or ``broken``, and what to do about it."""

    subject: str
    state: str
    detail: str
    remedy: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was checked on this machine."""

    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        """True if nothing is broken; an optional library that is not installed does not count."""
        return not any(finding.state == "broken" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **head("doctor"),
            "healthy": self.healthy,
            "findings": [asdict(finding) for finding in self.findings],
        }


def diagnose() -> Diagnosis:
    """Check everything. Devices are tried with a tiny model, in processes of their own."""
    from bnfold.version import __version__

    machine = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    )
    found = [Finding("bnfold", "ok", f"{__version__} in {Path(__file__).parent}"), Finding("machine", "ok", machine)]
    found += [_library(name) for name in PARTS]
    found += _runtimes()
    if importlib.util.find_spec("onnxruntime") is not None:
        found += _devices()
    return Diagnosis(found)


def _library(name: str) -> Finding:
    use, remedy = PARTS[name]
    if importlib.util.find_spec(name) is None:
        needed = name in ("onnx", "numpy", "click", "rich")
        return Finding(name, "broken" if needed else "missing", f"not installed; needed for {use}", remedy)
    return Finding(name, "ok", f"{_version(name)}: {use}")


def _version(name: str) -> str:
    for distribution in (name, f"{name}-gpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def _runtimes() -> list[Finding]:
    """Two onnxruntimes in one environment are half of each."""
    there = []
    for name in RUNTIMES:
        try:
            there.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(there) < 2:
        return []
    remedy = f"pip uninstall -y {' '.join(RUNTIMES)}, then install one of them"
    return [Finding("onnxruntime", "broken", f"{' and '.join(there)} overwrite each other's files", remedy)]


def _devices() -> list[Finding]:
    """Which providers onnxruntime lists, and whether a model really runs there."""
    import numpy as np
    from onnx import TensorProto, helper

    from bnfold.io.folders import temporary
    from bnfold.options import Limits
    from bnfold.verification.runtime import runner as runtime
    from bnfold.verification.runtime.devices import DEVICES, RunMode
    from bnfold.verification.runtime.runner import RunFailed

    one = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [one], [other])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = []
    with temporary() as folder:
        path = folder / "probe.onnx"
        path.write_bytes(model.SerializeToString())
        for kind in DEVICES:
            device, remedy = f"{kind.name}:0" if kind.numbered else kind.name, kind.remedy
            try:
                runtime.run(path, [{"x": np.ones(4, np.float32)}], [RunMode("disable")], device, Limits(60.0))
                found.append(Finding(f"device {device}", "ok", "ran a model"))
            except RunFailed as error:
                state = "broken" if kind.is_host else "missing"
                found.append(Finding(f"device {device}", state, str(error), remedy))
    return found
