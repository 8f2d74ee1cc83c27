"""Worker processes on this machine, each by itself: one that dies takes nothing with it but its own task."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

TRIES = 2
"""How often a task is begun whose process dies: once may be an accident."""


class WorkerDied(Exception):
    """A worker process died more than once over the same task."""


class Processes(Executor):
    """``jobs`` worker processes. One :class:`ProcessPoolExecutor` for all would give up all tasks if one dies."""

    def __init__(self, jobs: int) -> None:
        self._threads = ThreadPoolExecutor(jobs)
        self._own = threading.local()
        self._pools: set[ProcessPoolExecutor] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` in one of the processes."""
        return self._threads.submit(self._run, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; with ``cancel_futures`` at once, in the middle of their work."""
        if cancel_futures:
            for process in multiprocessing.active_children():
                process.terminate()
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait)

    def __exit__(self, kind: object, *_: object) -> None:
        self.shutdown(cancel_futures=kind is not None)

    def _run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In one of the threads, each of which has one process behind it."""
        for _ in range(TRIES):
            pool = self._pool()
            try:
                return pool.submit(fn, *args, **kwargs).result()
            except BrokenProcessPool:
                pool.shutdown(wait=False)
                self._pools.discard(pool)
                self._own.pool = None
        raise WorkerDied(f"its process died, {TRIES} times")

    def _pool(self) -> ProcessPoolExecutor:
        pool: ProcessPoolExecutor | None = getattr(self._own, "pool", None)
        if pool is None:
            context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
            pool = self._own.pool = ProcessPoolExecutor(1, context, _ignore_interrupts)
            self._pools.add(pool)
        return pool


def _ignore_interrupts() -> None:
    """Ctrl-C is for the parent, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
