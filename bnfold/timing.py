"""How long each stage took."""

from __future__ import annotations

import time


class StageTimer:
    """Adds up the seconds of the stages, which are there from the start."""

    def __init__(self, *stages: str) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(stages or ("load", "plan", "fold", "verify", "write"), 0.0)
        self._last = time.perf_counter()

    def record(self, stage: str) -> None:
        """Book the time since the last call under ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now
