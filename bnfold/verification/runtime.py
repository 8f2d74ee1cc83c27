"""Run models on onnxruntime, each in a subprocess with a time limit; a crash is an answer, not a disaster."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold.verification.worker import enumerate_keys

Sample = Mapping[str, NDArray[Any]]

WORKER = ["-m", "bnfold.verification.worker"]
"""What Python is to run, before the path of the job."""

TIME_LIMIT = 600.0
"""Seconds that one run may take."""


class RunFailed(Exception):
    """The model could not be run; the message says why, in one line."""


@dataclass(frozen=True)
class Run:
    """The outputs of every sample, by name, and what ran them."""

    outputs: list[dict[str, NDArray[Any]]]
    provider: str
    version: str


def available() -> bool:
    """True if onnxruntime is installed. It is not imported."""
    return importlib.util.find_spec("onnxruntime") is not None


def run(model: Path, samples: Sequence[Sample], level: str, time_limit: float = TIME_LIMIT) -> Run:
    """Run ``model`` on every sample at an optimisation level. Raises RunFailed."""
    with tempfile.TemporaryDirectory(prefix="bnfold-run-") as temporary:
        folder = Path(temporary)
        inputs = list(samples[0])
        for index, sample in enumerate(samples):
            arrays: dict[str, Any] = {key: sample[name] for key, name in enumerate_keys(inputs)}
            np.savez(folder / f"input-{index}.npz", **arrays)
        job = {"model": str(model.absolute()), "level": level, "inputs": inputs, "samples": len(samples)}
        (folder / "job.json").write_text(json.dumps(job))
        result = _spawn(folder, time_limit)
        outputs = []
        for index in range(len(samples)):
            with np.load(folder / f"output-{index}.npz", allow_pickle=False) as stored:
                outputs.append({n: stored[f"o{k}"] for k, n in enumerate(result["outputs"])})
        return Run(outputs, result["providers"][0], result["onnxruntime"])


def _spawn(folder: Path, time_limit: float) -> dict[str, Any]:
    command = [sys.executable, *WORKER, str(folder / "job.json")]
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=time_limit, check=False, env={**os.environ, "PYTHONPATH": path}
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(f"onnxruntime took more than {time_limit:.0f} s") from None
    if done.returncode < 0:
        raise RunFailed(f"onnxruntime crashed with {signal.Signals(-done.returncode).name}")
    result_path = folder / "result.json"
    if done.returncode or not result_path.exists():
        raise RunFailed(f"onnxruntime's process ended with exit code {done.returncode}")
    result: dict[str, Any] = json.loads(result_path.read_text())
    if "error" in result:
        raise RunFailed(" ".join(str(result["error"]).split()))
    return result
