"""Time two models in interleaved runs, in a process of its own.

It is started by :func:`bnfold.verification.runtime.runner.spawn`.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bnfold.verification.runtime.jobs import serve
from bnfold.verification.runtime.worker import Session, load_arrays


@dataclass(frozen=True)
class BenchJob:
    """Time ``models`` on one sample of the ``inputs`` at each of the ``levels``; ``threads`` 0: as it likes."""

    models: list[str]
    inputs: list[str]
    levels: list[str]
    device: str
    runs: int
    warmup: int
    threads: int


@dataclass(frozen=True)
class BenchResult:
    """Milliseconds per level, model and round."""

    levels: list[list[list[float]]]


def run(job: BenchJob, folder: Path) -> BenchResult:
    """Time the models in interleaved runs; which goes first changes from round to round."""
    feed = load_arrays(folder / "input-0.npz", job.inputs)
    found = []
    for level in job.levels:
        sessions = [_session(job, model, level) for model in job.models]
        runs = [session.bound(feed) for session in sessions]
        for _ in range(job.warmup):
            for once in runs:
                once()
        times: list[list[float]] = [[], []]
        gc.disable()
        for turn in range(job.runs):
            for index in (0, 1) if turn % 2 == 0 else (1, 0):
                times[index].append(_timed(runs[index]))
        gc.enable()
        found.append(times)
    return BenchResult(found)


def _session(job: BenchJob, model: str, level: str) -> Session:
    """As deployed: deterministic kernels, which verification asks for, may be slower ones."""
    return Session(model, level, job.device, deterministic=False, threads=job.threads)


def _timed(once: Callable[[], None]) -> float:
    start = time.perf_counter()
    once()
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    serve(sys.argv[1], BenchJob, run)
