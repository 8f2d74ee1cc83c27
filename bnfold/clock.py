"""Seconds per stage of a fold."""

from __future__ import annotations

import time

STAGES = ("load", "plan", "fold", "verify", "write")


class Clock:
    """Seconds per stage; a stage that is entered twice adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What has passed since the last lap was ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now
