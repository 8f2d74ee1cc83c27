"""Runs two models by turns in a process of its own, started by :func:`bnfold.verification.runtime.runner.spawn`."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bnfold.verification.runtime.worker import DeviceMissing, Session, load_arrays


def main(job_path: str) -> None:
    """Do what the job file says and leave ``result.json`` beside it."""
    job = json.loads(Path(job_path).read_text())
    folder = Path(job_path).parent
    try:
        result: dict[str, Any] = {"levels": run(job, folder)}
    except DeviceMissing as error:
        result = {"error": str(error), "device": True}
    except Exception as error:  # whatever onnxruntime raises is the answer
        result = {"error": f"{type(error).__name__}: {error}"}
    (folder / "result.json").write_text(json.dumps(result))


def run(job: dict[str, Any], folder: Path) -> list[list[list[float]]]:
    """Milliseconds per level, model and round. Who goes first changes from round to round."""
    feed = load_arrays(folder / "input-0.npz", job["inputs"])
    found = []
    for level in job["levels"]:
        sessions = [_session(job, model, level) for model in job["models"]]
        runs = [session.bound(feed) for session in sessions]
        for _ in range(job["warmup"]):
            for once in runs:
                once()
        times: list[list[float]] = [[], []]
        gc.disable()
        for turn in range(job["runs"]):
            for index in (0, 1) if turn % 2 == 0 else (1, 0):
                times[index].append(_timed(runs[index]))
        gc.enable()
        found.append(times)
    return found


def _session(job: dict[str, Any], model: str, level: str) -> Session:
    """As deployed: deterministic kernels, which verification asks for, may be slower ones."""
    return Session(model, level, job["device"], deterministic=False, threads=job["threads"])


def _timed(once: Callable[[], None]) -> float:
    start = time.perf_counter()
    once()
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1])
