"""Worker processes on this machine, each by itself: one that dies takes nothing with it but its own task.

The pools of the standard library start their processes with the current directory on the module search path; these
are started by :mod:`bnfold.isolation`, and run :mod:`bnfold.batch.worker`.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from bnfold import isolation

TRIES = 2
"""How often a task is begun whose process dies: once may be an accident."""


class WorkerDied(Exception):
    """A worker process died more than once over the same task."""


class Processes(Executor):
    """``jobs`` worker processes; each has a thread here that hands it one call after the other."""

    def __init__(self, jobs: int) -> None:
        self._threads = ThreadPoolExecutor(jobs)
        self._own = threading.local()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._closing = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` in one of the processes; it must be importable there, its arguments and result must pickle."""
        return self._threads.submit(self._run, pickle.dumps((fn, args, kwargs)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; with ``cancel_futures`` at once, in the middle of their work, which they clear away."""
        self._closing = self._closing or cancel_futures
        if cancel_futures:
            for process in list(self._processes):
                process.terminate()
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for process in list(self._processes):
            self._end(process)

    def __exit__(self, kind: object, *_: object) -> None:
        self.shutdown(cancel_futures=kind is not None)

    def _run(self, call: bytes) -> Any:
        """Hand a call to this thread's process, and return or raise what comes back."""
        for _ in range(TRIES):
            if self._closing:
                break
            process = self._process()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(call)
                process.stdin.flush()
                done, outcome = pickle.load(process.stdout)
            except (EOFError, OSError, pickle.UnpicklingError):
                self._end(process)
                self._own.process = None
                continue
            if done:
                return outcome
            raise outcome
        raise WorkerDied("the run was interrupted" if self._closing else f"its process died, {TRIES} times")

    def _process(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is None:
            command = isolation.command("bnfold.batch.worker")
            # In the user's folder, whose relative paths they are given; nothing is imported from there.
            process = self._own.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._processes.add(process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Close a process's pipes, by which it ends, and wait for that."""
        self._processes.discard(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()
