"""How long a command took, and each stage of a fold."""

from __future__ import annotations

import time


class Stopwatch:
    """Runs from the moment that it is made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """The seconds since then."""
        return time.perf_counter() - self._started


class StageTimer:
    """Adds up the seconds of the stages, which are there from the start."""

    def __init__(self, *stages: str) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(stages or ("load", "plan", "fold", "verify", "write"), 0.0)
        self._last = time.perf_counter()

    def record(self, stage: str) -> None:
        """Add the seconds since the last call to ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now
