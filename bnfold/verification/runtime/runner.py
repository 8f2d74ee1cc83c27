"""Run models in processes of their own, with limits of time and memory; a crash is an answer, not a disaster."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnfold import isolation
from bnfold.io.folders import temporary
from bnfold.isolation import ONE_THREAD
from bnfold.options import Limits
from bnfold.progress import is_listening, report
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.worker import PROGRESS, load_arrays

Sample = Mapping[str, NDArray[Any]]

WORKER = "bnfold.verification.runtime.worker"
"""The module that runs models."""


class RunFailed(Exception):
    """The model could not be run; the message says why, in one line."""


class LimitReached(RunFailed):
    """The run was stopped: it took more time or memory than it may. That says nothing about the model."""


class DeviceMissing(RunFailed):
    """The device asked for is not really there."""


@dataclass(frozen=True)
class Run:
    """The outputs of every sample by name, for each mode; what ran on the CPU although another device was asked for."""

    outputs: list[list[dict[str, NDArray[Any]]]]
    names: list[str]
    on_cpu: list[list[str]]
    version: str


def available() -> bool:
    """True if onnxruntime is installed. It is not imported."""
    return importlib.util.find_spec("onnxruntime") is not None


def run(
    model: Path, samples: Sequence[Sample], modes: Sequence[RunMode], device: str = "cpu", limits: Limits | None = None
) -> Run:
    """Run ``model`` on every sample in each mode. Raises RunFailed, DeviceMissing."""
    with job_folder(samples) as folder:
        inputs = list(samples[0])
        job = {
            "model": str(model.absolute()),
            "modes": [{"level": mode.level, "options": dict(mode.options)} for mode in modes],
            "device": device,
            "inputs": inputs,
            "samples": len(samples),
        }
        result = spawn(WORKER, folder, job, limits or Limits())
        outputs = [
            [load_arrays(folder / f"output-{mode}-{sample}.npz", result["outputs"]) for sample in range(len(samples))]
            for mode in range(len(modes))
        ]
        return Run(outputs, result["outputs"], result["on_cpu"], result["onnxruntime"])


@contextmanager
def job_folder(samples: Sequence[Sample]) -> Iterator[Path]:
    """A temporary folder with the samples in it, as ``input-<i>.npz``."""
    with temporary() as folder:
        for index, sample in enumerate(samples):
            arrays: dict[str, Any] = {f"a{place}": array for place, array in enumerate(sample.values())}
            np.savez(folder / f"input-{index}.npz", **arrays)
        yield folder


def spawn(
    worker: str, folder: Path, job: Mapping[str, Any], limits: Limits, *, trusted: bool = False
) -> dict[str, Any]:
    """Let the module ``worker`` do a job in ``folder``, and return what it left in ``result.json``.

    ``trusted``: see :func:`bnfold.isolation.command`. Raises RunFailed, DeviceMissing.
    """
    (folder / "job.json").write_text(json.dumps(job))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            isolation.command(worker, str(folder / "job.json"), trusted=trusted),
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(),
        )
        try:
            _watch(process, limits, folder / PROGRESS, str(job.get("task") or Path(str(job.get("model", ""))).name))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode < 0:
        raise RunFailed(f"its process crashed with {signal.Signals(-process.returncode).name}")
    result_path = folder / "result.json"
    if process.returncode or not result_path.exists():
        last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
        raise RunFailed(f"its process ended with exit code {process.returncode}{': ' + last[0] if last else ''}"[:300])
    result: dict[str, Any] = json.loads(result_path.read_text())
    if "error" in result:
        message = " ".join(str(result["error"]).split())
        raise DeviceMissing(message) if result.get("device") else RunFailed(message)
    return result


def environment() -> dict[str, str]:
    """The variables of this process, without the thrift of ours that a worker must not share."""
    ours = ("OPENBLAS_NUM_THREADS", ONE_THREAD)
    return {name: value for name, value in os.environ.items() if (name, value) != ours}


def _watch(process: subprocess.Popen[bytes], limits: Limits, told: Path, task: str) -> None:
    """Wait for the end of a process, or for the moment in which it takes too much. Raises RunFailed.

    What it tells of its progress in a file is told on.
    """
    end = time.monotonic() + limits.seconds
    _tell_on(told, task)
    while True:
        try:
            patience = 0.05 if limits.memory else 0.2 if is_listening() else limits.seconds
            process.wait(min(patience, max(end - time.monotonic(), 0.01)))
            return
        except subprocess.TimeoutExpired:
            _tell_on(told, task)
        if time.monotonic() >= end:
            raise LimitReached(f"it took more than {limits.seconds:.3g} s")
        if limits.memory and (taken := _resident(process.pid)) > limits.memory:
            raise LimitReached(
                f"it took {taken / 2**20:.0f} MiB of memory; {limits.memory / 2**20:.0f} MiB are allowed"
            )


def _tell_on(told: Path, task: str) -> None:
    """What a process wrote of its progress: two numbers."""
    if is_listening():
        with contextlib.suppress(OSError, ValueError):
            done, total = map(int, told.read_text().split())
            report(done, total, task)
            return
        report(0, None, task)


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split() for line in status.splitlines() if line.startswith("VmRSS")]
    return int(found[0][1]) * 1024 if found else 0
