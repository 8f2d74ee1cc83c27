"""Worker processes on this machine, each by itself: one that dies takes nothing with it but its own task."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from bnfold.report.terminal import hear_warnings

TRIES = 2
"""How often a task is begun whose process dies: once may be an accident."""


class WorkerDied(Exception):
    """A worker process died more than once over the same task."""


class Processes(Executor):
    """``jobs`` worker processes. One :class:`ProcessPoolExecutor` for all would give up all tasks if one dies."""

    def __init__(self, jobs: int) -> None:
        self._threads = ThreadPoolExecutor(jobs)
        self._own = threading.local()
        self._pools: dict[ProcessPoolExecutor, int] = {}
        self._closing = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` in one of the processes."""
        return self._threads.submit(self._run, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; with ``cancel_futures`` at once, in the middle of their work, which they clear away."""
        self._closing = self._closing or cancel_futures
        if cancel_futures:
            for process in list(self._pools.values()):
                with contextlib.suppress(OSError):
                    os.kill(process, signal.SIGTERM)
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in list(self._pools):
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
                self._pools.pop(pool, None)
                self._own.pool = None
                if self._closing:
                    raise
        raise WorkerDied(f"its process died, {TRIES} times")

    def _pool(self) -> ProcessPoolExecutor:
        pool: ProcessPoolExecutor | None = getattr(self._own, "pool", None)
        if pool is None:
            context = multiprocessing.get_context("spawn")  # a fork would copy locks that other threads hold
            pool = self._own.pool = ProcessPoolExecutor(1, context, _take_orders)
            self._pools[pool] = pool.submit(os.getpid).result()
        return pool


def _take_orders() -> None:
    """Ctrl-C is for the parent, which tells its workers to end; they clear away what they have begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    hear_warnings()


def _end(*_: object) -> None:
    raise SystemExit(143)
