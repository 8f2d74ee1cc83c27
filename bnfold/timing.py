"""How long each stage took."""

from __future__ import annotations

import time


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
