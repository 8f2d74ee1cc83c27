"""Run models in processes of their own, with limits of time and memory; a crash is a result like any other."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from bnfold import isolation
from bnfold.io.folders import temporary
from bnfold.options import Limits
from bnfold.progress import is_listening, report
from bnfold.verification.runtime.devices import RunMode
from bnfold.verification.runtime.jobs import JOB, RESULT, Failure, result_from_json, to_json
from bnfold.verification.runtime.worker import PROGRESS, RunJob, RunResult, load_arrays, save_arrays
from bnfold.version import ONE_THREAD

Sample = Mapping[str, NDArray[Any]]
R = TypeVar("R")

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
    """Return True if onnxruntime is installed. It is not imported."""
    return importlib.util.find_spec("onnxruntime") is not None


def run(
    model: Path, samples: Sequence[Sample], modes: Sequence[RunMode], device: str = "cpu", limits: Limits | None = None
) -> Run:
    """Run ``model`` on every sample in each mode, by default on the CPU. Raises RunFailed, DeviceMissing."""
    with job_folder(samples) as folder:
        job = RunJob(str(model.absolute()), list(modes), device, list(samples[0]), len(samples))
        result = spawn(WORKER, folder, job, RunResult, limits or Limits(), task=model.name)
        outputs = [
            [load_arrays(folder / f"output-{mode}-{sample}.npz", result.outputs) for sample in range(len(samples))]
            for mode in range(len(modes))
        ]
        return Run(outputs, result.outputs, result.on_cpu, result.version)


@contextmanager
def job_folder(samples: Sequence[Sample]) -> Iterator[Path]:
    """A temporary folder with the samples in it, as ``input-<i>.npz``."""
    with temporary() as folder:
        for index, sample in enumerate(samples):
            save_arrays(folder / f"input-{index}.npz", sample.values())
        yield folder


def spawn(
    worker: str, folder: Path, job: Any, result: type[R], limits: Limits, *, task: str = "", trusted: bool = False
) -> R:
    """Let the module ``worker`` do a ``job`` (a dataclass) in ``folder``, and return its result.

    ``task`` is what progress calls it. ``trusted``: see :func:`bnfold.isolation.command`.
    Raises RunFailed, DeviceMissing.
    """
    (folder / JOB).write_text(to_json(job))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            isolation.command(worker, str(folder / JOB), trusted=trusted),
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(),
        )
        try:
            _watch(process, limits, folder / PROGRESS, task)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode < 0:
        raise RunFailed(f"its process crashed with {signal.Signals(-process.returncode).name}")
    result_path = folder / RESULT
    if process.returncode or not result_path.exists():
        last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
        raise RunFailed(f"its process ended with exit code {process.returncode}{': ' + last[0] if last else ''}"[:300])
    found = result_from_json(result_path.read_text(), result)
    if isinstance(found, Failure):
        message = " ".join(found.error.split())
        raise DeviceMissing(message) if found.device_missing else RunFailed(message)
    return found


def environment() -> dict[str, str]:
    """The variables of this process, without the limit on threads that a worker must not share."""
    ours = ("OPENBLAS_NUM_THREADS", ONE_THREAD)
    return {name: value for name, value in os.environ.items() if (name, value) != ours}


def _watch(process: subprocess.Popen[bytes], limits: Limits, written: Path, task: str) -> None:
    """Wait for the end of a process, or until it takes too much time or memory. Raises RunFailed.

    The progress that it writes to the file ``written`` is reported.
    """
    end = time.monotonic() + limits.seconds
    _report_progress(written, task)
    while True:
        try:
            patience = 0.05 if limits.memory else 0.2 if is_listening() else limits.seconds
            process.wait(min(patience, max(end - time.monotonic(), 0.01)))
            return
        except subprocess.TimeoutExpired:
            _report_progress(written, task)
        if time.monotonic() >= end:
            raise LimitReached(f"it took more than {limits.seconds:.3g} s")
        if limits.memory and (taken := _resident(process.pid)) > limits.memory:
            raise LimitReached(
                f"it took {taken / 2**20:.0f} MiB of memory; {limits.memory / 2**20:.0f} MiB are allowed"
            )


def _report_progress(written: Path, task: str) -> None:
    """Report the progress that a process wrote: two numbers."""
    if is_listening():
        with contextlib.suppress(OSError, ValueError):
            done, total = map(int, written.read_text().split())
            report(done, total, task)
            return
        report(0, None, task)


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split() for line in status.splitlines() if line.startswith("VmRSS")]
    return int(found[0][1]) * 1024 if found else 0
